//! Sorting records by key, most of them without comparing keys.
//!
//! ```text
//! keys     user0017  user0204  user0090     what all begin with is skipped, eight bytes are taken
//! heads    0x30..    0x32..    0x30..       of these the highest 32 bits in which any two heads differ
//! lanes    bits | ref, a 64-bit word for each record
//! ```
//!
//! The lanes are sorted by their bits, byte by byte from the lowest on (LSD radix sort, Knuth vol. 3, 5.2.5);
//! digits vary in four bits each, so eight of them count in full. What is still equal then is sorted the same way by
//! what follows the bytes that it shares; a few, and versions of a key, by comparison.
//!
//! Two buffers of the caller are all the memory it takes, so it can run where nothing may be allocated.

use std::cmp::Ordering as Order;

use memtide_base::{Entry, key};

use crate::arena::{Arena, Ref};

/// Bits of a lane beside the ref.
const BITS: u32 = 32;
/// Below this, comparing words beats counting bytes.
const RADIX_MIN: usize = 128;
/// Below this, comparing keys beats taking heads of them.
const HEADS_MIN: usize = 12;
/// How often heads are taken before keys are compared: keys may be made to be alike for long.
const ROUNDS: u32 = 8;
const DIGITS: usize = 4;

/// Keys ascending, the versions of one newest first.
pub(crate) fn order(a: &Entry<'_>, b: &Entry<'_>) -> Order {
    a.key.cmp(b.key).then(b.seq.cmp(&a.seq))
}

/// A record to be sorted.
pub(crate) fn lane(at: Ref) -> u64 {
    u64::from(at.word())
}

/// The record of a lane.
#[inline]
pub(crate) fn record(lane: u64) -> Ref {
    let word = u32::try_from(lane & u64::from(u32::MAX)).expect("32 bits");
    Ref::from_word(word).expect("a lane is made of a ref")
}

/// Sorts lanes by key, then newest first; `spare` is as long and holds nothing afterwards.
pub(crate) fn sort(arena: &Arena, lanes: &mut [u64], spare: &mut [u64]) {
    sort_in_rounds(arena, lanes, spare, 0, ROUNDS);
}

/// Sorts lanes of keys that are known to share so many bytes.
fn sort_in_rounds(
    arena: &Arena,
    lanes: &mut [u64],
    mut spare: &mut [u64],
    known: usize,
    rounds: u32,
) {
    let heads = lanes.len() >= HEADS_MIN && rounds > 0;
    let shared = if heads { sort_by_heads(arena, lanes, spare, known) } else { None };
    let Some(shared) = shared else {
        return lanes.sort_unstable_by(|a, b| by_entry(arena, *a, *b));
    };
    for equal in lanes.chunk_by_mut(|a, b| a >> BITS == b >> BITS) {
        let own;
        (own, spare) = spare.split_at_mut(equal.len());
        if equal.len() > 1 {
            equal.iter_mut().for_each(|sorted| *sorted = lane(record(*sorted)));
            sort_in_rounds(arena, equal, own, shared, rounds - 1);
        }
    }
}

/// Sorts lanes by the first bits in which the heads behind what all keys share differ, and tells how many bytes
/// they share; `None`, and nothing changed, if the heads do not differ.
fn sort_by_heads(
    arena: &Arena,
    lanes: &mut [u64],
    spare: &mut [u64],
    known: usize,
) -> Option<usize> {
    let first = arena.key(record(lanes[0]));
    let mut prefix = first.len();
    for &lane in &lanes[1..] {
        let other = arena.key(record(lane));
        prefix = known + key::shared_prefix_len(&first[known..prefix], &other[known..]);
        if prefix == known {
            break;
        }
    }
    let (first, mut differ) = (key::head(&first[prefix..]), 0);
    for (head, &lane) in spare.iter_mut().zip(&*lanes) {
        *head = key::head(&arena.key(record(lane))[prefix..]);
        differ |= *head ^ first;
    }
    if differ == 0 {
        return None;
    }
    let pieces = Pieces::highest(differ);
    for (lane, &head) in lanes.iter_mut().zip(&*spare) {
        *lane |= pieces.gather(head) << BITS;
    }
    if lanes.len() < RADIX_MIN {
        lanes.sort_unstable();
    } else {
        sort_by_digits(lanes, spare);
    }
    Some(prefix)
}

/// Not inlined: a sort has a dozen places for it.
#[inline(never)]
fn by_entry(arena: &Arena, a: u64, b: u64) -> Order {
    order(&arena.entry(record(a)), &arena.entry(record(b)))
}

/// Sorts by the upper half of each lane. Stable.
fn sort_by_digits(lanes: &mut [u64], spare: &mut [u64]) {
    let digit = |lane: u64, place: usize| usize::from((lane >> BITS).to_le_bytes()[place]);
    let mut counts = [[0_u32; 256]; DIGITS];
    for &lane in &*lanes {
        for (place, counts) in counts.iter_mut().enumerate() {
            counts[digit(lane, place)] += 1;
        }
    }
    let (mut from, mut to) = (&mut *lanes, &mut *spare);
    let mut is_in_spare = false;
    for (place, counts) in counts.iter_mut().enumerate() {
        if counts[digit(from[0], place)] as usize == from.len() {
            continue;
        }
        let mut start = 0;
        for count in counts.iter_mut() {
            start += std::mem::replace(count, start);
        }
        for &lane in &*from {
            let next = &mut counts[digit(lane, place)];
            to[*next as usize] = lane;
            *next += 1;
        }
        (from, to) = (to, from);
        is_in_spare = !is_in_spare;
    }
    if is_in_spare {
        lanes.copy_from_slice(spare);
    }
}

/// The runs of neighbouring bits that a mask selects, each with its place in a word without gaps.
#[derive(Debug)]
struct Pieces {
    /// Shift to the right, then mask.
    pieces: [(u32, u64); BITS as usize],
    len: usize,
}

impl Pieces {
    /// The highest 32 set bits of `mask`.
    fn highest(mut mask: u64) -> Self {
        let mut found = Self { pieces: [(0, 0); BITS as usize], len: 0 };
        let mut left = BITS;
        while mask != 0 && left > 0 {
            let top = u64::BITS - mask.leading_zeros();
            let width = (mask << (u64::BITS - top)).leading_ones().min(left);
            let low = top - width;
            let ones = u64::MAX >> (u64::BITS - width);
            found.pieces[found.len] = (low, ones);
            found.len += 1;
            left -= width;
            mask &= !(ones << low);
        }
        found
    }

    /// The selected bits of `head`, moved together; in the order of the heads, if those differ in no others
    /// above the lowest of them.
    #[inline]
    fn gather(&self, head: u64) -> u64 {
        let mut bits = 0;
        for &(low, ones) in &self.pieces[..self.len] {
            bits = bits << ones.count_ones() | head >> low & ones;
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use memtide_base::{Kind, hash};

    use super::*;
    use crate::arena::Beside;
    use crate::entry::NewEntry;
    use crate::view;

    #[test]
    fn pieces_keep_the_order_of_what_differs() {
        let masks = [0, 1, 1 << 63, u64::MAX, 0x0F0F_0F0F_0F0F_0F0F, 0x8000_0000_FFFF_FFFF, 0xFF00];
        for mask in masks {
            let pieces = Pieces::highest(mask);
            let heads: Vec<_> =
                (0..200_u64).map(|n| hash::key_hash(1, &n.to_le_bytes()) & mask).collect();
            let lowest = (0..64).rev().filter(|bit| mask >> bit & 1 == 1).take(32).last();
            for a in &heads {
                for b in &heads {
                    let cut = |head: u64| head >> lowest.unwrap_or(0);
                    let (left, right) = (pieces.gather(*a), pieces.gather(*b));
                    assert!(left >> BITS == 0);
                    assert_eq!(left.cmp(&right), cut(*a).cmp(&cut(*b)), "{mask:x}: {a:x} {b:x}");
                }
            }
        }
    }

    #[test]
    fn a_sort_is_the_order_of_keys_and_versions() {
        let text = |n: u64| format!("tide/{:04}", n % 1500).into_bytes();
        let bytes = |n: u64| hash::key_hash(3, &n.to_le_bytes()).to_be_bytes().to_vec();
        // Keys of many lengths, all zeros but for one byte: heads say little and prefixes end early.
        let odd = |n: u64| {
            let mut key = vec![0; usize::try_from(n % 23).expect("small")];
            if let Some(last) = key.last_mut() {
                *last = u8::from(n.is_multiple_of(3));
            }
            key
        };
        // Keys whose heads differ little, round after round, and for more rounds than there are.
        let deep = |n: u64| {
            let dice = hash::key_hash(4, &n.to_le_bytes());
            let steps = (0..n % 14).map(|step| (dice >> step) & 1);
            steps.flat_map(|step| format!("same path{step}").into_bytes()).collect()
        };
        let shapes: [&dyn Fn(u64) -> Vec<u8>; 5] =
            [&text, &bytes, &odd, &deep, &|_| b"one".to_vec()];
        for key in shapes {
            for count in [0, 1, 2, 3, 127, 128, 129, 1000, 4096] {
                let arena = Arena::new(1 << 20);
                let mut refs: Vec<Ref> = (0..count)
                    .map(|n| {
                        let key = key(n * 7919 % 4099);
                        let plan = arena.plan(160, Beside::default()).expect("a mebibyte");
                        assert!(arena.allocate(&plan));
                        // Every fourth version comes late.
                        let seq = 10_000 + if n % 4 == 0 { 2 * n } else { 4 * n + 1 };
                        let entry = NewEntry::new(&key, 0, seq, Kind::Put, b"");
                        arena.slab(&plan).record(0, &entry)
                    })
                    .collect();
                let mut lanes: Vec<_> = refs.iter().map(|&at| lane(at)).collect();
                let mut spare = vec![0; lanes.len()];
                sort(&arena, &mut lanes, &mut spare);
                let sorted: Vec<_> = lanes.iter().map(|&lane| record(lane)).collect();
                assert_eq!(view::check_order(&arena, &sorted), Ok(()));
                refs.sort_unstable();
                let mut again = sorted;
                again.sort_unstable();
                assert_eq!(again, refs, "each record is there once");
            }
        }
    }
}
