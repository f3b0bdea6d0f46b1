//! `stampede sale report`: the report of a sale as tables, or as the admin API gives it.

use std::time::Duration;

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::admin_client::{AdminClient, problem};
use crate::cli::AdminArgs;
use crate::logs::say;

/// The engine gives up before.
const ANSWER_BOUND: Duration = Duration::from_secs(130);
/// Most rows of the table of slots: the ones that sold most.
const SLOT_ROWS_MAX: usize = 20;

/// Asks for the report and prints it.
pub(crate) fn print(args: &AdminArgs, id: &str, format: Option<&str>) -> anyhow::Result<()> {
    let mut client = AdminClient::patient(args, ANSWER_BOUND)?;
    let asked = format.unwrap_or("json");
    let path = format!("/v1/admin/sales/{id}/report?format={asked}");
    let response = client.send("GET", &path, None)?;
    if response.status != 200 {
        bail!("{}", problem(&response));
    }
    if format.is_some() {
        let text = String::from_utf8(response.body).context("the answer is no text")?;
        say(text.trim_end());
        return Ok(());
    }
    let report = response.json().context("the answer is no JSON")?;
    for part in [
        head(&report),
        funnel(&report),
        refusals(&report),
        items(&report),
        slots(&report),
        rest(&report),
    ] {
        if !part.is_empty() {
            say(&part);
        }
    }
    Ok(())
}

fn head(report: &Value) -> String {
    format!(
        "{} ({}), {} to {} UTC, amounts in minor units of {}\n{}",
        text(&report["sale_id"]),
        text(&report["state"]),
        text(&report["window"]["starts_at"]),
        text(&report["window"]["ends_at"]),
        text(&report["currency"]),
        text(&report["title"]),
    )
}

fn funnel(report: &Value) -> String {
    let funnel = &report["funnel"];
    let mut table = table(&["", "orders", "units", "amount"]);
    for (name, key) in [
        ("tries", "attempts"),
        ("  refused", "refused_attempts"),
        ("  replayed", "replayed_attempts"),
        ("  unknown", "unknown_attempts"),
    ] {
        table.add_row([name.to_owned(), text(&funnel[key])]);
    }
    for (name, key) in [
        ("  reserved", "reserved"),
        ("    open", "open"),
        ("    in flight", "in_flight"),
        ("    paid", "paid"),
        ("    released", "released"),
        ("    expired", "expired"),
        ("refunded", "refunded"),
    ] {
        let stage = &funnel[key];
        let figures = ["orders", "units", "amount_minor"].map(|figure| text(&stage[figure]));
        table.add_row([name.to_owned()].into_iter().chain(figures));
    }
    let parts = format!(
        "paid of all tries {}, of those reserved {}",
        percent(&funnel["conversion_bp"]),
        percent(&funnel["paid_bp"])
    );
    format!("\n{}\n{parts}", finished(table))
}

fn refusals(report: &Value) -> String {
    let all = list(&report["refusals"]);
    if all.is_empty() {
        return String::new();
    }
    let mut table = table(&["refused", "tries", "by item"]);
    for one in all {
        let items = list(&one["items"])
            .iter()
            .map(|item| format!("{} {}", text(&item["item"]), text(&item["attempts"])));
        let items = items.collect::<Vec<_>>().join(", ");
        table.add_row([text(&one["outcome"]), text(&one["attempts"]), items]);
    }
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    format!("\n{table}")
}

fn items(report: &Value) -> String {
    let mut table = table(&[
        "item",
        "stock",
        "sold",
        "sell-through",
        "demand",
        "over stock",
        "gross",
        "refunded",
        "net",
        "prices",
        "sold out after",
    ]);
    for item in list(&report["items"]) {
        let prices = list(&item["prices"]).iter();
        let prices: Vec<_> = prices
            .map(|price| text(&price["unit_price_minor"]))
            .collect();
        let sold_out = match item["time_to_sell_out_ms"].as_u64() {
            Some(ms) => format!("{}.{:03} s", ms / 1_000, ms % 1_000),
            None => "-".into(),
        };
        table.add_row([
            text(&item["item"]),
            text(&item["stock_units"]),
            text(&item["sold_units"]),
            percent(&item["sell_through_bp"]),
            text(&item["demand"]),
            percent(&item["demand_over_stock_bp"]),
            text(&item["revenue_gross_minor"]),
            text(&item["refunded_minor"]),
            text(&item["revenue_net_minor"]),
            prices.join(" > "),
            sold_out,
        ]);
    }
    format!("\n{}", finished(table))
}

fn slots(report: &Value) -> String {
    let mut best: Vec<&Value> = list(&report["slots"]).iter().collect();
    let count = best.len();
    if count == 0 {
        return String::new();
    }
    best.sort_by_key(|slot| {
        std::cmp::Reverse((slot["paid_units"].as_u64(), slot["attempts"].as_u64()))
    });
    best.truncate(SLOT_ROWS_MAX);
    best.sort_by_key(|slot| slot["from"].as_str());
    let length = format!("slot of {} s", report["slot_s"]);
    let mut table = table(&[&length, "tries", "reserved", "paid", "amount paid"]);
    for slot in &best {
        let mark = if slot["from"] == report["best_slot"]["from"] {
            " best"
        } else {
            ""
        };
        table.add_row([
            format!("{}{mark}", text(&slot["from"])),
            text(&slot["attempts"]),
            text(&slot["reserved_units"]),
            text(&slot["paid_units"]),
            text(&slot["paid_amount_minor"]),
        ]);
    }
    let left_out = match count - best.len() {
        0 => String::new(),
        left_out => format!("\n{left_out} slots that sold less are left out (--format csv)"),
    };
    format!("\n{}{left_out}", finished(table))
}

/// Buyers, goal, refunds due and notes, a line each.
fn rest(report: &Value) -> String {
    let buyers = &report["buyers"];
    let mut lines = vec![format!(
        "\nbuyers: {} reserved, {} paid ({} new, {} returning), at most {} orders each",
        buyers["reserved"],
        buyers["paid"],
        buyers["new"],
        buyers["returning"],
        buyers["orders_of_one_buyer_max"]
    )];
    let goal = &report["goal"];
    if goal.is_object() {
        lines.push(format!(
            "goal: {} of {} orders, {}",
            goal["paid_orders"],
            goal["orders"],
            percent(&goal["reached_bp"])
        ));
    }
    let due = &report["refunds_due"];
    for (name, count, amount) in [
        ("paid too late", "expired_payments", "expired_amount_minor"),
        (
            "paid in conflict",
            "conflicting_payments",
            "conflicting_amount_minor",
        ),
        (
            "price protection",
            "protected_lines",
            "protected_amount_minor",
        ),
    ] {
        if due[count].as_u64() > Some(0) {
            lines.push(format!(
                "refunds due, {name}: {}, {}",
                due[count], due[amount]
            ));
        }
    }
    let notes = list(&report["notes"]).iter();
    lines.extend(notes.map(|note| format!("note: {}", text(&note["detail"]))));
    lines.join("\n")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    table
}

/// With all columns but the first to the right.
fn finished(mut table: Table) -> String {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text without its quotes, a number, `-` where there is nothing.
fn text(value: &Value) -> String {
    match (value.as_str(), value.is_null()) {
        (Some(text), _) => text.to_owned(),
        (None, true) => "-".to_owned(),
        (None, false) => value.to_string(),
    }
}

fn percent(basis_points: &Value) -> String {
    match basis_points.as_u64() {
        Some(bp) => format!("{}.{:02} %", bp / 100, bp % 100),
        None => "-".into(),
    }
}
