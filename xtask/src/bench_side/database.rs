//! The database of the campaigns: started, made to stand still.

use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use dev_servers::PostgresServer;
use rusqlite::Connection;

use super::beside;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Sqlite,
    Postgres,
}

pub(super) struct Database {
    url: String,
    held: Held,
}

enum Held {
    Sqlite { _folder: Option<tempfile::TempDir> },
    Postgres(PostgresServer),
}

impl Database {
    /// PostgreSQL is started, and gets what the buyers leave of their core. A file lies in `folder`, else beside the data.
    pub(super) fn start(kind: Kind, folder: Option<&Path>, data: &Path) -> anyhow::Result<Self> {
        match kind {
            Kind::Sqlite => {
                let made = folder
                    .map(|folder| {
                        tempfile::Builder::new()
                            .prefix("stampede-")
                            .tempdir_in(folder)
                    })
                    .transpose()?;
                let folder = made.as_ref().map_or(data, tempfile::TempDir::path);
                Ok(Self {
                    url: format!("sqlite:{}", folder.join("campaigns.db").display()),
                    held: Held::Sqlite { _folder: made },
                })
            }
            Kind::Postgres => {
                let server = beside::with_what_is_left(PostgresServer::start)?;
                Ok(Self {
                    url: server.database()?,
                    held: Held::Postgres(server),
                })
            }
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn described(&self) -> &'static str {
        match self.held {
            Held::Sqlite { .. } => "SQLite",
            Held::Postgres(_) => "PostgreSQL",
        }
    }

    /// Nobody can write, until what is given is dropped: a stopped PostgreSQL, or a file that another holds.
    pub(super) fn freeze(&self) -> anyhow::Result<Frozen<'_>> {
        match &self.held {
            Held::Sqlite { .. } => {
                let file = self.url.trim_start_matches("sqlite:");
                let connection = Connection::open(file)?;
                connection.busy_timeout(std::time::Duration::from_secs(10))?;
                connection
                    .execute_batch("BEGIN EXCLUSIVE")
                    .context("holding the file")?;
                Ok(Frozen::Sqlite { _holds: connection })
            }
            Held::Postgres(server) => {
                server.freeze()?;
                Ok(Frozen::Postgres(server))
            }
        }
    }
}

/// A database that stands still.
pub(super) enum Frozen<'a> {
    Sqlite { _holds: Connection },
    Postgres(&'a PostgresServer),
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        match self {
            // Closing it lets go.
            Self::Sqlite { .. } => {}
            Self::Postgres(server) => {
                // A server that is gone stands still no more.
                let _ = server.thaw();
            }
        }
    }
}
