//! The audit finds what is planted, names it, and finds nothing where nothing is wrong.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "../../flash-store/tests/common/mod.rs"]
mod common;

use common::*;
use flash_settle::{AuditError, Code, Finding, Report, audit};
use flash_store::*;
use flash_types::*;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A sound store with every kind of row; sale 1 is open, sale 2 retired.
struct Sound {
    folder: TempDir,
    serials: Vec<u64>,
}

impl Sound {
    fn make() -> Self {
        let folder = TempDir::new().unwrap();
        let (store, opened) = SqliteStore::open(&folder.path().join("sound")).unwrap();
        let store = AnyStore::Sqlite(store);
        let mut shop = Shop::new(1, opened);
        let mut serials = Vec::new();
        for sale_no in [1, 2] {
            let drafted = Change::PutDraft {
                definition: Box::new(definition(&format!("s-{sale_no}"), &[10, 10])),
            };
            let mut changes = vec![drafted, Change::Publish, open()];
            changes.extend((0..4).map(|number| reserve(number, &[(0, 1), (1, 1)])));
            let batch = shop.batch_of(sale_no, changes);
            let reserves: Vec<u64> = batch.entries[3..]
                .iter()
                .map(|entry| entry.serial.0)
                .collect();
            run(store.commit(batch)).unwrap();
            let units = deltas(&[(0, 1), (1, 1)]);
            let confirm = |index: usize, payment_ref: &str| Change::Confirm {
                reservation: Serial(reserves[index]),
                payment_ref: payment(payment_ref),
                is_late: false,
                units: units.clone(),
            };
            let changes = vec![
                confirm(0, "p-0"),
                confirm(1, "p-1"),
                Change::Release {
                    reservation: Serial(reserves[2]),
                    units: units.clone(),
                    is_pooled: false,
                },
            ];
            run(store.commit(shop.batch_of(sale_no, changes))).unwrap();
            let changes = vec![
                Change::Refund {
                    reservation: Serial(reserves[1]),
                    refund_ref: RefundRef::parse("f-1").ok(),
                    restock: true,
                    units: deltas(&[(1, 1)]),
                    is_whole: false,
                    refunded: deltas(&[(1, 1)]),
                },
                Change::ChangeStock {
                    item: ItemIndex(0),
                    key: IdempotencyKey::parse("stock-1").unwrap(),
                    asked_delta_units: 5,
                    applied_delta_units: 5,
                    reason: "found".into(),
                },
            ];
            run(store.commit(shop.batch_of(sale_no, changes))).unwrap();
            serials.extend(reserves);
        }
        let note = Change::Note(AdminNote {
            at: Timestamp(5),
            who: "ops".into(),
            command: "sale.close".into(),
            sale_id: None,
            outcome: "ok".into(),
            detail: String::new(),
        });
        run(store.commit(shop.batch_of(0, vec![note]))).unwrap();
        run(store.commit(shop.batch_of(2, vec![Change::Close, Change::Retire]))).unwrap();
        // The keys are indexed when there is nothing else to do; the list by buyer shows when.
        wait_for_index(&folder.path().join("sound"));
        run(store.close());
        Self { folder, serials }
    }

    /// A copy, with `sql` done to it.
    fn with(&self, sql: &str) -> PathBuf {
        let copy = self.folder.path().join("copy");
        let _ = std::fs::remove_dir_all(&copy);
        crash_copy(&self.folder.path().join("sound"), &copy);
        let connection = Connection::open(copy.join("stampede.db")).unwrap();
        connection
            .execute_batch(
                "DROP TRIGGER note_is_never_changed; DROP TRIGGER note_is_never_deleted;",
            )
            .unwrap();
        connection
            .execute_batch(&format!("PRAGMA ignore_check_constraints = ON; {sql}"))
            .unwrap();
        copy
    }

    fn audit_with(&self, sql: &str) -> Report {
        audit(&self.with(sql)).unwrap()
    }
}

fn wait_for_index(dir: &Path) {
    let reader = Connection::open(dir.join("stampede.db")).unwrap();
    let is_done = || {
        reader
            .query_row("SELECT count(*) FROM sale WHERE retired = 1", [], |row| {
                row.get::<_, i64>(0)
            })
            .unwrap()
            == 0
    };
    let started = std::time::Instant::now();
    while !is_done() {
        assert!(started.elapsed() < std::time::Duration::from_secs(30));
        std::thread::yield_now();
    }
}

#[track_caller]
fn found(report: &Report, code: Code) -> &Finding {
    assert!(!report.ok);
    report
        .findings
        .iter()
        .find(|finding| finding.code == code)
        .unwrap_or_else(|| panic!("{code:?} is not in\n{report}"))
}

#[test]
fn sound_books_are_ok() {
    let sound = Sound::make();
    let report = sound.audit_with("");
    assert!(report.ok, "{report}");
    assert_eq!(report.counts.batches, 8);
    assert_eq!(report.counts.acked, Some(8));
    assert_eq!(report.counts.reservations, 8);
    assert_eq!(report.counts.notes, 1);
    assert_eq!(report.counts.decisions, 8);
    let item = &report.sales[0].items[0];
    assert_eq!(
        (report.sales[0].state.as_str(), item.item.as_str()),
        ("open", "sku-0")
    );
    assert_eq!(
        item.units,
        ItemUnits {
            stock: 15,
            unreleased: 0,
            available: 12,
            reserved: 1,
            sold: 2
        }
    );
    let text = report.to_string();
    assert!(
        text.contains("sku-1") && text.ends_with("ok: the books balance"),
        "{text}"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["sales"][1]["state"], "closed");
    assert_eq!(json["sales"][0]["items"][0]["sold_units"], 2);
}

#[test]
fn random_stores_are_ok_running_and_stopped() {
    for seed in 1..12 {
        let folder = TempDir::new().unwrap();
        let dir = folder.path().join("data");
        let (store, opened) = SqliteStore::open(&dir).unwrap();
        let mut shop = Shop::new(seed, opened);
        for _ in 0..12 {
            run(store.commit(shop.batch(30))).unwrap();
        }
        let running = audit(&dir).unwrap();
        assert!(running.ok, "seed {seed}: {running}");
        drop(store);
        let stopped = audit(&dir).unwrap();
        assert!(stopped.ok, "seed {seed}: {stopped}");
        assert_eq!(running.counts, stopped.counts);
    }
}

#[test]
fn a_deleted_reservation_is_named() {
    let sound = Sound::make();
    // Confirmed: its event misses it, its sale's sums miss its units, its batch misses a row.
    let serial = sound.serials[0];
    let report = sound.audit_with(&format!("DELETE FROM reservation WHERE serial = {serial}"));
    let missing = found(&report, Code::ReservationMissing);
    assert!(missing.detail.contains(&format!("r1-{serial}")));
    assert!(
        found(&report, Code::BatchIncomplete)
            .detail
            .starts_with("batch 1 has 6 of its 7 rows")
    );
    let mismatch = found(&report, Code::CounterMismatch);
    assert_eq!(mismatch.sale.as_deref(), Some("s-1"));
    assert_eq!(mismatch.item.as_deref(), Some("sku-0"));
    // Only reserved: nothing else speaks of it.
    let serial = sound.serials[3];
    let report = sound.audit_with(&format!("DELETE FROM reservation WHERE serial = {serial}"));
    found(&report, Code::BatchIncomplete);
    found(&report, Code::CounterMismatch);
}

#[test]
fn a_changed_sum_is_named() {
    let sound = Sound::make();
    let report = sound.audit_with(
        "UPDATE item SET available_units = available_units + 1, sold_units = sold_units - 1 \
         WHERE sale_no = 1 AND item_index = 1",
    );
    for code in [Code::CounterMismatch, Code::FoldMismatch] {
        let finding = found(&report, code);
        assert_eq!(finding.sale.as_deref(), Some("s-1"));
        assert_eq!(finding.item.as_deref(), Some("sku-1"));
    }
    let report = sound.audit_with("UPDATE item SET stock_units = 99 WHERE item = 'sku-0'");
    assert_eq!(
        found(&report, Code::Imbalance).item.as_deref(),
        Some("sku-0")
    );
    let report = sound.audit_with(
        "UPDATE item SET stock_units = stock_units + 1, available_units = available_units + 1",
    );
    found(&report, Code::FoldMismatch);
}

#[test]
fn a_missing_event_is_named() {
    let sound = Sound::make();
    let serial = sound.serials[0];
    let report = sound.audit_with(&format!("DELETE FROM event WHERE reservation = {serial}"));
    let altered = found(&report, Code::ReservationAltered);
    assert!(
        altered.detail.starts_with(&format!(
            "r1-{serial} is confirmed, its events made it reserved"
        )),
        "{altered}"
    );
    assert!(
        found(&report, Code::BatchIncomplete)
            .detail
            .starts_with("batch 2 has 2 of its 3 rows")
    );
    found(&report, Code::FoldMismatch);
    let unknown = found(&report, Code::DecisionUnknown);
    assert!(unknown.detail.contains("p-0"), "{unknown}");
}

#[test]
fn a_missing_batch_is_named() {
    let sound = Sound::make();
    let report = sound.audit_with("DELETE FROM batch WHERE number = 2");
    assert_eq!(
        found(&report, Code::BatchMissing).detail,
        "batch 2 is not there"
    );
    assert!(
        found(&report, Code::RowWithoutBatch)
            .detail
            .starts_with("3 rows")
    );
    let report = sound.audit_with("DELETE FROM batch WHERE number IN (3, 4)");
    assert_eq!(
        found(&report, Code::BatchMissing).detail,
        "batches 3 to 4 are not there"
    );
    let report = sound.audit_with("DELETE FROM batch WHERE number = 8");
    let missing = found(&report, Code::AckedMissing);
    assert!(
        missing.detail.contains("up to 8") && missing.detail.contains("is 7"),
        "{missing}"
    );
}

#[test]
fn a_missing_decision_is_named() {
    let sound = Sound::make();
    let cases = [
        (
            "DELETE FROM decision WHERE reference = 'p-1' AND sale_no = 2",
            "p-1",
        ),
        (
            "DELETE FROM decision WHERE kind = 'refund' AND sale_no = 1",
            "f-1",
        ),
        (
            "UPDATE decision SET outcome = 'refused_expired' WHERE reference = 'p-0'",
            "p-0",
        ),
        (
            "DELETE FROM decision WHERE kind = 'stock_change'",
            "stock-1",
        ),
    ];
    for (sql, reference) in cases {
        let report = sound.audit_with(sql);
        let missing = found(&report, Code::DecisionMissing);
        assert!(missing.detail.contains(reference), "{missing}");
    }
}

#[test]
fn altered_rows_are_named() {
    let sound = Sound::make();
    let [confirmed, refunded, released, reserved] = sound.serials[..4] else {
        panic!("eight reservations");
    };
    let altered = |set: &str, serial: u64| {
        let sql = format!("UPDATE reservation SET {set} WHERE serial = {serial}");
        let report = sound.audit_with(&sql);
        let finding = found(&report, Code::ReservationAltered);
        assert!(
            finding.detail.starts_with(&format!("r1-{serial} ")),
            "{finding}"
        );
    };
    altered("state = 4", released);
    altered("state = 2", reserved);
    altered("payment_ref = 'p-9'", confirmed);
    altered("refunded_units = 1", refunded);
    for sql in [
        format!("UPDATE reservation SET buyer = 'mallory' WHERE serial = {confirmed}"),
        format!("UPDATE reservation SET expires_ms = expires_ms + 1 WHERE serial = {reserved}"),
        "UPDATE event SET at_ms = at_ms + 1 WHERE type = 'sale.opened' AND sale_no = 1".into(),
        "UPDATE note SET who = 'nobody'".into(),
    ] {
        let report = sound.audit_with(&sql);
        found(&report, Code::BatchAltered);
    }
    let report = sound.audit_with("UPDATE sale SET state = 'paused' WHERE sale_no = 1");
    assert_eq!(
        found(&report, Code::SaleAltered).sale.as_deref(),
        Some("s-1")
    );
    let report = sound.audit_with("DELETE FROM sale WHERE sale_no = 1");
    found(&report, Code::SaleMissing);
    let report = sound.audit_with("DELETE FROM note");
    found(&report, Code::BatchIncomplete);
    let report = sound.audit_with("UPDATE start SET epoch = 7");
    found(&report, Code::StartMissing);
    let report = sound.audit_with("DELETE FROM retired_key WHERE buyer = 'buyer-1'");
    assert_eq!(found(&report, Code::KeyIndex).sale.as_deref(), Some("s-2"));
    let report =
        sound.audit_with("UPDATE retired_key SET idem_key = 'other' WHERE buyer = 'buyer-1'");
    found(&report, Code::KeyIndex);
    let report = sound.audit_with("UPDATE reservation SET idem_key = 'same', buyer = 'same'");
    found(&report, Code::KeyTwice);
}

#[test]
fn what_is_no_store_is_told() {
    let folder = TempDir::new().unwrap();
    assert!(matches!(
        audit(folder.path()),
        Err(AuditError::NoStore { .. })
    ));
    let file = folder.path().join("stampede.db");
    std::fs::write(&file, vec![7; 10_000]).unwrap();
    assert!(matches!(
        audit(folder.path()),
        Err(AuditError::NotAStore { .. })
    ));
    let sound = Sound::make();
    let newer = sound.with("PRAGMA user_version = 9");
    let refused = audit(&newer);
    assert!(matches!(
        refused,
        Err(AuditError::OtherVersion { found: 9, .. })
    ));
    // A page of rubbish is damage, not an error.
    let damaged = sound.with("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
    let file = damaged.join("stampede.db");
    let page: i64 = Connection::open(&file)
        .unwrap()
        .query_row(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'reservation'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let page = usize::try_from(page).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    for byte in &mut bytes[(page - 1) * 4096..page * 4096] {
        *byte = 0xa5;
    }
    std::fs::write(&file, bytes).unwrap();
    found(&audit(&damaged).unwrap(), Code::Damaged);
}

/// A sale with waves, a new price, more time, protection and pooled units; paused in the end.
fn storied() -> (Sound, [u64; 3]) {
    let folder = TempDir::new().unwrap();
    let (store, opened) = SqliteStore::open(&folder.path().join("sound")).unwrap();
    let store = AnyStore::Sqlite(store);
    let mut shop = Shop::new(1, opened);
    let mut put = |changes: Vec<Change>| {
        let batch = shop.batch_of(1, changes);
        let first = batch.entries[0].serial;
        run(store.commit(batch)).unwrap();
        first
    };
    let plan = definition("s-1", &[10, 10]);
    let drafted = || Change::PutDraft {
        definition: Box::new(plan.clone()),
    };
    let held = || Change::Open {
        held: deltas(&[(0, 6)]),
    };
    put(vec![drafted(), Change::Publish, held(), Change::Unpublish]);
    put(vec![drafted(), Change::Publish, held()]);
    let wave = |wave, units| Change::Wave {
        item: ItemIndex(0),
        wave,
        due_at: Timestamp(1),
        units,
    };
    put(vec![
        wave(WaveRef::Planned(0), 3),
        wave(WaveRef::Hand(IdempotencyKey::parse("w-1").ok()), 1),
        wave(WaveRef::Hand(None), 1),
    ]);
    let units = || deltas(&[(0, 2)]);
    let [bought, kept, pooled] = [0, 1, 2].map(|number| put(vec![reserve(number, &[(0, 2)])]));
    put(vec![
        Change::Extend {
            reservation: kept,
            expires_at: Timestamp(400_000),
        },
        Change::Confirm {
            reservation: bought,
            payment_ref: payment("p-0"),
            is_late: false,
            units: units(),
        },
        Change::Expire {
            reservation: pooled,
            units: units(),
            is_pooled: true,
        },
        Change::CountAttempts {
            from: Timestamp(10_000),
            counts: Vec::new(),
        },
        Change::Pause,
    ]);
    let mut cheaper = plan.clone();
    cheaper.items[0].sale_price_minor = Money(9_000);
    put(vec![
        Change::ChangePrice {
            item: ItemIndex(0),
            from: Money(9_900),
            to: Money(9_000),
            reason: "slip".into(),
            definition: Box::new(cheaper),
        },
        Change::ProtectPrice {
            reservation: bought,
            item: ItemIndex(0),
            units: 2,
            paid_minor: Money(9_900),
            price_minor: Money(9_000),
            other: SaleId::parse("s-1").unwrap(),
            state: ReservationState::Confirmed,
            refunded: Deltas::new(),
        },
    ]);
    run(store.close());
    let serials = [bought, kept, pooled].map(|serial| serial.0);
    let sound = Sound {
        folder,
        serials: serials.to_vec(),
    };
    (sound, serials)
}

#[test]
fn a_storied_sale_is_ok() {
    let (sound, _) = storied();
    let report = sound.audit_with("");
    assert!(report.ok, "{report}");
    assert_eq!(
        report.sales[0].items[0].units,
        ItemUnits {
            stock: 10,
            unreleased: 3,
            available: 3,
            reserved: 2,
            sold: 2
        }
    );
}

#[test]
fn what_is_planted_in_a_storied_sale_is_named() {
    let (sound, [bought, kept, pooled]) = storied();
    // A copy of the event that is found by `which`, right behind all others, with `set` done to it.
    let again = |which: &str, set: &str| {
        format!(
            "CREATE TEMP TABLE copied AS SELECT * FROM event WHERE {which} LIMIT 1; \
             UPDATE copied SET serial = (SELECT max(serial) + 1 FROM event){set}; \
             INSERT INTO event SELECT * FROM copied"
        )
    };
    let planned = "reference = 'plan:0'";
    let protected = "data LIKE '%protects%'";
    let json = |path: &str, value: &str| format!("data = json_set(data, '{path}', {value})");
    let cases: Vec<(&str, String, Code, &str)> = vec![
        (
            "a wave released twice",
            again(planned, ""),
            Code::EventUnfit,
            "once more",
        ),
        (
            "the counters after it",
            format!(
                "{}; UPDATE item SET unreleased_units = unreleased_units - 3, \
                 available_units = available_units + 3 WHERE item_index = 0",
                again(planned, "")
            ),
            Code::EventUnfit,
            "plan:0",
        ),
        (
            "a wave of more than there was",
            again("reference IS NULL AND type = 'sale.wave'", ", data = '{\"units\":[[0,9]]}'"),
            Code::EventUnfit,
            "more than there were",
        ),
        (
            "units too many",
            "UPDATE item SET unreleased_units = unreleased_units + 1, \
             available_units = available_units - 1 WHERE item_index = 0"
                .into(),
            Code::FoldMismatch,
            "unreleased 4",
        ),
        (
            "pooled units that were not",
            format!(
                "UPDATE event SET {} WHERE reservation = {pooled} AND type = 'reservation.expired'",
                json("$.pooled", "json('false')")
            ),
            Code::FoldMismatch,
            "unreleased 3",
        ),
        (
            "a wave without its decision",
            "DELETE FROM decision WHERE kind = 'wave' AND reference = 'hand:w-1'".into(),
            Code::DecisionMissing,
            "hand:w-1",
        ),
        (
            "a decision on a wave that never was",
            "INSERT INTO decision VALUES (1, 'wave', 'plan:7', 0, NULL, 'done', NULL)".into(),
            Code::DecisionUnknown,
            "plan:7",
        ),
        (
            "an extension without event",
            format!("INSERT INTO extension VALUES ({bought}, 400000)"),
            Code::ReservationAltered,
            "is extended to Some(400000)",
        ),
        (
            "an extension of nothing",
            "INSERT INTO extension VALUES (9, 400000)".into(),
            Code::ReservationMissing,
            "reservation 9",
        ),
        (
            "an event without extension",
            "DELETE FROM extension".into(),
            Code::ReservationAltered,
            "Some(400000)",
        ),
        (
            "another extension than its event's",
            format!("UPDATE extension SET expires_ms = 500000 WHERE serial = {kept}"),
            Code::ReservationAltered,
            "Some(500000)",
        ),
        (
            "an extension to before",
            format!(
                "UPDATE event SET {} WHERE type = 'reservation.extended'; \
                 UPDATE extension SET expires_ms = 302000",
                json("$.until", "302000")
            ),
            Code::EventUnfit,
            "to a time before",
        ),
        (
            "extended twice",
            again("type = 'reservation.extended'", ""),
            Code::EventUnfit,
            "once more",
        ),
        (
            "a price that no event made",
            "UPDATE sale SET definition = replace(definition, '9000', '8000')".into(),
            Code::SaleAltered,
            "its plan",
        ),
        (
            "another word of a plan with a new price",
            "UPDATE sale SET definition = replace(definition, 'thing', 'other')".into(),
            Code::SaleAltered,
            "its plan",
        ),
        (
            "a new price from another one",
            format!(
                "UPDATE event SET {} WHERE type = 'sale.price_changed'",
                json("$.from", "1")
            ),
            Code::EventUnfit,
            "was not sold at 1",
        ),
        (
            "a protection paid twice",
            again(protected, ""),
            Code::EventUnfit,
            "once more",
        ),
        (
            "a protection for more than was bought",
            format!("UPDATE event SET {} WHERE {protected}", json("$.bought", "3")),
            Code::EventUnfit,
            "which has 2",
        ),
        (
            "a protection without its decision",
            "DELETE FROM decision WHERE kind = 'price_protection'".into(),
            Code::DecisionMissing,
            "refund_due",
        ),
        (
            "a protection of another amount",
            "UPDATE decision SET detail = replace(detail, '9000', '1') WHERE kind = 'price_protection'"
                .into(),
            Code::DecisionUnknown,
            "price_protection",
        ),
        (
            "another state told than there was",
            format!("UPDATE event SET {} WHERE {protected}", json("$.state", "'expired'")),
            Code::EventUnfit,
            "another state",
        ),
        (
            "unpublished after a reservation",
            again("type = 'sale.unpublished'", ""),
            Code::EventUnfit,
            "was reserved",
        ),
    ];
    for (name, sql, code, says) in cases {
        let report = sound.audit_with(&sql);
        let is_named = report
            .findings
            .iter()
            .any(|finding| finding.code == code && finding.detail.contains(says));
        assert!(
            is_named,
            "{name}: {code:?} with {says:?} is not in\n{report}"
        );
    }
}

#[test]
fn a_store_of_version_1_is_audited_once_it_is_migrated() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("stampede.db");
    Connection::open(&file)
        .unwrap()
        .execute_batch(include_str!("../../flash-store/tests/fixtures/v1.sql"))
        .unwrap();
    assert!(matches!(
        audit(folder.path()),
        Err(AuditError::OtherVersion { found: 1, .. })
    ));
    drop(reopen(folder.path()).unwrap());
    let report = audit(folder.path()).unwrap();
    assert!(report.ok, "{report}");
    assert_eq!(report.counts.reservations, 7);
}
