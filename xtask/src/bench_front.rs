//! What a request costs the server, in CPU, against what it costs a bare hyper echo.
//!
//! Both servers take turns on core 0; the generator is pinned to core 1 and sends byte-identical requests over
//! keep-alive connections. The figure is the CPU of the server's process (user and system) per request.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use crowd::api::{self, Addresses, Api};
use crowd::client::{Client, Request, Timeouts};
use crowd::token::{Minter, now_s};
use crowd::{Server, ServerOptions};

use crate::bench::generator::{self, Measured, Pass};
use crate::bench::{self, ITEM, Peer, median, requests, spread};
use crate::shell;

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
    requests_of: fn(&Minter, usize) -> Vec<Request>,
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

pub fn run(options: &Options) -> anyhow::Result<()> {
    if cfg!(debug_assertions) || !options.pinned {
        return bench::run_pinned();
    }
    bench::raise_file_limit()?;
    let binary = match &options.server {
        Some(path) => path.clone(),
        None => shell::release_server()?,
    };
    let dir = tempfile::Builder::new()
        .prefix("stampede-bench-")
        .tempdir()?;
    let mut server_options = ServerOptions::new(&binary, dir.path().join("data"));
    server_options.wrapper = bench::on_server_core();
    let server = Server::start(&server_options)?;
    let minter = server.keys()?.minter();
    let sold_out_bytes = shell::runtime()?.block_on(prepare(&server, &minter))?;
    let echo = Peer::start(&["echo", "--answer-bytes", &sold_out_bytes.to_string()])?;

    println!(
        "| what | echo µs/request | stampede µs/request | ratio | first target | requests/s echo, stampede |"
    );
    println!("|---|---|---|---|---|---|");
    for line in LINES {
        if options.only.is_empty() || options.only.iter().any(|only| only == line.name) {
            measure(line, options.rounds, &server, &echo, &minter)?;
        }
    }
    println!(
        "\nMedians of {} turns each, least and most in brackets; CPU is user + system of the server's process; \
         server on core 0, generator on core 1.",
        options.rounds
    );
    Ok(())
}

/// Publishes a sale that is sold out for good and one that never will be; gives the length of the first one's no.
async fn prepare(server: &Server, minter: &Minter) -> anyhow::Result<usize> {
    let addresses = Addresses {
        public: server.public,
        admin: server.admin,
    };
    let keys = server.keys()?;
    let mut admin = Api::new(addresses, keys.clone());
    admin.publish(&bench::sale(SALE_SOLD_OUT, 1, None)).await?;
    admin
        .publish(&bench::sale(SALE_PLENTY, 4_000_000_000, None))
        .await?;
    let mut client = Client::new(server.public, Timeouts::default());
    let token = minter.mint("the-one", now_s() + 3600);
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
    if paid.status != 200 {
        bail!(
            "the one unit was not paid: {}",
            String::from_utf8_lossy(&paid.body)
        );
    }
    let late = minter.mint("too-late", now_s() + 3600);
    let refused = client
        .send(&api::purchase(SALE_SOLD_OUT, &late, "k", &lines))
        .await?;
    if refused.outcome() != "sold_out" {
        bail!("not sold out: {}", String::from_utf8_lossy(&refused.body));
    }
    Ok(refused.body.len())
}

fn sold_out_warm(minter: &Minter, _turn: usize) -> Vec<Request> {
    requests(minter, SALE_SOLD_OUT, "warm", WARM_TOKENS)
}

fn sold_out_cold(minter: &Minter, turn: usize) -> Vec<Request> {
    requests(minter, SALE_SOLD_OUT, &format!("cold{turn}"), COLD_TOKENS)
}

fn winners(minter: &Minter, turn: usize) -> Vec<Request> {
    requests(minter, SALE_PLENTY, &format!("win{turn}"), COLD_TOKENS)
}

fn measure(
    line: &Line,
    rounds: usize,
    server: &Server,
    echo: &Peer,
    minter: &Minter,
) -> anyhow::Result<()> {
    let (mut of_echo, mut of_server) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // New winners and new tokens each time; lines do not share them either.
        let requests = (line.requests_of)(minter, line.connections * 1000 + round);
        let pass = |address: SocketAddr, status| Pass {
            address,
            requests: &requests,
            repeats: line.repeats,
            connections: line.connections,
            pipeline: line.pipeline,
            status,
            or_status: None,
        };
        if round == 0 && line.repeats > 1 {
            // Fills caches; not counted.
            generator::run(
                &Pass {
                    repeats: 4,
                    ..pass(server.public, line.status)
                },
                &[server.pid()],
            )?;
        }
        of_echo.push(generator::run(&pass(echo.address, 200), &[echo.pid()])?);
        of_server.push(generator::run(
            &pass(server.public, line.status),
            &[server.pid()],
        )?);
    }
    let ratios = of_echo.iter().zip(&of_server);
    let ratios: Vec<_> = ratios
        .map(|(echo, server)| server.cpu_us(0) / echo.cpu_us(0))
        .collect();
    println!(
        "| {} | {} | {} | {} | {} | {:.0}, {:.0} |",
        line.what,
        spread(of_echo.iter().map(|turn| turn.cpu_us(0)), 2),
        spread(of_server.iter().map(|turn| turn.cpu_us(0)), 2),
        spread(ratios.into_iter(), 2),
        line.target,
        median(of_echo.iter().map(Measured::rate_per_s)).1,
        median(of_server.iter().map(Measured::rate_per_s)).1,
    );
    Ok(())
}
