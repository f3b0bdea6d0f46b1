//! What the campaigns cost those who buy: latency of purchases and refusals at a fixed rate while campaigns are idle, asked
//! for more than they can do, and before a database that stands still.
//!
//! The server is pinned to core 0; this process and the database are on core 1. Purchases are an open loop: each is sent
//! at its time whatever became of the others, and is late from then on; only the timer's own delay is left out.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use crowd::api::{self, Addresses, Api};
use crowd::client::{Client, Request, Timeouts};
use crowd::token::{Keys, Minter, now_s};
use crowd::{Server, ServerOptions};
use dev_servers::PostgresServer;
use tokio::task::{JoinSet, LocalSet};

use crate::bench::{self, ITEM, median, requests, spread};
use crate::shell;

const SALE_SOLD_OUT: &str = "sold-out";
const SALE_PLENTY: &str = "plenty";
/// Connections of the open loop: many enough that a free one is always there.
const CONNECTIONS: usize = 128;
/// A late request is given up after this.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longer than a transaction of the campaigns may take.
const UNSTUCK: Duration = Duration::from_secs(6);

#[derive(clap::Args)]
pub struct Options {
    /// Turns that each condition takes
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Purchases a second
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Seconds of a turn
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Calls of the campaigns under way at once, where they are asked for more than they can do
    #[arg(long, default_value_t = 256)]
    side_calls: usize,
    /// What is asked of the campaigns, on the admin port
    #[arg(long, default_value = "/v1/admin/campaigns-database")]
    side_target: String,
    /// Takes this program instead of building one
    #[arg(long)]
    server: Option<PathBuf>,
    /// Already optimised and on core 1
    #[arg(long, hide = true)]
    pinned: bool,
}

/// What the campaigns are at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Idle,
    Saturated,
    Frozen,
}

impl Condition {
    const ALL: [Self; 3] = [Self::Idle, Self::Saturated, Self::Frozen];

    fn described(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Saturated => "saturated",
            Self::Frozen => "asked while their database stands still",
        }
    }
}

/// What is bought.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Refusal,
    Winner,
}

impl Kind {
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
    p50_ms: f64,
    p99_ms: f64,
    side_answers: u64,
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
    let dir = tempfile::Builder::new()
        .prefix("stampede-bench-")
        .tempdir()?;
    let database = PostgresServer::start()?;
    let mut server_options = ServerOptions::new(&binary, dir.path().join("data"));
    server_options.wrapper = bench::on_server_core();
    server_options.arguments = vec!["--database".into(), database.database()?];
    let server = Server::start(&server_options)?;
    let keys = server.keys()?;
    let runtime = shell::runtime()?;
    runtime.block_on(prepare(&server, &keys))?;

    println!(
        "| purchases, {} a second | campaigns | p50 ms | p99 ms | p99 against idle | answers of campaigns/s |",
        options.rate
    );
    println!("|---|---|---|---|---|---|");
    for kind in [Kind::Refusal, Kind::Winner] {
        let mut turns: [Vec<Turn>; 3] = Default::default();
        for round in 0..options.rounds {
            for (turns, condition) in turns.iter_mut().zip(Condition::ALL) {
                let crowd = format!("{kind:?}{condition:?}{round}");
                let local = LocalSet::new();
                if condition == Condition::Frozen {
                    database.freeze()?;
                }
                let turn = turn(options, &server, &keys, kind, condition, &crowd);
                let turn = local.block_on(&runtime, turn);
                if condition == Condition::Frozen {
                    database.thaw()?;
                    // What was stuck at it has to be over before the next turn.
                    runtime.block_on(async { tokio::time::sleep(UNSTUCK).await });
                }
                turns.push(turn?);
            }
        }
        report(options, kind, &turns);
    }
    println!(
        "\nMedians of {} turns of {} s each, least and most in brackets; p99 against idle of the same round; server on \
         core 0; generator and PostgreSQL on core 1; target <= 1.2x.",
        options.rounds, options.seconds
    );
    Ok(())
}

fn report(options: &Options, kind: Kind, turns: &[Vec<Turn>; 3]) {
    for (of_condition, condition) in turns.iter().zip(Condition::ALL) {
        let pairs = of_condition.iter().zip(&turns[0]);
        let ratios = pairs.map(|(turn, idle)| turn.p99_ms / idle.p99_ms);
        let seconds = f64::from(options.seconds);
        let side = of_condition
            .iter()
            .map(|turn| turn.side_answers as f64 / seconds);
        println!(
            "| {} | {} | {} | {} | {} | {:.0} |",
            kind.described(),
            condition.described(),
            spread(of_condition.iter().map(|turn| turn.p50_ms), 2),
            spread(of_condition.iter().map(|turn| turn.p99_ms), 2),
            spread(ratios, 2),
            median(side).1,
        );
    }
}

/// Publishes a sale that is sold out for good and one that never will be.
async fn prepare(server: &Server, keys: &Keys) -> anyhow::Result<()> {
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
    let won = client
        .send(&api::purchase(
            SALE_SOLD_OUT,
            &token,
            "k",
            &[(ITEM.to_owned(), 1)],
        ))
        .await?;
    let id = won
        .text_field("reservation_id")
        .context("the one unit was not sold")?;
    let paid = client
        .send(&api::confirm(id, &keys.storefront_key, "pay-1"))
        .await?;
    ensure!(paid.status == 200, "the one unit was not paid");
    Ok(())
}

/// Buys at the rate for a turn, with what the condition says beside it.
async fn turn(
    options: &Options,
    server: &Server,
    keys: &Keys,
    kind: Kind,
    condition: Condition,
    crowd: &str,
) -> anyhow::Result<Turn> {
    let side_answers = Rc::new(Cell::new(0));
    let mut side = JoinSet::new();
    let side_calls = match condition {
        Condition::Idle => 0,
        Condition::Saturated | Condition::Frozen => options.side_calls,
    };
    for _ in 0..side_calls {
        let mut client = Client::new(server.admin, Timeouts::default());
        let request = Request::get(&options.side_target)
            .bearer(&keys.admin_key)
            .bare();
        let answers = Rc::clone(&side_answers);
        side.spawn_local(async move {
            while client.send(&request).await.is_ok() {
                answers.set(answers.get() + 1);
            }
        });
    }
    let count = u64::from(options.rate) * u64::from(options.seconds);
    let minter: Minter = keys.minter();
    let requests = Rc::new(requests(&minter, kind.sale(), crowd, count));
    let interval = Duration::from_secs(1) / options.rate;
    let begin = Instant::now() + Duration::from_millis(200);
    let mut buyers = JoinSet::new();
    for first in 0..CONNECTIONS {
        let mut client = Client::new(server.public, Timeouts::default());
        let requests = Rc::clone(&requests);
        buyers.spawn_local(async move {
            client.connect().await?;
            let mut latencies = Vec::new();
            for index in (first..requests.len()).step_by(CONNECTIONS) {
                let due = begin + interval * u32::try_from(index)?;
                // Late for want of an answer counts; late for want of a timer does not.
                let since = if Instant::now() < due {
                    tokio::time::sleep_until(due.into()).await;
                    Instant::now()
                } else {
                    due
                };
                let answer = client.send(&requests[index]).await?;
                if answer.status != kind.status() {
                    bail!(
                        "a purchase was answered with {} {}",
                        answer.status,
                        answer.outcome()
                    );
                }
                ensure!(since.elapsed() < ANSWER_MAX, "the server does not keep up");
                latencies.push(since.elapsed());
            }
            Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(joined) = buyers.join_next().await {
        latencies.extend(joined??);
    }
    side.abort_all();
    latencies.sort_unstable();
    let at = |part: f64| {
        let index = (latencies.len().saturating_sub(1)) as f64 * part;
        let latency = latencies.get(index.round() as usize);
        latency.map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    };
    Ok(Turn {
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        side_answers: side_answers.get(),
    })
}
