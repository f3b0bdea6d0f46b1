//! Webhooks of the whole process: a consumer that fails, repeats and forgets ends with the store's books, whatever happens
//! to the engine and to the other targets.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crowd::api::{self, Stored};
use crowd::client::Request;
use crowd::wait::poll_until_async;
use serde_json::{Value, json};

use crate::rig::*;

#[allow(dead_code, reason = "other tests make it redirect")]
#[path = "../../../flash-settle/tests/common/target.rs"]
pub mod target;
use target::{Answer, Received, Server};

const SECRET: &str = "whsec-of-the-good-consumer";

on_both_stores!(
    a_consumer_that_fails_and_repeats_ends_with_the_books,
    that_a_sale_is_a_draft_again_is_told_after_a_restart,
);

fn hook(name: &str, url: &str) -> String {
    format!(
        "[[webhooks]]\nname = \"{name}\"\nurl = \"{url}\"\nsecret = \"{SECRET}\"\nallow_private = true\n"
    )
}

/// Accepts most, refuses some, and takes some without an answer: those come again.
fn moody() -> impl Fn(&Received) -> Answer + Send + Sync {
    let count = AtomicUsize::new(0);
    move |_| match count.fetch_add(1, Ordering::Relaxed) % 11 {
        3 => Answer::Status(500),
        7 => Answer::Cut,
        _ => Answer::Status(204),
    }
}

/// The last word on each reservation, by whatever arrived, in whatever order it is looked at.
fn books(received: &[Received]) -> BTreeMap<String, Value> {
    let mut last: BTreeMap<String, ((u64, u64), Value)> = BTreeMap::new();
    // Backwards: the order of arrival must not matter.
    for request in received.iter().rev() {
        assert!(
            is_signed(request),
            "{}",
            request.header("stampede-signature")
        );
        let event: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(request.header("stampede-event-id"), event["id"]);
        let data = &event["data"];
        let Some(id) = data["reservation_id"].as_str() else {
            continue;
        };
        let place = (
            event["generation"].as_u64().unwrap(),
            event["sequence"].as_u64().unwrap(),
        );
        let known = last.entry(id.to_owned()).or_insert((place, data.clone()));
        if place > known.0 {
            *known = (place, data.clone());
        }
    }
    last.into_iter()
        .map(|(id, (_, data))| (id, told(&data)))
        .collect()
}

fn is_signed(request: &Received) -> bool {
    let header = request.header("stampede-signature");
    let time = header.split(',').find_map(|part| part.strip_prefix("t="));
    let time: i64 = time.unwrap().parse().unwrap();
    flash_settle::outbox::signature([SECRET].into_iter(), time, &request.body) == header
}

/// What a shop keeps of a reservation.
fn told(data: &Value) -> Value {
    json!({
        "buyer": data["buyer_id"], "state": data["state"], "payment": data["payment_ref"],
        "units": data["lines"][0]["quantity"], "refunded": data["lines"][0]["refunded_units"],
    })
}

fn stored(reservation: &Stored) -> Value {
    json!({
        "buyer": reservation.buyer_id, "state": reservation.state, "payment": reservation.payment_ref,
        "units": reservation.lines[0].quantity, "refunded": reservation.lines[0].refunded_units,
    })
}

/// Pays for some, gives some up, refunds some.
async fn settle(shop: &Shop, round: usize) {
    let mut client = shop.client();
    let key = &shop.keys.storefront_key;
    let all = shop.api().reservations(SALE).await.unwrap();
    let open = all.iter().filter(|one| one.state == "reserved");
    for (number, one) in open.enumerate() {
        let id = &one.reservation_id;
        let calls = match number % 4 {
            0 => vec![api::confirm(id, key, &format!("p{round}-{number}"))],
            1 => vec![api::cancel(id, key)],
            2 => {
                let refund = Request::post(&format!("/v1/reservations/{id}/refund")).bearer(key);
                vec![
                    api::confirm(id, key, &format!("p{round}-{number}")),
                    refund.json(r#"{"restock":true}"#),
                ]
            }
            _ => vec![],
        };
        for call in calls {
            assert_eq!(client.send(&call).await.unwrap().status, 200);
        }
    }
}

async fn a_consumer_that_fails_and_repeats_ends_with_the_books(rig: Rig) {
    let good = Server::start(moody());
    let slow = Server::start(|_| Answer::Never);
    // Nobody listens there.
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = rig.path("webhooks.toml");
    let text = [
        hook("good", &good.url()),
        hook("slow", &slow.url()),
        hook("dead", &format!("http://{dead}/")),
    ];
    std::fs::write(&config, text.concat()).unwrap();
    let rig = rig.argument("--config", config.to_str().unwrap());
    let mut shop = Shop::open(rig, &[("a", 300)]).await;
    let buyers = Buyers::start(&shop, 4, "a", 1);
    buyers.work(&shop, 60, 2).await;
    // In the midst of purchases and deliveries.
    shop.server.kill().unwrap();
    buyers.stop().await;
    shop.restart();
    settle(&shop, 1).await;
    let buyers = Buyers::start(&shop, 4, "a", 2);
    buyers.work(&shop, 160, 2).await;
    buyers.stop().await;
    settle(&shop, 2).await;
    shop.assert_books().await;

    let all = shop.api().reservations(SALE).await.unwrap();
    let expected: BTreeMap<String, Value> = all
        .iter()
        .map(|one| (one.reservation_id.clone(), stored(one)))
        .collect();
    let has_all = poll_until_async(BOUND, LOOK * 20, async || {
        (books(&good.received()) == expected).then_some(())
    });
    if has_all.await.is_none() {
        assert_eq!(books(&good.received()), expected, "{}", shop.server.log());
    }
    let received = good.received();
    assert!(received.len() > good.acknowledged().len(), "nothing failed");
    assert!(!slow.received().is_empty() && slow.acknowledged().is_empty());
    // The other targets are told of as what they are, and the slow one stops nobody.
    let url = format!("http://{}", shop.server.admin);
    let list = stampede(&[
        "webhook",
        "list",
        "--admin-url",
        &url,
        "--data",
        shop.rig.data(),
    ]);
    let list = crate::rig::good(&list);
    assert!(list.contains("good") && list.contains("down"), "{list}");
    let ended = shop.server.stop(BOUND).unwrap();
    assert!(ended.success(), "a silent target must not hold up the end");
}

async fn that_a_sale_is_a_draft_again_is_told_after_a_restart(rig: Rig) {
    let is_up = Arc::new(AtomicBool::new(false));
    let looks = Arc::clone(&is_up);
    let target = Server::start(move |_| match looks.load(Ordering::Relaxed) {
        true => Answer::Status(204),
        false => Answer::Status(503),
    });
    let config = rig.path("webhooks.toml");
    std::fs::write(&config, hook("shop", &target.url())).unwrap();
    let rig = rig.argument("--config", config.to_str().unwrap());
    let mut shop = Shop::open(rig, &[("a", 5)]).await;
    good(&shop.sale(&["unpublish", SALE]));
    assert!(shop.server.stop(BOUND).unwrap().success());
    shop.restart();
    is_up.store(true, Ordering::Relaxed);
    let kinds = || {
        let received = target.received().into_iter();
        let events = received.map(|request| serde_json::from_str::<Value>(&request.body).unwrap());
        let kinds = events.map(|event| event["type"].as_str().unwrap().to_owned());
        kinds.collect::<Vec<_>>()
    };
    let is_told = poll_until_async(BOUND, LOOK * 20, async || {
        let acknowledged = target.acknowledged().len();
        (acknowledged >= 3 && kinds().contains(&"sale.unpublished".to_owned())).then_some(())
    });
    assert!(
        is_told.await.is_some(),
        "{:?}\n{}",
        kinds(),
        shop.server.log()
    );
}
