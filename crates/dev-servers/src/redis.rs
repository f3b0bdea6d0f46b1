//! A real Redis: started on a unix socket, at wish on a TCP or TLS port too, and ended in every way there is.
//!
//! Owns: the process, its config and its data. Invariant: the folder is touched only while no process runs in it.
// stopped -> running <-> frozen; running and frozen -> stopped, by kill() or drop; running -> stopped by stop().

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use crowd::wait::poll_until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

mod certificates;
mod options;
mod resp;

use certificates::Certificates;
pub use options::{AppendFsync, RedisOptions};
use options::{Places, config_text};

const PROGRAM: &str = "redis-server";
/// How long it may take to load its data and answer, and how long to end.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The kernel allows 108 bytes with the final zero; some clients less.
const SOCKET_PATH_BYTES_MAX: usize = 99;
/// So much of the log is told.
const LOG_BYTES_MAX: usize = 8 << 10;

/// A Redis. Dropping it kills the process.
#[derive(Debug)]
pub struct RedisServer {
    options: RedisOptions,
    dir: PathBuf,
    socket: PathBuf,
    port: Option<u16>,
    certificates: Certificates,
    /// There while it runs, that is until it was waited for: the process id cannot become another's before.
    child: Option<Child>,
    /// Removed when the server is dropped.
    _temporary: Vec<TempDir>,
}

impl RedisServer {
    /// Starts a Redis and waits until it has loaded its data and answers.
    ///
    /// # Errors
    /// If it is not installed, ends, or is not ready in time; with the last lines of its log.
    pub fn start(options: RedisOptions) -> anyhow::Result<Self> {
        let mut temporary = Vec::new();
        let mut temporary_dir = |parent: &Path| -> anyhow::Result<PathBuf> {
            let dir = tempfile::Builder::new()
                .prefix("redis-")
                .tempdir_in(parent)?;
            let path = dir.path().to_owned();
            temporary.push(dir);
            Ok(path)
        };
        let dir = match &options.dir {
            Some(dir) => {
                fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
                dir.canonicalize()?
            }
            None => temporary_dir(&std::env::temp_dir())?.canonicalize()?,
        };
        let mut socket = dir.join("redis.sock");
        if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            socket = temporary_dir(Path::new("/tmp"))?.join("redis.sock");
        }
        // From here on dropping `server` ends the process.
        let mut server = Self {
            options,
            certificates: Certificates::within(dir.join("tls")),
            dir,
            socket,
            port: None,
            child: None,
            _temporary: temporary,
        };
        server.launch()?;
        Ok(server)
    }

    /// Starts it again on the same folder, socket and port, and waits until it has loaded its data.
    ///
    /// # Errors
    /// If it was not stopped or killed before; as [`RedisServer::start`].
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.restart_with(|_| ())
    }

    /// The same with other options. The folder stays what it was.
    ///
    /// # Errors
    /// As [`RedisServer::restart`].
    pub fn restart_with(&mut self, change: impl FnOnce(&mut RedisOptions)) -> anyhow::Result<()> {
        self.must_be_stopped()?;
        change(&mut self.options);
        self.launch()
    }

    /// `kill -9`: no last word. Waits until the process is gone; does nothing if it is.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child {
            child.kill().context("kill -9")?;
            child.wait().context("waiting for the killed Redis")?;
        }
        self.child = None;
        Ok(())
    }

    /// SIGTERM, and waits for the end. A frozen server does not hear it.
    ///
    /// # Errors
    /// If it does not run, or has not ended within the bound; then it runs on.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        poll_until(READY_WITHIN, Duration::from_millis(2), || self.ended())
            .map(drop)
            .with_context(|| format!("Redis still runs after {READY_WITHIN:?}\n{}", self.log()))
    }

    /// SIGSTOP: its sockets stay open and nobody answers. Waits until it stands still.
    ///
    /// # Errors
    /// If it does not run.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let stat = format!("/proc/{}/stat", self.pid()?);
        poll_until(READY_WITHIN, Duration::from_micros(200), || {
            let stat = fs::read_to_string(&stat).ok()?;
            // The state follows the program's name, which is in brackets.
            let (_, state) = stat.rsplit_once(") ")?;
            state.starts_with('T').then_some(())
        })
        .context("Redis was told to stand still and does not")
    }

    /// SIGCONT: undoes [`RedisServer::freeze`].
    ///
    /// # Errors
    /// If it does not run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Its process id.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pid(&self) -> anyhow::Result<u32> {
        let child = self.child.as_ref().context("Redis does not run")?;
        Ok(child.id())
    }

    /// Where clients connect: with TLS `rediss://`, with a port `redis://`, otherwise `redis+unix://`.
    pub fn url(&self) -> String {
        let password = self.options.password.as_deref().map(percent_encoded);
        match self.port {
            Some(port) => {
                let scheme = if self.options.tls { "rediss" } else { "redis" };
                let login = password.map_or(String::new(), |password| format!(":{password}@"));
                format!("{scheme}://{login}127.0.0.1:{port}/0")
            }
            None => {
                let query = password.map_or(String::new(), |password| format!("?pass={password}"));
                format!("redis+unix://{}{query}", self.socket.display())
            }
        }
    }

    /// Its unix socket, which is there whatever else it listens on.
    pub fn socket_path(&self) -> &Path {
        &self.socket
    }

    /// The port on 127.0.0.1, if it was told to listen on one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The authority that signed its certificate. There only if it speaks TLS.
    pub fn ca_file(&self) -> &Path {
        &self.certificates.ca
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the append-only files are.
    pub fn aof_dir(&self) -> PathBuf {
        self.dir.join("appendonlydir")
    }

    /// Runs one command over the unix socket; the reply as text: strings as they are, integers as digits, arrays one
    /// element a line, nothing as `(nil)`.
    ///
    /// # Errors
    /// If Redis answers with an error, which is then the message; if it does not answer in time.
    pub fn command(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut stream = UnixStream::connect(&self.socket).context("connecting to Redis")?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        let mut replies = BufReader::new(stream.try_clone()?);
        if let Some(password) = &self.options.password {
            resp::send(&mut stream, &["AUTH", password])?;
            resp::receive(&mut replies)?;
        }
        resp::send(&mut stream, words)?;
        resp::receive(&mut replies)
    }

    /// Removes what it has stored.
    ///
    /// # Errors
    /// If it runs, or the files cannot be removed.
    pub fn delete_data(&self) -> anyhow::Result<()> {
        self.must_be_stopped()?;
        absent_is_fine(fs::remove_dir_all(self.aof_dir())).context("removing appendonlydir")?;
        absent_is_fine(fs::remove_file(self.dir.join("dump.rdb"))).context("removing dump.rdb")
    }

    /// Cuts the last bytes off the newest append-only file, as a crash of the machine would.
    ///
    /// # Errors
    /// If it runs, or the file has fewer bytes.
    pub fn truncate_aof_tail(&self, bytes: u64) -> anyhow::Result<()> {
        self.must_be_stopped()?;
        let path = self.newest_aof()?;
        let file = File::options().write(true).open(&path)?;
        let length = file.metadata()?.len();
        let shorter = length
            .checked_sub(bytes)
            .with_context(|| format!("{} has only {length} bytes", path.display()))?;
        file.set_len(shorter)
            .with_context(|| format!("cutting {}", path.display()))
    }

    /// The end of its log, and of what it said before it had one.
    pub fn log(&self) -> String {
        [self.output_file(), self.log_file()]
            .iter()
            .filter_map(|path| fs::read(path).ok())
            .map(|text| {
                let tail = &text[text.len().saturating_sub(LOG_BYTES_MAX)..];
                String::from_utf8_lossy(tail).into_owned()
            })
            .collect()
    }

    /// Starts the process and waits for it; if somebody else took the port meanwhile, again: the first time with
    /// another port, later with the same, since clients know it.
    fn launch(&mut self) -> anyhow::Result<()> {
        if self.options.tls {
            self.certificates.make()?;
        }
        let keeps_port = self.port.is_some();
        poll_until(READY_WITHIN, Duration::from_millis(50), || {
            match self.options.has_port() {
                true if keeps_port => (),
                true => self.port = free_port(),
                false => self.port = None,
            }
            match self.launch_once() {
                Ok(Launched::Ready) => Some(Ok(())),
                Ok(Launched::PortTaken) => None,
                Err(error) => Some(Err(error)),
            }
        })
        .with_context(|| format!("no port for Redis within {READY_WITHIN:?}\n{}", self.log()))?
    }

    fn launch_once(&mut self) -> anyhow::Result<Launched> {
        let config = self.dir.join("redis.conf");
        let places = Places {
            dir: &self.dir,
            socket: &self.socket,
            port: self.port,
            log: &self.log_file(),
            ca: &self.certificates.ca,
            certificate: &self.certificates.certificate,
            key: &self.certificates.key,
        };
        fs::write(&config, config_text(&self.options, &places)).context("writing redis.conf")?;
        // A log of one start alone: what it says about the port is about this one.
        absent_is_fine(fs::remove_file(self.log_file())).context("removing the old log")?;
        self.spawn(&config)?;
        let progress = poll_until(READY_WITHIN, Duration::from_millis(2), || {
            let ended = self.ended().map(Progress::Ended);
            ended.or_else(|| self.answers().then_some(Progress::Ready))
        });
        match progress {
            Some(Progress::Ready) => Ok(Launched::Ready),
            Some(Progress::Ended(_)) if self.log().contains("Address already in use") => {
                Ok(Launched::PortTaken)
            }
            Some(Progress::Ended(status)) => bail!("Redis ended: {status}\n{}", self.log()),
            None => {
                self.kill()?;
                bail!("Redis not ready within {READY_WITHIN:?}\n{}", self.log())
            }
        }
    }

    fn spawn(&mut self, config: &Path) -> anyhow::Result<()> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        ensure!(
            std::env::split_paths(&path).any(|dir| dir.join(PROGRAM).is_file()),
            "{PROGRAM} is not installed: cargo xtask setup"
        );
        let mut words = self.options.wrapper.iter().map(String::as_str);
        let mut command = Command::new(words.next().unwrap_or(PROGRAM));
        if !self.options.wrapper.is_empty() {
            command.args(words).arg(PROGRAM);
        }
        let output = File::create(self.output_file()).context("making redis.out")?;
        let child = command
            .arg(config)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        self.child = Some(child);
        Ok(())
    }

    /// Whether it has loaded its data and every listener is there.
    fn answers(&self) -> bool {
        self.command(&["PING"]).is_ok_and(|reply| reply == "PONG")
            && self
                .port
                .is_none_or(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
    }

    /// How it ended, if it did.
    fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()?).context("a process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to {pid}"))
    }

    fn must_be_stopped(&self) -> anyhow::Result<()> {
        ensure!(
            self.child.is_none(),
            "Redis runs in {}: stop or kill it first",
            self.dir.display()
        );
        Ok(())
    }

    /// `appendonly.aof.<number>.incr.aof` with the greatest number.
    fn newest_aof(&self) -> anyhow::Result<PathBuf> {
        let dir = self.aof_dir();
        let entries = fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
        entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let name = path.file_name()?.to_str()?.strip_suffix(".incr.aof")?;
                let number: u64 = name.rsplit_once('.')?.1.parse().ok()?;
                Some((number, path))
            })
            .max()
            .map(|(_, path)| path)
            .with_context(|| format!("no append-only file in {}", dir.display()))
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("redis.log")
    }

    fn output_file(&self) -> PathBuf {
        self.dir.join("redis.out")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It fails only if the process is gone already.
        let _ = self.kill();
    }
}

enum Launched {
    Ready,
    PortTaken,
}

enum Progress {
    Ready,
    Ended(ExitStatus),
}

/// A port that was free a moment ago.
fn free_port() -> Option<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    Some(listener.local_addr().ok()?.port())
}

fn absent_is_fine(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// A text that may stand anywhere in a URL.
fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests;
