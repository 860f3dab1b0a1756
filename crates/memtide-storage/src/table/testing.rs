//! A file in memory and tables in it, for the tests of this module.

use std::io;
use std::path::PathBuf;

use memtide_base::range_tombstone::Fragment;
use memtide_base::sync::{Arc, Mutex};
use memtide_base::{Entry, Kind, RangeTombstones, Result, SeqNo};
use memtide_env::{Heap, ReadFile, WriteFile};

use super::{Table, TableBuilder, TableOptions, TableShared, TableSummary};
use crate::budget::Budget;
use crate::compress::Codec;
use crate::identity::FileIdentity;

pub(super) const IDENTITY: FileIdentity =
    FileIdentity { db_uuid: *b"a test database!", number: 12, keyspace: 3 };

pub(super) const HASH_SEED: u64 = 99;

pub(super) type Row = (Vec<u8>, SeqNo, Kind, Vec<u8>);

#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryFile(pub(crate) Arc<Mutex<Vec<u8>>>);

impl MemoryFile {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Arc::new(Mutex::new(bytes.to_vec())))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().clone()
    }
}

/// An offset of a file in memory as an index.
pub(super) fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("a small file")
}

impl WriteFile for MemoryFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut file = self.0.lock();
        let start = at(offset);
        let end = start + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().resize(at(len), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadFile for MemoryFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let file = self.0.lock();
        let part = file.get(at(offset)..at(offset) + buf.len());
        buf.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }
}

pub(super) fn options(block_bytes: usize, codec: Codec) -> TableOptions {
    TableOptions {
        block_bytes,
        partition_blocks: 0,
        codec,
        filter_bits_per_key: 10,
        hash_seed: HASH_SEED,
        salt: 0x5A17,
        created_ms: 1,
    }
}

pub(super) fn build(
    rows: &[Row],
    tombstones: &RangeTombstones,
    options: TableOptions,
) -> (MemoryFile, TableSummary) {
    let file = MemoryFile::default();
    let name = PathBuf::from("sst/c.sst");
    let mut builder = TableBuilder::new(Box::new(file.clone()), name, IDENTITY, options);
    for (key, seq, kind, value) in rows {
        builder.add(Entry { key, seq: *seq, kind: *kind, value }).expect("fits");
    }
    for fragment in tombstones.fragments() {
        let fragment: &Fragment = fragment;
        builder.add_range_tombstone(fragment).expect("fits");
    }
    let estimate = builder.estimated_bytes();
    let summary = builder.finish().expect("memory does not fail");
    assert!(estimate > 0 && summary.size == file.bytes().len() as u64);
    (file, summary)
}

pub(super) fn open(file: &MemoryFile, expected: FileIdentity) -> Result<Arc<Table>> {
    open_with(file, expected, HASH_SEED, &Budget::new(u64::MAX, 1 << 20, Heap::Kept))
}

pub(super) fn open_with(
    file: &MemoryFile,
    expected: FileIdentity,
    hash_seed: u64,
    budget: &Arc<Budget>,
) -> Result<Arc<Table>> {
    let size = file.bytes().len() as u64;
    let name = PathBuf::from("sst/c.sst");
    let shared = TableShared::new(hash_seed, Arc::clone(budget));
    Table::open(Arc::new(file.clone()), name, expected, size, &shared)
}
