//! Walks towards several keys at once, so that the cache misses of one pass while the others are waited for.
//!
//! An index that is larger than the caches is a chain of misses to each key: the next node is not known before
//! the last one has come. Several keys make as many chains. [`in_lock_step`] goes one hop on each of them in turn,
//! and each hop ends by asking for the memory that the next one needs, without waiting for it (Kocberber, Falsafi
//! and Grot, 2015, who call it asynchronous memory access chaining). The gets and inserts that follow then find
//! what they need in the caches; they are what they always are, and nothing depends on this having happened.
//!
//! So a walk here may be wrong where that is simpler: stop early, or miss what comes in meanwhile. It answers
//! nothing, changes nothing and allocates nothing.

use crate::entry::LookupKey;

/// Most keys that are walked to together: a core waits for ten to twenty lines of memory at a time.
pub const WARM_KEYS: usize = 16;
/// With fewer keys there is too little to overlap.
pub(crate) const WARM_KEYS_MIN: usize = 4;

/// What is about to be done with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ahead {
    /// Each is read.
    Get,
    /// A record of each is inserted.
    Insert,
}

/// Begins a walk for each key, [`WARM_KEYS`] at most, and goes on with each in turn; `hop` says whether there is
/// more to go.
#[inline]
pub(crate) fn in_lock_step<'k, W>(
    keys: &[LookupKey<'k>],
    begin: impl Fn(LookupKey<'k>) -> W,
    mut hop: impl FnMut(&mut W) -> bool,
) {
    let Some(last) = keys.last() else { return };
    let mut walks: [W; WARM_KEYS] = std::array::from_fn(|at| begin(*keys.get(at).unwrap_or(last)));
    let mut going = keys.len().min(WARM_KEYS);
    while going > 0 {
        let mut at = 0;
        while at < going {
            if hop(&mut walks[at]) {
                at += 1;
            } else {
                going -= 1;
                walks.swap(at, going);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_take_turns_until_each_is_at_its_end() {
        let texts: Vec<_> = (1..=20_u8).map(|hops| vec![0; usize::from(hops % 7)]).collect();
        for count in [0, 1, 5, WARM_KEYS, 20] {
            let keys: Vec<_> = texts[..count].iter().map(|key| LookupKey::new(key, 0)).collect();
            let (mut last_round, mut hops) = (0, 0);
            let begin = |k: LookupKey<'_>| (k.key.len(), 0);
            in_lock_step(&keys, begin, |(left, round)| {
                hops += 1;
                *round += 1;
                assert!(*round >= last_round, "no walk is a hop behind another");
                last_round = *round;
                *left = left.saturating_sub(1);
                *left > 0
            });
            let want = texts[..count.min(WARM_KEYS)].iter().map(|key| key.len().max(1));
            assert_eq!(hops, want.sum::<usize>());
        }
    }
}
