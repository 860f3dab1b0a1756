//! Reads a table from end to end and believes nothing.
//!
//! The cache is passed by: what is checked is the file as it is now. Memory is one data block and one partition at a
//! time beside the parts an open table has.

use memtide_base::hash::key_hash;
use memtide_base::{Kind, Result, SeqNo, Upper};

use super::format::{ALL_TOMBSTONES, Child, HAS_OLD_VERSIONS};
use super::partition::Partition;
use super::parts::{Directory, Parts};
use crate::blob::{BlobHandle, BlobRefs};
use crate::block::BlockView;
use crate::identity::FileIdentity;
use crate::source::Source;

/// Checks all blocks of a table, and all it says about itself.
pub(super) fn verify(source: &Source, expected: FileIdentity, size: u64) -> Result<()> {
    let parts = Parts::read(source, expected, size)?;
    let salt = parts.footer.file_salt;
    let mut seen = Seen::default();
    match &parts.directory {
        None => {}
        Some(Directory::Whole(partition)) => seen.partition(source, salt, partition)?,
        Some(Directory::Divided(division)) => {
            for (at, extent) in division.extents.iter().enumerate() {
                let partition = extent.read(source, salt, &division.top, at)?;
                seen.partition(source, salt, &partition)?;
            }
        }
    }
    seen.against(&parts).map_err(|detail| source.damaged("table", 0, detail))
}

/// What the blocks read so far add up to.
#[derive(Default)]
struct Seen {
    rows: u64,
    deletes: u64,
    keys: u64,
    key_bytes: u64,
    value_bytes: u64,
    blobs: BlobRefs,
    seqs: Option<(SeqNo, SeqNo)>,
    first: Option<Vec<u8>>,
    last: Option<(Vec<u8>, SeqNo)>,
    /// That of the last block.
    separator: Vec<u8>,
}

impl Seen {
    fn partition(&mut self, source: &Source, salt: u64, partition: &Partition) -> Result<()> {
        let damaged =
            |child: Child, detail| source.damaged("data block", child.handle.offset, detail);
        for at in 0..partition.index.rows() {
            let child = partition.child(at);
            let view = source.data_block(child.handle, salt)?;
            self.block(partition, at, child, &view).map_err(|detail| damaged(child, detail))?;
        }
        Ok(())
    }

    fn block(
        &mut self,
        partition: &Partition,
        at: usize,
        child: Child,
        view: &BlockView,
    ) -> Result<(), String> {
        let (mut key, mut deletes, mut old_versions) = (Vec::new(), 0, false);
        for row in 0..view.rows() {
            view.write_key(row, &mut key);
            let is_new = self.follow(&key, view.seq(row))?;
            let denied = |filter: &crate::filter::Filter| {
                // A key may go on in another partition, which has a filter of its own.
                (is_new || (at, row) == (0, 0))
                    && !filter.may_contain(key_hash(filter.hash_seed(), &key))
            };
            if partition.filter.as_ref().is_some_and(denied) {
                return Err(format!("row {row}: the filter denies its key"));
            }
            old_versions |= !is_new;
            deletes += u64::from(view.kind(row) == Kind::Delete);
            if view.kind(row) == Kind::BlobHandle {
                let handle = BlobHandle::decode(view.value(row));
                self.blobs.add(handle.ok_or(format!("row {row}: no handle of a blob"))?);
            }
            self.keys += u64::from(is_new);
            self.key_bytes += key.len() as u64;
            self.value_bytes += view.value(row).len() as u64;
        }
        let rows = view.rows() as u64;
        let flags = if deletes == rows { ALL_TOMBSTONES } else { 0 }
            | if old_versions { HAS_OLD_VERSIONS } else { 0 };
        if (rows, flags) != (u64::from(child.rows), child.flags) {
            let (stored, by_index) = (child.rows, child.flags);
            return Err(format!("{rows} rows, flags {flags}; {stored}, {by_index} by the index"));
        }
        self.rows += rows;
        self.deletes += deletes;
        self.between_separators(partition, at, view)
    }

    /// Every key lies above the separator before its block, or goes on from there, and not above its own.
    fn between_separators(
        &mut self,
        partition: &Partition,
        at: usize,
        view: &BlockView,
    ) -> Result<(), String> {
        let index = &partition.index;
        let (mut first, mut last) = (Vec::new(), Vec::new());
        view.write_key(0, &mut first);
        view.write_key(view.rows() - 1, &mut last);
        if index.first_at_least(&first) > at || index.first_at_least(&last) > at {
            return Err("keys above the block's separator".to_string());
        }
        if self.separator > first {
            return Err("keys below the separator before the block".to_string());
        }
        index.write_key(at, &mut self.separator);
        Ok(())
    }

    /// Takes the next row; whether its key is new.
    fn follow(&mut self, key: &[u8], seq: SeqNo) -> Result<bool, String> {
        let is_new = match &mut self.last {
            None => {
                self.first = Some(key.to_vec());
                true
            }
            Some((last, last_seq)) if last.as_slice() == key && seq < *last_seq => false,
            Some((last, _)) if last.as_slice() < key => true,
            Some(_) => return Err("rows out of order across blocks".to_string()),
        };
        let (min, max) = self.seqs.unwrap_or((seq, seq));
        self.seqs = Some((min.min(seq), max.max(seq)));
        let (last, last_seq) = self.last.get_or_insert_default();
        *last_seq = seq;
        if is_new {
            last.clear();
            last.extend_from_slice(key);
        }
        Ok(is_new)
    }

    /// Compares what was read with what the properties say.
    fn against(self, parts: &Parts) -> Result<(), String> {
        let properties = &parts.properties;
        let mut smallest = self.first;
        let mut largest = self.last.map(|(key, _)| Upper::Included(key));
        let mut seqs = self.seqs;
        for tombstone in parts.tombstones.iter() {
            largest = largest.max(Some(tombstone.upper()));
            let start = tombstone.start;
            smallest = Some(smallest.map_or(start.clone(), |key| key.min(start)));
            let (min, max) = seqs.unwrap_or((tombstone.seq, tombstone.seq));
            seqs = Some((min.min(tombstone.seq), max.max(tombstone.seq)));
        }
        let counted = [self.rows, self.deletes, self.keys, self.key_bytes, self.value_bytes];
        let said = [
            properties.rows,
            properties.deletes,
            properties.keys,
            properties.raw_key_bytes,
            properties.raw_value_bytes,
        ];
        if counted != said {
            return Err(format!(
                "rows, deletes, keys, key bytes, value bytes are {counted:?}, {said:?} by its properties"
            ));
        }
        if self.blobs != properties.blobs {
            return Err("it refers to other blobs than its properties say".to_owned());
        }
        let sound = smallest.as_ref() == Some(&properties.smallest)
            && largest.as_ref() == Some(&properties.largest)
            && seqs == Some((properties.seq_min, properties.seq_max));
        if !sound {
            return Err("bounds or seqs are not those of its entries".to_string());
        }
        Ok(())
    }
}
