//! Sums over all reservations, to be held against the counters. Exact while nothing is being moved.

use flash_types::ReservationState;

use crate::flights::Kind;
use crate::shard::STATES;
use crate::{Ledger, RecordSums, StateCounts};

/// Where a record's units are.
#[derive(Clone, Copy)]
enum Held {
    Nowhere,
    Reserved,
    InFlight,
    Sold,
}

impl<F: Clone> Ledger<F> {
    /// Per item, units summed over all reservations. Takes one shard's lock after the other.
    pub fn sums(&self) -> Vec<RecordSums> {
        let mut sums = vec![RecordSums::default(); self.items.len()];
        for shard in &self.shards {
            let shard = shard.lock();
            for (slot, record) in shard.live() {
                let held = held(record.state, shard.flight(slot).map(|flight| flight.kind));
                for line in shard.lines(slot) {
                    let sum = &mut sums[usize::from(line.item().0)];
                    match held {
                        Held::Nowhere => {}
                        Held::Reserved => sum.reserved += u64::from(line.units()),
                        Held::InFlight => sum.in_flight += u64::from(line.units()),
                        Held::Sold => sum.sold += u64::from(line.not_restocked()),
                    }
                }
            }
        }
        sums
    }

    /// How many reservations are in which committed state.
    pub fn reservations_by_state(&self) -> StateCounts {
        let mut sums = [0; STATES];
        for shard in &self.shards {
            for (sum, count) in sums.iter_mut().zip(shard.lock().counts()) {
                *sum += count;
            }
        }
        // In the order of `state_index`.
        let [unknown, reserved, confirmed, released, expired, refunded] = sums;
        StateCounts {
            unknown,
            reserved,
            confirmed,
            released,
            expired,
            refunded,
        }
    }
}

fn held(state: ReservationState, kind: Option<Kind>) -> Held {
    match (state, kind) {
        (ReservationState::Unknown, _) => Held::InFlight,
        (ReservationState::Reserved, None | Some(Kind::Extend)) => Held::Reserved,
        (ReservationState::Reserved, Some(_)) => Held::InFlight,
        (ReservationState::Expired, Some(Kind::LateConfirm)) => Held::InFlight,
        (ReservationState::Expired | ReservationState::Released, _) => Held::Nowhere,
        (ReservationState::Confirmed | ReservationState::Refunded, _) => Held::Sold,
    }
}
