//! The engine as the side services see it.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected fails"
)]

mod common;

use std::time::Duration;

use common::{Shop, both, id, sale, who};
use flash_engine::{Caller, Desk, RefundRequest, SaleCommand};
use flash_types::side::{DeskEvent, SaleDesk as _};
use flash_types::*;

/// All events, a few at a time, each page after the last event of the one before.
async fn told(desk: &Desk, limit: usize) -> Vec<DeskEvent> {
    let mut told: Vec<DeskEvent> = Vec::new();
    loop {
        let after = told.last().map(|event| event.id.clone());
        let page = desk.events(after.as_deref(), limit).await.unwrap();
        if page.is_empty() {
            return told;
        }
        assert!(page.len() <= limit);
        told.extend(page);
    }
}

#[tokio::test(start_paused = true)]
async fn events_come_in_pages_each_once_with_the_reservation_as_it_stood() {
    for shop in both() {
        shop.publish(sale(5)).await;
        let won = shop.won("u1", "k1", &[("a", 2)]).await;
        shop.confirm(won.reservation_id, "p1").await;
        let refund = RefundRequest {
            refund_ref: Some(id("f1")),
            restock: true,
            lines: Some(std::iter::once((id("a"), Quantity::of_line(1).unwrap())).collect()),
        };
        shop.engine
            .refund(won.reservation_id, &refund, shop.now())
            .await;
        let gone = shop.won("u2", "k2", &[("b", 1)]).await;
        shop.engine
            .cancel(Caller::Storefront, gone.reservation_id, shop.now())
            .await;
        let desk = Desk::new(shop.engine.clone());
        let all = told(&desk, 100).await;
        let kinds: Vec<&str> = all.iter().map(|event| event.kind.as_str()).collect();
        let reservations: Vec<&str> = kinds
            .iter()
            .copied()
            .filter(|kind| kind.starts_with("reservation."))
            .collect();
        assert_eq!(
            reservations,
            [
                "reservation.reserved",
                "reservation.confirmed",
                "reservation.refunded",
                "reservation.reserved",
                "reservation.released"
            ]
        );
        let refunded = &all[kinds
            .iter()
            .position(|kind| *kind == "reservation.refunded")
            .unwrap()];
        assert_eq!(refunded.data["refund"]["refund_ref"], "f1");
        assert_eq!(refunded.data["lines"][0]["refunded_units"], 1);
        assert_eq!(told(&Desk::new(shop.engine.clone()), 1).await, all);
        assert_eq!(told(&Desk::new(shop.engine.clone()), 3).await, all);
    }
}

#[tokio::test(start_paused = true)]
async fn ids_that_name_no_event_of_ours_are_not_found() {
    let shop = Shop::open();
    shop.publish(sale(5)).await;
    let desk = Desk::new(shop.engine.clone());
    for bad in ["", "x", "e1", "e01-1-1", "e9-1-1", "r1-1"] {
        assert_eq!(
            desk.events(Some(bad), 9).await,
            Err(Refusal::NotFound),
            "{bad}"
        );
    }
    // An event that is not there any more has a place all the same.
    assert_ne!(desk.events(Some("e1-0-1"), 9).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn whoever_has_everything_does_not_read_the_store_until_something_came() {
    let shop = Shop::open();
    shop.publish(sale(5)).await;
    let desk = Desk::new(shop.engine.clone());
    let before = shop.store.snapshot();
    let last = told(&desk, 100).await.pop().unwrap().id;
    shop.won("u1", "k1", &[("a", 1)]).await;
    let after = shop.store.snapshot();
    // The store changes behind the engine's back, so that a read shows by what it finds.
    shop.store.restore(&before);
    assert_eq!(desk.events(Some(&last), 9).await, Ok(Vec::new()));
    shop.store.restore(&after);
    assert_eq!(desk.events(Some(&last), 9).await, Ok(Vec::new()));
    // Another place is another question.
    let all = desk.events(None, 9).await.unwrap();
    assert_eq!(all.last().unwrap().kind, "reservation.reserved");
    // Once in a while it is read without a mark having moved: other nodes move none of ours.
    shop.pass(Duration::from_secs(6)).await;
    assert_eq!(desk.events(Some(&last), 9).await.unwrap().len(), 1);
    // And at once when one has.
    let last = all.last().unwrap().id.clone();
    assert_eq!(desk.events(Some(&last), 9).await, Ok(Vec::new()));
    shop.won("u2", "k2", &[("a", 1)]).await;
    assert_eq!(desk.events(Some(&last), 9).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_draft_is_nobodys_business() {
    let shop = Shop::open();
    let definition: SaleDefinition = serde_json::from_value(sale(5)).unwrap();
    shop.engine
        .put_draft(definition, false, who())
        .await
        .unwrap();
    let desk = Desk::new(shop.engine.clone());
    assert_eq!(desk.sale(&id("s1")), None);
    assert_eq!(desk.sale(&id("s2")), None);
    shop.command(SaleCommand::Publish).await;
    let shown = desk.sale(&id("s1")).unwrap();
    assert_eq!(
        (shown.title.as_str(), shown.state),
        ("Sale", SaleState::Open)
    );
}
