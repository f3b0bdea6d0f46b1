//! A merchant gives one reward to many buyers: to all of them or to none.

use flash_types::{BuyerId, Timestamp};
use side_books::SideError;
use side_books::budget::Held;
use side_books::sql::Tx;
use side_campaign::life::Campaign;

use super::give::{self, Snapshot};
use super::{Dry, Grant};

/// One reward for many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<'a> {
    /// Unique within the campaign: the sources are `admin:<length of key>:<key>:<buyer>`, since both may hold colons.
    pub key: &'a str,
    /// The reward's name in the campaign's definition.
    pub reward: &'a str,
    /// Each once.
    pub buyers: &'a [BuyerId],
}

/// Why nobody is given anything. The transaction has to be rolled back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchRefusal {
    /// The definition does not name the reward.
    NoSuchReward,
    /// Something does not reach for all of them.
    Dry(Dry, Option<BuyerId>),
    /// One of the sources was used.
    AgainFor(BuyerId),
}

/// Gives it to each; ids of coupons or prizes in the order of the buyers.
///
/// # Errors
/// The outer: the database's. The inner: [`BatchRefusal`].
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn grant_all(
    tx: &mut Tx,
    campaign: &Campaign,
    batch: &Batch<'_>,
    now: Timestamp,
) -> Result<Result<Vec<String>, BatchRefusal>, SideError> {
    let Some(snapshot) = Snapshot::of(campaign, batch.reward) else {
        return Ok(Err(BatchRefusal::NoSuchReward));
    };
    let mut grants = Vec::with_capacity(batch.buyers.len());
    for buyer in batch.buyers {
        let source = format!("admin:{}:{}:{buyer}", batch.key.len(), batch.key);
        let grant = Grant {
            source: &source,
            reward: batch.reward,
            buyer: *buyer,
            order_id: None,
            verdict: None,
        };
        let Some(stored) = give::begin(tx, &campaign.id, &snapshot, &grant, now).await? else {
            return Ok(Err(BatchRefusal::AgainFor(*buyer)));
        };
        grants.push((*buyer, stored));
    }
    for (_, stored) in &grants {
        if give::hold(tx, stored, now).await? == Held::RunDry {
            return Ok(Err(BatchRefusal::Dry(Dry::Budget, None)));
        }
    }
    let count = i64::try_from(grants.len()).unwrap_or(i64::MAX);
    if !give::take(tx, &campaign.id, &snapshot, count).await? {
        return Ok(Err(BatchRefusal::Dry(Dry::Stock, None)));
    }
    // In one order everywhere.
    let mut by_buyer: Vec<_> = grants.iter().collect();
    by_buyer.sort_by_key(|(buyer, _)| *buyer);
    for (buyer, stored) in by_buyer {
        if !give::take_for_buyer(tx, stored, &snapshot).await? {
            return Ok(Err(BatchRefusal::Dry(Dry::PerBuyer, Some(*buyer))));
        }
    }
    let mut ids = Vec::with_capacity(grants.len());
    for (_, stored) in &grants {
        ids.push(give::make(tx, stored, &snapshot, now).await?);
    }
    Ok(Ok(ids))
}
