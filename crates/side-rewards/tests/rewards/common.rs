//! A shop on a database, campaigns made by hand, requests.

use std::sync::Arc;
use std::time::Duration;

use flash_types::side::{
    BoxFuture, DeskEvent, DeskSale, SaleDesk, SideAnswer, SideCaller, SideProblem, SideRequest,
    SideService,
};
use flash_types::{BuyerId, IdempotencyKey, Refusal, SaleId, Timestamp};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use side_books::budget::{self, Budget};
use side_books::seal::Sealer;
use side_books::sql::{Database, Get as _, Migration, Reads as _, SqlOptions, Tx, query};
use side_campaign::kind::Kinds;
use side_campaign::life::Campaign;
use side_campaign::notices::{Notifier, Outgoing};
use side_campaign::shop::Shop;
use side_campaign::state::State;
use side_rewards::grants::{self, Grant, Granted};

pub const CAMPAIGN: &str = "c1";
/// A day of 2026.
pub const NOW: Timestamp = Timestamp(1_794_268_800_000);
pub const DAY_MS: i64 = 24 * 3600 * 1_000;

struct Nothing;

impl SaleDesk for Nothing {
    fn events<'a>(
        &'a self,
        _after: Option<&'a str>,
        _limit: usize,
    ) -> BoxFuture<'a, Result<Vec<DeskEvent>, Refusal>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn sale(&self, _sale_id: &SaleId) -> Option<DeskSale> {
        None
    }
}

impl Notifier for Nothing {
    fn notify<'a>(&'a self, _notice: &'a Outgoing) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// With time to spare: many tasks share few connections.
pub async fn shop(url: &str) -> Arc<Shop> {
    let options = SqlOptions {
        acquire_timeout: Duration::from_secs(60),
        transaction_timeout: Duration::from_secs(60),
        ..SqlOptions::default()
    };
    let migrations: Vec<Migration> = [
        side_books::MIGRATIONS,
        side_campaign::MIGRATIONS,
        side_rewards::MIGRATIONS,
    ]
    .concat();
    let url = url.parse().unwrap();
    let database = Database::open(&url, options, &migrations);
    Arc::new(Shop {
        database: database.await.unwrap(),
        sealer: Sealer::new(&[7; 32]),
        desk: Arc::new(Nothing),
        kinds: Kinds::default(),
        reactors: Vec::new(),
        sale_reminders: side_campaign::definition::Reminders {
            before_s: vec![3_600, 600],
            second_after_s: None,
        },
        verdict_listeners: Vec::new(),
        history: Vec::new(),
        notifier: Arc::new(Nothing),
        zone: TimeZone::UTC,
    })
}

/// `rewards` as in a definition.
pub fn campaign(rewards: &Value) -> Campaign {
    let definition = json!({
        "campaign_id": CAMPAIGN, "kind": "giveaway", "title": "t", "currency": "CNY",
        "starts_at": "2026-11-01T00:00:00Z", "ends_at": "2026-12-01T00:00:00Z",
        "budget_minor": 0, "rewards": rewards, "rules": {},
    });
    Campaign {
        id: CAMPAIGN.to_owned(),
        state: State::Running,
        version: 1,
        definition: serde_json::from_value(definition).unwrap(),
        rules_hash: "h".to_owned(),
        published_at: Some(Timestamp(0)),
    }
}

pub async fn fund(shop: &Shop, amount_minor: i64) {
    let mut tx = shop.database.begin().await.unwrap();
    budget::fund(&mut tx, CAMPAIGN, "CNY", amount_minor, "fund|c1", NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

pub fn buyer(text: &str) -> BuyerId {
    BuyerId::parse(text).unwrap()
}

pub async fn grant(
    tx: &mut Tx,
    campaign: &Campaign,
    source: &str,
    reward: &str,
    to: &str,
    verdict: Option<&str>,
) -> Granted {
    let grant = Grant {
        source,
        reward,
        buyer: buyer(to),
        order_id: None,
        verdict,
    };
    grants::grant(tx, campaign, &grant, NOW).await.unwrap()
}

/// Gives and commits; the id of the coupon or prize.
pub async fn given(
    shop: &Shop,
    campaign: &Campaign,
    source: &str,
    reward: &str,
    to: &str,
) -> String {
    let mut tx = shop.database.begin().await.unwrap();
    let granted = grant(&mut tx, campaign, source, reward, to, None).await;
    tx.commit().await.unwrap();
    let Granted::Given { id } = granted else {
        panic!("{source} was not given: {granted:?}");
    };
    id
}

pub async fn stands(shop: &Shop) -> Budget {
    let mut reader = shop.database.read().await.unwrap();
    budget::read(&mut reader, CAMPAIGN).await.unwrap().unwrap()
}

pub async fn proved(shop: &Shop) {
    let mut reader = shop.database.read().await.unwrap();
    let found = side_rewards::audit::prove(&mut reader).await.unwrap();
    assert_eq!(found, [], "{}", shop.database.kind() as u8);
}

/// A number that a statement gives as `n`.
pub async fn number(shop: &Shop, sql: &'static str) -> i64 {
    let mut reader = shop.database.read().await.unwrap();
    reader
        .row(query(sql))
        .await
        .unwrap()
        .unwrap()
        .int("n")
        .unwrap()
}

pub struct Call {
    service: Arc<dyn SideService>,
    request: SideRequest,
}

/// An endpoint by method and path, with what stands in its braces.
pub fn call(shop: &Arc<Shop>, method: &str, path: &str, inside: &str) -> Call {
    for service in side_rewards::services(shop) {
        let mut endpoints = service.endpoints().iter();
        let at = endpoints.position(|one| one.method == method && one.path == path);
        if let Some(endpoint) = at {
            let request = SideRequest {
                endpoint,
                path: [inside.to_owned(), String::new(), String::new()],
                query: Vec::new(),
                body: b"{}".to_vec(),
                content_type: None,
                key: None,
                caller: SideCaller::Admin("ann".to_owned()),
                address: None,
                device: None,
                now: NOW,
            };
            return Call { service, request };
        }
    }
    panic!("no endpoint {method} {path}");
}

impl Call {
    pub fn buyer(mut self, of: &str) -> Self {
        self.request.caller = SideCaller::Buyer(buyer(of));
        self
    }

    pub fn storefront(mut self, of: &str) -> Self {
        self.request.caller = SideCaller::Storefront(Some(buyer(of)));
        self
    }

    pub fn body(mut self, body: &Value) -> Self {
        self.request.body = body.to_string().into_bytes();
        self
    }

    pub fn key(mut self, key: &str) -> Self {
        self.request.key = Some(IdempotencyKey::parse(key).unwrap());
        self
    }

    pub fn query(mut self, name: &'static str, value: &str) -> Self {
        self.request.query.push((name, value.to_owned()));
        self
    }

    pub fn at(mut self, now: Timestamp) -> Self {
        self.request.now = now;
        self
    }

    pub async fn raw(self) -> Result<SideAnswer, SideProblem> {
        self.service.answer(self.request).await
    }

    pub async fn yes(self) -> Value {
        let answer = self.raw().await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    pub async fn no(self) -> (u16, &'static str) {
        let problem = self.raw().await.unwrap_err();
        (problem.status, problem.outcome)
    }
}

/// Everything that is due, of all steps of that name.
pub async fn step(shop: &Arc<Shop>, name: &str, now: Timestamp) {
    let steps = side_rewards::steps(shop);
    let step = steps.iter().find(|step| step.name() == name).unwrap();
    while step.step(now).await.unwrap() {}
}
