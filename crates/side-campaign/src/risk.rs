//! Verdicts: what rules find of buyers is recorded as data, a person has the last word, and every consequence can be undone.
//!
//! Owns: verdicts, decisions, who helped whom. Does not give or take rewards: that is for who listens ([`OnVerdict`]).
//! Invariant: `participant.verdict` is what all verdicts of a buyer in a campaign say together, shadows left out; it and
//! the listeners are told in the transaction of every change.
// Found: REVIEW or DENY by the campaign's action. A person: -> ALLOW | DENY, and from each to the other by naming it.

mod endpoints;
mod entrant;
mod help;
mod queries;
mod refund;
pub mod rules;
mod verdicts;

use std::sync::Arc;

use flash_types::side::SideService;
use side_books::step::Step;

use crate::shop::Shop;

pub(crate) use entrant::judge_entry;
pub use help::{Rings, look_around, note_help};
pub use refund::RefundRule;
pub use verdicts::{
    Decide, Decided, Decision, Found, OnVerdict, RiskRefusal, Standing, Stands, VerdictCount,
    counts, decide, latest_counts, record, standing,
};

/// Its endpoints.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    vec![Arc::new(endpoints::RiskService::new(shop.clone()))]
}

/// What goes on by itself.
pub fn steps(shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    vec![Arc::new(Rings::new(shop.clone()))]
}
