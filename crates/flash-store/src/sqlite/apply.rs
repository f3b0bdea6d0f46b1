//! Writes one batch into an open transaction: rows, counters, chain. Judges nothing but the books: a change that does
//! not fit what is stored is refused, and with it the batch.

use std::collections::BTreeMap;

use flash_types::{ItemIndex, ReservationState, SaleDefinition, SaleNo, Serial};
use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::read::reservation_row;
use super::sql;
use crate::chain::{Canon, EventFacts, NoteFacts, ReservationFacts};
use crate::words::{
    DecisionWords, EventWords, decision_words, more_lines, more_stored_lines, price_does_not_fit,
    state_code, with_price,
};
use crate::{AdminNote, Batch, Change, Delta, Deltas, Entry, ItemMove, ReserveLine};

/// Where the store stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tip {
    pub batch: u64,
    pub serial: u64,
    pub chain: u64,
}

/// Why a batch could not be written.
#[derive(Debug)]
pub enum Failure {
    Sql(rusqlite::Error),
    /// The change does not fit what is stored.
    Books(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// The prepared statements of the writer, and its buffers.
pub struct Writer<'c> {
    insert_reservation: Statement<'c>,
    move_reservation: Statement<'c>,
    confirm_reservation: Statement<'c>,
    select_reservation: Statement<'c>,
    refund_reservation: Statement<'c>,
    exists_reservation: Statement<'c>,
    insert_event: Statement<'c>,
    insert_decision: Statement<'c>,
    insert_note: Statement<'c>,
    insert_batch: Statement<'c>,
    put_sale: Statement<'c>,
    delete_items: Statement<'c>,
    insert_item: Statement<'c>,
    move_sale: Statement<'c>,
    retire_sale: Statement<'c>,
    select_units: Statement<'c>,
    has_reservations: Statement<'c>,
    select_definition: Statement<'c>,
    replan_sale: Statement<'c>,
    extend_reservation: Statement<'c>,
    move_item: Statement<'c>,
    canon: Canon,
    hashes: Vec<u64>,
    /// Ordered, so that the same batch always writes the same bytes.
    moves: BTreeMap<(SaleNo, ItemIndex), ItemMove>,
}

impl<'c> Writer<'c> {
    pub fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            insert_reservation: connection.prepare(sql::INSERT_RESERVATION)?,
            move_reservation: connection.prepare(sql::MOVE_RESERVATION)?,
            confirm_reservation: connection.prepare(sql::CONFIRM_RESERVATION)?,
            select_reservation: connection.prepare(sql::SELECT_RESERVATION)?,
            refund_reservation: connection.prepare(sql::REFUND_RESERVATION)?,
            exists_reservation: connection.prepare(sql::EXISTS_RESERVATION)?,
            insert_event: connection.prepare(sql::INSERT_EVENT)?,
            insert_decision: connection.prepare(sql::INSERT_DECISION)?,
            insert_note: connection.prepare(sql::INSERT_NOTE)?,
            insert_batch: connection.prepare(sql::INSERT_BATCH)?,
            put_sale: connection.prepare(sql::PUT_SALE)?,
            delete_items: connection.prepare(sql::DELETE_ITEMS)?,
            insert_item: connection.prepare(sql::INSERT_ITEM)?,
            move_sale: connection.prepare(sql::MOVE_SALE)?,
            retire_sale: connection.prepare(sql::RETIRE_SALE)?,
            select_units: connection.prepare(sql::SELECT_UNITS)?,
            has_reservations: connection.prepare(sql::HAS_RESERVATIONS)?,
            select_definition: connection.prepare(sql::SELECT_DEFINITION)?,
            replan_sale: connection.prepare(sql::REPLAN_SALE)?,
            extend_reservation: connection.prepare(sql::EXTEND_RESERVATION)?,
            move_item: connection.prepare(sql::MOVE_ITEM)?,
            canon: Canon::default(),
            hashes: Vec::new(),
            moves: BTreeMap::new(),
        })
    }

    /// Writes the batch; the caller has begun the transaction and checked the order.
    pub fn write(&mut self, tip: Tip, batch: &Batch) -> Result<Tip, Failure> {
        self.hashes.clear();
        self.moves.clear();
        for entry in &batch.entries {
            self.entry(batch, entry)?;
        }
        self.flush_moves()?;
        // An empty batch, sent to see whether the store works again, stands at the serial before it.
        let serial_of = |entry: Option<&Entry>| entry.map_or(tip.serial, |entry| entry.serial.0);
        let chain = self
            .canon
            .batch(tip.chain, batch.number, batch.at.0, &self.hashes);
        let next = Tip {
            batch: batch.number,
            serial: serial_of(batch.entries.last()),
            chain,
        };
        self.insert_batch.execute(params![
            next.batch.cast_signed(),
            batch.at.0,
            serial_of(batch.entries.first()).cast_signed(),
            next.serial.cast_signed(),
            batch.entries.len() as i64,
            chain.cast_signed(),
        ])?;
        Ok(next)
    }

    /// One arm for each change: long, since it is the whole list.
    fn entry(&mut self, batch: &Batch, entry: &Entry) -> Result<(), Failure> {
        let Entry {
            serial,
            sale_no,
            change,
        } = entry;
        let mut released = Deltas::new();
        match change {
            Change::Reserve {
                buyer,
                key,
                lines,
                created_at,
                expires_at,
            } => {
                let facts = ReservationFacts {
                    serial: serial.0,
                    sale_no: sale_no.0,
                    buyer: buyer.as_str(),
                    key: key.as_str(),
                    created_ms: created_at.0,
                    expires_ms: expires_at.0,
                };
                self.reserve(&facts, lines)?;
            }
            Change::Note(note) => self.note(*serial, *sale_no, note)?,
            Change::PutDraft { definition } => self.put_draft(*serial, *sale_no, definition)?,
            Change::Open { held } => {
                self.move_sale(*sale_no, "published", change)?;
                released = self.release_items(*sale_no, held)?;
            }
            Change::Unpublish => {
                self.move_sale(*sale_no, "published open paused", change)?;
                released = self.take_items_back(*sale_no)?;
            }
            Change::ChangePrice {
                item,
                from,
                to,
                definition,
                reason: _,
            } => {
                let stored = self.stored_definition(*sale_no)?;
                let is_fit = with_price(stored, *item, *from, *to).as_ref() == Some(definition);
                must_be_one(usize::from(is_fit), || price_does_not_fit(*sale_no, *item))?;
                self.replan(*sale_no, definition)?;
            }
            Change::Extend {
                reservation,
                expires_at,
            } => {
                let done = self.extend_reservation.execute(params![
                    reservation.0.cast_signed(),
                    sale_no.0,
                    expires_at.0
                ])?;
                let from = ReservationState::Reserved;
                must_be_one(done, || does_not_fit(*reservation, change, from))?;
            }
            Change::Publish => self.move_sale(*sale_no, "draft", change)?,
            Change::Pause => self.move_sale(*sale_no, "open", change)?,
            Change::Resume => self.move_sale(*sale_no, "paused", change)?,
            Change::Close => self.move_sale(*sale_no, "published open paused", change)?,
            Change::Freeze { .. } => {
                self.move_sale(
                    *sale_no,
                    "draft published open paused closed frozen",
                    change,
                )?;
            }
            Change::Retire => must_be_one(self.retire_sale.execute([sale_no.0])?, || {
                format!(
                    "sale {} cannot be retired: it is not there, or is already",
                    sale_no.0
                )
            })?,
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
                let (item, n) = first(units);
                let done = self.confirm_reservation.execute(params![
                    reservation.0.cast_signed(),
                    sale_no.0,
                    state_code(from),
                    payment_ref.as_str(),
                    item,
                    n
                ])?;
                must_be_one(done, || does_not_fit(*reservation, change, from))?;
            }
            Change::Release {
                reservation, units, ..
            }
            | Change::Expire {
                reservation, units, ..
            } => {
                let from = ReservationState::Reserved;
                let to = change.reservation_state().unwrap_or(from);
                let (item, n) = first(units);
                let done = self.move_reservation.execute(params![
                    reservation.0.cast_signed(),
                    sale_no.0,
                    state_code(from),
                    state_code(to),
                    item,
                    n
                ])?;
                must_be_one(done, || does_not_fit(*reservation, change, from))?;
            }
            Change::RefusePayment {
                reservation, state, ..
            }
            | Change::ProtectPrice {
                reservation, state, ..
            } => {
                let is_there = self.exists_reservation.exists(params![
                    reservation.0.cast_signed(),
                    sale_no.0,
                    state_code(*state)
                ])?;
                must_be_one(usize::from(is_there), || {
                    does_not_fit(*reservation, change, *state)
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
            // What nobody drafted could not be folded at the next start.
            Change::CountAttempts { .. } => {
                self.stored_definition(*sale_no)?;
            }
            Change::ChangeStock { .. } | Change::Wave { .. } => {}
        }
        self.add_moves(*sale_no, change);
        self.event(batch, entry, &released)?;
        self.decision(*sale_no, change)
    }

    fn reserve(
        &mut self,
        facts: &ReservationFacts<'_>,
        lines: &[ReserveLine],
    ) -> Result<(), Failure> {
        let Some(line) = lines.first() else {
            return Err(Failure::Books(format!(
                "reservation {} has no lines",
                facts.serial
            )));
        };
        self.insert_reservation.execute(params![
            facts.serial.cast_signed(),
            facts.sale_no,
            facts.buyer,
            facts.key,
            line.item.0,
            line.units,
            line.unit_price_minor.0,
            more_lines(lines),
            facts.created_ms,
            facts.expires_ms,
        ])?;
        let lines = lines
            .iter()
            .map(|line| (line.item.0, line.units, line.unit_price_minor.0));
        self.hashes.push(self.canon.reservation(facts, lines));
        Ok(())
    }

    fn refund(
        &mut self,
        sale_no: SaleNo,
        reservation: Serial,
        restock: bool,
        units: &[Delta],
        is_whole: bool,
    ) -> Result<(), Failure> {
        let broken =
            |what: &str| Failure::Books(format!("refund of reservation {}: {what}", reservation.0));
        let mut rows = self
            .select_reservation
            .query([reservation.0.cast_signed()])?;
        let mut row = match rows.next()? {
            Some(row) => reservation_row(row).map_err(Failure::Books)?,
            None => return Err(broken("it is not there")),
        };
        drop(rows);
        if row.sale_no != sale_no || row.state != ReservationState::Confirmed {
            return Err(broken("it is not a confirmed one of this sale"));
        }
        for delta in units {
            let line = row
                .lines
                .iter_mut()
                .find(|line| line.item == delta.item)
                .ok_or_else(|| broken("an item that it does not have"))?;
            line.refunded_units += delta.units;
            if restock {
                line.restocked_units += delta.units;
            }
            if line.refunded_units > line.units {
                return Err(broken("more units than were sold"));
            }
        }
        let nothing_left = row
            .lines
            .iter()
            .all(|line| line.refunded_units == line.units);
        if nothing_left != is_whole {
            return Err(broken("`whole` is not what its units say"));
        }
        let state = if is_whole {
            ReservationState::Refunded
        } else {
            ReservationState::Confirmed
        };
        let first = row.lines[0];
        self.refund_reservation.execute(params![
            reservation.0.cast_signed(),
            state_code(state),
            first.refunded_units,
            first.restocked_units,
            more_stored_lines(&row.lines),
        ])?;
        Ok(())
    }

    fn put_draft(
        &mut self,
        serial: Serial,
        sale_no: SaleNo,
        definition: &SaleDefinition,
    ) -> Result<(), Failure> {
        // Changes of stock earlier in this batch concern the items of the draft before.
        self.flush_moves()?;
        let text = serde_json::to_string(definition)
            .map_err(|error| Failure::Books(format!("sale {}: {error}", sale_no.0)))?;
        let done = self.put_sale.execute(params![
            sale_no.0,
            definition.sale_id.as_str(),
            text,
            serial.0.cast_signed()
        ])?;
        must_be_one(done, || format!("sale {} is no longer a draft", sale_no.0))?;
        self.delete_items.execute([sale_no.0])?;
        for (index, item) in definition.items.iter().enumerate() {
            self.insert_item.execute(params![
                sale_no.0,
                index as i64,
                item.item.as_str(),
                item.units_per_buyer_max,
                item.stock_units
            ])?;
        }
        Ok(())
    }

    fn note(&mut self, serial: Serial, sale_no: SaleNo, note: &AdminNote) -> Result<(), Failure> {
        let sale_id = note.sale_id.as_ref().map(|sale_id| sale_id.as_str());
        self.insert_note.execute(params![
            serial.0.cast_signed(),
            sale_no.0,
            note.at.0,
            note.who,
            note.command,
            sale_id,
            note.outcome,
            note.detail
        ])?;
        self.hashes.push(self.canon.note(&NoteFacts {
            serial: serial.0,
            sale_no: sale_no.0,
            at_ms: note.at.0,
            texts: [&note.who, &note.command, &note.outcome, &note.detail],
            sale_id,
        }));
        Ok(())
    }

    fn move_sale(&mut self, sale_no: SaleNo, from: &str, change: &Change) -> Result<(), Failure> {
        let Some(state) = change.sale_state() else {
            return Ok(());
        };
        let done = self
            .move_sale
            .execute(params![sale_no.0, state.as_str(), from])?;
        must_be_one(done, || {
            format!(
                "sale {} is not {from}: it cannot become {}",
                sale_no.0,
                state.as_str()
            )
        })
    }

    /// What is unreleased becomes available, but for what is held back; gives what that was.
    fn release_items(&mut self, sale_no: SaleNo, held: &[Delta]) -> Result<Deltas, Failure> {
        // Changes of stock earlier in this batch must be in the counters first.
        self.flush_moves()?;
        let mut released = Deltas::new();
        let mut rows = self.select_units.query([sale_no.0])?;
        while let Some(row) = rows.next()? {
            let item = ItemIndex(row.get(0)?);
            let held = held.iter().find(|delta| delta.item == item);
            let units = row
                .get::<_, u32>(1)?
                .saturating_sub(held.map_or(0, |delta| delta.units));
            if units > 0 {
                released.push(Delta { item, units });
            }
        }
        drop(rows);
        for Delta { item, units } in &released {
            let units = i64::from(*units);
            self.moves.insert(
                (sale_no, *item),
                ItemMove {
                    unreleased: -units,
                    available: units,
                    ..ItemMove::default()
                },
            );
        }
        self.flush_moves()?;
        Ok(released)
    }

    /// What is available is unreleased again, in a sale of which nothing was ever reserved; gives what that was.
    fn take_items_back(&mut self, sale_no: SaleNo) -> Result<Deltas, Failure> {
        if self.has_reservations.exists([sale_no.0])? {
            return Err(Failure::Books(format!(
                "something of sale {} was reserved",
                sale_no.0
            )));
        }
        self.flush_moves()?;
        let mut taken = Deltas::new();
        let mut rows = self.select_units.query([sale_no.0])?;
        while let Some(row) = rows.next()? {
            let (item, units) = (ItemIndex(row.get(0)?), row.get(2)?);
            if units > 0 {
                taken.push(Delta { item, units });
            }
        }
        drop(rows);
        for Delta { item, units } in &taken {
            let units = i64::from(*units);
            self.moves.insert(
                (sale_no, *item),
                ItemMove {
                    unreleased: units,
                    available: -units,
                    ..ItemMove::default()
                },
            );
        }
        self.flush_moves()?;
        Ok(taken)
    }

    fn stored_definition(&mut self, sale_no: SaleNo) -> Result<Box<SaleDefinition>, Failure> {
        let text: Option<String> = self
            .select_definition
            .query_row([sale_no.0], |row| row.get(0))
            .optional()?;
        let Some(text) = text else {
            return Err(Failure::Books(format!("sale {} is not there", sale_no.0)));
        };
        serde_json::from_str(&text)
            .map_err(|error| Failure::Books(format!("sale {}: {error}", sale_no.0)))
    }

    /// Stores a paused sale's plan anew.
    fn replan(&mut self, sale_no: SaleNo, definition: &SaleDefinition) -> Result<(), Failure> {
        let text = serde_json::to_string(definition)
            .map_err(|error| Failure::Books(format!("sale {}: {error}", sale_no.0)))?;
        let done = self.replan_sale.execute(params![sale_no.0, text])?;
        must_be_one(done, || format!("sale {} is not paused", sale_no.0))
    }

    fn event(&mut self, batch: &Batch, entry: &Entry, released: &[Delta]) -> Result<(), Failure> {
        let Some(words) = EventWords::of(&entry.change, released) else {
            return Ok(());
        };
        let facts = EventFacts {
            serial: entry.serial.0,
            sale_no: entry.sale_no.0,
            kind: &words.kind,
            at_ms: batch.at.0,
            reservation: words.reservation.map(|serial| serial.0),
            reference: words.reference.as_deref(),
            data: words.data.as_deref(),
        };
        self.insert_event.execute(params![
            facts.serial.cast_signed(),
            facts.sale_no,
            facts.kind,
            facts.at_ms,
            facts.reservation.map(u64::cast_signed),
            facts.reference,
            facts.data,
        ])?;
        self.hashes.push(self.canon.event(&facts));
        Ok(())
    }

    fn decision(&mut self, sale_no: SaleNo, change: &Change) -> Result<(), Failure> {
        let Some(words) = DecisionWords::of(change) else {
            return Ok(());
        };
        let (kind, outcome) = decision_words(words.kind);
        self.insert_decision.execute(params![
            sale_no.0,
            kind,
            words.reference,
            words.scope.cast_signed(),
            words.reservation.map(|serial| serial.0.cast_signed()),
            outcome,
            words.detail,
        ])?;
        Ok(())
    }

    fn add_moves(&mut self, sale_no: SaleNo, change: &Change) {
        for (item, step) in change.moves() {
            let sum = self.moves.entry((sale_no, item)).or_default();
            sum.stock += step.stock;
            sum.unreleased += step.unreleased;
            sum.available += step.available;
            sum.reserved += step.reserved;
            sum.sold += step.sold;
        }
    }

    /// One update for each touched item; the table's own checks refuse what would oversell.
    fn flush_moves(&mut self) -> Result<(), Failure> {
        while let Some(((sale_no, item), step)) = self.moves.pop_first() {
            let done = self.move_item.execute(params![
                sale_no.0,
                item.0,
                step.stock,
                step.unreleased,
                step.available,
                step.reserved,
                step.sold
            ])?;
            must_be_one(done, || {
                format!("sale {} has no item {}", sale_no.0, item.0)
            })?;
        }
        Ok(())
    }
}

fn must_be_one(rows: usize, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if rows == 1 {
        Ok(())
    } else {
        Err(Failure::Books(what()))
    }
}

/// The first line that a change names; lines stand in the order of the reservation.
fn first(units: &[Delta]) -> (u16, u32) {
    units
        .first()
        .map_or((0, 0), |delta| (delta.item.0, delta.units))
}

fn does_not_fit(reservation: Serial, change: &Change, from: ReservationState) -> String {
    format!(
        "{} of reservation {}: it is not a {} one of this sale with these units",
        change.event_type().unwrap_or_default(),
        reservation.0,
        from.as_str()
    )
}
