//! How states, decisions and facts of events are spelled in a store; the same words in SQLite and Redis.

use std::borrow::Cow;
use std::fmt::Write;

use flash_types::{
    ItemIndex, Money, PaymentRef, ReservationState, SaleDefinition, SaleNo, Serial, Timestamp,
};
use serde::Deserialize;
use smallvec::SmallVec;

use crate::{
    AttemptCount, AttemptsRow, Change, DecisionKind, Delta, ReservationRow, ReserveLine, StoredLine,
};

pub const DRAFTED: &str = "sale.drafted";
pub const RETIRED: &str = "sale.retired";
pub const ATTEMPTS: &str = "sale.attempts";

/// What is told to nobody outside.
pub fn is_internal(kind: &str) -> bool {
    [DRAFTED, RETIRED, ATTEMPTS].contains(&kind)
}

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
        DecisionKind::Wave => ("wave", "done"),
        DecisionKind::PriceProtection => ("price_protection", "done"),
    }
}

pub fn decision_kind(kind: &str, outcome: &str) -> Option<DecisionKind> {
    [
        DecisionKind::PaymentTaken,
        DecisionKind::PaymentRefusedExpired,
        DecisionKind::PaymentRefusedConflict,
        DecisionKind::Refund,
        DecisionKind::StockChange,
        DecisionKind::Wave,
        DecisionKind::PriceProtection,
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
    /// Units went to the pool, not to what is available.
    pub pooled: bool,
    /// Of an event on a reservation: refunded so far. Absent in events of older programs.
    pub refunded: Option<SmallVec<[(u16, u32); 1]>>,
    /// Of a refund that is due: the state that the reservation stayed in.
    pub state: Option<ReservationState>,
    /// Of an extension: until when, milliseconds.
    pub until: i64,
    /// Of a new price.
    pub to: i64,
    /// A refund that is due since the price fell: units, what was paid for one, the lower price.
    pub protects: bool,
    pub bought: u32,
    pub paid: i64,
    pub price: i64,
}

/// A change as it stands in `event`, but for its serial, sale and time.
#[derive(Debug, Clone)]
pub struct EventWords {
    pub kind: Cow<'static, str>,
    pub reservation: Option<Serial>,
    pub reference: Option<String>,
    pub data: Option<String>,
}

impl EventWords {
    /// `released` are the units that an `Open` makes available, or that an `Unpublish` takes back. `None` for what stands elsewhere: reservations and notes.
    pub fn of(change: &Change, released: &[Delta]) -> Option<Self> {
        let sale = |kind: &'static str, data| Self {
            kind: kind.into(),
            reservation: None,
            reference: None,
            data,
        };
        let of = |reservation: &Serial, reference: Option<&str>, data| Self {
            kind: change.event_type().unwrap_or_default().into(),
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
            Change::Unpublish => sale(
                "sale.unpublished",
                Some(format!("{{\"units\":{}}}", pairs(released))),
            ),
            Change::ChangePrice {
                item,
                from,
                to,
                reason,
                definition: _,
            } => sale(
                "sale.price_changed",
                Some(format!(
                    "{{\"item\":{},\"from\":{},\"to\":{},\"reason\":{}}}",
                    item.0,
                    from.0,
                    to.0,
                    json(reason)
                )),
            ),
            Change::Wave {
                item,
                wave,
                due_at: _,
                units,
            } => Self {
                kind: "sale.wave".into(),
                reservation: None,
                reference: wave.reference(),
                data: Some(format!("{{\"units\":[[{},{units}]]}}", item.0)),
            },
            Change::CountAttempts { from, counts } => sale(ATTEMPTS, Some(attempts(*from, counts))),
            Change::Open { .. } => sale(
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
                state,
                refunded,
            } => of(
                reservation,
                Some(payment_ref.as_str()),
                format!(
                    "{{\"expired\":{is_expired},\"state\":\"{}\",\"refunded\":{}}}",
                    state.as_str(),
                    pairs(refunded)
                ),
            ),
            Change::ProtectPrice {
                reservation,
                item,
                units,
                paid_minor,
                price_minor,
                other,
                state,
                refunded,
            } => of(
                reservation,
                None,
                format!(
                    "{{\"protects\":true,\"item\":{},\"bought\":{units},\"paid\":{},\"price\":{},\
                     \"sale\":\"{other}\",\"state\":\"{}\",\"refunded\":{}}}",
                    item.0,
                    paid_minor.0,
                    price_minor.0,
                    state.as_str(),
                    pairs(refunded)
                ),
            ),
            Change::Extend {
                reservation,
                expires_at,
            } => of(reservation, None, format!("{{\"until\":{}}}", expires_at.0)),
            Change::Release {
                reservation,
                units,
                is_pooled,
            }
            | Change::Expire {
                reservation,
                units,
                is_pooled,
            } => {
                let pooled = if *is_pooled { "\"pooled\":true," } else { "" };
                let data = format!("{{{pooled}\"units\":{}}}", pairs(units));
                of(reservation, None, data)
            }
            Change::Refund {
                reservation,
                refund_ref,
                restock,
                units,
                is_whole,
                refunded,
            } => of(
                reservation,
                refund_ref.as_ref().map(|reference| reference.as_str()),
                format!(
                    "{{\"restock\":{restock},\"whole\":{is_whole},\"units\":{},\"refunded\":{}}}",
                    pairs(units),
                    pairs(refunded)
                ),
            ),
            Change::ChangeStock {
                item,
                key,
                asked_delta_units,
                applied_delta_units,
                reason,
            } => Self {
                kind: "sale.stock_changed".into(),
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
                ..
            } => Self::payment(refused(*is_expired), payment_ref.as_str(), *reservation),
            Change::Refund {
                reservation,
                refund_ref: Some(refund_ref),
                restock,
                units,
                is_whole: _,
                refunded: _,
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
            Change::Wave {
                item, wave, units, ..
            } => Self::wave(&wave.reference()?, item.0, *units),
            Change::ProtectPrice {
                reservation,
                item,
                units,
                paid_minor,
                price_minor,
                ..
            } => Self::price_protection(item.0, *reservation, *units, paid_minor.0, price_minor.0),
            // Refunded whole, without a name: the state is the decision.
            Change::Refund {
                refund_ref: None, ..
            }
            | Change::PutDraft { .. }
            | Change::Publish
            | Change::Open { .. }
            | Change::Unpublish
            | Change::ChangePrice { .. }
            | Change::CountAttempts { .. }
            | Change::Extend { .. }
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

    pub fn wave(reference: &str, item: u16, units: u32) -> Self {
        Self {
            kind: DecisionKind::Wave,
            reference: reference.to_owned(),
            scope: u64::from(item),
            reservation: None,
            detail: Some(format!("{{\"item\":{item},\"units\":{units}}}")),
        }
    }

    /// Its reference is the item: each item of a reservation gets it once.
    pub fn price_protection(item: u16, of: Serial, units: u32, paid: i64, price: i64) -> Self {
        Self {
            kind: DecisionKind::PriceProtection,
            reference: item.to_string(),
            scope: of.0,
            reservation: Some(of),
            detail: Some(format!(
                "{{\"units\":{units},\"paid\":{paid},\"price\":{price}}}"
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

/// `{"from":ms,"counts":[[item or null,"outcome",attempts],…]}`
fn attempts(from: Timestamp, counts: &[AttemptCount]) -> String {
    let mut text = format!("{{\"from\":{},\"counts\":[", from.0);
    for (index, count) in counts.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let item = count.item.map_or("null".into(), |item| item.0.to_string());
        let _ = write!(
            text,
            "{comma}[{item},{},{}]",
            json(&count.outcome),
            count.attempts
        );
    }
    text.push_str("]}");
    text
}

/// Reads what `attempts` wrote.
///
/// # Errors
/// What is not as it should be.
pub fn attempts_of(data: &str) -> Result<AttemptsRow, String> {
    #[derive(Deserialize)]
    struct Stored {
        from: i64,
        counts: Vec<(Option<u16>, String, u64)>,
    }
    let stored: Stored = serde_json::from_str(data).map_err(|error| error.to_string())?;
    let counts = stored.counts.into_iter();
    Ok(AttemptsRow {
        from: Timestamp(stored.from),
        counts: counts
            .map(|(item, outcome, attempts)| AttemptCount {
                item: item.map(ItemIndex),
                outcome,
                attempts,
            })
            .collect(),
    })
}

/// The reservation of an event as it stood after it, from the row as it stands now. What never changes is taken from the
/// row; the rest is told by the event: its type and its facts. `expires_at` is that of the reservation when it was made.
/// `restocked_units` are told by no event: they stay those of now.
///
/// # Errors
/// Facts that cannot be read.
pub fn as_it_stood(
    mut row: ReservationRow,
    event: &EventWords,
    expires_at: Timestamp,
) -> Result<ReservationRow, String> {
    use ReservationState::{Confirmed, Expired, Refunded, Released, Reserved};
    let facts: Facts = match &event.data {
        Some(data) => serde_json::from_str(data)
            .map_err(|error| format!("an event of reservation {}: {error}", row.serial.0))?,
        None => Facts::default(),
    };
    let now = row.state;
    row.state = match event.kind.as_ref() {
        "reservation.confirmed" => Confirmed,
        "reservation.released" => Released,
        "reservation.expired" => Expired,
        "reservation.refunded" if facts.whole => Refunded,
        "reservation.refunded" => Confirmed,
        "reservation.refund_due" => facts.state.unwrap_or(now),
        _ => Reserved,
    };
    match row.state {
        Confirmed if event.kind == "reservation.confirmed" => {
            row.payment_ref = event
                .reference
                .as_deref()
                .and_then(|text| PaymentRef::parse(text).ok());
        }
        Confirmed | Refunded => {}
        ReservationState::Unknown | Reserved | Released | Expired => row.payment_ref = None,
    }
    match event.kind.as_ref() {
        "reservation.reserved" => row.expires_at = expires_at,
        "reservation.extended" => row.expires_at = Timestamp(facts.until),
        _ => {}
    }
    // Without the fact (an event of an older program) the present figures are the nearest to it.
    let is_told = facts.refunded.is_some();
    let may_be_refunded =
        event.kind == "reservation.refunded" || event.kind == "reservation.refund_due";
    for line in &mut row.lines {
        if is_told || !may_be_refunded {
            let of_line = facts
                .refunded
                .iter()
                .flatten()
                .find(|(item, _)| *item == line.item.0);
            line.refunded_units = of_line.map_or(0, |(_, units)| *units);
        } else if facts.whole {
            line.refunded_units = line.units;
        }
    }
    Ok(row)
}

/// A plan with another price of an item; `None` where it has no such item, or not at this price.
pub fn with_price(
    mut definition: Box<SaleDefinition>,
    item: ItemIndex,
    from: Money,
    to: Money,
) -> Option<Box<SaleDefinition>> {
    let planned = definition.items.get_mut(usize::from(item.0));
    let planned = planned.filter(|planned| planned.sale_price_minor == from)?;
    planned.sale_price_minor = to;
    Some(definition)
}

pub fn price_does_not_fit(sale_no: SaleNo, item: ItemIndex) -> String {
    format!(
        "the new plan of sale {} is not the stored one with another price of item {}",
        sale_no.0, item.0
    )
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
