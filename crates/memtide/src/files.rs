//! The files of a database and their names. Names are built from numbers and parsed strictly, never joined
//! from text that was read, so nothing outside the directory can be reached.
//!
//! ```text
//! LOCK   CURRENT   RESERVE   MANIFEST-{:016x}   wal/{base_lsn:016x}.wal   sst/{:016x}.sst   blob/{:016x}.blob
//! ```

use std::path::{Path, PathBuf};

use memtide_base::sync::{Arc, Mutex};
use memtide_base::{Error, ErrorKind, Result};
use memtide_env::vfs::FileLock;
use memtide_env::{ReadFile, Vfs};
use memtide_storage::log::{manifest_file_name, wal_file_name};

pub(crate) const LOCK: &str = "LOCK";
pub(crate) const CURRENT: &str = "CURRENT";
/// Space kept for the time when there is none.
pub(crate) const RESERVE: &str = "RESERVE";
/// `CURRENT` while it is being written.
pub(crate) const CURRENT_NEW: &str = "CURRENT.tmp";
pub(crate) const WAL_DIR: &str = "wal";
pub(crate) const TABLE_DIR: &str = "sst";
/// Made with the first blob file.
pub(crate) const BLOB_DIR: &str = "blob";

/// A file that goes with its last user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SharedFile {
    /// `sst/{:016x}.sst`
    Table(u64),
    /// `blob/{:016x}.blob`
    Blob(u64),
}

impl SharedFile {
    pub(crate) fn name(self) -> PathBuf {
        match self {
            Self::Table(number) => table_name(number),
            Self::Blob(number) => blob_name(number),
        }
    }
}

/// Where a database's files are, and whether they still are ours.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    claim: Arc<Mutex<Option<Box<dyn FileLock>>>>,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), claim: Arc::default() }
    }

    /// Keeps the lock of the directory, for all clones, until [`Layout::release`].
    pub(crate) fn hold(&self, lock: Box<dyn FileLock>) {
        *self.claim.lock() = Some(lock);
    }

    pub(crate) fn release(&self) {
        *self.claim.lock() = None;
    }

    /// # Errors
    /// `ReadOnly`: the directory or its lock was removed or replaced since it was opened. What has our names may be
    /// another database's, so nothing may be created, renamed or removed by name any more.
    pub(crate) fn check_claim(&self) -> Result<()> {
        let claim = self.claim.lock();
        let Some(lock) = claim.as_ref() else { return Ok(()) };
        match lock.is_current() {
            Ok(true) => Ok(()),
            Ok(false) => {
                let what = "the lock file is not the one that was locked: it or the directory was removed or replaced";
                let error = Error::new(ErrorKind::ReadOnly, what).with_file(LOCK);
                Err(error.with_hint("open the database again where it is now"))
            }
            Err(error) => Err(Error::io("look at", LOCK, error)),
        }
    }

    /// Removes a file that nothing names, if the directory still is ours. Failing to is no error: the next open
    /// removes it.
    pub(crate) fn discard(&self, vfs: &dyn Vfs, name: impl AsRef<Path>) {
        if self.check_claim().is_ok() {
            let _left = vfs.remove(&self.at(name));
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a file or directory that is named relative to the root.
    pub(crate) fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// The file of that name, to read from.
    pub(crate) fn open_read(&self, vfs: &dyn Vfs, name: &Path) -> Result<Arc<dyn ReadFile>> {
        vfs.open_read(&self.at(name)).map_err(|error| Error::io("open", name, error))
    }

    /// Makes the names in a directory of the database durable.
    pub(crate) fn sync_dir(&self, vfs: &dyn Vfs, dir: &str) -> Result<()> {
        let path = if dir.is_empty() { self.root.clone() } else { self.at(dir) };
        vfs.sync_dir(&path).map_err(|error| Error::io("sync the directory", path, error))
    }
}

/// `sst/{number:016x}.sst`.
pub(crate) fn table_name(number: u64) -> PathBuf {
    PathBuf::from(format!("{TABLE_DIR}/{number:016x}.sst"))
}

/// `blob/{number:016x}.blob`.
pub(crate) fn blob_name(number: u64) -> PathBuf {
    PathBuf::from(format!("{BLOB_DIR}/{number:016x}.blob"))
}

/// The number in a table's file name without directory.
pub(crate) fn parse_table_name(name: &Path) -> Option<u64> {
    parse_numbered(name, ".sst", table_name)
}

/// The number in a blob file's name without directory.
pub(crate) fn parse_blob_name(name: &Path) -> Option<u64> {
    parse_numbered(name, ".blob", blob_name)
}

fn parse_numbered(name: &Path, suffix: &str, name_of: fn(u64) -> PathBuf) -> Option<u64> {
    let number = name.to_str()?.strip_suffix(suffix)?;
    // Numbers are counted up, so there is room above every one that is ours.
    let parsed = u64::from_str_radix(number, 16).ok().filter(|&number| number < 1 << 63)?;
    (name_of(parsed).file_name() == Some(name.as_os_str())).then_some(parsed)
}

pub(crate) fn manifest_name(number: u64) -> PathBuf {
    manifest_file_name(number)
}

pub(crate) fn wal_name(base: u64) -> PathBuf {
    wal_file_name(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_name_of_a_table_is_one() {
        let name = table_name(0x2a);
        assert_eq!(name, Path::new("sst/000000000000002a.sst"));
        assert_eq!(parse_table_name(Path::new("000000000000002a.sst")), Some(0x2a));
        for wrong in ["2a.sst", "000000000000002A.sst", "+00000000000002a.sst", "x", "..", ".sst"] {
            assert_eq!(parse_table_name(Path::new(wrong)), None, "{wrong}");
        }
        assert_eq!(SharedFile::Blob(0x2a).name(), Path::new("blob/000000000000002a.blob"));
        assert_eq!(parse_blob_name(Path::new("000000000000002a.blob")), Some(0x2a));
        assert_eq!(parse_blob_name(Path::new("000000000000002a.sst")), None);
    }
}
