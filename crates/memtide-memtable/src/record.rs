//! How a memtable stores one write. The same for all variants, so nothing is ever re-encoded.
//!
//! ```text
//! offset  size  field
//! -4*n    4*n   link words of the variant, atomics
//! 0       8     header, native-endian u64:
//!                 bits 0..36   seq - base of the memtable
//!                 bits 36..39  kind
//!                 bits 39..50  key length, 0x7FF = the u32 behind the header
//!                 bits 50..64  value length, 0x3FFF = the next u32
//! 8       0|4   key length
//! ..      0|4   value length
//! ..      k     key
//! ..      v     value
//! ```
//!
//! Records are 4-aligned and immutable. The base lies 2^35 below the memtable's first sequence number, so
//! writes may come out of order by 32 GiB of log either way, far more than one memtable lives through.

use memtide_base::{Entry, Kind, SeqNo};

use crate::entry::NewEntry;

const SEQ_BITS: u32 = 36;
/// How far from a memtable's first sequence number all others must stay; half of what a header can say.
pub(crate) const SEQ_REACH: u64 = 1 << (SEQ_BITS - 2);
const KIND_SHIFT: u32 = SEQ_BITS;
const KEY_SHIFT: u32 = KIND_SHIFT + 3;
const VALUE_SHIFT: u32 = KEY_SHIFT + 11;
const KEY_ESCAPE: u64 = 0x7FF;
const VALUE_ESCAPE: u64 = 0x3FFF;
const HEADER_LEN: usize = 8;
const EXTRA_LEN: usize = 4;

/// The base that headers of a memtable count from, given its first sequence number.
pub(crate) fn seq_base(first: SeqNo) -> SeqNo {
    first.wrapping_sub(1 << (SEQ_BITS - 1))
}

/// Bytes of a record without its link words, padding included.
pub(crate) fn record_bytes(key_len: usize, value_len: usize) -> u64 {
    (body_len(key_len, value_len) as u64).next_multiple_of(4)
}

fn body_len(key_len: usize, value_len: usize) -> usize {
    let extra = |len: usize, escape: u64| if len as u64 >= escape { EXTRA_LEN } else { 0 };
    HEADER_LEN + extra(key_len, KEY_ESCAPE) + extra(value_len, VALUE_ESCAPE) + key_len + value_len
}

/// The header of a record about to be written.
pub(crate) struct Header {
    bits: u64,
    body_len: usize,
}

impl Header {
    /// # Panics
    /// If the sequence number is further than 2^35 from the memtable's first: the engine rotates before
    /// [`SEQ_REACH`].
    pub(crate) fn of(entry: &NewEntry<'_>, base: SeqNo) -> Self {
        let delta = entry.seq.wrapping_sub(base);
        assert!(delta >> SEQ_BITS == 0, "seq {} is too far from base {base}", entry.seq);
        let key_bits = (entry.key.len() as u64).min(KEY_ESCAPE);
        let value_bits = (entry.value.len() as u64).min(VALUE_ESCAPE);
        let bits = delta
            | (entry.kind as u64) << KIND_SHIFT
            | key_bits << KEY_SHIFT
            | value_bits << VALUE_SHIFT;
        Self { bits, body_len: body_len(entry.key.len(), entry.value.len()) }
    }

    /// Bytes from the header to the end of the value.
    pub(crate) fn body_len(&self) -> usize {
        self.body_len
    }

    /// Writes the record into `body`, which is exactly [`Header::body_len`] long.
    pub(crate) fn write(&self, body: &mut [u8], entry: &NewEntry<'_>) {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            body[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.bits.to_le_bytes());
        for (len, escape) in [(entry.key.len(), KEY_ESCAPE), (entry.value.len(), VALUE_ESCAPE)] {
            if len as u64 >= escape {
                let len = u32::try_from(len).expect("keys and values are below 4 GiB");
                put(&len.to_le_bytes());
            }
        }
        put(entry.key);
        put(entry.value);
    }
}

/// Reads a record back; `bytes(start, len)` are bytes of the record from its first one on.
#[inline]
pub(crate) fn decode<'a>(bytes: impl Fn(usize, usize) -> &'a [u8], base: SeqNo) -> Entry<'a> {
    let bits = header(&bytes);
    let (start, key_len, value_len) = lengths(bits, &bytes);
    let (key, value) = bytes(start, key_len + value_len).split_at(key_len);
    let kind = u8::try_from(bits >> KIND_SHIFT & 7).expect("three bits");
    Entry {
        key,
        seq: seq_of(bits, base),
        kind: Kind::from_byte(kind).expect("a record holds the kind it was written with"),
        value,
    }
}

/// The key of a record; `bytes` as in [`decode`].
#[inline]
pub(crate) fn key<'a>(bytes: impl Fn(usize, usize) -> &'a [u8]) -> &'a [u8] {
    let (start, key_len, _) = lengths(header(&bytes), &bytes);
    bytes(start, key_len)
}

/// The sequence number of a record; `bytes` as in [`decode`].
#[inline]
pub(crate) fn seq<'a>(bytes: impl Fn(usize, usize) -> &'a [u8], base: SeqNo) -> SeqNo {
    seq_of(header(&bytes), base)
}

#[inline]
fn header<'a>(bytes: &impl Fn(usize, usize) -> &'a [u8]) -> u64 {
    let header = bytes(0, HEADER_LEN).first_chunk().expect("eight bytes were asked for");
    u64::from_le_bytes(*header)
}

#[inline]
fn seq_of(bits: u64, base: SeqNo) -> SeqNo {
    base.wrapping_add(bits & ((1 << SEQ_BITS) - 1))
}

/// Where the key starts, its length and the value's.
#[inline]
fn lengths<'a>(bits: u64, bytes: &impl Fn(usize, usize) -> &'a [u8]) -> (usize, usize, usize) {
    let mut start = HEADER_LEN;
    let mut length = |short: u64, escape: u64| {
        if short != escape {
            return usize::try_from(short).expect("14 bits");
        }
        let long = bytes(start, EXTRA_LEN).first_chunk().expect("four bytes were asked for");
        start += EXTRA_LEN;
        u32::from_le_bytes(*long) as usize
    };
    let key_len = length(bits >> KEY_SHIFT & KEY_ESCAPE, KEY_ESCAPE);
    let value_len = length(bits >> VALUE_SHIFT, VALUE_ESCAPE);
    (start, key_len, value_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;

    #[test]
    fn every_length_and_distance_reads_back() {
        let arena = Arena::new(64 << 20);
        let lens = [0, 1, 3, 2046, 2047, 2048, 16_382, 16_383, 16_384, 65_535, 1 << 20];
        for (index, key_len) in lens.into_iter().filter(|&len| len <= 65_535).enumerate() {
            for value_len in lens {
                let (key, value) = (vec![1; key_len], vec![2; value_len]);
                let seq = (1 << 40) + [0, 1 << 34, 5][index % 3] - [0, 1 << 34][value_len % 2];
                let plan = arena
                    .plan(record_bytes(key_len, value_len), crate::arena::Beside::default())
                    .expect("64 MiB hold it");
                assert!(arena.allocate(&plan));
                let at =
                    arena.slab(&plan).record(0, &NewEntry::new(&key, 0, seq, Kind::Put, &value));
                let want = Entry { key: &key, seq, kind: Kind::Put, value: &value };
                assert_eq!(arena.entry(at), want);
            }
        }
    }
}
