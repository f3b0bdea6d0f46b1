//! Budget that is kept for prizes from publish until they are drawn, so that rewards for joining cannot eat them.
//!
//! One hold per stream. A piece of the draw gives it up, gives prizes, and holds what is left again, in one transaction: the
//! row of the budget is that transaction's from the first of these on, so nobody comes between.

use std::collections::BTreeMap;

use flash_types::Timestamp;
use flash_types::side::SideProblem;
use side_books::budget::{self, Held, Hold};
use side_books::sql::{Get as _, Reads as _, Row, SqlError, Tx, query};
use side_books::{SideError, sql};
use side_campaign::life::Campaign;
use side_campaign::reward::RewardRule;

use super::{GiveawayRules, queries};

/// Holds the cost of all prizes by the rules in force, and gives up what was kept by others. Again changes nothing.
pub(super) async fn keep(
    tx: &mut Tx,
    campaign: &Campaign,
    now: Timestamp,
) -> Result<(), SideError> {
    let rules = GiveawayRules::parse(&campaign.definition.rules).map_err(SqlError::Broken)?;
    let mut wanted: BTreeMap<String, Reserved> = BTreeMap::new();
    for draw in &rules.draws {
        let rewards = &campaign.definition.rewards;
        let rule = rewards.iter().find(|rule| rule.reward == draw.reward);
        let reserved = Reserved {
            each_minor: rule.map_or(0, RewardRule::cost_minor),
            units: draw.winners,
            round: 1,
        };
        wanted.insert(draw.stream.clone(), reserved);
    }
    let select = query(queries::RESERVES).bind(campaign.id.clone());
    for row in tx.rows(select).await? {
        let stream = row.text("stream")?;
        let kept = Reserved::read(&row)?;
        let wants = wanted.get(&stream).copied();
        if wants.is_some_and(|wants| wants.is_as_much_as(&kept)) {
            wanted.remove(&stream);
            continue;
        }
        if kept.is_held() {
            budget::void(tx, &key(&campaign.id, &stream, kept.round), now).await?;
        }
        let mut next = wants.unwrap_or(Reserved { units: 0, ..kept });
        next.round = kept.round + 1;
        wanted.insert(stream, next);
    }
    for (stream, reserved) in wanted {
        let upsert = query(queries::RESERVE)
            .bind(campaign.id.clone())
            .bind(stream.clone())
            .bind(reserved.each_minor)
            .bind(reserved.units)
            .bind(reserved.round);
        tx.execute(upsert).await?;
        if !hold(tx, &campaign.id, &stream, &reserved, now).await? {
            let needed_minor = reserved.units.saturating_mul(reserved.each_minor);
            let budget = budget::read(tx, &campaign.id).await?.unwrap_or_default();
            let detail = format!(
                "the prizes of {stream:?} need {needed_minor} and the budget has {} left: raise budget_minor or lower winners",
                budget.available_minor
            );
            return Err(SideProblem::new(409, "state_conflict", detail).into());
        }
    }
    Ok(())
}

/// Gives up whatever is still kept.
pub(super) async fn give_up(tx: &mut Tx, campaign: &str, now: Timestamp) -> Result<(), SideError> {
    let select = query(queries::RESERVES).bind(campaign.to_owned());
    for row in tx.rows(select).await? {
        let (stream, kept) = (row.text("stream")?, Reserved::read(&row)?);
        if !kept.is_held() {
            continue;
        }
        budget::void(tx, &key(campaign, &stream, kept.round), now).await?;
        let update = query(queries::RESERVE_NEXT)
            .bind(0i64)
            .bind(kept.round + 1)
            .bind(campaign.to_owned())
            .bind(stream);
        tx.execute(update).await?;
    }
    Ok(())
}

/// What is kept for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reserved {
    each_minor: i64,
    units: i64,
    round: i64,
}

/// Gives up what is kept for a stream; [`put_back`] must follow in the same transaction.
pub(super) async fn take(
    tx: &mut Tx,
    campaign: &str,
    stream: &str,
    now: Timestamp,
) -> Result<Option<Reserved>, SideError> {
    let select = query(queries::RESERVED)
        .bind(campaign.to_owned())
        .bind(stream.to_owned());
    let Some(row) = tx.row(select).await? else {
        return Ok(None);
    };
    let reserved = Reserved::read(&row)?;
    if reserved.is_held() {
        budget::void(tx, &key(campaign, stream, reserved.round), now).await?;
    }
    Ok(Some(reserved))
}

/// Keeps what is left after `given` prizes; nothing where the stream has ended.
pub(super) async fn put_back(
    tx: &mut Tx,
    campaign: &str,
    stream: &str,
    reserved: Reserved,
    given: i64,
    is_over: bool,
    now: Timestamp,
) -> Result<(), SideError> {
    let units = if is_over {
        0
    } else {
        (reserved.units - given).max(0)
    };
    let mut next = Reserved {
        units,
        round: reserved.round + 1,
        ..reserved
    };
    if !hold(tx, campaign, stream, &next, now).await? {
        // Prizes became dearer than they were at publish: what is left is for those who are drawn first.
        next.units = 0;
    }
    let update: sql::Query<'_> = query(queries::RESERVE_NEXT)
        .bind(next.units)
        .bind(next.round)
        .bind(campaign.to_owned())
        .bind(stream.to_owned());
    tx.execute(update).await?;
    Ok(())
}

impl Reserved {
    fn read(row: &Row) -> Result<Self, SqlError> {
        Ok(Self {
            each_minor: row.int("each_minor")?,
            units: row.int("units")?,
            round: row.int("round")?,
        })
    }

    fn is_as_much_as(&self, other: &Self) -> bool {
        (self.each_minor, self.units) == (other.each_minor, other.units)
    }

    /// Prizes that cost nothing are not held.
    fn is_held(&self) -> bool {
        self.units > 0 && self.each_minor > 0
    }
}

async fn hold(
    tx: &mut Tx,
    campaign: &str,
    stream: &str,
    reserved: &Reserved,
    now: Timestamp,
) -> Result<bool, SideError> {
    if !reserved.is_held() {
        return Ok(true);
    }
    let amount_minor = reserved.units.checked_mul(reserved.each_minor);
    let Some(amount_minor) = amount_minor else {
        return Ok(false);
    };
    let promise = Hold {
        key: &key(campaign, stream, reserved.round),
        campaign,
        what: "draws",
        amount_minor,
    };
    Ok(budget::hold(tx, &promise, now).await? == Held::Held)
}

fn key(campaign: &str, stream: &str, round: i64) -> String {
    format!("giveaway|{campaign}|{stream}|{round}")
}
