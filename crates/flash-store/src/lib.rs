//! Durable before the answer: the store takes batches of changes, in order, and says of each batch whether it is durable.
//!
//! Owns: the schema, the order of batches, the proof that none is missing. Does not decide who may buy: the ledger does
//! (a store that several nodes share holds what a node decided against what is stored, and may refuse single changes).
//! Invariant: what [`Store::commit`] answered with `Ok` is there after any crash, at the level that
//! [`Store::durability`] names.

mod any;
pub mod chain;
mod change;
pub mod fault;
mod memory;
mod open;
mod redis;
mod rows;
mod sqlite;
mod words;

pub use any::AnyStore;
pub use change::{
    AdminNote, AttemptCount, Batch, Change, Decision, DecisionKind, Delta, Deltas, Entry, ItemMove,
    ReserveLine, WaveRef,
};
pub use memory::{MemoryFault, MemorySnapshot, MemoryStore};
pub use open::{OpenError, Opened};
pub use redis::{RedisConfig, RedisStore, RedisUrl, StoreTime};
pub use rows::{
    AttemptsRow, DecisionRow, EventPlace, EventRange, EventRow, ItemRow, Loaded, Page,
    ReservationFilter, ReservationRow, SaleContent, SaleRow, StoredLine,
};
pub use sqlite::{BackupContent, BackupError, BackupStep, SqliteStore, back_up};

use std::future::Future;

use flash_types::{
    BuyerId, Durability, IdempotencyKey, PaymentRef, SaleNo, SaleState, Serial, Timestamp,
};

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
    /// The sale of this batch must not go on: acknowledged writes are gone, or the store broke over it. Other sales do.
    #[error("the sale is frozen: {reason}")]
    Frozen {
        /// What was found.
        reason: String,
        /// Nothing of this batch was applied; else its fate is not known.
        is_known: bool,
    },
}

/// A durable batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// When its changes count as made, where the store's clock decides; else the batch's own time counts.
    pub at: Option<Timestamp>,
    /// Changes that the store did not take: (place in the batch, why), ascending. Nothing of them was applied.
    pub refused: Vec<(usize, EntryRefusal)>,
    /// The store was away meanwhile, and came back with everything: open reservations deserve their grace.
    pub has_moved: bool,
}

/// Why a store did not take one change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryRefusal {
    /// The buyer's key won before: this reservation.
    KeyKnown(Serial),
    /// The buyer has as many units as one may.
    Limit,
    /// Fewer units than asked for: so many.
    SoldOut(u32),
    /// The sale is in this state.
    State(SaleState),
    /// Its time has not come by the store's clock.
    Early,
    /// What it was decided from is not what is stored: the word says what.
    Stale(String),
}

/// How batches queue for a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lanes {
    /// One line of batches for all sales.
    One,
    /// One for each sale, and one (number 0) for what concerns no sale. A batch holds changes of its lane's sale only.
    PerSale,
}

/// What keeps a store from working.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// For now.
    Passing(String),
    /// For this process: it has to end.
    Final(String),
}

/// What an operator accepts as lost, and what it was judged by.
#[derive(Debug, Clone, Copy)]
pub struct AcceptedLoss<'a> {
    /// Numbers for the event and the note; both new, ascending.
    pub serials: [Serial; 2],
    /// The line of the admin log.
    pub note: &'a AdminNote,
    /// Reservations that are lost.
    pub lost: usize,
    /// The last event of the content that was read.
    pub ev: u64,
    /// State and stock are as they were acknowledged. Else an open sale comes back paused.
    pub is_rest_whole: bool,
}

/// Why a loss was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The store is no such, or the sale is not frozen there, or nothing of it is left.
    #[error("{0}")]
    Refused(String),
    /// It did not answer: ask again.
    #[error("the store did not answer: {0}")]
    Unavailable(String),
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
    /// Makes a batch durable: all of it or nothing, but for changes that it names as refused. One batch of a lane is in
    /// flight at a time; numbers ascend by one, and the
    /// number of a batch that was not applied is used again. An empty batch is taken: it asks whether the store works.
    ///
    /// # Errors
    /// [`CommitError`] says whether its units may go back.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the batch back: its fate is then unknown.
    fn commit(&self, batch: Batch) -> impl Future<Output = Result<Committed, CommitError>> + Send;

    /// How batches queue for it.
    fn lanes(&self) -> Lanes {
        Lanes::One
    }

    /// Most changes in one batch, notes not counted.
    fn batch_jobs_max(&self) -> usize {
        flash_types::bounds::BATCH_JOBS_MAX
    }

    /// What keeps it from working right now, as far as it knows by itself.
    fn trouble(&self) -> Option<Trouble> {
        None
    }

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

    /// Committed events, ascending (of all sales: by time, then by sale and place), at most `limit`; without those that are
    /// told to nobody outside.
    fn events(
        &self,
        range: EventRange,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<EventRow>, ReadError>> + Send;

    /// All counts of tries at a sale that reserved nothing, ascending by time.
    fn attempts(
        &self,
        sale_no: SaleNo,
    ) -> impl Future<Output = Result<Vec<AttemptsRow>, ReadError>> + Send;

    /// Where the last event of each sale stands; a store may count those that are told to nobody.
    fn last_places(
        &self,
    ) -> impl Future<Output = Result<Vec<(SaleNo, EventPlace)>, ReadError>> + Send;

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
