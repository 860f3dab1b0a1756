//! Flush: the sealed memtables of a keyspace become one table in level 0.
//!
//! They are the oldest ones, and are merged on the way, so a version that no read needs never reaches the disk:
//! neither one that a merge in memory dropped before, nor one whose successor is flushed with it. Order:
//! log synced up to the newest write → table durable → manifest edit durable → superversion installed →
//! memtables dropped → log segments released.

use memtide_base::seqno::SEE_ALL;
use memtide_base::sync::Arc;
use memtide_base::sync::atomic::Ordering;
use memtide_base::{Result, SeqNo};

use crate::engine::Engine;
use crate::keyspace_state::{Claim, KeyspaceState, RUNS_MAX, beyond_faults};
use crate::range::HalfOpen;
use crate::read::Source;
use crate::rewrite::{OutsideTables, Rewrite, rewrite};
use crate::sealed_run::SealedRun;
use crate::version::{Change, Edit, RunId};
use crate::write;

/// Runs that a flush beside writers takes at most: merges leave claimed ones alone, and must find enough others.
const BESIDE_WRITERS: usize = RUNS_MAX / 4;

/// Flushes everything that is sealed in the keyspace; nothing if nothing is.
///
/// # Errors
/// The memtables stay and are read as before; a table that was being written is removed.
pub(crate) fn flush(engine: &Engine, keyspace: &Arc<KeyspaceState>) -> Result<()> {
    flush_at_most(engine, keyspace, usize::MAX).map(drop)
}

/// As [`flush`], of as much as lets writers go on meanwhile; says how many bytes of memtables that were.
pub(crate) fn flush_beside_writers(engine: &Engine, keyspace: &Arc<KeyspaceState>) -> Result<u64> {
    flush_at_most(engine, keyspace, BESIDE_WRITERS)
}

/// As [`flush`], of so many memtables, the oldest.
pub(crate) fn flush_at_most(
    engine: &Engine,
    keyspace: &Arc<KeyspaceState>,
    at_most: usize,
) -> Result<u64> {
    let _upkeep = keyspace.upkeep.lock();
    // Closing waits for this lock: what did not begin before must not begin at all.
    engine.check_open()?;
    engine.health.check_running()?;
    let flushed = flush_claimed(engine, keyspace, at_most);
    // What was claimed is free to be merged, if it is still there.
    engine.wake_merge();
    flushed
}

/// As [`flush`]. The caller holds `upkeep`, or is alone.
pub(crate) fn flush_sealed(engine: &Engine, keyspace: &Arc<KeyspaceState>) -> Result<()> {
    flush_claimed(engine, keyspace, usize::MAX).map(drop)
}

fn flush_claimed(engine: &Engine, keyspace: &Arc<KeyspaceState>, at_most: usize) -> Result<u64> {
    keyspace.flush_wanted.store(false, Ordering::Release);
    let Some(claim) = keyspace.claim(at_most) else { return Ok(0) };
    engine.wake_merge();
    let sealed = claim.tables();
    let bytes = sealed.iter().map(|table| table.usage().reserved).sum();
    let flushed_to = sealed.iter().map(|table| table.seq_end()).max().unwrap_or_default();
    if keyspace.is_logged() && !cfg!(plant = "log_behind_table") {
        write::sync_to(engine, flushed_to)?;
    }
    let mut changes = write_tables(engine, keyspace, &claim)?;
    let visible = engine.snapshots.visible();
    let seq = if cfg!(plant = "flushed_to_too_far") { visible } else { flushed_to };
    changes.push(Change::FlushedTo { keyspace: keyspace.id, seq });
    let wal_start = install(engine, keyspace, &claim.runs, changes)?;
    // Before the log's segments are removed: to writers who wait, memory that nobody will flush looks pinned.
    drop(claim);
    engine.tally.flushes.fetch_add(1, Ordering::Relaxed);
    write::refresh_memory(engine);
    write::refresh_tree(engine, keyspace);
    engine.freed.notify();
    write::release(engine, wal_start);
    engine.wake_compaction();
    engine.budget.give_back();
    Ok(bytes)
}

/// Writes what was claimed to tables, which are durable and named by nothing then.
pub(crate) fn write_tables(
    engine: &Engine,
    keyspace: &Arc<KeyspaceState>,
    claim: &Claim<'_>,
) -> Result<Vec<Change>> {
    let sealed = claim.tables();
    let readers = engine.snapshots.readers();
    let older = OutsideTables::under_memtables(&claim.version);
    beyond_faults(&sealed, || {
        rewrite(
            engine,
            Rewrite {
                keyspace,
                sources: claim.runs.iter().map(|run| Source::sealed(run, SEE_ALL)).collect(),
                anchor: sealed.first().map(|table| table.learned_anchor()).unwrap_or_default(),
                tombstones: sealed.iter().flat_map(|table| table.range_tombstone_list()).collect(),
                readers: &readers,
                older: &older,
                run: RunId::first(0),
                last: claim.version.deepest(),
                bars: Vec::new(),
                under: Vec::new(),
                table_size: u64::MAX,
                version: &claim.version,
                given_up: Vec::new(),
                span: HalfOpen::all(),
                written: &|_| Ok(()),
            },
        )
    })
}

/// Makes the keyspace's new version current; says where the log begins since.
fn install(
    engine: &Engine,
    keyspace: &Arc<KeyspaceState>,
    flushed: &[SealedRun],
    mut changes: Vec<Change>,
) -> Result<SeqNo> {
    let mut wal_start = wal_start(engine, flushed);
    {
        let mut manifest = engine.manifest.lock();
        let manifest = manifest.as_mut().ok_or_else(|| engine.no_manifest())?;
        // A flush of another keyspace may have come between, and removed segments accordingly.
        wal_start = wal_start.max(manifest.state().wal_start);
        changes.push(Change::WalStart { lsn: wal_start });
        manifest.append(Edit::new(changes)).inspect_err(|error| engine.fail(error))?;
        let version = Arc::clone(&manifest.state().keyspace(keyspace.id).version);
        keyspace.install_flush(flushed, version);
    }
    Ok(wal_start)
}

/// Where the log must begin once `flushed` are in tables: at the first write that only a memtable holds.
pub(crate) fn wal_start(engine: &Engine, flushed: &[SealedRun]) -> SeqNo {
    // Under the commit lock no write is between its LSN and its memtable.
    let _commit = engine.commit.lock();
    let mut start = engine.snapshots.visible();
    for keyspace in engine.all_keyspaces().iter().filter(|keyspace| keyspace.is_logged()) {
        let current = keyspace.current();
        let skipped = usize::from(cfg!(plant = "log_start_too_far"));
        let kept = current.sealed.iter().filter(|run| !flushed.iter().any(|gone| gone.is(run)));
        for table in kept.flat_map(SealedRun::tables).chain([&current.active]).skip(skipped) {
            start = start.min(table.first_seq().unwrap_or(SeqNo::MAX));
        }
    }
    start
}

/// Seals what is active and flushes it, in every keyspace.
pub(crate) fn flush_all(engine: &Engine) -> Result<()> {
    for keyspace in engine.all_keyspaces() {
        while !seal_active(engine, &keyspace) {
            flush(engine, &keyspace)?;
        }
        flush(engine, &keyspace)?;
    }
    Ok(())
}

/// Seals the active memtable, unless it is empty; `false` if something must be flushed first.
pub(crate) fn seal_active(engine: &Engine, keyspace: &Arc<KeyspaceState>) -> bool {
    let _commit = engine.commit.lock();
    keyspace.current().active.is_empty() || write::rotate(engine, keyspace, None)
}
