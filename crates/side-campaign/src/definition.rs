//! What a merchant writes: the common part of every campaign, with the rules of its kind inside. What it may say is in
//! `definition/check.rs`.

mod check;

use std::collections::BTreeMap;

use flash_types::{Currency, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::reward::RewardRule;

pub use check::{AMOUNT_MINOR_MAX, COUNT_MAX};

/// A campaign as it is planned. Unknown fields are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CampaignDefinition)]
pub struct Definition {
    /// 1-64 characters of an id.
    pub campaign_id: String,
    /// `giveaway`, `bargain`, `cashback`, `points`: one that this program knows.
    pub kind: String,
    /// For people.
    pub title: String,
    /// When it is shown; absent: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub warmup_at: Option<Timestamp>,
    /// When it opens.
    #[schema(value_type = String, format = DateTime)]
    pub starts_at: Timestamp,
    /// When it closes.
    #[schema(value_type = String, format = DateTime)]
    pub ends_at: Timestamp,
    /// Zone of its days.
    #[serde(default = "zone_default")]
    pub zone: String,
    /// Of its money.
    #[schema(value_type = String)]
    pub currency: Currency,
    /// The most that it may cost, minor units.
    pub budget_minor: i64,
    /// What it is meant to reach: `{"new_buyers": 50000}`; the report shows each beside what became of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub goal: BTreeMap<String, i64>,
    /// Who may take part.
    #[serde(default)]
    pub eligibility: Eligibility,
    /// When those who asked for it are reminded of the start.
    #[serde(default)]
    pub reminders: Reminders,
    /// What it can give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<crate::reward::WrittenReward>)]
    pub rewards: Vec<RewardRule>,
    /// When a verdict is found; defaults where absent.
    #[serde(default)]
    pub risk: RiskRules,
    /// Rules of its kind.
    #[schema(value_type = Object)]
    pub rules: Value,
    /// Prepared in advance: another `rules` that can be switched on while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub plan_b: Option<Value>,
}

fn zone_default() -> String {
    "Asia/Shanghai".to_owned()
}

/// Who may take part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Eligibility {
    /// A telephone number must have been verified.
    pub phone_verification: bool,
    /// Only who never paid an order before the campaign's start.
    pub new_buyers_only: bool,
    /// A task that the storefront reports as done before one may take part; a word such as `follow-shop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_up_task: Option<String>,
    /// Most participants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participants_max: Option<i64>,
}

/// When those who subscribed are reminded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reminders {
    /// Seconds before the start, each once: `[604800, 3600]` is about a week and an hour before.
    pub before_s: Vec<u32>,
    /// Seconds after the first one, to those who did not react to it; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_after_s: Option<u32>,
}

/// Thresholds of the verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RiskRules {
    /// Verdicts are written down but change nothing.
    pub is_shadow: bool,
    /// This many participants from one address within `address_window_s` is a burst.
    pub address_burst: i64,
    /// Seconds.
    pub address_window_s: i64,
    /// This many participants on one device is a shared device.
    pub device_shared: i64,
    /// This many buyers who helped each other in a ring.
    pub ring: i64,
    /// A refund within this many seconds after a reward for the order.
    pub refund_after_reward_s: i64,
    /// What a verdict does: `review` or `deny`.
    pub action: RiskAction,
}

/// What a verdict does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RiskAction {
    /// A person decides; rewards wait.
    Review,
    /// No reward; a person may undo it.
    Deny,
}

impl Default for RiskRules {
    fn default() -> Self {
        Self {
            is_shadow: false,
            address_burst: 20,
            address_window_s: 600,
            device_shared: 5,
            ring: 3,
            refund_after_reward_s: 7 * 24 * 3600,
            action: RiskAction::Review,
        }
    }
}
