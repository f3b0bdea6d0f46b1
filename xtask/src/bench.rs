//! What the measurements over HTTP share: cores, servers as processes of their own, requests and figures.
//!
//! Servers are pinned to core 0 and take turns; this process, which sends the load, is pinned to core 1.

pub mod echo;
pub mod generator;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use crowd::api;
use crowd::client::Request;
use crowd::token::{Minter, now_s};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::shell;

/// What every sale here sells.
pub const ITEM: &str = "sku-1";
/// Price of one unit.
pub const PRICE_MINOR: i64 = 9_900;
/// How long a reservation waits for its payment.
pub const PAYMENT_WINDOW: Duration = Duration::from_secs(3_600);

/// Words before a server's program.
pub fn on_server_core() -> Vec<String> {
    ["taskset", "-c", "0"].map(str::to_owned).into()
}

/// Runs this command again, optimised and on core 1; it is then told `--pinned`.
pub fn run_pinned() -> anyhow::Result<()> {
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

/// As many open files as the machine allows: connections are files.
pub fn raise_file_limit() -> anyhow::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("reading the limit of files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising the limit of files")
}

/// A server that is another face of this program, on core 0. Dropping it ends the process.
pub struct Peer {
    child: Child,
    pub address: SocketAddr,
}

impl Peer {
    /// Starts `xtask <words>` and waits for its line `ready <address>`.
    pub fn start(words: &[&str]) -> anyhow::Result<Self> {
        let pinned = on_server_core();
        let mut child = Command::new(&pinned[0])
            .args(&pinned[1..])
            .arg(std::env::current_exe()?)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {words:?}"))?;
        let stdout = child.stdout.take().context("no stdout")?;
        // From here on dropping `peer` ends the process.
        let mut peer = Self {
            child,
            address: SocketAddr::from(([0; 4], 0)),
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        peer.address = line
            .trim()
            .strip_prefix("ready ")
            .and_then(|address| address.parse().ok())
            .with_context(|| format!("{words:?} said {line:?}"))?;
        Ok(peer)
    }

    /// Its process id: it was started by `taskset`, which became it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A sale of one item that is open at once and where nobody is turned away for asking too often.
pub fn sale(name: &str, stock_units: u32, units_per_buyer_max: Option<u32>) -> serde_json::Value {
    json!({
        "sale_id": name, "title": name, "currency": "CNY",
        "starts_at": shell::rfc3339_in(-60), "ends_at": shell::rfc3339_in(24 * 3600),
        "payment_window_s": PAYMENT_WINDOW.as_secs(),
        "admission": {"ticket": "off", "buyer_rate_per_s": 10_000_000, "buyer_burst": 10_000_000,
                      "address_rate_per_s": 10_000_000, "address_burst": 10_000_000},
        "items": [{"item": ITEM, "title": "One", "sale_price_minor": PRICE_MINOR, "stock_units": stock_units,
                   "units_per_buyer_max": units_per_buyer_max}],
    })
}

/// One unit for each of so many buyers of a crowd, each with a token and a key of their own.
pub fn requests(minter: &Minter, sale: &str, crowd: &str, count: u64) -> Vec<Request> {
    let expires_at_s = now_s() + 24 * 3600;
    let lines = [(ITEM.to_owned(), 1)];
    (0..count)
        .map(|number| {
            let buyer = format!("buyer-{crowd}-{number:08}");
            let token = minter.mint(&buyer, expires_at_s);
            // As long as a UUID, which is what clients send.
            let key = format!("{crowd:0>8}-0000-4000-8000-{number:012}");
            api::purchase(sale, &token, &key, &lines)
        })
        .collect()
}

/// Least, median and most.
pub fn median(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    (
        at(0),
        at(values.len() / 2),
        at(values.len().saturating_sub(1)),
    )
}

/// The median, and in brackets least and most.
pub fn spread(values: impl Iterator<Item = f64>, decimals: usize) -> String {
    let (least, median, most) = median(values);
    format!("{median:.decimals$} ({least:.decimals$}-{most:.decimals$})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), (1.0, 2.0, 3.0));
        assert_eq!(spread([2.0].into_iter(), 2), "2.00 (2.00-2.00)");
        assert_eq!(spread([1e5, 3e5].into_iter(), 0), "300000 (100000-300000)");
    }
}
