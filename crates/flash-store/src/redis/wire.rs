//! How batches go to the scripts, and how their replies and the stored fields are read. Pure.

use flash_types::{
    BuyerId, IdempotencyKey, ItemIndex, ItemUnits, Money, PaymentRef, ReservationState,
    SaleDefinition, SaleNo, SaleState, Serial, Timestamp,
};
use redis::Cmd;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::keys::{SEPARATOR, buyer_field, item_field, key_field};
use crate::words::{DecisionWords, EventWords, decision_kind, decision_words};
use crate::{
    AdminNote, Batch, Change, Decision, DecisionRow, Delta, Entry, EntryRefusal, ItemRow,
    ReservationRow, ReserveLine, StoredLine,
};

/// What the script says of a batch as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Applied, now or by an earlier attempt.
    Applied {
        /// The store's clock at that moment.
        at: Timestamp,
        /// The sale's last event.
        ev: u64,
        /// Changes that it did not take.
        refused: Vec<(usize, EntryRefusal)>,
        /// An earlier attempt had arrived.
        is_old: bool,
    },
    /// Keys of the sale are missing: which.
    Gone(String),
    /// The sale was last served by another Redis, or by this one before its restart.
    Home,
    /// A later process runs as this node.
    Fenced,
    /// The store knows less of this node than it acknowledged.
    Lost,
    /// The sale is frozen.
    Frozen,
}

impl Reply {
    /// Reads `{verdict, at_ms, ev, results}`.
    ///
    /// # Errors
    /// What is not as it should be.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let [verdict, at, ev, results] = words else {
            return Err(format!("a reply of {} words", words.len()));
        };
        let is_old = match verdict.as_str() {
            "OK" => false,
            "ALREADY" => true,
            "GONE" => return Ok(Self::Gone(results.clone())),
            "HOME" => return Ok(Self::Home),
            "FENCED" => return Ok(Self::Fenced),
            "LOST" => return Ok(Self::Lost),
            "FROZEN" => return Ok(Self::Frozen),
            other => return Err(format!("the verdict {other:?}")),
        };
        Ok(Self::Applied {
            at: Timestamp(number(at)?),
            ev: number(ev)?,
            refused: results
                .split(',')
                .filter(|one| !one.is_empty())
                .map(refusal)
                .collect::<Result<_, _>>()?,
            is_old,
        })
    }
}

/// Reads `index:CODE:detail`.
fn refusal(text: &str) -> Result<(usize, EntryRefusal), String> {
    let mut parts = text.splitn(3, ':');
    let mut next = || parts.next().ok_or_else(|| format!("the refusal {text:?}"));
    let (index, code, detail) = (number(next()?)?, next()?, next()?);
    let why = match code {
        "KNOWN" => EntryRefusal::KeyKnown(Serial(number(detail)?)),
        "LIMIT" => EntryRefusal::Limit,
        "SOLD" => EntryRefusal::SoldOut(number(detail)?),
        "NOTSTARTED" => EntryRefusal::State(SaleState::Published),
        "PAUSED" => EntryRefusal::State(SaleState::Paused),
        "ENDED" => EntryRefusal::State(SaleState::Closed),
        "EARLY" => EntryRefusal::Early,
        "STALE" => EntryRefusal::Stale(detail.to_owned()),
        _ => return Err(format!("the refusal {text:?}")),
    };
    Ok((index, why))
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("the number {text:?}"))
}

/// Adds the changes of a batch to a call of `commit`.
pub fn add_changes(cmd: &mut Cmd, batch: &Batch) {
    let mut line = String::new();
    let mut rest = &batch.entries[..];
    while let Some(first) = rest.first() {
        let run = run_length(rest);
        if run > 0 {
            add_run(cmd, &rest[..run]);
        } else {
            add_change(cmd, first, &mut line);
        }
        rest = &rest[run.max(1)..];
    }
}

/// The one line of a reserve that has just one.
fn only_line(entry: &Entry) -> Option<&ReserveLine> {
    let Change::Reserve { lines, .. } = &entry.change else {
        return None;
    };
    lines.first().filter(|_| lines.len() == 1)
}

/// How many reserves of the same single line stand at the front.
fn run_length(entries: &[Entry]) -> usize {
    let Some(line) = entries.first().and_then(only_line) else {
        return 0;
    };
    let is_same = |entry: &&Entry| only_line(entry) == Some(line);
    entries.iter().take_while(is_same).count()
}

/// A run of reserves goes in columns: whole ranges of arguments are handed on by the script as they are.
fn add_run(cmd: &mut Cmd, run: &[Entry]) {
    let Some(line) = run.first().and_then(only_line) else {
        return;
    };
    cmd.arg("R").arg(run.len()).arg(line.item.0).arg(line.units);
    cmd.arg(reserve_lines(std::slice::from_ref(line)));
    for entry in run {
        cmd.arg(entry.serial.0);
    }
    // One buffer for all fields.
    let mut field = String::new();
    for entry in run {
        if let Change::Reserve { buyer, key, .. } = &entry.change {
            key_field(buyer.as_str(), key.as_str(), &mut field);
            cmd.arg(&*field);
        }
    }
    for entry in run {
        if let Change::Reserve { buyer, .. } = &entry.change {
            buyer_field(buyer.as_str(), line.item.0, &mut field);
            cmd.arg(&*field);
        }
    }
}

/// One arm for each change: long, since it is the whole list.
fn add_change(cmd: &mut Cmd, entry: &Entry, line: &mut String) {
    event_line(entry, line);
    match &entry.change {
        Change::Reserve {
            buyer, key, lines, ..
        } => {
            op(cmd, "M", 5 + 2 * lines.len());
            cmd.arg(entry.serial.0)
                .arg(buyer.as_bytes())
                .arg(key.as_bytes());
            cmd.arg(reserve_lines(lines)).arg(lines.len());
            for line in lines {
                cmd.arg(line.item.0).arg(line.units);
            }
        }
        Change::PutDraft { definition } => {
            op(cmd, "D", 8 + 2 * definition.items.len());
            cmd.arg(&*line).arg(entry.serial.0).arg(entry.sale_no.0);
            cmd.arg(json(&**definition)).arg(definition.starts_at.0);
            cmd.arg(definition.ends_at.0)
                .arg(u64::from(definition.payment_window_s) * 1_000);
            cmd.arg(definition.items.len());
            for item in &definition.items {
                cmd.arg(item.stock_units);
                match item.units_per_buyer_max {
                    Some(limit) => cmd.arg(limit),
                    None => cmd.arg(""),
                };
            }
        }
        Change::Open { held } => {
            op(cmd, "O", 2 + 2 * held.len());
            cmd.arg(&*line);
            add_units(cmd, held);
        }
        Change::Unpublish => {
            op(cmd, "U", 1);
            cmd.arg(&*line);
        }
        Change::ChangePrice { definition, .. } => {
            op(cmd, "A", 2);
            cmd.arg(&*line).arg(json(&**definition));
        }
        Change::Wave {
            item,
            due_at,
            units,
            ..
        } => {
            op(cmd, "V", 6);
            cmd.arg(&*line).arg(item.0).arg(*units).arg(due_at.0);
            reference(cmd, &entry.change);
        }
        Change::CountAttempts { .. } => {
            op(cmd, "K", 1);
            cmd.arg(&*line);
        }
        Change::Extend {
            reservation,
            expires_at,
        } => {
            op(cmd, "E", 3);
            cmd.arg(&*line).arg(reservation.0).arg(expires_at.0);
        }
        Change::Publish => state(cmd, line, "published", "draft"),
        Change::Pause => state(cmd, line, "paused", "open"),
        Change::Resume => state(cmd, line, "open", "paused"),
        Change::Close => state(cmd, line, "closed", "published open paused"),
        Change::Retire => state(cmd, line, "retired", "closed"),
        Change::Freeze { .. } => {
            op(cmd, "Z", 1);
            cmd.arg(&*line);
        }
        Change::Confirm {
            reservation,
            payment_ref,
            is_late,
            units,
        } => {
            op(cmd, "C", 7 + 2 * units.len());
            cmd.arg(&*line)
                .arg(reservation.0)
                .arg(payment_ref.as_bytes());
            cmd.arg(if *is_late { "e" } else { "r" });
            reference(cmd, &entry.change);
            add_units(cmd, units);
        }
        Change::RefusePayment { reservation, .. } | Change::ProtectPrice { reservation, .. } => {
            op(cmd, "P", 4);
            cmd.arg(&*line).arg(reservation.0);
            reference(cmd, &entry.change);
        }
        Change::Release {
            reservation,
            units,
            is_pooled,
        } => {
            op(cmd, "L", 4 + 2 * units.len());
            cmd.arg(&*line).arg(reservation.0).arg(u8::from(*is_pooled));
            add_units(cmd, units);
        }
        Change::Expire {
            reservation,
            units,
            is_pooled,
        } => {
            op(cmd, "X", 4 + 2 * units.len());
            cmd.arg(&*line).arg(reservation.0).arg(u8::from(*is_pooled));
            add_units(cmd, units);
        }
        Change::Refund {
            reservation,
            restock,
            units,
            is_whole,
            refund_ref: _,
            refunded: _,
        } => {
            op(cmd, "F", 7 + 2 * units.len());
            cmd.arg(&*line).arg(reservation.0);
            cmd.arg(u8::from(*restock)).arg(u8::from(*is_whole));
            reference(cmd, &entry.change);
            add_units(cmd, units);
        }
        Change::ChangeStock {
            item,
            applied_delta_units,
            ..
        } => {
            op(cmd, "T", 5);
            cmd.arg(&*line).arg(item.0).arg(*applied_delta_units);
            reference(cmd, &entry.change);
        }
        Change::Note(note) => {
            op(cmd, "N", 2);
            cmd.arg(entry.serial.0).arg(note_text(note));
        }
    }
}

fn op(cmd: &mut Cmd, code: &str, arguments: usize) {
    cmd.arg(code).arg(arguments);
}

fn state(cmd: &mut Cmd, line: &str, to: &str, from: &str) {
    op(cmd, "S", 3);
    cmd.arg(line).arg(to).arg(from);
}

fn add_units(cmd: &mut Cmd, units: &[Delta]) {
    cmd.arg(units.len());
    for delta in units {
        cmd.arg(delta.item.0).arg(delta.units);
    }
}

/// Field and value in `ref`: `kind|scope|reference`, `outcome|serial|detail`; both empty where nothing is decided.
fn reference(cmd: &mut Cmd, change: &Change) {
    match DecisionWords::of(change) {
        Some(words) => {
            let (kind, outcome) = decision_words(words.kind);
            let serial = words.reservation.map_or(0, |serial| serial.0);
            let detail = words.detail.unwrap_or_default();
            cmd.arg(reference_field(kind, words.scope, &words.reference));
            cmd.arg(format!("{outcome}{SEPARATOR}{serial}{SEPARATOR}{detail}"));
        }
        None => {
            cmd.arg("").arg("");
        }
    }
}

/// A field of `ref`. `scope` as in the embedded store: where the reference is unique.
pub fn reference_field(kind: &str, scope: u64, reference: &str) -> String {
    format!("{kind}{SEPARATOR}{scope}{SEPARATOR}{reference}")
}

/// `E|serial|type|reservation|reference|data`; of an opening and an unpublishing without their data, which the script adds.
fn event_line(entry: &Entry, line: &mut String) {
    use std::fmt::Write;
    line.clear();
    let Some(words) = EventWords::of(&entry.change, &[]) else {
        return;
    };
    let _ = write!(line, "E|{}|{}|", entry.serial.0, words.kind);
    if let Some(reservation) = words.reservation {
        let _ = write!(line, "{}", reservation.0);
    }
    line.push(SEPARATOR);
    line.push_str(words.reference.as_deref().unwrap_or_default());
    line.push(SEPARATOR);
    let is_told_by_script = matches!(entry.change, Change::Open { .. } | Change::Unpublish);
    if !is_told_by_script {
        line.push_str(words.data.as_deref().unwrap_or_default());
    }
}

fn reserve_lines(lines: &[ReserveLine]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(24 * lines.len());
    for (index, line) in lines.iter().enumerate() {
        let semicolon = if index == 0 { "" } else { ";" };
        let _ = write!(
            text,
            "{semicolon}{},{},{}",
            line.item.0, line.units, line.unit_price_minor.0
        );
    }
    text
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("definitions and notes have a JSON form")
}

/// A line of the admin log as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredNote {
    at_ms: i64,
    who: String,
    command: String,
    sale_id: Option<String>,
    outcome: String,
    detail: String,
}

/// A line of the admin log as text.
pub fn note_text(note: &AdminNote) -> String {
    json(&StoredNote {
        at_ms: note.at.0,
        who: note.who.clone(),
        command: note.command.clone(),
        sale_id: note.sale_id.map(|sale_id| sale_id.as_str().to_owned()),
        outcome: note.outcome.clone(),
        detail: note.detail.clone(),
    })
}

/// Reads a line of the admin log.
///
/// # Errors
/// What is not as it should be.
pub fn note_of(text: &str) -> Result<AdminNote, String> {
    let note: StoredNote = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let sale_id = note.sale_id.map(|text| flash_types::SaleId::parse(&text));
    Ok(AdminNote {
        at: Timestamp(note.at_ms),
        who: note.who,
        command: note.command,
        sale_id: sale_id.transpose().map_err(|bad| bad.to_string())?,
        outcome: note.outcome,
        detail: note.detail,
    })
}

/// Reads a record of `resv`.
///
/// # Errors
/// What is not as it should be.
pub fn record_of(sale_no: SaleNo, serial: &str, text: &str) -> Result<ReservationRow, String> {
    let broken = |what: &str| format!("reservation {serial}: {what} in {text:?}");
    let parts: SmallVec<[&str; 7]> = text.splitn(7, SEPARATOR).collect();
    let [state, created, expires, buyer, key, payment, lines] = parts[..] else {
        return Err(broken("too few parts"));
    };
    let lines: SmallVec<[StoredLine; 1]> = lines
        .split(';')
        .map(line_of)
        .collect::<Option<_>>()
        .ok_or_else(|| broken("a line"))?;
    Ok(ReservationRow {
        serial: Serial(number(serial)?),
        sale_no,
        buyer: BuyerId::parse(buyer).map_err(|_| broken("the buyer"))?,
        key: IdempotencyKey::parse(key).map_err(|_| broken("the key"))?,
        state: state_of(state).ok_or_else(|| broken("the state"))?,
        lines,
        created_at: Timestamp(number(created)?),
        expires_at: Timestamp(number(expires)?),
        payment_ref: match payment {
            "" => None,
            text => Some(PaymentRef::parse(text).map_err(|_| broken("the payment"))?),
        },
    })
}

fn line_of(text: &str) -> Option<StoredLine> {
    let mut parts = text.split(',');
    let mut next = || parts.next();
    let line = StoredLine {
        item: ItemIndex(next()?.parse().ok()?),
        units: next()?.parse().ok()?,
        unit_price_minor: Money(next()?.parse().ok()?),
        refunded_units: next().unwrap_or("0").parse().ok()?,
        restocked_units: next().unwrap_or("0").parse().ok()?,
    };
    parts.next().is_none().then_some(line)
}

fn state_of(letter: &str) -> Option<ReservationState> {
    Some(match letter {
        "r" => ReservationState::Reserved,
        "c" => ReservationState::Confirmed,
        "l" => ReservationState::Released,
        "e" => ReservationState::Expired,
        "f" => ReservationState::Refunded,
        _ => return None,
    })
}

/// Reads an item of `meta`: `stock,unreleased,available,reserved,sold,limit`.
///
/// # Errors
/// What is not as it should be.
pub fn units_of(text: &str) -> Result<ItemUnits, String> {
    let mut parts = text.split(',');
    let mut next = || number(parts.next().unwrap_or_default());
    Ok(ItemUnits {
        stock: next()?,
        unreleased: next()?,
        available: next()?,
        reserved: next()?,
        sold: next()?,
    })
}

/// The counters of all items, in order.
///
/// # Errors
/// The first that is missing or cannot be read.
pub fn items_of(
    definition: &SaleDefinition,
    field: impl Fn(&str) -> Option<String>,
) -> Result<Vec<ItemRow>, String> {
    let items = (0_u16..).zip(&definition.items);
    items
        .map(|(index, item)| {
            let text = field(&item_field(index));
            let text = text.ok_or_else(|| format!("item {} is missing", item.item))?;
            Ok(ItemRow {
                index: ItemIndex(index),
                item: item.item,
                units: units_of(&text)?,
            })
        })
        .collect()
}

/// Reads a decision of `ref`.
///
/// # Errors
/// What is not as it should be.
pub fn decision_of(sale_no: SaleNo, field: &str, value: &str) -> Result<DecisionRow, String> {
    let broken = || format!("the decision {field:?} = {value:?}");
    let mut fields = field.splitn(3, SEPARATOR);
    let (Some(kind), Some(_scope), Some(reference)) = (fields.next(), fields.next(), fields.next())
    else {
        return Err(broken());
    };
    let mut values = value.splitn(3, SEPARATOR);
    let (Some(outcome), Some(serial), Some(detail)) = (values.next(), values.next(), values.next())
    else {
        return Err(broken());
    };
    let serial: u64 = number(serial)?;
    Ok(DecisionRow {
        sale_no,
        decision: Decision {
            kind: decision_kind(kind, outcome).ok_or_else(broken)?,
            reference: reference.to_owned(),
            reservation: (serial != 0).then_some(Serial(serial)),
        },
        detail: Some(detail.to_owned()).filter(|detail| !detail.is_empty()),
    })
}
