//! Starts that cannot succeed: exit 2, one line that names the fix, nothing written. And what a good start leaves.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::disk::Mounted;
use crate::rig::*;

on_both_stores!(
    ports_in_use_are_named_before_anything_is_written,
    the_ready_line_is_all_of_stdout_and_keys_are_made_once_and_kept_private,
);

/// A start with this configuration on free ports.
fn serve_with(config: &Path, data: &Path) -> std::process::Output {
    let (config, data) = (config.to_str().unwrap(), data.to_str().unwrap());
    run_bounded(command(&["serve", "--config", config, "--data", data]))
}

const FREE: &str = "[public]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n";
const LONG: &str = "0123456789abcdef";

#[test]
fn a_bad_configuration_is_told_with_its_line_and_leaves_nothing_behind() {
    let jwt = |algorithm: &str, rest: &str| {
        format!("[[keys.buyer_jwt]]\nalgorithm = \"{algorithm}\"\n{rest}\n")
    };
    let key = |rest: &str| format!("[[keys.admin]]\nname = \"a\"\n{rest}\n");
    for (text, line_no, told) in [
        (
            "[public]\nadress = \"x\"".to_owned(),
            2,
            "unknown field `adress`",
        ),
        (
            "[publik]\naddress = \"x\"".into(),
            1,
            "unknown field `publik`",
        ),
        ("\n\n[public]\nthreads = -1".into(), 4, "-1"),
        ("[public]\nthreads = \"2\"".into(), 2, "invalid type"),
        ("[public]\nthreads = 1.5".into(), 2, "invalid type"),
        (
            "[public]\nthreads = 1\nthreads = 2".into(),
            3,
            "duplicate key",
        ),
        ("[public\n".into(), 1, ""),
        (
            "[public]\naddress = \"nowhere\"".into(),
            2,
            "such as 127.0.0.1:8080",
        ),
        (
            "[admin]\naddress = \"127.0.0.1\"".into(),
            2,
            "such as 127.0.0.1:8080",
        ),
        (
            "[engine]\nrequest_deadline_ms = 1".into(),
            2,
            "it must be 50-60000",
        ),
        ("[engine]\nbuyer_keys_max = 0".into(), 2, "it must be 1024-"),
        (
            "[public]\nconnections_max = 50\nstreams_max = 100".into(),
            3,
            "it must be 0-50",
        ),
        (
            "[public]\nstorefront_rate_per_s = 0".into(),
            2,
            "it must be 1-",
        ),
        ("[public]\nstock_buckets = [10, 1]".into(), 2, "must ascend"),
        (
            "[public]\ntrusted_proxies = [\"nonsense\"]".into(),
            2,
            "nonsense",
        ),
        ("[log]\nlevel = \"=chatty=\"".into(), 2, "try \"info\""),
        (
            key("key = \"short\"\nroles = [\"viewer\"]"),
            3,
            "at least 16 characters",
        ),
        (
            key(&format!("key = \"{LONG}\"\nroles = [\"king\"]")),
            4,
            "unknown variant `king`",
        ),
        (
            key(&format!("key = \"{LONG}\"\nroles = []")),
            1,
            "at least one role",
        ),
        (
            key(&format!("key = \"{LONG}\"")),
            1,
            "missing field `roles`",
        ),
        (key("roles = [\"viewer\"]"), 1, "missing field `key`"),
        (jwt("RS256", ""), 1, "public_key_pem is missing"),
        (
            jwt("EdDSA", "public_key_pem = \"no PEM\""),
            1,
            "buyer_jwt[0]",
        ),
        (
            jwt("HS256", "secret = \"short\""),
            3,
            "at least 16 characters",
        ),
        (jwt("none", ""), 2, "unknown variant `none`"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (file, data) = (dir.path().join("s.toml"), dir.path().join("data"));
        std::fs::write(&file, &text).unwrap();
        let line = refusal(&serve_with(&file, &data));
        let place = format!("{}:{line_no}: ", file.display());
        assert!(
            line.contains(&place) && line.contains(told),
            "{text}\n{line}\n{place}{told}"
        );
        assert!(!data.exists(), "{text}: something was written");
        // And the command that checks says the same.
        let checked = stampede(&["config", "check", "--config", file.to_str().unwrap()]);
        assert_eq!(refusal(&checked), line, "{text}");
    }
}

#[test]
fn what_is_configured_elsewhere_is_named_by_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for (variable, value, told) in [
        ("STAMPEDE_PUBLIC_THREAD", "1", "names no key"),
        ("STAMPEDE_PUBLIC_THREADS", "many", "no TOML value"),
        ("STAMPEDE_PUBLIC_THREADS", "-1", "environment"),
        ("STAMPEDE_PUBLIC_THREADS", "1000", "it must be 0-256"),
        ("STAMPEDE_PUBLIC", "somewhere", "such as 127.0.0.1:8080"),
    ] {
        let mut start = command(&["serve", "--data", data.to_str().unwrap()]);
        let line = refusal(&run_bounded({
            start.env(variable, value);
            start
        }));
        assert!(line.contains(told), "{variable}={value}: {line}");
        assert!(!data.exists());
    }
    let missing = dir.path().join("none.toml");
    let line = refusal(&serve_with(&missing, &data));
    assert!(
        line.contains("none.toml") && line.contains("No such file"),
        "{line}"
    );
    // What clap refuses: it prints its usage as well.
    for arguments in [
        vec!["serve", "--threads", "2"],
        vec!["sell"],
        vec!["demo", "--stock", "0"],
    ] {
        assert_eq!(stampede(&arguments).status.code(), Some(2), "{arguments:?}");
    }
}

async fn ports_in_use_are_named_before_anything_is_written(rig: Rig) {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    for (flag, public, admin) in [
        ("--public", address.as_str(), free),
        ("--admin", free, address.as_str()),
    ] {
        let line = refusal(&run_bounded(rig.serve(public, admin)));
        for told in [address.as_str(), "in use", flag, "port 0"] {
            assert!(line.contains(told), "{told}: {line}");
        }
        assert!(!rig.options.data.exists());
    }
    drop(taken);
    let line = refusal(&run_bounded(rig.serve(&address, &address)));
    assert!(line.contains("two ports"), "{line}");
    assert!(!rig.options.data.exists());
}

#[test]
fn folders_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "a file").unwrap();
    for data in [
        file.clone(),
        file.join("data"),
        dir.path().join("missing/data"),
        "/proc/stampede-data".into(),
    ] {
        let line = refusal(&serve(&data));
        assert!(line.contains(data.to_str().unwrap()), "{line}");
        assert!(line.contains("choose another"), "{line}");
    }
    assert_eq!(
        content(dir.path()),
        [("file".to_owned(), b"a file".to_vec())]
    );
    let disk = dir.path().join("disk");
    if let Some(mounted) = Mounted::new(&disk, "size=4m") {
        std::fs::create_dir(disk.join("data")).unwrap();
        mounted.remount("ro");
        for data in [disk.join("data"), disk.join("new")] {
            let line = refusal(&serve(&data));
            assert!(
                line.contains("Read-only") && line.contains("choose another"),
                "{line}"
            );
        }
        drop(mounted);
    }
}

#[test]
fn a_second_process_on_a_folder_is_refused_and_told_who_has_it() {
    let rig = Rig::new();
    let shop = Shop::start(rig);
    let line = refusal(&serve(&shop.rig.options.data));
    let pid = format!("process {}", shop.server.pid());
    for told in [
        pid.as_str(),
        "in use",
        "stop that process, or choose another folder",
    ] {
        assert!(line.contains(told), "{told}: {line}");
    }
    // The first one has not noticed: another is refused as well, and it ends well.
    refusal(&serve(&shop.rig.options.data));
    let mut server = shop.server;
    assert!(server.stop(BOUND).unwrap().success());
    // A lock that nobody holds any more is none, whatever its file says.
    let shop = Shop::start(shop.rig);
    drop(shop);
}

#[test]
fn a_newer_store_and_a_foreign_file_are_left_alone() {
    let shop = Shop::start(Rig::new());
    let (rig, mut server) = (shop.rig, shop.server);
    assert!(server.stop(BOUND).unwrap().success());
    let database = rig.options.data.join("stampede.db");
    // Big-endian at byte 60 of an SQLite file: the user version.
    let mut bytes = std::fs::read(&database).unwrap();
    assert_eq!(bytes[60..64], 2_u32.to_be_bytes());
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(&database, &bytes).unwrap();
    let line = refusal(&serve(&rig.options.data));
    assert!(
        line.contains("version 99") && line.contains("start the newer program"),
        "{line}"
    );
    assert_eq!(std::fs::read(&database).unwrap(), bytes);
    std::fs::write(
        &database,
        "not a database, and long enough to be looked at by anybody",
    )
    .unwrap();
    let line = refusal(&serve(&rig.options.data));
    assert!(line.contains("is not a Stampede database"), "{line}");
}

async fn the_ready_line_is_all_of_stdout_and_keys_are_made_once_and_kept_private(rig: Rig) {
    let file = rig.options.data.join("keys.toml");
    let free = "127.0.0.1:0";
    let mut made = None;
    for _ in 0..2 {
        let mut server = ByHand::start(rig.serve(free, free), rig.dir.path());
        server.line();
        assert_eq!(server.end(Signal::SIGINT).code(), Some(0));
        let (line, told) = (server.said(), server.complained());
        let words: Vec<_> = line.trim_end().split(' ').collect();
        assert_eq!(words[..2], ["stampede", "ready"], "{line}");
        assert!(words[2].starts_with("public=127.0.0.1:"), "{line}");
        assert!(words[3].starts_with("admin=127.0.0.1:"), "{line}");
        let store = format!("store={}", rig.durability());
        assert_eq!(words[4..], [store.as_str()], "{line}");

        let mode_of = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode_of(&file), 0o600);
        assert_eq!(mode_of(&rig.options.data), 0o700);
        let keys = std::fs::read_to_string(&file).unwrap();
        assert!(made.is_none_or(|made| made == keys), "keys were made anew");
        assert!(told.contains(file.to_str().unwrap()), "{told}");
        let keys_of_it = crowd::Keys::read(&rig.options.data).unwrap();
        for secret in [
            &keys_of_it.admin_key,
            &keys_of_it.storefront_key,
            &keys_of_it.buyer_jwt_secret,
        ] {
            assert!(secret.len() >= 32 && !told.contains(secret) && !line.contains(secret));
        }
        made = Some(keys);
    }
    // Half a file of keys is told, not replaced.
    std::fs::write(&file, "admin_key = \"0123456789abcdef\"\n").unwrap();
    let output = run_bounded(rig.serve(free, free));
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    let line = told.lines().last().unwrap();
    assert!(
        line.contains("keys.toml") && line.contains("remove the file to get all keys new"),
        "{told}"
    );
}

#[test]
fn a_configuration_that_is_printed_can_be_used_and_hides_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.toml");
    let secret = "a secret that nobody should see";
    std::fs::write(
        &file,
        format!("{FREE}[[keys.storefront]]\nname = \"shop\"\nkey = \"{secret}\"\n[engine]\nretire_after_s = 7\n"),
    )
    .unwrap();
    let path = file.to_str().unwrap();
    let checked = stampede(&["config", "check", "--config", path]);
    assert!(checked.status.success() && stdout(&checked).contains("is good"));
    let mut print = command(&["config", "print", "--config", path]);
    let printed = stdout(&print.env("STAMPEDE_PUBLIC_THREADS", "3").output().unwrap());
    for told in [
        "threads = 3",
        "retire_after_s = 7",
        "<hidden>",
        "request_deadline_ms = 2000",
    ] {
        assert!(printed.contains(told), "{told}: {printed}");
    }
    assert!(!printed.contains(secret));
    std::fs::write(&file, printed.replace("<hidden>", secret)).unwrap();
    assert!(
        stampede(&["config", "check", "--config", path])
            .status
            .success()
    );
    assert!(stampede(&["config", "check"]).status.success());
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/stampede.toml");
    assert!(
        stampede(&["config", "check", "--config", shipped])
            .status
            .success()
    );
}
