//! The process: command line, configuration, wiring, signals. No business rule lives here.

mod admin_client;
mod audit;
mod backup;
mod campaign;
mod campaigns;
mod cli;
mod config;
mod demo;
mod event_source;
mod keys;
mod logs;
mod notifier;
mod rehearsal;
mod rehearse;
mod report;
mod sale;
mod sale_report;
mod serve;
mod store;
mod verify_draws;
mod waiting;
mod webhooks;

use std::process::ExitCode;

use clap::Parser;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Anything that a command can end with, and the exit code that scripts rely on.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Cannot start as told: configuration, folder, port, lock. Exit 2.
    CannotStart(String),
    /// The books do not balance. Exit 3.
    Books(String),
    /// Anything else. Exit 1.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

fn main() -> ExitCode {
    let result = match cli::Cli::parse().command {
        cli::Command::Serve(args) => serve::run(&args),
        cli::Command::Demo(args) => demo::run(&args),
        cli::Command::Audit(args) => audit::run(&args),
        cli::Command::Backup(args) => backup::run(&args),
        cli::Command::Rehearse(args) => rehearse::run(&args),
        cli::Command::Config(command) => config::run(&command),
        cli::Command::Sale(command) => sale::run(&command),
        cli::Command::Campaign(command) => campaign::run(&command),
        cli::Command::VerifyDraws(args) => verify_draws::run(&args),
        cli::Command::Webhook(command) => webhooks::run(&command),
    };
    let (code, line) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::CannotStart(line)) => (2, line),
        Err(Failure::Books(line)) => (3, line),
        Err(Failure::Other(error)) => (1, format!("{error:#}")),
    };
    eprintln!("stampede: {line}");
    ExitCode::from(code)
}
