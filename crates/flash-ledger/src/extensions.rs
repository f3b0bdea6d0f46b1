//! Reservations that were given more time: they alone do not expire in the order of their serials.

use std::collections::{BTreeSet, HashSet};

use flash_types::Timestamp;

use crate::sync::{AtomicU64, Mutex, Ordering};

/// Which reservations were extended, and until when those that are still open are kept.
pub(crate) struct Extensions {
    known: Mutex<Known>,
    /// How many there are: most sales have none, and do not ask further.
    count: AtomicU64,
}

#[derive(Default)]
struct Known {
    /// Serials of all that were ever extended.
    all: HashSet<u64>,
    /// Those that wait to be due, by deadline.
    waiting: BTreeSet<(Timestamp, u64)>,
}

impl Extensions {
    pub(crate) fn new() -> Self {
        Self {
            known: Mutex::new(Known::default()),
            count: AtomicU64::new(0),
        }
    }

    /// This reservation is kept until then.
    pub(crate) fn add(&self, serial: u64, expires_at: Timestamp) {
        let mut known = self.known.lock();
        known.all.insert(serial);
        known.waiting.insert((expires_at, serial));
        // Release: pairs with `contains`.
        self.count.store(known.all.len() as u64, Ordering::Release);
    }

    /// Whether it was ever extended.
    pub(crate) fn contains(&self, serial: u64) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.known.lock().all.contains(&serial)
    }

    /// Those whose time has come, earliest first. Each stays until [`Extensions::settle`].
    pub(crate) fn due(&self, now: Timestamp) -> Vec<(Timestamp, u64)> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let known = self.known.lock();
        known.waiting.range(..=(now, u64::MAX)).copied().collect()
    }

    /// When the next one is due.
    pub(crate) fn next_due_at(&self) -> Option<Timestamp> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let known = self.known.lock();
        known.waiting.first().map(|(expires_at, _)| *expires_at)
    }

    /// It is not waited for any more, or until another time.
    pub(crate) fn settle(&self, expires_at: Timestamp, serial: u64, until: Option<Timestamp>) {
        let mut known = self.known.lock();
        known.waiting.remove(&(expires_at, serial));
        if let Some(until) = until {
            known.waiting.insert((until, serial));
        }
    }
}
