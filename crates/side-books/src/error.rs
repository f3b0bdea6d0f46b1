//! What ends a command of a side service early: a no of its own, or a database that did not do it.

use std::time::Duration;

use flash_types::side::SideProblem;

use crate::sql::SqlError;

/// Why there is no yes.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    /// A refusal: a value on its way out, nothing is wrong.
    #[error("refused: {} ({})", .0.outcome, .0.detail)]
    Refused(Box<SideProblem>),
    /// The database.
    #[error(transparent)]
    Sql(#[from] SqlError),
}

impl From<SideProblem> for SideError {
    fn from(problem: SideProblem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

impl From<sqlx::Error> for SideError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error.into())
    }
}

impl SideError {
    /// Whether trying the whole command again at once may help.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Sql(error) if error.is_conflict())
    }

    /// As told to a client. Details of the database are for the log, not for the caller.
    pub fn into_problem(self) -> SideProblem {
        let wait = Duration::from_secs(1);
        let is_conflict = self.is_conflict();
        let mut problem = match self {
            Self::Refused(problem) => *problem,
            Self::Sql(SqlError::Conflict | SqlError::TimedOut | SqlError::Unavailable(_)) => {
                SideProblem::new(
                    503,
                    "store_unavailable",
                    "campaigns cannot be served now; nothing was changed, try again with the same key",
                )
                .retry_after(wait)
            }
            Self::Sql(SqlError::Unknown) => SideProblem::new(
                504,
                "unknown",
                "it may have been done or not: the same call with the same key finds out",
            )
            .retry_after(wait),
            Self::Sql(SqlError::Full) => SideProblem::new(
                503,
                "storage_full",
                "the database of the campaigns has no space left; nothing was changed",
            )
            .retry_after(wait),
            Self::Sql(error @ (SqlError::Violated(_) | SqlError::Broken(_))) => {
                tracing::error!(%error, "a command of the campaigns failed by somebody's mistake");
                SideProblem::new(500, "internal", "this should not have happened")
            }
        };
        problem.is_conflict = is_conflict;
        problem
    }
}
