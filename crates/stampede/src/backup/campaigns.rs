//! The copy of the campaigns' file, which runs meanwhile: pages out of one read transaction, proved before it has its name.
//!
//! Owns: the unfinished copy beside its later name, which is gone on every way out.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use side_books::audit::Report;
use side_books::sql::DatabaseUrl;

use crate::Failure;
use crate::audit::prove_campaigns;

/// Pages (of 4 KiB) between two looks whether somebody asked for the end.
const STEP_PAGES: i32 = 2_048;
/// Only a database that is being made keeps a reader waiting.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A proved copy without its name. Dropping it removes it.
pub(super) struct Copied {
    unfinished: PathBuf,
    file: PathBuf,
    may_replace: bool,
    pub(super) report: Report,
    pub(super) bytes: u64,
}

/// Where the copy belongs beside that of the sales.
pub(super) fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".campaigns.db");
    name.into()
}

/// Copies `database` for `file` and proves the copy; gives it no name yet. Blocks.
///
/// # Errors
/// What stands against it, or is wrong with the content: [`Failure::Books`].
pub(super) fn copy(
    database: &Path,
    file: &Path,
    may_replace: bool,
    is_over: &dyn Fn() -> bool,
) -> Result<Copied, Failure> {
    check_target(database, file, may_replace)?;
    let mut copied = Copied {
        unfinished: unfinished(file),
        file: file.to_owned(),
        may_replace,
        report: Report::default(),
        bytes: 0,
    };
    copied.fill(database, is_over)?;
    if is_over() {
        return Err(interrupted());
    }
    let report = prove_campaigns(&DatabaseUrl::Sqlite(copied.unfinished.clone()));
    copied.report = report.map_err(|failure| match failure {
        Failure::CannotStart(_) => Failure::CannotStart(format!(
            "{} cannot be backed up: it is of another program than this; take that one",
            database.display()
        )),
        other @ (Failure::Books(_) | Failure::Other(_)) => other,
    })?;
    if let Some(first) = copied.report.findings.first() {
        return Err(Failure::Books(format!(
            "the copy of {} does not balance, so nothing was kept: {} {}: {}; `stampede audit` lists all that is wrong",
            database.display(),
            first.code,
            first.subject,
            first.detail
        )));
    }
    Ok(copied)
}

impl Copied {
    /// Gives it its name.
    ///
    /// # Errors
    /// Somebody else has it by now, or the folder cannot be written.
    pub(super) fn name(self) -> Result<(), Failure> {
        if !self.may_replace && self.file.symlink_metadata().is_ok() {
            return Err(exists(&self.file));
        }
        let named = std::fs::rename(&self.unfinished, &self.file)
            .and_then(|()| File::open(folder_of(&self.file)))
            .and_then(|folder| folder.sync_all());
        named.map_err(|error| self.failed(&error.to_string()))
    }

    fn fill(&mut self, database: &Path, is_over: &dyn Fn() -> bool) -> Result<(), Failure> {
        // What an earlier process of this number left behind.
        let _ = std::fs::remove_file(&self.unfinished);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.unfinished)
            .map_err(|error| self.failed(&error.to_string()))?;
        self.fill_pages(database, is_over)?;
        let file = File::open(&self.unfinished);
        let flushed = file.and_then(|file| file.sync_all().and_then(|()| file.metadata()));
        self.bytes = flushed
            .map_err(|error| self.failed(&error.to_string()))?
            .len();
        Ok(())
    }

    fn fill_pages(&self, database: &Path, is_over: &dyn Fn() -> bool) -> Result<(), Failure> {
        let unreadable = |error: rusqlite::Error| {
            Failure::CannotStart(format!("cannot read {}: {error}", database.display()))
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let source = Connection::open_with_flags(database, flags).map_err(unreadable)?;
        source.busy_timeout(BUSY_TIMEOUT).map_err(unreadable)?;
        // Held to the end: without it every commit of the campaigns would start the copying over.
        source
            .execute_batch("BEGIN; SELECT COUNT(*) FROM sqlite_master")
            .map_err(unreadable)?;
        let target = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Failure::Other(anyhow::anyhow!(
                "the disk of {} is full: nothing was kept; make room, or choose another disk",
                folder_of(&self.file).display()
            )),
            _ => self.failed(&error.to_string()),
        };
        let mut copy = Connection::open(&self.unfinished).map_err(target)?;
        // It is flushed once, when it is whole.
        copy.execute_batch("PRAGMA synchronous = OFF")
            .map_err(target)?;
        let pages = Backup::new(&source, &mut copy).map_err(target)?;
        loop {
            // More, since nobody else has the copy and the source is being read already.
            if pages.step(STEP_PAGES).map_err(target)? == StepResult::Done {
                break;
            }
            if is_over() {
                return Err(interrupted());
            }
        }
        drop(pages);
        // One file that needs nothing beside it.
        copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
            .map_err(target)?;
        copy.close().map_err(|(_, error)| target(error))
    }

    fn failed(&self, why: &str) -> Failure {
        Failure::CannotStart(format!("{} cannot be the copy: {why}", self.file.display()))
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm", "-journal"] {
            let mut path = self.unfinished.clone().into_os_string();
            path.push(end);
            // Mostly it is not there.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn check_target(database: &Path, file: &Path, may_replace: bool) -> Result<(), Failure> {
    let refused =
        |why: &str| Failure::CannotStart(format!("{} cannot be the copy: {why}", file.display()));
    if file.is_dir() {
        return Err(refused("it is a folder"));
    }
    if file.file_name().is_none() || file.exists() && !file.is_file() {
        return Err(refused("it is no regular file"));
    }
    let real = |path: &Path| path.canonicalize();
    let Ok(folder) = real(&folder_of(file)) else {
        return Err(refused("its folder cannot be used"));
    };
    if real(&folder_of(database)).is_ok_and(|data| data == folder) {
        return Err(refused("it would lie in the data folder"));
    }
    if !may_replace && file.symlink_metadata().is_ok() {
        return Err(exists(file));
    }
    Ok(())
}

fn exists(file: &Path) -> Failure {
    Failure::CannotStart(format!(
        "{} is there already; choose another name, or --force to replace it",
        file.display()
    ))
}

fn interrupted() -> Failure {
    Failure::Other(anyhow::anyhow!("interrupted: nothing was kept"))
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn unfinished(file: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}.unfinished", std::process::id()));
    folder_of(file).join(name)
}
