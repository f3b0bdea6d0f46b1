//! The limiter against the exact algorithm, and its promises about memory and about strangers.
#![cfg(not(loom))]

use std::collections::HashMap;
use std::hash::Hasher;

use flash_admission::{HashKey, Limiter, Rate};
use proptest::prelude::*;
use siphasher::sip::SipHasher13;

fn hash(key: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(1, 2);
    hasher.write_u64(key);
    hasher.finish()
}

/// GCRA as the book has it: unbounded, exact to the nanosecond.
#[derive(Default)]
struct Exact(HashMap<u64, u64>);

impl Exact {
    fn check(&mut self, key: u64, rate: Rate, now_ns: u64) -> Result<(), u64> {
        let tat = self.0.get(&key).copied().unwrap_or(now_ns).max(now_ns);
        match tat.checked_sub(now_ns + rate.burst_tolerance_ns) {
            Some(early_ns) if early_ns > 0 => Err(early_ns),
            Some(_) | None => {
                self.0.insert(key, tat + rate.emission_interval_ns);
                Ok(())
            }
        }
    }
}

proptest! {
    /// As long as no bucket overflows, every answer is the exact one (times in the table's steps of 100 ns).
    #[test]
    fn answers_are_those_of_the_exact_algorithm(
        rate in prop_oneof![1u32..=20, Just(1_000), Just(3_000_000), Just(10_000_000)],
        burst in 1u32..=20,
        start in prop_oneof![Just(0u64), Just(1_759_218_604_000_000u64), 0..10_000_000_000_000_000u64],
        tries in prop::collection::vec((0u64..12, 0u64..400_000_000), 1..400),
    ) {
        let rate = Rate::per_second(rate, burst);
        let limiter = Limiter::new(1_000, HashKey(1, 2));
        let mut exact = Exact::default();
        let mut now_ns = start / 100 * 100;
        for (key, pause_ns) in tries {
            now_ns += pause_ns / 100 * 100;
            let answer = limiter.check(hash(key), rate, now_ns);
            let expected = exact
                .check(key, rate, now_ns)
                .map_err(|early_ns| early_ns.div_ceil(1_000_000).max(1) as u32);
            prop_assert_eq!(answer, expected);
            if let Err(wait_ms) = answer {
                // What is promised holds: after the wait the next try conforms.
                now_ns += u64::from(wait_ms) * 1_000_000;
                prop_assert_eq!(limiter.check(hash(key), rate, now_ns), Ok(()));
                prop_assert!(exact.check(key, rate, now_ns).is_ok());
            }
        }
    }
}

#[test]
fn ten_million_keys_take_the_memory_of_one_and_refuse_no_newcomer_for_them() {
    let limiter = Limiter::new(100_000, HashKey(3, 4));
    let rate = Rate::per_second(5, 10);
    let bytes = limiter.memory_bytes();
    assert!(bytes <= 100_000 * 16 + 64);
    let refused = (0..10_000_000u64)
        .filter(|key| limiter.check(hash(*key), rate, *key).is_err())
        .count();
    // A tag shared ten times over within the two seconds that a burst lasts does not happen.
    assert_eq!(refused, 0);
    assert_eq!(limiter.memory_bytes(), bytes);
}

#[test]
fn a_flood_makes_the_limiter_forget_but_never_refuse() {
    let limiter = Limiter::new(64, HashKey(5, 6));
    let rate = Rate::per_second(1, 2);
    assert_eq!(limiter.check(hash(0), rate, 0), Ok(()));
    assert_eq!(limiter.check(hash(0), rate, 0), Ok(()));
    assert_eq!(limiter.check(hash(0), rate, 0), Err(1_000));
    for key in 1..10_000 {
        assert_eq!(limiter.check(hash(key), rate, 0), Ok(()), "{key}");
    }
    // Whoever has tried most is forgotten last: strangers with one try each do not wash it out ...
    assert_eq!(limiter.check(hash(0), rate, 0), Err(1_000));
    for key in 10_000..20_000 {
        assert_eq!(limiter.check(hash(key), rate, 500_000_000), Ok(()), "{key}");
        let _ = limiter.check(hash(key), rate, 500_000_000);
    }
    // ... strangers with as many do.
    assert_eq!(limiter.check(hash(0), rate, 500_000_000), Ok(()));
}

#[test]
fn at_capacity_hardly_a_key_is_forgotten() {
    let limiter = Limiter::new(100_000, HashKey(7, 8));
    let rate = Rate::per_second(1, 1);
    for key in 0..100_000 {
        let _ = limiter.check(hash(key), rate, 0);
    }
    let forgotten = (0..100_000)
        .filter(|key| limiter.check(hash(*key), rate, 1).is_ok())
        .count();
    assert!(forgotten < 2_000, "{forgotten} of 100,000");
}

#[test]
fn a_key_left_alone_for_weeks_starts_afresh() {
    let limiter = Limiter::new(64, HashKey(9, 9));
    let rate = Rate::per_second(1, 1);
    const DAY_NS: u64 = 86_400 * 1_000_000_000;
    for day in 0..200 {
        assert_eq!(limiter.check(hash(1), rate, day * DAY_NS), Ok(()), "{day}");
        assert_eq!(limiter.check(hash(1), rate, day * DAY_NS), Err(1_000));
    }
}

#[test]
fn many_threads_spend_a_burst_once() {
    let limiter = Limiter::new(1_000, HashKey(1, 1));
    let rate = Rate::per_second(1, 100);
    let taken: usize = std::thread::scope(|scope| {
        let tries = || {
            (0..1_000)
                .filter(|_| limiter.check(hash(1), rate, 0).is_ok())
                .count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(tries)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(taken, 100);
}
