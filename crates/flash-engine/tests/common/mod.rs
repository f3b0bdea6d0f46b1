//! An engine on the memory store, in virtual time: what takes hours in the shop takes no time here.
#![allow(
    missing_docs,
    dead_code,
    reason = "shared by test binaries, each of which uses a part"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use flash_engine::{
    Caller, Clock, Committer, Engine, EngineConfig, HashKey, Purchase, Reading, Recovered,
    SaleCommand, Who,
};
use flash_store::{AnyStore, Loaded, MemoryStore};
use flash_types::*;
use serde_json::json;

/// Wall clock at the start of every test.
pub const NOON: Timestamp = Timestamp(1_794_398_400_000);

/// Follows tokio's (paused) time; the wall clock can be moved apart from it.
#[derive(Default)]
pub struct TestClock {
    pub wall_offset_ms: std::sync::atomic::AtomicI64,
    started: std::sync::OnceLock<tokio::time::Instant>,
}

impl Clock for TestClock {
    fn read(&self) -> Reading {
        let now = tokio::time::Instant::now();
        let started = *self.started.get_or_init(|| now);
        let steady = NOON.plus(now - started);
        let offset = self
            .wall_offset_ms
            .load(std::sync::atomic::Ordering::Relaxed);
        Reading {
            wall: Timestamp(steady.0 + offset),
            steady,
            at: now.into_std(),
        }
    }
}

pub struct Shop {
    pub engine: Arc<Engine>,
    pub store: MemoryStore,
    pub clock: Arc<TestClock>,
    pub committer: tokio::task::JoinHandle<Result<(), flash_engine::Fatal>>,
    config: EngineConfig,
}

pub fn who() -> Who {
    Who {
        name: "test".into(),
    }
}

pub fn id<T: std::str::FromStr>(text: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    text.parse().unwrap()
}

/// A shop on a store with one lane, then one on a store with a lane for each sale: each opens when it is asked for.
pub fn both() -> impl Iterator<Item = Shop> {
    let stores = [MemoryStore::new, MemoryStore::per_sale];
    stores.into_iter().map(|store| {
        let config = EngineConfig {
            hash_key: HashKey(1, 2),
            ..Default::default()
        };
        Shop::with(store(), config)
    })
}

impl Shop {
    pub fn open() -> Self {
        Self::with(
            MemoryStore::new(),
            EngineConfig {
                hash_key: HashKey(1, 2),
                ..Default::default()
            },
        )
    }

    pub fn with(store: MemoryStore, config: EngineConfig) -> Self {
        Self::over(store, config, Arc::new(TestClock::default()))
    }

    fn over(store: MemoryStore, config: EngineConfig, clock: Arc<TestClock>) -> Self {
        let mut recovered = Recovered::new(config.hash_key);
        let opened = store.opened().unwrap();
        let any = AnyStore::Memory(store.clone());
        any.load(&mut recovered as &mut dyn Loaded).unwrap();
        let (engine, committer) = Engine::start(
            any,
            &opened,
            recovered,
            config.clone(),
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        let committer = tokio::spawn(Committer::run(committer));
        Self {
            engine,
            store,
            clock,
            committer,
            config,
        }
    }

    /// The process dies without a word and starts again on what is stored.
    pub fn restart(self) -> Self {
        self.committer.abort();
        Self::over(self.store.clone(), self.config, self.clock)
    }

    pub fn now(&self) -> Reading {
        self.clock.read()
    }

    pub async fn publish(&self, definition: serde_json::Value) {
        let definition: SaleDefinition = serde_json::from_value(definition).unwrap();
        let sale_id = definition.sale_id;
        self.engine
            .put_draft(definition, false, who())
            .await
            .unwrap();
        self.engine
            .command(&sale_id, SaleCommand::Publish, who())
            .await
            .unwrap();
    }

    pub async fn command(&self, command: SaleCommand) {
        self.engine
            .command(&id("s1"), command, who())
            .await
            .unwrap();
    }

    pub async fn buy(&self, buyer: &str, key: &str, lines: &[(&str, u64)]) -> Outcome {
        self.buy_in("s1", buyer, key, lines).await
    }

    pub async fn buy_in(
        &self,
        sale: &str,
        buyer: &str,
        key: &str,
        lines: &[(&str, u64)],
    ) -> Outcome {
        self.engine
            .purchase(&purchase(sale, buyer, key, lines), self.now())
            .await
    }

    pub async fn won(&self, buyer: &str, key: &str, lines: &[(&str, u64)]) -> Reservation {
        match self.buy(buyer, key, lines).await {
            Outcome::Reserved(reservation) => (*reservation).clone(),
            other => panic!("{buyer} {key}: {other:?}"),
        }
    }

    pub async fn confirm(&self, id: ReservationId, payment: &str) -> Outcome {
        self.engine
            .confirm(id, &crate::common::id(payment), None, self.now())
            .await
    }

    pub async fn cancel(&self, id: ReservationId) -> Outcome {
        self.engine.cancel(Caller::Storefront, id, self.now()).await
    }

    pub async fn state(&self, id: ReservationId) -> ReservationState {
        self.engine
            .reservation(Caller::Storefront, id)
            .await
            .unwrap()
            .state
    }

    pub fn units(&self, item: u16) -> [u64; 4] {
        let units = self.engine.sale(&id("s1")).unwrap().units(ItemIndex(item));
        assert_eq!(units.imbalance(), 0, "{units:?}");
        [
            units.unreleased,
            units.available,
            units.reserved,
            units.sold,
        ]
    }

    /// The admin's audit agrees with the store.
    pub async fn audited(&self) {
        let audit = self.engine.audit(&id("s1")).await.unwrap();
        assert!(audit.ok, "{audit:?}");
    }

    /// Lets virtual time pass, in steps, so that everything due on the way happens on the way.
    pub async fn pass(&self, duration: Duration) {
        let end = tokio::time::Instant::now() + duration;
        while tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10).min(duration)).await;
        }
    }
}

pub fn purchase(sale: &str, buyer: &str, key: &str, lines: &[(&str, u64)]) -> Purchase {
    Purchase {
        sale_id: id(sale),
        buyer: id(buyer),
        key: id(key),
        lines: lines
            .iter()
            .map(|(item, units)| (id(item), Quantity::of_line(*units).unwrap()))
            .collect(),
    }
}

/// Sale `s1`, open now for an hour, payment window 10 s: item `a` with so many units, item `b` with 5, limit 3 of `a`.
pub fn sale(stock: u32) -> serde_json::Value {
    json!({
        "sale_id": "s1", "title": "Sale", "starts_at": NOON, "ends_at": NOON.plus(Duration::from_secs(3600)),
        "currency": "CNY", "payment_window_s": 10,
        "admission": {"buyer_rate_per_s": 1000, "buyer_burst": 1000},
        "items": [
            {"item": "a", "title": "A", "sale_price_minor": 100, "stock_units": stock, "units_per_buyer_max": 3},
            {"item": "b", "title": "B", "sale_price_minor": 250, "stock_units": 5}
        ]
    })
}

pub fn refusal(outcome: &Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(refusal) => *refusal,
        Outcome::Reserved(_) | Outcome::Stands(_) | Outcome::Unknown(_) => panic!("{outcome:?}"),
    }
}

pub fn stands(outcome: &Outcome) -> &Reservation {
    match outcome {
        Outcome::Stands(reservation) => reservation,
        Outcome::Reserved(_) | Outcome::Refused(_) | Outcome::Unknown(_) => panic!("{outcome:?}"),
    }
}

pub fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}
