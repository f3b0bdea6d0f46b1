//! Those who buy: an open loop. Each purchase is sent at its time whatever became of the others, and is late from then on;
//! only the delay of this process's own timer is left out, and told apart.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use crowd::client::{Client, Request, Timeouts};
use crowd::token::Keys;
use tokio::task::JoinSet;

use super::Purchase;
use crate::bench::requests;

/// Many enough that a free one is always there.
const CONNECTIONS: usize = 256;
/// A late request is given up after this.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// From the first connection to the first purchase.
const BEGINS_AFTER: Duration = Duration::from_millis(200);

/// What is to be sent, and when.
pub(super) struct Orders {
    requests: Vec<Request>,
    interval: Duration,
    status: u16,
}

/// As many as a turn takes.
pub(super) fn orders(
    rate: u32,
    seconds: u32,
    keys: &Keys,
    purchase: Purchase,
    crowd: &str,
) -> Orders {
    let count = u64::from(rate) * u64::from(seconds);
    Orders {
        requests: requests(&keys.minter(), purchase.sale(), crowd, count),
        interval: Duration::from_secs(1) / rate,
        status: purchase.status(),
    }
}

/// What became of it; ascending.
pub(super) struct Bought {
    latencies: Vec<Duration>,
    late: Vec<Duration>,
}

impl Bought {
    /// Latency that this part of them (0-1) did not exceed.
    pub(super) fn ms(&self, part: f64) -> f64 {
        at(&self.latencies, part)
    }

    /// The same of the delay of our own timer.
    pub(super) fn late_ms(&self, part: f64) -> f64 {
        at(&self.late, part)
    }
}

fn at(sorted: &[Duration], part: f64) -> f64 {
    let index = sorted.len().saturating_sub(1) as f64 * part;
    let found = sorted.get(index.round() as usize);
    found.map_or(f64::NAN, |duration| duration.as_secs_f64() * 1e3)
}

/// Sends all of them. To be called inside of a `LocalSet`.
pub(super) async fn buy(server: SocketAddr, orders: Orders) -> anyhow::Result<Bought> {
    let orders = Rc::new(orders);
    let begin = Instant::now() + BEGINS_AFTER;
    let mut buyers = JoinSet::new();
    for first in 0..CONNECTIONS {
        let client = Client::new(server, Timeouts::default());
        buyers.spawn_local(one(client, Rc::clone(&orders), first, begin));
    }
    let (mut latencies, mut late) = (Vec::new(), Vec::new());
    while let Some(joined) = buyers.join_next().await {
        let bought = joined??;
        latencies.extend(bought.latencies);
        late.extend(bought.late);
    }
    latencies.sort_unstable();
    late.sort_unstable();
    Ok(Bought { latencies, late })
}

/// Every so manieth purchase, over one connection.
async fn one(
    mut client: Client,
    orders: Rc<Orders>,
    first: usize,
    begin: Instant,
) -> anyhow::Result<Bought> {
    client.connect().await?;
    let (mut latencies, mut late) = (Vec::new(), Vec::new());
    for index in (first..orders.requests.len()).step_by(CONNECTIONS) {
        let due = begin + orders.interval * u32::try_from(index)?;
        let since = if Instant::now() < due {
            tokio::time::sleep_until(due.into()).await;
            let now = Instant::now();
            late.push(now - due);
            now
        } else {
            // The answer before was late: that counts.
            due
        };
        let answer = client.send(&orders.requests[index]).await?;
        if answer.status != orders.status {
            let outcome = answer.outcome();
            bail!("a purchase was answered with {} {outcome}", answer.status);
        }
        ensure!(since.elapsed() < ANSWER_MAX, "the server does not keep up");
        latencies.push(since.elapsed());
    }
    Ok(Bought { latencies, late })
}
