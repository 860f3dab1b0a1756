//! Test support: one index with an arena of its own, and random writes to a table beside a plain model.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use memtide_base::ledger::{Account, Ledger};
use memtide_base::sync::Arc;
use memtide_base::{Cursor, Kind, SeqNo, Target, hash};

use crate::arena::Arena;
use crate::contract::{BatchShape, Inserted, LookupKey, MemIndex, NewEntry};
use crate::kind::MemtableType;
use crate::memtable::Memtable;
use crate::meter::HeapMeter;
use crate::options::MemtableOptions;
use crate::record;

/// The seed of all key hashes here.
pub(super) const SEED: u64 = 0x7469_6465;

/// An index and its memory, without a table around them.
pub(super) struct Rig<I> {
    pub(super) arena: Arena,
    pub(super) index: I,
}

impl<I: MemIndex> Rig<I> {
    pub(super) fn new(index: impl FnOnce(&Arc<HeapMeter>) -> I) -> Self {
        let meter = HeapMeter::new(Ledger::unlimited().empty_charge(Account::Memtables));
        Self { arena: Arena::new(64 << 20), index: index(&meter) }
    }

    /// Puts an empty value, which must be new, into memory that was measured to the byte.
    pub(super) fn put(&self, key: &str, seq: SeqNo) {
        let hash = hash::key_hash(SEED, key.as_bytes());
        let links = u64::from(self.index.link_words(hash));
        let record_bytes = record::record_bytes(key.len(), 0) + 4 * links;
        let shape = BatchShape { entries: 1, record_bytes, ..BatchShape::default() };
        let index_bytes = self.index.index_bytes_max(&self.arena, &shape);
        let bytes = record_bytes + index_bytes;
        let plan = self.arena.plan(bytes, crate::arena::Beside::default()).expect("64 MiB hold it");
        assert!(self.arena.allocate(&plan));
        let entry = NewEntry::new(key.as_bytes(), hash, seq, Kind::Put, b"");
        let mut slab = self.arena.slab(&plan);
        self.index.provide(&self.arena, &mut slab, index_bytes);
        let inserted = self.index.insert(&self.arena, &mut slab, &entry);
        assert_ne!(inserted, Inserted::Duplicate, "{key} @ {seq}");
    }

    /// Which version a get shows.
    pub(super) fn seq_of(&self, key: &str, below: SeqNo) -> Option<SeqNo> {
        let hash = hash::key_hash(SEED, key.as_bytes());
        let found = self.index.get(&self.arena, &LookupKey::new(key.as_bytes(), hash), below);
        found.map(|at| self.arena.seq(at))
    }
}

/// Bytes a distinct key of 16 bytes with a value of 64 takes beside them, in a megabyte filled one by one.
pub(super) fn bytes_beside_keys_and_values(kind: MemtableType) -> f64 {
    let ledger = Ledger::unlimited();
    let options = MemtableOptions {
        kind: kind.into(),
        bytes_max: 1 << 20,
        hash_seed: SEED,
        key_filter: true,
        anchor: crate::anchor::Anchor::default(),
        ledger,
    };
    let table = Memtable::new(&options);
    for seq in 0_u64.. {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&hash::key_hash(SEED, &seq.to_le_bytes()).to_be_bytes());
        let (hash, mut shape) = (hash::key_hash(SEED, &key), BatchShape::default());
        table.measure(&mut shape, Kind::Put, hash, &key, &[7; 64]);
        let Ok(mut room) = table.reserve(&shape) else { break };
        room.insert(Kind::Put, hash, &key, &[7; 64], seq);
    }
    #[expect(clippy::cast_precision_loss, reason = "a megabyte")]
    let (bytes, entries) = (table.usage().overhead as f64, table.entry_count() as f64);
    assert!(entries > 5000.0, "{entries} entries fill the table");
    bytes / entries
}

/// Key, sequence number, value; no value deletes.
type Write = (Vec<u8>, SeqNo, Option<Vec<u8>>);
type Versions = BTreeMap<Reverse<SeqNo>, Option<Vec<u8>>>;

/// Puts, deletes, late and repeated sequence numbers over few keys, in batches; gets and walks compared.
pub(super) fn agrees(kind: MemtableType) {
    for seed in 0..6 {
        let ledger = Ledger::unlimited();
        let options = MemtableOptions {
            kind: kind.into(),
            bytes_max: 8 << 20,
            hash_seed: SEED,
            key_filter: true,
            anchor: crate::anchor::Anchor::default(),
            ledger,
        };
        let (table, mut model) = (Memtable::new(&options), BTreeMap::<Vec<u8>, Versions>::new());
        let mut draws = 0_u64;
        let mut draw = |below: u64| {
            draws += 1;
            hash::key_hash(seed, &draws.to_le_bytes()) % below
        };
        let keys = [3, 40, 700][usize::try_from(seed).expect("small") % 3];
        let mut rising = 1000;
        for round in 0..60 {
            let writes: Vec<_> = (0..1 + draw(60))
                .map(|_| {
                    rising += 1;
                    let key = format!("key{}", draw(keys)).into_bytes();
                    let seq = if draw(10) == 0 { rising - draw(500).min(rising) } else { rising };
                    let value = (draw(5) > 0)
                        .then(|| vec![b'v'; usize::try_from(draw(40)).expect("small")]);
                    (key, seq, value)
                })
                .collect();
            write(&table, &mut model, &writes);
            assert_eq!(table.check(), Ok(()), "seed {seed}, round {round}");
            if round % 7 == 0 {
                for below in [rising - 400, rising - 1, rising + 1] {
                    compare(&table, &model, below);
                }
            }
        }
    }
}

fn write(table: &Memtable, model: &mut BTreeMap<Vec<u8>, Versions>, writes: &[Write]) {
    let parts = |value: &Option<Vec<u8>>| match value {
        Some(value) => (Kind::Put, value.clone()),
        None => (Kind::Delete, Vec::new()),
    };
    let mut shape = BatchShape::default();
    for (key, _, value) in writes {
        let (kind, value) = parts(value);
        table.measure(&mut shape, kind, hash::key_hash(SEED, key), key, &value);
    }
    let mut room = table.reserve(&shape).expect("8 MiB hold it");
    for (key, seq, value) in writes {
        let (kind, bytes) = parts(value);
        let inserted = room.insert(kind, hash::key_hash(SEED, key), key, &bytes, *seq);
        let versions = model.entry(key.clone()).or_default();
        let is_new = !versions.contains_key(&Reverse(*seq));
        assert_eq!(inserted != Inserted::Duplicate, is_new, "{key:?} @ {seq}");
        versions.entry(Reverse(*seq)).or_insert_with(|| value.clone());
    }
}

fn compare(table: &Arc<Memtable>, model: &BTreeMap<Vec<u8>, Versions>, below: SeqNo) {
    let visible = |versions: &Versions| -> Vec<SeqNo> {
        versions.keys().map(|seq| seq.0).filter(|&seq| seq < below).collect()
    };
    let mut cursor = table.cursor(below);
    let mut there = cursor.seek(Target::First).expect("never fails");
    for (key, versions) in model {
        let (seqs, hash) = (visible(versions), hash::key_hash(SEED, key));
        let shown = table.get(key, hash, below).map(|entry| (entry.seq, entry.value.to_vec()));
        let value = |seq: &SeqNo| versions[&Reverse(*seq)].clone().unwrap_or_default();
        assert_eq!(shown, seqs.first().map(|seq| (*seq, value(seq))), "{key:?} below {below}");
        let mut walked = Vec::new();
        while there && cursor.entry().key == key {
            walked.push(cursor.entry().seq);
            if !cursor.older().expect("never fails") {
                there = cursor.next().expect("never fails");
            }
        }
        assert_eq!(walked, seqs, "versions of {key:?} below {below}");
    }
    assert!(!there, "the walk shows a key more");

    let mut there = cursor.seek(Target::Last).expect("never fails");
    for (key, versions) in model.iter().rev() {
        if let Some(&newest) = visible(versions).first() {
            assert!(there, "the walk back ends before {key:?}");
            assert_eq!((cursor.entry().key, cursor.entry().seq), (key.as_slice(), newest));
            there = cursor.prev().expect("never fails");
        }
    }
    assert!(!there, "the walk back shows a key more");
}
