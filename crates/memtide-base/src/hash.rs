//! The hash of a user key: computed once for each operation and handed down to every filter and bucket.

use crate::checksum::xxh3_64;

/// Hash of `key` under the database's seed, which keeps a hostile writer from choosing collisions.
#[inline]
#[must_use]
pub fn key_hash(seed: u64, key: &[u8]) -> u64 {
    xxh3_64(seed, key)
}

/// Spreads `hash` over `0..buckets` by its high 32 bits (Lemire's multiply-shift, 2016).
#[inline]
#[must_use]
pub fn spread(hash: u64, buckets: u32) -> u32 {
    (((hash >> 32) * u64::from(buckets)) >> 32) as u32
}
