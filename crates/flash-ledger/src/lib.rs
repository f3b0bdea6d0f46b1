//! The stock ledger of one sale, in memory: who may have which units, decided in a few hundred nanoseconds.
//!
//! Owns: the counters of every item, every reservation with its key, what counts against a buyer's limit,
//! which payment and refund was decided how. Does not know time, the store, the network or chance: every
//! answer is a function of what was called before.
//!
//! A change has two halves. The first (`reserve`, `begin`, `begin_stock_change`) decides and sets units
//! aside; the engine then makes it durable; the second (`finish…` or `abort…`) shows it or takes it back.
//! Between the halves the engine's handle `F` lies here, for others to wait on.
//!
//! Invariants: no item ever has fewer than 0 units anywhere; `stock = unreleased + available + reserved +
//! sold`; one reservation per (buyer, key); one decision per payment.
//!
//! ```text
//! ledger.rs    the ledger, buying, reading, stock        word.rs    available | reserved in one atomic
//! commands.rs  confirm, cancel, expire, refund           filter.rs  may this key have won?
//! expiry.rs    what is due                               shard.rs   buyers, keys and records under one lock
//! load.rs      recovery                                  items.rs   words and books of all items
//! audit.rs     sums over the records                     payments.rs, serials.rs  the indexes of the sale
//! ```

mod answer;
mod audit;
mod buyers;
mod commands;
mod expiry;
mod extensions;
mod filter;
mod flights;
mod hash;
mod items;
mod ledger;
mod load;
mod names;
mod payments;
mod record;
mod serials;
mod shard;
mod slab;
mod sync;
mod word;

pub use answer::{
    Begin, Command, LedgerItem, LoadedLine, LoadedReservation, PaymentDecision, PricedLine,
    RecordRef, RecordSums, Reserve, StateCounts, Step, StockChange, Transition, Units, View,
    ViewLine, Won,
};
pub use hash::HashKey;
pub use ledger::Ledger;

/// The parts that the models of `tests/loom.rs` look at by themselves.
#[cfg(loom)]
pub mod parts {
    pub use crate::filter::Filter;
    pub use crate::word::{Halves, Word};
}
