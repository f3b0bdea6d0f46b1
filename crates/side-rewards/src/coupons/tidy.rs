//! Brings the budget of coupons that are over back. Nothing depends on it: a coupon that is over is refused without it.

use std::sync::Arc;
use std::time::Duration;

use flash_types::Timestamp;
use flash_types::side::BoxFuture;
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, query};
use side_books::step::Step;
use side_campaign::shop::Shop;

use super::{queries, rows};

/// Most coupons in one transaction.
const PIECE: i64 = 100;

pub(super) struct Tidy {
    shop: Arc<Shop>,
}

impl Tidy {
    pub(super) fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn tidy(&self, now: Timestamp) -> Result<bool, SideError> {
        let due = query(queries::DUE).bind(now.0).bind(PIECE);
        let due = self.shop.database.read().await?.rows(due).await?;
        if due.is_empty() {
            return Ok(false);
        }
        let mut ids = Vec::with_capacity(due.len());
        for row in &due {
            ids.push(row.text("id")?);
        }
        // In one order everywhere: coupons by id, then budgets by campaign.
        ids.sort_unstable();
        let is_more = i64::try_from(ids.len()).is_ok_and(|count| count == PIECE);
        let mut tx = self.shop.database.begin().await?;
        let mut over = Vec::with_capacity(ids.len());
        for id in ids {
            let expire = query(queries::EXPIRE).bind(now.0).bind(id);
            if let Some(row) = tx.row(expire).await? {
                over.push((
                    row.text("campaign")?,
                    row.text("grant_id")?,
                    row.int("face_minor")?,
                ));
            }
        }
        over.sort_unstable();
        for (_, grant_id, face_minor) in over {
            rows::let_go(&mut tx, &grant_id, face_minor, now).await?;
        }
        tx.commit().await?;
        Ok(is_more)
    }
}

impl Step for Tidy {
    fn name(&self) -> &'static str {
        "coupons"
    }

    fn rest(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
        Box::pin(self.tidy(now))
    }
}
