//! `stampede sale …`: plan and run sales through the admin API.

use std::path::Path;

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use flash_types::Timestamp;
use serde_json::{Value, json};

use crate::Failure;
use crate::admin_client::{AdminClient, problem};
use crate::cli::{SaleCommand, SaleVerb};
use crate::logs::say;

mod correct;

/// Carries one verb out.
pub(crate) fn run(command: &SaleCommand) -> Result<(), Failure> {
    let mut client = AdminClient::new(&command.admin)?;
    match &command.verb {
        SaleVerb::List => list(&mut client)?,
        SaleVerb::Apply {
            file,
            publish,
            accept,
        } => apply(&mut client, file, publish.then_some(accept))?,
        SaleVerb::Publish { id, accept } => publish(&mut client, id, accept)?,
        SaleVerb::Unpublish { id } => change(&mut client, id, "unpublish")?,
        SaleVerb::Pause { id } => change(&mut client, id, "pause")?,
        SaleVerb::Resume { id } => change(&mut client, id, "resume")?,
        SaleVerb::Close { id } => change(&mut client, id, "close")?,
        SaleVerb::Price {
            id,
            item,
            price_minor,
            reason,
        } => correct::price(&mut client, id, item, *price_minor, reason)?,
        SaleVerb::Release {
            id,
            item,
            units,
            key,
        } => correct::release(&mut client, id, item, *units, key.as_deref())?,
        SaleVerb::Protect { id, dry_run } => correct::protect(&mut client, id, *dry_run)?,
        SaleVerb::Events {
            sale,
            after,
            follow,
        } => correct::events(&mut client, sale.as_deref(), after.as_deref(), *follow)?,
        SaleVerb::Loss { id } => loss(&mut client, id)?.iter().for_each(|line| say(line)),
        SaleVerb::AcceptLoss { id, list } => accept_loss(&mut client, id, list.as_deref())?,
    }
    Ok(())
}

fn list(client: &mut AdminClient) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "sale",
        "state",
        "starts",
        "ends",
        "item",
        "stock",
        "unreleased",
        "available",
        "reserved",
        "sold",
    ]);
    let mut cursor = String::new();
    loop {
        let page = client.call("GET", &format!("/v1/admin/sales?limit=200{cursor}"), None)?;
        for sale in page["items"].as_array().into_iter().flatten() {
            rows_of(client, sale, &mut table)?;
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    for index in 5..10 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    say(&table.to_string());
    Ok(())
}

/// One row an item; the sale's own columns only in the first.
fn rows_of(client: &mut AdminClient, sale: &Value, table: &mut Table) -> anyhow::Result<()> {
    let text = |name: &str| sale[name].as_str().unwrap_or("-").to_owned();
    let id = text("sale_id");
    let head = ["sale_id", "state", "starts_at", "ends_at"].map(text);
    let audit = client.send("GET", &format!("/v1/admin/sales/{id}/audit"), None)?;
    if audit.status != 200 {
        // A frozen sale may have nothing left in the store; the others are listed all the same.
        let unknown = (0..6).map(|_| "-".to_owned());
        table.add_row(head.into_iter().chain(unknown));
        return Ok(());
    }
    let audit = audit.json().context("the answer is no JSON")?;
    for (index, item) in audit["items"].as_array().into_iter().flatten().enumerate() {
        let head = match index {
            0 => head.clone(),
            _ => [(); 4].map(|()| String::new()),
        };
        let units = [
            "stock_units",
            "unreleased_units",
            "available_units",
            "reserved_units",
            "sold_units",
        ]
        .map(|name| item[name].to_string());
        let name = item["item"].as_str().unwrap_or_default().to_owned();
        table.add_row(head.into_iter().chain([name]).chain(units));
    }
    Ok(())
}

fn change(client: &mut AdminClient, id: &str, verb: &str) -> anyhow::Result<()> {
    command(client, id, verb, &json!({}))
}

fn publish(client: &mut AdminClient, id: &str, accept: &[String]) -> anyhow::Result<()> {
    command(client, id, "publish", &json!({"accept": accept}))
}

fn command(client: &mut AdminClient, id: &str, verb: &str, body: &Value) -> anyhow::Result<()> {
    let sale = client.call("POST", &format!("/v1/admin/sales/{id}/{verb}"), Some(body))?;
    say(&format!(
        "{id} is {}",
        sale["state"].as_str().unwrap_or("done")
    ));
    Ok(())
}

/// What is lost, one JSON line each.
fn loss(client: &mut AdminClient, id: &str) -> anyhow::Result<Vec<String>> {
    let (mut lines, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/admin/sales/{id}/loss?limit=200{cursor}");
        let page = client.call("GET", &path, None)?;
        if lines.is_empty() {
            let more = page["differences"].as_array().into_iter().flatten();
            lines.extend(more.map(|what| json!({"difference": what}).to_string()));
        }
        let items = page["items"].as_array().into_iter().flatten();
        lines.extend(items.map(Value::to_string));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(lines),
        }
    }
}

/// Writes the list down before anything is accepted: afterwards nobody has it any more.
fn accept_loss(client: &mut AdminClient, id: &str, list: Option<&Path>) -> anyhow::Result<()> {
    let lines = loss(client, id)?;
    let default = format!("loss-{id}.jsonl");
    let file = list.unwrap_or(Path::new(&default));
    let mut text = lines.join("\n");
    text.push('\n');
    // An older list may be all that is left of an older loss. What is no file (a terminal, /dev/null) holds none.
    if file.is_file() {
        bail!(
            "{} is there already, and may be the list of an older loss: --list names another file",
            file.display()
        );
    }
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let path = format!("/v1/admin/sales/{id}/accept-loss");
    // The list stays whatever comes of it: an answer may be lost after the loss was accepted.
    let done = client
        .call("POST", &path, Some(&json!({})))
        .with_context(|| format!("what is lost is listed in {}", file.display()))?;
    let differences = done["differences"].as_array().into_iter().flatten();
    let differences: Vec<&str> = differences.filter_map(Value::as_str).collect();
    let more = if differences.is_empty() {
        String::new()
    } else {
        format!(", and: {}", differences.join(" "))
    };
    say(&format!(
        "{id} is {}: {} reservations are lost{more}, listed in {}",
        done["state"].as_str().unwrap_or("frozen"),
        done["lost_reservations"],
        file.display()
    ));
    Ok(())
}

/// With `accept` it is published as well.
fn apply(
    client: &mut AdminClient,
    file: &Path,
    accept: Option<&Vec<String>>,
) -> anyhow::Result<()> {
    let definition = read(file, now()?)?;
    let id = definition["sale_id"]
        .as_str()
        .context("sale_id is missing")?
        .to_owned();
    let made = client.send("POST", "/v1/admin/sales", Some(&definition))?;
    match made.status {
        201 => say(&format!("{id} is a draft")),
        409 => {
            // It exists: replaced where it is still a draft.
            let path = format!("/v1/admin/sales/{id}");
            let replaced = client.send("PUT", &path, Some(&definition))?;
            if replaced.status != 200 {
                bail!(
                    "{id} exists and is no draft any more: {}",
                    problem(&replaced)
                );
            }
            say(&format!("{id} is a draft (replaced)"));
        }
        _ => bail!("{}", problem(&made)),
    }
    match accept {
        Some(accept) => publish(client, &id, accept),
        None => Ok(()),
    }
}

fn now() -> anyhow::Result<Timestamp> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(Timestamp(0).plus(since))
}

/// Reads a sale's TOML as the admin API's JSON, with relative times resolved.
fn read(file: &Path, now: Timestamp) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the sale {}", file.display()))?;
    let table: toml::Table =
        toml::from_str(&text).with_context(|| format!("{} is no TOML", file.display()))?;
    let mut definition = serde_json::to_value(table)?;
    for field in ["starts_at", "ends_at"] {
        if let Some(time) = definition.get_mut(field) {
            *time =
                resolved(time, now).with_context(|| format!("{field} in {}", file.display()))?;
        }
    }
    Ok(definition)
}

/// `now`, `+10m` and the like as RFC 3339; what is written as a time stays.
fn resolved(time: &Value, now: Timestamp) -> anyhow::Result<Value> {
    // A bare TOML time arrives as an object with one text.
    let text = time
        .as_str()
        .or_else(|| {
            time.as_object()
                .and_then(|o| o.values().next())
                .and_then(Value::as_str)
        })
        .context("must be a time such as \"2026-11-11T12:00:00Z\", \"now\" or \"+10m\"")?;
    if text == "now" {
        return Ok(json!(now));
    }
    let Some(offset) = text.strip_prefix('+') else {
        return Ok(json!(text));
    };
    let unit = offset.chars().last().unwrap_or_default();
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => bail!("{text:?} must end in s, m, h or d, such as +10m"),
    };
    let count: u64 = offset[..offset.len() - unit.len_utf8()]
        .parse()
        .ok()
        .filter(|count| *count <= 1_000_000)
        .with_context(|| format!("{text:?} must be like +10m"))?;
    Ok(json!(
        now.plus(std::time::Duration::from_secs(count * seconds))
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_be_relative() {
        let now = Timestamp(1_000_000);
        let at = |ms: i64| json!(Timestamp(ms));
        for (text, resolved_to) in [
            ("now", at(1_000_000)),
            ("+10m", at(1_600_000)),
            ("+2h", at(8_200_000)),
            ("+1d", at(87_400_000)),
            ("2026-11-11T12:00:00Z", json!("2026-11-11T12:00:00Z")),
        ] {
            assert_eq!(resolved(&json!(text), now).unwrap(), resolved_to, "{text}");
        }
        for bad in ["+", "+m", "+10", "+10w", "+-1m"] {
            assert!(resolved(&json!(bad), now).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_example_is_a_sale() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/examples/sale.toml");
        let definition: flash_types::SaleDefinition =
            serde_json::from_value(read(&file, Timestamp(0)).unwrap()).unwrap();
        definition.check().unwrap();
        assert_eq!(definition.sale_id.as_str(), "example-sale");
    }
}
