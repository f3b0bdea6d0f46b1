//! Commands under a key: once, whoever is first.

use std::sync::Arc;

use dev_servers::Databases;
use flash_types::side::SideAnswer;
use serde_json::json;
use side_books::SideError;
use side_books::command::{Take, take};
use side_books::sql::{Database, SqlError};

use crate::{AT, opened};

async fn call(database: &Database, body: &[u8], n: usize) -> Result<(SideAnswer, bool), SideError> {
    let mut tx = database.begin().await?;
    match take(&mut tx, "POST /v1/x|b1", "key-1", body, AT).await? {
        Take::Replay(answer) => {
            tx.rollback().await;
            Ok((answer, false))
        }
        Take::Fresh(taken) => {
            let answer = SideAnswer::json(201, &json!({"n": n}));
            taken.answered(&mut tx, &answer).await?;
            tx.commit().await?;
            Ok((answer, true))
        }
    }
}

async fn until_answered(database: Arc<Database>, n: usize) -> (SideAnswer, bool) {
    loop {
        match call(&database, b"{}", n).await {
            Ok(answered) => return answered,
            Err(SideError::Sql(SqlError::Broken(why) | SqlError::Violated(why))) => panic!("{why}"),
            Err(SideError::Sql(_)) => tokio::task::yield_now().await,
            Err(refused) => panic!("{refused}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_calls_with_one_key_are_done_once_and_all_answered_the_same() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = Arc::new(opened(&url).await);
        let calls: Vec<_> = (0..50)
            .map(|n| tokio::spawn(until_answered(Arc::clone(&database), n)))
            .collect();
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.unwrap());
        }
        let fresh: Vec<_> = answers.iter().filter(|(_, is_fresh)| *is_fresh).collect();
        assert_eq!(fresh.len(), 1, "{url}");
        assert_eq!(fresh[0].0.status, 201);
        for (answer, is_fresh) in &answers {
            assert_eq!(answer.body, fresh[0].0.body);
            assert_eq!(answer.is_replay, !is_fresh);
            assert_eq!(answer.status, if *is_fresh { 201 } else { 200 });
        }
        let other = call(&database, b"{\"a\":1}", 99).await.unwrap_err();
        let problem = other.into_problem();
        assert_eq!(
            (problem.status, problem.outcome),
            (422, "idempotency_key_reused")
        );
        // What was refused is not remembered.
        let mut tx = database.begin().await.unwrap();
        let taken = take(&mut tx, "POST /v1/x|b1", "key-2", b"{}", AT).await;
        assert!(matches!(taken, Ok(Take::Fresh(_))));
        tx.rollback().await;
        let mut tx = database.begin().await.unwrap();
        let taken = take(&mut tx, "POST /v1/x|b1", "key-2", b"[]", AT).await;
        assert!(matches!(taken, Ok(Take::Fresh(_))), "{url}");
        tx.rollback().await;
    }
}
