//! Real servers of others for tests: started on free ports in temporary folders, killed, frozen and stopped.
//!
//! Owns: their processes and folders. Does not know what the project does with them.
//! Invariant: whoever drops a server leaves neither its process nor, unless the folder was named, its files.

pub mod postgres;
pub mod redis;

pub use postgres::PostgresServer;
pub use redis::{AppendFsync, RedisOptions, RedisServer};

/// One empty database of each kind, for tests that hold for both: a SQLite file and a PostgreSQL server.
#[derive(Debug)]
pub struct Databases {
    /// The server, to be frozen or killed.
    pub postgres: PostgresServer,
    folder: tempfile::TempDir,
    files: std::cell::Cell<u32>,
}

impl Databases {
    /// Starts the server.
    ///
    /// # Errors
    /// As [`PostgresServer::start`].
    pub fn start() -> anyhow::Result<Self> {
        Ok(Self {
            postgres: PostgresServer::start()?,
            folder: tempfile::tempdir()?,
            files: std::cell::Cell::new(0),
        })
    }

    /// URLs of two new, empty databases, `sqlite:…` first.
    ///
    /// # Errors
    /// As [`PostgresServer::database`].
    pub fn urls(&self) -> anyhow::Result<[String; 2]> {
        let number = self.files.get() + 1;
        self.files.set(number);
        let file = self.folder.path().join(format!("d{number}.db"));
        Ok([
            format!("sqlite:{}", file.display()),
            self.postgres.database()?,
        ])
    }
}
