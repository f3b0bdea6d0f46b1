//! Which process serves: one at a time, and whoever was overtaken never says yes again.

use crowd::{Keys, Server};

use super::*;

/// What a second process on the same Redis, with a data folder of its own, is told.
fn second(shop: &Shop, words: &[&str]) -> std::process::Output {
    let data = shop.rig.path("second");
    let url = shop.rig.redis().url();
    let mut start = command(&["serve", "--public", FREE, "--admin", FREE]);
    start.args(["--redis", &url, "--data", data.to_str().unwrap()]);
    start.args(words);
    run_bounded(start)
}

/// The name that a node gave itself.
fn node_of(shop: &Shop) -> String {
    let file = shop.rig.options.data.join("node");
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_is_refused_until_the_one_that_serves_is_gone() {
    let mut shop = shop_of(100).await;
    let node = node_of(&shop);
    let way_out = format!("--node {node}");
    for words in [&[][..], &["--node", "other"]] {
        let line = refusal(&second(&shop, words));
        for told in [&*node, &*way_out, "one node at a time"] {
            assert!(line.contains(told), "{told}: {line}");
        }
    }
    // The first has not noticed.
    shop.wins("k").await;
    // One that was killed counts as alive for a while.
    shop.server.kill().unwrap();
    assert!(refusal(&second(&shop, &[])).contains(&way_out));
    let redis = shop.rig.redis();
    let known = redis.command(&["HGET", "{stampede}:nodes", &node]).unwrap();
    let (start, seen_ms) = known.split_once('|').unwrap();
    let long_ago: u64 = seen_ms.parse::<u64>().unwrap() - 16_000;
    let dead = format!("{start}|{long_ago}");
    let set = ["HSET", "{stampede}:nodes", &node, &dead];
    assert_eq!(redis.command(&set).unwrap(), "0");
    take_place(&mut shop, &["--node", "other"]);
    shop.wins("k2").await;
    // One that ended well is forgotten at once.
    assert!(shop.server.stop(BOUND).unwrap().success());
    take_place(&mut shop, &["--node", "third"]);
    shop.wins("k3").await;
    shop.assert_books().await;
}

/// Starts another process, with a data folder of its own and the same keys, in the place of the shop's; gives that.
fn take_place(shop: &mut Shop, words: &[&str]) -> Server {
    let data = shop.rig.path(&words.join(""));
    std::fs::create_dir(&data).unwrap();
    let keys = shop.rig.options.data.join("keys.toml");
    std::fs::copy(keys, data.join("keys.toml")).unwrap();
    shop.rig.options.data = data;
    let url = shop.rig.redis().url();
    shop.rig.options.arguments = ["--redis", &url].map(str::to_owned).into();
    let words = words.iter().copied().map(str::to_owned);
    shop.rig.options.arguments.extend(words);
    let server = Server::start(&shop.rig.options).unwrap();
    assert_eq!(
        Keys::read(server.data()).unwrap().admin_key,
        shop.keys.admin_key
    );
    std::mem::replace(&mut shop.server, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_of_the_same_node_takes_over_under_load() {
    let mut shop = shop_of(1_000_000).await;
    let node = node_of(&shop);
    let buyers = Buyers::start(&shop, 8, "a", 1);
    buyers.work(&shop, 100, 6).await;
    let mut old = take_place(&mut shop, &["--node", &node]);
    // Whoever asks the old one from here on buys nothing there.
    let from = shop.log.len();
    let ended = old.wait_for_end(BOUND).unwrap();
    buyers.stop().await;
    assert_eq!(ended.code(), Some(1), "{}", old.log());
    let log = old.log();
    assert!(log.contains("another process has taken over"), "{log}");
    let late = shop.log.entries_from(from);
    let sold = late.iter().filter(|entry| is_sold(entry)).count();
    assert_eq!(sold, 0, "sold after another had taken over");
    let unknown = crowd::check::look_at_unknowns(&mut shop.api(), &shop.log, 0).await;
    unknown.unwrap();
    shop.wins("new").await;
    shop.assert_books().await;
}

fn is_sold(entry: &crowd::log::Entry) -> bool {
    matches!(
        entry.answer,
        Some(crowd::log::Answer::Yes { status: 201, .. })
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_process_notices_by_itself_that_another_took_over() {
    let mut shop = shop_of(100).await;
    let first = shop.wins("k").await;
    let node = node_of(&shop);
    let mut old = take_place(&mut shop, &["--node", &node]);
    let ended = old.wait_for_end(BOUND).unwrap();
    assert_eq!(ended.code(), Some(1), "{}", old.log());
    assert!(old.log().contains("another process has taken over"));
    let again = shop.client().send(&shop.purchase("u", "k", "a")).await;
    let again = again.unwrap();
    assert_eq!(again.text_field("reservation_id"), Some(first.as_str()));
    shop.wins("k2").await;
    shop.assert_books().await;
}
