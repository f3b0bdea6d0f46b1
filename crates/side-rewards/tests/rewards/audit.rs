//! The proof finds what was tampered with.

use dev_servers::Databases;
use serde_json::json;
use side_books::sql::query;
use side_rewards::audit::prove;

use crate::common::{call, campaign, fund, given, grant, proved, shop};

/// A rule that is broken, by a statement behind the back of the program.
const TAMPERED: &[(&str, &str)] = &[
    (
        "reward_hold_sum",
        "UPDATE hold SET state = 'voided' WHERE key IN (SELECT hold_key FROM reward_grant WHERE source = 'a')",
    ),
    (
        "reward_hold_state",
        "UPDATE coupon SET state = 'USED', order_id = 'o', discount_minor = 1 WHERE source = 'a'",
    ),
    (
        "reward_hold_state",
        "UPDATE hold SET state = 'open' WHERE key IN (SELECT hold_key FROM reward_grant WHERE source = 'used')",
    ),
    (
        "reward_hold_amount",
        "UPDATE coupon SET discount_minor = 99 WHERE source = 'used'",
    ),
    (
        "reward_hold_amount",
        "UPDATE reward_grant SET cost_minor = 99 WHERE source = 'a'",
    ),
    (
        "reward_hold_amount",
        "UPDATE hold SET campaign = 'c2' WHERE key IN (SELECT hold_key FROM reward_grant WHERE source = 'a')",
    ),
    (
        "reward_hold_stray",
        "UPDATE hold SET key = 'grant:x' WHERE key IN (SELECT hold_key FROM reward_grant WHERE source = 'a')",
    ),
    ("reward_given_once", "DELETE FROM coupon WHERE source = 'a'"),
    ("reward_given_once", "DELETE FROM prize"),
    (
        "reward_given_once",
        "UPDATE reward_grant SET given_id = NULL WHERE source = 'a'",
    ),
    (
        "reward_given_once",
        "UPDATE coupon SET buyer = 'u9' WHERE source = 'a'",
    ),
    (
        "reward_given_once",
        "UPDATE coupon SET state = 'REVOKED' WHERE source = 'a'",
    ),
    (
        "reward_given_once",
        "UPDATE reward_grant SET state = 'WAITING' WHERE source = 'a'",
    ),
    (
        "reward_given_once",
        "UPDATE reward_grant SET state = 'REVOKED' WHERE source = 'a'",
    ),
    (
        "reward_stock_over",
        "UPDATE reward_stock SET total = 1, given = 1 WHERE reward = 'ten'",
    ),
    (
        "reward_stock_count",
        "UPDATE reward_stock SET given = given - 1 WHERE reward = 'ten'",
    ),
    (
        "reward_stock_missing",
        "DELETE FROM reward_stock WHERE reward = 'cup'",
    ),
    (
        "reward_stock_missing",
        "DELETE FROM reward_per_buyer WHERE reward = 'cup'",
    ),
    (
        "reward_buyer_count",
        "UPDATE reward_per_buyer SET given = given + 1 WHERE reward = 'ten'",
    ),
];

#[tokio::test]
async fn every_tampered_row_is_found() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        let campaign = campaign(&json!([
            {"reward": "ten", "title": "t", "type": "coupon", "face_minor": 100, "total": 10},
            {"reward": "cup", "title": "t", "type": "gift", "cost_minor": 50, "stock_units": 2},
        ]));
        fund(&shop, 1_000).await;
        given(&shop, &campaign, "a", "ten", "u1").await;
        given(&shop, &campaign, "b", "cup", "u1").await;
        let used = given(&shop, &campaign, "used", "ten", "u2").await;
        let path = "/v1/coupons/{coupon}/use";
        let body = json!({"order_id": "o1", "order_amount_minor": 30});
        call(&shop, "POST", path, &used)
            .storefront("u2")
            .body(&body)
            .yes()
            .await;
        let mut tx = shop.database.begin().await.unwrap();
        grant(&mut tx, &campaign, "w", "ten", "u3", Some("REVIEW")).await;
        tx.commit().await.unwrap();
        proved(&shop).await;
        for (code, statement) in TAMPERED {
            let mut tx = shop.database.begin().await.unwrap();
            assert!(
                tx.execute(query(statement)).await.unwrap() > 0,
                "{url} {statement}"
            );
            let found = prove(&mut tx).await.unwrap();
            tx.rollback().await;
            let is_found = found.iter().any(|(rule, _, _)| rule == code);
            assert!(is_found, "{url} {statement}: {found:?}");
        }
        proved(&shop).await;
    }
}
