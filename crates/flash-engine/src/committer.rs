//! The committers: one task for each lane, which turns what has queued there into batches, one in flight at a time, and
//! applies what the store says.
//!
//! It owns every job from the hand-over on, judges deadlines when it builds a batch, and finds by itself what is due
//! by the clock: openings, closings, expiries, sales that may leave memory. It never lingers: a batch is what has
//! queued while the last one was with the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flash_ledger::{Begin, Command};
use flash_store::{
    Batch, Change, CommitError, Committed, Entry, EntryRefusal, Lanes, NotApplied, Store, Trouble,
};
use flash_types::{ItemIndex, Refusal, SaleNo, SaleState, Serial, Timestamp, bounds};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::change::change_of;
use crate::fate::{Fate, Verdict};
use crate::queue::{Job, Lane, Work};
use crate::sale::{Sale, StockAnswer};
use crate::waves::{BuiltWave, due_waves, is_pooling, units_of_wave};
use crate::{Engine, Reading};

/// How often expiries, openings and closings are looked for.
const SCAN_INTERVAL: Duration = Duration::from_millis(20);
/// How often a store that took nothing is asked again, and books are held against each other.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Most turns of the event loop that a batch waits for tasks that are ready.
const YIELDS_MAX: usize = 16;
/// Part of a batch that expiries of one sale may fill; the committer scans again at once while there are as many.
const EXPIRIES_PART: usize = bounds::BATCH_JOBS_MAX / bounds::BATCH_EXPIRIES_MAX;

/// The store died: the fate of the last batch is not known, and the process must end.
#[derive(Debug, thiserror::Error)]
#[error("the store failed and this process cannot go on: {0}")]
pub struct Fatal(pub String);

/// All that write: a committer for each lane.
pub struct Committer {
    engine: Arc<Engine>,
    last_batch: u64,
    last_at: Timestamp,
    now: Instant,
}

impl Committer {
    pub(crate) fn new(
        engine: Arc<Engine>,
        last_batch: u64,
        last_at: Timestamp,
        now: Instant,
    ) -> Self {
        Self {
            engine,
            last_batch,
            last_at,
            now,
        }
    }

    /// Commits until the queue is closed and empty.
    ///
    /// # Errors
    /// [`Fatal`]: end the process; whoever waits has been told that nobody knows.
    ///
    /// # Cancel safety
    /// None: dropping it leaves a queue that nobody serves. Drop the process with it.
    pub async fn run(self) -> Result<(), Fatal> {
        let queue = Arc::clone(&self.engine.queue);
        let mut lanes = FuturesUnordered::new();
        loop {
            for lane in queue.take_unserved() {
                lanes.push(LaneCommitter::new(&self, lane).run());
            }
            tokio::select! {
                ended = lanes.next() => match ended {
                    Some(Ok(())) => {}
                    Some(Err(fatal)) => return Err(fatal),
                    // Closed: each lane ended once its jobs were done.
                    None => {
                        self.engine.store.close().await;
                        return Ok(());
                    }
                },
                () = queue.has_unserved() => {}
            }
        }
    }
}

/// The one task that writes in a lane.
struct LaneCommitter {
    engine: Arc<Engine>,
    lane: Arc<Lane>,
    jobs_max: usize,
    next_batch: u64,
    last_at: Timestamp,
    next_scan: Instant,
    next_check: Instant,
    is_more_due: bool,
    /// The store took nothing of the last batch.
    is_refused: bool,
}

/// A batch on its way, with what to do when its fate is known.
struct Flight {
    batch: Batch,
    jobs: Vec<Sent>,
    /// Gates as they were before this batch.
    gates: Vec<(Arc<Sale>, SaleState)>,
    /// Releases in this batch.
    waves: Vec<BuiltWave>,
}

struct Sent {
    job: Job,
    /// Of its change in the batch.
    place: usize,
    /// Where the committer had its sale before it.
    gate_before: SaleState,
}

impl LaneCommitter {
    fn new(committer: &Committer, lane: Arc<Lane>) -> Self {
        Self {
            engine: Arc::clone(&committer.engine),
            lane,
            jobs_max: committer.engine.store.batch_jobs_max(),
            next_batch: committer.last_batch + 1,
            last_at: committer.last_at,
            next_scan: committer.now,
            next_check: committer.now,
            is_more_due: false,
            is_refused: false,
        }
    }

    /// Commits until the queue is closed and this lane is empty.
    async fn run(mut self) -> Result<(), Fatal> {
        loop {
            self.wait().await;
            self.let_ready_tasks_join().await;
            let now = self.engine.clock.read();
            if let Some(Trouble::Final(why)) = self.engine.store.trouble() {
                self.engine.store_is_dead(&why);
                return Err(Fatal(why));
            }
            let Some(flight) = self.build(now) else {
                if self.engine.queue.is_closed() && self.lane.waiting_jobs() == 0 {
                    return Ok(());
                }
                continue;
            };
            self.commit(flight).await?;
            // What is due comes up again at the next start: a store that takes nothing does not keep the process.
            if self.is_refused && self.engine.queue.is_closed() && self.lane.waiting_jobs() == 0 {
                return Ok(());
            }
        }
    }

    async fn wait(&mut self) {
        let is_closed = self.engine.queue.is_closed();
        if self.lane.waiting_jobs() > 0 || is_closed || self.is_more_due {
            return;
        }
        match self.looks_again_at() {
            Some(at) => tokio::select! {
                () = self.lane.filled() => {}
                () = tokio::time::sleep_until(at.into()) => {}
            },
            None => self.lane.filled().await,
        }
    }

    /// When this lane has to look at the clock though nobody asks; a lane in which nothing can become due sleeps.
    fn looks_again_at(&self) -> Option<Instant> {
        if self.engine.queue.lanes() == Lanes::One {
            return Some(self.next_scan);
        }
        if self.is_first() {
            return Some(self.next_check);
        }
        let sale = self.engine.catalogue.numbered(self.lane.number())?;
        let may_be_due =
            !sale.is_retired() && !matches!(sale.gate(), SaleState::Draft | SaleState::Frozen);
        may_be_due.then_some(self.next_scan)
    }

    /// The lane that looks after what concerns no sale.
    fn is_first(&self) -> bool {
        self.lane.number() == SaleNo(0)
    }

    /// Lets tasks that are ready put their jobs into this batch: yields for as long as that brings more. No timer,
    /// no linger: with nobody ready it is one turn of the event loop.
    async fn let_ready_tasks_join(&self) {
        let mut waiting_jobs = self.lane.waiting_jobs();
        for _ in 0..YIELDS_MAX {
            tokio::task::yield_now().await;
            let before = std::mem::replace(&mut waiting_jobs, self.lane.waiting_jobs());
            if waiting_jobs == before || waiting_jobs >= self.jobs_max {
                break;
            }
        }
    }

    /// What has queued and what is due, numbered; `None` if there is nothing.
    fn build(&mut self, now: Reading) -> Option<Flight> {
        let engine = Arc::clone(&self.engine);
        let mut jobs = Vec::new();
        self.lane.take(self.jobs_max, &mut jobs);
        let is_probing = self.is_first() && now.at >= self.next_check && self.check(now);
        // A poke means that something is due right now: a scan is cheap where nothing queued.
        if now.at >= self.next_scan || self.is_more_due || jobs.is_empty() {
            let sales = self.sales();
            // Before everything else: what comes back unpaid in the same batch belongs to the next release.
            let mut due = Vec::new();
            for sale in &sales {
                let works = due_waves(sale, now.wall);
                works.for_each(|work| push_due(&mut due, sale, work, now));
            }
            due.append(&mut jobs);
            jobs = due;
            self.add_due(&sales, &mut jobs, now);
            self.next_scan = now.at + SCAN_INTERVAL;
        }
        self.last_at = self.last_at.max(now.steady);
        let at = self.last_at;
        let number = self.next_batch;
        let mut flight = Flight {
            batch: Batch {
                number,
                at,
                entries: Vec::with_capacity(jobs.len()),
            },
            jobs: Vec::with_capacity(jobs.len()),
            gates: Vec::new(),
            waves: Vec::new(),
        };
        for job in jobs {
            self.add(job, now, &mut flight);
        }
        let mut notes = Vec::new();
        if self.is_first() {
            notes = engine.take_notes();
        }
        if is_probing {
            // Stored only if the store takes it: one line for each trouble that ended.
            notes.extend(engine.recovery_note());
        }
        for note in notes {
            let serial = engine.serials.next();
            flight.batch.entries.push(Entry {
                serial,
                sale_no: SaleNo(0),
                change: Change::Note(note),
            });
        }
        (!flight.batch.entries.is_empty()).then_some(flight)
    }

    /// Puts one job into the batch, or ends it: late, given up, or behind a change of state that forbids it.
    fn add(&self, mut job: Job, now: Reading, flight: &mut Flight) {
        let at = flight.batch.at;
        let expires_at = at.plus(job.sale.payment_window());
        if now.at > job.deadline {
            let refusal = self.engine.overloaded();
            return end_unsent(&job, refusal);
        }
        // Claimed first: a job that its caller gave up must not move the gate.
        let serial = self.engine.serials.next();
        if !job.fate.claim(serial) {
            let refusal = self.engine.overloaded();
            return end_unsent(&job, refusal);
        }
        let gate_before = job.sale.gate();
        if let Err(refusal) = pass_gate(&job, flight) {
            return end_unsent(&job, refusal);
        }
        match &mut job.work {
            // Decided before a pause, and overtaken by it and by a change of price.
            Work::Reserve { lines, .. } if !job.sale.sells_at(lines) => {
                return end_unsent(&job, Refusal::SalePaused);
            }
            Work::Reserve { record, .. } => job.sale.ledger().numbered(*record, serial),
            Work::Transition(transition) => {
                transition.is_pooled = is_pooling(&job.sale, &flight.waves);
            }
            Work::Wave {
                item, wave, units, ..
            } => match units_of_wave(&job.sale, *item, *wave, *units, &flight.waves) {
                Some(sized) => {
                    *units = sized;
                    flight.waves.push(BuiltWave {
                        sale_no: job.sale.sale_no(),
                        item: *item,
                        wave: *wave,
                        units: sized,
                    });
                }
                // Another release took them since this one was asked for.
                None => {
                    let refusal = Refusal::StateConflict { refund_due: false };
                    return end_unsent(&job, refusal);
                }
            },
            Work::ChangeStock { .. }
            | Work::PutDraft(_)
            | Work::Publish
            | Work::Open
            | Work::Pause
            | Work::Resume
            | Work::Close
            | Work::Unpublish
            | Work::ChangePrice(_)
            | Work::CountAttempts { .. }
            | Work::Freeze(_)
            | Work::Retire => {}
        }
        let sale_no = job.sale.sale_no();
        let change = change_of(&job.sale, &job.work, at, expires_at);
        let place = flight.batch.entries.len();
        flight.batch.entries.push(Entry {
            serial,
            sale_no,
            change,
        });
        if let Some(note) = job.note.take() {
            let serial = self.engine.serials.next();
            flight.batch.entries.push(Entry {
                serial,
                sale_no,
                change: Change::Note(note),
            });
        }
        flight.jobs.push(Sent {
            job,
            place,
            gate_before,
        });
    }

    async fn commit(&mut self, mut flight: Flight) -> Result<(), Fatal> {
        let engine = Arc::clone(&self.engine);
        let metrics = &engine.metrics;
        metrics.commit_batch_jobs.record(flight.jobs.len() as f64);
        let batch = Batch {
            number: flight.batch.number,
            at: flight.batch.at,
            entries: std::mem::take(&mut flight.batch.entries),
        };
        let sent_at = Instant::now();
        let result = engine.store.commit(batch).await;
        metrics.commit_seconds.record(sent_at.elapsed());
        self.is_refused = matches!(result, Err(CommitError::NotApplied(_)));
        #[cfg(feature = "faults")]
        flash_store::fault::point("committer_panic");
        match result {
            Ok(committed) => {
                self.next_batch += 1;
                engine.store_is_up();
                self.settle(flight, committed);
                Ok(())
            }
            Err(CommitError::Frozen { reason, is_known }) => {
                for sale in sales_of(&flight, &engine, self.lane.number()) {
                    engine.is_frozen_by_store(&sale, &reason);
                }
                for sent in &flight.jobs {
                    if is_known {
                        end_unsent(&sent.job, Refusal::SaleFrozen);
                    } else {
                        sent.job.fate.decide(Verdict::Unknown);
                        sent.job.sale.job_ends();
                    }
                }
                self.is_more_due = false;
                Ok(())
            }
            Err(CommitError::NotApplied(why)) => {
                let refusal = match &why {
                    NotApplied::StorageFull(_) => Refusal::StorageFull,
                    NotApplied::Unavailable(_) => Refusal::StoreUnavailable,
                };
                engine.store_is_down(&why.to_string());
                // Latest first: a sale that moved twice in this batch ends where it began.
                for (sale, gate) in flight.gates.into_iter().rev() {
                    sale.set_gate(gate);
                }
                for sent in &flight.jobs {
                    end_unsent(&sent.job, refusal);
                }
                // Nothing is lost by waiting a little; trying at once would only burn the processor.
                self.is_more_due = false;
                self.next_scan = engine.clock.read().at + SCAN_INTERVAL;
                Ok(())
            }
            Err(CommitError::Fatal(why)) => {
                engine.store_is_dead(&why);
                for sent in &flight.jobs {
                    sent.job.fate.decide(Verdict::Unknown);
                    sent.job.sale.job_ends();
                }
                Err(Fatal(why))
            }
        }
    }

    /// Applies a durable batch, change by change.
    fn settle(&self, flight: Flight, committed: Committed) {
        let at = committed.at.unwrap_or(flight.batch.at);
        if committed.has_moved {
            // The store was away: nobody could pay meanwhile.
            let steady = self.engine.clock.read().steady;
            for sale in sales_of(&flight, &self.engine, self.lane.number()) {
                sale.ledger()
                    .extend_expiry(steady.plus(sale.restart_grace()));
            }
        }
        let mut refused = committed.refused.into_iter().peekable();
        for sent in flight.jobs {
            // Notes have no job: their places are passed over.
            while refused.next_if(|(place, _)| *place < sent.place).is_some() {}
            match refused.next_if(|(place, _)| *place == sent.place) {
                None => settle(&self.engine, sent.job, at),
                Some((_, why)) => end_refused(&self.engine, &sent, &why),
            }
        }
    }

    /// The sales that this lane looks after.
    fn sales(&self) -> Vec<Arc<Sale>> {
        match self.engine.queue.lanes() {
            Lanes::One => self.engine.catalogue.all(),
            Lanes::PerSale => {
                let sale = self.engine.catalogue.numbered(self.lane.number());
                sale.into_iter().collect()
            }
        }
    }

    /// Openings, closings, expiries and departures that the clock asks for.
    fn add_due(&mut self, sales: &[Arc<Sale>], jobs: &mut Vec<Job>, now: Reading) {
        self.is_more_due = false;
        let expiries_max = self.jobs_max / EXPIRIES_PART;
        // The last look of a process that ends: nobody counts afterwards.
        let is_last = self.engine.queue.is_closed();
        let mut due = Vec::new();
        for sale in sales {
            if sale.is_retired() {
                continue;
            }
            if let Some(work) = due_by_window(sale, now, self.engine.config.retire_after) {
                push_due(jobs, sale, work, now);
            }
            if sale.state() == SaleState::Frozen {
                continue;
            }
            if sale.gate() != SaleState::Draft
                && let Some((from, counts)) = sale.attempts().take(now.wall, is_last)
            {
                push_due(jobs, sale, Work::CountAttempts { from, counts }, now);
            }
            if self.is_more_due {
                continue;
            }
            due.clear();
            sale.ledger().due(now.steady, expiries_max, &mut due);
            self.is_more_due = due.len() == expiries_max;
            for serial in &due {
                let fate = Arc::new(Fate::default());
                let begun = sale
                    .ledger()
                    .begin(*serial, &Command::Expire, Arc::clone(&fate));
                if let Begin::Start(transition) = begun {
                    push_with(jobs, sale, Work::Transition(transition), fate, now);
                }
            }
        }
    }

    /// Once a second: asks a store that was down again (`true`), measures it, and holds counters against each other.
    fn check(&mut self, now: Reading) -> bool {
        self.next_check = now.at + CHECK_INTERVAL;
        self.engine.check_books();
        self.engine.measure_store();
        !self.engine.is_store_up()
    }
}

/// What the window asks for: to be judged by the gate, since commands may be queued before it.
fn due_by_window(sale: &Sale, now: Reading, retire_after: Duration) -> Option<Work> {
    let definition = sale.definition();
    // Broken books: nothing moves by itself any more.
    if sale.state() == SaleState::Frozen {
        return None;
    }
    match sale.gate() {
        SaleState::Published | SaleState::Open | SaleState::Paused
            if now.wall >= definition.ends_at =>
        {
            Some(Work::Close)
        }
        SaleState::Published if now.wall >= definition.starts_at => Some(Work::Open),
        SaleState::Closed
            if now.wall >= definition.ends_at.plus(retire_after)
                && has_nothing_reserved(sale)
                && sale.begin_leaving() =>
        {
            Some(Work::Retire)
        }
        SaleState::Draft
        | SaleState::Published
        | SaleState::Open
        | SaleState::Paused
        | SaleState::Closed
        | SaleState::Frozen => None,
    }
}

fn has_nothing_reserved(sale: &Sale) -> bool {
    let items = (0u16..).take(sale.definition().items.len());
    items
        .map(ItemIndex)
        .all(|item| sale.units(item).reserved == 0)
}

fn push_due(jobs: &mut Vec<Job>, sale: &Arc<Sale>, work: Work, now: Reading) {
    push_with(jobs, sale, work, Arc::new(Fate::default()), now);
}

fn push_with(jobs: &mut Vec<Job>, sale: &Arc<Sale>, work: Work, fate: Arc<Fate>, now: Reading) {
    sale.job_begins();
    jobs.push(Job {
        sale: Arc::clone(sale),
        work,
        note: None,
        fate,
        deadline: now.at,
        slot: None,
        turns: Vec::new(),
    });
}

/// Holds a job against the state that the sale has after everything built before it.
fn pass_gate(job: &Job, flight: &mut Flight) -> Result<(), Refusal> {
    let gate = job.sale.gate();
    let conflict = Refusal::StateConflict { refund_due: false };
    let next = match (&job.work, gate) {
        (Work::Freeze(_), _) => SaleState::Frozen,
        (Work::PutDraft(_), SaleState::Draft) => return Ok(()),
        (_, SaleState::Frozen) => return Err(Refusal::SaleFrozen),
        (Work::Reserve { .. }, SaleState::Open) => return Ok(()),
        (Work::Reserve { .. }, SaleState::Paused) => return Err(Refusal::SalePaused),
        (Work::Reserve { .. }, SaleState::Draft) => return Err(Refusal::NotFound),
        (Work::Reserve { .. }, SaleState::Published | SaleState::Closed) => {
            return Err(Refusal::SaleEnded);
        }
        (Work::Transition(_) | Work::ChangeStock { .. } | Work::CountAttempts { .. }, _) => {
            return Ok(());
        }
        (Work::Wave { .. }, SaleState::Published | SaleState::Open | SaleState::Paused) => {
            return Ok(());
        }
        (Work::ChangePrice(_), SaleState::Paused) => return Ok(()),
        (Work::Unpublish, SaleState::Published | SaleState::Open | SaleState::Paused) => {
            // A release of this very batch is none of the ledger's yet.
            let sale_no = job.sale.sale_no();
            if is_used(&job.sale) || flight.waves.iter().any(|wave| wave.sale_no == sale_no) {
                return Err(conflict);
            }
            SaleState::Draft
        }
        (Work::Publish, SaleState::Draft) => SaleState::Published,
        (Work::Open, SaleState::Published) => SaleState::Open,
        (Work::Pause, SaleState::Open) => SaleState::Paused,
        (Work::Resume, SaleState::Paused) => SaleState::Open,
        (Work::Close, SaleState::Published | SaleState::Open | SaleState::Paused) => {
            SaleState::Closed
        }
        (Work::Retire, SaleState::Closed) => return Ok(()),
        (
            Work::PutDraft(_)
            | Work::Publish
            | Work::Open
            | Work::Pause
            | Work::Resume
            | Work::Close
            | Work::Unpublish
            | Work::ChangePrice(_)
            | Work::Wave { .. }
            | Work::Retire,
            SaleState::Draft
            | SaleState::Published
            | SaleState::Open
            | SaleState::Paused
            | SaleState::Closed,
        ) => return Err(conflict),
    };
    flight.gates.push((Arc::clone(&job.sale), gate));
    job.sale.set_gate(next);
    Ok(())
}

/// Something was ever reserved, or released after the opening: it cannot be a draft again.
pub(crate) fn is_used(sale: &Sale) -> bool {
    !sale.ledger().records_after(Serial(0), 1).is_empty() || sale.waves().has_any()
}

/// Ends a job of which the store has nothing and will have nothing: as if it had never been.
fn end_unsent(job: &Job, refusal: Refusal) {
    let ledger = job.sale.ledger();
    match &job.work {
        Work::Reserve { record, .. } => ledger.abort_reserve(*record),
        Work::Transition(transition) => ledger.abort(transition),
        Work::ChangeStock { change, .. } => ledger.abort_stock_change(change),
        Work::PutDraft(_)
        | Work::Publish
        | Work::Open
        | Work::Resume
        | Work::Close
        | Work::Freeze(_) => {}
        // New purchases were stopped when the command came in; the sale goes on as the store has it.
        Work::Pause | Work::Unpublish if job.sale.state() == SaleState::Paused => {
            job.sale.set_state(job.sale.gate());
        }
        Work::Pause | Work::Unpublish | Work::ChangePrice(_) | Work::Wave { .. } => {}
        Work::CountAttempts { from, counts } => {
            job.sale.attempts().give_back(*from, counts.clone());
        }
        Work::Retire => job.sale.stay(),
    }
    job.fate.decide(Verdict::Refused(refusal));
    job.sale.job_ends();
}

/// The sales that a batch is about: those of its jobs, or the lane's.
fn sales_of(flight: &Flight, engine: &Engine, lane: SaleNo) -> Vec<Arc<Sale>> {
    let mut sales: Vec<Arc<Sale>> = Vec::new();
    let of_jobs = flight.jobs.iter().map(|sent| Arc::clone(&sent.job.sale));
    for sale in of_jobs.chain(engine.catalogue.numbered(lane)) {
        if !sales.iter().any(|known| Arc::ptr_eq(known, &sale)) {
            sales.push(sale);
        }
    }
    sales
}

/// Whether a job changes the state of its sale.
fn moves_gate(work: &Work) -> bool {
    match work {
        Work::Publish | Work::Open | Work::Pause | Work::Resume | Work::Close | Work::Unpublish => {
            true
        }
        Work::Reserve { .. }
        | Work::Transition(_)
        | Work::ChangeStock { .. }
        | Work::ChangePrice(_)
        | Work::Wave { .. }
        | Work::CountAttempts { .. }
        | Work::PutDraft(_)
        | Work::Freeze(_)
        | Work::Retire => false,
    }
}

/// Whether a job makes an event that anybody is told: what counts tries is none, and would have lines read in vain.
fn is_told(work: &Work) -> bool {
    match work {
        Work::PutDraft(_) | Work::CountAttempts { .. } | Work::Retire => false,
        Work::Reserve { .. }
        | Work::Transition(_)
        | Work::ChangeStock { .. }
        | Work::ChangePrice(_)
        | Work::Wave { .. }
        | Work::Publish
        | Work::Open
        | Work::Pause
        | Work::Resume
        | Work::Close
        | Work::Unpublish
        | Work::Freeze(_) => true,
    }
}

/// Ends a job whose change the store did not take: nothing of it is there.
fn end_refused(engine: &Engine, sent: &Sent, why: &EntryRefusal) {
    let job = &sent.job;
    // Only what moves the gate puts it back: a later change of the same batch may have moved it rightly.
    if moves_gate(&job.work) && job.sale.gate() != SaleState::Frozen {
        job.sale.set_gate(sent.gate_before);
    }
    let refusal = match why {
        EntryRefusal::KeyKnown(serial) => {
            if let Work::Reserve { record, .. } = &job.work {
                job.sale.ledger().abort_reserve(*record);
                job.fate.decide(Verdict::Elsewhere(*serial));
                return job.sale.job_ends();
            }
            Refusal::InFlight
        }
        EntryRefusal::Limit => Refusal::BuyerLimitReached,
        EntryRefusal::SoldOut(units) => Refusal::SoldOut {
            is_final: false,
            available_units: (*units > 0).then_some(*units),
        },
        EntryRefusal::State(SaleState::Paused) => Refusal::SalePaused,
        EntryRefusal::State(SaleState::Frozen) => Refusal::SaleFrozen,
        EntryRefusal::State(SaleState::Draft | SaleState::Published) => Refusal::SaleNotStarted {
            starts_at: job.sale.definition().starts_at,
        },
        EntryRefusal::State(SaleState::Open | SaleState::Closed) => Refusal::SaleEnded,
        // What is due comes up again at the next scan.
        EntryRefusal::Early => Refusal::StateConflict { refund_due: false },
        EntryRefusal::Stale(_) => Refusal::SaleFrozen,
    };
    end_unsent(job, refusal);
    if let EntryRefusal::Stale(what) = why {
        // One node serves a sale, so its ledger is what is stored, or one of them is wrong.
        let finding = format!("the store and the ledger differ ({what})");
        engine.freeze(job.sale.sale_no(), &finding, engine.clock.read().at);
    }
}

/// Applies what is durable since `at` and tells everybody who waits.
fn settle(engine: &Engine, job: Job, at: Timestamp) {
    let sale = &job.sale;
    let ledger = sale.ledger();
    let is_told = is_told(&job.work);
    match job.work {
        Work::Reserve { record, .. } => {
            ledger.finish_reserve(record, at, at.plus(sale.payment_window()));
        }
        Work::Transition(transition) => ledger.finish(&transition),
        Work::ChangeStock {
            change,
            key,
            asked_delta_units,
            ..
        } => {
            ledger.finish_stock_change(&change);
            let (item, applied_delta_units) = (change.item, change.applied_delta_units);
            let answer = StockAnswer {
                item,
                asked_delta_units,
                applied_delta_units,
            };
            sale.remember_stock_answer(key, answer);
            sale.touch();
        }
        Work::PutDraft(_) => engine.catalogue.put([Arc::clone(sale)]),
        Work::Publish => sale.set_state(SaleState::Published),
        Work::Wave {
            item, wave, units, ..
        } => {
            ledger.release(item, units);
            sale.waves().add(item, wave, units);
            sale.touch();
        }
        Work::ChangePrice(change) => sale.set_price(change.item, change.to),
        Work::CountAttempts { .. } => {}
        Work::Unpublish => {
            sale.set_state(SaleState::Draft);
            engine.catalogue.put([Arc::new(engine.drafted_again(sale))]);
            sale.opened.notify_waiters();
        }
        Work::Open => {
            ledger.release_all(&sale.held_units());
            sale.set_state(SaleState::Open);
            sale.opened.notify_waiters();
        }
        Work::Pause => sale.set_state(SaleState::Paused),
        Work::Resume => sale.set_state(SaleState::Open),
        Work::Close => {
            sale.set_state(SaleState::Closed);
            // It may never have opened.
            sale.opened.notify_waiters();
        }
        Work::Freeze(reason) => {
            tracing::error!(sale = %sale.definition().sale_id, reason, "sale frozen");
            sale.set_state(SaleState::Frozen);
        }
        Work::Retire => engine.catalogue.put([Arc::new(engine.retired(sale))]),
    }
    if is_told {
        sale.event_came();
    }
    job.fate.decide(Verdict::Done);
    sale.job_ends();
    drop(job.slot);
    drop(job.turns);
}
