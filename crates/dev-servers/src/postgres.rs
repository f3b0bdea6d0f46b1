//! A real PostgreSQL: a cluster in a temporary folder, on a free port of 127.0.0.1.
//!
//! Owns: the process and its folder. It does not run as root, so for root it is started as the user that its package made.
// stopped -> running <-> frozen; running and frozen -> stopped, by kill() or drop.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use crowd::wait::poll_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown, geteuid};
use tempfile::TempDir;

/// How long it may take to answer.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long killed processes may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// The user of the package.
const USER: &str = "postgres";

/// A PostgreSQL. Dropping it kills all of its processes.
#[derive(Debug)]
pub struct PostgresServer {
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
    databases: std::cell::Cell<u32>,
    /// Removed when the server is dropped.
    _temporary: TempDir,
}

impl PostgresServer {
    /// Makes a cluster, starts it and waits until it answers.
    ///
    /// # Errors
    /// If it is not installed, or is not ready in time; with its log.
    pub fn start() -> anyhow::Result<Self> {
        let temporary = tempfile::Builder::new().prefix("postgres-").tempdir()?;
        let dir = temporary.path().canonicalize()?;
        if let Some(user) = user()? {
            chown(&dir, Some(user.uid), Some(user.gid)).context("chown of its folder")?;
        }
        let made = command("initdb")?
            .args([
                "--no-sync",
                "--auth=trust",
                "--username=stampede",
                "--encoding=UTF8",
            ])
            .args(["--locale=C", "--pgdata"])
            .arg(dir.join("data"))
            .current_dir(&dir)
            .output()
            .context("initdb cannot be started")?;
        ensure!(
            made.status.success(),
            "initdb failed: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let mut server = Self {
            dir,
            port,
            child: None,
            databases: std::cell::Cell::new(0),
            _temporary: temporary,
        };
        server.launch()?;
        Ok(server)
    }

    /// Starts it again on the same folder and port.
    ///
    /// # Errors
    /// As [`PostgresServer::start`]; if it runs.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "PostgreSQL runs already");
        self.launch()
    }

    /// `kill -9` of all of its processes.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let pids = told(child.id(), Signal::SIGKILL);
        child.wait().context("waiting for the killed PostgreSQL")?;
        // They are not our children; a new server does not start while one of them is left.
        let gone = poll_until(GONE_WITHIN, Duration::from_millis(5), || {
            (!pids.iter().any(|pid| is_alive(*pid))).then_some(())
        });
        gone.context("processes of the killed PostgreSQL are left")
    }

    /// SIGSTOP to all of its processes: its sockets stay open and nobody answers.
    ///
    /// # Errors
    /// If it does not run.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT: undoes [`PostgresServer::freeze`].
    ///
    /// # Errors
    /// If it does not run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// A new, empty database; its URL.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn database(&self) -> anyhow::Result<String> {
        let number = self.databases.get() + 1;
        self.databases.set(number);
        let name = format!("d{number}");
        self.psql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(format!(
            "postgres://stampede@127.0.0.1:{}/{name}",
            self.port
        ))
    }

    /// Runs SQL by `psql` in one of its databases; gives what it prints, bare.
    ///
    /// # Errors
    /// If psql fails.
    pub fn psql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let database = database.rsplit('/').next().unwrap_or(database);
        let told = command("psql")?
            .args([
                "-X",
                "-q",
                "-t",
                "-A",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                "127.0.0.1",
            ])
            .args([
                "-U",
                "stampede",
                "-p",
                &self.port.to_string(),
                "-d",
                database,
                "-c",
                sql,
            ])
            .current_dir(&self.dir)
            .output()
            .context("psql cannot be started")?;
        ensure!(
            told.status.success(),
            "psql: {}",
            String::from_utf8_lossy(&told.stderr)
        );
        Ok(String::from_utf8_lossy(&told.stdout).trim().to_owned())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("PostgreSQL does not run")?;
        told(child.id(), signal);
        Ok(())
    }

    fn launch(&mut self) -> anyhow::Result<()> {
        let log = self.dir.join("log");
        let child = command("postgres")?
            .arg("-D")
            .arg(self.dir.join("data"))
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1"])
            .args([
                "-c",
                "unix_socket_directories=",
                "-c",
                "max_connections=100",
            ])
            .args(["-c", "shared_buffers=32MB"])
            .current_dir(&self.dir)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("postgres cannot be started")?;
        self.child = Some(child);
        let ready = poll_until(READY_WITHIN, Duration::from_millis(20), || {
            self.psql("postgres", "SELECT 1").ok()
        });
        if ready.is_none() {
            bail!(
                "PostgreSQL does not answer\n{}",
                fs::read_to_string(&log).unwrap_or_default()
            );
        }
        Ok(())
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Nobody is there to hear of it.
        let _ = self.kill();
    }
}

/// Tells a server and all below it, which are in sessions of their own; gives who they were. It is stopped first, so that it
/// starts no further ones meanwhile.
fn told(root: u32, signal: Signal) -> Vec<Pid> {
    let send = |pid, signal| {
        // One that ended meanwhile need not hear it.
        let _ = kill(pid, signal);
    };
    for pid in i32::try_from(root).into_iter().map(Pid::from_raw) {
        send(pid, Signal::SIGSTOP);
        settle(&[pid]);
    }
    let pids = descendants(root);
    // From below, so that nobody hears of the death of one that is still to be told.
    for pid in pids.iter().rev() {
        send(*pid, signal);
    }
    if signal == Signal::SIGSTOP {
        settle(&pids);
    }
    pids
}

/// Waits until all are stopped: a signal is only on its way when it is sent.
fn settle(pids: &[Pid]) {
    let is_running = |pid: &Pid| state(*pid).is_some_and(|state| !"TtZX".contains(state));
    // One that waits for a disk stops when it has it: whoever asked finds out.
    let _ = poll_until(GONE_WITHIN, Duration::from_millis(1), || {
        (!pids.iter().any(is_running)).then_some(())
    });
}

/// Neither gone nor waiting to be asked how it ended.
fn is_alive(pid: Pid) -> bool {
    state(pid).is_some_and(|state| !"ZX".contains(state))
}

/// The letter of its state; `None` if it is gone.
fn state(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A process and all below it.
fn descendants(root: u32) -> Vec<Pid> {
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let tasks = format!("/proc/{0}/task/{0}/children", found[next]);
        let children = fs::read_to_string(tasks).unwrap_or_default();
        found.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
        next += 1;
    }
    let pids = found.into_iter().filter_map(|pid| i32::try_from(pid).ok());
    pids.map(Pid::from_raw).collect()
}

/// Who it runs as, if not as we do.
fn user() -> anyhow::Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name(USER)?;
    Ok(Some(user.context(
        "root cannot run PostgreSQL, and there is no user postgres: install the package postgresql",
    )?))
}

fn command(program: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(path_of(program)?);
    if let Some(user) = user()? {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        command.env("HOME", "/tmp");
    }
    Ok(command)
}

/// Debian keeps the server's programs out of the path.
fn path_of(program: &str) -> anyhow::Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut bins: Vec<PathBuf> = versions
        .filter_map(|entry| Some(entry.ok()?.path().join("bin").join(program)))
        .filter(|path| path.is_file())
        .collect();
    bins.sort();
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&in_path).map(|dir| dir.join(program));
    let found = bins
        .into_iter()
        .rev()
        .chain(in_path)
        .find(|path| Path::is_file(path));
    found.with_context(|| format!("{program} is not installed: apt-get install postgresql"))
}
