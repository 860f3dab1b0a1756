//! A block of appended records in arena words: fingerprints to find by, refs in order of arrival.
//!
//! ```text
//! 64-bit word   content
//! 0             link to the older chunk: its ref (low half, 0 = none), its capacity (high half)
//! 1             entries (low half), 1 if one came below others' sequence numbers (high half)
//! 2             largest sequence number here and in everything older
//! 3             n/8 words of tags
//! ..            n/8 words of filter
//! ..            n/2 words of refs, two in each
//! ```
//!
//! One writer appends, so it loads and stores where several would need read-modify-write; an entry is there
//! once word 1 counts it, which is stored last. Six bytes for each record. What is *older* than a chunk is its
//! user's affair: more chunks (`linked_list`) or sorted runs (`vector`).
//!
//! A chunk that is never restarted needs no more than that count. While one is, readers that came before may
//! find entries gone, of other times or with a ref of 0: whoever restarts lets them tell (`vector`). What they
//! do find are records of the table all the same.

use std::cmp::Ordering as Order;

use memtide_base::SeqNo;
use memtide_base::sync::atomic::{AtomicU64, Ordering};

use crate::arena::{Arena, Ref, Slab};
use crate::contract::{LookupKey, NewEntry};
use crate::gallop::gallop;
use crate::tags;

/// Fewest entries of a chunk: a whole number of words of everything.
pub(crate) const CAPACITY_MIN: u64 = 16;
const LINK: usize = 0;
const COUNT: usize = 1;
/// In word 1: an entry came late.
const LATE: u64 = 1 << 32;
const SEQ_MAX: usize = 2;
const HEADER: usize = 3;

/// The newest version seen so far by a search.
pub(crate) type Best = Option<(SeqNo, Ref)>;

/// Takes `at` over if it is a newer version of `k` below `below`; whether it is one.
#[inline]
pub(crate) fn improve(
    arena: &Arena,
    best: &mut Best,
    k: &LookupKey<'_>,
    below: SeqNo,
    at: Ref,
) -> bool {
    let seq = arena.seq(at);
    let newer = best.is_none_or(|(newest, _)| newest < seq);
    let improves = newer && seq < below && arena.key(at) == k.key;
    if improves {
        *best = Some((seq, at));
    }
    improves
}

/// The ref at `index` of an array that has two in each word.
#[inline]
pub(crate) fn packed(words: &[AtomicU64], index: usize) -> Option<Ref> {
    // Acquire pairs with the Release in `pack`: the record is whole.
    let pair = words[index / 2].load(Ordering::Acquire);
    Ref::from_word(half(pair, index % 2))
}

/// Sets the ref at `index`, which is still 0.
pub(crate) fn pack(words: &[AtomicU64], index: usize, at: Ref) {
    let word = &words[index / 2];
    let other = word.load(Ordering::Relaxed);
    word.store(other | u64::from(at.word()) << (index % 2 * 32), Ordering::Release);
}

/// The low (0) or high (1) half of a word.
#[inline]
pub(crate) fn half(word: u64, which: usize) -> u32 {
    u32::try_from(word >> (which * 32) & 0xFFFF_FFFF).expect("32 bits")
}

/// A view of one chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk<'a> {
    words: &'a [AtomicU64],
    capacity: usize,
}

impl<'a> Chunk<'a> {
    /// Bytes that carving a chunk takes, alignment included.
    pub(crate) fn bytes_max(capacity: u64) -> u64 {
        8 * words_of(capacity) + 4
    }

    /// Carves an empty chunk of `capacity` entries, a power of two.
    pub(crate) fn carve(slab: &mut Slab<'_>, arena: &'a Arena, capacity: u64) -> (Ref, Self) {
        debug_assert!(capacity >= CAPACITY_MIN && capacity.is_power_of_two());
        let words = u32::try_from(words_of(capacity)).expect("chunks are far below 4 GiB");
        let at = slab.words8(words);
        (at, Self::new(arena.words8(at, words), capacity))
    }

    /// The chunk at `at`, which was carved with this capacity.
    #[inline]
    pub(crate) fn open(arena: &'a Arena, at: Ref, capacity: u64) -> Self {
        let words = u32::try_from(words_of(capacity)).expect("as it was carved");
        Self::new(arena.words8(at, words), capacity)
    }

    /// The chunk that a link leads to; 0 leads to none.
    #[inline]
    pub(crate) fn follow(arena: &'a Arena, link: u64) -> Option<Self> {
        Ref::from_word(half(link, 0)).map(|at| Self::open(arena, at, link >> 32))
    }

    /// A link to this chunk, which lies at `at`.
    pub(crate) fn link(&self, at: Ref) -> u64 {
        (self.capacity as u64) << 32 | u64::from(at.word())
    }

    fn new(words: &'a [AtomicU64], capacity: u64) -> Self {
        Self { words, capacity: usize::try_from(capacity).expect("targets are 64-bit") }
    }

    /// Empties the chunk; `older` is a link, everything older has sequence numbers up to `seq_max`.
    pub(crate) fn restart(&self, older: u64, seq_max: SeqNo) {
        self.words[COUNT].store(0, Ordering::Release);
        self.words[LINK].store(older, Ordering::Release);
        self.words[SEQ_MAX].store(seq_max, Ordering::Release);
        // Release as all stores here: who sees one of them sees what announced the restart.
        for word in self.tags().iter().chain(self.filter()).chain(self.packed_refs()) {
            word.store(0, Ordering::Release);
        }
    }

    /// Appends a record; the chunk is not full.
    pub(crate) fn push(&self, entry: &NewEntry<'_>, at: Ref) {
        let count = self.words[COUNT].load(Ordering::Relaxed);
        let index = self.len();
        debug_assert!(index < self.capacity);
        pack(self.packed_refs(), index, at);
        tags::put(self.tags(), index, entry.hash);
        tags::admit(self.filter(), entry.hash);
        let late = if entry.seq < self.seq_max() {
            LATE
        } else {
            self.words[SEQ_MAX].store(entry.seq, Ordering::Release);
            0
        };
        // Pairs with the Acquire in `state`.
        self.words[COUNT].store((count + 1) | late, Ordering::Release);
    }

    /// Improves `best` by the newest version of `k` below `below`.
    #[inline]
    pub(crate) fn search(&self, arena: &Arena, k: &LookupKey<'_>, below: SeqNo, best: &mut Best) {
        if !tags::may_hold(self.filter(), k.hash) {
            return;
        }
        let (mut len, is_rising) = self.state();
        let refs = self.packed_refs();
        if is_rising && below <= self.seq_max() {
            // What came last may be hidden, however much it is.
            let end =
                below.saturating_sub(u64::from(cfg!(plant = "linked_list_hides_one_too_many")));
            len -= gallop(len, |back| {
                packed(refs, len - 1 - back).is_some_and(|at| arena.seq(at) >= end)
            });
        }
        for index in tags::find(self.tags(), len, k.hash) {
            let found = packed(refs, index).is_some_and(|at| improve(arena, best, k, below, at));
            if found && (is_rising || cfg!(plant = "linked_list_trusts_the_last")) {
                break;
            }
        }
    }

    /// Whether neither this chunk nor anything older can improve `best`.
    #[inline]
    pub(crate) fn ends_search(&self, best: Best) -> bool {
        best.is_some_and(|(seq, _)| seq >= self.seq_max())
    }

    pub(crate) fn len(&self) -> usize {
        self.state().0
    }

    /// The number of entries, and whether none has a sequence number below one before it.
    #[inline]
    fn state(&self) -> (usize, bool) {
        let count = self.words[COUNT].load(Ordering::Acquire);
        (half(count, 0) as usize, count < LATE)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() == self.capacity
    }

    /// Entries that still fit.
    pub(crate) fn room(&self) -> u64 {
        (self.capacity - self.len()) as u64
    }

    /// The link to the older chunk.
    pub(crate) fn older(&self) -> u64 {
        self.words[LINK].load(Ordering::Acquire)
    }

    pub(crate) fn seq_max(&self) -> SeqNo {
        self.words[SEQ_MAX].load(Ordering::Acquire)
    }

    /// The records in order of arrival.
    pub(crate) fn refs(&self) -> impl DoubleEndedIterator<Item = Ref> + use<'a> {
        let words = self.packed_refs();
        (0..self.len()).filter_map(move |index| packed(words, index))
    }

    fn tags(&self) -> &'a [AtomicU64] {
        self.part(0, 8)
    }

    fn filter(&self) -> &'a [AtomicU64] {
        self.part(self.capacity / 8, 8)
    }

    fn packed_refs(&self) -> &'a [AtomicU64] {
        self.part(self.capacity / 4, 2)
    }

    #[inline]
    fn part(&self, behind: usize, entries_per_word: usize) -> &'a [AtomicU64] {
        let start = HEADER + behind;
        &self.words[start..start + self.capacity / entries_per_word]
    }

    /// The records with their tags, in order of arrival.
    pub(crate) fn tagged(&self) -> impl Iterator<Item = (Ref, u8)> + use<'a> {
        let tags = self.tags();
        self.refs().enumerate().map(move |(index, at)| (at, tags::at(tags, index)))
    }

    /// What is wrong with the chunk: more than fits, sequence numbers above the largest or not as it says.
    pub(crate) fn check(&self, arena: &Arena) -> Result<(), String> {
        let (len, capacity, max) = (self.len(), self.capacity, self.seq_max());
        if len > capacity {
            return Err(format!("a chunk for {capacity} records has {len}"));
        }
        let is_rising = self.refs().is_sorted_by(|&a, &b| arena.seq(a) <= arena.seq(b));
        if self.state().1 && !is_rising {
            return Err("a chunk hides that an entry came late".into());
        }
        match self.refs().find(|&at| arena.seq(at) > max) {
            Some(at) => Err(format!("{:?} is above its chunk's {max}", arena.entry(at))),
            None => Ok(()),
        }
    }
}

/// What is wrong with tagged records: versions of one key whose tags differ. The hash itself is the
/// caller's affair.
pub(crate) fn check_tags(arena: &Arena, mut tagged: Vec<(Ref, u8)>) -> Result<(), String> {
    tagged.sort_unstable_by(|a, b| by_key(arena, a.0, b.0));
    for pair in tagged.windows(2) {
        let ((a, a_tag), (b, b_tag)) = (pair[0], pair[1]);
        if a_tag != b_tag && arena.key(a) == arena.key(b) {
            return Err(format!("the key {:?} has two tags", arena.key(a)));
        }
    }
    Ok(())
}

/// Not inlined: a sort has a dozen places for it.
#[inline(never)]
fn by_key(arena: &Arena, a: Ref, b: Ref) -> Order {
    arena.key(a).cmp(arena.key(b))
}

/// 64-bit words of a chunk.
fn words_of(capacity: u64) -> u64 {
    HEADER as u64 + capacity / 8 + capacity / 8 + capacity / 2
}
