//! The admin port: commands, roles, the audit log, health and metrics.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::Arc;

use common::*;
use flash_front::{DeadLetterView, Services, WebhookRefusal, WebhookView, Webhooks};
use flash_types::Timestamp;
use futures_util::future::BoxFuture;
use serde_json::json;

on_both_stores!(
    a_sale_is_drafted_replaced_published_and_run,
    stock_changes_once_per_key,
    roles_are_held_and_every_command_is_noted,
    reservations_are_told_as_csv_page_by_page,
    a_loss_is_for_operators_and_of_frozen_sales,
    webhooks_are_for_operators,
    a_plan_of_500_items_is_taken,
    health_and_metrics_need_no_key,
);

fn a_sale_is_drafted_replaced_published_and_run(on: On) {
    let shop = Shop::open(on);
    let mut admins = shop.admins();
    let mut call = |method: &str, path: &str, body: &str| {
        let answer = admins.call(method, path, &[bearer(ADMIN)], body);
        (answer.status, answer.json())
    };
    let draft = plan("s1", 5).to_string();
    let (status, made) = call("POST", "/v1/admin/sales", &draft);
    assert_eq!(
        (status, &made["state"], &made["sale_id"]),
        (201, &json!("draft"), &json!("s1"))
    );
    assert_eq!(call("POST", "/v1/admin/sales", &draft).0, 409);
    assert_eq!(call("PUT", "/v1/admin/sales/s2", &draft).0, 400);
    assert_eq!(
        call("PUT", "/v1/admin/sales/none", &plan("none", 1).to_string()).0,
        404
    );
    let (status, replaced) = call("PUT", "/v1/admin/sales/s1", &plan("s1", 7).to_string());
    assert_eq!(
        (status, &replaced["units"][0]["stock_units"]),
        (200, &json!(7))
    );
    let (status, published) = call("POST", "/v1/admin/sales/s1/publish", r#"{"accept":[]}"#);
    assert_eq!((status, &published["state"]), (200, &json!("open")));
    assert_eq!(published["units"][0]["available_units"], 7);
    assert_eq!(call("PUT", "/v1/admin/sales/s1", &draft).0, 409);
    for (verb, state) in [
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "open"),
        ("close", "closed"),
    ] {
        let (status, sale) = call("POST", &format!("/v1/admin/sales/s1/{verb}"), "{}");
        assert_eq!((status, &sale["state"]), (200, &json!(state)));
    }
    assert_eq!(call("POST", "/v1/admin/sales/s1/resume", "{}").0, 409);
    assert_eq!(call("POST", "/v1/admin/sales/none/pause", "{}").0, 404);
    assert_eq!(
        call("GET", "/v1/admin/sales/none/audit", "").1["detail"],
        "No such sale."
    );
    let stock = r#"{"delta_units":1,"reason":"r"}"#;
    let headers = [bearer(ADMIN), key("k")];
    for (path, is_sale) in [
        ("/v1/admin/sales/none/items/a/stock", false),
        ("/v1/admin/sales/s1/items/none/stock", true),
    ] {
        let answer = shop.admins().call("POST", path, &headers, stock);
        assert_eq!(answer.status, 404);
        assert_eq!(
            answer.json()["detail"] != "No such sale.",
            is_sale,
            "{path}"
        );
    }
    for (accept, status) in [("deep_discount", 409), ("cheap", 400)] {
        let body = json!({"accept": [accept]}).to_string();
        let path = "/v1/admin/sales/s1/publish";
        assert_eq!(call("POST", path, &body).0, status, "{accept}");
    }
    let (_, sales) = call("GET", "/v1/admin/sales", "");
    assert_eq!(sales["items"].as_array().unwrap().len(), 1);
    assert_eq!(call("GET", "/v1/admin/sales/s1", "").1["title"], "A sale");
    assert_eq!(call("GET", "/v1/admin/sales/none", "").0, 404);
}

fn stock_changes_once_per_key(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 5);
    let mut admins = shop.admins();
    let path = "/v1/admin/sales/s1/items/a/stock";
    let mut change = |idempotency_key: &str, delta: i64| {
        let body = json!({"delta_units": delta, "reason": "a pallet came"}).to_string();
        let answer = admins.call("POST", path, &[bearer(ADMIN), key(idempotency_key)], &body);
        (answer.status, answer.json()["applied_delta_units"].as_i64())
    };
    assert_eq!(change("c1", 10), (200, Some(10)));
    assert_eq!(change("c1", 10), (200, Some(10)));
    assert_eq!(change("c2", -100), (200, Some(-15)));
    let without = admins.call(
        "POST",
        path,
        &[bearer(ADMIN)],
        r#"{"delta_units":1,"reason":"r"}"#,
    );
    assert_eq!(without.status, 400);
    let nowhere = "/v1/admin/sales/s1/items/zzz/stock";
    let body = r#"{"delta_units":1,"reason":"r"}"#;
    assert_eq!(
        admins
            .call("POST", nowhere, &[bearer(ADMIN), key("c3")], body)
            .status,
        404
    );
}

/// Three dead letters of the webhook `shop`, and one event that is known.
struct Relays;

impl Webhooks for Relays {
    fn list(&self) -> Vec<WebhookView> {
        vec![WebhookView {
            name: "shop".into(),
            url: "https://shop.example/".into(),
            state: "down",
            waiting_events: 1,
            parked_events: 2,
            dead_letters: 3,
            oldest_at: None,
            last_success_at: None,
            last_error_at: Some(Timestamp(0)),
            last_error: Some("answered 500".into()),
        }]
    }

    fn dead(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetterView>, WebhookRefusal>> {
        let letter = |number: u64| DeadLetterView {
            number,
            event_id: format!("e1-1-{number}"),
            webhook: "shop".into(),
            at: Timestamp(0),
            attempts: 40,
            dead_at: Timestamp(0),
            last_error: "answered 500".into(),
        };
        let letters = (after + 1..=3).take(limit).map(letter).collect();
        Box::pin(async move { Ok(letters) })
    }

    fn redeliver(
        &self,
        event_id: String,
        webhook: Option<String>,
    ) -> BoxFuture<'_, Result<Vec<String>, WebhookRefusal>> {
        let told = match (event_id.as_str(), webhook.as_deref()) {
            ("e1-1-1", None | Some("shop")) => Ok(vec!["shop".to_owned()]),
            ("e1-1-2", _) => Err(WebhookRefusal::Busy("shop is full".into())),
            ("e1-1-3", _) => Err(WebhookRefusal::Unavailable),
            _ => Err(WebhookRefusal::NotFound),
        };
        Box::pin(async move { told })
    }
}

fn webhooks_are_for_operators(on: On) {
    let services = Services {
        webhooks: Some(Arc::new(Relays)),
        ..Services::default()
    };
    let shop = Shop::serving(on, services, |_| {});
    let mut admins = shop.admins();
    let mut call = |method: &str, path: &str, key: &str, body: &str| {
        let answer = admins.call(method, path, &[bearer(key)], body);
        (answer.status, answer.json())
    };
    let (status, page) = call("GET", "/v1/admin/webhooks", ADMIN, "");
    assert_eq!(status, 200);
    assert_eq!(page["next_cursor"], json!(null));
    assert_eq!(page["items"][0]["name"], "shop");
    assert_eq!(
        page["items"][0]["last_error_at"],
        "1970-01-01T00:00:00.000Z"
    );
    let (_, page) = call("GET", "/v1/admin/webhooks?dead=true&limit=2", ADMIN, "");
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&page["items"][1]["event_id"], &page["next_cursor"]),
        (&json!("e1-1-2"), &json!("2"))
    );
    let (_, rest) = call("GET", "/v1/admin/webhooks?dead=true&cursor=2", ADMIN, "");
    assert_eq!(
        (
            rest["items"].as_array().unwrap().len(),
            &rest["next_cursor"]
        ),
        (1, &json!(null))
    );
    assert_eq!(
        call("GET", "/v1/admin/webhooks?dead=maybe", ADMIN, "").0,
        400
    );
    assert_eq!(call("GET", "/v1/admin/webhooks", VIEWER, "").0, 403);
    let mut again = |event: &str, key: &str, body: &str| {
        call(
            "POST",
            &format!("/v1/admin/webhooks/{event}/redeliver"),
            key,
            body,
        )
    };
    let (status, told) = again("e1-1-1", ADMIN, r#"{"webhook":"shop"}"#);
    assert_eq!(
        (status, told),
        (202, json!({"event_id": "e1-1-1", "webhooks": ["shop"]}))
    );
    assert_eq!(again("e1-1-1", ADMIN, "").0, 202);
    assert_eq!(again("e1-1-1", VIEWER, "{}").0, 403);
    assert_eq!(again("e1-1-1", ADMIN, r#"{"name":"shop"}"#).0, 400);
    assert_eq!(again("e1-1-1", ADMIN, r#"{"webhook":"other"}"#).0, 404);
    assert_eq!(again("e1-1-2", ADMIN, "{}").0, 409);
    assert_eq!(again("e1-1-3", ADMIN, "{}").0, 503);
    let (status, missing) = again("nonsense", ADMIN, "{}");
    assert_eq!((status, &missing["outcome"]), (404, &json!("not_found")));
    // Without relays there is nothing at these paths.
    let bare = Shop::open(On::Memory);
    let path = "/v1/admin/webhooks";
    assert_eq!(
        bare.admins().call("GET", path, &[bearer(ADMIN)], "").status,
        404
    );
}

fn roles_are_held_and_every_command_is_noted(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 5);
    let mut admins = shop.admins();
    for path in [
        "/v1/admin/sales",
        "/v1/admin/sales/s1",
        "/v1/admin/sales/s1/audit",
        "/v1/admin/sales/s1/reservations",
        "/v1/admin/audit-log",
    ] {
        assert_eq!(
            admins.call("GET", path, &[bearer(VIEWER)], "").status,
            200,
            "{path}"
        );
        assert_eq!(
            admins.call("GET", path, &[bearer(STOREFRONT)], "").status,
            401,
            "{path}"
        );
        assert_eq!(admins.call("GET", path, &[], "").status, 401, "{path}");
    }
    let denied = admins.call("POST", "/v1/admin/sales/s1/pause", &[bearer(VIEWER)], "{}");
    assert_eq!(
        (denied.status, denied.outcome().as_str()),
        (403, "forbidden")
    );
    let bad = admins.call(
        "POST",
        "/v1/admin/sales",
        &[bearer(ADMIN)],
        r#"{"sale_id":"s9"}"#,
    );
    assert_eq!((bad.status, bad.outcome().as_str()), (400, "malformed"));
    let conflict = admins.call("POST", "/v1/admin/sales/s1/resume", &[bearer(ADMIN)], "{}");
    assert_eq!(conflict.status, 200, "its effect stands");
    let csv = admins.call(
        "GET",
        "/v1/admin/sales/s1/reservations?format=xml",
        &[bearer(ADMIN)],
        "",
    );
    assert_eq!(csv.status, 400);
    let mut notes = Vec::new();
    poll("the notes are written", || {
        let log = admins
            .call(
                "GET",
                "/v1/admin/audit-log?limit=200",
                &[bearer(VIEWER)],
                "",
            )
            .json();
        notes = log["items"].as_array().unwrap().clone();
        let is_there = |who: &str, command: &str, outcome: &str| {
            notes.iter().any(|note| {
                note["who"] == who && note["command"] == command && note["outcome"] == outcome
            })
        };
        is_there("watcher", "sale.pause", "forbidden")
            && is_there("root", "sale.create", "malformed")
    });
    assert!(
        notes
            .iter()
            .any(|note| note["sale_id"] == "s1" && note["outcome"] == "ok")
    );
    let first = admins
        .call("GET", "/v1/admin/audit-log?limit=1", &[bearer(VIEWER)], "")
        .json();
    let next = first["next_cursor"].as_str().unwrap();
    let second = admins.call(
        "GET",
        &format!("/v1/admin/audit-log?limit=1&cursor={next}"),
        &[bearer(VIEWER)],
        "",
    );
    assert_ne!(
        second.json()["items"][0]["number"],
        first["items"][0]["number"]
    );
}

fn reservations_are_told_as_csv_page_by_page(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 9);
    let lines = r#"{"lines":[{"item":"a","quantity":2},{"item":"b","quantity":1}]}"#;
    let paid = shop.buy("s1", "-1", "k1", lines).json();
    let id = paid["reservation_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/reservations/{id}/confirm");
    let headers = [bearer(STOREFRONT)];
    let confirmed = shop
        .buyers()
        .call("POST", &path, &headers, r#"{"payment_ref":"p-1"}"#);
    assert_eq!(confirmed.status, 200);
    for buyer in ["u2", "u3"] {
        let body = r#"{"item":"a","quantity":1}"#;
        assert_eq!(shop.buy("s1", buyer, "k", body).status, 201);
    }
    let mut admins = shop.admins();
    let mut get = |query: &str| {
        let path = format!("/v1/admin/sales/s1/reservations?format=csv&{query}");
        let answer = admins.call("GET", &path, &[bearer(VIEWER)], "");
        assert_eq!(answer.status, 200);
        assert!(
            answer
                .header("content-type")
                .unwrap()
                .starts_with("text/csv")
        );
        let next = answer.header("x-next-cursor").map(str::to_owned);
        let text = String::from_utf8(answer.body).unwrap();
        (
            text.split_terminator("\r\n")
                .map(str::to_owned)
                .collect::<Vec<_>>(),
            next,
        )
    };
    let (rows, next) = get("state=confirmed");
    assert_eq!(next, None);
    assert!(
        rows[0].starts_with("reservation_id,sale_id,buyer_id,state,item,quantity,refunded_units,")
    );
    let at = paid["created_at"].as_str().unwrap();
    assert_eq!(
        rows[1..],
        [
            format!("{id},s1,'-1,confirmed,a,2,0,100,CNY,{at},p-1"),
            format!("{id},s1,'-1,confirmed,b,1,0,50,CNY,{at},p-1"),
        ]
    );
    let (rows, next) = get("limit=2");
    assert_eq!(rows.len(), 1 + 2 + 1);
    let (rows, next) = get(&format!("limit=2&cursor={}", next.unwrap()));
    assert_eq!((rows.len(), next), (2, None));
    assert!(rows[1].contains(",u3,reserved,a,1,0,100,CNY,"), "{rows:?}");
}

fn a_loss_is_for_operators_and_of_frozen_sales(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 5);
    let mut admins = shop.admins();
    for (method, verb, body) in [("GET", "loss", ""), ("POST", "accept-loss", "{}")] {
        for (key, sale, status, outcome) in [
            (ADMIN, "s1", 409, "state_conflict"),
            (ADMIN, "none", 404, "not_found"),
            (VIEWER, "s1", 403, "forbidden"),
            (STOREFRONT, "s1", 401, "unauthenticated"),
        ] {
            let path = format!("/v1/admin/sales/{sale}/{verb}");
            let answer = admins.call(method, &path, &[bearer(key)], body);
            let told = (answer.status, answer.outcome());
            assert_eq!(told, (status, outcome.to_owned()), "{path} as {key}");
        }
    }
    assert_eq!(
        shop.buy("s1", "u1", "k", r#"{"item":"a","quantity":1}"#)
            .status,
        201
    );
}

fn a_plan_of_500_items_is_taken(on: On) {
    let shop = Shop::open(on);
    let mut admins = shop.admins();
    let with = |count: usize| {
        let mut plan = plan("big", 1);
        plan["items"] = (0..count)
            .map(|number| json!({"item": format!("i{number}"), "title": "T", "sale_price_minor": 1, "stock_units": 1}))
            .collect();
        plan.to_string()
    };
    assert_eq!(
        admins
            .call("POST", "/v1/admin/sales", &[bearer(ADMIN)], &with(501))
            .status,
        400
    );
    assert_eq!(
        admins
            .call("POST", "/v1/admin/sales", &[bearer(ADMIN)], &with(500))
            .status,
        201
    );
}

fn health_and_metrics_need_no_key(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 5);
    assert_eq!(
        shop.buy("s1", "u1", "k1", r#"{"item":"a","quantity":2}"#)
            .status,
        201
    );
    assert_eq!(
        shop.buy("s1", "u1", "k1", r#"{"item":"a","quantity":2}"#)
            .status,
        200
    );
    assert_eq!(shop.buy("s1", "u1", "k2", "{}").status, 400);
    let mut admins = shop.admins();
    assert_eq!(admins.get("/healthz").status, 200);
    let ready = admins.get("/readyz");
    assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
    let metrics = String::from_utf8(admins.get("/metrics").body).unwrap();
    for line in [
        "stampede_purchases_total{outcome=\"reserved\"} 1",
        "stampede_purchases_total{outcome=\"replayed\"} 1",
        "stampede_purchases_total{outcome=\"malformed\"} 1",
        "stampede_purchase_seconds_count 2",
        "stampede_item_units{sale=\"s1\",item=\"a\",state=\"reserved\"} 2",
        "stampede_item_units{sale=\"s1\",item=\"a\",state=\"available\"} 3",
        "stampede_in_flight 0",
    ] {
        assert!(
            metrics.lines().any(|known| known == line),
            "{line}\n{metrics}"
        );
    }
    assert!(metrics.contains("stampede_connections{listener=\"public\"}"));
    assert!(metrics.contains("\nstampede_frozen_sales 0\n"));
}
