//! The drill for a wrong price, by commands: found at publish, taken back, corrected, and who is due what.

use std::process::Command;

use crowd::wait::poll_until_async;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::rig::*;

on_both_stores!(
    a_wrong_price_is_found_accepted_or_taken_back,
    a_price_is_corrected_and_differences_are_due,
    units_are_released_by_hand_and_events_are_followed,
);

const PLAN: &str = r#"
sale_id = "s1"
title = "A sale"
starts_at = "now"
ends_at = "+2h"
currency = "CNY"
price_protection_days = 7
[[items]]
item = "a"
title = "A"
list_price_minor = 200000
sale_price_minor = 9900
stock_units = 10
waves = [{ at = "2999-01-01T00:00:00Z", units = 4 }]
"#;

/// The plan in a file, without its wave unless it may be so late.
fn plan(shop: &Shop, change: impl FnOnce(String) -> String) -> String {
    let file = shop.rig.path("plan.toml");
    std::fs::write(
        &file,
        change(PLAN.replace("2999-01-01T00:00:00Z", &in_an_hour())),
    )
    .unwrap();
    file.to_str().unwrap().to_owned()
}

fn in_an_hour() -> String {
    let now = i64::try_from(crowd::log::now_ms()).unwrap();
    flash_types::Timestamp(now + 3_600_000).to_string()
}

async fn a_wrong_price_is_found_accepted_or_taken_back(rig: Rig) {
    let shop = Shop::start(rig);
    let file = plan(&shop, |plan| plan);
    let told = failed(&shop.sale(&["apply", &file, "--publish"]));
    for word in [
        "price_guard (409)",
        "deep_discount",
        "Correct the prices",
        "--accept deep_discount",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert!(failed(&shop.sale(&["publish", "s1"])).contains("--accept deep_discount"));
    let told = failed(&shop.sale(&["publish", "s1", "--accept", "cheap"]));
    assert!(
        told.contains("\"cheap\"") && told.contains("undercuts_announced_sale"),
        "{told}"
    );
    let told = good(&shop.sale(&[
        "publish",
        "s1",
        "--accept",
        "deep_discount",
        "below_floor_price",
    ]));
    assert_eq!(told, "s1 is open\n");
    assert_eq!(good(&shop.sale(&["unpublish", "s1"])), "s1 is draft\n");
    let told = good(&shop.sale(&["apply", &file, "--publish", "--accept", "deep_discount"]));
    assert!(told.ends_with("s1 is open\n"), "{told}");
    assert!(
        stderr(&shop.sale(&["apply", &file, "--accept", "deep_discount"])).contains("--publish")
    );
    // Too late for that.
    let bought = shop.buy(&mut shop.client(), "u", "k", "a").await.unwrap();
    assert_eq!(bought.status, 201);
    let told = failed(&shop.sale(&["unpublish", "s1"]));
    assert!(
        told.contains("state_conflict (409)") && told.contains("pause the sale"),
        "{told}"
    );
}

async fn a_price_is_corrected_and_differences_are_due(rig: Rig) {
    let shop = Shop::start(rig);
    let file = plan(&shop, |plan| plan.replace("200000", "20000"));
    good(&shop.sale(&["apply", &file, "--publish"]));
    let bought = shop.buy(&mut shop.client(), "u", "k", "a").await.unwrap();
    let id = bought.text_field("reservation_id").unwrap().to_owned();
    let confirm = crowd::client::Request::post(&format!("/v1/reservations/{id}/confirm"))
        .bearer(&shop.keys.storefront_key)
        .json(r#"{"payment_ref":"p1"}"#);
    assert_eq!(shop.client().send(&confirm).await.unwrap().status, 200);
    let price = ["price", "s1", "a", "9000", "--reason", "a digit was wrong"];
    let told = failed(&shop.sale(&price));
    assert!(told.contains("stampede sale pause s1"), "{told}");
    good(&shop.sale(&["pause", "s1"]));
    let done = shop.sale(&price);
    let (csv, told) = (good(&done), stderr(&done));
    assert!(told.contains("9900 to 9000"), "{told}");
    let mut lines = csv.lines();
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("reservation_id,buyer_id,state,")
    );
    let row: Vec<_> = lines.next().unwrap().split(',').collect();
    assert_eq!(row[..7], [&id, "u", "confirmed", "1", "0", "9900", "p1"]);
    assert_eq!(lines.next(), None);
    assert!(
        failed(&shop.sale(&["price", "s1", "none", "1", "--reason", "r"])).contains("not_found")
    );
    assert!(failed(&shop.sale(&["price", "s1", "a", "1", "--reason", " "])).contains("reason"));
    assert!(!shop.sale(&["price", "s1", "a", "1"]).status.success());
    // The difference is shown, told, and told no more.
    for (words, due, remark) in [
        (
            &["protect", "s1", "--dry-run"][..],
            1,
            "1 differences would be due, 900 in all",
        ),
        (
            &["protect", "s1"],
            1,
            "1 differences are due now, 900 in all",
        ),
        (&["protect", "s1"], 0, "0 differences are due now"),
    ] {
        let done = shop.sale(words);
        let lines: Vec<Value> = good(&done)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), due, "{words:?}");
        assert!(
            lines
                .iter()
                .all(|line| line["amount_minor"] == 900 && line["payment_ref"] == "p1")
        );
        assert!(
            stderr(&done).contains(remark),
            "{words:?}: {}",
            stderr(&done)
        );
    }
}

async fn units_are_released_by_hand_and_events_are_followed(rig: Rig) {
    let shop = Shop::start(rig);
    let file = plan(&shop, |plan| plan.replace("200000", "20000"));
    good(&shop.sale(&["apply", &file, "--publish"]));
    for _ in 0..2 {
        let told = good(&shop.sale(&["release", "s1", "a", "3", "--key", "k1"]));
        assert_eq!(told, "3 units of a are released\n");
    }
    let told = failed(&shop.sale(&["release", "s1", "a", "2"]));
    assert!(told.contains("1 units of a are unreleased"), "{told}");
    let told = failed(&shop.sale(&["release", "s1", "a", "2", "--key", "a b"]));
    assert!(told.contains("--key"), "{told}");
    let events = |words: &[&str]| -> Vec<Value> {
        let mut all = vec!["events"];
        all.extend(words);
        let told = good(&shop.sale(&all));
        told.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    // The list of all sales ends just before the store's present.
    let all = poll_until_async(BOUND, LOOK, async || {
        Some(events(&[])).filter(|all| all.len() >= 3)
    });
    let all = all.await.unwrap();
    let types: Vec<_> = all
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["sale.published", "sale.opened", "sale.wave"]);
    assert_eq!(events(&["--sale", "s1"]), all);
    let first = all[0]["id"].as_str().unwrap();
    assert_eq!(events(&["--after", first]), all[1..]);
    assert!(failed(&shop.sale(&["events", "--sale", "none"])).contains("not_found"));
    assert!(failed(&shop.sale(&["events", "--after", "x"])).contains("after"));
    // What is to come.
    let url = format!("http://{}", shop.server.admin);
    let last = all[2]["id"].as_str().unwrap();
    let mut follow: Command = command(&[
        "sale", "events", "--sale", "s1", "--follow", "--after", last,
    ]);
    follow.args(["--admin-url", &url, "--data", shop.rig.data()]);
    let mut follow = ByHand::start(follow, shop.rig.dir.path());
    let bought = shop.buy(&mut shop.client(), "u", "k", "a").await.unwrap();
    assert_eq!(bought.status, 201);
    assert!(
        follow.line().contains("reservation.reserved"),
        "{}",
        follow.said()
    );
    follow.end(Signal::SIGTERM);
}
