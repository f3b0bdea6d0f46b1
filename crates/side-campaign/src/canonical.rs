//! The one spelling of a JSON value, so that its hash means the value and not how somebody wrote it.
//!
//! RFC 8785 for values whose numbers are whole: members sorted by their names (as UTF-16), no spaces, UTF-8, the shortest
//! escapes, digits.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use side_books::command::hex;

/// The canonical text.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// SHA-256 of the canonical text, lower-case hexadecimal.
pub fn hash(value: &Value) -> String {
    hex(&Sha256::digest(text(value).as_bytes()))
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string());
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            // Sorted here: whether a map keeps its order is a switch that any crate of a build may throw.
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable_by(|one, other| one.encode_utf16().cmp(other.encode_utf16()));
            out.push('{');
            for (index, name) in names.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(&members[name], out);
            }
            out.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn spelling_does_not_change_the_hash_and_meaning_does() {
        let one: Value =
            serde_json::from_str(r#"{"b":[1, 2,{"y":null,"x":"é\n"}],"a":true}"#).unwrap();
        let same: Value =
            serde_json::from_str("{ \"a\":true,\"b\":[1,2,{\"x\":\"\\u00e9\\n\",\"y\":null}]}")
                .unwrap();
        assert_eq!(text(&one), r#"{"a":true,"b":[1,2,{"x":"é\n","y":null}]}"#);
        assert_eq!(hash(&one), hash(&same));
        // printf '%s' '{"a":true,"b":[1,2,{"x":"é\n","y":null}]}' | sha256sum
        assert_eq!(
            hash(&one),
            "a4ebe83a24eab57a1a5bfa170289f7ecf59b53de8dd803a4a96930cf0dc1a5c2"
        );
        let other: Value = serde_json::from_str(r#"{"a":true,"b":[2,1]}"#).unwrap();
        assert_ne!(hash(&one), hash(&other));
    }

    #[test]
    fn members_are_sorted_and_texts_escaped_as_rfc_8785_says() {
        // Sorting and escapes of its section 3.2.
        let value = json!({
            "\u{20ac}": "Euro Sign", "\r": "Carriage Return", "1": "One", "\u{1f600}": "Smiley",
            "\u{80}": "Control", "\u{f6}": "o", "\u{fb33}": "Dalet", "s": "\u{20ac}$\u{f}\nA'B\"\\\"/",
            "a": [2, {"b": null, "a": true}, -1],
        });
        let text = text(&value);
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
