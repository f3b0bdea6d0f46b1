//! Lists of winners: of a draw, of a board. Published masked.

use flash_types::Timestamp;
use serde::{Deserialize, Serialize};
use side_books::SideError;
use side_books::sql::{Get as _, Reads, Row, SqlError, Tx, query};
use utoipa::ToSchema;

use super::{participant, queries};

/// A winner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Winner<'a> {
    /// Of which campaign.
    pub campaign: &'a str,
    /// Of which list: a stream, a board.
    pub list: &'a str,
    /// From 1.
    pub rank: i64,
    /// Who.
    pub buyer: &'a str,
    /// What a board ranks by.
    pub score: Option<i64>,
    /// The reward's name in the definition.
    pub reward: &'a str,
    /// What became of it: `GIVEN`, `WAITING`, `RUN_DRY`.
    pub state: &'a str,
    /// The draw that proves it: stream and sequence.
    pub proof: Option<(&'a str, i64)>,
}

/// Writes a winner down.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The transaction is rolled back.
pub async fn announce(tx: &mut Tx, winner: &Winner<'_>, now: Timestamp) -> Result<(), SideError> {
    let insert = query(queries::ANNOUNCE)
        .bind(winner.campaign.to_owned())
        .bind(winner.list.to_owned())
        .bind(winner.rank)
        .bind(winner.buyer.to_owned())
        .bind(winner.score)
        .bind(winner.reward.to_owned())
        .bind(winner.state.to_owned())
        .bind(winner.proof.map(|(stream, _)| stream.to_owned()))
        .bind(winner.proof.map(|(_, sequence)| sequence))
        .bind(now.0);
    tx.execute(insert).await?;
    Ok(())
}

/// A winner as everybody may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WinnerView {
    /// Of which list: a stream, a board.
    pub list: String,
    /// From 1.
    pub rank: i64,
    /// First and last character of the buyer's id, three stars between. For people: what is proved is `participant`.
    pub buyer: String,
    /// SHA-256 of `campaign|buyer`, hexadecimal: the winner knows himself.
    pub participant: String,
    /// What a board ranks by.
    pub score: Option<i64>,
    /// The reward's name in the definition.
    pub reward: String,
    /// `GIVEN`, `WAITING` for a person, `RUN_DRY`.
    pub state: String,
    /// Stream of the draw that proves it.
    pub stream: Option<String>,
    /// Sequence of that draw.
    pub sequence: Option<i64>,
    /// Unix ms.
    pub at_ms: i64,
}

/// Up to `limit` winners after a list and rank.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn page(
    reads: &mut impl Reads,
    campaign: &str,
    after: (&str, i64),
    limit: i64,
) -> Result<Vec<WinnerView>, SideError> {
    let select = query(queries::WINNERS)
        .bind(campaign.to_owned())
        .bind(after.0.to_owned())
        .bind(after.1)
        .bind(limit);
    let rows = reads.rows(select).await?;
    Ok(rows
        .iter()
        .map(|row| view(campaign, row))
        .collect::<Result<_, SqlError>>()?)
}

fn view(campaign: &str, row: &Row) -> Result<WinnerView, SqlError> {
    let buyer = row.text("buyer")?;
    Ok(WinnerView {
        list: row.text("list")?,
        rank: row.int("rank")?,
        buyer: mask(&buyer),
        participant: participant(campaign, &buyer),
        score: row.int_or_null("score")?,
        reward: row.text("reward")?,
        state: row.text("state")?,
        stream: row.text_or_null("stream")?,
        sequence: row.int_or_null("sequence")?,
        at_ms: row.int("at_ms")?,
    })
}

/// First and last character with three stars between, whatever the length; of ids with fewer than four characters only
/// stars, since two of three would be nearly all.
pub fn mask(buyer: &str) -> String {
    let mut characters = buyer.chars();
    match (characters.next(), characters.next_back()) {
        (Some(first), Some(last)) if buyer.chars().count() >= 4 => format!("{first}***{last}"),
        (_, _) => "***".to_owned(),
    }
}

/// A page of winners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WinnerPage {
    /// In the order of their lists and ranks.
    pub items: Vec<WinnerView>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}
