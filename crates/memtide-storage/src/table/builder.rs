//! Writes a table front to back: data blocks as they fill, everything else at the end.
//!
//! Memory is bounded by one block, the write buffer, 8 bytes of hash per key, the index and the range
//! tombstones. The whole-file checksum is taken from the bytes on their way out.
//!
//! The separator between two data blocks is the shortest key that is not below the first's last key and
//! below the second's first key; if one key's versions span both, it is that key.
//!
//! A divided table has an index and a filter for each so many data blocks, its partitions, and a top index. A key
//! whose versions go on in the next partition is in the filters of both.
//!
//! A table is durable when [`TableBuilder::finish`] returns; its name is not, until the caller has synced
//! the directory. After any error the file is worth nothing and the caller removes it.

use std::path::PathBuf;

use memtide_base::hash::key_hash;
use memtide_base::key::{KEY_LEN_MAX, RANGE_END_LEN_MAX, shared_prefix_len};
use memtide_base::range_tombstone::Fragment;
use memtide_base::{Entry, Error, Kind, Result, SeqNo, Upper};
use memtide_env::WriteFile;

use super::format::{ALL_TOMBSTONES, Child, FOOTER_LEN, Footer, HAS_OLD_VERSIONS, Section, TopRow};
use super::properties::{Properties, WRITER};
use crate::blob::{BlobHandle, BlobRefs};
use crate::block::trailer::{self, BlockKind, Handle};
use crate::block::{BLOCK_LEN_MAX, BlockBuilder, ROWS_MAX, Role};
use crate::compress::{self, Codec};
use crate::filter::Filter;
use crate::identity::FileIdentity;
use crate::output::Output;

/// Bytes at which a block of range tombstones is closed.
const RANGE_BLOCK_LEN: usize = 256 << 10;
/// Data blocks after which the target size doubles, so that one index block serves a very large table.
const BLOCKS_PER_SIZE: usize = 16 << 10;
/// More than a row of the top index takes beside its separator.
const TOP_ROW_LEN: usize = 80;
/// Largest target size of a data block.
const TARGET_LEN_MAX: usize = 1 << 20;

/// How to write a table.
#[derive(Clone, Copy, Debug)]
pub struct TableOptions {
    /// Bytes of a data block before compression, aimed at; one row may exceed it.
    pub block_bytes: usize,
    /// Data blocks of a partition of index and filter; a table that has no more is not divided, nor is any with 0.
    pub partition_blocks: u16,
    /// How data and index blocks are compressed, if that saves an eighth.
    pub codec: Codec,
    /// Filter bits for each user key; 0 = no filter.
    pub filter_bits_per_key: u32,
    /// Seed of the key hashes in the filter.
    pub hash_seed: u64,
    /// Random number that makes this file's checksums its own.
    pub salt: u64,
    /// The time, in milliseconds since 1970.
    pub created_ms: u64,
}

/// What the manifest records of a finished table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSummary {
    /// Bytes of the file.
    pub size: u64,
    /// XXH3-128 of the whole file.
    pub checksum: u128,
    /// Point entries, every version counted.
    pub rows: u64,
    /// Distinct keys among them.
    pub keys: u64,
    /// Point tombstones among them.
    pub deletes: u64,
    /// Range tombstones, counted in each fragment.
    pub range_deletes: u64,
    /// The smallest key of a point or tombstone.
    pub smallest: Vec<u8>,
    /// The upper end of all points and tombstones.
    pub largest: Upper,
    /// The oldest write in it.
    pub seq_min: SeqNo,
    /// The newest write in it.
    pub seq_max: SeqNo,
    /// Bytes of keys and values before any compression; of a value in a blob file, its handle.
    pub raw_bytes: u64,
    /// What it refers to in blob files.
    pub blobs: BlobRefs,
    /// Seed of its checksums; 0 if it is not known beside the file itself.
    pub salt: u64,
}

/// Builds one table.
#[derive(Debug)]
pub struct TableBuilder {
    blocks: Blocks,
    options: TableOptions,
    properties: Properties,
    data: BlockBuilder,
    data_flags: DataFlags,
    /// The last data block, until the next key tells its separator.
    waiting: Option<Waiting>,
    /// Of the data blocks that are in no partition yet.
    index: BlockBuilder,
    partitions: Vec<BuiltPartition>,
    /// Bytes of their indexes and filters, and at most of the top index.
    partitions_len: usize,
    top_len: usize,
    ranges: BlockBuilder,
    range_blocks: Vec<Vec<u8>>,
    /// End of the last fragment; the outer `None` before the first.
    range_end: Option<Option<Vec<u8>>>,
    hashes: Vec<u64>,
    last: Option<(Vec<u8>, SeqNo)>,
}

/// A partition whose data blocks are written; its own come behind all of those.
#[derive(Debug)]
struct BuiltPartition {
    separator: Vec<u8>,
    data_end: u64,
    blocks: u16,
    /// Rows of all partitions up to this one.
    rows: u64,
    index: Vec<u8>,
    filter: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct DataFlags {
    deletes: usize,
    has_old_versions: bool,
}

#[derive(Debug)]
struct Waiting {
    child: Child,
    last_key: Vec<u8>,
}

impl TableBuilder {
    /// A builder that writes to `file`, which is empty and called `name` in errors.
    #[must_use]
    pub fn new(
        file: Box<dyn WriteFile>,
        name: PathBuf,
        identity: FileIdentity,
        options: TableOptions,
    ) -> Self {
        let properties = Properties {
            identity,
            created_ms: options.created_ms,
            rows: 0,
            deletes: 0,
            range_deletes: 0,
            keys: 0,
            raw_key_bytes: 0,
            raw_value_bytes: 0,
            smallest: Vec::new(),
            largest: Upper::Excluded(Vec::new()),
            seq_min: SeqNo::MAX,
            seq_max: 0,
            codec: options.codec,
            filter_bits_per_key: options.filter_bits_per_key,
            writer: WRITER.to_string(),
            blobs: BlobRefs::default(),
        };
        Self {
            blocks: Blocks::new(file, name, options.salt),
            options,
            properties,
            data: BlockBuilder::new(Role::Data),
            data_flags: DataFlags::default(),
            waiting: None,
            index: BlockBuilder::new(Role::Index),
            partitions: Vec::new(),
            partitions_len: 0,
            top_len: 0,
            ranges: BlockBuilder::new(Role::RangeDelete),
            range_blocks: Vec::new(),
            range_end: None,
            hashes: Vec::new(),
            last: None,
        }
    }

    /// Adds a point entry above all entries before it: key ascending, seq descending within a key.
    ///
    /// # Errors
    /// `Internal` for a [`Kind::BlobHandle`] whose value is no handle.
    /// `InvalidArgument` for a row no block can hold, or when the index is full; whatever writing
    /// fails with. The table cannot be finished then.
    ///
    /// # Panics
    /// If the entry is out of order or no point entry: written so, it could not be found again.
    pub fn add(&mut self, entry: Entry<'_>) -> Result<()> {
        let (key, value) = (entry.key, entry.value);
        let is_point = matches!(entry.kind, Kind::Put | Kind::Delete | Kind::BlobHandle);
        assert!(is_point, "{:?} is no point", entry.kind);
        let is_new_key = match &self.last {
            None => true,
            Some((last, seq)) => {
                let rises = last.as_slice() < key || (last == key && entry.seq < *seq);
                assert!(rises, "entry ({key:?}, {}) after ({last:?}, {seq})", entry.seq);
                last != key
            }
        };
        if key.len() > KEY_LEN_MAX || !BlockBuilder::fits_alone(key.len(), value.len()) {
            let what = format!("a row of {} + {} B fits no block", key.len(), value.len());
            return Err(Error::invalid_argument(what));
        }
        if entry.kind == Kind::BlobHandle && BlobHandle::decode(value).is_none() {
            return Err(Error::internal(format!("{} B that are no handle of a blob", value.len())));
        }
        let full = self.data.len_with(key, value.len()) > self.target_len()
            || !self.data.has_room(key.len(), value.len());
        if full && !self.data.is_empty() {
            self.finish_block()?;
        }
        self.settle_separator(Some(key))?;
        self.data_flags.has_old_versions |= !is_new_key;
        self.data_flags.deletes += usize::from(entry.kind == Kind::Delete);
        self.data.add(entry);
        self.count(entry, is_new_key);
        Ok(())
    }

    /// Adds the tombstones of one fragment, which lies above all fragments before it. Points and
    /// fragments may come in any order with respect to each other.
    ///
    /// # Errors
    /// `InvalidArgument` for a fragment no block can hold.
    ///
    /// # Panics
    /// If the fragment is empty, has no seqs or overlaps the one before: the caller's bug.
    pub fn add_range_tombstone(&mut self, fragment: &Fragment) -> Result<()> {
        let (start, end) = (fragment.start.as_slice(), fragment.end.as_deref());
        let apart = match &self.range_end {
            None => true,
            Some(None) => false,
            Some(Some(before)) => before.as_slice() <= start,
        };
        assert!(apart && end.is_none_or(|end| end > start), "fragment out of order: {fragment:?}");
        assert!(!fragment.seqs.is_empty() && fragment.seqs.is_sorted_by(|a, b| a > b));
        let value = end.unwrap_or_default();
        if start.len().max(value.len()) > RANGE_END_LEN_MAX {
            let what = format!("a range of {} to {} B keys", start.len(), value.len());
            return Err(Error::invalid_argument(what));
        }
        let is_first = self.is_empty();
        let properties = &mut self.properties;
        if is_first || start < properties.smallest.as_slice() {
            properties.smallest = start.to_vec();
        }
        let upper = end.map_or(Upper::Unbounded, |end| Upper::Excluded(end.to_vec()));
        if upper > properties.largest {
            properties.largest = upper;
        }
        for &seq in &fragment.seqs {
            self.properties.range_deletes += 1;
            self.properties.seq_min = self.properties.seq_min.min(seq);
            self.properties.seq_max = self.properties.seq_max.max(seq);
            let full = self.ranges.len_max() > RANGE_BLOCK_LEN
                || !self.ranges.has_room(start.len(), value.len());
            if full {
                self.finish_range_block();
            }
            self.ranges.add(Entry { key: start, seq, kind: Kind::RangeDelete, value });
        }
        self.range_end = Some(fragment.end.clone());
        Ok(())
    }

    /// About the bytes the file would have if it were finished now.
    #[must_use]
    pub fn estimated_bytes(&self) -> u64 {
        let bits = self.options.filter_bits_per_key;
        let filter = if bits == 0 { 0 } else { Filter::encoded_len(self.hashes.len(), bits) };
        let ranges: usize = self.range_blocks.iter().map(Vec::len).sum();
        let indexes = self.index.len_max() + self.partitions_len + self.top_len;
        let rest = self.data.len_max() + self.ranges.len_max() + indexes;
        self.blocks.out.offset() + (rest + filter + ranges + FOOTER_LEN) as u64
    }

    /// About the bytes of memory that are taken, with what finishing takes.
    #[must_use]
    pub fn heap_bytes(&self) -> u64 {
        let blocks = 2 * (self.data.len_max() + self.ranges.len_max());
        let ranges: usize = self.range_blocks.iter().map(Vec::len).sum();
        self.lead_bytes() + (blocks + ranges + self.blocks.out.heap_bytes()) as u64
    }

    /// Those of index and filter, which grow with the table; the last ones are built and copied when it is finished.
    #[must_use]
    pub fn lead_bytes(&self) -> u64 {
        let bits = self.options.filter_bits_per_key;
        let filter = if bits == 0 { 0 } else { Filter::encoded_len(self.hashes.len(), bits) };
        let hashes = self.hashes.capacity() * size_of::<u64>();
        let last = hashes + 2 * (filter + self.index.len_max());
        (last + self.partitions_len + 2 * self.top_len) as u64
    }

    /// Whether the index is so full that the table should be finished before the next user key: half
    /// of what one block can hold.
    #[must_use]
    pub fn should_finish(&self) -> bool {
        let rows = self.index.rows().max(self.partitions.len());
        let len = self.index.len_max().max(self.top_len);
        rows > ROWS_MAX / 2 || len > BLOCK_LEN_MAX / 2
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.properties.rows + self.properties.range_deletes == 0
    }

    /// Writes all that is left and syncs the file.
    ///
    /// # Errors
    /// `InvalidArgument` if nothing was added; whatever writing or syncing fails with. The caller
    /// removes the file.
    pub fn finish(mut self) -> Result<TableSummary> {
        if self.is_empty() {
            return Err(Error::invalid_argument("a table needs at least one entry"));
        }
        if !self.data.is_empty() {
            self.finish_block()?;
        }
        self.settle_separator(None)?;
        let data_end = self.blocks.out.offset();
        if let Some((last, _)) = self.last.take() {
            let points = Upper::Included(last);
            if points > self.properties.largest {
                self.properties.largest = points;
            }
        }
        let sections = self.write_sections()?;
        let mut payload = Vec::new();
        sections.iter().for_each(|section| section.encode(&mut payload));
        let metaindex = self.blocks.block(BlockKind::Metaindex, Codec::None, payload)?;
        let identity = self.properties.identity;
        let footer = Footer {
            metaindex,
            file_salt: self.options.salt,
            data_end,
            file_len: self.blocks.out.offset() + FOOTER_LEN as u64,
            db_uuid: identity.db_uuid,
            number: identity.number,
        };
        self.blocks.out.append(&footer.encode())?;
        let (size, checksum) = self.blocks.out.finish()?;
        let properties = self.properties;
        Ok(TableSummary {
            size,
            checksum,
            rows: properties.rows,
            keys: properties.keys,
            deletes: properties.deletes,
            range_deletes: properties.range_deletes,
            smallest: properties.smallest,
            largest: properties.largest,
            seq_min: properties.seq_min,
            seq_max: properties.seq_max,
            raw_bytes: properties.raw_key_bytes + properties.raw_value_bytes,
            blobs: properties.blobs,
            salt: self.options.salt,
        })
    }

    /// Everything between the data blocks and the metaindex.
    fn write_sections(&mut self) -> Result<Vec<Section>> {
        let mut sections = Vec::new();
        if !self.partitions.is_empty() {
            let handle = self.write_partitions()?;
            sections.push(Section::new(BlockKind::TopIndex, handle));
        } else if !self.index.is_empty() {
            if let Some(filter) = self.filter() {
                let handle = self.blocks.block(BlockKind::Filter, Codec::None, filter)?;
                sections.push(Section::new(BlockKind::Filter, handle));
            }
            let mut payload = Vec::new();
            self.index.finish(&mut payload);
            let handle = self.blocks.block(BlockKind::Index, self.options.codec, payload)?;
            sections.push(Section::new(BlockKind::Index, handle));
        }
        if !self.ranges.is_empty() {
            self.finish_range_block();
        }
        for payload in std::mem::take(&mut self.range_blocks) {
            let handle = self.blocks.block(BlockKind::RangeDelete, Codec::None, payload)?;
            sections.push(Section::new(BlockKind::RangeDelete, handle));
        }
        let mut payload = Vec::new();
        self.properties.encode(&mut payload);
        let handle = self.blocks.block(BlockKind::Properties, Codec::None, payload)?;
        sections.push(Section::new(BlockKind::Properties, handle));
        Ok(sections)
    }

    /// The filter over the keys that are in no partition yet, if there are to be filters.
    fn filter(&self) -> Option<Vec<u8>> {
        let TableOptions { filter_bits_per_key: bits, hash_seed, .. } = self.options;
        (bits > 0).then(|| {
            let mut payload = Vec::new();
            Filter::build(&self.hashes, bits, hash_seed).encode(&mut payload);
            payload
        })
    }

    /// All partitions, and the top index behind them.
    fn write_partitions(&mut self) -> Result<Handle> {
        let mut top = BlockBuilder::new(Role::Index);
        let mut rows = 0;
        for partition in std::mem::take(&mut self.partitions) {
            let index = self.blocks.block(BlockKind::Index, self.options.codec, partition.index)?;
            let filter = partition.filter;
            let filter = filter
                .map(|filter| self.blocks.block(BlockKind::Filter, Codec::None, filter))
                .transpose()?;
            let value = TopRow {
                data_end: partition.data_end,
                rows: partition.rows - rows,
                blocks: partition.blocks,
                index_len: index.len,
                filter_len: filter.map_or(0, |filter| filter.len),
            };
            let (key, value) = (partition.separator, value.encode());
            if !top.has_room(key.len(), value.len()) {
                let what = format!("the top index of {} is full", self.blocks.out.name().display());
                return Err(Error::invalid_argument(what).with_hint("cut tables earlier"));
            }
            top.add(Entry { key: &key, seq: 0, kind: Kind::Put, value: &value });
            rows = partition.rows;
        }
        let mut payload = Vec::new();
        top.finish(&mut payload);
        self.blocks.block(BlockKind::TopIndex, self.options.codec, payload)
    }

    /// Makes a partition of the data blocks that are in none yet, of which the last ends with `separator`.
    fn finish_partition(&mut self, separator: Vec<u8>) {
        let blocks = u16::try_from(self.index.rows()).expect("a block bounds its rows");
        let mut index = Vec::new();
        self.index.finish(&mut index);
        let filter = self.filter();
        self.hashes.clear();
        self.partitions_len += index.len() + filter.as_ref().map_or(0, Vec::len);
        self.top_len += separator.len() + TOP_ROW_LEN;
        self.partitions.push(BuiltPartition {
            separator,
            data_end: self.blocks.out.offset(),
            blocks,
            rows: self.properties.rows,
            index,
            filter,
        });
    }

    fn count(&mut self, entry: Entry<'_>, is_new_key: bool) {
        let is_first = self.is_empty();
        let (key, properties) = (entry.key, &mut self.properties);
        if is_first || (properties.rows == 0 && key < properties.smallest.as_slice()) {
            properties.smallest = key.to_vec();
        }
        properties.rows += 1;
        properties.deletes += u64::from(entry.kind == Kind::Delete);
        if entry.kind == Kind::BlobHandle {
            let handle = BlobHandle::decode(entry.value);
            properties.blobs.add(handle.expect("checked when it was added"));
        }
        properties.keys += u64::from(is_new_key);
        properties.raw_key_bytes += key.len() as u64;
        properties.raw_value_bytes += entry.value.len() as u64;
        properties.seq_min = properties.seq_min.min(entry.seq);
        properties.seq_max = properties.seq_max.max(entry.seq);
        if is_new_key && self.options.filter_bits_per_key > 0 {
            self.hashes.push(key_hash(self.options.hash_seed, key));
        }
        let (last, seq) = self.last.get_or_insert_default();
        *seq = entry.seq;
        if is_new_key {
            last.clear();
            last.extend_from_slice(key);
        }
    }

    fn target_len(&self) -> usize {
        let partitions = self.partitions.len() * usize::from(self.options.partition_blocks);
        let doublings = (partitions + self.index.rows()) / BLOCKS_PER_SIZE;
        (self.options.block_bytes << doublings).min(TARGET_LEN_MAX)
    }

    fn finish_block(&mut self) -> Result<()> {
        let flags = std::mem::take(&mut self.data_flags);
        let rows = self.data.rows();
        let last_key = self.data.last().map(|(key, _)| key.to_vec()).unwrap_or_default();
        let mut payload = std::mem::take(&mut self.blocks.spare);
        self.data.finish(&mut payload);
        let handle = self.blocks.block(BlockKind::Data, self.options.codec, payload)?;
        let all_tombstones = if flags.deletes == rows { ALL_TOMBSTONES } else { 0 };
        let old_versions = if flags.has_old_versions { HAS_OLD_VERSIONS } else { 0 };
        let rows = u16::try_from(rows).expect("a block bounds its rows");
        let child = Child { handle, rows, flags: all_tombstones | old_versions };
        self.waiting = Some(Waiting { child, last_key });
        Ok(())
    }

    /// Gives the last data block its index row, now that the key behind it is known.
    fn settle_separator(&mut self, next: Option<&[u8]>) -> Result<()> {
        let Some(Waiting { child, last_key }) = self.waiting.take() else { return Ok(()) };
        let goes_on = next.is_some_and(|next| next == last_key);
        let key = match next {
            Some(next) => separator(&last_key, next),
            None => last_key,
        };
        let value = child.encode();
        if !self.index.has_room(key.len(), value.len()) {
            let what = format!("the index of {} is full", self.blocks.out.name().display());
            return Err(Error::invalid_argument(what).with_hint("cut tables earlier"));
        }
        self.index.add(Entry { key: &key, seq: 0, kind: Kind::Put, value: &value });
        let is_full = self.index.rows() == usize::from(self.options.partition_blocks);
        // The last blocks are a partition only if there are others.
        let is_last = next.is_none() && !self.partitions.is_empty();
        if is_full && next.is_some() || is_last {
            self.finish_partition(key);
        }
        if is_full && goes_on && self.options.filter_bits_per_key > 0 {
            self.hashes.extend(next.map(|key| key_hash(self.options.hash_seed, key)));
        }
        Ok(())
    }

    fn finish_range_block(&mut self) {
        let mut payload = Vec::new();
        self.ranges.finish(&mut payload);
        self.range_blocks.push(payload);
    }
}

/// A shortest key `s` with `last <= s < next`, or `last` itself if they are equal.
fn separator(last: &[u8], next: &[u8]) -> Vec<u8> {
    let shared = shared_prefix_len(last, next);
    let (Some(&low), Some(&high)) = (last.get(shared), next.get(shared)) else {
        return last.to_vec();
    };
    // They differ inside both: one byte behind what they share nearly always suffices.
    if next.len() > shared + 1 {
        return next[..=shared].to_vec();
    }
    if low + 1 < high {
        return [&last[..shared], &[low + 1]].concat();
    }
    let rest = &last[shared + 1..];
    match rest.iter().position(|&byte| byte < 0xFF) {
        Some(at) if at + 1 < rest.len() => [&last[..=shared + at], &[rest[at] + 1]].concat(),
        _ => last.to_vec(),
    }
}

/// The file on its way out, block by block.
#[derive(Debug)]
struct Blocks {
    out: Output,
    salt: u64,
    /// Memory of a block that was written, for the next one.
    spare: Vec<u8>,
    compressed: Vec<u8>,
}

impl Blocks {
    fn new(file: Box<dyn WriteFile>, name: PathBuf, salt: u64) -> Self {
        let out = Output::new(file, name);
        Self { out, salt, spare: Vec::new(), compressed: Vec::new() }
    }

    fn block(&mut self, kind: BlockKind, codec: Codec, raw: Vec<u8>) -> Result<Handle> {
        let (raw_len, offset) = (raw.len(), self.out.offset());
        let (codec, mut block) = if compress::compress(codec, &raw, &mut self.compressed)? {
            self.spare = raw;
            (codec, std::mem::take(&mut self.compressed))
        } else {
            (Codec::None, raw)
        };
        trailer::seal(&mut block, kind, codec, raw_len, self.salt ^ offset);
        self.out.append(&block)?;
        let len = u32::try_from(block.len()).expect("a block bounds its length");
        let spare = if codec == Codec::None { &mut self.spare } else { &mut self.compressed };
        *spare = block;
        Ok(Handle { offset, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_separator_lies_between_its_keys_and_is_no_longer_than_the_first(
            a in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(2), Just(254), Just(255)], 0..6),
            b in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(2), Just(254), Just(255)], 0..6),
        ) {
            let (last, next) = if a <= b { (a, b) } else { (b, a) };
            let between = separator(&last, &next);
            prop_assert!(last <= between && between.len() <= last.len());
            prop_assert!(between < next || last == next);
        }
    }
}
