//! Redis as the store: every way in which it fails under the whole process, what buyers are told, and what is true after.

use std::time::Duration;

use crowd::log::Attempt;
use crowd::wait::poll_until_async;
use dev_servers::RedisOptions;
use serde_json::Value;

use crate::rig::*;

mod away;
mod lost;
mod network;
mod nodes;
mod refusing;
mod start;

/// Time-outs of the engine: short, so that little has to be waited for.
const TIMEOUT: Duration = Duration::from_millis(400);
const DEADLINE: Duration = Duration::from_millis(1_500);

/// Any free port.
const FREE: &str = "127.0.0.1:0";

/// A rig with short time-outs.
fn quick(rig: Rig) -> Rig {
    let ms = |duration: Duration| duration.as_millis().to_string();
    rig.environment("STAMPEDE_STORE_REDIS_TIMEOUT_MS", &ms(TIMEOUT))
        .environment("STAMPEDE_ENGINE_REQUEST_DEADLINE_MS", &ms(DEADLINE))
}

/// An open sale of `units` of `a`, on a Redis of its own and with short time-outs.
async fn shop_of(units: u32) -> Shop {
    let rig = quick(Rig::on(RedisOptions::default()));
    Shop::open(rig, &[("a", units)]).await
}

impl Shop {
    /// Waits until `/readyz` says yes.
    async fn until_ready(&self) {
        let is_ready = poll_until_async(BOUND, LOOK, async || {
            self.readiness().await.is_ready().then_some(())
        });
        if is_ready.await.is_none() {
            panic!("{:?}\n{}", self.readiness().await, self.server.log());
        }
    }

    /// Waits until `/readyz` says no, and this among its reasons.
    async fn until_not_ready(&self, reason: &str) {
        let is_told = poll_until_async(BOUND, LOOK, async || {
            let readiness = self.readiness().await;
            (!readiness.is_ready() && readiness.reasons.contains(reason)).then_some(())
        });
        if is_told.await.is_none() {
            panic!(
                "not {reason}: {:?}\n{}",
                self.readiness().await,
                self.server.log()
            );
        }
    }

    /// Waits until a metric has this value.
    async fn until_measured(&self, name: &str, value: f64) {
        let is_so = poll_until_async(BOUND, LOOK, async || {
            (self.metric(name).await == value).then_some(())
        });
        assert!(is_so.await.is_some(), "{name}\n{}", self.server.log());
    }

    /// Waits until so many attempts were told so.
    async fn until_told(&self, told: &[Told], count: usize) {
        let is_told = poll_until_async(BOUND, LOOK, async || {
            let sum: usize = told.iter().map(|told| self.count(*told)).sum();
            (sum >= count).then_some(())
        });
        assert!(is_told.await.is_some(), "{}", self.server.log());
    }

    /// A number in `meta` of the sale.
    fn meta(&self, field: &str) -> u64 {
        let words = ["HGET", "{s:s1}:meta", field];
        self.rig.redis().command(&words).unwrap().parse().unwrap()
    }

    /// What everybody is shown of the sale.
    async fn shown(&self) -> Value {
        let request = crowd::Request::get(&format!("/v1/sales/{SALE}")).bare();
        self.client().send(&request).await.unwrap().json().unwrap()
    }

    /// Units that everybody is shown as available, of the first item.
    async fn shown_units(&self) -> u64 {
        self.shown().await["items"][0]["available_units"]
            .as_u64()
            .unwrap()
    }

    /// Buys one unit of `a` for `u` under this key; holds that it is a yes, and gives the reservation's name.
    async fn wins(&self, key: &str) -> String {
        let answer = self.buy(&mut self.client(), "u", key, "a").await.unwrap();
        let log = self.server.log();
        assert_eq!(answer.outcome(), "reserved", "{key}\n{log}");
        answer.text_field("reservation_id").unwrap().to_owned()
    }

    /// Tries to buy under this key until the answer is this one.
    async fn until_answered(&self, key: &str, outcome: &str) {
        let mut client = self.client();
        let mut last = String::new();
        let is_told = poll_until_async(BOUND, LOOK, async || {
            let answer = self.buy(&mut client, "u", key, "a").await.unwrap();
            last = answer.outcome();
            (last == outcome).then_some(())
        });
        let is_told = is_told.await.is_some();
        assert!(is_told, "{outcome}: {last}\n{}", self.server.log());
    }

    /// Tries to buy, under one key after the other, until the sale is frozen: of what was on its way nobody knows.
    async fn until_frozen(&self) {
        let mut client = self.client();
        let mut number = 0;
        let is_frozen = poll_until_async(BOUND, LOOK, async || {
            number += 1;
            let key = format!("late{number}");
            let answer = self.buy(&mut client, "u", &key, "a").await.unwrap();
            (answer.outcome() == "sale_frozen").then_some(())
        });
        assert!(is_frozen.await.is_some(), "{}", self.server.log());
    }
}

/// Holds that a start is refused, with 2; gives the last line that it says, which tells why.
fn refused_start(rig: &Rig) -> String {
    let output = run_bounded(rig.serve(FREE, FREE));
    let told = stderr(&output);
    assert_eq!(
        (output.status.code(), stdout(&output)),
        (Some(2), String::new()),
        "{told}"
    );
    let line = told.lines().last().unwrap();
    assert!(line.starts_with("stampede: "), "{told}");
    line.to_owned()
}

/// Whether this attempt bought under one of these keys.
fn bought_under(attempt: &Attempt, keys: &[String]) -> bool {
    match attempt {
        Attempt::Purchase { key, .. } => keys.contains(key),
        Attempt::Confirm { .. } | Attempt::Cancel { .. } => false,
    }
}

/// What a page of losses lists, by name.
fn names_in(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    let names = items
        .iter()
        .map(|one| &one["reservation"]["reservation_id"]);
    names
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}
