//! A transaction and a reader: statements with deadlines on a connection that is given up when anything is doubtful.

use std::time::Duration;

use sqlx::AnyConnection;
use sqlx::any::{Any, AnyArguments};
use sqlx::pool::PoolConnection;
use tokio::time::{Instant, timeout_at};

use super::{DatabaseKind, Row, SqlError};

/// A statement with its values.
pub type Query<'q> = sqlx::query::Query<'q, Any, AnyArguments>;

/// A statement to bind values to.
pub fn query<'q>(sql: &'static str) -> Query<'q> {
    sqlx::query(sql)
}

/// A connection that goes back to its pool only if nothing is open on it.
struct Held {
    connection: Option<PoolConnection<Any>>,
    is_clean: bool,
    deadline: Instant,
}

impl Held {
    async fn run<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut AnyConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, SqlError> {
        let connection = self.connection.as_mut().ok_or(SqlError::TimedOut)?;
        let was_clean = std::mem::replace(&mut self.is_clean, false);
        match timeout_at(self.deadline, statement(connection)).await {
            Ok(Ok(value)) => {
                self.is_clean = was_clean;
                Ok(value)
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                // The server may still be at it: nobody else may get this connection.
                self.give_up();
                Err(SqlError::TimedOut)
            }
        }
    }

    fn give_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_clean {
            self.give_up();
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

/// Reads outside of a transaction: each statement sees what was committed before it.
pub struct Reader(Held);

impl Reader {
    pub(super) fn new(connection: PoolConnection<Any>, deadline: Instant) -> Self {
        Self(Held {
            connection: Some(connection),
            is_clean: true,
            deadline,
        })
    }
}

/// A transaction. Dropped without [`Tx::commit`] it is rolled back.
pub struct Tx {
    held: Held,
    kind: DatabaseKind,
}

impl Tx {
    pub(super) async fn begin(
        connection: PoolConnection<Any>,
        kind: DatabaseKind,
        deadline: Instant,
    ) -> Result<Self, SqlError> {
        let mut held = Held {
            connection: Some(connection),
            is_clean: false,
            deadline,
        };
        // SQLite: the right to write is taken at once, so that no transaction finds out half way that it may not.
        let begin = match kind {
            DatabaseKind::Sqlite => "BEGIN IMMEDIATE",
            DatabaseKind::Postgres => "BEGIN",
        };
        held.run(async |connection| sqlx::query(begin).execute(connection).await)
            .await?;
        Ok(Self { held, kind })
    }

    /// Which database it is on: for the few places where they differ in how, never in what.
    pub fn kind(&self) -> DatabaseKind {
        self.kind
    }

    /// Runs a statement that changes something; gives the number of rows that it touched.
    ///
    /// # Errors
    /// [`SqlError`]; the transaction is then good for nothing but being dropped.
    ///
    /// # Cancel safety
    /// The transaction is rolled back.
    pub async fn execute(&mut self, query: Query<'_>) -> Result<u64, SqlError> {
        self.held
            .run(async |connection| Ok(query.execute(connection).await?.rows_affected()))
            .await
    }

    /// Commits. Durable when it returns `Ok`.
    ///
    /// # Errors
    /// [`SqlError::Unknown`] if the answer did not come; other errors mean that nothing was changed.
    ///
    /// # Cancel safety
    /// Committed or not; the same key finds out.
    pub async fn commit(mut self) -> Result<(), SqlError> {
        let committed = self
            .held
            .run(async |connection| sqlx::query("COMMIT").execute(connection).await)
            .await;
        match committed {
            Ok(_) => {
                self.held.is_clean = true;
                Ok(())
            }
            Err(SqlError::TimedOut | SqlError::Unavailable(_)) => Err(SqlError::Unknown),
            Err(error) => Err(error),
        }
    }

    /// Rolls back and gives the connection back to the pool, which dropping does not.
    ///
    /// # Cancel safety
    /// Rolled back in any case.
    pub async fn rollback(mut self) {
        // A connection with a time-out of its own for this one statement: the deadline may have passed.
        self.held.deadline = self
            .held
            .deadline
            .max(Instant::now() + Duration::from_millis(100));
        let rolled_back = self
            .held
            .run(async |connection| sqlx::query("ROLLBACK").execute(connection).await)
            .await;
        // If it failed, the connection is given up, and the server rolls back by itself.
        self.held.is_clean = rolled_back.is_ok();
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
        self.held
            .run(async |connection| query.fetch_optional(connection).await)
            .await
    }

    async fn rows(&mut self, query: Query<'_>) -> Result<Vec<Row>, SqlError> {
        self.held
            .run(async |connection| query.fetch_all(connection).await)
            .await
    }
}
