//! What a table says about itself: identity, counts, bounds, how it was made.
//!
//! ```text
//! repeated, tags rising: tag u16 · len u32 · bytes
//!  1 number u64             2 db uuid [16]           3 keyspace u32        4 created_ms u64
//!  5 key order "bytes"      6 rows u64               7 deletes u64         8 range deletes u64
//!  9 merges u64             10 raw key bytes u64     11 raw value bytes u64
//! 12 smallest key           13 largest: u8 {0 included, 1 excluded, 2 unbounded} · key
//! 14 min seq u64            15 max seq u64           16 codec u8
//! 17 filter bits per key u32                         18 writer, text       19 user keys u64
//! 20 blob files referred to: count varint · (number varint · bytes of records varint) ...
//! ```
//!
//! All of these are present, 20 only in a table that refers to any. An unknown tag refuses the table
//! unless its bit 15 is set.
//!
//! Bounds and seqs span points and range tombstones; counts of range deletes count each tombstone once
//! in every fragment it was cut into.

use std::path::Path;

use memtide_base::{Error, Result, SeqNo, Upper};

use super::format::{IGNORABLE, unsupported};
use crate::blob::{BlobRef, BlobRefs};
use crate::compress::Codec;
use crate::identity::FileIdentity;

const KEY_ORDER: &[u8] = b"bytes";

/// The version of this crate, as written into each table; for people only.
pub(super) const WRITER: &str = concat!("memtide ", env!("CARGO_PKG_VERSION"));

/// What is known of a table without reading its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Which table it is.
    pub identity: FileIdentity,
    /// When it was written, in milliseconds since 1970.
    pub created_ms: u64,
    /// Point entries, every version counted.
    pub rows: u64,
    /// Point tombstones among them.
    pub deletes: u64,
    /// Range tombstones, counted in each fragment.
    pub range_deletes: u64,
    /// Different user keys among the point entries.
    pub keys: u64,
    /// Bytes of the keys, before any compression.
    pub raw_key_bytes: u64,
    /// Bytes of the values, before any compression.
    pub raw_value_bytes: u64,
    /// The smallest key of a point or tombstone.
    pub smallest: Vec<u8>,
    /// The upper end of all points and tombstones.
    pub largest: Upper,
    /// The oldest write in it.
    pub seq_min: SeqNo,
    /// The newest write in it.
    pub seq_max: SeqNo,
    /// How its data blocks were to be compressed; each block says for itself.
    pub codec: Codec,
    /// Filter bits for each key; 0 = no filter.
    pub filter_bits_per_key: u32,
    /// Which program wrote it.
    pub writer: String,
    /// What it refers to in blob files.
    pub blobs: BlobRefs,
}

impl Properties {
    /// Appends the properties block's payload.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut field = |tag: u16, bytes: &[u8]| {
            let len = u32::try_from(bytes.len()).expect("no property is that long");
            out.extend_from_slice(&tag.to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(bytes);
        };
        field(1, &self.identity.number.to_le_bytes());
        field(2, &self.identity.db_uuid);
        field(3, &self.identity.keyspace.to_le_bytes());
        field(4, &self.created_ms.to_le_bytes());
        field(5, KEY_ORDER);
        field(6, &self.rows.to_le_bytes());
        field(7, &self.deletes.to_le_bytes());
        field(8, &self.range_deletes.to_le_bytes());
        field(9, &0_u64.to_le_bytes());
        field(10, &self.raw_key_bytes.to_le_bytes());
        field(11, &self.raw_value_bytes.to_le_bytes());
        field(12, &self.smallest);
        field(13, &encode_upper(&self.largest));
        field(14, &self.seq_min.to_le_bytes());
        field(15, &self.seq_max.to_le_bytes());
        field(16, &[self.codec as u8]);
        field(17, &self.filter_bits_per_key.to_le_bytes());
        field(18, self.writer.as_bytes());
        field(19, &self.keys.to_le_bytes());
        // Programs from before there were blob files read on where there are none.
        if !self.blobs.is_empty() {
            let mut blobs = Vec::new();
            self.blobs.encode(&mut blobs);
            field(20, &blobs);
        }
    }

    /// Reads a properties block's payload, which stands at `offset` of `file`.
    pub(super) fn decode(payload: &[u8], offset: u64, file: &Path) -> Result<Self> {
        let fields = Fields::split(payload, offset, file)?;
        for &(tag, _) in &fields.items {
            if tag > 20 && tag & IGNORABLE == 0 {
                return Err(unsupported(file, format!("table property {tag}")));
            }
        }
        if fields.bytes(5)? != KEY_ORDER {
            let order = fields.bytes(5)?.escape_ascii();
            return Err(unsupported(file, format!("key order {order}")));
        }
        if fields.number(9)? != 0 {
            return Err(unsupported(file, "merge operands"));
        }
        let codec = fields.array(16).map(|[byte]| Codec::from_byte(byte))?;
        Ok(Self {
            identity: FileIdentity {
                number: fields.number(1)?,
                db_uuid: fields.array(2)?,
                keyspace: u32::from_le_bytes(fields.array(3)?),
            },
            created_ms: fields.number(4)?,
            rows: fields.number(6)?,
            deletes: fields.number(7)?,
            range_deletes: fields.number(8)?,
            keys: fields.number(19)?,
            raw_key_bytes: fields.number(10)?,
            raw_value_bytes: fields.number(11)?,
            smallest: fields.bytes(12)?.to_vec(),
            largest: decode_upper(fields.bytes(13)?).ok_or_else(|| fields.damaged(13))?,
            seq_min: fields.number(14)?,
            seq_max: fields.number(15)?,
            codec: codec.ok_or_else(|| fields.damaged(16))?,
            filter_bits_per_key: u32::from_le_bytes(fields.array(17)?),
            writer: String::from_utf8_lossy(fields.bytes(18)?).into_owned(),
            blobs: fields.blobs()?,
        })
    }

    /// Heap bytes it holds.
    pub(super) fn heap_bytes(&self) -> usize {
        let largest = match &self.largest {
            Upper::Included(key) | Upper::Excluded(key) => key.capacity(),
            Upper::Unbounded => 0,
        };
        let blobs = self.blobs.len() * size_of::<BlobRef>();
        self.smallest.capacity() + largest + self.writer.capacity() + blobs
    }
}

fn encode_upper(upper: &Upper) -> Vec<u8> {
    let (tag, key): (u8, &[u8]) = match upper {
        Upper::Included(key) => (0, key),
        Upper::Excluded(key) => (1, key),
        Upper::Unbounded => (2, &[]),
    };
    [&[tag], key].concat()
}

fn decode_upper(bytes: &[u8]) -> Option<Upper> {
    match bytes {
        [0, key @ ..] => Some(Upper::Included(key.to_vec())),
        [1, key @ ..] => Some(Upper::Excluded(key.to_vec())),
        [2] => Some(Upper::Unbounded),
        _ => None,
    }
}

/// The fields of a properties block by tag, and where they stand for errors.
struct Fields<'a> {
    items: Vec<(u16, &'a [u8])>,
    offset: u64,
    file: &'a Path,
}

impl<'a> Fields<'a> {
    fn split(mut payload: &'a [u8], offset: u64, file: &'a Path) -> Result<Self> {
        let mut fields = Self { items: Vec::new(), offset, file };
        while !payload.is_empty() {
            let next = payload.split_first_chunk::<6>().and_then(|(header, rest)| {
                let [t0, t1, len @ ..] = *header;
                let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(len) as usize)?;
                Some((u16::from_le_bytes([t0, t1]), bytes, rest))
            });
            let last = fields.items.last().map(|&(tag, _)| tag);
            let Some((tag, bytes, rest)) = next.filter(|&(tag, ..)| last < Some(tag)) else {
                return Err(fields.damaged(last.unwrap_or_default()));
            };
            fields.items.push((tag, bytes));
            payload = rest;
        }
        Ok(fields)
    }

    fn bytes(&self, tag: u16) -> Result<&'a [u8]> {
        let found = self.items.binary_search_by_key(&tag, |&(tag, _)| tag);
        found.map(|at| self.items[at].1).map_err(|_| self.damaged(tag))
    }

    fn array<const N: usize>(&self, tag: u16) -> Result<[u8; N]> {
        self.bytes(tag)?.try_into().map_err(|_| self.damaged(tag))
    }

    fn blobs(&self) -> Result<BlobRefs> {
        let Ok(mut bytes) = self.bytes(20) else { return Ok(BlobRefs::default()) };
        let refs = BlobRefs::decode(&mut bytes).filter(|refs| bytes.is_empty() && !refs.is_empty());
        refs.ok_or_else(|| self.damaged(20))
    }

    fn number(&self, tag: u16) -> Result<u64> {
        self.array(tag).map(u64::from_le_bytes)
    }

    fn damaged(&self, tag: u16) -> Error {
        let detail = format!("no sound property at or behind tag {tag}");
        Error::corruption("properties block", self.file, self.offset, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BlobHandle;
    use memtide_base::ErrorKind;
    use proptest::prelude::*;

    fn sample() -> Properties {
        Properties {
            identity: FileIdentity { db_uuid: [7; 16], number: 12, keyspace: 3 },
            created_ms: 1,
            rows: 2,
            deletes: 1,
            range_deletes: 4,
            keys: 2,
            raw_key_bytes: 20,
            raw_value_bytes: 30,
            smallest: b"a".to_vec(),
            largest: Upper::Excluded(b"z".to_vec()),
            seq_min: 5,
            seq_max: 9,
            codec: Codec::Lz4,
            filter_bits_per_key: 10,
            writer: WRITER.to_string(),
            blobs: BlobRefs::default(),
        }
    }

    fn decode(payload: &[u8]) -> Result<Properties> {
        Properties::decode(payload, 0, Path::new("t.sst"))
    }

    #[test]
    fn properties_read_back_and_only_ignorable_strangers_are_skipped() {
        let mut payload = Vec::new();
        let mut with_blobs = sample();
        for number in [9, 7, 9] {
            with_blobs.blobs.add(BlobHandle { number, offset: 64, len: 32, raw_len: 8 });
        }
        with_blobs.encode(&mut payload);
        assert_eq!(decode(&payload).expect("as encoded"), with_blobs);
        let sums: Vec<_> = with_blobs.blobs.iter().map(|of| (of.number, of.bytes)).collect();
        assert_eq!(sums, [(7, 32), (9, 64)]);
        payload.clear();
        sample().encode(&mut payload);
        assert_eq!(decode(&payload).expect("as encoded"), sample());
        let len = payload.len();
        payload.extend_from_slice(&[0, 0x80, 1, 0, 0, 0, 42]);
        assert_eq!(decode(&payload).expect("an ignorable tag"), sample());
        payload[len + 1] = 0;
        payload[len] = 21;
        assert_eq!(decode(&payload).expect_err("must know").kind(), ErrorKind::Unsupported);
        for cut in 0..len {
            assert!(decode(&payload[..cut]).is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn hostile_properties_never_panic(at: prop::sample::Index, byte: u8, noise: Vec<u8>) {
            let mut payload = Vec::new();
            sample().encode(&mut payload);
            let at = at.index(payload.len());
            payload[at] = byte;
            let _ = (decode(&payload), decode(&noise));
        }
    }
}
