//! The audit: one read transaction over a store, stopped or running, and what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flash_types::bounds;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::fold::{Account, DecisionMark, Fold, decision_content, decision_place, state_word};
use crate::item::{Accounts, Sum};
use crate::keys;
use crate::report::{Code, ItemReport, Report, SaleReport};
use crate::walk::{Walked, optional_text, text, unsigned, walk};

/// The schema that this audit reads.
const SCHEMA_VERSION: i64 = 2;
/// `STMP`.
const APPLICATION_ID: i64 = 0x5354_4d50;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of SQLite's own check.
const CHECK_LINES_MAX: u32 = 20;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// No database.
    #[error("there is no store in {}: {why}", dir.display())]
    NoStore {
        /// The folder.
        dir: PathBuf,
        /// What is missing.
        why: String,
    },
    /// Written by another program.
    #[error("{} is not a Stampede database", file.display())]
    NotAStore {
        /// The file.
        file: PathBuf,
    },
    /// Another version.
    #[error("{} has schema version {found}, this program audits version {SCHEMA_VERSION}", file.display())]
    OtherVersion {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: i64,
    },
    /// It cannot be read.
    #[error("cannot read {}: {why}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What failed.
        why: String,
    },
    /// A Redis in which nothing was ever stored, or from which everything is gone.
    #[error("there is no store in {shown}")]
    Empty {
        /// Where it is, without a password.
        shown: String,
    },
    /// Redis cannot be asked: which and why, in one line without a password.
    #[error("{0}")]
    Redis(String),
}

/// Proves the books of the store in `dir` from the store alone. Blocks; a running store goes on meanwhile, and what it
/// commits after the start of the audit is not looked at.
///
/// # Errors
/// [`AuditError`] where there is nothing to audit. Damage is not an error: it is in the report.
pub fn audit(dir: &Path) -> Result<Report, AuditError> {
    let file = dir.join("stampede.db");
    if !file.is_file() {
        return Err(AuditError::NoStore {
            dir: dir.to_owned(),
            why: "stampede.db is not there".into(),
        });
    }
    let mut report = Report::default();
    // Before the transaction: what is acknowledged by now must be in what is read then.
    let acked = acked(dir).map_err(|error| AuditError::Unreadable {
        file: dir.join("acked"),
        why: error.to_string(),
    })?;
    report.counts.acked = Some(acked);
    let connection = open(&file)?;
    if let Err(error) = run(&connection, acked, &mut report) {
        report.add(Code::Damaged, error.to_string());
    }
    report.ok = report.findings.is_empty();
    Ok(report)
}

fn acked(dir: &Path) -> std::io::Result<u64> {
    match std::fs::read(dir.join("acked")) {
        Ok(bytes) => Ok(bytes
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn open(file: &Path) -> Result<Connection, AuditError> {
    let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => AuditError::NotAStore {
            file: file.to_owned(),
        },
        _ => AuditError::Unreadable {
            file: file.to_owned(),
            why: error.to_string(),
        },
    };
    let connection = Connection::open_with_flags(
        file,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection
        .execute_batch("PRAGMA cache_size = -65536; BEGIN")
        .map_err(failed)?;
    let pragma = |name| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(failed)
    };
    if pragma("application_id")? != APPLICATION_ID {
        return Err(AuditError::NotAStore {
            file: file.to_owned(),
        });
    }
    let found = pragma("user_version")?;
    if found != SCHEMA_VERSION {
        return Err(AuditError::OtherVersion {
            file: file.to_owned(),
            found,
        });
    }
    Ok(connection)
}

fn run(connection: &Connection, acked: u64, report: &mut Report) -> rusqlite::Result<()> {
    sqlite_check(connection, report)?;
    let mut walked = walk(connection, report)?;
    check_numbers(connection, acked, &walked, report)?;
    check_reservations(&walked.fold, report);
    check_extensions(connection, &walked.fold, report)?;
    check_twice(connection, &mut walked.fold, report)?;
    check_sales(connection, &walked.fold, report)?;
    check_decisions(connection, &mut walked.fold, report)?;
    keys::check(connection, &mut walked.keys, report)
}

fn sqlite_check(connection: &Connection, report: &mut Report) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare(&format!("PRAGMA integrity_check({CHECK_LINES_MAX})"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let line = text(row, 0)?;
        if line != "ok" {
            report.add(Code::Damaged, line.to_owned());
        }
    }
    Ok(())
}

/// Acknowledged batches are there, and starts are numbered without gaps.
fn check_numbers(
    connection: &Connection,
    acked: u64,
    walked: &Walked,
    report: &mut Report,
) -> rusqlite::Result<()> {
    let last = walked.last_batch;
    if acked > last {
        let detail =
            format!("batches up to {acked} were acknowledged, the last one here is {last}");
        report.add(Code::AckedMissing, detail);
    }
    let (starts, epoch) = connection.query_row(
        "SELECT count(*), ifnull(max(epoch), 0) FROM start",
        [],
        |row| Ok((unsigned(row, 0)?, unsigned(row, 1)?)),
    )?;
    let needed = walked.last_serial / bounds::SERIALS_PER_EPOCH;
    if starts != epoch || needed > epoch {
        let detail = format!(
            "{starts} starts are listed, the last is number {epoch}, the last serial is of start {needed}"
        );
        report.add(Code::StartMissing, detail);
    }
    Ok(())
}

/// Every reservation is as its events made it.
fn check_reservations(fold: &Fold, report: &mut Report) {
    for reservation in &fold.reservations {
        let mut differences = Vec::new();
        if reservation.state != reservation.folded_state {
            differences.push(format!(
                "is {}, its events made it {}",
                state_word(reservation.state),
                state_word(reservation.folded_state)
            ));
        }
        if reservation.payment != reservation.folded_payment {
            differences.push("has another payment than its events".into());
        }
        let lines_differ = reservation.lines().any(|line| {
            (line.refunded, line.restocked) != (line.folded_refunded, line.folded_restocked)
        });
        if lines_differ {
            differences.push("has other refunded units than its events".into());
        }
        if !differences.is_empty() {
            let detail = format!("{} {}", reservation.name(), differences.join(" and "));
            report.add(Code::ReservationAltered, detail);
        }
    }
}

/// Every extension is what an event made it, and none is missing.
fn check_extensions(
    connection: &Connection,
    fold: &Fold,
    report: &mut Report,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("SELECT serial, expires_ms FROM extension")?;
    let mut rows = statement.query([])?;
    let mut stored: BTreeMap<u64, i64> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        stored.insert(unsigned(row, 0)?, row.get(1)?);
    }
    for reservation in &fold.reservations {
        let (told, stored) = (
            reservation.folded_extension,
            stored.remove(&reservation.serial),
        );
        if told != stored {
            let detail = format!(
                "{} is extended to {stored:?}, its events say {told:?}",
                reservation.name()
            );
            report.add(Code::ReservationAltered, detail);
        }
    }
    for serial in stored.keys() {
        let detail = format!("reservation {serial} is extended, and is not there");
        report.add(Code::ReservationMissing, detail);
    }
    Ok(())
}

/// No reference is decided by two events.
fn check_twice(
    connection: &Connection,
    fold: &mut Fold,
    report: &mut Report,
) -> rusqlite::Result<()> {
    fold.decisions
        .sort_unstable_by_key(|mark| (mark.place, mark.serial));
    for pair in fold.decisions.windows(2) {
        if pair[0].place == pair[1].place {
            let (kind, reference): (String, Option<String>) = connection.query_row(
                "SELECT type, reference FROM event WHERE serial = ?1",
                [pair[1].serial.cast_signed()],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            let detail = format!(
                "event {} ({kind}) decides on {} once more, event {} did already",
                pair[1].serial,
                reference.unwrap_or_default(),
                pair[0].serial
            );
            report.add(Code::EventUnfit, detail);
        }
    }
    Ok(())
}

/// The counters of every item against the sums over reservations and the fold of the events.
fn check_sales(connection: &Connection, fold: &Fold, report: &mut Report) -> rusqlite::Result<()> {
    let sums = sums(fold);
    let mut statement = connection.prepare(
        "SELECT sale_no, sale_id, state, definition, retired FROM sale ORDER BY sale_no",
    )?;
    let mut rows = statement.query([])?;
    let mut seen = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let sale_no: u32 = row.get(0)?;
        let (sale_id, state) = (text(row, 1)?, text(row, 2)?);
        let is_retired = row.get::<_, i64>(4)? != 0;
        seen.insert(sale_no);
        let folded = fold.sales.get(&sale_no);
        let is_as_told = folded.is_some_and(|told| {
            let stored = row.get_ref(3);
            let stored = stored.map_or("", |value| value.as_str().unwrap_or(""));
            (told.state, told.is_retired) == (state, is_retired) && told.is_planned_as(stored)
        });
        if !is_as_told {
            let told = folded.map_or("nothing", |told| told.state);
            let detail =
                format!("state {state}, retired {is_retired}, or its plan: its events say {told}");
            report.add_of(Code::SaleAltered, Some(sale_id), None, detail);
        }
        let accounts = folded.map_or(&[][..], |told| told.items.as_slice());
        let items = check_items(connection, (sale_no, sale_id), accounts, &sums, report)?;
        report.sales.push(SaleReport {
            sale_id: sale_id.to_owned(),
            state: state.to_owned(),
            items,
        });
    }
    for sale_no in fold.sales.keys().filter(|sale_no| !seen.contains(sale_no)) {
        report.add(
            Code::SaleMissing,
            format!("sale {sale_no} has events and is not there"),
        );
    }
    for (sale_no, item) in sums.keys().filter(|(sale_no, _)| !seen.contains(sale_no)) {
        let detail = format!("sale {sale_no} has reservations of item {item} and is not there");
        report.add(Code::SaleMissing, detail);
    }
    Ok(())
}

/// Over reservations by their state, for each (sale, item).
fn sums(fold: &Fold) -> BTreeMap<(u32, u16), Sum> {
    let mut sums: BTreeMap<(u32, u16), Sum> = BTreeMap::new();
    for reservation in &fold.reservations {
        for line in reservation.lines() {
            let sum = sums.entry((reservation.sale_no, line.item)).or_default();
            sum.add(reservation.state, line.units, line.restocked, 1);
        }
    }
    sums
}

fn check_items(
    connection: &Connection,
    (sale_no, sale_id): (u32, &str),
    accounts: &[Account],
    sums: &BTreeMap<(u32, u16), Sum>,
    report: &mut Report,
) -> rusqlite::Result<Vec<ItemReport>> {
    let mut statement = connection.prepare(
        "SELECT item_index, item, stock_units, unreleased_units, available_units, reserved_units, sold_units \
         FROM item WHERE sale_no = ?1 ORDER BY item_index",
    )?;
    let mut rows = statement.query([sale_no])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        let index: u16 = row.get(0)?;
        let stored = Account {
            stock: row.get(2)?,
            unreleased: row.get(3)?,
            available: row.get(4)?,
            reserved: row.get(5)?,
            sold: row.get(6)?,
        };
        let accounts = Accounts {
            stored,
            sum: sums.get(&(sale_no, index)).copied().unwrap_or_default(),
            folded: accounts.get(usize::from(index)).copied(),
        };
        items.push(accounts.check(sale_id, text(row, 1)?, report));
    }
    if items.len() < accounts.len() {
        let detail = format!("{} of its {} items are there", items.len(), accounts.len());
        report.add_of(Code::SaleMissing, Some(sale_id), None, detail);
    }
    Ok(items)
}

/// Every decision that an event recorded is there, and no other.
fn check_decisions(
    connection: &Connection,
    fold: &mut Fold,
    report: &mut Report,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT sale_no, kind, reference, scope, outcome, reservation, detail FROM decision",
    )?;
    fold.decisions.sort_unstable();
    let mut rows = statement.query([])?;
    let mut stored = Vec::new();
    while let Some(row) = rows.next()? {
        report.counts.decisions += 1;
        let (sale_no, kind, reference): (u32, _, _) = (row.get(0)?, text(row, 1)?, text(row, 2)?);
        let reservation: Option<i64> = row.get(5)?;
        let mark = DecisionMark {
            place: decision_place(sale_no, kind, reference, unsigned(row, 3)?),
            content: decision_content(
                text(row, 4)?,
                reservation.map(i64::cast_unsigned),
                optional_text(row, 6)?,
            ),
            serial: 0,
        };
        let place = fold
            .decisions
            .binary_search_by_key(&(mark.place, mark.content), |told| {
                (told.place, told.content)
            });
        if place.is_err() {
            let detail = format!(
                "no event recorded what is decided for {kind} {reference} of sale {sale_no}"
            );
            report.add(Code::DecisionUnknown, detail);
        }
        stored.push((mark.place, mark.content));
    }
    stored.sort_unstable();
    for told in &fold.decisions {
        if stored.binary_search(&(told.place, told.content)).is_err() {
            let detail = describe_event(connection, told.serial)?;
            report.add(Code::DecisionMissing, detail);
        }
    }
    Ok(())
}

fn describe_event(connection: &Connection, serial: u64) -> rusqlite::Result<String> {
    connection.query_row(
        "SELECT type, sale_no, reference, reservation FROM event WHERE serial = ?1",
        [serial.cast_signed()],
        |row| {
            let (kind, sale_no, reference): (String, u32, Option<String>) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let of = match row.get::<_, Option<i64>>(3)? {
                Some(reservation) => format!(" of r{sale_no}-{reservation}"),
                None => format!(" of sale {sale_no}"),
            };
            let reference = reference.unwrap_or_default();
            Ok(format!(
                "event {serial} ({kind}{of}) decided on {reference}; that decision is not there"
            ))
        },
    )
}
