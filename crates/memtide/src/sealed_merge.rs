//! Merge in memory: neighbouring sealed memtables of a keyspace become one, so reads have few of them to look
//! into and overwritten versions give their memory back before a flush. Nothing on disk changes.
//!
//! Those whose keys do not overlap, as a load in key order makes them, are only joined to a run: a read looks into one
//! of a run, and copying them would drop nothing. So of the memtables that are merged only those are copied that
//! overlap others; together they are one run again.
//!
//! What is copied is a sealed memtable like any other, of the type `sorted` whatever the keyspace writes into: it is
//! filled in key order, which leaves its blocks full, and is never written to again. What is copied is walked
//! twice, to measure and to fill, so that all memory is charged at once, before the first byte is copied; if the
//! ledger refuses, nothing is changed, but inputs that order on demand keep the sorted view that measuring them
//! made. No delete is dropped here: only a flush knows what lies on disk.
//!
//! Which: always the newest, so that a flush may claim the oldest meanwhile, and of these all that are of a size:
//! fresh ones first, what was merged once only when runs of that kind use up the places. So k places take k²/2
//! memtables before anything is copied twice.
//! (Merging sealed memtables in memory: HBase's in-memory compaction, 2017; sizes as in the binomial transform of
//! Bentley and Saxe, 1980.)

use memtide_base::ledger::Account;
use memtide_base::seqno::SEE_ALL;
use memtide_base::sync::Arc;
use memtide_base::{Entry, Kind, RangeTombstone, Result, SeqNo, hash};
use memtide_memtable::{BatchShape, Memtable, MemtableType, Place};

use crate::config::KeyspaceOptions;
use crate::engine::Engine;
use crate::keyspace_state::{KeyspaceState, RUNS_MAX, beyond_faults};
use crate::read::{Source, VersionStream};
use crate::sealed_run::{Member, SealedRun, apart, overlaps};
use crate::survivors::{Older, Survivors};
use crate::write;

/// Sealed runs that a keyspace at rest may have; with the active one, reads have four to look into.
pub(crate) const SEALED_AT_REST: usize = 3;
/// Sealed runs that it may have while memtables come quickly: merging many at once copies less.
pub(crate) const SEALED_BUSY: usize = 5;
/// Sealed runs that it may have while some are being flushed, if making fewer takes copying.
const SEALED_BESIDE_FLUSH: usize = RUNS_MAX - 3;
/// Range tombstones of one memtable: their fragments cost the square of their number.
pub(crate) const TOMBSTONES_MAX: u64 = 256;
/// How far apart the writes of one memtable may be; half of what it can take.
pub(crate) const REACH: u64 = 1 << 33;

/// Records fetched at once.
const FETCHED: usize = 16;

/// What an attempt to merge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    /// There are fewer sealed runs now.
    Done,
    /// There was nothing to do.
    Nothing,
    /// There are too many, but they do not fit into one, or not into memory: a flush must help.
    Impossible,
}

/// Merges some sealed runs of the keyspace if there are more than `most`, within `room` bytes of new memory.
///
/// # Errors
/// The database was closed.
pub(crate) fn merge(
    engine: &Engine,
    keyspace: &KeyspaceState,
    most: usize,
    room: u64,
) -> Result<Merge> {
    if keyspace.current().sealed.len() <= most {
        return Ok(Merge::Nothing);
    }
    let _merging = keyspace.merging.lock();
    engine.check_open()?;
    let (sealed, claimed) = keyspace.unclaimed();
    let all = sealed.len() + claimed;
    if all <= most || sealed.len() < 2 {
        return Ok(Merge::Nothing);
    }
    let apart = apart(&sealed);
    if apart >= 2 {
        let members = overlaps(&sealed[..apart]).into_iter().flatten().collect();
        keyspace.install_merge(&sealed[..apart], SealedRun::in_order(members));
        return Ok(Merge::Done);
    }
    // What a flush has claimed, or is about to take, will be gone soon: there is no hurry before it gets tight.
    let is_flushed = claimed > 0 || flush_comes(engine, keyspace);
    let most = if is_flushed { most.max(SEALED_BESIDE_FLUSH) } else { most };
    let candidates: Vec<_> = sealed.iter().map(Candidate::of).collect();
    // Keyspaces that are due are flushed in turn, so who waits for a flush gets one.
    if all <= most || is_flushed && are_large(&candidates) {
        return Ok(Merge::Nothing);
    }
    let inputs = plan(&candidates).map(|count| &sealed[..count]);
    let run = match inputs {
        Some(inputs) => {
            let tables: Vec<_> = inputs.iter().flat_map(SealedRun::tables).cloned().collect();
            beyond_faults(&tables, || merge_runs(engine, &keyspace.options(), inputs, room))?
        }
        None => None,
    };
    match inputs.zip(run) {
        Some((inputs, run)) => {
            keyspace.install_merge(inputs, run);
            Ok(Merge::Done)
        }
        None if claimed > 0 => Ok(Merge::Nothing),
        None => Ok(Merge::Impossible),
    }
}

/// Merges until the keyspace is as one at rest is, if it can be.
///
/// # Errors
/// As [`merge`].
pub(crate) fn settle(engine: &Engine, keyspace: &KeyspaceState) -> Result<()> {
    while merge(engine, keyspace, SEALED_AT_REST, u64::MAX)? == Merge::Done {}
    Ok(())
}

/// New memory that a merge may take, so that a writer of the keyspace still finds a memtable's worth.
pub(crate) fn room_beside_writers(engine: &Engine, keyspace: &KeyspaceState) -> u64 {
    let next = keyspace.max_memtable_size().max(keyspace.current().active.bytes_max());
    let kept = engine.memtable_bytes() + next;
    engine.memtable_share().saturating_sub(kept)
}

/// Whether a flush is about to take what is sealed anyway.
fn flush_comes(engine: &Engine, keyspace: &KeyspaceState) -> bool {
    write::flush_is_due(engine, keyspace)
        && engine.health.check_running().is_ok()
        && engine.flush_failure.lock().is_none()
}

/// Whether the entries are so large that copying them costs more than the flush that comes.
fn are_large(tables: &[Candidate]) -> bool {
    let bytes: u64 = tables.iter().map(|table| table.bytes).sum();
    bytes >= tables.iter().map(|table| table.entries).sum::<u64>() * write::LARGE_ENTRY
}

/// What the choice of inputs depends on.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    bytes: u64,
    entries: u64,
    range_tombstones: u64,
    first_seq: SeqNo,
    seq_end: SeqNo,
}

impl Candidate {
    fn of(run: &SealedRun) -> Self {
        Self {
            bytes: run.tables().map(|table| table.usage().used).sum(),
            entries: run.tables().map(|table| table.entry_count()).sum(),
            range_tombstones: run.tables().map(|table| table.range_tombstone_count()).sum(),
            first_seq: run.tables().filter_map(|t| t.first_seq()).min().unwrap_or(SeqNo::MAX),
            seq_end: run.seq_end(),
        }
    }
}

/// How many of the newest of these, given newest first, to merge into one: two, and more while none is twice as
/// large as the ones before.
fn plan(sealed: &[Candidate]) -> Option<usize> {
    let (mut count, mut largest) = (0, 0);
    while sealed.get(count).is_some_and(|next| count < 2 || next.bytes < 2 * largest) {
        largest = largest.max(sealed[count].bytes);
        count += 1;
    }
    (2..=count.min(sealed.len())).rev().find(|&count| fit_into_one(&sealed[..count]))
}

fn fit_into_one(tables: &[Candidate]) -> bool {
    let first = tables.iter().map(|table| table.first_seq).min().unwrap_or_default();
    let end = tables.iter().map(|table| table.seq_end).max().unwrap_or_default();
    let range_tombstones: u64 = tables.iter().map(|table| table.range_tombstones).sum();
    end.saturating_sub(first) < REACH && range_tombstones <= TOMBSTONES_MAX
}

/// Everything may have an older version outside of the merge.
struct Unknown;

impl Older for Unknown {
    fn may_hold(&self, _: &[u8]) -> bool {
        true
    }

    fn may_hold_under(&self, _: &RangeTombstone) -> bool {
        true
    }
}

/// A version that stays: which input has it, and where.
struct Survivor {
    source: u32,
    place: Place,
}

/// One run of these: what overlaps is copied. `None` if there is no memory for it.
fn merge_runs(
    engine: &Engine,
    options: &KeyspaceOptions,
    runs: &[SealedRun],
    mut room: u64,
) -> Result<Option<SealedRun>> {
    let mut members = Vec::new();
    for mut group in overlaps(runs) {
        if group.len() == 1 {
            members.append(&mut group);
            continue;
        }
        let tables: Vec<_> = group.iter().map(|member| Arc::clone(member.table())).collect();
        let Some(table) = build(engine, options, &tables, room)? else { return Ok(None) };
        room = room.saturating_sub(table.usage().reserved);
        members.push(Member::new(table));
    }
    Ok(Some(SealedRun::in_order(members)))
}

/// The survivors of `inputs` in one memtable; `None` if there is no memory for it.
fn build(
    engine: &Engine,
    options: &KeyspaceOptions,
    inputs: &[Arc<Memtable>],
    room: u64,
) -> Result<Option<Arc<Memtable>>> {
    let memtable_type = MemtableType::Sorted.into();
    let options = KeyspaceOptions { memtable_type, ..options.clone() };
    let readers = engine.snapshots.readers();
    let tombstones: Vec<_> = inputs.iter().flat_map(|t| t.range_tombstone_list()).collect();
    let mut rule = Survivors::new(&readers, &Unknown, &tombstones);
    let tombstones = rule.surviving(tombstones);
    let anchor = inputs.first().map(|table| table.learned_anchor()).unwrap_or_default();
    let entries: u64 = inputs.iter().map(|table| table.entry_count()).sum();
    let list_bytes = entries * size_of::<Survivor>() as u64;
    let Some(_list_charge) = engine.ledger.try_charge(Account::Memtables, list_bytes) else {
        return Ok(None);
    };
    let mut survivors = Vec::with_capacity(usize::try_from(entries).expect("they are in memory"));

    let gauge = engine.new_memtable(&options, Some(0), anchor);
    let mut shape = BatchShape::default();
    let hash = |entry: &Entry<'_>| hash::key_hash(engine.hash_seed, entry.key);
    let source = |table: &Arc<Memtable>| Source::Memtable(table.cursor(SEE_ALL));
    rule.walk(&mut VersionStream::new(inputs.iter().map(source).collect(), anchor), |met, _| {
        let entry = met.entry();
        // What `sorted` takes for a key does not depend on its hash.
        gauge.measure(&mut shape, entry.kind, 0, entry.key, entry.value);
        let source = u32::try_from(met.source()).expect("few sources");
        survivors.push(Survivor { source, place: met.place() });
        Ok(())
    })?;
    for t in &tombstones {
        gauge.measure(&mut shape, Kind::RangeDelete, 0, &t.start, t.end_bytes());
    }
    let bytes = gauge.bytes_needed(&shape);
    if bytes + list_bytes > room {
        return Ok(None);
    }
    let run = engine.new_memtable(&options, Some(bytes), anchor);
    let Ok(mut reservation) = run.reserve(&shape) else { return Ok(None) };
    let entry = |survivor: &Survivor| inputs[survivor.source as usize].entry_at(survivor.place);
    for several in survivors.chunks(FETCHED) {
        // Records lie apart from each other, and fetching many at once takes hardly longer than fetching one.
        let ends = several
            .iter()
            .map(|survivor| entry(survivor).value.last().map_or(0, |&byte| u64::from(byte)));
        std::hint::black_box(ends.sum::<u64>());
        for entry in several.iter().map(entry) {
            reservation.insert(entry.kind, hash(&entry), entry.key, entry.value, entry.seq);
        }
    }
    for t in &tombstones {
        reservation.delete_range(&t.start, t.end_bytes(), t.seq);
    }
    drop(reservation);
    // The log is kept for what was merged as it was before.
    let first = inputs.iter().filter_map(|table| table.first_seq()).min();
    run.stands_for_writes_from(first.unwrap_or(SeqNo::MAX));
    Ok(Some(run))
}

#[cfg(test)]
mod tests {
    use memtide_env::Simulation;

    use super::*;
    use crate::{Config, Db};

    fn candidates(bytes: &[u64]) -> Vec<Candidate> {
        let tables = bytes.iter().zip((0..100).rev());
        tables
            .map(|(&bytes, first_seq)| Candidate {
                bytes,
                entries: 1,
                range_tombstones: 0,
                first_seq,
                seq_end: first_seq + 1,
            })
            .collect()
    }

    #[test]
    fn the_newest_are_merged_and_older_ones_of_their_size() {
        for (bytes, want) in [
            (&[1, 1, 1, 1][..], Some(4)),
            (&[1, 1, 1, 9], Some(3)),
            (&[1, 1, 4, 9], Some(2)),
            (&[1, 1, 1, 1, 1, 1, 1, 8], Some(7)),
            (&[1, 1, 1, 1, 1, 1, 7, 8], Some(6)),
            (&[1, 1, 1, 1, 1, 6, 7, 8], Some(5)),
            (&[1, 2, 3, 4, 5, 6, 7, 8], Some(8)),
            (&[1, 2, 4, 5, 6, 7, 8, 9], Some(2)),
            (&[1, 9], Some(2)),
            (&[1], None),
            (&[], None),
        ] {
            assert_eq!(plan(&candidates(bytes)), want, "{bytes:?}");
        }
    }

    #[test]
    fn what_one_memtable_cannot_hold_is_not_merged() {
        let mut tables = candidates(&[1, 1, 1, 1]);
        tables[2].range_tombstones = 200;
        tables[3].range_tombstones = 100;
        assert_eq!(plan(&tables), Some(3));
        tables[1].range_tombstones = 100;
        assert_eq!(plan(&tables), Some(2));
        tables[0].range_tombstones = 200;
        assert_eq!(plan(&tables), None);
        let mut tables = candidates(&[1, 1, 1, 1]);
        tables[0].first_seq = 1 << 33;
        tables[0].seq_end = (1 << 33) + 100;
        assert_eq!(plan(&tables), None);
    }

    #[test]
    fn large_entries_are_not_copied_while_a_flush_comes() {
        for (value_len, flush_target, want) in
            [(3500, 16 << 10, Merge::Nothing), (100, 16 << 10, Merge::Done)]
        {
            let sim = Simulation::new(1);
            let config = Config {
                memtable_type: Some(MemtableType::Skiplist.into()),
                max_memtable_size: Some(4 << 10),
                memory_budget: Some(64 << 20),
                flush_target: Some(flush_target),
                ..Config::default()
            };
            let db = Db::builder("/db").config(config).env(sim.env.clone()).open().expect("opens");
            let keyspace = db.default_keyspace();
            // No job runs before a writer waits.
            while keyspace.state().current().sealed.len() <= SEALED_BESIDE_FLUSH {
                // Of different keys nothing would have to be copied.
                db.put("key", vec![1; value_len]).expect("there is room");
            }
            let merged = merge(db.handle.engine(), keyspace.state(), SEALED_BUSY, u64::MAX);
            assert_eq!(merged.expect("open"), want, "{value_len} B, a flush at {flush_target} B");
        }
    }

    /// Each round seals one memtable of size 1; every size is at rest or busy by turns.
    #[test]
    fn a_byte_is_copied_few_times_however_slowly_memtables_come() {
        for most in [SEALED_AT_REST, SEALED_BUSY] {
            let (mut sizes, mut copied) = (Vec::new(), 0);
            for _ in 0..64 {
                sizes.insert(0, 1);
                while sizes.len() > most {
                    let count = plan(&candidates(&sizes)).expect("they fit");
                    let run: u64 = sizes.drain(..count).sum();
                    sizes.insert(0, run);
                    copied += run;
                }
            }
            assert!(copied <= 64 * 5, "{copied} for 64 at {most}");
            assert!(most == SEALED_AT_REST || copied <= 64 * 3, "{copied} for 64 at {most}");
        }
    }
}
