//! Budgets on both databases: the cap holds, promises are kept or taken back once.

use dev_servers::Databases;
use side_books::budget::{self, Budget, Held, Hold};

use crate::{AT, opened};

fn promise<'a>(key: &'a str, amount_minor: i64) -> Hold<'a> {
    Hold {
        key,
        campaign: "c1",
        what: "coupon",
        amount_minor,
    }
}

#[tokio::test]
async fn promises_hold_post_and_void_within_the_cap() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        let mut tx = database.begin().await.unwrap();
        budget::fund(&mut tx, "c1", "CNY", 1_000, "fund|c1", AT)
            .await
            .unwrap();
        budget::fund(&mut tx, "c1", "CNY", 1_000, "fund|c1", AT)
            .await
            .unwrap();
        assert_eq!(
            budget::hold(&mut tx, &promise("a", 600), AT).await.unwrap(),
            Held::Held
        );
        assert_eq!(
            budget::hold(&mut tx, &promise("a", 600), AT).await.unwrap(),
            Held::Held
        );
        assert_eq!(
            budget::hold(&mut tx, &promise("b", 401), AT).await.unwrap(),
            Held::RunDry
        );
        assert_eq!(
            budget::hold(&mut tx, &promise("c", 400), AT).await.unwrap(),
            Held::Held
        );
        budget::post(&mut tx, "a", 500, AT).await.unwrap();
        budget::post(&mut tx, "a", 500, AT).await.unwrap();
        budget::void(&mut tx, "c", AT).await.unwrap();
        tx.commit().await.unwrap();
        // Opened again: the tables are there.
        database.close().await;
        let database = opened(&url).await;
        let stands = budget::read(&mut database.read().await.unwrap(), "c1")
            .await
            .unwrap();
        let expected = Budget {
            cap_minor: 1_000,
            available_minor: 500,
            held_minor: 0,
            spent_minor: 500,
        };
        assert_eq!(stands, Some(expected), "{url}");
    }
}

#[tokio::test]
async fn a_cap_is_lowered_by_what_is_free_and_what_was_spent_comes_back_once() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        let mut tx = database.begin().await.unwrap();
        budget::fund(&mut tx, "c1", "CNY", 1_000, "fund|c1", AT)
            .await
            .unwrap();
        budget::hold(&mut tx, &promise("a", 600), AT).await.unwrap();
        budget::post(&mut tx, "a", 600, AT).await.unwrap();
        for _ in 0..2 {
            budget::reduce(&mut tx, "c1", 300, "reduce|c1", AT)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
        let mut tx = database.begin().await.unwrap();
        let refused = budget::reduce(&mut tx, "c1", 101, "reduce|2", AT).await;
        assert_eq!(
            refused.unwrap_err().into_problem().outcome,
            "insufficient_funds"
        );
        tx.rollback().await;
        let mut tx = database.begin().await.unwrap();
        for _ in 0..2 {
            budget::recover(&mut tx, "a", AT).await.unwrap();
        }
        tx.commit().await.unwrap();
        let stands = budget::read(&mut database.read().await.unwrap(), "c1").await;
        let expected = Budget {
            cap_minor: 700,
            available_minor: 700,
            held_minor: 0,
            spent_minor: 0,
        };
        assert_eq!(stands.unwrap(), Some(expected), "{url}");
        crate::assert_balanced(&database, &url).await;
    }
}
