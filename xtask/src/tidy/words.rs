//! Words and leftovers that do not belong into sources.

use super::{Finding, Source};

/// One concept, one word: these have another name here. In the sources of the purchase path.
const BANNED_WORDS: &[(&str, &str)] = &[
    ("seckill", "sale"),
    ("activity", "sale, campaign"),
    ("goods", "item"),
    ("inventory", "units"),
    ("customer", "buyer"),
    ("deduct", "reserve"),
    ("rollback", "release; in SQL, ROLLBACK"),
    ("backlog", "queue depth, in flight"),
];

/// Leftovers in any Rust source, and what to do instead. Written in two halves, so as not to find themselves.
const LEFTOVERS: &[(&str, &str)] = &[
    (concat!("to", "do!("), "finish it"),
    (concat!("db", "g!("), "use tracing"),
    (concat!("unimpl", "emented!("), "finish it"),
    (concat!("#[ig", "nore"), "run it or delete it"),
    (
        concat!("thread::", "sleep"),
        "poll a condition with a bound: crowd::wait",
    ),
    (concat!("unbounded", "_channel"), "every queue is bounded"),
];

/// The one file that may sleep.
const SLEEPS_IN: &str = "crates/crowd/src/wait.rs";

/// Addresses where packages come from: they belong into the machine's own settings.
const REGISTRIES: &[&str] = &[
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("registry.", "npmjs"),
    concat!("proxy.", "golang.org"),
    concat!("arti", "factory"),
    concat!("--index", "-url"),
    concat!("replace", "-with ="),
];

/// Names of the clock and of I/O, which the ledger must not know.
const IMPURE_NAMES: &[&str] = &[
    "tokio",
    "hyper",
    "redis",
    "Instant",
    "SystemTime",
    "std::net",
    "std::fs",
];

pub fn check(source: &Source) -> Vec<Finding> {
    let path = source.path.as_str();
    let mut findings = Vec::new();
    let is_rust = path.ends_with(".rs");
    let is_engine = path.starts_with("crates/flash-");
    for (index, line) in source.text.lines().enumerate() {
        let mut found = |what: String| {
            findings.push(Finding(format!("{path}:{}: {what}", index + 1)));
        };
        if is_engine && (is_rust || path.ends_with(".sql")) {
            let lowered = line.replace("ROLLBACK", "").to_lowercase();
            for (word, instead) in BANNED_WORDS {
                if lowered.contains(word) {
                    found(format!("`{word}`: say {instead}"));
                }
            }
        }
        if is_rust {
            for (leftover, instead) in LEFTOVERS {
                let may_sleep = path == SLEEPS_IN && leftover.ends_with("sleep");
                if line.contains(leftover) && !may_sleep {
                    found(format!("`{leftover}`: {instead}"));
                }
            }
        }
        if path.starts_with("crates/flash-ledger/src/") && is_rust && is_code(line) {
            for name in IMPURE_NAMES {
                if names(line, name) {
                    found(format!("`{name}`: the ledger knows no clock and no I/O"));
                }
            }
        }
        if path != "Cargo.lock" {
            for address in REGISTRIES {
                if line.contains(address) {
                    found(format!(
                        "`{address}`: where packages come from is set on the machine"
                    ));
                }
            }
        }
    }
    findings
}

fn is_code(line: &str) -> bool {
    !line.trim_start().starts_with("//")
}

/// Whether a line has a name as a word of its own.
fn names(line: &str, name: &str) -> bool {
    let is_part =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    line.match_indices(name).any(|(at, _)| {
        let bytes = line.as_bytes();
        !is_part(at.checked_sub(1).and_then(|before| bytes.get(before)))
            && !is_part(bytes.get(at + name.len()))
    })
}
