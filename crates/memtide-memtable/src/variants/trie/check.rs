//! Asserts the structure of a trie: order, shared bytes, kinds and counts of nodes, chains, the census.

use memtide_base::sync::atomic::{AtomicU32, Ordering};

use super::Child;
use super::census::Census;
use super::node::Node;
use crate::arena::{Arena, Ref};
use crate::chain;

/// What is wrong with the tree below `root`; `records` is how many it must hold.
pub(super) fn check(
    arena: &Arena,
    root: &AtomicU32,
    census: &Census,
    records: u64,
) -> Result<(), String> {
    let living = Census::new();
    let (mut found, mut before) = (0, None);
    let mut rest = vec![root.load(Ordering::Acquire)];
    while let Some(word) = rest.pop() {
        match Child::of(arena, word) {
            None => {}
            Some(Child::Node(node)) => {
                let children = check_node(arena, &node)?;
                living.born(node.kind(), node.count());
                rest.extend(children.iter().rev().map(|&(_, child)| child));
                rest.push(node.here().load(Ordering::Acquire));
            }
            Some(Child::Leaf(head)) => {
                let key = arena.key(head);
                if before.is_some_and(|before| before >= key) {
                    return Err(format!("key {key:?} is out of order"));
                }
                before = Some(key);
                found += chain::check(arena, Some(head))?;
            }
        }
    }
    if found != records {
        return Err(format!("{records} records were inserted, the tree holds {found}"));
    }
    census.compare(&living)
}

/// The children of a node, or what is wrong with it: its kind, its counts, the bytes that its subtrees
/// share and differ in.
fn check_node(arena: &Arena, node: &Node<'_>) -> Result<Vec<(u8, u32)>, String> {
    let (kind, count, end) = (node.kind(), node.count(), node.end());
    let Some(shared) = arena.key(node.rep()).get(..end) else {
        return Err(format!("the record of an {kind:?} is shorter than its {end} shared bytes"));
    };
    let here = Ref::from_word(node.here().load(Ordering::Acquire));
    if here.is_some_and(|here| here.word() % 2 == 0 || arena.key(here) != shared) {
        return Err(format!("the key that ends in the node of {shared:?} is another"));
    }
    let children = node.children();
    let is_set = children.is_sorted_by(|a, b| a.0 < b.0) && children.len() == count as usize;
    let subtrees = count + u32::from(here.is_some());
    if !is_set || count < kind.children_min() || subtrees < 2 {
        return Err(format!("the {kind:?} of {shared:?} says it has {count} children"));
    }
    for &(byte, word) in &children {
        let below = match Child::of(arena, word) {
            Some(Child::Leaf(head)) => head,
            Some(Child::Node(inner)) if inner.end() > end => inner.rep(),
            _ => return Err(format!("child {byte} of {shared:?} does not lead further")),
        };
        let key = arena.key(below);
        if !key.starts_with(shared) || key.get(end) != Some(&byte) {
            return Err(format!("key {key:?} is below child {byte} of {shared:?}"));
        }
    }
    Ok(children)
}
