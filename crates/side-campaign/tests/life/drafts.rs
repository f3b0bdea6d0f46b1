//! Drafts and lists.

use dev_servers::Databases;
use serde_json::{Value, json};

use crate::double::{HOUR, Node, definition, with};

#[tokio::test]
async fn drafts_are_checked_kept_replaced_and_listed() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let node = Node::open(&url).await;
        drafts(&node).await;
        lists(&node).await;
    }
}

async fn drafts(node: &Node) {
    let path = "/v1/admin/campaigns";
    let draft = definition("c1");
    let made = node
        .call_with_key(5, "POST", path, draft.clone(), "k1")
        .await
        .unwrap();
    assert_eq!(made.status, 201);
    assert_eq!(made.location.as_deref(), Some("/v1/admin/campaigns/c1"));
    let told: Value = serde_json::from_slice(&made.body).unwrap();
    assert_eq!(
        (&told["state"], &told["version"]),
        (&json!("DRAFT"), &json!(0))
    );
    assert_eq!(told["worst_case"]["total_minor"], 100);
    assert_eq!(told["definition"]["goal"]["new_buyers"], 50_000);
    // The same key again is the same answer; another key finds the id taken; another body is not that command.
    let again = node
        .call_with_key(6, "POST", path, draft.clone(), "k1")
        .await
        .unwrap();
    assert!(again.is_replay && again.status == 200 && again.body == made.body);
    let taken = node.no(6, "POST", path, draft.clone()).await;
    assert_eq!((taken.status, taken.outcome), (409, "state_conflict"));
    let other = node
        .call_with_key(6, "POST", path, definition("c9"), "k1")
        .await;
    assert_eq!(other.unwrap_err().outcome, "idempotency_key_reused");
    // Everything that is wrong is told at once, that of the kind and of plan B too.
    let wrong = with(
        definition("c2"),
        json!({"title": "", "zone": "x", "rules": {"count": 1}, "plan_b": {"each_minor": 1}}),
    );
    let no = node.no(6, "POST", path, wrong).await;
    assert_eq!((no.status, no.outcome), (400, "malformed"));
    let fields = no.more["findings"].as_array().unwrap().iter();
    let fields: Vec<&str> = fields.map(|f| f["field"].as_str().unwrap()).collect();
    assert_eq!(
        fields,
        ["title", "zone", "rules.each_minor", "plan_b.count"]
    );
    let unknown = with(definition("c2"), json!({"kind": "bargin"}));
    let no = node.no(6, "POST", path, unknown).await;
    assert!(
        no.status == 400 && no.detail.contains("double, single"),
        "{no:?}"
    );
    let unknown = with(definition("c2"), json!({"colour": "red"}));
    assert_eq!(node.no(6, "POST", path, unknown).await.status, 400);
    // Buyers see no draft.
    assert_eq!(
        node.no(6, "GET", "/v1/campaigns/c1", Value::Null)
            .await
            .status,
        404
    );
    // Replaced while it is a draft; under its own name only.
    let changed = with(
        draft.clone(),
        json!({"title": "Second thoughts", "kind": "single"}),
    );
    let told = node
        .yes(7, "PUT", "/v1/admin/campaigns/c1", changed.clone())
        .await;
    assert_eq!(told["definition"]["title"], "Second thoughts");
    assert_eq!(told["kind"], "single");
    let no = node
        .no(7, "PUT", "/v1/admin/campaigns/c9", changed.clone())
        .await;
    assert_eq!(no.status, 400);
    let no = node
        .no(7, "PUT", "/v1/admin/campaigns/c9", definition("c9"))
        .await;
    assert_eq!(no.status, 404);
    node.post(8, "c1", "publish", Value::Null).await;
    let no = node.no(9, "PUT", "/v1/admin/campaigns/c1", changed).await;
    assert_eq!((no.status, no.outcome), (409, "state_conflict"));
    assert_eq!(no.more["state"], "PUBLISHED");
    let log = node
        .yes(9, "GET", "/v1/admin/campaigns/c1/audit-log", Value::Null)
        .await;
    let what: Vec<&str> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["what"].as_str().unwrap())
        .collect();
    assert_eq!(
        what,
        ["campaign.publish", "campaign.replace", "campaign.draft"]
    );
    assert_eq!(log["items"][0]["who"], "anna");
}

async fn lists(node: &Node) {
    for number in 0..5 {
        // Two of them in the same millisecond.
        let at = 100 + number / 2;
        node.publish(at, &definition(&format!("l{number}"))).await;
    }
    node.draft(200, &definition("hidden")).await;
    node.draft(200, &definition("gone")).await;
    node.post(200, "gone", "cancel", Value::Null).await;
    node.publish(201, &definition("off")).await;
    node.post(201, "off", "cancel", Value::Null).await;
    let public = pages(node, "/v1/campaigns?limit=2").await;
    assert_eq!(public, ["l4", "l3", "l2", "l1", "l0", "c1"]);
    let all = pages(node, "/v1/admin/campaigns?limit=3").await;
    assert_eq!(
        all,
        ["off", "hidden", "gone", "l4", "l3", "l2", "l1", "l0", "c1"]
    );
    assert_eq!(
        pages(node, "/v1/campaigns?kind=single&limit=2").await,
        ["c1"]
    );
    assert_eq!(
        pages(node, "/v1/admin/campaigns?state=CANCELLED&limit=1").await,
        ["off", "gone"]
    );
    assert!(
        pages(node, "/v1/campaigns?state=DRAFT&limit=1")
            .await
            .is_empty()
    );
    for bad in [
        "state=draft",
        "limit=0",
        "limit=201",
        "cursor=x",
        "cursor=y_c1",
    ] {
        let no = node
            .no(0, "GET", &format!("/v1/campaigns?{bad}"), Value::Null)
            .await;
        assert_eq!(no.status, 400, "{bad}");
    }
    // One that was published stays readable, with its state.
    let off = node
        .yes(HOUR, "GET", "/v1/campaigns/off", Value::Null)
        .await;
    assert_eq!(off["state"], "CANCELLED");
    let notes = node
        .yes(
            0,
            "GET",
            "/v1/admin/campaigns/off/audit-log?limit=2",
            Value::Null,
        )
        .await;
    let cursor = notes["next_cursor"].as_str().unwrap();
    let path = format!("/v1/admin/campaigns/off/audit-log?limit=2&cursor={cursor}");
    let rest = node.yes(0, "GET", &path, Value::Null).await;
    assert_eq!(rest["items"][0]["what"], "campaign.draft");
    assert_eq!(rest["next_cursor"], Value::Null);
}

/// All ids of a list, page by page.
async fn pages(node: &Node, path: &str) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = node
            .yes(0, "GET", &format!("{path}{cursor}"), Value::Null)
            .await;
        let items = page["items"].as_array().unwrap();
        ids.extend(
            items
                .iter()
                .map(|item| item["campaign_id"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}
