//! Connections and the schema: made new, held against what this program knows, brought up to date with a copy kept.

use std::path::Path;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::folder::Paths;
use crate::OpenError;

/// The program knows this schema.
pub const SCHEMA_VERSION: i64 = 2;
/// `STMP`.
const APPLICATION_ID: i64 = 0x5354_4d50;
/// The schema of a new store.
pub const SCHEMA: &str = include_str!("../../queries/schema.sql");

/// SQLite before this one may reset a write-ahead log that is still needed.
const SQLITE_MIN: i32 = 3_051_003;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The log is kept at this size when it starts anew: overwriting is cheaper than growing.
const LOG_BYTES_KEPT: i64 = 64 << 20;
/// By so much the log's index grows at once.
const INDEX_BYTES: u64 = 32 << 10;
const CACHE_KIB: i64 = 64 << 10;

/// Takes a store from one schema version to the next.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// The version that it starts from; it ends one higher.
    pub from: i64,
    /// What it does.
    pub sql: &'static str,
}

/// All there are, oldest first.
pub const MIGRATIONS: &[Migration] = &[Migration {
    from: 1,
    sql: include_str!("../../queries/migrate_1_to_2.sql"),
}];

/// What may be done to a database at open.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// The schema version to arrive at.
    pub version: i64,
    /// The steps there.
    pub migrations: &'a [Migration],
    /// An empty database may be filled. `false` where batches were acknowledged: an empty one has lost them.
    pub may_create: bool,
}

/// Opens the database for writing: makes it, or checks and migrates it. `None` where it is empty and may not be.
/// Nothing is written before it was recognised.
pub fn open_for_writing(paths: &Paths, plan: Plan<'_>) -> Result<Option<Connection>, OpenError> {
    assert_version(paths)?;
    let failed = |error| open_error(paths, error);
    let mut connection = Connection::open_with_flags(
        &paths.database,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(failed)?;
    set_up(&connection).map_err(failed)?;
    match recognise(&connection, paths, plan.version)? {
        Found::Nothing if !plan.may_create => return Ok(None),
        Found::Nothing => {
            write_ahead(&connection, paths)?;
            create(&mut connection).map_err(failed)?;
        }
        Found::Version(version) => {
            if version < plan.version {
                migrate(&mut connection, paths, version, plan)?;
            }
            write_ahead(&connection, paths)?;
        }
    }
    if plan.version == SCHEMA_VERSION {
        check_schema(&connection, paths)?;
    }
    Ok(Some(connection))
}

/// Opens the database for reading only.
pub fn open_for_reading(paths: &Paths) -> Result<Connection, OpenError> {
    let failed = |error| open_error(paths, error);
    let connection = Connection::open_with_flags(
        &paths.database,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(failed)?;
    set_up(&connection).map_err(failed)?;
    Ok(connection)
}

/// What a database holds.
pub enum Found {
    /// Nothing at all.
    Nothing,
    /// Our schema, of this version.
    Version(i64),
}

fn assert_version(paths: &Paths) -> Result<(), OpenError> {
    if rusqlite::version_number() >= SQLITE_MIN {
        return Ok(());
    }
    Err(OpenError::Io {
        file: paths.database.clone(),
        why: format!(
            "this program was built with SQLite {}, which may lose commits; 3.51.3 or later is needed",
            rusqlite::version()
        ),
    })
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    // What is left of a refused store stays as it is, log and all; a graceful end checkpoints by itself.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch(&format!(
        "PRAGMA cell_size_check = ON; PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; \
         PRAGMA cache_size = -{CACHE_KIB};"
    ))
}

/// Every commit flushed; checkpoints are the writer's own, so that their errors are seen.
fn write_ahead(connection: &Connection, paths: &Paths) -> Result<(), OpenError> {
    let failed = |error| open_error(paths, error);
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
        .map_err(failed)?;
    if mode != "wal" {
        return Err(paths.folder_error(&format!(
            "its file system gives journal mode {mode}, not write-ahead logging"
        )));
    }
    connection
        .execute_batch("PRAGMA synchronous = FULL;")
        .and_then(|()| {
            connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))
        })
        .and_then(|()| {
            connection
                .pragma_update_and_check(None, "journal_size_limit", LOG_BYTES_KEPT, |_| Ok(()))
        })
        .map_err(failed)
}

/// Tells a store of ours from an empty database, and refuses any other.
pub fn recognise(connection: &Connection, paths: &Paths, known: i64) -> Result<Found, OpenError> {
    let failed = |error| open_error(paths, error);
    let pragma = |name| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(failed)
    };
    let (application_id, version) = (pragma("application_id")?, pragma("user_version")?);
    let objects: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    let foreign = |why: &str| {
        Err(OpenError::NotADatabase {
            file: paths.database.clone(),
            why: why.to_owned(),
        })
    };
    match (application_id, version, objects) {
        (0, 0, 0) => Ok(Found::Nothing),
        (APPLICATION_ID, version, _) if version > known => Err(OpenError::Newer {
            file: paths.database.clone(),
            found: version,
            known,
        }),
        (APPLICATION_ID, version, _) if version >= 1 => Ok(Found::Version(version)),
        (APPLICATION_ID, _, _) => foreign("its schema version is not one of ours"),
        _ => foreign("another program's SQLite database"),
    }
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.commit()?;
    // The log then holds batches only.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// Brings an older store up to date, in one transaction, after it was copied to `stampede.db.v<N>.bak`.
fn migrate(
    connection: &mut Connection,
    paths: &Paths,
    from: i64,
    plan: Plan<'_>,
) -> Result<(), OpenError> {
    let known = plan.version;
    let failed = |why: String| OpenError::Migration {
        file: paths.database.clone(),
        from,
        why,
    };
    let copy = paths.dir.join(format!("stampede.db.v{from}.bak"));
    back_up(connection, &copy).map_err(|why| failed(format!("no copy: {why}")))?;
    let run = |connection: &mut Connection| -> Result<(), String> {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| error.to_string())?;
        for version in from..known {
            let step = plan
                .migrations
                .iter()
                .find(|migration| migration.from == version)
                .ok_or_else(|| format!("no way leads from version {version}"))?;
            transaction
                .execute_batch(step.sql)
                .map_err(|error| error.to_string())?;
        }
        transaction
            .pragma_update(None, "user_version", known)
            .and_then(|()| transaction.commit())
            .map_err(|error| error.to_string())
    };
    run(connection).map_err(failed)?;
    tracing::info!(from, to = known, copy = %copy.display(), "store migrated");
    Ok(())
}

/// Copies the store as it stands, log included, and flushes the copy before it gets its name.
fn back_up(connection: &Connection, copy: &Path) -> Result<(), String> {
    let unfinished = copy.with_extension("tmp");
    if let Err(error) = std::fs::remove_file(&unfinished)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error.to_string());
    }
    connection
        .backup("main", &unfinished, None)
        .map_err(|error| error.to_string())?;
    let flush = || {
        std::fs::File::open(&unfinished)?.sync_all()?;
        std::fs::rename(&unfinished, copy)?;
        std::fs::File::open(copy.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    flush().map_err(|error| error.to_string())
}

/// Every table, index, trigger and view is as this program makes it; what somebody added is left alone.
pub fn check_schema(connection: &Connection, paths: &Paths) -> Result<(), OpenError> {
    let failed = |error| open_error(paths, error);
    let model = Connection::open_in_memory().map_err(failed)?;
    model.execute_batch(SCHEMA).map_err(failed)?;
    let mut expected = model
        .prepare("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
        .map_err(failed)?;
    let mut found = connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE type = ?1 AND name = ?2 AND sql = ?3")
        .map_err(failed)?;
    let mut rows = expected.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let object: (String, String, String) = (
            row.get(0).map_err(failed)?,
            row.get(1).map_err(failed)?,
            row.get(2).map_err(failed)?,
        );
        if !found
            .exists((&object.0, &object.1, &object.2))
            .map_err(failed)?
        {
            return Err(OpenError::Damaged {
                file: paths.database.clone(),
                what: format!("the {} {} is not as it was made", object.0, object.1),
            });
        }
    }
    Ok(())
}

/// What SQLite said at open, as one of ours.
#[expect(clippy::needless_pass_by_value, reason = "it is used in map_err")]
pub fn open_error(paths: &Paths, error: rusqlite::Error) -> OpenError {
    let why = error.to_string();
    let file = paths.database.clone();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { file, why },
        Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { file, what: why },
        Some(ErrorCode::DiskFull) => OpenError::StorageFull {
            dir: paths.dir.clone(),
        },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            paths.folder_error(&why)
        }
        // The log's index is mapped: where it cannot grow SQLite knows of an I/O error alone.
        Some(ErrorCode::SystemIoFailure) if is_full(&paths.dir) => OpenError::StorageFull {
            dir: paths.dir.clone(),
        },
        _ => OpenError::Io { file, why },
    }
}

/// Whether there is no room on the disk of a folder.
pub fn is_full(dir: &Path) -> bool {
    statvfs(dir).is_ok_and(|disk| disk.blocks_available() * disk.fragment_size() < INDEX_BYTES)
}
