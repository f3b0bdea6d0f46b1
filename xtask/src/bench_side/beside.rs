//! The crowd that joins a campaign, in a process of its own that gets what the buyers leave of their core.
//!
//! A closed loop: each connection joins as one new buyer after the other. Who is told to come again later does so.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::ops::Sub;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use crowd::client::{Client, Request, Timeouts};
use tokio::task::{JoinSet, LocalSet};

use super::CAMPAIGN;
use crate::shell;

/// Who asks campaigns may have to wait.
pub(super) const PATIENT: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    answer: Duration::from_secs(60),
};
/// Where an answer does not say when to come again.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// What the process is told.
#[derive(clap::Args)]
pub struct Options {
    #[arg(long)]
    public: SocketAddr,
    #[arg(long)]
    key: String,
    #[arg(long)]
    calls: usize,
    /// Part of the buyers' names
    #[arg(long)]
    crowd: String,
}

/// Answers so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) done: u64,
    /// Told to come again.
    pub(super) refused: u64,
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            done: self.done - before.done,
            refused: self.refused - before.refused,
        }
    }
}

/// The process. Dropping it ends it.
pub(super) struct Beside {
    child: Child,
    ask: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Beside {
    pub(super) fn start(
        public: SocketAddr,
        key: &str,
        calls: usize,
        crowd: &str,
    ) -> anyhow::Result<Self> {
        let mut child = Command::new("chrt")
            .args(["--idle", "0"])
            .arg(std::env::current_exe()?)
            .args(["side-crowd", "--public", &public.to_string(), "--key", key])
            .args(["--calls", &calls.to_string(), "--crowd", crowd])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the crowd that joins a campaign")?;
        let ask = child.stdin.take().context("no stdin")?;
        let told = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Self { child, ask, told })
    }

    /// How it stands.
    pub(super) fn counts(&mut self) -> anyhow::Result<Counts> {
        writeln!(self.ask)?;
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || {
            numbers
                .next()
                .context("the crowd is gone")?
                .context("a number")
        };
        let (done, refused, wrong): (u64, u64, u64) = (next()?, next()?, next()?);
        ensure!(
            wrong == 0,
            "{wrong} who wanted to join were answered in an unknown way"
        );
        Ok(Counts { done, refused })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts something that, with all that it starts, runs only when nobody else wants the core.
pub(super) fn with_what_is_left<T: Send>(
    start: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let started = scope.spawn(|| {
            let thread = nix::unistd::gettid();
            let mut chrt = Command::new("chrt");
            shell::read(chrt.args(["--idle", "--pid", "0", &thread.to_string()]))?;
            start()
        });
        started
            .join()
            .map_err(|_| anyhow::anyhow!("a panic while starting"))?
    })
}

/// One buyer joins.
pub(super) fn join(key: &str, buyer: &str) -> Request {
    Request::post(&format!("/v1/campaigns/{CAMPAIGN}/participations"))
        .bearer(key)
        .header("X-Buyer-Id", buyer)
        .key(&format!("join-{buyer}"))
        .json("")
}

#[derive(Default)]
struct Counters {
    done: AtomicU64,
    refused: AtomicU64,
    wrong: AtomicU64,
}

/// The process itself: tells how it stands for each line on stdin, and ends with it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    crate::bench::raise_file_limit()?;
    let counters = Arc::new(Counters::default());
    let telling = Arc::clone(&counters);
    std::thread::spawn(move || {
        for _ in std::io::stdin().lines().map_while(Result::ok) {
            // Relaxed, all of them: counts by themselves.
            let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let (done, refused) = (of(&telling.done), of(&telling.refused));
            println!("{done} {refused} {}", of(&telling.wrong));
        }
        std::process::exit(0);
    });
    let local = LocalSet::new();
    local.block_on(&shell::runtime()?, async {
        let mut calls = JoinSet::new();
        for number in 0..options.calls {
            let client = Client::new(options.public, PATIENT);
            let buyers = format!("{}-{number}", options.crowd);
            let counters = Arc::clone(&counters);
            calls.spawn_local(one(client, options.key.clone(), buyers, counters));
        }
        calls.join_all().await;
    });
    Ok(())
}

async fn one(mut client: Client, key: String, buyers: String, counters: Arc<Counters>) {
    for number in 0_u64.. {
        let request = join(&key, &format!("{buyers}-{number}"));
        let (counter, rest) = match client.send(&request).await {
            Ok(answer) if answer.status == 201 => (&counters.done, None),
            Ok(answer) if matches!(answer.status, 429 | 503 | 504) => {
                let rest = answer.retry_after().unwrap_or(COME_AGAIN);
                (&counters.refused, Some(rest))
            }
            Ok(answer) => {
                let told = String::from_utf8_lossy(&answer.body);
                eprintln!("joining was answered with {} {told}", answer.status);
                (&counters.wrong, Some(COME_AGAIN))
            }
            Err(error) => {
                eprintln!("joining: {error}");
                (&counters.wrong, Some(COME_AGAIN))
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(rest) = rest {
            tokio::time::sleep(rest).await;
        }
    }
}
