//! Reads of committed rows, on a connection and a thread of their own.

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use flash_types::{
    BuyerId, IdempotencyKey, ItemId, ItemIndex, ItemUnits, Money, PaymentRef, SaleId, SaleNo,
    Serial, Timestamp,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::words::{decision_kind, state_code, state_of};
use crate::{
    AdminNote, Decision, DecisionRow, ItemRow, Page, ReadError, ReservationFilter, ReservationRow,
    StoredLine,
};

/// Reads that wait; more are refused.
const QUEUE_READS_MAX: usize = 1_024;

pub const RESERVATION_COLUMNS: &str = "serial, sale_no, buyer, idem_key, state, item_index, units, \
    unit_price_minor, refunded_units, restocked_units, more_lines, created_ms, expires_ms, payment_ref";
/// The same as it stands for buyers: with the time that a reservation was given to pay.
const SHOWN_COLUMNS: &str = "serial, sale_no, buyer, idem_key, state, item_index, units, \
    unit_price_minor, refunded_units, restocked_units, more_lines, created_ms, \
    ifnull((SELECT e.expires_ms FROM extension e WHERE e.serial = reservation.serial), expires_ms), payment_ref";
pub const DECISION_COLUMNS: &str = "sale_no, kind, outcome, reference, reservation, detail";
pub const ITEM_COLUMNS: &str = "item_index, item, stock_units, unreleased_units, available_units, \
    reserved_units, sold_units";

type Read = Box<dyn FnOnce(&Queries) + Send>;

/// The way to the reading thread.
#[derive(Debug)]
pub struct Reader {
    // `None` once closed: the thread ends when the channel does.
    reads: parking_lot::Mutex<Option<Sender<Read>>>,
    thread: parking_lot::Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Reader {
    /// Starts the thread.
    pub fn start(name: &str, connection: Connection) -> std::io::Result<Self> {
        let (sender, receiver): (_, Receiver<Read>) = bounded(QUEUE_READS_MAX);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let queries = Queries(connection);
                while let Ok(read) = receiver.recv() {
                    read(&queries);
                }
            })?;
        Ok(Self {
            reads: parking_lot::Mutex::new(Some(sender)),
            thread: parking_lot::Mutex::new(Some(thread)),
        })
    }

    /// Runs a read on the thread.
    ///
    /// # Cancel safety
    /// Dropping the future drops the answer.
    pub async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Queries) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |queries| {
            // Nobody waits any more: nothing to do.
            if !reply.is_closed() {
                let _ = reply.send(query(queries));
            }
        });
        let sent = match self.reads.lock().as_ref() {
            Some(reads) => reads.try_send(read).map_err(|error| match error {
                TrySendError::Full(_) => ReadError("too many reads wait".into()),
                TrySendError::Disconnected(_) => ReadError("the reading thread is gone".into()),
            }),
            None => Err(ReadError("the store is closed".into())),
        };
        sent?;
        answer
            .await
            .map_err(|_| ReadError("the reading thread is gone".into()))?
    }

    /// Ends the thread and waits for the read in progress.
    pub fn stop(&self) {
        drop(self.reads.lock().take());
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// The queries.
pub struct Queries(pub(super) Connection);

impl Queries {
    pub fn reservation(
        &self,
        sale_no: SaleNo,
        serial: Serial,
    ) -> Result<Option<ReservationRow>, ReadError> {
        let sql =
            format!("SELECT {SHOWN_COLUMNS} FROM reservation WHERE serial = ?1 AND sale_no = ?2");
        let rows = self.rows(
            &sql,
            params![serial.0.cast_signed(), sale_no.0],
            reservation_row,
        )?;
        Ok(rows.into_iter().next())
    }

    /// By the index, where it is filled; else by looking at every row of the sale, which is slow and right.
    pub fn reservation_by_key(
        &self,
        sale_no: SaleNo,
        buyer: BuyerId,
        key: IdempotencyKey,
    ) -> Result<Option<ReservationRow>, ReadError> {
        let columns = SHOWN_COLUMNS;
        let sql = match self.sale_place(sale_no)? {
            None => return Ok(None),
            Some(place) if place.is_indexed => format!(
                "SELECT {columns} FROM reservation WHERE serial = (SELECT serial FROM retired_key \
                 WHERE sale_no = ?1 AND buyer = ?2 AND idem_key = ?3)"
            ),
            Some(place) => format!(
                "SELECT {columns} FROM reservation WHERE serial >= {} \
                 AND sale_no = ?1 AND buyer = ?2 AND idem_key = ?3 LIMIT 1",
                place.first_serial
            ),
        };
        let rows = self.rows(
            &sql,
            params![sale_no.0, buyer.as_str(), key.as_str()],
            reservation_row,
        )?;
        Ok(rows.into_iter().next())
    }

    pub fn payment_decision(
        &self,
        sale_no: SaleNo,
        payment_ref: PaymentRef,
    ) -> Result<Option<DecisionRow>, ReadError> {
        let sql = format!(
            "SELECT {DECISION_COLUMNS} FROM decision \
             WHERE sale_no = ?1 AND kind = 'payment' AND reference = ?2 AND scope = 0"
        );
        let rows = self.rows(&sql, params![sale_no.0, payment_ref.as_str()], decision_row)?;
        Ok(rows.into_iter().next())
    }

    pub fn decisions_of(
        &self,
        sale_no: SaleNo,
        serial: Serial,
    ) -> Result<Vec<DecisionRow>, ReadError> {
        let sql = format!(
            "SELECT {DECISION_COLUMNS} FROM decision WHERE reservation = ?1 AND sale_no = ?2 \
             ORDER BY kind, reference"
        );
        self.rows(
            &sql,
            params![serial.0.cast_signed(), sale_no.0],
            decision_row,
        )
    }

    pub fn reservations(
        &self,
        sale_no: SaleNo,
        filter: ReservationFilter,
        page: Page,
    ) -> Result<Vec<ReservationRow>, ReadError> {
        let Some(place) = self.sale_place(sale_no)? else {
            return Ok(Vec::new());
        };
        // Beyond what a serial can be there is nothing.
        let after = i64::try_from(page.after.0).unwrap_or(i64::MAX);
        let after = after.max(place.first_serial);
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        let buyer = filter.buyer.as_ref().map(|buyer| buyer.as_str());
        let state = filter.state.map(state_code);
        let mut values: Vec<&dyn ToSql> = vec![&sale_no.0, &after, &limit];
        let mut sql = format!("SELECT {SHOWN_COLUMNS} FROM reservation WHERE ");
        match &buyer {
            Some(buyer) if place.is_indexed => {
                sql +=
                    "serial IN (SELECT serial FROM retired_key WHERE sale_no = ?1 AND buyer = ?4) ";
                values.push(buyer);
            }
            Some(buyer) => {
                sql += "sale_no = ?1 AND buyer = ?4 ";
                values.push(buyer);
            }
            None => sql += "sale_no = ?1 ",
        }
        if let Some(state) = &state {
            values.push(state);
            sql += &format!("AND state = ?{} ", values.len());
        }
        let first_after = match filter.updated_after {
            Some(time) => match self.first_serial_after(time)? {
                Some(first) => Some(first),
                None => return Ok(Vec::new()),
            },
            None => None,
        };
        if let Some(first) = &first_after {
            values.push(first);
            let place = values.len();
            sql += &format!(
                "AND (serial >= ?{place} OR serial IN (SELECT reservation FROM event \
                 WHERE serial >= ?{place} AND sale_no = ?1)) "
            );
        }
        sql += "AND serial > ?2 ORDER BY serial LIMIT ?3";
        self.rows(&sql, values.as_slice(), reservation_row)
    }

    /// The serial of the first change that was made after a time.
    fn first_serial_after(&self, time: Timestamp) -> Result<Option<i64>, ReadError> {
        self.0
            .query_row(
                "SELECT min(first_serial) FROM batch WHERE at_ms > ?1 AND jobs > 0",
                [time.0],
                |row| row.get(0),
            )
            .map_err(|error| ReadError(error.to_string()))
    }

    pub fn items(&self, sale_no: SaleNo) -> Result<Vec<ItemRow>, ReadError> {
        let sql = format!("SELECT {ITEM_COLUMNS} FROM item WHERE sale_no = ?1 ORDER BY item_index");
        self.rows(&sql, params![sale_no.0], item_row)
    }

    pub fn admin_notes(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, AdminNote)>, ReadError> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.rows(
            "SELECT number, at_ms, who, command, sale_id, outcome, detail FROM note \
             WHERE number > ?1 ORDER BY number LIMIT ?2",
            params![after, limit],
            note_row,
        )
    }

    pub(super) fn sale_place(&self, sale_no: SaleNo) -> Result<Option<SalePlace>, ReadError> {
        self.0
            .query_row(
                "SELECT retired = 2, first_serial FROM sale WHERE sale_no = ?1",
                [sale_no.0],
                |row| {
                    Ok(SalePlace {
                        is_indexed: row.get(0)?,
                        first_serial: row.get(1)?,
                    })
                },
            )
            .optional()
            .map_err(|error| ReadError(error.to_string()))
    }

    pub(super) fn rows<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        decode: fn(&Row<'_>) -> Result<T, String>,
    ) -> Result<Vec<T>, ReadError> {
        let failed = |error: rusqlite::Error| ReadError(error.to_string());
        let mut statement = self.0.prepare(sql).map_err(failed)?;
        let mut rows = statement.query(values).map_err(failed)?;
        let mut decoded = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            decoded.push(decode(row).map_err(ReadError)?);
        }
        Ok(decoded)
    }
}

pub(super) struct SalePlace {
    is_indexed: bool,
    pub(super) first_serial: i64,
}

/// Decodes [`RESERVATION_COLUMNS`].
///
/// # Errors
/// What is not as this program writes it.
pub fn reservation_row(row: &Row<'_>) -> Result<ReservationRow, String> {
    let serial: u64 = number(row, 0)?;
    let broken = |what: &str| format!("reservation {serial}: {what}");
    let mut lines: SmallVec<[StoredLine; 1]> = SmallVec::new();
    lines.push(StoredLine {
        item: ItemIndex(number(row, 5)?),
        units: number(row, 6)?,
        unit_price_minor: Money(number(row, 7)?),
        refunded_units: number(row, 8)?,
        restocked_units: number(row, 9)?,
    });
    if let Some(more) = optional_text(row, 10)? {
        let more: Vec<(u16, u32, i64, u32, u32)> =
            serde_json::from_str(more).map_err(|_| broken("more_lines cannot be read"))?;
        lines.extend(more.into_iter().map(
            |(item, units, price, refunded_units, restocked_units)| StoredLine {
                item: ItemIndex(item),
                units,
                unit_price_minor: Money(price),
                refunded_units,
                restocked_units,
            },
        ));
    }
    Ok(ReservationRow {
        serial: Serial(serial),
        sale_no: SaleNo(number(row, 1)?),
        buyer: BuyerId::parse(text(row, 2)?).map_err(|_| broken("its buyer is no id"))?,
        key: IdempotencyKey::parse(text(row, 3)?).map_err(|_| broken("its key is no id"))?,
        state: state_of(number(row, 4)?).ok_or_else(|| broken("its state is not one of 1 to 5"))?,
        lines,
        created_at: Timestamp(number(row, 11)?),
        expires_at: Timestamp(number(row, 12)?),
        payment_ref: optional_text(row, 13)?
            .map(PaymentRef::parse)
            .transpose()
            .map_err(|_| broken("its payment_ref is no id"))?,
    })
}

/// Decodes [`DECISION_COLUMNS`].
///
/// # Errors
/// What is not as this program writes it.
pub fn decision_row(row: &Row<'_>) -> Result<DecisionRow, String> {
    let (kind, outcome) = (text(row, 1)?, text(row, 2)?);
    let kind = decision_kind(kind, outcome)
        .ok_or_else(|| format!("a decision of kind {kind:?} and outcome {outcome:?}"))?;
    Ok(DecisionRow {
        sale_no: SaleNo(number(row, 0)?),
        decision: Decision {
            kind,
            reference: text(row, 3)?.to_owned(),
            reservation: optional_number(row, 4)?.map(Serial),
        },
        detail: optional_text(row, 5)?.map(str::to_owned),
    })
}

/// Decodes [`ITEM_COLUMNS`].
///
/// # Errors
/// What is not as this program writes it.
pub fn item_row(row: &Row<'_>) -> Result<ItemRow, String> {
    Ok(ItemRow {
        index: ItemIndex(number(row, 0)?),
        item: ItemId::parse(text(row, 1)?).map_err(|bad| format!("an item's name {bad}"))?,
        units: ItemUnits {
            stock: number(row, 2)?,
            unreleased: number(row, 3)?,
            available: number(row, 4)?,
            reserved: number(row, 5)?,
            sold: number(row, 6)?,
        },
    })
}

fn note_row(row: &Row<'_>) -> Result<(u64, AdminNote), String> {
    let note = AdminNote {
        at: Timestamp(number(row, 1)?),
        who: text(row, 2)?.to_owned(),
        command: text(row, 3)?.to_owned(),
        sale_id: optional_text(row, 4)?
            .map(SaleId::parse)
            .transpose()
            .map_err(|bad| format!("a note's sale_id {bad}"))?,
        outcome: text(row, 5)?.to_owned(),
        detail: text(row, 6)?.to_owned(),
    };
    Ok((number(row, 0)?, note))
}

pub fn number<T: TryFrom<i64>>(row: &Row<'_>, column: usize) -> Result<T, String> {
    optional_number(row, column)?.ok_or_else(|| format!("column {column} is empty"))
}

pub fn optional_number<T: TryFrom<i64>>(row: &Row<'_>, column: usize) -> Result<Option<T>, String> {
    let value = row.get_ref(column).map_err(|error| error.to_string())?;
    if value == ValueRef::Null {
        return Ok(None);
    }
    let number = value.as_i64().map_err(|error| error.to_string())?;
    match T::try_from(number) {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(format!("column {column} holds {number}, out of its range")),
    }
}

pub fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r str, String> {
    optional_text(row, column)?.ok_or_else(|| format!("column {column} is empty"))
}

pub fn optional_text<'r>(row: &'r Row<'_>, column: usize) -> Result<Option<&'r str>, String> {
    row.get_ref(column)
        .map_err(|error| error.to_string())?
        .as_str_or_null()
        .map_err(|error| error.to_string())
}
