//! Units set aside for one buyer: lines, states, and the reservation as everybody sees it.

use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    BuyerId, Currency, ItemId, Money, PaymentRef, ReservationId, SaleId, Timestamp, bounds,
};

/// How many units: at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(NonZeroU32);

impl Quantity {
    /// A quantity of one line of a request: 1-1,000.
    pub fn of_line(units: u64) -> Option<Self> {
        let units = u32::try_from(units)
            .ok()
            .filter(|units| *units <= bounds::LINE_UNITS_MAX)?;
        NonZeroU32::new(units).map(Self)
    }

    /// A summed or stored quantity: 1-20,000.
    pub fn of_purchase(units: u32) -> Option<Self> {
        if units > bounds::PURCHASE_UNITS_MAX {
            return None;
        }
        NonZeroU32::new(units).map(Self)
    }

    /// The units.
    pub fn units(self) -> u32 {
        self.0.get()
    }
}

/// Place of an item in its sale's definition: 0-499.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemIndex(pub u16);

/// So many units of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// Which item.
    pub item: ItemIndex,
    /// How many.
    pub quantity: Quantity,
}

/// The lines of one purchase: ascending by item, each item once, 1-20 of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lines(SmallVec<[Line; 1]>);

impl Lines {
    /// Sums lines of the same item and sorts them.
    ///
    /// `None` if there are none, more than 20, or more units than a purchase may have.
    pub fn merged(lines: impl IntoIterator<Item = Line>) -> Option<Self> {
        let mut merged: SmallVec<[Line; 1]> = SmallVec::new();
        for (count, line) in lines.into_iter().enumerate() {
            if count == bounds::LINES_MAX {
                return None;
            }
            match merged.iter_mut().find(|known| known.item == line.item) {
                Some(known) => {
                    known.quantity =
                        Quantity::of_purchase(known.quantity.units() + line.quantity.units())?;
                }
                None => merged.push(line),
            }
        }
        merged.sort_unstable_by_key(|line| line.item);
        (!merged.is_empty()).then_some(Self(merged))
    }

    /// The lines.
    pub fn as_slice(&self) -> &[Line] {
        &self.0
    }
}

/// Where a reservation stands.
// Reserved -> (Confirmed | Released | Expired); Expired -> Confirmed (paid late); Confirmed -> Refunded (all units).
// Unknown is before all of these: handed to the store, fate not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReservationState {
    /// Sent to the store, fate not known.
    Unknown,
    /// Units are set aside until `expires_at`.
    Reserved,
    /// Paid.
    Confirmed,
    /// Given up by the buyer or the storefront.
    Released,
    /// Not paid in time.
    Expired,
    /// Paid, and all units refunded.
    Refunded,
}

impl ReservationState {
    /// The word on the wire and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Reserved => "reserved",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
            Self::Expired => "expired",
            Self::Refunded => "refunded",
        }
    }
}

/// At which level an acknowledged reservation is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// In SQLite's write-ahead log, flushed to the disk.
    SqliteFsync,
    /// In Redis' append-only file, flushed at every write.
    RedisAofAlways,
    /// In Redis' append-only file, flushed every second.
    RedisAofEverysec,
    /// In Redis' memory.
    RedisMemory,
    /// In the memory of this process (tests).
    Memory,
}

impl Durability {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SqliteFsync => "sqlite_fsync",
            Self::RedisAofAlways => "redis_aof_always",
            Self::RedisAofEverysec => "redis_aof_everysec",
            Self::RedisMemory => "redis_memory",
            Self::Memory => "memory",
        }
    }
}

/// One line of a reservation as everybody sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReservationLine {
    /// Which item.
    pub item: ItemId,
    /// How many units.
    pub quantity: u32,
    /// Price of one unit, minor units.
    pub unit_price_minor: Money,
    /// Units given back to the buyer as money.
    pub refunded_units: u32,
}

/// A reservation as everybody sees it; serializes to the contract's JSON, field for field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reservation {
    /// Its public name.
    pub reservation_id: ReservationId,
    /// The sale.
    pub sale_id: SaleId,
    /// The buyer.
    pub buyer_id: BuyerId,
    /// Where it stands.
    pub state: ReservationState,
    /// What is set aside.
    pub lines: SmallVec<[ReservationLine; 1]>,
    /// Price of all lines, minor units.
    pub amount_minor: Money,
    /// Of the amounts.
    pub currency: Currency,
    /// When it was reserved.
    pub created_at: Timestamp,
    /// Until when it is kept unpaid.
    pub expires_at: Timestamp,
    /// The payment that confirmed it.
    pub payment_ref: Option<PaymentRef>,
    /// At which level it is durable.
    pub durability: Durability,
}

/// A reservation on its way through an answer.
pub type SharedReservation = Arc<Reservation>;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(item: u16, units: u64) -> Line {
        Line {
            item: ItemIndex(item),
            quantity: Quantity::of_line(units).unwrap(),
        }
    }

    #[test]
    fn lines_of_one_item_are_summed_and_sorted() {
        let merged = Lines::merged([line(3, 1), line(1, 2), line(3, 4)]).unwrap();
        assert_eq!(
            merged
                .as_slice()
                .iter()
                .map(|l| (l.item.0, l.quantity.units()))
                .collect::<Vec<_>>(),
            [(1, 2), (3, 5)]
        );
        assert_eq!(Lines::merged([]), None);
        assert_eq!(Lines::merged((0..21).map(|item| line(item, 1))), None);
        assert!(Lines::merged((0..20).map(|_| line(0, 1000))).is_some());
    }

    #[test]
    fn a_line_has_1_to_1000_units() {
        for (units, taken) in [
            (0, false),
            (1, true),
            (1000, true),
            (1001, false),
            (u64::MAX, false),
        ] {
            assert_eq!(Quantity::of_line(units).is_some(), taken, "{units}");
        }
    }
}
