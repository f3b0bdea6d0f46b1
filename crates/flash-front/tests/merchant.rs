//! What a merchant does about mistakes: findings at publish, unpublish, another price, the difference to a later one.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may")]

mod common;

use common::*;
use flash_types::Timestamp;
use serde_json::{Value, json};

const ONE_A: &str = r#"{"item":"a","quantity":1}"#;

on_both_stores!(
    prices_that_look_like_mistakes_are_found_and_may_be_accepted,
    prices_are_held_against_other_sales,
    a_sale_is_unpublished_while_nothing_was_reserved,
    a_price_is_changed_while_the_sale_is_paused,
    a_long_list_of_buyers_at_the_old_price_goes_on_in_pages,
    differences_to_a_later_price_are_due_once,
);

fn told(answer: &Answer) -> (u16, String) {
    (answer.status, answer.outcome())
}

fn refused(status: u16, outcome: &str) -> (u16, String) {
    (status, outcome.to_owned())
}

fn draft(shop: &Shop, plan: &Value) {
    let made = shop.admin("POST", "/v1/admin/sales", &plan.to_string());
    assert_eq!(made.status, 201, "{made:?}");
}

fn publish(shop: &Shop, sale: &str, body: &str) -> Answer {
    shop.admin("POST", &format!("/v1/admin/sales/{sale}/publish"), body)
}

/// Code and item of each finding.
fn findings(answer: &Answer) -> Vec<[String; 2]> {
    assert_eq!(told(answer), refused(409, "price_guard"), "{answer:?}");
    let findings = answer.json()["findings"].as_array().unwrap().clone();
    let word = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    findings
        .iter()
        .map(|finding| {
            assert_eq!(finding.as_object().unwrap().len(), 3, "{finding}");
            assert!(word(finding, "detail").contains(&word(finding, "item")));
            [word(finding, "code"), word(finding, "item")]
        })
        .collect()
}

fn prices_that_look_like_mistakes_are_found_and_may_be_accepted(on: On) {
    let shop = Shop::open(on);
    let mut plan = plan("s1", 5);
    // 9.9 % of the list price; above the list price; under its own floor.
    plan["items"][0]["list_price_minor"] = json!(1_010);
    plan["items"][1]["list_price_minor"] = json!(49);
    plan["items"][1]["floor_price_minor"] = json!(51);
    draft(&shop, &plan);
    let all = [
        ["deep_discount", "a"],
        ["above_list_price", "b"],
        ["below_floor_price", "b"],
    ];
    let found = publish(&shop, "s1", "{}");
    assert_eq!(
        found.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(findings(&found), all);
    let draft = shop.admin("GET", "/v1/admin/sales/s1", "").json();
    assert_eq!(draft["state"], "draft");
    assert_eq!(shop.buyers().get("/v1/sales/s1").status, 404);
    // What is not accepted still stands in the way; an unknown word is none.
    let part = publish(
        &shop,
        "s1",
        r#"{"accept":["deep_discount","below_floor_price"]}"#,
    );
    assert_eq!(findings(&part), [["above_list_price", "b"]]);
    let unknown = publish(&shop, "s1", r#"{"accept":["deep_discount","cheap"]}"#);
    assert_eq!(told(&unknown), refused(400, "malformed"));
    let detail = unknown.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("\"cheap\"") && detail.contains("below_lowest_price_30d"),
        "{detail}"
    );
    let accept =
        r#"{"accept":["above_list_price","deep_discount","below_floor_price","deep_discount"]}"#;
    for _ in 0..2 {
        let published = publish(&shop, "s1", accept);
        assert_eq!(
            (published.status, &published.json()["state"]),
            (200, &json!("open"))
        );
    }
    // What was gone over, and by whom, stays known.
    poll("the notes are written", || {
        let notes = shop
            .admin("GET", "/v1/admin/audit-log?limit=200", "")
            .items();
        let is_there = |outcome: &str, part: &str| {
            notes.iter().any(|note| {
                note["command"] == "sale.publish"
                    && note["outcome"] == outcome
                    && note["who"] == "root"
                    && note["detail"].as_str().unwrap().contains(part)
            })
        };
        is_there("price_guard", "") && is_there("ok", "accepted deep_discount: a")
    });
}

fn prices_are_held_against_other_sales(on: On) {
    let shop = Shop::open(on);
    let hour = 3_600_000;
    shop.sale("past", 5);
    shop.sale_with("announced", 5, |plan| {
        plan["starts_at"] = json!(Timestamp(now().0 + hour));
        plan["ends_at"] = json!(Timestamp(now().0 + 2 * hour));
        plan["items"][0]["sale_price_minor"] = json!(120);
    });
    let mut cheaper = plan("cheaper", 5);
    cheaper["items"][0]["sale_price_minor"] = json!(99);
    draft(&shop, &cheaper);
    assert_eq!(
        findings(&publish(&shop, "cheaper", "")),
        [
            ["below_lowest_price_30d", "a"],
            ["undercuts_announced_sale", "a"]
        ]
    );
    // Of another currency, after the announced one: nothing to hold it against.
    let mut other = cheaper.clone();
    other["sale_id"] = json!("other");
    other["currency"] = json!("EUR");
    draft(&shop, &other);
    assert_eq!(publish(&shop, "other", "").status, 200);
    let mut later = cheaper.clone();
    later["sale_id"] = json!("later");
    later["starts_at"] = json!(Timestamp(now().0 + 3 * hour));
    later["ends_at"] = json!(Timestamp(now().0 + 4 * hour));
    draft(&shop, &later);
    assert_eq!(
        findings(&publish(&shop, "later", "")),
        [["below_lowest_price_30d", "a"]]
    );
    // The same price is not lower.
    let mut same = plan("same", 5);
    same["items"] = json!([same["items"][0]]);
    same["starts_at"] = later["starts_at"].clone();
    same["ends_at"] = later["ends_at"].clone();
    draft(&shop, &same);
    assert_eq!(publish(&shop, "same", "").status, 200);
}

fn a_sale_is_unpublished_while_nothing_was_reserved(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 5);
    let unpublish =
        |sale: &str| shop.admin("POST", &format!("/v1/admin/sales/{sale}/unpublish"), "{}");
    // Tried and refused is not reserved.
    assert_eq!(
        shop.buy("s1", "u1", "k1", r#"{"item":"a","quantity":6}"#)
            .status,
        409
    );
    for _ in 0..2 {
        let draft = unpublish("s1");
        assert_eq!(
            (draft.status, &draft.json()["state"]),
            (200, &json!("draft")),
            "{draft:?}"
        );
        assert_eq!(draft.json()["units"][0]["unreleased_units"], 5);
        assert_eq!(draft.json()["units"][0]["available_units"], 0);
    }
    assert_eq!(shop.buyers().get("/v1/sales/s1").status, 404);
    assert_eq!(
        told(&shop.buy("s1", "u1", "k1", ONE_A)),
        refused(404, "not_found")
    );
    // A draft like any other: corrected, and published again.
    let mut corrected = plan("s1", 7);
    corrected["items"][0]["sale_price_minor"] = json!(150);
    let replaced = shop.admin("PUT", "/v1/admin/sales/s1", &corrected.to_string());
    assert_eq!(replaced.status, 200, "{replaced:?}");
    assert_eq!(publish(&shop, "s1", "").json()["state"], "open");
    let won = shop.buy("s1", "u1", "k1", ONE_A);
    assert_eq!(
        (won.status, &won.json()["amount_minor"]),
        (201, &json!(150))
    );
    let id = won.json()["reservation_id"].as_str().unwrap().to_owned();
    // Somebody has it, or had.
    let late = unpublish("s1");
    assert_eq!(told(&late), refused(409, "state_conflict"));
    let detail = late.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("reserved"), "{detail}");
    let cancel = format!("/v1/reservations/{id}/cancel");
    assert_eq!(shop.storefront("POST", &cancel, "{}").status, 200);
    assert_eq!(told(&unpublish("s1")), refused(409, "state_conflict"));
    // The refusal stopped nothing.
    assert_eq!(shop.buy("s1", "u2", "k1", ONE_A).status, 201);
    assert_eq!(told(&unpublish("none")), refused(404, "not_found"));
    shop.sale_with("s2", 5, |plan| {
        plan["items"][0]["sale_price_minor"] = json!(150)
    });
    let close = shop.admin("POST", "/v1/admin/sales/s2/close", "");
    assert_eq!(close.status, 200);
    assert_eq!(told(&unpublish("s2")), refused(409, "state_conflict"));
    let audit = shop.admin("GET", "/v1/admin/sales/s1/audit", "").json();
    assert_eq!(audit["ok"], true, "{audit}");
}

fn change_price(shop: &Shop, item: &str, price: i64) -> Answer {
    let body = json!({"sale_price_minor": price, "reason": "a digit was missing"});
    let path = format!("/v1/admin/sales/s1/items/{item}/price");
    shop.admin("PUT", &path, &body.to_string())
}

fn a_price_is_changed_while_the_sale_is_paused(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 20);
    let id_of = |answer: &Answer| answer.json()["reservation_id"].as_str().unwrap().to_owned();
    let first = shop.buy("s1", "u1", "k1", r#"{"item":"a","quantity":2}"#);
    let lines = r#"{"lines":[{"item":"a","quantity":1},{"item":"b","quantity":1}]}"#;
    let second = shop.buy("s1", "u2", "k1", lines);
    let of_b = shop.buy("s1", "u3", "k1", r#"{"item":"b","quantity":1}"#);
    assert_eq!([first.status, second.status, of_b.status], [201; 3]);
    let open = change_price(&shop, "a", 190);
    assert_eq!(told(&open), refused(409, "state_conflict"));
    assert!(
        open.json()["detail"].as_str().unwrap().contains("pause"),
        "{open:?}"
    );
    assert_eq!(
        shop.admin("POST", "/v1/admin/sales/s1/pause", "").status,
        200
    );
    for before in [100, 190] {
        let changed = change_price(&shop, "a", 190);
        assert_eq!(changed.status, 200, "{changed:?}");
        let changed = changed.json();
        assert_eq!(
            [
                &changed["item"],
                &changed["old_price_minor"],
                &changed["sale_price_minor"]
            ],
            [&json!("a"), &json!(before), &json!(190)]
        );
        assert_eq!(changed["findings"], json!([]));
        // Who bought at the old one, told again.
        assert_eq!(
            changed["reservations"],
            json!([first.json(), second.json()])
        );
        assert_eq!(changed["next_cursor"], Value::Null);
    }
    assert_eq!(
        told(&change_price(&shop, "zzz", 190)),
        refused(404, "not_found")
    );
    let sale = shop.buyers().get("/v1/sales/s1").json();
    assert_eq!(sale["items"][0]["sale_price_minor"], 190);
    assert_eq!(
        shop.admin("GET", "/v1/admin/sales/s1", "").json()["items"][0]["sale_price_minor"],
        190
    );
    assert_eq!(
        shop.admin("POST", "/v1/admin/sales/s1/resume", "").status,
        200
    );
    // For new reservations only.
    let new = shop.buy("s1", "u4", "k1", r#"{"item":"a","quantity":2}"#);
    assert_eq!(
        (new.status, &new.json()["amount_minor"]),
        (201, &json!(380))
    );
    let again = shop.buy("s1", "u1", "k1", r#"{"item":"a","quantity":2}"#);
    assert_eq!((again.status, again.json()), (200, first.json()));
    let confirm = format!("/v1/reservations/{}/confirm", id_of(&first));
    let paid = shop.storefront(
        "POST",
        &confirm,
        r#"{"payment_ref":"p1","amount_minor":200}"#,
    );
    assert_eq!(paid.status, 200, "{paid:?}");
    // The same list by itself.
    let list = |item: &str, price: i64| {
        let path =
            format!("/v1/admin/sales/s1/reservations?item={item}&not_at_price_minor={price}");
        shop.admin("GET", &path, "").items()
    };
    assert_eq!(list("a", 190), [paid.json(), second.json()]);
    assert_eq!(list("a", 100), [new.json()]);
    assert_eq!(list("b", 50), Vec::<Value>::new());
    for (query, status) in [
        ("item=a", 400),
        ("not_at_price_minor=1", 400),
        ("item=a&not_at_price_minor=x", 400),
        ("item=a%20b&not_at_price_minor=1", 400),
        ("item=zzz&not_at_price_minor=1", 404),
    ] {
        let path = format!("/v1/admin/sales/s1/reservations?{query}");
        assert_eq!(shop.admin("GET", &path, "").status, status, "{query}");
    }
    let events = shop
        .storefront("GET", "/v1/sales/s1/events/log?limit=200", "")
        .items();
    let changes: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "sale.price_changed")
        .map(|event| &event["data"])
        .collect();
    assert_eq!(
        changes,
        [
            &json!({"item": "a", "old_price_minor": 100, "sale_price_minor": 190,
                 "reason": "a digit was missing"})
        ]
    );
}

fn a_long_list_of_buyers_at_the_old_price_goes_on_in_pages(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 500);
    let mut buyers = shop.buyers();
    for number in 0..201 {
        let won = buyers.buy("s1", &format!("u{number}"), "k", ONE_A);
        assert_eq!(won.status, 201);
    }
    assert_eq!(
        shop.admin("POST", "/v1/admin/sales/s1/pause", "").status,
        200
    );
    let changed = change_price(&shop, "a", 1).json();
    assert_eq!(changed["reservations"].as_array().unwrap().len(), 200);
    let cursor = changed["next_cursor"].as_str().unwrap();
    let path =
        format!("/v1/admin/sales/s1/reservations?item=a&not_at_price_minor=1&cursor={cursor}");
    let rest = shop.admin("GET", &path, "");
    assert_eq!(rest.items().len(), 1);
    assert_eq!(rest.items()[0]["buyer_id"], "u200");
    assert_eq!(rest.json()["next_cursor"], Value::Null);
}

/// Buys, pays, and gives the reservation.
fn paid(shop: &Shop, sale: &str, buyer: &str, body: &str) -> Value {
    let won = shop.buy(sale, buyer, "k", body);
    assert_eq!(won.status, 201, "{won:?}");
    let path = format!("{}/confirm", won.header("location").unwrap());
    let paid = shop.storefront("POST", &path, &format!(r#"{{"payment_ref":"p-{buyer}"}}"#));
    assert_eq!(paid.status, 200, "{paid:?}");
    paid.json()
}

fn differences_to_a_later_price_are_due_once(on: On) {
    let shop = Shop::open(on);
    shop.sale("bare", 5);
    shop.sale_with("s1", 20, |plan| plan["price_protection_days"] = json!(7));
    let path = "/v1/admin/sales/s1/price-protection";
    let dear = paid(&shop, "s1", "u1", r#"{"item":"a","quantity":2}"#);
    paid(&shop, "s1", "u2", r#"{"item":"b","quantity":1}"#);
    let part = paid(&shop, "s1", "u3", r#"{"item":"a","quantity":3}"#);
    assert_eq!(shop.buy("s1", "unpaid", "k", ONE_A).status, 201);
    let refund = format!(
        "/v1/reservations/{}/refund",
        part["reservation_id"].as_str().unwrap()
    );
    let refund = shop.storefront(
        "POST",
        &refund,
        r#"{"restock":false,"refund_ref":"r","lines":[{"item":"a","quantity":2}]}"#,
    );
    assert_eq!(refund.status, 200, "{refund:?}");
    assert_eq!(shop.admin("GET", path, "").items(), Vec::<Value>::new());

    let mut later = plan("s2", 5);
    later["items"][0]["sale_price_minor"] = json!(70);
    later["starts_at"] = json!(now());
    draft(&shop, &later);
    let accept = r#"{"accept":["below_lowest_price_30d"]}"#;
    assert_eq!(publish(&shop, "s2", accept).status, 200);
    let due = |reservation: &Value, quantity: i64| {
        json!({
            "reservation_id": reservation["reservation_id"], "buyer_id": reservation["buyer_id"],
            "payment_ref": reservation["payment_ref"], "item": "a", "quantity": quantity,
            "unit_price_minor": 100, "later_price_minor": 70, "later_sale_id": "s2",
            "amount_minor": 30 * quantity,
        })
    };
    let both = vec![due(&dear, 2), due(&part, 1)];
    // A look tells nobody.
    for _ in 0..2 {
        let look = shop.admin("GET", path, "");
        assert_eq!(
            (look.items(), &look.json()["emitted"]),
            (both.clone(), &json!(0))
        );
    }
    // Page by page, as the reservations are.
    let mut told_to = Vec::new();
    let (mut cursor, mut pages) = (String::new(), 0);
    loop {
        let page = shop.admin("POST", &format!("{path}?limit=1{cursor}"), "{}");
        let items = page.items();
        assert_eq!(page.json()["emitted"], items.len());
        told_to.extend(items);
        pages += 1;
        match page.json()["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(told_to, both);
    assert!(pages >= 3, "{pages}");
    // Once.
    let again = shop.admin("POST", path, "{}");
    assert_eq!(
        (again.items(), &again.json()["emitted"]),
        (vec![], &json!(0))
    );
    let events = shop
        .storefront("GET", "/v1/sales/s1/events/log?limit=200", "")
        .items();
    let events_told: Vec<_> = events
        .iter()
        .filter(|event| event["type"] == "reservation.refund_due")
        .map(|event| event["data"]["refund_due"].clone())
        .collect();
    let due = |payment: &str, quantity: i64| {
        json!({"reason": "price_protection", "payment_ref": payment, "amount_minor": 30 * quantity,
               "item": "a", "quantity": quantity, "unit_price_minor": 100,
               "later_price_minor": 70, "later_sale_id": "s2"})
    };
    assert_eq!(events_told, [due("p-u1", 2), due("p-u3", 1)]);
    // A sale that protects nothing says so.
    for method in ["GET", "POST"] {
        let bare = shop.admin(method, "/v1/admin/sales/bare/price-protection", "");
        assert_eq!(told(&bare), refused(409, "state_conflict"));
        assert!(
            bare.json()["detail"]
                .as_str()
                .unwrap()
                .contains("price_protection_days")
        );
        let none = shop.admin(method, "/v1/admin/sales/none/price-protection", "");
        assert_eq!(told(&none), refused(404, "not_found"));
    }
}
