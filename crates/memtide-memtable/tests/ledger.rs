//! The account of a memtable against what the allocator really gave: byte for byte, for every variant.
//!
//! A binary of its own, because it holds the counting allocator. The counts are per thread, so each test
//! measures itself alone however many run beside it.

#![expect(unsafe_code, reason = "an allocator can only be an unsafe implementation")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Bound;

use memtide_base::ledger::Ledger;
use memtide_base::sync::Arc;
use memtide_base::{Cursor, Kind, SeqNo, Target, hash};
use memtide_memtable::{
    Ahead, Anchor, BatchShape, CustomIndex, IndexHints, Memtable, MemtableFactory, MemtableKind,
    MemtableOptions, MemtableType, RecordRef, Records, WARM_KEYS,
};

/// The system's allocator, counting for each thread.
struct Counting;

thread_local! {
    /// Bytes this thread allocated minus those it freed.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    /// How often this thread allocated.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn note(bytes: i64) {
    LIVE.with(|live| live.set(live.get() + bytes));
    ALLOCATIONS.with(|count| count.set(count.get() + u64::from(bytes > 0)));
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates (the cells are
// constant-initialised and need no destructor) nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(signed(layout.size()));
        // SAFETY: the caller's promise is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(signed(layout.size()));
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note(-signed(layout.size()));
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(-signed(layout.size()));
        note(signed(new_size));
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(at, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HASH_SEED: u64 = 99;
const BYTES_MAX: u64 = 64 << 20;
const KEY_LEN: usize = 12;

/// A table and the live bytes from before it was made.
struct Account {
    ledger: Arc<Ledger>,
    table: Option<Arc<Memtable>>,
    live_before: i64,
    seq: SeqNo,
}

impl Account {
    fn open(kind: &MemtableKind) -> Self {
        let ledger = Ledger::unlimited();
        let options = MemtableOptions {
            kind: kind.clone(),
            bytes_max: BYTES_MAX,
            hash_seed: HASH_SEED,
            key_filter: true,
            anchor: Anchor::default(),
            ledger: ledger.clone(),
        };
        let live_before = LIVE.get();
        Self { ledger, table: Some(Memtable::new(&options)), live_before, seq: 0 }
    }

    fn table(&self) -> &Arc<Memtable> {
        self.table.as_ref().expect("open until closed")
    }

    fn put(&mut self, number: u64, value: &[u8]) {
        let (key, table) = (key_of(number), self.table.as_ref().expect("open until closed"));
        let (hash, mut shape) = (hash::key_hash(HASH_SEED, &key), BatchShape::default());
        table.measure(&mut shape, Kind::Put, hash, &key, value);
        let mut reservation = table.reserve(&shape).expect("there is room");
        reservation.insert(Kind::Put, hash, &key, value, self.seq);
        self.seq += 1;
        drop(reservation);
        if self.seq.is_multiple_of(64) {
            self.balance();
        }
    }

    fn delete_range(&mut self, from: u64, to: u64) {
        let (from, to) = (key_of(from), key_of(to));
        let table = self.table();
        let mut shape = BatchShape::default();
        table.measure(&mut shape, Kind::RangeDelete, 0, &from, &to);
        table.reserve(&shape).expect("there is room").delete_range(&from, &to, self.seq);
        self.seq += 1;
    }

    /// Reserved minus live bytes is 0, and the ledger has lent what is reserved.
    #[track_caller]
    fn balance(&self) {
        let live = LIVE.get() - self.live_before;
        let usage = self.table().usage();
        let reserved = i64::try_from(usage.reserved).expect("far below 2^63");
        let kind = self.table().kind().clone();
        assert_eq!(reserved - live, 0, "{kind} after {} operations: {usage:?}", self.seq);
        assert_eq!(self.ledger.total(), usage.reserved, "{kind} after {} operations", self.seq);
    }

    /// Drops the table; everything must come back.
    #[track_caller]
    fn close(mut self) {
        self.balance();
        let kind = self.table().kind().clone();
        self.table = None;
        assert_eq!(LIVE.get() - self.live_before, 0, "{kind} after the drop");
        assert_eq!(self.ledger.total(), 0, "{kind} after the drop");
    }
}

/// A key on the stack, so that making one allocates nothing.
fn key_of(number: u64) -> [u8; KEY_LEN] {
    let mut key = *b"key/00000000";
    key[4..].copy_from_slice(&number.to_be_bytes());
    key
}

fn scatter(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40
}

fn sequential_puts_balance(kind: &MemtableKind) {
    let mut account = Account::open(kind);
    account.balance();
    for number in 0..4_000 {
        account.put(number, &[1; 20]);
    }
    account.close();
}

fn random_puts_balance(kind: &MemtableKind) {
    let mut account = Account::open(kind);
    for number in 0..4_000 {
        account.put(scatter(number), &[1; 20]);
    }
    account.close();
}

fn overwrites_balance(kind: &MemtableKind) {
    let mut account = Account::open(kind);
    for number in 0..4_000 {
        account.put(scatter(number) % 50, &[1; 20]);
    }
    account.close();
}

fn values_of_all_sizes_balance(kind: &MemtableKind) {
    let value = vec![7; 1 << 20];
    let lens = [0, 1, 100, 4_096, 16_383, 65_536, 300_000, 1 << 20];
    let mut account = Account::open(kind);
    for number in 0..200 {
        let len = lens[usize::try_from(scatter(number) % 8).expect("below 8")];
        account.put(number, &value[..len]);
        account.balance();
    }
    account.close();
}

/// Scans build views in some variants, and cursors keep old ones; range tombstones are fragmented on demand,
/// and readers keep old fragments.
fn scans_and_range_deletes_balance(kind: &MemtableKind) {
    let mut account = Account::open(kind);
    let mut kept = account.table().cursor(0);
    let mut fragments = account.table().range_tombstones();
    for number in 0..3_000 {
        account.put(scatter(number) % 1_000, &[1; 20]);
        if number % 37 == 0 {
            let mut cursor = account.table().cursor(account.seq);
            assert!(cursor.seek(Target::First).expect("a memtable cursor never fails"));
            while cursor.next().expect("a memtable cursor never fails") {}
            account.balance();
            if number % 5 == 0 {
                kept = cursor;
            }
        }
        if number % 101 == 0 {
            account.delete_range(number, number + 7);
            account.balance();
        }
        if number % 149 == 0 {
            let covering = account.table().covering_tombstone(&key_of(number), account.seq);
            assert!(covering.is_some() || number > 0);
            account.balance();
            if number % 298 == 0 {
                fragments = account.table().range_tombstones();
                account.balance();
            }
        }
    }
    drop((kept, fragments));
    account.close();
}

/// A batch that is refused and a reservation that is not used balance like any other.
fn refusals_and_unused_reservations_balance(kind: &MemtableKind) {
    let value = vec![0; 1 << 20];
    let mut account = Account::open(kind);
    for number in 0..300 {
        account.put(scatter(number), &[1; 20]);
        let copies = if number % 10 == 0 { 80 } else { number % 3 };
        let mut shape = BatchShape::default();
        for copy in 0..copies {
            account.table().measure(&mut shape, Kind::Put, copy, &key_of(copy), &value);
        }
        assert_eq!(account.table().reserve(&shape).is_err(), copies == 80);
        account.balance();
    }
    account.close();
}

fn gets_warming_and_cursor_steps_do_not_allocate(kind: &MemtableKind) {
    let mut account = Account::open(kind);
    for number in 0..3_000 {
        account.put(scatter(number) % 1_000, &[1; 20]);
    }
    let (table, seq) = (account.table(), account.seq);

    let before = ALLOCATIONS.get();
    let mut hits = 0;
    for number in 0..1_000 {
        let key = key_of(number);
        let hash = hash::key_hash(HASH_SEED, &key);
        for below in [seq / 2, seq] {
            hits += u64::from(table.get(&key, hash, below).is_some());
        }
    }
    assert!(hits > 1_000, "{hits} hits");
    assert_eq!(ALLOCATIONS.get() - before, 0, "{kind}: allocations in 2,000 gets");

    let before = ALLOCATIONS.get();
    for ahead in [Ahead::Get, Ahead::Insert] {
        for first in (0..1_000).step_by(WARM_KEYS) {
            let keys: [_; WARM_KEYS] = std::array::from_fn(|at| key_of(first + at as u64));
            let hashed = keys.iter().map(|key| (&key[..], hash::key_hash(HASH_SEED, key)));
            table.warm_at_any_size(ahead, hashed);
        }
    }
    assert_eq!(ALLOCATIONS.get() - before, 0, "{kind}: allocations in 2,000 warmed keys");

    for (from, forward) in [(Target::First, true), (Target::Last, false)] {
        let mut cursor = table.cursor(seq);
        assert!(cursor.seek(from).expect("a memtable cursor never fails"));
        let before = ALLOCATIONS.get();
        let mut steps = 0_u64;
        loop {
            while cursor.older().expect("a memtable cursor never fails") {
                steps += 1;
            }
            let moved = if forward { cursor.next() } else { cursor.prev() };
            if !moved.expect("a memtable cursor never fails") {
                break;
            }
            steps += 1;
        }
        assert!(steps > 2_000, "{steps} steps");
        assert_eq!(ALLOCATIONS.get() - before, 0, "{kind}: allocations in {steps} steps");
    }
    account.close();
}

/// One test module per variant, as the conformance suite has them.
macro_rules! each_variant {
    ($($variant:ident => $kind:expr),+ $(,)?) => {
        $(each_variant!(@module $variant, $kind =>
            sequential_puts_balance
            random_puts_balance
            overwrites_balance
            values_of_all_sizes_balance
            scans_and_range_deletes_balance
            refusals_and_unused_reservations_balance
            gets_warming_and_cursor_steps_do_not_allocate
        );)+
    };
    (@module $variant:ident, $kind:expr => $($claim:ident)+) => {
        mod $variant {
            $(
                #[test]
                fn $claim() {
                    super::$claim(&$kind);
                }
            )+
        }
    };
}

each_variant!(
    sorted => crate::MemtableType::Sorted.into(),
    skiplist => crate::MemtableType::Skiplist.into(),
    trie => crate::MemtableType::Trie.into(),
    linked_list => crate::MemtableType::LinkedList.into(),
    hash_linked_list => crate::MemtableType::HashLinkedList.into(),
    enhanced_skiplist => crate::MemtableType::EnhancedSkiplist.into(),
    hash_skiplist => crate::MemtableType::HashSkiplist.into(),
    vector => crate::MemtableType::Vector.into(),
    custom => crate::MemtableKind::custom(crate::InOrder::default()),
);

/// A program's own index that knows its heap to the byte: references in order of their keys.
#[derive(Default)]
struct InOrder(Vec<RecordRef>);

impl CustomIndex for InOrder {
    fn insert(&mut self, records: &Records<'_>, new: RecordRef, _hash: u64) {
        let at = self.0.partition_point(|&known| records.key(known) < records.key(new));
        self.0.insert(at, new);
    }

    fn first_from(&self, records: &Records<'_>, from: Bound<&[u8]>) -> Option<RecordRef> {
        let at = self.0.partition_point(|&at| match from {
            Bound::Included(key) => records.key(at) < key,
            Bound::Excluded(key) => records.key(at) <= key,
            Bound::Unbounded => false,
        });
        self.0.get(at).copied()
    }

    fn last_to(&self, records: &Records<'_>, to: Bound<&[u8]>) -> Option<RecordRef> {
        let end = self.0.partition_point(|&at| match to {
            Bound::Included(key) => records.key(at) <= key,
            Bound::Excluded(key) => records.key(at) < key,
            Bound::Unbounded => true,
        });
        end.checked_sub(1).map(|last| self.0[last])
    }

    fn heap_bytes(&self) -> u64 {
        (self.0.capacity() * size_of::<RecordRef>()) as u64
    }

    fn heap_bytes_after(&self, keys: u64) -> u64 {
        (self.0.capacity() as u64 + keys + 4) * 3 * size_of::<RecordRef>() as u64
    }
}

impl MemtableFactory for InOrder {
    fn name(&self) -> &str {
        "in_order"
    }

    fn create(&self, _hints: &IndexHints) -> Box<dyn CustomIndex> {
        Box::new(Self::default())
    }
}
