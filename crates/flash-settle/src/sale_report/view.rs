//! What a report says; serializes to the contract's JSON. Parts of wholes are basis points (1/10,000), rounded down,
//! absent where there is no whole.

use flash_types::{Currency, ItemId, SaleId, SaleState, Timestamp};
use serde::Serialize;

/// The report of one sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which sale.
    pub sale_id: SaleId,
    /// For people.
    pub title: String,
    /// Sales that belong together.
    pub series: Option<String>,
    /// Where the sale stood.
    pub state: SaleState,
    /// Of all amounts.
    pub currency: Currency,
    /// When the report was made.
    pub made_at: Timestamp,
    /// When the sale was planned, and when it was open.
    pub window: Window,
    /// From the try to the money.
    pub funnel: Funnel,
    /// Refused tries by reason, the most frequent first.
    pub refusals: Vec<Refusals>,
    /// Length of a slot.
    pub slot_s: u64,
    /// Sales over time, ascending; slots in which nothing happened are left out.
    pub slots: Vec<Slot>,
    /// The slot of which most units were paid.
    pub best_slot: Option<Slot>,
    /// In the order of the plan.
    pub items: Vec<Item>,
    /// Who bought.
    pub buyers: Buyers,
    /// What was to be reached, and what was.
    pub goal: Option<Goal>,
    /// Money that was told to be due back.
    pub refunds_due: RefundsDue,
    /// What the figures do not tell.
    pub notes: Vec<Note>,
}

/// When a sale was planned, and when it was open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Planned begin.
    pub starts_at: Timestamp,
    /// Planned end.
    pub ends_at: Timestamp,
    /// When it opened.
    pub opened_at: Option<Timestamp>,
    /// When it closed.
    pub closed_at: Option<Timestamp>,
}

/// Orders, with their units and amounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Stage {
    /// Reservations.
    pub orders: u64,
    /// Units in them.
    pub units: u64,
    /// Their price.
    pub amount_minor: i64,
}

impl Stage {
    pub(super) fn add(&mut self, units: u64, amount_minor: i64) {
        self.orders += 1;
        self.units += units;
        self.amount_minor = self.amount_minor.saturating_add(amount_minor);
    }
}

/// From the try to the money: `attempts = reserved + refused + replayed + unknown` and
/// `reserved = open + in flight + paid + released + expired`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Funnel {
    /// All tries.
    pub attempts: u64,
    /// Tries that were told a no.
    pub refused_attempts: u64,
    /// Tries with a key that had won.
    pub replayed_attempts: u64,
    /// Tries that were told that nobody knows.
    pub unknown_attempts: u64,
    /// Everything that was ever reserved.
    pub reserved: Stage,
    /// Of that: waits for its payment.
    pub open: Stage,
    /// Of that: a change of it was with the store when it was read.
    pub in_flight: Stage,
    /// Of that: was paid, refunded or not.
    pub paid: Stage,
    /// Of that: was given up.
    pub released: Stage,
    /// Of that: was not paid in time, nor later.
    pub expired: Stage,
    /// Of what was paid: orders of which money went back, with the units and the money that did.
    pub refunded: Stage,
    /// Paid orders of all tries.
    pub conversion_bp: Option<u64>,
    /// Paid orders of those reserved.
    pub paid_bp: Option<u64>,
}

/// Tries refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusals {
    /// The reason, as buyers were told.
    pub outcome: String,
    /// All of them.
    pub attempts: u64,
    /// The same by the first item that was asked for.
    pub items: Vec<ItemRefusals>,
}

/// Tries refused for one reason, of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ItemRefusals {
    /// `null`: refused before the item was looked at, or it is not of this sale.
    pub item: Option<ItemId>,
    /// How many.
    pub attempts: u64,
}

/// What was tried and reserved in a part of the sale, and what became of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Slot {
    /// Its begin.
    pub from: Timestamp,
    /// All tries.
    pub attempts: u64,
    /// Tries that were told a no.
    pub refused_attempts: u64,
    /// Reservations made in it.
    pub reserved_orders: u64,
    /// Their units.
    pub reserved_units: u64,
    /// Their price.
    pub reserved_amount_minor: i64,
    /// Those that were paid, whenever that was.
    pub paid_orders: u64,
    /// Their units.
    pub paid_units: u64,
    /// Their price.
    pub paid_amount_minor: i64,
}

/// One item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Its name.
    pub item: ItemId,
    /// For people.
    pub title: String,
    /// All units there are.
    pub stock_units: u64,
    /// Units ever reserved.
    pub reserved_units: u64,
    /// Units that were paid.
    pub paid_units: u64,
    /// Of these, units whose money went back.
    pub refunded_units: u64,
    /// Units sold by the books: those paid, less those that came back into stock.
    pub sold_units: u64,
    /// Sold of all units there are.
    pub sell_through_bp: Option<u64>,
    /// Refused tries that asked for it first.
    pub refused_attempts: u64,
    /// Units reserved, and one for each refused try.
    pub demand: u64,
    /// Demand over all units there are.
    pub demand_over_stock_bp: Option<u64>,
    /// Price of what was paid.
    pub revenue_gross_minor: i64,
    /// Price of what went back.
    pub refunded_minor: i64,
    /// The difference.
    pub revenue_net_minor: i64,
    /// Its prices, since when: the planned one first.
    pub prices: Vec<Price>,
    /// What was reserved at which price, the lowest first.
    pub sold_at: Vec<SoldAt>,
    /// When the last unit was first taken.
    pub sold_out_at: Option<Timestamp>,
    /// From the opening to then.
    pub time_to_sell_out_ms: Option<u64>,
}

/// A price and since when it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Price {
    /// `null`: from the beginning.
    pub from: Option<Timestamp>,
    /// For one unit.
    pub unit_price_minor: i64,
}

/// What was reserved at a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SoldAt {
    /// For one unit.
    pub unit_price_minor: i64,
    /// Units reserved at it.
    pub reserved_units: u64,
    /// Of these, units that were paid.
    pub paid_units: u64,
}

/// Who bought. `paid = new + returning`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Buyers {
    /// Buyers with a reservation in any state.
    pub reserved: u64,
    /// Buyers with a paid order.
    pub paid: u64,
    /// Of these, buyers who had paid in no earlier sale.
    pub new: u64,
    /// Of these, buyers who had.
    pub returning: u64,
    /// Paid orders of one paying buyer, in hundredths, rounded down.
    pub orders_per_buyer_hundredths: Option<u64>,
    /// Most paid orders of one buyer.
    pub orders_of_one_buyer_max: u64,
}

/// What was to be reached, and what was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Goal {
    /// Paid orders to be reached.
    pub orders: u64,
    /// Paid orders.
    pub paid_orders: u64,
    /// Of the goal.
    pub reached_bp: Option<u64>,
}

/// Money that was told to be due back, by the event `reservation.refund_due`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RefundsDue {
    /// Payments that came too late, and whose units were gone.
    pub expired_payments: u64,
    /// The price of their reservations.
    pub expired_amount_minor: i64,
    /// Payments for what was paid, given up or refunded already.
    pub conflicting_payments: u64,
    /// The price of their reservations.
    pub conflicting_amount_minor: i64,
    /// Price differences.
    pub protected_lines: u64,
    /// Their sum.
    pub protected_amount_minor: i64,
}

/// Something that the figures do not tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub detail: String,
}
