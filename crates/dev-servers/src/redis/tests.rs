use super::*;

fn start(options: RedisOptions) -> RedisServer {
    RedisServer::start(options).unwrap()
}

fn set(server: &RedisServer, key: &str, value: &str) {
    assert_eq!(server.command(&["SET", key, value]).unwrap(), "OK");
}

fn value_of(server: &RedisServer, key: &str) -> String {
    server.command(&["GET", key]).unwrap()
}

#[test]
fn what_was_flushed_survives_a_kill() {
    let mut server = start(RedisOptions::default());
    set(&server, "a", "1");
    assert_eq!(server.port(), None);
    assert_eq!(
        server.url(),
        format!("redis+unix://{}", server.socket_path().display())
    );
    let first = server.pid().unwrap();
    server.kill().unwrap();
    assert!(server.command(&["PING"]).is_err());
    assert!(server.pid().is_err());
    server.restart().unwrap();
    assert_ne!(server.pid().unwrap(), first);
    assert_eq!(value_of(&server, "a"), "1");
    assert!(server.restart().is_err(), "it runs");
}

#[test]
fn without_an_append_only_file_nothing_survives() {
    let mut server = start(RedisOptions::default().appendonly(false));
    set(&server, "a", "1");
    server.stop().unwrap();
    server.restart().unwrap();
    assert_eq!(value_of(&server, "a"), "(nil)");
    assert_eq!(
        server.command(&["CONFIG", "GET", "save"]).unwrap(),
        "save\n"
    );
}

#[test]
fn a_cut_tail_loses_the_last_value_and_deleted_data_all() {
    let mut server = start(RedisOptions::default());
    set(&server, "a", "1");
    set(&server, "b", "2");
    assert!(server.truncate_aof_tail(1).is_err(), "it runs");
    assert!(server.delete_data().is_err(), "it runs");
    server.kill().unwrap();
    server.truncate_aof_tail(1).unwrap();
    assert!(server.truncate_aof_tail(1 << 40).is_err());
    server.restart().unwrap();
    assert_eq!(value_of(&server, "a"), "1");
    assert_eq!(value_of(&server, "b"), "(nil)");
    server.stop().unwrap();
    server.delete_data().unwrap();
    server.restart().unwrap();
    assert_eq!(value_of(&server, "a"), "(nil)");
}

#[test]
fn a_password_is_asked_and_stands_in_the_url() {
    let server = start(RedisOptions::default().password("s3cret/+").tcp());
    set(&server, "a", "1");
    let port = server.port().unwrap();
    assert_eq!(
        server.url(),
        format!("redis://:s3cret%2F%2B@127.0.0.1:{port}/0")
    );
    let mut stranger = UnixStream::connect(server.socket_path()).unwrap();
    resp::send(&mut stranger, &["GET", "a"]).unwrap();
    let refused = resp::receive(&mut BufReader::new(stranger)).unwrap_err();
    assert!(refused.to_string().starts_with("NOAUTH"), "{refused}");
    let server = start(RedisOptions::default().password("x"));
    assert!(server.url().ends_with("/redis.sock?pass=x"));
}

#[test]
fn a_client_that_trusts_the_authority_accepts_the_certificate() {
    let mut server = start(RedisOptions::default().tls());
    let port = server.port().unwrap();
    assert_eq!(server.url(), format!("rediss://127.0.0.1:{port}/0"));
    for name in ["-verify_ip=127.0.0.1", "-verify_hostname=localhost"] {
        let (option, value) = name.split_once('=').unwrap();
        let output = Command::new("openssl")
            .args(["s_client", "-verify_return_error", "-x509_strict", option])
            .args([value, "-connect", &format!("127.0.0.1:{port}"), "-CAfile"])
            .arg(server.ca_file())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let ca = fs::read(server.ca_file()).unwrap();
    set(&server, "a", "1");
    server.kill().unwrap();
    server.restart().unwrap();
    assert_eq!(server.port(), Some(port));
    assert_eq!(fs::read(server.ca_file()).unwrap(), ca);
    assert_eq!(value_of(&server, "a"), "1");
}

#[test]
fn a_frozen_server_answers_when_it_thaws() {
    let mut server = start(RedisOptions::default());
    server.freeze().unwrap();
    let mut stream = UnixStream::connect(server.socket_path()).unwrap();
    resp::send(&mut stream, &["PING"]).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert!(resp::receive(&mut BufReader::new(stream.try_clone().unwrap())).is_err());
    server.thaw().unwrap();
    stream.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
    assert_eq!(resp::receive(&mut BufReader::new(stream)).unwrap(), "PONG");
    server.freeze().unwrap();
    server.kill().unwrap();
}

#[test]
fn options_may_change_between_two_starts() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("x".repeat(90));
    let options = RedisOptions::default()
        .appendfsync(AppendFsync::Everysec)
        .maxmemory_bytes(64 << 20)
        .extra("maxmemory-policy", "allkeys-lru")
        .wrapper(["env"])
        .dir(&deep);
    let mut server = start(options);
    assert!(server.socket_path().as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
    let config = |server: &RedisServer, name: &str| {
        let reply = server.command(&["CONFIG", "GET", name]).unwrap();
        reply.strip_prefix(&format!("{name}\n")).unwrap().to_owned()
    };
    assert_eq!(config(&server, "appendfsync"), "everysec");
    assert_eq!(config(&server, "maxmemory"), (64 << 20).to_string());
    assert_eq!(config(&server, "maxmemory-policy"), "allkeys-lru");
    set(&server, "a", "1");
    server.stop().unwrap();
    server
        .restart_with(|options| {
            options.appendfsync = AppendFsync::No;
            options.is_tcp = true;
        })
        .unwrap();
    assert_eq!(config(&server, "appendfsync"), "no");
    assert!(server.url().starts_with("redis://127.0.0.1:"));
    assert_eq!(value_of(&server, "a"), "1");
    drop(server);
    assert!(deep.join("redis.conf").exists(), "a named folder stays");
}

#[test]
fn a_start_that_fails_says_why() {
    let options = RedisOptions::default().extra("no-such-option", "1");
    let error = RedisServer::start(options).unwrap_err().to_string();
    assert!(error.contains("no-such-option"), "{error}");
}

#[test]
fn a_port_that_is_taken_is_waited_for() {
    let mut server = start(RedisOptions::default().tcp());
    let port = server.port().unwrap();
    server.kill().unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let launched = server.launch_once().unwrap();
    assert!(matches!(launched, Launched::PortTaken));
    drop(taken);
    server.restart().unwrap();
    assert_eq!(server.port(), Some(port));
}
