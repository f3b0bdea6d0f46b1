//! What everything beside the purchase path stands on: one SQL layer for two databases ([`sql`]), double-entry books with
//! holds and budgets ([`books`], [`budget`]), and commands that are done once ([`command`]).
//!
//! Money and points are `i64`; facts are append-only; balances are caches that [`audit::rebuild`] makes again from nothing
//! and [`audit`] holds against the entries; [`model`] says the same without a database, and tests hold the two together.

pub mod audit;
pub mod books;
pub mod budget;
pub mod command;
mod error;
pub mod id;
pub mod model;
pub mod note;
mod queries;
pub mod seal;
pub mod sql;
pub mod step;
pub mod wire;

pub use error::SideError;

/// Tables of this crate.
pub const MIGRATIONS: &[sql::Migration] = &[sql::Migration {
    name: "books-1",
    sql: include_str!("../queries/books_1.sql"),
}];
