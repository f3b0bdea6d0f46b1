//! Every interleaving of small cases: the word, the filter and its protocol with the word, the decision.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p flash-ledger --release --test loom`
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use common::{KEY, buyer, key, merged, priced, released};
use flash_ledger::parts::{Filter, Halves, Word};
use flash_ledger::{Begin, Command, Ledger, LedgerItem, Reserve};
use flash_types::{ItemIndex, Serial, Timestamp};
use loom::sync::Arc;
use loom::thread;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often a second call saw units, and saw none.
static SEEN: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];

fn small(items: &[LedgerItem]) -> Arc<Ledger<u32>> {
    let ledger = Ledger::with_sizes(items, KEY, 2, 1);
    ledger.release_all(&[]);
    Arc::new(ledger)
}

/// One bucket of four places, so many of them filled; a fifth tag overflows into the next segment.
fn filter(filled: u64) -> Filter {
    let filter = Filter::new(1);
    filter.prepare();
    (1..=filled).for_each(|n| filter.insert(n << 48));
    filter
}

#[test]
fn two_takes_and_a_give_never_oversell() {
    loom::model(|| {
        let word = Arc::new(Word::new(1, 1));
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let word = word.clone();
                thread::spawn(move || word.take(1).is_ok())
            })
            .collect();
        word.give(1);
        let taken = takers
            .into_iter()
            .map(|taker| u32::from(taker.join().unwrap()))
            .sum::<u32>();
        assert!(taken >= 1, "there always was one");
        assert_eq!(
            word.load(),
            Halves {
                available: 2 - taken,
                reserved: taken
            }
        );
    });
}

#[test]
fn stock_taken_away_is_not_sold() {
    loom::model(|| {
        let word = Arc::new(Word::new(2, 0));
        let other = word.clone();
        let buyer = thread::spawn(move || other.take(1).is_ok());
        let away = word.take_up_to(5);
        let is_bought = buyer.join().unwrap();
        assert_eq!(away + u32::from(is_bought), 2);
    });
}

#[test]
fn the_filter_loses_no_insert() {
    loom::model(|| {
        let filter = Arc::new(filter(3));
        let inserters: Vec<_> = [4u64, 5]
            .into_iter()
            .map(|n| {
                let filter = filter.clone();
                thread::spawn(move || {
                    filter.insert(n << 48);
                    assert!(filter.may_contain(n << 48));
                })
            })
            .collect();
        assert!(filter.may_contain(1 << 48));
        for inserter in inserters {
            inserter.join().unwrap();
        }
        assert!((1..=5u64).all(|n| filter.may_contain(n << 48)));
        assert!(!filter.may_contain(9 << 48));
    });
}

#[test]
fn who_sees_the_unit_gone_finds_the_key() {
    loom::model(|| {
        let parts = Arc::new((Word::new(1, 0), filter(0)));
        let winner = {
            let parts = parts.clone();
            thread::spawn(move || {
                parts.1.insert(7 << 48);
                parts.0.take(1)
            })
        };
        if parts.0.load().available == 0 {
            assert!(parts.1.may_contain(7 << 48));
        }
        assert_eq!(winner.join().unwrap(), Ok(()));
    });
}

#[test]
fn who_sees_the_last_of_two_winners_finds_both_keys() {
    loom::model(|| {
        let parts = Arc::new((Word::new(2, 0), filter(0)));
        let winners: Vec<_> = [7u64, 8]
            .into_iter()
            .map(|n| {
                let parts = parts.clone();
                thread::spawn(move || {
                    parts.1.insert(n << 48);
                    assert_eq!(parts.0.take(1), Ok(()));
                })
            })
            .collect();
        if parts.0.load().available == 0 {
            assert!(parts.1.may_contain(7 << 48) && parts.1.may_contain(8 << 48));
        }
        for winner in winners {
            winner.join().unwrap();
        }
    });
}

#[test]
fn a_key_that_overflowed_its_bucket_is_found() {
    loom::model(|| {
        let parts = Arc::new((Word::new(2, 0), filter(3)));
        let winners: Vec<_> = [7u64, 8]
            .into_iter()
            .map(|n| {
                let parts = parts.clone();
                thread::spawn(move || {
                    parts.1.insert(n << 48);
                    assert_eq!(parts.0.take(1), Ok(()));
                })
            })
            .collect();
        if parts.0.load().available == 0 {
            assert!(
                [1, 2, 3, 7, 8u64]
                    .iter()
                    .all(|n| parts.1.may_contain(n << 48))
            );
        }
        for winner in winners {
            winner.join().unwrap();
        }
    });
}

#[test]
fn one_key_twice_at_once_wins_once() {
    loom::model(|| {
        let ledger = small(&[released(2, None)]);
        let other = ledger.clone();
        let ask =
            |ledger: &Ledger<u32>| ledger.reserve(&buyer("a"), &key("k"), &priced(&[(0, 1)]), 1);
        let racing = thread::spawn(move || ask(&other));
        let answers = [ask(&ledger), racing.join().unwrap()];
        let taken = answers.iter().find_map(|answer| match answer {
            Reserve::Taken(record) => Some(*record),
            Reserve::Won(_) | Reserve::Limit(_) | Reserve::Short { .. } => None,
        });
        let won = answers.iter().find_map(|answer| match answer {
            Reserve::Won(won) => Some(won.clone()),
            Reserve::Taken(_) | Reserve::Limit(_) | Reserve::Short { .. } => None,
        });
        let won = won.expect("one finds the key");
        assert_eq!(
            (Some(won.record), won.is_same, won.in_flight),
            (taken, true, Some(1))
        );
        assert_eq!(ledger.units(ItemIndex(0)).reserved, 1);
    });
}

#[test]
fn two_buyers_one_unit() {
    loom::model(|| {
        let ledger = small(&[released(1, None)]);
        let ask = |ledger: &Ledger<u32>, who: &str| {
            let answer = ledger.reserve(&buyer(who), &key("k"), &priced(&[(0, 1)]), 1);
            let is_taken = matches!(answer, Reserve::Taken(_));
            assert!(
                is_taken
                    || matches!(
                        answer,
                        Reserve::Short {
                            available_units: 0,
                            ..
                        }
                    )
            );
            u64::from(is_taken)
        };
        let other = ledger.clone();
        let racing = thread::spawn(move || ask(&other, "a"));
        let taken = ask(&ledger, "b") + racing.join().unwrap();
        assert_eq!(taken, 1);
        assert_eq!(ledger.units(ItemIndex(0)).reserved, 1);
    });
}

#[test]
fn a_winner_that_sees_sold_out_finds_its_own_reservation() {
    loom::model(|| {
        let ledger = small(&[released(1, None)]);
        let other = ledger.clone();
        // The same call again, on another connection. It is the one in the second thread, since loom looks
        // back from a load to another thread's swap, but not always from a swap to a load.
        let second_call = thread::spawn(move || {
            if other.available_units(ItemIndex(0)) > 0 {
                return false;
            }
            let won = other.won(&buyer("a"), &key("k"), Some(&merged(&[(0, 1)])));
            assert!(won.is_some_and(|won| won.is_same));
            true
        });
        let first_call = ledger.reserve(&buyer("a"), &key("k"), &priced(&[(0, 1)]), 1);
        assert!(matches!(first_call, Reserve::Taken(_)));
        SEEN[usize::from(second_call.join().unwrap())].fetch_add(1, Ordering::Relaxed);
    });
    // The model went both ways.
    assert!(SEEN.iter().all(|count| count.load(Ordering::Relaxed) > 0));
}

#[test]
fn an_undone_order_of_two_items_leaves_nothing_behind() {
    loom::model(|| {
        let ledger = small(&[released(1, None), released(1, None)]);
        let other = ledger.clone();
        let single =
            thread::spawn(move || other.reserve(&buyer("a"), &key("k"), &priced(&[(1, 1)]), 1));
        let both = ledger.reserve(&buyer("b"), &key("k"), &priced(&[(0, 1), (1, 1)]), 1);
        let single = single.join().unwrap();
        let has_both = matches!(both, Reserve::Taken(_));
        assert_eq!(matches!(single, Reserve::Taken(_)), !has_both);
        assert_eq!(ledger.units(ItemIndex(0)).reserved, u64::from(has_both));
        assert_eq!(ledger.units(ItemIndex(1)).reserved, 1);
    });
}

/// A unit that is never sold: reserved, back to the pool, released, reserved again.
#[test]
fn a_unit_on_its_way_to_the_pool_and_out_again_is_not_gone() {
    loom::model(|| {
        let ledger = small(&[released(1, None)]);
        let reserve = |ledger: &Ledger<u32>, name: &str, serial| {
            let answer = ledger.reserve(&buyer("a"), &key(name), &priced(&[(0, 1)]), 1);
            let Reserve::Taken(record) = answer else {
                panic!("{answer:?}")
            };
            ledger.numbered(record, Serial(serial));
            ledger.finish_reserve(record, Timestamp(0), Timestamp(1));
        };
        reserve(&ledger, "k1", 1);
        let Begin::Start(mut expiring) = ledger.begin(Serial(1), &Command::Expire, 1) else {
            panic!("it is reserved")
        };
        expiring.is_pooled = true;
        let other = ledger.clone();
        let looking = thread::spawn(move || other.is_drained(ItemIndex(0)));
        ledger.finish(&expiring);
        ledger.release(ItemIndex(0), 1);
        assert!(!looking.join().unwrap());
        assert_eq!(ledger.units(ItemIndex(0)).available, 1);
    });
}
