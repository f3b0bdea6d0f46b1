//! The stores that one suite runs on, each can be restarted.

use flash_store::*;
use tempfile::TempDir;

use super::{Collected, collect, run};

/// A store that can be restarted.
pub enum Subject {
    Sqlite(TempDir),
    Memory(MemoryStore),
}

impl Subject {
    pub fn all() -> [Self; 2] {
        [
            Self::Sqlite(TempDir::new().unwrap()),
            Self::Memory(MemoryStore::new()),
        ]
    }

    pub fn start(&self) -> (AnyStore, Opened, Collected) {
        let (store, opened) = match self {
            Self::Sqlite(dir) => {
                let (store, opened) = SqliteStore::open(&dir.path().join("data")).unwrap();
                (AnyStore::Sqlite(store), opened)
            }
            Self::Memory(store) => (AnyStore::Memory(store.clone()), store.opened().unwrap()),
        };
        let collected = collect(&store).unwrap();
        (store, opened, collected)
    }
}

pub fn commit(store: &AnyStore, batch: &Batch) -> Result<(), CommitError> {
    run(store.commit(batch.clone())).map(drop)
}

/// All events of all sales, read in pages.
pub fn told(store: &AnyStore, limit: usize) -> Vec<EventRow> {
    let mut all: Vec<EventRow> = Vec::new();
    loop {
        let after = all.last().map(|row| (row.sale_no, row.place));
        let page = run(store.events(EventRange::OfAll(after), limit)).unwrap();
        let is_last = page.len() < limit;
        all.extend(page);
        if is_last {
            return all;
        }
    }
}
