//! How a Redis is to run, and that as its config file.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// When the append-only file is flushed to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppendFsync {
    /// Before the answer.
    #[default]
    Always,
    /// Once a second.
    Everysec,
    /// When the kernel likes.
    No,
}

impl AppendFsync {
    fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Everysec => "everysec",
            Self::No => "no",
        }
    }
}

/// How to start a Redis: by default as durable as it gets, on a unix socket alone, in a folder of its own.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Whether it keeps an append-only file. There are no snapshots, so without it nothing outlives the process.
    pub appendonly: bool,
    /// When that file is flushed.
    pub appendfsync: AppendFsync,
    /// Asked of every client.
    pub password: Option<String>,
    /// Listens with TLS on a free port, and on no port without.
    pub tls: bool,
    /// Listens on a free port.
    pub is_tcp: bool,
    /// Beyond this, writes are refused.
    pub maxmemory_bytes: Option<u64>,
    /// Further config lines as name and value; they come last and so win over the others.
    pub extra: Vec<(String, String)>,
    /// Words before the program, such as `taskset -c 0`. They must end in an exec, so that the process id is the
    /// server's.
    pub wrapper: Vec<String>,
    /// Its folder, made if it is not there and kept; without one it has a temporary folder.
    pub dir: Option<PathBuf>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            appendonly: true,
            appendfsync: AppendFsync::Always,
            password: None,
            tls: false,
            is_tcp: false,
            maxmemory_bytes: None,
            extra: Vec::new(),
            wrapper: Vec::new(),
            dir: None,
        }
    }
}

impl RedisOptions {
    /// Whether to keep an append-only file.
    #[must_use]
    pub fn appendonly(mut self, appendonly: bool) -> Self {
        self.appendonly = appendonly;
        self
    }

    /// When to flush it.
    #[must_use]
    pub fn appendfsync(mut self, appendfsync: AppendFsync) -> Self {
        self.appendfsync = appendfsync;
        self
    }

    /// Asks every client for a password.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Listens with TLS.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Listens on a TCP port.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.is_tcp = true;
        self
    }

    /// Refuses writes beyond so much memory.
    #[must_use]
    pub fn maxmemory_bytes(mut self, bytes: u64) -> Self {
        self.maxmemory_bytes = Some(bytes);
        self
    }

    /// One more config line.
    #[must_use]
    pub fn extra(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// Words before the program.
    #[must_use]
    pub fn wrapper<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.wrapper = words.into_iter().map(Into::into).collect();
        self
    }

    /// A folder that stays.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    pub(super) fn has_port(&self) -> bool {
        self.is_tcp || self.tls
    }
}

/// Where a server is, as opposed to how it runs.
pub(super) struct Places<'a> {
    pub dir: &'a Path,
    pub socket: &'a Path,
    pub port: Option<u16>,
    pub log: &'a Path,
    pub ca: &'a Path,
    pub certificate: &'a Path,
    pub key: &'a Path,
}

/// The config file. Of two lines with the same name Redis takes the last.
pub(super) fn config_text(options: &RedisOptions, places: &Places<'_>) -> String {
    let path = |path: &Path| quoted(&path.to_string_lossy());
    let yes_no = |is_on: bool| if is_on { "yes" } else { "no" }.to_owned();
    let port = places.port.unwrap_or(0);
    let (plain_port, tls_port) = if options.tls { (0, port) } else { (port, 0) };
    let mut lines = vec![
        ("daemonize", "no".to_owned()),
        ("dir", path(places.dir)),
        ("logfile", path(places.log)),
        ("bind", "127.0.0.1".to_owned()),
        ("port", plain_port.to_string()),
        ("unixsocket", path(places.socket)),
        ("save", quoted("")),
        ("appendonly", yes_no(options.appendonly)),
        ("appendfsync", options.appendfsync.as_str().to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
    ];
    if let Some(bytes) = options.maxmemory_bytes {
        lines.push(("maxmemory", bytes.to_string()));
    }
    if let Some(password) = &options.password {
        lines.push(("requirepass", quoted(password)));
    }
    if options.tls {
        lines.extend([
            ("tls-port", tls_port.to_string()),
            ("tls-ca-cert-file", path(places.ca)),
            ("tls-cert-file", path(places.certificate)),
            ("tls-key-file", path(places.key)),
            ("tls-auth-clients", "no".to_owned()),
        ]);
    }
    let extra = options.extra.iter().map(|(name, value)| (&**name, value));
    let lines = lines.iter().map(|(name, value)| (*name, value));
    lines
        .chain(extra)
        .fold(String::new(), |mut text, (name, value)| {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{name} {value}");
            text
        })
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_lines_come_last_and_strange_words_are_quoted() {
        let options = RedisOptions::default()
            .password("a \"b\\")
            .extra("maxmemory-policy", "allkeys-lru");
        let somewhere = Path::new("/some where");
        let places = Places {
            dir: somewhere,
            socket: somewhere,
            port: None,
            log: somewhere,
            ca: somewhere,
            certificate: somewhere,
            key: somewhere,
        };
        let text = config_text(&options, &places);
        assert!(text.contains("dir \"/some where\"\n"), "{text}");
        assert!(text.contains("requirepass \"a \\\"b\\\\\"\n"), "{text}");
        assert!(text.contains("port 0\n"), "{text}");
        assert!(text.ends_with("maxmemory-policy allkeys-lru\n"), "{text}");
    }
}
