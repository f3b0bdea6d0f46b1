//! The sources of this crate: entries, sign-ups, refusals, verdicts, decisions, orders and their refunds.

use std::sync::Arc;

use flash_types::Timestamp;
use serde_json::{Value, json};
use side_books::sql::{Get as _, Row, SqlError};

use super::{HistoryEntry, HistorySource, IdColumn, SqlSource};

/// All of them.
pub fn sources() -> Vec<Arc<dyn HistorySource>> {
    let sources = [
        PARTICIPATIONS,
        SIGN_UPS,
        REFUSALS,
        REFUSALS_BEYOND,
        VERDICTS,
        DECISIONS,
        ORDERS,
        RECEIPTS,
        REFUNDS,
    ];
    let sources = sources.into_iter();
    sources
        .map(|source| Arc::new(source) as Arc<dyn HistorySource>)
        .collect()
}

const PARTICIPATIONS: SqlSource = SqlSource {
    name: "participation",
    sql: "SELECT campaign, joined_at_ms AS at_ms, is_new, version, verdict FROM participant \
          WHERE buyer = $1 AND (joined_at_ms > $2 OR (joined_at_ms = $2 AND campaign > $3)) \
          ORDER BY joined_at_ms, campaign LIMIT $4",
    id: IdColumn::Text,
    entry: |row| {
        let (campaign, version) = (row.text("campaign")?, row.int("version")?);
        let verdict = row.text_or_null("verdict")?;
        let detail = json!({
            "is_new": row.is("is_new")?,
            "version": version,
            "verdict_now": verdict.unwrap_or_else(|| "ALLOW".to_owned()),
        });
        let reason = format!("let in under version {version} of the rules");
        entry(
            row,
            &campaign,
            "joined",
            Some(campaign.clone()),
            detail,
            Some(reason),
        )
    },
};

const SIGN_UPS: SqlSource = SqlSource {
    name: "sign_up",
    sql: "SELECT campaign, task, at_ms, campaign || '~' || task AS id FROM sign_up \
          WHERE buyer = $1 AND (at_ms > $2 OR (at_ms = $2 AND campaign || '~' || task > $3)) \
          ORDER BY at_ms, campaign || '~' || task LIMIT $4",
    id: IdColumn::Text,
    entry: |row| {
        let detail = json!({"task": row.text("task")?});
        let campaign = Some(row.text("campaign")?);
        let reason = Some("the storefront reported it as done".to_owned());
        entry(row, &row.text("id")?, "task_done", campaign, detail, reason)
    },
};

const REFUSALS: SqlSource = SqlSource {
    name: "refusal",
    sql: "SELECT id, campaign, endpoint, outcome, detail, at_ms FROM refusal \
          WHERE buyer = $1 AND (at_ms > $2 OR (at_ms = $2 AND id > $3)) ORDER BY at_ms, id LIMIT $4",
    id: IdColumn::Number,
    entry: |row| {
        let detail = json!({"endpoint": row.text("endpoint")?, "outcome": row.text("outcome")?});
        let (id, reason) = (row.int("id")?.to_string(), row.text("detail")?);
        entry(
            row,
            &id,
            "refused",
            Some(row.text("campaign")?),
            detail,
            Some(reason),
        )
    },
};

const REFUSALS_BEYOND: SqlSource = SqlSource {
    name: "refusals_beyond",
    // 200 is `entry::REFUSALS_KEPT_MAX`.
    sql: "SELECT day AS id, refusals, last_at_ms AS at_ms FROM refusal_count WHERE buyer = $1 \
          AND refusals > 200 AND (last_at_ms > $2 OR (last_at_ms = $2 AND day > $3)) \
          ORDER BY last_at_ms, day LIMIT $4",
    id: IdColumn::Number,
    entry: |row| {
        let detail = json!({"refusals_of_day": row.int("refusals")?});
        let reason =
            Some("more than are kept whole for a day: the rest is only counted".to_owned());
        let id = row.int("id")?.to_string();
        entry(row, &id, "refusals_not_kept", None, detail, reason)
    },
};

const VERDICTS: SqlSource = SqlSource {
    name: "verdict",
    sql: "SELECT id, campaign, rule, verdict, is_shadow, evidence, found_at_ms AS at_ms FROM risk_verdict \
          WHERE subject = $1 AND (found_at_ms > $2 OR (found_at_ms = $2 AND id > $3)) \
          ORDER BY found_at_ms, id LIMIT $4",
    id: IdColumn::Text,
    entry: |row| {
        let (id, rule) = (row.text("id")?, row.text("rule")?);
        let evidence: Value = serde_json::from_str(&row.text("evidence")?).unwrap_or(Value::Null);
        let detail = json!({
            "verdict": id,
            "rule": rule,
            "found": row.text("verdict")?,
            "is_shadow": row.is("is_shadow")?,
            "evidence": evidence,
        });
        let reason = Some(format!("found by the rule {rule}"));
        entry(
            row,
            &id,
            "verdict_found",
            Some(row.text("campaign")?),
            detail,
            reason,
        )
    },
};

const DECISIONS: SqlSource = SqlSource {
    name: "verdict_decision",
    sql: "SELECT id, verdict, campaign, rule, decision, reason, decided_by, at_ms FROM risk_decision \
          WHERE subject = $1 AND (at_ms > $2 OR (at_ms = $2 AND id > $3)) ORDER BY at_ms, id LIMIT $4",
    id: IdColumn::Number,
    entry: |row| {
        let detail = json!({
            "verdict": row.text("verdict")?,
            "rule": row.text("rule")?,
            "decision": row.text("decision")?,
            "decided_by": row.text("decided_by")?,
        });
        let (id, campaign) = (row.int("id")?.to_string(), Some(row.text("campaign")?));
        entry(
            row,
            &id,
            "verdict_decided",
            campaign,
            detail,
            Some(row.text("reason")?),
        )
    },
};

const ORDERS: SqlSource = SqlSource {
    name: "order",
    sql: "SELECT id, source, sale_id, currency, paid_minor, refunded_minor, paid_at_ms AS at_ms FROM shop_order \
          WHERE buyer = $1 AND (paid_at_ms > $2 OR (paid_at_ms = $2 AND id > $3)) \
          ORDER BY paid_at_ms, id LIMIT $4",
    id: IdColumn::Text,
    entry: |row| {
        let (id, sale) = (row.text("id")?, row.text_or_null("sale_id")?);
        let detail = json!({
            "order": id,
            "source": row.text("source")?,
            "sale": sale,
            "currency": row.text("currency")?,
            "paid_minor": row.int("paid_minor")?,
            "refunded_minor_now": row.int("refunded_minor")?,
        });
        let reason = sale.map_or_else(
            || "an order of the shop, told by the storefront".to_owned(),
            |sale| format!("a reservation of the sale {sale} was paid"),
        );
        entry(row, &id, "order_paid", None, detail, Some(reason))
    },
};

const RECEIPTS: SqlSource = SqlSource {
    name: "order_receipt",
    sql: "SELECT id, received_at_ms AS at_ms FROM shop_order WHERE buyer = $1 AND received_at_ms IS NOT NULL \
          AND (received_at_ms > $2 OR (received_at_ms = $2 AND id > $3)) \
          ORDER BY received_at_ms, id LIMIT $4",
    id: IdColumn::Text,
    entry: |row| {
        let id = row.text("id")?;
        let reason = Some("the storefront told that it arrived".to_owned());
        entry(
            row,
            &id,
            "order_received",
            None,
            json!({"order": id}),
            reason,
        )
    },
};

const REFUNDS: SqlSource = SqlSource {
    name: "refund",
    sql: "SELECT r.order_id || '~' || r.refund_ref AS id, r.order_id, r.refund_ref, r.amount_minor, r.at_ms, \
          o.currency FROM order_refund r JOIN shop_order o ON o.id = r.order_id WHERE o.buyer = $1 \
          AND (r.at_ms > $2 OR (r.at_ms = $2 AND r.order_id || '~' || r.refund_ref > $3)) \
          ORDER BY r.at_ms, r.order_id || '~' || r.refund_ref LIMIT $4",
    id: IdColumn::Text,
    entry: |row| {
        let (order, refund) = (row.text("order_id")?, row.text("refund_ref")?);
        let detail = json!({
            "order": order,
            "refund_ref": refund,
            "currency": row.text("currency")?,
            "amount_minor": row.int("amount_minor")?,
        });
        let reason = Some(format!("the refund {refund} of the order {order}"));
        entry(
            row,
            &row.text("id")?,
            "order_refunded",
            None,
            detail,
            reason,
        )
    },
};

fn entry(
    row: &Row,
    id: &str,
    what: &str,
    campaign: Option<String>,
    detail: Value,
    reason: Option<String>,
) -> Result<HistoryEntry, SqlError> {
    Ok(HistoryEntry {
        at: Timestamp(row.int("at_ms")?),
        what: what.to_owned(),
        campaign,
        detail,
        reason,
        id: id.to_owned(),
    })
}
