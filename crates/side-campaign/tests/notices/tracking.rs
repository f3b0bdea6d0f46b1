//! Care messages, and what became of notices: opened, bought, ROI, repurchase, against figures computed by hand.

use dev_servers::Databases;
use flash_types::side::{SideAnswer, SideCaller, SideProblem};
use flash_types::{Timestamp, side::SideProblem as Problem};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use side_books::budget::{self, Hold};
use side_campaign::fact::{Fact, Order, React as _};
use side_campaign::notices::{Figures, Follow, KindFigures, Planned, Stage, Subject, figures};

use crate::world::{Mode, T0, World, after, buyer, json as read, to_buyer};

const DAY: i64 = 24 * 3_600;

pub fn order(id: &str, who: &str, paid_minor: i64, paid_at: Timestamp, is_first: bool) -> Order {
    Order {
        order_id: id.to_owned(),
        buyer: buyer(who),
        sale_id: None,
        currency: "CNY".into(),
        paid_minor,
        refunded_minor: 0,
        paid_at,
        received_at: None,
        is_first,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tracking_on_both_databases() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        figures_by_hand(&World::open(&url).await).await;
    }
    for url in servers.urls().unwrap() {
        care(&World::open(&url).await).await;
    }
}

async fn told(world: &World, fact: Fact) {
    let mut tx = world.shop.database.begin().await.unwrap();
    // Told twice, as after an answer that was lost.
    for _ in 0..2 {
        Follow.react(&mut tx, &fact, T0).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn figures_by_hand(world: &World) {
    let mut reader = world.shop.database.read().await.unwrap();
    let none = figures(&mut reader, &Subject::Campaign("c1".to_owned()), "CNY")
        .await
        .unwrap();
    assert_eq!(none, Figures::default());
    // Care messages to three buyers, one of them twice; a reward to one; one that is given up; another campaign's.
    for (key, kind, who) in [
        ("k1", "order_care", "b1"),
        ("k2", "order_care", "b2"),
        ("k3", "order_care", "b3"),
        ("k4", "order_care", "b3"),
        ("k5", "reward", "b4"),
    ] {
        world.send(&to_buyer(key, kind, who, T0), T0).await;
    }
    world.run(T0).await;
    let taken = world.channel.taken.lock().clone();
    let first = taken.iter().find(|notice| notice.to == "b1").unwrap();
    let first = first.id.clone();
    *world.channel.mode.lock() = Mode::Refuse;
    world
        .send(&to_buyer("k6", "order_care", "b6", T0), T0)
        .await;
    world.run(T0).await;
    world.run(after(2 * DAY)).await;
    *world.channel.mode.lock() = Mode::Take;
    let mut elsewhere = to_buyer("k7", "order_care", "b2", after(5 * DAY));
    elsewhere.campaign = Some("c2");
    world.send(&elsewhere, T0).await;
    world.run(after(5 * DAY)).await;
    let path = "/v1/notices/{notice}/opened";
    let opened = world.call(
        "POST",
        path,
        &first,
        SideCaller::Storefront(None),
        &Value::Null,
        after(9),
    );
    opened.await.unwrap();

    // b1 buys twice within the week, once after it; b2's order follows the other campaign; b3 buys for the first time; b4
    // was not told by a reminder or care message; b5 by nothing.
    told(
        world,
        Fact::Paid(order("o1", "b1", 10_000, after(60), false)),
    )
    .await;
    told(
        world,
        Fact::Paid(order("o2", "b1", 5_000, after(7 * DAY), false)),
    )
    .await;
    told(
        world,
        Fact::Paid(order("o3", "b1", 9_999, after(7 * DAY + 1), false)),
    )
    .await;
    told(
        world,
        Fact::Paid(order("o4", "b2", 7_000, after(6 * DAY), false)),
    )
    .await;
    told(world, Fact::Paid(order("o5", "b3", 2_500, after(60), true))).await;
    told(world, Fact::Paid(order("o6", "b4", 100, after(60), false))).await;
    told(world, Fact::Paid(order("o7", "b5", 100, after(60), false))).await;
    let foreign = Order {
        currency: "USD".into(),
        ..order("o8", "b3", 77, after(61), false)
    };
    told(world, Fact::Paid(foreign)).await;
    let mut refunded = order("o1", "b1", 10_000, after(60), false);
    refunded.refunded_minor = 4_000;
    let back = Fact::Refunded {
        order: refunded,
        refund_ref: "f1".into(),
        amount_minor: 4_000,
    };
    told(world, back).await;
    // 30.00 of the budget are spent, 50.00 are only held.
    let mut tx = world.shop.database.begin().await.unwrap();
    budget::fund(&mut tx, "c1", "CNY", 100_000, "fund|c1", T0)
        .await
        .unwrap();
    for (key, amount_minor) in [("h1", 3_000), ("h2", 5_000)] {
        let hold = Hold {
            key,
            campaign: "c1",
            what: "coupon",
            amount_minor,
        };
        budget::hold(&mut tx, &hold, T0).await.unwrap();
    }
    budget::post(&mut tx, "h1", 3_000, T0).await.unwrap();
    tx.commit().await.unwrap();

    let counted = figures(&mut reader, &Subject::Campaign("c1".to_owned()), "CNY")
        .await
        .unwrap();
    let expected = Figures {
        kinds: vec![
            KindFigures {
                kind: "order_care".into(),
                recipients: 3,
                sent: 4,
                given_up: 1,
                opened: 1,
                // b1 with o1 and o2, b3 with o5: 60.00 + 50.00 + 25.00.
                buyers: 2,
                orders: 3,
                turnover_minor: 13_500,
                // b1 of three.
                repurchase_bp: Some(3_333),
            },
            KindFigures {
                kind: "reward".into(),
                recipients: 1,
                sent: 1,
                repurchase_bp: Some(0),
                ..KindFigures::default()
            },
        ],
        recipients: 4,
        sent: 5,
        given_up: 1,
        opened: 1,
        buyers: 2,
        orders: 3,
        turnover_minor: 13_500,
        cost_minor: 3_000,
        // 135.00 / 30.00 = 4.5.
        roi_bp: Some(45_000),
        repurchase_bp: Some(2_500),
    };
    assert_eq!(counted, expected, "{}", world.url);
}

async fn send_care(world: &World, body: &Value, now: Timestamp) -> Result<SideAnswer, SideProblem> {
    let path = "/v1/admin/campaigns/{campaign}/care";
    let caller = SideCaller::Admin("alice".into());
    world.call("POST", path, "c1", caller, body, now).await
}

async fn care(world: &World) {
    let body = json!({"text": "Has it arrived?", "not_received": true});
    let none: Problem = send_care(world, &body, T0).await.unwrap_err();
    assert_eq!(none.outcome, "not_found");
    let planned = Planned {
        title: "Tea week".into(),
        starts_at: T0,
        ends_at: after(DAY),
        zone: TimeZone::UTC,
        before_s: vec![],
        second_after_s: None,
        stage: Stage::Begun,
    };
    world.plans.campaigns.lock().insert("c1".into(), planned);
    for (bad, told) in [
        (json!({"text": ""}), "text"),
        (json!({"text": "a\u{7}"}), "text"),
        (json!({"text": "x".repeat(501)}), "text"),
        (json!({"text": "x", "sale": "a b"}), "sale"),
        (
            json!({"text": "x", "paid_after": after(9).text().as_str(), "paid_before": T0.text().as_str()}),
            "paid_after",
        ),
        (json!({"text": "x", "odd": 1}), "odd"),
    ] {
        let problem = send_care(world, &bad, T0).await.unwrap_err();
        assert!(
            problem.status == 400 && problem.detail.contains(told),
            "{problem:?}"
        );
    }
    // 450 orders of 150 buyers, from one a second; then those that do not match.
    let mut values: Vec<_> = (0..450)
        .map(|number| {
            let (who, at) = (number % 150, after(number / 3).0);
            format!("('o{number}', 'b{who}', NULL, 100, 0, {at}, NULL, 'shop', 'CNY', 0)")
        })
        .collect();
    let at = after(10).0;
    values.push(format!(
        "('x1', 'arrived', NULL, 100, 0, {at}, {at}, 'shop', 'CNY', 0)"
    ));
    values.push(format!(
        "('x2', 'refunded', NULL, 100, 100, {at}, NULL, 'shop', 'CNY', 0)"
    ));
    values.push(format!(
        "('x3', 'early', NULL, 100, 0, {}, NULL, 'shop', 'CNY', 0)",
        T0.0 - 1
    ));
    values.push(format!(
        "('x4', 'later', NULL, 100, 0, {}, NULL, 'shop', 'CNY', 0)",
        after(200).0
    ));
    values.push(format!(
        "('x5', 'free', 's1', 0, 0, {at}, NULL, 'shop', 'CNY', 0)"
    ));
    let columns = "id, buyer, sale_id, paid_minor, refunded_minor, paid_at_ms, received_at_ms, source, currency, is_first";
    world
        .execute(format!(
            "INSERT INTO shop_order ({columns}) VALUES {}",
            values.join(", ")
        ))
        .await;
    let begun = send_care(world, &body, after(200)).await.unwrap();
    assert_eq!(begun.status, 202);
    let replay = send_care(world, &body, after(201)).await.unwrap();
    assert!(replay.is_replay && read(&replay) == read(&begun));
    let other = json!({"text": "Something else"});
    let reused = send_care(world, &other, after(201)).await.unwrap_err();
    assert_eq!(reused.outcome, "idempotency_key_reused");
    world.run(after(300)).await;
    let mut taken = world.taken();
    assert_eq!(taken.len(), 151, "{}", world.url);
    taken.dedup();
    assert_eq!(taken.len(), 151, "each buyer once");
    for absent in ["arrived", "refunded", "early", "later"] {
        assert!(!taken.contains(&format!("order_care {absent}")), "{absent}");
    }
    let notes = "SELECT CAST(COUNT(*) AS BIGINT) AS n FROM audit_note WHERE who = 'alice' AND what = 'campaign.care'";
    assert_eq!(world.number(notes).await, 1);
}
