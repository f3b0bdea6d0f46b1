//! Proof that the books balance: a fold over all rows, read in pages from one state of the database, so that it runs beside a
//! store at work; and [`Auditor`], which looks at what has changed since it last looked.
//!
//! Does not repair: [`rebuild`] makes the caches again, and only where a person asks for it. What is found wrong here freezes a
//! campaign and is told; it never ends the process, since the purchase path does not stand on these tables.

mod live;
mod proof;
mod queries;

use flash_types::side::BoxFuture;

pub use live::Auditor;
pub use proof::prove;

use crate::sql::{Database, DatabaseKind, Reader, SqlError, Tx, query};

/// Most findings that are kept; a database with more is not read more closely by listing them.
pub const FINDINGS_MAX: usize = 1_000;

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What rule is broken: a word, see [`prove`].
    pub code: &'static str,
    /// Which account, transfer, promise …
    pub subject: String,
    /// What is there and what should be.
    pub detail: String,
}

/// What a proof has seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Nothing was found.
    pub ok: bool,
    /// How many.
    pub accounts: u64,
    /// How many.
    pub transfers: u64,
    /// How many.
    pub entries: u64,
    /// How many.
    pub holds: u64,
    /// At most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
}

impl Report {
    fn find(&mut self, code: &'static str, subject: impl Into<String>, detail: impl Into<String>) {
        self.add(Finding {
            code,
            subject: subject.into(),
            detail: detail.into(),
        });
    }

    fn add(&mut self, finding: Finding) {
        self.ok = false;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// A further proof, by whoever owns further tables.
pub trait Prove: Send + Sync {
    /// For reports: a short word.
    fn name(&self) -> &'static str;

    /// Reads what it needs, in pages, and tells what is wrong.
    ///
    /// # Errors
    /// The database's.
    ///
    /// # Cancel safety
    /// A read.
    fn prove<'a>(&'a self, reads: &'a mut Reader) -> BoxFuture<'a, Result<Vec<Finding>, SqlError>>;
}

/// Proves the books and everything that others add, all on one state of the database.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn prove_all(database: &Database, others: &[&dyn Prove]) -> Result<Report, SqlError> {
    let mut reads = database.snapshot().await?;
    let mut report = prove(&mut reads).await?;
    for other in others {
        for finding in other.prove(&mut reads).await? {
            report.add(finding);
        }
    }
    Ok(report)
}

/// Makes all balances again from the entries; gives how many were wrong. Nothing else may move money meanwhile: on PostgreSQL
/// it waits for those who do and keeps others waiting, on SQLite there is only one writer anyway.
///
/// # Errors
/// The database's; [`SqlError::Violated`] where the entries themselves bring a guarded account below zero.
pub async fn rebuild(tx: &mut Tx) -> Result<u64, SqlError> {
    if tx.kind() == DatabaseKind::Postgres {
        tx.execute(query("LOCK TABLE account IN EXCLUSIVE MODE"))
            .await?;
    }
    tx.execute(query(queries::REBUILD)).await
}
