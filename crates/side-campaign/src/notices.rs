//! What buyers are told: an outbox of notices, sent by a [`Notifier`]; codes that verify telephone numbers; reminders of a
//! start, of a payment, of an order; and what became of them.
//!
//! Invariants: a notice is put into the outbox with what it tells, once per key, and handed out at least once, with an id
//! by which its receiver knows a repetition. Telephone numbers and codes are never in the database in clear, and not at
//! all once their notice is done.

mod calendar;
mod care;
mod deliver;
mod figures;
mod file;
mod follow;
mod outbox;
mod phone;
mod queries;
mod refusal;
mod reminders;
mod service;
mod tidy;
mod verification;

use std::sync::Arc;

use flash_types::side::{BoxFuture, SideService};
use flash_types::{BuyerId, Timestamp};
use side_books::SideError;
use side_books::sql::{Get as _, Reads, Tx};
use side_books::step::Step;

use crate::shop::Shop;

pub use calendar::{Calendar, Planned, ShopCalendar, Stage, Subject};
pub use care::CareStep;
pub use deliver::Deliver;
pub use figures::{Figures, KindFigures, figures};
pub use file::FileNotifier;
pub use follow::Follow;
pub use outbox::{ToBuyer, put, send_until, withdraw};
pub use reminders::RemindStep;
pub use service::NoticeService;

/// Its endpoints.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    let calendar = Arc::new(ShopCalendar::new(Arc::clone(shop)));
    vec![Arc::new(NoticeService::new(Arc::clone(shop), calendar))]
}

/// What goes on by itself: codes on a way of their own, so that no crowd of reminders is in front of them.
pub fn steps(shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    let calendar = Arc::new(ShopCalendar::new(Arc::clone(shop)));
    vec![
        Arc::new(Deliver::urgent(Arc::clone(shop), calendar.clone())),
        Arc::new(Deliver::other(Arc::clone(shop), calendar.clone())),
        Arc::new(RemindStep::new(Arc::clone(shop), calendar)),
        Arc::new(CareStep::new(Arc::clone(shop))),
        Arc::new(tidy::Tidy(Arc::clone(shop))),
    ]
}

/// To whom.
#[derive(Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A telephone number as it was given, checked.
    Phone(String),
    /// A buyer: the storefront knows the channel.
    Buyer(String),
}

/// Numbers stay out of logs.
impl std::fmt::Debug for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Phone(_) => f.write_str("Phone(..)"),
            Self::Buyer(buyer) => f.debug_tuple("Buyer").field(buyer).finish(),
        }
    }
}

/// Something to be told to somebody.
#[derive(Clone, PartialEq, Eq)]
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
    /// Of which campaign.
    pub campaign: Option<&'a str>,
    /// Not before.
    pub due_at: Timestamp,
}

/// Codes, and texts that may hold them, stay out of logs.
impl std::fmt::Debug for Notice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notice")
            .field("key", &self.key)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Puts a notice into the outbox, in the transaction of what it tells; the same key again changes nothing.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// Part of the caller's transaction.
pub async fn send(
    tx: &mut Tx,
    shop: &Shop,
    notice: &Notice<'_>,
    now: Timestamp,
) -> Result<(), SideError> {
    send_until(tx, shop, notice, None, now).await
}

/// The telephone number that a buyer has verified: its keyed hash, and when, in ms.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn verified_phone(
    reads: &mut impl Reads,
    buyer: &BuyerId,
) -> Result<Option<(String, i64)>, SideError> {
    let row = reads.row(queries::verified_phone(buyer.as_str())).await?;
    let row = row.map(|row| Ok::<_, SideError>((row.text("phone_hash")?, row.int("at_ms")?)));
    row.transpose()
}

/// Writes down that a buyer did something about what they may have been reminded of (took part): no second reminder then.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// Part of the caller's transaction.
pub async fn reacted(
    tx: &mut Tx,
    subject: &Subject,
    buyer: &BuyerId,
    now: Timestamp,
) -> Result<(), SideError> {
    let insert = queries::insert_reaction(&subject.to_string(), buyer.as_str(), now.0);
    tx.execute(insert).await?;
    Ok(())
}

/// A notice on its way out.
#[derive(Clone, PartialEq, Eq, serde::Serialize)]
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

/// As [`Notice`]: no number, no code.
impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// A way out of the house: a signed webhook, a file.
pub trait Notifier: Send + Sync {
    /// Hands it over; `Ok` when it was taken. At least once: the receiver knows a repetition by its id.
    ///
    /// # Errors
    /// Why it was not taken, without number, code or text; it is tried again with back-off.
    fn notify<'a>(&'a self, notice: &'a Outgoing) -> BoxFuture<'a, Result<(), String>>;
}
