//! A file that another connection has locked, and one that has no room left.

use std::process::Command;

use side_books::SideError;
use side_books::sql::{SqlError, query};
use sqlx::{Connection as _, Executor as _};
use tokio::time::timeout;

use crate::{AT, BOUND, cap, fail, fund, opened};

#[tokio::test]
async fn a_locked_file_refuses_in_time_and_is_read_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("d.db");
    let database = opened(&format!("sqlite:{}", file.display())).await;
    fund(&database, "k1").await.unwrap();
    let mut other = sqlx::AnyConnection::connect(&format!("sqlite://{}", file.display()))
        .await
        .unwrap();
    other.execute("BEGIN EXCLUSIVE").await.unwrap();
    for _ in 0..3 {
        let refused = timeout(BOUND, fund(&database, "k2")).await.unwrap();
        assert!(
            refused.as_ref().is_err_and(SideError::is_conflict),
            "{refused:?}"
        );
        assert_eq!(cap(&database).await.unwrap(), 100);
    }
    let problem = fund(&database, "k2").await.unwrap_err().into_problem();
    assert_eq!(
        (problem.status, problem.outcome),
        (503, "store_unavailable")
    );
    other.execute("ROLLBACK").await.unwrap();
    fund(&database, "k2").await.unwrap();
    assert_eq!(cap(&database).await.unwrap(), 200);
}

#[tokio::test]
async fn a_file_at_its_longest_is_full_and_goes_on_when_it_may_grow() {
    let folder = tempfile::tempdir().unwrap();
    let database = opened(&format!("sqlite:{}", folder.path().join("d.db").display())).await;
    fund(&database, "k1").await.unwrap();
    // There is one connection that writes, and it keeps this.
    let mut tx = database.begin().await.unwrap();
    tx.execute(query("PRAGMA max_page_count = 1"))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let refused = fill(&database).await;
    assert!(
        matches!(refused, SideError::Sql(SqlError::Full)),
        "{refused:?}"
    );
    assert_eq!(refused.into_problem().outcome, "storage_full");
    assert_eq!(cap(&database).await.unwrap(), 100);
    let mut tx = database.begin().await.unwrap();
    tx.execute(query("PRAGMA max_page_count = 1000000"))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    fund(&database, "k2").await.unwrap();
    assert_eq!(cap(&database).await.unwrap(), 200);
}

/// Funds by keys of many bytes until it is refused.
async fn fill(database: &side_books::sql::Database) -> SideError {
    let long = "x".repeat(50_000);
    for number in 0..1_000 {
        if let Err(refused) = fund_nothing_else(database, &format!("{number}{long}")).await {
            return refused;
        }
    }
    panic!("it takes everything");
}

async fn fund_nothing_else(
    database: &side_books::sql::Database,
    detail: &str,
) -> Result<(), SideError> {
    let mut tx = database.begin().await?;
    let note = side_books::note::Note {
        who: "test",
        what: "fill",
        detail,
        ..Default::default()
    };
    side_books::note::write(&mut tx, &note, AT).await?;
    Ok(tx.commit().await?)
}

/// A file system in memory, of 2 MiB; unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    /// `None` where this process may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]);
        let mounted = mount.arg(folder.path()).output().ok()?;
        mounted.status.success().then(|| Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_changes_nothing_and_goes_on_when_there_is_room() {
    // Without the right to mount, the longest file of the test above stands for it.
    let Some(small) = Small::mount() else { return };
    let database = opened(&format!("sqlite:{}", small.0.path().join("d.db").display())).await;
    fund(&database, "k1").await.unwrap();
    let stone = small.0.path().join("stone");
    std::fs::write(&stone, vec![0; 1 << 20]).unwrap();
    for _ in 0..3 {
        let refused = timeout(BOUND, fill(&database)).await.unwrap();
        let is_told = matches!(
            refused,
            SideError::Sql(SqlError::Full | SqlError::Unavailable(_) | SqlError::Unknown)
        );
        assert!(is_told, "{refused:?}");
        assert_eq!(cap(&database).await.unwrap(), 100);
    }
    std::fs::remove_file(&stone).unwrap();
    fund(&database, "k2").await.unwrap();
    assert_eq!(cap(&database).await.unwrap(), 200);
    let report = side_books::audit::prove_all(&database, &[]).await.unwrap();
    assert!(report.ok, "{report:?}");
    database.close().await;
}

#[tokio::test]
async fn what_failed_is_not_committed() {
    let servers = dev_servers::Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let database = opened(&url).await;
        fund(&database, "k1").await.unwrap();
        let mut tx = database.begin().await.unwrap();
        side_books::budget::fund(&mut tx, "c1", "CNY", 100, "k2", AT)
            .await
            .unwrap();
        assert!(matches!(fail(&mut tx).await, SqlError::Violated(_)));
        assert!(
            matches!(tx.commit().await, Err(SqlError::Broken(_))),
            "{url}"
        );
        assert_eq!(cap(&database).await.unwrap(), 100, "{url}");
        // Dropped in the middle: rolled back as well, and the next one does not wait for it in vain.
        let mut tx = database.begin().await.unwrap();
        side_books::budget::fund(&mut tx, "c1", "CNY", 100, "k3", AT)
            .await
            .unwrap();
        drop(tx);
        fund(&database, "k4").await.unwrap();
        assert_eq!(cap(&database).await.unwrap(), 200, "{url}");
    }
}
