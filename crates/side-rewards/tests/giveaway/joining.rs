//! Joining.

use std::sync::Arc;

use dev_servers::Databases;
use flash_types::{BuyerId, Timestamp};
use side_books::budget;
use side_campaign::draws::Seed;
use side_campaign::kind::CampaignKind as _;
use side_rewards::giveaway::{Giveaway, is_dry, join, joined};

use crate::doubles::{Double, SEED, count, entrant, opened, prizes, published, shop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joining_gives_once_tells_when_it_ran_dry_and_leaves_the_prizes_alone() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        // Three rewards for joining beside two prizes.
        let rules = prizes(&["welcome"], &[("final", "big", 2)]);
        let campaign = published(&database, rules, 21_500).await;
        let (kind, shop) = (Giveaway::new(Arc::new(Double)), shop(&database));
        let mut tx = database.begin().await.unwrap();
        for _ in 0..2 {
            let seed: &Seed = &SEED;
            kind.prepare(&mut tx, &campaign, seed, Timestamp(1))
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        let campaign = Arc::new(campaign);
        let shop = Arc::new(shop);
        let mut tasks = Vec::new();
        // Each of them twice at once.
        for number in 0..10 {
            let (campaign, shop) = (Arc::clone(&campaign), Arc::clone(&shop));
            tasks.push(tokio::spawn(async move {
                let buyer = format!("buyer-{}", number / 2);
                loop {
                    let Ok(mut tx) = shop.database.begin().await else {
                        continue;
                    };
                    let entrant = entrant(&buyer, None);
                    let now = Timestamp(2_000);
                    let found = join(&mut tx, &shop, &Double, &campaign, &entrant, now).await;
                    let Ok((joined, is_fresh)) = found else {
                        continue;
                    };
                    tx.commit().await.unwrap();
                    return (joined.rewards[0].state.clone(), is_fresh);
                }
            }));
        }
        let mut told = Vec::new();
        for task in tasks {
            told.push(task.await.unwrap());
        }
        assert_eq!(
            told.iter().filter(|(_, is_fresh)| *is_fresh).count(),
            5,
            "{url}"
        );
        let given = told
            .iter()
            .filter(|(state, is)| *is && state == "GIVEN")
            .count();
        assert_eq!(given, 3, "{url}: {told:?}");
        let dry = told
            .iter()
            .filter(|(state, is)| *is && state == "RUN_DRY")
            .count();
        assert_eq!(dry, 2, "{url}: {told:?}");
        let mut reads = database.read().await.unwrap();
        let stands = budget::read(&mut reads, "g1").await.unwrap().unwrap();
        assert_eq!(
            (stands.available_minor, stands.held_minor),
            (0, 21_500),
            "{url}"
        );
        assert!(is_dry(&mut reads, &campaign).await.unwrap(), "{url}");
        let buyer = BuyerId::parse("buyer-3").unwrap();
        let own = joined(&mut reads, "g1", buyer).await.unwrap().unwrap();
        assert_eq!((own.joined_at, own.rewards.len()), (Timestamp(2_000), 1));
        let stranger = BuyerId::parse("stranger").unwrap();
        assert_eq!(joined(&mut reads, "g1", stranger).await.unwrap(), None);
        drop(reads);

        // The end has begun: who is in stays in, nobody else joins.
        let mut tx = database.begin().await.unwrap();
        let is_done = kind
            .settle(&mut tx, &campaign, &SEED, Timestamp(3_000))
            .await
            .unwrap();
        assert!(!is_done);
        tx.commit().await.unwrap();
        let mut tx = database.begin().await.unwrap();
        let now = Timestamp(4_000);
        let late = join(
            &mut tx,
            &shop,
            &Double,
            &campaign,
            &entrant("late", None),
            now,
        )
        .await;
        assert!(late.is_err_and(|error| error.into_problem().outcome == "campaign_ended"));
        let again = entrant("buyer-1", None);
        let (_, is_fresh) = join(&mut tx, &shop, &Double, &campaign, &again, now)
            .await
            .unwrap();
        assert!(!is_fresh);
        tx.rollback().await;
        let people = "SELECT COUNT(*) AS found FROM giveaway_participation";
        assert_eq!(count(&database, people).await, 5, "{url}");
    }
}

#[tokio::test]
async fn prizes_that_the_budget_does_not_hold_are_not_published() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        let rules = prizes(&[], &[("final", "big", 2)]);
        let campaign = published(&database, rules, 19_999).await;
        let kind = Giveaway::new(Arc::new(Double));
        let mut tx = database.begin().await.unwrap();
        let prepared = kind.prepare(&mut tx, &campaign, &SEED, Timestamp(1)).await;
        assert!(
            prepared.is_err_and(|error| error.into_problem().status == 409),
            "{url}"
        );
        tx.rollback().await;
    }
}
