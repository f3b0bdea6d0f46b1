//! Walks all rows in the order of their serials, batch by batch: counts, ranges, checksums; and feeds the fold.

use flash_store::chain::{Canon, EventFacts, NoteFacts, ReservationFacts};
use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::{Connection, Row, Rows};

use crate::fold::{Event, Fold, Line, RESERVED, Reservation, payment_hash};
use crate::keys::key_hash;
use crate::report::{Code, Report};

/// What the walk gathered.
#[derive(Debug, Default)]
pub struct Walked {
    pub fold: Fold,
    /// (hash of sale, buyer and key; serial) of each reservation.
    pub keys: Vec<(u64, u64)>,
    pub last_batch: u64,
    pub last_serial: u64,
}

struct Batch {
    number: u64,
    at_ms: i64,
    first: u64,
    last: u64,
    jobs: u64,
    chain: u64,
}

/// Rows of one table, the next one's serial known.
struct Cursor<'s> {
    rows: Rows<'s>,
    /// `u64::MAX` at the end.
    serial: u64,
}

impl<'s> Cursor<'s> {
    fn start(rows: Rows<'s>) -> rusqlite::Result<Self> {
        let mut cursor = Self { rows, serial: 0 };
        cursor.advance()?;
        Ok(cursor)
    }

    fn advance(&mut self) -> rusqlite::Result<()> {
        self.serial = match self.rows.next()? {
            Some(row) => unsigned(row, 0)?,
            None => u64::MAX,
        };
        Ok(())
    }

    fn row(&self) -> rusqlite::Result<&Row<'s>> {
        self.rows.get().ok_or(rusqlite::Error::QueryReturnedNoRows)
    }
}

struct Walk<'s, 'r> {
    reservations: Cursor<'s>,
    events: Cursor<'s>,
    notes: Cursor<'s>,
    canon: Canon,
    hashes: Vec<u64>,
    walked: Walked,
    report: &'r mut Report,
}

/// Walks everything.
pub fn walk(connection: &Connection, report: &mut Report) -> rusqlite::Result<Walked> {
    let mut batches = connection.prepare(
        "SELECT number, at_ms, first_serial, last_serial, jobs, chain FROM batch ORDER BY number",
    )?;
    let mut reservations = connection.prepare(
        "SELECT serial, sale_no, buyer, idem_key, state, item_index, units, unit_price_minor, refunded_units, \
         restocked_units, more_lines, created_ms, expires_ms, payment_ref FROM reservation ORDER BY serial",
    )?;
    let mut events = connection.prepare(
        "SELECT serial, sale_no, type, at_ms, reservation, reference, data FROM event ORDER BY serial",
    )?;
    let mut notes = connection.prepare(
        "SELECT number, sale_no, at_ms, who, command, outcome, detail, sale_id FROM note ORDER BY number",
    )?;
    let mut walk = Walk {
        reservations: Cursor::start(reservations.query([])?)?,
        events: Cursor::start(events.query([])?)?,
        notes: Cursor::start(notes.query([])?)?,
        canon: Canon::default(),
        hashes: Vec::new(),
        walked: Walked::default(),
        report,
    };
    let mut batches = batches.query([])?;
    // The value before the first batch is 0; after a gap it is not known.
    let mut chain = Some(0);
    while let Some(row) = batches.next()? {
        let batch = Batch {
            number: unsigned(row, 0)?,
            at_ms: row.get(1)?,
            first: unsigned(row, 2)?,
            last: unsigned(row, 3)?,
            jobs: unsigned(row, 4)?,
            chain: unsigned(row, 5)?,
        };
        walk.batch(&batch, chain)?;
        chain = Some(batch.chain);
    }
    walk.without_batch(u64::MAX)?;
    Ok(walk.walked)
}

impl Walk<'_, '_> {
    fn batch(&mut self, batch: &Batch, before: Option<u64>) -> rusqlite::Result<()> {
        self.report.counts.batches += 1;
        let expected = self.walked.last_batch + 1;
        let mut before = before;
        if batch.number != expected {
            let detail = if batch.number == expected + 1 {
                format!("batch {expected} is not there")
            } else {
                format!(
                    "batches {expected} to {} are not there",
                    batch.number.saturating_sub(1)
                )
            };
            self.report.add(Code::BatchMissing, detail);
            before = None;
        }
        if batch.jobs > 0 && batch.first <= self.walked.last_serial {
            let detail = format!(
                "batch {} begins with serial {}, the one before ended with {}",
                batch.number, batch.first, self.walked.last_serial
            );
            self.report.add(Code::BatchAltered, detail);
        }
        self.without_batch(batch.first)?;
        self.hashes.clear();
        while self.serial() <= batch.last {
            self.take()?;
        }
        self.walked.last_batch = batch.number;
        self.walked.last_serial = batch.last;
        let found = self.hashes.len() as u64;
        let range = format!("serials {} to {}", batch.first, batch.last);
        if found != batch.jobs {
            let detail = format!(
                "batch {} has {found} of its {} rows ({range})",
                batch.number, batch.jobs
            );
            self.report.add(Code::BatchIncomplete, detail);
        } else if let Some(before) = before {
            let chain = self
                .canon
                .batch(before, batch.number, batch.at_ms, &self.hashes);
            if chain != batch.chain {
                let detail = format!(
                    "batch {} is not as it was committed: a row was changed ({range})",
                    batch.number
                );
                self.report.add(Code::BatchAltered, detail);
            }
        }
        Ok(())
    }

    /// Takes rows before `first`: no batch has them.
    fn without_batch(&mut self, first: u64) -> rusqlite::Result<()> {
        let start = self.serial();
        if start >= first {
            return Ok(());
        }
        let (mut rows, mut end) = (0_u64, start);
        while self.serial() < first {
            end = self.serial();
            self.take()?;
            rows += 1;
        }
        let detail = format!("{rows} rows lie in no batch (serials {start} to {end})");
        self.report.add(Code::RowWithoutBatch, detail);
        Ok(())
    }

    fn serial(&self) -> u64 {
        let events = self.events.serial.min(self.notes.serial);
        self.reservations.serial.min(events)
    }

    /// Takes the next row of the three tables.
    fn take(&mut self) -> rusqlite::Result<()> {
        let serial = self.serial();
        if self.reservations.serial == serial {
            self.take_reservation()?;
            self.reservations.advance()
        } else if self.events.serial == serial {
            self.take_event()?;
            self.events.advance()
        } else {
            self.take_note()?;
            self.notes.advance()
        }
    }

    fn take_reservation(&mut self) -> rusqlite::Result<()> {
        self.report.counts.reservations += 1;
        let row = self.reservations.row()?;
        let serial = unsigned(row, 0)?;
        let facts = ReservationFacts {
            serial,
            sale_no: row.get(1)?,
            buyer: text(row, 2)?,
            key: text(row, 3)?,
            created_ms: row.get(11)?,
            expires_ms: row.get(12)?,
        };
        let first = Line {
            item: row.get(5)?,
            units: row.get(6)?,
            refunded: row.get(8)?,
            restocked: row.get(9)?,
            ..Line::default()
        };
        let price: i64 = row.get(7)?;
        let more = match optional_text(row, 10)? {
            None => Vec::new(),
            Some(json) => serde_json::from_str::<Vec<(u16, u32, i64, u32, u32)>>(json)
                .unwrap_or_else(|_| {
                    let detail = format!("more_lines of reservation {serial} cannot be read");
                    self.report.add(Code::Damaged, detail);
                    Vec::new()
                }),
        };
        let lines = std::iter::once((first.item, first.units, price))
            .chain(more.iter().map(|line| (line.0, line.1, line.2)));
        self.hashes.push(self.canon.reservation(&facts, lines));
        self.walked
            .keys
            .push((key_hash(facts.sale_no, facts.buyer, facts.key), serial));
        let reservation = Reservation {
            serial,
            sale_no: facts.sale_no,
            state: row.get(4)?,
            folded_state: RESERVED,
            first,
            more: more
                .iter()
                .map(|(item, units, _, refunded, restocked)| Line {
                    item: *item,
                    units: *units,
                    refunded: *refunded,
                    restocked: *restocked,
                    ..Line::default()
                })
                .collect(),
            payment: payment_hash(optional_text(row, 13)?),
            folded_payment: 0,
            expires_ms: facts.expires_ms,
            folded_extension: None,
        };
        self.walked.fold.reserve(reservation, self.report);
        Ok(())
    }

    fn take_event(&mut self) -> rusqlite::Result<()> {
        self.report.counts.events += 1;
        let row = self.events.row()?;
        let reservation: Option<i64> = row.get(4)?;
        let facts = EventFacts {
            serial: unsigned(row, 0)?,
            sale_no: row.get(1)?,
            kind: text(row, 2)?,
            at_ms: row.get(3)?,
            reservation: reservation.map(i64::cast_unsigned),
            reference: optional_text(row, 5)?,
            data: optional_text(row, 6)?,
        };
        self.hashes.push(self.canon.event(&facts));
        let event = Event {
            serial: facts.serial,
            sale_no: facts.sale_no,
            kind: facts.kind,
            reservation: facts.reservation,
            reference: facts.reference,
            data: facts.data,
        };
        self.walked.fold.event(&event, self.report);
        Ok(())
    }

    fn take_note(&mut self) -> rusqlite::Result<()> {
        self.report.counts.notes += 1;
        let row = self.notes.row()?;
        self.hashes.push(self.canon.note(&NoteFacts {
            serial: unsigned(row, 0)?,
            sale_no: row.get(1)?,
            at_ms: row.get(2)?,
            texts: [text(row, 3)?, text(row, 4)?, text(row, 5)?, text(row, 6)?],
            sale_id: optional_text(row, 7)?,
        }));
        Ok(())
    }
}

/// An INTEGER that holds 64 bits without a sign.
pub fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

pub fn text<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<&'r str> {
    Ok(row.get_ref(column)?.as_str()?)
}

pub fn optional_text<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<Option<&'r str>> {
    Ok(row.get_ref(column)?.as_str_or_null()?)
}
