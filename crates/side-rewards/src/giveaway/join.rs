//! Joining: once per buyer; what joining gives is held in the budget before it is told.

use std::collections::BTreeMap;

use flash_types::side::SideProblem;
use flash_types::{BuyerId, Timestamp};
use serde::{Deserialize, Serialize};
use side_books::SideError;
use side_books::sql::{Get as _, Reads, Row, SqlError, Tx, query};
use side_campaign::draws;
use side_campaign::entry::{self, Entrant};
use side_campaign::life::Campaign;
use side_campaign::shop::Shop;
use utoipa::ToSchema;

use super::{Give, GiveawayRules, queries};
use crate::grants::{Grant, Granted};

/// A participation as its buyer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Joined {
    /// RFC 3339.
    #[schema(value_type = String)]
    pub joined_at: Timestamp,
    /// Never paid an order before the campaign's start.
    pub is_new_buyer: bool,
    /// What joining gave.
    pub rewards: Vec<JoinedReward>,
}

/// What joining gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinedReward {
    /// Its name in the definition.
    pub reward: String,
    /// Id of the coupon or prize; null where it is not given.
    pub id: Option<String>,
    /// As it stands now: `GIVEN`, `WAITING` for a person, `DENIED`, `REVOKED`: taken back, or `RUN_DRY`: there was none left.
    pub state: String,
}

/// Why nobody may join here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinRefusal {
    /// It is of another kind.
    NoGiveaway,
    /// Its end has begun.
    Ended,
    /// This buyer has not joined.
    NotIn,
}

impl From<JoinRefusal> for SideProblem {
    fn from(refusal: JoinRefusal) -> Self {
        match refusal {
            JoinRefusal::NoGiveaway => Self::new(
                409,
                "state_conflict",
                "this campaign is no giveaway: one takes part through the endpoints of its kind",
            ),
            JoinRefusal::Ended => Self::new(
                410,
                "campaign_ended",
                "it is over: nobody can join any more",
            ),
            JoinRefusal::NotIn => Self::not_found("participation: this buyer has not joined"),
        }
    }
}

/// The word in answers and tables.
pub(super) fn state_of(granted: &Granted) -> (&'static str, Option<&str>) {
    match granted {
        Granted::Given { id } => ("GIVEN", Some(id)),
        Granted::Waiting => ("WAITING", None),
        Granted::RunDry => ("RUN_DRY", None),
        Granted::Denied => ("DENIED", None),
    }
}

/// Lets a buyer join; `true` where he is in only now. The transaction must be rolled back on a refusal.
///
/// # Errors
/// What [`Give::enter`] refuses; 409 where it is no giveaway; 410 where its end has begun; the database's.
///
/// # Cancel safety
/// The transaction is rolled back.
pub async fn join(
    tx: &mut Tx,
    shop: &Shop,
    give: &dyn Give,
    campaign: &Campaign,
    entrant: &Entrant,
    now: Timestamp,
) -> Result<(Joined, bool), SideError> {
    if campaign.definition.kind != "giveaway" {
        return Err(SideProblem::from(JoinRefusal::NoGiveaway).into());
    }
    // Who is in stays in, whatever became of the campaign since.
    if let Some(joined) = joined(tx, &campaign.id, entrant.buyer).await? {
        return Ok((joined, false));
    }
    let rules = GiveawayRules::parse(&campaign.definition.rules).map_err(SqlError::Broken)?;
    let entered = give.enter(tx, shop, campaign, entrant, now).await?;
    if entered.was_in {
        // Who took part already did not wait for the row that the end holds.
        entry::hold_entries(tx, &campaign.id).await?;
    }
    let buyer = entrant.buyer.as_str();
    let insert = query(queries::JOIN)
        .bind(campaign.id.clone())
        .bind(buyer.to_owned())
        .bind(draws::participant(&campaign.id, buyer))
        .bind(entered.joined_at.0)
        .bind(i64::from(entered.is_new_buyer));
    if tx.execute(insert).await? == 0 {
        // Another call of the same buyer was quicker, or the end was.
        let joined = joined(tx, &campaign.id, entrant.buyer).await?;
        let joined = joined.ok_or_else(|| SideProblem::from(JoinRefusal::Ended))?;
        return Ok((joined, false));
    }
    let mut rewards = Vec::new();
    for reward in &rules.per_participant {
        let grant = Grant {
            source: &format!("join:{buyer}"),
            reward,
            buyer: entrant.buyer,
            order_id: None,
            verdict: entered.verdict.as_deref(),
        };
        let granted = give.grant(tx, campaign, &grant, now).await?;
        let (state, id) = state_of(&granted);
        let insert = query(queries::REWARD)
            .bind(campaign.id.clone())
            .bind(buyer.to_owned())
            .bind(reward.clone())
            .bind(id.map(str::to_owned))
            .bind(state)
            .bind(now.0);
        tx.execute(insert).await?;
        rewards.push(JoinedReward {
            reward: reward.clone(),
            id: id.map(str::to_owned),
            state: state.to_owned(),
        });
    }
    // As they are read again.
    rewards.sort_by(|one, other| one.reward.cmp(&other.reward));
    let joined = Joined {
        joined_at: entered.joined_at,
        is_new_buyer: entered.is_new_buyer,
        rewards,
    };
    Ok((joined, true))
}

/// A buyer's participation, with what joining gave as it stands now.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn joined(
    reads: &mut impl Reads,
    campaign: &str,
    buyer: BuyerId,
) -> Result<Option<Joined>, SideError> {
    let select = query(queries::PARTICIPATION)
        .bind(campaign.to_owned())
        .bind(buyer.as_str().to_owned());
    let Some(row) = reads.row(select).await? else {
        return Ok(None);
    };
    let select = query(queries::REWARDS)
        .bind(campaign.to_owned())
        .bind(buyer.as_str().to_owned());
    let reward = |row: &Row| {
        Ok(JoinedReward {
            reward: row.text("reward")?,
            id: row.text_or_null("id")?,
            state: row.text("state")?,
        })
    };
    let rewards = reads.rows(select).await?;
    let mut rewards = rewards
        .iter()
        .map(reward)
        .collect::<Result<Vec<_>, SqlError>>()?;
    rewards.sort_by(|one, other| one.reward.cmp(&other.reward));
    bring_up_to_date(reads, campaign, buyer, &mut rewards).await?;
    Ok(Some(Joined {
        joined_at: Timestamp(row.int("joined_at_ms")?),
        is_new_buyer: row.is("is_new")?,
        rewards,
    }))
}

/// Follows each reward from what joining gave to what was given again in its place, once a person allowed it.
async fn bring_up_to_date(
    reads: &mut impl Reads,
    campaign: &str,
    buyer: BuyerId,
    rewards: &mut [JoinedReward],
) -> Result<(), SideError> {
    let source = format!("join:{buyer}");
    let select = query(queries::GRANTS)
        .bind(campaign.to_owned())
        .bind(buyer.as_str().to_owned())
        .bind(source.clone());
    let mut grants = BTreeMap::new();
    for row in reads.rows(select).await? {
        grants.insert((row.text("source")?, row.text("reward")?), row);
    }
    for told in rewards {
        // Each one is taken out, so this ends.
        let mut next = grants.remove(&(source.clone(), told.reward.clone()));
        while let Some(row) = next {
            (told.state, told.id) = stands(&row)?;
            let again = format!("again:{}", row.text("id")?);
            next = grants.remove(&(again, told.reward.clone()));
        }
    }
    Ok(())
}

/// How a grant is told, and the id of what it gave.
fn stands(row: &Row) -> Result<(String, Option<String>), SqlError> {
    let state = row.text("state")?;
    if state != "REVOKED" {
        return Ok((state, row.text_or_null("given_id")?));
    }
    let reason = row.text_or_null("reason")?;
    let is_denied = reason.is_none_or(|reason| reason.starts_with("verdict:"));
    let state = if is_denied { "DENIED" } else { "REVOKED" };
    Ok((state.to_owned(), None))
}
