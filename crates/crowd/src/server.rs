//! A real server process: started, waited for, killed or frozen by its process id.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;

use crate::token::Keys;
use crate::wait::poll_until;

/// Lines of the server's log that are kept.
const LOG_LINES_MAX: usize = 500;

/// How to start a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The program.
    pub binary: PathBuf,
    /// Its data folder; its parent must exist.
    pub data: PathBuf,
    /// Words before the program, such as `taskset -c 0`. They must end in an exec, so that the process id is the server's.
    pub wrapper: Vec<String>,
    /// Further arguments after `serve`.
    pub arguments: Vec<String>,
    /// Added to the environment.
    pub environment: Vec<(String, String)>,
    /// Names of variables that it does not inherit.
    pub environment_removed: Vec<String>,
    /// How long it may take to be ready.
    pub ready_within: Duration,
}

impl ServerOptions {
    /// A server on free ports.
    pub fn new(binary: impl Into<PathBuf>, data: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            data: data.into(),
            wrapper: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            environment_removed: Vec::new(),
            ready_within: Duration::from_secs(30),
        }
    }
}

/// A running server. Dropping it kills the process.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where buyers and the storefront call.
    pub public: SocketAddr,
    /// Where merchants call.
    pub admin: SocketAddr,
    /// The level of durability that it named.
    pub store: String,
    /// From the start of the process to its ready line.
    pub ready_after: Duration,
    data: PathBuf,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Server {
    /// Starts `<binary> serve` on free ports and waits for its ready line.
    ///
    /// # Errors
    /// If it cannot be started, ends, or is not ready in time; with the last lines of its log.
    pub fn start(options: &ServerOptions) -> anyhow::Result<Self> {
        let mut words = options.wrapper.iter().map(String::as_str);
        let mut command = match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(&options.binary);
                command
            }
            None => Command::new(&options.binary),
        };
        command
            .args([
                "serve",
                "--public",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--data",
            ])
            .arg(&options.data)
            .args(&options.arguments)
            .envs(
                options
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in &options.environment_removed {
            command.env_remove(name);
        }
        let started = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {}", options.binary.display()))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let stderr = child.stderr.take().context("no stderr")?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let log_reader = keep_lines(stderr, Arc::clone(&log));
        let line = ready_line(stdout, options.ready_within);
        let ready_after = started.elapsed();
        // From here on dropping `server` ends the process.
        let mut server = Self {
            child,
            public: SocketAddr::from(([0; 4], 0)),
            admin: SocketAddr::from(([0; 4], 0)),
            store: String::new(),
            ready_after,
            data: options.data.clone(),
            log,
        };
        let Some((public, admin, store)) = line.as_deref().and_then(parse_ready) else {
            let ended = poll_until(Duration::from_secs(2), Duration::from_millis(10), || {
                server.child.try_wait().ok().flatten()
            });
            if ended.is_some() {
                // What it said last may still be in the pipe; bounded, since a child of its own may hold the pipe open.
                poll_until(Duration::from_secs(2), Duration::from_millis(1), || {
                    log_reader.is_finished().then_some(())
                });
            }
            bail!(
                "{} was not ready within {:?} (ended: {ended:?}, said: {line:?})\n{}",
                options.binary.display(),
                options.ready_within,
                server.log()
            );
        };
        (server.public, server.admin, server.store) = (public, admin, store);
        Ok(server)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The keys that it made in its data folder.
    ///
    /// # Errors
    /// As [`Keys::read`].
    pub fn keys(&self) -> anyhow::Result<Keys> {
        Keys::read(&self.data)
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        self.log
            .lock()
            .iter()
            .map(|line| format!("  | {line}\n"))
            .collect()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to {pid}"))
    }

    /// `kill -9`: no last word. Waits until the process is gone.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.kill().context("kill -9")?;
        self.child.wait().context("waiting for the killed process")
    }

    /// `kill -9` once a condition holds (at the latest after `bound`), from a thread of its own: whoever sends
    /// the load need not look up for it. Join the thread before [`Server::kill`] collects the process.
    pub fn kill_when(
        &self,
        bound: Duration,
        mut condition: impl FnMut() -> bool + Send + 'static,
    ) -> JoinHandle<()> {
        let pid = self.child.id();
        std::thread::spawn(move || {
            poll_until(bound, Duration::from_micros(50), || {
                condition().then_some(())
            });
            if let Ok(pid) = i32::try_from(pid) {
                // It fails only if the process is gone already; it is not collected before this thread ends.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        })
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// If it has not ended within the bound.
    pub fn stop(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait_for_end(within)
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// If it has not ended within the bound.
    pub fn wait_for_end(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        poll_until(within, Duration::from_millis(5), || {
            self.child.try_wait().ok().flatten()
        })
        .with_context(|| format!("still running after {within:?}\n{}", self.log()))
    }

    /// Whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keep_lines(
    stderr: impl Read + Send + 'static,
    log: Arc<Mutex<VecDeque<String>>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut log = log.lock();
            if log.len() == LOG_LINES_MAX {
                log.pop_front();
            }
            log.push_back(line);
        }
    })
}

fn ready_line(stdout: ChildStdout, within: Duration) -> Option<String> {
    let (send, receive) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let ready = lines.find(|line| line.starts_with("stampede ready"));
        // Nobody listens any more if it took too long.
        let _ = send.send(ready);
        // Keeps the pipe open and empty for as long as the server writes.
        lines.for_each(drop);
    });
    receive.recv_timeout(within).ok().flatten()
}

fn parse_ready(line: &str) -> Option<(SocketAddr, SocketAddr, String)> {
    let words = line.strip_prefix("stampede ready ")?;
    let value = |name: &str| {
        words
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    Some((
        value("public")?.parse().ok()?,
        value("admin")?.parse().ok()?,
        value("store")?.to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn script(dir: &Path, body: &str) -> PathBuf {
        let path = dir.join("server.sh");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_ready_line_is_read_and_the_process_ends_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let binary = script(
            dir.path(),
            "echo starting >&2\n\
             echo 'stampede ready public=127.0.0.1:18080 admin=127.0.0.1:19090 store=sqlite_fsync'\n\
             exec tail -f /dev/null",
        );
        let mut server = Server::start(&ServerOptions::new(&binary, dir.path())).unwrap();
        assert_eq!(server.public.port(), 18080);
        assert_eq!(server.admin.port(), 19090);
        assert_eq!(server.store, "sqlite_fsync");
        assert!(server.is_running());
        // Another thread reads what it says on stderr.
        let said = poll_until(Duration::from_secs(10), Duration::from_millis(1), || {
            server.log().contains("starting").then_some(())
        });
        assert!(said.is_some(), "{}", server.log());
        server.stop(Duration::from_secs(10)).unwrap();
        assert!(!server.is_running());
    }

    #[test]
    fn a_server_that_does_not_start_is_reported_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let binary = script(dir.path(), "echo 'the disk is on fire' >&2; exit 2");
        let error = Server::start(&ServerOptions::new(&binary, dir.path())).unwrap_err();
        assert!(error.to_string().contains("the disk is on fire"), "{error}");
    }

    #[test]
    fn a_ready_line_is_taken_apart() {
        assert!(parse_ready("stampede ready public=1.2.3.4:1 admin=x store=y").is_none());
        let (_, admin, _) =
            parse_ready("stampede ready public=[::1]:1 admin=[::1]:2 store=memory").unwrap();
        assert_eq!(admin.port(), 2);
    }
}
