//! A sliding buffer over the file a log is read from.
//!
//! Invariants
//! - It holds at most what one request asks for, or one read-ahead, whichever is more; requests lie inside
//!   the file, so no length found in the file makes it larger than the file.
//! - Going forward re-reads nothing that is still buffered.

use std::path::{Path, PathBuf};

use memtide_base::sync::Arc;
use memtide_base::{Error, Result};
use memtide_env::ReadFile;

const READ_AHEAD_BYTES: u64 = 256 << 10;
const ZEROS: [u8; 4096] = [0; 4096];

#[derive(Debug)]
pub(super) struct Window {
    file: Arc<dyn ReadFile>,
    name: PathBuf,
    len: u64,
    /// File offset of `bytes[0]`.
    at: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(super) fn new(file: Arc<dyn ReadFile>, name: &Path) -> Result<Self> {
        let len = file.len().map_err(|error| Error::io("read the length of", name, error))?;
        Ok(Self { file, name: name.to_path_buf(), len, at: 0, bytes: Vec::new() })
    }

    /// The file's length.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The file's name for errors.
    pub(super) fn name(&self) -> &Path {
        &self.name
    }

    /// `len` bytes at `offset`, which must lie inside the file.
    pub(super) fn bytes(&mut self, offset: u64, len: usize) -> Result<&mut [u8]> {
        let start = self.load(offset, len as u64)?;
        match self.bytes.get_mut(start..start + len) {
            Some(bytes) => Ok(bytes),
            None => Err(Error::internal("a log was read beyond its end").with_file(&self.name)),
        }
    }

    /// What [`Window::bytes`] just returned, without reading.
    pub(super) fn buffered(&self, offset: u64, len: usize) -> &[u8] {
        let start = usize::try_from(offset.saturating_sub(self.at)).unwrap_or(usize::MAX);
        self.bytes.get(start..).and_then(|bytes| bytes.get(..len)).unwrap_or_default()
    }

    /// The offset of the first byte from `offset` on that is not zero.
    pub(super) fn next_nonzero(&mut self, offset: u64) -> Result<Option<u64>> {
        let mut offset = offset;
        while offset < self.len {
            let start = self.load(offset, 1)?;
            for chunk in self.bytes[start..].chunks(ZEROS.len()) {
                if *chunk != ZEROS[..chunk.len()] {
                    let zeros = chunk.iter().take_while(|&&byte| byte == 0).count();
                    return Ok(Some(offset + zeros as u64));
                }
                offset += chunk.len() as u64;
            }
        }
        Ok(None)
    }

    /// Buffers what the file has of `len` bytes at `offset`; returns where in the buffer they start.
    fn load(&mut self, offset: u64, len: u64) -> Result<usize> {
        let buffered_to = self.at + self.bytes.len() as u64;
        if offset < self.at || offset > buffered_to {
            self.bytes.clear();
            self.at = offset;
        }
        let start = index(offset - self.at);
        if (start as u64).saturating_add(len) <= self.bytes.len() as u64 {
            return Ok(start);
        }
        self.bytes.drain(..start);
        self.at = offset;
        let have = self.bytes.len();
        let want = index(len.max(READ_AHEAD_BYTES).min(self.len.saturating_sub(offset)));
        if want > have {
            self.bytes.reserve_exact(want - have);
            self.bytes.resize(want, 0);
            let read = self.file.read_exact_at(&mut self.bytes[have..], offset + have as u64);
            if let Err(error) = read {
                self.bytes.truncate(have);
                return Err(Error::io("read", &self.name, error));
            }
        }
        Ok(0)
    }
}

/// A length inside a file as a length in memory.
pub(super) fn index(len: u64) -> usize {
    usize::try_from(len).expect("a 64-bit target: other widths are refused at compile time")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::MemFile;

    fn window(bytes: &[u8]) -> Window {
        Window::new(MemFile::of(bytes), Path::new("x")).unwrap()
    }

    #[test]
    fn any_place_of_the_file_reads_as_it_is() {
        let bytes: Vec<u8> = (0..700_000_u32).map(|at| (at / 7 % 251) as u8).collect();
        let mut window = window(&bytes);
        for (offset, len) in
            [(0, 1), (10, 300_000), (262_140, 24), (699_000, 1000), (5, 5), (0, 700_000)]
        {
            let want = &bytes[offset..offset + len];
            assert_eq!(window.bytes(offset as u64, len).unwrap(), want, "{offset} {len}");
            assert_eq!(window.buffered(offset as u64, len), want);
        }
        assert!(window.bytes(699_999, 2).is_err() && window.bytes(3, usize::MAX >> 1).is_err());
        assert!(
            window.bytes.capacity() <= bytes.len(),
            "never more memory than the file has bytes"
        );
    }

    #[test]
    fn zeros_are_passed_over() {
        let mut bytes = vec![0; 600_000];
        (bytes[3], bytes[500_001]) = (1, 1);
        let mut window = window(&bytes);
        for (from, want) in [(0, Some(3)), (3, Some(3)), (4, Some(500_001)), (500_002, None)] {
            assert_eq!(window.next_nonzero(from).unwrap(), want, "from {from}");
        }
    }
}
