//! A Redis that lost what it had acknowledged, or whose keys somebody touched: the sale stops, the loss is listed, and
//! nothing is ever sold from less than the truth.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;

use crowd::api::{self, Stored};
use crowd::client::{Client, Request, Response, Timeouts};
use crowd::log::Answer;
use dev_faultproxy::{Fault, FaultProxy, Upstream};
use dev_servers::RedisServer;
use serde_json::json;

use super::*;

/// Bytes of the append-only files.
fn aof_bytes(redis: &RedisServer) -> u64 {
    let files = std::fs::read_dir(redis.aof_dir()).unwrap();
    files
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

/// Kills it, takes away all that it wrote beyond these bytes, and starts it again.
fn forget_beyond(redis: &mut RedisServer, bytes: u64) {
    redis.kill().unwrap();
    let beyond = aof_bytes(redis) - bytes;
    assert!(beyond > 0, "there is nothing to lose");
    redis.truncate_aof_tail(beyond).unwrap();
    redis.restart().unwrap();
}

fn keys(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| format!("k{number}")).collect()
}

impl Shop {
    /// Buys under each of these keys; the names of what was won.
    async fn win_all(&self, keys: &[String]) -> Vec<String> {
        let mut names = Vec::new();
        for key in keys {
            names.push(self.wins(key).await);
        }
        names
    }

    /// Pays a reservation and notes it.
    async fn pay(&self, reservation: &str) {
        let payment_ref = format!("pay-{reservation}");
        let request = api::confirm(reservation, &self.keys.storefront_key, &payment_ref);
        let number = self.log.sent(Attempt::Confirm {
            reservation: reservation.to_owned(),
            payment_ref,
        });
        let result = self.client().send(&request).await;
        self.log.answered(number, Answer::of(&result));
        assert_eq!(result.unwrap().status, 200);
    }

    async fn admin_call(&self, method: &str, path: &str, key: &str) -> Response {
        let draft = Request::draft(method, path).bearer(key);
        let request = match method {
            "POST" => draft.json("{}"),
            _ => draft.bare(),
        };
        let mut client = Client::new(self.server.admin, Timeouts::default());
        client.send(&request).await.unwrap()
    }

    /// What `GET …/loss` lists.
    async fn loss(&self, sale: &str) -> Value {
        let path = format!("/v1/admin/sales/{sale}/loss?limit=200");
        let answer = self.admin_call("GET", &path, &self.keys.admin_key).await;
        assert_eq!(answer.status, 200, "{:?}", answer.json());
        answer.json().unwrap()
    }

    async fn stored(&self, key: &str) -> Option<Stored> {
        let mut api = self.api();
        api.reservation_by_key(SALE, "u", key).await.unwrap()
    }

    /// Holds that a sale that stands still can be read, replayed, and nothing else.
    async fn assert_frozen(&self, won: &str, reservation: &str) {
        let frozen = self
            .buy(&mut self.client(), "u", "never", "a")
            .await
            .unwrap();
        assert_eq!(
            (frozen.status, frozen.outcome()),
            (503, "sale_frozen".into())
        );
        assert!(frozen.retry_after().is_some());
        assert_eq!(self.shown().await["state"], "frozen");
        let again = self.client().send(&self.purchase("u", won, "a")).await;
        assert_eq!(again.unwrap().outcome(), "replayed");
        assert_eq!(self.stored(won).await.unwrap().reservation_id, reservation);
        let cancel = api::cancel(reservation, &self.keys.storefront_key);
        let refused = self.client().send(&cancel).await.unwrap();
        assert_eq!(refused.outcome(), "sale_frozen");
        let list = good(&self.sale(&["list"]));
        assert!(list.contains("frozen"), "{list}");
    }
}

fn set(names: &[String]) -> BTreeSet<&str> {
    names.iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_lost_is_listed_and_accepted_and_the_sale_goes_on() {
    let mut shop = shop_of(100).await;
    let kept = shop.win_all(&keys(0, 10)).await;
    let bytes = aof_bytes(shop.rig.redis());
    let lost_keys = keys(10, 30);
    let lost = shop.win_all(&lost_keys).await;
    shop.pay(&kept[0]).await;
    let generation = shop.meta("gen");
    forget_beyond(shop.rig.redis_mut(), bytes);
    assert_eq!(shop.api().reservations(SALE).await.unwrap().len(), 30);

    shop.until_frozen().await;
    shop.assert_frozen("k29", &lost[19]).await;
    assert!(shop.server.log().contains("lost acknowledged writes"));
    // Exactly what was acknowledged and is not there, and what is there as less than was told.
    let page = shop.loss(SALE).await;
    let mut named = lost.clone();
    named.push(kept[0].clone());
    assert_eq!(set(&names_in(&page)), set(&named));
    for one in page["items"].as_array().unwrap() {
        let is_paid = one["reservation"]["reservation_id"] == kept[0].as_str();
        let (told, stored) = match is_paid {
            true => ("confirmed", json!("reserved")),
            false => ("reserved", Value::Null),
        };
        assert_eq!(one["reservation"]["state"], told, "{one}");
        assert_eq!(one["stored_state"], stored, "{one}");
    }
    let listed = good(&shop.sale(&["loss", SALE]));
    assert_eq!(listed.lines().count(), 21, "{listed}");

    let file = shop.rig.path("lost.jsonl");
    let words = ["accept-loss", SALE, "--list", file.to_str().unwrap()];
    let told = good(&shop.sale(&words));
    assert!(
        told.contains("s1 is open: 21 reservations are lost"),
        "{told}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), listed);
    // From what is there: ten are reserved, one of them unpaid again.
    assert_eq!(shop.shown_units().await, 90);
    assert!(shop.meta("gen") > generation);
    assert_eq!(shop.stored("k0").await.unwrap().state, "reserved");
    assert_eq!(shop.stored("k29").await, None);
    shop.pay(&kept[0]).await;
    // A key whose win is lost may win again.
    shop.wins("k29").await;
    // And of what was unknown the truth is known.
    shop.wins("late1").await;
    let first_time = lost_keys.clone();
    let is_lost = |attempt: &Attempt| bought_under(attempt, &first_time);
    shop.assert_books_but(is_lost).await;
    // It is in the audit log, with the names; and it is done once.
    let log = shop.admin_call("GET", "/v1/admin/audit-log?limit=200", &shop.keys.admin_key);
    let log = String::from_utf8(log.await.body).unwrap();
    assert!(log.contains("sale.accept_loss") && log.contains(&lost[0]));
    assert!(failed(&shop.sale(&["loss", SALE])).contains("not frozen"));
    // The next start finds nothing missing.
    shop.server.kill().unwrap();
    shop.restart();
    shop.wins("again").await;
    shop.assert_books_but(is_lost).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_lost_everything_is_never_sold_from_and_never_started_on() {
    let mut shop = shop_of(100).await;
    let won = shop.win_all(&keys(0, 5)).await;
    shop.rig.redis_mut().kill().unwrap();
    shop.rig.redis().delete_data().unwrap();
    shop.rig.redis_mut().restart().unwrap();
    shop.until_frozen().await;
    shop.assert_frozen("k4", &won[4]).await;
    assert_eq!(set(&names_in(&shop.loss(SALE).await)), set(&won));
    // There is nothing to go on with.
    let file = shop.rig.path("lost.jsonl");
    let words = ["accept-loss", SALE, "--list", file.to_str().unwrap()];
    let told = failed(&shop.sale(&words));
    assert!(
        told.contains("state_conflict (409)") && told.contains("restore"),
        "{told}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 5);
    shop.until_not_ready("emptied").await;
    // Nor may another sale begin in it.
    let mut other = sale(&[("a", 1)]);
    other["sale_id"] = json!("s2");
    assert!(shop.api().publish(&other).await.is_err());
    shop.server.kill().unwrap();
    for _ in 0..2 {
        let line = refusal(&run_bounded(shop.rig.serve(FREE, FREE)));
        for told in ["acked-redis", "restore its append-only file", "move"] {
            assert!(line.contains(told), "{told}: {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_together_with_the_engine_is_found_by_the_next_start() {
    let mut shop = shop_of(100).await;
    let kept = shop.win_all(&keys(0, 5)).await;
    let bytes = aof_bytes(shop.rig.redis());
    let lost = keys(5, 10);
    shop.win_all(&lost).await;
    shop.server.kill().unwrap();
    forget_beyond(shop.rig.redis_mut(), bytes);
    shop.restart();
    assert!(
        shop.server
            .log()
            .contains("lost events that were acknowledged")
    );
    shop.assert_frozen("k4", &kept[4]).await;
    // Who knew what is lost has died; the keys are simply not there.
    assert_eq!(shop.stored("k5").await, None);
    assert_eq!(shop.loss(SALE).await["items"], json!([]));
    // Frozen it stays, until an operator has looked.
    shop.server.kill().unwrap();
    shop.restart();
    shop.assert_frozen("k4", &kept[4]).await;
    let file = shop.rig.path("lost.jsonl");
    let words = ["accept-loss", SALE, "--list", file.to_str().unwrap()];
    let said = good(&shop.sale(&words));
    assert!(
        said.contains("s1 is paused: 0 reservations are lost, and: events"),
        "{said}"
    );
    assert!(said.contains("acknowledged before this start"), "{said}");
    // The list of a loss is never written over.
    let again = shop.sale(&words);
    assert!(!again.status.success());
    good(&shop.sale(&["resume", SALE]));
    shop.wins("late").await;
    shop.assert_books_but(|attempt| bought_under(attempt, &lost))
        .await;
    shop.server.kill().unwrap();
    shop.restart();
    shop.wins("later").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lagged_is_not_taken_for_the_truth() {
    let options = RedisOptions::default()
        .tcp()
        .extra("repl-diskless-sync-delay", "0");
    let first = RedisServer::start(options.clone()).unwrap();
    let upstream = Upstream::Tcp(([127, 0, 0, 1], first.port().unwrap()).into());
    let proxy = FaultProxy::start(upstream).unwrap();
    let second = RedisServer::start(options).unwrap();
    let port = proxy.addr().port().to_string();
    let attach = ["REPLICAOF", "127.0.0.1", &port];
    assert_eq!(second.command(&attach).unwrap(), "OK");
    // The address that clients know leads to whoever is the master.
    let dir = tempfile::tempdir().unwrap();
    let address = dir.path().join("master.sock");
    symlink(first.socket_path(), &address).unwrap();
    let url = format!("redis+unix://{}", address.display());
    let mut shop = Shop::open(quick(Rig::at(first, &url)), &[("a", 100)]).await;

    let kept = shop.win_all(&keys(0, 5)).await;
    let has_followed = poll_until_async(BOUND, LOOK, async || {
        let there = second.command(&["HLEN", "{s:s1}:resv"]).unwrap();
        (there == "5").then_some(())
    });
    assert!(has_followed.await.is_some(), "{}", second.log());
    proxy.pause();
    let lost_keys = keys(5, 9);
    let lost = shop.win_all(&lost_keys).await;
    shop.rig.redis_mut().kill().unwrap();
    assert!(proxy.fired_by(Fault::Pause) > 0, "the fault did not fire");
    drop(proxy);
    assert_eq!(second.command(&["REPLICAOF", "NO", "ONE"]).unwrap(), "OK");
    move_to(&address, second.socket_path());
    shop.rig.put_redis(second);

    shop.until_frozen().await;
    shop.assert_frozen("k4", &kept[4]).await;
    assert_eq!(set(&names_in(&shop.loss(SALE).await)), set(&lost));
    let file = shop.rig.path("lost.jsonl");
    let words = ["accept-loss", SALE, "--list", file.to_str().unwrap()];
    good(&shop.sale(&words));
    shop.wins("late").await;
    shop.assert_books_but(|attempt| bought_under(attempt, &lost_keys))
        .await;
}

fn move_to(address: &Path, socket: &Path) {
    let beside = address.with_extension("new");
    symlink(socket, &beside).unwrap();
    std::fs::rename(beside, address).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_operator_sees_and_accepts_a_loss() {
    let rig = Rig::on_redis();
    let config = rig.path("s.toml");
    let roles = ["viewer", "merchant", "reviewer", "operator"];
    let key_of = |role: &str| format!("the key of a {role}");
    let tables: String = roles
        .iter()
        .map(|role| {
            let key = key_of(role);
            format!("[[keys.admin]]\nname = \"{role}\"\nroles = [\"{role}\"]\nkey = \"{key}\"\n")
        })
        .collect();
    std::fs::write(&config, tables).unwrap();
    let rig = quick(rig).argument("--config", config.to_str().unwrap());
    let mut shop = Shop::start(rig);
    shop.keys.admin_key = key_of("merchant");
    shop.api().publish(&sale(&[("a", 10)])).await.unwrap();
    shop.wins("kept").await;
    let bytes = aof_bytes(shop.rig.redis());
    let lost = shop.wins("lost").await;
    forget_beyond(shop.rig.redis_mut(), bytes);
    shop.until_frozen().await;
    let path = |verb: &str| format!("/v1/admin/sales/{SALE}/{verb}");
    for (role, loss, accept) in [
        ("viewer", 403, 403),
        ("merchant", 403, 403),
        ("reviewer", 403, 403),
        ("operator", 200, 200),
    ] {
        let key = key_of(role);
        let answer = shop.admin_call("GET", &path("loss"), &key).await;
        assert_eq!(answer.status, loss, "{role}");
        if answer.status == 200 {
            assert_eq!(names_in(&answer.json().unwrap()), [lost.as_str()]);
        }
        let answer = shop.admin_call("POST", &path("accept-loss"), &key).await;
        assert_eq!(answer.status, accept, "{role}");
    }
    shop.wins("late").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_that_are_forgotten_again_and_again_are_not_missed() {
    let shop = shop_of(1_000_000).await;
    let buyers = Buyers::start(&shop, 8, "a", 1);
    let mut flushes = 0;
    while shop.count(Told::Yes) < 1_500 {
        for _ in 0..20 {
            let flushed = shop.rig.redis().command(&["SCRIPT", "FLUSH"]).unwrap();
            assert_eq!(flushed, "OK");
            flushes += 1;
        }
        buyers.work(&shop, 0, 1).await;
    }
    buyers.stop().await;
    let stats = shop.rig.redis().command(&["INFO", "commandstats"]).unwrap();
    let by_text = stats.lines().find(|line| line.starts_with("cmdstat_eval:"));
    let calls = by_text.and_then(|line| line.split([':', '=', ',']).nth(2)?.parse::<u64>().ok());
    assert!(
        calls.unwrap_or(0) > 20,
        "the fault did not fire: {flushes} {by_text:?}"
    );
    let (yes, all) = (shop.count(Told::Yes), shop.log.len());
    assert_eq!(yes, all, "somebody noticed");
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emptied_under_load_it_is_not_sold_from() {
    let mut shop = shop_of(1_000_000).await;
    let buyers = Buyers::start(&shop, 8, "a", 1);
    buyers.work(&shop, 100, 6).await;
    let won = shop.wins("k").await;
    shop.rig.redis().command(&["FLUSHALL"]).unwrap();
    shop.until_told(&[Told::No("sale_frozen")], 1).await;
    buyers.stop().await;
    shop.assert_frozen("k", &won).await;
    shop.until_not_ready("emptied").await;
    assert!(shop.server.log().contains("the sale is frozen"));
    // Everybody who was told yes is on the list.
    let lost = shop.sale(&["loss", SALE]);
    assert_eq!(good(&lost).lines().count(), won_count(&shop));
    assert!(shop.server.stop(BOUND).unwrap().success());
    let line = refusal(&run_bounded(shop.rig.serve(FREE, FREE)));
    assert!(line.contains("acked-redis"), "{line}");
}

/// How many different reservations were acknowledged.
fn won_count(shop: &Shop) -> usize {
    let entries = shop.log.entries();
    let won = entries.iter().filter_map(|entry| match &entry.answer {
        Some(Answer::Yes { reservation, .. }) => Some(reservation.as_str()),
        None | Some(Answer::No { .. } | Answer::Unknown { .. } | Answer::NotSent) => None,
    });
    won.collect::<BTreeSet<_>>().len()
}

/// The keys of a sale.
const KEYS: [&str; 8] = ["meta", "w", "resv", "key", "buyer", "ref", "ev", "note"];

impl Shop {
    /// Opens another sale in which one unit is bought, under `k0`, and paid.
    async fn open_another(&self, id: &str) {
        let mut plan = sale(&[("a", 10)]);
        plan["sale_id"] = json!(id);
        self.api().publish(&plan).await.unwrap();
        let won = self.buy_in(id, "k0").await;
        let name = won.text_field("reservation_id").unwrap();
        let paid = api::confirm(name, &self.keys.storefront_key, "p");
        assert_eq!(self.client().send(&paid).await.unwrap().status, 200);
    }

    async fn buy_in(&self, sale: &str, key: &str) -> Response {
        let exp_s = crowd::token::now_s() + 3_600;
        let token = self.keys.minter().mint("u", exp_s);
        let request = api::purchase(sale, &token, key, &[("a".into(), 1)]);
        self.client().send(&request).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_deleted_or_of_another_type_stops_its_sale_alone() {
    let shop = shop_of(1_000).await;
    for name in KEYS {
        for what in ["deleted", "changed"] {
            let id = format!("{what}-{name}");
            let key = format!("{{s:{id}}}:{name}");
            shop.open_another(&id).await;
            if what == "changed" {
                let set = ["SET", &key, "something else"];
                assert_eq!(shop.rig.redis().command(&set).unwrap(), "OK");
            } else {
                let deleted = shop.rig.redis().command(&["DEL", &key]).unwrap();
                assert_eq!(deleted, "1", "{key}");
            }
            // Of the first one nobody knows, where the script failed over it.
            let first = shop.buy_in(&id, "k1").await.outcome();
            let is_stopped = ["sale_frozen", "unknown"].contains(&first.as_str());
            assert!(is_stopped, "{key}: {first}");
            let frozen = shop.buy_in(&id, "k2").await;
            assert_eq!(frozen.outcome(), "sale_frozen", "{key}");
            assert_eq!(shop.buy_in(&id, "k0").await.outcome(), "replayed", "{key}");
            let accept = shop.sale(&["accept-loss", &id, "--list", "/dev/null"]);
            if (what, name) == ("deleted", "w") {
                // It only tells who writes: nothing of the books is gone.
                assert!(good(&accept).contains("is open: 0 reservations"), "{key}");
                continue;
            }
            // What is left is nothing to go on with, and that is said.
            let told = failed(&accept);
            assert!(told.contains("(409)"), "{key}: {told}");
        }
    }
    assert!(shop.server.log().contains("the sale is frozen"));
    // The others have not noticed.
    shop.wins("k").await;
    assert!(shop.api().audit(SALE).await.unwrap().ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_deleted_or_of_another_type_while_nobody_served_is_found_at_the_start() {
    let mut shop = shop_of(1_000).await;
    // Who served last is nothing that a sale hangs on, and a sale without `meta` is none.
    let keys: Vec<_> = KEYS
        .into_iter()
        .filter(|name| !["meta", "w"].contains(name))
        .collect();
    for name in &keys {
        for what in ["deleted", "changed"] {
            shop.open_another(&format!("{what}-{name}")).await;
        }
    }
    assert!(shop.server.stop(BOUND).unwrap().success());
    for name in &keys {
        let redis = shop.rig.redis();
        let deleted = format!("{{s:deleted-{name}}}:{name}");
        assert_eq!(redis.command(&["DEL", &deleted]).unwrap(), "1");
        let changed = format!("{{s:changed-{name}}}:{name}");
        assert_eq!(redis.command(&["SET", &changed, "x"]).unwrap(), "OK");
    }
    shop.restart();
    for name in &keys {
        for what in ["deleted", "changed"] {
            let frozen = shop.buy_in(&format!("{what}-{name}"), "k1").await;
            assert_eq!(frozen.outcome(), "sale_frozen", "{what} {name}");
        }
    }
    shop.wins("k").await;
    assert!(shop.server.stop(BOUND).unwrap().success());
    let meta = shop.rig.redis().command(&["DEL", "{s:s1}:meta"]).unwrap();
    assert_eq!(meta, "1");
    let line = refused_start(&shop.rig);
    for told in [
        "s1 (number 1)",
        "acked-redis",
        "restore its append-only file",
    ] {
        assert!(line.contains(told), "{told}: {line}");
    }
}
