//! What follows the answer: the outbox relay, which tells webhooks what happened, and the audit, which proves the books
//! from the store alone;
//! and the report of a sale.
//!
//! The audit reads a data folder or a Redis, and never writes. It folds the events in code of its own, so that a mistake
//! in the engine's arithmetic cannot hide itself. Three accounts must agree for every item: its counters, the sums over
//! its reservations by state, and the fold of all events.

mod audit;
mod fold;
mod item;
mod keys;
pub mod outbox;
mod redis;
mod report;
pub mod sale_report;
mod walk;

pub use audit::{AuditError, audit};
pub use redis::audit_redis;
pub use report::{Code, Counts, Finding, ItemReport, Report, SaleReport};
