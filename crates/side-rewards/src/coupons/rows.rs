//! Commands on one coupon: a row that the transaction has to itself, the rules, and what follows for the budget.

use flash_types::Timestamp;
use side_books::sql::{Reads as _, SqlError, Tx, query};
use side_books::{SideError, budget, id};
use side_campaign::reward::{RewardKind, RewardRule};

use super::model::{self, CouponState};
use super::queries::{self, Coupon};
use super::refusal::CouponRefusal;
use super::view::CouponView;
use crate::grants::hold_key;

/// What a coupon or prize is made from.
pub(crate) struct Issue<'a> {
    pub(crate) grant_id: &'a str,
    pub(crate) campaign: &'a str,
    pub(crate) source: &'a str,
    pub(crate) buyer: &'a str,
    pub(crate) currency: &'a str,
    pub(crate) rule: &'a RewardRule,
}

/// Makes the coupon of a grant; its id.
pub(crate) async fn issue(
    tx: &mut Tx,
    issue: &Issue<'_>,
    now: Timestamp,
) -> Result<String, SqlError> {
    let RewardKind::Coupon {
        face_minor,
        threshold_minor,
        term_days,
        valid_from,
        valid_until,
        ..
    } = issue.rule.what
    else {
        return Err(SqlError::Broken(format!(
            "{} is no coupon",
            issue.rule.reward
        )));
    };
    let (from, until) = model::window(term_days, valid_from, valid_until, now);
    let coupon_id = id::fresh("cp", now);
    let insert = query(queries::INSERT)
        .bind(coupon_id.clone())
        .bind(issue.campaign.to_owned())
        .bind(issue.rule.reward.clone())
        .bind(issue.rule.title.clone())
        .bind(issue.buyer.to_owned())
        .bind(issue.grant_id.to_owned())
        .bind(issue.source.to_owned())
        .bind(face_minor)
        .bind(threshold_minor)
        .bind(issue.currency.to_owned())
        .bind(from.0)
        .bind(until.0)
        .bind(now.0);
    tx.execute(insert).await?;
    Ok(coupon_id)
}

/// An order takes a buyer's coupon for a while: 30 minutes, or until it uses it or lets go.
///
/// # Errors
/// 404 for another buyer's; 409 `below_threshold`, `coupon_expired`, `coupon_not_valid_yet`, `state_conflict`; the
/// database's. Nothing was changed, but the transaction has to be rolled back.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn lock(
    tx: &mut Tx,
    coupon_id: &str,
    buyer: &str,
    order_id: &str,
    order_amount_minor: i64,
    now: Timestamp,
) -> Result<CouponView, SideError> {
    let mut coupon = have(tx, coupon_id, buyer).await?;
    let locked = coupon.life.lock(order_id, order_amount_minor, now);
    if let Err(why) = locked {
        return Err(CouponRefusal::Life(why, Box::new(coupon)).into());
    }
    write(tx, &coupon).await?;
    Ok(CouponView::of(coupon, now))
}

/// An order uses a coupon up: what it takes off is spent, the rest of its face value goes back to the budget. The same order
/// again changes nothing.
///
/// # Errors
/// As [`lock`].
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn use_up(
    tx: &mut Tx,
    coupon_id: &str,
    buyer: &str,
    order_id: &str,
    order_amount_minor: Option<i64>,
    now: Timestamp,
) -> Result<CouponView, SideError> {
    let mut coupon = have(tx, coupon_id, buyer).await?;
    match coupon.life.use_up(order_id, order_amount_minor, now) {
        Err(why) => return Err(CouponRefusal::Life(why, Box::new(coupon)).into()),
        Ok(false) => {}
        Ok(true) => {
            write(tx, &coupon).await?;
            let spent = coupon.life.discount_minor.unwrap_or(coupon.life.face_minor);
            if coupon.life.face_minor > 0 {
                budget::post(tx, &hold_key(&coupon.grant_id), spent, now).await?;
            }
        }
    }
    Ok(CouponView::of(coupon, now))
}

/// An order lets go of a coupon: free again, or over where its time is. The same again changes nothing.
///
/// # Errors
/// 404 for another buyer's; 409 `state_conflict` where another order has it or it was used; the database's.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn unlock(
    tx: &mut Tx,
    coupon_id: &str,
    buyer: &str,
    order_id: &str,
    now: Timestamp,
) -> Result<CouponView, SideError> {
    let mut coupon = have(tx, coupon_id, buyer).await?;
    let before = coupon.life.clone();
    if let Err(why) = coupon.life.unlock(order_id, now) {
        return Err(CouponRefusal::Life(why, Box::new(coupon)).into());
    }
    if coupon.life != before {
        write(tx, &coupon).await?;
    }
    if coupon.life.state == CouponState::Expired && before.state != CouponState::Expired {
        let_go(tx, &coupon.grant_id, coupon.life.face_minor, now).await?;
    }
    Ok(CouponView::of(coupon, now))
}

/// Takes a coupon back, where it was not used; its grant, budget and counts are the caller's.
pub(crate) async fn withdraw(tx: &mut Tx, coupon_id: &str) -> Result<bool, SideError> {
    let mut coupon = find(tx, coupon_id).await?;
    if !coupon.life.revoke() {
        return Ok(false);
    }
    write(tx, &coupon).await?;
    Ok(true)
}

/// Voids the hold of a coupon that is over; it stays given, and counted.
pub(super) async fn let_go(
    tx: &mut Tx,
    grant_id: &str,
    face_minor: i64,
    now: Timestamp,
) -> Result<(), SideError> {
    if face_minor > 0 {
        budget::void(tx, &hold_key(grant_id), now).await?;
    }
    Ok(())
}

/// A coupon, for this transaction alone.
pub(super) async fn find(tx: &mut Tx, coupon_id: &str) -> Result<Coupon, SideError> {
    let row = tx
        .row(query(queries::HAVE).bind(coupon_id.to_owned()))
        .await?;
    let row = row.ok_or(CouponRefusal::NotFound)?;
    Ok(Coupon::read(&row)?)
}

async fn have(tx: &mut Tx, coupon_id: &str, buyer: &str) -> Result<Coupon, SideError> {
    let coupon = find(tx, coupon_id).await?;
    if coupon.buyer == buyer {
        Ok(coupon)
    } else {
        Err(CouponRefusal::NotFound.into())
    }
}

async fn write(tx: &mut Tx, coupon: &Coupon) -> Result<(), SqlError> {
    let life = &coupon.life;
    let update = query(queries::WRITE)
        .bind(life.state.as_str())
        .bind(life.order_id.clone())
        .bind(life.discount_minor)
        .bind(life.locked_until.0)
        .bind(life.used_at.map(|at| at.0))
        .bind(coupon.id.clone());
    tx.execute(update).await?;
    Ok(())
}
