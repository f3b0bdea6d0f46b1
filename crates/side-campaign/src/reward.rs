//! What a campaign can give: named once in its definition, referred to by name in its rules.

use serde::{Deserialize, Serialize};

/// A reward of a campaign's definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardRule {
    /// Its name within the campaign: 1-64 characters of an id.
    pub reward: String,
    /// For people.
    pub title: String,
    /// What it is.
    #[serde(flatten)]
    pub what: RewardKind,
}

/// What a reward is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RewardKind {
    /// A coupon; costs its face value.
    Coupon {
        /// What it takes off an order, minor units.
        face_minor: i64,
        /// Least amount of an order; 0 for none.
        #[serde(default)]
        threshold_minor: i64,
        /// Days that it is good for, from its issue; or `valid_from` and `valid_until` say when.
        #[serde(default)]
        term_days: Option<u32>,
        /// RFC 3339.
        #[serde(default)]
        valid_from: Option<flash_types::Timestamp>,
        /// RFC 3339.
        #[serde(default)]
        valid_until: Option<flash_types::Timestamp>,
        /// Most that are ever issued; none for as many as the budget holds.
        #[serde(default)]
        total: Option<i64>,
        /// Most for one buyer.
        #[serde(default)]
        per_buyer: Option<i64>,
    },
    /// Something that is shipped; costs what the shop says that it costs.
    Gift {
        /// What one costs the shop, minor units.
        cost_minor: i64,
        /// How many there are.
        stock_units: i64,
    },
}

impl RewardRule {
    /// What giving one of it takes from the budget, minor units.
    pub fn cost_minor(&self) -> i64 {
        match self.what {
            RewardKind::Coupon { face_minor, .. } => face_minor,
            RewardKind::Gift { cost_minor, .. } => cost_minor,
        }
    }

    /// Most that can be given, where its rule says so.
    pub fn count_max(&self) -> Option<i64> {
        match self.what {
            RewardKind::Coupon { total, .. } => total,
            RewardKind::Gift { stock_units, .. } => Some(stock_units),
        }
    }
}
