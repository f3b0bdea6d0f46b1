//! Every event is applied once, whatever is repeated, crashes, stands still, or runs twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dev_servers::Databases;
use flash_types::side::DeskEvent;
use side_books::SideError;
use side_books::sql::SqlError;
use side_books::step::Step as _;
use side_campaign::inbox::Inbox;
use side_campaign::orders;

use crate::events::{Life, mixed, repeated, shuffled};
use crate::shops::{Dice, NOW, TestShop};

/// Appends events to what the engine tells, under new ids.
fn tell(shop: &TestShop, events: Vec<DeskEvent>) {
    let mut told = shop.desk.events.lock();
    for mut event in events {
        event.id = format!("e1-1-{}", told.len() + 1);
        told.push(event);
    }
}

fn last_id(shop: &TestShop) -> String {
    let events = shop.desk.events.lock();
    events.last().unwrap().id.clone()
}

async fn cursor(shop: &TestShop) -> String {
    use side_books::sql::{Get as _, Reads as _, query};
    let mut reader = shop.shop.database.read().await.unwrap();
    let row = reader.row(query("SELECT event_id FROM inbox")).await;
    row.unwrap().unwrap().text("event_id").unwrap()
}

/// Two nodes step at once until all is applied; transactions fail on the way, nodes start anew.
async fn drain(shop: &TestShop, dice: &mut Dice) {
    let node = || Arc::new(Inbox::new(shop.shop.clone()));
    let mut nodes = [node(), node()];
    for _ in 0..2_000 {
        let page_max = i64::try_from(dice.roll(9)).unwrap();
        shop.desk.page_max.store(page_max, Ordering::Relaxed);
        if dice.roll(3) == 0 {
            let fails_in = 1 + i64::try_from(dice.roll(12)).unwrap();
            shop.scribe.fails_in.store(fails_in, Ordering::Relaxed);
        }
        if dice.roll(4) == 0 {
            nodes[0] = node();
        }
        let steps = nodes.clone().map(|node| {
            let step = async move { node.step(NOW).await };
            tokio::spawn(step)
        });
        for step in steps {
            match step.await.unwrap() {
                Ok(_) => {}
                Err(SideError::Sql(SqlError::Conflict)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        if cursor(shop).await == last_id(shop) {
            return;
        }
    }
    panic!("the inbox does not get to the end");
}

/// What was told of the lives: by words, how often and how much.
async fn told_of(shop: &TestShop, lives: &[Life]) -> BTreeMap<String, (u64, u64)> {
    let mut counted: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (fact, amount) in shop.told().await {
        let id = fact.split(' ').nth(1).unwrap();
        if lives.iter().any(|life| life.id == id) {
            let count = counted.entry(fact).or_default();
            *count = (count.0 + 1, count.1 + u64::try_from(amount).unwrap());
        }
    }
    counted
}

fn expected(lives: &[Life]) -> BTreeMap<String, (u64, u64)> {
    lives.iter().flat_map(Life::facts).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_applied_once_whatever_crashes_or_repeats() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = TestShop::open(&url).await;
        let mut number = 0;
        for seed in 1..=10 {
            let mut dice = Dice::new(seed);
            let lives: Vec<Life> = (0..8)
                .map(|_| {
                    number += 1;
                    Life::random(&mut dice, number)
                })
                .collect();
            let events = mixed(&mut dice, &lives);
            let in_order = seed % 2 == 0;
            let events = if in_order {
                repeated(&mut dice, events)
            } else {
                let events = repeated(&mut dice, events);
                shuffled(&mut dice, events)
            };
            tell(&shop, events);
            drain(&shop, &mut dice).await;
            let mut told = told_of(&shop, &lives).await;
            let mut expected = expected(&lives);
            if !in_order {
                // Refunds that came out of order may be told together: their sum counts.
                for facts in [&mut told, &mut expected] {
                    let refunds = facts.iter_mut();
                    let refunds = refunds.filter(|(fact, _)| fact.starts_with("refunded"));
                    refunds.for_each(|(_, count)| count.0 = 1);
                }
            }
            assert_eq!(told, expected, "seed {seed} on {url}: {lives:?}");
            shop.audited().await;
        }
        // Orders came after what must be before them.
        let told = shop.told().await;
        let place = |fact: &str| told.iter().position(|(told, _)| told == fact);
        for (fact, _) in told.iter().filter(|(fact, _)| fact.starts_with("refunded")) {
            let id = fact.split(' ').nth(1).unwrap();
            // Of one that had expired, the end was told before the payment.
            for line in [
                ["reserved", "paid", "refunded"],
                ["reserved", "closed", "refunded"],
            ] {
                let line = line.map(|word| place(&format!("{word} {id}")).unwrap());
                assert!(line.is_sorted(), "{id} on {url}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stands_still_gets_everything_once_when_it_goes_on() {
    let servers = Databases::start().unwrap();
    let mut dice = Dice::new(3);
    let lives: Vec<Life> = (1..=40).map(|id| Life::random(&mut dice, id)).collect();
    let events = mixed(&mut dice, &lives);
    let (first, rest) = events.split_at(events.len() / 2);
    let [sqlite, postgres] = servers.urls().unwrap();
    for url in [&sqlite, &postgres] {
        let shop = TestShop::hasty(url).await;
        let inbox = Inbox::new(shop.shop.clone());
        tell(&shop, first.to_vec());
        while inbox.step(NOW).await.unwrap() {}
        let before = shop.told().await;
        assert_eq!(inbox.lag_ms(NOW), 0);
        let later = NOW.plus(Duration::from_secs(60));
        // Whoever holds the only right to write stands in for a stopped server.
        let lock = if url == &sqlite {
            let other = TestShop::open(url).await;
            Some(other.shop.database.begin().await.unwrap())
        } else {
            servers.postgres.freeze().unwrap();
            None
        };
        tell(&shop, rest.to_vec());
        for _ in 0..3 {
            inbox.step(later).await.unwrap_err();
        }
        assert_eq!(inbox.lag_ms(later), 60_000, "{url}");
        match lock {
            Some(lock) => lock.rollback().await,
            None => servers.postgres.thaw().unwrap(),
        }
        // The server may still be busy with what was given up.
        let mut steps = 0..100;
        while cursor_or_none(&shop).await != Some(last_id(&shop)) {
            assert!(steps.next().is_some(), "{url}");
            let _ = inbox.step(later).await;
        }
        assert!(shop.told().await.starts_with(&before));
        assert_eq!(told_of(&shop, &lives).await, expected(&lives), "{url}");
        shop.audited().await;
        assert!(!inbox.step(later).await.unwrap());
        assert_eq!(inbox.lag_ms(later), 0);
    }
}

async fn cursor_or_none(shop: &TestShop) -> Option<String> {
    use side_books::sql::{Get as _, Reads as _, query};
    let mut reader = shop.shop.database.read().await.ok()?;
    let row = reader.row(query("SELECT event_id FROM inbox")).await;
    row.ok()??.text("event_id").ok()
}

#[tokio::test]
async fn a_node_that_is_behind_does_not_take_the_others_back() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = TestShop::open(&url).await;
        let mut dice = Dice::new(5);
        let lives: Vec<Life> = (1..=5).map(|id| Life::random(&mut dice, id)).collect();
        tell(&shop, mixed(&mut dice, &lives));
        let (slow, fast) = (Inbox::new(shop.shop.clone()), Inbox::new(shop.shop.clone()));
        shop.desk.page_max.store(1, Ordering::Relaxed);
        slow.step(NOW).await.unwrap();
        shop.desk.page_max.store(0, Ordering::Relaxed);
        while fast.step(NOW).await.unwrap() {}
        shop.desk.page_max.store(1, Ordering::Relaxed);
        assert!(slow.step(NOW).await.unwrap(), "it reads on from there");
        assert_eq!(cursor(&shop).await, last_id(&shop), "{url}");
        assert!(!slow.step(NOW).await.unwrap());
        assert_eq!(told_of(&shop, &lives).await, expected(&lives));
    }
}

#[tokio::test]
async fn an_inbox_of_another_engine_stops() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = TestShop::open(&url).await;
        let mut dice = Dice::new(1);
        let life = |number| Life::random(&mut Dice::new(number), number);
        tell(&shop, mixed(&mut dice, &[life(1)]));
        let inbox = Inbox::new(shop.shop.clone());
        while inbox.step(NOW).await.unwrap() {}
        let before = shop.told().await;
        shop.desk.events.lock().iter_mut().for_each(|event| {
            event.id = format!("x{}", event.id);
        });
        let told = inbox.step(NOW).await;
        assert!(matches!(told, Err(SideError::Sql(SqlError::Broken(_)))));
        assert_eq!(shop.told().await, before);
        // So does one that is told something that cannot be read, before it, not after it.
        let shop = TestShop::open(&servers.urls().unwrap()[0]).await;
        let mut events = mixed(&mut dice, &[life(2)]);
        events[0].data["lines"] = serde_json::json!("none");
        tell(&shop, events);
        let inbox = Inbox::new(shop.shop.clone());
        assert!(inbox.step(NOW).await.is_err());
        assert_eq!(cursor(&shop).await, "");
    }
}

#[tokio::test]
async fn a_refund_that_the_shop_told_too_is_the_same_money() {
    use crate::http::{post, refund};
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let shop = TestShop::open(&url).await;
        let life = Life {
            id: "r1-1".into(),
            buyer: "u1".into(),
            units: 3,
            happens: vec![
                crate::events::Happens::Confirmed,
                crate::events::Happens::Refunded(1),
                crate::events::Happens::Refunded(2),
            ],
        };
        let events = life.events();
        let inbox = Inbox::new(shop.shop.clone());
        tell(&shop, events[..2].to_vec());
        while inbox.step(NOW).await.unwrap() {}
        // Under the same name, before the event comes; more than that unit under another, as goodwill.
        assert_eq!(refund(&shop, "r1-1", "f1", 100).await.unwrap().status, 200);
        assert_eq!(
            refund(&shop, "r1-1", "sorry", 150).await.unwrap().status,
            200
        );
        tell(&shop, events[2..].to_vec());
        while inbox.step(NOW).await.unwrap() {}
        let mut reader = shop.shop.database.read().await.unwrap();
        let order = orders::find(&mut reader, "r1-1").await.unwrap().unwrap();
        // 100 + 150 + 100 is more than was paid: what is left goes back.
        assert_eq!((order.paid_minor, order.refunded_minor), (300, 300));
        let lines = orders::lines(&mut reader, "r1-1").await.unwrap();
        assert_eq!(lines[0].refunded_units, 2);
        drop(reader);
        // And after it came, the shop's word changes nothing.
        assert_eq!(refund(&shop, "r1-1", "f1", 100).await.unwrap().status, 200);
        assert_eq!(
            refund(&shop, "r1-1", "f9", 1).await.unwrap_err().status,
            409
        );
        let received = post(&shop, 3, "r1-1", &serde_json::json!({}), None).await;
        assert_eq!(received.unwrap().status, 200);
        shop.audited().await;
    }
}
