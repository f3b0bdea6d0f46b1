//! What a merchant does about a mistake: makes the sale a draft again, or pauses it and corrects the price.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected fails"
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{NOON, Shop, both, id, refusal, sale, stands, who};
use flash_engine::{AdminRefusal, PriceChanged, Sale, SaleCommand};
use flash_store::{Change, EntryRefusal, MemoryFault, NotApplied};
use flash_types::*;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const CONFLICT: Refusal = Refusal::StateConflict { refund_due: false };

fn in_a_minute() -> Value {
    let mut definition = sale(5);
    definition["starts_at"] = json!(NOON.plus(Duration::from_secs(60)));
    definition
}

async fn unpublish(shop: &Shop) -> Result<Arc<Sale>, AdminRefusal> {
    shop.engine
        .command(&id("s1"), SaleCommand::Unpublish, who())
        .await
}

fn unpublishing(shop: &Shop) -> JoinHandle<Result<(), AdminRefusal>> {
    let engine = shop.engine.clone();
    tokio::spawn(async move {
        engine
            .command(&id("s1"), SaleCommand::Unpublish, who())
            .await
            .map(|_| ())
    })
}

fn buying(shop: &Shop, sale: &'static str, buyer: &'static str) -> JoinHandle<Outcome> {
    let (engine, now) = (shop.engine.clone(), shop.now());
    tokio::spawn(async move {
        let request = common::purchase(sale, buyer, "k1", &[("a", 1)]);
        engine.purchase(&request, now).await
    })
}

async fn replace(shop: &Shop, definition: Value) {
    let definition: SaleDefinition = serde_json::from_value(definition).unwrap();
    shop.engine
        .put_draft(definition, true, who())
        .await
        .unwrap();
}

async fn stock(shop: &Shop, key: &str, delta: i64) -> Result<i64, AdminRefusal> {
    shop.engine
        .change_stock(&id("s1"), &id("a"), &id(key), delta, "why", who())
        .await
}

fn state(shop: &Shop) -> SaleState {
    shop.engine.sale(&id("s1")).unwrap().state()
}

#[tokio::test(start_paused = true)]
async fn a_sale_of_which_nothing_was_reserved_is_a_draft_again() {
    for from in [SaleState::Published, SaleState::Open, SaleState::Paused] {
        for shop in both() {
            let is_published = from == SaleState::Published;
            let first = if is_published { in_a_minute() } else { sale(5) };
            shop.publish(first.clone()).await;
            if from == SaleState::Paused {
                shop.command(SaleCommand::Pause).await;
            }
            assert_eq!(state(&shop), from);
            let before = shop.engine.sale(&id("s1")).unwrap();
            let draft = unpublish(&shop).await.unwrap();
            assert_eq!(
                (draft.state(), state(&shop)),
                (SaleState::Draft, SaleState::Draft)
            );
            assert!(draft.version() > before.version(), "no mark comes twice");
            assert!(draft.events_mark() >= before.events_mark());
            assert_eq!(shop.units(0), [5, 0, 0, 0]);
            assert_eq!(
                refusal(&shop.buy("u1", "k1", &[("a", 1)]).await),
                Refusal::NotFound
            );
            unpublish(&shop).await.unwrap();
            // It stays one after a restart, can be replaced, and is published anew.
            let shop = shop.restart();
            assert_eq!(state(&shop), SaleState::Draft);
            let mut second = first;
            second["items"][0]["stock_units"] = json!(7);
            second["items"][0]["sale_price_minor"] = json!(90);
            second["starts_at"] = json!(NOON);
            replace(&shop, second).await;
            shop.command(SaleCommand::Publish).await;
            let won = shop.won("u1", "k1", &[("a", 1)]).await;
            assert_eq!(won.amount_minor, Money(90));
            assert_eq!(shop.units(0), [0, 6, 1, 0]);
            shop.audited().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_stays_published_once_something_was_reserved_or_released() {
    for shop in both() {
        shop.publish(sale(5)).await;
        let won = shop.won("u1", "k1", &[("a", 1)]).await;
        let conflict = |told: Result<Arc<Sale>, _>| match told {
            Err(AdminRefusal::Conflict(_)) => {}
            other => panic!("{:?}", other.map(|sale| sale.state())),
        };
        conflict(unpublish(&shop).await);
        shop.cancel(won.reservation_id).await;
        conflict(unpublish(&shop).await);
        assert_eq!(state(&shop), SaleState::Open, "it goes on");
        shop.won("u2", "k1", &[("a", 1)]).await;
        let shop = shop.restart();
        conflict(unpublish(&shop).await);
        shop.command(SaleCommand::Pause).await;
        conflict(unpublish(&shop).await);
        assert_eq!(state(&shop), SaleState::Paused, "paused it stays");
        shop.command(SaleCommand::Close).await;
        conflict(unpublish(&shop).await);
    }
}

/// A purchase that was queued before the command won; one that comes after it did not.
#[tokio::test(start_paused = true)]
async fn a_purchase_and_an_unpublishing_under_way_together_are_decided_in_their_order() {
    for is_purchase_first in [true, false] {
        for shop in both() {
            shop.publish(sale(5)).await;
            let draft = json!({"sale_id": "s2"});
            let mut other = sale(5);
            other["sale_id"] = draft["sale_id"].clone();
            shop.publish(other).await;
            shop.store.hold();
            // With the store, in the lane of all sales or in that of this one.
            let in_flight = if is_purchase_first {
                buying(&shop, "s1", "u1")
            } else {
                buying(&shop, "s2", "u1")
            };
            shop.pass(Duration::from_millis(30)).await;
            let unpublishing = unpublishing(&shop);
            shop.pass(Duration::from_millis(30)).await;
            let late = buying(&shop, "s1", "u2");
            shop.pass(Duration::from_millis(30)).await;
            shop.store.release();
            assert!(matches!(in_flight.await.unwrap(), Outcome::Reserved(_)));
            let told = unpublishing.await.unwrap();
            let late = late.await.unwrap();
            if is_purchase_first {
                // What is with the store may be there any moment: it counts.
                assert!(told.is_err(), "{told:?}");
                assert!(matches!(late, Outcome::Reserved(_)), "{late:?}");
                assert_eq!(state(&shop), SaleState::Open);
                shop.won("u3", "k1", &[("a", 1)]).await;
            } else {
                assert_eq!(told, Ok(()));
                let stopped = [Refusal::SalePaused, Refusal::NotFound];
                assert!(stopped.contains(&refusal(&late)), "stopped at once");
                assert_eq!(state(&shop), SaleState::Draft);
                shop.command(SaleCommand::Publish).await;
                assert_eq!(shop.units(0), [0, 5, 0, 0]);
                shop.won("u2", "k1", &[("a", 1)]).await;
            }
            shop.audited().await;
        }
    }
}

/// Queued in one batch: the purchase decides.
#[tokio::test(start_paused = true)]
async fn a_purchase_queued_before_it_in_the_same_batch_keeps_the_sale_published() {
    for shop in both() {
        shop.publish(sale(5)).await;
        let mut other = sale(5);
        other["sale_id"] = json!("s2");
        shop.publish(other).await;
        shop.store.hold();
        let in_flight = buying(&shop, "s2", "u1");
        shop.pass(Duration::from_millis(30)).await;
        let first = buying(&shop, "s1", "u1");
        tokio::task::yield_now().await;
        let told = unpublishing(&shop);
        shop.pass(Duration::from_millis(30)).await;
        shop.store.release();
        in_flight.await.unwrap();
        assert!(matches!(first.await.unwrap(), Outcome::Reserved(_)));
        assert!(told.await.unwrap().is_err());
        assert_eq!(state(&shop), SaleState::Open);
        shop.won("u2", "k1", &[("a", 1)]).await;
        shop.audited().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_unpublishing_that_failed_puts_the_state_back() {
    for shop in both() {
        shop.publish(sale(5)).await;
        let away = NotApplied::Unavailable("busy".into());
        shop.store.fail_next(MemoryFault::NotApplied(away));
        assert!(unpublish(&shop).await.is_err());
        assert_eq!(state(&shop), SaleState::Open);
        shop.store
            .fail_next(MemoryFault::Refused(EntryRefusal::Early));
        assert!(unpublish(&shop).await.is_err());
        assert_eq!(state(&shop), SaleState::Open);
        // Its caller gave up before it was sent.
        shop.store.hold();
        let mut other = sale(5);
        other["sale_id"] = json!("s2");
        let other: SaleDefinition = serde_json::from_value(other).unwrap();
        let engine = shop.engine.clone();
        let making = tokio::spawn(async move { engine.put_draft(other, false, who()).await });
        shop.pass(Duration::from_millis(30)).await;
        let told = unpublishing(&shop).await.unwrap();
        assert!(told.is_err());
        shop.store.release();
        let _ = making.await;
        shop.pass(Duration::from_secs(1)).await;
        // With a lane of its own it was sent, and is done by now.
        if state(&shop) == SaleState::Draft {
            shop.command(SaleCommand::Publish).await;
        }
        assert_eq!(state(&shop), SaleState::Open);
        shop.won("u1", "k1", &[("a", 1)]).await;
        shop.audited().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_wave_in_the_batch_of_the_unpublishing_keeps_the_sale_published() {
    for shop in both() {
        let mut definition = sale(5);
        let wave = json!({"at": NOON.plus(Duration::from_secs(60)), "units": 2});
        definition["items"][0]["waves"] = json!([wave]);
        shop.publish(definition).await;
        shop.pass(Duration::from_millis(59_500)).await;
        let mut other = sale(5);
        other["sale_id"] = json!("s2");
        shop.publish(other).await;
        shop.store.hold();
        let in_flight = buying(&shop, "s2", "u1");
        shop.pass(Duration::from_millis(30)).await;
        let told = unpublishing(&shop);
        shop.pass(Duration::from_millis(900)).await;
        shop.store.release();
        in_flight.await.unwrap();
        let told = told.await.unwrap();
        shop.pass(Duration::from_millis(100)).await;
        // In a lane of its own the command was with the store before the wave was due.
        let is_draft = state(&shop) == SaleState::Draft;
        assert_eq!(is_draft, told.is_ok());
        if is_draft {
            shop.command(SaleCommand::Publish).await;
            shop.pass(Duration::from_millis(100)).await;
        }
        assert_eq!(shop.units(0), [0, 5, 0, 0]);
        let entries = shop.store.entries();
        let waves = entries
            .iter()
            .filter(|(_, entry)| matches!(entry.change, Change::Wave { .. }));
        assert_eq!(waves.count(), 1);
        shop.won("u1", "k1", &[("a", 1)]).await;
        shop.audited().await;
    }
}

#[tokio::test(start_paused = true)]
async fn changes_of_stock_stay_and_their_keys_stay_spent() {
    for shop in both() {
        shop.publish(in_a_minute()).await;
        assert_eq!(stock(&shop, "t1", 4).await, Ok(4));
        unpublish(&shop).await.unwrap();
        assert_eq!(shop.units(0), [9, 0, 0, 0]);
        shop.command(SaleCommand::Publish).await;
        assert_eq!(stock(&shop, "t1", 4).await, Ok(4), "once");
        assert_eq!(stock(&shop, "t2", 1).await, Ok(1));
        unpublish(&shop).await.unwrap();
        // A replaced draft begins with the stock of its plan; what was answered stays answered.
        replace(&shop, sale(5)).await;
        shop.command(SaleCommand::Publish).await;
        assert_eq!(stock(&shop, "t1", 4).await, Ok(4));
        assert_eq!(stock(&shop, "t2", 1).await, Ok(1));
        assert_eq!(shop.units(0), [0, 5, 0, 0]);
        let shop = shop.restart();
        assert_eq!(stock(&shop, "t1", 4).await, Ok(4));
        assert_eq!(stock(&shop, "t3", 1).await, Ok(1));
        assert_eq!(shop.units(0), [0, 6, 0, 0]);
        shop.audited().await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_the_opening_of_a_sale_that_is_taken_back_is_told_soon() {
    for command in [SaleCommand::Unpublish, SaleCommand::Close] {
        let shop = Shop::open();
        let mut definition = sale(5);
        definition["starts_at"] = json!(NOON.plus(Duration::from_millis(500)));
        shop.publish(definition).await;
        let mut other = sale(5);
        other["sale_id"] = json!("s2");
        shop.publish(other).await;
        shop.store.hold();
        let in_flight = buying(&shop, "s2", "u1");
        shop.pass(Duration::from_millis(30)).await;
        let engine = shop.engine.clone();
        let taking = tokio::spawn(async move {
            let told = engine.command(&id("s1"), command, who()).await;
            told.map(|sale| sale.state())
        });
        shop.pass(Duration::from_millis(500)).await;
        let late = buying(&shop, "s1", "u2");
        shop.pass(Duration::from_millis(30)).await;
        let before = shop.now().steady;
        shop.store.release();
        in_flight.await.unwrap();
        taking.await.unwrap().unwrap();
        let told = refusal(&late.await.unwrap());
        assert!(
            matches!(told, Refusal::NotFound | Refusal::SaleEnded),
            "{told:?}"
        );
        let waited = shop.now().steady.0 - before.0;
        assert!(waited < 500, "{waited} ms");
    }
}

async fn change_price(shop: &Shop, price: i64) -> Result<PriceChanged, AdminRefusal> {
    shop.engine
        .change_price(&id("s1"), &id("a"), Money(price), "typed wrong", who())
        .await
}

#[tokio::test(start_paused = true)]
async fn a_corrected_price_is_that_of_new_reservations() {
    for shop in both() {
        shop.publish(sale(10)).await;
        let one = shop.won("u1", "k1", &[("a", 2)]).await;
        let other = shop.won("u2", "k1", &[("b", 1)]).await;
        for bad in [-1, 1_000_000_000_001] {
            let told = change_price(&shop, bad).await;
            assert!(matches!(told, Err(AdminRefusal::Malformed(_))), "{told:?}");
        }
        let told = change_price(&shop, 900).await;
        assert!(matches!(told, Err(AdminRefusal::Conflict(_))), "not paused");
        shop.command(SaleCommand::Pause).await;
        let away = NotApplied::Unavailable("busy".into());
        shop.store.fail_next(MemoryFault::NotApplied(away));
        assert!(change_price(&shop, 900).await.is_err());
        let price = |shop: &Shop| shop.engine.sale(&id("s1")).unwrap().price(ItemIndex(0));
        assert_eq!(price(&shop), Money(100));
        let changed = change_price(&shop, 900).await.unwrap();
        assert_eq!(changed.old_price_minor, Money(100));
        assert_eq!(changed.sale_price_minor, Money(900));
        let listed: Vec<_> = changed
            .reservations
            .iter()
            .map(|r| r.reservation_id)
            .collect();
        assert_eq!(listed, [one.reservation_id], "not those of another item");
        // The same again changes nothing, and lists them again.
        let again = change_price(&shop, 900).await.unwrap();
        assert_eq!(again.reservations.len(), 1);
        let changes = shop.store.entries();
        let changes = changes
            .iter()
            .filter(|(_, entry)| matches!(entry.change, Change::ChangePrice { .. }));
        assert_eq!(changes.count(), 1);
        shop.command(SaleCommand::Resume).await;
        let new = shop.won("u3", "k1", &[("a", 1)]).await;
        assert_eq!(new.amount_minor, Money(900));
        let shop = shop.restart();
        assert_eq!(price(&shop), Money(900));
        let newer = shop.won("u4", "k1", &[("a", 1)]).await;
        assert_eq!(newer.amount_minor, Money(900));
        // Each is paid at its own price; a replay tells it, too.
        let replay = shop.buy("u1", "k1", &[("a", 2)]).await;
        assert_eq!(stands(&replay).amount_minor, Money(200));
        for (reservation, wrong, right) in [(&one, 1_800, 200), (&new, 100, 900)] {
            let reservation = reservation.reservation_id;
            let payment = id(&format!("p{}", reservation.serial.0));
            let pay = |amount| {
                shop.engine
                    .confirm(reservation, &payment, Some(Money(amount)), shop.now())
            };
            assert_eq!(refusal(&pay(wrong).await), CONFLICT);
            stands(&pay(right).await);
        }
        let other = shop.state(other.reservation_id).await;
        assert_eq!(other, ReservationState::Reserved);
        shop.audited().await;
    }
}
