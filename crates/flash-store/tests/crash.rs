//! What a crash, a bad disk or a careless hand leaves behind: opened whole, or refused by name; never less in silence.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod common;

use std::path::{Path, PathBuf};

use common::*;
use flash_store::*;
use flash_types::*;
use proptest::prelude::*;
use tempfile::TempDir;

/// The files of a store after a crash, and what it had acknowledged by each batch.
struct Wreck {
    folder: TempDir,
    database: Vec<u8>,
    log: Vec<u8>,
    acked: Vec<u8>,
    /// After batch 0, 1, 2 …
    contents: Vec<Collected>,
}

impl Wreck {
    /// `batches` random ones; those before `logged_from` are in the database already, the rest only in the log.
    fn make(seed: u64, batches: usize, jobs: usize, logged_from: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let dir = folder.path().join("live");
        let memory = MemoryStore::new();
        memory.opened().unwrap();
        let contents_now = || collect(&AnyStore::Memory(memory.clone())).unwrap();
        let mut contents = vec![contents_now()];
        let (mut store, opened) = SqliteStore::open(&dir).unwrap();
        let mut shop = Shop::new(seed, opened);
        for number in 0..batches {
            if number == logged_from {
                // A graceful end leaves nothing in the log.
                drop(store);
                (store, _) = SqliteStore::open(&dir).unwrap();
            }
            let batch = shop.batch(jobs);
            run(store.commit(batch.clone())).unwrap();
            run(memory.commit(batch)).unwrap();
            contents.push(contents_now());
        }
        let copy = folder.path().join("copy");
        crash_copy(&dir, &copy);
        let read = |file: &str| std::fs::read(copy.join(file)).unwrap_or_default();
        Self {
            database: read("stampede.db"),
            log: read("stampede.db-wal"),
            acked: read("acked"),
            contents,
            folder,
        }
    }

    /// A folder with these files; whatever was there before is gone.
    fn lay_out(&self, database: &[u8], log: &[u8], acked: Option<u64>) -> PathBuf {
        let dir = self.folder.path().join("wreck");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("stampede.db"), database).unwrap();
        std::fs::write(dir.join("stampede.db-wal"), log).unwrap();
        if let Some(acked) = acked {
            std::fs::write(dir.join("acked"), acked.to_le_bytes()).unwrap();
        }
        dir
    }

    fn last(&self) -> u64 {
        self.contents.len() as u64 - 1
    }
}

#[test]
fn a_crash_loses_nothing_acknowledged() {
    for (seed, logged_from) in [(1, 0), (2, 7), (3, 99)] {
        let wreck = Wreck::make(seed, 12, 20, logged_from);
        assert_eq!(wreck.acked, 12_u64.to_le_bytes());
        let dir = wreck.lay_out(&wreck.database, &wreck.log, Some(12));
        let (_, opened, collected) = reopen(&dir).unwrap();
        assert_eq!(opened.last_batch, 12);
        assert_eq!(Some(&collected), wreck.contents.last());
    }
}

#[test]
fn a_torn_log_is_opened_only_if_all_acknowledged_is_there() {
    let wreck = Wreck::make(5, 5, 6, 1);
    let last = wreck.last();
    // Every frame's edges, and a stride that meets all parts of a frame.
    let frame = 24 + 4_096;
    let mut lengths: Vec<usize> = (0..wreck.log.len()).step_by(509).collect();
    for edge in (32..=wreck.log.len()).step_by(frame) {
        lengths.extend([edge - 1, edge, (edge + 1).min(wreck.log.len())]);
    }
    lengths.push(wreck.log.len());
    let mut refused = 0;
    let mut seen = std::collections::BTreeSet::new();
    for length in lengths {
        let log = &wreck.log[..length];
        // Without the word of `acked` any whole batch may be the last, and only whole batches are.
        let dir = wreck.lay_out(&wreck.database, log, None);
        let (store, opened, collected) = reopen(&dir).unwrap();
        let whole = opened.last_batch;
        assert_eq!(
            collected, wreck.contents[whole as usize],
            "log of {length} bytes"
        );
        seen.insert(whole);
        drop(store);
        for acked in [last, whole, whole + 1] {
            let dir = wreck.lay_out(&wreck.database, log, Some(acked));
            match reopen(&dir) {
                Ok((_, opened, _)) => {
                    assert!(
                        acked <= whole,
                        "log of {length} bytes, {acked} acknowledged"
                    );
                    assert_eq!(opened.last_batch, whole);
                }
                Err(OpenError::Lost { missing, last, .. }) => {
                    assert!(acked > whole);
                    assert_eq!(last, whole);
                    assert!(missing.contains(&(whole + 1).to_string()), "{missing}");
                    refused += 1;
                    // Nothing was touched: the log can still be repaired.
                    assert_eq!(std::fs::read(dir.join("stampede.db-wal")).unwrap(), log);
                    assert_eq!(
                        std::fs::read(dir.join("stampede.db")).unwrap(),
                        wreck.database
                    );
                }
                Err(other) => panic!("log of {length} bytes: {other}"),
            }
        }
    }
    assert!(refused > 100, "the fault did not fire");
    assert_eq!(seen.len(), 5, "{seen:?}");
}

#[test]
fn rubbish_behind_the_log_is_harmless() {
    let wreck = Wreck::make(6, 4, 6, 1);
    for rubbish in [vec![0xa5; 5_000], vec![0; 9_000], wreck.log.clone()] {
        let log = [wreck.log.clone(), rubbish].concat();
        let dir = wreck.lay_out(&wreck.database, &log, Some(4));
        let (_, _, collected) = reopen(&dir).unwrap();
        assert_eq!(Some(&collected), wreck.contents.last());
    }
}

/// Flips a bit and starts; gives whether it was noticed.
fn flip(wreck: &Wreck, in_log: bool, place: usize, bit: u8) -> Result<bool, TestCaseError> {
    let (mut database, mut log) = (wreck.database.clone(), wreck.log.clone());
    let bytes = if in_log { &mut log } else { &mut database };
    let place = place % bytes.len();
    bytes[place] ^= 1 << bit;
    let dir = wreck.lay_out(&database, &log, Some(wreck.last()));
    match reopen(&dir) {
        Err(_) => Ok(true),
        Ok((_, opened, collected)) => {
            prop_assert_eq!(opened.last_batch, wreck.last());
            prop_assert_eq!(
                Some(&collected),
                wreck.contents.last(),
                "byte {} bit {}",
                place,
                bit
            );
            Ok(false)
        }
    }
}

#[test]
fn flipped_bits_are_noticed_or_harmless() {
    let in_database = Wreck::make(7, 12, 30, 99);
    let in_database = {
        // Everything in the database: a graceful end.
        let dir = in_database.lay_out(&in_database.database, &in_database.log, Some(12));
        drop(reopen(&dir).unwrap());
        Wreck {
            database: std::fs::read(dir.join("stampede.db")).unwrap(),
            log: Vec::new(),
            ..in_database
        }
    };
    let in_log = Wreck::make(8, 6, 10, 1);
    let noticed = std::cell::Cell::new((0, 0));
    let config = ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(
            &(any::<bool>(), any::<usize>(), 0..8_u8),
            |(log, place, bit)| {
                let wreck = if log { &in_log } else { &in_database };
                if flip(wreck, log, place, bit)? {
                    let (database, logs) = noticed.get();
                    noticed.set(if log {
                        (database, logs + 1)
                    } else {
                        (database + 1, logs)
                    });
                }
                Ok(())
            },
        )
        .unwrap();
    let (database, logs) = noticed.get();
    assert!(
        database > 20 && logs > 50,
        "the fault did not fire: {database} and {logs}"
    );
}

/// Content that SQLite's own check cannot judge: found by the chain, the sums and the counters.
#[test]
fn altered_content_is_refused_and_named() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("data");
    let (store, opened) = SqliteStore::open(&dir).unwrap();
    let mut shop = Shop::new(1, opened);
    let drafted = Change::PutDraft {
        definition: Box::new(definition("s-1", &[10])),
    };
    let batch = shop.batch_of(
        1,
        vec![
            drafted,
            Change::Publish,
            open(),
            reserve(1, &[(0, 1)]),
            reserve(2, &[(0, 1)]),
        ],
    );
    let [first, second] = [3, 4].map(|index| batch.entries[index].serial);
    run(store.commit(batch)).unwrap();
    let units = || deltas(&[(0, 1)]);
    let changes = vec![
        Change::Confirm {
            reservation: first,
            payment_ref: payment("p-1"),
            is_late: false,
            units: units(),
        },
        Change::Expire {
            reservation: second,
            units: units(),
            is_pooled: false,
        },
    ];
    run(store.commit(shop.batch_of(1, changes))).unwrap();
    drop(store);
    let original = std::fs::read(dir.join("stampede.db")).unwrap();
    let cases = [
        (
            "UPDATE reservation SET state = 3 WHERE state = 4",
            "state of a reservation",
        ),
        (
            "UPDATE reservation SET payment_ref = 'p-2' WHERE state = 2",
            "payment of a reservation",
        ),
        (
            "UPDATE reservation SET refunded_units = 1 WHERE state = 2",
            "refunded units",
        ),
        (
            "UPDATE reservation SET buyer = 'mallory' WHERE state = 2",
            "batch 1 is not as it was",
        ),
        (
            "DELETE FROM reservation WHERE state = 4",
            "batch 1 has 4 of its 5 changes",
        ),
        (
            "DELETE FROM event WHERE type = 'reservation.expired'",
            "batch 2 has 1 of its 2 changes",
        ),
        (
            "UPDATE event SET at_ms = 7 WHERE type = 'sale.opened'",
            "batch 1 is not as it was",
        ),
        ("DELETE FROM decision", "a decision is missing"),
        (
            "UPDATE decision SET outcome = 'refused_expired'",
            "a decision is missing",
        ),
        (
            "DELETE FROM batch WHERE number = 1",
            "batch 1 was deleted or lost",
        ),
        (
            "UPDATE sale SET state = 'paused'",
            "sale s-1 is paused, its events made it open",
        ),
        (
            "UPDATE sale SET definition = replace(definition, '9900', '9901')",
            "not as its events",
        ),
        ("UPDATE sale SET retired = 2", "not as its events"),
        ("DELETE FROM sale", "its sale is missing"),
        ("DELETE FROM item", "its item is missing"),
        (
            "UPDATE item SET sold_units = sold_units - 1, available_units = available_units + 1",
            "counters say",
        ),
        (
            "UPDATE item SET stock_units = stock_units + 1, available_units = available_units + 1",
            "stock and unreleased",
        ),
        ("UPDATE item SET item = 'other'", "not as planned"),
    ];
    for (sql, expected) in cases {
        std::fs::write(dir.join("stampede.db"), &original).unwrap();
        let connection = rusqlite::Connection::open(dir.join("stampede.db")).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        let refused = reopen(&dir).map(|(_, _, collected)| collected);
        let Err(OpenError::Damaged { what, .. }) = refused else {
            panic!("{sql}: {refused:?}");
        };
        assert!(what.contains(expected), "{sql}: {what}");
    }
}

#[test]
fn a_second_open_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("data");
    let (store, _) = SqliteStore::open(&dir).unwrap();
    let refused = SqliteStore::open(&dir).map(|_| ());
    let Err(OpenError::Locked { holder, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(holder, format!("process {}", std::process::id()));
    run(store.close());
    SqliteStore::open(&dir).unwrap();
}

#[test]
fn folders_that_cannot_be_used_are_refused() {
    let folder = TempDir::new().unwrap();
    let is_refused = |dir: &Path| matches!(SqliteStore::open(dir), Err(OpenError::Folder { .. }));
    assert!(is_refused(&folder.path().join("no/parent")));
    assert!(is_refused(Path::new("/proc/stampede")));
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(is_refused(&file));
    // A folder in the place of a file stands for a file without permission, which does not stop a superuser.
    let dir = folder.path().join("data");
    std::fs::create_dir_all(dir.join("stampede.db")).unwrap();
    assert!(is_refused(&dir));
    let dir = folder.path().join("made");
    drop(SqliteStore::open(&dir).unwrap());
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(dir).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn other_databases_are_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("stampede.db");
    for bytes in [vec![b'x'; 8_192], b"hello".to_vec()] {
        std::fs::write(&file, &bytes).unwrap();
        let refused = SqliteStore::open(folder.path()).map(|_| ());
        assert!(
            matches!(refused, Err(OpenError::NotADatabase { .. })),
            "{refused:?}"
        );
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
    }
    std::fs::remove_file(&file).unwrap();
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute_batch("CREATE TABLE side (x)").unwrap();
    drop(connection);
    let refused = SqliteStore::open(folder.path()).map(|_| ());
    assert!(
        matches!(refused, Err(OpenError::NotADatabase { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_lost_database_is_not_made_anew() {
    let wreck = Wreck::make(9, 3, 5, 99);
    let dir = wreck.lay_out(&[], &[], Some(3));
    let refused = SqliteStore::open(&dir).map(|_| ());
    assert!(
        matches!(refused, Err(OpenError::Lost { .. })),
        "{refused:?}"
    );
    assert_eq!(std::fs::metadata(dir.join("stampede.db")).unwrap().len(), 0);
    std::fs::remove_file(dir.join("stampede.db")).unwrap();
    let refused = SqliteStore::open(&dir).map(|_| ());
    assert!(
        matches!(refused, Err(OpenError::Lost { .. })),
        "{refused:?}"
    );
    assert!(!dir.join("stampede.db").exists());
}

#[test]
fn an_interrupted_index_of_keys_is_finished() {
    let folder = TempDir::new().unwrap();
    let dir = folder.path().join("data");
    let (store, opened) = SqliteStore::open(&dir).unwrap();
    let mut shop = Shop::new(1, opened);
    let drafted = Change::PutDraft {
        definition: Box::new(definition("s-1", &[5_000])),
    };
    let mut changes = vec![drafted, Change::Publish, open()];
    changes.extend((0..3_500).map(|number| reserve(number, &[(0, 1)])));
    run(store.commit(shop.batch_of(1, changes))).unwrap();
    run(store.commit(shop.batch_of(1, vec![Change::Close, Change::Retire]))).unwrap();
    drop(store);
    let connection = rusqlite::Connection::open(dir.join("stampede.db")).unwrap();
    let stage = || -> (i64, i64) {
        connection
            .query_row(
                "SELECT retired, (SELECT count(*) FROM retired_key) FROM sale",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap()
    };
    // As the process may have left it: some keys indexed, the place noted.
    connection
        .execute_batch(
            "DELETE FROM retired_key; \
             INSERT INTO retired_key SELECT sale_no, buyer, idem_key, serial FROM reservation LIMIT 1000; \
             UPDATE sale SET retired = 1, keys_after = (SELECT max(serial) FROM retired_key)",
        )
        .unwrap();
    let (store, _, collected) = reopen(&dir).unwrap();
    assert!(collected.reservations.is_empty());
    // Right at once, whether indexed or not.
    let find = |number: u64| {
        let buyer = BuyerId::parse(&format!("buyer-{}", number % 7)).unwrap();
        let key = IdempotencyKey::parse(&format!("key-{number}")).unwrap();
        run(store.reservation_by_key(SaleNo(1), buyer, key)).unwrap()
    };
    assert!(find(3_499).is_some());
    let started = std::time::Instant::now();
    while stage() != (2, 3_500) {
        assert!(
            started.elapsed() < std::time::Duration::from_secs(30),
            "{:?}",
            stage()
        );
        std::thread::yield_now();
    }
    assert!(find(0).is_some() && find(3_499).is_some() && find(3_500).is_none());
}
