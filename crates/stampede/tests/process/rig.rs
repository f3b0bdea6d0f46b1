//! A shop: a server in a folder of its own, maybe a Redis, its keys, a sale, buyers, and the log of what they were told.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crowd::api::{self, Addresses, Api};
use crowd::check;
use crowd::client::{Client, Request, Response, SendError, Timeouts};
use crowd::log::{Answer, Attempt, ClientLog, now_ms};
use crowd::random::Random;
use crowd::token::now_s;
use crowd::wait::poll_until_async;
use crowd::{Keys, Server, ServerOptions};
use dev_servers::{RedisOptions, RedisServer};
use flash_types::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;

mod run;
pub use run::*;

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_stampede");
/// The sale of every shop.
pub const SALE: &str = "s1";
/// How long anything may take before a test gives up on it.
pub const BOUND: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
pub const LOOK: Duration = Duration::from_millis(5);

/// Makes each of these functions, which take a [`Rig`], two tests: `sqlite::name` and `redis::name`.
macro_rules! on_both_stores {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::rig::Rig::new()).await;
            })+
        }
        mod redis {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::rig::Rig::on_redis()).await;
            })+
        }
    };
}
pub(crate) use on_both_stores;

/// A folder, and how a server is started in it.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub options: ServerOptions,
    /// Where the server stores its sales, if not in its folder.
    redis: Option<RedisServer>,
}

impl Rig {
    /// With the embedded store.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = ServerOptions::new(BINARY, dir.path().join("data"));
        Self {
            dir,
            options,
            redis: None,
        }
    }

    /// With a Redis of its own, as durable as it gets.
    pub fn on_redis() -> Self {
        Self::on(RedisOptions::default())
    }

    /// With a Redis of its own.
    pub fn on(options: RedisOptions) -> Self {
        let redis = RedisServer::start(options).unwrap();
        let url = redis.url();
        Self::at(redis, &url)
    }

    /// With this Redis, of which the server knows by this URL.
    pub fn at(redis: RedisServer, url: &str) -> Self {
        Self {
            redis: Some(redis),
            ..Self::new().argument("--redis", url)
        }
    }

    pub fn redis(&self) -> &RedisServer {
        self.redis.as_ref().unwrap()
    }

    pub fn redis_mut(&mut self) -> &mut RedisServer {
        self.redis.as_mut().unwrap()
    }

    /// Takes the Redis, to do with it what blocks.
    pub fn take_redis(&mut self) -> RedisServer {
        self.redis.take().unwrap()
    }

    /// Puts it back, or another in its place.
    pub fn put_redis(&mut self, redis: RedisServer) {
        self.redis = Some(redis);
    }

    /// What a ready server and its answers say about their durability.
    pub fn durability(&self) -> &'static str {
        match self.redis {
            Some(_) => "redis_aof_always",
            None => "sqlite_fsync",
        }
    }

    /// What `stampede audit` is to be told.
    pub fn store(&self) -> [String; 2] {
        match &self.redis {
            Some(redis) => ["--redis".into(), redis.url()],
            None => ["--data".into(), self.data().to_owned()],
        }
    }

    /// The server's data folder.
    pub fn data(&self) -> &str {
        self.options.data.to_str().unwrap()
    }

    /// One more argument of `serve`.
    pub fn argument(mut self, name: &str, value: &str) -> Self {
        self.options.arguments.extend([name.into(), value.into()]);
        self
    }

    /// `stampede serve` on these addresses, as this rig is set up, not started yet.
    pub fn serve(&self, public: &str, admin: &str) -> Command {
        let mut command = command(&["serve", "--public", public, "--admin", admin]);
        command.args(["--data", self.data()]);
        command.args(&self.options.arguments);
        let environment = self.options.environment.iter();
        command.envs(environment.map(|(name, value)| (name, value)));
        command
    }

    /// With a word before the program.
    pub fn wrapped(mut self, words: impl IntoIterator<Item = String>) -> Self {
        self.options.wrapper = words.into_iter().collect();
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.options.environment.push((name.into(), value.into()));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A word that lets strace look on, and do what `inject` says, from the first system call on.
    pub fn strace(&self, calls: &str, inject: &[&str]) -> Vec<String> {
        need("strace");
        let out = self.path("strace.out");
        let mut words: Vec<String> = ["strace", "-D", "-f", "-qq", "-y", "-s", "5000", "-o"]
            .map(str::to_owned)
            .into();
        words.push(out.to_str().unwrap().to_owned());
        words.extend(["-e".into(), format!("trace={calls}")]);
        for what in inject {
            words.extend(["-e".into(), format!("inject={what}")]);
        }
        words
    }

    /// What strace saw. Complete once the process has ended.
    pub fn trace(&self) -> String {
        std::fs::read_to_string(self.path("strace.out")).unwrap()
    }
}

/// A sale of these items with these units that is open and lets everybody try as often as they like.
pub fn sale(items: &[(&str, u32)]) -> Value {
    let now = i64::try_from(now_ms()).unwrap();
    let items: Vec<_> = items
        .iter()
        .map(|(item, units)| {
            json!({"item": item, "title": item, "sale_price_minor": 9_900, "stock_units": units})
        })
        .collect();
    json!({
        "sale_id": SALE, "title": "A sale", "currency": "CNY", "payment_window_s": 600,
        "starts_at": Timestamp(now - 60_000), "ends_at": Timestamp(now + 24 * 3_600_000),
        "admission": {"ticket": "off", "buyer_rate_per_s": 10_000_000, "buyer_burst": 10_000_000,
                      "address_rate_per_s": 10_000_000, "address_burst": 10_000_000},
        "items": items,
    })
}

/// A server with a sale, and the log of all that its buyers were told.
pub struct Shop {
    pub rig: Rig,
    pub server: Server,
    pub keys: Keys,
    pub log: Arc<ClientLog>,
}

impl Shop {
    /// Starts a server and opens the sale.
    pub async fn open(rig: Rig, items: &[(&str, u32)]) -> Self {
        let shop = Self::start(rig);
        shop.api().publish(&sale(items)).await.unwrap();
        shop
    }

    /// Starts a server.
    pub fn start(rig: Rig) -> Self {
        let server = Server::start(&rig.options).unwrap();
        let keys = server.keys().unwrap();
        Self {
            rig,
            server,
            keys,
            log: Arc::new(ClientLog::in_memory()),
        }
    }

    /// Starts the server again, after it ended, with nothing before it any more.
    pub fn restart(&mut self) {
        assert!(!self.server.is_running(), "still running");
        self.rig.options.wrapper.clear();
        self.server = Server::start(&self.rig.options).unwrap();
    }

    /// The same, on another folder and with the same keys.
    pub fn move_to(&mut self, data: &Path) {
        self.rig.options.data = data.to_owned();
        self.restart();
    }

    pub fn addresses(&self) -> Addresses {
        Addresses {
            public: self.server.public,
            admin: self.server.admin,
        }
    }

    pub fn api(&self) -> Api {
        Api::new(self.addresses(), self.keys.clone())
    }

    pub fn client(&self) -> Client {
        Client::new(self.server.public, Timeouts::default())
    }

    pub fn purchase(&self, buyer: &str, key: &str, item: &str) -> Request {
        let token = self.keys.minter().mint(buyer, now_s() + 7 * 24 * 3600);
        api::purchase(SALE, &token, key, &[(item.to_owned(), 1)])
    }

    /// Buys one unit and notes it.
    pub async fn buy(
        &self,
        client: &mut Client,
        buyer: &str,
        key: &str,
        item: &str,
    ) -> Result<Response, SendError> {
        let request = self.purchase(buyer, key, item);
        let number = self.log.sent(Attempt::Purchase {
            sale: SALE.into(),
            buyer: buyer.into(),
            key: key.into(),
            lines: vec![(item.into(), 1)],
        });
        let result = client.send(&request).await;
        self.log.answered(number, Answer::of(&result));
        result
    }

    /// Runs `stampede sale …` with the key of the server's folder, to its end.
    pub fn sale(&self, words: &[&str]) -> Output {
        let url = format!("http://{}", self.server.admin);
        let mut all = vec!["sale"];
        all.extend(words);
        all.extend(["--admin-url", &url, "--data", self.rig.data()]);
        stampede(&all)
    }

    /// What `/readyz` answers.
    pub async fn readiness(&self) -> Readiness {
        readiness(self.server.admin).await.unwrap()
    }

    /// The value of a metric, labels included in its name; 0 if there is none yet.
    pub async fn metric(&self, name: &str) -> f64 {
        let mut client = Client::new(self.server.admin, Timeouts::default());
        let answer = client.send(&Request::get("/metrics").bare()).await.unwrap();
        let text = String::from_utf8(answer.body).unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }

    /// All five points of the checker, against the running server and its store.
    pub async fn assert_books(&self) {
        self.assert_books_but(|_| false).await;
    }

    /// The same, as if these attempts had not been answered: a lost answer is accepted to be worth nothing.
    pub async fn assert_books_but(&self, is_lost: impl Fn(&Attempt) -> bool) {
        let mut books = check::gather(self.addresses(), &self.keys, &self.log)
            .await
            .unwrap();
        let binary = Path::new(BINARY);
        books.store_audit = Some(match &self.rig.redis {
            Some(redis) => check::audit_redis(binary, &redis.url()).unwrap(),
            None => check::audit_store(binary, &self.rig.options.data).unwrap(),
        });
        let mut entries = self.log.entries();
        let lost = entries.iter_mut().filter(|entry| is_lost(&entry.attempt));
        lost.for_each(|entry| entry.answer = None);
        let findings = check::check(&entries, &self.log.sights(), &books);
        assert!(findings.is_empty(), "{findings:#?}\n{}", self.server.log());
    }

    /// How many attempts were answered with a yes, with an unknown or not at all, and with this outcome of a no.
    pub fn count(&self, wanted: Told) -> usize {
        let is_wanted = |answer: &Option<Answer>| match (answer, wanted) {
            (Some(Answer::Yes { .. }), Told::Yes) => true,
            (None | Some(Answer::Unknown { .. }), Told::Unknown) => true,
            (Some(Answer::No { outcome, .. }), Told::No(no)) => outcome == no,
            (
                None
                | Some(
                    Answer::Yes { .. }
                    | Answer::Unknown { .. }
                    | Answer::No { .. }
                    | Answer::NotSent,
                ),
                Told::Yes | Told::Unknown | Told::No(_),
            ) => false,
        };
        let entries = self.log.entries();
        entries
            .iter()
            .filter(|entry| is_wanted(&entry.answer))
            .count()
    }
}

/// What `/readyz` says.
#[derive(Debug)]
pub struct Readiness {
    pub status: u16,
    /// Why not, in one text.
    pub reasons: String,
    pub durability: String,
}

impl Readiness {
    pub fn is_ready(&self) -> bool {
        self.status == 200
    }
}

/// What `/readyz` of an admin port answers; `None` if nobody does.
pub async fn readiness(admin: std::net::SocketAddr) -> Option<Readiness> {
    let mut client = Client::new(admin, Timeouts::default());
    let request = Request::get("/readyz").bare();
    let answer = client.send_again(&request).await.ok()?;
    let body = answer.json().unwrap();
    assert_eq!(body["ready"], answer.status == 200, "{body}");
    Some(Readiness {
        status: answer.status,
        reasons: body["reasons"].to_string(),
        durability: body["durability"].as_str().unwrap().to_owned(),
    })
}

/// What a buyer was told.
#[derive(Clone, Copy)]
pub enum Told {
    Yes,
    Unknown,
    No(&'static str),
}

/// Buyers who buy back to back, each over a connection of their own, until they are stopped or the server is gone.
pub struct Buyers {
    /// Purchases sent and not answered.
    pub in_flight: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Buyers {
    pub fn start(shop: &Shop, connections: u64, item: &'static str, seed: u64) -> Self {
        let in_flight = Arc::new(AtomicUsize::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for index in 0..connections {
            let mut client = shop.client();
            let minter = shop.keys.minter();
            let log = Arc::clone(&shop.log);
            let (counter, is_over) = (Arc::clone(&in_flight), Arc::clone(&is_over));
            let mut random = Random::of(seed, index);
            let mut number = 0;
            let mut is_refused = false;
            tasks.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    // Where nothing was reserved the same wish again; else now and then.
                    if number == 0 || !is_refused && !random.percent(15) {
                        number += 1;
                    }
                    let buyer = format!("b{seed}-{index}");
                    let key = format!("k{seed}-{index}-{number}z");
                    let token = minter.mint(&buyer, now_s() + 7 * 24 * 3600);
                    let lines = vec![(item.to_owned(), 1)];
                    let request = api::purchase(SALE, &token, &key, &lines);
                    if client.connect().await.is_err() {
                        return;
                    }
                    let sale = SALE.to_owned();
                    let number = log.sent(Attempt::Purchase {
                        sale,
                        buyer,
                        key,
                        lines,
                    });
                    // Relaxed: a count to look at, nothing hangs on its order.
                    counter.fetch_add(1, Ordering::Relaxed);
                    let answer = Answer::of(&client.send(&request).await);
                    counter.fetch_sub(1, Ordering::Relaxed);
                    is_refused = matches!(answer, Answer::No { status: 503, .. });
                    log.answered(number, answer);
                }
            });
        }
        Self {
            in_flight,
            is_over,
            tasks,
        }
    }

    /// Waits until so many purchases were answered with a yes, and as many are in flight as there can be at once.
    pub async fn work(&self, shop: &Shop, yes: usize, in_flight: usize) {
        let is_at_work = poll_until_async(BOUND, Duration::from_micros(500), async || {
            let is_enough = self.in_flight.load(Ordering::Relaxed) >= in_flight;
            (is_enough && shop.count(Told::Yes) >= yes).then_some(())
        });
        assert!(is_at_work.await.is_some(), "no load\n{}", shop.server.log());
    }

    /// Waits until every buyer has had an answer or has seen the end of the server.
    pub async fn stop(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(joined) = self.tasks.join_next().await {
            joined.unwrap();
        }
    }
}

/// Copies the files of a folder whose server has ended.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// What a folder holds: names and bytes.
pub fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}
