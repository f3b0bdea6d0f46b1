//! What a shop's server reads to catch up, and more time to pay: the event log, the lists, extend.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may")]

mod common;

use common::*;
use serde_json::{Value, json};

const ONE_A: &str = r#"{"item":"a","quantity":1}"#;

on_both_stores!(
    the_event_log_tells_everything_once_in_order,
    operators_read_the_events_of_all_sales,
    reservations_are_found_by_change_payment_and_state,
    a_reservation_is_extended_once,
    an_extension_moves_the_end,
    bad_parameters_are_malformed,
);

fn told(answer: &Answer) -> (u16, String) {
    (answer.status, answer.outcome())
}

fn refused(status: u16, outcome: &str) -> (u16, String) {
    (status, outcome.to_owned())
}

fn types(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect()
}

/// Follows a log page by page, as a shop does that keeps the last id.
fn follow(read: impl Fn(&str) -> Answer, limit: usize) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let after = all.last().map_or(String::new(), |last| {
            format!("&after={}", last["id"].as_str().unwrap())
        });
        let page = read(&format!("limit={limit}{after}"));
        let items = page.items();
        assert!(items.len() <= limit);
        let next = page.json()["next_cursor"].clone();
        let last = items.last().map(|last| last["id"].clone());
        all.extend(items);
        if next.is_null() {
            return all;
        }
        assert_eq!(Some(next), last);
    }
}

fn place(event: &Value) -> (u64, u64) {
    let part = |name: &str| event[name].as_u64().unwrap();
    (part("generation"), part("sequence"))
}

/// Buys; gives the path of the reservation.
fn won(shop: &Shop, sale: &str, buyer: &str) -> String {
    let won = shop.buy(sale, buyer, "k", ONE_A);
    assert_eq!(won.status, 201, "{won:?}");
    won.header("location").unwrap().to_owned()
}

fn post(shop: &Shop, path: &str, verb: &str, body: &str) -> Answer {
    shop.storefront("POST", &format!("{path}/{verb}"), body)
}

fn the_event_log_tells_everything_once_in_order(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 10);
    shop.sale("other", 10);
    let first = won(&shop, "s1", "u1");
    let second = won(&shop, "s1", "u2");
    won(&shop, "other", "u1");
    assert_eq!(post(&shop, &second, "cancel", "{}").status, 200);
    assert_eq!(
        post(&shop, &second, "confirm", r#"{"payment_ref":"late"}"#).status,
        409
    );
    let paid = post(&shop, &first, "confirm", r#"{"payment_ref":"p1"}"#);
    assert_eq!(paid.status, 200);
    let part = r#"{"refund_ref":"f1","restock":true}"#;
    let back = post(&shop, &first, "refund", part).json();
    let log = |query: &str| shop.storefront("GET", &format!("/v1/sales/s1/events/log?{query}"), "");
    let all = follow(log, 200);
    assert_eq!(
        types(&all),
        [
            "sale.published",
            "sale.opened",
            "reservation.reserved",
            "reservation.reserved",
            "reservation.released",
            "reservation.refund_due",
            "reservation.confirmed",
            "reservation.refunded",
        ]
    );
    assert!(all.is_sorted_by(|one, next| place(one) < place(next)));
    assert!(all.iter().all(|event| event["sale_id"] == "s1"));
    // The reservation as it stood then, and what the event itself tells.
    assert_eq!(all[2]["data"]["state"], "reserved");
    assert_eq!(
        all[5]["data"]["refund_due"],
        json!({"reason": "state_conflict", "payment_ref": "late"})
    );
    assert_eq!(all[6]["data"], paid.json());
    let mut last = all[7]["data"].clone();
    let refund = last.as_object_mut().unwrap().remove("refund").unwrap();
    assert_eq!(
        refund,
        json!({"refund_ref": "f1", "restock": true, "lines": [{"item": "a", "quantity": 1}]})
    );
    assert_eq!(last, back);
    // In pages of any size the same; nothing after the last.
    for limit in [1, 2, 7] {
        assert_eq!(follow(log, limit), all, "{limit}");
    }
    let last = all[7]["id"].as_str().unwrap();
    assert_eq!(log(&format!("after={last}")).items(), Vec::<Value>::new());
    // Only a sale's own ids; only the storefront.
    let others = shop
        .storefront("GET", "/v1/sales/other/events/log", "")
        .items();
    let other = others[0]["id"].as_str().unwrap();
    assert_eq!(
        told(&log(&format!("after={other}"))),
        refused(400, "malformed")
    );
    let path = "/v1/sales/s1/events/log";
    for (headers, expected) in [
        (vec![bearer(&token("u1"))], refused(403, "forbidden")),
        (vec![bearer(ADMIN)], refused(401, "unauthenticated")),
        (vec![], refused(401, "unauthenticated")),
    ] {
        assert_eq!(
            told(&shop.buyers().call("GET", path, &headers, "")),
            expected,
            "{headers:?}"
        );
    }
    let none = shop.storefront("GET", "/v1/sales/none/events/log", "");
    assert_eq!(told(&none), refused(404, "not_found"));
}

fn operators_read_the_events_of_all_sales(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 10);
    shop.sale("s2", 10);
    for number in 0..3 {
        won(&shop, "s1", &format!("u{number}"));
        won(&shop, "s2", &format!("u{number}"));
    }
    let read = |query: &str| {
        let path = format!("/v1/admin/events?{query}");
        shop.admins().call("GET", &path, &[bearer(OPERATOR)], "")
    };
    // The merged list ends just before the store's present, so that nothing comes to stand before what was told.
    let mut all = Vec::new();
    poll("all are told", || {
        all = follow(read, 200);
        all.len() == 10
    });
    for limit in [1, 3] {
        assert_eq!(follow(read, limit), all, "{limit}");
    }
    for sale in ["s1", "s2"] {
        let own: Vec<Value> = all
            .iter()
            .filter(|one| one["sale_id"] == sale)
            .cloned()
            .collect();
        assert!(own.is_sorted_by(|one, next| place(one) < place(next)));
        let of_sale = |query: &str| read(&format!("sale={sale}&{query}"));
        assert_eq!(follow(of_sale, 2), own);
        let log = shop.storefront("GET", &format!("/v1/sales/{sale}/events/log"), "");
        assert_eq!(log.items(), own);
    }
    let of_other = all.iter().find(|one| one["sale_id"] == "s2").unwrap();
    let mixed = read(&format!(
        "sale=s1&after={}",
        of_other["id"].as_str().unwrap()
    ));
    assert_eq!(told(&mixed), refused(400, "malformed"));
    assert_eq!(told(&read("sale=none")), refused(404, "not_found"));
}

fn reservations_are_found_by_change_payment_and_state(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 10);
    let list =
        |query: &str| shop.storefront("GET", &format!("/v1/sales/s1/reservations?{query}"), "");
    let buyers = |query: &str| -> Vec<String> {
        let items = list(query).items();
        let buyers = items.iter().map(|one| one["buyer_id"].as_str().unwrap());
        buyers.map(str::to_owned).collect()
    };
    let paths = ["u1", "u2", "u3", "u4"].map(|buyer| won(&shop, "s1", buyer));
    // By the times that the reservations tell: the wall clock may stand a little apart from them.
    let last = list("").items()[3]["created_at"].clone();
    let before = last.as_str().unwrap();
    let past = flash_types::Timestamp::parse(before).unwrap().0 + 20;
    poll("the clock goes on", || now().0 > past);
    assert_eq!(
        buyers(&format!("updated_after={before}")),
        Vec::<String>::new()
    );
    assert_eq!(
        post(&shop, &paths[0], "confirm", r#"{"payment_ref":"p1"}"#).status,
        200
    );
    assert_eq!(post(&shop, &paths[2], "cancel", "{}").status, 200);
    assert_eq!(
        post(&shop, &paths[2], "confirm", r#"{"payment_ref":"late"}"#).status,
        409
    );
    assert_eq!(buyers(&format!("updated_after={before}")), ["u1", "u3"]);
    assert_eq!(
        buyers(&format!("updated_after={before}&state=released")),
        ["u3"]
    );
    assert_eq!(
        buyers("updated_after=2020-01-01T00:00:00Z"),
        ["u1", "u2", "u3", "u4"]
    );
    for (state, expected) in [
        ("reserved", vec!["u2", "u4"]),
        ("confirmed", vec!["u1"]),
        ("released", vec!["u3"]),
        ("expired", vec![]),
        ("refunded", vec![]),
        ("unknown", vec![]),
    ] {
        assert_eq!(buyers(&format!("state={state}")), expected, "{state}");
    }
    // By the payment that was offered, whatever became of it.
    assert_eq!(buyers("payment_ref=p1"), ["u1"]);
    assert_eq!(buyers("payment_ref=p1&state=confirmed"), ["u1"]);
    assert_eq!(
        buyers("payment_ref=p1&state=reserved"),
        Vec::<String>::new()
    );
    assert_eq!(buyers("payment_ref=late"), ["u3"]);
    assert_eq!(buyers("payment_ref=nobody"), Vec::<String>::new());
    // In pages.
    for query in ["", "updated_after=2020-01-01T00:00:00Z&"] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = list(&format!("{query}limit=3{cursor}"));
            seen.extend(page.items());
            match page.json()["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, list("").items(), "{query}");
    }
}

fn a_reservation_is_extended_once(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 10);
    let path = won(&shop, "s1", "u1");
    let ends = |body: &Value| {
        flash_types::Timestamp::parse(body["expires_at"].as_str().unwrap())
            .unwrap()
            .0
    };
    let before = shop.storefront("GET", &path, "").json();
    let longer = post(&shop, &path, "extend", "{}");
    assert_eq!(
        (longer.status, &longer.json()["state"]),
        (200, &json!("reserved"))
    );
    assert_eq!(ends(&longer.json()) - ends(&before), 300_000);
    // Once: the same again says the same.
    for body in ["{}", ""] {
        let again = post(&shop, &path, "extend", body);
        assert_eq!((again.status, again.json()), (200, longer.json()));
    }
    assert_eq!(shop.storefront("GET", &path, "").json(), longer.json());
    // Only the storefront, whomever it acts for.
    let other = won(&shop, "s1", "u2");
    for (headers, expected) in [
        (vec![bearer(&token("u2"))], refused(403, "forbidden")),
        (vec![bearer(&token("u1"))], refused(403, "forbidden")),
        (vec![bearer(ADMIN)], refused(401, "unauthenticated")),
        (vec![], refused(401, "unauthenticated")),
    ] {
        let answer = shop
            .buyers()
            .call("POST", &format!("{other}/extend"), &headers, "{}");
        assert_eq!(told(&answer), expected, "{headers:?}");
    }
    let headers = [bearer(STOREFRONT), "X-Buyer-Id: u2".to_owned()];
    let answer = shop
        .buyers()
        .call("POST", &format!("{other}/extend"), &headers, "{}");
    assert_eq!(answer.status, 200, "{answer:?}");
    // Not what is paid or given up.
    assert_eq!(post(&shop, &other, "cancel", "{}").status, 200);
    assert_eq!(
        told(&post(&shop, &other, "extend", "{}")),
        refused(409, "state_conflict")
    );
    let paid = won(&shop, "s1", "u3");
    assert_eq!(
        post(&shop, &paid, "confirm", r#"{"payment_ref":"p"}"#).status,
        200
    );
    assert_eq!(
        told(&post(&shop, &paid, "extend", "{}")),
        refused(409, "state_conflict")
    );
    for nothing in ["r1-99", "r99-1", "x"] {
        let path = format!("/v1/reservations/{nothing}");
        assert_eq!(
            told(&post(&shop, &path, "extend", "{}")),
            refused(404, "not_found")
        );
    }
    for bad in ["[]", r#"{"by_s":1}"#] {
        assert_eq!(
            told(&post(&shop, &path, "extend", bad)),
            refused(400, "malformed")
        );
    }
}

fn an_extension_moves_the_end(on: On) {
    let shop = Shop::open(on);
    shop.sale_with("s1", 10, |plan| plan["payment_window_s"] = json!(3));
    let (plain, longer) = (won(&shop, "s1", "u1"), won(&shop, "s1", "u2"));
    let extended = post(&shop, &longer, "extend", "{}");
    assert_eq!(extended.status, 200, "{extended:?}");
    let state = |path: &str| shop.storefront("GET", path, "").json()["state"].clone();
    poll("the first ends", || state(&plain) == "expired");
    assert_eq!(state(&longer), "reserved");
    assert_eq!(
        told(&post(&shop, &plain, "extend", "{}")),
        refused(409, "state_conflict")
    );
    poll("the other ends too", || state(&longer) == "expired");
    assert_eq!(
        told(&post(&shop, &longer, "extend", "{}")),
        refused(409, "state_conflict")
    );
    // Late money is taken all the same, while there are units.
    assert_eq!(
        post(&shop, &longer, "confirm", r#"{"payment_ref":"p"}"#).status,
        200
    );
}

fn bad_parameters_are_malformed(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 10);
    for query in [
        "after=",
        "after=e1",
        "after=e01-1-1",
        "after=1",
        "after=e1-1-99999999999999999999",
        "limit=0",
        "limit=201",
        "cursor=1",
        "after=e1-1-1&after=e1-1-1",
    ] {
        for path in ["/v1/sales/s1/events/log", "/v1/admin/events"] {
            let path = format!("{path}?{query}");
            let answer = if path.contains("admin") {
                shop.admin("GET", &path, "")
            } else {
                shop.storefront("GET", &path, "")
            };
            assert_eq!(told(&answer), refused(400, "malformed"), "{path}");
        }
    }
    for query in ["sale=", "sale=a%20b", "state=open"] {
        let answer = shop.admin("GET", &format!("/v1/admin/events?{query}"), "");
        assert_eq!(told(&answer), refused(400, "malformed"), "{query}");
    }
    for query in [
        "updated_after=yesterday",
        "updated_after=2026-01-01",
        "updated_after=",
        "payment_ref=",
        "payment_ref=a%20b",
        "state=open",
        "state=",
        "cursor=x",
        "limit=201",
        "buyer=u1",
    ] {
        let answer = shop.storefront("GET", &format!("/v1/sales/s1/reservations?{query}"), "");
        assert_eq!(told(&answer), refused(400, "malformed"), "{query}");
    }
}
