//! A file being read, and its name for errors.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use memtide_base::checksum::FileChecksum;
use memtide_base::sync::Arc;
use memtide_base::{Error, Result};
use memtide_env::ReadFile;

/// A file to read from, and what errors call it.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) file: Arc<dyn ReadFile>,
    pub(crate) name: PathBuf,
}

impl Source {
    pub(crate) fn name(&self) -> &Path {
        &self.name
    }

    pub(crate) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let read = self.file.read_exact_at(buf, offset);
        read.map_err(|error| Error::io("read", &self.name, error))
    }

    /// Checks that the file has the length that the manifest says.
    pub(crate) fn check_len(&self, what: &str, size: u64) -> Result<()> {
        let len = self.file.len().map_err(|error| Error::io("measure", self.name(), error))?;
        if len != size {
            let detail = format!("the file has {len} B, the {what} has {size} B");
            return Err(self.damaged(what, len.min(size), detail));
        }
        Ok(())
    }

    pub(crate) fn damaged(&self, what: &str, at: u64, detail: impl Display) -> Error {
        Error::corruption(what, &self.name, at, detail)
    }
}

/// Shared bytes that can still be written, made without a copy.
pub(crate) fn zeroed(len: usize) -> Arc<[u8]> {
    std::iter::repeat_n(0, len).collect()
}

pub(crate) fn unshared(bytes: &mut Arc<[u8]>) -> &mut [u8] {
    Arc::get_mut(bytes).expect("nobody else has seen these bytes yet")
}

/// Bytes read at a time for the whole-file checksum.
const PIECE_LEN: usize = 256 << 10;

/// Checks that `file`, a `what` called `name` in errors, has `size` bytes with this XXH3-128. Memory is bounded.
///
/// # Errors
/// Corruption if it has not; whatever reading fails with.
pub fn verify_file(
    what: &str,
    file: Arc<dyn ReadFile>,
    name: PathBuf,
    size: u64,
    checksum: u128,
) -> Result<()> {
    let source = Source { file, name };
    source.check_len(what, size)?;
    let sum = checksum_of(&source, size)?;
    if sum != checksum {
        let detail = format!("xxh3-128 {sum:#034x}, stored {checksum:#034x}");
        return Err(source.damaged(what, 0, detail));
    }
    Ok(())
}

/// The XXH3-128 of a whole file, called `name` in errors. Memory is bounded.
///
/// # Errors
/// Whatever reading fails with.
pub fn file_checksum(file: &Arc<dyn ReadFile>, name: &Path) -> Result<u128> {
    let source = Source { file: Arc::clone(file), name: name.to_path_buf() };
    let size = source.file.len().map_err(|error| Error::io("measure", name, error))?;
    checksum_of(&source, size)
}

fn checksum_of(source: &Source, size: u64) -> Result<u128> {
    let mut sum = FileChecksum::default();
    let mut piece = vec![0; usize::try_from(size).unwrap_or(PIECE_LEN).min(PIECE_LEN)];
    let mut offset = 0;
    while offset < size {
        let left = usize::try_from(size - offset).unwrap_or(PIECE_LEN);
        let part = &mut piece[..left.min(PIECE_LEN)];
        source.read(part, offset)?;
        sum.update(part);
        offset += part.len() as u64;
    }
    Ok(sum.finish())
}
