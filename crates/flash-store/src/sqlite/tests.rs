//! What needs the inside: migrations, a disk that is full, and a copy that others write under.

use std::ops::ControlFlow;

use flash_types::{Timestamp, bounds};
use rusqlite::Connection;
use tempfile::TempDir;

use super::folder::{Acked, Paths};
use super::schema::{Migration, Plan, SCHEMA, SCHEMA_VERSION, open_for_writing};
use super::writer::Committer;
use super::{SqliteStore, last_batch, lost};
use crate::{AdminNote, Batch, Change, CommitError, Entry, NotApplied, OpenError};

/// One that only this test knows.
const NEXT_VERSION: i64 = SCHEMA_VERSION + 1;
/// From the version of this program to it.
const NEXT: &[Migration] = &[Migration {
    from: SCHEMA_VERSION,
    sql: "CREATE TABLE place (name TEXT) STRICT",
}];

#[test]
fn an_older_store_is_migrated_and_kept() {
    let folder = TempDir::new().unwrap();
    let (store, opened) = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(opened.epoch, 1);
    drop(store);
    let (store, opened) = SqliteStore::open_as(folder.path(), NEXT, NEXT_VERSION).unwrap();
    assert_eq!(opened.epoch, 2);
    drop(store);
    let read = |file: &str| {
        let connection = Connection::open(folder.path().join(file)).unwrap();
        let version: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        let starts: i64 = connection
            .query_row("SELECT count(*) FROM start", [], |row| row.get(0))
            .unwrap();
        (version, starts)
    };
    assert_eq!(read("stampede.db"), (NEXT_VERSION, 2));
    let copy = format!("stampede.db.v{SCHEMA_VERSION}.bak");
    assert_eq!(read(&copy), (SCHEMA_VERSION, 1));
    // Now it is newer than this program.
    let newer = SqliteStore::open(folder.path()).map(|_| ());
    assert!(
        matches!(
            newer,
            Err(OpenError::Newer {
                found: NEXT_VERSION,
                known: SCHEMA_VERSION,
                ..
            })
        ),
        "{newer:?}"
    );
}

#[test]
fn pages_go_by_the_primary_key() {
    let folder = TempDir::new().unwrap();
    let (store, _) = SqliteStore::open(folder.path()).unwrap();
    drop(store);
    let connection = Connection::open(folder.path().join("stampede.db")).unwrap();
    for sql in super::events::page_queries() {
        let plan: Vec<String> = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap()
            .query_map([0, 1, 10], |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert!(
            plan.len() == 1 && plan[0].contains("USING INTEGER PRIMARY KEY (rowid>?)"),
            "{plan:?}"
        );
    }
}

#[test]
fn a_copy_is_the_store_as_it_stood_whatever_is_written_meanwhile() {
    let folder = TempDir::new().unwrap();
    let (store, _) = SqliteStore::open(folder.path()).unwrap();
    let writer = Connection::open(folder.path().join("stampede.db")).unwrap();
    let copies = TempDir::new().unwrap();
    let file = copies.path().join("copy.db");
    let mut steps = 0_i64;
    let content = super::back_up(folder.path(), &file, false, &mut |_| {
        steps += 1;
        let start = "INSERT INTO start VALUES (?1, 'test')";
        writer.execute(start, [1 + steps]).unwrap();
        if steps < 200 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    assert_eq!(content.unwrap().last_batch, 0);
    assert!(steps > 3, "one step proves nothing");
    let starts = "SELECT count(*) FROM start";
    let count = |connection: &Connection| -> i64 {
        connection.query_row(starts, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count(&Connection::open(&file).unwrap()), 1);
    assert_eq!(count(&writer), 1 + steps);
    drop(store);
}

#[test]
fn a_failed_migration_leaves_the_store_as_it_was() {
    let folder = TempDir::new().unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    let broken = &[Migration {
        from: SCHEMA_VERSION,
        sql: "DROP TABLE retired_key; SELECT nonsense",
    }];
    let failed = SqliteStore::open_as(folder.path(), broken, NEXT_VERSION).map(|_| ());
    assert!(
        matches!(
            failed,
            Err(OpenError::Migration {
                from: SCHEMA_VERSION,
                ..
            })
        ),
        "{failed:?}"
    );
    let (_, opened) = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(opened.epoch, 2);
}

#[test]
fn the_schema_is_held_against_the_programs() {
    let folder = TempDir::new().unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    let connection = Connection::open(folder.path().join("stampede.db")).unwrap();
    connection
        .execute_batch("CREATE INDEX of_an_operator ON reservation (buyer)")
        .unwrap();
    drop(SqliteStore::open(folder.path()).unwrap());
    connection
        .execute_batch("DROP TRIGGER note_is_never_deleted")
        .unwrap();
    let refused = SqliteStore::open(folder.path()).map(|_| ());
    let Err(OpenError::Damaged { what, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(what.contains("note_is_never_deleted"), "{what}");
}

fn notes(number: u64, jobs: u64, detail_bytes: usize) -> Batch {
    let entries = (0..jobs)
        .map(|job| Entry {
            serial: flash_types::Serial(bounds::SERIALS_PER_EPOCH + number * 1_000 + job),
            sale_no: flash_types::SaleNo(0),
            change: Change::Note(AdminNote {
                at: Timestamp(1),
                who: "ops".into(),
                command: "test".into(),
                sale_id: None,
                outcome: "ok".into(),
                detail: "x".repeat(detail_bytes),
            }),
        })
        .collect();
    Batch {
        number,
        at: Timestamp(1),
        entries,
    }
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let folder = TempDir::new().unwrap();
    let paths = Paths::of(folder.path());
    let plan = Plan {
        version: SCHEMA_VERSION,
        migrations: &[],
        may_create: true,
    };
    let connection = open_for_writing(&paths, plan).unwrap().unwrap();
    connection
        .execute("INSERT INTO start VALUES (1, 'test')", [])
        .unwrap();
    let acked = Acked::start(&paths, 0).unwrap();
    let tip = last_batch(&connection).unwrap();
    let mut committer = Committer::new(&connection, &paths, &acked, tip).unwrap();
    committer.commit(&notes(1, 10, 100)).unwrap();
    let pages: i64 = connection
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap();
    let limit = |pages: i64| {
        connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .unwrap();
    };
    limit(pages + 2);
    for _ in 0..3 {
        let refused = committer.commit(&notes(2, 100, 1_000));
        let is_full = matches!(
            refused,
            Err(CommitError::NotApplied(NotApplied::StorageFull(_)))
        );
        assert!(is_full, "{refused:?}");
        assert_eq!(Acked::read(&paths).unwrap(), 1);
    }
    // What still fits is taken; with room everything is.
    committer.commit(&notes(2, 1, 10)).unwrap();
    limit(1_000_000);
    committer.commit(&notes(3, 100, 1_000)).unwrap();
    assert_eq!(last_batch(&connection).unwrap().batch, 3);
    drop(committer);
    drop(connection);
    let (store, opened) = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(opened.last_batch, 3);
    store.load(&mut Nothing).unwrap();
}

struct Nothing;

impl crate::Loaded for Nothing {
    fn sale(&mut self, _sale: crate::SaleRow) {}
    fn reservation(&mut self, _reservation: crate::ReservationRow) {}
    fn decision(&mut self, _decision: crate::DecisionRow) {}
}

#[test]
fn every_refusal_is_one_line_that_helps() {
    let paths = Paths::of(std::path::Path::new("/data"));
    let dir = paths.dir.clone();
    let file = paths.database.clone();
    let lines = [
        lost(&paths, 10, 7).to_string(),
        paths.folder_error(&"Read-only file system").to_string(),
        OpenError::Locked {
            dir: dir.clone(),
            holder: "process 7".into(),
        }
        .to_string(),
        OpenError::StorageFull { dir }.to_string(),
        OpenError::Newer {
            file,
            found: 2,
            known: 1,
        }
        .to_string(),
    ];
    assert_eq!(
        lines[0],
        "batches 8 to 10 were acknowledged and missing from /data/stampede.db, which ends with batch 7; \
         restore its write-ahead log or a backup; to accept the loss, delete /data/acked"
    );
    for line in lines {
        assert!(!line.contains('\n') && line.contains("/data"), "{line}");
    }
}

#[test]
fn the_schema_file_can_be_run_by_hand() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    for view in ["v_sale", "v_item", "v_reservation", "v_event", "v_decision"] {
        let mut statement = connection
            .prepare(&format!("SELECT * FROM {view}"))
            .unwrap();
        assert!(!statement.exists([]).unwrap());
    }
}
