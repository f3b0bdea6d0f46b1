//! A disk that is full: sales stop, reads and refusals go on, and it ends by itself when there is room.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crowd::client::Request;
use crowd::wait::poll_until_async;

use crate::rig::*;

/// A small file system in memory; gone when dropped.
pub struct Mounted(PathBuf);

impl Mounted {
    /// `None`, said aloud, where the system does not let us.
    pub fn new(at: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "stampede-test"])
            .arg(at)
            .output()
            .unwrap();
        if !output.status.success() {
            eprintln!(
                "SKIPPED: mounting is not permitted here: {}",
                stderr(&output).trim()
            );
            return None;
        }
        Some(Self(at.to_owned()))
    }

    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount")
            .args(["-o", &options])
            .arg(&self.0)
            .status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a server that is about to end may still hold files.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for bytes in [64 << 10, 4 << 10, 1] {
        while file.write_all(&vec![1; bytes]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_sales_alone_and_sales_go_on_when_there_is_room() {
    let mut rig = Rig::new();
    let Some(_mounted) = Mounted::new(&rig.path("disk"), "size=4m") else {
        return;
    };
    rig.options.data = rig.path("disk").join("data");
    let filler = rig.path("disk").join("filler");
    let mut shop = Shop::open(rig, &[("a", 10_000), ("none", 0)]).await;
    let mut client = shop.client();
    let first = shop.buy(&mut client, "u", "first", "a").await.unwrap();
    assert_eq!(first.status, 201);
    let id = first.text_field("reservation_id").unwrap().to_owned();
    let buyers = Buyers::start(&shop, 8, "a", 1);
    buyers.work(&shop, 50, 0).await;

    fill(&filler);
    let is_told = poll_until_async(BOUND, LOOK, async || {
        (shop.count(Told::No("storage_full")) >= 20).then_some(())
    });
    assert!(
        is_told.await.is_some(),
        "the fault did not fire\n{}",
        shop.server.log()
    );
    buyers.stop().await;
    let refused = shop.buy(&mut client, "u", "second", "a").await.unwrap();
    assert_eq!(
        (refused.status, refused.outcome().as_str()),
        (503, "storage_full")
    );
    assert!(refused.retry_after().is_some());
    // Everything that needs no room.
    let replayed = shop.buy(&mut client, "u", "first", "a").await.unwrap();
    assert!(replayed.status == 200 && replayed.is_replay());
    let sold_out = shop.buy(&mut client, "u", "third", "none").await.unwrap();
    assert_eq!(
        (sold_out.status, sold_out.outcome().as_str()),
        (409, "sold_out")
    );
    let read = Request::get(&format!("/v1/reservations/{id}")).bearer(&shop.keys.storefront_key);
    assert_eq!(client.send(&read.bare()).await.unwrap().status, 200);
    let read = Request::get(&format!("/v1/sales/{SALE}")).bare();
    assert_eq!(client.send(&read).await.unwrap().status, 200);
    let mut admin = crowd::Client::new(shop.server.admin, crowd::Timeouts::default());
    let ready = Request::get("/readyz").bare();
    assert_eq!(admin.send(&ready).await.unwrap().status, 503);
    assert!(shop.server.is_running());

    std::fs::remove_file(&filler).unwrap();
    let is_back = poll_until_async(BOUND, LOOK, async || {
        let answer = shop.buy(&mut client, "u", "second", "a").await.unwrap();
        (answer.status == 201).then_some(())
    });
    assert!(is_back.await.is_some(), "{}", shop.server.log());
    assert_eq!(admin.send(&ready).await.unwrap().status, 200);
    shop.assert_books().await;

    // A disk that fills while the process is down: no start, and it says why.
    assert!(shop.server.stop(BOUND).unwrap().success());
    let database = || std::fs::read(shop.rig.options.data.join("stampede.db")).unwrap();
    let before = database();
    fill(&filler);
    let line = refusal(&serve(&shop.rig.options.data));
    assert!(line.contains("full; make room"), "{line}");
    assert!(database() == before, "the database was changed");
    std::fs::remove_file(&filler).unwrap();
    shop.restart();
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_in_the_midst_of_a_batch_undoes_the_batch() {
    let rig = Rig::new();
    let wal = rig.path("data").join("stampede.db-wal");
    let mut words = rig.strace("pwrite64", &["pwrite64:error=ENOSPC:when=60..75"]);
    words.extend(["-P".to_owned(), wal.to_str().unwrap().to_owned()]);
    let mut shop = Shop::open(rig.wrapped(words), &[("a", 10_000)]).await;
    let mut client = shop.client();
    let is_over = poll_until_async(BOUND, LOOK, async || {
        let number = shop.log.len();
        let answer = shop
            .buy(&mut client, "u", &format!("k{number}"), "a")
            .await
            .unwrap();
        (answer.status == 201 && shop.count(Told::No("storage_full")) > 0).then_some(())
    });
    assert!(
        is_over.await.is_some(),
        "the fault did not fire\n{}",
        shop.server.log()
    );
    shop.assert_books().await;
    shop.server.kill().unwrap();
    assert!(shop.rig.trace().contains("(INJECTED)"));
    shop.restart();
    shop.assert_books().await;
}
