//! Commands on one reservation: begin decides, finish applies what was committed, abort takes back.
//!
//! ```text
//! unknown -> reserved -> confirmed -> refunded
//!                     -> released
//!                     -> expired -> confirmed (paid late)
//! ```
//! One step per reservation is in flight. What begin moved (a late confirmation's units, a held payment)
//! shows in no answer until finish. The first decision per payment is final.

use std::time::Duration;

use flash_types::{
    ItemIndex, Lines, Money, PaymentRef, RefundRef, Refusal, ReservationState, SaleId, Serial,
};

use crate::flights::Kind;
use crate::ledger::{record_ref, split};
use crate::payments::Status;
use crate::record::Record;
use crate::shard::{RefundRecord, Shard};
use crate::{Begin, Command, Ledger, PaymentDecision, Step, Transition, Units};

/// What a command comes to.
enum Judged {
    Go(Step),
    Stands,
    No(Refusal),
}

const CONFLICT: Judged = Judged::No(Refusal::StateConflict { refund_due: false });

impl<F: Clone> Ledger<F> {
    /// Decides a command. What starts is in flight until [`Ledger::finish`] or [`Ledger::abort`].
    pub fn begin(&self, serial: Serial, command: &Command, in_flight: F) -> Begin<F> {
        let Some(place) = self.serials.lock().find(serial.0) else {
            return Begin::Refused(Refusal::NotFound);
        };
        let (number, slot) = split(place);
        let mut shard = self.shards[number].lock();
        let Some(record) = shard.of_serial(slot, serial.0) else {
            return Begin::Refused(Refusal::NotFound);
        };
        if let Some(flight) = shard.flight(slot) {
            return Begin::Wait(flight.handle.clone());
        }
        let judged = match command {
            Command::Confirm {
                payment_ref,
                amount,
            } => self.judge_confirm(&mut shard, slot, serial, payment_ref, *amount),
            Command::Extend { by } => self.judge_extend(record, serial, *by),
            Command::ProtectPrice {
                item,
                price_minor,
                other,
            } => self.judge_protection(&shard, slot, serial, *item, *price_minor, *other),
            Command::Cancel => judge_cancel(record, shard.units(slot)),
            Command::Expire => judge_expire(record, shard.units(slot)),
            Command::Refund {
                refund_ref,
                restock,
                lines,
            } => judge_refund(&shard, slot, *refund_ref, *restock, lines.as_ref()),
        };
        let record = record_ref(&shard, number, slot);
        match judged {
            Judged::Go(step) => {
                shard.depart(slot, kind_of(&step), in_flight);
                Begin::Start(Transition {
                    record,
                    reservation: serial,
                    step,
                    is_pooled: false,
                })
            }
            Judged::Stands => Begin::Stands(record),
            Judged::No(refusal) => Begin::Refused(refusal),
        }
    }

    /// The step is committed: it takes effect.
    ///
    /// # Panics
    /// If this step is not in flight, or the books do not allow it.
    pub fn finish(&self, transition: &Transition) {
        let (number, slot) = split(transition.record.place);
        let mut shard = self.shards[number].lock();
        expect_transition(&shard, transition);
        let landed = shard.land(slot, kind_of(&transition.step));
        match &transition.step {
            Step::Confirm {
                payment_ref, units, ..
            } => {
                for (item, units) in units {
                    self.items.sell(*item, *units);
                }
                let payment = self.decide(payment_ref, PaymentDecision::Taken);
                shard.paid_by.insert(slot, payment);
                shard.set_state(slot, ReservationState::Confirmed);
            }
            Step::RefusePayment {
                payment_ref,
                is_expired: true,
            } => {
                self.decide(payment_ref, PaymentDecision::RefusedExpired);
            }
            Step::RefusePayment {
                payment_ref,
                is_expired: false,
            } => {
                self.decide(payment_ref, PaymentDecision::RefusedConflict);
            }
            Step::Extend { expires_at } => {
                let record = shard.records.at_mut(slot);
                // A grace that came meanwhile may reach further.
                record.expires_at = record.expires_at.max(*expires_at);
                self.extensions.add(transition.reservation.0, *expires_at);
            }
            Step::ProtectPrice { item, .. } => {
                let key = (transition.reservation.0, item.0);
                self.protected.lock().insert(key);
            }
            Step::Release { units } | Step::Expire { units } => {
                if transition.is_pooled {
                    self.pool(&mut shard, slot, units);
                } else {
                    self.give_back(&mut shard, slot, units);
                }
                let is_expired = matches!(transition.step, Step::Expire { .. });
                let state = if is_expired {
                    ReservationState::Expired
                } else {
                    ReservationState::Released
                };
                shard.set_state(slot, state);
            }
            Step::Refund {
                refund_ref,
                restock,
                units,
                is_whole,
            } => {
                self.refund(&mut shard, slot, *refund_ref, *restock, units);
                if *is_whole {
                    shard.set_state(slot, ReservationState::Refunded);
                }
            }
        }
        drop(shard);
        drop(landed);
    }

    /// The step was not applied: all is as before it began.
    ///
    /// # Panics
    /// If this step is not in flight.
    pub fn abort(&self, transition: &Transition) {
        let (number, slot) = split(transition.record.place);
        let mut shard = self.shards[number].lock();
        expect_transition(&shard, transition);
        let landed = shard.land(slot, kind_of(&transition.step));
        match &transition.step {
            Step::Confirm {
                payment_ref,
                is_late,
                units,
            } => {
                if *is_late {
                    self.give_back(&mut shard, slot, units);
                }
                self.let_go(payment_ref);
            }
            Step::RefusePayment { payment_ref, .. } => self.let_go(payment_ref),
            Step::Release { .. }
            | Step::Expire { .. }
            | Step::Refund { .. }
            | Step::Extend { .. }
            | Step::ProtectPrice { .. } => {}
        }
        drop(shard);
        drop(landed);
    }

    // ---- confirm

    fn judge_confirm(
        &self,
        shard: &mut Shard<F>,
        slot: u32,
        serial: Serial,
        payment_ref: &PaymentRef,
        amount: Option<Money>,
    ) -> Judged {
        let hash = self.hashes.payment(payment_ref);
        let mut payments = self.payments.lock();
        if let Some((owner, status)) = payments.find(hash, payment_ref) {
            if owner != serial {
                return Judged::No(Refusal::PaymentRefReused);
            }
            return match status {
                Status::Decided(PaymentDecision::Taken) => Judged::Stands,
                Status::Decided(PaymentDecision::RefusedExpired) => {
                    Judged::No(Refusal::ReservationExpired)
                }
                Status::Decided(PaymentDecision::RefusedConflict) => {
                    Judged::No(Refusal::StateConflict { refund_due: true })
                }
                Status::Pending => {
                    unreachable!("a held payment's reservation has a step in flight")
                }
            };
        }
        if amount.is_some_and(|amount| amount != amount_of(shard, slot)) {
            return CONFLICT;
        }
        payments.hold(hash, payment_ref, serial);
        drop(payments);
        Judged::Go(self.confirm_step(shard, slot, *payment_ref))
    }

    /// What a payment that is new to the sale comes to.
    fn confirm_step(&self, shard: &mut Shard<F>, slot: u32, payment_ref: PaymentRef) -> Step {
        let is_late = match shard.records.at(slot).state {
            ReservationState::Reserved => false,
            ReservationState::Expired => true,
            ReservationState::Confirmed
            | ReservationState::Released
            | ReservationState::Refunded => {
                return Step::RefusePayment {
                    payment_ref,
                    is_expired: false,
                };
            }
            ReservationState::Unknown => unreachable!("an undecided reserve is in flight"),
        };
        let units = shard.units(slot);
        if is_late {
            if self.items.take_all(units.iter().copied()).is_err() {
                return Step::RefusePayment {
                    payment_ref,
                    is_expired: true,
                };
            }
            shard.count(slot, &units, &self.items, &self.hashes);
        }
        Step::Confirm {
            payment_ref,
            is_late,
            units,
        }
    }

    fn decide(&self, payment_ref: &PaymentRef, decision: PaymentDecision) -> u32 {
        let hash = self.hashes.payment(payment_ref);
        self.payments.lock().decide(hash, payment_ref, decision)
    }

    fn let_go(&self, payment_ref: &PaymentRef) {
        let hash = self.hashes.payment(payment_ref);
        self.payments.lock().let_go(hash, payment_ref);
    }

    // ---- the others

    fn give_back(&self, shard: &mut Shard<F>, slot: u32, units: &Units) {
        shard.uncount(slot, units, &self.items, &self.hashes);
        self.items.give_all(units.iter().copied());
    }

    fn pool(&self, shard: &mut Shard<F>, slot: u32, units: &Units) {
        shard.uncount(slot, units, &self.items, &self.hashes);
        for (item, units) in units {
            self.items.pool(*item, *units);
        }
    }

    fn judge_extend(&self, record: &Record, serial: Serial, by: Duration) -> Judged {
        match record.state {
            ReservationState::Reserved if self.extensions.contains(serial.0) => Judged::Stands,
            ReservationState::Reserved => Judged::Go(Step::Extend {
                expires_at: record.expires_at.plus(by),
            }),
            ReservationState::Unknown
            | ReservationState::Confirmed
            | ReservationState::Released
            | ReservationState::Expired
            | ReservationState::Refunded => CONFLICT,
        }
    }

    /// Stands where there is nothing (more) to make good: done before, refunded, or not dearer.
    fn judge_protection(
        &self,
        shard: &Shard<F>,
        slot: u32,
        serial: Serial,
        item: ItemIndex,
        price_minor: Money,
        other: SaleId,
    ) -> Judged {
        if shard.records.at(slot).state != ReservationState::Confirmed {
            return CONFLICT;
        }
        let line = shard.lines(slot).iter().find(|line| line.item() == item);
        let Some(line) = line else {
            return Judged::No(Refusal::NotFound);
        };
        let is_done = self.protected.lock().contains(&(serial.0, item.0));
        if is_done || line.left() == 0 || line.unit_price_minor <= price_minor {
            return Judged::Stands;
        }
        Judged::Go(Step::ProtectPrice {
            item,
            units: line.left(),
            paid_minor: line.unit_price_minor,
            price_minor,
            other,
        })
    }

    fn refund(
        &self,
        shard: &mut Shard<F>,
        slot: u32,
        refund_ref: Option<RefundRef>,
        restock: bool,
        units: &Units,
    ) {
        for (item, units) in units {
            shard.refund_line(slot, *item, *units, restock);
            if restock {
                self.items.restock(*item, *units);
            }
        }
        if restock {
            shard.uncount(slot, units, &self.items, &self.hashes);
        }
        if let Some(refund_ref) = refund_ref {
            shard.refunds.entry(slot).or_default().push(RefundRecord {
                refund_ref,
                restock,
                units: units.clone(),
            });
        }
    }
}

fn judge_cancel(record: &Record, units: Units) -> Judged {
    match record.state {
        ReservationState::Reserved => Judged::Go(Step::Release { units }),
        ReservationState::Released => Judged::Stands,
        ReservationState::Unknown
        | ReservationState::Confirmed
        | ReservationState::Expired
        | ReservationState::Refunded => CONFLICT,
    }
}

fn judge_expire(record: &Record, units: Units) -> Judged {
    match record.state {
        ReservationState::Reserved => Judged::Go(Step::Expire { units }),
        ReservationState::Unknown
        | ReservationState::Confirmed
        | ReservationState::Released
        | ReservationState::Expired
        | ReservationState::Refunded => CONFLICT,
    }
}

fn judge_refund<F>(
    shard: &Shard<F>,
    slot: u32,
    refund_ref: Option<RefundRef>,
    restock: bool,
    lines: Option<&Lines>,
) -> Judged {
    let state = shard.records.at(slot).state;
    if !matches!(
        state,
        ReservationState::Confirmed | ReservationState::Refunded
    ) {
        return CONFLICT;
    }
    if let Some(known) = refund_ref.and_then(|refund_ref| known_refund(shard, slot, refund_ref)) {
        // "All that was left" stands only where nothing is left.
        let is_same_units = lines.map_or(state == ReservationState::Refunded, |lines| {
            units_of(lines) == known.units
        });
        let is_same = known.restock == restock && is_same_units;
        return if is_same {
            Judged::Stands
        } else {
            Judged::No(Refusal::IdempotencyKeyReused)
        };
    }
    if state == ReservationState::Refunded {
        // Whether the units came back is part of the effect: all of them may not have done the opposite.
        let has_restocked = shard
            .lines(slot)
            .iter()
            .any(|line| line.not_restocked() < line.units());
        let has_kept = shard
            .lines(slot)
            .iter()
            .any(|line| line.not_restocked() > 0);
        let is_as_asked = if restock { has_restocked } else { has_kept };
        return if refund_ref.is_none() && is_as_asked {
            Judged::Stands
        } else {
            CONFLICT
        };
    }
    let left: Units = shard
        .lines(slot)
        .iter()
        .filter(|line| line.left() > 0)
        .map(|line| (line.item(), line.left()))
        .collect();
    let units = lines.map_or_else(|| left.clone(), units_of);
    let is_whole = units == left;
    let fits = units.iter().all(|(item, wanted)| {
        left.iter()
            .any(|(known, left)| known == item && wanted <= left)
    });
    if !fits || (refund_ref.is_none() && !is_whole) {
        return CONFLICT;
    }
    Judged::Go(Step::Refund {
        refund_ref,
        restock,
        units,
        is_whole,
    })
}

fn known_refund<F>(shard: &Shard<F>, slot: u32, refund_ref: RefundRef) -> Option<&RefundRecord> {
    shard
        .refunds
        .get(&slot)?
        .iter()
        .find(|refund| refund.refund_ref == refund_ref)
}

fn units_of(lines: &Lines) -> Units {
    lines
        .as_slice()
        .iter()
        .map(|line| (line.item, line.quantity.units()))
        .collect()
}

fn amount_of<F>(shard: &Shard<F>, slot: u32) -> Money {
    shard.lines(slot).iter().fold(Money(0), |sum, line| {
        sum.plus(line.unit_price_minor.times(line.units()))
    })
}

fn kind_of(step: &Step) -> Kind {
    match step {
        Step::Confirm { is_late: false, .. } => Kind::Confirm,
        Step::Confirm { is_late: true, .. } => Kind::LateConfirm,
        Step::RefusePayment { .. } => Kind::RefusePayment,
        Step::Release { .. } => Kind::Release,
        Step::Expire { .. } => Kind::Expire,
        Step::Refund { .. } => Kind::Refund,
        Step::Extend { .. } => Kind::Extend,
        Step::ProtectPrice { .. } => Kind::ProtectPrice,
    }
}

fn expect_transition<F>(shard: &Shard<F>, transition: &Transition) {
    let (_, slot) = split(transition.record.place);
    assert!(
        shard.of_serial(slot, transition.reservation.0).is_some(),
        "a reservation with a step in flight stays"
    );
}
