//! What the engine knows of a table without opening it, and when its file may go.

use memtide_base::sync::atomic::{AtomicBool, Ordering};
use memtide_base::sync::{Arc, Mutex};
use memtide_base::{SeqNo, Upper};
use memtide_storage::blob::BlobRefs;
use memtide_storage::opened::{MayBeOpen, Openable};
use memtide_storage::table::{Table, TableSummary};

use crate::files::SharedFile;
use crate::range::HalfOpen;

/// Tables and blob files whose last user is gone and whose drop is durable: files to remove.
#[derive(Debug, Default)]
pub(crate) struct Graveyard(Mutex<Vec<SharedFile>>);

impl Graveyard {
    /// Takes what has gathered.
    pub(crate) fn drain(&self) -> Vec<SharedFile> {
        std::mem::take(&mut *self.0.lock())
    }

    pub(super) fn add(&self, file: SharedFile) {
        self.0.lock().push(file);
    }
}

/// Far above what a table can hold.
const WEIGHT_MAX: u64 = 1 << 40;

/// What a data block takes in the index, and as a slot of the cache.
const BYTES_PER_BLOCK: u64 = 48;

/// One table of a version. Versions, iterators and jobs share it; the file lives as long as it.
#[derive(Debug)]
pub(crate) struct TableMeta {
    pub(crate) number: u64,
    pub(crate) keyspace: u32,
    pub(crate) size: u64,
    /// XXH3-128 of the whole file.
    pub(crate) checksum: u128,
    pub(crate) rows: u64,
    /// Distinct keys among the rows.
    pub(crate) keys: u64,
    pub(crate) deletes: u64,
    pub(crate) range_deletes: u64,
    /// First key; range tombstones count.
    pub(crate) smallest: Vec<u8>,
    /// Last key; range tombstones count.
    pub(crate) largest: Upper,
    pub(crate) seq_min: SeqNo,
    pub(crate) seq_max: SeqNo,
    /// Bytes of keys and values before compression.
    raw_bytes: u64,
    /// Seed of its checksums, 0 if only the file knows.
    pub(crate) salt: u64,
    /// What it refers to in blob files.
    pub(crate) blobs: BlobRefs,
    /// The open table, while the table store keeps it so.
    pub(crate) file: MayBeOpen<Table>,
    obsolete: AtomicBool,
    graveyard: Arc<Graveyard>,
}

impl TableMeta {
    /// About the bytes that its index, filter and cache slots take in memory, with data blocks of so many bytes.
    pub(crate) fn lead_bytes(&self, block_size: usize, filter_bits: u32) -> u64 {
        let index = self.weight() / block_size as u64 * BYTES_PER_BLOCK;
        index.saturating_add(self.keys.saturating_mul(filter_bits.into()) / 8)
    }

    pub(crate) fn new(
        number: u64,
        keyspace: u32,
        summary: TableSummary,
        graveyard: &Arc<Graveyard>,
    ) -> Self {
        Self {
            number,
            keyspace,
            size: summary.size,
            checksum: summary.checksum,
            rows: summary.rows,
            keys: summary.keys,
            deletes: summary.deletes,
            range_deletes: summary.range_deletes,
            smallest: summary.smallest,
            largest: summary.largest,
            seq_min: summary.seq_min,
            seq_max: summary.seq_max,
            raw_bytes: summary.raw_bytes,
            salt: summary.salt,
            blobs: summary.blobs,
            file: MayBeOpen::default(),
            obsolete: AtomicBool::new(false),
            graveyard: Arc::clone(graveyard),
        }
    }

    /// Whether a key lies within its bounds.
    pub(crate) fn spans(&self, key: &[u8]) -> bool {
        self.smallest.as_slice() <= key && self.largest.admits(key)
    }

    /// Whether a key of `range` may lie within its bounds.
    pub(crate) fn meets(&self, range: &HalfOpen) -> bool {
        self.largest.admits(&range.start)
            && range.end.as_ref().is_none_or(|end| self.smallest.as_slice() < end.as_bytes())
    }

    /// Bytes of its file and of what it refers to in blob files.
    pub(crate) fn bytes_in_all(&self) -> u64 {
        self.blobs.iter().fold(self.size, |sum, of| sum.saturating_add(of.bytes))
    }

    /// What it holds, whatever it was compressed with: what the sizes of levels are compared by; values in
    /// blob files do not count. Never 0, and never so
    /// much that a tree's sum overflows, whatever the manifest says.
    pub(crate) fn weight(&self) -> u64 {
        self.raw_bytes.clamp(1, WEIGHT_MAX)
    }

    /// What its builder said of it.
    pub(crate) fn summary(&self) -> TableSummary {
        TableSummary {
            size: self.size,
            checksum: self.checksum,
            rows: self.rows,
            keys: self.keys,
            deletes: self.deletes,
            range_deletes: self.range_deletes,
            smallest: self.smallest.clone(),
            largest: self.largest.clone(),
            seq_min: self.seq_min,
            seq_max: self.seq_max,
            raw_bytes: self.raw_bytes,
            blobs: self.blobs.clone(),
            salt: self.salt,
        }
    }

    /// Whether its bounds overlap `[from, to]`.
    pub(crate) fn overlaps(&self, from: &[u8], to: &Upper) -> bool {
        to.admits(&self.smallest) && (self.smallest.as_slice() >= from || self.largest.admits(from))
    }

    /// Says that no version will name it again; its file goes with its last user. Called once the edit
    /// that drops it is durable.
    pub(crate) fn retire(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    #[cfg(test)]
    pub(crate) fn for_tests(number: u64, smallest: &[u8], largest: Upper) -> Self {
        let summary = TableSummary {
            size: 1000,
            checksum: 0,
            rows: 1,
            keys: 1,
            deletes: 0,
            range_deletes: 0,
            smallest: smallest.to_vec(),
            largest,
            seq_min: number,
            seq_max: number,
            raw_bytes: 1000,
            blobs: BlobRefs::default(),
            salt: 0,
        };
        Self::new(number, 0, summary, &Arc::default())
    }
}

impl Openable for TableMeta {
    type Open = Table;

    fn slot(&self) -> &MayBeOpen<Table> {
        &self.file
    }
}

impl Drop for TableMeta {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire) {
            self.graveyard.add(SharedFile::Table(self.number));
        }
    }
}
