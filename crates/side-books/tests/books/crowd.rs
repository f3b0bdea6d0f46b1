//! Many workers on one budget: never below zero, nothing lost, nothing twice.

use std::sync::Arc;

use dev_servers::Databases;
use side_books::SideError;
use side_books::budget::{self, Held, Hold};
use side_books::sql::Database;

use crate::{AT, assert_balanced, opened};

const WORKERS: usize = 64;
const CAP: i64 = 20_000;

#[derive(Debug, Clone, Copy)]
enum Do {
    Hold(i64),
    Post(i64),
    Void,
}

/// In a transaction of its own, tried again where another one was in the way or took too long to let it in.
async fn once(database: &Database, key: &str, what: Do) -> Result<Held, SideError> {
    loop {
        let done = async {
            let mut tx = database.begin().await?;
            let held = match what {
                Do::Hold(amount_minor) => {
                    let hold = Hold {
                        key,
                        campaign: "c1",
                        what: "test",
                        amount_minor,
                    };
                    budget::hold(&mut tx, &hold, AT).await?
                }
                Do::Post(spent) => {
                    budget::post(&mut tx, key, spent, AT).await?;
                    Held::Held
                }
                Do::Void => {
                    budget::void(&mut tx, key, AT).await?;
                    Held::Held
                }
            };
            tx.commit().await?;
            Ok(held)
        };
        match done.await {
            Err(SideError::Sql(error))
                if !matches!(error, side_books::sql::SqlError::Broken(_)) =>
            {
                tokio::task::yield_now().await;
            }
            done => return done,
        }
    }
}

/// Gives what it has spent.
async fn work(database: Arc<Database>, worker: usize) -> i64 {
    let mut spent = 0;
    for round in 0..6 {
        // Two workers share each key.
        let key = format!("w{}-{round}", worker / 2);
        let amount = 100 + i64::try_from((worker / 2 * 7 + round * 13) % 50).unwrap();
        if once(&database, &key, Do::Hold(amount))
            .await
            .is_ok_and(|held| held == Held::RunDry)
        {
            continue;
        }
        let part = if round % 3 == 0 { amount } else { amount / 2 };
        if round % 3 == 2 {
            // The other one may have held and voided it before we came.
            let _ = once(&database, &key, Do::Void).await;
        } else if once(&database, &key, Do::Post(part)).await.is_ok() && worker.is_multiple_of(2) {
            spent += part;
        }
        let stands = budget::read(&mut read(&database).await, "c1").await;
        if let Ok(stands) = stands {
            let stands = stands.unwrap();
            let parts = [
                stands.available_minor,
                stands.held_minor,
                stands.spent_minor,
            ];
            assert!(parts.iter().all(|part| *part >= 0), "{stands:?}");
            assert_eq!(parts.iter().sum::<i64>(), CAP, "{stands:?}");
        }
    }
    spent
}

async fn read(database: &Database) -> side_books::sql::Reader {
    loop {
        if let Ok(reads) = database.read().await {
            return reads;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_workers_on_one_budget() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = Arc::new(opened(&url).await);
        let mut tx = database.begin().await.unwrap();
        budget::fund(&mut tx, "c1", "CNY", CAP, "fund|c1", AT)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| tokio::spawn(work(Arc::clone(&database), worker)))
            .collect();
        let mut spent = 0;
        for worker in workers {
            spent += worker.await.unwrap();
        }
        let stands = budget::read(&mut read(&database).await, "c1").await;
        let stands = stands.unwrap().unwrap();
        assert!(spent > CAP / 2, "{spent}");
        assert_eq!(stands.spent_minor, spent, "{url}");
        assert_eq!(stands.cap_minor, CAP);
        assert_balanced(&database, &url).await;
    }
}
