//! The sums by which the rows that change are held against the events that changed them.
//!
//! The chain covers what never changes. For the rest, every row and every event adds a mark to a sum, so that the
//! marks of a reservation's events telescope to the mark of its row: `reserved -> confirmed` adds
//! `mark(confirmed) - mark(reserved)`. Sums that agree prove, but for chance (2^-64), that no state, refund, payment
//! or decision was lost or altered, without keeping a million reservations in mind.

use std::collections::HashMap;

use flash_types::{ReservationState, SaleDefinition, SaleState, Serial};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::chain::EventFacts;
use crate::words::{ATTEMPTS, DecisionWords, Facts, RETIRED, decision_words, refused, state_code};
use crate::{DecisionKind, DecisionRow, Delta, ReservationRow, SaleRow};
use flash_types::{ItemIndex, Money};

/// Sums of marks, wrapping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    states: u64,
    refunds: u64,
    payments: u64,
    decisions: u64,
    extensions: u64,
}

impl Sums {
    /// What a row of `reservation` adds.
    pub fn add_row(&mut self, row: &ReservationRow) {
        let serial = row.serial.0;
        if row.state != ReservationState::Reserved {
            self.add_step(serial, ReservationState::Reserved, row.state);
        }
        for line in &row.lines {
            self.add_refund(serial, line.item.0, line.refunded_units, false);
            self.add_refund(serial, line.item.0, line.restocked_units, true);
        }
        if let Some(payment_ref) = &row.payment_ref {
            self.add_payment(serial, payment_ref.as_str());
        }
    }

    /// What a row of `decision` adds.
    pub fn add_decision(&mut self, row: &DecisionRow) {
        let decision = &row.decision;
        self.decision(
            row.sale_no.0,
            decision.kind,
            &decision.reference,
            decision.reservation,
            row.detail.as_deref(),
        );
    }

    fn add_step(&mut self, serial: u64, from: ReservationState, to: ReservationState) {
        let mark = |state| mark(&[serial, 1, state_code(state).cast_unsigned()], "");
        self.states = self.states.wrapping_add(mark(to)).wrapping_sub(mark(from));
    }

    fn add_refund(&mut self, serial: u64, item: u16, units: u32, is_restock: bool) {
        if units > 0 {
            let weight = mark(&[serial, 2, u64::from(item), u64::from(is_restock)], "");
            self.refunds = self
                .refunds
                .wrapping_add(weight.wrapping_mul(u64::from(units)));
        }
    }

    fn add_payment(&mut self, serial: u64, payment_ref: &str) {
        self.payments = self.payments.wrapping_add(mark(&[serial, 3], payment_ref));
    }

    /// What a row of `extension` adds.
    pub fn add_extension(&mut self, serial: u64, expires_ms: i64) {
        let mark = mark(&[serial, 6, expires_ms.cast_unsigned()], "");
        self.extensions = self.extensions.wrapping_add(mark);
    }

    fn add_words(&mut self, sale_no: u32, words: &DecisionWords) {
        self.decision(
            sale_no,
            words.kind,
            &words.reference,
            words.reservation,
            words.detail.as_deref(),
        );
    }

    fn decision(
        &mut self,
        sale_no: u32,
        kind: DecisionKind,
        reference: &str,
        reservation: Option<Serial>,
        detail: Option<&str>,
    ) {
        let (_, outcome) = decision_words(kind);
        let reservation = reservation.map_or(0, |serial| serial.0);
        let reference = mark(&[u64::from(sale_no), 4, reservation], reference);
        let detail = mark(&[5], detail.unwrap_or("-"));
        self.decisions = self
            .decisions
            .wrapping_add(mark(&[reference, detail], outcome));
    }

    /// Names what differs between the sums of the rows and those of the events.
    pub fn difference(&self, events: &Self) -> Option<&'static str> {
        if self.states != events.states {
            Some("the state of a reservation is not what its events made it")
        } else if self.refunds != events.refunds {
            Some("the refunded units of a reservation are not what its events made them")
        } else if self.payments != events.payments {
            Some("the payment of a reservation is not that of its events")
        } else if self.decisions != events.decisions {
            Some("a decision is missing, or is not what its event recorded")
        } else if self.extensions != events.extensions {
            Some("the time that a reservation was given to pay is not what its event recorded")
        } else {
            None
        }
    }
}

/// A sale as its events tell it.
#[derive(Debug)]
struct SaleFold {
    definition: SaleDefinition,
    first_serial: u64,
    state: SaleState,
    is_retired: bool,
    /// (stock, unreleased) of each item.
    items: Vec<(i64, i64)>,
}

/// All events, folded.
#[derive(Debug, Default)]
pub struct EventFold {
    /// To be held against those of the rows.
    pub sums: Sums,
    sales: HashMap<u32, SaleFold>,
}

impl EventFold {
    /// Adds an event; they come in order.
    ///
    /// # Errors
    /// What is not as this program writes it.
    pub fn add(&mut self, event: &EventFacts<'_>) -> Result<(), String> {
        if event.kind == "sale.drafted" {
            return self.drafted(event);
        }
        let facts = match event.data {
            Some(data) => serde_json::from_str::<Facts>(data)
                .map_err(|error| format!("event {}: {error}", event.serial))?,
            None => Facts::default(),
        };
        match event.reservation {
            Some(reservation) => self.of_reservation(event, reservation, &facts),
            None => self.of_sale(event, &facts),
        }
    }

    fn of_reservation(
        &mut self,
        event: &EventFacts<'_>,
        reservation: u64,
        facts: &Facts,
    ) -> Result<(), String> {
        use ReservationState::{Confirmed, Expired, Refunded, Released, Reserved};
        let serial = Serial(reservation);
        let sums = &mut self.sums;
        let reference = event.reference.unwrap_or_default();
        match event.kind {
            "reservation.confirmed" => {
                let from = if facts.late { Expired } else { Reserved };
                sums.add_step(reservation, from, Confirmed);
                sums.add_payment(reservation, reference);
                let words = DecisionWords::payment(DecisionKind::PaymentTaken, reference, serial);
                sums.add_words(event.sale_no, &words);
            }
            "reservation.refund_due" if facts.protects => {
                let words = DecisionWords::price_protection(
                    facts.item,
                    serial,
                    facts.bought,
                    facts.paid,
                    facts.price,
                );
                sums.add_words(event.sale_no, &words);
            }
            "reservation.extended" => sums.add_extension(reservation, facts.until),
            "reservation.refund_due" => {
                let words = DecisionWords::payment(refused(facts.expired), reference, serial);
                sums.add_words(event.sale_no, &words);
            }
            "reservation.released" | "reservation.expired" => {
                let is_expired = event.kind == "reservation.expired";
                sums.add_step(
                    reservation,
                    Reserved,
                    if is_expired { Expired } else { Released },
                );
                if facts.pooled {
                    return self.release(event.sale_no, &facts.units, -1);
                }
            }
            "reservation.refunded" => {
                if facts.whole {
                    sums.add_step(reservation, Confirmed, Refunded);
                }
                for (item, units) in &facts.units {
                    sums.add_refund(reservation, *item, *units, false);
                    if facts.restock {
                        sums.add_refund(reservation, *item, *units, true);
                    }
                }
                if event.reference.is_some() {
                    let units: Vec<Delta> = facts
                        .units
                        .iter()
                        .map(|(item, units)| Delta {
                            item: ItemIndex(*item),
                            units: *units,
                        })
                        .collect();
                    let words = DecisionWords::refund(reference, serial, facts.restock, &units);
                    sums.add_words(event.sale_no, &words);
                }
            }
            other => {
                return Err(format!(
                    "event {} is of unknown type {other:?}",
                    event.serial
                ));
            }
        }
        Ok(())
    }

    fn of_sale(&mut self, event: &EventFacts<'_>, facts: &Facts) -> Result<(), String> {
        let broken = |what: &str| format!("event {} ({}): {what}", event.serial, event.kind);
        let sale = self
            .sales
            .get_mut(&event.sale_no)
            .ok_or_else(|| broken("its sale was never drafted"))?;
        match event.kind {
            "sale.published" => sale.state = SaleState::Published,
            "sale.paused" => sale.state = SaleState::Paused,
            "sale.resumed" => sale.state = SaleState::Open,
            "sale.closed" => sale.state = SaleState::Closed,
            "sale.frozen" => sale.state = SaleState::Frozen,
            RETIRED => sale.is_retired = true,
            "sale.opened" => {
                sale.state = SaleState::Open;
                return self.release(event.sale_no, &facts.units, 1);
            }
            "sale.unpublished" => {
                sale.state = SaleState::Draft;
                return self.release(event.sale_no, &facts.units, -1);
            }
            "sale.wave" => {
                if let (Some(reference), Some((item, units))) =
                    (event.reference, facts.units.first())
                {
                    let words = DecisionWords::wave(reference, *item, *units);
                    self.sums.add_words(event.sale_no, &words);
                }
                return self.release(event.sale_no, &facts.units, 1);
            }
            "sale.price_changed" => {
                let item = sale.definition.items.get_mut(usize::from(facts.item));
                let item = item.ok_or_else(|| broken("an item that the sale does not have"))?;
                item.sale_price_minor = Money(facts.to);
            }
            ATTEMPTS => {}
            "sale.stock_changed" => {
                let (stock, _) = sale
                    .items
                    .get_mut(usize::from(facts.item))
                    .ok_or_else(|| broken("an item that the sale does not have"))?;
                *stock += facts.applied;
                let words = DecisionWords::stock_change(
                    event.reference.unwrap_or_default(),
                    facts.item,
                    facts.asked,
                    facts.applied,
                );
                self.sums.add_words(event.sale_no, &words);
            }
            _ => return Err(broken("of unknown type")),
        }
        Ok(())
    }

    /// Units leave what is unreleased (`sign` 1), or come back to it (-1).
    fn release(&mut self, sale_no: u32, units: &[(u16, u32)], sign: i64) -> Result<(), String> {
        let sale = self.sales.get_mut(&sale_no);
        let items = sale.map_or(&mut [][..], |sale| &mut sale.items);
        for (item, units) in units {
            let Some((_, unreleased)) = items.get_mut(usize::from(*item)) else {
                return Err(format!("sale {sale_no} has no item {item}"));
            };
            *unreleased -= sign * i64::from(*units);
        }
        Ok(())
    }

    fn drafted(&mut self, event: &EventFacts<'_>) -> Result<(), String> {
        let definition: SaleDefinition = serde_json::from_str(event.data.unwrap_or_default())
            .map_err(|error| format!("event {}: {error}", event.serial))?;
        let first_serial = self
            .sales
            .get(&event.sale_no)
            .map_or(event.serial, |sale| sale.first_serial);
        let items = definition
            .items
            .iter()
            .map(|item| (i64::from(item.stock_units), i64::from(item.stock_units)))
            .collect();
        let fold = SaleFold {
            definition,
            first_serial,
            state: SaleState::Draft,
            is_retired: false,
            items,
        };
        self.sales.insert(event.sale_no, fold);
        Ok(())
    }

    /// How many sales were ever drafted.
    pub fn sales_count(&self) -> usize {
        self.sales.len()
    }

    /// Holds a sale and its items against its events; `first_serial` as stored.
    pub fn check_sale(&self, sale: &SaleRow, first_serial: u64) -> Result<(), String> {
        let name = sale.definition.sale_id;
        let Some(fold) = self.sales.get(&sale.sale_no.0) else {
            return Err(format!("sale {name} has no events"));
        };
        if fold.definition != sale.definition
            || fold.first_serial != first_serial
            || fold.is_retired != sale.is_retired
        {
            return Err(format!("sale {name} is not as its events made it"));
        }
        if fold.state != sale.state {
            return Err(format!(
                "sale {name} is {}, its events made it {}",
                sale.state.as_str(),
                fold.state.as_str()
            ));
        }
        if fold.items.len() != sale.items.len() {
            return Err(format!(
                "sale {name} has {} of its {} items",
                sale.items.len(),
                fold.items.len()
            ));
        }
        for (index, item) in sale.items.iter().enumerate() {
            let planned = &fold.definition.items[index];
            if usize::from(item.index.0) != index || item.item != planned.item {
                return Err(format!("item {index} of sale {name} is not as planned"));
            }
            let stored = (
                item.units.stock.cast_signed(),
                item.units.unreleased.cast_signed(),
            );
            if stored != fold.items[index] {
                return Err(format!(
                    "item {} of sale {name} has stock and unreleased {stored:?}, its events say {:?}",
                    item.item, fold.items[index]
                ));
            }
            if item.units.imbalance() != 0 {
                return Err(format!(
                    "the books of item {} of sale {name} do not balance",
                    item.item
                ));
            }
        }
        Ok(())
    }
}

fn mark(numbers: &[u64], text: &str) -> u64 {
    let mut seed = 0x5354_4d50;
    for number in numbers {
        seed = xxh3_64_with_seed(&number.to_le_bytes(), seed);
    }
    if text.is_empty() {
        seed
    } else {
        xxh3_64_with_seed(text.as_bytes(), seed)
    }
}
