//! The example storefront of config/examples: killed in the worst moments, its orders are the engine's reservations.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crowd::client::{Client, Request, Response, Timeouts};
use crowd::wait::poll_until_async;
use dev_faultproxy::{FaultProxy, Upstream};
use hmac::{Hmac, KeyInit, Mac};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::rig::*;

on_both_stores!(
    a_storefront_that_is_killed_catches_up,
    a_webhook_is_taken_signed_once_and_in_any_order,
    the_engine_tells_the_storefront_what_happens_elsewhere,
);

const PROGRAM: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../config/examples/storefront.py"
);
const SECRET: &str = "the webhook's secret";

/// A running example.
struct Storefront {
    process: ByHand,
    address: SocketAddr,
}

impl Storefront {
    /// Before an engine that it reaches at this address.
    fn start(shop: &Shop, engine: SocketAddr) -> Self {
        Self::start_at(shop, engine, 0)
    }

    fn start_at(shop: &Shop, engine: SocketAddr, port: u16) -> Self {
        need("python3");
        let mut command = std::process::Command::new("python3");
        command
            .arg(PROGRAM)
            .env("ENGINE", format!("http://{engine}"))
            .env("SALE", SALE)
            .env("STOREFRONT_KEY", &shop.keys.storefront_key)
            .env("WEBHOOK_SECRETS", format!("the next one,{SECRET}"))
            .env("DATABASE", shop.rig.path("storefront.db"))
            .env("PORT", port.to_string());
        let process = ByHand::start(command, shop.rig.dir.path());
        let line = process.line();
        let address = line.trim().rsplit('/').next().unwrap().parse().unwrap();
        Self { process, address }
    }

    fn kill(mut self) {
        self.process.end(Signal::SIGKILL);
    }

    async fn send(&self, request: Request) -> Response {
        let timeouts = Timeouts {
            connect: BOUND,
            answer: BOUND,
        };
        let answer = Client::new(self.address, timeouts).send(&request).await;
        answer.unwrap_or_else(|error| panic!("{error}: {}", self.process.complained()))
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.send(Request::post(path).json(&body.to_string())).await;
        assert_eq!(
            answer.status,
            200,
            "{path} {body}: {}",
            self.process.complained()
        );
        answer.json().unwrap()
    }

    async fn buy(&self, buyer: &str) -> Value {
        self.post("/buy", json!({"buyer": buyer, "item": "a", "quantity": 1}))
            .await
    }

    async fn pay(&self, order: &Value, payment: &str) -> Value {
        self.pay_amount(order, payment, 9_900).await
    }

    async fn pay_amount(&self, order: &Value, payment: &str, amount_minor: i64) -> Value {
        let body = json!({"order_id": order["order_id"], "payment_ref": payment, "amount_minor": amount_minor});
        self.post("/pay", body).await
    }

    /// A signed event, as the engine's webhook delivers it; gives the status.
    async fn deliver(&self, event: &Value, time_s: u64, signatures: &[&str]) -> u16 {
        let body = event.to_string();
        let signed = signatures
            .iter()
            .map(|secret| format!(",v1={}", sign(secret, time_s, &body)));
        let header = format!("t={time_s}{}", signed.collect::<String>());
        let request = Request::post("/webhook").header("Stampede-Signature", &header);
        self.send(request.json(&body)).await.status
    }

    async fn tables(&self) -> Value {
        self.send(Request::get("/orders").bare())
            .await
            .json()
            .unwrap()
    }

    /// Each order's reservation and state.
    async fn states(&self) -> BTreeMap<String, String> {
        let tables = self.tables().await;
        let orders = tables["orders"].as_array().unwrap().iter();
        let reserved = orders.filter(|order| !order["reservation_id"].is_null());
        reserved.map(pair).collect()
    }
}

fn sign(secret: &str, time_s: u64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{time_s}.{body}").as_bytes());
    let bytes = mac.finalize().into_bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pair(one: &Value) -> (String, String) {
    let [name, state] = ["reservation_id", "state"].map(|field| one[field].as_str().unwrap());
    (name.to_owned(), state.to_owned())
}

/// A call of the engine with the storefront's key.
async fn engine(shop: &Shop, request: crowd::client::Draft, body: Option<Value>) -> Response {
    let draft = request.bearer(&shop.keys.storefront_key);
    let request = match body {
        Some(body) => draft.json(&body.to_string()),
        None => draft.bare(),
    };
    shop.client().send(&request).await.unwrap()
}

/// Each reservation of the engine and its state.
async fn reservations(shop: &Shop) -> BTreeMap<String, String> {
    let page = Request::get(&format!("/v1/sales/{SALE}/reservations?limit=200"));
    let page = engine(shop, page, None).await.json().unwrap();
    page["items"].as_array().unwrap().iter().map(pair).collect()
}

async fn log_of(shop: &Shop) -> Vec<Value> {
    let page = Request::get(&format!("/v1/sales/{SALE}/events/log?limit=200"));
    let page = engine(shop, page, None).await.json().unwrap();
    page["items"].as_array().unwrap().clone()
}

async fn a_storefront_that_is_killed_catches_up(rig: Rig) {
    let shop = Shop::open(rig, &[("a", 5)]).await;
    let network = FaultProxy::start(Upstream::Tcp(shop.server.public)).unwrap();
    let front = Storefront::start(&shop, network.addr());
    let alice = front.buy("alice").await;
    assert_eq!(alice["state"], "reserved", "{alice}");
    for _ in 0..2 {
        assert_eq!(front.pay(&alice, "pay-a").await["outcome"], "confirmed");
    }
    // An answer that gets lost is asked for again, under the same key.
    network.cut_replies_after(9);
    let bob = front.buy("bob").await;
    assert_eq!(bob["state"], "reserved", "{bob}");
    assert_eq!(network.fired(), 1);
    let carol = front.buy("carol").await;
    assert_eq!(reservations(&shop).await.len(), 3);

    // Killed between the engine's yes and its arrival: nobody ever hears of it.
    network.drop_replies(true);
    let address = front.address;
    let lost = tokio::spawn(async move {
        let body = json!({"order_id": "on-its-way", "buyer": "dave", "item": "a"}).to_string();
        let mut client = Client::new(address, Timeouts::default());
        client
            .send(&Request::post("/buy").json(&body))
            .await
            .is_err()
    });
    let is_reserved = poll_until_async(BOUND, LOOK, async || {
        (reservations(&shop).await.len() == 4 && network.fired() > 1).then_some(())
    });
    assert!(is_reserved.await.is_some(), "no reservation");
    let tables = front.tables().await;
    let orders = tables["orders"].as_array().unwrap();
    assert!(orders.iter().any(|order| order["state"] == "new"));
    front.kill();
    assert!(lost.await.unwrap(), "answered by a killed process");
    network.drop_replies(false);

    // Meanwhile things go on: one gives up, whose money then comes; another's is confirmed by a colleague.
    let call = async |order: &Value, verb: &str, body: Value| {
        let id = order["reservation_id"].as_str().unwrap();
        let request = Request::post(&format!("/v1/reservations/{id}/{verb}"));
        engine(&shop, request, Some(body)).await.status
    };
    assert_eq!(call(&bob, "cancel", json!({})).await, 200);
    assert_eq!(
        call(&bob, "confirm", json!({"payment_ref": "pay-b"})).await,
        409
    );
    assert_eq!(
        call(&carol, "confirm", json!({"payment_ref": "pay-c"})).await,
        200
    );

    let front = Storefront::start(&shop, network.addr());
    let states = front.states().await;
    assert_eq!(states, reservations(&shop).await);
    let mut told: Vec<_> = states.values().map(String::as_str).collect();
    told.sort_unstable();
    assert_eq!(told, ["confirmed", "confirmed", "released", "reserved"]);
    let tables = front.tables().await;
    assert_eq!(tables["refunds_due"].as_array().unwrap().len(), 1);
    assert_eq!(tables["refunds_due"][0]["payment_ref"], "pay-b");
    // The lost order is bought, once, and can be paid.
    let orders = tables["orders"].as_array().unwrap();
    let dave = orders
        .iter()
        .find(|order| order["order_id"] == "on-its-way")
        .unwrap();
    // A wrong amount decides nothing: the same payment comes again with the right one.
    let wrong = front.pay_amount(dave, "pay-d", 1).await;
    assert_eq!(wrong["outcome"], "wrong_amount");
    assert_eq!(front.pay(dave, "pay-d").await["outcome"], "confirmed");

    // What cannot be had is told; money that nothing stands behind goes back.
    let [erin, frank, grace] = [
        front.buy("erin").await,
        front.buy("frank").await,
        front.buy("grace").await,
    ];
    assert_eq!([&erin["state"], &frank["state"]], ["reserved"; 2]);
    assert_eq!(
        [&grace["state"], &grace["outcome"]],
        ["refused", "sold_out"]
    );
    assert_eq!(call(&erin, "cancel", json!({})).await, 200);
    assert_eq!(front.pay(&erin, "pay-e").await["outcome"], "state_conflict");
    let tables = front.tables().await;
    assert_eq!(tables["refunds_due"].as_array().unwrap().len(), 2);

    // What was told at once is in the log too, and changes nothing again.
    front.kill();
    let front = Storefront::start(&shop, network.addr());
    assert_eq!(front.states().await, reservations(&shop).await);
    assert_eq!(
        front.tables().await["refunds_due"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let audit = Request::get(&format!("/v1/admin/sales/{SALE}/audit")).bearer(&shop.keys.admin_key);
    let mut admins = Client::new(shop.server.admin, Timeouts::default());
    let audit = admins.send(&audit.bare()).await.unwrap();
    assert_eq!(audit.json().unwrap()["ok"], true);
}

async fn a_webhook_is_taken_signed_once_and_in_any_order(rig: Rig) {
    let shop = Shop::open(rig, &[("a", 5)]).await;
    let front = Storefront::start(&shop, shop.server.public);
    let order = front.buy("alice").await;
    let id = order["reservation_id"].as_str().unwrap();
    for (verb, body) in [
        ("confirm", json!({"payment_ref": "p1"})),
        ("confirm", json!({"payment_ref": "p2"})),
        ("refund", json!({"restock": true})),
    ] {
        let request = Request::post(&format!("/v1/reservations/{id}/{verb}"));
        engine(&shop, request, Some(body)).await;
    }
    let events = log_of(&shop).await;
    let last = events.last().unwrap();
    assert_eq!(last["type"], "reservation.refunded");
    let now_s = crowd::token::now_s();
    // Not ours, not signed, too old, from too far ahead.
    for (time_s, signatures) in [
        (now_s, &["another"][..]),
        (now_s, &[]),
        (now_s - 400, &[SECRET]),
        (now_s + 400, &[SECRET]),
    ] {
        assert_eq!(
            front.deliver(last, time_s, signatures).await,
            401,
            "{time_s}"
        );
    }
    let unsigned = Request::post("/webhook").json(&last.to_string());
    assert_eq!(front.send(unsigned).await.status, 401);
    assert_eq!(front.states().await[id], "reserved");
    // Backwards, twice, under either of two secrets.
    for signatures in [&[SECRET][..], &["another", SECRET], &["the next one"]] {
        for event in events.iter().rev() {
            assert_eq!(
                front.deliver(event, now_s - 200, signatures).await,
                200,
                "{event}"
            );
            if event["type"] == "reservation.refunded" {
                assert_eq!(front.states().await[id], "refunded");
            }
        }
    }
    assert_eq!(front.states().await, reservations(&shop).await);
    let due = front.tables().await["refunds_due"].clone();
    assert_eq!(due.as_array().unwrap().len(), 1);
    assert_eq!(
        [&due[0]["payment_ref"], &due[0]["reason"]],
        ["p2", "state_conflict"]
    );
    front.kill();
    let front = Storefront::start(&shop, shop.server.public);
    assert_eq!(front.states().await[id], "refunded");
}

async fn the_engine_tells_the_storefront_what_happens_elsewhere(rig: Rig) {
    // Free a moment ago: the engine is told of the storefront before that runs.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let config = rig.path("webhooks.toml");
    let text = format!(
        "[[webhooks]]\nname = \"shop\"\nurl = \"http://127.0.0.1:{port}/webhook\"\nsecret = \"{SECRET}\"\nallow_private = true\n"
    );
    std::fs::write(&config, text).unwrap();
    let rig = rig.argument("--config", config.to_str().unwrap());
    let shop = Shop::open(rig, &[("a", 5)]).await;
    let front = Storefront::start_at(&shop, shop.server.public, port);
    let orders = [
        front.buy("alice").await,
        front.buy("bob").await,
        front.buy("carol").await,
    ];
    let call = async |order: &Value, verb: &str, body: Value| {
        let id = order["reservation_id"].as_str().unwrap();
        let request = Request::post(&format!("/v1/reservations/{id}/{verb}"));
        engine(&shop, request, Some(body)).await.status
    };
    assert_eq!(call(&orders[0], "cancel", json!({})).await, 200);
    let paid = json!({"payment_ref": "p-b"});
    assert_eq!(call(&orders[1], "confirm", paid).await, 200);
    let expected = reservations(&shop).await;
    let has_heard = poll_until_async(BOUND, LOOK * 10, async || {
        (front.states().await == expected).then_some(())
    });
    let log = shop.server.log();
    assert!(
        has_heard.await.is_some(),
        "{}\n{log}",
        front.process.complained()
    );
    let states: Vec<_> = expected.values().map(String::as_str).collect();
    assert_eq!(states, ["released", "confirmed", "reserved"]);
}
