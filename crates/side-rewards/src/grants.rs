//! Grants: a reward given to a buyer, unique per source, its cost held in the budget until it is given.
//!
//! Owns: `reward_grant` and its caches `reward_stock` and `reward_per_buyer`. Makes coupons and prizes, takes them back.
//! Invariant: a grant that is not revoked counts once in both caches; its cost is held until its coupon is used or its prize
//! shipped (then posted), or until it is gone (then voided).
// Waiting | Given -> Revoked; Waiting -> Given. Nothing leaves Revoked.
//
// Order of rows in every transaction: coupon or prize, grant, budget, stock, per buyer. What is counted is counted by one
// conditional statement, never looked at first.

mod batch;
mod give;
mod queries;
mod service;
mod take_back;
mod verdicts;

pub use batch::{Batch, BatchRefusal, grant_all};
pub use give::{grant, release};
pub(crate) use queries::hold_key;
pub use service::BUYERS_MAX;
pub(crate) use take_back::{Back, close_grant, give_back};
pub use take_back::{Revoked, on_verdict, revoke, revoke_given};

pub use verdicts::Verdicts;

use std::sync::Arc;

use flash_types::BuyerId;
use flash_types::side::SideService;
use side_books::step::Step;
use side_campaign::shop::Shop;

/// Its endpoints.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    vec![Arc::new(service::Grants::new(shop.clone()))]
}

/// What goes on by itself.
pub fn steps(shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    vec![Arc::new(verdicts::PutOff::new(shop.clone()))]
}

/// A reward to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant<'a> {
    /// Why: unique per campaign and reward for ever, `join:<buyer>`, `tier5:<session>`, `draw:<stream>:<sequence>`.
    pub source: &'a str,
    /// The reward's name in the campaign's definition.
    pub reward: &'a str,
    /// To whom.
    pub buyer: BuyerId,
    /// The order that it is a reward for: a refund of it soon after is looked at.
    pub order_id: Option<&'a str>,
    /// A verdict makes it wait (`REVIEW`), or denies it (`DENY`).
    pub verdict: Option<&'a str>,
}

/// What became of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Granted {
    /// Given, or given before for the same source: the coupon's or prize's id.
    Given {
        /// Id of the coupon or prize.
        id: String,
    },
    /// It waits for a person.
    Waiting,
    /// The budget, or what there was of this reward, or what one buyer may have of it, is gone: nothing was changed, the
    /// transaction may go on.
    RunDry,
    /// A verdict denies it, or it was taken back before. It is noted, so that a person who allows it can have it given.
    Denied,
}

/// What ran dry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dry {
    /// The campaign's budget.
    Budget,
    /// All of this reward are given.
    Stock,
    /// This buyer has as many as one may have.
    PerBuyer,
}

/// What a verdict means for a reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ruling {
    Give,
    Wait,
    Deny,
}

impl Ruling {
    /// A verdict that is not known makes it wait: a person looks.
    fn of(verdict: Option<&str>) -> Self {
        match verdict {
            None => Self::Give,
            Some(word) if word.eq_ignore_ascii_case("allow") => Self::Give,
            Some(word) if word.eq_ignore_ascii_case("deny") => Self::Deny,
            Some(_) => Self::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_that_are_not_known_make_rewards_wait() {
        for (verdict, ruling) in [
            (None, Ruling::Give),
            (Some("ALLOW"), Ruling::Give),
            (Some("REVIEW"), Ruling::Wait),
            (Some("review"), Ruling::Wait),
            (Some("DENY"), Ruling::Deny),
            (Some("deny"), Ruling::Deny),
            (Some("else"), Ruling::Wait),
        ] {
            assert_eq!(Ruling::of(verdict), ruling, "{verdict:?}");
        }
    }
}
