//! What follows a reservation: paid, given up, run out, paid late, refunded; in every order.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected fails"
)]

mod common;

use std::time::Duration;

use common::{Shop, id, refusal, sale, stands};
use flash_engine::{Caller, RefundRequest};
use flash_types::*;

const CONFLICT: Refusal = Refusal::StateConflict { refund_due: false };
const DUE: Refusal = Refusal::StateConflict { refund_due: true };

fn refund(refund_ref: Option<&str>, restock: bool, lines: Option<&[(&str, u64)]>) -> RefundRequest {
    RefundRequest {
        refund_ref: refund_ref.map(id),
        restock,
        lines: lines.map(|lines| {
            lines
                .iter()
                .map(|(item, n)| (id(item), Quantity::of_line(*n).unwrap()))
                .collect()
        }),
    }
}

#[tokio::test(start_paused = true)]
async fn a_payment_is_taken_once() {
    let shop = Shop::open();
    shop.publish(sale(10)).await;
    let one = shop.won("u1", "k1", &[("a", 2)]).await.reservation_id;
    let two = shop.won("u2", "k1", &[("a", 1)]).await.reservation_id;
    // Another amount: a conflict, nothing is recorded, the same payment may come again.
    let told = shop
        .engine
        .confirm(one, &id("p1"), Some(Money(1)), shop.now())
        .await;
    assert_eq!(refusal(&told), CONFLICT);
    let paid = shop
        .engine
        .confirm(one, &id("p1"), Some(Money(200)), shop.now())
        .await;
    assert_eq!(stands(&paid).payment_ref, Some(id("p1")));
    assert_eq!(
        shop.confirm(one, "p1").await,
        paid,
        "the same payment again"
    );
    assert_eq!(
        refusal(&shop.confirm(one, "p2").await),
        DUE,
        "another payment for what is paid"
    );
    assert_eq!(refusal(&shop.confirm(one, "p2").await), DUE, "final");
    assert_eq!(
        refusal(&shop.confirm(two, "p1").await),
        Refusal::PaymentRefReused
    );
    assert_eq!(
        refusal(&shop.confirm(two, "p2").await),
        Refusal::PaymentRefReused
    );
    assert_eq!(refusal(&shop.cancel(one).await), CONFLICT);
    assert_eq!(shop.units(0), [0, 7, 1, 2]);
    // All of it is known after a restart.
    let shop = shop.restart();
    stands(&shop.confirm(one, "p1").await);
    assert_eq!(refusal(&shop.confirm(one, "p2").await), DUE);
    assert_eq!(
        refusal(&shop.confirm(two, "p2").await),
        Refusal::PaymentRefReused
    );
    shop.audited().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_paid_comes_back_within_a_second() {
    let shop = Shop::open();
    shop.publish(sale(1)).await;
    let won = shop.won("u1", "k1", &[("a", 1)]).await;
    shop.pass(Duration::from_millis(9_990)).await;
    assert_eq!(shop.units(0), [0, 0, 1, 0]);
    shop.pass(Duration::from_millis(1_000)).await;
    assert_eq!(shop.units(0), [0, 1, 0, 0]);
    assert_eq!(
        shop.state(won.reservation_id).await,
        ReservationState::Expired
    );
    assert_eq!(refusal(&shop.cancel(won.reservation_id).await), CONFLICT);
    // Its key stays spent: it answers with what it won.
    let again = shop.buy("u1", "k1", &[("a", 1)]).await;
    assert_eq!(stands(&again).state, ReservationState::Expired);
    shop.won("u1", "k2", &[("a", 1)]).await;
}

#[tokio::test(start_paused = true)]
async fn paid_late_takes_the_units_again_or_owes_the_money_back() {
    let shop = Shop::open();
    shop.publish(sale(4)).await;
    let early = shop.won("u1", "k1", &[("a", 3)]).await.reservation_id;
    let later = shop.won("u2", "k1", &[("a", 1)]).await.reservation_id;
    shop.pass(Duration::from_secs(11)).await;
    assert_eq!(shop.units(0), [0, 4, 0, 0]);
    shop.won("u3", "k1", &[("a", 2)]).await;
    // Three are not left: due back, for ever, whatever comes back later.
    assert_eq!(
        refusal(&shop.confirm(early, "p1").await),
        Refusal::ReservationExpired
    );
    let third = shop
        .engine
        .reservation_by_key(&id("s1"), &id("u3"), &id("k1"))
        .await
        .unwrap();
    shop.cancel(third.reservation_id).await;
    assert_eq!(
        refusal(&shop.confirm(early, "p1").await),
        Refusal::ReservationExpired
    );
    // Another payment of the same reservation is another decision.
    assert_eq!(
        stands(&shop.confirm(early, "p2").await).state,
        ReservationState::Confirmed
    );
    assert_eq!(
        stands(&shop.confirm(later, "p3").await).state,
        ReservationState::Confirmed
    );
    assert_eq!(shop.units(0), [0, 0, 0, 4]);
    let shop = shop.restart();
    assert_eq!(
        refusal(&shop.confirm(early, "p1").await),
        Refusal::ReservationExpired
    );
    shop.audited().await;
}

#[tokio::test(start_paused = true)]
async fn state_decides_not_the_clock() {
    let shop = Shop::open();
    shop.publish(sale(1)).await;
    let won = shop.won("u1", "k1", &[("a", 1)]).await.reservation_id;
    // The store is slow; meanwhile the payment window passes and the payment arrives.
    shop.store.hold();
    let _held = shop.buy("u2", "k1", &[("b", 1)]).await;
    shop.pass(Duration::from_secs(20)).await;
    let confirm = {
        let engine = shop.engine.clone();
        let now = shop.now();
        tokio::spawn(async move { engine.confirm(won, &id("p1"), None, now).await })
    };
    shop.pass(Duration::from_millis(20)).await;
    shop.store.release();
    assert_eq!(
        stands(&confirm.await.unwrap()).state,
        ReservationState::Confirmed
    );
    assert_eq!(shop.units(0), [0, 0, 0, 1]);
    let is_late = shop
        .store
        .entries()
        .iter()
        .find_map(|(_, entry)| match entry.change {
            flash_store::Change::Confirm { is_late, .. } => Some(is_late),
            _ => None,
        });
    assert_eq!(is_late, Some(false), "it was still reserved");
}

#[tokio::test(start_paused = true)]
async fn given_up_once_comes_back_once() {
    let shop = Shop::open();
    shop.publish(sale(3)).await;
    let won = shop.won("u1", "k1", &[("a", 2)]).await.reservation_id;
    let theirs = shop
        .engine
        .cancel(Caller::Buyer(id("u2")), won, shop.now())
        .await;
    assert_eq!(refusal(&theirs), Refusal::NotFound, "another buyer's");
    for _ in 0..3 {
        let told = shop
            .engine
            .cancel(Caller::Buyer(id("u1")), won, shop.now())
            .await;
        assert_eq!(stands(&told).state, ReservationState::Released);
    }
    assert_eq!(shop.units(0), [0, 3, 0, 0]);
    assert_eq!(refusal(&shop.confirm(won, "p1").await), DUE);
    let shop = shop.restart();
    assert_eq!(refusal(&shop.confirm(won, "p1").await), DUE);
    assert_eq!(shop.units(0), [0, 3, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn refunds_are_counted_per_line_and_per_name() {
    let shop = Shop::open();
    shop.publish(sale(10)).await;
    let won = shop
        .won("u1", "k1", &[("a", 3), ("b", 2)])
        .await
        .reservation_id;
    let try_refund =
        async |request: &RefundRequest| shop.engine.refund(won, request, shop.now()).await;
    assert_eq!(
        refusal(&try_refund(&refund(None, true, None)).await),
        CONFLICT,
        "not paid"
    );
    shop.confirm(won, "p1").await;
    let part = refund(Some("r1"), true, Some(&[("a", 1)]));
    let told = try_refund(&part).await;
    assert_eq!(stands(&told).lines[0].refunded_units, 1);
    assert_eq!(stands(&told).state, ReservationState::Confirmed);
    assert_eq!(try_refund(&part).await, told, "the same refund again");
    let other = refund(Some("r1"), true, Some(&[("a", 2)]));
    assert_eq!(
        refusal(&try_refund(&other).await),
        Refusal::IdempotencyKeyReused
    );
    let much = refund(Some("r2"), true, Some(&[("a", 3)]));
    assert_eq!(
        refusal(&try_refund(&much).await),
        CONFLICT,
        "more than is left"
    );
    // Restocked units can be sold again, also to the same buyer; the others cannot.
    assert_eq!(shop.units(0), [0, 8, 0, 2]);
    shop.won("u1", "k2", &[("a", 1)]).await;
    let kept = refund(Some("r3"), false, Some(&[("a", 1)]));
    stands(&try_refund(&kept).await);
    assert_eq!(
        shop.units(0),
        [0, 7, 1, 2],
        "without restock they stay sold"
    );
    let rest = try_refund(&refund(None, true, None)).await;
    assert_eq!(stands(&rest).state, ReservationState::Refunded);
    assert_eq!(try_refund(&refund(None, true, None)).await, rest);
    assert_eq!((shop.units(0), shop.units(1)), ([0, 8, 1, 1], [0, 5, 0, 0]));
    stands(&shop.confirm(won, "p1").await);
    let shop = shop.restart();
    let told = shop.engine.refund(won, &part, shop.now()).await;
    assert_eq!(
        stands(&told).state,
        ReservationState::Refunded,
        "known by name after a restart"
    );
    shop.audited().await;
}

#[tokio::test(start_paused = true)]
async fn an_open_reservation_keeps_its_grace_after_a_restart() {
    let shop = Shop::open();
    shop.publish(sale(1)).await;
    let won = shop.won("u1", "k1", &[("a", 1)]).await.reservation_id;
    shop.committer.abort();
    tokio::time::advance(Duration::from_secs(3_000)).await;
    let shop = shop.restart();
    shop.pass(Duration::from_secs(9)).await;
    assert_eq!(shop.state(won).await, ReservationState::Reserved);
    shop.pass(Duration::from_secs(2)).await;
    assert_eq!(shop.state(won).await, ReservationState::Expired);
}

#[tokio::test(start_paused = true)]
async fn one_transition_at_a_time_the_next_waits() {
    let shop = Shop::open();
    shop.publish(sale(1)).await;
    let won = shop.won("u1", "k1", &[("a", 1)]).await.reservation_id;
    shop.store.hold();
    let spawn_confirm = |payment: &'static str| {
        let engine = shop.engine.clone();
        let now = shop.now();
        tokio::spawn(async move { engine.confirm(won, &id(payment), None, now).await })
    };
    let first = spawn_confirm("p1");
    shop.pass(Duration::from_millis(50)).await;
    assert_eq!(shop.state(won).await, ReservationState::Unknown);
    let (same, other) = (spawn_confirm("p1"), spawn_confirm("p2"));
    let cancel = {
        let engine = shop.engine.clone();
        let now = shop.now();
        tokio::spawn(async move { engine.cancel(Caller::Storefront, won, now).await })
    };
    shop.pass(Duration::from_millis(50)).await;
    shop.store.release();
    assert_eq!(
        stands(&first.await.unwrap()).state,
        ReservationState::Confirmed
    );
    assert_eq!(
        stands(&same.await.unwrap()).state,
        ReservationState::Confirmed
    );
    assert_eq!(refusal(&other.await.unwrap()), DUE);
    assert_eq!(refusal(&cancel.await.unwrap()), CONFLICT);
    shop.audited().await;
}

#[tokio::test(start_paused = true)]
async fn stock_goes_up_and_down_once_per_key() {
    let shop = Shop::open();
    shop.publish(sale(5)).await;
    shop.won("u1", "k1", &[("a", 3)]).await;
    let change = async |shop: &Shop, key: &str, delta: i64| {
        shop.engine
            .change_stock(&id("s1"), &id("a"), &id(key), delta, "why", common::who())
            .await
    };
    assert_eq!(change(&shop, "t1", 10).await, Ok(10));
    assert_eq!(
        change(&shop, "t1", 10).await,
        Ok(10),
        "the same command again"
    );
    assert_eq!(shop.units(0), [0, 12, 3, 0]);
    assert!(change(&shop, "t1", 11).await.is_err());
    assert_eq!(
        change(&shop, "t2", -100).await,
        Ok(-12),
        "at most what is available"
    );
    assert_eq!(shop.units(0), [0, 0, 3, 0]);
    let shop = shop.restart();
    assert_eq!(change(&shop, "t2", -100).await, Ok(-12));
    assert!(
        change(&shop, "t3", i64::from(u32::MAX)).await.is_err(),
        "beyond what an item may have"
    );
    shop.audited().await;
}
