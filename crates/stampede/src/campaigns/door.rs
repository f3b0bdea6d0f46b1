//! The door: a bounded number of requests at work, a bounded number waiting, each with a deadline; more are told so at once.
//!
//! A request that was taken belongs to a task of the campaigns' own threads: its caller may leave. One that has begun holds
//! its place until it has ended, however long its caller waited, so the bound holds whatever the database does.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use flash_front::SideDoor;
use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SideProblem, SideRequest, SideService,
};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use serde_json::Value;
use side_campaign::shop::Shop;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::claim::Claim;
use super::refusals::Refusals;

/// Times that a request is carried out where another transaction is in its way.
const TRIES_MAX: usize = 5;
/// What has begun is broken off after this: its transactions have ended long before.
const BREAK_OFF: Duration = Duration::from_secs(30);
/// Most refusals that are being written down.
const NOTES_MAX: usize = 32;
/// When a refused request may be worth another try.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bounds of the door.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) in_flight_max: usize,
    pub(super) queue_max: usize,
    pub(super) deadline: Duration,
}

/// Where a line of the merged table leads.
struct Line {
    service: Arc<dyn SideService>,
    endpoint: &'static SideEndpoint,
    /// Its place in the service's own table.
    index: usize,
}

/// The door.
pub(super) struct Door {
    lines: Vec<Line>,
    schemas: Vec<(&'static str, Value)>,
    limits: Limits,
    permits: Arc<Semaphore>,
    queue: Arc<AtomicUsize>,
    runtime: Handle,
    /// The database was there and its tables are up to date.
    is_up: AtomicBool,
    /// What is wrong with the database, while something is.
    note: Mutex<Option<String>>,
    /// Whose buyers' refusals are noted; tests of the door alone have none.
    shop: Option<Arc<Shop>>,
    /// Places for writing them down.
    notes: Arc<Semaphore>,
}

type Told = Result<SideAnswer, SideProblem>;

impl Door {
    pub(super) fn new(
        services: Vec<Arc<dyn SideService>>,
        limits: Limits,
        runtime: Handle,
        shop: Option<Arc<Shop>>,
    ) -> Self {
        let schemas = services.iter().flat_map(|service| service.schemas());
        let schemas = schemas.collect();
        let lines = services.into_iter().flat_map(|service| {
            let endpoints = service.endpoints().iter().enumerate();
            endpoints.map(move |(index, endpoint)| Line {
                service: Arc::clone(&service),
                endpoint,
                index,
            })
        });
        Self {
            lines: lines.collect(),
            schemas,
            permits: Arc::new(Semaphore::new(limits.in_flight_max)),
            limits,
            queue: Arc::default(),
            runtime,
            shop,
            notes: Arc::new(Semaphore::new(NOTES_MAX)),
            is_up: AtomicBool::new(false),
            note: Mutex::new(None),
        }
    }

    /// Opens the door, or keeps it closed and tells why.
    pub(super) fn set_up(&self, is_up: bool, why: &str) {
        // Relaxed: whoever comes a moment later finds the database by itself.
        self.is_up.store(is_up, Ordering::Relaxed);
        if is_up {
            metrics::gauge!("stampede_side_up").set(1.0);
            *self.note.lock() = None;
        } else {
            self.tell(why);
        }
    }

    /// Tells operators that the database does not answer; requests find out by themselves.
    pub(super) fn tell(&self, why: &str) {
        metrics::gauge!("stampede_side_up").set(0.0);
        let why = if why.is_empty() {
            "not reached yet"
        } else {
            why
        };
        *self.note.lock() = Some(format!("campaigns: {why}"));
    }

    /// Waits until nothing is at work. Nothing may come in any more.
    pub(super) async fn emptied(&self) {
        let all = u32::try_from(self.limits.in_flight_max).unwrap_or(u32::MAX);
        // It is never closed.
        let _ = self.permits.acquire_many(all).await;
        // Refusals that were told are written down as well.
        let _ = self.notes.acquire_many(NOTES_MAX as u32).await;
    }

    async fn tell_in_time(&self, request: SideRequest) -> Told {
        if !self.is_up.load(Ordering::Relaxed) {
            let why =
                "campaigns cannot be served now; nothing was changed, try again with the same key";
            return Err(later(503, "store_unavailable", why));
        }
        let line = self.lines.get(request.endpoint);
        let line = line.ok_or_else(|| SideProblem::not_found("path"))?;
        let deadline = Instant::now() + self.limits.deadline;
        let place = match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => Place::AtWork(permit),
            Err(_) => {
                let waiting = Waiting::new(&self.queue, self.limits.queue_max);
                Place::Waiting(waiting.ok_or_else(overloaded)?)
            }
        };
        let is_read = line.endpoint.method == "GET";
        let claim = Arc::new(Claim::default());
        let (send, receive) = oneshot::channel();
        let job = Job {
            service: Arc::clone(&line.service),
            endpoint: line.endpoint,
            request: SideRequest {
                endpoint: line.index,
                ..request
            },
            claim: Arc::clone(&claim),
            permits: Arc::clone(&self.permits),
            deadline,
        };
        let refusals = self.shop.clone().and_then(|shop| Refusals::of(shop, &job));
        let notes = Arc::clone(&self.notes);
        self.runtime.spawn(async move {
            let Some(told) = job.run(place).await else {
                return;
            };
            let refused = told.as_ref().err().cloned();
            // Whoever asked may be gone.
            let _ = send.send(told);
            if let (Some(refusals), Some(refused)) = (refusals, refused) {
                // Those that find no place are counted in the metrics alone.
                if let Ok(_place) = notes.try_acquire() {
                    refusals.note(&refused).await;
                }
            }
        });
        if let Ok(Ok(told)) = timeout_at(deadline, receive).await {
            return told;
        }
        Err(match (claim.give_up(), is_read) {
            (true, _) => overloaded(),
            (false, true) => later(503, "store_unavailable", "it took too long; try again"),
            (false, false) => later(
                504,
                "unknown",
                "it is being done and may yet come about: the same call with the same key finds out",
            ),
        })
    }
}

impl SideDoor for Door {
    fn endpoints(&self) -> Vec<&'static SideEndpoint> {
        self.lines.iter().map(|line| line.endpoint).collect()
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        self.schemas.clone()
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Told> {
        Box::pin(async move {
            let mut counted = Counted {
                outcome: "client_left",
                began_at: Instant::now(),
            };
            let told = self.tell_in_time(request).await;
            counted.outcome = match &told {
                Ok(answer) if answer.is_replay => "replayed",
                Ok(_) => "done",
                Err(problem) => problem.outcome,
            };
            told
        })
    }

    fn notes(&self) -> Vec<String> {
        self.note.lock().iter().cloned().collect()
    }
}

fn later(status: u16, outcome: &'static str, why: &'static str) -> SideProblem {
    SideProblem::new(status, outcome, why).retry_after(RETRY_AFTER)
}

fn overloaded() -> SideProblem {
    let why = "more is asked of the campaigns than they can do in time; nothing was done";
    later(503, "overloaded", why)
}

/// Counts a request when it was told, or its caller has left. Outcomes are words of the program: few.
struct Counted {
    outcome: &'static str,
    began_at: Instant,
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::counter!("stampede_side_requests_total", "outcome" => self.outcome).increment(1);
        let seconds = self.began_at.elapsed().as_secs_f64();
        metrics::histogram!("stampede_side_seconds").record(seconds);
    }
}

/// A place in the queue; dropping it frees it.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    /// `None`: the queue is full.
    fn new(queue: &Arc<AtomicUsize>, queue_max: usize) -> Option<Self> {
        // Relaxed: a count by itself.
        let before = queue.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(queue));
        metrics::gauge!("stampede_side_queue_jobs").increment(1.0);
        (before < queue_max).then_some(place)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!("stampede_side_queue_jobs").decrement(1.0);
    }
}

enum Place {
    AtWork(OwnedSemaphorePermit),
    Waiting(Waiting),
}

/// A request on its way through a task of its own.
pub(super) struct Job {
    service: Arc<dyn SideService>,
    pub(super) endpoint: &'static SideEndpoint,
    pub(super) request: SideRequest,
    claim: Arc<Claim>,
    permits: Arc<Semaphore>,
    deadline: Instant,
}

impl Job {
    /// Waits for a permit and carries it out. `None`: given up before it began.
    async fn run(self, place: Place) -> Option<Told> {
        let permit = match place {
            Place::AtWork(permit) => permit,
            Place::Waiting(waiting) => {
                let permit = Arc::clone(&self.permits).acquire_owned();
                let permit = timeout_at(self.deadline, permit).await.ok()?.ok()?;
                drop(waiting);
                permit
            }
        };
        if !self.claim.begin() {
            return None;
        }
        let in_flight = InFlight::new();
        let done = timeout(BREAK_OFF, AssertUnwindSafe(self.carry_out()).catch_unwind()).await;
        drop((permit, in_flight));
        Some(match done {
            Ok(Ok(told)) => told,
            Ok(Err(_)) => {
                metrics::counter!("stampede_side_panics_total").increment(1);
                let (method, path) = (self.endpoint.method, self.endpoint.path);
                tracing::error!(method, path, "a request of the campaigns panicked");
                let why = "something went wrong on our side; ask again with the same key";
                Err(SideProblem::new(500, "internal", why))
            }
            Err(_) => return None,
        })
    }

    /// Tries again at once where another transaction was in the way.
    async fn carry_out(&self) -> Told {
        let mut tries = 1;
        loop {
            let told = self.service.answer(self.request.clone()).await;
            match told {
                Err(problem)
                    if problem.is_conflict
                        && tries < TRIES_MAX
                        && Instant::now() < self.deadline =>
                {
                    tries += 1;
                    tokio::task::yield_now().await;
                }
                told => return told,
            }
        }
    }
}

/// Counted while it is at work.
struct InFlight;

impl InFlight {
    fn new() -> Self {
        metrics::gauge!("stampede_side_in_flight").increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("stampede_side_in_flight").decrement(1.0);
    }
}

#[cfg(test)]
mod tests;
