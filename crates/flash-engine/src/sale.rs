//! One sale in memory: its plan, its state, its ledger.
//!
//! Two states are kept. `state` is what new purchases are judged by: a pause shows at once. `gate` belongs to the
//! committer: the state after all entries built so far, so that nothing decided before a pause is committed after it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};

use flash_admission::Rate;
use flash_ledger::{HashKey, Ledger, LedgerItem, PricedLine, RecordRef, StateCounts, View};
use flash_types::{
    Durability, IdempotencyKey, ItemId, ItemIndex, ItemUnits, Line, Lines, Money, Quantity,
    Reservation, ReservationId, ReservationLine, ReservationState, SaleDefinition, SaleNo,
    SaleState, Timestamp, bounds,
};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{Notify, Semaphore};

use crate::attempts::Attempts;
use crate::fate::Fate;
use crate::waves::Waves;

/// Below so many items a look along the list beats a hash.
const LINEAR_ITEMS_MAX: usize = 8;

/// One sale in memory.
pub struct Sale {
    sale_no: SaleNo,
    definition: SaleDefinition,
    /// Of each item, for new reservations: the plan's, or what it was changed to.
    prices: Box<[AtomicI64]>,
    item_indices: HashMap<ItemId, ItemIndex>,
    state: AtomicU8,
    gate: AtomicU8,
    /// The last state that was not frozen.
    before_freeze: AtomicU8,
    version: AtomicU64,
    ledger: Ledger<Arc<Fate>>,
    address_rate: Rate,
    buyer_rate: Rate,
    is_retired: bool,
    in_flight_jobs: AtomicU32,
    /// Jobs and visits that ever began: a look that saw the same number twice saw nothing move.
    begun_jobs: AtomicU64,
    /// It is about to leave memory: nobody begins a command here any more.
    is_leaving: AtomicBool,
    /// Answers to changes of stock, by the command's key.
    stock_changes: Mutex<HashMap<IdempotencyKey, StockAnswer>>,
    /// Releases of further units.
    waves: Mutex<Waves>,
    /// Tries that reserved nothing.
    attempts: Attempts,
    /// Grows with every change that is durable; one for all values of the sale, also for a slice of one that left memory.
    events_mark: Arc<AtomicU64>,
    /// One admin command at a time.
    pub(crate) turn: Arc<Semaphore>,
    /// Woken when the sale opened, or will not open.
    pub(crate) opened: Notify,
}

/// Somebody decides a command on this sale.
pub(crate) struct Visit<'a>(&'a Sale);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.job_ends();
    }
}

/// What a change of stock was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StockAnswer {
    pub(crate) item: ItemIndex,
    pub(crate) asked_delta_units: i64,
    pub(crate) applied_delta_units: i64,
}

impl Sale {
    pub(crate) fn new(
        sale_no: SaleNo,
        definition: SaleDefinition,
        state: SaleState,
        units: &[ItemUnits],
        is_retired: bool,
        hash_key: HashKey,
    ) -> Self {
        let items: Vec<LedgerItem> = definition
            .items
            .iter()
            .zip(units)
            .map(|(item, units)| LedgerItem {
                units: *units,
                units_per_buyer_max: item.units_per_buyer_max,
            })
            .collect();
        assert_eq!(
            items.len(),
            definition.items.len(),
            "each item has its counters"
        );
        let item_indices = if definition.items.len() > LINEAR_ITEMS_MAX {
            (0u16..)
                .zip(&definition.items)
                .map(|(i, item)| (item.item, ItemIndex(i)))
                .collect()
        } else {
            HashMap::new()
        };
        let rules = definition.admission;
        let planned = definition.items.iter();
        let prices: Box<[AtomicI64]> = planned
            .map(|item| AtomicI64::new(item.sale_price_minor.0))
            .collect();
        Self {
            address_rate: Rate::per_second(rules.address_rate_per_s, rules.address_burst),
            buyer_rate: Rate::per_second(rules.buyer_rate_per_s, rules.buyer_burst),
            prices,
            waves: Mutex::new(Waves::new()),
            attempts: Attempts::new(if is_retired { 0 } else { items.len() }),
            events_mark: Arc::new(AtomicU64::new(1)),
            sale_no,
            definition,
            item_indices,
            state: AtomicU8::new(state as u8),
            gate: AtomicU8::new(state as u8),
            before_freeze: AtomicU8::new(state as u8),
            version: AtomicU64::new(1),
            ledger: Ledger::new(&items, hash_key),
            is_retired,
            in_flight_jobs: AtomicU32::new(0),
            begun_jobs: AtomicU64::new(0),
            is_leaving: AtomicBool::new(false),
            stock_changes: Mutex::new(HashMap::new()),
            turn: Arc::new(Semaphore::new(1)),
            opened: Notify::new(),
        }
    }

    /// The counters of a draft: nothing is released yet.
    pub(crate) fn draft_units(definition: &SaleDefinition) -> Vec<ItemUnits> {
        let unreleased = |stock: u32| ItemUnits {
            stock: stock.into(),
            unreleased: stock.into(),
            ..ItemUnits::default()
        };
        definition
            .items
            .iter()
            .map(|item| unreleased(item.stock_units))
            .collect()
    }

    /// Its number.
    pub fn sale_no(&self) -> SaleNo {
        self.sale_no
    }

    /// Its plan, as published; the counters tell the stock of now, [`Sale::price`] the prices.
    pub fn definition(&self) -> &SaleDefinition {
        &self.definition
    }

    /// The price of an item for new reservations.
    pub fn price(&self, item: ItemIndex) -> Money {
        // Relaxed: it changes while the sale is paused, and the state that opens it again orders it.
        Money(self.prices[usize::from(item.0)].load(Ordering::Relaxed))
    }

    pub(crate) fn set_price(&self, item: ItemIndex, price: Money) {
        self.prices[usize::from(item.0)].store(price.0, Ordering::Relaxed);
        self.touch();
    }

    /// Its plan with the prices of now.
    pub fn plan(&self) -> SaleDefinition {
        let mut plan = self.definition.clone();
        for (index, item) in (0u16..).zip(&mut plan.items) {
            item.sale_price_minor = self.price(ItemIndex(index));
        }
        plan
    }

    /// The item was for sale at its price: a sale that was closed before it opened never was.
    pub(crate) fn was_for_sale(&self, item: ItemIndex, wall: Timestamp) -> bool {
        let is_released = || {
            let units = self.units(item);
            units.unreleased < units.stock
        };
        let has_opened = match self.state() {
            SaleState::Draft | SaleState::Published => false,
            SaleState::Open | SaleState::Paused | SaleState::Frozen => true,
            SaleState::Closed => is_released(),
        };
        has_opened && self.definition.starts_at <= wall
    }

    /// The next release of an item that is announced after `now`: when, and how many units where that is known.
    pub fn next_wave(&self, item: ItemIndex, now: Timestamp) -> Option<(Timestamp, Option<u32>)> {
        let is_over =
            matches!(self.state(), SaleState::Closed | SaleState::Draft) || self.is_retired;
        if is_over {
            return None;
        }
        let unreleased_units = self.ledger.unreleased_units(item);
        let waves = self.waves.lock();
        waves.next(&self.definition, item, now, unreleased_units)
    }

    /// How many releases of further units there were while this process ran.
    pub fn waves_count(&self) -> usize {
        self.waves.lock().logged_count()
    }

    /// Releases of further units while this process ran, but for the first `seen`: item, units.
    pub fn waves_after(&self, seen: usize) -> Vec<(ItemIndex, u32)> {
        self.waves.lock().logged_after(seen).to_vec()
    }

    pub(crate) fn waves(&self) -> parking_lot::MutexGuard<'_, Waves> {
        self.waves.lock()
    }

    /// Units that its opening leaves unreleased, of those items that have any.
    pub(crate) fn held_units(&self) -> Vec<(ItemIndex, u32)> {
        let waves = self.waves.lock();
        let items = (0u16..).take(self.definition.items.len()).map(ItemIndex);
        let held = items.map(|item| (item, waves.held(&self.definition, item)));
        held.filter(|(_, units)| *units > 0).collect()
    }

    pub(crate) fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Grows with every change that is durable: two equal marks, and no event came between them.
    pub fn events_mark(&self) -> u64 {
        // Acquire: whoever sees the mark finds the event in the store.
        self.events_mark.load(Ordering::Acquire)
    }

    pub(crate) fn event_came(&self) {
        self.events_mark.fetch_add(1, Ordering::Release);
    }

    /// It left memory: reads and commands go through the store.
    pub fn is_retired(&self) -> bool {
        self.is_retired
    }

    /// The state that new purchases are judged by.
    pub fn state(&self) -> SaleState {
        // Acquire: whoever sees `Open` sees the units that opening released.
        state_of(self.state.load(Ordering::Acquire))
    }

    /// As shown to people: by the window as well (`closed` from the end, before the engine has written it down).
    pub fn shown_state(&self, wall: Timestamp) -> SaleState {
        match self.state() {
            SaleState::Published | SaleState::Open | SaleState::Paused
                if wall >= self.definition.ends_at =>
            {
                SaleState::Closed
            }
            state @ (SaleState::Draft
            | SaleState::Published
            | SaleState::Open
            | SaleState::Paused
            | SaleState::Closed
            | SaleState::Frozen) => state,
        }
    }

    /// Of a frozen sale the state that it was in; unknown where it began as a frozen one.
    pub(crate) fn state_before_freeze(&self) -> Option<SaleState> {
        let state = state_of(self.before_freeze.load(Ordering::Acquire));
        (state != SaleState::Frozen).then_some(state)
    }

    pub(crate) fn set_state(&self, state: SaleState) {
        if state != SaleState::Frozen {
            self.before_freeze.store(state as u8, Ordering::Release);
        }
        // Release: pairs with `state`.
        self.state.store(state as u8, Ordering::Release);
        self.touch();
    }

    /// The state after all entries that the committer has built so far.
    pub(crate) fn gate(&self) -> SaleState {
        // Relaxed: read and written by the committer alone.
        state_of(self.gate.load(Ordering::Relaxed))
    }

    pub(crate) fn set_gate(&self, state: SaleState) {
        self.gate.store(state as u8, Ordering::Relaxed);
    }

    /// Grows with every change of state or stock size.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn touch(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Units of an item for sale now: one load.
    pub fn available_units(&self, item: ItemIndex) -> u32 {
        self.ledger.available_units(item)
    }

    /// All counters of an item, in the ledger.
    pub fn units(&self, item: ItemIndex) -> ItemUnits {
        self.ledger.units(item)
    }

    /// How many of its reservations are in which state, in the ledger.
    pub fn reservations(&self) -> StateCounts {
        self.ledger.reservations_by_state()
    }

    /// Tries that one address may make.
    pub(crate) fn address_rate(&self) -> Rate {
        self.address_rate
    }

    /// Tries that one buyer may make.
    pub(crate) fn buyer_rate(&self) -> Rate {
        self.buyer_rate
    }

    pub(crate) fn ledger(&self) -> &Ledger<Arc<Fate>> {
        &self.ledger
    }

    /// Place of an item.
    pub fn item_index(&self, item: &ItemId) -> Option<ItemIndex> {
        if self.item_indices.is_empty() {
            let index = self
                .definition
                .items
                .iter()
                .position(|known| known.item == *item)?;
            return u16::try_from(index).ok().map(ItemIndex);
        }
        self.item_indices.get(item).copied()
    }

    /// Lines by name as lines by place, summed; `None` if an item is not of this sale.
    pub(crate) fn lines(&self, lines: &[(ItemId, Quantity)]) -> Option<Lines> {
        let mut resolved: SmallVec<[Line; 1]> = SmallVec::with_capacity(lines.len());
        for (item, quantity) in lines {
            resolved.push(Line {
                item: self.item_index(item)?,
                quantity: *quantity,
            });
        }
        Lines::merged(resolved)
    }

    pub(crate) fn priced(&self, lines: &Lines) -> SmallVec<[PricedLine; 1]> {
        let priced = |line: &Line| PricedLine {
            item: line.item,
            quantity: line.quantity,
            unit_price_minor: self.price(line.item),
        };
        lines.as_slice().iter().map(priced).collect()
    }

    /// These are the prices of now: no change of price came between a decision and its batch.
    pub(crate) fn sells_at(&self, lines: &[PricedLine]) -> bool {
        lines
            .iter()
            .all(|line| line.unit_price_minor == self.price(line.item))
    }

    /// Nothing of this item is left that could come back by itself.
    pub(crate) fn is_drained(&self, item: ItemIndex) -> bool {
        self.ledger.is_drained(item)
    }

    pub(crate) fn job_begins(&self) {
        // SeqCst: ordered against `is_leaving`, which others write (see `visit`).
        self.in_flight_jobs.fetch_add(1, Ordering::SeqCst);
        self.begun_jobs.fetch_add(1, Ordering::SeqCst);
    }

    /// A mark of stillness: `None` while something is in flight. Two equal marks: nothing happened in between.
    pub(crate) fn stillness(&self) -> Option<u64> {
        let begun = self.begun_jobs.load(Ordering::SeqCst);
        self.is_quiet().then_some(begun)
    }

    pub(crate) fn job_ends(&self) {
        let before = self.in_flight_jobs.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "a job ends once");
    }

    /// No job of this sale is queued or with the store, and no command is being decided.
    pub(crate) fn is_quiet(&self) -> bool {
        self.in_flight_jobs.load(Ordering::SeqCst) == 0
    }

    /// The right to decide a command here; `None` while the sale is about to leave memory.
    ///
    /// A visitor counts itself, then looks whether the sale leaves; the committer says that it leaves, then
    /// looks for visitors. In one total order (SeqCst) at least one of them sees the other.
    pub(crate) fn visit(&self) -> Option<Visit<'_>> {
        self.job_begins();
        let visit = Visit(self);
        (!self.is_leaving.load(Ordering::SeqCst)).then_some(visit)
    }

    /// Closes the sale to visitors if nobody is there.
    pub(crate) fn begin_leaving(&self) -> bool {
        self.is_leaving.store(true, Ordering::SeqCst);
        let is_quiet = self.is_quiet();
        if !is_quiet {
            self.stay();
        }
        is_quiet
    }

    /// It does not leave after all.
    pub(crate) fn stay(&self) {
        self.is_leaving.store(false, Ordering::SeqCst);
    }

    pub(crate) fn stock_answer(&self, key: &IdempotencyKey) -> Option<StockAnswer> {
        self.stock_changes.lock().get(key).copied()
    }

    pub(crate) fn remember_stock_answer(&self, key: IdempotencyKey, answer: StockAnswer) {
        self.stock_changes.lock().insert(key, answer);
    }

    /// Goes on where the value that it takes the place of stood: commands wait for the same turn and are remembered, and
    /// marks do not come a second time.
    pub(crate) fn succeed(&mut self, before: &Self) {
        self.go_on_from(before);
        self.stock_changes
            .get_mut()
            .clone_from(&before.stock_changes.lock());
    }

    /// The same, but for what is remembered: that is as the store has it.
    pub(crate) fn go_on_from(&mut self, before: &Self) {
        self.turn = Arc::clone(&before.turn);
        // As if it had changed once more: whoever knows the marks of before looks anew.
        *self.version.get_mut() = before.version() + 1;
        self.share_events_mark(before);
        self.event_came();
    }

    /// What becomes durable through this value shows in the mark of the other.
    pub(crate) fn share_events_mark(&mut self, other: &Self) {
        self.events_mark = Arc::clone(&other.events_mark);
    }

    /// How long a reservation is kept unpaid.
    pub(crate) fn payment_window(&self) -> std::time::Duration {
        std::time::Duration::from_secs(self.definition.payment_window_s.into())
    }

    /// Least time that an open reservation keeps after a restart.
    pub(crate) fn restart_grace(&self) -> std::time::Duration {
        self.payment_window().min(bounds::RESTART_GRACE)
    }

    /// The reservation as everybody sees it; `None` while it has no number.
    pub(crate) fn reservation(
        &self,
        record: RecordRef,
        durability: Durability,
    ) -> Option<Reservation> {
        self.rendered(&self.ledger.view(record)?, durability)
    }

    pub(crate) fn rendered(
        &self,
        view: &View<Arc<Fate>>,
        durability: Durability,
    ) -> Option<Reservation> {
        let lines: SmallVec<[ReservationLine; 1]> = view
            .lines
            .iter()
            .map(|line| ReservationLine {
                item: self.definition.items[usize::from(line.item.0)].item,
                quantity: line.units,
                unit_price_minor: line.unit_price_minor,
                refunded_units: line.refunded_units,
            })
            .collect();
        let amount_minor = amount_of(&lines);
        Some(Reservation {
            reservation_id: ReservationId {
                sale_no: self.sale_no,
                serial: view.serial?,
            },
            sale_id: self.definition.sale_id,
            buyer_id: view.buyer,
            state: view.state,
            lines,
            amount_minor,
            currency: self.definition.currency,
            created_at: view.created_at,
            expires_at: view.expires_at,
            payment_ref: view.payment_ref,
            durability,
        })
    }

    /// A stored reservation of a sale that left memory, as everybody sees it.
    pub(crate) fn rendered_row(
        &self,
        row: &flash_store::ReservationRow,
        durability: Durability,
    ) -> Reservation {
        let lines: SmallVec<[ReservationLine; 1]> = row
            .lines
            .iter()
            .map(|line| ReservationLine {
                item: self.definition.items[usize::from(line.item.0)].item,
                quantity: line.units,
                unit_price_minor: line.unit_price_minor,
                refunded_units: line.refunded_units,
            })
            .collect();
        Reservation {
            reservation_id: ReservationId {
                sale_no: self.sale_no,
                serial: row.serial,
            },
            sale_id: self.definition.sale_id,
            buyer_id: row.buyer,
            state: row.state,
            amount_minor: amount_of(&lines),
            lines,
            currency: self.definition.currency,
            created_at: row.created_at,
            expires_at: row.expires_at,
            payment_ref: row.payment_ref,
            durability,
        }
    }
}

fn amount_of(lines: &[ReservationLine]) -> Money {
    lines.iter().fold(Money(0), |sum, line| {
        sum.plus(line.unit_price_minor.times(line.quantity))
    })
}

/// What a read shows while a transition is in flight: only what is committed is told as such.
pub(crate) fn shown(mut reservation: Reservation, is_in_flight: bool) -> Reservation {
    if is_in_flight {
        reservation.state = ReservationState::Unknown;
    }
    reservation
}

fn state_of(code: u8) -> SaleState {
    const STATES: [SaleState; 6] = [
        SaleState::Draft,
        SaleState::Published,
        SaleState::Open,
        SaleState::Paused,
        SaleState::Closed,
        SaleState::Frozen,
    ];
    let state = STATES[usize::from(code)];
    assert!(
        state as u8 == code,
        "states are listed in the order of their codes"
    );
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_before_a_change_of_price_are_told_from_those_of_now() {
        let item = |name: &str| serde_json::json!({"item": name, "title": name, "sale_price_minor": 100, "stock_units": 1});
        let definition: SaleDefinition = serde_json::from_value(serde_json::json!({
            "sale_id": "s1", "title": "Sale", "starts_at": Timestamp(0), "ends_at": Timestamp(1),
            "currency": "CNY", "items": [item("a"), item("b")]
        }))
        .unwrap();
        let units = Sale::draft_units(&definition);
        let state = SaleState::Paused;
        let sale = Sale::new(SaleNo(1), definition, state, &units, false, HashKey(1, 2));
        let priced = |item| {
            let lines = Lines::merged([Line {
                item: ItemIndex(item),
                quantity: Quantity::of_line(1).unwrap(),
            }]);
            sale.priced(&lines.unwrap())
        };
        let (first, second) = (priced(0), priced(1));
        sale.set_price(ItemIndex(0), Money(90));
        assert!(!sale.sells_at(&first));
        assert!(sale.sells_at(&second));
        assert!(sale.sells_at(&priced(0)));
    }
}
