//! The Redis store against the plainest model of a sale: random histories, good changes and bad ones, verdict by verdict
//! and field by field. A failure prints its seed: `SEED=n cargo nextest run -p flash-store --test redis_model`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod common;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use common::model::{Model, Reserved};
use common::random::Random;
use common::redis::*;
use common::*;
use dev_faultproxy::Fault;
use dev_servers::{AppendFsync, RedisOptions};
use flash_store::*;
use flash_types::*;

/// The clock of a sale whose time is advanced by the test lies ahead of the server's.
const STEERED_FROM_MS: i64 = 2_000_000_000_000;
const PRICE_MAX: i64 = bounds::PRICE_MINOR_MAX;

/// A server that keeps what it has in memory; serials are close to the greatest there can be.
fn rig() -> Rig {
    let rig = Rig::with(RedisOptions::default().appendfsync(AppendFsync::No));
    rig.ask(&["SET", "{stampede}:start", "1048000"]);
    rig
}

/// One sale, and the one who sends it changes.
struct History<'a> {
    rig: &'a Rig,
    node: &'a Node,
    random: Random,
    sale_no: u32,
    /// The time that the test gives it; `None`: it goes by the server's clock.
    clock_ms: Option<i64>,
    /// Whether its freezes are undone.
    accepts: bool,
    model: Option<Model>,
    /// The same with the changes of a batch that is being made.
    foreseen: Option<Model>,
    /// What became of what, for all histories.
    met: &'a RefCell<BTreeSet<String>>,
}

impl<'a> History<'a> {
    fn new(rig: &'a Rig, node: &'a Node, sale_no: u32, met: &'a RefCell<BTreeSet<String>>) -> Self {
        let mut random = Random((seed() << 32) + u64::from(sale_no));
        Self {
            rig,
            node,
            sale_no,
            clock_ms: random.percent(85).then_some(STEERED_FROM_MS),
            random,
            accepts: true,
            model: None,
            foreseen: None,
            met,
        }
    }

    /// Runs a step; says to which history a failure belongs.
    fn step(&mut self, step: impl FnOnce(&mut Self)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| step(self))) {
            eprintln!("failed in sale s-{} with SEED={}", self.sale_no, seed());
            resume_unwind(panic);
        }
    }

    /// Sends one batch and holds the answer against the model's.
    fn batch(&mut self) {
        let batch = self.make_batch();
        let mut model = self.model.take().unwrap_or_else(|| {
            let Change::PutDraft { definition } = &batch.entries[0].change else {
                panic!("a sale begins with its draft");
            };
            Model::new(self.sale_no, batch.entries[0].serial.0, definition)
        });
        if model.refuses_whole(&batch) {
            let verdict = self.node.commit_batch(&batch);
            let is_frozen = matches!(verdict, Err(CommitError::Frozen { .. }));
            assert!(is_frozen, "{verdict:?}");
            self.model = Some(model);
            if self.accepts && self.random.percent(50) {
                self.accept();
            }
            return;
        }
        let clock_ms = self.advance(&model);
        let committed = self.node.must_commit(&batch);
        let at_ms = committed.at.unwrap().0;
        assert!(clock_ms.is_none_or(|clock_ms| clock_ms == at_ms));
        let refused = model.commit(&batch, at_ms);
        assert_eq!(committed.refused, refused, "{}", told(&batch));
        self.note_what_was_met(&batch, &refused);
        self.model = Some(model);
    }

    fn accept(&mut self) {
        let model = self.model.as_mut().unwrap();
        let serials = [self.node.serial(), self.node.serial()];
        let note = note("taken as it is");
        let sale_no = SaleNo(self.sale_no);
        let loss = AcceptedLoss {
            serials,
            note: &note,
            lost: 3,
            ev: self.rig.meta(self.sale_no, "ev").parse().unwrap(),
            is_rest_whole: true,
        };
        let accepted = self.node.run(self.node.store.accept(sale_no, &loss));
        assert_eq!(accepted.unwrap(), model.thaws_to.unwrap());
        let at_ms = self.rig.meta(self.sale_no, "clock_ms").parse().unwrap();
        assert!(at_ms >= model.clock_ms, "the clock goes on");
        model.accept(serials, &note, at_ms);
        self.met.borrow_mut().insert("accepted".into());
    }

    /// Time goes on by itself, or by a step that may end on the very millisecond of an expiry. A sale that is not there has
    /// no clock.
    fn advance(&mut self, model: &Model) -> Option<i64> {
        if model.seq == 0 && model.events.is_empty() {
            return None;
        }
        let clock_ms = self.clock_ms.as_mut()?;
        *clock_ms += self.random.pick(&[0, 0, 1, 199, 200, 500, 1_000]);
        let meta = format!("{{s:s-{}}}:meta", self.sale_no);
        self.rig
            .ask(&["HSET", &meta, "clock_ms", &clock_ms.to_string()]);
        Some(*clock_ms)
    }

    fn check(&self) {
        let model = self.model.as_ref().unwrap();
        model.must_lie_in(&self.rig.raw(self.sale_no));
        let content = || self.node.run(self.node.store.content(SaleNo(self.sale_no)));
        // A fault that still waits bites a read.
        let content = content().or_else(|_| content()).or_else(|_| content());
        model.must_be_read_as(&content.unwrap().unwrap());
    }

    /// Reads of single rows, as a retired sale has them.
    fn check_reads(&self) {
        let (node, sale_no) = (self.node, SaleNo(self.sale_no));
        let model = self.model.as_ref().unwrap();
        for row in model.rows() {
            let read = node.run(node.store.reservation(sale_no, row.serial));
            assert_eq!(read.unwrap().as_ref(), Some(&row));
            let by_key = node.store.reservation_by_key(sale_no, row.buyer, row.key);
            assert_eq!(node.run(by_key).unwrap().as_ref(), Some(&row));
            let of = node.run(node.store.decisions_of(sale_no, row.serial));
            assert_eq!(of.unwrap(), model.decision_rows_of(row.serial.0));
        }
        for row in model.decision_rows() {
            if let Ok(payment_ref) = PaymentRef::parse(&row.decision.reference) {
                let decided = node.run(node.store.payment_decision(sale_no, payment_ref));
                let decided = decided.unwrap();
                let is_payment = row.decision.reference.starts_with("p-");
                assert_eq!(decided.as_ref(), Some(&row).filter(|_| is_payment));
            }
        }
        let page = Page {
            after: Serial(0),
            limit: 1_000,
        };
        let rows = node
            .store
            .reservations(sale_no, ReservationFilter::default(), page);
        assert_eq!(node.run(rows).unwrap(), model.rows());
        let items = node.run(node.store.items(sale_no)).unwrap();
        for item in items {
            assert_eq!(item.units, model.units(item.index.0));
        }
        self.check_events();
    }

    /// What is told, page by page, each with its reservation as it stood.
    fn check_events(&self) {
        let (node, sale_no) = (self.node, SaleNo(self.sale_no));
        let model = self.model.as_ref().unwrap();
        let (mut after, mut told) = (EventPlace::default(), Vec::new());
        for limit in [1, 2, 7].into_iter().cycle() {
            let page = node.store.events(EventRange::OfSale(sale_no, after), limit);
            let page = node.run(page).unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = last.place;
            told.extend(page);
        }
        assert_eq!(told.len(), model.told.len());
        for (there, wanted) in told.into_iter().zip(&model.told) {
            // The facts are held against the books elsewhere; what was restocked is not told.
            let plain = |mut row: EventRow| {
                row.data = None;
                let reservation = row.reservation.iter_mut();
                for line in reservation.flat_map(|row| &mut row.lines) {
                    line.restocked_units = 0;
                }
                row
            };
            assert_eq!(plain(there), plain(wanted.clone()));
        }
    }

    fn note_what_was_met(&self, batch: &Batch, refused: &[(usize, EntryRefusal)]) {
        let mut met = self.met.borrow_mut();
        for (index, entry) in batch.entries.iter().enumerate() {
            let refusal = refused.iter().find(|(at, _)| *at == index);
            let verdict = match refusal.map(|(_, why)| why) {
                None => "ok".to_owned(),
                Some(EntryRefusal::KeyKnown(_)) => "known".into(),
                Some(EntryRefusal::SoldOut(0)) => "sold out".into(),
                Some(EntryRefusal::SoldOut(_)) => "short".into(),
                Some(EntryRefusal::Limit) => "limit".into(),
                Some(EntryRefusal::Early) => "early".into(),
                Some(EntryRefusal::State(state)) => state.as_str().into(),
                Some(EntryRefusal::Stale(what)) => format!("stale {what}"),
            };
            met.insert(format!("{}: {verdict}", name_of(&entry.change)));
        }
    }

    // ---- what is sent

    /// Each change is chosen after those before it, as far as the model can tell what becomes of them.
    fn make_batch(&mut self) -> Batch {
        let mut batch = self.node.batch(self.sale_no, Vec::new());
        let count = 1 + self.random.below(9);
        self.foreseen = self.model.clone();
        let is_frozen = |model: &Model| model.state == SaleState::Frozen;
        if self.model.as_ref().is_some_and(is_frozen) && self.random.percent(50) {
            // What a frozen sale takes.
            let freeze = Change::Freeze {
                reason: "again".into(),
            };
            for change in [freeze, Change::Note(note("of the freeze"))] {
                if self.random.percent(70) {
                    let entry = self.entry(change);
                    batch.entries.push(entry);
                }
            }
            if !batch.entries.is_empty() {
                return batch;
            }
        }
        if self.foreseen.is_none() {
            let change = self.draft();
            let entry = self.entry(change);
            let Change::PutDraft { definition } = &entry.change else {
                panic!("a sale begins with its draft");
            };
            self.foreseen = Some(Model::new(self.sale_no, entry.serial.0, definition));
            self.foresee(&entry);
            batch.entries.push(entry);
        }
        // The rest of a run of purchases that are alike but for buyer and key.
        let mut alike: Option<(Change, u64)> = None;
        for _ in 0..count {
            let change = match alike.take() {
                Some((change, rest)) if rest > 0 => {
                    alike = Some((change.clone(), rest - 1));
                    self.by_another(change)
                }
                _ => self.change(),
            };
            if matches!(change, Change::Reserve { .. }) && self.random.percent(20) {
                alike = Some((change.clone(), self.random.below(6)));
            }
            let mut entry = self.entry(change);
            if matches!(entry.change, Change::Reserve { .. }) && self.random.percent(2) {
                entry.serial = Serial(self.a_serial().unwrap_or(entry.serial.0));
            }
            self.foresee(&entry);
            batch.entries.push(entry);
            for detail in ["why", "again"] {
                if self.random.percent(10) {
                    let note = self.entry(Change::Note(note(detail)));
                    batch.entries.push(note);
                }
            }
        }
        batch
    }

    fn entry(&self, change: Change) -> Entry {
        Entry {
            serial: self.node.serial(),
            sale_no: SaleNo(self.sale_no),
            change,
        }
    }

    fn foresee(&mut self, entry: &Entry) {
        let now_ms = self.clock_ms.unwrap_or_else(now_ms);
        // Whatever becomes of it: the next change is chosen from there.
        let _ = self.foreseen_mut().take(entry, now_ms);
    }

    fn foreseen(&self) -> &Model {
        self.foreseen.as_ref().expect("a batch is being made")
    }

    fn foreseen_mut(&mut self) -> &mut Model {
        self.foreseen.as_mut().expect("a batch is being made")
    }

    fn change(&mut self) -> Change {
        let state = self.foreseen().state;
        match (state, self.random.below(100)) {
            (SaleState::Draft, 0..=19) => self.draft(),
            (SaleState::Draft | SaleState::Published, 20..=52) => self.fitting_step(state),
            (SaleState::Published | SaleState::Open | SaleState::Paused, 53..=60) => self.wave(),
            (SaleState::Paused, 20..=31) => Change::Resume,
            (SaleState::Paused, 32..=39) => self.change_price(),
            (_, 0) => self.any_new(),
            (_, 0..=39) => self.reserve(),
            (_, 40..=84) => self.reservation_step(),
            (_, 85..=92) => self.change_stock(),
            (_, 93) => self.draft(),
            (_, 94) if self.random.percent(30) => Change::Freeze {
                reason: "seen \"in\"\na test".into(),
            },
            (_, 95 | 96) => self.fitting_step(state),
            (_, 97) => self.any_step(),
            _ => self.reserve(),
        }
    }

    fn fitting_step(&mut self, state: SaleState) -> Change {
        match state {
            SaleState::Draft => Change::Publish,
            SaleState::Published if self.random.percent(12) => Change::Unpublish,
            SaleState::Published => self.open(),
            SaleState::Open if self.random.percent(20) => Change::Unpublish,
            SaleState::Open if self.random.percent(70) => Change::Pause,
            SaleState::Open => Change::Close,
            SaleState::Paused => Change::Resume,
            SaleState::Closed | SaleState::Frozen => Change::Retire,
        }
    }

    fn any_step(&mut self) -> Change {
        self.random.pick(&[
            Change::Publish,
            open(),
            Change::Unpublish,
            Change::Pause,
            Change::Resume,
            Change::Close,
            Change::Retire,
        ])
    }

    fn open(&mut self) -> Change {
        let mut held = Deltas::new();
        for item in 0..self.items() {
            if self.random.percent(40) {
                held.push(Delta {
                    item: ItemIndex(item as u16),
                    units: self.random.pick(&[0, 1, 2, 3, 5, u32::MAX]),
                });
            }
        }
        Change::Open { held }
    }

    /// Whatever the sale's state is.
    fn any_new(&mut self) -> Change {
        match self.random.below(4) {
            0 => self.wave(),
            1 => self.change_price(),
            2 => Change::Unpublish,
            _ => Change::CountAttempts {
                from: Timestamp(10_000),
                counts: vec![AttemptCount {
                    item: Some(ItemIndex(0)).filter(|_| self.random.percent(50)),
                    outcome: "sold_out".into(),
                    attempts: 1 + self.random.below(9),
                }],
            },
        }
    }

    fn wave(&mut self) -> Change {
        let items = self.items() + u64::from(self.random.percent(3));
        let item = self.random.below(items) as u16;
        let key = IdempotencyKey::parse(&format!("w-{}", self.random.below(6))).unwrap();
        let place = self.random.below(3) as u16;
        let now_ms = self.clock_ms.unwrap_or_else(now_ms);
        let known = usize::from(item) < self.foreseen().definition.items.len();
        let left = known.then(|| self.foreseen().units(item).unreleased as u32);
        Change::Wave {
            item: ItemIndex(item),
            wave: self.random.pick(&[
                WaveRef::Planned(place),
                WaveRef::Pool(place),
                WaveRef::Hand(Some(key)),
                WaveRef::Hand(None),
            ]),
            due_at: Timestamp(now_ms + self.random.pick(&[-1_000, 0, 0, 1, 500])),
            units: self.random.pick(&[0, 1, 1, 2, left.unwrap_or(1)]),
        }
    }

    fn change_price(&mut self) -> Change {
        let mut plan = self.foreseen().definition.clone();
        let item = self.random.below(self.items()) as u16;
        let planned = &mut plan.items[usize::from(item)];
        let to = Money(self.random.pick(&[0, 100, PRICE_MAX]));
        let from = std::mem::replace(&mut planned.sale_price_minor, to);
        Change::ChangePrice {
            item: ItemIndex(item),
            from,
            to,
            reason: "a \"slip\" | of\nthe pen".into(),
            definition: Box::new(plan),
        }
    }

    fn draft(&mut self) -> Change {
        let items = 1 + self.random.below(4);
        let stock: Vec<u32> = (0..items)
            .map(|_| match self.random.below(10) {
                0 => u32::MAX,
                units => units as u32 - 1,
            })
            .collect();
        let now_ms = self.clock_ms.unwrap_or_else(now_ms);
        let mut plan = definition(&format!("s-{}", self.sale_no), &stock);
        plan.starts_at = Timestamp(now_ms + self.random.pick(&[-1_000, 0, 200, 1_000]));
        plan.ends_at = Timestamp(now_ms + self.random.pick(&[3_000, 6_000, 1_000_000, 1_000_000]));
        plan.payment_window_s = self.random.pick(&[1, 1, 2, 300]);
        for item in &mut plan.items {
            item.units_per_buyer_max = self.random.pick(&[None, Some(1), Some(3), Some(7)]);
        }
        Change::PutDraft {
            definition: Box::new(plan),
        }
    }

    fn items(&self) -> u64 {
        self.foreseen().definition.items.len() as u64
    }

    /// Few buyers and few keys, so that they meet again.
    fn reserve(&mut self) -> Change {
        let items = self.items();
        let mut lines: Vec<ReserveLine> = Vec::new();
        for item in 0..items {
            if self.random.percent(60) {
                lines.push(self.reserve_line(item as u16));
            }
        }
        if lines.is_empty() {
            let item = self.random.below(items) as u16;
            lines.push(self.reserve_line(item));
        }
        match self.random.below(60) {
            0 => lines.push(self.reserve_line(items as u16)),
            1 => lines.push(lines[0]),
            2 => lines.reverse(),
            _ => {}
        }
        let (buyer, key) = self.buyer_and_key();
        Change::Reserve {
            buyer,
            key,
            lines: lines.into(),
            // The store's clock decides.
            created_at: Timestamp(0),
            expires_at: Timestamp(0),
        }
    }

    fn buyer_and_key(&mut self) -> (BuyerId, IdempotencyKey) {
        let buyer = format!("b:{}", self.random.below(5));
        let key = format!("k.{}", self.random.below(30));
        (
            BuyerId::parse(&buyer).unwrap(),
            IdempotencyKey::parse(&key).unwrap(),
        )
    }

    /// The same purchase by somebody else.
    fn by_another(&mut self, mut change: Change) -> Change {
        if let Change::Reserve { buyer, key, .. } = &mut change {
            (*buyer, *key) = self.buyer_and_key();
        }
        change
    }

    fn reserve_line(&mut self, item: u16) -> ReserveLine {
        ReserveLine {
            item: ItemIndex(item),
            units: self.random.pick(&[1, 1, 1, 2, 3, 20_000]),
            unit_price_minor: Money(self.random.pick(&[0, 9_900, PRICE_MAX])),
        }
    }

    fn a_serial(&mut self) -> Option<u64> {
        let serials: Vec<u64> = self.foreseen().reservations.keys().copied().collect();
        (!serials.is_empty()).then(|| self.random.pick(&serials))
    }

    /// Something with a reservation: mostly what its state allows, with its units.
    fn reservation_step(&mut self) -> Change {
        if self.random.percent(3) {
            let (what, units) = (self.random.below(8), deltas(&[(0, 1)]));
            return self.step_of(what, Serial(1), units);
        }
        let Some(serial) = self.a_serial() else {
            return self.reserve();
        };
        let of = self.foreseen().reservations[&serial].clone();
        let fitting = match of.state {
            ReservationState::Reserved => self.random.pick(&[0, 0, 3, 4, 4, 4, 6]),
            ReservationState::Expired => self.random.pick(&[1, 1, 1, 2]),
            ReservationState::Confirmed => self.random.pick(&[5, 5, 5, 7]),
            ReservationState::Released | ReservationState::Refunded | ReservationState::Unknown => {
                2
            }
        };
        let what = match self.random.below(10) {
            0 | 1 => self.random.below(8),
            _ => fitting,
        };
        if what == 5 {
            return self.refund(serial, &of);
        }
        let mut units: Deltas = of
            .lines
            .iter()
            .map(|line| Delta {
                item: ItemIndex(line.item),
                units: line.units as u32,
            })
            .collect();
        match self.random.below(40) {
            0 => units[0].units += 1,
            1 => units[0].units -= 1,
            2 => drop(units.pop()),
            3 => units.push(units[0]),
            _ => {}
        }
        self.step_of(what, Serial(serial), units)
    }

    fn step_of(&mut self, what: u64, reservation: Serial, units: Deltas) -> Change {
        let payment_ref = payment(&format!("p-{}", self.random.below(200)));
        match what {
            0 | 1 => Change::Confirm {
                reservation,
                payment_ref,
                is_late: what == 1,
                units,
            },
            2 => Change::RefusePayment {
                reservation,
                payment_ref,
                is_expired: self.random.percent(50),
                state: self.state_of(reservation),
                refunded: self.refunded(reservation, &[]),
            },
            3 => Change::Release {
                reservation,
                units,
                is_pooled: self.random.percent(40),
            },
            4 => Change::Expire {
                reservation,
                units,
                is_pooled: self.random.percent(40),
            },
            6 => Change::Extend {
                reservation,
                expires_at: self.later(reservation),
            },
            7 => Change::ProtectPrice {
                reservation,
                item: units.first().map_or(ItemIndex(0), |delta| delta.item),
                units: 1,
                paid_minor: Money(9_900),
                price_minor: Money(self.random.pick(&[0, 5_000])),
                other: SaleId::parse("s-other").unwrap(),
                state: self.state_of(reservation),
                refunded: self.refunded(reservation, &[]),
            },
            _ => Change::Refund {
                reservation,
                refund_ref: None,
                restock: true,
                refunded: self.refunded(reservation, &units),
                units,
                is_whole: true,
            },
        }
    }

    fn state_of(&self, reservation: Serial) -> ReservationState {
        let of = self.foreseen().reservations.get(&reservation.0);
        of.map_or(ReservationState::Reserved, |of| of.state)
    }

    /// What is refunded of it once these units are.
    fn refunded(&self, reservation: Serial, more: &[Delta]) -> Deltas {
        let of = self.foreseen().reservations.get(&reservation.0);
        let lines = of.into_iter().flat_map(|of| &of.lines);
        let sums = lines.map(|line| Delta {
            item: ItemIndex(line.item),
            units: line.refunded as u32
                + more
                    .iter()
                    .filter(|delta| delta.item.0 == line.item)
                    .map(|delta| delta.units)
                    .sum::<u32>(),
        });
        sums.filter(|delta| delta.units > 0).collect()
    }

    /// An expiry that is later than it was; or not.
    fn later(&mut self, reservation: Serial) -> Timestamp {
        let of = self.foreseen().reservations.get(&reservation.0);
        let expires_ms = of.map_or(0, |of| of.expires_ms);
        Timestamp(expires_ms + self.random.pick(&[-1, 0, 1, 500, 2_000]))
    }

    /// Part of what is left, all of it, or more.
    fn refund(&mut self, serial: u64, of: &Reserved) -> Change {
        let takes_all = self.random.percent(40);
        let mut units = Deltas::new();
        let mut leaves_nothing = true;
        for line in &of.lines {
            let left = line.units - line.refunded;
            let mut refunded = if takes_all {
                left
            } else {
                self.random.below(left + 1)
            };
            if self.random.percent(2) {
                refunded = left + 1;
            }
            leaves_nothing &= refunded == left;
            if refunded > 0 {
                units.push(Delta {
                    item: ItemIndex(line.item),
                    units: refunded as u32,
                });
            }
        }
        match self.random.below(40) {
            0 => units.push(Delta {
                item: ItemIndex(400),
                units: 1,
            }),
            1 if !units.is_empty() => units.push(units[0]),
            _ => {}
        }
        let name = format!("f-{}", self.random.below(4));
        Change::Refund {
            reservation: Serial(serial),
            refund_ref: RefundRef::parse(&name)
                .ok()
                .filter(|_| self.random.percent(70)),
            restock: self.random.percent(60),
            refunded: self.refunded(Serial(serial), &units),
            units,
            is_whole: leaves_nothing != self.random.percent(5),
        }
    }

    fn change_stock(&mut self) -> Change {
        let item = self
            .random
            .below(self.items() + u64::from(self.random.clone().percent(10)));
        let applied = self
            .random
            .pick(&[-9, -3, -1, 0, 1, 2, 2, i64::from(u32::MAX)]);
        Change::ChangeStock {
            item: ItemIndex(item as u16),
            key: IdempotencyKey::parse(&format!("t-{}", self.random.below(12))).unwrap(),
            asked_delta_units: applied * 2,
            applied_delta_units: applied,
            reason: "back \"in\" stock\n".into(),
        }
    }
}

fn note(detail: &str) -> AdminNote {
    AdminNote {
        at: Timestamp(5),
        who: "ops".into(),
        command: "sale.accept".into(),
        sale_id: None,
        outcome: "ok".into(),
        detail: detail.replace('"', ""),
    }
}

/// A line for each change.
fn told(batch: &Batch) -> String {
    let lines = batch.entries.iter().enumerate();
    let lines = lines.map(|(index, entry)| format!("{index}: {entry:?}\n"));
    lines.collect()
}

fn name_of(change: &Change) -> &'static str {
    match change {
        Change::PutDraft { .. } => "draft",
        Change::Publish => "publish",
        Change::Open { .. } => "open",
        Change::Unpublish => "unpublish",
        Change::ChangePrice { .. } => "price",
        Change::Wave { .. } => "wave",
        Change::CountAttempts { .. } => "attempts",
        Change::ProtectPrice { .. } => "protect",
        Change::Extend { .. } => "extend",
        Change::Pause => "pause",
        Change::Resume => "resume",
        Change::Close => "close",
        Change::Freeze { .. } => "freeze",
        Change::Retire => "retire",
        Change::Reserve { .. } => "reserve",
        Change::Confirm { is_late: false, .. } => "confirm",
        Change::Confirm { is_late: true, .. } => "late",
        Change::RefusePayment { .. } => "refuse",
        Change::Release {
            is_pooled: true, ..
        } => "release to the pool",
        Change::Expire {
            is_pooled: true, ..
        } => "expire to the pool",
        Change::Release { .. } => "release",
        Change::Expire { .. } => "expire",
        Change::Refund { .. } => "refund",
        Change::ChangeStock { .. } => "stock",
        Change::Note(_) => "note",
    }
}

/// Of all histories of this run.
fn seed() -> u64 {
    std::env::var("SEED").map_or(0, |seed| seed.parse().unwrap())
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_millis() as i64
}

/// A history that never met one of these has not tested it.
const TO_BE_MET: &[&str] = &[
    "accepted",
    "attempts: ok",
    "close: ok",
    "close: stale state",
    "confirm: ok",
    "confirm: stale reference",
    "confirm: stale reservation",
    "confirm: stale state",
    "draft: ok",
    "draft: stale state",
    "expire: early",
    "expire: ok",
    "expire: stale reservation",
    "expire: stale state",
    "expire to the pool: early",
    "expire to the pool: ok",
    "extend: ok",
    "extend: stale reservation",
    "extend: stale state",
    "freeze: ok",
    "late: ok",
    "late: stale reference",
    "late: stale state",
    "late: stale units",
    "note: ok",
    "open: early",
    "open: ok",
    "open: stale state",
    "pause: ok",
    "pause: stale state",
    "price: ok",
    "price: stale state",
    "protect: ok",
    "protect: stale reference",
    "protect: stale reservation",
    "protect: stale state",
    "publish: ok",
    "publish: stale state",
    "refund: ok",
    "refund: stale lines",
    "refund: stale reference",
    "refund: stale reservation",
    "refund: stale state",
    "refund: stale units",
    "refuse: ok",
    "refuse: stale reference",
    "refuse: stale reservation",
    "release to the pool: ok",
    "release: ok",
    "release: stale reservation",
    "release: stale state",
    "reserve: closed",
    "reserve: known",
    "reserve: limit",
    "reserve: ok",
    "reserve: paused",
    "reserve: published",
    "reserve: short",
    "reserve: sold out",
    "reserve: stale item",
    "reserve: stale lines",
    "reserve: stale serial",
    "resume: ok",
    "resume: stale state",
    "retire: ok",
    "retire: stale state",
    "stock: ok",
    "stock: stale item",
    "stock: stale reference",
    "stock: stale units",
    "unpublish: ok",
    "unpublish: stale reservations",
    "unpublish: stale state",
    "wave: early",
    "wave: ok",
    "wave: stale item",
    "wave: stale reference",
    "wave: stale state",
    "wave: stale units",
];

#[test]
fn random_histories_end_as_the_model_says() {
    let rig = rig();
    let node = rig.open();
    let met = RefCell::default();
    let mut histories: Vec<History> = (1..=220)
        .map(|sale_no| History::new(&rig, &node, sale_no, &met))
        .collect();
    // In turns, so that time passes for each that goes by the server's clock.
    for round in 0..32 {
        for history in &mut histories {
            history.step(|history| {
                history.batch();
                if (round + history.sale_no) % 8 == 0 {
                    history.check();
                }
            });
        }
    }
    for history in &mut histories {
        history.step(|history| {
            history.check();
            if history.sale_no % 10 == 0 {
                history.check_reads();
            }
        });
    }
    let met = met.borrow();
    let missed: Vec<_> = TO_BE_MET
        .iter()
        .filter(|what| !met.contains(**what))
        .collect();
    assert!(missed.is_empty(), "never met: {missed:?}");
    // The next process loads what was committed.
    let next = rig.open();
    let models = histories
        .iter()
        .filter_map(|history| history.model.as_ref());
    for (model, sale) in models.zip(&next.loaded.sales) {
        let rows = next.loaded.reservations.iter();
        let decisions = next.loaded.decisions.iter();
        model.must_be_read_as(&SaleContent {
            ev: 0,
            thaw: None,
            sale: sale.clone(),
            reservations: rows
                .filter(|row| row.sale_no == sale.sale_no)
                .cloned()
                .collect(),
            decisions: decisions
                .filter(|row| row.sale_no == sale.sale_no)
                .cloned()
                .collect(),
        });
    }
    assert_eq!(next.loaded.sales.len(), histories.len());
}

#[test]
fn a_bad_network_changes_no_answer() {
    let rig = rig();
    let (proxy, config) = rig.proxied();
    let node = Node::open_when_there(&config);
    let met = RefCell::default();
    let mut random = Random(seed());
    for sale_no in 1..=12 {
        let mut history = History::new(&rig, &node, sale_no, &met);
        history.accepts = false;
        for _ in 0..20 {
            history.step(|history| {
                match random.below(6) {
                    0 => proxy.cut_replies_after(random.below(40)),
                    1 => proxy.cut_requests_after(random.below(700)),
                    _ => {}
                }
                history.batch();
            });
        }
        history.step(|history| history.check());
    }
    for fault in [Fault::CutReplies, Fault::CutRequests] {
        assert!(proxy.fired_by(fault) > 10, "{fault:?} did not bite");
    }
}

#[test]
fn the_largest_batch_fits() {
    const JOBS: u64 = bounds::REDIS_BATCH_JOBS_MAX as u64;
    let rig = rig();
    let node = rig.open();
    node.open_sale(1, &[20_000; bounds::LINES_MAX]);
    let units: Vec<(u16, u32)> = (0..bounds::LINES_MAX as u16)
        .map(|item| (item, 1))
        .collect();
    let reserves = (0..JOBS).map(|number| {
        let mut change = reserve(number, &units);
        if let Change::Reserve { buyer, .. } = &mut change {
            *buyer = BuyerId::parse(&format!("{number:064}")).unwrap();
        }
        change
    });
    let reserves = node.batch(1, reserves.collect());
    assert_eq!(node.must_commit(&reserves).refused, []);
    let serials = reserves.entries.iter().map(|entry| entry.serial);
    let confirms = serials
        .enumerate()
        .map(|(number, reservation)| Change::Confirm {
            reservation,
            payment_ref: payment(&format!("p-{number}")),
            is_late: false,
            units: deltas(&units),
        });
    let confirms = node.batch(1, confirms.collect());
    assert_eq!(node.must_commit(&confirms).refused, []);
    let raw = rig.raw(1);
    assert_eq!(raw.buyer.len() as u64, JOBS * bounds::LINES_MAX as u64);
    assert!(raw.buyer.values().all(|units| units == "1"));
    for event in &raw.ev[1..] {
        assert_eq!(event.lines.len() as u64, JOBS);
    }
    // Read back, held against its own sizes and without contradictions.
    let content = node.run(node.store.content(SaleNo(1))).unwrap().unwrap();
    let is_sold = |item: &ItemRow| item.units.sold == JOBS && item.units.imbalance() == 0;
    assert!(content.sale.items.iter().all(is_sold));
    assert_eq!(content.reservations.len() as u64, JOBS);
    assert_eq!(content.decisions.len() as u64, JOBS);
    let lines = content.reservations.iter().map(|row| row.lines.len());
    assert!(lines.min() == Some(bounds::LINES_MAX));
}
