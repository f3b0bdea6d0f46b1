//! Which reservations are due. Deadlines ascend with the serials (one payment window per sale), so a cursor
//! over the index of serials finds them; it moves over what can never be due again only. Those that were given more
//! time are kept apart, by deadline.

use std::ops::ControlFlow;

use flash_types::{ReservationState, Serial, Timestamp};

use crate::Ledger;
use crate::ledger::split;
use crate::serials::GROUP;

/// A reservation as the expiry sees it.
enum Seen {
    /// It can never be due again.
    Closed,
    /// Its reserve is not decided.
    Undecided,
    /// It waits for payment.
    Open {
        expires_at: Timestamp,
        is_in_flight: bool,
    },
}

impl<F: Clone> Ledger<F> {
    /// Appends up to `limit` reservations that are `reserved`, have nothing in flight and `expires_at <= now`.
    ///
    /// Looks at one reservation only where nothing is due. A reservation whose deadline lies before that of
    /// an earlier one is found when the earlier one is due.
    pub fn due(&self, now: Timestamp, limit: usize, out: &mut Vec<Serial>) {
        let end = out.len().saturating_add(limit);
        self.due_of_extended(now, end, out);
        self.scan(|serial, seen| match seen {
            _ if out.len() >= end => ControlFlow::Break(()),
            Seen::Closed | Seen::Undecided => ControlFlow::Continue(()),
            Seen::Open { expires_at, .. } if expires_at > now => ControlFlow::Break(()),
            Seen::Open {
                is_in_flight: true, ..
            } => ControlFlow::Continue(()),
            Seen::Open { .. } => {
                out.push(serial);
                ControlFlow::Continue(())
            }
        });
    }

    /// When the next reservation may become due, for timers: never too late; may lie in the past while a
    /// step of that reservation is in flight. `None` while nothing is `reserved`.
    pub fn next_due_at(&self) -> Option<Timestamp> {
        let mut next = self.extensions.next_due_at();
        self.scan(|_, seen| match seen {
            Seen::Closed | Seen::Undecided => ControlFlow::Continue(()),
            Seen::Open { expires_at, .. } => {
                next = Some(next.map_or(expires_at, |known| known.min(expires_at)));
                ControlFlow::Break(())
            }
        });
        next
    }

    fn due_of_extended(&self, now: Timestamp, end: usize, out: &mut Vec<Serial>) {
        for (deadline, serial) in self.extensions.due(now) {
            if out.len() >= end {
                return;
            }
            let Some(place) = self.serials.lock().find(serial) else {
                self.extensions.settle(deadline, serial, None);
                continue;
            };
            match self.look(place, serial) {
                Seen::Closed => self.extensions.settle(deadline, serial, None),
                Seen::Open { expires_at, .. } if expires_at > now => {
                    self.extensions.settle(deadline, serial, Some(expires_at));
                }
                Seen::Open {
                    is_in_flight: true, ..
                }
                | Seen::Undecided => {}
                Seen::Open { .. } => out.push(Serial(serial)),
            }
        }
    }

    /// After a restart: whatever is `reserved` is kept until `not_before` at least.
    pub fn extend_expiry(&self, not_before: Timestamp) {
        for shard in &self.shards {
            for record in shard.lock().records.iter_mut() {
                if record.is_live && record.state == ReservationState::Reserved {
                    record.expires_at = record.expires_at.max(not_before);
                }
            }
        }
    }

    /// Shows the reservations from the cursor on, ascending, and moves the cursor over the closed ones before
    /// all others.
    fn scan(&self, mut visit: impl FnMut(Serial, Seen) -> ControlFlow<()>) {
        let mut index = self.serials.lock().open_from();
        let mut closed_before = index;
        loop {
            let group = {
                let mut serials = self.serials.lock();
                serials.close_before(closed_before);
                serials.group(index)
            };
            for (serial, place) in &group {
                let seen = self.see(*place, *serial);
                if closed_before == index && matches!(seen, Seen::Closed) {
                    closed_before += 1;
                }
                index += 1;
                if visit(Serial(*serial), seen).is_break() {
                    self.serials.lock().close_before(closed_before);
                    return;
                }
            }
            if group.len() < GROUP {
                self.serials.lock().close_before(closed_before);
                return;
            }
        }
    }

    /// As the cursor sees it: what was extended is none of its own.
    fn see(&self, place: u32, serial: u64) -> Seen {
        match self.look(place, serial) {
            Seen::Open { .. } if self.extensions.contains(serial) => Seen::Closed,
            seen @ (Seen::Closed | Seen::Undecided | Seen::Open { .. }) => seen,
        }
    }

    fn look(&self, place: u32, serial: u64) -> Seen {
        let (number, slot) = split(place);
        let shard = self.shards[number].lock();
        let Some(record) = shard.of_serial(slot, serial) else {
            return Seen::Closed;
        };
        match record.state {
            ReservationState::Unknown => Seen::Undecided,
            ReservationState::Reserved => Seen::Open {
                expires_at: record.expires_at,
                is_in_flight: shard.flight(slot).is_some(),
            },
            ReservationState::Confirmed
            | ReservationState::Released
            | ReservationState::Expired
            | ReservationState::Refunded => Seen::Closed,
        }
    }
}
