//! A front on free ports before an engine on each of the stores, and a client that sends exactly what it is told.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    reason = "shared by test binaries, each of which uses a part"
)]

pub mod side;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dev_servers::{RedisOptions, RedisServer};
use flash_engine::{Clock, Engine, EngineConfig, HashKey, Recovered, StoreClock, SystemClock};
use flash_front::{
    AdminKey, Ended, Front, FrontConfig, JwtKey, JwtMaterial, KeyHash, Keys, NamedKey, Role,
    Services, sign_hs256,
};
use flash_store::{AnyStore, MemoryStore, Opened, RedisConfig, RedisStore, RedisUrl};
use flash_types::{BuyerId, Durability, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

pub const SECRET: &str = "the buyers' secret";
pub const STOREFRONT: &str = "storefront-key";
pub const ADMIN: &str = "admin-key";
pub const VIEWER: &str = "viewer-key";
pub const MERCHANT: &str = "merchant-key";
pub const OPERATOR: &str = "operator-key";
/// How long anything may take before a test gives up on it.
pub const BOUND: Duration = Duration::from_secs(20);

/// Which store a test runs on.
#[derive(Clone, Copy)]
pub enum On {
    Memory,
    Redis,
}

impl On {
    /// What its answers are worth.
    pub fn durability(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis_aof_always",
        }
    }
}

/// Makes each of these functions two tests, `memory::name` and `redis::name`.
macro_rules! on_both_stores {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[test]
            fn $name() {
                super::$name(crate::common::On::Memory);
            })+
        }
        mod redis {
            $(#[test]
            fn $name() {
                super::$name(crate::common::On::Redis);
            })+
        }
    };
}
pub(crate) use on_both_stores;

/// What is behind the engine, to be held from outside.
pub enum Behind {
    Memory(MemoryStore),
    /// With the data folder of its engine.
    Redis(Box<RedisServer>, tempfile::TempDir),
}

impl Behind {
    /// No batch ends from here on.
    pub fn hold(&self) {
        match self {
            Self::Memory(store) => store.hold(),
            Self::Redis(server, _) => server.freeze().unwrap(),
        }
    }

    /// Undoes [`Behind::hold`].
    pub fn release(&self) {
        match self {
            Self::Memory(store) => store.release(),
            Self::Redis(server, _) => server.thaw().unwrap(),
        }
    }

    fn new(on: On) -> (Self, AnyStore, Opened, Arc<dyn Clock>) {
        match on {
            On::Memory => {
                let store = MemoryStore::new();
                let opened = store.opened().unwrap();
                let clock = Arc::new(SystemClock::start(opened.last_at));
                let any = AnyStore::Memory(store.clone());
                (Self::Memory(store), any, opened, clock)
            }
            On::Redis => {
                let server = RedisServer::start(RedisOptions::default()).unwrap();
                let data = tempfile::tempdir().unwrap();
                let (store, opened) = RedisStore::open(&RedisConfig {
                    url: RedisUrl::parse(&server.url()).unwrap(),
                    ca_file: None,
                    // Longer than any test holds it.
                    timeout: BOUND,
                    durability_min: Durability::RedisAofAlways,
                    node: "n1".into(),
                    data: data.path().to_owned(),
                })
                .unwrap();
                let clock = Arc::new(StoreClock(store.time()));
                (
                    Self::Redis(Box::new(server), data),
                    AnyStore::Redis(store),
                    opened,
                    clock,
                )
            }
        }
    }
}

pub struct Shop {
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub engine: Arc<Engine>,
    pub store: Behind,
    pub stop: watch::Sender<bool>,
    pub thread: Option<JoinHandle<Ended>>,
}

impl Shop {
    pub fn open(on: On) -> Self {
        Self::with(on, |_| {})
    }

    pub fn with(on: On, change: impl FnOnce(&mut FrontConfig)) -> Self {
        Self::serving(on, Services::default(), change)
    }

    pub fn serving(on: On, services: Services, change: impl FnOnce(&mut FrontConfig)) -> Self {
        let (behind, store, opened, clock) = Behind::new(on);
        let config = EngineConfig {
            hash_key: HashKey(1, 2),
            ..EngineConfig::default()
        };
        let mut recovered = Recovered::new(config.hash_key);
        store.load(&mut recovered).unwrap();
        let (engine, committer) = Engine::start(store, &opened, recovered, config, clock);
        let mut front = FrontConfig {
            public: "127.0.0.1:0".parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
            threads: 2,
            drain_deadline: Duration::from_secs(5),
            ..FrontConfig::default()
        };
        change(&mut front);
        let with_role = |name: &str, role, secret: &str| AdminKey {
            name: name.into(),
            roles: vec![role],
            sha256: KeyHash::of(secret.as_bytes()),
        };
        let keys = Keys {
            storefront: vec![NamedKey::new("shop", STOREFRONT)],
            admin: vec![
                AdminKey::with_every_role("root", ADMIN),
                with_role("watcher", Role::Viewer, VIEWER),
                with_role("seller", Role::Merchant, MERCHANT),
                with_role("mechanic", Role::Operator, OPERATOR),
            ],
            jwt: vec![JwtKey {
                kid: None,
                material: JwtMaterial::Hs256(SECRET.into()),
            }],
            hash_seed: (3, 4),
            ..Keys::default()
        };
        let prometheus = metrics_exporter_prometheus::PrometheusBuilder::new()
            .build_recorder()
            .handle();
        let front = Front::bind(front, keys, Arc::clone(&engine), services, prometheus).unwrap();
        let (public, admin) = (front.public_addr(), front.admin_addr());
        let (stop, stopped) = watch::channel(false);
        let beside = Box::pin(async move {
            committer.run().await.unwrap();
        });
        let thread = std::thread::spawn(move || front.run(beside, stopped).unwrap());
        Self {
            public,
            admin,
            engine,
            store: behind,
            stop,
            thread: Some(thread),
        }
    }

    /// Stops and waits for the end.
    pub fn stop(&mut self) -> Ended {
        self.stop.send_replace(true);
        self.thread.take().unwrap().join().unwrap()
    }

    pub fn buyers(&self) -> Client {
        Client::to(self.public)
    }

    pub fn admins(&self) -> Client {
        Client::to(self.admin)
    }

    /// Makes and publishes a sale of `stock` units of each of `a` and `b`.
    pub fn sale(&self, name: &str, stock: u32) {
        self.sale_with(name, stock, |_| {});
    }

    pub fn sale_with(&self, name: &str, stock: u32, change: impl FnOnce(&mut Value)) {
        let mut plan = plan(name, stock);
        change(&mut plan);
        let mut admins = self.admins();
        let made = admins.call(
            "POST",
            "/v1/admin/sales",
            &[bearer(ADMIN)],
            &plan.to_string(),
        );
        assert_eq!(made.status, 201, "{made:?}");
        let path = format!("/v1/admin/sales/{name}/publish");
        let published = admins.call("POST", &path, &[bearer(ADMIN)], "{}");
        assert_eq!(published.status, 200, "{published:?}");
    }

    pub fn buy(&self, sale: &str, buyer: &str, key: &str, body: &str) -> Answer {
        self.buyers().buy(sale, buyer, key, body)
    }

    /// One call with the admin's key.
    pub fn admin(&self, method: &str, path: &str, body: &str) -> Answer {
        self.admins().call(method, path, &[bearer(ADMIN)], body)
    }

    /// One call with the storefront's key.
    pub fn storefront(&self, method: &str, path: &str, body: &str) -> Answer {
        self.buyers()
            .call(method, path, &[bearer(STOREFRONT)], body)
    }

    /// How many reservations a sale has.
    pub fn reservation_count(&self, sale: &str) -> usize {
        let path = format!("/v1/admin/sales/{sale}/reservations?limit=200");
        let page = self.admins().call("GET", &path, &[bearer(ADMIN)], "");
        page.json()["items"].as_array().unwrap().len()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Open now and for an hour; nobody is limited.
pub fn plan(name: &str, stock: u32) -> Value {
    let now = now();
    json!({
        "sale_id": name, "title": "A sale", "series": "autumn",
        "starts_at": Timestamp(now.0 - 60_000), "ends_at": Timestamp(now.0 + 3_600_000),
        "currency": "CNY", "payment_window_s": 300,
        "admission": {
            "buyer_rate_per_s": 100_000, "buyer_burst": 100_000,
            "address_rate_per_s": 1_000_000, "address_burst": 1_000_000,
        },
        "items": [
            {"item": "a", "title": "A", "list_price_minor": 200, "sale_price_minor": 100, "stock_units": stock},
            {"item": "b", "title": "B", "sale_price_minor": 50, "stock_units": stock, "units_per_buyer_max": 2},
        ],
    })
}

pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Timestamp(since.as_millis() as i64)
}

pub fn token(buyer: &str) -> String {
    let exp_s = now().0 / 1_000 + 600;
    sign_hs256(SECRET.as_bytes(), &BuyerId::parse(buyer).unwrap(), exp_s)
}

pub fn bearer(secret: &str) -> String {
    format!("Authorization: Bearer {secret}")
}

pub fn key(key: &str) -> String {
    format!("Idempotency-Key: {key}")
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known == name);
        header.map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The items of a page.
    pub fn items(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["items"].as_array().unwrap().clone()
    }

    pub fn outcome(&self) -> String {
        self.json()["outcome"].as_str().unwrap_or("").to_owned()
    }
}

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a request and reads its answer.
    pub fn call(&mut self, method: &str, path: &str, headers: &[String], body: &str) -> Answer {
        self.send(request(method, path, headers, body).as_bytes());
        self.answer_to(method).expect("an answer")
    }

    pub fn buy(&mut self, sale: &str, buyer: &str, idempotency_key: &str, body: &str) -> Answer {
        let headers = [bearer(&token(buyer)), key(idempotency_key)];
        self.call(
            "POST",
            &format!("/v1/sales/{sale}/purchases"),
            &headers,
            body,
        )
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, &[], "")
    }

    /// Reads one answer; `None` if the connection was closed before it.
    pub fn answer(&mut self) -> Option<Answer> {
        self.answer_to("GET")
    }

    fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let head_end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more() {
                assert!(
                    self.unread.is_empty(),
                    "{}",
                    String::from_utf8_lossy(&self.unread)
                );
                return None;
            }
        };
        let head = String::from_utf8(self.unread.drain(..head_end).collect()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers
            .iter()
            .find(|(name, _)| name == "content-length")
            .map_or(0, |(_, value)| value.parse().unwrap());
        let length = if method == "HEAD" || status == 304 || status == 204 {
            0
        } else {
            length
        };
        while self.unread.len() < length {
            assert!(self.more(), "the body ended early");
        }
        let body = self.unread.drain(..length).collect();
        Some(Answer {
            status,
            headers,
            body,
        })
    }

    /// Reads on; `false` at the end (a reset counts as one).
    pub fn more(&mut self) -> bool {
        let mut part = [0; 16 * 1024];
        match self.stream.read(&mut part) {
            Ok(0) => false,
            Ok(length) => {
                self.unread.extend_from_slice(&part[..length]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Nothing but the end follows.
    pub fn is_closed(&mut self) -> bool {
        while self.more() {}
        self.unread.is_empty()
    }

    /// Reads until `text` was there; what came up to then.
    pub fn until(&mut self, text: &str) -> String {
        loop {
            let so_far = String::from_utf8_lossy(&self.unread).into_owned();
            if let Some(at) = so_far.find(text) {
                let end = at + text.len();
                self.unread.drain(..end);
                return so_far[..end].to_owned();
            }
            assert!(self.more(), "ended before {text:?}: {so_far}");
        }
    }
}

pub fn request(method: &str, path: &str, headers: &[String], body: &str) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: shop\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    if !body.is_empty() {
        text.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        ));
    }
    text + "\r\n" + body
}

/// Polls until it is so.
pub fn poll(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}
