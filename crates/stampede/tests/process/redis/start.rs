//! Starting on a Redis: waited for where it is away, refused with the way out where it is not what it has to be.

use std::net::{SocketAddr, TcpListener};

use crowd::api::{Addresses, Api};
use crowd::client::{Client, Request, Timeouts};
use crowd::wait::poll_until_async;
use crowd::{Keys, api};
use dev_servers::{AppendFsync, RedisServer};
use nix::sys::signal::Signal;

use super::*;

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind(FREE).unwrap();
    listener.local_addr().unwrap()
}

/// A started process that does not find its Redis: what `/readyz` says, once it says anything.
async fn waits(server: &ByHand, admin: SocketAddr, reason: &str) {
    let is_told = poll_until_async(BOUND, LOOK, async || {
        let readiness = readiness(admin).await?;
        assert_eq!(readiness.status, 503);
        readiness.reasons.contains(reason).then_some(())
    });
    assert!(is_told.await.is_some(), "{}", server.complained());
    assert_eq!(server.said(), "", "not ready, and says so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_not_there_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("redis");
    let url = format!("redis+unix://{}/redis.sock", place.display());
    let rig = Rig::new().argument("--redis", &url);
    let admin = free_address();
    let server = ByHand::start(rig.serve(FREE, &admin.to_string()), rig.dir.path());
    waits(&server, admin, "redis.sock").await;
    let mut client = Client::new(admin, Timeouts::default());
    for (path, status, word) in [
        ("/healthz", 200, "ok"),
        ("/metrics", 200, "stampede_store_up 0"),
        ("/v1/admin/sales", 503, "store_unavailable"),
    ] {
        let answer = client.send_again(&Request::get(path).bare()).await.unwrap();
        assert_eq!(answer.status, status, "{path}");
        assert!(
            String::from_utf8_lossy(&answer.body).contains(word),
            "{path}"
        );
    }
    assert!(server.complained().contains("waiting for Redis"));

    let redis = RedisServer::start(RedisOptions::default().dir(&place)).unwrap();
    assert_eq!(redis.url(), url);
    let line = server.line();
    assert!(line.contains(&format!("admin={admin} ")), "{line}");
    assert!(line.ends_with("store=redis_aof_always\n"), "{line}");
    assert!(readiness(admin).await.unwrap().is_ready());
    let public = line.split(['=', ' ']).nth(3).unwrap().parse().unwrap();
    let keys = Keys::read(&rig.options.data).unwrap();
    let mut api = Api::new(Addresses { public, admin }, keys.clone());
    api.publish(&sale(&[("a", 1)])).await.unwrap();
    let token = keys.minter().mint("u", crowd::token::now_s() + 60);
    let request = api::purchase(SALE, &token, "k", &[("a".into(), 1)]);
    let won = Client::new(public, Timeouts::default())
        .send(&request)
        .await;
    assert_eq!(won.unwrap().status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_while_it_waits_it_ends_well() {
    let rig = Rig::new().argument("--redis", "redis+unix:///nowhere/redis.sock");
    let admin = free_address();
    let mut server = ByHand::start(rig.serve(FREE, &admin.to_string()), rig.dir.path());
    waits(&server, admin, "/nowhere/redis.sock").await;
    let ended = server.end(Signal::SIGTERM);
    assert_eq!(ended.code(), Some(0), "{}", server.complained());
    assert_eq!(server.said(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_answer_is_worth_is_told_as_it_is() {
    let fsync = |how| RedisOptions::default().appendfsync(how);
    for (options, word) in [
        (fsync(AppendFsync::Always), "redis_aof_always"),
        (fsync(AppendFsync::Everysec), "redis_aof_everysec"),
        (fsync(AppendFsync::No), "redis_memory"),
        (RedisOptions::default().appendonly(false), "redis_memory"),
    ] {
        let shop = Shop::open(Rig::on(options), &[("a", 10)]).await;
        assert_eq!(shop.server.store, word);
        assert_eq!(shop.readiness().await.durability, word);
        for _ in 0..2 {
            let answer = shop.client().send(&shop.purchase("u", "k", "a")).await;
            assert_eq!(answer.unwrap().text_field("durability"), Some(word));
        }
        let is_warned = shop.server.log().contains("nothing beyond its memory");
        assert_eq!(is_warned, word == "redis_memory", "{}", shop.server.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hides_its_settings_is_trusted_with_the_least() {
    let redis = RedisServer::start(RedisOptions::default()).unwrap();
    let user = [
        "ACL", "SETUSER", "app", "on", ">word", "~*", "+@all", "-config",
    ];
    assert_eq!(redis.command(&user).unwrap(), "OK");
    let url = format!("{}?user=app&pass=word", redis.url());
    let rig = Rig::at(redis, &url);
    let mut strict = rig.serve(FREE, FREE);
    strict.env("STAMPEDE_STORE_REDIS_DURABILITY_MIN", "redis_aof_everysec");
    assert!(refusal(&run_bounded(strict)).contains("redis_memory"));
    let shop = Shop::open(rig, &[("a", 10)]).await;
    assert_eq!(shop.server.store, "redis_memory");
    shop.wins("k").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_that_changes_is_told_after_the_next_connection() {
    let shop = shop_of(1_000).await;
    let redis = shop.rig.redis();
    for (setting, word) in [
        ("everysec", "redis_aof_everysec"),
        ("always", "redis_aof_always"),
    ] {
        let set = ["CONFIG", "SET", "appendfsync", setting];
        assert_eq!(redis.command(&set).unwrap(), "OK");
        redis
            .command(&["CLIENT", "KILL", "TYPE", "normal"])
            .unwrap();
        let won = shop.wins(word).await;
        let read =
            Request::get(&format!("/v1/reservations/{won}")).bearer(&shop.keys.storefront_key);
        let read = shop.client().send(&read.bare()).await.unwrap();
        assert_eq!(read.text_field("durability"), Some(word));
        assert_eq!(shop.readiness().await.durability, word);
    }
    shop.assert_books().await;
}

/// Holds that a start on this Redis is refused with these words, and that nothing was written to it.
fn is_refused(rig: &Rig, told: &[&str]) {
    let line = refusal(&run_bounded(rig.serve(FREE, FREE)));
    for told in told {
        assert!(line.contains(told), "{told}: {line}");
    }
    assert_eq!(rig.redis().command(&["DBSIZE"]).unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_promises_too_little_is_refused() {
    for (least, options, told) in [
        (
            "redis_aof_always",
            RedisOptions::default().appendfsync(AppendFsync::Everysec),
            ["redis_aof_everysec", "appendfsync always"],
        ),
        (
            "redis_aof_everysec",
            RedisOptions::default().appendonly(false),
            ["redis_memory", "appendonly yes"],
        ),
        (
            "redis_memory",
            RedisOptions::default().extra("maxmemory-policy", "allkeys-lru"),
            ["allkeys-lru", "noeviction"],
        ),
    ] {
        let rig = Rig::on(options).environment("STAMPEDE_STORE_REDIS_DURABILITY_MIN", least);
        is_refused(&rig, &told);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_opens_the_door_and_is_told_nowhere() {
    let secret = "s3cret-pass/word@of:redis";
    let guarded = || RedisServer::start(RedisOptions::default().tcp().password(secret)).unwrap();
    let redis = guarded();
    let (url, port) = (redis.url(), redis.port().unwrap());
    // Also at the most talkative, and where it is not the right one.
    let rig = Rig::at(redis, &url).environment("STAMPEDE_LOG_LEVEL", "trace");
    let mut server = ByHand::start(rig.serve(FREE, FREE), rig.dir.path());
    server.line();
    let (said, complained) = (server.said(), server.complained());
    assert!(complained.contains("connected to Redis"), "{complained}");
    for part in ["s3cret", "pass%2Fword", "of:redis"] {
        assert!(
            !said.contains(part) && !complained.contains(part),
            "{complained}"
        );
    }
    assert_eq!(server.end(Signal::SIGTERM).code(), Some(0));
    let mut print = command(&["config", "print"]);
    let printed = stdout(&print.env("STAMPEDE_REDIS", &url).output().unwrap());
    assert!(printed.contains(&format!("127.0.0.1:{port}")) && !printed.contains("s3cret"));

    for (login, told) in [
        (":s3cret-wrong@", "check user and password"),
        ("nobody:s3cret-wrong@", "check user and password"),
        ("", "NOAUTH"),
    ] {
        let url = format!("redis://{login}127.0.0.1:{port}/0");
        let rig = Rig::new().argument("--redis", &url);
        let line = refusal(&run_bounded(rig.serve(FREE, FREE)));
        assert!(line.contains(told), "{login}: {line}");
        assert!(!line.contains("s3cret"), "{line}");
        let line = refusal(&stampede(&["audit", "--redis", &url]));
        assert!(!line.contains("s3cret"), "{line}");
    }
}

#[test]
fn what_is_no_redis_or_no_setting_of_one_is_told_before_anything_is_written() {
    let rig = Rig::new();
    for (name, value, told) in [
        (
            "STAMPEDE_REDIS",
            "http://:s3cret@host",
            "is not a Redis URL",
        ),
        (
            "STAMPEDE_REDIS",
            "redis://:s3cret@host/x",
            "database number",
        ),
        (
            "STAMPEDE_REDIS",
            "redis+sentinel://:s3cret@host/m",
            "not built yet",
        ),
        ("STAMPEDE_NODE", "a node", "store.node"),
        (
            "STAMPEDE_STORE_REDIS_DURABILITY_MIN",
            "disk",
            "unknown variant",
        ),
        (
            "STAMPEDE_STORE_REDIS_TIMEOUT_MS",
            "2001",
            "engine.request_deadline_ms",
        ),
    ] {
        let mut start = rig.serve(FREE, FREE);
        start
            .env("STAMPEDE_REDIS", "redis://127.0.0.1")
            .env(name, value);
        let line = refusal(&run_bounded(start));
        assert!(line.contains(told), "{name}={value}: {line}");
        assert!(!line.contains("s3cret"), "{line}");
        assert!(!rig.options.data.exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_not_there_is_refused() {
    let redis = RedisServer::start(RedisOptions::default()).unwrap();
    let url = format!("{}?db=99", redis.url());
    let rig = Rig::at(redis, &url);
    is_refused(&rig, &["check the database number"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_connection_trusts_the_authority_that_it_is_told() {
    let redis = RedisServer::start(RedisOptions::default().tls()).unwrap();
    let (url, ca) = (redis.url(), redis.ca_file().to_owned());
    assert!(url.starts_with("rediss://"), "{url}");
    // Nobody else's.
    let stranger = Rig::new().argument("--redis", &url);
    let admin = free_address();
    let server = ByHand::start(
        stranger.serve(FREE, &admin.to_string()),
        stranger.dir.path(),
    );
    waits(&server, admin, "certificate").await;
    drop(server);
    let missing = stranger.path("missing.crt");
    let missing = missing.to_str().unwrap();
    let rig = stranger.environment("STAMPEDE_STORE_REDIS_CA", missing);
    assert!(refusal(&run_bounded(rig.serve(FREE, FREE))).contains(missing));

    let rig = Rig::at(redis, &url);
    let file = rig.path("s.toml");
    let text = format!("[store]\nredis_ca = {ca:?}\n");
    std::fs::write(&file, text).unwrap();
    let rig = rig.argument("--config", file.to_str().unwrap());
    let mut shop = Shop::open(rig, &[("a", 10)]).await;
    shop.wins("k").await;
    assert!(shop.server.stop(BOUND).unwrap().success());
    shop.rig.options.arguments = ["--redis", &url].map(str::to_owned).into();
    let by_environment = (
        "STAMPEDE_STORE_REDIS_CA".to_owned(),
        ca.display().to_string(),
    );
    shop.rig.options.environment.push(by_environment);
    shop.restart();
    shop.wins("k2").await;
    shop.rig.redis_mut().kill().unwrap();
    shop.rig.redis_mut().restart().unwrap();
    shop.wins("k3").await;
}
