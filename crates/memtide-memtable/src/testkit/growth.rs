//! Laws of growth: from one key to two thousand, so that every node, block, bucket, chunk and run passes
//! each of its thresholds, in three orders of arrival and with keys that differ late.

use memtide_base::{Kind, SeqNo, Target};

use super::subject::{Step, Subject, brief, move_cursor};
use crate::MemtableKind;

const SIZE_MAX: u64 = 2_000;
/// Every size up to here is compared with the model.
const SIZE_DENSE: u64 = 70;

/// Keys that arrive in order.
pub fn ascending_keys_at_every_size(kind: &MemtableKind) {
    grow(kind, |index| index);
}

/// Keys that arrive in reverse order.
pub fn descending_keys_at_every_size(kind: &MemtableKind) {
    grow(kind, |index| SIZE_MAX - 1 - index);
}

/// Keys that arrive in no order.
pub fn shuffled_keys_at_every_size(kind: &MemtableKind) {
    grow(kind, |index| index * 1_009 % SIZE_MAX);
}

/// One key among few that receives two thousand versions, in three orders.
pub fn overwrites_at_every_size(kind: &MemtableKind) {
    let orders: [fn(u64) -> u64; 3] =
        [|index| index, |index| SIZE_MAX - 1 - index, |index| index * 1_009 % SIZE_MAX];
    for order in orders {
        let mut subject = Subject::new(kind);
        for index in 0..SIZE_MAX {
            let seq = order(index);
            let key: &[u8] = [&b"tide"[..], b"tide", b"tidal", b"tides"][(seq % 4) as usize];
            let to = if seq % 9 == 0 { Kind::Delete } else { Kind::Put };
            subject
                .write(to, key, &seq.to_le_bytes()[..8 * usize::from(to == Kind::Put)], seq)
                .expect("there is room");
            if is_threshold(index + 1) {
                for below in [SIZE_MAX / 2, SeqNo::MAX] {
                    subject.verify_walks(below);
                }
                look(&subject, key);
            }
        }
    }
}

fn grow(kind: &MemtableKind, order: fn(u64) -> u64) {
    let shapes: [fn(u64) -> Vec<u8>; 4] = [
        // Differ in the last of eight bytes first.
        |number| number.to_be_bytes().to_vec(),
        // Equal heads, a long shared prefix.
        |number| format!("users/europe/{number:05}/profile").into_bytes(),
        // Equal heads and different lengths: only the length tells two of them apart.
        |number| {
            [b"tide-tide".to_vec(), b"~".repeat(usize::try_from(number).expect("small"))].concat()
        },
        // First bytes spread over the whole alphabet, lengths from 0 to 3.
        |number| {
            let bytes = (number * 40_503 % 65_536 * 251).to_be_bytes();
            bytes[5..].iter().rev().copied().collect()
        },
    ];
    for shape in shapes {
        let mut subject = Subject::new(kind);
        for index in 0..SIZE_MAX {
            let key = shape(order(index));
            subject.put(&key, &index.to_le_bytes()[..2], index + 1);
            if is_threshold(index + 1) {
                subject.verify_walks(index / 2);
                subject.verify_walks(SeqNo::MAX);
                look(&subject, &key);
            }
        }
    }
}

/// Sizes near which structures change, and some between.
fn is_threshold(size: u64) -> bool {
    let near_power = (size - 1).is_power_of_two() || size.is_power_of_two();
    size <= SIZE_DENSE || near_power || size.is_multiple_of(173) || size == SIZE_MAX
}

/// Gets and seeks at a key and beside it.
fn look(subject: &Subject, key: &[u8]) {
    let mut cursor = subject.table().cursor(SeqNo::MAX);
    let mut behind = key.to_vec();
    behind.push(0);
    for probe in [key, &behind, &key[..key.len().saturating_sub(1)]] {
        let want = subject.model().newest(probe, SeqNo::MAX).map(|version| version.1);
        let shown = subject.get(probe, SeqNo::MAX).map(|entry| entry.seq);
        assert_eq!(shown, want, "get {probe:?}");
        for target in [Target::Ge(probe), Target::Le(probe)] {
            let shown = move_cursor(&mut cursor, Step::Seek(target));
            let want = subject.model().seek(target, SeqNo::MAX);
            assert_eq!(shown.as_ref().map(brief), want.as_ref().map(brief), "{target:?}");
        }
    }
}
