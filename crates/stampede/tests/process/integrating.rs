//! docs/INTEGRATING.md: what it tells to type works, and is answered as it says.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::*;

on_both_stores!(the_guide_can_be_typed_as_it_stands);

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The lines of all blocks of shell in a document.
fn shell_of(document: &str) -> Vec<&str> {
    let mut is_inside = false;
    let mut lines = Vec::new();
    for line in document.lines() {
        match line {
            "```sh" => is_inside = true,
            "```" => is_inside = false,
            line if is_inside => lines.push(line),
            _ => {}
        }
    }
    assert!(!is_inside, "a block does not end");
    lines
}

/// The statuses that comments between calls tell.
fn told(lines: &[&str]) -> Vec<String> {
    lines
        .iter()
        .filter_map(|line| line.strip_prefix("# ")?.get(..3))
        .filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
        .map(str::to_owned)
        .collect()
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn script(path: &Path, body: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn which(program: &str) -> PathBuf {
    need(program);
    let paths = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&paths)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .unwrap()
}

async fn the_guide_can_be_typed_as_it_stands(rig: Rig) {
    let document = std::fs::read_to_string(format!("{ROOT}/docs/INTEGRATING.md")).unwrap();
    let lines = shell_of(&document);
    let told = told(&lines);
    assert!(told.len() >= 10, "{told:?}");
    let dir = &rig.dir;
    let bin = rig.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let [public, admin, storefront] = [(); 3].map(|()| free_address());
    let store = rig.options.arguments.join(" ");
    // The same commands, on ports and a store of our own.
    script(
        &bin.join("stampede"),
        &format!(
            "case $1 in\n\
             serve) exec {BINARY} \"$@\" --public {public} --admin {admin} {store};;\n\
             *) exec {BINARY} \"$@\" --admin-url http://{admin};;\n\
             esac"
        ),
    );
    // The same calls; each notes its status, and the stream of events ends after a moment.
    let statuses = dir.path().join("statuses");
    script(
        &bin.join("curl"),
        &format!(
            "case \"$*\" in *-sN*) limit='--max-time 1';; esac\n\
             {} $limit -w '%{{stderr}}%{{http_code}} %{{url}}\\n' \"$@\" 2>> {}\n\
             code=$?\n\
             [ $code = 28 ] || exit $code",
            which("curl").display(),
            statuses.display()
        ),
    );
    std::os::unix::fs::symlink(format!("{ROOT}/config"), dir.path().join("config")).unwrap();
    let text = lines.join("\n");
    let port = storefront.rsplit(':').next().unwrap();
    let text = [
        ("127.0.0.1:8080", public.as_str()),
        ("127.0.0.1:9090", &admin),
        ("127.0.0.1:8000", &storefront),
        ("PORT=8000", &format!("PORT={port}")),
    ]
    .iter()
    .fold(text, |text, (told, real)| {
        assert!(text.contains(told), "{told}");
        text.replace(told, real)
    });
    let ending = "trap 'kill $(jobs -p) && wait' EXIT";
    let mut shell = Command::new("bash");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STAMPEDE_")) {
        shell.env_remove(name);
    }
    let path = std::env::var("PATH").unwrap();
    shell
        .args(["-euo", "pipefail", "-c", &format!("{ending}\n{text}")])
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("ENGINE", format!("http://{public}"))
        .current_dir(dir.path());
    let output = run_bounded(shell);
    let (said, complained) = (stdout(&output), stderr(&output));
    assert!(output.status.success(), "{said}\n{complained}");
    let noted = std::fs::read_to_string(&statuses).unwrap();
    let answered: Vec<_> = noted
        .lines()
        .filter(|line| !line.ends_with("/readyz") && !line.ends_with("/orders"))
        .map(|line| line[..3].to_owned())
        .collect();
    assert_eq!(answered, told, "{noted}\n{said}");
    for word in [
        rig.durability(),
        "buyer_limit_reached",
        "\"refund_due\":true",
        "event: stock",
        "\"refunded_units\":1",
        "refused, with the findings",
        "typo-sale is draft",
        "carol,refunded,2,2,2900,pay-80",
        "sale.resumed",
        "\"state\": \"reserved\"",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    for word in ["deep_discount", "below_lowest_price_30d", "2900 to 3900"] {
        assert!(complained.contains(word), "{word}: {complained}");
    }
}
