//! What time brings to prizes: those that nobody claimed go back to the stock and the budget, addresses are erased.

use std::sync::Arc;
use std::time::Duration;

use flash_types::Timestamp;
use flash_types::side::BoxFuture;
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, SqlError, query};
use side_books::step::Step;
use side_campaign::shop::Shop;

use super::queries;
use crate::grants::{Back, close_grant, give_back};

/// Most prizes in one transaction.
const PIECE: i64 = 100;

pub(super) struct Unclaimed {
    shop: Arc<Shop>,
}

impl Unclaimed {
    pub(super) fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn expire(&self, now: Timestamp) -> Result<bool, SideError> {
        let ids = due(&self.shop, queries::UNCLAIMED, now).await?;
        if ids.is_empty() {
            return Ok(false);
        }
        let is_more = is_piece(&ids);
        let mut tx = self.shop.database.begin().await?;
        let mut back = Vec::with_capacity(ids.len());
        for id in ids {
            let expire = query(queries::EXPIRE).bind(now.0).bind(id);
            let Some(row) = tx.row(expire).await? else {
                continue;
            };
            let grant_id = row.text("grant_id")?;
            if !close_grant(&mut tx, &grant_id, "GIVEN", "not claimed in time", now).await? {
                return Err(SqlError::Broken(format!("grant {grant_id} is not given")).into());
            }
            back.push(Back {
                campaign: row.text("campaign")?,
                reward: row.text("reward")?,
                buyer: row.text("buyer")?,
                grant_id,
                cost_minor: row.int("cost_minor")?,
            });
        }
        give_back(&mut tx, back, now).await?;
        tx.commit().await?;
        Ok(is_more)
    }
}

impl Step for Unclaimed {
    fn name(&self) -> &'static str {
        "prizes"
    }

    fn rest(&self) -> Duration {
        Duration::from_secs(30)
    }

    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
        Box::pin(self.expire(now))
    }
}

pub(super) struct Addresses {
    shop: Arc<Shop>,
}

impl Addresses {
    pub(super) fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn erase(&self, now: Timestamp) -> Result<bool, SideError> {
        let ids = due(&self.shop, queries::STALE_ADDRESSES, now).await?;
        if ids.is_empty() {
            return Ok(false);
        }
        let is_more = is_piece(&ids);
        let mut tx = self.shop.database.begin().await?;
        for id in ids {
            tx.execute(query(queries::ERASE_ADDRESS).bind(now.0).bind(id))
                .await?;
        }
        tx.commit().await?;
        Ok(is_more)
    }
}

impl Step for Addresses {
    fn name(&self) -> &'static str {
        "addresses"
    }

    fn rest(&self) -> Duration {
        Duration::from_secs(300)
    }

    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
        Box::pin(self.erase(now))
    }
}

/// By id: rows in the order that everybody keeps.
async fn due(shop: &Shop, sql: &'static str, now: Timestamp) -> Result<Vec<String>, SideError> {
    let select = query(sql).bind(now.0).bind(PIECE);
    let rows = shop.database.read().await?.rows(select).await?;
    let mut ids = rows
        .iter()
        .map(|row| row.text("id"))
        .collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    Ok(ids)
}

fn is_piece(ids: &[String]) -> bool {
    i64::try_from(ids.len()).is_ok_and(|count| count >= PIECE)
}
