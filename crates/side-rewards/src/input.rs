//! What the services of this crate read from requests, checked; and the end of their transactions.

use flash_types::BuyerId;
use flash_types::bounds::PRICE_MINOR_MAX;
use flash_types::side::{SideAnswer, SideProblem, SideRequest};
use serde_json::Value;
use side_books::sql::Tx;
use side_books::{SideError, wire};

/// Longest reason, in characters.
pub(crate) const REASON_CHARS_MAX: usize = 256;

/// A text for people: not empty, not longer than `most` characters, no control characters.
pub(crate) fn text(name: &str, text: &str, most: usize) -> Result<(), SideProblem> {
    let count = text.chars().count();
    let is_blank = text.trim().is_empty();
    if is_blank || count > most || text.chars().any(char::is_control) {
        return Err(SideProblem::malformed(format!(
            "{name} is not 1-{most} characters without control characters"
        )));
    }
    Ok(())
}

/// An id of the shop's: an order, a reward.
pub(crate) fn id(name: &str, text: &str) -> Result<(), SideProblem> {
    let parsed = BuyerId::parse(text);
    parsed.map_err(|bad| SideProblem::malformed(format!("{name} {bad}")))?;
    Ok(())
}

/// An amount: 0 to 10^12 minor units.
pub(crate) fn money(name: &str, amount: i64) -> Result<i64, SideProblem> {
    wire::within(name, amount, 0, PRICE_MINOR_MAX)
}

/// A parameter that is an id; empty where absent.
pub(crate) fn id_parameter(request: &SideRequest, name: &str) -> Result<String, SideProblem> {
    let Some(text) = request.parameter(name) else {
        return Ok(String::new());
    };
    let parsed = BuyerId::parse(text);
    parsed.map_err(|bad| SideProblem::malformed(format!("the parameter {name} {bad}")))?;
    Ok(text.to_owned())
}

/// The parameter `state`: one of the words; empty where absent.
pub(crate) fn state_parameter(
    request: &SideRequest,
    words: &[&str],
) -> Result<String, SideProblem> {
    match request.parameter("state") {
        None => Ok(String::new()),
        Some(text) if words.contains(&text) => Ok(text.to_owned()),
        Some(_) => Err(SideProblem::malformed(format!(
            "the parameter state is none of {}",
            words.join(", ")
        ))),
    }
}

/// A schema under its name, for the document.
pub(crate) fn schema<T: utoipa::ToSchema + utoipa::PartialSchema>(
    name: &'static str,
) -> (&'static str, Value) {
    let schema = serde_json::to_value(T::schema());
    (name, schema.expect("a schema is plain JSON"))
}

/// Commits a yes, rolls a no back.
pub(crate) async fn end(
    tx: Tx,
    answer: Result<SideAnswer, SideError>,
) -> Result<SideAnswer, SideError> {
    match answer {
        Ok(answer) => {
            tx.commit().await?;
            Ok(answer)
        }
        Err(error) => {
            tx.rollback().await;
            Err(error)
        }
    }
}

/// A yes with a body of its own.
pub(crate) fn json(status: u16, view: &impl serde::Serialize) -> Result<SideAnswer, SideError> {
    let value = serde_json::to_value(view);
    let value = value.map_err(|error| side_books::sql::SqlError::Broken(error.to_string()))?;
    Ok(SideAnswer::json(status, &value))
}
