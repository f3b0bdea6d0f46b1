//! The content of the memory store, and what each change does to it: the embedded store's conditions, in plain maps.

use std::collections::{BTreeMap, VecDeque};

use flash_types::{ItemIndex, ItemUnits, ReservationState, SaleNo, SaleState, Serial, Timestamp};

use super::MemoryFault;
use crate::words::{
    DecisionWords, EventWords, as_it_stood, decision_words, price_does_not_fit, stored_line,
    with_price,
};
use crate::{
    AdminNote, Batch, Change, CommitError, Committed, Decision, DecisionRow, Delta, Deltas, Entry,
    EventPlace, EventRow, ItemMove, ItemRow, NotApplied, ReadError, ReservationRow, SaleRow,
};

#[derive(Debug, Clone)]
pub enum Stopped {
    Closed,
    Fatal(String),
}

/// (sale, kind, reference, scope): as in the embedded store.
type DecisionKey = (SaleNo, &'static str, String, u64);

/// Where a lane stands.
#[derive(Debug, Clone, Copy, Default)]
struct Tip {
    /// 0 before the first.
    batch: u64,
    serial: u64,
}

/// Where all lanes stand.
pub struct Tips(BTreeMap<SaleNo, Tip>);

/// An event; its reservation is put in when it is read.
#[derive(Debug, Clone)]
pub struct Told {
    pub row: EventRow,
    pub of: Option<Serial>,
    /// When its batch was built.
    pub batch_at: Timestamp,
}

#[derive(Debug, Clone, Default)]
pub struct State {
    pub epoch: u64,
    /// Each sale is a lane of its own, and changes may be refused by themselves.
    pub is_per_sale: bool,
    /// Under 0 the one of all sales.
    tips: BTreeMap<SaleNo, Tip>,
    pub last_at: Timestamp,
    pub sales: BTreeMap<SaleNo, SaleRow>,
    pub reservations: BTreeMap<Serial, ReservationRow>,
    pub decisions: BTreeMap<DecisionKey, DecisionRow>,
    pub notes: Vec<(u64, AdminNote)>,
    pub entries: Vec<(u64, Entry)>,
    /// Ascending.
    pub events: Vec<Told>,
    /// Reservations that were given more time: until when they were kept before.
    pub extended: BTreeMap<Serial, Timestamp>,
    pub faults: VecDeque<MemoryFault>,
    pub stopped: Option<Stopped>,
    pub broken_books: Option<String>,
}

impl State {
    /// Number of the last batch of the one lane.
    pub fn last_batch(&self) -> u64 {
        self.tips.get(&SaleNo(0)).map_or(0, |tip| tip.batch)
    }

    /// Where the lanes stand: what their writers go on from.
    pub fn tips(&mut self) -> Tips {
        Tips(std::mem::take(&mut self.tips))
    }

    pub fn set_tips(&mut self, tips: Tips) {
        self.tips = tips.0;
    }

    /// Numbers of a lane begin anew with each start.
    pub fn forget_tips(&mut self) {
        if self.is_per_sale {
            for tip in self.tips.values_mut() {
                tip.batch = 0;
            }
        }
    }

    pub fn commit(&mut self, mut batch: Batch) -> Result<Committed, CommitError> {
        let refused = |why: String| Err(CommitError::NotApplied(NotApplied::Unavailable(why)));
        let lane = match batch.entries.first() {
            Some(entry) if self.is_per_sale => entry.sale_no,
            Some(_) | None => SaleNo(0),
        };
        let tip = self.tips.get(&lane).copied().unwrap_or_default();
        match &self.stopped {
            Some(Stopped::Closed) => return refused("the store is closed".into()),
            Some(Stopped::Fatal(why)) => return Err(CommitError::Fatal(why.clone())),
            None => {}
        }
        if batch.number <= tip.batch {
            let why = format!(
                "batch {} comes again; {} is durable already",
                batch.number, tip.batch
            );
            return self.stop(why);
        }
        if batch.number != tip.batch + 1 {
            return refused(format!(
                "batch {} does not follow {}",
                batch.number, tip.batch
            ));
        }
        let mut last = tip.serial;
        for entry in &batch.entries {
            if entry.serial.0 <= last {
                return refused(format!("serial {} does not follow {last}", entry.serial.0));
            }
            last = entry.serial.0;
        }
        match self.faults.pop_front() {
            None => self.apply(lane, batch),
            Some(MemoryFault::NotApplied(why)) => Err(CommitError::NotApplied(why)),
            Some(MemoryFault::Fatal(why)) => self.stop(why),
            Some(MemoryFault::FatalApplied(why)) => {
                self.apply(lane, batch)?;
                self.stop(why)
            }
            Some(MemoryFault::Refused(why)) => {
                // The first change, and the note that tells of it.
                let is_noted = matches!(
                    batch.entries.get(1).map(|entry| &entry.change),
                    Some(Change::Note(_))
                );
                batch.entries.drain(..1 + usize::from(is_noted));
                self.apply(lane, batch)?;
                Ok(Committed {
                    refused: vec![(0, why)],
                    ..Committed::default()
                })
            }
            Some(MemoryFault::Frozen { reason, is_known }) => {
                Err(CommitError::Frozen { reason, is_known })
            }
            Some(MemoryFault::Moved) => {
                self.apply(lane, batch)?;
                Ok(Committed {
                    has_moved: true,
                    ..Committed::default()
                })
            }
        }
    }

    fn stop(&mut self, why: String) -> Result<Committed, CommitError> {
        self.stopped = Some(Stopped::Fatal(why.clone()));
        Err(CommitError::Fatal(why))
    }

    fn apply(&mut self, lane: SaleNo, batch: Batch) -> Result<Committed, CommitError> {
        let mut tip = self.tips.get(&lane).copied().unwrap_or_default();
        for entry in &batch.entries {
            if let Err(what) = self
                .entry(entry)
                .map(|moved| self.tell(entry, batch.at, &moved))
            {
                // Half a batch is applied: this content is not to be used again.
                self.broken_books = Some(what.clone());
                return self.stop(format!("the books refuse: {what}"));
            }
            tip.serial = entry.serial.0;
        }
        tip.batch = batch.number;
        self.tips.insert(lane, tip);
        self.last_at = self.last_at.max(batch.at);
        let number = batch.number;
        self.entries
            .extend(batch.entries.into_iter().map(|entry| (number, entry)));
        Ok(Committed::default())
    }

    /// Keeps the event that a change is.
    fn tell(&mut self, entry: &Entry, batch_at: Timestamp, moved: &[Delta]) {
        let (words, at) = if let Change::Reserve {
            key, created_at, ..
        } = &entry.change
        {
            let words = EventWords {
                kind: "reservation.reserved".into(),
                reservation: Some(entry.serial),
                reference: Some(key.as_str().to_owned()),
                data: None,
            };
            (words, *created_at)
        } else if let Some(words) = EventWords::of(&entry.change, moved) {
            (words, batch_at)
        } else {
            return;
        };
        let row = EventRow {
            sale_no: entry.sale_no,
            place: EventPlace {
                generation: 1,
                sequence: entry.serial.0,
            },
            kind: words.kind.into_owned(),
            at,
            reservation: None,
            reference: words.reference,
            data: words.data,
        };
        self.events.push(Told {
            row,
            of: words.reservation,
            batch_at,
        });
    }

    /// An event with its reservation as it stood.
    pub fn told(&self, told: &Told) -> Result<EventRow, ReadError> {
        let mut row = told.row.clone();
        if let Some(now) = told.of.and_then(|serial| self.reservations.get(&serial)) {
            let words = EventWords {
                kind: row.kind.clone().into(),
                reservation: told.of,
                reference: row.reference.clone(),
                data: row.data.clone(),
            };
            let made_with = self.extended.get(&now.serial);
            let expires_at = made_with.copied().unwrap_or(now.expires_at);
            row.reservation =
                Some(as_it_stood(now.clone(), &words, expires_at).map_err(ReadError)?);
        }
        Ok(row)
    }

    /// One arm for each change: long, since it is the whole list. Gives the units that an opening released, or that an
    /// unpublishing took back.
    fn entry(&mut self, entry: &Entry) -> Result<Deltas, String> {
        let mut moved_units = Deltas::new();
        let Entry {
            serial,
            sale_no,
            change,
        } = entry;
        match change {
            Change::PutDraft { definition } => {
                let is_draft = self
                    .sales
                    .get(sale_no)
                    .is_none_or(|sale| sale.state == SaleState::Draft);
                must(is_draft, || {
                    format!("sale {} is no longer a draft", sale_no.0)
                })?;
                let is_other = |(number, sale): (&SaleNo, &SaleRow)| {
                    number != sale_no && sale.definition.sale_id == definition.sale_id
                };
                must(!self.sales.iter().any(is_other), || {
                    format!("sale {} is there already", definition.sale_id)
                })?;
                self.sales.insert(*sale_no, draft(*sale_no, definition));
            }
            Change::Publish => self.move_sale(*sale_no, &[SaleState::Draft], change)?,
            Change::Open { held } => {
                let sale = self.move_sale_row(*sale_no, &[SaleState::Published], change)?;
                for item in &mut sale.items {
                    let stays = held_of(held, item.index).min(item.units.unreleased);
                    let units = item.units.unreleased - stays;
                    item.units.available += units;
                    item.units.unreleased = stays;
                    push_units(&mut moved_units, item.index, units);
                }
            }
            Change::Unpublish => {
                let is_new = !self
                    .reservations
                    .values()
                    .any(|row| row.sale_no == *sale_no);
                must(is_new, || {
                    format!("something of sale {} was reserved", sale_no.0)
                })?;
                let from = [SaleState::Published, SaleState::Open, SaleState::Paused];
                let sale = self.move_sale_row(*sale_no, &from, change)?;
                for item in &mut sale.items {
                    let units = std::mem::take(&mut item.units.available);
                    item.units.unreleased += units;
                    push_units(&mut moved_units, item.index, units);
                }
            }
            Change::ChangePrice {
                item,
                from,
                to,
                definition,
                reason: _,
            } => {
                let sale = self.sale(*sale_no)?;
                let stored = Box::new(sale.definition.clone());
                let is_fit = with_price(stored, *item, *from, *to).as_ref() == Some(definition);
                must(is_fit, || price_does_not_fit(*sale_no, *item))?;
                must(sale.state == SaleState::Paused, || {
                    format!("sale {} is not paused", sale_no.0)
                })?;
                sale.definition = (**definition).clone();
            }
            Change::CountAttempts { .. } | Change::Wave { .. } => {
                self.sale(*sale_no)?;
            }
            Change::Extend {
                reservation,
                expires_at,
            } => {
                let row = self.reservation(*sale_no, *reservation)?;
                must(row.state == ReservationState::Reserved, || {
                    format!("reservation {} is not reserved", reservation.0)
                })?;
                let before = std::mem::replace(&mut row.expires_at, *expires_at);
                let is_first = self.extended.insert(*reservation, before).is_none();
                must(is_first && before < *expires_at, || {
                    format!("reservation {} cannot be kept longer", reservation.0)
                })?;
            }
            Change::Pause => self.move_sale(*sale_no, &[SaleState::Open], change)?,
            Change::Resume => self.move_sale(*sale_no, &[SaleState::Paused], change)?,
            Change::Close => {
                let from = [SaleState::Published, SaleState::Open, SaleState::Paused];
                self.move_sale(*sale_no, &from, change)?;
            }
            Change::Freeze { .. } => {
                self.sale(*sale_no)?.state = SaleState::Frozen;
            }
            Change::Retire => {
                let sale = self.sale(*sale_no)?;
                must(!sale.is_retired, || {
                    format!("sale {} is retired already", sale_no.0)
                })?;
                sale.is_retired = true;
            }
            Change::Reserve {
                buyer,
                key,
                lines,
                created_at,
                expires_at,
            } => {
                must(!lines.is_empty(), || {
                    format!("reservation {} has no lines", serial.0)
                })?;
                let row = ReservationRow {
                    serial: *serial,
                    sale_no: *sale_no,
                    buyer: *buyer,
                    key: *key,
                    state: ReservationState::Reserved,
                    lines: lines.iter().map(stored_line).collect(),
                    created_at: *created_at,
                    expires_at: *expires_at,
                    payment_ref: None,
                };
                self.reservations.insert(*serial, row);
            }
            Change::Confirm {
                reservation,
                payment_ref,
                is_late,
                units,
            } => {
                let from = if *is_late {
                    ReservationState::Expired
                } else {
                    ReservationState::Reserved
                };
                let row = self.move_reservation(*sale_no, *reservation, from, units, change)?;
                row.payment_ref = Some(*payment_ref);
            }
            Change::Release {
                reservation, units, ..
            }
            | Change::Expire {
                reservation, units, ..
            } => {
                let from = ReservationState::Reserved;
                self.move_reservation(*sale_no, *reservation, from, units, change)?;
            }
            Change::RefusePayment {
                reservation, state, ..
            }
            | Change::ProtectPrice {
                reservation, state, ..
            } => {
                let row = self.reservation(*sale_no, *reservation)?;
                must(row.state == *state, || {
                    format!("reservation {} is not {}", reservation.0, state.as_str())
                })?;
            }
            Change::Refund {
                reservation,
                restock,
                units,
                is_whole,
                refund_ref: _,
                refunded: _,
            } => self.refund(*sale_no, *reservation, *restock, units, *is_whole)?,
            Change::ChangeStock { .. } => {}
            Change::Note(note) => self.notes.push((serial.0, note.clone())),
        }
        for (item, step) in change.moves() {
            let sale = self.sale(*sale_no)?;
            let row = sale
                .items
                .get_mut(usize::from(item.0))
                .ok_or_else(|| format!("sale {} has no item {}", sale_no.0, item.0))?;
            row.units = moved(row.units, step)?;
        }
        self.decision(*sale_no, change)?;
        Ok(moved_units)
    }

    fn sale(&mut self, sale_no: SaleNo) -> Result<&mut SaleRow, String> {
        self.sales
            .get_mut(&sale_no)
            .ok_or_else(|| format!("sale {} is not there", sale_no.0))
    }

    fn move_sale_row(
        &mut self,
        sale_no: SaleNo,
        from: &[SaleState],
        change: &Change,
    ) -> Result<&mut SaleRow, String> {
        let sale = self.sale(sale_no)?;
        let state = change.sale_state().unwrap_or(sale.state);
        must(from.contains(&sale.state), || {
            format!("sale {} is {}", sale_no.0, sale.state.as_str())
        })?;
        sale.state = state;
        Ok(sale)
    }

    fn move_sale(
        &mut self,
        sale_no: SaleNo,
        from: &[SaleState],
        change: &Change,
    ) -> Result<(), String> {
        self.move_sale_row(sale_no, from, change).map(|_| ())
    }

    fn reservation(
        &mut self,
        sale_no: SaleNo,
        serial: Serial,
    ) -> Result<&mut ReservationRow, String> {
        self.reservations
            .get_mut(&serial)
            .filter(|row| row.sale_no == sale_no)
            .ok_or_else(|| format!("reservation {} is not there", serial.0))
    }

    fn move_reservation(
        &mut self,
        sale_no: SaleNo,
        serial: Serial,
        from: ReservationState,
        units: &Deltas,
        change: &Change,
    ) -> Result<&mut ReservationRow, String> {
        let row = self.reservation(sale_no, serial)?;
        let first = units.first().map(|delta| (delta.item, delta.units));
        let is_fit = row.state == from && first == Some((row.lines[0].item, row.lines[0].units));
        must(is_fit, || {
            format!(
                "reservation {} is not a {} one with these units",
                serial.0,
                from.as_str()
            )
        })?;
        row.state = change.reservation_state().unwrap_or(row.state);
        Ok(row)
    }

    fn refund(
        &mut self,
        sale_no: SaleNo,
        serial: Serial,
        restock: bool,
        units: &Deltas,
        is_whole: bool,
    ) -> Result<(), String> {
        let row = self.reservation(sale_no, serial)?;
        must(row.state == ReservationState::Confirmed, || {
            format!("reservation {} is not confirmed", serial.0)
        })?;
        for delta in units {
            let line = row
                .lines
                .iter_mut()
                .find(|line| line.item == delta.item)
                .ok_or_else(|| format!("reservation {} has no such item", serial.0))?;
            line.refunded_units += delta.units;
            if restock {
                line.restocked_units += delta.units;
            }
            must(line.refunded_units <= line.units, || {
                format!("reservation {}: more refunded than sold", serial.0)
            })?;
        }
        let nothing_left = row
            .lines
            .iter()
            .all(|line| line.refunded_units == line.units);
        must(nothing_left == is_whole, || {
            format!(
                "reservation {}: `whole` is not what its units say",
                serial.0
            )
        })?;
        if is_whole {
            row.state = ReservationState::Refunded;
        }
        Ok(())
    }

    fn decision(&mut self, sale_no: SaleNo, change: &Change) -> Result<(), String> {
        let Some(words) = DecisionWords::of(change) else {
            return Ok(());
        };
        let (kind, _) = decision_words(words.kind);
        let key = (sale_no, kind, words.reference.clone(), words.scope);
        let row = DecisionRow {
            sale_no,
            decision: Decision {
                kind: words.kind,
                reference: words.reference,
                reservation: words.reservation,
            },
            detail: words.detail,
        };
        let before = self.decisions.insert(key, row);
        must(before.is_none(), || {
            "a reference is decided a second time".into()
        })
    }
}

fn draft(sale_no: SaleNo, definition: &flash_types::SaleDefinition) -> SaleRow {
    let items = definition.items.iter().enumerate().map(|(index, item)| {
        let stock = u64::from(item.stock_units);
        ItemRow {
            index: ItemIndex(index as u16),
            item: item.item,
            units: ItemUnits {
                stock,
                unreleased: stock,
                ..ItemUnits::default()
            },
        }
    });
    SaleRow {
        sale_no,
        state: SaleState::Draft,
        definition: definition.clone(),
        is_retired: false,
        items: items.collect(),
    }
}

fn push_units(units: &mut Deltas, item: ItemIndex, n: u64) {
    if n > 0 {
        let units_u32 = u32::try_from(n).unwrap_or(u32::MAX);
        units.push(Delta {
            item,
            units: units_u32,
        });
    }
}

/// Units of an item in a list of units.
fn held_of(held: &[Delta], item: ItemIndex) -> u64 {
    let found = held.iter().find(|delta| delta.item == item);
    found.map_or(0, |delta| delta.units.into())
}

fn moved(units: ItemUnits, step: ItemMove) -> Result<ItemUnits, String> {
    let sum = |units: u64, step: i64| {
        units
            .checked_add_signed(step)
            .ok_or_else(|| "a counter would go below zero".to_owned())
    };
    Ok(ItemUnits {
        stock: sum(units.stock, step.stock)?,
        unreleased: sum(units.unreleased, step.unreleased)?,
        available: sum(units.available, step.available)?,
        reserved: sum(units.reserved, step.reserved)?,
        sold: sum(units.sold, step.sold)?,
    })
}

fn must(is_so: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(what()) }
}
