//! Ranges of keys as users write them: `"a".."m"`, `"a"..`, `..=key`, `..`, or a pair of bounds.

use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use memtide_base::{Slice, key};

/// A range of keys, bounds in any type that has bytes. Empty and inverted ranges hold no key.
pub trait KeyRange: sealed::Sealed {
    /// The lower and upper bound.
    fn key_bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>);
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! key_range {
    ($range:ty, |$self:ident| $bounds:expr) => {
        impl<K: AsRef<[u8]>> sealed::Sealed for $range {}
        impl<K: AsRef<[u8]>> KeyRange for $range {
            fn key_bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
                let $self = self;
                $bounds
            }
        }
    };
}

fn included<K: AsRef<[u8]>>(key: &K) -> Bound<&[u8]> {
    Bound::Included(key.as_ref())
}

fn excluded<K: AsRef<[u8]>>(key: &K) -> Bound<&[u8]> {
    Bound::Excluded(key.as_ref())
}

fn bytes<K: AsRef<[u8]>>(bound: &Bound<K>) -> Bound<&[u8]> {
    bound.as_ref().map(AsRef::as_ref)
}

key_range!(Range<K>, |range| (included(&range.start), excluded(&range.end)));
key_range!(RangeInclusive<K>, |range| (included(range.start()), included(range.end())));
key_range!(RangeFrom<K>, |range| (included(&range.start), Bound::Unbounded));
key_range!(RangeTo<K>, |range| (Bound::Unbounded, excluded(&range.end)));
key_range!(RangeToInclusive<K>, |range| (Bound::Unbounded, included(&range.end)));
key_range!((Bound<K>, Bound<K>), |range| (bytes(&range.0), bytes(&range.1)));

impl sealed::Sealed for RangeFull {}

impl KeyRange for RangeFull {
    fn key_bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Unbounded, Bound::Unbounded)
    }
}

/// A range in the one form the engine works with.
///
/// Bounds are compared with every key that a scan comes to. Slices keep short ones without an allocation, and an
/// empty one has an address: comparing with the bytes of an empty `Vec`, which have none, takes some processors 75 ns
/// where `memcmp` uses masked loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HalfOpen {
    /// First key.
    pub(crate) start: Slice,
    /// First key behind the range; `None` = unbounded.
    pub(crate) end: Option<Slice>,
}

impl HalfOpen {
    /// Every key.
    pub(crate) fn all() -> Self {
        Self { start: Slice::copy_of(b""), end: None }
    }

    /// Whether it reaches as far as `key` at the end that a walk `forward` or back comes to.
    #[inline]
    pub(crate) fn reaches(&self, key: &[u8], forward: bool) -> bool {
        if forward {
            self.end.as_ref().is_none_or(|end| key < end.as_bytes())
        } else {
            self.start.is_empty() || key >= self.start.as_bytes()
        }
    }

    /// Takes away what does not lie in `[start, end)` (`None` = unbounded).
    pub(crate) fn narrow(&mut self, start: &[u8], end: Option<&[u8]>) {
        if start > self.start.as_bytes() {
            self.start = Slice::copy_of(start);
        }
        if let Some(end) =
            end.filter(|end| self.end.as_ref().is_none_or(|own| *end < own.as_bytes()))
        {
            self.end = Some(Slice::copy_of(end));
        }
    }

    pub(crate) fn of(range: &(impl KeyRange + ?Sized)) -> Self {
        let (from, to) = range.key_bounds();
        let start = match from {
            Bound::Included(key) => Slice::copy_of(key),
            // No key lies between the longest key and the same prefix, counted up.
            Bound::Excluded(key) if key.len() >= key::KEY_LEN_MAX => match key::prefix_end(key) {
                Some(next) => next.into(),
                None => return Self { start: Slice::copy_of(b""), end: Some(Slice::copy_of(b"")) },
            },
            Bound::Excluded(key) => key::successor(key).into(),
            Bound::Unbounded => Slice::copy_of(b""),
        };
        let end = match to {
            Bound::Included(key) => Some(key::successor(key).into()),
            Bound::Excluded(key) => Some(Slice::copy_of(key)),
            Bound::Unbounded => None,
        };
        Self { start, end }
    }

    /// The keys that start with `prefix`.
    pub(crate) fn prefix(prefix: &[u8]) -> Self {
        Self { start: Slice::copy_of(prefix), end: key::prefix_end(prefix).map(Slice::from) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_becomes_half_open() {
        let of = |range: &dyn KeyRange| {
            let half = HalfOpen::of(range);
            (half.start.to_vec(), half.end.map(|end| end.to_vec()))
        };
        let (a, m) = (b"a".to_vec(), b"m".to_vec());
        assert_eq!(of(&("a".."m")), (a.clone(), Some(m.clone())));
        assert_eq!(of(&("a"..="m")), (a.clone(), Some(b"m\0".to_vec())));
        assert_eq!(of(&("a"..)), (a, None));
        assert_eq!(of(&(..m.clone())), (vec![], Some(m.clone())));
        assert_eq!(of(&(..=[b'm'])), (vec![], Some(b"m\0".to_vec())));
        assert_eq!(of(&(..)), (vec![], None));
        assert_eq!(of(&(Bound::Excluded("m"), Bound::Unbounded)), (b"m\0".to_vec(), None));
        assert!(HalfOpen::of(&("m".."a")).is_empty() && !HalfOpen::of(&(..)).is_empty());
    }
}
