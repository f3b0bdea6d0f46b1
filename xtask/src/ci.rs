//! All that has to pass, in order, with its time; the first failure ends it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::shell::{self, cargo, find_program, root, target_dir};
use crate::{crash, load, setup, tidy};

/// How the README and the demo step start the demo.
pub const DEMO: &str = "cargo run --release -- demo";
/// How the README and `.ci/run` run all of this.
pub const CI: &str = "cargo xtask ci";

#[derive(clap::Args)]
pub struct Options {
    /// Runs these steps only, in their order (see --list)
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Leaves these steps out
    #[arg(long, value_delimiter = ',')]
    skip: Vec<String>,
    /// Names the steps and ends
    #[arg(long)]
    list: bool,
}

type Step = (&'static str, fn(&mut Tests) -> anyhow::Result<()>);

const STEPS: &[Step] = &[
    ("setup", |_| setup::run_setup(setup::is_ci())),
    ("tidy", |_| tidy::run()),
    ("fmt", |_| {
        shell::run(cargo().args(["fmt", "--all", "--check"]))
    }),
    // Checks the benches too: building them in their own profile would double the whole.
    ("clippy", |_| {
        shell::run(cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    }),
    ("deny", |_| deny()),
    ("tests", tests),
    ("doctests", doctests),
    // The points at which a commit can die, and a panic in the committer: compiled in for this run only.
    ("fault-points", |tests| {
        let mut command = cargo();
        command.args(["test", "-p", "stampede", "--features", "faults"]);
        run_tests(command.args(["--test", "process", "points"]), tests)
    }),
    ("loom", |_| loom()),
    ("release", |_| shell::release_server().map(drop)),
    ("demo", |_| {
        let words: Vec<_> = DEMO.split(' ').skip(1).chain(["--exit"]).collect();
        shell::run(cargo().args(words))
    }),
    ("crash", |_| crash::run(&crash::Options::rounds(20))),
    ("crash-redis", |_| {
        crash::run(&crash::Options::redis_rounds(10))
    }),
    ("crash-prove", |_| crash::run(&crash::Options::prove())),
    ("load", |_| load::run(&load::Options::default())),
];

/// What the test runners said.
#[derive(Default)]
struct Tests {
    summaries: Vec<String>,
    passed: u64,
    failed: u64,
    ignored: u64,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    if options.list {
        for (name, _) in STEPS {
            println!("{name}");
        }
        return Ok(());
    }
    let named = options.only.iter().chain(&options.skip);
    for name in named {
        if !STEPS.iter().any(|(step, _)| step == name) {
            bail!("there is no step {name}; --list names them");
        }
    }
    let wanted = |name: &str| {
        (options.only.is_empty() || options.only.iter().any(|only| only == name))
            && !options.skip.iter().any(|skip| skip == name)
    };
    let started = Instant::now();
    let mut tests = Tests::default();
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (name, step) in STEPS.iter().filter(|(name, _)| wanted(name)) {
        println!("\n=== {name}");
        let step_started = Instant::now();
        let done = step(&mut tests);
        let took = step_started.elapsed();
        times.push((name, took));
        if let Err(error) = done {
            println!("=== {name} FAILED after {:.1} s", took.as_secs_f64());
            tests.report();
            return Err(error.context(format!("step {name}")));
        }
        println!("=== {name} ok, {:.1} s", took.as_secs_f64());
    }
    println!(
        "\n=== all steps ok, {:.0} s",
        started.elapsed().as_secs_f64()
    );
    for (name, took) in times {
        println!("{name:>12} {:7.1} s", took.as_secs_f64());
    }
    tests.report();
    Ok(())
}

impl Tests {
    fn add(&mut self, lines: Vec<String>) {
        for line in lines {
            let counts = count_of(&line);
            self.passed += counts.0;
            self.failed += counts.1;
            self.ignored += counts.2;
            self.summaries.push(line.trim().to_owned());
        }
    }

    /// Says again what the runners said, where it is found.
    fn report(&self) {
        if self.summaries.is_empty() {
            return;
        }
        let is_long = self.summaries.len() > 4;
        let shown = if is_long {
            &self.summaries[self.summaries.len() - 4..]
        } else {
            &self.summaries
        };
        println!(
            "\ntest runners said{}:",
            if is_long { " (last lines)" } else { "" }
        );
        for summary in shown {
            println!("  {summary}");
        }
        println!(
            "test result: {}. {} passed; {} failed; {} ignored",
            if self.failed == 0 { "ok" } else { "FAILED" },
            self.passed,
            self.failed,
            self.ignored
        );
    }
}

fn is_summary(line: &str) -> bool {
    line.starts_with("test result:") || line.trim_start().starts_with("Summary [")
}

/// Passed, failed and ignored of a runner's summary: `12 passed; 0 failed; 1 ignored`, or nextest's
/// `12 tests run: 11 passed (1 slow), 1 failed, 2 skipped`.
fn count_of(summary: &str) -> (u64, u64, u64) {
    let words: Vec<_> = summary.split_ascii_whitespace().collect();
    let before = |wanted: &str| {
        words
            .windows(2)
            .find(|pair| pair[1].trim_matches([',', ';', '.']) == wanted)
            .and_then(|pair| pair[0].parse().ok())
            .unwrap_or(0)
    };
    (
        before("passed"),
        before("failed"),
        before("ignored") + before("skipped"),
    )
}

fn tests(tests: &mut Tests) -> anyhow::Result<()> {
    let mut command = cargo();
    if find_program("cargo-nextest").is_some() {
        command.args([
            "nextest",
            "run",
            "--workspace",
            "--no-fail-fast",
            "--status-level",
            "fail",
        ]);
    } else {
        command.args([
            "test",
            "--workspace",
            "--lib",
            "--bins",
            "--tests",
            "--no-fail-fast",
        ]);
    }
    run_tests(&mut command, tests)
}

fn doctests(tests: &mut Tests) -> anyhow::Result<()> {
    run_tests(cargo().args(["test", "--workspace", "--doc"]), tests)
}

fn run_tests(command: &mut Command, tests: &mut Tests) -> anyhow::Result<()> {
    let (is_ok, summaries) = shell::run_and_keep(command, is_summary)?;
    let has_run = !summaries.is_empty();
    tests.add(summaries);
    if !is_ok {
        bail!("{} failed", shell::described(command));
    }
    if !has_run {
        bail!(
            "{} ran, but said nothing of tests",
            shell::described(command)
        );
    }
    Ok(())
}

fn deny() -> anyhow::Result<()> {
    shell::run(cargo().args([
        "deny",
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))?;
    let mut command = cargo();
    command.args(["deny", "--log-level", "error", "check", "advisories"]);
    let output = command.output().context("cargo deny check advisories")?;
    let said = String::from_utf8_lossy(&output.stderr);
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if output.status.success() {
        println!("{said}");
        return Ok(());
    }
    let is_unreachable = said.contains("failed to fetch advisory database")
        || said.contains("failed to load advisory database");
    if is_unreachable {
        println!("advisories SKIPPED: the advisory database cannot be reached from here");
        return Ok(());
    }
    bail!("cargo deny check advisories: {said}")
}

/// Runs the loom models of the crates that have them.
fn loom() -> anyhow::Result<()> {
    let target = target_dir()?.join("loom");
    let mut has_run = false;
    for name in ["flash-ledger", "flash-admission"] {
        if !root()
            .join("crates")
            .join(name)
            .join("tests/loom.rs")
            .exists()
        {
            continue;
        }
        has_run = true;
        shell::run(
            cargo()
                .args(["test", "--release", "--package", name, "--test", "loom"])
                .env("RUSTFLAGS", "--cfg loom")
                .env("CARGO_TARGET_DIR", &target)
                .env("CARGO_PROFILE_RELEASE_LTO", "off")
                .env("CARGO_PROFILE_RELEASE_DEBUG", "false"),
        )?;
    }
    if !has_run {
        println!("no crate has loom models");
    }
    Ok(())
}

#[cfg(test)]
mod tests_of_ci {
    use super::*;

    #[test]
    fn summaries_of_both_runners_are_counted() {
        let plain = "test result: ok. 38 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out";
        assert!(is_summary(plain));
        assert_eq!(count_of(plain), (38, 1, 2));
        let nextest =
            "     Summary [   0.712s] 39 tests run: 38 passed (2 slow), 1 failed, 4 skipped";
        assert!(is_summary(nextest));
        assert_eq!(count_of(nextest), (38, 1, 4));
        assert!(!is_summary("running 3 tests"));
    }
}
