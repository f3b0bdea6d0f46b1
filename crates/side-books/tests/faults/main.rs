//! Databases that are locked, full, stopped, killed or in a deadlock: every wait ends, nothing is half done, and it works
//! again afterwards without a restart.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod group;
mod migrations;
mod postgres;
mod sqlite;

use std::time::Duration;

use flash_types::Timestamp;
use side_books::budget;
use side_books::sql::{Database, Get as _, Reads, SqlError, SqlOptions, Tx, query};

const AT: Timestamp = Timestamp(1_000);
const OPTIONS: SqlOptions = SqlOptions {
    connections_max: 4,
    acquire_timeout: Duration::from_millis(500),
    transaction_timeout: Duration::from_secs(3),
};
/// Ten times the longest wait that is promised.
const BOUND: Duration = Duration::from_secs(35);

async fn opened(url: &str) -> Database {
    let url = url.parse().unwrap();
    Database::open(&url, OPTIONS, side_books::MIGRATIONS)
        .await
        .unwrap()
}

async fn fund(database: &Database, key: &str) -> Result<(), side_books::SideError> {
    let mut tx = database.begin().await?;
    budget::fund(&mut tx, "c1", "CNY", 100, key, AT).await?;
    Ok(tx.commit().await?)
}

async fn cap(database: &Database) -> Result<i64, SqlError> {
    let mut reads = database.read().await?;
    let budget = budget::read(&mut reads, "c1").await?;
    Ok(budget.unwrap_or_default().cap_minor)
}

/// The connection's number on the server.
async fn backend(reads: &mut impl Reads) -> i64 {
    let select = query("SELECT CAST(pg_backend_pid() AS BIGINT) AS pid");
    reads
        .row(select)
        .await
        .unwrap()
        .unwrap()
        .int("pid")
        .unwrap()
}

/// A statement that cannot work.
async fn fail(tx: &mut Tx) -> SqlError {
    let insert = query(
        "INSERT INTO account (id, owner, kind, currency, may_go_negative, balance) VALUES ('x', 'x', 'x', 'x', 0, -1)",
    );
    tx.execute(insert).await.unwrap_err()
}
