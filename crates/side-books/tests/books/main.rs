//! Books, budgets, commands and their audit, on both databases.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod audit;
mod budget;
mod command;
mod crowd;
mod histories;

use flash_types::Timestamp;
use side_books::sql::{Database, SqlOptions};

const AT: Timestamp = Timestamp(1_000);

async fn opened(url: &str) -> Database {
    let url = url.parse().unwrap();
    Database::open(&url, SqlOptions::default(), side_books::MIGRATIONS)
        .await
        .unwrap()
}

/// Fails with what the audit finds.
async fn assert_balanced(database: &Database, of: &str) -> side_books::audit::Report {
    let report = side_books::audit::prove_all(database, &[]).await.unwrap();
    assert!(report.ok && report.findings.is_empty(), "{of}: {report:?}");
    report
}
