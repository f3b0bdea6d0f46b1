//! Flushes: no yes before one, none after one that failed, and what a slow one does.

use std::sync::Arc;
use std::time::Instant;

use crowd::log::{Answer, Attempt};
use tokio::task::JoinSet;

use crate::rig::*;
use crate::trace::{parse, prove_flushed_before_201};

const CALLS: &str = "read,recvfrom,write,writev,sendto,sendmsg,pwrite64,fdatasync,fsync";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_201_leaves_before_the_flush_of_its_batch() {
    let rig = Rig::new();
    let words = rig.strace(CALLS, &[]);
    let mut shop = Shop::open(rig.wrapped(words), &[("a", 10_000)]).await;
    let mut client = shop.client();
    for number in 0..20 {
        let answer = shop
            .buy(&mut client, "alone", &format!("s{number}z"), "a")
            .await;
        assert_eq!(answer.unwrap().status, 201);
    }
    let buyers = Buyers::start(&shop, 16, "a", 1);
    buyers.work(&shop, 200, 0).await;
    buyers.stop().await;
    assert!(shop.server.stop(BOUND).unwrap().success());
    let calls = parse(&shop.rig.trace());
    let flushes = calls.iter().filter(|call| call.is_flush_of_log()).count();
    let proved = prove_flushed_before_201(&calls).unwrap();
    assert!(flushes >= 20 && proved >= 100, "{flushes} {proved}");
    // The trace saw every one of them.
    let replayed = shop.log.entries().len() - proved;
    assert!(
        shop.count(Told::Yes) == proved + replayed,
        "{proved} of {replayed}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_flush_ends_the_process_and_nothing_is_acknowledged_after_it() {
    let rig = Rig::new();
    let words = rig.strace(CALLS, &["fdatasync:error=EIO:when=40+"]);
    let mut shop = Shop::open(rig.wrapped(words), &[("a", 10_000)]).await;
    let buyers = Buyers::start(&shop, 16, "a", 1);
    let ended = shop.server.wait_for_end(BOUND);
    buyers.stop().await;
    assert_eq!(ended.unwrap().code(), Some(1), "{}", shop.server.log());
    let log = shop.server.log();
    assert!(
        log.contains("the store failed and this process cannot go on"),
        "{log}"
    );
    let trace = shop.rig.trace();
    assert!(trace.contains("(INJECTED)"), "the fault did not fire");
    let calls = parse(&trace);
    assert!(
        calls
            .iter()
            .any(|call| call.is_flush_of_log() && call.result.contains("EIO"))
    );
    // The proof takes only flushes that ended well: so none left on the failed one, or after it.
    let proved = prove_flushed_before_201(&calls).unwrap();
    assert!(proved > 0);
    assert!(shop.count(Told::Unknown) > 0, "nobody was waiting");
    shop.restart();
    shop.assert_books().await;
    let mut client = shop.client();
    assert_eq!(
        shop.buy(&mut client, "later", "later", "a")
            .await
            .unwrap()
            .status,
        201
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_with_a_torn_end_is_started_from_and_loses_no_yes() {
    let rig = Rig::new();
    let words = rig.strace("fdatasync", &["fdatasync:error=EIO:when=15+"]);
    let mut shop = Shop::open(rig.wrapped(words), &[("a", 10_000)]).await;
    let wal = shop.rig.options.data.join("stampede.db-wal");
    let size = || std::fs::metadata(&wal).unwrap().len();
    let mut client = shop.client();
    let mut acknowledged_bytes = 0;
    for number in 0.. {
        let result = shop.buy(&mut client, "u", &format!("k{number}"), "a").await;
        if !result.is_ok_and(|answer| answer.status == 201) {
            break;
        }
        acknowledged_bytes = size();
    }
    shop.server.wait_for_end(BOUND).unwrap();
    let all_bytes = size();
    assert!(
        acknowledged_bytes > 0 && all_bytes > acknowledged_bytes,
        "no batch was written and not acknowledged: {acknowledged_bytes} {all_bytes}"
    );
    assert_eq!(
        (shop.count(Told::Unknown), shop.count(Told::No("unknown"))),
        (1, 0)
    );
    let crashed = shop.rig.options.data.clone();
    let tail = all_bytes - acknowledged_bytes;
    let cuts = [0, 1, 23, 24, 25, tail / 2, tail - 4_096, tail - 1, tail];
    for (number, cut) in cuts.into_iter().enumerate() {
        let copy = shop.rig.path(&format!("cut{number}"));
        copy_folder(&crashed, &copy);
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(copy.join("stampede.db-wal"));
        file.unwrap().set_len(acknowledged_bytes + cut).unwrap();
        shop.move_to(&copy);
        shop.assert_books().await;
        shop.server.kill().unwrap();
    }
    // Behind the end, whatever a disk may leave there.
    for (number, fill) in [0_u8, 0xff, b'x'].into_iter().enumerate() {
        let copy = shop.rig.path(&format!("garbage{number}"));
        copy_folder(&crashed, &copy);
        let path = copy.join("stampede.db-wal");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.resize(bytes.len() + 10_000, fill);
        std::fs::write(&path, bytes).unwrap();
        shop.move_to(&copy);
        shop.assert_books().await;
        shop.server.kill().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_flushes_are_slow_batches_grow_and_late_work_is_shed() {
    let rig = Rig::new().environment("STAMPEDE_ENGINE_REQUEST_DEADLINE_MS", "250");
    // Longer than the deadline: what waits for its turn behind a flush is late.
    let words = rig.strace("fdatasync", &["fdatasync:delay_enter=1000000:when=12+"]);
    let mut shop = Shop::open(rig.wrapped(words), &[("a", 10_000)]).await;
    // One by one until one is with a slow flush: the rest comes while it lasts.
    let mut client = shop.client();
    while shop.count(Told::Unknown) == 0 {
        let number = shop.log.len();
        assert!(number < 20, "the fault did not fire");
        let _ = shop
            .buy(&mut client, "first", &format!("k{number}"), "a")
            .await;
    }
    let first = shop.count(Told::Yes) + 1;
    let mut buyers = JoinSet::new();
    for buyer in 0..32 {
        let mut client = shop.client();
        let (minter, log) = (shop.keys.minter(), Arc::clone(&shop.log));
        buyers.spawn(async move {
            let name = format!("b{buyer}");
            let token = minter.mint(&name, crowd::token::now_s() + 3600);
            let lines = vec![("a".to_owned(), 1)];
            let request = crowd::api::purchase(SALE, &token, "once", &lines);
            // The same key until the answer is a yes, as a storefront would.
            let started = Instant::now();
            while started.elapsed() < BOUND {
                let number = log.sent(Attempt::Purchase {
                    sale: SALE.into(),
                    buyer: name.clone(),
                    key: "once".into(),
                    lines: lines.clone(),
                });
                let answer = Answer::of(&client.send(&request).await);
                log.answered(number, answer.clone());
                if matches!(answer, Answer::Yes { .. }) {
                    return;
                }
            }
            panic!("{name} never knew");
        });
    }
    while let Some(done) = buyers.join_next().await {
        done.unwrap();
    }
    let shed = shop.count(Told::No("overloaded"));
    assert!(shed > 0, "nothing was shed");
    assert!(
        shop.count(Told::Unknown) > 0,
        "nothing was late that had been sent"
    );
    // Many went together.
    let batches = shop.metric("stampede_commit_batch_jobs_count").await;
    let jobs = shop.metric("stampede_commit_batch_jobs_sum").await;
    let small = shop
        .metric("stampede_commit_batch_jobs_bucket{le=\"4\"}")
        .await;
    assert!(
        batches > small,
        "{batches} batches of {jobs} jobs, {small} small"
    );
    shop.assert_books().await;
    shop.server.kill().unwrap();
    assert!(
        shop.rig.trace().contains("(DELAYED)"),
        "the fault did not fire"
    );
    shop.restart();
    shop.assert_books().await;
    assert_eq!(
        shop.api().reservations(SALE).await.unwrap().len(),
        32 + first
    );
}
