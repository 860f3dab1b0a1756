//! The memory of one memtable: a growing region of records and index words, freed all at once.
//!
//! ```text
//! segment k      0       1       2        3        ...
//! offsets        0..4K   4K..8K  8K..16K  16K..32K ...   the span doubles, so an offset names its segment
//! ```
//!
//! A [`Ref`] is an offset in units of four bytes, so four bytes address 16 GiB. Segments are allocated
//! zeroed and only when needed; the last one is clipped so that the sum never passes the limit. Nothing
//! straddles segments, nothing is moved, nothing is freed before the arena. Slabs are handed out one behind
//! the other; what one leaves goes back if it is still the last, else the largest such rest is used again.
//!
//! Two kinds of bytes live here:
//! - **words**: index nodes and the link words in front of records, always accessed as atomics;
//! - **records**: written once by the [`Slab`] that carved them, immutable from then on.
//!
//! `plan`, `allocate` and `slab` are called under the memtable's planning lock. This file decides where
//! things go; the bytes themselves, and all `unsafe`, are in `memory`.

#[cfg(not(any(loom, shuttle)))]
#[expect(unsafe_code, reason = "the one module of raw memory; its header argues each block")]
mod memory;
#[cfg(any(loom, shuttle))]
#[cfg_attr(loom, expect(unsafe_code, reason = "loom's cell is not Sync; see the one impl"))]
#[path = "arena/modelled.rs"]
mod memory;

use memtide_base::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use memtide_base::sync::{Mutex, OnceLock};
use memtide_base::{Entry, SeqNo, key};

use crate::anchor::Anchor;
use crate::entry::{LookupKey, NewEntry};
use crate::record;
use memory::Memory;

/// Bytes a `Ref` counts in.
const UNIT: u64 = 4;
/// Bytes of a cache line, or a part of one.
pub(crate) const LINE: usize = 64;
/// Span of segment 0; a power of two. A model checker is given as few atomics as will do.
const FIRST_SPAN: u64 = if cfg!(any(loom, shuttle)) { 512 } else { 4096 };
/// Segments that 32-bit refs can name: the last one ends at 16 GiB.
const SEGMENTS: usize = 23;
/// The first offset handed out, so that no `Ref` is 0.
const FIRST_OFFSET: u64 = 8;

#[cfg(test)]
thread_local! {
    /// What this thread asked for: a hint has no effect that a test could see.
    pub(crate) static PREFETCHED: std::cell::RefCell<Vec<Ref>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Names a record or an index node inside its arena. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ref(std::num::NonZeroU32);

impl Ref {
    /// The ref that a word holds; `None` for 0.
    #[inline]
    pub(crate) fn from_word(word: u32) -> Option<Self> {
        std::num::NonZeroU32::new(word).map(Self)
    }

    /// The word that holds this ref.
    #[inline]
    pub(crate) fn word(self) -> u32 {
        self.0.get()
    }

    fn at(offset: u64) -> Self {
        debug_assert_eq!(offset % UNIT, 0);
        let units = u32::try_from(offset / UNIT).expect("segments end where refs end");
        Self::from_word(units).expect("offset 0 is never handed out")
    }

    #[inline]
    fn offset(self) -> u64 {
        u64::from(self.0.get()) * UNIT
    }
}

/// The word an optional ref is stored as.
#[inline]
pub(crate) fn word_of(at: Option<Ref>) -> u32 {
    at.map_or(0, Ref::word)
}

/// The memory of one memtable.
#[derive(Debug)]
pub(crate) struct Arena {
    memory: Memory,
    /// Where the next slab begins.
    tail: AtomicU64,
    spare: Spare,
    reserved: AtomicU64,
    /// Changed under the memtable's planning lock only.
    limit: AtomicU64,
    seq_base: OnceLock<SeqNo>,
    anchor: Anchor,
}

/// The largest piece that a slab gave back from the midst of the arena.
#[derive(Debug, Default)]
struct Spare {
    /// Its start and end.
    piece: Mutex<(u64, u64)>,
    /// Its length, to be looked at without the lock: most of the time there is none.
    len: AtomicU64,
}

impl Spare {
    /// The piece, from a multiple of eight on, if it holds `bytes`.
    fn piece_for(&self, bytes: u64) -> Option<(u64, u64)> {
        // Relaxed: who reads an old length plans without the piece, or is put right by the lock.
        if self.len.load(Ordering::Relaxed) < bytes {
            return None;
        }
        let (start, end) = *self.piece.lock();
        let start = round_up(start, 8);
        (start + bytes <= end).then_some((start, end))
    }

    /// Takes the piece that ends at `end`, unless a larger one has taken its place.
    fn take(&self, end: u64) {
        let mut piece = self.piece.lock();
        if piece.1 == end {
            *piece = (0, 0);
            self.len.store(0, Ordering::Relaxed);
        }
    }

    /// Keeps a piece if it is larger than the one there is.
    fn offer(&self, start: u64, end: u64) {
        let mut piece = self.piece.lock();
        if end - start > piece.1 - piece.0 {
            *piece = (start, end);
            self.len.store(end - start, Ordering::Relaxed);
        }
    }
}

/// Heap bytes that count against the arena's limit although they lie outside of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Beside {
    /// For everything in the arena, the planned slab included.
    pub(crate) all: u64,
    /// For the planned slab.
    pub(crate) slab: u64,
}

/// Where a slab would go, and the segment that must be allocated for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    start: u64,
    end: u64,
    segment: Option<(usize, u64)>,
    /// Whether it is the spare piece, all of it, not at the tail.
    is_spare: bool,
}

impl Plan {
    /// Bytes the arena's reservation grows by.
    pub(crate) fn growth(&self) -> u64 {
        self.segment.map_or(0, |(_, len)| len)
    }
}

impl Arena {
    /// Whether [`Arena::prefetch`] does anything on this processor.
    pub(crate) const PREFETCHES: bool = cfg!(target_arch = "x86_64");

    /// An arena that allocates nothing yet and never more than `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            memory: Memory::new(),
            tail: AtomicU64::new(FIRST_OFFSET),
            spare: Spare::default(),
            reserved: AtomicU64::new(0),
            limit: AtomicU64::new(limit),
            seq_base: OnceLock::new(),
            anchor: Anchor::default(),
        }
    }

    /// As [`Arena::new`]; heads are taken behind `anchor`.
    pub(crate) fn anchored(limit: u64, anchor: Anchor) -> Self {
        Self { anchor, ..Self::new(limit) }
    }

    /// The most bytes that it allocates.
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Has it allocate `more` bytes than so far.
    pub(crate) fn raise_limit(&self, more: u64) {
        self.limit.fetch_add(more, Ordering::Relaxed);
    }

    /// The limit an empty arena needs to grant one slab of `bytes`.
    pub(crate) fn limit_for(bytes: u64) -> u64 {
        round_up(bytes + FIRST_OFFSET, 8)
    }

    /// Bytes allocated.
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Bytes of records, index nodes and what was skipped at segment ends.
    pub(crate) fn used(&self) -> u64 {
        let tail = self.tail.load(Ordering::Relaxed);
        let below_tail = |k: usize| {
            let allocated = self.segment_end(k) - segment_start(k);
            tail.saturating_sub(first_free(k)).min(allocated)
        };
        (0..SEGMENTS).map(below_tail).sum()
    }

    /// Where a slab of `bytes` fits within the limit, if anywhere.
    pub(crate) fn plan(&self, bytes: u64, beside: Beside) -> Option<Plan> {
        let bytes = round_up(bytes, 8);
        let start = self.tail.load(Ordering::Relaxed);
        let current = segment_of(start);
        let room = self.limit().checked_sub(self.reserved() + beside.all)?;
        if let Some((start, end)) = self.spare.piece_for(bytes) {
            return Some(Plan { start, end, segment: None, is_spare: true });
        }
        let at_tail = |start, segment| Plan { start, end: start + bytes, segment, is_spare: false };
        if start + bytes <= self.segment_end(current) {
            return Some(at_tail(start, None));
        }
        let is_fresh = |k: usize| self.memory.len(k) == 0;
        // A later segment may be there already, for a slab that was not used.
        let wide = |k: &usize| {
            let end =
                if is_fresh(*k) { segment_start(*k) + span(*k) } else { self.segment_end(*k) };
            first_free(*k) >= start && first_free(*k) + bytes <= end
        };
        let k = (current..SEGMENTS).find(wide)?;
        if !is_fresh(k) {
            return Some(at_tail(first_free(k), None));
        }
        let needed = round_up(first_free(k) - segment_start(k) + bytes, 8);
        // What will be inserted into the segment takes room beside it as this slab does.
        let share = u128::from(room) * u128::from(bytes) / u128::from(bytes + beside.slab).max(1);
        let share = u64::try_from(share).unwrap_or(room);
        let len = needed.max(span(k).min(share & !7));
        (len <= room).then(|| at_tail(first_free(k), Some((k, len))))
    }

    /// Allocates what the plan needs; `false`, and nothing changed, if the system has no memory.
    pub(crate) fn allocate(&self, plan: &Plan) -> bool {
        let Some((k, len)) = plan.segment else { return true };
        let allocated = self.memory.allocate(k, len);
        if allocated {
            self.reserved.fetch_add(len, Ordering::Relaxed);
        }
        allocated
    }

    /// The slab of the plan made last, which was allocated.
    pub(crate) fn slab(&self, plan: &Plan) -> Slab<'_> {
        self.slab_as(plan, false)
    }

    /// As [`Arena::slab`] while no other slab lives; it is dropped before the next one is planned.
    pub(crate) fn only_slab(&self, plan: &Plan) -> Slab<'_> {
        self.slab_as(plan, true)
    }

    fn slab_as(&self, plan: &Plan, is_alone: bool) -> Slab<'_> {
        let (start, end) = (plan.start, plan.end);
        let granted = end - start;
        let piece =
            |at, stop, resume| Slab { arena: self, at, stop, resume, end, granted, is_alone };
        if plan.is_spare {
            self.spare.take(end);
            return piece(start, end, None);
        }
        let before = if is_alone {
            let before = self.tail.load(Ordering::Relaxed);
            self.tail.store(end, Ordering::Relaxed);
            before
        } else {
            self.tail.swap(end, Ordering::Relaxed)
        };
        if before >= start {
            return piece(start, end, None);
        }
        // What slabs gave back since the plan is the slab's; and so is the rest of the segment before, or a batch
        // that is larger than it would leave it empty.
        let k = segment_of(before);
        if k == segment_of(start) {
            return piece(before, end, None);
        }
        piece(before, self.segment_end(k), Some(start))
    }

    /// The sequence number that record headers count from; fixed by the first record.
    pub(crate) fn seq_base(&self, first: SeqNo) -> SeqNo {
        *self.seq_base.get_or_init(|| record::seq_base(first))
    }

    /// The entry of a record.
    #[inline]
    pub(crate) fn entry(&self, at: Ref) -> Entry<'_> {
        record::decode(self.memory.record(at.offset()), self.known_seq_base())
    }

    /// The key of a record.
    #[inline]
    pub(crate) fn key(&self, at: Ref) -> &[u8] {
        record::key(self.memory.record(at.offset()))
    }

    /// The head of a record's key.
    #[inline]
    pub(crate) fn head(&self, at: Ref) -> u64 {
        self.head_of(self.key(at))
    }

    /// The head that a key has in this arena's memtable.
    #[inline]
    pub(crate) fn head_of(&self, key: &[u8]) -> u64 {
        key::head_behind(self.anchor.bytes(), key)
    }

    /// A key to find in this arena's memtable.
    #[inline]
    pub(crate) fn lookup_key<'k>(&self, key: &'k [u8], hash: u64) -> LookupKey<'k> {
        LookupKey { key, hash, head: self.head_of(key) }
    }

    /// The sequence number of a record.
    #[inline]
    pub(crate) fn seq(&self, at: Ref) -> SeqNo {
        record::seq(self.memory.record(at.offset()), self.known_seq_base())
    }

    #[inline]
    fn known_seq_base(&self) -> SeqNo {
        self.seq_base.get().copied().unwrap_or_default()
    }

    /// `count` words of an index node.
    #[inline]
    pub(crate) fn words(&self, at: Ref, count: u32) -> &[AtomicU32] {
        self.memory.words(at.offset(), count)
    }

    /// `count` 64-bit words of an index node that was carved with [`Slab::words8`].
    #[inline]
    pub(crate) fn words8(&self, at: Ref, count: u32) -> &[AtomicU64] {
        self.memory.words8(at.offset(), count)
    }

    /// Link word `index` of a record: word 0 lies directly before it, word 1 before that.
    #[inline]
    pub(crate) fn link(&self, record: Ref, index: u32) -> &AtomicU32 {
        let before = u64::from(index + 1) * UNIT;
        let offset = record.offset().checked_sub(before).expect("link words precede their record");
        &self.memory.words(offset, 1)[0]
    }

    /// `count` 64-bit link words of a record from [`Slab::record8`]; the last of them lies `skip` 32-bit words
    /// before the record.
    #[inline]
    pub(crate) fn links8(&self, record: Ref, skip: u32, count: u32) -> &[AtomicU64] {
        let first = record.word().checked_sub(skip + 2 * count);
        let first = first.expect("link words precede their record");
        self.memory.words8(u64::from(first) * UNIT, count)
    }

    /// Asks for the cache lines from `words` words before `at` on, and does not wait for them.
    #[inline]
    pub(crate) fn prefetch(&self, at: Ref, words: u32, lines: usize) {
        #[cfg(test)]
        PREFETCHED.with_borrow_mut(|all| all.push(at));
        self.memory.prefetch(at.offset().saturating_sub(u64::from(words) * UNIT), lines);
    }

    /// The offset behind all that was handed out.
    #[inline]
    pub(crate) fn extent(&self) -> u64 {
        self.tail.load(Ordering::Relaxed)
    }

    fn segment_end(&self, k: usize) -> u64 {
        segment_start(k) + self.memory.len(k)
    }
}

/// Memory carved for one reservation: everything its inserts may need. It begins in the rest of a segment and goes
/// on in the next one, which has room for all of it.
///
/// What is left when it is dropped goes back to the arena.
#[derive(Debug)]
pub(crate) struct Slab<'a> {
    arena: &'a Arena,
    at: u64,
    /// The end of the piece that `at` is in.
    stop: u64,
    /// The start of the second piece, until it is begun.
    resume: Option<u64>,
    /// The end of the last piece.
    end: u64,
    /// Bytes that were asked for and are not carved yet.
    granted: u64,
    /// Whether no other slab lives.
    is_alone: bool,
}

impl Slab<'_> {
    /// Whether whoever holds it is the only writer.
    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Writes a record with `link_words` zeroed words in front of it.
    ///
    /// # Panics
    /// If the reservation was too small: the variant's bound is wrong.
    pub(crate) fn record(&mut self, link_words: u32, entry: &NewEntry<'_>) -> Ref {
        self.aligned_record(link_words, entry, UNIT)
    }

    /// As [`Slab::record`], at a multiple of eight bytes, for [`Arena::links8`]; takes up to 4 bytes more. The
    /// number of words is even.
    ///
    /// # Panics
    /// As [`Slab::record`].
    pub(crate) fn record8(&mut self, link_words: u32, entry: &NewEntry<'_>) -> Ref {
        debug_assert!(
            link_words.is_multiple_of(2),
            "the words before the record fill 8-byte units"
        );
        self.aligned_record(link_words, entry, 8)
    }

    fn aligned_record(&mut self, link_words: u32, entry: &NewEntry<'_>, align: u64) -> Ref {
        let header = record::Header::of(entry, self.arena.seq_base(entry.seq));
        let body_len = header.body_len();
        let start =
            self.carve(u64::from(link_words) * UNIT + round_up(body_len as u64, UNIT), align);
        let at = start + u64::from(link_words) * UNIT;
        self.arena.memory.write(at, body_len, |body| header.write(body, entry));
        Ref::at(at)
    }

    /// `count` zeroed words.
    ///
    /// # Panics
    /// As [`Slab::record`].
    pub(crate) fn words(&mut self, count: u32) -> Ref {
        Ref::at(self.carve(u64::from(count) * UNIT, UNIT))
    }

    /// `count` zeroed 64-bit words, 8-aligned.
    ///
    /// # Panics
    /// As [`Slab::record`].
    pub(crate) fn words8(&mut self, count: u32) -> Ref {
        Ref::at(self.carve(u64::from(count) * 8, 8))
    }

    fn carve(&mut self, bytes: u64, align: u64) -> u64 {
        let mut start = round_up(self.at, align);
        if start + bytes > self.stop
            && let Some(resume) = self.resume.take()
        {
            (self.at, self.stop) = (resume, self.end);
            start = round_up(resume, align);
        }
        let (end, left) = (start + bytes, self.granted);
        let taken = end - self.at;
        assert!(
            taken <= left && end <= self.stop,
            "a reservation has {left} B left, its inserts need {bytes} B"
        );
        (self.at, self.granted) = (end, left - taken);
        start
    }
}

impl Drop for Slab<'_> {
    fn drop(&mut self) {
        // Relaxed: nothing is published through the tail; what it bounds is handed over by the planning lock.
        let tail = &self.arena.tail;
        let given = if self.is_alone {
            let is_last = tail.load(Ordering::Relaxed) == self.end;
            if is_last {
                tail.store(self.at, Ordering::Relaxed);
            }
            is_last
        } else {
            let order = Ordering::Relaxed;
            tail.compare_exchange(self.end, self.at, order, order).is_ok()
        };
        if !given {
            self.arena.spare.offer(self.resume.unwrap_or(self.at), self.end);
        }
    }
}

#[inline]
fn segment_of(offset: u64) -> usize {
    // The logarithm is never that of 0, which takes a branch.
    ((offset | (FIRST_SPAN / 2)).ilog2() - (FIRST_SPAN / 2).ilog2()) as usize
}

#[inline]
fn segment_start(k: usize) -> u64 {
    (1 << k >> 1) * FIRST_SPAN
}

fn span(k: usize) -> u64 {
    FIRST_SPAN << k.saturating_sub(1)
}

/// The first offset of a segment that may be handed out.
fn first_free(k: usize) -> u64 {
    segment_start(k).max(FIRST_OFFSET)
}

fn round_up(bytes: u64, align: u64) -> u64 {
    bytes.next_multiple_of(align)
}

#[cfg(test)]
mod tests {
    use super::*;
    use memtide_base::Kind;

    fn carve<'a>(arena: &'a Arena, bytes: u64) -> Option<Slab<'a>> {
        let plan = arena.plan(bytes, Beside::default())?;
        assert!(arena.allocate(&plan));
        Some(arena.slab(&plan))
    }

    #[test]
    fn segments_cover_the_offsets_without_gap() {
        for k in 0..SEGMENTS {
            assert_eq!(segment_of(segment_start(k)), k);
            assert_eq!(segment_of(segment_start(k) + span(k) - 1), k);
        }
        assert_eq!(segment_start(SEGMENTS - 1) + span(SEGMENTS - 1), (1 << 32) * UNIT);
    }

    #[test]
    fn records_read_back_and_the_rest_of_a_slab_is_used_again() {
        let arena = Arena::new(1 << 20);
        let mut refs = Vec::new();
        for seq in 0..2000 {
            let key = format!("key{seq}");
            let value = vec![7; (seq % 90) as usize];
            let mut slab = carve(&arena, 400).expect("a megabyte holds them");
            let entry = NewEntry::new(key.as_bytes(), 0, seq, Kind::Put, &value);
            refs.push(slab.record(3, &entry));
        }
        assert!(arena.reserved() <= 1 << 19, "{} B for about 130 kB", arena.reserved());
        for (seq, &at) in (0..).zip(&refs) {
            let entry = arena.entry(at);
            assert_eq!((entry.key, entry.seq), (format!("key{seq}").as_bytes(), seq));
            assert_eq!(entry.value.len() as u64, seq % 90);
            assert_eq!(arena.link(at, 2).load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn what_a_slab_leaves_in_the_midst_is_used_again() {
        let arena = Arena::new(1 << 16);
        let mut first = carve(&arena, 1000).expect("fits");
        let second = carve(&arena, 1000).expect("fits");
        first.words(10);
        let used = arena.used();
        drop(first);
        assert_eq!(arena.used(), used, "the second slab lies behind");
        let mut third = carve(&arena, 600).expect("fits");
        let mut fourth = carve(&arena, 600).expect("fits");
        third.words(10);
        fourth.words(10);
        assert_eq!(arena.used(), used + 600, "only the fourth slab is new");
        drop((second, third));
        // What the third left is larger than what the second did not use, and is one piece.
        assert!(carve(&arena, 900).is_some_and(|slab| slab.at < used));
        drop(fourth);
        assert!(arena.used() <= used + 40 + 8, "{} B", arena.used());
    }

    #[test]
    fn a_spare_piece_that_is_not_used_stays() {
        for behind_is_dropped_first in [true, false] {
            let arena = Arena::new(1 << 16);
            let mut first = carve(&arena, 1000).expect("fits");
            let second = carve(&arena, 1000).expect("fits");
            first.words(10);
            drop(first);
            let spare = if behind_is_dropped_first {
                drop(second);
                carve(&arena, 600).expect("fits")
            } else {
                let spare = carve(&arena, 600).expect("fits");
                drop(second);
                spare
            };
            drop(spare);
            // All but the ten words is free, in one piece or two.
            let again = carve(&arena, 800).expect("fits");
            assert!(again.at <= 8 + 40 + 8, "begins at {}", again.at);
            drop(again);
            assert!(arena.used() <= 40 + 8, "{} B", arena.used());
        }
    }

    #[test]
    fn what_comes_back_between_a_plan_and_its_slab_is_used_again() {
        let arena = Arena::new(1 << 16);
        // At the tail: the slab before gives its rest back too late for the plan.
        let mut first = carve(&arena, 1000).expect("fits");
        first.words(10);
        let plan = arena.plan(200, Beside::default()).expect("fits");
        drop(first);
        let mut second = arena.slab(&plan);
        second.words(50);
        drop(second);
        assert_eq!(arena.used(), 40 + 200);
        let third = carve(&arena, 900).expect("fits");
        // In the spare piece: a larger one takes its place.
        let mut fourth = carve(&arena, 2500).expect("fits");
        let fifth = carve(&arena, 8).expect("fits");
        fourth.words(10);
        drop(third);
        let plan = arena.plan(100, Beside::default()).expect("fits");
        assert!(plan.is_spare);
        let larger = fourth.end - fourth.at;
        drop(fourth);
        let sixth = arena.slab(&plan);
        let seventh = carve(&arena, larger - 8).expect("fits");
        assert!(seventh.at < fifth.at, "the larger piece is lost");
        assert!(sixth.end - sixth.at >= 900, "the rest of the smaller piece is lost");
        drop((fifth, sixth));
    }

    #[test]
    fn a_slab_larger_than_what_a_segment_has_left_uses_that_first() {
        let arena = Arena::new(1 << 20);
        let mut last = None;
        for _ in 0..60 {
            let mut slab = carve(&arena, 12_000).expect("a megabyte holds them");
            for _ in 0..300 {
                let at = slab.words(10);
                assert!(last < Some(at), "refs rise");
                last = Some(at);
            }
        }
        let used = arena.used();
        assert!(used <= 60 * 12_000 + 8 * 40, "{used} B");
    }

    #[test]
    fn the_limit_holds_to_the_byte() {
        for limit in [64, 100, 4096, 5000, 70_000] {
            let arena = Arena::new(limit);
            while let Some(mut slab) = carve(&arena, 48) {
                slab.words(12);
            }
            assert!(arena.reserved() <= limit);
            assert!(arena.reserved() + 48 + 16 > limit || limit < 64, "{limit}");
        }
        let needed = Arena::limit_for(100_000);
        assert!(carve(&Arena::new(needed), 100_000).is_some());
    }

    #[test]
    #[should_panic(expected = "a reservation has")]
    fn an_insert_beyond_its_reservation_is_a_bug_that_shows() {
        let arena = Arena::new(4096);
        let mut slab = carve(&arena, 16).expect("fits");
        slab.words(5);
    }
}
