//! Killed, damaged, asked again: nothing acknowledged is lost, nothing is done twice, damage is refused and named.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crowd::check::look_at_unknowns;
use crowd::random::Random;

use crate::rig::*;

on_both_stores!(
    kill_9_under_load_loses_no_yes,
    the_same_key_is_one_reservation_and_one_body,
    a_client_that_left_gets_its_reservation_by_the_same_key,
);

async fn kill_9_under_load_loses_no_yes(rig: Rig) {
    let mut shop = Shop::open(rig, &[("a", 1_000_000), ("few", 40)]).await;
    let mut unknown = 0;
    for round in 0..4 {
        let from = shop.log.len();
        let yes = shop.count(Told::Yes);
        let buyers = Buyers::start(&shop, 32, "a", round);
        let others = Buyers::start(&shop, 4, "few", 1_000 + round);
        buyers.work(&shop, yes + 150, 16).await;
        shop.server.kill().unwrap();
        buyers.stop().await;
        others.stop().await;
        shop.restart();
        let (done, not_done) = look_at_unknowns(&mut shop.api(), &shop.log, from)
            .await
            .unwrap();
        unknown += done.len() + not_done.len();
        shop.assert_books().await;
    }
    assert!(unknown > 0, "nothing was in flight at any kill");
}

async fn the_same_key_is_one_reservation_and_one_body(rig: Rig) {
    let mut shop = Shop::open(rig, &[("a", 1_000)]).await;
    let request = shop.purchase("u", "once", "a");
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let (mut client, request) = (shop.client(), request.clone());
            tokio::spawn(async move { client.send(&request).await.unwrap() })
        })
        .collect();
    let mut bodies = Vec::new();
    let mut statuses = Vec::new();
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.is_replay(), answer.status == 200);
        statuses.push(answer.status);
        bodies.push(answer.body);
    }
    statuses.sort_unstable();
    assert_eq!(statuses[99], 201, "{statuses:?}");
    assert_eq!(statuses[..99], [200; 99]);
    let mut client = shop.client();
    for _ in 0..20 {
        let answer = client.send(&request).await.unwrap();
        assert_eq!(answer.status, 200);
        bodies.push(answer.body);
    }
    for is_kill in [true, false] {
        if is_kill {
            shop.server.kill().unwrap();
        } else {
            assert!(shop.server.stop(BOUND).unwrap().success());
        }
        shop.restart();
        let answer = shop.client().send(&request).await.unwrap();
        assert_eq!((answer.status, answer.is_replay()), (200, true));
        bodies.push(answer.body);
    }
    bodies.dedup();
    assert_eq!(
        bodies.len(),
        1,
        "{:#?}",
        bodies
            .iter()
            .map(|b| String::from_utf8_lossy(b))
            .collect::<Vec<_>>()
    );
    assert_eq!(shop.api().reservations(SALE).await.unwrap().len(), 1);
    // Another body under the key, after all of that.
    let (mut client, token) = (
        shop.client(),
        shop.keys.minter().mint("u", crowd::token::now_s() + 99),
    );
    let other = crowd::api::purchase(SALE, &token, "once", &[("a".into(), 2)]);
    assert_eq!(client.send(&other).await.unwrap().status, 422);
}

async fn a_client_that_left_gets_its_reservation_by_the_same_key(rig: Rig) {
    let shop = Shop::open(rig, &[("a", 1_000)]).await;
    let mut random = Random::new(21);
    let (mut won_unheard, mut lost) = (0, 0);
    let mut client = shop.client();
    for number in 0..200 {
        let key = format!("k{number}");
        let request = shop.purchase("u", &key, "a");
        let mut stream = TcpStream::connect(shop.server.public).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let wait = random.between(Duration::ZERO, Duration::from_micros(2_500));
        let sent = Instant::now();
        while sent.elapsed() < wait {
            std::hint::spin_loop();
        }
        if number % 2 == 0 {
            // A reset instead of an orderly end.
            let linger = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            linger.unwrap();
        }
        drop(stream);
        let answer = shop.buy(&mut client, "u", &key, "a").await.unwrap();
        match answer.status {
            200 => won_unheard += 1,
            201 => lost += 1,
            status => panic!("{status}: {}", String::from_utf8_lossy(&answer.body)),
        }
    }
    assert!(
        won_unheard > 0,
        "no decision was made before its client left: {lost}"
    );
    assert_eq!(shop.api().reservations(SALE).await.unwrap().len(), 200);
    shop.assert_books().await;
}

/// A shop that sold 30 units one by one and was killed: all of it is in the write-ahead log.
async fn killed_shop() -> Shop {
    let mut shop = Shop::open(Rig::new(), &[("a", 1_000)]).await;
    let mut client = shop.client();
    for number in 0..30 {
        let bought = shop.buy(&mut client, "u", &format!("k{number}"), "a").await;
        assert_eq!(bought.unwrap().status, 201);
    }
    shop.server.kill().unwrap();
    shop
}

fn flip(file: &Path, bit: u64) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_log_is_refused_and_what_is_missing_is_named() {
    let mut shop = killed_shop().await;
    let crashed = shop.rig.options.data.clone();
    let wal_bits = std::fs::metadata(crashed.join("stampede.db-wal"))
        .unwrap()
        .len()
        * 8;
    let mut random = Random::new(4);
    for number in 0..24 {
        let bit = match number {
            0 => 0,
            1 => wal_bits - 1,
            _ => random.below(wal_bits),
        };
        let copy = shop.rig.path(&format!("copy{number}"));
        copy_folder(&crashed, &copy);
        flip(&copy.join("stampede.db-wal"), bit);
        let line = refusal(&serve(&copy));
        // A header that cannot be read takes all batches with it.
        let is_named = line.contains("acknowledged and missing") || line.contains("damaged");
        assert!(is_named, "bit {bit}: {line}");
        assert!(line.contains("batch"), "bit {bit}: {line}");
    }
    // Without its log at all, without `acked`, without the database.
    let copy = shop.rig.path("no-log");
    copy_folder(&crashed, &copy);
    std::fs::remove_file(copy.join("stampede.db-wal")).unwrap();
    refusal(&serve(&copy));
    let copy = shop.rig.path("no-database");
    copy_folder(&crashed, &copy);
    std::fs::remove_file(copy.join("stampede.db")).unwrap();
    assert!(refusal(&serve(&copy)).contains("acknowledged and missing"));
    // The copy that nobody touched starts.
    shop.restart();
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_the_database_is_refused_or_changes_nothing() {
    let mut shop = killed_shop().await;
    shop.restart();
    assert!(shop.server.stop(BOUND).unwrap().success());
    let stopped = shop.rig.options.data.clone();
    let bits = std::fs::metadata(stopped.join("stampede.db"))
        .unwrap()
        .len()
        * 8;
    let mut random = Random::new(5);
    let mut refused = 0;
    for number in 0..24 {
        let copy = shop.rig.path(&format!("copy{number}"));
        copy_folder(&stopped, &copy);
        flip(&copy.join("stampede.db"), random.below(bits));
        let mut options = shop.rig.options.clone();
        options.data.clone_from(&copy);
        match crowd::Server::start(&options) {
            // It hit what no row uses.
            Ok(server) => {
                shop.server = server;
                shop.rig.options.data = copy;
                shop.assert_books().await;
                shop.server.kill().unwrap();
            }
            Err(_) => {
                let line = refusal(&serve(&copy));
                assert!(line.contains("stampede.db"), "{line}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "the fault did not fire");
    // Where rows are, none may get through.
    let text = std::fs::read(stopped.join("stampede.db")).unwrap();
    let key = text.windows(3).position(|window| window == b"k17").unwrap();
    let copy = shop.rig.path("key");
    copy_folder(&stopped, &copy);
    flip(&copy.join("stampede.db"), key as u64 * 8 + 16);
    let line = refusal(&serve(&copy));
    assert!(line.contains("damaged") && line.contains("batch"), "{line}");
}
