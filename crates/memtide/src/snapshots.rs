//! Who still reads the past: the bounds of all live snapshots.

use std::collections::BTreeMap;

use memtide_base::SeqNo;
use memtide_base::sync::Mutex;
use memtide_base::sync::atomic::{AtomicU64, Ordering};

/// The live snapshots of a database and the bound that new reads take.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// Every write below is applied; new reads see exactly those.
    visible: AtomicU64,
    /// How many snapshots read below each bound.
    live: Mutex<BTreeMap<SeqNo, usize>>,
}

/// What a merge must respect: taken once, before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Readers {
    /// The bound of the newest read there could be.
    pub(crate) visible: SeqNo,
    /// Bounds of live snapshots, ascending.
    pub(crate) snapshots: Vec<SeqNo>,
}

impl Snapshots {
    /// The bound of a read that begins now. Load the superversion first.
    #[inline]
    pub(crate) fn visible(&self) -> SeqNo {
        // Acquire pairs with the Release in `publish`: what is below has been inserted.
        self.visible.load(Ordering::Acquire)
    }

    /// Shows every write below `end`. Called in the order of the log.
    pub(crate) fn publish(&self, end: SeqNo) {
        self.visible.store(end, Ordering::Release);
    }

    /// Registers a snapshot of now.
    pub(crate) fn take(&self) -> SeqNo {
        let mut live = self.live.lock();
        let below = self.visible();
        *live.entry(registered(below)).or_default() += 1;
        below
    }

    /// Ends a snapshot.
    pub(crate) fn release(&self, below: SeqNo) {
        let mut live = self.live.lock();
        let below = registered(below);
        let count = live.get_mut(&below).expect("a snapshot is released once");
        *count -= 1;
        if *count == 0 {
            live.remove(&below);
        }
    }

    /// Live snapshots and `visible`, both as of one moment.
    pub(crate) fn readers(&self) -> Readers {
        let live = self.live.lock();
        Readers { visible: self.visible(), snapshots: live.keys().copied().collect() }
    }
}

/// The bound under which a snapshot is known.
fn registered(below: SeqNo) -> SeqNo {
    if cfg!(plant = "snapshot_registered_below") { 0 } else { below }
}

impl Readers {
    /// Whether no read can ever need `version` because `newer`, of the same key or over it, hides it.
    pub(crate) fn hides(&self, version: SeqNo, newer: SeqNo) -> bool {
        // A snapshot S sees `version` and not `newer` if version < S ≤ newer.
        let between = self.snapshots.partition_point(|&below| below <= version);
        if cfg!(plant = "snapshot_bound_closed") {
            return newer < self.visible
                && self.snapshots.get(between).is_none_or(|&below| below >= newer);
        }
        newer < self.visible && self.snapshots.get(between).is_none_or(|&below| below > newer)
    }

    /// Whether every read sees past the tombstone `seq`, so that it can go once nothing older is left.
    pub(crate) fn all_see(&self, seq: SeqNo) -> bool {
        if cfg!(plant = "tombstone_over_snapshots") {
            return seq < self.visible;
        }
        seq < self.visible && self.snapshots.first().is_none_or(|&below| below > seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_hidden_unless_a_snapshot_lies_between() {
        let readers = Readers { visible: 100, snapshots: vec![20, 50] };
        for (version, newer, hidden) in [
            (10, 19, true),
            (10, 20, false),
            (19, 20, false),
            (20, 30, true),
            (20, 50, false),
            (60, 99, true),
            (60, 100, false),
        ] {
            assert_eq!(readers.hides(version, newer), hidden, "{version} under {newer}");
        }
        assert!(readers.all_see(19) && !readers.all_see(20));
    }
}
