//! A whole sale with its crowd: early birds, the opening rush, people who try twice, people who do not pay,
//! and people who wait for what comes back; and the storefront that tells the payments.
//!
//! Who does what follows from the seed; only the network decides who is first. Every buyer belongs to one
//! connection, which lives through its buyers' steps in the order of their times.

mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use flash_types::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::{Addresses, Api};
use crate::driver::Report;
use crate::log::ClientLog;
use crate::token::Keys;
use worker::Worker;

/// One item of the sale.
#[derive(Debug, Clone)]
pub struct ItemPlan {
    /// Its name.
    pub item: String,
    /// For people.
    pub title: String,
    /// Units for sale.
    pub stock_units: u32,
    /// Price outside of the sale, minor units.
    pub list_price_minor: i64,
    /// Price in the sale, minor units.
    pub sale_price_minor: i64,
    /// Most units that one buyer asks for at once; most ask for one.
    pub units_wanted_max: u32,
}

/// How people are, in percent of them.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// Come before the sale opens, and again when it does.
    pub early_percent: u32,
    /// Try a second time with a new key, though one is the limit.
    pub twice_percent: u32,
    /// Press the button again: the same key once more.
    pub retry_percent: u32,
    /// Reserve and do not pay.
    pub unpaid_percent: u32,
    /// Find it sold out and wait for what comes back; they pay.
    pub waiting_percent: u32,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            early_percent: 5,
            twice_percent: 15,
            retry_percent: 20,
            unpaid_percent: 20,
            waiting_percent: 25,
        }
    }
}

/// A sale and its crowd.
#[derive(Debug, Clone)]
pub struct SaleParams {
    /// Where the server listens.
    pub addresses: Addresses,
    /// Its keys.
    pub keys: Keys,
    /// Name of the sale; it must not exist yet.
    pub sale_id: String,
    /// For people.
    pub title: String,
    /// What is sold. Buyers choose in proportion to the stock.
    pub items: Vec<ItemPlan>,
    /// The sale as its merchant planned it, in place of the one that is made from these fields. Its times, payment
    /// window and admission are taken as they are, so they have to agree with the fields here.
    pub planned: Option<Value>,
    /// How many people come.
    pub buyers: u32,
    /// How they are.
    pub habits: Habits,
    /// How long a reservation is kept unpaid; whole seconds, at least one.
    pub payment_window: Duration,
    /// From the publishing to the opening.
    pub opens_in: Duration,
    /// Time in which the people come: half of them in the first eighth.
    pub rush: Duration,
    /// Over how many connections.
    pub connections: usize,
    /// Who does what.
    pub seed: u64,
    /// When to leave off, sold or not.
    pub bound: Duration,
    /// An answer that takes longer, from the moment at which its call was due, is a late one.
    pub late_after: Duration,
}

impl SaleParams {
    /// A sale of three items that is over within half a minute.
    pub fn new(addresses: Addresses, keys: Keys, buyers: u32, stock_units: u32) -> Self {
        let third = stock_units / 3;
        let item = |item: &str, title: &str, stock_units, list_price_minor| ItemPlan {
            item: item.into(),
            title: title.into(),
            stock_units,
            list_price_minor,
            sale_price_minor: list_price_minor / 2,
            units_wanted_max: 1,
        };
        let items = vec![
            item(
                "headphones",
                "Headphones",
                stock_units - third - third / 2,
                79_900,
            ),
            item("watch", "Watch", third, 129_900),
            item("camera", "Camera", third / 2, 349_900),
        ];
        Self {
            addresses,
            keys,
            sale_id: "demo".into(),
            title: "Demo sale".into(),
            items: items
                .into_iter()
                .filter(|item| item.stock_units > 0)
                .collect(),
            planned: None,
            buyers,
            habits: Habits::default(),
            payment_window: Duration::from_secs(4),
            opens_in: Duration::from_millis(1_500),
            rush: Duration::from_secs(5),
            connections: 64,
            seed: 1,
            bound: Duration::from_secs(45),
            late_after: Duration::from_secs(2),
        }
    }

    /// All units.
    pub fn stock_units(&self) -> u64 {
        self.items
            .iter()
            .map(|item| u64::from(item.stock_units))
            .sum()
    }

    /// The sale as the admin API takes it, opening at `starts_at`.
    pub fn definition(&self, starts_at: Timestamp) -> Value {
        if let Some(planned) = &self.planned {
            return planned.clone();
        }
        let items: Vec<_> = self
            .items
            .iter()
            .map(|item| {
                json!({
                    "item": item.item, "title": item.title, "stock_units": item.stock_units,
                    "list_price_minor": item.list_price_minor,
                    "sale_price_minor": item.sale_price_minor, "units_per_buyer_max": 1,
                })
            })
            .collect();
        json!({
            "sale_id": self.sale_id, "title": self.title, "currency": "CNY",
            "starts_at": starts_at.to_string(),
            "ends_at": starts_at.plus(Duration::from_secs(3600)).to_string(),
            "payment_window_s": self.payment_window.as_secs().max(1),
            // One machine plays them all, so the rate of its address means nothing.
            "admission": {"ticket": "off", "buyer_rate_per_s": 20, "buyer_burst": 40,
                          "address_rate_per_s": 10_000_000, "address_burst": 10_000_000},
            "items": items,
        })
    }
}

/// How far the sale is; read it while [`run_sale`] runs, for a bar that moves.
#[derive(Debug, Default)]
pub struct Progress {
    /// People who have tried.
    pub buyers: AtomicU64,
    /// Purchases sent.
    pub asked: AtomicU64,
    /// Units reserved, those that came back and went again counted again.
    pub reserved: AtomicU64,
    /// Answers given again to the same key.
    pub replayed: AtomicU64,
    /// Purchases refused.
    pub refused: AtomicU64,
    /// Purchases whose fate was not told; each is asked again.
    pub unknown: AtomicU64,
    /// Units paid.
    pub paid: AtomicU64,
    /// Units sold to people who had waited for them.
    pub came_back: AtomicU64,
    /// Whether the sale is open.
    pub is_open: AtomicBool,
}

/// What became of the sale.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Units there were.
    pub stock_units: u64,
    /// Units that the server's audit counts as sold.
    pub sold_units: u64,
    /// Units still set aside.
    pub reserved_units: u64,
    /// Whether the server's audit balances.
    pub audit_ok: bool,
    /// Purchases sent.
    pub asked: u64,
    /// Reservations won.
    pub reserved: u64,
    /// Answers given again to the same key.
    pub replayed: u64,
    /// Refusals by outcome.
    pub refused: BTreeMap<String, u64>,
    /// Purchases whose fate was not told at first.
    pub unknown: u64,
    /// Reservations paid.
    pub paid: u64,
    /// Reservations that ran out unpaid.
    pub expired: u64,
    /// Units sold to people who had waited for them.
    pub came_back: u64,
    /// People who came.
    pub buyers: u64,
    /// Of these, who won at least one reservation.
    pub buyers_served: u64,
    /// Calls of buyers and storefront that were answered, whatever was said.
    pub answered: u64,
    /// Of these, the late ones.
    pub answered_late: u64,
    /// Calls that got no answer: no connection, a lost one, none in time.
    pub unanswered: u64,
    /// Of all calls of buyers and storefront, from the moment at which each was due.
    pub p50: Duration,
    /// As `p50`.
    pub p99: Duration,
    /// As `p50`.
    pub max: Duration,
    /// Calls per second in the busiest second.
    pub peak_per_s: u64,
    /// Calls per second over the whole run.
    pub rate_per_s: f64,
    /// From the opening to the last unit paid.
    pub sold_within: Option<Duration>,
    /// From the publishing to the end.
    pub elapsed: Duration,
}

/// Publishes the sale, lets the crowd come, and stays until every unit is paid, nobody wants any more, or the
/// bound is reached. The log holds every attempt; hand it to [`crate::check`].
///
/// # Errors
/// If the sale cannot be published or read back.
///
/// # Cancel safety
/// Dropping the future leaves the sale as it is then.
pub async fn run_sale(
    params: SaleParams,
    progress: Arc<Progress>,
    log: Arc<ClientLog>,
) -> anyhow::Result<Summary> {
    if params.items.is_empty() || params.buyers == 0 {
        bail!("a sale needs at least one unit and one buyer");
    }
    let started = Instant::now();
    let mut api = Api::new(params.addresses, params.keys.clone());
    let opens_at = started + params.opens_in;
    let opens_at_wall = wall_now().plus(params.opens_in);
    api.publish(&params.definition(opens_at_wall))
        .await
        .context("publishing the sale")?;

    let params = Arc::new(params);
    let mut workers = JoinSet::new();
    for index in 0..params.connections.clamp(1, params.buyers as usize) {
        let worker = Worker::new(
            index,
            Arc::clone(&params),
            opens_at,
            Arc::clone(&progress),
            Arc::clone(&log),
        );
        workers.spawn(worker.run());
    }
    let mut report = Report::new();
    let mut per_second = BTreeMap::<u64, u64>::new();
    let mut last_paid_at = None;
    let mut unpaid = Vec::new();
    let mut buyers_served = 0;
    while let Some(joined) = workers.join_next().await {
        let done = joined.context("a connection of the crowd")?;
        report.add(&done.report);
        for (second, calls) in done.per_second {
            *per_second.entry(second).or_default() += calls;
        }
        last_paid_at = last_paid_at.max(done.last_paid_at);
        unpaid.extend(done.unpaid);
        buyers_served += done.buyers_served;
    }
    let elapsed = started.elapsed();
    log.flush().context("writing the client log")?;

    let mut expired = 0;
    for id in &unpaid {
        let stored = api.reservation(id).await?;
        expired += u64::from(stored.is_some_and(|stored| stored.state == "expired"));
    }
    let audit = api.audit(&params.sale_id).await?;
    let sold_units: u64 = audit.items.iter().map(|item| item.sold_units).sum();
    let stock_units = audit.items.iter().map(|item| item.stock_units).sum();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let calls = report.requests();
    let answered = report.latency_us.len();
    let late_us = u64::try_from(params.late_after.as_micros()).unwrap_or(u64::MAX);
    let answered_otherwise = ["reserved", "replayed", "ok", "unknown"];
    Ok(Summary {
        stock_units,
        sold_units,
        reserved_units: audit.items.iter().map(|item| item.reserved_units).sum(),
        audit_ok: audit.ok,
        asked: load(&progress.asked),
        reserved: load(&progress.reserved),
        replayed: load(&progress.replayed),
        unknown: load(&progress.unknown),
        paid: load(&progress.paid),
        came_back: load(&progress.came_back),
        buyers: load(&progress.buyers),
        buyers_served,
        answered,
        answered_late: answered - report.latency_us.count_between(0, late_us).min(answered),
        unanswered: calls - answered.min(calls),
        expired,
        p50: report.quantile(0.5),
        p99: report.quantile(0.99),
        max: report.quantile(1.0),
        peak_per_s: per_second.values().copied().max().unwrap_or(0),
        rate_per_s: calls as f64 / elapsed.as_secs_f64().max(1e-9),
        refused: report
            .outcomes
            .into_iter()
            .filter(|(outcome, _)| !answered_otherwise.contains(&outcome.as_str()))
            .collect(),
        sold_within: last_paid_at
            .filter(|_| sold_units == stock_units)
            .map(|at| at.saturating_duration_since(opens_at)),
        elapsed,
    })
}

fn wall_now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(0).plus(since.unwrap_or_default())
}

#[cfg(test)]
mod tests;
