//! What buyers were refused, for who answers their questions: bounded for each buyer and day, counted beyond.

use flash_types::{BuyerId, Timestamp};
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, SqlError, query};

use super::queries;
use crate::shop::Shop;

/// Refusals of one buyer and day (UTC) that are kept whole; those beyond are only counted.
pub const REFUSALS_KEPT_MAX: i64 = 200;

/// Longest detail that is kept, characters.
const DETAIL_CHARS_MAX: usize = 300;

/// Something that a buyer was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused<'a> {
    /// To whom.
    pub buyer: BuyerId,
    /// Of which campaign.
    pub campaign: &'a str,
    /// Method and path with names in braces: `POST /v1/campaigns/{campaign}/sign-ups`.
    pub endpoint: &'a str,
    /// The word.
    pub outcome: &'a str,
    /// As it was told.
    pub detail: &'a str,
}

/// Writes a refusal down, in a transaction of its own: that of what was refused is rolled back.
///
/// # Errors
/// The database's; what was answered stays as it is.
///
/// # Cancel safety
/// Written or not.
pub async fn note_refusal(
    shop: &Shop,
    refused: &Refused<'_>,
    now: Timestamp,
) -> Result<(), SideError> {
    let mut tx = shop.database.begin().await?;
    let count = query(queries::COUNT_REFUSAL)
        .bind(refused.buyer.as_str().to_owned())
        .bind(now.0.div_euclid(86_400_000))
        .bind(now.0);
    let row = tx.row(count).await?;
    let refusals = row.ok_or(SqlError::Conflict)?.int("refusals")?;
    if refusals <= REFUSALS_KEPT_MAX {
        let detail: String = refused.detail.chars().take(DETAIL_CHARS_MAX).collect();
        let insert = query(queries::INSERT_REFUSAL)
            .bind(refused.buyer.as_str().to_owned())
            .bind(refused.campaign.to_owned())
            .bind(refused.endpoint.to_owned())
            .bind(refused.outcome.to_owned())
            .bind(detail)
            .bind(now.0);
        tx.execute(insert).await?;
    }
    Ok(tx.commit().await?)
}
