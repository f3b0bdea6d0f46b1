//! The audit log of the campaigns: who did what, written with what they did.

use flash_types::Timestamp;

use crate::SideError;
use crate::sql::{Tx, query};

/// A note.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note<'a> {
    /// Name of the admin key, or `system`.
    pub who: &'a str,
    /// A word such as `campaign.publish`.
    pub what: &'a str,
    /// Of which campaign.
    pub campaign: Option<&'a str>,
    /// What it was done to: a coupon, a prize, a verdict.
    pub subject: Option<&'a str>,
    /// For people; no secrets, no addresses, no phone numbers.
    pub detail: &'a str,
}

/// Writes it down.
///
/// # Errors
/// The database's.
pub async fn write(tx: &mut Tx, note: &Note<'_>, now: Timestamp) -> Result<(), SideError> {
    let insert = query(
        "INSERT INTO audit_note (at_ms, who, what, campaign, subject, detail) VALUES ($1, $2, $3, $4, $5, $6)",
    );
    let insert = insert
        .bind(now.0)
        .bind(note.who.to_owned())
        .bind(note.what.to_owned())
        .bind(note.campaign.map(str::to_owned))
        .bind(note.subject.map(str::to_owned))
        .bind(note.detail.to_owned());
    tx.execute(insert).await?;
    Ok(())
}
