//! What all lanes of one process share: how to connect, who this node is, the store's clock, and what is wrong.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use flash_types::{Durability, SaleNo, Timestamp, bounds};
use parking_lot::Mutex;
use redis::RedisError;
use redis::aio::MultiplexedConnection;

use super::keys::{self, SaleKeys};
use super::lane::{Attested, Script, Scripts};
use super::link::{Link, LinkError, Linker};
use super::witness::Witness;

/// The store's clock, as far as it is known here: what it said last, plus what has passed since.
///
/// Never ahead of the store but for the drift of two oscillators between two readings, and never set back: where the store's
/// clock is set back, it goes on.
#[derive(Debug)]
pub struct StoreTime {
    started: Instant,
    /// Store time at `started`, milliseconds.
    offset_ms: AtomicI64,
}

/// A store clock that lags by less is followed: that is drift. One that lags by more was set back.
const DRIFT_MS: i64 = 1_000;

impl StoreTime {
    /// Knows nothing yet.
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            offset_ms: AtomicI64::new(0),
        }
    }

    /// The store's time at this moment.
    pub fn at(&self, at: Instant) -> Timestamp {
        // Relaxed: one number, read by itself.
        Timestamp(self.offset_ms.load(Ordering::Relaxed) + self.since_start(at))
    }

    /// The store said that it was `now` not later than `at`.
    pub(super) fn observe(&self, now: Timestamp, at: Instant) {
        let offset = now.0 - self.since_start(at);
        let known = self.offset_ms.load(Ordering::Relaxed);
        if offset > known || known - offset < DRIFT_MS {
            self.offset_ms.store(offset, Ordering::Relaxed);
        }
    }

    fn since_start(&self, at: Instant) -> i64 {
        let since = at.saturating_duration_since(self.started);
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Where `join` put a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub epoch: u64,
    pub ev: u64,
    /// Empty for a sale that is not there.
    pub home: String,
}

/// What the lanes share.
#[derive(Debug)]
pub struct Shared {
    pub linker: Linker,
    pub scripts: Scripts,
    pub node: String,
    pub start: u64,
    /// The name of the store.
    pub name: String,
    pub time: std::sync::Arc<StoreTime>,
    pub witness: Witness,
    durability: AtomicU8,
    /// What is wrong, by lane; `u32::MAX`: the node itself.
    troubles: Mutex<BTreeMap<u32, String>>,
    /// What the server is, that it must not be.
    unfit: Mutex<Option<String>>,
    fatal: OnceLock<String>,
    own_serials: AtomicU64,
}

/// The place of the node's own trouble.
const NODE: u32 = u32::MAX;

impl Shared {
    pub fn new(
        linker: Linker,
        scripts: Scripts,
        node: String,
        (start, name): (u64, String),
        time: std::sync::Arc<StoreTime>,
        witness: Witness,
        durability: Durability,
    ) -> Self {
        Self {
            linker,
            scripts,
            node,
            start,
            name,
            time,
            witness,
            durability: AtomicU8::new(code_of(durability)),
            troubles: Mutex::default(),
            unfit: Mutex::default(),
            fatal: OnceLock::new(),
            own_serials: AtomicU64::new(0),
        }
    }

    /// A connection that is fit to write through; what it promises is what answers tell from now on.
    pub async fn link(&self) -> Result<Link, LinkError> {
        let link = self.linker.link().await?;
        self.set_durability(link.durability);
        Ok(link)
    }

    pub fn set_durability(&self, durability: Durability) {
        let code = code_of(durability);
        // Relaxed: one number, read by itself.
        let before = self.durability.swap(code, Ordering::Relaxed);
        if before != code {
            tracing::warn!(
                durability = durability.as_str(),
                "Redis promises another durability"
            );
        }
    }

    pub fn durability(&self) -> Durability {
        match self.durability.load(Ordering::Relaxed) {
            2 => Durability::RedisAofAlways,
            1 => Durability::RedisAofEverysec,
            _ => Durability::RedisMemory,
        }
    }

    /// A number for an event that the store makes by itself: from the end of this start's range, which the engine leaves free.
    pub fn own_serial(&self) -> u64 {
        let used = self.own_serials.fetch_add(1, Ordering::Relaxed);
        let end = (self.start + 1) * bounds::SERIALS_PER_EPOCH;
        end - bounds::SERIALS_OF_STORE + used % bounds::SERIALS_OF_STORE
    }

    pub fn is_unwell(&self, lane: SaleNo, why: &str) {
        let before = self.troubles.lock().insert(lane.0, why.to_owned());
        if before.is_none() {
            tracing::error!(why, "Redis does not answer");
        }
    }

    pub fn is_well(&self, lane: SaleNo) {
        let before = self.troubles.lock().remove(&lane.0);
        if before.is_some() {
            tracing::info!("Redis answers again");
        }
    }

    pub fn node_is_unwell(&self, why: &str) {
        self.is_unwell(SaleNo(NODE), why);
    }

    pub fn node_is_well(&self) {
        self.is_well(SaleNo(NODE));
    }

    pub fn trouble(&self) -> Option<String> {
        self.troubles.lock().values().next().cloned()
    }

    /// Nothing new is written while the server is not what it has to be.
    pub fn unfit(&self) -> Option<String> {
        self.unfit.lock().clone()
    }

    pub fn set_unfit(&self, why: Option<String>) {
        *self.unfit.lock() = why;
    }

    pub fn fatal(&self) -> Option<String> {
        self.fatal.get().cloned()
    }

    /// Another process runs as this node: nothing is written from here on. Gives what to say.
    pub fn fence(&self, what: &impl std::fmt::Display) -> String {
        let why = format!(
            "another process has taken over from node {} ({what}); this one ends",
            self.node
        );
        self.fatal.get_or_init(|| why).clone()
    }

    /// An event of a sale was acknowledged: noted before it is told.
    pub fn acknowledge(&self, sale_no: SaleNo, ev: u64) {
        if let Err(error) = self.witness.set_event(sale_no, ev) {
            let path = self.witness.path().display().to_string();
            tracing::error!(%error, path, "what was acknowledged cannot be noted: a loss of Redis may go unseen at the next start");
        }
    }

    /// Whether an event of a sale was ever acknowledged to this data folder.
    pub fn is_acknowledged(&self, sale_no: SaleNo) -> bool {
        self.witness.event(sale_no).unwrap_or(0) > 0
    }

    /// Runs a script on a connection, by its hash where the server knows it. All but `commit`, which has more to judge.
    pub async fn run(
        connection: &mut MultiplexedConnection,
        script: &Script,
        keys: &[&str],
        arguments: &[&str],
    ) -> Result<Vec<String>, RedisError> {
        let call = |by_hash| {
            let mut cmd = script.call(by_hash, keys);
            cmd.arg(arguments);
            cmd
        };
        match call(true).query_async(connection).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                call(false).query_async(connection).await
            }
            result => result,
        }
    }

    pub async fn join(
        &self,
        connection: &mut MultiplexedConnection,
        keys: &SaleKeys,
    ) -> Result<Joined, RedisError> {
        let script = &self.scripts.join;
        let words = Self::run(connection, script, &[&keys.meta, &keys.w], &[&self.node]).await?;
        let [epoch, ev, _gen, home, _state] = &words[..] else {
            return Err(unexpected("join", &words));
        };
        match (epoch.parse(), ev.parse()) {
            (Ok(epoch), Ok(ev)) => Ok(Joined {
                epoch,
                ev,
                home: home.clone(),
            }),
            _ => Err(unexpected("join", &words)),
        }
    }

    /// Holds what is acknowledged here, (epoch, seq, ev), against what this Redis has.
    pub async fn attest(
        &self,
        connection: &mut MultiplexedConnection,
        keys: &SaleKeys,
        run_id: &str,
        (epoch, seq, ev): (u64, u64, u64),
    ) -> Result<Attested, RedisError> {
        let grace_ms = bounds::RESTART_GRACE.as_millis() as u64;
        let numbers =
            [epoch, seq, ev, self.own_serial(), grace_ms].map(|number| number.to_string());
        let words = Self::run(
            connection,
            &self.scripts.attest,
            &[&keys.meta, &keys.w, &keys.ev],
            &[
                run_id,
                &self.node,
                &numbers[0],
                &numbers[1],
                &numbers[2],
                &numbers[3],
                &numbers[4],
            ],
        )
        .await?;
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["PASSED", _] => Ok(Attested::Passed),
            ["BEHIND", _, ev, _] => Ok(Attested::Behind {
                ev: ev.parse().unwrap_or(0),
            }),
            ["FENCED"] => Ok(Attested::Fenced),
            ["GONE"] => Ok(Attested::Gone),
            _ => Err(unexpected("attest", &words)),
        }
    }

    /// Says that this node lives, or leaves. `false`: it is fenced.
    pub async fn beat(
        &self,
        connection: &mut MultiplexedConnection,
        is_leaving: bool,
    ) -> Result<Beat, RedisError> {
        let leaves = if is_leaving { "1" } else { "0" };
        let start = self.start.to_string();
        let words = Self::run(
            connection,
            &self.scripts.beat,
            &[keys::NODES, keys::STORE],
            &[&self.node, &start, leaves, &self.name],
        )
        .await?;
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["OK", now] => Ok(Beat::Lives(Timestamp(now.parse().unwrap_or(0)))),
            ["FENCED"] => Ok(Beat::Fenced),
            ["GONE"] => Ok(Beat::Gone),
            _ => Err(unexpected("beat", &words)),
        }
    }
}

/// What `beat` said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    Lives(Timestamp),
    Fenced,
    /// Another store, or an emptied one.
    Gone,
}

/// A reply that no script of ours gives.
pub fn unexpected(script: &'static str, words: &[String]) -> RedisError {
    RedisError::from((
        redis::ErrorKind::UnexpectedReturnType,
        "a script answered what it cannot answer",
        format!("{script}: {words:?}"),
    ))
}

fn code_of(durability: Durability) -> u8 {
    super::link::rank(durability)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_clock_follows_the_store_and_is_never_set_back() {
        let time = StoreTime::new();
        let start = time.started;
        let after = |ms| start + Duration::from_millis(ms);
        time.observe(Timestamp(1_000_000), after(0));
        assert_eq!(time.at(after(500)), Timestamp(1_000_500));
        // The store is ahead: followed at once.
        time.observe(Timestamp(1_002_000), after(1_000));
        assert_eq!(time.at(after(1_000)), Timestamp(1_002_000));
        // A little behind: drift.
        time.observe(Timestamp(1_002_990), after(2_000));
        assert_eq!(time.at(after(2_000)), Timestamp(1_002_990));
        // An hour behind: its clock was set back; ours goes on.
        time.observe(Timestamp(-2_600_000), after(3_000));
        assert_eq!(time.at(after(3_000)), Timestamp(1_003_990));
    }
}
