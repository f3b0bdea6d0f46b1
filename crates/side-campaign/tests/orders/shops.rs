//! A shop on an empty database: an engine that tells what the test says, and somebody who writes down every fact.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use flash_types::side::{BoxFuture, DeskEvent, DeskSale, SaleDesk};
use flash_types::{Refusal, SaleId, Timestamp};
use parking_lot::Mutex;
use side_books::SideError;
use side_books::seal::Sealer;
use side_books::sql::{Database, Get as _, Migration, Reads as _, SqlError, SqlOptions, Tx, query};
use side_campaign::fact::{Fact, React};
use side_campaign::kind::Kinds;
use side_campaign::notices::{Notifier, Outgoing};
use side_campaign::shop::Shop;

/// Noon.
pub const NOW: Timestamp = Timestamp(1_794_398_400_000);

const TOLD: Migration = Migration {
    name: "test-told",
    sql: "CREATE TABLE told (id SERIAL_KEY, fact TEXT NOT NULL, amount BIGINT NOT NULL);\n",
};

/// An engine that is a list of events.
#[derive(Default)]
pub struct ListDesk {
    pub events: Mutex<Vec<DeskEvent>>,
    /// Most events of an answer, whatever was asked for.
    pub page_max: AtomicI64,
}

impl SaleDesk for ListDesk {
    fn events<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<DeskEvent>, Refusal>> {
        let page_max = usize::try_from(self.page_max.load(Ordering::Relaxed)).unwrap();
        let limit = if page_max == 0 {
            limit
        } else {
            limit.min(page_max)
        };
        let events = self.events.lock();
        let from = match after {
            None => Some(0),
            Some(id) => events
                .iter()
                .position(|event| event.id == id)
                .map(|at| at + 1),
        };
        let page = from.map(|from| events[from..].iter().take(limit).cloned().collect());
        Box::pin(async move { page.ok_or(Refusal::NotFound) })
    }

    fn sale(&self, _sale_id: &SaleId) -> Option<DeskSale> {
        None
    }
}

/// Writes every fact down, in the transaction that tells it; may be made to fail.
#[derive(Default)]
pub struct Scribe {
    /// Facts until one fails, then no more do; 0: none does.
    pub fails_in: AtomicI64,
}

impl React for Scribe {
    fn react<'a>(
        &'a self,
        tx: &'a mut Tx,
        fact: &'a Fact,
        _now: Timestamp,
    ) -> BoxFuture<'a, Result<(), SideError>> {
        Box::pin(async move {
            let (fact, amount) = match fact {
                Fact::Paid(order) => (format!("paid {}", order.order_id), order.paid_minor),
                Fact::Received(order) => (format!("received {}", order.order_id), 0),
                Fact::Refunded {
                    order,
                    amount_minor,
                    ..
                } => (format!("refunded {}", order.order_id), *amount_minor),
                Fact::Reserved { reservation_id, .. } => (format!("reserved {reservation_id}"), 0),
                Fact::Closed { reservation_id } => (format!("closed {reservation_id}"), 0),
            };
            let insert = query("INSERT INTO told (fact, amount) VALUES ($1, $2)");
            tx.execute(insert.bind(fact).bind(amount)).await?;
            if self.fails_in.fetch_sub(1, Ordering::Relaxed) == 1 {
                return Err(SqlError::Conflict.into());
            }
            Ok(())
        })
    }
}

struct Nobody;

impl Notifier for Nobody {
    fn notify<'a>(&'a self, _notice: &'a Outgoing) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

pub struct TestShop {
    pub shop: Arc<Shop>,
    pub desk: Arc<ListDesk>,
    pub scribe: Arc<Scribe>,
    pub url: String,
}

impl TestShop {
    pub async fn open(url: &str) -> Self {
        Self::with(url, SqlOptions::default()).await
    }

    /// Waits for nothing long.
    pub async fn hasty(url: &str) -> Self {
        let short = Duration::from_millis(300);
        let options = SqlOptions {
            acquire_timeout: short,
            transaction_timeout: short,
            ..SqlOptions::default()
        };
        Self::with(url, options).await
    }

    async fn with(url: &str, options: SqlOptions) -> Self {
        let migrations = [side_books::MIGRATIONS, side_campaign::MIGRATIONS, &[TOLD]].concat();
        // Made with time to spare, whatever the options say.
        let parsed = url.parse().unwrap();
        let made = Database::open(&parsed, SqlOptions::default(), &migrations);
        made.await.unwrap().close().await;
        let database = Database::open(&parsed, options, &migrations).await.unwrap();
        let (desk, scribe) = (Arc::<ListDesk>::default(), Arc::<Scribe>::default());
        let shop = Shop {
            database,
            sealer: Sealer::new(&[7; 32]),
            desk: desk.clone(),
            kinds: Kinds::default(),
            reactors: vec![scribe.clone()],
            sale_reminders: side_campaign::definition::Reminders {
                before_s: vec![3_600, 600],
                second_after_s: None,
            },
            verdict_listeners: Vec::new(),
            history: Vec::new(),
            notifier: Arc::new(Nobody),
            zone: jiff::tz::TimeZone::UTC,
        };
        Self {
            shop: Arc::new(shop),
            desk,
            scribe,
            url: url.to_owned(),
        }
    }

    /// Every fact that was told: its words, its amount, in order.
    pub async fn told(&self) -> Vec<(String, i64)> {
        let mut reader = self.shop.database.read().await.unwrap();
        let rows = reader.rows(query("SELECT fact, amount FROM told ORDER BY id"));
        let rows = rows.await.unwrap();
        let told = rows
            .iter()
            .map(|row| (row.text("fact").unwrap(), row.int("amount").unwrap()));
        told.collect()
    }

    /// The one number of a question.
    pub async fn number(&self, sql: &'static str) -> i64 {
        let mut reader = self.shop.database.read().await.unwrap();
        let row = reader.row(query(sql)).await.unwrap().unwrap();
        row.int("n").unwrap()
    }

    /// What must hold of any books of orders.
    pub async fn audited(&self) {
        let wrong = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM shop_order o WHERE refunded_minor > paid_minor \
            OR refunded_minor <> COALESCE((SELECT CAST(SUM(amount_minor) AS BIGINT) FROM order_refund r WHERE r.order_id = o.id), 0)";
        assert_eq!(self.number(wrong).await, 0, "refunds add up: {}", self.url);
        let firsts = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM (SELECT buyer FROM shop_order GROUP BY buyer \
            HAVING CAST(SUM(is_first) AS BIGINT) <> 1) AS b";
        assert_eq!(
            self.number(firsts).await,
            0,
            "one first order each: {}",
            self.url
        );
        let paid = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM shop_order";
        let told = self.told().await;
        let told_paid = told.iter().filter(|(fact, _)| fact.starts_with("paid "));
        assert_eq!(
            self.number(paid).await,
            i64::try_from(told_paid.count()).unwrap()
        );
        let refunded =
            "SELECT CAST(COALESCE(SUM(refunded_minor), 0) AS BIGINT) AS n FROM shop_order";
        let told_refunded = told
            .iter()
            .filter(|(fact, _)| fact.starts_with("refunded "));
        let told_refunded: i64 = told_refunded.map(|(_, amount)| amount).sum();
        assert_eq!(self.number(refunded).await, told_refunded);
    }
}

/// Numbers that look random and are the same in every run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// 0 to one less than `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }
}
