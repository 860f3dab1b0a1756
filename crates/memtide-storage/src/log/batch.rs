//! The payload of a batch record: its writes, one behind the other.
//!
//! ```text
//! size    field, `count` times
//! 1       kind       as `memtide_base::Kind`: 0 = delete, 1 = put, 4 = range delete, ...
//! 1..5    keyspace   varint
//! 1..3    key_len    varint, at most 65,535
//! 1..5    value_len  varint, at most 1 GiB; 0 for a delete; at most 65,536 for a range delete
//! n       key        the start, for a range delete
//! n       value      the end, for a range delete; empty = unbounded
//! ```
//!
//! Write `i` of the record at LSN `l` has the sequence number `l + i`. Behind the last write follow only the
//! zeros that round the record up to a multiple of 8.
//!
//! The decoder takes hostile bytes. It does not know which keyspaces exist, and reads no integers inside
//! values.

use std::fmt;
use std::path::Path;

use memtide_base::key::{KEY_LEN_MAX, RANGE_END_LEN_MAX, VALUE_LEN_MAX};
use memtide_base::varint::{len_u64, read_u32, read_u64, write_u64};
use memtide_base::{Error, ErrorKind, Kind};

use super::record::RECORD_HEADER_BYTES;

/// Most zeros behind the last write: records are multiples of 8.
const PADDING_LEN_MAX: usize = 7;

fn value_len_max(kind: Kind) -> usize {
    match kind {
        Kind::Delete | Kind::SingleDelete => 0,
        Kind::RangeDelete => RANGE_END_LEN_MAX,
        Kind::Put | Kind::Merge | Kind::BlobHandle | Kind::PutWithExpiry => VALUE_LEN_MAX,
    }
}

/// One write of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOp<'a> {
    /// What it does.
    pub kind: Kind,
    /// The number of the keyspace it goes to.
    pub keyspace: u32,
    /// The key, or the start of a range delete.
    pub key: &'a [u8],
    /// The value, or the end of a range delete.
    pub value: &'a [u8],
}

impl BatchOp<'_> {
    /// Appends it to the payload of a batch. The caller has checked the limits.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Self { kind, keyspace, key, value } = *self;
        let over = key.len() > KEY_LEN_MAX || value.len() > value_len_max(kind);
        debug_assert!(!over, "over a limit");
        out.push(kind as u8);
        write_u64(out, keyspace.into());
        write_u64(out, key.len() as u64);
        write_u64(out, value.len() as u64);
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }

    /// Bytes that [`BatchOp::encode`] appends.
    #[inline]
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let (key, value) = (self.key.len(), self.value.len());
        1 + len_u64(self.keyspace.into())
            + len_u64(key as u64)
            + len_u64(value as u64)
            + key
            + value
    }
}

/// The payload of a batch is not what a writer of this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchDamage {
    /// `Corruption`, or `Unsupported` for a write that only a newer version knows.
    pub kind: ErrorKind,
    /// What is wrong.
    pub what: &'static str,
    /// Offset inside the payload.
    pub offset: usize,
}

impl BatchDamage {
    /// The error for the batch whose record lies at `record_offset` of `file`.
    #[must_use]
    pub fn in_record(self, file: &Path, record_offset: u64) -> Error {
        let offset = record_offset + RECORD_HEADER_BYTES + self.offset as u64;
        if self.kind == ErrorKind::Unsupported {
            let text = format!("{} at offset {offset} of {}", self.what, file.display());
            return Error::new(self.kind, text)
                .with_file(file)
                .with_hint("open it with the version of Memtide that wrote it");
        }
        Error::corruption("batch", file, offset, self.what)
    }
}

impl fmt::Display for BatchDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {} of the batch", self.what, self.offset)
    }
}

impl std::error::Error for BatchDamage {}

/// The writes of a batch, in order. Ends after the first damage it reports.
#[derive(Clone, Debug)]
pub struct BatchOps<'a> {
    payload: &'a [u8],
    rest: &'a [u8],
    left: u32,
    ended: bool,
}

impl<'a> BatchOps<'a> {
    /// The `count` writes in `payload`, which may end in the padding of its record.
    #[must_use]
    pub fn new(payload: &'a [u8], count: u32) -> Self {
        Self { payload, rest: payload, left: count, ended: false }
    }

    fn decode(&mut self) -> Result<BatchOp<'a>, BatchDamage> {
        let damage =
            |what| BatchDamage { kind: ErrorKind::Corruption, what, offset: self.offset() };
        let mut input = self.rest;
        let Some((&byte, after_kind)) = input.split_first() else {
            return Err(damage("fewer writes than the record counts"));
        };
        input = after_kind;
        let kind = Kind::from_byte(byte).ok_or_else(|| damage("a write of unknown kind"))?;
        if !kind.is_supported() {
            let what = "a write of a kind this version does not read";
            return Err(BatchDamage { kind: ErrorKind::Unsupported, ..damage(what) });
        }
        let keyspace = read_u32(&mut input).ok_or_else(|| damage("a malformed keyspace number"))?;
        let key_len = read_len(&mut input, KEY_LEN_MAX)
            .ok_or_else(|| damage("a key length that is malformed or over the limit"))?;
        let value_len = read_len(&mut input, value_len_max(kind))
            .ok_or_else(|| damage("a value length that is malformed or over the limit"))?;
        let cut = || damage("a write that runs past the end");
        let (key, after_key) = input.split_at_checked(key_len).ok_or_else(cut)?;
        let (value, rest) = after_key.split_at_checked(value_len).ok_or_else(cut)?;
        self.rest = rest;
        Ok(BatchOp { kind, keyspace, key, value })
    }

    fn check_end(&self) -> Option<BatchDamage> {
        let padding = self.rest.len() <= PADDING_LEN_MAX && self.rest.iter().all(|&byte| byte == 0);
        let what = "bytes behind the last write";
        (!padding).then(|| BatchDamage { kind: ErrorKind::Corruption, what, offset: self.offset() })
    }

    fn offset(&self) -> usize {
        self.payload.len() - self.rest.len()
    }
}

impl<'a> Iterator for BatchOps<'a> {
    type Item = Result<BatchOp<'a>, BatchDamage>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.ended = true;
            return self.check_end().map(Err);
        };
        self.left = left;
        let op = self.decode();
        self.ended = op.is_err();
        Some(op)
    }
}

impl std::iter::FusedIterator for BatchOps<'_> {}

fn read_len(input: &mut &[u8], max: usize) -> Option<usize> {
    read_u64(input).and_then(|len| usize::try_from(len).ok()).filter(|&len| len <= max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(payload: &[u8], count: u32) -> Result<Vec<BatchOp<'_>>, BatchDamage> {
        BatchOps::new(payload, count).collect()
    }

    fn sample() -> Vec<u8> {
        let mut payload = Vec::new();
        let long = [0xFF; RANGE_END_LEN_MAX];
        for (kind, keyspace, key, value) in [
            (Kind::Put, 0, &b"k"[..], &b"v"[..]),
            (Kind::Delete, 300, b"", b""),
            (Kind::RangeDelete, u32::MAX, b"a", &long),
        ] {
            let (op, before) = (BatchOp { kind, keyspace, key, value }, payload.len());
            op.encode(&mut payload);
            assert_eq!(payload.len() - before, op.encoded_len());
        }
        payload
    }

    #[test]
    fn writes_read_back_with_or_without_padding() {
        let mut payload = sample();
        for _ in 0..=PADDING_LEN_MAX {
            let ops = decode(&payload, 3).unwrap();
            assert_eq!(ops[0], BatchOp { kind: Kind::Put, keyspace: 0, key: b"k", value: b"v" });
            assert_eq!((ops[1].kind, ops[1].keyspace, ops[1].key), (Kind::Delete, 300, &b""[..]));
            assert_eq!((ops[2].keyspace, ops[2].value.len()), (u32::MAX, RANGE_END_LEN_MAX));
            payload.push(0);
        }
        assert_eq!(decode(&payload, 3).unwrap_err().what, "bytes behind the last write");
        assert_eq!(decode(&[], 0).unwrap(), []);
    }

    #[test]
    fn a_wrong_count_is_damage() {
        let payload = sample();
        let fewer = decode(&payload, 4).unwrap_err();
        assert_eq!(
            (fewer.what, fewer.offset),
            ("fewer writes than the record counts", payload.len())
        );
        assert!(decode(&payload, 2).is_err() && decode(&payload, 0).is_err());
        assert!(decode(&payload, u32::MAX).is_err());
    }

    #[test]
    fn lengths_over_the_limits_are_damage_and_reserved_kinds_are_unsupported() {
        let op = |kind: u8, key_len: u64, value_len: u64| {
            let mut payload = vec![kind, 0];
            write_u64(&mut payload, key_len);
            write_u64(&mut payload, value_len);
            payload.resize(payload.len() + 9_000_000, b'x');
            decode(&payload, 1).unwrap_err()
        };
        let behind = "bytes behind the last write";
        assert_eq!(op(1, 65_535, 8 << 20).what, behind, "a large put is fine");
        let largest = op(1, 65_535, 1 << 30).what;
        assert!(!largest.contains("over the limit"), "only cut off: {largest}");
        assert_eq!(op(4, 65_535, 65_536).what, behind, "the largest range delete is fine");
        for (kind, key_len, value_len) in
            [(1, 65_536, 0), (1, 0, (1 << 30) + 1), (0, 0, 1), (4, 0, 65_537), (1, u64::MAX, 0)]
        {
            let error = op(kind, key_len, value_len);
            assert!(error.what.contains("over the limit"), "{kind} {key_len} {value_len}: {error}");
        }
        let reserved = op(2, 0, 0);
        assert_eq!(reserved.kind, ErrorKind::Unsupported);
        let error = reserved.in_record(Path::new("wal/0.wal"), 4096);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(op(7, 0, 0).in_record(Path::new("w"), 4096).offset(), Some(4120));
    }

    proptest! {
        #[test]
        fn hostile_payloads_never_panic_and_what_decodes_encodes_the_same_writes(
            bytes in prop::collection::vec(prop_oneof![0..8_u8, any::<u8>()], 0..200),
            count in 0..6_u32,
        ) {
            if let Ok(ops) = decode(&bytes, count) {
                let mut again = Vec::new();
                for op in &ops {
                    op.encode(&mut again);
                }
                prop_assert_eq!(decode(&again, count).unwrap(), ops);
            }
        }
    }
}
