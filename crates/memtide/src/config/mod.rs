//! Configuration: what a user names, what a preset fills in, what the engine runs with.
//!
//! Three stages, weakest first: a keyspace's **stored** options, a **file**, a **flag or builder call**. A
//! [`Config`] holds only what was named, so every field is an `Option`; [`Config::resolve`] fills the rest
//! from what is stored and then from the preset. So reopening a database never changes what it is, and a
//! named value always wins (and is stored).

mod compaction;
mod durability;
mod preset;
mod text;
mod validate;
mod wal_sink;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use memtide_memtable::{MemtableChoice, Registry};
use memtide_storage::compress::Codec;

pub use compaction::Compaction;
pub use durability::Durability;
pub use preset::Preset;
pub use validate::{ConfigError, Violation};
pub(crate) use validate::{MEMTABLE_SIZES, check_keyspace_name};
pub use wal_sink::WalSink;

/// The name of the keyspace that every database has.
pub const DEFAULT_KEYSPACE: &str = "default";

/// The former name of [`Config`], kept for existing programs.
pub type LSMTreeConfig = Config;

/// Everything a user may choose. `None` means "not named": stored options and the preset decide.
///
/// The text form of a field (TOML file, `--set key=value`) has the field's own name; grouped fields are
/// written `group.field`. Sizes accept `524288` or `"512KiB"`, durations `250ms` or `1s`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Directory of the database. No default: [`Db::open`](crate::Db::open) names it.
    pub data_dir: Option<PathBuf>,
    /// Where unnamed values come from. Default [`Preset::Balanced`].
    pub preset: Option<Preset>,
    /// Memtable of new keyspaces and, when named, of the default keyspace: one of the eight, or one that the
    /// program registers. Change it when the work of a keyspace is known. Default by preset.
    pub memtable_type: Option<MemtableChoice>,
    /// Largest memtable in bytes, everything included; 4 KiB to 1 GiB. Small tables stay in the processor's
    /// caches; many of them become one table on disk. Where entries have 2 KiB or more on average, a memtable may have
    /// up to a quarter of the flush target. Default by preset.
    pub max_memtable_size: Option<u64>,
    /// Strategy by which tables of new keyspaces and, when named, of the default keyspace are merged: `leveled`,
    /// `lazy_leveled`, `tiered` or `fifo`. Change it when writes cost too much, or when old data may go. Default
    /// `leveled`.
    pub compaction: Option<Compaction>,
    /// Whether compaction runs by itself. When off, call [`Db::compact`](crate::Db::compact). Default on.
    pub enable_background_compaction: Option<bool>,
    /// Longest time between two looks at the shape of the tree, 1 ms to 1 day; work is also noticed when
    /// it arises. Default 1 s.
    pub compaction_check_interval: Option<Duration>,
    /// Memory for memtables, cache, open tables and upkeep together, in bytes; at least 4 memtables.
    /// Default by preset.
    pub memory_budget: Option<u64>,
    /// Sealed bytes of a keyspace that start a flush; at most a quarter of the budget. Default by preset.
    pub flush_target: Option<u64>,
    /// What an acknowledged write survives. Default `interval:1000`.
    pub durability: Option<Durability>,
    /// Compression of table blocks, but for those that are soon rewritten: in level 0, and in level 1 of a tree of
    /// three levels or more, and of large values. Default LZ4 where built in.
    pub compression: Option<Codec>,
    /// Block cache in bytes at most, part of the budget and no more than half of it; it gives way to open tables and
    /// upkeep, down to a sixteenth of the budget. Default a quarter of it.
    pub cache_size: Option<u64>,
    /// Layout of tables and the tree.
    pub tree: TreeConfig,
    /// Options of single keyspaces by name; stronger than the ones above.
    pub keyspaces: BTreeMap<String, KeyspaceConfig>,
}

/// Layout of tables, levels and log. The defaults suit everything but tests and unusual devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TreeConfig {
    /// Raw bytes of a data block, 64 B to 1 MiB. Smaller: fewer bytes per point read. Default 4 KiB.
    pub block_size: Option<u64>,
    /// Filter bits per key of the last level, 0 to 24; each level above has 2 more, up to 16. 0 writes no filters.
    /// Default 10 (about 1 % false positives).
    pub filter_bits: Option<u64>,
    /// Bytes at which a compaction ends a table, 4 KiB to 1 GiB. Default 32 MiB.
    pub table_size: Option<u64>,
    /// Runs in level 0 that start a compaction, 2 to 64. Default 4.
    pub level0_runs: Option<u64>,
    /// Raw bytes of the level that level 0 is merged into, 4 KiB to 1 TiB: it has half to five times as many. Best is
    /// what level 0 has when it is due. Default 64 MiB.
    pub level1_size: Option<u64>,
    /// Bytes a second that compactions write, all together, 64 KiB to 1 PiB; flushes are never held up, and compactions
    /// neither while level 0 of a keyspace has twice the runs that start one. Default unlimited.
    pub compaction_rate: Option<u64>,
    /// Threads that merge tables at once, 1 to 64: a merge of many tables is divided among those that no other merge
    /// has. Default one less than there are processors, but one at least, and no more than four or one for each 64 MiB
    /// of the memory budget.
    pub compaction_threads: Option<u64>,
    /// Smallest value in bytes that is kept apart from its key, in a blob file, 64 B to 8 MiB: it is written once
    /// there, whatever is merged, and read with one read more. Values above 8 MiB always are; with the strategy
    /// `fifo`, which merges nothing, only they. Default 4 KiB.
    pub min_blob_size: Option<u64>,
    /// Bytes of tables, with their blobs, that a keyspace with the strategy `fifo` keeps, 4 KiB to 1 PiB. Default
    /// 1 GiB.
    pub fifo_size: Option<u64>,
    /// Age at which a keyspace with the strategy `fifo` drops a table, 1 s to 10 years. Default never.
    pub fifo_age: Option<Duration>,
    /// Largest WAL segment in bytes, 16 KiB to 1 GiB. Default 64 MiB.
    pub wal_segment_size: Option<u64>,
    /// WAL bytes at which the oldest memtables are flushed. Default 4 segments.
    pub wal_size: Option<u64>,
    /// How records get into the WAL: `file` or `mapped`. What is on disk and what it survives is the same. Choose
    /// `file` where the signal SIGBUS is not the engine's to handle, or nearly every write asks to be synced. Default
    /// `mapped`, and `file` with the durability `sync`.
    pub wal_sink: Option<WalSink>,
}

/// Options of one keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceConfig {
    /// As [`Config::memtable_type`].
    pub memtable_type: Option<MemtableChoice>,
    /// As [`Config::max_memtable_size`].
    pub max_memtable_size: Option<u64>,
    /// As [`Config::compaction`].
    pub compaction: Option<Compaction>,
    /// `none` keeps the keyspace out of the log; any other level follows the database.
    pub durability: Option<Durability>,
}

/// A complete, valid configuration: what the engine runs with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) memtable_type: MemtableChoice,
    pub(crate) max_memtable_size: u64,
    pub(crate) compaction: Compaction,
    pub(crate) enable_background_compaction: bool,
    pub(crate) compaction_check_interval: Duration,
    pub(crate) memory_budget: u64,
    pub(crate) flush_target: u64,
    pub(crate) durability: Durability,
    pub(crate) compression: Codec,
    pub(crate) cache_size: u64,
    pub(crate) block_size: usize,
    pub(crate) filter_bits: u32,
    pub(crate) table_size: u64,
    pub(crate) level0_runs: usize,
    pub(crate) level1_size: u64,
    pub(crate) min_blob_size: usize,
    pub(crate) compaction_rate: Option<u64>,
    /// `None`: as the machine has.
    pub(crate) compaction_threads: Option<usize>,
    pub(crate) fifo_size: u64,
    pub(crate) fifo_age: Option<Duration>,
    pub(crate) wal_segment_size: u64,
    pub(crate) wal_size: u64,
    pub(crate) wal_sink: WalSink,
}

/// What a keyspace keeps in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyspaceOptions {
    pub(crate) memtable_type: MemtableChoice,
    pub(crate) max_memtable_size: u64,
    /// Whether its writes go through the log.
    pub(crate) logged: bool,
    pub(crate) compaction: Compaction,
}

impl Config {
    /// A configuration that names only the preset.
    #[must_use]
    pub fn preset(preset: Preset) -> Self {
        Self { preset: Some(preset), ..Self::default() }
    }

    /// Fills what is not named from the preset. The configuration must be valid.
    pub(crate) fn resolve(&self, registry: &Registry) -> Result<Settings, ConfigError> {
        self.validate_with(registry)?;
        let small = |bytes: u64| usize::try_from(bytes).expect("validated below 2^32");
        let preset = self.preset.unwrap_or_default();
        let memory_budget = self.memory_budget.unwrap_or(preset.memory_budget());
        let wal_segment_size = self.tree.wal_segment_size.unwrap_or(preset.wal_segment_size());
        let durability = self.durability.unwrap_or_default();
        let flush_target =
            self.flush_target.unwrap_or(preset.flush_target().min(memory_budget / 4));
        Ok(Settings {
            memtable_type: self.memtable_type.clone().unwrap_or(preset.memtable_type().into()),
            max_memtable_size: self.max_memtable_size.unwrap_or(preset.max_memtable_size()),
            compaction: self.compaction.unwrap_or_default(),
            enable_background_compaction: self.enable_background_compaction.unwrap_or(true),
            compaction_check_interval: self
                .compaction_check_interval
                .unwrap_or(Duration::from_secs(1)),
            memory_budget,
            flush_target,
            durability,
            compression: self.compression.unwrap_or(Codec::fastest()),
            cache_size: self.cache_size.unwrap_or(memory_budget / 4),
            block_size: small(self.tree.block_size.unwrap_or(4 << 10)),
            filter_bits: u32::try_from(self.tree.filter_bits.unwrap_or(10)).expect("at most 24"),
            table_size: self.tree.table_size.unwrap_or(32 << 20),
            level0_runs: small(self.tree.level0_runs.unwrap_or(4)),
            level1_size: self.tree.level1_size.unwrap_or(64 << 20),
            min_blob_size: small(self.tree.min_blob_size.unwrap_or(4 << 10)),
            compaction_rate: self.tree.compaction_rate,
            compaction_threads: self.tree.compaction_threads.map(small),
            fifo_size: self.tree.fifo_size.unwrap_or(1 << 30),
            fifo_age: self.tree.fifo_age,
            wal_segment_size,
            wal_size: self.tree.wal_size.unwrap_or(4 * wal_segment_size),
            wal_sink: self.tree.wal_sink.unwrap_or(WalSink::best_for(durability)),
        })
    }

    /// The options of a keyspace: named for it, else stored, else named for all, else the preset's.
    ///
    /// Options named for the whole database apply to the default keyspace and to new ones.
    pub(crate) fn keyspace_options(
        &self,
        settings: &Settings,
        name: &str,
        stored: Option<&KeyspaceOptions>,
    ) -> KeyspaceOptions {
        let own = self.keyspaces.get(name).cloned().unwrap_or_default();
        let follows = stored.is_none() || name == DEFAULT_KEYSPACE;
        let named_type = own.memtable_type.or(self.memtable_type.clone().filter(|_| follows));
        let named_size = own.max_memtable_size.or(self.max_memtable_size.filter(|_| follows));
        let named_compaction = own.compaction.or(self.compaction.filter(|_| follows));
        let named_durability = own.durability.or(self.durability.filter(|_| follows));
        let memtable_type = named_type
            .or(stored.map(|options| options.memtable_type.clone()))
            .unwrap_or(settings.memtable_type.clone());
        KeyspaceOptions {
            // However it was spelt out, it is stored as it will be read.
            memtable_type: MemtableChoice::named(memtable_type.name()),
            max_memtable_size: named_size
                .or(stored.map(|options| options.max_memtable_size))
                .unwrap_or(settings.max_memtable_size),
            logged: named_durability
                .map(|durability| durability != Durability::None)
                .or(stored.map(|options| options.logged))
                .unwrap_or(true),
            compaction: named_compaction
                .or(stored.map(|options| options.compaction))
                .unwrap_or(settings.compaction),
        }
    }
}

#[cfg(test)]
mod tests {
    use memtide_memtable::MemtableType;

    use super::*;

    #[test]
    fn the_default_is_the_balanced_preset() {
        let resolve = |config: Config| config.resolve(&Registry::new()).expect("valid");
        let default = resolve(Config::default());
        assert_eq!(default, resolve(Config::preset(Preset::Balanced)));
        assert_eq!(default.memtable_type, MemtableType::EnhancedSkiplist);
        assert_eq!(default.max_memtable_size, 512 << 10);
    }

    #[test]
    fn stored_options_beat_a_preset_and_named_options_beat_both() {
        let stored = KeyspaceOptions {
            memtable_type: MemtableType::Trie.into(),
            max_memtable_size: 1 << 20,
            logged: true,
            compaction: Compaction::Tiered,
        };
        let preset = Config::preset(Preset::HighPerformance);
        let settings = preset.resolve(&Registry::new()).expect("valid");
        let chosen = preset.keyspace_options(&settings, "default", Some(&stored));
        assert_eq!(chosen, stored);
        let named = Config { memtable_type: Some(MemtableType::Vector.into()), ..preset };
        let chosen = named.keyspace_options(&settings, "default", Some(&stored));
        assert_eq!(chosen.memtable_type, MemtableType::Vector);
        let other = named.keyspace_options(&settings, "users", Some(&stored));
        assert_eq!(other, stored, "other keyspaces keep what they are");
    }
}
