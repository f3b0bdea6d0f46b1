//! Coupons by their endpoints.

use dev_servers::Databases;
use flash_types::Timestamp;
use serde_json::{Value, json};
use side_rewards::coupons::model::LOCK_MS;

use crate::common::{DAY_MS, NOW, call, campaign, fund, given, number, proved, shop, stands, step};

fn after(ms: i64) -> Timestamp {
    Timestamp(NOW.0 + ms)
}

fn rewards() -> Value {
    json!([
        {"reward": "ten", "title": "10 off", "type": "coupon", "face_minor": 1_000, "threshold_minor": 5_000, "term_days": 7},
        {"reward": "any", "title": "10 off", "type": "coupon", "face_minor": 1_000, "term_days": 7},
        {"reward": "later", "title": "10 off", "type": "coupon", "face_minor": 1_000,
         "valid_from": after(DAY_MS).to_string(), "valid_until": after(2 * DAY_MS).to_string()},
    ])
}

#[tokio::test]
async fn a_coupon_is_locked_used_and_let_go_of() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        let campaign = campaign(&rewards());
        fund(&shop, 100_000).await;
        let ten = given(&shop, &campaign, "a", "ten", "u1").await;
        let does = |verb: &str, coupon: &str, body: Value| {
            let path = format!("/v1/coupons/{{coupon}}/{verb}");
            call(&shop, "POST", &path, coupon)
                .storefront("u1")
                .body(&body)
        };
        let order = |id: &str, amount: i64| json!({"order_id": id, "order_amount_minor": amount});
        // Whose it is not, does not see it.
        let other = does("lock", &ten, order("o1", 9_000)).storefront("u2");
        assert_eq!(other.no().await, (404, "not_found"));
        assert_eq!(
            does("lock", "nope", order("o1", 9_000)).no().await,
            (404, "not_found")
        );
        assert_eq!(
            does("lock", &ten, order("o1", 4_999)).no().await,
            (409, "below_threshold")
        );
        for bad in [
            order("", 1),
            order("o 1", 1),
            order("o1", -1),
            order("o1", 1_000_000_000_001),
            json!({"order_id": "o1"}),
        ] {
            assert_eq!(does("lock", &ten, bad).no().await, (400, "malformed"));
        }
        let locked = does("lock", &ten, order("o1", 5_000)).yes().await;
        assert_eq!(
            (&locked["state"], &locked["discount_minor"]),
            (&json!("LOCKED"), &json!(1_000))
        );
        assert_eq!(
            does("lock", &ten, order("o1", 5_000))
                .at(after(1))
                .yes()
                .await,
            locked
        );
        assert_eq!(
            does("lock", &ten, order("o2", 5_000)).no().await,
            (409, "state_conflict")
        );
        assert_eq!(
            does("use", &ten, json!({"order_id": "o2"})).no().await,
            (409, "state_conflict")
        );
        assert_eq!(
            does("unlock", &ten, json!({"order_id": "o2"})).no().await,
            (409, "state_conflict")
        );
        let free = does("unlock", &ten, json!({"order_id": "o1"})).yes().await;
        assert_eq!(
            (&free["state"], free.get("order_id")),
            (&json!("ISSUED"), None)
        );
        assert_eq!(
            does("unlock", &ten, json!({"order_id": "o1"})).yes().await,
            free
        );
        // Not locked, a threshold has to be looked at by the use.
        assert_eq!(
            does("use", &ten, json!({"order_id": "o2"})).no().await,
            (400, "malformed")
        );
        assert_eq!(
            does("use", &ten, order("o2", 4_999)).no().await,
            (409, "below_threshold")
        );
        does("lock", &ten, order("o2", 5_000)).yes().await;
        let used = does("use", &ten, json!({"order_id": "o2"})).yes().await;
        assert_eq!(
            (&used["state"], &used["order_id"]),
            (&json!("USED"), &json!("o2"))
        );
        assert_eq!(
            does("use", &ten, json!({"order_id": "o2"}))
                .at(after(99 * DAY_MS))
                .yes()
                .await,
            used
        );
        assert_eq!(
            does("use", &ten, json!({"order_id": "o3"})).no().await,
            (409, "state_conflict")
        );
        assert_eq!(
            does("lock", &ten, order("o2", 5_000)).no().await,
            (409, "state_conflict")
        );
        assert_eq!(
            does("unlock", &ten, json!({"order_id": "o2"})).no().await,
            (409, "state_conflict")
        );
        // An order of less than the face costs the budget what it took off, no more.
        let any = given(&shop, &campaign, "b", "any", "u1").await;
        does("lock", &any, order("o4", 300)).yes().await;
        does("use", &any, json!({"order_id": "o4"})).yes().await;
        let left = stands(&shop).await;
        assert_eq!((left.held_minor, left.spent_minor), (0, 1_300), "{url}");
        // Not yet; a merchant takes it back, also from an order that has it.
        let later = given(&shop, &campaign, "c", "later", "u1").await;
        assert_eq!(
            does("lock", &later, order("o5", 1)).no().await,
            (409, "coupon_not_valid_yet")
        );
        does("lock", &later, order("o5", 1))
            .at(after(DAY_MS))
            .yes()
            .await;
        let revoke = |coupon: &str| {
            let path = "/v1/admin/coupons/{coupon}/revoke";
            call(&shop, "POST", path, coupon).body(&json!({"reason": "a mistake"}))
        };
        assert_eq!(revoke(&later).yes().await["state"], "REVOKED");
        assert_eq!(revoke(&later).yes().await["state"], "REVOKED");
        assert_eq!(revoke(&any).no().await, (409, "state_conflict"));
        let gone = does("use", &later, json!({"order_id": "o5"})).at(after(DAY_MS));
        assert_eq!(gone.no().await, (409, "state_conflict"));
        let notes = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM audit_note WHERE what = 'coupon.revoke' AND who = 'ann'";
        assert_eq!(number(&shop, notes).await, 1);
        assert_eq!(stands(&shop).await.held_minor, 0);
        proved(&shop).await;
    }
}

#[tokio::test]
async fn validity_is_looked_at_when_it_is_used_not_by_the_job() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        let campaign = campaign(&rewards());
        fund(&shop, 300_000).await;
        let does = |verb: &str, coupon: &str, body: Value| {
            let path = format!("/v1/coupons/{{coupon}}/{verb}");
            call(&shop, "POST", &path, coupon)
                .storefront("u1")
                .body(&body)
        };
        let order = |id: &str| json!({"order_id": id, "order_amount_minor": 9_000});
        let [free, kept, lapsed, let_go] = ["a", "b", "c", "d"].map(|source| {
            let (shop, campaign) = (shop.clone(), campaign.clone());
            async move { given(&shop, &campaign, source, "ten", "u1").await }
        });
        let (free, kept) = (free.await, kept.await);
        let (lapsed, let_go) = (lapsed.await, let_go.await);
        let end = 7 * DAY_MS;
        for coupon in [&kept, &lapsed, &let_go] {
            does("lock", coupon, order("o1"))
                .at(after(end - 1))
                .yes()
                .await;
        }
        // No step has run.
        assert_eq!(
            does("lock", &free, order("o1")).at(after(end)).no().await,
            (409, "coupon_expired")
        );
        assert_eq!(
            does("use", &free, order("o1")).at(after(end)).no().await,
            (409, "coupon_expired")
        );
        let list = call(&shop, "GET", "/v1/coupons", "")
            .buyer("u1")
            .query("state", "EXPIRED");
        assert_eq!(
            list.at(after(end)).yes().await["items"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
        // The step leaves alone what an order has.
        step(&shop, "coupons", after(end)).await;
        assert_eq!(stands(&shop).await.held_minor, 3_000, "{url}");
        let late = after(end - 1 + LOCK_MS - 1);
        assert_eq!(
            does("use", &kept, json!({"order_id": "o1"}))
                .at(late)
                .yes()
                .await["state"],
            "USED"
        );
        let gone = does("unlock", &let_go, json!({"order_id": "o1"}))
            .at(late)
            .yes()
            .await;
        assert_eq!(gone["state"], "EXPIRED");
        assert_eq!(stands(&shop).await.held_minor, 1_000, "{url}");
        let too_late = after(end - 1 + LOCK_MS);
        let refused = does("use", &lapsed, json!({"order_id": "o1"})).at(too_late);
        assert_eq!(refused.no().await, (409, "coupon_expired"));
        step(&shop, "coupons", too_late).await;
        let left = stands(&shop).await;
        assert_eq!((left.held_minor, left.spent_minor), (0, 1_000), "{url}");
        proved(&shop).await;
        // More than one piece.
        for n in 0..120 {
            given(&shop, &campaign, &format!("m{n}"), "any", "u2").await;
        }
        step(&shop, "coupons", after(end - 1)).await;
        assert_eq!(stands(&shop).await.held_minor, 120_000);
        step(&shop, "coupons", after(end)).await;
        assert_eq!(stands(&shop).await.held_minor, 0, "{url}");
        proved(&shop).await;
    }
}

#[tokio::test]
async fn lists_have_pages_and_filters() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        let campaign = campaign(&rewards());
        fund(&shop, 100_000).await;
        let mut ids = Vec::new();
        for n in 0..5 {
            ids.push(given(&shop, &campaign, &format!("s{n}"), "any", "u1").await);
        }
        given(&shop, &campaign, "other", "any", "u2").await;
        ids.sort_unstable();
        ids.reverse();
        let lock = call(&shop, "POST", "/v1/coupons/{coupon}/lock", &ids[1]).storefront("u1");
        lock.body(&json!({"order_id": "o", "order_amount_minor": 1}))
            .yes()
            .await;
        let mine = || {
            call(&shop, "GET", "/v1/coupons", "")
                .buyer("u1")
                .query("limit", "2")
        };
        let (mut seen, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = match &cursor {
                Some(cursor) => mine().query("cursor", cursor).yes().await,
                None => mine().yes().await,
            };
            for item in page["items"].as_array().unwrap() {
                seen.push(item["coupon_id"].as_str().unwrap().to_owned());
            }
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, ids, "{url}");
        let count = |page: &Value| page["items"].as_array().unwrap().len();
        let all = || call(&shop, "GET", "/v1/admin/campaigns/{campaign}/coupons", "c1");
        assert_eq!(count(&all().yes().await), 6);
        assert_eq!(count(&all().query("buyer", "u2").yes().await), 1);
        assert_eq!(count(&all().query("state", "LOCKED").yes().await), 1);
        assert_eq!(
            count(
                &all()
                    .query("state", "ISSUED")
                    .query("buyer", "u1")
                    .yes()
                    .await
            ),
            4
        );
        let lapsed = all().query("state", "LOCKED").at(after(LOCK_MS));
        assert_eq!(count(&lapsed.yes().await), 0, "{url}");
        assert_eq!(
            all().query("state", "locked").no().await,
            (400, "malformed")
        );
        assert_eq!(all().query("cursor", "{}").no().await, (400, "malformed"));
        assert_eq!(all().query("limit", "201").no().await, (400, "malformed"));
    }
}
