//! A Redis that is there and takes nothing: buyers are told that nothing was reserved, and it ends by itself.

use std::thread::JoinHandle;

use crowd::wait::poll_until;
use dev_servers::RedisServer;

use super::*;

/// Does this, and holds that it was done.
fn tell(redis: &RedisServer, words: &[&str]) {
    assert_eq!(redis.command(words).unwrap(), "OK", "{words:?}");
}

/// Holds that purchases are refused so, with nothing reserved, between `begin` and `end`; and that all is well after.
async fn refuses<F>(
    rig: Rig,
    (outcome, reason): (&str, &str),
    begin: impl FnOnce(&RedisServer) -> F,
    end: impl FnOnce(&RedisServer, F),
) {
    let shop = Shop::open(quick(rig), &[("a", 5)]).await;
    shop.wins("before").await;
    let reserved = shop.meta("n_resv");
    let fault = begin(shop.rig.redis());
    let mut client = shop.client();
    for number in 0..3 {
        let key = format!("k{number}");
        let answer = shop.buy(&mut client, "u", &key, "a").await.unwrap();
        assert_eq!(answer.status, 503, "{}", answer.outcome());
        assert_eq!(answer.outcome(), outcome);
        assert!(answer.header("Retry-After").is_some() && answer.retry_after().is_some());
        let detail = answer.text_field("detail").unwrap();
        assert!(detail.contains("nothing was reserved"), "{detail}");
        // Units went back before that was said.
        assert_eq!(shop.shown_units().await, 4);
    }
    shop.until_not_ready(reason).await;
    shop.until_measured("stampede_store_up", 0.0).await;
    // What was won is told all the same.
    let again = client.send(&shop.purchase("u", "before", "a")).await;
    assert_eq!(again.unwrap().outcome(), "replayed");
    end(shop.rig.redis(), fault);
    assert_eq!(
        shop.meta("n_resv"),
        reserved,
        "something was done meanwhile"
    );
    shop.until_ready().await;
    for number in 0..4 {
        shop.wins(&format!("k{number}")).await;
    }
    let none = shop.buy(&mut client, "v", "k", "a").await.unwrap();
    assert_eq!(none.outcome(), "sold_out");
    shop.assert_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_replica() {
    refuses(
        Rig::on_redis(),
        ("store_unavailable", "read only replica"),
        |redis| tell(redis, &["REPLICAOF", "127.0.0.1", "1"]),
        |redis, ()| tell(redis, &["REPLICAOF", "NO", "ONE"]),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory() {
    refuses(
        Rig::on_redis(),
        ("storage_full", "OOM"),
        |redis| tell(redis, &["CONFIG", "SET", "maxmemory", "1"]),
        |redis, ()| tell(redis, &["CONFIG", "SET", "maxmemory", "0"]),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_replicas() {
    refuses(
        Rig::on_redis(),
        ("store_unavailable", "NOREPLICAS"),
        |redis| tell(redis, &["CONFIG", "SET", "min-replicas-to-write", "1"]),
        |redis, ()| tell(redis, &["CONFIG", "SET", "min-replicas-to-write", "0"]),
    )
    .await;
}

/// Saves a snapshot and waits until it went well, or badly.
fn save(redis: &RedisServer, status: &str) {
    redis.command(&["BGSAVE"]).unwrap();
    let wanted = format!("rdb_last_bgsave_status:{status}");
    let is_so = poll_until(BOUND, LOOK, || {
        let info = redis.command(&["INFO", "persistence"]).unwrap();
        info.contains(&wanted).then_some(())
    });
    assert!(is_so.is_some(), "the fault did not fire: {}", redis.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_cannot_save_its_snapshot() {
    refuses(
        Rig::on_redis(),
        ("store_unavailable", "MISCONF"),
        |redis| {
            // Where its file should go is a folder with something in it.
            let taken = redis.dir().join("dump.rdb");
            std::fs::create_dir_all(taken.join("something")).unwrap();
            tell(redis, &["CONFIG", "SET", "save", "3600 1"]);
            save(redis, "err");
            taken
        },
        |redis, taken| {
            std::fs::remove_dir_all(taken).unwrap();
            save(redis, "ok");
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_with_somebody_elses_script() {
    let options = RedisOptions::default().extra("busy-reply-threshold", "20");
    refuses(
        Rig::on(options),
        ("store_unavailable", "BUSY"),
        |redis| {
            let script = endless_script(redis);
            let is_busy = poll_until(BOUND, LOOK, || {
                let error = redis.command(&["PING"]).err()?;
                error.to_string().starts_with("BUSY").then_some(())
            });
            assert!(is_busy.is_some(), "the fault did not fire");
            script
        },
        |redis, script| {
            tell(redis, &["SCRIPT", "KILL"]);
            script.join().unwrap();
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_could_lose_answers_stops_sales_while_it_lasts() {
    let shop = shop_of(100).await;
    let redis = shop.rig.redis();
    let set = |policy| tell(redis, &["CONFIG", "SET", "maxmemory-policy", policy]);
    set("allkeys-lru");
    redis
        .command(&["CLIENT", "KILL", "TYPE", "normal"])
        .unwrap();
    for number in 0..2 {
        let key = format!("k{number}");
        let answer = shop.buy(&mut shop.client(), "u", &key, "a").await.unwrap();
        assert!(answer.status >= 500, "{}", answer.outcome());
    }
    shop.until_not_ready("maxmemory-policy is allkeys-lru")
        .await;
    set("noeviction");
    shop.until_ready().await;
    shop.wins("after").await;
    shop.assert_books().await;
}

/// Runs a script that does not end, from a thread of its own.
fn endless_script(redis: &RedisServer) -> JoinHandle<()> {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(redis.socket_path()).unwrap();
    std::thread::spawn(move || {
        stream.write_all(b"EVAL 'while true do end' 0\r\n").unwrap();
        let mut reply = [0; 256];
        let bytes = stream.read(&mut reply).unwrap();
        let reply = String::from_utf8_lossy(&reply[..bytes]);
        assert!(reply.starts_with('-'), "it was killed: {reply}");
    })
}
