//! A shop on an empty database, campaigns made by hand, and rewards that follow verdicts.

use std::net::IpAddr;
use std::sync::Arc;

use flash_types::side::{
    BoxFuture, DeskEvent, DeskSale, SaleDesk, SideAnswer, SideCaller, SideProblem, SideRequest,
    SideService,
};
use flash_types::{BuyerId, IdempotencyKey, Refusal, SaleId, Timestamp};
use serde_json::{Value, json};
use side_books::SideError;
use side_books::seal::Sealer;
use side_books::sql::{Database, Get as _, Migration, Reads as _, SqlOptions, Tx, query};
use side_campaign::entry::{self, Entered, Entrant};
use side_campaign::kind::Kinds;
use side_campaign::life::Campaign;
use side_campaign::notices::{Notifier, Outgoing};
use side_campaign::risk::{OnVerdict, Standing, Stands};
use side_campaign::shop::Shop;
use side_campaign::state::State;

pub const START: Timestamp = Timestamp(1_700_000_000_000);
pub const END: Timestamp = Timestamp(1_700_000_000_000 + 3_600_000);

/// Tables of the crate above, which rules look into, and what the tests' rewards are kept in.
const ABOVE: [Migration; 2] = [
    Migration {
        name: "rewards-1",
        sql: include_str!("../../../side-rewards/queries/rewards_1.sql"),
    },
    Migration {
        name: "test-rewards-1",
        sql: "CREATE TABLE test_reward (campaign TEXT, buyer TEXT, state TEXT, PRIMARY KEY (campaign, buyer));\n",
    },
];

pub fn at(ms: i64) -> Timestamp {
    Timestamp(START.0 + ms)
}

pub fn buyer(name: &str) -> BuyerId {
    BuyerId::parse(name).unwrap()
}

pub async fn shop(url: &str) -> Arc<Shop> {
    let mut migrations = side_books::MIGRATIONS.to_vec();
    migrations.extend_from_slice(side_campaign::MIGRATIONS);
    migrations.extend_from_slice(&ABOVE);
    let options = SqlOptions {
        acquire_timeout: std::time::Duration::from_secs(20),
        transaction_timeout: std::time::Duration::from_secs(20),
        ..SqlOptions::default()
    };
    let url = url.parse().unwrap();
    let database = Database::open(&url, options, &migrations);
    Arc::new(Shop {
        database: database.await.unwrap(),
        sealer: Sealer::new(&[7; 32]),
        desk: Arc::new(Nobody),
        kinds: Kinds::default(),
        reactors: Vec::new(),
        sale_reminders: side_campaign::definition::Reminders {
            before_s: vec![3_600, 600],
            second_after_s: None,
        },
        verdict_listeners: vec![Arc::new(Rewards)],
        history: Vec::new(),
        notifier: Arc::new(Nobody),
        zone: jiff::tz::TimeZone::UTC,
    })
}

/// A running campaign; `change` is merged into its definition.
pub fn campaign(id: &str, change: Value) -> Campaign {
    let mut definition = json!({
        "campaign_id": id,
        "kind": "giveaway",
        "title": "t",
        "starts_at": START.to_string(),
        "ends_at": END.to_string(),
        "currency": "CNY",
        "budget_minor": 0,
        "rules": {},
    });
    let Value::Object(change) = change else {
        panic!("a change is an object");
    };
    for (field, value) in change {
        definition[field] = value;
    }
    Campaign {
        id: id.to_owned(),
        state: State::Running,
        version: 1,
        definition: serde_json::from_value(definition).unwrap(),
        rules_hash: String::new(),
        published_at: None,
    }
}

pub async fn enter_from(
    shop: &Shop,
    campaign: &Campaign,
    name: &str,
    (address, device): (Option<&str>, Option<&str>),
    now: Timestamp,
) -> Result<Entered, SideError> {
    let entrant = Entrant {
        buyer: buyer(name),
        address: address.map(|address| address.parse::<IpAddr>().unwrap()),
        device: device.map(str::to_owned),
    };
    loop {
        let mut tx = shop.database.begin().await?;
        match entry::enter(&mut tx, shop, campaign, &entrant, now).await {
            Ok(entered) => {
                tx.commit().await?;
                return Ok(entered);
            }
            Err(error) if error.is_conflict() => tx.rollback().await,
            Err(error) => {
                tx.rollback().await;
                return Err(error);
            }
        }
    }
}

pub async fn enter(
    shop: &Shop,
    campaign: &Campaign,
    name: &str,
    now: Timestamp,
) -> Result<Entered, SideError> {
    enter_from(shop, campaign, name, (None, None), now).await
}

/// Status and outcome of a refusal.
pub fn refused<T: std::fmt::Debug>(answer: Result<T, SideError>) -> (u16, &'static str) {
    match answer.unwrap_err() {
        SideError::Refused(problem) => (problem.status, problem.outcome),
        SideError::Sql(error) => panic!("{error}"),
    }
}

pub async fn run(shop: &Shop, sql: &'static str, texts: &[&str], number: i64) {
    let mut tx = shop.database.begin().await.unwrap();
    let mut statement = query(sql);
    for text in texts {
        statement = statement.bind((*text).to_owned());
    }
    tx.execute(statement.bind(number)).await.unwrap();
    tx.commit().await.unwrap();
}

/// One text, or none.
pub async fn text(shop: &Shop, sql: &'static str, texts: &[&str]) -> Option<String> {
    let mut statement = query(sql);
    for text in texts {
        statement = statement.bind((*text).to_owned());
    }
    let row = shop.database.read().await.unwrap().row(statement).await;
    row.unwrap().and_then(|row| row.text_or_null("it").unwrap())
}

pub async fn verdict_of(shop: &Shop, campaign: &str, name: &str) -> Option<String> {
    let sql = "SELECT verdict AS it FROM participant WHERE campaign = $1 AND buyer = $2";
    text(shop, sql, &[campaign, name]).await
}

pub async fn reward_of(shop: &Shop, campaign: &str, name: &str) -> Option<String> {
    let sql = "SELECT state AS it FROM test_reward WHERE campaign = $1 AND buyer = $2";
    text(shop, sql, &[campaign, name]).await
}

/// Asks an endpoint by its path, among those of entries and verdicts.
pub async fn ask(
    shop: &Arc<Shop>,
    (method, path): (&str, &'static str),
    names: &[&str],
    query: &[(&'static str, &str)],
    (body, key): (&str, Option<&str>),
) -> Result<(SideAnswer, Value), SideProblem> {
    let services = [entry::services(shop), side_campaign::risk::services(shop)].concat();
    let place = |service: &Arc<dyn SideService>| {
        let mut endpoints = service.endpoints().iter();
        endpoints.position(|known| known.method == method && known.path == path)
    };
    let service = services.iter().find(|service| place(service).is_some());
    let service = service.unwrap();
    let mut filled: [String; 3] = std::array::from_fn(|_| String::new());
    for (place, name) in filled.iter_mut().zip(names) {
        *place = (*name).to_owned();
    }
    let answer = service.answer(SideRequest {
        endpoint: place(service).unwrap(),
        path: filled,
        query: query
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
        body: body.as_bytes().to_vec(),
        content_type: None,
        key: key.map(|key| IdempotencyKey::parse(key).unwrap()),
        caller: SideCaller::Admin("anna".to_owned()),
        address: None,
        device: None,
        now: at(500_000),
    });
    let answer = answer.await?;
    let value = serde_json::from_slice(&answer.body).unwrap();
    Ok((answer, value))
}

/// Rewards of the tests: a row in `test_reward` for whoever was told of.
struct Rewards;

impl OnVerdict for Rewards {
    fn on_verdict<'a>(
        &'a self,
        tx: &'a mut Tx,
        stands: &'a Stands,
        _now: Timestamp,
    ) -> BoxFuture<'a, Result<(), SideError>> {
        Box::pin(async move {
            let state = match stands.standing {
                Standing::Clear => "GIVEN",
                Standing::Review => "WAITING",
                Standing::Deny => "REVOKED",
            };
            let upsert = query(
                "INSERT INTO test_reward (campaign, buyer, state) VALUES ($1, $2, $3) \
                 ON CONFLICT (campaign, buyer) DO UPDATE SET state = excluded.state",
            );
            let upsert = upsert
                .bind(stands.campaign.clone())
                .bind(stands.buyer.as_str().to_owned())
                .bind(state);
            tx.execute(upsert).await?;
            Ok(())
        })
    }
}

struct Nobody;

impl SaleDesk for Nobody {
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

impl Notifier for Nobody {
    fn notify<'a>(&'a self, _notice: &'a Outgoing) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}
