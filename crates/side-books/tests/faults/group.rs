//! Those who write share commits: nobody is told before it happened, and nobody takes another along.

use std::collections::BTreeSet;
use std::time::Duration;

use side_books::note::{self, Note};
use side_books::sql::{Database, Get as _, Reads as _, SqlError, Tx, query};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use crate::{AT, BOUND, opened};

async fn write(tx: &mut Tx, what: &str) {
    let note = Note {
        who: "w",
        what,
        ..Note::default()
    };
    note::write(tx, &note, AT).await.unwrap();
}

async fn written(database: &Database) -> BTreeSet<String> {
    let mut reads = database.read().await.unwrap();
    let rows = reads.rows(query("SELECT what FROM audit_note")).await;
    let rows = rows.unwrap();
    rows.iter().map(|row| row.text("what").unwrap()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// `a` is written, and its commit waits, since another was in line before: that one has the turn now.
async fn two_in_line(database: &Database) -> (JoinHandle<Result<(), SqlError>>, Tx) {
    let mut first = database.begin().await.unwrap();
    write(&mut first, "a").await;
    let other = database.clone();
    let second = tokio::spawn(async move { other.begin().await.unwrap() });
    // One thread: it stands in line after this.
    for _ in 0..10 {
        yield_now().await;
    }
    assert!(!second.is_finished());
    let commit = tokio::spawn(first.commit());
    let second = timeout(BOUND, second).await.unwrap().unwrap();
    assert!(!commit.is_finished());
    (commit, second)
}

#[tokio::test]
async fn one_of_a_group_is_taken_back_alone_and_nobody_is_told_before() {
    let folder = tempfile::tempdir().unwrap();
    let database = opened(&format!("sqlite:{}", folder.path().join("d.db").display())).await;

    let (commit, mut second) = two_in_line(&database).await;
    write(&mut second, "b").await;
    assert_eq!(written(&database).await, set(&[]), "nothing is committed");
    assert!(!commit.is_finished());
    second.rollback().await;
    timeout(BOUND, commit).await.unwrap().unwrap().unwrap();
    assert_eq!(written(&database).await, set(&["a"]));

    // Dropped instead: the same.
    let (commit, mut second) = two_in_line(&database).await;
    write(&mut second, "c").await;
    drop(second);
    timeout(BOUND, commit).await.unwrap().unwrap().unwrap();
    assert_eq!(written(&database).await, set(&["a"]));

    // One that failed half way.
    let (commit, mut second) = two_in_line(&database).await;
    write(&mut second, "d").await;
    crate::fail(&mut second).await;
    assert!(second.commit().await.is_err());
    timeout(BOUND, commit).await.unwrap().unwrap().unwrap();
    assert_eq!(written(&database).await, set(&["a"]));
}

#[tokio::test]
async fn a_connection_that_is_lost_takes_its_group_along_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let database = opened(&format!("sqlite:{}", folder.path().join("d.db").display())).await;
    let (commit, mut second) = two_in_line(&database).await;
    // Given up in the midst of a statement.
    let long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) \
                SELECT COUNT(*) AS n FROM n";
    let cut = timeout(Duration::from_millis(20), second.row(query(long))).await;
    assert!(cut.is_err());
    drop(second);
    let told = timeout(BOUND, commit).await.unwrap().unwrap();
    assert!(matches!(told, Err(SqlError::Conflict)), "{told:?}");
    // Tried again, it is there once.
    let again = async || -> Result<(), SqlError> {
        let mut tx = database.begin().await?;
        write(&mut tx, "a").await;
        tx.commit().await
    };
    let mut told = again().await;
    while told.as_ref().is_err_and(SqlError::is_conflict) {
        told = again().await;
    }
    told.unwrap();
    assert_eq!(written(&database).await, set(&["a"]));
}

#[tokio::test]
async fn a_commit_that_waits_too_long_is_unknown_and_comes_about() {
    let folder = tempfile::tempdir().unwrap();
    let database = opened(&format!("sqlite:{}", folder.path().join("d.db").display())).await;
    let (commit, second) = two_in_line(&database).await;
    // The second keeps the turn until the first has given up.
    let told = timeout(BOUND, commit).await.unwrap().unwrap();
    assert!(matches!(told, Err(SqlError::Unknown)), "{told:?}");
    assert_eq!(written(&database).await, set(&[]));
    second.rollback().await;
    // Who comes next is in line after the finisher.
    database.begin().await.unwrap().rollback().await;
    assert_eq!(written(&database).await, set(&["a"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_crowd_those_are_written_who_were_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let database = opened(&format!("sqlite:{}", folder.path().join("d.db").display())).await;
    let mut tasks = Vec::new();
    for number in 0..400 {
        let database = database.clone();
        tasks.push(tokio::spawn(async move {
            let mut tx = loop {
                match database.begin().await {
                    Ok(tx) => break tx,
                    // The line is long, and patience short.
                    Err(SqlError::Unavailable(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            };
            let name = format!("n{number}");
            write(&mut tx, &name).await;
            match number % 5 {
                0 => tx.rollback().await,
                1 => drop(tx),
                2 => {
                    crate::fail(&mut tx).await;
                    tx.rollback().await;
                }
                _ => {
                    tx.commit().await.unwrap();
                    return Some(name);
                }
            }
            None
        }));
    }
    let mut told = BTreeSet::new();
    for task in tasks {
        told.extend(task.await.unwrap());
    }
    assert_eq!(told.len(), 160);
    assert_eq!(written(&database).await, told);
}
