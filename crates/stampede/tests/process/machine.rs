//! The machine around the process: a clock that jumps, descriptors that run out.

use std::path::PathBuf;
use std::time::Duration;

use crowd::client::{Client, Request, Timeouts};
use crowd::log::now_ms;
use crowd::wait::{poll_until, poll_until_async};
use flash_types::Timestamp;
use serde_json::json;

use crate::rig::*;

on_both_stores!(without_descriptors_it_waits_and_recovers);

const HOUR_MS: i64 = 3_600_000;

/// A clock that a test sets: the wall clock plus an offset; the steady clock stays what it is.
pub struct FakeClock(PathBuf);

impl FakeClock {
    pub fn put_before(rig: Rig) -> (Rig, Self) {
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

    pub fn set_offset_s(&self, offset_s: i64) {
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

/// Three more sales: one opens in half an hour, one ends then, in one there are two seconds to pay.
async fn open_three(shop: &Shop) {
    let now = i64::try_from(now_ms()).unwrap();
    let planned = |id: &str, from_ms: i64, to_ms: i64, payment_window_s: u32| {
        let mut sale = sale(&[("a", 10)]);
        sale["sale_id"] = json!(id);
        sale["starts_at"] = json!(Timestamp(now + from_ms));
        sale["ends_at"] = json!(Timestamp(now + to_ms));
        sale["payment_window_s"] = json!(payment_window_s);
        sale
    };
    let mut api = shop.api();
    for plan in [
        planned("soon", HOUR_MS / 2, 3 * HOUR_MS, 600),
        planned("ending", -HOUR_MS, HOUR_MS / 2, 600),
        planned("short", -HOUR_MS, 24 * HOUR_MS, 2),
    ] {
        api.publish(&plan).await.unwrap();
    }
}

/// Waits until the reservation of this key is in this state.
async fn until(shop: &Shop, sale: &str, key: &str, state: &str) {
    let mut api = shop.api();
    let is_so = poll_until_async(BOUND, LOOK, async || {
        let stored = api.reservation_by_key(sale, "u", key).await.unwrap();
        (stored.unwrap().state == state).then_some(())
    });
    assert!(is_so.await.is_some(), "{key} in {sale} is never {state}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_follow_a_clock_that_jumps_and_stock_does_not() {
    let (rig, clock) = FakeClock::put_before(Rig::new());
    let mut shop = Shop::open(rig, &[("a", 1_000)]).await;
    let mut client = shop.client();
    open_three(&shop).await;
    let mut api = shop.api();
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
    until(&shop, "short", "s", "expired").await;
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
    until(&shop, "short", "s2", "expired").await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_redis_windows_and_expiry_follow_its_clock_and_no_other() {
    let (rig, of_engine) = FakeClock::put_before(Rig::on_redis());
    let mut shop = Shop::open(rig, &[("a", 1_000)]).await;
    open_three(&shop).await;
    let mut client = shop.client();
    let started_at = now_ms();
    for (hours, key) in [(1, "ahead"), (-1, "behind")] {
        of_engine.set_offset_s(hours * 3_600);
        assert_eq!(hours_off(&shop).await, 0, "{key}");
        assert_eq!(outcome(&shop, "soon", key).await, "sale_not_started");
        assert_eq!(outcome(&shop, "ending", key).await, "reserved");
        assert_eq!(outcome(&shop, "short", key).await, "reserved");
        let bought = shop.buy(&mut client, "u", key, "a").await.unwrap();
        assert_eq!(bought.status, 201);
        until(&shop, "short", key, "expired").await;
        until(&shop, SALE, key, "reserved").await;
        // Nor does a start look at it.
        shop.server.kill().unwrap();
        shop.restart();
        client = shop.client();
        let request = Request::get("/v1/time").bare();
        let answer = client.send(&request).await.unwrap();
        let date = answer.header("Date").unwrap();
        let is_fired = is_hour(date, started_at, hours);
        assert!(is_fired, "the fault did not fire: {date}");
        assert_eq!(hours_off(&shop).await, 0, "{key}");
        until(&shop, SALE, key, "reserved").await;
        shop.assert_books().await;
    }
    of_engine.set_offset_s(0);
    // As a Redis leaves it whose clock was an hour ahead: the time of a sale goes on from there.
    for id in [SALE, "soon", "ending", "short"] {
        let key = format!("{{s:{id}}}:meta");
        let ahead = ["HINCRBY", &key, "clock_ms", "3600000"];
        shop.rig.redis().command(&ahead).unwrap();
    }
    let bought = shop.buy(&mut client, "u", "later", "a").await.unwrap();
    assert_eq!(bought.status, 201);
    assert_eq!(hours_off(&shop).await, 1, "the fault did not fire");
    assert_eq!(outcome(&shop, "soon", "later").await, "reserved");
    assert_eq!(outcome(&shop, "ending", "later").await, "sale_ended");
    until(&shop, SALE, "ahead", "expired").await;
    until(&shop, SALE, "later", "reserved").await;
    shop.server.kill().unwrap();
    shop.restart();
    let answer = shop.buy(&mut shop.client(), "u", "last", "a").await;
    assert_eq!(answer.unwrap().status, 201);
    assert_eq!(outcome(&shop, "ending", "last").await, "sale_ended");
    until(&shop, SALE, "later", "reserved").await;
    shop.assert_books().await;
}

/// Whether a header's date is so many hours after a moment, give or take half an hour.
fn is_hour(date: &str, since_ms: u64, hours: i64) -> bool {
    // `Tue, 24 Nov 2026 14:31:26 GMT`: the hour of the day says enough.
    let mut parts = date.split(' ').nth(4).unwrap().split(':');
    let mut part = || parts.next().unwrap().parse::<i64>().unwrap();
    let minute = part() * 60 + part();
    let began = i64::try_from(since_ms / 60_000).unwrap();
    let apart = (minute - began - hours * 60).rem_euclid(24 * 60);
    !(30..=24 * 60 - 30).contains(&apart)
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

async fn without_descriptors_it_waits_and_recovers(rig: Rig) {
    need("prlimit");
    let words = ["prlimit", "--nofile=64:64"].map(str::to_owned);
    let mut shop = Shop::open(rig.wrapped(words), &[("a", 1_000)]).await;
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
