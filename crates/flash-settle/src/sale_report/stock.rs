//! Events of a sale, followed for two things: when an item was sold out first, and since when it had which price.

use std::collections::{HashMap, HashSet};

use flash_types::{ItemId, SaleDefinition, Serial, Timestamp};
use serde_json::Value;

use super::Event;
use super::view::Price;

/// Units taken of each item, from event to event.
#[derive(Debug)]
pub(super) struct Stock {
    items: Vec<ItemStock>,
    /// Their units are back: a late payment takes them again.
    expired: HashSet<Serial>,
}

#[derive(Debug, Default)]
struct ItemStock {
    stock_units: i64,
    /// Reserved or sold.
    taken_units: i64,
    sold_out_at: Option<Timestamp>,
    /// The price before the first change.
    first_price_minor: Option<i64>,
    changes: Vec<Price>,
}

impl Stock {
    pub(super) fn new(definition: &SaleDefinition) -> Self {
        let items = definition.items.iter().map(|item| ItemStock {
            stock_units: item.stock_units.into(),
            ..ItemStock::default()
        });
        Self {
            items: items.collect(),
            expired: HashSet::new(),
        }
    }

    /// Follows an event.
    pub(super) fn add(&mut self, event: &Event<'_>, places: &HashMap<ItemId, usize>) {
        let data = event.data;
        match (event.kind, event.reservation) {
            ("reservation.reserved", _) => self.take(&data["lines"], 1, event.at, places),
            ("reservation.released", _) => self.take(&data["lines"], -1, event.at, places),
            ("reservation.expired", Some(serial)) => {
                self.expired.insert(serial);
                self.take(&data["lines"], -1, event.at, places);
            }
            ("reservation.confirmed", Some(serial)) if self.expired.remove(&serial) => {
                self.take(&data["lines"], 1, event.at, places);
            }
            ("reservation.refunded", _) if data["refund"]["restock"] == true => {
                self.take(&data["refund"]["lines"], -1, event.at, places);
            }
            ("sale.stock_changed", _) => {
                if let Some(item) = self.item(&data["item"], places) {
                    item.stock_units += data["applied_delta_units"].as_i64().unwrap_or(0);
                    item.look(event.at);
                }
            }
            ("sale.price_changed", _) => {
                if let Some(item) = self.item(&data["item"], places)
                    && let (Some(old), Some(new)) = (
                        data["old_price_minor"].as_i64(),
                        data["sale_price_minor"].as_i64(),
                    )
                {
                    item.first_price_minor.get_or_insert(old);
                    item.changes.push(Price {
                        from: Some(event.at),
                        unit_price_minor: new,
                    });
                }
            }
            _ => {}
        }
    }

    /// When the last unit was first taken.
    pub(super) fn sold_out_at(&self, place: usize) -> Option<Timestamp> {
        self.items[place].sold_out_at
    }

    /// The prices that an item had, the first one first.
    pub(super) fn prices(&self, place: usize, now_minor: i64) -> Vec<Price> {
        let item = &self.items[place];
        let first = Price {
            from: None,
            unit_price_minor: item.first_price_minor.unwrap_or(now_minor),
        };
        [first].into_iter().chain(item.changes.clone()).collect()
    }

    fn take(&mut self, lines: &Value, sign: i64, at: Timestamp, places: &HashMap<ItemId, usize>) {
        for line in lines.as_array().into_iter().flatten() {
            if let Some(item) = self.item(&line["item"], places) {
                item.taken_units += sign * line["quantity"].as_i64().unwrap_or(0);
                item.look(at);
            }
        }
    }

    fn item(&mut self, name: &Value, places: &HashMap<ItemId, usize>) -> Option<&mut ItemStock> {
        let name = ItemId::parse(name.as_str()?).ok()?;
        self.items.get_mut(*places.get(&name)?)
    }
}

impl ItemStock {
    fn look(&mut self, at: Timestamp) {
        if self.stock_units > 0 && self.taken_units >= self.stock_units {
            self.sold_out_at.get_or_insert(at);
        }
    }
}
