//! A write and a lookup on their way into an index, with what is computed once for them.

#[cfg(test)]
use memtide_base::key;
use memtide_base::{Kind, SeqNo};

/// A write about to be inserted, with what was computed once for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewEntry<'a> {
    pub(crate) key: &'a [u8],
    /// Hash of the key, shared with filters.
    pub(crate) hash: u64,
    /// The key's head, see [`Arena::head_of`](crate::arena::Arena::head_of).
    pub(crate) head: u64,
    pub(crate) seq: SeqNo,
    pub(crate) kind: Kind,
    pub(crate) value: &'a [u8],
}

impl<'a> NewEntry<'a> {
    /// With the head of an arena that has no anchor.
    #[cfg(test)]
    pub(crate) fn new(key: &'a [u8], hash: u64, seq: SeqNo, kind: Kind, value: &'a [u8]) -> Self {
        Self { key, hash, head: key::head(key), seq, kind, value }
    }

    pub(crate) fn lookup(&self) -> LookupKey<'a> {
        LookupKey { key: self.key, hash: self.hash, head: self.head }
    }
}

/// A key to find, with what was computed once for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LookupKey<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) hash: u64,
    pub(crate) head: u64,
}

impl<'a> LookupKey<'a> {
    /// With the head of an arena that has no anchor.
    #[cfg(test)]
    pub(crate) fn new(key: &'a [u8], hash: u64) -> Self {
        Self { key, hash, head: key::head(key) }
    }
}
