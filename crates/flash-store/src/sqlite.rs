//! The embedded store: one SQLite database in a folder of its own, flushed at every batch, proved at every start.
//!
//! Owns the folder (lock, database, `acked`), the writing thread and the reading thread. In the serving process
//! nothing else may open the database or its log, not even to copy them: closing a file drops the locks that SQLite
//! holds on it.

mod apply;
mod backup;
mod events;
mod folder;
mod load;
mod proof;
mod read;
mod schema;
mod sql;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Sender, TrySendError, bounded};
use flash_types::{
    BuyerId, Durability, IdempotencyKey, PaymentRef, SaleNo, Serial, Timestamp, bounds,
};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{oneshot, watch};

use crate::{
    AdminNote, AttemptsRow, Batch, CommitError, Committed, DecisionRow, EventPlace, EventRange,
    EventRow, ItemRow, Loaded, NotApplied, OpenError, Opened, Page, ReadError, ReservationFilter,
    ReservationRow, Store,
};
use apply::Tip;
pub use backup::{BackupContent, BackupError, BackupStep, back_up};
use folder::{Acked, FolderLock, Paths};
use read::Reader;
use schema::{MIGRATIONS, Migration, Plan, open_error};
use writer::Job;

/// Batches that wait for the writer: one is in flight by contract, the rest is for what overlaps at the end.
const QUEUE_JOBS_MAX: usize = 4;
/// The latest batches that are looked at for the greatest time.
const LAST_AT_BATCHES: i64 = 1_000;

/// The embedded store.
#[derive(Debug)]
pub struct SqliteStore {
    paths: Paths,
    reader: Arc<Reader>,
    /// For reads that may go over much of what is stored: a look at one reservation must not wait for them.
    scanner: Arc<Reader>,
    // `None` once closed: the writer ends when the channel does.
    jobs: Mutex<Option<Sender<Job>>>,
    has_ended: watch::Receiver<bool>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens the store in `dir`: makes the folder (its parent must be there), takes its lock, migrates, holds the
    /// last batch against `acked`, and makes this start's epoch durable. Blocks.
    ///
    /// # Errors
    /// [`OpenError`], one line that names what is wrong and what helps; the content of the store is then as before.
    pub fn open(dir: &Path) -> Result<(Self, Opened), OpenError> {
        Self::open_as(dir, MIGRATIONS, schema::SCHEMA_VERSION)
    }

    fn open_as(
        dir: &Path,
        migrations: &[Migration],
        version: i64,
    ) -> Result<(Self, Opened), OpenError> {
        let paths = Paths::of(dir);
        let lock = FolderLock::take(&paths)?;
        let io = |error: std::io::Error| OpenError::Io {
            file: paths.acked.clone(),
            why: error.to_string(),
        };
        let acked = Acked::read(&paths).map_err(io)?;
        if acked > 0 && !paths.database.exists() {
            return Err(lost(&paths, acked, 0));
        }
        let plan = Plan {
            version,
            migrations,
            may_create: acked == 0,
        };
        let Some(connection) = schema::open_for_writing(&paths, plan)? else {
            return Err(lost(&paths, acked, 0));
        };
        let tip = last_batch(&connection).map_err(|error| open_error(&paths, error))?;
        if tip.batch < acked {
            return Err(lost(&paths, acked, tip.batch));
        }
        let opened = start_epoch(&connection, &paths, tip)?;
        let acked = Acked::start(&paths, tip.batch).map_err(|error| paths.folder_error(&error))?;
        let store = Self::start(paths, lock, connection, acked, tip)?;
        Ok((store, opened))
    }

    fn start(
        paths: Paths,
        lock: FolderLock,
        connection: Connection,
        acked: Acked,
        tip: Tip,
    ) -> Result<Self, OpenError> {
        let io = |error: std::io::Error| OpenError::Io {
            file: paths.database.clone(),
            why: format!("a thread cannot be started: {error}"),
        };
        let reader = schema::open_for_reading(&paths)?;
        let reader = Arc::new(Reader::start("store-reader", reader).map_err(io)?);
        let scanner = schema::open_for_reading(&paths)?;
        let scanner = Arc::new(Reader::start("store-scanner", scanner).map_err(io)?);
        let (sender, receiver) = bounded(QUEUE_JOBS_MAX);
        let (ended, has_ended) = watch::channel(false);
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn({
                let (paths, readers) = (paths.clone(), [reader.clone(), scanner.clone()]);
                move || {
                    writer::run(connection, &paths, &acked, tip, &receiver, || {
                        readers.iter().for_each(|reader| reader.stop());
                    });
                    drop(lock);
                    // Nobody may be waiting.
                    let _ = ended.send(true);
                }
            })
            .map_err(io)?;
        Ok(Self {
            paths,
            reader,
            scanner,
            jobs: Mutex::new(Some(sender)),
            has_ended,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Hands over all that is stored, and proves it: the chain of batches, rows against events, counters against
    /// both, SQLite's own check. Blocks; to be called once, before the first commit.
    ///
    /// All sales come first, then the reservations of all sales in the order of their serials, then the decisions.
    ///
    /// # Errors
    /// [`OpenError`] names what is damaged or missing; what was handed over until then is worth nothing.
    pub fn load(&self, into: &mut dyn Loaded) -> Result<(), OpenError> {
        let is_retiring = load::load(&self.paths, into)?;
        if is_retiring && let Some(jobs) = self.jobs.lock().as_ref() {
            // Where the queue is full, the next start will do it.
            let _ = jobs.try_send(Job::FinishRetiring);
        }
        Ok(())
    }

    fn send(&self, job: Job) -> Result<(), CommitError> {
        let refused = |why: &str| CommitError::NotApplied(NotApplied::Unavailable(why.into()));
        match self.jobs.lock().as_ref() {
            Some(jobs) => jobs.try_send(job).map_err(|error| match error {
                TrySendError::Full(_) => refused("too many batches wait"),
                TrySendError::Disconnected(_) => {
                    CommitError::Fatal("the writing thread is gone".into())
                }
            }),
            None => Err(refused("the store is closed")),
        }
    }
}

impl Drop for SqliteStore {
    /// Ends like [`Store::close`], waiting for the batch in flight.
    fn drop(&mut self) {
        drop(self.jobs.lock().take());
        let writer = self.writer.lock().take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

impl Store for SqliteStore {
    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        let (reply, verdict) = oneshot::channel();
        self.send(Job::Commit { batch, reply })?;
        let verdict = verdict.await.unwrap_or_else(|_| {
            Err(CommitError::Fatal(
                "the writing thread ended before it answered".into(),
            ))
        });
        verdict.map(|()| Committed::default())
    }

    fn durability(&self) -> Durability {
        Durability::SqliteFsync
    }

    async fn reservation(
        &self,
        sale_no: SaleNo,
        serial: Serial,
    ) -> Result<Option<ReservationRow>, ReadError> {
        self.reader
            .read(move |queries| queries.reservation(sale_no, serial))
            .await
    }

    async fn reservation_by_key(
        &self,
        sale_no: SaleNo,
        buyer: BuyerId,
        key: IdempotencyKey,
    ) -> Result<Option<ReservationRow>, ReadError> {
        self.reader
            .read(move |queries| queries.reservation_by_key(sale_no, buyer, key))
            .await
    }

    async fn payment_decision(
        &self,
        sale_no: SaleNo,
        payment_ref: PaymentRef,
    ) -> Result<Option<DecisionRow>, ReadError> {
        self.reader
            .read(move |queries| queries.payment_decision(sale_no, payment_ref))
            .await
    }

    async fn decisions_of(
        &self,
        sale_no: SaleNo,
        serial: Serial,
    ) -> Result<Vec<DecisionRow>, ReadError> {
        self.reader
            .read(move |queries| queries.decisions_of(sale_no, serial))
            .await
    }

    async fn reservations(
        &self,
        sale_no: SaleNo,
        filter: ReservationFilter,
        page: Page,
    ) -> Result<Vec<ReservationRow>, ReadError> {
        let reader = if filter.updated_after.is_some() {
            &self.scanner
        } else {
            &self.reader
        };
        reader
            .read(move |queries| queries.reservations(sale_no, filter, page))
            .await
    }

    async fn events(&self, range: EventRange, limit: usize) -> Result<Vec<EventRow>, ReadError> {
        self.scanner
            .read(move |queries| queries.events(range, limit))
            .await
    }

    async fn attempts(&self, sale_no: SaleNo) -> Result<Vec<AttemptsRow>, ReadError> {
        self.scanner
            .read(move |queries| queries.attempts(sale_no))
            .await
    }

    async fn last_places(&self) -> Result<Vec<(SaleNo, EventPlace)>, ReadError> {
        self.scanner.read(|queries| queries.last_places()).await
    }

    async fn items(&self, sale_no: SaleNo) -> Result<Vec<ItemRow>, ReadError> {
        self.reader
            .read(move |queries| queries.items(sale_no))
            .await
    }

    async fn admin_notes(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, AdminNote)>, ReadError> {
        self.reader
            .read(move |queries| queries.admin_notes(after, limit))
            .await
    }

    async fn close(&self) {
        drop(self.jobs.lock().take());
        let mut has_ended = self.has_ended.clone();
        // An error means that the thread is gone: closed as well.
        let _ = has_ended.wait_for(|ended| *ended).await;
    }
}

fn lost(paths: &Paths, acked: u64, last: u64) -> OpenError {
    OpenError::Lost {
        file: paths.database.clone(),
        acked: paths.acked.clone(),
        missing: OpenError::batches(last + 1, acked),
        last,
    }
}

fn last_batch(connection: &Connection) -> rusqlite::Result<Tip> {
    let tip = connection
        .query_row(sql::LAST_BATCH, [], |row| {
            Ok(Tip {
                batch: row.get::<_, i64>(0)?.cast_unsigned(),
                serial: row.get::<_, i64>(1)?.cast_unsigned(),
                chain: row.get::<_, i64>(2)?.cast_unsigned(),
            })
        })
        .optional()?;
    Ok(tip.unwrap_or_default())
}

/// Checks that starts are numbered without gaps and not behind the serials, and makes the next one durable.
fn start_epoch(connection: &Connection, paths: &Paths, tip: Tip) -> Result<Opened, OpenError> {
    let failed = |error| open_error(paths, error);
    let damaged = |what: String| OpenError::Damaged {
        file: paths.database.clone(),
        what,
    };
    let (starts, last): (i64, i64) = connection
        .query_row(
            "SELECT count(*), ifnull(max(epoch), 0) FROM start",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(failed)?;
    let last_epoch = last.cast_unsigned();
    if starts != last || tip.serial / bounds::SERIALS_PER_EPOCH > last_epoch {
        return Err(damaged(format!(
            "{starts} starts are listed, the last is number {last}, the last serial {}",
            tip.serial
        )));
    }
    let epoch = last_epoch + 1;
    if epoch >= bounds::EPOCH_MAX {
        return Err(damaged(format!(
            "it was started {epoch} times, the most there can be"
        )));
    }
    let last_at = connection
        .query_row(
            "SELECT ifnull(max(at_ms), 0) FROM (SELECT at_ms FROM batch ORDER BY number DESC LIMIT ?1)",
            [LAST_AT_BATCHES],
            |row| row.get(0),
        )
        .map_err(failed)?;
    connection
        .execute(
            "INSERT INTO start VALUES (?1, ?2)",
            params![epoch.cast_signed(), env!("CARGO_PKG_VERSION")],
        )
        .map_err(failed)?;
    Ok(Opened {
        epoch,
        last_batch: tip.batch,
        last_at: Timestamp(last_at),
    })
}
