//! What a start finds.

use std::time::Instant;

use flash_store::*;
use flash_types::*;

use crate::common::redis::*;
use crate::{one, refusal};

#[test]
fn every_start_numbers_above_the_one_before() {
    let rig = Rig::start();
    let first = rig.open();
    assert_eq!((first.opened.epoch, first.opened.last_batch), (1, 0));
    assert_eq!(first.loaded.sales, []);
    first.open_sale(1, &[10]);
    let committed = first.commit(1, vec![one(1)]).unwrap();
    drop(first);
    let second = rig.open();
    assert_eq!(second.opened.epoch, 2);
    assert_eq!(second.opened.last_at, committed.at.unwrap());
    drop(second);
    // The count of starts is lost: the data folder and the reservations remember.
    rig.ask(&["DEL", "{stampede}:start"]);
    assert_eq!(rig.open().opened.epoch, 3);
    rig.ask(&["DEL", "{stampede}:start"]);
    std::fs::remove_file(rig.data.path().join("acked-redis")).unwrap();
    assert_eq!(rig.open().opened.epoch, 2);
}

#[test]
fn an_emptied_redis_is_not_begun_anew() {
    let rig = Rig::start();
    drop(rig.open());
    rig.ask(&["FLUSHALL"]);
    let why = refusal(&rig.config());
    assert!(
        why.contains("acked-redis") && why.contains("append-only file"),
        "{why}"
    );
    assert_eq!(rig.ask(&["DBSIZE"]), "0");
}

#[test]
fn another_redis_is_not_taken_for_the_own() {
    let rig = Rig::start();
    drop(rig.open());
    let other = Rig::start();
    other.open().open_sale(1, &[10]);
    let config = RedisConfig {
        data: rig.data.path().to_owned(),
        ..other.config()
    };
    let why = refusal(&config);
    assert!(why.contains("acked-redis"), "{why}");
    let acked = rig.data.path().join("acked-redis");
    std::fs::rename(&acked, rig.data.path().join("moved")).unwrap();
    let node = Node::open(&config).unwrap();
    assert_eq!(node.loaded.sales.len(), 1);
}

#[test]
fn sales_that_are_gone_are_named() {
    let rig = Rig::start();
    let node = rig.open();
    for sale_no in 1..=3 {
        node.open_sale(sale_no, &[10]);
    }
    drop(node);
    rig.ask(&["DEL", "{s:s-2}:meta"]);
    rig.ask(&["HDEL", "{stampede}:sales", "s-3"]);
    let why = refusal(&rig.config());
    assert!(why.contains("s-2 (number 2), number 3;"), "{why}");
    assert!(why.contains("acked-redis"), "{why}");
}

#[test]
fn a_sale_whose_first_batch_never_came_is_dropped() {
    let rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    // Its line joined, and no batch came.
    rig.ask(&["HSET", "{stampede}:sales", "s-2", "2|making"]);
    rig.ask(&[
        "HSET",
        "{s:s-2}:w",
        "n-1",
        "1700000000000|0|1700000000000|0|",
    ]);
    drop(node);
    let node = rig.open();
    assert_eq!(node.loaded.sales.len(), 1);
    assert_eq!(rig.ask(&["HKEYS", "{stampede}:sales"]), "s-1");
    // Its name and its number are free.
    node.open_sale(2, &[10]);
    assert_eq!(node.commit(2, vec![one(1)]).unwrap().refused, []);
}

#[test]
fn the_number_of_a_draft_that_never_came_may_be_another_sales() {
    let rig = Rig::start();
    let node = rig.open();
    rig.ask(&["HSET", "{stampede}:sales", "s-9", "1|making"]);
    node.open_sale(1, &[10]);
    drop(node);
    let node = rig.open();
    assert_eq!(node.loaded.sales.len(), 1);
    assert_eq!(rig.ask(&["HGETALL", "{stampede}:sales"]), "s-1\n1");
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let rig = Rig::start();
    let config = RedisConfig {
        data: rig.data.path().join("none"),
        ..rig.config()
    };
    let why = refusal(&config);
    assert!(why.contains("none/acked-redis"), "{why}");
}

#[test]
fn the_clock_is_that_of_the_store() {
    let rig = Rig::start();
    let node = rig.open();
    let server_ms = || {
        let time = rig.ask(&["TIME"]);
        time.lines().next().unwrap().parse::<i64>().unwrap() * 1_000
    };
    let before_ms = server_ms();
    let now = node.store.time().at(Instant::now());
    assert!((before_ms - 1_000..=server_ms() + 1_000).contains(&now.0));
    // A sale whose clock is ahead, since its Redis had another machine once.
    node.open_sale(1, &[10]);
    let ahead = NEVER.0.to_string();
    rig.ask(&["HSET", "{s:s-1}:meta", "clock_ms", &ahead]);
    rig.ask(&[
        "HSET",
        "{s:s-1}:meta",
        "ends_ms",
        &(NEVER.0 * 2).to_string(),
    ]);
    let committed = node.commit(1, vec![one(1)]).unwrap();
    assert_eq!((committed.at, committed.refused), (Some(NEVER), vec![]));
    assert!(node.store.time().at(Instant::now()) >= NEVER);
}

#[test]
fn a_sale_that_is_there_and_listed_as_being_made_is_finished() {
    let rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    node.commit(1, vec![one(1)]).unwrap();
    rig.ask(&["HSET", "{stampede}:sales", "s-1", "1|making"]);
    drop(node);
    let node = rig.open();
    assert_eq!(node.loaded.reservations.len(), 1);
    assert_eq!(rig.ask(&["HGET", "{stampede}:sales", "s-1"]), "1");
    assert_eq!(node.commit(1, vec![one(2)]).unwrap().refused, []);
}

#[test]
fn a_draft_that_was_refused_may_come_under_another_number() {
    let rig = Rig::start();
    let node = rig.open();
    let draft = |sale_no| {
        let definition = Box::new(plan(7, &[10]));
        node.batch(sale_no, vec![Change::PutDraft { definition }])
    };
    rig.ask(&["HSET", "{stampede}:sales", "s-7", "1|making"]);
    node.commit_batch(&draft(2)).unwrap();
    assert_eq!(rig.ask(&["HGET", "{stampede}:sales", "s-7"]), "2");
    // A name that is taken is taken.
    let verdict = node.commit_batch(&draft(3));
    assert!(
        crate::is_unavailable(&verdict, "in Redis already"),
        "{verdict:?}"
    );
}

#[test]
fn a_redis_restarted_while_no_engine_ran_is_the_home_again() {
    let mut rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    node.commit(1, vec![one(1)]).unwrap();
    let home = rig.meta(1, "home");
    drop(node);
    rig.server.kill().unwrap();
    rig.server.restart().unwrap();
    let node = rig.open();
    assert_eq!(node.loaded.sales[0].state, SaleState::Open);
    assert_eq!(rig.meta(1, "gen"), "2");
    assert_ne!(rig.meta(1, "home"), home);
    let committed = node.commit(1, vec![one(2)]).unwrap();
    assert!(!committed.has_moved, "a start gives its grace by itself");
}

#[test]
fn a_redis_restarted_between_a_start_and_the_first_batch_is_told() {
    let mut rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    drop(node);
    let node = rig.open();
    rig.server.kill().unwrap();
    rig.server.restart().unwrap();
    assert!(node.commit(1, vec![one(1)]).unwrap().has_moved);
}

#[test]
fn contradictions_within_a_sale_freeze_it_at_the_start() {
    let broken: [(&str, &str, &str, &str); 5] = [
        ("resv", "HSET", "4294967297", "by hand"),
        ("resv", "HSET", "4294967297", "r|1|2|b|k||9,1,1"),
        ("resv", "HSET", "4294967297", "r|1|2|b|k||0,1,1,2,0"),
        ("ref", "HSET", "payment|0|x", "taken|1|"),
        ("ref", "HSET", "payment|0|x", "by hand"),
    ];
    for (key, command, field, value) in broken {
        let rig = Rig::start();
        let node = rig.open();
        node.open_sale(1, &[10]);
        drop(node);
        // With its size, so that only its content is wrong.
        rig.ask(&[command, &format!("{{s:s-1}}:{key}"), field, value]);
        rig.ask(&["HSET", "{s:s-1}:meta", &format!("n_{key}"), "1"]);
        let node = rig.open();
        assert_eq!(node.loaded.sales[0].state, SaleState::Frozen, "{value}");
        assert_eq!(node.loaded.reservations, []);
    }
}
