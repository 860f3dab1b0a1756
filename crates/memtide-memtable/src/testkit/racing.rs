//! Laws of readers and writers at the same time. Every loop has a fixed count; nothing sleeps.

#![expect(clippy::disallowed_methods, reason = "a test's own threads are no background work")]

use std::sync::Barrier;
use std::thread;

use memtide_base::sync::Arc;
use memtide_base::sync::atomic::{AtomicU64, Ordering};
use memtide_base::{Kind, SeqNo, Target};

use super::random::Dice;
use super::subject::{Step, Subject, TABLE_BYTES_MAX, Version, hash_of, move_cursor, walk};
use crate::{Ahead, BatchShape, Inserted, Memtable, MemtableKind, WARM_KEYS};

const WRITES: u64 = 10_000;
const READERS: usize = 2;
/// Distinct keys of the writer; a prime, so that every key has its own residue.
const KEYS: u64 = 1_499;
const STRIDE: u64 = 617;
const GETS: u64 = 4_000;
/// One round in so many walks the whole table, too.
const WALK_EVERY: u64 = 200;

/// Write number `seq` of the racing writer.
fn nth_key(seq: SeqNo) -> Vec<u8> {
    key_text(seq * STRIDE % KEYS)
}

fn key_text(number: u64) -> Vec<u8> {
    format!("racing/{number:05}").into_bytes()
}

fn put(table: &Memtable, key: &[u8], seq: SeqNo) {
    let (hash, value) = (hash_of(key), seq.to_le_bytes());
    let mut shape = BatchShape::default();
    table.measure(&mut shape, Kind::Put, hash, key, &value);
    let mut reservation = table.reserve(&shape).expect("there is room");
    let inserted = reservation.insert(Kind::Put, hash, key, &value, seq);
    assert_ne!(inserted, Inserted::Duplicate);
}

/// The newest write below `below` of the key that was written first as number `first`.
fn newest_of(first: SeqNo, below: SeqNo) -> Option<SeqNo> {
    let last = below.checked_sub(1)?;
    (first <= last).then(|| last - (last - first) % KEYS)
}

/// What is published is there: every get and every walk shows exactly the writes below its bound.
pub fn readers_beside_a_writer_see_all_that_is_published(kind: &MemtableKind) {
    let subject = Subject::with_limit(kind, TABLE_BYTES_MAX);
    let table = subject.table();
    let published = AtomicU64::new(0);
    let start = Barrier::new(READERS + 1);
    let mut firsts: Vec<_> = (0..KEYS).map(|seq| (nth_key(seq), seq)).collect();
    firsts.sort_unstable();
    let firsts: Vec<SeqNo> = firsts.into_iter().map(|(_, seq)| seq).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            for seq in 0..WRITES {
                put(table, &nth_key(seq), seq);
                published.store(seq + 1, Ordering::Release);
            }
        });
        for reader in 0..READERS {
            let (start, published, firsts) = (&start, &published, &firsts);
            scope.spawn(move || {
                let mut dice = Dice::new(reader as u64);
                start.wait();
                for round in 0..GETS {
                    let below = published.load(Ordering::Acquire);
                    let first = dice.below(KEYS);
                    let key = nth_key(first);
                    let shown = table.get(&key, hash_of(&key), below);
                    let shown = shown.map(|entry| (entry.seq, entry.value.to_vec()));
                    let want = newest_of(first, below);
                    let want = want.map(|seq| (seq, seq.to_le_bytes().to_vec()));
                    assert_eq!(shown, want, "key {first} below {below}");
                    if round % WALK_EVERY == 0 {
                        walk_is_exact(table, below, firsts);
                    }
                }
            });
        }
    });
    walk_is_exact(table, WRITES, &firsts);
    assert_eq!(table.check(), Ok(()));
}

fn walk_is_exact(table: &Arc<Memtable>, below: SeqNo, firsts: &[SeqNo]) {
    let seqs = |versions: Vec<Version>| -> Vec<SeqNo> {
        versions.into_iter().map(|(_, seq, ..)| seq).collect()
    };
    let mut want: Vec<_> = firsts.iter().filter_map(|&seq| newest_of(seq, below)).collect();
    let mut cursor = table.cursor(below);
    assert_eq!(seqs(walk(&mut cursor, Target::First)), want, "forwards below {below}");
    want.reverse();
    assert_eq!(seqs(walk(&mut cursor, Target::Last)), want, "backwards below {below}");
}

/// A cursor opened before 10,000 inserts shows exactly its snapshot while another thread makes them.
pub fn a_cursor_beside_a_writer_shows_its_snapshot(kind: &MemtableKind) {
    let subject = Subject::with_limit(kind, TABLE_BYTES_MAX);
    let table = subject.table();
    for seq in 0..KEYS {
        // Every third key is there before, the others come in between.
        if seq % 3 == 0 {
            put(table, &key_text(seq), seq);
        }
    }
    let want = walk(&mut table.cursor(KEYS), Target::First);
    assert_eq!(want.len() as u64, KEYS.div_ceil(3));
    let start = Barrier::new(READERS + 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            for seq in KEYS..KEYS + WRITES {
                put(table, &nth_key(seq), seq);
            }
        });
        for reader in 0..READERS {
            let (start, want) = (&start, &want);
            scope.spawn(move || {
                let mut cursor = table.cursor(KEYS);
                let (from, step) = match reader {
                    0 => (Target::First, Step::Next),
                    _ => (Target::Last, Step::Prev),
                };
                start.wait();
                for round in 0..12 {
                    let mut shown = Vec::new();
                    let mut next = Step::Seek(from);
                    while let Some(version) = move_cursor(&mut cursor, next) {
                        shown.push(version);
                        next = step;
                        if shown.len() % 16 == 0 {
                            thread::yield_now();
                        }
                    }
                    if reader != 0 {
                        shown.reverse();
                    }
                    assert_eq!(&shown, want, "round {round} of reader {reader}");
                }
            });
        }
    });
    assert_eq!(walk(&mut table.cursor(KEYS), Target::First), want, "after all inserts");
    assert_eq!(table.check(), Ok(()));
}

/// Walking ahead towards many keys, those about to be inserted or read, changes no answer beside a writer.
pub fn warming_beside_a_writer_changes_no_answer(kind: &MemtableKind) {
    let subject = Subject::with_limit(kind, TABLE_BYTES_MAX);
    let table = subject.table();
    let published = AtomicU64::new(0);
    let start = Barrier::new(READERS + 1);
    let warm = |ahead, keys: &[Vec<u8>]| {
        table.warm_at_any_size(ahead, keys.iter().map(|key| (&key[..], hash_of(key))));
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            for first in (0..WRITES).step_by(WARM_KEYS) {
                let keys: Vec<_> = (first..first + WARM_KEYS as u64).map(nth_key).collect();
                let before = table.usage();
                warm(Ahead::Insert, &keys);
                let after = table.usage();
                assert_eq!((before.used, before.reserved), (after.used, after.reserved));
                for (key, seq) in keys.iter().zip(first..) {
                    put(table, key, seq);
                    published.store(seq + 1, Ordering::Release);
                }
            }
        });
        for reader in 0..READERS {
            let (start, published) = (&start, &published);
            scope.spawn(move || {
                let mut dice = Dice::new(reader as u64);
                start.wait();
                for _ in 0..GETS / WARM_KEYS as u64 {
                    let below = published.load(Ordering::Acquire);
                    // Some of them are not there yet, one never is.
                    let firsts: Vec<_> = (1..WARM_KEYS).map(|_| dice.below(KEYS)).collect();
                    let mut keys: Vec<_> = firsts.iter().map(|&first| nth_key(first)).collect();
                    keys.push(key_text(KEYS));
                    warm(Ahead::Get, &keys);
                    for (key, &first) in keys.iter().zip(&firsts) {
                        let shown = table.get(key, hash_of(key), below).map(|entry| entry.seq);
                        assert_eq!(shown, newest_of(first, below), "key {first} below {below}");
                    }
                    assert_eq!(
                        table.get(&keys[firsts.len()], hash_of(&keys[firsts.len()]), below),
                        None
                    );
                }
            });
        }
    });
    assert_eq!(table.check(), Ok(()));
}

/// A published range tombstone covers from then on.
pub fn range_tombstones_beside_a_writer_are_seen_once_published(kind: &MemtableKind) {
    const TOMBSTONES: u64 = 200;
    let subject = Subject::new(kind);
    let table = subject.table();
    let published = AtomicU64::new(0);
    let start = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            for seq in 0..TOMBSTONES {
                let (from, to) = (key_text(seq), key_text(seq + 1));
                let mut shape = BatchShape::default();
                table.measure(&mut shape, Kind::RangeDelete, 0, &from, &to);
                table.reserve(&shape).expect("there is room").delete_range(&from, &to, seq);
                published.store(seq + 1, Ordering::Release);
            }
        });
        start.wait();
        let mut dice = Dice::new(3);
        for _ in 0..GETS / 4 {
            let below = published.load(Ordering::Acquire);
            let number = dice.below(TOMBSTONES);
            let want = (number < below).then_some(number);
            assert_eq!(table.covering_tombstone(&key_text(number), below), want, "below {below}");
        }
    });
    assert_eq!(table.range_tombstones().fragments().len() as u64, TOMBSTONES);
}

/// Reservations wait for each other: what several threads write is all there.
pub fn writers_take_turns(kind: &MemtableKind) {
    const WRITERS: u64 = 4;
    const EACH: u64 = 400;
    let mut subject = Subject::new(kind);
    let table = subject.table();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for index in 0..EACH {
                    let seq = index * WRITERS + writer;
                    put(table, &nth_key(seq % 500), seq);
                }
            });
        }
    });
    for seq in 0..WRITERS * EACH {
        subject.learn(&nth_key(seq % 500), &seq.to_le_bytes(), seq);
    }
    subject.verify();
}
