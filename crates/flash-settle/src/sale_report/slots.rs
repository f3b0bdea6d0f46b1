//! Sales over time in few slots: they get longer where there would be too many.

use std::collections::BTreeMap;

use flash_types::Timestamp;

use super::view::Slot;

/// Most slots.
pub(super) const SLOTS_MAX: usize = 400;
/// How long a slot may be, milliseconds: each is a whole number of the one before it, so slots can be put together.
const LENGTHS_MS: [i64; 9] = [
    10_000,
    60_000,
    600_000,
    3_600_000,
    6 * 3_600_000,
    24 * 3_600_000,
    10 * 24 * 3_600_000,
    100 * 24 * 3_600_000,
    36_500 * 24 * 3_600_000,
];
/// A sale that is planned to be longer begins with the second length.
const SHORT_SALE_MS: i64 = 3_600_000;

/// The slots of a sale in which anything happened. What they hold in the end does not depend on the order of additions.
#[derive(Debug)]
pub(super) struct Slots {
    length: usize,
    /// By begin, milliseconds.
    slots: BTreeMap<i64, Slot>,
}

impl Slots {
    pub(super) fn new(starts_at: Timestamp, ends_at: Timestamp) -> Self {
        Self {
            length: usize::from(ends_at.0 - starts_at.0 > SHORT_SALE_MS),
            slots: BTreeMap::new(),
        }
    }

    pub(super) fn length_s(&self) -> u64 {
        LENGTHS_MS[self.length].unsigned_abs() / 1_000
    }

    /// Changes the slot of a time.
    pub(super) fn add(&mut self, at: Timestamp, change: impl FnOnce(&mut Slot)) {
        change(slot_of(&mut self.slots, at.0, LENGTHS_MS[self.length]));
        while self.slots.len() > SLOTS_MAX && self.length + 1 < LENGTHS_MS.len() {
            self.length += 1;
            let shorter = std::mem::take(&mut self.slots);
            for (from, slot) in shorter {
                let longer = slot_of(&mut self.slots, from, LENGTHS_MS[self.length]);
                longer.add(&slot);
            }
        }
    }

    pub(super) fn finish(self) -> Vec<Slot> {
        self.slots.into_values().collect()
    }
}

fn slot_of(slots: &mut BTreeMap<i64, Slot>, at_ms: i64, length_ms: i64) -> &mut Slot {
    let from = at_ms - at_ms.rem_euclid(length_ms);
    slots.entry(from).or_insert_with(|| Slot {
        from: Timestamp(from),
        ..Slot::default()
    })
}

impl Slot {
    fn add(&mut self, other: &Self) {
        // Named one by one: a new figure cannot be forgotten here.
        let Self {
            from: _,
            attempts,
            refused_attempts,
            reserved_orders,
            reserved_units,
            reserved_amount_minor,
            paid_orders,
            paid_units,
            paid_amount_minor,
        } = other;
        self.attempts += attempts;
        self.refused_attempts += refused_attempts;
        self.reserved_orders += reserved_orders;
        self.reserved_units += reserved_units;
        self.reserved_amount_minor = self
            .reserved_amount_minor
            .saturating_add(*reserved_amount_minor);
        self.paid_orders += paid_orders;
        self.paid_units += paid_units;
        self.paid_amount_minor = self.paid_amount_minor.saturating_add(*paid_amount_minor);
    }
}
