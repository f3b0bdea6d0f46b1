//! The obvious model: reservations in a list; every counter is summed over it when somebody asks.

use flash_ledger::{
    Begin, Command, PaymentDecision, RecordRef, Reserve, Step, Transition, Units, Won,
};
use flash_types::{
    BuyerId, IdempotencyKey, ItemIndex, ItemUnits, Lines, Money, PaymentRef, RefundRef, Refusal,
    ReservationState, SaleId, Serial, Timestamp,
};

use crate::common::price;

pub struct OracleItem {
    pub stock: u64,
    pub unreleased: u64,
    pub limit: Option<u32>,
}

pub struct OracleLine {
    pub item: ItemIndex,
    pub units: u32,
    pub refunded: u32,
    pub restocked: u32,
}

pub struct OracleFlight {
    pub handle: u32,
    pub step: Option<Step>,
}

pub struct Reservation {
    pub record: RecordRef,
    pub buyer: BuyerId,
    pub key: IdempotencyKey,
    pub lines: Vec<OracleLine>,
    pub state: ReservationState,
    pub serial: Option<Serial>,
    pub expires_at: Timestamp,
    pub flight: Option<OracleFlight>,
    pub refunds: Vec<(RefundRef, bool, Units)>,
    pub is_extended: bool,
    /// Items of which a lower price was made good.
    pub protected: Vec<ItemIndex>,
}

impl Reservation {
    pub fn is_undecided(&self) -> bool {
        self.state == ReservationState::Unknown
    }

    fn step(&self) -> Option<&Step> {
        self.flight.as_ref().and_then(|flight| flight.step.as_ref())
    }

    /// A step is in flight that takes its units somewhere.
    fn is_leaving(&self) -> bool {
        self.flight.is_some() && !matches!(self.step(), Some(Step::Extend { .. }))
    }

    fn is_paid(&self) -> bool {
        matches!(
            self.state,
            ReservationState::Confirmed | ReservationState::Refunded
        )
    }

    /// Expired, and its units taken again.
    fn is_taken_again(&self) -> bool {
        matches!(self.step(), Some(Step::Confirm { is_late: true, .. }))
    }

    fn units(&self) -> Units {
        self.lines
            .iter()
            .map(|line| (line.item, line.units))
            .collect()
    }
}

pub struct Item {
    pub stock: u64,
    pub unreleased: u64,
    pub limit: Option<u32>,
    /// Stock on its way out: negative or 0.
    pub pending_delta: i64,
}

pub struct Oracle {
    pub items: Vec<Item>,
    pub reservations: Vec<Reservation>,
    /// `None`: in flight.
    pub payments: Vec<(PaymentRef, Serial, Option<PaymentDecision>)>,
}

impl Oracle {
    pub fn new(items: Vec<OracleItem>) -> Self {
        Self {
            items: items
                .into_iter()
                .map(|item| Item {
                    stock: item.stock,
                    unreleased: item.unreleased,
                    limit: item.limit,
                    pending_delta: 0,
                })
                .collect(),
            reservations: Vec::new(),
            payments: Vec::new(),
        }
    }

    pub fn where_(&self, is_meant: impl Fn(&Reservation) -> bool) -> Vec<usize> {
        (0..self.reservations.len())
            .filter(|index| is_meant(&self.reservations[*index]))
            .collect()
    }

    // ---- counters

    fn sum(&self, item: usize, of: impl Fn(&Reservation, &OracleLine) -> u32) -> u64 {
        self.reservations
            .iter()
            .flat_map(|r| r.lines.iter().map(move |line| (r, line)))
            .filter(|(_, line)| usize::from(line.item.0) == item)
            .map(|(r, line)| u64::from(of(r, line)))
            .sum()
    }

    pub fn units(&self, item: usize) -> ItemUnits {
        let Item {
            stock,
            unreleased,
            pending_delta,
            ..
        } = self.items[item];
        let held = self.sum(item, |r, line| {
            let is_held =
                r.is_undecided() || r.state == ReservationState::Reserved || r.is_taken_again();
            if is_held { line.units } else { 0 }
        });
        let sold = self.sum(item, |r, line| {
            if r.is_paid() {
                line.units - line.restocked
            } else {
                0
            }
        });
        let reserved = held + pending_delta.unsigned_abs();
        ItemUnits {
            stock,
            unreleased,
            available: stock
                .checked_sub(unreleased + reserved + sold)
                .expect("oversold"),
            reserved,
            sold,
        }
    }

    pub fn in_flight_units(&self, item: usize) -> u64 {
        self.sum(item, |r, line| {
            let is_moving = r.is_undecided()
                || r.is_taken_again()
                || (r.state == ReservationState::Reserved && r.is_leaving());
            if is_moving { line.units } else { 0 }
        })
    }

    fn has(&self, buyer: &BuyerId, item: ItemIndex) -> u64 {
        self.sum(item.0.into(), |r, line| {
            if r.buyer != *buyer {
                return 0;
            }
            match r.state {
                ReservationState::Unknown | ReservationState::Reserved => line.units,
                ReservationState::Confirmed | ReservationState::Refunded => {
                    line.units - line.restocked
                }
                ReservationState::Expired if r.is_taken_again() => line.units,
                ReservationState::Expired | ReservationState::Released => 0,
            }
        })
    }

    fn short(&self, units: impl IntoIterator<Item = (ItemIndex, u32)>) -> Option<(ItemIndex, u32)> {
        units.into_iter().find_map(|(item, wanted)| {
            let available = self.units(item.0.into()).available as u32;
            (available < wanted).then_some((item, available))
        })
    }

    // ---- buying

    pub fn won(
        &self,
        buyer: &BuyerId,
        key: &IdempotencyKey,
        lines: &[(u16, u32)],
    ) -> Option<Won<u32>> {
        let r = self
            .reservations
            .iter()
            .find(|r| r.buyer == *buyer && r.key == *key)?;
        let is_same = r
            .units()
            .iter()
            .map(|(item, n)| (item.0, *n))
            .eq(lines.iter().copied());
        Some(Won {
            record: r.record,
            is_same,
            in_flight: r
                .flight
                .as_ref()
                .filter(|_| r.is_undecided())
                .map(|flight| flight.handle),
        })
    }

    /// What stands against a reservation.
    pub fn reserve(
        &self,
        buyer: &BuyerId,
        key: &IdempotencyKey,
        lines: &[(u16, u32)],
    ) -> Option<Reserve<u32>> {
        if let Some(won) = self.won(buyer, key, lines) {
            return Some(Reserve::Won(won));
        }
        let lines = lines.iter().map(|(item, units)| (ItemIndex(*item), *units));
        for (item, wanted) in lines.clone() {
            let max = self.items[usize::from(item.0)]
                .limit
                .map_or(u64::MAX, u64::from);
            if self.has(buyer, item) + u64::from(wanted) > max {
                return Some(Reserve::Limit(item));
            }
        }
        self.short(lines)
            .map(|(item, available_units)| Reserve::Short {
                item,
                available_units,
            })
    }

    pub fn take(
        &mut self,
        record: RecordRef,
        buyer: BuyerId,
        key: IdempotencyKey,
        lines: &[(u16, u32)],
        handle: u32,
    ) {
        self.reservations.push(Reservation {
            record,
            buyer,
            key,
            lines: lines
                .iter()
                .map(|(item, units)| OracleLine {
                    item: ItemIndex(*item),
                    units: *units,
                    refunded: 0,
                    restocked: 0,
                })
                .collect(),
            state: ReservationState::Unknown,
            serial: None,
            expires_at: Timestamp(0),
            flight: Some(OracleFlight { handle, step: None }),
            refunds: Vec::new(),
            is_extended: false,
            protected: Vec::new(),
        });
    }

    // ---- commands

    fn index_of(&self, serial: Serial) -> Option<usize> {
        self.reservations
            .iter()
            .position(|r| r.serial == Some(serial))
    }

    pub fn amount(&self, serial: Serial) -> Option<Money> {
        let r = &self.reservations[self.index_of(serial)?];
        let amount = r
            .lines
            .iter()
            .map(|line| price(line.item.0).0 * i64::from(line.units))
            .sum();
        Some(Money(amount))
    }

    pub fn paid_by(&self, reservation: &Reservation) -> Option<PaymentRef> {
        self.payments
            .iter()
            .find(|(_, serial, decision)| {
                Some(*serial) == reservation.serial && *decision == Some(PaymentDecision::Taken)
            })
            .map(|(payment_ref, ..)| *payment_ref)
    }

    pub fn begin(&mut self, serial: Serial, command: &Command, handle: u32) -> Begin<u32> {
        let Some(index) = self.index_of(serial) else {
            return Begin::Refused(Refusal::NotFound);
        };
        let r = &self.reservations[index];
        let record = r.record;
        if let Some(flight) = &r.flight {
            return Begin::Wait(flight.handle);
        }
        let conflict = Begin::Refused(Refusal::StateConflict { refund_due: false });
        let step = match command {
            Command::Confirm {
                payment_ref,
                amount,
            } => match self.confirm(index, serial, payment_ref, *amount) {
                Ok(step) => step,
                Err(Some(refusal)) => return Begin::Refused(refusal),
                Err(None) => return Begin::Stands(record),
            },
            Command::Cancel => match r.state {
                ReservationState::Reserved => Step::Release { units: r.units() },
                ReservationState::Released => return Begin::Stands(record),
                ReservationState::Unknown
                | ReservationState::Confirmed
                | ReservationState::Expired
                | ReservationState::Refunded => return conflict,
            },
            Command::Expire if r.state == ReservationState::Reserved => {
                Step::Expire { units: r.units() }
            }
            Command::Expire => return conflict,
            Command::Extend { .. } if r.state != ReservationState::Reserved => return conflict,
            Command::Extend { .. } if r.is_extended => return Begin::Stands(record),
            Command::Extend { by } => Step::Extend {
                expires_at: r.expires_at.plus(*by),
            },
            Command::ProtectPrice {
                item,
                price_minor,
                other,
            } => match protection(r, *item, *price_minor, *other) {
                Ok(step) => step,
                Err(Some(refusal)) => return Begin::Refused(refusal),
                Err(None) => return Begin::Stands(record),
            },
            Command::Refund {
                refund_ref,
                restock,
                lines,
            } => match refund(r, *refund_ref, *restock, lines.as_ref()) {
                Ok(step) => step,
                Err(Some(refusal)) => return Begin::Refused(refusal),
                Err(None) => return Begin::Stands(record),
            },
        };
        if let Step::Confirm { payment_ref, .. } | Step::RefusePayment { payment_ref, .. } = &step {
            self.payments.push((*payment_ref, serial, None));
        }
        self.reservations[index].flight = Some(OracleFlight {
            handle,
            step: Some(step.clone()),
        });
        Begin::Start(Transition {
            record,
            reservation: serial,
            step,
            is_pooled: false,
        })
    }

    /// `Err(None)`: it stands.
    fn confirm(
        &self,
        index: usize,
        serial: Serial,
        payment_ref: &PaymentRef,
        amount: Option<Money>,
    ) -> Result<Step, Option<Refusal>> {
        let known = self
            .payments
            .iter()
            .find(|(known, ..)| known == payment_ref);
        if let Some((_, owner, decision)) = known {
            if *owner != serial {
                return Err(Some(Refusal::PaymentRefReused));
            }
            return Err(match decision {
                Some(PaymentDecision::Taken) => None,
                Some(PaymentDecision::RefusedExpired) => Some(Refusal::ReservationExpired),
                Some(PaymentDecision::RefusedConflict) => {
                    Some(Refusal::StateConflict { refund_due: true })
                }
                None => panic!("its reservation has a step in flight"),
            });
        }
        if amount.is_some() && amount != self.amount(serial) {
            return Err(Some(Refusal::StateConflict { refund_due: false }));
        }
        let r = &self.reservations[index];
        let payment_ref = *payment_ref;
        let refused = |is_expired| Step::RefusePayment {
            payment_ref,
            is_expired,
        };
        let taken = |is_late| Step::Confirm {
            payment_ref,
            is_late,
            units: r.units(),
        };
        Ok(match r.state {
            ReservationState::Reserved => taken(false),
            ReservationState::Expired if self.short(r.units()).is_none() => taken(true),
            ReservationState::Expired => refused(true),
            ReservationState::Unknown
            | ReservationState::Confirmed
            | ReservationState::Released
            | ReservationState::Refunded => refused(false),
        })
    }

    pub fn end(&mut self, transition: &Transition, is_committed: bool) {
        let index = self.index_of(transition.reservation).unwrap();
        let r = &mut self.reservations[index];
        r.flight = None;
        let (payment_ref, decision) = match &transition.step {
            Step::Confirm { payment_ref, .. } => (Some(payment_ref), PaymentDecision::Taken),
            Step::RefusePayment {
                payment_ref,
                is_expired,
            } if *is_expired => (Some(payment_ref), PaymentDecision::RefusedExpired),
            Step::RefusePayment { payment_ref, .. } => {
                (Some(payment_ref), PaymentDecision::RefusedConflict)
            }
            Step::Release { .. }
            | Step::Expire { .. }
            | Step::Refund { .. }
            | Step::Extend { .. }
            | Step::ProtectPrice { .. } => (None, PaymentDecision::Taken),
        };
        if let Some(payment_ref) = payment_ref {
            self.payments.retain(|(known, ..)| known != payment_ref);
            if is_committed {
                self.payments
                    .push((*payment_ref, transition.reservation, Some(decision)));
            }
        }
        if !is_committed {
            return;
        }
        match &transition.step {
            Step::Confirm { .. } => r.state = ReservationState::Confirmed,
            Step::RefusePayment { .. } => {}
            Step::Extend { expires_at } => {
                r.expires_at = *expires_at;
                r.is_extended = true;
            }
            Step::ProtectPrice { item, .. } => r.protected.push(*item),
            Step::Release { units } | Step::Expire { units } => {
                r.state = if matches!(transition.step, Step::Expire { .. }) {
                    ReservationState::Expired
                } else {
                    ReservationState::Released
                };
                if transition.is_pooled {
                    for (item, units) in units {
                        self.items[usize::from(item.0)].unreleased += u64::from(*units);
                    }
                }
            }
            Step::Refund {
                refund_ref,
                restock,
                units,
                is_whole,
            } => {
                for (item, units) in units {
                    let line = r.lines.iter_mut().find(|line| line.item == *item).unwrap();
                    line.refunded += units;
                    line.restocked += if *restock { *units } else { 0 };
                    assert!(line.refunded <= line.units);
                }
                if let Some(refund_ref) = refund_ref {
                    r.refunds.push((*refund_ref, *restock, units.clone()));
                }
                assert_eq!(
                    *is_whole,
                    r.lines.iter().all(|line| line.refunded == line.units)
                );
                if *is_whole {
                    r.state = ReservationState::Refunded;
                }
            }
        }
    }
}

fn refund(
    r: &Reservation,
    refund_ref: Option<RefundRef>,
    restock: bool,
    lines: Option<&Lines>,
) -> Result<Step, Option<Refusal>> {
    let conflict = Err(Some(Refusal::StateConflict { refund_due: false }));
    if !r.is_paid() {
        return conflict;
    }
    let asked: Option<Units> = lines.map(|lines| {
        lines
            .as_slice()
            .iter()
            .map(|line| (line.item, line.quantity.units()))
            .collect()
    });
    let left: Units = r
        .lines
        .iter()
        .map(|line| (line.item, line.units - line.refunded))
        .filter(|(_, left)| *left > 0)
        .collect();
    if let Some((_, known_restock, known)) = r
        .refunds
        .iter()
        .find(|(known, ..)| Some(*known) == refund_ref)
    {
        let is_same_units = asked.map_or(left.is_empty(), |asked| asked == *known);
        let is_same = *known_restock == restock && is_same_units;
        return Err((!is_same).then_some(Refusal::IdempotencyKeyReused));
    }
    if left.is_empty() {
        let restocked: u32 = r.lines.iter().map(|line| line.restocked).sum();
        let units: u32 = r.lines.iter().map(|line| line.units).sum();
        let is_as_asked = if restock {
            restocked > 0
        } else {
            restocked < units
        };
        return if refund_ref.is_none() && is_as_asked {
            Err(None)
        } else {
            conflict
        };
    }
    let units = asked.unwrap_or_else(|| left.clone());
    for (item, wanted) in &units {
        if !left
            .iter()
            .any(|(known, left)| known == item && left >= wanted)
        {
            return conflict;
        }
    }
    let is_whole = units == left;
    if refund_ref.is_none() && !is_whole {
        return conflict;
    }
    Ok(Step::Refund {
        refund_ref,
        restock,
        units,
        is_whole,
    })
}

/// `Err(None)`: nothing (more) is due.
fn protection(
    r: &Reservation,
    item: ItemIndex,
    price_minor: Money,
    other: SaleId,
) -> Result<Step, Option<Refusal>> {
    if r.state != ReservationState::Confirmed {
        return Err(Some(Refusal::StateConflict { refund_due: false }));
    }
    let Some(line) = r.lines.iter().find(|line| line.item == item) else {
        return Err(Some(Refusal::NotFound));
    };
    let units = line.units - line.refunded;
    if r.protected.contains(&item) || units == 0 || price(item.0) <= price_minor {
        return Err(None);
    }
    Ok(Step::ProtectPrice {
        item,
        units,
        paid_minor: price(item.0),
        price_minor,
        other,
    })
}
