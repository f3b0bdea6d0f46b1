//! Publishing: once, frozen, committed to, covered.

use dev_servers::Databases;
use flash_types::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use side_books::budget;
use side_books::sql::{Get as _, Reads as _, query};
use side_campaign::life;

use crate::double::{HOUR, Node, definition, with};

#[tokio::test]
async fn publishing_freezes_commits_and_covers() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let node = Node::open(&url).await;
        frozen_and_committed(&node).await;
        covered(&node).await;
        one_at_a_time(&node).await;
        late(&node).await;
        cancelled(&node).await;
        twice_at_once(&url).await;
    }
}

/// An outsider's own way to the hash: sorted members, no spaces.
fn outsider(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{}:{}", json!(name), outsider(value)))
                .collect();
            members.sort();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(outsider).collect();
            format!("[{}]", items.join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

fn sha256(bytes: &[u8]) -> String {
    side_books::command::hex(&Sha256::digest(bytes))
}

async fn frozen_and_committed(node: &Node) {
    let plan = with(
        definition("c1"),
        json!({"plan_b": {"count": 1, "each_minor": 2}}),
    );
    let told = node.publish(10, &plan).await;
    assert_eq!(
        (&told["state"], &told["version"]),
        (&json!("PUBLISHED"), &json!(1))
    );
    assert_eq!(told["root"], "r00t");
    assert_eq!(told["worst_case"]["total_minor"], 100);
    assert_eq!(told["worst_case"]["plan_b"]["total_minor"], 2);
    assert_eq!(told["budget"]["available_minor"], 1_000);
    assert_eq!(told["published_at"], json!(Timestamp(10)));
    // What buyers see hashes to what was announced, and tells nothing that is the merchant's.
    let shown = node.yes(11, "GET", "/v1/campaigns/c1", Value::Null).await;
    assert_eq!(shown["rules_hash"], told["rules_hash"]);
    assert_eq!(
        shown["rules_hash"],
        sha256(outsider(&shown["definition"]).as_bytes())
    );
    assert_eq!(shown["server_time"], json!(Timestamp(11)));
    let text = shown.to_string();
    for hidden in [
        "budget_minor",
        "cost_minor",
        "risk",
        "plan_b",
        "\"seed\":\"",
    ] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    // The seed is sealed; committed to; not told.
    let mut reader = node.shop.database.read().await.unwrap();
    let seed = life::seed(&mut reader, &node.shop, "c1").await.unwrap();
    assert_eq!(shown["seed_hash"], sha256(&seed.0));
    assert_eq!(life::revealed_seed(&mut reader, "c1").await.unwrap(), None);
    let row = reader
        .row(query(
            "SELECT seed_sealed, seed FROM campaign WHERE id = 'c1'",
        ))
        .await;
    let row = row.unwrap().unwrap();
    assert!(
        !row.text("seed_sealed")
            .unwrap()
            .contains(&side_books::command::hex(&seed.0))
    );
    assert_eq!(row.text_or_null("seed").unwrap(), None);
    // The hidden part is committed to as well.
    let other = with(definition("c2"), json!({"budget_minor": 2_000}));
    let other = node.publish(12, &other).await;
    assert_ne!(other["private_hash"], told["private_hash"]);
    let found = life::find(&mut reader, "c1").await.unwrap().unwrap();
    assert_eq!(
        (found.version, &*found.rules_hash),
        (1, told["rules_hash"].as_str().unwrap())
    );
    assert_eq!(
        node.post_no(13, "c1", "publish", Value::Null).await.outcome,
        "state_conflict"
    );
    assert_eq!(
        node.post_no(13, "nix", "publish", Value::Null).await.status,
        404
    );
}

async fn covered(node: &Node) {
    let dear = with(
        definition("dear"),
        json!({
            "rules": {"count": 10, "each_minor": 101, "open": true},
            "plan_b": {"count": i32::MAX, "each_minor": 9_000_000_000_000_i64},
        }),
    );
    let told = node.draft(20, &dear).await;
    assert_eq!(told["findings"].as_array().unwrap().len(), 3, "{told}");
    let no = node.post_no(21, "dear", "publish", Value::Null).await;
    assert_eq!((no.status, no.outcome), (409, "solvency"));
    assert_eq!(no.more["worst_case"]["total_minor"], 1_010);
    let codes = |no: &flash_types::side::SideProblem| {
        let findings = no.more["findings"].as_array().unwrap().clone();
        let codes = findings
            .iter()
            .map(|f| f["code"].as_str().unwrap().to_owned());
        codes.collect::<Vec<_>>()
    };
    assert_eq!(codes(&no), ["insolvent", "insolvent", "unbounded"]);
    // One word does not let the other through; a word that means nothing is told.
    let no = node
        .post_no(21, "dear", "publish", json!({"accept": ["insolvent"]}))
        .await;
    assert_eq!(no.outcome, "solvency");
    let no = node
        .post_no(21, "dear", "publish", json!({"accept": ["all"]}))
        .await;
    assert_eq!(no.status, 400);
    assert_eq!(node.show("dear").await["state"], "DRAFT");
    assert_eq!(node.show("dear").await["budget"], Value::Null);
    let accept = json!({"accept": ["insolvent", "unbounded"]});
    let told = node.post(22, "dear", "publish", accept).await;
    assert_eq!(told["state"], "PUBLISHED");
    let log = node
        .yes(22, "GET", "/v1/admin/campaigns/dear/audit-log", Value::Null)
        .await;
    let detail = log["items"][0]["detail"].as_str().unwrap();
    assert!(
        detail.contains("insolvent") && detail.contains("1010"),
        "{detail}"
    );
    assert!(detail.contains("unbounded"), "{detail}");
    // To the last unit is covered.
    let full = with(
        definition("full"),
        json!({"rules": {"count": 10, "each_minor": 100}}),
    );
    node.publish(23, &full).await;
}

async fn one_at_a_time(node: &Node) {
    let single = |id: &str, from: i64, to: i64| {
        with(
            definition(id),
            json!({
                "kind": "single", "warmup_at": null,
                "starts_at": Timestamp(from * HOUR), "ends_at": Timestamp(to * HOUR),
            }),
        )
    };
    node.publish(30, &single("s1", 100, 110)).await;
    node.draft(30, &single("s2", 109, 120)).await;
    let no = node.post_no(30, "s2", "publish", Value::Null).await;
    assert_eq!(
        (no.outcome, &no.more["campaign_id"]),
        ("state_conflict", &json!("s1"))
    );
    // After its end, or once it is cancelled.
    node.publish(30, &single("s3", 110, 120)).await;
    let longer = json!({"ends_at": Timestamp(111 * HOUR), "reason": "more time"});
    assert_eq!(
        node.post_no(31, "s1", "versions", longer).await.outcome,
        "state_conflict"
    );
    node.post(31, "s1", "cancel", Value::Null).await;
    node.post(32, "s3", "cancel", Value::Null).await;
    node.post(33, "s2", "publish", Value::Null).await;
}

/// A start in the past is open before the answer; an end in the past is refused.
async fn late(node: &Node) {
    let told = node.publish(2 * HOUR, &definition("late")).await;
    assert_eq!(told["state"], "RUNNING");
    let moves = node.moves("late").await;
    assert_eq!(
        moves,
        ["DRAFT>PUBLISHED", "PUBLISHED>WARMUP", "WARMUP>RUNNING"]
    );
    node.draft(10 * HOUR, &definition("over")).await;
    let no = node
        .post_no(10 * HOUR, "over", "publish", Value::Null)
        .await;
    assert!(no.status == 409 && no.detail.contains("ends_at"), "{no:?}");
    assert!(node.moves("over").await.is_empty());
}

/// A campaign that never ran gives its budget back, promises and all.
async fn cancelled(node: &Node) {
    node.publish(40, &definition("void")).await;
    let mut tx = node.shop.database.begin().await.unwrap();
    let hold = budget::Hold {
        key: "early",
        campaign: "void",
        what: "things",
        amount_minor: 300,
    };
    budget::hold(&mut tx, &hold, Timestamp(41)).await.unwrap();
    tx.commit().await.unwrap();
    let told = node
        .post(42, "void", "cancel", json!({"reason": "no stock"}))
        .await;
    assert_eq!(told["state"], "CANCELLED");
    for part in ["cap_minor", "available_minor", "held_minor", "spent_minor"] {
        assert_eq!(told["budget"][part], 0, "{part}");
    }
    let stands = node
        .yes(43, "GET", "/v1/admin/campaigns/void/budget", Value::Null)
        .await;
    assert_eq!(
        (&stands["cap_minor"], &stands["currency"]),
        (&json!(0), &json!("CNY"))
    );
    let add = json!({"add_minor": 1, "reason": "again"});
    assert_eq!(
        node.post_no(44, "void", "budget", add).await.outcome,
        "state_conflict"
    );
    // What has begun is not cancelled.
    let no = node.post_no(44, "late", "cancel", Value::Null).await;
    assert_eq!(no.outcome, "state_conflict");
    // A draft has no budget to give back.
    node.draft(45, &definition("idea")).await;
    assert_eq!(
        node.post(46, "idea", "cancel", Value::Null).await["budget"],
        Value::Null
    );
}

/// Two nodes and many calls: one publishes.
async fn twice_at_once(url: &str) {
    let nodes = [Node::open(url).await, Node::open(url).await];
    nodes[0].draft(50, &definition("race")).await;
    let nodes = nodes.map(std::sync::Arc::new);
    let calls = (0..8).map(|number| {
        let node = std::sync::Arc::clone(&nodes[number % 2]);
        tokio::spawn(async move {
            let path = "/v1/admin/campaigns/race/publish";
            node.call(51, "POST", path, Value::Null).await
        })
    });
    let (mut yes, mut no) = (0, 0);
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Ok(_) => yes += 1,
            Err(problem) => {
                assert_eq!(problem.outcome, "state_conflict", "{problem:?}");
                no += 1;
            }
        }
    }
    assert_eq!((yes, no), (1, 7));
    let told = nodes[1].show("race").await;
    assert_eq!(told["budget"]["cap_minor"], 1_000);
    assert_eq!(nodes[0].moves("race").await, ["DRAFT>PUBLISHED"]);
}
