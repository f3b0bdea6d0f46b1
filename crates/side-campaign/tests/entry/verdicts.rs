//! Verdicts: each rule with a hit, a near miss and its reversal; shadow mode; a person's word.

use std::sync::Arc;

use dev_servers::Databases;
use flash_types::Timestamp;
use serde_json::json;
use side_books::sql::{Reads as _, query};
use side_books::step::Step as _;
use side_campaign::fact::Order;
use side_campaign::life::Campaign;
use side_campaign::risk::{self, Decide, Decision, RefundRule, Rings, Standing};
use side_campaign::shop::Shop;

use crate::stand::{
    at, buyer, campaign, enter, enter_from, refused, reward_of, run, shop, text, verdict_of,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = shop(&url).await;
        bursts_from_an_address(&shop).await;
        bursts_at_once_are_seen_whole(&shop).await;
        devices_that_are_shared(&shop).await;
        rings_of_help(&shop).await;
        a_ring_and_an_entry_at_once_know_of_each_other(&shop).await;
        refunds_after_rewards(&shop).await;
        shadows_change_nothing_until_they_are_real(&shop).await;
        of_two_decisions_one_wins_and_the_gravest_verdict_stands(&shop).await;
        the_worker_takes_what_is_due_and_counts(&shop).await;
    }
}

async fn verdict_id(shop: &Shop, campaign: &str, rule: &str, name: &str) -> Option<String> {
    let sql =
        "SELECT id AS it FROM risk_verdict WHERE campaign = $1 AND rule = $2 AND subject = $3";
    text(shop, sql, &[campaign, rule, name]).await
}

async fn decide(
    shop: &Shop,
    verdict: &str,
    decision: Decision,
    replaces: Option<Decision>,
) -> Result<Standing, side_books::SideError> {
    let mut tx = shop.database.begin().await.unwrap();
    let decide = Decide {
        verdict,
        decision,
        replaces,
        reason: "looked at it",
        who: "rita",
    };
    let decided = risk::decide(&mut tx, &shop.verdict_listeners, &decide, at(900)).await;
    match decided {
        Ok(decided) => {
            tx.commit().await.unwrap();
            Ok(decided.standing)
        }
        Err(error) => {
            tx.rollback().await;
            Err(error)
        }
    }
}

/// Decides ALLOW and sees the reward given (again).
async fn undo(shop: &Shop, campaign: &str, rule: &str, name: &str) {
    let id = verdict_id(shop, campaign, rule, name).await.unwrap();
    let standing = decide(shop, &id, Decision::Allow, None).await.unwrap();
    assert_eq!(standing, Standing::Clear);
    assert_eq!(verdict_of(shop, campaign, name).await, None);
    assert_eq!(
        reward_of(shop, campaign, name).await.as_deref(),
        Some("GIVEN")
    );
}

async fn bursts_from_an_address(shop: &Shop) {
    let risk = json!({"risk": {"address_burst": 3, "address_window_s": 60, "action": "review"}});
    let burst = campaign("burst", risk);
    let from = |address| (Some(address), None);
    let entered = enter_from(shop, &burst, "a", from("10.0.0.1"), at(0)).await;
    assert_eq!(entered.unwrap().verdict, None);
    // One too few within the window: the first is out of it by a millisecond.
    for (name, ms) in [("b", 59_000), ("c", 60_001)] {
        let entered = enter_from(shop, &burst, name, from("10.0.0.1"), at(ms)).await;
        assert_eq!(entered.unwrap().verdict, None, "{name}");
    }
    let other = enter_from(shop, &burst, "o", from("10.0.0.2"), at(60_002)).await;
    assert_eq!(other.unwrap().verdict, None);
    let hit = enter_from(shop, &burst, "d", from("10.0.0.1"), at(119_000)).await;
    assert_eq!(hit.unwrap().verdict.as_deref(), Some("REVIEW"));
    for (name, verdict) in [("a", None), ("b", Some("REVIEW")), ("c", Some("REVIEW"))] {
        let told = verdict_of(shop, "burst", name).await;
        assert_eq!(told.as_deref(), verdict, "{name}");
    }
    assert_eq!(
        reward_of(shop, "burst", "b").await.as_deref(),
        Some("WAITING")
    );
    let again = enter_from(shop, &burst, "d", from("10.0.0.1"), at(119_001)).await;
    assert_eq!(again.unwrap().verdict.as_deref(), Some("REVIEW"));
    undo(shop, "burst", "address_burst", "b").await;
    // Found again, b stays allowed.
    enter_from(shop, &burst, "e", from("10.0.0.1"), at(119_000))
        .await
        .unwrap();
    assert_eq!(verdict_of(shop, "burst", "b").await, None);
    let sql = "SELECT evidence AS it FROM risk_verdict WHERE campaign = $1 LIMIT 1";
    let evidence = text(shop, sql, &["burst"]).await.unwrap();
    assert!(!evidence.contains("10.0.0.1"), "{evidence}");
}

async fn bursts_at_once_are_seen_whole(shop: &Arc<Shop>) {
    let risk = json!({"risk": {"address_burst": 9, "address_window_s": 60}});
    let rush = campaign("burst-rush", risk);
    let mut tasks = Vec::new();
    for number in 0..9 {
        let (shop, rush) = (shop.clone(), rush.clone());
        tasks.push(tokio::spawn(async move {
            let name = format!("b{number}");
            enter_from(&shop, &rush, &name, (Some("10.1.0.1"), None), at(1)).await
        }));
    }
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    for number in 0..9 {
        let told = verdict_of(shop, "burst-rush", &format!("b{number}")).await;
        assert_eq!(told.as_deref(), Some("REVIEW"), "{number}");
    }
}

async fn devices_that_are_shared(shop: &Shop) {
    let risk = json!({"risk": {"device_shared": 3, "action": "deny"}});
    let shared = campaign("device", risk);
    let on = |device| (None, Some(device));
    for (name, device) in [("a", "d1"), ("b", "d1"), ("c", "d2")] {
        let entered = enter_from(shop, &shared, name, on(device), at(0)).await;
        assert_eq!(entered.unwrap().verdict, None);
    }
    let hit = enter_from(shop, &shared, "d", on("d1"), at(3_000_000)).await;
    assert_eq!(hit.unwrap().verdict.as_deref(), Some("DENY"));
    assert_eq!(
        verdict_of(shop, "device", "a").await.as_deref(),
        Some("DENY")
    );
    assert_eq!(verdict_of(shop, "device", "c").await, None);
    assert_eq!(
        reward_of(shop, "device", "a").await.as_deref(),
        Some("REVOKED")
    );
    undo(shop, "device", "shared_device", "a").await;
}

async fn help(shop: &Shop, campaign: &str, edges: &[(&str, &str)]) {
    let mut tx = shop.database.begin().await.unwrap();
    for (helper, owner) in edges {
        let session = format!("s-{owner}");
        let (helper, owner) = (buyer(helper), buyer(owner));
        for is_new in [true, false] {
            let noted = risk::note_help(&mut tx, campaign, &session, helper, owner, at(1)).await;
            assert_eq!(noted.unwrap(), is_new);
        }
    }
    tx.commit().await.unwrap();
}

async fn look(shop: &Shop, campaign: &Campaign, name: &str) -> usize {
    let mut tx = shop.database.begin().await.unwrap();
    let found = risk::look_around(&mut tx, shop, campaign, buyer(name), at(2)).await;
    tx.commit().await.unwrap();
    found.unwrap()
}

async fn rings_of_help(shop: &Shop) {
    let ring = campaign("ring", json!({"risk": {"ring": 3, "action": "deny"}}));
    for name in ["a", "b", "c", "fan"] {
        enter(shop, &ring, name, at(0)).await.unwrap();
    }
    help(
        shop,
        "ring",
        &[("a", "b"), ("b", "a"), ("b", "c"), ("fan", "a")],
    )
    .await;
    // Two who help each other are one too few.
    assert_eq!(look(shop, &ring, "a").await, 0);
    help(shop, "ring", &[("c", "a")]).await;
    assert_eq!(look(shop, &ring, "c").await, 3);
    assert_eq!(look(shop, &ring, "a").await, 0);
    assert_eq!(look(shop, &ring, "fan").await, 0);
    assert_eq!(verdict_of(shop, "ring", "b").await.as_deref(), Some("DENY"));
    assert_eq!(verdict_of(shop, "ring", "fan").await, None);
    undo(shop, "ring", "help_ring", "b").await;
    // Found before he came: it stands when he does.
    help(shop, "ring", &[("x", "y"), ("y", "z"), ("z", "x")]).await;
    assert_eq!(look(shop, &ring, "x").await, 3);
    let late = enter(shop, &ring, "x", at(5)).await.unwrap();
    assert_eq!(late.verdict.as_deref(), Some("DENY"));
    assert_eq!(verdict_of(shop, "ring", "x").await.as_deref(), Some("DENY"));
}

async fn a_ring_and_an_entry_at_once_know_of_each_other(shop: &Arc<Shop>) {
    let ring = campaign("at-once", json!({"risk": {"ring": 2, "action": "deny"}}));
    for round in 0..8 {
        let (one, two) = (format!("x{round}"), format!("y{round}"));
        help(shop, "at-once", &[(&one, &two), (&two, &one)]).await;
        let entry = tokio::spawn({
            let (shop, ring, one) = (shop.clone(), ring.clone(), one.clone());
            async move { enter(&shop, &ring, &one, at(3)).await.unwrap() }
        });
        let looks = tokio::spawn({
            let (shop, ring, two) = (shop.clone(), ring.clone(), two.clone());
            async move { look(&shop, &ring, &two).await }
        });
        entry.await.unwrap();
        assert_eq!(looks.await.unwrap(), 2);
        let told = verdict_of(shop, "at-once", &one).await;
        assert_eq!(told.as_deref(), Some("DENY"), "{round}");
    }
}

async fn refunds_after_rewards(shop: &Shop) {
    let risk = json!({"risk": {"refund_after_reward_s": 10, "action": "deny"}});
    let refunds = campaign("refund", risk);
    let grant = "INSERT INTO reward_grant (id, campaign, source, reward, order_id, buyer, kind, state, cost_minor, \
                 rule_snapshot, at_ms) VALUES ($1, 'refund', $2, 'coupon', $3, $4, 'coupon', 'GIVEN', 0, '{}', $5)";
    run(shop, grant, &["g1", "paid-o1", "o1", "a"], at(100).0).await;
    run(shop, grant, &["g2", "paid-o2", "o2", "b"], at(100).0).await;
    // Neither for this order nor this buyer's.
    run(shop, grant, &["g3", "join:c1", "", "c"], at(100).0).await;
    run(shop, grant, &["g4", "paid-o4", "o4", "d"], at(100).0).await;
    let rule = RefundRule::new(shop.verdict_listeners.clone());
    for (name, order, now, is_hit) in [
        ("a", "o1", at(10_101), false),
        ("a", "1", at(10_100), false),
        ("c", "c1", at(10_100), false),
        ("c", "o4", at(10_100), false),
        ("b", "o2", at(10_100), true),
        ("b", "o2", at(10_100), false),
    ] {
        let refunded = Order {
            order_id: order.to_owned(),
            buyer: buyer(name),
            sale_id: None,
            currency: "CNY".to_owned(),
            paid_minor: 100,
            refunded_minor: 100,
            paid_at: at(50),
            received_at: None,
            is_first: true,
        };
        let mut tx = shop.database.begin().await.unwrap();
        let found = rule.judge(&mut tx, &refunds, &refunded, now).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(found, is_hit, "{name} {order} {now}");
    }
    assert_eq!(
        reward_of(shop, "refund", "b").await.as_deref(),
        Some("REVOKED")
    );
    undo(shop, "refund", "refund_after_reward", "b").await;
}

async fn shadows_change_nothing_until_they_are_real(shop: &Shop) {
    let risk = json!({"risk": {"device_shared": 2, "is_shadow": true, "action": "deny"}});
    let mut shadow = campaign("shadow", risk);
    let on = (None, Some("d9"));
    for name in ["a", "b"] {
        let entered = enter_from(shop, &shadow, name, on, at(0)).await.unwrap();
        assert_eq!(entered.verdict, None);
    }
    let id = verdict_id(shop, "shadow", "shared_device", "a")
        .await
        .unwrap();
    assert_eq!(reward_of(shop, "shadow", "a").await, None);
    let standing = decide(shop, &id, Decision::Deny, None).await.unwrap();
    assert_eq!(standing, Standing::Clear);
    assert_eq!(reward_of(shop, "shadow", "a").await, None);
    shadow.definition.risk.is_shadow = false;
    let entered = enter_from(shop, &shadow, "c", on, at(1)).await.unwrap();
    assert_eq!(entered.verdict.as_deref(), Some("DENY"));
    assert_eq!(
        verdict_of(shop, "shadow", "b").await.as_deref(),
        Some("DENY")
    );
    // What a person had decided on is left alone.
    assert_eq!(verdict_of(shop, "shadow", "a").await, None);
}

async fn of_two_decisions_one_wins_and_the_gravest_verdict_stands(shop: &Arc<Shop>) {
    let risk = json!({"risk": {"device_shared": 2, "address_burst": 2, "action": "review"}});
    let two = campaign("two", risk);
    let from = (Some("10.2.0.1"), Some("d7"));
    for name in ["a", "b"] {
        enter_from(shop, &two, name, from, at(0)).await.unwrap();
    }
    let device = verdict_id(shop, "two", "shared_device", "a").await.unwrap();
    let address = verdict_id(shop, "two", "address_burst", "a").await.unwrap();
    let mut tasks = Vec::new();
    for number in 0..8 {
        let (shop, device) = (shop.clone(), device.clone());
        let decision = [Decision::Allow, Decision::Deny][number % 2];
        tasks.push(tokio::spawn(async move {
            decide(&shop, &device, decision, None)
                .await
                .map(|_| decision)
        }));
    }
    let mut won = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(decision) => won.push(decision),
            Err(error) => assert_eq!(refused::<()>(Err(error)), (409, "state_conflict")),
        }
    }
    assert_eq!(won.len(), 1);
    let (decision, other) = match won[0] {
        Decision::Allow => (Decision::Allow, Decision::Deny),
        Decision::Deny => (Decision::Deny, Decision::Allow),
    };
    // Corrected by naming what stands; naming what does not is refused.
    let wrong = decide(shop, &device, decision, Some(other)).await;
    assert_eq!(refused(wrong), (409, "state_conflict"));
    decide(shop, &device, other, Some(decision)).await.unwrap();
    if other == Decision::Allow {
        decide(shop, &device, Decision::Deny, Some(Decision::Allow))
            .await
            .unwrap();
    }
    // Denied by one, allowed by the other: denied.
    let standing = decide(shop, &address, Decision::Allow, None).await.unwrap();
    assert_eq!(standing, Standing::Deny);
    assert_eq!(verdict_of(shop, "two", "a").await.as_deref(), Some("DENY"));
    let standing = decide(shop, &device, Decision::Allow, Some(Decision::Deny)).await;
    assert_eq!(standing.unwrap(), Standing::Clear);
    let none = decide(shop, "v0", Decision::Allow, None).await;
    assert_eq!(refused(none), (404, "not_found"));
}

async fn the_worker_takes_what_is_due_and_counts(shop: &Arc<Shop>) {
    help(shop, "gone", &[("a", "b"), ("b", "a")]).await;
    let worker = Rings::new(shop.clone());
    let mut steps = 0;
    while worker.step(Timestamp(1)).await.unwrap() {
        steps += 1;
        assert!(steps < 10);
    }
    let mut reads = shop.database.read().await.unwrap();
    let due = reads
        .rows(query("SELECT buyer FROM ring_due LIMIT 1"))
        .await;
    assert!(due.unwrap().is_empty());
    let counts = risk::counts(&mut reads).await.unwrap();
    let count = |rule: &str, stands: &str, is_shadow: bool| {
        let is_it = |count: &&risk::VerdictCount| {
            count.rule == rule && count.stands == stands && count.is_shadow == is_shadow
        };
        counts.iter().find(is_it).map(|count| count.verdicts)
    };
    assert_eq!(count("help_ring", "DENY", false), Some(21));
    assert_eq!(count("help_ring", "ALLOW", false), Some(1));
    assert_eq!(count("shared_device", "DENY", true), Some(1));
    assert!(!risk::latest_counts().is_empty());
}
