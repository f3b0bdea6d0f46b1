//! The ledger's decisions: wins and refusals of a million buyers, on one and two threads; and its memory.
//!
//! A win is `reserve` alone, as far as `Taken`; times are per decision, all threads together. The size per
//! reservation is told on stderr before the benches: growth of the resident memory over a million of them.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use flash_ledger::{HashKey, Ledger, LedgerItem, PricedLine, Reserve};
use flash_types::{
    BuyerId, IdempotencyKey, ItemIndex, ItemUnits, Money, Quantity, Serial, Timestamp,
};

const BUYERS: usize = 1_000_000;
const HASH_KEY: HashKey = HashKey(0x7374_616d_7065_6465, 0x6c65_6467_6572_3031);

type Pair = (BuyerId, IdempotencyKey);

/// Buyer ids of 20 characters, keys of 36.
fn pairs(keys_of: u64) -> Vec<Pair> {
    (0..BUYERS as u64)
        .map(|n| {
            let scattered = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let buyer = format!("buyer-{n:014}");
            let key = format!(
                "{keys_of:08x}-0000-4000-8000-{:012x}{:03x}-",
                scattered >> 16,
                n % 4096
            );
            (
                BuyerId::parse(&buyer).expect("an id"),
                IdempotencyKey::parse(&key[..36]).expect("a key"),
            )
        })
        .collect()
}

fn item(stock: u64, units_per_buyer_max: Option<u32>) -> LedgerItem {
    LedgerItem {
        units: ItemUnits {
            stock,
            unreleased: stock,
            ..ItemUnits::default()
        },
        units_per_buyer_max,
    }
}

fn open(items: u64, units_per_buyer_max: Option<u32>) -> Ledger<u32> {
    let stock = BUYERS as u64 / items * 2;
    let items: Vec<_> = (0..items)
        .map(|_| item(stock, units_per_buyer_max))
        .collect();
    let ledger = Ledger::new(&items, HASH_KEY);
    ledger.release_all(&[]);
    ledger
}

fn line(item: usize) -> [PricedLine; 1] {
    [PricedLine {
        item: ItemIndex(item as u16),
        quantity: Quantity::of_line(1).expect("one unit"),
        unit_price_minor: Money(9_900),
    }]
}

fn win_all(ledger: &Ledger<u32>, pairs: &[Pair], first: usize, threads: usize) {
    let items = ledger.items_count();
    for n in (first..pairs.len()).step_by(threads) {
        let (buyer, key) = &pairs[n];
        let answer = ledger.reserve(buyer, key, &line(n % items), 0);
        assert!(matches!(answer, Reserve::Taken(_)));
    }
}

/// Runs `work(thread)` on so many threads that start together; from the first start to the last end.
fn together(threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    let start = Barrier::new(threads);
    let (start, work) = (&start, &work);
    let spans: Vec<(Instant, Instant)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    start.wait();
                    let begun = Instant::now();
                    work(thread);
                    (begun, Instant::now())
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    let begun = spans.iter().map(|span| span.0).min().expect("a thread");
    let ended = spans.iter().map(|span| span.1).max().expect("a thread");
    ended - begun
}

fn wins(c: &mut Criterion) {
    let pairs = pairs(1);
    let mut group = c.benchmark_group("ledger_win");
    group.sample_size(10);
    for items in [1, 64] {
        for threads in [1, 2] {
            let id = BenchmarkId::new(format!("{items}_items"), format!("{threads}_threads"));
            group.bench_function(id, |bench| {
                bench.iter_custom(|iterations| {
                    // A ledger from its first win to the millionth, whatever was asked for.
                    let ledger = open(items, Some(2));
                    let took = together(threads, |thread| {
                        win_all(&ledger, &pairs, thread, threads);
                    });
                    took.mul_f64(iterations as f64 / BUYERS as f64)
                });
            });
        }
    }
    group.finish();
}

fn refusals(c: &mut Criterion) {
    let (winners, losers) = (pairs(1), pairs(2));
    let ledger = Ledger::new(&[item(BUYERS as u64, Some(1))], HASH_KEY);
    ledger.release_all(&[]);
    for (buyer, key) in &winners {
        assert!(matches!(
            ledger.reserve(buyer, key, &line(0), 0),
            Reserve::Taken(_)
        ));
    }
    assert_eq!(ledger.available_units(ItemIndex(0)), 0);
    let mut group = c.benchmark_group("ledger_refusal");
    for threads in [1, 2] {
        group.bench_function(
            BenchmarkId::new("sold_out", format!("{threads}_threads")),
            |bench| {
                bench.iter_custom(|iterations| {
                    let each = iterations / threads as u64 + 1;
                    together(threads, |thread| {
                        let mine = losers.iter().cycle().skip(thread * BUYERS / 2);
                        for (buyer, key) in mine.take(each as usize) {
                            assert_eq!(ledger.available_units(ItemIndex(0)), 0);
                            assert!(black_box(ledger.won(buyer, key, None)).is_none());
                        }
                    })
                });
            },
        );
    }
    let mut tries = losers.iter().cycle();
    group.bench_function("limit", |bench| {
        bench.iter(|| {
            let (buyer, key) = tries.next().expect("a cycle");
            // The same buyers with other keys: the limit is told before the empty item is.
            let answer = ledger.reserve(buyer, key, &line(0), 0);
            assert!(matches!(answer, Reserve::Limit(_)));
        });
    });
    group.finish();

    let mut group = c.benchmark_group("ledger_filter");
    for (name, pairs) in [("hit", &winners), ("miss", &losers)] {
        let mut pairs = pairs.iter().cycle();
        group.bench_function(name, |bench| {
            bench.iter(|| {
                let (buyer, key) = pairs.next().expect("a cycle");
                black_box(ledger.won(buyer, key, None))
            });
        });
    }
    group.finish();
}

fn memory(_: &mut Criterion) {
    let pairs = pairs(1);
    let before = resident_bytes();
    let ledger = open(1, Some(2));
    for (n, (buyer, key)) in pairs.iter().enumerate() {
        let Reserve::Taken(record) = ledger.reserve(buyer, key, &line(0), 0) else {
            unreachable!("there are units for all")
        };
        let at = Timestamp(n as i64);
        ledger.numbered(record, Serial(n as u64));
        ledger.finish_reserve(record, at, at);
    }
    let grown = resident_bytes().saturating_sub(before);
    eprintln!(
        "{} bytes per open reservation, {BUYERS} of them, all in",
        grown / BUYERS
    );
    drop(ledger);
}

/// Of this process; 0 where the system does not tell.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * 4096
}

criterion_group!(benches, memory, wins, refusals);
criterion_main!(benches);
