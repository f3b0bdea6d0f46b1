//! The end as nobody may steer it: who joins at that moment, who is denied behind the list, a database that is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dev_servers::Databases;
use flash_types::side::{BoxFuture, SideCaller, SideRequest, SideService as _};
use flash_types::{BuyerId, IdempotencyKey, Timestamp};
use serde_json::{Value, json};
use side_books::sql::{Database, Get as _, Reads as _, SqlError, Tx, query};
use side_books::{SideError, budget};
use side_campaign::draws::{self, verify};
use side_campaign::entry::{Entered, Entrant};
use side_campaign::kind::CampaignKind as _;
use side_campaign::life::Campaign;
use side_campaign::shop::Shop;
use side_rewards::giveaway::{Give, Giveaway, GiveawayProof, GiveawayService, House, join};
use side_rewards::grants::{self, Grant, Granted};

use crate::doubles::{Double, SEED, count, entrant, opened, prizes, published, reveal, shop};
use crate::drawing::{NOW, file_of, people, settle};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_while_the_end_begins_is_in_the_list_or_told_that_it_is_over() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        let campaign = published(&database, prizes(&[], &[("final", "big", 2)]), 20_000).await;
        let campaign = Arc::new(campaign);
        let shop = shop(&database);
        // He began before the end did, and is slow to commit.
        let mut slow = database.begin().await.unwrap();
        let early = entrant("early", None);
        let (_, is_fresh) = join(
            &mut slow,
            &shop,
            &House,
            &campaign,
            &early,
            Timestamp(2_000),
        )
        .await
        .unwrap();
        assert!(is_fresh);
        let ending = {
            let (database, campaign) = (database.clone(), Arc::clone(&campaign));
            tokio::spawn(async move { settle(&database, &campaign, false).await })
        };
        let mut ending = ending;
        let waited = tokio::time::timeout(Duration::from_millis(400), &mut ending).await;
        assert!(waited.is_err(), "{url}: the end waits for who is joining");
        slow.commit().await.unwrap();
        ending.await.unwrap();
        let listed = "SELECT COUNT(*) AS found FROM proof_ticket";
        assert_eq!(count(&database, listed).await, 1, "{url}");
        let won = "SELECT COUNT(*) AS found FROM winner WHERE buyer = 'early'";
        assert_eq!(count(&database, won).await, 1, "{url}");
        let mut tx = database.begin().await.unwrap();
        let late = entrant("late", None);
        let late = join(&mut tx, &shop, &House, &campaign, &late, Timestamp(2_000)).await;
        assert!(late.is_err_and(|error| error.into_problem().status == 410));
        tx.rollback().await;
    }
}

async fn set(database: &Database, sql: &'static str) {
    let mut tx = database.begin().await.unwrap();
    tx.execute(query(sql)).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn verdicts_behind_the_list_change_no_winner() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        let campaign = published(&database, prizes(&[], &[("final", "big", 3)]), 2_000_000).await;
        people(&database, 40).await;
        let kind = Giveaway::new(Arc::new(House));
        let published = "SELECT COUNT(*) AS found FROM proof_root";
        while count(&database, published).await == 0 {
            let mut tx = database.begin().await.unwrap();
            kind.settle(&mut tx, &campaign, &SEED, NOW).await.unwrap();
            tx.commit().await.unwrap();
        }
        let drawn = "SELECT COUNT(*) AS found FROM draw";
        assert_eq!(count(&database, drawn).await, 0, "{url}");
        // Everybody is turned around: who was denied is allowed, all others are denied.
        set(&database, "UPDATE participant SET verdict = 'ALLOW'").await;
        set(
            &database,
            "INSERT INTO participant (campaign, buyer, joined_at_ms, is_new, version, verdict) \
             SELECT campaign, buyer, joined_at_ms, 1, 1, 'DENY' FROM giveaway_participation \
             WHERE TRUE ON CONFLICT DO NOTHING",
        )
        .await;
        let mut is_done = false;
        while !is_done {
            let mut tx = database.begin().await.unwrap();
            is_done = kind.settle(&mut tx, &campaign, &SEED, NOW).await.unwrap();
            tx.commit().await.unwrap();
        }
        let denied = "SELECT COUNT(*) AS found FROM winner w JOIN participant p ON p.buyer = w.buyer \
             WHERE p.verdict = 'DENY' AND w.state = 'DENIED'";
        assert_eq!(count(&database, denied).await, 3, "{url}");
        let given = "SELECT COUNT(*) AS found FROM coupon";
        assert_eq!(count(&database, given).await, 0, "{url}");
        reveal(&database).await;
        let file = json!(file_of(&database, &campaign).await);
        assert_eq!(verify(&file, &[&GiveawayProof]).unwrap().winners, 3);
        let marked = file["tickets"].as_array().unwrap().iter();
        let is_marked = |it: &&Value| it["ticket"].as_str().unwrap().ends_with("-denied");
        assert_eq!(marked.filter(is_marked).count(), 4, "{url}");
        // One who won is said to have been passed over, with his prize's file made to fit.
        let mut changed = file.clone();
        let last = changed["draws"].as_array_mut().unwrap().last_mut().unwrap();
        last["detail"]["concluded"] = "passed_over".into();
        last["detail"]["reason"] = "denied".into();
        changed["winners"].as_array_mut().unwrap().pop();
        let found = verify(&changed, &[&GiveawayProof]).unwrap_err();
        let is_told = |it: &draws::Mismatch| it.what.contains("the list does not say");
        assert!(found.iter().any(is_told), "{url}: {found:?}");
    }
}

/// A database that bears no more than so many prizes in one transaction.
struct Slow {
    given: AtomicUsize,
    most: usize,
}

impl Give for Slow {
    fn enter<'a>(
        &'a self,
        tx: &'a mut Tx,
        shop: &'a Shop,
        campaign: &'a Campaign,
        entrant: &'a Entrant,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Entered, SideError>> {
        Double.enter(tx, shop, campaign, entrant, now)
    }

    fn grant<'a>(
        &'a self,
        tx: &'a mut Tx,
        campaign: &'a Campaign,
        grant: &'a Grant<'a>,
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Granted, SideError>> {
        Box::pin(async move {
            if self.given.fetch_add(1, Ordering::Relaxed) >= self.most {
                return Err(SqlError::Broken("too slow".to_owned()).into());
            }
            Double.grant(tx, campaign, grant, now).await
        })
    }
}

#[tokio::test]
async fn pieces_become_smaller_where_they_fail_and_leave_nothing_kept() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        let campaign = published(&database, prizes(&[], &[("final", "big", 50)]), 600_000).await;
        let slow = Arc::new(Slow {
            given: AtomicUsize::new(0),
            most: 3,
        });
        let kind = Giveaway::new(Arc::clone(&slow) as Arc<dyn Give>);
        let mut tx = database.begin().await.unwrap();
        kind.adopt(&mut tx, &campaign, NOW).await.unwrap();
        tx.commit().await.unwrap();
        people(&database, 60).await;
        let (mut is_done, mut failed) = (false, 0);
        for _ in 0..200 {
            slow.given.store(0, Ordering::Relaxed);
            let mut tx = database.begin().await.unwrap();
            match kind.settle(&mut tx, &campaign, &SEED, NOW).await {
                Ok(done) => {
                    tx.commit().await.unwrap();
                    is_done = done;
                }
                Err(_) => {
                    failed += 1;
                    tx.rollback().await;
                }
            }
            if is_done {
                break;
            }
        }
        assert!(is_done && failed > 0, "{url}: {failed}");
        let all = "SELECT COUNT(*) AS found FROM winner";
        assert_eq!(count(&database, all).await, 50, "{url}");
        let mut reads = database.read().await.unwrap();
        let stands = budget::read(&mut reads, "g1").await.unwrap().unwrap();
        assert_eq!(
            (stands.held_minor, stands.available_minor),
            (500_000, 100_000)
        );
    }
}

#[tokio::test]
async fn another_version_keeps_its_prizes_or_is_refused_with_the_figure() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        let mut campaign = published(&database, prizes(&[], &[("a", "big", 2)]), 45_000).await;
        let kind = Giveaway::new(Arc::new(Double));
        for (draws, held_minor) in [
            (prizes(&[], &[("a", "big", 2)]), Some(20_000)),
            (prizes(&[], &[("a", "big", 4)]), Some(40_000)),
            (prizes(&[], &[("a", "big", 5)]), None),
            (prizes(&[], &[("b", "welcome", 10)]), Some(5_000)),
        ] {
            campaign.definition.rules = draws;
            let mut tx = database.begin().await.unwrap();
            let adopted = kind.adopt(&mut tx, &campaign, NOW).await;
            let Some(held_minor) = held_minor else {
                let problem = adopted.unwrap_err().into_problem();
                assert_eq!(problem.status, 409, "{url}");
                let told = format!("{problem:?}");
                assert!(told.contains("50000") && told.contains("45000"), "{told}");
                tx.rollback().await;
                continue;
            };
            adopted.unwrap();
            tx.commit().await.unwrap();
            let mut reads = database.read().await.unwrap();
            let stands = budget::read(&mut reads, "g1").await.unwrap().unwrap();
            assert_eq!(stands.held_minor, held_minor, "{url}");
        }
        // Nobody joined: nothing stays kept.
        settle(&database, &campaign, false).await;
        let mut reads = database.read().await.unwrap();
        let stands = budget::read(&mut reads, "g1").await.unwrap().unwrap();
        assert_eq!(stands.held_minor, 0, "{url}");
    }
}

#[tokio::test]
async fn rewards_are_told_as_they_stand_once_a_person_allowed_them() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        let campaign = published(&database, prizes(&["welcome"], &[]), 5_000).await;
        set(&database, "UPDATE campaign SET version = 1").await;
        let service = GiveawayService::new(Arc::new(shop(&database)), Arc::new(House));
        set(
            &database,
            "INSERT INTO participant (campaign, buyer, joined_at_ms, is_new, version, verdict) \
             VALUES ('g1', 'u1', 1000, 1, 1, 'DENY')",
        )
        .await;
        let buyer = BuyerId::parse("u1").unwrap();
        let asked = async |endpoint: usize| {
            let request = SideRequest {
                endpoint,
                path: ["g1".to_owned(), String::new(), String::new()],
                query: Vec::new(),
                body: Vec::new(),
                content_type: None,
                key: Some(IdempotencyKey::parse("k1").unwrap()),
                caller: SideCaller::Buyer(buyer),
                address: None,
                device: None,
                now: Timestamp(2_000),
            };
            let answer = service.answer(request).await.unwrap();
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            (answer.status, answer.is_replay, body["rewards"][0].clone())
        };
        let (status, _, told) = asked(0).await;
        assert_eq!((status, &told["state"]), (201, &json!("DENIED")), "{url}");
        // Allowed, as verdicts give again; taken back once more, and allowed once more.
        let mut source = "join:u1".to_owned();
        for round in 0..2 {
            let mut tx = database.begin().await.unwrap();
            let find = query("SELECT id FROM reward_grant WHERE source = $1").bind(source);
            let id = tx.row(find).await.unwrap().unwrap().text("id").unwrap();
            source = format!("again:{id}");
            let wanted = Grant {
                source: &source,
                reward: "welcome",
                buyer,
                order_id: None,
                verdict: None,
            };
            let granted = grants::grant(&mut tx, &campaign, &wanted, NOW)
                .await
                .unwrap();
            tx.commit().await.unwrap();
            let Granted::Given { id } = granted else {
                panic!("{url}: {granted:?}");
            };
            let right = json!({"reward": "welcome", "id": id, "state": "GIVEN"});
            assert_eq!(asked(0).await, (200, true, right.clone()), "{url} {round}");
            assert_eq!(asked(1).await, (200, false, right), "{url} {round}");
            let mut tx = database.begin().await.unwrap();
            grants::on_verdict(&mut tx, "g1", "u1", true, "verdict:v1 ring", NOW)
                .await
                .unwrap();
            tx.commit().await.unwrap();
            let (_, _, told) = asked(1).await;
            assert_eq!(
                told,
                json!({"reward": "welcome", "id": null, "state": "DENIED"})
            );
        }
    }
}
