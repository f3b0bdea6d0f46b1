//! Campaigns in the whole process: what merchants, buyers and the storefront do with them, and what is done to them.

use std::path::Path;
use std::time::Duration;

use crowd::client::{Client, Draft, Request, Response, Timeouts};
use crowd::log::now_ms;
use crowd::token::now_s;
use crowd::wait::poll_until_async;
use dev_servers::PostgresServer;
use flash_types::Timestamp;
use serde_json::{Value, json};
use side_books::audit::{Prove, prove_all};
use side_books::sql::{Database, SqlOptions};

use crate::rig::*;

mod crashed;
mod frozen;
mod guide;
mod journey;
mod nodes;

/// How often something is asked that comes about by itself.
const ASK: Duration = Duration::from_millis(25);

/// A database for the campaigns of a shop.
enum Books {
    /// The file of the data folder.
    Sqlite,
    /// On a server of its own, with its URL.
    Postgres(Box<PostgresServer>, String),
}

impl Books {
    fn postgres() -> Self {
        let server = PostgresServer::start().unwrap();
        let url = server.database().unwrap();
        Self::Postgres(Box::new(server), url)
    }

    /// A rig whose server keeps its campaigns there, and refuses nobody for coming often.
    fn rig(&self) -> Rig {
        let rig = Rig::new()
            .environment("STAMPEDE_CAMPAIGNS_ADDRESS_RATE_PER_S", "1000000")
            .environment("STAMPEDE_CAMPAIGNS_ADDRESS_BURST", "1000000");
        match self {
            Self::Sqlite => rig,
            Self::Postgres(_, url) => rig.argument("--database", url),
        }
    }

    fn open(&self, shop: &Shop) -> Database {
        let url = match self {
            Self::Sqlite => {
                let file = shop.rig.options.data.join("campaigns.db");
                format!("sqlite:{}", file.display())
            }
            Self::Postgres(_, url) => url.clone(),
        };
        let url = url.parse().unwrap();
        Database::lazy(&url, SqlOptions::default()).unwrap()
    }

    /// Holds that the books prove, rewards included.
    async fn assert_proved(&self, shop: &Shop) {
        let database = self.open(shop);
        let rewards = side_rewards::audit::Rewards;
        let others: [&dyn Prove; 1] = [&rewards];
        let report = prove_all(&database, &others).await.unwrap();
        assert!(report.ok, "{report:#?}");
        assert!(report.transfers > 0, "nothing was moved: {report:?}");
        database.close().await;
    }

    /// Everything that is stored, as one heap of bytes.
    fn bytes(&self, data: &Path) -> Vec<u8> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(data).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                all.extend(std::fs::read(path).unwrap());
            }
        }
        if let Self::Postgres(server, url) = self {
            let rows = "SELECT query_to_xml(format('SELECT * FROM %I', table_name), true, false, '') \
                        FROM information_schema.tables WHERE table_schema = 'public'";
            all.extend(server.psql(url, rows).unwrap().into_bytes());
        }
        all
    }
}

/// A moment, so many ms from now.
fn at(from_now_ms: i64) -> Value {
    json!(Timestamp(i64::try_from(now_ms()).unwrap() + from_now_ms))
}

/// A campaign that is open, gives each who joins a coupon of 5.00 and draws a gift; its budget is its worst case.
fn campaign(id: &str, participants_max: i64) -> Value {
    json!({
        "campaign_id": id, "kind": "giveaway", "title": "Opening", "zone": "UTC", "currency": "CNY",
        "starts_at": at(-60_000), "ends_at": at(2 * 3_600_000),
        "budget_minor": participants_max * 500 + 2_000,
        "eligibility": {"participants_max": participants_max},
        "risk": {"is_shadow": true},
        "rewards": [
            {"reward": "welcome", "title": "5.00 off", "type": "coupon", "face_minor": 500,
             "term_days": 30, "total": participants_max},
            {"reward": "tablet", "title": "A tablet", "type": "gift", "cost_minor": 1_000, "stock_units": 2},
        ],
        "rules": {"per_participant": ["welcome"],
                  "draws": [{"stream": "final", "reward": "tablet", "winners": 2}]},
    })
}

impl Shop {
    fn token(&self, buyer: &str) -> String {
        self.keys.minter().mint(buyer, now_s() + 7 * 24 * 3600)
    }

    /// By a buyer with a token.
    fn of_buyer(&self, method: &str, target: &str, buyer: &str) -> Draft {
        Request::draft(method, target).bearer(&self.token(buyer))
    }

    /// By the shop's server, for a buyer.
    fn for_buyer(&self, method: &str, target: &str, buyer: &str) -> Draft {
        let draft = Request::draft(method, target).bearer(&self.keys.storefront_key);
        draft.header("X-Buyer-Id", buyer)
    }

    async fn public(&self, request: Request) -> Response {
        self.client().send(&request).await.unwrap()
    }

    /// By a merchant; with a body where there is one.
    async fn merchant(&self, method: &str, target: &str, body: Option<&Value>) -> Response {
        let draft = Request::draft(method, target).bearer(&self.keys.admin_key);
        let draft = draft.key(&format!("m{}", rand_word()));
        let request = match body {
            Some(body) => draft.json(&body.to_string()),
            None => draft.bare(),
        };
        let mut client = Client::new(self.server.admin, Timeouts::default());
        client.send(&request).await.unwrap()
    }

    /// What a merchant reads.
    async fn read(&self, target: &str) -> Value {
        told(&self.merchant("GET", target, None).await, 200)
    }

    /// Waits until the campaigns' database is there.
    async fn campaigns_are_up(&self) {
        let is_up = poll_until_async(BOUND, ASK, async || {
            let answer = self.merchant("GET", "/v1/admin/campaigns", None).await;
            (answer.status == 200).then_some(())
        });
        assert!(is_up.await.is_some(), "{}", self.server.log());
    }

    /// Makes and publishes a campaign.
    async fn publish_campaign(&self, definition: &Value) {
        self.campaigns_are_up().await;
        let path = "/v1/admin/campaigns";
        told(&self.merchant("POST", path, Some(definition)).await, 201);
        let id = definition["campaign_id"].as_str().unwrap();
        let path = format!("/v1/admin/campaigns/{id}/publish");
        told(&self.merchant("POST", &path, Some(&json!({}))).await, 200);
    }

    fn join(&self, campaign: &str, buyer: &str, key: &str) -> Request {
        let target = format!("/v1/campaigns/{campaign}/participations");
        self.of_buyer("POST", &target, buyer).key(key).json("{}")
    }

    /// Waits until a campaign is in a state.
    async fn until_campaign(&self, id: &str, state: &str) -> Value {
        let path = format!("/v1/admin/campaigns/{id}");
        let mut last = Value::Null;
        let is_so = poll_until_async(BOUND, ASK, async || {
            last = self.read(&path).await;
            (last["state"] == state).then_some(())
        });
        let is_so = is_so.await.is_some();
        assert!(
            is_so,
            "{id} is never {state}: {last}\n{}",
            self.server.log()
        );
        last
    }

    /// Waits until the books hold an order of this id.
    async fn until_order(&self, id: &str) -> Value {
        let mut last = Value::Null;
        let target = format!("/v1/orders/{id}");
        let is_there = poll_until_async(BOUND, ASK, async || {
            let request = Request::get(&target).bearer(&self.keys.storefront_key);
            let answer = self.public(request.bare()).await;
            last = answer.json().unwrap();
            (answer.status == 200).then_some(())
        });
        let is_there = is_there.await.is_some();
        assert!(is_there, "no order {id}: {last}\n{}", self.server.log());
        last
    }

    /// Buys a unit and pays it; gives the reservation's id.
    async fn buy_and_pay(&self, buyer: &str, key: &str) -> String {
        let mut client = self.client();
        let bought = self.buy(&mut client, buyer, key, "a").await.unwrap();
        assert_eq!(bought.status, 201, "{}", bought.outcome());
        let id = bought.text_field("reservation_id").unwrap().to_owned();
        let paid = crowd::api::confirm(&id, &self.keys.storefront_key, &format!("pay-{key}"));
        assert_eq!(client.send(&paid).await.unwrap().status, 200);
        id
    }

    /// All notices of a kind that were sent, with what they say.
    fn sent(&self, kind: &str) -> Vec<Value> {
        let file = self.rig.options.data.join("notifications.jsonl");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        // A line that is just being written has no end yet.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        whole
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|notice| notice["kind"] == kind)
            .collect()
    }

    /// Holds that a budget adds up, and is what was given and taken.
    async fn budget(&self, id: &str) -> (i64, i64, i64) {
        let stands = self.read(&format!("/v1/admin/campaigns/{id}/budget")).await;
        let minor = |name: &str| stands[name].as_i64().unwrap();
        let (available, held) = (minor("available_minor"), minor("held_minor"));
        let spent = minor("spent_minor");
        assert_eq!(minor("cap_minor"), available + held + spent, "{stands}");
        (available, held, spent)
    }

    /// Runs `stampede campaign …` to its end.
    fn campaign(&self, words: &[&str]) -> std::process::Output {
        let url = format!("http://{}", self.server.admin);
        let mut all = vec!["campaign"];
        all.extend(words);
        all.extend(["--admin-url", &url, "--data", self.rig.data()]);
        stampede(&all)
    }
}

/// Another word each time.
fn rand_word() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", now_ms(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Holds that an answer has this status; gives its body.
#[track_caller]
fn told(answer: &Response, status: u16) -> Value {
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, status, "{body}");
    serde_json::from_str(&body).unwrap_or(Value::String(body))
}

/// Holds that an answer is this no.
#[track_caller]
fn no(answer: &Response, status: u16, outcome: &str) -> Value {
    let body = told(answer, status);
    assert_eq!(body["outcome"], outcome, "{body}");
    body
}
