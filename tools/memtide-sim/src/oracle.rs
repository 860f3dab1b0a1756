//! What a database should hold: a few sorted maps, the changes that tests make to both, and the seeded
//! generator that draws them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Bound;

use memtide::{
    Codec, Compaction, Config, Db, Durability, KeyspaceConfig, MemtableChoice, MemtableType,
};
use memtide::{Result, SeqNo, WalSink};
use memtide_env::Random;
use memtide_env::random::SplitMix64;

/// The keyspaces that most tests use.
pub const NAMES: [&str; 3] = ["default", "left", "right"];

/// Keys and values of a keyspace.
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
/// A range of keys, as users write them.
pub type Span = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The contents of a database. A keyspace without rows is as one that does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State(BTreeMap<String, Rows>);

/// One change.
#[derive(Clone, Debug)]
pub enum Change {
    /// Of a keyspace: a key gets a value.
    Put(&'static str, Vec<u8>, Vec<u8>),
    /// A key goes.
    Delete(&'static str, Vec<u8>),
    /// All keys of a range go.
    DeleteRange(&'static str, Span),
}

impl Change {
    /// The keyspace that it is made in.
    #[must_use]
    pub fn keyspace(&self) -> &'static str {
        match self {
            Self::Put(name, ..) | Self::Delete(name, _) | Self::DeleteRange(name, _) => name,
        }
    }
}

/// Whether a range holds a key.
pub fn holds((from, to): &Span, key: &[u8]) -> bool {
    let after = match from {
        Bound::Included(from) => key >= from.as_slice(),
        Bound::Excluded(from) => key > from.as_slice(),
        Bound::Unbounded => true,
    };
    let before = match to {
        Bound::Included(to) => key <= to.as_slice(),
        Bound::Excluded(to) => key < to.as_slice(),
        Bound::Unbounded => true,
    };
    after && before
}

impl State {
    /// Everything an open database shows.
    ///
    /// # Errors
    /// What reading it met.
    ///
    /// # Panics
    /// A key came twice.
    pub fn of(db: &Db) -> Result<Self> {
        let mut state = Self::default();
        for keyspace in db.keyspaces() {
            let mut rows = Rows::new();
            for entry in keyspace.iter() {
                let (key, value) = entry?;
                assert!(rows.insert(key.to_vec(), value.to_vec()).is_none(), "a key came twice");
            }
            if !rows.is_empty() {
                state.0.insert(keyspace.name().to_owned(), rows);
            }
        }
        Ok(state)
    }

    /// Makes these changes, in order.
    pub fn apply<'c>(&mut self, changes: impl IntoIterator<Item = &'c Change>) {
        for change in changes {
            let name = change.keyspace();
            let rows = self.0.entry(name.to_owned()).or_default();
            match change {
                Change::Put(_, key, value) => drop(rows.insert(key.clone(), value.clone())),
                Change::Delete(_, key) => drop(rows.remove(key)),
                Change::DeleteRange(_, span) => rows.retain(|key, _| !holds(span, key)),
            }
            if rows.is_empty() {
                self.0.remove(name);
            }
        }
    }

    /// The value of a key.
    pub fn get(&self, name: &str, key: &[u8]) -> Option<&Vec<u8>> {
        self.0.get(name)?.get(key)
    }

    /// The rows of a keyspace that a range holds, in order.
    pub fn rows(&self, name: &str, span: &Span) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.0.get(name).into_iter().flatten();
        rows.filter(|(key, _)| holds(span, key)).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// The part of it that one keyspace is.
    pub fn only(&self, name: &str) -> Self {
        self.filtered(|own| own == name)
    }

    /// The part of it that is in keyspaces with such names.
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(name, _)| keep(name));
        Self(kept.map(|(name, rows)| (name.clone(), rows.clone())).collect())
    }

    /// In what the other one differs, briefly.
    pub fn difference(&self, other: &Self) -> String {
        let mut text = String::new();
        let names = self.0.keys().chain(other.0.keys()).collect::<std::collections::BTreeSet<_>>();
        for name in names {
            let none = Rows::new();
            let (own, others) =
                (self.0.get(name).unwrap_or(&none), other.0.get(name).unwrap_or(&none));
            let keys = own.keys().chain(others.keys()).collect::<std::collections::BTreeSet<_>>();
            for key in keys.into_iter().filter(|key| own.get(*key) != others.get(*key)).take(4) {
                let show = |rows: &Rows| {
                    rows.get(key)
                        .map(|value| value[..value.len().min(24)].escape_ascii().to_string())
                };
                let key = key.escape_ascii();
                let _ = write!(text, "[{name} {key}: {:?} or {:?}] ", show(own), show(others));
            }
        }
        text
    }
}

/// Writes changes as one batch; creates no keyspaces.
///
/// # Errors
/// What the write met.
///
/// # Panics
/// A keyspace is not there.
pub fn write(db: &Db, changes: &[Change], durability: Durability) -> Result<SeqNo> {
    let mut batch = db.batch();
    for change in changes {
        let keyspace = db.get_keyspace(change.keyspace()).expect("the keyspace was created before");
        match change {
            Change::Put(_, key, value) => batch.put(&keyspace, key, value),
            Change::Delete(_, key) => batch.delete(&keyspace, key),
            Change::DeleteRange(_, span) => batch.delete_range(&keyspace, span.clone()),
        }
    }
    Ok(db.write_with(batch, durability)?.seqno())
}

/// A seeded source of keys, values and changes.
#[derive(Clone, Debug)]
pub struct Draw {
    random: SplitMix64,
    values: u64,
}

/// How many keys there are that [`Draw::load`] writes.
const KEYS_OF_LOADS: u64 = 400;

impl Draw {
    /// A source that draws the same for the same seed.
    pub fn new(seed: u64) -> Self {
        Self { random: SplitMix64::new(seed), values: 0 }
    }

    /// A number below `n`; 0 if that is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).expect("a small number")]
    }

    /// A key that often meets others: as itself, as a prefix, or behind a shared prefix.
    pub fn key(&mut self) -> Vec<u8> {
        match self.below(9) {
            8 => Self::key_of_load(self.below(KEYS_OF_LOADS)),
            0 => (0..self.below(4)).map(|_| self.pick(b"\0ab\xff")).collect(),
            1..=3 => format!("k{:02}", self.below(60)).into_bytes(),
            4 => format!("tide/2026/{:02}", self.below(40)).into_bytes(),
            5 => vec![
                b"bc"[usize::from(self.one_in(2))];
                usize::try_from(self.below(20)).expect("a small number")
            ],
            _ => self.below(200).to_be_bytes().to_vec(),
        }
    }

    /// A value unlike all before it; one in `large` has a few hundred to a few thousand bytes.
    pub fn value(&mut self, large: u64) -> Vec<u8> {
        self.values += 1;
        let len = if self.one_in(large) { 200 + self.below(3000) } else { self.below(40) };
        value_of(self.values, usize::try_from(len).expect("a small number"))
    }

    /// Any range, one in a few the wrong way round.
    pub fn span(&mut self) -> Span {
        let mut bound = || match self.below(8) {
            0 => Bound::Unbounded,
            1..=2 => Bound::Excluded(self.key()),
            _ => Bound::Included(self.key()),
        };
        let (from, to) = (bound(), bound());
        // Mostly the right way round; an inverted range must do nothing.
        match (&from, &to) {
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b))
                if a > b && !self.one_in(6) =>
            {
                (to, from)
            }
            _ => (from, to),
        }
    }

    /// The key of a load in key order.
    fn key_of_load(number: u64) -> Vec<u8> {
        format!("load/{number:04}").into_bytes()
    }

    /// Puts in key order, as many as fill several small memtables, in batches: those become one run.
    pub fn load(&mut self, names: &[&'static str]) -> Vec<Vec<Change>> {
        let (name, from) = (self.pick(names), self.below(KEYS_OF_LOADS));
        let till = KEYS_OF_LOADS.min(from + 40 + self.below(KEYS_OF_LOADS / 2));
        let keys: Vec<_> = (from..till).collect();
        let put = |draw: &mut Self, number: &u64| {
            let value = draw.value(1000);
            Change::Put(name, Self::key_of_load(*number), value.repeat(4))
        };
        let batches = keys.chunks(6);
        batches.map(|batch| batch.iter().map(|number| put(self, number)).collect()).collect()
    }

    /// Any change of one of these keyspaces.
    pub fn change(&mut self, names: &[&'static str]) -> Change {
        let name = self.pick(names);
        match self.below(16) {
            0..=2 => Change::Delete(name, self.key()),
            3 => Change::DeleteRange(name, self.narrow_span()),
            _ => Change::Put(name, self.key(), self.value(12)),
        }
    }

    /// Mostly a range of a few keys, so that something is left to read.
    fn narrow_span(&mut self) -> Span {
        if self.one_in(10) {
            return self.span();
        }
        let start = self.key();
        let mut end = start.clone();
        if let Some(last) = end.last_mut() {
            *last = last.saturating_add(1 + u8::try_from(self.below(3)).expect("a small number"));
        }
        (Bound::Included(start), Bound::Excluded(end))
    }

    /// A batch of 1 to 6 changes.
    pub fn batch(&mut self, names: &[&'static str]) -> Vec<Change> {
        let count = if self.one_in(3) { 2 + self.below(5) } else { 1 };
        (0..count).map(|_| self.change(names)).collect()
    }

    /// One of the eight.
    pub fn memtable(&mut self) -> MemtableType {
        self.pick(&MemtableType::ALL)
    }

    /// With the limits of tests `fifo` drops nothing.
    pub fn compaction(&mut self) -> Compaction {
        self.pick(&Compaction::ALL)
    }

    /// One of the eight, or the one of `own_memtable`.
    pub fn memtable_choice(&mut self) -> MemtableChoice {
        if self.one_in(5) { MemtableChoice::named("time_log") } else { self.memtable().into() }
    }

    /// Limits so small that everything happens soon: rotation, flush, merges, log segments.
    pub fn small_config(&mut self, memtable_type: Option<MemtableType>) -> Config {
        let codecs: Vec<_> = Codec::ALL.into_iter().filter(|codec| codec.is_built_in()).collect();
        let mut config = Config {
            memtable_type: Some(memtable_type.unwrap_or_else(|| self.memtable()).into()),
            max_memtable_size: Some(self.pick(&[4 << 10, 8 << 10, 16 << 10])),
            memory_budget: Some(self.pick(&[256 << 10, 1 << 20])),
            flush_target: Some(self.pick(&[1, 8 << 10, 64 << 10])),
            compression: Some(self.pick(&codecs)),
            compaction: Some(self.compaction()),
            ..Config::default()
        };
        config.tree.block_size = Some(self.pick(&[64, 256, 512, 4096]));
        config.tree.filter_bits = Some(self.pick(&[0, 10]));
        config.tree.table_size = Some(4 << 10);
        config.tree.level0_runs = Some(2);
        config.tree.level1_size = Some(self.pick(&[4 << 10, 16 << 10]));
        config.tree.min_blob_size = Some(self.pick(&[64, 256, 4 << 10]));
        config.tree.wal_segment_size = Some(16 << 10);
        config.tree.wal_size = Some(32 << 10);
        config.tree.wal_sink = Some(self.pick(&WalSink::ALL));
        config.tree.compaction_threads = self.pick(&[None, Some(2), Some(4)]);
        for name in &NAMES[1..] {
            let own = KeyspaceConfig {
                memtable_type: Some(memtable_type.unwrap_or_else(|| self.memtable()).into()),
                max_memtable_size: config.max_memtable_size,
                compaction: Some(self.compaction()),
                durability: None,
            };
            config.keyspaces.insert((*name).to_owned(), own);
        }
        config
    }
}

/// The value with this number: the number, a colon, and so many bytes more.
pub fn value_of(number: u64, len: usize) -> Vec<u8> {
    let mut value = format!("{number}:").into_bytes();
    let byte = |at: u64| u8::try_from(at.wrapping_mul(7).wrapping_add(number) % 251);
    value.extend((0..len as u64).map(|at| byte(at).expect("below 251")));
    value
}

/// The seeds of a random test: the one that `MEMTIDE_SEED` names, or the fixed ones and `fresh` new ones
/// (`MEMTIDE_FRESH` names another number of those).
pub fn seeds(fixed: std::ops::Range<u64>, fresh: usize) -> Vec<u64> {
    if let Ok(seed) = std::env::var("MEMTIDE_SEED") {
        return vec![seed.parse().expect("MEMTIDE_SEED is a number")];
    }
    let fresh = match std::env::var("MEMTIDE_FRESH") {
        Ok(count) => count.parse().expect("MEMTIDE_FRESH is a number"),
        Err(_) => fresh,
    };
    let random = Random::from_system();
    fixed.chain((0..fresh).map(|_| random.next_u64())).collect()
}

/// Says how to repeat a random test if it panics while this lives.
#[derive(Debug)]
pub struct Repeat {
    /// Its name, with its module.
    pub test: &'static str,
    /// What it runs with.
    pub seed: u64,
}

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, seed } = self;
            println!("repeat with: MEMTIDE_SEED={seed} cargo test -p memtide --test it {test}");
        }
    }
}
