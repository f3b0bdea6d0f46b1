//! A Redis that is there and takes nothing, for now: nothing is applied, and the same batch is taken afterwards.

use std::time::{Duration, Instant};

use flash_store::*;

use crate::common::redis::*;
use crate::{is_unavailable, one};

/// A sale with one reservation, and a batch for one more.
struct Scene {
    rig: Rig,
    node: Node,
    batch: Batch,
}

impl Scene {
    fn new() -> Self {
        let rig = Rig::start();
        let node = rig.open();
        node.open_sale(1, &[10]);
        node.commit(1, vec![one(1)]).unwrap();
        let batch = node.batch(1, vec![one(2)]);
        Self { rig, node, batch }
    }

    /// Refused as often as it is sent, and nothing is there.
    fn must_refuse(&self, told: &str) {
        let before = self.rig.raw(1);
        for _ in 0..2 {
            let verdict = self.node.commit_batch(&self.batch);
            assert!(is_unavailable(&verdict, told), "{verdict:?}");
        }
        assert_eq!(self.rig.raw(1), before);
    }

    fn must_recover(&self) {
        let committed = self.node.commit_batch(&self.batch).unwrap();
        assert_eq!(committed.refused, []);
        assert_eq!(self.rig.raw(1).item(0).reserved, 2);
        assert_eq!(self.node.store.trouble(), None);
    }

    fn set(&self, name: &str, value: &str) {
        self.rig.ask(&["CONFIG", "SET", name, value]);
    }
}

#[test]
fn a_full_memory_is_told_as_full_storage() {
    let scene = Scene::new();
    let before = scene.rig.raw(1);
    scene.set("maxmemory", "1");
    for _ in 0..2 {
        let verdict = scene.node.commit_batch(&scene.batch);
        let is_full = matches!(
            verdict,
            Err(CommitError::NotApplied(NotApplied::StorageFull(_)))
        );
        assert!(is_full, "{verdict:?}");
    }
    assert_eq!(scene.rig.raw(1), before);
    scene.set("maxmemory", "0");
    scene.must_recover();
}

#[test]
fn a_full_memory_refuses_a_new_sale_and_a_note_too() {
    let scene = Scene::new();
    scene.set("maxmemory", "1");
    let definition = Box::new(plan(2, &[5]));
    let draft = scene.node.batch(2, vec![Change::PutDraft { definition }]);
    let of_no_sale = scene.node.batch(0, vec![Change::Note(crate::note("x"))]);
    for batch in [&draft, &of_no_sale] {
        let verdict = scene.node.commit_batch(batch);
        let is_full = matches!(
            verdict,
            Err(CommitError::NotApplied(NotApplied::StorageFull(_)))
        );
        assert!(is_full, "{verdict:?}");
    }
    scene.set("maxmemory", "0");
    for batch in [&draft, &of_no_sale] {
        scene.node.commit_batch(batch).unwrap();
    }
    assert_eq!(scene.rig.meta(2, "state"), "draft");
    scene.must_recover();
}

#[test]
fn a_failed_snapshot_stops_writes_until_it_is_mended() {
    let scene = Scene::new();
    // A folder where the snapshot belongs.
    std::fs::create_dir(scene.rig.server.dir().join("dump.rdb")).unwrap();
    scene.set("save", "3600 1");
    scene.rig.ask(&["BGSAVE"]);
    until("the snapshot failed", || {
        let status = scene.rig.ask(&["INFO", "persistence"]);
        status.contains("rdb_last_bgsave_status:err")
    });
    scene.must_refuse("MISCONF");
    scene.set("stop-writes-on-bgsave-error", "no");
    scene.must_recover();
}

#[test]
fn a_master_that_became_a_replica_takes_nothing() {
    let scene = Scene::new();
    scene.rig.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let verdict = scene.node.commit_batch(&scene.batch);
    assert!(is_unavailable(&verdict, "read only replica"), "{verdict:?}");
    scene.must_refuse("not the master");
    scene.rig.ask(&["REPLICAOF", "NO", "ONE"]);
    scene.must_recover();
}

#[test]
fn a_master_without_its_replicas_takes_nothing() {
    let scene = Scene::new();
    scene.set("min-replicas-to-write", "1");
    scene.must_refuse("NOREPLICAS");
    scene.set("min-replicas-to-write", "0");
    scene.must_recover();
}

#[test]
fn a_server_busy_with_another_script_takes_nothing() {
    let scene = Scene::new();
    scene.set("busy-reply-threshold", "10");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let endless = ["EVAL", "while true do end", "0"];
            scene.rig.server.command(&endless).unwrap_err()
        });
        until("busy", || {
            let reply = scene.rig.server.command(&["PING"]);
            reply.is_err_and(|error| error.to_string().starts_with("BUSY"))
        });
        for _ in 0..2 {
            let verdict = scene.node.commit_batch(&scene.batch);
            assert!(is_unavailable(&verdict, "BUSY"), "{verdict:?}");
        }
        scene.rig.ask(&["SCRIPT", "KILL"]);
    });
    scene.must_recover();
}

#[test]
fn a_redis_that_is_down_is_told_at_once() {
    let mut scene = Scene::new();
    // A sale whose line has no connection yet, and one whose connection died with the server.
    drop(scene.node);
    scene.node = scene.rig.open();
    scene.batch = scene.node.batch(1, vec![one(2)]);
    scene.node.open_sale(2, &[10]);
    let idle_since = Instant::now();
    scene.rig.server.kill().unwrap();
    until("idle", || idle_since.elapsed() > Duration::from_secs(1));
    let started = Instant::now();
    let of_idle_line = scene.node.batch(2, vec![one(1)]);
    for batch in [&scene.batch, &of_idle_line] {
        let verdict = scene.node.commit_batch(batch);
        assert!(is_unavailable(&verdict, "cannot connect"), "{verdict:?}");
    }
    assert!(started.elapsed() < LONG, "it waited for an answer");
    scene.rig.server.restart().unwrap();
    assert!(scene.node.commit_batch(&of_idle_line).unwrap().has_moved);
    scene.must_recover();
}

#[test]
fn a_closed_store_takes_nothing() {
    let scene = Scene::new();
    scene.node.run(scene.node.store.close());
    scene.node.run(scene.node.store.close());
    let before = scene.rig.raw(1);
    let of_no_sale = scene.node.batch(0, Vec::new());
    for batch in [&scene.batch, &of_no_sale] {
        let verdict = scene.node.commit_batch(batch);
        assert!(is_unavailable(&verdict, "closed"), "{verdict:?}");
    }
    assert_eq!(scene.rig.raw(1), before);
    assert_eq!(scene.rig.ask(&["HGETALL", "{stampede}:nodes"]), "");
}
