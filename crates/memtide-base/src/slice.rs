//! Bytes handed to users: a value or key that owns what it needs, cheap to clone.
//!
//! Up to 30 bytes lie inside the slice itself; longer ones share an allocation, which may be a whole
//! cached block, so a value read from a table is not copied.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use crate::sync::Arc;

const INLINE_LEN_MAX: usize = 30;

/// Immutable bytes, O(1) to clone.
#[derive(Clone)]
pub struct Slice(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE_LEN_MAX] },
    Shared { owner: Arc<[u8]>, start: u32, end: u32 },
}

impl Slice {
    /// A slice with its own copy of `bytes`.
    #[inline]
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        if bytes.len() <= INLINE_LEN_MAX {
            return Self::inline(bytes);
        }
        Self::part_of(&Arc::from(bytes), 0, bytes.len())
    }

    /// A copy inside the slice, of at most `INLINE_LEN_MAX` bytes. Two copies of fixed length, which may overlap,
    /// cost less than one of a length that is only known when it runs.
    #[inline]
    fn inline(bytes: &[u8]) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "at most INLINE_LEN_MAX")]
        let len = bytes.len() as u8;
        let mut inline = [0; INLINE_LEN_MAX];
        if let (Some(first), Some(last)) = (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) {
            inline[..16].copy_from_slice(first);
            // Of the last sixteen bytes those that are not among the first.
            let rest = u128::from_le_bytes(*last) >> 8 >> (8 * (31 - len));
            inline[16..].copy_from_slice(&rest.to_le_bytes()[..INLINE_LEN_MAX - 16]);
        } else if let (Some(first), Some(last)) =
            (bytes.first_chunk::<8>(), bytes.last_chunk::<8>())
        {
            inline[..8].copy_from_slice(first);
            let rest = u64::from_le_bytes(*last) >> 8 >> (8 * (15 - len));
            inline[8..16].copy_from_slice(&rest.to_le_bytes());
        } else {
            inline[..bytes.len()].copy_from_slice(bytes);
        }
        Self(Repr::Inline { len, bytes: inline })
    }

    /// `owner[start..end]` without copying it, unless it is short enough to lie inside the slice.
    ///
    /// # Panics
    /// If the range is not inside `owner`, or `owner` is 4 GiB or longer.
    #[inline]
    #[must_use]
    pub fn part_of(owner: &Arc<[u8]>, start: usize, end: usize) -> Self {
        assert!(start <= end && end <= owner.len(), "{start}..{end} of {} bytes", owner.len());
        if end - start <= INLINE_LEN_MAX {
            return Self::inline(&owner[start..end]);
        }
        let small =
            |at: usize| u32::try_from(at).expect("no allocation of the engine reaches 4 GiB");
        Self(Repr::Shared { owner: Arc::clone(owner), start: small(start), end: small(end) })
    }

    /// The bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared { owner, start, end } => &owner[*start as usize..*end as usize],
        }
    }
}

impl Default for Slice {
    fn default() -> Self {
        Self::copy_of(&[])
    }
}

impl Deref for Slice {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Slice {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl From<&[u8]> for Slice {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_of(bytes)
    }
}

impl From<&str> for Slice {
    fn from(text: &str) -> Self {
        Self::copy_of(text.as_bytes())
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Self {
        Self::copy_of(&bytes)
    }
}

impl From<Slice> for Vec<u8> {
    fn from(slice: Slice) -> Self {
        slice.to_vec()
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Slice {}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Slice
where
    T: NotSlice,
{
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

/// What a [`Slice`] compares itself to besides another slice.
pub trait NotSlice {}
impl NotSlice for [u8] {}
impl NotSlice for str {}
impl NotSlice for &[u8] {}
impl NotSlice for &str {}
impl NotSlice for Vec<u8> {}
impl<const N: usize> NotSlice for [u8; N] {}
impl<const N: usize> NotSlice for &[u8; N] {}

impl PartialOrd for Slice {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slice {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Slice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_shared_slices_show_the_same_bytes() {
        for len in 0..40 {
            let bytes: Vec<u8> = (1..=len).collect();
            assert_eq!(Slice::copy_of(&bytes).as_bytes(), bytes, "{len} B");
        }
        let owner: Arc<[u8]> = (0..100).collect::<Vec<u8>>().into();
        for (start, end) in [(0, 0), (3, 33), (3, 34), (0, 100)] {
            let part = Slice::part_of(&owner, start, end);
            assert_eq!(part.as_bytes(), &owner[start..end]);
            assert_eq!(part, Slice::copy_of(&owner[start..end]));
        }
        assert_eq!(size_of::<Slice>(), 32);
        assert_eq!(format!("{:?}", Slice::from("a\n")), "b\"a\\n\"");
    }
}
