//! An operator takes a frozen sale as Redis has it.

use flash_store::*;
use flash_types::*;

use crate::common::redis::*;
use crate::{is_frozen, note, one};

fn accept(node: &Node, sale_no: u32) -> Result<SaleState, AcceptError> {
    accept_as(node, sale_no, true)
}

fn accept_as(node: &Node, sale_no: u32, is_rest_whole: bool) -> Result<SaleState, AcceptError> {
    let content = node.run(node.store.content(SaleNo(sale_no)));
    let ev = content.ok().flatten().map_or(0, |content| content.ev);
    let loss = AcceptedLoss {
        serials: [node.serial(), node.serial()],
        note: &note("lost and taken"),
        lost: 2,
        ev,
        is_rest_whole,
    };
    node.run(node.store.accept(SaleNo(sale_no), &loss))
}

fn must_be_refused(verdict: Result<SaleState, AcceptError>, told: &str) {
    match verdict {
        Err(AcceptError::Refused(why)) => assert!(why.contains(told), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// A sale with one reservation, and two more that Redis loses.
fn with_a_loss() -> (Rig, Node) {
    let mut rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    node.commit(1, vec![one(1)]).unwrap();
    let kept = std::fs::read(newest_aof(&rig)).unwrap().len() as u64;
    node.commit(1, vec![one(2)]).unwrap();
    node.commit(1, vec![one(3)]).unwrap();
    rig.server.kill().unwrap();
    let there = std::fs::metadata(newest_aof(&rig)).unwrap().len();
    rig.server.truncate_aof_tail(there - kept).unwrap();
    rig.server.restart().unwrap();
    (rig, node)
}

fn newest_aof(rig: &Rig) -> std::path::PathBuf {
    rig.server.aof_dir().join("appendonly.aof.1.incr.aof")
}

#[test]
fn a_loss_that_was_accepted_is_behind_it() {
    let (rig, node) = with_a_loss();
    assert!(is_frozen(&node.commit(1, vec![one(4)])));
    let before = rig.raw(1);
    assert_eq!(
        (rig.meta(1, "gen"), rig.meta(1, "ev")),
        ("2".into(), "3".into())
    );
    assert_eq!(accept(&node, 1).unwrap(), SaleState::Open);
    assert_eq!(
        (rig.meta(1, "gen"), rig.meta(1, "ev")),
        ("3".into(), "4".into())
    );
    assert_eq!(rig.meta(1, "thaw"), "(nil)");
    let raw = rig.raw(1);
    assert_ne!(raw.meta["home"], before.meta["home"]);
    // A batch of before that arrives late is fenced.
    let epoch = |raw: &Raw| raw.w["n-1"].split('|').next().unwrap().to_owned();
    assert!(epoch(&raw) > epoch(&before));
    assert_eq!(raw.ev[3].id, "3-4");
    assert!(raw.ev[3].lines[0].ends_with(r#"|sale.thawed|||{"to":"open","gen":3,"lost":2}"#));
    assert!(raw.note[0].1.contains("lost and taken"));
    // What was lost may be bought again, with the same keys.
    let content = node.run(node.store.content(SaleNo(1))).unwrap().unwrap();
    assert_eq!(content.sale.state, SaleState::Open);
    assert_eq!(content.reservations.len(), 1);
    let committed = node.commit(1, vec![one(1), one(2), one(3)]).unwrap();
    let known = EntryRefusal::KeyKnown(content.reservations[0].serial);
    assert_eq!(committed.refused, [(0, known)]);
    assert!(!committed.has_moved);
    assert_eq!(rig.raw(1).item(0).reserved, 3);
    // And the next start finds nothing missing.
    drop(node);
    let node = rig.open();
    assert_eq!(node.loaded.sales[0].state, SaleState::Open);
    assert_eq!(node.loaded.reservations.len(), 3);
}

#[test]
fn a_loss_is_accepted_after_a_restart_too() {
    let (rig, node) = with_a_loss();
    drop(node);
    let node = rig.open();
    assert_eq!(node.loaded.sales[0].state, SaleState::Frozen);
    assert_eq!(accept(&node, 1).unwrap(), SaleState::Open);
    assert_eq!(node.commit(1, vec![one(2)]).unwrap().refused, []);
}

#[test]
fn a_freeze_of_the_engine_is_undone_to_the_state_before() {
    let rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    let reason = "the books \"do not\" balance".to_owned();
    let freeze = || Change::Freeze {
        reason: reason.clone(),
    };
    node.commit(1, vec![Change::Pause, freeze()]).unwrap();
    // Frozen twice is frozen.
    assert_eq!(node.commit(1, vec![freeze()]).unwrap().refused, []);
    assert!(is_frozen(&node.commit(1, vec![Change::Resume])));
    assert_eq!(accept(&node, 1).unwrap(), SaleState::Paused);
    assert_eq!(
        node.commit(1, vec![Change::Resume, one(1)])
            .unwrap()
            .refused,
        []
    );
}

#[test]
fn an_open_sale_comes_back_paused_where_more_than_reservations_is_lost() {
    let (rig, node) = with_a_loss();
    assert!(is_frozen(&node.commit(1, vec![one(4)])));
    assert_eq!(accept_as(&node, 1, false).unwrap(), SaleState::Paused);
    assert_eq!(rig.meta(1, "state"), "paused");
    let line = &rig.raw(1).ev[3].lines[0];
    assert!(line.contains(r#""to":"paused""#), "{line}");
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    let (rig, node) = with_a_loss();
    assert!(is_frozen(&node.commit(1, vec![one(4)])));
    let epoch_of = |raw: &Raw| raw.w["n-1"].split('|').next().unwrap().to_owned();
    let before = epoch_of(&rig.raw(1));
    assert_eq!(accept(&node, 1).unwrap(), SaleState::Open);
    let once = rig.raw(1);
    let script = include_str!("../../scripts/accept.lua");
    let ask = |epoch: &str| {
        let keys = KEYS.map(|name| format!("{{s:s-1}}:{name}"));
        let mut words = vec!["EVAL", script, "8"];
        words.extend(keys.iter().map(String::as_str));
        words.extend([
            &once.meta["home"],
            "n-1",
            epoch,
            "1",
            "2",
            "note",
            "2",
            "3",
            "1",
        ]);
        rig.ask(&words)
    };
    // As if the first answer had never come.
    let (epoch, ev, gen_no) = (epoch_of(&once), &once.meta["ev"], &once.meta["gen"]);
    assert_eq!(ask(&before), format!("OK\n{epoch}\n{ev}\n{gen_no}\nopen"));
    // Whoever knows the epoch asks about another loss.
    assert_eq!(ask(&epoch), "NOTFROZEN\nopen");
    assert_eq!(rig.raw(1), once, "nothing is done twice");
    assert_eq!(node.commit(1, vec![one(2)]).unwrap().refused, []);
}

#[test]
fn what_changed_since_it_was_read_is_not_accepted() {
    let (rig, node) = with_a_loss();
    assert!(is_frozen(&node.commit(1, vec![one(4)])));
    let before = rig.raw(1);
    let loss = AcceptedLoss {
        serials: [node.serial(), node.serial()],
        note: &note("of something else"),
        lost: 0,
        ev: 7,
        is_rest_whole: true,
    };
    let verdict = node.run(node.store.accept(SaleNo(1), &loss));
    assert!(
        matches!(verdict, Err(AcceptError::Unavailable(_))),
        "{verdict:?}"
    );
    assert_eq!(rig.raw(1), before);
}

/// The append-only file of before the loss is put back: everything that was acknowledged is there again.
#[test]
fn a_store_that_was_restored_whole_is_taken_as_it_is() {
    let mut rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    node.commit(1, vec![one(1)]).unwrap();
    node.commit(1, vec![one(2)]).unwrap();
    rig.server.kill().unwrap();
    let whole = std::fs::read(newest_aof(&rig)).unwrap();
    rig.server.truncate_aof_tail(400).unwrap();
    rig.server.restart().unwrap();
    assert!(is_frozen(&node.commit(1, vec![one(3)])));
    rig.server.kill().unwrap();
    std::fs::write(newest_aof(&rig), whole).unwrap();
    rig.server.restart().unwrap();
    assert_eq!(
        rig.meta(1, "state"),
        "open",
        "it was never told of the freeze"
    );
    assert_eq!(accept(&node, 1).unwrap(), SaleState::Open);
    let committed = node.commit(1, vec![one(2), one(4)]).unwrap();
    assert_eq!(committed.refused.len(), 1, "the key of before is there");
    assert_eq!(rig.raw(1).item(0).reserved, 3);
}

/// The same, and it is not whole: nothing is taken, and the sale is frozen there too.
#[test]
fn a_store_that_was_restored_in_part_is_frozen_first() {
    let (mut rig, node) = with_a_loss();
    rig.server.kill().unwrap();
    let part = std::fs::read(newest_aof(&rig)).unwrap();
    rig.server.restart().unwrap();
    assert!(is_frozen(&node.commit(1, vec![one(4)])));
    rig.server.kill().unwrap();
    std::fs::write(newest_aof(&rig), part).unwrap();
    rig.server.restart().unwrap();
    assert_eq!(
        rig.meta(1, "state"),
        "open",
        "it was never told of the freeze"
    );
    assert_eq!(accept(&node, 1).unwrap(), SaleState::Open);
    let told: Vec<String> = rig.raw(1).ev.into_iter().flat_map(|ev| ev.lines).collect();
    let last: Vec<&str> = told.iter().rev().take(2).map(String::as_str).collect();
    assert!(
        last[0].contains("sale.thawed") && last[1].contains("sale.frozen"),
        "{told:?}"
    );
    assert_eq!(node.commit(1, vec![one(2)]).unwrap().refused, []);
}

#[test]
fn a_sale_of_which_something_is_gone_is_not_accepted() {
    let rig = Rig::start();
    let node = rig.open();
    for (sale_no, name) in (1..).zip(KEYS) {
        node.open_sale(sale_no, &[10]);
        let reserves = node.batch(sale_no, vec![one(1)]);
        node.commit_batch(&reserves).unwrap();
        let taken = Change::Confirm {
            reservation: reserves.entries[0].serial,
            payment_ref: crate::common::payment("p-1"),
            is_late: false,
            units: crate::common::deltas(&[(0, 1)]),
        };
        let freeze = Change::Freeze {
            reason: "seen".into(),
        };
        let changes = vec![taken, Change::Note(note("x")), freeze];
        assert_eq!(node.commit(sale_no, changes).unwrap().refused, []);
        rig.ask(&["DEL", &format!("{{s:s-{sale_no}}}:{name}")]);
        if name == "w" {
            // It only says who may write.
            assert_eq!(accept(&node, sale_no).unwrap(), SaleState::Open);
        } else {
            must_be_refused(accept(&node, sale_no), "are gone");
        }
    }
}

#[test]
fn one_that_is_fenced_accepts_nothing() {
    let rig = Rig::start();
    let first = rig.open();
    first.open_sale(1, &[10]);
    let freeze = Change::Freeze {
        reason: "seen".into(),
    };
    first.commit(1, vec![freeze]).unwrap();
    let second = rig.open();
    must_be_refused(accept(&first, 1), "another process");
    assert_eq!(rig.meta(1, "state"), "frozen");
    assert_eq!(accept(&second, 1).unwrap(), SaleState::Open);
}

#[test]
fn a_redis_that_is_away_is_asked_again() {
    let mut rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    let freeze = Change::Freeze {
        reason: "seen".into(),
    };
    node.commit(1, vec![freeze]).unwrap();
    rig.server.kill().unwrap();
    let verdict = accept(&node, 1);
    assert!(
        matches!(verdict, Err(AcceptError::Unavailable(_))),
        "{verdict:?}"
    );
    rig.server.restart().unwrap();
    assert_eq!(accept(&node, 1).unwrap(), SaleState::Open);
    assert_eq!(node.commit(1, vec![one(1)]).unwrap().refused, []);
}
