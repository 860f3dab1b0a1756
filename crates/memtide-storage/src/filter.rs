//! Blocked Bloom filter: "this key is not here" for the price of one cache line.
//!
//! A key's hash picks one line of 512 bits by its high half and the bits inside by its low half, so a
//! probe touches one line however many bits it tests. (Putze, Sanders, Singler 2007; the remixing of the
//! low half as in RocksDB's `FastLocalBloom`, 2019.)
//!
//! ```text
//! offset  size      field
//! 0       1         kind       1 = this filter; unknown kinds are treated as no filter
//! 1       1         k          bits tested for each key, 1..=16
//! 2       2         zero
//! 4       4         lines      L, at least 1
//! 8       8         hash_seed  seed of the xxh3-64 over the user key
//! 16      64L       bits       bit b of a line: byte b / 8, bit b % 8
//! ```
//!
//! Probe, all in wrapping u32: `h = hash as u32; k times: test bit h >> 23; h *= 0x9E3779B9`.
//! Line: `((hash >> 32) * L) >> 32`.
//!
//! The filter stores the seed its hashes were made with, so a table that comes from another database
//! still answers right: the caller's hash is used only if its seed is the same.

use memtide_base::hash::spread;

use crate::block::BLOCK_LEN_MAX;

const KIND_BLOCKED_BLOOM: u8 = 1;
const HEADER_LEN: usize = 16;
const LINE_LEN: usize = 64;
const PROBES_MAX: u8 = 16;
const LINES_MAX: usize = (BLOCK_LEN_MAX - HEADER_LEN) / LINE_LEN;

/// A validated filter over the keys of one partition of a table.
#[derive(Debug)]
pub struct Filter {
    probes: u8,
    hash_seed: u64,
    lines: Box<[[u8; LINE_LEN]]>,
}

impl Filter {
    /// A filter over keys with these hashes, at about `bits_per_key` (more than 13 million keys share
    /// the largest filter and get fewer).
    #[must_use]
    pub fn build(hashes: &[u64], bits_per_key: u32, hash_seed: u64) -> Self {
        let bits = hashes.len().saturating_mul(bits_per_key as usize);
        let lines = bits.div_ceil(8 * LINE_LEN).clamp(1, LINES_MAX);
        // ln 2 probes per bit of a key suit one big filter best; short lines like somewhat fewer.
        let probes = (u64::from(bits_per_key) * 6 / 10).clamp(1, 12) as u8;
        let mut filter = Self { probes, hash_seed, lines: vec![[0; LINE_LEN]; lines].into() };
        for &hash in hashes {
            let line = filter.line_of(hash);
            for bit in bits_of(hash, probes) {
                filter.lines[line][bit / 8] |= 1 << (bit % 8);
            }
        }
        filter
    }

    /// Reads a filter block's payload; `None` for a kind of filter this build does not know.
    ///
    /// # Errors
    /// A sentence about what is wrong with the bytes.
    pub fn decode(payload: &[u8]) -> Result<Option<Self>, String> {
        let (header, bits) = payload.split_first_chunk::<HEADER_LEN>().ok_or("no filter header")?;
        let [kind, probes, zero @ .., l0, l1, l2, l3, s0, s1, s2, s3, s4, s5, s6, s7] = *header;
        if kind != KIND_BLOCKED_BLOOM {
            return Ok(None);
        }
        let lines = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let (stored, rest) = bits.as_chunks::<LINE_LEN>();
        let whole = rest.is_empty() && lines == stored.len() && lines > 0;
        if !whole || !(1..=PROBES_MAX).contains(&probes) || zero != [0, 0] {
            let len = bits.len();
            return Err(format!("a filter of {lines} lines, {probes} probes in {len} B"));
        }
        let hash_seed = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        Ok(Some(Self { probes, hash_seed, lines: stored.into() }))
    }

    /// Replaces `out` by the filter block's payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let lines = u32::try_from(self.lines.len()).expect("a filter fits into one block");
        out.clear();
        out.extend_from_slice(&[KIND_BLOCKED_BLOOM, self.probes, 0, 0]);
        out.extend_from_slice(&lines.to_le_bytes());
        out.extend_from_slice(&self.hash_seed.to_le_bytes());
        out.extend_from_slice(self.lines.as_flattened());
    }

    /// Bytes [`Filter::encode`] makes of a filter over so many keys.
    #[must_use]
    pub fn encoded_len(keys: usize, bits_per_key: u32) -> usize {
        let bits = keys.saturating_mul(bits_per_key as usize);
        HEADER_LEN + LINE_LEN * bits.div_ceil(8 * LINE_LEN).clamp(1, LINES_MAX)
    }

    /// Whether a key with this hash may be here; `false` is certain.
    #[inline]
    #[must_use]
    pub fn may_contain(&self, hash: u64) -> bool {
        let line = &self.lines[self.line_of(hash)];
        bits_of(hash, self.probes).all(|bit| line[bit / 8] >> (bit % 8) & 1 == 1)
    }

    /// The seed of the hashes it was built from.
    #[inline]
    #[must_use]
    pub fn hash_seed(&self) -> u64 {
        self.hash_seed
    }

    /// Heap bytes it holds.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.lines.as_flattened().len()
    }

    #[inline]
    fn line_of(&self, hash: u64) -> usize {
        let lines = u32::try_from(self.lines.len()).expect("a filter fits into one block");
        spread(hash, lines) as usize
    }
}

#[inline]
fn bits_of(hash: u64, probes: u8) -> impl Iterator<Item = usize> {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    let mut mixed = hash as u32;
    (0..probes).map(move |_| {
        let bit = mixed >> 23;
        mixed = mixed.wrapping_mul(0x9E37_79B9);
        bit as usize
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use memtide_base::hash::key_hash;

    fn hashes(range: std::ops::Range<u64>) -> Vec<u64> {
        range.map(|number| key_hash(5, format!("user{number:012}").as_bytes())).collect()
    }

    #[test]
    fn no_key_is_denied_and_few_strangers_are_admitted() {
        for keys in [1, 50, 20_000] {
            let present = hashes(0..keys);
            let filter = Filter::build(&present, 10, 5);
            assert!(present.iter().all(|&hash| filter.may_contain(hash)), "{keys} keys");
            let strangers = hashes(1_000_000..1_050_000);
            let admitted = strangers.iter().filter(|&&hash| filter.may_contain(hash)).count();
            assert!(admitted * 50 <= strangers.len(), "{admitted} of 50000 at {keys} keys");
        }
    }

    #[test]
    fn a_filter_reads_back_and_damaged_headers_are_refused() {
        let present = hashes(0..500);
        let filter = Filter::build(&present, 10, 5);
        let mut payload = Vec::new();
        filter.encode(&mut payload);
        assert_eq!(payload.len(), Filter::encoded_len(500, 10));
        let read = Filter::decode(&payload).expect("as encoded").expect("a known kind");
        assert_eq!((read.hash_seed(), &read.lines), (5, &filter.lines));
        for (at, byte) in [(1, 0), (1, 17), (2, 1), (4, 0), (7, 0xFF)] {
            let mut hostile = payload.clone();
            hostile[at] = byte;
            assert!(Filter::decode(&hostile).is_err(), "byte {at} = {byte}");
        }
        assert!(Filter::decode(&payload[..payload.len() - 1]).is_err());
        assert!(Filter::decode(&payload[..15]).is_err());
        payload[0] = 9;
        assert!(Filter::decode(&payload).expect("a later kind").is_none());
    }
}
