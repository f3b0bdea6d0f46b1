//! The text of a definition of which the hash is taken, such that an outsider gets the same.
//!
//! It is RFC 8785: members sorted by their names, no spaces, whole numbers in digits, texts with the shortest escapes. Of
//! the `definition` in the answer of `GET /v1/campaigns/{campaign}`, `rules_hash` is the SHA-256 of that text, in
//! hexadecimal digits. In Python:
//! `sha256(json.dumps(definition, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()`
//!
//! What buyers do not see (budget, risk thresholds, plan B, what gifts cost the shop) is committed to as well, by
//! `private_hash`: the SHA-256 of the canonical text of `{"budget_minor", "costs", "plan_b", "risk", "salt"}`. The salt,
//! HMAC-SHA256(seed, `private|<campaign>`) in hexadecimal digits, keeps a budget from being guessed.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use side_books::command::hex;

use crate::definition::Definition;
use crate::draws::Seed;

/// The one text of a JSON value (RFC 8785). Numbers must be whole, which the check of a definition sees to.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

/// SHA-256 of the canonical text, in hexadecimal digits.
pub fn hash(value: &Value) -> String {
    hex(&Sha256::digest(canonical(value).as_bytes()))
}

/// A definition as buyers see it, in which `private_hash` stands for what they do not see.
pub fn public_definition(definition: &Definition, private_hash: &str) -> Value {
    let mut shown = whole(definition);
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

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            text.push('{');
            for (index, (name, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(&Value::String(name.clone()), text);
                text.push(':');
                write(member, text);
            }
            text.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_sorted_and_texts_escaped_as_rfc_8785_says() {
        // Sorting and escapes of its section 3.2.
        let value = json!({
            "\u{20ac}": "Euro Sign", "\r": "Carriage Return", "1": "One", "\u{1f600}": "Smiley",
            "\u{80}": "Control", "\u{f6}": "o", "\u{fb33}": "Dalet", "s": "\u{20ac}$\u{f}\nA'B\"\\\"/",
            "a": [2, {"b": null, "a": true}, -1],
        });
        let text = canonical(&value);
        assert_eq!(
            text,
            "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"a\":[2,{\"a\":true,\"b\":null},-1],\
             \"s\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\"/\",\"\u{80}\":\"Control\",\"\u{f6}\":\"o\",\
             \"\u{20ac}\":\"Euro Sign\",\"\u{1f600}\":\"Smiley\",\"\u{fb33}\":\"Dalet\"}"
        );
        // What `printf '{"a":1}' | sha256sum` says.
        assert_eq!(
            hash(&json!({"a": 1})),
            "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
        );
    }
}
