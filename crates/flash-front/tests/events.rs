//! Server-sent events: a snapshot, then changes; bounded streams; ended by a stop.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may")]

mod common;

use std::time::Duration;

use common::*;
use flash_front::Ended;

on_both_stores!(
    a_stream_begins_with_a_snapshot_and_tells_what_changes,
    streams_are_capped_pinged_and_given_back,
    drafts_have_no_events_and_buckets_hide_figures,
    a_stop_ends_streams,
);

fn watch(shop: &Shop, sale: &str, headers: &[String]) -> Client {
    let mut client = shop.buyers();
    client.send(request("GET", &format!("/v1/sales/{sale}/events"), headers, "").as_bytes());
    let head = client.until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("text/event-stream"), "{head}");
    client
}

fn a_stream_begins_with_a_snapshot_and_tells_what_changes(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 5);
    let mut stream = watch(&shop, "s1", &[]);
    let snapshot = stream.until("\"item\":\"b\",\"available_units\":5}");
    assert!(snapshot.contains("event: state"), "{snapshot}");
    assert!(snapshot.contains("\"state\":\"open\""));
    assert!(snapshot.contains("event: stock\ndata: {\"item\":\"a\",\"available_units\":5}"));
    let id = snapshot
        .split("id: ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned();

    // Who missed nothing is told so.
    let mut back = watch(&shop, "s1", &[format!("Last-Event-ID: {id}")]);
    assert!(!back.until(": nothing changed").contains("event:"));

    assert_eq!(
        shop.buy("s1", "u1", "k", r#"{"item":"a","quantity":2}"#)
            .status,
        201
    );
    for stream in [&mut stream, &mut back] {
        let change = stream.until("{\"item\":\"a\",\"available_units\":3}");
        assert!(
            !change.contains("\"item\":\"b\",\"available_units\":3"),
            "{change}"
        );
    }
    let paused = shop
        .admins()
        .call("POST", "/v1/admin/sales/s1/pause", &[bearer(ADMIN)], "{}");
    assert_eq!(paused.status, 200);
    stream.until("\"state\":\"paused\"");
    // Who missed something gets all of it.
    let mut late = watch(&shop, "s1", &[format!("Last-Event-ID: {id}")]);
    late.until("\"item\":\"b\",\"available_units\":5}");
}

fn streams_are_capped_pinged_and_given_back(on: On) {
    let shop = Shop::with(on, |config| {
        config.sse_streams_max = 2;
        config.sse_ping = Duration::from_millis(100);
        config.header_read_timeout = Duration::from_millis(1_000);
    });
    shop.sale("s1", 5);
    let mut first = watch(&shop, "s1", &[]);
    let second = watch(&shop, "s1", &[]);
    let mut third = shop.buyers();
    let refused = third.get("/v1/sales/s1/events");
    assert_eq!(
        (refused.status, refused.outcome().as_str()),
        (503, "overloaded")
    );
    // Longer than any idle connection lives.
    for _ in 0..8 {
        first.until(": ping\n\n");
    }
    drop(second);
    poll("a place is free again", || {
        let mut client = shop.buyers();
        client.send(request("GET", "/v1/sales/s1/events", &[], "").as_bytes());
        client.until("\r\n\r\n").starts_with("HTTP/1.1 200")
    });
}

fn drafts_have_no_events_and_buckets_hide_figures(on: On) {
    let shop = Shop::with(on, |config| config.stock_buckets = vec![1, 10, 100]);
    shop.sale("s1", 57);
    let mut stream = watch(&shop, "s1", &[]);
    stream.until("{\"item\":\"a\",\"available_units\":10}");
    let shown = shop.buyers().get("/v1/sales/s1").json();
    assert_eq!(shown["items"][0]["available_units"], 10);
    let draft = plan("draft", 1).to_string();
    assert_eq!(
        shop.admins()
            .call("POST", "/v1/admin/sales", &[bearer(ADMIN)], &draft)
            .status,
        201
    );
    assert_eq!(shop.buyers().get("/v1/sales/draft/events").status, 404);
}

fn a_stop_ends_streams(on: On) {
    let mut shop = Shop::open(on);
    shop.sale("s1", 5);
    let mut stream = watch(&shop, "s1", &[]);
    stream.until("\"item\":\"b\"");
    assert_eq!(shop.stop(), Ended::Drained);
    while stream.more() {}
}
