//! A report as CSV (RFC 4180) for spreadsheets: one figure a row, `section,key,item,slot,value`, to be pivoted.
//!
//! A spreadsheet takes a text that begins with `=`, `+`, `-` or `@` for a formula: such a text gets an apostrophe before it.

use std::fmt::Write as _;

use flash_types::Timestamp;

use super::view::{Item, Report, Slot, Stage};

const HEADER: &str = "section,key,item,slot,value\r\n";

/// Writes all figures of a report; those that are absent have no row.
pub fn csv(report: &Report) -> String {
    let mut rows = Rows(HEADER.to_owned());
    sale(report, &mut rows);
    funnel(report, &mut rows);
    for refusals in &report.refusals {
        rows.number("refusals", &refusals.outcome, refusals.attempts);
        for of_item in &refusals.items {
            let item = of_item
                .item
                .map_or_else(String::new, |item| item.to_string());
            let attempts = of_item.attempts.to_string();
            rows.row("refusals_by_item", &refusals.outcome, &item, "", &attempts);
        }
    }
    for slot in &report.slots {
        slot_rows("slots", slot, &mut rows);
    }
    if let Some(best) = &report.best_slot {
        slot_rows("best_slot", best, &mut rows);
    }
    for item in &report.items {
        item_rows(item, &mut rows);
    }
    buyers(report, &mut rows);
    for note in &report.notes {
        rows.text("notes", note.code, &note.detail);
    }
    rows.0
}

fn sale(report: &Report, rows: &mut Rows) {
    rows.text("sale", "sale_id", report.sale_id.as_str());
    rows.text("sale", "title", &report.title);
    if let Some(series) = &report.series {
        rows.text("sale", "series", series);
    }
    rows.text("sale", "state", report.state.as_str());
    rows.text("sale", "currency", report.currency.as_str());
    let window = &report.window;
    for (key, at) in [
        ("made_at", Some(report.made_at)),
        ("starts_at", Some(window.starts_at)),
        ("ends_at", Some(window.ends_at)),
        ("opened_at", window.opened_at),
        ("closed_at", window.closed_at),
    ] {
        rows.time("sale", key, "", at);
    }
    rows.number("sale", "slot_s", report.slot_s);
}

fn funnel(report: &Report, rows: &mut Rows) {
    let funnel = &report.funnel;
    for (key, attempts) in [
        ("attempts", funnel.attempts),
        ("refused_attempts", funnel.refused_attempts),
        ("replayed_attempts", funnel.replayed_attempts),
        ("unknown_attempts", funnel.unknown_attempts),
    ] {
        rows.number("funnel", key, attempts);
    }
    for (name, stage) in [
        ("reserved", &funnel.reserved),
        ("open", &funnel.open),
        ("in_flight", &funnel.in_flight),
        ("paid", &funnel.paid),
        ("released", &funnel.released),
        ("expired", &funnel.expired),
        ("refunded", &funnel.refunded),
    ] {
        let Stage {
            orders,
            units,
            amount_minor,
        } = stage;
        rows.number("funnel", &format!("{name}_orders"), orders);
        rows.number("funnel", &format!("{name}_units"), units);
        rows.number("funnel", &format!("{name}_amount_minor"), amount_minor);
    }
    rows.part("funnel", "conversion_bp", "", funnel.conversion_bp);
    rows.part("funnel", "paid_bp", "", funnel.paid_bp);
}

fn slot_rows(section: &str, slot: &Slot, rows: &mut Rows) {
    let from = slot.from.to_string();
    for (key, value) in [
        ("attempts", slot.attempts.to_string()),
        ("refused_attempts", slot.refused_attempts.to_string()),
        ("reserved_orders", slot.reserved_orders.to_string()),
        ("reserved_units", slot.reserved_units.to_string()),
        (
            "reserved_amount_minor",
            slot.reserved_amount_minor.to_string(),
        ),
        ("paid_orders", slot.paid_orders.to_string()),
        ("paid_units", slot.paid_units.to_string()),
        ("paid_amount_minor", slot.paid_amount_minor.to_string()),
    ] {
        rows.row(section, key, "", &from, &value);
    }
}

fn item_rows(item: &Item, rows: &mut Rows) {
    let name = item.item.as_str();
    rows.row("items", "title", name, "", &Rows::defused(&item.title));
    for (key, value) in [
        ("stock_units", item.stock_units.to_string()),
        ("reserved_units", item.reserved_units.to_string()),
        ("paid_units", item.paid_units.to_string()),
        ("refunded_units", item.refunded_units.to_string()),
        ("sold_units", item.sold_units.to_string()),
        ("refused_attempts", item.refused_attempts.to_string()),
        ("demand", item.demand.to_string()),
        ("revenue_gross_minor", item.revenue_gross_minor.to_string()),
        ("refunded_minor", item.refunded_minor.to_string()),
        ("revenue_net_minor", item.revenue_net_minor.to_string()),
    ] {
        rows.row("items", key, name, "", &value);
    }
    rows.part("items", "sell_through_bp", name, item.sell_through_bp);
    let demand = item.demand_over_stock_bp;
    rows.part("items", "demand_over_stock_bp", name, demand);
    rows.time("items", "sold_out_at", name, item.sold_out_at);
    let time = item.time_to_sell_out_ms;
    rows.part("items", "time_to_sell_out_ms", name, time);
    for price in &item.prices {
        // The time since which it holds stands where slots stand.
        let from = price.from.map_or_else(String::new, |from| from.to_string());
        let value = price.unit_price_minor.to_string();
        rows.row("prices", "unit_price_minor", name, &from, &value);
    }
    for sold in &item.sold_at {
        let key = |what: &str| format!("{what}_at_{}", sold.unit_price_minor);
        let (reserved, paid) = (sold.reserved_units.to_string(), sold.paid_units.to_string());
        rows.row("sold_at", &key("reserved_units"), name, "", &reserved);
        rows.row("sold_at", &key("paid_units"), name, "", &paid);
    }
}

fn buyers(report: &Report, rows: &mut Rows) {
    let buyers = &report.buyers;
    rows.number("buyers", "reserved", buyers.reserved);
    rows.number("buyers", "paid", buyers.paid);
    rows.number("buyers", "new", buyers.new);
    rows.number("buyers", "returning", buyers.returning);
    let each = buyers.orders_per_buyer_hundredths;
    rows.part("buyers", "orders_per_buyer_hundredths", "", each);
    let most = buyers.orders_of_one_buyer_max;
    rows.number("buyers", "orders_of_one_buyer_max", most);
    if let Some(goal) = &report.goal {
        rows.number("goal", "orders", goal.orders);
        rows.number("goal", "paid_orders", goal.paid_orders);
        rows.part("goal", "reached_bp", "", goal.reached_bp);
    }
    let due = &report.refunds_due;
    for (key, value) in [
        ("expired_payments", due.expired_payments.to_string()),
        ("expired_amount_minor", due.expired_amount_minor.to_string()),
        ("conflicting_payments", due.conflicting_payments.to_string()),
        (
            "conflicting_amount_minor",
            due.conflicting_amount_minor.to_string(),
        ),
        ("protected_lines", due.protected_lines.to_string()),
        (
            "protected_amount_minor",
            due.protected_amount_minor.to_string(),
        ),
    ] {
        rows.number("refunds_due", key, value);
    }
}

/// The text so far.
struct Rows(String);

impl Rows {
    /// A row; the value is written as it is but for its quotes: texts are defused before.
    fn row(&mut self, section: &str, key: &str, item: &str, slot: &str, value: &str) {
        let item = Self::defused(item);
        for (place, cell) in [section, key, &item, slot, value].into_iter().enumerate() {
            if place > 0 {
                self.0.push(',');
            }
            if cell.contains(['"', ',', '\r', '\n']) {
                self.0.push('"');
                self.0.push_str(&cell.replace('"', "\"\""));
                self.0.push('"');
            } else {
                self.0.push_str(cell);
            }
        }
        self.0.push_str("\r\n");
    }

    fn text(&mut self, section: &str, key: &str, value: &str) {
        self.row(section, key, "", "", &Self::defused(value));
    }

    fn number(&mut self, section: &str, key: &str, value: impl std::fmt::Display) {
        let mut text = String::new();
        // Writing into a text does not fail.
        let _ = write!(text, "{value}");
        self.row(section, key, "", "", &text);
    }

    /// A figure that may be absent.
    fn part(&mut self, section: &str, key: &str, item: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.row(section, key, item, "", &value.to_string());
        }
    }

    fn time(&mut self, section: &str, key: &str, item: &str, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.row(section, key, item, "", &at.to_string());
        }
    }

    fn defused(text: &str) -> String {
        if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
            format!("'{text}")
        } else {
            text.to_owned()
        }
    }
}
