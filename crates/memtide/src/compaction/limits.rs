//! What a strategy is told besides the tree: the limits it keeps, and what reads still need.

use memtide_base::SeqNo;
use memtide_storage::compress::Codec;

use crate::engine::Engine;
use crate::version::is_passing;

/// How much larger each level of a leveled tree is than the one above.
pub(super) const GROWTH: u64 = 10;

/// The score of a level that is at its limit: thousandths of it, so that levels compare as integers.
pub(super) const DUE: u128 = 1000;

/// The limits of the trees of a database at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Runs in level 0 that make it due.
    pub(crate) level0_runs: usize,
    /// What the level under level 0 should weigh, more or less.
    pub(crate) level1_size: u64,
    /// Every read sees past a tombstone below.
    pub(crate) settled: SeqNo,
    /// Bytes of a keyspace that drops its oldest tables.
    pub(crate) fifo_size: u64,
    /// Bytes at which a table ends.
    pub(crate) table_size: u64,
    /// Whether tables are compressed where it pays.
    pub(crate) compresses: bool,
}

impl Limits {
    /// A tree of a few tables of 1,000 bytes.
    #[cfg(test)]
    pub(super) const SMALL: Self = Self {
        level0_runs: 2,
        level1_size: 1000,
        settled: 100,
        fifo_size: 0,
        table_size: 1000,
        compresses: true,
    };

    /// Whether tables are not compressed in a level where they would be deeper down.
    pub(super) fn passes(&self, level: usize, last: usize) -> bool {
        self.compresses && is_passing(level, last)
    }

    pub(super) fn of(engine: &Engine) -> Self {
        let (settings, readers) = (&engine.settings, engine.snapshots.readers());
        let oldest = readers.snapshots.first().copied().unwrap_or(readers.visible);
        Self {
            level0_runs: settings.level0_runs,
            level1_size: settings.level1_size,
            settled: oldest.min(readers.visible),
            fifo_size: settings.fifo_size,
            table_size: settings.table_size,
            compresses: settings.compression != Codec::None,
        }
    }
}
