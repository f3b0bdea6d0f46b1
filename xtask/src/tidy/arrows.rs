//! Who may name whom: stampede -> front -> engine -> {admission, ledger, store} -> types; settle -> {store, types}.

use anyhow::Context;
use serde_json::Value;

use super::Finding;

/// A crate of the project and the crates of the project that it may depend on. Tests may name others.
const ARROWS: &[(&str, &[&str])] = &[
    ("flash-types", &[]),
    ("flash-store", &["flash-types"]),
    ("flash-ledger", &["flash-types"]),
    ("flash-admission", &["flash-types"]),
    ("flash-settle", &["flash-store", "flash-types"]),
    (
        "flash-engine",
        &[
            "flash-admission",
            "flash-ledger",
            "flash-store",
            "flash-types",
        ],
    ),
    (
        "flash-front",
        &["flash-admission", "flash-engine", "flash-types"],
    ),
    // Beside the purchase path: they reach the engine only through a trait in flash-types.
    ("side-books", &["flash-types"]),
    ("side-campaign", &["flash-types", "side-books"]),
    (
        "side-rewards",
        &["flash-types", "side-books", "side-campaign"],
    ),
    (
        "side-report",
        &["flash-types", "side-books", "side-campaign", "side-rewards"],
    ),
    ("crowd", &["flash-types"]),
    // For tests and measurements: nobody else may name these but as a dev-dependency.
    ("dev-servers", &["crowd"]),
    ("dev-faultproxy", &[]),
    (
        "stampede",
        &[
            "crowd",
            "flash-admission",
            "flash-engine",
            "flash-front",
            "flash-ledger",
            "flash-settle",
            "flash-store",
            "flash-types",
            "side-books",
            "side-campaign",
            "side-report",
            "side-rewards",
        ],
    ),
    // The front lends its check of tokens to the server that the engine is measured against.
    (
        "xtask",
        &["crowd", "dev-servers", "flash-front", "flash-types"],
    ),
    ("benches", &[]),
];

/// Crates that the pure stages must not depend on.
const IMPURE: &[&str] = &[
    "tokio",
    "redis",
    "hyper",
    "jiff",
    "rusqlite",
    "getrandom",
    "tracing",
];
/// The pure stages.
const PURE: &[&str] = &["flash-ledger", "flash-admission"];

pub fn check(metadata: &Value) -> anyhow::Result<Vec<Finding>> {
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    let names: Vec<_> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == name) else {
            findings.push(Finding(format!(
                "{name}: a crate that xtask/src/tidy/arrows.rs does not know; say there what it may name"
            )));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            if names.contains(&to) && !allowed.contains(&to) {
                findings.push(Finding(format!("{name}: must not depend on {to}")));
            }
            if PURE.contains(&name) && IMPURE.contains(&to) {
                findings.push(Finding(format!(
                    "{name}: is pure and must not depend on {to}"
                )));
            }
        }
    }
    Ok(findings)
}
