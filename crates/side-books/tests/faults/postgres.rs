//! A server that is frozen, killed, started again, or has to break a deadlock.

use std::fs;

use dev_servers::PostgresServer;
use side_books::SideError;
use side_books::sql::{Database, SqlError, SqlOptions, query};
use tokio::time::timeout;

use crate::{BOUND, OPTIONS, backend, cap, fail, fund, opened};

fn is_away(error: &SqlError) -> bool {
    matches!(error, SqlError::TimedOut | SqlError::Unavailable(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_given_up_in_time_and_used_again_when_it_thaws() {
    let server = PostgresServer::start().unwrap();
    let database = opened(&server.database().unwrap()).await;
    fund(&database, "k1").await.unwrap();
    let at_statement = database.begin().await.unwrap();
    let mut at_commit = database.begin().await.unwrap();
    at_commit
        .execute(query("UPDATE account SET balance = balance WHERE id = 'x'"))
        .await
        .unwrap();
    server.freeze().unwrap();
    let at_statement = async {
        let mut tx = at_statement;
        tx.execute(query("DELETE FROM hold")).await.unwrap_err()
    };
    let at_begin = async {
        for _ in 0..6 {
            let refused = fund(&database, "k2").await.unwrap_err();
            assert!(
                matches!(&refused, SideError::Sql(error) if is_away(error)),
                "{refused:?}"
            );
            assert!(is_away(&cap(&database).await.unwrap_err()));
        }
    };
    let all = async { tokio::join!(at_statement, at_commit.commit(), at_begin) };
    let (statement, commit, ()) = timeout(BOUND, all).await.unwrap();
    assert!(matches!(statement, SqlError::TimedOut));
    assert!(matches!(commit, Err(SqlError::Unknown)), "{commit:?}");
    server.thaw().unwrap();
    // What was sent to it meanwhile it may still do first.
    let again = async { while fund(&database, "k2").await.is_err() {} };
    timeout(BOUND, again).await.unwrap();
    for number in 0..20 {
        fund(&database, &format!("again{number}")).await.unwrap();
    }
    assert_eq!(cap(&database).await.unwrap(), 2_200);
}

#[tokio::test]
async fn a_server_that_was_killed_is_used_again_when_it_is_back() {
    let mut server = PostgresServer::start().unwrap();
    let database = opened(&server.database().unwrap()).await;
    // Four connections, all idle when it dies.
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(database.begin().await.unwrap());
    }
    for tx in open {
        tx.rollback().await;
    }
    fund(&database, "k1").await.unwrap();
    server.kill().unwrap();
    server.restart().unwrap();
    // Nobody has noticed: the first one finds out and helps itself.
    fund(&database, "k2").await.unwrap();
    for _ in 0..4 {
        assert_eq!(cap(&database).await.unwrap(), 200);
    }
    server.kill().unwrap();
    for _ in 0..3 {
        let refused = timeout(BOUND, fund(&database, "k3")).await.unwrap();
        let refused = refused.unwrap_err();
        assert!(
            matches!(&refused, SideError::Sql(error) if is_away(error)),
            "{refused:?}"
        );
        assert!(is_away(&cap(&database).await.unwrap_err()));
    }
    server.restart().unwrap();
    fund(&database, "k3").await.unwrap();
    assert_eq!(cap(&database).await.unwrap(), 300);
}

#[tokio::test]
async fn of_two_in_a_deadlock_one_is_told_to_try_again() {
    let server = PostgresServer::start().unwrap();
    let database = opened(&server.database().unwrap()).await;
    fund(&database, "k1").await.unwrap();
    let first = "UPDATE account SET owner = owner WHERE id = 'budget:c1:available'";
    let second = "UPDATE account SET owner = owner WHERE id = 'budget:c1:held'";
    let mut a = database.begin().await.unwrap();
    let mut b = database.begin().await.unwrap();
    a.execute(query(first)).await.unwrap();
    b.execute(query(second)).await.unwrap();
    let crossed = async {
        let a = async {
            let done = a.execute(query(second)).await;
            match done {
                Ok(_) => a.commit().await,
                Err(error) => Err(error),
            }
        };
        let b = async {
            let done = b.execute(query(first)).await;
            match done {
                Ok(_) => b.commit().await,
                Err(error) => {
                    // Its locks go with it.
                    b.rollback().await;
                    Err(error)
                }
            }
        };
        tokio::join!(a, b)
    };
    let (a, b) = timeout(BOUND, crossed).await.unwrap();
    let conflicts = [&a, &b].map(|done| done.as_ref().is_err_and(SqlError::is_conflict));
    assert!(conflicts[0] != conflicts[1], "{a:?} {b:?}");
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
}

#[tokio::test]
async fn a_lock_that_does_not_come_is_a_conflict_and_a_long_statement_a_time_out() {
    let server = PostgresServer::start().unwrap();
    let url = server.database().unwrap();
    let database = opened(&url).await;
    fund(&database, "k1").await.unwrap();
    let update = "UPDATE account SET owner = owner WHERE id = 'budget:c1:held'";
    let mut holds = database.begin().await.unwrap();
    holds.execute(query(update)).await.unwrap();
    let mut waits = database.begin().await.unwrap();
    let refused = timeout(BOUND, waits.execute(query(update))).await.unwrap();
    assert!(refused.unwrap_err().is_conflict());
    waits.rollback().await;
    holds.rollback().await;
    let mut tx = database.begin().await.unwrap();
    let sleep = tx.execute(query("SELECT pg_sleep(60)"));
    let refused = timeout(BOUND, sleep).await.unwrap();
    assert!(matches!(refused, Err(SqlError::TimedOut)), "{refused:?}");
    tx.rollback().await;

    // A refusal by dropping costs no connection.
    let options = SqlOptions {
        connections_max: 1,
        ..OPTIONS
    };
    let one = Database::open(&url.parse().unwrap(), options, side_books::MIGRATIONS)
        .await
        .unwrap();
    let before = backend(&mut one.begin().await.unwrap()).await;
    for _ in 0..5 {
        let mut tx = one.begin().await.unwrap();
        fail(&mut tx).await;
        drop(tx);
        assert_eq!(backend(&mut one.begin().await.unwrap()).await, before);
    }
}

fn state_of(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[tokio::test]
async fn freezing_reaches_all_processes_and_a_frozen_server_leaves_none() {
    let server = PostgresServer::start().unwrap();
    let url = server.database().unwrap();
    let database = opened(&url).await;
    fund(&database, "k1").await.unwrap();
    let select = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()";
    let pids = server.psql(&url, select).unwrap();
    let pids: Vec<&str> = pids.lines().collect();
    assert!(pids.len() > 3, "{pids:?}");
    server.freeze().unwrap();
    for pid in &pids {
        assert_eq!(state_of(pid), Some('T'), "{pid}");
    }
    drop(server);
    for pid in &pids {
        assert!(matches!(state_of(pid), None | Some('Z' | 'X')), "{pid}");
    }
}
