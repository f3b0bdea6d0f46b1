//! Who took part, and what they bought.

use flash_types::side::BoxFuture;
use side_books::sql::{Reader, SqlError, query};

use super::{Campaign, Day, Figures, Section, begins_at, integers};

/// Participants: new ones never paid an order before the campaign's start.
pub(super) struct Participants;

/// In: campaign, from, until. Out: counts by the time of joining.
const PARTICIPANTS: &str = "SELECT \
     CAST(SUM(CASE WHEN joined_at_ms >= $2 THEN 1 ELSE 0 END) AS BIGINT) AS joined, \
     CAST(SUM(CASE WHEN joined_at_ms >= $2 AND is_new = 1 THEN 1 ELSE 0 END) AS BIGINT) AS joined_new, \
     CAST(SUM(CASE WHEN joined_at_ms >= $2 AND is_new = 0 THEN 1 ELSE 0 END) AS BIGINT) AS joined_old, \
     CAST(COUNT(*) AS BIGINT) AS participants, \
     CAST(SUM(CASE WHEN is_new = 1 THEN 1 ELSE 0 END) AS BIGINT) AS participants_new \
     FROM participant WHERE campaign = $1 AND joined_at_ms < $3";

impl Figures for Participants {
    fn name(&self) -> &'static str {
        "participants"
    }

    fn figures<'a>(
        &'a self,
        reads: &'a mut Reader,
        campaign: &'a Campaign,
        day: &'a Day,
    ) -> BoxFuture<'a, Result<Section, SqlError>> {
        Box::pin(async move {
            let statement = query(PARTICIPANTS)
                .bind(campaign.id.clone())
                .bind(day.from.0)
                .bind(day.until.0);
            let names = [
                "joined",
                "joined_new",
                "joined_old",
                "participants",
                "participants_new",
            ];
            integers(reads, statement, &names).await
        })
    }
}

/// Orders that participants paid from their joining on.
pub(super) struct Orders;

/// In: campaign, from, until, currency. Out: orders, buyers and money by the time of payment.
const ORDERS: &str = "SELECT \
     CAST(COUNT(*) AS BIGINT) AS orders, \
     CAST(COUNT(DISTINCT o.buyer) AS BIGINT) AS buyers, \
     CAST(COUNT(DISTINCT CASE WHEN p.is_new = 1 THEN o.buyer END) AS BIGINT) AS buyers_new, \
     CAST(COALESCE(SUM(o.paid_minor), 0) AS BIGINT) AS turnover_minor \
     FROM participant p JOIN shop_order o ON o.buyer = p.buyer AND o.paid_at_ms >= p.joined_at_ms \
     WHERE p.campaign = $1 AND o.currency = $4 AND o.paid_at_ms >= $2 AND o.paid_at_ms < $3";
/// In: campaign, from, until, currency. Out: money that went back, by the time of the refund.
const REFUNDS: &str = "SELECT CAST(COALESCE(SUM(r.amount_minor), 0) AS BIGINT) AS refunded_minor \
     FROM participant p JOIN shop_order o ON o.buyer = p.buyer AND o.paid_at_ms >= p.joined_at_ms \
     JOIN order_refund r ON r.order_id = o.id \
     WHERE p.campaign = $1 AND o.currency = $4 AND r.at_ms >= $2 AND r.at_ms < $3";

impl Figures for Orders {
    fn name(&self) -> &'static str {
        "orders"
    }

    fn figures<'a>(
        &'a self,
        reads: &'a mut Reader,
        campaign: &'a Campaign,
        day: &'a Day,
    ) -> BoxFuture<'a, Result<Section, SqlError>> {
        Box::pin(async move {
            let bound = |sql, from| {
                query(sql)
                    .bind(campaign.id.clone())
                    .bind(from)
                    .bind(day.until.0)
                    .bind(campaign.definition.currency.as_str().to_owned())
            };
            let names = ["orders", "buyers", "buyers_new", "turnover_minor"];
            let mut section = integers(reads, bound(ORDERS, day.from.0), &names).await?;
            let refunded = ["refunded_minor"];
            section.extend(integers(reads, bound(REFUNDS, day.from.0), &refunded).await?);
            let start = begins_at(campaign).0;
            let so_far = integers(reads, bound(ORDERS, start), &names).await?;
            for (name, value) in so_far {
                section.insert(format!("{name}_so_far"), value);
            }
            Ok(section)
        })
    }
}
