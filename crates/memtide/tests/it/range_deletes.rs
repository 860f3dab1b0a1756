//! Range deletes: what they hide and what they do not, over trees of every shape, and what it costs to read past them.

use std::collections::BTreeMap;

use memtide::{Compaction, Config, Db, Iter, Snapshot};
use memtide_env::Simulation;

use crate::oracle::{self, Draw, Repeat};

const KEYS: u64 = 600;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(number: u64) -> Vec<u8> {
    format!("key{number:06}").into_bytes()
}

fn small(draw: &mut Draw) -> Config {
    let mut config = draw.small_config(None);
    config.enable_background_compaction = Some(false);
    config.compaction = Some(draw.pick(&Compaction::ALL[..3]));
    config.tree.table_size = Some(draw.pick(&[4 << 10, 64 << 10]));
    config
}

/// Steps one end or the other, as `ends` says, and compares with the model.
fn compare(mut iter: Iter, model: &Model, from: u64, to: u64, mut ends: impl FnMut() -> bool) {
    let mut want = model.range(key(from)..key(to.max(from)));
    loop {
        let forward = ends();
        let found = if forward { iter.next() } else { iter.next_back() };
        let found = found.map(|entry| entry.unwrap());
        let want = if forward { want.next() } else { want.next_back() };
        assert_eq!(
            found.as_ref().map(|(key, value)| (&key[..], &value[..])),
            want.map(|(key, value)| (&key[..], &value[..])),
            "{from}..{to}, forward {forward}"
        );
        if want.is_none() {
            return;
        }
    }
}

/// Many overlapping range deletes among puts and deletes, in memtables and tables of all levels, seen by snapshots
/// of all ages, from both ends of ranges that begin and end anywhere.
#[test]
fn overlapping_range_deletes_hide_what_is_older_and_nothing_else() {
    for seed in oracle::seeds(0..24, 8) {
        let test = "overlapping_range_deletes_hide_what_is_older_and_nothing_else";
        let _repeat = Repeat { test, seed };
        let (sim, mut draw) = (Simulation::new(seed), Draw::new(seed));
        let config = small(&mut draw);
        let db = Db::builder("/db").config(config).env(sim.env.clone()).open().unwrap();
        let (mut model, mut old): (Model, Vec<(Snapshot, Model)>) = Default::default();
        for step in 0..260 {
            match draw.below(20) {
                0..=6 => {
                    let (from, value) = (draw.below(KEYS), draw.value(50));
                    for number in from..from + 1 + draw.below(60) {
                        db.put(key(number), &value).unwrap();
                        model.insert(key(number), value.clone());
                    }
                }
                7..=8 => {
                    let from = draw.below(KEYS);
                    for number in from..from + 1 + draw.below(20) {
                        db.delete(key(number)).unwrap();
                        model.remove(&key(number));
                    }
                }
                9..=14 => {
                    let wide = draw.pick(&[5, 50, KEYS]);
                    let from = draw.below(KEYS);
                    let to = from + draw.below(wide);
                    db.delete_range(key(from)..key(to)).unwrap();
                    model.retain(|own, _| *own < key(from) || *own >= key(to));
                }
                15 => db.flush().unwrap(),
                16 if draw.one_in(3) => db.compact().unwrap(),
                17 if draw.one_in(2) => old.push((db.snapshot(), model.clone())),
                18 if !old.is_empty() && draw.one_in(3) => drop(old.remove(0)),
                _ => {}
            }
            if step % 4 > 0 {
                continue;
            }
            let (mut from, mut to) = (draw.below(KEYS), KEYS + 100);
            if draw.one_in(2) {
                (from, to) = (draw.below(KEYS), draw.below(KEYS));
            }
            let keyspace = db.default_keyspace();
            let turns = draw.below(64);
            for ends in [0, u64::MAX, 0x5555_5555_5555_5555, 0xF0F0_1234_FFFF_0000 ^ turns] {
                let mut at = 0;
                let mut turn = || {
                    at += 1;
                    ends >> (at % 64) & 1 == 1
                };
                compare(db.range(key(from)..key(to)), &model, from, to, &mut turn);
                if !old.is_empty() {
                    let (snapshot, then) = &old[usize::try_from(turns).unwrap() % old.len()];
                    compare(
                        snapshot.range(&keyspace, key(from)..key(to)),
                        then,
                        from,
                        to,
                        &mut turn,
                    );
                }
            }
        }
    }
}

/// Blocks asked for while `scan` meets `keys` keys.
fn blocks(db: &Db, keys: usize, scan: impl Fn() -> usize) -> u64 {
    let before = db.stats();
    assert_eq!(scan(), keys);
    let after = db.stats();
    after.cache_hits + after.cache_misses - before.cache_hits - before.cache_misses
}

/// A million keys are deleted for the price of a few seeks: what counts is blocks, not keys.
#[test]
fn a_scan_reads_a_few_blocks_of_what_a_range_delete_hides() {
    const COUNT: u64 = 20_000;
    let sim = Simulation::new(3);
    let mut config = Config { enable_background_compaction: Some(false), ..Config::default() };
    config.tree.table_size = Some(64 << 10);
    config.tree.level1_size = Some(64 << 10);
    let db = Db::builder("/db").config(config).env(sim.env.clone()).open().unwrap();
    for number in 0..COUNT {
        db.put(key(number), [7; 60]).unwrap();
    }
    db.compact().unwrap();
    let all = blocks(&db, usize::try_from(COUNT).unwrap(), || db.iter().count());
    assert!(all > 200, "{all} blocks");
    let _old = db.snapshot();
    db.delete_range(key(100)..key(COUNT - 100)).unwrap();
    // A few keys are written again, on another level of the tree.
    db.flush().unwrap();
    for number in [5000, 12_000] {
        db.put(key(number), "again").unwrap();
    }
    for flushed in [false, true] {
        for (name, keys, few) in [("whole", 202, 40), ("inside", 2, 12), ("no key", 0, 12)] {
            let scan = |backward: bool| {
                let range = match name {
                    "whole" => db.iter(),
                    "inside" => db.range(key(3000)..key(15_000)),
                    _ => db.range(key(6000)..key(11_000)),
                };
                if backward { range.rev().count() } else { range.count() }
            };
            for backward in [false, true] {
                let most = blocks(&db, keys, || scan(backward));
                assert!(most <= few, "{name}, flushed {flushed}, {backward}: {most} blocks");
            }
        }
        db.flush().unwrap();
    }
}
