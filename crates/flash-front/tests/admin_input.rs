//! What admins may say, and who: the roles of the commands, what is malformed, the bounds of a plan's fields.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may")]

mod common;

use common::*;
use flash_types::Timestamp;
use serde_json::{Value, json};

on_both_stores!(
    commands_are_held_to_their_roles_and_noted,
    bad_commands_are_malformed,
    a_plan_s_fields_are_held_to_their_bounds,
);

fn told(answer: &Answer) -> (u16, String) {
    (answer.status, answer.outcome())
}

fn refused(status: u16, outcome: &str) -> (u16, String) {
    (status, outcome.to_owned())
}

/// Method, path, body, and the least role that may.
const COMMANDS: [(&str, &str, &str, &str); 8] = [
    ("POST", "sales/s1/unpublish", "{}", MERCHANT),
    (
        "PUT",
        "sales/s1/items/a/price",
        r#"{"sale_price_minor":1,"reason":"r"}"#,
        MERCHANT,
    ),
    (
        "POST",
        "sales/s1/items/a/release",
        r#"{"units":1}"#,
        MERCHANT,
    ),
    ("POST", "sales/s1/price-protection", "{}", MERCHANT),
    ("POST", "sales/s1/publish", "{}", MERCHANT),
    ("GET", "sales/s1/price-protection", "", VIEWER),
    ("GET", "events", "", OPERATOR),
    ("GET", "events?sale=s1", "", OPERATOR),
];

fn commands_are_held_to_their_roles_and_noted(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 5);
    let body = r#"{"item":"a","quantity":1}"#;
    assert_eq!(shop.buy("s1", "u1", "k1", body).status, 201);
    let mut admins = shop.admins();
    let mut is_let_in = |method: &str, path: &str, key: &str, body: &str| {
        let path = format!("/v1/admin/{path}");
        let answer = admins.call(method, &path, &[bearer(key)], body);
        match told(&answer) {
            (403, outcome) if outcome == "forbidden" => false,
            (200, _) => true,
            // Let in, and then refused by the state of the sale.
            (409, outcome) if outcome == "state_conflict" => true,
            other => panic!("{method} {path}: {other:?}"),
        }
    };
    for (method, path, body, least) in COMMANDS {
        for key in [VIEWER, MERCHANT, OPERATOR, ADMIN] {
            let may = key == ADMIN || key == least || least == VIEWER;
            assert_eq!(
                is_let_in(method, path, key, body),
                may,
                "{method} {path} as {key}"
            );
        }
        let path = format!("/v1/admin/{path}");
        for headers in [vec![], vec![bearer(STOREFRONT)], vec![bearer(&token("u1"))]] {
            let answer = shop.admins().call(method, &path, &headers, body);
            assert_eq!(
                told(&answer),
                refused(401, "unauthenticated"),
                "{method} {path}"
            );
            let elsewhere = shop.buyers().call(method, &path, &[bearer(ADMIN)], body);
            assert_eq!(elsewhere.status, 404, "{method} {path}");
        }
    }
    let mut notes = Vec::new();
    poll("every refusal is noted", || {
        notes = shop
            .admin("GET", "/v1/admin/audit-log?limit=200", "")
            .items();
        let is_there = |command: &str, who: &str, outcome: &str| {
            notes.iter().any(|note| {
                note["command"] == command && note["who"] == who && note["outcome"] == outcome
            })
        };
        ["sale.unpublish", "sale.change_price", "sale.release"]
            .iter()
            .all(|command| {
                is_there(command, "watcher", "forbidden")
                    && is_there(command, "mechanic", "forbidden")
                    && is_there(command, "seller", "state_conflict")
            })
            && is_there("sale.protect_prices", "watcher", "forbidden")
            && is_there("events.read", "seller", "forbidden")
    });
}

fn bad_commands_are_malformed(on: On) {
    let shop = Shop::open(on);
    shop.sale_with("s1", 5, |plan| plan["price_protection_days"] = json!(1));
    let price = |price: &str| format!(r#"{{"sale_price_minor":{price},"reason":"r"}}"#);
    let long = "x".repeat(257);
    let bad = [
        ("POST", "s1/unpublish", r#"{"x":1}"#.to_owned()),
        ("POST", "s1/unpublish", "[]".into()),
        ("POST", "a%20b/unpublish", "{}".into()),
        ("PUT", "s1/items/a/price", "{}".into()),
        ("PUT", "s1/items/a/price", price("-1")),
        ("PUT", "s1/items/a/price", price("1.5")),
        ("PUT", "s1/items/a/price", price("\"1\"")),
        ("PUT", "s1/items/a/price", price("1000000000001")),
        (
            "PUT",
            "s1/items/a/price",
            r#"{"sale_price_minor":1}"#.into(),
        ),
        (
            "PUT",
            "s1/items/a/price",
            r#"{"sale_price_minor":1,"reason":" "}"#.into(),
        ),
        (
            "PUT",
            "s1/items/a/price",
            format!(r#"{{"sale_price_minor":1,"reason":"{long}"}}"#),
        ),
        (
            "PUT",
            "s1/items/a/price",
            r#"{"sale_price_minor":1,"reason":"a\nb"}"#.into(),
        ),
        ("PUT", "s1/items/a%20b/price", price("1")),
        ("POST", "s1/items/a/release", "{}".into()),
        ("POST", "s1/items/a/release", r#"{"units":0}"#.into()),
        ("POST", "s1/items/a/release", r#"{"units":-1}"#.into()),
        (
            "POST",
            "s1/items/a/release",
            r#"{"units":4294967296}"#.into(),
        ),
        (
            "POST",
            "s1/items/a/release",
            r#"{"units":1,"units":1}"#.into(),
        ),
        (
            "POST",
            "s1/items/a/release",
            r#"{"units":1,"item":"a"}"#.into(),
        ),
        ("POST", "s1/items/a%20b/release", r#"{"units":1}"#.into()),
        ("POST", "s1/price-protection", r#"{"x":1}"#.into()),
        ("POST", "s1/price-protection?limit=0", "{}".into()),
        ("POST", "s1/price-protection?limit=201", "{}".into()),
        ("POST", "s1/price-protection?cursor=x", "{}".into()),
        ("POST", "s1/price-protection?after=1", "{}".into()),
        ("GET", "s1/price-protection?limit=x", String::new()),
        ("GET", "s1/price-protection?cursor=-1", String::new()),
        ("POST", "s1/publish", r#"{"accept":"deep_discount"}"#.into()),
        ("POST", "s1/publish", r#"{"accept":[null]}"#.into()),
        (
            "POST",
            "s1/publish",
            r#"{"accept":["DEEP_DISCOUNT"]}"#.into(),
        ),
        ("POST", "s1/publish", r#"{"accepts":[]}"#.into()),
    ];
    for (method, path, body) in bad {
        let answer = shop.admin(method, &format!("/v1/admin/sales/{path}"), &body);
        assert_eq!(
            told(&answer),
            refused(400, "malformed"),
            "{method} {path} {body}"
        );
    }
    let bad_key = [bearer(ADMIN), key("a b")];
    let path = "/v1/admin/sales/s1/items/a/release";
    let answer = shop.admins().call("POST", path, &bad_key, r#"{"units":1}"#);
    assert_eq!(told(&answer), refused(400, "malformed"));
    // Nothing of it was done.
    let sale = shop.admin("GET", "/v1/admin/sales/s1", "").json();
    assert_eq!(sale["state"], "open");
    assert_eq!(sale["items"][0]["sale_price_minor"], 100);
}

fn a_plan_s_fields_are_held_to_their_bounds(on: On) {
    let shop = Shop::open(on);
    let base = plan("s1", 5);
    let (start, end) = (&base["starts_at"], &base["ends_at"]);
    let at = |ms: i64| json!(Timestamp(now().0 + ms));
    let wave = |at: &Value, units: i64| json!({"at": at, "units": units});
    let many = |of: &dyn Fn(i64) -> Value| (1..=101).map(of).collect::<Value>();
    let item = |field: &'static str, value: Value| (true, field, value);
    let sale = |field: &'static str, value: Value| (false, field, value);
    for (is_item, field, value) in [
        item("floor_price_minor", json!(-1)),
        item("floor_price_minor", json!(1_000_000_000_001_i64)),
        item("floor_price_minor", json!("1")),
        item("waves", json!({})),
        item("waves", json!([{"at": at(1_000)}])),
        item("waves", json!([{"at": "soon", "units": 1}])),
        item("waves", json!([{"at": at(1_000), "units": 1, "x": 1}])),
        item("waves", json!([wave(&at(1_000), 0)])),
        item("waves", json!([wave(&at(1_000), 6)])),
        item("waves", json!([wave(&at(1_000), 3), wave(&at(2_000), 3)])),
        item("waves", json!([wave(&at(2_000), 1), wave(&at(1_000), 1)])),
        item("waves", json!([wave(&at(1_000), 1), wave(&at(1_000), 1)])),
        item("waves", json!([wave(end, 1)])),
        item("waves", many(&|place| wave(&at(1_000 * place), 0))),
        sale("price_protection_days", json!(0)),
        sale("price_protection_days", json!(366)),
        sale("price_protection_days", json!(1.5)),
        sale("re_release_at", json!(at(1_000))),
        sale("re_release_at", json!(["soon"])),
        sale("re_release_at", json!([start])),
        sale("re_release_at", json!([end])),
        sale("re_release_at", json!([at(2_000), at(1_000)])),
        sale("re_release_at", many(&|place| at(1_000 * place))),
    ] {
        let mut plan = base.clone();
        if is_item {
            plan["items"][0][field] = value.clone();
        } else {
            plan[field] = value.clone();
        }
        let answer = shop.admin("POST", "/v1/admin/sales", &plan.to_string());
        assert_eq!(told(&answer), refused(400, "malformed"), "{field} {value}");
    }
    let mut whole = base.clone();
    whole["price_protection_days"] = json!(365);
    whole["re_release_at"] = json!([at(1_000_000), at(2_000_000)]);
    whole["items"][0]["floor_price_minor"] = json!(100);
    whole["items"][0]["waves"] = json!([wave(start, 1), wave(&at(1_000_000), 4)]);
    let made = shop.admin("POST", "/v1/admin/sales", &whole.to_string());
    assert_eq!(made.status, 201, "{made:?}");
    let made = shop.admin("GET", "/v1/admin/sales/s1", "").json();
    for field in ["price_protection_days", "re_release_at"] {
        assert_eq!(made[field], whole[field], "{field}");
    }
    for field in ["floor_price_minor", "waves"] {
        assert_eq!(made["items"][0][field], whole["items"][0][field], "{field}");
    }
}
