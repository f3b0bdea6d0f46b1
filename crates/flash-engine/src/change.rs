//! What a decided job is in the store's words.

use flash_ledger::{PricedLine, Step, Transition};
use flash_store::{Change, Delta, Deltas, ReserveLine};
use flash_types::{ItemIndex, ReservationState, Timestamp};

use crate::queue::Work;
use crate::sale::Sale;

/// The change that makes a job durable. Times are the batch's; a store with a clock of its own puts in its own.
pub(crate) fn change_of(sale: &Sale, work: &Work, at: Timestamp, expires_at: Timestamp) -> Change {
    match work {
        Work::Reserve {
            buyer, key, lines, ..
        } => Change::Reserve {
            buyer: *buyer,
            key: *key,
            lines: lines.iter().map(stored_line).collect(),
            created_at: at,
            expires_at,
        },
        Work::Transition(transition) => change_of_transition(sale, transition),
        Work::ChangeStock {
            change,
            key,
            asked_delta_units,
            reason,
        } => Change::ChangeStock {
            item: change.item,
            key: *key,
            asked_delta_units: *asked_delta_units,
            applied_delta_units: change.applied_delta_units,
            reason: reason.clone(),
        },
        Work::PutDraft(definition) => Change::PutDraft {
            definition: definition.clone(),
        },
        Work::Publish => Change::Publish,
        Work::Open => Change::Open {
            held: deltas(&sale.held_units()),
        },
        Work::Unpublish => Change::Unpublish,
        Work::ChangePrice(change) => Change::ChangePrice {
            item: change.item,
            from: change.from,
            to: change.to,
            reason: change.reason.clone(),
            definition: Box::new(change.definition.clone()),
        },
        Work::Wave {
            item,
            wave,
            due_at,
            units,
        } => Change::Wave {
            item: *item,
            wave: *wave,
            due_at: *due_at,
            units: *units,
        },
        Work::CountAttempts { from, counts } => Change::CountAttempts {
            from: *from,
            counts: counts.clone(),
        },
        Work::Pause => Change::Pause,
        Work::Resume => Change::Resume,
        Work::Close => Change::Close,
        Work::Freeze(reason) => Change::Freeze {
            reason: reason.clone(),
        },
        Work::Retire => Change::Retire,
    }
}

fn stored_line(line: &PricedLine) -> ReserveLine {
    ReserveLine {
        item: line.item,
        units: line.quantity.units(),
        unit_price_minor: line.unit_price_minor,
    }
}

fn change_of_transition(sale: &Sale, transition: &Transition) -> Change {
    let reservation = transition.reservation;
    let is_pooled = transition.is_pooled;
    match &transition.step {
        Step::Confirm {
            payment_ref,
            is_late,
            units,
        } => Change::Confirm {
            reservation,
            payment_ref: *payment_ref,
            is_late: *is_late,
            units: deltas(units),
        },
        Step::RefusePayment {
            payment_ref,
            is_expired,
        } => {
            let (state, refunded) = standing(sale, transition, &[]);
            Change::RefusePayment {
                reservation,
                payment_ref: *payment_ref,
                is_expired: *is_expired,
                state,
                refunded,
            }
        }
        Step::ProtectPrice {
            item,
            units,
            paid_minor,
            price_minor,
            other,
        } => {
            let (state, refunded) = standing(sale, transition, &[]);
            Change::ProtectPrice {
                reservation,
                item: *item,
                units: *units,
                paid_minor: *paid_minor,
                price_minor: *price_minor,
                other: *other,
                state,
                refunded,
            }
        }
        Step::Extend { expires_at } => Change::Extend {
            reservation,
            expires_at: *expires_at,
        },
        Step::Release { units } => Change::Release {
            reservation,
            units: deltas(units),
            is_pooled,
        },
        Step::Expire { units } => Change::Expire {
            reservation,
            units: deltas(units),
            is_pooled,
        },
        Step::Refund {
            refund_ref,
            restock,
            units,
            is_whole,
        } => {
            let (_, refunded) = standing(sale, transition, units);
            Change::Refund {
                reservation,
                refund_ref: *refund_ref,
                restock: *restock,
                units: deltas(units),
                is_whole: *is_whole,
                refunded,
            }
        }
    }
}

/// State of the reservation as committed, and its refunded units with those of this step. Nothing else moves it while
/// the step is in flight.
fn standing(
    sale: &Sale,
    transition: &Transition,
    more: &[(ItemIndex, u32)],
) -> (ReservationState, Deltas) {
    let view = sale
        .ledger()
        .view(transition.record)
        .expect("a reservation with a step in flight stays");
    let refunded = view.lines.iter().map(|line| {
        let more = more.iter().find(|(item, _)| *item == line.item);
        let units = line.refunded_units + more.map_or(0, |(_, units)| *units);
        (line.item, units)
    });
    let refunded: Vec<_> = refunded.filter(|(_, units)| *units > 0).collect();
    (view.state, deltas(&refunded))
}

fn deltas(units: &[(ItemIndex, u32)]) -> Deltas {
    units
        .iter()
        .map(|(item, units)| Delta {
            item: *item,
            units: *units,
        })
        .collect()
}
