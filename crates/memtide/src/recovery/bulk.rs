//! Replay of a long log: writes are gathered, sorted, and become sealed memtables in one go.
//!
//! Inserting each of them into a memtable of today's size would fill and merge thousands, and nobody reads meanwhile.
//! What is gathered is put in order once and fills a memtable of the type `sorted` from its first key to its
//! last, as a merge in memory would have left it. No snapshot lives yet and the log was synced before, so of each key
//! only the newest gathered version stays. What would fit into one memtable is inserted the usual way, so a short log
//! ends in the type that the keyspace has.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use memtide_base::key::{head_behind, shared_prefix_len};
use memtide_base::ledger::{Account, Charge};
use memtide_base::sync::Arc;
use memtide_base::{Kind, RangeTombstone, Result, SeqNo, hash};
use memtide_memtable::{Anchor, BatchShape, Memtable, MemtableType};
use memtide_storage::log::BatchOp;

use super::{must_flush, refused, relieve, replay_op};
use crate::config::KeyspaceOptions;
use crate::engine::Engine;
use crate::keyspace_state::KeyspaceState;
use crate::sealed_merge::{REACH, TOMBSTONES_MAX};

/// Keys and values that are sorted together at most, where the eighth of the memtables' share is more. With that as
/// the limit a flush, which comes at half of the share, finds four runs, and none are merged before.
const GATHERED_BYTES_MAX: usize = 256 << 20;
/// Writes fetched into the caches at once.
const FETCHED: usize = 16;

/// Writes on their way from the log into memtables.
pub(super) struct Bulk<'e> {
    engine: &'e Engine,
    gathered: BTreeMap<u32, Gathered>,
    /// Bytes of one keyspace at which they are put into a memtable.
    limit: usize,
    charge: Charge,
}

/// The writes of one keyspace, in the order of the log.
struct Gathered {
    keyspace: Arc<KeyspaceState>,
    /// Keys and values, one behind the other.
    bytes: Vec<u8>,
    writes: Vec<Write>,
    tombstones: Vec<RangeTombstone>,
    /// Of the bounds of `tombstones`.
    bound_bytes: usize,
    first: SeqNo,
}

#[derive(Clone, Copy)]
struct Write {
    /// Of the key behind what all keys share, once that is known.
    head: u64,
    seq: SeqNo,
    start: usize,
    key_len: u32,
    value_len: u32,
    kind: Kind,
}

impl Write {
    /// Bytes of key and value.
    fn len(&self) -> usize {
        self.key_len as usize + self.value_len as usize
    }
}

impl<'e> Bulk<'e> {
    pub(super) fn new(engine: &'e Engine) -> Self {
        let share = usize::try_from(engine.memtable_share() / 8).unwrap_or(usize::MAX);
        let charge = engine.ledger.empty_charge(Account::Memtables);
        let (gathered, limit) = (BTreeMap::new(), share.min(GATHERED_BYTES_MAX));
        Self { engine, gathered, limit, charge }
    }

    /// Takes one write.
    pub(super) fn add(
        &mut self,
        keyspace: &Arc<KeyspaceState>,
        op: &BatchOp<'_>,
        seq: SeqNo,
    ) -> Result<()> {
        let id = keyspace.id;
        let new = || Gathered::new(Arc::clone(keyspace));
        if self.gathered.entry(id).or_insert_with(new).is_full(self.limit, op, seq) {
            self.seal(id)?;
        }
        let gathered = self.gathered.entry(id).or_insert_with(new);
        let before = gathered.heap_bytes();
        gathered.push(op, seq);
        self.charge.grow_unchecked(gathered.heap_bytes() - before);
        // Of many keyspaces each may gather less.
        if self.charge.bytes() > self.engine.memtable_share() / 4 {
            let by_bytes = |id: &u32| self.gathered[id].heap_bytes();
            let largest = self.gathered.keys().copied().max_by_key(by_bytes);
            let largest = largest.expect("something is charged");
            self.seal(largest)?;
            self.forget(largest);
        }
        Ok(())
    }

    /// Puts everything that is gathered where reads will find it.
    pub(super) fn finish(mut self) -> Result<()> {
        while let Some((&id, gathered)) = self.gathered.first_key_value() {
            let small =
                usize::try_from(gathered.keyspace.max_memtable_size()).unwrap_or(usize::MAX);
            if gathered.bytes.len() > small {
                self.make_run(id)?;
            } else {
                gathered.insert_each(self.engine)?;
            }
            self.forget(id);
        }
        let all = self.engine.all_keyspaces();
        all.iter().try_for_each(|keyspace| relieve(self.engine, keyspace))
    }

    /// Makes a sealed memtable of what is gathered of one keyspace; of all of it if memory is to be freed then: what is
    /// only gathered does not keep the log from being removed with what a flush has written.
    fn seal(&mut self, id: u32) -> Result<()> {
        let keyspace = self.make_run(id)?;
        if must_flush(self.engine, &keyspace) {
            while let Some((&id, _)) = self.gathered.first_key_value() {
                self.make_run(id)?;
                self.forget(id);
            }
        }
        relieve(self.engine, &keyspace)
    }

    /// Its buffers stay for what follows.
    fn make_run(&mut self, id: u32) -> Result<Arc<KeyspaceState>> {
        let gathered = self.gathered.get_mut(&id).expect("whoever names one has seen it");
        if !gathered.is_empty() {
            let run = gathered.run(self.engine)?;
            gathered.keyspace.adopt(run);
            let before = gathered.heap_bytes();
            gathered.clear();
            self.charge.shrink(before - gathered.heap_bytes());
        }
        Ok(Arc::clone(&gathered.keyspace))
    }

    fn forget(&mut self, id: u32) {
        if let Some(gathered) = self.gathered.remove(&id) {
            self.charge.shrink(gathered.heap_bytes());
        }
    }
}

impl Gathered {
    fn new(keyspace: Arc<KeyspaceState>) -> Self {
        let (bytes, writes, tombstones) = (Vec::new(), Vec::new(), Vec::new());
        Self { keyspace, bytes, writes, tombstones, bound_bytes: 0, first: SeqNo::MAX }
    }

    fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.tombstones.is_empty()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.writes.clear();
        self.tombstones.clear();
        (self.bound_bytes, self.first) = (0, SeqNo::MAX);
    }

    /// Whether the next write is for another memtable.
    fn is_full(&self, limit: usize, op: &BatchOp<'_>, seq: SeqNo) -> bool {
        let bytes = self.bytes.len() + op.key.len() + op.value.len();
        let is_range = op.kind == Kind::RangeDelete;
        (bytes > limit && !self.is_empty())
            || (is_range && self.tombstones.len() as u64 >= TOMBSTONES_MAX)
            || seq.saturating_sub(self.first) >= REACH
    }

    fn push(&mut self, op: &BatchOp<'_>, seq: SeqNo) {
        self.first = self.first.min(seq);
        if op.kind == Kind::RangeDelete {
            self.bound_bytes += op.key.len() + op.value.len();
            self.tombstones.push(RangeTombstone::new(op.key, op.value, seq));
            return;
        }
        let small = |len: usize| u32::try_from(len).expect("the log's decoder bounds it");
        let (start, key_len, value_len) =
            (self.bytes.len(), small(op.key.len()), small(op.value.len()));
        self.bytes.extend_from_slice(op.key);
        self.bytes.extend_from_slice(op.value);
        self.writes.push(Write { head: 0, seq, start, key_len, value_len, kind: op.kind });
    }

    fn heap_bytes(&self) -> u64 {
        let tombstones = self.tombstones.capacity() * size_of::<RangeTombstone>();
        let writes = self.writes.capacity() * size_of::<Write>();
        (self.bytes.capacity() + writes + tombstones + self.bound_bytes) as u64
    }

    fn key(&self, write: &Write) -> &[u8] {
        key(&self.bytes, write)
    }

    fn value(&self, write: &Write) -> &[u8] {
        let start = write.start + write.key_len as usize;
        &self.bytes[start..start + write.value_len as usize]
    }

    /// Sorts by key, the newest version of each first, and drops the others.
    fn sort(&mut self) -> Anchor {
        let keys = || self.writes.iter().map(|write| self.key(write));
        // What the first and the last key share, all between them share.
        let (first, last) = (keys().min().unwrap_or_default(), keys().max().unwrap_or_default());
        let shared = first[..shared_prefix_len(first, last)].to_vec();
        let (bytes, writes) = (&self.bytes, &mut self.writes);
        for write in &mut *writes {
            write.head = head_behind(&shared, key(bytes, write));
        }
        writes.sort_unstable_by(|a, b| {
            let heads = a.head.cmp(&b.head);
            heads.then_with(|| {
                let keys = key(bytes, a).cmp(key(bytes, b));
                keys.then_with(|| Reverse(a.seq).cmp(&Reverse(b.seq)))
            })
        });
        writes.dedup_by(|b, a| a.head == b.head && key(bytes, a) == key(bytes, b));
        Anchor::of(&shared)
    }

    /// A sealed memtable of all of it.
    fn run(&mut self, engine: &Engine) -> Result<Arc<Memtable>> {
        let anchor = self.sort();
        let options = self.keyspace.options();
        let memtable_type = MemtableType::Sorted.into();
        let options = KeyspaceOptions { memtable_type, ..options };
        let gauge = engine.new_memtable(&options, Some(0), anchor);
        let mut shape = BatchShape::default();
        for write in &self.writes {
            // What `sorted` takes for a key does not depend on its hash.
            gauge.measure(&mut shape, write.kind, 0, self.key(write), self.value(write));
        }
        for t in &self.tombstones {
            gauge.measure(&mut shape, Kind::RangeDelete, 0, &t.start, t.end_bytes());
        }
        let run = engine.new_memtable(&options, Some(gauge.bytes_needed(&shape)), anchor);
        let mut room = run.reserve(&shape).map_err(|full| refused(&full))?;
        for several in self.writes.chunks(FETCHED) {
            // Their bytes lie apart from each other, and fetching many at once takes hardly longer than fetching one.
            let ends = several.iter().map(|write| (write.start + write.len()).saturating_sub(1));
            let bytes = ends.filter_map(|end| self.bytes.get(end)).map(|&byte| u64::from(byte));
            std::hint::black_box(bytes.sum::<u64>());
            for write in several {
                let key = self.key(write);
                let hash = hash::key_hash(engine.hash_seed, key);
                room.insert(write.kind, hash, key, self.value(write), write.seq);
            }
        }
        for t in &self.tombstones {
            room.delete_range(&t.start, t.end_bytes(), t.seq);
        }
        drop(room);
        // The log is kept for what was dropped as well, until all of it is in tables.
        run.stands_for_writes_from(self.first);
        Ok(run)
    }

    /// Inserts all of it into memtables of the keyspace's own type, in the order of the log: a newer memtable holds
    /// newer writes only.
    fn insert_each(&self, engine: &Engine) -> Result<()> {
        let (id, keyspace) = (self.keyspace.id, &self.keyspace);
        let mut tombstones = self.tombstones.iter().peekable();
        let delete = |t: &RangeTombstone| {
            let (kind, key, value) = (Kind::RangeDelete, t.start.as_slice(), t.end_bytes());
            replay_op(engine, keyspace, &BatchOp { kind, keyspace: id, key, value }, t.seq)
        };
        for write in &self.writes {
            while let Some(t) = tombstones.next_if(|t| t.seq < write.seq) {
                delete(t)?;
            }
            let (key, value) = (self.key(write), self.value(write));
            let op = BatchOp { kind: write.kind, keyspace: id, key, value };
            replay_op(engine, keyspace, &op, write.seq)?;
        }
        tombstones.try_for_each(delete)
    }
}

fn key<'b>(bytes: &'b [u8], write: &Write) -> &'b [u8] {
    &bytes[write.start..write.start + write.key_len as usize]
}

#[cfg(test)]
mod tests {
    use memtide_env::Simulation;

    use crate::{Config, Db, Durability};

    /// What a flush of the oldest memtable says is in tables must not be in a newer one.
    #[test]
    fn newer_memtables_hold_newer_writes_only() {
        for kind in super::MemtableType::ALL {
            for writes in [10, 40, 80, 700_u32] {
                let sim = Simulation::new(1);
                let open = |memtable_bytes| {
                    let config = Config {
                        memtable_type: Some(kind.into()),
                        max_memtable_size: Some(memtable_bytes),
                        memory_budget: Some(16 << 20),
                        durability: Some(Durability::Buffered),
                        ..Config::default()
                    };
                    Db::builder("/db").config(config).env(sim.env.clone()).open().expect("opens")
                };
                let db = open(1 << 20);
                for at in 0..writes {
                    db.put(at.to_be_bytes(), [7; 40]).expect("room");
                    if at % 9 == 4 {
                        db.delete_range((at - 2).to_be_bytes()..at.to_be_bytes()).expect("room");
                    }
                }
                db.close().expect("closes");
                let db = open(4 << 10);
                let view = db.default_keyspace().state().current();
                let tables: Vec<_> = view.memtables().filter(|table| !table.is_empty()).collect();
                for pair in tables.windows(2) {
                    let (newer, older) = (pair[0].first_seq(), pair[1].seq_end());
                    assert!(newer >= Some(older), "{kind}, {writes}: {newer:?} above {older}");
                }
            }
        }
    }
}
