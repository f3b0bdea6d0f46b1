//! Taking back: what was not used or shipped; the budget, the stock and the count of its buyer get it again.

use flash_types::Timestamp;
use side_books::sql::{Reads as _, SqlError, Tx, query};
use side_books::{SideError, budget};

use super::give::release;
use super::queries::{self, Stored, hold_key};
use crate::{coupons, prizes};

/// What a revocation did. What was used or shipped stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Ids of coupons and prizes that are gone; of a grant that waited, the grant's.
    pub taken: Vec<String>,
    /// Ids of coupons and prizes that were used, shipped or over, and so stay as they are.
    pub kept: Vec<String>,
}

/// A grant that is taken back, and what has to be counted down for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Back {
    pub(crate) campaign: String,
    pub(crate) reward: String,
    pub(crate) buyer: String,
    pub(crate) grant_id: String,
    pub(crate) cost_minor: i64,
}

/// Takes back everything that was given for a source, as far as it was not used. The same again changes nothing.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn revoke(
    tx: &mut Tx,
    campaign: &str,
    source: &str,
    reason: &str,
    now: Timestamp,
) -> Result<Revoked, SideError> {
    let select = query(queries::BY_SOURCE).bind(campaign.to_owned());
    let rows = tx.rows(select.bind(source.to_owned())).await?;
    let grants = rows.iter().map(Stored::read).collect::<Result<_, _>>()?;
    revoke_grants(tx, grants, reason, now).await
}

/// Takes back one grant. The same again changes nothing.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn revoke_given(
    tx: &mut Tx,
    grant_id: &str,
    reason: &str,
    now: Timestamp,
) -> Result<Revoked, SideError> {
    let row = tx
        .row(query(queries::BY_ID).bind(grant_id.to_owned()))
        .await?;
    let grants = row.iter().map(Stored::read).collect::<Result<_, _>>()?;
    revoke_grants(tx, grants, reason, now).await
}

/// A person decided on a buyer: what waited is released; or, denied, everything that was not used is taken back.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn on_verdict(
    tx: &mut Tx,
    campaign: &str,
    buyer: &str,
    is_denied: bool,
    reason: &str,
    now: Timestamp,
) -> Result<Revoked, SideError> {
    let select = query(queries::BY_BUYER).bind(campaign.to_owned());
    let rows = tx.rows(select.bind(buyer.to_owned())).await?;
    let grants: Vec<Stored> = rows.iter().map(Stored::read).collect::<Result<_, _>>()?;
    if is_denied {
        return revoke_grants(tx, grants, reason, now).await;
    }
    for grant in grants.iter().filter(|grant| grant.state == "WAITING") {
        release(tx, &grant.id, now).await?;
    }
    Ok(Revoked::default())
}

/// States first, then money, then counts: rows in the order that everybody keeps.
async fn revoke_grants(
    tx: &mut Tx,
    mut grants: Vec<Stored>,
    reason: &str,
    now: Timestamp,
) -> Result<Revoked, SideError> {
    // As the steps that tidy touch them: by the id of the coupon or prize.
    grants.sort_by(|a, b| (&a.given_id, &a.id).cmp(&(&b.given_id, &b.id)));
    let mut revoked = Revoked::default();
    let mut back = Vec::new();
    for grant in grants {
        let is_gone = match (grant.state.as_str(), &grant.given_id) {
            ("WAITING", _) => true,
            ("GIVEN", Some(id)) if grant.kind == "coupon" => coupons::withdraw(tx, id).await?,
            ("GIVEN", Some(id)) => prizes::withdraw(tx, id).await?,
            _ => false,
        };
        if is_gone {
            let closed = close_grant(tx, &grant.id, &grant.state, reason, now).await?;
            if !closed {
                // Released at this moment.
                return Err(SqlError::Conflict.into());
            }
            revoked
                .taken
                .push(grant.given_id.unwrap_or_else(|| grant.id.clone()));
            back.push(Back {
                campaign: grant.campaign,
                reward: grant.reward,
                buyer: grant.buyer,
                grant_id: grant.id,
                cost_minor: grant.cost_minor,
            });
        } else if let Some(id) = grant.given_id {
            revoked.kept.push(id);
        }
    }
    give_back(tx, back, now).await?;
    Ok(revoked)
}

/// Marks a grant as taken back; `false` where it is not in that state.
pub(crate) async fn close_grant(
    tx: &mut Tx,
    grant_id: &str,
    state: &str,
    reason: &str,
    now: Timestamp,
) -> Result<bool, SqlError> {
    let update = query(queries::CLOSE)
        .bind(reason.to_owned())
        .bind(now.0)
        .bind(grant_id.to_owned())
        .bind(state.to_owned());
    Ok(tx.execute(update).await? == 1)
}

/// Voids the holds and counts down, of grants that were marked.
pub(crate) async fn give_back(
    tx: &mut Tx,
    mut back: Vec<Back>,
    now: Timestamp,
) -> Result<(), SideError> {
    back.sort_unstable();
    for grant in back.iter().filter(|grant| grant.cost_minor > 0) {
        budget::void(tx, &hold_key(&grant.grant_id), now).await?;
    }
    for grant in back {
        let stock = query(queries::PUT_BACK).bind(grant.campaign.clone());
        let stocked = tx.execute(stock.bind(grant.reward.clone())).await?;
        let buyer = query(queries::PUT_BACK_FOR_BUYER)
            .bind(grant.campaign)
            .bind(grant.reward)
            .bind(grant.buyer);
        if stocked != 1 || tx.execute(buyer).await? != 1 {
            let id = grant.grant_id;
            return Err(SqlError::Broken(format!("grant {id} was not counted")).into());
        }
    }
    Ok(())
}
