//! One slot of the table in one word: 20 bits that tell keys of a bucket apart, 44 bits of theoretical arrival time.
//!
//! Times are steps of 100 ns since the start of the process, modulo 2^44 (20 days), and only ever looked at as a
//! distance from now. A live slot is at most [`AHEAD_UNITS_MAX`] ahead; whatever seems further away than that was
//! left behind before the time wrapped, so it is stale. A stale slot says nothing, and is free.

/// Length of one step, nanoseconds.
pub(crate) const UNIT_NS: u64 = 100;
const TAT_BITS: u32 = 44;
const TAT_MASK: u64 = (1 << TAT_BITS) - 1;
/// Furthest that a theoretical arrival time may lie ahead of now, in steps (5 days).
pub(crate) const AHEAD_UNITS_MAX: u64 = 1 << (TAT_BITS - 2);

/// What a slot word says, seen from `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u64);

/// The bits of a key's hash that a slot keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    /// Taken from the low bits; the bucket is chosen by the high ones. Never 0: that is the empty word.
    pub(crate) fn of(key_hash: u64) -> Self {
        let bits = key_hash & ((1 << (64 - TAT_BITS)) - 1);
        Self(bits.max(1))
    }
}

impl Slot {
    pub(crate) fn new(tag: Tag, tat_units: u64) -> Self {
        Self(tag.0 << TAT_BITS | tat_units & TAT_MASK)
    }

    pub(crate) fn is_of(self, tag: Tag) -> bool {
        self.0 >> TAT_BITS == tag.0
    }

    /// How far ahead of now its theoretical arrival time lies, in steps; 0 for a stale slot.
    pub(crate) fn ahead_units(self, now_units: u64) -> u64 {
        let distance = (self.0 & TAT_MASK).wrapping_sub(now_units) & TAT_MASK;
        if distance <= AHEAD_UNITS_MAX {
            distance
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_survive_the_wrap_and_old_slots_are_stale() {
        let tag = Tag::of(7);
        for now in [
            0,
            5,
            TAT_MASK - 1,
            TAT_MASK,
            TAT_MASK + 9,
            u64::MAX / UNIT_NS,
        ] {
            for ahead in [0, 1, 1_000_000, AHEAD_UNITS_MAX] {
                assert_eq!(Slot::new(tag, now + ahead).ahead_units(now), ahead);
            }
            let old = Slot::new(tag, now);
            for later in [1, 1 << 20, TAT_MASK >> 1, TAT_MASK - AHEAD_UNITS_MAX] {
                assert_eq!(old.ahead_units(now + later), 0, "{now} {later}");
            }
        }
    }

    #[test]
    fn the_empty_word_is_nobodys() {
        assert!((0..1 << 21).all(|hash| !Slot(0).is_of(Tag::of(hash))));
    }
}
