//! What the usual put, get and step of an iterator allocate: nothing.
//!
//! A binary of its own, because the counter is its allocator.
#![allow(clippy::unwrap_used, reason = "test code")]

use allocation_counter::measure;
use memtide::{Config, Db, Durability, MemtableType};

const KEYS: u64 = 2000;

/// A key on the stack.
fn key(number: u64) -> [u8; 8] {
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_be_bytes()
}

fn open(kind: MemtableType) -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        memtable_type: Some(kind.into()),
        // All of it in one memtable, whose memory is there once its first quarter is written.
        max_memtable_size: Some(8 << 20),
        memory_budget: Some(64 << 20),
        durability: Some(Durability::Buffered),
        ..Config::default()
    };
    let db = Db::builder(dir.path()).config(config).open().unwrap();
    (dir, db)
}

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    measure(work).count_total
}

#[test]
fn a_put_allocates_nothing_beyond_the_memory_of_its_memtable() {
    for kind in MemtableType::ALL {
        let (_dir, db) = open(kind);
        let put = |number| db.put(key(number), [7; 20]).unwrap();
        (0..KEYS).for_each(put);
        let count = allocations(|| (KEYS..2 * KEYS).for_each(put));
        // The memtable asks for segments that double, and for the nodes of its index now and then.
        assert!(count < KEYS / 50, "{kind}: {count} allocations in {KEYS} puts");
    }
}

#[test]
fn a_get_of_a_short_value_and_a_step_over_short_entries_allocate_nothing() {
    for kind in MemtableType::ALL {
        let (_dir, db) = open(kind);
        (0..KEYS).for_each(|number| db.put(key(number), [7; 20]).unwrap());
        for place in ["memtable", "table"] {
            let get = |number| assert!(db.get(key(number)).unwrap().is_some());
            // The first reads bring blocks into the cache, and a variant that orders on demand into order.
            (0..KEYS).for_each(get);
            assert_eq!(db.iter().count() as u64, KEYS);
            let count = allocations(|| (0..KEYS).for_each(get));
            assert_eq!(count, 0, "{kind}: allocations in {KEYS} gets from a {place}");
            for forward in [true, false] {
                let mut iter = db.iter();
                let mut step = || if forward { iter.next() } else { iter.next_back() };
                // Opening an end takes memory, and so does the first walk ahead.
                (0..100).for_each(|_| assert!(step().unwrap().is_ok()));
                let count = allocations(|| (0..500).for_each(|_| assert!(step().unwrap().is_ok())));
                assert_eq!(count, 0, "{kind}: allocations in 500 steps over a {place}");
            }
            db.flush().unwrap();
        }
    }
}
