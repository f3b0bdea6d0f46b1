//! Opening a database: its URL, its pools, their time-outs.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Once};
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::{AnyPool, AssertSqlSafe, Connection as _};
use tokio::time::{Instant, timeout};

use super::doubt::Doubt;
use super::group::Writer;
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

/// What a database is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Write,
    Read,
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
    /// Of a SQLite file: those who write, in line.
    writer: Option<Writer>,
    options: SqlOptions,
    doubt: Arc<Doubt>,
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
        if let Err(error) = database.migrate(migrations).await {
            database.close().await;
            return Err(error);
        }
        Ok(database)
    }

    /// The same without a word to the database: connections are made when they are needed. Nothing may be asked of its
    /// tables before [`Database::migrate`] has gone through. To be called inside of a runtime.
    ///
    /// # Errors
    /// [`SqlError::Broken`] where the URL cannot be read.
    pub fn lazy(url: &DatabaseUrl, options: SqlOptions) -> Result<Self, SqlError> {
        Self::lazy_for(url, options, Access::Write)
    }

    /// Opens it to be read only, as it is: nothing is made, nothing is brought up to date, and other processes may be at
    /// work on it. Its tables have to be all that this program knows, and no others.
    ///
    /// # Errors
    /// [`SqlError::Unavailable`], also where there is no such file; [`SqlError::Broken`] where it is something else, or of
    /// another program, with what to do.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn open_to_read(
        url: &DatabaseUrl,
        options: SqlOptions,
        migrations: &[Migration],
    ) -> Result<Self, SqlError> {
        let database = Self::lazy_for(url, options, Access::Read)?;
        if let Err(error) = migrate::check(&database, migrations).await {
            database.close().await;
            return Err(error);
        }
        Ok(database)
    }

    fn lazy_for(url: &DatabaseUrl, options: SqlOptions, access: Access) -> Result<Self, SqlError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let doubt = Arc::new(Doubt::new());
        let (kind, text) = match url {
            DatabaseUrl::Sqlite(file) => (DatabaseKind::Sqlite, sqlite_url(file, access)),
            DatabaseUrl::Postgres(url) => (DatabaseKind::Postgres, url.clone()),
        };
        let pool = |connections_max| pool(kind, options, access, connections_max, &doubt);
        let reads = pool(options.connections_max).connect_lazy(&text)?;
        let writes = match kind {
            DatabaseKind::Sqlite => pool(1).connect_lazy(&text)?,
            DatabaseKind::Postgres => reads.clone(),
        };
        let writer = match kind {
            DatabaseKind::Sqlite => Some(Writer::new(writes.clone(), Arc::clone(&doubt))),
            DatabaseKind::Postgres => None,
        };
        Ok(Self {
            kind,
            reads,
            writes,
            writer,
            options,
            doubt,
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
        let give_up = Instant::now() + OPEN_LONGEST;
        loop {
            match migrate::up(self, migrations).await {
                // Another process brings the same tables up to date.
                Err(SqlError::Conflict) if Instant::now() < give_up => {
                    tokio::time::sleep(OPEN_AGAIN_AFTER).await;
                }
                migrated => return migrated,
            }
        }
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
        self.begin_within(self.options.transaction_timeout).await
    }

    pub(super) async fn begin_within(&self, longest: Duration) -> Result<Tx, SqlError> {
        let deadline = Instant::now() + longest;
        if let Some(writer) = &self.writer {
            let patience = Instant::now() + self.options.acquire_timeout;
            return Tx::begin_in_turn(writer, patience, deadline).await;
        }
        let begin = async || {
            let connection = self.writes.acquire().await?;
            Tx::begin(connection, Arc::clone(&self.doubt), deadline).await
        };
        match begin().await {
            // It broke while it was idle, which raised the doubt: the next one is asked first, or new.
            Err(SqlError::Unavailable(_)) => begin().await,
            begun => begun,
        }
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
        let connection = self.reads.acquire().await?;
        Ok(Reader::new(connection, Arc::clone(&self.doubt), deadline))
    }

    /// A reader of one state of the whole database, for as long as it lives; it keeps nobody from writing. Each of its
    /// statements may take half a minute, so that all of a large database can be read in pages.
    ///
    /// # Errors
    /// [`SqlError::Unavailable`] where no connection is to be had in time.
    ///
    /// # Cancel safety
    /// Nothing has begun.
    pub async fn snapshot(&self) -> Result<Reader, SqlError> {
        let connection = self.reads.acquire().await?;
        let longest = self.options.transaction_timeout.max(PAGE_LONGEST);
        Reader::snapshot(connection, Arc::clone(&self.doubt), self.kind, longest).await
    }

    /// Closes all connections, waiting for those in use, but not longer than a transaction may take.
    pub async fn close(&self) {
        let close = async {
            self.writes.close().await;
            self.reads.close().await;
        };
        // Those that are left are closed when they are given back.
        let _ = timeout(self.options.transaction_timeout, close).await;
    }
}

/// Longest wait for another process that brings the tables up to date.
const OPEN_LONGEST: Duration = Duration::from_secs(60);
/// Longest statement of a snapshot, which may have to look through a whole table.
const PAGE_LONGEST: Duration = Duration::from_secs(30);
const OPEN_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Longest wait for a connection to say that it lives when it is given back.
const PING_LONGEST: Duration = Duration::from_secs(1);

/// What is told to each new connection.
fn session(kind: DatabaseKind, options: SqlOptions, access: Access) -> Vec<String> {
    let ms = |wait: Duration| wait.as_millis().clamp(1, 1_000_000_000);
    let longest = options.transaction_timeout;
    let mut session = match kind {
        // `synchronous=FULL`: what is worth money is flushed before it is said.
        DatabaseKind::Sqlite => vec![
            format!("PRAGMA busy_timeout = {}", ms(options.acquire_timeout)),
            "PRAGMA journal_mode = WAL".to_owned(),
            "PRAGMA synchronous = FULL".to_owned(),
            "PRAGMA foreign_keys = ON".to_owned(),
            "PRAGMA temp_store = MEMORY".to_owned(),
        ],
        // The server gives up by itself, a little earlier, what we would give up, and a session that is gone holds no locks for
        // long.
        DatabaseKind::Postgres => vec![
            format!("SET statement_timeout = {}", ms(longest * 4 / 5)),
            format!("SET lock_timeout = {}", ms(longest * 2 / 5)),
            format!(
                "SET idle_in_transaction_session_timeout = {}",
                ms(longest * 2)
            ),
        ],
    };
    match (kind, access) {
        (_, Access::Write) => {}
        // Where it is not so, it would be written.
        (DatabaseKind::Sqlite, Access::Read) => {
            session.retain(|statement| !statement.contains("journal_mode"));
        }
        (DatabaseKind::Postgres, Access::Read) => {
            session.push("SET default_transaction_read_only = on".to_owned());
        }
    }
    session
}

fn pool(
    kind: DatabaseKind,
    options: SqlOptions,
    access: Access,
    connections_max: u32,
    doubt: &Arc<Doubt>,
) -> AnyPoolOptions {
    let session = Arc::new(session(kind, options, access));
    let pool = AnyPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(options.acquire_timeout)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let session = Arc::clone(&session);
            Box::pin(async move {
                for statement in session.iter() {
                    // Our own text.
                    let statement = AssertSqlSafe(statement.clone());
                    sqlx::raw_sql(statement).execute(&mut *connection).await?;
                }
                Ok(())
            })
        });
    if kind == DatabaseKind::Sqlite {
        return pool;
    }
    let doubt = Arc::clone(doubt);
    pool.before_acquire(move |connection, idle| {
        let is_doubtful = doubt.covers(idle.idle_for);
        Box::pin(async move {
            if is_doubtful {
                connection.ping().await?;
            }
            Ok(true)
        })
    })
    .after_release(|connection, _| {
        // The pool asks as well, but would wait for a stopped server without end.
        Box::pin(async move {
            Ok(matches!(
                timeout(PING_LONGEST, connection.ping()).await,
                Ok(Ok(()))
            ))
        })
    })
}

/// The file as a URL; what would end its path is encoded.
fn sqlite_url(file: &std::path::Path, access: Access) -> String {
    let mut url = String::from("sqlite://");
    for character in file.to_string_lossy().chars() {
        match character {
            '%' => url.push_str("%25"),
            '#' => url.push_str("%23"),
            ' ' => url.push_str("%20"),
            other => url.push(other),
        }
    }
    url.push_str(match access {
        Access::Write => "?mode=rwc",
        Access::Read => "?mode=ro",
    });
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
