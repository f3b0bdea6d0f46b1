//! How states, decisions and facts of events are spelled in a store; the same words in SQLite and Redis.

use std::fmt::Write;

use flash_types::{ReservationState, Serial};
use serde::Deserialize;
use smallvec::SmallVec;

use crate::{Change, DecisionKind, Delta, ReserveLine, StoredLine};

pub const DRAFTED: &str = "sale.drafted";
pub const RETIRED: &str = "sale.retired";

/// The number of a state in `reservation.state`; a row is never `unknown`.
pub fn state_code(state: ReservationState) -> i64 {
    match state {
        ReservationState::Unknown => 0,
        ReservationState::Reserved => 1,
        ReservationState::Confirmed => 2,
        ReservationState::Released => 3,
        ReservationState::Expired => 4,
        ReservationState::Refunded => 5,
    }
}

pub fn state_of(code: i64) -> Option<ReservationState> {
    [
        ReservationState::Reserved,
        ReservationState::Confirmed,
        ReservationState::Released,
        ReservationState::Expired,
        ReservationState::Refunded,
    ]
    .into_iter()
    .find(|state| state_code(*state) == code)
}

/// `decision.kind` and `decision.outcome`.
pub fn decision_words(kind: DecisionKind) -> (&'static str, &'static str) {
    match kind {
        DecisionKind::PaymentTaken => ("payment", "taken"),
        DecisionKind::PaymentRefusedExpired => ("payment", "refused_expired"),
        DecisionKind::PaymentRefusedConflict => ("payment", "refused_conflict"),
        DecisionKind::Refund => ("refund", "done"),
        DecisionKind::StockChange => ("stock_change", "done"),
    }
}

pub fn decision_kind(kind: &str, outcome: &str) -> Option<DecisionKind> {
    [
        DecisionKind::PaymentTaken,
        DecisionKind::PaymentRefusedExpired,
        DecisionKind::PaymentRefusedConflict,
        DecisionKind::Refund,
        DecisionKind::StockChange,
    ]
    .into_iter()
    .find(|known| decision_words(*known) == (kind, outcome))
}

/// The facts of an event as read back.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Facts {
    pub late: bool,
    pub expired: bool,
    pub restock: bool,
    pub whole: bool,
    pub units: SmallVec<[(u16, u32); 1]>,
    pub item: u16,
    pub asked: i64,
    pub applied: i64,
}

/// A change as it stands in `event`, but for its serial, sale and time.
#[derive(Debug)]
pub struct EventWords {
    pub kind: &'static str,
    pub reservation: Option<Serial>,
    pub reference: Option<String>,
    pub data: Option<String>,
}

impl EventWords {
    /// `released` are the units that an `Open` makes available. `None` for what stands elsewhere: reservations and notes.
    pub fn of(change: &Change, released: &[Delta]) -> Option<Self> {
        let sale = |kind, data| Self {
            kind,
            reservation: None,
            reference: None,
            data,
        };
        let of = |reservation: &Serial, reference: Option<&str>, data| Self {
            kind: change.event_type().unwrap_or_default(),
            reservation: Some(*reservation),
            reference: reference.map(str::to_owned),
            data: Some(data),
        };
        Some(match change {
            Change::Reserve { .. } | Change::Note(_) => return None,
            Change::PutDraft { definition } => sale(DRAFTED, Some(json(definition))),
            Change::Retire => sale(RETIRED, None),
            Change::Publish | Change::Pause | Change::Resume | Change::Close => {
                sale(change.event_type().unwrap_or_default(), None)
            }
            Change::Open => sale(
                "sale.opened",
                Some(format!("{{\"units\":{}}}", pairs(released))),
            ),
            Change::Freeze { reason } => sale(
                "sale.frozen",
                Some(format!("{{\"reason\":{}}}", json(reason))),
            ),
            Change::Confirm {
                reservation,
                payment_ref,
                is_late,
                units,
            } => of(
                reservation,
                Some(payment_ref.as_str()),
                format!("{{\"late\":{is_late},\"units\":{}}}", pairs(units)),
            ),
            Change::RefusePayment {
                reservation,
                payment_ref,
                is_expired,
            } => of(
                reservation,
                Some(payment_ref.as_str()),
                format!("{{\"expired\":{is_expired}}}"),
            ),
            Change::Release { reservation, units } | Change::Expire { reservation, units } => {
                of(reservation, None, format!("{{\"units\":{}}}", pairs(units)))
            }
            Change::Refund {
                reservation,
                refund_ref,
                restock,
                units,
                is_whole,
            } => of(
                reservation,
                refund_ref.as_ref().map(|reference| reference.as_str()),
                format!(
                    "{{\"restock\":{restock},\"whole\":{is_whole},\"units\":{}}}",
                    pairs(units)
                ),
            ),
            Change::ChangeStock {
                item,
                key,
                asked_delta_units,
                applied_delta_units,
                reason,
            } => Self {
                kind: "sale.stock_changed",
                reservation: None,
                reference: Some(key.as_str().to_owned()),
                data: Some(format!(
                    "{{\"item\":{},\"asked\":{asked_delta_units},\"applied\":{applied_delta_units},\
                     \"reason\":{}}}",
                    item.0,
                    json(reason)
                )),
            },
        })
    }
}

/// What a change adds to `decision`: (kind, reference, scope, reservation, detail).
#[derive(Debug, PartialEq, Eq)]
pub struct DecisionWords {
    pub kind: DecisionKind,
    pub reference: String,
    pub scope: u64,
    pub reservation: Option<Serial>,
    pub detail: Option<String>,
}

impl DecisionWords {
    pub fn of(change: &Change) -> Option<Self> {
        Some(match change {
            Change::Confirm {
                reservation,
                payment_ref,
                ..
            } => Self::payment(
                DecisionKind::PaymentTaken,
                payment_ref.as_str(),
                *reservation,
            ),
            Change::RefusePayment {
                reservation,
                payment_ref,
                is_expired,
            } => Self::payment(refused(*is_expired), payment_ref.as_str(), *reservation),
            Change::Refund {
                reservation,
                refund_ref: Some(refund_ref),
                restock,
                units,
                is_whole: _,
            } => Self::refund(refund_ref.as_str(), *reservation, *restock, units),
            Change::ChangeStock {
                item,
                key,
                asked_delta_units,
                applied_delta_units,
                reason: _,
            } => Self::stock_change(
                key.as_str(),
                item.0,
                *asked_delta_units,
                *applied_delta_units,
            ),
            // Refunded whole, without a name: the state is the decision.
            Change::Refund {
                refund_ref: None, ..
            }
            | Change::PutDraft { .. }
            | Change::Publish
            | Change::Open
            | Change::Pause
            | Change::Resume
            | Change::Close
            | Change::Freeze { .. }
            | Change::Retire
            | Change::Reserve { .. }
            | Change::Release { .. }
            | Change::Expire { .. }
            | Change::Note(_) => return None,
        })
    }

    pub fn payment(kind: DecisionKind, reference: &str, reservation: Serial) -> Self {
        Self {
            kind,
            reference: reference.to_owned(),
            scope: 0,
            reservation: Some(reservation),
            detail: None,
        }
    }

    pub fn refund(reference: &str, reservation: Serial, restock: bool, units: &[Delta]) -> Self {
        Self {
            kind: DecisionKind::Refund,
            reference: reference.to_owned(),
            scope: reservation.0,
            reservation: Some(reservation),
            detail: Some(format!(
                "{{\"restock\":{restock},\"lines\":{}}}",
                pairs(units)
            )),
        }
    }

    pub fn stock_change(key: &str, item: u16, asked: i64, applied: i64) -> Self {
        Self {
            kind: DecisionKind::StockChange,
            reference: key.to_owned(),
            scope: u64::from(item),
            reservation: None,
            detail: Some(format!(
                "{{\"item\":{item},\"asked\":{asked},\"applied\":{applied}}}"
            )),
        }
    }
}

pub fn refused(is_expired: bool) -> DecisionKind {
    if is_expired {
        DecisionKind::PaymentRefusedExpired
    } else {
        DecisionKind::PaymentRefusedConflict
    }
}

/// `reservation.more_lines` of a new reservation.
pub fn more_lines(lines: &[ReserveLine]) -> Option<String> {
    let stored: SmallVec<[StoredLine; 4]> = lines.iter().map(stored_line).collect();
    more_stored_lines(&stored)
}

pub fn stored_line(line: &ReserveLine) -> StoredLine {
    StoredLine {
        item: line.item,
        units: line.units,
        unit_price_minor: line.unit_price_minor,
        refunded_units: 0,
        restocked_units: 0,
    }
}

/// `reservation.more_lines`: all lines but the first.
pub fn more_stored_lines(lines: &[StoredLine]) -> Option<String> {
    let more = lines.get(1..).filter(|more| !more.is_empty())?;
    let mut text = String::from("[");
    for (index, line) in more.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(
            text,
            "{comma}[{},{},{},{},{}]",
            line.item.0,
            line.units,
            line.unit_price_minor.0,
            line.refunded_units,
            line.restocked_units
        );
    }
    text.push(']');
    Some(text)
}

fn pairs(units: &[Delta]) -> String {
    let mut text = String::from("[");
    for (index, delta) in units.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}[{},{}]", delta.item.0, delta.units);
    }
    text.push(']');
    text
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("strings and definitions have a JSON form")
}
