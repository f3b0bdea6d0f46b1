//! What was bought: the engine's confirmed reservations, under their ids, and the shop's other orders; when they arrived,
//! what went back.
//!
//! Everything that changes an order tells it, in the same transaction and once, to whoever goes by facts ([`tell`]).
//! Invariant: what went back is the sum of the refunds, and never more than what was paid.
// paid -> received, once; refunds at any time, until all of it went back.

mod book;
mod queries;
mod reads;
mod refusal;
mod service;
mod wire;

use std::sync::Arc;

use flash_types::Timestamp;
use flash_types::side::SideService;
use side_books::SideError;
use side_books::sql::Tx;

use crate::fact::Fact;
use crate::shop::Shop;

pub use book::{Entry, EntryLine, Recorded, Source, record};
pub(crate) use book::{LineUnits, Refund, paid_no_later, refund_units};
pub use reads::{OrderLine, OrderRefund, find, first_paid_at, lines, of_buyer, refunds};

/// Its endpoints.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    vec![Arc::new(service::Orders::new(Arc::clone(shop)))]
}

/// Tells a fact to everything that goes by facts, in the transaction that writes it down.
///
/// # Errors
/// The database's: the whole transaction is tried again.
///
/// # Cancel safety
/// The transaction is rolled back with all that was told.
pub async fn tell(tx: &mut Tx, shop: &Shop, fact: &Fact, now: Timestamp) -> Result<(), SideError> {
    for reactor in &shop.reactors {
        reactor.react(tx, fact, now).await?;
    }
    Ok(())
}
