//! The schedule against a target that fails as it likes, crashes included, with time as a number.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn event(sequence: u64, reservation: Option<u64>) -> OutEvent {
    let place = EventPlace {
        generation: 1,
        sequence,
    };
    OutEvent {
        id: String::new(),
        place,
        reservation: reservation.map(Serial),
        kind: "reservation.reserved".into(),
        at: Timestamp(0),
        body: String::new(),
    }
}

fn small() -> Limits {
    Limits {
        parked_max: 12,
        window_max: 16,
        sale_window_max: 10,
        ..Limits::default()
    }
}

/// What a file would hold.
#[derive(Default, Clone)]
struct Durable {
    cursors: BTreeMap<SaleNo, EventPlace>,
    parked: BTreeMap<(SaleNo, EventPlace), Parked>,
    dead: BTreeMap<(SaleNo, EventPlace), Parked>,
}

impl Durable {
    fn apply(&mut self, changes: Vec<Change>, now: Timestamp, limits: Limits) {
        for change in changes {
            match change {
                Change::Cursor(sale_no, place) => {
                    let old = self.cursors.insert(sale_no, place);
                    assert!(old < Some(place), "a cursor goes forward");
                }
                Change::Park(parked) => {
                    let key = (parked.sale_no, parked.place);
                    self.dead.remove(&key);
                    self.parked.insert(key, parked);
                }
                Change::Die(parked, at) => {
                    let first = parked.first_attempt.expect("what dies was tried");
                    assert!(first.plus(limits.give_up_after) <= at && at <= now);
                    let key = (parked.sale_no, parked.place);
                    assert!(self.parked.remove(&key).is_some());
                    self.dead.insert(key, parked);
                }
                Change::Forget(sale_no, place) => {
                    assert!(self.parked.remove(&(sale_no, place)).is_some());
                }
            }
        }
        assert!(self.parked.len() <= limits.parked_max);
    }

    fn resume(&self, limits: Limits, sales: u32) -> Schedule {
        let mut schedule = Schedule::new(limits, self.dead.len(), 7);
        for sale_no in 1..=sales {
            let cursor = self.cursors.get(&SaleNo(sale_no));
            schedule.resume(SaleNo(sale_no), cursor.copied().unwrap_or_default());
        }
        for parked in self.parked.values() {
            schedule.resume_parked(parked.clone());
        }
        for (sale_no, place) in self.dead.keys() {
            schedule.resume_dead(*sale_no, *place);
        }
        schedule
    }
}

/// A shop: sales with events, one schedule, a file, a target that remembers.
struct World {
    limits: Limits,
    events: Vec<Vec<OutEvent>>,
    schedule: Schedule,
    durable: Durable,
    in_flight: Vec<Attempt>,
    now: Timestamp,
    /// Per (sale, reservation) what was acknowledged, in order of acknowledgement.
    taken: BTreeMap<(SaleNo, Option<Serial>), Vec<EventPlace>>,
}

impl World {
    fn new(limits: Limits, reservations: &[Vec<Option<u64>>]) -> Self {
        let of_sale = |list: &Vec<Option<u64>>| -> Vec<OutEvent> {
            let numbered = list.iter().enumerate();
            numbered
                .map(|(index, of)| event(index as u64 * 3, *of))
                .collect()
        };
        let durable = Durable::default();
        Self {
            limits,
            events: reservations.iter().map(of_sale).collect(),
            schedule: durable.resume(limits, reservations.len() as u32),
            durable,
            in_flight: vec![],
            now: Timestamp(1_000_000),
            taken: BTreeMap::new(),
        }
    }

    fn write(&mut self) {
        let changes = self.schedule.take_changes();
        self.durable.apply(changes, self.now, self.limits);
    }

    fn start(&mut self) {
        for (index, events) in self.events.iter().enumerate() {
            let sale_no = SaleNo(index as u32 + 1);
            let (after, room) = (self.schedule.read_to(sale_no), self.schedule.room(sale_no));
            let is_first = after == EventPlace::default();
            let new = events
                .iter()
                .filter(|event| is_first || event.place > after);
            let new: Vec<_> = new.take(room).cloned().map(|event| (event, true)).collect();
            self.schedule.offer(sale_no, new.into_iter());
        }
        self.write();
        while let Some(attempt) = self.schedule.next(self.now) {
            let is_same = |other: &Attempt| {
                (other.sale_no, other.reservation) == (attempt.sale_no, attempt.reservation)
            };
            assert!(
                !self.in_flight.iter().any(is_same),
                "two of one reservation"
            );
            self.in_flight.push(attempt);
            assert!(self.in_flight.len() <= self.limits.in_flight_max);
            let fresh = self
                .in_flight
                .iter()
                .filter(|attempt| attempt.event.is_some());
            assert!(self.durable.parked.len() <= self.limits.parked_max);
            assert!(fresh.count() + self.schedule.parked_count <= self.limits.parked_max);
        }
        self.write();
    }

    fn end(&mut self, index: usize, is_delivered: bool) {
        let attempt = self.in_flight.swap_remove(index % self.in_flight.len());
        let fate = if is_delivered {
            let key = (attempt.sale_no, attempt.reservation);
            self.taken.entry(key).or_default().push(attempt.place);
            Fate::Delivered
        } else {
            Fate::Failed("no".into())
        };
        self.schedule.done(&attempt, fate, self.now);
        self.write();
    }

    fn crash(&mut self) {
        self.in_flight.clear();
        self.schedule = self.durable.resume(self.limits, self.events.len() as u32);
    }

    /// The target is well from here on, until nothing is left to do.
    fn heal(&mut self) {
        for _ in 0..10_000 {
            self.start();
            if self.in_flight.is_empty() {
                let counts = self.schedule.counts();
                if counts.waiting == 0 && counts.parked == 0 {
                    return;
                }
                self.now = self.now.plus(Duration::from_secs(600));
            } else {
                self.end(0, true);
            }
        }
        panic!("it never came to an end: {:?}", self.schedule.counts());
    }

    fn check_end(&self) {
        for (index, events) in self.events.iter().enumerate() {
            let sale_no = SaleNo(index as u32 + 1);
            let mut wanted: BTreeMap<Option<Serial>, BTreeSet<EventPlace>> = BTreeMap::new();
            for event in events {
                wanted
                    .entry(event.reservation)
                    .or_default()
                    .insert(event.place);
            }
            for (reservation, places) in wanted {
                let taken = self.taken.get(&(sale_no, reservation));
                let taken = taken.cloned().unwrap_or_default();
                let mut first_time = Vec::new();
                for place in &taken {
                    if !first_time.contains(place) {
                        first_time.push(*place);
                    }
                }
                assert!(first_time.is_sorted(), "{reservation:?}: {taken:?}");
                let mut all: BTreeSet<_> = taken.into_iter().collect();
                let dead = self.durable.dead.keys().filter(|(of, _)| *of == sale_no);
                all.extend(
                    dead.map(|(_, place)| *place)
                        .filter(|place| places.contains(place)),
                );
                assert_eq!(all, places, "every event was taken or is a dead letter");
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Start,
    End(usize, bool),
    Pass(u64),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Start),
        8 => (any::<usize>(), prop::bool::weighted(0.4)).prop_map(|(index, yes)| Step::End(index, yes)),
        3 => prop_oneof![Just(500_u64), Just(5_000), Just(4_000_000), Just(30_000_000)].prop_map(Step::Pass),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_skipped_or_out_of_order(
        reservations in prop::collection::vec(
            prop::collection::vec(prop::option::weighted(0.9, 1..6_u64), 1..40), 1..4),
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let mut world = World::new(small(), &reservations);
        for step in steps {
            match step {
                Step::Start => world.start(),
                Step::End(..) if world.in_flight.is_empty() => world.start(),
                Step::End(index, is_delivered) => world.end(index, is_delivered),
                Step::Pass(ms) => world.now = world.now.plus(Duration::from_millis(ms)),
                Step::Crash => world.crash(),
            }
        }
        world.crash();
        world.heal();
        world.check_end();
    }
}

#[test]
fn a_poison_event_holds_up_only_its_reservation() {
    // Reservation 1 is poison; the others come after it.
    let list: Vec<_> = (0..60)
        .map(|index| Some(if index % 10 == 0 { 1 } else { 2 + index }))
        .collect();
    let mut world = World::new(small(), &[list]);
    for _ in 0..400 {
        world.start();
        match world.in_flight.first().map(|attempt| attempt.reservation) {
            Some(reservation) => world.end(0, reservation != Some(Serial(1))),
            None => break,
        }
    }
    assert_eq!(world.taken.len(), 54, "all others are there");
    assert_eq!(world.schedule.counts().parked, 6);
    assert!(
        !world.schedule.counts().is_down,
        "one event alone says nothing about the target"
    );
    world.heal();
    world.check_end();
}

#[test]
fn what_fails_for_a_day_is_a_dead_letter_after_some_forty_attempts() {
    let mut world = World::new(Limits::default(), &[vec![Some(1), Some(1)]]);
    let began = world.now;
    let mut attempts = 0;
    let mut waits = Vec::new();
    while world.durable.dead.is_empty() {
        world.start();
        if world.in_flight.is_empty() {
            world.now = world.now.plus(Duration::from_millis(100));
            continue;
        }
        waits.push(world.now);
        attempts += 1;
        world.end(0, false);
    }
    assert!(world.now >= began.plus(24 * HOUR) && world.now <= began.plus(25 * HOUR));
    // 1, 2, 4 … 2,048 s are a bit over an hour; then one each hour.
    assert!((32..=50).contains(&attempts), "{attempts}");
    for pair in waits.windows(2) {
        let wait = pair[0].until(pair[1]);
        assert!(wait <= HOUR + Duration::from_millis(200), "{wait:?}");
    }
    let first = waits[0].until(waits[1]);
    assert!((800..=1_300).contains(&first.as_millis()), "{first:?}");
    // What waited behind it is tried now, and has a day of its own.
    world.start();
    assert_eq!(world.in_flight.len(), 1);
    world.end(0, true);
    assert_eq!(
        (world.durable.parked.len(), world.durable.dead.len()),
        (0, 1)
    );
}

#[test]
fn a_target_that_is_down_is_probed_and_parks_little() {
    let list: Vec<_> = (0..5_000).map(|index| Some(index + 1)).collect();
    let mut world = World::new(Limits::default(), &[list]);
    let mut attempts = 0;
    let end = world.now.plus(6 * HOUR);
    while world.now < end {
        world.start();
        assert!(attempts < 16 || world.in_flight.len() <= 1, "one at a time");
        while !world.in_flight.is_empty() {
            attempts += 1;
            world.end(0, false);
        }
        world.now = world.now.plus(Duration::from_millis(500));
    }
    let counts = world.schedule.counts();
    assert!(counts.is_down && counts.parked < 200, "{counts:?}");
    assert!(
        (300..=600).contains(&attempts),
        "about one a minute: {attempts}"
    );
    // It is back: everything goes out without anybody waiting for an hour.
    let back = world.now;
    while world.schedule.counts().parked > 0 || world.taken.len() < 5_000 {
        world.start();
        if world.in_flight.is_empty() {
            world.now = world.now.plus(Duration::from_secs(1));
            assert!(back.until(world.now) < Duration::from_secs(90));
        } else {
            world.end(0, true);
        }
    }
    world.check_end();
}

#[test]
fn where_no_more_may_be_parked_nothing_new_starts() {
    let list: Vec<_> = (0..100).map(|index| Some(index + 1)).collect();
    // Every other one is poison, so the target is never down.
    let mut world = World::new(small(), &[list]);
    for _ in 0..1_000 {
        world.start();
        let Some(attempt) = world.in_flight.first() else {
            break;
        };
        let is_good = attempt.reservation.is_some_and(|serial| serial.0 % 2 == 0);
        world.end(0, is_good);
    }
    assert_eq!(world.schedule.counts().parked, 12);
    world.heal();
    world.check_end();
}

#[test]
fn redelivery_goes_through_the_order_of_its_reservation() {
    let mut world = World::new(small(), &[vec![Some(1), Some(1), Some(2)]]);
    world.heal();
    let first = world.events[0][0].clone();
    assert!(
        world
            .schedule
            .redeliver(&first, SaleNo(1), false, world.now)
    );
    world.start();
    assert_eq!(world.in_flight.len(), 1);
    world.end(0, false);
    world.heal();
    let taken = &world.taken[&(SaleNo(1), Some(Serial(1)))];
    assert_eq!(taken.last(), Some(&first.place));
    assert_eq!(taken.len(), 3);
    assert!(
        !world
            .schedule
            .redeliver(&first, SaleNo(9), false, world.now)
    );
}

#[test]
fn a_clock_that_was_set_back_delays_nothing_for_long() {
    let mut world = World::new(small(), &[vec![Some(1)]]);
    world.start();
    world.end(0, false);
    world.now = Timestamp(world.now.0 - 100 * 3_600_000);
    world.start();
    assert_eq!(world.in_flight.len(), 1);
}

#[test]
fn what_was_parked_or_given_up_beyond_the_cursor_is_not_tried_anew_after_a_crash() {
    let mut world = World::new(small(), &[vec![Some(1), Some(2), Some(3)]]);
    world.start();
    assert_eq!(world.in_flight.len(), 3);
    // The first stays in flight, so the cursor stays before all of them.
    let of = |world: &World, serial| {
        let mut all = world.in_flight.iter();
        all.position(|attempt| attempt.reservation == Some(Serial(serial)))
    };
    let second = of(&world, 2).unwrap();
    world.end(second, false);
    while world.durable.dead.is_empty() {
        world.now = world.now.plus(HOUR);
        world.start();
        if let Some(second) = of(&world, 2) {
            world.end(second, false);
        }
    }
    let third = of(&world, 3).unwrap();
    world.end(third, false);
    assert!(world.durable.cursors.is_empty());
    world.crash();
    world.start();
    let started: Vec<_> = world
        .in_flight
        .iter()
        .map(|attempt| attempt.reservation)
        .collect();
    assert_eq!(
        started,
        [Some(Serial(1))],
        "the second is dead, the third waits for its time"
    );
    assert!(
        world
            .durable
            .parked
            .values()
            .all(|parked| parked.attempts == 1)
    );
}
