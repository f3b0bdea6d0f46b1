use serde_json::json;

use super::*;

fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.into(),
        text: text.into(),
    }
}

fn found(path: &str, text: &str) -> usize {
    words::check(&source(path, text)).len()
}

fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> serde_json::Value {
    let dependencies: Vec<_> = dependencies
        .iter()
        .map(|(name, kind)| json!({"name": name, "kind": kind}))
        .collect();
    json!({"name": name, "dependencies": dependencies})
}

#[test]
fn an_arrow_that_points_back_is_found() {
    let types = package("flash-types", &[("serde", None)]);
    let check = |package: serde_json::Value| {
        arrows::check(&json!({"packages": [types, package]}))
            .unwrap()
            .len()
    };
    assert_eq!(check(package("flash-store", &[("flash-types", None)])), 0);
    let back = json!({"packages": [
        package("flash-types", &[("flash-store", None)]),
        package("flash-store", &[("flash-types", None)]),
    ]});
    assert_eq!(arrows::check(&back).unwrap().len(), 1);
    assert_eq!(check(package("flash-ledger", &[("tokio", None)])), 1);
    assert_eq!(check(package("flash-ledger", &[("tokio", Some("dev"))])), 0);
    assert_eq!(check(package("flash-surprise", &[])), 1);
}

#[test]
fn banned_words_are_found_on_the_purchase_path_alone() {
    assert_eq!(
        found("crates/flash-engine/src/lib.rs", "// the customer waits"),
        1
    );
    assert_eq!(
        found("crates/flash-engine/src/lib.rs", "struct InventoryRow;"),
        1
    );
    assert_eq!(found("crates/crowd/src/lib.rs", "// the customer waits"), 0);
    assert_eq!(
        found("crates/flash-store/src/sqlite.rs", "execute(\"ROLLBACK\")"),
        0
    );
    assert_eq!(
        found("crates/flash-store/src/sqlite.rs", "fn rollback()"),
        1
    );
}

#[test]
fn leftovers_are_found_and_the_one_sleep_is_not() {
    for leftover in [
        concat!("to", "do!()"),
        concat!("db", "g!(x)"),
        concat!("#[ig", "nore]"),
        concat!("std::thread::", "sleep(x)"),
        concat!("mpsc::unbounded", "_channel()"),
    ] {
        assert_eq!(found("benches/benches/x.rs", leftover), 1, "{leftover}");
    }
    assert_eq!(
        found(
            "crates/crowd/src/wait.rs",
            concat!("std::thread::", "sleep(x)")
        ),
        0
    );
}

#[test]
fn addresses_of_registries_are_found_in_any_file() {
    let address = concat!("https://pypi", ".org/simple");
    assert_eq!(found("docs/x.md", address), 1);
    assert_eq!(found("Cargo.lock", address), 0);
}

#[test]
fn the_ledger_knows_no_clock() {
    assert_eq!(
        found("crates/flash-ledger/src/a.rs", "use std::time::Instant;"),
        1
    );
    assert_eq!(
        found("crates/flash-ledger/src/a.rs", "// no Instant here"),
        0
    );
    assert_eq!(
        found("crates/flash-ledger/src/a.rs", "let InstantLike = 1;"),
        0
    );
}

#[test]
fn every_crate_opts_into_the_lints() {
    let sources = [
        source("crates/a/Cargo.toml", "[lints]\nworkspace = true\n"),
        source("crates/b/Cargo.toml", "[package]\nname = \"b\"\n"),
        source("Cargo.toml", "[workspace]\n"),
    ];
    let findings = check_lint_opt_in(&sources);
    assert_eq!(findings.len(), 1);
    assert!(findings[0].0.contains("crates/b"), "{findings:?}");
}

#[test]
fn the_commands_of_the_readme_are_those_of_ci() {
    let good = [
        source(
            "README.md",
            &format!("```sh\n{}   # a sale\n{}\n```\n", ci::DEMO, ci::CI),
        ),
        source(".ci/run", &format!("set -e\nCI=1 {}\n", ci::CI)),
    ];
    assert_eq!(check_commands(&good), []);
    let bad = [source("README.md", "cargo run -- something")];
    assert_eq!(check_commands(&bad).len(), 3);
}
