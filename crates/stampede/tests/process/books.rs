//! The books of campaigns from outside: audited beside a running store and on a killed one, altered by hand, backed up
//! while buyers join, restored elsewhere.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crowd::client::{Request, Response};
use crowd::token::now_s;
use crowd::wait::poll_until_async;
use dev_servers::{Databases, PostgresServer};
use rusqlite::Connection;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::rig::*;

/// The campaign of config/examples/giveaway.toml.
const CAMPAIGN: &str = "example-giveaway";
const PATH: &str = "/v1/campaigns/example-giveaway/participations";
/// A transfer that is not worth what it says any more: one of its legs.
const TAMPER: &str = "UPDATE entry SET delta = delta - 1 WHERE id = \
                      (SELECT MAX(id) FROM entry WHERE delta > 1)";

impl Shop {
    /// A server with a giveaway that is open.
    async fn with_campaign(rig: Rig) -> Self {
        let shop = Self::open(rig, &[("a", 10)]).await;
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../config/examples/giveaway.toml"
        );
        let url = format!("http://{}", shop.server.admin);
        let applied = poll_until_async(BOUND, LOOK, async || {
            // PostgreSQL may not have been reached yet.
            let words = ["campaign", "apply", file, "--publish", "--admin-url", &url];
            let output = stampede(&[&words[..], &["--data", shop.rig.data()]].concat());
            output.status.success().then_some(())
        });
        assert!(applied.await.is_some(), "{}", shop.server.log());
        shop
    }

    fn participation(&self, buyer: &str, key: Option<&str>) -> Request {
        let token = self.keys.minter().mint(buyer, now_s() + 3_600);
        match key {
            Some(key) => Request::post(PATH).bearer(&token).key(key).bare(),
            None => Request::get(PATH).bearer(&token).bare(),
        }
    }

    async fn joins(&self, buyer: &str) -> Response {
        let request = self.participation(buyer, Some(&format!("key-{buyer}")));
        self.client().send(&request).await.unwrap()
    }

    async fn join_all(&self, buyers: &[&str]) {
        for buyer in buyers {
            let answer = self.joins(buyer).await;
            assert_eq!(answer.status, 201, "{}", answer.outcome());
        }
    }

    /// `campaign` with these words, as the admin.
    fn command(&self, words: &[&str]) -> Output {
        let url = format!("http://{}", self.server.admin);
        let more = ["--admin-url", &url, "--data", self.rig.data()];
        stampede(&[&["campaign"], words, &more].concat())
    }

    fn campaigns_db(&self) -> PathBuf {
        Path::new(self.rig.data()).join("campaigns.db")
    }
}

fn audit(data: &str, words: &[&str]) -> Output {
    stampede(&[&["audit", "--data", data], words].concat())
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap()
}

/// Holds that an audit ends with 3 and names this.
fn finds(output: &Output, code: &str) {
    let (said, complained) = (stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(3), "{said}{complained}");
    assert!(
        complained.contains("the books do not balance"),
        "{complained}"
    );
    assert!(said.contains(&format!("WRONG {code} ")), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn campaigns_in_a_file_are_audited_running_killed_and_altered() {
    let mut shop = Shop::with_campaign(Rig::new()).await;
    shop.join_all(&["ann", "ben", "cem", "dan", "eve"]).await;
    let data = shop.rig.data().to_owned();
    let output = audit(&data, &[]);
    let said = good(&output);
    let place = format!("campaigns in sqlite:{data}/campaigns.db: ");
    assert!(said.contains(&place), "{said}");
    assert!(said.contains("ok: the campaigns' books balance"), "{said}");
    assert_eq!(stderr(&output), "");
    let told = json(&audit(&data, &["--json"]));
    assert_eq!(
        (&told["ok"], &told["campaigns"]["ok"]),
        (&true.into(), &true.into())
    );
    // A coupon for each.
    assert!(told["campaigns"]["holds"].as_u64() >= Some(5), "{told}");
    assert_eq!(told["sales"][0]["items"][0]["stock_units"], 10);
    for number in ["accounts", "transfers", "entries"] {
        assert!(told["campaigns"][number].as_u64() > Some(0), "{told}");
    }
    assert_eq!(told["campaigns"]["findings"], serde_json::json!([]));

    // Draws of what is settled are recomputed.
    good(&shop.command(&["end", CAMPAIGN]));
    let settled = poll_until_async(BOUND, LOOK, async || {
        let list = good(&shop.command(&["list"]));
        list.contains("SETTLED").then_some(())
    });
    assert!(settled.await.is_some(), "{}", shop.server.log());
    good(&audit(&data, &[]));
    shop.server.kill().unwrap();
    good(&audit(&data, &[]));

    let file = shop.campaigns_db();
    let alter = |sql: &str| {
        let database = Connection::open(&file).unwrap();
        assert!(database.execute(sql, []).unwrap() >= 1, "{sql}");
        database.close().unwrap();
    };
    let redraw = "UPDATE draw SET value = CASE value WHEN low THEN high ELSE low END \
                  WHERE sequence = 1 AND high > low";
    // With it what was in the log is in the file.
    alter("UPDATE campaign SET revision = revision + 1");
    let stood = std::fs::read(&file).unwrap();
    alter(redraw);
    finds(&audit(&data, &[]), "wrong_draw");
    std::fs::write(&file, &stood).unwrap();
    good(&audit(&data, &[]));
    alter(TAMPER);
    let output = audit(&data, &[]);
    finds(&output, "unbalanced_transfer");
    assert!(
        stdout(&output).contains("ok: the books balance"),
        "the sales do"
    );
    let told = audit(&data, &["--json"]);
    assert_eq!(told.status.code(), Some(3));
    let told = json(&told);
    assert_eq!(
        (&told["ok"], &told["campaigns"]["ok"]),
        (&false.into(), &false.into())
    );
    let found = told["campaigns"]["findings"].as_array().unwrap();
    assert!(
        found
            .iter()
            .any(|found| found["code"] == "unbalanced_transfer"),
        "{told}"
    );
    // And it is not backed up.
    let copy = shop.rig.path("copy.db");
    let output = stampede(&["backup", copy.to_str().unwrap(), "--data", &data]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("nothing was kept"));
    assert!(!copy.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn campaigns_on_postgres_are_audited_by_their_url_and_a_wrong_one_is_told() {
    let servers = Databases::start().unwrap();
    let [other, url] = servers.urls().unwrap();
    let mut shop = Shop::with_campaign(Rig::new().argument("--database", &url)).await;
    shop.join_all(&["ann", "ben"]).await;
    let data = shop.rig.data().to_owned();
    let told = json(&audit(&data, &["--database", &url, "--json"]));
    assert_eq!(
        (&told["ok"], &told["campaigns"]["ok"]),
        (&true.into(), &true.into())
    );
    assert!(told["campaigns"]["holds"].as_u64() >= Some(2), "{told}");
    // Without it nothing is known of them.
    let output = audit(&data, &["--json"]);
    assert!(output.status.success());
    assert!(stderr(&output).contains("name their database by --database"));
    assert_eq!(json(&output)["campaigns"], Value::Null);
    shop.server.kill().unwrap();
    good(&audit(&data, &["--database", &url]));
    servers.postgres.psql(&url, TAMPER).unwrap();
    finds(&audit(&data, &["--database", &url]), "unbalanced_transfer");

    // Another database, an old one, a newer one, none at all.
    let empty = servers.postgres.database().unwrap();
    let refused = |database: &str, word: &str| {
        let line = refusal(&audit(&data, &["--database", database]));
        assert!(line.contains(word), "{line}");
        assert!(!line.contains("secret"), "{line}");
    };
    refused(&empty, "no tables of campaigns");
    refused(&other, "is it the one that `serve` has");
    assert!(!Path::new(other.strip_prefix("sqlite:").unwrap()).exists());
    refused("mysql://u:secret@h/d", "--database is neither");
    let sales = format!("sqlite:{data}/stampede.db");
    refused(&sales, "no tables of campaigns");
    let drop_last = "DELETE FROM migration WHERE name LIKE 'report-%'";
    servers.postgres.psql(&url, drop_last).unwrap();
    refused(&url, "of an older program");
    let mut gone = PostgresServer::start().unwrap();
    let nobody = gone
        .database()
        .unwrap()
        .replace("stampede@", "stampede:secret@");
    gone.kill().unwrap();
    refused(&nobody, "is it the one that `serve` has");
}

/// Copies what a backup made, and the keys, into a new folder.
fn restore(shop: &Shop, file: &Path) -> PathBuf {
    let restored = shop.rig.path("restored");
    std::fs::create_dir(&restored).unwrap();
    std::fs::copy(file, restored.join("stampede.db")).unwrap();
    let campaigns = format!("{}.campaigns.db", file.display());
    std::fs::copy(campaigns, restored.join("campaigns.db")).unwrap();
    let keys = Path::new(shop.rig.data()).join("keys.toml");
    std::fs::copy(keys, restored.join("keys.toml")).unwrap();
    restored
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_while_buyers_join_is_restored_with_those_who_had() {
    let shop = Arc::new(Shop::with_campaign(Rig::new()).await);
    let (joined, is_over) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut tasks = JoinSet::new();
    for index in 0..4 {
        let (shop, joined) = (Arc::clone(&shop), Arc::clone(&joined));
        let is_over = Arc::clone(&is_over);
        tasks.spawn(async move {
            let mut buyers = Vec::new();
            // Relaxed, here and below: numbers to look at, nothing hangs on their order.
            while !is_over.load(Ordering::Relaxed) {
                let buyer = format!("b{index}-{}", buyers.len());
                let answer = shop.joins(&buyer).await;
                if answer.status != 201 {
                    assert_eq!(answer.status, 403, "{}", answer.outcome());
                    break;
                }
                buyers.push(buyer);
                joined.fetch_add(1, Ordering::Relaxed);
            }
            buyers
        });
    }
    let until = async |count: usize| {
        let reached = poll_until_async(BOUND, LOOK, async || {
            (joined.load(Ordering::Relaxed) >= count).then_some(())
        });
        assert!(
            reached.await.is_some(),
            "nobody joins\n{}",
            shop.server.log()
        );
    };
    until(40).await;
    let before = joined.load(Ordering::Relaxed);
    let copies = shop.rig.path("copies");
    std::fs::create_dir(&copies).unwrap();
    let file = copies.join("monday.db");
    let words = ["backup", file.to_str().unwrap(), "--data", shop.rig.data()];
    let said = good(&stampede(&words));
    assert!(
        said.contains("monday.db.campaigns.db holds the campaigns"),
        "{said}"
    );
    // A second one needs a word, and then takes the place of both.
    let line = refusal(&stampede(&words));
    assert!(line.contains("--force"), "{line}");
    good(&stampede(&[&words[..], &["--force"]].concat()));
    let copied = joined.load(Ordering::Relaxed);
    until(copied + 20).await;
    is_over.store(true, Ordering::Relaxed);
    let told: Vec<_> = tasks.join_all().await.concat();

    let mut names: Vec<_> = content(&copies).into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["monday.db", "monday.db.campaigns.db"]);
    use std::os::unix::fs::PermissionsExt as _;
    let campaigns = copies.join("monday.db.campaigns.db");
    let mode = std::fs::metadata(&campaigns).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut shop = Arc::into_inner(shop).unwrap();
    assert!(shop.server.stop(BOUND).unwrap().success());
    let restored = restore(&shop, &file);
    shop.move_to(&restored);
    let output = audit(shop.rig.data(), &[]);
    assert!(good(&output).contains("ok: the campaigns' books balance"));
    // Who had joined before is in, and hears the same again.
    let mut there = 0;
    for buyer in &told {
        let own = shop.client().send(&shop.participation(buyer, None)).await;
        if own.unwrap().status == 200 {
            there += 1;
            let again = shop.joins(buyer).await;
            assert_eq!((again.status, again.is_replay()), (200, true), "{buyer}");
        }
    }
    assert!(there >= before, "{there} of {before} are there");
    assert!(
        there < told.len(),
        "nothing came after the backup: it proves nothing"
    );
    shop.join_all(&["zoe"]).await;
    good(&audit(shop.rig.data(), &[]));
}

#[tokio::test]
async fn campaigns_alone_are_backed_up_where_the_sales_are_in_redis() {
    let shop = Shop::with_campaign(Rig::on_redis()).await;
    shop.join_all(&["ann"]).await;
    let file = shop.rig.path("c.db");
    let data = shop.rig.data();
    let words = ["backup", file.to_str().unwrap(), "--data", data];
    assert!(refusal(&stampede(&words)).contains("in Redis"));
    let said = good(&stampede(&[&words[..], &["--campaigns-only"]].concat()));
    assert!(said.contains("c.db holds the campaigns"), "{said}");
    let copy = format!("sqlite:{}", file.display());
    let url = shop.rig.redis().url();
    for database in [copy, format!("sqlite:{data}/campaigns.db")] {
        let audited = stampede(&["audit", "--redis", &url, "--database", &database]);
        assert!(good(&audited).contains("ok: the campaigns' books balance"));
    }
    let output = stampede(&["audit", "--redis", &url]);
    assert!(output.status.success());
    assert!(
        stderr(&output).contains("--database"),
        "{}",
        stderr(&output)
    );
    // There is nothing to take where they are elsewhere.
    let empty = shop.rig.dir.path().to_str().unwrap();
    let other = shop.rig.path("d.db");
    let words = [
        "backup",
        other.to_str().unwrap(),
        "--data",
        empty,
        "--campaigns-only",
    ];
    assert!(refusal(&stampede(&words)).contains("pg_dump"));
}
