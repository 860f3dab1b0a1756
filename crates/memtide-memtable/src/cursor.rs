//! The one cursor over all memtable variants.

use memtide_base::sync::Arc;
use memtide_base::{Cursor, Entry, Result, SeqNo, Target};

use crate::contract::{Pos, Seek, Walk};
use crate::memtable::Memtable;

/// Walks a memtable below a bound. Owns its table, holds no lock between steps, never fails.
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

    fn walk(&mut self, step: Walk) -> bool {
        let (pos, below) = (&mut self.pos, self.below);
        pos.at.is_some() && self.table.read(|index, arena| index.walk(arena, pos, below, step))
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
        Ok(self.walk(Walk::Next))
    }

    fn prev(&mut self) -> Result<bool> {
        Ok(self.walk(Walk::Prev))
    }

    fn older(&mut self) -> Result<bool> {
        Ok(self.walk(Walk::Older))
    }

    fn entry(&self) -> Entry<'_> {
        let at = self.pos.at.expect("the cursor stands on an entry");
        self.table.arena().entry(at)
    }
}
