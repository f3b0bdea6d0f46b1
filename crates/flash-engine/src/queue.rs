//! The bounded way to the committers: lanes of jobs, each in the order in which they were decided.
//!
//! A lane is served by one committer. One lane takes all sales, or each sale has its own, as the store wants it; lane 0 is always there.
//! Everything that is decided and not yet answered holds a [`Slot`]. New purchases may fill three quarters of the
//! slots; the last quarter is kept for commands on what was already sold, which are never shed for new buyers.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use flash_ledger::{PricedLine, RecordRef, StockChange, Transition};
use flash_store::{AdminNote, AttemptCount, Lanes, WaveRef};
use flash_types::{
    BuyerId, IdempotencyKey, ItemIndex, Money, SaleDefinition, SaleNo, Timestamp, bounds,
};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::fate::Fate;
use crate::sale::Sale;

/// Which part of the queue a job may fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A new purchase: shed first.
    Purchase,
    /// Confirm, cancel, refund, admin: only the whole bound stops it.
    Settle,
}

/// One decided change on its way to the store.
pub(crate) struct Job {
    pub(crate) sale: Arc<Sale>,
    pub(crate) work: Work,
    /// Goes into the admin audit log with the change.
    pub(crate) note: Option<AdminNote>,
    pub(crate) fate: Arc<Fate>,
    /// After it nobody waits for an unsent job any more.
    pub(crate) deadline: Instant,
    /// Absent for what the committer itself found due.
    pub(crate) slot: Option<Slot>,
    /// Turns that end when the job does, not when its caller stops waiting: the next command of the same turn must
    /// not decide before this one is settled.
    pub(crate) turns: Vec<OwnedSemaphorePermit>,
}

/// What is to be made durable.
pub(crate) enum Work {
    Reserve {
        record: RecordRef,
        buyer: BuyerId,
        key: IdempotencyKey,
        lines: SmallVec<[PricedLine; 1]>,
    },
    Transition(Transition),
    ChangeStock {
        change: StockChange,
        key: IdempotencyKey,
        asked_delta_units: i64,
        reason: String,
    },
    PutDraft(Box<SaleDefinition>),
    Publish,
    Open,
    Pause,
    Resume,
    Close,
    Unpublish,
    ChangePrice(Box<PriceChange>),
    /// Units are what is asked for by hand; of other releases they are told when the batch is built.
    Wave {
        item: ItemIndex,
        wave: WaveRef,
        due_at: Timestamp,
        units: u32,
    },
    CountAttempts {
        from: Timestamp,
        counts: Vec<AttemptCount>,
    },
    Freeze(String),
    Retire,
}

/// Another price for new reservations.
pub(crate) struct PriceChange {
    pub(crate) item: ItemIndex,
    pub(crate) from: Money,
    pub(crate) to: Money,
    pub(crate) reason: String,
    /// The plan with the new price.
    pub(crate) definition: SaleDefinition,
}

/// The right to be decided and unanswered; given back on drop.
pub(crate) struct Slot {
    queue: Arc<Queue>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Relaxed: a count that guards no other memory.
        self.queue.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Jobs that wait for one committer.
pub(crate) struct Lane {
    /// The sale that it is for; 0: all sales, or what concerns none.
    number: SaleNo,
    jobs: Mutex<VecDeque<Job>>,
    filled: Notify,
}

impl Lane {
    fn new(number: SaleNo) -> Self {
        Self {
            number,
            jobs: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// The sale that it is for; 0: all sales, or what concerns none.
    pub(crate) fn number(&self) -> SaleNo {
        self.number
    }

    fn push(&self, job: Job) {
        let was_empty = {
            let mut jobs = self.jobs.lock();
            let was_empty = jobs.is_empty();
            jobs.push_back(job);
            was_empty
        };
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Takes up to `limit` jobs, oldest first.
    pub(crate) fn take(&self, limit: usize, into: &mut Vec<Job>) {
        let mut jobs = self.jobs.lock();
        let count = jobs.len().min(limit);
        into.extend(jobs.drain(..count));
    }

    /// Waits until something was pushed or poked.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing: the wake-up is kept for the next wait.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Jobs that wait to be sent.
    pub(crate) fn waiting_jobs(&self) -> usize {
        self.jobs.lock().len()
    }
}

/// The queue.
pub(crate) struct Queue {
    lanes: Lanes,
    first: Arc<Lane>,
    /// The lanes of single sales.
    others: RwLock<HashMap<SaleNo, Arc<Lane>>>,
    /// Lanes that no committer serves yet.
    unserved: Mutex<Vec<Arc<Lane>>>,
    has_unserved: Notify,
    taken: AtomicUsize,
    is_closed: AtomicBool,
}

impl Queue {
    pub(crate) fn new(lanes: Lanes) -> Self {
        let first = Arc::new(Lane::new(SaleNo(0)));
        Self {
            lanes,
            unserved: Mutex::new(vec![Arc::clone(&first)]),
            first,
            others: RwLock::default(),
            has_unserved: Notify::new(),
            taken: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
        }
    }

    /// How jobs are parted.
    pub(crate) fn lanes(&self) -> Lanes {
        self.lanes
    }

    /// The lane of a sale, made where it is new.
    pub(crate) fn lane(&self, sale_no: SaleNo) -> Arc<Lane> {
        if self.lanes == Lanes::One || sale_no == SaleNo(0) {
            return Arc::clone(&self.first);
        }
        if let Some(lane) = self.others.read().get(&sale_no) {
            return Arc::clone(lane);
        }
        let mut others = self.others.write();
        let lane = others.entry(sale_no).or_insert_with(|| {
            let lane = Arc::new(Lane::new(sale_no));
            self.unserved.lock().push(Arc::clone(&lane));
            self.has_unserved.notify_one();
            lane
        });
        Arc::clone(lane)
    }

    /// Lanes that nobody serves yet: whoever takes them has to.
    pub(crate) fn take_unserved(&self) -> Vec<Arc<Lane>> {
        std::mem::take(&mut *self.unserved.lock())
    }

    /// Waits until there may be one.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing: the wake-up is kept for the next wait.
    pub(crate) async fn has_unserved(&self) {
        self.has_unserved.notified().await;
    }

    /// A slot, or `None` if the part of the queue that this class may fill is full.
    pub(crate) fn slot(self: &Arc<Self>, class: Class) -> Option<Slot> {
        let bound = match class {
            Class::Purchase => bounds::COMMIT_QUEUE_JOBS_MAX - bounds::COMMIT_QUEUE_RESERVED_JOBS,
            Class::Settle => bounds::COMMIT_QUEUE_JOBS_MAX,
        };
        // Relaxed: a count that guards no other memory.
        let slot = Slot {
            queue: Arc::clone(self),
        };
        if self.taken.fetch_add(1, Ordering::Relaxed) < bound {
            Some(slot)
        } else {
            None
        }
    }

    /// Jobs decided and unanswered.
    pub(crate) fn taken_jobs(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Hands a job over: from here on it goes on without its caller.
    pub(crate) fn push(&self, job: Job) {
        job.sale.job_begins();
        if self.lanes == Lanes::One {
            return self.first.push(job);
        }
        self.lane(job.sale.sale_no()).push(job);
    }

    /// Wakes a committer though nothing was pushed: something is due by the clock, in a sale or (0) in none.
    pub(crate) fn poke(&self, sale_no: SaleNo) {
        self.lane(sale_no).filled.notify_one();
    }

    /// Jobs that wait to be sent, in all lanes.
    pub(crate) fn waiting_jobs(&self) -> usize {
        let others: usize = self
            .others
            .read()
            .values()
            .map(|lane| lane.waiting_jobs())
            .sum();
        self.first.waiting_jobs() + others
    }

    /// Tells the committers to finish what is queued and end.
    pub(crate) fn close(&self) {
        // Release: what was pushed before is seen by whoever sees the flag.
        self.is_closed.store(true, Ordering::Release);
        self.first.filled.notify_one();
        for lane in self.others.read().values() {
            lane.filled.notify_one();
        }
        self.has_unserved.notify_one();
    }

    /// `close` was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}
