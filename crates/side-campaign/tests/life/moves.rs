//! Moves by hand and by time.

use std::sync::Arc;

use dev_servers::Databases;
use flash_types::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use side_books::command::hex;
use side_books::sql::{Get as _, Reads as _, query};
use side_campaign::life;
use side_campaign::state::State;

use crate::double::{HOUR, Node, PIECES, definition, pieces};

#[tokio::test]
async fn campaigns_move_as_their_life_allows() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let node = Node::open(&url).await;
        by_time(&node).await;
        pause_keeps_the_end(&node).await;
        by_hand(&node).await;
        every_pair(&node).await;
        after_downtime(&node).await;
        two_steppers(&url).await;
        one_that_is_stuck_keeps_no_other(&node).await;
    }
}

const LIFE: [&str; 7] = [
    "DRAFT>PUBLISHED",
    "PUBLISHED>WARMUP",
    "WARMUP>RUNNING",
    "RUNNING>ENDED",
    "ENDED>SETTLING",
    "SETTLING>SETTLED",
    "SETTLED>ARCHIVED",
];

async fn state(node: &Node, id: &str) -> String {
    node.show(id).await["state"].as_str().unwrap().to_owned()
}

async fn by_time(node: &Node) {
    node.publish(0, &definition("c1")).await;
    for (at, expected) in [
        (HOUR / 2 - 1, "PUBLISHED"),
        (HOUR / 2, "WARMUP"),
        (HOUR - 1, "WARMUP"),
        (HOUR, "RUNNING"),
        (10 * HOUR - 1, "RUNNING"),
    ] {
        node.steps(at).await;
        assert_eq!(state(node, "c1").await, expected, "at {at}");
    }
    // The end, then piece by piece; the seed only when all is done.
    assert!(node.step.step(Timestamp(10 * HOUR)).await.unwrap());
    for _ in 1..PIECES {
        assert!(node.step.step(Timestamp(10 * HOUR)).await.unwrap());
        assert_eq!(state(node, "c1").await, "SETTLING");
        let mut reader = node.shop.database.read().await.unwrap();
        assert_eq!(life::revealed_seed(&mut reader, "c1").await.unwrap(), None);
    }
    assert!(!node.step.step(Timestamp(10 * HOUR)).await.unwrap());
    assert_eq!(state(node, "c1").await, "SETTLED");
    let shown = node
        .yes(11 * HOUR, "GET", "/v1/campaigns/c1", Value::Null)
        .await;
    let mut reader = node.shop.database.read().await.unwrap();
    let seed = life::seed(&mut reader, &node.shop, "c1").await.unwrap();
    assert_eq!(shown["seed"], hex(&seed.0));
    assert_eq!(shown["seed_hash"], hex(&Sha256::digest(seed.0)));
    node.post(12 * HOUR, "c1", "archive", Value::Null).await;
    assert_eq!(node.moves("c1").await, LIFE);
    // Archived: out of the list, still to be verified by whoever knows it.
    let list = node.yes(0, "GET", "/v1/campaigns", Value::Null).await;
    assert_eq!(list["items"], json!([]));
    let shown = node.yes(0, "GET", "/v1/campaigns/c1", Value::Null).await;
    assert_eq!(
        (&shown["state"], &shown["seed"]),
        (&json!("ARCHIVED"), &json!(hex(&seed.0)))
    );
}

async fn pause_keeps_the_end(node: &Node) {
    node.publish(0, &definition("p1")).await;
    node.steps(HOUR).await;
    node.post(2 * HOUR, "p1", "pause", json!({"reason": "look"}))
        .await;
    node.steps(3 * HOUR).await;
    assert_eq!(state(node, "p1").await, "PAUSED");
    let told = node.post(4 * HOUR, "p1", "resume", Value::Null).await;
    assert_eq!(told["state"], "RUNNING");
    node.post(5 * HOUR, "p1", "pause", Value::Null).await;
    node.steps(10 * HOUR).await;
    assert_eq!(state(node, "p1").await, "SETTLED");
    // Paused while it is only shown: it goes on where time has brought it.
    node.publish(0, &definition("p2")).await;
    node.post(HOUR / 2, "p2", "pause", Value::Null).await;
    node.steps(HOUR).await;
    assert_eq!(state(node, "p2").await, "PAUSED");
    let told = node.post(HOUR, "p2", "resume", Value::Null).await;
    assert_eq!(told["state"], "RUNNING");
    node.publish(0, &definition("p3")).await;
    node.post(HOUR / 2, "p3", "pause", Value::Null).await;
    let told = node.post(HOUR - 1, "p3", "resume", Value::Null).await;
    assert_eq!(told["state"], "WARMUP");
    // What has ended a moment ago is not paused, though no step has been there.
    let no = node.post_no(10 * HOUR, "p3", "pause", Value::Null).await;
    assert_eq!(
        (no.outcome, &no.more["state"]),
        ("state_conflict", &json!("ENDED"))
    );
    node.steps(11 * HOUR).await;
}

async fn by_hand(node: &Node) {
    node.publish(HOUR, &definition("h1")).await;
    let key = "the-end";
    let path = "/v1/admin/campaigns/h1/end";
    let ended = node
        .call_with_key(2 * HOUR, "POST", path, Value::Null, key)
        .await
        .unwrap();
    let again = node
        .call_with_key(3 * HOUR, "POST", path, Value::Null, key)
        .await
        .unwrap();
    assert!(again.is_replay && again.body == ended.body);
    let told = node.post(2 * HOUR, "h1", "settle", Value::Null).await;
    assert_eq!(told["state"], "SETTLING");
    node.steps(2 * HOUR).await;
    assert_eq!(state(node, "h1").await, "SETTLED");
    let long = json!({"reason": "x".repeat(501)});
    assert_eq!(
        node.post_no(2 * HOUR, "h1", "archive", long).await.status,
        400
    );
    let unknown = json!({"why": "so"});
    assert_eq!(
        node.post_no(2 * HOUR, "h1", "archive", unknown)
            .await
            .status,
        400
    );
    let log = node
        .yes(
            0,
            "GET",
            "/v1/admin/campaigns/h1/audit-log?limit=200",
            Value::Null,
        )
        .await;
    let what: Vec<&str> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["what"].as_str().unwrap())
        .collect();
    assert_eq!(
        what[PIECES as usize..],
        [
            "campaign.settle",
            "campaign.end",
            "campaign.publish",
            "campaign.draft"
        ]
    );
}

/// Every move by hand from every state: those of the table go through, all others are told where it stands.
async fn every_pair(node: &Node) {
    let able: [(&str, &[State], State); 6] = [
        ("pause", &[State::Warmup, State::Running], State::Paused),
        ("resume", &[State::Paused], State::Running),
        (
            "end",
            &[State::Warmup, State::Running, State::Paused],
            State::Ended,
        ),
        ("settle", &[State::Ended], State::Settling),
        (
            "cancel",
            &[State::Draft, State::Published],
            State::Cancelled,
        ),
        ("archive", &[State::Settled], State::Archived),
    ];
    for from in State::ALL {
        for (verb, froms, to) in able {
            let id = format!("{verb}-{}", from.as_str());
            // Open, but not yet due for the next move by time.
            let now = if from == State::Published {
                HOUR / 4
            } else if from == State::Warmup {
                HOUR * 3 / 4
            } else {
                2 * HOUR
            };
            node.draft(0, &definition(&id)).await;
            if from != State::Draft {
                node.post(0, &id, "publish", Value::Null).await;
                let mut tx = node.shop.database.begin().await.unwrap();
                let put = query("UPDATE campaign SET state = $1, due_at_ms = NULL WHERE id = $2");
                tx.execute(put.bind(from.as_str()).bind(id.clone()))
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
            }
            if froms.contains(&from) {
                let told = node.post(now, &id, verb, Value::Null).await;
                assert_eq!(told["state"], to.as_str(), "{verb} of {from:?}");
                assert!(from.may_become(to));
            } else {
                let no = node.post_no(now, &id, verb, Value::Null).await;
                assert_eq!(
                    (no.status, no.outcome),
                    (409, "state_conflict"),
                    "{verb} of {from:?}"
                );
                assert_eq!(no.more["state"], from.as_str());
                assert_eq!(state(node, &id).await, from.as_str());
            }
        }
    }
    // Nothing of this is due for the tests that follow.
    let mut tx = node.shop.database.begin().await.unwrap();
    tx.execute(query("UPDATE campaign SET due_at_ms = NULL"))
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// Nobody was there from before the warm-up to after the end: every move is made, in order.
async fn after_downtime(node: &Node) {
    node.publish(0, &definition("d1")).await;
    node.steps(100 * HOUR).await;
    assert_eq!(node.moves("d1").await, LIFE[..6]);
}

/// Two nodes, several steps each at once: each move once, each piece once.
async fn two_steppers(url: &str) {
    let nodes = [Node::open(url).await, Node::open(url).await].map(Arc::new);
    let ids: Vec<String> = (0..6).map(|number| format!("t{number}")).collect();
    for id in &ids {
        nodes[0].publish(0, &definition(id)).await;
    }
    for at in [HOUR / 2, HOUR, 10 * HOUR] {
        let steps = (0..6).map(|number| {
            let node = Arc::clone(&nodes[number % 2]);
            tokio::spawn(async move { node.steps(at).await })
        });
        for step in steps.collect::<Vec<_>>() {
            step.await.unwrap();
        }
    }
    for id in &ids {
        assert_eq!(nodes[0].moves(id).await, LIFE[..6], "{id}");
        let mut tx = nodes[1].shop.database.begin().await.unwrap();
        assert_eq!(pieces(&mut tx, id).await, PIECES, "{id}");
        tx.rollback().await;
    }
}

/// A campaign of a kind that this program does not know cannot settle; others go on.
async fn one_that_is_stuck_keeps_no_other(node: &Node) {
    node.publish(0, &definition("stuck")).await;
    let mut tx = node.shop.database.begin().await.unwrap();
    let newer =
        "UPDATE campaign_version SET definition = '{\"kind\":\"newer\"}' WHERE campaign = 'stuck'";
    tx.execute(query(newer)).await.unwrap();
    tx.commit().await.unwrap();
    node.publish(0, &definition("zz")).await;
    node.steps(10 * HOUR).await;
    assert_eq!(node.moves("zz").await, LIFE[..6]);
    assert_eq!(node.moves("stuck").await, LIFE[..1]);
    // Not looked at again before some time has passed, so that many of them keep no other waiting.
    let mut reader = node.shop.database.read().await.unwrap();
    let due = query("SELECT due_at_ms FROM campaign WHERE id = 'stuck'");
    let due = reader.row(due).await.unwrap().unwrap();
    assert_eq!(due.int("due_at_ms").unwrap(), 10 * HOUR + 5_000);
}
