//! The file `acked-redis` in the data folder: which store this folder works with, and the last event of each sale that
//! was acknowledged. So a loss is noticed even where engine and Redis died together.
//!
//! Owns the file. Written with `pwrite` and not flushed: it has to survive the process, not the machine. It holds the name of the
//! store (32 bytes of text), the greatest start (8 bytes) and, at 8 bytes for each number of a sale, its last event.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flash_types::SaleNo;

/// Bytes of the name of a store.
pub const NAME_BYTES: usize = 32;
const START_AT: u64 = NAME_BYTES as u64;
const SALES_AT: u64 = START_AT + 8;

/// What was acknowledged through this folder.
#[derive(Debug)]
pub struct Witness {
    file: File,
    path: PathBuf,
}

impl Witness {
    /// Its place in a data folder.
    pub fn path_in(data: &Path) -> PathBuf {
        data.join("acked-redis")
    }

    /// Opens the file, or makes an empty one.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(data: &Path) -> io::Result<Self> {
        let path = Self::path_in(data);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        Ok(Self { file, path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store that it speaks of; `None` for a new file.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn store(&self) -> io::Result<Option<String>> {
        let mut name = [0; NAME_BYTES];
        match self.file.read_exact_at(&mut name, 0) {
            Ok(()) => Ok(Some(String::from_utf8_lossy(&name).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins to speak of this store.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_store(&self, name: &str) -> io::Result<()> {
        let mut bytes = [b' '; NAME_BYTES];
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        self.file.write_all_at(&bytes, 0)?;
        self.file.sync_data()
    }

    /// The greatest start that ran in this folder; 0 for none.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(&self) -> io::Result<u64> {
        self.number(START_AT)
    }

    /// This start runs.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_start(&self, start: u64) -> io::Result<()> {
        self.file.write_all_at(&start.to_le_bytes(), START_AT)
    }

    /// The last acknowledged event of a sale; 0 for none.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn event(&self, sale_no: SaleNo) -> io::Result<u64> {
        self.number(place(sale_no))
    }

    /// Notes an acknowledged event.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_event(&self, sale_no: SaleNo, event: u64) -> io::Result<()> {
        self.file.write_all_at(&event.to_le_bytes(), place(sale_no))
    }

    /// All sales with an acknowledged event.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn sales(&self) -> io::Result<Vec<(SaleNo, u64)>> {
        let length = self.file.metadata()?.len();
        let mut sales = Vec::new();
        let mut sale_no = SaleNo(0);
        while place(sale_no) + 8 <= length {
            let event = self.event(sale_no)?;
            if event > 0 {
                sales.push((sale_no, event));
            }
            sale_no = SaleNo(sale_no.0 + 1);
        }
        Ok(sales)
    }

    fn number(&self, at: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        match self.file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(u64::from_le_bytes(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(error),
        }
    }
}

fn place(sale_no: SaleNo) -> u64 {
    SALES_AT + 8 * u64::from(sale_no.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_over_a_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let witness = Witness::open(dir.path()).unwrap();
        assert_eq!(witness.store().unwrap(), None);
        assert_eq!(witness.event(SaleNo(9)).unwrap(), 0);
        witness
            .set_store("0123456789abcdef0123456789abcdef")
            .unwrap();
        witness.set_start(7).unwrap();
        witness.set_event(SaleNo(3), 12).unwrap();
        witness.set_event(SaleNo(3), 13).unwrap();
        witness.set_event(SaleNo(1), 4).unwrap();
        let again = Witness::open(dir.path()).unwrap();
        assert_eq!(
            again.store().unwrap().unwrap(),
            "0123456789abcdef0123456789abcdef"
        );
        assert_eq!(again.start().unwrap(), 7);
        assert_eq!(again.sales().unwrap(), [(SaleNo(1), 4), (SaleNo(3), 13)]);
    }
}
