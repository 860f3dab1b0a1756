//! The raw memory of an arena: segments of zeroed bytes, seen as atomics or as records.
//!
//! # Safety model
//! The crate's one module of raw memory. All functions are crate-private and safe to call under these
//! rules, which the modules around it keep (they contain no `unsafe`, so breaking one would be a bug here
//! or in a variant's use of a `Ref`, never in user code):
//! 1. An offset comes from a `Ref` of a slab of the arena it is used with. Every access is bounds-checked
//!    against its segment, so a foreign `Ref` cannot leave the arena; it may break rule 2.
//! 2. Words are only viewed as words and records only as records; link words lie before their record.
//! 3. A record's `Ref` reaches another thread only through a lock or a Release store, after it is whole.
//! 4. No two slabs overlap, and a slab is used by one thread at a time: what it writes, nobody else sees.
//!
//! Every pointer is derived from its segment's allocation, never from an integer. The arena's unit tests and
//! the conformance suite (`tests/it`, its racing laws above all) exercise every block here. Rules 2 to 4 are
//! what `modelled` checks in this module's place: there a record that is read before it was written, or
//! without an order between the two, fails the test (`cargo x loom`, `cargo x shuttle`).

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr;
use std::slice;

use memtide_base::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::{LINE, SEGMENTS, segment_of, segment_start};

const ALIGN: usize = 8;

/// From this size on a segment asks for huge pages. They are 2 MiB, so what a smaller one has of them is little, and
/// what the system rounds up would tell in a small table.
const HUGE_PAGES_MIN: usize = 4 << 20;

#[derive(Debug)]
struct Segment {
    base: AtomicPtr<u8>,
    len: AtomicUsize,
}

/// The segments of one arena.
#[derive(Debug)]
pub(super) struct Memory([Segment; SEGMENTS]);

impl Memory {
    pub(super) fn new() -> Self {
        let empty = || Segment { base: AtomicPtr::new(ptr::null_mut()), len: AtomicUsize::new(0) };
        Self(std::array::from_fn(|_| empty()))
    }

    /// Allocates segment `k`, which was not; `false` if the system has no memory.
    pub(super) fn allocate(&self, k: usize, len: u64) -> bool {
        let Ok(size) = usize::try_from(len) else { return false };
        let Ok(layout) = Layout::from_size_align(size, ALIGN) else { return false };
        assert!(size > 0 && self.len(k) == 0, "segment {k} is allocated once, for something");
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        if base.is_null() {
            return false;
        }
        want_huge_pages(base, size, true);
        let segment = &self.0[k];
        segment.base.store(base, Ordering::Release);
        // Release pairs with the Acquire in `rest`: who sees the length sees the base.
        segment.len.store(size, Ordering::Release);
        true
    }

    /// Bytes of segment `k`; 0 until it is allocated.
    #[inline]
    pub(super) fn len(&self, k: usize) -> u64 {
        self.0[k].len.load(Ordering::Relaxed) as u64
    }

    /// `count` words from a 4-aligned offset on.
    #[inline]
    pub(super) fn words(&self, offset: u64, count: u32) -> &[AtomicU32] {
        let base = self.span(offset, u64::from(count) * 4);
        // SAFETY: `span` checked that the range lies inside one live segment; offsets are multiples of four
        // and segments 8-aligned; rule 2 says these bytes are only ever accessed as atomics.
        unsafe { slice::from_raw_parts(base.cast::<AtomicU32>(), count as usize) }
    }

    /// `count` 64-bit words from an offset on that must be 8-aligned.
    #[inline]
    pub(super) fn words8(&self, offset: u64, count: u32) -> &[AtomicU64] {
        assert!(offset.is_multiple_of(8), "64-bit words are 8-aligned");
        let base = self.span(offset, u64::from(count) * 8);
        // SAFETY: as in `words`; the alignment was just checked and segments are 8-aligned.
        unsafe { slice::from_raw_parts(base.cast::<AtomicU64>(), count as usize) }
    }

    /// Reads `len` bytes of the record at `offset` from its byte `start` on.
    #[inline]
    pub(super) fn record<'a>(&'a self, offset: u64) -> impl Fn(usize, usize) -> &'a [u8] {
        let (base, left) = self.rest(offset);
        move |start, len| {
            assert!(start <= left && len <= left - start, "a record ends in its segment");
            // SAFETY: in bounds by the assertion; by rules 2 and 3 the bytes of a record that someone holds
            // a `Ref` to are initialised and never written again.
            unsafe { slice::from_raw_parts(base.add(start), len) }
        }
    }

    /// Lets `fill` write the `len` bytes of a record that was carved just now.
    #[inline]
    pub(super) fn write(&self, offset: u64, len: usize, fill: impl FnOnce(&mut [u8])) {
        let base = self.span(offset, len as u64);
        // SAFETY: the bytes were carved for this record alone (rule 4), so no reference to them exists; they
        // are initialised (zeroed) and in bounds by `span`.
        fill(unsafe { slice::from_raw_parts_mut(base, len) });
    }

    /// Asks the processor for `lines` cache lines from the one of `offset` on, and does not wait for them. Those
    /// outside of the segment are asked for in vain.
    #[inline]
    pub(super) fn prefetch(&self, offset: u64, lines: usize) {
        let k = segment_of(offset);
        // Acquire pairs with the Release in `allocate`, so that the address is one; nothing is read from it.
        let base = self.0[k].base.load(Ordering::Acquire);
        #[expect(clippy::cast_possible_truncation, reason = "targets are 64-bit")]
        let first = base.wrapping_add((offset - segment_start(k)) as usize);
        for line in 0..lines {
            prefetch_line(first.wrapping_add(line * LINE));
        }
    }

    /// A pointer to `len` bytes inside one segment.
    #[inline]
    fn span(&self, offset: u64, len: u64) -> *mut u8 {
        let (base, left) = self.rest(offset);
        if len > left as u64 {
            outside(offset, len);
        }
        base
    }

    /// A pointer into a segment and how many bytes of the segment follow it.
    #[inline]
    fn rest(&self, offset: u64) -> (*mut u8, usize) {
        let k = segment_of(offset);
        let segment = &self.0[k];
        #[expect(clippy::cast_possible_truncation, reason = "targets are 64-bit")]
        let inner = (offset - segment_start(k)) as usize;
        // Acquire pairs with the Release store in `allocate`.
        let allocated = segment.len.load(Ordering::Acquire);
        if inner > allocated {
            outside(offset, 0);
        }
        let base = segment.base.load(Ordering::Relaxed);
        // SAFETY: `inner` lies within the allocation that `base` was returned for, or at its end.
        (unsafe { base.add(inner) }, allocated - inner)
    }
}

/// Asks for a cache line.
#[inline]
fn prefetch_line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it reads nothing that the program could see and faults at no address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// A function, so that what it prints is not kept at hand in every access.
#[cold]
#[inline(never)]
fn outside(offset: u64, len: u64) -> ! {
    panic!("offset {offset} + {len} is outside its segment");
}

impl Drop for Memory {
    fn drop(&mut self) {
        for segment in &mut self.0 {
            let (base, len) = (*segment.base.get_mut(), *segment.len.get_mut());
            if len != 0 {
                want_huge_pages(base, len, false);
                let layout = Layout::from_size_align(len, ALIGN)
                    .expect("the same layout was valid when it was allocated");
                // SAFETY: `base` came from `alloc_zeroed` with this very layout, and nobody can hold a
                // borrow of the arena any more.
                unsafe { dealloc(base, layout) };
            }
        }
    }
}

/// Asks for huge pages below a new segment: an index is read all over, and with pages of 4 KiB half of a cache miss
/// is the walk to its address. A wish: where the system has none to give, nothing changes. Before the segment is freed
/// it is taken back, or whatever small thing comes there next would keep 2 MiB resident.
#[cfg(target_os = "linux")]
fn want_huge_pages(base: *mut u8, size: usize, are_wanted: bool) {
    use rustix::mm::{Advice, madvise};

    const PAGE: usize = 2 << 20;
    let before = base.align_offset(PAGE);
    let Some(pages) = size.checked_sub(before).map(|rest| rest / PAGE) else { return };
    if size < HUGE_PAGES_MIN || pages == 0 {
        return;
    }
    let advice = if are_wanted { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage };
    // SAFETY: the whole pages from the first page border in the segment on lie in the allocation, and the advice
    // changes none of their bytes.
    let _ = unsafe { madvise(base.add(before).cast(), pages * PAGE, advice) };
}

#[cfg(not(target_os = "linux"))]
fn want_huge_pages(_base: *mut u8, _size: usize, _are_wanted: bool) {}
