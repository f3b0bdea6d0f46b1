//! A shop with a way out that can be told to fail, and a plan that can be changed.

use std::collections::HashMap;
use std::sync::Arc;

use flash_types::side::{
    BoxFuture, DeskEvent, DeskSale, SaleDesk, SideAnswer, SideCaller, SideProblem, SideRequest,
    SideService as _,
};
use flash_types::{BuyerId, IdempotencyKey, Refusal, SaleId, SaleState, Timestamp};
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use serde_json::Value;
use side_books::SideError;
use side_books::seal::Sealer;
use side_books::sql::{Database, DatabaseKind, Get as _, Reads as _, SqlOptions, Tx, query};
use side_books::step::Step;
use side_campaign::kind::Kinds;
use side_campaign::notices::{
    Calendar, CareStep, Deliver, Notice, NoticeService, Notifier, Outgoing, Planned, Recipient,
    RemindStep, ShopCalendar, Subject, send,
};
use side_campaign::shop::Shop;

pub const T0: Timestamp = Timestamp(1_800_000_000_000);

pub fn after(seconds: i64) -> Timestamp {
    Timestamp(T0.0 + seconds * 1_000)
}

pub fn buyer(text: &str) -> BuyerId {
    BuyerId::parse(text).unwrap()
}

/// What the way out does with a notice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Take,
    Refuse,
    /// Takes it and never says so.
    Silence,
}

pub struct Channel {
    pub taken: Mutex<Vec<Outgoing>>,
    pub tries: Mutex<u32>,
    pub mode: Mutex<Mode>,
    pub took: tokio::sync::Notify,
}

impl Notifier for Channel {
    fn notify<'a>(&'a self, notice: &'a Outgoing) -> BoxFuture<'a, Result<(), String>> {
        let mode = *self.mode.lock();
        Box::pin(async move {
            *self.tries.lock() += 1;
            if mode == Mode::Refuse {
                return Err("told to refuse".to_owned());
            }
            // Lets others run between the look and the take.
            tokio::task::yield_now().await;
            self.taken.lock().push(notice.clone());
            self.took.notify_one();
            if mode == Mode::Silence {
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    }
}

#[derive(Default)]
pub struct Desk(pub Mutex<HashMap<String, DeskSale>>);

impl Desk {
    pub fn plan(&self, id: &str, starts_at: Timestamp, state: SaleState) {
        let sale = DeskSale {
            sale_id: SaleId::parse(id).unwrap(),
            title: format!("Sale {id}"),
            starts_at,
            ends_at: Timestamp(starts_at.0 + 3_600_000),
            currency: flash_types::Currency::parse("CNY").unwrap(),
            state,
        };
        self.0.lock().insert(id.to_owned(), sale);
    }
}

impl SaleDesk for Desk {
    fn events<'a>(
        &'a self,
        _after: Option<&'a str>,
        _limit: usize,
    ) -> BoxFuture<'a, Result<Vec<DeskEvent>, Refusal>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn sale(&self, sale_id: &SaleId) -> Option<DeskSale> {
        self.0.lock().get(sale_id.as_str()).cloned()
    }
}

/// Sales from the desk, campaigns as the test says.
pub struct Plans {
    pub campaigns: Mutex<HashMap<String, Planned>>,
    sales: ShopCalendar,
}

impl Calendar for Plans {
    fn planned<'a>(
        &'a self,
        tx: &'a mut Tx,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Option<Planned>, SideError>> {
        match subject {
            Subject::Sale(_) => self.sales.planned(tx, subject),
            Subject::Campaign(id) => {
                let planned = self.campaigns.lock().get(id).cloned();
                Box::pin(async move { Ok(planned) })
            }
        }
    }
}

pub struct World {
    pub url: String,
    pub shop: Arc<Shop>,
    pub channel: Arc<Channel>,
    pub desk: Arc<Desk>,
    pub plans: Arc<Plans>,
    pub service: Arc<NoticeService>,
}

impl World {
    pub async fn open(url: &str) -> Self {
        let migrations = [side_books::MIGRATIONS, side_campaign::MIGRATIONS].concat();
        let options = SqlOptions::default();
        let parsed = url.parse().unwrap();
        let database = Database::open(&parsed, options, &migrations);
        let channel = Arc::new(Channel {
            taken: Mutex::default(),
            tries: Mutex::default(),
            mode: Mutex::new(Mode::Take),
            took: tokio::sync::Notify::new(),
        });
        let desk = Arc::new(Desk::default());
        let shop = Arc::new(Shop {
            database: database.await.unwrap(),
            sealer: Sealer::new(&[7; 32]),
            desk: desk.clone(),
            kinds: Kinds::default(),
            reactors: vec![],
            sale_reminders: side_campaign::definition::Reminders {
                before_s: vec![3_600, 600],
                second_after_s: None,
            },
            verdict_listeners: Vec::new(),
            history: Vec::new(),
            notifier: channel.clone(),
            zone: TimeZone::UTC,
        });
        let plans = Arc::new(Plans {
            campaigns: Mutex::default(),
            sales: ShopCalendar::new(Arc::clone(&shop)),
        });
        let service = Arc::new(NoticeService::new(Arc::clone(&shop), plans.clone()));
        Self {
            url: url.to_owned(),
            shop,
            channel,
            desk,
            plans,
            service,
        }
    }

    pub fn urgent(&self) -> Deliver {
        Deliver::urgent(Arc::clone(&self.shop), self.plans.clone())
    }

    pub fn other(&self) -> Deliver {
        Deliver::other(Arc::clone(&self.shop), self.plans.clone())
    }

    /// Lets everything that is due happen.
    pub async fn run(&self, now: Timestamp) {
        let remind = RemindStep::new(Arc::clone(&self.shop), self.plans.clone());
        let care = CareStep::new(Arc::clone(&self.shop));
        let steps: [&dyn Step; 4] = [&self.urgent(), &remind, &care, &self.other()];
        for step in steps {
            let mut count = 0;
            while step.step(now).await.unwrap() {
                count += 1;
                assert!(count < 1_000, "{} does not come to an end", step.name());
            }
        }
    }

    /// What was taken since the last look, as `kind to`, sorted.
    pub fn taken(&self) -> Vec<String> {
        let taken = std::mem::take(&mut *self.channel.taken.lock());
        let mut taken: Vec<_> = taken
            .iter()
            .map(|notice| format!("{} {}", notice.kind, notice.to))
            .collect();
        taken.sort_unstable();
        taken
    }

    pub async fn send(&self, notice: &Notice<'_>, now: Timestamp) {
        let mut tx = self.shop.database.begin().await.unwrap();
        send(&mut tx, &self.shop, notice, now).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// A number that a statement gives as `n`.
    pub async fn number(&self, sql: &'static str) -> i64 {
        let mut reader = self.shop.database.read().await.unwrap();
        reader
            .row(query(sql))
            .await
            .unwrap()
            .unwrap()
            .int("n")
            .unwrap()
    }

    pub async fn execute(&self, sql: String) {
        let mut tx = self.shop.database.begin().await.unwrap();
        tx.execute(query(sql.leak())).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn call(
        &self,
        method: &str,
        path: &str,
        name: &str,
        caller: SideCaller,
        body: &Value,
        now: Timestamp,
    ) -> Result<SideAnswer, SideProblem> {
        let mut endpoints = self.service.endpoints().iter();
        let endpoint = endpoints.position(|it| it.method == method && it.path == path);
        let request = SideRequest {
            endpoint: endpoint.unwrap(),
            path: [name.to_owned(), String::new(), String::new()],
            query: vec![],
            body: body.to_string().into_bytes(),
            content_type: None,
            key: Some(IdempotencyKey::parse("k1").unwrap()),
            caller,
            address: Some("192.0.2.1".parse().unwrap()),
            device: None,
            now,
        };
        loop {
            let answer = self.service.answer(request.clone()).await;
            // As the dispatcher does: what was in the way is tried again.
            match answer {
                Err(problem) if problem.status == 503 => tokio::task::yield_now().await,
                answer => return answer,
            }
        }
    }

    /// Everything that the database holds, as text.
    pub async fn everything(&self) -> String {
        match self.shop.database.kind() {
            DatabaseKind::Sqlite => {
                let path = self.url.strip_prefix("sqlite:").unwrap();
                let mut all = Vec::new();
                for suffix in ["", "-wal"] {
                    all.extend(std::fs::read(format!("{path}{suffix}")).unwrap());
                }
                String::from_utf8_lossy(&all).into_owned()
            }
            DatabaseKind::Postgres => {
                let mut reader = self.shop.database.read().await.unwrap();
                let tables = query(
                    "SELECT CAST(table_name AS TEXT) AS name FROM information_schema.tables WHERE table_schema = 'public'",
                );
                let mut all = String::new();
                for table in reader.rows(tables).await.unwrap() {
                    let table = table.text("name").unwrap();
                    let sql = format!("SELECT CAST(t.* AS TEXT) AS whole FROM \"{table}\" t");
                    for row in reader.rows(query(sql.leak())).await.unwrap() {
                        all.push_str(&row.text("whole").unwrap());
                        all.push('\n');
                    }
                }
                all
            }
        }
    }
}

pub fn to_buyer<'a>(key: &'a str, kind: &'static str, to: &str, due_at: Timestamp) -> Notice<'a> {
    Notice {
        key,
        kind,
        to: Recipient::Buyer(to.to_owned()),
        text: "words",
        code: None,
        campaign: Some("c1"),
        due_at,
    }
}

pub fn json(answer: &SideAnswer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}
