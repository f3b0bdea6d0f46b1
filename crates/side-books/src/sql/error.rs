//! What can go wrong with a database, by what the caller should do about it.

/// Why a statement, a transaction or a start failed.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// Another transaction was in the way; nothing was changed; try the whole transaction again.
    #[error("another transaction was in the way")]
    Conflict,
    /// It took too long; nothing was changed.
    #[error("the database did not answer in time")]
    TimedOut,
    /// It took too long, or the connection broke, after the commit was sent: changed or not. The same key finds out.
    #[error("the database did not say whether it committed")]
    Unknown,
    /// It cannot be reached, or takes nothing now; nothing was changed.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// No space left; nothing was changed.
    #[error("the database has no space left")]
    Full,
    /// A constraint that the statement should have asked for. Somebody's mistake; nothing was changed.
    #[error("a constraint of the database was violated: {0}")]
    Violated(String),
    /// Somebody's mistake, or damaged content; nothing was changed.
    #[error("the database and this program disagree: {0}")]
    Broken(String),
}

impl SqlError {
    /// Whether the same transaction may go through if it is tried again at once.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict)
    }
}

impl From<sqlx::Error> for SqlError {
    fn from(error: sqlx::Error) -> Self {
        let Some(told) = error.as_database_error() else {
            return match &error {
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::Protocol(_) => Self::Unavailable(error.to_string()),
                // Foreign and open: everything else is a mistake.
                _ => Self::Broken(error.to_string()),
            };
        };
        let code = told.code().unwrap_or_default();
        match &*code {
            // PostgreSQL: serialization failure, deadlock, lock not available. SQLite: busy, locked, with their extended codes.
            "40001" | "40P01" | "55P03" | "5" | "6" | "261" | "262" | "517" | "773" => {
                Self::Conflict
            }
            // Statement time-out, or cancelled by an operator.
            "57014" => Self::TimedOut,
            "53100" | "13" => Self::Full,
            // Shutting down, starting, too many connections, out of memory, read-only, wrong password.
            "57P01" | "57P02" | "57P03" | "53300" | "53200" | "25006" | "28P01" | "28000"
            | "3D000" | "8" | "14" => Self::Unavailable(told.message().to_owned()),
            // SQLite: input and output errors, with all their extended codes.
            io if io.parse::<u32>().is_ok_and(|code| code & 0xff == 10) => {
                Self::Unavailable(told.message().to_owned())
            }
            "23505" | "23514" | "23503" | "23502" | "1555" | "2067" | "275" | "787" | "1299" => {
                Self::Violated(told.message().to_owned())
            }
            _ => Self::Broken(told.to_string()),
        }
    }
}
