//! What is written down: sequences, draws, what was published.

use flash_types::Timestamp;
use serde_json::Value;
use side_books::SideError;
use side_books::command::hex;
use side_books::sql::{Get as _, Reads, SqlError, Tx, query};

use super::{Seed, commitment, queries};
use crate::canonical;
use crate::definition::Definition;

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

/// Publishes a version of the rules; gives its hash. The same again changes nothing.
///
/// # Errors
/// `Broken` where that version says something else; the database's.
///
/// # Cancel safety
/// The transaction is rolled back.
pub async fn freeze(
    tx: &mut Tx,
    campaign: &str,
    version: i64,
    definition: &Definition,
    now: Timestamp,
) -> Result<String, SideError> {
    let value = serde_json::to_value(definition)
        .map_err(|error| SqlError::Broken(format!("a definition is no JSON: {error}")))?;
    let hash = canonical::hash(&value);
    let insert = query(queries::FREEZE)
        .bind(campaign.to_owned())
        .bind(version)
        .bind(canonical::text(&value))
        .bind(hash.clone())
        .bind(now.0);
    if tx.execute(insert).await? == 0 {
        let select = query(queries::VERSION_HASH)
            .bind(campaign.to_owned())
            .bind(version);
        let row = tx.row(select).await?.ok_or(SqlError::Conflict)?;
        if row.text("hash")? != hash {
            return Err(broken(campaign, "published this version with other rules"));
        }
    }
    Ok(hash)
}

/// Publishes the commitment to a seed; gives it. The same again changes nothing.
///
/// # Errors
/// `Broken` where the campaign is committed to another seed; the database's.
///
/// # Cancel safety
/// The transaction is rolled back.
pub async fn commit(
    tx: &mut Tx,
    campaign: &str,
    seed: &Seed,
    now: Timestamp,
) -> Result<String, SideError> {
    let commitment = commitment(seed);
    let insert = query(queries::COMMIT)
        .bind(campaign.to_owned())
        .bind(commitment.clone())
        .bind(now.0);
    if tx.execute(insert).await? == 0 {
        let select = query(queries::SEED).bind(campaign.to_owned());
        let row = tx.row(select).await?.ok_or(SqlError::Conflict)?;
        if row.text("commitment")? != commitment {
            return Err(broken(campaign, "is committed to another seed"));
        }
    }
    Ok(commitment)
}

/// Reveals the seed, in the transaction that settles the campaign. Once; again changes nothing.
///
/// # Errors
/// `Broken` where it is not the seed that was committed to; the database's.
///
/// # Cancel safety
/// The transaction is rolled back.
pub async fn reveal(
    tx: &mut Tx,
    campaign: &str,
    seed: &Seed,
    now: Timestamp,
) -> Result<(), SideError> {
    let update = query(queries::REVEAL)
        .bind(hex(&seed.0))
        .bind(now.0)
        .bind(campaign.to_owned())
        .bind(commitment(seed));
    if tx.execute(update).await? == 1 || is_revealed(tx, campaign).await? {
        Ok(())
    } else {
        Err(broken(campaign, "is not committed to this seed"))
    }
}

/// Whether the seed was revealed.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn is_revealed(reads: &mut impl Reads, campaign: &str) -> Result<bool, SideError> {
    let row = reads
        .row(query(queries::SEED).bind(campaign.to_owned()))
        .await?;
    match row {
        Some(row) => Ok(row.text_or_null("seed")?.is_some()),
        None => Ok(false),
    }
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
