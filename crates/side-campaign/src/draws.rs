//! Randomness that outsiders can recompute: a secret seed that was committed to before the start, draws that depend on
//! nothing but the seed, the campaign, a stream and the server's sequence, and a file that proves all of it afterwards.
//!
//! Owns: draws and their facts, ordered lists of tickets with their roots, lists of winners. Reads from the campaign's life
//! what was published of rules and seed. Does not know what any of it decides: each kind brings its rule to [`verify`].
//!
//! What it proves: that nobody changed rules, seed, tickets or draws after they were published, and that the server did not
//! try a draw again. What it cannot prove: that whoever holds the seed did not send buyers of his own to join.

mod draw;
pub mod file;
mod proof;
mod queries;
mod records;
mod serve;
mod verify;
mod winners;

use std::sync::Arc;

use flash_types::side::SideService;

use crate::shop::Shop;

pub use draw::{Draw, ListRoot, commitment, participant, shuffle};
pub use proof::{page as proof_page, revealed};
pub use records::{Record, next, publish_root, record, ticket};
pub use serve::DrawsService;
pub use verify::{Mismatch, Verified, VerifyKind, recompute, verify};
pub use winners::{Winner, WinnerView, announce, mask, page as winners_page};

/// Its endpoints.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    vec![Arc::new(DrawsService::new(Arc::clone(shop)))]
}

/// The secret of a campaign's draws: 32 random bytes, committed to at publish by their SHA-256, revealed at the end.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}
