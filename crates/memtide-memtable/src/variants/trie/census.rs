//! How many nodes of a trie lack how many children until they must grow, and what they weigh.
//!
//! This is what bounds the index bytes of a batch. A new key does exactly one of these: it takes a free
//! place (0 B), it splits a path (one N4), or it comes to a full node (one node of the next kind). So a
//! node with `f` free places costs its next kind once `f + 1` keys of the batch went to it, and no key
//! counts for two nodes. The bound spends the batch's keys where they cost most; what is left of them is
//! charged as [`FRESH_BYTES`] each, which covers nodes that the batch itself creates.
//!
//! One writer counts, under the memtable's writer lock, so a count is loaded and stored, not added to; the
//! counters are atomics for `check` alone.

use memtide_base::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::node::NodeKind;

/// The kinds that can grow.
const GROWING: [NodeKind; 3] = [NodeKind::N4, NodeKind::N16, NodeKind::N48];

/// Most bytes per key that go to nodes younger than the batch, from their first key on.
const FRESH_BYTES: u64 = 33;
const _: () = {
    assert!(NodeKind::N4.bytes() <= FRESH_BYTES, "a split is one key");
    // A split leaves an N4 with at most two children.
    assert!(NodeKind::N16.bytes() <= FRESH_BYTES * 3);
    assert!(NodeKind::N48.bytes() <= FRESH_BYTES * keys_to_grow(NodeKind::N16) as u64);
    assert!(NodeKind::N256.bytes() <= FRESH_BYTES * keys_to_grow(NodeKind::N48) as u64);
};

/// Keys that make a node of this kind grow if it has as few children as it can.
const fn keys_to_grow(kind: NodeKind) -> u32 {
    kind.capacity() - kind.children_min() + 1
}

/// Nodes that the same number of keys makes grow into the same kind.
#[derive(Clone, Copy)]
struct Class {
    counter: usize,
    /// Keys until such a node has grown.
    keys: u64,
    /// Bytes it then costs.
    bytes: u64,
}

/// What growing costs more than [`FRESH_BYTES`] a key, dearest first.
const BY_PRICE: [Class; CLASSES] = {
    let mut classes = [Class { counter: 0, keys: 1, bytes: 0 }; CLASSES];
    let (mut len, mut k) = (0, 0);
    while k < GROWING.len() {
        let (kind, mut free) = (GROWING[k], 0);
        let counter = position(kind, kind.capacity());
        while free < keys_to_grow(kind) as usize {
            let (keys, bytes) = (free as u64 + 1, kind.larger().bytes());
            if bytes <= FRESH_BYTES * keys {
                break;
            }
            let mut at = len;
            while at > 0 && classes[at - 1].bytes * keys < bytes * classes[at - 1].keys {
                classes[at] = classes[at - 1];
                at -= 1;
            }
            classes[at] = Class { counter: counter + free, keys, bytes };
            (len, free) = (len + 1, free + 1);
        }
        k += 1;
    }
    assert!(len == CLASSES);
    classes
};
/// 2 for N4, 7 for N16, 31 for N48.
const CLASSES: usize = 2 + 7 + 31;

/// Counters: 4 for N4, 12 for N16, 32 for N48 by free places, one for all N256.
const COUNTERS: usize = 4 + 12 + 32 + 1;

/// Counts the nodes of one trie.
#[derive(Debug)]
pub(super) struct Census {
    nodes: [AtomicU32; COUNTERS],
    carved_bytes: AtomicU64,
    dead_bytes: AtomicU64,
}

impl Census {
    pub(super) fn new() -> Self {
        Self {
            nodes: std::array::from_fn(|_| AtomicU32::new(0)),
            carved_bytes: AtomicU64::new(0),
            dead_bytes: AtomicU64::new(0),
        }
    }

    /// A node was carved and has this many children.
    pub(super) fn born(&self, kind: NodeKind, children: u32) {
        grow(&self.carved_bytes, kind.bytes());
        self.settle(kind, children);
    }

    /// A node got its child number `children`.
    pub(super) fn gained(&self, kind: NodeKind, children: u32) {
        self.leave(kind, children - 1);
        self.settle(kind, children);
    }

    /// A full node was replaced by a larger one.
    pub(super) fn died(&self, kind: NodeKind) {
        grow(&self.dead_bytes, kind.bytes());
        self.leave(kind, kind.capacity());
    }

    /// Most bytes of nodes that inserting `keys` keys can need.
    pub(super) fn growth_bytes_max(&self, keys: u64) -> u64 {
        let (mut bytes, mut left) = (0, keys);
        // A node that needs more keys than the batch has cannot grow at all.
        for class in BY_PRICE.iter().filter(|class| class.keys <= keys) {
            let nodes = u64::from(self.nodes[class.counter].load(Ordering::Relaxed));
            let spent = left.min(nodes * class.keys);
            bytes += (spent * class.bytes).div_ceil(class.keys);
            left -= spent;
            if left == 0 {
                break;
            }
        }
        bytes + left * FRESH_BYTES
    }

    /// Bytes of all nodes, the replaced ones included.
    #[cfg(test)]
    pub(super) fn carved_bytes(&self) -> u64 {
        self.carved_bytes.load(Ordering::Relaxed)
    }

    /// Says what differs between this census and one that was counted anew over the living nodes.
    pub(super) fn compare(&self, living: &Self) -> Result<(), String> {
        let counts = |census: &Self| census.nodes.each_ref().map(|n| n.load(Ordering::Relaxed));
        if counts(self) != counts(living) {
            return Err(format!("the census says {self:?}, the tree has {living:?}"));
        }
        let carved = self.carved_bytes.load(Ordering::Relaxed);
        let dead = self.dead_bytes.load(Ordering::Relaxed);
        let alive = living.carved_bytes.load(Ordering::Relaxed);
        if carved != alive + dead {
            return Err(format!("{carved} B of nodes were carved, {alive} live, {dead} are dead"));
        }
        Ok(())
    }

    fn settle(&self, kind: NodeKind, children: u32) {
        let nodes = &self.nodes[position(kind, children)];
        nodes.store(nodes.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn leave(&self, kind: NodeKind, children: u32) {
        let nodes = &self.nodes[position(kind, children)];
        nodes.store(nodes.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }
}

fn grow(sum: &AtomicU64, bytes: u64) {
    sum.store(sum.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
}

/// The counter of the nodes of a kind with this many children.
const fn position(kind: NodeKind, children: u32) -> usize {
    let free = (kind.capacity() - children) as usize;
    match kind {
        NodeKind::N4 => free,
        NodeKind::N16 => 4 + free,
        NodeKind::N48 => 16 + free,
        NodeKind::N256 => COUNTERS - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_spends_keys_where_nodes_are_nearest_to_growing() {
        let census = Census::new();
        assert_eq!(census.growth_bytes_max(100), 100 * FRESH_BYTES);
        census.born(NodeKind::N48, 47);
        census.born(NodeKind::N16, 16);
        census.born(NodeKind::N4, 4);
        assert_eq!(census.growth_bytes_max(1), 256, "one key cannot grow the N48");
        assert_eq!(census.growth_bytes_max(2), 1040);
        assert_eq!(census.growth_bytes_max(3), 1040 + 256);
        assert_eq!(census.growth_bytes_max(4), 1040 + 256 + 96);
        assert_eq!(census.growth_bytes_max(9), 1040 + 256 + 96 + 5 * FRESH_BYTES);
        census.gained(NodeKind::N48, 48);
        assert_eq!(census.growth_bytes_max(1), 1040);
        census.died(NodeKind::N48);
        assert_eq!(census.growth_bytes_max(1), 256);
    }
}
