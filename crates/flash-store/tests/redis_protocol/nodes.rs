//! Two processes that want the same sales.

use dev_faultproxy::Fault;
use flash_store::*;

use crate::common::redis::*;
use crate::{one, refusal};

fn named(rig: &Rig, node: &str) -> RedisConfig {
    RedisConfig {
        node: node.into(),
        ..rig.config()
    }
}

fn is_fatal(verdict: &Result<Committed, CommitError>) -> bool {
    matches!(verdict, Err(CommitError::Fatal(why)) if why.contains("taken over from node n-1"))
}

#[test]
fn another_name_has_to_wait_until_the_first_has_left() {
    let rig = Rig::start();
    let first = rig.open();
    let why = refusal(&named(&rig, "n-2"));
    assert!(why.contains("--node n-1"), "{why}");
    first.run(first.store.close());
    drop(first);
    Node::open(&named(&rig, "n-2")).unwrap();
}

#[test]
fn the_same_name_takes_over_and_the_first_never_writes_again() {
    let rig = Rig::start();
    let first = rig.open();
    first.open_sale(1, &[10]);
    first.commit(1, vec![one(1)]).unwrap();
    let second = rig.open();
    assert_eq!(second.opened.epoch, first.opened.epoch + 1);
    assert_eq!(second.loaded.reservations.len(), 1);
    let before = rig.raw(1);
    let verdict = first.commit(1, vec![one(2)]);
    assert!(is_fatal(&verdict), "{verdict:?}");
    assert!(matches!(first.store.trouble(), Some(Trouble::Final(_))));
    let definition = Box::new(plan(2, &[5]));
    for (sale_no, change) in [
        (1, one(3)),
        (2, Change::PutDraft { definition }),
        (0, Change::Note(crate::note("x"))),
    ] {
        let verdict = first.commit(sale_no, vec![change]);
        assert!(is_fatal(&verdict), "{verdict:?}");
    }
    assert_eq!(rig.raw(1), before);
    assert_eq!(rig.ask(&["HKEYS", "{stampede}:sales"]), "s-1");
    assert_eq!(second.commit(1, vec![one(2)]).unwrap().refused, []);
}

#[test]
fn the_first_makes_no_new_sale_either() {
    let rig = Rig::start();
    let first = rig.open();
    let second = rig.open();
    let definition = Box::new(plan(1, &[5]));
    let verdict = first.commit(1, vec![Change::PutDraft { definition }]);
    assert!(is_fatal(&verdict), "{verdict:?}");
    assert_eq!(rig.ask(&["EXISTS", "{stampede}:sales"]), "0");
    second.open_sale(1, &[5]);
}

#[test]
fn a_first_that_commits_nothing_hears_of_it_by_its_heartbeat() {
    let rig = Rig::start();
    let first = rig.open();
    let second = rig.open();
    until("fenced", || {
        matches!(first.store.trouble(), Some(Trouble::Final(_)))
    });
    assert_eq!(second.store.trouble(), None);
}

#[test]
fn a_batch_of_the_dead_that_arrives_late_is_fenced() {
    let rig = Rig::start();
    let (proxy, config) = rig.proxied();
    let first = Node::open_when_there(&config);
    first.open_sale(1, &[10]);
    proxy.pause();
    let sent = first.send(&first.batch(1, vec![one(1)]));
    until("held", || proxy.fired_by(Fault::Pause) > 0);
    let second = rig.open();
    let before = rig.raw(1);
    proxy.resume();
    let verdict = first.end_of(sent);
    assert!(is_fatal(&verdict), "{verdict:?}");
    assert_eq!(rig.raw(1), before);
    assert_eq!(second.commit(1, vec![one(1)]).unwrap().refused, []);
}

#[test]
fn one_that_was_taken_for_dead_never_writes_again() {
    let rig = Rig::start();
    let first = rig.open();
    first.open_sale(1, &[10]);
    first.commit(1, vec![one(1)]).unwrap();
    // It was not seen for long: a machine that slept.
    let start = first.opened.epoch;
    rig.ask(&["HSET", "{stampede}:nodes", "n-1", &format!("{start}|1")]);
    let second = Node::open(&named(&rig, "n-2")).unwrap();
    let before = rig.raw(1);
    let verdict = first.commit(1, vec![one(2)]);
    assert!(is_fatal(&verdict), "{verdict:?}");
    assert_eq!(rig.raw(1), before);
    assert_eq!(second.commit(1, vec![one(2)]).unwrap().refused, []);
}

#[test]
fn one_that_was_taken_for_dead_hears_of_it_by_its_heartbeat() {
    let rig = Rig::start();
    let first = rig.open();
    let start = first.opened.epoch;
    rig.ask(&["HSET", "{stampede}:nodes", "n-1", &format!("{start}|1")]);
    let second = Node::open(&named(&rig, "n-2")).unwrap();
    until("fenced", || {
        matches!(first.store.trouble(), Some(Trouble::Final(_)))
    });
    assert_eq!(second.store.trouble(), None);
}

#[test]
fn one_that_lost_its_place_does_not_judge_a_restarted_redis() {
    for name in ["n-1", "n-2"] {
        let mut rig = Rig::start();
        let first = rig.open();
        first.open_sale(1, &[10]);
        let start = first.opened.epoch;
        rig.ask(&["HSET", "{stampede}:nodes", "n-1", &format!("{start}|1")]);
        let second = Node::open(&named(&rig, name)).unwrap();
        second.commit(1, vec![one(1)]).unwrap();
        rig.server.kill().unwrap();
        rig.server.restart().unwrap();
        let verdict = first.commit(1, vec![one(2)]);
        assert!(is_fatal(&verdict), "{name}: {verdict:?}");
        assert_eq!(rig.meta(1, "state"), "open");
        assert_eq!(second.commit(1, vec![one(2)]).unwrap().refused, []);
    }
}

#[test]
fn an_epoch_grows_where_the_clock_was_set_back() {
    let rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    drop(node);
    rig.ask(&["HSET", "{s:s-1}:w", "n-1", &format!("{}|7|1|1|", NEVER.0)]);
    let node = rig.open();
    assert_eq!(node.commit(1, vec![one(1)]).unwrap().refused, []);
    let line = rig.raw(1).w["n-1"].clone();
    assert!(line.starts_with(&format!("{}|1|", NEVER.0 + 1)), "{line}");
}
