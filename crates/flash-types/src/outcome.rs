//! What is told to whoever asked: a closed list. A refusal is a value, not an error.

use crate::{ReservationId, Timestamp, reservation::SharedReservation};

/// What became of one purchase or one command on a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// New and durable: 201 for a purchase.
    Reserved(SharedReservation),
    /// The key won before, or the effect of the command stands: 200.
    Stands(SharedReservation),
    /// A no.
    Refused(Refusal),
    /// Sent to the store, fate not known: 504.
    Unknown(ReservationId),
}

/// Why not. The order of what is told when several apply is the engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such sale, item or reservation, or not the caller's.
    NotFound,
    /// Broken books or lost writes: the sale stands still until an operator has looked.
    SaleFrozen,
    /// Not open yet.
    SaleNotStarted {
        /// When it opens.
        starts_at: Timestamp,
    },
    /// Paused by the merchant.
    SalePaused,
    /// Over.
    SaleEnded,
    /// Not enough units.
    SoldOut {
        /// Nothing is left that could come back by itself.
        is_final: bool,
        /// Units left, where fewer are left than were asked for.
        available_units: Option<u32>,
    },
    /// This buyer asks too often.
    RateLimited {
        /// When the next try conforms.
        retry_after_ms: u32,
    },
    /// More work is in flight than is finished in time; nothing was reserved.
    Overloaded {
        /// A jittered proposal.
        retry_after_ms: u32,
    },
    /// This buyer has all that one buyer may have of an item.
    BuyerLimitReached,
    /// The first call with this key has not been decided yet.
    InFlight,
    /// The key won with other lines.
    IdempotencyKeyReused,
    /// The payment belongs to another reservation of the sale.
    PaymentRefReused,
    /// Paid after it expired, and its units are gone: the money has to go back.
    ReservationExpired,
    /// The command does not fit the reservation's or the sale's state.
    StateConflict {
        /// A payment was made that has to go back.
        refund_due: bool,
    },
    /// The store does not take anything at the moment; nothing was changed.
    StoreUnavailable,
    /// The disk is full; nothing was changed.
    StorageFull,
    /// The process is on its way out; nothing was changed.
    Stopping,
}
