//! What is in flight in one shard: the engine's handle and the kind of step, one at a time per reservation.

use crate::record::NONE;

/// Which step waits for the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Reserve,
    Confirm,
    LateConfirm,
    RefusePayment,
    Release,
    Expire,
    Refund,
    Extend,
    ProtectPrice,
}

pub(crate) struct Flight<F> {
    pub(crate) kind: Kind,
    pub(crate) handle: F,
}

/// Places are reused: as large as the most that was ever in flight at once.
pub(crate) struct Flights<F> {
    flights: Vec<Option<Flight<F>>>,
    free: Vec<u32>,
}

impl<F> Flights<F> {
    pub(crate) fn new() -> Self {
        Self {
            flights: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn insert(&mut self, flight: Flight<F>) -> u32 {
        match self.free.pop() {
            Some(place) => {
                self.flights[place as usize] = Some(flight);
                place
            }
            None => {
                self.flights.push(Some(flight));
                (self.flights.len() - 1) as u32
            }
        }
    }

    pub(crate) fn at(&self, place: u32) -> Option<&Flight<F>> {
        if place == NONE {
            return None;
        }
        self.flights.get(place as usize).and_then(Option::as_ref)
    }

    pub(crate) fn remove(&mut self, place: u32) -> Option<Flight<F>> {
        let flight = self.flights.get_mut(place as usize)?.take();
        if flight.is_some() {
            self.free.push(place);
        }
        flight
    }
}
