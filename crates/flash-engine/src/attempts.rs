//! Tries that reserved nothing, counted by item, outcome and ten seconds: the report needs them, and nothing else can tell
//! them afterwards.
//!
//! A count is one addition to a counter in place; the committer takes the counters every ten seconds and makes one entry
//! of them. What was counted since then is lost with the process.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use flash_store::AttemptCount;
use flash_types::{ItemIndex, Outcome, Refusal, Timestamp};
use parking_lot::Mutex;

/// How long one count runs, milliseconds.
const SLOT_MS: i64 = 10_000;

/// What a try came to, as it is counted: the words of the contract.
const WORDS: [&str; 16] = [
    "not_found",
    "sale_frozen",
    "sale_not_started",
    "sale_paused",
    "sale_ended",
    "sold_out",
    "rate_limited",
    "overloaded",
    "buyer_limit_reached",
    "in_flight",
    "idempotency_key_reused",
    "store_unavailable",
    "storage_full",
    "stopping",
    "unknown",
    "replayed",
];

/// Counters of one sale: for each item, and for tries that named none of its items, one for each word.
pub(crate) struct Attempts {
    counters: Box<[AtomicU64]>,
    items_count: usize,
    /// Begin of the present ten seconds.
    from_ms: AtomicI64,
    /// Taken, and not stored so far.
    unstored: Mutex<Option<(Timestamp, Vec<AttemptCount>)>>,
}

impl Attempts {
    pub(crate) fn new(items_count: usize) -> Self {
        let counters = (0..(items_count + 1) * WORDS.len()).map(|_| AtomicU64::new(0));
        Self {
            counters: counters.collect(),
            items_count,
            from_ms: AtomicI64::new(0),
            unstored: Mutex::new(None),
        }
    }

    /// Counts a try by its first item.
    pub(crate) fn count(&self, item: Option<ItemIndex>, outcome: &Outcome) {
        if let Some(word) = word_of(outcome) {
            self.count_word(item, word);
        }
    }

    /// Counts a try that was refused before its item was known.
    pub(crate) fn count_refusal(&self, refusal: &Refusal) {
        self.count_word(None, word_of_refusal(refusal));
    }

    fn count_word(&self, item: Option<ItemIndex>, word: usize) {
        let row = item.map_or(self.items_count, |item| usize::from(item.0));
        if let Some(counter) = self.counters.get(row * WORDS.len() + word) {
            // Relaxed: a count that guards no other memory.
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the last ten seconds brought, once they are over, or what was not stored before.
    pub(crate) fn take(
        &self,
        now: Timestamp,
        is_last: bool,
    ) -> Option<(Timestamp, Vec<AttemptCount>)> {
        if let Some(unstored) = self.unstored.lock().take() {
            return Some(unstored);
        }
        let slot = now.0 - now.0.rem_euclid(SLOT_MS);
        // Relaxed: the committer alone reads and writes it.
        let from = self.from_ms.load(Ordering::Relaxed);
        if slot == from && !is_last {
            return None;
        }
        self.from_ms.store(slot, Ordering::Relaxed);
        let counts: Vec<_> = self.drain().collect();
        // Before the first look nothing is known of the time; what came then belongs to the present.
        let from = if from == 0 { slot } else { from };
        (!counts.is_empty()).then_some((Timestamp(from), counts))
    }

    /// It was not stored: the next look takes it again.
    pub(crate) fn give_back(&self, from: Timestamp, counts: Vec<AttemptCount>) {
        *self.unstored.lock() = Some((from, counts));
    }

    fn drain(&self) -> impl Iterator<Item = AttemptCount> + '_ {
        let cells = self.counters.iter().enumerate();
        cells.filter_map(|(place, counter)| {
            // Looked at first: most are 0, and a look leaves the line with those who count.
            if counter.load(Ordering::Relaxed) == 0 {
                return None;
            }
            let attempts = counter.swap(0, Ordering::Relaxed);
            let row = place / WORDS.len();
            let item = (row < self.items_count).then_some(ItemIndex(row as u16));
            Some(AttemptCount {
                item,
                outcome: WORDS[place % WORDS.len()].to_owned(),
                attempts,
            })
        })
    }
}

/// Place of an outcome's word; a new reservation stands in the books by itself.
fn word_of(outcome: &Outcome) -> Option<usize> {
    match outcome {
        Outcome::Reserved(_) => None,
        Outcome::Stands(_) => Some(15),
        Outcome::Unknown(_) => Some(14),
        Outcome::Refused(refusal) => Some(word_of_refusal(refusal)),
    }
}

fn word_of_refusal(refusal: &Refusal) -> usize {
    match refusal {
        Refusal::NotFound => 0,
        Refusal::SaleFrozen => 1,
        Refusal::SaleNotStarted { .. } => 2,
        Refusal::SalePaused => 3,
        Refusal::SaleEnded => 4,
        Refusal::SoldOut { .. } => 5,
        Refusal::RateLimited { .. } => 6,
        Refusal::Overloaded { .. } => 7,
        Refusal::BuyerLimitReached => 8,
        Refusal::InFlight => 9,
        // The others do not come of a purchase.
        Refusal::IdempotencyKeyReused
        | Refusal::PaymentRefReused
        | Refusal::ReservationExpired
        | Refusal::StateConflict { .. } => 10,
        Refusal::StoreUnavailable => 11,
        Refusal::StorageFull => 12,
        Refusal::Stopping => 13,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sold_out() -> Outcome {
        Outcome::Refused(Refusal::SoldOut {
            is_final: true,
            available_units: None,
        })
    }

    #[test]
    fn ten_seconds_are_counted_together_and_nothing_is_counted_twice() {
        let attempts = Attempts::new(2);
        let at = |seconds: i64| Timestamp(1_000_000_000_000 + seconds * 1_000);
        assert_eq!(attempts.take(at(1), false), None, "nothing was tried");
        for _ in 0..3 {
            attempts.count(Some(ItemIndex(1)), &sold_out());
        }
        attempts.count(None, &Outcome::Refused(Refusal::NotFound));
        assert_eq!(attempts.take(at(9), false), None, "they are not over");
        let (from, counts) = attempts.take(at(10), false).unwrap();
        assert_eq!(from, at(0));
        let counted = |item, outcome: &str, attempts| AttemptCount {
            item,
            outcome: outcome.into(),
            attempts,
        };
        let both = vec![
            counted(Some(ItemIndex(1)), "sold_out", 3),
            counted(None, "not_found", 1),
        ];
        assert_eq!(counts, both);
        attempts.give_back(from, counts);
        assert_eq!(attempts.take(at(11), false), Some((at(0), both)));
        assert_eq!(attempts.take(at(30), false), None);
        attempts.count(Some(ItemIndex(0)), &sold_out());
        let (from, counts) = attempts.take(at(31), true).unwrap();
        assert_eq!(from, at(30));
        assert_eq!(counts, [counted(Some(ItemIndex(0)), "sold_out", 1)]);
    }

    #[test]
    fn every_outcome_has_its_word() {
        let refusals = [
            (Refusal::NotFound, "not_found"),
            (Refusal::SalePaused, "sale_paused"),
            (Refusal::SaleEnded, "sale_ended"),
            (Refusal::BuyerLimitReached, "buyer_limit_reached"),
            (Refusal::InFlight, "in_flight"),
            (Refusal::IdempotencyKeyReused, "idempotency_key_reused"),
            (Refusal::StoreUnavailable, "store_unavailable"),
            (Refusal::StorageFull, "storage_full"),
            (Refusal::Stopping, "stopping"),
            (Refusal::SaleFrozen, "sale_frozen"),
            (Refusal::RateLimited { retry_after_ms: 1 }, "rate_limited"),
            (Refusal::Overloaded { retry_after_ms: 1 }, "overloaded"),
        ];
        for (refusal, word) in refusals {
            assert_eq!(WORDS[word_of_refusal(&refusal)], word);
        }
    }
}
