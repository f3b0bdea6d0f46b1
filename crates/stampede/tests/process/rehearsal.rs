//! Rehearsals: by a running engine whose books stay as they are, and of a file without one.

use std::path::Path;

use crowd::client::{Client, Request, Timeouts};
use crowd::log::now_ms;
use crowd::wait::{poll_until, poll_until_async};
use flash_types::Timestamp;
use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::rig::*;
use crate::webhooks::target::{Answer, Server};

/// A sale of an hour that starts in an hour.
fn planned(stock: u32) -> Value {
    let now = i64::try_from(now_ms()).unwrap();
    let mut sale = sale(&[("a", stock)]);
    sale["starts_at"] = json!(Timestamp(now + 3_600_000));
    sale["ends_at"] = json!(Timestamp(now + 7_200_000));
    sale["items"][0]["units_per_buyer_max"] = json!(1);
    sale["expected_crowd"] = json!(120);
    sale
}

/// Whether a data folder holds the folder of a copy.
fn has_copy(data: &Path) -> bool {
    let mut entries = std::fs::read_dir(data).unwrap();
    entries.any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().starts_with("rehearsal-")
    })
}

/// All rows of the store but batches and notes.
fn facts(data: &Path) -> Vec<String> {
    let database = Connection::open(data.join("stampede.db")).unwrap();
    let rows = "SELECT sale_id || state || definition FROM sale UNION ALL \
                SELECT item || stock_units || available_units || reserved_units || sold_units FROM item UNION ALL \
                SELECT serial || type FROM event UNION ALL SELECT serial || buyer FROM reservation";
    let mut rows = database.prepare(rows).unwrap();
    let rows = rows.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

async fn post(shop: &Shop, path: &str, body: &Value) -> (u16, Value) {
    let timeouts = Timeouts {
        answer: BOUND * 2,
        ..Timeouts::default()
    };
    let mut client = Client::new(shop.server.admin, timeouts);
    let request = Request::post(path)
        .bearer(&shop.keys.admin_key)
        .json(&body.to_string());
    let answer = client.send(&request).await.unwrap();
    (answer.status, answer.json().unwrap())
}

const REHEARSE: &str = "/v1/admin/sales/s1/rehearse";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_is_played_against_a_copy_and_its_own_books_stay() {
    let mut shop = Shop::start(Rig::new());
    let data = shop.rig.options.data.clone();
    assert_eq!(post(&shop, "/v1/admin/sales", &planned(20)).await.0, 201);
    assert_eq!(post(&shop, REHEARSE, &json!({"buyers": 0})).await.0, 400);
    let (status, report) = post(&shop, REHEARSE, &json!({"seconds": 3})).await;
    assert_eq!(status, 200, "{report}\n{}", shop.server.log());
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(report["items"][0]["stock_units"], 20, "{report}");
    let (sold, left) = (
        &report["items"][0]["sold_units"],
        &report["items"][0]["left_units"],
    );
    assert_eq!(
        sold.as_u64().unwrap() + left.as_u64().unwrap(),
        20,
        "{report}"
    );
    assert!(report["items"][0]["sold_out_after_ms"].is_u64(), "{report}");
    // Each bought one; some of these may not have paid.
    assert!(
        count("buyers_served") >= sold.as_u64().unwrap() && count("buyers") <= 120,
        "{report}"
    );
    assert!(
        report["refused"]["sold_out"].as_u64().unwrap() > 0,
        "{report}"
    );
    assert_eq!(report["holds"], true, "{report}");
    assert!(!has_copy(&data));

    // The sale itself: still a draft with all its units; one event (its draft), and two notes, which are of the admin.
    let (_, audit) = (0, shop.api().audit(SALE).await.unwrap());
    assert_eq!(
        (audit.items[0].stock_units, audit.items[0].reserved_units),
        (20, 0)
    );
    assert_eq!(
        shop.metric("stampede_purchases_total{outcome=\"reserved\"}")
            .await,
        0.0
    );
    let stood = facts(&data);
    assert_eq!(stood.len(), 3, "{stood:?}");
    let log = shop.sale(&["list"]);
    assert!(good(&log).contains("draft"));
    let mut client = Client::new(shop.server.admin, Timeouts::default());
    let request = Request::get("/v1/admin/audit-log")
        .bearer(&shop.keys.admin_key)
        .bare();
    let notes = client.send(&request).await.unwrap().json().unwrap();
    let commands: Vec<_> = notes["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|note| {
            format!(
                "{} {}",
                note["command"].as_str().unwrap(),
                note["outcome"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        commands,
        [
            "sale.create ok",
            "sale.rehearse malformed",
            "sale.rehearse ok"
        ]
    );
    assert!(shop.server.stop(BOUND).unwrap().success());
    good(&stampede(&["audit", "--data", shop.rig.data()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_in_a_copy_is_told_to_no_webhook() {
    let (receiver, rig) = (Server::start(|_| Answer::Status(204)), Rig::new());
    let config = rig.path("webhooks.toml");
    let text = format!(
        "[[webhooks]]\nname = \"shop\"\nurl = \"{}\"\nsecret = \"0123456789abcdef\"\nallow_private = true\n",
        receiver.url()
    );
    std::fs::write(&config, text).unwrap();
    let shop = Shop::start(rig.argument("--config", config.to_str().unwrap()));
    assert_eq!(post(&shop, "/v1/admin/sales", &planned(5)).await.0, 201);
    let (status, report) = post(&shop, REHEARSE, &json!({"seconds": 3})).await;
    assert_eq!(status, 200, "{report}\n{}", shop.server.log());
    // The first that the receiver hears of is the sale itself.
    let path = "/v1/admin/sales/s1/publish";
    assert_eq!(post(&shop, path, &json!({})).await.0, 200);
    let heard = poll_until(BOUND, LOOK, || {
        let received = receiver.received();
        let is_told = |body: &str| body.contains("sale.published");
        let is_there = received.iter().any(|one| is_told(&one.body));
        is_there.then_some(received)
    });
    let bodies: Vec<_> = heard.unwrap().into_iter().map(|one| one.body).collect();
    assert_eq!(bodies.len(), 1, "{bodies:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_at_a_time_never_beside_buyers_and_gone_with_whoever_asked() {
    let shop = Shop::open(Rig::new(), &[("a", 10)]).await;
    let data = shop.rig.options.data.clone();
    let mut other = planned(500);
    other["sale_id"] = json!("s2");
    assert_eq!(post(&shop, "/v1/admin/sales", &other).await.0, 201);
    let path = "/v1/admin/sales/s2/rehearse";
    let (status, problem) = post(&shop, path, &json!({})).await;
    assert_eq!(
        (status, &problem["outcome"]),
        (409, &json!("state_conflict"))
    );
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("while_selling"),
        "{problem}"
    );
    let (status, problem) = post(&shop, REHEARSE, &json!({"while_selling": true})).await;
    assert_eq!(status, 409);
    assert!(
        problem["detail"].as_str().unwrap().contains("is open"),
        "{problem}"
    );

    let body = json!({"while_selling": true, "seconds": 40});
    let first = tokio::time::timeout(BOUND, async {
        tokio::select! {
            answer = post(&shop, path, &body) => panic!("{answer:?}"),
            second = async {
                let begun = poll_until_async(BOUND, LOOK, async || has_copy(&data).then_some(()));
                begun.await.unwrap();
                post(&shop, path, &body).await
            } => second,
        }
    });
    let (status, problem) = first.await.unwrap();
    assert_eq!(status, 409);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("another rehearsal"),
        "{problem}"
    );
    // The first one's caller is gone, and so is all of it.
    let gone = poll_until_async(BOUND, LOOK, async || (!has_copy(&data)).then_some(()));
    assert!(gone.await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_ends_with_the_engine_that_was_killed() {
    let mut shop = Shop::start(Rig::new());
    let data = shop.rig.options.data.clone();
    assert_eq!(post(&shop, "/v1/admin/sales", &planned(500)).await.0, 201);
    let address = shop.server.admin;
    let key = shop.keys.admin_key.clone();
    let asked = tokio::spawn(async move {
        let mut client = Client::new(address, Timeouts::default());
        let request = Request::post(REHEARSE)
            .bearer(&key)
            .json(r#"{"seconds":40}"#);
        let _ = client.send(&request).await;
    });
    // It serves: only then does it look for its parent.
    let is_up = || {
        let mut entries = std::fs::read_dir(&data).unwrap();
        entries
            .any(|entry| entry.unwrap().path().join("keys.toml").exists())
            .then_some(())
    };
    assert!(poll_until(BOUND, LOOK, is_up).is_some());
    shop.server.kill().unwrap();
    asked.await.unwrap();
    assert!(poll_until(BOUND, LOOK, || (!has_copy(&data)).then_some(())).is_some());
}

#[test]
fn a_file_is_played_without_an_engine() {
    let rig = Rig::new();
    std::fs::create_dir(&rig.options.data).unwrap();
    let file = rig.path("sale.toml");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/examples/sale.toml");
    let text = std::fs::read_to_string(example).unwrap();
    std::fs::write(&file, text).unwrap();
    let words = [
        "rehearse",
        file.to_str().unwrap(),
        "--seconds",
        "3",
        "--buyers",
        "50",
        "--data",
        rig.data(),
    ];
    let told = good(&stampede(&words));
    for word in [
        "phone-x-case",
        "buyers who got something",
        "HOLDS",
        "unsellable to 50 buyers",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert_eq!(content(&rig.options.data), []);
    // Ctrl-C leaves nothing either.
    let words = [
        "rehearse",
        file.to_str().unwrap(),
        "--seconds",
        "40",
        "--data",
        rig.data(),
    ];
    let mut run = ByHand::start(command(&words), rig.dir.path());
    assert!(poll_until(BOUND, LOOK, || has_copy(&rig.options.data).then_some(())).is_some());
    assert_eq!(run.end(Signal::SIGINT).code(), Some(1));
    assert!(!has_copy(&rig.options.data));
}
