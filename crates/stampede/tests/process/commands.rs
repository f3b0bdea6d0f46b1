//! The commands: what they say, and with what they end.

use crowd::client::{Client, Request, Timeouts};
use rusqlite::Connection;

use crate::rig::*;

on_both_stores!(
    the_example_is_applied_published_and_run_by_commands,
    a_series_is_applied_published_and_listed_together,
    paid_orders_are_printed_as_csv,
    without_a_key_or_an_engine_the_way_out_is_told,
    the_audit_log_names_the_key_that_did_it,
    a_store_is_audited_running_and_stopped,
);

const EXAMPLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../config/examples/sale.toml"
);

async fn the_example_is_applied_published_and_run_by_commands(rig: Rig) {
    let shop = Shop::start(rig);
    let draft = good(&shop.sale(&["apply", EXAMPLE]));
    assert_eq!(draft, "example-sale is a draft\n");
    assert!(good(&shop.sale(&["apply", EXAMPLE])).contains("replaced"));
    let told = good(&shop.sale(&["apply", EXAMPLE, "--publish"]));
    assert!(told.ends_with("example-sale is open\n"), "{told}");
    let list = good(&shop.sale(&["list"]));
    for word in [
        "example-sale",
        "open",
        "phone-x",
        "phone-x-case",
        "1000",
        "3000",
    ] {
        assert!(list.contains(word), "{word}: {list}");
    }
    assert!(good(&shop.sale(&["pause", "example-sale"])).contains("is paused"));
    assert!(good(&shop.sale(&["list"])).contains("paused"));
    assert!(good(&shop.sale(&["resume", "example-sale"])).contains("is open"));
    assert!(good(&shop.sale(&["close", "example-sale"])).contains("is closed"));
    assert!(failed(&shop.sale(&["resume", "example-sale"])).contains("state_conflict (409)"));
    assert!(failed(&shop.sale(&["pause", "nothing"])).contains("not_found (404)"));
    assert!(failed(&shop.sale(&["apply", EXAMPLE])).contains("no draft any more"));
    // Files that are none.
    let file = shop.rig.path("bad.toml");
    let path = file.to_str().unwrap();
    assert!(failed(&shop.sale(&["apply", path])).contains("cannot read the sale"));
    std::fs::write(&file, "sale_id = ").unwrap();
    assert!(failed(&shop.sale(&["apply", path])).contains("is no TOML"));
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    std::fs::write(&file, text.replace("stock_units", "stok_units")).unwrap();
    assert!(failed(&shop.sale(&["apply", path])).contains("stok_units"));
    std::fs::write(&file, text.replace("\"+2h\"", "\"+2w\"")).unwrap();
    assert!(failed(&shop.sale(&["apply", path])).contains("must end in s, m, h or d"));
}

const SERIES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../config/examples/series.toml"
);

async fn a_series_is_applied_published_and_listed_together(rig: Rig) {
    let shop = Shop::open(rig, &[("a", 10)]).await;
    // One bad sale: its name is told, and none of them is made.
    let file = shop.rig.path("bad.toml");
    let text = std::fs::read_to_string(SERIES).unwrap();
    std::fs::write(&file, text.replace("\"+5h\"", "\"+3h\"")).unwrap();
    let told = failed(&shop.sale(&["apply", file.to_str().unwrap(), "--publish"]));
    assert!(
        told.contains("example-session-3 (3 of 3)") && told.contains("ends_at"),
        "{told}"
    );
    assert!(!good(&shop.sale(&["list"])).contains("example-session"));
    let told = good(&shop.sale(&["apply", SERIES, "--publish"]));
    for number in 1..=3 {
        assert!(
            told.contains(&format!("example-session-{number} is published")),
            "{told}"
        );
    }
    let request = Request::get("/v1/sales?series=example-series").bare();
    let sales = shop.client().send(&request).await.unwrap().json().unwrap();
    let ids: Vec<_> = sales["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sale| sale["sale_id"].clone())
        .collect();
    assert_eq!(
        ids,
        [
            "example-session-1",
            "example-session-2",
            "example-session-3"
        ]
    );
}

async fn paid_orders_are_printed_as_csv(rig: Rig) {
    let shop = Shop::open(rig, &[("a", 1_000)]).await;
    let mut client = shop.client();
    for number in 0..205 {
        let bought = shop
            .buy(&mut client, &format!("b{number}"), "k", "a")
            .await
            .unwrap();
        let id = bought.text_field("reservation_id").unwrap();
        let paid = crowd::api::confirm(id, &shop.keys.storefront_key, &format!("p{number}"));
        assert_eq!(client.send(&paid).await.unwrap().status, 200);
    }
    shop.buy(&mut client, "unpaid", "k", "a").await.unwrap();
    let rows = good(&shop.sale(&["orders", "s1"]));
    assert_eq!(rows.lines().count(), 1 + 205);
    assert_eq!(rows.matches("reservation_id").count(), 1);
    assert!(rows.lines().last().unwrap().ends_with(",p204") && !rows.contains("unpaid"));
    let rows = good(&shop.sale(&["orders", "s1", "--state", "reserved"]));
    assert!(
        rows.lines().count() == 2 && rows.contains(",unpaid,"),
        "{rows}"
    );
    assert!(failed(&shop.sale(&["orders", "s1", "--state", "paid"])).contains("malformed (400)"));
    assert!(failed(&shop.sale(&["orders", "none"])).contains("not_found (404)"));
}

async fn without_a_key_or_an_engine_the_way_out_is_told(rig: Rig) {
    let shop = Shop::start(rig);
    let url = format!("http://{}", shop.server.admin);
    let list = ["sale", "list", "--admin-url", &url];
    let told = failed(&stampede(&list));
    assert!(
        told.contains("STAMPEDE_ADMIN_KEY") && told.contains("--data"),
        "{told}"
    );
    let told = failed(
        &command(&list)
            .env("STAMPEDE_ADMIN_KEY", "wrong")
            .output()
            .unwrap(),
    );
    assert!(
        told.contains("401") && told.contains("STAMPEDE_ADMIN_KEY"),
        "{told}"
    );
    // The storefront's key is none of an operator.
    let key = &shop.keys.storefront_key;
    let told = failed(
        &command(&list)
            .env("STAMPEDE_ADMIN_KEY", key)
            .output()
            .unwrap(),
    );
    assert!(told.contains("401") || told.contains("403"), "{told}");
    let with_key = command(&list)
        .env("STAMPEDE_ADMIN_KEY", &shop.keys.admin_key)
        .output();
    good(&with_key.unwrap());
    let empty = shop.rig.dir.path().to_str().unwrap();
    let told = failed(&stampede(&[
        "sale",
        "list",
        "--admin-url",
        &url,
        "--data",
        empty,
    ]));
    assert!(told.contains("keys.toml"), "{told}");
    let Shop {
        rig, mut server, ..
    } = shop;
    assert!(server.stop(BOUND).unwrap().success());
    let data = rig.options.data.to_str().unwrap();
    let told = failed(&stampede(&[
        "sale",
        "list",
        "--admin-url",
        &url,
        "--data",
        data,
    ]));
    assert!(
        told.contains("nobody answers") && told.contains(&url),
        "{told}"
    );
    let told = failed(&stampede(&[
        "sale",
        "list",
        "--admin-url",
        "ftp://x",
        "--data",
        data,
    ]));
    assert!(told.contains("http://"), "{told}");
}

async fn the_audit_log_names_the_key_that_did_it(rig: Rig) {
    let config = rig.path("s.toml");
    let keys = [
        ("alice", "merchant", "alices-key-000000"),
        ("bob", "viewer", "bobs-key-00000000"),
    ];
    let tables: String = keys
        .iter()
        .map(|(name, role, key)| {
            format!("[[keys.admin]]\nname = \"{name}\"\nroles = [\"{role}\"]\nkey = \"{key}\"\n")
        })
        .collect();
    std::fs::write(&config, tables).unwrap();
    let shop = Shop::start(rig.argument("--config", config.to_str().unwrap()));
    let url = format!("http://{}", shop.server.admin);
    let as_key = |key: &str, words: &[&str]| {
        let mut all = vec!["sale", "--admin-url", &url];
        all.extend(words);
        command(&all)
            .env("STAMPEDE_ADMIN_KEY", key)
            .output()
            .unwrap()
    };
    assert!(failed(&as_key(keys[1].2, &["apply", EXAMPLE])).contains("forbidden (403)"));
    good(&as_key(keys[0].2, &["apply", EXAMPLE, "--publish"]));
    good(&as_key(keys[0].2, &["pause", "example-sale"]));
    good(&as_key(keys[1].2, &["list"]));
    // Keys are configured: those of the folder open no door of an operator.
    assert!(failed(&as_key(&shop.keys.admin_key, &["list"])).contains("401"));
    let mut client = Client::new(shop.server.admin, Timeouts::default());
    let request = Request::get("/v1/admin/audit-log").bearer(keys[1].2).bare();
    let answer = client.send(&request).await.unwrap();
    assert_eq!(answer.status, 200);
    let text = String::from_utf8(answer.body).unwrap();
    let log: serde_json::Value = serde_json::from_str(&text).unwrap();
    let told: Vec<_> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|note| ["who", "outcome"].map(|field| note[field].as_str().unwrap()))
        .collect();
    // What was refused is noted as well; reads are not.
    assert_eq!(told[0], ["bob", "forbidden"], "{told:?}");
    assert_eq!(told[1..], [["alice", "ok"]; 3], "{told:?}");
    for secret in [keys[0].2, keys[1].2] {
        assert!(!text.contains(secret) && !shop.server.log().contains(secret));
    }
}

/// A shop that sold one of ten units.
async fn sold_one(rig: Rig) -> Shop {
    let shop = Shop::open(rig, &[("a", 10)]).await;
    let bought = shop.buy(&mut shop.client(), "u", "k", "a").await.unwrap();
    assert_eq!(bought.status, 201);
    shop
}

/// `stampede audit` of this shop's store.
fn audit(shop: &Shop, words: &[&str]) -> std::process::Output {
    let store = shop.rig.store();
    let mut all = vec!["audit"];
    all.extend(words);
    all.extend(store.iter().map(String::as_str));
    stampede(&all)
}

async fn a_store_is_audited_running_and_stopped(rig: Rig) {
    let mut shop = sold_one(rig).await;
    let running = good(&audit(&shop, &[]));
    assert!(running.contains("the books balance"), "{running}");
    assert!(shop.server.stop(BOUND).unwrap().success());
    assert_eq!(good(&audit(&shop, &[])), running);
    let json = good(&audit(&shop, &["--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(json["sales"][0]["items"][0]["reserved_units"], 1);
}

/// Holds that an audit ends with 3 and names what differs.
fn bad_books(output: &std::process::Output) {
    let (said, complained) = (stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(3), "{complained}");
    assert!(complained.contains("the books do not balance"));
    assert!(said.contains("counter_mismatch"), "{said}");
}

#[tokio::test]
async fn a_unit_moved_by_hand_is_found_and_there_is_no_start_from_it() {
    let mut shop = sold_one(Rig::new()).await;
    assert!(shop.server.stop(BOUND).unwrap().success());
    // The law still holds, the other accounts do not.
    let database = Connection::open(shop.rig.options.data.join("stampede.db")).unwrap();
    let change = "UPDATE item SET available_units = available_units + 1, reserved_units = reserved_units - 1";
    assert_eq!(database.execute(change, []).unwrap(), 1);
    database.close().unwrap();
    bad_books(&audit(&shop, &[]));
    let line = refusal(&serve(&shop.rig.options.data));
    assert!(line.contains("damaged"), "{line}");
    // No store.
    let empty = shop.rig.dir.path().to_str().unwrap();
    let line = refusal(&stampede(&["audit", "--data", empty]));
    assert!(line.contains(empty) && line.contains("no store"), "{line}");
    let line = refusal(&stampede(&["audit", "--data", "/nowhere/at/all"]));
    assert!(line.contains("/nowhere/at/all"), "{line}");
}

#[tokio::test]
async fn a_unit_moved_by_hand_in_redis_is_found_and_its_sale_does_not_go_on() {
    let mut shop = sold_one(Rig::on_redis()).await;
    assert!(shop.server.stop(BOUND).unwrap().success());
    let redis = shop.rig.redis();
    let moved = ["HSET", "{s:s1}:meta", "i:0", "10,0,10,0,0,"];
    assert_eq!(redis.command(&moved).unwrap(), "0");
    bad_books(&audit(&shop, &[]));
    shop.restart();
    let answer = shop.buy(&mut shop.client(), "u", "k2", "a").await.unwrap();
    assert_eq!(answer.outcome(), "sale_frozen");
    // What was sold stays sold.
    let again = shop.client().send(&shop.purchase("u", "k", "a")).await;
    assert_eq!(again.unwrap().outcome(), "replayed");
    // No store, or nobody there.
    assert!(shop.server.stop(BOUND).unwrap().success());
    let url = shop.rig.redis().url();
    shop.rig.redis().command(&["FLUSHALL"]).unwrap();
    let line = refusal(&stampede(&["audit", "--redis", &url]));
    assert!(line.contains("no store"), "{line}");
    shop.rig.redis_mut().kill().unwrap();
    let line = refusal(&stampede(&["audit", "--redis", &url]));
    assert!(line.contains("redis.sock"), "{line}");
}

#[test]
fn every_command_explains_itself() {
    for (words, told) in [
        (&["--help"][..], "Exit codes: 0 done or graceful stop"),
        (&["serve", "--help"], "--admin <ADDR>"),
        (&["demo", "--help"], "--buyers <N>"),
        (&["audit", "--help"], "--data <DIR>"),
        (&["config", "--help"], "print"),
        (&["config", "check", "--help"], "--config <FILE>"),
        (&["config", "print", "--help"], "--config <FILE>"),
        (&["backup", "--help"], "--force"),
        (&["rehearse", "--help"], "--buyers <N>"),
        (&["sale", "--help"], "--admin-url <URL>"),
        (&["sale", "list", "--help"], "--data <DIR>"),
        (&["sale", "apply", "--help"], "--publish"),
        (&["sale", "publish", "--help"], "--accept <CODE>"),
        (&["sale", "unpublish", "--help"], "<ID>"),
        (&["sale", "price", "--help"], "--reason <TEXT>"),
        (&["sale", "release", "--help"], "--key <KEY>"),
        (&["sale", "protect", "--help"], "--dry-run"),
        (&["sale", "events", "--help"], "--follow"),
        (&["sale", "pause", "--help"], "<ID>"),
        (&["sale", "resume", "--help"], "<ID>"),
        (&["sale", "close", "--help"], "<ID>"),
    ] {
        let help = good(&stampede(words));
        assert!(help.contains(told), "{words:?}: {help}");
        assert!(help.contains("Usage: "), "{words:?}: {help}");
    }
    assert!(good(&stampede(&["--version"])).starts_with("stampede 0."));
}
