//! Any variant as a bounded map, without a database.
//!
//! ```
//! use memtide_memtable::{MemtableType, MemtableVariant};
//!
//! let table = MemtableVariant::new(MemtableType::Trie, 64 << 10);
//! table.put("tide", "high")?;
//! table.put("tide", "low")?;
//! assert_eq!(table.get("tide").as_deref(), Some(&b"low"[..]));
//! assert_eq!(table.entry_count(), 1);
//! # Ok::<(), memtide_memtable::StandaloneError>(())
//! ```
//!
//! An overwrite or delete is one more version in memory, as in the engine: nothing is freed before
//! [`MemtableVariant::clear`]. All methods take `&self` and may be called from many threads; each is atomic.

use std::fmt;
use std::ops::ControlFlow;

use memtide_base::ledger::Ledger;
use memtide_base::sync::atomic::{AtomicU64, Ordering};
use memtide_base::sync::{Arc, Guard, Mutex, Swap};
use memtide_base::{Cursor, Kind, SeqNo, Slice, Target, hash, key};

use crate::anchor::Anchor;
use crate::contract::BatchShape;
use crate::kind::MemtableType;
use crate::memtable::{Full, Memtable, Usage};
use crate::options::MemtableOptions;
use crate::warm::{Ahead, WARM_KEYS};

/// A fixed seed: a table used alone has no database to take one from.
const HASH_SEED: u64 = 0x4D65_6D74_6964_6531;

/// A map from keys to values in one of the eight memtables, up to a number of bytes.
#[derive(Debug)]
pub struct MemtableVariant {
    kind: MemtableType,
    options: MemtableOptions,
    table: Swap<Memtable>,
    /// Held by writers: between taking a sequence number and publishing it.
    writer: Mutex<()>,
    /// Reads see what is below it.
    visible: AtomicU64,
}

/// Why a write to a [`MemtableVariant`] was refused. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StandaloneError {
    /// The table has no room left for this write.
    Full(Full),
    /// The key or value is longer than the engine takes.
    TooLong {
        /// Which of the two.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The longest length.
        max: usize,
    },
}

impl fmt::Display for StandaloneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(full) => full.fmt(f),
            Self::TooLong { what, len, max } => write!(f, "a {what} of {len} B is above {max} B"),
        }
    }
}

impl std::error::Error for StandaloneError {}

impl MemtableVariant {
    /// An empty table of the given type that reserves at most `max_bytes`, its own few hundred included.
    #[must_use]
    pub fn new(kind: MemtableType, max_bytes: u64) -> Self {
        let ledger = Ledger::unlimited();
        let options = MemtableOptions {
            kind: kind.into(),
            bytes_max: max_bytes,
            hash_seed: HASH_SEED,
            key_filter: false,
            anchor: Anchor::default(),
            ledger,
        };
        let table = Swap::new(Memtable::new(&options));
        Self { kind, options, table, writer: Mutex::new(()), visible: AtomicU64::new(0) }
    }

    /// Which variant this is.
    #[must_use]
    pub fn kind(&self) -> MemtableType {
        self.kind
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// No room is left, or the key or value is too long; the old value is still there.
    pub fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), StandaloneError> {
        self.write(Kind::Put, key.as_ref(), value.as_ref())
    }

    /// Removes a key; nothing happens if it is absent. Takes room like a put.
    ///
    /// # Errors
    /// As [`MemtableVariant::put`].
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<(), StandaloneError> {
        self.write(Kind::Delete, key.as_ref(), &[])
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<Slice> {
        let key = key.as_ref();
        let (table, below) = self.snapshot();
        let found = table.get(key, hash::key_hash(HASH_SEED, key), below)?;
        (found.kind == Kind::Put).then(|| Slice::copy_of(found.value))
    }

    /// The values of several keys, in the order of the keys, as of one moment.
    ///
    /// Cheaper than single gets, the more so in a table larger than the processor's caches. Takes O(keys) memory
    /// besides the values.
    #[must_use]
    pub fn multi_get<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<Option<Slice>> {
        let keys: Vec<K> = keys.into_iter().collect();
        let (table, below) = self.snapshot();
        let mut values = Vec::with_capacity(keys.len());
        for keys in keys.chunks(WARM_KEYS) {
            table.warm(Ahead::Get, keys.iter().map(|key| hashed(key.as_ref())));
            for (key, hash) in keys.iter().map(|key| hashed(key.as_ref())) {
                let found = table.get(key, hash, below).filter(|entry| entry.kind == Kind::Put);
                values.push(found.map(|entry| Slice::copy_of(entry.value)));
            }
        }
        values
    }

    /// Sets the values of several keys in order: all of them, or none if there is an error. Readers see all of
    /// them or none.
    ///
    /// Cheaper than single puts, the more so in a table larger than the processor's caches. Takes O(entries)
    /// memory besides the table's.
    ///
    /// # Errors
    /// As [`MemtableVariant::put`].
    pub fn put_all<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), StandaloneError> {
        let entries: Vec<(K, V)> = entries.into_iter().collect();
        let pairs = || entries.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
        pairs().try_for_each(|(key, value)| check_lengths(key, value))?;
        let _writer = self.writer.lock();
        let table = self.table.guard();
        let mut shape = BatchShape::default();
        for (key, value) in pairs() {
            table.measure(&mut shape, Kind::Put, hashed(key).1, key, value);
        }
        let mut room = table.reserve(&shape).map_err(StandaloneError::Full)?;
        let mut seq = self.visible.load(Ordering::Relaxed);
        for entries in entries.chunks(WARM_KEYS) {
            room.warm(entries.iter().map(|(key, _)| hashed(key.as_ref())));
            for (key, value) in entries {
                let (key, hash) = hashed(key.as_ref());
                room.insert(Kind::Put, hash, key, value.as_ref(), seq);
                seq += 1;
            }
        }
        // Release pairs with the Acquire in `snapshot`.
        self.visible.store(seq, Ordering::Release);
        Ok(())
    }

    /// Forgets everything and gives the memory back, except what running readers still hold.
    pub fn clear(&self) {
        let _writer = self.writer.lock();
        let anchor = self.table.guard().learned_anchor();
        self.table.store(Memtable::new(&MemtableOptions { anchor, ..self.options.clone() }));
    }

    /// Keys that have a value. O(n).
    #[must_use]
    pub fn entry_count(&self) -> usize {
        let mut count = 0;
        self.for_each(|_, _| count += 1);
        count
    }

    /// Bytes in use: keys, values, every version, and the table's own. See [`MemtableVariant::usage`].
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.usage().used
    }

    /// Where the table's bytes are, used and reserved.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.table.guard().usage()
    }

    /// All keys with their values, in key order, as of now.
    #[must_use]
    pub fn entries(&self) -> Vec<(Slice, Slice)> {
        let mut entries = Vec::new();
        self.for_each(|key, value| entries.push((Slice::copy_of(key), Slice::copy_of(value))));
        entries
    }

    /// Calls `see` for every key with its value, in key order, as of now. Copies nothing.
    pub fn for_each(&self, mut see: impl FnMut(&[u8], &[u8])) {
        self.for_each_from("", |key, value| {
            see(key, value);
            ControlFlow::Continue(())
        });
    }

    /// As [`MemtableVariant::for_each`], from the first key at or above `from` until `see` breaks.
    pub fn for_each_from(
        &self,
        from: impl AsRef<[u8]>,
        mut see: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) {
        let (table, below) = self.snapshot();
        let mut cursor = table.cursor(below);
        let mut target = Some(Target::Ge(from.as_ref()));
        while match target.take() {
            Some(first) => cursor.seek(first),
            None => cursor.next(),
        }
        .is_ok_and(|found| found)
        {
            let entry = cursor.entry();
            if entry.kind == Kind::Put && see(entry.key, entry.value).is_break() {
                return;
            }
        }
    }

    fn snapshot(&self) -> (Guard<Arc<Memtable>>, SeqNo) {
        let table = self.table.guard();
        // Acquire pairs with the Release in `write`: what is below was inserted before.
        (table, self.visible.load(Ordering::Acquire))
    }

    fn write(&self, kind: Kind, key: &[u8], value: &[u8]) -> Result<(), StandaloneError> {
        check_lengths(key, value)?;
        let _writer = self.writer.lock();
        let table = self.table.guard();
        let hash = hash::key_hash(HASH_SEED, key);
        let mut shape = BatchShape::default();
        table.measure(&mut shape, kind, hash, key, value);
        let mut room = table.reserve(&shape).map_err(StandaloneError::Full)?;
        let seq = self.visible.load(Ordering::Relaxed);
        room.insert(kind, hash, key, value, seq);
        self.visible.store(seq + 1, Ordering::Release);
        Ok(())
    }
}

fn check_lengths(key: &[u8], value: &[u8]) -> Result<(), StandaloneError> {
    let limits = [("key", key.len(), key::KEY_LEN_MAX), ("value", value.len(), key::VALUE_LEN_MAX)];
    for (what, len, max) in limits {
        if len > max {
            return Err(StandaloneError::TooLong { what, len, max });
        }
    }
    Ok(())
}

/// A key with its hash.
fn hashed(key: &[u8]) -> (&[u8], u64) {
    (key, hash::key_hash(HASH_SEED, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variant_is_a_map_with_a_limit() {
        for kind in MemtableType::ALL {
            let table = MemtableVariant::new(kind, 64 << 10);
            for (key, value) in [("b", "1"), ("a", "2"), ("b", "3"), ("c", "4")] {
                table.put(key, value).expect("there is room");
            }
            table.delete("c").expect("there is room");
            let shown: Vec<_> = table.entries();
            assert_eq!(shown, [("a".into(), "2".into()), ("b".into(), "3".into())], "{kind}");
            assert_eq!((table.get("b"), table.get("c")), (Some("3".into()), None), "{kind}");
            assert_eq!(table.entry_count(), 2, "{kind}");
            let mut first = None;
            table.for_each_from("aa", |key, _| {
                assert_eq!(first.replace(Slice::copy_of(key)), None, "broken off ({kind})");
                ControlFlow::Break(())
            });
            assert_eq!(first, Some("b".into()), "{kind}");

            let mut stored = 0;
            while table.put(format!("fill{stored}"), [0; 100]).is_ok() {
                stored += 1;
                assert!(table.usage().reserved <= 64 << 10, "{kind}");
            }
            assert!(stored > 200, "{kind} took {stored} entries");
            assert_eq!(table.entry_count(), 2 + stored, "a refused put changes nothing ({kind})");

            table.clear();
            assert_eq!((table.entry_count(), table.get("a")), (0, None), "{kind}");
        }
    }

    #[test]
    fn many_at_once_are_what_single_ones_are() {
        for kind in MemtableType::ALL {
            // Larger than the caches, for the variants that fetch ahead.
            let (many, single) =
                (MemtableVariant::new(kind, 40 << 20), MemtableVariant::new(kind, 40 << 20));
            let key = |n: u32| format!("{:05}", n.wrapping_mul(7919) % 10_007);
            let large = if kind.name().contains("skiplist") || kind.name().contains("hash") {
                12_000
            } else {
                900
            };
            for first in (0..large).step_by(90) {
                let entries = (first..first + 90).map(|n| (key(n), format!("{n:01000}")));
                many.put_all(entries.clone()).expect("there is room");
                entries.for_each(|(key, value)| single.put(key, value).expect("there is room"));
                many.delete(key(first)).expect("there is room");
                single.delete(key(first)).expect("there is room");
            }
            let keys: Vec<_> = (0..13_000).step_by(3).chain([1, 1, 4]).map(key).collect();
            let found = many.multi_get(&keys);
            assert_eq!(found.len(), keys.len());
            for (key, found) in keys.iter().zip(found) {
                assert_eq!((&found, &found), (&single.get(key), &many.get(key)), "{kind}: {key}");
            }
            assert_eq!(many.entry_count(), single.entry_count(), "{kind}");
        }
    }

    #[test]
    fn entries_put_together_are_all_there_or_none() {
        for kind in MemtableType::ALL {
            let table = MemtableVariant::new(kind, 64 << 10);
            table.put_all([("a", "1"), ("b", "2"), ("a", "3")]).expect("there is room");
            assert_eq!(
                table.multi_get(["b", "a", "c"]),
                [Some("2".into()), Some("3".into()), None]
            );
            let full = table.put_all((0..1000).map(|n| (n.to_string(), [0; 100])));
            assert!(matches!(full, Err(StandaloneError::Full(_))), "{kind}: {full:?}");
            let long = table.put_all([(vec![0; 3], ""), (vec![0; 65_536], "")]);
            assert!(matches!(long, Err(StandaloneError::TooLong { .. })), "{kind}: {long:?}");
            assert_eq!(table.entry_count(), 2, "{kind}");
            table.put_all([("", ""); 0]).expect("nothing takes no room");
        }
    }

    #[test]
    fn keys_and_values_beyond_the_limits_are_refused() {
        let table = MemtableVariant::new(MemtableType::Skiplist, 1 << 20);
        assert!(table.put(vec![0; 65_535], "").is_ok());
        let error = table.put(vec![0; 65_536], "").expect_err("too long");
        assert_eq!(error.to_string(), "a key of 65536 B is above 65535 B");
    }
}
