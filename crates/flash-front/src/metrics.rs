//! What the front counts, each thread by itself, and how all of it is written for Prometheus.
//!
//! The counters of the path are plain words of the thread that counts; a scrape sums them up. Everything that is
//! registered elsewhere through the `metrics` crate follows after them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use flash_engine::{Engine, StateCounts};
use flash_types::{ItemUnits, SaleState};

use crate::outcome::Word;
use crate::sale_view::indexed;

/// Upper ends of the buckets, microseconds.
const BUCKETS_US: [u64; 16] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_000_000, 5_000_000,
];
/// Most items whose counters are shown; sales that can still move come first.
const ITEMS_SHOWN_MAX: usize = 2_000;

/// Durations in fixed buckets.
#[derive(Default)]
pub(crate) struct Histogram {
    /// One more than there are bounds: the last holds what is longer.
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let index = BUCKETS_US.partition_point(|bound| *bound < us);
        // Relaxed: counts by themselves, summed up whenever somebody looks.
        self.buckets[index].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Something that took no measurable time: the lowest bucket, without a clock.
    pub(crate) fn record_instant(&self) {
        self.buckets[0].fetch_add(1, Ordering::Relaxed);
    }
}

/// The counters of one thread.
pub(crate) struct ThreadMetrics {
    purchases: [AtomicU64; Word::ALL.len()],
    pub(crate) purchase_seconds: Histogram,
    pub(crate) admit_seconds: Histogram,
    requests: AtomicU64,
    panics: AtomicU64,
}

impl Default for ThreadMetrics {
    fn default() -> Self {
        Self {
            purchases: [const { AtomicU64::new(0) }; Word::ALL.len()],
            purchase_seconds: Histogram::default(),
            admit_seconds: Histogram::default(),
            requests: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }
}

impl ThreadMetrics {
    pub(crate) fn purchase(&self, word: Word) {
        self.purchases[word as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request; gives how many there were before it.
    pub(crate) fn request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }
}

/// The counters of all threads.
pub(crate) struct FrontMetrics {
    pub(crate) threads: Vec<Arc<ThreadMetrics>>,
    pub(crate) public_connections: Arc<AtomicUsize>,
    pub(crate) admin_connections: Arc<AtomicUsize>,
    pub(crate) connections_refused: AtomicU64,
}

impl FrontMetrics {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            threads: (0..threads).map(|_| Arc::default()).collect(),
            public_connections: Arc::default(),
            admin_connections: Arc::default(),
            connections_refused: AtomicU64::new(0),
        }
    }

    fn sum(&self, of: impl Fn(&ThreadMetrics) -> &AtomicU64) -> u64 {
        self.threads
            .iter()
            .map(|thread| of(thread).load(Ordering::Relaxed))
            .sum()
    }

    /// Writes everything that the front knows.
    pub(crate) fn write(&self, engine: &Engine, streams: usize, out: &mut String) {
        head(
            out,
            "stampede_purchases_total",
            "counter",
            "Purchase calls by what they were told",
        );
        for word in Word::ALL {
            let count = self.sum(|thread| &thread.purchases[*word as usize]);
            line(
                out,
                "stampede_purchases_total",
                &[("outcome", word.as_str())],
                count,
            );
        }
        let help = "Time from the whole request to its answer; what is decided without waiting counts as 0";
        self.histogram(out, "stampede_purchase_seconds", help, |thread| {
            &thread.purchase_seconds
        });
        let help = "Time to admit a purchase: address, identity (one in 64 is measured)";
        self.histogram(out, "stampede_admit_seconds", help, |thread| {
            &thread.admit_seconds
        });
        head(out, "stampede_connections", "gauge", "Open connections");
        for (listener, count) in [
            ("public", &self.public_connections),
            ("admin", &self.admin_connections),
        ] {
            let count = count.load(Ordering::Relaxed) as u64;
            line(
                out,
                "stampede_connections",
                &[("listener", listener)],
                count,
            );
        }
        for (name, kind, help, value) in [
            (
                "stampede_http_requests_total",
                "counter",
                "Requests on the public port",
                self.sum(|thread| &thread.requests),
            ),
            (
                "stampede_http_panics_total",
                "counter",
                "Requests that ended in a panic",
                self.sum(|thread| &thread.panics),
            ),
            (
                "stampede_connections_refused_total",
                "counter",
                "Connections over the bound",
                self.connections_refused.load(Ordering::Relaxed),
            ),
            (
                "stampede_event_streams",
                "gauge",
                "Open event streams",
                streams as u64,
            ),
            (
                "stampede_in_flight",
                "gauge",
                "Purchases and commands decided and unanswered",
                engine.in_flight_jobs() as u64,
            ),
            (
                "stampede_commit_queue_jobs",
                "gauge",
                "Jobs that wait for the committer",
                engine.queue_jobs() as u64,
            ),
            (
                "stampede_frozen_sales",
                "gauge",
                "Sales that were stopped: their books are off, or the store lost what it had acknowledged",
                frozen_sales(engine),
            ),
        ] {
            head(out, name, kind, help);
            line(out, name, &[], value);
        }
        item_units(engine, out);
        reservations(engine, out);
    }

    fn histogram(
        &self,
        out: &mut String,
        name: &str,
        help: &str,
        of: impl Fn(&ThreadMetrics) -> &Histogram,
    ) {
        head(out, name, "histogram", help);
        let mut total = 0;
        let mut bucket_name = name.to_owned();
        bucket_name.push_str("_bucket");
        for (index, bound) in BUCKETS_US.iter().enumerate() {
            total += self.sum(|thread| &of(thread).buckets[index]);
            let bound = (*bound as f64 / 1e6).to_string();
            line(out, &bucket_name, &[("le", &bound)], total);
        }
        total += self.sum(|thread| &of(thread).buckets[BUCKETS_US.len()]);
        line(out, &bucket_name, &[("le", "+Inf")], total);
        let sum_s = self.sum(|thread| &of(thread).sum_us) as f64 / 1e6;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name}_sum {sum_s}\n{name}_count {total}");
    }
}

/// Counters of the items of sales that are not drafts and have not left memory, running ones first.
fn item_units(engine: &Engine, out: &mut String) {
    head(
        out,
        "stampede_item_units",
        "gauge",
        "Where the units of an item are",
    );
    let mut sales = engine.sales();
    sales.retain(|sale| !sale.is_retired() && sale.state() != SaleState::Draft);
    sales.sort_by_key(|sale| {
        (
            sale.state() == SaleState::Closed,
            std::cmp::Reverse(sale.sale_no()),
        )
    });
    let items = sales.iter().flat_map(|sale| {
        indexed(sale.definition()).map(move |(index, item)| (sale, index, item.item))
    });
    for (sale, index, item) in items.take(ITEMS_SHOWN_MAX) {
        // The stock is the sum of these.
        let ItemUnits {
            stock: _,
            unreleased,
            available,
            reserved,
            sold,
        } = sale.units(index);
        for (state, units) in [
            ("unreleased", unreleased),
            ("available", available),
            ("reserved", reserved),
            ("sold", sold),
        ] {
            let sale_id = sale.definition().sale_id;
            let labels = [
                ("sale", sale_id.as_str()),
                ("item", item.as_str()),
                ("state", state),
            ];
            line(out, "stampede_item_units", &labels, units);
        }
    }
}

fn frozen_sales(engine: &Engine) -> u64 {
    let sales = engine.sales();
    let frozen = sales
        .iter()
        .filter(|sale| sale.state() == SaleState::Frozen);
    frozen.count() as u64
}

/// Reservations by state, over all sales in memory.
fn reservations(engine: &Engine, out: &mut String) {
    let name = "stampede_reservations";
    head(out, name, "gauge", "Reservations of sales in memory");
    let mut sums = [0; 6];
    let sales = engine.sales();
    for sale in sales.iter().filter(|sale| !sale.is_retired()) {
        let StateCounts {
            unknown,
            reserved,
            confirmed,
            released,
            expired,
            refunded,
        } = sale.reservations();
        let counts = [unknown, reserved, confirmed, released, expired, refunded];
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    let states = [
        "unknown",
        "reserved",
        "confirmed",
        "released",
        "expired",
        "refunded",
    ];
    for (state, sum) in states.into_iter().zip(sums) {
        line(out, name, &[("state", state)], sum);
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One sample. Label values are ids and words of ours: nothing in them needs escaping.
fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    out.push_str(name);
    for (index, (label, text)) in labels.iter().enumerate() {
        let before = if index == 0 { '{' } else { ',' };
        let _ = write!(out, "{before}{label}=\"{text}\"");
    }
    if !labels.is_empty() {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets_and_add_up() {
        let metrics = FrontMetrics::new(2);
        for (thread, us) in [(0, 0), (0, 50), (1, 51), (1, 7_000_000)] {
            metrics.threads[thread]
                .purchase_seconds
                .record(Duration::from_micros(us));
        }
        metrics.threads[1].purchase_seconds.record_instant();
        let mut out = String::new();
        metrics.histogram(&mut out, "x", "help", |thread| &thread.purchase_seconds);
        for expected in [
            "# TYPE x histogram",
            "x_bucket{le=\"0.00005\"} 3",
            "x_bucket{le=\"0.0001\"} 4",
            "x_bucket{le=\"5\"} 4",
            "x_bucket{le=\"+Inf\"} 5",
            "x_count 5",
            "x_sum 7.000101",
        ] {
            assert!(
                out.lines().any(|line| line == expected),
                "{expected}\n{out}"
            );
        }
    }
}
