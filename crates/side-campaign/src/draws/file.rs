//! The file that proves a campaign's draws: what is published at `…/proofs`, a page at a time; pages are joined by putting
//! their lists one after another.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::winners::WinnerView;

/// What `format` says.
pub const FORMAT: &str = "stampede-proof-1";

/// The file, or a page of it: `versions` stand on the first page only, everything that is no list on each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProofFile {
    /// `stampede-proof-1`.
    pub format: String,
    /// Of which campaign.
    pub campaign: String,
    /// Its kind: says which rule decided.
    pub kind: String,
    /// Its rules, the first version first.
    pub versions: Vec<ProofVersion>,
    /// SHA-256 of the seed, published before the start.
    pub commitment: String,
    /// When it was published, Unix ms.
    pub published_at_ms: i64,
    /// What the kind committed to besides: one of `roots`.
    pub root: Option<String>,
    /// The seed, hexadecimal; null before the end.
    pub seed: Option<String>,
    /// Roots of lists of tickets.
    pub roots: Vec<ProofRoot>,
    /// Tickets of these lists in their order; none before the end.
    pub tickets: Vec<ProofTicket>,
    /// Draws; those of one stream in their order.
    pub draws: Vec<ProofDraw>,
    /// Winners; those of one list in their order.
    pub winners: Vec<WinnerView>,
    /// For the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// Rules as they were published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProofVersion {
    /// From 1.
    pub version: i64,
    /// Unix ms.
    pub at_ms: i64,
    /// The definition as it is shown to everybody; what is not shown is committed to by `private_hash`.
    #[schema(value_type = Object)]
    pub definition: Value,
    /// SHA-256 of its canonical JSON.
    pub hash: String,
}

/// The root of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProofRoot {
    /// The list.
    pub list: String,
    /// Hexadecimal.
    pub root: String,
    /// When it was published, Unix ms.
    pub at_ms: i64,
}

/// A ticket of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProofTicket {
    /// The list.
    pub list: String,
    /// From 0.
    pub position: i64,
    /// What stands on it.
    pub ticket: String,
    /// Unix ms.
    pub at_ms: i64,
}

/// A draw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProofDraw {
    /// From which stream.
    pub stream: String,
    /// From 1.
    pub sequence: i64,
    /// What it was drawn for, or what was drawn.
    pub subject: String,
    /// Least outcome.
    pub low: i64,
    /// Largest outcome.
    pub high: i64,
    /// What came of it.
    pub value: i64,
    /// Unix ms.
    pub at_ms: i64,
    /// What was concluded.
    #[schema(value_type = Object)]
    pub detail: Value,
}

impl ProofFile {
    /// Puts the next page behind this one.
    ///
    /// # Errors
    /// What differs that may not: the pages are of two files.
    pub fn join(&mut self, next: Self) -> Result<(), &'static str> {
        let is_same = self.campaign == next.campaign
            && self.commitment == next.commitment
            && self.seed == next.seed
            && self.root == next.root
            && self.roots == next.roots;
        if !is_same {
            return Err("the campaign went on between two pages: fetch it again");
        }
        self.tickets.extend(next.tickets);
        self.draws.extend(next.draws);
        self.winners.extend(next.winners);
        self.next_cursor = next.next_cursor;
        Ok(())
    }
}
