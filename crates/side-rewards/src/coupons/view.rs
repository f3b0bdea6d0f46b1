//! A coupon as clients see it.

use flash_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::model::CouponState;
use super::queries::Coupon;

/// A coupon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Coupon)]
pub struct CouponView {
    /// Its id.
    pub coupon_id: String,
    /// Of which campaign.
    pub campaign_id: String,
    /// The reward's name there.
    pub reward: String,
    /// For people.
    pub title: String,
    /// Whose.
    pub buyer_id: String,
    /// Why it was given.
    pub source: String,
    /// ISSUED, LOCKED, USED, EXPIRED or REVOKED, now.
    pub state: &'static str,
    /// The most that it takes off an order, minor units.
    pub face_minor: i64,
    /// Least amount of an order, minor units; 0 for none.
    pub threshold_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub valid_from: Timestamp,
    /// RFC 3339, UTC; exclusive.
    #[schema(value_type = String, format = DateTime)]
    pub valid_until: Timestamp,
    /// RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub issued_at: Timestamp,
    /// The order that has it or used it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_id: Option<String>,
    /// What it takes off that order, minor units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discount_minor: Option<i64>,
    /// How long that order has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub locked_until: Option<Timestamp>,
    /// When it was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub used_at: Option<Timestamp>,
}

impl CouponView {
    /// As it is now: a lock that has lapsed is not shown.
    pub(super) fn of(coupon: Coupon, now: Timestamp) -> Self {
        let state = coupon.life.state_at(now);
        let life = coupon.life;
        let is_locked = state == CouponState::Locked;
        let has_order = is_locked || state == CouponState::Used;
        Self {
            coupon_id: coupon.id,
            campaign_id: coupon.campaign,
            reward: coupon.reward,
            title: coupon.title,
            buyer_id: coupon.buyer,
            source: coupon.source,
            state: state.as_str(),
            face_minor: life.face_minor,
            threshold_minor: life.threshold_minor,
            currency: coupon.currency,
            valid_from: life.valid_from,
            valid_until: life.valid_until,
            issued_at: coupon.issued_at,
            order_id: life.order_id.filter(|_| has_order),
            discount_minor: life.discount_minor.filter(|_| has_order),
            locked_until: is_locked.then_some(life.locked_until),
            used_at: life.used_at,
        }
    }
}

/// A page of coupons.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CouponPage {
    /// The newest first.
    items: Vec<CouponView>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// An order that wants a coupon.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LockBody {
    /// 1-64 characters of an id.
    pub(super) order_id: String,
    /// What the order costs without the coupon, minor units.
    pub(super) order_amount_minor: i64,
}

/// An order that uses a coupon up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UseBody {
    /// 1-64 characters of an id.
    pub(super) order_id: String,
    /// What the order costs without the coupon, minor units; not needed where the order locked it.
    #[serde(default)]
    pub(super) order_amount_minor: Option<i64>,
}

/// An order that lets go.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UnlockBody {
    /// 1-64 characters of an id.
    pub(super) order_id: String,
}

/// Why something is taken back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeBody {
    /// For people: 1-256 characters, kept in the audit log.
    pub(super) reason: String,
}
