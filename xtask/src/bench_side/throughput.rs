//! How much campaigns do by themselves: joins, coupons locked and used, the report of a campaign with many participants.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use crowd::client::{Client, Request, Response};
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};

use super::{CAMPAIGN, Stage, beside};

/// Connections that ask at once.
const CONNECTIONS: [usize; 3] = [1, 16, 128];
/// Joins of one measurement.
const JOINS: usize = 3_000;
/// Times that a report is made.
const REPORTS: usize = 3;

pub(super) fn run(stage: &Stage<'_>) -> anyhow::Result<()> {
    println!(
        "\n| campaigns on | what | connections | a second | p50 ms | p99 ms |\n|---|---|---|---|---|---|"
    );
    let local = LocalSet::new();
    local.block_on(&stage.runtime, measure(stage))
}

async fn measure(stage: &Stage<'_>) -> anyhow::Result<()> {
    let key = stage.keys.storefront_key.as_str();
    let joins = |from: usize, count: usize| -> Vec<Request> {
        let buyers = (from..from + count).map(|number| format!("throughput-{number:07}"));
        buyers.map(|buyer| beside::join(key, &buyer)).collect()
    };
    let mut joined = 0;
    for connections in CONNECTIONS {
        // One connection waits for every flush.
        let count = if connections == 1 { JOINS / 4 } else { JOINS };
        let coupons = timed(
            stage,
            connections,
            "join with a coupon",
            joins(joined, count),
        )
        .await?;
        joined += count;
        let ids: Vec<_> = coupons
            .iter()
            .filter_map(|answer| answer.text_field("id"))
            .collect();
        ensure!(ids.len() == count, "some were given no coupon");
        let lock = |(number, id): (usize, &&str)| {
            let order = format!("order-{connections}-{number}");
            let body = json!({"order_id": order, "order_amount_minor": 10_000});
            coupon(key, id, "lock", &body)
        };
        let locks = ids.iter().enumerate().map(lock).collect();
        timed(stage, connections, "coupon: lock", locks).await?;
        let use_up = |(number, id): (usize, &&str)| {
            let body = json!({"order_id": format!("order-{connections}-{number}")});
            coupon(key, id, "use", &body)
        };
        let uses = ids.iter().enumerate().map(use_up).collect();
        timed(stage, connections, "coupon: use", uses).await?;
    }
    while joined < stage.options.participants {
        let count = (stage.options.participants - joined).min(10_000);
        sent(stage, 128, joins(joined, count)).await?;
        joined += count;
    }
    let target = format!("/v1/admin/campaigns/{CAMPAIGN}/report");
    for _ in 0..REPORTS {
        let asked_at = Instant::now();
        let report = stage.admin("GET", &target, &Value::Null).await;
        let elapsed_ms = asked_at.elapsed().as_secs_f64() * 1e3;
        let told = match report {
            Ok(_) => format!("{elapsed_ms:.0} ms"),
            Err(error) => format!("{error} after {elapsed_ms:.0} ms"),
        };
        println!(
            "| {} | daily report, {joined} participants and more | 1 | {told} | | |",
            stage.database.described()
        );
    }
    Ok(())
}

fn coupon(key: &str, id: &str, verb: &str, body: &Value) -> Request {
    Request::post(&format!("/v1/coupons/{id}/{verb}"))
        .bearer(key)
        .json(&body.to_string())
}

/// Sends them all over so many connections, and prints how fast.
async fn timed(
    stage: &Stage<'_>,
    connections: usize,
    what: &str,
    requests: Vec<Request>,
) -> anyhow::Result<Vec<Response>> {
    let count = requests.len();
    let began_at = Instant::now();
    let mut answers = sent(stage, connections, requests).await?;
    let seconds = began_at.elapsed().as_secs_f64();
    answers.sort_unstable_by_key(|(latency, _)| *latency);
    let at = |part: f64| {
        let index = answers.len().saturating_sub(1) as f64 * part;
        answers[index.round() as usize].0.as_secs_f64() * 1e3
    };
    println!(
        "| {} | {what} | {connections} | {:.0} | {:.1} | {:.1} |",
        stage.database.described(),
        count as f64 / seconds,
        at(0.5),
        at(0.99),
    );
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// Sends them all over so many connections; answers with their latency.
async fn sent(
    stage: &Stage<'_>,
    connections: usize,
    requests: Vec<Request>,
) -> anyhow::Result<Vec<(Duration, Response)>> {
    let left = Rc::new(RefCell::new(requests));
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        let mut client = Client::new(stage.server.public, beside::PATIENT);
        let left = Rc::clone(&left);
        senders.spawn_local(async move {
            let mut answers = Vec::new();
            let next = || left.borrow_mut().pop();
            while let Some(request) = next() {
                let sent_at = Instant::now();
                let answer = client.send(&request).await?;
                let told = || String::from_utf8_lossy(&answer.body).into_owned();
                ensure!(answer.status < 300, "{} {}", answer.status, told());
                answers.push((sent_at.elapsed(), answer));
            }
            Ok(answers)
        });
    }
    let mut answers = Vec::new();
    while let Some(joined) = senders.join_next().await {
        answers.extend(joined.context("a sender")??);
    }
    Ok(answers)
}
