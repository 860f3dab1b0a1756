//! Random numbers for salts, identities and hash seeds, and a seeded generator for tests and crashes.
//!
//! Both are built on the finaliser of SplitMix64 (Steele, Lea, Flood 2014). Nothing here is fit for
//! cryptography.

use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use memtide_base::sync::atomic::{AtomicU64, Ordering};

/// The step of SplitMix64's counter: the golden ratio in 64 bits, odd.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The source of randomness of one environment; any number of threads may draw without a lock.
#[derive(Debug)]
pub struct Random {
    counter: AtomicU64,
    key: u64,
}

impl Random {
    /// A source whose draws are the same for the same seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self { counter: AtomicU64::new(seed), key: mix(seed ^ GAMMA) }
    }

    /// A source that differs for every process and call: 128 bits from the operating system, by way of
    /// the standard library's hash keys, with the time and the process id.
    #[must_use]
    pub fn from_system() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let salt = (now, std::process::id());
        let draw = || RandomState::new().hash_one(salt);
        Self { counter: AtomicU64::new(draw()), key: draw() }
    }

    /// The next 64 bits.
    pub fn next_u64(&self) -> u64 {
        // Relaxed: the counter orders nothing but itself.
        let count = self.counter.fetch_add(GAMMA, Ordering::Relaxed);
        mix(mix(count.wrapping_add(GAMMA)) ^ self.key)
    }

    /// A random UUID (RFC 9562, version 4).
    pub fn uuid(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next_u64().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next_u64().to_le_bytes());
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        bytes
    }
}

/// A seeded generator for one owner: SplitMix64.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A generator whose draws are the same for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// A number below `n`; 0 if `n` is 0. Its bias is at most `n` in 2^64.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next_u64().checked_rem(n).unwrap_or(0)
    }
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_gives_the_published_sequence() {
        let mut random = SplitMix64::new(1_234_567);
        let drawn = [random.next_u64(), random.next_u64(), random.next_u64()];
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(drawn, published);
    }

    #[test]
    fn below_stays_below_and_reaches_everything() {
        let mut random = SplitMix64::new(7);
        let mut seen = [false; 5];
        for _ in 0..200 {
            seen[usize::try_from(random.below(5)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn a_seed_repeats_and_the_system_does_not() {
        let draw = |random: Random| [random.next_u64(), random.next_u64()];
        assert_eq!(draw(Random::from_seed(3)), draw(Random::from_seed(3)));
        assert_ne!(draw(Random::from_seed(3)), draw(Random::from_seed(4)));
        assert_ne!(draw(Random::from_system()), draw(Random::from_system()));
    }

    #[test]
    fn a_uuid_has_version_4_and_its_variant() {
        let random = Random::from_seed(1);
        let (a, b) = (random.uuid(), random.uuid());
        assert_ne!(a, b);
        for uuid in [a, b] {
            assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (4, 2));
        }
    }
}
