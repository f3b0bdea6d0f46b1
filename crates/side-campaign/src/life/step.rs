//! What time brings: warm-up, start, end, settling piece by piece. After a downtime all that was missed, in its order.

use std::sync::Arc;
use std::time::Duration;

use flash_types::Timestamp;
use flash_types::side::BoxFuture;
use side_books::SideError;
use side_books::command::hex;
use side_books::sql::{Get as _, Reads as _, Row, SqlError, Tx, query};
use side_books::step::Step;

use super::store::{Act, Locked, go, lock};
use super::{moves, queries};
use crate::shop::Shop;
use crate::state::State;

/// Campaigns that one step looks at.
const PER_STEP: i64 = 20;
/// How long one that cannot go on is left alone, so that it keeps no other waiting.
const POSTPONE: Duration = Duration::from_secs(5);
/// How late a start or an end may be.
const REST: Duration = Duration::from_millis(250);

/// Moves campaigns.
pub(super) struct LifeStep {
    shop: Arc<Shop>,
}

impl LifeStep {
    pub(super) fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn look(&self, now: Timestamp) -> Result<bool, SideError> {
        // Apart, so that long settlings do not make starts late.
        let due = self.listed(queries::DUE, now).await?;
        let to_settle = self.listed(queries::TO_SETTLE, now).await?;
        let moved = self.look_at(&due, now).await?;
        let settled = self.look_at(&to_settle, now).await?;
        Ok(moved || settled)
    }

    async fn listed(&self, sql: &'static str, now: Timestamp) -> Result<Vec<Row>, SideError> {
        let select = query(sql).bind(now.0).bind(PER_STEP);
        Ok(self.shop.database.read().await?.rows(select).await?)
    }

    async fn look_at(&self, rows: &[Row], now: Timestamp) -> Result<bool, SideError> {
        let mut is_more = false;
        for row in rows {
            let id = row.text("id")?;
            match self.one(&id, now).await {
                Ok(did) => is_more |= did,
                // Another node was at it.
                Err(error) if error.is_conflict() => is_more = true,
                Err(error) => {
                    tracing::warn!(campaign = %id, %error, "a campaign cannot go on; tried again");
                    self.postpone(&id, now).await?;
                }
            }
        }
        Ok(is_more)
    }

    /// One campaign, in one transaction. `true`: there may be more to do.
    async fn one(&self, id: &str, now: Timestamp) -> Result<bool, SideError> {
        let mut tx = self.shop.database.begin().await?;
        let Some(mut locked) = lock(&mut tx, id).await? else {
            tx.rollback().await;
            return Ok(false);
        };
        let before = locked.campaign.state;
        moves::by_time(&mut tx, &mut locked.campaign, now).await?;
        let act = Act {
            who: "system",
            reason: "due",
            now,
        };
        if locked.campaign.state == State::Ended {
            go(&mut tx, &mut locked.campaign, State::Settling, act).await?;
        }
        let is_over = locked.campaign.state == State::Settling;
        if is_over && before != State::Settling {
            // The moves stand by themselves, whatever the first piece of the settling meets.
            tx.commit().await?;
            return Ok(true);
        }
        if is_over {
            self.settle(&mut tx, &mut locked, act).await?;
            // Behind those that wait for a piece.
            let turn = query(queries::POSTPONE).bind(now.0).bind(id.to_owned());
            tx.execute(turn.bind(now.0)).await?;
            tx.commit().await?;
            return Ok(locked.campaign.state == State::Settling);
        }
        if locked.campaign.state == before {
            // Another node made the move since it was listed.
            tx.rollback().await;
        } else {
            tx.commit().await?;
        }
        Ok(false)
    }

    /// A piece of the settling; after the last one the seed is revealed.
    async fn settle(
        &self,
        tx: &mut Tx,
        locked: &mut Locked,
        act: Act<'_>,
    ) -> Result<(), SideError> {
        let seed = locked.seed(&self.shop)?;
        let name = &locked.campaign.definition.kind;
        let kind = self.shop.kinds.find(name);
        let kind = kind.ok_or_else(|| SqlError::Broken(format!("no kind {name} is known here")))?;
        if kind.settle(tx, &locked.campaign, &seed, act.now).await? {
            let reveal = query(queries::REVEAL_SEED)
                .bind(hex(&seed.0))
                .bind(locked.campaign.id.clone());
            tx.execute(reveal).await?;
            go(tx, &mut locked.campaign, State::Settled, act).await?;
        }
        Ok(())
    }

    async fn postpone(&self, id: &str, now: Timestamp) -> Result<(), SideError> {
        let mut tx = self.shop.database.begin().await?;
        let later = query(queries::POSTPONE)
            .bind(now.plus(POSTPONE).0)
            .bind(id.to_owned())
            .bind(now.0);
        tx.execute(later).await?;
        tx.commit().await?;
        Ok(())
    }
}

impl Step for LifeStep {
    fn name(&self) -> &'static str {
        "life"
    }

    fn rest(&self) -> Duration {
        REST
    }

    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
        Box::pin(self.look(now))
    }
}
