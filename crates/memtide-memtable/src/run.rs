//! A sorted run in arena words: refs by key, versions newest first, with fences to narrow a search.
//!
//! ```text
//! 64-bit word   content
//! 0             ref of the older run (low half, 0 = none), records n (high half)
//! 1             largest sequence number here and in everything older
//! 2             bytes all keys begin with (low half), level (high half)
//! 3, 4          head of the first and of the last key
//! 5..           one fence for each 16 records: the head of the key behind the common bytes
//! ..            n/8 words of filter, rounded up to a power of two
//! ..            n/2 words of refs, two in each
//! ```
//!
//! A search asks two heads and a filter whether the run can have the key, then looks through fences that lie
//! side by side, then through the records between two different fences. The filter has a hash of its own,
//! made from keys alone, because a merge no longer knows the one that came with a write. Immutable once
//! written, but for the link to what is older, which a merge moves.

use std::cmp::Ordering as Order;

use memtide_base::sync::atomic::{AtomicU64, Ordering};
use memtide_base::{SeqNo, hash, key};

use crate::arena::{Arena, Ref, Slab, word_of};
use crate::chunk::{self, Best, half, packed};
use crate::contract::LookupKey;
use crate::key_order::order;
use crate::{tags, view};

/// Runs that are merged into one.
pub(crate) const FAN_IN: usize = 8;
/// Records between two fences.
const STRIDE: usize = 16;
const LINK: usize = 0;
const SEQ_MAX: usize = 1;
const PREFIX: usize = 2;
const FIRST_HEAD: usize = 3;
const LAST_HEAD: usize = 4;
const HEADER: usize = 5;

/// The seed of the filters' hash. A key chosen to collide only costs a search.
const FILTER_SEED: u64 = 0;

/// A key to find in runs, with what was computed once for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunKey<'a> {
    key: LookupKey<'a>,
    filter_hash: u64,
}

impl<'a> RunKey<'a> {
    pub(crate) fn new(key: LookupKey<'a>) -> Self {
        Self { key, filter_hash: hash::key_hash(FILTER_SEED, key.key) }
    }
}

/// A view of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    at: Ref,
    words: &'a [AtomicU64],
    len: usize,
}

/// What a run is besides its records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) older: Option<Ref>,
    pub(crate) seq_max: SeqNo,
    pub(crate) level: u32,
}

impl<'a> Run<'a> {
    /// Bytes that carving a run of `len` records takes, alignment included.
    pub(crate) fn bytes_max(len: usize) -> u64 {
        8 * words_of(len) as u64 + 4
    }

    /// Carves a run of the `len` records of `sorted`, at least one.
    pub(crate) fn write(
        slab: &mut Slab<'_>,
        arena: &'a Arena,
        place: Place,
        len: usize,
        sorted: impl Iterator<Item = Ref>,
    ) -> Self {
        let count = u32::try_from(words_of(len)).expect("runs are far below 4 GiB");
        let at = slab.words8(count);
        let run = Self { at, words: arena.words8(at, count), len };
        let refs = run.refs_words();
        for (index, record) in sorted.enumerate() {
            chunk::pack(refs, index, record);
            tags::admit(run.filter(), hash::key_hash(FILTER_SEED, arena.key(record)));
        }
        let (first, last) = (run.key(arena, 0), run.key(arena, len - 1));
        let prefix = key::shared_prefix_len(first, last);
        for (index, fence) in run.fences().iter().enumerate() {
            let head = key::head(&run.key(arena, index * STRIDE)[prefix..]);
            fence.store(head, Ordering::Relaxed);
        }
        run.words[FIRST_HEAD].store(arena.head_of(first), Ordering::Relaxed);
        run.words[LAST_HEAD].store(arena.head_of(last), Ordering::Relaxed);
        let prefix = prefix as u64 | u64::from(place.level) << 32;
        run.words[PREFIX].store(prefix, Ordering::Relaxed);
        run.words[SEQ_MAX].store(place.seq_max, Ordering::Relaxed);
        run.set_older(place.older);
        run
    }

    /// Merges the run at `newest` and those behind it, [`FAN_IN`] in all, into one that takes their place.
    pub(crate) fn merge(slab: &mut Slab<'_>, arena: &'a Arena, newest: Ref) -> Self {
        let inputs = Self::group(arena, newest);
        let mut next = [0_usize; FAN_IN];
        let candidate = |input: usize, index: usize| {
            let run: &Self = &inputs[input];
            let record = (index < run.len).then(|| run.record(index))?;
            Some((arena.head(record), record))
        };
        let mut fronts: [Option<(u64, Ref)>; FAN_IN] =
            std::array::from_fn(|input| candidate(input, 0));
        let merged = std::iter::from_fn(|| {
            let there = fronts.iter().enumerate().filter_map(|(at, front)| Some((at, (*front)?)));
            let (input, (_, record)) = there.min_by(|(_, (a_head, a)), (_, (b_head, b))| {
                let by_entry = || order(&arena.entry(*a), &arena.entry(*b));
                a_head.cmp(b_head).then_with(by_entry)
            })?;
            next[input] += 1;
            fronts[input] = candidate(input, next[input]);
            Some(record)
        });
        let (first, last) = (&inputs[0], &inputs[FAN_IN - 1]);
        let place =
            Place { older: last.older(), seq_max: first.seq_max(), level: first.level() + 1 };
        Self::write(slab, arena, place, inputs.iter().map(|run| run.len).sum(), merged)
    }

    /// Bytes that merging the group at `newest` takes.
    pub(crate) fn merged_bytes_max(arena: &'a Arena, newest: Ref) -> u64 {
        Self::bytes_max(Self::group(arena, newest).iter().map(|run| run.len).sum())
    }

    fn group(arena: &'a Arena, newest: Ref) -> [Self; FAN_IN] {
        let mut next = Some(newest);
        std::array::from_fn(|_| {
            let run = Self::open(arena, next.expect("a group is complete"));
            next = run.older();
            run
        })
    }

    /// The run at `at`.
    #[inline]
    pub(crate) fn open(arena: &'a Arena, at: Ref) -> Self {
        let link = arena.words8(at, 1)[LINK].load(Ordering::Acquire);
        let len = half(link, 1) as usize;
        let count = u32::try_from(words_of(len)).expect("as it was carved");
        Self { at, words: arena.words8(at, count), len }
    }

    /// Improves `best` by the newest version of `k` below `below`.
    #[inline]
    pub(crate) fn search(&self, arena: &Arena, k: &RunKey<'_>, below: SeqNo, best: &mut Best) {
        let Some((mut low, mut high)) = self.window(arena, k) else { return };
        let k = &k.key;
        while low < high {
            let middle = low.midpoint(high);
            let entry = arena.entry(self.record(middle));
            let before = match entry.key.cmp(k.key) {
                Order::Less => true,
                Order::Equal => entry.seq >= below,
                Order::Greater => false,
            };
            (low, high) = if before { (middle + 1, high) } else { (low, middle) };
        }
        if low < self.len {
            chunk::improve(arena, best, k, below, self.record(low));
        }
    }

    /// Where the first record at or behind any version of `k` can be; `None` if `k` is not here.
    #[inline]
    fn window(&self, arena: &Arena, k: &RunKey<'_>) -> Option<(usize, usize)> {
        let word = |at: usize| self.words[at].load(Ordering::Relaxed);
        let (filter_hash, k) = (k.filter_hash, &k.key);
        let outside = k.head < word(FIRST_HEAD) || k.head > word(LAST_HEAD);
        if outside || !tags::may_hold(self.filter(), filter_hash) {
            return None;
        }
        let prefix = self.prefix();
        let (shared, rest) = k.key.split_at_checked(prefix)?;
        if self.key(arena, 0)[..prefix] != *shared {
            return None;
        }
        let (head, fences) = (key::head(rest), self.fences());
        let from = head + u64::from(cfg!(plant = "vector_skips_what_reaches_a_fence"));
        let low = fences.partition_point(|fence| fence.load(Ordering::Relaxed) < from);
        let high = fences.partition_point(|fence| fence.load(Ordering::Relaxed) <= head);
        Some((low.saturating_sub(1) * STRIDE, (high * STRIDE).min(self.len)))
    }

    /// Whether neither this run nor anything older can improve `best`.
    #[inline]
    pub(crate) fn ends_search(&self, best: Best) -> bool {
        best.is_some_and(|(seq, _)| seq >= self.seq_max())
    }

    pub(crate) fn at(&self) -> Ref {
        self.at
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn older(&self) -> Option<Ref> {
        Ref::from_word(half(self.words[LINK].load(Ordering::Acquire), 0))
    }

    pub(crate) fn set_older(&self, older: Option<Ref>) {
        let link = (self.len as u64) << 32 | u64::from(word_of(older));
        self.words[LINK].store(link, Ordering::Release);
    }

    pub(crate) fn seq_max(&self) -> SeqNo {
        self.words[SEQ_MAX].load(Ordering::Relaxed)
    }

    pub(crate) fn level(&self) -> u32 {
        half(self.words[PREFIX].load(Ordering::Relaxed), 1)
    }

    fn prefix(&self) -> usize {
        half(self.words[PREFIX].load(Ordering::Relaxed), 0) as usize
    }

    /// The records in order.
    pub(crate) fn refs(&self) -> impl Iterator<Item = Ref> + use<'a> {
        let refs = self.refs_words();
        (0..self.len).filter_map(move |index| packed(refs, index))
    }

    fn record(&self, index: usize) -> Ref {
        packed(self.refs_words(), index).expect("a run is written before it is linked")
    }

    fn key(&self, arena: &'a Arena, index: usize) -> &'a [u8] {
        arena.key(self.record(index))
    }

    fn fences(&self) -> &'a [AtomicU64] {
        &self.words[HEADER..HEADER + self.len.div_ceil(STRIDE)]
    }

    fn filter(&self) -> &'a [AtomicU64] {
        let start = HEADER + self.len.div_ceil(STRIDE);
        &self.words[start..start + filter_words(self.len)]
    }

    fn refs_words(&self) -> &'a [AtomicU64] {
        &self.words[HEADER + self.len.div_ceil(STRIDE) + filter_words(self.len)..]
    }

    /// What is wrong with the run: order, heads, fences, sequence numbers above the largest.
    pub(crate) fn check(&self, arena: &Arena) -> Result<(), String> {
        let refs: Vec<_> = self.refs().collect();
        view::check_order(arena, &refs)?;
        let prefix = self.prefix();
        if prefix != key::shared_prefix_len(arena.key(refs[0]), arena.key(refs[refs.len() - 1])) {
            return Err(format!("the keys of a run do not begin with {prefix} common bytes"));
        }
        let heads = [(FIRST_HEAD, refs[0]), (LAST_HEAD, refs[refs.len() - 1])];
        for (word, at) in heads {
            if self.words[word].load(Ordering::Relaxed) != arena.head(at) {
                return Err(format!("{:?} is not the end of its run", arena.key(at)));
            }
        }
        for (fence, &at) in self.fences().iter().zip(refs.iter().step_by(STRIDE)) {
            if fence.load(Ordering::Relaxed) != key::head(&arena.key(at)[prefix..]) {
                return Err(format!("the fence of {:?} is wrong", arena.key(at)));
            }
        }
        let denied = |at: &&Ref| {
            !tags::may_hold(self.filter(), hash::key_hash(FILTER_SEED, arena.key(**at)))
        };
        if let Some(&at) = refs.iter().find(denied) {
            return Err(format!("the filter of its run denies {:?}", arena.entry(at)));
        }
        match refs.iter().find(|&&at| arena.seq(at) > self.seq_max()) {
            Some(&at) => {
                Err(format!("{:?} is above its run's {}", arena.entry(at), self.seq_max()))
            }
            None => Ok(()),
        }
    }
}

/// 64-bit words of a run.
fn words_of(len: usize) -> usize {
    HEADER + len.div_ceil(STRIDE) + filter_words(len) + len.div_ceil(2)
}

fn filter_words(len: usize) -> usize {
    len.div_ceil(8).next_power_of_two()
}
