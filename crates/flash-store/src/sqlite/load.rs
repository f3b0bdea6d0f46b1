//! Hands over what is stored, and proves it on the way: three threads, one for the reservations, one for the events,
//! one for SQLite's own check.

use std::collections::HashMap;

use crossbeam::channel::{Receiver, Sender, bounded};
use flash_types::{ReservationState, SaleId, SaleNo, SaleState, Serial, Timestamp};
use rusqlite::{Connection, Row, Rows, params};

use super::folder::Paths;
use super::proof::{EventFold, Sums};
use super::read::{
    DECISION_COLUMNS, ITEM_COLUMNS, RESERVATION_COLUMNS, decision_row, item_row, number,
    optional_number, optional_text, reservation_row, text,
};
use super::schema::{open_error, open_for_reading};
use crate::chain::{Canon, EventFacts, NoteFacts, ReservationFacts};
use crate::{Loaded, OpenError, ReservationRow, SaleRow};

/// (serial, hash) pairs that go from one thread to the other at once.
const CHUNK_ROWS: usize = 4_096;
const CHUNKS_MAX: usize = 8;

/// Why the load ended early.
enum Stop {
    Sql(rusqlite::Error),
    Open(OpenError),
    Broken(String),
    /// The other thread ended; it says why.
    Elsewhere,
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<String> for Stop {
    fn from(what: String) -> Self {
        Self::Broken(what)
    }
}

impl From<OpenError> for Stop {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// Loads everything; gives whether there are retired sales whose keys are not all indexed.
///
/// # Errors
/// The first thing found wrong; what SQLite's own check names goes first.
pub fn load(paths: &Paths, into: &mut dyn Loaded) -> Result<bool, OpenError> {
    let (sender, receiver) = bounded(CHUNKS_MAX);
    let (checked, folded, loaded) = std::thread::scope(|scope| {
        let check = scope.spawn(|| quick_check(paths));
        let fold = scope.spawn(move || fold_events(paths, &sender));
        let loaded = Loader::run(paths, receiver, into);
        let folded = fold.join().unwrap_or(Err(Stop::Elsewhere));
        let checked = check.join().unwrap_or(Err(Stop::Elsewhere));
        (checked, folded, loaded)
    });
    let finish = |stop| match stop {
        Stop::Sql(error) => open_error(paths, error),
        Stop::Open(error) => error,
        Stop::Broken(what) => damaged(paths, what),
        Stop::Elsewhere => damaged(paths, "a thread of the load ended early".into()),
    };
    checked.map_err(finish)?;
    let fold = folded.map_err(finish)?;
    let loaded = loaded.map_err(finish)?;
    loaded.check(&fold).map_err(|what| damaged(paths, what))?;
    Ok(loaded.is_retiring)
}

fn damaged(paths: &Paths, what: String) -> OpenError {
    OpenError::Damaged {
        file: paths.database.clone(),
        what,
    }
}

fn quick_check(paths: &Paths) -> Result<(), Stop> {
    let connection = open_for_reading(paths)?;
    let mut statement = connection.prepare("PRAGMA quick_check(3)")?;
    let found: Vec<String> = statement
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if found == ["ok"] {
        Ok(())
    } else {
        Err(Stop::Broken(found.join("; ")))
    }
}

/// Folds events and sends the hash of every event and note, in order of their serials.
fn fold_events(paths: &Paths, hashes: &Sender<Vec<(u64, u64)>>) -> Result<EventFold, Stop> {
    let connection = open_for_reading(paths)?;
    let mut events = connection.prepare(
        "SELECT serial, sale_no, type, at_ms, reservation, reference, data FROM event ORDER BY serial",
    )?;
    let mut notes = connection.prepare(
        "SELECT number, sale_no, at_ms, who, command, outcome, detail, sale_id FROM note ORDER BY number",
    )?;
    let (mut events, mut notes) = (events.query([])?, notes.query([])?);
    let mut canon = Canon::default();
    let mut fold = EventFold::default();
    let mut chunk = Vec::with_capacity(CHUNK_ROWS);
    let mut note = next_note(&mut notes, &mut canon)?;
    loop {
        let event = match events.next()? {
            Some(row) => Some(next_event(row, &mut canon, &mut fold)?),
            None => None,
        };
        let serial = event.map_or(u64::MAX, |(serial, _)| serial);
        while let Some(head) = note.filter(|(number, _)| *number < serial) {
            chunk.push(head);
            note = next_note(&mut notes, &mut canon)?;
        }
        chunk.extend(event);
        let is_last = event.is_none();
        if chunk.len() >= CHUNK_ROWS || is_last {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK_ROWS));
            if hashes.send(full).is_err() {
                return Err(Stop::Elsewhere);
            }
        }
        if is_last {
            return Ok(fold);
        }
    }
}

fn next_event(row: &Row<'_>, canon: &mut Canon, fold: &mut EventFold) -> Result<(u64, u64), Stop> {
    let facts = EventFacts {
        serial: number(row, 0)?,
        sale_no: number(row, 1)?,
        kind: text(row, 2)?,
        at_ms: number(row, 3)?,
        reservation: optional_number(row, 4)?,
        reference: optional_text(row, 5)?,
        data: optional_text(row, 6)?,
    };
    fold.add(&facts)?;
    Ok((facts.serial, canon.event(&facts)))
}

fn next_note(rows: &mut Rows<'_>, canon: &mut Canon) -> Result<Option<(u64, u64)>, Stop> {
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let facts = NoteFacts {
        serial: number(row, 0)?,
        sale_no: number(row, 1)?,
        at_ms: number(row, 2)?,
        texts: [text(row, 3)?, text(row, 4)?, text(row, 5)?, text(row, 6)?],
        sale_id: optional_text(row, 7)?,
    };
    Ok(Some((facts.serial, canon.note(&facts))))
}

/// What the reservations of one sale sum up to.
struct SaleSums {
    sale: SaleRow,
    first_serial: u64,
    /// (reserved, sold) of each item.
    items: Vec<(u64, u64)>,
}

struct Loader<'l> {
    into: &'l mut dyn Loaded,
    events: Receiver<Vec<(u64, u64)>>,
    chunk: std::vec::IntoIter<(u64, u64)>,
    sales: Vec<SaleSums>,
    by_number: HashMap<SaleNo, usize>,
    /// The sale of the row before: mostly that of the next, too.
    latest: usize,
    sums: Sums,
    is_retiring: bool,
    canon: Canon,
    /// Reservations that were given more time, and until when.
    extensions: HashMap<Serial, Timestamp>,
}

struct Outcome {
    sales: Vec<SaleSums>,
    sums: Sums,
    is_retiring: bool,
}

impl<'l> Loader<'l> {
    fn run(
        paths: &Paths,
        events: Receiver<Vec<(u64, u64)>>,
        into: &'l mut dyn Loaded,
    ) -> Result<Outcome, Stop> {
        let connection = open_for_reading(paths)?;
        let mut loader = Self {
            into,
            events,
            chunk: Vec::new().into_iter(),
            sales: Vec::new(),
            by_number: HashMap::new(),
            latest: 0,
            sums: Sums::default(),
            is_retiring: false,
            canon: Canon::default(),
            extensions: HashMap::new(),
        };
        loader.extensions(&connection)?;
        loader.sales(&connection)?;
        loader.batches(&connection)?;
        loader.decisions(&connection)?;
        Ok(Outcome {
            sales: loader.sales,
            sums: loader.sums,
            is_retiring: loader.is_retiring,
        })
    }

    fn sales(&mut self, connection: &Connection) -> Result<(), Stop> {
        let mut items = connection.prepare(&format!(
            "SELECT {ITEM_COLUMNS} FROM item WHERE sale_no = ?1 ORDER BY item_index"
        ))?;
        let mut sales = connection.prepare(
            "SELECT sale_no, sale_id, state, definition, retired, first_serial FROM sale ORDER BY sale_no",
        )?;
        let mut rows = sales.query([])?;
        while let Some(row) = rows.next()? {
            let (mut sale, retired) = sale_row(row)?;
            let mut item_rows = items.query(params![sale.sale_no.0])?;
            while let Some(row) = item_rows.next()? {
                sale.items.push(item_row(row)?);
            }
            self.is_retiring |= retired == 1;
            self.into.sale(sale.clone());
            self.by_number.insert(sale.sale_no, self.sales.len());
            self.sales.push(SaleSums {
                first_serial: number(row, 5)?,
                items: vec![(0, 0); sale.items.len()],
                sale,
            });
        }
        Ok(())
    }

    fn extensions(&mut self, connection: &Connection) -> Result<(), Stop> {
        let mut statement = connection.prepare("SELECT serial, expires_ms FROM extension")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (serial, expires_ms) = (number(row, 0)?, number(row, 1)?);
            self.sums.add_extension(serial, expires_ms);
            self.extensions
                .insert(Serial(serial), Timestamp(expires_ms));
        }
        Ok(())
    }

    /// Walks the batches; each takes its rows from the reservations and from the events, by serial.
    fn batches(&mut self, connection: &Connection) -> Result<(), Stop> {
        let mut reservations = connection.prepare(&format!(
            "SELECT {RESERVATION_COLUMNS} FROM reservation ORDER BY serial"
        ))?;
        let mut reservations = reservations.query([])?;
        let mut reservation = next_reservation(&mut reservations)?;
        let mut event = self.next_event()?;
        let mut batches = connection.prepare(
            "SELECT number, at_ms, first_serial, last_serial, jobs, chain FROM batch ORDER BY number",
        )?;
        let mut batches = batches.query([])?;
        let (mut expected, mut chain, mut previous) = (1_u64, 0_u64, 0_u64);
        let mut hashes: Vec<u64> = Vec::new();
        while let Some(row) = batches.next()? {
            let batch: u64 = number(row, 0)?;
            if batch != expected {
                let missing = OpenError::batches(expected, batch.saturating_sub(1));
                return Err(Stop::Broken(format!("{missing} deleted or lost")));
            }
            let (first, last): (u64, u64) = (number(row, 2)?, number(row, 3)?);
            let jobs: usize = number(row, 4)?;
            hashes.clear();
            loop {
                let reserved = reservation.as_ref().map_or(u64::MAX, |row| row.serial.0);
                let other = event.map_or(u64::MAX, |(serial, _)| serial);
                let serial = reserved.min(other);
                if serial > last {
                    break;
                }
                if serial < first || serial <= previous {
                    return Err(Stop::Broken(format!(
                        "serial {serial} is in no batch, or out of order"
                    )));
                }
                previous = serial;
                if let Some(row) = reservation.take_if(|_| reserved < other) {
                    hashes.push(self.reservation(row)?);
                    reservation = next_reservation(&mut reservations)?;
                } else if let Some((_, hash)) = event {
                    hashes.push(hash);
                    event = self.next_event()?;
                }
            }
            if hashes.len() != jobs {
                return Err(Stop::Broken(format!(
                    "batch {batch} has {} of its {jobs} changes (serials {first} to {last})",
                    hashes.len()
                )));
            }
            chain = self.canon.batch(chain, batch, number(row, 1)?, &hashes);
            if chain.cast_signed() != number::<i64>(row, 5)? {
                return Err(Stop::Broken(format!(
                    "batch {batch} is not as it was written (serials {first} to {last})"
                )));
            }
            expected += 1;
        }
        let rest = reservation
            .map(|row| row.serial.0)
            .or(event.map(|(serial, _)| serial));
        match rest {
            Some(serial) => Err(Stop::Broken(format!("serial {serial} is in no batch"))),
            None => Ok(()),
        }
    }

    fn next_event(&mut self) -> Result<Option<(u64, u64)>, Stop> {
        if let Some(next) = self.chunk.next() {
            return Ok(Some(next));
        }
        // The channel closes after the last chunk, and where the other thread failed: it will say so.
        match self.events.recv() {
            Ok(chunk) => {
                self.chunk = chunk.into_iter();
                Ok(self.chunk.next())
            }
            Err(_) => Ok(None),
        }
    }

    /// Counts a reservation, hands it over, and gives its hash.
    fn reservation(&mut self, mut row: ReservationRow) -> Result<u64, Stop> {
        let broken = |what: &str| Stop::Broken(format!("reservation {}: {what}", row.serial.0));
        if self.sales.get(self.latest).map(|known| known.sale.sale_no) != Some(row.sale_no) {
            self.latest = *self
                .by_number
                .get(&row.sale_no)
                .ok_or_else(|| broken("its sale is missing"))?;
        }
        let sale = &mut self.sales[self.latest];
        for line in &row.lines {
            let (reserved, sold) = sale
                .items
                .get_mut(usize::from(line.item.0))
                .ok_or_else(|| broken("its item is missing"))?;
            match row.state {
                ReservationState::Reserved => *reserved += u64::from(line.units),
                ReservationState::Confirmed | ReservationState::Refunded => {
                    *sold += u64::from(line.units.saturating_sub(line.restocked_units));
                }
                ReservationState::Released
                | ReservationState::Expired
                | ReservationState::Unknown => {}
            }
        }
        self.sums.add_row(&row);
        let facts = ReservationFacts {
            serial: row.serial.0,
            sale_no: row.sale_no.0,
            buyer: row.buyer.as_str(),
            key: row.key.as_str(),
            created_ms: row.created_at.0,
            expires_ms: row.expires_at.0,
        };
        let lines = row
            .lines
            .iter()
            .map(|line| (line.item.0, line.units, line.unit_price_minor.0));
        let hash = self.canon.reservation(&facts, lines);
        if let Some(expires_at) = self.extensions.get(&row.serial) {
            row.expires_at = *expires_at;
        }
        if !sale.sale.is_retired {
            self.into.reservation(row);
        }
        Ok(hash)
    }

    fn decisions(&mut self, connection: &Connection) -> Result<(), Stop> {
        let mut statement =
            connection.prepare(&format!("SELECT {DECISION_COLUMNS} FROM decision"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let decision = decision_row(row)?;
            self.sums.add_decision(&decision);
            let sale = self
                .by_number
                .get(&decision.sale_no)
                .ok_or_else(|| format!("the sale of decision {decision:?} is missing"))?;
            if !self.sales[*sale].sale.is_retired {
                self.into.decision(decision);
            }
        }
        Ok(())
    }
}

impl Outcome {
    /// Holds rows, counters and events against one another.
    fn check(&self, fold: &EventFold) -> Result<(), String> {
        if let Some(what) = self.sums.difference(&fold.sums) {
            return Err(what.to_owned());
        }
        if fold.sales_count() != self.sales.len() {
            return Err(format!(
                "{} sales were made, {} are there",
                fold.sales_count(),
                self.sales.len()
            ));
        }
        for known in &self.sales {
            fold.check_sale(&known.sale, known.first_serial)?;
            for (item, sums) in known.sale.items.iter().zip(&known.items) {
                let counted = (item.units.reserved, item.units.sold);
                if counted != *sums {
                    return Err(format!(
                        "item {} of sale {}: counters say reserved and sold {counted:?}, reservations sum to {sums:?}",
                        item.item, known.sale.definition.sale_id
                    ));
                }
            }
        }
        Ok(())
    }
}

fn next_reservation(rows: &mut Rows<'_>) -> Result<Option<ReservationRow>, Stop> {
    Ok(rows.next()?.map(reservation_row).transpose()?)
}

/// A sale without its items, and its stage of retirement.
fn sale_row(row: &Row<'_>) -> Result<(SaleRow, i64), String> {
    let sale_no = SaleNo(number(row, 0)?);
    let broken = |what: String| format!("sale {}: {what}", sale_no.0);
    let sale_id = SaleId::parse(text(row, 1)?).map_err(|bad| broken(format!("its name {bad}")))?;
    let definition: flash_types::SaleDefinition =
        serde_json::from_str(text(row, 3)?).map_err(|error| broken(error.to_string()))?;
    if definition.sale_id != sale_id {
        return Err(broken("its name is not that of its definition".into()));
    }
    let state = SaleState::parse(text(row, 2)?).ok_or_else(|| broken("its state".into()))?;
    let retired: i64 = number(row, 4)?;
    let sale = SaleRow {
        sale_no,
        state,
        definition,
        is_retired: retired != 0,
        items: Vec::new(),
    };
    Ok((sale, retired))
}
