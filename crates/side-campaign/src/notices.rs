//! TODO-OWNER

use std::sync::Arc;

use flash_types::side::SideService;
use side_books::step::Step;

use crate::shop::Shop;

/// Its endpoints.
pub fn services(_shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    Vec::new()
}

/// What goes on by itself.
pub fn steps(_shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    Vec::new()
}

use flash_types::Timestamp;
use flash_types::side::BoxFuture;
use side_books::SideError;
use side_books::sql::Tx;

/// To whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A telephone number as it was given, checked.
    Phone(String),
    /// A buyer: the storefront knows the channel.
    Buyer(String),
}

/// Something to be told to somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice<'a> {
    /// Unique for ever: it is told once.
    pub key: &'a str,
    /// `verification`, `reminder`, `second_reminder`, `pay_reminder`, `order_care`, `reward` …
    pub kind: &'static str,
    /// To whom.
    pub to: Recipient,
    /// In words.
    pub text: &'a str,
    /// A code, where it carries one.
    pub code: Option<&'a str>,
    /// Of which campaign or sale.
    pub campaign: Option<&'a str>,
    /// Not before.
    pub due_at: Timestamp,
}

/// Puts a notice into the outbox, in the transaction of what it tells; the same key again changes nothing.
///
/// # Errors
/// The database's.
pub async fn send(
    _tx: &mut Tx,
    _shop: &Shop,
    _notice: &Notice<'_>,
    _now: Timestamp,
) -> Result<(), SideError> {
    Ok(())
}

/// A notice on its way out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Outgoing {
    /// For the receiver to know a repetition.
    pub id: String,
    /// As in [`Notice`].
    pub kind: String,
    /// Telephone number or buyer.
    pub to: String,
    /// In words.
    pub text: String,
    /// A code, where it carries one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// A way out of the house: a signed webhook, a file.
pub trait Notifier: Send + Sync {
    /// Hands it over; `Ok` when it was taken. At least once: the receiver knows a repetition by its id.
    ///
    /// # Errors
    /// Why it was not taken; it is tried again with back-off.
    fn notify<'a>(&'a self, notice: &'a Outgoing) -> BoxFuture<'a, Result<(), String>>;
}
