//! Many at once: no one too many, nothing twice.

use std::sync::Arc;

use dev_servers::Databases;
use serde_json::json;
use side_books::SideError;
use side_campaign::life::Campaign;
use side_campaign::shop::Shop;
use side_rewards::grants::{self, Grant, Granted};

use crate::common::{NOW, buyer, call, campaign, fund, given, number, proved, shop, stands};

/// As the dispatcher does it: again where another was in the way.
async fn granted(shop: &Shop, campaign: &Campaign, source: &str, to: &str) -> Granted {
    let grant = Grant {
        source,
        reward: "r",
        buyer: buyer(to),
        order_id: None,
        verdict: None,
    };
    loop {
        let once = async {
            let mut tx = shop.database.begin().await?;
            let granted = grants::grant(&mut tx, campaign, &grant, NOW).await?;
            tx.commit().await?;
            Ok::<_, SideError>(granted)
        };
        match once.await {
            Ok(granted) => return granted,
            Err(error) if error.is_conflict() => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Which source a grant of a worker has.
type Source = fn(usize) -> String;

/// 64 workers, two grants each; how many were given.
async fn rush(shop: &Arc<Shop>, campaign: &Campaign, source: Source) -> usize {
    let mut workers = Vec::new();
    for worker in 0..64 {
        let (shop, campaign) = (shop.clone(), campaign.clone());
        workers.push(tokio::spawn(async move {
            let mut count = 0;
            for number in [worker, worker + 64] {
                let (source, to) = (source(number), format!("u{}", number % 8));
                let granted = granted(&shop, &campaign, &source, &to).await;
                count += usize::from(matches!(granted, Granted::Given { .. }));
            }
            count
        }));
    }
    let mut count = 0;
    for worker in workers {
        count += worker.await.unwrap();
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rush_gets_what_there_is_and_no_more() {
    let servers = Databases::start().unwrap();
    let own = |number: usize| format!("s{number}");
    // Budget for 80 of 100; 70 of a budget for 80; 5 for each of 8 buyers; 16 sources, each asked for 8 times.
    let shared = |number: usize| format!("s{}", number % 16);
    let cases: [(_, i64, Source, usize, i64); 4] = [
        (json!({"total": 100}), 800, own, 80, 80),
        (json!({"total": 70}), 800, own, 70, 70),
        (json!({"per_buyer": 5}), 8_000, own, 40, 40),
        (json!({"total": 100}), 800, shared, 128, 16),
    ];
    for (bounds, budget, source, told, made) in cases {
        for url in servers.urls().unwrap() {
            let shop = shop(&url).await;
            let mut reward =
                json!({"reward": "r", "title": "t", "type": "coupon", "face_minor": 10});
            let members = bounds.as_object().unwrap().clone();
            reward.as_object_mut().unwrap().extend(members);
            let campaign = campaign(&json!([reward]));
            fund(&shop, budget).await;
            assert_eq!(rush(&shop, &campaign, source).await, told, "{url} {bounds}");
            let coupons = number(&shop, "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM coupon").await;
            assert_eq!(coupons, made, "{url} {bounds}");
            assert_eq!(stands(&shop).await.held_minor, made * 10, "{url} {bounds}");
            proved(&shop).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_orders_one_gets_the_coupon() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        let campaign =
            campaign(&json!([{"reward": "r", "title": "t", "type": "coupon", "face_minor": 10}]));
        fund(&shop, 1_000).await;
        for verb in ["lock", "use", "both"] {
            let coupon = given(&shop, &campaign, verb, "r", "u1").await;
            let mut orders = Vec::new();
            for number in 0..100 {
                let verb = match verb {
                    "both" if number % 2 == 0 => "lock",
                    "both" => "use",
                    verb => verb,
                };
                let path = format!("/v1/coupons/{{coupon}}/{verb}");
                let body = json!({"order_id": format!("o{number}"), "order_amount_minor": 50});
                let call = call(&shop, "POST", &path, &coupon)
                    .storefront("u1")
                    .body(&body);
                orders.push(tokio::spawn(call.raw()));
            }
            let mut won = 0;
            for order in orders {
                match order.await.unwrap() {
                    Ok(_) => won += 1,
                    Err(problem) => assert_eq!(problem.outcome, "state_conflict", "{url}"),
                }
            }
            assert_eq!(won, 1, "{url} {verb}");
        }
        proved(&shop).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_or_taken_back_but_not_both() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        let campaign =
            campaign(&json!([{"reward": "r", "title": "t", "type": "coupon", "face_minor": 10}]));
        fund(&shop, 1_000).await;
        for round in 0..20 {
            let coupon = given(&shop, &campaign, &format!("s{round}"), "r", "u1").await;
            let body = json!({"order_id": "o1", "order_amount_minor": 50});
            let used = call(&shop, "POST", "/v1/coupons/{coupon}/use", &coupon).storefront("u1");
            let path = "/v1/admin/coupons/{coupon}/revoke";
            let revoked = call(&shop, "POST", path, &coupon).body(&json!({"reason": "x"}));
            let used = tokio::spawn(used.body(&body).raw());
            let revoked = tokio::spawn(revoked.raw());
            let (used, revoked) = (used.await.unwrap(), revoked.await.unwrap());
            assert_ne!(used.is_ok(), revoked.is_ok(), "{url} {used:?} {revoked:?}");
        }
        proved(&shop).await;
    }
}
