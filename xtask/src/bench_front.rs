//! What a request costs the server, in CPU, against what it costs a bare hyper echo.
//!
//! Both servers are pinned to core 0 and take turns; the generator is pinned to core 1 and sends byte-identical
//! requests over keep-alive connections. The figure is the CPU of the server's process (user and system) per request.

pub mod echo;
mod generator;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use crowd::api::{self, Addresses, Api};
use crowd::client::{Client, Request, Timeouts};
use crowd::token::now_s;
use crowd::{Server, ServerOptions};
use serde_json::json;

use crate::shell;
use generator::{Measured, Pass};

const SALE_SOLD_OUT: &str = "sold-out";
const SALE_PLENTY: &str = "plenty";
/// Tokens that a warm cache knows.
const WARM_TOKENS: u64 = 256;
/// Tokens that a cold cache has never seen.
const COLD_TOKENS: u64 = 100_000;

#[derive(clap::Args)]
pub struct Options {
    /// Turns that each server takes
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Lines to measure: warm, cold, pipelined, win64, win256, win1024
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Takes this program instead of building one
    #[arg(long)]
    server: Option<PathBuf>,
    /// Already optimised and on core 1
    #[arg(long, hide = true)]
    pinned: bool,
}

/// One line of the table.
struct Line {
    name: &'static str,
    what: &'static str,
    connections: usize,
    pipeline: usize,
    status: u16,
    target: &'static str,
    requests_of: fn(&Tokens, usize) -> Vec<Request>,
    /// Times that the list of requests is sent.
    repeats: usize,
}

const LINES: &[Line] = &[
    Line {
        name: "warm",
        what: "sold out, identity checked, warm token cache",
        connections: 64,
        pipeline: 1,
        status: 409,
        target: "<= 1.15x",
        requests_of: sold_out_warm,
        repeats: 300,
    },
    Line {
        name: "cold",
        what: "sold out, identity checked, 100,000 new tokens",
        connections: 64,
        pipeline: 1,
        status: 409,
        target: "<= 1.2x",
        requests_of: sold_out_cold,
        repeats: 1,
    },
    Line {
        name: "pipelined",
        what: "sold out, warm, 16 pipelined",
        connections: 64,
        pipeline: 16,
        status: 409,
        target: "<= 1.5x",
        requests_of: sold_out_warm,
        repeats: 800,
    },
    Line {
        name: "win64",
        what: "durable reservation, all winners, 64 connections",
        connections: 64,
        pipeline: 1,
        status: 201,
        target: "<= 2x",
        requests_of: winners,
        repeats: 1,
    },
    Line {
        name: "win256",
        what: "durable reservation, all winners, 256 connections",
        connections: 256,
        pipeline: 1,
        status: 201,
        target: "",
        requests_of: winners,
        repeats: 1,
    },
    Line {
        name: "win1024",
        what: "durable reservation, all winners, 1,024 connections",
        connections: 1_024,
        pipeline: 1,
        status: 201,
        target: "<= 1.6x",
        requests_of: winners,
        repeats: 1,
    },
];

/// Who asks: tokens minted by the server's own secret.
struct Tokens {
    minter: crowd::token::Minter,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    if cfg!(debug_assertions) || !options.pinned {
        return run_pinned();
    }
    let binary = match &options.server {
        Some(path) => path.clone(),
        None => shell::release_server()?,
    };
    let dir = tempfile::Builder::new()
        .prefix("stampede-bench-")
        .tempdir()?;
    let mut server_options = ServerOptions::new(&binary, dir.path().join("data"));
    server_options.wrapper = ["taskset", "-c", "0"].map(str::to_owned).into();
    let server = Server::start(&server_options)?;
    let tokens = Tokens {
        minter: server.keys()?.minter(),
    };
    let sold_out_bytes = shell::runtime()?.block_on(prepare(&server, &tokens))?;
    let echo = Echo::start(sold_out_bytes)?;

    println!(
        "| what | echo µs/request | stampede µs/request | ratio | first target | requests/s echo, stampede |"
    );
    println!("|---|---|---|---|---|---|");
    for line in LINES {
        if options.only.is_empty() || options.only.iter().any(|only| only == line.name) {
            measure(line, options.rounds, &server, &echo, &tokens)?;
        }
    }
    println!(
        "\nMedians of {} turns each, least and most in brackets; CPU is user + system of the server's process; \
         server on core 0, generator on core 1.",
        options.rounds
    );
    Ok(())
}

/// Runs this command again, optimised and on core 1.
fn run_pinned() -> anyhow::Result<()> {
    shell::run(shell::cargo().args(["build", "--release", "--package", "xtask"]))?;
    let program = shell::target_dir()?.join("release/xtask");
    shell::run(
        Command::new("taskset")
            .args(["-c", "1"])
            .arg(program)
            .args(std::env::args_os().skip(1))
            .arg("--pinned"),
    )
}

/// Publishes a sale that is sold out for good and one that never will be; gives the length of the first one's no.
async fn prepare(server: &Server, tokens: &Tokens) -> anyhow::Result<usize> {
    let addresses = Addresses {
        public: server.public,
        admin: server.admin,
    };
    let keys = server.keys()?;
    let mut admin = Api::new(addresses, keys.clone());
    admin.publish(&sale(SALE_SOLD_OUT, 1)).await?;
    admin.publish(&sale(SALE_PLENTY, 4_000_000_000)).await?;
    let mut client = Client::new(server.public, Timeouts::default());
    let token = tokens.minter.mint("the-one", now_s() + 3600);
    let lines = [("sku-1".to_owned(), 1)];
    let won = client
        .send(&api::purchase(SALE_SOLD_OUT, &token, "k", &lines))
        .await?;
    let id = won
        .text_field("reservation_id")
        .context("the one unit was not sold")?;
    let paid = client
        .send(&api::confirm(id, &keys.storefront_key, "pay-1"))
        .await?;
    if paid.status != 200 {
        bail!(
            "the one unit was not paid: {}",
            String::from_utf8_lossy(&paid.body)
        );
    }
    let late = tokens.minter.mint("too-late", now_s() + 3600);
    let refused = client
        .send(&api::purchase(SALE_SOLD_OUT, &late, "k", &lines))
        .await?;
    if refused.outcome() != "sold_out" {
        bail!("not sold out: {}", String::from_utf8_lossy(&refused.body));
    }
    Ok(refused.body.len())
}

fn sale(name: &str, stock_units: u32) -> serde_json::Value {
    json!({
        "sale_id": name, "title": name, "currency": "CNY",
        "starts_at": shell::rfc3339_in(-60), "ends_at": shell::rfc3339_in(24 * 3600),
        "payment_window_s": 3600,
        "admission": {"ticket": "off", "buyer_rate_per_s": 10_000_000, "buyer_burst": 10_000_000,
                      "address_rate_per_s": 10_000_000, "address_burst": 10_000_000},
        "items": [{"item": "sku-1", "title": "One", "sale_price_minor": 9_900, "stock_units": stock_units}],
    })
}

fn requests(tokens: &Tokens, sale: &str, crowd: &str, count: u64) -> Vec<Request> {
    let expires_at_s = now_s() + 24 * 3600;
    let lines = [("sku-1".to_owned(), 1)];
    (0..count)
        .map(|number| {
            let buyer = format!("buyer-{crowd}-{number:08}");
            let token = tokens.minter.mint(&buyer, expires_at_s);
            // As long as a UUID, which is what clients send.
            let key = format!("{crowd:0>8}-0000-4000-8000-{number:012}");
            api::purchase(sale, &token, &key, &lines)
        })
        .collect()
}

fn sold_out_warm(tokens: &Tokens, _turn: usize) -> Vec<Request> {
    requests(tokens, SALE_SOLD_OUT, "warm", WARM_TOKENS)
}

fn sold_out_cold(tokens: &Tokens, turn: usize) -> Vec<Request> {
    requests(tokens, SALE_SOLD_OUT, &format!("cold{turn}"), COLD_TOKENS)
}

fn winners(tokens: &Tokens, turn: usize) -> Vec<Request> {
    requests(tokens, SALE_PLENTY, &format!("win{turn}"), COLD_TOKENS)
}

fn measure(
    line: &Line,
    rounds: usize,
    server: &Server,
    echo: &Echo,
    tokens: &Tokens,
) -> anyhow::Result<()> {
    let (mut of_echo, mut of_server) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // New winners and new tokens each time; lines do not share them either.
        let requests = (line.requests_of)(tokens, line.connections * 1000 + round);
        let pass = |address: SocketAddr, status| Pass {
            address,
            requests: &requests,
            repeats: line.repeats,
            connections: line.connections,
            pipeline: line.pipeline,
            status,
        };
        if round == 0 && line.repeats > 1 {
            // Fills caches; not counted.
            generator::run(
                &Pass {
                    repeats: 4,
                    ..pass(server.public, line.status)
                },
                server.pid(),
            )?;
        }
        of_echo.push(generator::run(&pass(echo.address, 200), echo.child.id())?);
        of_server.push(generator::run(
            &pass(server.public, line.status),
            server.pid(),
        )?);
    }
    let ratios = of_echo.iter().zip(&of_server);
    let ratios: Vec<_> = ratios
        .map(|(echo, server)| server.cpu_us() / echo.cpu_us())
        .collect();
    println!(
        "| {} | {} | {} | {} | {} | {:.0}, {:.0} |",
        line.what,
        spread(of_echo.iter().map(Measured::cpu_us)),
        spread(of_server.iter().map(Measured::cpu_us)),
        spread(ratios.into_iter()),
        line.target,
        median(of_echo.iter().map(Measured::rate_per_s)).1,
        median(of_server.iter().map(Measured::rate_per_s)).1,
    );
    Ok(())
}

/// Least, median and most.
fn median(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    (
        at(0),
        at(values.len() / 2),
        at(values.len().saturating_sub(1)),
    )
}

fn spread(values: impl Iterator<Item = f64>) -> String {
    let (least, median, most) = median(values);
    format!("{median:.2} ({least:.2}-{most:.2})")
}

/// The echo as a process of its own. Dropping it ends the process.
struct Echo {
    child: Child,
    address: SocketAddr,
}

impl Echo {
    fn start(answer_bytes: usize) -> anyhow::Result<Self> {
        let mut child = Command::new("taskset")
            .args(["-c", "0"])
            .arg(std::env::current_exe()?)
            .args(["echo", "--answer-bytes", &answer_bytes.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the echo")?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut echo = Self {
            child,
            address: SocketAddr::from(([0; 4], 0)),
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        echo.address = line
            .trim()
            .strip_prefix("echo ready ")
            .and_then(|address| address.parse().ok())
            .with_context(|| format!("the echo said {line:?}"))?;
        // It was pinned by `taskset`, which became it.
        crowd::wait::poll_until(Duration::from_secs(5), Duration::from_millis(5), || {
            std::net::TcpStream::connect(echo.address).ok()
        })
        .context("the echo does not answer")?;
        Ok(echo)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), (1.0, 2.0, 3.0));
        assert_eq!(spread([2.0].into_iter()), "2.00 (2.00-2.00)");
    }
}
