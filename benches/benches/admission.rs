//! The rate limiter against governor's keyed one, with a million keys each; and what both keep in memory.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;
use std::num::NonZeroU32;

use criterion::{Criterion, criterion_group, criterion_main};
use flash_admission::{HashKey, Limiter, Rate, hash_buyer};
use flash_types::{BuyerId, SaleNo};
use governor::{Quota, RateLimiter};

const KEYS: u64 = 1_000_000;
const KEY: HashKey = HashKey(1, 2);

/// Resident memory of this process, bytes (`statm` counts pages of 4 KiB).
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4_096
}

/// Hashes in an order that no cache foresees.
fn hash(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

#[allow(clippy::print_stdout, reason = "the figure is what a bench is for")]
fn limiters(criterion: &mut Criterion) {
    let before = resident_bytes();
    let ours = Limiter::new(KEYS as usize, KEY);
    let rate = Rate::per_second(5, 10);
    for number in 0..KEYS {
        let _ = ours.check(hash(number), rate, number);
    }
    let between = resident_bytes();
    let quota = Quota::per_second(NonZeroU32::MIN.saturating_add(4))
        .allow_burst(NonZeroU32::MIN.saturating_add(9));
    let theirs: RateLimiter<u64, _, _> = RateLimiter::keyed(quota);
    for number in 0..KEYS {
        let _ = theirs.check_key(&hash(number));
    }
    let after = resident_bytes();
    println!(
        "memory at {KEYS} keys: limiter {} B a key ({} B told), governor {} B a key",
        (between - before) as u64 / KEYS,
        ours.memory_bytes() as u64 / KEYS,
        (after - between) as u64 / KEYS
    );

    let mut group = criterion.benchmark_group("limiter_1m_keys");
    let mut number = 0;
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            number = (number + 1) % KEYS;
            ours.check(black_box(hash(number)), rate, 1_000_000_000 + number * 200)
        });
    });
    group.bench_function("governor", |bencher| {
        bencher.iter(|| {
            number = (number + 1) % KEYS;
            theirs.check_key(black_box(&hash(number))).is_ok()
        });
    });
    let buyer = BuyerId::parse("buyer-00000000012345").expect("an id");
    group.bench_function("ours_with_hash_of_buyer", |bencher| {
        bencher.iter(|| {
            number = (number + 1) % KEYS;
            let hash = hash_buyer(KEY, SaleNo(number as u32), black_box(&buyer));
            ours.check(hash, rate, 1_000_000_000 + number * 200)
        });
    });
    group.finish();
}

criterion_group!(benches, limiters);
criterion_main!(benches);
