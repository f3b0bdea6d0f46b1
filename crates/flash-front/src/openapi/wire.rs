//! Types of the wire; each is held against what is really written by a test.
#![allow(dead_code, reason = "they are told of, not made")]

use serde::Serialize;
use utoipa::ToSchema;

use crate::sale_view::{SaleView, UnitsView};

/// The server's time.
#[derive(Serialize, ToSchema)]
pub(super) struct Time {
    /// RFC 3339, UTC.
    #[schema(format = DateTime)]
    now: String,
    epoch_ms: i64,
}

/// A refusal or an error: `application/problem+json`.
#[derive(Serialize, ToSchema)]
pub(super) struct Problem {
    /// `urn:stampede:problem:<outcome>`
    r#type: String,
    title: String,
    status: u16,
    /// The word that programs go by.
    outcome: String,
    detail: String,
    /// Where a retry makes sense.
    retry_after_ms: Option<u32>,
    /// With `sold_out`: nothing is left that could come back by itself.
    r#final: Option<bool>,
    /// With `sold_out`: units left, where fewer are left than were asked for.
    available_units: Option<u32>,
    /// With `sale_not_started`.
    #[schema(format = DateTime)]
    starts_at: Option<String>,
    /// With `unknown`: ask for it later.
    reservation_id: Option<String>,
    /// A payment was made that has to go back.
    refund_due: Option<bool>,
}

/// One line of a purchase or a refund.
#[derive(Serialize, ToSchema)]
pub(super) struct LineBody {
    item: String,
    #[schema(minimum = 1, maximum = 1000)]
    quantity: u32,
}

/// `item` and `quantity`, or `lines` (1-20).
#[derive(Serialize, ToSchema)]
pub(super) struct PurchaseBody {
    item: Option<String>,
    #[schema(minimum = 1, maximum = 1000)]
    quantity: Option<u32>,
    #[schema(min_items = 1, max_items = 20)]
    lines: Option<Vec<LineBody>>,
}

/// It was paid.
#[derive(Serialize, ToSchema)]
pub(super) struct ConfirmBody {
    payment_ref: String,
    /// Held against the reservation's amount where given.
    #[schema(minimum = 0)]
    amount_minor: Option<i64>,
}

/// Money goes back.
#[derive(Serialize, ToSchema)]
pub(super) struct RefundBody {
    /// May be left out when refunding all.
    refund_ref: Option<String>,
    /// The units become available again.
    restock: bool,
    /// Everything that is left where absent.
    #[schema(min_items = 1, max_items = 20)]
    lines: Option<Vec<LineBody>>,
}

/// Nothing.
#[derive(Serialize, ToSchema)]
pub(super) struct EmptyBody {}

/// Only an empty `accept` is taken.
#[derive(Serialize, ToSchema)]
pub(super) struct PublishBody {
    #[schema(max_items = 0)]
    accept: Option<Vec<String>>,
}

/// How to rehearse.
#[derive(Serialize, ToSchema)]
pub(super) struct RehearseBody {
    /// What the sale expects where absent, else twenty for each unit, at most 50,000.
    #[schema(minimum = 1, maximum = 200000)]
    buyers: Option<u32>,
    /// How long the sale lasts in the copy; 20 at most where absent.
    #[schema(minimum = 3, maximum = 40)]
    seconds: Option<u32>,
    /// Also while a sale is open, or opens within a minute: it takes time from its buyers.
    #[schema(default = false)]
    while_selling: Option<bool>,
}

/// A change of an item's stock.
#[derive(Serialize, ToSchema)]
pub(super) struct StockBody {
    delta_units: i64,
    #[schema(min_length = 1, max_length = 256)]
    reason: String,
}

/// What was done of it.
#[derive(Serialize, ToSchema)]
pub(super) struct StockChange {
    applied_delta_units: i64,
}

/// Who wants a token.
#[derive(Serialize, ToSchema)]
pub(super) struct LoginBody {
    buyer: String,
}

/// A token.
#[derive(Serialize, ToSchema)]
pub(super) struct Login {
    token: String,
}

/// One line of a reservation.
#[derive(Serialize, ToSchema)]
pub(super) struct ReservationLine {
    item: String,
    quantity: u32,
    unit_price_minor: i64,
    refunded_units: u32,
}

/// Units set aside for one buyer.
#[derive(Serialize, ToSchema)]
pub(super) struct Reservation {
    reservation_id: String,
    sale_id: String,
    buyer_id: String,
    /// unknown, reserved, confirmed, released, expired or refunded
    state: String,
    lines: Vec<ReservationLine>,
    amount_minor: i64,
    currency: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    expires_at: String,
    #[schema(required)]
    payment_ref: Option<String>,
    /// sqlite_fsync, redis_aof_always, redis_aof_everysec, redis_memory or memory
    durability: String,
}

/// A page of reservations.
#[derive(Serialize, ToSchema)]
pub(super) struct ReservationPage {
    items: Vec<Reservation>,
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A page of sales.
#[derive(Serialize, ToSchema)]
pub(super) struct SalePage<'a> {
    items: Vec<SaleView<'a>>,
    #[schema(required)]
    next_cursor: Option<String>,
}

/// What the merchant wants to reach.
#[derive(Serialize, ToSchema)]
pub(super) struct Goal {
    orders: u64,
}

/// Who may try, and how often.
#[derive(Serialize, ToSchema)]
pub(super) struct Admission {
    /// Only `off` is taken.
    ticket: Option<String>,
    #[schema(minimum = 1, maximum = 10000000, default = 5)]
    buyer_rate_per_s: Option<u32>,
    #[schema(minimum = 1, maximum = 10000000, default = 10)]
    buyer_burst: Option<u32>,
    #[schema(minimum = 1, maximum = 10000000, default = 50)]
    address_rate_per_s: Option<u32>,
    #[schema(minimum = 1, maximum = 10000000, default = 100)]
    address_burst: Option<u32>,
}

/// One item of a plan.
#[derive(Serialize, ToSchema)]
pub(super) struct ItemDefinition {
    item: String,
    title: String,
    list_price_minor: Option<i64>,
    #[schema(minimum = 0)]
    sale_price_minor: i64,
    stock_units: u32,
    /// No limit where absent.
    #[schema(minimum = 1)]
    units_per_buyer_max: Option<u32>,
    /// Only an empty list is taken.
    #[schema(max_items = 0)]
    waves: Option<Vec<String>>,
}

/// The plan of a sale; a body of up to 256 KiB.
#[derive(Serialize, ToSchema)]
pub(super) struct SaleDefinition {
    sale_id: String,
    title: String,
    series: Option<String>,
    #[schema(format = DateTime)]
    starts_at: String,
    #[schema(format = DateTime)]
    ends_at: String,
    currency: String,
    /// Seconds.
    #[schema(minimum = 1, maximum = 604800, default = 300)]
    payment_window_s: Option<u32>,
    goal: Option<Goal>,
    /// How many buyers come: what a rehearsal plays.
    #[schema(minimum = 1)]
    expected_crowd: Option<u32>,
    admission: Option<Admission>,
    #[schema(min_items = 1, max_items = 500)]
    items: Vec<ItemDefinition>,
}

/// A sale for merchants: the plan, its state, its counters.
#[derive(Serialize, ToSchema)]
pub(super) struct AdminSale {
    #[serde(flatten)]
    plan: SaleDefinition,
    /// draft, published, open, paused, closed or frozen
    state: String,
    is_retired: bool,
    units: Vec<UnitsView>,
}

/// A page of sales for merchants.
#[derive(Serialize, ToSchema)]
pub(super) struct AdminSalePage {
    items: Vec<AdminSale>,
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Whether the books balance: stock = unreleased + available + reserved + sold.
#[derive(Serialize, ToSchema)]
pub(super) struct SaleAudit {
    ok: bool,
    items: Vec<UnitsView>,
    findings: Vec<String>,
}

/// A reservation that was acknowledged and is not stored as it was.
#[derive(Serialize, ToSchema)]
pub(super) struct LostReservation {
    reservation: Reservation,
    /// What the store has of it; null where it has nothing.
    #[schema(required)]
    stored_state: Option<String>,
}

/// A page of a loss.
#[derive(Serialize, ToSchema)]
pub(super) struct LossPage {
    items: Vec<LostReservation>,
    /// What else was acknowledged and is not stored so, one sentence each
    differences: Vec<String>,
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A sale that goes on from what is stored.
#[derive(Serialize, ToSchema)]
pub(super) struct AcceptedLoss {
    sale_id: String,
    /// Where it stands now
    state: String,
    lost_reservations: u64,
    /// What else was acknowledged and is not stored so; the sale is paused if there is any
    differences: Vec<String>,
}

/// One admin command.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditLogLine {
    number: u64,
    #[schema(format = DateTime)]
    at: String,
    who: String,
    command: String,
    #[schema(required)]
    sale_id: Option<String>,
    outcome: String,
    detail: String,
}

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
pub(super) struct AuditLogPage {
    items: Vec<AuditLogLine>,
    #[schema(required)]
    next_cursor: Option<String>,
}

/// The process lives.
#[derive(Serialize, ToSchema)]
pub(super) struct Alive {
    status: String,
}

/// Whether it can serve, and why not.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    ready: bool,
    reasons: Vec<String>,
    durability: String,
}
