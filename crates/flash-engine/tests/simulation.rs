//! Seeded histories with faults: buyers, payments, refunds, stock changes and pauses against a store that stalls, refuses,
//! dies with or without having applied, and a process that is killed. The checker holds what clients were told
//! against what is stored. A failure prints its seed: `SEED=n cargo test -p flash-engine --test simulation`.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected fails"
)]

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use common::{Shop, id, purchase, sale, who};
use flash_engine::{Caller, EngineConfig, HashKey, RefundRequest, SaleCommand};
use flash_store::{Change, MemoryFault, MemoryStore, NotApplied};
use flash_types::*;
use parking_lot::Mutex;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What clients were told.
#[derive(Default)]
struct Told {
    /// (buyer, key) -> reservations that were acknowledged for it.
    won: BTreeMap<(String, String), HashSet<ReservationId>>,
    /// Payments that were taken.
    paid: HashMap<ReservationId, HashSet<String>>,
    /// Reservations whose release was acknowledged.
    released: HashSet<ReservationId>,
}

type Log = Arc<Mutex<Told>>;

const SEEDS: u64 = 24;
const STEPS: usize = 250;

#[test]
fn what_clients_were_told_is_what_is_stored() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..SEEDS,
    };
    let mut faults = 0;
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(history(seed))
        }));
        match outcome {
            Ok(fired) => faults += fired,
            Err(panic) => {
                eprintln!("failed with SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(faults > 0, "a fault test fails if no fault fired");
}

async fn history(seed: u64) -> u64 {
    let mut random = Random(seed);
    // Every other history on a store with a lane for each sale.
    let mut shop = if seed.is_multiple_of(2) {
        Shop::open()
    } else {
        let config = EngineConfig {
            hash_key: HashKey(1, 2),
            ..Default::default()
        };
        Shop::with(MemoryStore::per_sale(), config)
    };
    let stock = 20 + random.below(30) as u32;
    shop.publish(sale(stock)).await;
    let log: Log = Arc::default();
    let mut faults = 0;
    let mut calls = Vec::new();
    for _ in 0..STEPS {
        match random.below(100) {
            0..45 => calls.push(buy(&shop, &mut random, &log)),
            45..60 => calls.extend(confirm(&shop, &mut random, &log)),
            60..66 => calls.extend(cancel(&shop, &mut random, &log)),
            66..72 => calls.extend(refund(&shop, &mut random, &log)),
            72..76 => calls.push(change_stock(&shop, &mut random)),
            76..80 => calls.push(pause_or_resume(&shop, &mut random)),
            80..84 => shop.store.hold(),
            84..86 => shop.store.hold_answers(),
            86..92 => shop.store.release(),
            92..94 => {
                faults += 1;
                shop.store
                    .fail_next(MemoryFault::NotApplied(NotApplied::StorageFull(
                        "full".into(),
                    )));
            }
            94..96 => {
                faults += 1;
                let why = "fsync".to_owned();
                shop.store.fail_next(if random.below(2) == 0 {
                    MemoryFault::Fatal(why)
                } else {
                    MemoryFault::FatalApplied(why)
                });
            }
            96..97 => {
                faults += 1;
                shop = restarted(shop).await;
            }
            _ => shop.pass(Duration::from_millis(random.below(3_000))).await,
        }
        tokio::task::yield_now().await;
        for item in 0..2 {
            shop.units(item);
        }
        if shop.committer.is_finished() {
            shop = restarted(shop).await;
        }
    }
    shop.store.release();
    for call in calls {
        call.await.unwrap();
    }
    // Faults that nobody has met yet still come; each ends at most one more start.
    loop {
        shop = restarted(shop).await;
        shop.pass(Duration::from_secs(30)).await;
        if !shop.committer.is_finished() {
            break;
        }
    }
    check(&shop, &log).await;
    faults
}

/// Killed and started again. Calls in flight are answered by nobody: their fate is unknown.
async fn restarted(shop: Shop) -> Shop {
    let shop = shop.restart();
    tokio::task::yield_now().await;
    shop
}

type Call = tokio::task::JoinHandle<()>;

fn buy(shop: &Shop, random: &mut Random, log: &Log) -> Call {
    let (buyer, key) = (
        format!("u{}", random.below(12)),
        format!("k{}", random.below(6)),
    );
    // The lines follow from the key, most of the time: so replays are common, and reuse happens.
    let shape = if random.below(10) == 0 {
        random.below(6)
    } else {
        key.len() as u64 + key.as_bytes()[1] as u64
    };
    let lines: &[(&str, u64)] = match shape % 4 {
        0 => &[("a", 1)],
        1 => &[("a", 2)],
        2 => &[("a", 1), ("b", 1)],
        _ => &[("b", 1)],
    };
    let request = purchase("s1", &buyer, &key, lines);
    let (engine, now, log) = (shop.engine.clone(), shop.now(), Arc::clone(log));
    tokio::spawn(async move {
        let name = (buyer, key);
        let told = engine.purchase(&request, now).await;
        let mut log = log.lock();
        match told {
            Outcome::Reserved(one) | Outcome::Stands(one) => {
                log.won.entry(name).or_default().insert(one.reservation_id);
            }
            Outcome::Refused(_) | Outcome::Unknown(_) => {}
        }
    })
}

fn some_reservation(random: &mut Random, log: &Log) -> Option<ReservationId> {
    let log = log.lock();
    let all: Vec<_> = log.won.values().flatten().copied().collect();
    (!all.is_empty()).then(|| all[random.below(all.len() as u64) as usize])
}

fn confirm(shop: &Shop, random: &mut Random, log: &Log) -> Option<Call> {
    let one = some_reservation(random, log)?;
    let payment = format!("p{}", random.below(40));
    let (engine, now, log) = (shop.engine.clone(), shop.now(), Arc::clone(log));
    Some(tokio::spawn(async move {
        let told = engine.confirm(one, &id(&payment), None, now).await;
        if let Outcome::Stands(_) = told {
            log.lock().paid.entry(one).or_default().insert(payment);
        }
    }))
}

fn cancel(shop: &Shop, random: &mut Random, log: &Log) -> Option<Call> {
    let one = some_reservation(random, log)?;
    let (engine, now, log) = (shop.engine.clone(), shop.now(), Arc::clone(log));
    Some(tokio::spawn(async move {
        if let Outcome::Stands(_) = engine.cancel(Caller::Storefront, one, now).await {
            log.lock().released.insert(one);
        }
    }))
}

fn refund(shop: &Shop, random: &mut Random, log: &Log) -> Option<Call> {
    let one = some_reservation(random, log)?;
    let request = RefundRequest {
        refund_ref: (random.below(3) > 0).then(|| id(&format!("r{}", random.below(4)))),
        restock: random.below(2) == 0,
        lines: (random.below(2) == 0).then(|| {
            [(id("a"), Quantity::of_line(1).unwrap())]
                .into_iter()
                .collect()
        }),
    };
    let (engine, now) = (shop.engine.clone(), shop.now());
    Some(tokio::spawn(async move {
        let _ = engine.refund(one, &request, now).await;
    }))
}

fn change_stock(shop: &Shop, random: &mut Random) -> Call {
    let delta = i64::try_from(random.below(8)).unwrap() - 3;
    let key = format!("t{}", random.below(20));
    let engine = shop.engine.clone();
    tokio::spawn(async move {
        let _ = engine
            .change_stock(&id("s1"), &id("a"), &id(&key), delta, "sim", who())
            .await;
    })
}

fn pause_or_resume(shop: &Shop, random: &mut Random) -> Call {
    let command = if random.below(3) == 0 {
        SaleCommand::Pause
    } else {
        SaleCommand::Resume
    };
    let engine = shop.engine.clone();
    tokio::spawn(async move {
        let _ = engine.command(&id("s1"), command, who()).await;
    })
}

/// The five points: no oversell, no lost yes, one decision per key, books balance, unknown is one or the other.
async fn check(shop: &Shop, log: &Log) {
    shop.audited().await;
    let rows = shop.store.all_reservations();
    let mut by_key: BTreeMap<(String, String), Vec<ReservationId>> = BTreeMap::new();
    for row in &rows {
        let one = ReservationId {
            sale_no: row.sale_no,
            serial: row.serial,
        };
        by_key
            .entry((row.buyer.to_string(), row.key.to_string()))
            .or_default()
            .push(one);
    }
    for (key, made) in &by_key {
        assert_eq!(made.len(), 1, "{key:?} made {made:?}");
    }
    let (won, paid, released) = {
        let log = log.lock();
        (log.won.clone(), log.paid.clone(), log.released.clone())
    };
    for (key, told) in &won {
        assert_eq!(told.len(), 1, "{key:?} was told {told:?}");
        assert!(
            told.iter().all(|one| by_key[key].contains(one)),
            "{key:?}: a yes was lost"
        );
    }
    for (one, payments) in &paid {
        assert_eq!(payments.len(), 1, "{one} was paid by {payments:?}");
        let row = rows.iter().find(|row| row.serial == one.serial).unwrap();
        assert!(
            payments.contains(row.payment_ref.unwrap().as_str()),
            "{one}"
        );
        let state = row.state;
        assert!(matches!(
            state,
            ReservationState::Confirmed | ReservationState::Refunded
        ));
    }
    for one in &released {
        let row = rows.iter().find(|row| row.serial == one.serial).unwrap();
        assert_eq!(row.state, ReservationState::Released);
    }
    // Whatever was unknown is asked again and answers twice the same.
    for (buyer, key) in by_key.keys() {
        let ask = async || {
            shop.engine
                .reservation_by_key(&id("s1"), &id(buyer), &id(key))
                .await
        };
        assert_eq!(ask().await, ask().await);
        assert!(ask().await.is_ok(), "{buyer} {key}");
    }
    // A payment belongs to one reservation; a decision is made once.
    let mut payments: HashMap<PaymentRef, HashSet<Serial>> = HashMap::new();
    for (_, entry) in shop.store.entries() {
        if let Change::Confirm {
            reservation,
            payment_ref,
            ..
        }
        | Change::RefusePayment {
            reservation,
            payment_ref,
            ..
        } = entry.change
        {
            let is_new = payments.entry(payment_ref).or_default().insert(reservation);
            assert!(
                is_new,
                "{payment_ref} was decided twice for {reservation:?}"
            );
        }
    }
    assert!(
        payments
            .values()
            .all(|reservations| reservations.len() == 1),
        "{payments:?}"
    );
}
