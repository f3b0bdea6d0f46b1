//! A rehearsal: a sale's rules run on an engine of its own, in a process and a data folder of their own, with a crowd.
//!
//! The copy never sees the real store: it is another process of this program on loopback, with the same configuration
//! but for store, keys, webhooks and addresses, in a folder inside of the data folder (the same disk, whose flushes are what
//! limits winners). Its metrics, panics and memory are its own. Buyers and engine share this machine, so what holds
//! here holds with the buyers elsewhere. Folder and process are gone on every way out; a copy whose parent was killed
//! ends and takes its folder along.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use crowd::api::{Addresses, Api};
use crowd::behaviour::{ItemPlan, Progress, SaleParams, Summary, run_sale};
use crowd::log::ClientLog;
use crowd::{Server, ServerOptions};
use flash_front::{RehearsalPlan, RehearsalReport, RehearsedItem};
use flash_types::{SaleDefinition, Timestamp};
use serde_json::{Value, json};

use crate::config::{self, Config};

mod judge;
mod service;

pub(crate) use service::Rehearser;

/// Folders of copies begin with this; nothing else is ever removed.
pub(crate) const FOLDER_PREFIX: &str = "rehearsal-";
/// A sale lasts so long in the copy where nothing else is said.
const SECONDS: u32 = 20;
const SECONDS_MIN: u32 = 3;
/// Where the sale names no crowd: buyers for each unit, and the most of them.
const BUYERS_PER_UNIT: u64 = 20;
const BUYERS_MAX: u64 = 50_000;
const BUYERS_ASKED_MAX: u32 = 200_000;
const OPENS_IN: Duration = Duration::from_millis(1_500);
/// In this time the crowd comes, half of it in the first eighth.
const RUSH_MAX: Duration = Duration::from_secs(5);
/// After the end of the sale, for what is still to be paid.
const AFTER: Duration = Duration::from_secs(4);
/// All of it is over within this.
const BOUND: Duration = Duration::from_secs(58);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Runs one, from the start of its process to its report. Blocks; ends early once `is_cancelled`.
pub(crate) fn rehearse(
    plan: &RehearsalPlan,
    config: &Config,
    beside: &Path,
    is_cancelled: &AtomicBool,
) -> anyhow::Result<RehearsalReport> {
    let folder = Folder::make(beside)?;
    let options = server_options(config, &folder.0)?;
    let server = Server::start(&options)?;
    let played = Played::of(plan, config)?;
    let params = played.params(&server)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop to be had")?;
    let (summary, items) = runtime.block_on(async {
        tokio::select! {
            done = run(params, &server) => done,
            why = given_up(is_cancelled) => bail!(why),
        }
    })?;
    // Gone before the folder is.
    drop(server);
    Ok(judge::report(&played, &summary, items, beside))
}

async fn given_up(is_cancelled: &AtomicBool) -> &'static str {
    let end = Instant::now() + BOUND;
    loop {
        // Relaxed: a flag by itself.
        if is_cancelled.load(Ordering::Relaxed) {
            return "it was broken off";
        }
        if Instant::now() >= end {
            return "it was not over within a minute: fewer buyers, or fewer seconds";
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The folder of a copy. Dropping it removes it.
struct Folder(PathBuf);

impl Folder {
    fn make(beside: &Path) -> anyhow::Result<Self> {
        let random = getrandom::u32().map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
        let path = beside.join(format!("{FOLDER_PREFIX}{random:08x}"));
        std::fs::create_dir(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "the folder of a rehearsal stays");
        }
    }
}

/// The same engine, but for its store, keys, webhooks and addresses.
fn server_options(config: &Config, folder: &Path) -> anyhow::Result<ServerOptions> {
    let mut config = config.clone();
    config.store = config::Store {
        data: folder.to_owned(),
        ..config::Store::default()
    };
    config.keys = config::Keys::default();
    // Nobody outside hears of what happens in the copy: its events bear the names of real ones.
    config.webhooks = Vec::new();
    // A sale is rehearsed, not what stands beside it.
    config.campaigns.enabled = false;
    config.log.level = "warn".into();
    let file = folder.join("rehearsal.toml");
    std::fs::write(&file, toml::to_string(&config)?)?;
    let mut options = ServerOptions::new(this_program()?, folder);
    let file = file.to_str().context("the folder's name is no text")?;
    options.arguments = ["--config", file, "--rehearsal"].map(str::to_owned).into();
    options.environment_removed = config::environment()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    options.ready_within = Duration::from_secs(10);
    Ok(options)
}

/// What is played.
struct Played {
    definition: SaleDefinition,
    buyers: u32,
    seconds: u32,
    deadline: Duration,
}

impl Played {
    fn of(plan: &RehearsalPlan, config: &Config) -> anyhow::Result<Self> {
        let definition = plan.definition.clone();
        let stock: u64 = definition
            .items
            .iter()
            .map(|item| u64::from(item.stock_units))
            .sum();
        if stock == 0 {
            bail!("the sale has no units");
        }
        let usual = (stock * BUYERS_PER_UNIT).min(BUYERS_MAX);
        let expected = definition
            .expected_crowd
            .map(|crowd| crowd.min(BUYERS_ASKED_MAX));
        let usual = u32::try_from(usual).unwrap_or(BUYERS_ASKED_MAX);
        let length_s = (definition.ends_at.0 - definition.starts_at.0) / 1_000;
        let length_s = u32::try_from(length_s).unwrap_or(u32::MAX);
        Ok(Self {
            buyers: plan.buyers.or(expected).unwrap_or(usual),
            seconds: plan
                .seconds
                .unwrap_or(SECONDS)
                .min(length_s)
                .max(SECONDS_MIN),
            deadline: Duration::from_millis(config.engine.request_deadline_ms),
            definition,
        })
    }

    fn payment_window_s(&self) -> u32 {
        let length_ms = (self.definition.ends_at.0 - self.definition.starts_at.0).max(1);
        let window = i64::from(self.definition.payment_window_s) * 1_000 * i64::from(self.seconds);
        u32::try_from(window / length_ms).unwrap_or(u32::MAX).max(1)
    }

    /// The sale with its times moved to `opens_at` and compressed.
    fn compressed(&self, opens_at: Timestamp) -> anyhow::Result<Value> {
        let planned = &self.definition;
        let length_ms = (planned.ends_at.0 - planned.starts_at.0).max(1);
        let moved = |at: Timestamp| {
            let part = (at.0 - planned.starts_at.0) as f64 / length_ms as f64;
            Timestamp(opens_at.0 + (part * f64::from(self.seconds) * 1e3) as i64)
        };
        let mut sale = serde_json::to_value(planned)?;
        sale["starts_at"] = json!(opens_at);
        sale["ends_at"] = json!(moved(planned.ends_at));
        sale["payment_window_s"] = json!(self.payment_window_s());
        // One machine plays them all, so the rate of its address means nothing; and nobody gets a ticket.
        for name in ["address_rate_per_s", "address_burst"] {
            sale["admission"][name] = json!(flash_types::bounds::RATE_PER_S_MAX);
        }
        sale["admission"]["ticket"] = json!("off");
        // What was close together may fall on one moment: it stays in order.
        let in_order = |times: &mut dyn Iterator<Item = Timestamp>| {
            let mut last = Timestamp(i64::MIN);
            let next = |at| {
                last = moved(at).max(Timestamp(last.0.saturating_add(1)));
                last
            };
            times.map(next).collect::<Vec<_>>()
        };
        sale["re_release_at"] = json!(in_order(&mut planned.re_release_at.iter().copied()));
        for (item, planned) in sale["items"]
            .as_array_mut()
            .into_iter()
            .flatten()
            .zip(&planned.items)
        {
            let times = in_order(&mut planned.waves.iter().map(|wave| wave.at));
            for (wave, at) in item["waves"]
                .as_array_mut()
                .into_iter()
                .flatten()
                .zip(times)
            {
                wave["at"] = json!(at);
            }
            // Prices are judged when the sale itself is published.
            for price in ["list_price_minor", "floor_price_minor"] {
                item[price] = Value::Null;
            }
        }
        Ok(sale)
    }

    fn params(&self, server: &Server) -> anyhow::Result<SaleParams> {
        let addresses = Addresses {
            public: server.public,
            admin: server.admin,
        };
        let mut params = SaleParams::new(addresses, server.keys()?, self.buyers, 1);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        params.planned = Some(self.compressed(Timestamp(0).plus(since + OPENS_IN))?);
        params.sale_id = self.definition.sale_id.to_string();
        let items = self
            .definition
            .items
            .iter()
            .filter(|item| item.stock_units > 0);
        params.items = items
            .map(|item| ItemPlan {
                item: item.item.to_string(),
                title: item.title.clone(),
                stock_units: item.stock_units,
                list_price_minor: 0,
                sale_price_minor: 0,
                units_wanted_max: item.units_per_buyer_max.unwrap_or(3).min(5),
            })
            .collect();
        params.opens_in = OPENS_IN;
        params.payment_window = Duration::from_secs(self.payment_window_s().into());
        let length = Duration::from_secs(self.seconds.into());
        params.rush = (length / 2).min(RUSH_MAX);
        params.bound = OPENS_IN + length + AFTER;
        params.late_after = self.deadline;
        Ok(params)
    }
}

/// The program that runs, also where its file was replaced since.
fn this_program() -> std::io::Result<std::path::PathBuf> {
    let itself = std::path::Path::new("/proc/self/exe");
    if itself.exists() {
        Ok(itself.to_owned())
    } else {
        std::env::current_exe()
    }
}

/// The sale and its crowd, and beside it somebody who looks when each item is sold out.
async fn run(params: SaleParams, server: &Server) -> anyhow::Result<(Summary, Vec<RehearsedItem>)> {
    let opens_at = Instant::now() + params.opens_in;
    let (addresses, sale_id) = (params.addresses, params.sale_id.clone());
    let mut api = Api::new(addresses, server.keys()?);
    let sale = run_sale(
        params,
        Arc::new(Progress::default()),
        Arc::new(ClientLog::off()),
    );
    tokio::pin!(sale);
    let mut sold_out = std::collections::HashMap::<String, u64>::new();
    let summary = loop {
        tokio::select! {
            done = &mut sale => break done?,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        // Before the opening nothing is available either.
        if Instant::now() < opens_at {
            continue;
        }
        let audit = tokio::select! {
            done = &mut sale => break done?,
            audit = api.audit(&sale_id) => audit,
        };
        for item in audit.into_iter().flat_map(|audit| audit.items) {
            if item.unreleased_units == 0 && item.available_units == 0 && item.stock_units > 0 {
                let after = u64::try_from(opens_at.elapsed().as_millis()).unwrap_or(u64::MAX);
                sold_out.entry(item.item).or_insert(after);
            }
        }
    };
    let audit = Api::new(addresses, server.keys()?).audit(&sale_id).await?;
    if !audit.ok {
        bail!("the books of the copy do not balance: {:?}", audit.findings);
    }
    let items = audit.items.into_iter().map(|item| RehearsedItem {
        left_units: item.unreleased_units + item.available_units,
        stock_units: item.stock_units,
        sold_units: item.sold_units,
        sold_out_after_ms: sold_out.get(&item.item).copied(),
        item: item.item,
    });
    Ok((summary, items.collect()))
}
