//! What was given to a buyer, and what he was told: grants with the rule that gave them, coupons, prizes, notices.

use std::sync::Arc;

use flash_types::Timestamp;
use serde_json::{Value, json};
use side_books::sql::{Get as _, Row, SqlError};
use side_campaign::history::{HistoryEntry, HistorySource, IdColumn, SqlSource};

/// All of them.
pub(super) fn sources() -> Vec<Arc<dyn HistorySource>> {
    let sources = [
        GRANTS,
        GRANTS_REVOKED,
        COUPONS,
        COUPONS_USED,
        PRIZES,
        NOTICES,
    ];
    let sources = sources.into_iter();
    sources
        .map(|source| Arc::new(source) as Arc<dyn HistorySource>)
        .collect()
}

const GRANTS: SqlSource = SqlSource {
    name: "grant",
    sql: "SELECT id, campaign, source, reward, kind, state, cost_minor, given_id, verdict, rule_snapshot, at_ms \
          FROM reward_grant WHERE buyer = $1 AND (at_ms > $2 OR (at_ms = $2 AND id > $3)) \
          ORDER BY at_ms, id LIMIT $4",
    id: IdColumn::Text,
    entry: |row| {
        let source = row.text("source")?;
        let snapshot = row.text("rule_snapshot")?;
        let rule = serde_json::from_str(&snapshot).unwrap_or(Value::String(snapshot));
        let detail = json!({
            "grant": row.text("id")?,
            "reward": row.text("reward")?,
            "kind": row.text("kind")?,
            "cost_minor": row.int("cost_minor")?,
            "given": row.text_or_null("given_id")?,
            "state_now": row.text("state")?,
            "verdict": row.text_or_null("verdict")?,
            "rule": rule,
        });
        let reason = format!("given for {source}");
        entry(row, "reward_granted", detail, Some(reason))
    },
};

const GRANTS_REVOKED: SqlSource = SqlSource {
    name: "grant_revoked",
    sql: "SELECT id, campaign, source, reward, cost_minor, reason, closed_at_ms AS at_ms FROM reward_grant \
          WHERE buyer = $1 AND state = 'REVOKED' AND closed_at_ms IS NOT NULL \
          AND (closed_at_ms > $2 OR (closed_at_ms = $2 AND id > $3)) ORDER BY closed_at_ms, id LIMIT $4",
    id: IdColumn::Text,
    entry: |row| {
        let detail = json!({
            "grant": row.text("id")?,
            "reward": row.text("reward")?,
            "cost_minor": row.int("cost_minor")?,
            "source": row.text("source")?,
        });
        entry(row, "reward_revoked", detail, row.text_or_null("reason")?)
    },
};

const COUPONS: SqlSource = SqlSource {
    name: "coupon",
    sql: "SELECT id, campaign, reward, source, face_minor, threshold_minor, currency, valid_from_ms, valid_until_ms, \
          state, issued_at_ms AS at_ms FROM coupon WHERE buyer = $1 \
          AND (issued_at_ms > $2 OR (issued_at_ms = $2 AND id > $3)) ORDER BY issued_at_ms, id LIMIT $4",
    id: IdColumn::Text,
    entry: |row| {
        let source = row.text("source")?;
        let detail = json!({
            "coupon": row.text("id")?,
            "reward": row.text("reward")?,
            "face_minor": row.int("face_minor")?,
            "threshold_minor": row.int("threshold_minor")?,
            "currency": row.text("currency")?,
            "valid_from": Timestamp(row.int("valid_from_ms")?),
            "valid_until": Timestamp(row.int("valid_until_ms")?),
            "state_now": row.text("state")?,
        });
        entry(
            row,
            "coupon_issued",
            detail,
            Some(format!("given for {source}")),
        )
    },
};

const COUPONS_USED: SqlSource = SqlSource {
    name: "coupon_used",
    sql: "SELECT id, campaign, face_minor, currency, order_id, discount_minor, used_at_ms AS at_ms FROM coupon \
          WHERE buyer = $1 AND used_at_ms IS NOT NULL \
          AND (used_at_ms > $2 OR (used_at_ms = $2 AND id > $3)) ORDER BY used_at_ms, id LIMIT $4",
    id: IdColumn::Text,
    entry: |row| {
        let order = row.text_or_null("order_id")?;
        let detail = json!({
            "coupon": row.text("id")?,
            "order": order,
            "discount_minor": row.int_or_null("discount_minor")?,
            "face_minor": row.int("face_minor")?,
            "currency": row.text("currency")?,
        });
        let reason = format!("taken off the order {}", order.unwrap_or_default());
        entry(row, "coupon_used", detail, Some(reason))
    },
};

const PRIZES: SqlSource = SqlSource {
    name: "prize",
    sql: "SELECT id, campaign, reward, source, place, cost_minor, state, claimed_at_ms, shipped_at_ms, \
          delivered_at_ms, drawn_at_ms AS at_ms FROM prize WHERE buyer = $1 \
          AND (drawn_at_ms > $2 OR (drawn_at_ms = $2 AND id > $3)) ORDER BY drawn_at_ms, id LIMIT $4",
    id: IdColumn::Text,
    entry: |row| {
        let source = row.text("source")?;
        let time = |column: &str| row.int_or_null(column).map(|at_ms| at_ms.map(Timestamp));
        let detail = json!({
            "prize": row.text("id")?,
            "reward": row.text("reward")?,
            "place": row.int_or_null("place")?,
            "cost_minor": row.int("cost_minor")?,
            "state_now": row.text("state")?,
            "claimed_at": time("claimed_at_ms")?,
            "shipped_at": time("shipped_at_ms")?,
            "delivered_at": time("delivered_at_ms")?,
        });
        entry(
            row,
            "prize_won",
            detail,
            Some(format!("given for {source}")),
        )
    },
};

// Kind and state only: what was said may hold a code.
const NOTICES: SqlSource = SqlSource {
    name: "notice",
    sql: "SELECT id, kind, subject, state, sent_at_ms, opened_at_ms, made_at_ms AS at_ms FROM notice \
          WHERE buyer = $1 AND (made_at_ms > $2 OR (made_at_ms = $2 AND id > $3)) \
          ORDER BY made_at_ms, id LIMIT $4",
    id: IdColumn::Text,
    entry: |row| {
        let subject = row.text_or_null("subject")?;
        let campaign = subject
            .as_deref()
            .and_then(|subject| subject.strip_prefix("campaign:"));
        let time = |column: &str| row.int_or_null(column).map(|at_ms| at_ms.map(Timestamp));
        let detail = json!({
            "notice": row.text("id")?,
            "kind": row.text("kind")?,
            "of": subject,
            "state_now": row.text("state")?,
            "sent_at": time("sent_at_ms")?,
            "opened_at": time("opened_at_ms")?,
        });
        Ok(HistoryEntry {
            campaign: campaign.map(str::to_owned),
            ..of(row, "notice_made", detail, None)?
        })
    },
};

fn entry(
    row: &Row,
    what: &str,
    detail: Value,
    reason: Option<String>,
) -> Result<HistoryEntry, SqlError> {
    Ok(HistoryEntry {
        campaign: Some(row.text("campaign")?),
        ..of(row, what, detail, reason)?
    })
}

fn of(
    row: &Row,
    what: &str,
    detail: Value,
    reason: Option<String>,
) -> Result<HistoryEntry, SqlError> {
    Ok(HistoryEntry {
        at: Timestamp(row.int("at_ms")?),
        what: what.to_owned(),
        campaign: None,
        detail,
        reason,
        id: row.text("id")?,
    })
}
