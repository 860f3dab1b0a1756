//! Asking a program's index, and checking each answer.

use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};

use memtide_base::SeqNo;

use super::{CustomIndex, RecordRef, Records};
use crate::arena::{Arena, Ref};
use crate::contract::{LookupKey, Pos};
use crate::skl;

/// What an index was caught at, in words.
pub(super) type Fault = String;

/// Runs the program's code; its panic is a fault.
pub(super) fn call<R>(what: &str, code: impl FnOnce() -> R) -> Result<R, Fault> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say why");
        format!("{what} panicked: {text}")
    })
}

/// An index and the records it may look at.
pub(super) struct Asked<'a> {
    pub(super) index: &'a dyn CustomIndex,
    pub(super) arena: &'a Arena,
    pub(super) records: Records<'a>,
}

impl Asked<'_> {
    /// The node of a key.
    pub(super) fn find(&self, k: &LookupKey<'_>) -> Result<Option<Ref>, Fault> {
        let answer = call("find", || self.index.find(&self.records, k.key, k.hash))?;
        let Some(node) = self.own(answer)? else { return Ok(None) };
        let key = self.arena.key(node);
        if key != k.key {
            return Err(format!("find({}) answered {}", shown(k.key), shown(key)));
        }
        Ok(Some(node))
    }

    /// The node nearest to a bound that lies on its far side.
    pub(super) fn next(&self, from: Bound<&[u8]>, forward: bool) -> Result<Option<Ref>, Fault> {
        let what = if forward { "first_from" } else { "last_to" };
        let answer = call(what, || match forward {
            true => self.index.first_from(&self.records, from),
            false => self.index.last_to(&self.records, from),
        })?;
        let Some(node) = self.own(answer)? else { return Ok(None) };
        let key = self.arena.key(node);
        let is_beyond = |bound: &[u8]| if forward { key > bound } else { key < bound };
        let (bound, admits) = match from {
            Bound::Included(bound) => (bound, key == bound || is_beyond(bound)),
            Bound::Excluded(bound) => (bound, is_beyond(bound)),
            Bound::Unbounded => (&[][..], true),
        };
        if !admits {
            return Err(format!("{what}({}) answered {}", shown(bound), shown(key)));
        }
        Ok(Some(node))
    }

    /// Moves `pos` to the first node from a bound on that has a visible version.
    pub(super) fn advance(
        &self,
        pos: &mut Pos,
        below: SeqNo,
        from: Bound<&[u8]>,
        way: &mut Way,
    ) -> Result<bool, Fault> {
        let mut from = from;
        pos.at = None;
        while let Some(node) = self.next(from, way.forward)? {
            way.seen += 1;
            pos.at = skl::newest_version(self.arena, node, below);
            if pos.at.is_some() {
                pos.words[0] = u64::from(node.word());
                return Ok(true);
            }
            from = Bound::Excluded(self.arena.key(node));
        }
        way.end().map(|()| false)
    }

    fn own(&self, answer: Option<RecordRef>) -> Result<Option<Ref>, Fault> {
        let own = |record| self.records.own(record).ok_or("it answered another memtable's record");
        Ok(answer.map(own).transpose()?)
    }
}

/// What a walk that goes on knows of itself. It is kept in a [`Pos`]:
///
/// ```text
/// words[0]   the node it stands on
/// words[1]   nodes seen since the end where it began; 0 = it began elsewhere; MAX = broken off
/// words[2]   nodes there were when it began, shifted by one; the lowest bit says forward
/// ```
#[derive(Debug)]
pub(super) struct Way {
    pub(super) forward: bool,
    pub(super) seen: u64,
    /// Nodes that it must have seen at its end. Keys that come meanwhile only add to what it sees.
    pub(super) owed: Option<u64>,
}

const BROKEN: u64 = u64::MAX;

impl Way {
    /// A walk goes on; it still counts if it does not turn.
    pub(super) fn load(pos: &Pos, forward: bool) -> Self {
        let [_, seen, owed] = pos.words;
        let counts = seen > 0 && owed & 1 == u64::from(forward);
        Self { forward, seen, owed: counts.then_some(owed >> 1) }
    }

    pub(super) fn store(&self, pos: &mut Pos) {
        pos.words[1] = if self.owed.is_some() { self.seen } else { 0 };
        pos.words[2] = self.owed.unwrap_or(0) << 1 | u64::from(self.forward);
    }

    fn end(&self) -> Result<(), Fault> {
        match self.owed {
            Some(owed) if self.seen < owed => {
                Err(format!("a walk over {owed} keys showed {} of them", self.seen))
            }
            _ => Ok(()),
        }
    }

    /// Marks a walk that cannot be trusted to have been whole.
    pub(super) fn break_off(pos: &mut Pos) {
        *pos = Pos { words: [0, BROKEN, 0], ..Pos::default() };
    }

    pub(super) fn is_broken(pos: &Pos) -> bool {
        pos.words[1] == BROKEN && pos.view.is_none()
    }

    /// The node that `pos` stands on.
    pub(super) fn node(pos: &Pos) -> Option<Ref> {
        Ref::from_word(u32::try_from(pos.words[0]).expect("a node's word"))
    }
}

/// A key in a message.
fn shown(key: &[u8]) -> String {
    format!("\"{}\"", key[..key.len().min(40)].escape_ascii())
}
