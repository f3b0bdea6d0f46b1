//! Reads of events, and of what was counted: on a thread of their own, since they may go over much of what is stored.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use flash_types::{SaleNo, Serial, Timestamp};
use rusqlite::{Row, ToSql, params};

use super::read::{
    Queries, RESERVATION_COLUMNS, number, optional_number, optional_text, reservation_row, text,
};
use crate::words::{ATTEMPTS, DRAFTED, EventWords, RETIRED, as_it_stood, attempts_of};
use crate::{AttemptsRow, EventPlace, EventRange, EventRow, ReadError, ReservationRow};

/// The line of an embedded store is never broken.
const GENERATION: u64 = 1;

/// After ?1, of sale ?2 or of all, at most ?3.
const RESERVED_PAGE: &str = "SELECT serial, sale_no, created_ms, idem_key FROM reservation \
    WHERE serial > ?1 AND (?2 IS NULL OR sale_no = ?2) ORDER BY serial LIMIT ?3";

/// The same of all other events.
fn others_page() -> String {
    format!(
        "SELECT serial, sale_no, at_ms, type, reservation, reference, data FROM event \
         WHERE serial > ?1 AND (?2 IS NULL OR sale_no = ?2) \
         AND type NOT IN ('{DRAFTED}', '{RETIRED}', '{ATTEMPTS}') ORDER BY serial LIMIT ?3"
    )
}

/// For the test that looks at how they are answered.
#[cfg(test)]
pub fn page_queries() -> [String; 2] {
    [RESERVED_PAGE.to_owned(), others_page()]
}

/// A change as it is read, without its reservation.
struct Told {
    serial: u64,
    sale_no: SaleNo,
    at: Timestamp,
    words: EventWords,
}

impl Queries {
    pub fn events(&self, range: EventRange, limit: usize) -> Result<Vec<EventRow>, ReadError> {
        let (sale_no, after) = match range {
            EventRange::OfSale(sale_no, after) => (Some(sale_no), after),
            EventRange::OfAll(after) => (None, after.map_or(EventPlace::default(), |(_, at)| at)),
        };
        let mut after = match after.generation.cmp(&GENERATION) {
            // No other line comes after this one, and none was before it.
            Ordering::Greater => return Ok(Vec::new()),
            Ordering::Less => 0,
            Ordering::Equal => after.sequence,
        };
        // One moment for all that follows: an event must not be seen before the reservation that is its subject.
        let moment = self.0.unchecked_transaction().map_err(failed)?;
        if let Some(sale_no) = sale_no {
            let Some(place) = self.sale_place(sale_no)? else {
                return Ok(Vec::new());
            };
            let before = place.first_serial.cast_unsigned().saturating_sub(1);
            after = after.max(before);
        }
        let mut told = self.reserved(sale_no, after, limit)?;
        told.extend(self.others(sale_no, after, limit)?);
        told.sort_unstable_by_key(|told| told.serial);
        told.truncate(limit);
        let rows = told
            .into_iter()
            .map(|told| self.with_reservation(told))
            .collect::<Result<Vec<_>, _>>()?;
        moment.finish().map_err(failed)?;
        Ok(rows)
    }

    fn reserved(
        &self,
        sale_no: Option<SaleNo>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Told>, ReadError> {
        self.rows(
            RESERVED_PAGE,
            page(
                &sale_no_value(sale_no),
                &after_value(after),
                &limit_value(limit),
            ),
            |row| {
                let serial = number(row, 0)?;
                Ok(Told {
                    serial,
                    sale_no: SaleNo(number(row, 1)?),
                    at: Timestamp(number(row, 2)?),
                    words: EventWords {
                        kind: "reservation.reserved".into(),
                        reservation: Some(Serial(serial)),
                        reference: Some(text(row, 3)?.to_owned()),
                        data: None,
                    },
                })
            },
        )
    }

    fn others(
        &self,
        sale_no: Option<SaleNo>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Told>, ReadError> {
        self.rows(
            &others_page(),
            page(
                &sale_no_value(sale_no),
                &after_value(after),
                &limit_value(limit),
            ),
            event,
        )
    }

    fn with_reservation(&self, told: Told) -> Result<EventRow, ReadError> {
        let reservation = match told.words.reservation {
            Some(serial) => Some(self.as_it_stood(serial, &told.words)?),
            None => None,
        };
        Ok(EventRow {
            sale_no: told.sale_no,
            place: EventPlace {
                generation: GENERATION,
                sequence: told.serial,
            },
            kind: told.words.kind.into_owned(),
            at: told.at,
            reservation,
            reference: told.words.reference,
            data: told.words.data,
        })
    }

    fn as_it_stood(&self, serial: Serial, words: &EventWords) -> Result<ReservationRow, ReadError> {
        let sql = format!(
            "SELECT {RESERVATION_COLUMNS}, \
             (SELECT e.expires_ms FROM extension e WHERE e.serial = reservation.serial) \
             FROM reservation WHERE serial = ?1"
        );
        let rows = self.rows(&sql, params![serial.0.cast_signed()], |row| {
            let extended: Option<i64> = optional_number(row, 14)?;
            Ok((reservation_row(row)?, extended))
        })?;
        let Some((mut row, extended)) = rows.into_iter().next() else {
            return Err(ReadError(format!(
                "reservation {} of an event is missing",
                serial.0
            )));
        };
        let made_with = row.expires_at;
        row.expires_at = extended.map_or(made_with, Timestamp);
        as_it_stood(row, words, made_with).map_err(ReadError)
    }

    pub fn attempts(&self, sale_no: SaleNo) -> Result<Vec<AttemptsRow>, ReadError> {
        let Some(place) = self.sale_place(sale_no)? else {
            return Ok(Vec::new());
        };
        let sql = format!(
            "SELECT data FROM event WHERE serial >= ?2 AND sale_no = ?1 AND type = '{ATTEMPTS}' \
             ORDER BY serial"
        );
        self.rows(&sql, params![sale_no.0, place.first_serial], |row| {
            attempts_of(text(row, 0)?)
        })
    }

    pub fn last_places(&self) -> Result<Vec<(SaleNo, EventPlace)>, ReadError> {
        let moment = self.0.unchecked_transaction().map_err(failed)?;
        let mut last: BTreeMap<SaleNo, u64> = BTreeMap::new();
        let told = format!("event WHERE type NOT IN ('{DRAFTED}', '{RETIRED}', '{ATTEMPTS}')");
        for rows in ["reservation", &told] {
            let sql = format!("SELECT sale_no, max(serial) FROM {rows} GROUP BY sale_no");
            let rows = self.rows(&sql, [], |row| {
                Ok((SaleNo(number(row, 0)?), number::<u64>(row, 1)?))
            })?;
            for (sale_no, serial) in rows {
                let known = last.entry(sale_no).or_default();
                *known = serial.max(*known);
            }
        }
        moment.finish().map_err(failed)?;
        let places = last.into_iter().map(|(sale_no, sequence)| {
            let place = EventPlace {
                generation: GENERATION,
                sequence,
            };
            (sale_no, place)
        });
        Ok(places.collect())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is used in map_err")]
fn failed(error: rusqlite::Error) -> ReadError {
    ReadError(error.to_string())
}

fn event(row: &Row<'_>) -> Result<Told, String> {
    Ok(Told {
        serial: number(row, 0)?,
        sale_no: SaleNo(number(row, 1)?),
        at: Timestamp(number(row, 2)?),
        words: EventWords {
            kind: text(row, 3)?.to_owned().into(),
            reservation: optional_number(row, 4)?.map(Serial),
            reference: optional_text(row, 5)?.map(str::to_owned),
            data: optional_text(row, 6)?.map(str::to_owned),
        },
    })
}

fn sale_no_value(sale_no: Option<SaleNo>) -> Option<u32> {
    sale_no.map(|sale_no| sale_no.0)
}

/// Beyond what a serial can be there is nothing.
fn after_value(after: u64) -> i64 {
    i64::try_from(after).unwrap_or(i64::MAX)
}

fn limit_value(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The values of a page: after, sale, limit.
fn page<'v>(sale_no: &'v Option<u32>, after: &'v i64, limit: &'v i64) -> [&'v dyn ToSql; 3] {
    [after, sale_no, limit]
}
