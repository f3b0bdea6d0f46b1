//! Purchases over HTTP that end in Redis: the engine against the usual pattern, which is one script for each request.
//!
//! Each server has a Redis of its own and shares core 0 with it; the two of them and a bare echo take turns, so that
//! only one works at a time; the generator is pinned to core 1 and sends byte-identical requests to all. Every turn
//! has a sale and buyers of its own.

pub mod usual;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use crowd::api::{Addresses, Api};
use crowd::client::Request;
use crowd::token::Minter;
use crowd::{Server, ServerOptions};
use dev_servers::{AppendFsync, RedisOptions, RedisServer};

use crate::bench::generator::{self, Measured, Pass};
use crate::bench::{self, Peer, median, requests, spread};
use crate::shell;

/// Both keep count of what each buyer has.
const UNITS_PER_BUYER_MAX: u32 = 2;
/// Of so many requests one wins where stock is scarce.
const SCARCITY: u64 = 100;

#[derive(clap::Args)]
pub struct Options {
    /// Turns that each server takes
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Settings to measure, by any of their parts: everysec, always, 64, 1024, all, 1pct; everysec-1024-all is one
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Requests in a turn
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    /// Whether it works at all: one turn of few requests
    #[arg(long)]
    quick: bool,
    /// Takes this program instead of building one
    #[arg(long)]
    server: Option<PathBuf>,
    /// Already optimised and on core 1
    #[arg(long, hide = true)]
    pinned: bool,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    if cfg!(debug_assertions) || !options.pinned {
        return bench::run_pinned();
    }
    bench::raise_file_limit()?;
    let binary = match &options.server {
        Some(path) => path.clone(),
        None => shell::release_server()?,
    };
    let (rounds, requests) = if options.quick {
        (1, 5_000)
    } else {
        (options.rounds, options.requests)
    };
    let chosen: Vec<_> = settings()
        .into_iter()
        .filter(|setting| setting.is_chosen(&options.only))
        .collect();
    ensure!(!chosen.is_empty(), "no setting is named {:?}", options.only);
    let answer_bytes = usual::SOLD_OUT.len().to_string();
    let echo = Peer::start(&["echo", "--answer-bytes", &answer_bytes])?;
    for setting in chosen {
        measure(&setting, rounds, requests, &binary, &echo)
            .with_context(|| format!("setting {}", setting.name()))?;
    }
    println!(
        "Medians of {rounds} turns of {requests} requests each, least and most in brackets; ratios within a turn. CPU is \
         user + system of all threads of a process; servers and their Redis on core 0, generator on core 1."
    );
    Ok(())
}

/// What is varied.
#[derive(Debug, Clone, Copy)]
struct Setting {
    fsync: AppendFsync,
    connections: usize,
    is_scarce: bool,
}

fn settings() -> Vec<Setting> {
    let mut settings = Vec::new();
    for fsync in [AppendFsync::Everysec, AppendFsync::Always] {
        for connections in [64, 1_024] {
            for is_scarce in [false, true] {
                settings.push(Setting {
                    fsync,
                    connections,
                    is_scarce,
                });
            }
        }
    }
    settings
}

impl Setting {
    fn parts(&self) -> [String; 3] {
        let fsync = match self.fsync {
            AppendFsync::Everysec => "everysec",
            AppendFsync::Always => "always",
            AppendFsync::No => "no",
        };
        let winners = if self.is_scarce { "1pct" } else { "all" };
        [
            fsync.to_owned(),
            self.connections.to_string(),
            winners.to_owned(),
        ]
    }

    fn name(&self) -> String {
        self.parts().join("-")
    }

    /// Whether one of these names, parts joined by `-`, fits; without names all do.
    fn is_chosen(&self, only: &[String]) -> bool {
        let parts = self.parts();
        let fits = |name: &String| {
            name.split('-')
                .all(|part| parts.iter().any(|mine| mine == part))
        };
        only.is_empty() || only.iter().any(fits)
    }

    fn stock_units(&self, requests: u64) -> u32 {
        let units = if self.is_scarce {
            requests / SCARCITY
        } else {
            // More than are asked for.
            requests * 2
        };
        u32::try_from(units).unwrap_or(u32::MAX)
    }
}

/// A server and its Redis.
struct Side {
    redis: RedisServer,
    server: Running,
}

enum Running {
    Usual(Peer),
    Ours(Box<Server>),
}

/// What one turn of one side cost.
struct Turn {
    measured: Measured,
    scripts: u64,
}

/// The processes of a side, in the order in which they are watched.
const SERVER: usize = 0;
const REDIS: usize = 1;

impl Turn {
    fn wins_per_s(&self) -> f64 {
        self.measured.matched() as f64 / self.measured.elapsed.as_secs_f64()
    }

    /// Of server and Redis together: where both are busy on one core this is what bounds requests/s, and it is steadier.
    fn cpu_us(&self) -> f64 {
        self.measured.cpu_us(SERVER) + self.measured.cpu_us(REDIS)
    }

    fn redis_cpu_us_per_win(&self) -> f64 {
        self.measured.cpu(REDIS).as_secs_f64() * 1e6 / self.measured.matched() as f64
    }

    fn wins_per_script(&self) -> f64 {
        self.measured.matched() as f64 / self.scripts as f64
    }
}

impl Side {
    fn ours(setting: &Setting, binary: &Path, data: &Path) -> anyhow::Result<Self> {
        let redis = start_redis(setting.fsync)?;
        let mut options = ServerOptions::new(binary, data);
        options.wrapper = bench::on_server_core();
        options.arguments = vec!["--redis".to_owned(), redis.url()];
        let server = Running::Ours(Box::new(Server::start(&options)?));
        Ok(Self { redis, server })
    }

    /// Takes the tokens of the server whose data folder this is.
    fn usual(setting: &Setting, data: &Path) -> anyhow::Result<Self> {
        let redis = start_redis(setting.fsync)?;
        let data = data.to_str().context("the name of a folder")?;
        let words = ["usual-redis", "--redis", &redis.url(), "--data", data];
        let server = Running::Usual(Peer::start(&words)?);
        Ok(Self { redis, server })
    }

    fn address(&self) -> SocketAddr {
        match &self.server {
            Running::Usual(peer) => peer.address,
            Running::Ours(server) => server.public,
        }
    }

    /// As [`SERVER`] and [`REDIS`].
    fn pids(&self) -> anyhow::Result<[u32; 2]> {
        let server = match &self.server {
            Running::Usual(peer) => peer.pid(),
            Running::Ours(server) => server.pid(),
        };
        Ok([server, self.redis.pid()?])
    }

    fn publish(&self, sale: &str, number: u32, stock_units: u32) -> anyhow::Result<()> {
        match &self.server {
            Running::Usual(_) => {
                usual::publish(&self.redis, sale, number, stock_units, UNITS_PER_BUYER_MAX)
            }
            Running::Ours(server) => shell::runtime()?.block_on(async {
                let definition = bench::sale(sale, stock_units, Some(UNITS_PER_BUYER_MAX));
                admin(server)?.publish(&definition).await
            }),
        }
    }

    /// Every yes is in the books, and nothing else.
    fn check(&self, sale: &str, stock_units: u32, won: u64) -> anyhow::Result<()> {
        match &self.server {
            Running::Usual(_) => usual::check(&self.redis, sale, stock_units, won),
            Running::Ours(server) => shell::runtime()?.block_on(async {
                let audit = admin(server)?.audit(sale).await?;
                ensure!(audit.ok, "the books do not balance: {:?}", audit.findings);
                let reserved: u64 = audit.items.iter().map(|item| item.reserved_units).sum();
                ensure!(reserved == won, "{reserved} units are reserved, not {won}");
                Ok(())
            }),
        }
    }

    fn turn(&self, setting: &Setting, sale: &Sale, requests: &[Request]) -> anyhow::Result<Turn> {
        self.publish(&sale.name, sale.number, sale.stock_units)?;
        let before = Counters::of(&self.redis)?;
        let pass = Pass {
            status: 201,
            or_status: setting.is_scarce.then_some(409),
            ..pass(self.address(), requests, setting.connections)
        };
        let measured = generator::run(&pass, &self.pids()?)?;
        let after = Counters::of(&self.redis)?;
        let won = measured.matched();
        let expected = measured.requests.min(sale.stock_units.into());
        ensure!(won == expected, "{won} won, not {expected}");
        self.check(&sale.name, sale.stock_units, won)?;
        Ok(Turn {
            measured,
            scripts: after.scripts - before.scripts,
        })
    }

    /// Commands that Redis got while so many buyers came too late for a sale.
    fn commands_for_losers(&self, setting: &Setting, requests: &[Request]) -> anyhow::Result<u64> {
        let before = Counters::of(&self.redis)?;
        let pass = Pass {
            status: 409,
            ..pass(self.address(), requests, setting.connections)
        };
        generator::run(&pass, &self.pids()?)?;
        let after = Counters::of(&self.redis)?;
        // The first asking for the counters is one of them.
        Ok(after.commands - before.commands - 1)
    }
}

fn start_redis(fsync: AppendFsync) -> anyhow::Result<RedisServer> {
    let options = RedisOptions::default()
        .appendfsync(fsync)
        // A rewrite of the file would fall into whichever turn it likes.
        .extra("auto-aof-rewrite-percentage", "0")
        .wrapper(bench::on_server_core());
    RedisServer::start(options)
}

fn admin(server: &Server) -> anyhow::Result<Api> {
    let addresses = Addresses {
        public: server.public,
        admin: server.admin,
    };
    Ok(Api::new(addresses, server.keys()?))
}

fn pass(address: SocketAddr, requests: &[Request], connections: usize) -> Pass<'_> {
    Pass {
        address,
        requests,
        repeats: 1,
        connections,
        pipeline: 1,
        status: 200,
        or_status: None,
    }
}

/// What Redis counts.
#[derive(Debug, PartialEq, Eq)]
struct Counters {
    commands: u64,
    scripts: u64,
}

impl Counters {
    fn of(redis: &RedisServer) -> anyhow::Result<Self> {
        let info = redis.command(&["INFO", "stats", "commandstats"])?;
        Self::parse(&info).with_context(|| format!("in {info:?}"))
    }

    fn parse(info: &str) -> Option<Self> {
        let value = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|rest| rest.split([',', '\r']).next().unwrap_or_default())
        };
        // Nobody may have run a script yet.
        let scripts = value("cmdstat_evalsha:calls=").unwrap_or("0");
        Some(Self {
            commands: value("total_commands_processed:")?.parse().ok()?,
            scripts: scripts.parse().ok()?,
        })
    }
}

/// The sale of one turn.
struct Sale {
    name: String,
    number: u32,
    stock_units: u32,
}

/// All turns of a setting.
#[derive(Default)]
struct Turns {
    usual: Vec<Turn>,
    ours: Vec<Turn>,
    echo: Vec<Measured>,
}

fn measure(
    setting: &Setting,
    rounds: usize,
    requests_count: u64,
    binary: &Path,
    echo: &Peer,
) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("stampede-bench-")
        .tempdir()?;
    let data = dir.path().join("data");
    let ours = Side::ours(setting, binary, &data)?;
    let usual = Side::usual(setting, &data)?;
    let minter = crowd::token::Keys::read(&data)?.minter();
    let mut turns = Turns::default();
    let mut last = String::new();
    // The first round warms up and is not counted.
    for round in 0..=rounds {
        let count = if round == 0 {
            (requests_count / 10).max(SCARCITY)
        } else {
            requests_count
        };
        let sale = Sale {
            name: format!("{}-{round}", setting.name()),
            number: u32::try_from(round + 1)?,
            stock_units: setting.stock_units(count),
        };
        let requests = requests(&minter, &sale.name, &format!("r{round}"), count);
        let of_usual = usual.turn(setting, &sale, &requests).context("usual")?;
        let of_ours = ours.turn(setting, &sale, &requests).context("stampede")?;
        let echo_pass = pass(echo.address, &requests, setting.connections);
        let of_echo = generator::run(&echo_pass, &[echo.pid()]).context("echo")?;
        if round > 0 {
            turns.usual.push(of_usual);
            turns.ours.push(of_ours);
            turns.echo.push(of_echo);
        }
        last = sale.name;
    }
    turns.print(setting);
    if setting.is_scarce {
        print_losers(setting, &minter, &last, requests_count / 5, [&usual, &ours])?;
    }
    println!();
    Ok(())
}

impl Turns {
    fn print(&self, setting: &Setting) {
        let [fsync, connections, winners] = setting.parts();
        println!("### {fsync}, {connections} connections, winners: {winners}\n");
        println!(
            "| | wins/s | answers/s | p50 of 201s, ms | p99, ms | server CPU µs/request | Redis CPU µs/request \
             | Redis CPU µs/win | wins per script |"
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        print_side("usual", &self.usual);
        print_side("stampede", &self.ours);
        println!(
            "| echo | – | {} | – | – | {} | – | – | – |\n",
            spread(self.echo.iter().map(Measured::rate_per_s), 0),
            spread(self.echo.iter().map(|turn| turn.cpu_us(SERVER)), 2),
        );
        let pairs = || self.usual.iter().zip(&self.ours);
        let echoes = || self.echo.iter().zip(&self.ours);
        let is_aim = matches!(setting.fsync, AppendFsync::Everysec) && !setting.is_scarce;
        println!("| ratio | measured | first target |\n|---|---|---|");
        print_ratio(
            "wins/s, stampede to usual",
            pairs().map(|(usual, ours)| ours.wins_per_s() / usual.wins_per_s()),
            if is_aim { ">= 1.3" } else { "" },
        );
        print_ratio(
            "the same by CPU per request",
            pairs().map(|(usual, ours)| usual.cpu_us() / ours.cpu_us()),
            "",
        );
        print_ratio(
            "requests/s, stampede to echo",
            echoes().map(|(echo, ours)| ours.measured.rate_per_s() / echo.rate_per_s()),
            if is_aim { ">= 0.45" } else { "" },
        );
        print_ratio(
            "the same by CPU per request",
            echoes().map(|(echo, ours)| echo.cpu_us(SERVER) / ours.cpu_us()),
            "",
        );
        print_ratio(
            "Redis CPU per win, usual to stampede",
            pairs().map(|(usual, ours)| usual.redis_cpu_us_per_win() / ours.redis_cpu_us_per_win()),
            // Where batches are full.
            if is_aim && setting.connections > 64 {
                ">= 2.5"
            } else {
                ""
            },
        );
    }
}

fn print_ratio(what: &str, ratios: impl Iterator<Item = f64>, target: &str) {
    println!("| {what} | {} | {target} |", spread(ratios, 2));
}

fn print_side(name: &str, turns: &[Turn]) {
    let of = |figure: fn(&Turn) -> f64, decimals| spread(turns.iter().map(figure), decimals);
    println!(
        "| {name} | {} | {} | {} | {} | {} | {} | {} | {:.2} |",
        of(Turn::wins_per_s, 0),
        of(|turn| turn.measured.rate_per_s(), 0),
        of(|turn| turn.measured.latency_ms(0.5), 2),
        of(|turn| turn.measured.latency_ms(0.99), 2),
        of(|turn| turn.measured.cpu_us(SERVER), 2),
        of(|turn| turn.measured.cpu_us(REDIS), 2),
        of(Turn::redis_cpu_us_per_win, 2),
        median(turns.iter().map(Turn::wins_per_script)).1,
    );
}

/// Sends buyers after the last unit has gone.
fn print_losers(
    setting: &Setting,
    minter: &Minter,
    sale: &str,
    count: u64,
    sides: [&Side; 2],
) -> anyhow::Result<()> {
    let requests = requests(minter, sale, "late", count);
    let [usual, ours] = sides.map(|side| side.commands_for_losers(setting, &requests));
    let (usual, ours) = (usual.context("usual")?, ours.context("stampede")?);
    println!(
        "| Redis commands per loser, usual / stampede | {:.2} / {:.4} ({ours} while {count} lost) | 0, but for what the \
         node says of itself |",
        usual as f64 / count as f64,
        ours as f64 / count as f64,
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_chosen_by_their_parts() {
        let count = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(|name| (*name).to_owned()).collect();
            let all = settings();
            all.iter()
                .filter(|setting| setting.is_chosen(&only))
                .count()
        };
        assert_eq!(count(&[]), 8);
        assert_eq!(count(&["everysec"]), 4);
        assert_eq!(count(&["everysec-1024"]), 2);
        assert_eq!(count(&["always-64-all", "1pct"]), 5);
        assert_eq!(count(&["nothing"]), 0);
    }

    #[test]
    fn where_stock_is_scarce_one_in_a_hundred_wins() {
        for setting in settings() {
            let units = setting.stock_units(5_000);
            assert_eq!(units < 5_000, setting.is_scarce);
            assert_eq!(units == 50, setting.is_scarce);
        }
    }

    #[test]
    fn what_redis_counts_is_read() {
        let info = "# Stats\r\ntotal_connections_received:3\r\ntotal_commands_processed:120\r\n\r\n# Commandstats\r\n\
                    cmdstat_evalsha:calls=12,usec=90,usec_per_call=7.50\r\n";
        let counters = |commands, scripts| Some(Counters { commands, scripts });
        assert_eq!(Counters::parse(info), counters(120, 12));
        assert_eq!(
            Counters::parse("total_commands_processed:1\r\n"),
            counters(1, 0)
        );
        assert_eq!(Counters::parse("redis_version:7\r\n"), None);
    }
}
