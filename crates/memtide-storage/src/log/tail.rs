//! What lies behind the last valid record of a log: a torn tail, or proof of damage.
//!
//! A power cut leaves any bytes behind what was synced, even whole records behind a hole. So a valid record
//! further on proves nothing by being there; it proves damage when it says that everything below some LSN
//! had been synced before it was written, and the records stop below that LSN.
//!
//! Invariants
//! - The search goes to the end of the file in steps of eight bytes, the alignment of records.
//! - Its work is linear: a file in which more bytes pose as records than could be records is damage.

use std::fmt;

use memtide_base::Result;

use super::record::{RECORD_HEADER_BYTES, RECORD_HEADER_LEN, RecordHeader, checksum};
use super::window::{Window, index};

/// Records in honest files do not overlap, so hashing candidates costs at most the tail once, give or take
/// the few places where noise passes the header check.
const HASHED_PER_TAIL_BYTE_MAX: u64 = 8;

/// Where records live and how their checksums are seeded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    /// LSN of the file's first byte.
    pub(super) base: u64,
    pub(super) salt: u64,
    /// File offset that no record crosses.
    pub(super) end: u64,
}

impl Space {
    pub(super) fn lsn_at(&self, offset: u64) -> u64 {
        self.base.wrapping_add(offset)
    }

    pub(super) fn seed_at(&self, offset: u64) -> u64 {
        self.salt ^ self.lsn_at(offset)
    }

    /// The header of the valid record at `offset`, or why there is none.
    pub(super) fn probe(
        &self,
        window: &mut Window,
        offset: u64,
    ) -> Result<Result<RecordHeader, Flaw>> {
        let seed = self.seed_at(offset);
        let room = window.len().saturating_sub(offset);
        if room < RECORD_HEADER_BYTES {
            return Ok(Err(Flaw::Cut));
        }
        let bytes = window.bytes(offset, RECORD_HEADER_LEN)?;
        let Some(header) = bytes.first_chunk().and_then(|bytes| RecordHeader::decode(bytes, seed))
        else {
            let zeros = bytes.iter().all(|&byte| byte == 0);
            return Ok(Err(if zeros { Flaw::Zeros } else { Flaw::Header }));
        };
        if u64::from(header.len) > self.end.saturating_sub(offset) {
            return Ok(Err(Flaw::Span { len: header.len }));
        }
        if u64::from(header.stored_len()) > room {
            return Ok(Err(Flaw::Cut));
        }
        let found = checksum(seed, window.bytes(offset, index(header.stored_len().into()))?);
        if found == header.checksum {
            Ok(Ok(header))
        } else {
            let (stored, hashed) = (header.checksum, header.stored_len());
            Ok(Err(Flaw::Checksum { found, stored, hashed }))
        }
    }
}

/// Why there is no valid record at some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    Zeros,
    Cut,
    Header,
    Span { len: u32 },
    Checksum { found: u64, stored: u64, hashed: u32 },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeros => f.write_str("there are only zeros"),
            Self::Cut => f.write_str("the file ends inside it"),
            Self::Header => f.write_str("its header check does not match"),
            Self::Span { len } => write!(f, "its {len} bytes cross the end of the segment"),
            Self::Checksum { found, stored, .. } => {
                write!(f, "xxh3 {found:#018x}, stored {stored:#018x}")
            }
        }
    }
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// Offset behind the last byte that is not zero; the start of the search if there is none.
    pub(super) used_to: u64,
    pub(super) proof: Option<Proof>,
}

/// Why a tail is damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// The valid record at `offset` says that every LSN below `durable` had been synced.
    Synced { offset: u64, durable: u64 },
    /// More bytes pose as records than fit.
    Crowded,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synced { offset, durable } => write!(
                f,
                "the valid record at offset {offset} proves that all before lsn {durable} was synced"
            ),
            Self::Crowded => f.write_str("more bytes behind it pose as records than could be any"),
        }
    }
}

/// The first place from `offset`, a multiple of 8, on where a valid record lies. Work is bounded as in [`search`].
pub(super) fn next_record(window: &mut Window, space: Space, offset: u64) -> Result<Option<u64>> {
    let mut hashing_left =
        window.len().saturating_sub(offset).saturating_mul(HASHED_PER_TAIL_BYTE_MAX);
    let mut from = offset;
    while from < space.end && hashing_left > 0 {
        let Some(nonzero) = window.next_nonzero(from)? else { break };
        let word = nonzero & !7;
        if word >= space.end {
            break;
        }
        let hashed = match space.probe(window, word)? {
            Ok(_) => return Ok(Some(word)),
            Err(Flaw::Checksum { hashed, .. }) => hashed,
            Err(_) => 0,
        };
        hashing_left = hashing_left.saturating_sub(u64::from(hashed));
        from = word + 8;
    }
    Ok(None)
}

/// Looks from `offset`, a multiple of 8, to the end of the file for proof that `stop`, the LSN where valid
/// records end, had been synced.
pub(super) fn search(window: &mut Window, space: Space, offset: u64, stop: u64) -> Result<Tail> {
    let mut tail = Tail { used_to: offset, proof: None };
    let tail_bytes = window.len().saturating_sub(offset);
    let mut hashing_left = tail_bytes.saturating_mul(HASHED_PER_TAIL_BYTE_MAX);
    let mut from = offset;
    while let Some(nonzero) = window.next_nonzero(from)? {
        let word = nonzero & !7;
        let word_len = (window.len() - word).min(8);
        let bytes = window.bytes(word, index(word_len))?;
        let zeros = bytes.iter().rev().take_while(|&&byte| byte == 0).count() as u64;
        tail.used_to = word + word_len - zeros;
        from = word + 8;
        if tail.proof.is_some() {
            continue;
        }
        let hashed = match space.probe(window, word)? {
            Ok(header) => {
                let durable = header.durable_below(space.lsn_at(word));
                if durable > stop {
                    tail.proof = Some(Proof::Synced { offset: word, durable });
                }
                header.stored_len()
            }
            Err(Flaw::Checksum { hashed, .. }) => hashed,
            Err(_) => 0,
        };
        hashing_left = hashing_left.saturating_sub(u64::from(hashed));
        if hashing_left == 0 && tail.proof.is_none() {
            tail.proof = Some(Proof::Crowded);
        }
    }
    if cfg!(plant = "torn_tail_is_damage") && tail.used_to > offset {
        tail.proof = Some(Proof::Crowded);
    }
    Ok(tail)
}
