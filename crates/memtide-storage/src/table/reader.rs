//! An open table: point reads through filter, index and block cache.
//!
//! Opening reads the end of the file and nothing else; data blocks are read when a key asks for them,
//! validated once, and shared through the cache. A table is immutable, so any number of readers use one
//! `Arc<Table>` without a lock. What it keeps in memory is charged to the ledger until it is dropped.

use std::path::{Path, PathBuf};

use memtide_base::hash::key_hash;
use memtide_base::ledger::{Account, Charge, Ledger};
use memtide_base::sync::{Arc, Glance};
use memtide_base::{Error, Kind, RangeTombstones, Result, SeqNo, Slice};
use memtide_env::ReadFile;

use super::cursor::TableCursor;
use super::parts::Parts;
use super::properties::Properties;
use super::verify;
use crate::block::BlockView;
use crate::cache::{BlockCache, Shelf};
use crate::identity::FileIdentity;
use crate::source::Source;

/// The newest visible version of a key in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which write it is.
    pub seq: SeqNo,
    /// What the write did.
    pub kind: Kind,
    /// Its value, sharing the block's bytes if it is long.
    pub value: Slice,
}

/// The block of one table that was looked into last. For a short time on one thread: it is held without counting
/// a reference.
#[derive(Debug, Default)]
pub struct Near(Option<(usize, Glance<BlockView>)>);

impl Near {
    fn block(&mut self, table: &Table, at: usize) -> Result<&BlockView> {
        if self.0.as_ref().is_none_or(|(held, _)| *held != at) {
            self.0 = Some((at, table.glance(at)?));
        }
        Ok(&self.0.as_ref().expect("set just now").1)
    }
}

/// An immutable sorted file of entries, open for reading.
pub struct Table {
    source: Source,
    parts: Parts,
    expected: FileIdentity,
    size: u64,
    hash_seed: u64,
    shelf: Shelf,
    charge: Charge,
}

impl Table {
    /// Opens the table in `file`, which is called `name` in errors and must be `expected` and have
    /// `size` bytes.
    ///
    /// `hash_seed` is the seed of the hashes [`Table::get`] will be given; a table whose filter was
    /// built under another seed answers right, at the price of a second hash.
    ///
    /// # Errors
    /// Corruption if the file is another table, has another length, or anything but its data blocks is
    /// damaged; `Unsupported` if a newer version wrote it; whatever reading fails with.
    pub fn open(
        file: Arc<dyn ReadFile>,
        name: PathBuf,
        expected: FileIdentity,
        size: u64,
        hash_seed: u64,
        cache: &Arc<BlockCache>,
        ledger: &Arc<Ledger>,
    ) -> Result<Arc<Self>> {
        let source = Source { file, name };
        let parts = Parts::read(&source, expected, size)?;
        let mut charge = ledger.empty_charge(Account::Tables);
        let shelf = cache.shelf(parts.index.as_ref().map_or(0, BlockView::rows));
        let held = parts.heap_bytes() + shelf.heap_bytes() + size_of::<Self>();
        charge.grow_unchecked(held as u64);
        Ok(Arc::new(Self { source, parts, expected, size, hash_seed, shelf, charge }))
    }

    /// The newest version of `key` with `seq < below`, range tombstones not applied. `hash` is the
    /// key's hash under the seed the table was opened with.
    ///
    /// Without a hit in the cache it costs one read; if the filter says no, nothing at all.
    ///
    /// # Errors
    /// A data block cannot be read or is damaged.
    pub fn get(&self, key: &[u8], hash: u64, below: SeqNo) -> Result<Option<Found>> {
        self.get_near(key, hash, below, &mut Near::default())
    }

    /// As [`Table::get`]; a block that `near` holds is not fetched again, so keys that are asked for in order
    /// fetch each block once.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub fn get_near(
        &self,
        key: &[u8],
        hash: u64,
        below: SeqNo,
        near: &mut Near,
    ) -> Result<Option<Found>> {
        let Some(index) = &self.parts.index else { return Ok(None) };
        if self.parts.properties.seq_min >= below || !self.may_contain(key, hash) {
            return Ok(None);
        }
        for at in index.first_at_least(key)..index.rows() {
            let block = near.block(self, at)?;
            match block.find(key, below) {
                Ok(row) => {
                    let (seq, kind) = (block.seq(row), block.kind(row));
                    return Ok(Some(Found { seq, kind, value: block.value_slice(row) }));
                }
                Err(row) if row < block.rows() => return Ok(None),
                Err(_) => {}
            }
            // The block ends before the wanted version. Versions go on in the next block only if
            // the key is this block's last.
            if !index.key_is(at, key) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// The table's range tombstones.
    #[must_use]
    pub fn range_tombstones(&self) -> &RangeTombstones {
        &self.parts.tombstones
    }

    /// What the table says about itself.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        &self.parts.properties
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The file's name as errors show it.
    #[must_use]
    pub fn name(&self) -> &Path {
        self.source.name()
    }

    /// Bytes of memory the open table holds, as charged to the ledger.
    #[must_use]
    pub fn heap_bytes(&self) -> u64 {
        self.charge.bytes()
    }

    /// A cursor over the versions with `seq < below`, standing nowhere yet.
    #[must_use]
    pub fn cursor(self: &Arc<Self>, below: SeqNo) -> TableCursor {
        TableCursor::new(Arc::clone(self), below)
    }

    /// Reads the whole table from the file, past the cache, and checks all it says about itself:
    /// checksums, order, bounds, counts, and that the filter denies no key.
    ///
    /// # Errors
    /// The first damage found, with its offset; whatever reading fails with.
    pub fn verify(&self) -> Result<()> {
        verify::verify(&self.source, self.expected, self.size)
    }

    /// Data blocks of the table.
    pub(super) fn blocks(&self) -> usize {
        self.parts.index.as_ref().map_or(0, BlockView::rows)
    }

    /// The index, if there are data blocks.
    pub(super) fn index(&self) -> Option<&BlockView> {
        self.parts.index.as_ref()
    }

    /// Data block `at`, from the cache or the file.
    pub(super) fn block(&self, at: usize) -> Result<Arc<BlockView>> {
        self.glance(at).map(Glance::keep)
    }

    /// As [`Table::block`], for a short time and without counting a reference.
    #[inline]
    fn glance(&self, at: usize) -> Result<Glance<BlockView>> {
        match self.shelf.look(at) {
            Some(cached) => Ok(cached),
            None => self.read_block(at).map(Glance::at),
        }
    }

    /// Reads data block `at` from the file into the cache.
    fn read_block(&self, at: usize) -> Result<Arc<BlockView>> {
        let child = self.parts.child(at).expect("index values are validated when it is opened");
        let block = self.source.data_block(child.handle, self.parts.footer.file_salt)?;
        if block.rows() != usize::from(child.rows) {
            let detail = format!("{} rows, {} by the index", block.rows(), child.rows);
            return Err(self.source.damaged("data block", child.handle.offset, detail));
        }
        let block = Arc::new(block);
        self.shelf.insert(at, &block);
        Ok(block)
    }

    /// The error for a data block whose rows do not follow those of the block before.
    pub(super) fn out_of_order(&self, at: usize) -> Error {
        let offset = self.parts.child(at).map_or(0, |child| child.handle.offset);
        self.source.damaged("data block", offset, "rows out of order across blocks")
    }

    fn may_contain(&self, key: &[u8], hash: u64) -> bool {
        self.parts.filter.as_ref().is_none_or(|filter| {
            let own_seed = filter.hash_seed() == self.hash_seed;
            filter.may_contain(if own_seed { hash } else { key_hash(filter.hash_seed(), key) })
        })
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({}, {} B)", self.source.name().display(), self.size)
    }
}
