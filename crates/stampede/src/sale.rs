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
use crate::sale_report;

mod correct;

/// Carries one verb out.
pub(crate) fn run(command: &SaleCommand) -> Result<(), Failure> {
    if let SaleVerb::Report { id, format } = &command.verb {
        return Ok(sale_report::print(&command.admin, id, format.as_deref())?);
    }
    let mut client = AdminClient::new(&command.admin)?;
    match &command.verb {
        // Above: its answer takes longer.
        SaleVerb::Report { .. } => {}
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
        SaleVerb::Orders { id, state } => orders(&mut client, id, state)?,
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

/// Prints page by page, the header once.
fn orders(client: &mut AdminClient, id: &str, state: &str) -> anyhow::Result<()> {
    let is_word = !state.is_empty() && state.bytes().all(|byte| byte.is_ascii_lowercase());
    anyhow::ensure!(is_word, "--state {state:?} is no state");
    let mut cursor = String::new();
    loop {
        let path =
            format!("/v1/admin/sales/{id}/reservations?format=csv&state={state}&limit=200{cursor}");
        let page = client.send("GET", &path, None)?;
        if page.status != 200 {
            bail!("{}", problem(&page));
        }
        let text = str::from_utf8(&page.body).context("the answer is no text")?;
        let skipped = usize::from(!cursor.is_empty());
        text.lines().skip(skipped).for_each(say);
        match page.header("X-Next-Cursor") {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(()),
        }
    }
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

/// With `accept` they are published as well.
fn apply(
    client: &mut AdminClient,
    file: &Path,
    accept: Option<&Vec<String>>,
) -> anyhow::Result<()> {
    let definitions = read_all(file, now()?)?;
    for (index, definition) in definitions.iter().enumerate() {
        apply_one(client, definition)
            .with_context(|| of_sale(definition, index, definitions.len()))?;
    }
    let Some(accept) = accept else {
        return Ok(());
    };
    for (index, definition) in definitions.iter().enumerate() {
        let id = definition["sale_id"].as_str().unwrap_or_default();
        publish(client, id, accept)
            .with_context(|| of_sale(definition, index, definitions.len()))?;
    }
    Ok(())
}

/// Which one is meant.
fn of_sale(definition: &Value, index: usize, count: usize) -> String {
    let id = definition["sale_id"]
        .as_str()
        .unwrap_or("without a sale_id");
    format!("sale {id} ({} of {count})", index + 1)
}

fn apply_one(client: &mut AdminClient, definition: &Value) -> anyhow::Result<()> {
    let id = definition["sale_id"]
        .as_str()
        .context("sale_id is missing")?
        .to_owned();
    let made = client.send("POST", "/v1/admin/sales", Some(definition))?;
    match made.status {
        201 => say(&format!("{id} is a draft")),
        409 => {
            // It exists: replaced where it is still a draft.
            let path = format!("/v1/admin/sales/{id}");
            let replaced = client.send("PUT", &path, Some(definition))?;
            if replaced.status != 200 {
                let hint = match replaced.status {
                    409 => format!(
                        ", so it is not replaced: choose another sale_id, or, while nothing was reserved, `stampede sale unpublish {id}` first"
                    ),
                    _ => format!(": {}", problem(&replaced)),
                };
                bail!("{id} exists and is no draft any more{hint}");
            }
            say(&format!("{id} is a draft (replaced)"));
        }
        _ => bail!("{}", problem(&made)),
    }
    Ok(())
}

pub(crate) fn now() -> anyhow::Result<Timestamp> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(Timestamp(0).plus(since))
}

/// Reads the TOML of one sale or of a series as the admin API's JSON, with relative times resolved. In a series what
/// stands at the top counts for every `[[sales]]` that does not say otherwise; all are checked before any is sent.
///
/// # Errors
/// Names the sale that is not as it should be.
pub(crate) fn read_all(file: &Path, now: Timestamp) -> anyhow::Result<Vec<Value>> {
    let mut shared = parse(file)?;
    let Some(sales) = shared
        .as_object_mut()
        .and_then(|shared| shared.remove("sales"))
    else {
        // The engine checks it by itself, and knows what a newer one takes.
        return Ok(vec![resolve_times(shared, file, now)?]);
    };
    let sales = sales.as_array().filter(|sales| !sales.is_empty());
    let sales =
        sales.with_context(|| format!("{}: sales must be [[sales]] tables", file.display()))?;
    let mut definitions: Vec<Value> = Vec::with_capacity(sales.len());
    for (index, own) in sales.iter().enumerate() {
        let mut sale = shared.clone();
        if let (Some(sale), Some(own)) = (sale.as_object_mut(), own.as_object()) {
            sale.extend(own.clone());
        }
        let named = of_sale(&sale, index, sales.len());
        let sale = resolve_times(sale, file, now).with_context(|| named.clone())?;
        let checked: flash_types::SaleDefinition =
            serde_json::from_value(sale.clone()).with_context(|| named.clone())?;
        checked
            .check()
            .map_err(anyhow::Error::msg)
            .with_context(|| named.clone())?;
        if definitions
            .iter()
            .any(|other| other["sale_id"] == sale["sale_id"])
        {
            bail!("{named}: its sale_id stands there twice");
        }
        definitions.push(sale);
    }
    Ok(definitions)
}

/// Reads a file that holds one sale.
pub(crate) fn read(file: &Path, now: Timestamp) -> anyhow::Result<Value> {
    let mut sales = read_all(file, now)?;
    match (sales.pop(), sales.len()) {
        (Some(sale), 0) => Ok(sale),
        _ => bail!("{} holds several sales: give one", file.display()),
    }
}

fn parse(file: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the sale {}", file.display()))?;
    let table: toml::Table =
        toml::from_str(&text).with_context(|| format!("{} is no TOML", file.display()))?;
    Ok(serde_json::to_value(table)?)
}

fn resolve_times(mut definition: Value, file: &Path, now: Timestamp) -> anyhow::Result<Value> {
    let resolve = |time: &mut Value, field: &str| -> anyhow::Result<()> {
        *time = resolved(time, now).with_context(|| format!("{field} in {}", file.display()))?;
        Ok(())
    };
    for field in ["starts_at", "ends_at"] {
        if let Some(time) = definition.get_mut(field) {
            resolve(time, field)?;
        }
    }
    let again = definition.get_mut("re_release_at");
    for time in again.and_then(Value::as_array_mut).into_iter().flatten() {
        resolve(time, "re_release_at")?;
    }
    let items = definition.get_mut("items").and_then(Value::as_array_mut);
    for item in items.into_iter().flatten() {
        let waves = item.get_mut("waves").and_then(Value::as_array_mut);
        for wave in waves.into_iter().flatten() {
            if let Some(time) = wave.get_mut("at") {
                resolve(time, "waves")?;
            }
        }
    }
    Ok(definition)
}

/// `now`, `+10m` and the like as RFC 3339; what is written as a time stays.
pub(crate) fn resolved(time: &Value, now: Timestamp) -> anyhow::Result<Value> {
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
    fn the_example_series_is_three_sales_that_share_what_stands_at_the_top() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/examples/series.toml");
        let sales = read_all(&file, Timestamp(0)).unwrap();
        let starts: Vec<_> = sales.iter().map(|sale| sale["starts_at"].clone()).collect();
        assert_eq!(
            starts,
            [600_000, 7_200_000, 14_400_000].map(|ms| json!(Timestamp(ms)))
        );
        for sale in &sales {
            assert_eq!(sale["series"], "example-series");
            assert!(
                sale["items"]
                    .as_array()
                    .is_some_and(|items| !items.is_empty())
            );
        }
        // The last one overrides.
        assert_eq!(sales[1]["payment_window_s"], 300);
        assert_eq!(sales[2]["payment_window_s"], 120);
        assert!(read(&file, Timestamp(0)).is_err());
    }

    #[test]
    fn the_example_with_waves_is_a_sale() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/examples/waves.toml");
        let definition: flash_types::SaleDefinition =
            serde_json::from_value(read(&file, Timestamp(0)).unwrap()).unwrap();
        definition.check().unwrap();
        let waves = &definition.items[0].waves;
        let at: Vec<i64> = waves.iter().map(|wave| wave.at.0).collect();
        assert_eq!(at, [600_000, 1_200_000]);
        let again: Vec<i64> = definition.re_release_at.iter().map(|at| at.0).collect();
        assert_eq!(again, [1_800_000, 2_700_000]);
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
