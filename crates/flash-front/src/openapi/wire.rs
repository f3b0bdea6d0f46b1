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
    /// With `price_guard`.
    findings: Option<Vec<PriceFinding>>,
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

/// Findings on prices that are meant so.
#[derive(Serialize, ToSchema)]
pub(super) struct PublishBody {
    /// above_list_price, below_floor_price, deep_discount, below_lowest_price_30d or undercuts_announced_sale
    accept: Option<Vec<String>>,
}

/// A price that looks like a mistake.
#[derive(Serialize, ToSchema)]
pub(super) struct PriceFinding {
    /// The word that `accept` takes.
    code: String,
    item: String,
    detail: String,
}

/// Another price for new reservations.
#[derive(Serialize, ToSchema)]
pub(super) struct PriceBody {
    #[schema(minimum = 0, maximum = 1000000000000i64)]
    sale_price_minor: i64,
    #[schema(min_length = 1, max_length = 256)]
    reason: String,
}

/// What was changed, and who bought before.
#[derive(Serialize, ToSchema)]
pub(super) struct PriceChange {
    item: String,
    old_price_minor: i64,
    sale_price_minor: i64,
    /// What looks like a mistake about the new price; it is in force all the same once the sale is resumed.
    findings: Vec<PriceFinding>,
    /// At another price than the new one, in any state; the first 200.
    reservations: Vec<Reservation>,
    /// Goes on in the admin's list of reservations, with `item` and `not_at_price_minor`.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// A release by hand.
#[derive(Serialize, ToSchema)]
pub(super) struct ReleaseBody {
    #[schema(minimum = 1)]
    units: u32,
}

/// What was released.
#[derive(Serialize, ToSchema)]
pub(super) struct Released {
    released_units: u32,
}

/// A buyer who paid more than the item costs later.
#[derive(Serialize, ToSchema)]
pub(super) struct Protection {
    reservation_id: String,
    buyer_id: String,
    #[schema(required)]
    payment_ref: Option<String>,
    item: String,
    quantity: u32,
    unit_price_minor: i64,
    later_price_minor: i64,
    later_sale_id: String,
    /// The difference, for all units.
    amount_minor: i64,
}

/// A page of them.
#[derive(Serialize, ToSchema)]
pub(super) struct ProtectionPage {
    items: Vec<Protection>,
    /// How many of them this call told as `refund_due`.
    emitted: u64,
    #[schema(required)]
    next_cursor: Option<String>,
}

/// What happened to a sale or a reservation.
#[derive(Serialize, ToSchema)]
pub(super) struct Event {
    /// Names it; to be given as `after`.
    id: String,
    generation: u64,
    sequence: u64,
    r#type: String,
    #[schema(format = DateTime)]
    at: String,
    sale_id: String,
    /// The reservation as it stood after it, or what the sale tells.
    #[schema(value_type = Object)]
    data: serde_json::Value,
}

/// A page of events.
#[derive(Serialize, ToSchema)]
pub(super) struct EventPage {
    items: Vec<Event>,
    #[schema(required)]
    next_cursor: Option<String>,
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
    /// Below this price a publish is held to be a mistake.
    #[schema(minimum = 0)]
    floor_price_minor: Option<i64>,
    /// Units held back at the start, ascending by time; together at most `stock_units`.
    #[schema(max_items = 100)]
    waves: Option<Vec<Wave>>,
}

/// A planned release of further units.
#[derive(Serialize, ToSchema)]
pub(super) struct Wave {
    #[schema(format = DateTime)]
    at: String,
    #[schema(minimum = 1)]
    units: u32,
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
    /// For so many days after they bought, buyers are due the difference to a later, lower price.
    #[schema(minimum = 1, maximum = 365)]
    price_protection_days: Option<u32>,
    /// When units that came back unpaid are sold again; at once where it is absent.
    #[schema(max_items = 100)]
    re_release_at: Option<Vec<String>>,
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

/// A webhook and how it stands.
#[derive(Serialize, ToSchema)]
pub(super) struct Webhook {
    name: String,
    /// Without its query.
    url: String,
    /// ok, failing, down or stopped
    state: String,
    /// Read and not yet delivered or set aside; the store may hold more.
    waiting_events: u64,
    parked_events: u64,
    dead_letters: u64,
    /// When the oldest event happened that was not delivered.
    #[schema(required, format = DateTime)]
    oldest_at: Option<String>,
    #[schema(required, format = DateTime)]
    last_success_at: Option<String>,
    #[schema(required, format = DateTime)]
    last_error_at: Option<String>,
    #[schema(required)]
    last_error: Option<String>,
}

/// An event that was given up.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetter {
    number: u64,
    event_id: String,
    webhook: String,
    #[schema(format = DateTime)]
    at: String,
    attempts: u32,
    #[schema(format = DateTime)]
    dead_at: String,
    last_error: String,
}

/// One line of the list: a webhook, or with `dead=true` an event.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum WebhookLine {
    Webhook(Webhook),
    DeadLetter(DeadLetter),
}

/// All webhooks, or a page of dead letters.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookPage {
    items: Vec<WebhookLine>,
    #[schema(required)]
    next_cursor: Option<String>,
}

/// To whom; all that want it where absent.
#[derive(Serialize, ToSchema)]
pub(super) struct RedeliverBody {
    webhook: Option<String>,
}

/// It will be delivered again.
#[derive(Serialize, ToSchema)]
pub(super) struct Redelivery {
    event_id: String,
    /// Their names.
    webhooks: Vec<String>,
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
    /// What is not well beside the purchase path, which serves all the same.
    notes: Option<Vec<String>>,
}
