//! A store with a lane for each sale: changes that it does not take, sales that it freezes, losses that an operator accepts.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected fails"
)]

mod common;

use std::time::Duration;

use common::{Shop, id, refusal, sale, stands, who};
use flash_engine::{AdminRefusal, Caller, EngineConfig, HashKey, SaleCommand};
use flash_store::{EntryRefusal, MemoryFault, MemoryStore, NotApplied};
use flash_types::*;
use serde_json::json;

fn shop() -> Shop {
    let config = EngineConfig {
        hash_key: HashKey(1, 2),
        ..Default::default()
    };
    Shop::with(MemoryStore::per_sale(), config)
}

async fn open() -> Shop {
    let shop = shop();
    shop.publish(sale(10)).await;
    shop
}

fn named(name: &str) -> serde_json::Value {
    let mut definition = sale(10);
    definition["sale_id"] = json!(name);
    definition
}

#[tokio::test(start_paused = true)]
async fn a_sale_with_a_store_that_does_not_answer_holds_up_no_other() {
    let shop = open().await;
    shop.publish(named("s2")).await;
    shop.store.hold_sale(SaleNo(1));
    let stuck = shop.buy("u1", "k1", &[("a", 1)]).await;
    let Outcome::Unknown(stuck) = stuck else {
        panic!("{stuck:?}");
    };
    let other = shop.buy_in("s2", "u1", "k1", &[("a", 1)]).await;
    assert!(matches!(other, Outcome::Reserved(_)), "{other:?}");
    // Drafts and notes go on as well.
    shop.publish(named("s3")).await;
    shop.store.release();
    shop.pass(Duration::from_millis(50)).await;
    assert_eq!(shop.state(stuck).await, ReservationState::Reserved);
    shop.audited().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_store_does_not_take_is_told_and_leaves_nothing() {
    let shop = open().await;
    for (why, told) in [
        (EntryRefusal::Limit, Refusal::BuyerLimitReached),
        (
            EntryRefusal::SoldOut(2),
            Refusal::SoldOut {
                is_final: false,
                available_units: Some(2),
            },
        ),
        (
            EntryRefusal::SoldOut(0),
            Refusal::SoldOut {
                is_final: false,
                available_units: None,
            },
        ),
        (EntryRefusal::State(SaleState::Paused), Refusal::SalePaused),
        (EntryRefusal::State(SaleState::Closed), Refusal::SaleEnded),
    ] {
        shop.store.fail_next(MemoryFault::Refused(why));
        let outcome = shop.buy("u1", "k1", &[("a", 3)]).await;
        assert_eq!(refusal(&outcome), told);
        assert_eq!(shop.units(0), [0, 10, 0, 0], "{told:?}");
    }
    // Neither key nor limit was spent.
    shop.won("u1", "k1", &[("a", 3)]).await;
    shop.audited().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_won_as_the_store_knows_gets_its_reservation() {
    let shop = open().await;
    let won = shop.won("u1", "k1", &[("a", 1)]).await;
    let serial = won.reservation_id.serial;
    for (lines, is_same) in [([("a", 1)], true), ([("a", 2)], false)] {
        shop.store
            .fail_next(MemoryFault::Refused(EntryRefusal::KeyKnown(serial)));
        let outcome = shop.buy("u2", "k2", &lines).await;
        if is_same {
            assert_eq!(stands(&outcome).reservation_id, won.reservation_id);
        } else {
            assert_eq!(refusal(&outcome), Refusal::IdempotencyKeyReused);
        }
    }
    assert_eq!(shop.units(0), [0, 9, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_early_for_the_store_comes_up_again() {
    let shop = shop();
    shop.store
        .fail_next(MemoryFault::NotApplied(NotApplied::Unavailable("".into())));
    let mut definition = sale(10);
    definition["starts_at"] = json!(common::NOON.plus(Duration::from_secs(1)));
    let definition: SaleDefinition = serde_json::from_value(definition).unwrap();
    let draft = || shop.engine.put_draft(definition.clone(), false, who());
    assert!(draft().await.is_err(), "the store was away");
    draft().await.unwrap();
    shop.command(SaleCommand::Publish).await;
    // The opening comes twice before its time, and then in time.
    for _ in 0..2 {
        shop.store
            .fail_next(MemoryFault::Refused(EntryRefusal::Early));
    }
    shop.pass(Duration::from_millis(1_200)).await;
    let won = shop.won("u1", "k1", &[("a", 1)]).await;
    // So does an expiry.
    shop.store
        .fail_next(MemoryFault::Refused(EntryRefusal::Early));
    shop.pass(Duration::from_secs(11)).await;
    assert_eq!(
        shop.state(won.reservation_id).await,
        ReservationState::Expired
    );
    assert_eq!(shop.units(0), [0, 10, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_differs_from_the_store_stops_the_sale_and_no_other() {
    let shop = open().await;
    shop.publish(named("s2")).await;
    shop.store
        .fail_next(MemoryFault::Refused(EntryRefusal::Stale("units".into())));
    let outcome = shop.buy("u1", "k1", &[("a", 1)]).await;
    assert_eq!(refusal(&outcome), Refusal::SaleFrozen);
    shop.pass(Duration::from_millis(50)).await;
    let stored = shop.store.sales();
    assert_eq!(stored[0].state, SaleState::Frozen);
    let other = shop.buy_in("s2", "u1", "k1", &[("a", 1)]).await;
    assert!(matches!(other, Outcome::Reserved(_)), "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_store_refuses_does_not_stick() {
    let shop = open().await;
    shop.store
        .fail_next(MemoryFault::Refused(EntryRefusal::Early));
    let paused = shop
        .engine
        .command(&id("s1"), SaleCommand::Pause, who())
        .await;
    assert!(paused.is_err());
    shop.won("u1", "k1", &[("a", 1)]).await;
}

/// The store says that the sale is over to a purchase that shares its batch with the closing.
#[tokio::test(start_paused = true)]
async fn a_purchase_refused_beside_the_closing_leaves_the_sale_closed() {
    let shop = open().await;
    let won = shop.won("u0", "k0", &[("a", 1)]).await;
    shop.pass(Duration::from_millis(3_599_500)).await;
    let late = shop.won("u1", "k1", &[("a", 1)]).await;
    shop.store.hold();
    let buy = |buyer: &'static str| {
        let (engine, now) = (shop.engine.clone(), shop.now());
        tokio::spawn(async move {
            let request = common::purchase("s1", buyer, "k", &[("a", 1)]);
            engine.purchase(&request, now).await
        })
    };
    let first = buy("u2");
    shop.pass(Duration::from_millis(30)).await;
    let second = buy("u3");
    shop.pass(Duration::from_millis(600)).await;
    shop.store.fail_next(MemoryFault::Moved);
    shop.store
        .fail_next(MemoryFault::Refused(EntryRefusal::State(SaleState::Closed)));
    shop.store.release();
    assert!(matches!(first.await.unwrap(), Outcome::Reserved(_)));
    assert_eq!(refusal(&second.await.unwrap()), Refusal::SaleEnded);
    shop.pass(Duration::from_secs(1)).await;
    let sale = shop.engine.sale(&id("s1")).unwrap();
    assert_eq!(sale.state(), SaleState::Closed);
    stands(&shop.confirm(late.reservation_id, "p1").await);
    assert_eq!(
        shop.state(won.reservation_id).await,
        ReservationState::Expired
    );
}

#[tokio::test(start_paused = true)]
async fn a_loss_of_more_than_reservations_is_told_and_the_sale_comes_back_paused() {
    let shop = open().await;
    let before = shop.store.snapshot();
    let key = id("top-up-1");
    let applied = shop
        .engine
        .change_stock(&id("s1"), &id("a"), &key, 5, "more", who())
        .await;
    assert_eq!(applied, Ok(5));
    shop.store.restore(&before);
    shop.store.fail_next(MemoryFault::Frozen {
        reason: "lost".into(),
        is_known: true,
    });
    assert_eq!(
        refusal(&shop.buy("u1", "k1", &[("a", 1)]).await),
        Refusal::SaleFrozen
    );
    let losses = shop.engine.loss(&id("s1")).await.unwrap();
    assert_eq!(losses.lost.len(), 0);
    assert_eq!(
        losses.differences,
        ["the stock of a was 15, stored are 10;"]
    );
    let sale = || shop.engine.sale(&id("s1")).unwrap();
    let (version, mark) = (sale().version(), sale().events_mark());
    let accepted = shop.engine.accept_loss(&id("s1"), who()).await.unwrap();
    // Neither comes a second time: whoever remembers one would take what follows for known.
    assert!(sale().version() > version);
    assert!(sale().events_mark() > mark);
    assert_eq!(accepted.state, SaleState::Paused);
    assert_eq!(shop.units(0), [0, 10, 0, 0]);
    shop.command(SaleCommand::Resume).await;
    shop.won("u1", "k1", &[("a", 1)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_freeze_by_the_store_tells_what_is_known() {
    for is_known in [true, false] {
        let shop = open().await;
        let kept = shop.won("u0", "k0", &[("a", 1)]).await;
        let reason = "Redis lost acknowledged writes".to_owned();
        shop.store
            .fail_next(MemoryFault::Frozen { reason, is_known });
        let outcome = shop.buy("u1", "k1", &[("a", 1)]).await;
        if is_known {
            assert_eq!(refusal(&outcome), Refusal::SaleFrozen);
        } else {
            assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
        }
        // Replays and reads go on; nothing else does.
        let replay = shop.buy("u0", "k0", &[("a", 1)]).await;
        assert_eq!(stands(&replay).reservation_id, kept.reservation_id);
        assert_eq!(
            shop.state(kept.reservation_id).await,
            ReservationState::Reserved
        );
        for outcome in [
            shop.buy("u2", "k2", &[("a", 1)]).await,
            shop.confirm(kept.reservation_id, "p1").await,
            shop.cancel(kept.reservation_id).await,
        ] {
            assert_eq!(refusal(&outcome), Refusal::SaleFrozen);
        }
        let written = shop.store.entries().len();
        shop.pass(Duration::from_secs(30)).await;
        assert_eq!(shop.store.entries().len(), written, "nothing is written");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_came_back_gives_open_reservations_their_grace() {
    let shop = open().await;
    let won = shop.won("u1", "k1", &[("a", 1)]).await;
    shop.pass(Duration::from_secs(9)).await;
    shop.store.fail_next(MemoryFault::Moved);
    shop.won("u2", "k2", &[("a", 1)]).await;
    // Its window was over 10 s after it was made; it is kept for 10 s from the return on.
    shop.pass(Duration::from_secs(8)).await;
    assert_eq!(
        shop.state(won.reservation_id).await,
        ReservationState::Reserved
    );
    shop.pass(Duration::from_secs(3)).await;
    assert_eq!(
        shop.state(won.reservation_id).await,
        ReservationState::Expired
    );
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_listed_exactly_and_the_sale_goes_on_from_what_is_stored() {
    let shop = open().await;
    let kept = shop.won("u1", "k1", &[("a", 1)]).await;
    let paid_later = shop.won("u2", "k2", &[("a", 1)]).await;
    let before = shop.store.snapshot();
    let lost = shop.won("u3", "k3", &[("a", 2), ("b", 1)]).await;
    shop.confirm(paid_later.reservation_id, "p1").await;
    assert_eq!(
        shop.engine.loss(&id("s1")).await.unwrap_err(),
        AdminRefusal::Conflict("the sale is open, not frozen".into())
    );
    shop.store.restore(&before);
    let fault = MemoryFault::Frozen {
        reason: "lost".into(),
        is_known: false,
    };
    shop.store.fail_next(fault);
    // Sent and never told: neither kept nor lost.
    let unknown = shop.buy("u4", "k4", &[("a", 1)]).await;
    assert!(matches!(unknown, Outcome::Unknown(_)), "{unknown:?}");

    let losses = shop.engine.loss(&id("s1")).await.unwrap();
    let listed: Vec<_> = losses
        .lost
        .iter()
        .map(|one| {
            let told = &one.reservation;
            (told.reservation_id, told.state, one.stored_state)
        })
        .collect();
    assert_eq!(
        listed,
        [
            (
                paid_later.reservation_id,
                ReservationState::Confirmed,
                Some(ReservationState::Reserved)
            ),
            (lost.reservation_id, ReservationState::Reserved, None),
        ]
    );
    let accepted = shop.engine.accept_loss(&id("s1"), who()).await.unwrap();
    assert_eq!(
        (accepted.state, accepted.lost_reservations),
        (SaleState::Open, 2)
    );
    assert_eq!(shop.units(0), [0, 8, 2, 0]);
    assert_eq!(
        shop.state(kept.reservation_id).await,
        ReservationState::Reserved
    );
    let gone = shop
        .engine
        .reservation(Caller::Storefront, lost.reservation_id)
        .await;
    assert_eq!(gone.unwrap_err(), Refusal::NotFound);
    // It sells, takes payments, and gives the key of what is lost another chance.
    shop.won("u3", "k3", &[("a", 2)]).await;
    stands(&shop.confirm(paid_later.reservation_id, "p1").await);
    shop.audited().await;
    let notes = shop.engine.admin_notes(0, 100).await.unwrap();
    let note = &notes.last().unwrap().1;
    assert_eq!(note.command, "sale.accept_loss");
    assert!(note.detail.contains(&lost.reservation_id.to_string()));
}
