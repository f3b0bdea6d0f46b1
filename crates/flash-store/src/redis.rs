//! The store on one Redis, for when one machine is not enough: scripts decide, this node proposes.
//!
//! The protocol (keys, scripts, what each answer means) stands in docs/ARCHITECTURE.md, "Redis: the protocol". Owns a
//! runtime of its own for the heartbeat and for reads; batches go over a lane's own connection, on the runtime of whoever commits.

mod beat;
mod events;
mod keys;
mod lane;
mod link;
mod load;
mod read;
mod shared;
mod start;
mod wire;
mod witness;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::bounded;
use flash_types::{
    BuyerId, Durability, IdempotencyKey, PaymentRef, SaleDefinition, SaleId, SaleNo, SaleState,
    Serial, bounds,
};
use parking_lot::Mutex;
use redis::RedisError;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::{
    AcceptError, AcceptedLoss, AdminNote, AttemptsRow, Batch, Change, CommitError, Committed,
    DecisionRow, EventPlace, EventRange, EventRow, ItemRow, Loaded, NotApplied, OpenError, Opened,
    Page, ReadError, ReservationFilter, ReservationRow, SaleContent, Store, Trouble,
};
use beat::keep_alive;
use keys::{NOTE, SALES, SaleKeys};
use lane::{Attested, Lane, Lanes, Place, not_applied};
use link::{Link, LinkConfig, Linker};
use read::{Connection, Order, Reader};
use shared::{Beat, Shared, unexpected};
use start::start;

pub use link::RedisUrl;
pub use shared::StoreTime;

/// Orders of retired sales that are kept.
const ORDERS_MAX: usize = 16;

const FENCED: &str = "another process has taken over from this node";
const GONE: &str = "keys of the sale are gone from Redis: there is nothing to go on with; restore its append-only file";
const EMPTIED: &str = "this Redis was emptied, or is another one than at the start";

/// How the store is configured.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// Where Redis is.
    pub url: RedisUrl,
    /// Certificates (PEM) of the authority that signed the server's; the system's where absent.
    pub ca_file: Option<PathBuf>,
    /// Within which a connection must stand, and an answer be there.
    pub timeout: Duration,
    /// Less than this is refused.
    pub durability_min: Durability,
    /// Name of this node.
    pub node: String,
    /// The data folder: `acked-redis` lies there.
    pub data: PathBuf,
}

/// The store.
#[derive(Debug)]
pub struct RedisStore {
    shared: Arc<Shared>,
    reader: Reader,
    lanes: Lanes,
    orders: Mutex<HashMap<SaleNo, Order>>,
    /// What was loaded at the start, until it is handed over.
    loaded: Mutex<Vec<SaleContent>>,
    /// What was found missing at the start, by sale.
    unlisted: Mutex<HashMap<SaleNo, String>>,
    stop: watch::Sender<bool>,
    /// `None` once dropped.
    runtime: Option<Runtime>,
}

impl RedisStore {
    /// Connects, registers this node, takes over every sale under a new epoch and loads it. Blocks.
    ///
    /// # Errors
    /// [`OpenError::Away`]: try again; else one line that names what is wrong and what helps.
    pub fn open(config: &RedisConfig) -> Result<(Self, Opened), OpenError> {
        let unfit = OpenError::Redis;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("store-redis")
            .enable_all()
            .build()
            .map_err(|error| unfit(format!("a thread cannot be started: {error}")))?;
        let linker = Linker::new(&LinkConfig {
            url: config.url.clone(),
            ca_file: config.ca_file.clone(),
            timeout: config.timeout,
            durability_min: config.durability_min,
        })
        .map_err(unfit)?;
        let reader = Reader::new(&linker, config.timeout).map_err(unfit)?;
        let started = {
            let (config, linker) = (config.clone(), linker.clone());
            wait(&runtime, async move { start(&config, linker).await })
        };
        let found = match started {
            Some(found) => found?,
            None => return Err(unfit("the start panicked".into())),
        };
        let opened = Opened {
            epoch: found.shared.start,
            // Lanes number their batches by themselves.
            last_batch: 0,
            last_at: found.last_at,
        };
        let shared = Arc::new(found.shared);
        let (stop, stopped) = watch::channel(false);
        runtime.spawn(keep_alive(Arc::clone(&shared), stopped));
        let store = Self {
            shared,
            reader,
            lanes: Mutex::new(found.lanes),
            orders: Mutex::default(),
            loaded: Mutex::new(found.loaded),
            unlisted: Mutex::new(found.unlisted),
            stop,
            runtime: Some(runtime),
        };
        Ok((store, opened))
    }

    /// The store's clock.
    pub fn time(&self) -> Arc<StoreTime> {
        Arc::clone(&self.shared.time)
    }

    /// Hands over what was loaded at the start: all sales, then their reservations, then their decisions.
    ///
    /// # Errors
    /// None today; the signature is that of the embedded store.
    pub fn load(&self, into: &mut dyn Loaded) -> Result<(), OpenError> {
        let loaded = std::mem::take(&mut *self.loaded.lock());
        for content in &loaded {
            into.sale(content.sale.clone());
        }
        let (mut reservations, mut decisions) = (Vec::new(), Vec::new());
        for content in loaded {
            reservations.extend(content.reservations);
            decisions.extend(content.decisions);
        }
        reservations.sort_unstable_by_key(|row| row.serial);
        for row in reservations {
            into.reservation(row);
        }
        for row in decisions {
            into.decision(row);
        }
        Ok(())
    }

    /// All that is stored of a sale; `None` where nothing is. The sale must stand still meanwhile.
    ///
    /// # Errors
    /// Where it cannot be read, or its keys contradict themselves.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn content(&self, sale_no: SaleNo) -> Result<Option<SaleContent>, ReadError> {
        let lane = self.lane(sale_no)?;
        let reader = self.reader.clone();
        self.read(async move { reader.content(&lane.keys).await.map_err(read::failed) })
            .await
    }

    /// Takes a frozen sale as it is stored: this Redis is its home from now on, and the sale leaves the freeze. Gives its
    /// state. A store that came back whole, from before the freeze, is taken as well.
    ///
    /// # Errors
    /// [`AcceptError`] says whether to ask again.
    ///
    /// # Cancel safety
    /// Dropping it leaves open whether it was done; asking again gives the same answer.
    pub async fn accept(
        &self,
        sale_no: SaleNo,
        loss: &AcceptedLoss<'_>,
    ) -> Result<SaleState, AcceptError> {
        let lane = self.lane(sale_no).map_err(away)?;
        let mut link = self.shared.link().await.map_err(away)?;
        let words = self.call_accept(&lane, &mut link, loss).await?;
        if words.first().map(String::as_str) != Some("NOTFROZEN") {
            return self.accepted(&lane, &link, &words);
        }
        // Restored from before the freeze: taken if nothing that was acknowledged is missing, else frozen again by this.
        let (epoch, seq, ev) = lane.numbers();
        let run_id = link.run_id.clone();
        let said = self
            .shared
            .attest(&mut link.connection, &lane.keys, &run_id, (epoch, seq, ev))
            .await;
        match said.map_err(away)? {
            // A new epoch, since what was on its way at the freeze may be among what came back.
            Attested::Passed => {
                let joined = self.shared.join(&mut link.connection, &lane.keys).await;
                let joined = joined.map_err(away)?;
                lane.reset(Place::at(&run_id, joined.epoch, joined.ev));
                self.shared.acknowledge(sale_no, joined.ev);
                let state = words.get(1).and_then(|state| SaleState::parse(state));
                state.ok_or_else(|| away("a state that there is not"))
            }
            // Frozen there too by this, which is one more event and changes nothing of what was read.
            Attested::Behind { ev } if ev == loss.ev => {
                let frozen = AcceptedLoss {
                    ev: ev + 1,
                    ..*loss
                };
                let words = self.call_accept(&lane, &mut link, &frozen).await?;
                self.accepted(&lane, &link, &words)
            }
            Attested::Behind { .. } => Err(away("the sale changed while it was read: ask again")),
            Attested::Fenced => Err(AcceptError::Refused(FENCED.into())),
            Attested::Gone => Err(AcceptError::Refused(GONE.into())),
        }
    }

    async fn call_accept(
        &self,
        lane: &Lane,
        link: &mut Link,
        loss: &AcceptedLoss<'_>,
    ) -> Result<Vec<String>, AcceptError> {
        let arguments = [
            link.run_id.clone(),
            self.shared.node.clone(),
            lane.numbers().0.to_string(),
            loss.serials[0].0.to_string(),
            loss.serials[1].0.to_string(),
            wire::note_text(loss.note),
            loss.lost.to_string(),
            loss.ev.to_string(),
            u8::from(loss.is_rest_whole).to_string(),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Shared::run(
            &mut link.connection,
            &self.shared.scripts.accept,
            &lane.keys.all(),
            &arguments,
        )
        .await
        .map_err(|error| match error.to_string() {
            // Somebody else wrote a key: asking again does not help.
            text if text.contains("WRONGTYPE") => AcceptError::Refused(format!("{text}: {GONE}")),
            text => AcceptError::Unavailable(text),
        })
    }

    fn accepted(
        &self,
        lane: &Lane,
        link: &Link,
        words: &[String],
    ) -> Result<SaleState, AcceptError> {
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["OK", epoch, ev, _, state] => {
                let number = |text: &str| text.parse::<u64>().map_err(away);
                let (epoch, ev) = (number(epoch)?, number(ev)?);
                lane.reset(Place::at(&link.run_id, epoch, ev));
                self.shared.acknowledge(lane.sale_no, ev);
                self.unlisted.lock().remove(&lane.sale_no);
                SaleState::parse(state).ok_or_else(|| away("a state that there is not"))
            }
            ["MOVED"] => Err(away("the sale changed while it was read: ask again")),
            ["FENCED"] => Err(AcceptError::Refused(FENCED.into())),
            ["GONE"] => Err(AcceptError::Refused(GONE.into())),
            _ => Err(away(unexpected("accept", words))),
        }
    }

    /// What a start found missing of a sale, which nobody can list any more.
    pub fn unlisted_loss(&self, sale_no: SaleNo) -> Option<String> {
        self.unlisted.lock().get(&sale_no).cloned()
    }

    fn lane(&self, sale_no: SaleNo) -> Result<Arc<Lane>, ReadError> {
        let lanes = self.lanes.lock();
        let lane = lanes.get(&sale_no).cloned();
        lane.ok_or_else(|| ReadError(format!("sale {} is not in Redis", sale_no.0)))
    }

    /// Of every sale, by number.
    fn all_lanes(&self) -> Vec<Arc<Lane>> {
        let mut lanes: Vec<Arc<Lane>> = self.lanes.lock().values().cloned().collect();
        lanes.sort_unstable_by_key(|lane| lane.sale_no);
        lanes
    }

    /// Runs a read on the store's own runtime, where the pool's connections live.
    async fn read<T: Send + 'static>(
        &self,
        read: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> Result<T, ReadError> {
        let Some(runtime) = &self.runtime else {
            return Err(ReadError("the store is closed".into()));
        };
        let reading = runtime.spawn(read);
        reading.await.map_err(read::failed)?
    }

    /// The lane of a batch; a new sale gets one, once the directory lists it.
    async fn lane_of(&self, batch: &Batch, sale_no: SaleNo) -> Result<Arc<Lane>, CommitError> {
        let first = batch.entries.first().map(|entry| &entry.change);
        let known = self.lanes.lock().get(&sale_no).cloned();
        let Some(Change::PutDraft { definition }) = first else {
            return known.ok_or_else(|| {
                CommitError::Fatal(format!("sale {} has no lane in Redis", sale_no.0))
            });
        };
        if let Some(lane) = known.filter(|lane| lane.sale_id == definition.sale_id) {
            return Ok(lane);
        }
        self.list(definition, sale_no).await?;
        let lane = Arc::new(Lane::new(sale_no, definition.sale_id, Place::default()));
        self.lanes.lock().insert(sale_no, Arc::clone(&lane));
        Ok(lane)
    }

    /// Lists a sale that is about to be made.
    async fn list(&self, definition: &SaleDefinition, sale_no: SaleNo) -> Result<(), CommitError> {
        self.ask().await?;
        let sale_id = definition.sale_id;
        let listed = self.write(move |mut connection| async move {
            let mut pipe = redis::pipe();
            pipe.cmd("HSETNX")
                .arg(SALES)
                .arg(sale_id.as_str())
                .arg(format!("{}|making", sale_no.0))
                .ignore();
            pipe.cmd("HGET").arg(SALES).arg(sale_id.as_str());
            let (value,): (String,) = pipe.query_async(&mut connection).await?;
            Ok(value)
        });
        let value = listed.await?;
        match value.strip_suffix("|making") {
            // From an attempt that came to nothing, under this number or another.
            Some(number) if number == sale_no.0.to_string() => Ok(()),
            Some(_) => {
                self.set_listed(sale_id, format!("{}|making", sale_no.0))
                    .await
            }
            None => Err(unavailable(format!("sale {sale_id} is in Redis already"))),
        }
    }

    async fn set_listed(&self, sale_id: SaleId, value: String) -> Result<(), CommitError> {
        self.write(move |mut connection| async move {
            redis::cmd("HSET")
                .arg(SALES)
                .arg(sale_id.as_str())
                .arg(value)
                .query_async::<()>(&mut connection)
                .await
        })
        .await
    }

    /// Notes that concern no sale. Their number is their place, so a second arrival of one is refused by Redis and is no
    /// error.
    async fn commit_notes(&self, batch: &Batch) -> Result<Committed, CommitError> {
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        for entry in &batch.entries {
            if let Change::Note(note) = &entry.change {
                pipe.cmd("XADD")
                    .arg(NOTE)
                    .arg(format!("{}-0", entry.serial.0))
                    .arg("t")
                    .arg(wire::note_text(note));
            }
        }
        if pipe.is_empty() {
            // An empty batch asks whether the store works.
            return self.ask().await.map(|()| Committed::default());
        }
        let written = self.write(move |mut connection| async move {
            let written: Vec<Result<String, RedisError>> =
                pipe.query_async(&mut connection).await?;
            let is_refused = |error: &RedisError| !error.to_string().contains("equal or smaller");
            match written.into_iter().filter_map(Result::err).find(is_refused) {
                Some(error) => Err(error),
                None => Ok(()),
            }
        });
        written.await.map(|()| Committed::default())
    }

    /// Whether this node may write, to this store: asked by a write.
    async fn ask(&self) -> Result<(), CommitError> {
        let shared = Arc::clone(&self.shared);
        let said = self
            .write(move |mut connection| async move { shared.beat(&mut connection, false).await });
        match said.await? {
            Beat::Lives(_) => Ok(()),
            Beat::Fenced => Err(CommitError::Fatal(self.shared.fence(&"heartbeat"))),
            Beat::Gone => Err(unavailable(EMPTIED.into())),
        }
    }

    /// Runs a write that is no batch of a sale, on the store's own runtime.
    async fn write<T, F>(
        &self,
        write: impl FnOnce(Connection) -> F + Send + 'static,
    ) -> Result<T, CommitError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, RedisError>> + Send,
    {
        let reader = self.reader.clone();
        let written = self.read(async move {
            let connection = reader.connection().await?;
            Ok(write(connection).await)
        });
        match written.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(CommitError::NotApplied(not_applied(&error))),
            Err(error) => Err(unavailable(error.0)),
        }
    }

    async fn order(&self, sale_no: SaleNo, keys: &SaleKeys) -> Result<Order, ReadError> {
        if let Some(order) = self.orders.lock().get(&sale_no) {
            return Ok(Arc::clone(order));
        }
        let (reader, keys) = (self.reader.clone(), keys.clone());
        let order = self.read(async move { reader.order(&keys).await }).await?;
        let mut orders = self.orders.lock();
        if orders.len() >= ORDERS_MAX {
            orders.clear();
        }
        orders.insert(sale_no, Arc::clone(&order));
        Ok(order)
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(runtime) = self.runtime.take() {
            // Not waited for: it may be dropped where nobody may block.
            runtime.shutdown_background();
        }
    }
}

impl Store for RedisStore {
    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        if let Some(why) = self.shared.fatal() {
            return Err(CommitError::Fatal(why));
        }
        if *self.stop.borrow() {
            return Err(unavailable("the store is closed".into()));
        }
        if let Some(why) = self.shared.unfit() {
            return Err(unavailable(why));
        }
        let sale_no = batch
            .entries
            .first()
            .map_or(SaleNo(0), |entry| entry.sale_no);
        if sale_no == SaleNo(0) {
            return self.commit_notes(&batch).await;
        }
        assert!(
            batch.entries.iter().all(|entry| entry.sale_no == sale_no),
            "a batch holds changes of one sale"
        );
        let lane = self.lane_of(&batch, sale_no).await?;
        let is_new = !lane.is_made();
        let committed = lane.commit(&self.shared, &batch).await?;
        if is_new && let Err(error) = self.set_listed(lane.sale_id, sale_no.0.to_string()).await {
            // The next start finds its keys and finishes this.
            tracing::warn!(%error, sale = %lane.sale_id, "the directory lists a new sale as being made");
        }
        Ok(committed)
    }

    fn lanes(&self) -> crate::Lanes {
        crate::Lanes::PerSale
    }

    fn batch_jobs_max(&self) -> usize {
        bounds::REDIS_BATCH_JOBS_MAX
    }

    fn trouble(&self) -> Option<Trouble> {
        let last = self.shared.fatal().map(Trouble::Final);
        last.or_else(|| self.shared.trouble().map(Trouble::Passing))
    }

    fn durability(&self) -> Durability {
        self.shared.durability()
    }

    async fn reservation(
        &self,
        sale_no: SaleNo,
        serial: Serial,
    ) -> Result<Option<ReservationRow>, ReadError> {
        let (lane, reader) = (self.lane(sale_no)?, self.reader.clone());
        self.read(async move { reader.reservation(&lane.keys, sale_no, serial).await })
            .await
    }

    async fn reservation_by_key(
        &self,
        sale_no: SaleNo,
        buyer: BuyerId,
        key: IdempotencyKey,
    ) -> Result<Option<ReservationRow>, ReadError> {
        let (lane, reader) = (self.lane(sale_no)?, self.reader.clone());
        self.read(async move {
            reader
                .reservation_by_key(&lane.keys, sale_no, buyer, key)
                .await
        })
        .await
    }

    async fn payment_decision(
        &self,
        sale_no: SaleNo,
        payment_ref: PaymentRef,
    ) -> Result<Option<DecisionRow>, ReadError> {
        let (lane, reader) = (self.lane(sale_no)?, self.reader.clone());
        self.read(async move {
            reader
                .payment_decision(&lane.keys, sale_no, payment_ref)
                .await
        })
        .await
    }

    async fn decisions_of(
        &self,
        sale_no: SaleNo,
        serial: Serial,
    ) -> Result<Vec<DecisionRow>, ReadError> {
        let (lane, reader) = (self.lane(sale_no)?, self.reader.clone());
        self.read(async move { reader.decisions_of(&lane.keys, sale_no, serial).await })
            .await
    }

    async fn events(&self, range: EventRange, limit: usize) -> Result<Vec<EventRow>, ReadError> {
        let reader = self.reader.clone();
        match range {
            EventRange::OfSale(sale_no, after) => {
                let lane = self.lane(sale_no)?;
                self.read(async move { reader.events(&lane, after, limit).await })
                    .await
            }
            EventRange::OfAll(after) => {
                let lanes = self.all_lanes();
                self.read(async move { reader.events_of_all(&lanes, after, limit).await })
                    .await
            }
        }
    }

    async fn attempts(&self, sale_no: SaleNo) -> Result<Vec<AttemptsRow>, ReadError> {
        let (lane, reader) = (self.lane(sale_no)?, self.reader.clone());
        self.read(async move { reader.attempts(&lane).await }).await
    }

    async fn last_places(&self) -> Result<Vec<(SaleNo, EventPlace)>, ReadError> {
        let (lanes, reader) = (self.all_lanes(), self.reader.clone());
        self.read(async move { reader.last_places(&lanes).await })
            .await
    }

    async fn reservations(
        &self,
        sale_no: SaleNo,
        filter: ReservationFilter,
        page: Page,
    ) -> Result<Vec<ReservationRow>, ReadError> {
        let (lane, reader) = (self.lane(sale_no)?, self.reader.clone());
        if let Some(time) = filter.updated_after {
            return self
                .read(async move { reader.updated(&lane, time, filter, page).await })
                .await;
        }
        let order = self.order(sale_no, &lane.keys).await?;
        self.read(async move {
            reader
                .reservations(&lane.keys, sale_no, &order, filter, page)
                .await
        })
        .await
    }

    async fn items(&self, sale_no: SaleNo) -> Result<Vec<ItemRow>, ReadError> {
        let (lane, reader) = (self.lane(sale_no)?, self.reader.clone());
        self.read(async move { reader.items(&lane.keys).await })
            .await
    }

    async fn admin_notes(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, AdminNote)>, ReadError> {
        let reader = self.reader.clone();
        let sales: Vec<SaleKeys> = {
            let lanes = self.lanes.lock();
            lanes.values().map(|lane| lane.keys.clone()).collect()
        };
        self.read(async move { reader.notes(&sales, after, limit).await })
            .await
    }

    async fn close(&self) {
        // Already told, or nobody listens: both are fine.
        let _ = self.stop.send(true);
        let (shared, reader) = (Arc::clone(&self.shared), self.reader.clone());
        let leaving = self.read(async move {
            let mut connection = reader.connection().await?;
            shared
                .beat(&mut connection, true)
                .await
                .map_err(read::failed)
        });
        if let Err(error) = leaving.await {
            tracing::warn!(%error, "this node could not be signed off: another one has to wait until it counts as dead");
        }
    }
}

fn unavailable(why: String) -> CommitError {
    CommitError::NotApplied(NotApplied::Unavailable(why))
}

fn away(error: impl std::fmt::Display) -> AcceptError {
    AcceptError::Unavailable(error.to_string())
}

/// Runs a future on a runtime and waits for it, from a thread that may or may not serve another runtime; `None` if it
/// panicked.
fn wait<T: Send + 'static>(
    runtime: &Runtime,
    future: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = bounded(1);
    runtime.spawn(async move {
        let _ = sender.send(future.await);
    });
    receiver.recv().ok()
}
