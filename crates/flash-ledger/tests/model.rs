//! Random histories of all commands, several steps in flight at once and ended in any order, against the
//! obvious model: a list of reservations from which every counter is summed anew.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;
mod model {
    pub mod oracle;
}

use std::time::Duration;

use flash_ledger::{
    Begin, Command, Ledger, LedgerItem, LoadedLine, LoadedReservation, RecordRef, RecordSums,
    Reserve, StateCounts, StockChange, ViewLine,
};
use flash_types::{
    ItemIndex, ItemUnits, Money, PaymentRef, RefundRef, ReservationState, SaleId, Serial, Timestamp,
};
use proptest::prelude::*;

use common::{KEY, buyer, key, merged, price, priced};
use model::oracle::{Oracle, OracleItem, Reservation};

const WINDOW_MS: i64 = 5;

/// One step of a history: what, and four numbers that say to which.
type Op = (u8, u8, u8, u8, u8);

struct History {
    ledger: Ledger<u32>,
    oracle: Oracle,
    transitions: Vec<flash_ledger::Transition>,
    stock_changes: Vec<StockChange>,
    serial: u64,
    now: i64,
    handle: u32,
    gone: Vec<RecordRef>,
}

fn payment(number: u8) -> PaymentRef {
    PaymentRef::parse(&format!("pay-{}", number % 6)).unwrap()
}

fn lines_of(what: u8, units: u8) -> Vec<(u16, u32)> {
    (0..3)
        .filter(|item| (what % 7 + 1) & (1 << item) != 0)
        .map(|item| {
            (
                item,
                1 + u32::from(units >> (2 * item)) % 4 / (1 + u32::from(what) % 2),
            )
        })
        .collect()
}

fn pick<T>(list: &[T], number: u8) -> Option<usize> {
    (!list.is_empty()).then(|| usize::from(number) % list.len())
}

impl History {
    fn new(stock: [u8; 3]) -> Self {
        let limits = [Some(2), None, Some(3)];
        let items: Vec<OracleItem> = (0..3)
            .map(|item| OracleItem {
                stock: stock[item].into(),
                unreleased: if item == 1 {
                    u64::from(stock[item]) / 2
                } else {
                    0
                },
                limit: limits[item],
            })
            .collect();
        let oracle = Oracle::new(items);
        Self {
            ledger: Ledger::new(&ledger_items(&oracle), KEY),
            oracle,
            transitions: Vec::new(),
            stock_changes: Vec::new(),
            serial: 1 << 32,
            now: 0,
            handle: 0,
            gone: Vec::new(),
        }
    }

    fn step(&mut self, (what, a, b, c, d): Op) {
        match what % 40 {
            0..=8 => self.reserve(a, b, c, d),
            9..=11 => self.number(a),
            12..=14 => self.end_reserve(a, true),
            15 => self.end_reserve(a, false),
            16..=18 => self.confirm(a, b, c),
            19 => self.begin(a, &Command::Cancel),
            20 => self.begin(a, &Command::Expire),
            21..=22 => self.refund(a, b, c, d),
            23..=25 => self.end_transition(a, b, true),
            26 => self.end_transition(a, b, false),
            27 => self.change_stock(a, b),
            28 => self.end_stock_change(a, b.is_multiple_of(2)),
            29 => self.release_all(a, b),
            30 => self.expire_due(a),
            31 => self.restart(a),
            32..=33 => self.release(a, b),
            34..=36 => self.extend(a, b),
            _ => self.protect(a, b, c),
        }
        self.check();
    }

    fn next_handle(&mut self) -> u32 {
        self.handle += 1;
        self.handle
    }

    fn reserve(&mut self, a: u8, b: u8, c: u8, d: u8) {
        let (who, name) = (buyer(a % 3), key(b % 8));
        let lines = lines_of(c, d);
        let expected_won = self.oracle.won(&who, &name, &lines);
        assert_eq!(
            self.ledger.won(&who, &name, Some(&merged(&lines))),
            expected_won
        );
        if let Some(won) = self.ledger.won(&who, &name, None) {
            assert!(!won.is_same);
        }
        let handle = self.next_handle();
        let answer = self.ledger.reserve(&who, &name, &priced(&lines), handle);
        match self.oracle.reserve(&who, &name, &lines) {
            Some(refusal) => assert_eq!(answer, refusal),
            None => {
                let Reserve::Taken(record) = answer else {
                    panic!("{answer:?}, but nothing stands against it")
                };
                self.oracle.take(record, who, name, &lines, handle);
            }
        }
    }

    fn number(&mut self, a: u8) {
        let waiting = self
            .oracle
            .where_(|r| r.is_undecided() && r.serial.is_none());
        let Some(which) = pick(&waiting, a) else {
            return;
        };
        self.serial += 1 + u64::from(a % 3);
        let reservation = &mut self.oracle.reservations[waiting[which]];
        reservation.serial = Some(Serial(self.serial));
        reservation.expires_at = Timestamp(self.now + WINDOW_MS);
        self.ledger
            .numbered(reservation.record, Serial(self.serial));
    }

    fn end_reserve(&mut self, a: u8, is_committed: bool) {
        let undecided = self
            .oracle
            .where_(|r| r.is_undecided() && (r.serial.is_some() || !is_committed));
        let Some(which) = pick(&undecided, a) else {
            return;
        };
        let index = undecided[which];
        let record = self.oracle.reservations[index].record;
        if is_committed {
            let reservation = &mut self.oracle.reservations[index];
            reservation.state = ReservationState::Reserved;
            reservation.flight = None;
            let expires_at = reservation.expires_at;
            self.ledger.finish_reserve(record, Timestamp(7), expires_at);
        } else {
            let serial = self.oracle.reservations.remove(index).serial;
            self.ledger.abort_reserve(record);
            self.gone.push(record);
            assert_eq!(serial.and_then(|serial| self.ledger.find(serial)), None);
        }
    }

    fn confirm(&mut self, a: u8, b: u8, c: u8) {
        let amount = match c % 8 {
            0 => Some(Money(1)),
            1..=3 => self.target(a).and_then(|serial| self.oracle.amount(serial)),
            _ => None,
        };
        let payment_ref = payment(b);
        self.begin(
            a,
            &Command::Confirm {
                payment_ref,
                amount,
            },
        );
    }

    fn refund(&mut self, a: u8, b: u8, c: u8, d: u8) {
        let refund_ref =
            (!b.is_multiple_of(4)).then(|| RefundRef::parse(&format!("ref-{}", b % 4)).unwrap());
        let lines = (!c.is_multiple_of(3)).then(|| merged(&lines_of(c / 3, d)));
        self.begin(
            a,
            &Command::Refund {
                refund_ref,
                restock: d.is_multiple_of(2),
                lines,
            },
        );
    }

    /// A numbered reservation, or (rarely) a serial that nobody has.
    fn target(&self, a: u8) -> Option<Serial> {
        let numbered = self.oracle.where_(|r| r.serial.is_some());
        if a == u8::MAX {
            return Some(Serial(3));
        }
        pick(&numbered, a).and_then(|which| self.oracle.reservations[numbered[which]].serial)
    }

    fn begin(&mut self, a: u8, command: &Command) {
        let Some(serial) = self.target(a) else { return };
        let handle = self.next_handle();
        let expected = self.oracle.begin(serial, command, handle);
        let answer = self.ledger.begin(serial, command, handle);
        assert_eq!(answer, expected, "{command:?}");
        if let Begin::Start(transition) = answer {
            self.transitions.push(transition);
        }
    }

    fn extend(&mut self, a: u8, b: u8) {
        let by = Duration::from_millis(u64::from(b % 8));
        self.begin(a, &Command::Extend { by });
    }

    fn protect(&mut self, a: u8, b: u8, c: u8) {
        let item = u16::from(b % 4);
        // Below, at and above what was paid.
        let price_minor = Money(price(item).0 + i64::from(c % 4) - 2);
        let other = SaleId::parse("later").unwrap();
        self.begin(
            a,
            &Command::ProtectPrice {
                item: ItemIndex(item),
                price_minor,
                other,
            },
        );
    }

    /// Half of what comes back goes to the pool.
    fn end_transition(&mut self, a: u8, b: u8, is_committed: bool) {
        let Some(which) = pick(&self.transitions, a) else {
            return;
        };
        let mut transition = self.transitions.remove(which);
        transition.is_pooled = b.is_multiple_of(2);
        if is_committed {
            self.ledger.finish(&transition);
        } else {
            self.ledger.abort(&transition);
        }
        self.oracle.end(&transition, is_committed);
    }

    fn change_stock(&mut self, a: u8, b: u8) {
        let item = usize::from(a % 3);
        let delta = i64::from(b as i8) / 16;
        let available = self.oracle.units(item).available as i64;
        let change = self
            .ledger
            .begin_stock_change(ItemIndex(item as u16), delta)
            .unwrap();
        assert_eq!(change.applied_delta_units, delta.max(-available));
        self.oracle.items[item].pending_delta += change.applied_delta_units.min(0);
        self.stock_changes.push(change);
    }

    fn end_stock_change(&mut self, a: u8, is_committed: bool) {
        let Some(which) = pick(&self.stock_changes, a) else {
            return;
        };
        let change = self.stock_changes.remove(which);
        let item = &mut self.oracle.items[usize::from(change.item.0)];
        item.pending_delta -= change.applied_delta_units.min(0);
        if is_committed {
            item.stock = item
                .stock
                .checked_add_signed(change.applied_delta_units)
                .unwrap();
            self.ledger.finish_stock_change(&change);
        } else {
            self.ledger.abort_stock_change(&change);
        }
    }

    /// Some of what is unreleased, all of it too.
    fn release(&mut self, a: u8, b: u8) {
        let item = usize::from(a % 3);
        let unreleased = self.oracle.items[item].unreleased;
        let units = u64::from(b) % (unreleased + 1);
        self.oracle.items[item].unreleased -= units;
        self.ledger.release(ItemIndex(item as u16), units as u32);
    }

    /// All, but for what one item or two hold back: also more than there is.
    fn release_all(&mut self, a: u8, b: u8) {
        let held = [
            (ItemIndex(u16::from(a % 3)), u32::from(b % 8)),
            (ItemIndex((u16::from(a) + 1) % 3), u32::from(b / 8 % 8)),
        ];
        let held = &held[..usize::from(b / 64 % 3)];
        for (index, item) in self.oracle.items.iter_mut().enumerate() {
            let stays = held
                .iter()
                .find(|(held, _)| usize::from(held.0) == index)
                .map_or(0, |(_, units)| u64::from(*units));
            item.unreleased = item.unreleased.min(stays);
        }
        self.ledger.release_all(held);
    }

    fn expire_due(&mut self, a: u8) {
        self.now += i64::from(a % 8);
        let mut due = Vec::new();
        self.ledger.due(Timestamp(self.now), 2, &mut due);
        assert!(due.len() <= 2);
        for serial in due {
            let handle = self.next_handle();
            let expected = self.oracle.begin(serial, &Command::Expire, handle);
            let answer = self.ledger.begin(serial, &Command::Expire, handle);
            assert_eq!(answer, expected);
            let Begin::Start(transition) = answer else {
                panic!("{answer:?}")
            };
            self.transitions.push(transition);
        }
    }

    /// Ends what is in flight, then reads everything from what a store would hold.
    fn restart(&mut self, a: u8) {
        while !self.transitions.is_empty() {
            self.end_transition(0, a / 2, a.is_multiple_of(2));
        }
        while !self.stock_changes.is_empty() {
            self.end_stock_change(0, a.is_multiple_of(2));
        }
        while !self.oracle.where_(|r| r.is_undecided()).is_empty() {
            self.end_reserve(0, false);
        }
        self.ledger = Ledger::new(&ledger_items(&self.oracle), KEY);
        self.gone.clear();
        self.oracle.reservations.sort_by_key(|r| r.serial);
        for reservation in &mut self.oracle.reservations {
            reload(&self.ledger, reservation);
        }
        for (payment_ref, serial, decision) in &self.oracle.payments {
            let decision = decision.expect("nothing is in flight");
            self.ledger.load_payment(payment_ref, *serial, decision);
        }
        if a.is_multiple_of(3) {
            let not_before = Timestamp(self.now + 2);
            self.ledger.extend_expiry(not_before);
            for reservation in &mut self.oracle.reservations {
                if reservation.state == ReservationState::Reserved {
                    reservation.expires_at = reservation.expires_at.max(not_before);
                }
            }
        }
    }

    // ---- everything that can be asked

    fn check(&self) {
        let sums = self.ledger.sums();
        for (index, item) in self.oracle.items.iter().enumerate() {
            let item_index = ItemIndex(index as u16);
            let units = self.ledger.units(item_index);
            let expected = self.oracle.units(index);
            assert_eq!(units, expected, "item {index}");
            assert_eq!(units.imbalance(), 0, "item {index}");
            assert_eq!(
                u64::from(self.ledger.available_units(item_index)),
                units.available
            );
            let is_drained = units.available + units.reserved + item.unreleased == 0;
            assert_eq!(self.ledger.is_drained(item_index), is_drained);
            let RecordSums {
                reserved,
                sold,
                in_flight,
            } = sums[index];
            let leaving_stock = item.pending_delta.unsigned_abs();
            assert_eq!(reserved + in_flight + leaving_stock, units.reserved);
            assert_eq!(sold, units.sold);
            assert_eq!(in_flight, self.oracle.in_flight_units(index));
        }
        self.check_reservations();
        self.check_expiry();
    }

    fn check_reservations(&self) {
        let mut counts = StateCounts::default();
        for reservation in &self.oracle.reservations {
            *match reservation.state {
                ReservationState::Unknown => &mut counts.unknown,
                ReservationState::Reserved => &mut counts.reserved,
                ReservationState::Confirmed => &mut counts.confirmed,
                ReservationState::Released => &mut counts.released,
                ReservationState::Expired => &mut counts.expired,
                ReservationState::Refunded => &mut counts.refunded,
            } += 1;
            self.check_view(reservation);
        }
        assert_eq!(self.ledger.reservations_by_state(), counts);
        // Also where another reservation took the place.
        assert!(
            self.gone
                .iter()
                .all(|record| self.ledger.view(*record).is_none())
        );
        for who in 0..3 {
            let who = buyer(who);
            let mut theirs = self.oracle.where_(|r| r.buyer == who);
            theirs.reverse();
            let theirs: Vec<_> = theirs
                .iter()
                .map(|index| self.oracle.reservations[*index].record)
                .collect();
            assert_eq!(self.ledger.records_of(&who, usize::MAX), theirs);
            assert_eq!(
                self.ledger.records_of(&who, 1),
                theirs[..theirs.len().min(1)]
            );
        }
    }

    fn check_view(&self, reservation: &Reservation) {
        let view = self.ledger.view(reservation.record).unwrap();
        let lines: Vec<ViewLine> = reservation
            .lines
            .iter()
            .map(|line| ViewLine {
                item: line.item,
                units: line.units,
                unit_price_minor: price(line.item.0),
                refunded_units: line.refunded,
            })
            .collect();
        assert_eq!(view.lines.as_slice(), lines);
        assert_eq!(
            (view.serial, view.buyer, view.key, view.state),
            (
                reservation.serial,
                reservation.buyer,
                reservation.key,
                reservation.state
            )
        );
        assert_eq!(view.payment_ref, self.oracle.paid_by(reservation));
        assert_eq!(
            view.in_flight,
            reservation.flight.as_ref().map(|flight| flight.handle)
        );
        if !reservation.is_undecided() {
            assert_eq!(view.expires_at, reservation.expires_at);
        }
        if let Some(serial) = reservation.serial {
            assert_eq!(self.ledger.find(serial), Some(reservation.record));
        }
    }

    fn check_expiry(&self) {
        let mut open: Vec<_> = self
            .oracle
            .reservations
            .iter()
            .filter(|r| r.state == ReservationState::Reserved)
            .collect();
        open.sort_by_key(|r| r.serial);
        let mut due = Vec::new();
        self.ledger.due(Timestamp(self.now), usize::MAX, &mut due);
        let is_due = |r: &&&Reservation| r.flight.is_none() && r.expires_at.0 <= self.now;
        let (mut extended, others): (Vec<&Reservation>, Vec<_>) =
            open.iter().filter(is_due).partition(|r| r.is_extended);
        // Those with more time come first, by deadline; the others by serial.
        let (first, rest) = due.split_at(extended.len().min(due.len()));
        let of = |serial: &Serial| open.iter().find(|r| r.serial == Some(*serial)).unwrap();
        assert!(first.is_sorted_by_key(|serial| of(serial).expires_at));
        let mut first = first.to_vec();
        first.sort_unstable();
        extended.sort_by_key(|r| r.serial);
        let serials = |list: &[&Reservation]| -> Vec<Serial> {
            list.iter().filter_map(|r| r.serial).collect()
        };
        assert_eq!(first, serials(&extended));
        assert_eq!(rest, serials(&others));

        let next = self.ledger.next_due_at();
        let earliest = open.iter().map(|r| r.expires_at).min();
        assert!(earliest.is_none_or(|earliest| next.is_some_and(|next| next <= earliest)));
        if self.oracle.where_(|r| r.is_extended).is_empty() {
            assert_eq!(next, earliest);
        }
        // Whoever waits for the next one does not spin: what is in the past is in flight, or was found just now.
        let is_moving = open.iter().any(|r| r.flight.is_some());
        if due.is_empty() && !is_moving {
            assert!(next.is_none_or(|next| next.0 > self.now), "{next:?}");
        }
    }
}

fn ledger_items(oracle: &Oracle) -> Vec<LedgerItem> {
    (0..oracle.items.len())
        .map(|index| LedgerItem {
            units: ItemUnits {
                ..oracle.units(index)
            },
            units_per_buyer_max: oracle.items[index].limit,
        })
        .collect()
}

fn reload(ledger: &Ledger<u32>, reservation: &mut Reservation) {
    let serial = reservation.serial.unwrap();
    ledger.load(&LoadedReservation {
        serial,
        buyer: reservation.buyer,
        key: reservation.key,
        state: reservation.state,
        lines: reservation
            .lines
            .iter()
            .map(|line| LoadedLine {
                item: line.item,
                units: line.units,
                unit_price_minor: price(line.item.0),
                refunded_units: line.refunded,
                restocked_units: line.restocked,
            })
            .collect(),
        created_at: Timestamp(7),
        expires_at: reservation.expires_at,
        is_extended: reservation.is_extended,
        payment_ref: None,
    });
    for item in &reservation.protected {
        ledger.load_protection(serial, *item);
    }
    for (refund_ref, restock, units) in &reservation.refunds {
        ledger.load_refund(serial, refund_ref, *restock, units);
    }
    reservation.record = ledger.find(serial).unwrap();
}

proptest! {
    // A failure prints the shortest history found and its stock.
    #![proptest_config(ProptestConfig {
        cases: 3_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_answer_and_counter_is_the_models(
        stock in prop::array::uniform3(0u8..8),
        ops in prop::collection::vec(any::<Op>(), 1..120),
    ) {
        let mut history = History::new(stock);
        for op in ops {
            history.step(op);
        }
    }
}
