//! The endpoints: what is taken, what is refused, what happens at once.

use std::sync::Arc;
use std::time::Duration;

use dev_servers::Databases;
use flash_types::side::{SideAnswer, SideCaller, SideProblem, SideRequest, SideService};
use flash_types::{BuyerId, IdempotencyKey, Timestamp};
use serde_json::{Value, json};
use side_campaign::orders;

use crate::shops::{Dice, NOW, TestShop};

const RECORD: usize = 0;
const LIST: usize = 1;
const SHOW: usize = 2;
const RECEIVE: usize = 3;
const REFUND: usize = 4;

fn request(endpoint: usize, order: &str, body: &Value, key: Option<&str>) -> SideRequest {
    SideRequest {
        endpoint,
        path: [order.to_owned(), String::new(), String::new()],
        query: Vec::new(),
        body: body.to_string().into_bytes(),
        content_type: None,
        key: key.map(|key| IdempotencyKey::parse(key).unwrap()),
        caller: SideCaller::Storefront(None),
        address: None,
        device: None,
        now: NOW,
    }
}

fn service(shop: &TestShop) -> Arc<dyn SideService> {
    orders::services(&shop.shop).pop().unwrap()
}

pub async fn post(
    shop: &TestShop,
    endpoint: usize,
    order: &str,
    body: &Value,
    key: Option<&str>,
) -> Result<SideAnswer, SideProblem> {
    let request = request(endpoint, order, body, key);
    service(shop).answer(request).await
}

pub async fn refund(
    shop: &TestShop,
    order: &str,
    refund_ref: &str,
    amount_minor: i64,
) -> Result<SideAnswer, SideProblem> {
    let body = json!({"refund_ref": refund_ref, "amount_minor": amount_minor});
    post(shop, REFUND, order, &body, None).await
}

fn order(id: &str, buyer: &str) -> Value {
    json!({
        "order_id": id, "buyer_id": buyer, "currency": "CNY", "paid_minor": 1_000, "paid_at": NOW,
        "lines": [
            {"item": "a", "title": "Tea", "quantity": 2, "unit_price_minor": 300},
            {"item": "b", "quantity": 1, "unit_price_minor": 500},
            {"item": "a", "quantity": 1, "unit_price_minor": 200},
        ],
    })
}

fn json_of(answer: &SideAnswer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// As a client does: what was not done is tried again with the same key.
async fn insisted(service: Arc<dyn SideService>, request: SideRequest) -> Result<u16, SideProblem> {
    for _ in 0..50 {
        match service.answer(request.clone()).await {
            Ok(answer) => return Ok(answer.status),
            Err(problem) if problem.status == 503 => {}
            Err(problem) => return Err(problem),
        }
    }
    panic!("still not available");
}

#[tokio::test]
async fn orders_are_taken_shown_received_and_refunded() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = TestShop::open(&url).await;
        let made = post(&shop, RECORD, "", &order("o1", "u1"), Some("k1")).await;
        let made = made.unwrap();
        assert_eq!(
            (made.status, made.location.as_deref()),
            (201, Some("/v1/orders/o1"))
        );
        let view = json_of(&made);
        assert_eq!(view["is_first"], true);
        assert_eq!(view["lines"][2]["line"], 2);
        assert_eq!(view["source"], "shop");
        let second = post(&shop, RECORD, "", &order("o2", "u1"), Some("k2")).await;
        assert_eq!(json_of(&second.unwrap())["is_first"], false);
        // The same with its key, the same with another, another one with another key.
        let replay = post(&shop, RECORD, "", &order("o1", "u1"), Some("k1")).await;
        assert!(replay.unwrap().is_replay);
        let again = post(&shop, RECORD, "", &order("o1", "u1"), Some("k3")).await;
        assert_eq!(again.unwrap().status, 200);
        for (field, value) in [
            ("buyer_id", json!("u2")),
            ("paid_minor", json!(999)),
            ("currency", json!("EUR")),
            ("paid_at", json!(Timestamp(NOW.0 - 1))),
            (
                "lines",
                json!([{"item": "a", "quantity": 2, "unit_price_minor": 300}]),
            ),
        ] {
            let mut other = order("o1", "u1");
            other[field] = value;
            let refused = post(&shop, RECORD, "", &other, Some(field)).await;
            assert_eq!(refused.unwrap_err().outcome, "state_conflict", "{field}");
        }
        let reused = post(&shop, RECORD, "", &order("o9", "u1"), Some("k1")).await;
        assert_eq!(reused.unwrap_err().status, 422);
        // Received: the first time holds.
        let at = |ms: i64| json!({"received_at": Timestamp(NOW.0 + ms)});
        let received = post(&shop, RECEIVE, "o1", &at(-5), None).await.unwrap();
        let again = post(&shop, RECEIVE, "o1", &at(-1), None).await.unwrap();
        assert_eq!(json_of(&received), json_of(&again));
        assert_eq!(json_of(&again)["received_at"], json!(Timestamp(NOW.0 - 5)));
        // Refunds: units land on lines of their item, the first ones first.
        let body = json!({"refund_ref": "f1", "amount_minor": 700, "lines": [{"item": "a", "quantity": 3}]});
        for _ in 0..2 {
            let refunded = json_of(&post(&shop, REFUND, "o1", &body, None).await.unwrap());
            assert_eq!(refunded["refunded_minor"], 700);
            assert_eq!(refunded["lines"][0]["refunded_units"], 2);
            assert_eq!(refunded["lines"][2]["refunded_units"], 1);
        }
        let body =
            json!({"refund_ref": "f2", "amount_minor": 1, "lines": [{"item": "a", "quantity": 1}]});
        let more = post(&shop, REFUND, "o1", &body, None);
        assert_eq!(more.await.unwrap_err().status, 409);
        assert_eq!(refund(&shop, "o1", "f1", 1).await.unwrap_err().status, 409);
        let too_much = refund(&shop, "o1", "f3", 301).await.unwrap_err();
        assert_eq!(too_much.more["left_minor"], 300);
        assert_eq!(refund(&shop, "o1", "f3", 300).await.unwrap().status, 200);
        let expected = [
            ("paid o1", 1_000),
            ("paid o2", 1_000),
            ("received o1", 0),
            ("refunded o1", 700),
            ("refunded o1", 300),
        ];
        let told = shop.told().await;
        let told: Vec<_> = told
            .iter()
            .map(|(fact, amount)| (fact.as_str(), *amount))
            .collect();
        assert_eq!(told, expected, "{url}");
        let shown = post(&shop, SHOW, "o1", &json!({}), None).await.unwrap();
        assert_eq!(json_of(&shown)["refunds"][1]["amount_minor"], 300);
        for endpoint in [SHOW, RECEIVE] {
            let nothing = post(&shop, endpoint, "o7", &json!({}), None).await;
            assert_eq!(nothing.unwrap_err().status, 404);
        }
        assert_eq!(refund(&shop, "o7", "f", 1).await.unwrap_err().status, 404);
        shop.audited().await;
    }
}

#[tokio::test]
async fn lists_go_on_where_they_ended_and_the_first_payment_is_known() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = TestShop::open(&url).await;
        for number in 0..7_i64 {
            let mut order = order(&format!("o_{number}"), "u1");
            // Some at the same time; the first to come is not the first that was paid.
            order["paid_at"] = json!(Timestamp(NOW.0 - number / 2));
            let key = format!("k{number}");
            post(&shop, RECORD, "", &order, Some(&key)).await.unwrap();
        }
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let mut request = request(LIST, "", &json!({}), None);
            request.query = vec![("buyer", "u1".into()), ("limit", "3".into())];
            request
                .query
                .extend(cursor.map(|cursor: String| ("cursor", cursor)));
            let page = json_of(&service(&shop).answer(request).await.unwrap());
            let items = page["items"].as_array().unwrap();
            seen.extend(
                items
                    .iter()
                    .map(|item| item["order_id"].as_str().unwrap().to_owned()),
            );
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["o_1", "o_0", "o_3", "o_2", "o_5", "o_4", "o_6"]);
        let mut reader = shop.shop.database.read().await.unwrap();
        let buyer = |id: &str| BuyerId::parse(id).unwrap();
        let first = orders::first_paid_at(&mut reader, &buyer("u1")).await;
        assert_eq!(first.unwrap(), Some(Timestamp(NOW.0 - 3)));
        let nobody = orders::first_paid_at(&mut reader, &buyer("u2")).await;
        assert_eq!(nobody.unwrap(), None);
        let mut bad = request(LIST, "", &json!({}), None);
        assert_eq!(
            service(&shop).answer(bad.clone()).await.unwrap_err().status,
            400
        );
        bad.query = vec![("buyer", "u1".into()), ("cursor", "x".into())];
        assert_eq!(service(&shop).answer(bad).await.unwrap_err().status, 400);
    }
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let servers = Databases::start().unwrap();
    let shop = TestShop::open(&servers.urls().unwrap()[0]).await;
    let line = |line: Value| json!([line]);
    for (field, value, named) in [
        ("order_id", json!("a b"), "order_id"),
        ("order_id", json!("x".repeat(65)), "order_id"),
        ("buyer_id", json!(""), "buyer_id"),
        ("currency", json!("cny"), "currency"),
        ("paid_minor", json!(-1), "paid_minor"),
        ("paid_minor", json!(1_000_000_000_001_i64), "paid_minor"),
        ("paid_minor", json!(1.5), "1.5"),
        (
            "paid_at",
            json!(NOW.plus(Duration::from_secs(61))),
            "paid_at",
        ),
        ("paid_at", json!("yesterday"), "time"),
        ("lines", json!([]), "lines"),
        (
            "lines",
            json!(vec![
                json!({"item": "a", "quantity": 1, "unit_price_minor": 1});
                101
            ]),
            "lines",
        ),
        (
            "lines",
            line(json!({"item": "a", "quantity": 0, "unit_price_minor": 1})),
            "lines[0].quantity",
        ),
        (
            "lines",
            line(json!({"item": "a", "quantity": 1, "unit_price_minor": -1})),
            "lines[0].unit_price_minor",
        ),
        (
            "lines",
            line(json!({"item": "a", "title": "", "quantity": 1, "unit_price_minor": 1})),
            "lines[0].title",
        ),
        (
            "lines",
            line(json!({"item": "a/b", "quantity": 1, "unit_price_minor": 1})),
            "item",
        ),
        ("more", json!(1), "more"),
    ] {
        let mut body = order("o1", "u1");
        body[field] = value;
        let problem = post(&shop, RECORD, "", &body, Some("k1"))
            .await
            .unwrap_err();
        assert_eq!(problem.outcome, "malformed", "{field}");
        assert!(
            problem.detail.contains(named),
            "{field}: {}",
            problem.detail
        );
    }
    // A little ahead is another clock.
    let mut body = order("o1", "u1");
    body["paid_at"] = json!(NOW.plus(Duration::from_secs(60)));
    assert_eq!(
        post(&shop, RECORD, "", &body, Some("k1"))
            .await
            .unwrap()
            .status,
        201
    );
    // Ids of the engine's form are the engine's.
    let refused = post(&shop, RECORD, "", &order("r1-5", "u1"), Some("k2")).await;
    assert_eq!(refused.unwrap_err().outcome, "state_conflict");
    let free = post(&shop, RECORD, "", &order("r01-5", "u1"), Some("k2")).await;
    assert_eq!(free.unwrap().status, 201);
    // Everything that is named is described.
    let service = service(&shop);
    let schemas = service.schemas();
    for endpoint in service.endpoints() {
        let names = endpoint.answers.iter().map(|(_, name)| *name);
        for name in names.chain(endpoint.body) {
            assert!(schemas.iter().any(|(known, _)| *known == name), "{name}");
        }
    }
    let text = serde_json::to_string(&schemas).unwrap();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.iter().any(|(known, _)| *known == name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_at_once_are_one_order() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = TestShop::open(&url).await;
        // Half of them with one key, half with keys of their own.
        let calls = (0..100).map(|number| {
            let key = if number % 2 == 0 { 0 } else { number };
            let request = request(RECORD, "", &order("o1", "u1"), Some(&format!("k{key}")));
            tokio::spawn(insisted(service(&shop), request))
        });
        let mut statuses = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            statuses.push(call.await.unwrap().unwrap());
        }
        statuses.sort_unstable();
        assert_eq!(statuses[..99], [200; 99], "{url}");
        assert_eq!(statuses[99], 201, "{url}");
        assert_eq!(shop.told().await, [("paid o1".to_owned(), 1_000)]);
        // Twenty orders of one buyer: one of them is the first.
        let calls = (0..20).map(|number| {
            let order = order(&format!("p{number}"), "u2");
            let request = request(RECORD, "", &order, Some(&format!("p{number}")));
            tokio::spawn(insisted(service(&shop), request))
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap().unwrap(), 201);
        }
        shop.audited().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refunds_at_once_never_give_back_more_than_was_paid() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = TestShop::open(&url).await;
        for seed in 1..=4 {
            let id = format!("o{seed}");
            let mut dice = Dice::new(seed);
            let made = post(&shop, RECORD, "", &order(&id, "u1"), Some(&id)).await;
            made.unwrap();
            let calls = (0..40).map(|_| {
                // Some names come twice, some of them with another amount.
                let (name, amount) = (dice.roll(25), 1 + dice.roll(150) / 50 * 50);
                let mut body = json!({"refund_ref": format!("f{name}"), "amount_minor": amount});
                if dice.roll(4) == 0 {
                    body["lines"] = json!([{"item": "a", "quantity": 1}]);
                }
                let request = request(REFUND, &id, &body, None);
                tokio::spawn(insisted(service(&shop), request))
            });
            let mut refused = 0;
            for call in calls.collect::<Vec<_>>() {
                match call.await.unwrap() {
                    Ok(status) => assert_eq!(status, 200),
                    Err(problem) => {
                        assert_eq!(problem.outcome, "state_conflict");
                        refused += 1;
                    }
                }
            }
            assert!(refused < 40, "{url}");
            shop.audited().await;
        }
    }
}
