//! How a Redis is reached, and what it has to be before anything is trusted to it.
//!
//! Every new connection is asked who serves (run id), in which role, and how durable its writes are; what a server
//! promises may change between two connections.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flash_types::Durability;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError,
    TlsCertificates,
};

/// The oldest that judges a script before it runs it (`#!lua`).
const VERSION_MIN: (u32, u32) = (7, 0);
/// Probes on a silent connection begin after so long.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Where a Redis is, as configured. Never shows a password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    text: String,
}

impl RedisUrl {
    /// Checks the form: `redis://`, `rediss://` or `redis+unix://`, with user, password and database as in these.
    ///
    /// # Errors
    /// One line that says what would be taken.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Self {
            text: text.trim().to_owned(),
        };
        let forms = "redis://[user:password@]host:port/database, rediss:// for TLS, \
                     redis+unix:///path/to/socket?db=0&pass=...";
        if text.contains("sentinel") || text.contains(',') {
            return Err(format!(
                "{}: Sentinel and Cluster are not built yet; one Redis is: {forms}",
                url.shown()
            ));
        }
        let is_known = ["redis://", "rediss://", "redis+unix://"]
            .iter()
            .any(|scheme| url.text.starts_with(scheme));
        if !is_known {
            return Err(format!(
                "{:?} is not a Redis URL; these are: {forms}",
                url.shown()
            ));
        }
        url.info()
            .map_err(|error| format!("{}: {error}; a URL is {forms}", url.shown()))?;
        Ok(url)
    }

    /// For people: without user and password.
    pub fn shown(&self) -> String {
        let text = match (self.text.find("://"), self.text.rfind('@')) {
            (Some(scheme), Some(at)) if at > scheme => {
                format!("{}{}", &self.text[..scheme + 3], &self.text[at + 1..])
            }
            _ => self.text.clone(),
        };
        match text.split_once('?') {
            Some((path, _)) => path.to_owned(),
            None => text,
        }
    }

    /// What makes connections to it; `ca_file` as in [`LinkConfig`]. Reads certificates, connects to nothing.
    ///
    /// # Errors
    /// One line that names what cannot be used.
    pub fn client(&self, ca_file: Option<&Path>) -> Result<Client, String> {
        self.client_over(TcpSettings::default(), ca_file)
    }

    fn client_over(&self, tcp: TcpSettings, ca_file: Option<&Path>) -> Result<Client, String> {
        let failed = |error: RedisError| format!("{}: {error}", self.shown());
        let info = self.info().map_err(failed)?.set_tcp_settings(tcp);
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Client::open(info).map_err(failed);
        }
        // Another part of the process may have chosen already; one choice is as good as the other.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let root_cert = match ca_file {
            Some(file) => Some(
                std::fs::read(file)
                    .map_err(|error| format!("cannot read {}: {error}", file.display()))?,
            ),
            None => None,
        };
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert,
        };
        Client::build_with_tls(info, certificates).map_err(failed)
    }

    fn info(&self) -> Result<ConnectionInfo, RedisError> {
        self.text.as_str().into_connection_info()
    }
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

/// How to reach it, and what it must promise.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Where.
    pub url: RedisUrl,
    /// Certificates (PEM) of the authority that signed the server's; the system's where absent.
    pub ca_file: Option<PathBuf>,
    /// Within which a connection must stand, and an answer be there; then the connection is dropped.
    pub timeout: Duration,
    /// Less than this is refused.
    pub durability_min: Durability,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkError {
    /// It may be there in a moment.
    Away(String),
    /// It is there, and not what it has to be; a person has to change that.
    Unfit(String),
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Away(why) | Self::Unfit(why)) = self;
        f.write_str(why)
    }
}

/// A connection, and who is at its other end.
pub struct Link {
    /// The connection.
    pub connection: MultiplexedConnection,
    /// Names the server's process: another one after a restart or a failover.
    pub run_id: String,
    /// What a write is worth there.
    pub durability: Durability,
}

impl Link {
    /// Asks whether it is still there.
    ///
    /// # Cancel safety
    /// Dropping it leaves the connection of no use.
    pub async fn answers(&mut self) -> bool {
        let ping = redis::cmd("PING");
        ping.query_async::<()>(&mut self.connection).await.is_ok()
    }
}

/// Makes connections.
#[derive(Debug, Clone)]
pub struct Linker {
    client: Client,
    shown: String,
    timeout: Duration,
    durability_min: Durability,
}

impl Linker {
    /// Reads certificates; connects to nothing.
    ///
    /// # Errors
    /// One line that names what cannot be used.
    pub fn new(config: &LinkConfig) -> Result<Self, String> {
        let shown = config.url.shown();
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(socket2::TcpKeepalive::new().with_time(KEEPALIVE))
            .set_user_timeout(config.timeout * 2);
        let client = config.url.client_over(tcp, config.ca_file.as_deref())?;
        Ok(Self {
            client,
            shown,
            timeout: config.timeout,
            durability_min: config.durability_min,
        })
    }

    /// For people.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// What a pool needs to make connections of its own.
    pub fn for_pool(&self) -> (ConnectionInfo, AsyncConnectionConfig) {
        (self.client.get_connection_info().clone(), self.config())
    }

    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
    }

    /// Connects and looks who is there.
    ///
    /// # Errors
    /// [`LinkError`] says whether to try again.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection.
    pub async fn link(&self) -> Result<Link, LinkError> {
        let config = self.config();
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        // The library's own time-out does not cover every step (TLS, the first commands).
        let connection = match tokio::time::timeout(self.timeout * 2, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(self.not_connected(&error)),
            Err(_) => {
                let why = format!("{} does not answer", self.shown);
                return Err(LinkError::Away(why));
            }
        };
        self.look(connection).await
    }

    fn not_connected(&self, error: &RedisError) -> LinkError {
        let why = format!("cannot connect to {}: {error}", self.shown);
        let is_denied = error.kind() == redis::ErrorKind::AuthenticationFailed
            || matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "NOPERM"));
        let is_no_database = error
            .detail()
            .is_some_and(|detail| detail.contains("DB index"));
        if is_denied {
            LinkError::Unfit(format!("{why}; check user and password in the URL"))
        } else if is_no_database {
            LinkError::Unfit(format!("{why}; check the database number in the URL"))
        } else {
            LinkError::Away(why)
        }
    }

    async fn look(&self, mut connection: MultiplexedConnection) -> Result<Link, LinkError> {
        let away = |error: RedisError| match error.code() {
            Some("NOAUTH" | "NOPERM") => LinkError::Unfit(format!("{}: {error}", self.shown)),
            _ => LinkError::Away(format!("{}: {error}", self.shown)),
        };
        let info: String = redis::cmd("INFO")
            .query_async(&mut connection)
            .await
            .map_err(away)?;
        let server = Server::of(&info);
        server.check().map_err(|error| match error {
            LinkError::Away(why) => LinkError::Away(format!("{}: {why}", self.shown)),
            LinkError::Unfit(why) => LinkError::Unfit(format!("{}: {why}", self.shown)),
        })?;
        let settings: Result<Vec<String>, RedisError> = redis::cmd("CONFIG")
            .arg("GET")
            .arg(&["appendonly", "appendfsync", "no-appendfsync-on-rewrite"])
            .query_async(&mut connection)
            .await;
        let durability = match settings {
            Ok(settings) => durability_of(&settings),
            // A server that hides its settings is trusted with the least that it could mean.
            Err(error) if is_hidden(&error) => Durability::RedisMemory,
            Err(error) => return Err(away(error)),
        };
        if rank(durability) < rank(self.durability_min) {
            return Err(LinkError::Unfit(format!(
                "{} offers {}, store.redis_durability_min asks for {}: {}",
                self.shown,
                durability.as_str(),
                self.durability_min.as_str(),
                settings_for(self.durability_min)
            )));
        }
        Ok(Link {
            connection,
            run_id: server.run_id.to_owned(),
            durability,
        })
    }
}

/// The server does not tell its settings to this user, or to nobody.
fn is_hidden(error: &RedisError) -> bool {
    let is_unknown = error
        .detail()
        .is_some_and(|detail| detail.contains("unknown command"));
    error.code() == Some("NOPERM") || is_unknown
}

/// The settings that a level needs.
fn settings_for(level: Durability) -> &'static str {
    match level {
        Durability::RedisAofAlways => {
            "set appendonly yes, appendfsync always, no-appendfsync-on-rewrite no"
        }
        Durability::RedisAofEverysec => {
            "set appendonly yes, appendfsync everysec, no-appendfsync-on-rewrite no"
        }
        Durability::RedisMemory | Durability::SqliteFsync | Durability::Memory => {
            "any setting does"
        }
    }
}

/// Levels of Redis in their order.
pub fn rank(level: Durability) -> u8 {
    match level {
        Durability::Memory | Durability::RedisMemory => 0,
        Durability::RedisAofEverysec => 1,
        Durability::RedisAofAlways | Durability::SqliteFsync => 2,
    }
}

/// What a write is worth under these settings (name, value, name, value ...).
fn durability_of(settings: &[String]) -> Durability {
    let value = |name: &str| {
        settings
            .chunks_exact(2)
            .find(|pair| pair[0] == name)
            .map(|pair| pair[1].as_str())
    };
    // While the file is rewritten nothing would be flushed.
    let is_flushed = value("no-appendfsync-on-rewrite") == Some("no");
    match (value("appendonly"), value("appendfsync"), is_flushed) {
        (Some("yes"), Some("always"), true) => Durability::RedisAofAlways,
        (Some("yes"), Some("everysec"), true) => Durability::RedisAofEverysec,
        _ => Durability::RedisMemory,
    }
}

/// What INFO says.
struct Server<'a> {
    version: &'a str,
    run_id: &'a str,
    role: &'a str,
    policy: &'a str,
    is_cluster: bool,
    is_loading: bool,
}

impl<'a> Server<'a> {
    fn of(info: &'a str) -> Self {
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .unwrap_or_default()
                .trim()
        };
        Self {
            version: field("redis_version"),
            run_id: field("run_id"),
            role: field("role"),
            policy: field("maxmemory_policy"),
            is_cluster: field("cluster_enabled") == "1",
            is_loading: field("loading") == "1",
        }
    }

    fn check(&self) -> Result<(), LinkError> {
        let mut parts = self.version.split('.').map(str::parse::<u32>);
        let version = match (parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
            _ => (0, 0),
        };
        if version < VERSION_MIN || self.run_id.is_empty() {
            return Err(LinkError::Unfit(format!(
                "is version {:?}; Redis 7.0 or newer is needed",
                self.version
            )));
        }
        if self.is_cluster {
            let why = "is part of a Redis Cluster, which is not built yet; use one Redis";
            return Err(LinkError::Unfit(why.into()));
        }
        if self.policy != "noeviction" {
            return Err(LinkError::Unfit(format!(
                "maxmemory-policy is {}: it could throw reservations away; set noeviction",
                self.policy
            )));
        }
        if self.is_loading {
            return Err(LinkError::Away("is loading its data".into()));
        }
        if self.role != "master" {
            return Err(LinkError::Away(format!(
                "is a {}, not the master",
                self.role
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_never_show_a_password() {
        for good in [
            "redis://127.0.0.1:6379/0",
            "redis://user:s3cret@host:1/3",
            "rediss://:s3cret@host/0",
            "redis+unix:///run/redis.sock?db=2&pass=s3cret",
        ] {
            let url = RedisUrl::parse(good).unwrap();
            assert!(!url.shown().contains("s3cret"), "{}", url.shown());
            assert!(!format!("{url:?}").contains("s3cret"));
        }
        for (bad, told) in [
            ("http://host", "not a Redis URL"),
            ("host:6379", "not a Redis URL"),
            ("redis://host/x", "database number"),
            ("redis+sentinel://h:1/m", "not built yet"),
            ("redis://a:1,redis://b:2", "not built yet"),
            ("redis://user:s3cret@", "a URL is"),
            ("", "not a Redis URL"),
        ] {
            let error = RedisUrl::parse(bad).unwrap_err();
            assert!(error.contains(told), "{bad}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_level_is_only_what_the_settings_give() {
        let level = |only: &str, fsync: &str, rewrite: &str| {
            let pairs = [
                ("appendonly", only),
                ("appendfsync", fsync),
                ("no-appendfsync-on-rewrite", rewrite),
            ];
            let words: Vec<String> = pairs
                .iter()
                .flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()])
                .collect();
            durability_of(&words)
        };
        assert_eq!(level("yes", "always", "no"), Durability::RedisAofAlways);
        assert_eq!(level("yes", "everysec", "no"), Durability::RedisAofEverysec);
        assert_eq!(level("yes", "always", "yes"), Durability::RedisMemory);
        assert_eq!(level("yes", "no", "no"), Durability::RedisMemory);
        assert_eq!(level("no", "always", "no"), Durability::RedisMemory);
        assert_eq!(durability_of(&[]), Durability::RedisMemory);
        let order = [
            Durability::RedisMemory,
            Durability::RedisAofEverysec,
            Durability::RedisAofAlways,
        ];
        assert!(order.is_sorted_by(|one, next| rank(*one) < rank(*next)));
    }

    #[test]
    fn a_server_that_could_lose_or_refuse_is_named() {
        let info = |extra: &str| {
            format!(
                "redis_version:7.0.15\r\nrun_id:abc\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n\
                 cluster_enabled:0\r\nloading:0\r\n{extra}"
            )
        };
        assert_eq!(Server::of(&info("")).check(), Ok(()));
        for (from, to, told, is_unfit) in [
            ("7.0.15", "6.2.7", "7.0 or newer", true),
            ("noeviction", "allkeys-lru", "set noeviction", true),
            ("cluster_enabled:0", "cluster_enabled:1", "Cluster", true),
            ("role:master", "role:slave", "not the master", false),
            ("loading:0", "loading:1", "loading", false),
        ] {
            let text = info("").replace(from, to);
            let error = Server::of(&text).check().unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
            assert_eq!(matches!(error, LinkError::Unfit(_)), is_unfit);
        }
    }
}
