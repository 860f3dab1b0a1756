//! Tests of races: some played through by hand, step by step, others run for real with fixed counts.

#![expect(clippy::disallowed_methods, reason = "a test's own threads are no background work")]

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;

use memtide_base::{Kind, hash};

use super::*;
use crate::arena::Beside;

const SEED: u64 = 0x7469_6465;

struct Rig {
    arena: Arena,
    list: SkipList,
}

impl Rig {
    fn new() -> Self {
        Self { arena: Arena::new(64 << 20), list: SkipList::new(SEED) }
    }

    fn slab(&self, bytes: u64) -> Slab<'_> {
        let plan = self.arena.plan(bytes, Beside::default()).expect("64 MiB hold it");
        assert!(self.arena.allocate(&plan));
        self.arena.slab(&plan)
    }

    fn put(&self, entry: &NewEntry<'_>) -> Inserted {
        self.list.insert(&self.arena, &mut self.slab(256), entry).0
    }

    /// What an insert knows when others come in between its search and its first link.
    fn search(&self, entry: &NewEntry<'_>) -> Vec<Option<Ref>> {
        let mut splice = vec![None; self.list.height_of(entry.hash) as usize];
        assert_eq!(self.list.locate(&self.arena, &entry.lookup(), &mut splice), None);
        splice
    }

    /// The rest of that insert.
    fn link(&self, entry: &NewEntry<'_>, splice: &Splice) -> Inserted {
        let node = self.slab(256).record8(self.list.link_words(entry.hash), entry);
        self.list.link(&self.arena, node, entry, splice).0
    }

    /// Keys from the first or the last one on.
    fn keys(&self, forward: bool) -> Vec<&[u8]> {
        let (mut pos, mut keys) = (Pos::default(), Vec::new());
        let (start, step) =
            if forward { (Seek::First, Walk::Next) } else { (Seek::Last, Walk::Prev) };
        self.list.seek(&self.arena, &mut pos, SeqNo::MAX, start);
        while let Some(at) = pos.at {
            keys.push(self.arena.key(at));
            self.list.walk(&self.arena, &mut pos, SeqNo::MAX, step);
        }
        keys
    }

    fn shown(&self, entry: &NewEntry<'_>, below: SeqNo) -> Option<SeqNo> {
        let node = self.list.node(&self.arena, &entry.lookup())?;
        newest_version(&self.arena, node, below).map(|at| self.arena.seq(at))
    }

    fn check(&self, records: u64) {
        assert_eq!(self.list.check(&self.arena), Ok(records));
    }
}

/// An entry whose node has so many levels.
fn tall<'a>(list: &SkipList, key: &'a [u8], seq: SeqNo, height: u32) -> NewEntry<'a> {
    let hash = (0..).find(|&hash| list.height_of(hash) == height).expect("coins fall all ways");
    NewEntry::new(key, hash, seq, Kind::Put, b"")
}

#[test]
fn a_splice_that_others_have_overtaken_leads_to_the_right_place() {
    // Before, between search and link, and after: which keys the tall "m" comes among.
    for (before, between) in [
        ("", "a"),
        ("", "az"),
        ("ax", "bcdnop"),
        ("ax", "lkjonp"),
        ("a", "bcd"),
        ("x", "nop"),
        ("ac", "b"),
        ("alnx", "km"),
    ] {
        for (height, others) in [(1, 1), (1, 3), (3, 1), (3, 3), (4, 5), (5, 4)] {
            let rig = Rig::new();
            let late = tall(&rig.list, b"mm", 100, height);
            let mut seq = 0;
            let mut add = |key| {
                seq += 1;
                let entry = tall(&rig.list, std::slice::from_ref(key), seq, others);
                assert_eq!(rig.put(&entry), Inserted::NewKey);
            };
            before.as_bytes().iter().for_each(&mut add);
            let splice = rig.search(&late);
            between.as_bytes().iter().for_each(&mut add);
            assert_eq!(rig.link(&late, &splice), Inserted::NewKey);

            let all = before.as_bytes().iter().chain(between.as_bytes()).map(std::slice::from_ref);
            let mut want: Vec<&[u8]> = all.chain([late.key]).collect();
            want.sort_unstable();
            rig.check(want.len() as u64);
            assert_eq!(rig.keys(true), want, "{before}, {between}");
            want.reverse();
            assert_eq!(rig.keys(false), want, "{before}, {between}");
        }
    }
}

#[test]
fn who_comes_second_with_a_key_brings_a_version() {
    for others in ["", "a", "z", "az"] {
        for (first, second) in [(7, 9), (9, 7), (7, 7)] {
            let rig = Rig::new();
            let late = tall(&rig.list, b"m", second, 3);
            let splice = rig.search(&late);
            for key in others.as_bytes() {
                rig.put(&tall(&rig.list, std::slice::from_ref(key), 1, 2));
            }
            let winner = tall(&rig.list, b"m", first, 3);
            assert_eq!(rig.put(&winner), Inserted::NewKey);
            let inserted = rig.link(&late, &splice);
            let is_new = first != second;
            let want = if is_new { Inserted::NewVersion } else { Inserted::Duplicate };
            assert_eq!(inserted, want, "{others}: {first}, {second}");
            rig.check(others.len() as u64 + 1 + u64::from(is_new));
            assert_eq!(rig.shown(&late, 10), Some(first.max(second)));
            assert_eq!(rig.shown(&late, 9), Some(7).filter(|_| first + second != 18));
        }
    }
}

#[test]
fn hints_may_be_late_and_are_put_right_by_who_needs_them() {
    let rig = Rig::new();
    let keys: Vec<[u8; 2]> = (100..300_u16).map(u16::to_be_bytes).collect();
    for (seq, key) in (0..).zip(&keys) {
        rig.put(&NewEntry::new(key, hash::key_hash(SEED, key), seq, Kind::Put, b""));
    }
    let nodes: Vec<_> = rig.list.level(&rig.arena, 0).filter_map(Link::node).collect();
    for (index, &node) in nodes.iter().enumerate() {
        let early = index.checked_sub(1 + index % 5).map(|early| nodes[early]);
        rig.arena.link(node, PREV).store(word_of(early), Ordering::Release);
    }
    let (middle, key) = (nodes[99], rig.arena.head(nodes[99]));
    rig.list.last[0].store(Link::new(middle, key).0, Ordering::Release);

    assert_eq!(rig.keys(false), keys.iter().rev().map(|key| &key[..]).collect::<Vec<_>>());
    for pair in nodes.windows(2) {
        let hint = rig.arena.link(pair[1], PREV).load(Ordering::Acquire);
        assert_eq!(hint, pair[0].word(), "the walk moves each hint it found late");
    }
    assert_eq!(Link::load(&rig.list.last[0]).node(), nodes.last().copied());
    // The next last node is searched for and found to be the last.
    rig.put(&NewEntry::new(b"zz", 0, 500, Kind::Put, b""));
    rig.check(201);
    assert_eq!(Link::load(&rig.list.last[0]).node(), rig.list.last(&rig.arena));
}

#[test]
fn a_tall_node_finds_its_place_while_the_height_is_late() {
    let rig = Rig::new();
    for key in [b"a", b"x", b"z"] {
        rig.put(&tall(&rig.list, key, 1, 4));
    }
    rig.list.height.store(1, Ordering::Relaxed);
    rig.put(&tall(&rig.list, b"m", 1, 5));
    rig.check(4);
    assert_eq!(rig.keys(true), [b"a", b"m", b"x", b"z"]);
}

#[test]
fn three_eighths_of_each_level_reach_the_next_whatever_the_hashes() {
    for seed in [0, 1, SEED, u64::MAX] {
        let list = SkipList::new(seed);
        for stride in [1, 3, 16, 1 << 32, 1 << 40, 0x9E37_79B9_7F4A_7C15] {
            let hashes = (1..=20_000_u64).map(|number| number.wrapping_mul(stride));
            let heights: Vec<_> = hashes.map(|hash| list.height_of(hash)).collect();
            let above = |level| heights.iter().filter(|&&height| height > level).count();
            for (level, share) in [(1, 7500), (2, 2812), (3, 1054)] {
                let found = above(level);
                let about = share * 8 / 10..share * 12 / 10;
                assert!(about.contains(&found), "seed {seed}, stride {stride}: {found} {share}");
            }
        }
    }
}

const WRITERS: u64 = 4;
const THREADS: usize = 4;
const EACH: u64 = 6_000;
const KEYS: u64 = 4_001;

/// Which key write `index` of a writer goes to: one order of arrival each, all over the same keys.
fn number(writer: u64, index: u64) -> u64 {
    match writer {
        0 => index % KEYS,
        1 => KEYS - 1 - index % KEYS,
        2 => index * 617 % KEYS,
        _ => index % KEYS,
    }
}

fn key_of(number: u64) -> [u8; 12] {
    let mut key = *b"race....0000";
    // Half of the neighbours differ in their heads' first half, half behind their heads.
    let (high, low) = (number >> 1, number & 1);
    key[..4].copy_from_slice(&u32::try_from(high).expect("small").to_be_bytes());
    key[11] += u8::try_from(low).expect("a bit");
    key
}

fn write(key: &[u8], seq: SeqNo) -> NewEntry<'_> {
    NewEntry::new(key, hash::key_hash(SEED, key), seq, Kind::Put, b"value")
}

/// Every published version is found and every published key is on every walk, while four threads insert the
/// same keys in four orders.
#[test]
fn readers_beside_many_writers_miss_nothing_published() {
    let rig = Rig::new();
    let published: [AtomicU64; THREADS] = Default::default();
    let new_keys = AtomicU64::new(0);
    let start = Barrier::new(THREADS + 2);
    thread::scope(|scope| {
        for (writer, published) in (0..WRITERS).zip(&published) {
            let (rig, new_keys, start) = (&rig, &new_keys, &start);
            let mut slab = rig.slab(EACH * 200);
            scope.spawn(move || {
                start.wait();
                for index in 0..EACH {
                    let (key, seq) = (key_of(number(writer, index)), index * WRITERS + writer);
                    match rig.list.insert(&rig.arena, &mut slab, &write(&key, seq)).0 {
                        Inserted::NewKey => drop(new_keys.fetch_add(1, Ordering::Relaxed)),
                        Inserted::NewVersion => {}
                        other => panic!("{other:?}"),
                    }
                    published.store(index + 1, Ordering::Release);
                    if index % 16 == writer {
                        thread::yield_now();
                    }
                }
            });
        }
        for forward in [true, false] {
            let (rig, published, start) = (&rig, &published, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0_u64.. {
                    let done = published.each_ref().map(|one| one.load(Ordering::Acquire));
                    for (writer, &done) in (0..WRITERS).zip(&done).filter(|(_, done)| **done > 0) {
                        for index in [0, done / 2, done - 1, round * 7919 % done] {
                            let (key, seq) =
                                (key_of(number(writer, index)), index * WRITERS + writer);
                            let shown = rig.shown(&write(&key, seq), seq + 1);
                            assert_eq!(shown, Some(seq), "write {index} of writer {writer}");
                        }
                    }
                    let mut keys = rig.keys(forward);
                    if !forward {
                        keys.reverse();
                    }
                    assert!(keys.is_sorted_by(|a, b| a < b), "a key is shown again or too late");
                    let keys: BTreeSet<_> = keys.into_iter().collect();
                    for (writer, &done) in (0..WRITERS).zip(&done) {
                        for index in 0..done {
                            let key = key_of(number(writer, index));
                            assert!(keys.contains(&key[..]), "write {index} of writer {writer}");
                        }
                    }
                    if done == [EACH; THREADS] {
                        break;
                    }
                }
            });
        }
    });
    assert_eq!(new_keys.load(Ordering::Relaxed), KEYS);
    rig.check(WRITERS * EACH);
    for writer in 0..WRITERS {
        for index in 0..EACH {
            let (key, seq) = (key_of(number(writer, index)), index * WRITERS + writer);
            assert_eq!(rig.shown(&write(&key, seq), seq + 1), Some(seq));
        }
    }
}
