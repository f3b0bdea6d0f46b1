//! Refunds that come soon after a reward for their order.

use std::sync::Arc;

use flash_types::Timestamp;
use flash_types::side::BoxFuture;
use serde_json::json;
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, Tx, query};

use super::queries;
use super::rules;
use super::verdicts::{Found, OnVerdict, record};
use crate::fact::{Fact, Order, React};
use crate::life::{self, Campaign};

/// Most rewards of an order that are looked at.
const GRANTS_MAX: i64 = 200;

/// Goes by refunds.
pub struct RefundRule {
    listeners: Vec<Arc<dyn OnVerdict>>,
}

/// A reward that was given for an order.
struct Rewarded {
    campaign: String,
    reward: String,
    granted_at: Timestamp,
}

impl RefundRule {
    /// With those who go by verdicts.
    pub fn new(listeners: Vec<Arc<dyn OnVerdict>>) -> Self {
        Self { listeners }
    }

    /// Judges a refund by the rules of one campaign. `true`: a verdict is new.
    ///
    /// # Errors
    /// The database's.
    ///
    /// # Cancel safety
    /// The caller's transaction is rolled back.
    pub async fn judge(
        &self,
        tx: &mut Tx,
        campaign: &Campaign,
        order: &Order,
        now: Timestamp,
    ) -> Result<bool, SideError> {
        let rewards = rewards_for(tx, order).await?;
        let risk = &campaign.definition.risk;
        let hit = rewards.iter().find(|rewarded| {
            rewarded.campaign == campaign.id
                && rules::refund_after_reward(risk, rewarded.granted_at, now)
        });
        let Some(rewarded) = hit else {
            return Ok(false);
        };
        let evidence = json!({
            "order": order.order_id,
            "reward": rewarded.reward,
            "granted_at": rewarded.granted_at.to_string(),
            "refunded_at": now.to_string(),
            "refunded_minor": order.refunded_minor,
            "paid_minor": order.paid_minor,
            "within_s": risk.refund_after_reward_s,
        });
        let found = Found {
            rule: rules::REFUND_AFTER_REWARD,
            subject: order.buyer,
            evidence: &evidence,
        };
        record(tx, &self.listeners, campaign, &found, now).await
    }
}

/// Rewards that were given for the order.
async fn rewards_for(tx: &mut Tx, order: &Order) -> Result<Vec<Rewarded>, SideError> {
    let select = query(queries::GRANTS_FOR)
        .bind(order.order_id.clone())
        .bind(order.buyer.as_str().to_owned())
        .bind(GRANTS_MAX);
    let rows = tx.rows(select).await?;
    let rewards = rows.iter().map(|row| {
        Ok(Rewarded {
            campaign: row.text("campaign")?,
            reward: row.text("reward")?,
            granted_at: Timestamp(row.int("at_ms")?),
        })
    });
    rewards.collect()
}

impl React for RefundRule {
    fn react<'a>(
        &'a self,
        tx: &'a mut Tx,
        fact: &'a Fact,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), SideError>> {
        Box::pin(async move {
            let order = match fact {
                Fact::Refunded { order, .. } => order,
                Fact::Paid(_) | Fact::Received(_) | Fact::Reserved { .. } | Fact::Closed { .. } => {
                    return Ok(());
                }
            };
            // By campaign in order of their ids: locks are taken in one order everywhere.
            let rewards = rewards_for(tx, order).await?;
            let mut campaigns: Vec<String> = rewards
                .into_iter()
                .map(|rewarded| rewarded.campaign)
                .collect();
            campaigns.sort_unstable();
            campaigns.dedup();
            for id in campaigns {
                if let Some(campaign) = life::find(tx, &id).await? {
                    self.judge(tx, &campaign, order, now).await?;
                }
            }
            Ok(())
        })
    }
}
