//! Writes the survivors of a merge into new tables: the one way entries reach the disk, for flush and
//! compaction alike. Large values go into blob files on the way ([`separate`]), once: later merges move their handles
//! only, unless the file they lie in is to be given up.
//!
//! Tables are cut only between user keys. Range tombstones are clipped at the cuts, so each table holds its
//! part and its bounds say so. The tables are durable, with their names, when this returns; nothing names
//! them yet. After an error the files are removed again.

mod separate;

use std::collections::BTreeSet;

use memtide_base::ledger::{Account, Charge};
use memtide_base::range_tombstone::Fragment;
use memtide_base::sync::Arc;
use memtide_base::sync::atomic::Ordering;
use memtide_base::{Entry, Error, Kind, RangeTombstone, Result};
use memtide_memtable::Anchor;
use memtide_storage::FileIdentity;
use memtide_storage::compress::Codec;
use memtide_storage::table::{TableBuilder, TableOptions};

use crate::config::Compaction;
use crate::engine::Engine;
use crate::files::{self, SharedFile, TABLE_DIR};
use crate::keyspace_state::KeyspaceState;
use crate::range::HalfOpen;
use crate::read::{Source, VersionStream};
use crate::snapshots::Readers;
use crate::survivors::{Older, Survivors};
use crate::version::{Change, RunId, StoredTable, TableMeta, Version, is_passing};
use separate::BlobOutputs;

/// Filter bits beyond which no more is to be had.
const FILTER_BITS_ABOVE: u32 = 16;

/// Tables are divided once the indexes and filters of all take more than this part of the memory budget: then there
/// will soon be no room for all of them, while undivided ones are read with fewer steps.
const DIVIDED_ABOVE: u64 = 16;
/// Data blocks of a partition: with blocks of 4 KiB its index and filter take one page or two.
const PARTITION_BLOCKS: u16 = 32;

/// Tables' worth of bytes that one table lies over at most.
const UNDER_MAX: u64 = 10;
/// A table of less than this part of a full one is not ended for what it lies over: there would be many.
const SMALL: u64 = 16;

/// One merge: what goes in and where the result belongs.
pub(crate) struct Rewrite<'m> {
    pub(crate) keyspace: &'m Arc<KeyspaceState>,
    pub(crate) sources: Vec<Source>,
    /// What most keys are expected to begin with.
    pub(crate) anchor: Anchor,
    /// Range tombstones of all sources.
    pub(crate) tombstones: Vec<RangeTombstone>,
    pub(crate) readers: &'m Readers,
    pub(crate) older: &'m dyn Older,
    /// Where the result belongs.
    pub(crate) run: RunId,
    /// The last level of the tree then.
    pub(crate) last: usize,
    /// Keys that no table may reach across, ascending: other tables of its run are there.
    pub(crate) bars: Vec<Vec<u8>>,
    /// Tables that the result will lie over, by their first keys.
    pub(crate) under: Vec<Arc<TableMeta>>,
    /// Bytes at which a table ends.
    pub(crate) table_size: u64,
    /// What the sources are part of, if they are tables: where their values lie.
    pub(crate) version: &'m Version,
    /// Blob files whose values are moved out, by rising number.
    pub(crate) given_up: Vec<u64>,
    /// Which keys are merged; the tombstones are clipped to them.
    pub(crate) span: HalfOpen,
    /// Called whenever so many bytes more were written; an error ends the merge.
    pub(crate) written: &'m dyn Fn(u64) -> Result<()>,
}

/// What a version holds outside a merge and is not surely newer.
pub(crate) struct OutsideTables<'m> {
    version: &'m Version,
    /// How many runs are newer than all inputs.
    newer: usize,
    inputs: BTreeSet<u64>,
}

impl<'m> OutsideTables<'m> {
    /// Around a merge of memtables: every table is older.
    pub(crate) fn under_memtables(version: &'m Version) -> Self {
        Self { version, newer: 0, inputs: BTreeSet::new() }
    }

    /// Around a merge of these tables of the version.
    pub(crate) fn around(version: &'m Version, inputs: BTreeSet<u64>) -> Self {
        Self { version, newer: version.runs_above(&inputs), inputs }
    }
}

impl Older for OutsideTables<'_> {
    fn may_hold(&self, key: &[u8]) -> bool {
        self.version.may_hold(self.newer, key, &self.inputs)
    }

    fn may_hold_under(&self, tombstone: &RangeTombstone) -> bool {
        self.version.may_hold_under(self.newer, tombstone, &self.inputs)
    }
}

/// Filter bits for each key of a level with so many levels below it. All filters are asked for a key that is not there,
/// so a false answer is cheapest to avoid where the fewest keys are (Monkey: Dayan et al., 2017).
fn filter_bits(of_the_last: u32, levels_below: usize) -> u32 {
    let more = 2 * u32::try_from(levels_below).expect("seven levels");
    match of_the_last {
        0 => 0,
        bits => (bits + more).min(FILTER_BITS_ABOVE.max(bits)),
    }
}

/// The part of the memory budget that indexes and filters of the tables may take that are written at the same time, and
/// what those of a table always may.
const LEADS_SHARE: u64 = 16;
const LEADS_MIN: u64 = 64 << 10;

/// Whether tables are divided into partitions. No more tables are looked at than it takes to know.
fn divides(engine: &Engine) -> bool {
    let settings = &engine.settings;
    let mut left = settings.memory_budget / DIVIDED_ABOVE;
    engine.all_keyspaces().iter().any(|keyspace| {
        keyspace.glance().version.tables().any(|table| {
            let leads = table.lead_bytes(settings.block_size, settings.filter_bits);
            let fits = left.checked_sub(leads);
            left = fits.unwrap_or_default();
            fits.is_none()
        })
    })
}

/// Bytes of entries between two calls of `written`.
const STRIDE: usize = 64 << 10;

/// Runs the merge and returns the new tables and blob files, as an edit names them.
pub(crate) fn rewrite(engine: &Engine, merge: Rewrite<'_>) -> Result<Vec<Change>> {
    let mut outputs = Outputs {
        engine,
        divides: divides(engine),
        keyspace: merge.keyspace.id,
        run: merge.run,
        last: merge.last,
        compresses: !is_passing(merge.run.level, merge.last)
            || merge.keyspace.options().compaction == Compaction::Fifo,
        fragments: Vec::new(),
        bars: Vec::new(),
        under: Vec::new(),
        overlap: 0,
        written: merge.written,
        stride: 0,
        told: 0,
        apart: 0,
        open: None,
        begins: merge.span.start.to_vec(),
        done: Vec::new(),
        version: merge.version,
        blobs: BlobOutputs::new(engine, merge.keyspace),
        handle: Vec::new(),
        charge: engine.ledger.empty_charge(Account::Upkeep),
    };
    match outputs.fill(merge) {
        Ok(()) => {
            let blobs = outputs.blobs.done.into_iter().map(Change::BlobAdd);
            Ok(blobs.chain(outputs.done.into_iter().map(Change::TableAdd)).collect())
        }
        Err(error) => {
            outputs.remove_all();
            engine.note_shortage(&error);
            Err(error)
        }
    }
}

/// Removes what was written, which nothing names. Failing to is no error: the next open removes it.
pub(crate) fn discard(engine: &Engine, written: &[Change]) {
    let files = written.iter().filter_map(|change| match change {
        Change::TableAdd(table) => Some(SharedFile::Table(table.number)),
        Change::BlobAdd(blob) => Some(SharedFile::Blob(blob.number)),
        _ => None,
    });
    files.for_each(|file| remove(engine, file));
}

fn remove(engine: &Engine, file: SharedFile) {
    engine.layout.discard(&*engine.env.vfs, file.name());
}

/// The tables a merge has written so far and the one it is writing.
struct Outputs<'e> {
    engine: &'e Engine,
    keyspace: u32,
    run: RunId,
    last: usize,
    /// Tables that are rewritten soon are not worth compressing; with `fifo` none is.
    compresses: bool,
    divides: bool,
    fragments: Vec<Fragment>,
    /// What is left of the keys that no table may reach across, the next one last.
    bars: Vec<Vec<u8>>,
    /// What is left of the tables that the result lies over, the next one last.
    under: Vec<Arc<TableMeta>>,
    /// Bytes of those that the present table lies over.
    overlap: u64,
    written: &'e dyn Fn(u64) -> Result<()>,
    /// Bytes of entries since `written` was called, and what it was told of the present table.
    stride: usize,
    told: u64,
    /// Bytes that went into blob files since then.
    apart: u64,
    open: Option<(u64, TableBuilder)>,
    /// Where the present table's share of the key space begins.
    begins: Vec<u8>,
    done: Vec<StoredTable>,
    version: &'e Version,
    blobs: BlobOutputs<'e>,
    /// Memory for the bytes of one.
    handle: Vec<u8>,
    /// For the memory of the builder.
    charge: Charge,
}

impl Outputs<'_> {
    fn fill(&mut self, merge: Rewrite<'_>) -> Result<()> {
        let mut rule = Survivors::new(merge.readers, merge.older, &merge.tombstones);
        self.fragments = rule.fragments();
        self.under = merge.under;
        self.under.reverse();
        self.bars = merge.bars;
        self.bars.reverse();
        let end = merge.span.end.clone();
        let mut versions = VersionStream::new(merge.sources, merge.anchor).within(merge.span);
        rule.walk(&mut versions, |met, is_newest| {
            let entry = met.entry();
            if is_newest {
                self.cut_at_bars(Some(entry.key))?;
                self.cut_if_full(entry.key, merge.table_size)?;
            }
            let bytes = entry.key.len() + entry.value.len();
            self.add(entry, &merge.given_up)?;
            self.tell(bytes)
        })?;
        self.cut_at_bars(None)?;
        self.finish(end.as_deref())?;
        self.blobs.finish()?;
        if !self.done.is_empty() && !cfg!(plant = "table_name_unsynced") {
            self.engine.layout.sync_dir(&*self.engine.env.vfs, TABLE_DIR)?;
        }
        Ok(())
    }

    /// Adds an entry to the present table, its value to a blob file if it belongs there.
    fn add(&mut self, entry: Entry<'_>, given_up: &[u64]) -> Result<()> {
        match entry.kind {
            Kind::Put if self.blobs.separates(entry.value.len()) => {
                let handle = self.blobs.add(entry.key, entry.value)?;
                self.apart += u64::from(handle.len);
                let mut bytes = std::mem::take(&mut self.handle);
                bytes.clear();
                handle.encode(&mut bytes);
                let kind = Kind::BlobHandle;
                self.builder()?.add(Entry { kind, value: &bytes, ..entry })?;
                self.handle = bytes;
                Ok(())
            }
            Kind::BlobHandle => self.add_handle(entry, given_up),
            _ => self.builder()?.add(entry),
        }
    }

    /// Adds an entry whose value lies in a blob file, moving the value if the file is given up. A value that is damaged
    /// stays where it is: whoever reads it is told, and nobody else has to wait for it.
    fn add_handle(&mut self, entry: Entry<'_>, given_up: &[u64]) -> Result<()> {
        let (meta, handle) = self.version.blob_of(entry.key, entry.value)?;
        if given_up.binary_search(&meta.number).is_err() {
            return self.builder()?.add(entry);
        }
        self.engine.check_open()?;
        match self.engine.tables.blobs.get(meta, entry.key, handle) {
            Err(error) if error.is_corruption() => {
                meta.is_damaged.store(true, Ordering::Relaxed);
                self.builder()?.add(entry)
            }
            value => self.add(Entry { kind: Kind::Put, value: &value?, ..entry }, given_up),
        }
    }

    /// Ends the table at each bar up to `key`, or at all that are left, so that range tombstones are clipped there.
    fn cut_at_bars(&mut self, key: Option<&[u8]>) -> Result<()> {
        while let Some(bar) = self.bars.pop_if(|bar| key.is_none_or(|key| bar.as_slice() <= key)) {
            self.finish(Some(&bar))?;
        }
        Ok(())
    }

    /// Ends the table before `key` if it is large enough, takes much memory while it is written, or lies over so much
    /// that merging it with that would be a large merge (as LevelDB does).
    fn cut_if_full(&mut self, key: &[u8], table_size: u64) -> Result<()> {
        while let Some(passed) = self.under.pop_if(|next| next.smallest.as_slice() <= key) {
            self.overlap += if self.open.is_some() { passed.size } else { 0 };
        }
        let wide = self.overlap > table_size.saturating_mul(UNDER_MAX);
        let leads_max = self.engine.ledger.budget() / LEADS_SHARE;
        let leads_max = (leads_max / self.engine.threads.all() as u64).max(LEADS_MIN);
        let full = self.open.as_ref().is_some_and(|(_, builder)| {
            let bytes = builder.estimated_bytes();
            let wide = wide && bytes >= table_size / SMALL;
            let dear = builder.lead_bytes() > leads_max;
            wide || dear || bytes >= table_size || builder.should_finish()
        });
        if full { self.finish(Some(key)) } else { Ok(()) }
    }

    /// Says how much was written, now and then.
    fn tell(&mut self, added: usize) -> Result<()> {
        self.stride += added;
        if (self.stride as u64).saturating_add(self.apart) < STRIDE as u64 {
            return Ok(());
        }
        self.stride = 0;
        let written = self.open.as_ref().map_or(0, |(_, builder)| builder.estimated_bytes());
        let more = written.saturating_sub(self.told);
        self.told += more;
        self.charge_builder();
        (self.written)(more + std::mem::take(&mut self.apart))
    }

    /// Charges what the present table takes; cache and tables give way.
    fn charge_builder(&mut self) {
        let taken = self.open.as_ref().map_or(0, |(_, builder)| builder.heap_bytes());
        let charged = self.charge.bytes();
        if taken.abs_diff(charged) < STRIDE as u64 && taken != 0 {
            return;
        }
        if taken > charged {
            self.charge.grow_unchecked(taken - charged);
        } else {
            self.charge.shrink(charged - taken);
        }
        self.engine.tables.make_room();
    }

    fn builder(&mut self) -> Result<&mut TableBuilder> {
        if self.open.is_none() {
            self.open = Some(self.create()?);
        }
        Ok(&mut self.open.as_mut().expect("created just now").1)
    }

    fn create(&self) -> Result<(u64, TableBuilder)> {
        let engine = self.engine;
        // Closing waits for a compaction, not for all of a large one. A flush may be part of closing.
        if self.run.level > 0 {
            engine.check_open()?;
        }
        engine.check_claim()?;
        let number = engine.take_number()?;
        let name = files::table_name(number);
        let file = engine
            .env
            .vfs
            .create(&engine.layout.at(&name), 0)
            .map_err(|error| Error::io("create", &name, error))?;
        let identity = FileIdentity { db_uuid: engine.uuid, number, keyspace: self.keyspace };
        let settings = &engine.settings;
        let options = TableOptions {
            block_bytes: settings.block_size,
            partition_blocks: if self.divides { PARTITION_BLOCKS } else { 0 },
            codec: if self.compresses { settings.compression } else { Codec::None },
            filter_bits_per_key: filter_bits(settings.filter_bits, self.last - self.run.level),
            hash_seed: engine.hash_seed,
            salt: engine.env.random.next_u64(),
            created_ms: engine.env.clock.wall_ms(),
        };
        Ok((number, TableBuilder::new(file, name, identity, options)))
    }

    /// Finishes the present table, which ends before `cut` (`None` = it is the last).
    fn finish(&mut self, cut: Option<&[u8]>) -> Result<()> {
        let share: Vec<_> = self
            .fragments
            .iter()
            .filter_map(|fragment| fragment.clipped(&self.begins, cut))
            .collect();
        if !share.is_empty() {
            let builder = self.builder()?;
            for fragment in &share {
                builder.add_range_tombstone(fragment)?;
            }
        }
        self.begins = cut.unwrap_or_default().to_vec();
        self.overlap = 0;
        if let Some((number, builder)) = self.open.take() {
            let finished = builder.finish();
            if finished.is_err() {
                remove(self.engine, SharedFile::Table(number));
            }
            let summary = finished?;
            let more = summary.size.saturating_sub(std::mem::take(&mut self.told));
            let (keyspace, run) = (self.keyspace, self.run);
            self.charge_builder();
            self.done.push(StoredTable { keyspace, run, number, summary });
            (self.written)(more)?;
        }
        Ok(())
    }

    fn remove_all(&mut self) {
        self.blobs.remove_all();
        let open = self.open.take().map(|(number, _)| number);
        for number in self.done.iter().map(|table| table.number).chain(open) {
            remove(self.engine, SharedFile::Table(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_better_where_there_are_fewer_keys() {
        let bits = |of_the_last: u32| [0, 1, 2, 3, 6].map(|below| filter_bits(of_the_last, below));
        assert_eq!(bits(0), [0; 5]);
        assert_eq!(bits(10), [10, 12, 14, 16, 16]);
        assert_eq!(bits(20), [20; 5]);
    }
}
