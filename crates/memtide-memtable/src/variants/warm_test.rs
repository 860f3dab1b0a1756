//! Test support: whether a walk ahead ends where a get ends.

use memtide_base::{SeqNo, hash};

use super::model_test::{Rig, SEED};
use crate::arena::PREFETCHED;
use crate::contract::{Ahead, LookupKey, MemIndex, WARM_KEYS};

/// Fills `rig`, which is empty, and walks towards keys that are there and keys that are not: nearly all records
/// that gets show were asked for.
pub(super) fn walks_end_at_the_records<I: MemIndex>(rig: &Rig<I>, prefix: &str) {
    let key = |n: u64| format!("{prefix}{:05}", n * 7919 % 10_007);
    (0..3000).for_each(|n| rig.put(&key(n), n));
    for ahead in [Ahead::Get, Ahead::Insert] {
        let (mut there, mut missed) = (0, 0);
        for first in (0..4000).step_by(WARM_KEYS) {
            let texts: Vec<_> = (first..first + WARM_KEYS as u64).map(key).collect();
            let keys: Vec<_> = texts
                .iter()
                .map(|text| LookupKey::new(text.as_bytes(), hash::key_hash(SEED, text.as_bytes())))
                .collect();
            PREFETCHED.take();
            rig.index.warm(&rig.arena, &keys, ahead);
            let asked = PREFETCHED.take();
            for k in &keys {
                if let Some(record) = rig.index.get(&rig.arena, k, SeqNo::MAX) {
                    there += 1;
                    missed += usize::from(!asked.contains(&record));
                }
            }
        }
        assert_eq!(there, 3000);
        assert!(missed * 50 <= there, "{prefix:?}, {ahead:?}: {missed} of {there} were missed");
    }
}
