//! The report of a sale, made of rows: reservations as they stand, counts of tries, events, paid orders of earlier sales.
//!
//! Owns the arithmetic and nothing else: no clock, no store. Rows may come in any order, but for events, which come in
//! theirs. Memory does not grow with the sale, but for 24 bytes a buyer and 8 an expired reservation.
//! Invariant: parts sum to their wholes; slots and items sum to the funnel.

use std::collections::{BTreeMap, HashMap};

use flash_store::AttemptsRow;
use flash_types::{
    BuyerId, ItemId, ItemIndex, ItemUnits, Reservation, ReservationState, SaleDefinition,
    SaleState, Serial, Timestamp,
};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

mod csv;
mod notes;
mod slots;
mod stock;
#[cfg(test)]
mod tests;
mod view;

pub use csv::csv;
pub use view::{
    Buyers, Funnel, Goal, Item, ItemRefusals, Note, Price, RefundsDue, Refusals, Report, Slot,
    SoldAt, Stage, Window,
};

use notes::Doubts;
use slots::Slots;
use stock::Stock;

/// Tries that were no refusal.
const REPLAYED: &str = "replayed";
const UNKNOWN: &str = "unknown";

/// What is known of a sale before its rows are read.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its plan.
    pub definition: SaleDefinition,
    /// Its prices of now, in the order of the items.
    pub prices_minor: Vec<i64>,
    /// Where it stands.
    pub state: SaleState,
    /// Where the units of its items are, by the books.
    pub units: Vec<ItemUnits>,
    /// It left memory: tries are not counted any more.
    pub is_retired: bool,
}

/// An event as it is told outside.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Its type.
    pub kind: &'a str,
    /// When.
    pub at: Timestamp,
    /// The reservation that it is about.
    pub reservation: Option<Serial>,
    /// Its data: the reservation as it stood after it, or what the sale tells.
    pub data: &'a Value,
}

/// A report that is being made.
#[derive(Debug)]
pub struct Accumulator {
    plan: Plan,
    places: HashMap<ItemId, usize>,
    items: Vec<ItemSums>,
    slots: Slots,
    funnel: Funnel,
    /// By reason: tries of each item, and last of none.
    refused: BTreeMap<String, Vec<u64>>,
    buyers: HashMap<u64, BuyerSums>,
    stock: Stock,
    due: RefundsDue,
    opened_at: Option<Timestamp>,
    closed_at: Option<Timestamp>,
    doubts: Doubts,
}

#[derive(Debug, Clone, Default)]
struct ItemSums {
    reserved_units: u64,
    paid_units: u64,
    refunded_units: u64,
    gross_minor: i64,
    refunded_minor: i64,
    /// By price: few, since each is set by hand.
    sold_at: BTreeMap<i64, SoldAt>,
}

#[derive(Debug, Clone, Copy, Default)]
struct BuyerSums {
    paid_orders: u32,
    is_returning: bool,
}

impl Accumulator {
    /// Begins a report.
    pub fn new(plan: Plan) -> Self {
        let definition = &plan.definition;
        let names = definition.items.iter().map(|item| item.item);
        Self {
            places: names.zip(0..).collect(),
            items: vec![ItemSums::default(); definition.items.len()],
            slots: Slots::new(definition.starts_at, definition.ends_at),
            stock: Stock::new(definition),
            plan,
            funnel: Funnel::default(),
            refused: BTreeMap::new(),
            buyers: HashMap::new(),
            due: RefundsDue::default(),
            opened_at: None,
            closed_at: None,
            doubts: Doubts::default(),
        }
    }

    /// Adds a reservation as it stands.
    pub fn add_reservation(&mut self, reservation: &Reservation) {
        let units: u64 = reservation
            .lines
            .iter()
            .map(|l| u64::from(l.quantity))
            .sum();
        let amount_minor = reservation.amount_minor.0;
        let is_paid = is_paid(reservation.state);
        self.doubts.saw_serial(reservation.reservation_id.serial);
        let funnel = &mut self.funnel;
        funnel.reserved.add(units, amount_minor);
        match reservation.state {
            ReservationState::Unknown => &mut funnel.in_flight,
            ReservationState::Reserved => &mut funnel.open,
            ReservationState::Confirmed | ReservationState::Refunded => &mut funnel.paid,
            ReservationState::Released => &mut funnel.released,
            ReservationState::Expired => &mut funnel.expired,
        }
        .add(units, amount_minor);
        let (mut refunded_units, mut refunded_minor) = (0, 0_i64);
        for line in &reservation.lines {
            let Some(place) = self.places.get(&line.item) else {
                continue;
            };
            let (back_units, back_minor) = self.items[*place].add(line, is_paid);
            refunded_units += back_units;
            refunded_minor = refunded_minor.saturating_add(back_minor);
        }
        if refunded_units > 0 {
            funnel.refunded.add(refunded_units, refunded_minor);
        }
        self.slots.add(reservation.created_at, |slot| {
            slot.attempts += 1;
            slot.reserved_orders += 1;
            slot.reserved_units += units;
            slot.reserved_amount_minor = slot.reserved_amount_minor.saturating_add(amount_minor);
            if is_paid {
                slot.paid_orders += 1;
                slot.paid_units += units;
                slot.paid_amount_minor = slot.paid_amount_minor.saturating_add(amount_minor);
            }
        });
        let buyer = self.buyers.entry(hash(&reservation.buyer_id)).or_default();
        buyer.paid_orders += u32::from(is_paid);
    }

    /// Adds counts of tries that reserved nothing.
    pub fn add_attempts(&mut self, row: &AttemptsRow) {
        self.doubts.has_counts = true;
        for count in &row.counts {
            let attempts = count.attempts;
            let mut is_refused = false;
            match count.outcome.as_str() {
                REPLAYED => self.funnel.replayed_attempts += attempts,
                UNKNOWN => self.funnel.unknown_attempts += attempts,
                outcome => {
                    is_refused = true;
                    self.funnel.refused_attempts += attempts;
                    self.add_refusals(outcome, count.item, attempts);
                }
            }
            self.slots.add(row.from, |slot| {
                slot.attempts += attempts;
                if is_refused {
                    slot.refused_attempts += attempts;
                }
            });
        }
    }

    fn add_refusals(&mut self, outcome: &str, item: Option<ItemIndex>, attempts: u64) {
        let none = self.items.len();
        let place = item.map_or(none, |item| usize::from(item.0).min(none));
        let by_item = match self.refused.get_mut(outcome) {
            Some(by_item) => by_item,
            None => self
                .refused
                .entry(outcome.to_owned())
                .or_insert_with(|| vec![0; none + 1]),
        };
        by_item[place] += attempts;
    }

    /// Adds an event; those of types that the report does not need change nothing.
    pub fn add_event(&mut self, event: &Event<'_>) {
        match event.kind {
            "sale.published" => {
                // A plan of its own, if there was one before: nothing was reserved by that.
                self.stock = Stock::new(&self.plan.definition);
                (self.opened_at, self.closed_at) = (None, None);
            }
            "sale.opened" => self.opened_at = self.opened_at.or(Some(event.at)),
            "sale.closed" => self.closed_at = Some(event.at),
            "reservation.refund_due" => self.add_due(event.data),
            _ => self.stock.add(event, &self.places),
        }
    }

    fn add_due(&mut self, data: &Value) {
        let due = &mut self.due;
        let of_order = data["amount_minor"].as_i64().unwrap_or(0);
        let (count, sum, amount) = match data["refund_due"]["reason"].as_str() {
            Some("price_protection") => {
                let amount = data["refund_due"]["amount_minor"].as_i64().unwrap_or(0);
                let (count, sum) = (&mut due.protected_lines, &mut due.protected_amount_minor);
                (count, sum, amount)
            }
            Some("reservation_expired") => {
                let (count, sum) = (&mut due.expired_payments, &mut due.expired_amount_minor);
                (count, sum, of_order)
            }
            Some(_) | None => (
                &mut due.conflicting_payments,
                &mut due.conflicting_amount_minor,
                of_order,
            ),
        };
        *count += 1;
        *sum = sum.saturating_add(amount);
    }

    /// Adds an order of a sale that began earlier: who paid then is a returning buyer. After all reservations of this sale.
    pub fn add_earlier(&mut self, reservation: &Reservation) {
        if is_paid(reservation.state)
            && let Some(buyer) = self.buyers.get_mut(&hash(&reservation.buyer_id))
        {
            buyer.is_returning = true;
        }
    }

    /// Says that so many earlier sales were not looked through for returning buyers.
    pub fn left_out_earlier(&mut self, sales: usize) {
        self.doubts.earlier_left_out = sales;
    }

    /// The report.
    pub fn finish(mut self, made_at: Timestamp) -> Report {
        let notes = self.doubts.notes(&self.plan, &self.funnel, made_at);
        let funnel = self.finished_funnel();
        let items = self.finished_items();
        let slot_s = self.slots.length_s();
        let slots = self.slots.finish();
        let definition = self.plan.definition;
        let goal = definition.goal.map(|goal| Goal {
            orders: goal.orders,
            paid_orders: funnel.paid.orders,
            reached_bp: part_bp(funnel.paid.orders, goal.orders),
        });
        Report {
            sale_id: definition.sale_id,
            title: definition.title,
            series: definition.series,
            state: self.plan.state,
            currency: definition.currency,
            made_at,
            window: Window {
                starts_at: definition.starts_at,
                ends_at: definition.ends_at,
                opened_at: self.opened_at,
                closed_at: self.closed_at,
            },
            funnel,
            refusals: refusals(&self.refused, &definition.items),
            slot_s,
            best_slot: best(&slots),
            slots,
            items,
            buyers: buyers(&self.buyers),
            goal,
            refunds_due: self.due,
            notes,
        }
    }

    fn finished_funnel(&mut self) -> Funnel {
        let funnel = &mut self.funnel;
        funnel.attempts = funnel.reserved.orders
            + funnel.refused_attempts
            + funnel.replayed_attempts
            + funnel.unknown_attempts;
        funnel.conversion_bp = part_bp(funnel.paid.orders, funnel.attempts);
        funnel.paid_bp = part_bp(funnel.paid.orders, funnel.reserved.orders);
        *funnel
    }

    fn finished_items(&self) -> Vec<Item> {
        let opened_at = self.opened_at.unwrap_or(self.plan.definition.starts_at);
        let planned = self.plan.definition.items.iter().enumerate();
        let item = |(place, planned): (usize, &flash_types::ItemDefinition)| {
            let sums = &self.items[place];
            let units = self.plan.units.get(place).copied().unwrap_or_default();
            let refused_attempts = self.refused.values().map(|by_item| by_item[place]).sum();
            let demand = sums.reserved_units + refused_attempts;
            let sold_out_at = self.stock.sold_out_at(place);
            let now_minor = self.plan.prices_minor.get(place).copied();
            Item {
                item: planned.item,
                title: planned.title.clone(),
                stock_units: units.stock,
                reserved_units: sums.reserved_units,
                paid_units: sums.paid_units,
                refunded_units: sums.refunded_units,
                sold_units: units.sold,
                sell_through_bp: part_bp(units.sold, units.stock),
                refused_attempts,
                demand,
                demand_over_stock_bp: part_bp(demand, units.stock),
                revenue_gross_minor: sums.gross_minor,
                refunded_minor: sums.refunded_minor,
                revenue_net_minor: sums.gross_minor - sums.refunded_minor,
                prices: self
                    .stock
                    .prices(place, now_minor.unwrap_or(planned.sale_price_minor.0)),
                sold_at: sums.sold_at.values().copied().collect(),
                sold_out_at,
                time_to_sell_out_ms: sold_out_at
                    .map(|at| u64::try_from(at.0 - opened_at.0).unwrap_or(0)),
            }
        };
        planned.map(item).collect()
    }
}

impl ItemSums {
    /// Adds a line; gives the units and the money of it that went back.
    fn add(&mut self, line: &flash_types::ReservationLine, is_paid: bool) -> (u64, i64) {
        let price_minor = line.unit_price_minor.0;
        let units = u64::from(line.quantity);
        let sold_at = self.sold_at.entry(price_minor).or_default();
        sold_at.unit_price_minor = price_minor;
        sold_at.reserved_units += units;
        self.reserved_units += units;
        if !is_paid {
            return (0, 0);
        }
        let back_units = u64::from(line.refunded_units);
        let back_minor = line.unit_price_minor.times(line.refunded_units).0;
        sold_at.paid_units += units;
        self.paid_units += units;
        self.refunded_units += back_units;
        let gross_minor = line.unit_price_minor.times(line.quantity).0;
        self.gross_minor = self.gross_minor.saturating_add(gross_minor);
        self.refunded_minor = self.refunded_minor.saturating_add(back_minor);
        (back_units, back_minor)
    }
}

fn is_paid(state: ReservationState) -> bool {
    match state {
        ReservationState::Confirmed | ReservationState::Refunded => true,
        ReservationState::Unknown
        | ReservationState::Reserved
        | ReservationState::Released
        | ReservationState::Expired => false,
    }
}

/// Buyers by 64 bits: two of a million share theirs in one of 37 million reports.
fn hash(buyer: &BuyerId) -> u64 {
    xxh3_64(buyer.as_bytes())
}

/// Basis points, rounded down.
fn part_bp(part: u64, whole: u64) -> Option<u64> {
    let bp = (u128::from(part) * 10_000).checked_div(u128::from(whole))?;
    Some(u64::try_from(bp).unwrap_or(u64::MAX))
}

/// Most units paid, then most reserved, then the first.
fn best(slots: &[Slot]) -> Option<Slot> {
    let reserved = slots.iter().filter(|slot| slot.reserved_units > 0);
    // The last of several that are equal is taken: so from behind.
    let best = reserved
        .rev()
        .max_by_key(|slot| (slot.paid_units, slot.reserved_units));
    best.copied()
}

fn refusals(
    refused: &BTreeMap<String, Vec<u64>>,
    items: &[flash_types::ItemDefinition],
) -> Vec<Refusals> {
    let names = || items.iter().map(|item| Some(item.item)).chain([None]);
    let of_outcome = |(outcome, by_item): (&String, &Vec<u64>)| Refusals {
        outcome: outcome.clone(),
        attempts: by_item.iter().sum(),
        items: names()
            .zip(by_item)
            .filter(|(_, attempts)| **attempts > 0)
            .map(|(item, attempts)| ItemRefusals {
                item,
                attempts: *attempts,
            })
            .collect(),
    };
    let mut all: Vec<_> = refused.iter().map(of_outcome).collect();
    // Stable: equal ones stay by name.
    all.sort_by_key(|refusals| std::cmp::Reverse(refusals.attempts));
    all
}

fn buyers(all: &HashMap<u64, BuyerSums>) -> Buyers {
    let mut buyers = Buyers::default();
    let mut paid_orders = 0;
    for buyer in all.values() {
        buyers.reserved += 1;
        if buyer.paid_orders == 0 {
            continue;
        }
        buyers.paid += 1;
        if buyer.is_returning {
            buyers.returning += 1;
        } else {
            buyers.new += 1;
        }
        let orders = u64::from(buyer.paid_orders);
        paid_orders += orders;
        buyers.orders_of_one_buyer_max = buyers.orders_of_one_buyer_max.max(orders);
    }
    buyers.orders_per_buyer_hundredths = (paid_orders * 100).checked_div(buyers.paid);
    buyers
}
