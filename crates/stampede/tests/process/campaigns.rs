//! The campaigns beside a sale: whatever becomes of their database, units are sold and nobody waits for ever.

use std::time::{Duration, Instant};

use crowd::client::{Client, Request, Timeouts};
use crowd::wait::poll_until_async;
use dev_servers::{Databases, PostgresServer};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::rig::*;

/// Asks the database, by a transaction.
const PATH: &str = "/v1/admin/campaigns-database";
/// Ten times what an answer may take.
const ANSWER_BOUND: Duration = Duration::from_secs(20);
const UNITS: u32 = 200;

impl Shop {
    fn side_client(&self) -> Client {
        Client::new(self.server.admin, Timeouts::default())
    }

    fn side_request(&self) -> Request {
        let key = format!("Bearer {}", self.keys.admin_key);
        Request::get(PATH).header("authorization", &key).bare()
    }

    /// Asks the campaigns; status and body.
    async fn side(&self) -> (u16, Value) {
        let asked_at = Instant::now();
        let answer = self.side_client().send(&self.side_request()).await.unwrap();
        assert!(asked_at.elapsed() < ANSWER_BOUND, "it waited too long");
        (answer.status, answer.json().unwrap())
    }

    async fn until_side(&self, status: u16) -> Value {
        let mut last = Value::Null;
        let told = poll_until_async(BOUND, Duration::from_millis(100), async || {
            let (now, body) = self.side().await;
            last = body.clone();
            (now == status).then_some(body)
        });
        let told = told.await;
        told.unwrap_or_else(|| panic!("never {status}: {last}\n{}", self.server.log()))
    }

    /// Everything is sold meanwhile, by several buyers at once.
    async fn sells_out(&self) {
        let buyers = (0..8).map(async |index| {
            let mut client = self.client();
            for number in 0..UNITS / 8 {
                let buyer = format!("b{index}-{number}");
                let key = format!("k{buyer}");
                let answer = self.buy(&mut client, &buyer, &key, "a").await.unwrap();
                assert_eq!(answer.status, 201, "{}", answer.outcome());
            }
        });
        futures_util::future::join_all(buyers).await;
        let mut client = self.client();
        let answer = self.buy(&mut client, "late", "late", "a").await.unwrap();
        assert_eq!(answer.outcome(), "sold_out");
    }

    /// What `/readyz` notes while it is ready.
    async fn notes(&self) -> String {
        let mut client = self.side_client();
        let answer = client.send(&Request::get("/readyz").bare()).await.unwrap();
        assert_eq!(answer.status, 200);
        answer.json().unwrap()["notes"].to_string()
    }
}

fn on(database: &str) -> Rig {
    Rig::new()
        .argument("--database", database)
        .environment("STAMPEDE_ADMIN_CONNECTIONS_MAX", "4000")
}

/// Holds that a refusal says that nothing was done, or that nobody knows.
fn is_no(status: u16, body: &Value) -> bool {
    let outcome = body["outcome"].as_str().unwrap_or_default();
    let is_known = matches!(
        (status, outcome),
        (503, "store_unavailable" | "overloaded") | (504, "unknown")
    );
    is_known && body["retry_after_ms"].is_u64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_start_with_a_file_of_their_own_and_end_with_the_process() {
    let mut shop = Shop::open(Rig::new(), &[("a", UNITS)]).await;
    let told = shop.until_side(200).await;
    assert_eq!(told["kind"], "sqlite");
    let tables = told["tables"].to_string();
    assert!(tables.contains("books-1"), "{tables}");
    assert!(shop.rig.options.data.join("campaigns.db").is_file());
    let mut client = shop.side_client();
    let document = client
        .send(&Request::get("/openapi.json").bare())
        .await
        .unwrap();
    let document = document.json().unwrap();
    let operation = &document["paths"][PATH]["get"];
    assert!(operation.is_object(), "{document}");
    assert_eq!(shop.notes().await, "null");
    assert_eq!(shop.metric("stampede_side_up").await, 1.0);
    let done = "stampede_side_requests_total{outcome=\"done\"}";
    assert!(shop.metric(done).await >= 1.0);

    // After a kill as well as after a stop.
    shop.server.kill().unwrap();
    shop.restart();
    assert_eq!(shop.until_side(200).await["tables"], told["tables"]);
    shop.sells_out().await;
    shop.server.stop(BOUND).unwrap();
    let off = Rig::new().environment("STAMPEDE_CAMPAIGNS_ENABLED", "false");
    let shop = Shop::start(off);
    assert_eq!(shop.side().await.0, 404);
    assert!(!shop.rig.options.data.join("campaigns.db").exists());
}

/// Names and niceness of the server's threads.
#[cfg(target_os = "linux")]
fn threads(shop: &Shop) -> Vec<(String, i32)> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", shop.server.pid())).unwrap();
    let threads = tasks.filter_map(|task| {
        // It may have ended meanwhile.
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let nice = rest.split_whitespace().nth(16)?.parse().ok()?;
        Some((name.to_owned(), nice))
    });
    threads.collect()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn their_threads_stand_behind_those_that_sell() {
    let shop = Shop::open(Rig::new(), &[("a", UNITS)]).await;
    shop.until_side(200).await;
    let threads = threads(&shop);
    let niceness = |start: &str| -> Vec<i32> {
        let named = threads.iter().filter(|(name, _)| name.starts_with(start));
        named.map(|(_, nice)| *nice).collect()
    };
    let selling = niceness("front");
    let behind = [niceness("campaigns"), niceness("sqlx-sqlite")];
    assert!(!selling.is_empty(), "{threads:?}");
    for behind in behind {
        assert!(!behind.is_empty(), "{threads:?}");
        let step_back = behind.iter().all(|nice| *nice == (selling[0] + 10).min(19));
        assert!(step_back, "{threads:?}");
    }
    let others = threads
        .iter()
        .filter(|(name, _)| !name.starts_with("campaigns") && !name.starts_with("sqlx-sqlite"));
    for (name, nice) in others {
        assert_eq!(*nice, selling[0], "{name} {threads:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_stands_still_stops_only_them() {
    let servers = Databases::start().unwrap();
    let [_, url] = servers.urls().unwrap();
    let mut shop = Shop::open(on(&url), &[("a", UNITS)]).await;
    assert_eq!(shop.until_side(200).await["kind"], "postgres");
    servers.postgres.freeze().unwrap();

    // Far more than can be at work or wait.
    let mut calls = JoinSet::new();
    for _ in 0..2_000 {
        let (mut client, request) = (shop.side_client(), shop.side_request());
        calls.spawn(async move {
            let asked_at = Instant::now();
            let answer = client.send(&request).await.unwrap();
            (asked_at.elapsed(), answer.status, answer.json().unwrap())
        });
    }
    shop.sells_out().await;
    let mut overloaded = 0;
    while let Some(joined) = calls.join_next().await {
        let (took, status, body) = joined.unwrap();
        assert!(took < ANSWER_BOUND, "{took:?}");
        assert!(is_no(status, &body), "{status} {body}");
        overloaded += usize::from(body["outcome"] == "overloaded");
    }
    assert!(overloaded > 0, "the bound was never met");
    let is_noted = poll_until_async(BOUND, LOOK, async || {
        let notes = shop.notes().await;
        notes.contains("campaigns: ").then_some(())
    });
    assert!(is_noted.await.is_some(), "{}", shop.server.log());

    servers.postgres.thaw().unwrap();
    shop.until_side(200).await;
    shop.assert_books().await;
    // A stop ends in time though the database stands still.
    servers.postgres.freeze().unwrap();
    shop.server.stop(BOUND).unwrap();
    servers.postgres.thaw().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_another_process_locks_stops_only_them() {
    let shop = Shop::open(Rig::new(), &[("a", UNITS)]).await;
    shop.until_side(200).await;
    let file = shop.rig.options.data.join("campaigns.db");
    let other = rusqlite::Connection::open(file).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let (status, body) = shop.side().await;
    assert!(is_no(status, &body), "{status} {body}");
    shop.sells_out().await;
    other.execute_batch("ROLLBACK").unwrap();
    shop.until_side(200).await;
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_starts_and_sells_while_their_database_is_down() {
    let mut server = PostgresServer::start().unwrap();
    let url = server.database().unwrap();
    server.kill().unwrap();
    let shop = Shop::open(on(&url), &[("a", UNITS)]).await;
    let (status, body) = shop.side().await;
    assert_eq!(
        (status, &body["outcome"]),
        (503, &"store_unavailable".into())
    );
    assert!(shop.notes().await.contains("campaigns: "));
    assert_eq!(shop.metric("stampede_side_up").await, 0.0);
    shop.sells_out().await;
    server.restart().unwrap();
    shop.until_side(200).await;
    assert_eq!(shop.notes().await, "null");
    shop.assert_books().await;
}

#[test]
fn a_wrong_database_ends_the_start() {
    let free = "127.0.0.1:0";
    let line = refusal(&run_bounded(on("mysql://u:secret@h/d").serve(free, free)));
    assert!(line.contains("campaigns.database is neither"), "{line}");
    assert!(!line.contains("secret"), "{line}");

    let rig = Rig::new();
    let data = &rig.options.data;
    std::fs::create_dir(data).unwrap();
    let newer = rusqlite::Connection::open(data.join("campaigns.db")).unwrap();
    newer
        .execute_batch(
            "CREATE TABLE migration (name TEXT PRIMARY KEY, hash TEXT NOT NULL, at_ms BIGINT NOT NULL);
             INSERT INTO migration VALUES ('books-999', 'x', 0);",
        )
        .unwrap();
    drop(newer);
    let output = run_bounded(rig.serve(free, free));
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("newer program (books-999)"));
}
