//! User keys: any bytes, ordered as `memcmp` orders them.
//!
//! There are no comparator callbacks. Byte order is what makes eight-byte heads, radix trees and prefix
//! truncation valid everywhere; typed keys come from order-preserving encodings.

use std::cmp::Ordering;

/// Longest user key in bytes.
pub const KEY_LEN_MAX: usize = 65_535;

/// Longest end of a range delete: an inclusive bound at the longest key is that key and one zero byte.
pub const RANGE_END_LEN_MAX: usize = KEY_LEN_MAX + 1;

/// Longest value in bytes.
pub const VALUE_LEN_MAX: usize = 1 << 30;

/// The first eight bytes of `key` as a big-endian integer, padded with zeros.
///
/// Monotone: `head(a) < head(b)` implies `a < b`. Equal heads say nothing.
#[inline]
#[must_use]
pub fn head(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let mut padded = [0; 8];
    padded[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(padded)
}

/// What `bytes` have from `start` on; nothing, at their end, if they are shorter. Unlike a default slice it always has
/// an address, which matters where it is compared: `memcmp` with masked loads takes 75 ns for no bytes at no address.
#[inline]
#[must_use]
pub fn rest(bytes: &[u8], start: usize) -> &[u8] {
    &bytes[start.min(bytes.len())..]
}

/// The head of `key` behind `anchor`, which most keys are expected to begin with: eight bytes that then tell them
/// apart where plain heads would be equal. Keys below all that begin with it have 0, keys above have `MAX`, so
/// `head_behind(_, a) < head_behind(_, b)` still implies `a < b`.
#[inline]
#[must_use]
pub fn head_behind(anchor: &[u8], key: &[u8]) -> u64 {
    // An empty `Vec` has no address either; see `rest`.
    if anchor.is_empty() {
        return head(key);
    }
    match key.strip_prefix(anchor) {
        Some(rest) => head(rest),
        None if key < anchor => 0,
        None => u64::MAX,
    }
}

/// Bytes that `a` and `b` share from the start.
#[must_use]
pub fn shared_prefix_len(a: &[u8], b: &[u8]) -> usize {
    let (a_words, b_words) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    let words = a_words.iter().zip(b_words).take_while(|(x, y)| x == y).count();
    let bytes = a[8 * words..].iter().zip(&b[8 * words..]).take_while(|(x, y)| x == y);
    8 * words + bytes.count()
}

/// The smallest key above every key that starts with `prefix`; `None` if there is none.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|&byte| byte != 0xFF)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

/// The smallest key above `key`: `key` and a zero byte.
#[must_use]
pub fn successor(key: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next
}

/// The upper end of a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upper {
    /// Keys up to and including this one.
    Included(Vec<u8>),
    /// Keys below this one.
    Excluded(Vec<u8>),
    /// Every key.
    Unbounded,
}

impl Upper {
    /// Whether `key` lies at or below this end.
    #[must_use]
    pub fn admits(&self, key: &[u8]) -> bool {
        match self {
            Self::Included(last) => key <= last.as_slice(),
            Self::Excluded(end) => key < end.as_slice(),
            Self::Unbounded => true,
        }
    }

    /// The same end as a lower bound for what follows: `None` above everything.
    #[must_use]
    pub fn exclusive_end(&self) -> Option<Vec<u8>> {
        match self {
            Self::Included(last) => Some(successor(last)),
            Self::Excluded(end) => Some(end.clone()),
            Self::Unbounded => None,
        }
    }

    fn rank(&self) -> (Option<&[u8]>, u8) {
        match self {
            Self::Excluded(end) => (Some(end), 0),
            Self::Included(last) => (Some(last), 1),
            Self::Unbounded => (None, 2),
        }
    }
}

impl PartialOrd for Upper {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Upper {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((a, a_rank), (b, b_rank)) = (self.rank(), other.rank());
        match (a, b) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => a.cmp(b).then(a_rank.cmp(&b_rank)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefix_end_is_the_first_key_above_the_prefix() {
        for (prefix, end) in [
            (&b"ab"[..], Some(&b"ac"[..])),
            (b"a\xFF", Some(b"b")),
            (b"\xFF\xFF", None),
            (b"", None),
        ] {
            assert_eq!(prefix_end(prefix).as_deref(), end, "prefix {prefix:?}");
        }
    }

    #[test]
    fn uppers_are_ordered_by_what_they_admit() {
        let a = |key: &[u8]| Upper::Excluded(key.to_vec());
        let i = |key: &[u8]| Upper::Included(key.to_vec());
        let rising = [a(b"a"), i(b"a"), a(b"a\0"), a(b"b"), i(b"b"), Upper::Unbounded];
        assert!(rising.is_sorted());
        assert!(i(b"a").admits(b"a") && !a(b"a").admits(b"a") && Upper::Unbounded.admits(b"zz"));
    }

    proptest! {
        #[test]
        fn heads_never_contradict_key_order(a: Vec<u8>, b: Vec<u8>) {
            if head(&a) < head(&b) {
                prop_assert!(a < b);
            }
        }

        #[test]
        fn heads_behind_an_anchor_never_contradict_key_order(
            anchor in proptest::collection::vec(0_u8..3, 0..4),
            a in proptest::collection::vec(0_u8..3, 0..14),
            b in proptest::collection::vec(0_u8..3, 0..14),
        ) {
            if head_behind(&anchor, &a) < head_behind(&anchor, &b) {
                prop_assert!(a < b);
            }
            let (mut c, mut d) = (anchor.clone(), anchor.clone());
            c.extend(&a);
            d.extend(&b);
            prop_assert_eq!(head_behind(&anchor, &c) < head_behind(&anchor, &d), head(&a) < head(&b));
        }
    }
}
