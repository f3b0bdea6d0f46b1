//! What attacks the parser, the clock and the memory: refused or closed, and the next request is never mis-framed.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::Write as _;
use std::time::Duration;

use common::*;
use flash_front::Ended;

const ONE_A: &str = r#"{"item":"a","quantity":1}"#;

on_both_stores!(
    ambiguous_heads_are_refused_and_nothing_behind_them_is_read,
    a_chunked_body_is_read_and_ends_the_connection,
    too_much_is_refused_with_its_own_status,
    pipelined_requests_are_answered_in_order,
    silent_and_slow_connections_are_closed,
    connections_are_capped_and_come_back,
    a_stop_answers_what_is_in_flight_and_closes_what_is_idle,
    a_purchase_whose_client_left_is_decided_all_the_same,
);

/// Sends bytes and reads the statuses of all answers until the connection is closed.
fn statuses(shop: &Shop, bytes: &[u8]) -> Vec<u16> {
    let mut client = shop.buyers();
    // The server may have closed before all of it is sent.
    let _ = client.stream.write_all(bytes);
    std::iter::from_fn(|| client.answer().map(|answer| answer.status)).collect()
}

/// A purchase that would win if it were ever taken for a request.
fn smuggled() -> String {
    let headers = [bearer(&token("smuggler")), key("smuggled")];
    request("POST", "/v1/sales/s1/purchases", &headers, ONE_A)
}

fn ambiguous_heads_are_refused_and_nothing_behind_them_is_read(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 5);
    let smuggled = smuggled();
    for head in [
        "POST /v1/time HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/time HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "POST /v1/time HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST /v1/time HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST /v1/time HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/time HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/time HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "POST /v1/time HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\n",
        "POST /v1/time HTTP/1.1\r\nContent-Length: 0, 0\r\n\r\n",
        "POST /v1/time HTTP/1.1\r\nContent-Length: +0\r\n\r\n",
        "POST /v1/time HTTP/1.1\r\nContent-Length: 0x0\r\n\r\n",
        "POST /v1/time HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST /v1/time HTTP/1.1\r\nContent-Length : 0\r\n\r\n",
        "GET /v1/time HTTP/1.1\r\nA: b\r\n c: d\r\n\r\n",
        "GET /v1/time HTTP/1.1\r\n A: b\r\n\r\n",
        "GET /v1/time HTTP/1.1\nA: b\n\n",
        "GET /v1/time HTTP/1.1\r\nA: b\n\r\n",
        "GET /v1/time HTTP/1.1\r\nA: b\r\n\n",
        "GET /v1/time HTTP/1.1\r\nA: b\rc\r\n\r\n",
        "GET /v1/time HTTP/1.1\r\nA\0: b\r\n\r\n",
        "GET /v1/time HTTP/1.1\r\nno colon\r\n\r\n",
        "GET /v1/time\r\n\r\n",
        "GET  /v1/time HTTP/1.1\r\n\r\n",
        "G\u{e4}T /v1/time HTTP/1.1\r\n\r\n",
        "GET /v1/time HTTP/9.9\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\r\n\r\n",
    ] {
        let answered = statuses(&shop, format!("{head}{smuggled}").as_bytes());
        let is_refused = answered.is_empty() || answered == [400];
        assert!(is_refused, "{head:?}: {answered:?}");
        // After a good request the same.
        let good = request("GET", "/v1/time", &[], "");
        let answered = statuses(&shop, format!("{good}{head}{smuggled}").as_bytes());
        assert!(
            answered == [200] || answered == [200, 400],
            "{head:?}: {answered:?}"
        );
    }
    assert_eq!(shop.reservation_count("s1"), 0);
}

fn a_chunked_body_is_read_and_ends_the_connection(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 5);
    let head = format!(
        "POST /v1/sales/s1/purchases HTTP/1.1\r\n{}\r\n{}\r\nTransfer-Encoding: chunked\r\n\r\n",
        bearer(&token("u1")),
        key("k1")
    );
    let chunked = |end: &str| {
        format!(
            "{head}5\r\n{}\r\n14\r\n{}\r\n{end}",
            &ONE_A[..5],
            &ONE_A[5..]
        )
    };
    assert_eq!(
        statuses(
            &shop,
            format!("{}{}", chunked("0\r\n\r\n"), smuggled()).as_bytes()
        ),
        [201]
    );
    // Badly framed.
    for end in ["x\r\n", "-1\r\n", "0\n\n\u{1}", "ffffffffffffffff1\r\n"] {
        let answered = statuses(&shop, format!("{}{}", chunked(end), smuggled()).as_bytes());
        assert!(
            answered.is_empty() || answered == [400],
            "{end:?}: {answered:?}"
        );
    }
    // Without end: closed once it is too long.
    let mut endless = head.clone().into_bytes();
    for _ in 0..10 {
        endless.extend_from_slice(b"1000\r\n");
        endless.extend_from_slice(&[b' '; 0x1000]);
        endless.extend_from_slice(b"\r\n");
    }
    let answered = statuses(&shop, &endless);
    assert!(answered.is_empty() || answered == [413], "{answered:?}");
    assert_eq!(shop.reservation_count("s1"), 1);
}

fn too_much_is_refused_with_its_own_status(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 5);
    let get =
        |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\n{headers}\r\n").into_bytes();
    let many = |count: usize| "A: b\r\n".repeat(count);
    for (bytes, status) in [
        (
            get(&format!("/v1/sales?series={}", "x".repeat(2_040)), ""),
            414,
        ),
        (get(&format!("/{}", "x".repeat(100 * 1024)), ""), 431),
        (get(&format!("/{}", "x".repeat(9_000)), ""), 431),
        (
            get("/v1/time", &format!("A: {}\r\n", "x".repeat(64 * 1024))),
            431,
        ),
        (
            get("/v1/time", &format!("A: {}\r\n", "x".repeat(9_000))),
            431,
        ),
        (get("/v1/time", &many(65)), 431),
        (get("/v1/time", &many(101)), 431),
    ] {
        let answered = statuses(&shop, &bytes);
        assert!(
            answered == [status],
            "{answered:?} for {status}, {} bytes",
            bytes.len()
        );
    }
    let mut client = shop.buyers();
    client.send(&get("/v1/time", &many(64)));
    assert_eq!(client.answer().unwrap().status, 200);
    // A body that is announced too long is not read at all.
    let head = |length: &str| {
        format!(
            "POST /v1/sales/s1/purchases HTTP/1.1\r\n{}\r\n{}\r\nContent-Length: {length}\r\n\r\nsome",
            bearer(&token("u1")),
            key("k")
        )
    };
    for length in ["10000000000", "16385"] {
        let mut client = shop.buyers();
        client.send(head(length).as_bytes());
        let answer = client.answer().unwrap();
        assert_eq!(
            (answer.status, answer.outcome().as_str()),
            (413, "too_large")
        );
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(client.is_closed());
    }
    // A length that lies: the rest is another request, or nothing.
    let mut client = shop.buyers();
    client.send(head("4").as_bytes());
    assert_eq!(client.answer().unwrap().status, 400);
    client.send(&get("/v1/time", ""));
    assert_eq!(client.answer().unwrap().status, 200);
}

fn pipelined_requests_are_answered_in_order(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 5);
    let mut client = shop.buyers();
    let mut bytes = String::new();
    for number in 0..16 {
        let headers = [bearer(&token(&format!("u{number}"))), key("k")];
        bytes += &request("POST", "/v1/sales/s1/purchases", &headers, ONE_A);
    }
    client.send(bytes.as_bytes());
    let answered: Vec<u16> = (0..16).map(|_| client.answer().unwrap().status).collect();
    assert_eq!(answered[..5], [201; 5]);
    assert_eq!(answered[5..], [409; 11]);
}

fn silent_and_slow_connections_are_closed(on: On) {
    let shop = Shop::with(on, |config| {
        config.header_read_timeout = Duration::from_millis(1_000);
        config.body_timeout = Duration::from_millis(300);
    });
    shop.sale("s1", 5);
    let mut silent: Vec<Client> = (0..300).map(|_| shop.buyers()).collect();
    let mut half_head = shop.buyers();
    half_head.send(b"GET /v1/time HT");
    let mut idle = shop.buyers();
    assert_eq!(idle.get("/v1/time").status, 200);
    let mut half_body = shop.buyers();
    let head = format!(
        "POST /v1/sales/s1/purchases HTTP/1.1\r\n{}\r\n{}\r\nContent-Length: 10\r\n\r\n{{",
        bearer(&token("u1")),
        key("k")
    );
    half_body.send(head.as_bytes());
    let late = half_body.answer().unwrap();
    assert_eq!(
        (late.status, late.outcome().as_str()),
        (408, "request_timeout")
    );
    assert!(half_body.is_closed());
    // Others are served meanwhile.
    assert_eq!(shop.buy("s1", "u1", "k", ONE_A).status, 201);
    assert!(half_head.is_closed() && idle.is_closed());
    assert!(silent.iter_mut().all(Client::is_closed));
    // A byte now and then does not keep a head alive.
    let mut drip = shop.buyers();
    let mut is_closed = false;
    let bytes = [b'x'; 1];
    drip.stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    poll("a dripping head is closed", || {
        let _ = drip.stream.write_all(&bytes);
        let mut part = [0; 16];
        is_closed = matches!(std::io::Read::read(&mut drip.stream, &mut part), Ok(0))
            || drip.stream.write_all(&bytes).is_err();
        is_closed
    });
}

fn connections_are_capped_and_come_back(on: On) {
    let shop = Shop::with(on, |config| config.connections_max = 4);
    let mut open: Vec<Client> = (0..4).map(|_| shop.buyers()).collect();
    for client in &mut open {
        assert_eq!(client.get("/v1/time").status, 200);
    }
    let mut refused = shop.buyers();
    let answer = refused.answer().unwrap();
    assert_eq!(
        (answer.status, answer.outcome().as_str()),
        (503, "overloaded")
    );
    assert!(refused.is_closed());
    drop(open);
    poll("a place is free again", || {
        let mut client = shop.buyers();
        let _ = client
            .stream
            .write_all(request("GET", "/v1/time", &[], "").as_bytes());
        client.answer().is_some_and(|answer| answer.status == 200)
    });
}

fn a_stop_answers_what_is_in_flight_and_closes_what_is_idle(on: On) {
    let mut shop = Shop::open(on);
    shop.sale("s1", 5);
    let mut idle = shop.buyers();
    assert_eq!(idle.get("/v1/time").status, 200);
    // Heads whose end does not come: first ones, and one after an answer.
    let mut halves: Vec<Client> = ["", "G", "GET /v1/time HTTP/1.1\r\nA: b\r\n"]
        .into_iter()
        .cycle()
        .take(12)
        .map(|half| {
            let mut client = shop.buyers();
            client.send(half.as_bytes());
            client
        })
        .collect();
    let mut later = shop.buyers();
    later.send((request("GET", "/v1/time", &[], "") + "GET /v1/ti").as_bytes());
    assert_eq!(later.answer().unwrap().status, 200);
    halves.push(later);
    // A purchase that waits for the store.
    shop.store.hold();
    let mut waiting = shop.buyers();
    let headers = [bearer(&token("u1")), key("k")];
    waiting.send(request("POST", "/v1/sales/s1/purchases", &headers, ONE_A).as_bytes());
    let mut admins = shop.admins();
    poll("the purchase is with the store", || {
        String::from_utf8(admins.get("/metrics").body)
            .unwrap()
            .contains("stampede_in_flight 1")
    });
    shop.stop.send_replace(true);
    // The purchase is still to be answered, so none of these is closed for the deadline's sake.
    assert!(idle.is_closed());
    assert!(halves.iter_mut().all(Client::is_closed));
    poll("it is not ready", || admins.get("/readyz").status == 503);
    shop.store.release();
    let answer = waiting.answer().unwrap();
    assert_eq!(answer.status, 201);
    assert!(waiting.is_closed());
    assert_eq!(shop.stop(), Ended::Drained);
    assert!(std::net::TcpStream::connect(shop.public).is_err());
}

fn a_purchase_whose_client_left_is_decided_all_the_same(on: On) {
    let shop = Shop::open(on);
    shop.sale("s1", 5);
    shop.store.hold();
    let mut gone = shop.buyers();
    let headers = [bearer(&token("u1")), key("k")];
    gone.send(request("POST", "/v1/sales/s1/purchases", &headers, ONE_A).as_bytes());
    let mut admins = shop.admins();
    poll("the purchase is with the store", || {
        String::from_utf8(admins.get("/metrics").body)
            .unwrap()
            .contains("stampede_in_flight 1")
    });
    drop(gone);
    shop.store.release();
    let again = shop.buy("s1", "u1", "k", ONE_A);
    assert_eq!((again.status, shop.reservation_count("s1")), (200, 1));
}

#[test]
fn two_processes_cannot_share_a_port() {
    let shop = Shop::open(On::Memory);
    let second = || Shop::with(On::Memory, |config| config.public = shop.public);
    let refused = std::panic::catch_unwind(second);
    assert!(refused.is_err());
}
