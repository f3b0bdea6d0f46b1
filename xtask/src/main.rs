//! Every check and every measurement of the project, behind one command: `cargo xtask <command>`.
#![allow(
    clippy::print_stdout,
    reason = "a tool for people: what it found goes to stdout"
)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod bench_front;
mod bench_redis;
mod bench_side;
mod ci;
mod crash;
mod load;
mod setup;
mod shell;
mod tidy;

// The shipped server's, so that those it is measured against have no other.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Checks and measures Stampede. Exits with 0 if all is well, 1 if something was found, 2 if it was asked wrongly.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that has to pass, in order, stopping at the first failure: setup, tidy, fmt, clippy, deny,
    /// tests, loom, release build, demo, crash and load runs
    Ci(ci::Options),
    /// Installs what the other commands need and is missing
    Setup(setup::Options),
    /// Direction of dependencies, lint opt-in, banned words, leftovers, README against ci
    Tidy,
    /// Kills a real server under load, again and again, and holds what it had promised against what is there
    Crash(crash::Options),
    /// An opening spike by k6 against a fresh server, then the books
    Load(load::Options),
    /// The server's CPU per request against a bare hyper echo, over HTTP, on one core
    BenchFront(bench_front::Options),
    /// Purchases through Redis against one script for each of them, and against a bare hyper echo
    BenchRedis(bench_redis::Options),
    /// Purchases at a fixed rate while campaigns are idle, saturated, and before a database that stands still
    BenchSide(bench_side::Options),
    /// The crowd that joins a campaign beside what bench-side measures
    #[command(hide = true)]
    SideCrowd(bench_side::BesideOptions),
    /// The bare hyper echo that is measured against
    #[command(hide = true)]
    Echo(bench::echo::Options),
    /// The server with one script for each purchase that bench-redis measures against
    #[command(hide = true)]
    UsualRedis(bench_redis::usual::Options),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Task::Ci(options) => ci::run(&options),
        Task::Setup(options) => setup::run(&options),
        Task::Tidy => tidy::run(),
        Task::Crash(options) => crash::run(&options),
        Task::Load(options) => load::run(&options),
        Task::BenchFront(options) => bench_front::run(&options),
        Task::BenchRedis(options) => bench_redis::run(&options),
        Task::BenchSide(options) => bench_side::run(&options),
        Task::SideCrowd(options) => bench_side::side_crowd(&options),
        Task::Echo(options) => bench::echo::run(&options),
        Task::UsualRedis(options) => bench_redis::usual::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
