//! The data folder: its lock, and the file `acked` that holds the number of the last acknowledged batch.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::OpenError;

/// Paths inside of a data folder.
#[derive(Debug, Clone)]
pub struct Paths {
    pub dir: PathBuf,
    pub database: PathBuf,
    pub acked: PathBuf,
}

impl Paths {
    pub fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            database: dir.join("stampede.db"),
            acked: dir.join("acked"),
        }
    }

    pub fn folder_error(&self, why: &dyn std::fmt::Display) -> OpenError {
        OpenError::Folder {
            dir: self.dir.clone(),
            why: why.to_string(),
        }
    }
}

/// Held as long as the store is open; the operating system lets go of it when the process dies.
#[derive(Debug)]
pub struct FolderLock(File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        // A child process that is just being started may share the open file: closing it here would not be enough.
        let _ = self.0.unlock();
    }
}

impl FolderLock {
    /// Makes the folder (0700) if its parent is there, and takes the lock.
    pub fn take(paths: &Paths) -> Result<Self, OpenError> {
        make_folder(paths)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(paths.dir.join("lock"))
            .map_err(|error| paths.folder_error(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let holder = match pid.trim() {
                    "" => "another process".to_owned(),
                    pid => format!("process {pid}"),
                };
                return Err(OpenError::Locked {
                    dir: paths.dir.clone(),
                    holder,
                });
            }
            Err(TryLockError::Error(error)) => return Err(paths.folder_error(&error)),
        }
        // The number is for people; where the disk is full the lock still holds.
        let _ = file.set_len(0);
        let _ = file.write_all(format!("{}\n", std::process::id()).as_bytes());
        Ok(Self(file))
    }
}

fn make_folder(paths: &Paths) -> Result<(), OpenError> {
    match DirBuilder::new().mode(0o700).create(&paths.dir) {
        Ok(()) => {
            // The folder's own name must survive a power cut as its content does.
            let parent = match paths.dir.parent() {
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            };
            File::open(parent)
                .and_then(|parent| parent.sync_all())
                .map_err(|error| paths.folder_error(&error))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            if paths.dir.is_dir() {
                Ok(())
            } else {
                Err(paths.folder_error(&"it is not a folder"))
            }
        }
        Err(error) => Err(paths.folder_error(&error)),
    }
}

/// The file `acked`: the number of the last acknowledged batch, 8 bytes, little-endian.
///
/// Written before each answer, without a flush: it outlives the process, not the power. So it can name a batch that a
/// torn log no longer holds, and never one that was not durable.
#[derive(Debug)]
pub struct Acked(File);

impl Acked {
    /// The number in the file; 0 if there is no file or no number in it.
    pub fn read(paths: &Paths) -> std::io::Result<u64> {
        let mut bytes = [0; 8];
        match File::open(&paths.acked) {
            Ok(file) => match file.read_exact_at(&mut bytes, 0) {
                Ok(()) => Ok(u64::from_le_bytes(bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(0),
                Err(error) => Err(error),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Opens the file for writing and sets it to `number`: its block is there from now on, also on a full disk.
    pub fn start(paths: &Paths, number: u64) -> std::io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&paths.acked)?;
        let acked = Self(file);
        acked.set(number)?;
        Ok(acked)
    }

    /// Notes the last acknowledged batch.
    pub fn set(&self, number: u64) -> std::io::Result<()> {
        self.0.write_all_at(&number.to_le_bytes(), 0)
    }
}
