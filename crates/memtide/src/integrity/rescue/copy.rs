//! Copies a file that was found to be sound.

use std::path::Path;

use memtide_base::checksum::FileChecksum;
use memtide_base::{Error, Result};

use super::Rescue;

const PIECE_LEN: usize = 256 << 10;

impl Rescue<'_> {
    /// Copies the file that lies at `from` in the source to `to` in the target, or gives it a second name. It must have
    /// the length and checksum that it had when it was looked at.
    pub(super) fn copy(&mut self, from: &Path, to: &Path, len: u64, checksum: u128) -> Result<()> {
        let vfs = &*self.env.vfs;
        self.report.files_copied += 1;
        self.report.bytes_copied += len;
        if self.link {
            let linked = vfs.link(&self.from.at(from), &self.to.at(to));
            return linked.map_err(|error| Error::io("link", to, error));
        }
        let source = self.from.open_read(vfs, from)?;
        let failed = |error| Error::io("write", to, error);
        let target = vfs.create(&self.to.at(to), 0).map_err(failed)?;
        let (mut piece, mut at, mut sum) = (vec![0; PIECE_LEN], 0, FileChecksum::default());
        while at < len {
            let left = usize::try_from(len - at).unwrap_or(PIECE_LEN);
            let part = &mut piece[..left.min(PIECE_LEN)];
            source.read_exact_at(part, at).map_err(|error| Error::io("read", from, error))?;
            sum.update(part);
            target.write_at(part, at).map_err(failed)?;
            at += part.len() as u64;
        }
        if sum.finish() != checksum {
            return Err(Error::corruption("file", from, 0, "it changed while it was copied"));
        }
        target.sync().map_err(|error| Error::io("sync", to, error))
    }
}
