//! A prize as clients see it: never the address.

use flash_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::queries::Prize;

/// A prize.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Prize)]
pub struct PrizeView {
    /// Its id.
    pub prize_id: String,
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
    /// The place it was won by, where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<i64>,
    /// DRAWN, CLAIMED, FULFILLING, DELIVERED, EXPIRED or WITHDRAWN, now.
    pub state: &'static str,
    /// RFC 3339, UTC; exclusive.
    #[schema(value_type = String, format = DateTime)]
    pub claim_until: Timestamp,
    /// An address is known; it is not shown.
    pub has_address: bool,
    /// Who carries it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carrier: Option<String>,
    /// The carrier's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracking: Option<String>,
    /// RFC 3339, UTC.
    #[schema(value_type = String, format = DateTime)]
    pub drawn_at: Timestamp,
    /// When the address was first given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub claimed_at: Option<Timestamp>,
    /// When it was shipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub shipped_at: Option<Timestamp>,
    /// When it was received.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub delivered_at: Option<Timestamp>,
}

impl PrizeView {
    /// As it is now.
    pub(super) fn of(prize: Prize, now: Timestamp) -> Self {
        Self {
            state: prize.state.at(prize.claim_until, now).as_str(),
            prize_id: prize.id,
            campaign_id: prize.campaign,
            reward: prize.reward,
            title: prize.title,
            buyer_id: prize.buyer,
            source: prize.source,
            rank: prize.rank,
            claim_until: prize.claim_until,
            has_address: prize.address_sealed.is_some(),
            carrier: prize.carrier,
            tracking: prize.tracking,
            drawn_at: prize.drawn_at,
            claimed_at: prize.claimed_at,
            shipped_at: prize.shipped_at,
            delivered_at: prize.delivered_at,
        }
    }
}

/// A page of prizes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PrizePage {
    /// The newest first.
    items: Vec<PrizeView>,
    /// For the next page; null on the last.
    next_cursor: Option<String>,
}

/// How a prize travels.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShipBody {
    /// Who carries it: 1-64 characters.
    pub(super) carrier: String,
    /// The carrier's number: 1-64 characters.
    pub(super) tracking: String,
}
