//! Partitions: index and filter over a stretch of a table's data blocks, read on their own.
//!
//! A small table is one partition, in memory while the table is open. A divided one has many, each of as many data
//! blocks but the last, and a top index that leads to them; only that stays in memory. (Partitioned indexes and
//! filters as in RocksDB, 2017; a B-tree of two levels by another name.)

use std::ops::Range;

use memtide_base::Result;
use memtide_base::sync::Arc;

use super::format::{Child, TopRow};
use crate::block::trailer::{BlockKind, Handle};
use crate::block::{BlockView, Role};
use crate::filter::Filter;
use crate::source::Source;

/// What leads to data blocks that follow each other.
#[derive(Debug)]
pub(super) struct Partition {
    /// A row for each of them.
    pub(super) index: BlockView,
    pub(super) filter: Option<Filter>,
}

impl Partition {
    /// One whose index leads to all of `data` and so many rows; or what is wrong with the index.
    pub(super) fn new(
        index: BlockView,
        filter: Option<Filter>,
        data: Range<u64>,
        rows: u64,
    ) -> Result<Self, String> {
        let (mut end, mut seen) = (data.start, 0);
        for at in 0..index.rows() {
            let child = Child::decode(index.value(at))
                .filter(|child| child.handle.offset == end && child.handle.has_valid_len())
                .ok_or("data blocks do not follow each other")?;
            end = child.handle.end().ok_or("a block beyond all files")?;
            seen += u64::from(child.rows);
        }
        if end != data.end || seen != rows {
            return Err("data blocks or rows are missing".to_owned());
        }
        Ok(Self { index, filter })
    }

    /// What the index says about data block `at` of the partition.
    pub(super) fn child(&self, at: usize) -> Child {
        Child::decode(self.index.value(at)).expect("validated when it was read")
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.index.heap_bytes() + self.filter.as_ref().map_or(0, Filter::heap_bytes)
    }
}

/// Where a partition lies: its index block, and right behind it the filter block if it has one.
#[derive(Debug)]
pub(super) struct Extent {
    /// What it leads to.
    data: Range<u64>,
    rows: u64,
    blocks: usize,
    index: Handle,
    filter_len: u32,
}

impl Extent {
    /// Reads the partition, which must end with the separator that row `at` of `top` is.
    pub(super) fn read(
        &self,
        source: &Source,
        salt: u64,
        top: &BlockView,
        at: usize,
    ) -> Result<Partition> {
        let index_len = self.index.len as usize;
        let mut bytes = vec![0; index_len + self.filter_len as usize];
        source.read(&mut bytes, self.index.offset)?;
        let (index, filter) = bytes.split_at(index_len);
        let payload = source.unseal(Arc::from(index), self.index.offset, BlockKind::Index, salt)?;
        let index = source.view(payload, self.index.offset, BlockKind::Index, Role::Index)?;
        let filter = self.filter(source, salt, filter)?;
        let damaged = |detail: &str| source.damaged("index block", self.index.offset, detail);
        let mut separator = Vec::new();
        top.write_key(at, &mut separator);
        if index.rows() != self.blocks || !index.key_is(self.blocks - 1, &separator) {
            return Err(damaged("not the partition that the top index leads to"));
        }
        Partition::new(index, filter, self.data.clone(), self.rows).map_err(|what| damaged(&what))
    }

    /// Its blocks.
    #[cfg(test)]
    pub(super) fn handles(&self) -> impl Iterator<Item = Handle> {
        let offset = self.index.end().expect("it lies in the file");
        let filter = Handle { offset, len: self.filter_len };
        [self.index, filter].into_iter().filter(|handle| handle.len > 0)
    }

    fn filter(&self, source: &Source, salt: u64, block: &[u8]) -> Result<Option<Filter>> {
        if block.is_empty() {
            return Ok(None);
        }
        let offset = self.index.end().expect("it lies in the file");
        let payload = source.unseal(Arc::from(block), offset, BlockKind::Filter, salt)?;
        let damaged = |detail| source.damaged("filter block", offset, detail);
        Filter::decode(payload.as_bytes()).map_err(damaged)
    }
}

/// How a table is divided: what leads to its partitions.
#[derive(Debug)]
pub(super) struct Division {
    /// A row for each partition: its last separator.
    pub(super) top: BlockView,
    pub(super) extents: Vec<Extent>,
    /// Data blocks of each partition but the last, which may have fewer.
    pub(super) blocks_each: usize,
    /// Data blocks of all.
    pub(super) blocks: usize,
}

impl Division {
    /// What `top` says, if its partitions lead to all data blocks, which end at `data_end`, and to so many rows, and
    /// lie between those and `top_offset`; or what is wrong with it.
    pub(super) fn new(
        top: BlockView,
        data_end: u64,
        top_offset: u64,
        rows: u64,
    ) -> Result<Self, String> {
        let mut extents = Vec::with_capacity(top.rows());
        let (mut data, mut next, mut seen, mut blocks) = (0, data_end, 0_u64, 0);
        for at in 0..top.rows() {
            let row = TopRow::decode(top.value(at)).ok_or("a row that says nothing")?;
            let index = Handle { offset: next, len: row.index_len };
            let filter = Handle { offset: next, len: row.filter_len };
            let is_sound = row.data_end > data
                && row.blocks > 0
                && index.has_valid_len()
                && (row.filter_len == 0 || filter.has_valid_len());
            if !is_sound {
                return Err("a partition of nothing".to_owned());
            }
            let lens = u64::from(row.index_len) + u64::from(row.filter_len);
            next = next.checked_add(lens).ok_or("a block beyond all files")?;
            seen = seen.checked_add(row.rows).ok_or("more rows than there can be")?;
            blocks += usize::from(row.blocks);
            let (data_of, blocks) = (data..row.data_end, usize::from(row.blocks));
            let (rows, filter_len) = (row.rows, row.filter_len);
            extents.push(Extent { data: data_of, rows, blocks, index, filter_len });
            data = row.data_end;
        }
        if (data, next, seen) != (data_end, top_offset, rows) {
            return Err("partitions, data blocks or rows are missing".to_owned());
        }
        let blocks_each = extents.first().map_or(0, |first| first.blocks);
        let (last, others) = extents.split_last().ok_or("no partitions")?;
        if others.iter().any(|other| other.blocks != blocks_each) || last.blocks > blocks_each {
            return Err("partitions of different sizes".to_owned());
        }
        Ok(Self { top, extents, blocks_each, blocks })
    }
}
