//! Further units: planned waves, releases by hand, units that come back at announced times; as told in reads and streams.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may")]

mod common;

use common::*;
use flash_types::Timestamp;
use serde_json::{Value, json};

on_both_stores!(
    a_planned_wave_comes_at_its_time_and_is_told,
    a_merchant_releases_by_hand_once_per_key,
    units_that_come_back_wait_for_an_announced_time,
    an_announced_time_brings_back_what_was_given_up,
);

fn at(ms: i64) -> Value {
    json!(Timestamp(now().0 + ms))
}

fn item(shop: &Shop, sale: &str) -> Value {
    shop.buyers().get(&format!("/v1/sales/{sale}")).json()["items"][0].clone()
}

/// Available and unreleased units of the item `a`.
fn units(shop: &Shop, sale: &str) -> [u64; 2] {
    let sale = shop
        .admin("GET", &format!("/v1/admin/sales/{sale}"), "")
        .json();
    ["available_units", "unreleased_units"].map(|name| sale["units"][0][name].as_u64().unwrap())
}

fn watch(shop: &Shop, sale: &str) -> Client {
    let mut client = shop.buyers();
    let path = format!("/v1/sales/{sale}/events");
    client.send(request("GET", &path, &[], "").as_bytes());
    assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 200"));
    client
}

/// What each `sale.wave` of a sale's log tells.
fn waves(shop: &Shop, sale: &str) -> Vec<Value> {
    let path = format!("/v1/sales/{sale}/events/log?limit=200");
    let events = shop.storefront("GET", &path, "").items();
    let waves = events
        .into_iter()
        .filter(|event| event["type"] == "sale.wave");
    waves.map(|mut event| event["data"].take()).collect()
}

fn a_planned_wave_comes_at_its_time_and_is_told(on: On) {
    let shop = Shop::open(on);
    let (soon, late) = (at(1_500), at(3_000_000));
    shop.sale_with("s1", 10, |plan| {
        let past = json!(Timestamp(now().0 - 60_000));
        plan["items"][0]["waves"] = json!([
            // Before it opens: part of the opening.
            {"at": past, "units": 1}, {"at": soon, "units": 3}, {"at": late, "units": 2},
        ]);
    });
    let before = item(&shop, "s1");
    let mut stream = watch(&shop, "s1");
    let next = |at: &Value, units: u32| format!(r#""next_wave":{{"at":{at},"units":{units}}}"#);
    if before["next_wave"]["at"] == soon {
        assert_eq!(before["available_units"], 5);
        assert_eq!(before["next_wave"], json!({"at": soon, "units": 3}));
    }
    let snapshot = stream.until("\"item\":\"b\",\"available_units\":10}");
    assert!(
        snapshot.contains("event: wave\ndata: {\"item\":\"a\","),
        "{snapshot}"
    );
    let told = r#""released_units":3,"#;
    if !snapshot.contains(&next(&late, 2)) {
        assert!(
            snapshot.contains(&format!(r#""released_units":0,{}"#, next(&soon, 3))),
            "{snapshot}"
        );
        stream.until(told);
        stream.until(&next(&late, 2));
        stream.until("event: stock\ndata: {\"item\":\"a\",\"available_units\":8}");
    }
    poll("the wave came", || units(&shop, "s1") == [8, 2]);
    let after = item(&shop, "s1");
    assert_eq!(after["available_units"], 8);
    assert_eq!(after["next_wave"], json!({"at": late, "units": 2}));
    let items = json!([{"item": "a", "quantity": 3}]);
    let told = waves(&shop, "s1");
    assert_eq!(told.len(), 1);
    assert_eq!(
        [&told[0]["kind"], &told[0]["items"]],
        [&json!("planned"), &items]
    );
    // A new stream begins with what is announced now.
    let snapshot = watch(&shop, "s1").until("\"item\":\"b\",\"available_units\":10}");
    assert!(
        snapshot.contains(&format!(r#""released_units":0,{}"#, next(&late, 2))),
        "{snapshot}"
    );
    assert!(
        !snapshot.contains("event: wave\ndata: {\"item\":\"b\""),
        "{snapshot}"
    );
}

fn a_merchant_releases_by_hand_once_per_key(on: On) {
    let shop = Shop::open(on);
    shop.sale_with("s1", 10, |plan| {
        plan["items"][0]["waves"] = json!([{"at": at(3_000_000), "units": 6}]);
    });
    let mut stream = watch(&shop, "s1");
    stream.until("\"item\":\"b\",\"available_units\":10}");
    let path = "/v1/admin/sales/s1/items/a/release";
    let release = |path: &str, with: Option<&str>, units: u32| {
        let headers: Vec<_> = [bearer(ADMIN)].into_iter().chain(with.map(key)).collect();
        let body = json!({"units": units}).to_string();
        let answer = shop.admins().call("POST", path, &headers, &body);
        let released = answer.json()["released_units"].as_u64();
        (answer.status, released, answer.outcome())
    };
    let ok = |units| (200, Some(units), String::new());
    let no = |status, outcome: &str| (status, None, outcome.to_owned());
    assert_eq!(units(&shop, "s1"), [4, 6]);
    // The same key brings units once, and has one meaning.
    assert_eq!(release(path, Some("k1"), 2), ok(2));
    assert_eq!(release(path, Some("k1"), 2), ok(2));
    assert_eq!(units(&shop, "s1"), [6, 4]);
    assert_eq!(
        release(path, Some("k1"), 3),
        no(422, "idempotency_key_reused")
    );
    let told = stream.until(r#""released_units":2,"#);
    assert!(
        told.contains("event: wave\ndata: {\"item\":\"a\""),
        "{told}"
    );
    // Without one each call brings some.
    assert_eq!(release(path, None, 1), ok(1));
    assert_eq!(release(path, None, 1), ok(1));
    assert_eq!(units(&shop, "s1"), [8, 2]);
    let more = shop.admin("POST", path, r#"{"units":3}"#);
    assert_eq!(
        (more.status, more.outcome().as_str()),
        (409, "state_conflict")
    );
    assert!(
        more.json()["detail"].as_str().unwrap().contains("2 units"),
        "{more:?}"
    );
    // The other item holds nothing back.
    assert_eq!(
        release("/v1/admin/sales/s1/items/b/release", None, 1).0,
        409
    );
    for nowhere in ["none/items/a", "s1/items/none"] {
        let path = format!("/v1/admin/sales/{nowhere}/release");
        assert_eq!(release(&path, None, 1), no(404, "not_found"), "{nowhere}");
    }
    let kinds: Vec<_> = waves(&shop, "s1")
        .iter()
        .map(|wave| wave["kind"].clone())
        .collect();
    assert_eq!(kinds, ["by_hand"; 3]);
    // What was released by hand is bought like any other.
    assert_eq!(
        shop.buy("s1", "u1", "k", r#"{"item":"a","quantity":8}"#)
            .status,
        201
    );
    assert_eq!(
        shop.admin("POST", "/v1/admin/sales/s1/close", "").status,
        200
    );
    assert_eq!(release(path, None, 1), no(409, "state_conflict"));
    // A key that released stays answered.
    assert_eq!(release(path, Some("k1"), 2), ok(2));
    let audit = shop.admin("GET", "/v1/admin/sales/s1/audit", "").json();
    assert_eq!(audit["ok"], true, "{audit}");
}

/// Buys two units and gives them back.
fn buy_and_cancel(shop: &Shop, sale: &str) {
    let won = shop.buy(sale, "u1", "k", r#"{"item":"a","quantity":2}"#);
    assert_eq!(won.status, 201, "{won:?}");
    let path = format!("{}/cancel", won.header("location").unwrap());
    assert_eq!(shop.storefront("POST", &path, "{}").status, 200);
}

fn units_that_come_back_wait_for_an_announced_time(on: On) {
    let shop = Shop::open(on);
    let late = at(3_000_000);
    shop.sale_with("s1", 10, |plan| {
        plan["re_release_at"] = json!([late]);
        plan["payment_window_s"] = json!(1);
    });
    buy_and_cancel(&shop, "s1");
    assert_eq!(units(&shop, "s1"), [8, 2]);
    // How many is not known before.
    assert_eq!(item(&shop, "s1")["next_wave"], json!({"at": late}));
    let snapshot = watch(&shop, "s1").until("\"item\":\"b\",\"available_units\":10}");
    assert!(
        snapshot.contains(&format!(r#""next_wave":{{"at":{late}}}"#)),
        "{snapshot}"
    );
    // The same where nobody paid.
    assert_eq!(
        shop.buy("s1", "u2", "k", r#"{"item":"a","quantity":3}"#)
            .status,
        201
    );
    assert_eq!(units(&shop, "s1")[0], 5);
    poll("it expired", || units(&shop, "s1") == [5, 5]);
    // A merchant need not wait.
    let release = shop.admin(
        "POST",
        "/v1/admin/sales/s1/items/a/release",
        r#"{"units":5}"#,
    );
    assert_eq!(release.status, 200, "{release:?}");
    assert_eq!(units(&shop, "s1"), [10, 0]);
}

fn an_announced_time_brings_back_what_was_given_up(on: On) {
    let shop = Shop::open(on);
    shop.sale_with("s1", 10, |plan| plan["re_release_at"] = json!([at(2_000)]));
    buy_and_cancel(&shop, "s1");
    poll("they are for sale again", || units(&shop, "s1") == [10, 0]);
    // No other time is announced: what comes back from here on is for sale at once.
    poll("the time has passed", || {
        item(&shop, "s1").get("next_wave").is_none()
    });
    let won = shop.buy("s1", "u2", "k", r#"{"item":"a","quantity":2}"#);
    let path = format!("{}/cancel", won.header("location").unwrap());
    assert_eq!(shop.storefront("POST", &path, "{}").status, 200);
    poll("at once", || units(&shop, "s1") == [10, 0]);
    let told = waves(&shop, "s1");
    assert!(told.len() <= 1, "{told:?}");
    if let Some(told) = told.first() {
        let items = json!([{"item": "a", "quantity": 2}]);
        assert_eq!(
            [&told["kind"], &told["items"]],
            [&json!("returned"), &items]
        );
    }
}
