//! Who has a job: the one that waits for it, or the one that does it.
//!
//! Protocol: a job is claimed once, either to be done or to be given up, by one exchange from `WAITING`; whoever comes
//! second sees what the first made of it. So a caller who was told that nothing began is right for ever.

use std::sync::atomic::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;

/// A job's fate.
#[derive(Debug, Default)]
pub(super) struct Claim(AtomicU8);

impl Claim {
    /// `true`: it is to be done. `false`: nobody wants it any more.
    pub(super) fn begin(&self) -> bool {
        self.take(BEGUN)
    }

    /// `true`: it will never be done. `false`: it has begun.
    pub(super) fn give_up(&self) -> bool {
        self.take(GIVEN_UP)
    }

    fn take(&self, fate: u8) -> bool {
        // Relaxed: the word itself is all that is shared, and one word has one order.
        let taken = self
            .0
            .compare_exchange(WAITING, fate, Ordering::Relaxed, Ordering::Relaxed);
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_claim_stands() {
        let claim = Claim::default();
        assert!(claim.begin() && !claim.give_up() && !claim.begin());
        let claim = Claim::default();
        assert!(claim.give_up() && !claim.begin());
    }
}
