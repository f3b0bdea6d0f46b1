//! What a merchant does to a sale: draft, publish, pause, resume, close, change its stock, audit it.
//!
//! One command at a time per sale (its turn ends when its job does), each through the committer, each with its line in the admin audit log.

use std::sync::Arc;
use std::time::Instant;

use flash_store::{AdminNote, Store, WaveRef};
use flash_types::{
    IdempotencyKey, ItemId, ItemIndex, Refusal, SaleDefinition, SaleId, SaleNo, SaleState,
    Timestamp, bounds,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::committer::is_used;
use crate::fate::{Fate, Verdict};
use crate::prices::PriceCode;
use crate::queue::{Class, Job, Work};
use crate::recovery::imbalances;
use crate::sale::Sale;
use crate::{AdminRefusal, Engine, ItemAudit, SaleAudit, SaleCommand, Who};

/// Longest text that the audit log keeps of one command, bytes.
const NOTE_BYTES_MAX: usize = 2_048;

impl SaleCommand {
    /// Its name in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "sale.publish",
            Self::Pause => "sale.pause",
            Self::Resume => "sale.resume",
            Self::Close => "sale.close",
            Self::Unpublish => "sale.unpublish",
        }
    }

    fn work(self) -> Work {
        match self {
            Self::Publish => Work::Publish,
            Self::Pause => Work::Pause,
            Self::Resume => Work::Resume,
            Self::Close => Work::Close,
            Self::Unpublish => Work::Unpublish,
        }
    }

    /// Whether the command's effect stands already.
    fn stands(self, state: SaleState) -> bool {
        match self {
            Self::Publish => matches!(state, SaleState::Published | SaleState::Open),
            Self::Pause => state == SaleState::Paused,
            Self::Resume => state == SaleState::Open,
            Self::Close => state == SaleState::Closed,
            Self::Unpublish => state == SaleState::Draft,
        }
    }
}

impl From<Refusal> for AdminRefusal {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

const CONFLICT: Refusal = Refusal::StateConflict { refund_due: false };

impl Engine {
    /// Makes a draft (`replace: false`) or replaces one (`true`).
    ///
    /// # Errors
    /// `malformed` with the field; `state_conflict` where the sale exists, or is no draft any more; `not_found` for
    /// a replacement of nothing.
    ///
    /// # Cancel safety
    /// After the hand-over the command goes on without its caller.
    pub async fn put_draft(
        &self,
        definition: SaleDefinition,
        replace: bool,
        who: Who,
    ) -> Result<Arc<Sale>, AdminRefusal> {
        definition.check().map_err(AdminRefusal::Malformed)?;
        let deadline = self.deadline();
        let mut turns = vec![self.turn(&self.making, deadline).await?];
        let known = self.catalogue.find(&definition.sale_id);
        // Nobody publishes the old draft while it is replaced.
        if let (Some(sale), true) = (&known, replace) {
            turns.push(self.turn(&sale.turn, deadline).await?);
        }
        let sale_no = match (&known, replace) {
            (Some(sale), true) if sale.state() == SaleState::Draft => sale.sale_no(),
            (Some(_), _) => return Err(CONFLICT.into()),
            (None, true) => return Err(Refusal::NotFound.into()),
            (None, false) => self.next_sale_no()?,
        };
        let units = Sale::draft_units(&definition);
        let detail = serde_json::to_string(&definition).unwrap_or_default();
        let name = if replace {
            "sale.replace"
        } else {
            "sale.create"
        };
        let note = self.note_of(&who, name, Some(&definition.sale_id), "ok", &detail);
        let work = Work::PutDraft(Box::new(definition.clone()));
        let key = self.config.hash_key;
        let mut sale = Sale::new(sale_no, definition, SaleState::Draft, &units, false, key);
        if let Some(known) = &known {
            // Also answers from before it was unpublished: the store keeps them under their keys for ever.
            sale.succeed(known);
        }
        let sale = Arc::new(sale);
        self.submit(&sale, work, Some(note), turns, deadline)
            .await?;
        Ok(sale)
    }

    fn next_sale_no(&self) -> Result<SaleNo, Refusal> {
        let sales = self.catalogue.all();
        if sales.len() >= bounds::SALES_MAX {
            return Err(self.overloaded());
        }
        Ok(SaleNo(sales.last().map_or(1, |sale| sale.sale_no().0 + 1)))
    }

    /// Publishes a draft though its prices look like mistakes of these kinds. Else as [`Engine::command`].
    ///
    /// # Errors
    /// As for [`Engine::command`].
    ///
    /// # Cancel safety
    /// After the hand-over the command goes on without its caller.
    pub async fn publish(
        &self,
        sale_id: &SaleId,
        accepted: &[PriceCode],
        who: Who,
    ) -> Result<Arc<Sale>, AdminRefusal> {
        self.carry_out_command(sale_id, SaleCommand::Publish, accepted, who)
            .await
    }

    /// Publishes, pauses, resumes, closes or makes a draft again. A command whose effect stands succeeds. After the `Ok`
    /// of a pause or a close nothing more is reserved; after that of a publish whose start has passed the sale is open.
    ///
    /// # Errors
    /// `not_found`, `state_conflict`, `price_guard`, `sale_frozen`, or the store's.
    ///
    /// # Cancel safety
    /// After the hand-over the command goes on without its caller.
    pub async fn command(
        &self,
        sale_id: &SaleId,
        command: SaleCommand,
        who: Who,
    ) -> Result<Arc<Sale>, AdminRefusal> {
        self.carry_out_command(sale_id, command, &[], who).await
    }

    async fn carry_out_command(
        &self,
        sale_id: &SaleId,
        command: SaleCommand,
        accepted: &[PriceCode],
        who: Who,
    ) -> Result<Arc<Sale>, AdminRefusal> {
        let deadline = self.deadline();
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        let turns = vec![self.turn(&sale.turn, deadline).await?];
        // A draft may have been replaced while this waited for its turn.
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        let state = sale.state();
        if state == SaleState::Frozen {
            return Err(Refusal::SaleFrozen.into());
        }
        let wall = self.clock.read().wall;
        let is_over = wall >= sale.definition().ends_at;
        if !command.stands(state) {
            if is_over && matches!(command, SaleCommand::Publish | SaleCommand::Resume) {
                return Err(Refusal::SaleEnded.into());
            }
            let mut detail = String::new();
            match command {
                SaleCommand::Publish => {
                    detail = self.guard(&sale, accepted, wall)?;
                }
                SaleCommand::Unpublish => can_be_draft(&sale)?,
                SaleCommand::Pause | SaleCommand::Resume | SaleCommand::Close => {}
            }
            let stops = matches!(command, SaleCommand::Pause | SaleCommand::Unpublish);
            if stops && state == SaleState::Open {
                // New purchases see it at once; those decided before it are committed before it.
                sale.set_state(SaleState::Paused);
            }
            let note = self.note_of(&who, command.as_str(), Some(sale_id), "ok", &detail);
            self.submit(&sale, command.work(), Some(note), turns, deadline)
                .await?;
        }
        // A draft again is another value.
        if command == SaleCommand::Unpublish {
            return Ok(self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?);
        }
        if command == SaleCommand::Publish && wall >= sale.definition().starts_at {
            self.wait_until_open(&sale, deadline).await?;
        }
        Ok(sale)
    }

    async fn wait_until_open(&self, sale: &Sale, deadline: Instant) -> Result<(), AdminRefusal> {
        loop {
            let mut opened = std::pin::pin!(sale.opened.notified());
            // Registered before the look, so an opening between look and wait is not missed.
            opened.as_mut().enable();
            if sale.state() != SaleState::Published {
                return Ok(());
            }
            self.queue.poke(sale.sale_no());
            if tokio::time::timeout_at(deadline.into(), opened)
                .await
                .is_err()
            {
                return Err(AdminRefusal::Unknown);
            }
        }
    }

    /// Changes the stock of an item; gives the units applied. The same key gets the same answer.
    ///
    /// # Errors
    /// `not_found`, `state_conflict` for a draft, a closed sale or a stock beyond 2^32 - 1,
    /// `idempotency_key_reused`, `malformed`, or the store's.
    ///
    /// # Cancel safety
    /// After the hand-over the command goes on without its caller.
    pub async fn change_stock(
        &self,
        sale_id: &SaleId,
        item: &ItemId,
        key: &IdempotencyKey,
        delta_units: i64,
        reason: &str,
        who: Who,
    ) -> Result<i64, AdminRefusal> {
        if delta_units == 0 || delta_units.unsigned_abs() > u64::from(u32::MAX) {
            let detail = "delta_units must be 1 to 4294967295, or as much below zero";
            return Err(AdminRefusal::Malformed(detail.into()));
        }
        let deadline = self.deadline();
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        let turns = vec![self.turn(&sale.turn, deadline).await?];
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        let index = sale.item_index(item).ok_or(Refusal::NotFound)?;
        if let Some(known) = sale.stock_answer(key) {
            return if (known.item, known.asked_delta_units) == (index, delta_units) {
                Ok(known.applied_delta_units)
            } else {
                Err(Refusal::IdempotencyKeyReused.into())
            };
        }
        match sale.state() {
            SaleState::Frozen => return Err(Refusal::SaleFrozen.into()),
            SaleState::Draft | SaleState::Closed => return Err(CONFLICT.into()),
            SaleState::Published | SaleState::Open | SaleState::Paused => {}
        }
        let change = sale
            .ledger()
            .begin_stock_change(index, delta_units)
            .ok_or(CONFLICT)?;
        let applied = change.applied_delta_units;
        let detail = format!("{item}: {delta_units} asked, {applied} applied: {reason}");
        let note = self.note_of(&who, "sale.change_stock", Some(sale_id), "ok", &detail);
        let work = Work::ChangeStock {
            change,
            key: *key,
            asked_delta_units: delta_units,
            reason: reason.to_owned(),
        };
        self.submit(&sale, work, Some(note), turns, deadline)
            .await?;
        Ok(applied)
    }

    /// Releases units of an item by hand; gives how many. The same key gets the same answer.
    ///
    /// # Errors
    /// `not_found`; a conflict where the sale is not published, open or paused, or fewer units are unreleased;
    /// `idempotency_key_reused`, `malformed`, or the store's.
    ///
    /// # Cancel safety
    /// After the hand-over the command goes on without its caller.
    pub async fn release(
        &self,
        sale_id: &SaleId,
        item: &ItemId,
        key: Option<IdempotencyKey>,
        units: u32,
        who: Who,
    ) -> Result<u32, AdminRefusal> {
        if units == 0 {
            return Err(AdminRefusal::Malformed("units must be 1-4294967295".into()));
        }
        let deadline = self.deadline();
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        let turns = vec![self.turn(&sale.turn, deadline).await?];
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        let index = sale.item_index(item).ok_or(Refusal::NotFound)?;
        let wave = WaveRef::Hand(key);
        let known = key.and_then(|_| sale.waves().units(index, wave));
        if let Some(known) = known {
            return if known == units {
                Ok(known)
            } else {
                Err(Refusal::IdempotencyKeyReused.into())
            };
        }
        match sale.state() {
            SaleState::Frozen => return Err(Refusal::SaleFrozen.into()),
            SaleState::Published | SaleState::Open | SaleState::Paused => {}
            state @ (SaleState::Draft | SaleState::Closed) => {
                let why = format!("the sale is {}: nothing is released", state.as_str());
                return Err(AdminRefusal::Conflict(why));
            }
        }
        let unreleased = sale.ledger().unreleased_units(index);
        if units > unreleased {
            let why = format!("{unreleased} units of {item} are unreleased, fewer than {units}");
            return Err(AdminRefusal::Conflict(why));
        }
        let detail = format!("{item}: {units} units");
        let note = self.note_of(&who, "sale.release", Some(sale_id), "ok", &detail);
        let work = Work::Wave {
            item: index,
            wave,
            due_at: Timestamp(0),
            units,
        };
        self.submit(&sale, work, Some(note), turns, deadline)
            .await?;
        Ok(units)
    }

    /// The store's counters of one sale, held against each other and, where nothing is in flight, against the ledger.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn audit(&self, sale_id: &SaleId) -> Result<SaleAudit, Refusal> {
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        // What is in memory counts only if nothing moved while it was looked at, and while the store was asked.
        let still = sale.stillness().filter(|_| !sale.is_retired());
        let mut findings = if still.is_some() {
            imbalances(&sale)
        } else {
            vec![]
        };
        let items = (0u16..).take(sale.definition().items.len());
        let in_memory: Vec<_> = items.map(|index| sale.units(ItemIndex(index))).collect();
        let rows = self.store_read(self.store.items(sale.sale_no()).await)?;
        if still.is_some() && sale.stillness() == still {
            for (row, in_memory) in rows.iter().zip(in_memory) {
                if row.units != in_memory {
                    findings.push(format!("{}: the store and the ledger differ", row.item));
                }
            }
        } else {
            findings.clear();
        }
        for row in rows.iter().filter(|row| row.units.imbalance() != 0) {
            findings.push(format!(
                "{}: {} units out of balance",
                row.item,
                row.units.imbalance()
            ));
        }
        let items = rows
            .into_iter()
            .map(|row| ItemAudit {
                item: row.item,
                units: row.units,
            })
            .collect();
        Ok(SaleAudit {
            ok: findings.is_empty(),
            items,
            findings,
        })
    }

    /// Notes an admin command that was refused before it reached the engine. Dropped when too many wait.
    pub fn note(
        &self,
        who: &Who,
        command: &str,
        sale_id: Option<&SaleId>,
        outcome: &str,
        detail: &str,
    ) {
        let note = self.note_of(who, command, sale_id, outcome, detail);
        let mut notes = self.notes.lock();
        if notes.len() < crate::NOTES_MAX {
            notes.push(note);
            drop(notes);
            self.queue.poke(SaleNo(0));
        }
    }

    pub(crate) fn take_notes(&self) -> Vec<AdminNote> {
        std::mem::take(&mut *self.notes.lock())
    }

    /// What the log says once a store in trouble takes batches again.
    pub(crate) fn recovery_note(&self) -> Option<AdminNote> {
        let trouble = self.store_trouble.lock().clone()?;
        let who = Who {
            name: "engine".into(),
        };
        Some(self.note_of(&who, "store.recovered", None, "ok", &trouble))
    }

    /// Lines of the admin audit log, ascending by number.
    ///
    /// # Errors
    /// `store_unavailable`.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn admin_notes(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, AdminNote)>, Refusal> {
        self.store_read(self.store.admin_notes(after, limit).await)
    }

    pub(crate) fn note_of(
        &self,
        who: &Who,
        command: &str,
        sale_id: Option<&SaleId>,
        outcome: &str,
        detail: &str,
    ) -> AdminNote {
        let end = detail.floor_char_boundary(NOTE_BYTES_MAX);
        AdminNote {
            at: self.clock.read().wall,
            who: who.name.clone(),
            command: command.to_owned(),
            sale_id: sale_id.copied(),
            outcome: outcome.to_owned(),
            detail: detail[..end].to_owned(),
        }
    }

    /// A turn, taken along by the job; "overloaded" if the one before has not ended by the deadline.
    pub(crate) async fn turn(
        &self,
        of: &Arc<Semaphore>,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        let turn = Arc::clone(of).acquire_owned();
        match tokio::time::timeout_at(deadline.into(), turn).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) => Err(Refusal::Stopping),
            Err(_) => Err(self.overloaded()),
        }
    }

    /// Hands an admin change over and waits for its fate.
    pub(crate) async fn submit(
        &self,
        sale: &Arc<Sale>,
        work: Work,
        note: Option<AdminNote>,
        turns: Vec<OwnedSemaphorePermit>,
        deadline: Instant,
    ) -> Result<(), AdminRefusal> {
        if self.is_stopping() {
            return Err(end_undecided(sale, &work, Refusal::Stopping));
        }
        let Some(slot) = self.queue.slot(Class::Settle) else {
            return Err(end_undecided(sale, &work, self.overloaded()));
        };
        let fate = Arc::new(Fate::default());
        self.queue.push(Job {
            sale: Arc::clone(sale),
            work,
            note,
            fate: Arc::clone(&fate),
            deadline,
            slot: Some(slot),
            turns,
        });
        match fate.by(deadline).await {
            Some(Verdict::Done) => Ok(()),
            Some(Verdict::Refused(refusal)) => Err(refusal.into()),
            None if fate.give_up() => Err(self.overloaded().into()),
            Some(Verdict::Elsewhere(_) | Verdict::Unknown) | None => Err(AdminRefusal::Unknown),
        }
    }
}

/// Why a sale cannot be a draft again, where it cannot.
fn can_be_draft(sale: &Sale) -> Result<(), AdminRefusal> {
    if sale.state() == SaleState::Closed {
        return Err(AdminRefusal::Conflict("the sale is closed".into()));
    }
    if is_used(sale) {
        let why = "something was reserved or released already: pause the sale, then change its price or close it";
        return Err(AdminRefusal::Conflict(why.into()));
    }
    Ok(())
}

/// Takes back what the decision took, for a change that was never handed over.
fn end_undecided(sale: &Sale, work: &Work, refusal: Refusal) -> AdminRefusal {
    match work {
        Work::ChangeStock { change, .. } => sale.ledger().abort_stock_change(change),
        Work::Pause => sale.set_state(sale.gate()),
        Work::Unpublish if sale.state() == SaleState::Paused => sale.set_state(sale.gate()),
        Work::Unpublish
        | Work::ChangePrice(_)
        | Work::Wave { .. }
        | Work::CountAttempts { .. }
        | Work::Reserve { .. }
        | Work::Transition(_)
        | Work::PutDraft(_)
        | Work::Publish
        | Work::Open
        | Work::Resume
        | Work::Close
        | Work::Freeze(_)
        | Work::Retire => {}
    }
    refusal.into()
}
