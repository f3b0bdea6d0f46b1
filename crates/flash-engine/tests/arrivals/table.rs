//! The contract's states of one reservation of two units, as a table: what each call is answered with, what it changes,
//! which event it leaves. Written from the text of the contract; knows nothing of the ledger.

use std::time::Duration;

use flash_types::{Refusal, ReservationState as State, Timestamp};

/// Units of the reservation.
pub const UNITS: u32 = 2;
/// Time to pay.
pub const WINDOW: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// By the first or second payment.
    Pay(usize),
    /// The first payment with another amount.
    PayWrong,
    /// More time passes than any reservation has.
    Expire,
    Cancel,
    Extend,
    /// One unit, under the first or second name.
    RefundOne(usize),
    RefundAll,
}

/// All but the passing of time.
pub const CALLS: [Op; 8] = [
    Op::Pay(0),
    Op::Pay(1),
    Op::PayWrong,
    Op::Cancel,
    Op::Extend,
    Op::RefundOne(0),
    Op::RefundOne(1),
    Op::RefundAll,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Taken,
    RefusedExpired,
    RefusedConflict,
}

/// What of a reservation is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    pub state: State,
    pub refunded: u32,
    pub paid_by: Option<usize>,
    pub expires_at: Timestamp,
}

pub type Told = Result<View, Refusal>;

/// What the world is like.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// Units are left for a late payment.
    pub has_units: bool,
    /// Refunded units come back.
    pub restock: bool,
}

#[derive(Debug, Clone)]
pub struct Expected {
    pub view: View,
    pub is_extended: bool,
    pub payments: [Option<Decision>; 2],
    pub refunds: [bool; 2],
    pub restocked: u32,
    /// Type, the reservation after it, why money is due.
    pub events: Vec<(&'static str, View, Option<&'static str>)>,
}

const CONFLICT: Told = Err(Refusal::StateConflict { refund_due: false });
const REFUND_DUE: Told = Err(Refusal::StateConflict { refund_due: true });

impl Expected {
    pub fn reserved(expires_at: Timestamp) -> Self {
        let view = View {
            state: State::Reserved,
            refunded: 0,
            paid_by: None,
            expires_at,
        };
        Self {
            view,
            is_extended: false,
            payments: [None; 2],
            refunds: [false; 2],
            restocked: 0,
            events: vec![("reservation.reserved", view, None)],
        }
    }

    pub fn apply(&mut self, op: Op, world: World) -> Told {
        match op {
            Op::Pay(which) => self.pay(which, world),
            // The decision on a payment is final; on one that is not decided nothing is recorded.
            Op::PayWrong if self.payments[0].is_some() => self.pay(0, world),
            Op::PayWrong => CONFLICT,
            Op::Expire => {
                if self.view.state == State::Reserved {
                    return self.enter(State::Expired, "reservation.expired");
                }
                Ok(self.view)
            }
            Op::Cancel => match self.view.state {
                State::Reserved => self.enter(State::Released, "reservation.released"),
                State::Released => Ok(self.view),
                _ => CONFLICT,
            },
            Op::Extend => match self.view.state {
                State::Reserved if self.is_extended => Ok(self.view),
                State::Reserved => {
                    self.is_extended = true;
                    self.view.expires_at = self.view.expires_at.plus(WINDOW);
                    self.enter(State::Reserved, "reservation.extended")
                }
                _ => CONFLICT,
            },
            Op::RefundOne(name) => match self.view.state {
                State::Confirmed | State::Refunded if self.refunds[name] => Ok(self.view),
                State::Confirmed => {
                    self.refunds[name] = true;
                    self.refund(1, world)
                }
                _ => CONFLICT,
            },
            Op::RefundAll => match self.view.state {
                State::Confirmed => self.refund(UNITS - self.view.refunded, world),
                State::Refunded => Ok(self.view),
                _ => CONFLICT,
            },
        }
    }

    fn pay(&mut self, which: usize, world: World) -> Told {
        if self.payments[which].is_none() {
            let decision = match self.view.state {
                State::Reserved => Decision::Taken,
                State::Expired if world.has_units => Decision::Taken,
                State::Expired => Decision::RefusedExpired,
                _ => Decision::RefusedConflict,
            };
            self.payments[which] = Some(decision);
            match decision {
                Decision::Taken => {
                    self.view.paid_by = Some(which);
                    let _ = self.enter(State::Confirmed, "reservation.confirmed");
                }
                Decision::RefusedExpired => self.due("reservation_expired"),
                Decision::RefusedConflict => self.due("state_conflict"),
            }
        }
        match self.payments[which].unwrap() {
            Decision::Taken => Ok(self.view),
            Decision::RefusedExpired => Err(Refusal::ReservationExpired),
            Decision::RefusedConflict => REFUND_DUE,
        }
    }

    fn refund(&mut self, units: u32, world: World) -> Told {
        self.view.refunded += units;
        self.restocked += if world.restock { units } else { 0 };
        let is_whole = self.view.refunded == UNITS;
        let state = if is_whole {
            State::Refunded
        } else {
            State::Confirmed
        };
        self.enter(state, "reservation.refunded")
    }

    fn enter(&mut self, state: State, event: &'static str) -> Told {
        self.view.state = state;
        self.events.push((event, self.view, None));
        Ok(self.view)
    }

    fn due(&mut self, why: &'static str) {
        self.events
            .push(("reservation.refund_due", self.view, Some(why)));
    }

    pub fn reserved_units(&self) -> u32 {
        if self.view.state == State::Reserved {
            UNITS
        } else {
            0
        }
    }

    pub fn sold_units(&self) -> u32 {
        match self.view.state {
            State::Confirmed | State::Refunded => UNITS - self.restocked,
            _ => 0,
        }
    }
}
