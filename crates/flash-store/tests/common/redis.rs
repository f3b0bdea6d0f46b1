//! A real Redis, the store on it, and what lies in its keys.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crowd::wait::poll_until;
use dev_faultproxy::{FaultProxy, Upstream};
use dev_servers::{RedisOptions, RedisServer};
use flash_store::*;
use flash_types::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::{Collected, definition, open};

/// Whatever a test waits for is there before.
pub const BOUND: Duration = Duration::from_secs(60);
/// How long the store waits for an answer where a fault holds it back.
pub const SHORT: Duration = Duration::from_millis(500);
/// And where nothing does.
pub const LONG: Duration = Duration::from_secs(10);
/// The end of a sale that does not end within a test.
pub const NEVER: Timestamp = Timestamp(4_000_000_000_000);

/// Asks until it is so.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let came_true = poll_until(BOUND, Duration::from_millis(1), || {
        condition().then_some(())
    });
    assert!(came_true.is_some(), "{what}: not within {BOUND:?}");
}

/// A Redis and the data folder of the node that works with it.
pub struct Rig {
    pub server: RedisServer,
    pub data: TempDir,
}

impl Rig {
    pub fn start() -> Self {
        Self::with(RedisOptions::default())
    }

    pub fn with(options: RedisOptions) -> Self {
        Self {
            server: RedisServer::start(options).unwrap(),
            data: TempDir::new().unwrap(),
        }
    }

    pub fn config(&self) -> RedisConfig {
        RedisConfig {
            url: RedisUrl::parse(&self.server.url()).unwrap(),
            ca_file: None,
            timeout: LONG,
            durability_min: Durability::RedisMemory,
            node: "n-1".into(),
            data: self.data.path().to_owned(),
        }
    }

    pub fn open(&self) -> Node {
        Node::open(&self.config()).unwrap()
    }

    /// A network in front of it, and how to go through it.
    pub fn proxied(&self) -> (FaultProxy, RedisConfig) {
        let upstream = Upstream::Unix(self.server.socket_path().to_owned());
        let proxy = FaultProxy::start(upstream).unwrap();
        let config = RedisConfig {
            url: RedisUrl::parse(&format!("redis://{}/0", proxy.addr())).unwrap(),
            timeout: SHORT,
            ..self.config()
        };
        (proxy, config)
    }

    pub fn ask(&self, words: &[&str]) -> String {
        let reply = self.server.command(words);
        reply.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// A field of `meta` of sale `s-<number>`.
    pub fn meta(&self, sale_no: u32, field: &str) -> String {
        self.ask(&["HGET", &format!("{{s:s-{sale_no}}}:meta"), field])
    }

    /// What is stored of sale `s-<number>`.
    pub fn raw(&self, sale_no: u32) -> Raw {
        Raw::read(&self.server, &format!("s-{sale_no}"))
    }
}

/// A plan of a sale that runs for as long as a test does, without a limit.
pub fn plan(sale_no: u32, stock: &[u32]) -> SaleDefinition {
    let mut plan = definition(&format!("s-{sale_no}"), stock);
    plan.ends_at = NEVER;
    for item in &mut plan.items {
        item.units_per_buyer_max = None;
    }
    plan
}

/// A process that works with a Redis. Dropping it is its `kill -9`.
pub struct Node {
    pub store: Arc<RedisStore>,
    pub opened: Opened,
    pub loaded: Collected,
    serial: Cell<u64>,
    runtime: Runtime,
}

impl Node {
    pub fn open(config: &RedisConfig) -> Result<Self, OpenError> {
        let (store, opened) = RedisStore::open(config)?;
        let mut loaded = Collected::default();
        store.load(&mut loaded)?;
        loaded
            .decisions
            .sort_by_key(|row| format!("{:?}", (row.sale_no, &row.decision)));
        Ok(Self {
            store: Arc::new(store),
            opened,
            loaded,
            serial: Cell::new(opened.epoch * bounds::SERIALS_PER_EPOCH),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
        })
    }

    /// The same; on a slow machine Redis may seem to be away at first.
    pub fn open_when_there(config: &RedisConfig) -> Self {
        let mut node = None;
        until("there", || match Self::open(config) {
            Ok(opened) => {
                node = Some(opened);
                true
            }
            Err(OpenError::Away(_)) => false,
            Err(error) => panic!("{error}"),
        });
        node.unwrap()
    }

    /// Runs a future to its end, which is there within the bound.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async {
            let bounded = tokio::time::timeout(BOUND, future);
            bounded.await.expect("not within the bound")
        })
    }

    pub fn serial(&self) -> Serial {
        self.serial.set(self.serial.get() + 1);
        Serial(self.serial.get())
    }

    pub fn batch(&self, sale_no: u32, changes: Vec<Change>) -> Batch {
        let entries = changes.into_iter().map(|change| Entry {
            serial: self.serial(),
            sale_no: SaleNo(sale_no),
            change,
        });
        Batch {
            number: 1,
            at: Timestamp(1),
            entries: entries.collect(),
        }
    }

    pub fn commit(&self, sale_no: u32, changes: Vec<Change>) -> Result<Committed, CommitError> {
        self.commit_batch(&self.batch(sale_no, changes))
    }

    pub fn commit_batch(&self, batch: &Batch) -> Result<Committed, CommitError> {
        self.run(self.store.commit(batch.clone()))
    }

    /// Commits a batch that is to be taken; one that was certainly not applied (a slow machine) is sent again.
    pub fn must_commit(&self, batch: &Batch) -> Committed {
        let mut committed = None;
        until("taken", || match self.commit_batch(batch) {
            Ok(taken) => {
                committed = Some(taken);
                true
            }
            Err(CommitError::NotApplied(_)) => false,
            Err(error) => panic!("{error}"),
        });
        committed.unwrap()
    }

    /// Sends a batch and does not wait for it.
    pub fn send(&self, batch: &Batch) -> JoinHandle<Result<Committed, CommitError>> {
        let (store, batch) = (Arc::clone(&self.store), batch.clone());
        self.runtime.spawn(async move { store.commit(batch).await })
    }

    /// The end of a batch that was sent.
    pub fn end_of(
        &self,
        sent: JoinHandle<Result<Committed, CommitError>>,
    ) -> Result<Committed, CommitError> {
        self.run(sent).unwrap()
    }

    /// Drafts, publishes and opens sale `s-<number>`.
    pub fn open_sale(&self, sale_no: u32, stock: &[u32]) {
        let definition = Box::new(plan(sale_no, stock));
        let changes = vec![Change::PutDraft { definition }, Change::Publish, open()];
        let committed = self.must_commit(&self.batch(sale_no, changes));
        assert_eq!(committed.refused, []);
        assert!(!committed.has_moved);
    }

    pub fn available(&self, sale_no: u32) -> Vec<u64> {
        let items = self.run(self.store.items(SaleNo(sale_no))).unwrap();
        items.iter().map(|item| item.units.available).collect()
    }
}

/// An entry of an event stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvent {
    pub id: String,
    pub at: String,
    /// One for each change.
    pub lines: Vec<String>,
}

/// What is stored of one sale, as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    pub meta: BTreeMap<String, String>,
    pub w: BTreeMap<String, String>,
    pub resv: BTreeMap<String, String>,
    pub key: BTreeMap<String, String>,
    pub buyer: BTreeMap<String, String>,
    pub reference: BTreeMap<String, String>,
    pub ev: Vec<RawEvent>,
    /// Id and text.
    pub note: Vec<(String, String)>,
}

/// The eight keys of a sale.
pub const KEYS: [&str; 8] = ["meta", "w", "resv", "key", "buyer", "ref", "ev", "note"];

impl Raw {
    pub fn read(server: &RedisServer, sale_id: &str) -> Self {
        let ask = |words: &[&str]| server.command(words).unwrap();
        let key = |name: &str| format!("{{s:{sale_id}}}:{name}");
        let hash = |name: &str| {
            let text = ask(&["HGETALL", &key(name)]);
            let lines: Vec<&str> = text.lines().collect();
            // A value may be empty, and then the last one leaves no line.
            let pairs = lines.chunks(2);
            pairs
                .map(|pair| {
                    let value = pair.get(1).copied().unwrap_or_default();
                    (pair[0].to_owned(), value.to_owned())
                })
                .collect()
        };
        let events = ask(&["XRANGE", &key("ev"), "-", "+"]);
        let notes = ask(&["XRANGE", &key("note"), "-", "+"]);
        let notes: Vec<&str> = notes.lines().collect();
        Self {
            meta: hash("meta"),
            w: hash("w"),
            resv: hash("resv"),
            key: hash("key"),
            buyer: hash("buyer"),
            reference: hash("ref"),
            ev: events_of(&events),
            note: notes
                .chunks(3)
                .map(|entry| (entry[0].to_owned(), entry[2].to_owned()))
                .collect(),
        }
    }

    pub fn item(&self, index: u16) -> ItemUnits {
        let text = &self.meta[&format!("i:{index}")];
        let numbers: Vec<u64> = text
            .split(',')
            .take(5)
            .map(|n| n.parse().unwrap())
            .collect();
        ItemUnits {
            stock: numbers[0],
            unreleased: numbers[1],
            available: numbers[2],
            reserved: numbers[3],
            sold: numbers[4],
        }
    }
}

/// The reservations of a run, each as a line of its own.
fn run_of(text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split(';').collect();
    let ["W", lines, serials, fields] = parts[..] else {
        panic!("a run reads {text:?}");
    };
    let (serials, fields): (Vec<_>, Vec<_>) =
        (serials.split(',').collect(), fields.split(',').collect());
    assert_eq!(serials.len(), fields.len(), "{text}");
    let pairs = serials.iter().zip(fields);
    pairs
        .map(|(serial, field)| format!("R|{serial}|{field}|{lines}"))
        .collect()
}

/// The reply to XRANGE, one element a line: id, `at`, time, `c`, changes.
fn events_of(text: &str) -> Vec<RawEvent> {
    let mut events: Vec<RawEvent> = Vec::new();
    for line in text.lines() {
        let last = events.last_mut();
        match (last, line) {
            (Some(last), _) if line.starts_with("R|") || line.starts_with("E|") => {
                last.lines.push(line.to_owned());
            }
            (Some(last), _) if line.starts_with("W;") => last.lines.extend(run_of(line)),
            (Some(last), _) if last.at.is_empty() && line != "at" => last.at = line.to_owned(),
            (_, "at" | "c") => {}
            (_, id) => events.push(RawEvent {
                id: id.to_owned(),
                at: String::new(),
                lines: Vec::new(),
            }),
        }
    }
    events
}
