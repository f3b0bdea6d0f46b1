//! The life of a purchase: winners, losers, and what each is told first.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected fails"
)]

mod common;

use std::time::Duration;

use common::{NOON, Shop, id, purchase, refusal, sale, stands, who};
use flash_engine::{Caller, EngineConfig, HashKey, SaleCommand};
use flash_store::{MemoryFault, MemoryStore, NotApplied};
use flash_types::*;

const CONFLICT: Refusal = Refusal::StateConflict { refund_due: false };
const GONE: Refusal = Refusal::SoldOut {
    is_final: true,
    available_units: None,
};
const NOT_YET_GONE: Refusal = Refusal::SoldOut {
    is_final: false,
    available_units: None,
};

#[tokio::test(start_paused = true)]
async fn a_winner_gets_the_same_answer_for_the_same_key() {
    let shop = Shop::open();
    shop.publish(sale(10)).await;
    let first = shop.won("u1", "k1", &[("a", 1), ("b", 2), ("a", 1)]).await;
    assert_eq!(first.state, ReservationState::Reserved);
    assert_eq!(first.amount_minor, Money(700));
    assert_eq!(
        first.expires_at,
        first.created_at.plus(Duration::from_secs(10))
    );
    // Another order and spelling of the same lines.
    let again = shop.buy("u1", "k1", &[("b", 1), ("b", 1), ("a", 2)]).await;
    assert_eq!(*stands(&again), first);
    for other in [
        &[("a", 2)][..],
        &[("a", 2), ("b", 3)],
        &[("a", 2), ("nothing", 1)],
    ] {
        let told = shop.buy("u1", "k1", other).await;
        assert_eq!(refusal(&told), Refusal::IdempotencyKeyReused, "{other:?}");
    }
    // The key belongs to its buyer.
    shop.won("u2", "k1", &[("a", 1)]).await;
    assert_eq!(shop.units(0), [0, 7, 3, 0]);
    shop.audited().await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_calls_with_one_key_make_one_reservation() {
    let shop = Shop::open();
    shop.publish(sale(10)).await;
    let calls = (0..100).map(|_| {
        let engine = shop.engine.clone();
        let now = shop.now();
        tokio::spawn(async move {
            engine
                .purchase(&purchase("s1", "u1", "k1", &[("a", 1)]), now)
                .await
        })
    });
    let mut made = 0;
    let mut ids = std::collections::HashSet::new();
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Outcome::Reserved(reservation) => {
                made += 1;
                ids.insert(reservation.reservation_id);
            }
            Outcome::Stands(reservation) => {
                ids.insert(reservation.reservation_id);
            }
            other @ (Outcome::Refused(_) | Outcome::Unknown(_)) => panic!("{other:?}"),
        }
    }
    assert_eq!((made, ids.len()), (1, 1));
    assert_eq!(shop.units(0), [0, 9, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn all_lines_or_none() {
    let shop = Shop::open();
    shop.publish(sale(10)).await;
    let told = shop.buy("u1", "k1", &[("a", 1), ("b", 6)]).await;
    assert_eq!(
        refusal(&told),
        Refusal::SoldOut {
            is_final: false,
            available_units: Some(5)
        }
    );
    assert_eq!(
        (shop.units(0), shop.units(1)),
        ([0, 10, 0, 0], [0, 5, 0, 0])
    );
}

#[tokio::test(start_paused = true)]
async fn the_limit_counts_what_is_reserved_or_sold_and_sums_lines() {
    let shop = Shop::open();
    shop.publish(sale(20)).await;
    // Two lines of one item do not pass separate checks.
    let told = shop.buy("u1", "k0", &[("a", 2), ("a", 2)]).await;
    assert_eq!(refusal(&told), Refusal::BuyerLimitReached);
    let first = shop.won("u1", "k1", &[("a", 2)]).await;
    let told = shop.buy("u1", "k2", &[("a", 2)]).await;
    assert_eq!(refusal(&told), Refusal::BuyerLimitReached);
    // A refusal is not remembered: the same key may win later.
    shop.cancel(first.reservation_id).await;
    shop.won("u1", "k2", &[("a", 2)]).await;
    shop.won("u1", "k3", &[("a", 1)]).await;
    let shop = shop.restart();
    let told = shop.buy("u1", "k4", &[("a", 1)]).await;
    assert_eq!(
        refusal(&told),
        Refusal::BuyerLimitReached,
        "reloaded after a restart"
    );
}

#[tokio::test(start_paused = true)]
async fn sold_out_is_final_only_when_nothing_can_come_back() {
    let shop = Shop::open();
    shop.publish(sale(1)).await;
    let won = shop.won("u1", "k1", &[("a", 1)]).await;
    assert_eq!(
        refusal(&shop.buy("u2", "k1", &[("a", 1)]).await),
        NOT_YET_GONE
    );
    shop.confirm(won.reservation_id, "p1").await;
    assert_eq!(refusal(&shop.buy("u2", "k1", &[("a", 1)]).await), GONE);
    // A top-up reopens it: sold out never sticks.
    let added = shop
        .engine
        .change_stock(&id("s1"), &id("a"), &id("t1"), 2, "more", who())
        .await;
    assert_eq!(added, Ok(2));
    shop.won("u2", "k1", &[("a", 1)]).await;
    shop.audited().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_before_the_start_burns_nothing_and_one_after_it_waits_for_the_opening() {
    let shop = Shop::open();
    let mut definition = sale(1);
    let starts_at = NOON.plus(Duration::from_secs(60));
    definition["starts_at"] = serde_json::json!(starts_at);
    shop.publish(definition).await;
    let told = shop.buy("u1", "k1", &[("a", 1)]).await;
    assert_eq!(refusal(&told), Refusal::SaleNotStarted { starts_at });
    assert_eq!(shop.units(0), [1, 0, 0, 0]);
    tokio::time::sleep(Duration::from_millis(60_000 - 1)).await;
    assert_eq!(
        refusal(&shop.buy("u1", "k1", &[("a", 1)]).await),
        Refusal::SaleNotStarted { starts_at }
    );
    tokio::time::sleep(Duration::from_millis(1)).await;
    shop.won("u1", "k1", &[("a", 1)]).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_cause_that_applies_is_told() {
    let shop = Shop::open();
    let mut definition = sale(2);
    definition["admission"] = serde_json::json!({"buyer_rate_per_s": 1, "buyer_burst": 2});
    shop.publish(definition).await;
    let won = shop.won("u1", "k1", &[("a", 2)]).await;
    let unknown_item = [("nothing", 1)];
    // not_found before any state.
    shop.command(SaleCommand::Pause).await;
    assert_eq!(
        refusal(&shop.buy("u2", "k", &unknown_item).await),
        Refusal::NotFound
    );
    assert_eq!(
        refusal(&shop.buy_in("s2", "u2", "k", &unknown_item).await),
        Refusal::NotFound
    );
    // paused before sold out.
    assert_eq!(
        refusal(&shop.buy("u2", "k", &[("a", 1)]).await),
        Refusal::SalePaused
    );
    // A key that won before paused, before not_found.
    assert_eq!(
        stands(&shop.buy("u1", "k1", &[("a", 2)]).await).reservation_id,
        won.reservation_id
    );
    let told = shop.buy("u1", "k1", &unknown_item).await;
    assert_eq!(refusal(&told), Refusal::IdempotencyKeyReused);
    shop.command(SaleCommand::Resume).await;
    // Sold out before the buyer's rate: it stays the answer however often is asked, and costs no rate.
    for _ in 0..5 {
        assert_eq!(
            refusal(&shop.buy("u2", "k", &[("a", 1)]).await),
            NOT_YET_GONE
        );
    }
    // The rate before the limit.
    for key in ["k5", "k6"] {
        let won = shop.won("u3", key, &[("b", 5)]).await;
        shop.cancel(won.reservation_id).await;
    }
    assert!(matches!(
        refusal(&shop.buy("u3", "k7", &[("b", 1)]).await),
        Refusal::RateLimited {
            retry_after_ms: 1..=1000
        }
    ));
    // The winner is asked for no rate.
    for _ in 0..5 {
        stands(&shop.buy("u1", "k1", &[("a", 2)]).await);
    }
    // Ended before sold out.
    shop.command(SaleCommand::Close).await;
    assert_eq!(
        refusal(&shop.buy("u2", "k", &[("a", 1)]).await),
        Refusal::SaleEnded
    );
    assert_eq!(
        refusal(&shop.buy("u2", "k", &unknown_item).await),
        Refusal::NotFound
    );
    stands(&shop.buy("u1", "k1", &[("a", 2)]).await);
}

#[tokio::test(start_paused = true)]
async fn a_winner_who_lost_the_answer_gets_it_back_whatever_happened_since() {
    let shop = Shop::open();
    shop.publish(sale(3)).await;
    let won = shop.won("u1", "k1", &[("a", 3)]).await;
    let same = async |shop: &Shop, when: &str| {
        let told = shop.buy("u1", "k1", &[("a", 3)]).await;
        assert_eq!(stands(&told).reservation_id, won.reservation_id, "{when}");
        stands(&told).state
    };
    same(&shop, "sold out").await;
    shop.command(SaleCommand::Pause).await;
    same(&shop, "paused").await;
    let shop = shop.restart();
    same(&shop, "restarted").await;
    shop.confirm(won.reservation_id, "p1").await;
    assert_eq!(same(&shop, "paid").await, ReservationState::Confirmed);
    shop.command(SaleCommand::Close).await;
    same(&shop, "closed").await;
    shop.engine.stop_taking();
    same(&shop, "stopping").await;
    let shop = shop.restart();
    assert_eq!(
        same(&shop, "closed and restarted").await,
        ReservationState::Confirmed
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_reserved_after_the_answer_to_pause_or_close() {
    for command in [SaleCommand::Pause, SaleCommand::Close] {
        let shop = Shop::open();
        shop.publish(sale(1000)).await;
        let calls: Vec<_> = (0..200)
            .map(|n| {
                let engine = shop.engine.clone();
                let now = shop.now();
                tokio::spawn(async move {
                    if n % 7 == 0 {
                        tokio::task::yield_now().await;
                    }
                    let buyer = format!("u{n}");
                    engine
                        .purchase(&purchase("s1", &buyer, "k", &[("a", 1)]), now)
                        .await
                })
            })
            .collect();
        tokio::task::yield_now().await;
        shop.command(command).await;
        let stored = shop.units(0)[2];
        let mut won = 0;
        for call in calls {
            match call.await.unwrap() {
                Outcome::Reserved(_) => won += 1,
                Outcome::Refused(Refusal::SalePaused | Refusal::SaleEnded) => {}
                other @ (Outcome::Refused(_) | Outcome::Stands(_) | Outcome::Unknown(_)) => {
                    panic!("{other:?}")
                }
            }
        }
        assert_eq!(
            won, stored,
            "what was reserved was reserved before the answer"
        );
        assert_eq!(shop.units(0)[2], stored);
        shop.audited().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_purchase_that_was_sent_and_not_answered_is_unknown_until_the_store_speaks() {
    let shop = Shop::open();
    shop.publish(sale(2)).await;
    shop.store.hold();
    let told = shop.buy("u1", "k1", &[("a", 1)]).await;
    let Outcome::Unknown(reservation) = told else {
        panic!("{told:?}")
    };
    assert_eq!(shop.state(reservation).await, ReservationState::Unknown);
    let by_key = shop
        .engine
        .reservation_by_key(&id("s1"), &id("u1"), &id("k1"))
        .await
        .unwrap();
    assert_eq!(
        (by_key.reservation_id, by_key.state),
        (reservation, ReservationState::Unknown)
    );
    // The same key waits, and past its deadline is told the same.
    assert_eq!(
        shop.buy("u1", "k1", &[("a", 1)]).await,
        Outcome::Unknown(reservation)
    );
    // Unsent behind it: 503 and nothing reserved; the same key meanwhile: in flight.
    let unsent = {
        let engine = shop.engine.clone();
        let now = shop.now();
        tokio::spawn(async move {
            engine
                .purchase(&purchase("s1", "u2", "k1", &[("a", 1)]), now)
                .await
        })
    };
    assert!(matches!(
        unsent.await.unwrap(),
        Outcome::Refused(Refusal::Overloaded { .. })
    ));
    assert_eq!(
        shop.engine
            .reservation_by_key(&id("s1"), &id("u2"), &id("k1"))
            .await,
        Err(Refusal::NotFound)
    );
    // Units of what is unknown stay taken.
    shop.store.release();
    let again = shop.buy("u1", "k1", &[("a", 1)]).await;
    assert_eq!(stands(&again).reservation_id, reservation);
    shop.pass(Duration::from_millis(100)).await;
    assert_eq!(shop.units(0), [0, 1, 1, 0]);
    shop.won("u2", "k1", &[("a", 1)]).await;
    shop.audited().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_gives_units_back_and_recovers_by_itself() {
    for (why, told) in [
        (NotApplied::StorageFull("full".into()), Refusal::StorageFull),
        (
            NotApplied::Unavailable("busy".into()),
            Refusal::StoreUnavailable,
        ),
    ] {
        let shop = Shop::open();
        shop.publish(sale(2)).await;
        shop.store.fail_next(MemoryFault::NotApplied(why));
        assert_eq!(refusal(&shop.buy("u1", "k1", &[("a", 1)]).await), told);
        assert_eq!(shop.units(0), [0, 2, 0, 0]);
        assert!(!shop.engine.health().ready);
        shop.pass(Duration::from_secs(2)).await;
        assert!(shop.engine.health().ready, "{:?}", shop.engine.health());
        shop.won("u1", "k1", &[("a", 1)]).await;
        shop.audited().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_flush_ends_the_process_and_tells_nobody_yes_or_no() {
    let shop = Shop::open();
    shop.publish(sale(2)).await;
    shop.store
        .fail_next(MemoryFault::Fatal("fsync: EIO".into()));
    assert!(matches!(
        shop.buy("u1", "k1", &[("a", 1)]).await,
        Outcome::Unknown(_)
    ));
    assert!(!shop.engine.health().ready);
    // Whoever asks for the key or the reservation now is told that nobody knows, at once.
    assert!(matches!(
        shop.buy("u1", "k1", &[("a", 1)]).await,
        Outcome::Unknown(_)
    ));
    let Shop { committer, .. } = shop;
    assert!(committer.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_who_leaves_early_changes_nothing_and_one_who_leaves_late_has_bought() {
    let shop = Shop::open();
    shop.publish(sale(2)).await;
    // Never polled: nothing happened.
    drop(
        shop.engine
            .purchase(&purchase("s1", "u1", "k1", &[("a", 1)]), shop.now()),
    );
    assert_eq!(shop.units(0), [0, 2, 0, 0]);
    // Polled once: handed over.
    let request = purchase("s1", "u2", "k1", &[("a", 1)]);
    {
        let mut purchase = std::pin::pin!(shop.engine.purchase(&request, shop.now()));
        assert!(futures_poll_once(purchase.as_mut()).await.is_none());
    }
    shop.pass(Duration::from_millis(100)).await;
    assert_eq!(shop.units(0), [0, 1, 1, 0]);
    stands(&shop.buy("u2", "k1", &[("a", 1)]).await);
}

async fn futures_poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn commands_that_do_not_fit_the_state_are_conflicts() {
    let shop = Shop::open();
    let definition: SaleDefinition = serde_json::from_value(sale(1)).unwrap();
    shop.engine
        .put_draft(definition.clone(), false, who())
        .await
        .unwrap();
    let told = |result: Result<_, _>| {
        result
            .map(|_: std::sync::Arc<flash_engine::Sale>| ())
            .unwrap_err()
    };
    let conflict = flash_engine::AdminRefusal::Refused(CONFLICT);
    for command in [SaleCommand::Pause, SaleCommand::Resume, SaleCommand::Close] {
        assert_eq!(
            told(shop.engine.command(&id("s1"), command, who()).await),
            conflict
        );
    }
    assert_eq!(
        refusal(&shop.buy("u1", "k", &[("a", 1)]).await),
        Refusal::NotFound,
        "a draft"
    );
    shop.engine
        .put_draft(definition.clone(), true, who())
        .await
        .unwrap();
    shop.command(SaleCommand::Publish).await;
    shop.command(SaleCommand::Publish).await;
    assert_eq!(
        told(shop.engine.put_draft(definition.clone(), true, who()).await),
        conflict
    );
    assert_eq!(
        told(shop.engine.put_draft(definition, false, who()).await),
        conflict
    );
    shop.won("u1", "k", &[("a", 1)]).await;
    shop.command(SaleCommand::Close).await;
    assert_eq!(
        told(
            shop.engine
                .command(&id("s1"), SaleCommand::Resume, who())
                .await
        ),
        conflict
    );
}

#[tokio::test(start_paused = true)]
async fn a_sale_ends_by_the_wall_clock_and_expiry_does_not_follow_its_jumps() {
    let shop = Shop::open();
    shop.publish(sale(2)).await;
    let won = shop.won("u1", "k1", &[("a", 1)]).await;
    // An hour and a half ahead: the window is over at once, the payment window is not.
    shop.clock
        .wall_offset_ms
        .store(5_400_000, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(
        refusal(&shop.buy("u2", "k1", &[("a", 1)]).await),
        Refusal::SaleEnded
    );
    shop.pass(Duration::from_secs(9)).await;
    assert_eq!(
        shop.state(won.reservation_id).await,
        ReservationState::Reserved
    );
    // And back: what expires does so on time.
    shop.clock
        .wall_offset_ms
        .store(-5_400_000, std::sync::atomic::Ordering::Relaxed);
    shop.pass(Duration::from_secs(2)).await;
    assert_eq!(
        shop.state(won.reservation_id).await,
        ReservationState::Expired
    );
}

#[tokio::test(start_paused = true)]
async fn a_sale_that_left_memory_still_answers() {
    let config = EngineConfig {
        hash_key: HashKey(1, 2),
        retire_after: Duration::from_secs(60),
        ..EngineConfig::default()
    };
    let shop = Shop::with(MemoryStore::new(), config);
    shop.publish(sale(10)).await;
    let paid = shop.won("u1", "k1", &[("a", 2)]).await;
    let late = shop.won("u2", "k1", &[("a", 1)]).await;
    let broke = shop.won("u3", "k1", &[("a", 3), ("b", 5)]).await;
    shop.confirm(paid.reservation_id, "p1").await;
    shop.pass(Duration::from_secs(12)).await;
    shop.pass(Duration::from_secs(3_600 + 61)).await;
    let is_retired = |shop: &Shop| shop.engine.sale(&id("s1")).unwrap().is_retired();
    assert!(is_retired(&shop));
    let mut shop = shop;
    for restarted in [false, true] {
        if restarted {
            shop = shop.restart();
        }
        assert!(is_retired(&shop));
        let again = shop.buy("u1", "k1", &[("a", 2)]).await;
        assert_eq!(stands(&again).state, ReservationState::Confirmed);
        let other = shop.buy("u1", "k1", &[("a", 1)]).await;
        assert_eq!(refusal(&other), Refusal::IdempotencyKeyReused);
        assert_eq!(
            refusal(&shop.buy("u9", "k", &[("a", 1)]).await),
            Refusal::SaleEnded
        );
        assert_eq!(
            shop.state(broke.reservation_id).await,
            ReservationState::Expired
        );
        let theirs = shop
            .engine
            .reservation(Caller::Buyer(id("u2")), paid.reservation_id)
            .await;
        assert_eq!(theirs, Err(Refusal::NotFound));
        // Paid late: the units are taken again.
        let confirmed = shop.confirm(late.reservation_id, "p2").await;
        assert_eq!(stands(&confirmed).state, ReservationState::Confirmed);
        let reused = shop.confirm(broke.reservation_id, "p1").await;
        assert_eq!(refusal(&reused), Refusal::PaymentRefReused);
    }
    let request = flash_engine::RefundRequest {
        refund_ref: None,
        restock: true,
        lines: None,
    };
    let refunded = shop
        .engine
        .refund(paid.reservation_id, &request, shop.now())
        .await;
    assert_eq!(stands(&refunded).state, ReservationState::Refunded);
    assert_eq!(
        shop.state(paid.reservation_id).await,
        ReservationState::Refunded
    );
    shop.audited().await;
}
