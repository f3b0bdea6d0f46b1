//! The audit of a real Redis finds what is planted, names it, and finds nothing where nothing is wrong, however busy
//! the store is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "../../flash-store/tests/common/mod.rs"]
mod common;
#[path = "redis_audit/releases.rs"]
mod releases;
#[path = "redis_audit/sound.rs"]
mod sound;
#[path = "redis_audit/writer.rs"]
mod writer;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::redis::*;
use common::*;
use dev_servers::{RedisOptions, RedisServer};
use flash_settle::{AuditError, Code, Finding, Report, audit_redis};
use flash_store::*;
use flash_types::*;
use sound::*;
use writer::Writer;

const KEY: &str = "{s:s-1}:key";
const BUYER: &str = "{s:s-1}:buyer";
const REF: &str = "{s:s-1}:ref";
const EV: &str = "{s:s-1}:ev";
const SALES: &str = "{stampede}:sales";

/// The finding with this code, which says this of sale s-1.
#[track_caller]
fn found<'r>(report: &'r Report, code: Code, detail: &str) -> &'r Finding {
    found_of("s-1", report, code, detail)
}

#[track_caller]
fn found_of<'r>(sale: &str, report: &'r Report, code: Code, detail: &str) -> &'r Finding {
    assert!(!report.ok);
    report
        .findings
        .iter()
        .find(|finding| {
            finding.code == code
                && finding.detail.contains(detail)
                && finding.sale.as_deref() == Some(sale)
        })
        .unwrap_or_else(|| panic!("{code:?} {detail:?} is not in\n{report}"))
}

#[track_caller]
fn must_be_ok(report: &Report) {
    assert!(report.ok, "{report}");
}

#[test]
fn sound_books_are_ok() {
    let sound = Sound::make();
    let report = sound.with(&[]);
    must_be_ok(&report);
    assert_eq!(report.counts.reservations, 8);
    assert_eq!(report.counts.decisions, 7);
    assert_eq!(report.counts.notes, 3);
    assert_eq!(report.counts.acked, None);
    let shown: Vec<_> = report
        .sales
        .iter()
        .map(|sale| (sale.sale_id.as_str(), sale.state.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("s-1", "open"),
            ("s-2", "closed"),
            ("s-3", "draft"),
            ("s-4", "open")
        ]
    );
    let units = report.sales[0].items.iter().map(|item| item.units);
    let of = |stock, available, sold| ItemUnits {
        stock,
        unreleased: 0,
        available,
        reserved: 1,
        sold,
    };
    assert_eq!(units.collect::<Vec<_>>(), [of(15, 11, 3), of(10, 7, 2)]);
    let text = report.to_string();
    assert!(
        text.contains("sku-1") && !text.contains("acknowledged"),
        "{text}"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["counts"].get("acked").is_none());
    assert_eq!(json["sales"][0]["items"][0]["sold_units"], 3);
}

#[test]
fn a_deleted_reservation_is_named() {
    let sound = Sound::make();
    for (index, serial) in sound.serials.iter().enumerate() {
        let serial = serial.to_string();
        let delete: &[&str] = &["HDEL", RESV, &serial];
        let adjust: &[&str] = &["HINCRBY", META, "n_resv", "-1"];
        for commands in [&[delete][..], &[delete, adjust]] {
            let report = sound.with(commands);
            found(&report, Code::ReservationMissing, &format!("r1-{serial},"));
            found(&report, Code::SizeMismatch, "its events make 6");
            // Refunded without its units, paid, paid late, reserved: it counts for something.
            if [0, 1, 3, 5].contains(&index) {
                let mismatch = found(&report, Code::CounterMismatch, "");
                assert_eq!(mismatch.item.as_deref(), Some("sku-0"));
            }
        }
    }
    let serial = sound.serials[5].to_string();
    let twin: &[&str] = &["HSET", RESV, "77", &sound.record(5).1];
    let report = sound.with(&[twin]);
    found(&report, Code::RowWithoutBatch, "reservation 77 ");
    found(&report, Code::CounterMismatch, "sum to 2 and 3");
    found(&report, Code::SizeMismatch, "resv holds 7");
    // In the place of another.
    let report = sound.with(&[twin, &["HDEL", RESV, &serial]]);
    found(&report, Code::RowWithoutBatch, "reservation 77 ");
    found(&report, Code::ReservationMissing, &serial);
    found(&sound.with(&[&["DEL", RESV]]), Code::ReservationMissing, "");
}

#[test]
fn an_altered_reservation_is_named() {
    let sound = Sound::make();
    for (index, from, to, told) in [
        (0, "f|", "c|", "is confirmed, its events made it refunded"),
        (2, "l|", "e|", "is expired, its events made it released"),
        (5, "r|", "c|", "is confirmed, its events made it reserved"),
        (3, "p-3", "p-9", "another payment"),
        (3, "p-3", "", "another payment"),
        (1, ",1,1", ",1,0", "other refunded units"),
        (1, ",1,1", "", "other refunded units"),
        (5, "buyer-5", "mallory", "is of mallory"),
        (5, "key-5", "other", "was won by other"),
        (5, "0,1,9900", "0,1,1", "other times, units or prices"),
        (5, "0,1,9900", "0,2,9900", "other times, units or prices"),
        (5, "r|1", "r|2", "other times, units or prices"),
        (5, ";1,1,9900", "", "other times, units or prices"),
    ] {
        let (serial, record) = sound.record(index);
        let altered = record.replacen(from, to, 1);
        assert_ne!(altered, record);
        let report = sound.with(&[&["HSET", RESV, &serial, &altered]]);
        let finding = found(&report, Code::ReservationAltered, told);
        assert!(
            finding.detail.starts_with(&format!("r1-{serial} ")),
            "{finding}"
        );
    }
    // Its own sum follows what it says.
    let (serial, record) = sound.record(5);
    let altered = record.replacen("0,1,9900", "0,2,9900", 1);
    let report = sound.with(&[&["HSET", RESV, &serial, &altered]]);
    found(&report, Code::CounterMismatch, "sum to 2 and 3");
    for broken in ["", "x", "r|1|2|b|k||0,1", "z|1|2|b|k||0,1,1"] {
        let report = sound.with(&[&["HSET", RESV, &serial, broken]]);
        found(&report, Code::Damaged, &format!("reservation {serial} "));
    }
    // Not even text.
    let script = "return redis.call('HSET', KEYS[1], ARGV[1], '\\255')";
    let report = sound.with(&[&["EVAL", script, "1", RESV, &serial]]);
    found(&report, Code::Damaged, "cannot be read");
}

#[test]
fn a_changed_counter_is_named() {
    let sound = Sound::make();
    let set = |text: &str| sound.with(&[&["HSET", META, "i:1", text]]);
    must_be_ok(&set("10,0,7,1,2,"));
    for code in [Code::CounterMismatch, Code::FoldMismatch] {
        let report = set("10,0,6,2,2,");
        assert_eq!(found(&report, code, "").item.as_deref(), Some("sku-1"));
    }
    found(&set("11,0,7,1,2,"), Code::Imbalance, "");
    found(&set("11,0,8,1,2,"), Code::FoldMismatch, "");
    found(&set("10,0,7,1,2,3"), Code::SaleAltered, "limit");
    found(&set("10,0,7"), Code::Damaged, "10,0,7");
    let report = sound.with(&[&["HDEL", META, "i:1"]]);
    let missing = found(&report, Code::SaleMissing, "counters");
    assert_eq!(missing.item.as_deref(), Some("sku-1"));
    let report = sound.with(&[&["HSET", META, "i:2", "1,1,0,0,0,"]]);
    found(&report, Code::SaleMissing, "no event made this item");
}

#[test]
fn a_missing_event_is_named() {
    let sound = Sound::make();
    let confirmed = sound.event(2);
    let report = sound.with(&[&["XDEL", EV, &confirmed]]);
    found(&report, Code::BatchMissing, "batch 3 is not there");
    let serial = sound.serials[3];
    let altered = format!("r1-{} is released", sound.serials[2]);
    found(&report, Code::ReservationAltered, &altered);
    found(&report, Code::FoldMismatch, "");
    found(&report, Code::SizeMismatch, "ev holds 5");
    found(&report, Code::DecisionUnknown, "payment|0|p-0");
    // That in which all were reserved, and the first.
    let report = sound.with(&[&["XDEL", EV, &sound.event(1)]]);
    found(
        &report,
        Code::RowWithoutBatch,
        &format!("reservation {serial} "),
    );
    found(&report, Code::KeyIndex, "buyer-0|key-0");
    found(&report, Code::BuyerSum, "buyer-5|0");
    let report = sound.with(&[&["XDEL", EV, &sound.event(0)]]);
    found(&report, Code::SaleMissing, "");
    // The last, and as if it had never been.
    let last = sound.event(5);
    let report = sound.with(&[&["XDEL", EV, &last]]);
    found(&report, Code::BatchMissing, "batches 6 to 6");
    let report = sound.with(&[&["XDEL", EV, &last], &["HINCRBY", META, "ev", "-1"]]);
    found(&report, Code::FoldMismatch, "");
    found(&report, Code::DecisionUnknown, "stock-1");
    let report = sound.with(&[&["XDEL", EV, &sound.event(2), &sound.event(3)]]);
    found(&report, Code::BatchMissing, "batches 3 to 4");
    found(
        &sound.with(&[&["DEL", EV]]),
        Code::SaleMissing,
        "no event made this sale",
    );
    // One too many.
    let line = "E|9|sale.paused|||";
    let add = ["XADD", EV, "9-7", "at", "9999999999999", "c", line];
    let report = sound.with(&[&add]);
    found(
        &report,
        Code::RowWithoutBatch,
        "the last batch is 7, ev is 6",
    );
    found(&report, Code::SaleAltered, "state is \"open\"");
    let report = sound.with(&[&["XADD", EV, "9-7", "x", "y"]]);
    found(&report, Code::Damaged, "the entry 9-7 ");
    let report = sound.with(&[&["XADD", EV, "9-7", "at", "1", "c", "nonsense"]]);
    found(&report, Code::Damaged, "nonsense");
    found(&report, Code::BatchAltered, "batch 7 is older");
}

#[test]
fn a_wrong_key_is_named() {
    let sound = Sound::make();
    let [first, second] = [sound.serials[0], sound.serials[1]].map(|serial| serial.to_string());
    let delete: &[&str] = &["HDEL", KEY, "buyer-0|key-0"];
    let report = sound.with(&[delete]);
    found(&report, Code::KeyIndex, &format!("won r1-{first} "));
    found(&report, Code::SizeMismatch, "key holds 5");
    let report = sound.with(&[delete, &["HINCRBY", META, "n_key", "-1"]]);
    found(&report, Code::SizeMismatch, "its events make 6");
    let report = sound.with(&[&["HSET", KEY, "buyer-0|key-0", &second]]);
    found(
        &report,
        Code::KeyIndex,
        &format!("key buyer-0|key-0 points at r1-{second}"),
    );
    found(&report, Code::KeyIndex, &format!("won r1-{first} "));
    let report = sound.with(&[&["HSET", KEY, "buyer-0|key-0", "77"]]);
    found(&report, Code::KeyIndex, "points at 77");
    let report = sound.with(&[delete, &["HSET", KEY, "mallory|key-0", &first]]);
    found(&report, Code::KeyIndex, "mallory");
}

#[test]
fn a_wrong_sum_of_a_buyer_is_named() {
    let sound = Sound::make();
    let raw = sound.rig.raw(1).buyer;
    assert_eq!(raw["buyer-1|0"], "1");
    assert!(!raw.contains_key("buyer-1|1"), "restocked");
    let report = sound.with(&[&["HSET", BUYER, "buyer-1|0", "2"]]);
    found(&report, Code::BuyerSum, "buyer-1|0 holds 2");
    let report = sound.with(&[&["HDEL", BUYER, "buyer-1|0"]]);
    found(&report, Code::BuyerSum, "buyer-1|0 is not there");
    found(&report, Code::SizeMismatch, "buyer holds");
    let report = sound.with(&[&["HSET", BUYER, "buyer-1|1", "1"]]);
    found(&report, Code::BuyerSum, "buyer-1|1 holds 1");
    let report = sound.with(&[&["HSET", BUYER, "buyer-1|1", "0"]]);
    found(&report, Code::BuyerSum, "buyer-1|1 holds 0");
    let report = sound.with(&[&["DEL", BUYER]]);
    found(&report, Code::BuyerSum, "buyer-5|1 is not there");
}

#[test]
fn a_wrong_decision_is_named() {
    let sound = Sound::make();
    let refund = format!("refund|{}|f-1", sound.serials[1]);
    for (field, told) in [
        ("payment|0|p-0", "p-0"),
        ("payment|0|p-4", "refund_due"),
        (refund.as_str(), "f-1"),
        ("stock_change|0|stock-1", "stock-1"),
    ] {
        let report = sound.with(&[&["HDEL", REF, field]]);
        found(&report, Code::DecisionMissing, told);
        found(&report, Code::SizeMismatch, "ref holds");
        let value = sound.rig.raw(1).reference;
        assert!(!value.contains_key(field));
        let report = sound.with(&[&["HSET", REF, field, "done|1|other"]]);
        found(&report, Code::DecisionMissing, field);
        let report = sound.with(&[&["HSET", REF, field, "nonsense"]]);
        found(&report, Code::Damaged, field);
    }
    let report = sound.with(&[&["HSET", REF, "payment|0|p-77", "taken|1|"]]);
    found(&report, Code::DecisionUnknown, "p-77");
    let list = format!("of|{}", sound.serials[1]);
    let value = sound.rig.raw(1).reference[&list].clone();
    assert_eq!(value, format!("payment|0|p-1 {refund}"));
    let report = sound.with(&[&["HDEL", REF, &list]]);
    found(&report, Code::DecisionMissing, &list);
    let report = sound.with(&[&["HSET", REF, &list, "payment|0|p-1"]]);
    found(&report, Code::DecisionMissing, &list);
    let none = format!("of|{}", sound.serials[5]);
    let report = sound.with(&[&["HSET", REF, &none, "payment|0|p-1"]]);
    found(&report, Code::DecisionUnknown, &none);
}

#[test]
fn what_meta_says_of_the_sale_is_checked() {
    let sound = Sound::make();
    let definition = sound.rig.meta(1, "def");
    let altered = definition.replacen("9900", "100", 1);
    assert_ne!(altered, definition);
    for (field, value) in [
        ("def", altered.as_str()),
        ("def", "{}"),
        ("state", "paused"),
        ("retired", "1"),
        ("thaw", "open"),
        ("sale_no", "2"),
        ("first_serial", "1"),
        ("starts_ms", "1"),
        ("ends_ms", "1"),
        ("window_ms", "1"),
        ("gen", "0"),
        ("clock_ms", "1"),
    ] {
        let report = sound.with(&[&["HSET", META, field, value]]);
        found(&report, Code::SaleAltered, &format!("{field} is "));
        let report = sound.with(&[&["HDEL", META, field]]);
        assert_eq!(report.ok, field == "thaw", "{field}: {report}");
    }
    for field in ["n_resv", "n_key", "n_buyer", "n_ref", "n_note", "ev"] {
        for value in ["0", "99", "x"] {
            let report = sound.with(&[&["HSET", META, field, value]]);
            found(&report, Code::SizeMismatch, &format!("{field} is "));
        }
    }
    let report = sound.with(&[&["DEL", "{s:s-1}:note"]]);
    found(&report, Code::SizeMismatch, "note holds 0");
    let report = sound.with(&[&["DEL", "{s:s-1}:w"]]);
    found(&report, Code::SaleAltered, "w is empty");
    let report = sound.with(&[&["HSET", "{s:s-1}:w", "n-1", "1|1|1|99|"]]);
    found(&report, Code::SaleAltered, "n-1");
    for key in [META, RESV, KEY, BUYER, REF, EV] {
        let report = sound.with(&[&["DEL", key], &["SET", key, "text"]]);
        found(&report, Code::Damaged, &format!("{key} is a string"));
    }
}

#[test]
fn a_sale_that_is_gone_is_named() {
    let sound = Sound::make();
    let report = sound.with(&[&["DEL", META]]);
    found(
        &report,
        Code::SaleMissing,
        "{s:s-1}:resv, {s:s-1}:key, {s:s-1}:buyer",
    );
    let all = KEYS.map(|name| format!("{{s:s-1}}:{name}"));
    let delete: Vec<&str> = std::iter::once("DEL")
        .chain(all.iter().map(String::as_str))
        .collect();
    let report = sound.with(&[&delete]);
    found(&report, Code::SaleMissing, "nothing else of it is left");
    assert_eq!(report.findings.len(), 1, "{report}");
    // Being made: its first batch was never there, or the directory was not told.
    let making: &[&str] = &["HSET", SALES, "s-1", "1|making"];
    must_be_ok(&sound.with(&[&delete, making]));
    let node: &[&str] = &["HSET", "{s:s-1}:w", "n-1", "1|0|1|0|"];
    must_be_ok(&sound.with(&[&delete, making, node]));
    must_be_ok(&sound.with(&[making]));
    found(
        &sound.with(&[making, &["DEL", META]]),
        Code::SaleMissing,
        "",
    );
}

#[test]
fn the_directory_is_checked() {
    let sound = Sound::make();
    let report = sound.with(&[&["HDEL", SALES, "s-1"]]);
    found(&report, Code::SaleMissing, "does not list it");
    let report = sound.with(&[&["DEL", SALES]]);
    found(&report, Code::SaleMissing, "does not list it");
    let report = sound.with(&[&["HSET", SALES, "s-1", "one"]]);
    found(&report, Code::Damaged, "one");
    let report = sound.with(&[&["HSET", SALES, "s-1", "9"]]);
    found(&report, Code::SaleAltered, "sale_no is \"1\"");
    let report = sound.with(&[&["HSET", SALES, "s-0", "1"]]);
    found(&report, Code::SaleAltered, "gives it the number of s-0");
    // Of no sale.
    let of_none = |report: &Report, code| {
        let mut findings = report.findings.iter();
        assert!(findings.any(|finding| finding.code == code), "{report}");
    };
    let report = sound.with(&[&["SET", "{stampede}:start", "0"]]);
    of_none(&report, Code::StartMissing);
    let report = sound.with(&[&["DEL", "{stampede}:start"]]);
    of_none(&report, Code::StartMissing);
    let report = sound.with(&[&["DEL", "{stampede}:store"]]);
    of_none(&report, Code::Damaged);
    // Keys of others are nobody's business.
    must_be_ok(&sound.with(&[&["SET", "{s:x}:cache", "1"], &["SET", "{s:", "1"]]));
}

#[test]
fn where_no_store_is_there_is_no_report() {
    let rig = quick();
    assert!(matches!(
        audit_redis(&rig.server.url(), None),
        Err(AuditError::Empty { .. })
    ));
    let mut options = RedisOptions::default().appendonly(false).password("s3cret");
    let mut server = RedisServer::start(options.clone().tcp()).unwrap();
    let right = server.url();
    let wrong = right.replace("s3cret", "s3cret-not");
    let refused = |url: &str| {
        let error = audit_redis(url, None).unwrap_err();
        assert!(matches!(error, AuditError::Redis(_)), "{error:?}");
        let told = error.to_string();
        assert!(!told.contains("s3cret"), "{told}");
        assert!(!format!("{error:?}").contains("s3cret"));
        told
    };
    refused(&wrong);
    assert!(refused("http://x").contains("not a Redis URL"));
    server.command(&["SET", "{stampede}:store", "x"]).unwrap();
    server.command(&["SET", "{stampede}:start", "1"]).unwrap();
    must_be_ok(&audit_redis(&right, None).unwrap());
    server.stop().unwrap();
    refused(&right);
    options = options.tls();
    let server = RedisServer::start(options).unwrap();
    server.command(&["SET", "{stampede}:store", "x"]).unwrap();
    server.command(&["SET", "{stampede}:start", "1"]).unwrap();
    must_be_ok(&audit_redis(&server.url(), Some(server.ca_file())).unwrap());
    refused(&server.url());
    assert!(
        audit_redis(&server.url(), Some("/nowhere".as_ref()))
            .unwrap_err()
            .to_string()
            .contains("/nowhere")
    );
}

#[test]
fn a_number_out_of_order_is_told_alone() {
    let rig = quick();
    let node = rig.open();
    node.open_sale(1, &[10]);
    let early = node.batch(1, vec![reserve(1, &[(0, 1)]), reserve(2, &[(0, 1)])]);
    let late = node.batch(1, vec![reserve(3, &[(0, 1)])]);
    for batch in [&late, &early] {
        node.commit_batch(batch).unwrap();
    }
    let reservation = early.entries[0].serial;
    let units = deltas(&[(0, 1)]);
    commit(
        &node,
        1,
        vec![Change::Release {
            reservation,
            units,
            is_pooled: false,
        }],
    );
    let report = audit_redis(&rig.server.url(), None).unwrap();
    for entry in &early.entries {
        let told = format!("reservation {} was made after", entry.serial.0);
        found(&report, Code::EventUnfit, &told);
    }
    assert_eq!(report.findings.len(), 2, "{report}");
}

#[test]
fn random_stores_are_ok() {
    let (mut reservations, mut decisions) = (0, 0);
    for seed in 1..8 {
        let rig = quick();
        let mut writer = Writer::new(rig.open(), 1, 20, seed);
        for _ in 0..40 {
            writer.batch(30);
        }
        let report = audit_redis(&rig.server.url(), None).unwrap();
        assert!(report.ok, "seed {seed}: {report}");
        reservations += report.counts.reservations;
        decisions += report.counts.decisions;
    }
    assert!(reservations > 500 && decisions > 500);
}

/// Batches that are written in the course of one audit at most, so that the store does not outgrow the test.
const BATCHES_MAX: usize = 200;

/// Audits while somebody else writes; `look` says when to end.
fn while_busy(rig: &Rig, mut writer: Writer, mut look: impl FnMut(Report) -> bool) {
    let (allowed, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut batches = 0;
            while !is_over.load(Ordering::Relaxed) {
                if batches < allowed.load(Ordering::Relaxed) {
                    batches += 1;
                    taken.fetch_add(writer.batch(40), Ordering::Relaxed);
                } else {
                    std::thread::yield_now();
                }
            }
        });
        let mut audit = || {
            let before = taken.load(Ordering::Relaxed);
            allowed.fetch_add(BATCHES_MAX, Ordering::Relaxed);
            until("a batch", || taken.load(Ordering::Relaxed) > before);
            look(audit_redis(&rig.server.url(), None).unwrap())
        };
        let looking = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| while !audit() {}));
        is_over.store(true, Ordering::Relaxed);
        writing.join().unwrap();
        if let Err(panic) = looking {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A store that takes many steps to read, and who goes on writing to it.
fn busy() -> (Rig, Writer) {
    let rig = quick();
    let mut writer = Writer::new(rig.open(), 1, 3_000, 7);
    for _ in 0..20 {
        writer.fill(250);
    }
    (rig, writer)
}

#[test]
fn a_busy_store_is_never_blamed() {
    let (rig, writer) = busy();
    let mut batches = Vec::new();
    while_busy(&rig, writer, |report| {
        must_be_ok(&report);
        assert!(report.counts.reservations > 5_000, "{report}");
        batches.push(report.counts.batches);
        batches.len() == 12
    });
    assert!(batches.is_sorted_by(|one, next| one < next), "{batches:?}");
    must_be_ok(&audit_redis(&rig.server.url(), None).unwrap());
}

#[test]
fn damage_in_a_busy_store_is_found() {
    let (rig, writer) = busy();
    // So old a one is left alone by the writer.
    let old = writer.reservations[3].serial.to_string();
    let record = rig.ask(&["HGET", RESV, &old]);
    let altered = record.replacen("|b-", "|mallory-", 1);
    let mut is_planted = false;
    while_busy(&rig, writer, |report| {
        if !is_planted {
            must_be_ok(&report);
            rig.ask(&["HSET", RESV, &old, &altered]);
            is_planted = true;
            return false;
        }
        let finding = found(&report, Code::ReservationAltered, &old);
        assert!(finding.detail.contains("mallory"), "{finding}");
        assert_eq!(report.findings.len(), 1, "{report}");
        true
    });
}
