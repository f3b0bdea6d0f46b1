//! One reservation in memory: a cache line, its names elsewhere.

use flash_types::{ItemIndex, Money, ReservationState, Timestamp};

/// No place.
pub(crate) const NONE: u32 = u32::MAX;
/// Not numbered yet. No serial reaches it: they stay below 2^53.
pub(crate) const NO_SERIAL: u64 = u64::MAX;

/// One line of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LineRecord {
    pub(crate) unit_price_minor: Money,
    item: u16,
    units: u16,
    refunded: u16,
    restocked: u16,
}

impl LineRecord {
    pub(crate) fn new(item: ItemIndex, units: u32, unit_price_minor: Money) -> Self {
        Self {
            unit_price_minor,
            item: item.0,
            units: half(units),
            refunded: 0,
            restocked: 0,
        }
    }

    /// # Panics
    /// If more units were refunded than reserved, or more restocked than refunded.
    pub(crate) fn with_refunded(mut self, refunded: u32, restocked: u32) -> Self {
        self.refund(restocked, true);
        assert!(refunded >= restocked, "restocked units were refunded");
        self.refund(refunded - restocked, false);
        self
    }

    /// # Panics
    /// If more units were refunded than reserved.
    pub(crate) fn refund(&mut self, units: u32, restock: bool) {
        assert!(
            units <= self.left(),
            "books broken: refunded units are left"
        );
        self.refunded += half(units);
        if restock {
            self.restocked += half(units);
        }
    }

    pub(crate) fn item(&self) -> ItemIndex {
        ItemIndex(self.item)
    }

    pub(crate) fn units(&self) -> u32 {
        self.units.into()
    }

    pub(crate) fn refunded(&self) -> u32 {
        self.refunded.into()
    }

    /// Not refunded.
    pub(crate) fn left(&self) -> u32 {
        (self.units - self.refunded).into()
    }

    /// Sold, if the reservation was paid: refunded units stay sold until they are restocked.
    pub(crate) fn not_restocked(&self) -> u32 {
        (self.units - self.restocked).into()
    }
}

fn half(units: u32) -> u16 {
    u16::try_from(units).expect("bounds.rs: a purchase has less than 2^16 units of an item")
}

/// One reservation.
#[repr(align(64))]
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) serial: u64,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// The only line; of several lines it has 0 units, and they lie in the shard's side map.
    pub(crate) line: LineRecord,
    /// Buyer and key, side by side.
    pub(crate) name: u32,
    /// The same buyer's record before this one.
    pub(crate) previous: u32,
    /// Counts the records that this place had, so that an old reference finds nothing.
    pub(crate) generation: u32,
    /// Of (buyer, key): lets the table of keys grow without hashing again.
    pub(crate) pair_hash: u32,
    /// Place of what is in flight.
    pub(crate) flight: u32,
    pub(crate) buyer_len: u8,
    pub(crate) key_len: u8,
    /// The committed state.
    pub(crate) state: ReservationState,
    pub(crate) is_live: bool,
}

const _: () = assert!(size_of::<Record>() == 64);

impl Record {
    pub(crate) fn name_len(&self) -> usize {
        usize::from(self.buyer_len) + usize::from(self.key_len)
    }

    pub(crate) fn has_many_lines(&self) -> bool {
        self.line.units == 0
    }
}
