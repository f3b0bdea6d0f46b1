//! Grants: unique per source, whole or not at all, waiting and taken back.

use dev_servers::Databases;
use serde_json::json;
use side_books::sql::{Get as _, Reads as _, Tx, query};
use side_rewards::grants::{self, Batch, BatchRefusal, Dry, Granted};

use crate::common::{
    CAMPAIGN, NOW, buyer, call, campaign, fund, given, grant, number, proved, shop, stands,
};

/// All that could have changed.
async fn snapshot(tx: &mut Tx) -> Vec<String> {
    let tables = [
        "SELECT id || '=' || CAST(balance AS TEXT) AS t FROM account ORDER BY id",
        "SELECT key || state || CAST(amount AS TEXT) AS t FROM hold ORDER BY key",
        "SELECT id || state || COALESCE(given_id, '-') AS t FROM reward_grant ORDER BY id",
        "SELECT reward || CAST(given AS TEXT) || CAST(COALESCE(total, -1) AS TEXT) AS t FROM reward_stock ORDER BY reward",
        "SELECT reward || buyer || CAST(given AS TEXT) AS t FROM reward_per_buyer ORDER BY reward, buyer",
        "SELECT id || state AS t FROM coupon ORDER BY id",
        "SELECT id || state AS t FROM prize ORDER BY id",
        "SELECT CAST(COUNT(*) AS TEXT) AS t FROM transfer",
    ];
    let mut all = Vec::new();
    for table in tables {
        for row in tx.rows(query(table)).await.unwrap() {
            all.push(row.text("t").unwrap());
        }
    }
    all
}

#[tokio::test]
async fn what_runs_dry_changes_nothing_and_the_transaction_goes_on() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        let campaign = campaign(&json!([
            {"reward": "few", "title": "t", "type": "coupon", "face_minor": 100, "total": 2},
            {"reward": "once", "title": "t", "type": "coupon", "face_minor": 100, "per_buyer": 1},
            {"reward": "none", "title": "t", "type": "coupon", "face_minor": 100, "per_buyer": 0},
            {"reward": "dear", "title": "t", "type": "gift", "cost_minor": 701, "stock_units": 5},
            {"reward": "fits", "title": "t", "type": "gift", "cost_minor": 700, "stock_units": 1},
            {"reward": "free", "title": "t", "type": "gift", "cost_minor": 0, "stock_units": 1},
        ]));
        fund(&shop, 1_000).await;
        let mut tx = shop.database.begin().await.unwrap();
        for (source, reward) in [("a", "few"), ("b", "few"), ("c", "once")] {
            let granted = grant(&mut tx, &campaign, source, reward, "u1", None).await;
            assert!(matches!(granted, Granted::Given { .. }), "{url} {source}");
        }
        let before = snapshot(&mut tx).await;
        for (source, reward, to) in [
            ("d", "few", "u2"),
            ("e", "once", "u1"),
            ("f", "dear", "u2"),
            ("g", "none", "u2"),
        ] {
            let granted = grant(&mut tx, &campaign, source, reward, to, None).await;
            assert_eq!(granted, Granted::RunDry, "{url} {source}");
            assert_eq!(snapshot(&mut tx).await, before, "{url} {source}");
        }
        // The last of the budget, in the same transaction; and what costs nothing.
        let granted = grant(&mut tx, &campaign, "f", "fits", "u2", None).await;
        assert!(matches!(granted, Granted::Given { .. }), "{url}");
        let granted = grant(&mut tx, &campaign, "h", "free", "u2", None).await;
        assert!(matches!(granted, Granted::Given { .. }), "{url}");
        assert_eq!(
            grant(&mut tx, &campaign, "i", "free", "u2", None).await,
            Granted::RunDry
        );
        tx.commit().await.unwrap();
        let left = stands(&shop).await;
        assert_eq!((left.available_minor, left.held_minor), (0, 1_000), "{url}");
        proved(&shop).await;
        // A reward that the definition does not name is a mistake of the caller's.
        let mut tx = shop.database.begin().await.unwrap();
        let unknown = grants::Grant {
            source: "z",
            reward: "nothing",
            buyer: buyer("u1"),
            order_id: None,
            verdict: None,
        };
        assert!(
            grants::grant(&mut tx, &campaign, &unknown, NOW)
                .await
                .is_err()
        );
    }
}

#[tokio::test]
async fn a_total_that_was_raised_is_reached_and_no_further() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        fund(&shop, 1_000).await;
        let of = |total: i64| {
            campaign(
                &json!([{"reward": "r", "title": "t", "type": "gift", "cost_minor": 1, "stock_units": total}]),
            )
        };
        let mut tx = shop.database.begin().await.unwrap();
        let mut outcomes = Vec::new();
        for (source, total) in [("a", 1), ("b", 1), ("c", 3), ("d", 1), ("e", 3), ("f", 1)] {
            let granted = grant(&mut tx, &of(total), source, "r", "u1", None).await;
            outcomes.push(granted != Granted::RunDry);
        }
        // A session under the older version has what the newer one raised; nobody gets a fourth.
        assert_eq!(outcomes, [true, false, true, true, false, false], "{url}");
        tx.commit().await.unwrap();
        proved(&shop).await;
    }
}

#[tokio::test]
async fn verdicts_make_rewards_wait_and_give_them_or_take_them_back() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        let campaign = campaign(&json!([
            {"reward": "ten", "title": "t", "type": "coupon", "face_minor": 100, "total": 10, "per_buyer": 3},
            {"reward": "cup", "title": "t", "type": "gift", "cost_minor": 50, "stock_units": 2},
        ]));
        fund(&shop, 1_000).await;
        let mut tx = shop.database.begin().await.unwrap();
        // Denied: nothing, as often as it is asked.
        for _ in 0..2 {
            let granted = grant(&mut tx, &campaign, "no", "ten", "u1", Some("DENY")).await;
            assert_eq!(granted, Granted::Denied);
        }
        // Under review: budget and counts are taken, and nothing can be used.
        for _ in 0..2 {
            let granted = grant(&mut tx, &campaign, "w", "ten", "u1", Some("REVIEW")).await;
            assert_eq!(granted, Granted::Waiting);
            let granted = grant(&mut tx, &campaign, "w", "cup", "u1", Some("REVIEW")).await;
            assert_eq!(granted, Granted::Waiting);
        }
        tx.commit().await.unwrap();
        assert_eq!(stands(&shop).await.held_minor, 150, "{url}");
        assert_eq!(
            number(&shop, "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM coupon").await,
            0
        );
        proved(&shop).await;

        // Allowed: made now, the source is answered with it.
        let mut tx = shop.database.begin().await.unwrap();
        grants::on_verdict(&mut tx, CAMPAIGN, "u1", false, "looked at", NOW)
            .await
            .unwrap();
        let again = grant(&mut tx, &campaign, "w", "ten", "u1", Some("REVIEW")).await;
        assert!(matches!(again, Granted::Given { .. }), "{url}");
        let same = grant(&mut tx, &campaign, "w", "ten", "u1", None).await;
        assert_eq!(same, again);
        assert_eq!(
            grant(&mut tx, &campaign, "w", "ten", "u1", Some("DENY")).await,
            again
        );
        assert_eq!(
            grant(&mut tx, &campaign, "v", "ten", "u1", Some("REVIEW")).await,
            Granted::Waiting
        );
        tx.commit().await.unwrap();
        proved(&shop).await;

        // One is used; then the buyer is denied: all but that is gone.
        let used = given(&shop, &campaign, "used", "ten", "u1").await;
        call(&shop, "POST", "/v1/coupons/{coupon}/use", &used)
            .storefront("u1")
            .body(&json!({"order_id": "o1", "order_amount_minor": 30}))
            .yes()
            .await;
        let mut tx = shop.database.begin().await.unwrap();
        let revoked = grants::on_verdict(&mut tx, CAMPAIGN, "u1", true, "ring", NOW)
            .await
            .unwrap();
        assert_eq!(
            (revoked.taken.len(), revoked.kept),
            (3, vec![used]),
            "{url}"
        );
        assert_eq!(
            grant(&mut tx, &campaign, "w", "ten", "u1", None).await,
            Granted::Denied
        );
        tx.commit().await.unwrap();
        let left = stands(&shop).await;
        assert_eq!((left.held_minor, left.spent_minor), (0, 30), "{url}");
        proved(&shop).await;
        // The counts came back: two more for this buyer, both cups.
        for source in ["x", "y"] {
            given(&shop, &campaign, source, "ten", "u1").await;
            given(&shop, &campaign, source, "cup", "u1").await;
        }
        let mut tx = shop.database.begin().await.unwrap();
        assert_eq!(
            grant(&mut tx, &campaign, "z", "ten", "u1", None).await,
            Granted::RunDry
        );
        let revoked = grants::revoke(&mut tx, CAMPAIGN, "x", "mistake", NOW)
            .await
            .unwrap();
        assert_eq!(revoked.taken.len(), 2);
        let again = grants::revoke(&mut tx, CAMPAIGN, "x", "mistake", NOW)
            .await
            .unwrap();
        assert_eq!(again, grants::Revoked::default());
        tx.commit().await.unwrap();
        proved(&shop).await;
    }
}

#[tokio::test]
async fn a_batch_gives_to_all_or_to_none() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        let campaign = campaign(&json!([
            {"reward": "r", "title": "t", "type": "coupon", "face_minor": 10, "total": 5, "per_buyer": 1},
            {"reward": "dear", "title": "t", "type": "coupon", "face_minor": 40},
        ]));
        fund(&shop, 100).await;
        let buyers: Vec<_> = (0..6).map(|n| buyer(&format!("u{n}"))).collect();
        let all = async |key: &str, reward: &str, buyers: &[_]| {
            let mut tx = shop.database.begin().await.unwrap();
            let batch = Batch {
                key,
                reward,
                buyers,
            };
            let given = grants::grant_all(&mut tx, &campaign, &batch, NOW)
                .await
                .unwrap();
            if given.is_ok() {
                tx.commit().await.unwrap();
            } else {
                tx.rollback().await;
            }
            given
        };
        assert_eq!(
            all("k", "r", &buyers).await,
            Err(BatchRefusal::Dry(Dry::Stock, None))
        );
        assert_eq!(
            all("k", "dear", &buyers[..3]).await,
            Err(BatchRefusal::Dry(Dry::Budget, None))
        );
        assert_eq!(
            all("k", "x", &buyers).await,
            Err(BatchRefusal::NoSuchReward)
        );
        assert_eq!(all("k", "r", &buyers[..4]).await.unwrap().len(), 4);
        assert_eq!(
            all("k", "r", &buyers[3..5]).await,
            Err(BatchRefusal::AgainFor(buyers[3]))
        );
        let one = Some(buyers[3]);
        assert_eq!(
            all("l", "r", &buyers[3..4]).await,
            Err(BatchRefusal::Dry(Dry::PerBuyer, one))
        );
        // Five of five: not one less, not one more.
        assert_eq!(
            all("l", "r", &buyers[3..5]).await,
            Err(BatchRefusal::Dry(Dry::Stock, None))
        );
        assert_eq!(all("l", "r", &buyers[5..]).await.unwrap().len(), 1);
        assert_eq!(stands(&shop).await.held_minor, 50, "{url}");
        proved(&shop).await;

        let path = "/v1/admin/campaigns/{campaign}/grants";
        let give = |body: serde_json::Value| call(&shop, "POST", path, "nope").key("k").body(&body);
        let good = json!({"reward": "r", "buyers": ["u1"], "reason": "sorry"});
        assert_eq!(give(good).no().await, (404, "not_found"));
        let many: Vec<String> = (0..201).map(|n| format!("u{n}")).collect();
        for bad in [
            json!({"reward": "r", "buyers": [], "reason": "sorry"}),
            json!({"reward": "r", "buyers": many, "reason": "sorry"}),
            json!({"reward": "r", "buyers": ["u1", "u1"], "reason": "sorry"}),
            json!({"reward": "r", "buyers": ["u 1"], "reason": "sorry"}),
            json!({"reward": "r", "buyers": ["u1"], "reason": " "}),
            json!({"reward": "{r}", "buyers": ["u1"], "reason": "x"}),
            json!({"reward": "r", "buyers": ["u1"], "reason": "x", "more": 1}),
        ] {
            assert_eq!(give(bad).no().await, (400, "malformed"));
        }
    }
}
