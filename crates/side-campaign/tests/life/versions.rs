//! Changes after publish.

use dev_servers::Databases;
use flash_types::Timestamp;
use serde_json::{Value, json};
use side_campaign::life;

use crate::double::{HOUR, Node, definition, with};

#[tokio::test]
async fn what_was_published_changes_only_for_the_better() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let node = Node::open(&url).await;
        better(&node).await;
        worse(&node).await;
        plan_b(&node).await;
        money(&node).await;
        at_once(&url).await;
    }
}

async fn better(node: &Node) {
    let first = node.publish(2 * HOUR, &definition("c1")).await;
    let body = json!({
        "rules": {"count": 20, "each_minor": 10},
        "title": "Opening, longer", "ends_at": Timestamp(20 * HOUR), "budget_minor": 1_500,
        "eligibility": {"participants_max": null}, "reminders": {"before_s": [3_600]},
        "rewards": [
            {"reward": "tablet", "title": "Tablet", "type": "gift", "cost_minor": 77, "stock_units": 2},
            {"reward": "new", "title": "5 off", "type": "coupon", "face_minor": 5, "term_days": 3},
        ],
        "reason": "so many came",
    });
    let told = node.post(3 * HOUR, "c1", "versions", body).await;
    assert_eq!(
        (&told["version"], &told["state"]),
        (&json!(2), &json!("RUNNING"))
    );
    assert_ne!(told["rules_hash"], first["rules_hash"]);
    assert_eq!(told["seed_hash"], first["seed_hash"]);
    assert_eq!(told["worst_case"]["total_minor"], 200);
    assert_eq!(told["budget"]["cap_minor"], 1_500);
    assert_eq!(
        told["definition"]["eligibility"]["participants_max"],
        Value::Null
    );
    // What began under the first one keeps it.
    let mut reader = node.shop.database.read().await.unwrap();
    let old = life::at_version(&mut reader, "c1", 1)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (old.definition.rules["count"].as_i64(), old.version),
        (Some(10), 1)
    );
    assert_eq!(old.rules_hash, first["rules_hash"].as_str().unwrap());
    let new = life::find(&mut reader, "c1").await.unwrap().unwrap();
    assert_eq!(
        (new.definition.rules["count"].as_i64(), new.version),
        (Some(20), 2)
    );
    assert_eq!(life::at_version(&mut reader, "c1", 3).await.unwrap(), None);
    // The end moved with it.
    node.steps(10 * HOUR).await;
    assert_eq!(node.show("c1").await["state"], "RUNNING");
    let page = node
        .yes(
            0,
            "GET",
            "/v1/admin/campaigns/c1/versions?limit=1",
            Value::Null,
        )
        .await;
    assert_eq!(
        (&page["items"][0]["version"], &page["next_cursor"]),
        (&json!(1), &json!("1"))
    );
    let page = node
        .yes(
            0,
            "GET",
            "/v1/admin/campaigns/c1/versions?limit=1&cursor=1",
            Value::Null,
        )
        .await;
    assert_eq!(page["items"][0]["reason"], "so many came");
    assert_eq!(
        (&page["items"][0]["who"], &page["next_cursor"]),
        (&json!("anna"), &Value::Null)
    );
    node.steps(20 * HOUR).await;
    assert_eq!(node.show("c1").await["state"], "SETTLED");
    let late = json!({"title": "x", "reason": "late"});
    assert_eq!(
        node.post_no(21 * HOUR, "c1", "versions", late)
            .await
            .outcome,
        "state_conflict"
    );
}

async fn worse(node: &Node) {
    let plan = with(
        definition("w1"),
        json!({"plan_b": {"count": 1, "each_minor": 1}, "rewards": [
            {"reward": "five", "title": "5", "type": "coupon", "face_minor": 5, "term_days": 3, "total": 9},
        ]}),
    );
    node.publish(2 * HOUR, &plan).await;
    let coupon = |change: Value| {
        let five = json!({"reward": "five", "title": "5", "type": "coupon", "face_minor": 5, "term_days": 3, "total": 9});
        json!({"rewards": [with(five, change)]})
    };
    for (change, field) in [
        (json!({"rules": {"count": 9, "each_minor": 10}}), "rules"),
        (json!({"rules": {"count": 10, "each_minor": 9}}), "rules"),
        (json!({"ends_at": Timestamp(9 * HOUR)}), "ends_at"),
        (json!({"starts_at": Timestamp(3 * HOUR)}), "starts_at"),
        (json!({"warmup_at": null}), "warmup_at"),
        (json!({"budget_minor": 999}), "budget_minor"),
        (
            json!({"eligibility": {"participants_max": 9}}),
            "eligibility.participants_max",
        ),
        (
            json!({"eligibility": {"new_buyers_only": true}}),
            "eligibility.new_buyers_only",
        ),
        (
            json!({"eligibility": {"phone_verification": true}}),
            "eligibility.phone_verification",
        ),
        (
            json!({"eligibility": {"sign_up_task": "follow"}}),
            "eligibility.sign_up_task",
        ),
        (json!({"rewards": []}), "rewards[0]"),
        (coupon(json!({"face_minor": 4})), "rewards[0]"),
        (coupon(json!({"total": 8})), "rewards[0]"),
        (coupon(json!({"term_days": 2})), "rewards[0]"),
        (json!({"risk": {"ring": 9}}), "risk"),
        (json!({"goal": {}}), "goal"),
        (json!({"plan_b": {"count": 2, "each_minor": 1}}), "plan_b"),
        (json!({"currency": "EUR"}), "currency"),
        (json!({"zone": "UTC"}), "zone"),
        (json!({"kind": "single"}), "kind"),
        (json!({"campaign_id": "w2"}), "campaign_id"),
    ] {
        let body = with(change.clone(), json!({"reason": "because"}));
        let no = node.post_no(3 * HOUR, "w1", "versions", body).await;
        assert_eq!((no.status, no.outcome), (409, "not_better"), "{change}");
        let findings = no.more["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0]["field"], field, "{change}");
    }
    // All of it is named at once.
    let body = json!({"zone": "UTC", "ends_at": Timestamp(9 * HOUR), "reason": "because"});
    let no = node.post_no(3 * HOUR, "w1", "versions", body).await;
    assert_eq!(no.more["findings"].as_array().unwrap().len(), 2);
    // Without a reason, without a change, with an unknown field, beyond its bounds.
    for bad in [
        json!({"title": "New"}),
        json!({"reason": "because"}),
        json!({"colour": "red", "reason": "because"}),
        json!({"title": "", "reason": "because"}),
        json!([]),
    ] {
        let no = node.post_no(3 * HOUR, "w1", "versions", bad.clone()).await;
        assert_eq!(no.status, 400, "{bad}");
    }
    // Better for buyers, but not covered.
    let dear = json!({"rules": {"count": 101, "each_minor": 10}, "reason": "because"});
    let no = node.post_no(3 * HOUR, "w1", "versions", dear.clone()).await;
    assert_eq!(no.outcome, "solvency");
    assert_eq!(node.show("w1").await["version"], 1);
    let accepted = with(dear, json!({"accept": ["insolvent"]}));
    assert_eq!(
        node.post(3 * HOUR, "w1", "versions", accepted).await["version"],
        2
    );
    // What was accepted is not asked again where it is no worse.
    let title = json!({"title": "Another", "reason": "because"});
    let told = node.post(3 * HOUR, "w1", "versions", title).await;
    assert_eq!(told["version"], 3);
}

async fn plan_b(node: &Node) {
    node.publish(2 * HOUR, &definition("none")).await;
    let why = json!({"reason": "too slow"});
    let no = node.post_no(3 * HOUR, "none", "plan-b", why.clone()).await;
    assert!(
        no.outcome == "state_conflict" && no.detail.contains("plan_b"),
        "{no:?}"
    );
    // Not better, and yet it may be: it was committed to.
    let plan = with(
        definition("b1"),
        json!({"plan_b": {"count": 1, "each_minor": 1}}),
    );
    node.draft(2 * HOUR, &plan).await;
    assert_eq!(
        node.post_no(2 * HOUR, "b1", "plan-b", why.clone())
            .await
            .outcome,
        "state_conflict"
    );
    let first = node.post(2 * HOUR, "b1", "publish", Value::Null).await;
    assert_eq!(
        node.post_no(3 * HOUR, "b1", "plan-b", json!({"reason": " "}))
            .await
            .status,
        400
    );
    let calls = (0..4).map(|number| {
        let (why, key) = (why.clone(), format!("b{number}"));
        async move {
            let path = "/v1/admin/campaigns/b1/plan-b";
            node.call_with_key(3 * HOUR, "POST", path, why, &key).await
        }
    });
    let mut done = Vec::new();
    for call in calls {
        done.push(call.await);
    }
    assert_eq!(done.iter().filter(|answer| answer.is_ok()).count(), 1);
    let told = node.show("b1").await;
    assert_eq!(
        (&told["version"], &told["definition"]["rules"]["count"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(told["plan_b_at"], json!(Timestamp(3 * HOUR)));
    assert_eq!(told["private_hash"], first["private_hash"]);
    assert_ne!(told["rules_hash"], first["rules_hash"]);
}

async fn money(node: &Node) {
    node.publish(2 * HOUR, &definition("m1")).await;
    let path = "/v1/admin/campaigns/m1/budget";
    let body = json!({"add_minor": 250, "reason": "more"});
    let added = node
        .call_with_key(3 * HOUR, "POST", path, body.clone(), "m")
        .await
        .unwrap();
    let again = node
        .call_with_key(4 * HOUR, "POST", path, body.clone(), "m")
        .await
        .unwrap();
    assert!(again.is_replay && again.body == added.body);
    node.post(4 * HOUR, "m1", "budget", body).await;
    let stands = node.yes(5 * HOUR, "GET", path, Value::Null).await;
    assert_eq!(
        (&stands["cap_minor"], &stands["available_minor"]),
        (&json!(1_500), &json!(1_500))
    );
    for bad in [0, -1, 1_000_000_000_000_i64] {
        let body = json!({"add_minor": bad, "reason": "more"});
        assert_eq!(
            node.post_no(5 * HOUR, "m1", "budget", body).await.status,
            400,
            "{bad}"
        );
    }
    // What was added covers what a version may cost.
    let body = json!({"rules": {"count": 150, "each_minor": 10}, "reason": "more"});
    assert_eq!(
        node.post(6 * HOUR, "m1", "versions", body).await["version"],
        2
    );
}

/// Versions at once follow one another: no number twice, no money lost.
async fn at_once(url: &str) {
    let nodes = [Node::open(url).await, Node::open(url).await].map(std::sync::Arc::new);
    nodes[0].publish(2 * HOUR, &definition("r1")).await;
    let calls = (0..6).map(|number| {
        let node = std::sync::Arc::clone(&nodes[number % 2]);
        let body = json!({"title": format!("Title {number}"), "reason": "because"});
        tokio::spawn(async move { node.post(3 * HOUR, "r1", "versions", body).await })
    });
    let mut numbers = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        numbers.push(call.await.unwrap()["version"].as_i64().unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3, 4, 5, 6, 7]);
}
