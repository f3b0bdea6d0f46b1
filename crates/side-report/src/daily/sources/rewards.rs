//! Coupons and prizes: what was promised and what became of it.

use flash_types::side::BoxFuture;
use serde_json::Map;
use side_books::sql::{Reader, SqlError, query};

use super::{Campaign, Day, Figures, Section, grouped, integers};

/// Coupons by their times: issued, used with what they took off, expired by their own date.
pub(super) struct Coupons;

/// In: campaign, from, until. Out: coupons of that day, and all up to its end.
const COUPONS: &str = "SELECT \
     CAST(COALESCE(SUM(CASE WHEN issued_at_ms >= $2 THEN 1 ELSE 0 END), 0) AS BIGINT) AS issued, \
     CAST(COUNT(*) AS BIGINT) AS issued_so_far, \
     CAST(COALESCE(SUM(CASE WHEN used_at_ms >= $2 AND used_at_ms < $3 THEN 1 ELSE 0 END), 0) AS BIGINT) AS used, \
     CAST(COALESCE(SUM(CASE WHEN used_at_ms < $3 THEN 1 ELSE 0 END), 0) AS BIGINT) AS used_so_far, \
     CAST(COALESCE(SUM(CASE WHEN used_at_ms >= $2 AND used_at_ms < $3 THEN discount_minor ELSE 0 END), 0) AS BIGINT) \
       AS discount_minor, \
     CAST(COALESCE(SUM(CASE WHEN state = 'EXPIRED' AND valid_until_ms >= $2 AND valid_until_ms < $3 \
       THEN 1 ELSE 0 END), 0) AS BIGINT) AS expired \
     FROM coupon WHERE campaign = $1 AND issued_at_ms < $3";
/// In: campaign, from, until. Out: grants that were taken back that day, by reward.
const REVOKED: &str = "SELECT reward AS name, COUNT(*) AS number FROM reward_grant \
     WHERE campaign = $1 AND state = 'REVOKED' AND closed_at_ms >= $2 AND closed_at_ms < $3 GROUP BY reward";
/// In: campaign, from, until. Out: grants made that day, by reward.
const GRANTED: &str = "SELECT reward AS name, COUNT(*) AS number FROM reward_grant \
     WHERE campaign = $1 AND at_ms >= $2 AND at_ms < $3 GROUP BY reward";

impl Figures for Coupons {
    fn name(&self) -> &'static str {
        "coupons"
    }

    fn figures<'a>(
        &'a self,
        reads: &'a mut Reader,
        campaign: &'a Campaign,
        day: &'a Day,
    ) -> BoxFuture<'a, Result<Section, SqlError>> {
        Box::pin(async move {
            let bound = |sql| {
                query(sql)
                    .bind(campaign.id.clone())
                    .bind(day.from.0)
                    .bind(day.until.0)
            };
            let names = [
                "issued",
                "issued_so_far",
                "used",
                "used_so_far",
                "discount_minor",
                "expired",
            ];
            let mut section = integers(reads, bound(COUPONS), &names).await?;
            section.insert("granted".to_owned(), grouped(reads, bound(GRANTED)).await?);
            section.insert("revoked".to_owned(), grouped(reads, bound(REVOKED)).await?);
            Ok(section)
        })
    }
}

/// Prizes by where they stand.
pub(super) struct Prizes;

/// In: campaign, until. Out: prizes drawn before the end of the day, by their present state.
const PRIZES: &str = "SELECT state AS name, COUNT(*) AS number FROM prize \
     WHERE campaign = $1 AND drawn_at_ms < $2 GROUP BY state";

impl Figures for Prizes {
    fn name(&self) -> &'static str {
        "prizes"
    }

    fn figures<'a>(
        &'a self,
        reads: &'a mut Reader,
        campaign: &'a Campaign,
        day: &'a Day,
    ) -> BoxFuture<'a, Result<Section, SqlError>> {
        Box::pin(async move {
            let statement = query(PRIZES).bind(campaign.id.clone()).bind(day.until.0);
            let mut section = Map::new();
            section.insert("by_state".to_owned(), grouped(reads, statement).await?);
            Ok(section)
        })
    }
}
