//! One buyer's history on both databases: everything, once, in order, nothing of another buyer.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test stands on fails like a test"
)]

use std::sync::Arc;

use dev_servers::Databases;
use flash_types::side::{
    BoxFuture, DeskEvent, DeskSale, SaleDesk, SideCaller, SideRequest, SideService,
};
use flash_types::{BuyerId, Refusal, SaleId, Timestamp};
use serde_json::{Value, json};
use side_books::seal::Sealer;
use side_books::sql::{Database, Reader, SqlOptions, query};
use side_books::{SideError, sql};
use side_campaign::entry::{self, Refused};
use side_campaign::history::{After, HistoryEntry, HistorySource};
use side_campaign::kind::Kinds;
use side_campaign::notices::{Notifier, Outgoing};
use side_campaign::shop::Shop;

/// What happened to the buyer `a`; the same is written for `b`.
const FACTS: [&str; 9] = [
    "INSERT INTO participant (campaign, buyer, joined_at_ms, is_new, version, verdict) VALUES ('c1', $1, 10, 1, 2, 'DENY')",
    "INSERT INTO sign_up (campaign, buyer, task, at_ms) VALUES ('c1', $1, 'follow', 5)",
    "INSERT INTO risk_verdict (id, campaign, rule, subject, verdict, is_shadow, evidence, found_at_ms) VALUES ('v' || $1, 'c1', 'shared_device', $1, 'DENY', 0, '{\"threshold\":2}', 10)",
    "INSERT INTO risk_decision (verdict, subject, campaign, rule, decision, reason, decided_by, at_ms) VALUES ('v' || $1, $1, 'c1', 'shared_device', 'ALLOW', 'a family', 'rita', 40)",
    "INSERT INTO shop_order (id, source, buyer, sale_id, currency, paid_minor, refunded_minor, paid_at_ms, received_at_ms, is_first) VALUES ('o' || $1, 'engine', $1, 's1', 'CNY', 900, 300, 20, 25, 1)",
    "INSERT INTO order_refund (order_id, refund_ref, amount_minor, at_ms, told_by) VALUES ('o' || $1, 'r1', 300, 30, 'shop')",
    "INSERT INTO reward_grant (id, campaign, source, reward, buyer, kind, state, cost_minor, hold_key, rule_snapshot, reason, at_ms, closed_at_ms) VALUES ('g' || $1, 'c1', 'join:' || $1, 'five', $1, 'coupon', 'REVOKED', 500, 'h', '{\"face_minor\":500}', 'refunded', 11, 31)",
    "INSERT INTO coupon (id, campaign, reward, title, buyer, grant_id, source, face_minor, threshold_minor, currency, valid_from_ms, valid_until_ms, state, order_id, discount_minor, used_at_ms, issued_at_ms) VALUES ('k' || $1, 'c1', 'five', 't', $1, 'g' || $1, 'join:' || $1, 500, 0, 'CNY', 0, 99, 'USED', 'o2', 450, 35, 11)",
    "INSERT INTO prize (id, campaign, reward, title, buyer, grant_id, source, cost_minor, state, claim_until_ms, drawn_at_ms) VALUES ('p' || $1, 'c1', 'tablet', 't', $1, 'g' || $1, 'draw:main:1', 9000, 'DRAWN', 99, 50)",
];

const NOTICE: &str = "INSERT INTO notice (id, key, kind, is_urgent, buyer, words, subject, state, due_at_ms, next_attempt_ms, made_at_ms) VALUES ('n' || $1, 'k' || $1, 'reminder', 0, $1, 'secret words', 'campaign:c1', 'WAITING', 0, 0, 2)";

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

/// Something that another crate tells.
struct Other;

impl HistorySource for Other {
    fn name(&self) -> &'static str {
        "other"
    }

    fn entries<'a>(
        &'a self,
        _reads: &'a mut Reader,
        _buyer: BuyerId,
        after: &'a After,
        _limit: i64,
    ) -> BoxFuture<'a, Result<Vec<HistoryEntry>, SideError>> {
        let entry = HistoryEntry {
            at: Timestamp(10),
            what: "other".to_owned(),
            campaign: None,
            detail: json!({}),
            reason: None,
            id: "1".to_owned(),
        };
        let is_after = (entry.at.0, entry.id.as_str()) > (after.at_ms, after.id.as_str());
        Box::pin(async move { Ok(if is_after { vec![entry] } else { Vec::new() }) })
    }
}

async fn shop(url: &str) -> Arc<Shop> {
    let migrations = [
        side_books::MIGRATIONS,
        side_campaign::MIGRATIONS,
        side_rewards::MIGRATIONS,
    ]
    .concat();
    let url = url.parse().unwrap();
    let database = Database::open(&url, SqlOptions::default(), &migrations);
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
        verdict_listeners: Vec::new(),
        history: vec![Arc::new(Other)],
        notifier: Arc::new(Nobody),
        zone: jiff::tz::TimeZone::UTC,
    })
}

async fn ask(
    service: &Arc<dyn SideService>,
    query: &[(&'static str, &str)],
) -> Result<Value, flash_types::side::SideProblem> {
    let request = SideRequest {
        endpoint: 0,
        path: ["a".to_owned(), String::new(), String::new()],
        query: query
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
        body: Vec::new(),
        content_type: None,
        key: None,
        caller: SideCaller::Admin("vera".to_owned()),
        address: None,
        device: None,
        now: Timestamp(1_000),
    };
    let answer = service.answer(request).await?;
    Ok(serde_json::from_slice(&answer.body).unwrap())
}

async fn write(shop: &Shop, buyer: &str) {
    let mut tx = shop.database.begin().await.unwrap();
    for sql in FACTS.into_iter().chain([NOTICE]) {
        tx.execute(sql::query(sql).bind(buyer.to_owned()))
            .await
            .unwrap();
    }
    tx.execute(query(
        "INSERT INTO refusal_count (buyer, day, refusals, last_at_ms) VALUES ('a', 5, 201, 60) ON CONFLICT DO NOTHING",
    ))
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let refused = Refused {
        buyer: BuyerId::parse(buyer).unwrap(),
        campaign: "c2",
        endpoint: "POST /v1/x",
        outcome: "campaign_full",
        detail: "all places are taken",
    };
    // Two at one time: a page may end between them.
    for now in [10, 10] {
        entry::note_refusal(shop, &refused, Timestamp(now))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_history_is_everything_once_in_order() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        write(&shop, "b").await;
        write(&shop, "a").await;
        let service = side_report::support::services(&shop).remove(0);
        let whole = ask(&service, &[]).await.unwrap();
        assert_eq!(whole["next_cursor"], Value::Null);
        let items = whole["items"].as_array().unwrap();
        let told: Vec<&str> = items
            .iter()
            .map(|item| item["what"].as_str().unwrap())
            .collect();
        let expected = [
            "notice_made",
            "task_done",
            "other",
            "joined",
            "refused",
            "refused",
            "verdict_found",
            "coupon_issued",
            "reward_granted",
            "order_paid",
            "order_received",
            "order_refunded",
            "reward_revoked",
            "coupon_used",
            "verdict_decided",
            "prize_won",
            "refusals_not_kept",
        ];
        assert_eq!(told, expected, "{url}");
        let of = |what: &str| items.iter().find(|item| item["what"] == what).unwrap();
        assert_eq!(of("reward_granted")["detail"]["rule"]["face_minor"], 500);
        assert_eq!(of("reward_granted")["reason"], "given for join:a");
        assert_eq!(of("reward_revoked")["reason"], "refunded");
        assert_eq!(of("refused")["reason"], "all places are taken");
        assert_eq!(of("order_refunded")["detail"]["amount_minor"], 300);
        assert_eq!(of("verdict_decided")["reason"], "a family");
        assert_eq!(of("notice_made")["campaign"], "c1");
        let is_amount = |item: &&Value| item["detail"].to_string().contains("_minor");
        for item in items.iter().filter(is_amount) {
            assert!(item["reason"].is_string(), "{item}");
        }
        let text = whole.to_string();
        assert!(!text.contains("secret words") && !text.contains("join:b"));
        for limit in ["1", "2", "3", "16", "17"] {
            let mut pages: Vec<Value> = Vec::new();
            let mut cursor = String::new();
            loop {
                let mut query = vec![("limit", limit)];
                if !cursor.is_empty() {
                    query.push(("cursor", &cursor));
                }
                let page = ask(&service, &query).await.unwrap();
                pages.extend(page["items"].as_array().unwrap().iter().cloned());
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = next.to_owned(),
                    None => break,
                }
            }
            assert_eq!(&pages, items, "{url} {limit}");
        }
        for bad in [("cursor", "x"), ("limit", "0")] {
            assert_eq!(
                ask(&service, &[bad]).await.unwrap_err().outcome,
                "malformed"
            );
        }
    }
}
