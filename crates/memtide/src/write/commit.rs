//! The commit: a batch, or a group of them, goes into the log, into the memtables and becomes visible.
//!
//! Under the commit lock: reserve in every memtable (rotating the full ones) → assign the LSNs → append to
//! the log, in one write → insert → publish. The log is synced afterwards, without the lock, so a group of writers
//! shares one sync. Nobody waits while holding the lock: for memory or for the next log segment a writer lets go
//! of everything and begins again.
//!
//! State after an error: nothing of the batches is visible. If the append itself failed, records may be
//! found whole by a recovery before the database has resumed, and it takes no writes until then.

use memtide_base::sync::{Arc, Guard};
use memtide_base::{Error, ErrorKind, Kind, Result, SeqNo, hash};
use memtide_memtable::{BatchShape, Full, Memtable, Reservation, WARM_KEYS};
use memtide_storage::log::{BatchOp, LogWriter, RecordKind};
use smallvec::SmallVec;

use super::rotate::{rotate, stretch};
use crate::batch::Writes;
use crate::commit_queue::{Committed, Need};
use crate::engine::Engine;
use crate::keyspace_state::{KeyspaceState, SuperVersion};
use crate::wal::Log;

/// What became of a group.
pub(super) enum Attempt {
    /// What became of each.
    Done(Few<Committed>),
    /// Nothing happened.
    Needs(Need),
    /// Nothing happened; a group of several must be tried one by one.
    Apart,
}

/// As many as a single write has of anything lie beside each other without an allocation.
type Few<T> = SmallVec<[T; 1]>;

/// A superversion and what a group needs of its active memtable.
type Choice = (Guard<Arc<SuperVersion>>, BatchShape);

/// Commits a group of writes, in order, each whole. `log` is what the commit lock guards.
pub(super) fn commit<W: Writes>(
    engine: &Engine,
    log: &mut Option<Log>,
    group: &[&W],
) -> Result<Attempt> {
    engine.check_open()?;
    if let Err(refused) = engine.health.check_writable() {
        let gives = |writes: &&W| gives_space(*writes);
        let is_taken = group.iter().all(gives) && engine.health.is_full();
        if !is_taken && group.len() > 1 {
            return Ok(Attempt::Apart);
        }
        if !is_taken {
            return Err(refused);
        }
    }
    if engine.memtable_bytes() >= engine.memtable_share() {
        return Ok(Attempt::Needs(Need::Memory));
    }
    let log = log
        .as_mut()
        .ok_or_else(|| Error::new(ErrorKind::ReadOnly, "the database was opened read-only"))?;
    let is_single = group.len() == 1;
    let lsns = group.iter().map(|writes| span(*writes)).sum();
    if !is_single && !log.would_admit(lsns) {
        return Ok(Attempt::Apart);
    }
    if !log.admits(lsns) {
        return Ok(Attempt::Needs(Need::Segment));
    }
    let keyspaces = keyspaces(group);
    let mut choices = Few::<Choice>::new();
    for keyspace in &keyspaces {
        match choose(engine, group, keyspace) {
            Some(choice) => choices.push(choice),
            None if !is_single => return Ok(Attempt::Apart),
            None => return Ok(Attempt::Needs(Need::Merge(Arc::clone(keyspace)))),
        }
    }
    let mut rotations = 0;
    loop {
        let mut rooms = Few::new();
        let (full, why) = match reserve(&choices, &mut rooms) {
            Ok(()) => return apply(engine, log, group, &keyspaces, &mut rooms).map(Attempt::Done),
            Err(_) if !is_single => return Ok(Attempt::Apart),
            Err(refused) => refused,
        };
        drop(rooms);
        check_share(engine, &choices)?;
        let Full::Table { bytes_max } = why else { return Ok(Attempt::Needs(Need::Memory)) };
        let keyspace = keyspaces[full];
        let (view, shape) = &choices[full];
        if stretch(engine, &view.active, shape) {
            continue;
        }
        // Each keyspace may need one rotation to an empty table and one to a table for this batch.
        assert!(
            rotations < 2 * choices.len(),
            "a memtable of {bytes_max} B does not take its batch"
        );
        rotations += 1;
        let made = make_room(engine, keyspace, bytes_max);
        let Some(choice) = made.then(|| choose(engine, group, keyspace)).flatten() else {
            return Ok(Attempt::Needs(Need::Merge(Arc::clone(keyspace))));
        };
        choices[full] = choice;
    }
}

/// Whether a write only deletes, so that it is taken where there is no space.
pub(super) fn gives_space<W: Writes>(writes: &W) -> bool {
    let mut ops = writes.ops(true).chain(writes.ops(false));
    ops.all(|op| matches!(op.kind, Kind::Delete | Kind::RangeDelete))
}

/// Appends the group to the log, inserts it where there is room and shows it.
fn apply<'c, W: Writes>(
    engine: &Engine,
    log: &mut Log,
    group: &[&W],
    keyspaces: &[&Arc<KeyspaceState>],
    rooms: &mut Few<Reservation<'c>>,
) -> Result<Few<Committed>> {
    let mut unfinished = Unfinished { engine, is_over: false };
    let first = append(engine, log, group).inspect_err(|_| unfinished.is_over = true)?;
    let mut lsn = first;
    let mut committed = Few::new();
    for writes in group {
        let last = insert(engine, *writes, keyspaces, rooms, lsn);
        lsn += span(*writes);
        committed.push(Committed { last, end: lsn, is_logged: writes.count(false) == 0 });
    }
    rooms.clear();
    engine.snapshots.publish(log.position());
    unfinished.is_over = true;
    log.count_group(group.len());
    Ok(committed)
}

/// From the append to the publication. If a panic comes between, part of a group may be inserted, and the next writer
/// would show it: nobody may write any more.
struct Unfinished<'e> {
    engine: &'e Engine,
    is_over: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            let what = "a write panicked while it was being committed";
            self.engine.fail(&Error::internal(what).with_hint("open the database again"));
        }
    }
}

/// LSNs that the records of a write take.
fn span<W: Writes>(writes: &W) -> u64 {
    unlogged_span(writes) + record_span(writes.logged_len(), writes.count(true))
}

/// LSNs of the record in front, which stands for the operations that are not logged.
fn unlogged_span<W: Writes>(writes: &W) -> u64 {
    record_span(0, writes.count(false))
}

/// None if there is no record.
fn record_span(stored: usize, count: u32) -> u64 {
    if count == 0 { 0 } else { LogWriter::record_len(stored, count) }
}

/// The keyspaces of a group, each once.
fn keyspaces<'w, W: Writes>(group: &[&'w W]) -> Few<&'w Arc<KeyspaceState>> {
    let mut all: Few<&Arc<KeyspaceState>> = Few::new();
    for keyspace in group.iter().flat_map(|writes| writes.keyspaces()) {
        if !all.iter().any(|known| Arc::ptr_eq(known, keyspace)) {
            all.push(keyspace);
        }
    }
    all
}

/// For each write a skip record for the sequence numbers of its unlogged operations, then one batch record for the
/// others, all in one write to the file; returns where they begin. If it fails, recovery can find a batch of
/// the group only as far as its record became whole.
fn append<W: Writes>(engine: &Engine, log: &mut Log, group: &[&W]) -> Result<SeqNo> {
    let durable = engine.durable_seq();
    let first = log.position();
    let appended = group
        .iter()
        .try_for_each(|writes| stage(&mut log.writer, *writes, durable))
        .and_then(|()| log.writer.write());
    appended.map(|()| first).map_err(|error| {
        log.failed = true;
        engine.fail(&error);
        error.with_hint("it is not visible, and comes back only if the database is closed or dies before it resumes")
    })
}

fn stage<W: Writes>(log: &mut LogWriter, writes: &W, durable: SeqNo) -> Result<()> {
    let (logged, unlogged) = (writes.count(true), writes.count(false));
    if unlogged > 0 {
        log.stage(RecordKind::Skip, unlogged, 0, durable, |_| {})?;
    }
    if logged > 0 {
        let len = writes.logged_len();
        log.stage(RecordKind::Batch, logged, len, durable, |out| writes.encode_logged(out))?;
    }
    Ok(())
}

/// More than one group and the rest of a segment can move the log.
const GROUP_REACH: u64 = 1 << 33;

/// The active memtable of a keyspace, measured for the group; `None` if the keyspace needs a merge first.
fn choose<W: Writes>(
    engine: &Engine,
    group: &[&W],
    keyspace: &Arc<KeyspaceState>,
) -> Option<Choice> {
    // A keyspace that rests while others write must not fall too far behind the log.
    let reaches = |table: &Memtable| table.reaches(engine.snapshots.visible() + GROUP_REACH);
    let mut view = keyspace.glance();
    if !reaches(&view.active) {
        if !rotate(engine, keyspace, None) {
            return None;
        }
        view = keyspace.glance();
    }
    let shape = measure(engine, group, keyspace, &view.active);
    Some((view, shape))
}

/// Room in every memtable, put into `rooms`; or which of them refused and why. Commits come one after the other, so
/// each is the only one to reserve.
fn reserve<'c>(
    choices: &'c [Choice],
    rooms: &mut Few<Reservation<'c>>,
) -> Result<(), (usize, Full)> {
    for (at, (view, shape)) in choices.iter().enumerate() {
        // Reservations are large, and to copy one that was just written is to wait for its stores.
        match view.active.reserve_alone(shape) {
            Ok(room) => rooms.push(room),
            Err(full) => return Err((at, full)),
        }
    }
    Ok(())
}

/// Rotates a keyspace whose memtable is full; the next one takes the batch, however large it is. `false` if it
/// needs a merge first.
fn make_room(engine: &Engine, keyspace: &Arc<KeyspaceState>, bytes_max: u64) -> bool {
    let usual = keyspace.max_memtable_size();
    rotate(engine, keyspace, (bytes_max > usual).then_some(bytes_max))
}

/// # Errors
/// The batch could not be held even by empty memtables with all the memory there is for them.
fn check_share(engine: &Engine, choices: &[Choice]) -> Result<()> {
    let needed = choices.iter().map(|(view, shape)| view.active.bytes_needed(shape)).sum();
    if needed > engine.memtable_share() {
        return Err(too_large(needed, engine.memtable_share()));
    }
    Ok(())
}

fn too_large(needed: u64, share: u64) -> Error {
    Error::invalid_argument(format!(
        "the batch needs a memtable of {needed} B, the memory budget leaves {share} B for memtables"
    ))
    .with_hint("write it in parts, or raise memory_budget")
}

fn measure<W: Writes>(
    engine: &Engine,
    group: &[&W],
    keyspace: &KeyspaceState,
    table: &Memtable,
) -> BatchShape {
    let mut shape = BatchShape::default();
    let ops = group.iter().flat_map(|writes| writes.ops(keyspace.is_logged()));
    for op in ops.filter(|op| op.keyspace == keyspace.id) {
        let hash = hash::key_hash(engine.hash_seed, op.key);
        table.measure(&mut shape, op.kind, hash, op.key, op.value);
    }
    shape
}

/// Inserts what one write says, its records beginning at `lsn`; returns the number of its last operation.
fn insert<W: Writes>(
    engine: &Engine,
    writes: &W,
    keyspaces: &[&Arc<KeyspaceState>],
    rooms: &mut [Reservation<'_>],
    lsn: SeqNo,
) -> SeqNo {
    let mut last = lsn;
    for (logged, lsn) in [(true, lsn + unlogged_span(writes)), (false, lsn)] {
        let count = writes.count(logged);
        let mut ops = writes.ops(logged);
        for (at, seq) in (0..count as usize).zip(lsn..) {
            // A single write is the usual batch.
            if at % WARM_KEYS == 0 && count > 1 {
                warm(engine, keyspaces, rooms, &ops);
            }
            let op = ops.next().expect("a batch counts its operations");
            let index = keyspaces.iter().position(|keyspace| keyspace.id == op.keyspace);
            let room = &mut rooms[index.expect("every operation's keyspace is listed")];
            if op.kind == Kind::RangeDelete {
                room.delete_range(op.key, op.value, seq);
            } else {
                let hash = hash::key_hash(engine.hash_seed, op.key);
                room.insert(op.kind, hash, op.key, op.value, seq);
            }
            last = last.max(seq);
        }
    }
    last
}

/// Fetches into the caches what inserting the next operations will touch.
fn warm<'b>(
    engine: &Engine,
    keyspaces: &[&Arc<KeyspaceState>],
    rooms: &[Reservation<'_>],
    ops: &(impl Iterator<Item = BatchOp<'b>> + Clone),
) {
    for (keyspace, room) in keyspaces.iter().zip(rooms) {
        let next = ops.clone().take(WARM_KEYS);
        let own = next.filter(|op| op.keyspace == keyspace.id && op.kind != Kind::RangeDelete);
        room.warm(own.map(|op| (op.key, hash::key_hash(engine.hash_seed, op.key))));
    }
}
