//! What the services of this crate read from requests, checked.

use flash_types::BuyerId;
use flash_types::bounds::PRICE_MINOR_MAX;
use flash_types::side::{SideProblem, SideRequest};
use side_books::wire;

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
