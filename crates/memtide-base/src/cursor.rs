//! The one way to walk sorted entries: over a memtable, a table or a level.
//!
//! A cursor stands **on a user key**; the key's versions hang below it, newest first. A read uses `next`
//! and `prev` and never meets an older version; flush and compaction also call `older`. So walking
//! backwards costs what walking forwards costs, and nobody skips versions twice.
//!
//! Entries are lent, not cloned: one stays valid until the cursor moves. No step allocates once the
//! cursor's buffers have grown to the largest key it meets.

use crate::{Entry, Kind, Result};

/// Where [`Cursor::seek`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'k> {
    /// The smallest key.
    First,
    /// The largest key.
    Last,
    /// The smallest key that is not below this one.
    Ge(&'k [u8]),
    /// The largest key that is not above this one.
    Le(&'k [u8]),
}

/// Walks the keys of one sorted source in both directions, lending each entry.
///
/// A cursor is made with a bound `below` and shows only versions with `seq < below`; a key without such
/// a version does not exist for it. Point entries only: range tombstones are kept beside the entries (see
/// [`RangeTombstones`](crate::RangeTombstones)) and never applied here.
///
/// After any method returned `false` or an error, the cursor stands nowhere: only `seek` is meaningful.
/// `older` is the exception: after its `false` the cursor still stands on the key, and `next`, `prev`
/// and `seek` go on as usual, but `entry` must not be called before one of them.
pub trait Cursor: Send {
    /// Goes to the newest visible version of the key `target` names; `false` if there is none.
    ///
    /// # Errors
    /// Reading or decoding failed; the cursor stands nowhere.
    fn seek(&mut self, target: Target<'_>) -> Result<bool>;

    /// Goes to the newest visible version of the next larger key.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    fn next(&mut self) -> Result<bool>;

    /// Goes to the newest visible version of the next smaller key.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    fn prev(&mut self) -> Result<bool>;

    /// Goes to the next older version of the same key; `false` if this was the oldest.
    ///
    /// # Errors
    /// As [`Cursor::seek`].
    fn older(&mut self) -> Result<bool>;

    /// The entry the cursor stands on.
    ///
    /// # Panics
    /// If the cursor stands on no entry: a bug in the caller.
    fn entry(&self) -> Entry<'_>;

    /// The key of that entry, where it costs less than the whole.
    ///
    /// # Panics
    /// As [`Cursor::entry`].
    #[inline]
    fn key(&self) -> &[u8] {
        self.entry().key
    }

    /// The kind of that entry.
    ///
    /// # Panics
    /// As [`Cursor::entry`].
    #[inline]
    fn kind(&self) -> Kind {
        self.entry().kind
    }
}
