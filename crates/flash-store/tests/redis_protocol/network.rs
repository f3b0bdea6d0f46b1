//! What is between the store and its Redis.

use std::time::Duration;

use dev_faultproxy::{Fault, FaultProxy};
use flash_store::*;

use crate::common::redis::*;
use crate::one;

/// A sale, its node behind a network, and a batch that is to be decided once: a key that wins and one that won before.
struct Scene {
    rig: Rig,
    proxy: FaultProxy,
    node: Node,
    batch: Batch,
    refused: Vec<(usize, EntryRefusal)>,
}

impl Scene {
    fn new() -> Self {
        let rig = Rig::start();
        let (proxy, config) = rig.proxied();
        let node = Node::open_when_there(&config);
        node.open_sale(1, &[10]);
        let winner = node.batch(1, vec![one(1)]);
        assert_eq!(node.must_commit(&winner).refused, []);
        let batch = node.batch(1, vec![one(2), one(1)]);
        Self {
            refused: vec![(1, EntryRefusal::KeyKnown(winner.entries[0].serial))],
            rig,
            proxy,
            node,
            batch,
        }
    }

    fn is_applied(&self) -> bool {
        self.rig.meta(1, "ev") == "3"
    }

    /// The fault bit, the answer is that of the first time, and the units moved once.
    fn must_be_applied_once(&self, fault: Fault, verdict: Result<Committed, CommitError>) {
        assert!(self.proxy.fired_by(fault) > 0, "{fault:?} did not bite");
        let committed = verdict.unwrap();
        assert_eq!(committed.refused, self.refused);
        assert!(!committed.has_moved);
        let raw = self.rig.raw(1);
        assert_eq!(raw.ev.len(), 3);
        assert_eq!(raw.ev[2].at, committed.at.unwrap().0.to_string());
        assert_eq!((raw.item(0).reserved, raw.item(0).available), (2, 8));
        assert_eq!(raw.resv.len(), 2);
        // The line goes on.
        let next = self.node.batch(1, vec![one(3)]);
        assert_eq!(self.node.must_commit(&next).refused, []);
        assert_eq!(self.rig.raw(1).item(0).reserved, 3);
        assert_eq!(self.node.store.trouble(), None);
    }
}

#[test]
fn a_lost_reply_is_asked_for_again_and_the_batch_applied_once() {
    let scene = Scene::new();
    scene.proxy.drop_replies(true);
    let sent = scene.node.send(&scene.batch);
    until("applied", || scene.is_applied());
    until("told", || scene.node.store.trouble().is_some());
    scene.proxy.drop_replies(false);
    let verdict = scene.node.end_of(sent);
    scene.must_be_applied_once(Fault::DropReplies, verdict);
}

#[test]
fn a_reply_cut_in_two_is_asked_for_again() {
    let scene = Scene::new();
    scene.proxy.cut_replies_after(5);
    let verdict = scene.node.commit_batch(&scene.batch);
    scene.must_be_applied_once(Fault::CutReplies, verdict);
}

#[test]
fn half_a_request_is_sent_again() {
    let scene = Scene::new();
    scene.proxy.cut_requests_after(100);
    let verdict = scene.node.commit_batch(&scene.batch);
    scene.must_be_applied_once(Fault::CutRequests, verdict);
}

#[test]
fn a_half_open_connection_is_given_up() {
    let scene = Scene::new();
    scene.proxy.half_open();
    let verdict = scene.node.commit_batch(&scene.batch);
    scene.must_be_applied_once(Fault::HalfOpen, verdict);
}

#[test]
fn a_reset_connection_is_made_again() {
    let scene = Scene::new();
    scene.proxy.reset_all();
    let verdict = scene.node.commit_batch(&scene.batch);
    scene.must_be_applied_once(Fault::Reset, verdict);
}

#[test]
fn a_reset_with_the_batch_underway_is_survived() {
    let scene = Scene::new();
    scene.proxy.pause();
    let sent = scene.node.send(&scene.batch);
    until("held", || scene.proxy.fired_by(Fault::Pause) > 0);
    scene.proxy.reset_all();
    scene.proxy.resume();
    let verdict = scene.node.end_of(sent);
    scene.must_be_applied_once(Fault::Reset, verdict);
}

#[test]
fn a_copy_that_arrives_late_does_nothing() {
    let scene = Scene::new();
    scene.proxy.set_delay(SHORT * 4);
    let sent = scene.node.send(&scene.batch);
    until("given up", || scene.node.store.trouble().is_some());
    assert!(!scene.is_applied(), "the first copy is still on its way");
    scene.proxy.set_delay(Duration::ZERO);
    let verdict = scene.node.end_of(sent);
    // The connections that were given up end after their last byte has arrived.
    until("arrived", || scene.proxy.open_connections() <= 3);
    scene.must_be_applied_once(Fault::Delay, verdict);
}

#[test]
fn a_server_that_stands_still_decides_when_it_goes_on() {
    let scene = Scene::new();
    scene.rig.server.freeze().unwrap();
    let sent = scene.node.send(&scene.batch);
    until("told", || scene.node.store.trouble().is_some());
    assert!(!sent.is_finished());
    scene.rig.server.thaw().unwrap();
    let verdict = scene.node.end_of(sent);
    scene.proxy.reset_all();
    scene.must_be_applied_once(Fault::Reset, verdict);
}

#[test]
fn a_paused_server_decides_when_it_goes_on() {
    let scene = Scene::new();
    let pause_ms = (SHORT * 3).as_millis().to_string();
    scene.rig.ask(&["CLIENT", "PAUSE", &pause_ms, "ALL"]);
    let sent = scene.node.send(&scene.batch);
    until("told", || scene.node.store.trouble().is_some());
    let verdict = scene.node.end_of(sent);
    scene.proxy.reset_all();
    scene.must_be_applied_once(Fault::Reset, verdict);
}

#[test]
fn forgotten_scripts_are_sent_again_unseen() {
    let rig = Rig::start();
    let node = rig.open();
    for sale_no in 1..=2 {
        rig.ask(&["SCRIPT", "FLUSH"]);
        node.open_sale(sale_no, &[10]);
        rig.ask(&["SCRIPT", "FLUSH"]);
        assert_eq!(node.commit(sale_no, vec![one(1)]).unwrap().refused, []);
    }
    assert_eq!(node.store.trouble(), None);
    assert_eq!(rig.raw(1).item(0).reserved, 1);
}

#[test]
fn a_batch_that_its_sender_gave_up_ends_the_line() {
    let scene = Scene::new();
    scene.proxy.pause();
    let sent = scene.node.send(&scene.batch);
    until("held", || scene.proxy.fired_by(Fault::Pause) > 0);
    sent.abort();
    assert!(scene.node.run(sent).unwrap_err().is_cancelled());
    scene.proxy.resume();
    let verdict = scene.node.commit(1, vec![one(3)]);
    assert!(matches!(verdict, Err(CommitError::Fatal(_))), "{verdict:?}");
}
