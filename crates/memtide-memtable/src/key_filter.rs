//! Key filter of a memtable: "this key was never inserted" for the price of one word.
//!
//! A register-blocked Bloom filter (Putze, Sanders, Singler 2007): the high half of a key's hash picks one 64-bit
//! word, the low half four bits in it. A probe is one load and one comparison, an insert at most one
//! read-modify-write, and the second insert of a key none.
//!
//! The words are the first thing that lies in the memtable's arena, so they are charged, limited and freed with
//! everything else there. They are carved by the first reservation: an empty memtable has none.
//!
//! Invariant: a key's bits are set before its record is linked. A reader learns of a write by the bound it
//! reads below, which was published after that; so Relaxed is enough for the bits.

use memtide_base::hash::spread;
use memtide_base::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::arena::{Arena, Ref, Slab, word_of};
use crate::kind::MemtableType;
use crate::options::MemtableOptions;
use crate::registry::MemtableKind;

/// Bytes of a memtable to a byte of its filter. A table full of 16-byte keys with 64-byte values has seven bits
/// for a key, which admit 5 % of the absent ones.
const SHARE: u64 = 128;
const WORD_LEN: u64 = 8;

/// Which keys a memtable may hold.
#[derive(Debug)]
pub(crate) struct KeyFilter {
    words: u32,
    /// The first word; 0 until a reservation carved it.
    at: AtomicU32,
}

impl KeyFilter {
    /// The filter of a memtable; of no words if it wants none or its own lookup denies as cheaply.
    pub(crate) fn new(options: &MemtableOptions) -> Self {
        let bytes = if pays(options) { options.bytes_max / SHARE } else { 0 };
        let words = u32::try_from(bytes / WORD_LEN).unwrap_or(u32::MAX >> 1);
        Self { words, at: AtomicU32::new(0) }
    }

    /// Bytes that the next slab must hold for it.
    pub(crate) fn bytes_to_carve(&self) -> u64 {
        // The one who asks is the one who carves: under the memtable's planning lock.
        if self.at.load(Ordering::Relaxed) == 0 { u64::from(self.words) * WORD_LEN } else { 0 }
    }

    /// Carves the words, unless that is done; under the memtable's planning lock, before anything else.
    pub(crate) fn carve(&self, slab: &mut Slab<'_>) {
        if self.bytes_to_carve() > 0 {
            let at = slab.words8(self.words);
            // Release pairs with the Acquire in `words`: the segment is known before the ref into it.
            self.at.store(word_of(Some(at)), Ordering::Release);
        }
    }

    /// The limit of a memtable that takes `bytes` and the filter which one with that limit has.
    pub(crate) fn limit_for(options: &MemtableOptions, bytes: u64) -> u64 {
        if pays(options) { bytes + bytes / (SHARE - 1) + SHARE + WORD_LEN } else { bytes }
    }

    /// Notes a key; before its record is linked. Who is alone is the only one to note keys.
    #[inline]
    pub(crate) fn insert(&self, arena: &Arena, hash: u64, is_alone: bool) {
        if let Some(word) = self.word(arena, hash) {
            let bits = bits_of(hash);
            // Most writes of a hot key find their bits set, and then the line stays shared.
            let known = word.load(Ordering::Relaxed);
            if known & bits != bits && is_alone {
                word.store(known | bits, Ordering::Relaxed);
            } else if known & bits != bits {
                word.fetch_or(bits, Ordering::Relaxed);
            }
        }
    }

    /// Whether a key with this hash may have been inserted; `false` is certain.
    #[inline]
    pub(crate) fn may_contain(&self, arena: &Arena, hash: u64) -> bool {
        let bits = bits_of(hash);
        self.word(arena, hash).is_none_or(|word| word.load(Ordering::Relaxed) & bits == bits)
    }

    /// Asks for the word that a key's hash picks, and does not wait for it.
    #[inline]
    pub(crate) fn prefetch(&self, arena: &Arena, hash: u64) {
        if let Some(first) = self.first() {
            let word = Ref::from_word(first.word() + 2 * spread(hash, self.words));
            arena.prefetch(word.expect("behind the first"), 0, 1);
        }
    }

    #[inline]
    fn first(&self) -> Option<Ref> {
        Ref::from_word(self.at.load(Ordering::Acquire))
    }

    #[inline]
    fn word<'a>(&self, arena: &'a Arena, hash: u64) -> Option<&'a AtomicU64> {
        let first = self.first()?;
        Some(&arena.words8(first, self.words)[spread(hash, self.words) as usize])
    }
}

/// Whether a variant's lookup of an absent key costs clearly more than the filter's. It does also where the key is
/// hashed anyway, for the filter is a hundredth of what a bucket must be fetched from; `hash_linked_list` alone
/// goes without, as it promises few bytes for an entry.
fn pays(options: &MemtableOptions) -> bool {
    let is_denser = matches!(options.kind, MemtableKind::BuiltIn(MemtableType::HashLinkedList));
    options.key_filter && !is_denser
}

/// Four bits of a word, by six bits of the hash each. Two may coincide.
#[inline]
fn bits_of(hash: u64) -> u64 {
    let bit = |shift: u32| 1_u64 << (hash >> shift & 63);
    bit(0) | bit(6) | bit(12) | bit(18)
}

#[cfg(test)]
mod tests {
    use memtide_base::hash::key_hash;
    use memtide_base::ledger::Ledger;

    use super::*;
    use crate::arena::Beside;

    fn options(kind: MemtableType, bytes_max: u64) -> MemtableOptions {
        let ledger = Ledger::unlimited();
        MemtableOptions {
            kind: kind.into(),
            bytes_max,
            hash_seed: 3,
            key_filter: true,
            anchor: crate::anchor::Anchor::default(),
            ledger,
        }
    }

    fn filter(kind: MemtableType, bytes_max: u64) -> KeyFilter {
        KeyFilter::new(&options(kind, bytes_max))
    }

    fn hash_of(number: u64) -> u64 {
        key_hash(3, &number.to_be_bytes())
    }

    fn placed(bytes_max: u64) -> (KeyFilter, Arena) {
        let filter = filter(MemtableType::Sorted, bytes_max);
        let arena = Arena::new(bytes_max);
        let plan = arena.plan(filter.bytes_to_carve(), Beside::default()).expect("it fits");
        assert!(arena.allocate(&plan));
        filter.carve(&mut arena.slab(&plan));
        assert_eq!(filter.bytes_to_carve(), 0, "it is carved once");
        (filter, arena)
    }

    #[test]
    fn no_key_is_denied_and_few_strangers_are_admitted() {
        let (filter, arena) = placed(1 << 20);
        // As many as 110-byte entries fit into a mebibyte.
        for number in 0..9500 {
            filter.insert(&arena, hash_of(number), number % 2 == 0);
            assert!(filter.may_contain(&arena, hash_of(number)), "{number}");
        }
        assert!((0..9500).all(|number| filter.may_contain(&arena, hash_of(number))));
        let strangers = 1_000_000..1_100_000;
        let admitted = strangers.filter(|&n| filter.may_contain(&arena, hash_of(n))).count();
        assert!(admitted < 7000, "{admitted} of 100000");
        assert!(admitted > 100, "{admitted} of 100000: the bound above proves nothing");
    }

    #[test]
    fn without_words_everything_may_be_there() {
        let arena = Arena::new(1 << 20);
        for filter in [
            filter(MemtableType::HashLinkedList, 1 << 20),
            filter(MemtableType::Sorted, 100),
            filter(MemtableType::Sorted, 1 << 20),
        ] {
            filter.insert(&arena, 1, false);
            assert!(filter.may_contain(&arena, 2));
        }
    }

    #[test]
    fn a_limit_holds_what_it_is_for_and_the_filter() {
        for bytes in [0, 1, 95, 96, 1000, 4096, 100_000, 12_345_678] {
            let limit = KeyFilter::limit_for(&options(MemtableType::Sorted, 0), bytes);
            let filter = filter(MemtableType::Sorted, limit).bytes_to_carve();
            assert!(bytes + filter <= limit, "{bytes} B and {filter} B in {limit} B");
            assert!(limit <= bytes + bytes / 50 + 200);
        }
    }
}
