//! The relays of one sink: read, deliver, write down, in a task of its own.
//!
//! A sink shares nothing with another but the thread, and nothing with a purchase: its memory is bounded by its
//! schedule's limits, and what it does not get rid of stays in the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use flash_store::EventPlace;
use flash_types::{SaleId, SaleNo, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::deliver::{Deliverer, Failed};
use super::event::{EventSource, OutEvent, before};
use super::file::{FileError, OutboxFile, Stored};
use super::schedule::{Attempt, Change, Counts, Fate, Limits, Schedule};
use super::target::Target;

/// Between two looks for events, and the longest that anything due waits.
const POLL: Duration = Duration::from_millis(100);
/// The same for a sale that had none for a while and whose newest event is not known, or that could not be read.
const IDLE_POLL: Duration = Duration::from_secs(1);
/// Between two looks whether another process took over while there is nothing to write.
const OWNER_POLL: Duration = Duration::from_secs(5);
/// Counts deliveries by webhook and outcome.
const DELIVERIES: &str = "stampede_webhook_deliveries_total";
/// Age of the oldest event that was not delivered.
const LAG: &str = "stampede_webhook_lag_seconds";
/// Events that were given up.
const DEAD: &str = "stampede_webhook_dead_letters";

/// The wall clock that must not go back, as the engine's steady one.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What is told of a sink.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// How much waits.
    pub counts: Counts,
    /// When the last delivery was acknowledged.
    pub last_success: Option<Timestamp>,
    /// Why the last one failed that did; and when.
    pub last_error: Option<(Timestamp, String)>,
    /// Whether the last delivery failed.
    pub is_failing: bool,
    /// Another process took over, or the outbox file does not serve.
    pub stopped: Option<String>,
}

/// Asks a sink to deliver an event again.
pub(super) struct Redeliver {
    pub(super) sale_no: SaleNo,
    pub(super) event: OutEvent,
    /// `false`: there is no room for it.
    pub(super) reply: oneshot::Sender<bool>,
}

/// Why a webhook is not relayed any more.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("a delivery panicked")]
    Panicked,
}

/// What a task of the sink ends with.
enum Done {
    Tried(Attempt, Fate),
    Read(SaleNo, Result<Vec<OutEvent>, String>),
}

/// A sink and all that it is doing.
pub(super) struct Sink {
    target: Target,
    deliverer: Arc<Deliverer>,
    source: Arc<dyn EventSource>,
    file: OutboxFile,
    now: Now,
    schedule: Schedule,
    progress: Arc<Mutex<Progress>>,
    commands: mpsc::Receiver<Redeliver>,
    tasks: JoinSet<Done>,
    is_reading: bool,
    sales: HashMap<SaleNo, Reading>,
    unwritten: Vec<Change>,
    owner_checked_at: Instant,
}

struct Reading {
    sale_id: SaleId,
    next_read: Instant,
}

/// What a sink is made of.
pub(super) struct Parts {
    pub(super) deliverer: Deliverer,
    pub(super) target: Target,
    pub(super) source: Arc<dyn EventSource>,
    pub(super) file: OutboxFile,
    pub(super) now: Now,
    pub(super) limits: Limits,
    pub(super) seed: u64,
    pub(super) progress: Arc<Mutex<Progress>>,
    pub(super) commands: mpsc::Receiver<Redeliver>,
}

/// Relays until it is dropped, or another process took over.
pub(super) async fn run(parts: Parts) {
    let (name, progress) = (parts.target.name.clone(), Arc::clone(&parts.progress));
    let ended = async {
        let stored = parts.file.load(name.clone()).await?;
        Sink::new(parts, stored).relay().await
    };
    if let Err(error) = ended.await {
        tracing::error!(webhook = name, %error, "this webhook is not relayed any more");
        progress.lock().stopped = Some(error.to_string());
    }
}

impl Sink {
    fn new(parts: Parts, stored: Stored) -> Self {
        let mut schedule = Schedule::new(parts.limits, stored.dead_count, parts.seed);
        for (sale_no, cursor) in stored.cursors {
            schedule.resume(sale_no, cursor);
        }
        for parked in stored.parked {
            schedule.resume_parked(parked);
        }
        for (sale_no, place) in stored.dead_ahead {
            schedule.resume_dead(sale_no, place);
        }
        Self {
            target: parts.target,
            deliverer: Arc::new(parts.deliverer),
            source: parts.source,
            file: parts.file,
            now: parts.now,
            schedule,
            progress: parts.progress,
            commands: parts.commands,
            tasks: JoinSet::new(),
            is_reading: false,
            sales: HashMap::new(),
            unwritten: Vec::new(),
            owner_checked_at: Instant::now(),
        }
    }

    async fn relay(mut self) -> Result<(), Ended> {
        loop {
            self.read();
            self.deliver();
            self.publish();
            tokio::select! {
                Some(done) = self.tasks.join_next() => self.take(done)?,
                Some(command) = self.commands.recv() => self.redeliver(command).await?,
                () = tokio::time::sleep(POLL) => {}
            }
            // What has ended meanwhile is written down together.
            while let Some(done) = self.tasks.try_join_next() {
                self.take(done)?;
            }
            self.write().await?;
        }
    }

    /// Starts to read the sale that has waited longest, one at a time.
    fn read(&mut self) {
        if self.is_reading || !self.unwritten.is_empty() {
            return;
        }
        let at = Instant::now();
        for (sale_no, sale_id) in self.source.sales() {
            self.schedule.resume(sale_no, EventPlace::default());
            self.sales.entry(sale_no).or_insert(Reading {
                sale_id,
                next_read: at,
            });
        }
        let due = self.sales.iter().filter(|(sale_no, reading)| {
            let read_to = self.schedule.read_to(**sale_no);
            let is_new = self
                .source
                .newest(**sale_no)
                .is_none_or(|newest| newest > read_to);
            reading.next_read <= at && is_new && self.schedule.room(**sale_no) > 0
        });
        let Some((&sale_no, _)) = due.min_by_key(|(_, reading)| reading.next_read) else {
            return;
        };
        self.is_reading = true;
        let source = Arc::clone(&self.source);
        let (after, limit) = (self.schedule.read_to(sale_no), self.schedule.room(sale_no));
        self.tasks
            .spawn(async move { Done::Read(sale_no, source.events(sale_no, after, limit).await) });
    }

    /// Starts every delivery that may start. None does while something is not written: what a crash would repeat is bounded.
    fn deliver(&mut self) {
        if !self.unwritten.is_empty() {
            return;
        }
        while let Some(attempt) = self.schedule.next((self.now)()) {
            let (source, deliverer) = (Arc::clone(&self.source), Arc::clone(&self.deliverer));
            let (now, name) = (Arc::clone(&self.now), self.target.name.clone());
            self.tasks.spawn(async move {
                let fate = attempt_once(&attempt, &*source, &deliverer, &now, name).await;
                Done::Tried(attempt, fate)
            });
        }
    }

    fn take(&mut self, done: Result<Done, tokio::task::JoinError>) -> Result<(), Ended> {
        match done {
            Ok(Done::Tried(attempt, fate)) => self.tried(&attempt, fate),
            Ok(Done::Read(sale_no, read)) => self.was_read(sale_no, read),
            // What a task held that panicked is not known any more; the next start goes on from the file.
            Err(_) => return Err(Ended::Panicked),
        }
        Ok(())
    }

    fn tried(&mut self, attempt: &Attempt, fate: Fate) {
        let now = (self.now)();
        {
            let mut progress = self.progress.lock();
            match &fate {
                Fate::Delivered => {
                    progress.last_success = Some(now);
                    progress.is_failing = false;
                }
                Fate::Failed(why) => {
                    progress.last_error = Some((now, why.clone()));
                    progress.is_failing = true;
                }
                Fate::NotTried | Fate::Missing => {}
            }
        }
        self.schedule.done(attempt, fate, now);
    }

    fn was_read(&mut self, sale_no: SaleNo, read: Result<Vec<OutEvent>, String>) {
        self.is_reading = false;
        let is_newest_known = self.source.newest(sale_no).is_some();
        let Some(reading) = self.sales.get_mut(&sale_no) else {
            return;
        };
        let wait = match &read {
            Ok(events) if !events.is_empty() => Duration::ZERO,
            Ok(_) if is_newest_known => POLL,
            Ok(_) => IDLE_POLL,
            Err(why) => {
                tracing::warn!(webhook = self.target.name, sale = %reading.sale_id, why, "events cannot be read now");
                IDLE_POLL
            }
        };
        reading.next_read = Instant::now() + wait;
        let events = read.unwrap_or_default().into_iter().map(|event| {
            let is_wanted = self.target.wants(&reading.sale_id, &event.kind);
            (event, is_wanted)
        });
        self.schedule.offer(sale_no, events);
    }

    async fn redeliver(&mut self, command: Redeliver) -> Result<(), FileError> {
        let Redeliver {
            sale_no,
            event,
            reply,
        } = command;
        let name = self.target.name.clone();
        let was_dead = self.file.is_dead(name, sale_no, event.place).await?;
        let is_taken = self
            .schedule
            .redeliver(&event, sale_no, was_dead, (self.now)());
        // Durable before it is told. Whoever asked may have gone.
        self.write().await?;
        let _ = reply.send(is_taken && self.unwritten.is_empty());
        Ok(())
    }

    /// Writes down what changed; what cannot be written is kept, and nothing new starts.
    async fn write(&mut self) -> Result<(), FileError> {
        let name = self.target.name.clone();
        self.unwritten.append(&mut self.schedule.take_changes());
        if self.unwritten.is_empty() {
            if self.owner_checked_at.elapsed() >= OWNER_POLL {
                self.owner_checked_at = Instant::now();
                self.file.check_owner().await?;
            }
            return Ok(());
        }
        match self.file.write(name, self.unwritten.clone()).await {
            Ok(()) => {
                self.unwritten.clear();
                Ok(())
            }
            Err(FileError::Sql(error)) => {
                tracing::warn!(webhook = self.target.name, %error, "the outbox file cannot be written; trying again");
                Ok(())
            }
            Err(error @ (FileError::Fenced | FileError::Foreign | FileError::NoThread)) => {
                Err(error)
            }
        }
    }

    fn publish(&self) {
        let counts = self.schedule.counts();
        let name = &self.target.name;
        let lag = counts
            .oldest
            .map_or(Duration::ZERO, |oldest| oldest.until((self.now)()));
        metrics::gauge!(LAG, "webhook" => name.clone()).set(lag.as_secs_f64());
        metrics::gauge!(DEAD, "webhook" => name.clone()).set(counts.dead as f64);
        self.progress.lock().counts = counts;
    }
}

/// Reads the event where it is not at hand, and posts it.
async fn attempt_once(
    attempt: &Attempt,
    source: &dyn EventSource,
    deliverer: &Deliverer,
    now: &Now,
    webhook: String,
) -> Fate {
    let event = match &attempt.event {
        Some(event) => Arc::clone(event),
        None => match reread(source, attempt.sale_no, attempt.place).await {
            Ok(Some(event)) => Arc::new(event),
            Ok(None) => return Fate::Missing,
            Err(_) => return Fate::NotTried,
        },
    };
    let unix_s = now().0 / 1_000;
    let delivered = deliverer.deliver(&event.id, &event.body, unix_s).await;
    let outcome = delivered
        .as_ref()
        .map_or_else(Failed::outcome, |()| "delivered");
    metrics::counter!(DELIVERIES, "webhook" => webhook, "outcome" => outcome).increment(1);
    match delivered {
        Ok(()) => Fate::Delivered,
        Err(failed) => Fate::Failed(failed.to_string()),
    }
}

/// The event at a place, if it is (still) there.
pub(super) async fn reread(
    source: &dyn EventSource,
    sale_no: SaleNo,
    place: EventPlace,
) -> Result<Option<OutEvent>, String> {
    let found = source.events(sale_no, before(place), 1).await?;
    let found = found.into_iter().next();
    Ok(found.filter(|event| event.place == place && event.id == place.event_id(sale_no)))
}
