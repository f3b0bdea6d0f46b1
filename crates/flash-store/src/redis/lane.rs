//! One sale's line of batches: a connection of its own, an epoch, a seq; and what to do until the fate of a batch is known.
//!
//! Invariant: a batch is `NotApplied` only if every attempt certainly did nothing. From the first attempt on whose
//! end is not known, only the script's word on the same seq ends the batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flash_types::{SaleId, SaleNo};
use parking_lot::Mutex;
use redis::{Cmd, RedisError};

use super::keys::SaleKeys;
use super::link::{Link, LinkError};
use super::shared::Shared;
use super::wire::{Reply, add_changes};
use crate::{Batch, CommitError, Committed, NotApplied};

/// A connection that was silent for so long is asked whether it is still there: a batch that was lost with it would be of
/// unknown fate, one that finds nobody is not sent.
const SILENCE: Duration = Duration::from_secs(1);
/// Between two attempts: doubling from the first to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// The line of one sale.
#[derive(Debug)]
pub struct Lane {
    pub sale_no: SaleNo,
    pub sale_id: SaleId,
    pub keys: SaleKeys,
    /// Taken out while a batch is in flight; a commit that was dropped half way never puts it back.
    place: Mutex<Option<Place>>,
}

/// Where a lane stands.
#[derive(Default)]
pub struct Place {
    link: Option<Link>,
    /// When the connection answered last.
    heard_at: Option<Instant>,
    /// The Redis (run id) that acknowledged last; empty before the first time.
    home: String,
    /// 0: not joined yet.
    pub epoch: u64,
    /// The last acknowledged batch under this epoch.
    pub seq: u64,
    /// The last acknowledged event.
    pub ev: u64,
}

impl Place {
    /// Right after a `join`, or an accepted loss, on this Redis.
    pub fn at(home: &str, epoch: u64, ev: u64) -> Self {
        Self {
            link: None,
            heard_at: None,
            home: home.to_owned(),
            epoch,
            seq: 0,
            ev,
        }
    }

    /// Notes that this Redis acknowledged a batch; `true`: another one acknowledged the one before.
    fn acknowledge(&mut self, seq: u64, ev: u64) -> bool {
        (self.seq, self.ev) = (seq, ev);
        self.heard_at = Some(Instant::now());
        let run_id = self.link.as_ref().map_or("", |link| &link.run_id);
        if self.home == run_id {
            return false;
        }
        !std::mem::replace(&mut self.home, run_id.to_owned()).is_empty()
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "epoch {} seq {} ev {}", self.epoch, self.seq, self.ev)
    }
}

/// How one attempt ended.
enum Attempt {
    Applied(Committed),
    /// Certainly without effect, this time.
    Without(NotApplied),
    /// Nobody knows.
    Unknown(String),
    /// Try again at once.
    Again,
    /// The sale must stop; nothing was applied by this attempt.
    Frozen(String),
    /// The script failed half way: the sale must stop, and what is applied is not known.
    Broken(String),
    /// Somebody else runs as this node.
    Fenced,
}

impl Lane {
    pub fn new(sale_no: SaleNo, sale_id: SaleId, place: Place) -> Self {
        Self {
            sale_no,
            sale_id,
            keys: SaleKeys::of(&sale_id),
            place: Mutex::new(Some(place)),
        }
    }

    /// Puts the lane where an accepted loss left it.
    pub fn reset(&self, place: Place) {
        *self.place.lock() = Some(place);
    }

    /// Epoch, last acknowledged batch and event; zeros where it never joined, or a batch was given up half way.
    pub fn numbers(&self) -> (u64, u64, u64) {
        let place = self.place.lock();
        place
            .as_ref()
            .map_or((0, 0, 0), |place| (place.epoch, place.seq, place.ev))
    }

    /// Its first batch is there; `true` too while one is in flight.
    pub fn is_made(&self) -> bool {
        self.place.lock().as_ref().is_none_or(|place| place.ev > 0)
    }

    /// Commits one batch; asks as long as it takes.
    pub async fn commit(&self, shared: &Shared, batch: &Batch) -> Result<Committed, CommitError> {
        let Some(mut place) = self.place.lock().take() else {
            let why = format!("a batch of sale {} was given up half way", self.sale_id);
            return Err(CommitError::Fatal(why));
        };
        let result = self.settle(shared, batch, &mut place).await;
        shared.is_well(self.sale_no);
        if batch
            .entries
            .iter()
            .any(|entry| entry.change == crate::Change::Retire)
        {
            // Hardly anything comes after it; whatever does connects anew.
            place.link = None;
        }
        *self.place.lock() = Some(place);
        result
    }

    async fn settle(
        &self,
        shared: &Shared,
        batch: &Batch,
        place: &mut Place,
    ) -> Result<Committed, CommitError> {
        let mut is_unknown = false;
        let mut back_off = BACK_OFF.0;
        let sent_at = Instant::now();
        loop {
            if let Some(why) = shared.fatal() {
                return Err(CommitError::Fatal(why));
            }
            let why = match self.attempt(shared, batch, place).await {
                Attempt::Applied(committed) => return Ok(committed),
                Attempt::Again => continue,
                Attempt::Frozen(reason) => {
                    return Err(CommitError::Frozen {
                        reason,
                        is_known: !is_unknown,
                    });
                }
                Attempt::Broken(reason) => {
                    return Err(CommitError::Frozen {
                        reason,
                        is_known: false,
                    });
                }
                Attempt::Fenced => {
                    return Err(CommitError::Fatal(shared.fence(&self.sale_id)));
                }
                Attempt::Without(why) if !is_unknown => {
                    place.link = None;
                    return Err(CommitError::NotApplied(why));
                }
                Attempt::Without(why) => why.to_string(),
                Attempt::Unknown(why) => {
                    is_unknown = true;
                    why
                }
            };
            place.link = None;
            let told = format!(
                "a batch of sale {} was sent and not answered for {} ms; asking again ({why})",
                self.sale_id,
                sent_at.elapsed().as_millis()
            );
            shared.is_unwell(self.sale_no, &told);
            tokio::time::sleep(back_off).await;
            back_off = (back_off * 2).min(BACK_OFF.1);
        }
    }

    async fn attempt(&self, shared: &Shared, batch: &Batch, place: &mut Place) -> Attempt {
        let is_silent = place.heard_at.is_none_or(|at| at.elapsed() > SILENCE);
        if is_silent
            && let Some(link) = &mut place.link
            && !link.answers().await
        {
            place.link = None;
        }
        if place.link.is_none() {
            match shared.link().await {
                Ok(link) => {
                    place.link = Some(link);
                    place.heard_at = Some(Instant::now());
                }
                Err(LinkError::Away(why) | LinkError::Unfit(why)) => {
                    return Attempt::Without(NotApplied::Unavailable(why));
                }
            }
        }
        if place.epoch == 0
            && let Err(attempt) = self.join(shared, place).await
        {
            return attempt;
        }
        let reply = match self.call(shared, batch, place).await {
            Ok(words) => Reply::parse(&words),
            Err(attempt) => return attempt,
        };
        match reply {
            Ok(Reply::Applied {
                at,
                ev,
                refused,
                is_old,
            }) => {
                let has_moved = place.acknowledge(place.seq + 1, ev);
                shared.acknowledge(self.sale_no, ev);
                // An old answer tells an old time.
                if !is_old {
                    shared.time.observe(at, Instant::now());
                }
                Attempt::Applied(Committed {
                    at: Some(at),
                    refused,
                    has_moved,
                })
            }
            Ok(Reply::Home) => self.attest(shared, place).await,
            Ok(Reply::Gone(what)) => Attempt::Frozen(format!(
                "keys of the sale are gone from Redis, or were changed by hand ({what})"
            )),
            Ok(Reply::Lost) => Attempt::Frozen(format!(
                "Redis knows less than it acknowledged (batch {} of this node)",
                place.seq
            )),
            Ok(Reply::Frozen) => Attempt::Frozen("the store has it as frozen".into()),
            Ok(Reply::Fenced) => Attempt::Fenced,
            Err(what) => Attempt::Broken(format!("the script answered {what}")),
        }
    }

    async fn call(
        &self,
        shared: &Shared,
        batch: &Batch,
        place: &mut Place,
    ) -> Result<Vec<String>, Attempt> {
        let Some(link) = &mut place.link else {
            return Err(Attempt::Again);
        };
        let script = &shared.scripts.commit;
        let mut by_hash = true;
        loop {
            let mut cmd = script.call(by_hash, &self.keys.all());
            cmd.arg(&link.run_id)
                .arg(&shared.node)
                .arg(place.epoch)
                .arg(place.seq + 1);
            add_changes(&mut cmd, batch);
            match cmd.query_async(&mut link.connection).await {
                Err(error) if by_hash && error.code() == Some("NOSCRIPT") => by_hash = false,
                Err(error) => return Err(judged(&error)),
                Ok(words) => return Ok(words),
            }
        }
    }

    /// The first batch of a new sale: nobody holds it yet.
    async fn join(&self, shared: &Shared, place: &mut Place) -> Result<(), Attempt> {
        let Some(link) = &mut place.link else {
            return Err(Attempt::Again);
        };
        let joined = shared
            .join(&mut link.connection, &self.keys)
            .await
            .map_err(|error| Attempt::Without(not_applied(&error)))?;
        (place.epoch, place.seq, place.ev) = (joined.epoch, 0, joined.ev);
        Ok(())
    }

    async fn attest(&self, shared: &Shared, place: &mut Place) -> Attempt {
        let (epoch, seq, ev) = (place.epoch, place.seq, place.ev);
        let Some(link) = &mut place.link else {
            return Attempt::Again;
        };
        let run_id = link.run_id.clone();
        let said = shared
            .attest(&mut link.connection, &self.keys, &run_id, (epoch, seq, ev))
            .await;
        match said {
            Ok(Attested::Passed) => {
                tracing::warn!(sale = %self.sale_id, "Redis was restarted or replaced and has everything that was acknowledged");
                Attempt::Again
            }
            Ok(Attested::Behind { ev: there }) => Attempt::Frozen(format!(
                "Redis was restarted or replaced and lost acknowledged writes: events up to {ev} were \
                 acknowledged, it ends with {there}"
            )),
            Ok(Attested::Gone) => Attempt::Frozen(
                "Redis was restarted or replaced and has nothing of this sale any more".into(),
            ),
            Ok(Attested::Fenced) => Attempt::Fenced,
            // Whether it was heard or not, the batch was not touched by it, and it may be asked again.
            Err(error) if error.code().is_none() => {
                Attempt::Without(NotApplied::Unavailable(error.to_string()))
            }
            Err(error) => judged(&error),
        }
    }
}

/// What `attest` said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attested {
    Passed,
    Behind { ev: u64 },
    Fenced,
    Gone,
}

/// What an error means for a call of a script.
fn judged(error: &RedisError) -> Attempt {
    match error.code() {
        // Refused whole, before the script's first line.
        Some(
            "OOM" | "MISCONF" | "READONLY" | "NOREPLICAS" | "LOADING" | "MASTERDOWN"
            | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "MOVED" | "ASK" | "NOAUTH" | "NOPERM"
            | "NOSCRIPT",
        ) => Attempt::Without(not_applied(error)),
        // Redis kills a script only before its first write, and runs none that it does not know.
        Some(_) if is_before_any_write(error) => Attempt::Without(not_applied(error)),
        // From inside of the script, which may have written already.
        Some(_) => Attempt::Broken(format!("the script failed: {error}")),
        None => Attempt::Unknown(error.to_string()),
    }
}

fn is_before_any_write(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default();
    detail.contains("Script killed by user") || detail.contains("unknown command")
}

/// What is told of an error that left nothing behind.
pub fn not_applied(error: &RedisError) -> NotApplied {
    match error.code() {
        Some("OOM") => NotApplied::StorageFull(error.to_string()),
        _ => NotApplied::Unavailable(error.to_string()),
    }
}

/// A script, by its hash where the server knows it.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub fn new(text: &'static str) -> Self {
        let hash = redis::Script::new(text).get_hash().to_owned();
        Self { text, hash }
    }

    /// A call with its keys; arguments are to be added.
    pub fn call(&self, by_hash: bool, keys: &[&str]) -> Cmd {
        let mut cmd = if by_hash {
            let mut cmd = redis::cmd("EVALSHA");
            cmd.arg(&self.hash);
            cmd
        } else {
            let mut cmd = redis::cmd("EVAL");
            cmd.arg(self.text);
            cmd
        };
        cmd.arg(keys.len()).arg(keys);
        cmd
    }
}

/// All scripts.
#[derive(Debug)]
pub struct Scripts {
    pub commit: Script,
    pub join: Script,
    pub attest: Script,
    pub accept: Script,
    pub enter: Script,
    pub beat: Script,
}

impl Scripts {
    pub fn new() -> Self {
        Self {
            commit: Script::new(include_str!("../../scripts/commit.lua")),
            join: Script::new(include_str!("../../scripts/join.lua")),
            attest: Script::new(include_str!("../../scripts/attest.lua")),
            accept: Script::new(include_str!("../../scripts/accept.lua")),
            enter: Script::new(include_str!("../../scripts/enter.lua")),
            beat: Script::new(include_str!("../../scripts/beat.lua")),
        }
    }
}

/// All lanes, by number of their sale.
pub type Lanes = Mutex<std::collections::HashMap<SaleNo, Arc<Lane>>>;
