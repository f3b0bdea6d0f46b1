//! The contract over real sockets: what is answered when all is well, and which problem is told when not.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may")]

mod common;

use common::*;
use flash_types::Timestamp;
use serde_json::{Value, json};

const ONE_A: &str = r#"{"item":"a","quantity":1}"#;

on_both_stores!(
    a_purchase_from_its_201_to_its_refund,
    a_storefront_buys_for_a_buyer_and_sees_all,
    sales_are_listed_tagged_and_told_the_time,
    every_refusal_of_business_has_its_problem,
    the_first_cause_is_told,
    commands_on_reservations_know_their_callers,
    other_paths_methods_and_media_types,
    browsers_from_configured_origins_may_call,
    the_demo_lets_anybody_in_and_only_the_demo,
);

fn a_purchase_from_its_201_to_its_refund(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 10);
    let mut buyers = shop.buyers();
    let lines = r#"{"lines":[{"item":"b","quantity":1},{"item":"a","quantity":2},{"item":"b","quantity":1}]}"#;
    let won = buyers.buy("s1", "u1", "k1", lines);
    assert_eq!(won.status, 201, "{won:?}");
    let body = won.json();
    let id = body["reservation_id"].as_str().unwrap().to_owned();
    assert_eq!(
        won.header("location"),
        Some(format!("/v1/reservations/{id}").as_str())
    );
    assert_eq!(won.header("content-type"), Some("application/json"));
    assert_eq!(won.header("idempotency-replayed"), None);
    assert_eq!(
        body["lines"],
        json!([
            {"item": "a", "quantity": 2, "unit_price_minor": 100, "refunded_units": 0},
            {"item": "b", "quantity": 2, "unit_price_minor": 50, "refunded_units": 0},
        ])
    );
    for (field, expected) in [
        ("sale_id", json!("s1")),
        ("buyer_id", json!("u1")),
        ("state", json!("reserved")),
        ("amount_minor", json!(300)),
        ("currency", json!("CNY")),
        ("payment_ref", Value::Null),
        ("durability", json!(on.durability())),
    ] {
        assert_eq!(body[field], expected, "{field}");
    }
    // The same key, written otherwise: the same reservation.
    let again = r#"{ "lines": [{"quantity":2,"item":"a"},{"item":"b","quantity":2}] }"#;
    let replay = buyers.buy("s1", "u1", "k1", again);
    assert_eq!((replay.status, replay.json()), (200, body.clone()));
    assert_eq!(replay.header("idempotency-replayed"), Some("true"));
    let other = buyers.buy("s1", "u1", "k1", ONE_A);
    assert_eq!(
        (other.status, other.outcome().as_str()),
        (422, "idempotency_key_reused")
    );

    let path = format!("/v1/reservations/{id}");
    let mine = [bearer(&token("u1"))];
    assert_eq!(buyers.call("GET", &path, &mine, "").json(), body);
    let by_key = buyers.call(
        "GET",
        "/v1/reservations?sale=s1&idempotency_key=k1",
        &mine,
        "",
    );
    assert_eq!(by_key.json(), body);
    let theirs = buyers.call("GET", &path, &[bearer(&token("u2"))], "");
    assert_eq!(
        (theirs.status, theirs.outcome().as_str()),
        (404, "not_found")
    );

    let shop_key = [bearer(STOREFRONT)];
    let wrong = r#"{"payment_ref":"p1","amount_minor":299}"#;
    let wrong = buyers.call("POST", &format!("{path}/confirm"), &shop_key, wrong);
    assert_eq!(
        (wrong.status, wrong.outcome().as_str()),
        (409, "state_conflict")
    );
    let right = r#"{"payment_ref":"p1","amount_minor":300}"#;
    for _ in 0..2 {
        let paid = buyers.call("POST", &format!("{path}/confirm"), &shop_key, right);
        assert_eq!(
            (paid.status, &paid.json()["state"]),
            (200, &json!("confirmed"))
        );
        assert_eq!(paid.json()["payment_ref"], "p1");
    }
    let second = buyers.call(
        "POST",
        &format!("{path}/confirm"),
        &shop_key,
        r#"{"payment_ref":"p2"}"#,
    );
    assert_eq!(
        (second.status, &second.json()["refund_due"]),
        (409, &json!(true))
    );
    let part = r#"{"refund_ref":"f1","restock":true,"lines":[{"item":"a","quantity":1}]}"#;
    let part = buyers.call("POST", &format!("{path}/refund"), &shop_key, part);
    assert_eq!(
        (part.status, &part.json()["state"]),
        (200, &json!("confirmed"))
    );
    assert_eq!(part.json()["lines"][0]["refunded_units"], 1);
    let rest = buyers.call(
        "POST",
        &format!("{path}/refund"),
        &shop_key,
        r#"{"restock":false}"#,
    );
    assert_eq!(rest.json()["state"], "refunded");
    assert_eq!(
        buyers.buy("s1", "u1", "k1", lines).json()["state"],
        "refunded"
    );

    let audit = shop
        .admins()
        .call("GET", "/v1/admin/sales/s1/audit", &[bearer(VIEWER)], "")
        .json();
    assert_eq!(audit["ok"], true);
    assert_eq!(
        audit["items"][0],
        json!({"item": "a", "stock_units": 10, "unreleased_units": 0, "available_units": 9, "reserved_units": 0, "sold_units": 1})
    );
}

fn a_storefront_buys_for_a_buyer_and_sees_all(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 10);
    let mut buyers = shop.buyers();
    let path = "/v1/sales/s1/purchases";
    for (number, buyer) in ["u1", "u2", "u1"].into_iter().enumerate() {
        let headers = [
            bearer(STOREFRONT),
            key(&format!("k{number}")),
            format!("X-Buyer-Id: {buyer}"),
        ];
        let won = buyers.call("POST", path, &headers, ONE_A);
        assert_eq!((won.status, &won.json()["buyer_id"]), (201, &json!(buyer)));
    }
    let without = buyers.call("POST", path, &[bearer(STOREFRONT), key("k9")], ONE_A);
    assert_eq!(
        (without.status, without.outcome().as_str()),
        (400, "malformed")
    );
    let beside = [bearer(&token("u1")), key("k9"), "X-Buyer-Id: u1".to_owned()];
    let beside = buyers.call("POST", path, &beside, ONE_A);
    assert_eq!(
        (beside.status, beside.outcome().as_str()),
        (400, "malformed")
    );

    let count = |answer: &Answer| answer.json()["items"].as_array().unwrap().len();
    let all = buyers.call("GET", "/v1/reservations?sale=s1", &[bearer(STOREFRONT)], "");
    assert_eq!(count(&all), 3);
    let for_u1 = [bearer(STOREFRONT), "X-Buyer-Id: u1".to_owned()];
    assert_eq!(
        count(&buyers.call("GET", "/v1/reservations?sale=s1", &for_u1, "")),
        2
    );
    assert_eq!(
        count(&buyers.call(
            "GET",
            "/v1/reservations?sale=s1",
            &[bearer(&token("u2"))],
            ""
        )),
        1
    );
    let by_key = "/v1/reservations?sale=s1&idempotency_key=k0";
    assert_eq!(buyers.call("GET", by_key, &for_u1, "").status, 200);
    assert_eq!(
        buyers.call("GET", by_key, &[bearer(STOREFRONT)], "").status,
        400
    );

    // Page by page.
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/sales/s1/reservations?limit=2{cursor}");
        let page = buyers.call("GET", &path, &[bearer(STOREFRONT)], "").json();
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["reservation_id"].to_string()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 3);
    let reserved = buyers.call(
        "GET",
        "/v1/sales/s1/reservations?state=confirmed",
        &[bearer(STOREFRONT)],
        "",
    );
    assert_eq!(count(&reserved), 0);
    let buyer_asks = buyers.call(
        "GET",
        "/v1/sales/s1/reservations",
        &[bearer(&token("u1"))],
        "",
    );
    assert_eq!(
        (buyer_asks.status, buyer_asks.outcome().as_str()),
        (403, "forbidden")
    );
}

fn sales_are_listed_tagged_and_told_the_time(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 3);
    shop.sale_with("s2", 3, |plan| {
        plan["series"] = json!("winter");
        plan["starts_at"] = json!(Timestamp(now().0 + 1_000_000));
    });
    let mut admins = shop.admins();
    let draft = plan("draft", 1).to_string();
    assert_eq!(
        admins
            .call("POST", "/v1/admin/sales", &[bearer(ADMIN)], &draft)
            .status,
        201
    );

    let mut buyers = shop.buyers();
    let time = buyers.get("/v1/time").json();
    assert!((time["epoch_ms"].as_i64().unwrap() - now().0).abs() < 60_000);
    let ids = |path: &str, buyers: &mut Client| -> Vec<String> {
        let page = buyers.get(path).json();
        let items = page["items"].as_array().unwrap().clone();
        items
            .iter()
            .map(|sale| sale["sale_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids("/v1/sales", &mut buyers), ["s1", "s2"]);
    assert_eq!(ids("/v1/sales?state=open", &mut buyers), ["s1"]);
    assert_eq!(ids("/v1/sales?state=upcoming", &mut buyers), ["s2"]);
    assert_eq!(
        ids("/v1/sales?state=ended", &mut buyers),
        Vec::<String>::new()
    );
    assert_eq!(ids("/v1/sales?series=winter", &mut buyers), ["s2"]);
    let first = buyers.get("/v1/sales?limit=1").json();
    let next = first["next_cursor"].as_str().unwrap();
    assert_eq!(
        ids(&format!("/v1/sales?limit=1&cursor={next}"), &mut buyers),
        ["s2"]
    );
    for bad in [
        "/v1/sales?state=x",
        "/v1/sales?limit=201",
        "/v1/sales?colour=red",
    ] {
        assert_eq!(buyers.get(bad).status, 400, "{bad}");
    }

    let sale = buyers.get("/v1/sales/s1");
    let body = sale.json();
    assert_eq!(
        (
            body["state"].as_str(),
            body["items"][0]["available_units"].as_u64()
        ),
        (Some("open"), Some(3))
    );
    assert_eq!(sale.header("cache-control"), Some("public, max-age=1"));
    let etag = sale.header("etag").unwrap().to_owned();
    let known = [format!("If-None-Match: {etag}")];
    assert_eq!(buyers.call("GET", "/v1/sales/s1", &known, "").status, 304);
    assert_eq!(shop.buy("s1", "u1", "k1", ONE_A).status, 201);
    let changed = buyers.call("GET", "/v1/sales/s1", &known, "");
    assert_eq!(
        (
            changed.status,
            &changed.json()["items"][0]["available_units"]
        ),
        (200, &json!(2))
    );
    let head = buyers.call("HEAD", "/v1/sales/s1", &[], "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(buyers.get("/v1/sales/draft").status, 404);
    assert_eq!(buyers.get("/v1/sales/nowhere").status, 404);
}

fn every_refusal_of_business_has_its_problem(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 3);
    shop.sale_with("later", 3, |plan| {
        plan["starts_at"] = json!(Timestamp(now().0 + 1_000_000))
    });
    shop.sale("paused", 3);
    shop.sale("closed", 3);
    shop.sale_with("slow", 3, |plan| {
        plan["admission"] = json!({"buyer_rate_per_s": 1, "buyer_burst": 1});
    });
    let mut admins = shop.admins();
    for (sale, command) in [("paused", "pause"), ("closed", "close")] {
        let path = format!("/v1/admin/sales/{sale}/{command}");
        assert_eq!(admins.call("POST", &path, &[bearer(ADMIN)], "").status, 200);
    }
    let two = r#"{"item":"b","quantity":2}"#;
    let four = r#"{"item":"a","quantity":4}"#;
    let nowhere = r#"{"item":"zzz","quantity":1}"#;
    assert_eq!(shop.buy("s1", "u1", "k1", two).status, 201);
    assert_eq!(shop.buy("slow", "u1", "k1", ONE_A).status, 201);
    for (sale, buyer, body, status, outcome) in [
        ("none", "u1", ONE_A, 404, "not_found"),
        ("s1", "u1", nowhere, 404, "not_found"),
        ("later", "u1", ONE_A, 425, "sale_not_started"),
        ("paused", "u1", ONE_A, 423, "sale_paused"),
        ("closed", "u1", ONE_A, 410, "sale_ended"),
        (
            "s1",
            "u1",
            r#"{"item":"b","quantity":1}"#,
            409,
            "buyer_limit_reached",
        ),
        ("s1", "u2", four, 409, "sold_out"),
        ("slow", "u1", ONE_A, 429, "rate_limited"),
    ] {
        let answer = shop.buy(sale, buyer, "k2", body);
        assert_eq!(
            (answer.status, answer.outcome().as_str()),
            (status, outcome),
            "{sale} {body}"
        );
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(answer.json()["status"], status);
        let has_wait = answer.json().get("retry_after_ms").is_some();
        assert_eq!(has_wait, answer.header("retry-after").is_some());
    }
    assert_eq!(
        shop.buy("s1", "u2", "k3", four).json()["available_units"],
        3
    );
    assert!(shop.buy("later", "u1", "k3", ONE_A).json()["starts_at"].is_string());
    // Sold out, then final.
    let three = shop.buy("s1", "u3", "k1", r#"{"item":"a","quantity":3}"#);
    let gone = shop.buy("s1", "u4", "k1", ONE_A);
    assert_eq!(
        (gone.outcome().as_str(), &gone.json()["final"]),
        ("sold_out", &json!(false))
    );
    let path = format!("{}/confirm", three.header("location").unwrap());
    let paid = shop.buyers().call(
        "POST",
        &path,
        &[bearer(STOREFRONT)],
        r#"{"payment_ref":"p"}"#,
    );
    assert_eq!(paid.status, 200);
    let gone = shop.buy("s1", "u4", "k1", ONE_A);
    assert_eq!(
        (gone.outcome().as_str(), &gone.json()["final"]),
        ("sold_out", &json!(true))
    );
    // A key that won is never refused by business.
    assert_eq!(
        shop.buy("s1", "u3", "k1", r#"{"item":"a","quantity":3}"#)
            .status,
        200
    );
}

/// Two causes at once: the one that stands earlier in the contract is told.
fn the_first_cause_is_told(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 3);
    shop.sale_with("tight", 3, |plan| {
        plan["admission"] = json!({"address_rate_per_s": 1, "address_burst": 1});
    });
    let mut buyers = shop.buyers();
    let mut told = |path: &str, headers: &[String], body: &str| {
        let answer = buyers.call("POST", path, headers, body);
        (answer.status, answer.outcome())
    };
    let to = |sale: &str| format!("/v1/sales/{sale}/purchases");
    let bad_token = bearer("eyJhbGciOiJIUzI1NiJ9.e30.AAAA");
    // Malformed before everything.
    for (path, headers, body) in [
        (to("a%20b"), vec![key("k")], ONE_A),
        (to("s1"), vec![], ONE_A),
        (to("s1"), vec![key("a b")], ONE_A),
        (to("s1"), vec![key("k")], "{}"),
        (
            to("none"),
            vec![bad_token.clone(), key("k")],
            r#"{"item":"a","quantity":0}"#,
        ),
        (
            to("none"),
            vec![bad_token.clone(), key("k"), "X-Buyer-Id: u1".into()],
            ONE_A,
        ),
        (
            to("s1"),
            vec![bearer("wrong"), key("k"), "X-Buyer-Id: {}".into()],
            ONE_A,
        ),
    ] {
        assert_eq!(
            told(&path, &headers, body),
            (400, "malformed".into()),
            "{path} {headers:?} {body}"
        );
    }
    // Identity before the sale.
    for secret in ["wrong", ADMIN, "eyJhbGciOiJIUzI1NiJ9.e30.AAAA"] {
        let headers = [bearer(secret), key("k")];
        assert_eq!(
            told(&to("none"), &headers, ONE_A),
            (401, "unauthenticated".into())
        );
    }
    assert_eq!(
        told(&to("none"), &[key("k")], ONE_A),
        (401, "unauthenticated".into())
    );
    // The address before identity; a storefront has no address.
    let anonymous = [key("k")];
    assert_eq!(
        told(&to("tight"), &anonymous, ONE_A),
        (401, "unauthenticated".into())
    );
    assert_eq!(
        told(&to("tight"), &anonymous, ONE_A),
        (429, "rate_limited".into())
    );
    assert_eq!(
        told(&to("tight"), &anonymous, "{"),
        (400, "malformed".into())
    );
    for number in 0..3 {
        let headers = [
            bearer(STOREFRONT),
            key(&format!("k{number}")),
            "X-Buyer-Id: u1".into(),
        ];
        assert_eq!(told(&to("tight"), &headers, ONE_A).0, 201);
    }
    // 401 says how.
    let answer = buyers.call("POST", &to("s1"), &[key("k")], ONE_A);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
}

fn commands_on_reservations_know_their_callers(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 3);
    let won = shop.buy("s1", "u1", "k1", ONE_A);
    let path = won.header("location").unwrap().to_owned();
    let mut buyers = shop.buyers();
    let mut told = |verb: &str, headers: &[String], body: &str| {
        let answer = buyers.call("POST", &format!("{path}/{verb}"), headers, body);
        (answer.status, answer.outcome())
    };
    let mine = [bearer(&token("u1"))];
    let theirs = [bearer(&token("u2"))];
    for (verb, body) in [
        ("confirm", r#"{"payment_ref":"p"}"#),
        ("refund", r#"{"restock":true}"#),
    ] {
        assert_eq!(told(verb, &mine, body), (403, "forbidden".into()));
        assert_eq!(told(verb, &[], body), (401, "unauthenticated".into()));
        assert_eq!(
            told(verb, &[bearer(STOREFRONT)], "{\"x\":1}"),
            (400, "malformed".into())
        );
    }
    assert_eq!(
        told("refund", &[bearer(STOREFRONT)], r#"{"restock":true}"#),
        (409, "state_conflict".into())
    );
    assert_eq!(told("cancel", &theirs, "{}"), (404, "not_found".into()));
    assert_eq!(told("extend", &mine, "{}"), (403, "forbidden".into()));
    for _ in 0..2 {
        assert_eq!(told("cancel", &mine, "").0, 200);
    }
    let late = told("confirm", &[bearer(STOREFRONT)], r#"{"payment_ref":"p"}"#);
    assert_eq!(late, (409, "state_conflict".into()));
    for nothing in ["r1-99", "r99-1", "x", "r01-2"] {
        let path = format!("/v1/reservations/{nothing}");
        assert_eq!(
            buyers.call("GET", &path, &mine, "").status,
            404,
            "{nothing}"
        );
    }
    assert_eq!(
        shop.buy("s1", "u1", "k1", ONE_A).json()["state"],
        "released"
    );
}

fn other_paths_methods_and_media_types(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 3);
    let mut buyers = shop.buyers();
    for path in [
        "/nowhere",
        "/v1/admin/sales",
        "/metrics",
        "/healthz",
        "/",
        "/v1/demo/login",
        "/v1/sales/",
    ] {
        let answer = buyers.get(path);
        assert_eq!(
            (answer.status, answer.outcome().as_str()),
            (404, "not_found"),
            "{path}"
        );
    }
    let mut admins = shop.admins();
    assert_eq!(admins.get("/v1/sales").status, 404);
    let wrong = buyers.call("DELETE", "/v1/sales/s1/purchases", &[], "");
    assert_eq!(
        (wrong.status, wrong.outcome().as_str()),
        (405, "method_not_allowed")
    );
    assert_eq!(wrong.header("allow"), Some("POST, OPTIONS"));
    let mut other = shop.buyers();
    other.send(
        b"POST /v1/sales/s1/purchases HTTP/1.1\r\nIdempotency-Key: k\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
    );
    let answer = other.answer().unwrap();
    assert_eq!(
        (answer.status, answer.outcome().as_str()),
        (415, "unsupported_media_type")
    );
    let document = buyers.get("/openapi.json").json();
    assert!(document["paths"]["/v1/sales/{sale}/purchases"]["post"].is_object());
    assert!(admins.get("/openapi.json").json()["paths"]["/v1/admin/sales"].is_object());
    assert_eq!(shop.buyers().call("HEAD", "/v1/time", &[], "").status, 200);
}

fn browsers_from_configured_origins_may_call(on: On) {
    let shop = Shop::with(on, |config| {
        config.cors_origins = vec!["https://shop.example".into()]
    });
    shop.sale("s1", 3);
    let mut buyers = shop.buyers();
    let from = |origin: &str| vec![format!("Origin: {origin}")];
    let preflight = buyers.call(
        "OPTIONS",
        "/v1/sales/s1/purchases",
        &from("https://shop.example"),
        "",
    );
    assert_eq!(preflight.status, 204);
    for (name, part) in [
        ("access-control-allow-origin", "https://shop.example"),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "Idempotency-Key"),
        ("vary", "Origin"),
    ] {
        assert!(preflight.header(name).unwrap().contains(part), "{name}");
    }
    let answer = buyers.call("GET", "/v1/sales/none", &from("https://shop.example"), "");
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://shop.example")
    );
    for name in ["Location", "Retry-After", "Idempotency-Replayed"] {
        assert!(
            answer
                .header("access-control-expose-headers")
                .unwrap()
                .contains(name)
        );
    }
    let other = buyers.call("GET", "/v1/time", &from("https://evil.example"), "");
    assert_eq!(other.header("access-control-allow-origin"), None);
    let other = buyers.call("OPTIONS", "/v1/time", &from("https://evil.example"), "");
    assert_eq!(
        (other.status, other.header("access-control-allow-origin")),
        (204, None)
    );
}

fn the_demo_lets_anybody_in_and_only_the_demo(on: On) {
    let shop = Shop::with(on, |config| config.is_demo = true);
    shop.sale("s1", 3);
    let mut buyers = shop.buyers();
    let login = buyers.call("POST", "/v1/demo/login", &[], r#"{"buyer":"alice"}"#);
    let token = login.json()["token"].as_str().unwrap().to_owned();
    let won = buyers.call(
        "POST",
        "/v1/sales/s1/purchases",
        &[bearer(&token), key("k")],
        ONE_A,
    );
    assert_eq!(
        (won.status, &won.json()["buyer_id"]),
        (201, &json!("alice"))
    );
    assert_eq!(
        buyers
            .call("POST", "/v1/demo/login", &[], r#"{"buyer":""}"#)
            .status,
        400
    );
    let page = buyers.get("/");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .contains("default-src 'none'")
    );
}
