//! Units that are released after the opening: as planned, by hand, and what came back unpaid at announced times.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected fails"
)]

mod common;

use std::time::Duration;

use common::{NOON, Shop, both, id, refusal, sale, stands, who};
use flash_engine::{AdminRefusal, Caller, EngineConfig, HashKey, SaleCommand};
use flash_store::{Change, EntryRefusal, EventPlace, MemoryFault, MemoryStore, NotApplied};
use flash_types::*;
use serde_json::{Value, json};

const CONFLICT: AdminRefusal = AdminRefusal::Refused(Refusal::StateConflict { refund_due: false });

fn after(seconds: u64) -> Timestamp {
    NOON.plus(Duration::from_secs(seconds))
}

/// Ten units of `a`: five at the opening (two of them in waves that are past by then), three at 60 s, two at 120 s.
fn waved() -> Value {
    let mut definition = sale(10);
    definition["items"][0]["waves"] = json!([
        {"at": Timestamp(NOON.0 - 10_000), "units": 1},
        {"at": NOON, "units": 1},
        {"at": after(60), "units": 3},
        {"at": after(120), "units": 2},
    ]);
    definition
}

/// So many units of `a`; what comes back unpaid is sold again at 60 and 120 s.
fn pooled(stock: u32) -> Value {
    let mut definition = sale(stock);
    definition["re_release_at"] = json!([after(60), after(120)]);
    definition
}

/// Until so many seconds after the start, and a look of the committer more.
async fn until(shop: &Shop, seconds: u64) {
    let left = after(seconds).0 + 50 - shop.now().steady.0;
    shop.pass(Duration::from_millis(left.try_into().unwrap()))
        .await;
}

/// Releases that are stored: reference, units.
fn released(shop: &Shop) -> Vec<(Option<String>, u32)> {
    let entries = shop.store.entries();
    let waves = entries.iter().filter_map(|(_, entry)| match &entry.change {
        Change::Wave { wave, units, .. } => Some((wave.reference(), *units)),
        _ => None,
    });
    waves.collect()
}

fn plan(place: u16, units: u32) -> (Option<String>, u32) {
    (Some(format!("plan:{place}")), units)
}

async fn by_hand(shop: &Shop, key: Option<&str>, units: u32) -> Result<u32, AdminRefusal> {
    let key = key.map(id);
    shop.engine
        .release(&id("s1"), &id("a"), key, units, who())
        .await
}

#[tokio::test(start_paused = true)]
async fn waves_come_at_their_time_once_also_across_restarts() {
    for shop in both() {
        shop.publish(waved()).await;
        assert_eq!(shop.units(0), [5, 5, 0, 0]);
        shop.pass(Duration::from_millis(59_900)).await;
        assert_eq!(shop.units(0), [5, 5, 0, 0]);
        until(&shop, 60).await;
        assert_eq!(shop.units(0), [2, 8, 0, 0]);
        let shop = shop.restart();
        until(&shop, 119).await;
        assert_eq!(shop.units(0), [2, 8, 0, 0]);
        // Dead while the next is due: it comes late, and once.
        shop.committer.abort();
        tokio::time::advance(Duration::from_secs(30)).await;
        let shop = shop.restart();
        shop.pass(Duration::from_millis(50)).await;
        assert_eq!(shop.units(0), [0, 10, 0, 0]);
        let shop = shop.restart();
        until(&shop, 200).await;
        assert_eq!(released(&shop), [plan(2, 3), plan(3, 2)]);
        shop.audited().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sale_published_late_opens_with_what_its_waves_brought_until_then() {
    let shop = Shop::open();
    let definition: SaleDefinition = serde_json::from_value(waved()).unwrap();
    shop.engine
        .put_draft(definition, false, who())
        .await
        .unwrap();
    until(&shop, 90).await;
    shop.command(SaleCommand::Publish).await;
    shop.pass(Duration::from_millis(50)).await;
    assert_eq!(shop.units(0), [2, 8, 0, 0]);
    shop.audited().await;
}

#[tokio::test(start_paused = true)]
async fn a_wave_that_the_store_did_not_take_comes_again() {
    for shop in both() {
        shop.publish(waved()).await;
        shop.pass(Duration::from_secs(59)).await;
        for _ in 0..2 {
            let away = NotApplied::Unavailable("busy".into());
            shop.store.fail_next(MemoryFault::NotApplied(away));
        }
        until(&shop, 61).await;
        assert_eq!(shop.units(0), [2, 8, 0, 0]);
        assert_eq!(released(&shop), [plan(2, 3)]);
        // Too early for the store's clock.
        shop.pass(Duration::from_secs(58)).await;
        for _ in 0..2 {
            shop.store
                .fail_next(MemoryFault::Refused(EntryRefusal::Early));
        }
        until(&shop, 121).await;
        assert_eq!(shop.units(0), [0, 10, 0, 0]);
        assert_eq!(released(&shop), [plan(2, 3), plan(3, 2)]);
        shop.audited().await;
    }
}

#[tokio::test(start_paused = true)]
async fn waves_go_on_in_a_pause_and_end_with_the_sale() {
    let shop = Shop::open();
    shop.publish(waved()).await;
    shop.command(SaleCommand::Pause).await;
    until(&shop, 60).await;
    assert_eq!(shop.units(0), [2, 8, 0, 0]);
    shop.command(SaleCommand::Resume).await;
    shop.command(SaleCommand::Close).await;
    until(&shop, 130).await;
    assert_eq!(shop.units(0), [2, 8, 0, 0]);
    let told = by_hand(&shop, Some("h1"), 1).await;
    assert!(matches!(told, Err(AdminRefusal::Conflict(_))), "{told:?}");
    shop.audited().await;
}

#[tokio::test(start_paused = true)]
async fn sold_out_is_not_final_while_a_wave_is_to_come() {
    let shop = Shop::open();
    shop.publish(waved()).await;
    for (buyer, units) in [("u1", 3), ("u2", 2)] {
        let won = shop.won(buyer, "k", &[("a", units)]).await;
        stands(&shop.confirm(won.reservation_id, buyer).await);
    }
    let gone = |is_final| Refusal::SoldOut {
        is_final,
        available_units: None,
    };
    let told = refusal(&shop.buy("u3", "k", &[("a", 1)]).await);
    assert_eq!(told, gone(false));
    let sale = shop.engine.sale(&id("s1")).unwrap();
    let next = sale.next_wave(ItemIndex(0), shop.now().wall);
    assert_eq!(next, Some((after(60), Some(3))));
    until(&shop, 120).await;
    assert_eq!(sale.next_wave(ItemIndex(0), shop.now().wall), None);
    for (buyer, units) in [("u3", 3), ("u4", 2)] {
        let won = shop.won(buyer, "k", &[("a", units)]).await;
        stands(&shop.confirm(won.reservation_id, buyer).await);
    }
    let told = refusal(&shop.buy("u5", "k", &[("a", 1)]).await);
    assert_eq!(told, gone(true));
}

#[tokio::test(start_paused = true)]
async fn a_release_by_hand_happens_once_for_its_key_and_brings_no_more_than_there_is() {
    for shop in both() {
        shop.publish(waved()).await;
        let told = by_hand(&shop, Some("h0"), 6).await;
        assert!(matches!(told, Err(AdminRefusal::Conflict(_))), "{told:?}");
        assert_eq!(by_hand(&shop, Some("h1"), 1).await, Ok(1));
        assert_eq!(by_hand(&shop, Some("h1"), 1).await, Ok(1), "again");
        assert_eq!(shop.units(0), [4, 6, 0, 0]);
        let reused = Err(AdminRefusal::Refused(Refusal::IdempotencyKeyReused));
        assert_eq!(by_hand(&shop, Some("h1"), 2).await, reused);
        let shop = shop.restart();
        assert_eq!(by_hand(&shop, Some("h1"), 1).await, Ok(1), "restarted");
        assert_eq!(by_hand(&shop, Some("h1"), 2).await, reused);
        assert_eq!(shop.units(0), [4, 6, 0, 0]);
        assert_eq!(by_hand(&shop, None, 1).await, Ok(1));
        assert_eq!(by_hand(&shop, None, 1).await, Ok(1), "without a key each");
        // The waves bring what is left of theirs.
        until(&shop, 120).await;
        assert_eq!(shop.units(0), [0, 10, 0, 0]);
        assert_eq!(released(&shop)[3..], [plan(2, 2), plan(3, 0)]);
        assert!(by_hand(&shop, Some("h2"), 1).await.is_err());
        shop.audited().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_by_hand_beside_a_wave_in_one_batch_takes_what_that_leaves() {
    for (asked, is_taken) in [(2, true), (3, false)] {
        for shop in both() {
            shop.publish(waved()).await;
            shop.pass(Duration::from_millis(59_500)).await;
            shop.store.hold();
            let buying = {
                let (engine, now) = (shop.engine.clone(), shop.now());
                let request = common::purchase("s1", "u1", "k1", &[("b", 1)]);
                tokio::spawn(async move { engine.purchase(&request, now).await })
            };
            shop.pass(Duration::from_millis(30)).await;
            let releasing = {
                let engine = shop.engine.clone();
                tokio::spawn(async move {
                    engine
                        .release(&id("s1"), &id("a"), Some(id("h1")), asked, who())
                        .await
                })
            };
            until(&shop, 60).await;
            shop.store.release();
            assert!(matches!(buying.await.unwrap(), Outcome::Reserved(_)));
            let told = releasing.await.unwrap();
            if is_taken {
                assert_eq!(told, Ok(2));
                assert_eq!(shop.units(0), [0, 10, 0, 0]);
                let entries = shop.store.entries();
                let mut batches = entries.iter().filter_map(|(batch, entry)| {
                    matches!(entry.change, Change::Wave { .. }).then_some(*batch)
                });
                assert_eq!(batches.next(), batches.next(), "one batch");
            } else {
                assert_eq!(told, Err(CONFLICT));
                assert_eq!(shop.units(0), [2, 8, 0, 0]);
            }
            until(&shop, 120).await;
            assert_eq!(shop.units(0), [0, 10, 0, 0]);
            shop.audited().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_back_unpaid_waits_for_the_announced_times_and_for_none_after_the_last() {
    for shop in both() {
        shop.publish(pooled(4)).await;
        shop.won("u1", "k1", &[("a", 3), ("b", 1)]).await;
        let given_up = shop.won("u2", "k1", &[("b", 2)]).await;
        shop.cancel(given_up.reservation_id).await;
        assert_eq!(shop.units(1), [2, 2, 1, 0]);
        until(&shop, 11).await;
        assert_eq!((shop.units(0), shop.units(1)), ([3, 1, 0, 0], [3, 2, 0, 0]));
        let last = shop.won("u3", "k1", &[("a", 1)]).await;
        stands(&shop.confirm(last.reservation_id, "p1").await);
        let told = refusal(&shop.buy("u4", "k1", &[("a", 1)]).await);
        let not_final = Refusal::SoldOut {
            is_final: false,
            available_units: None,
        };
        assert_eq!(told, not_final, "three will come");
        let shop = shop.restart();
        until(&shop, 59).await;
        assert_eq!((shop.units(0), shop.units(1)), ([3, 0, 0, 1], [3, 2, 0, 0]));
        until(&shop, 60).await;
        assert_eq!((shop.units(0), shop.units(1)), ([0, 3, 0, 1], [0, 5, 0, 0]));
        // A second time, and only of one item, not the first.
        shop.won("u5", "k1", &[("b", 5)]).await;
        until(&shop, 80).await;
        assert_eq!((shop.units(0), shop.units(1)), ([0, 3, 0, 1], [5, 0, 0, 0]));
        let shop = shop.restart();
        until(&shop, 119).await;
        assert_eq!(shop.units(1), [5, 0, 0, 0]);
        until(&shop, 120).await;
        assert_eq!((shop.units(0), shop.units(1)), ([0, 3, 0, 1], [0, 5, 0, 0]));
        // After the last time at once, also as a restarted process knows.
        let shop = shop.restart();
        let given_up = shop.won("u6", "k1", &[("b", 2)]).await;
        shop.cancel(given_up.reservation_id).await;
        shop.won("u7", "k1", &[("a", 3)]).await;
        until(&shop, 140).await;
        assert_eq!((shop.units(0), shop.units(1)), ([0, 3, 0, 1], [0, 5, 0, 0]));
        let names: Vec<_> = released(&shop).into_iter().map(|(name, _)| name).collect();
        let pool = |place: u16| Some(format!("pool:{place}"));
        assert_eq!(names, [pool(0), pool(0), pool(1), pool(1)]);
        shop.audited().await;
    }
}

/// A time that brought nothing of an item is over for that item, too.
#[tokio::test(start_paused = true)]
async fn what_comes_back_between_two_times_waits_for_the_second() {
    for shop in both() {
        shop.publish(pooled(3)).await;
        until(&shop, 60).await;
        for item in ["a", "b"] {
            let won = shop.won("u1", item, &[(item, 3)]).await;
            shop.cancel(won.reservation_id).await;
        }
        let shop = shop.restart();
        until(&shop, 119).await;
        assert_eq!((shop.units(0), shop.units(1)), ([3, 0, 0, 0], [3, 2, 0, 0]));
        until(&shop, 120).await;
        assert_eq!((shop.units(0), shop.units(1)), ([0, 3, 0, 0], [0, 5, 0, 0]));
        shop.audited().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_pool_does_not_take_what_later_waves_hold() {
    let shop = Shop::open();
    let mut definition = pooled(10);
    definition["items"][0]["waves"] = json!([
        {"at": after(60), "units": 1},
        {"at": after(200), "units": 4},
    ]);
    shop.publish(definition).await;
    shop.won("u1", "k1", &[("a", 3)]).await;
    until(&shop, 11).await;
    assert_eq!(shop.units(0), [8, 2, 0, 0]);
    until(&shop, 60).await;
    assert_eq!(shop.units(0), [4, 6, 0, 0]);
    until(&shop, 120).await;
    assert_eq!(shop.units(0), [4, 6, 0, 0]);
    until(&shop, 200).await;
    assert_eq!(shop.units(0), [0, 10, 0, 0]);
    shop.audited().await;
}

/// Expiry and the last announced time fall into the same batch, whatever becomes of it.
#[tokio::test(start_paused = true)]
async fn what_runs_out_at_the_last_time_is_for_sale_and_not_forgotten() {
    for fault in 0..3 {
        for shop in both() {
            shop.publish(pooled(3)).await;
            until(&shop, 109).await;
            shop.pass(Duration::from_millis(910)).await;
            // Due a few milliseconds before the last time, and found with it.
            shop.won("u1", "k1", &[("a", 3)]).await;
            let early = || MemoryFault::Refused(EntryRefusal::Early);
            let away = || MemoryFault::NotApplied(NotApplied::StorageFull("full".into()));
            shop.pass(Duration::from_millis(9_950)).await;
            match fault {
                0 => {}
                1 => (0..3).for_each(|_| shop.store.fail_next(early())),
                _ => (0..3).for_each(|_| shop.store.fail_next(away())),
            }
            shop.pass(Duration::from_secs(1)).await;
            assert_eq!(shop.units(0), [0, 3, 0, 0], "fault {fault}");
            shop.audited().await;
            let shop = shop.restart();
            shop.pass(Duration::from_secs(1)).await;
            assert_eq!(shop.units(0), [0, 3, 0, 0]);
        }
    }
}

/// Given up before the last announced time, stored with it: nothing would release it afterwards.
#[tokio::test(start_paused = true)]
async fn what_comes_back_in_the_batch_of_the_last_time_is_not_pooled() {
    for shop in both() {
        shop.publish(pooled(3)).await;
        shop.pass(Duration::from_millis(119_000)).await;
        let won = shop.won("u1", "k1", &[("a", 3)]).await.reservation_id;
        shop.pass(Duration::from_millis(500)).await;
        shop.store.hold();
        let buying = {
            let (engine, now) = (shop.engine.clone(), shop.now());
            let request = common::purchase("s1", "u2", "k1", &[("b", 1)]);
            tokio::spawn(async move { engine.purchase(&request, now).await })
        };
        shop.pass(Duration::from_millis(30)).await;
        let giving_up = {
            let (engine, now) = (shop.engine.clone(), shop.now());
            tokio::spawn(async move { engine.cancel(Caller::Storefront, won, now).await })
        };
        until(&shop, 120).await;
        shop.store.release();
        assert!(matches!(buying.await.unwrap(), Outcome::Reserved(_)));
        let given_up = giving_up.await.unwrap();
        assert_eq!(stands(&given_up).state, ReservationState::Released);
        let entries = shop.store.entries();
        let batch_of = |is_it: fn(&Change) -> bool| {
            let mut found = entries.iter().filter(|(_, entry)| is_it(&entry.change));
            found.next_back().unwrap().0
        };
        let wave = batch_of(|change| matches!(change, Change::Wave { .. }));
        let release = batch_of(|change| matches!(change, Change::Release { .. }));
        assert_eq!(wave, release, "one batch");
        assert_eq!(shop.units(0), [0, 3, 0, 0]);
        shop.audited().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_payment_does_not_take_from_the_pool() {
    let shop = Shop::open();
    shop.publish(pooled(2)).await;
    let won = shop.won("u1", "k1", &[("a", 2)]).await.reservation_id;
    until(&shop, 11).await;
    assert_eq!(shop.units(0), [2, 0, 0, 0]);
    let told = refusal(&shop.confirm(won, "p1").await);
    assert_eq!(told, Refusal::ReservationExpired);
    until(&shop, 60).await;
    let told = refusal(&shop.confirm(won, "p1").await);
    assert_eq!(told, Refusal::ReservationExpired, "final");
    stands(&shop.confirm(won, "p2").await);
    assert_eq!(shop.units(0), [0, 0, 0, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_after_the_close_is_not_pooled_and_the_rest_stays_unreleased() {
    let config = EngineConfig {
        hash_key: HashKey(1, 2),
        retire_after: Duration::from_secs(1),
        ..EngineConfig::default()
    };
    let shop = Shop::with(MemoryStore::new(), config);
    let mut definition = pooled(5);
    definition["items"][0]["waves"] = json!([{"at": after(100), "units": 1}]);
    shop.publish(definition).await;
    let before = shop.won("u1", "k1", &[("a", 1)]).await;
    shop.won("u2", "k1", &[("a", 2)]).await;
    shop.cancel(before.reservation_id).await;
    assert_eq!(shop.units(0), [2, 1, 2, 0]);
    shop.command(SaleCommand::Close).await;
    until(&shop, 130).await;
    assert_eq!(shop.units(0), [2, 3, 0, 0]);
    until(&shop, 3_602).await;
    assert!(shop.engine.sale(&id("s1")).unwrap().is_retired());
    assert_eq!(shop.units(0), [2, 3, 0, 0]);
    shop.audited().await;
    let shop = shop.restart();
    assert_eq!(shop.units(0), [2, 3, 0, 0]);
    shop.audited().await;
}

#[tokio::test(start_paused = true)]
async fn releases_are_told_as_events() {
    let shop = Shop::open();
    shop.publish(waved()).await;
    by_hand(&shop, Some("h1"), 1).await.unwrap();
    until(&shop, 60).await;
    let events = shop
        .engine
        .events(&id("s1"), EventPlace::default(), 100)
        .await
        .unwrap();
    let told: Vec<_> = events
        .iter()
        .filter(|event| event.kind == "sale.wave" || event.kind == "sale.opened")
        .map(|event| event.data.clone())
        .collect();
    let items = |units: u32| json!([{"item": "a", "quantity": units}]);
    assert_eq!(
        told,
        [
            json!({"items": [{"item": "a", "quantity": 5}, {"item": "b", "quantity": 5}]}),
            json!({"wave": "hand:h1", "kind": "by_hand", "items": items(1)}),
            json!({"wave": "plan:2", "kind": "planned", "items": items(3)}),
        ]
    );
    let sale = shop.engine.sale(&id("s1")).unwrap();
    assert_eq!(sale.waves_after(1), [(ItemIndex(0), 3)]);
}
