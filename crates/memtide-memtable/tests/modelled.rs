//! Memtables under a model checker, which decides when each thread goes on: `cargo x loom` tries interleavings
//! of a few operations one after another (with a bound on preemptions), `cargo x shuttle` random ones of more.
//!
//! Built with `--cfg loom` or `--cfg shuttle` only: locks, atomics and the arena's memory are then the
//! checker's, see `memtide_base::sync` and the arena's `modelled`.

#![cfg(any(loom, shuttle))]

#[cfg(loom)]
use loom::thread;
#[cfg(shuttle)]
use shuttle::thread;

use memtide_base::ledger::Ledger;
use memtide_base::sync::atomic::{AtomicU64, Ordering};
use memtide_base::sync::{Arc, Mutex};
use memtide_base::{Cursor, Kind, SeqNo, Target, hash};
use memtide_memtable::{Anchor, BatchShape, Inserted, Memtable, MemtableOptions, MemtableType};

const HASH_SEED: u64 = 7;

/// What the threads of one run do.
#[derive(Clone, Copy)]
struct Script {
    writers: u64,
    writes: u64,
    keys: u64,
    readers: u64,
    reads: u64,
}

/// A table, the next sequence number, and up to where all writes are there.
struct World {
    table: Arc<Memtable>,
    commit: Mutex<Commit>,
    visible: AtomicU64,
}

#[derive(Default)]
struct Commit {
    next: SeqNo,
    /// Whether write `seq` is inserted.
    done: Vec<bool>,
}

/// Keys that share their first bytes, so that heads alone do not decide.
fn key_of(number: u64) -> Vec<u8> {
    format!("same/{:02}", number * 37 % 100).into_bytes()
}

impl World {
    fn new(kind: MemtableType) -> Self {
        let ledger = Ledger::unlimited();
        let options = MemtableOptions {
            kind: kind.into(),
            bytes_max: 1 << 20,
            hash_seed: HASH_SEED,
            key_filter: true,
            anchor: Anchor::default(),
            ledger,
        };
        let (table, visible) = (Memtable::new(&options), AtomicU64::new(0));
        Self { table, commit: Mutex::default(), visible }
    }

    /// One write: number assigned, inserted beside others, published in order.
    fn write(&self, keys: u64) {
        let seq = {
            let mut commit = self.commit.lock();
            commit.next += 1;
            commit.done.push(false);
            commit.next - 1
        };
        let (key, value) = (key_of(seq % keys), seq.to_le_bytes());
        let (hash, mut shape) = (hash::key_hash(HASH_SEED, &key), BatchShape::default());
        self.table.measure(&mut shape, Kind::Put, hash, &key, &value);
        let mut room = self.table.reserve(&shape).expect("there is room");
        assert_ne!(room.insert(Kind::Put, hash, &key, &value, seq), Inserted::Duplicate);
        drop(room);
        let mut commit = self.commit.lock();
        commit.done[usize::try_from(seq).expect("few")] = true;
        let visible = commit.done.iter().take_while(|done| **done).count() as u64;
        self.visible.store(visible, Ordering::Release);
    }

    /// One get and one walk each way show exactly the writes below a published bound.
    fn read(&self, keys: u64, round: u64) {
        let below = self.visible.load(Ordering::Acquire);
        let newest = |number: u64| (0..below).rev().find(|seq| seq % keys == number);
        let number = round % keys;
        let key = key_of(number);
        let shown = self.table.get(&key, hash::key_hash(HASH_SEED, &key), below);
        let shown = shown.map(|entry| (entry.seq, entry.value.to_vec()));
        let want = newest(number).map(|seq| (seq, seq.to_le_bytes().to_vec()));
        assert_eq!(shown, want, "key {number} below {below}");

        let mut all: Vec<_> = (0..keys).filter_map(|n| Some((key_of(n), newest(n)?))).collect();
        all.sort_unstable();
        if round % 2 == 1 {
            all.reverse();
        }
        let mut cursor = self.table.cursor(below);
        let from = if round % 2 == 0 { Target::First } else { Target::Last };
        let mut found = cursor.seek(from).expect("memory does not fail");
        let mut walked = Vec::new();
        while found {
            walked.push((cursor.entry().key.to_vec(), cursor.entry().seq));
            let moved = if round % 2 == 0 { cursor.next() } else { cursor.prev() };
            found = moved.expect("memory does not fail");
        }
        assert_eq!(walked, all, "a walk below {below}");
    }
}

fn run(kind: MemtableType, script: Script) {
    let world = Arc::new(World::new(kind));
    let spawn = |work: Box<dyn Fn(&World) + Send>| {
        let world = Arc::clone(&world);
        thread::spawn(move || work(&world))
    };
    let writer =
        |_| spawn(Box::new(move |w| (0..script.writes).for_each(|_| w.write(script.keys))));
    let reader = |first: u64| {
        let rounds = first..first + script.reads;
        spawn(Box::new(move |w| rounds.clone().for_each(|round| w.read(script.keys, round))))
    };
    let threads: Vec<_> =
        (0..script.writers).map(writer).chain((0..script.readers).map(reader)).collect();
    for thread in threads {
        thread.join().expect("the thread's own assertion says what is wrong");
    }
    let writes = script.writers * script.writes;
    assert_eq!(world.visible.load(Ordering::Acquire), writes);
    (0..script.keys).for_each(|round| world.read(script.keys, round));
    assert_eq!(world.table.entry_count(), writes);
    assert_eq!(world.table.check(), Ok(()));
}

/// Interleavings with at most two preemptions: all of them with `MEMTIDE_LOOM=all`, else the first so many.
#[cfg(loom)]
fn explore(kind: MemtableType) {
    const PERMUTATIONS: usize = 200;
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.max_branches = 100_000;
    let all = std::env::var("MEMTIDE_LOOM").is_ok_and(|value| value == "all");
    model.max_permutations = (!all).then_some(PERMUTATIONS);
    let script = Script { writers: 2, writes: 1, keys: 1, readers: 0, reads: 0 };
    model.check(move || run(kind, script));
    let script = Script { writers: 1, writes: 2, keys: 2, readers: 1, reads: 1 };
    model.check(move || run(kind, script));
}

/// Random interleavings; the failing schedule is printed and `shuttle::replay` repeats it.
#[cfg(shuttle)]
fn explore(kind: MemtableType) {
    const SCHEDULES: usize = 300;
    let small = Script { writers: 2, writes: 6, keys: 5, readers: 1, reads: 6 };
    shuttle::check_random(move || run(kind, small), SCHEDULES);
    shuttle::check_pct(move || run(kind, small), SCHEDULES, 3);
    let large = Script { writers: 3, writes: 40, keys: 90, readers: 2, reads: 8 };
    shuttle::check_random(move || run(kind, large), SCHEDULES / 10);
}

macro_rules! each_variant {
    ($($variant:ident),+ $(,)?) => {
        $(#[test]
        fn $variant() {
            explore(stringify!($variant).parse().expect("a variant's name"));
        })+
    };
}

each_variant!(
    sorted,
    skiplist,
    trie,
    linked_list,
    hash_linked_list,
    enhanced_skiplist,
    hash_skiplist,
    vector,
);
