//! Killed while buyers join, use coupons and pay: what was told is found again, and nothing came about twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crowd::random::Random;
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::*;

/// At work at once.
const WORKERS: usize = 32;
const PLACES: i64 = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_a_kill_loses_and_doubles_nothing() {
    a_kill_loses_and_doubles_nothing(&Books::Sqlite, 71).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_a_kill_loses_and_doubles_nothing() {
    a_kill_loses_and_doubles_nothing(&Books::postgres(), 72).await;
}

/// What was told: by the call, the request and the body of its answer.
type Heard = Arc<Mutex<BTreeMap<String, (Request, Vec<u8>)>>>;

async fn a_kill_loses_and_doubles_nothing(books: &Books, seed: u64) {
    eprintln!("seed {seed}");
    let mut random = Random::new(seed);
    let mut shop = Shop::open(books.rig(), &[("a", 1_000_000)]).await;
    shop.publish_campaign(&campaign("c", PLACES)).await;
    let heard = Heard::default();
    let mut buyers = BTreeSet::new();
    for round in 0..3 {
        let wait = random.between(Duration::from_millis(150), Duration::from_millis(700));
        let mut work = JoinSet::new();
        for worker in 0..WORKERS {
            let (client, heard) = (shop.client(), Arc::clone(&heard));
            let names: Vec<_> = (0..200).map(|n| format!("b{round}-{worker}-{n}")).collect();
            let calls = names
                .into_iter()
                .map(|name| Calls::of(&shop, name))
                .collect();
            work.spawn(buy_and_join(client, calls, heard));
        }
        let told_before = heard.lock().len();
        let is_busy = poll_until_async(BOUND, ASK, async || {
            (heard.lock().len() > told_before + 30).then_some(())
        });
        assert!(is_busy.await.is_some(), "{}", shop.server.log());
        tokio::time::sleep(wait).await;
        shop.server.kill().unwrap();
        while let Some(began) = work.join_next().await {
            buyers.extend(began.unwrap());
        }
        shop.restart();
        shop.campaigns_are_up().await;
        assert_heard(&shop, &heard).await;
    }
    assert_nothing_twice(&shop, &buyers).await;
    books.assert_proved(&shop).await;
}

/// What one buyer sends.
struct Calls {
    buyer: String,
    join: Request,
    purchase: Request,
    storefront_key: String,
}

impl Calls {
    fn of(shop: &Shop, buyer: String) -> Self {
        Self {
            join: shop.join("c", &buyer, "j"),
            purchase: shop.purchase(&buyer, "p", "a"),
            storefront_key: shop.keys.storefront_key.clone(),
            buyer,
        }
    }
}

/// Until the server is gone; gives who began.
async fn buy_and_join(mut client: Client, calls: Vec<Calls>, heard: Heard) -> Vec<String> {
    let mut began = Vec::new();
    for calls in calls {
        began.push(calls.buyer.clone());
        if one(&mut client, &calls, &heard).await.is_none() {
            break;
        }
    }
    began
}

/// Joins, buys, takes the coupon for the order, pays, uses the coupon.
async fn one(client: &mut Client, calls: &Calls, heard: &Heard) -> Option<()> {
    let joined = say(client, calls, heard, "join", calls.join.clone())
        .await?
        .json()
        .unwrap();
    let coupon = joined["rewards"][0]["id"].as_str().unwrap().to_owned();
    let bought = say(client, calls, heard, "buy", calls.purchase.clone()).await?;
    let order = bought.text_field("reservation_id")?.to_owned();
    let key = &calls.storefront_key;
    let act = |verb: &str| {
        let draft = Request::post(&format!("/v1/coupons/{coupon}/{verb}")).bearer(key);
        let body = json!({"order_id": order, "order_amount_minor": 9_900});
        let draft = draft.header("X-Buyer-Id", &calls.buyer);
        draft.json(&body.to_string())
    };
    // Their answers change with what follows: what they brought about is looked at in the end.
    client.send(&act("lock")).await.ok()?;
    let paid = crowd::api::confirm(&order, key, &format!("pay-{order}"));
    client.send(&paid).await.ok()?;
    say(client, calls, heard, "use", act("use")).await?;
    Some(())
}

/// Sends a call; an answer that is a yes is noted.
async fn say(
    client: &mut Client,
    calls: &Calls,
    heard: &Heard,
    what: &str,
    request: Request,
) -> Option<Response> {
    let answer = client.send(&request).await.ok()?;
    let is_yes = answer.status < 300;
    assert!(
        is_yes || answer.status >= 500,
        "{what}: {}",
        answer.outcome()
    );
    if is_yes {
        let name = format!("{} {what}", calls.buyer);
        heard.lock().insert(name, (request, answer.body.clone()));
    }
    is_yes.then_some(answer)
}

async fn assert_heard(shop: &Shop, heard: &Heard) {
    let mut client = shop.client();
    let all: Vec<_> = heard.lock().clone().into_iter().collect();
    for (name, (request, body)) in all {
        let again = client.send(&request).await.unwrap();
        let text = String::from_utf8_lossy(&again.body);
        assert!(again.status < 300, "{name}: {} {text}", again.status);
        if name.ends_with(" buy") {
            // A purchase is answered as it stands by now: the same one.
            let first: Value = serde_json::from_slice(&body).unwrap();
            let id = first["reservation_id"].as_str();
            assert_eq!(again.text_field("reservation_id"), id, "{name}");
        } else {
            assert_eq!(text, String::from_utf8_lossy(&body), "{name}");
        }
    }
}

async fn all(shop: &Shop, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = shop.read(&format!("{path}?limit=200{cursor}")).await;
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

async fn assert_nothing_twice(shop: &Shop, buyers: &BTreeSet<String>) {
    let participants = all(shop, "/v1/admin/campaigns/c/participants").await;
    let coupons = all(shop, "/v1/admin/campaigns/c/coupons").await;
    let mut owners: Vec<_> = coupons
        .iter()
        .map(|coupon| coupon["buyer_id"].as_str().unwrap().to_owned())
        .collect();
    owners.sort();
    let count = owners.len();
    owners.dedup();
    assert_eq!(owners.len(), count, "two coupons for one joining");
    assert_eq!(participants.len(), count);
    assert!(owners.iter().all(|owner| buyers.contains(owner)));
    let used = coupons.iter().filter(|coupon| coupon["state"] == "USED");
    let used = i64::try_from(used.count()).unwrap();
    assert!(used > 0, "no coupon was ever used");
    let given = i64::try_from(count).unwrap();
    let (available, held, spent) = shop.budget("c").await;
    assert_eq!(spent, used * 500);
    assert_eq!(held, (given - used) * 500 + 2_000);
    assert_eq!(available, (PLACES - given) * 500);

    // Each confirmed reservation is one order, and nothing else is.
    let mut confirmed = shop.api().reservations(SALE).await.unwrap();
    confirmed.retain(|reservation| reservation.state == "confirmed");
    assert!(!confirmed.is_empty());
    for reservation in &confirmed {
        shop.until_order(&reservation.reservation_id).await;
    }
    for reservation in confirmed.iter().step_by(10) {
        let target = format!("/v1/orders?buyer={}", reservation.buyer_id);
        let request = Request::get(&target).bearer(&shop.keys.storefront_key);
        let orders = told(&shop.public(request.bare()).await, 200);
        assert_eq!(orders["items"].as_array().unwrap().len(), 1, "{orders}");
    }
}
