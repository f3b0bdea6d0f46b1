//! What is watched is what is told: every metric of the alerts and of the dashboard has its name in the program.

use std::collections::BTreeSet;
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn names_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("stampede_"));
    let plain = names.map(|name| {
        let ends = ["_bucket", "_sum", "_count"];
        ends.iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name)
    });
    plain.collect()
}

fn sources(folder: &Path, all: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs") {
            all.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn alerts_and_dashboard_name_metrics_that_there_are() {
    let mut program = String::new();
    for entry in std::fs::read_dir(Path::new(ROOT).join("crates")).unwrap() {
        sources(&entry.unwrap().path().join("src"), &mut program);
    }
    let told = names_in(&program);
    let read = |name: &str| std::fs::read_to_string(Path::new(ROOT).join(name)).unwrap();
    for file in ["config/alerts.rules.yml", "config/grafana.json"] {
        let text = read(file);
        let missing: Vec<_> = names_in(&text).difference(&told).copied().collect();
        assert!(missing.is_empty(), "{file}: {missing:?}");
        assert!(names_in(&text).len() > 8, "{file}");
    }
    let alerts = read("config/alerts.rules.yml");
    for name in [
        "stampede_side_books_imbalance_minor",
        "stampede_side_inbox_lag_seconds",
        "stampede_side_up",
        "stampede_side_step_errors_total",
    ] {
        assert!(alerts.contains(name), "nobody is told of {name}");
    }
    serde_json::from_str::<serde_json::Value>(&read("config/grafana.json")).unwrap();
}
