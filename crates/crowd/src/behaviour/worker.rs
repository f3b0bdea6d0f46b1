//! One connection of the crowd and the people who share it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{Progress, SaleParams};
use crate::api;
use crate::client::{Client, Response, SendError, Timeouts};
use crate::driver::Report;
use crate::log::{Answer, Attempt, ClientLog, Line};
use crate::random::Random;
use crate::token::{Minter, now_s};

/// Between two looks of somebody who waits for what comes back.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(600), Duration::from_millis(1_400));
/// Between an answer and a second press of the button.
const PRESS_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(300));
/// After a problem that passes, where the server names no time.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// How often one person is sent away by overload or an unknown fate before they leave.
const TRIES_MAX: u32 = 50;
/// The longest sleep before the worker looks whether everything is sold.
const NAP: Duration = Duration::from_millis(100);

/// What one person is like. Follows from the seed.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub(super) number: u32,
    pub(super) buyer: String,
    pub(super) lines: Vec<Line>,
    /// From the opening; before it for those who come early.
    pub(super) arrives_ms: i64,
    pub(super) comes_twice: bool,
    pub(super) presses_twice: bool,
    pub(super) pays: bool,
    pub(super) waits: bool,
    random: Random,
}

impl Person {
    pub(super) fn new(params: &SaleParams, number: u32) -> Self {
        let mut random = Random::of(params.seed, u64::from(number));
        let mut unit = random.below(params.stock_units());
        let mut wanted = &params.items[0];
        for plan in &params.items {
            if unit < u64::from(plan.stock_units) {
                wanted = plan;
                break;
            }
            unit -= u64::from(plan.stock_units);
        }
        let habits = params.habits;
        let arrives_ms = if random.percent(habits.early_percent) {
            -(random.below(params.opens_in.as_millis() as u64 / 2 + 1) as i64)
        } else {
            // The third power brings half of them within the first eighth of the rush.
            let part = random.unit().powi(3);
            (part * params.rush.as_millis() as f64) as i64
        };
        let units = if wanted.units_wanted_max > 1 && random.percent(40) {
            1 + random.below(u64::from(wanted.units_wanted_max)) as u32
        } else {
            1
        };
        Self {
            number,
            buyer: format!("buyer-{number}"),
            lines: vec![(wanted.item.clone(), units)],
            arrives_ms,
            comes_twice: random.percent(habits.twice_percent),
            presses_twice: random.percent(habits.retry_percent),
            pays: !random.percent(habits.unpaid_percent),
            waits: random.percent(habits.waiting_percent),
            random,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// Asks with the key of this number.
    Ask { key_number: u32, tries: u32 },
    /// The storefront tells the payment.
    Pay { reservation: String, tries: u32 },
}

struct Planned {
    step: Step,
    due: Instant,
    person: usize,
}

/// What one connection did.
pub(super) struct Done {
    pub(super) report: Report,
    /// Calls by the second since the opening.
    pub(super) per_second: BTreeMap<u64, u64>,
    pub(super) last_paid_at: Option<Instant>,
    pub(super) unpaid: Vec<String>,
    /// People who won at least one reservation.
    pub(super) buyers_served: u64,
}

pub(super) struct Worker {
    params: Arc<SaleParams>,
    opens_at: Instant,
    ends_at: Instant,
    progress: Arc<Progress>,
    log: Arc<ClientLog>,
    client: Client,
    minter: Minter,
    people: Vec<Person>,
    waited: HashSet<usize>,
    won: HashSet<(usize, u32)>,
    arrived: HashSet<usize>,
    steps: BinaryHeap<Reverse<(Instant, usize, Step)>>,
    unpaid: HashSet<String>,
    done: Done,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        params: Arc<SaleParams>,
        opens_at: Instant,
        progress: Arc<Progress>,
        log: Arc<ClientLog>,
    ) -> Self {
        let people: Vec<_> = (index..params.buyers as usize)
            .step_by(params.connections.max(1))
            .map(|number| Person::new(&params, number as u32))
            .collect();
        let mut worker = Self {
            opens_at,
            ends_at: Instant::now() + params.bound,
            client: Client::new(params.addresses.public, Timeouts::default()),
            minter: params.keys.minter(),
            steps: BinaryHeap::with_capacity(people.len()),
            waited: HashSet::new(),
            won: HashSet::new(),
            arrived: HashSet::new(),
            unpaid: HashSet::new(),
            done: Done {
                report: Report::new(),
                per_second: BTreeMap::new(),
                last_paid_at: None,
                unpaid: Vec::new(),
                buyers_served: 0,
            },
            people,
            params,
            progress,
            log,
        };
        for person in 0..worker.people.len() {
            let ms = worker.people[person].arrives_ms;
            let distance = Duration::from_millis(ms.unsigned_abs());
            let due = if ms < 0 {
                opens_at.checked_sub(distance)
            } else {
                opens_at.checked_add(distance)
            };
            let ask = Step::Ask {
                key_number: 1,
                tries: 0,
            };
            worker.plan(person, due.unwrap_or(opens_at), ask);
        }
        worker
    }

    pub(super) async fn run(mut self) -> Done {
        while let Some(planned) = self.next().await {
            let now = Instant::now();
            if now >= self.opens_at {
                self.progress.is_open.store(true, Relaxed);
                let second = (now - self.opens_at).as_secs();
                *self.done.per_second.entry(second).or_default() += 1;
            }
            match planned.step {
                Step::Ask { key_number, tries } => {
                    self.ask(planned.person, planned.due, key_number, tries)
                        .await;
                }
                Step::Pay { reservation, tries } => {
                    self.pay(planned.person, planned.due, reservation, tries)
                        .await
                }
            }
        }
        self.done.unpaid = self.unpaid.into_iter().collect();
        let served: HashSet<usize> = self.won.iter().map(|(person, _)| *person).collect();
        self.done.buyers_served = served.len() as u64;
        self.done
    }

    /// The next step when it is due; `None` once all is paid, nobody has a plan or time is up.
    async fn next(&mut self) -> Option<Planned> {
        loop {
            let is_sold = self.progress.paid.load(Relaxed) >= self.params.stock_units();
            let now = Instant::now();
            let Reverse((due, ..)) = self.steps.peek()?;
            if is_sold || now >= self.ends_at {
                return None;
            }
            if *due <= now {
                let Reverse((due, person, step)) = self.steps.pop()?;
                return Some(Planned { step, due, person });
            }
            tokio::time::sleep_until((*due).min(now + NAP).into()).await;
        }
    }

    fn plan(&mut self, person: usize, due: Instant, step: Step) {
        self.steps.push(Reverse((due, person, step)));
    }

    async fn ask(&mut self, at: usize, due: Instant, key_number: u32, tries: u32) {
        if self.arrived.insert(at) {
            self.progress.buyers.fetch_add(1, Relaxed);
        }
        self.progress.asked.fetch_add(1, Relaxed);
        let person = &self.people[at];
        let key = format!("{}-key-{key_number}", person.buyer);
        let token = self.minter.mint(&person.buyer, now_s() + 3600);
        let request = api::purchase(&self.params.sale_id, &token, &key, &person.lines);
        let number = self.log.sent(Attempt::Purchase {
            sale: self.params.sale_id.clone(),
            buyer: person.buyer.clone(),
            key,
            lines: person.lines.clone(),
        });
        let result = self.client.send(&request).await;
        self.done.report.count(&result, due.elapsed());
        let answer = Answer::of(&result);
        self.log.answered(number, answer.clone());
        let again = Step::Ask {
            key_number,
            tries: tries + 1,
        };
        match answer {
            Answer::Yes { reservation, .. } => {
                let is_replay = result.as_ref().is_ok_and(Response::is_replay);
                self.told_yes(at, key_number, reservation, is_replay);
            }
            Answer::Unknown { .. } => {
                self.progress.unknown.fetch_add(1, Relaxed);
                self.try_again(at, again, TRY_AGAIN);
            }
            Answer::NotSent => self.try_again(at, again, TRY_AGAIN),
            Answer::No { outcome, .. } => {
                self.progress.refused.fetch_add(1, Relaxed);
                self.told_no(at, key_number, &outcome, &result, again);
            }
        }
    }

    /// Units of one purchase of this person.
    fn units_of(&self, at: usize) -> u64 {
        let lines = self.people[at].lines.iter();
        lines.map(|(_, units)| u64::from(*units)).sum()
    }

    fn told_yes(&mut self, at: usize, key_number: u32, reservation: String, is_replay: bool) {
        let is_new = self.won.insert((at, key_number));
        if is_replay {
            self.progress.replayed.fetch_add(1, Relaxed);
        }
        if !is_new {
            return;
        }
        // A replay that is new to us is the answer that was lost on the way.
        let units = self.units_of(at);
        self.progress.reserved.fetch_add(units, Relaxed);
        let has_waited = self.waited.contains(&at);
        if has_waited {
            self.progress.came_back.fetch_add(units, Relaxed);
        }
        let window = self.params.payment_window;
        let person = &mut self.people[at];
        let now = Instant::now();
        let mut next = Vec::new();
        if person.pays || has_waited {
            let think = person.random.between(window / 20, window / 3);
            let pay = Step::Pay {
                reservation: reservation.clone(),
                tries: 0,
            };
            next.push((now + think, pay));
        }
        if key_number == 1 {
            for (does, key_number) in [(person.presses_twice, 1), (person.comes_twice, 2)] {
                if does {
                    let later = person.random.between(PRESS_AGAIN.0, PRESS_AGAIN.1);
                    next.push((
                        now + later,
                        Step::Ask {
                            key_number,
                            tries: 0,
                        },
                    ));
                }
            }
        }
        self.unpaid.insert(reservation);
        for (due, step) in next {
            self.plan(at, due, step);
        }
    }

    fn told_no(
        &mut self,
        at: usize,
        key_number: u32,
        outcome: &str,
        result: &Result<Response, SendError>,
        again: Step,
    ) {
        let response = result.as_ref().ok();
        match outcome {
            "sold_out" if response.is_some_and(|response| response.field_is("final", "true")) => {}
            "sold_out" if self.people[at].waits && key_number == 1 => {
                self.waited.insert(at);
                let later = self.people[at].random.between(LOOK_AGAIN.0, LOOK_AGAIN.1);
                // Whoever waits is not worn out by looking.
                let look = Step::Ask {
                    key_number,
                    tries: 0,
                };
                self.plan(at, Instant::now() + later, look);
            }
            "sale_not_started" => {
                let later = self.people[at]
                    .random
                    .between(Duration::ZERO, PRESS_AGAIN.1);
                let due = self.opens_at.max(Instant::now()) + later;
                self.plan(at, due, again);
            }
            "overloaded" | "rate_limited" | "store_unavailable" | "in_flight" => {
                let after = response.and_then(Response::retry_after);
                self.try_again(at, again, after.unwrap_or(TRY_AGAIN));
            }
            _ => {}
        }
    }

    fn try_again(&mut self, at: usize, step: Step, after: Duration) {
        let tries = match &step {
            Step::Ask { tries, .. } | Step::Pay { tries, .. } => *tries,
        };
        if tries < TRIES_MAX {
            let later = self.people[at].random.between(after, after * 2);
            self.plan(at, Instant::now() + later, step);
        }
    }

    async fn pay(&mut self, at: usize, due: Instant, reservation: String, tries: u32) {
        let payment_ref = format!("pay-{}-{reservation}", self.people[at].number);
        let request = api::confirm(&reservation, &self.params.keys.storefront_key, &payment_ref);
        let number = self.log.sent(Attempt::Confirm {
            reservation: reservation.clone(),
            payment_ref,
        });
        let result = self.client.send(&request).await;
        self.done.report.count(&result, due.elapsed());
        let answer = Answer::of(&result);
        self.log.answered(number, answer.clone());
        let again = |reservation| Step::Pay {
            reservation,
            tries: tries + 1,
        };
        match answer {
            Answer::Yes { .. } => {
                if self.unpaid.remove(&reservation) {
                    self.progress.paid.fetch_add(self.units_of(at), Relaxed);
                    self.done.last_paid_at = Some(Instant::now());
                }
            }
            Answer::Unknown { .. } | Answer::NotSent => {
                self.try_again(at, again(reservation), TRY_AGAIN);
            }
            Answer::No { status, .. } if status >= 500 => {
                self.try_again(at, again(reservation), TRY_AGAIN);
            }
            Answer::No { .. } => {}
        }
    }
}
