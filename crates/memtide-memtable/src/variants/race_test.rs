//! Test support: readers of one index beside its writer.

#![expect(clippy::disallowed_methods, reason = "a test's own threads are no background work")]

use std::sync::Barrier;
use std::thread;

use memtide_base::SeqNo;
use memtide_base::hash;
use memtide_base::sync::atomic::{AtomicU64, Ordering};

use super::model_test::Rig;
use crate::contract::{MemIndex, Pos, Seek, Walk};

const READERS: u64 = 2;
/// Distinct keys; a prime, so that each has its own residue.
const KEYS: u64 = 211;
const STRIDE: u64 = 89;
/// One round in so many walks everything.
const WALK_EVERY: u64 = 64;

fn key_of(first: SeqNo) -> String {
    format!("racing/{:05}", first * STRIDE % KEYS)
}

/// The versions below `below` of the key that is written as number `first` before all others, newest first.
fn versions(first: SeqNo, below: SeqNo) -> impl Iterator<Item = SeqNo> {
    let newest = below.checked_sub(1 + first).map(|last| first + last / KEYS * KEYS);
    std::iter::successors(newest, move |seq| seq.checked_sub(KEYS))
}

/// Two readers beside a writer of `writes` versions: every get and every walk shows exactly what is below the
/// bound that was published before it. Returns when the writer is done and the readers have seen the end.
pub(super) fn readers_see_what_is_published<I: MemIndex>(rig: &Rig<I>, writes: u64) {
    let published = AtomicU64::new(0);
    let start = Barrier::new(3);
    let mut firsts: Vec<SeqNo> = (0..KEYS).collect();
    firsts.sort_unstable_by_key(|&first| key_of(first));
    thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            for seq in 0..writes {
                rig.put(&key_of(seq % KEYS), seq);
                published.store(seq + 1, Ordering::Release);
            }
        });
        for reader in 0..READERS {
            let (start, published, firsts) = (&start, &published, &firsts);
            scope.spawn(move || {
                start.wait();
                for round in 0.. {
                    let below = published.load(Ordering::Acquire);
                    let draw = hash::key_hash(reader, &u64::to_le_bytes(round));
                    let first = draw % KEYS;
                    // Now and then an older bound, which is published all the more.
                    let bound = if draw >> 60 == 0 { below / 2 } else { below };
                    let shown = rig.seq_of(&key_of(first), bound);
                    assert_eq!(shown, versions(first, bound).next(), "key {first} below {bound}");
                    if round % WALK_EVERY == 0 {
                        walk_is_exact(rig, bound, firsts, round / WALK_EVERY % 4);
                    }
                    if below == writes {
                        break;
                    }
                }
            });
        }
    });
    walk_is_exact(rig, writes, &firsts, 0);
    assert_eq!(rig.index.check(&rig.arena, writes), Ok(()));
}

/// Walks forwards, backwards, or (one time in four) over all versions.
fn walk_is_exact<I: MemIndex>(rig: &Rig<I>, below: SeqNo, firsts: &[SeqNo], how: u64) {
    let mut want: Vec<SeqNo> = Vec::new();
    for &first in firsts {
        let all = if how == 0 { usize::MAX } else { 1 };
        want.extend(versions(first, below).take(all));
    }
    let (from, step) = if how == 1 { (Seek::Last, Walk::Prev) } else { (Seek::First, Walk::Next) };
    let (index, arena) = (&rig.index, &rig.arena);
    let (mut shown, mut pos) = (Vec::new(), Pos::default());
    index.seek(arena, &mut pos, below, from);
    while let Some(at) = pos.at {
        shown.push(arena.seq(at));
        if how != 0 || !index.walk(arena, &mut pos, below, Walk::Older) {
            index.walk(arena, &mut pos, below, step);
        }
    }
    if how == 1 {
        shown.reverse();
    }
    assert_eq!(shown, want, "walk {how} below {below}");
}
