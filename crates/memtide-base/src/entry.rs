//! One write as every layer sees it: key, sequence number, kind, value.
//!
//! The numbers of [`Kind`] are in every WAL record and every table, so they never change; those whose
//! operation comes later are reserved from the first format on.

use crate::SeqNo;

/// What a write does to its key. The discriminant is the byte on disk.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The key is gone.
    Delete = 0,
    /// The key has the value that follows.
    Put = 1,
    /// An operand for a merge operator. Reserved.
    Merge = 2,
    /// The key, written at most once, is gone. Reserved.
    SingleDelete = 3,
    /// Keys from the entry's key up to its value (exclusive, empty = unbounded) are gone.
    RangeDelete = 4,
    /// The value is a handle into a blob file. Reserved.
    BlobHandle = 5,
    /// The value is an expiry in milliseconds (u64) and then the value. Reserved.
    PutWithExpiry = 6,
}

impl Kind {
    /// Kinds this version writes and reads.
    #[must_use]
    pub fn is_supported(self) -> bool {
        matches!(self, Self::Delete | Self::Put | Self::RangeDelete)
    }

    /// The kind a byte on disk stands for; `None` for an unknown byte.
    #[inline]
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Delete,
            1 => Self::Put,
            2 => Self::Merge,
            3 => Self::SingleDelete,
            4 => Self::RangeDelete,
            5 => Self::BlobHandle,
            6 => Self::PutWithExpiry,
            _ => return None,
        })
    }
}

/// One version of one key, borrowed from whoever holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The user's key.
    pub key: &'a [u8],
    /// Which write this is.
    pub seq: SeqNo,
    /// What the write did.
    pub kind: Kind,
    /// The value; empty for deletes, the exclusive end for range deletes.
    pub value: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_from_its_byte() {
        for byte in 0..=u8::MAX {
            match Kind::from_byte(byte) {
                Some(kind) => assert_eq!(kind as u8, byte),
                None => assert!(byte > Kind::PutWithExpiry as u8),
            }
        }
    }
}
