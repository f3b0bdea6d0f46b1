//! What a definition may say: every bound of its common part in one place. All that is wrong is found, not only the first.

use std::collections::BTreeSet;

use flash_types::{ItemId, bounds};
use jiff::tz::TimeZone;
use serde_json::Value;

use super::{Definition, Eligibility, Reminders, RiskRules};
use crate::kind::Finding;
use crate::reward::{RewardKind, RewardRule};
use crate::risk::rules::COMPARED_MAX;

/// Largest amount of money, minor units.
pub const AMOUNT_MINOR_MAX: i64 = bounds::PRICE_MINOR_MAX;
/// Most of anything that is counted: rewards, participants.
pub const COUNT_MAX: i64 = 1_000_000_000;
/// Most rewards of a campaign.
pub const REWARDS_MAX: usize = 100;
/// Most numbers in a goal.
pub const GOALS_MAX: usize = 20;
/// Most reminders before the start.
pub const REMINDERS_MAX: usize = 8;
/// A reminder is at least so long before the start, and a second one after the first.
const REMINDER_S_MIN: u32 = 60;
/// And at most so long (60 days).
const REMINDER_S_MAX: u32 = 60 * 86_400;
/// Longest that a coupon is good for, days.
const TERM_DAYS_MAX: u32 = 3_650;
/// Longest window of a risk rule, seconds (a year).
const RISK_WINDOW_S_MAX: i64 = 365 * 86_400;
/// The largest whole number that every reader of JSON holds exactly.
const WHOLE_MAX: u64 = (1 << 53) - 1;

/// What was found so far.
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, code: &'static str, field: impl Into<String>, detail: impl Into<String>) {
        self.0.push(Finding::new(code, field, detail));
    }

    fn id(&mut self, field: &str, text: &str) {
        if let Err(bad) = ItemId::parse(text) {
            self.add("bad_id", field, format!("{field} {bad}"));
        }
    }

    fn title(&mut self, field: &str, text: &str) {
        let is_good = !text.trim().is_empty()
            && text.len() <= bounds::TITLE_BYTES_MAX
            && !text.chars().any(char::is_control);
        if !is_good {
            let most = bounds::TITLE_BYTES_MAX;
            let detail = format!("{field} must be 1-{most} bytes without control characters");
            self.add("bad_text", field, detail);
        }
    }

    fn within(&mut self, field: &str, value: i64, least: i64, most: i64) {
        if !(least..=most).contains(&value) {
            let detail = format!("{field} is {value}, not {least}-{most}");
            self.add("out_of_range", field, detail);
        }
    }
}

impl Definition {
    /// Everything that is wrong with the common part; the rules are for the kind to check.
    pub fn check(&self) -> Vec<Finding> {
        let mut found = Findings(Vec::new());
        found.id("campaign_id", &self.campaign_id);
        found.title("title", &self.title);
        self.check_times(&mut found);
        if self.zone.len() > 64 || TimeZone::get(&self.zone).is_err() {
            let detail = "zone is no time zone such as Asia/Shanghai or UTC";
            found.add("unknown_zone", "zone", detail);
        }
        found.within("budget_minor", self.budget_minor, 0, AMOUNT_MINOR_MAX);
        if self.goal.len() > GOALS_MAX {
            let detail = format!("goal holds more than {GOALS_MAX} numbers");
            found.add("too_many", "goal", detail);
        }
        for (name, value) in &self.goal {
            found.id("goal", name);
            found.within(&format!("goal.{name}"), *value, 0, AMOUNT_MINOR_MAX);
        }
        check_eligibility(&self.eligibility, &mut found);
        check_reminders(&self.reminders, &mut found);
        self.check_rewards(&mut found);
        check_risk(&self.risk, &mut found);
        check_rules("rules", &self.rules, &mut found);
        if let Some(plan_b) = &self.plan_b {
            check_rules("plan_b", plan_b, &mut found);
        }
        found.0
    }

    /// The reward of that name.
    pub fn reward(&self, name: &str) -> Option<&RewardRule> {
        self.rewards.iter().find(|rule| rule.reward == name)
    }

    fn check_times(&self, found: &mut Findings) {
        if self.starts_at >= self.ends_at {
            found.add("times", "ends_at", "ends_at must be after starts_at");
        }
        if self.warmup_at.is_some_and(|at| at > self.starts_at) {
            let detail = "warmup_at must not be after starts_at";
            found.add("times", "warmup_at", detail);
        }
    }

    fn check_rewards(&self, found: &mut Findings) {
        if self.rewards.len() > REWARDS_MAX {
            let detail = format!("rewards holds more than {REWARDS_MAX}");
            found.add("too_many", "rewards", detail);
        }
        let mut names = BTreeSet::new();
        for (index, rule) in self.rewards.iter().enumerate() {
            let place = format!("rewards[{index}]");
            found.id(&format!("{place}.reward"), &rule.reward);
            found.title(&format!("{place}.title"), &rule.title);
            if !names.insert(&rule.reward) {
                let detail = format!("there are two rewards {}", rule.reward);
                found.add("twice", format!("{place}.reward"), detail);
            }
            check_reward(&place, &rule.what, found);
        }
    }
}

fn check_reward(place: &str, what: &RewardKind, found: &mut Findings) {
    let field = |name: &str| format!("{place}.{name}");
    match what {
        RewardKind::Coupon {
            face_minor,
            threshold_minor,
            term_days,
            valid_from,
            valid_until,
            total,
            per_buyer,
        } => {
            found.within(&field("face_minor"), *face_minor, 1, AMOUNT_MINOR_MAX);
            let threshold = field("threshold_minor");
            found.within(&threshold, *threshold_minor, 0, AMOUNT_MINOR_MAX);
            match (term_days, valid_from, valid_until) {
                (Some(days), None, None) => {
                    let (days, most) = (i64::from(*days), i64::from(TERM_DAYS_MAX));
                    found.within(&field("term_days"), days, 1, most);
                }
                (None, from, Some(until)) => {
                    if from.is_some_and(|from| from >= *until) {
                        let detail = "valid_until must be after valid_from";
                        found.add("times", field("valid_until"), detail);
                    }
                }
                (_, _, _) => {
                    let detail = "a coupon says how long it is good for: either term_days, or valid_until (with or \
                                  without valid_from)";
                    found.add("validity", field("term_days"), detail);
                }
            }
            if let Some(total) = total {
                found.within(&field("total"), *total, 1, COUNT_MAX);
            }
            if let Some(per_buyer) = per_buyer {
                found.within(&field("per_buyer"), *per_buyer, 1, COUNT_MAX);
            }
        }
        RewardKind::Gift {
            cost_minor,
            stock_units,
        } => {
            found.within(&field("cost_minor"), *cost_minor, 0, AMOUNT_MINOR_MAX);
            found.within(&field("stock_units"), *stock_units, 1, COUNT_MAX);
        }
    }
}

fn check_eligibility(eligibility: &Eligibility, found: &mut Findings) {
    if let Some(task) = &eligibility.sign_up_task {
        found.id("eligibility.sign_up_task", task);
    }
    if let Some(most) = eligibility.participants_max {
        found.within("eligibility.participants_max", most, 1, COUNT_MAX);
    }
}

fn check_reminders(reminders: &Reminders, found: &mut Findings) {
    let (least, most) = (i64::from(REMINDER_S_MIN), i64::from(REMINDER_S_MAX));
    if reminders.before_s.len() > REMINDERS_MAX {
        let detail = format!("reminders.before_s holds more than {REMINDERS_MAX}");
        found.add("too_many", "reminders.before_s", detail);
    }
    for (index, before) in reminders.before_s.iter().enumerate() {
        found.within("reminders.before_s", i64::from(*before), least, most);
        if reminders.before_s[..index].contains(before) {
            let detail = format!("reminders.before_s holds {before} twice");
            found.add("twice", "reminders.before_s", detail);
        }
    }
    if let Some(after) = reminders.second_after_s {
        found.within("reminders.second_after_s", i64::from(after), least, most);
        if reminders.before_s.is_empty() {
            let detail = "a second reminder needs a first one: reminders.before_s is empty";
            found.add("no_first", "reminders.second_after_s", detail);
        }
    }
}

fn check_risk(risk: &RiskRules, found: &mut Findings) {
    for (field, value, most) in [
        ("risk.address_burst", risk.address_burst, COMPARED_MAX),
        (
            "risk.address_window_s",
            risk.address_window_s,
            RISK_WINDOW_S_MAX,
        ),
        ("risk.device_shared", risk.device_shared, COMPARED_MAX),
        ("risk.ring", risk.ring, COMPARED_MAX),
        (
            "risk.refund_after_reward_s",
            risk.refund_after_reward_s,
            RISK_WINDOW_S_MAX,
        ),
    ] {
        found.within(field, value, 1, most);
    }
}

/// An object whose numbers are whole: only those are written the same by everybody who recomputes its hash.
fn check_rules(field: &str, rules: &Value, found: &mut Findings) {
    if !rules.is_object() {
        found.add("not_an_object", field, format!("{field} is no object"));
    } else if !is_whole(rules) {
        let detail = format!("{field} holds a number that is not whole, or beyond 2^53 - 1");
        found.add("not_whole", field, detail);
    }
}

fn is_whole(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => number
            .as_i64()
            .is_some_and(|number| number.unsigned_abs() <= WHOLE_MAX),
        Value::Array(items) => items.iter().all(is_whole),
        Value::Object(members) => members.values().all(is_whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written() -> Value {
        json!({
            "campaign_id": "c1", "kind": "giveaway", "title": "Opening",
            "warmup_at": "2026-11-01T00:00:00Z",
            "starts_at": "2026-11-11T00:00:00Z", "ends_at": "2026-11-12T00:00:00Z",
            "zone": "Asia/Shanghai", "currency": "CNY", "budget_minor": 1_000,
            "goal": {"new_buyers": 50_000},
            "eligibility": {"participants_max": 10},
            "reminders": {"before_s": [604_800, 3_600], "second_after_s": 600},
            "rewards": [
                {"reward": "welcome", "title": "5 off", "type": "coupon", "face_minor": 500, "term_days": 7},
                {"reward": "tablet", "title": "Tablet", "type": "gift", "cost_minor": 1, "stock_units": 1},
            ],
            "rules": {"n": 1},
            "plan_b": {"n": 2},
        })
    }

    #[test]
    fn every_bound_is_found_by_its_field() {
        let good: Definition = serde_json::from_value(written()).unwrap();
        assert_eq!(good.check(), []);
        for (pointer, value, field) in [
            ("/campaign_id", json!("a b"), "campaign_id"),
            ("/title", json!(" "), "title"),
            ("/title", json!("a\nb"), "title"),
            ("/title", json!("x".repeat(257)), "title"),
            ("/warmup_at", json!("2026-11-11T00:00:01Z"), "warmup_at"),
            ("/ends_at", json!("2026-11-11T00:00:00Z"), "ends_at"),
            ("/zone", json!("Asia/Atlantis"), "zone"),
            ("/budget_minor", json!(-1), "budget_minor"),
            (
                "/budget_minor",
                json!(1_000_000_000_001_i64),
                "budget_minor",
            ),
            ("/goal/new_buyers", json!(-1), "goal.new_buyers"),
            (
                "/eligibility/participants_max",
                json!(0),
                "eligibility.participants_max",
            ),
            (
                "/eligibility",
                json!({"sign_up_task": "a b"}),
                "eligibility.sign_up_task",
            ),
            ("/reminders/before_s/0", json!(59), "reminders.before_s"),
            ("/reminders/before_s/0", json!(3_600), "reminders.before_s"),
            ("/reminders/before_s", json!([]), "reminders.second_after_s"),
            ("/rewards/0/reward", json!("tablet"), "rewards[1].reward"),
            ("/rewards/0/face_minor", json!(0), "rewards[0].face_minor"),
            ("/rewards/0/term_days", json!(null), "rewards[0].term_days"),
            ("/rewards/1/stock_units", json!(0), "rewards[1].stock_units"),
            ("/rewards/1/cost_minor", json!(-1), "rewards[1].cost_minor"),
            ("/rules", json!([]), "rules"),
            ("/rules/n", json!(1.5), "rules"),
            ("/rules/n", json!(9_007_199_254_740_992_u64), "rules"),
            ("/plan_b/n", json!(0.1), "plan_b"),
        ] {
            let mut bad = written();
            *bad.pointer_mut(pointer).unwrap() = value;
            let bad: Definition = serde_json::from_value(bad).unwrap();
            let found = bad.check();
            assert_eq!(found.len(), 1, "{pointer}: {found:?}");
            assert_eq!(found[0].field, field);
        }
    }

    #[test]
    fn all_is_told_at_once() {
        let mut bad: Definition = serde_json::from_value(written()).unwrap();
        bad.title.clear();
        bad.budget_minor = -1;
        bad.zone = "nowhere".to_owned();
        bad.risk.ring = 0;
        bad.goal = (0..21).map(|i| (format!("g{i}"), 1)).collect();
        let found = bad.check();
        let fields: Vec<_> = found.iter().map(|finding| &*finding.field).collect();
        assert_eq!(
            fields,
            ["title", "zone", "budget_minor", "goal", "risk.ring"]
        );
    }

    #[test]
    fn unknown_fields_are_refused() {
        for pointer in ["", "/eligibility", "/reminders"] {
            let mut bad = written();
            let place = bad.pointer_mut(pointer).unwrap();
            place["colour"] = json!("red");
            assert!(serde_json::from_value::<Definition>(bad).is_err());
        }
    }
}
