//! What stands in for the rest of the house.

use std::sync::Arc;

use flash_types::side::{BoxFuture, DeskEvent, DeskSale, SaleDesk};
use flash_types::{BuyerId, Currency, Refusal, SaleId, Timestamp};
use serde_json::{Value, json};
use side_books::budget::{self, Held, Hold};
use side_books::command::hex;
use side_books::sql::{Database, Reads as _, SqlOptions, Tx, query};
use side_books::{SideError, seal::Sealer};
use side_campaign::canonical;
use side_campaign::definition::{Definition, Eligibility, Reminders, RiskRules};
use side_campaign::draws::{Seed, commitment};
use side_campaign::entry::{Entered, Entrant};
use side_campaign::kind::Kinds;
use side_campaign::life::{self, Campaign};
use side_campaign::notices::{Notifier, Outgoing};
use side_campaign::reward::{RewardKind, RewardRule};
use side_campaign::shop::Shop;
use side_campaign::state::State;
use side_rewards::giveaway::Give;
use side_rewards::grants::{Grant, Granted};

pub const SEED: Seed = Seed([42; 32]);

pub async fn opened(url: &str) -> Database {
    let mut migrations = side_books::MIGRATIONS.to_vec();
    migrations.extend(side_campaign::MIGRATIONS);
    migrations.extend(side_rewards::MIGRATIONS);
    Database::open(&url.parse().unwrap(), SqlOptions::default(), &migrations)
        .await
        .unwrap()
}

/// Lets everybody in; gives a text for an id and holds the cost.
pub struct Double;

impl Give for Double {
    fn enter<'a>(
        &'a self,
        _tx: &'a mut Tx,
        _shop: &'a Shop,
        _campaign: &'a Campaign,
        entrant: &'a Entrant,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Entered, SideError>> {
        let verdict = entrant.device.clone();
        Box::pin(async move {
            Ok(Entered {
                was_in: false,
                is_new_buyer: true,
                joined_at: now,
                verdict,
            })
        })
    }

    fn grant<'a>(
        &'a self,
        tx: &'a mut Tx,
        campaign: &'a Campaign,
        grant: &'a Grant<'a>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Granted, SideError>> {
        Box::pin(async move {
            let rewards = campaign.definition.rewards.iter();
            let mut rules = rewards.filter(|rule| rule.reward == grant.reward);
            let amount_minor = rules.next().unwrap().cost_minor();
            let key = format!("grant|{}|{}|{}", campaign.id, grant.reward, grant.source);
            let promise = Hold {
                key: &key,
                campaign: &campaign.id,
                what: "grant",
                amount_minor,
            };
            Ok(match budget::hold(tx, &promise, now).await? {
                Held::RunDry => Granted::RunDry,
                Held::Held if grant.verdict.is_some() => Granted::Waiting,
                Held::Held => Granted::Given { id: key },
            })
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

pub fn shop(database: &Database) -> Shop {
    Shop {
        database: database.clone(),
        sealer: Sealer::new(&[1; 32]),
        desk: Arc::new(Nobody),
        kinds: Kinds::default(),
        reactors: Vec::new(),
        sale_reminders: side_campaign::definition::Reminders {
            before_s: vec![3_600, 600],
            second_after_s: None,
        },
        verdict_listeners: Vec::new(),
        history: Vec::new(),
        notifier: Arc::new(Nobody),
        zone: jiff::tz::TimeZone::UTC,
    }
}

pub fn coupon(reward: &str, face_minor: i64, total: Option<i64>) -> RewardRule {
    RewardRule {
        reward: reward.to_owned(),
        title: reward.to_owned(),
        what: RewardKind::Coupon {
            face_minor,
            threshold_minor: 0,
            term_days: Some(7),
            valid_from: None,
            valid_until: None,
            total,
            per_buyer: None,
        },
    }
}

pub fn definition(rules: Value) -> Definition {
    Definition {
        campaign_id: "g1".to_owned(),
        kind: "giveaway".to_owned(),
        title: "A giveaway".to_owned(),
        warmup_at: None,
        starts_at: Timestamp(0),
        ends_at: Timestamp(100_000),
        zone: "Asia/Shanghai".to_owned(),
        currency: Currency::parse("CNY").unwrap(),
        budget_minor: 0,
        goal: std::collections::BTreeMap::new(),
        eligibility: Eligibility::default(),
        reminders: Reminders::default(),
        rewards: vec![coupon("welcome", 500, None), coupon("big", 10_000, None)],
        risk: RiskRules::default(),
        rules,
        plan_b: None,
    }
}

/// A campaign with its budget, as its life publishes it.
pub async fn published(database: &Database, rules: Value, budget_minor: i64) -> Campaign {
    let definition = definition(rules);
    let whole = serde_json::to_value(&definition).unwrap();
    let shown = life::public_definition(&definition, "ff");
    let mut tx = database.begin().await.unwrap();
    let insert = query(
        "INSERT INTO campaign (id, kind, state, draft, starts_at_ms, ends_at_ms, seed_hash, created_at_ms, published_at_ms) \
         VALUES ('g1', 'giveaway', 'RUNNING', '{}', 0, 1, $1, 0, 1000)",
    );
    tx.execute(insert.bind(commitment(&SEED))).await.unwrap();
    let insert = query(
        "INSERT INTO campaign_version (campaign, version, definition, rules_hash, worst_case, private_hash, reason, who, at_ms) \
         VALUES ('g1', 1, $1, $2, '{}', 'ff', 'published', 'anna', 1000)",
    );
    let insert = insert.bind(whole.to_string()).bind(canonical::hash(&shown));
    tx.execute(insert).await.unwrap();
    let at = Timestamp(1);
    budget::fund(&mut tx, "g1", "CNY", budget_minor, "fund|g1", at)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    Campaign {
        id: "g1".to_owned(),
        state: State::Running,
        version: 1,
        definition,
        rules_hash: canonical::hash(&shown),
        published_at: Some(Timestamp(1_000)),
    }
}

pub async fn reveal(database: &Database) {
    let mut tx = database.begin().await.unwrap();
    let update = query("UPDATE campaign SET seed = $1 WHERE id = 'g1'").bind(hex(&SEED.0));
    tx.execute(update).await.unwrap();
    tx.commit().await.unwrap();
}

pub fn entrant(buyer: &str, verdict: Option<&str>) -> Entrant {
    Entrant {
        buyer: BuyerId::parse(buyer).unwrap(),
        address: None,
        // The double takes it for the verdict.
        device: verdict.map(str::to_owned),
    }
}

pub async fn count(database: &Database, sql: &'static str) -> i64 {
    use side_books::sql::Get as _;
    let row = database.read().await.unwrap().row(query(sql)).await;
    row.unwrap().unwrap().int("found").unwrap()
}

pub fn prizes(per_participant: &[&str], draws: &[(&str, &str, i64)]) -> Value {
    let draws = draws.iter().map(
        |(stream, reward, winners)| json!({"stream": stream, "reward": reward, "winners": winners}),
    );
    json!({"per_participant": per_participant, "draws": draws.collect::<Vec<_>>()})
}
