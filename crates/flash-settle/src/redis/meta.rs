//! What `meta` says of a sale, held against the events, the records and the sizes of the other keys.

use std::collections::{BTreeSet, HashMap};

use flash_types::SaleDefinition;

use super::Listed;
use super::text::number;
use super::told::Told;
use crate::fold::{Account, SaleFold};
use crate::item::Accounts;
use crate::report::{Code, ItemReport, Report, SaleReport};

/// How much the other keys hold.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub resv: u64,
    pub key: u64,
    pub buyer: u64,
    pub reference: u64,
    pub ev: u64,
    pub note: u64,
}

/// `meta`, `w` and the sizes, of one moment.
#[derive(Debug)]
pub struct Content {
    pub meta: HashMap<String, String>,
    pub w: HashMap<String, String>,
    pub sizes: Sizes,
}

impl Content {
    /// Holds them against what was told until that moment.
    pub fn check(&self, listed: &Listed, told: &Told, report: &mut Report) {
        let items = match told.fold.sales.get(&told.sale_no) {
            Some(sale) => {
                self.check_sale(listed, told, sale, report);
                self.check_items(listed, told, &sale.items, report)
            }
            None => {
                report.add(Code::SaleMissing, "no event made this sale".into());
                self.check_items(listed, told, &[], report)
            }
        };
        self.check_sizes(told, report);
        self.check_numbers(told, report);
        self.check_writers(report);
        report.sales.push(SaleReport {
            sale_id: listed.sale_id.clone(),
            state: self.text("state").to_owned(),
            items,
        });
    }

    /// Number, state, plan and what is copied from the plan.
    fn check_sale(&self, listed: &Listed, told: &Told, sale: &SaleFold, report: &mut Report) {
        let is_retired = if sale.is_retired { "1" } else { "0" };
        let wanted = [
            ("sale_no", listed.sale_no.to_string()),
            ("state", sale.state.to_owned()),
            ("retired", is_retired.to_owned()),
            ("first_serial", told.serial_first.to_string()),
            ("thaw", told.thaw.unwrap_or_default().to_owned()),
            ("def", sale.definition.clone()),
        ];
        let mut check = |field: &str, wanted: &str| {
            let found = self.text(field);
            if found != wanted {
                let detail = format!("{field} is {found:?}, its events say {wanted:?}");
                report.add(Code::SaleAltered, detail);
            }
        };
        for (field, wanted) in &wanted {
            check(field, wanted);
        }
        if let Some(definition) = &told.definition {
            check("starts_ms", &definition.starts_at.0.to_string());
            check("ends_ms", &definition.ends_at.0.to_string());
            check("window_ms", &told.window_ms().to_string());
            let planned = definition.sale_id.as_str();
            if planned != listed.sale_id {
                let detail = format!("its plan is that of {planned}");
                report.add(Code::SaleAltered, detail);
            }
        }
    }

    fn check_items(
        &self,
        listed: &Listed,
        told: &Told,
        folded: &[Account],
        report: &mut Report,
    ) -> Vec<ItemReport> {
        let fields = self.meta.keys().filter_map(|name| name.strip_prefix("i:"));
        let mut indexes: BTreeSet<u16> = fields.filter_map(number).collect();
        indexes.extend((0_u16..).zip(folded).map(|(index, _)| index));
        let mut items = Vec::with_capacity(indexes.len());
        for index in indexes {
            let definition = told.definition.as_ref();
            let planned = definition.and_then(|plan| plan.items.get(usize::from(index)));
            let name = planned.map_or_else(
                || format!("i:{index}"),
                |planned| planned.item.as_str().to_owned(),
            );
            let of_item = (listed.sale_id.as_str(), name.as_str());
            let text = self.text(&format!("i:{index}"));
            let Some((stored, limit)) = account_of(text) else {
                let (code, what) = match text {
                    "" => (Code::SaleMissing, "its counters are not there".into()),
                    text => (Code::Damaged, format!("its counters are {text:?}")),
                };
                report.add_of(code, Some(of_item.0), Some(of_item.1), what);
                continue;
            };
            if planned.is_some() && limit != limit_of(told.definition.as_ref(), index) {
                let detail = format!("its limit is {limit:?}, its plan has another");
                report.add_of(Code::SaleAltered, Some(of_item.0), Some(of_item.1), detail);
            }
            let accounts = Accounts {
                stored,
                sum: told.sums.get(&index).copied().unwrap_or_default(),
                folded: folded.get(usize::from(index)).copied(),
            };
            items.push(accounts.check(of_item.0, of_item.1, report));
        }
        items
    }

    /// Each key holds as much as `meta` counts, and as much as the events make.
    fn check_sizes(&self, told: &Told, report: &mut Report) {
        let Sizes {
            resv,
            key,
            buyer,
            reference,
            ev,
            note,
        } = self.sizes;
        let reservations = told.marks.len() as u64;
        let decisions = told.decisions.len() as u64 + told.lists;
        let sizes = [
            ("resv", "n_resv", resv, Some(reservations)),
            ("key", "n_key", key, Some(reservations)),
            ("buyer", "n_buyer", buyer, Some(told.held_count())),
            ("ref", "n_ref", reference, Some(decisions)),
            ("ev", "ev", ev, None),
            ("note", "n_note", note, None),
        ];
        for (name, field, found, told) in sizes {
            let counted = self.text(field);
            if number(counted) == Some(found) && told.is_none_or(|told| told == found) {
                continue;
            }
            let made = told.map_or(String::new(), |told| format!(", its events make {told}"));
            let detail = format!("{name} holds {found} entries, {field} is {counted:?}{made}");
            report.add(Code::SizeMismatch, detail);
        }
    }

    /// The last event is there and no later one, and time and generation do not lie before it.
    fn check_numbers(&self, told: &Told, report: &mut Report) {
        let last = told.number;
        match number::<u64>(self.text("ev")) {
            Some(ev) if ev > last => {
                let first = last + 1;
                let detail = format!("batches {first} to {ev} are not there");
                report.add(Code::BatchMissing, detail);
            }
            Some(ev) if ev < last => {
                let detail = format!("the last batch is {last}, ev is {ev}");
                report.add(Code::RowWithoutBatch, detail);
            }
            _ => {}
        }
        for (field, least) in [
            ("gen", told.generation.cast_signed()),
            ("clock_ms", told.at_ms),
        ] {
            let found = self.text(field);
            if number::<i64>(found).is_none_or(|found| found < least) {
                let detail = format!("{field} is {found:?}, its last event has {least}");
                report.add(Code::SaleAltered, detail);
            }
        }
    }

    /// Whoever wrote holds a place in `w`, not beyond the last event.
    fn check_writers(&self, report: &mut Report) {
        let ev = number::<u64>(self.text("ev")).unwrap_or(u64::MAX);
        if self.w.is_empty() {
            report.add(Code::SaleAltered, "w is empty: no node holds it".into());
        }
        for (node, text) in &self.w {
            let numbers = text.splitn(5, '|').take(4).map(number::<u64>);
            let numbers: Option<Vec<u64>> = numbers.collect();
            let is_fit = matches!(numbers.as_deref(), Some([_, _, _, theirs]) if *theirs <= ev);
            if !is_fit {
                let detail = format!("w has node {node} at {text:?}");
                report.add(Code::SaleAltered, detail);
            }
        }
    }

    fn text(&self, field: &str) -> &str {
        self.meta.get(field).map_or("", String::as_str)
    }
}

/// `stock,unreleased,available,reserved,sold,limit`.
fn account_of(text: &str) -> Option<(Account, &str)> {
    let parts: Vec<&str> = text.split(',').collect();
    let [stock, unreleased, available, reserved, sold, limit] = parts[..] else {
        return None;
    };
    let account = Account {
        stock: stock.parse().ok()?,
        unreleased: unreleased.parse().ok()?,
        available: available.parse().ok()?,
        reserved: reserved.parse().ok()?,
        sold: sold.parse().ok()?,
    };
    Some((account, limit))
}

/// The limit of an item as `meta` spells it.
fn limit_of(definition: Option<&SaleDefinition>, index: u16) -> String {
    let item = definition.and_then(|definition| definition.items.get(usize::from(index)));
    let limit = item.and_then(|item| item.units_per_buyer_max);
    limit.map_or(String::new(), |limit| limit.to_string())
}
