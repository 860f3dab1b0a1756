//! A table under test beside a model that knows every write, and the comparison of the two.
//!
//! The model is the plainest thing that can be right: a `BTreeMap` of keys to their versions. The
//! comparison covers whatever the public API can show at a bound: gets, walks in both directions, versions,
//! covering range tombstones, counters, and the table's own `check()`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;

use memtide_base::ledger::Ledger;
use memtide_base::sync::Arc;
use memtide_base::{Cursor, Entry, Kind, RangeTombstone, SeqNo, Target, hash};

use crate::{
    Anchor, BatchShape, Full, Inserted, MemCursor, Memtable, MemtableKind, MemtableOptions,
};

/// Limit of a table whose limit is not what is tested.
pub const TABLE_BYTES_MAX: u64 = 64 << 20;
const HASH_SEED: u64 = 0x7469_6465;
/// Up to so many distinct sequence numbers every one of them is tried as a bound.
const BOUNDS_ALL_MAX: usize = 48;

/// One version as the model and the laws write it: key, sequence number, kind, value.
pub(crate) type Version = (Vec<u8>, SeqNo, Kind, Vec<u8>);

/// The versions of one key, newest first.
type Versions = BTreeMap<Reverse<SeqNo>, (Kind, Vec<u8>)>;

/// Everything that was written to a table, in the plainest form.
#[derive(Clone, Debug, Default)]
pub struct Model {
    keys: BTreeMap<Vec<u8>, Versions>,
    tombstones: Vec<RangeTombstone>,
}

impl Model {
    /// Adds a version; `false`, and nothing changed, if this key has one with this sequence number.
    pub fn insert(&mut self, kind: Kind, key: &[u8], value: &[u8], seq: SeqNo) -> bool {
        let versions = self.keys.entry(key.to_vec()).or_default();
        let absent = !versions.contains_key(&Reverse(seq));
        if absent {
            versions.insert(Reverse(seq), (kind, value.to_vec()));
        }
        absent
    }

    /// The versions of `key` below `below`, newest first.
    fn versions(&self, key: &[u8], below: SeqNo) -> impl Iterator<Item = Version> + '_ {
        let key = key.to_vec();
        let versions = self.keys.get(&key);
        let visible = versions.into_iter().flatten().skip_while(move |&(seq, _)| seq.0 >= below);
        visible.map(move |(seq, (kind, value))| (key.clone(), seq.0, *kind, value.clone()))
    }

    /// The newest version of `key` below `below`.
    pub(crate) fn newest(&self, key: &[u8], below: SeqNo) -> Option<Version> {
        self.versions(key, below).next()
    }

    /// The version after `version` in its key's order.
    pub(crate) fn older(&self, version: &Version) -> Option<Version> {
        self.newest(&version.0, version.1)
    }

    /// What a cursor finds at `target`.
    pub(crate) fn seek(&self, target: Target<'_>, below: SeqNo) -> Option<Version> {
        match target {
            Target::First => self.up(Bound::Unbounded, below),
            Target::Last => self.down(Bound::Unbounded, below),
            Target::Ge(key) => self.up(Bound::Included(key), below),
            Target::Le(key) => self.down(Bound::Included(key), below),
        }
    }

    /// What a cursor finds above a key.
    pub(crate) fn next(&self, key: &[u8], below: SeqNo) -> Option<Version> {
        self.up(Bound::Excluded(key), below)
    }

    /// What a cursor finds under a key.
    pub(crate) fn prev(&self, key: &[u8], below: SeqNo) -> Option<Version> {
        self.down(Bound::Excluded(key), below)
    }

    fn up(&self, from: Bound<&[u8]>, below: SeqNo) -> Option<Version> {
        let mut keys = self.keys.range::<[u8], _>((from, Bound::Unbounded));
        keys.find_map(|(key, _)| self.newest(key, below))
    }

    fn down(&self, to: Bound<&[u8]>, below: SeqNo) -> Option<Version> {
        let mut keys = self.keys.range::<[u8], _>((Bound::Unbounded, to)).rev();
        keys.find_map(|(key, _)| self.newest(key, below))
    }

    /// All visible versions in cursor order.
    pub(crate) fn visible(&self, below: SeqNo) -> Vec<Vec<Version>> {
        let of_key = |key: &Vec<u8>| self.versions(key, below).collect::<Vec<_>>();
        self.keys.keys().map(of_key).filter(|versions| !versions.is_empty()).collect()
    }

    fn covering(&self, key: &[u8], below: SeqNo) -> Option<SeqNo> {
        let covers = |t: &&RangeTombstone| {
            t.seq < below && t.start.as_slice() <= key && t.upper().admits(key)
        };
        self.tombstones.iter().filter(covers).map(|t| t.seq).max()
    }

    fn seqs(&self) -> Vec<SeqNo> {
        let points = self.keys.values().flat_map(|versions| versions.keys().map(|seq| seq.0));
        let mut seqs: Vec<_> = points.chain(self.tombstones.iter().map(|t| t.seq)).collect();
        seqs.sort_unstable();
        seqs.dedup();
        seqs
    }

    fn entries(&self) -> u64 {
        self.keys.values().map(|versions| versions.len() as u64).sum()
    }
}

/// A table and the model of what was written to it.
#[derive(Debug)]
pub struct Subject {
    table: Arc<Memtable>,
    model: Model,
    hash_of: fn(&[u8]) -> u64,
}

impl Subject {
    /// An empty table with room to spare.
    #[must_use]
    pub fn new(kind: &MemtableKind) -> Self {
        Self::with_limit(kind, TABLE_BYTES_MAX)
    }

    /// An empty table with this limit.
    #[must_use]
    pub fn with_limit(kind: &MemtableKind, bytes_max: u64) -> Self {
        Self::with_ledger(kind, bytes_max, Ledger::unlimited())
    }

    /// An empty table that asks this ledger for memory.
    #[must_use]
    pub fn with_ledger(kind: &MemtableKind, bytes_max: u64, ledger: Arc<Ledger>) -> Self {
        let options = MemtableOptions {
            kind: kind.clone(),
            bytes_max,
            hash_seed: HASH_SEED,
            key_filter: true,
            anchor: Anchor::default(),
            ledger,
        };
        Self { table: Memtable::new(&options), model: Model::default(), hash_of }
    }

    /// The same with another hash of keys.
    pub(crate) fn hashed_by(mut self, hash_of: fn(&[u8]) -> u64) -> Self {
        self.hash_of = hash_of;
        self
    }

    /// An empty table whose heads begin behind `anchor`.
    pub(crate) fn anchored(kind: &MemtableKind, anchor: &[u8]) -> Self {
        let options = MemtableOptions {
            kind: kind.clone(),
            bytes_max: TABLE_BYTES_MAX,
            hash_seed: HASH_SEED,
            key_filter: true,
            anchor: Anchor::of(anchor),
            ledger: Ledger::unlimited(),
        };
        Self { table: Memtable::new(&options), model: Model::default(), hash_of }
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Arc<Memtable> {
        &self.table
    }

    /// What was written to it.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The shape of a batch of point writes.
    #[must_use]
    pub fn shape(&self, writes: &[(Kind, &[u8], &[u8])]) -> BatchShape {
        let mut shape = BatchShape::default();
        for &(kind, key, value) in writes {
            self.table.measure(&mut shape, kind, (self.hash_of)(key), key, value);
        }
        shape
    }

    /// Writes to the table and the model; they must agree on what is new.
    ///
    /// # Errors
    /// The table refused; nothing has changed.
    ///
    /// # Panics
    /// If table and model differ.
    pub fn write(
        &mut self,
        kind: Kind,
        key: &[u8],
        value: &[u8],
        seq: SeqNo,
    ) -> Result<Inserted, Full> {
        let shape = self.shape(&[(kind, key, value)]);
        let inserted =
            self.table.reserve(&shape)?.insert(kind, (self.hash_of)(key), key, value, seq);
        let is_new = self.model.insert(kind, key, value, seq);
        assert_eq!(inserted != Inserted::Duplicate, is_new, "{key:?} @ {seq}: {inserted:?}");
        Ok(inserted)
    }

    /// Reserves the writes together and inserts them with rising sequence numbers from `first` on.
    ///
    /// # Errors
    /// The table refused; nothing has changed.
    pub(crate) fn write_batch(
        &mut self,
        writes: &[(Kind, &[u8], &[u8])],
        first: SeqNo,
    ) -> Result<(), Full> {
        let mut reservation = self.table.reserve(&self.shape(writes))?;
        for (seq, &(kind, key, value)) in (first..).zip(writes) {
            if kind == Kind::RangeDelete {
                reservation.delete_range(key, value, seq);
                self.model.tombstones.push(RangeTombstone::new(key, value, seq));
            } else {
                let inserted = reservation.insert(kind, (self.hash_of)(key), key, value, seq);
                let is_new = self.model.insert(kind, key, value, seq);
                assert_eq!(inserted != Inserted::Duplicate, is_new, "{key:?} @ {seq}");
            }
        }
        Ok(())
    }

    /// Tells the model of a put that a thread made past it.
    pub(crate) fn learn(&mut self, key: &[u8], value: &[u8], seq: SeqNo) {
        self.model.insert(Kind::Put, key, value, seq);
    }

    /// Puts a value.
    ///
    /// # Panics
    /// If there is no room.
    pub fn put(&mut self, key: &[u8], value: &[u8], seq: SeqNo) -> Inserted {
        self.write(Kind::Put, key, value, seq).expect("there is room")
    }

    /// Deletes a key.
    ///
    /// # Panics
    /// If there is no room.
    pub fn delete(&mut self, key: &[u8], seq: SeqNo) -> Inserted {
        self.write(Kind::Delete, key, &[], seq).expect("there is room")
    }

    /// Deletes the keys from `start` to `end` (exclusive, empty = unbounded).
    ///
    /// # Panics
    /// If there is no room.
    pub fn delete_range(&mut self, start: &[u8], end: &[u8], seq: SeqNo) {
        let shape = self.shape(&[(Kind::RangeDelete, start, end)]);
        let mut reservation = self.table.reserve(&shape).expect("there is room");
        reservation.delete_range(start, end, seq);
        self.model.tombstones.push(RangeTombstone::new(start, end, seq));
    }

    /// Reads a key.
    #[must_use]
    pub fn get(&self, key: &[u8], below: SeqNo) -> Option<Entry<'_>> {
        self.table.get(key, (self.hash_of)(key), below)
    }

    /// Compares everything the table shows, at every interesting bound, with the model.
    ///
    /// # Panics
    /// If they differ.
    pub fn verify(&self) {
        self.compare().unwrap_or_else(|difference| panic!("{}: {difference}", self.table.kind()));
    }

    /// As [`Subject::verify`] at one bound and without gets of every key: O(n).
    ///
    /// # Panics
    /// If they differ.
    pub fn verify_walks(&self, below: SeqNo) {
        let compared = self.compare_structure().and_then(|()| self.compare_walks(below));
        compared.unwrap_or_else(|difference| panic!("{}: {difference}", self.table.kind()));
    }

    /// What differs between table and model.
    pub(crate) fn compare(&self) -> Result<(), String> {
        self.compare_structure()?;
        let seqs = self.model.seqs();
        let mut bounds: Vec<SeqNo> = seqs.iter().flat_map(|&seq| [seq, seq + 1]).collect();
        bounds.dedup();
        let stride = (bounds.len() / BOUNDS_ALL_MAX).max(1);
        for below in bounds.into_iter().rev().step_by(stride).chain([0, SeqNo::MAX]) {
            self.compare_walks(below)?;
            self.compare_gets(below)?;
        }
        Ok(())
    }

    fn compare_structure(&self) -> Result<(), String> {
        self.table.check()?;
        let (table, model) = (&self.table, &self.model);
        let seqs = model.seqs();
        same("entries", &table.entry_count(), &model.entries())?;
        let tombstones = model.tombstones.len() as u64;
        same("range tombstones", &table.range_tombstone_count(), &tombstones)?;
        same("first seq", &table.first_seq(), &seqs.first().copied())?;
        let key = |place| table.entry_at(place).key;
        let ends = model.keys.keys().next().zip(model.keys.keys().next_back());
        let ends = ends.map(|(first, last)| (first.as_slice(), last.as_slice()));
        same("ends", &table.key_span().map(|(first, last)| (key(first), key(last))), &ends)?;
        same("seq end", &table.seq_end(), &seqs.last().map_or(0, |seq| seq + 1))?;
        same("is empty", &table.is_empty(), &seqs.is_empty())
    }

    fn compare_walks(&self, below: SeqNo) -> Result<(), String> {
        let want = self.model.visible(below);
        let newest: Vec<_> = want.iter().map(|versions| versions[0].clone()).collect();
        let mut cursor = self.table.cursor(below);
        same_walk("walk forwards", below, &walk(&mut cursor, Target::First), &newest)?;
        let backwards: Vec<_> = newest.into_iter().rev().collect();
        same_walk("walk backwards", below, &walk(&mut cursor, Target::Last), &backwards)?;

        let mut found = move_cursor(&mut cursor, Step::Seek(Target::First));
        for versions in &want {
            let mut shown = Vec::new();
            while let Some(version) = found {
                shown.push(version);
                found = move_cursor(&mut cursor, Step::Older);
            }
            same_walk("versions", below, &shown, versions)?;
            found = move_cursor(&mut cursor, Step::Next);
        }
        same_walk("walk with versions", below, found.as_slice(), &[])
    }

    fn compare_gets(&self, below: SeqNo) -> Result<(), String> {
        for key in self.model.keys.keys() {
            let mut longer = key.clone();
            longer.push(0);
            for probe in [key.as_slice(), &longer, &key[..key.len().saturating_sub(1)]] {
                let (shown, want) = (self.get(probe, below), self.model.newest(probe, below));
                if shown.map(own) != want {
                    let (shown, want) = (shown.map(own), want.as_ref());
                    let (shown, want) = (shown.as_ref().map(brief), want.map(brief));
                    return Err(format!(
                        "get {} below {below} shows {shown:?}, not {want:?}",
                        brief_bytes(probe)
                    ));
                }
                let what = "the newest covering range tombstone";
                let covering = self.table.covering_tombstone(probe, below);
                same(what, &covering, &self.model.covering(probe, below))?;
            }
        }
        Ok(())
    }
}

/// One move of a cursor.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'k> {
    Seek(Target<'k>),
    Next,
    Prev,
    Older,
}

/// Moves a cursor and copies what it then stands on.
pub(crate) fn move_cursor(cursor: &mut MemCursor, step: Step<'_>) -> Option<Version> {
    let moved = match step {
        Step::Seek(target) => cursor.seek(target),
        Step::Next => cursor.next(),
        Step::Prev => cursor.prev(),
        Step::Older => cursor.older(),
    };
    moved.expect("a memtable cursor never fails").then(|| own(cursor.entry()))
}

/// All keys from one end to the other: from `First` upwards, otherwise downwards.
pub(crate) fn walk(cursor: &mut MemCursor, from: Target<'_>) -> Vec<Version> {
    let step = if from == Target::First { Step::Next } else { Step::Prev };
    let first = move_cursor(cursor, Step::Seek(from));
    std::iter::successors(first, |_| move_cursor(cursor, step)).collect()
}

/// The hash that a table under test knows a key by.
pub(crate) fn hash_of(key: &[u8]) -> u64 {
    hash::key_hash(HASH_SEED, key)
}

/// A copy of an entry.
pub(crate) fn own(entry: Entry<'_>) -> Version {
    (entry.key.to_vec(), entry.seq, entry.kind, entry.value.to_vec())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, shown: &T, want: &T) -> Result<(), String> {
    if shown == want { Ok(()) } else { Err(format!("{what}: {shown:?}, not {want:?}")) }
}

fn same_walk(what: &str, below: SeqNo, shown: &[Version], want: &[Version]) -> Result<(), String> {
    if shown == want {
        return Ok(());
    }
    let at = shown.iter().zip(want).take_while(|(a, b)| a == b).count();
    let (lens, shown, want) = ((shown.len(), want.len()), shown.get(at), want.get(at));
    let (shown, want) = (shown.map(brief), want.map(brief));
    Err(format!("{what} below {below}, position {at}: {shown:?}, not {want:?} (lengths {lens:?})"))
}

/// A version for a message: long keys and values by their length.
pub(crate) fn brief(version: &Version) -> String {
    let (key, seq, kind, value) = version;
    format!("{} @ {seq} {kind:?} {}", brief_bytes(key), brief_bytes(value))
}

fn brief_bytes(bytes: &[u8]) -> String {
    let shown = bytes[..bytes.len().min(24)].escape_ascii();
    format!("\"{shown}\"({} B)", bytes.len())
}
