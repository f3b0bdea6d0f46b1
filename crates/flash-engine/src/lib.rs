//! The order of a purchase: admit -> reserve -> commit -> answer; and every other change of the ledger.
//!
//! Only this crate knows the order; the stages (admission, ledger, store) do not know each other. Start reading at
//! [`Engine::purchase`]. Invariant: nothing is told as done before the store said that it is durable.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use flash_admission::{Limiter, Rate};
use flash_store::{AdminNote, AnyStore, Opened, Store, Trouble};
use flash_types::{
    BuyerId, Durability, IdempotencyKey, ItemId, ItemIndex, ItemUnits, Money, PaymentRef, Quantity,
    RefundRef, Refusal, ReservationState, SaleId, SaleNo, SaleState, Timestamp, bounds,
};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Semaphore;

mod admin;
mod attempts;
mod catalogue;
mod change;
mod clock;
mod command;
mod committer;
mod desk;
mod events;
mod fate;
mod loss;
mod metrics;
mod prices;
mod protection;
mod purchase;
mod queue;
mod recovery;
mod retired;
mod sale;
mod serials;
mod waves;

pub use clock::{Clock, Reading, StoreClock, SystemClock};
pub use committer::{Committer, Fatal};
pub use desk::Desk;
pub use events::SaleEvent;
pub use flash_ledger::{HashKey, StateCounts};
pub use flash_store::{AttemptCount, AttemptsRow, EventPlace};
pub use loss::{Loss, Losses, Lost};
pub use prices::{PriceChanged, PriceCode, PriceFinding};
pub use protection::{Protected, Protection};
pub use recovery::Recovered;
pub use sale::Sale;

use catalogue::Catalogue;
use queue::Queue;
use serials::Serials;

/// Most notes on refused admin commands that wait for the next batch.
const NOTES_MAX: usize = 1_024;
/// A deadline that nobody lives to see.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// One purchase as asked for: checked in form, not yet held against a sale.
#[derive(Debug, Clone)]
pub struct Purchase {
    /// Which sale.
    pub sale_id: SaleId,
    /// Who buys.
    pub buyer: BuyerId,
    /// The client's key.
    pub key: IdempotencyKey,
    /// What: as the client wrote it, lines of one item not yet summed; 1-20.
    pub lines: SmallVec<[(ItemId, Quantity); 1]>,
}

/// On whose behalf a command or a read on a reservation is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A buyer: sees only what is theirs.
    Buyer(BuyerId),
    /// The storefront's server: sees everything.
    Storefront,
}

/// A refund as asked for.
#[derive(Debug, Clone)]
pub struct RefundRequest {
    /// Named by the storefront; may be left out when refunding all.
    pub refund_ref: Option<RefundRef>,
    /// The units become available again.
    pub restock: bool,
    /// Which lines; all that is left where absent.
    pub lines: Option<SmallVec<[(ItemId, Quantity); 1]>>,
}

/// Which reservations of a sale; all of them where nothing is said.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReservationQuery {
    /// Only this buyer's.
    pub buyer: Option<BuyerId>,
    /// Only in this state.
    pub state: Option<ReservationState>,
    /// Only those that changed after this time: as the store has them.
    pub updated_after: Option<Timestamp>,
    /// Only the one that this payment was offered for.
    pub payment_ref: Option<PaymentRef>,
    /// Only those with this item at another price.
    pub other_price: Option<(ItemIndex, Money)>,
}

/// What a merchant can do to a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaleCommand {
    /// `draft -> published` (and on to open, where the start has passed).
    Publish,
    /// `open -> paused`.
    Pause,
    /// `paused -> open`.
    Resume,
    /// `published | open | paused -> closed`.
    Close,
    /// `published | open | paused -> draft`, where nothing was ever reserved.
    Unpublish,
}

/// Who gives an admin command, for the audit log.
#[derive(Debug, Clone)]
pub struct Who {
    /// Name of the admin key.
    pub name: String,
}

/// Why an admin command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminRefusal {
    /// As for buyers (`not_found`, `state_conflict`, `store_unavailable`, ...).
    Refused(Refusal),
    /// 400 with this detail.
    Malformed(String),
    /// 409 `state_conflict` with this detail.
    Conflict(String),
    /// 409 `price_guard`: prices that look like mistakes, and were not accepted as they are.
    PriceGuard(Vec<PriceFinding>),
    /// Sent to the store, fate not known: 504.
    Unknown,
}

/// What the admin's audit of one sale says. Serializes to the contract's JSON.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SaleAudit {
    /// The books balance and nothing was found.
    pub ok: bool,
    /// The counters at the store's last word.
    pub items: Vec<ItemAudit>,
    /// What is wrong, one sentence each.
    pub findings: Vec<String>,
}

/// Counters of one item.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ItemAudit {
    /// Its name.
    pub item: ItemId,
    /// Where its units are.
    #[serde(flatten)]
    pub units: ItemUnits,
}

/// Whether the process can serve, and why not.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Health {
    /// `/readyz` is 200.
    pub ready: bool,
    /// Why not; empty when ready.
    pub reasons: Vec<String>,
    /// Level of durability.
    pub durability: Durability,
}

/// What the engine is built with.
#[derive(Clone)]
pub struct EngineConfig {
    /// Key of all hashes of ids from outside; random per start.
    pub hash_key: HashKey,
    /// After it a request is told that nobody knows.
    pub request_deadline: Duration,
    /// How long after its end a sale with nothing reserved stays in memory.
    pub retire_after: Duration,
    /// Buyers whose rates are remembered; 16 bytes each.
    pub buyer_keys_max: usize,
    /// Addresses whose rates are remembered; 16 bytes each.
    pub address_keys_max: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            hash_key: HashKey(0, 0),
            request_deadline: bounds::REQUEST_DEADLINE,
            retire_after: Duration::from_secs(24 * 3600),
            buyer_keys_max: 1 << 20,
            address_keys_max: 1 << 18,
        }
    }
}

/// The engine: all sales, the ledger of each, the queue to the committer.
pub struct Engine {
    config: EngineConfig,
    store: Arc<AnyStore>,
    clock: Arc<dyn Clock>,
    started_at: Instant,
    catalogue: Catalogue,
    queue: Arc<Queue>,
    serials: Serials,
    buyers: Limiter,
    addresses: Limiter,
    metrics: metrics::Metrics,
    notes: Mutex<Vec<AdminNote>>,
    /// One draft is made at a time.
    making: Arc<Semaphore>,
    /// One command at a time on sales that left memory.
    retired_turn: Arc<Semaphore>,
    is_stopping: AtomicBool,
    store_trouble: Mutex<Option<String>>,
    is_store_up: AtomicBool,
    jitter: AtomicU32,
}

impl Engine {
    /// Builds the engine from what a store handed over, and the committer that must be run for anything to be
    /// decided. Sales whose books do not balance begin frozen.
    pub fn start(
        store: AnyStore,
        opened: &Opened,
        recovered: Recovered,
        config: EngineConfig,
        clock: Arc<dyn Clock>,
    ) -> (Arc<Self>, Committer) {
        let now = clock.read();
        let (sales, findings) = recovered.finish(now.steady);
        let admission_key = flash_admission::HashKey(config.hash_key.0, config.hash_key.1);
        let engine = Arc::new(Self {
            queue: Arc::new(Queue::new(store.lanes())),
            serials: Serials::of_epoch(opened.epoch),
            store: Arc::new(store),
            started_at: now.at,
            catalogue: Catalogue::default(),
            buyers: Limiter::new(config.buyer_keys_max, admission_key),
            addresses: Limiter::new(config.address_keys_max, admission_key),
            metrics: metrics::Metrics::new(),
            notes: Mutex::new(Vec::new()),
            making: Arc::new(Semaphore::new(1)),
            retired_turn: Arc::new(Semaphore::new(1)),
            is_stopping: AtomicBool::new(false),
            store_trouble: Mutex::new(None),
            is_store_up: AtomicBool::new(true),
            jitter: AtomicU32::new(0),
            config,
            clock,
        });
        engine.catalogue.put(sales);
        engine.metrics.store_up.set(1.0);
        for (sale_no, finding) in findings {
            engine.freeze(sale_no, &finding, now.at);
        }
        // Sales that are there may have something due: their lanes are served from the start.
        for sale in engine
            .catalogue
            .all()
            .iter()
            .filter(|sale| !sale.is_retired())
        {
            engine.queue.lane(sale.sale_no());
        }
        let committer = Committer::new(
            Arc::clone(&engine),
            opened.last_batch,
            opened.last_at,
            now.at,
        );
        (engine, committer)
    }

    /// The sale of that name, drafts and retired ones too.
    pub fn sale(&self, sale_id: &SaleId) -> Option<Arc<Sale>> {
        self.catalogue.find(sale_id)
    }

    /// The sale of that number.
    pub fn numbered(&self, sale_no: SaleNo) -> Option<Arc<Sale>> {
        self.catalogue.numbered(sale_no)
    }

    /// All sales that were ever made, drafts and retired ones too, by number. For lists, not for the hot path.
    pub fn sales(&self) -> Vec<Arc<Sale>> {
        self.catalogue.all()
    }

    /// The clock that everything here reads.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The level at which answers are durable.
    pub fn durability(&self) -> Durability {
        self.store.durability()
    }

    /// Jobs decided and unanswered.
    pub fn in_flight_jobs(&self) -> usize {
        self.queue.taken_jobs()
    }

    /// Jobs that wait for the committer.
    pub fn queue_jobs(&self) -> usize {
        self.queue.waiting_jobs()
    }

    /// Takes one try of an address at a sale.
    ///
    /// # Errors
    /// The milliseconds until the next try conforms.
    pub fn admit_address(
        &self,
        sale_id: &SaleId,
        address: IpAddr,
        now: Instant,
    ) -> Result<(), u32> {
        let sale = self.catalogue.find(sale_id);
        let (sale_no, rate) = match &sale {
            Some(sale) => (sale.sale_no(), sale.address_rate()),
            None => {
                let rules = flash_types::AdmissionRules::default();
                (
                    SaleNo(0),
                    Rate::per_second(rules.address_rate_per_s, rules.address_burst),
                )
            }
        };
        let hash = self.addresses.hash_address(sale_no, address);
        let checked = self.addresses.check(hash, rate, self.ns_since_start(now));
        if let (Err(retry_after_ms), Some(sale)) = (checked, sale) {
            let refusal = Refusal::RateLimited { retry_after_ms };
            sale.attempts().count_refusal(&refusal);
        }
        checked
    }

    fn admit_buyer(&self, sale: &Sale, buyer: &BuyerId, now: Reading) -> Result<(), u32> {
        let hash = self.buyers.hash_buyer(sale.sale_no(), buyer);
        self.buyers
            .check(hash, sale.buyer_rate(), self.ns_since_start(now.at))
    }

    fn ns_since_start(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started_at).as_nanos()).unwrap_or(u64::MAX)
    }

    fn deadline(&self) -> Instant {
        self.clock.read().at + self.config.request_deadline
    }

    /// "Overloaded", with a time to wait that differs from one caller to the next (0.5-2.5 s).
    fn overloaded(&self) -> Refusal {
        // A walk through all residues (Weyl sequence): no two neighbours come back together.
        let step = self.jitter.fetch_add(0x9E37_79B9, Ordering::Relaxed);
        Refusal::Overloaded {
            retry_after_ms: 500 + step % 2_000,
        }
    }

    /// Requests that arrive from here on are refused with `stopping`; reads and replays go on.
    pub fn stop_taking(&self) {
        // Relaxed: a hint to new work; what was handed over goes on.
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Lets the committer finish what is queued, close the store and end.
    pub fn close(&self) {
        self.stop_taking();
        self.queue.close();
    }

    /// Whether it can serve, and why not.
    pub fn health(&self) -> Health {
        let mut reasons = Vec::new();
        if self.is_stopping() {
            reasons.push("stopping".to_owned());
        }
        if let Some(trouble) = &*self.store_trouble.lock() {
            reasons.push(format!("store: {trouble}"));
        }
        match self.store.trouble() {
            Some(Trouble::Passing(why) | Trouble::Final(why)) => {
                reasons.push(format!("store: {why}"));
            }
            None => {}
        }
        Health {
            ready: reasons.is_empty(),
            reasons,
            durability: self.durability(),
        }
    }

    fn store_is_up(&self) {
        if !self.is_store_up.swap(true, Ordering::Relaxed) {
            *self.store_trouble.lock() = None;
            self.metrics.store_up.set(1.0);
            tracing::info!("the store takes batches again");
        }
    }

    fn store_is_down(&self, why: &str) {
        if self.is_store_up.swap(false, Ordering::Relaxed) {
            *self.store_trouble.lock() = Some(why.to_owned());
            self.metrics.store_up.set(0.0);
            tracing::error!(why, "the store did not take a batch; its units went back");
        }
    }

    fn store_is_dead(&self, why: &str) {
        self.stop_taking();
        self.is_store_up.store(false, Ordering::Relaxed);
        *self.store_trouble.lock() = Some(why.to_owned());
        self.metrics.store_up.set(0.0);
        tracing::error!(
            why,
            "the store failed; the fate of its last batch is not known, the process ends"
        );
    }

    fn is_store_up(&self) -> bool {
        self.is_store_up.load(Ordering::Relaxed)
    }

    /// Tells as a number what [`Engine::health`] tells in words: a batch that waits for its fate counts as well.
    fn measure_store(&self) {
        let is_well = self.is_store_up() && self.store.trouble().is_none();
        self.metrics.store_up.set(f64::from(u8::from(is_well)));
    }

    /// Holds the counters of quiet sales against each other; a sale whose books are off is frozen.
    fn check_books(&self) {
        let mut imbalance_units = 0;
        for sale in self.catalogue.all() {
            if sale.is_retired() || sale.state() == SaleState::Draft {
                continue;
            }
            let Some(still) = sale.stillness() else {
                continue;
            };
            // Frozen in memory, and the store did not take it: again.
            if sale.state() == SaleState::Frozen && sale.gate() != SaleState::Frozen {
                self.freeze(sale.sale_no(), "frozen before", self.clock.read().at);
                continue;
            }
            let items = (0u16..).take(sale.definition().items.len());
            let off: i64 = items
                .map(|index| sale.units(flash_types::ItemIndex(index)).imbalance().abs())
                .sum();
            // Something may have begun meanwhile; then the next look decides.
            if off != 0 && sale.stillness() == Some(still) {
                imbalance_units += off;
                if sale.state() != SaleState::Frozen {
                    let finding = format!("{off} units out of balance");
                    self.freeze(sale.sale_no(), &finding, self.clock.read().at);
                }
            }
        }
        self.metrics
            .books_imbalance_units
            .set(imbalance_units as f64);
    }

    /// The store says that a sale must not go on: it stops here too. Nothing is written, since nothing would be taken.
    fn is_frozen_by_store(&self, sale: &Sale, reason: &str) {
        if sale.gate() != SaleState::Frozen {
            tracing::error!(sale = %sale.definition().sale_id, reason, "the sale is frozen");
        }
        sale.set_gate(SaleState::Frozen);
        sale.set_state(SaleState::Frozen);
        // A draft that is being replaced, or a slice of a retired sale, is not the one that everybody sees.
        if let Some(shown) = self.catalogue.numbered(sale.sale_no()) {
            shown.set_gate(SaleState::Frozen);
            shown.set_state(SaleState::Frozen);
        }
    }

    /// Stops a sale at once, and writes down why.
    fn freeze(&self, sale_no: SaleNo, reason: &str, now: Instant) {
        let Some(sale) = self.catalogue.numbered(sale_no) else {
            return;
        };
        if sale.gate() == SaleState::Frozen {
            return;
        }
        tracing::error!(sale = %sale.definition().sale_id, reason, "freezing the sale");
        sale.set_state(SaleState::Frozen);
        self.queue.push(queue::Job {
            sale,
            work: queue::Work::Freeze(reason.to_owned()),
            note: None,
            fate: Arc::default(),
            // It waits for as long as it takes.
            deadline: now + FOREVER,
            slot: None,
            turns: Vec::new(),
        });
    }
}
