//! The way in to the side services: who may call, what is parsed, bounded and refused before they are asked.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may")]

mod common;

use common::*;
use flash_admission::Rate;
use serde_json::{Value, json};

on_both_stores!(
    callers_are_known_before_a_service_is_asked,
    what_is_sent_is_parsed_and_bounded,
    refusals_methods_origins_and_panics_are_as_everywhere,
    an_address_asks_only_so_often_and_a_storefront_by_its_own_rate,
);

const TAKE: &str = "/v1/toys/c1/boxes/p1/takes/n1";

fn shop(on: On) -> Shop {
    Shop::serving(on, side::services(), |_| {})
}

/// Holds that it is a problem of this status and outcome.
fn refused(answer: &Answer, status: u16, outcome: &str) -> Value {
    let media = answer.header("content-type");
    assert_eq!(media, Some("application/problem+json"), "{answer:?}");
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.outcome(), outcome, "{answer:?}");
    answer.json()
}

fn as_buyer(buyer: &str) -> Vec<String> {
    vec![bearer(&token(buyer)), key("k1")]
}

fn callers_are_known_before_a_service_is_asked(on: On) {
    let shop = shop(on);
    let mut buyers = shop.buyers();
    let asked = |answer: Answer| {
        assert!(answer.status < 300, "{answer:?}");
        answer.json()["caller"].as_str().unwrap().to_owned()
    };
    assert_eq!(asked(buyers.get("/v1/toys")), "anyone");
    assert_eq!(
        asked(buyers.call("POST", TAKE, &as_buyer("u1"), "{}")),
        "buyer u1"
    );
    let storefront = vec![bearer(STOREFRONT), key("k1"), "X-Buyer-Id: u2".into()];
    let answer = buyers.call("POST", TAKE, &storefront, "{}");
    assert_eq!(answer.json()["address"], Value::Null);
    assert_eq!(asked(answer), "buyer u2");
    let picture = "/v1/toys/c1/picture";
    assert_eq!(
        asked(buyers.call("DELETE", picture, &storefront, "")),
        "storefront for u2"
    );
    assert_eq!(
        asked(buyers.call("DELETE", picture, &[bearer(STOREFRONT)], "{}")),
        "storefront"
    );

    let nobody = [key("k1")];
    refused(
        &buyers.call("POST", TAKE, &nobody, "{}"),
        401,
        "unauthenticated",
    );
    let no_buyer = [bearer(STOREFRONT), key("k1")];
    refused(
        &buyers.call("POST", TAKE, &no_buyer, "{}"),
        400,
        "malformed",
    );
    let both = [bearer(&token("u1")), key("k1"), "X-Buyer-Id: u1".to_owned()];
    refused(&buyers.call("POST", TAKE, &both, "{}"), 400, "malformed");
    refused(
        &buyers.call("DELETE", picture, &[bearer(&token("u1"))], ""),
        403,
        "forbidden",
    );

    let judge = "/v1/admin/toys/c1/judge";
    let mut admins = shop.admins();
    assert_eq!(
        asked(admins.call("POST", judge, &[bearer(ADMIN)], "")),
        "admin root"
    );
    refused(
        &admins.call("POST", judge, &[bearer(MERCHANT)], ""),
        403,
        "forbidden",
    );
    refused(
        &admins.call("POST", judge, &[bearer(STOREFRONT)], ""),
        401,
        "unauthenticated",
    );
    refused(
        &buyers.call("POST", judge, &[bearer(ADMIN)], ""),
        404,
        "not_found",
    );
    poll("the refusal is noted", || {
        let log = shop.admin("GET", "/v1/admin/audit-log", "");
        log.items().iter().any(|note| {
            note["who"] == "seller"
                && note["outcome"] == "forbidden"
                && note["command"] == "POST /v1/admin/toys/{campaign}/judge"
        })
    });
}

fn what_is_sent_is_parsed_and_bounded(on: On) {
    let shop = shop(on);
    let mut buyers = shop.buyers();
    let mut headers = as_buyer("u1");
    headers.push("X-Device-Id: d:1".into());
    let answer = buyers.call(
        "POST",
        "/v1/toys/c%2E1/boxes/p1/takes/n1",
        &headers,
        "{\"toy\":\"x\"}",
    );
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("location"), Some("/v1/toys/t1"));
    assert_eq!(answer.header("idempotency-replayed"), Some("true"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let asked = answer.json();
    assert_eq!(asked["path"], json!(["c.1", "p1", "n1"]));
    assert_eq!(
        [&asked["key"], &asked["device"], &asked["address"]],
        ["k1", "d:1", "127.0.0.1"]
    );
    let asked = buyers.get("/v1/toys?limit=5&colour=a+%26b").json();
    assert_eq!(asked["query"], json!([["limit", "5"], ["colour", "a &b"]]));

    for (path, detail) in [
        ("/v1/toys?size=1", "size"),
        ("/v1/toys?limit=1&limit=1", "twice"),
    ] {
        let told = refused(&buyers.get(path), 400, "malformed");
        assert!(told["detail"].as_str().unwrap().contains(detail), "{told}");
    }
    let told = buyers.call(
        "POST",
        "/v1/toys/c%201/boxes/p1/takes/n1",
        &as_buyer("u"),
        "",
    );
    let told = refused(&told, 400, "malformed");
    assert!(told["detail"].as_str().unwrap().starts_with("campaign in"));
    for bad in ["X-Device-Id: a b", "X-Device-Id: a\r\nX-Device-Id: b"] {
        let headers = [bearer(&token("u")), key("k"), bad.to_owned()];
        refused(&buyers.call("POST", TAKE, &headers, "{}"), 400, "malformed");
    }
    let no_key = [bearer(&token("u"))];
    refused(&buyers.call("POST", TAKE, &no_key, "{}"), 400, "malformed");
    let bad_key = [bearer(STOREFRONT), key("a b")];
    refused(
        &buyers.call("DELETE", "/v1/toys/c1/picture", &bad_key, ""),
        400,
        "malformed",
    );
    refused(
        &buyers.call(
            "DELETE",
            "/v1/toys/c1/picture",
            &[bearer(STOREFRONT)],
            "{\"x\":1}",
        ),
        400,
        "malformed",
    );
    let long = format!("{{\"toy\":\"{}\"}}", "x".repeat(64));
    let told = buyers.call("POST", TAKE, &as_buyer("u"), &long);
    let told = refused(&told, 413, "too_large");
    assert!(told["detail"].as_str().unwrap().contains("64 bytes"));

    let mut buyers = shop.buyers();
    let mut picture = |media: &str| {
        let head = format!(
            "PUT /v1/toys/c1/picture HTTP/1.1\r\nHost: shop\r\n{}\r\n{media}Content-Length: 3\r\n\r\nabc",
            bearer(STOREFRONT)
        );
        buyers.send(head.as_bytes());
        buyers.answer().unwrap()
    };
    let asked = picture("Content-Type: image/png\r\n").json();
    assert_eq!(
        (&asked["content_type"], &asked["body_bytes"]),
        (&json!("image/png"), &json!(3))
    );
    let told = refused(&picture(""), 415, "unsupported_media_type");
    assert!(told["detail"].as_str().unwrap().contains("image/*"));
}

fn refusals_methods_origins_and_panics_are_as_everywhere(on: On) {
    let shop = Shop::serving(on, side::services(), |front| {
        front.cors_origins = vec!["https://shop.example".into()];
    });
    let mut buyers = shop.buyers();
    let told = buyers.call("POST", TAKE, &as_buyer("u"), "{\"toy\":\"none\"}");
    assert_eq!(told.header("retry-after"), Some("2"));
    let told = refused(&told, 409, "no_more_toys");
    assert_eq!(told["type"], "urn:stampede:problem:no_more_toys");
    assert_eq!(
        (&told["left"], &told["retry_after_ms"]),
        (&json!(0), &json!(1_500))
    );

    let other = buyers.call("POST", "/v1/toys/c1/picture", &[], "");
    refused(&other, 405, "method_not_allowed");
    assert_eq!(other.header("allow"), Some("PUT, DELETE, OPTIONS"));
    let head = buyers.call("HEAD", "/v1/toys", &[], "");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let origin = "Origin: https://shop.example".to_owned();
    let preflight = buyers.call("OPTIONS", TAKE, std::slice::from_ref(&origin), "");
    assert_eq!(preflight.status, 204);
    let allowed = preflight.header("access-control-allow-headers").unwrap();
    assert!(allowed.contains("X-Device-Id"), "{allowed}");
    let answer = buyers.call("GET", "/v1/toys", &[origin], "");
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://shop.example"));

    let broken = buyers.call("POST", "/v1/toys/c1/panic", &[], "");
    refused(&broken, 500, "internal");
    assert_eq!(shop.buyers().get("/v1/toys").status, 200);
    let ready = shop.admins().get("/readyz");
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json()["notes"], json!(["toys: the box is full"]));
}

fn an_address_asks_only_so_often_and_a_storefront_by_its_own_rate(on: On) {
    let shop = Shop::serving(on, side::services(), |front| {
        front.side_address_rate = Rate::per_second(1, 3);
    });
    let mut buyers = shop.buyers();
    let mut statuses: Vec<u16> = (0..5).map(|_| buyers.get("/v1/toys").status).collect();
    let limited = buyers.call("POST", TAKE, &as_buyer("u"), "{}");
    refused(&limited, 429, "rate_limited");
    assert!(limited.header("retry-after").is_some());
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    for _ in 0..5 {
        let answer = buyers.call("GET", "/v1/toys", &[bearer(STOREFRONT)], "");
        assert_eq!(answer.status, 200);
    }
    // What is bought is limited by its sale alone.
    shop.sale("s1", 10);
    let body = "{\"item\":\"a\",\"quantity\":1}";
    assert_eq!(shop.buy("s1", "u1", "k", body).status, 201);
}
