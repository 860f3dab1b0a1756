//! What the kernel counts as resident while a database far larger than its memory budget is loaded, read, scanned,
//! and overwritten.
//!
//! A binary of its own with one test: the figure is the whole process's. Under a limit of the kernel's:
//! `MEMTIDE_MEMORY_OF=trie` and this binary in a cgroup.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test fails by panicking, and this one asks the kernel"
)]

use std::process::Command;
use std::{env, fs};

use memtide::{Config, Db, Durability, MemtableType};

const BUDGET: u64 = 16 << 20;
/// Bytes of keys and values that are loaded, for every memtable.
const LOAD: u64 = 10 * BUDGET;
/// What the process may hold beside a twentieth above the budget: its code, stacks, what `malloc` keeps.
const BESIDE: u64 = 16 << 20;
const MOST: u64 = BUDGET + BUDGET / 20 + BESIDE;

/// The most that was resident since the last [`forget_peak`].
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn mixed(n: u64) -> u64 {
    let x = (n ^ (n >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

fn key(number: u64) -> String {
    format!("{:016x}", mixed(number))
}

/// Writes the entries from `first` on, in batches of ten, until `bytes` are written; says where it ended. Values have
/// 1,000 and 100 bytes by turns. Meanwhile others of the first `known` entries are read, and scanned from.
fn write(db: &Db, first: u64, bytes: u64, known: u64) -> u64 {
    let (keyspace, value) = (db.default_keyspace(), [b'v'; 1000]);
    let (mut written, mut number) = (0, first);
    while written < bytes {
        let mut batch = db.batch();
        for _ in 0..10 {
            let len = if number.is_multiple_of(2) { 1000 } else { 100 };
            batch.put(&keyspace, key(number), &value[..len]);
            written += 16 + len as u64;
            number += 1;
        }
        db.write(batch).unwrap();
        let read = mixed(number) % known.max(number);
        assert!(db.get(key(read)).unwrap().is_some());
        if known > 0 && number.is_multiple_of(100) {
            assert!(db.range(key(read)..).take(50).all(|entry| entry.is_ok()));
            assert!(db.range(..key(read)).rev().take(50).all(|entry| entry.is_ok()));
        }
    }
    number
}

/// Loads a database of this type, reads at random until the cache is full, scans all, then overwrites and reads.
fn use_up(db: &Db) {
    let entries = write(db, 0, LOAD, 0);
    for number in 0..10_000 {
        assert!(db.get(key(mixed(!number) % entries)).unwrap().is_some());
    }
    assert!(db.iter().step_by(7).count() as u64 >= entries / 7);
    write(db, 0, 2 * BUDGET, entries);
}

/// Uses a database of this type in this process.
fn measure(kind: MemtableType) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        memtable_type: Some(kind.into()),
        memory_budget: Some(BUDGET),
        cache_size: Some(BUDGET / 2),
        durability: Some(Durability::Buffered),
        ..Config::default()
    };
    let db = Db::builder(dir.path()).config(config).open().unwrap();
    forget_peak();
    use_up(&db);
    let peak = peak();
    let stats = db.stats();
    println!("{kind}: {} KiB of {} were resident", peak >> 10, MOST >> 10);
    assert!(peak <= MOST, "{kind}: {peak} bytes were resident, {MOST} may be");
    assert!(stats.memory_used <= BUDGET, "{kind}: {stats:?}");
    db.close().unwrap();
}

/// Each type in a process of its own: `malloc` keeps what an earlier database gave back.
#[test]
#[cfg(target_os = "linux")]
fn ten_budgets_of_data_are_used_within_one() {
    const OWN: &str = "MEMTIDE_MEMORY_OF";
    if let Ok(kind) = env::var(OWN) {
        return measure(kind.parse().unwrap());
    }
    // Two at a time.
    for kinds in MemtableType::ALL.chunks(2) {
        let start = |kind: &MemtableType| {
            let mut own = Command::new(env::current_exe().unwrap());
            own.arg("--nocapture").env(OWN, kind.to_string()).spawn().unwrap()
        };
        for mut own in kinds.iter().map(start).collect::<Vec<_>>() {
            assert!(own.wait().unwrap().success(), "{kinds:?}");
        }
    }
}
