//! A copy of a store, made by another process while the engine sells, or of a stopped store.
//!
//! The pages are copied out of one read transaction, so the copy is the store as it stood at one batch. The writer is
//! not held up: it appends to its log meanwhile, and only cannot start the log anew. Copying pages keeps that
//! transaction for half as long as building the database again would (`VACUUM INTO`; measured with a million
//! reservations: 0.07 s against 0.16 s).
//! Owns: the unfinished copy beside its later name, which is gone on every way out. Never opens files of the store but
//! by SQLite and read-only; must not run in the serving process.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode};

use super::folder::{Acked, Paths};
use super::{load, lost, schema};
use crate::{DecisionRow, Loaded, OpenError, ReservationRow, SaleRow};
use flash_types::Timestamp;

/// Pages (of 4 KiB) that are copied between two words about how far it is.
const STEP_PAGES: i32 = if cfg!(test) { 4 } else { 2_048 };
/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupContent {
    /// Sales, drafts too.
    pub sales: u64,
    /// Reservations in every state.
    pub reservations: u64,
    /// Number of its last batch; what came after it is not in it.
    pub last_batch: u64,
    /// When that batch was built; `None` if there is none.
    pub last_at: Option<Timestamp>,
    /// Its size.
    pub bytes: u64,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupStep {
    /// Pages are copied.
    Copying {
        /// So many.
        pages: u64,
        /// Of these.
        of_pages: u64,
    },
    /// The copy is flushed and proved.
    Proving,
}

/// Why there is no copy. Nothing of it is left, and a file that had its name is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// No database.
    #[error("there is no store in {}: stampede.db is not there{hint}", dir.display())]
    NoStore {
        /// The folder.
        dir: PathBuf,
        /// What else was found.
        hint: &'static str,
    },
    /// The store cannot be read, or has lost batches.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The store was written by an older program.
    #[error("{} has schema version {found}, this program {known}: back it up with the program that wrote it", file.display())]
    Older {
        /// The database.
        file: PathBuf,
        /// Its version.
        found: i64,
        /// The version of this program.
        known: i64,
    },
    /// There is such a file.
    #[error("{} is there already; choose another name, or --force to replace it", file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// It cannot have this name.
    #[error("{} cannot be the copy: {why}", file.display())]
    Target {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No room for the copy.
    #[error("the disk of {} is full: nothing was kept; make room, or choose another disk", folder.display())]
    Full {
        /// Where the copy was to be.
        folder: PathBuf,
    },
    /// The copy contradicts itself, as then the store does.
    #[error(
        "the copy is damaged, so nothing was kept: {what}; `stampede audit` lists all that is wrong with the store"
    )]
    Damaged {
        /// What is missing or wrong.
        what: String,
    },
    /// Somebody asked for the end.
    #[error("interrupted: nothing was kept")]
    Interrupted,
}

/// Copies the store in `dir` to `file`, proves the copy as a start would, and only then gives it its name. Blocks;
/// `step` is told how far it is and may break it off. An existing file is replaced only with `may_replace`.
///
/// # Errors
/// [`BackupError`].
pub fn back_up(
    dir: &Path,
    file: &Path,
    may_replace: bool,
    step: &mut dyn FnMut(BackupStep) -> ControlFlow<()>,
) -> Result<BackupContent, BackupError> {
    let paths = Paths::of(dir);
    if !paths.database.is_file() {
        let is_redis = dir.join("acked-redis").exists();
        return Err(BackupError::NoStore {
            dir: dir.to_owned(),
            hint: if is_redis {
                " (its sales are in Redis)"
            } else {
                ""
            },
        });
    }
    let folder = check_target(dir, file, may_replace)?;
    let unfinished = Unfinished::make(file, &folder)?;
    copy(&paths, &unfinished, step)?;
    if step(BackupStep::Proving).is_break() {
        return Err(BackupError::Interrupted);
    }
    unfinished.flush()?;
    let content = prove(&unfinished)?;
    // Somebody may have made one meanwhile.
    if !may_replace && file.symlink_metadata().is_ok() {
        return Err(BackupError::Exists {
            file: file.to_owned(),
        });
    }
    unfinished.finish()?;
    Ok(content)
}

/// Gives the folder of the copy.
fn check_target(dir: &Path, file: &Path, may_replace: bool) -> Result<PathBuf, BackupError> {
    let target = |why: String| BackupError::Target {
        file: file.to_owned(),
        why,
    };
    if file.file_name().is_none() {
        return Err(target("it names no file".into()));
    }
    if file.is_dir() {
        return Err(target("it is a folder".into()));
    }
    // A device, a socket or a pipe would be renamed over.
    if file.exists() && !file.is_file() {
        return Err(target("it is no regular file".into()));
    }
    let folder = match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let real = |path: &Path| path.canonicalize();
    let real_folder = real(&folder).map_err(|error| {
        target(format!(
            "its folder {} cannot be used ({error})",
            folder.display()
        ))
    })?;
    // What lies there belongs to the engine, and a copy beside it would be lost with it.
    if real(dir).is_ok_and(|dir| dir == real_folder) {
        return Err(target("it would lie in the data folder".into()));
    }
    if !may_replace && file.symlink_metadata().is_ok() {
        return Err(BackupError::Exists {
            file: file.to_owned(),
        });
    }
    Ok(folder)
}

/// A copy that does not have its name yet. Dropping it removes it.
struct Unfinished<'f> {
    path: PathBuf,
    file: &'f Path,
    folder: PathBuf,
}

impl<'f> Unfinished<'f> {
    /// Makes an empty one that only its owner can read.
    fn make(file: &'f Path, folder: &Path) -> Result<Self, BackupError> {
        let mut name = OsString::from(".");
        name.push(file.file_name().unwrap_or_default());
        name.push(format!(".{}.unfinished", std::process::id()));
        let unfinished = Self {
            path: folder.join(name),
            file,
            folder: folder.to_owned(),
        };
        // What an earlier process of this number left behind.
        let _ = std::fs::remove_file(&unfinished.path);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished.path)
            .map_err(|error| unfinished.failed(&error))?;
        Ok(unfinished)
    }

    fn failed(&self, error: &std::io::Error) -> BackupError {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return BackupError::Full {
                folder: self.folder.clone(),
            };
        }
        BackupError::Target {
            file: self.file.to_owned(),
            why: error.to_string(),
        }
    }

    fn failed_by(&self, error: &rusqlite::Error) -> BackupError {
        if error.sqlite_error_code() == Some(ErrorCode::DiskFull) || schema::is_full(&self.folder) {
            return BackupError::Full {
                folder: self.folder.clone(),
            };
        }
        BackupError::Target {
            file: self.file.to_owned(),
            why: error.to_string(),
        }
    }

    fn flush(&self) -> Result<(), BackupError> {
        let flushed = File::open(&self.path).and_then(|file| file.sync_all());
        flushed.map_err(|error| self.failed(&error))
    }

    fn finish(self) -> Result<(), BackupError> {
        let named = std::fs::rename(&self.path, self.file)
            .and_then(|()| File::open(&self.folder))
            .and_then(|folder| folder.sync_all());
        named.map_err(|error| self.failed(&error))
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.path.clone().into_os_string();
            path.push(end);
            // Mostly it is not there.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn copy(
    paths: &Paths,
    unfinished: &Unfinished<'_>,
    step: &mut dyn FnMut(BackupStep) -> ControlFlow<()>,
) -> Result<(), BackupError> {
    let source = |error| schema::open_error(paths, error);
    // Before the transaction: what is acknowledged by now must be in what is copied.
    let acked = Acked::read(paths).map_err(|error| OpenError::Io {
        file: paths.acked.clone(),
        why: error.to_string(),
    })?;
    let store = schema::open_for_reading(paths)?;
    // Held to the end: without it every commit of the engine would start the copying over.
    store.execute_batch("BEGIN").map_err(source)?;
    match schema::recognise(&store, paths, schema::SCHEMA_VERSION)? {
        schema::Found::Nothing => return Err(lost(paths, acked, 0).into()),
        schema::Found::Version(found) if found < schema::SCHEMA_VERSION => {
            return Err(BackupError::Older {
                file: paths.database.clone(),
                found,
                known: schema::SCHEMA_VERSION,
            });
        }
        schema::Found::Version(_) => {}
    }
    let last = super::last_batch(&store).map_err(source)?.batch;
    if last < acked {
        return Err(lost(paths, acked, last).into());
    }
    let target = |error| unfinished.failed_by(&error);
    let mut copy = Connection::open(&unfinished.path).map_err(target)?;
    // It is flushed once, when it is whole.
    copy.execute_batch("PRAGMA synchronous = OFF")
        .map_err(target)?;
    let pages = Backup::new(&store, &mut copy).map_err(target)?;
    loop {
        let stepped = pages.step(STEP_PAGES).map_err(target)?;
        let progress = pages.progress();
        let of_pages = u64::try_from(progress.pagecount).unwrap_or(0);
        let left = u64::try_from(progress.remaining).unwrap_or(0);
        let copying = BackupStep::Copying {
            pages: of_pages.saturating_sub(left),
            of_pages,
        };
        if step(copying).is_break() {
            return Err(BackupError::Interrupted);
        }
        if stepped == StepResult::Done {
            break;
        }
        if stepped != StepResult::More {
            // Nobody else has the unfinished copy, and the store is being read already.
            return Err(target(busy()));
        }
    }
    drop(pages);
    drop(store);
    // One file that needs nothing beside it; the engine's first start on it goes back to write-ahead logging.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
        .map_err(target)?;
    copy.close().map_err(|(_, error)| target(error))
}

fn busy() -> rusqlite::Error {
    let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
    rusqlite::Error::SqliteFailure(busy, None)
}

/// The proof of a start, on the copy alone: its schema, the chain of batches, rows and counters against events.
fn prove(unfinished: &Unfinished<'_>) -> Result<BackupContent, BackupError> {
    let paths = Paths {
        dir: unfinished.folder.clone(),
        database: unfinished.path.clone(),
        acked: unfinished.path.with_extension("acked"),
    };
    let damaged = |error: OpenError| BackupError::Damaged {
        what: if let OpenError::Damaged { what, .. } = error {
            what
        } else {
            error.to_string()
        },
    };
    load::load(&paths, &mut ProofAlone).map_err(damaged)?;
    let copy = schema::open_for_reading(&paths)?;
    schema::check_schema(&copy, &paths).map_err(damaged)?;
    let (sales, reservations, last_batch, last_at): (i64, i64, i64, Option<i64>) = copy
        .query_row(
            "SELECT (SELECT count(*) FROM sale), (SELECT count(*) FROM reservation), \
             (SELECT ifnull(max(number), 0) FROM batch), \
             (SELECT at_ms FROM batch ORDER BY number DESC LIMIT 1)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .map_err(|error| unfinished.failed_by(&error))?;
    let bytes = std::fs::metadata(&unfinished.path).map_err(|error| unfinished.failed(&error))?;
    Ok(BackupContent {
        sales: sales.cast_unsigned(),
        reservations: reservations.cast_unsigned(),
        last_batch: last_batch.cast_unsigned(),
        last_at: last_at.map(Timestamp),
        bytes: bytes.len(),
    })
}

/// Wants nothing of what is proved.
struct ProofAlone;

impl Loaded for ProofAlone {
    fn sale(&mut self, _: SaleRow) {}
    fn reservation(&mut self, _: ReservationRow) {}
    fn decision(&mut self, _: DecisionRow) {}
}
