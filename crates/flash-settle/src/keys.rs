//! One key, one reservation: no key won twice, and the index of retired keys knows each.

use std::collections::HashSet;

use rusqlite::Connection;
use xxhash_rust::xxh3::xxh3_64;

use crate::report::{Code, Report};
use crate::walk::{text, unsigned};

pub fn key_hash(sale_no: u32, buyer: &str, key: &str) -> u64 {
    // Ids hold no spaces.
    let mut bytes = [0; 160];
    let mut length = 0;
    for part in [
        &sale_no.to_le_bytes(),
        buyer.as_bytes(),
        b" ",
        key.as_bytes(),
    ] {
        let room = bytes.len() - length;
        let part = &part[..part.len().min(room)];
        bytes[length..length + part.len()].copy_from_slice(part);
        length += part.len();
    }
    xxh3_64(&bytes[..length])
}

/// `keys` are (hash of sale, buyer and key; serial) of every reservation; they are sorted here.
pub fn check(
    connection: &Connection,
    keys: &mut [(u64, u64)],
    report: &mut Report,
) -> rusqlite::Result<()> {
    check_twice(keys, report);
    let mut statement =
        connection.prepare("SELECT sale_no, sale_id FROM sale WHERE retired = 2")?;
    let sales: Vec<(u32, String)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (sale_no, sale_id) in sales {
        check_index(connection, keys, sale_no, &sale_id, report)?;
    }
    Ok(())
}

/// (hash of a key, serial) of every reservation: sorts them, and tells those that share a key.
pub fn check_twice(keys: &mut [(u64, u64)], report: &mut Report) {
    keys.sort_unstable();
    for pair in keys.windows(2) {
        if pair[0].0 == pair[1].0 {
            let detail = format!(
                "reservations {} and {} were won by the same key of the same buyer",
                pair[0].1, pair[1].1
            );
            report.add(Code::KeyTwice, detail);
        }
    }
}

fn check_index(
    connection: &Connection,
    keys: &[(u64, u64)],
    sale_no: u32,
    sale_id: &str,
    report: &mut Report,
) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare("SELECT buyer, idem_key, serial FROM retired_key WHERE sale_no = ?1")?;
    let mut rows = statement.query([sale_no])?;
    let mut indexed = HashSet::new();
    let mut wrong = 0_u64;
    while let Some(row) = rows.next()? {
        let entry = (
            key_hash(sale_no, text(row, 0)?, text(row, 1)?),
            unsigned(row, 2)?,
        );
        if keys.binary_search(&entry).is_err() {
            wrong += 1;
        }
        indexed.insert(entry.1);
    }
    let mut statement = connection.prepare("SELECT serial FROM reservation WHERE sale_no = ?1")?;
    let mut rows = statement.query([sale_no])?;
    let mut missing = 0_u64;
    while let Some(row) = rows.next()? {
        missing += u64::from(!indexed.contains(&unsigned(row, 0)?));
    }
    if wrong + missing > 0 {
        let detail =
            format!("of its keys {missing} are not in retired_key, {wrong} are wrong there");
        report.add_of(Code::KeyIndex, Some(sale_id), None, detail);
    }
    Ok(())
}
