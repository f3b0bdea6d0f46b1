//! What a merchant corrects while a sale is on: prices, releases by hand, differences that are due; and what happened.

use std::time::Duration;

use anyhow::{Context, bail};
use flash_types::IdempotencyKey;
use serde_json::{Value, json};

use crate::admin_client::{AdminClient, problem};
use crate::logs::{remark, say};

/// Time between two looks for new events.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Another price for new reservations; tells who bought at another one, as CSV.
pub(super) fn price(
    client: &mut AdminClient,
    id: &str,
    item: &str,
    price_minor: u64,
    reason: &str,
) -> anyhow::Result<()> {
    let body = json!({"sale_price_minor": price_minor, "reason": reason});
    let path = format!("/v1/admin/sales/{id}/items/{item}/price");
    let answer = client.send("PUT", &path, Some(&body))?;
    if answer.status != 200 {
        let hint = match answer.json() {
            Ok(told) if told["outcome"] == "state_conflict" => format!(
                "\n  a price changes while nobody buys: `stampede sale pause {id}`, this again, `stampede sale resume {id}`"
            ),
            Ok(_) | Err(_) => String::new(),
        };
        bail!("{}{hint}", problem(&answer));
    }
    let mut page = answer.json().context("the answer is no JSON")?;
    remark(&format!(
        "{item} of {id}: {} to {}, for new reservations; bought at another price:",
        page["old_price_minor"], page["sale_price_minor"]
    ));
    for finding in page["findings"].as_array().into_iter().flatten() {
        let detail = finding["detail"].as_str().unwrap_or_default();
        remark(&format!("LOOK AGAIN before you resume the sale: {detail}"));
    }
    say(
        "reservation_id,buyer_id,state,quantity,refunded_units,unit_price_minor,payment_ref,created_at",
    );
    let mut name = "reservations";
    loop {
        let bought = page[name].as_array().into_iter().flatten();
        bought.for_each(|one| rows_of(one, item));
        let Some(next) = page["next_cursor"].as_str() else {
            return Ok(());
        };
        let path = format!(
            "/v1/admin/sales/{id}/reservations?item={item}&not_at_price_minor={price_minor}&limit=200&cursor={next}"
        );
        page = client.call("GET", &path, None)?;
        name = "items";
    }
}

/// The lines of a reservation that are of this item. Ids hold nothing that CSV would have to quote.
fn rows_of(reservation: &Value, item: &str) {
    let lines = reservation["lines"].as_array().into_iter().flatten();
    for line in lines.filter(|line| line["item"] == item) {
        let fields = [
            &reservation["reservation_id"],
            &reservation["buyer_id"],
            &reservation["state"],
            &line["quantity"],
            &line["refunded_units"],
            &line["unit_price_minor"],
            &reservation["payment_ref"],
            &reservation["created_at"],
        ];
        say(&fields.map(field).join(","));
    }
}

fn field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A wave by hand.
pub(super) fn release(
    client: &mut AdminClient,
    id: &str,
    item: &str,
    units: u32,
    key: Option<&str>,
) -> anyhow::Result<()> {
    if let Some(key) = key {
        IdempotencyKey::parse(key).map_err(|bad| anyhow::anyhow!("--key {bad}"))?;
    }
    let path = format!("/v1/admin/sales/{id}/items/{item}/release");
    let body = json!({"units": units});
    let answer = client.send_with_key("POST", &path, Some(&body), key)?;
    if answer.status != 200 {
        bail!("{}", problem(&answer));
    }
    let told = answer.json().context("the answer is no JSON")?;
    say(&format!(
        "{} units of {item} are released",
        told["released_units"]
    ));
    Ok(())
}

/// Tells the differences that are due, page after page, one JSON line each; with `dry_run` only shows them.
pub(super) fn protect(client: &mut AdminClient, id: &str, dry_run: bool) -> anyhow::Result<()> {
    let (method, body) = if dry_run {
        ("GET", None)
    } else {
        ("POST", Some(json!({})))
    };
    let (mut cursor, mut count, mut amount_minor) = (String::new(), 0_u64, 0_i64);
    loop {
        let path = format!("/v1/admin/sales/{id}/price-protection?limit=200{cursor}");
        let page = client.call(method, &path, body.as_ref()).with_context(|| {
            format!("{count} differences were told before; the same again goes on")
        })?;
        for due in page["items"].as_array().into_iter().flatten() {
            say(&due.to_string());
            count += 1;
            amount_minor = amount_minor.saturating_add(due["amount_minor"].as_i64().unwrap_or(0));
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let done = if dry_run {
        "would be due"
    } else {
        "are due now"
    };
    remark(&format!(
        "{count} differences {done}, {amount_minor} in all"
    ));
    Ok(())
}

/// Events, one JSON line each; with `follow` those to come as well.
pub(super) fn events(
    client: &mut AdminClient,
    sale: Option<&str>,
    after: Option<&str>,
    follow: bool,
) -> anyhow::Result<()> {
    let of_sale = sale.map_or(String::new(), |sale| format!("&sale={sale}"));
    let mut last = after.map(str::to_owned);
    loop {
        let after = last
            .as_ref()
            .map_or(String::new(), |last| format!("&after={last}"));
        let path = format!("/v1/admin/events?limit=200{of_sale}{after}");
        let page = client.call("GET", &path, None)?;
        for event in page["items"].as_array().into_iter().flatten() {
            say(&event.to_string());
            last = event["id"].as_str().map(str::to_owned);
        }
        if page["next_cursor"].is_null() {
            if !follow {
                return Ok(());
            }
            client.wait(LOOK_INTERVAL);
        }
    }
}
