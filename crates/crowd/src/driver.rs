//! Load: open loop (arrivals are planned and do not wait for answers) and closed loop (N connections, back to back).
//!
//! Latency is measured from the moment that the plan names, not from the moment of sending: a server that
//! stalls cannot hide the requests that it kept from being sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::client::{Client, Request, Response, SendError, Timeouts};
use crate::random::Random;

/// When requests are due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// A Poisson process of one rate.
    Constant {
        /// Requests per second.
        rate_per_s: f64,
    },
    /// The opening of a sale: a peak that halves again and again, down to a floor.
    Opening {
        /// Requests per second at the start.
        peak_per_s: f64,
        /// Requests per second in the end.
        floor_per_s: f64,
        /// Time in which what is above the floor halves.
        half_life: Duration,
    },
}

impl Arrivals {
    fn rate_at(&self, since_start: Duration) -> f64 {
        match *self {
            Self::Constant { rate_per_s } => rate_per_s,
            Self::Opening {
                peak_per_s,
                floor_per_s,
                half_life,
            } => {
                let halvings = since_start.as_secs_f64() / half_life.as_secs_f64().max(1e-9);
                floor_per_s + (peak_per_s - floor_per_s) * 0.5_f64.powf(halvings)
            }
        }
    }
}

/// A seeded plan of arrivals: an iterator over the moments at which requests are due, from the start on.
#[derive(Debug, Clone)]
pub struct Schedule {
    arrivals: Arrivals,
    ends_after: Duration,
    random: Random,
    at: Duration,
}

impl Schedule {
    /// The plan of one seed.
    pub fn new(arrivals: Arrivals, ends_after: Duration, seed: u64) -> Self {
        Self {
            arrivals,
            ends_after,
            random: Random::new(seed),
            at: Duration::ZERO,
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let rate = self.arrivals.rate_at(self.at);
        self.at += self.random.gap(rate);
        (self.at < self.ends_after).then_some(self.at)
    }
}

/// What a load did.
#[derive(Debug, Clone)]
pub struct Report {
    /// Answers by outcome, failures by their word.
    pub outcomes: BTreeMap<String, u64>,
    /// Latency in microseconds, of whatever was answered.
    pub latency_us: Histogram<u64>,
    /// From the first arrival to the last answer.
    pub elapsed: Duration,
    /// How late the latest request left: if this is long, the generator is what was measured.
    pub late_max: Duration,
}

impl Report {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            outcomes: BTreeMap::new(),
            latency_us: latencies(),
            elapsed: Duration::ZERO,
            late_max: Duration::ZERO,
        }
    }

    /// Requests.
    pub fn requests(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// Requests of one outcome.
    pub fn of(&self, outcome: &str) -> u64 {
        self.outcomes.get(outcome).copied().unwrap_or(0)
    }

    /// Requests per second.
    pub fn rate_per_s(&self) -> f64 {
        self.requests() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// A quantile (0.0-1.0) of the latency.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.latency_us.value_at_quantile(quantile))
    }

    /// Counts one request.
    pub fn count(&mut self, result: &Result<Response, SendError>, latency: Duration) {
        let outcome = match result {
            Ok(response) => {
                // The histogram resizes by itself, so that this cannot fail.
                let _ = self.latency_us.record(latency.as_micros() as u64);
                response.outcome()
            }
            Err(error) => error.word().to_owned(),
        };
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// Adds what another connection did.
    pub fn add(&mut self, other: &Self) {
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(outcome.clone()).or_default() += count;
        }
        // Both resize by themselves, so this cannot fail.
        let _ = self.latency_us.add(&other.latency_us);
        self.elapsed = self.elapsed.max(other.elapsed);
        self.late_max = self.late_max.max(other.late_max);
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} requests in {:.1} s ({:.0}/s), p50 {:.1?}, p99 {:.1?}, max {:.1?}:",
            self.requests(),
            self.elapsed.as_secs_f64(),
            self.rate_per_s(),
            self.quantile(0.5),
            self.quantile(0.99),
            self.quantile(1.0),
        )?;
        for (outcome, count) in &self.outcomes {
            write!(f, " {outcome} {count}")?;
        }
        Ok(())
    }
}

/// A histogram of microseconds that grows as needed: three digits.
pub fn latencies() -> Histogram<u64> {
    Histogram::new(3).expect("three significant digits are within 0-5")
}

/// How to load a server.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Whom.
    pub address: SocketAddr,
    /// Over how many connections at most.
    pub connections: usize,
    /// How long to wait.
    pub timeouts: Timeouts,
}

/// Makes the n-th request.
pub trait Source: Send + Sync + 'static {
    /// The n-th request, from 0.
    fn request(&self, number: u64) -> Request;

    /// Sees the answer to the n-th request.
    fn answered(&self, number: u64, result: &Result<Response, SendError>) {
        let _ = (number, result);
    }
}

impl<F: Fn(u64) -> Request + Send + Sync + 'static> Source for F {
    fn request(&self, number: u64) -> Request {
        self(number)
    }
}

/// Sends what the plan says, when it says so. At most `connections` requests are under way; what is due
/// meanwhile leaves late, and its latency says so.
///
/// # Cancel safety
/// Dropping the future ends the load; requests under way are then unanswered.
pub async fn open_loop(load: Load, schedule: Schedule, source: Arc<impl Source>) -> Report {
    let started = Instant::now();
    let plan = Arc::new(Mutex::new(schedule.enumerate()));
    run(load, move |mut client| {
        let (plan, source) = (Arc::clone(&plan), Arc::clone(&source));
        async move {
            let mut report = Report::new();
            loop {
                let next = plan.lock().next();
                let Some((number, at)) = next else {
                    break report;
                };
                let due = started + at;
                tokio::time::sleep_until(due.into()).await;
                report.late_max = report.late_max.max(due.elapsed());
                let result = client.send(&source.request(number as u64)).await;
                report.count(&result, due.elapsed());
                source.answered(number as u64, &result);
                report.elapsed = started.elapsed();
            }
        }
    })
    .await
}

/// Sends `requests` requests, each connection the next as soon as it has its answer.
///
/// # Cancel safety
/// As [`open_loop`].
pub async fn closed_loop(load: Load, requests: u64, source: Arc<impl Source>) -> Report {
    let started = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    run(load, move |mut client| {
        let (next, source) = (Arc::clone(&next), Arc::clone(&source));
        async move {
            let mut report = Report::new();
            loop {
                // Relaxed: the number alone is shared.
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    break report;
                }
                let request = source.request(number);
                let sent = Instant::now();
                let result = client.send(&request).await;
                report.count(&result, sent.elapsed());
                source.answered(number, &result);
                report.elapsed = started.elapsed();
            }
        }
    })
    .await
}

async fn run<W, F>(load: Load, worker: W) -> Report
where
    W: Fn(Client) -> F,
    F: Future<Output = Report> + Send + 'static,
{
    let mut workers = JoinSet::new();
    for _ in 0..load.connections.max(1) {
        workers.spawn(worker(Client::new(load.address, load.timeouts)));
    }
    let mut report = Report::new();
    while let Some(joined) = workers.join_next().await {
        match joined {
            Ok(part) => report.add(&part),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers every request with 409; before the first it waits for as long as it is told.
    async fn server(stall: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(stall).await;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    while stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
                        while let Some(end) = crate::client::head_end(&seen) {
                            seen.drain(..end);
                            let answer = b"HTTP/1.1 409 Conflict\r\nContent-Length: 22\r\n\r\n{\"outcome\":\"sold_out\"}";
                            if stream.write_all(answer).await.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        address
    }

    fn load(address: SocketAddr, connections: usize) -> Load {
        Load {
            address,
            connections,
            timeouts: Timeouts::default(),
        }
    }

    #[test]
    fn a_plan_is_the_same_for_the_same_seed_and_an_opening_falls_off() {
        let opening = Arrivals::Opening {
            peak_per_s: 1000.0,
            floor_per_s: 10.0,
            half_life: Duration::from_secs(1),
        };
        let plan = || Schedule::new(opening, Duration::from_secs(10), 5);
        let first: Vec<_> = plan().collect();
        assert_eq!(first, plan().collect::<Vec<_>>());
        assert!(first.is_sorted());
        let early = first.iter().filter(|at| at.as_secs() < 1).count();
        let late = first.iter().filter(|at| at.as_secs() >= 9).count();
        assert!(early > 10 * late, "{early} {late}");
    }

    #[tokio::test]
    async fn closed_loop_sends_each_request_once() {
        let address = server(Duration::ZERO).await;
        let source = Arc::new(|number: u64| Request::get(&format!("/{number}")).bare());
        let report = closed_loop(load(address, 4), 100, source).await;
        assert_eq!(report.requests(), 100);
        assert_eq!(report.of("sold_out"), 100, "{report}");
    }

    #[tokio::test]
    async fn a_stalled_server_is_charged_for_what_it_kept_waiting() {
        let stall = Duration::from_millis(600);
        let address = server(stall).await;
        let arrivals = Arrivals::Constant { rate_per_s: 1000.0 };
        let schedule = Schedule::new(arrivals, Duration::from_millis(100), 1);
        let planned = schedule.clone().count() as u64;
        let source = Arc::new(|_: u64| Request::get("/").bare());
        let report = open_loop(load(address, 1), schedule, source).await;
        assert_eq!(report.of("sold_out"), planned);
        // Every one was due in the first 100 ms and could not be answered long after.
        assert!(report.latency_us.min() >= 90_000, "{report}");
    }
}
