//! Prices that look like mistakes when a sale is published, and differences that are due when an item became cheaper.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected fails"
)]

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{NOON, Shop, both, id, sale, stands, who};
use flash_engine::{AdminRefusal, PriceCode, Protected, RefundRequest, SaleCommand};
use flash_store::EventPlace;
use flash_types::*;
use serde_json::{Value, json};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A sale of item `a` alone.
fn plan(name: &str, price: i64, starts_at: Timestamp) -> Value {
    json!({
        "sale_id": name, "title": "Sale", "starts_at": starts_at,
        "ends_at": starts_at.plus(Duration::from_secs(3600)), "currency": "CNY", "payment_window_s": 10,
        "items": [{"item": "a", "title": "A", "sale_price_minor": price, "stock_units": 10}]
    })
}

fn codes(shop: &Shop, plan: &Value, wall: Timestamp) -> Vec<PriceCode> {
    let plan: SaleDefinition = serde_json::from_value(plan.clone()).unwrap();
    let findings = shop.engine.findings(&plan, wall);
    findings.iter().map(|finding| finding.code).collect()
}

/// Publishes whatever its prices are.
async fn publish(shop: &Shop, plan: Value) {
    let definition: SaleDefinition = serde_json::from_value(plan).unwrap();
    let name = definition.sale_id;
    let engine = &shop.engine;
    engine.put_draft(definition, false, who()).await.unwrap();
    engine.publish(&name, &PriceCode::ALL, who()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_price_is_held_against_its_own_list_price_and_floor() {
    let shop = Shop::open();
    let found = |price: i64, field: &str, other: i64| {
        let mut plan = plan("new", price, NOON);
        plan["items"][0][field] = json!(other);
        codes(&shop, &plan, NOON)
    };
    assert_eq!(
        found(101, "list_price_minor", 100),
        [PriceCode::AboveListPrice]
    );
    assert_eq!(found(100, "list_price_minor", 100), []);
    assert_eq!(
        found(99, "list_price_minor", 1_000),
        [PriceCode::DeepDiscount]
    );
    assert_eq!(
        found(100, "list_price_minor", 1_000),
        [],
        "90 % is not more"
    );
    assert_eq!(found(0, "list_price_minor", 0), []);
    let most = bounds::PRICE_MINOR_MAX;
    assert_eq!(found(most, "list_price_minor", most), []);
    assert_eq!(found(99, "floor_price_minor", 100), [PriceCode::BelowFloor]);
    assert_eq!(found(100, "floor_price_minor", 100), []);
}

#[tokio::test(start_paused = true)]
async fn a_price_is_held_against_the_lowest_of_thirty_days() {
    let shop = Shop::open();
    publish(&shop, plan("old", 100, NOON)).await;
    let ended = NOON.plus(Duration::from_secs(3600));
    let at = |price: i64, wall: Timestamp| codes(&shop, &plan("new", price, wall), wall);
    let hit = [PriceCode::BelowLowestPrice];
    assert_eq!(at(99, NOON), hit, "from its start on");
    assert_eq!(at(99, ended), hit);
    let last = ended.plus(DAY * 30);
    assert_eq!(at(99, Timestamp(last.0 - 1)), hit);
    assert_eq!(at(99, last), []);
    assert_eq!(at(100, ended), [], "as low is not lower");
    let mut other = plan("new", 99, NOON);
    other["currency"] = json!("USD");
    assert_eq!(codes(&shop, &other, ended), [], "another currency");
    other = plan("new", 99, NOON);
    other["items"][0]["item"] = json!("b");
    assert_eq!(codes(&shop, &other, ended), [], "another item");
    // The lowest of several, and by the corrected price; the sale itself does not count.
    publish(&shop, plan("older", 90, Timestamp(NOON.0 - 3_000_000))).await;
    assert_eq!(at(95, NOON), []);
    assert_eq!(at(89, NOON), hit);
    assert_eq!(
        codes(&shop, &plan("older", 95, NOON), NOON),
        hit,
        "under `old`"
    );
    assert_eq!(codes(&shop, &plan("old", 95, NOON), NOON), [], "not itself");
    let (engine, older, item) = (&shop.engine, id("older"), id("a"));
    let pause = engine.command(&older, SaleCommand::Pause, who()).await;
    pause.unwrap();
    engine
        .change_price(&older, &item, Money(80), "why", who())
        .await
        .unwrap();
    assert_eq!(at(85, NOON), []);
}

#[tokio::test(start_paused = true)]
async fn a_price_is_held_against_sales_that_are_announced() {
    let shop = Shop::open();
    let starts = NOON.plus(DAY);
    let draft: SaleDefinition = serde_json::from_value(plan("soon", 100, starts)).unwrap();
    shop.engine.put_draft(draft, false, who()).await.unwrap();
    let before = Timestamp(starts.0 - 1);
    let at = |price: i64, from: Timestamp| codes(&shop, &plan("new", price, from), NOON);
    assert_eq!(at(99, before), [], "a draft is not announced");
    let published = shop.engine.publish(&id("soon"), &[], who()).await;
    published.unwrap();
    assert_eq!(at(99, before), [PriceCode::UndercutsAnnounced]);
    assert_eq!(at(100, before), [], "as low is not lower");
    assert_eq!(at(99, starts), [], "not before it");
    let mut other = plan("new", 99, before);
    other["currency"] = json!("USD");
    assert_eq!(codes(&shop, &other, NOON), []);
    other = plan("new", 99, before);
    other["items"][0]["item"] = json!("b");
    assert_eq!(codes(&shop, &other, NOON), []);
    shop.engine
        .command(&id("soon"), SaleCommand::Close, who())
        .await
        .unwrap();
    assert_eq!(at(99, before), [], "it will not be");
}

#[tokio::test(start_paused = true)]
async fn what_was_found_stops_the_publish_until_it_is_accepted() {
    for shop in both() {
        let mut definition = plan("s1", 5, NOON);
        definition["items"][0]["list_price_minor"] = json!(1_000);
        definition["items"][0]["floor_price_minor"] = json!(50);
        let definition: SaleDefinition = serde_json::from_value(definition).unwrap();
        let (engine, name) = (&shop.engine, id("s1"));
        engine.put_draft(definition, false, who()).await.unwrap();
        let refused = async |accepted: &[PriceCode]| match engine
            .publish(&name, accepted, who())
            .await
            .map(|_| ())
        {
            Err(AdminRefusal::PriceGuard(open)) => {
                open.iter().map(|finding| finding.code).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        let (deep, floor) = (PriceCode::DeepDiscount, PriceCode::BelowFloor);
        assert_eq!(refused(&[]).await, [deep, floor]);
        assert_eq!(refused(&[deep]).await, [floor], "each by itself");
        let draft = engine.sale(&name).unwrap();
        assert_eq!(draft.state(), SaleState::Draft);
        engine.publish(&name, &[floor, deep], who()).await.unwrap();
        assert_eq!(engine.sale(&name).unwrap().state(), SaleState::Open);
        let notes = engine.admin_notes(0, 100).await.unwrap();
        let note = notes
            .iter()
            .find(|(_, note)| note.command == "sale.publish");
        let detail = &note.unwrap().1.detail;
        assert!(detail.contains("accepted deep_discount"), "{detail}");
        assert!(detail.contains("accepted below_floor_price"), "{detail}");
    }
}

/// Sale `s1` as everywhere, with prices protected for a day.
fn protected() -> Value {
    let mut definition = sale(10);
    definition["price_protection_days"] = json!(1);
    definition
}

async fn bought(shop: &Shop, buyer: &str, units: u64) -> Reservation {
    let won = shop.won(buyer, "k1", &[("a", units)]).await;
    stands(&shop.confirm(won.reservation_id, buyer).await);
    won
}

async fn protection(shop: &Shop, is_told: bool) -> Protected {
    let who = is_told.then(who);
    let told = shop.engine.protection(&id("s1"), Serial(0), 100, who).await;
    told.unwrap()
}

/// Buyer, units, difference, later sale.
fn due(told: &Protected) -> Vec<(String, u32, i64, String)> {
    let due = told.items.iter().map(|due| {
        (
            due.buyer_id.to_string(),
            due.quantity,
            due.amount_minor.0,
            due.later_sale_id.to_string(),
        )
    });
    due.collect()
}

fn of(buyer: &str, units: u32, amount: i64, sale: &str) -> (String, u32, i64, String) {
    (buyer.into(), units, amount, sale.into())
}

fn move_wall(shop: &Shop, by: Duration) {
    let ms = i64::try_from(by.as_millis()).unwrap();
    shop.clock.wall_offset_ms.store(ms, Ordering::Relaxed);
}

#[tokio::test(start_paused = true)]
async fn who_paid_more_is_due_the_difference_once() {
    for shop in both() {
        shop.publish(protected()).await;
        bought(&shop, "u1", 2).await;
        let part = bought(&shop, "u2", 2).await;
        let all = bought(&shop, "u3", 1).await;
        shop.won("u4", "k1", &[("a", 1)]).await;
        let refund = |units: Option<u64>| RefundRequest {
            refund_ref: units.map(|_| id("r1")),
            restock: true,
            lines: units.map(|units| {
                let units = Quantity::of_line(units).unwrap();
                [(id("a"), units)].into_iter().collect()
            }),
        };
        let (engine, now) = (&shop.engine, shop.now());
        stands(
            &engine
                .refund(part.reservation_id, &refund(Some(1)), now)
                .await,
        );
        stands(&engine.refund(all.reservation_id, &refund(None), now).await);
        let later = NOON.plus(Duration::from_secs(60));
        publish(&shop, plan("s2", 80, later)).await;
        let mut other = plan("s3", 10, later);
        other["currency"] = json!("USD");
        publish(&shop, other).await;
        assert_eq!(due(&protection(&shop, false).await), [], "not started");
        shop.pass(Duration::from_secs(61)).await;
        let both = [of("u1", 2, 40, "s2"), of("u2", 1, 20, "s2")];
        assert_eq!(due(&protection(&shop, false).await), both);
        let told = protection(&shop, true).await;
        assert_eq!((due(&told), told.emitted), (both.to_vec(), 2));
        let told = protection(&shop, true).await;
        assert_eq!((due(&told), told.emitted), (vec![], 0), "twice in a row");
        let shop = shop.restart();
        // Cheaper still: each item of a reservation once.
        publish(&shop, plan("s4", 70, shop.now().wall)).await;
        let told = protection(&shop, true).await;
        assert_eq!((due(&told), told.emitted), (vec![], 0), "restarted");
        let events = shop
            .engine
            .events(&id("s1"), EventPlace::default(), 100)
            .await
            .unwrap();
        let due: Vec<_> = events
            .iter()
            .filter(|event| event.kind == "reservation.refund_due")
            .map(|event| {
                let due = &event.data["refund_due"];
                assert_eq!(due["reason"], "price_protection");
                assert_eq!(due["payment_ref"], event.data["buyer_id"]);
                assert_eq!(event.data["state"], "confirmed");
                let refunded = &event.data["lines"][0]["refunded_units"];
                (due["amount_minor"].clone(), refunded.clone())
            })
            .collect();
        assert_eq!(due, [(json!(40), json!(0)), (json!(20), json!(1))]);
        shop.audited().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_price_at_which_nothing_was_ever_for_sale_counts_nowhere() {
    let shop = Shop::open();
    shop.publish(protected()).await;
    bought(&shop, "u1", 1).await;
    let later = NOON.plus(Duration::from_secs(60));
    publish(&shop, plan("s2", 80, later)).await;
    shop.engine
        .command(&id("s2"), SaleCommand::Close, who())
        .await
        .unwrap();
    shop.pass(Duration::from_secs(61)).await;
    assert_eq!(due(&protection(&shop, true).await), []);
    let mut new = plan("new", 85, NOON);
    assert_eq!(codes(&shop, &new, later), [PriceCode::BelowLowestPrice]);
    new["items"][0]["sale_price_minor"] = json!(100);
    assert_eq!(codes(&shop, &new, later), []);
    new["items"][0]["sale_price_minor"] = json!(79);
    let plan: SaleDefinition = serde_json::from_value(new).unwrap();
    let found = shop.engine.findings(&plan, later);
    assert!(found[0].detail.contains("100 in s1"), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn the_window_of_protection_has_edges() {
    for (offset_ms, is_due) in [
        (0, false),
        (1, true),
        (86_400_000, true),
        (86_400_001, false),
    ] {
        let shop = Shop::open();
        shop.publish(protected()).await;
        let won = bought(&shop, "u1", 1).await;
        move_wall(&shop, DAY + Duration::from_secs(60));
        let starts_at = Timestamp(won.created_at.0 + offset_ms);
        let mut cheaper = plan("s2", 80, starts_at);
        cheaper["ends_at"] = json!(NOON.plus(DAY * 3));
        publish(&shop, cheaper).await;
        let expected = if is_due {
            vec![of("u1", 1, 20, "s2")]
        } else {
            vec![]
        };
        assert_eq!(
            due(&protection(&shop, false).await),
            expected,
            "{offset_ms}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_corrected_price_of_the_sale_itself_counts_and_one_that_is_over_does_not() {
    let shop = Shop::open();
    shop.publish(protected()).await;
    bought(&shop, "u1", 1).await;
    shop.command(SaleCommand::Pause).await;
    shop.engine
        .change_price(&id("s1"), &id("a"), Money(70), "too dear", who())
        .await
        .unwrap();
    shop.command(SaleCommand::Resume).await;
    bought(&shop, "u2", 1).await;
    let own = [of("u1", 1, 30, "s1")];
    assert_eq!(due(&protection(&shop, false).await), own);
    move_wall(&shop, DAY + Duration::from_secs(60));
    assert_eq!(due(&protection(&shop, false).await), [], "a day is over");
    let mut plain = sale(1);
    plain["sale_id"] = json!("s9");
    plain["ends_at"] = json!(NOON.plus(DAY * 9));
    publish(&shop, plain).await;
    let told = shop
        .engine
        .protection(&id("s9"), Serial(0), 100, Some(who()))
        .await;
    assert!(matches!(told, Err(AdminRefusal::Conflict(_))), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sale_that_left_memory_protects_its_prices_too() {
    let shop = Shop::open();
    let mut definition = protected();
    definition["price_protection_days"] = json!(2);
    shop.publish(definition).await;
    bought(&shop, "u1", 2).await;
    bought(&shop, "u2", 1).await;
    move_wall(&shop, DAY + Duration::from_secs(3_700));
    shop.pass(Duration::from_secs(1)).await;
    assert!(shop.engine.sale(&id("s1")).unwrap().is_retired());
    publish(&shop, plan("s2", 80, shop.now().wall)).await;
    let both = [of("u1", 2, 40, "s2"), of("u2", 1, 20, "s2")];
    let told = protection(&shop, true).await;
    assert_eq!((due(&told), told.emitted), (both.to_vec(), 2));
    assert_eq!(protection(&shop, true).await.emitted, 0);
    let shop = shop.restart();
    assert_eq!(protection(&shop, true).await.emitted, 0);
    shop.audited().await;
}
