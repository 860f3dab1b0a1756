//! Block compression: which codecs exist, and how much a codec can make of so many bytes.
//!
//! The codec of each block is one byte of its trailer, so a table may mix them and old tables stay
//! readable. LZ4 is the raw block format, without a length of its own: the trailer has it. Zstandard is one
//! frame (RFC 8878) of its level 3. A thread that compresses or reads such blocks keeps what the library
//! works in, about 1.5 MiB and 0.1 MiB: made anew for each block, it costs three times what reading one does.
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
    /// Zstandard (Collet, 2016; RFC 8878): smaller than LZ4, slower both ways. Needs the feature `zstd`,
    /// the only one with C in it.
    Zstd = 2,
}

impl Codec {
    /// Every codec there is, built in or not.
    pub const ALL: [Self; 3] = [Self::None, Self::Lz4, Self::Zstd];

    /// The codec a byte on disk stands for; `None` for an unknown byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
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
            // A block of a frame is at least 4 bytes and stands for at most 128 KiB.
            Self::Zstd => stored.saturating_mul(32 << 10),
        }
    }

    /// The name in configurations and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
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
        match self {
            Self::None => true,
            Self::Lz4 => cfg!(feature = "lz4"),
            Self::Zstd => cfg!(feature = "zstd"),
        }
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
        match Self::ALL.into_iter().find(|codec| codec.name() == name) {
            Some(codec) if codec.is_built_in() => Ok(codec),
            Some(codec) => Err(Error::new(ErrorKind::Unsupported, missing(codec))),
            None => Err(Error::new(ErrorKind::InvalidConfig, format!("unknown codec {name:?}"))
                .with_hint("known: none, lz4, zstd")),
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
        #[cfg(feature = "lz4")]
        Codec::Lz4 => lz4::compress(raw, out),
        #[cfg(feature = "zstd")]
        Codec::Zstd => zstd::compress(raw, out),
        #[cfg(not(all(feature = "lz4", feature = "zstd")))]
        _ => Err(Error::new(ErrorKind::Unsupported, missing(codec))),
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
        #[cfg(feature = "lz4")]
        Codec::Lz4 => lz4::decompress(stored, raw),
        #[cfg(feature = "zstd")]
        Codec::Zstd => zstd::decompress(stored, raw),
        #[cfg(not(all(feature = "lz4", feature = "zstd")))]
        _ => Err(missing(codec)),
    }
}

fn missing(codec: Codec) -> String {
    format!("this build has no {codec}; build with the feature {codec}")
}

/// Whether a block is better stored compressed.
#[cfg(any(feature = "lz4", feature = "zstd"))]
fn pays(raw: usize, stored: usize) -> bool {
    stored <= raw - raw / 8
}

#[cfg(feature = "lz4")]
mod lz4 {
    use memtide_base::{Error, Result};

    use super::pays;

    pub(super) fn compress(raw: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        out.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
        let len = lz4_flex::block::compress_into(raw, out)
            .map_err(|error| Error::internal("lz4 refused to compress").with_source(error))?;
        out.truncate(len);
        Ok(pays(raw.len(), len))
    }

    pub(super) fn decompress(stored: &[u8], raw: &mut [u8]) -> Result<(), String> {
        match lz4_flex::block::decompress_into(stored, raw) {
            Ok(len) if len == raw.len() => Ok(()),
            Ok(len) => Err(format!("lz4 gave {len} B, {} B expected", raw.len())),
            Err(error) => Err(format!("lz4: {error}")),
        }
    }
}

#[cfg(feature = "zstd")]
mod zstd {
    use std::cell::RefCell;

    use memtide_base::{Error, Result};
    use zstd_safe::{CCtx, DCtx, compress_bound, get_error_name};

    use super::pays;

    const LEVEL: i32 = 3;

    thread_local! {
        static COMPRESSION: RefCell<CCtx<'static>> = RefCell::new(CCtx::create());
        static DECOMPRESSION: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
    }

    pub(super) fn compress(raw: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        out.resize(compress_bound(raw.len()), 0);
        let len = COMPRESSION
            .with_borrow_mut(|context| context.compress(out.as_mut_slice(), raw, LEVEL))
            .map_err(|code| {
                Error::internal(format!("zstd refused to compress: {}", get_error_name(code)))
            })?;
        out.truncate(len);
        Ok(pays(raw.len(), len))
    }

    pub(super) fn decompress(stored: &[u8], raw: &mut [u8]) -> Result<(), String> {
        let expected = raw.len();
        match DECOMPRESSION.with_borrow_mut(|context| context.decompress(raw, stored)) {
            Ok(len) if len == expected => Ok(()),
            Ok(len) => Err(format!("zstd gave {len} B, {expected} B expected")),
            Err(code) => Err(format!("zstd: {}", get_error_name(code))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compressing() -> impl Iterator<Item = Codec> {
        [Codec::Lz4, Codec::Zstd].into_iter().filter(|codec| codec.is_built_in())
    }

    #[test]
    fn a_run_compresses_to_no_less_than_the_bound_says() {
        let raw = vec![7; 16 << 20];
        for codec in compressing() {
            let mut stored = Vec::new();
            assert!(compress(codec, &raw, &mut stored).expect("the codec is built in"));
            assert!(raw.len() <= codec.raw_len_max(stored.len()), "{codec}");
        }
    }

    #[test]
    fn a_codec_that_is_not_built_in_is_refused_by_name() {
        for codec in Codec::ALL {
            assert_eq!(Codec::from_byte(codec as u8), Some(codec));
            match codec.name().parse::<Codec>() {
                Ok(parsed) => assert!(parsed == codec && codec.is_built_in()),
                Err(error) => {
                    assert!(!codec.is_built_in());
                    assert!(error.to_string().contains(&format!("the feature {codec}")), "{error}");
                    assert!(compress(codec, &[1; 100], &mut Vec::new()).is_err());
                    assert!(decompress(codec, &[1; 100], &mut [0; 100]).is_err());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn bytes_read_back_at_their_length_only(piece: Vec<u8>, times in 1..50_usize) {
            let raw = piece.repeat(times);
            for codec in compressing() {
                let mut stored = Vec::new();
                let _ = compress(codec, &raw, &mut stored).expect("the codec is built in");
                let mut read = vec![0; raw.len()];
                prop_assert_eq!(decompress(codec, &stored, &mut read), Ok(()));
                prop_assert_eq!(&read, &raw);
                read.push(0);
                prop_assert!(decompress(codec, &stored, &mut read).is_err());
            }
        }

        #[test]
        fn hostile_bytes_are_refused_or_fill_the_output(stored: Vec<u8>, len in 0..4096_usize) {
            for codec in compressing() {
                let mut raw = vec![0; len];
                let _ = decompress(codec, &stored, &mut raw);
            }
        }
    }
}
