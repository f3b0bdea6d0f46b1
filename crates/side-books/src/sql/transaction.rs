//! A transaction and a reader: statements with deadlines on a connection that is given up when anything is doubtful.

use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{Any, AnyArguments};
use sqlx::pool::PoolConnection;
use sqlx::{AnyConnection, AssertSqlSafe};
use tokio::time::{Instant, timeout, timeout_at};

use super::doubt::Doubt;
use super::error::spares_connection;
use super::group::{Turn, Writer};
use super::{DatabaseKind, Row, SqlError};

/// After it a connection is closed, which rolls back as well.
pub(super) const ROLLBACK_LONGEST: Duration = Duration::from_secs(1);

/// A statement with its values.
pub type Query<'q> = sqlx::query::Query<'q, Any, AnyArguments>;

/// A statement to bind values to.
pub fn query<'q>(sql: &'static str) -> Query<'q> {
    sqlx::query(sql)
}

/// What is known of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    /// Nothing is open on it.
    Clean,
    /// A transaction is open, no statement is on its way.
    Open,
    /// A statement is on its way, or did not come back: nobody else may get it.
    Doubtful,
}

/// Until when.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bound {
    /// The whole of it.
    Until(Instant),
    /// Each statement by itself: for work in pages that takes as long as there is content.
    Each(Duration),
}

/// A connection that goes back to its pool only if nothing is open on it.
// Clean -> Doubtful (a statement begins) -> Clean | Open; Doubtful at the end: given up.
pub(super) struct Held {
    connection: Option<PoolConnection<Any>>,
    pub(super) ground: Ground,
    pub(super) bound: Bound,
    doubt: Arc<Doubt>,
}

impl Held {
    pub(super) fn new(connection: PoolConnection<Any>, bound: Bound, doubt: Arc<Doubt>) -> Self {
        Self {
            connection: Some(connection),
            ground: Ground::Clean,
            bound,
            doubt,
        }
    }

    /// A statement without values.
    pub(super) async fn say(&mut self, sql: &'static str) -> Result<(), SqlError> {
        self.run(async |connection| sqlx::query(sql).execute(connection).await)
            .await
            .map(drop)
    }

    /// It was given up.
    pub(super) fn is_gone(&self) -> bool {
        self.connection.is_none()
    }

    async fn run<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, SqlError> {
        let connection = self.connection.as_mut().ok_or(SqlError::TimedOut)?;
        let deadline = match self.bound {
            Bound::Until(deadline) => deadline,
            Bound::Each(longest) => Instant::now() + longest,
        };
        let was = std::mem::replace(&mut self.ground, Ground::Doubtful);
        match timeout_at(deadline, statement(connection)).await {
            Ok(Ok(value)) => {
                self.ground = was;
                Ok(value)
            }
            Ok(Err(error)) => {
                if spares_connection(&error) {
                    self.ground = was;
                } else {
                    self.give_up();
                }
                Err(error.into())
            }
            Err(_) => {
                // The server may still be at it: nobody else may get this connection.
                self.give_up();
                Err(SqlError::TimedOut)
            }
        }
    }

    pub(super) fn give_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.doubt.raise();
            drop(connection.detach());
        }
    }

    /// Rolls back in a task of its own, so that a refusal by `?` does not cost a connection. There are never more such tasks
    /// than connections.
    fn roll_back_later(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        runtime.spawn(async move {
            let rollback = sqlx::query("ROLLBACK").execute(&mut *connection);
            if !matches!(timeout(ROLLBACK_LONGEST, rollback).await, Ok(Ok(_))) {
                drop(connection.detach());
            }
        });
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self.ground {
            Ground::Clean => {}
            Ground::Open => {
                self.roll_back_later();
                self.give_up();
            }
            Ground::Doubtful => self.give_up(),
        }
    }
}

/// What reads: a [`Reader`] or a [`Tx`].
pub trait Reads: Send {
    /// At most one row.
    ///
    /// # Errors
    /// [`SqlError`].
    ///
    /// # Cancel safety
    /// A read.
    fn row(
        &mut self,
        query: Query<'_>,
    ) -> impl Future<Output = Result<Option<Row>, SqlError>> + Send;

    /// All rows; the statement bounds them with `LIMIT`.
    ///
    /// # Errors
    /// [`SqlError`].
    ///
    /// # Cancel safety
    /// A read.
    fn rows(&mut self, query: Query<'_>)
    -> impl Future<Output = Result<Vec<Row>, SqlError>> + Send;
}

/// Reads outside of a transaction, where each statement sees what was committed before it; or, by
/// [`Database::snapshot`](super::Database::snapshot), all of them what was committed before the first.
pub struct Reader(Held);

impl Reader {
    pub(super) fn new(
        connection: PoolConnection<Any>,
        doubt: Arc<Doubt>,
        deadline: Instant,
    ) -> Self {
        Self(Held {
            connection: Some(connection),
            ground: Ground::Clean,
            bound: Bound::Until(deadline),
            doubt,
        })
    }

    pub(super) async fn snapshot(
        connection: PoolConnection<Any>,
        doubt: Arc<Doubt>,
        kind: DatabaseKind,
        longest: Duration,
    ) -> Result<Self, SqlError> {
        let mut held = Held {
            connection: Some(connection),
            ground: Ground::Open,
            bound: Bound::Each(longest),
            doubt,
        };
        // SQLite: a transaction that only reads sees one state of the file, and nobody waits for it.
        let begin = match kind {
            DatabaseKind::Sqlite => "BEGIN DEFERRED",
            DatabaseKind::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        held.run(async |connection| sqlx::query(begin).execute(connection).await)
            .await?;
        if kind == DatabaseKind::Postgres {
            // Instead of the session's, which is for short transactions.
            let set = format!("SET LOCAL statement_timeout = {}", longest.as_millis());
            held.run(async |connection| {
                sqlx::raw_sql(AssertSqlSafe(set)).execute(connection).await
            })
            .await?;
        }
        Ok(Self(held))
    }
}

/// A transaction. Dropped without [`Tx::commit`] it is rolled back.
pub struct Tx {
    place: Place,
    /// A statement failed. PostgreSQL answers such a commit with a roll-back, and calls it success.
    is_spoiled: bool,
}

/// Where a transaction runs.
enum Place {
    /// PostgreSQL: a connection of its own.
    Own(Held),
    /// SQLite: the turn to write, perhaps after others whose commit it shares.
    Turn(Turn, Writer),
}

impl Tx {
    /// On a connection of its own.
    pub(super) async fn begin(
        connection: PoolConnection<Any>,
        doubt: Arc<Doubt>,
        deadline: Instant,
    ) -> Result<Self, SqlError> {
        let mut held = Held::new(connection, Bound::Until(deadline), doubt);
        held.say("BEGIN").await?;
        held.ground = Ground::Open;
        Ok(Self {
            place: Place::Own(held),
            is_spoiled: false,
        })
    }

    /// In the line of those who write.
    pub(super) async fn begin_in_turn(
        writer: &Writer,
        patience: Instant,
        deadline: Instant,
    ) -> Result<Self, SqlError> {
        let turn = writer.begin(patience, deadline).await?;
        Ok(Self {
            place: Place::Turn(turn, writer.clone()),
            is_spoiled: false,
        })
    }

    async fn run<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, SqlError> {
        let done = match &mut self.place {
            Place::Own(held) => held.run(statement).await,
            Place::Turn(turn, _) => {
                let done = turn.held()?.run(statement).await;
                if done.is_err() {
                    turn.look();
                }
                done
            }
        };
        self.is_spoiled |= done.is_err();
        done
    }

    /// Which database it is on: for the few places where they differ in how, never in what.
    pub fn kind(&self) -> DatabaseKind {
        match self.place {
            Place::Own(_) => DatabaseKind::Postgres,
            Place::Turn(..) => DatabaseKind::Sqlite,
        }
    }

    /// Runs a statement that changes something; gives the number of rows that it touched.
    ///
    /// # Errors
    /// [`SqlError`]; the transaction is then good for nothing but being rolled back or dropped.
    ///
    /// # Cancel safety
    /// The transaction is rolled back.
    pub async fn execute(&mut self, query: Query<'_>) -> Result<u64, SqlError> {
        self.run(async |connection| Ok(query.execute(connection).await?.rows_affected()))
            .await
    }

    /// Commits. Durable when it returns `Ok`.
    ///
    /// # Errors
    /// [`SqlError::Unknown`] if the answer did not come; [`SqlError::Broken`] if a statement had failed and nobody cared; other
    /// errors mean that nothing was changed.
    ///
    /// # Cancel safety
    /// Committed or not; the same key finds out.
    pub async fn commit(self) -> Result<(), SqlError> {
        if self.is_spoiled {
            self.rollback().await;
            let why = "a statement failed and the transaction was to be committed all the same";
            return Err(SqlError::Broken(why.to_owned()));
        }
        match self.place {
            Place::Turn(turn, writer) => turn.commit(&writer).await,
            Place::Own(mut held) => match held.say("COMMIT").await {
                Ok(()) => {
                    held.ground = Ground::Clean;
                    Ok(())
                }
                Err(SqlError::TimedOut | SqlError::Unavailable(_)) => Err(SqlError::Unknown),
                Err(error) => Err(error),
            },
        }
    }

    /// Commits what went well, rolls back what did not: a refusal leaves nothing.
    ///
    /// # Errors
    /// What is given; of [`Tx::commit`].
    ///
    /// # Cancel safety
    /// That of [`Tx::commit`].
    pub async fn end<T, E: From<SqlError>>(self, done: Result<T, E>) -> Result<T, E> {
        match done {
            Ok(done) => {
                self.commit().await?;
                Ok(done)
            }
            Err(error) => {
                self.rollback().await;
                Err(error)
            }
        }
    }

    /// Rolls back, and has done so when it returns, which dropping has not.
    ///
    /// # Cancel safety
    /// Rolled back in any case.
    pub async fn rollback(self) {
        match self.place {
            Place::Turn(turn, _) => turn.rollback().await,
            Place::Own(mut held) => {
                // A time-out of its own for this one statement: the deadline may have passed.
                held.bound = Bound::Each(ROLLBACK_LONGEST);
                // If it failed, the connection is given up, and the server rolls back by itself.
                held.ground = match held.say("ROLLBACK").await {
                    Ok(()) => Ground::Clean,
                    Err(_) => Ground::Doubtful,
                };
            }
        }
    }
}

impl Reads for Reader {
    async fn row(&mut self, query: Query<'_>) -> Result<Option<Row>, SqlError> {
        self.0
            .run(async |connection| query.fetch_optional(connection).await)
            .await
    }

    async fn rows(&mut self, query: Query<'_>) -> Result<Vec<Row>, SqlError> {
        self.0
            .run(async |connection| query.fetch_all(connection).await)
            .await
    }
}

impl Reads for Tx {
    async fn row(&mut self, query: Query<'_>) -> Result<Option<Row>, SqlError> {
        self.run(async |connection| query.fetch_optional(connection).await)
            .await
    }

    async fn rows(&mut self, query: Query<'_>) -> Result<Vec<Row>, SqlError> {
        self.run(async |connection| query.fetch_all(connection).await)
            .await
    }
}
