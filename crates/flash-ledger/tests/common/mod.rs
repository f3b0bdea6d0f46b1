//! Short names for what every test of the ledger says.
#![allow(dead_code, reason = "every test file uses some of it")]

use flash_ledger::{HashKey, Ledger, LedgerItem, PricedLine, RecordRef, Reserve};
use flash_types::{
    BuyerId, IdempotencyKey, ItemIndex, ItemUnits, Line, Lines, Money, Quantity, Serial, Timestamp,
};

pub const KEY: HashKey = HashKey(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);

pub fn buyer(name: impl std::fmt::Display) -> BuyerId {
    BuyerId::parse(&format!("buyer-{name}")).unwrap()
}

pub fn key(name: impl std::fmt::Display) -> IdempotencyKey {
    IdempotencyKey::parse(&format!("key-{name}")).unwrap()
}

pub fn released(units: u64, units_per_buyer_max: Option<u32>) -> LedgerItem {
    LedgerItem {
        units: ItemUnits {
            stock: units,
            available: units,
            ..ItemUnits::default()
        },
        units_per_buyer_max,
    }
}

/// One item for sale, one reservation after the other: the handles are numbers.
pub fn ledger(items: &[LedgerItem]) -> Ledger<u32> {
    Ledger::new(items, KEY)
}

pub fn priced(lines: &[(u16, u32)]) -> Vec<PricedLine> {
    lines
        .iter()
        .map(|(item, units)| PricedLine {
            item: ItemIndex(*item),
            quantity: Quantity::of_purchase(*units).unwrap(),
            unit_price_minor: price(*item),
        })
        .collect()
}

pub fn price(item: u16) -> Money {
    Money(100 * (i64::from(item) + 1))
}

pub fn merged(lines: &[(u16, u32)]) -> Lines {
    Lines::merged(lines.iter().map(|(item, units)| Line {
        item: ItemIndex(*item),
        quantity: Quantity::of_purchase(*units).unwrap(),
    }))
    .unwrap()
}

/// Reserves, or panics with the refusal.
pub fn take(ledger: &Ledger<u32>, who: &str, name: &str, lines: &[(u16, u32)]) -> RecordRef {
    match ledger.reserve(&buyer(who), &key(name), &priced(lines), 1) {
        Reserve::Taken(record) => record,
        refused @ (Reserve::Won(_) | Reserve::Limit(_) | Reserve::Short { .. }) => {
            panic!("{refused:?}")
        }
    }
}

/// Reserves and commits under a serial; due at `serial + 1000`.
pub fn reserved(
    ledger: &Ledger<u32>,
    serial: u64,
    who: &str,
    name: &str,
    lines: &[(u16, u32)],
) -> Serial {
    let record = take(ledger, who, name, lines);
    let at = serial as i64;
    ledger.numbered(record, Serial(serial));
    ledger.finish_reserve(record, Timestamp(at), Timestamp(at + 1_000));
    Serial(serial)
}

/// (stock, unreleased, available, reserved, sold)
pub fn counters(ledger: &Ledger<u32>, item: u16) -> [u64; 5] {
    let ItemUnits {
        stock,
        unreleased,
        available,
        reserved,
        sold,
    } = ledger.units(ItemIndex(item));
    [stock, unreleased, available, reserved, sold]
}
