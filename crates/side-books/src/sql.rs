//! The one SQL layer: a database that is a SQLite file or a PostgreSQL server, spoken to with the same statements.
//!
//! What both understand, and therefore all that is used:
//! - columns are `BIGINT` or `TEXT` (times in ms, money in minor units, yes and no as 1 and 0, bytes as hex or base64);
//!   a key that counts by itself is written `SERIAL_KEY`, see [`Migration`];
//! - placeholders `$1`, `$2` …; sums and counts as `CAST(SUM(x) AS BIGINT)`; `ON CONFLICT … DO NOTHING` or `DO UPDATE`;
//!   `RETURNING`; no `FOR UPDATE`, no functions of one of the two.
//! - A statement that fails spoils a transaction on PostgreSQL. What may be there already is inserted with `ON CONFLICT DO
//!   NOTHING` and the count of rows is looked at; what may not fit is guarded by a condition in the `WHERE` of an update.
//!
//! Every wait has an end: for a connection, for a statement, for a whole transaction ([`SqlOptions`]). A transaction that
//! passes its deadline takes its connection with it, so one that is stuck at a stopped server never comes back to the pool.
//! A connection that was idle when another one broke, or for long, is asked whether it lives before it is used.

mod doubt;
mod error;
mod group;
mod migrate;
mod open;
mod row;
mod transaction;

pub use error::SqlError;
pub use migrate::Migration;
pub use open::{Database, DatabaseKind, DatabaseUrl, SqlOptions};
pub use row::{Get, Row};
pub use transaction::{Query, Reader, Reads, Tx, query};
