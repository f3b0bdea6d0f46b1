//! The writing thread: one batch at a time, flushed before it is answered; checkpoints and the index of retired keys
//! in between.
//!
//! Invariant: a batch is answered `NotApplied` only if no later recovery of the log can bring it back. Whatever
//! leaves that open is `Fatal`, and nothing is taken after it.

use std::time::Duration;

use crossbeam::channel::{Receiver, RecvError, RecvTimeoutError};
use nix::sys::statvfs::statvfs;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Statement, params};
use tokio::sync::oneshot;

use super::apply::{Failure, Tip, Writer};
use super::folder::{Acked, Paths};
use super::sql;
use crate::{Batch, Change, CommitError, NotApplied, fault};

/// Without a batch for so long the writer is idle: the next one comes in the time that its caller needs to build it.
const IDLE_AFTER: Duration = Duration::from_millis(20);
/// Frames of the log from which on an idle writer copies them into the database.
const IDLE_CHECKPOINT_FRAMES: i64 = 256;
/// Frames at which a busy writer does. Below 4,062 the log's index never grows: growing it on a full disk would fail
/// after the commit was flushed, and leave its fate open.
const BUSY_CHECKPOINT_FRAMES: i64 = 2_000;
/// Where a reader keeps the log from starting anew, the next try comes so many frames later.
const CHECKPOINT_RETRY_FRAMES: i64 = 1_000;
/// Reservations that one step of indexing looks at: a few milliseconds.
const INDEX_STEP_ROWS: i64 = 1_000;
/// A busy writer takes an index step after so many batches.
const INDEX_STEP_BATCHES: u64 = 16;
/// Room that must be left on the disk: for checkpoints, for the start after this one.
const ROOM_BYTES_MIN: u64 = 128 << 10;
/// Room that a new reservation may take in the log.
const RESERVE_BYTES: u64 = 400;
/// Room that one count of tries may take in the log.
const ATTEMPT_BYTES: u64 = 64;
/// Room that any other change may take in the log: the pages of its reservation and its decision.
const CHANGE_BYTES: u64 = 8 << 10;

/// What the thread is asked for.
pub enum Job {
    Commit {
        batch: Batch,
        reply: oneshot::Sender<Result<(), CommitError>>,
    },
    /// Sales were retired before this start, and their keys not all indexed.
    FinishRetiring,
}

/// Serves jobs until the channel is closed; then `stop_reading` closes the other connection, and this one is the last.
pub fn run(
    mut connection: Connection,
    paths: &Paths,
    acked: &Acked,
    tip: Tip,
    jobs: &Receiver<Job>,
    stop_reading: impl FnOnce(),
) {
    let broken = match Committer::new(&connection, paths, acked, tip) {
        Ok(mut committer) => {
            committer.serve(jobs);
            committer.broken
        }
        Err(error) => {
            let why = format!("the writer cannot start: {error}");
            while let Ok(job) = jobs.recv() {
                refuse(job, &why);
            }
            Some(why)
        }
    };
    stop_reading();
    if broken.is_none() {
        close(&mut connection);
    }
}

/// A graceful end: the log goes into the database, and with the connection the log's files.
fn close(connection: &mut Connection) {
    let truncated = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    let closed = truncated
        .and_then(|()| connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false));
    if let Err(error) = closed {
        tracing::warn!(%error, "the log was left for the next start");
    }
}

fn refuse(job: Job, why: &str) {
    match job {
        Job::Commit { batch: _, reply } => {
            let _ = reply.send(Err(CommitError::Fatal(why.to_owned())));
        }
        Job::FinishRetiring => {}
    }
}

pub struct Committer<'c> {
    connection: &'c Connection,
    paths: &'c Paths,
    acked: &'c Acked,
    writer: Writer<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
    log_state: Statement<'c>,
    tip: Tip,
    batches: u64,
    is_retiring: bool,
    /// Frames of the log that the database does not have yet.
    log_frames: i64,
    /// From how many of them on they are copied: when idle, when busy.
    checkpoint_from: (i64, i64),
    broken: Option<String>,
}

impl<'c> Committer<'c> {
    pub fn new(
        connection: &'c Connection,
        paths: &'c Paths,
        acked: &'c Acked,
        tip: Tip,
    ) -> rusqlite::Result<Self> {
        Ok(Self {
            connection,
            paths,
            acked,
            writer: Writer::prepare(connection)?,
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            log_state: connection.prepare("PRAGMA wal_checkpoint(NOOP)")?,
            tip,
            batches: 0,
            is_retiring: false,
            log_frames: 0,
            checkpoint_from: (IDLE_CHECKPOINT_FRAMES, BUSY_CHECKPOINT_FRAMES),
            broken: None,
        })
    }

    fn serve(&mut self, jobs: &Receiver<Job>) {
        loop {
            let job = match jobs.recv_timeout(IDLE_AFTER) {
                Ok(job) => job,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    while jobs.is_empty() && self.works_while_idle() {}
                    match jobs.recv() {
                        Ok(job) => job,
                        Err(RecvError) => return,
                    }
                }
            };
            match job {
                Job::Commit { batch, reply } => self.answer(&batch, reply),
                Job::FinishRetiring => self.is_retiring = true,
            }
        }
    }

    /// One piece of work that need not be done now; `false` if there is none.
    fn works_while_idle(&mut self) -> bool {
        if self.broken.is_some() {
            return false;
        }
        if self.is_retiring {
            self.index_keys();
            self.mind_the_log();
            return true;
        }
        if self.log_frames >= self.checkpoint_from.0 {
            self.checkpoint();
            return true;
        }
        false
    }

    fn answer(&mut self, batch: &Batch, reply: oneshot::Sender<Result<(), CommitError>>) {
        if fault::answers_before_commit() {
            let _ = reply.send(Ok(()));
            fault::head_start();
            let _ = self.commit(batch);
            return;
        }
        let verdict = self.commit(batch);
        if let Err(CommitError::Fatal(why)) = &verdict {
            tracing::error!(batch = batch.number, why, "the store stops");
            self.broken = Some(why.clone());
        }
        let is_done = verdict.is_ok();
        // The caller may have gone: the batch stays durable.
        let _ = reply.send(verdict);
        if is_done {
            fault::point("after_reply");
            self.after_commit(batch);
        }
    }

    pub fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        if let Some(why) = &self.broken {
            return Err(CommitError::Fatal(why.clone()));
        }
        self.check_order(batch)?;
        self.check_room(batch)?;
        fault::point("before_write");
        self.begin
            .execute([])
            .map_err(|error| self.not_written(Failure::Sql(error)))?;
        let tip = match self.writer.write(self.tip, batch) {
            Ok(tip) => tip,
            Err(failure) => return Err(self.not_written(failure)),
        };
        fault::point("after_write");
        if let Err(error) = self.commit.execute([]) {
            return Err(self.not_committed(&error));
        }
        self.tip = tip;
        fault::point("after_fsync");
        self.acked.set(batch.number).map_err(|error| {
            CommitError::Fatal(format!(
                "batch {} is durable, but {} cannot be written: {error}",
                batch.number,
                self.paths.acked.display()
            ))
        })?;
        fault::point("after_acked");
        Ok(())
    }

    /// Numbers ascend by one, serials ascend.
    fn check_order(&self, batch: &Batch) -> Result<(), CommitError> {
        let number = batch.number;
        if number <= self.tip.batch {
            // To call it "not applied" would give units back that are taken.
            return Err(CommitError::Fatal(format!(
                "batch {number} comes again; {} is durable already",
                self.tip.batch
            )));
        }
        let refused = |why: String| Err(CommitError::NotApplied(NotApplied::Unavailable(why)));
        if number != self.tip.batch + 1 {
            return refused(format!("batch {number} does not follow {}", self.tip.batch));
        }
        let mut last = self.tip.serial;
        for entry in &batch.entries {
            if entry.serial.0 <= last {
                return refused(format!(
                    "serial {} of batch {number} does not follow {last}",
                    entry.serial.0
                ));
            }
            last = entry.serial.0;
        }
        Ok(())
    }

    /// A full disk is noticed before anything is written: the way back is shortest here.
    fn check_room(&self, batch: &Batch) -> Result<(), CommitError> {
        let need = batch
            .entries
            .iter()
            .map(|entry| match &entry.change {
                Change::Reserve { lines, .. } => RESERVE_BYTES * lines.len() as u64,
                Change::PutDraft { definition } | Change::ChangePrice { definition, .. } => {
                    CHANGE_BYTES + 1_024 * definition.items.len() as u64
                }
                Change::CountAttempts { counts, .. } => {
                    CHANGE_BYTES + ATTEMPT_BYTES * counts.len() as u64
                }
                Change::Publish
                | Change::Open { .. }
                | Change::Unpublish
                | Change::Wave { .. }
                | Change::ProtectPrice { .. }
                | Change::Extend { .. }
                | Change::Pause
                | Change::Resume
                | Change::Close
                | Change::Freeze { .. }
                | Change::Retire
                | Change::Confirm { .. }
                | Change::RefusePayment { .. }
                | Change::Release { .. }
                | Change::Expire { .. }
                | Change::Refund { .. }
                | Change::ChangeStock { .. }
                | Change::Note(_) => CHANGE_BYTES,
            })
            .sum::<u64>()
            + ROOM_BYTES_MIN;
        // Where the question fails, the write will tell.
        let Ok(disk) = statvfs(&self.paths.dir) else {
            return Ok(());
        };
        let room = disk.blocks_available() * disk.fragment_size();
        if room >= need {
            return Ok(());
        }
        Err(CommitError::NotApplied(NotApplied::StorageFull(format!(
            "{room} bytes are free for {}, {need} are needed",
            self.paths.dir.display()
        ))))
    }

    /// An error before COMMIT: without a commit mark in the log no recovery can bring the batch back.
    fn not_written(&self, failure: Failure) -> CommitError {
        let was_undone = self.undo();
        match failure {
            Failure::Books(what) => CommitError::Fatal(format!("the books refuse: {what}")),
            Failure::Sql(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) if was_undone => {
                    CommitError::NotApplied(NotApplied::StorageFull(error.to_string()))
                }
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) if was_undone => {
                    CommitError::NotApplied(NotApplied::Unavailable(error.to_string()))
                }
                _ => CommitError::Fatal(in_full(&error)),
            },
        }
    }

    /// An error from COMMIT. Only a full disk is certain: the write that failed is that of a frame, the commit mark is
    /// in the last frame, and no flush was tried. All else (a failed flush, the log's index that could not grow) may
    /// come after the mark was written.
    fn not_committed(&self, error: &rusqlite::Error) -> CommitError {
        let is_full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
        if is_full && self.undo() && self.stored_batch() == Some(self.tip.batch) {
            return CommitError::NotApplied(NotApplied::StorageFull(error.to_string()));
        }
        CommitError::Fatal(format!("COMMIT failed: {}", in_full(error)))
    }

    fn undo(&self) -> bool {
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.connection.is_autocommit()
    }

    fn stored_batch(&self) -> Option<u64> {
        self.connection
            .query_row("SELECT ifnull(max(number), 0) FROM batch", [], |row| {
                row.get::<_, i64>(0)
            })
            .ok()
            .map(i64::cast_unsigned)
    }

    fn after_commit(&mut self, batch: &Batch) {
        self.batches += 1;
        self.is_retiring |= batch
            .entries
            .iter()
            .any(|entry| entry.change == Change::Retire);
        if self.is_retiring && self.batches.is_multiple_of(INDEX_STEP_BATCHES) {
            self.index_keys();
        }
        self.mind_the_log();
    }

    fn mind_the_log(&mut self) {
        let frames = self
            .log_state
            .query_row([], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)));
        match frames {
            Ok((frames, copied)) => self.log_frames = frames - copied.max(0),
            Err(error) => tracing::warn!(%error, "the size of the log is not known"),
        }
        if self.log_frames >= self.checkpoint_from.1 && self.broken.is_none() {
            self.checkpoint();
        }
    }

    /// Copies the log into the database, as far as readers allow; the next commit then starts it anew.
    fn checkpoint(&mut self) {
        let copied = self
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            });
        match copied {
            Ok((frames, copied)) => self.log_frames = frames - copied.max(0),
            Err(error) => match error.sqlite_error_code() {
                // The log holds everything; it is copied when there is room, or nobody reads.
                Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    tracing::debug!(%error, "the log is copied later");
                }
                // A failed flush of the database: what it holds is not known any more, but the log was not let go.
                _ => {
                    let why = format!(
                        "the log cannot be copied into the database: {}",
                        in_full(&error)
                    );
                    tracing::error!(why, "the store stops");
                    self.broken = Some(why);
                }
            },
        }
        let retry = if self.log_frames == 0 {
            0
        } else {
            self.log_frames + CHECKPOINT_RETRY_FRAMES
        };
        self.checkpoint_from = (
            retry.max(IDLE_CHECKPOINT_FRAMES),
            retry.max(BUSY_CHECKPOINT_FRAMES),
        );
    }

    /// One step of filling `retired_key`; a step that was lost with the process is done again.
    fn index_keys(&mut self) {
        match self.index_step() {
            Ok(has_more) => self.is_retiring = has_more,
            Err(error) => {
                let was_undone = self.undo();
                match error.sqlite_error_code() {
                    // Look-ups go without the index until the next start.
                    Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy) if was_undone => {
                        tracing::warn!(%error, "the keys of retired sales are indexed later");
                        self.is_retiring = false;
                    }
                    _ => self.broken = Some(format!("indexing retired keys: {}", in_full(&error))),
                }
            }
        }
    }

    fn index_step(&mut self) -> rusqlite::Result<bool> {
        let next = self
            .connection
            .query_row(sql::NEXT_RETIRING, [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .optional()?;
        let Some((sale_no, after)) = next else {
            return Ok(false);
        };
        self.begin.execute([])?;
        let (end, rows) = self.connection.query_row(
            sql::INDEX_STEP_END,
            params![after, INDEX_STEP_ROWS],
            |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, i64>(1)?)),
        )?;
        self.connection
            .execute(sql::INDEX_KEYS, params![sale_no, after, INDEX_STEP_ROWS])?;
        if let Some(end) = end {
            self.connection
                .execute(sql::INDEX_MOVED, params![sale_no, end])?;
        }
        if rows < INDEX_STEP_ROWS {
            self.connection.execute(sql::INDEX_DONE, [sale_no])?;
        }
        self.commit.execute([])?;
        Ok(true)
    }
}

/// SQLite's words and its extended code, which tells a failed write (778) from a failed flush (1034).
fn in_full(error: &rusqlite::Error) -> String {
    match error.sqlite_error() {
        Some(code) => format!("{error} (SQLite error {})", code.extended_code),
        None => error.to_string(),
    }
}
