//! A file on its way out: gathers writes, counts and sums every byte.

use std::path::{Path, PathBuf};

use memtide_base::checksum::FileChecksum;
use memtide_base::{Error, Result};
use memtide_env::WriteFile;

/// Bytes gathered before they are written.
const BUFFER_LEN: usize = 256 << 10;

/// A file that is written front to back, once. After an error it is worth nothing.
#[derive(Debug)]
pub(crate) struct Output {
    file: Box<dyn WriteFile>,
    name: PathBuf,
    buffer: Vec<u8>,
    written: u64,
    checksum: FileChecksum,
}

impl Output {
    pub(crate) fn new(file: Box<dyn WriteFile>, name: PathBuf) -> Self {
        let checksum = FileChecksum::default();
        Self { file, name, buffer: Vec::new(), written: 0, checksum }
    }

    pub(crate) fn name(&self) -> &Path {
        &self.name
    }

    /// Bytes so far: where the next ones will lie.
    pub(crate) fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Bytes of memory of the write buffer.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Long pieces are not copied.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() >= BUFFER_LEN {
            self.write_out()?;
            return self.write(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_LEN {
            self.write_out()?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<()> {
        let mut gathered = std::mem::take(&mut self.buffer);
        self.write(&gathered)?;
        gathered.clear();
        self.buffer = gathered;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.checksum.update(bytes);
        let written = self.file.write_at(bytes, self.written);
        written.map_err(|error| Error::io("write", &self.name, error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Writes what is left and syncs; the file's length and XXH3-128.
    pub(crate) fn finish(mut self) -> Result<(u64, u128)> {
        self.write_out()?;
        if !cfg!(plant = "table_unsynced") {
            self.file.sync().map_err(|error| Error::io("sync", &self.name, error))?;
        }
        Ok((self.written, self.checksum.finish()))
    }
}
