//! A campaign whose budget moves nothing: everybody else goes on, and what it owes is done once it may move again.

use dev_servers::Databases;
use flash_types::Timestamp;
use side_books::books;
use side_books::budget;
use side_campaign::risk::{Decision, OnVerdict as _, Standing, Stands};
use side_campaign::shop::Shop;
use side_rewards::grants::{self, Grant, Granted, Verdicts};

use crate::common::{CAMPAIGN, DAY_MS, NOW, buyer, campaign, fund, number, shop};
use serde_json::json;

async fn step(shop: &std::sync::Arc<Shop>, name: &str, now: Timestamp) {
    let steps = side_rewards::steps(shop);
    let step = steps.iter().find(|step| step.name() == name).unwrap();
    while step.step(now).await.unwrap() {}
}

async fn freeze(shop: &Shop, id: &str) {
    let mut tx = shop.database.begin().await.unwrap();
    let is_frozen = books::freeze(&mut tx, id, "wrong", "because", NOW).await;
    assert!(is_frozen.unwrap());
    tx.commit().await.unwrap();
}

async fn thaw(shop: &Shop, id: &str) {
    let mut tx = shop.database.begin().await.unwrap();
    assert!(books::thaw(&mut tx, id).await.unwrap());
    tx.commit().await.unwrap();
}

fn stands(standing: Standing, decision: Option<Decision>) -> Stands {
    Stands {
        campaign: CAMPAIGN.to_owned(),
        buyer: buyer("u1"),
        standing,
        verdict: "v1".to_owned(),
        rule: "address_burst".to_owned(),
        decision,
        reason: "why".to_owned(),
    }
}

#[tokio::test]
async fn one_frozen_campaign_stops_no_other_and_is_caught_up() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        let one = campaign(&json!([
            {"reward": "ten", "title": "t", "type": "coupon", "face_minor": 100, "term_days": 1},
        ]));
        let mut other = one.clone();
        other.id = "c2".to_owned();
        fund(&shop, 1_000).await;
        let mut tx = shop.database.begin().await.unwrap();
        budget::fund(&mut tx, "c2", "CNY", 1_000, "fund|c2", NOW)
            .await
            .unwrap();
        for campaign in [&one, &other] {
            for who in ["u1", "u2"] {
                let grant = Grant {
                    source: &format!("join:{who}"),
                    reward: "ten",
                    buyer: buyer(who),
                    order_id: None,
                    verdict: None,
                };
                let given = grants::grant(&mut tx, campaign, &grant, NOW).await.unwrap();
                assert!(matches!(given, Granted::Given { .. }));
            }
        }
        tx.commit().await.unwrap();

        // A verdict on a buyer of the frozen one is taken, and followed later.
        freeze(&shop, CAMPAIGN).await;
        let mut tx = shop.database.begin().await.unwrap();
        let denied = stands(Standing::Deny, None);
        Verdicts.on_verdict(&mut tx, &denied, NOW).await.unwrap();
        tx.commit().await.unwrap();
        let revoked = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM coupon WHERE state = 'REVOKED'";
        step(&shop, "verdicts_put_off", NOW).await;
        assert_eq!(number(&shop, revoked).await, 0, "{url}");

        // Two days later all coupons are over: those of the other campaign are tidied.
        let later = Timestamp(NOW.0 + 2 * DAY_MS);
        step(&shop, "coupons", later).await;
        let expired = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM coupon WHERE state = 'EXPIRED'";
        assert_eq!(number(&shop, expired).await, 2, "{url}");

        thaw(&shop, CAMPAIGN).await;
        step(&shop, "verdicts_put_off", NOW).await;
        assert_eq!(number(&shop, revoked).await, 1, "{url}");
        step(&shop, "coupons", later).await;
        assert_eq!(number(&shop, expired).await, 3, "{url}");
        let held = "SELECT balance AS n FROM account WHERE id = 'budget:c1:held'";
        assert_eq!(number(&shop, held).await, 0, "{url}");
        let waits = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM verdict_put_off";
        assert_eq!(number(&shop, waits).await, 0, "{url}");
    }
}
