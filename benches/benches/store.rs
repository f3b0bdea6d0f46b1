//! The embedded store alone: reservations per second by batch size, payments, and the start with a million reservations.
//!
//! The figures are those of the disk under `target/`: every batch waits for one flush. `STORE_BENCH_DIR` names another
//! folder; one on a memory file system shows what is left when the flush costs nothing.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flash_store::{
    Batch, Change, DecisionRow, Delta, Deltas, Entry, Loaded, Opened, ReservationRow, ReserveLine,
    SaleRow, SqliteStore, Store,
};
use flash_types::{
    AdmissionRules, BuyerId, Currency, IdempotencyKey, ItemDefinition, ItemId, ItemIndex, Money,
    PaymentRef, SaleDefinition, SaleId, SaleNo, Serial, Timestamp, bounds,
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const LOAD_RESERVATIONS: u64 = 1_000_000;
const ITEMS: u64 = 10;

/// A store with one open sale, and the numbers to go on with.
struct Shop {
    runtime: Runtime,
    store: SqliteStore,
    next_batch: u64,
    next_serial: u64,
}

impl Shop {
    fn open(dir: &Path) -> Self {
        let (store, opened) = SqliteStore::open(dir).expect("a new folder");
        let Opened {
            epoch, last_batch, ..
        } = opened;
        let mut shop = Self {
            runtime: Builder::new_current_thread().build().expect("a runtime"),
            store,
            next_batch: last_batch + 1,
            next_serial: epoch * bounds::SERIALS_PER_EPOCH + 1,
        };
        let drafted = Change::PutDraft {
            definition: Box::new(definition()),
        };
        shop.commit([
            drafted,
            Change::Publish,
            Change::Open {
                held: Deltas::new(),
            },
        ]);
        shop
    }

    /// Commits the changes as one batch; gives the time that the store took and the first serial.
    fn commit(&mut self, changes: impl IntoIterator<Item = Change>) -> (Duration, u64) {
        let first = self.next_serial;
        let entries = changes
            .into_iter()
            .map(|change| {
                let serial = Serial(self.next_serial);
                self.next_serial += 1;
                Entry {
                    serial,
                    sale_no: SaleNo(1),
                    change,
                }
            })
            .collect();
        let batch = Batch {
            number: self.next_batch,
            at: Timestamp(1_800_000_000_000),
            entries,
        };
        self.next_batch += 1;
        let started = Instant::now();
        self.runtime
            .block_on(self.store.commit(batch))
            .expect("a batch that fits");
        (started.elapsed(), first)
    }

    fn reserve(&mut self, size: u64) -> (Duration, u64) {
        let next = self.next_serial;
        self.commit((next..next + size).map(reserve))
    }
}

fn definition() -> SaleDefinition {
    SaleDefinition {
        sale_id: SaleId::parse("bench").expect("an id"),
        title: "bench".into(),
        series: None,
        starts_at: Timestamp(0),
        ends_at: Timestamp(1),
        currency: Currency::parse("CNY").expect("a currency"),
        payment_window_s: 300,
        goal: None,
        price_protection_days: None,
        re_release_at: Vec::new(),
        expected_crowd: None,
        admission: AdmissionRules::default(),
        items: (0..ITEMS)
            .map(|index| ItemDefinition {
                item: ItemId::parse(&format!("sku-{index}")).expect("an id"),
                title: "thing".into(),
                list_price_minor: None,
                sale_price_minor: Money(9_900),
                stock_units: u32::MAX,
                units_per_buyer_max: None,
                floor_price_minor: None,
                waves: Vec::new(),
            })
            .collect(),
    }
}

/// A buyer of 20 characters, a key of 36, one line: what storefronts send.
fn reserve(number: u64) -> Change {
    let low = number % bounds::SERIALS_PER_EPOCH;
    Change::Reserve {
        buyer: BuyerId::parse(&format!("buyer-{low:014}")).expect("an id"),
        key: IdempotencyKey::parse(&format!("00000000-0000-4000-8000-{low:012}")).expect("an id"),
        lines: [ReserveLine {
            item: ItemIndex((number % ITEMS) as u16),
            units: 1,
            unit_price_minor: Money(9_900),
        }]
        .into(),
        created_at: Timestamp(1_800_000_000_000),
        expires_at: Timestamp(1_800_000_300_000),
    }
}

fn confirm(serial: u64) -> Change {
    let low = serial % bounds::SERIALS_PER_EPOCH;
    Change::Confirm {
        reservation: Serial(serial),
        payment_ref: PaymentRef::parse(&format!("payment-{low:012}")).expect("an id"),
        is_late: false,
        units: Deltas::from_slice(&[Delta {
            item: ItemIndex((serial % ITEMS) as u16),
            units: 1,
        }]),
    }
}

fn folder() -> TempDir {
    let parent = std::env::var("STORE_BENCH_DIR");
    let parent = parent.as_deref().unwrap_or(env!("CARGO_TARGET_TMPDIR"));
    TempDir::new_in(parent).expect("a folder that can be written")
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store/reserve");
    group.sample_size(20);
    for size in [1_u64, 16, 64, 256, 1_024] {
        let folder = folder();
        let mut shop = Shop::open(&folder.path().join("data"));
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_custom(|rounds| (0..rounds).map(|_| shop.reserve(size).0).sum());
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("store/confirm");
    group.sample_size(20);
    for size in [1_u64, 256] {
        let folder = folder();
        let mut shop = Shop::open(&folder.path().join("data"));
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_custom(|rounds| {
                (0..rounds)
                    .map(|_| {
                        let (_, first) = shop.reserve(size);
                        shop.commit((first..first + size).map(confirm)).0
                    })
                    .sum()
            });
        });
    }
    group.finish();
}

/// A consumer that costs next to nothing.
#[derive(Default)]
struct Counted(u64);

impl Loaded for Counted {
    fn sale(&mut self, _sale: SaleRow) {}
    fn reservation(&mut self, reservation: ReservationRow) {
        self.0 += black_box(reservation).lines.len() as u64;
    }
    fn decision(&mut self, decision: DecisionRow) {
        black_box(decision);
    }
}

fn loads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store/start_1m");
    group.sample_size(10);
    for is_paid in [false, true] {
        let folder = folder();
        let dir = folder.path().join("data");
        let mut shop = Shop::open(&dir);
        for _ in 0..LOAD_RESERVATIONS.div_ceil(1_000) {
            let (_, first) = shop.reserve(1_000);
            if is_paid {
                shop.commit((first..first + 1_000).map(confirm));
            }
        }
        drop(shop);
        let name = if is_paid { "paid" } else { "open" };
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut sum = Duration::ZERO;
                for _ in 0..rounds {
                    let started = Instant::now();
                    let (store, _) = SqliteStore::open(&dir).expect("a store");
                    let mut counted = Counted::default();
                    store.load(&mut counted).expect("a sound store");
                    sum += started.elapsed();
                    assert_eq!(counted.0, LOAD_RESERVATIONS);
                }
                sum
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commits, loads);
criterion_main!(benches);
