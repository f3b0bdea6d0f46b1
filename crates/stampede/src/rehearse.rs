//! `stampede rehearse ID|FILE`: by a running engine, or by this process for a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use comfy_table::{CellAlignment, Table, presets};
use flash_front::{RehearsalPlan, RehearsalReport};
use flash_types::SaleDefinition;
use serde_json::json;

use crate::Failure;
use crate::admin_client::AdminClient;
use crate::cli::RehearseArgs;
use crate::config::Config;
use crate::logs::say;
use crate::rehearsal::rehearse;
use crate::sale;
use crate::serve::Signals;

/// Exit 1 where the machine does not hold the crowd.
pub(crate) fn run(args: &RehearseArgs) -> Result<(), Failure> {
    let file = Path::new(&args.sale);
    let report = if file.is_file() {
        of_file(args, file)?
    } else {
        let mut client = AdminClient::patient(&args.admin, Duration::from_secs(75))?;
        let body = json!({"buyers": args.buyers, "seconds": args.seconds, "while_selling": args.while_selling});
        let path = format!("/v1/admin/sales/{}/rehearse", args.sale);
        let report = client.call("POST", &path, Some(&body))?;
        serde_json::from_value(report).context("the answer is no report")?
    };
    if args.json {
        say(&serde_json::to_string(&report).map_err(anyhow::Error::from)?);
    } else {
        say(&shown(&report));
    }
    if report.holds {
        Ok(())
    } else {
        Err(anyhow!("this machine does not hold {} buyers", report.buyers).into())
    }
}

fn of_file(args: &RehearseArgs, file: &Path) -> Result<RehearsalReport, Failure> {
    let bad = |why: String| Failure::CannotStart(format!("{}: {why}", file.display()));
    let definition: SaleDefinition = serde_json::from_value(sale::read(file, sale::now()?)?)
        .map_err(|error| bad(error.to_string()))?;
    definition.check().map_err(bad)?;
    let plan = RehearsalPlan {
        definition,
        buyers: args.buyers,
        seconds: args.seconds,
    };
    // The disk that will be sold from, where it is known.
    let data = args
        .admin
        .data
        .clone()
        .unwrap_or_else(|| PathBuf::from("./stampede-data"));
    let beside = if data.is_dir() {
        data
    } else {
        PathBuf::from(".")
    };
    let beside = beside.canonicalize().map_err(anyhow::Error::from)?;
    let signals = Signals::listen()?;
    let is_cancelled = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_cancelled);
    let thread = std::thread::Builder::new().name("rehearsal".into());
    let thread = thread
        .spawn(move || rehearse(&plan, &Config::default(), &beside, &flag))
        .map_err(anyhow::Error::from)?;
    while !thread.is_finished() {
        if signals.is_told() {
            is_cancelled.store(true, Ordering::Relaxed);
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let report = thread
        .join()
        .map_err(|_| anyhow!("the rehearsal panicked"))?;
    Ok(report?)
}

fn shown(report: &RehearsalReport) -> String {
    let mut items = Table::new();
    items.load_style(presets::NOTHING);
    items.set_header(["item", "units", "sold", "left", "sold out after"]);
    for item in &report.items {
        let after = item
            .sold_out_after_ms
            .map(|ms| format!("{:.1} s", ms as f64 / 1e3));
        items.add_row([
            item.item.clone(),
            item.stock_units.to_string(),
            item.sold_units.to_string(),
            item.left_units.to_string(),
            after.unwrap_or_else(|| "-".into()),
        ]);
    }
    let mut facts = Table::new();
    facts.load_style(presets::NOTHING);
    let mut row = |name: &str, value: String| {
        facts.add_row([name.to_owned(), value]);
    };
    row("buyers who came", report.buyers.to_string());
    row("buyers who got something", report.buyers_served.to_string());
    row("attempts", report.attempts.to_string());
    for (outcome, count) in &report.refused {
        row(&format!("refused: {outcome}"), count.to_string());
    }
    row(
        "calls per second, busiest / mean",
        format!("{} / {:.0}", report.peak_per_s, report.mean_per_s),
    );
    row(
        "p50 / p99",
        format!("{:.1} / {:.1} ms", report.p50_ms, report.p99_ms),
    );
    for (table, columns) in [(&mut items, 1..5), (&mut facts, 1..2)] {
        for index in columns {
            if let Some(column) = table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let findings: String = report
        .findings
        .iter()
        .map(|line| format!("FOUND: {line}\n"))
        .collect();
    let word = if report.holds {
        "HOLDS"
    } else {
        "DOES NOT HOLD"
    };
    format!(
        "{} in {} s, on the disk of {}\n\n{items}\n\n{facts}\n\n{findings}{word}: {}",
        report.sale_id, report.seconds, report.disk, report.reason
    )
}
