//! Histories of reservations, and the simplest model of what they bring about.

use std::collections::BTreeMap;
use std::time::Duration;

use flash_types::SaleId;
use flash_types::side::DeskEvent;
use serde_json::json;

use crate::shops::{Dice, NOW};

/// What can happen to a reservation after it was made; refunds by what is refunded of it then, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happens {
    Extended,
    Released,
    Expired,
    Confirmed,
    RefundDue,
    Refunded(u64),
}

const PRICE: u64 = 100;

/// One reservation with all that happens to it.
#[derive(Debug, Clone)]
pub struct Life {
    pub id: String,
    pub buyer: String,
    pub units: u64,
    pub happens: Vec<Happens>,
}

impl Life {
    pub fn random(dice: &mut Dice, number: u64) -> Self {
        use Happens::*;
        let units = 1 + dice.roll(4);
        let some = 1 + dice.roll(units);
        let happens = match dice.roll(9) {
            0 => vec![],
            1 => vec![Released],
            2 => vec![Extended, Expired, RefundDue],
            3 => vec![Confirmed],
            4 => vec![Expired, Confirmed],
            5 => vec![Confirmed, Refunded(units)],
            6 if some < units => vec![Confirmed, Refunded(some), Refunded(units)],
            7 => vec![Expired, Confirmed, Refunded(some)],
            _ => {
                let refunds = (1..=units).map(Refunded);
                std::iter::once(Confirmed).chain(refunds).collect()
            }
        };
        Self {
            id: format!("r1-{number}"),
            buyer: format!("u{}", dice.roll(5)),
            units,
            happens,
        }
    }

    /// Its events, without ids, in order.
    pub fn events(&self) -> Vec<DeskEvent> {
        let mut events = vec![self.event("reserved", 0, None)];
        for happens in &self.happens {
            events.push(match happens {
                Happens::Extended => self.event("extended", 0, None),
                Happens::Released => self.event("released", 0, None),
                Happens::Expired => self.event("expired", 0, None),
                Happens::Confirmed => self.event("confirmed", 0, None),
                Happens::RefundDue => self.event("refund_due", 0, None),
                // All at once may come without a name.
                Happens::Refunded(units) if *units == self.units => {
                    self.event("refunded", *units, Some(json!(null)))
                }
                Happens::Refunded(units) => {
                    self.event("refunded", *units, Some(json!(format!("f{units}"))))
                }
            });
        }
        events
    }

    fn event(&self, kind: &str, refunded: u64, refund: Option<serde_json::Value>) -> DeskEvent {
        let mut data = json!({
            "reservation_id": self.id, "sale_id": "s1", "buyer_id": self.buyer, "state": "any",
            "lines": [{"item": "a", "quantity": self.units, "unit_price_minor": PRICE, "refunded_units": refunded}],
            "amount_minor": self.units * PRICE, "currency": "CNY", "created_at": NOW,
            "expires_at": NOW.plus(Duration::from_secs(60)), "payment_ref": null, "durability": "memory",
        });
        if let Some(refund_ref) = refund {
            data["refund"] = json!({"refund_ref": refund_ref, "restock": true, "lines": []});
        }
        DeskEvent {
            id: String::new(),
            kind: format!("reservation.{kind}"),
            at: NOW,
            sale_id: SaleId::parse("s1").unwrap(),
            data,
        }
    }

    /// Facts that must be told of it: by their words, how often and how much in all. Refunds that came out of order may be
    /// told as one, so only their sum counts there.
    pub fn facts(&self) -> BTreeMap<String, (u64, u64)> {
        let mut facts = BTreeMap::from([(format!("reserved {}", self.id), (1, 0))]);
        for happens in &self.happens {
            match happens {
                Happens::Extended | Happens::RefundDue => {}
                Happens::Released | Happens::Expired => {
                    facts.insert(format!("closed {}", self.id), (1, 0));
                }
                Happens::Confirmed => {
                    facts.insert(format!("closed {}", self.id), (1, 0));
                    facts.insert(format!("paid {}", self.id), (1, self.units * PRICE));
                }
                Happens::Refunded(units) => {
                    let told = facts
                        .entry(format!("refunded {}", self.id))
                        .or_insert((0, 0));
                    *told = (told.0 + 1, units * PRICE);
                }
            }
        }
        facts
    }
}

/// Events of several lives, mixed, each in its order.
pub fn mixed(dice: &mut Dice, lives: &[Life]) -> Vec<DeskEvent> {
    let mut lines: Vec<_> = lives
        .iter()
        .map(|life| life.events().into_iter().peekable())
        .collect();
    let mut events = Vec::new();
    while !lines.is_empty() {
        let line = usize::try_from(dice.roll(lines.len() as u64)).unwrap();
        match lines[line].next() {
            Some(event) => events.push(event),
            None => drop(lines.remove(line)),
        }
        if dice.roll(5) == 0 {
            let mut of_sale = events.last().unwrap().clone();
            of_sale.kind = "sale.stock_changed".into();
            of_sale.data = json!({"item": "a"});
            events.push(of_sale);
        }
    }
    events
}

/// Some events come twice, the second time later, as after an accepted loss.
pub fn repeated(dice: &mut Dice, events: Vec<DeskEvent>) -> Vec<DeskEvent> {
    let mut told: Vec<DeskEvent> = Vec::new();
    for event in events {
        told.push(event);
        if dice.roll(6) == 0 {
            let from = usize::try_from(dice.roll(told.len() as u64)).unwrap();
            let again: Vec<_> = told[from..].iter().take(6).cloned().collect();
            told.extend(again);
        }
    }
    told
}

/// Neighbours change places.
pub fn shuffled(dice: &mut Dice, mut events: Vec<DeskEvent>) -> Vec<DeskEvent> {
    for at in (1..events.len()).rev() {
        let other = usize::try_from(dice.roll(at as u64 + 1)).unwrap();
        events.swap(at, other);
    }
    events
}
