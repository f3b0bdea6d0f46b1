//! What is said at start: where the store stands, or the one line why it cannot be opened.

use std::path::PathBuf;

use flash_types::Timestamp;

/// Where an opened store stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Count of starts, this one included: the upper part of every serial of this start.
    pub epoch: u64,
    /// Number of the last durable batch; 0 if there is none. The next one is `last_batch + 1`.
    pub last_batch: u64,
    /// The greatest time stored; the clock must not start before it.
    pub last_at: Timestamp,
}

/// Why a store was not opened or loaded.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made, read or written.
    #[error("cannot use the data folder {}: {why}; make it writable for this user, or choose another", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What failed.
        why: String,
    },
    /// Another process has it.
    #[error("the data folder {} is in use by {holder}; stop that process, or choose another folder", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// `process 4711`, or `another process`.
        holder: String,
    },
    /// Written by a newer program.
    #[error(
        "{} has schema version {found}, this program knows versions up to {known}; start the newer program",
        file.display()
    )]
    Newer {
        /// The database.
        file: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// Some other file.
    #[error("{} is not a Stampede database ({why}); move it away, or choose another data folder", file.display())]
    NotADatabase {
        /// The file.
        file: PathBuf,
        /// What was found instead.
        why: String,
    },
    /// Batches that were acknowledged are not there.
    #[error(
        "{missing} acknowledged and missing from {}, which ends with batch {last}; restore its write-ahead log \
         or a backup; to accept the loss, delete {}",
        file.display(), acked.display()
    )]
    Lost {
        /// The database.
        file: PathBuf,
        /// The file that holds the last acknowledged number.
        acked: PathBuf,
        /// `batches 8 to 10 were`, or `batch 8 was`.
        missing: String,
        /// The last batch that is there.
        last: u64,
    },
    /// The content contradicts itself.
    #[error("{} is damaged: {what}; restore a backup (`stampede audit` lists all that is wrong)", file.display())]
    Damaged {
        /// The database.
        file: PathBuf,
        /// What is missing or wrong.
        what: String,
    },
    /// No space left.
    #[error("the disk of {} is full; make room and start again", dir.display())]
    StorageFull {
        /// The folder.
        dir: PathBuf,
    },
    /// An older store could not be brought up to date.
    #[error("cannot migrate {} from schema version {from} ({why}); it is unchanged", file.display())]
    Migration {
        /// The database.
        file: PathBuf,
        /// Its version.
        from: i64,
        /// What failed.
        why: String,
    },
    /// Redis cannot be reached, or is not ready: it may be in a moment.
    #[error("{0}")]
    Away(String),
    /// Redis is there, and cannot be worked with as it is.
    #[error("{0}")]
    Redis(String),
    /// Anything else that the operating system or SQLite refused.
    #[error("cannot open {}: {why}; look at the disk and the system log", file.display())]
    Io {
        /// The database.
        file: PathBuf,
        /// What failed.
        why: String,
    },
}

impl OpenError {
    /// `batches 8 to 10 were`, or `batch 8 was`.
    pub(crate) fn batches(first: u64, last: u64) -> String {
        if first == last {
            format!("batch {first} was")
        } else {
            format!("batches {first} to {last} were")
        }
    }
}
