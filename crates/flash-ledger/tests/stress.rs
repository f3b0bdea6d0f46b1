//! Many threads on few units: never oversold, and the books balance when all is done.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};

use common::{buyer, key, ledger, merged, priced, released};
use flash_ledger::{Begin, Command, Ledger, RecordRef, Reserve};
use flash_types::{ItemIndex, PaymentRef, Serial, Timestamp};
use parking_lot::Mutex;

const THREADS: u64 = 4;
const ROUNDS: u64 = 3_000;
const UNITS: u64 = 7;

/// A small generator; the seed is printed where a thread fails.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        // xorshift64, Marsaglia 2003.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Units held by somebody, counted beside the ledger: at most what there is.
struct Held([AtomicU64; 2]);

impl Held {
    fn add(&self, lines: &[(u16, u32)]) {
        for (item, units) in lines {
            let units = u64::from(*units);
            let before = self.0[usize::from(*item)].fetch_add(units, Ordering::SeqCst);
            assert!(
                before + units <= UNITS,
                "oversold: {} of item {item}",
                before + units
            );
        }
    }

    fn remove(&self, lines: &[(u16, u32)]) {
        for (item, units) in lines {
            self.0[usize::from(*item)].fetch_sub(u64::from(*units), Ordering::SeqCst);
        }
    }
}

/// Numbers and commits, as the only committer of the sale would.
fn commit(ledger: &Ledger<u32>, committer: &Mutex<u64>, record: RecordRef) -> Serial {
    let mut serial = committer.lock();
    *serial += 1;
    ledger.numbered(record, Serial(*serial));
    ledger.finish_reserve(record, Timestamp(0), Timestamp(1));
    Serial(*serial)
}

fn buy(ledger: &Ledger<u32>, held: &Held, committer: &Mutex<u64>, thread: u64, seed: u64) {
    let mut chance = Chance(seed);
    for round in 0..ROUNDS {
        // Two threads share each buyer, and sometimes a key.
        let who = buyer(thread / 2);
        let name = key(format_args!("{}-{}", thread / 2, round + chance.below(2)));
        let lines: &[(u16, u32)] = match chance.below(3) {
            0 => &[(0, 1)],
            1 => &[(1, 2)],
            _ => &[(0, 2), (1, 1)],
        };
        match ledger.reserve(&who, &name, &priced(lines), 0) {
            Reserve::Taken(record) => {
                held.add(lines);
                let is_sold = chance.below(4) == 0;
                end(ledger, held, committer, &mut chance, record, lines, is_sold);
            }
            Reserve::Won(won) => assert!(
                !won.is_same
                    || ledger
                        .won(&who, &name, Some(&merged(lines)))
                        .is_none_or(|won| won.is_same)
            ),
            Reserve::Short {
                available_units, ..
            } => assert!(available_units < 2),
            Reserve::Limit(item) => panic!("item {item:?} has no limit"),
        }
    }
}

fn end(
    ledger: &Ledger<u32>,
    held: &Held,
    committer: &Mutex<u64>,
    chance: &mut Chance,
    record: RecordRef,
    lines: &[(u16, u32)],
    is_sold: bool,
) {
    if chance.below(3) == 0 {
        // Not held any more from here on: the next may have them.
        held.remove(lines);
        ledger.abort_reserve(record);
        return;
    }
    let serial = commit(ledger, committer, record);
    let steps: &[Command] = if is_sold {
        let payment_ref = PaymentRef::parse(&format!("p{}", serial.0)).unwrap();
        &[
            Command::Confirm {
                payment_ref,
                amount: None,
            },
            Command::Refund {
                refund_ref: None,
                restock: true,
                lines: None,
            },
        ]
    } else {
        &[Command::Cancel]
    };
    for (step, command) in steps.iter().enumerate() {
        let Begin::Start(transition) = ledger.begin(serial, command, 0) else {
            panic!("nobody else touches {serial:?}")
        };
        if step + 1 == steps.len() {
            held.remove(lines);
        }
        ledger.finish(&transition);
    }
}

#[test]
fn threads_on_few_units_never_oversell() {
    let ledger = ledger(&[released(UNITS, None), released(UNITS, None)]);
    let held = Held([AtomicU64::new(0), AtomicU64::new(0)]);
    let committer = Mutex::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (ledger, held, committer) = (&ledger, &held, &committer);
            scope.spawn(move || {
                let seed = 0x5eed + thread;
                eprintln!("thread {thread}: seed {seed:#x}");
                buy(ledger, held, committer, thread, seed);
            });
        }
    });
    for item in 0..2 {
        let units = ledger.units(ItemIndex(item));
        assert_eq!((units.available, units.reserved, units.sold), (UNITS, 0, 0));
        assert_eq!(units.imbalance(), 0);
        let sums = ledger.sums()[usize::from(item)];
        assert_eq!((sums.reserved, sums.in_flight, sums.sold), (0, 0, 0));
    }
    let counts = ledger.reservations_by_state();
    assert_eq!(
        counts.unknown + counts.reserved + counts.confirmed + counts.expired,
        0
    );
    assert!(
        counts.released > 0 && counts.refunded > 0,
        "something happened: {counts:?}"
    );
}

#[test]
fn one_key_on_many_threads_wins_once() {
    let ledger = ledger(&[released(100, Some(1))]);
    let wins = AtomicU64::new(0);
    for round in 0..500 {
        let lines = priced(&[(0, 1)]);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(
                    || match ledger.reserve(&buyer(round), &key(round), &lines, 7) {
                        Reserve::Taken(_) => {
                            wins.fetch_add(1, Ordering::SeqCst);
                        }
                        Reserve::Won(won) => {
                            assert_eq!((won.is_same, won.in_flight), (true, Some(7)))
                        }
                        Reserve::Short { .. } => assert!(round >= 100),
                        Reserve::Limit(_) => panic!("the key was known before the limit"),
                    },
                );
            }
        });
    }
    assert_eq!(wins.into_inner(), 100);
    assert_eq!(ledger.units(ItemIndex(0)).reserved, 100);
}
