//! What range deletes cost the scans that meet them: `cargo run --release -p memtide --example range_deletes`.
//!
//! Prints nanoseconds: per key of a scan over a million keys, without range deletes, beside a thousand narrow ones in
//! memory, and beside the same on disk; then for whole scans over the million once one range delete has hidden it.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program")]

use std::time::Instant;

use memtide::{Config, Db, Result};

const KEYS: u64 = 1_000_000;
const NARROW: u64 = 1000;

fn main() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("memtide-range-deletes-{}", std::process::id()));
    // Neither merges nor reads from the disk are to be measured.
    let config = Config {
        enable_background_compaction: Some(false),
        memory_budget: Some(1 << 30),
        ..Config::default()
    };
    let db = Db::builder(&dir).config(config).open()?;
    for key in 0..KEYS {
        db.put((2 * key).to_be_bytes(), [7; 100])?;
    }
    db.compact()?;
    each_key(&db, "no range delete")?;

    // Each between two keys, so that none is hidden.
    for at in 0..NARROW {
        let from = 2 * (at * (KEYS / NARROW)) + 1;
        db.delete_range(from.to_be_bytes()..(from + 1).to_be_bytes())?;
    }
    each_key(&db, "beside 1,000 in memory")?;
    db.flush()?;
    each_key(&db, "beside 1,000 on disk")?;

    let before = db.snapshot();
    db.delete_range(10_u64.to_be_bytes()..(2 * KEYS - 10).to_be_bytes())?;
    across(&db, "hidden by one in memory")?;
    db.flush()?;
    across(&db, "hidden by one on disk")?;
    drop(before);
    db.close()?;
    std::fs::remove_dir_all(&dir).expect("it was made here");
    Ok(())
}

/// The best of a few scans, forwards and back.
fn best(db: &Db, keys: u64) -> Result<[u64; 2]> {
    let mut best = [u64::MAX; 2];
    for _ in 0..5 {
        for (backward, best) in best.iter_mut().enumerate() {
            let (mut iter, mut met, start) = (db.iter(), 0, Instant::now());
            loop {
                let entry = if backward == 0 { iter.next_lent()? } else { iter.next_back_lent()? };
                let Some((key, value)) = entry else { break };
                std::hint::black_box((key, value));
                met += 1;
            }
            assert_eq!(met, keys, "every live key is met");
            *best = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX).min(*best);
        }
    }
    Ok(best)
}

fn each_key(db: &Db, name: &str) -> Result<()> {
    let [forward, backward] = best(db, KEYS)?.map(|nanos| nanos as f64 / KEYS as f64);
    println!("{name:24} {forward:8.1} ns a key forwards, {backward:8.1} back");
    Ok(())
}

fn across(db: &Db, name: &str) -> Result<()> {
    let [forward, backward] = best(db, 10)?;
    println!("{name:24} {forward:8} ns a scan forwards, {backward:8} back");
    Ok(())
}
