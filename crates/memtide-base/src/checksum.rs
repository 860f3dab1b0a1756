//! The one checksum of every record, block and file: XXH3 (Collet, 2019), seeded.
//!
//! The seed mixes the file's random salt with the offset or LSN, so a valid block at the wrong place or
//! in the wrong file fails as surely as a damaged one. XXH3 finds accidents, not forgers.

use std::hash::Hasher;

use twox_hash::{XxHash3_64, XxHash3_128};

/// The algorithm's number in every file header.
pub const ALGORITHM_XXH3: u8 = 1;

/// XXH3-64 of `bytes` under `seed`.
#[inline]
#[must_use]
pub fn xxh3_64(seed: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

/// XXH3-64 of `first` followed by `second`, without joining them in memory.
#[must_use]
pub fn xxh3_64_of_two(seed: u64, first: &[u8], second: &[u8]) -> u64 {
    let mut hasher = XxHash3_64::with_seed(seed);
    hasher.write(first);
    hasher.write(second);
    hasher.finish()
}

/// XXH3-128 of a whole file, fed piece by piece as it is written or read.
#[derive(Default)]
pub struct FileChecksum(XxHash3_128);

impl FileChecksum {
    /// Adds the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The checksum of everything added so far.
    #[must_use]
    pub fn finish(&self) -> u128 {
        self.0.finish_128()
    }
}

impl std::fmt::Debug for FileChecksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileChecksum({:032x})", self.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_algorithm_is_xxh3_as_published() {
        assert_eq!(xxh3_64(0, b""), 0x2D06_8005_38D3_94C2, "empty input of the reference");
        let mut file = FileChecksum::default();
        file.update(b"");
        assert_eq!(file.finish(), 0x99AA_06D3_0147_98D8_6001_C324_468D_497F);
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for cut in [0, 1, 16, 240, 241, 4999] {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(xxh3_64_of_two(7, first, second), xxh3_64(7, &bytes), "cut at {cut}");
        }
    }
}
