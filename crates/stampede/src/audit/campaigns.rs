//! The campaigns' books, from their database alone, which is only read and may be in use.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use side_books::audit::{Finding, Prove, Report, prove_all};
use side_books::sql::{Database, DatabaseUrl, SqlError, SqlOptions};

use crate::Failure;
use crate::campaigns::parts;

/// Name of their database in the data folder.
pub(crate) const FILE: &str = "campaigns.db";
/// A server gets a little more time than a buyer would give it.
const OPTIONS: SqlOptions = SqlOptions {
    connections_max: 2,
    acquire_timeout: Duration::from_secs(5),
    transaction_timeout: Duration::from_secs(30),
};

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Campaigns {
    /// Which database, without its password.
    database: String,
    #[serde(flatten)]
    pub(super) report: Report,
}

/// Which database is meant: the one that is named, else that of the folder, where there is one.
pub(super) fn place(
    named: Option<&str>,
    data: Option<&Path>,
) -> Result<Option<DatabaseUrl>, String> {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        // Not shown: it may hold a password.
        let url = named.parse().map_err(|bad| format!("--database {bad}"))?;
        return Ok(Some(url));
    }
    let file = data.map(|data| data.join(FILE));
    Ok(file.filter(|file| file.exists()).map(DatabaseUrl::Sqlite))
}

/// Proves them. Damage is in the report.
///
/// # Errors
/// [`Failure::CannotStart`] where there is nothing to prove.
pub(super) fn audit(url: &DatabaseUrl) -> Result<Campaigns, Failure> {
    Ok(Campaigns {
        database: url.to_string(),
        report: proved(url)?,
    })
}

/// The same of any database of campaigns.
///
/// # Errors
/// As [`audit`].
pub(crate) fn proved(url: &DatabaseUrl) -> Result<Report, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)?;
    runtime.block_on(async {
        let migrations = parts::migrations();
        let opened = Database::open_to_read(url, OPTIONS, &migrations).await;
        let database = opened.map_err(|error| Failure::CannotStart(refusal(url, &error)))?;
        let proofs = parts::proofs();
        let proofs: Vec<&dyn Prove> = proofs.iter().map(AsRef::as_ref).collect();
        let proved = prove_all(&database, &proofs).await;
        database.close().await;
        match proved {
            Ok(report) => Ok(report),
            Err(SqlError::Broken(why)) => Ok(damaged(why)),
            Err(error) => Err(Failure::CannotStart(refusal(url, &error))),
        }
    })
}

fn damaged(why: String) -> Report {
    Report {
        findings: vec![Finding {
            code: "damaged",
            subject: "database".into(),
            detail: why,
        }],
        ..Report::default()
    }
}

fn refusal(url: &DatabaseUrl, error: &SqlError) -> String {
    let fix = match error {
        SqlError::Unavailable(_) | SqlError::TimedOut | SqlError::Conflict => {
            "; is it the one that `serve` has, and does it answer?"
        }
        SqlError::Broken(_) | SqlError::Violated(_) | SqlError::Full | SqlError::Unknown => "",
    };
    format!("cannot audit the campaigns in {url}: {error}{fix}")
}

impl std::fmt::Display for Campaigns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let report = &self.report;
        writeln!(
            f,
            "campaigns in {}: {} accounts, {} transfers, {} entries, {} promises",
            self.database, report.accounts, report.transfers, report.entries, report.holds
        )?;
        for finding in &report.findings {
            let Finding {
                code,
                subject,
                detail,
            } = finding;
            writeln!(f, "WRONG {code} {subject}: {detail}")?;
        }
        f.write_str(if report.ok {
            "ok: the campaigns' books balance"
        } else {
            "NOT OK: the campaigns' books do not balance"
        })
    }
}
