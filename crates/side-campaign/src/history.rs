//! What concerns one buyer, told by time: each crate gives a source for its tables, and sources are merged into one list.
//!
//! Owns: the form of an entry, the merge and its cursor, the sources of this crate. Does not know who reads it.
//! Invariant: pages put together are all entries, each once, by time; of one time by the name of their source, and within
//! a source by its own order.

mod sources;

use flash_types::side::BoxFuture;
use flash_types::{BuyerId, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};
use side_books::SideError;
use side_books::sql::{Reader, Reads as _, Row, SqlError, query};

pub use sources::sources;

/// Something that concerns a buyer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryEntry {
    /// When.
    pub at: Timestamp,
    /// A word: `joined`, `refused`, `order_paid`.
    pub what: String,
    /// Of which campaign, where it is of one.
    pub campaign: Option<String>,
    /// Amounts, names, states.
    pub detail: Value,
    /// Why; every amount has one.
    pub reason: Option<String>,
    /// Not empty, unique within its source among those of the same time.
    #[serde(skip)]
    pub id: String,
}

/// A place within a source: after the entry of that time and id. With an empty id: before all of that time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct After {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// As in [`HistoryEntry::id`].
    pub id: String,
}

/// Some of what there is to tell of a buyer.
pub trait HistorySource: Send + Sync {
    /// A word, unique among all sources.
    fn name(&self) -> &'static str;

    /// Entries of a buyer after a place, by time and id, at most `limit`.
    ///
    /// # Errors
    /// The database's.
    ///
    /// # Cancel safety
    /// A read.
    fn entries<'a>(
        &'a self,
        reads: &'a mut Reader,
        buyer: BuyerId,
        after: &'a After,
        limit: i64,
    ) -> BoxFuture<'a, Result<Vec<HistoryEntry>, SideError>>;
}

/// Of what type the id column of a [`SqlSource`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdColumn {
    /// `TEXT`.
    Text,
    /// `BIGINT`.
    Number,
}

/// A source that is one statement.
#[derive(Debug, Clone, Copy)]
pub struct SqlSource {
    /// As in [`HistorySource::name`].
    pub name: &'static str,
    /// In: buyer, time, id, limit. It has `buyer = $1 AND (at_ms > $2 OR (at_ms = $2 AND id > $3)) ORDER BY at_ms, id
    /// LIMIT $4`.
    pub sql: &'static str,
    /// What `$3` is compared with.
    pub id: IdColumn,
    /// Reads a row.
    pub entry: fn(&Row) -> Result<HistoryEntry, SqlError>,
}

impl HistorySource for SqlSource {
    fn name(&self) -> &'static str {
        self.name
    }

    fn entries<'a>(
        &'a self,
        reads: &'a mut Reader,
        buyer: BuyerId,
        after: &'a After,
        limit: i64,
    ) -> BoxFuture<'a, Result<Vec<HistoryEntry>, SideError>> {
        Box::pin(async move {
            let select = query(self.sql)
                .bind(buyer.as_str().to_owned())
                .bind(after.at_ms);
            let select = match self.id {
                IdColumn::Text => select.bind(after.id.clone()),
                // Keys that count begin with 1.
                IdColumn::Number => select.bind(after.id.parse::<i64>().unwrap_or(0)),
            };
            let rows = reads.rows(select.bind(limit)).await?;
            let entries: Result<Vec<_>, SqlError> = rows.iter().map(self.entry).collect();
            Ok(entries?)
        })
    }
}

/// A place in the merged list: the last entry that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Its time, Unix milliseconds.
    pub at_ms: i64,
    /// Its source.
    pub source: String,
    /// Its id.
    pub id: String,
}

impl Cursor {
    /// Reads what [`std::fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '~');
        let at_ms = parts.next()?.parse().ok()?;
        let (source, id) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        (!id.is_empty()).then_some(Self { at_ms, source, id })
    }

    /// Where a source goes on: of the time of the cursor, sources before its own are told, those after it are not.
    pub fn of_source(&self, source: &str) -> After {
        match source.cmp(self.source.as_str()) {
            std::cmp::Ordering::Less => After {
                at_ms: self.at_ms.saturating_add(1),
                id: String::new(),
            },
            std::cmp::Ordering::Equal => After {
                at_ms: self.at_ms,
                id: self.id.clone(),
            },
            std::cmp::Ordering::Greater => After {
                at_ms: self.at_ms,
                id: String::new(),
            },
        }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}~{}~{}", self.at_ms, self.source, self.id)
    }
}

/// Merges what sources gave, each asked for `limit + 1` entries after the same cursor: the first `limit` of all, and the
/// cursor of the last one if there are more.
pub fn merge(
    given: Vec<(&'static str, Vec<HistoryEntry>)>,
    limit: usize,
) -> (Vec<HistoryEntry>, Option<Cursor>) {
    let mut all: Vec<(&'static str, HistoryEntry)> = Vec::new();
    for (source, entries) in given {
        all.extend(entries.into_iter().map(|entry| (source, entry)));
    }
    // Stable: the order within a source is the source's.
    all.sort_by(|(a_source, a), (b_source, b)| (a.at, *a_source).cmp(&(b.at, *b_source)));
    let is_more = all.len() > limit;
    all.truncate(limit);
    let last = all.last().filter(|_| is_more);
    let next = last.map(|(source, entry)| Cursor {
        at_ms: entry.at.0,
        source: (*source).to_owned(),
        id: entry.id.clone(),
    });
    (all.into_iter().map(|(_, entry)| entry).collect(), next)
}

/// Detail without anything in it.
pub fn no_detail() -> Value {
    json!({})
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    fn entry(source: &str, at_ms: i64, id: usize) -> HistoryEntry {
        HistoryEntry {
            at: Timestamp(at_ms),
            what: source.to_owned(),
            campaign: None,
            detail: no_detail(),
            reason: None,
            id: format!("{id:03}"),
        }
    }

    fn ask(all: &[HistoryEntry], after: &After, limit: usize) -> Vec<HistoryEntry> {
        let is_after = |entry: &&HistoryEntry| {
            (entry.at.0, entry.id.as_str()) > (after.at_ms, after.id.as_str())
        };
        all.iter().filter(is_after).take(limit).cloned().collect()
    }

    proptest! {
        #[test]
        fn pages_put_together_are_all_entries_once_in_order(
            times in proptest::collection::vec(proptest::collection::vec(0i64..6, 0..12), 3),
            limit in 1usize..7,
        ) {
            let sources: Vec<Vec<HistoryEntry>> = times.iter().enumerate().map(|(source, times)| {
                let mut times = times.clone();
                times.sort_unstable();
                times.iter().enumerate().map(|(id, at)| entry(NAMES[source], *at, id)).collect()
            }).collect();
            let mut expected: Vec<HistoryEntry> = sources.concat();
            expected.sort_by_key(|entry| (entry.at, entry.what.clone(), entry.id.clone()));
            let mut told = Vec::new();
            let mut cursor: Option<Cursor> = None;
            for _ in 0..100 {
                let given = NAMES.iter().zip(&sources).map(|(name, all)| {
                    let after = cursor.as_ref().map_or_else(After::default, |c| c.of_source(name));
                    (*name, ask(all, &after, limit + 1))
                });
                let (page, next) = merge(given.collect(), limit);
                prop_assert!(page.len() <= limit);
                told.extend(page);
                cursor = next.map(|next| Cursor::parse(&next.to_string()).unwrap());
                if cursor.is_none() {
                    break;
                }
            }
            prop_assert_eq!(told, expected);
        }
    }

    #[test]
    fn cursors_that_nobody_gave_are_not_read() {
        for bad in ["", "1", "1~a", "x~a~1", "1~a~"] {
            assert_eq!(Cursor::parse(bad), None, "{bad}");
        }
        let cursor = Cursor::parse("1~a~b~c").unwrap();
        assert_eq!(cursor.id, "b~c");
    }
}
