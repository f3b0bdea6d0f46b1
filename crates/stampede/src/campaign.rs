//! `stampede campaign …`: plan and run campaigns through the admin API.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use crowd::client::Response;
use flash_types::Timestamp;
use serde_json::{Value, json};

use crate::Failure;
use crate::admin_client::{AdminClient, problem};
use crate::cli::AdminArgs;
use crate::logs::say;
use crate::sale::{now, resolved};

#[derive(Debug, Args)]
pub(crate) struct CampaignCommand {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(subcommand)]
    pub(crate) verb: CampaignVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CampaignVerb {
    /// List all campaigns with their state.
    List,
    /// Make a draft from a TOML file, or replace the draft; times may be relative (now, +10m).
    Apply {
        /// The campaign (see config/examples/giveaway.toml).
        file: PathBuf,
        /// Publish it as well.
        #[arg(long)]
        publish: bool,
        /// Publish though its worst case is not covered: insolvent, unbounded.
        #[arg(long, value_name = "CODE", num_args = 1.., requires = "publish")]
        accept: Vec<String>,
    },
    /// Publish a draft: its rules are frozen, its budget is funded; it opens at its start, at once if that has passed.
    Publish {
        /// The campaign.
        id: String,
        /// Publish though its worst case is not covered: insolvent, unbounded.
        #[arg(long, value_name = "CODE", num_args = 1..)]
        accept: Vec<String>,
    },
    /// Stop it for a while; its end stays.
    Pause(MoveArgs),
    /// Go on.
    Resume(MoveArgs),
    /// End it now; what was promised is kept.
    End(MoveArgs),
    /// Settle now what has ended: draws, rewards; it begins by itself otherwise.
    Settle(MoveArgs),
    /// Cancel what has not begun; its budget goes back.
    Cancel(MoveArgs),
    /// Take what is settled out of the lists.
    Archive(MoveArgs),
    /// Switch the prepared rules on, once.
    PlanB {
        /// The campaign.
        id: String,
        /// Why; told in the list of versions.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Print its daily report as JSON.
    Report {
        /// The campaign.
        id: String,
        /// The day, YYYY-MM-DD in its zone. [default: the last one]
        #[arg(long, value_name = "DATE")]
        date: Option<String>,
    },
    /// Print how its budget stands, or add to it.
    Budget {
        /// The campaign.
        id: String,
        /// Add so much, minor units.
        #[arg(long, value_name = "MINOR", requires = "reason")]
        add: Option<u64>,
        /// Why; kept in the audit log.
        #[arg(long, value_name = "TEXT", requires = "add")]
        reason: Option<String>,
    },
    /// List its versions: what changed, when, why, with the hash of the rules.
    Versions {
        /// The campaign.
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// The campaign.
    pub(crate) id: String,
    /// Why; kept in the audit log.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// Carries one verb out.
pub(crate) fn run(command: &CampaignCommand) -> Result<(), Failure> {
    let client = &mut AdminClient::new(&command.admin)?;
    match &command.verb {
        CampaignVerb::List => list(client)?,
        CampaignVerb::Apply {
            file,
            publish,
            accept,
        } => apply(client, file, publish.then_some(accept))?,
        CampaignVerb::Publish { id, accept } => {
            order(client, id, "publish", &json!({"accept": accept}))?;
        }
        CampaignVerb::Pause(args) => go(client, args, "pause")?,
        CampaignVerb::Resume(args) => go(client, args, "resume")?,
        CampaignVerb::End(args) => go(client, args, "end")?,
        CampaignVerb::Settle(args) => go(client, args, "settle")?,
        CampaignVerb::Cancel(args) => go(client, args, "cancel")?,
        CampaignVerb::Archive(args) => go(client, args, "archive")?,
        CampaignVerb::PlanB { id, reason } => {
            order(client, id, "plan-b", &json!({"reason": reason}))?;
        }
        CampaignVerb::Report { id, date } => report(client, id, date.as_deref())?,
        CampaignVerb::Budget { id, add, reason } => budget(client, id, *add, reason.as_deref())?,
        CampaignVerb::Versions { id } => versions(client, id)?,
    }
    Ok(())
}

fn list(client: &mut AdminClient) -> anyhow::Result<()> {
    let columns = [
        "campaign_id",
        "kind",
        "state",
        "version",
        "starts_at",
        "ends_at",
        "title",
    ];
    let mut table = table_of(&[
        "campaign", "kind", "state", "version", "starts", "ends", "title",
    ]);
    each(client, "/v1/admin/campaigns", |campaign| {
        table.add_row(columns.map(|name| plain(&campaign[name])));
    })?;
    say(&table.to_string());
    Ok(())
}

fn versions(client: &mut AdminClient, id: &str) -> anyhow::Result<()> {
    let columns = ["version", "at", "who", "rules_hash", "reason"];
    let mut table = table_of(&columns);
    let path = format!("/v1/admin/campaigns/{id}/versions");
    each(client, &path, |version| {
        table.add_row(columns.map(|name| plain(&version[name])));
    })?;
    say(&table.to_string());
    Ok(())
}

/// All items of a list, page by page.
fn each(client: &mut AdminClient, path: &str, mut show: impl FnMut(&Value)) -> anyhow::Result<()> {
    let mut cursor = String::new();
    loop {
        let page = client.call("GET", &format!("{path}?limit=200{cursor}"), None)?;
        page["items"]
            .as_array()
            .into_iter()
            .flatten()
            .for_each(&mut show);
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(()),
        }
    }
}

fn report(client: &mut AdminClient, id: &str, date: Option<&str>) -> anyhow::Result<()> {
    if let Some(date) = date {
        let is_date = date.len() == 10 && date.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        anyhow::ensure!(is_date, "--date {date:?} is not like 2026-11-11");
    }
    let asked = date.map_or(String::new(), |date| format!("?date={date}"));
    let path = format!("/v1/admin/campaigns/{id}/report{asked}");
    let told = client.call("GET", &path, None)?;
    say(&serde_json::to_string_pretty(&told)?);
    Ok(())
}

fn budget(
    client: &mut AdminClient,
    id: &str,
    add_minor: Option<u64>,
    reason: Option<&str>,
) -> anyhow::Result<()> {
    let path = format!("/v1/admin/campaigns/{id}/budget");
    let stands = match add_minor {
        None => client.call("GET", &path, None)?,
        Some(add_minor) => {
            let body = json!({"add_minor": add_minor, "reason": reason});
            command(client, &path, &body)?
        }
    };
    let columns = [
        "cap_minor",
        "available_minor",
        "held_minor",
        "spent_minor",
        "currency",
    ];
    let mut table = table_of(&["cap", "available", "held", "spent", "currency"]);
    table.add_row(columns.map(|name| plain(&stands[name])));
    say(&table.to_string());
    Ok(())
}

fn go(client: &mut AdminClient, args: &MoveArgs, verb: &str) -> anyhow::Result<()> {
    let body = match &args.reason {
        Some(reason) => json!({"reason": reason}),
        None => json!({}),
    };
    order(client, &args.id, verb, &body)
}

fn order(client: &mut AdminClient, id: &str, verb: &str, body: &Value) -> anyhow::Result<()> {
    let path = format!("/v1/admin/campaigns/{id}/{verb}");
    let campaign = command(client, &path, body)?;
    let state = campaign["state"].as_str().unwrap_or("done");
    let version = match verb {
        "plan-b" => format!(", version {}", campaign["version"]),
        _ => String::new(),
    };
    say(&format!("{id} is {state}{version}"));
    Ok(())
}

/// A command under a key of its own.
fn command(client: &mut AdminClient, path: &str, body: &Value) -> anyhow::Result<Value> {
    let answer = client.send_with_key("POST", path, Some(body), Some(&fresh_key()?))?;
    if !(200..300).contains(&answer.status) {
        bail!("{}", told(&answer));
    }
    answer.json().context("the answer is no JSON")
}

/// With `accept` it is published as well.
fn apply(
    client: &mut AdminClient,
    file: &Path,
    accept: Option<&Vec<String>>,
) -> anyhow::Result<()> {
    let definition = read(file, now()?)?;
    let id = definition["campaign_id"]
        .as_str()
        .context("campaign_id is missing")?;
    let key = fresh_key()?;
    let made =
        client.send_with_key("POST", "/v1/admin/campaigns", Some(&definition), Some(&key))?;
    match made.status {
        201 => say(&format!("{id} is a draft")),
        409 => {
            // It exists: replaced where it is still a draft.
            let path = format!("/v1/admin/campaigns/{id}");
            let replaced = client.send("PUT", &path, Some(&definition))?;
            match replaced.status {
                200 => say(&format!("{id} is a draft (replaced)")),
                409 => bail!(
                    "{id} exists and is no draft any more, so it is not replaced: choose another campaign_id"
                ),
                _ => bail!("{}", told(&replaced)),
            }
        }
        _ => bail!("{}", told(&made)),
    }
    match accept {
        Some(accept) => order(client, id, "publish", &json!({"accept": accept})),
        None => Ok(()),
    }
}

/// Reads the TOML of a campaign as the admin API's JSON, with relative times resolved.
fn read(file: &Path, now: Timestamp) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the campaign {}", file.display()))?;
    let table: toml::Table =
        toml::from_str(&text).with_context(|| format!("{} is no TOML", file.display()))?;
    let mut definition = serde_json::to_value(table)?;
    resolve_times(&mut definition, now).with_context(|| file.display().to_string())?;
    Ok(definition)
}

/// Times are what is called so (`starts_at`, `valid_until`), at any depth, rules included.
fn resolve_times(value: &mut Value, now: Timestamp) -> anyhow::Result<()> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        Value::Array(items) => {
            for item in items {
                resolve_times(item, now)?;
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                let is_time = ["_at", "_from", "_until"]
                    .iter()
                    .any(|end| name.ends_with(end));
                // A bare TOML time is an object with one text.
                if is_time && (member.is_string() || member.is_object()) {
                    *member = resolved(member, now).with_context(|| name.clone())?;
                } else {
                    resolve_times(member, now)?;
                }
            }
        }
    }
    Ok(())
}

/// The problem, with all that was found.
fn told(answer: &Response) -> String {
    let Some(told) = answer
        .json()
        .ok()
        .filter(|told| told["findings"].is_array())
    else {
        return problem(answer);
    };
    let outcome = told["outcome"].as_str().unwrap_or_default();
    let mut line = format!("{outcome} ({})", answer.status);
    if outcome == "solvency" {
        let worst = &told["worst_case"]["total_minor"];
        line.push_str(&format!(
            ": it may cost {worst}, its budget is {}",
            told["budget_minor"]
        ));
    }
    let mut table = table_of(&["code", "field", "what"]);
    let mut codes: Vec<&str> = Vec::new();
    for finding in told["findings"].as_array().into_iter().flatten() {
        table.add_row(["code", "field", "detail"].map(|name| plain(&finding[name])));
        let code = finding["code"].as_str().unwrap_or("-");
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    line.push_str(&format!("\n{table}"));
    if outcome == "solvency" {
        let codes = codes.join(" ");
        line.push_str(&format!(
            "\nChange rules or budget, or, where it is meant so, publish with --accept {codes}"
        ));
    }
    line
}

fn table_of(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().copied());
    table
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn fresh_key() -> anyhow::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("cli-{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_resolved_at_any_depth_and_nothing_else_is_touched() {
        let mut value: Value = serde_json::to_value(
            toml::from_str::<toml::Table>(
                "starts_at = \"now\"\nends_at = 2026-11-11T12:00:00Z\ntitle = \"+1 for you\"\n\
                 [rules]\nslots = [{ opens_at = \"+10m\" }]\n[[rewards]]\nvalid_until = \"+1d\"\n",
            )
            .unwrap(),
        )
        .unwrap();
        resolve_times(&mut value, Timestamp(0)).unwrap();
        let expected = json!({
            "starts_at": Timestamp(0), "ends_at": "2026-11-11T12:00:00Z", "title": "+1 for you",
            "rules": {"slots": [{"opens_at": Timestamp(600_000)}]},
            "rewards": [{"valid_until": Timestamp(86_400_000)}],
        });
        assert_eq!(value, expected);
        let mut bad = json!({"rules": {"opens_at": "+10w"}});
        let error = resolve_times(&mut bad, Timestamp(0)).unwrap_err();
        assert!(format!("{error:#}").contains("opens_at"), "{error:#}");
    }

    #[test]
    fn the_example_is_a_campaign() {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/examples/giveaway.toml");
        let definition = read(&file, Timestamp(0)).unwrap();
        assert_eq!(definition["campaign_id"], "example-giveaway");
        assert_eq!(definition["starts_at"], json!(Timestamp(0)));
        assert_eq!(definition["rules"]["draws"][0]["reward"], "tablet");
    }
}
