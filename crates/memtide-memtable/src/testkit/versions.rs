//! Laws of versions and keys: what a get returns, whatever the keys look like and however they arrive.

use memtide_base::{Kind, SeqNo, key};

use super::subject::Subject;
use crate::{Inserted, MemtableKind};

/// A read below S sees the newest version with `seq < S`, and none from S on.
pub fn get_sees_the_newest_version_below_its_bound(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    subject.put(b"ebb", b"other", 15);
    subject.put(b"tide", b"low", 10);
    subject.put(b"tide", b"high", 20);
    subject.put(b"tides", b"other", 25);
    let cases: [(SeqNo, Option<&[u8]>); 6] = [
        (0, None),
        (10, None),
        (11, Some(b"low")),
        (20, Some(b"low")),
        (21, Some(b"high")),
        (SeqNo::MAX, Some(b"high")),
    ];
    for (below, want) in cases {
        let shown = subject.get(b"tide", below).map(|entry| entry.value);
        assert_eq!(shown, want, "read below seqno {below}");
    }
    subject.verify();
}

/// A delete is a version like any other: reads between see what was before it and after it.
pub fn deletes_are_versions(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    subject.put(b"k", b"one", 1);
    subject.delete(b"k", 3);
    subject.put(b"k", b"two", 5);
    subject.delete(b"absent", 7);
    let kind_below = |key: &[u8], below| subject.get(key, below).map(|entry| entry.kind);
    assert_eq!(kind_below(b"k", 3), Some(Kind::Put));
    assert_eq!(kind_below(b"k", 4), Some(Kind::Delete));
    assert_eq!(kind_below(b"k", 6), Some(Kind::Put));
    assert_eq!(kind_below(b"absent", 8), Some(Kind::Delete), "a delete needs no put before it");
    subject.verify();
}

/// The empty key is the smallest key, and nothing else.
pub fn the_empty_key_is_a_key(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    subject.put(b"\0", b"zero", 1);
    assert_eq!(subject.get(b"", SeqNo::MAX), None);
    subject.put(b"", b"empty", 2);
    subject.put(b"", b"", 3);
    subject.put(b"a", b"a", 4);
    subject.delete(b"", 5);
    subject.verify();
}

/// Keys of 65,535 bytes are told apart by their first and by their last byte.
pub fn the_longest_keys_are_keys(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    let longest = vec![b'k'; key::KEY_LEN_MAX];
    let mut keys = vec![longest.clone(), longest[1..].to_vec(), longest[..8].to_vec(), vec![]];
    for (at, byte) in [(0, 0), (0, 0xFF), (8, 0), (40_000, 0xFF)] {
        let mut changed = longest.clone();
        changed[at] = byte;
        keys.push(changed);
    }
    for byte in [0, b'j', b'l', 0xFF] {
        let mut changed = longest.clone();
        changed[key::KEY_LEN_MAX - 1] = byte;
        keys.push(changed);
    }
    for (seq, key) in (1..).zip(&keys) {
        subject.put(key, &key[..key.len().min(3)], seq);
    }
    subject.put(&longest, b"again", 100);
    subject.verify();
}

/// A key is not its prefix, in whatever order they arrive.
pub fn prefixes_of_each_other_are_different_keys(kind: &MemtableKind) {
    let text = b"abcdefgh12345678abcdefgh12345678";
    for rotation in [0, 1, 8, 9, 17, 31] {
        let mut subject = Subject::new(kind);
        for (seq, step) in (1..).zip(0..=text.len()) {
            let len = (step * 7 + rotation) % (text.len() + 1);
            subject.put(&text[..len], &[u8::try_from(len).expect("32")], seq);
        }
        subject.verify();
    }
}

/// What most keys are expected to begin with changes no answer, whether they do or not.
pub fn an_anchor_changes_no_answer(kind: &MemtableKind) {
    for anchor in [&b"mid/"[..], b"mid/0000000000000000000000000000", b"\0", b"\xFF\xFF"] {
        let mut subject = Subject::anchored(kind, anchor);
        let around = ["", "a", "mi", "mid", "mid.", "mid/", "mid0", "mie", "zzzzzzzzz"];
        let mut keys: Vec<Vec<u8>> = around.iter().map(|key| key.as_bytes().to_vec()).collect();
        keys.extend([vec![0], vec![0; 9], vec![0xFF], vec![0xFF; 2], vec![0xFF; 20]]);
        keys.extend((0..400).map(|number| format!("mid/{:028}", number * 7).into_bytes()));
        keys.extend((0..200).map(|number| format!("mid/{:x}", number * 31).into_bytes()));
        let count = keys.len();
        for seq in 0..2 * count {
            let key = &keys[seq * 389 % count];
            subject.put(key, b"v", seq as SeqNo);
        }
        subject.verify();
    }
}

/// Zero bytes do not end a key and 0xFF bytes do not end an order.
pub fn runs_of_00_and_ff_are_ordered_as_bytes(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    let mut seq = 0;
    for len in [1, 2, 7, 8, 9, 15, 16, 17, 64, 255, 256, 300] {
        for fill in [0x00, 0xFF] {
            for last in [0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF] {
                let mut key = vec![fill; len];
                key[len - 1] = last;
                seq += 1;
                subject.put(&key, b"v", seq);
                if subject.get(&key[..len - 1], SeqNo::MAX).is_none() {
                    seq += 1;
                    subject.delete(&key[..len - 1], seq);
                }
            }
        }
    }
    subject.verify();
}

/// A hash only hints: keys that share all of it, or its upper or lower half, stay apart.
pub fn keys_with_one_hash_are_different_keys(kind: &MemtableKind) {
    let hashes: [fn(&[u8]) -> u64; 5] = [
        |_| 0,
        |_| u64::MAX,
        |key| key.len() as u64,
        |key| (key.len() as u64) << 56,
        |key| u64::from(key.last().copied().unwrap_or_default() & 1) << 32,
    ];
    for hash_of in hashes {
        let mut subject = Subject::new(kind).hashed_by(hash_of);
        for seq in 0..180_u64 {
            let key = format!("{:03}{}", seq * 7 % 120, "x".repeat((seq * 7 % 120 % 5) as usize));
            subject.put(key.as_bytes(), &seq.to_le_bytes(), seq);
        }
        subject.verify();
    }
}

/// The sequence number orders versions, not their arrival: all orders of five versions show the same.
pub fn versions_may_arrive_in_any_order(kind: &MemtableKind) {
    let seqs = [10, 20, 30, 40, 50];
    for order in 0..120 {
        let mut subject = Subject::new(kind);
        subject.put(b"a", b"before", 25);
        let (mut left, mut code) = (seqs.to_vec(), order);
        while !left.is_empty() {
            let seq = left.remove(code % left.len());
            code /= left.len() + 1;
            match seq {
                30 => subject.delete(b"k", seq),
                _ => subject.put(b"k", seq.to_string().as_bytes(), seq),
            };
        }
        subject.put(b"z", b"behind", 5);
        subject.verify();
    }
}

/// Sequence numbers have gaps of any size up to what a log can put between them.
pub fn sequence_numbers_may_lie_far_apart(kind: &MemtableKind) {
    for first in [1 << 35, 1 << 50, u64::MAX - (1 << 35)] {
        let mut subject = Subject::new(kind);
        for seq in [first, first + (1 << 34), first - (1 << 34), first + 1, first - 1] {
            subject.put(b"k", &seq.to_le_bytes(), seq);
            subject.put(&seq.to_be_bytes(), b"v", seq);
        }
        subject.verify();
    }
}

/// The same key and sequence number again, even with another kind or value, changes nothing.
pub fn a_duplicate_changes_nothing(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    for seq in 0..200_u64 {
        subject.put(format!("{:02}", seq % 40).as_bytes(), &seq.to_le_bytes(), seq);
    }
    let before = subject.table().usage();
    for seq in [0, 1, 39, 40, 100, 160, 198, 199] {
        let key = format!("{:02}", seq % 40);
        assert_eq!(subject.put(key.as_bytes(), b"changed", seq), Inserted::Duplicate);
        assert_eq!(subject.delete(key.as_bytes(), seq), Inserted::Duplicate);
        assert_eq!(subject.put(key.as_bytes(), &seq.to_le_bytes(), seq), Inserted::Duplicate);
    }
    let after = subject.table().usage();
    assert_eq!((after.keys, after.values), (before.keys, before.values));
    subject.verify();
}

/// An insert tells a new key from a new version, unless the variant never looks.
pub fn an_insert_says_what_it_did(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    for round in 0..4_u64 {
        for number in 0..100_u64 {
            let did = subject.put(format!("{number:03}").as_bytes(), b"v", round * 100 + number);
            let want = if round == 0 { Inserted::NewKey } else { Inserted::NewVersion };
            assert!(did == want || did == Inserted::Appended, "round {round}: {did:?}");
        }
    }
    subject.verify();
}
