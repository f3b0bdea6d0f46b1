//! The word of one item: units available and units reserved, 32 bits each, in one atomic.
//!
//! Protocol: every move reads both halves, checks them and writes both at once by compare-and-swap, so no
//! observer ever sees a unit twice or not at all, and neither half can pass below zero. Every move is a
//! read-modify-write with Release: whoever loads any later value with Acquire sees all that its
//! predecessors did before they moved units (the won-key filter builds on that).

use std::fmt;

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicU64, Ordering};

/// Units of one item that can still move, on a cache line of its own.
pub struct Word(CachePadded<AtomicU64>);

/// Both halves of the word at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Halves {
    /// For sale now.
    pub available: u32,
    /// Set aside.
    pub reserved: u32,
}

impl Halves {
    fn of(word: u64) -> Self {
        Self {
            available: (word >> 32) as u32,
            reserved: word as u32,
        }
    }

    fn packed(self) -> u64 {
        u64::from(self.available) << 32 | u64::from(self.reserved)
    }
}

impl Word {
    /// A word that holds so many units.
    pub fn new(available: u32, reserved: u32) -> Self {
        let halves = Halves {
            available,
            reserved,
        };
        Self(CachePadded::new(AtomicU64::new(halves.packed())))
    }

    /// Both halves.
    pub fn load(&self) -> Halves {
        // Acquire: a caller that sees 0 available must also see the keys of those who took the units.
        Halves::of(self.0.load(Ordering::Acquire))
    }

    /// available -> reserved: all `units` or none.
    ///
    /// # Errors
    /// The units available, where they are fewer than `units`.
    pub fn take(&self, units: u32) -> Result<(), u32> {
        self.change(|now| {
            let available = now.available.checked_sub(units).ok_or(now.available)?;
            Ok(Halves {
                available,
                reserved: plus(now.reserved, units),
            })
        })
        .map(|_| ())
    }

    /// available -> reserved: at most `units`; tells how many.
    pub fn take_up_to(&self, units: u64) -> u32 {
        let before = self.change_always(|now| {
            let taken = clamp(units, now.available);
            Halves {
                available: now.available - taken,
                reserved: plus(now.reserved, taken),
            }
        });
        clamp(units, before.available)
    }

    /// reserved -> available.
    ///
    /// # Panics
    /// If fewer than `units` are reserved: the books are broken.
    pub fn give(&self, units: u32) {
        self.change_always(|now| Halves {
            available: plus(now.available, units),
            reserved: minus(now.reserved, units),
        });
    }

    /// reserved -> out of the word (sold, or taken out of the stock).
    ///
    /// # Panics
    /// If fewer than `units` are reserved: the books are broken.
    pub fn leave(&self, units: u32) {
        self.change_always(|now| Halves {
            available: now.available,
            reserved: minus(now.reserved, units),
        });
    }

    /// From outside of the word (unreleased, restocked, new stock) -> available.
    ///
    /// # Panics
    /// If the item would have more than 4,294,967,295 units: the books are broken.
    pub fn enter(&self, units: u32) {
        self.change_always(|now| Halves {
            available: plus(now.available, units),
            reserved: now.reserved,
        });
    }

    fn change_always(&self, step: impl Fn(Halves) -> Halves) -> Halves {
        match self.change(|now| Ok::<_, std::convert::Infallible>(step(now))) {
            Ok(before) => before,
            Err(never) => match never {},
        }
    }

    /// Applies `step` at one moment; gives the halves before it.
    fn change<E>(&self, step: impl Fn(Halves) -> Result<Halves, E>) -> Result<Halves, E> {
        // Acquire on every read: a refusal that `step` gives counts as having seen the takers' keys.
        let mut seen = if cfg!(loom) {
            // loom looks back at the last access only: a load here would hide another thread's load.
            self.0.fetch_or(0, Ordering::Acquire)
        } else {
            self.0.load(Ordering::Acquire)
        };
        loop {
            let now = Halves::of(seen);
            let next = step(now)?.packed();
            // Release: the filter entry made before a take is seen by whoever sees the take.
            match self
                .0
                .compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Ok(now),
                Err(other) => seen = other,
            }
        }
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load().fmt(f)
    }
}

fn clamp(units: u64, most: u32) -> u32 {
    u32::try_from(units).unwrap_or(u32::MAX).min(most)
}

fn plus(half: u32, units: u32) -> u32 {
    let sum = half.checked_add(units);
    assert!(
        sum.is_some(),
        "books broken: {half} + {units} units do not fit an item"
    );
    sum.unwrap_or(half)
}

fn minus(half: u32, units: u32) -> u32 {
    assert!(half >= units, "books broken: {units} units leave {half}");
    half - units
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn halves(available: u32, reserved: u32) -> Halves {
        Halves {
            available,
            reserved,
        }
    }

    #[test]
    fn units_move_between_the_halves() {
        let word = Word::new(5, 0);
        assert_eq!(word.take(3), Ok(()));
        assert_eq!(word.take(3), Err(2));
        assert_eq!(word.load(), halves(2, 3));
        word.give(1);
        word.leave(2);
        word.enter(4);
        assert_eq!(word.load(), halves(7, 0));
        assert_eq!(word.take_up_to(u64::MAX), 7);
        assert_eq!(word.take_up_to(1), 0);
        assert_eq!(word.load(), halves(0, 7));
    }

    #[test]
    #[should_panic(expected = "books broken")]
    fn more_than_is_reserved_cannot_be_given_back() {
        Word::new(1, 1).give(2);
    }

    #[test]
    #[should_panic(expected = "books broken")]
    fn more_than_is_reserved_cannot_be_sold() {
        Word::new(1, 1).leave(2);
    }

    #[test]
    #[should_panic(expected = "books broken")]
    fn an_item_cannot_hold_more_than_32_bits() {
        Word::new(u32::MAX, 0).enter(1);
    }
}
