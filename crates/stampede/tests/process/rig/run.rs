//! Running the program: to its end, or by hand with all that it says.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use crowd::wait::poll_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{BINARY, BOUND, LOOK};

/// Runs `stampede` to its end, without any key in its environment.
pub fn stampede(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// The same, not started yet.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STAMPEDE_")) {
        command.env_remove(name);
    }
    command
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Holds that a start was refused as told: exit 2, nothing on stdout, one line on stderr; gives the line.
pub fn refusal(output: &Output) -> String {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(stdout(output), "", "{said}");
    assert_eq!(said.lines().count(), 1, "one line: {said}");
    assert!(said.starts_with("stampede: "), "{said}");
    said
}

/// Holds that a command was carried out; gives what it said.
pub fn good(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}{}",
        stdout(output),
        stderr(output)
    );
    stdout(output)
}

/// Holds that a command failed, with 1; gives what it complained of.
pub fn failed(output: &Output) -> String {
    let (said, complained) = (stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(1), "{said}{complained}");
    complained
}

/// `stampede serve` on free ports and this folder, to its end.
pub fn serve(data: &Path) -> Output {
    let data = data.to_str().unwrap();
    let free = "127.0.0.1:0";
    run_bounded(command(&[
        "serve", "--public", free, "--admin", free, "--data", data,
    ]))
}

/// Runs a command that should end by itself; ends it where it does not.
pub fn run_bounded(mut command: Command) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let has_ended = poll_until(BOUND, LOOK, || child.try_wait().unwrap()).is_some();
    if !has_ended {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert!(has_ended, "did not end: {command:?}\n{}", stderr(&output));
    output
}

/// Whether a program is there; a fault test without its tool has to fail.
pub fn need(program: &str) {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .unwrap();
    assert!(
        found.status.success(),
        "{program} is not installed: cargo xtask setup"
    );
}

/// A started program whose whole stdout and stderr are looked at. Dropping it kills it.
pub struct ByHand {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl ByHand {
    /// Starts it; what it says goes to two files in `dir`.
    pub fn start(mut command: Command, dir: &Path) -> Self {
        let (out, err) = (dir.join("out"), dir.join("err"));
        let file = |path: &Path| Stdio::from(std::fs::File::create(path).unwrap());
        let child = command.stdout(file(&out)).stderr(file(&err)).spawn();
        Self {
            child: child.unwrap(),
            out,
            err,
        }
    }

    /// What it has said on stdout so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }

    /// What it has said on stderr so far.
    pub fn complained(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }

    /// Waits for the first line on stdout.
    pub fn line(&self) -> String {
        let line = poll_until(BOUND, LOOK, || {
            Some(self.said()).filter(|said| said.ends_with('\n'))
        });
        line.unwrap_or_else(|| panic!("no line on stdout: {}", self.complained()))
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
        let ended = poll_until(BOUND, LOOK, || self.child.try_wait().unwrap());
        ended.unwrap_or_else(|| panic!("it did not end: {}", self.complained()))
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
