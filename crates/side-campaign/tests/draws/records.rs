//! Records on both databases: sequences without gaps, pages that join to the whole file, a file in which every change is found.

use dev_servers::Databases;
use flash_types::{Currency, Timestamp};
use serde_json::{Value, json};
use side_books::command::hex;
use side_books::sql::{Database, SqlOptions, query};
use side_campaign::canonical;
use side_campaign::definition::Definition;
use side_campaign::draws::file::ProofFile;
use side_campaign::draws::{
    self, Draw, ListRoot, Mismatch, Record, Seed, VerifyKind, Winner, commitment, proof_page,
    verify,
};
use side_campaign::life::{self, Campaign};
use side_campaign::state::State;

const AT: Timestamp = Timestamp(1_000);
const SEED: Seed = Seed([5; 32]);

async fn opened(url: &str) -> Database {
    let migrations = [side_books::MIGRATIONS, side_campaign::MIGRATIONS].concat();
    Database::open(&url.parse().unwrap(), SqlOptions::default(), &migrations)
        .await
        .unwrap()
}

fn campaign() -> Campaign {
    let definition = Definition {
        campaign_id: "c1".to_owned(),
        kind: "deck".to_owned(),
        title: "A deck".to_owned(),
        warmup_at: None,
        starts_at: Timestamp(0),
        ends_at: Timestamp(10_000),
        zone: "Asia/Shanghai".to_owned(),
        currency: Currency::parse("CNY").unwrap(),
        budget_minor: 77_777,
        goal: std::collections::BTreeMap::new(),
        eligibility: side_campaign::definition::Eligibility::default(),
        reminders: side_campaign::definition::Reminders::default(),
        rewards: Vec::new(),
        risk: side_campaign::definition::RiskRules::default(),
        rules: json!({"tickets": 8}),
        plan_b: None,
    };
    Campaign {
        id: "c1".to_owned(),
        state: State::Settled,
        version: 1,
        definition,
        rules_hash: String::new(),
        published_at: Some(AT),
    }
}

/// As the life of campaigns publishes it.
async fn publish(database: &Database, campaign: &Campaign, root: Option<&str>) {
    let whole = serde_json::to_value(&campaign.definition).unwrap();
    let shown = life::public_definition(&campaign.definition, "ff");
    let mut tx = database.begin().await.unwrap();
    let insert = query(
        "INSERT INTO campaign (id, kind, state, draft, starts_at_ms, ends_at_ms, seed_hash, root, created_at_ms, published_at_ms) \
         VALUES ($1, $2, 'RUNNING', '{}', 0, 1, $3, $4, 0, 1000)",
    );
    let insert = insert
        .bind(campaign.id.clone())
        .bind(campaign.definition.kind.clone())
        .bind(commitment(&SEED))
        .bind(root.map(str::to_owned));
    tx.execute(insert).await.unwrap();
    let insert = query(
        "INSERT INTO campaign_version (campaign, version, definition, rules_hash, worst_case, private_hash, reason, who, at_ms) \
         VALUES ($1, 1, $2, $3, '{}', 'ff', 'published', 'anna', 1000)",
    );
    let insert = insert
        .bind(campaign.id.clone())
        .bind(whole.to_string())
        .bind(canonical::hash(&shown));
    tx.execute(insert).await.unwrap();
    tx.commit().await.unwrap();
}

/// Draws once; `commits` or takes it back.
async fn draw_once(database: &Database, stream: &str, commits: bool) {
    loop {
        let Ok(mut tx) = database.begin().await else {
            continue;
        };
        let Ok(sequence) = draws::next(&mut tx, "c1", stream).await else {
            continue;
        };
        let value = Draw::new(&SEED, "c1", stream, u64::try_from(sequence).unwrap()).integer(1, 6);
        let detail = json!({"cut": value});
        let record = Record {
            campaign: "c1",
            stream,
            sequence,
            subject: "s1",
            low: 1,
            high: 6,
            value,
            detail: &detail,
        };
        draws::record(&mut tx, &record, AT).await.unwrap();
        if commits {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await;
        }
        return;
    }
}

async fn whole_file(database: &Database, campaign: &Campaign, limit: i64) -> ProofFile {
    let mut reads = database.read().await.unwrap();
    let mut file = proof_page(&mut reads, campaign, None, limit).await.unwrap();
    let mut pages = 1;
    while let Some(cursor) = file.next_cursor.take() {
        let page = proof_page(&mut reads, campaign, Some(&cursor), limit)
            .await
            .unwrap();
        let items = page.tickets.len() + page.draws.len() + page.winners.len();
        assert!(items <= usize::try_from(limit).unwrap());
        file.join(page).unwrap();
        pages += 1;
        assert!(pages < 100);
    }
    file
}

struct AnyWinner;

impl VerifyKind for AnyWinner {
    fn kind(&self) -> &'static str {
        "deck"
    }

    fn verify(&self, _file: &ProofFile) -> Vec<Mismatch> {
        Vec::new()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_have_no_gaps_and_pages_join_to_a_file_that_proves_itself() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let (database, campaign) = (opened(&url).await, campaign());
        let mut root = ListRoot::new(&SEED, "c1", "deck");
        let mut tx = database.begin().await.unwrap();
        for position in 0..8 {
            let ticket = format!("prize {position}");
            draws::ticket(&mut tx, "c1", "deck", position, &ticket, AT)
                .await
                .unwrap();
            root.push(AT.0, &ticket);
        }
        for _ in 0..2 {
            draws::publish_root(&mut tx, "c1", "deck", &root.hex(), AT)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        publish(&database, &campaign, Some(&root.hex())).await;
        let mut tx = database.begin().await.unwrap();
        let other = draws::publish_root(&mut tx, "c1", "deck", "ff", AT).await;
        assert!(other.is_err(), "{url}: another root of the same list");
        tx.rollback().await;

        let mut tasks = Vec::new();
        for task in 0..24 {
            let database = database.clone();
            let stream = if task % 2 == 0 { "a" } else { "b" };
            tasks.push(tokio::spawn(async move {
                draw_once(&database, stream, task % 3 != 0).await;
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let mut tx = database.begin().await.unwrap();
        for rank in 1..=3 {
            let winner = Winner {
                campaign: "c1",
                list: "a",
                rank,
                buyer: "buyer-1",
                score: None,
                reward: "tablet",
                state: "GIVEN",
                proof: Some(("a", rank)),
            };
            draws::announce(&mut tx, &winner, AT).await.unwrap();
        }
        tx.commit().await.unwrap();

        let before = whole_file(&database, &campaign, 200).await;
        assert_eq!(
            (before.seed.as_ref(), before.tickets.len()),
            (None, 0),
            "{url}"
        );
        assert!(verify(&json!(before), &[&AnyWinner]).is_err());
        let mut tx = database.begin().await.unwrap();
        let reveal = query("UPDATE campaign SET seed = $1 WHERE id = 'c1'").bind(hex(&SEED.0));
        tx.execute(reveal).await.unwrap();
        tx.commit().await.unwrap();

        let file = whole_file(&database, &campaign, 200).await;
        for limit in [1, 3, 8, 24, 27] {
            assert_eq!(
                whole_file(&database, &campaign, limit).await,
                file,
                "{url} {limit}"
            );
        }
        assert_eq!(
            (file.tickets.len(), file.draws.len(), file.winners.len()),
            (8, 16, 3)
        );
        assert!(
            !json!(file).to_string().contains("77777"),
            "the budget is not shown"
        );
        assert!(
            !json!(file).to_string().contains("buyer-1"),
            "buyers are masked"
        );
        let verified = verify(&json!(file), &[&AnyWinner]).unwrap();
        assert_eq!((verified.draws, verified.winners), (16, 3), "{url}");
        let mut reads = database.read().await.unwrap();
        let page = draws::winners_page(&mut reads, "c1", ("a", 1), 10)
            .await
            .unwrap();
        assert_eq!(page.iter().map(|it| it.rank).collect::<Vec<_>>(), [2, 3]);
        for cursor in ["", "x", "t~a", "q~a~1", "d~a~x", "d~a~1~2", "d~a~-5"] {
            let page = proof_page(&mut reads, &campaign, Some(cursor), 10).await;
            assert!(page.is_err(), "{cursor:?}");
        }
        drop(reads);
        changes_are_found(&json!(file));
        database.close().await;
    }
}

/// Each of these is one change of a good file, and where it must be found.
fn changes_are_found(file: &Value) {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 16] = [
        ("seed", |file| file["seed"] = "00".repeat(32).into()),
        ("seed", |file| file["seed"] = Value::Null),
        ("seed", |file| file["commitment"] = "00".repeat(32).into()),
        ("version 1", |file| {
            file["versions"][0]["definition"]["rules"]["tickets"] = 9.into()
        }),
        ("version 1", |file| {
            file["versions"][0]["hash"] = "00".repeat(32).into()
        }),
        ("versions", |file| file["versions"] = json!([])),
        ("root deck", |file| {
            file["roots"][0]["root"] = "00".repeat(32).into()
        }),
        ("root", |file| file["root"] = "00".repeat(32).into()),
        ("root deck", |file| {
            file["tickets"][3]["ticket"] = "nothing".into()
        }),
        ("ticket deck/5", |file| {
            file["tickets"].as_array_mut().unwrap().remove(4);
        }),
        ("draw a/2", |file| {
            let value = file["draws"][1]["value"].as_i64().unwrap();
            file["draws"][1]["value"] = (value % 6 + 1).into();
        }),
        ("draw a/2", |file| {
            file["draws"][1]["high"] = 1_000_000_000.into()
        }),
        ("draw a/3", |file| {
            file["draws"].as_array_mut().unwrap().remove(1);
        }),
        ("draw a/2", |file| {
            file["draws"].as_array_mut().unwrap().swap(0, 1)
        }),
        ("winner a/2", |file| {
            file["winners"][1]["sequence"] = 4_000.into()
        }),
        ("format", |file| file["more"] = 1.into()),
    ];
    for (place, change) in changes {
        let mut changed = file.clone();
        change(&mut changed);
        let found = verify(&changed, &[&AnyWinner]).unwrap_err();
        let places: Vec<&str> = found.iter().map(|it| it.place.as_str()).collect();
        assert!(places.contains(&place), "{place}: {places:?}");
    }
}
