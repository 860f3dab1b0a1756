//! Block compression: which codecs exist, and how much a codec can make of so many bytes.
//!
//! The codec of each block is one byte of its trailer, so a table may mix them and old tables stay
//! readable. LZ4 is the raw block format, without a length of its own: the trailer has it.
//!
//! Decompression takes hostile bytes. The output is sized by the caller from the trailer, bounded by
//! [`Codec::raw_len_max`], and filled exactly or refused.

use std::fmt;
use std::str::FromStr;

use memtide_base::{Error, ErrorKind, Result};

/// How a block's payload is compressed. The discriminant is the byte on disk.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    #[default]
    None = 0,
    /// LZ4 (Collet, 2011), raw block format. Needs the feature `lz4`.
    Lz4 = 1,
}

impl Codec {
    /// The codec a byte on disk stands for; `None` for an unknown byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            _ => None,
        }
    }

    /// Most bytes that `stored` compressed bytes can stand for.
    #[must_use]
    pub fn raw_len_max(self, stored: usize) -> usize {
        match self {
            Self::None => stored,
            // One byte of an LZ4 length adds at most 255 bytes; tokens and offsets add fewer.
            Self::Lz4 => stored.saturating_mul(255).saturating_add(64),
        }
    }

    /// The name in configurations and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
        }
    }

    /// The codec to use where nobody chose one: LZ4 if it is built in.
    #[must_use]
    pub fn fastest() -> Self {
        if Self::Lz4.is_built_in() { Self::Lz4 } else { Self::None }
    }

    /// Whether this build can read and write the codec.
    #[must_use]
    pub fn is_built_in(self) -> bool {
        self == Self::None || cfg!(feature = "lz4")
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "none" => Ok(Self::None),
            "lz4" if Self::Lz4.is_built_in() => Ok(Self::Lz4),
            "lz4" => Err(Error::new(ErrorKind::Unsupported, "this build has no lz4")),
            _ => Err(Error::new(ErrorKind::InvalidConfig, format!("unknown codec {name:?}"))
                .with_hint("known: none, lz4")),
        }
    }
}

/// Replaces `out` by `raw` compressed with `codec`; `false`, and `out` is worth nothing, if that saves
/// less than an eighth: then the block is better stored as it is.
///
/// # Errors
/// The codec is not part of this build.
pub fn compress(codec: Codec, raw: &[u8], out: &mut Vec<u8>) -> Result<bool> {
    match codec {
        Codec::None => Ok(false),
        Codec::Lz4 => lz4::compress(raw, out),
    }
}

/// Fills all of `raw` from `stored`.
///
/// # Errors
/// A sentence about what is wrong: the bytes are no such stream or stand for another length, or the
/// codec is not part of this build.
pub fn decompress(codec: Codec, stored: &[u8], raw: &mut [u8]) -> Result<(), String> {
    match codec {
        Codec::None if stored.len() == raw.len() => {
            raw.copy_from_slice(stored);
            Ok(())
        }
        Codec::None => Err(format!("{} B stored, {} B expected", stored.len(), raw.len())),
        Codec::Lz4 => lz4::decompress(stored, raw),
    }
}

#[cfg(feature = "lz4")]
mod lz4 {
    use memtide_base::{Error, Result};

    pub(super) fn compress(raw: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        out.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
        let len = lz4_flex::block::compress_into(raw, out)
            .map_err(|error| Error::internal("lz4 refused to compress").with_source(error))?;
        out.truncate(len);
        Ok(len <= raw.len() - raw.len() / 8)
    }

    pub(super) fn decompress(stored: &[u8], raw: &mut [u8]) -> Result<(), String> {
        match lz4_flex::block::decompress_into(stored, raw) {
            Ok(len) if len == raw.len() => Ok(()),
            Ok(len) => Err(format!("lz4 gave {len} B, {} B expected", raw.len())),
            Err(error) => Err(format!("lz4: {error}")),
        }
    }
}

#[cfg(not(feature = "lz4"))]
mod lz4 {
    use memtide_base::{Error, ErrorKind, Result};

    const MISSING: &str = "this build has no lz4; build with the feature lz4";

    pub(super) fn compress(_: &[u8], _: &mut Vec<u8>) -> Result<bool> {
        Err(Error::new(ErrorKind::Unsupported, MISSING))
    }

    pub(super) fn decompress(_: &[u8], _: &mut [u8]) -> Result<(), String> {
        Err(MISSING.to_string())
    }
}

#[cfg(all(test, feature = "lz4"))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_run_compresses_to_no_less_than_the_bound_says() {
        let raw = vec![7; 16 << 20];
        let mut stored = Vec::new();
        assert!(compress(Codec::Lz4, &raw, &mut stored).expect("lz4 is built in"));
        assert!(raw.len() <= Codec::Lz4.raw_len_max(stored.len()));
    }

    proptest! {
        #[test]
        fn bytes_read_back_at_their_length_only(piece: Vec<u8>, times in 1..50_usize) {
            let raw = piece.repeat(times);
            let mut stored = Vec::new();
            let _ = compress(Codec::Lz4, &raw, &mut stored).expect("lz4 is built in");
            let mut read = vec![0; raw.len()];
            prop_assert_eq!(decompress(Codec::Lz4, &stored, &mut read), Ok(()));
            prop_assert_eq!(&read, &raw);
            read.push(0);
            prop_assert!(decompress(Codec::Lz4, &stored, &mut read).is_err());
        }

        #[test]
        fn hostile_bytes_are_refused_or_fill_the_output(stored: Vec<u8>, len in 0..4096_usize) {
            let mut raw = vec![0; len];
            let _ = decompress(Codec::Lz4, &stored, &mut raw);
        }
    }
}
