//! Numbers of events and reservations: ascending, never used twice, shared by all lanes.

use std::sync::atomic::{AtomicU64, Ordering};

use flash_types::{Serial, bounds};

/// The numbers of one start of the process.
#[derive(Debug)]
pub(crate) struct Serials {
    next: AtomicU64,
    end: u64,
}

impl Serials {
    /// The upper part of every number is the epoch, a count of starts; the last ones are left to the store.
    pub(crate) fn of_epoch(epoch: u64) -> Self {
        assert!(
            epoch > 0 && epoch < bounds::EPOCH_MAX,
            "an epoch is a count of starts"
        );
        Self {
            next: AtomicU64::new(epoch * bounds::SERIALS_PER_EPOCH + 1),
            end: (epoch + 1) * bounds::SERIALS_PER_EPOCH - bounds::SERIALS_OF_STORE,
        }
    }

    /// The next one. Two that one task takes ascend.
    ///
    /// # Panics
    /// After 2^32 of them, nearly.
    pub(crate) fn next(&self) -> Serial {
        // Relaxed: a count; that it goes up is all that is needed of it.
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(serial < self.end, "a start numbers fewer than 2^32 events");
        Serial(serial)
    }
}
