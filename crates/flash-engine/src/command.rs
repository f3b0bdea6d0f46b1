//! Commands on one reservation: confirm, cancel, refund; and reads.

use std::sync::Arc;
use std::time::Instant;

use flash_ledger::{Begin, Command, RecordRef, Step, Transition};
use flash_store::Store as _;
use flash_types::{
    BuyerId, IdempotencyKey, ItemIndex, Money, Outcome, PaymentRef, Refusal, Reservation,
    ReservationId, SaleId, SaleState, Serial,
};

use tokio::sync::OwnedSemaphorePermit;

use crate::fate::{Fate, Verdict};
use crate::queue::{Class, Job, Work};
use crate::sale::{Sale, shown};
use crate::{Caller, Engine, Reading, RefundRequest, ReservationQuery};

/// Reservations that one step of a list looks at.
const LIST_STEP: usize = 1_024;

impl Engine {
    /// Paid. The first decision per (reservation, payment) is final.
    ///
    /// # Cancel safety
    /// Dropping it before the hand-over changes nothing; after it the command goes on without its caller.
    pub async fn confirm(
        &self,
        id: ReservationId,
        payment_ref: &PaymentRef,
        amount: Option<Money>,
        now: Reading,
    ) -> Outcome {
        let command = Command::Confirm {
            payment_ref: *payment_ref,
            amount,
        };
        self.command_on(Caller::Storefront, id, |_| Some(command.clone()), now)
            .await
    }

    /// Given up by its buyer or the storefront.
    ///
    /// # Cancel safety
    /// As for [`Engine::confirm`].
    pub async fn cancel(&self, caller: Caller, id: ReservationId, now: Reading) -> Outcome {
        self.command_on(caller, id, |_| Some(Command::Cancel), now)
            .await
    }

    /// Money back for some units or all.
    ///
    /// # Cancel safety
    /// As for [`Engine::confirm`].
    pub async fn refund(
        &self,
        id: ReservationId,
        request: &RefundRequest,
        now: Reading,
    ) -> Outcome {
        let command = |sale: &Sale| {
            let lines = match &request.lines {
                Some(lines) => Some(sale.lines(lines)?),
                None => None,
            };
            Some(Command::Refund {
                refund_ref: request.refund_ref,
                restock: request.restock,
                lines,
            })
        };
        self.command_on(Caller::Storefront, id, command, now).await
    }

    /// More time to pay: one payment window, once.
    ///
    /// # Cancel safety
    /// As for [`Engine::confirm`].
    pub async fn extend(&self, id: ReservationId, now: Reading) -> Outcome {
        let command = |sale: &Sale| {
            let by = sale.payment_window();
            Some(Command::Extend { by })
        };
        self.command_on(Caller::Storefront, id, command, now).await
    }

    /// A command that may stand already: also, whether it took effect by this call.
    pub(crate) async fn told_now(
        &self,
        caller: Caller,
        id: ReservationId,
        command: Command,
        now: Reading,
    ) -> (Outcome, bool) {
        self.find_and_carry_out(caller, id, |_| Some(command), now)
            .await
    }

    async fn command_on(
        &self,
        caller: Caller,
        id: ReservationId,
        command: impl FnOnce(&Sale) -> Option<Command>,
        now: Reading,
    ) -> Outcome {
        self.find_and_carry_out(caller, id, command, now).await.0
    }

    /// Finds the sale (or its slice in the store) and carries the command out there.
    async fn find_and_carry_out(
        &self,
        caller: Caller,
        id: ReservationId,
        command: impl FnOnce(&Sale) -> Option<Command>,
        now: Reading,
    ) -> (Outcome, bool) {
        let refused = |refusal| (Outcome::Refused(refusal), false);
        let deadline = now.at + self.config.request_deadline;
        let Some(sale) = self.catalogue.numbered(id.sale_no) else {
            return refused(Refusal::NotFound);
        };
        let Some(command) = command(&sale) else {
            // A line of an item that the sale does not have cannot be part of the reservation.
            return refused(Refusal::NotFound);
        };
        if !sale.is_retired() {
            // Rare: it is leaving memory this very moment; a moment later the store answers.
            let Some(_visit) = sale.visit() else {
                return refused(self.overloaded());
            };
            return self
                .carry_out(&sale, caller, id.serial, &command, deadline, Vec::new())
                .await;
        }
        // One command at a time on sales that left memory: each works on the counters that the last one left.
        let turn = match self.turn(&self.retired_turn, deadline).await {
            Ok(turn) => turn,
            Err(refusal) => return refused(refusal),
        };
        match self.slice(&sale, id.serial, &command).await {
            Ok(Some(slice)) => {
                self.carry_out(&slice, caller, id.serial, &command, deadline, vec![turn])
                    .await
            }
            Ok(None) => refused(Refusal::NotFound),
            Err(refusal) => refused(refusal),
        }
    }

    /// begin -> commit -> answer; waits its turn behind another transition of the same reservation.
    async fn carry_out(
        &self,
        sale: &Arc<Sale>,
        caller: Caller,
        serial: Serial,
        command: &Command,
        deadline: Instant,
        mut turns: Vec<OwnedSemaphorePermit>,
    ) -> (Outcome, bool) {
        let refused = |refusal| (Outcome::Refused(refusal), false);
        let Some(record) = sale
            .ledger()
            .find(serial)
            .filter(|r| may_see(sale, *r, caller))
        else {
            return refused(Refusal::NotFound);
        };
        loop {
            if sale.state() == SaleState::Frozen {
                return refused(Refusal::SaleFrozen);
            }
            if self.is_stopping() {
                return refused(Refusal::Stopping);
            }
            let Some(slot) = self.queue.slot(Class::Settle) else {
                return refused(self.overloaded());
            };
            let fate = Arc::new(Fate::default());
            match sale.ledger().begin(serial, command, Arc::clone(&fate)) {
                Begin::Start(transition) => {
                    let told = Told::of(&transition);
                    self.queue.push(Job {
                        sale: Arc::clone(sale),
                        work: Work::Transition(transition),
                        note: None,
                        fate: Arc::clone(&fate),
                        deadline,
                        slot: Some(slot),
                        turns: std::mem::take(&mut turns),
                    });
                    let outcome = self.told(sale, record, serial, told, &fate, deadline).await;
                    return (outcome, true);
                }
                Begin::Stands(record) => {
                    return (self.standing(sale, record, deadline).await, false);
                }
                Begin::Refused(refusal) => return refused(refusal),
                Begin::Wait(other) => {
                    drop(slot);
                    if other.by(deadline).await.is_none() {
                        let id = ReservationId {
                            sale_no: sale.sale_no(),
                            serial,
                        };
                        return (Outcome::Unknown(id), false);
                    }
                }
            }
        }
    }

    async fn told(
        &self,
        sale: &Sale,
        record: RecordRef,
        serial: Serial,
        told: Told,
        fate: &Fate,
        deadline: Instant,
    ) -> Outcome {
        match (fate.by(deadline).await, told) {
            (Some(Verdict::Done), Told::Effect) => self.standing(sale, record, deadline).await,
            (Some(Verdict::Done), Told::Refusal(refusal)) => Outcome::Refused(refusal),
            (Some(Verdict::Refused(refusal)), _) => Outcome::Refused(refusal),
            (None, _) if fate.give_up() => Outcome::Refused(self.overloaded()),
            (None | Some(Verdict::Elsewhere(_) | Verdict::Unknown), _) => {
                Outcome::Unknown(ReservationId {
                    sale_no: sale.sale_no(),
                    serial,
                })
            }
        }
    }

    /// One reservation, as committed; `unknown` while something is in flight for it.
    ///
    /// # Errors
    /// `not_found`, also for another buyer's; `store_unavailable` for a sale that left memory.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn reservation(
        &self,
        caller: Caller,
        id: ReservationId,
    ) -> Result<Reservation, Refusal> {
        let sale = self
            .catalogue
            .numbered(id.sale_no)
            .ok_or(Refusal::NotFound)?;
        if sale.is_retired() {
            let row = self
                .store_read(self.store.reservation(id.sale_no, id.serial).await)?
                .ok_or(Refusal::NotFound)?;
            let is_theirs = match caller {
                Caller::Buyer(buyer) => row.buyer == buyer,
                Caller::Storefront => true,
            };
            return if is_theirs {
                Ok(sale.rendered_row(&row, self.durability()))
            } else {
                Err(Refusal::NotFound)
            };
        }
        let record = sale
            .ledger()
            .find(id.serial)
            .filter(|record| may_see(&sale, *record, caller))
            .ok_or(Refusal::NotFound)?;
        self.read(&sale, record).ok_or(Refusal::NotFound)
    }

    /// The reservation that a key won, as committed; `unknown` once sent and undecided.
    ///
    /// # Errors
    /// `not_found` where the key has not won as far as is known here.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn reservation_by_key(
        &self,
        sale_id: &SaleId,
        buyer: &BuyerId,
        key: &IdempotencyKey,
    ) -> Result<Reservation, Refusal> {
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        if sale.is_retired() {
            let found = self
                .store
                .reservation_by_key(sale.sale_no(), *buyer, *key)
                .await;
            let row = self.store_read(found)?.ok_or(Refusal::NotFound)?;
            return Ok(sale.rendered_row(&row, self.durability()));
        }
        let won = sale
            .ledger()
            .won(buyer, key, None)
            .ok_or(Refusal::NotFound)?;
        self.read(&sale, won.record).ok_or(Refusal::NotFound)
    }

    /// Reservations of a sale, ascending by serial, as committed; those in flight show as `unknown`.
    ///
    /// # Errors
    /// `not_found` for the sale, `store_unavailable`.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn reservations(
        &self,
        sale_id: &SaleId,
        query: &ReservationQuery,
        after: Serial,
        limit: usize,
    ) -> Result<Vec<Reservation>, Refusal> {
        let sale = self.catalogue.find(sale_id).ok_or(Refusal::NotFound)?;
        if let Some(payment_ref) = &query.payment_ref {
            let found = self.paid_by(&sale, payment_ref).await?;
            let fits =
                |one: &Reservation| one.reservation_id.serial > after && query.takes(&sale, one);
            return Ok(found.into_iter().filter(fits).take(limit).collect());
        }
        // A buyer's own list is in the ledger by buyer; the store would have to look through the whole sale.
        if let (Some(buyer), false) = (query.buyer, sale.is_retired()) {
            let mut own: Vec<Reservation> = sale
                .ledger()
                .records_of(&buyer, usize::MAX)
                .into_iter()
                .filter_map(|record| self.read(&sale, record))
                .filter(|one| one.reservation_id.serial > after)
                .filter(|one| query.takes(&sale, one))
                .collect();
            own.sort_unstable_by_key(|one| one.reservation_id.serial);
            own.truncate(limit);
            return Ok(own);
        }
        // When a reservation changed is known to the store alone.
        if !sale.is_retired() && query.updated_after.is_none() {
            return Ok(self.listed(&sale, query, after, limit));
        }
        self.stored_list(&sale, query, after, limit).await
    }

    /// A page as the store has it.
    async fn stored_list(
        &self,
        sale: &Sale,
        query: &ReservationQuery,
        mut after: Serial,
        limit: usize,
    ) -> Result<Vec<Reservation>, Refusal> {
        let filter = flash_store::ReservationFilter {
            buyer: query.buyer,
            state: query.state,
            updated_after: query.updated_after,
        };
        let mut found = Vec::new();
        loop {
            let page = flash_store::Page { after, limit };
            let rows =
                self.store_read(self.store.reservations(sale.sale_no(), filter, page).await)?;
            let is_last = rows.len() < limit;
            after = rows.last().map_or(after, |row| row.serial);
            let shown = rows
                .iter()
                .map(|row| sale.rendered_row(row, self.durability()))
                .filter(|one| query.takes(sale, one));
            found.extend(shown.take(limit - found.len()));
            if is_last || found.len() == limit {
                return Ok(found);
            }
        }
    }

    /// The reservation that a payment was offered for, whatever became of it.
    async fn paid_by(
        &self,
        sale: &Sale,
        payment_ref: &PaymentRef,
    ) -> Result<Option<Reservation>, Refusal> {
        let decision = self
            .store
            .payment_decision(sale.sale_no(), *payment_ref)
            .await;
        let decision = self.store_read(decision)?;
        let Some(serial) = decision.and_then(|row| row.decision.reservation) else {
            return Ok(None);
        };
        let id = ReservationId {
            sale_no: sale.sale_no(),
            serial,
        };
        self.reservation(Caller::Storefront, id).await.map(Some)
    }

    /// A page of a sale in memory.
    fn listed(
        &self,
        sale: &Sale,
        query: &ReservationQuery,
        mut after: Serial,
        limit: usize,
    ) -> Vec<Reservation> {
        let mut found = Vec::new();
        while found.len() < limit {
            let records = sale.ledger().records_after(after, LIST_STEP);
            let mut last = None;
            for record in &records {
                let Some(one) = self.read(sale, *record) else {
                    continue;
                };
                last = Some(one.reservation_id.serial);
                if query.takes(sale, &one) {
                    found.push(one);
                    if found.len() == limit {
                        break;
                    }
                }
            }
            match last {
                Some(last) if records.len() == LIST_STEP => after = last,
                _ => break,
            }
        }
        found
    }

    pub(crate) fn read(&self, sale: &Sale, record: RecordRef) -> Option<Reservation> {
        let view = sale.ledger().view(record)?;
        Some(shown(
            sale.rendered(&view, self.durability())?,
            view.in_flight.is_some(),
        ))
    }
}

impl ReservationQuery {
    fn takes(&self, sale: &Sale, one: &Reservation) -> bool {
        let has_other_price = |(item, price): (ItemIndex, Money)| {
            let item = sale.definition().items.get(usize::from(item.0));
            let mut lines = one.lines.iter();
            lines.any(|line| {
                item.is_some_and(|item| item.item == line.item) && line.unit_price_minor != price
            })
        };
        self.buyer.is_none_or(|buyer| one.buyer_id == buyer)
            && self.state.is_none_or(|state| one.state == state)
            && self.other_price.is_none_or(has_other_price)
    }
}

/// What the caller is told once the transition is durable.
#[derive(Clone, Copy)]
enum Told {
    Effect,
    Refusal(Refusal),
}

impl Told {
    fn of(transition: &Transition) -> Self {
        match transition.step {
            Step::RefusePayment {
                is_expired: true, ..
            } => Self::Refusal(Refusal::ReservationExpired),
            Step::RefusePayment {
                is_expired: false, ..
            } => Self::Refusal(Refusal::StateConflict { refund_due: true }),
            Step::Confirm { .. }
            | Step::Release { .. }
            | Step::Expire { .. }
            | Step::Extend { .. }
            | Step::ProtectPrice { .. }
            | Step::Refund { .. } => Self::Effect,
        }
    }
}

fn may_see(sale: &Sale, record: RecordRef, caller: Caller) -> bool {
    match caller {
        Caller::Storefront => true,
        Caller::Buyer(buyer) => sale
            .ledger()
            .view(record)
            .is_some_and(|view| view.buyer == buyer),
    }
}
