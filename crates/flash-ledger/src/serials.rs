//! The records of a sale by serial, and how far everything can never be due again.
//!
//! Serials only ascend, so appending keeps the order. Entries stay: where a reservation was undone, no record
//! bears the serial any more, and whoever follows the entry finds that out.

use smallvec::SmallVec;

use crate::slab::Slab;

const CHUNK: usize = 4096;
/// Entries that a scan looks at between two turns with the lock.
pub(crate) const GROUP: usize = 32;

/// A piece of the index: (serial, place).
pub(crate) type Group = SmallVec<[(u64, u32); GROUP]>;

/// Places of records (shard and slot) by serial.
pub(crate) struct Serials {
    serials: Slab<u64, CHUNK>,
    places: Slab<u32, CHUNK>,
    /// Everything before this entry can never be due again.
    closed_before: u32,
}

impl Serials {
    pub(crate) fn new() -> Self {
        Self {
            serials: Slab::new(),
            places: Slab::new(),
            closed_before: 0,
        }
    }

    /// # Panics
    /// If the serial does not ascend.
    pub(crate) fn push(&mut self, serial: u64, place: u32) {
        assert!(
            self.serials.last().is_none_or(|last| *last < serial),
            "serials of reservations ascend"
        );
        self.serials.push(serial);
        self.places.push(place);
    }

    /// Where the record with this serial lies, or lay.
    pub(crate) fn find(&self, serial: u64) -> Option<u32> {
        self.index_of(serial).map(|index| *self.places.at(index))
    }

    /// The first entry that may still become due.
    pub(crate) fn open_from(&self) -> u32 {
        self.closed_before
    }

    /// Notes that everything before `index` can never be due again. Never moves back.
    pub(crate) fn close_before(&mut self, index: u32) {
        self.closed_before = self.closed_before.max(index);
    }

    /// Up to [`GROUP`] entries from `index`.
    pub(crate) fn group(&self, index: u32) -> Group {
        let end = self.serials.len().min(index as usize + GROUP) as u32;
        (index..end)
            .map(|index| (*self.serials.at(index), *self.places.at(index)))
            .collect()
    }

    /// Index of the first entry with a greater serial.
    pub(crate) fn index_after(&self, serial: u64) -> u32 {
        let (mut low, mut high) = (0, self.serials.len() as u32);
        while low < high {
            let middle = low + (high - low) / 2;
            if *self.serials.at(middle) <= serial {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn index_of(&self, serial: u64) -> Option<u32> {
        let (mut low, mut high) = (0, self.serials.len() as u32);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.serials.at(middle).cmp(&serial) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn serials_are_found() {
        let mut serials = Serials::new();
        for n in 0..10_000 {
            serials.push(u64::from(n) * 3 + 1, n);
        }
        for n in 0..10_000 {
            assert_eq!(serials.find(u64::from(n) * 3 + 1), Some(n));
            assert_eq!(serials.find(u64::from(n) * 3), None);
        }
        for (serial, index) in [
            (0, 0),
            (1, 1),
            (2, 1),
            (4, 2),
            (29_998, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(serials.index_after(serial), index, "{serial}");
        }
        assert_eq!(serials.group(0)[..3], [(1, 0), (4, 1), (7, 2)]);
        assert_eq!(serials.group(9_999).len(), 1);
        assert_eq!(serials.group(10_000).len(), 0);
    }
}
