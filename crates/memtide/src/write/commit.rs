//! The commit: one batch becomes one log record, goes into the memtables and becomes visible, as a whole.
//!
//! Under the commit lock: reserve in every memtable (rotating the full ones) → assign the LSN → append to
//! the log → insert → publish. The log is synced afterwards, without the lock, so a group of writers shares
//! one sync. Nobody waits while holding the lock: for memory or for the next log segment a writer lets go
//! of everything and begins again.
//!
//! State after an error: nothing of the batch is visible. If the append itself failed, the record may be
//! found whole by recovery, and the database takes no more writes.

use memtide_base::sync::Arc;
use memtide_base::{Error, ErrorKind, Kind, Result, SeqNo, hash};
use memtide_memtable::{BatchShape, Full, Memtable, Reservation, WARM_KEYS};
use memtide_storage::log::{BatchOp, LogWriter, RecordKind};

use super::rotate::{rotate, wait_for_merge};
use super::{memory, segments};
use crate::batch::{BatchBody, Payload};
use crate::config::Durability;
use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;
use crate::wal::Log;

/// Writes a batch; returns the sequence number of its last operation. An empty batch writes nothing.
pub(crate) fn write(engine: &Engine, batch: &BatchBody, durability: Durability) -> Result<SeqNo> {
    engine.check_open()?;
    engine.health.check_writable()?;
    if batch.len() == 0 {
        return Ok(engine.snapshots.visible().saturating_sub(1));
    }
    check_keyspaces(engine, batch)?;
    let mut memory = memory::Wait::default();
    let committed = loop {
        match try_commit(engine, batch)? {
            Attempt::Done(committed) => break committed,
            Attempt::NeedsSegment => segments::follow(engine)?,
            Attempt::NeedsMemory => memory.wait(engine)?,
            Attempt::NeedsMerge(keyspace) => wait_for_merge(engine, &keyspace)?,
        }
    };
    if durability == Durability::Sync && batch.logged.count > 0 {
        segments::sync_to(engine, committed.end)?;
    }
    Ok(committed.last)
}

struct Committed {
    last: SeqNo,
    end: SeqNo,
}

enum Attempt {
    Done(Committed),
    /// Nothing happened; the segment is full.
    NeedsSegment,
    /// Nothing happened; the memtables hold their share of the memory.
    NeedsMemory,
    /// Nothing happened; the keyspace has as many memtables as it may.
    NeedsMerge(Arc<KeyspaceState>),
}

fn try_commit(engine: &Engine, batch: &BatchBody) -> Result<Attempt> {
    if engine.memtable_bytes() >= engine.memtable_share() {
        return Ok(Attempt::NeedsMemory);
    }
    let mut commit = engine.commit.lock();
    engine.check_open()?;
    engine.health.check_writable()?;
    let log = commit
        .as_mut()
        .ok_or_else(|| Error::new(ErrorKind::ReadOnly, "the database was opened read-only"))?;
    let logged = span(&batch.logged, batch.logged.bytes.len());
    let unlogged = span(&batch.unlogged, 0);
    if !log.admits(logged + unlogged) {
        return Ok(Attempt::NeedsSegment);
    }
    let mut choices = Vec::with_capacity(batch.keyspaces.len());
    for keyspace in &batch.keyspaces {
        match choose(engine, batch, keyspace) {
            Some(choice) => choices.push(choice),
            None => return Ok(Attempt::NeedsMerge(Arc::clone(keyspace))),
        }
    }
    let mut rotations = 0;
    let mut rooms = loop {
        let (full, why) = match reserve(&choices) {
            Ok(rooms) => break rooms,
            Err(refused) => refused,
        };
        check_share(engine, &choices)?;
        let Full::Table { bytes_max } = why else { return Ok(Attempt::NeedsMemory) };
        // Each keyspace may need one rotation to an empty table and one to a table for this batch.
        assert!(
            rotations < 2 * choices.len(),
            "a memtable of {bytes_max} B does not take its batch"
        );
        rotations += 1;
        let keyspace = &batch.keyspaces[full];
        let made = make_room(engine, keyspace, bytes_max);
        let Some(choice) = made.then(|| choose(engine, batch, keyspace)).flatten() else {
            return Ok(Attempt::NeedsMerge(Arc::clone(keyspace)));
        };
        choices[full] = choice;
    };
    let durable = engine.durable_seq();
    let lsn = log.position();
    append(engine, log, batch, durable)?;
    insert(engine, batch, &mut rooms, lsn + unlogged, lsn);
    drop(rooms);
    let end = log.position();
    engine.snapshots.publish(end);
    let last = if batch.logged.count > 0 {
        lsn + unlogged + u64::from(batch.logged.count) - 1
    } else {
        lsn + u64::from(batch.unlogged.count) - 1
    };
    Ok(Attempt::Done(Committed { last, end }))
}

/// LSNs that a payload's record takes; none if there is no record.
fn span(payload: &Payload, stored: usize) -> u64 {
    if payload.count == 0 { 0 } else { LogWriter::record_len(stored, payload.count) }
}

/// A skip record for the sequence numbers of the unlogged operations, then one batch record for the others:
/// if either fails, no part of the batch can be found by recovery, unless the batch record became whole.
fn append(engine: &Engine, log: &mut Log, batch: &BatchBody, durable: SeqNo) -> Result<()> {
    let (logged, unlogged) = (&batch.logged, &batch.unlogged);
    let mut appended = Ok(0);
    if unlogged.count > 0 {
        appended = log.writer.append(RecordKind::Skip, unlogged.count, &[], durable);
    }
    if logged.count > 0 && appended.is_ok() {
        appended = log.writer.append(RecordKind::Batch, logged.count, &logged.bytes, durable);
    }
    appended.map(drop).inspect_err(|error| {
        engine.health.fail(error);
        engine.freed.notify();
    })
}

/// More than one batch and the rest of a segment can move the log.
const BATCH_REACH: u64 = 1 << 33;

/// A memtable and what a batch needs of it.
type Choice = (Arc<Memtable>, BatchShape);

/// The active memtable of a keyspace, measured for the batch; `None` if the keyspace needs a merge first.
fn choose(engine: &Engine, batch: &BatchBody, keyspace: &Arc<KeyspaceState>) -> Option<Choice> {
    // A keyspace that rests while others write must not fall too far behind the log.
    let reaches = keyspace.current().active.reaches(engine.snapshots.visible() + BATCH_REACH);
    if !reaches && !rotate(engine, keyspace, None) {
        return None;
    }
    let table = Arc::clone(&keyspace.current().active);
    let shape = measure(engine, batch, keyspace, &table);
    Some((table, shape))
}

/// Room in every memtable, or which of them refused and why; then nothing is held.
fn reserve(choices: &[Choice]) -> Result<Vec<Reservation<'_>>, (usize, Full)> {
    let each = choices.iter().enumerate();
    each.map(|(at, (table, shape))| table.reserve(shape).map_err(|full| (at, full))).collect()
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
    let needed = choices.iter().map(|(table, shape)| table.bytes_needed(shape)).sum();
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

fn measure(
    engine: &Engine,
    batch: &BatchBody,
    keyspace: &KeyspaceState,
    table: &Memtable,
) -> BatchShape {
    let mut shape = BatchShape::default();
    let payload = payload_of(batch, keyspace);
    for op in own_ops(payload, keyspace) {
        let hash = hash::key_hash(engine.hash_seed, op.key);
        table.measure(&mut shape, op.kind, hash, op.key, op.value);
    }
    shape
}

fn insert(
    engine: &Engine,
    batch: &BatchBody,
    rooms: &mut [Reservation<'_>],
    logged_lsn: SeqNo,
    unlogged_lsn: SeqNo,
) {
    for (payload, lsn) in [(&batch.logged, logged_lsn), (&batch.unlogged, unlogged_lsn)] {
        let mut ops = ops(payload);
        for (at, seq) in (0..payload.count as usize).zip(lsn..) {
            // A single write is the usual batch.
            if at % WARM_KEYS == 0 && payload.count > 1 {
                warm(engine, batch, rooms, &ops);
            }
            let op = ops.next().expect("a batch counts its operations");
            let index = batch.keyspaces.iter().position(|keyspace| keyspace.id == op.keyspace);
            let room = &mut rooms[index.expect("every operation's keyspace is listed")];
            if op.kind == Kind::RangeDelete {
                room.delete_range(op.key, op.value, seq);
            } else {
                let hash = hash::key_hash(engine.hash_seed, op.key);
                room.insert(op.kind, hash, op.key, op.value, seq);
            }
        }
    }
}

/// Fetches into the caches what inserting the next operations will touch.
fn warm<'b>(
    engine: &Engine,
    batch: &BatchBody,
    rooms: &[Reservation<'_>],
    ops: &(impl Iterator<Item = BatchOp<'b>> + Clone),
) {
    for (keyspace, room) in batch.keyspaces.iter().zip(rooms) {
        let next = ops.clone().take(WARM_KEYS);
        let own = next.filter(|op| op.keyspace == keyspace.id && op.kind != Kind::RangeDelete);
        room.warm(own.map(|op| (op.key, hash::key_hash(engine.hash_seed, op.key))));
    }
}

fn payload_of<'b>(batch: &'b BatchBody, keyspace: &KeyspaceState) -> &'b Payload {
    if keyspace.is_logged() { &batch.logged } else { &batch.unlogged }
}

fn own_ops<'b>(
    payload: &'b Payload,
    keyspace: &KeyspaceState,
) -> impl Iterator<Item = BatchOp<'b>> {
    let id = keyspace.id;
    ops(payload).filter(move |op| op.keyspace == id)
}

fn ops(payload: &Payload) -> impl Iterator<Item = BatchOp<'_>> + Clone {
    payload.ops().map(|op| op.expect("a batch decodes what it encoded"))
}

/// A keyspace of another database refuses the whole batch.
fn check_keyspaces(engine: &Engine, batch: &BatchBody) -> Result<()> {
    let known = engine.keyspaces.read();
    for keyspace in &batch.keyspaces {
        if !known.get(keyspace.id).is_some_and(|own| Arc::ptr_eq(own, keyspace)) {
            let name = &keyspace.name;
            return Err(Error::invalid_argument(format!(
                "keyspace {name:?} is not of this database"
            )));
        }
    }
    Ok(())
}
