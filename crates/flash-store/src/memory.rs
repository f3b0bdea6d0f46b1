//! The store of tests and simulations: the same answers as the embedded one, kept in memory, with faults on demand.
//!
//! A clone shares the content: drop the engine, open a clone again, and it is a restart.

mod state;

use std::sync::Arc;

use flash_types::{BuyerId, Durability, IdempotencyKey, PaymentRef, SaleNo, SaleState, Serial};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::words::{ATTEMPTS, attempts_of, is_internal};
use crate::{
    AcceptError, AdminNote, AttemptsRow, Batch, CommitError, Committed, DecisionRow, Entry,
    EntryRefusal, EventPlace, EventRange, EventRow, ItemRow, Lanes, Loaded, NotApplied, OpenError,
    Opened, Page, ReadError, ReservationFilter, ReservationRow, SaleContent, SaleRow, Store,
};
use state::{State, Stopped};

/// What becomes of the next commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemoryFault {
    /// Refused, nothing applied.
    NotApplied(NotApplied),
    /// Fate unknown, for this reason; it was not applied.
    Fatal(String),
    /// Fate unknown, for this reason; it was applied.
    FatalApplied(String),
    /// Its first change is not taken, for this reason; the others are.
    Refused(EntryRefusal),
    /// The sale must not go on.
    Frozen {
        /// What was found.
        reason: String,
        /// Nothing was applied; else nobody knows (and nothing was).
        is_known: bool,
    },
    /// Applied, after the store had been away.
    Moved,
}

/// What a store held at some moment.
#[derive(Debug, Clone)]
pub struct MemorySnapshot(State);

/// Where commits wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    BeforeApplying,
    BeforeApplyingOf(SaleNo),
    BeforeAnswering,
}

/// In memory; a clone has the same content.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    gate: Arc<watch::Sender<Gate>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            gate: Arc::new(watch::Sender::new(Gate::Open)),
        }
    }

    /// An empty store with a lane for each sale, like one that several nodes share.
    pub fn per_sale() -> Self {
        let store = Self::new();
        store.state.lock().is_per_sale = true;
        store
    }

    /// What it holds now.
    pub fn snapshot(&self) -> MemorySnapshot {
        MemorySnapshot(self.state.lock().clone())
    }

    /// Loses everything since, as a store does that was not flushed; where batches stand is not lost.
    pub fn restore(&self, snapshot: &MemorySnapshot) {
        let mut state = self.state.lock();
        let (epoch, faults) = (state.epoch, std::mem::take(&mut state.faults));
        let tips = state.tips();
        *state = snapshot.0.clone();
        state.set_tips(tips);
        (state.epoch, state.faults) = (epoch, faults);
    }

    /// All that is stored of a sale.
    pub(crate) fn content(&self, sale_no: SaleNo) -> Option<SaleContent> {
        let state = self.state.lock();
        let sale = state.sales.get(&sale_no)?.clone();
        let reservations = state.reservations.values();
        let decisions = state.decisions.values();
        Some(SaleContent {
            ev: 0,
            thaw: None,
            reservations: reservations
                .filter(|row| row.sale_no == sale_no)
                .cloned()
                .collect(),
            decisions: decisions
                .filter(|row| row.sale_no == sale_no)
                .cloned()
                .collect(),
            sale,
        })
    }

    /// Takes a sale as it is.
    pub(crate) fn accept(
        &self,
        sale_no: SaleNo,
        number: Serial,
        note: &AdminNote,
        is_same: bool,
    ) -> Result<SaleState, AcceptError> {
        let mut state = self.state.lock();
        state.notes.push((number.0, note.clone()));
        let sale = state.sales.get_mut(&sale_no);
        let sale = sale.ok_or_else(|| AcceptError::Refused("it is not there".into()))?;
        if sale.state == SaleState::Frozen {
            sale.state = SaleState::Open;
        }
        if !is_same && sale.state == SaleState::Open {
            sale.state = SaleState::Paused;
        }
        Ok(sale.state)
    }

    /// Starts, or starts again: the epoch is raised, and a store that had stopped or was closed takes batches again.
    ///
    /// # Errors
    /// Where the books refused a batch before: what it changed until then is still there.
    pub fn opened(&self) -> Result<Opened, OpenError> {
        let mut state = self.state.lock();
        if let Some(what) = &state.broken_books {
            return Err(OpenError::Damaged {
                file: "memory".into(),
                what: what.clone(),
            });
        }
        state.epoch += 1;
        state.stopped = None;
        state.forget_tips();
        Ok(Opened {
            epoch: state.epoch,
            last_batch: state.last_batch(),
            last_at: state.last_at,
        })
    }

    /// Hands over all that is stored, like the embedded store.
    ///
    /// # Errors
    /// None today; the signature is that of the embedded store.
    pub fn load(&self, into: &mut dyn Loaded) -> Result<(), OpenError> {
        let state = self.state.lock();
        let is_live = |sale_no: SaleNo| {
            state
                .sales
                .get(&sale_no)
                .is_some_and(|sale| !sale.is_retired)
        };
        for sale in state.sales.values() {
            into.sale(sale.clone());
        }
        for row in state.reservations.values() {
            if is_live(row.sale_no) {
                into.reservation(row.clone());
            }
        }
        for row in state.decisions.values() {
            if is_live(row.sale_no) {
                into.decision(row.clone());
            }
        }
        Ok(())
    }

    /// From now on commits wait, not applied, until [`MemoryStore::release`].
    pub fn hold(&self) {
        self.gate.send_replace(Gate::BeforeApplying);
    }

    /// The same for the commits of one sale's lane; the others go on.
    pub fn hold_sale(&self, sale_no: SaleNo) {
        self.gate.send_replace(Gate::BeforeApplyingOf(sale_no));
    }

    /// From now on commits are applied, and their answers wait until [`MemoryStore::release`].
    pub fn hold_answers(&self) {
        self.gate.send_replace(Gate::BeforeAnswering);
    }

    /// Lets held commits go on.
    pub fn release(&self) {
        self.gate.send_replace(Gate::Open);
    }

    /// Decides what becomes of the next commit; several are taken in turn.
    pub fn fail_next(&self, fault: MemoryFault) {
        self.state.lock().faults.push_back(fault);
    }

    /// Every change that was ever applied, in order: (batch number, entry).
    pub fn entries(&self) -> Vec<(u64, Entry)> {
        self.state.lock().entries.clone()
    }

    /// The sales as stored.
    pub fn sales(&self) -> Vec<SaleRow> {
        self.state.lock().sales.values().cloned().collect()
    }

    /// The reservations of all sales, ascending by serial.
    pub fn all_reservations(&self) -> Vec<ReservationRow> {
        self.state.lock().reservations.values().cloned().collect()
    }

    /// The decisions of all sales.
    pub fn all_decisions(&self) -> Vec<DecisionRow> {
        self.state.lock().decisions.values().cloned().collect()
    }

    async fn passes(&self, held: Gate) {
        let mut gate = self.gate.subscribe();
        // The sender lives in `self`: it cannot be gone.
        let _ = gate.wait_for(|gate| *gate != held).await;
    }
}

impl Store for MemoryStore {
    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        self.passes(Gate::BeforeApplying).await;
        if let Some(entry) = batch.entries.first() {
            self.passes(Gate::BeforeApplyingOf(entry.sale_no)).await;
        }
        let verdict = self.state.lock().commit(batch);
        self.passes(Gate::BeforeAnswering).await;
        verdict
    }

    fn lanes(&self) -> Lanes {
        if self.state.lock().is_per_sale {
            Lanes::PerSale
        } else {
            Lanes::One
        }
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    async fn reservation(
        &self,
        sale_no: SaleNo,
        serial: Serial,
    ) -> Result<Option<ReservationRow>, ReadError> {
        let row = self.state.lock().reservations.get(&serial).cloned();
        Ok(row.filter(|row| row.sale_no == sale_no))
    }

    async fn reservation_by_key(
        &self,
        sale_no: SaleNo,
        buyer: BuyerId,
        key: IdempotencyKey,
    ) -> Result<Option<ReservationRow>, ReadError> {
        let state = self.state.lock();
        let row = state
            .reservations
            .values()
            .find(|row| row.sale_no == sale_no && row.buyer == buyer && row.key == key);
        Ok(row.cloned())
    }

    async fn payment_decision(
        &self,
        sale_no: SaleNo,
        payment_ref: PaymentRef,
    ) -> Result<Option<DecisionRow>, ReadError> {
        let key = (sale_no, "payment", payment_ref.as_str().to_owned(), 0);
        Ok(self.state.lock().decisions.get(&key).cloned())
    }

    async fn decisions_of(
        &self,
        sale_no: SaleNo,
        serial: Serial,
    ) -> Result<Vec<DecisionRow>, ReadError> {
        let state = self.state.lock();
        let rows = state.decisions.values();
        Ok(rows
            .filter(|row| row.sale_no == sale_no && row.decision.reservation == Some(serial))
            .cloned()
            .collect())
    }

    async fn events(&self, range: EventRange, limit: usize) -> Result<Vec<EventRow>, ReadError> {
        let state = self.state.lock();
        let is_in = |row: &EventRow| match range {
            EventRange::OfSale(sale_no, after) => row.sale_no == sale_no && row.place > after,
            EventRange::OfAll(after) => after.is_none_or(|(_, after)| row.place > after),
        };
        let events = state.events.iter();
        events
            .filter(|told| !is_internal(&told.row.kind) && is_in(&told.row))
            .take(limit)
            .map(|told| state.told(told))
            .collect()
    }

    async fn attempts(&self, sale_no: SaleNo) -> Result<Vec<AttemptsRow>, ReadError> {
        let state = self.state.lock();
        let events = state.events.iter().map(|told| &told.row);
        events
            .filter(|row| row.sale_no == sale_no && row.kind == ATTEMPTS)
            .map(|row| attempts_of(row.data.as_deref().unwrap_or_default()).map_err(ReadError))
            .collect()
    }

    async fn last_places(&self) -> Result<Vec<(SaleNo, EventPlace)>, ReadError> {
        let state = self.state.lock();
        let mut last = std::collections::BTreeMap::new();
        let outside = state
            .events
            .iter()
            .filter(|told| !is_internal(&told.row.kind));
        for told in outside {
            last.insert(told.row.sale_no, told.row.place);
        }
        Ok(last.into_iter().collect())
    }

    async fn reservations(
        &self,
        sale_no: SaleNo,
        filter: ReservationFilter,
        page: Page,
    ) -> Result<Vec<ReservationRow>, ReadError> {
        let state = self.state.lock();
        let after = Serial(page.after.0.saturating_add(1));
        let updated: Option<std::collections::HashSet<Serial>> = filter.updated_after.map(|time| {
            let events = state.events.iter().filter(|told| told.batch_at > time);
            events.filter_map(|told| told.of).collect()
        });
        Ok(state
            .reservations
            .range(after..)
            .map(|(_, row)| row)
            .filter(|row| {
                row.sale_no == sale_no
                    && filter.buyer.is_none_or(|buyer| buyer == row.buyer)
                    && filter.state.is_none_or(|state| state == row.state)
                    && updated
                        .as_ref()
                        .is_none_or(|updated| updated.contains(&row.serial))
            })
            .take(page.limit)
            .cloned()
            .collect())
    }

    async fn items(&self, sale_no: SaleNo) -> Result<Vec<ItemRow>, ReadError> {
        let state = self.state.lock();
        Ok(state
            .sales
            .get(&sale_no)
            .map_or_else(Vec::new, |sale| sale.items.clone()))
    }

    async fn admin_notes(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, AdminNote)>, ReadError> {
        let state = self.state.lock();
        Ok(state
            .notes
            .iter()
            .filter(|(number, _)| *number > after)
            .take(limit)
            .cloned()
            .collect())
    }

    async fn close(&self) {
        let mut state = self.state.lock();
        state.stopped.get_or_insert(Stopped::Closed);
    }
}
