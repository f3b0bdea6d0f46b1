//! Tries that reserved nothing are counted by item, outcome and ten seconds: none is lost with a refused batch, none counts
//! twice.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected fails"
)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{NOON, Shop, both, id, refusal, sale};
use flash_engine::AttemptsRow;
use flash_store::{EntryRefusal, MemoryFault, NotApplied};
use flash_types::*;

async fn rows(shop: &Shop) -> Vec<AttemptsRow> {
    shop.engine.attempts(&id("s1")).await.unwrap()
}

/// (begin of the ten seconds, item, outcome) -> attempts.
fn counted(rows: &[AttemptsRow]) -> BTreeMap<(i64, Option<u16>, String), u64> {
    let mut sums = BTreeMap::new();
    for row in rows {
        for count in &row.counts {
            let item = count.item.map(|item| item.0);
            let seconds = (row.from.0 - NOON.0) / 1_000;
            *sums
                .entry((seconds, item, count.outcome.clone()))
                .or_default() += count.attempts;
        }
    }
    sums
}

fn expected<const N: usize>(
    counts: [(i64, Option<u16>, &str, u64); N],
) -> BTreeMap<(i64, Option<u16>, String), u64> {
    let counts = counts.into_iter();
    counts
        .map(|(from, item, outcome, attempts)| ((from, item, outcome.to_owned()), attempts))
        .collect()
}

async fn lose(shop: &Shop, times: usize) {
    for _ in 0..times {
        let told = refusal(&shop.buy("loser", "k", &[("a", 1)]).await);
        assert!(matches!(told, Refusal::SoldOut { .. }), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn tries_are_counted_once_by_item_outcome_and_ten_seconds() {
    for shop in both() {
        shop.publish(sale(3)).await;
        shop.won("u1", "k1", &[("a", 3)]).await;
        lose(&shop, 2).await;
        refusal(&shop.buy("u1", "k2", &[("b", 9)]).await);
        refusal(&shop.buy("u1", "k3", &[("nothing", 1)]).await);
        refusal(&shop.buy("u1", "k1", &[("a", 2)]).await);
        shop.buy("u1", "k1", &[("a", 3)]).await;
        assert!(rows(&shop).await.is_empty(), "they are not over");
        shop.pass(Duration::from_millis(9_900)).await;
        lose(&shop, 1).await;
        shop.pass(Duration::from_millis(200)).await;
        let first = [
            (0, Some(0), "sold_out", 3),
            (0, Some(1), "sold_out", 1),
            (0, None, "not_found", 1),
            (0, Some(0), "idempotency_key_reused", 1),
            (0, Some(0), "replayed", 1),
        ];
        assert_eq!(counted(&rows(&shop).await), expected(first));
        // The next ten seconds are another row; without a try there is none.
        shop.won("u2", "k1", &[("a", 3)]).await;
        lose(&shop, 4).await;
        shop.pass(Duration::from_secs(30)).await;
        let [one, two, three, four, five] = first;
        let both = [one, two, three, four, five, (10, Some(0), "sold_out", 4)];
        assert_eq!(counted(&rows(&shop).await), expected(both));
        assert_eq!(rows(&shop).await.len(), 2);
        let shop = shop.restart();
        assert_eq!(counted(&rows(&shop).await), expected(both));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_loses_and_doubles_no_try() {
    for shop in both() {
        shop.publish(sale(0)).await;
        lose(&shop, 2).await;
        shop.pass(Duration::from_millis(9_900)).await;
        for _ in 0..3 {
            let away = NotApplied::StorageFull("full".into());
            shop.store.fail_next(MemoryFault::NotApplied(away));
            let early = EntryRefusal::Early;
            shop.store.fail_next(MemoryFault::Refused(early));
        }
        shop.pass(Duration::from_secs(1)).await;
        lose(&shop, 1).await;
        shop.pass(Duration::from_secs(10)).await;
        let both = [(0, Some(0), "sold_out", 2), (10, Some(0), "sold_out", 1)];
        assert_eq!(counted(&rows(&shop).await), expected(both));
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_stores_what_it_has_counted_so_far() {
    for shop in both() {
        shop.publish(sale(0)).await;
        lose(&shop, 2).await;
        shop.engine.close();
        let bound = Duration::from_secs(5);
        let Shop {
            committer, engine, ..
        } = shop;
        tokio::time::timeout(bound, committer)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let rows = engine.attempts(&id("s1")).await.unwrap();
        assert_eq!(counted(&rows), expected([(0, Some(0), "sold_out", 2)]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_nothing_does_not_keep_a_process_that_ends() {
    for shop in both() {
        shop.publish(sale(3)).await;
        shop.won("u1", "k1", &[("a", 3)]).await;
        lose(&shop, 2).await;
        shop.pass(Duration::from_millis(9_900)).await;
        // From now on nothing is taken: neither counts nor the expiry.
        for _ in 0..100_000 {
            let away = NotApplied::Unavailable("away".into());
            shop.store.fail_next(MemoryFault::NotApplied(away));
        }
        shop.pass(Duration::from_millis(300)).await;
        shop.engine.close();
        let Shop {
            committer, engine, ..
        } = shop;
        let ended = tokio::time::timeout(Duration::from_secs(5), committer).await;
        ended.unwrap().unwrap().unwrap();
        // It did not ask until the last refusal was used up.
        let rows = engine.attempts(&id("s1")).await.unwrap();
        assert!(rows.is_empty(), "{rows:?}");
    }
}
