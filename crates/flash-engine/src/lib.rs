//! The order of a purchase: admit -> reserve -> commit -> answer; and every other change of the ledger.

use std::sync::Arc;
use std::time::Instant;

use flash_types::*;
use smallvec::SmallVec;

mod clock;
mod sale;

pub use clock::{Clock, Reading, SystemClock};
pub use sale::Sale;

/// One purchase as asked for: checked in form, not yet held against a sale.
#[derive(Debug, Clone)]
pub struct Purchase {
    /// Which sale.
    pub sale_id: SaleId,
    /// Who buys.
    pub buyer: BuyerId,
    /// The client's key.
    pub key: IdempotencyKey,
    /// What: as the client wrote it, lines of one item not yet summed; 1-20.
    pub lines: SmallVec<[(ItemId, Quantity); 1]>,
}

/// On whose behalf a command or a read on a reservation is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A buyer: sees only what is theirs.
    Buyer(BuyerId),
    /// The storefront's server: sees everything.
    Storefront,
}

/// A refund as asked for.
#[derive(Debug, Clone)]
pub struct RefundRequest {
    /// Named by the storefront; may be left out when refunding all.
    pub refund_ref: Option<RefundRef>,
    /// The units become available again.
    pub restock: bool,
    /// Which lines; all that is left where absent.
    pub lines: Option<SmallVec<[(ItemId, Quantity); 1]>>,
}

/// What a merchant can do to a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaleCommand {
    /// `draft -> published` (and on to open, where the start has passed).
    Publish,
    /// `open -> paused`.
    Pause,
    /// `paused -> open`.
    Resume,
    /// `published | open | paused -> closed`.
    Close,
}

/// Who gives an admin command, for the audit log.
#[derive(Debug, Clone)]
pub struct Who {
    /// Name of the admin key.
    pub name: String,
}

/// Why an admin command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminRefusal {
    /// As for buyers (`not_found`, `state_conflict`, `store_unavailable`, …).
    Refused(Refusal),
    /// 400 with this detail.
    Malformed(String),
    /// Sent to the store, fate not known: 504.
    Unknown,
}

/// What the admin's audit of one sale says. Serializes to the contract's JSON.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SaleAudit {
    /// The books balance and nothing was found.
    pub ok: bool,
    /// The counters at the store's last word.
    pub items: Vec<ItemAudit>,
    /// What is wrong, one sentence each.
    pub findings: Vec<String>,
}

/// Counters of one item.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ItemAudit {
    /// Its name.
    pub item: ItemId,
    /// Where its units are.
    #[serde(flatten)]
    pub units: ItemUnits,
}

/// Whether the process can serve, and why not.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Health {
    /// `/readyz` is 200.
    pub ready: bool,
    /// Why not; empty when ready.
    pub reasons: Vec<String>,
    /// Level of durability.
    pub durability: Durability,
}

/// The engine: all sales, the ledger of each, the queue to the committer.
pub struct Engine {}

impl Engine {
    /// The sale of that name, drafts too; `None` also after it left memory.
    pub fn sale(&self, sale_id: &SaleId) -> Option<Arc<Sale>> {
        todo!()
    }
    /// All sales that were ever made, drafts and retired ones too, by number. For lists, not for the hot path.
    pub fn sales(&self) -> Vec<Arc<Sale>> {
        todo!()
    }
    /// The clock that everything here reads.
    pub fn clock(&self) -> &dyn Clock {
        todo!()
    }
    /// Takes the address's rate of this sale; `Err` carries the milliseconds until the next try conforms.
    pub fn admit_address(
        &self,
        sale_id: &SaleId,
        address: std::net::IpAddr,
        now: Instant,
    ) -> Result<(), u32> {
        todo!()
    }
    /// The life of one purchase.
    pub async fn purchase(&self, request: &Purchase, now: Reading) -> Outcome {
        todo!()
    }
    /// Paid. The deadline of this and all following calls is `bounds::REQUEST_DEADLINE` after `now.at`.
    pub async fn confirm(
        &self,
        id: ReservationId,
        payment_ref: &PaymentRef,
        amount: Option<Money>,
        now: Reading,
    ) -> Outcome {
        todo!()
    }
    /// Given up.
    pub async fn cancel(&self, caller: Caller, id: ReservationId, now: Reading) -> Outcome {
        todo!()
    }
    /// Money back.
    pub async fn refund(
        &self,
        id: ReservationId,
        request: &RefundRequest,
        now: Reading,
    ) -> Outcome {
        todo!()
    }
    /// One reservation.
    pub async fn reservation(
        &self,
        caller: Caller,
        id: ReservationId,
    ) -> Result<Reservation, Refusal> {
        todo!()
    }
    /// The reservation that a key won (state `unknown` while undecided).
    pub async fn reservation_by_key(
        &self,
        sale_id: &SaleId,
        buyer: &BuyerId,
        key: &IdempotencyKey,
    ) -> Result<Reservation, Refusal> {
        todo!()
    }
    /// Reservations of a sale, ascending; `buyer`/`state` narrow it; the cursor is the last serial of the page before.
    pub async fn reservations(
        &self,
        sale_id: &SaleId,
        buyer: Option<BuyerId>,
        state: Option<ReservationState>,
        after: Serial,
        limit: usize,
    ) -> Result<Vec<Reservation>, Refusal> {
        todo!()
    }
    /// Makes a draft (`replace: false`, 409 `state_conflict` where the sale exists) or replaces one (`true`, 404 where none, 409 where not a draft).
    pub async fn put_draft(
        &self,
        definition: SaleDefinition,
        replace: bool,
        who: Who,
    ) -> Result<Arc<Sale>, AdminRefusal> {
        todo!()
    }
    /// Publishes, pauses, resumes, closes. A command whose effect already stands succeeds.
    pub async fn command(
        &self,
        sale_id: &SaleId,
        command: SaleCommand,
        who: Who,
    ) -> Result<Arc<Sale>, AdminRefusal> {
        todo!()
    }
    /// Changes the stock of an item; gives the units applied. The same key gets the same answer.
    pub async fn change_stock(
        &self,
        sale_id: &SaleId,
        item: &ItemId,
        key: &IdempotencyKey,
        delta_units: i64,
        reason: &str,
        who: Who,
    ) -> Result<i64, AdminRefusal> {
        todo!()
    }
    /// The admin's audit: committed counters, held against the ledger where nothing is in flight.
    pub async fn audit(&self, sale_id: &SaleId) -> Result<SaleAudit, Refusal> {
        todo!()
    }
    /// Notes an admin command that was refused before it reached the engine (403, 400 …). Best effort: dropped when the queue is full.
    pub fn note(
        &self,
        who: &Who,
        command: &str,
        sale_id: Option<&SaleId>,
        outcome: &str,
        detail: &str,
    ) {
        todo!()
    }
    /// Lines of the admin audit log, ascending by number.
    pub async fn admin_notes(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, flash_store::AdminNote)>, Refusal> {
        todo!()
    }
    /// Whether it can serve.
    pub fn health(&self) -> Health {
        todo!()
    }
    /// Requests that arrive from here on are refused with `stopping`.
    pub fn stop_taking(&self) {
        todo!()
    }
}
