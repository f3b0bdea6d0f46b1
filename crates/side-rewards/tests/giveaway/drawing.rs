//! The draw: pieces may be lost, nothing is drawn twice, the file proves it, every change of the file is found.

use std::collections::BTreeSet;
use std::sync::Arc;

use dev_servers::Databases;
use flash_types::Timestamp;
use serde_json::{Value, json};
use side_books::budget;
use side_books::sql::{Database, query};
use side_campaign::draws::file::ProofFile;
use side_campaign::draws::{self, proof_page, verify};
use side_campaign::kind::CampaignKind as _;
use side_campaign::life::Campaign;
use side_rewards::giveaway::{Giveaway, GiveawayProof};

use crate::doubles::{Double, SEED, count, opened, prizes, published, reveal};

pub const NOW: Timestamp = Timestamp(200_000);

/// Buyers `b0` …; every tenth is denied from the start.
pub async fn people(database: &Database, count: usize) {
    let numbers: Vec<usize> = (0..count).collect();
    for chunk in numbers.chunks(2_000) {
        let mut tx = database.begin().await.unwrap();
        for number in chunk {
            let (buyer, at) = (format!("b{number}"), 1_000 + (number % 97) as i64);
            let insert = query(
                "INSERT INTO giveaway_participation (campaign, buyer, ticket, joined_at_ms, is_new) \
                 VALUES ('g1', $1, $2, $3, 1)",
            );
            let ticket = draws::participant("g1", &buyer);
            let insert = insert.bind(buyer.clone()).bind(ticket).bind(at);
            tx.execute(insert).await.unwrap();
            if number % 10 == 0 {
                let insert = query(
                    "INSERT INTO participant (campaign, buyer, joined_at_ms, is_new, version, verdict) \
                     VALUES ('g1', $1, $2, 1, 1, 'DENY')",
                );
                tx.execute(insert.bind(buyer).bind(at)).await.unwrap();
            }
        }
        tx.commit().await.unwrap();
    }
}

pub async fn file_of(database: &Database, campaign: &Campaign) -> ProofFile {
    let mut reads = database.read().await.unwrap();
    let mut file = proof_page(&mut reads, campaign, None, 200).await.unwrap();
    while let Some(cursor) = file.next_cursor.take() {
        // A reader has a deadline for all its pages together, as a request has one for its own.
        reads = database.read().await.unwrap();
        let next = proof_page(&mut reads, campaign, Some(&cursor), 200).await;
        file.join(next.unwrap()).unwrap();
    }
    file
}

/// To the end; where `loses`, each piece is lost once before it is made.
pub async fn settle(database: &Database, campaign: &Campaign, loses: bool) -> usize {
    let kind = Giveaway::new(Arc::new(Double));
    for pieces in 1..200 {
        if loses {
            let mut tx = database.begin().await.unwrap();
            kind.settle(&mut tx, campaign, &SEED, NOW).await.unwrap();
            tx.rollback().await;
        }
        let mut tx = database.begin().await.unwrap();
        let is_done = kind.settle(&mut tx, campaign, &SEED, NOW).await.unwrap();
        tx.commit().await.unwrap();
        if is_done {
            return pieces;
        }
    }
    panic!("it does not end");
}

#[tokio::test]
async fn winners_are_drawn_once_and_follow_from_the_file() {
    let servers = Databases::start().unwrap();
    let mut files = Vec::new();
    for (index, url) in servers.urls().unwrap().into_iter().enumerate() {
        let database = opened(&url).await;
        let rules = prizes(&[], &[("first", "big", 3), ("final", "welcome", 130)]);
        let campaign = published(&database, rules, 200_000).await;
        let kind = Giveaway::new(Arc::new(Double));
        let mut tx = database.begin().await.unwrap();
        kind.prepare(&mut tx, &campaign, &SEED, Timestamp(1))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        people(&database, 700).await;
        // Two workers at once; one of them loses every piece of its own once.
        tokio::join!(
            settle(&database, &campaign, index == 0),
            settle(&database, &campaign, false),
        );
        let all = "SELECT COUNT(*) AS found FROM winner";
        assert_eq!(count(&database, all).await, 133, "{url}");
        let buyers = "SELECT COUNT(DISTINCT buyer) AS found FROM winner";
        assert_eq!(count(&database, buyers).await, 133, "{url}");
        let denied =
            "SELECT COUNT(*) AS found FROM winner w JOIN participant p ON p.buyer = w.buyer";
        assert_eq!(count(&database, denied).await, 0, "{url}");
        let passed = "SELECT COUNT(*) AS found FROM draw WHERE detail LIKE '%passed_over%'";
        assert!(count(&database, passed).await > 0, "{url}");
        // What was kept is held for the winners now, and nothing else is.
        let mut reads = database.read().await.unwrap();
        let stands = budget::read(&mut reads, "g1").await.unwrap().unwrap();
        assert_eq!(stands.held_minor, 3 * 10_000 + 130 * 500, "{url}");
        drop(reads);
        reveal(&database).await;
        let file = json!(file_of(&database, &campaign).await);
        let verified = verify(&file, &[&GiveawayProof]).unwrap();
        assert_eq!(verified.winners, 133, "{url}");
        files.push(file);
    }
    // Lost pieces and another database change nothing.
    assert_eq!(files[0], files[1]);
    changes_are_found(&files[0]);
}

/// Each of these is one change of a good file, and where it must be found.
fn changes_are_found(file: &Value) {
    type Change = fn(&mut Value);
    fn list<'a>(file: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
        file[name].as_array_mut().unwrap()
    }
    let changes: [(&str, Change); 16] = [
        ("seed", |file| file["seed"] = "00".repeat(32).into()),
        ("version 1", |file| {
            file["versions"][0]["definition"]["rules"]["draws"][0]["winners"] = 2.into()
        }),
        ("root participants", |file| {
            file["roots"][0]["root"] = "00".repeat(32).into()
        }),
        ("root participants", |file| file["roots"] = json!([])),
        ("root participants", |file| list(file, "tickets").swap(1, 2)),
        ("root participants", |file| {
            list(file, "tickets").pop();
        }),
        ("draw final/2", |file| file["draws"][1]["value"] = 9.into()),
        ("draw final/2", |file| {
            file["draws"][1]["subject"] = file["draws"][2]["subject"].clone()
        }),
        ("draw final/2", |file| {
            file["draws"][1]["detail"]["reward"] = "big".into()
        }),
        ("draw final/2", |file| {
            file["draws"][1]["detail"]["version"] = 2.into()
        }),
        ("draw final/3", |file| {
            list(file, "draws").remove(1);
        }),
        ("draws first", |file| {
            list(file, "draws").pop();
        }),
        ("draw final/3", |file| list(file, "draws").swap(1, 2)),
        ("winner final/2", |file| {
            file["winners"][1]["participant"] = file["winners"][2]["participant"].clone();
        }),
        ("winner final/2", |file| {
            file["winners"][1]["reward"] = "big".into()
        }),
        ("winner first/3", |file| {
            list(file, "winners").pop();
        }),
    ];
    for (place, change) in changes {
        let mut changed = file.clone();
        change(&mut changed);
        let found = verify(&changed, &[&GiveawayProof]).unwrap_err();
        let places: Vec<&str> = found.iter().map(|it| it.place.as_str()).collect();
        assert!(
            places.contains(&place),
            "{place}: {:?}",
            &places[..places.len().min(5)]
        );
    }
    // Somebody who won is made one who was passed over: the winners no longer follow.
    let mut changed = file.clone();
    let draws = changed["draws"].as_array_mut().unwrap();
    let mut won = draws
        .iter_mut()
        .filter(|draw| draw["detail"]["concluded"] == "winner");
    let won = won.next().unwrap();
    won["detail"]["concluded"] = "passed_over".into();
    won["detail"]["reason"] = "denied".into();
    assert!(verify(&changed, &[&GiveawayProof]).is_err());
}

#[tokio::test]
async fn ten_thousand_participants_a_hundred_winners() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        let campaign = published(&database, prizes(&[], &[("final", "big", 100)]), 2_000_000).await;
        people(&database, 10_000).await;
        let pieces = settle(&database, &campaign, false).await;
        assert!(pieces > 20, "{url}: pieces are bounded, {pieces}");
        reveal(&database).await;
        let file = file_of(&database, &campaign).await;
        assert_eq!((file.tickets.len(), file.winners.len()), (10_000, 100));
        let winners: BTreeSet<&str> = file
            .winners
            .iter()
            .map(|it| it.participant.as_str())
            .collect();
        assert_eq!(winners.len(), 100, "{url}");
        assert_eq!(
            verify(&json!(file), &[&GiveawayProof]).unwrap().winners,
            100
        );
    }
}

#[tokio::test]
async fn where_fewer_join_than_could_win_all_who_may_win_do() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        for (joined, winners) in [(0, 0), (1, 0), (12, 10)] {
            let database = opened(&url).await;
            let mut tx = database.begin().await.unwrap();
            for table in [
                "DELETE FROM campaign_version",
                "DELETE FROM campaign",
                "DELETE FROM giveaway_participation",
                "DELETE FROM giveaway_settling",
                "DELETE FROM giveaway_slot",
                "DELETE FROM draw",
                "DELETE FROM draw_stream",
                "DELETE FROM proof_ticket",
                "DELETE FROM proof_root",
                "DELETE FROM participant",
                "DELETE FROM winner",
            ] {
                tx.execute(query(table)).await.unwrap();
            }
            tx.commit().await.unwrap();
            let campaign =
                published(&database, prizes(&[], &[("final", "big", 50)]), 2_000_000).await;
            people(&database, joined).await;
            settle(&database, &campaign, false).await;
            reveal(&database).await;
            let file = file_of(&database, &campaign).await;
            assert_eq!(file.winners.len(), winners, "{url} {joined}");
            assert!(
                verify(&json!(file), &[&GiveawayProof]).is_ok(),
                "{url} {joined}"
            );
            database.close().await;
        }
    }
}
