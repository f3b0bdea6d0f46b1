//! The words of the engine: ids, quantities, money, time, reservations, outcomes and refusals, and the bounds on all of them.
//!
//! No behaviour beyond checked construction and arithmetic. Everything that arrives from outside is parsed once,
//! at the edge, into these types; whoever holds one need not check it again.

pub mod bounds;
mod id;
mod money;
mod outcome;
mod reservation;
mod sale;
pub mod side;
mod time;

pub use id::{
    BadId, BuyerId, IdempotencyKey, ItemId, PaymentRef, RefundRef, ReservationId, SaleId, SaleNo,
    Serial,
};
pub use money::{Currency, Money};
pub use outcome::{Outcome, Refusal};
pub use reservation::{
    Durability, ItemIndex, Line, Lines, Quantity, Reservation, ReservationLine, ReservationState,
    SharedReservation,
};
pub use sale::{
    AdmissionRules, Goal, ItemDefinition, ItemUnits, SaleDefinition, SaleState, TicketRule, Wave,
};
pub use time::{BadTimestamp, Timestamp, TimestampText};
