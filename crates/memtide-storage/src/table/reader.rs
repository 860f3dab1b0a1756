//! An open table: point reads through filter, index and block cache.
//!
//! Opening reads the end of the file and nothing else; data blocks are read when a key asks for them,
//! validated once, and shared through the cache. A divided table's partitions are read when a key leads there and
//! given up when open tables take too much memory; their cached blocks go with them. A table is immutable, so any
//! number of readers use one `Arc<Table>` without a lock. What it keeps in memory is charged to the ledger until it
//! is dropped.

use std::path::{Path, PathBuf};

use memtide_base::hash::key_hash;
use memtide_base::ledger::{Account, Charge};
use memtide_base::sync::{Arc, Glance, OnceLock};
use memtide_base::{Error, Kind, RangeTombstones, Result, SeqNo, Slice};
use memtide_env::ReadFile;

use super::cursor::TableCursor;
use super::format::{Child, Footer};
use super::partition::{Division, Extent, Partition};
use super::parts::{Directory, Parts};
use super::properties::Properties;
use super::verify;
use crate::block::BlockView;
use crate::budget::Budget;
use crate::cache::Shelf;
use crate::filter::Filter;
use crate::identity::FileIdentity;
use crate::opened::{MayBeOpen, Openable, Opened};
use crate::source::Source;

/// What an open partition takes beside itself: its places in the queues of partitions and of the cache.
const BESIDE: usize = 160;

/// What all open tables of a database have in common.
pub struct TableShared {
    /// The seed of the hashes that [`Table::get`] is given; a table whose filters were built under another seed answers
    /// right, at the price of a second hash.
    pub hash_seed: u64,
    /// What they may take, and where their data blocks are kept.
    pub budget: Arc<Budget>,
    partitions: Opened<PartitionMeta>,
    /// Closes tables as long as memory is short.
    close_tables: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl TableShared {
    /// For tables that were not opened yet.
    #[must_use]
    pub fn new(hash_seed: u64, budget: Arc<Budget>) -> Arc<Self> {
        let (partitions, close_tables) = (Opened::default(), OnceLock::new());
        Arc::new(Self { hash_seed, budget, partitions, close_tables })
    }

    /// Names what closes tables that are not used as long as memory is [short](Budget::is_short); asked for when a
    /// partition is wanted and giving up others did not help. Only the first one named counts.
    pub fn on_short(&self, close_tables: impl Fn() + Send + Sync + 'static) {
        let _named_before = self.close_tables.set(Box::new(close_tables));
    }

    /// Gives up partitions as long as memory is short, then closes tables, and has the cache fit what is left.
    pub fn make_room(&self) {
        self.partitions.close_surplus(|open| open > 0 && self.budget.is_short());
        self.make_room_behind_partitions();
    }

    fn make_room_behind_partitions(&self) {
        if self.budget.is_short()
            && let Some(close_tables) = self.close_tables.get()
        {
            close_tables();
        }
        self.budget.fit_cache();
    }
}

impl std::fmt::Debug for TableShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TableShared").field("budget", &self.budget).finish_non_exhaustive()
    }
}

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
    /// Block `at` of the table, by `read` unless it is the one that was looked into last.
    #[inline]
    fn block(
        &mut self,
        at: usize,
        read: impl FnOnce() -> Result<Glance<BlockView>>,
    ) -> Result<&BlockView> {
        if self.0.as_ref().is_none_or(|(held, _)| *held != at) {
            self.0 = Some((at, read()?));
        }
        Ok(&self.0.as_ref().expect("set just now").1)
    }
}

/// The partition that a cursor stands in: it asks for each one once, and nobody takes it away meanwhile.
#[derive(Debug)]
pub(super) struct Held {
    open: Option<(usize, Arc<OpenPartition>)>,
    /// If not, partitions that are not in memory are read for the cursor alone and do not push out others.
    will_ask_again: bool,
}

impl Held {
    pub(super) fn for_more() -> Self {
        Self { open: None, will_ask_again: true }
    }

    pub(super) fn for_once() -> Self {
        Self { open: None, will_ask_again: false }
    }
}

/// An immutable sorted file of entries, open for reading.
pub struct Table {
    source: Source,
    file_salt: u64,
    /// First byte behind the data blocks.
    data_end: u64,
    properties: Properties,
    tombstones: RangeTombstones,
    /// `None` if there are no data blocks.
    leads: Option<Leads>,
    expected: FileIdentity,
    size: u64,
    hash_seed: u64,
    shared: Arc<TableShared>,
    /// For all but partitions.
    charge: Charge,
}

/// What leads to the data blocks.
enum Leads {
    Whole(OpenPartition),
    Divided(Divided),
}

struct Divided {
    /// A row for each partition.
    top: BlockView,
    partitions: Box<[Arc<PartitionMeta>]>,
    /// Data blocks of each but the last.
    blocks_each: usize,
    blocks: usize,
}

/// A partition and its cached data blocks.
#[derive(Debug)]
struct OpenPartition {
    partition: Partition,
    shelf: Shelf,
    charge: Charge,
}

/// What is known of a partition, which may be in memory.
#[derive(Debug)]
struct PartitionMeta {
    extent: Extent,
    open: MayBeOpen<OpenPartition>,
}

impl Openable for PartitionMeta {
    type Open = OpenPartition;

    fn slot(&self) -> &MayBeOpen<OpenPartition> {
        &self.open
    }
}

impl OpenPartition {
    fn new(partition: Partition, shared: &TableShared) -> Self {
        let shelf = shared.budget.cache.shelf(partition.index.rows());
        let mut charge = shared.budget.ledger.empty_charge(Account::Tables);
        let held = partition.heap_bytes() + shelf.heap_bytes() + size_of::<Self>() + BESIDE;
        charge.grow_unchecked(held as u64);
        Self { partition, shelf, charge }
    }
}

impl Table {
    /// Opens the table in `file`, which is called `name` in errors and must be `expected` and have
    /// `size` bytes.
    ///
    /// # Errors
    /// Corruption if the file is another table, has another length, or anything but its data blocks and partitions
    /// is damaged; `Unsupported` if a newer version wrote it; whatever reading fails with.
    pub fn open(
        file: Arc<dyn ReadFile>,
        name: PathBuf,
        expected: FileIdentity,
        size: u64,
        shared: &Arc<TableShared>,
    ) -> Result<Arc<Self>> {
        let source = Source { file, name };
        let Parts { footer, properties, directory, tombstones } =
            Parts::read(&source, expected, size)?;
        let mut charge = shared.budget.ledger.empty_charge(Account::Tables);
        let mut held = properties.heap_bytes() + tombstones.heap_bytes() + size_of::<Self>();
        let leads = match directory {
            Some(Directory::Whole(partition)) => {
                held -= size_of::<OpenPartition>(); // It says so itself.
                Some(Leads::Whole(OpenPartition::new(partition, shared)))
            }
            Some(Directory::Divided(division)) => {
                let divided = Divided::new(division);
                held += divided.heap_bytes();
                Some(Leads::Divided(divided))
            }
            None => None,
        };
        charge.grow_unchecked(held as u64);
        let Footer { file_salt, data_end, .. } = footer;
        Ok(Arc::new(Self {
            source,
            file_salt,
            data_end,
            properties,
            tombstones,
            leads,
            expected,
            size,
            hash_seed: shared.hash_seed,
            shared: Arc::clone(shared),
            charge,
        }))
    }

    /// The newest version of `key` with `seq < below`, range tombstones not applied. `hash` is the
    /// key's hash under the seed that tables here share.
    ///
    /// Without a hit in the cache it costs one read, none if the filter says no; in a divided table one more if the
    /// partition has to be read, and again for a key whose versions go on in the next one.
    ///
    /// # Errors
    /// A data block or partition cannot be read or is damaged.
    pub fn get(&self, key: &[u8], hash: u64, below: SeqNo) -> Result<Option<Found>> {
        self.get_near(key, hash, below, &mut Near::default())
    }

    /// As [`Table::get`]; a block that `near` holds is not fetched again, so keys that are asked for in order
    /// fetch each block once.
    ///
    /// # Errors
    /// As [`Table::get`].
    #[inline]
    pub fn get_near(
        &self,
        key: &[u8],
        hash: u64,
        below: SeqNo,
        near: &mut Near,
    ) -> Result<Option<Found>> {
        if self.properties.seq_min >= below {
            return Ok(None);
        }
        match &self.leads {
            None => Ok(None),
            Some(Leads::Whole(whole)) => self.get_in(whole, 0, key, hash, below, near),
            Some(Leads::Divided(divided)) => self.get_divided(divided, key, hash, below, near),
        }
    }

    fn get_divided(
        &self,
        divided: &Divided,
        key: &[u8],
        hash: u64,
        below: SeqNo,
        near: &mut Near,
    ) -> Result<Option<Found>> {
        for at in divided.top.first_at_least(key)..divided.partitions.len() {
            let partition = self.partition(divided, at)?;
            let first = at * divided.blocks_each;
            let found = self.get_in(&partition, first, key, hash, below, near)?;
            // Versions go on in the next partition only if the key is this one's last.
            if found.is_some() || !divided.top.key_is(at, key) {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Looks into the partition that begins with data block `first`.
    #[inline]
    fn get_in(
        &self,
        open: &OpenPartition,
        first: usize,
        key: &[u8],
        hash: u64,
        below: SeqNo,
        near: &mut Near,
    ) -> Result<Option<Found>> {
        let Partition { index, filter } = &open.partition;
        if filter.as_ref().is_some_and(|filter| self.is_denied(filter, key, hash)) {
            return Ok(None);
        }
        for at in index.first_at_least(key)..index.rows() {
            let block = near.block(first + at, || self.block_in(open, at))?;
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

    #[inline]
    fn is_denied(&self, filter: &Filter, key: &[u8], hash: u64) -> bool {
        let own_seed = filter.hash_seed() == self.hash_seed;
        !filter.may_contain(if own_seed { hash } else { key_hash(filter.hash_seed(), key) })
    }

    /// The table's range tombstones.
    #[must_use]
    pub fn range_tombstones(&self) -> &RangeTombstones {
        &self.tombstones
    }

    /// What the table says about itself.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        &self.properties
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

    /// Bytes of memory the open table holds, as charged to the ledger, with those of its partitions that are in memory.
    #[must_use]
    pub fn heap_bytes(&self) -> u64 {
        let partitions = match &self.leads {
            None => 0,
            Some(Leads::Whole(whole)) => whole.charge.bytes(),
            Some(Leads::Divided(divided)) => {
                let open = divided.partitions.iter().filter_map(|meta| meta.open.peek());
                open.map(|partition| partition.charge.bytes()).sum()
            }
        };
        self.charge.bytes() + partitions
    }

    /// A cursor over the versions with `seq < below`, standing nowhere yet.
    #[must_use]
    pub fn cursor(self: &Arc<Self>, below: SeqNo) -> TableCursor {
        TableCursor::new(Arc::clone(self), below)
    }

    /// As [`Table::cursor`], for one walk forward over most of the table: it reads many data blocks at a time, and past
    /// the cache.
    #[must_use]
    pub fn stream(self: &Arc<Self>, below: SeqNo) -> TableCursor {
        TableCursor::streaming(Arc::clone(self), below)
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
        match &self.leads {
            None => 0,
            Some(Leads::Whole(whole)) => whole.partition.index.rows(),
            Some(Leads::Divided(divided)) => divided.blocks,
        }
    }

    /// The first data block whose separator is not below `key`; behind the last if there is none.
    pub(super) fn first_at_least(&self, held: &mut Held, key: &[u8]) -> Result<usize> {
        self.first_by(held, |index| index.first_at_least(key))
    }

    /// The first data block whose separator is above `key`; behind the last if there is none.
    pub(super) fn first_above(&self, held: &mut Held, key: &[u8]) -> Result<usize> {
        self.first_by(held, |index| index.first_above(key))
    }

    /// The data block that `search` finds, first in the top index and then in the index that leads there.
    fn first_by(&self, held: &mut Held, search: impl Fn(&BlockView) -> usize) -> Result<usize> {
        match &self.leads {
            None => Ok(0),
            Some(Leads::Whole(whole)) => Ok(search(&whole.partition.index)),
            Some(Leads::Divided(divided)) => {
                let at = search(&divided.top);
                if at == divided.partitions.len() {
                    return Ok(divided.blocks);
                }
                let first = at * divided.blocks_each;
                self.in_partition(held, first, |open, _| Ok(first + search(&open.partition.index)))
            }
        }
    }

    /// Whether `key` is the separator of data block `at`, so that its versions may go on in the next.
    pub(super) fn is_separator(&self, held: &mut Held, at: usize, key: &[u8]) -> Result<bool> {
        self.in_partition(held, at, |open, at| Ok(open.partition.index.key_is(at, key)))
    }

    /// Where data block `at` lies.
    pub(super) fn child(&self, held: &mut Held, at: usize) -> Result<Child> {
        self.in_partition(held, at, |open, at| Ok(open.partition.child(at)))
    }

    /// Data block `at`, from the cache or the file.
    pub(super) fn block(&self, held: &mut Held, at: usize) -> Result<Arc<BlockView>> {
        self.in_partition(held, at, |open, at| self.block_in(open, at)).map(Glance::keep)
    }

    /// Calls `with` with the partition that leads to data block `at`, and the block's number in it.
    #[inline]
    fn in_partition<T>(
        &self,
        held: &mut Held,
        at: usize,
        with: impl FnOnce(&OpenPartition, usize) -> Result<T>,
    ) -> Result<T> {
        match self.leads.as_ref().expect("a table without data blocks is asked for none") {
            Leads::Whole(whole) => with(whole, at),
            Leads::Divided(divided) => {
                let number = at / divided.blocks_each;
                let open = match held.open.take().filter(|(held, _)| *held == number) {
                    Some((_, open)) => open,
                    None if held.will_ask_again => self.partition(divided, number)?.keep(),
                    None => match divided.partitions[number].open.peek() {
                        Some(open) => open,
                        None => Arc::new(self.read_partition(divided, number)?),
                    },
                };
                let (_, open) = held.open.insert((number, open));
                with(open, at % divided.blocks_each)
            }
        }
    }

    /// Partition `at`, read if need be; others are given up for it.
    #[inline]
    fn partition(&self, divided: &Divided, at: usize) -> Result<Glance<OpenPartition>> {
        match divided.partitions[at].open.glance() {
            Some(open) => Ok(open),
            None => self.open_partition(divided, at),
        }
    }

    #[cold]
    fn open_partition(&self, divided: &Divided, at: usize) -> Result<Glance<OpenPartition>> {
        let (shared, budget) = (&self.shared, &self.shared.budget);
        let read = || self.read_partition(divided, at).map(Arc::new);
        let is_short = |open| open > 0 && budget.is_short();
        let open = shared.partitions.get(&divided.partitions[at], read, is_short)?;
        shared.make_room_behind_partitions();
        Ok(Glance::at(open))
    }

    fn read_partition(&self, divided: &Divided, at: usize) -> Result<OpenPartition> {
        let extent = &divided.partitions[at].extent;
        let partition = extent.read(&self.source, self.file_salt, &divided.top, at)?;
        Ok(OpenPartition::new(partition, &self.shared))
    }

    /// Data block `at` of a partition.
    #[inline]
    fn block_in(&self, open: &OpenPartition, at: usize) -> Result<Glance<BlockView>> {
        match open.shelf.look(at) {
            Some(cached) => Ok(cached),
            None => self.read_block(open, at).map(Glance::at),
        }
    }

    /// Reads data block `at` of a partition from the file into the cache.
    fn read_block(&self, open: &OpenPartition, at: usize) -> Result<Arc<BlockView>> {
        let child = open.partition.child(at);
        let block = self.source.data_block(child.handle, self.file_salt)?;
        self.check_rows(child, &block)?;
        let block = Arc::new(block);
        open.shelf.insert(at, &block);
        Ok(block)
    }

    /// Reads bytes of the data blocks: `len` of them, or up to the end of the last.
    pub(super) fn read_data(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> Result<()> {
        let left = self.data_end.saturating_sub(offset);
        into.resize(usize::try_from(left).unwrap_or(len).min(len), 0);
        self.source.read(into, offset).inspect_err(|_| into.clear())
    }

    /// Where what the table takes is charged.
    pub(super) fn budget(&self) -> &Budget {
        &self.shared.budget
    }

    /// The data block of `child`, made of its bytes.
    pub(super) fn block_of(&self, child: Child, bytes: Arc<[u8]>) -> Result<Arc<BlockView>> {
        let block = self.source.data_block_of(bytes, child.handle.offset, self.file_salt)?;
        self.check_rows(child, &block)?;
        Ok(Arc::new(block))
    }

    fn check_rows(&self, child: Child, block: &BlockView) -> Result<()> {
        if block.rows() == usize::from(child.rows) {
            return Ok(());
        }
        let detail = format!("{} rows, {} by the index", block.rows(), child.rows);
        Err(self.source.damaged("data block", child.handle.offset, detail))
    }

    /// The error for a data block whose rows do not follow those of the block before.
    pub(super) fn out_of_order(&self, at: usize) -> Error {
        let child = self.child(&mut Held::for_once(), at);
        let offset = child.map_or(0, |child| child.handle.offset);
        self.source.damaged("data block", offset, "rows out of order across blocks")
    }
}

impl Divided {
    fn new(division: Division) -> Self {
        let Division { top, extents, blocks_each, blocks } = division;
        let meta = |extent| Arc::new(PartitionMeta { extent, open: MayBeOpen::default() });
        Self { top, partitions: extents.into_iter().map(meta).collect(), blocks_each, blocks }
    }

    fn heap_bytes(&self) -> usize {
        // The two counts of an `Arc` are behind it.
        let each = size_of::<PartitionMeta>() + size_of::<[usize; 3]>();
        self.top.heap_bytes() + self.partitions.len() * each
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({}, {} B)", self.source.name().display(), self.size)
    }
}
