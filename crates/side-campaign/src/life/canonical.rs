//! What of a definition is hashed, such that an outsider gets the same.
//!
//! The text is RFC 8785 ([`crate::canonical`]). Of the `definition` in the answer of `GET /v1/campaigns/{campaign}`, `rules_hash` is the SHA-256 of that text, in
//! hexadecimal digits. In Python:
//! `sha256(json.dumps(definition, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()`
//!
//! What buyers do not see (budget, risk thresholds, plan B, what gifts cost the shop) is committed to as well, by
//! `private_hash`: the SHA-256 of the canonical text of `{"budget_minor", "costs", "plan_b", "risk", "salt"}`. The salt,
//! HMAC-SHA256(seed, `private|<campaign>`) in hexadecimal digits, keeps a budget from being guessed.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value, json};
use sha2::Sha256;
use side_books::command::hex;

use crate::canonical::hash;
use crate::definition::Definition;
use crate::draws::Seed;

/// A definition as buyers see it, in which `private_hash` stands for what they do not see.
pub fn public_definition(definition: &Definition, private_hash: &str) -> Value {
    shown(whole(definition), private_hash)
}

/// As [`public_definition`], of one as it is stored: versions that were written before keep the fields that they had.
pub(crate) fn public_of_stored(definition: &Value, private_hash: &str) -> Value {
    let members = definition.as_object().cloned().unwrap_or_default();
    shown(members, private_hash)
}

fn shown(mut shown: Map<String, Value>, private_hash: &str) -> Value {
    for name in ["budget_minor", "risk", "plan_b"] {
        shown.remove(name);
    }
    let rewards = shown.get_mut("rewards").and_then(Value::as_array_mut);
    for reward in rewards.into_iter().flatten() {
        if let Some(reward) = reward.as_object_mut() {
            reward.remove("cost_minor");
        }
    }
    shown.insert("private_hash".to_owned(), json!(private_hash));
    Value::Object(shown)
}

/// Hash of what buyers do not see.
pub(super) fn private_hash(definition: &Definition, seed: &Seed) -> String {
    let mut whole = whole(definition);
    let mut part = |name: &str| whole.remove(name).unwrap_or(Value::Null);
    let (budget, plan_b, risk) = (part("budget_minor"), part("plan_b"), part("risk"));
    let costs = definition.rewards.iter();
    let costs: Map<String, Value> = costs
        .map(|rule| (rule.reward.clone(), json!(rule.cost_minor())))
        .collect();
    hash(&json!({
        "budget_minor": budget,
        "costs": costs,
        "plan_b": plan_b,
        "risk": risk,
        "salt": salt(seed, &definition.campaign_id),
    }))
}

fn salt(seed: &Seed, campaign: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(&seed.0).expect("a key of any length is taken");
    mac.update(format!("private|{campaign}").as_bytes());
    hex(&mac.finalize().into_bytes())
}

fn whole(definition: &Definition) -> Map<String, Value> {
    match serde_json::to_value(definition) {
        Ok(Value::Object(members)) => members,
        Ok(_) | Err(_) => unreachable!("a definition is an object of plain values"),
    }
}
