//! Prizes by their endpoints and steps.

use dev_servers::Databases;
use flash_types::Timestamp;
use serde_json::{Value, json};
use side_books::sql::{Get as _, Reads as _, query};
use side_rewards::grants;
use side_rewards::prizes::model::{ADDRESS_KEPT_MS, CLAIM_MS};

use crate::common::{
    CAMPAIGN, NOW, call, campaign, fund, given, number, proved, shop, stands, step,
};

const ADDRESSES: &str =
    "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM prize WHERE address_sealed IS NOT NULL";

fn after(ms: i64) -> Timestamp {
    Timestamp(NOW.0 + ms)
}

fn home(street: &str) -> Value {
    json!({"name": "Ann Li", "phone": "+86 139-0000-0000", "address": street})
}

#[tokio::test]
async fn a_prize_is_claimed_shipped_and_received() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        let campaign = campaign(&json!([
            {"reward": "cup", "title": "A cup", "type": "gift", "cost_minor": 500, "stock_units": 3},
        ]));
        fund(&shop, 10_000).await;
        let cup = given(&shop, &campaign, "a", "cup", "u1").await;
        let claim = |key: &str, body: &Value| {
            call(&shop, "POST", "/v1/prizes/{prize}/claim", &cup)
                .buyer("u1")
                .key(key)
                .body(body)
        };
        let ship = || {
            let path = "/v1/admin/prizes/{prize}/ship";
            call(&shop, "POST", path, &cup).body(&json!({"carrier": "SF", "tracking": "1"}))
        };
        let receive = |of: &str| call(&shop, "POST", "/v1/prizes/{prize}/received", &cup).buyer(of);
        let address = || call(&shop, "GET", "/v1/admin/prizes/{prize}/address", &cup);
        let erase = || call(&shop, "DELETE", "/v1/admin/prizes/{prize}/address", &cup);
        assert_eq!(ship().no().await, (409, "state_conflict"));
        assert_eq!(receive("u1").no().await, (409, "state_conflict"));
        assert_eq!(address().no().await, (409, "state_conflict"));
        assert_eq!(
            claim("k", &home("1 Main Road")).buyer("u2").no().await,
            (404, "not_found")
        );
        for bad in [
            json!({"name": "", "phone": "12345", "address": "x"}),
            json!({"name": "x", "phone": "1234", "address": "x"}),
            json!({"name": "x", "phone": "12345x", "address": "x"}),
            json!({"name": "x", "phone": "12345", "address": "x".repeat(513)}),
            json!({"name": "x", "phone": "12345", "address": "a\nb"}),
            json!({"name": "x", "phone": "12345"}),
        ] {
            assert_eq!(claim("k", &bad).no().await, (400, "malformed"), "{bad}");
        }
        let claimed = claim("k", &home("1 Main Road")).yes().await;
        assert_eq!(
            (&claimed["state"], &claimed["has_address"]),
            (&json!("CLAIMED"), &json!(true))
        );
        assert!(!claimed.to_string().contains("Main"), "{claimed}");
        let again = claim("k", &home("1 Main Road")).raw().await.unwrap();
        assert!(again.is_replay && again.status == 200);
        assert_eq!(
            claim("k", &home("2 Main Road")).no().await,
            (422, "idempotency_key_reused")
        );
        claim("l", &home("2 Main Road")).yes().await;
        assert_eq!(address().yes().await, home("2 Main Road"));
        // Erased before shipping, it waits again.
        assert_eq!(erase().yes().await["state"], "DRAWN");
        assert_eq!(
            (
                erase().yes().await["state"].clone(),
                number(&shop, ADDRESSES).await
            ),
            (json!("DRAWN"), 0)
        );
        claim("m", &home("3 Main Road")).yes().await;
        assert_eq!(stands(&shop).await.spent_minor, 0);
        assert_eq!(ship().yes().await["state"], "FULFILLING");
        assert_eq!(ship().yes().await["tracking"], "1");
        assert_eq!(stands(&shop).await.spent_minor, 500, "{url}");
        assert_eq!(
            claim("n", &home("4 Main Road")).no().await,
            (409, "state_conflict")
        );
        assert_eq!(receive("u2").no().await, (404, "not_found"));
        let received = receive("u1").at(after(1_000)).yes().await;
        assert_eq!(received["state"], "DELIVERED");
        assert_eq!(receive("u1").at(after(2_000)).yes().await, received);
        assert_eq!(ship().no().await, (409, "state_conflict"));
        // Kept for 90 days, then gone; the prize stays delivered.
        step(&shop, "addresses", after(1_000 + ADDRESS_KEPT_MS - 1)).await;
        assert_eq!(number(&shop, ADDRESSES).await, 1);
        step(&shop, "addresses", after(1_000 + ADDRESS_KEPT_MS)).await;
        assert_eq!(number(&shop, ADDRESSES).await, 0, "{url}");
        assert_eq!(erase().yes().await["state"], "DELIVERED");
        // Who looked, not at what.
        let mut reader = shop.database.read().await.unwrap();
        let notes = reader.rows(query(
            "SELECT who, what, detail FROM audit_note ORDER BY id",
        ));
        let mut looks = 0;
        for row in notes.await.unwrap() {
            let (who, what, detail) = (
                row.text("who"),
                row.text("what").unwrap(),
                row.text("detail"),
            );
            assert_eq!(who.unwrap(), "ann");
            assert!(!detail.unwrap().contains("Main"));
            looks += usize::from(what == "prize.address_read");
        }
        assert_eq!(looks, 1);
        drop(reader);
        proved(&shop).await;
    }
}

#[tokio::test]
async fn unclaimed_and_withdrawn_prizes_go_back() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        let campaign = campaign(&json!([
            {"reward": "cup", "title": "A cup", "type": "gift", "cost_minor": 500, "stock_units": 3},
        ]));
        fund(&shop, 1_500).await;
        let [slow, quick, bad] = [
            given(&shop, &campaign, "a", "cup", "u1").await,
            given(&shop, &campaign, "b", "cup", "u1").await,
            given(&shop, &campaign, "c", "cup", "u2").await,
        ];
        let claim = |prize: &str, of: &str| {
            let path = "/v1/prizes/{prize}/claim";
            call(&shop, "POST", path, prize)
                .buyer(of)
                .key("k")
                .body(&home("1 Main Road"))
        };
        claim(&quick, "u1").at(after(CLAIM_MS - 1)).yes().await;
        claim(&bad, "u2").yes().await;
        // Over at the moment of the claim, whether or not the step ran.
        assert_eq!(
            claim(&slow, "u1").at(after(CLAIM_MS)).no().await,
            (409, "prize_expired")
        );
        let list = |state: &str| {
            call(
                &shop,
                "GET",
                "/v1/admin/campaigns/{campaign}/prizes",
                CAMPAIGN,
            )
            .query("state", state)
            .at(after(CLAIM_MS))
        };
        let count = |page: &Value| page["items"].as_array().unwrap().len();
        assert_eq!(count(&list("EXPIRED").yes().await), 1, "{url}");
        assert_eq!(count(&list("CLAIMED").yes().await), 2, "{url}");
        step(&shop, "prizes", after(CLAIM_MS - 1)).await;
        assert_eq!(stands(&shop).await.held_minor, 1_500);
        step(&shop, "prizes", after(CLAIM_MS)).await;
        assert_eq!(stands(&shop).await.held_minor, 1_000, "{url}");
        let mut tx = shop.database.begin().await.unwrap();
        let revoked = grants::revoke(&mut tx, CAMPAIGN, "c", "ring", NOW)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        assert_eq!(revoked.taken, [bad], "{url}");
        // Withdrawn: its address is forgotten at once.
        assert_eq!(number(&shop, ADDRESSES).await, 1);
        proved(&shop).await;
        // Both are there to be given again, and no third.
        given(&shop, &campaign, "d", "cup", "u3").await;
        given(&shop, &campaign, "e", "cup", "u3").await;
        let mut tx = shop.database.begin().await.unwrap();
        let third = crate::common::grant(&mut tx, &campaign, "f", "cup", "u3", None).await;
        assert_eq!(third, grants::Granted::RunDry);
        tx.rollback().await;
        let mine = call(&shop, "GET", "/v1/prizes", "").buyer("u3").yes().await;
        assert_eq!(count(&mine), 2);
        proved(&shop).await;
    }
}
