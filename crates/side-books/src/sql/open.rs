//! Opening a database: its URL, its pools, their time-outs.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Once;
use std::time::Duration;

use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;
use tokio::time::Instant;

use super::{Migration, Reader, SqlError, Tx, migrate};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// A file of this process.
    Sqlite,
    /// A server.
    Postgres,
}

/// Where a database is.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `sqlite:FILE`; made where it is not there.
    Sqlite(PathBuf),
    /// `postgres://…`.
    Postgres(String),
}

impl DatabaseUrl {
    /// Which of the two.
    pub fn kind(&self) -> DatabaseKind {
        match self {
            Self::Sqlite(_) => DatabaseKind::Sqlite,
            Self::Postgres(_) => DatabaseKind::Postgres,
        }
    }
}

/// A text that names no database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is neither sqlite:FILE nor postgres://[user[:password]@]host[:port]/database")]
pub struct BadDatabaseUrl;

impl FromStr for DatabaseUrl {
    type Err = BadDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, BadDatabaseUrl> {
        if let Some(file) = text.strip_prefix("sqlite:") {
            let file = file.strip_prefix("//").unwrap_or(file);
            return if file.is_empty() || file.contains('?') || file.contains('\0') {
                Err(BadDatabaseUrl)
            } else {
                Ok(Self::Sqlite(PathBuf::from(file)))
            };
        }
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"));
        match rest {
            Some(rest) if !rest.is_empty() => Ok(Self::Postgres(text.to_owned())),
            Some(_) | None => Err(BadDatabaseUrl),
        }
    }
}

/// Without the password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.display()),
            Self::Postgres(url) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", ""));
                let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
                let place = place.split('?').next().unwrap_or_default();
                write!(f, "{scheme}://{place}")
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bounds of everything that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlOptions {
    /// Most connections to PostgreSQL; most readers of a SQLite file, which has one writer beside them.
    pub connections_max: u32,
    /// Longest wait for a connection.
    pub acquire_timeout: Duration,
    /// Longest transaction, from its begin to the answer of its commit; longest use of a reader.
    pub transaction_timeout: Duration,
}

impl Default for SqlOptions {
    fn default() -> Self {
        Self {
            connections_max: 8,
            acquire_timeout: Duration::from_secs(1),
            transaction_timeout: Duration::from_secs(5),
        }
    }
}

/// A database, with its pools. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    kind: DatabaseKind,
    reads: AnyPool,
    /// The same pool on PostgreSQL; a pool of one on SQLite.
    writes: AnyPool,
    options: SqlOptions,
}

impl Database {
    /// Opens it and brings its tables up to date.
    ///
    /// # Errors
    /// [`SqlError::Unavailable`]; [`SqlError::Broken`] where it was written by a newer program, or is something else.
    ///
    /// # Cancel safety
    /// Migrations are applied whole or not at all.
    pub async fn open(
        url: &DatabaseUrl,
        options: SqlOptions,
        migrations: &[Migration],
    ) -> Result<Self, SqlError> {
        let database = Self::lazy(url, options)?;
        database.migrate(migrations).await?;
        Ok(database)
    }

    /// The same without a word to the database: connections are made when they are needed. Nothing may be asked of its
    /// tables before [`Database::migrate`] has gone through. To be called inside of a runtime.
    ///
    /// # Errors
    /// [`SqlError::Broken`] where the URL cannot be read.
    pub fn lazy(url: &DatabaseUrl, options: SqlOptions) -> Result<Self, SqlError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        Ok(match url {
            DatabaseUrl::Sqlite(file) => {
                let url = sqlite_url(file);
                let writes = pool(options, 1, SQLITE_SESSION).connect_lazy(&url)?;
                let reads = pool(options, options.connections_max, SQLITE_SESSION);
                Self {
                    kind: DatabaseKind::Sqlite,
                    reads: reads.connect_lazy(&url)?,
                    writes,
                    options,
                }
            }
            DatabaseUrl::Postgres(url) => {
                let pool = pool(options, options.connections_max, POSTGRES_SESSION);
                let pool = pool.connect_lazy(url)?;
                Self {
                    kind: DatabaseKind::Postgres,
                    reads: pool.clone(),
                    writes: pool,
                    options,
                }
            }
        })
    }

    /// Brings its tables up to date.
    ///
    /// # Errors
    /// As [`Database::open`].
    ///
    /// # Cancel safety
    /// Migrations are applied whole or not at all.
    pub async fn migrate(&self, migrations: &[Migration]) -> Result<(), SqlError> {
        migrate::up(self, migrations).await
    }

    /// Which of the two.
    pub fn kind(&self) -> DatabaseKind {
        self.kind
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`SqlError::Unavailable`] where no connection is to be had in time; [`SqlError::Conflict`] where a SQLite file is
    /// locked by another process.
    ///
    /// # Cancel safety
    /// Nothing has begun.
    pub async fn begin(&self) -> Result<Tx, SqlError> {
        let deadline = Instant::now() + self.options.transaction_timeout;
        let connection = self.writes.acquire().await?;
        Tx::begin(connection, self.kind, deadline).await
    }

    /// A reader.
    ///
    /// # Errors
    /// [`SqlError::Unavailable`] where no connection is to be had in time.
    ///
    /// # Cancel safety
    /// Nothing has begun.
    pub async fn read(&self) -> Result<Reader, SqlError> {
        let deadline = Instant::now() + self.options.transaction_timeout;
        Ok(Reader::new(self.reads.acquire().await?, deadline))
    }

    /// Closes all connections, waiting for those in use.
    pub async fn close(&self) {
        self.writes.close().await;
        self.reads.close().await;
    }
}

/// `synchronous=FULL`: what is worth money is flushed before it is said.
const SQLITE_SESSION: &[&str] = &[
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA busy_timeout = 1000",
    "PRAGMA temp_store = MEMORY",
];
/// The server gives up by itself what we have given up, and a session that is gone holds no locks for long.
const POSTGRES_SESSION: &[&str] = &[
    "SET statement_timeout = 4000",
    "SET lock_timeout = 2000",
    "SET idle_in_transaction_session_timeout = 10000",
];

fn pool(
    options: SqlOptions,
    connections_max: u32,
    session: &'static [&'static str],
) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(options.acquire_timeout)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                for statement in session {
                    sqlx::query(*statement).execute(&mut *connection).await?;
                }
                Ok(())
            })
        })
}

/// The file as a URL; what would end its path is encoded.
fn sqlite_url(file: &std::path::Path) -> String {
    let mut url = String::from("sqlite://");
    for character in file.to_string_lossy().chars() {
        match character {
            '%' => url.push_str("%25"),
            '#' => url.push_str("%23"),
            ' ' => url.push_str("%20"),
            other => url.push(other),
        }
    }
    url.push_str("?mode=rwc");
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_shown_without_a_password() {
        for (text, shown) in [
            ("sqlite:a.db", "sqlite:a.db"),
            ("sqlite:/x/a b.db", "sqlite:/x/a b.db"),
            ("sqlite:///x/a.db", "sqlite:/x/a.db"),
            ("postgres://u:secret@h:5/d", "postgres://h:5/d"),
            ("postgresql://h/d?password=secret", "postgresql://h/d"),
        ] {
            let url: DatabaseUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("secret"));
        }
        for bad in [
            "",
            "sqlite:",
            "a.db",
            "postgres://",
            "mysql://h/d",
            "sqlite:a?mode=ro",
        ] {
            assert_eq!(bad.parse::<DatabaseUrl>(), Err(BadDatabaseUrl), "{bad}");
        }
    }
}
