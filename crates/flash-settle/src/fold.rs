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
    pub is_retired: bool,
    pub items: Vec<Account>,
}

impl SaleFold {
    /// Units unreleased -> available, or with `sign` -1 back.
    fn release(&mut self, units: &[(u16, u32)], sign: i64) {
        for (item, units) in units {
            if let Some(account) = self.items.get_mut(usize::from(*item)) {
                account.unreleased -= sign * i64::from(*units);
                account.available += sign * i64::from(*units);
            }
        }
    }

    fn must_be(&self, states: &[&str], event: &Event<'_>, report: &mut Report) {
        if !states.contains(&self.state) {
            let detail = format!(
                "event {} ({}) does not fit sale {}, which was {} then",
                event.serial, event.kind, event.sale_no, self.state
            );
            report.add(Code::EventUnfit, detail);
        }
    }
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
    /// Of a thaw the state, of a new price the price.
    to: serde_json::Value,
    from: i64,
    protects: bool,
    bought: u32,
    paid: i64,
    price: i64,
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
        } else if to.is_some() {
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
            let (bought, paid, price) = (facts.bought, facts.paid, facts.price);
            let detail = format!("{{\"units\":{bought},\"paid\":{paid},\"price\":{price}}}");
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
            "sale.price_changed" => return self.price_changed(event, facts, report),
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
        let sign = match event.kind {
            "sale.opened" => 1,
            "sale.unpublished" => -1,
            _ => return,
        };
        sale.release(&facts.units, sign);
        let of_sale = |reservation: &Reservation| reservation.sale_no == event.sale_no;
        if event.kind == "sale.unpublished" && self.reservations.iter().any(of_sale) {
            let detail = format!(
                "event {} (sale.unpublished): something was reserved before",
                event.serial
            );
            report.add(Code::EventUnfit, detail);
        }
    }

    fn wave(&mut self, event: &Event<'_>, facts: &Facts, report: &mut Report) {
        let Some(sale) = self.sales.get_mut(&event.sale_no) else {
            return;
        };
        sale.release(&facts.units, 1);
        sale.must_be(&["published", "open", "paused"], event, report);
        let [(item, units)] = facts.units[..] else {
            let detail = format!("event {} (sale.wave) is not of one item", event.serial);
            return report.add(Code::Damaged, detail);
        };
        if let Some(reference) = event.reference {
            let detail = format!("{{\"item\":{item},\"units\":{units}}}");
            self.decisions.push(DecisionMark {
                place: decision_place(event.sale_no, "wave", reference, u64::from(item)),
                content: decision_content("done", None, Some(&detail)),
                serial: event.serial,
            });
        }
    }

    /// The plan goes on with the new price.
    fn price_changed(&mut self, event: &Event<'_>, facts: &Facts, report: &mut Report) {
        let Some(sale) = self.sales.get_mut(&event.sale_no) else {
            return;
        };
        sale.must_be(&["paused"], event, report);
        let plan = serde_json::from_str::<SaleDefinition>(&sale.definition).ok();
        let price = facts.to.as_i64().map(Money);
        let Some((mut plan, price)) = plan.zip(price) else {
            let detail = format!("event {} (sale.price_changed) cannot be read", event.serial);
            return report.add(Code::Damaged, detail);
        };
        match plan.items.get_mut(usize::from(facts.item)) {
            Some(item) if item.sale_price_minor == Money(facts.from) => {
                item.sale_price_minor = price;
            }
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
        }
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
