//! What a giveaway brings to the common life.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use flash_types::Timestamp;
use flash_types::side::BoxFuture;
use serde_json::Value;
use side_books::sql::{Get as _, Reads, Tx, query};
use side_books::{SideError, budget};
use side_campaign::definition::Definition;
use side_campaign::draws::Seed;
use side_campaign::kind::{CampaignKind, Commitment, Finding, WorstCase};
use side_campaign::life::Campaign;

use super::{Give, GiveawayRules, House, queries, reserve, rules, settle};

/// The kind `giveaway`.
pub struct Giveaway {
    give: Arc<dyn Give>,
    /// Most draws of the next piece: halved by each one that fails, one more after each that does not.
    draws_max: AtomicI64,
}

impl Giveaway {
    /// With the ways in which it gives.
    pub fn new(give: Arc<dyn Give>) -> Self {
        Self {
            give,
            draws_max: AtomicI64::new(settle::DRAWS_PER_PIECE),
        }
    }
}

impl Default for Giveaway {
    fn default() -> Self {
        Self::new(Arc::new(House))
    }
}

impl CampaignKind for Giveaway {
    fn name(&self) -> &'static str {
        "giveaway"
    }

    fn check(&self, definition: &Definition) -> Result<WorstCase, Vec<Finding>> {
        rules::check(definition)
    }

    fn improves(&self, from: &Value, to: &Value) -> Result<(), Vec<Finding>> {
        rules::improves(from, to)
    }

    /// Keeps budget for the prizes that will be drawn: it must be funded by then. Commits to no root: who joins is not known.
    fn prepare<'a>(
        &'a self,
        tx: &'a mut Tx,
        campaign: &'a Campaign,
        _seed: &'a Seed,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Commitment, SideError>> {
        Box::pin(async move {
            reserve::keep(tx, campaign, now).await?;
            Ok(Commitment::default())
        })
    }

    /// More winners, or others by plan B: their prizes are kept from now on.
    fn adopt<'a>(
        &'a self,
        tx: &'a mut Tx,
        campaign: &'a Campaign,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), SideError>> {
        Box::pin(reserve::keep(tx, campaign, now))
    }

    fn settle<'a>(
        &'a self,
        tx: &'a mut Tx,
        campaign: &'a Campaign,
        seed: &'a Seed,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<bool, SideError>> {
        Box::pin(async move {
            let draws_max = self.draws_max.load(Ordering::Relaxed).max(1);
            // It stays so where this one fails, or is given up as too slow.
            self.draws_max.store(draws_max / 2, Ordering::Relaxed);
            let is_done = settle::piece(tx, &*self.give, campaign, seed, draws_max, now).await?;
            let next = (draws_max + 1).min(settle::DRAWS_PER_PIECE);
            self.draws_max.store(next, Ordering::Relaxed);
            Ok(is_done)
        })
    }
}

/// Whether who joins now must reckon with getting less than all that joining gives: the budget does not hold another one, or
/// the last one who joined was told so. For the campaign's public view.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn is_dry(reads: &mut impl Reads, campaign: &Campaign) -> Result<bool, SideError> {
    let Ok(rules) = GiveawayRules::parse(&campaign.definition.rules) else {
        return Ok(false);
    };
    let costs = campaign.definition.rewards.iter();
    let costs = costs.filter(|rule| rules.per_participant.contains(&rule.reward));
    let each_minor = costs.fold(0_i64, |sum, rule| sum.saturating_add(rule.cost_minor()));
    let budget = budget::read(reads, &campaign.id).await?;
    if budget.is_some_and(|budget| budget.available_minor < each_minor) {
        return Ok(true);
    }
    for reward in &rules.per_participant {
        let select = query(queries::LAST_STATE)
            .bind(campaign.id.clone())
            .bind(reward.clone());
        if let Some(row) = reads.row(select).await?
            && row.text("state")? == "RUN_DRY"
        {
            return Ok(true);
        }
    }
    Ok(false)
}
