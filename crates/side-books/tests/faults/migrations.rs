//! Tables are brought up to date once, whole, in order, and only by a program that knows them all.

use dev_servers::Databases;
use side_books::sql::{Database, Migration, Reads as _, SqlError, query};

use crate::OPTIONS;

const ONE: Migration = Migration {
    name: "x-1",
    sql: "CREATE TABLE one (\n  id SERIAL_KEY\n);\n",
};
const TWO: Migration = Migration {
    name: "x-2",
    sql: "CREATE TABLE two (id BIGINT);\nCREATE INDEX two_by_id ON two (id);\n",
};
const OTHER_ONE: Migration = Migration {
    name: "x-1",
    sql: "CREATE TABLE another (id BIGINT);\n",
};
const BROKEN: Migration = Migration {
    name: "x-2",
    sql: "CREATE TABLE two (id BIGINT);\nCREATE TABLE two (id BIGINT);\n",
};

async fn open(url: &str, migrations: &[Migration]) -> Result<Database, SqlError> {
    Database::open(&url.parse().unwrap(), OPTIONS, migrations).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_brought_up_to_date_whole_once_and_by_those_who_know_them() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        // Several processes at once.
        let opened: Vec<_> = (0..6)
            .map(|_| {
                let url = url.clone();
                tokio::spawn(async move { open(&url, &[ONE]).await })
            })
            .collect();
        for opened in opened {
            opened.await.unwrap().unwrap().close().await;
        }
        let broken = open(&url, &[ONE, BROKEN]).await.unwrap_err();
        assert!(matches!(broken, SqlError::Broken(_)), "{broken}");
        // Nothing of it is there, so the right one goes through.
        let database = open(&url, &[ONE, TWO]).await.unwrap();
        let mut reads = database.read().await.unwrap();
        let applied = reads.rows(query("SELECT name FROM migration")).await;
        assert_eq!(applied.unwrap().len(), 2);
        drop(reads);
        database.close().await;
        let newer = open(&url, &[ONE]).await.unwrap_err().to_string();
        assert!(newer.contains("newer program (x-2)"), "{newer}");
        let changed = open(&url, &[OTHER_ONE, TWO]).await.unwrap_err().to_string();
        assert!(changed.contains("another x-1"), "{changed}");
        open(&url, &[ONE, TWO]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_only_reads_takes_the_tables_as_they_are_or_not_at_all() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let parsed = url.parse().unwrap();
        let to_read = async |migrations: &[Migration]| {
            Database::open_to_read(&parsed, OPTIONS, migrations).await
        };
        let why = to_read(&[ONE]).await.unwrap_err();
        if let Some(file) = url.strip_prefix("sqlite:") {
            assert!(matches!(why, SqlError::Unavailable(_)), "{why}");
            assert!(!std::path::Path::new(file).exists(), "it was made");
            std::fs::write(file, "").unwrap();
        }
        let why = to_read(&[ONE]).await.unwrap_err().to_string();
        assert!(why.contains("no tables of campaigns"), "{why}");

        let writer = open(&url, &[ONE]).await.unwrap();
        for (migrations, word) in [
            (&[ONE, TWO][..], "older program (x-2"),
            (&[], "newer program (x-1"),
            (&[OTHER_ONE], "another x-1"),
        ] {
            let why = to_read(migrations).await.unwrap_err().to_string();
            assert!(why.contains(word), "{why}");
        }
        // Beside the one that writes, and never in its place.
        let reader = to_read(&[ONE]).await.unwrap();
        let insert = "INSERT INTO one (id) VALUES (7)";
        let mut tx = writer.begin().await.unwrap();
        tx.execute(query(insert)).await.unwrap();
        let seen = async || {
            let mut reads = reader.snapshot().await.unwrap();
            reads.rows(query("SELECT id FROM one")).await.unwrap().len()
        };
        assert_eq!(seen().await, 0);
        tx.commit().await.unwrap();
        assert_eq!(seen().await, 1);
        if let Ok(mut tx) = reader.begin().await {
            assert!(tx.execute(query(insert)).await.is_err(), "{url}: it wrote");
        }
    }
}
