//! The file that remembers how far each webhook is: cursors, parked events, dead letters.
//!
//! A file of its own, so that relaying never waits for the store's writer nor it for relaying. A commit is not flushed
//! (`synchronous=NORMAL`): after a power cut the last of them may be missing, which repeats events and skips none, since
//! cursor and parked events go back together. One thread owns the connection; event loops never wait for the disk.
//!
//! Invariant: a write takes effect only while the start number in the file is that of this process; who opens the file
//! later takes the relays over.

use std::path::Path;

use flash_store::EventPlace;
use flash_types::{SaleNo, Serial, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::schedule::{Change, Parked};

const SCHEMA: &str = include_str!("../../queries/outbox.sql");
const SCHEMA_VERSION: i64 = 1;
/// Writes and reads that wait for the thread.
const JOBS_MAX: usize = 64;

const TAKE_OVER: &str = "INSERT INTO owner VALUES (1, 1) \
    ON CONFLICT (one) DO UPDATE SET start_number = start_number + 1 RETURNING start_number";
const SELECT_OWNER: &str = "SELECT start_number FROM owner";
const SET_CURSOR: &str = "INSERT INTO relay VALUES (?1, ?2, ?3, ?4) ON CONFLICT (webhook, sale_no) \
    DO UPDATE SET generation = excluded.generation, sequence = excluded.sequence";
const PARK: &str = "INSERT INTO parked (webhook, sale_no, generation, sequence, reservation, at_ms, attempts, \
    first_attempt_ms, next_attempt_ms, last_error, dead_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) \
    ON CONFLICT (webhook, sale_no, generation, sequence) DO UPDATE SET attempts = excluded.attempts, \
    first_attempt_ms = excluded.first_attempt_ms, next_attempt_ms = excluded.next_attempt_ms, \
    last_error = excluded.last_error, dead_ms = excluded.dead_ms";
const FORGET: &str =
    "DELETE FROM parked WHERE webhook = ?1 AND sale_no = ?2 AND generation = ?3 AND sequence = ?4";
const SELECT_CURSORS: &str = "SELECT sale_no, generation, sequence FROM relay WHERE webhook = ?1";
const SELECT_PARKED: &str = "SELECT sale_no, generation, sequence, reservation, at_ms, attempts, first_attempt_ms, \
    next_attempt_ms, last_error FROM parked WHERE webhook = ?1 AND dead_ms IS NULL ORDER BY number";
const COUNT_DEAD: &str = "SELECT count(*) FROM parked WHERE webhook = ?1 AND dead_ms IS NOT NULL";
/// Only those that a relay reads again are of interest: they lie beyond its cursor.
const SELECT_DEAD_AHEAD: &str = "SELECT parked.sale_no, parked.generation, parked.sequence FROM parked \
    LEFT JOIN relay USING (webhook, sale_no) WHERE webhook = ?1 AND dead_ms IS NOT NULL \
    AND (relay.sequence IS NULL OR (parked.generation, parked.sequence) > (relay.generation, relay.sequence))";
const IS_DEAD: &str = "SELECT dead_ms IS NOT NULL FROM parked \
    WHERE webhook = ?1 AND sale_no = ?2 AND generation = ?3 AND sequence = ?4";
const SELECT_DEAD: &str = "SELECT sale_no, generation, sequence, reservation, at_ms, attempts, first_attempt_ms, \
    next_attempt_ms, last_error, number, webhook, dead_ms FROM parked WHERE dead_ms IS NOT NULL AND number > ?1 \
    ORDER BY number LIMIT ?2";

/// Why the file does not serve.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Another process opened it later: the relays are its own now.
    #[error("another process owns the outbox now")]
    Fenced,
    /// It is something else, or of another version.
    #[error("is not an outbox of version {SCHEMA_VERSION}")]
    Foreign,
    /// SQLite's word.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    /// Its thread could not be started, or has ended.
    #[error("the thread of the outbox file is not there")]
    NoThread,
}

/// What a webhook goes on from.
#[derive(Debug, Default)]
pub struct Stored {
    pub cursors: Vec<(SaleNo, EventPlace)>,
    pub parked: Vec<Parked>,
    /// Dead letters beyond the cursor.
    pub dead_ahead: Vec<(SaleNo, EventPlace)>,
    pub dead_count: usize,
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Ascending; cursor of the list.
    pub number: u64,
    /// Whose target did not take it.
    pub webhook: String,
    /// The event and its attempts.
    pub parked: Parked,
    /// When it was given up.
    pub died: Timestamp,
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// The file, by its thread.
#[derive(Debug, Clone)]
pub struct OutboxFile {
    jobs: mpsc::Sender<Job>,
    start_number: i64,
}

impl OutboxFile {
    /// Opens or makes it, and takes the relays over from whoever had it open.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let is_empty = version == 0
            && transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| {
                row.get::<_, i64>(0)
            })? == 0;
        if is_empty {
            transaction.execute_batch(SCHEMA)?;
        } else if version != SCHEMA_VERSION {
            return Err(FileError::Foreign);
        }
        let start_number = transaction.query_row(TAKE_OVER, [], |row| row.get(0))?;
        transaction.commit()?;
        let (jobs, mut waiting) = mpsc::channel::<Job>(JOBS_MAX);
        let thread = std::thread::Builder::new().name("outbox-file".into());
        let serve = move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut connection);
            }
        };
        thread.spawn(serve).map_err(|_| FileError::NoThread)?;
        Ok(Self { jobs, start_number })
    }

    /// What is stored of a webhook.
    pub async fn load(&self, webhook: String) -> Result<Stored, FileError> {
        self.run(move |connection| {
            let mut cursors = connection.prepare(SELECT_CURSORS)?;
            let cursors =
                cursors.query_map([&webhook], |row| Ok((SaleNo(row.get(0)?), place(row, 1)?)))?;
            let mut parked = connection.prepare(SELECT_PARKED)?;
            let parked = parked.query_map([&webhook], parked_row)?;
            let mut ahead = connection.prepare(SELECT_DEAD_AHEAD)?;
            let ahead =
                ahead.query_map([&webhook], |row| Ok((SaleNo(row.get(0)?), place(row, 1)?)))?;
            let dead_count: i64 = connection.query_row(COUNT_DEAD, [&webhook], |row| row.get(0))?;
            Ok(Stored {
                cursors: cursors.collect::<Result<_, _>>()?,
                parked: parked.collect::<Result<_, _>>()?,
                dead_ahead: ahead.collect::<Result<_, _>>()?,
                dead_count: usize::try_from(dead_count).unwrap_or(0),
            })
        })
        .await
    }

    /// Makes changes durable, all or none.
    ///
    /// # Errors
    /// [`FileError::Fenced`]: nothing was written, nor ever will be.
    ///
    /// # Cancel safety
    /// Dropped, the changes may or may not be written.
    pub async fn write(&self, webhook: String, changes: Vec<Change>) -> Result<(), FileError> {
        let start_number = self.start_number;
        self.run(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let owner: i64 = transaction.query_row(SELECT_OWNER, [], |row| row.get(0))?;
            if owner != start_number {
                return Err(FileError::Fenced);
            }
            for change in &changes {
                write(&transaction, &webhook, change)?;
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// Whether this process still owns the relays.
    pub async fn check_owner(&self) -> Result<(), FileError> {
        let start_number = self.start_number;
        self.run(move |connection| {
            let owner: i64 = connection.query_row(SELECT_OWNER, [], |row| row.get(0))?;
            if owner == start_number {
                Ok(())
            } else {
                Err(FileError::Fenced)
            }
        })
        .await
    }

    /// Whether a webhook gave up on an event.
    pub async fn is_dead(
        &self,
        webhook: String,
        sale_no: SaleNo,
        place: EventPlace,
    ) -> Result<bool, FileError> {
        self.run(move |connection| {
            let (generation, sequence) = signed(place);
            let key = params![webhook, sale_no.0, generation, sequence];
            let is_dead = connection
                .query_row(IS_DEAD, key, |row| row.get(0))
                .optional()?;
            Ok(is_dead.unwrap_or(false))
        })
        .await
    }

    /// Dead letters of all webhooks, ascending by number.
    pub async fn dead_letters(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, FileError> {
        self.run(move |connection| {
            let mut letters = connection.prepare(SELECT_DEAD)?;
            let bounds = params![to_signed(after), i64::try_from(limit).unwrap_or(i64::MAX)];
            let letters = letters.query_map(bounds, |row| {
                Ok(DeadLetter {
                    parked: parked_row(row)?,
                    number: to_unsigned(row.get(9)?),
                    webhook: row.get(10)?,
                    died: Timestamp(row.get(11)?),
                })
            })?;
            Ok(letters.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, FileError> + Send + 'static,
    ) -> Result<T, FileError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Whoever asked may have gone.
            let _ = reply.send(work(connection));
        });
        self.jobs.send(job).await.map_err(|_| FileError::NoThread)?;
        answer.await.map_err(|_| FileError::NoThread)?
    }
}

fn write(connection: &Connection, webhook: &str, change: &Change) -> Result<(), FileError> {
    match change {
        Change::Cursor(sale_no, place) => {
            let (generation, sequence) = signed(*place);
            let mut statement = connection.prepare(SET_CURSOR)?;
            statement.execute(params![webhook, sale_no.0, generation, sequence])?;
        }
        Change::Park(parked) => park(connection, webhook, parked, None)?,
        Change::Die(parked, at) => park(connection, webhook, parked, Some(*at))?,
        Change::Forget(sale_no, place) => {
            let (generation, sequence) = signed(*place);
            let mut statement = connection.prepare(FORGET)?;
            statement.execute(params![webhook, sale_no.0, generation, sequence])?;
        }
    }
    Ok(())
}

fn park(
    connection: &Connection,
    webhook: &str,
    parked: &Parked,
    died: Option<Timestamp>,
) -> Result<(), FileError> {
    let (generation, sequence) = signed(parked.place);
    let mut statement = connection.prepare(PARK)?;
    statement.execute(params![
        webhook,
        parked.sale_no.0,
        generation,
        sequence,
        parked.reservation.map(|serial| to_signed(serial.0)),
        parked.at.0,
        parked.attempts,
        parked.first_attempt.map(|at| at.0),
        parked.next_attempt.0,
        parked.last_error,
        died.map(|at| at.0),
    ])?;
    Ok(())
}

fn parked_row(row: &Row<'_>) -> rusqlite::Result<Parked> {
    Ok(Parked {
        sale_no: SaleNo(row.get(0)?),
        place: place(row, 1)?,
        reservation: row
            .get::<_, Option<i64>>(3)?
            .map(|serial| Serial(to_unsigned(serial))),
        at: Timestamp(row.get(4)?),
        attempts: row.get(5)?,
        first_attempt: row.get::<_, Option<i64>>(6)?.map(Timestamp),
        next_attempt: Timestamp(row.get(7)?),
        last_error: row.get(8)?,
    })
}

/// Generation and sequence from two columns.
fn place(row: &Row<'_>, column: usize) -> rusqlite::Result<EventPlace> {
    Ok(EventPlace {
        generation: to_unsigned(row.get(column)?),
        sequence: to_unsigned(row.get(column + 1)?),
    })
}

fn signed(place: EventPlace) -> (i64, i64) {
    (to_signed(place.generation), to_signed(place.sequence))
}

/// Bit for bit: SQLite knows no unsigned numbers.
fn to_signed(value: u64) -> i64 {
    value.cast_signed()
}

fn to_unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(sequence: u64) -> Parked {
        Parked {
            sale_no: SaleNo(3),
            place: EventPlace {
                generation: 1,
                sequence,
            },
            reservation: sequence.is_multiple_of(2).then_some(Serial(u64::MAX)),
            at: Timestamp(5),
            attempts: 2,
            first_attempt: Some(Timestamp(6)),
            next_attempt: Timestamp(7),
            last_error: "answered 500".into(),
        }
    }

    #[tokio::test]
    async fn what_is_written_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox.db");
        let file = OutboxFile::open(&path).unwrap();
        let cursor = EventPlace {
            generation: 1,
            sequence: 9,
        };
        let changes = vec![
            Change::Park(parked(1)),
            Change::Park(parked(2)),
            Change::Park(parked(3)),
            Change::Cursor(SaleNo(3), cursor),
            Change::Die(parked(2), Timestamp(8)),
            Change::Forget(SaleNo(3), parked(3).place),
        ];
        file.write("a".into(), changes).await.unwrap();
        file.write("b".into(), vec![Change::Cursor(SaleNo(4), cursor)])
            .await
            .unwrap();
        drop(file);
        let file = OutboxFile::open(&path).unwrap();
        let stored = file.load("a".into()).await.unwrap();
        assert_eq!(stored.cursors, [(SaleNo(3), cursor)]);
        assert_eq!(stored.parked, [parked(1)]);
        assert_eq!((stored.dead_count, stored.dead_ahead.len()), (1, 0));
        let beyond = EventPlace {
            generation: 1,
            sequence: 12,
        };
        file.write("a".into(), vec![Change::Die(parked(12), Timestamp(9))])
            .await
            .unwrap();
        assert_eq!(
            file.load("a".into()).await.unwrap().dead_ahead,
            [(SaleNo(3), beyond)]
        );
        file.write("a".into(), vec![Change::Forget(SaleNo(3), beyond)])
            .await
            .unwrap();
        let dead = file.dead_letters(0, 10).await.unwrap();
        assert_eq!(
            (dead.len(), &dead[0].parked, dead[0].died),
            (1, &parked(2), Timestamp(8))
        );
        assert!(
            file.dead_letters(dead[0].number, 10)
                .await
                .unwrap()
                .is_empty()
        );
        assert!(
            file.is_dead("a".into(), SaleNo(3), parked(2).place)
                .await
                .unwrap()
        );
        assert!(
            !file
                .is_dead("b".into(), SaleNo(3), parked(2).place)
                .await
                .unwrap()
        );
    }

    #[tokio::test]
    async fn whoever_opens_it_later_takes_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox.db");
        let first = OutboxFile::open(&path).unwrap();
        let second = OutboxFile::open(&path).unwrap();
        let change = vec![Change::Cursor(SaleNo(1), EventPlace::default())];
        let refused = first.write("a".into(), change.clone()).await;
        assert!(matches!(refused, Err(FileError::Fenced)), "{refused:?}");
        assert!(matches!(first.check_owner().await, Err(FileError::Fenced)));
        second.write("a".into(), change).await.unwrap();
        assert_eq!(second.load("a".into()).await.unwrap().cursors.len(), 1);
    }

    #[tokio::test]
    async fn a_file_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("CREATE TABLE theirs (x)")
            .unwrap();
        assert!(matches!(OutboxFile::open(&path), Err(FileError::Foreign)));
    }
}
