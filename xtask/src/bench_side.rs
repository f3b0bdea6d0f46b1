//! What the campaigns cost those who buy: latency of purchases and refusals at a fixed rate while campaigns are idle, asked
//! for more than they can do, and before a database that stands still.
//!
//! The server is pinned to core 0. The buyers of this process are on core 1, with them PostgreSQL and the crowd that joins
//! a campaign, both of which run only when the buyers do not want the core. Conditions take turns.

mod beside;
mod buyers;
mod database;
mod throughput;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use crowd::api::{self, Addresses, Api};
use crowd::client::{Client, Timeouts};
use crowd::token::{Keys, now_s};
use crowd::{Server, ServerOptions};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::bench::{self, ITEM, median, spread};
use crate::shell;
use beside::Beside;
pub use beside::{Options as BesideOptions, run as side_crowd};
use buyers::Bought;
use database::{Database, Kind as DatabaseKind};

const SALE_SOLD_OUT: &str = "sold-out";
const SALE_PLENTY: &str = "plenty";
/// The campaign that everybody joins: a coupon for each.
const CAMPAIGN: &str = "crowded";
const PARTICIPANTS_MAX: i64 = 10_000_000;
/// From the first call of the campaigns to a state that lasts.
const SETTLES_WITHIN: Duration = Duration::from_millis(500);
/// Longer than a transaction of the campaigns may take.
const UNSTUCK: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub struct Options {
    /// Turns that each condition takes
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Purchases a second
    #[arg(long, default_value_t = 5_000)]
    rate: u32,
    /// Seconds of a turn
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Connections that join a campaign, where campaigns are asked for more than they can do: more than are carried
    /// out at once (256)
    #[arg(long, default_value_t = 600)]
    side_calls: usize,
    /// Databases of the campaigns
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [DatabaseKind::Sqlite, DatabaseKind::Postgres])]
    databases: Vec<DatabaseKind>,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::Purchases, Part::Throughput])]
    only: Vec<Part>,
    /// Conditions; idle is always one
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Condition::Saturated, Condition::Frozen])]
    conditions: Vec<Condition>,
    /// What is bought
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Purchase::Refusal, Purchase::Winner])]
    purchases: Vec<Purchase>,
    /// Folder of the server's data [default: that of temporary files]
    #[arg(long)]
    data_in: Option<PathBuf>,
    /// Folder of the campaigns' file, where it is one of SQLite [default: beside the server's data]
    #[arg(long)]
    campaigns_in: Option<PathBuf>,
    /// Command that is told each thread of the campaigns, to compare other priorities: "renice -n 0 -p"
    #[arg(long)]
    each_thread: Option<String>,
    /// Participants of the campaign that is reported on
    #[arg(long, default_value_t = 100_000)]
    participants: usize,
    /// Added to the server's environment, as NAME=VALUE
    #[arg(long)]
    environment: Vec<String>,
    /// Takes this program instead of building one
    #[arg(long)]
    server: Option<PathBuf>,
    /// Already optimised and on core 1
    #[arg(long, hide = true)]
    pinned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Purchases,
    Throughput,
}

/// What the campaigns are at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Condition {
    Idle,
    Saturated,
    Frozen,
}

impl Condition {
    fn described(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Saturated => "saturated",
            Self::Frozen => "asked while their database stands still",
        }
    }
}

/// What is bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Purchase {
    Refusal,
    Winner,
}

impl Purchase {
    fn described(self) -> &'static str {
        match self {
            Self::Refusal => "sold out",
            Self::Winner => "durable reservation",
        }
    }

    fn status(self) -> u16 {
        match self {
            Self::Refusal => 409,
            Self::Winner => 201,
        }
    }

    fn sale(self) -> &'static str {
        match self {
            Self::Refusal => SALE_SOLD_OUT,
            Self::Winner => SALE_PLENTY,
        }
    }
}

/// One turn.
struct Turn {
    bought: Bought,
    /// Calls of the campaigns a second that were done, and that were told to come again.
    done_per_s: f64,
    refused_per_s: f64,
    /// Shares of the server's core.
    selling: f64,
    campaigns: f64,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    if cfg!(debug_assertions) || !options.pinned {
        return bench::run_pinned();
    }
    ensure!(
        options.rounds > 0 && options.rate > 0 && options.seconds > 0,
        "--rounds, --rate and --seconds are at least 1"
    );
    bench::raise_file_limit()?;
    let binary = match &options.server {
        Some(path) => path.clone(),
        None => shell::release_server()?,
    };
    for kind in &options.databases {
        let stage = Stage::open(options, &binary, *kind)?;
        for part in &options.only {
            match part {
                Part::Purchases => stage.purchases()?,
                Part::Throughput => throughput::run(&stage)?,
            }
        }
    }
    Ok(())
}

/// A server with a database, two sales and a campaign.
struct Stage<'a> {
    options: &'a Options,
    runtime: Runtime,
    server: Server,
    keys: Keys,
    database: Database,
    _dir: tempfile::TempDir,
}

impl<'a> Stage<'a> {
    fn open(
        options: &'a Options,
        binary: &std::path::Path,
        kind: DatabaseKind,
    ) -> anyhow::Result<Self> {
        let in_folder = options.data_in.clone();
        let dir = tempfile::Builder::new()
            .prefix("stampede-bench-")
            .tempdir_in(in_folder.unwrap_or_else(std::env::temp_dir))?;
        let database = Database::start(kind, options.campaigns_in.as_deref(), dir.path())?;
        let mut server_options = ServerOptions::new(binary, dir.path().join("data"));
        server_options.wrapper = bench::on_server_core();
        server_options.arguments = vec!["--database".into(), database.url().to_owned()];
        let unbounded = "STAMPEDE_PUBLIC_STOREFRONT_RATE_PER_S".to_owned();
        server_options.environment = vec![(unbounded, "1000000".to_owned())];
        for variable in &options.environment {
            let (name, value) = variable.split_once('=').context("NAME=VALUE")?;
            server_options
                .environment
                .push((name.to_owned(), value.to_owned()));
        }
        let server = Server::start(&server_options)?;
        let keys = server.keys()?;
        let runtime = shell::runtime()?;
        let stage = Self {
            options,
            runtime,
            server,
            keys,
            database,
            _dir: dir,
        };
        stage.runtime.block_on(stage.prepare())?;
        Ok(stage)
    }

    /// Publishes a sale that is sold out for good, one that never will be, and the campaign.
    async fn prepare(&self) -> anyhow::Result<()> {
        let (server, keys) = (&self.server, &self.keys);
        let addresses = Addresses {
            public: server.public,
            admin: server.admin,
        };
        let mut admin = Api::new(addresses, keys.clone());
        admin.publish(&bench::sale(SALE_SOLD_OUT, 1, None)).await?;
        admin
            .publish(&bench::sale(SALE_PLENTY, 4_000_000_000, None))
            .await?;
        let mut client = Client::new(server.public, Timeouts::default());
        let token = keys.minter().mint("the-one", now_s() + 3600);
        let lines = [(ITEM.to_owned(), 1)];
        let won = client
            .send(&api::purchase(SALE_SOLD_OUT, &token, "k", &lines))
            .await?;
        let id = won
            .text_field("reservation_id")
            .context("the one unit was not sold")?;
        let paid = client
            .send(&api::confirm(id, &keys.storefront_key, "pay-1"))
            .await?;
        ensure!(paid.status == 200, "the one unit was not paid");
        self.admin("POST", "/v1/admin/campaigns", &campaign())
            .await?;
        let publish = format!("/v1/admin/campaigns/{CAMPAIGN}/publish");
        self.admin("POST", &publish, &json!({"accept": []})).await?;
        Ok(())
    }

    /// A command to the server, which has to go through.
    async fn admin(&self, method: &str, target: &str, body: &Value) -> anyhow::Result<Value> {
        let mut client = Client::new(self.server.admin, beside::PATIENT);
        let request = crowd::client::Request::draft(method, target).bearer(&self.keys.admin_key);
        let request = request.key(&format!("{method}-{}", target.replace('/', ".")));
        let request = match method {
            "GET" => request.bare(),
            _ => request.json(&body.to_string()),
        };
        let answer = client.send(&request).await?;
        let told = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status < 300, "{target}: {} {told}", answer.status);
        Ok(answer.json()?)
    }

    fn purchases(&self) -> anyhow::Result<()> {
        println!(
            "\n| {} purchases a second; campaigns on | what | campaigns are | p50 ms | p99 ms | p99 against idle | \
             sent late, p99 ms | campaigns done, refused/s | core 0: selling, campaigns |",
            self.options.rate
        );
        println!("|---|---|---|---|---|---|---|---|---|");
        for purchase in &self.options.purchases {
            let mut conditions = vec![Condition::Idle];
            conditions.extend(&self.options.conditions);
            conditions.dedup();
            let mut turns: Vec<(Condition, Vec<Turn>)> = conditions
                .into_iter()
                .map(|condition| (condition, Vec::new()))
                .collect();
            for round in 0..self.options.rounds {
                for (condition, turns) in &mut turns {
                    let crowd = format!("{purchase:?}{condition:?}{round}");
                    turns.push(self.turn(*purchase, *condition, &crowd)?);
                }
            }
            self.report(*purchase, &turns);
        }
        println!(
            "\nMedians of {} turns of {} s each, least and most in brackets; p99 against idle of the same round; server \
             on core 0; buyers on core 1, where joining crowd and PostgreSQL get what is left; target <= 1.2x.",
            self.options.rounds, self.options.seconds
        );
        Ok(())
    }

    /// Buys at the rate for a turn, with what the condition says beside it.
    fn turn(&self, purchase: Purchase, condition: Condition, crowd: &str) -> anyhow::Result<Turn> {
        let options = self.options;
        self.told_each_thread()?;
        let mut beside = match condition {
            Condition::Idle => None,
            Condition::Saturated | Condition::Frozen => {
                let (public, key) = (self.server.public, &self.keys.storefront_key);
                let calls = options.side_calls;
                Some(Beside::start(public, key, calls, crowd)?)
            }
        };
        let frozen = match condition {
            Condition::Frozen => Some(self.database.freeze()?),
            Condition::Idle | Condition::Saturated => None,
        };
        self.runtime
            .block_on(async { tokio::time::sleep(SETTLES_WITHIN).await });
        let orders = buyers::orders(options.rate, options.seconds, &self.keys, purchase, crowd);
        let counted = beside.as_mut().map(Beside::counts).transpose()?;
        let (cpu, began_at) = (cpu(self.server.pid())?, Instant::now());
        let local = tokio::task::LocalSet::new();
        let bought = local.block_on(&self.runtime, buyers::buy(self.server.public, orders))?;
        let seconds = began_at.elapsed().as_secs_f64();
        let used = self::cpu(self.server.pid())?;
        let share = |after: Duration, before: Duration| {
            after.saturating_sub(before).as_secs_f64() / seconds
        };
        let recounted = beside.as_mut().map(Beside::counts).transpose()?;
        let counted = recounted.unwrap_or_default() - counted.unwrap_or_default();
        if frozen.is_some() {
            drop(frozen);
            drop(beside);
            self.runtime.block_on(self.unstuck())?;
        }
        Ok(Turn {
            bought,
            done_per_s: counted.done as f64 / seconds,
            refused_per_s: counted.refused as f64 / seconds,
            selling: share(used.selling, cpu.selling),
            campaigns: share(used.campaigns, cpu.campaigns),
        })
    }

    /// Waits until the campaigns work again.
    async fn unstuck(&self) -> anyhow::Result<()> {
        let give_up = Instant::now() + UNSTUCK;
        let target = "/v1/admin/campaigns-database";
        while let Err(error) = self.admin("GET", target, &Value::Null).await {
            ensure!(Instant::now() < give_up, "they never came back: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // What was broken off is over as well.
        tokio::time::sleep(SETTLES_WITHIN).await;
        Ok(())
    }

    fn told_each_thread(&self) -> anyhow::Result<()> {
        let Some(words) = &self.options.each_thread else {
            return Ok(());
        };
        for (thread, _, is_of_campaigns) in threads(self.server.pid())? {
            if is_of_campaigns {
                let mut words = words.split(' ');
                let mut command = Command::new(words.next().context("a command")?);
                command.args(words).arg(thread.to_string());
                shell::read(&mut command)?;
            }
        }
        Ok(())
    }

    fn report(&self, purchase: Purchase, turns: &[(Condition, Vec<Turn>)]) {
        let idle = &turns[0].1;
        for (condition, turns) in turns {
            let figures = |figure: fn(&Turn) -> f64| turns.iter().map(figure);
            let ratios = turns.iter().zip(idle);
            let ratios = ratios.map(|(turn, idle)| turn.bought.ms(0.99) / idle.bought.ms(0.99));
            println!(
                "| {} | {} | {} | {} | {} | {} | {} | {:.0}, {:.0} | {:.0} %, {:.0} % |",
                self.database.described(),
                purchase.described(),
                condition.described(),
                spread(figures(|turn| turn.bought.ms(0.5)), 2),
                spread(figures(|turn| turn.bought.ms(0.99)), 2),
                spread(ratios, 2),
                spread(figures(|turn| turn.bought.late_ms(0.99)), 2),
                median(figures(|turn| turn.done_per_s)).1,
                median(figures(|turn| turn.refused_per_s)).1,
                median(figures(|turn| turn.selling * 100.0)).1,
                median(figures(|turn| turn.campaigns * 100.0)).1,
            );
        }
    }
}

/// A giveaway that gives everybody a coupon.
fn campaign() -> Value {
    let face_minor = 500;
    json!({
        "campaign_id": CAMPAIGN, "kind": "giveaway", "title": "Crowded",
        "starts_at": shell::rfc3339_in(-60), "ends_at": shell::rfc3339_in(24 * 3600),
        "zone": "Asia/Shanghai", "currency": "CNY",
        "budget_minor": PARTICIPANTS_MAX * face_minor,
        "eligibility": {"phone_verification": false, "participants_max": PARTICIPANTS_MAX},
        "rules": {"per_participant": ["welcome"], "draws": []},
        "rewards": [{"reward": "welcome", "title": "Off any order", "type": "coupon", "face_minor": face_minor,
                     "term_days": 30, "total": PARTICIPANTS_MAX}],
    })
}

/// CPU that the threads of a server have used.
struct Cpu {
    selling: Duration,
    campaigns: Duration,
}

fn cpu(pid: u32) -> anyhow::Result<Cpu> {
    let mut cpu = Cpu {
        selling: Duration::ZERO,
        campaigns: Duration::ZERO,
    };
    for (_, used, is_of_campaigns) in threads(pid)? {
        match is_of_campaigns {
            true => cpu.campaigns += used,
            false => cpu.selling += used,
        }
    }
    Ok(cpu)
}

/// Threads of a server: id, CPU used, whether it is one of the campaigns.
fn threads(pid: u32) -> anyhow::Result<Vec<(u32, Duration, bool)>> {
    let mut threads = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let folder = task?.path();
        let read = |name: &str| std::fs::read_to_string(folder.join(name));
        // It may end while we look.
        let (Ok(name), Ok(stat)) = (read("comm"), read("schedstat")) else {
            continue;
        };
        let used_ns = stat.split_ascii_whitespace().next().context("schedstat")?;
        let id = folder.file_name().unwrap_or_default().to_string_lossy();
        let is_of_campaigns = name.starts_with("campaigns") || name.starts_with("sqlx");
        let used = Duration::from_nanos(used_ns.parse()?);
        threads.push((id.parse()?, used, is_of_campaigns));
    }
    Ok(threads)
}
