//! A shop with kinds of campaigns that are doubles, and the calls that tests make.

use std::sync::Arc;

use flash_types::side::{
    BoxFuture, DeskEvent, DeskSale, SaleDesk, SideAnswer, SideCaller, SidePort, SideProblem,
    SideRequest, SideService, SideWho,
};
use flash_types::{IdempotencyKey, Refusal, SaleId, Timestamp};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use side_books::seal::Sealer;
use side_books::sql::{Database, Get as _, Reads as _, SqlOptions, Tx, query};
use side_books::step::Step;
use side_books::{SideError, note};
use side_campaign::definition::Definition;
use side_campaign::draws::Seed;
use side_campaign::kind::{CampaignKind, Commitment, Finding, Kinds, WorstCase};
use side_campaign::life::{self, Campaign};
use side_campaign::notices::{Notifier, Outgoing};
use side_campaign::shop::Shop;

/// Start, end and other times of the tests, ms.
pub const HOUR: i64 = 3_600_000;
/// Pieces of a settling.
pub const PIECES: i64 = 3;

/// Rules: `{"count", "each_minor", "open"?}`; only a larger count is better.
struct Double {
    name: &'static str,
    is_single: bool,
}

impl CampaignKind for Double {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_single(&self) -> bool {
        self.is_single
    }

    fn check(&self, definition: &Definition) -> Result<WorstCase, Vec<Finding>> {
        let rules = &definition.rules;
        let number = |name: &str| {
            let wrong = || Finding::new("missing", format!("rules.{name}"), format!("{name}!"));
            rules[name].as_i64().ok_or_else(wrong)
        };
        let (count, each) = match (number("count"), number("each_minor")) {
            (Ok(count), Ok(each)) => (count, each),
            (count, each) => return Err([count.err(), each.err()].into_iter().flatten().collect()),
        };
        let mut worst = WorstCase::default();
        worst.add("things", count, each);
        if rules["open"] == json!(true) {
            worst.unbounded.push("as many as one likes".to_owned());
        }
        Ok(worst)
    }

    fn improves(&self, from: &Value, to: &Value) -> Result<(), Vec<Finding>> {
        let mut same = from.clone();
        same["count"] = to["count"].clone();
        if same == *to && from["count"].as_i64() <= to["count"].as_i64() {
            return Ok(());
        }
        Err(vec![Finding::new(
            "not_better",
            "rules",
            "only count may grow",
        )])
    }

    fn prepare<'a>(
        &'a self,
        _: &'a mut Tx,
        campaign: &'a Campaign,
        seed: &'a Seed,
        _: Timestamp,
    ) -> BoxFuture<'a, Result<Commitment, SideError>> {
        assert_eq!(campaign.version, 1);
        assert_ne!(seed.0, [0; 32]);
        let root = Some("r00t".to_owned());
        Box::pin(async { Ok(Commitment { root }) })
    }

    fn settle<'a>(
        &'a self,
        tx: &'a mut Tx,
        campaign: &'a Campaign,
        _: &'a Seed,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<bool, SideError>> {
        Box::pin(async move {
            let piece = note::Note {
                who: "system",
                what: "piece",
                campaign: Some(&campaign.id),
                ..note::Note::default()
            };
            note::write(tx, &piece, now).await?;
            Ok(pieces(tx, &campaign.id).await >= PIECES)
        })
    }
}

/// Pieces of a settling that were done.
pub async fn pieces(tx: &mut Tx, campaign: &str) -> i64 {
    let count = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM audit_note WHERE campaign = $1 AND what = 'piece'";
    let row = tx
        .row(query(count).bind(campaign.to_owned()))
        .await
        .unwrap();
    row.unwrap().int("n").unwrap()
}

struct Nobody;

impl SaleDesk for Nobody {
    fn events<'a>(
        &'a self,
        _: Option<&'a str>,
        _: usize,
    ) -> BoxFuture<'a, Result<Vec<DeskEvent>, Refusal>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn sale(&self, _: &SaleId) -> Option<DeskSale> {
        None
    }
}

impl Notifier for Nobody {
    fn notify<'a>(&'a self, _: &'a Outgoing) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// A node: its shop, its service of campaigns, its step.
pub struct Node {
    pub shop: Arc<Shop>,
    service: Arc<dyn SideService>,
    pub step: Arc<dyn Step>,
}

impl Node {
    pub async fn open(url: &str) -> Self {
        let migrations = [side_books::MIGRATIONS, side_campaign::MIGRATIONS].concat();
        let database = Database::open(&url.parse().unwrap(), SqlOptions::default(), &migrations)
            .await
            .unwrap();
        let double =
            |name, is_single| -> Arc<dyn CampaignKind> { Arc::new(Double { name, is_single }) };
        let shop = Arc::new(Shop {
            database,
            sealer: Sealer::new(&[7; 32]),
            desk: Arc::new(Nobody),
            kinds: Kinds::new(vec![double("double", false), double("single", true)]),
            reactors: Vec::new(),
            sale_reminders: side_campaign::definition::Reminders {
                before_s: vec![3_600, 600],
                second_after_s: None,
            },
            verdict_listeners: Vec::new(),
            history: Vec::new(),
            notifier: Arc::new(Nobody),
            zone: TimeZone::UTC,
        });
        let service = life::services(&shop).remove(0);
        let step = life::steps(&shop).remove(0);
        Self {
            shop,
            service,
            step,
        }
    }

    /// Calls an endpoint as the front would: by method and path, with a key of its own where one is needed.
    pub async fn call(
        &self,
        at: i64,
        method: &str,
        path: &str,
        body: Value,
    ) -> Result<SideAnswer, SideProblem> {
        let key = side_books::id::fresh("k", Timestamp(at));
        self.call_with_key(at, method, path, body, &key).await
    }

    pub async fn call_with_key(
        &self,
        at: i64,
        method: &str,
        path: &str,
        body: Value,
        key: &str,
    ) -> Result<SideAnswer, SideProblem> {
        let (path, asked) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<&str> = path.split('/').collect();
        let endpoints = self.service.endpoints();
        let is_it = |template: &str| {
            let template: Vec<&str> = template.split('/').collect();
            template.len() == parts.len()
                && template
                    .iter()
                    .zip(&parts)
                    .all(|(t, p)| t == p || t.starts_with('{'))
        };
        let index = endpoints
            .iter()
            .position(|e| e.method == method && is_it(e.path));
        let endpoint = &endpoints[index.expect("an endpoint")];
        let named = endpoint.path.split('/').zip(&parts);
        let named: Vec<String> = named
            .filter(|(t, _)| t.starts_with('{'))
            .map(|(_, p)| (*p).to_owned())
            .collect();
        let mut path = [String::new(), String::new(), String::new()];
        for (place, part) in path.iter_mut().zip(named) {
            *place = part;
        }
        let query = asked.split('&').filter_map(|pair| pair.split_once('='));
        let query = query.map(|(name, value)| {
            let known = endpoint.query.iter().find(|known| **known == name);
            (*known.expect("a known parameter"), value.to_owned())
        });
        let is_admin = endpoint.port == SidePort::Admin;
        assert_eq!(is_admin, endpoint.who != SideWho::All);
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        assert!(body.len() <= endpoint.body_bytes_max);
        let request = SideRequest {
            endpoint: index.unwrap(),
            path,
            query: query.collect(),
            body,
            content_type: None,
            key: (endpoint.method == "POST").then(|| IdempotencyKey::parse(key).unwrap()),
            caller: match is_admin {
                true => SideCaller::Admin("anna".to_owned()),
                false => SideCaller::Anyone,
            },
            address: None,
            device: None,
            now: Timestamp(at),
        };
        // As the dispatcher does where another transaction was in the way.
        for _ in 0..20 {
            let answered = self.service.answer(request.clone()).await;
            match answered {
                Err(problem) if problem.outcome == "store_unavailable" => {}
                answered => return answered,
            }
        }
        panic!("{} {} never got through", endpoint.method, endpoint.path);
    }

    /// The JSON of a yes.
    pub async fn yes(&self, at: i64, method: &str, path: &str, body: Value) -> Value {
        let answer = self.call(at, method, path, body).await;
        let answer = answer.unwrap_or_else(|no| panic!("{method} {path}: {no:?}"));
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// A no.
    pub async fn no(&self, at: i64, method: &str, path: &str, body: Value) -> SideProblem {
        let answer = self.call(at, method, path, body).await;
        answer.expect_err("a no")
    }

    pub async fn post(&self, at: i64, id: &str, verb: &str, body: Value) -> Value {
        let path = format!("/v1/admin/campaigns/{id}/{verb}");
        self.yes(at, "POST", &path, body).await
    }

    pub async fn post_no(&self, at: i64, id: &str, verb: &str, body: Value) -> SideProblem {
        let path = format!("/v1/admin/campaigns/{id}/{verb}");
        self.no(at, "POST", &path, body).await
    }

    pub async fn show(&self, id: &str) -> Value {
        let path = format!("/v1/admin/campaigns/{id}");
        self.yes(0, "GET", &path, Value::Null).await
    }

    pub async fn draft(&self, at: i64, definition: &Value) -> Value {
        self.yes(at, "POST", "/v1/admin/campaigns", definition.clone())
            .await
    }

    /// A draft, published.
    pub async fn publish(&self, at: i64, definition: &Value) -> Value {
        self.draft(at, definition).await;
        let id = definition["campaign_id"].as_str().unwrap();
        self.post(at, id, "publish", Value::Null).await
    }

    /// Steps until there is nothing to do.
    pub async fn steps(&self, at: i64) {
        for _ in 0..50 {
            match self.step.step(Timestamp(at)).await {
                Ok(false) => return,
                Ok(true) => {}
                Err(error) if error.is_conflict() => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("there is always more to do");
    }

    /// All moves of a campaign, as `FROM>TO`.
    pub async fn moves(&self, id: &str) -> Vec<String> {
        let select =
            "SELECT from_state, to_state FROM campaign_move WHERE campaign = $1 ORDER BY id";
        let mut reader = self.shop.database.read().await.unwrap();
        let rows = reader
            .rows(query(select).bind(id.to_owned()))
            .await
            .unwrap();
        let told = rows.iter().map(|row| {
            let (from, to) = (row.text("from_state"), row.text("to_state"));
            format!("{}>{}", from.unwrap(), to.unwrap())
        });
        told.collect()
    }
}

/// A definition from 1 h to 10 h, warm-up at half an hour, worst case 100 of 1,000.
pub fn definition(id: &str) -> Value {
    json!({
        "campaign_id": id, "kind": "double", "title": "Opening",
        "warmup_at": Timestamp(HOUR / 2), "starts_at": Timestamp(HOUR), "ends_at": Timestamp(10 * HOUR),
        "currency": "CNY", "budget_minor": 1_000,
        "goal": {"new_buyers": 50_000},
        "eligibility": {"participants_max": 10},
        "rewards": [
            {"reward": "tablet", "title": "Tablet", "type": "gift", "cost_minor": 77, "stock_units": 1},
        ],
        "rules": {"count": 10, "each_minor": 10},
    })
}

/// With other fields.
pub fn with(mut definition: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        definition[name] = value.clone();
    }
    definition
}
