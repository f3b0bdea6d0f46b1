//! Data folders of older programs, kept as SQL: opened whole, with a copy of what they were; newer ones are refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod common;

use std::path::Path;

use common::*;
use flash_store::*;
use flash_types::*;
use rusqlite::Connection;
use tempfile::TempDir;

/// Written by a program of schema version 1 (a sale with every kind of change, then closed; a second one still open),
/// stopped in good order; times and all are as they were.
const V1: &str = include_str!("fixtures/v1.sql");
const V1_BATCHES: u64 = 28;

fn lay_out(dir: &Path, sql: &str) {
    let connection = Connection::open(dir.join("stampede.db")).unwrap();
    connection.execute_batch(sql).unwrap();
    std::fs::write(dir.join("acked"), V1_BATCHES.to_le_bytes()).unwrap();
}

fn pragma(file: &Path, name: &str) -> i64 {
    let connection = Connection::open(file).unwrap();
    connection
        .pragma_query_value(None, name, |row| row.get(0))
        .unwrap()
}

#[test]
fn a_store_of_version_1_is_migrated_whole_and_goes_on() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path();
    lay_out(dir, V1);
    assert_eq!(pragma(&dir.join("stampede.db"), "user_version"), 1);
    let (store, opened, before) = reopen(dir).unwrap();
    assert_eq!((opened.epoch, opened.last_batch), (2, V1_BATCHES));
    let store = AnyStore::Sqlite(store);
    let states: Vec<_> = before.sales.iter().map(|sale| sale.state).collect();
    assert_eq!(states, [SaleState::Closed, SaleState::Open]);
    use ReservationState::{Confirmed, Expired, Refunded, Released, Reserved};
    let states: Vec<_> = before.reservations.iter().map(|row| row.state).collect();
    assert_eq!(
        states,
        [
            Refunded, Confirmed, Released, Confirmed, Expired, Reserved, Confirmed
        ]
    );
    assert_eq!(before.decisions.len(), 8);

    // Its events are read back as they stood, though they do not tell all that newer ones do.
    let events = run(store.events(EventRange::OfAll(None), 1_000)).unwrap();
    let reserved = events
        .iter()
        .filter(|row| row.kind == "reservation.reserved");
    assert_eq!(reserved.clone().count(), 7);
    for row in reserved {
        let reservation = row.reservation.as_ref().unwrap();
        assert_eq!(reservation.state, Reserved);
        assert!(
            reservation
                .lines
                .iter()
                .all(|line| line.refunded_units == 0)
        );
    }
    let whole = events
        .iter()
        .rfind(|row| row.kind == "reservation.refunded");
    let whole = whole.unwrap().reservation.as_ref().unwrap();
    assert_eq!((whole.state, whole.lines[0].refunded_units), (Refunded, 2));

    // What only the new schema knows.
    let mut shop = Shop::new(1, opened);
    let kept = &before.reservations[5];
    let bought = &before.reservations[6];
    let until = Timestamp(kept.expires_at.0 + 600_000);
    let changes = vec![
        Change::Extend {
            reservation: kept.serial,
            expires_at: until,
        },
        Change::ProtectPrice {
            reservation: bought.serial,
            item: ItemIndex(0),
            units: 1,
            paid_minor: Money(9_900),
            price_minor: Money(9_000),
            other: SaleId::parse("old-1").unwrap(),
            state: Confirmed,
            refunded: Deltas::new(),
        },
        Change::Wave {
            item: ItemIndex(0),
            wave: WaveRef::Planned(0),
            due_at: Timestamp(1),
            units: 0,
        },
        Change::Pause,
    ];
    run(store.commit(shop.batch_of(2, changes))).unwrap();
    let sale = &before.sales[1];
    let mut definition = sale.definition.clone();
    definition.items[0].sale_price_minor = Money(9_000);
    let change = Change::ChangePrice {
        item: ItemIndex(0),
        from: Money(9_900),
        to: Money(9_000),
        reason: "slip".into(),
        definition: Box::new(definition.clone()),
    };
    run(store.commit(shop.batch_of(2, vec![change]))).unwrap();
    run(store.close());
    drop(store);
    let (_, opened, after) = reopen(dir).unwrap();
    assert_eq!(opened.last_batch, V1_BATCHES + 2);
    assert_eq!(after.reservations[5].expires_at, until);
    assert_eq!(after.reservations[..5], before.reservations[..5]);
    assert_eq!(after.sales[1].definition, definition);
    assert_eq!(after.decisions.len(), before.decisions.len() + 2);

    // The copy is what it was, and is a store of version 1 by itself.
    let copy = dir.join("stampede.db.v1.bak");
    assert_eq!(pragma(&copy, "user_version"), 1);
    let connection = Connection::open(&copy).unwrap();
    let starts: i64 = connection
        .query_row("SELECT max(epoch) FROM start", [], |row| row.get(0))
        .unwrap();
    assert_eq!(starts, 1);
    let restored = folder.path().join("restored");
    std::fs::create_dir(&restored).unwrap();
    std::fs::copy(&copy, restored.join("stampede.db")).unwrap();
    let (_, _, again) = reopen(&restored).unwrap();
    assert_eq!(again, before);
}

#[test]
fn a_migration_does_not_hide_damage() {
    let folder = TempDir::new().unwrap();
    lay_out(folder.path(), V1);
    let connection = Connection::open(folder.path().join("stampede.db")).unwrap();
    connection
        .execute("DELETE FROM decision WHERE reference = 'p1'", [])
        .unwrap();
    drop(connection);
    let refused = reopen(folder.path()).map(drop);
    assert!(
        matches!(refused, Err(OpenError::Damaged { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    lay_out(folder.path(), V1);
    let file = folder.path().join("stampede.db");
    Connection::open(&file)
        .unwrap()
        .pragma_update(None, "user_version", 3)
        .unwrap();
    let before = std::fs::read(&file).unwrap();
    let refused = reopen(folder.path()).map(drop);
    let Err(
        error @ OpenError::Newer {
            found: 3, known: 2, ..
        },
    ) = refused
    else {
        panic!("{refused:?}");
    };
    assert!(error.to_string().contains("stampede.db"), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert!(!folder.path().join("stampede.db.v3.bak").exists());
}
