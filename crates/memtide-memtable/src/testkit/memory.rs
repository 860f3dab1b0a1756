//! Laws of memory: batches, limits, refusals that change nothing, accounts that add up.

use memtide_base::ledger::Ledger;
use memtide_base::{Kind, SeqNo};

use super::random::Dice;
use super::subject::Subject;
use crate::{Full, MemtableKind, Usage};

/// Values of 1 MiB, and of the lengths where a record's header grows, come back whole.
pub fn values_of_a_mebibyte_are_values(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    for (seq, len) in (1_u8..).zip([1 << 20, 0, 16_382, 16_383, 16_384, 1 << 20, 1, 1 << 20]) {
        let value = vec![seq; len];
        subject.put(&[b'k', seq % 3], &value, seq.into());
    }
    subject.verify();
}

/// Batches of any size and order fit the memory that was reserved for them.
pub fn a_batch_is_reserved_together(kind: &MemtableKind) {
    let orders: [fn(u64) -> u64; 4] = [|i| i, |i| 100_000 - i, |i| i * 7919 % 5003, |i| i % 3];
    for order in orders {
        let mut subject = Subject::new(kind);
        let mut seq = 0;
        for len in [1, 2, 3, 17, 64, 1, 200, 1000, 5] {
            let keys: Vec<_> = (seq..seq + len).map(|i| format!("k{:06}", order(i))).collect();
            let write = |(index, key): (usize, &'_ String)| match index % 7 {
                3 => (Kind::Delete, 0, key.len()),
                6 if index < 60 => (Kind::RangeDelete, 2, key.len()),
                _ => (Kind::Put, index % 6, key.len()),
            };
            let writes: Vec<_> = (0..)
                .zip(&keys)
                .map(|(index, key)| {
                    let (kind, value_len, key_len) = write((index, key));
                    (kind, &key.as_bytes()[..key_len], &b"value"[..value_len.min(5)])
                })
                .collect();
            subject.write_batch(&writes, seq).expect("there is room");
            seq += len;
        }
        subject.verify_walks(SeqNo::MAX);
        subject.verify_walks(seq / 2);
    }
}

/// A refused batch changes nothing and names the limit with which an empty table takes it.
pub fn a_batch_beyond_the_limit_is_refused_with_the_limit_it_needs(kind: &MemtableKind) {
    for (entries, value_len) in [(1, 40_000), (40, 1_000), (400, 60), (4_000, 0), (1, 1 << 20)] {
        let keys: Vec<_> = (0..entries).map(|i| format!("{:05}", i * 7919 % 10_007)).collect();
        let value = vec![7; value_len];
        let writes: Vec<_> =
            keys.iter().map(|key| (Kind::Put, key.as_bytes(), value.as_slice())).collect();

        let mut subject = Subject::with_limit(kind, 20_000);
        for seq in 0..5 {
            subject.put(b"before", b"value", seq);
        }
        let before = subject.table().usage();
        let refused = subject.write_batch(&writes, 10).expect_err("20 kB do not hold it");
        assert_eq!(subject.table().usage(), before, "a refused batch changes nothing");
        subject.verify();
        let Full::Table { bytes_max } = refused else { panic!("{refused:?} is not the limit") };

        let mut fresh = Subject::with_limit(kind, bytes_max);
        let taken = fresh.write_batch(&writes, 10);
        assert_eq!(taken, Ok(()), "{entries} values of {value_len} B in {bytes_max} B");
        let reserved = fresh.table().usage().reserved;
        assert!(reserved <= bytes_max, "{reserved} B of {bytes_max} B are reserved");
        fresh.verify_walks(SeqNo::MAX);
    }
}

/// A reservation that inserts nothing, or only a part, leaves the rest as it was; what it allocated
/// serves the next one. The first reservation of a table may leave what all keys share, a filter.
pub fn an_unused_reservation_leaves_no_trace(kind: &MemtableKind) {
    let without_reserved = |usage: Usage| Usage { reserved: 0, ..usage };
    let mut subject = Subject::new(kind);
    subject.put(b"first", b"", 0);
    for seq in 1..200_u64 {
        let before = subject.table().usage();
        for value_len in [0, 100, 5_000, 100_000] {
            let value = vec![1; value_len];
            let shape = subject.shape(&[(Kind::Put, b"new", &value), (Kind::Put, b"k", b"")]);
            drop(subject.table().reserve(&shape).expect("there is room"));
            let after = subject.table().usage();
            assert_eq!(without_reserved(after), without_reserved(before), "{value_len} B");
            drop(subject.table().reserve(&shape).expect("there is room"));
            assert_eq!(subject.table().usage(), after, "{value_len} B, the second time");
        }
        subject.put(format!("{:03}", seq * 37 % 101).as_bytes(), b"value", seq);
    }
    subject.verify();
}

/// Whatever is written, `reserved` stays within the limit, most of the limit can be used, and a full table
/// still reads.
pub fn nothing_is_reserved_beyond_the_limit(kind: &MemtableKind) {
    for limit in [10_000, 16 << 10, 65_000, 256 << 10, 1_000_003] {
        for value_len in [0, 24, 700] {
            let mut subject = Subject::with_limit(kind, limit);
            let mut dice = Dice::new(limit);
            let value = vec![b'v'; value_len];
            let (mut seq, mut refused) = (0, None);
            while refused.is_none() {
                let key = dice.below(limit / 8).to_string();
                refused = subject.write(Kind::Put, key.as_bytes(), &value, seq).err();
                let reserved = subject.table().usage().reserved;
                assert!(reserved <= limit, "{reserved} B of {limit} B after {seq} writes");
                seq += 1;
                assert!(seq <= limit, "a limit of {limit} B is never reached");
            }
            assert!(matches!(refused, Some(Full::Table { .. })), "{refused:?}");
            let used = subject.table().usage().used;
            assert!(used > limit / 2 || limit < 60_000, "{used} B of {limit} B are used when full");
            subject.verify_walks(SeqNo::MAX);
        }
    }
}

/// The budget is asked before memory is allocated; its refusal changes nothing, and it gets all back.
pub fn the_budget_refuses_before_anything_changes(kind: &MemtableKind) {
    let mut first = Subject::new(kind);
    first.put(b"first", b"", 0);
    // Half of a budget is for memtables.
    let ledger = Ledger::new(2 * first.table().usage().reserved + 20_000);
    let mut subject = Subject::with_ledger(kind, super::TABLE_BYTES_MAX, ledger.clone());
    let (mut seq, mut refused) = (0, None);
    while refused.is_none() {
        let before = (subject.table().usage(), ledger.total());
        refused = subject.write(Kind::Put, &seq.to_string().into_bytes(), &[0; 40], seq).err();
        let after = (subject.table().usage(), ledger.total());
        assert!(refused.is_none() || before == after, "{before:?} became {after:?}");
        assert!(after.1 <= ledger.budget());
        assert!(seq < 10_000, "the budget is never used up");
        seq += 1;
    }
    assert_eq!(refused, Some(Full::Budget));
    assert!(seq > 20, "{seq} writes");
    subject.verify();
    drop(subject);
    assert_eq!(ledger.total(), 0);
}

/// Keys, values and overhead are what is used; keys and values are what was written; the ledger has lent
/// what is reserved.
pub fn usage_adds_up(kind: &MemtableKind) {
    let ledger = Ledger::unlimited();
    let mut subject = Subject::with_ledger(kind, super::TABLE_BYTES_MAX, ledger.clone());
    let mut dice = Dice::new(1);
    let (mut keys, mut values) = (0, 0);
    for seq in 0..1_500 {
        let key = vec![b'k'; dice.below_len(40) + 1];
        let value = vec![b'v'; dice.below_len(300)];
        match dice.below(20) {
            0 => subject.delete_range(&key, &value, seq),
            _ => drop(subject.put(&key, &value, seq)),
        }
        keys += key.len() as u64;
        values += value.len() as u64;
        if seq % 50 == 0 {
            subject.verify_walks(seq);
            let covering = subject.table().covering_tombstone(b"kk", seq);
            assert!(covering.is_none_or(|covering| covering < seq));
        }
        let usage = subject.table().usage();
        assert_eq!((usage.keys, usage.values), (keys, values));
        assert_eq!(usage.used, usage.keys + usage.values + usage.overhead);
        assert!(usage.used <= usage.reserved, "{usage:?}");
        assert_eq!(ledger.total(), usage.reserved);
    }
    drop(subject);
    assert_eq!(ledger.total(), 0);
}

/// `check()` passes after every 64 mixed operations.
pub fn the_structure_holds_after_every_64_operations(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    let mut dice = Dice::new(64);
    for seq in 0..64 * 64 {
        let key = format!("{:0width$}", dice.below(900), width = 2 + (seq % 3) as usize * 7);
        match dice.below(16) {
            0..4 => drop(subject.delete(key.as_bytes(), seq)),
            4 => subject.delete_range(key.as_bytes(), b"", seq),
            5 => assert!(subject.get(key.as_bytes(), seq).is_none_or(|entry| entry.seq < seq)),
            _ => drop(subject.put(key.as_bytes(), &seq.to_le_bytes(), seq)),
        }
        if seq % 64 == 63 {
            subject.table().check().unwrap_or_else(|wrong| panic!("after {seq}: {wrong}"));
        }
    }
    subject.verify_walks(SeqNo::MAX);
}
