//! Folds events into counters and states, in words of its own: nothing here calls the engine's or the store's arithmetic.

use std::collections::BTreeMap;

use flash_types::{Money, SaleDefinition, SaleState};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::report::{Code, Report};

/// States as the database spells them.
pub const RESERVED: u8 = 1;
pub const CONFIRMED: u8 = 2;
pub const RELEASED: u8 = 3;
pub const EXPIRED: u8 = 4;
pub const REFUNDED: u8 = 5;

/// Counters of one item; they may go below zero here, and then do not match.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    pub stock: i64,
    pub unreleased: i64,
    pub available: i64,
    pub reserved: i64,
    pub sold: i64,
}

/// A sale as its events tell it.
#[derive(Debug, Default)]
pub struct SaleFold {
    pub state: &'static str,
    pub definition: String,
    /// The definition is not the text of its draft any more, but one that reads the same.
    pub is_repriced: bool,
    pub is_retired: bool,
    pub items: Vec<Account>,
}

/// One line of a reservation: what the row says, and what the events say.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    pub item: u16,
    pub units: u32,
    pub refunded: u32,
    pub restocked: u32,
    pub folded_refunded: u32,
    pub folded_restocked: u32,
}

/// A reservation: what the row says, and what the events say.
#[derive(Debug)]
pub struct Reservation {
    pub serial: u64,
    pub sale_no: u32,
    pub state: u8,
    pub folded_state: u8,
    pub first: Line,
    pub more: Vec<Line>,
    /// Hash of the payment; 0 for none.
    pub payment: u64,
    pub folded_payment: u64,
    /// Until when it was made to be kept unpaid, milliseconds.
    pub expires_ms: i64,
    /// The same after it was extended.
    pub folded_extension: Option<i64>,
}

impl Reservation {
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        std::iter::once(&self.first).chain(&self.more)
    }

    fn line_mut(&mut self, item: u16) -> Option<&mut Line> {
        std::iter::once(&mut self.first)
            .chain(&mut self.more)
            .find(|line| line.item == item)
    }

    /// What a person calls it.
    pub fn name(&self) -> String {
        format!("r{}-{}", self.sale_no, self.serial)
    }
}

/// An event's row.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub serial: u64,
    pub sale_no: u32,
    pub kind: &'a str,
    pub reservation: Option<u64>,
    pub reference: Option<&'a str>,
    pub data: Option<&'a str>,
}

/// A decision that an event recorded, or a row of `decision`: hashes of where it stands and of what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DecisionMark {
    pub place: u64,
    pub content: u64,
    /// The event; 0 for a row.
    pub serial: u64,
}

/// The facts of an event.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Facts {
    late: bool,
    expired: bool,
    restock: bool,
    whole: bool,
    units: Vec<(u16, u32)>,
    item: u16,
    asked: i64,
    applied: i64,
    pooled: bool,
    protects: bool,
    bought: u32,
    paid: i64,
    price: i64,
    until: i64,
    from: serde_json::Value,
    /// Of a thaw the state, of a new price the price.
    to: serde_json::Value,
    state: Option<String>,
    refunded: Option<Vec<(u16, u32)>>,
}

/// The part of a plan that the books need.
#[derive(Deserialize)]
struct Plan {
    items: Vec<PlannedItem>,
}

#[derive(Deserialize)]
struct PlannedItem {
    stock_units: u32,
}

/// The account of the events.
#[derive(Debug, Default)]
pub struct Fold {
    pub sales: BTreeMap<u32, SaleFold>,
    /// Ascending by serial.
    pub reservations: Vec<Reservation>,
    pub decisions: Vec<DecisionMark>,
}

impl Fold {
    /// Takes a reservation's row, which is its first event at the same time; gives its place.
    pub fn reserve(&mut self, reservation: Reservation, report: &mut Report) -> usize {
        let name = reservation.name();
        for line in reservation.lines() {
            let units = i64::from(line.units);
            match self.account(reservation.sale_no, line.item) {
                Some(account) => {
                    account.available -= units;
                    account.reserved += units;
                }
                None => report.add(
                    Code::SaleMissing,
                    format!(
                        "reservation {name}: no event made item {} of its sale",
                        line.item
                    ),
                ),
            }
        }
        let serial = reservation.serial;
        let place = match self.reservations.last() {
            Some(last) if last.serial > serial => self
                .reservations
                .partition_point(|known| known.serial < serial),
            _ => self.reservations.len(),
        };
        self.reservations.insert(place, reservation);
        place
    }

    /// Takes an event; all come in the order of their serials.
    pub fn event(&mut self, event: &Event<'_>, report: &mut Report) {
        if event.kind == "sale.drafted" {
            return self.drafted(event, report);
        }
        let facts = match event.data.map(serde_json::from_str::<Facts>) {
            None => Facts::default(),
            Some(Ok(facts)) => facts,
            Some(Err(error)) => {
                let detail = format!("event {} ({}): {error}", event.serial, event.kind);
                return report.add(Code::Damaged, detail);
            }
        };
        match event.reservation {
            Some(serial) => self.of_reservation(event, serial, &facts, report),
            None => self.of_sale(event, &facts, report),
        }
    }

    fn of_reservation(
        &mut self,
        event: &Event<'_>,
        serial: u64,
        facts: &Facts,
        report: &mut Report,
    ) {
        let (from, to): (&[u8], Option<u8>) = match event.kind {
            "reservation.confirmed" if facts.late => (&[EXPIRED], Some(CONFIRMED)),
            "reservation.confirmed" => (&[RESERVED], Some(CONFIRMED)),
            "reservation.released" => (&[RESERVED], Some(RELEASED)),
            "reservation.expired" => (&[RESERVED], Some(EXPIRED)),
            "reservation.refunded" if facts.whole => (&[CONFIRMED], Some(REFUNDED)),
            "reservation.refunded" => (&[CONFIRMED], None),
            "reservation.refund_due" if facts.protects => (&[CONFIRMED], None),
            "reservation.refund_due" => (&[CONFIRMED, RELEASED, EXPIRED, REFUNDED], None),
            "reservation.extended" => (&[RESERVED], None),
            _ => {
                return report.add(
                    Code::Damaged,
                    format!("event {} is of unknown type", event.serial),
                );
            }
        };
        self.move_units(event, facts);
        self.record_decision(event, serial, facts);
        let found = self
            .reservations
            .binary_search_by_key(&serial, |reservation| reservation.serial);
        let Ok(place) = found else {
            return report.add(
                Code::ReservationMissing,
                format!(
                    "event {} ({}) speaks of r{}-{serial}, which is not there",
                    event.serial, event.kind, event.sale_no
                ),
            );
        };
        let reservation = &mut self.reservations[place];
        if reservation.sale_no != event.sale_no || !from.contains(&reservation.folded_state) {
            let detail = format!(
                "event {} ({}) does not fit {}, which was {} then",
                event.serial,
                event.kind,
                reservation.name(),
                state_word(reservation.folded_state)
            );
            report.add(Code::EventUnfit, detail);
        }
        if let Some(to) = to {
            reservation.folded_state = to;
        }
        if event.kind == "reservation.confirmed" {
            reservation.folded_payment = payment_hash(event.reference);
        }
        if event.kind == "reservation.refunded" {
            refund(reservation, event, facts, report);
            check_told(reservation, event, facts, report);
        } else if event.kind == "reservation.extended" {
            extend(reservation, event, facts, report);
        } else if event.kind == "reservation.refund_due" {
            check_told(reservation, event, facts, report);
            if facts.protects {
                check_protection(reservation, event, facts, report);
            }
        } else {
            let names_all = reservation.lines().count() == facts.units.len()
                && reservation
                    .lines()
                    .all(|line| facts.units.contains(&(line.item, line.units)));
            if !names_all {
                let detail = format!(
                    "event {} ({}) names other units than {} has",
                    event.serial,
                    event.kind,
                    reservation.name()
                );
                report.add(Code::EventUnfit, detail);
            }
        }
    }

    fn move_units(&mut self, event: &Event<'_>, facts: &Facts) {
        for (item, units) in &facts.units {
            let n = i64::from(*units);
            // What is not there is told where its rows are looked at.
            let Some(account) = self.account(event.sale_no, *item) else {
                continue;
            };
            match event.kind {
                "reservation.confirmed" => {
                    account.sold += n;
                    if facts.late {
                        account.available -= n;
                    } else {
                        account.reserved -= n;
                    }
                }
                "reservation.released" | "reservation.expired" => {
                    account.reserved -= n;
                    if facts.pooled {
                        account.unreleased += n;
                    } else {
                        account.available += n;
                    }
                }
                "reservation.refunded" if facts.restock => {
                    account.sold -= n;
                    account.available += n;
                }
                _ => {}
            }
        }
    }

    fn record_decision(&mut self, event: &Event<'_>, reservation: u64, facts: &Facts) {
        if facts.protects {
            let detail = format!(
                "{{\"units\":{},\"paid\":{},\"price\":{}}}",
                facts.bought, facts.paid, facts.price
            );
            let item = facts.item.to_string();
            self.decisions.push(DecisionMark {
                place: decision_place(event.sale_no, "price_protection", &item, reservation),
                content: decision_content("done", Some(reservation), Some(&detail)),
                serial: event.serial,
            });
            return;
        }
        let Some(reference) = event.reference else {
            return;
        };
        let (kind, scope, outcome, detail) = match event.kind {
            "reservation.confirmed" => ("payment", 0, "taken", None),
            "reservation.refund_due" if facts.expired => ("payment", 0, "refused_expired", None),
            "reservation.refund_due" => ("payment", 0, "refused_conflict", None),
            _ => {
                let lines: Vec<String> = facts
                    .units
                    .iter()
                    .map(|(item, units)| format!("[{item},{units}]"))
                    .collect();
                let detail = format!(
                    "{{\"restock\":{},\"lines\":[{}]}}",
                    facts.restock,
                    lines.join(",")
                );
                ("refund", reservation, "done", Some(detail))
            }
        };
        self.decisions.push(DecisionMark {
            place: decision_place(event.sale_no, kind, reference, scope),
            content: decision_content(outcome, Some(reservation), detail.as_deref()),
            serial: event.serial,
        });
    }

    fn of_sale(&mut self, event: &Event<'_>, facts: &Facts, report: &mut Report) {
        let Some(sale) = self.sales.get_mut(&event.sale_no) else {
            return report.add(
                Code::SaleMissing,
                format!(
                    "event {} ({}): sale {} was never drafted",
                    event.serial, event.kind, event.sale_no
                ),
            );
        };
        let (from, to): (&[&str], &'static str) = match event.kind {
            "sale.published" => (&["draft"], "published"),
            "sale.opened" => (&["published"], "open"),
            "sale.paused" => (&["open"], "paused"),
            "sale.resumed" => (&["paused"], "open"),
            "sale.closed" => (&["published", "open", "paused"], "closed"),
            "sale.frozen" => (&[], "frozen"),
            "sale.unpublished" => (&["published", "open", "paused"], "draft"),
            "sale.thawed" => match facts.to.as_str().and_then(SaleState::parse) {
                Some(to) => (&["frozen"], to.as_str()),
                None => {
                    let detail = format!("event {} (sale.thawed) names no state", event.serial);
                    return report.add(Code::Damaged, detail);
                }
            },
            "sale.retired" => {
                sale.is_retired = true;
                return;
            }
            "sale.stock_changed" => return self.stock_changed(event, facts, report),
            "sale.wave" => return self.wave(event, facts, report),
            "sale.price_changed" => return price_changed(sale, event, facts, report),
            // They move nothing and decide nothing.
            "sale.attempts" => return,
            _ => {
                return report.add(
                    Code::Damaged,
                    format!("event {} is of unknown type", event.serial),
                );
            }
        };
        if to != "frozen" && !from.contains(&sale.state) {
            let detail = format!(
                "event {} ({}) does not fit sale {}, which was {} then",
                event.serial, event.kind, event.sale_no, sale.state
            );
            report.add(Code::EventUnfit, detail);
        }
        sale.state = to;
        match event.kind {
            "sale.opened" => sale.release(&facts.units, 1),
            "sale.unpublished" => {
                sale.release(&facts.units, -1);
                if sale.items.iter().any(|item| item.available != 0) {
                    let detail = format!(
                        "event {} (sale.unpublished) leaves units of sale {} available",
                        event.serial, event.sale_no
                    );
                    report.add(Code::EventUnfit, detail);
                }
                // Ascending by serial, and sales mixed: a look at all, for what a person does once or twice.
                let was_reserved = self.reservations.iter();
                if was_reserved
                    .map(|known| known.sale_no)
                    .any(|sale_no| sale_no == event.sale_no)
                {
                    let detail = format!(
                        "event {} (sale.unpublished): something of sale {} was reserved",
                        event.serial, event.sale_no
                    );
                    report.add(Code::EventUnfit, detail);
                }
            }
            _ => {}
        }
    }

    fn wave(&mut self, event: &Event<'_>, facts: &Facts, report: &mut Report) {
        if let Some(sale) = self.sales.get(&event.sale_no) {
            sale.must_be(&["published", "open", "paused"], event, report);
        }
        let [(item, units)] = facts.units[..] else {
            let detail = format!("event {} (sale.wave) names no item", event.serial);
            return report.add(Code::Damaged, detail);
        };
        let Some(account) = self.account(event.sale_no, item) else {
            let detail = format!("event {}: no item {item} of its sale", event.serial);
            return report.add(Code::SaleMissing, detail);
        };
        account.unreleased -= i64::from(units);
        account.available += i64::from(units);
        if account.unreleased < 0 {
            let detail = format!(
                "event {} (sale.wave) releases {units} units of item {item} of sale {}, {} more than there were",
                event.serial, event.sale_no, -account.unreleased
            );
            report.add(Code::EventUnfit, detail);
        }
        // By hand and without a key it may come again.
        let Some(reference) = event.reference else {
            return;
        };
        let detail = format!("{{\"item\":{item},\"units\":{units}}}");
        let place = decision_place(event.sale_no, "wave", reference, item.into());
        self.decisions.push(DecisionMark {
            place,
            content: decision_content("done", None, Some(&detail)),
            serial: event.serial,
        });
    }

    fn stock_changed(&mut self, event: &Event<'_>, facts: &Facts, report: &mut Report) {
        match self.account(event.sale_no, facts.item) {
            Some(account) => {
                account.stock += facts.applied;
                account.available += facts.applied;
            }
            None => report.add(
                Code::SaleMissing,
                format!("event {}: no item {} of its sale", event.serial, facts.item),
            ),
        }
        let detail = format!(
            "{{\"item\":{},\"asked\":{},\"applied\":{}}}",
            facts.item, facts.asked, facts.applied
        );
        let (key, scope) = (event.reference.unwrap_or_default(), u64::from(facts.item));
        self.decisions.push(DecisionMark {
            place: decision_place(event.sale_no, "stock_change", key, scope),
            content: decision_content("done", None, Some(&detail)),
            serial: event.serial,
        });
    }

    fn drafted(&mut self, event: &Event<'_>, report: &mut Report) {
        let definition = event.data.unwrap_or_default();
        let plan: Plan = match serde_json::from_str(definition) {
            Ok(plan) => plan,
            Err(error) => {
                let detail = format!("event {} (sale.drafted): {error}", event.serial);
                return report.add(Code::Damaged, detail);
            }
        };
        let account = |item: &PlannedItem| Account {
            stock: i64::from(item.stock_units),
            unreleased: i64::from(item.stock_units),
            ..Account::default()
        };
        let fold = SaleFold {
            state: "draft",
            definition: definition.to_owned(),
            is_repriced: false,
            is_retired: false,
            items: plan.items.iter().map(account).collect(),
        };
        self.sales.insert(event.sale_no, fold);
    }

    fn account(&mut self, sale_no: u32, item: u16) -> Option<&mut Account> {
        self.sales
            .get_mut(&sale_no)?
            .items
            .get_mut(usize::from(item))
    }
}

impl SaleFold {
    fn must_be(&self, states: &[&str], event: &Event<'_>, report: &mut Report) {
        if !states.contains(&self.state) {
            let detail = format!(
                "event {} ({}) does not fit sale {}, which was {} then",
                event.serial, event.kind, event.sale_no, self.state
            );
            report.add(Code::EventUnfit, detail);
        }
    }

    /// Units leave what is unreleased (`sign` 1), or come back to it (-1).
    fn release(&mut self, units: &[(u16, u32)], sign: i64) {
        for (item, units) in units {
            if let Some(account) = self.items.get_mut(usize::from(*item)) {
                account.unreleased -= sign * i64::from(*units);
                account.available += sign * i64::from(*units);
            }
        }
    }

    /// Whether a stored plan is what the events made it.
    pub fn is_planned_as(&self, stored: &str) -> bool {
        if self.definition == stored {
            return true;
        }
        let parsed = |text| serde_json::from_str::<serde_json::Value>(text).ok();
        self.is_repriced
            && parsed(stored).is_some_and(|plan| Some(plan) == parsed(&self.definition))
    }
}

/// Another price in the plan, which has to be the one that it says was there.
fn price_changed(sale: &mut SaleFold, event: &Event<'_>, facts: &Facts, report: &mut Report) {
    sale.must_be(&["paused"], event, report);
    let plan = serde_json::from_str::<SaleDefinition>(&sale.definition).ok();
    let price = facts.to.as_i64().map(Money);
    let Some((mut plan, price)) = plan.zip(price) else {
        let detail = format!("event {} (sale.price_changed) cannot be read", event.serial);
        return report.add(Code::Damaged, detail);
    };
    let from = facts.from.as_i64().map(Money);
    match plan.items.get_mut(usize::from(facts.item)) {
        Some(item) if Some(item.sale_price_minor) == from => item.sale_price_minor = price,
        Some(_) | None => {
            let detail = format!(
                "event {} (sale.price_changed): item {} was not sold at {}",
                event.serial, facts.item, facts.from
            );
            report.add(Code::EventUnfit, detail);
        }
    }
    if let Ok(definition) = serde_json::to_string(&plan) {
        sale.definition = definition;
        sale.is_repriced = true;
    }
}

fn extend(reservation: &mut Reservation, event: &Event<'_>, facts: &Facts, report: &mut Report) {
    let is_fit = reservation.folded_extension.is_none() && facts.until > reservation.expires_ms;
    if !is_fit {
        let detail = format!(
            "event {} extends {} once more, or to a time before its own",
            event.serial,
            reservation.name()
        );
        report.add(Code::EventUnfit, detail);
    }
    reservation.folded_extension = Some(facts.until);
}

/// What an event tells of its reservation beside what it changes: the state that it stays in, refunds so far.
/// Events of older programs do not tell it.
fn check_told(reservation: &Reservation, event: &Event<'_>, facts: &Facts, report: &mut Report) {
    let state = state_word(reservation.folded_state);
    let is_state = facts.state.as_ref().is_none_or(|told| told == state);
    let is_refunded = facts.refunded.as_ref().is_none_or(|told| {
        reservation.lines().all(|line| {
            let of_line = told.iter().find(|(item, _)| *item == line.item);
            of_line.map_or(0, |(_, units)| *units) == line.folded_refunded
        })
    });
    if !is_state || !is_refunded {
        let detail = format!(
            "event {} ({}) tells another state or other refunds of {} than there were",
            event.serial,
            event.kind,
            reservation.name()
        );
        report.add(Code::EventUnfit, detail);
    }
}

/// Money is due for units that the buyer still has, and only where the price fell.
fn check_protection(
    reservation: &Reservation,
    event: &Event<'_>,
    facts: &Facts,
    report: &mut Report,
) {
    let line = reservation.lines().find(|line| line.item == facts.item);
    let kept = line.map_or(0, |line| line.units.saturating_sub(line.folded_refunded));
    if facts.bought == 0 || facts.bought > kept || facts.price >= facts.paid {
        let detail = format!(
            "event {} pays back for {} units of item {} of {}, which has {kept}, or at no lower price",
            event.serial,
            facts.bought,
            facts.item,
            reservation.name()
        );
        report.add(Code::EventUnfit, detail);
    }
}

fn refund(reservation: &mut Reservation, event: &Event<'_>, facts: &Facts, report: &mut Report) {
    let name = reservation.name();
    for (item, units) in &facts.units {
        let Some(line) = reservation.line_mut(*item) else {
            let detail = format!(
                "event {} refunds item {item}, which {name} lacks",
                event.serial
            );
            report.add(Code::EventUnfit, detail);
            continue;
        };
        line.folded_refunded = line.folded_refunded.saturating_add(*units);
        if facts.restock {
            line.folded_restocked = line.folded_restocked.saturating_add(*units);
        }
        if line.folded_refunded > line.units {
            let detail = format!("event {} refunds more than {name} has", event.serial);
            report.add(Code::EventUnfit, detail);
        }
    }
}

/// The word for a state.
pub fn state_word(state: u8) -> &'static str {
    match state {
        RESERVED => "reserved",
        CONFIRMED => "confirmed",
        RELEASED => "released",
        EXPIRED => "expired",
        REFUNDED => "refunded",
        _ => "broken",
    }
}

/// Never 0 for a payment.
pub fn payment_hash(reference: Option<&str>) -> u64 {
    reference.map_or(0, |reference| xxh3_64(reference.as_bytes()).max(1))
}

pub fn decision_place(sale_no: u32, kind: &str, reference: &str, scope: u64) -> u64 {
    xxh3_64(format!("{sale_no} {kind} {reference} {scope}").as_bytes())
}

pub fn decision_content(outcome: &str, reservation: Option<u64>, detail: Option<&str>) -> u64 {
    xxh3_64(format!("{outcome} {reservation:?} {detail:?}").as_bytes())
}
