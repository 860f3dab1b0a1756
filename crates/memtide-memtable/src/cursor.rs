//! The one cursor over all memtable variants.

use memtide_base::sync::Arc;
use memtide_base::{Cursor, Entry, Error, Result, SeqNo, Target};

use crate::contract::{Pos, Seek, Walk};
use crate::memtable::Memtable;

/// Walks a memtable below a bound. Owns its table, holds no lock between steps. Over one of the eight it never
/// fails; over a program's own memtable it fails once that was caught at a wrong answer, and a new cursor does
/// not.
#[derive(Debug)]
pub struct MemCursor {
    table: Arc<Memtable>,
    below: SeqNo,
    pos: Pos,
}

impl Memtable {
    /// A cursor over the versions below `below`; it keeps the table alive.
    #[must_use]
    pub fn cursor(self: &Arc<Self>, below: SeqNo) -> MemCursor {
        MemCursor::new(Arc::clone(self), below)
    }
}

impl MemCursor {
    fn new(table: Arc<Memtable>, below: SeqNo) -> Self {
        Self { table, below, pos: Pos::default() }
    }

    fn walk(&mut self, step: Walk) -> Result<bool> {
        let (pos, below) = (&mut self.pos, self.below);
        let moved =
            pos.at.is_some() && self.table.read(|index, arena| index.walk(arena, pos, below, step));
        if !moved && self.table.read(|index, _| index.broke_off(&self.pos)) {
            return Err(self.broken());
        }
        Ok(moved)
    }

    #[cold]
    fn broken(&self) -> Error {
        let (name, fault) = (self.table.kind(), self.table.fault().unwrap_or_default());
        Error::internal(format!("the memtable {name:?} is wrong: {fault}"))
            .with_hint("reading again does without it")
    }
}

impl Cursor for MemCursor {
    fn seek(&mut self, target: Target<'_>) -> Result<bool> {
        // Order needs no hash.
        let to = match target {
            Target::First => Seek::First,
            Target::Last => Seek::Last,
            Target::Ge(key) => Seek::Ge(self.table.arena().lookup_key(key, 0)),
            Target::Le(key) => Seek::Le(self.table.arena().lookup_key(key, 0)),
        };
        let (pos, below) = (&mut self.pos, self.below);
        self.table.read(|index, arena| index.seek(arena, pos, below, to));
        Ok(self.pos.at.is_some())
    }

    fn next(&mut self) -> Result<bool> {
        self.walk(Walk::Next)
    }

    fn prev(&mut self) -> Result<bool> {
        self.walk(Walk::Prev)
    }

    fn older(&mut self) -> Result<bool> {
        self.walk(Walk::Older)
    }

    fn entry(&self) -> Entry<'_> {
        let at = self.pos.at.expect("the cursor stands on an entry");
        self.table.arena().entry(at)
    }
}
