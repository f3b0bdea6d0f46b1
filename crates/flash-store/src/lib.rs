//! Durable before the answer: the store takes batches of changes, in order, and says of each batch whether it is durable.
//!
//! Owns: the schema, the order of batches, the proof that none is missing. Does not decide who may buy: the ledger does.
//! Invariant: what [`Store::commit`] answered with `Ok` is there after any crash, at the level that
//! [`Store::durability`] names.

mod any;
pub mod chain;
mod change;
pub mod fault;
mod memory;
mod open;
mod rows;
mod sqlite;

pub use any::AnyStore;
pub use change::{
    AdminNote, Batch, Change, Decision, DecisionKind, Delta, Deltas, Entry, ItemMove, ReserveLine,
};
pub use memory::{MemoryFault, MemoryStore};
pub use open::{OpenError, Opened};
pub use rows::{
    DecisionRow, ItemRow, Loaded, Page, ReservationFilter, ReservationRow, SaleRow, StoredLine,
};
pub use sqlite::SqliteStore;

use std::future::Future;

use flash_types::{BuyerId, Durability, IdempotencyKey, PaymentRef, SaleNo, Serial};

/// What became of a batch that is not durable.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Nothing of it was applied, and nothing will be: its units may go back.
    #[error("not applied: {0}")]
    NotApplied(NotApplied),
    /// Its fate is not known, and this process must not go on: a failed flush, a broken invariant.
    /// The caller keeps every unit of it taken, tells nobody yes or no, and stops the process.
    #[error("fate unknown, stopping: {0}")]
    Fatal(String),
}

/// Why a batch was refused whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApplied {
    /// No space left on the device.
    #[error("the disk is full: {0}")]
    StorageFull(String),
    /// Any other refusal that left nothing behind.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the store: {0}")]
pub struct ReadError(pub String);

/// One durable place for sales, reservations and events.
pub trait Store: Send + Sync + 'static {
    /// Makes a batch durable: all of it or nothing. One batch is in flight at a time; numbers ascend by one, and the
    /// number of a batch that was not applied is used again. An empty batch is taken: it asks whether the store works.
    ///
    /// # Errors
    /// [`CommitError`] says whether its units may go back.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the batch back: its fate is then unknown.
    fn commit(&self, batch: Batch) -> impl Future<Output = Result<(), CommitError>> + Send;

    /// The level at which a committed batch is durable.
    fn durability(&self) -> Durability;

    /// One reservation by its serial. For sales that left memory.
    fn reservation(
        &self,
        sale_no: SaleNo,
        serial: Serial,
    ) -> impl Future<Output = Result<Option<ReservationRow>, ReadError>> + Send;

    /// The reservation that a key won. Indexed for retired sales only.
    fn reservation_by_key(
        &self,
        sale_no: SaleNo,
        buyer: BuyerId,
        key: IdempotencyKey,
    ) -> impl Future<Output = Result<Option<ReservationRow>, ReadError>> + Send;

    /// The decision that was made for a payment of a sale. Indexed for every sale.
    fn payment_decision(
        &self,
        sale_no: SaleNo,
        payment_ref: PaymentRef,
    ) -> impl Future<Output = Result<Option<DecisionRow>, ReadError>> + Send;

    /// All decisions of one reservation. For sales that left memory.
    fn decisions_of(
        &self,
        sale_no: SaleNo,
        serial: Serial,
    ) -> impl Future<Output = Result<Vec<DecisionRow>, ReadError>> + Send;

    /// Reservations of a sale, ascending by serial.
    fn reservations(
        &self,
        sale_no: SaleNo,
        filter: ReservationFilter,
        page: Page,
    ) -> impl Future<Output = Result<Vec<ReservationRow>, ReadError>> + Send;

    /// The sale's counters at the last committed batch.
    fn items(
        &self,
        sale_no: SaleNo,
    ) -> impl Future<Output = Result<Vec<ItemRow>, ReadError>> + Send;

    /// Notes of the admin audit log, ascending, `after` not included: (number, note).
    fn admin_notes(
        &self,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u64, AdminNote)>, ReadError>> + Send;

    /// Stops taking batches, waits for the one in flight and closes. Later commits are `NotApplied`.
    fn close(&self) -> impl Future<Output = ()> + Send;
}
