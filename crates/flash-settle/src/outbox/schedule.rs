//! Which event of a sink is tried when: a function of events offered, outcomes and the time; no I/O, no clock.
//!
//! Fresh -> (acknowledged | Parked); Parked -> (acknowledged | Dead). An event that fails is parked, and whatever comes
//! later of the same reservation is parked behind it; everything else goes past. The cursor of a sale passes only what
//! was acknowledged or parked, so a restart from cursor and parked events repeats, but skips nothing.
//!
//! Invariants: never two events of one reservation in flight; parked events and fresh ones in flight together are at
//! most `parked_max`, so what fails can always be parked; where they are, nothing fresh starts until there is room.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use flash_store::EventPlace;
use flash_types::{SaleNo, Serial, Timestamp};

use super::event::OutEvent;

/// Bounds of one sink.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Deliveries at once.
    pub in_flight_max: usize,
    /// Of those, events that failed before: many that time out must not take every place.
    pub retries_in_flight_max: usize,
    /// Events set aside because one of their reservation failed.
    pub parked_max: usize,
    /// Dead letters; beyond, nothing dies: it is tried on.
    pub dead_max: usize,
    /// Events read and not yet passed by the cursor, of all sales together, and of one sale.
    pub window_max: usize,
    /// The same of one sale.
    pub sale_window_max: usize,
    /// Before the second attempt; doubles with each.
    pub backoff_first: Duration,
    /// Longest time between two attempts.
    pub backoff_max: Duration,
    /// How long after its first attempt an event that fails is a dead letter.
    pub give_up_after: Duration,
    /// So many events in a row that failed, and none delivered: the target is down.
    pub down_after: usize,
    /// Longest time between two probes of a target that is down.
    pub probe_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight_max: 8,
            retries_in_flight_max: 4,
            parked_max: 1_000,
            dead_max: 100_000,
            window_max: 256,
            sale_window_max: 64,
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(3600),
            give_up_after: Duration::from_secs(24 * 3600),
            down_after: 5,
            probe_max: Duration::from_secs(60),
        }
    }
}

/// An event set aside, without its body: that is read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Its sale.
    pub sale_no: SaleNo,
    /// Its place there.
    pub place: EventPlace,
    /// Whose it is.
    pub reservation: Option<Serial>,
    /// When it happened.
    pub at: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
    /// When the first began.
    pub first_attempt: Option<Timestamp>,
    /// When the next is due.
    pub next_attempt: Timestamp,
    /// Why the last failed.
    pub last_error: String,
}

/// What must become durable, in this order, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Everything up to here was acknowledged or parked.
    Cursor(SaleNo, EventPlace),
    /// It waits (again), in this shape.
    Park(Parked),
    /// It was given up.
    Die(Parked, Timestamp),
    /// It was delivered at last.
    Forget(SaleNo, EventPlace),
}

/// One delivery to be made; comes back with its fate.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Of which sale.
    pub sale_no: SaleNo,
    /// Which event.
    pub place: EventPlace,
    /// The event itself; `None`: to be read again.
    pub event: Option<Arc<OutEvent>>,
    reservation: Option<Serial>,
    began: Timestamp,
    is_probe: bool,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Acknowledged.
    Delivered,
    /// The target did not take it.
    Failed(String),
    /// It could not be read from the store just now; the target was not asked.
    NotTried,
    /// The store has it no longer.
    Missing,
}

/// What is told of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Read and not yet delivered or parked.
    pub waiting: usize,
    /// Set aside.
    pub parked: usize,
    /// Given up.
    pub dead: usize,
    /// The last deliveries all failed.
    pub is_down: bool,
    /// When the oldest of what is not delivered happened.
    pub oldest: Option<Timestamp>,
}

/// All sales of one sink.
#[derive(Debug)]
pub struct Schedule {
    limits: Limits,
    lanes: BTreeMap<SaleNo, Lane>,
    /// Of all lanes.
    parked_count: usize,
    window_count: usize,
    dead_count: usize,
    fresh_in_flight: usize,
    retries_in_flight: usize,
    /// Events that failed since the last delivery, at most `down_after`.
    failing: HashSet<(SaleNo, EventPlace)>,
    down: Option<Down>,
    /// Where the round of the sales stands.
    last_lane: SaleNo,
    random: u64,
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Down {
    probes: u32,
    next_probe: Timestamp,
}

/// One sale.
#[derive(Debug, Default)]
struct Lane {
    cursor: EventPlace,
    read_to: EventPlace,
    window: VecDeque<Fresh>,
    parked: HashMap<Option<Serial>, BTreeMap<EventPlace, Parked>>,
    in_flight: HashSet<Option<Serial>>,
    /// Places beyond the cursor that were parked or given up before a restart: read again, they are passed.
    settled: HashSet<EventPlace>,
}

#[derive(Debug)]
struct Fresh {
    event: Arc<OutEvent>,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Waiting,
    InFlight,
    /// Acknowledged, parked, or not wanted by this sink.
    Passed,
}

impl Schedule {
    /// Nothing yet; `seed` spreads the attempts.
    pub fn new(limits: Limits, dead_count: usize, seed: u64) -> Self {
        Self {
            limits,
            lanes: BTreeMap::new(),
            parked_count: 0,
            window_count: 0,
            dead_count,
            fresh_in_flight: 0,
            retries_in_flight: 0,
            failing: HashSet::new(),
            down: None,
            last_lane: SaleNo(0),
            random: seed,
            changes: Vec::new(),
        }
    }

    /// Goes on with a sale from its durable cursor; one that is known stays as it is.
    pub fn resume(&mut self, sale_no: SaleNo, cursor: EventPlace) {
        self.lanes.entry(sale_no).or_insert_with(|| Lane {
            cursor,
            read_to: cursor,
            ..Lane::default()
        });
    }

    /// Goes on with an event that was parked; after its sale.
    pub fn resume_parked(&mut self, parked: Parked) {
        self.resume_dead(parked.sale_no, parked.place);
        let lane = self.lanes.entry(parked.sale_no).or_default();
        self.parked_count += usize::from(lane.park(parked));
    }

    /// Leaves an event alone that was given up; after its sale.
    pub fn resume_dead(&mut self, sale_no: SaleNo, place: EventPlace) {
        let lane = self.lanes.entry(sale_no).or_default();
        if place > lane.cursor {
            lane.settled.insert(place);
        }
    }

    /// How many events of this sale are taken now.
    pub fn room(&self, sale_no: SaleNo) -> usize {
        let total = self.limits.window_max.saturating_sub(self.window_count);
        let of_sale = self.lanes.get(&sale_no).map_or(0, |lane| {
            self.limits
                .sale_window_max
                .saturating_sub(lane.window.len())
        });
        total.min(of_sale)
    }

    /// Up to where a sale was read.
    pub fn read_to(&self, sale_no: SaleNo) -> EventPlace {
        self.lanes
            .get(&sale_no)
            .map(|lane| lane.read_to)
            .unwrap_or_default()
    }

    /// Takes what was read after [`Schedule::read_to`], with whether the sink wants it.
    pub fn offer(&mut self, sale_no: SaleNo, events: impl Iterator<Item = (OutEvent, bool)>) {
        let Some(lane) = self.lanes.get_mut(&sale_no) else {
            return;
        };
        for (event, is_wanted) in events {
            if event.place <= lane.read_to {
                continue;
            }
            lane.read_to = event.place;
            let is_settled = lane.settled.remove(&event.place);
            let step = if is_wanted && !is_settled {
                Step::Waiting
            } else {
                Step::Passed
            };
            let event = Arc::new(event);
            lane.window.push_back(Fresh { event, step });
            self.window_count += 1;
        }
        self.advance(sale_no);
    }

    /// The next delivery to be made now, if there is one.
    pub fn next(&mut self, now: Timestamp) -> Option<Attempt> {
        self.park_followers(now);
        let in_flight = self.fresh_in_flight + self.retries_in_flight;
        if let Some(down) = &self.down {
            let (probes, is_due) = (
                down.probes,
                is_due(down.next_probe, now, self.limits.probe_max),
            );
            self.bury(now);
            if in_flight > 0 || !is_due {
                return None;
            }
            // Mostly what failed, now and then what was never tried: those that failed may all be poison.
            let fresh_first = probes % 4 == 3;
            let attempt = if fresh_first {
                self.fresh(now).or_else(|| self.retry(now, true))
            } else {
                self.retry(now, true).or_else(|| self.fresh(now))
            };
            return attempt.map(|attempt| Attempt {
                is_probe: true,
                ..attempt
            });
        }
        if in_flight >= self.limits.in_flight_max {
            return None;
        }
        if self.retries_in_flight < self.limits.retries_in_flight_max
            && let Some(attempt) = self.retry(now, false)
        {
            return Some(attempt);
        }
        self.fresh(now)
    }

    /// Takes the fate of an attempt.
    pub fn done(&mut self, attempt: &Attempt, fate: Fate, now: Timestamp) {
        let sale_no = attempt.sale_no;
        if attempt.event.is_some() {
            self.fresh_in_flight -= 1;
        } else {
            self.retries_in_flight -= 1;
        }
        match &fate {
            Fate::Delivered => self.is_up(now),
            Fate::Failed(_) => self.failed(attempt, now),
            Fate::NotTried | Fate::Missing => {}
        }
        if let Some(lane) = self.lanes.get_mut(&sale_no) {
            lane.in_flight.remove(&attempt.reservation);
        }
        if attempt.event.is_some() {
            self.fresh_done(attempt, fate, now);
        } else {
            self.retry_done(attempt, fate, now);
        }
        self.advance(sale_no);
    }

    /// What became of it is to be delivered (again), in the order of its reservation. `was_dead`: it leaves the dead letters.
    /// `false`: there is no room.
    pub fn redeliver(
        &mut self,
        event: &OutEvent,
        sale_no: SaleNo,
        was_dead: bool,
        now: Timestamp,
    ) -> bool {
        let is_full = self.parked_count + self.fresh_in_flight >= self.limits.parked_max;
        let Some(lane) = self.lanes.get_mut(&sale_no) else {
            return false;
        };
        let of_reservation = lane.parked.get_mut(&event.reservation);
        if let Some(waiting) = of_reservation.and_then(|queue| queue.get_mut(&event.place)) {
            waiting.next_attempt = now;
            self.changes.push(Change::Park(waiting.clone()));
            return true;
        }
        let is_to_come = event.place > lane.read_to
            || lane
                .window
                .iter()
                .any(|fresh| fresh.event.place == event.place && fresh.step != Step::Passed);
        if is_to_come {
            return true;
        }
        if is_full {
            return false;
        }
        let parked = Parked::fresh(sale_no, event, now);
        self.changes.push(Change::Park(parked.clone()));
        self.parked_count += usize::from(lane.park(parked));
        self.dead_count -= usize::from(was_dead && self.dead_count > 0);
        true
    }

    /// What must become durable since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// How it stands.
    pub fn counts(&self) -> Counts {
        let waiting = self.lanes.values().flat_map(|lane| &lane.window);
        let waiting = waiting.filter(|fresh| fresh.step != Step::Passed);
        let parked = self
            .lanes
            .values()
            .flat_map(|lane| lane.parked.values().flat_map(BTreeMap::values));
        let oldest_parked = parked.map(|parked| parked.at).min();
        Counts {
            waiting: waiting.clone().count(),
            parked: self.parked_count,
            dead: self.dead_count,
            is_down: self.down.is_some(),
            oldest: waiting
                .map(|fresh| fresh.event.at)
                .chain(oldest_parked)
                .min(),
        }
    }

    // ---- choosing

    /// An event that waits behind another of its reservation need not be tried to know that it has to wait.
    fn park_followers(&mut self, now: Timestamp) {
        let mut room = self
            .limits
            .parked_max
            .saturating_sub(self.parked_count + self.fresh_in_flight);
        let mut passed = Vec::new();
        for (sale_no, lane) in &mut self.lanes {
            if lane.parked.is_empty() {
                continue;
            }
            let mut ahead = HashSet::new();
            for index in 0..lane.window.len() {
                let fresh = &mut lane.window[index];
                let reservation = fresh.event.reservation;
                if fresh.step == Step::Passed {
                    continue;
                }
                let is_next = ahead.insert(reservation) && fresh.step == Step::Waiting;
                if !is_next || room == 0 || !lane.parked.contains_key(&reservation) {
                    continue;
                }
                fresh.step = Step::Passed;
                ahead.remove(&reservation);
                let parked = Parked::fresh(*sale_no, &fresh.event, now);
                self.changes.push(Change::Park(parked.clone()));
                self.parked_count += usize::from(lane.park(parked));
                room -= 1;
                passed.push(*sale_no);
            }
        }
        passed.dedup();
        passed.into_iter().for_each(|sale_no| self.advance(sale_no));
    }

    /// The first of a reservation that was never tried, if it may fail; the sales take turns.
    fn fresh(&mut self, now: Timestamp) -> Option<Attempt> {
        if self.parked_count + self.fresh_in_flight >= self.limits.parked_max {
            return None;
        }
        let after = self
            .lanes
            .range(SaleNo(self.last_lane.0.saturating_add(1))..);
        let order: Vec<SaleNo> = after
            .chain(self.lanes.range(..=self.last_lane))
            .filter(|(_, lane)| !lane.window.is_empty())
            .map(|(sale_no, _)| *sale_no)
            .collect();
        for sale_no in order {
            let Some(lane) = self.lanes.get_mut(&sale_no) else {
                continue;
            };
            let Some(event) = lane.first_free() else {
                continue;
            };
            lane.in_flight.insert(event.reservation);
            self.fresh_in_flight += 1;
            self.last_lane = sale_no;
            return Some(Attempt {
                sale_no,
                place: event.place,
                reservation: event.reservation,
                event: Some(event),
                began: now,
                is_probe: false,
            });
        }
        None
    }

    /// The parked event that has been due longest; `is_probe`: due or not.
    fn retry(&mut self, now: Timestamp, is_probe: bool) -> Option<Attempt> {
        let backoff_max = self.limits.backoff_max;
        let heads = self.lanes.values().flat_map(Lane::heads);
        let due = heads.filter(|head| is_probe || is_due(head.next_attempt, now, backoff_max));
        let head = due.min_by_key(|head| (head.next_attempt, head.sale_no, head.place))?;
        let attempt = Attempt {
            sale_no: head.sale_no,
            place: head.place,
            event: None,
            reservation: head.reservation,
            began: now,
            is_probe,
        };
        let lane = self.lanes.get_mut(&attempt.sale_no)?;
        lane.in_flight.insert(attempt.reservation);
        self.retries_in_flight += 1;
        Some(attempt)
    }

    /// While the target is down, what was tried for long enough dies without being tried once more.
    fn bury(&mut self, now: Timestamp) {
        let old = |head: &&Parked| {
            head.first_attempt
                .is_some_and(|first| first.plus(self.limits.give_up_after) <= now)
        };
        let heads = self.lanes.values().flat_map(Lane::heads).filter(old);
        let heads: Vec<Parked> = heads.cloned().collect();
        for head in heads {
            if self.dead_count < self.limits.dead_max {
                self.kill(head, now);
            }
        }
    }

    // ---- what becomes of it

    fn fresh_done(&mut self, attempt: &Attempt, fate: Fate, now: Timestamp) {
        let wait = self.backoff(0, self.limits.backoff_max);
        let Some(lane) = self.lanes.get_mut(&attempt.sale_no) else {
            return;
        };
        let mut window = lane.window.iter_mut();
        let Some(fresh) = window.find(|fresh| fresh.event.place == attempt.place) else {
            return;
        };
        match fate {
            Fate::NotTried => fresh.step = Step::Waiting,
            Fate::Delivered | Fate::Missing => fresh.step = Step::Passed,
            Fate::Failed(why) => {
                fresh.step = Step::Passed;
                let parked = Parked {
                    attempts: 1,
                    first_attempt: Some(attempt.began),
                    next_attempt: now.plus(wait),
                    last_error: why,
                    ..Parked::fresh(attempt.sale_no, &fresh.event, now)
                };
                self.changes.push(Change::Park(parked.clone()));
                self.parked_count += usize::from(lane.park(parked));
            }
        }
    }

    fn retry_done(&mut self, attempt: &Attempt, fate: Fate, now: Timestamp) {
        let Some(mut parked) = self.parked(attempt).cloned() else {
            return;
        };
        match fate {
            Fate::Delivered => {
                self.changes
                    .push(Change::Forget(attempt.sale_no, attempt.place));
                self.unpark(&parked);
                return;
            }
            Fate::Missing => {
                parked.last_error = "the store has it no longer".into();
                self.kill(parked, now);
                return;
            }
            Fate::NotTried => parked.next_attempt = now.plus(self.limits.backoff_first),
            Fate::Failed(why) => {
                let first = *parked.first_attempt.get_or_insert(attempt.began);
                parked.last_error = why;
                let end = first.plus(self.limits.give_up_after);
                parked.attempts = parked.attempts.saturating_add(1);
                if end <= now && self.dead_count < self.limits.dead_max {
                    self.kill(parked, now);
                    return;
                }
                let wait = self.backoff(parked.attempts - 1, self.limits.backoff_max);
                let next = now.plus(wait);
                // The last attempt is made when the time is up, not up to an hour later.
                parked.next_attempt = if now < end { next.min(end) } else { next };
            }
        }
        self.changes.push(Change::Park(parked.clone()));
        if let Some(lane) = self.lanes.get_mut(&attempt.sale_no) {
            lane.park(parked);
        }
    }

    fn kill(&mut self, parked: Parked, now: Timestamp) {
        self.unpark(&parked);
        self.dead_count += 1;
        self.changes.push(Change::Die(parked, now));
    }

    fn parked(&self, attempt: &Attempt) -> Option<&Parked> {
        let lane = self.lanes.get(&attempt.sale_no)?;
        lane.parked.get(&attempt.reservation)?.get(&attempt.place)
    }

    fn unpark(&mut self, parked: &Parked) {
        let Some(lane) = self.lanes.get_mut(&parked.sale_no) else {
            return;
        };
        if let Some(queue) = lane.parked.get_mut(&parked.reservation) {
            self.parked_count -= usize::from(queue.remove(&parked.place).is_some());
            if queue.is_empty() {
                lane.parked.remove(&parked.reservation);
            }
        }
    }

    fn is_up(&mut self, now: Timestamp) {
        self.failing.clear();
        if self.down.take().is_none() {
            return;
        }
        // They failed with the target, not by themselves: nothing is gained by waiting on.
        for lane in self.lanes.values_mut() {
            for parked in lane.parked.values_mut().flat_map(BTreeMap::values_mut) {
                parked.next_attempt = parked.next_attempt.min(now);
            }
        }
    }

    fn failed(&mut self, attempt: &Attempt, now: Timestamp) {
        if self.failing.len() < self.limits.down_after {
            self.failing.insert((attempt.sale_no, attempt.place));
        }
        if self.failing.len() < self.limits.down_after {
            return;
        }
        let probes = match &self.down {
            None => 0,
            Some(down) => down.probes.saturating_add(u32::from(attempt.is_probe)),
        };
        let next_probe = now.plus(self.backoff(probes, self.limits.probe_max));
        self.down = Some(Down { probes, next_probe });
    }

    /// The cursor passes what is done with.
    fn advance(&mut self, sale_no: SaleNo) {
        let Some(lane) = self.lanes.get_mut(&sale_no) else {
            return;
        };
        let from = lane.cursor;
        while let Some(fresh) = lane.window.pop_front_if(|fresh| fresh.step == Step::Passed) {
            lane.cursor = fresh.event.place;
            self.window_count -= 1;
        }
        if lane.cursor > from {
            self.changes.push(Change::Cursor(sale_no, lane.cursor));
        }
    }

    /// Doubling, with a fifth more or less, so that what failed together is not tried together again.
    fn backoff(&mut self, doublings: u32, max: Duration) -> Duration {
        let first = self.limits.backoff_first;
        let whole = first.saturating_mul(1 << doublings.min(20)).min(max);
        whole.mul_f64(0.8 + 0.4 * self.fraction()).min(max)
    }

    /// 0 up to 1, by splitmix64.
    fn fraction(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Lane {
    /// `true` if it was not there.
    fn park(&mut self, parked: Parked) -> bool {
        let queue = self.parked.entry(parked.reservation).or_default();
        queue.insert(parked.place, parked).is_none()
    }

    /// The first parked event of each reservation that has nothing in flight.
    fn heads(&self) -> impl Iterator<Item = &Parked> {
        let free = self
            .parked
            .iter()
            .filter(|(reservation, _)| !self.in_flight.contains(*reservation));
        free.filter_map(|(_, queue)| queue.values().next())
    }

    /// The first waiting event before which nothing of its reservation is unfinished; it is in flight from here on.
    fn first_free(&mut self) -> Option<Arc<OutEvent>> {
        let mut ahead = HashSet::new();
        for fresh in &mut self.window {
            let reservation = fresh.event.reservation;
            let is_first = fresh.step != Step::Passed && ahead.insert(reservation);
            let is_free = is_first
                && fresh.step == Step::Waiting
                && !self.in_flight.contains(&reservation)
                && !self.parked.contains_key(&reservation);
            if is_free {
                fresh.step = Step::InFlight;
                return Some(Arc::clone(&fresh.event));
            }
        }
        None
    }
}

impl Parked {
    /// Not tried yet.
    fn fresh(sale_no: SaleNo, event: &OutEvent, now: Timestamp) -> Self {
        Self {
            sale_no,
            place: event.place,
            reservation: event.reservation,
            at: event.at,
            attempts: 0,
            first_attempt: None,
            next_attempt: now,
            last_error: String::new(),
        }
    }
}

/// A time further off than anything is put off says that the clock was set back.
fn is_due(at: Timestamp, now: Timestamp, wait_max: Duration) -> bool {
    at <= now || at > now.plus(wait_max)
}

#[cfg(test)]
mod tests;
