//! The figures that every campaign has. Each section is one file; what a day is counted by stands at each statement.

mod money;
mod people;
mod rewards;
mod trust;

use flash_types::Timestamp;
use serde_json::{Map, Value, json};
use side_books::sql::{Get as _, Query, Reader, Reads as _, Row, SqlError};
use side_campaign::life::Campaign;

use super::{Day, Figures, Section};

/// All of them.
pub fn common_figures() -> Vec<Box<dyn Figures>> {
    vec![
        Box::new(people::Participants),
        Box::new(people::Orders),
        Box::new(money::Budget),
        Box::new(money::Goals),
        Box::new(rewards::Coupons),
        Box::new(rewards::Prizes),
        Box::new(trust::Verdicts),
        Box::new(trust::Refusals),
        Box::new(trust::Notices),
        Box::new(trust::Anomalies),
    ]
}

/// The columns of a row that always comes (sums and counts), as figures of the same names. A sum over nothing is 0.
async fn integers(
    reads: &mut Reader,
    statement: Query<'_>,
    names: &[&'static str],
) -> Result<Section, SqlError> {
    let row = reads.row(statement).await?;
    let row = row.ok_or_else(|| SqlError::Broken("a sum gave no row".to_owned()))?;
    named(&row, names)
}

fn named(row: &Row, names: &[&'static str]) -> Result<Section, SqlError> {
    let mut section = Map::new();
    for name in names {
        section.insert(
            (*name).to_owned(),
            json!(row.int_or_null(name)?.unwrap_or(0)),
        );
    }
    Ok(section)
}

/// Rows of a name and a number, as one group.
async fn grouped(reads: &mut Reader, statement: Query<'_>) -> Result<Value, SqlError> {
    let mut group = Map::new();
    for row in reads.rows(statement).await? {
        group.insert(row.text("name")?, json!(row.int("number")?));
    }
    Ok(Value::Object(group))
}

/// A part in a whole, in basis points, rounded down; nothing where there is no whole.
fn basis_points(part: i64, whole: i64) -> Value {
    if whole <= 0 {
        return Value::Null;
    }
    let part = i128::from(part) * 10_000 / i128::from(whole);
    json!(i64::try_from(part).unwrap_or(i64::MAX))
}

/// What is counted for a campaign begins here: what was bought before its start is none of its doing.
fn begins_at(campaign: &Campaign) -> Timestamp {
    campaign.definition.starts_at
}
