//! Fingerprints of keys: what lets a scan over many records touch only those that may match.
//!
//! A **tag** is eight bits of a key's hash; eight tags share a word and are compared at once. A **filter**
//! is a blocked Bloom filter (Putze, Sanders, Singler 2007) over the same hashes: three bits in one word, at
//! eight bits for each key. It tells for about 96 of 100 foreign keys that a whole block of tags need not be
//! scanned.
//!
//! Both are plain atomics that one writer sets, by load and store, and any number of readers load; bits are
//! only ever added while a block is in use. Tag and filter use different bits of the hash.

use memtide_base::sync::atomic::{AtomicU64, Ordering};

/// Tags in one word.
pub(crate) const LANES: usize = 8;
const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// The tag of a key with this hash.
#[inline]
pub(crate) fn tag(hash: u64) -> u8 {
    hash.to_le_bytes()[0]
}

/// Writes the tag of entry `index`, whose lane is still zero.
pub(crate) fn put(words: &[AtomicU64], index: usize, hash: u64) {
    let lane = u64::from(tag(hash)) << (index % LANES * 8);
    add(&words[index / LANES], lane);
}

/// The tag of entry `index`.
pub(crate) fn at(words: &[AtomicU64], index: usize) -> u8 {
    words[index / LANES].load(Ordering::Acquire).to_le_bytes()[index % LANES]
}

/// The entries among the first `count` that have the tag of `hash`, in rising order.
#[inline]
pub(crate) fn find(words: &[AtomicU64], count: usize, hash: u64) -> Matches<'_> {
    let words = &words[..count.div_ceil(LANES)];
    Matches { words, count, pattern: u64::from(tag(hash)) * LOW_BITS, next: 0, lanes: 0 }
}

/// See [`find`].
#[derive(Debug)]
pub(crate) struct Matches<'a> {
    words: &'a [AtomicU64],
    count: usize,
    pattern: u64,
    /// The word to compare next.
    next: usize,
    /// The matches of the word before it that were not returned yet: the top bit of each lane.
    lanes: u64,
}

impl Iterator for Matches<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.lanes == 0 {
            let word = self.words.get(self.next)?;
            self.lanes = zero_lanes(word.load(Ordering::Acquire) ^ self.pattern);
            self.next += 1;
        }
        let lane = self.lanes.trailing_zeros() as usize / 8;
        self.lanes &= self.lanes - 1;
        let index = (self.next - 1) * LANES + lane;
        // Lanes behind the last entry are zero, which is a tag too.
        (index < self.count).then_some(index)
    }
}

/// The top bit of each byte of `word` that is zero; exact, as no carry leaves a byte.
#[inline]
fn zero_lanes(word: u64) -> u64 {
    let low = !HIGH_BITS;
    !(((word & low) + low) | word | low)
}

/// Adds a key to a filter whose number of words is a power of two.
pub(crate) fn admit(filter: &[AtomicU64], hash: u64) {
    let (word, bits) = place(filter.len(), hash);
    add(&filter[word], bits);
}

/// Adds bits to a word of the one writer.
fn add(word: &AtomicU64, bits: u64) {
    word.store(word.load(Ordering::Relaxed) | bits, Ordering::Release);
}

/// Whether a key may have been added; `false` is certain.
#[inline]
pub(crate) fn may_hold(filter: &[AtomicU64], hash: u64) -> bool {
    let (word, bits) = place(filter.len(), hash);
    filter[word].load(Ordering::Acquire) & bits == bits
}

#[inline]
fn place(words: usize, hash: u64) -> (usize, u64) {
    debug_assert!(words.is_power_of_two());
    let bit = |shift: u32| 1_u64 << (hash >> shift & 63);
    let word = usize::try_from(hash >> 8 & 0xFF_FFFF).expect("24 bits") & (words - 1);
    (word, bit(32) | bit(38) | bit(44))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_lane_is_found_exactly_when_it_is_zero() {
        for lane in 0..8 {
            for byte in 0..=255_u64 {
                for fill in [0, 1, 0x7F, 0x80, 0xFF_u64] {
                    let rest = (fill * LOW_BITS) & !(0xFF << (8 * lane));
                    let word = rest | byte << (8 * lane);
                    let want = (0..8).filter(|&at| word.to_le_bytes()[at] == 0);
                    let found = zero_lanes(word);
                    let lanes = (0..8).filter(|at| found >> (8 * at) & 0x80 != 0);
                    assert!(want.eq(lanes), "{word:016x} gives {found:016x}");
                    assert_eq!(found & !HIGH_BITS, 0);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn find_agrees_with_a_plain_scan(tags in prop::collection::vec(0_u8..4, 0..70), wanted in 0_u8..4) {
            let block = words(9);
            for (index, tag) in tags.iter().enumerate() {
                put(&block, index, u64::from(*tag));
                prop_assert_eq!(at(&block, index), *tag);
            }
            let found: Vec<_> = find(&block, tags.len(), u64::from(wanted)).collect();
            let plain: Vec<_> = (0..tags.len()).filter(|&index| tags[index] == wanted).collect();
            prop_assert_eq!(found, plain);
        }
    }

    #[test]
    fn a_filter_never_denies_a_key_and_seldom_admits_a_stranger() {
        let filter = words(128);
        let hash = |n: u64| memtide_base::hash::key_hash(7, &n.to_le_bytes());
        (0..1024).for_each(|n| admit(&filter, hash(n)));
        assert!((0..1024).all(|n| may_hold(&filter, hash(n))));
        let strangers = (1024..101_024).filter(|&n| may_hold(&filter, hash(n))).count();
        assert!(strangers < 6000, "{strangers} of 100,000 strangers were admitted");
    }
}
