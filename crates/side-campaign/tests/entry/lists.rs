//! Endpoints: lists in pages, decisions by key; refusals that are kept.

use dev_servers::Databases;
use serde_json::{Value, json};
use side_books::sql::{Get as _, Reads as _, query};
use side_campaign::entry::{self, Block, BlockList, REFUSALS_KEPT_MAX, Refused};

use crate::stand::{ask, at, buyer, campaign, enter_from, run, shop, verdict_of};

const PARTICIPANTS: (&str, &str) = ("GET", "/v1/admin/campaigns/{campaign}/participants");
const BLOCKS: (&str, &str) = ("GET", "/v1/admin/campaigns/{campaign}/blocklist");
const VERDICTS: (&str, &str) = ("GET", "/v1/admin/campaigns/{campaign}/verdicts");
const DECIDE: (&str, &str) = ("POST", "/v1/admin/verdicts/{verdict}/decide");

type Shop = std::sync::Arc<side_campaign::shop::Shop>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        let risk = json!({"risk": {"device_shared": 2, "action": "review"}});
        let campaign = campaign("lists", risk);
        for (name, device) in [
            ("a", "d1"),
            ("b", "d2"),
            ("c", "d1"),
            ("d", "d3"),
            ("e", "d2"),
        ] {
            // All at one time: a page ends between two of them.
            enter_from(&shop, &campaign, name, (None, Some(device)), at(5))
                .await
                .unwrap();
        }
        participants_are_listed_by_time_and_verdict(&shop).await;
        blocks_are_listed(&shop).await;
        verdicts_are_listed_and_decided_by_key(&shop).await;
        refusals_are_kept_up_to_a_bound(&shop).await;
        nothing_is_written_for_a_campaign_that_is_not_there(&shop).await;
    }
}

/// All of a list, two at a time.
async fn all(shop: &Shop, path: (&str, &'static str), more: &[(&'static str, &str)]) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut query = vec![("limit", "2")];
        query.extend_from_slice(more);
        if !cursor.is_empty() {
            query.push(("cursor", &cursor));
        }
        let (_, page) = ask(shop, path, &["lists"], &query, ("", None))
            .await
            .unwrap();
        let page_items = page["items"].as_array().unwrap();
        assert!(page_items.len() <= 2);
        items.extend(page_items.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return items,
        }
    }
}

fn of(items: &[Value], field: &str) -> Vec<String> {
    items
        .iter()
        .map(|item| item[field].as_str().unwrap().to_owned())
        .collect()
}

async fn participants_are_listed_by_time_and_verdict(shop: &Shop) {
    let everyone = all(shop, PARTICIPANTS, &[]).await;
    assert_eq!(of(&everyone, "buyer"), ["a", "b", "c", "d", "e"]);
    assert_eq!(everyone[3]["verdict"], "ALLOW");
    assert_eq!(everyone[3]["is_device_known"], true);
    let review = all(shop, PARTICIPANTS, &[("verdict", "REVIEW")]).await;
    assert_eq!(of(&review, "buyer"), ["a", "b", "c", "e"]);
    let clear = all(shop, PARTICIPANTS, &[("verdict", "ALLOW")]).await;
    assert_eq!(of(&clear, "buyer"), ["d"]);
    for bad in [("verdict", "review"), ("cursor", "x"), ("limit", "201")] {
        let told = ask(shop, PARTICIPANTS, &["lists"], &[bad], ("", None)).await;
        assert_eq!(told.unwrap_err().outcome, "malformed");
    }
}

async fn blocks_are_listed(shop: &Shop) {
    let mut tx = shop.database.begin().await.unwrap();
    for (list, value) in [
        (BlockList::Addresses, "10.0.0.1"),
        (BlockList::Buyers, "x"),
        (BlockList::Buyers, "y"),
    ] {
        let block = Block {
            campaign: "lists",
            list,
            stored: &list.stored(&shop.sealer, value).unwrap(),
            who: "m",
            reason: "why",
        };
        entry::block(&mut tx, &block, at(0)).await.unwrap();
    }
    tx.commit().await.unwrap();
    let blocks = all(shop, BLOCKS, &[]).await;
    assert_eq!(of(&blocks, "list"), ["addresses", "buyers", "buyers"]);
    assert_eq!(of(&blocks, "reason"), ["why"; 3]);
    assert_eq!(of(&blocks[1..], "value"), ["x", "y"]);
    let mut reads = shop.database.read().await.unwrap();
    let notes = reads
        .rows(query(
            "SELECT detail, subject FROM audit_note WHERE what = 'blocklist.add' ORDER BY id LIMIT 9",
        ))
        .await
        .unwrap();
    assert_eq!(notes.len(), 3);
    assert_ne!(notes[0].text("subject").unwrap(), "10.0.0.1");
}

async fn verdicts_are_listed_and_decided_by_key(shop: &Shop) {
    let verdicts = all(shop, VERDICTS, &[]).await;
    let mut found = of(&verdicts, "buyer");
    found.sort_unstable();
    assert_eq!(found, ["a", "b", "c", "e"]);
    assert_eq!(all(shop, VERDICTS, &[("rule", "help_ring")]).await.len(), 0);
    let of_a = verdicts.iter().find(|item| item["buyer"] == "a").unwrap();
    let id = of_a["verdict"].as_str().unwrap();
    let body = r#"{"decision":"DENY","reason":"same person"}"#;
    let (first, value) = ask(shop, DECIDE, &[id], &[], (body, Some("k1")))
        .await
        .unwrap();
    assert_eq!((first.status, first.is_replay), (200, false));
    assert_eq!(value["standing"], "DENY");
    let (again, replayed) = ask(shop, DECIDE, &[id], &[], (body, Some("k1")))
        .await
        .unwrap();
    assert!(again.is_replay);
    assert_eq!(replayed, value);
    assert_eq!(
        verdict_of(shop, "lists", "a").await.as_deref(),
        Some("DENY")
    );
    for (body, key, outcome) in [
        (
            r#"{"decision":"ALLOW","reason":"x"}"#,
            "k1",
            "idempotency_key_reused",
        ),
        (
            r#"{"decision":"ALLOW","reason":"x"}"#,
            "k2",
            "state_conflict",
        ),
        (r#"{"decision":"MAYBE","reason":"x"}"#, "k3", "malformed"),
        (r#"{"decision":"ALLOW","reason":""}"#, "k4", "malformed"),
        (
            r#"{"decision":"ALLOW","reason":"x","more":1}"#,
            "k5",
            "malformed",
        ),
    ] {
        let told = ask(shop, DECIDE, &[id], &[], (body, Some(key))).await;
        assert_eq!(told.unwrap_err().outcome, outcome, "{body}");
    }
    let corrected = r#"{"decision":"ALLOW","reason":"not so","replaces":"DENY"}"#;
    let (_, value) = ask(shop, DECIDE, &[id], &[], (corrected, Some("k2")))
        .await
        .unwrap();
    assert_eq!(value["standing"], "ALLOW");
    assert_eq!(all(shop, VERDICTS, &[("verdict", "ALLOW")]).await.len(), 1);
    assert_eq!(all(shop, VERDICTS, &[("verdict", "REVIEW")]).await.len(), 3);
}

async fn refusals_are_kept_up_to_a_bound(shop: &Shop) {
    let refused = Refused {
        buyer: buyer("r"),
        campaign: "lists",
        endpoint: "POST /v1/x",
        outcome: "not_eligible",
        detail: &"long ".repeat(200),
    };
    // The day is nearly full already.
    run(
        shop,
        "INSERT INTO refusal_count (buyer, last_at_ms, day, refusals) VALUES ($1, 0, 0, $2)",
        &["r"],
        REFUSALS_KEPT_MAX - 1,
    )
    .await;
    for now in [1, 2, 3, 86_400_000] {
        entry::note_refusal(shop, &refused, flash_types::Timestamp(now))
            .await
            .unwrap();
    }
    let mut reads = shop.database.read().await.unwrap();
    let kept = reads
        .rows(query(
            "SELECT at_ms, detail FROM refusal WHERE buyer = 'r' ORDER BY id LIMIT 9",
        ))
        .await
        .unwrap();
    let times: Vec<i64> = kept.iter().map(|row| row.int("at_ms").unwrap()).collect();
    assert_eq!(times, [1, 86_400_000]);
    assert!(kept[0].text("detail").unwrap().len() <= 300);
    let counts = reads
        .rows(query(
            "SELECT refusals FROM refusal_count WHERE buyer = 'r' ORDER BY day LIMIT 9",
        ))
        .await
        .unwrap();
    let counts: Vec<i64> = counts
        .iter()
        .map(|row| row.int("refusals").unwrap())
        .collect();
    assert_eq!(counts, [REFUSALS_KEPT_MAX + 2, 1]);
}

async fn nothing_is_written_for_a_campaign_that_is_not_there(shop: &Shop) {
    let block = (
        "PUT",
        "/v1/admin/campaigns/{campaign}/blocklist/{list}/{value}",
    );
    for (names, body, outcome) in [
        (["nope", "buyers", "x"], "{}", "not_found"),
        (["nope", "people", "x"], "", "not_found"),
        (["nope", "addresses", "x"], "", "malformed"),
        (["nope", "buyers", "x"], r#"{"why":""}"#, "malformed"),
    ] {
        let told = ask(shop, block, &names, &[], (body, None)).await;
        assert_eq!(told.unwrap_err().outcome, outcome, "{names:?}");
    }
    let mut reads = shop.database.read().await.unwrap();
    let blocked = reads.rows(query(
        "SELECT list FROM block_entry WHERE campaign = 'nope' LIMIT 1",
    ));
    assert!(blocked.await.unwrap().is_empty());
}
