//! The audit finds what raw SQL has bent, and the auditor freezes the campaign.

use dev_servers::Databases;
use flash_types::side::BoxFuture;
use side_books::audit::{Auditor, Finding, Prove, prove, prove_all, rebuild};
use side_books::books;
use side_books::budget::{self, Hold};
use side_books::sql::{Database, Reader, SqlError, query};
use side_books::step::Step as _;

use crate::{AT, assert_balanced, opened};

async fn run(database: &Database, sql: &'static str) {
    let mut tx = database.begin().await.unwrap();
    assert_ne!(tx.execute(query(sql)).await.unwrap(), 0, "{sql}");
    tx.commit().await.unwrap();
}

async fn hold(database: &Database, campaign: &str, key: &str) -> Result<(), side_books::SideError> {
    let mut tx = database.begin().await?;
    let hold = Hold {
        key,
        campaign,
        what: "test",
        amount_minor: 100,
    };
    budget::hold(&mut tx, &hold, AT).await?;
    tx.commit().await?;
    Ok(())
}

/// One budget with an open, a posted, a voided and a recovered promise.
async fn history(database: &Database) {
    let mut tx = database.begin().await.unwrap();
    for campaign in ["c1", "c2"] {
        let key = format!("fund|{campaign}");
        budget::fund(&mut tx, campaign, "CNY", 1_000, &key, AT)
            .await
            .unwrap();
    }
    for key in ["open", "posted", "voided", "recovered"] {
        let hold = Hold {
            key,
            campaign: "c1",
            what: "test",
            amount_minor: 100,
        };
        budget::hold(&mut tx, &hold, AT).await.unwrap();
    }
    budget::post(&mut tx, "posted", 60, AT).await.unwrap();
    budget::void(&mut tx, "voided", AT).await.unwrap();
    budget::post(&mut tx, "recovered", 100, AT).await.unwrap();
    budget::recover(&mut tx, "recovered", AT).await.unwrap();
    tx.commit().await.unwrap();
}

/// What is bent, and what has to be found.
const TAMPERS: &[(&str, &str)] = &[
    (
        "UPDATE account SET balance = balance + 1 WHERE id = 'budget:c1:available'",
        "wrong_balance",
    ),
    (
        "INSERT INTO account (id, owner, kind, currency, may_go_negative, balance) VALUES ('x', 'x', 'x', 'CNY', 0, 5)",
        "wrong_balance",
    ),
    (
        "UPDATE entry SET delta = delta + 1 WHERE account = 'budget:c1:held' AND delta = 100",
        "unbalanced_transfer",
    ),
    (
        "DELETE FROM entry WHERE account = 'world:CNY'",
        "few_entries",
    ),
    (
        "UPDATE entry SET currency = 'USD' WHERE account = 'budget:c1:spent'",
        "wrong_currency",
    ),
    (
        "UPDATE entry SET delta = -delta WHERE account = 'budget:c1:available' AND delta = 1000",
        "below_zero",
    ),
    (
        "UPDATE hold SET amount = 101 WHERE key = 'open'",
        "wrong_hold",
    ),
    (
        "UPDATE hold SET state = 'voided' WHERE key = 'open'",
        "wrong_hold",
    ),
    (
        "UPDATE hold SET posted = 61 WHERE key = 'posted'",
        "wrong_spent",
    ),
    (
        "UPDATE hold SET state = 'open' WHERE key = 'voided'",
        "wrong_held",
    ),
    ("DELETE FROM hold WHERE key = 'voided'", "stray_transfer"),
    (
        "INSERT INTO command (scope, key, fingerprint, at_ms) VALUES ('s', 'k', 'f', 1)",
        "no_answer",
    ),
];

#[tokio::test]
async fn every_bent_row_is_found() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        history(&database).await;
        let report = assert_balanced(&database, &url).await;
        assert_eq!((report.holds, report.transfers), (4, 10));
        for (sql, code) in TAMPERS {
            let mut tx = database.begin().await.unwrap();
            assert_ne!(tx.execute(query(sql)).await.unwrap(), 0, "{sql}");
            let report = prove(&mut tx).await.unwrap();
            let is_found = report.findings.iter().any(|found| found.code == *code);
            assert!(is_found && !report.ok, "{url} {sql}: {report:?}");
            tx.rollback().await;
        }
        assert_balanced(&database, &url).await;
    }
}

struct Other;

impl Prove for Other {
    fn name(&self) -> &'static str {
        "other"
    }

    fn prove<'a>(&'a self, _: &'a mut Reader) -> BoxFuture<'a, Result<Vec<Finding>, SqlError>> {
        Box::pin(async {
            Ok(vec![Finding {
                code: "other",
                subject: "x".to_owned(),
                detail: "y".to_owned(),
            }])
        })
    }
}

#[tokio::test]
async fn a_snapshot_is_one_state_and_other_proofs_are_added() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        history(&database).await;
        let mut snapshot = database.snapshot().await.unwrap();
        let before = prove(&mut snapshot).await.unwrap();
        hold(&database, "c1", "later").await.unwrap();
        assert_eq!(prove(&mut snapshot).await.unwrap(), before, "{url}");
        drop(snapshot);
        let after = prove_all(&database, &[&Other]).await.unwrap();
        assert_eq!(after.holds, before.holds + 1);
        assert!(!after.ok);
        assert_eq!(after.findings.len(), 1);
    }
}

#[tokio::test]
async fn the_auditor_freezes_what_is_wrong_and_nothing_else() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        history(&database).await;
        let auditor = Auditor::new(database.clone());
        assert!(!auditor.step(AT).await.unwrap());
        assert_eq!(auditor.imbalance(), 0, "{url}");
        run(
            &database,
            "UPDATE account SET balance = balance + 7 WHERE id = 'budget:c1:available'",
        )
        .await;
        auditor.step(AT).await.unwrap();
        assert_eq!(auditor.imbalance(), 7, "{url}");
        let findings = auditor.findings().await;
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].code, "wrong_balance");
        let refused = hold(&database, "c1", "new").await.unwrap_err();
        let problem = refused.into_problem();
        assert_eq!((problem.status, problem.outcome), (503, "campaign_frozen"));
        // Neither may what is open be closed; the other campaign goes on.
        let mut tx = database.begin().await.unwrap();
        let closed = budget::void(&mut tx, "open", AT).await.unwrap_err();
        assert_eq!(closed.into_problem().outcome, "campaign_frozen");
        tx.rollback().await;
        hold(&database, "c2", "other").await.unwrap();
        let mut reads = database.read().await.unwrap();
        assert!(books::is_frozen(&mut reads, "c1").await.unwrap());
        assert!(!books::is_frozen(&mut reads, "c2").await.unwrap());
        drop(reads);
        // Put right, and let go on by a person.
        let mut tx = database.begin().await.unwrap();
        assert_eq!(rebuild(&mut tx).await.unwrap(), 1);
        assert!(books::thaw(&mut tx, "c1").await.unwrap());
        tx.commit().await.unwrap();
        auditor.step(AT).await.unwrap();
        assert_eq!(auditor.imbalance(), 0, "{url}");
        hold(&database, "c1", "new").await.unwrap();
        run(
            &database,
            "UPDATE entry SET delta = 90 WHERE account = 'budget:c1:held' AND delta = 100 \
             AND transfer = (SELECT MAX(id) FROM transfer)",
        )
        .await;
        auditor.step(AT).await.unwrap();
        let codes: Vec<_> = auditor.findings().await.iter().map(|it| it.code).collect();
        assert!(codes.contains(&"unbalanced_transfer"), "{codes:?}");
        assert!(hold(&database, "c1", "newer").await.is_err(), "{url}");
    }
}

async fn thaw(database: &Database) {
    let mut tx = database.begin().await.unwrap();
    assert!(books::thaw(&mut tx, "c1").await.unwrap());
    tx.commit().await.unwrap();
}

async fn is_frozen(database: &Database) -> bool {
    let mut reads = database.read().await.unwrap();
    books::is_frozen(&mut reads, "c1").await.unwrap()
}

#[tokio::test]
async fn what_a_person_has_looked_at_freezes_again_only_after_it_was_put_right() {
    const WRONG: &str = "UPDATE account SET balance = balance + 7 WHERE id = 'budget:c1:available'";
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        history(&database).await;
        run(&database, WRONG).await;
        // A second finding of the same campaign, while it is frozen.
        run(
            &database,
            "UPDATE account SET balance = balance + 5 WHERE id = 'budget:c1:held'",
        )
        .await;
        let auditor = Auditor::new(database.clone());
        auditor.step(AT).await.unwrap();
        assert!(is_frozen(&database).await, "{url}");
        thaw(&database).await;
        // It goes on, so every sum is another one; the auditor looks again, and so does one that has just started.
        hold(&database, "c1", "while wrong").await.unwrap();
        auditor.step(AT).await.unwrap();
        assert!(!is_frozen(&database).await, "{url}");
        let auditor = Auditor::new(database.clone());
        auditor.step(AT).await.unwrap();
        assert_ne!(auditor.imbalance(), 0, "{url}");
        assert!(!is_frozen(&database).await, "{url}");
        // It gets worse.
        run(&database, WRONG).await;
        auditor.step(AT).await.unwrap();
        assert!(is_frozen(&database).await, "{url}");
        thaw(&database).await;
        // Put right, and wrong in the same way once more.
        let mut tx = database.begin().await.unwrap();
        rebuild(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        auditor.step(AT).await.unwrap();
        assert_eq!(auditor.imbalance(), 0, "{url}");
        run(&database, WRONG).await;
        auditor.step(AT).await.unwrap();
        assert!(is_frozen(&database).await, "{url}");
    }
}
