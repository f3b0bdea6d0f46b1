//! A Redis that dies, with what it had acknowledged or without.

use std::fs;

use dev_faultproxy::Fault;
use dev_servers::{AppendFsync, RedisOptions};
use flash_store::*;
use flash_types::*;

use crate::common::redis::*;
use crate::{is_frozen, one};

/// Bytes of the append-only file.
fn aof_bytes(rig: &Rig) -> u64 {
    let files = fs::read_dir(rig.server.aof_dir()).unwrap();
    let incremental = files.map(|file| file.unwrap()).find(|file| {
        let name = file.file_name();
        name.to_string_lossy().ends_with(".incr.aof")
    });
    incremental.unwrap().metadata().unwrap().len()
}

/// `kill -9`, and everything that was written since is gone.
fn lose_since(rig: &mut Rig, bytes: u64) {
    rig.server.kill().unwrap();
    rig.server
        .truncate_aof_tail(aof_bytes(rig) - bytes)
        .unwrap();
    rig.server.restart().unwrap();
}

fn must_be_frozen_for_good(rig: &Rig, node: &Node) {
    // Which Redis serves it may change.
    let content = || {
        let mut raw = rig.raw(1);
        raw.meta.remove("home");
        raw.meta.remove("gen");
        raw.meta.remove("grace_ms");
        raw
    };
    let before = content();
    for number in 10..13 {
        let verdict = node.commit(1, vec![one(number)]);
        assert!(is_frozen(&verdict), "{verdict:?}");
    }
    assert_eq!(content(), before, "nothing is sold any more");
}

#[test]
fn a_restart_between_two_batches_moves_the_home() {
    let mut rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    node.commit(1, vec![one(1)]).unwrap();
    let home = rig.meta(1, "home");
    rig.server.kill().unwrap();
    rig.server.restart().unwrap();
    let committed = node.commit(1, vec![one(2)]).unwrap();
    assert!(committed.has_moved);
    assert_ne!(rig.meta(1, "home"), home);
    assert_eq!(rig.meta(1, "gen"), "2");
    assert_eq!(rig.raw(1).item(0).reserved, 2);
    assert!(!node.commit(1, vec![one(3)]).unwrap().has_moved);
}

/// Nobody could pay while Redis was away: what ran out meanwhile is kept for a while.
#[test]
fn nothing_expires_right_after_redis_came_back() {
    let mut rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    let reserves = node.batch(1, vec![one(1)]);
    node.commit_batch(&reserves).unwrap();
    let expire = || Change::Expire {
        reservation: reserves.entries[0].serial,
        units: crate::common::deltas(&[(0, 1)]),
        is_pooled: false,
    };
    let go_on_s = |rig: &Rig, seconds: i64| {
        let now: i64 = rig.meta(1, "clock_ms").parse().unwrap();
        let later = (now + seconds * 1_000).to_string();
        rig.ask(&["HSET", "{s:s-1}:meta", "clock_ms", &later]);
    };
    // Past its window of 300 s.
    go_on_s(&rig, 301);
    rig.server.kill().unwrap();
    rig.server.restart().unwrap();
    let committed = node.commit(1, vec![expire()]).unwrap();
    assert!(committed.has_moved);
    assert_eq!(committed.refused, [(0, EntryRefusal::Early)]);
    go_on_s(&rig, 59);
    let refused = node.commit(1, vec![expire()]).unwrap().refused;
    assert_eq!(refused, [(0, EntryRefusal::Early)]);
    go_on_s(&rig, 2);
    assert_eq!(node.commit(1, vec![expire()]).unwrap().refused, []);
}

#[test]
fn a_batch_whose_reply_died_with_redis_is_applied_once() {
    let mut rig = Rig::start();
    let (proxy, config) = rig.proxied();
    let node = Node::open_when_there(&config);
    node.open_sale(1, &[10]);
    let batch = node.batch(1, vec![one(1), one(1)]);
    proxy.drop_replies(true);
    let sent = node.send(&batch);
    until("applied, and the reply swallowed", || {
        rig.meta(1, "ev") == "2" && proxy.fired_by(Fault::DropReplies) > 0
    });
    rig.server.kill().unwrap();
    rig.server.restart().unwrap();
    proxy.drop_replies(false);
    let committed = node.end_of(sent).unwrap();
    assert!(committed.has_moved);
    let known = EntryRefusal::KeyKnown(batch.entries[0].serial);
    assert_eq!(committed.refused, [(1, known)]);
    let raw = rig.raw(1);
    assert_eq!((raw.ev.len(), raw.item(0).reserved), (2, 1));
    assert_eq!(rig.meta(1, "gen"), "2");
}

#[test]
fn a_batch_that_never_reached_the_dead_redis_is_applied_once() {
    let mut rig = Rig::start();
    let (proxy, config) = rig.proxied();
    let node = Node::open_when_there(&config);
    node.open_sale(1, &[10]);
    proxy.pause();
    let sent = node.send(&node.batch(1, vec![one(1)]));
    until("held", || proxy.fired_by(Fault::Pause) > 0);
    rig.server.kill().unwrap();
    rig.server.restart().unwrap();
    proxy.resume();
    let committed = node.end_of(sent).unwrap();
    assert!(committed.has_moved);
    let raw = rig.raw(1);
    assert_eq!((raw.ev.len(), raw.item(0).reserved), (2, 1));
}

#[test]
fn a_move_is_told_even_if_the_attest_was_answered_to_nobody() {
    let mut rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    rig.server.kill().unwrap();
    rig.server.restart().unwrap();
    // What an attest does whose reply was lost.
    let info = rig.ask(&["INFO", "server"]);
    let run_id = info
        .lines()
        .find_map(|line| line.strip_prefix("run_id:"))
        .unwrap();
    let writer = rig.raw(1).w["n-1"].clone();
    let (epoch, _) = writer.split_once('|').unwrap();
    let script = include_str!("../../scripts/attest.lua");
    let [meta, w, ev] = ["meta", "w", "ev"].map(|name| format!("{{s:s-1}}:{name}"));
    let said = rig.ask(&[
        "EVAL", script, "3", &meta, &w, &ev, run_id, "n-1", epoch, "1", "1", "0", "60000",
    ]);
    assert_eq!(said, "PASSED\n2");
    assert!(node.commit(1, vec![one(1)]).unwrap().has_moved);
}

#[test]
fn a_lost_tail_freezes_the_sale() {
    let mut rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    node.open_sale(2, &[10]);
    node.commit(2, vec![one(1)]).unwrap();
    let bytes = aof_bytes(&rig);
    node.commit(1, vec![one(1)]).unwrap();
    node.commit(1, vec![one(2)]).unwrap();
    lose_since(&mut rig, bytes);
    assert_eq!(rig.raw(1).item(0).reserved, 0, "the tail is lost");
    let verdict = node.commit(1, vec![one(3)]);
    assert!(is_frozen(&verdict), "{verdict:?}");
    assert_eq!(rig.meta(1, "state"), "frozen");
    assert_eq!(rig.meta(1, "thaw"), "open");
    let last = rig.raw(1).ev.last().cloned().unwrap();
    assert!(
        last.lines[0].contains("|sale.frozen|||{\"reason\":\"events up to 3 were acknowledged"),
        "{last:?}"
    );
    must_be_frozen_for_good(&rig, &node);
    // Another sale, which lost nothing, goes on.
    assert!(node.commit(2, vec![one(2)]).unwrap().has_moved);
    // It is frozen for the next process too, and holds what was not lost.
    drop(node);
    let node = rig.open();
    assert_eq!(node.loaded.sales[0].state, SaleState::Frozen);
    assert!(
        node.loaded
            .reservations
            .iter()
            .all(|row| row.sale_no == SaleNo(2))
    );
    must_be_frozen_for_good(&rig, &node);
}

#[test]
fn a_lost_tail_is_found_by_a_batch_in_flight() {
    let mut rig = Rig::start();
    let (proxy, config) = rig.proxied();
    let node = Node::open_when_there(&config);
    node.open_sale(1, &[10]);
    let bytes = aof_bytes(&rig);
    node.must_commit(&node.batch(1, vec![one(1)]));
    proxy.drop_replies(true);
    let sent = node.send(&node.batch(1, vec![one(2)]));
    until("applied, and the reply swallowed", || {
        rig.meta(1, "ev") == "3" && proxy.fired_by(Fault::DropReplies) > 0
    });
    lose_since(&mut rig, bytes);
    proxy.drop_replies(false);
    let verdict = node.end_of(sent);
    let is_unknown = matches!(
        verdict,
        Err(CommitError::Frozen {
            is_known: false,
            ..
        })
    );
    assert!(is_unknown, "{verdict:?}");
    must_be_frozen_for_good(&rig, &node);
}

#[test]
fn a_lost_batch_without_an_event_freezes_the_sale_too() {
    let mut rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[0]);
    let bytes = aof_bytes(&rig);
    let sold_out = node.commit(1, vec![one(1)]).unwrap();
    assert_eq!(sold_out.refused, [(0, EntryRefusal::SoldOut(0))]);
    lose_since(&mut rig, bytes);
    let verdict = node.commit(1, vec![one(3)]);
    assert!(is_frozen(&verdict), "{verdict:?}");
    assert_eq!(rig.meta(1, "state"), "frozen");
    must_be_frozen_for_good(&rig, &node);
}

#[test]
fn a_lost_takeover_freezes_the_sale() {
    let mut rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    drop(node);
    let bytes = aof_bytes(&rig);
    let node = rig.open();
    lose_since(&mut rig, bytes);
    // Whoever held it before would not be fenced.
    let verdict = node.commit(1, vec![one(1)]);
    assert!(is_frozen(&verdict), "{verdict:?}");
    assert_eq!(rig.meta(1, "state"), "frozen");
    must_be_frozen_for_good(&rig, &node);
}

#[test]
fn a_master_that_took_over_the_data_of_an_older_one_freezes_the_sale() {
    let options = RedisOptions::default()
        .tcp()
        .extra("repl-diskless-sync-delay", "0");
    let (rig, older) = (Rig::with(options.clone()), Rig::with(options));
    let follows = |one: &Rig, other: &Rig| {
        let port = other.server.port().unwrap().to_string();
        one.ask(&["REPLICAOF", "127.0.0.1", &port]);
        until("followed", || {
            let replication = one.ask(&["INFO", "replication"]);
            replication.contains("master_link_status:up")
        });
        one.ask(&["REPLICAOF", "NO", "ONE"]);
    };
    let node = rig.open();
    node.open_sale(1, &[10]);
    node.commit(1, vec![one(1)]).unwrap();
    follows(&older, &rig);
    node.commit(1, vec![one(2)]).unwrap();
    let home = rig.meta(1, "home");
    follows(&rig, &older);
    assert_eq!((rig.meta(1, "ev"), rig.meta(1, "home")), ("2".into(), home));
    must_be_frozen_for_good(&rig, &node);
    // The next process finds it by the data folder.
    drop(node);
    let node = rig.open();
    assert_eq!(node.loaded.sales[0].state, SaleState::Frozen);
    must_be_frozen_for_good(&rig, &node);
}

#[test]
fn a_redis_that_came_back_empty_freezes_the_sale() {
    let mut rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    node.commit(1, vec![one(1)]).unwrap();
    rig.server.kill().unwrap();
    rig.server.delete_data().unwrap();
    rig.server.restart().unwrap();
    must_be_frozen_for_good(&rig, &node);
    assert_eq!(rig.ask(&["EXISTS", "{s:s-1}:meta"]), "0");
}

#[test]
fn a_store_that_died_with_its_redis_finds_what_is_lost() {
    let mut rig = Rig::with(RedisOptions::default().appendfsync(AppendFsync::Everysec));
    let node = rig.open();
    node.open_sale(1, &[10]);
    node.open_sale(2, &[10]);
    let kept = node.batch(1, vec![one(1)]);
    node.commit_batch(&kept).unwrap();
    let bytes = aof_bytes(&rig);
    node.commit(1, vec![one(2)]).unwrap();
    until("written", || aof_bytes(&rig) > bytes);
    drop(node);
    lose_since(&mut rig, bytes);
    let node = rig.open();
    let states: Vec<_> = node.loaded.sales.iter().map(|sale| sale.state).collect();
    assert_eq!(states, [SaleState::Frozen, SaleState::Open]);
    let serials: Vec<_> = node
        .loaded
        .reservations
        .iter()
        .map(|row| row.serial)
        .collect();
    assert_eq!(serials, [kept.entries[0].serial]);
    assert_eq!(rig.meta(1, "state"), "frozen");
    must_be_frozen_for_good(&rig, &node);
    assert_eq!(node.commit(2, vec![one(1)]).unwrap().refused, []);
}

#[test]
fn a_new_sale_that_was_acknowledged_and_lost_is_not_forgotten() {
    let rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    drop(node);
    // What a lost tail leaves: the sale is listed before its first batch.
    let making = "1|making";
    rig.ask(&["HSET", "{stampede}:sales", "s-1", making]);
    for key in KEYS {
        rig.ask(&["DEL", &format!("{{s:s-1}}:{key}")]);
    }
    let why = crate::refusal(&rig.config());
    assert!(why.contains("s-1 (number 1)"), "{why}");
    assert_eq!(rig.ask(&["HGET", "{stampede}:sales", "s-1"]), making);
}
