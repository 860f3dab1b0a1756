//! Readers beside the writer of a trie: gets, seeks and walks check every answer against what was published.
//!
//! Write number `i` of a script has sequence number `i`; a read below `S` must see the first `S` writes and
//! nothing else. Every loop has a fixed count.

#![expect(clippy::disallowed_methods, reason = "a test's own threads are no background work")]

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;

use memtide_base::SeqNo;
use memtide_base::hash::key_hash;
use memtide_base::sync::atomic::{AtomicU64, Ordering};

use super::tests::Bare;
use crate::contract::{LookupKey, MemIndex, Pos, Seek, Walk};

const READERS: u64 = 2;
/// Tries that one script is written into.
const TRIES: u64 = 6;
/// Rounds of one reader, unless the writer is done before.
const ROUNDS: u64 = 100_000;
/// Gets in a round, most of all of what a writer is about to split or replace.
const GETS: u64 = 16;
/// The writes that half of the gets ask for.
const RECENT: u64 = 4;
/// One round in so many begins with a walk over everything.
const WALK_EVERY: u64 = 400;
/// Steps of a walk between two pauses in which the writer goes on.
const PAUSE_EVERY: usize = 500;

/// Keys in the order they are written, and what is to be seen of them.
struct Script {
    keys: Vec<Vec<u8>>,
    /// The next write of the same key.
    next: Vec<SeqNo>,
    /// How many keys the first so many writes have.
    distinct: Vec<usize>,
    /// Each key with its first write.
    sorted: Vec<(Vec<u8>, SeqNo)>,
}

impl Script {
    fn new(keys: Vec<Vec<u8>>) -> Self {
        let (mut last, mut firsts) = (BTreeMap::new(), BTreeMap::new());
        let (mut next, mut distinct) = (vec![SeqNo::MAX; keys.len()], vec![0]);
        for (seq, key) in (0..).zip(&keys) {
            if let Some(before) = last.insert(key, seq) {
                next[usize::try_from(before).expect("small")] = seq;
            }
            firsts.entry(key.clone()).or_insert(seq);
            distinct.push(last.len());
        }
        Self { next, distinct, sorted: firsts.into_iter().collect(), keys }
    }

    fn len(&self) -> u64 {
        self.keys.len() as u64
    }

    fn key(&self, seq: SeqNo) -> &[u8] {
        &self.keys[usize::try_from(seq).expect("small")]
    }

    /// Whether write `seq` is what a read of its key below `below` shows.
    fn shows(&self, seq: SeqNo, below: SeqNo) -> bool {
        seq < below && self.next[usize::try_from(seq).expect("small")] >= below
    }

    /// Runs the writer beside its readers, again and again.
    fn race(&self) {
        for turn in 0..TRIES {
            self.race_once(turn);
        }
    }

    fn race_once(&self, turn: u64) {
        let (bare, published) = (Bare::new(), AtomicU64::new(0));
        let start = Barrier::new(usize::try_from(READERS).expect("few") + 1);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                for (seq, key) in (0..).zip(&self.keys) {
                    bare.insert(&[(key.clone(), seq)]);
                    published.store(seq + 1, Ordering::Release);
                }
            });
            for reader in 0..READERS {
                let (bare, published, start) = (&bare, &published, &start);
                scope.spawn(move || {
                    start.wait();
                    for round in 0..ROUNDS {
                        let dice = key_hash(turn * READERS + reader, &round.to_le_bytes());
                        let below = published.load(Ordering::Acquire);
                        if (round + 1) % WALK_EVERY == 0 {
                            let way = if dice & 1 == 0 { Walk::Next } else { Walk::Prev };
                            self.walk(bare, below, way);
                        }
                        self.seek(bare, below, dice);
                        for get in 0..GETS {
                            let below = published.load(Ordering::Acquire);
                            self.get(
                                bare,
                                below,
                                dice.rotate_left(u32::try_from(get).expect("16")),
                            );
                        }
                        if below == self.len() {
                            break;
                        }
                    }
                });
            }
        });
        bare.check();
        for way in [Walk::Next, Walk::Prev] {
            self.walk(&bare, self.len(), way);
        }
    }

    /// Gets one of all keys that were published, or of the latest.
    fn get(&self, bare: &Bare, below: SeqNo, dice: u64) {
        let among = if dice & 1 == 0 { below.min(RECENT) } else { below };
        let Some(back) = (dice / 2).checked_rem(among) else { return };
        let seq = below - 1 - back;
        let key = LookupKey::new(self.key(seq), 0);
        let got = bare.trie.get(&bare.arena, &key, below).map(|at| bare.arena.entry(at));
        let got = got.map(|entry| (entry.key, self.shows(entry.seq, below)));
        assert_eq!(got, Some((key.key, true)), "write {seq} below {below}");
    }

    /// Seeks any key of the script, written or not.
    fn seek(&self, bare: &Bare, below: SeqNo, dice: u64) {
        let probe = self.key(dice / 2 % self.len());
        let place = self.sorted.partition_point(|(key, _)| key.as_slice() < probe);
        let is_old = |entry: &&(Vec<u8>, SeqNo)| entry.1 < below;
        let (to, want) = if dice & 1 == 0 {
            (Seek::Ge(LookupKey::new(probe, 0)), self.sorted[place..].iter().find(is_old))
        } else {
            (Seek::Le(LookupKey::new(probe, 0)), self.sorted[..=place].iter().rfind(is_old))
        };
        let met = bare.seek(below, to).at.map(|at| bare.arena.key(at));
        assert_eq!(met, want.map(|(key, _)| key.as_slice()), "{to:?} below {below}");
    }

    /// A walk over everything, with pauses in which the writer goes on.
    fn walk(&self, bare: &Bare, below: SeqNo, way: Walk) {
        let from = if way == Walk::Next { Seek::First } else { Seek::Last };
        let mut pos: Pos = bare.seek(below, from);
        let (mut before, mut met) = (None, 0);
        while let Some(at) = pos.at {
            let entry = bare.arena.entry(at);
            assert!(self.shows(entry.seq, below), "write {} below {below}", entry.seq);
            assert_eq!(entry.key, self.key(entry.seq));
            let is_beyond = |before: &[u8]| (entry.key > before) == (way == Walk::Next);
            assert!(before.is_none_or(|key| is_beyond(key) && key != entry.key), "{way:?}");
            (before, met) = (Some(entry.key), met + 1);
            if met % PAUSE_EVERY == 0 {
                thread::yield_now();
            }
            bare.trie.walk(&bare.arena, &mut pos, below, way);
        }
        let want = self.distinct[usize::try_from(below).expect("small")];
        assert_eq!(met, want, "{way:?} below {below}");
    }
}

#[test]
fn readers_stand_in_nodes_that_grow_through_all_kinds() {
    let keys = (0..32_u8).flat_map(|group| {
        // 167 is odd, so every byte comes once, in no order; 0x00 and 0xFF are among them.
        let bytes = (0..=255_u8).map(move |i| vec![group, i.wrapping_mul(167)]);
        bytes.chain([vec![group]]).cycle().skip(usize::from(group) * 8).take(257)
    });
    Script::new(keys.collect()).race();
}

#[test]
fn readers_meet_splits_above_the_keys_they_read() {
    let keys = (0..120_u8).flat_map(|group| {
        let path = [&[group][..], &[0xAB; 40]].concat();
        (0..=path.len()).rev().flat_map(move |len| {
            let ends: [&[u8]; 3] = [&[0x00], &[0xFF], &[]];
            let path = path.clone();
            ends.map(|end| [&path[..len], end].concat())
        })
    });
    Script::new(keys.collect()).race();
}

#[test]
fn readers_meet_new_versions_of_keys_that_are_prefixes_of_each_other() {
    let key = |seed: u64| {
        let dice = key_hash(seed, b"prefixes").to_le_bytes();
        let byte = |dice: &u8| [0x00, 0xFF, b'a', b'b'][usize::from(dice % 4)];
        dice[1..].iter().take(usize::from(dice[0] % 8)).map(byte).collect()
    };
    Script::new((0..12_000).map(key).collect()).race();
}
