//! Reads what the checker needs: from the server by its API, from the store by `stampede audit`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{Books, KeyOf, stories};
use crate::api::{Addresses, Api, Stored};
use crate::log::{Attempt, ClientLog, Entry};
use crate::token::Keys;

/// Connections that read for the checker.
const READERS: usize = 8;
/// Of the reservations that are in the list, one in so many is read by its name too.
const ASKED_BY_ID_EVERY: usize = 20;
/// A change under way is decided within this, on any disk.
const DECIDED_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at it.
const DECIDED_INTERVAL: Duration = Duration::from_millis(5);
/// Books that move, because reservations run out, stand still within this.
const STILL_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at them.
const STILL_INTERVAL: Duration = Duration::from_millis(100);

/// Reads all that [`check`] needs from a server whose load has ended. Expiry may go on meanwhile: the books of
/// a sale are read until the audits before and after the list agree.
///
/// # Errors
/// If something cannot be read, or the books never stand still.
///
/// # Cancel safety
/// Reads only.
pub async fn gather(addresses: Addresses, keys: &Keys, log: &ClientLog) -> anyhow::Result<Books> {
    let entries = log.entries();
    let mut books = Books::default();
    let mut api = Api::new(addresses, keys.clone());
    let sales: BTreeSet<&str> = entries
        .iter()
        .filter_map(|entry| match &entry.attempt {
            Attempt::Purchase { sale, .. } => Some(sale.as_str()),
            Attempt::Confirm { .. } | Attempt::Cancel { .. } => None,
        })
        .collect();
    for sale in sales {
        let started = Instant::now();
        let mut before = api.audit(sale).await?;
        loop {
            let listed = api.reservations(sale).await?;
            let after = api.audit(sale).await?;
            if before == after && listed.iter().all(|one| !is_undecided(one)) {
                books.listed.extend(listed);
                break;
            }
            if started.elapsed() > STILL_WITHIN {
                bail!("the books of {sale} never stood still for long enough to be read");
            }
            before = after;
            tokio::time::sleep(STILL_INTERVAL).await;
        }
        books.audits.insert(sale.to_owned(), before);
    }
    read_names(addresses, keys, &entries, &mut books).await?;
    Ok(books)
}

enum Wanted {
    Key(KeyOf, usize),
    Id(String),
}

/// A reader takes the next, so that a few connections share the work.
type Queue = Arc<Mutex<std::vec::IntoIter<Wanted>>>;

async fn read_names(
    addresses: Addresses,
    keys: &Keys,
    entries: &[Entry],
    books: &mut Books,
) -> anyhow::Result<()> {
    let mut ids = BTreeSet::new();
    let mut wanted = Vec::new();
    for (key, story) in stories(entries) {
        ids.extend(
            story
                .acknowledged
                .iter()
                .chain(&story.named_by_unknown)
                .copied(),
        );
        wanted.push(Wanted::Key(key, if story.has_unknown { 2 } else { 1 }));
    }
    // What the list shows need not be asked for one by one; every so many are, to hold the one against the other.
    let mut listed: BTreeMap<&str, &Stored> = books
        .listed
        .iter()
        .map(|stored| (stored.reservation_id.as_str(), stored))
        .collect();
    let mut by_id = BTreeMap::new();
    for (number, id) in ids.into_iter().enumerate() {
        match listed
            .remove(id)
            .filter(|_| !number.is_multiple_of(ASKED_BY_ID_EVERY))
        {
            Some(stored) => drop(by_id.insert(id.to_owned(), Some(stored.clone()))),
            None => wanted.push(Wanted::Id(id.to_owned())),
        }
    }
    books.by_id = by_id;
    let queue: Queue = Arc::new(Mutex::new(wanted.into_iter()));
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let mut api = Api::new(addresses, keys.clone());
        let queue = Queue::clone(&queue);
        readers.spawn(async move {
            let mut read = Books::default();
            loop {
                let next = queue.lock().next();
                match next {
                    None => break anyhow::Ok(read),
                    Some(Wanted::Id(id)) => {
                        let stored = decided(&mut api, &Name::Id(&id)).await?;
                        read.by_id.insert(id, stored);
                    }
                    Some(Wanted::Key(key, times)) => {
                        let mut reads = Vec::with_capacity(times);
                        for _ in 0..times {
                            reads.push(decided(&mut api, &Name::Key(&key)).await?);
                        }
                        read.by_key.insert(key, reads);
                    }
                }
            }
        });
    }
    while let Some(joined) = readers.join_next().await {
        let read = joined.context("a reader")??;
        books.by_id.extend(read.by_id);
        books.by_key.extend(read.by_key);
    }
    Ok(())
}

enum Name<'a> {
    Key(&'a KeyOf),
    Id(&'a str),
}

/// A change that is being made durable (its expiry, say) shows as `unknown` for a moment: reads until it is
/// decided. What never is, is for the checker to find.
async fn decided(api: &mut Api, name: &Name<'_>) -> anyhow::Result<Option<Stored>> {
    let started = Instant::now();
    loop {
        let stored = match name {
            Name::Key(key) => {
                api.reservation_by_key(&key.sale, &key.buyer, &key.key)
                    .await?
            }
            Name::Id(id) => api.reservation(id).await?,
        };
        let is_decided = stored.as_ref().is_none_or(|stored| !is_undecided(stored));
        if is_decided || started.elapsed() > DECIDED_WITHIN {
            return Ok(stored);
        }
        tokio::time::sleep(DECIDED_INTERVAL).await;
    }
}

fn is_undecided(stored: &Stored) -> bool {
    stored.state == "unknown"
}

/// Runs `stampede audit --data` and gives its exit code and what it said.
///
/// # Errors
/// If it cannot be run.
pub fn audit_store(binary: &Path, data: &Path) -> anyhow::Result<(Option<i32>, String)> {
    audit(binary, "--data", data.as_os_str())
}

/// The same for a store on Redis.
///
/// # Errors
/// If it cannot be run.
pub fn audit_redis(binary: &Path, url: &str) -> anyhow::Result<(Option<i32>, String)> {
    audit(binary, "--redis", OsStr::new(url))
}

fn audit(binary: &Path, flag: &str, place: &OsStr) -> anyhow::Result<(Option<i32>, String)> {
    let output = Command::new(binary)
        .arg("audit")
        .arg(flag)
        .arg(place)
        .output()
        .with_context(|| format!("running {} audit", binary.display()))?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code(), said))
}

/// What became of the unknowns: reads each by its key and notes the sight; gives (applied, not applied).
///
/// # Errors
/// If a key cannot be read.
///
/// # Cancel safety
/// Reads only.
pub async fn look_at_unknowns(
    api: &mut Api,
    log: &ClientLog,
    from: usize,
) -> anyhow::Result<(Vec<Entry>, Vec<Entry>)> {
    let (mut applied, mut not_applied) = (Vec::new(), Vec::new());
    for entry in log.entries_from(from).into_iter().filter(Entry::is_unknown) {
        let Attempt::Purchase {
            sale, buyer, key, ..
        } = &entry.attempt
        else {
            continue;
        };
        let stored = api.reservation_by_key(sale, buyer, key).await?;
        log.seen(
            sale,
            buyer,
            key,
            stored.as_ref().map(|stored| stored.reservation_id.clone()),
        );
        if stored.is_some() {
            applied.push(entry);
        } else {
            not_applied.push(entry);
        }
    }
    Ok((applied, not_applied))
}
