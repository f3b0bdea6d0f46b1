//! All SQL of coupons.

use flash_types::Timestamp;
use side_books::sql::{Get as _, Row, SqlError};

use super::model::{CouponState, Life};

/// In: id, campaign, reward, title, buyer, grant, source, face, threshold, currency, valid from, valid until, now.
pub(super) const INSERT: &str = "INSERT INTO coupon (id, campaign, reward, title, buyer, grant_id, source, face_minor, \
     threshold_minor, currency, valid_from_ms, valid_until_ms, state, issued_at_ms) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'ISSUED', $13)";

/// In: coupon. Out: all of it, and nobody else changes it before this transaction ends.
pub(super) const HAVE: &str = "UPDATE coupon SET turns = turns + 1 WHERE id = $1 RETURNING *";

/// In: state, order, discount, locked until, used at, coupon that this transaction has.
pub(super) const WRITE: &str = "UPDATE coupon SET state = $1, order_id = $2, discount_minor = $3, locked_until_ms = $4, \
     used_at_ms = $5 WHERE id = $6";

/// In: now, most. Out: ids of coupons that are over, whose budget is still held.
pub(super) const DUE: &str = "SELECT id FROM coupon WHERE state IN ('ISSUED', 'LOCKED') AND valid_until_ms <= $1 \
     AND locked_until_ms <= $1 AND NOT EXISTS (SELECT 1 FROM frozen WHERE frozen.campaign = coupon.campaign) \
     ORDER BY valid_until_ms, id LIMIT $2";

/// In: now, coupon. Out: grant, campaign, face, where it is over and was not marked.
pub(super) const EXPIRE: &str = "UPDATE coupon SET state = 'EXPIRED', order_id = NULL, discount_minor = NULL, \
     locked_until_ms = 0 WHERE id = $2 AND state IN ('ISSUED', 'LOCKED') AND valid_until_ms <= $1 \
     AND locked_until_ms <= $1 RETURNING grant_id, campaign, face_minor";

/// In: now, buyer, state or '', cursor or '', most. Out: coupons, the newest first.
pub(super) const OF_BUYER: &str = "SELECT * FROM coupon WHERE buyer = $2 AND ($3 = '' OR $3 = CASE \
     WHEN state = 'LOCKED' AND locked_until_ms > $1 THEN 'LOCKED' \
     WHEN state IN ('ISSUED', 'LOCKED') AND valid_until_ms <= $1 THEN 'EXPIRED' \
     WHEN state = 'LOCKED' THEN 'ISSUED' ELSE state END) \
     AND ($4 = '' OR id < $4) ORDER BY id DESC LIMIT $5";

/// In: now, campaign, buyer or '', state or '', cursor or '', most. Out: coupons, the newest first.
pub(super) const OF_CAMPAIGN: &str = "SELECT * FROM coupon WHERE campaign = $2 AND ($3 = '' OR buyer = $3) \
     AND ($4 = '' OR $4 = CASE \
     WHEN state = 'LOCKED' AND locked_until_ms > $1 THEN 'LOCKED' \
     WHEN state IN ('ISSUED', 'LOCKED') AND valid_until_ms <= $1 THEN 'EXPIRED' \
     WHEN state = 'LOCKED' THEN 'ISSUED' ELSE state END) \
     AND ($5 = '' OR id < $5) ORDER BY id DESC LIMIT $6";

/// A coupon as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coupon {
    pub(super) id: String,
    pub(super) campaign: String,
    pub(super) reward: String,
    pub(super) title: String,
    pub(super) buyer: String,
    pub(super) grant_id: String,
    pub(super) source: String,
    pub(super) currency: String,
    pub(super) issued_at: Timestamp,
    pub(super) life: Life,
}

impl Coupon {
    pub(super) fn read(row: &Row) -> Result<Self, SqlError> {
        let state = row.text("state")?;
        let state = CouponState::parse(&state)
            .ok_or_else(|| SqlError::Broken(format!("a coupon is {state}")))?;
        Ok(Self {
            id: row.text("id")?,
            campaign: row.text("campaign")?,
            reward: row.text("reward")?,
            title: row.text("title")?,
            buyer: row.text("buyer")?,
            grant_id: row.text("grant_id")?,
            source: row.text("source")?,
            currency: row.text("currency")?,
            issued_at: Timestamp(row.int("issued_at_ms")?),
            life: Life {
                state,
                face_minor: row.int("face_minor")?,
                threshold_minor: row.int("threshold_minor")?,
                valid_from: Timestamp(row.int("valid_from_ms")?),
                valid_until: Timestamp(row.int("valid_until_ms")?),
                order_id: row.text_or_null("order_id")?,
                discount_minor: row.int_or_null("discount_minor")?,
                locked_until: Timestamp(row.int("locked_until_ms")?),
                used_at: row.int_or_null("used_at_ms")?.map(Timestamp),
            },
        })
    }
}
