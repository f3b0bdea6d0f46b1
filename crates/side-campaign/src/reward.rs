//! What a campaign can give: named once in its definition, referred to by name in its rules.

use flash_types::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A reward of a campaign's definition. Unknown fields, and those of another type, are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenReward")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RewardKind {
    /// A coupon; costs its face value.
    Coupon {
        /// What it takes off an order, minor units.
        face_minor: i64,
        /// Least amount of an order; 0 for none.
        threshold_minor: i64,
        /// Days that it is good for, from its issue; or `valid_from` and `valid_until` say when.
        #[serde(skip_serializing_if = "Option::is_none")]
        term_days: Option<u32>,
        /// RFC 3339.
        #[serde(skip_serializing_if = "Option::is_none")]
        valid_from: Option<Timestamp>,
        /// RFC 3339.
        #[serde(skip_serializing_if = "Option::is_none")]
        valid_until: Option<Timestamp>,
        /// Most that are ever issued; none for as many as the budget holds.
        #[serde(skip_serializing_if = "Option::is_none")]
        total: Option<i64>,
        /// Most for one buyer.
        #[serde(skip_serializing_if = "Option::is_none")]
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

/// As it is written: one flat object. Serde cannot refuse unknown fields of a flattened enum, so both types are read
/// together and told apart here.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenReward {
    /// Its name within the campaign: 1-64 characters of an id.
    reward: String,
    title: String,
    r#type: RewardType,
    face_minor: Option<i64>,
    threshold_minor: Option<i64>,
    term_days: Option<u32>,
    #[schema(value_type = Option<String>, format = DateTime)]
    valid_from: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    valid_until: Option<Timestamp>,
    total: Option<i64>,
    per_buyer: Option<i64>,
    cost_minor: Option<i64>,
    stock_units: Option<i64>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RewardType {
    Coupon,
    Gift,
}

/// Why a reward cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reward {reward}: a {kind} {what} {field}")]
pub(crate) struct BadReward {
    reward: String,
    kind: &'static str,
    what: &'static str,
    field: &'static str,
}

impl TryFrom<WrittenReward> for RewardRule {
    type Error = BadReward;

    fn try_from(written: WrittenReward) -> Result<Self, BadReward> {
        let kind = match written.r#type {
            RewardType::Coupon => "coupon",
            RewardType::Gift => "gift",
        };
        let bad = |what, field| BadReward {
            reward: written.reward.clone(),
            kind,
            what,
            field,
        };
        let must = |value: Option<i64>, field| value.ok_or_else(|| bad("needs", field));
        let must_not = |is_there: bool, field| match is_there {
            true => Err(bad("has no", field)),
            false => Ok(()),
        };
        let what = match written.r#type {
            RewardType::Coupon => {
                must_not(written.cost_minor.is_some(), "cost_minor")?;
                must_not(written.stock_units.is_some(), "stock_units")?;
                RewardKind::Coupon {
                    face_minor: must(written.face_minor, "face_minor")?,
                    threshold_minor: written.threshold_minor.unwrap_or(0),
                    term_days: written.term_days,
                    valid_from: written.valid_from,
                    valid_until: written.valid_until,
                    total: written.total,
                    per_buyer: written.per_buyer,
                }
            }
            RewardType::Gift => {
                must_not(written.face_minor.is_some(), "face_minor")?;
                must_not(written.threshold_minor.is_some(), "threshold_minor")?;
                must_not(written.term_days.is_some(), "term_days")?;
                must_not(written.valid_from.is_some(), "valid_from")?;
                must_not(written.valid_until.is_some(), "valid_until")?;
                must_not(written.total.is_some(), "total")?;
                must_not(written.per_buyer.is_some(), "per_buyer")?;
                RewardKind::Gift {
                    cost_minor: must(written.cost_minor, "cost_minor")?,
                    stock_units: must(written.stock_units, "stock_units")?,
                }
            }
        };
        Ok(Self {
            reward: written.reward,
            title: written.title,
            what,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rewards_are_read_as_they_are_written_and_nothing_else() {
        let coupon = json!({
            "reward": "welcome", "title": "5 off", "type": "coupon",
            "face_minor": 500, "threshold_minor": 0, "term_days": 30, "total": 100,
        });
        let read: RewardRule = serde_json::from_value(coupon.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), coupon);
        assert_eq!((read.cost_minor(), read.count_max()), (500, Some(100)));
        let gift = json!({
            "reward": "t", "title": "Tablet", "type": "gift", "cost_minor": 90, "stock_units": 3,
        });
        let read: RewardRule = serde_json::from_value(gift.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), gift);
        for (field, value, told) in [
            ("face", json!(1), "unknown field `face`"),
            ("face_minor", json!(1), "a gift has no face_minor"),
            ("total", json!(1), "a gift has no total"),
            ("cost_minor", json!(null), "a gift needs cost_minor"),
            ("stock_units", json!(1.5), "invalid type"),
            ("type", json!("cash"), "unknown variant"),
        ] {
            let mut bad = gift.clone();
            bad[field] = value;
            let error = serde_json::from_value::<RewardRule>(bad).unwrap_err();
            assert!(error.to_string().contains(told), "{field}: {error}");
        }
    }
}
