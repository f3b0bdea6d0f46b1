//! Commands on one prize: a row that the transaction has to itself, the rules, and what follows for the budget.

use flash_types::Timestamp;
use serde::{Deserialize, Serialize};
use side_books::seal::Sealer;
use side_books::sql::{Reads as _, SqlError, Tx, query};
use side_books::{SideError, budget, id};
use side_campaign::notices::{self, Subject, ToBuyer};
use utoipa::ToSchema;

use super::model::{self, PrizeState};
use super::queries::{self, Prize};
use super::refusal::PrizeRefusal;
use super::view::PrizeView;
use crate::coupons::Issue;
use crate::grants::hold_key;

/// Where a prize goes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Of whom: 1-64 characters.
    pub name: String,
    /// 5-32 characters: digits, spaces, `+`, `-`, brackets.
    pub phone: String,
    /// 1-512 characters.
    pub address: String,
}

/// Without what is in it.
impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Claim(..)")
    }
}

/// Makes the prize of a grant, and tells its buyer; its id.
pub(crate) async fn issue(
    tx: &mut Tx,
    issue: &Issue<'_>,
    now: Timestamp,
) -> Result<String, SideError> {
    let claim_until = later(now, model::CLAIM_MS);
    let prize_id = id::fresh("pz", now);
    let insert = query(queries::INSERT)
        .bind(prize_id.clone())
        .bind(issue.campaign.to_owned())
        .bind(issue.rule.reward.clone())
        .bind(issue.rule.title.clone())
        .bind(issue.buyer.to_owned())
        .bind(issue.grant_id.to_owned())
        .bind(issue.source.to_owned())
        .bind(issue.rule.cost_minor())
        .bind(claim_until.0)
        .bind(now.0);
    tx.execute(insert).await?;
    let words = format!(
        "You won: {}. Say where it goes until {}",
        issue.rule.title,
        claim_until.text().as_str()
    );
    let notice = ToBuyer {
        key: &notice_key(&prize_id),
        kind: "reward",
        buyer: issue.buyer,
        words: &words,
        subject: &Subject::Campaign(issue.campaign.to_owned()),
        due_at: now,
        until: Some(claim_until),
    };
    notices::put(tx, &notice, now).await?;
    Ok(prize_id)
}

/// Writes the rank down that a prize was won by.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn set_rank(tx: &mut Tx, prize_id: &str, rank: i64) -> Result<(), SideError> {
    let update = query(queries::SET_RANK).bind(rank);
    tx.execute(update.bind(prize_id.to_owned())).await?;
    Ok(())
}

/// A buyer says where a prize goes; it may change until it is shipped.
///
/// # Errors
/// 404 for another buyer's; 409 `prize_expired`, `state_conflict`; the database's.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn claim(
    tx: &mut Tx,
    sealer: &Sealer,
    prize_id: &str,
    buyer: &str,
    claim: &Claim,
    now: Timestamp,
) -> Result<PrizeView, SideError> {
    let mut prize = have(tx, prize_id, buyer).await?;
    let state = prize.state.at(prize.claim_until, now);
    if state == PrizeState::Expired {
        return Err(PrizeRefusal::ClaimIsOver.into());
    }
    if !state.takes_address() {
        return Err(PrizeRefusal::NotClaimable(state).into());
    }
    let text = serde_json::to_string(claim).map_err(|error| SqlError::Broken(error.to_string()))?;
    prize.address_sealed = Some(sealer.seal(&context(prize_id), &text));
    prize.state = PrizeState::Claimed;
    prize.claimed_at = prize.claimed_at.or(Some(now));
    write(tx, &prize).await?;
    Ok(PrizeView::of(prize, now))
}

/// Where a prize goes, and of which campaign it is.
///
/// # Errors
/// 404; 409 `state_conflict` where there is no address; `Broken` where it was sealed with another key; the database's.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn address(
    tx: &mut Tx,
    sealer: &Sealer,
    prize_id: &str,
) -> Result<(String, Claim), SideError> {
    let prize = find(tx, prize_id).await?;
    let sealed = prize
        .address_sealed
        .ok_or(PrizeRefusal::NoAddress(prize.state))?;
    let text = sealer.open(&context(prize_id), &sealed);
    let text = text.map_err(|bad| SqlError::Broken(format!("address of {prize_id}: {bad}")))?;
    let claim = serde_json::from_str(&text);
    // What is wrong with it would quote it.
    let claim = claim.map_err(|_| SqlError::Broken(format!("address of {prize_id}")))?;
    Ok((prize.campaign, claim))
}

/// A claimed prize is on its way: its cost is spent. Again, it corrects carrier and tracking.
///
/// # Errors
/// 404; 409 `state_conflict`; the database's.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn ship(
    tx: &mut Tx,
    prize_id: &str,
    carrier: &str,
    tracking: &str,
    now: Timestamp,
) -> Result<PrizeView, SideError> {
    let mut prize = find(tx, prize_id).await?;
    match prize.state {
        PrizeState::Claimed => {
            prize.state = PrizeState::Fulfilling;
            prize.shipped_at = Some(now);
            prize.address_until = Some(later(now, model::ADDRESS_KEPT_UNDELIVERED_MS));
            if prize.cost_minor > 0 {
                budget::post(tx, &hold_key(&prize.grant_id), prize.cost_minor, now).await?;
            }
        }
        PrizeState::Fulfilling => {}
        state @ (PrizeState::Drawn
        | PrizeState::Delivered
        | PrizeState::Expired
        | PrizeState::Withdrawn) => return Err(PrizeRefusal::NotShippable(state).into()),
    }
    prize.carrier = Some(carrier.to_owned());
    prize.tracking = Some(tracking.to_owned());
    write(tx, &prize).await?;
    Ok(PrizeView::of(prize, now))
}

/// A shipped prize arrived. The same again changes nothing.
///
/// # Errors
/// 404 for another buyer's; 409 `state_conflict`; the database's.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn receive(
    tx: &mut Tx,
    prize_id: &str,
    buyer: &str,
    now: Timestamp,
) -> Result<PrizeView, SideError> {
    let mut prize = have(tx, prize_id, buyer).await?;
    match prize.state {
        PrizeState::Fulfilling => {
            prize.state = PrizeState::Delivered;
            prize.delivered_at = Some(now);
            let kept_until = later(now, model::ADDRESS_KEPT_MS);
            prize.address_until = prize.address_sealed.as_ref().map(|_| kept_until);
            write(tx, &prize).await?;
        }
        PrizeState::Delivered => {}
        state @ (PrizeState::Drawn
        | PrizeState::Claimed
        | PrizeState::Expired
        | PrizeState::Withdrawn) => return Err(PrizeRefusal::NotShipped(state).into()),
    }
    Ok(PrizeView::of(prize, now))
}

/// Erases an address; before shipping the prize waits to be claimed again. Nothing there is as good. Gives the campaign too.
///
/// # Errors
/// 404; the database's.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn erase_address(
    tx: &mut Tx,
    prize_id: &str,
    now: Timestamp,
) -> Result<(String, PrizeView), SideError> {
    let mut prize = find(tx, prize_id).await?;
    if prize.address_sealed.is_some() {
        prize.address_sealed = None;
        prize.address_until = None;
        if prize.state == PrizeState::Claimed {
            prize.state = PrizeState::Drawn;
            prize.claimed_at = None;
        }
        write(tx, &prize).await?;
    }
    Ok((prize.campaign.clone(), PrizeView::of(prize, now)))
}

/// Takes a prize back, where it was not shipped, and forgets its address; its grant, budget and counts are the caller's.
pub(crate) async fn withdraw(tx: &mut Tx, prize_id: &str) -> Result<bool, SideError> {
    let mut prize = find(tx, prize_id).await?;
    if !prize.state.is_revocable() {
        return Ok(false);
    }
    prize.state = PrizeState::Withdrawn;
    prize.address_sealed = None;
    prize.address_until = None;
    write(tx, &prize).await?;
    notices::withdraw(tx, &notice_key(prize_id)).await?;
    Ok(true)
}

async fn find(tx: &mut Tx, prize_id: &str) -> Result<Prize, SideError> {
    let row = tx
        .row(query(queries::HAVE).bind(prize_id.to_owned()))
        .await?;
    let row = row.ok_or(PrizeRefusal::NotFound)?;
    Ok(Prize::read(&row)?)
}

async fn have(tx: &mut Tx, prize_id: &str, buyer: &str) -> Result<Prize, SideError> {
    let prize = find(tx, prize_id).await?;
    if prize.buyer == buyer {
        Ok(prize)
    } else {
        Err(PrizeRefusal::NotFound.into())
    }
}

async fn write(tx: &mut Tx, prize: &Prize) -> Result<(), SqlError> {
    let update = query(queries::WRITE)
        .bind(prize.state.as_str())
        .bind(prize.address_sealed.clone())
        .bind(prize.address_until.map(|at| at.0))
        .bind(prize.carrier.clone())
        .bind(prize.tracking.clone())
        .bind(prize.claimed_at.map(|at| at.0))
        .bind(prize.shipped_at.map(|at| at.0))
        .bind(prize.delivered_at.map(|at| at.0))
        .bind(prize.id.clone());
    tx.execute(update).await?;
    Ok(())
}

fn notice_key(prize_id: &str) -> String {
    format!("prize|{prize_id}")
}

fn context(prize_id: &str) -> String {
    format!("prize|{prize_id}|address")
}

fn later(now: Timestamp, ms: i64) -> Timestamp {
    Timestamp(now.0.saturating_add(ms)).min(Timestamp::MAX)
}
