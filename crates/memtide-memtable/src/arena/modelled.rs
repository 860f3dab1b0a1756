//! What stands for an arena's memory under a model checker: the same bytes as values that it can watch.
//!
//! Every word is an atomic of its own of the checker's kind; every record is a value that can be written
//! once, beside a cell through which loom sees the order of its write and its reads. So a record that is
//! read before it is whole fails under both checkers, one that is read without an order behind its write
//! fails under loom, and words taken for a record or the reverse fail as a record that was never written.

use std::fmt;

use memtide_base::sync::OnceLock;
use memtide_base::sync::atomic::{AtomicU32, AtomicU64};

use super::{SEGMENTS, segment_of, segment_start};

#[derive(Debug, Default)]
struct Segment {
    words: Vec<AtomicU32>,
    words8: Vec<AtomicU64>,
    /// One for each place where a record can begin.
    records: Vec<Record>,
}

#[derive(Default)]
struct Record {
    bytes: OnceLock<Box<[u8]>>,
    #[cfg(loom)]
    access: Access,
}

/// Loom's view of a record's bytes.
#[cfg(loom)]
#[derive(Default)]
struct Access(loom::cell::UnsafeCell<()>);

// SAFETY: the cell guards no memory; it is here to be asked from several threads.
#[cfg(loom)]
unsafe impl Sync for Access {}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes.fmt(f)
    }
}

/// See `memory`, whose functions these are.
#[derive(Debug)]
pub(super) struct Memory([OnceLock<Segment>; SEGMENTS]);

impl Memory {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }

    pub(super) fn allocate(&self, k: usize, len: u64) -> bool {
        fn values<T: Default>(bytes: u64, each: u64) -> Vec<T> {
            (0..bytes / each).map(|_| T::default()).collect()
        }
        let segment =
            Segment { words: values(len, 4), words8: values(len, 8), records: values(len, 4) };
        self.0[k].set(segment).is_ok()
    }

    pub(super) fn len(&self, k: usize) -> u64 {
        self.0[k].get().map_or(0, |segment| 4 * segment.words.len() as u64)
    }

    pub(super) fn words(&self, offset: u64, count: u32) -> &[AtomicU32] {
        let (segment, at) = self.place(offset);
        &segment.words[at / 4..][..count as usize]
    }

    pub(super) fn words8(&self, offset: u64, count: u32) -> &[AtomicU64] {
        assert_eq!(offset % 8, 0, "64-bit words are 8-aligned");
        let (segment, at) = self.place(offset);
        &segment.words8[at / 8..][..count as usize]
    }

    pub(super) fn record<'a>(&'a self, offset: u64) -> impl Fn(usize, usize) -> &'a [u8] {
        let (segment, at) = self.place(offset);
        let record = &segment.records[at / 4];
        #[cfg(loom)]
        record.access.0.with(|_| ());
        let bytes = record.bytes.get().expect("a record is read after it was written");
        move |start, len| &bytes[start..start + len]
    }

    pub(super) fn write(&self, offset: u64, len: usize, fill: impl FnOnce(&mut [u8])) {
        let (segment, at) = self.place(offset);
        let record = &segment.records[at / 4];
        let mut bytes = vec![0; len].into_boxed_slice();
        fill(&mut bytes);
        #[cfg(loom)]
        record.access.0.with_mut(|_| ());
        record.bytes.set(bytes).expect("a record is written once");
    }

    /// A checker has no caches.
    pub(super) fn prefetch(&self, _offset: u64, _lines: usize) {}

    fn place(&self, offset: u64) -> (&Segment, usize) {
        let k = segment_of(offset);
        let segment = self.0[k].get().expect("offsets lie in allocated segments");
        (segment, usize::try_from(offset - segment_start(k)).expect("targets are 64-bit"))
    }
}
