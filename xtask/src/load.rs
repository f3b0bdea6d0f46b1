//! An opening spike by k6 against a fresh release server; then the books, by the API and from the store alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use crowd::api::{Addresses, Api};
use crowd::{Server, ServerOptions, check};
use serde_json::json;

use crate::{setup, shell};

const SALE: &str = "opening";

#[derive(clap::Args)]
pub struct Options {
    /// Units for sale
    #[arg(long, default_value_t = 2_000)]
    stock: u32,
    /// Purchases per second at the peak
    #[arg(long, default_value_t = 1_000)]
    peak: u32,
    /// Seconds that the peak is held
    #[arg(long, default_value_t = 8)]
    hold: u32,
    /// Takes this program instead of building one
    #[arg(long)]
    server: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            stock: 2_000,
            peak: 1_000,
            hold: 8,
            server: None,
        }
    }
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let k6 = setup::k6().context("no k6 program: `cargo xtask setup` installs it")?;
    let binary = match &options.server {
        Some(path) => path.clone(),
        None => shell::release_server()?,
    };
    let dir = tempfile::Builder::new()
        .prefix("stampede-load-")
        .tempdir()?;
    let mut server = Server::start(&ServerOptions::new(&binary, dir.path().join("data")))?;
    let keys = server.keys()?;
    let runtime = shell::runtime()?;
    let addresses = Addresses {
        public: server.public,
        admin: server.admin,
    };
    runtime.block_on(Api::new(addresses, keys.clone()).publish(&sale(options.stock)))?;

    let summary = dir.path().join("summary.json");
    let ended = run_k6(&k6, options, &server, &keys.buyer_jwt_secret, &summary);
    println!("{}", described(&summary)?);
    ended?;

    let mut api = Api::new(addresses, keys);
    let (audit, reservations) = runtime
        .block_on(async { anyhow::Ok((api.audit(SALE).await?, api.reservations(SALE).await?)) })?;
    let held = reservations
        .iter()
        .filter(|one| one.state == "reserved")
        .count();
    let [item] = audit.items.as_slice() else {
        bail!("one item was published, the audit shows {:?}", audit.items);
    };
    let is_right = audit.ok
        && held == options.stock as usize
        && item.reserved_units == u64::from(options.stock)
        && item.available_units == 0;
    if !is_right {
        bail!(
            "{held} reservations of {} units; the audit says {audit:?}",
            options.stock
        );
    }
    let running = check::audit_store(&binary, server.data())?;
    let status = server.stop(Duration::from_secs(20))?;
    let stopped = check::audit_store(&binary, server.data())?;
    if !status.success() || running.0 != Some(0) || stopped.0 != Some(0) {
        bail!("server {status}, audit running {running:?}, stopped {stopped:?}");
    }
    println!("{held} units, {held} winners, nobody twice; the books balance, running and stopped");
    Ok(())
}

fn run_k6(
    k6: &Path,
    options: &Options,
    server: &Server,
    secret: &str,
    summary: &Path,
) -> anyhow::Result<()> {
    let script = shell::root().join("loadtest/opening.js");
    shell::run(
        Command::new(k6)
            .args([
                "run",
                "--quiet",
                "--no-usage-report",
                "--address",
                "127.0.0.1:0",
            ])
            .arg(script)
            .env("BASE", format!("http://{}", server.public))
            .env("SECRET", secret)
            .env("SALE", SALE)
            .env("ITEM", "sku-1")
            .env("STOCK", options.stock.to_string())
            .env("PEAK", options.peak.to_string())
            .env("HOLD", format!("{}s", options.hold))
            .env("SUMMARY", summary),
    )
}

/// The figures of k6 that matter, in one line.
fn described(summary: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(summary).context("k6 left no summary")?;
    let summary: serde_json::Value = serde_json::from_str(&text)?;
    let value = |metric: &str, value: &str| {
        summary["metrics"][metric]["values"][value]
            .as_f64()
            .unwrap_or(0.0)
    };
    Ok(format!(
        "{} requests, {:.0}/s; reserved {}, replayed {}, sold out {}, unexpected {}; not sent in time {}; \
         winners p99 {:.1} ms, refusals p99 {:.1} ms",
        value("http_reqs", "count"),
        value("http_reqs", "rate"),
        value("reserved", "count"),
        value("replayed", "count"),
        value("sold_out", "count"),
        value("unexpected", "count"),
        value("dropped_iterations", "count"),
        value("winner_ms", "p(99)"),
        value("refusal_ms", "p(99)"),
    ))
}

fn sale(stock_units: u32) -> serde_json::Value {
    json!({
        "sale_id": SALE, "title": "Opening", "currency": "CNY",
        "starts_at": shell::rfc3339_in(-1), "ends_at": shell::rfc3339_in(3600),
        "payment_window_s": 600,
        "admission": {"ticket": "off", "buyer_rate_per_s": 5, "buyer_burst": 10,
                      "address_rate_per_s": 10_000_000, "address_burst": 10_000_000},
        "items": [{"item": "sku-1", "title": "Headphones", "sale_price_minor": 9_900,
                   "stock_units": stock_units, "units_per_buyer_max": 1}],
    })
}
