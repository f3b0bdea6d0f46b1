//! Commands of other programs, and where things lie.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command to its end, its output going where ours goes.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", described(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", described(command));
    }
    Ok(())
}

/// Runs a command quietly and gives what it wrote to stdout.
pub fn read(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", described(command)))?;
    if !output.status.success() {
        bail!("{} ended with {}", described(command), output.status);
    }
    String::from_utf8(output.stdout).context("not UTF-8")
}

/// Runs a command, shows each line that it writes, and gives those of both streams that `keeps` wants.
pub fn run_and_keep(
    command: &mut Command,
    keeps: fn(&str) -> bool,
) -> anyhow::Result<(bool, Vec<String>)> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", described(command)))?;
    let stdout = child.stdout.take().context("no stdout")?;
    let stderr = child.stderr.take().context("no stderr")?;
    let kept = std::thread::scope(|scope| {
        let errors = scope.spawn(move || show_lines(BufReader::new(stderr), keeps));
        let mut kept = show_lines(BufReader::new(stdout), keeps);
        kept.extend(errors.join().unwrap_or_default());
        kept
    });
    let status = child.wait()?;
    Ok((status.success(), kept))
}

fn show_lines(lines: impl BufRead, keeps: fn(&str) -> bool) -> Vec<String> {
    let mut kept = Vec::new();
    for line in lines.lines().map_while(Result::ok) {
        println!("{line}");
        if keeps(&line) {
            kept.push(line);
        }
    }
    kept
}

/// Whether a program is on the path.
pub fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// The command as a person would type it.
pub fn described(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// Where cargo builds.
pub fn target_dir() -> anyhow::Result<PathBuf> {
    let metadata = read(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let dir = metadata["target_directory"]
        .as_str()
        .context("no target_directory")?;
    Ok(dir.into())
}

/// Builds the server as it is shipped; gives the program.
pub fn release_server() -> anyhow::Result<PathBuf> {
    run(cargo().args(["build", "--release", "--package", "stampede"]))?;
    Ok(target_dir()?.join("release/stampede"))
}

/// Builds the server with its fault points; gives a program beside the shipped one.
pub fn faulty_server() -> anyhow::Result<PathBuf> {
    run(cargo().args([
        "build",
        "--release",
        "--package",
        "stampede",
        "--features",
        "faults",
    ]))?;
    let release = target_dir()?.join("release");
    let faulty = release.join("stampede-faults");
    std::fs::copy(release.join("stampede"), &faulty).context("copying the server with faults")?;
    // The next build without them puts the shipped program back in its place.
    run(cargo().args(["build", "--quiet", "--release", "--package", "stampede"]))?;
    Ok(faulty)
}

/// A single-threaded runtime: the other core is the server's.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("a runtime")
}

/// Milliseconds since the Unix epoch, as RFC 3339, so many seconds from now.
pub fn rfc3339_in(seconds: i64) -> String {
    let now = i64::try_from(crowd::log::now_ms()).unwrap_or(i64::MAX);
    flash_types::Timestamp(now.saturating_add(seconds * 1000)).to_string()
}
