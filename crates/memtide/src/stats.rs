//! Figures of an open database, as of one moment.

use std::time::Duration;

use memtide_base::sync::atomic::Ordering;
use memtide_base::{SeqNo, sync::Arc};
use memtide_memtable::{MemtableChoice, Usage};

use crate::config::{Compaction, WalSink};
use crate::engine::{Engine, Stall};
use crate::health::Health;
use crate::keyspace_state::KeyspaceState;
use crate::sealed_run::SealedRun;
use crate::version::LEVELS;
use crate::wal::Log;

/// Figures of a database. Bytes unless a name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Per keyspace, in the order of ids.
    pub keyspaces: Vec<KeyspaceStats>,
    /// The limit on `memory_used`.
    pub memory_budget: u64,
    /// Memtables, cache, open tables and upkeep together.
    pub memory_used: u64,
    /// Bytes of blocks in the cache.
    pub cache_bytes: u64,
    /// Reads of a block that the cache had.
    pub cache_hits: u64,
    /// Reads of a block that it had not.
    pub cache_misses: u64,
    /// Log on disk.
    pub wal_bytes: u64,
    /// Files of the log.
    pub wal_segments: usize,
    /// How records get into the newest of them; `None` if the database was opened read-only or is closed. It is `file`
    /// where `mapped` was asked for and is not safe, or the segment is small.
    pub wal_sink: Option<WalSink>,
    /// The current manifest.
    pub manifest_bytes: u64,
    /// Reads see every write below.
    pub visible: SeqNo,
    /// Every logged write below survives a power cut.
    pub durable: SeqNo,
    /// Flushes since the database was opened.
    pub flushes: u64,
    /// Compactions since the database was opened.
    pub compactions: u64,
    /// Writes since the database was opened: puts, deletes and batches.
    pub writes: u64,
    /// Groups in which they went to the log, one write of the file each.
    pub write_groups: u64,
    /// Waits of writers for memory.
    pub stalls_for_memory: StallStats,
    /// Waits of writers for a merge of memtables.
    pub stalls_for_merges: StallStats,
    /// Waits of writers for the next segment of the log; every segment but the first costs one.
    pub stalls_for_segments: StallStats,
    /// Whether compaction is paused.
    pub compaction_paused: bool,
    /// Waits of compactions that wrote faster than `tree.compaction_rate`.
    pub compaction_rate_waits: StallStats,
    /// Waits of writers that were slowed down because flushes are behind, before the memory was full.
    pub slowdowns_for_memory: StallStats,
    /// Waits of writers that were slowed down because compaction is behind: level 0 has many runs, or a deeper level is
    /// far above its target.
    pub slowdowns_for_compaction: StallStats,
    /// Bytes of keys and values per second that writers are held to at this moment, in the keyspace that is held back
    /// most; `None` while none is.
    pub write_rate: Option<u64>,
    /// How the database is.
    pub health: Health,
    /// Why the last background flush failed; `None` if it did not. It is tried again.
    pub flush_failure: Option<String>,
    /// Why the last background compaction failed; `None` if it did not. It is tried again.
    pub compaction_failure: Option<String>,
    /// Damages that were found since the database was opened: [`Db::damages`](crate::Db::damages) has the last.
    pub damages: u64,
    /// Passes of [`Db::scrub`](crate::Db::scrub) that ended since the database was opened.
    pub scrub_passes: u64,
    /// Bytes that they looked at.
    pub scrub_bytes: u64,
}

/// How often somebody waited for something since the database was opened, and how long together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StallStats {
    /// Waits.
    pub count: u64,
    /// Time of all of them.
    pub time: Duration,
}

impl StallStats {
    fn of(stall: &Stall) -> Self {
        Self { count: stall.count(), time: stall.time() }
    }
}

/// Figures of a keyspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyspaceStats {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// Type of its next memtables.
    pub memtable_type: MemtableChoice,
    /// Strategy by which its tables are merged.
    pub compaction: Compaction,
    /// What a program's own memtable was last caught at; `None` if it was not. Nothing is lost or wrong then, but
    /// its tables are slower and smaller than they should be.
    pub memtable_fault: Option<String>,
    /// Where the bytes of the active memtable are.
    pub active: Usage,
    /// Entries in the active memtable, every version counted.
    pub entries_active: u64,
    /// Sealed memtables.
    pub sealed: usize,
    /// Runs of them: sealed memtables whose keys do not overlap, so that a read looks into one of each run.
    pub sealed_runs: usize,
    /// What they reserve.
    pub sealed_bytes: u64,
    /// Levels from 0 on.
    pub levels: Vec<LevelStats>,
    /// Tables in all levels.
    pub tables: usize,
    /// Their files.
    pub table_bytes: u64,
    /// Blob files, which hold the large values of the tables.
    pub blobs: usize,
    /// Bytes of these files.
    pub blob_bytes: u64,
    /// Bytes in them that no table refers to any more.
    pub blob_garbage_bytes: u64,
}

/// Figures of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LevelStats {
    /// Runs in it: a read of a key looks into one table of each at most.
    pub runs: usize,
    /// Tables in it.
    pub tables: usize,
    /// Their files.
    pub bytes: u64,
}

pub(crate) fn stats(engine: &Engine) -> Stats {
    let cache = &engine.budget.cache;
    let ((wal_bytes, wal_segments, wal_sink), (writes, write_groups)) =
        engine.commit.lock().as_ref().map_or_else(Default::default, |log: &Log| {
            ((log.bytes(), log.segment_count(), Some(log.sink())), (log.writes, log.groups))
        });
    let stalls = &engine.tally.stalls;
    Stats {
        keyspaces: engine.all_keyspaces().iter().map(keyspace_stats).collect(),
        memory_budget: engine.ledger.budget(),
        memory_used: engine.budget.used(),
        cache_bytes: cache.bytes(),
        cache_hits: cache.hits(),
        cache_misses: cache.misses(),
        wal_bytes,
        wal_segments,
        wal_sink,
        manifest_bytes: engine.manifest.lock().as_ref().map_or(0, |manifest| manifest.bytes()),
        visible: engine.snapshots.visible(),
        durable: engine.durable_seq(),
        flushes: engine.tally.flushes.load(Ordering::Relaxed),
        compactions: engine.tally.compactions.load(Ordering::Relaxed),
        writes,
        write_groups,
        stalls_for_memory: StallStats::of(&stalls.memory),
        stalls_for_merges: StallStats::of(&stalls.merge),
        stalls_for_segments: StallStats::of(&stalls.segment),
        compaction_paused: engine.hold.is_paused(),
        compaction_rate_waits: StallStats::of(&stalls.compaction_rate),
        slowdowns_for_memory: StallStats::of(&stalls.slowed_by_memory),
        slowdowns_for_compaction: StallStats::of(&stalls.slowed_by_compaction),
        write_rate: engine.pace.slowest(),
        health: engine.health.current(),
        flush_failure: engine.flush_failure.lock().clone(),
        compaction_failure: engine.compaction_failure.lock().clone(),
        damages: engine.damages.count(),
        scrub_passes: engine.scrubs.done().0,
        scrub_bytes: engine.scrubs.done().1,
    }
}

fn keyspace_stats(keyspace: &Arc<KeyspaceState>) -> KeyspaceStats {
    let current = keyspace.current();
    let blobs = current.version.blobs();
    let held: u64 = blobs.iter().map(|blob| blob.summary.bytes).sum();
    let level = |level| LevelStats {
        runs: current.version.run_count(level),
        tables: current.version.tables_of(level).count(),
        bytes: current.version.level_bytes(level),
    };
    KeyspaceStats {
        name: keyspace.name.clone(),
        id: keyspace.id,
        memtable_type: keyspace.options().memtable_type,
        compaction: keyspace.options().compaction,
        memtable_fault: keyspace.fault(),
        active: current.active.usage(),
        entries_active: current.active.entry_count(),
        sealed: current.sealed.iter().map(SealedRun::len).sum(),
        sealed_runs: current.sealed.len(),
        sealed_bytes: current.sealed_bytes(),
        levels: (0..LEVELS).map(level).collect(),
        tables: current.version.tables().count(),
        table_bytes: current.version.tables().map(|table| table.size).sum(),
        blobs: blobs.len(),
        blob_bytes: blobs.iter().map(|blob| blob.summary.size).sum(),
        blob_garbage_bytes: held.saturating_sub(current.version.blob_bytes_used().iter().sum()),
    }
}
