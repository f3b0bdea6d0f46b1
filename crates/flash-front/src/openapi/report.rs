//! The report of a sale as the document tells it; a test of the whole process holds it against a real one. Parts of wholes are basis
//! points (1/10,000), rounded down, absent where there is no whole.
#![allow(dead_code, reason = "they are told of, not made")]

use serde::Serialize;
use utoipa::ToSchema;

/// The report of one sale.
#[derive(Serialize, ToSchema)]
pub(super) struct SaleReport {
    /// Which sale.
    sale_id: String,
    /// For people.
    title: String,
    /// Sales that belong together.
    series: Option<String>,
    /// Where the sale stood.
    state: String,
    /// Of all amounts.
    currency: String,
    /// When the report was made.
    #[schema(format = DateTime)]
    made_at: String,
    /// When the sale was planned, and when it was open.
    window: ReportWindow,
    /// From the try to the money.
    funnel: ReportFunnel,
    /// Refused tries by reason, the most frequent first.
    refusals: Vec<ReportRefusals>,
    /// Length of a slot.
    slot_s: u64,
    /// Sales over time, ascending; slots in which nothing happened are left out.
    slots: Vec<ReportSlot>,
    /// The slot of which most units were paid.
    best_slot: Option<ReportSlot>,
    /// In the order of the plan.
    items: Vec<ReportItem>,
    /// Who bought.
    buyers: ReportBuyers,
    /// What was to be reached, and what was.
    goal: Option<ReportGoal>,
    /// Money that was told to be due back.
    refunds_due: ReportRefundsDue,
    /// What the figures do not tell.
    notes: Vec<ReportNote>,
}

/// When a sale was planned, and when it was open.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportWindow {
    /// Planned begin.
    #[schema(format = DateTime)]
    starts_at: String,
    /// Planned end.
    #[schema(format = DateTime)]
    ends_at: String,
    /// When it opened.
    #[schema(format = DateTime)]
    opened_at: Option<String>,
    /// When it closed.
    #[schema(format = DateTime)]
    closed_at: Option<String>,
}

/// Orders, with their units and amounts.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportStage {
    /// Reservations.
    orders: u64,
    /// Units in them.
    units: u64,
    /// Their price.
    amount_minor: i64,
}

/// From the try to the money: `attempts = reserved + refused + replayed + unknown` and
/// `reserved = open + in flight + paid + released + expired`.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportFunnel {
    /// All tries.
    attempts: u64,
    /// Tries that were told a no.
    refused_attempts: u64,
    /// Tries with a key that had won.
    replayed_attempts: u64,
    /// Tries that were told that nobody knows.
    unknown_attempts: u64,
    /// Everything that was ever reserved.
    reserved: ReportStage,
    /// Of that: waits for its payment.
    open: ReportStage,
    /// Of that: a change of it was with the store when it was read.
    in_flight: ReportStage,
    /// Of that: was paid, refunded or not.
    paid: ReportStage,
    /// Of that: was given up.
    released: ReportStage,
    /// Of that: was not paid in time, nor later.
    expired: ReportStage,
    /// Of what was paid: orders of which money went back, with the units and the money that did.
    refunded: ReportStage,
    /// Paid orders of all tries.
    conversion_bp: Option<u64>,
    /// Paid orders of those reserved.
    paid_bp: Option<u64>,
}

/// Tries refused for one reason.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportRefusals {
    /// The reason, as buyers were told.
    outcome: String,
    /// All of them.
    attempts: u64,
    /// The same by the first item that was asked for.
    items: Vec<ReportItemRefusals>,
}

/// Tries refused for one reason, of one item.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportItemRefusals {
    /// `null`: refused before the item was looked at, or it is not of this sale.
    item: Option<String>,
    /// How many.
    attempts: u64,
}

/// What was tried and reserved in a part of the sale, and what became of that.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportSlot {
    /// Its begin.
    #[schema(format = DateTime)]
    from: String,
    /// All tries.
    attempts: u64,
    /// Tries that were told a no.
    refused_attempts: u64,
    /// Reservations made in it.
    reserved_orders: u64,
    /// Their units.
    reserved_units: u64,
    /// Their price.
    reserved_amount_minor: i64,
    /// Those that were paid, whenever that was.
    paid_orders: u64,
    /// Their units.
    paid_units: u64,
    /// Their price.
    paid_amount_minor: i64,
}

/// One item.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportItem {
    /// Its name.
    item: String,
    /// For people.
    title: String,
    /// All units there are.
    stock_units: u64,
    /// Units ever reserved.
    reserved_units: u64,
    /// Units that were paid.
    paid_units: u64,
    /// Of these, units whose money went back.
    refunded_units: u64,
    /// Units sold by the books: those paid, less those that came back into stock.
    sold_units: u64,
    /// Sold of all units there are.
    sell_through_bp: Option<u64>,
    /// Refused tries that asked for it first.
    refused_attempts: u64,
    /// Units reserved, and one for each refused try.
    demand: u64,
    /// Demand over all units there are.
    demand_over_stock_bp: Option<u64>,
    /// Price of what was paid.
    revenue_gross_minor: i64,
    /// Price of what went back.
    refunded_minor: i64,
    /// The difference.
    revenue_net_minor: i64,
    /// Its prices, since when: the planned one first.
    prices: Vec<ReportPrice>,
    /// What was reserved at which price, the lowest first.
    sold_at: Vec<ReportSoldAt>,
    /// When the last unit was first taken.
    #[schema(format = DateTime)]
    sold_out_at: Option<String>,
    /// From the opening to then.
    time_to_sell_out_ms: Option<u64>,
}

/// A price and since when it holds.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportPrice {
    /// `null`: from the beginning.
    #[schema(format = DateTime)]
    from: Option<String>,
    /// For one unit.
    unit_price_minor: i64,
}

/// What was reserved at a price.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportSoldAt {
    /// For one unit.
    unit_price_minor: i64,
    /// Units reserved at it.
    reserved_units: u64,
    /// Of these, units that were paid.
    paid_units: u64,
}

/// Who bought. `paid = new + returning`.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportBuyers {
    /// Buyers with a reservation in any state.
    reserved: u64,
    /// Buyers with a paid order.
    paid: u64,
    /// Of these, buyers who had paid in no earlier sale.
    new: u64,
    /// Of these, buyers who had.
    returning: u64,
    /// Paid orders of one paying buyer, in hundredths, rounded down.
    orders_per_buyer_hundredths: Option<u64>,
    /// Most paid orders of one buyer.
    orders_of_one_buyer_max: u64,
}

/// What was to be reached, and what was.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportGoal {
    /// Paid orders to be reached.
    orders: u64,
    /// Paid orders.
    paid_orders: u64,
    /// Of the goal.
    reached_bp: Option<u64>,
}

/// Money that was told to be due back, by the event `reservation.refund_due`.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportRefundsDue {
    /// Payments that came too late, and whose units were gone.
    expired_payments: u64,
    /// The price of their reservations.
    expired_amount_minor: i64,
    /// Payments for what was paid, given up or refunded already.
    conflicting_payments: u64,
    /// The price of their reservations.
    conflicting_amount_minor: i64,
    /// Price differences.
    protected_lines: u64,
    /// Their sum.
    protected_amount_minor: i64,
}

/// Something that the figures do not tell.
#[derive(Serialize, ToSchema)]
pub(super) struct ReportNote {
    /// For programs.
    code: String,
    /// For people.
    detail: String,
}
