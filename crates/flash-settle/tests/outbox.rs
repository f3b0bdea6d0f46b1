//! The relay against real HTTP servers: slow, dead, wrong, redirecting, private; stopped and started; taken over.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may")]

mod common {
    pub mod shop;
    pub mod target;
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::shop::{Shop, start, target};
use common::target::{Answer, Server};
use crowd::wait::poll_until;
use flash_settle::outbox::{Outbox, RedeliverError, Target, signature};
use flash_store::EventPlace;
use flash_types::SaleNo;

const BOUND: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(5);

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    assert!(
        poll_until(BOUND, TICK, || condition().then_some(())).is_some(),
        "{what}"
    );
}

fn id(sequence: u64) -> String {
    let place = EventPlace {
        generation: 1,
        sequence,
    };
    place.event_id(SaleNo(1))
}

fn state(outbox: &Outbox, name: &str) -> flash_settle::outbox::Progress {
    let all = outbox.webhooks();
    all.into_iter()
        .find(|one| one.name == name)
        .unwrap()
        .progress
}

#[test]
fn deliveries_are_signed_with_both_secrets_and_named() {
    let (server, shop) = (Server::start(|_| Answer::Status(204)), Shop::new());
    let mut both = target("shop", &server.url());
    both.secret_previous = Some("the-older-secret".into());
    let dir = tempfile::tempdir().unwrap();
    let _outbox = start(&dir, vec![both], &shop);
    shop.emit(Some(7), "reservation.reserved");
    until("it arrives", || server.received().len() == 1);
    let got = &server.received()[0];
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.header("stampede-event-id"), id(1));
    assert!(got.header("user-agent").starts_with("stampede/"));
    let signed = got.header("stampede-signature");
    let unix_s: i64 = signed[2..].split(',').next().unwrap().parse().unwrap();
    for secret in ["0123456789abcdef", "the-older-secret"] {
        let alone = signature(std::iter::once(secret), unix_s, &got.body);
        let code = alone.split_once(',').unwrap().1;
        assert!(signed.contains(code), "{signed}");
    }
    let other = signature(std::iter::once("another-secret--"), unix_s, &got.body);
    assert!(!signed.contains(other.split_once(',').unwrap().1));
}

#[test]
fn bad_targets_harm_nobody_else_and_are_told_apart() {
    let good = Server::start(|_| Answer::Status(200));
    let slow = Server::start(|_| Answer::Never);
    let wrong = Server::start(|_| Answer::Status(500));
    let elsewhere = good.url().replace("/hook", "/elsewhere");
    let redirecting = Server::start(move |request| match request.header("stampede-event-id") {
        id if id.ends_with("-1") => Answer::Redirect(elsewhere.clone()),
        _ => Answer::Redirect("http://169.254.169.254/latest/meta-data/".into()),
    });
    let dead = Server::start(|_| Answer::Status(200));
    let dead_url = dead.url();
    drop(dead);
    let by_name = good
        .url()
        .replace("127.0.0.1", "localhost")
        .replace("http:", "https:");
    let shop = Shop::new();
    let public = |name: &str, url: &str| Target {
        allow_private: false,
        ..target(name, url)
    };
    let targets = vec![
        target("good", &good.url()),
        target("slow", &slow.url()),
        target("wrong", &wrong.url()),
        target("redirecting", &redirecting.url()),
        target("dead", &dead_url),
        target("no-tls", &good.url().replace("http:", "https:")),
        public("by-name", &by_name),
    ];
    let dir = tempfile::tempdir().unwrap();
    let outbox = start(&dir, targets, &shop);
    for reservation in 0..50 {
        shop.emit(Some(reservation), "reservation.reserved");
    }
    until("the good one has all", || good.received().len() == 50);
    for (name, told) in [
        ("slow", "no answer within"),
        ("wrong", "answered 500"),
        ("redirecting", "answered 302"),
        ("dead", "onnect"),
        ("no-tls", "onnect"),
        ("by-name", "no address of the open internet"),
    ] {
        until(name, || {
            let seen = state(&outbox, name);
            seen.counts.is_down && seen.last_error.is_some_and(|(_, why)| why.contains(told))
        });
        let counts = state(&outbox, name).counts;
        assert!(
            counts.parked > 0 && counts.parked < 50,
            "{name}: {counts:?}"
        );
        assert!(counts.oldest.is_some());
    }
    let got = good.received();
    assert!(
        got.iter().all(|one| one.path == "/hook"),
        "nobody followed a redirect"
    );
    assert_eq!(
        got.len(),
        50,
        "what is no TLS and what is private never got there"
    );
}

#[test]
fn private_addresses_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut private = target("p", "https://127.0.0.1:1/");
    private.allow_private = false;
    let started = common::shop::try_start(&dir, vec![private], &Shop::new());
    assert!(
        started
            .err()
            .unwrap()
            .to_string()
            .contains("webhook p: url names 127.0.0.1")
    );
}

#[test]
fn a_poison_event_holds_up_its_reservation_alone_and_is_retried() {
    let is_well = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let server = Server::start(move |request| {
        let is_poison = request.header("stampede-event-id").ends_with("-1-1");
        // Relaxed: a flag by itself.
        match is_poison && !well.load(std::sync::atomic::Ordering::Relaxed) {
            true => Answer::Status(422),
            false => Answer::Status(200),
        }
    });
    let shop = Shop::new();
    let dir = tempfile::tempdir().unwrap();
    let outbox = start(&dir, vec![target("shop", &server.url())], &shop);
    shop.emit(Some(1), "reservation.reserved"); // the poison
    shop.emit(Some(1), "reservation.confirmed");
    for reservation in 2..40 {
        shop.emit(Some(reservation), "reservation.reserved");
    }
    let acknowledged = || server.acknowledged().len();
    until("all others", || acknowledged() == 38);
    until("both are parked", || {
        state(&outbox, "shop").counts.parked == 2
    });
    is_well.store(true, std::sync::atomic::Ordering::Relaxed);
    until("the rest", || acknowledged() == 40);
    let order: Vec<String> = server.acknowledged();
    let at = |sequence| order.iter().position(|one| *one == id(sequence)).unwrap();
    assert!(at(1) < at(2), "in order within the reservation");
    until("nothing is left", || {
        state(&outbox, "shop").counts.parked == 0
    });
}

#[test]
fn a_restart_repeats_and_loses_nothing() {
    let server = Server::start(|_| Answer::Status(200));
    let shop = Shop::new();
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=5_u64 {
        for reservation in 0..200 {
            shop.emit(Some(reservation), "reservation.reserved");
        }
        let outbox = start(&dir, vec![target("shop", &server.url())], &shop);
        let half = usize::try_from(round * 200 - 150).unwrap();
        until("some arrive", || server.acknowledged().len() >= half);
        drop(outbox); // in mid-flight
    }
    let _outbox = start(&dir, vec![target("shop", &server.url())], &shop);
    let all = || {
        server
            .acknowledged()
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    until("every event arrived", || all() == 1_000);
    let repeats = server.acknowledged().len() - 1_000;
    assert!(
        repeats <= 6 * 8 * 8,
        "what was done is not done again: {repeats}"
    );
}

#[test]
fn whoever_starts_later_owns_the_relays() {
    let server = Server::start(|_| Answer::Status(200));
    let shop = Shop::new();
    let dir = tempfile::tempdir().unwrap();
    let older = start(&dir, vec![target("shop", &server.url())], &shop);
    let _newer = start(&dir, vec![target("shop", &server.url())], &shop);
    shop.emit(Some(1), "reservation.reserved");
    until("the older one stops", || {
        state(&older, "shop").stopped.is_some()
    });
    assert!(
        state(&older, "shop")
            .stopped
            .unwrap()
            .contains("another process")
    );
    shop.emit(Some(1), "reservation.confirmed");
    until("the newer one goes on", || {
        server.acknowledged().contains(&id(2))
    });
}

#[test]
fn filters_skip_and_redelivery_repeats() {
    let server = Server::start(|_| Answer::Status(200));
    let shop = Shop::new();
    let dir = tempfile::tempdir().unwrap();
    let mut some = target("shop", &server.url());
    some.types = vec!["reservation.confirmed".into()];
    let outbox = start(&dir, vec![some], &shop);
    shop.emit(Some(1), "reservation.reserved");
    shop.emit(Some(1), "reservation.confirmed");
    until("the one that is wanted", || {
        server.acknowledged() == [id(2)]
    });
    until("it is written down", || {
        state(&outbox, "shop").counts.waiting == 0
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let again = |event: &str, name: Option<&str>| runtime.block_on(outbox.redeliver(event, name));
    assert_eq!(again(&id(2), None).unwrap(), ["shop"]);
    until("it comes again", || server.acknowledged() == [id(2), id(2)]);
    assert!(
        matches!(again(&id(1), None), Err(RedeliverError::NotFound)),
        "not wanted"
    );
    assert!(matches!(
        again(&id(99), None),
        Err(RedeliverError::NotFound)
    ));
    assert!(matches!(
        again("nonsense", None),
        Err(RedeliverError::NotFound)
    ));
    assert!(matches!(
        again(&id(2), Some("other")),
        Err(RedeliverError::NoSuchWebhook)
    ));
}

#[test]
fn a_dead_letter_is_listed_and_delivered_on_demand() {
    let is_well = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let server = Server::start(
        move |_| match well.load(std::sync::atomic::Ordering::Relaxed) {
            true => Answer::Status(200),
            false => Answer::Status(500),
        },
    );
    let shop = Shop::new();
    let dir = tempfile::tempdir().unwrap();
    let outbox = start(&dir, vec![target("shop", &server.url())], &shop);
    shop.emit(Some(1), "reservation.reserved");
    until("it failed", || state(&outbox, "shop").counts.parked == 1);
    shop.pass(Duration::from_secs(25 * 3600));
    until("it is given up", || state(&outbox, "shop").counts.dead == 1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let dead = runtime.block_on(outbox.dead_letters(0, 10)).unwrap();
    assert_eq!((dead.len(), dead[0].webhook.as_str()), (1, "shop"));
    assert_eq!(
        dead[0].parked.last_error,
        "answered 500 Internal Server Error"
    );
    is_well.store(true, std::sync::atomic::Ordering::Relaxed);
    runtime
        .block_on(outbox.redeliver(&id(1), Some("shop")))
        .unwrap();
    until("it arrives", || server.acknowledged() == [id(1)]);
    until("it is dead no more", || {
        state(&outbox, "shop").counts.dead == 0
    });
    assert!(
        runtime
            .block_on(outbox.dead_letters(0, 10))
            .unwrap()
            .is_empty()
    );
}

/// A consumer that loses what it did, sees events twice and in any order, and goes by (generation, sequence).
#[test]
fn a_consumer_that_crashes_repeats_and_reorders_ends_with_the_final_states() {
    // Every third delivery is processed and then not acknowledged.
    let count = std::sync::atomic::AtomicU64::new(0);
    let server = Server::start(move |_| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if number % 3 == 2 {
            Answer::Cut
        } else {
            Answer::Status(200)
        }
    });
    let shop = Shop::new();
    let dir = tempfile::tempdir().unwrap();
    let mut expected = BTreeMap::new();
    for (step, kind) in ["reserved", "expired", "confirmed", "refunded"]
        .into_iter()
        .enumerate()
    {
        for reservation in 0..20_u64 {
            if reservation % 4 >= step as u64 {
                shop.emit(Some(reservation), &format!("reservation.{kind}"));
                expected.insert(reservation, kind.to_owned());
            }
        }
    }
    let first = start(&dir, vec![target("shop", &server.url())], &shop);
    until("some arrive", || server.received().len() >= 15);
    drop(first);
    let outbox = start(&dir, vec![target("shop", &server.url())], &shop);
    until("all is acknowledged", || {
        // Retries are due by the shop's clock.
        shop.pass(Duration::from_secs(1));
        let ids: std::collections::BTreeSet<_> = server.acknowledged().into_iter().collect();
        ids.len() == shop.event_count() && state(&outbox, "shop").counts.parked == 0
    });
    let mut events: Vec<serde_json::Value> = server
        .received()
        .iter()
        .map(|got| serde_json::from_str(&got.body).unwrap())
        .collect();
    assert!(events.len() > shop.event_count(), "some came twice");
    events.reverse();
    let mut states: BTreeMap<u64, ((u64, u64), String)> = BTreeMap::new();
    for event in events {
        let number = |name: &str| event[name].as_u64().unwrap();
        let place = (number("generation"), number("sequence"));
        let kind = event["type"]
            .as_str()
            .unwrap()
            .strip_prefix("reservation.")
            .unwrap()
            .to_owned();
        let known = states
            .entry(event["data"]["reservation"].as_u64().unwrap())
            .or_default();
        if place > known.0 {
            *known = (place, kind);
        }
    }
    let states: BTreeMap<u64, String> = states
        .into_iter()
        .map(|(key, (_, kind))| (key, kind))
        .collect();
    assert_eq!(states, expected);
}
