//! A backup while it sells, and what is there after it was restored elsewhere.

use std::path::{Path, PathBuf};
use std::process::Output;

use crowd::log::{Answer, Attempt, Entry};
use rusqlite::Connection;

use crate::disk::Mounted;
use crate::rig::*;

fn backup(data: &str, file: &Path, more: &[&str]) -> Output {
    let mut all = vec!["backup", file.to_str().unwrap(), "--data", data];
    all.extend(more);
    stampede(&all)
}

/// Buyer, key and reservation of each purchase that was answered with a yes.
fn won(entries: &[Entry]) -> Vec<(String, String, String)> {
    let yes = entries
        .iter()
        .filter_map(|entry| match (&entry.attempt, &entry.answer) {
            (Attempt::Purchase { buyer, key, .. }, Some(Answer::Yes { reservation, .. })) => {
                Some((buyer.clone(), key.clone(), reservation.clone()))
            }
            _ => None,
        });
    yes.collect()
}

/// Names in a folder.
fn names(folder: &Path) -> Vec<String> {
    content(folder).into_iter().map(|(name, _)| name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_while_it_sells_is_restored_elsewhere_with_all_that_was_told_before() {
    let mut shop = Shop::open(Rig::new(), &[("a", 100_000)]).await;
    let copies = shop.rig.path("copies");
    std::fs::create_dir(&copies).unwrap();
    let file = copies.join("stampede.db");
    let buyers = Buyers::start(&shop, 8, "a", 1);
    let mut told = Vec::new();
    for round in 1..=5 {
        buyers.work(&shop, round * 100, 4).await;
        // As it is now: what is still in flight has not been told.
        told = won(&shop.log.entries());
        let more: &[&str] = if round == 1 { &[] } else { &["--force"] };
        let said = good(&backup(shop.rig.data(), &file, more));
        assert!(
            said.contains("holds 1 sales and ") && said.contains("up to batch "),
            "{said}"
        );
        assert_eq!(names(&copies), ["stampede.db", "stampede.db.campaigns.db"]);
    }
    // Something happens after the last of them, which the copy does not have.
    buyers.work(&shop, shop.count(Told::Yes) + 100, 4).await;
    buyers.stop().await;
    shop.assert_books().await;
    let entries = shop.log.entries();
    let all = won(&entries);
    assert!(shop.server.stop(BOUND).unwrap().success());

    let restored = shop.rig.path("restored");
    std::fs::create_dir(&restored).unwrap();
    std::fs::copy(&file, restored.join("stampede.db")).unwrap();
    let keys = "keys.toml";
    std::fs::copy(Path::new(shop.rig.data()).join(keys), restored.join(keys)).unwrap();
    shop.move_to(&restored);
    good(&stampede(&["audit", "--data", shop.rig.data()]));
    let there = shop.api().reservations(SALE).await.unwrap();
    assert!(
        there.len() < all.len(),
        "nothing came after the backup: it proves nothing"
    );
    assert!(told.len() >= 500, "{}", told.len());
    let mut client = shop.client();
    for (buyer, key, reservation) in &told {
        let again = client.send(&shop.purchase(buyer, key, "a")).await.unwrap();
        assert_eq!(
            (again.status, again.is_replay()),
            (200, true),
            "{reservation}"
        );
        assert_eq!(
            again.text_field("reservation_id"),
            Some(reservation.as_str())
        );
    }
    // None is there half: each is one that a buyer asked for, whole.
    for stored in &there {
        assert_eq!(
            (stored.state.as_str(), stored.lines()),
            ("reserved", vec![("a".into(), 1)])
        );
        let is_known = entries.iter().any(|entry| {
            matches!(&entry.attempt, Attempt::Purchase { buyer, .. } if *buyer == stored.buyer_id)
        });
        assert!(is_known, "{stored:?}");
    }
    // It sells on.
    let bought = shop.buy(&mut client, "new", "new", "a").await.unwrap();
    assert_eq!(bought.status, 201);
    good(&stampede(&["audit", "--data", shop.rig.data()]));
}

#[tokio::test]
async fn a_stopped_store_is_backed_up_and_stays_as_it_is() {
    let mut shop = Shop::open(Rig::new(), &[("a", 10)]).await;
    let bought = shop.buy(&mut shop.client(), "u", "k", "a").await.unwrap();
    assert_eq!(bought.status, 201);
    assert!(shop.server.stop(BOUND).unwrap().success());
    let file = shop.rig.path("copy.db");
    let database = Path::new(shop.rig.data()).join("stampede.db");
    let stood = std::fs::read(&database).unwrap();
    let told = good(&backup(shop.rig.data(), &file, &[]));
    assert!(told.contains("1 sales and 1 reservations"), "{told}");
    assert_eq!(std::fs::read(&database).unwrap(), stood);
    // One file that needs nothing beside it, for its owner alone.
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let copy = Connection::open(&file).unwrap();
    let journal: String = copy
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .unwrap();
    assert_eq!(journal, "delete");
}

#[tokio::test]
async fn what_cannot_be_backed_up_is_told_and_nothing_is_left() {
    let mut shop = Shop::open(Rig::new(), &[("a", 10)]).await;
    let data = PathBuf::from(shop.rig.data());
    let folder = shop.rig.path("copies");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("copy.db");
    let refused = |data: &Path, file: &Path, words: &[&str]| {
        refusal(&backup(data.to_str().unwrap(), file, words))
    };
    assert!(refused(&folder, &file, &[]).contains("there is no store in"));
    assert!(refused(&data, &folder.join("no/copy.db"), &[]).contains("its folder"));
    assert!(refused(&data, &folder, &[]).contains("is a folder"));
    for name in [
        "stampede.db",
        "stampede.db-wal",
        "acked",
        "keys.toml",
        "outbox.db",
        "copy.db",
    ] {
        let line = refused(&data, &data.join(name), &["--force"]);
        assert!(line.contains("in the data folder"), "{line}");
    }
    let line = refused(&data, Path::new("/dev/stdin"), &["--force"]);
    assert!(line.contains("no regular file"), "{line}");
    std::fs::write(&file, "precious").unwrap();
    let line = refused(&data, &file, &[]);
    assert!(line.contains("--force"), "{line}");
    let line = refused(&data, &file, &["--redis", "redis://127.0.0.1"]);
    assert!(line.contains("BGSAVE"), "{line}");
    // A store that lost what it acknowledged, and one whose rows were altered.
    assert!(shop.server.stop(BOUND).unwrap().success());
    let number = std::fs::read(data.join("acked")).unwrap();
    std::fs::write(data.join("acked"), 1_000_000_u64.to_le_bytes()).unwrap();
    assert!(refused(&data, &file, &["--force"]).contains("missing from"));
    std::fs::write(data.join("acked"), number).unwrap();
    let database = Connection::open(data.join("stampede.db")).unwrap();
    database
        .execute("UPDATE item SET available_units = 9, sold_units = 1", [])
        .unwrap();
    database.close().unwrap();
    let output = backup(data.to_str().unwrap(), &file, &["--force"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("nothing was kept"),
        "{}",
        stderr(&output)
    );
    assert_eq!(content(&folder), [("copy.db".into(), b"precious".to_vec())]);
}

#[tokio::test]
async fn a_backup_onto_a_full_disk_keeps_nothing() {
    let shop = Shop::open(Rig::new(), &[("a", 10)]).await;
    let folder = shop.rig.path("copies");
    let Some(_mounted) = Mounted::new(&folder, "size=16k") else {
        return;
    };
    let output = backup(shop.rig.data(), &folder.join("copy.db"), &[]);
    let line = failed(&output);
    assert!(line.contains("is full"), "{line}");
    assert_eq!(content(&folder), []);
}
