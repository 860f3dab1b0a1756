//! Memtables alone: ours and the peers' write buffers without log, flush or tables, in nanoseconds per
//! operation and bytes per entry. One line of JSON per candidate with [least, median, most] of each
//! figure; on standard error a table, and the ratios that Memtide has set itself.
//!
//! `memtables [--num N] [--threads T] [--reps R] [--key-shape ordered|hashed] [--key-size B] [--value-size B]
//! [NAME ...]`
//!
//! Medians of R rounds (3), the candidates taking turns. A name given twice is measured twice: how far the two
//! come out apart is the noise of the run. With one thread a figure is its CPU time, with several the wall time
//! over all operations. `seek50` is a seek and 50 entries. Rust candidates are weighed with a counting allocator,
//! RocksDB, whose memory is C++'s, by its own `cur-size-all-mem-tables`, Memtide by its ledger. RocksDB runs inside
//! a database with the log off and a buffer too large to fill, so its write path is in the figures: `fill` is
//! single puts, `batch` puts 1000 at a time, which is as near to the bare structure as its interface lets one come.
//! Ours start with what a keyspace's earlier memtable learned of its keys, as all but its first do.

#[allow(dead_code, reason = "the other driver needs more of it")]
#[path = "../peerbench/src/data.rs"]
mod data;

use data::{Entries, KeyShape, Rng, Shuffle};
use rustix::time::{ClockId, clock_gettime};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(usable(layout.size()), Relaxed);
        // SAFETY: the caller keeps the promises that the system allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(usable(layout.size()), Relaxed);
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What glibc's malloc takes for a request: 8 bytes of header, rounded up to 16, at least 32.
fn usable(size: usize) -> usize {
    ((size + 8 + 15) & !15).max(32)
}

#[global_allocator]
static COUNTING: Counting = Counting;

type See<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

trait Table: Sync {
    fn put(&self, key: &[u8], value: &[u8]);
    fn put_batch(&self, items: &[(Vec<u8>, Vec<u8>)]) {
        for (key, value) in items {
            self.put(key, value);
        }
    }
    fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> bool;
    fn scan(&self, from: &[u8], n: usize, see: See) -> usize;
    /// Its own count of its memory, for one that the allocator does not see.
    fn bytes(&self) -> Option<u64> {
        None
    }
}

/// Keeps nothing: the cost of making keys and values, which is in everyone's figures.
struct Nothing;

impl Table for Nothing {
    fn put(&self, key: &[u8], value: &[u8]) {
        std::hint::black_box((key, value));
    }
    fn get(&self, key: &[u8], _see: &mut dyn FnMut(&[u8])) -> bool {
        std::hint::black_box(key);
        false
    }
    fn scan(&self, _from: &[u8], _n: usize, _see: See) -> usize {
        0
    }
}

type Bytes = Box<[u8]>;

struct Tree(RwLock<BTreeMap<Bytes, Bytes>>);

impl Table for Tree {
    fn put(&self, key: &[u8], value: &[u8]) {
        self.0.write().unwrap().insert(key.into(), value.into());
    }
    fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> bool {
        self.0.read().unwrap().get(key).map(|value| see(value)).is_some()
    }
    fn scan(&self, from: &[u8], n: usize, see: See) -> usize {
        let tree = self.0.read().unwrap();
        tree.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)).take(n).map(|(k, v)| see(k, v)).count()
    }
}

mod skip {
    use super::{Bytes, See, Table};
    use crossbeam_skiplist::SkipMap;
    use lsm_tree::{InternalValue, Memtable, ValueType};
    use std::ops::Bound;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    impl Table for SkipMap<Bytes, Bytes> {
        fn put(&self, key: &[u8], value: &[u8]) {
            self.insert(key.into(), value.into());
        }
        fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> bool {
            self.get(key).map(|entry| see(entry.value())).is_some()
        }
        fn scan(&self, from: &[u8], n: usize, see: See) -> usize {
            let entries = self.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
            entries.take(n).map(|e| see(e.key(), e.value())).count()
        }
    }

    /// fjall's memtable: versioned keys in a crossbeam skiplist. It has no public range, so a scan
    /// walks from the start; `seek50` is therefore not measured.
    pub struct Fjall {
        pub table: Memtable,
        pub seqno: AtomicU64,
    }

    impl Table for Fjall {
        fn put(&self, key: &[u8], value: &[u8]) {
            let seqno = self.seqno.fetch_add(1, Relaxed);
            self.table.insert(InternalValue::from_components(key, value, seqno, ValueType::Value));
        }
        fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> bool {
            self.table.get(key, u64::MAX).map(|item| see(&item.value)).is_some()
        }
        fn scan(&self, from: &[u8], n: usize, see: See) -> usize {
            if !from.is_empty() {
                return 0;
            }
            self.table.iter().take(n).map(|item| see(&item.key.user_key, &item.value)).count()
        }
    }
}

mod rocks {
    use super::{See, Table};
    use rocksdb::{DB, MemtableFactory, Options, ReadOptions, SliceTransform, WriteBatch, WriteOptions};

    pub struct Rocks {
        db: DB,
        write: WriteOptions,
        dir: std::path::PathBuf,
    }

    pub fn open(rep: &str, num: u64, key_size: usize) -> Rocks {
        let dir = std::env::temp_dir().join(format!("memtables-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(16 << 30);
        let whole = SliceTransform::create_fixed_prefix(key_size); // a bucket per key: a pure hash table
        let factory = match rep {
            "vector" => Some(MemtableFactory::Vector),
            "hashskiplist" => {
                Some(MemtableFactory::HashSkipList { bucket_count: num as usize, height: 4, branching_factor: 4 })
            }
            "hashlinklist" => Some(MemtableFactory::HashLinkList { bucket_count: num as usize }),
            _ => None,
        };
        if rep.starts_with("hash") {
            options.set_prefix_extractor(whole);
        }
        if let Some(factory) = factory {
            options.set_allow_concurrent_memtable_write(false);
            options.set_memtable_factory(factory);
        }
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        Rocks { db: DB::open(&options, &dir).expect("opens"), write, dir }
    }

    impl Table for Rocks {
        fn put(&self, key: &[u8], value: &[u8]) {
            self.db.put_opt(key, value, &self.write).expect("puts");
        }
        fn put_batch(&self, items: &[(Vec<u8>, Vec<u8>)]) {
            let mut batch = WriteBatch::default();
            for (key, value) in items {
                batch.put(key, value);
            }
            self.db.write_opt(batch, &self.write).expect("writes");
        }
        fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> bool {
            self.db.get_pinned(key).expect("gets").map(|value| see(&value)).is_some()
        }
        fn scan(&self, from: &[u8], n: usize, see: See) -> usize {
            let mut read = ReadOptions::default();
            read.set_total_order_seek(true);
            let mut entries = self.db.raw_iterator_opt(read);
            entries.seek(from);
            let mut count = 0;
            while count < n
                && let Some((key, value)) = entries.item()
            {
                see(key, value);
                count += 1;
                entries.next();
            }
            count
        }
        fn bytes(&self) -> Option<u64> {
            self.db.property_int_value("rocksdb.cur-size-all-mem-tables").ok().flatten()
        }
    }

    impl Drop for Rocks {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

mod tide {
    use super::{See, Table};
    use memtide_base::ledger::Ledger;
    use memtide_base::{Cursor, Kind, Target, hash};
    use memtide_memtable::{Anchor, BatchShape, Memtable, MemtableOptions, MemtableType};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    const SEED: u64 = 7;

    pub struct Tide {
        table: Arc<Memtable>,
        seq: AtomicU64,
    }

    pub fn open(variant: &str, anchor: Anchor) -> Option<Tide> {
        let options = MemtableOptions {
            kind: variant.parse::<MemtableType>().ok()?.into(),
            bytes_max: 8 << 30,
            hash_seed: SEED,
            key_filter: false,
            anchor,
            ledger: Ledger::unlimited(),
        };
        Some(Tide { table: Memtable::new(&options), seq: AtomicU64::new(1) })
    }

    /// What a memtable learns of such keys.
    pub fn anchor(keys: impl Iterator<Item = Vec<u8>>) -> Anchor {
        let first = open("vector", Anchor::default()).expect("one of the eight");
        keys.for_each(|key| first.put(&key, &[]));
        first.table.learned_anchor()
    }

    impl Table for Tide {
        fn put(&self, key: &[u8], value: &[u8]) {
            let hash = hash::key_hash(SEED, key);
            let mut shape = BatchShape::default();
            self.table.measure(&mut shape, Kind::Put, hash, key, value);
            let mut room = self.table.reserve(&shape).expect("8 GiB");
            room.insert(Kind::Put, hash, key, value, self.seq.fetch_add(1, Relaxed));
        }

        fn put_batch(&self, items: &[(Vec<u8>, Vec<u8>)]) {
            let mut shape = BatchShape::default();
            let hashes: Vec<_> = items.iter().map(|(key, _)| hash::key_hash(SEED, key)).collect();
            for ((key, value), &hash) in items.iter().zip(&hashes) {
                self.table.measure(&mut shape, Kind::Put, hash, key, value);
            }
            let mut room = self.table.reserve(&shape).expect("8 GiB");
            let first = self.seq.fetch_add(items.len() as u64, Relaxed);
            for (((key, value), &hash), seq) in items.iter().zip(&hashes).zip(first..) {
                room.insert(Kind::Put, hash, key, value, seq);
            }
        }

        fn get(&self, key: &[u8], see: &mut dyn FnMut(&[u8])) -> bool {
            let found = self.table.get(key, hash::key_hash(SEED, key), u64::MAX);
            found.map(|entry| see(entry.value)).is_some()
        }

        fn scan(&self, from: &[u8], n: usize, see: See) -> usize {
            let mut cursor = self.table.cursor(u64::MAX);
            let mut found = cursor.seek(Target::Ge(from)).expect("seeks");
            let mut count = 0;
            while found && count < n {
                let entry = cursor.entry();
                see(entry.key, entry.value);
                count += 1;
                found = cursor.next().expect("steps");
            }
            count
        }

        fn bytes(&self) -> Option<u64> {
            Some(self.table.usage().used)
        }
    }
}

const NAMES: &[&str] = &[
    "sorted",
    "skiplist",
    "trie",
    "linked_list",
    "hash_linked_list",
    "enhanced_skiplist",
    "hash_skiplist",
    "vector",
    "nothing",
    "btreemap",
    "crossbeam",
    "fjall",
    "rocksdb-skiplist",
    "rocksdb-hashskiplist",
    "rocksdb-hashlinklist",
    "rocksdb-vector",
];

fn make(name: &str, entries: &Entries, num: u64) -> Option<Box<dyn Table>> {
    Some(match name {
        "nothing" => Box::new(Nothing),
        "btreemap" => Box::new(Tree(RwLock::default())),
        "crossbeam" => Box::new(crossbeam_skiplist::SkipMap::<Bytes, Bytes>::new()),
        "fjall" => Box::new(skip::Fjall { table: lsm_tree::Memtable::new(0), seqno: AtomicU64::new(1) }),
        _ => match name.strip_prefix("rocksdb-") {
            Some(rep) => Box::new(rocks::open(rep, num, entries.key_size)),
            None => {
                let order = Shuffle::new(num, 42);
                let keys = (0..num.min(1000)).map(|i| {
                    let mut key = Vec::new();
                    entries.key(order.at(i), &mut key);
                    key
                });
                Box::new(tide::open(name, tide::anchor(keys))?)
            }
        },
    })
}

/// Longest time of one measure of reads; what is too slow is measured over fewer operations.
const LIMIT: Duration = Duration::from_secs(3);

/// CPU time of this thread so far.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nanoseconds per operation: each thread does its share of `ops`. One thread's are of CPU time, those of several
/// of wall time, all together.
fn time(threads: u64, ops: u64, limited: bool, body: impl Fn(u64, &mut dyn FnMut() -> bool) + Sync) -> f64 {
    let (done, busy) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for t in 0..threads {
            let (body, done, busy) = (&body, &done, &busy);
            scope.spawn(move || {
                let (mut mine, mut mask, begin) = (0u64, 0, cpu());
                body(t, &mut || {
                    mine += 1;
                    if mine & mask == 0 && limited {
                        let elapsed = start.elapsed();
                        mask = if elapsed.as_nanos() as u64 / mine > 100_000 { 0 } else { 255 };
                        return mine < ops / threads && elapsed < LIMIT;
                    }
                    mine < ops / threads
                });
                busy.fetch_add((cpu() - begin).as_nanos() as u64, Relaxed);
                done.fetch_add(mine, Relaxed);
            });
        }
    });
    let took = if threads == 1 { busy.load(Relaxed) } else { start.elapsed().as_nanos() as u64 };
    took as f64 / done.load(Relaxed) as f64
}

const FIGURES: [&str; 7] = ["fill_ns", "batch_ns", "read_ns", "miss_ns", "scan_ns", "seek50_ns", "bytes_per_entry"];

fn measure(name: &str, entries: &Entries, num: u64, threads: u64) -> Option<[f64; 7]> {
    let order = Shuffle::new(num, 42);
    let full = name != "nothing";
    let share = num / threads;

    let table = make(name, entries, num)?;
    let fill = time(threads, num, false, |t, more| {
        let (mut rng, mut key, mut value) = (Rng::new(t), Vec::new(), Vec::new());
        for i in t * share.. {
            entries.key(order.at(i), &mut key);
            entries.value(order.at(i), &mut rng, &mut value);
            table.put(&key, &value);
            if !more() {
                break;
            }
        }
    });
    drop(table);

    let before = ALLOCATED.load(Relaxed);
    let table = make(name, entries, num)?;
    let batch = time(threads, num, false, |t, more| {
        let mut rng = Rng::new(t);
        let mut items: Vec<(Vec<u8>, Vec<u8>)> = vec![Default::default(); 1000];
        let (mut next, mut open) = (t * share, true);
        while open {
            let mut count = 0;
            while open && count < items.len() {
                entries.key(order.at(next), &mut items[count].0);
                entries.value(order.at(next), &mut rng, &mut items[count].1);
                next += 1;
                count += 1;
                open = more();
            }
            table.put_batch(&items[..count]);
        }
    });
    let count = share * threads;
    let bytes = table.bytes().unwrap_or(ALLOCATED.load(Relaxed).saturating_sub(before) as u64);

    let read = time(threads, num, true, |t, more| {
        let (mut rng, mut key) = (Rng::new(t), Vec::new());
        loop {
            let number = order.at(rng.below(count));
            entries.key(number, &mut key);
            assert!(table.get(&key, &mut |value| entries.check(number, value)) == full, "entry {number}");
            if !more() {
                break;
            }
        }
    });
    let miss = time(threads, num, true, |t, more| {
        let (mut rng, mut key) = (Rng::new(t), Vec::new());
        loop {
            entries.missing_key(rng.below(num), &mut key);
            assert!(!table.get(&key, &mut |_| ()), "a key that was never written");
            if !more() {
                break;
            }
        }
    });
    let start = cpu();
    let mut last = Vec::new();
    let seen = table.scan(&[], usize::MAX, &mut |key, value| {
        assert!(*last < *key && value.len() == entries.value_size, "out of order");
        last.clear();
        last.extend_from_slice(key);
    });
    let scan = (cpu() - start).as_nanos() as f64 / seen.max(1) as f64;
    assert!(!full || seen as u64 == count, "a scan shows {seen} of {count}");
    let seek = time(threads, num / 20, true, |t, more| {
        let (mut rng, mut key) = (Rng::new(t), Vec::new());
        loop {
            entries.key(order.at(rng.below(count)), &mut key);
            let mut first = Vec::new();
            table.scan(&key, 50, &mut |found, _| {
                if first.is_empty() {
                    first.extend_from_slice(found);
                }
            });
            assert!(first == key || first.is_empty(), "a seek misses its key");
            if !more() {
                break;
            }
        }
    });
    let unknown = name == "fjall" || !full;
    Some([fill, batch, read, miss, scan, if unknown { 0.0 } else { seek }, bytes as f64 / count as f64])
}

/// A ratio that is to be reached: ours, the peer's, and how many times as fast as it put, get and scan are to be;
/// last the bytes beside key and value, as a share of the peer's. `None` where nothing is asked.
type Goal = (&'static str, &'static str, [Option<f64>; 4]);

/// `small` is for tables of a few thousand entries.
fn goals(small: bool, long_keys: bool) -> Vec<Goal> {
    let sorted = if small { [1.2, 1.2] } else { [4.0, 2.0] };
    let mut goals: Vec<Goal> = vec![
        ("skiplist", "rocksdb-skiplist", [Some(1.3), Some(1.3), Some(1.0), Some(1.25)]),
        ("skiplist", "crossbeam", [Some(2.0), Some(1.5), Some(1.5), Some(0.45)]),
        ("enhanced_skiplist", "rocksdb-skiplist", [Some(2.5), Some(2.0), Some(4.0), Some(1.4)]),
        ("sorted", "btreemap", [Some(sorted[0]), Some(sorted[1]), Some(1.5), Some(0.45)]),
        ("hash_skiplist", "rocksdb-skiplist", [Some(1.0), Some(4.0), Some(0.9), Some(1.8)]),
        ("hash_linked_list", "rocksdb-hashlinklist", [Some(1.5), Some(1.5), None, Some(1.0)]),
        ("vector", "rocksdb-vector", [Some(1.5), None, None, Some(0.7)]),
    ];
    if long_keys {
        goals.push(("trie", "rocksdb-skiplist", [Some(2.0), Some(2.5), Some(1.0), Some(1.0)]));
    }
    goals
}

/// How far ours are ahead of the peers, in Markdown: each ratio of medians with its goal, **bold** where missed.
fn print_goals(medians: &[(&str, [f64; 7])], goals: &[Goal], payload: usize) {
    let find = |name: &str| medians.iter().find(|(known, _)| *known == name).map(|(_, figures)| figures);
    eprintln!("\n| ours | peer | put | get | scan | bytes beside key and value |\n|---|---|---:|---:|---:|---:|");
    for (ours, peer, wanted) in goals {
        let (Some(own), Some(other)) = (find(ours), find(peer)) else { continue };
        // RocksDB's single puts have a database's write path around them.
        let put = if peer.starts_with("rocksdb") { 1 } else { 0 };
        let faster = |figure: usize| other[figure] / own[figure];
        let beside = |figures: &[f64; 7]| figures[6] - payload as f64;
        let ratios = [faster(put), faster(2), faster(4), beside(own) / beside(other)];
        let cells = ratios.iter().zip(wanted).enumerate().map(|(index, (ratio, goal))| match goal {
            Some(goal) if (*ratio < *goal) != (index == 3) => format!("**{ratio:.2}** ({goal})"),
            Some(goal) => format!("{ratio:.2} ({goal})"),
            None => format!("{ratio:.2}"),
        });
        eprintln!("| `{ours}` | {peer} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
}

fn main() {
    let (mut num, mut threads, mut shape, mut key_size, mut value_size) = (1_000_000, 1, KeyShape::Ordered, 16, 100);
    let (mut reps, mut names) = (3, Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut count = || words.next().and_then(|w| w.parse::<u64>().ok()).expect("an option wants a number");
        match word.as_str() {
            "--num" => num = count(),
            "--threads" => threads = count(),
            "--reps" => reps = count(),
            "--key-size" => key_size = count() as usize,
            "--value-size" => value_size = count() as usize,
            "--key-shape" => match words.next().as_deref() {
                Some("ordered") => shape = KeyShape::Ordered,
                Some("hashed") => shape = KeyShape::Hashed,
                _ => panic!("--key-shape ordered or hashed"),
            },
            _ => names.push(word),
        }
    }
    if names.is_empty() {
        names = NAMES.iter().map(|&name| name.into()).collect();
    }
    let entries = Entries::new(key_size, value_size, shape, 42);
    let mut rounds: Vec<Vec<[f64; 7]>> = vec![Vec::new(); names.len()];
    for _ in 0..reps {
        for (name, found) in names.iter().zip(&mut rounds) {
            found.extend(measure(name, &entries, num, threads));
        }
    }
    let mut medians = Vec::new();
    eprintln!("{:22}{}", "", FIGURES.map(|figure| format!("{figure:>24}")).concat());
    for (name, found) in names.iter().zip(rounds).filter(|(_, found)| !found.is_empty()) {
        let mut shown = String::new();
        let mut members = String::new();
        let mut middles = [0.0; 7];
        for (i, figure) in FIGURES.iter().enumerate() {
            let mut values: Vec<f64> = found.iter().map(|round| round[i]).collect();
            values.sort_by(f64::total_cmp);
            middles[i] = values[values.len() / 2];
            let (low, middle, high) = (values[0], values[values.len() / 2], values[values.len() - 1]);
            shown += &format!("{:>24}", format!("{middle:.0} [{low:.0}..{high:.0}]"));
            members += &format!(r#","{figure}":[{low:.1},{middle:.1},{high:.1}]"#);
        }
        eprintln!("{name:22}{shown}");
        println!(r#"{{"memtable":"{name}","entries":{num},"threads":{threads}{members}}}"#);
        medians.push((name.as_str(), middles));
    }
    if threads == 1 {
        print_goals(&medians, &goals(num < 100_000, key_size >= 64), key_size + value_size);
    }
}
