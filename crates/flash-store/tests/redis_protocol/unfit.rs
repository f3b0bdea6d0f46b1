//! Servers that are not what they have to be, and every way to reach one that is.

use dev_servers::{AppendFsync, RedisOptions, RedisServer};
use flash_store::*;
use flash_types::*;
use tempfile::TempDir;

use crate::common::redis::*;
use crate::{is_unavailable, one, refusal};

#[test]
fn a_server_that_would_evict_is_refused() {
    let options = RedisOptions::default().extra("maxmemory-policy", "allkeys-lru");
    let why = refusal(&Rig::with(options).config());
    assert!(
        why.contains("maxmemory-policy") && why.contains("noeviction"),
        "{why}"
    );
}

#[test]
fn a_server_of_a_cluster_is_refused() {
    let options = RedisOptions::default()
        .tcp()
        .extra("cluster-enabled", "yes");
    let why = refusal(&Rig::with(options).config());
    assert!(why.contains("Cluster"), "{why}");
}

#[test]
fn less_durability_than_asked_for_is_refused() {
    let everysec = RedisOptions::default().appendfsync(AppendFsync::Everysec);
    for (options, min, told) in [
        (
            everysec.clone(),
            Durability::RedisAofAlways,
            "appendfsync always",
        ),
        (
            RedisOptions::default().appendonly(false),
            Durability::RedisAofEverysec,
            "appendonly yes",
        ),
        (
            RedisOptions::default().extra("no-appendfsync-on-rewrite", "yes"),
            Durability::RedisAofAlways,
            "no-appendfsync-on-rewrite no",
        ),
    ] {
        let rig = Rig::with(options);
        let config = RedisConfig {
            durability_min: min,
            ..rig.config()
        };
        let why = refusal(&config);
        assert!(
            why.contains(told) && why.contains("redis_durability_min"),
            "{why}"
        );
    }
    let rig = Rig::with(everysec);
    let config = RedisConfig {
        durability_min: Durability::RedisAofEverysec,
        ..rig.config()
    };
    Node::open(&config).unwrap();
}

#[test]
fn a_wrong_password_user_or_database_is_named() {
    let server = RedisServer::start(RedisOptions::default().password("s3cret").tcp()).unwrap();
    let port = server.port().unwrap();
    let data = TempDir::new().unwrap();
    for (login, database, told) in [
        (":wrong@", 0, "check user and password"),
        ("nobody:s3cret@", 0, "check user and password"),
        ("", 0, "NOAUTH"),
        (":s3cret@", 99, "check the database number"),
    ] {
        let url = format!("redis://{login}127.0.0.1:{port}/{database}");
        let why = refusal(&config(&url, &data));
        assert!(why.contains(told), "{why}");
        assert!(!why.contains("s3cret") && !why.contains("wrong@"), "{why}");
    }
}

#[test]
fn a_server_that_is_not_there_may_come() {
    let mut rig = Rig::start();
    rig.server.kill().unwrap();
    let verdict = Node::open(&rig.config());
    assert!(matches!(verdict, Err(OpenError::Away(_))));
    rig.server.restart().unwrap();
    rig.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let verdict = Node::open(&rig.config());
    assert!(matches!(verdict, Err(OpenError::Away(why)) if why.contains("not the master")));
    rig.ask(&["REPLICAOF", "NO", "ONE"]);
    rig.open();
}

fn config(url: &str, data: &TempDir) -> RedisConfig {
    RedisConfig {
        url: RedisUrl::parse(url).unwrap(),
        ca_file: None,
        timeout: LONG,
        durability_min: Durability::RedisMemory,
        node: "n-1".into(),
        data: data.path().to_owned(),
    }
}

fn must_work(config: &RedisConfig) {
    let node = Node::open(config).unwrap();
    node.open_sale(1, &[10]);
    assert_eq!(node.commit(1, vec![one(1)]).unwrap().refused, []);
    assert_eq!(node.available(1), [9]);
}

#[test]
fn tls_works_with_an_authority_that_is_trusted_and_not_without() {
    let server = RedisServer::start(RedisOptions::default().tls().password("s3cret")).unwrap();
    let data = TempDir::new().unwrap();
    let trusting = RedisConfig {
        ca_file: Some(server.ca_file().to_owned()),
        ..config(&server.url(), &data)
    };
    must_work(&trusting);
    let verdict = Node::open(&config(&server.url(), &data));
    assert!(matches!(verdict, Err(OpenError::Away(_))));
    let missing = RedisConfig {
        ca_file: Some(data.path().join("none.crt")),
        ..trusting
    };
    let why = refusal(&missing);
    assert!(why.contains("none.crt"), "{why}");
}

#[test]
fn tcp_a_unix_socket_a_password_and_a_database_work() {
    let server = RedisServer::start(RedisOptions::default().password("s3cret/+").tcp()).unwrap();
    let socket = server.socket_path().display().to_string();
    let port = server.port().unwrap();
    for (url, database) in [
        (server.url(), "0"),
        (format!("redis://:s3cret%2F%2B@127.0.0.1:{port}/3"), "3"),
        (format!("redis+unix://{socket}?pass=s3cret%2F%2B&db=5"), "5"),
    ] {
        let data = TempDir::new().unwrap();
        must_work(&config(&url, &data));
        let keyspace = server.command(&["INFO", "keyspace"]).unwrap();
        assert!(
            keyspace.contains(&format!("db{database}:")),
            "{url}: {keyspace}"
        );
    }
}

#[test]
fn durability_is_what_the_settings_give_and_follows_them() {
    let always = Durability::RedisAofAlways;
    for (options, level) in [
        (RedisOptions::default(), always),
        (
            RedisOptions::default().appendfsync(AppendFsync::Everysec),
            Durability::RedisAofEverysec,
        ),
        (
            RedisOptions::default().appendfsync(AppendFsync::No),
            Durability::RedisMemory,
        ),
        (
            RedisOptions::default().appendonly(false),
            Durability::RedisMemory,
        ),
    ] {
        let rig = Rig::with(options);
        assert_eq!(rig.open().store.durability(), level);
    }
    let rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    assert_eq!(node.store.durability(), always);
    rig.ask(&["CONFIG", "SET", "appendfsync", "everysec"]);
    rig.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    node.commit(1, vec![one(1)]).unwrap();
    assert_eq!(node.store.durability(), Durability::RedisAofEverysec);
}

#[test]
fn a_server_that_became_less_than_asked_for_takes_nothing() {
    let rig = Rig::start();
    let config = RedisConfig {
        durability_min: Durability::RedisAofAlways,
        ..rig.config()
    };
    let node = Node::open(&config).unwrap();
    rig.ask(&["CONFIG", "SET", "appendfsync", "everysec"]);
    // The line of a new sale makes a new connection.
    let definition = Box::new(plan(1, &[10]));
    let draft = node.batch(1, vec![Change::PutDraft { definition }]);
    let verdict = node.commit_batch(&draft);
    assert!(
        is_unavailable(&verdict, "redis_durability_min"),
        "{verdict:?}"
    );
    rig.ask(&["CONFIG", "SET", "appendfsync", "always"]);
    node.commit_batch(&draft).unwrap();
}

#[test]
fn the_heartbeat_notices_a_server_that_became_unfit() {
    let rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[1_000_000]);
    rig.ask(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let mut number = 0;
    let mut is_refused = || {
        number += 1;
        is_unavailable(&node.commit(1, vec![one(number)]), "set noeviction")
    };
    until("noticed", &mut is_refused);
    assert!(node.store.trouble().is_some());
    rig.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    until("forgiven", || !is_refused());
    assert_eq!(node.store.trouble(), None);
}
