//! Names of all keys, built here and nowhere else.
//!
//! Invariant: all keys of a sale share one hash tag, `{s:<sale id>}`. Ids consist of `A-Z a-z 0-9 _ . : -` (checked
//! when they are parsed), so no id can close the tag, and none holds a separator of ours.

use flash_types::SaleId;

/// Where it is told which sales there are: sale id -> number, or `number|making`.
pub const SALES: &str = "{stampede}:sales";
/// Who lives: node -> `start|seen_ms`.
pub const NODES: &str = "{stampede}:nodes";
/// Count of starts.
pub const START: &str = "{stampede}:start";
/// Random name of this store.
pub const STORE: &str = "{stampede}:store";
/// Notes that concern no sale.
pub const NOTE: &str = "{stampede}:note";

/// Separates the parts of a field.
pub const SEPARATOR: char = '|';

/// The keys of one sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaleKeys {
    /// Plan, state, counters, sizes.
    pub meta: String,
    /// Writers: node -> epoch, seq, results.
    pub w: String,
    /// Reservations by serial.
    pub resv: String,
    /// Keys that won.
    pub key: String,
    /// Units of each buyer and item.
    pub buyer: String,
    /// Decisions by reference.
    pub reference: String,
    /// Events, one entry per batch.
    pub ev: String,
    /// The admin audit log of the sale.
    pub note: String,
}

impl SaleKeys {
    /// The keys of this sale.
    pub fn of(sale_id: &SaleId) -> Self {
        let key = |name: &str| format!("{{s:{}}}:{name}", sale_id.as_str());
        Self {
            meta: key("meta"),
            w: key("w"),
            resv: key("resv"),
            key: key("key"),
            buyer: key("buyer"),
            reference: key("ref"),
            ev: key("ev"),
            note: key("note"),
        }
    }

    /// All of them, in the order in which scripts take them.
    pub fn all(&self) -> [&str; 8] {
        [
            &self.meta,
            &self.w,
            &self.resv,
            &self.key,
            &self.buyer,
            &self.reference,
            &self.ev,
            &self.note,
        ]
    }
}

/// Field of `meta` that holds an item.
pub fn item_field(index: u16) -> String {
    format!("i:{index}")
}

/// Writes the field of `key` over what is in `field`.
pub fn key_field(buyer: &str, key: &str, field: &mut String) {
    field.clear();
    field.push_str(buyer);
    field.push(SEPARATOR);
    field.push_str(key);
}

/// Writes the field of `buyer` over what is in `field`.
pub fn buyer_field(buyer: &str, item: u16, field: &mut String) {
    use std::fmt::Write;
    field.clear();
    field.push_str(buyer);
    field.push(SEPARATOR);
    // Writing to memory cannot fail.
    let _ = write!(field, "{item}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_id_breaks_out_of_the_tag() {
        for id in ["a}b", "{x}", "a|b", "a,b", "a;b", "a b", "a\nb", "", "ü"] {
            assert!(SaleId::parse(id).is_err(), "{id:?} must not be an id");
        }
        let longest = "x".repeat(flash_types::bounds::ID_BYTES_MAX);
        let sale_id = SaleId::parse(&longest).unwrap();
        let keys = SaleKeys::of(&sale_id);
        for key in keys.all() {
            let tag = &key[1..key.find('}').unwrap()];
            assert_eq!(tag, format!("s:{longest}"), "{key}");
            assert!(!key.starts_with("{stampede}"));
        }
        // A sale may be named like our own tag: its keys are still its own.
        let named = SaleKeys::of(&SaleId::parse("stampede").unwrap());
        assert!(named.meta.starts_with("{s:stampede}:"));
    }
}
