//! How a process ends: told once, told twice.

use std::io::{Read, Write};
use std::net::TcpStream;

use crowd::check::look_at_unknowns;
use crowd::client::{Client, Request, Timeouts};
use crowd::log::{Answer, Attempt};
use crowd::wait::poll_until_async;
use nix::sys::signal::Signal;

use crate::rig::*;

on_both_stores!(
    sigterm_under_load_answers_whatever_it_has_read,
    a_second_signal_ends_at_once,
);

async fn sigterm_under_load_answers_whatever_it_has_read(rig: Rig) {
    let mut shop = Shop::open(rig, &[("a", 1_000_000)]).await;
    for round in 0..3 {
        let from = shop.log.len();
        let yes = shop.count(Told::Yes);
        let buyers = Buyers::start(&shop, 32, "a", round);
        buyers.work(&shop, yes + 100, 24).await;
        shop.server.signal(Signal::SIGTERM).unwrap();
        let ended = shop.server.wait_for_end(BOUND).unwrap();
        buyers.stop().await;
        assert_eq!(ended.code(), Some(0), "{}", shop.server.log());
        shop.restart();
        // What got no answer was not read: it may not have been done.
        let mut api = shop.api();
        let (mut done, _) = look_at_unknowns(&mut api, &shop.log, from).await.unwrap();
        // Those apart that ask again for what an earlier call had won and heard.
        let heard = shop.log.entries();
        let is_heard = |attempt: &Attempt| {
            heard.iter().any(|entry| {
                entry.attempt == *attempt && matches!(entry.answer, Some(Answer::Yes { .. }))
            })
        };
        done.retain(|entry| !is_heard(&entry.attempt));
        assert!(done.is_empty(), "done and not answered: {done:#?}");
        shop.assert_books().await;
    }
}

async fn a_second_signal_ends_at_once(rig: Rig) {
    let rig = rig
        .environment("STAMPEDE_PUBLIC_BODY_READ_TIMEOUT_MS", "60000")
        .environment("STAMPEDE_PUBLIC_DRAIN_DEADLINE_MS", "600000");
    let mut shop = Shop::open(rig, &[("a", 1_000)]).await;
    // A request of which the end does not come: the first signal has to wait for it.
    let request = shop.purchase("u", "k", "a");
    let half = &request.as_bytes()[..request.as_bytes().len() - 5];
    let mut waiting = TcpStream::connect(shop.server.public).unwrap();
    waiting.write_all(half).unwrap();
    // It was taken, and what stands in it so far was read, once a later one was answered on each thread.
    for number in 0..16 {
        let bought = shop
            .buy(&mut shop.client(), "v", &format!("k{number}"), "a")
            .await;
        assert_eq!(bought.unwrap().status, 201);
    }
    shop.server.signal(Signal::SIGTERM).unwrap();
    let mut admin = Client::new(shop.server.admin, Timeouts::default());
    let is_stopping = poll_until_async(BOUND, LOOK, async || {
        let answer = admin.send(&Request::get("/readyz").bare()).await;
        answer
            .is_ok_and(|answer| answer.status == 503)
            .then_some(())
    });
    assert!(is_stopping.await.is_some(), "it does not say that it stops");
    assert!(shop.server.is_running());
    shop.server.signal(Signal::SIGTERM).unwrap();
    let ended = shop.server.wait_for_end(BOUND).unwrap();
    assert_eq!(ended.code(), Some(1));
    let mut rest = Vec::new();
    let read = waiting.read_to_end(&mut rest);
    assert!(
        read.is_err() || rest.is_empty(),
        "{}",
        String::from_utf8_lossy(&rest)
    );
    shop.restart();
    shop.assert_books().await;
}
