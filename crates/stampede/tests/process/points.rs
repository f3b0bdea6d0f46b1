//! Places inside of the process where it breaks; only in a build with the feature `faults`.

use crate::rig::*;
use crate::trace::{parse, prove_flushed_before_201};

on_both_stores!(a_panic_in_the_committer_ends_the_process);

async fn a_panic_in_the_committer_ends_the_process(rig: Rig) {
    let rig = rig.environment("STAMPEDE_FAULT_POINT", "committer_panic:30");
    let mut shop = Shop::open(rig, &[("a", 10_000)]).await;
    let buyers = Buyers::start(&shop, 16, "a", 1);
    let ended = shop.server.wait_for_end(BOUND);
    buyers.stop().await;
    let log = shop.server.log();
    assert!(!ended.unwrap().success(), "{log}");
    assert!(
        log.contains("committer_panic"),
        "the fault did not fire\n{log}"
    );
    assert!(log.contains("a broken invariant in the books"), "{log}");
    shop.rig.options.environment.clear();
    shop.restart();
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_point_of_a_commit_may_be_the_last() {
    for point in flash_store::fault::POINTS {
        let rig = Rig::new().environment("STAMPEDE_FAULT_POINT", &format!("{point}:20"));
        let mut shop = Shop::open(rig, &[("a", 10_000)]).await;
        let buyers = Buyers::start(&shop, 16, "a", 1);
        let ended = shop.server.wait_for_end(BOUND);
        buyers.stop().await;
        assert!(!ended.unwrap().success(), "{point}");
        shop.rig.options.environment.clear();
        shop.restart();
        shop.assert_books().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proof_of_flushes_finds_a_store_that_answers_too_early() {
    let rig = Rig::new().environment("STAMPEDE_FAULT_MODE", "answer_before_commit");
    let calls = "read,recvfrom,write,writev,sendto,sendmsg,pwrite64,fdatasync,fsync";
    let words = rig.strace(calls, &[]);
    let mut shop = Shop::open(rig.wrapped(words), &[("a", 10_000)]).await;
    let buyers = Buyers::start(&shop, 16, "a", 1);
    buyers.work(&shop, 100, 0).await;
    buyers.stop().await;
    shop.server.stop(BOUND).unwrap();
    let found = prove_flushed_before_201(&parse(&shop.rig.trace())).unwrap_err();
    assert!(found.contains("201 of "), "{found}");
}
