//! What happened to an order, told in the same transaction to everything that goes by it.

use flash_types::side::BoxFuture;
use flash_types::{BuyerId, Timestamp};
use side_books::SideError;
use side_books::sql::Tx;

/// An order: a confirmed reservation of the engine (with its id), or one of the shop's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Unique among both.
    pub order_id: String,
    /// Whose.
    pub buyer: BuyerId,
    /// Of which sale, where it came from the engine.
    pub sale_id: Option<String>,
    /// ISO 4217.
    pub currency: String,
    /// What was paid, minor units.
    pub paid_minor: i64,
    /// What went back, in all, minor units.
    pub refunded_minor: i64,
    /// When it was paid.
    pub paid_at: Timestamp,
    /// When it was received, once it was.
    pub received_at: Option<Timestamp>,
    /// It is this buyer's first paid order.
    pub is_first: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// It was paid.
    Paid(Order),
    /// It arrived at its buyer.
    Received(Order),
    /// Money went back; `amount_minor` of it now.
    Refunded {
        /// As it stands after it.
        order: Order,
        /// Unique within the order.
        refund_ref: String,
        /// Minor units.
        amount_minor: i64,
    },
    /// A reservation of a sale waits to be paid; told again, with its new end, when it may wait longer.
    Reserved {
        /// Its id.
        reservation_id: String,
        /// Of which sale.
        sale_id: String,
        /// Whose.
        buyer: BuyerId,
        /// Until when it waits.
        expires_at: Timestamp,
    },
    /// A reservation waits no more: paid, released or expired.
    Closed {
        /// Its id.
        reservation_id: String,
    },
}

/// Something that goes by facts. Called once for each fact, in the transaction that writes it down.
pub trait React: Send + Sync {
    /// Does what follows.
    ///
    /// # Errors
    /// The database's: the whole transaction is tried again. A fact is never refused.
    fn react<'a>(
        &'a self,
        tx: &'a mut Tx,
        fact: &'a Fact,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<(), SideError>>;
}
