//! The records of a sale by serial, and how far everything can never be due again.
//!
//! Serials only ascend, so appending keeps the order. An undone reservation leaves an empty entry.

use smallvec::SmallVec;

use crate::record::NONE;
use crate::slab::Slab;

const CHUNK: usize = 4096;
/// Entries that a scan looks at between two turns with the lock.
pub(crate) const GROUP: usize = 32;

/// A piece of the index: (serial, place), `None` where undone.
pub(crate) type Group = SmallVec<[(u64, Option<u32>); GROUP]>;

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

    pub(crate) fn find(&self, serial: u64) -> Option<u32> {
        self.index_of(serial)
            .map(|index| *self.places.at(index))
            .filter(|place| *place != NONE)
    }

    pub(crate) fn remove(&mut self, serial: u64) {
        if let Some(index) = self.index_of(serial) {
            *self.places.at_mut(index) = NONE;
        }
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
            .map(|index| {
                let place = *self.places.at(index);
                (*self.serials.at(index), (place != NONE).then_some(place))
            })
            .collect()
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
    fn serials_are_found_until_removed() {
        let mut serials = Serials::new();
        for n in 0..10_000 {
            serials.push(u64::from(n) * 3 + 1, n);
        }
        for n in 0..10_000 {
            assert_eq!(serials.find(u64::from(n) * 3 + 1), Some(n));
            assert_eq!(serials.find(u64::from(n) * 3), None);
        }
        serials.remove(4);
        assert_eq!(serials.find(4), None);
        assert_eq!(
            serials.group(0)[..3],
            [(1, Some(0)), (4, None), (7, Some(2))]
        );
        assert_eq!(serials.group(9_999).len(), 1);
        assert_eq!(serials.group(10_000).len(), 0);
    }
}
