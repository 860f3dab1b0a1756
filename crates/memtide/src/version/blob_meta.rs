//! What the engine knows of a blob file without opening it, and when the file may go.

use memtide_base::sync::Arc;
use memtide_base::sync::atomic::{AtomicBool, Ordering};
use memtide_storage::blob::{BlobFile, BlobSummary};
use memtide_storage::opened::{MayBeOpen, Openable};

use super::table_meta::Graveyard;
use crate::files::SharedFile;

/// One blob file of a version. Every version that has a table which refers to it shares it; the file lives as long as
/// it.
#[derive(Debug)]
pub(crate) struct BlobMeta {
    pub(crate) number: u64,
    pub(crate) keyspace: u32,
    pub(crate) summary: BlobSummary,
    /// The open file, while the store keeps it so.
    pub(crate) file: MayBeOpen<BlobFile>,
    /// Whether a value in it was found damaged: it is given up no more, as long as the database is open.
    pub(crate) is_damaged: AtomicBool,
    obsolete: AtomicBool,
    graveyard: Arc<Graveyard>,
}

impl BlobMeta {
    pub(crate) fn new(
        number: u64,
        keyspace: u32,
        summary: BlobSummary,
        graveyard: &Arc<Graveyard>,
    ) -> Self {
        Self {
            number,
            keyspace,
            summary,
            file: MayBeOpen::default(),
            is_damaged: AtomicBool::new(false),
            obsolete: AtomicBool::new(false),
            graveyard: Arc::clone(graveyard),
        }
    }

    /// Says that no version will name it again; its file goes with its last user. Called once the edit after which no
    /// table refers to it is durable.
    pub(crate) fn retire(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    #[cfg(test)]
    pub(crate) fn for_tests(number: u64, bytes: u64) -> Self {
        let summary = BlobSummary { size: bytes + 64, checksum: 0, values: 1, bytes, salt: 0 };
        Self::new(number, 0, summary, &Arc::default())
    }
}

impl Openable for BlobMeta {
    type Open = BlobFile;

    fn slot(&self) -> &MayBeOpen<BlobFile> {
        &self.file
    }
}

impl Drop for BlobMeta {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            self.graveyard.add(SharedFile::Blob(self.number));
        }
    }
}
