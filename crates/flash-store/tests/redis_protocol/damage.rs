//! Keys that are gone, or were changed by hand.

use dev_servers::{AppendFsync, RedisOptions};
use flash_store::*;
use flash_types::*;

use crate::common::redis::*;
use crate::common::{deltas, payment};
use crate::{is_frozen, note, one, refusal};

fn fast() -> Rig {
    Rig::with(RedisOptions::default().appendfsync(AppendFsync::No))
}

/// A sale with something in each of its eight keys.
fn fill(node: &Node, sale_no: u32) {
    node.open_sale(sale_no, &[10]);
    let reserves = node.batch(sale_no, vec![one(1), one(2)]);
    node.commit_batch(&reserves).unwrap();
    let confirm = Change::Confirm {
        reservation: reserves.entries[0].serial,
        payment_ref: payment("p-1"),
        is_late: false,
        units: deltas(&[(0, 1)]),
    };
    let changes = vec![confirm, Change::Note(note("paid"))];
    assert_eq!(node.commit(sale_no, changes).unwrap().refused, []);
}

fn key(sale_no: u32, name: &str) -> String {
    format!("{{s:s-{sale_no}}}:{name}")
}

fn must_be_frozen(node: &Node, sale_no: u32, what: &str) {
    for number in 5..7 {
        let verdict = node.commit(sale_no, vec![one(number)]);
        assert!(is_frozen(&verdict), "{what}: {verdict:?}");
    }
}

#[test]
fn an_emptied_redis_freezes_every_sale_and_takes_no_new_one() {
    let rig = fast();
    let node = rig.open();
    fill(&node, 1);
    rig.ask(&["FLUSHALL"]);
    let verdict = node.commit(1, vec![one(5)]);
    let is_known = matches!(verdict, Err(CommitError::Frozen { is_known: true, .. }));
    assert!(is_known, "{verdict:?}");
    must_be_frozen(&node, 1, "emptied");
    let definition = Box::new(plan(2, &[5]));
    let verdict = node.commit(2, vec![Change::PutDraft { definition }]);
    assert!(
        crate::is_unavailable(&verdict, "emptied"),
        "a sale that the next start would refuse to see: {verdict:?}"
    );
    assert_eq!(rig.ask(&["DBSIZE"]), "0");
    drop(node);
    let why = refusal(&rig.config());
    assert!(why.contains("acked-redis"), "{why}");
}

#[test]
fn a_key_that_is_gone_freezes_the_sale() {
    let rig = fast();
    let node = rig.open();
    for (sale_no, name) in (1..).zip(KEYS) {
        fill(&node, sale_no);
        rig.ask(&["DEL", &key(sale_no, name)]);
        must_be_frozen(&node, sale_no, name);
    }
    // Nor does a new plan begin the sale anew.
    let definition = Box::new(plan(1, &[10]));
    let verdict = node.commit(1, vec![Change::PutDraft { definition }]);
    assert!(is_frozen(&verdict), "{verdict:?}");
    drop(node);
    let why = refusal(&rig.config());
    assert!(why.contains("s-1 (number 1)"), "{why}");
    assert!(!why.contains("s-2 ("), "{why}");
    // Without it the others are there: frozen where something is missing that cannot be made again.
    rig.ask(&["HDEL", "{stampede}:sales", "s-1"]);
    std::fs::remove_file(rig.data.path().join("acked-redis")).unwrap();
    let node = rig.open();
    let states: Vec<_> = node
        .loaded
        .sales
        .iter()
        .map(|sale| (sale.sale_no.0, sale.state))
        .collect();
    let frozen = (3..=8).map(|sale_no| (sale_no, SaleState::Frozen));
    let wanted: Vec<_> = [(2, SaleState::Open)].into_iter().chain(frozen).collect();
    assert_eq!(states, wanted);
    must_be_frozen(&node, 3, "still without its reservations");
}

#[test]
fn a_key_of_another_type_freezes_the_sale() {
    let rig = fast();
    let node = rig.open();
    for (sale_no, name) in (1..).zip(KEYS) {
        fill(&node, sale_no);
        let before = rig.raw(sale_no);
        rig.ask(&["SET", &key(sale_no, name), "by hand"]);
        must_be_frozen(&node, sale_no, name);
        rig.ask(&["DEL", &key(sale_no, name)]);
        let mut after = rig.raw(sale_no);
        match name {
            "meta" => after.meta.clone_from(&before.meta),
            "w" => after.w.clone_from(&before.w),
            "resv" => after.resv.clone_from(&before.resv),
            "key" => after.key.clone_from(&before.key),
            "buyer" => after.buyer.clone_from(&before.buyer),
            "ref" => after.reference.clone_from(&before.reference),
            "ev" => after.ev.clone_from(&before.ev),
            _ => after.note.clone_from(&before.note),
        }
        assert_eq!(after, before, "half a batch was written beside {name}");
    }
}

#[test]
fn a_start_names_the_sale_whose_key_is_of_another_type() {
    for name in ["meta", "w"] {
        let rig = fast();
        let node = rig.open();
        fill(&node, 1);
        drop(node);
        rig.ask(&["SET", &key(1, name), "by hand"]);
        let why = refusal(&rig.config());
        assert!(
            why.contains("sale s-1") && why.contains("WRONGTYPE"),
            "{why}"
        );
    }
    for name in ["resv", "key", "buyer", "ref", "ev", "note"] {
        let rig = fast();
        let node = rig.open();
        fill(&node, 1);
        drop(node);
        rig.ask(&["SET", &key(1, name), "by hand"]);
        let node = rig.open();
        assert_eq!(node.loaded.sales[0].state, SaleState::Frozen, "{name}");
    }
}

#[test]
fn a_field_more_or_less_freezes_the_sale() {
    let rig = fast();
    let node = rig.open();
    let changes: [(&str, &[&str]); 6] = [
        ("resv", &["HSET", "1", "x"]),
        ("key", &["HDEL", "buyer-1|key-1"]),
        ("buyer", &["HDEL", "buyer-1|0"]),
        ("ref", &["HDEL", "payment|0|p-1"]),
        ("ev", &["XTRIM", "MAXLEN", "1"]),
        ("note", &["XTRIM", "MAXLEN", "0"]),
    ];
    for (sale_no, (name, words)) in (1..).zip(changes) {
        fill(&node, sale_no);
        let key = key(sale_no, name);
        let command: Vec<&str> = [&words[..1], &[key.as_str()], &words[1..]].concat();
        rig.ask(&command);
        must_be_frozen(&node, sale_no, name);
    }
}

#[test]
fn books_that_do_not_balance_freeze_the_sale_before_anything_is_written() {
    let rig = fast();
    let node = rig.open();
    let spoiled: [(&str, &str, &str); 4] = [
        ("meta", "i:0", "10,0,7,1,1,"),
        ("meta", "i:0", "10,0,9,0,1,"),
        ("meta", "i:0", "10,0,8,1,1,x"),
        ("buyer", "buyer-2|0", "0"),
    ];
    for (sale_no, (name, field, value)) in (1..).zip(spoiled) {
        fill(&node, sale_no);
        rig.ask(&["HSET", &key(sale_no, name), field, value]);
        let before = rig.raw(sale_no);
        // What is still reserved.
        let serial = before.key["buyer-2|key-2"].parse().unwrap();
        let release = Change::Release {
            reservation: Serial(serial),
            units: deltas(&[(0, 1)]),
            is_pooled: false,
        };
        let verdict = node.commit(sale_no, vec![release]);
        assert!(is_frozen(&verdict), "{name} {field} {value}: {verdict:?}");
        assert_eq!(rig.raw(sale_no), before);
    }
}

#[test]
fn a_note_behind_the_last_one_leaves_nothing_of_its_batch() {
    let rig = fast();
    let node = rig.open();
    fill(&node, 1);
    rig.ask(&[
        "XADD",
        &key(1, "note"),
        "9000000000000000000-0",
        "t",
        "by hand",
    ]);
    rig.ask(&["HSET", &key(1, "meta"), "n_note", "2"]);
    let before = rig.raw(1);
    let verdict = node.commit(1, vec![Change::Pause, Change::Note(note("behind"))]);
    assert!(is_frozen(&verdict), "{verdict:?}");
    assert_eq!(rig.raw(1), before);
}

#[test]
fn a_writer_of_whom_redis_knows_less_than_it_said_freezes_the_sale() {
    let rig = fast();
    let node = rig.open();
    for (sale_no, epochs, batches) in [(1, -1, 0), (2, 0, -1), (3, 0, 2)] {
        fill(&node, sale_no);
        let line = rig.raw(sale_no).w["n-1"].clone();
        let mut parts: Vec<String> = line.split('|').map(str::to_owned).collect();
        for (part, more) in parts.iter_mut().zip([epochs, batches]) {
            *part = (part.parse::<i64>().unwrap() + more).to_string();
        }
        rig.ask(&["HSET", &key(sale_no, "w"), "n-1", &parts.join("|")]);
        must_be_frozen(&node, sale_no, &line);
    }
}

#[test]
fn a_sale_of_which_only_the_writer_is_left_is_not_begun_anew() {
    let rig = fast();
    let node = rig.open();
    let draft = || Change::PutDraft {
        definition: Box::new(plan(1, &[10])),
    };
    node.commit(1, vec![draft()]).unwrap();
    rig.ask(&["DEL", &key(1, "meta"), &key(1, "ev")]);
    let verdict = node.commit(1, vec![draft()]);
    assert!(is_frozen(&verdict), "{verdict:?}");
    assert_eq!(rig.ask(&["EXISTS", &key(1, "meta")]), "0");
}
