//! The machine around the process: a clock that jumps, descriptors that run out.

use std::path::PathBuf;
use std::time::Duration;

use crowd::client::{Client, Request, Timeouts};
use crowd::log::now_ms;
use crowd::wait::{poll_until, poll_until_async};
use flash_types::Timestamp;
use serde_json::json;

use crate::rig::*;

const HOUR_MS: i64 = 3_600_000;

/// A clock that a test sets: the wall clock plus an offset; the steady clock stays what it is.
struct FakeClock(PathBuf);

impl FakeClock {
    fn put_before(rig: Rig) -> (Rig, Self) {
        let library = std::fs::read_dir("/usr/lib")
            .unwrap()
            .map(|entry| entry.unwrap().path().join("faketime/libfaketimeMT.so.1"))
            .find(|path| path.exists())
            .expect("libfaketime is not installed: cargo xtask setup");
        let clock = Self(rig.path("clock"));
        clock.set_offset_s(0);
        let rig = rig
            .environment("LD_PRELOAD", library.to_str().unwrap())
            .environment("FAKETIME_TIMESTAMP_FILE", clock.0.to_str().unwrap())
            .environment("FAKETIME_NO_CACHE", "1")
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        (rig, clock)
    }

    fn set_offset_s(&self, offset_s: i64) {
        let beside = self.0.with_extension("new");
        std::fs::write(&beside, format!("{offset_s:+}\n")).unwrap();
        std::fs::rename(beside, &self.0).unwrap();
    }
}

/// How far the server's clock is from ours, in hours.
async fn hours_off(shop: &Shop) -> i64 {
    let answer = shop
        .client()
        .send(&Request::get("/v1/time").bare())
        .await
        .unwrap();
    let told = answer.json().unwrap()["epoch_ms"].as_i64().unwrap();
    (told - i64::try_from(now_ms()).unwrap() + HOUR_MS / 2).div_euclid(HOUR_MS)
}

async fn outcome(shop: &Shop, sale: &str, key: &str) -> String {
    let token = shop
        .keys
        .minter()
        .mint("u", crowd::token::now_s() + 24 * 3600);
    let request = crowd::api::purchase(sale, &token, key, &[("a".into(), 1)]);
    shop.client().send(&request).await.unwrap().outcome()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_follow_a_clock_that_jumps_and_stock_does_not() {
    let (rig, clock) = FakeClock::put_before(Rig::new());
    let mut shop = Shop::open(rig, &[("a", 1_000)]).await;
    let now = i64::try_from(now_ms()).unwrap();
    let mut client = shop.client();
    let planned = |id: &str, from_ms: i64, to_ms: i64, payment_window_s: u32| {
        let mut sale = sale(&[("a", 10)]);
        sale["sale_id"] = json!(id);
        sale["starts_at"] = json!(Timestamp(now + from_ms));
        sale["ends_at"] = json!(Timestamp(now + to_ms));
        sale["payment_window_s"] = json!(payment_window_s);
        sale
    };
    let mut api = shop.api();
    api.publish(&planned("soon", HOUR_MS / 2, 3 * HOUR_MS, 600))
        .await
        .unwrap();
    api.publish(&planned("ending", -HOUR_MS, HOUR_MS / 2, 600))
        .await
        .unwrap();
    api.publish(&planned("short", -HOUR_MS, 24 * HOUR_MS, 2))
        .await
        .unwrap();
    assert_eq!(hours_off(&shop).await, 0);
    assert_eq!(
        shop.buy(&mut client, "u", "before", "a")
            .await
            .unwrap()
            .status,
        201
    );
    assert_eq!(outcome(&shop, "soon", "k0").await, "sale_not_started");
    assert_eq!(outcome(&shop, "ending", "k0").await, "reserved");

    clock.set_offset_s(3_600);
    assert_eq!(hours_off(&shop).await, 1, "the fault did not fire");
    assert_eq!(outcome(&shop, "soon", "k1").await, "reserved");
    assert_eq!(outcome(&shop, "ending", "k1").await, "sale_ended");
    assert_eq!(outcome(&shop, "ending", "k0").await, "replayed");
    // Ten minutes to pay have not passed, whatever the clock on the wall says.
    let stored = api
        .reservation_by_key(SALE, "u", "before")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stored.state, "reserved");
    assert_eq!(
        shop.buy(&mut client, "u", "ahead", "a")
            .await
            .unwrap()
            .status,
        201
    );

    clock.set_offset_s(-3_600);
    assert_eq!(hours_off(&shop).await, -1, "the fault did not fire");
    assert_eq!(
        shop.buy(&mut client, "u", "behind", "a")
            .await
            .unwrap()
            .status,
        201
    );
    assert_eq!(outcome(&shop, "short", "s").await, "reserved");
    // Two seconds to pay pass on a clock that stands an hour behind.
    let has_expired = poll_until_async(BOUND, LOOK, async || {
        let stored = api
            .reservation_by_key("short", "u", "s")
            .await
            .unwrap()
            .unwrap();
        (stored.state == "expired").then_some(())
    });
    assert!(has_expired.await.is_some());
    shop.assert_books().await;

    // Across a restart the wall clock decides: but what is open stays open for a while.
    assert_eq!(outcome(&shop, "short", "s2").await, "reserved");
    shop.server.kill().unwrap();
    clock.set_offset_s(3_600);
    shop.restart();
    let mut api = shop.api();
    let stored = api
        .reservation_by_key("short", "u", "s2")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(stored.state, "reserved");
    let has_expired = poll_until_async(BOUND, LOOK, async || {
        let stored = api
            .reservation_by_key("short", "u", "s2")
            .await
            .unwrap()
            .unwrap();
        (stored.state == "expired").then_some(())
    });
    assert!(has_expired.await.is_some());
    for key in ["before", "ahead", "behind"] {
        let stored = api
            .reservation_by_key(SALE, "u", key)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            stored.state, "reserved",
            "{key}: at least a minute is left after a start"
        );
    }
    // And back: a start whose clock is behind what is stored.
    shop.server.kill().unwrap();
    clock.set_offset_s(-3_600);
    shop.restart();
    let mut client = shop.client();
    assert_eq!(
        shop.buy(&mut client, "u", "again", "a")
            .await
            .unwrap()
            .status,
        201
    );
    shop.assert_books().await;
}

/// Processor time that a process has used, in hundredths of a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<_> = fields.split(' ').collect();
    [11, 12]
        .map(|index| fields[index].parse::<u64>().unwrap())
        .iter()
        .sum()
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_it_waits_and_recovers() {
    need("prlimit");
    let words = ["prlimit", "--nofile=64:64"].map(str::to_owned);
    let mut shop = Shop::open(Rig::new().wrapped(words), &[("a", 1_000)]).await;
    let pid = shop.server.pid();
    let mut early = shop.client();
    assert_eq!(
        shop.buy(&mut early, "u", "k0", "a").await.unwrap().status,
        201
    );
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(std::net::TcpStream::connect(shop.server.public).unwrap());
    }
    let is_full = poll_until(BOUND, LOOK, || (descriptors(pid) >= 64).then_some(()));
    assert!(
        is_full.is_some(),
        "the fault did not fire: {} open",
        descriptors(pid)
    );
    // Who is in is served, books and all.
    for number in 1..20 {
        let answer = shop.buy(&mut early, "u", &format!("k{number}"), "a").await;
        assert_eq!(answer.unwrap().status, 201);
    }
    let before = cpu_ticks(pid);
    let looked_for = Duration::from_secs(2);
    assert_eq!(poll_until(looked_for, looked_for / 20, || None::<()>), None);
    let used = cpu_ticks(pid) - before;
    // A loop over accept would have used a processor or more.
    assert!(
        used < 60,
        "it spins: {used} hundredths of a second in {looked_for:?}"
    );
    drop(crowd);
    let is_back = poll_until_async(BOUND, LOOK, async || {
        let timeouts = Timeouts {
            answer: Duration::from_millis(500),
            ..Timeouts::default()
        };
        let mut client = Client::new(shop.server.public, timeouts);
        shop.buy(&mut client, "u", "late", "a").await.ok()
    });
    assert!(
        is_back.await.is_some(),
        "it does not recover\n{}",
        shop.server.log()
    );
    shop.assert_books().await;
    assert!(shop.server.stop(BOUND).unwrap().success());
}
