//! What a decided job is in the store's words.

use flash_ledger::{PricedLine, Step, Transition};
use flash_store::{Change, Delta, Deltas, ReserveLine};
use flash_types::{ItemIndex, Timestamp};

use crate::queue::Work;

/// The change that makes a job durable. Times are the batch's; a store with a clock of its own puts in its own.
pub(crate) fn change_of(work: &Work, at: Timestamp, expires_at: Timestamp) -> Change {
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
        Work::Transition(transition) => change_of_transition(transition),
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
        Work::Open => Change::Open,
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

fn change_of_transition(transition: &Transition) -> Change {
    let reservation = transition.reservation;
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
        } => Change::RefusePayment {
            reservation,
            payment_ref: *payment_ref,
            is_expired: *is_expired,
        },
        Step::Release { units } => Change::Release {
            reservation,
            units: deltas(units),
        },
        Step::Expire { units } => Change::Expire {
            reservation,
            units: deltas(units),
        },
        Step::Refund {
            refund_ref,
            restock,
            units,
            is_whole,
        } => Change::Refund {
            reservation,
            refund_ref: *refund_ref,
            restock: *restock,
            units: deltas(units),
            is_whole: *is_whole,
        },
    }
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
