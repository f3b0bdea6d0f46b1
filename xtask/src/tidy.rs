//! What a compiler does not see: which crate may name which, words, leftovers, README against ci.

use std::path::Path;

use anyhow::{Context, bail};

use crate::ci;
use crate::shell::{self, cargo, root};

mod arrows;
mod words;

/// A file longer than this is worth a look.
const LINES_MAX: usize = 600;

/// One thing that is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding(pub String);

/// A text file of the project, by its path from the root.
pub struct Source {
    pub path: String,
    pub text: String,
}

/// Runs all checks on the working tree.
pub fn run() -> anyhow::Result<()> {
    let sources = sources()?;
    let metadata = shell::read(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let mut findings = arrows::check(&serde_json::from_str(&metadata)?)?;
    findings.extend(check_lint_opt_in(&sources));
    findings.extend(sources.iter().flat_map(words::check));
    findings.extend(check_commands(&sources));
    for source in &sources {
        let lines = source.text.lines().count();
        if lines > LINES_MAX && source.path.ends_with(".rs") {
            println!(
                "warning: {} has {lines} lines, more than {LINES_MAX}",
                source.path
            );
        }
    }
    for Finding(finding) in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("{} files are tidy", sources.len());
    Ok(())
}

/// What git tracks or would track, as far as it is text.
fn sources() -> anyhow::Result<Vec<Source>> {
    let listed = std::process::Command::new("git")
        .current_dir(root())
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .ok()
        .filter(|output| output.status.success());
    let paths: Vec<String> = match listed {
        Some(output) => String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect(),
        // Not a git checkout: an unpacked archive.
        None => walk(root(), "")?,
    };
    let read = |path: String| {
        let text = std::fs::read_to_string(root().join(&path)).ok()?;
        Some(Source { path, text })
    };
    Ok(paths.into_iter().filter_map(read).collect())
}

fn walk(dir: &Path, prefix: &str) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if matches!(name.as_str(), "target" | ".git" | "stampede-data") {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            found.extend(walk(&entry.path(), &format!("{path}/"))?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn check_lint_opt_in(sources: &[Source]) -> Vec<Finding> {
    let manifests = sources.iter().filter(|source| {
        source.path.ends_with("/Cargo.toml") && !source.text.contains("[workspace]")
    });
    manifests
        .filter(|source| {
            let manifest: Option<toml::Table> = toml::from_str(&source.text).ok();
            let opts_in = manifest
                .as_ref()
                .and_then(|manifest| manifest.get("lints")?.get("workspace")?.as_bool());
            opts_in != Some(true)
        })
        .map(|source| Finding(format!("{}: no `[lints] workspace = true`", source.path)))
        .collect()
}

/// The README tells two commands; ci runs the same.
fn check_commands(sources: &[Source]) -> Vec<Finding> {
    let text_of = |path: &str| {
        let source = sources.iter().find(|source| source.path == path);
        source.map_or("", |source| source.text.as_str())
    };
    let mut findings = Vec::new();
    for (path, command) in [
        ("README.md", ci::DEMO),
        ("README.md", ci::CI),
        (".ci/run", ci::CI),
    ] {
        let is_there = text_of(path).lines().any(|line| {
            let line = line
                .trim()
                .trim_start_matches("$ ")
                .trim_start_matches("CI=1 ");
            line == command
                || line
                    .strip_prefix(command)
                    .is_some_and(|rest| rest.trim_start().starts_with('#'))
        });
        if !is_there {
            findings.push(Finding(format!("{path}: no line `{command}`")));
        }
    }
    findings
}

#[cfg(test)]
mod tests;
