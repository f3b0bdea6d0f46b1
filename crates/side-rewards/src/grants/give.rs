//! Giving: one grant, whole or not at all.

use flash_types::Timestamp;
use serde::{Deserialize, Serialize};
use side_books::budget::{self, Held, Hold};
use side_books::sql::{Get as _, Reads as _, SqlError, Tx, query};
use side_books::{SideError, id};
use side_campaign::life::Campaign;
use side_campaign::reward::{RewardKind, RewardRule};

use super::queries::{self, Stored, hold_key};
use super::verdicts::BY_VERDICT;
use super::{Dry, Grant, Granted, Ruling};
use crate::coupons::Issue;
use crate::{coupons, prizes};

/// The rule by which something is given, kept with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Snapshot {
    pub(super) version: i64,
    pub(super) rules_hash: String,
    pub(super) currency: String,
    pub(super) rule: RewardRule,
}

impl Snapshot {
    /// Of a reward of a campaign; `None` where its definition does not name it.
    pub(super) fn of(campaign: &Campaign, reward: &str) -> Option<Self> {
        let definition = &campaign.definition;
        let rule = definition
            .rewards
            .iter()
            .find(|rule| rule.reward == reward)?;
        Some(Self {
            version: campaign.version,
            rules_hash: campaign.rules_hash.clone(),
            currency: definition.currency.as_str().to_owned(),
            rule: rule.clone(),
        })
    }

    fn kind(&self) -> &'static str {
        match self.rule.what {
            RewardKind::Coupon { .. } => "coupon",
            RewardKind::Gift { .. } => "gift",
        }
    }

    fn per_buyer_max(&self) -> Option<i64> {
        match self.rule.what {
            RewardKind::Coupon { per_buyer, .. } => per_buyer,
            RewardKind::Gift { .. } => None,
        }
    }

    fn text(&self) -> Result<String, SqlError> {
        serde_json::to_string(self).map_err(|error| SqlError::Broken(error.to_string()))
    }
}

/// Gives a reward, once per campaign, source and reward: the same again is given the same id.
///
/// # Errors
/// The database's; a reward that the definition does not name is `Broken`.
///
/// # Cancel safety
/// The transaction is the caller's: dropped, nothing was given.
pub async fn grant(
    tx: &mut Tx,
    campaign: &Campaign,
    grant: &Grant<'_>,
    now: Timestamp,
) -> Result<Granted, SideError> {
    let snapshot = Snapshot::of(campaign, grant.reward).ok_or_else(|| {
        let (campaign, reward) = (&campaign.id, grant.reward);
        SqlError::Broken(format!("campaign {campaign} has no reward {reward}"))
    })?;
    if Ruling::of(grant.verdict) == Ruling::Deny {
        let before = given_before(tx, &campaign.id, grant).await?;
        return match before {
            Some(before) => Ok(before),
            None => deny(tx, &campaign.id, &snapshot, grant, now).await,
        };
    }
    tx.execute(query(queries::SAVE)).await?;
    let given = give(tx, &campaign.id, &snapshot, grant, now).await?;
    if given.is_err() {
        tx.execute(query(queries::BACK_TO)).await?;
    }
    tx.execute(query(queries::FORGET)).await?;
    Ok(given.unwrap_or(Granted::RunDry))
}

/// Notes what would have been given: without cost, revoked from the beginning.
async fn deny(
    tx: &mut Tx,
    campaign: &str,
    snapshot: &Snapshot,
    grant: &Grant<'_>,
    now: Timestamp,
) -> Result<Granted, SideError> {
    let insert = query(queries::INSERT)
        .bind(id::fresh("gr", now))
        .bind(campaign.to_owned())
        .bind(grant.source.to_owned())
        .bind(grant.reward.to_owned())
        .bind(grant.buyer.as_str().to_owned())
        .bind(grant.order_id.map(str::to_owned))
        .bind(snapshot.kind())
        .bind("REVOKED")
        .bind(0i64)
        .bind(None::<String>)
        .bind(grant.verdict.map(str::to_owned))
        .bind(snapshot.text()?)
        .bind(now.0);
    // The same source at this moment: its fate is that of the other.
    if tx.execute(insert).await? == 1 {
        let close = query(queries::CLOSE_DENIED)
            .bind(format!("{BY_VERDICT} denied when it was due"))
            .bind(now.0)
            .bind(campaign.to_owned())
            .bind(grant.source.to_owned())
            .bind(grant.reward.to_owned());
        tx.execute(close).await?;
    }
    Ok(Granted::Denied)
}

/// Gives what waited for a person: the coupon or prize is made now. Given already, it is told again.
///
/// # Errors
/// 404 for a grant that is not there; the database's.
///
/// # Cancel safety
/// The transaction is the caller's.
pub async fn release(tx: &mut Tx, grant_id: &str, now: Timestamp) -> Result<Granted, SideError> {
    let update = query(queries::RELEASE).bind(grant_id.to_owned());
    let is_released = tx.execute(update).await? == 1;
    let row = tx
        .row(query(queries::BY_ID).bind(grant_id.to_owned()))
        .await?;
    let stored = row.ok_or_else(|| flash_types::side::SideProblem::not_found("grant"))?;
    let stored = Stored::read(&stored)?;
    if is_released {
        let snapshot: Snapshot = serde_json::from_str(&stored.rule_snapshot)
            .map_err(|error| SqlError::Broken(format!("grant {grant_id}: {error}")))?;
        let id = make(tx, &stored, &snapshot, now).await?;
        return Ok(Granted::Given { id });
    }
    outcome(&stored.state, stored.given_id).map_err(Into::into)
}

/// `Err` where something ran dry, and then the transaction has to go back to its savepoint.
async fn give(
    tx: &mut Tx,
    campaign: &str,
    snapshot: &Snapshot,
    grant: &Grant<'_>,
    now: Timestamp,
) -> Result<Result<Granted, Dry>, SideError> {
    let Some(stored) = begin(tx, campaign, snapshot, grant, now).await? else {
        let before = given_before(tx, campaign, grant).await?;
        // It was there a moment ago and nothing removes it.
        return Ok(Ok(before.ok_or(SqlError::Conflict)?));
    };
    if hold(tx, &stored, now).await? == Held::RunDry {
        return Ok(Err(Dry::Budget));
    }
    if !take(tx, campaign, snapshot, 1).await? {
        return Ok(Err(Dry::Stock));
    }
    if !take_for_buyer(tx, &stored, snapshot).await? {
        return Ok(Err(Dry::PerBuyer));
    }
    if stored.state == "WAITING" {
        return Ok(Ok(Granted::Waiting));
    }
    let id = make(tx, &stored, snapshot, now).await?;
    Ok(Ok(Granted::Given { id }))
}

/// Writes the grant down; `None` where its source has one.
pub(super) async fn begin(
    tx: &mut Tx,
    campaign: &str,
    snapshot: &Snapshot,
    grant: &Grant<'_>,
    now: Timestamp,
) -> Result<Option<Stored>, SqlError> {
    let state = match Ruling::of(grant.verdict) {
        Ruling::Give => "GIVEN",
        Ruling::Wait | Ruling::Deny => "WAITING",
    };
    let stored = Stored {
        id: id::fresh("gr", now),
        campaign: campaign.to_owned(),
        source: grant.source.to_owned(),
        reward: grant.reward.to_owned(),
        buyer: grant.buyer.as_str().to_owned(),
        kind: snapshot.kind().to_owned(),
        state: state.to_owned(),
        cost_minor: snapshot.rule.cost_minor(),
        given_id: None,
        rule_snapshot: snapshot.text()?,
    };
    let insert = query(queries::INSERT)
        .bind(stored.id.clone())
        .bind(stored.campaign.clone())
        .bind(stored.source.clone())
        .bind(stored.reward.clone())
        .bind(stored.buyer.clone())
        .bind(grant.order_id.map(str::to_owned))
        .bind(stored.kind.clone())
        .bind(stored.state.clone())
        .bind(stored.cost_minor)
        .bind((stored.cost_minor > 0).then(|| hold_key(&stored.id)))
        .bind(grant.verdict.map(str::to_owned))
        .bind(stored.rule_snapshot.clone())
        .bind(now.0);
    Ok((tx.execute(insert).await? == 1).then_some(stored))
}

/// Holds its cost; what costs nothing holds nothing.
pub(super) async fn hold(tx: &mut Tx, stored: &Stored, now: Timestamp) -> Result<Held, SideError> {
    if stored.cost_minor == 0 {
        return Ok(Held::Held);
    }
    let key = hold_key(&stored.id);
    let hold = Hold {
        key: &key,
        campaign: &stored.campaign,
        what: &stored.kind,
        amount_minor: stored.cost_minor,
    };
    budget::hold(tx, &hold, now).await
}

/// Takes `count` of a reward at once: all of them or none.
pub(super) async fn take(
    tx: &mut Tx,
    campaign: &str,
    snapshot: &Snapshot,
    count: i64,
) -> Result<bool, SqlError> {
    let reward = &snapshot.rule.reward;
    let add = || {
        let add = query(queries::TAKE).bind(count);
        add.bind(campaign.to_owned()).bind(reward.clone())
    };
    if tx.execute(add()).await? == 1 {
        return Ok(true);
    }
    let raise = query(queries::RAISE)
        .bind(campaign.to_owned())
        .bind(reward.clone())
        .bind(snapshot.rule.count_max());
    // Nothing was raised: either none is left, or another has made the row since.
    tx.execute(raise).await?;
    Ok(tx.execute(add()).await? == 1)
}

/// Counts one more for a buyer.
pub(super) async fn take_for_buyer(
    tx: &mut Tx,
    stored: &Stored,
    snapshot: &Snapshot,
) -> Result<bool, SqlError> {
    let most = snapshot.per_buyer_max().unwrap_or(i64::MAX);
    if most < 1 {
        return Ok(false);
    }
    let add = query(queries::TAKE_FOR_BUYER)
        .bind(stored.campaign.clone())
        .bind(stored.reward.clone())
        .bind(stored.buyer.clone())
        .bind(most);
    Ok(tx.execute(add).await? == 1)
}

/// Makes the coupon or prize of a grant that is given.
pub(super) async fn make(
    tx: &mut Tx,
    stored: &Stored,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Result<String, SideError> {
    let issue = Issue {
        grant_id: &stored.id,
        campaign: &stored.campaign,
        source: &stored.source,
        buyer: &stored.buyer,
        currency: &snapshot.currency,
        rule: &snapshot.rule,
    };
    let id = match snapshot.rule.what {
        RewardKind::Coupon { .. } => coupons::issue(tx, &issue, now).await?,
        RewardKind::Gift { .. } => prizes::issue(tx, &issue, now).await?,
    };
    let update = query(queries::GIVE)
        .bind(id.clone())
        .bind(stored.id.clone());
    tx.execute(update).await?;
    Ok(id)
}

async fn given_before(
    tx: &mut Tx,
    campaign: &str,
    grant: &Grant<'_>,
) -> Result<Option<Granted>, SqlError> {
    let select = query(queries::BY_SOURCE_AND_REWARD)
        .bind(campaign.to_owned())
        .bind(grant.source.to_owned())
        .bind(grant.reward.to_owned());
    let Some(row) = tx.row(select).await? else {
        return Ok(None);
    };
    outcome(&row.text("state")?, row.text_or_null("given_id")?).map(Some)
}

fn outcome(state: &str, given_id: Option<String>) -> Result<Granted, SqlError> {
    match (state, given_id) {
        ("GIVEN", Some(id)) => Ok(Granted::Given { id }),
        ("WAITING", _) => Ok(Granted::Waiting),
        ("REVOKED", _) => Ok(Granted::Denied),
        (state, _) => Err(SqlError::Broken(format!(
            "a grant is {state} without a coupon or prize"
        ))),
    }
}
