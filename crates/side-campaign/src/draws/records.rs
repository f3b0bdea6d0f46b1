//! What is written down: sequences, draws, what was published.

use flash_types::Timestamp;
use serde_json::Value;
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, SqlError, Tx, query};

use super::queries;
use crate::canonical;

/// A draw that was made, and what was concluded from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<'a> {
    /// Of which campaign.
    pub campaign: &'a str,
    /// From which stream.
    pub stream: &'a str,
    /// As [`next`] gave it.
    pub sequence: i64,
    /// What it was drawn for (a session, a chance), or what was drawn (a ticket). It is published: no buyer's id.
    pub subject: &'a str,
    /// Least outcome.
    pub low: i64,
    /// Largest outcome.
    pub high: i64,
    /// What came of it.
    pub value: i64,
    /// What was concluded; published as well.
    pub detail: &'a Value,
}

/// The next sequence of a stream, from 1. It is taken back with the transaction, so there are no gaps: record the draw in the
/// same one. Draws of one stream wait for one another until then.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The transaction is rolled back.
pub async fn next(tx: &mut Tx, campaign: &str, stream: &str) -> Result<i64, SideError> {
    let next = query(queries::NEXT)
        .bind(campaign.to_owned())
        .bind(stream.to_owned());
    let row = tx.row(next).await?;
    let row = row.ok_or_else(|| SqlError::Broken("a stream gave no sequence".to_owned()))?;
    Ok(row.int("sequence")?)
}

/// Writes a draw down.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The transaction is rolled back.
pub async fn record(tx: &mut Tx, record: &Record<'_>, now: Timestamp) -> Result<(), SideError> {
    let insert = query(queries::RECORD)
        .bind(record.campaign.to_owned())
        .bind(record.stream.to_owned())
        .bind(record.sequence)
        .bind(record.subject.to_owned())
        .bind(record.low)
        .bind(record.high)
        .bind(record.value)
        .bind(now.0)
        .bind(canonical::text(record.detail));
    tx.execute(insert).await?;
    Ok(())
}

/// Publishes the root of an ordered list. The same again changes nothing.
///
/// # Errors
/// `Broken` where another root was published; the database's.
///
/// # Cancel safety
/// The transaction is rolled back.
pub async fn publish_root(
    tx: &mut Tx,
    campaign: &str,
    list: &str,
    root: &str,
    now: Timestamp,
) -> Result<(), SideError> {
    let insert = query(queries::PUBLISH_ROOT)
        .bind(campaign.to_owned())
        .bind(list.to_owned())
        .bind(root.to_owned())
        .bind(now.0);
    if tx.execute(insert).await? == 0 {
        let select = query(queries::ROOT)
            .bind(campaign.to_owned())
            .bind(list.to_owned());
        let row = tx.row(select).await?.ok_or(SqlError::Conflict)?;
        if row.text("root")? != root {
            return Err(broken(campaign, "published another root of this list"));
        }
    }
    Ok(())
}

/// Writes down a ticket of a list; positions count from 0 without gaps. Shown once the seed is.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The transaction is rolled back.
pub async fn ticket(
    tx: &mut Tx,
    campaign: &str,
    list: &str,
    position: i64,
    ticket: &str,
    at: Timestamp,
) -> Result<(), SideError> {
    let insert = query(queries::TICKET)
        .bind(campaign.to_owned())
        .bind(list.to_owned())
        .bind(position)
        .bind(ticket.to_owned())
        .bind(at.0);
    tx.execute(insert).await?;
    Ok(())
}

fn broken(campaign: &str, what: &str) -> SideError {
    SqlError::Broken(format!("the campaign {campaign} {what}")).into()
}
