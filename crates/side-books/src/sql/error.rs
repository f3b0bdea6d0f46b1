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
            let is_away = matches!(
                error,
                sqlx::Error::Io(_)
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::PoolClosed
                    | sqlx::Error::WorkerCrashed
                    | sqlx::Error::Protocol(_)
            );
            let why = error.to_string();
            return if is_away {
                Self::Unavailable(why)
            } else {
                Self::Broken(why)
            };
        };
        let message = || told.message().to_owned();
        match told.code().as_deref() {
            // The codes of PostgreSQL have five characters, those of SQLite are small numbers.
            Some(state) if state.len() == 5 => postgres(state, message()),
            Some(code) => sqlite(code.parse().unwrap_or(0), message()),
            None => Self::Broken(told.to_string()),
        }
    }
}

/// Whether the connection is as good as before the statement that failed.
pub(super) fn spares_connection(error: &sqlx::Error) -> bool {
    let Some(code) = error.as_database_error().and_then(|told| told.code()) else {
        return false;
    };
    // The session is ended with these: by an operator, a stop of the server, a time-out of the whole transaction.
    let ends = ["57P", "08", "25P03", "25P04", "58", "XX"];
    code.len() != 5 || !ends.iter().any(|prefix| code.starts_with(prefix))
}

/// By SQLSTATE.
fn postgres(state: &str, message: String) -> SqlError {
    match state {
        // Fate of a statement unknown: it was cut off from another node.
        "40003" => SqlError::Unknown,
        // Lock not available in time; all of class 40: serialization failure, deadlock.
        "55P03" => SqlError::Conflict,
        conflict if conflict.starts_with("40") => SqlError::Conflict,
        // Statement cancelled by its time-out or an operator; the transaction's own time-outs.
        "57014" | "25P03" | "25P04" => SqlError::TimedOut,
        "53100" => SqlError::Full,
        // Integrity.
        violated if violated.starts_with("23") => SqlError::Violated(message),
        // Connection, resources, stop and start, input and output, wrong password, read-only, no such database.
        away if ["08", "53", "57", "58", "28"]
            .iter()
            .any(|class| away.starts_with(class)) =>
        {
            SqlError::Unavailable(message)
        }
        "25006" | "3D000" | "55000" => SqlError::Unavailable(message),
        _ => SqlError::Broken(format!("{message} ({state})")),
    }
}

/// By result code; the low byte of an extended one is what it extends.
fn sqlite(code: u32, message: String) -> SqlError {
    match code & 0xff {
        // BUSY, LOCKED, and PROTOCOL: a race for the locks of the write-ahead log.
        5 | 6 | 15 => SqlError::Conflict,
        // INTERRUPT.
        9 => SqlError::TimedOut,
        13 => SqlError::Full,
        // NOMEM, READONLY, IOERR, CANTOPEN.
        7 | 8 | 10 | 14 => SqlError::Unavailable(message),
        // CONSTRAINT.
        19 => SqlError::Violated(message),
        _ => SqlError::Broken(format!("{message} ({code})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_the_caller_should_do() {
        let told = |state| postgres(state, String::new());
        for state in ["40001", "40P01", "55P03"] {
            assert!(told(state).is_conflict(), "{state}");
        }
        assert!(matches!(told("40003"), SqlError::Unknown));
        assert!(matches!(told("57014"), SqlError::TimedOut));
        assert!(matches!(told("53100"), SqlError::Full));
        for state in ["57P01", "57P03", "53300", "08006", "58030", "25006"] {
            assert!(matches!(told(state), SqlError::Unavailable(_)), "{state}");
        }
        assert!(matches!(told("23505"), SqlError::Violated(_)));
        // A number whose low byte is SQLite's for input and output.
        assert!(matches!(told("42506"), SqlError::Broken(_)));
        let told = |code| sqlite(code, String::new());
        for code in [5, 261, 517, 773, 6, 262, 518, 15] {
            assert!(told(code).is_conflict(), "{code}");
        }
        assert!(matches!(told(13), SqlError::Full));
        for code in [10, 778, 1034, 4874, 8, 1032, 14] {
            assert!(matches!(told(code), SqlError::Unavailable(_)), "{code}");
        }
        for code in [19, 275, 787, 1299, 1555, 2067] {
            assert!(matches!(told(code), SqlError::Violated(_)), "{code}");
        }
        assert!(matches!(told(11), SqlError::Broken(_)));
    }
}
