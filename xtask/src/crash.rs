//! Kills a real server under load with `kill -9`, restarts it on the same data, and holds every answer that it
//! had given against what is there. No yes may be lost, no key may have two decisions, no unit may leak.
//!
//! On Redis (`appendfsync always`) the kill takes the engine, Redis, or both.

mod buyers;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use crowd::api::{Addresses, Api};
use crowd::check::{self, Finding, Rule};
use crowd::client::{Client, Request, Timeouts};
use crowd::log::{Answer, Attempt, ClientLog, Entry};
use crowd::random::Random;
use crowd::wait;
use crowd::{Server, ServerOptions, api};
use dev_servers::{AppendFsync, RedisOptions, RedisServer};
use serde_json::json;

use crate::shell;
use buyers::Crowd;

/// Kills on one data folder before a fresh one is taken.
const KILLS_PER_FOLDER: u64 = 4;
/// Purchases that must be under way at a kill.
const IN_FLIGHT_MIN: usize = 100;
/// A rush of all buyers is over within about this.
const RUSH_KILLED_WITHIN: Duration = Duration::from_millis(15);
/// A round in which fewer were under way is repeated so often.
const REPEATS_MAX: u32 = 10;
/// Rounds within which the checker has to see a planted loss.
const PROVE_ROUNDS_MAX: u64 = 10;
/// A Redis that was restarted answers within this, and what was in flight is decided.
const REDIS_BACK_WITHIN: Duration = Duration::from_secs(20);

/// What the server keeps its books in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    /// The embedded store
    Sqlite,
    /// A Redis with appendfsync always
    Redis,
}

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Engine,
    Redis,
    Both,
}

#[derive(clap::Args)]
pub struct Options {
    /// Kills
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// Decides who buys what and when the server dies; printed when something is found
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections that buy
    #[arg(long, default_value_t = 512)]
    connections: usize,
    /// What the server keeps its books in
    #[arg(long, value_enum, default_value_t = StoreKind::Sqlite)]
    store: StoreKind,
    /// Runs a server that answers before it commits, and passes only if the loss is found
    #[arg(long)]
    prove: bool,
    /// Takes this program instead of building one
    #[arg(long)]
    server: Option<PathBuf>,
}

impl Options {
    /// A run of so many kills.
    pub fn rounds(rounds: u64) -> Self {
        Self {
            rounds,
            seed: 1,
            connections: 512,
            store: StoreKind::Sqlite,
            prove: false,
            server: None,
        }
    }

    /// The same on Redis.
    pub fn redis_rounds(rounds: u64) -> Self {
        Self {
            store: StoreKind::Redis,
            ..Self::rounds(rounds)
        }
    }

    /// The proof that a loss would be found.
    pub fn prove() -> Self {
        Self {
            prove: true,
            ..Self::rounds(PROVE_ROUNDS_MAX)
        }
    }
}

/// What one kill showed.
#[derive(Debug, Default)]
struct Round {
    victim: Option<Victim>,
    in_flight: usize,
    answered_late: usize,
    applied: usize,
    not_applied: usize,
    acknowledged: usize,
    restart: Duration,
    findings: Vec<Finding>,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let binary = match &options.server {
        Some(path) => path.clone(),
        None if options.prove => shell::faulty_server()?,
        None => shell::release_server()?,
    };
    let started = Instant::now();
    let done = shell::runtime()?.block_on(run_rounds(options, &binary));
    if let Err(error) = done {
        return Err(error.context(format!("crash run with --seed {}", options.seed)));
    }
    println!("{:.0} s in all", started.elapsed().as_secs_f64());
    Ok(())
}

async fn run_rounds(options: &Options, binary: &Path) -> anyhow::Result<()> {
    let mut round_number = 0;
    let mut folder_number = 0;
    let mut restarts = Vec::new();
    let mut in_flight_min = usize::MAX;
    while round_number < options.rounds {
        folder_number += 1;
        let mut folder = Folder::open(options, binary, folder_number).await?;
        let kills = if options.prove { 1 } else { KILLS_PER_FOLDER };
        for _ in 0..kills.min(options.rounds - round_number) {
            round_number += 1;
            let round = folder.round().await?;
            println!(
                "round {round_number}/{}{}: in flight {}, answered all the same {}, unknown {} (applied {}, not {}), \
                 acknowledged {}, restart {:.0} ms, {}",
                options.rounds,
                match round.victim {
                    None => "",
                    Some(Victim::Engine) => ", engine killed",
                    Some(Victim::Redis) => ", Redis killed",
                    Some(Victim::Both) => ", both killed",
                },
                round.in_flight,
                round.answered_late,
                round.applied + round.not_applied,
                round.applied,
                round.not_applied,
                round.acknowledged,
                round.restart.as_secs_f64() * 1e3,
                if round.findings.is_empty() {
                    "books ok"
                } else {
                    "FOUND"
                },
            );
            let lost = round
                .findings
                .iter()
                .filter(|one| one.rule == Rule::Lost)
                .count();
            if options.prove && lost > 0 {
                println!("the planted loss was found: {lost} acknowledged answers are gone");
                return Ok(());
            }
            if !round.findings.is_empty() {
                return Err(folder.report(&round.findings));
            }
            in_flight_min = in_flight_min.min(round.in_flight);
            restarts.push(round.restart);
        }
        folder.end().await?;
    }
    if options.prove {
        bail!(
            "a server that answers before it commits passed {round_number} rounds: the check is blind"
        );
    }
    let restart_max = restarts.iter().max().copied().unwrap_or_default();
    println!(
        "{round_number} kills on {folder_number} data folders, at least {in_flight_min} in flight at each, \
         slowest restart {:.0} ms: nothing lost, nothing twice, all books balance",
        restart_max.as_secs_f64() * 1e3
    );
    Ok(())
}

/// One data folder and the server on it, over several kills.
struct Folder {
    dir: tempfile::TempDir,
    // Before its store: a server that is dropped first has nothing to wait for.
    server: Server,
    redis: Option<RedisServer>,
    options: ServerOptions,
    keys: crowd::Keys,
    log: Arc<ClientLog>,
    random: Random,
    seed: u64,
    connections: usize,
    crowds: u64,
    is_prove: bool,
}

impl Folder {
    async fn open(options: &Options, binary: &Path, number: u64) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("stampede-crash-")
            .tempdir()?;
        let seed = options.seed.wrapping_mul(1_000_003).wrapping_add(number);
        let mut random = Random::new(seed);
        let mut server_options = ServerOptions::new(binary, dir.path().join("data"));
        if options.prove {
            let fault = ("STAMPEDE_FAULT_MODE".into(), "answer_before_commit".into());
            server_options.environment.push(fault);
        }
        let redis = match options.store {
            StoreKind::Sqlite => None,
            StoreKind::Redis => {
                let redis =
                    RedisServer::start(RedisOptions::default().appendfsync(AppendFsync::Always))?;
                server_options.arguments = vec!["--redis".into(), redis.url()];
                Some(redis)
            }
        };
        let server = Server::start(&server_options)?;
        let keys = server.keys()?;
        // Every other folder lets its reservations run out while the server is down or being read.
        let payment_window_s = if random.percent(50) { 2 } else { 600 };
        let folder = Self {
            log: Arc::new(ClientLog::in_file(&dir.path().join("client.jsonl"))?),
            connections: options.connections,
            is_prove: options.prove,
            options: server_options,
            crowds: 0,
            dir,
            server,
            redis,
            keys,
            random,
            seed,
        };
        folder.api().publish(&sale(payment_window_s)).await?;
        Ok(folder)
    }

    fn addresses(&self) -> Addresses {
        Addresses {
            public: self.server.public,
            admin: self.server.admin,
        }
    }

    fn api(&self) -> Api {
        Api::new(self.addresses(), self.keys.clone())
    }

    /// Load, kill, restart, ask, check; again if too little was under way when the kill came.
    async fn round(&mut self) -> anyhow::Result<Round> {
        for repeat in 0.. {
            let round = self.kill_and_check().await?;
            let is_enough = round.in_flight >= IN_FLIGHT_MIN;
            if is_enough || !round.findings.is_empty() || self.is_prove {
                return Ok(round);
            }
            if repeat == REPEATS_MAX {
                bail!(
                    "never {IN_FLIGHT_MIN} purchases in flight at a kill, {} at the last",
                    round.in_flight
                );
            }
            println!(
                "  repeated: {} in flight at the kill, {IN_FLIGHT_MIN} are wanted",
                round.in_flight
            );
        }
        bail!("no round")
    }

    /// Who dies this time: on Redis each of the three in turn, by chance.
    fn victim(&mut self) -> Option<Victim> {
        self.redis.as_ref()?;
        let victims = [Victim::Engine, Victim::Redis, Victim::Both];
        Some(victims[self.random.below(victims.len() as u64) as usize])
    }

    async fn kill_and_check(&mut self) -> anyhow::Result<Round> {
        let victim = self.victim();
        let from = self.log.len();
        self.crowds += 1;
        let crowd = Crowd::start(
            self.server.public,
            &self.keys,
            &self.log,
            self.connections,
            self.seed.wrapping_add(self.crowds << 32),
        );
        let lives = self
            .random
            .between(Duration::from_millis(80), Duration::from_millis(500));
        tokio::time::sleep(lives).await;
        // It dies at a random moment of a rush: by the clock while the first are read, or by the answers that are
        // out while the others are committed.
        let dies_after = self.random.between(Duration::ZERO, RUSH_KILLED_WITHIN);
        let dies_with = self
            .random
            .below(self.connections.saturating_sub(IN_FLIGHT_MIN) as u64);
        let is_by_clock = self.random.percent(25);
        crowd.rush().await?;
        let let_go = Instant::now();
        let answered = Arc::clone(&crowd.answered);
        let answered_before = answered.load(Ordering::Relaxed);
        let is_time = move || {
            if is_by_clock {
                let_go.elapsed() >= dies_after
            } else {
                answered.load(Ordering::Relaxed) - answered_before > dies_with as usize
            }
        };
        let (asked_at_kill, restart) = match victim {
            None | Some(Victim::Engine) => {
                let killer = self.server.kill_when(Duration::from_secs(5), is_time);
                wait::poll_until_async(
                    Duration::from_secs(10),
                    Duration::from_micros(200),
                    async || killer.is_finished().then_some(()),
                )
                .await;
                let asked_at_kill = crowd.in_flight.load(Ordering::Relaxed);
                self.server.kill()?;
                crowd.stop().await?;
                (asked_at_kill, self.start_again()?)
            }
            Some(victim) => {
                wait::poll_until_async(
                    Duration::from_secs(5),
                    Duration::from_micros(200),
                    async || is_time().then_some(()),
                )
                .await;
                let asked_at_kill = crowd.in_flight.load(Ordering::Relaxed);
                self.redis()?.kill()?;
                if victim == Victim::Both {
                    self.server.kill()?;
                }
                let restarting = Instant::now();
                self.redis()?.restart()?;
                let restart = if victim == Victim::Both {
                    self.start_again()?
                } else {
                    self.wait_until_ready().await?;
                    restarting.elapsed()
                };
                crowd.stop().await?;
                (asked_at_kill, restart)
            }
        };
        let unanswered = unknown_purchases(&self.log.entries_from(from));
        let in_flight = match victim {
            // Redis came back within the time that a buyer waits: they were answered in the end.
            Some(Victim::Redis) => asked_at_kill,
            None | Some(Victim::Engine | Victim::Both) => unanswered,
        };
        let mut round = Round {
            victim,
            in_flight,
            answered_late: asked_at_kill.saturating_sub(unanswered),
            restart,
            ..Round::default()
        };
        let mut api = self.api();
        let (applied, not_applied) = check::look_at_unknowns(&mut api, &self.log, from).await?;
        round.applied = applied.len();
        round.not_applied = not_applied.len();
        self.ask_again(applied.iter().chain(&not_applied)).await?;
        round.acknowledged = self
            .log
            .entries()
            .iter()
            .filter(|entry| is_yes(entry))
            .count();
        round.findings = self.check().await?;
        Ok(round)
    }

    fn redis(&mut self) -> anyhow::Result<&mut RedisServer> {
        self.redis.as_mut().context("there is no Redis")
    }

    /// Starts the server again; gives the time until it was ready.
    fn start_again(&mut self) -> anyhow::Result<Duration> {
        // A planted fault is over with the process that had it.
        self.options.environment.clear();
        self.server = Server::start(&self.options)
            .with_context(|| format!("restarting on {}", self.options.data.display()))?;
        Ok(self.server.ready_after)
    }

    /// A server whose Redis was away works again.
    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let mut client = Client::new(self.server.admin, Timeouts::default());
        let ready =
            wait::poll_until_async(REDIS_BACK_WITHIN, Duration::from_millis(5), async || {
                let answer = client.send(&Request::get("/readyz").bare()).await.ok()?;
                (answer.status == 200).then_some(())
            });
        ready
            .await
            .with_context(|| format!("not ready after Redis came back\n{}", self.server.log()))
    }

    fn audit(&self) -> anyhow::Result<(Option<i32>, String)> {
        match &self.redis {
            None => check::audit_store(&self.options.binary, &self.options.data),
            Some(redis) => check::audit_redis(&self.options.binary, &redis.url()),
        }
    }

    /// Asks with the same keys, twice over.
    async fn ask_again(
        &self,
        unknowns: impl Iterator<Item = &Entry> + Clone,
    ) -> anyhow::Result<()> {
        let minter = self.keys.minter();
        let mut client = Client::new(self.server.public, Timeouts::default());
        for entry in unknowns.clone().chain(unknowns) {
            let Attempt::Purchase {
                sale,
                buyer,
                key,
                lines,
            } = &entry.attempt
            else {
                continue;
            };
            let token = minter.mint(buyer, crowd::token::now_s() + 3600);
            let number = self.log.sent(entry.attempt.clone());
            let result = client.send(&api::purchase(sale, &token, key, lines)).await;
            self.log.answered(number, Answer::of(&result));
        }
        Ok(())
    }

    async fn check(&self) -> anyhow::Result<Vec<Finding>> {
        let mut books = check::gather(self.addresses(), &self.keys, &self.log).await?;
        books.store_audit = Some(self.audit()?);
        books.limits.extend(buyers::limits());
        Ok(check::check(
            &self.log.entries(),
            &self.log.sights(),
            &books,
        ))
    }

    /// Ends the server as an operator would, and audits the store at rest.
    async fn end(mut self) -> anyhow::Result<()> {
        let status = self.server.stop(Duration::from_secs(20))?;
        if !status.success() {
            bail!(
                "the server ended with {status} after SIGTERM\n{}",
                self.server.log()
            );
        }
        let (code, said) = self.audit()?;
        if code != Some(0) {
            bail!("the audit of the store at rest ended with {code:?}: {said}");
        }
        if self.redis.is_some() {
            // Lists come from the ledger: a new one has only what is stored.
            self.start_again()?;
            let findings = self.check().await?;
            if !findings.is_empty() {
                return Err(self.report(&findings));
            }
        }
        Ok(())
    }

    /// Keeps the evidence and says what was found.
    fn report(self, findings: &[Finding]) -> anyhow::Error {
        for finding in findings.iter().take(20) {
            println!("  {finding}");
        }
        let log = self.server.log();
        let flushed = self.log.flush();
        drop(self.server);
        let kept = self.dir.keep();
        anyhow::anyhow!(
            "{} findings; data and client log are kept in {} ({flushed:?})\n{log}",
            findings.len(),
            kept.display()
        )
    }
}

fn unknown_purchases(entries: &[Entry]) -> usize {
    let is_open =
        |entry: &&Entry| entry.is_unknown() && matches!(entry.attempt, Attempt::Purchase { .. });
    entries.iter().filter(is_open).count()
}

fn is_yes(entry: &Entry) -> bool {
    matches!(entry.answer, Some(Answer::Yes { .. }))
}

fn sale(payment_window_s: u32) -> serde_json::Value {
    let items: Vec<_> = buyers::ITEMS
        .iter()
        .map(|item| {
            let mut definition = json!({
                "item": item.name, "title": item.name, "sale_price_minor": 9_900,
                "stock_units": item.stock_units,
            });
            if let Some(limit) = item.units_per_buyer_max {
                definition["units_per_buyer_max"] = json!(limit);
            }
            definition
        })
        .collect();
    json!({
        "sale_id": buyers::SALE, "title": "Crash run", "currency": "CNY",
        "starts_at": shell::rfc3339_in(-60), "ends_at": shell::rfc3339_in(24 * 3600),
        "payment_window_s": payment_window_s,
        "admission": {"ticket": "off", "buyer_rate_per_s": 10_000_000, "buyer_burst": 10_000_000,
                      "address_rate_per_s": 10_000_000, "address_burst": 10_000_000},
        "items": items,
    })
}
