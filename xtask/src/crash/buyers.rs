//! The crowd that is there when the server dies: buys, asks again with the same key, pays, gives up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use crowd::api;
use crowd::client::{Client, Timeouts};
use crowd::log::{Answer, Attempt, ClientLog, Line};
use crowd::random::Random;
use crowd::token::{Minter, now_s};
use crowd::wait;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The sale of a crash run.
pub const SALE: &str = "crash";
/// People; few enough that many come back and meet their limit.
const PEOPLE: u64 = 4_000;

/// One item of the sale.
pub struct Item {
    pub name: &'static str,
    pub stock_units: u32,
    pub units_per_buyer_max: Option<u32>,
}

/// One that never runs out, one with a limit, and one that is soon sold out.
pub const ITEMS: &[Item] = &[
    Item {
        name: "plenty",
        stock_units: 10_000_000,
        units_per_buyer_max: None,
    },
    Item {
        name: "limited",
        stock_units: 1_000_000,
        units_per_buyer_max: Some(2),
    },
    Item {
        name: "scarce",
        stock_units: 500,
        units_per_buyer_max: Some(1),
    },
];

/// What one buyer may have, by sale and item.
pub fn limits() -> impl Iterator<Item = ((String, String), u32)> {
    ITEMS
        .iter()
        .filter_map(|item| Some(((SALE.into(), item.name.into()), item.units_per_buyer_max?)))
}

/// A crowd at work.
pub struct Crowd {
    /// Purchases sent and not answered.
    pub in_flight: Arc<AtomicUsize>,
    /// Purchases answered.
    pub answered: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    rush: Arc<Rush>,
    connections: JoinSet<()>,
}

/// A line at a door: buyers hold back until all are there, and then all press the button in one instant.
#[derive(Default)]
struct Rush {
    is_called: AtomicBool,
    waiting: AtomicUsize,
    door: Notify,
}

impl Rush {
    /// Relaxed throughout: all of it runs on one thread.
    async fn wait_if_called(&self) {
        if self.is_called.load(Ordering::Relaxed) {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            self.door.notified().await;
        }
    }
}

impl Crowd {
    /// Lets a crowd loose on a server.
    pub fn start(
        address: SocketAddr,
        keys: &crowd::Keys,
        log: &Arc<ClientLog>,
        connections: usize,
        seed: u64,
    ) -> Self {
        let in_flight = Arc::new(AtomicUsize::new(0));
        let answered = Arc::new(AtomicUsize::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let rush = Arc::new(Rush::default());
        let mut tasks = JoinSet::new();
        for index in 0..connections as u64 {
            let connection = Connection {
                client: Client::new(address, Timeouts::default()),
                minter: keys.minter(),
                storefront_key: keys.storefront_key.clone(),
                log: Arc::clone(log),
                in_flight: Arc::clone(&in_flight),
                answered: Arc::clone(&answered),
                is_over: Arc::clone(&is_over),
                rush: Arc::clone(&rush),
                random: Random::of(seed, index),
                name: format!("{seed:x}-{index}"),
                purchases: 0,
            };
            tasks.spawn(connection.run());
        }
        Self {
            in_flight,
            answered,
            is_over,
            rush,
            connections: tasks,
        }
    }

    /// Lets every buyer finish what is under way, and then all buy at once. When this returns, they are let go.
    pub async fn rush(&self) -> anyhow::Result<()> {
        self.rush.is_called.store(true, Ordering::Relaxed);
        let all = self.connections.len();
        wait::poll_until_async(
            Duration::from_secs(10),
            Duration::from_millis(1),
            async || (self.rush.waiting.load(Ordering::Relaxed) == all).then_some(()),
        )
        .await
        .context("buyers that never came to the door")?;
        self.rush.is_called.store(false, Ordering::Relaxed);
        self.rush.waiting.store(0, Ordering::Relaxed);
        self.rush.door.notify_waiters();
        Ok(())
    }

    /// Waits until every connection has seen the end of the server.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(joined) = self.connections.join_next().await {
            joined?;
        }
        Ok(())
    }
}

struct Connection {
    client: Client,
    minter: Minter,
    storefront_key: String,
    log: Arc<ClientLog>,
    in_flight: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    rush: Arc<Rush>,
    random: Random,
    name: String,
    purchases: u64,
}

impl Connection {
    async fn run(mut self) {
        while !self.is_over.load(Ordering::Relaxed) {
            self.rush.wait_if_called().await;
            self.purchases += 1;
            let buyer = format!("buyer-{}", self.random.below(PEOPLE));
            let token = self.minter.mint(&buyer, now_s() + 3600);
            let key = format!("{}-{}", self.name, self.purchases);
            let lines = self.choose();
            let mut answer = self.buy(&buyer, &token, &key, &lines).await;
            if self.random.percent(15) && !self.is_over.load(Ordering::Relaxed) {
                answer = self.buy(&buyer, &token, &key, &lines).await;
            }
            let Answer::Yes { reservation, .. } = answer else {
                continue;
            };
            match self.random.below(100) {
                0..25 => self.pay(reservation).await,
                25..35 => self.give_up(reservation, &token).await,
                _ => {}
            }
        }
    }

    fn choose(&mut self) -> Vec<Line> {
        let line = |item: &str, units| (item.to_owned(), units);
        match self.random.below(100) {
            0..70 => vec![line("plenty", 1 + self.random.below(3) as u32)],
            70..85 => vec![line("limited", 1)],
            85..92 => vec![line("limited", 1), line("plenty", 2)],
            _ => vec![line("scarce", 1)],
        }
    }

    async fn buy(&mut self, buyer: &str, token: &str, key: &str, lines: &[Line]) -> Answer {
        let request = api::purchase(SALE, token, key, lines);
        // Connecting is no purchase in flight.
        if self.client.connect().await.is_err() {
            return Answer::NotSent;
        }
        let number = self.log.sent(Attempt::Purchase {
            sale: SALE.into(),
            buyer: buyer.into(),
            key: key.into(),
            lines: lines.to_vec(),
        });
        // Relaxed: counts for the killer to look at, nothing hangs on their order.
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let answer = Answer::of(&self.client.send(&request).await);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.log.answered(number, answer.clone());
        answer
    }

    async fn pay(&mut self, reservation: String) {
        let payment_ref = format!("pay-{reservation}");
        let request = api::confirm(&reservation, &self.storefront_key, &payment_ref);
        let number = self.log.sent(Attempt::Confirm {
            reservation,
            payment_ref,
        });
        let answer = Answer::of(&self.client.send(&request).await);
        self.log.answered(number, answer);
    }

    async fn give_up(&mut self, reservation: String, token: &str) {
        let request = api::cancel(&reservation, token);
        let number = self.log.sent(Attempt::Cancel { reservation });
        let answer = Answer::of(&self.client.send(&request).await);
        self.log.answered(number, answer);
    }
}
