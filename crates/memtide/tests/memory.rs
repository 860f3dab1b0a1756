//! What the kernel counts as resident while a database is loaded far beyond its memory budget.
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

/// Loads in batches of ten entries of 16 and 20 to 1,500 bytes; every tenth key is read back at once.
fn load(db: &Db) {
    let (keyspace, value) = (db.default_keyspace(), vec![b'v'; 1500]);
    let (mut loaded, mut number) = (0, 0_u64);
    while loaded < LOAD {
        let mut batch = db.batch();
        let first = number;
        for _ in 0..10 {
            let key = format!("{:016x}", mixed(number));
            let len = 20 + usize::try_from(mixed(!number) % 1480).unwrap();
            batch.put(&keyspace, &key, &value[..len]);
            loaded += 16 + len as u64;
            number += 1;
        }
        db.write(batch).unwrap();
        assert!(db.get(format!("{:016x}", mixed(first))).unwrap().is_some());
    }
}

/// Loads a database of this type in this process.
fn measure(kind: MemtableType) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        memtable_type: Some(kind.into()),
        memory_budget: Some(BUDGET),
        durability: Some(Durability::Buffered),
        ..Config::default()
    };
    let db = Db::builder(dir.path()).config(config).open().unwrap();
    forget_peak();
    load(&db);
    let (peak, most) = (peak(), BUDGET + BUDGET / 20 + BESIDE);
    println!("{kind}: {} KiB of {} were resident", peak >> 10, most >> 10);
    assert!(peak <= most, "{kind}: {peak} bytes were resident, {most} may be");
    db.close().unwrap();
}

/// Each type in a process of its own: `malloc` keeps what an earlier database gave back.
#[test]
#[cfg(target_os = "linux")]
fn a_load_of_ten_budgets_stays_within_one() {
    const OWN: &str = "MEMTIDE_MEMORY_OF";
    if let Ok(kind) = env::var(OWN) {
        return measure(kind.parse().unwrap());
    }
    for kind in MemtableType::ALL {
        let mut own = Command::new(env::current_exe().unwrap());
        own.arg("--nocapture").env(OWN, kind.to_string());
        assert!(own.status().unwrap().success(), "{kind}");
    }
}
