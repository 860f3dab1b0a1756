//! The one cursor over all memtable variants.

use memtide_base::sync::Arc;
use memtide_base::{Cursor, Entry, Error, Result, SeqNo, Target};

use crate::arena::Ref;
use crate::contract::{Passed, Pos, Seek, Walk};
use crate::memtable::Memtable;

/// Steps that a long walk takes at once.
const AHEAD_MAX: usize = 16;

/// Walks a memtable below a bound. Owns its table, holds no lock between steps. Over one of the eight it never
/// fails; over a program's own memtable it fails once that was caught at a wrong answer, and a new cursor does
/// not.
///
/// It walks ahead of where it stands, twice as far each time up to 16 steps: a step then costs a look at what was
/// passed, and the cache misses of several steps overlap. What it passed stays right, because what is visible
/// below a bound does not change.
#[derive(Debug)]
pub struct MemCursor {
    table: Arc<Memtable>,
    below: SeqNo,
    /// The version the cursor stands on.
    at: Option<Ref>,
    /// Where the index stands: on the last of `ahead`, or with the cursor if there is nothing ahead.
    pos: Pos,
    ahead: Stretch,
}

/// What the index passed, and how far of that the cursor has come.
#[derive(Debug)]
struct Stretch {
    passed: [Passed; AHEAD_MAX],
    /// How many were passed, and the one the cursor goes to next.
    len: usize,
    next: usize,
    /// Which way.
    step: Walk,
    /// How far to go the next time.
    reach: usize,
}

impl Default for Stretch {
    fn default() -> Self {
        let passed = [Passed::default(); AHEAD_MAX];
        Self { passed, len: 0, next: 0, step: Walk::Next, reach: 1 }
    }
}

impl Stretch {
    /// Whether the index stands elsewhere than the cursor.
    fn is_apart(&self) -> bool {
        self.next < self.len
    }

    fn forget(&mut self) {
        (self.len, self.next, self.reach) = (0, 0, 1);
    }
}

/// Where one version lies in its memtable.
#[derive(Clone, Copy, Debug)]
pub struct Place(Ref);

impl Memtable {
    /// The version at a place that a cursor over this table named.
    #[must_use]
    pub fn entry_at(&self, place: Place) -> Entry<'_> {
        self.arena().entry(place.0)
    }

    /// Where versions of the smallest and of the largest key lie, range tombstones apart; `None` if there are no keys.
    /// Sorts what is ordered on demand, and asks no program's index: that might err.
    #[must_use]
    pub fn key_span(&self) -> Option<(Place, Place)> {
        let (first, last) = self.read(|index, arena| index.span(arena))?;
        Some((Place(first), Place(last)))
    }

    /// A cursor over the versions below `below`; it keeps the table alive.
    #[must_use]
    pub fn cursor(self: &Arc<Self>, below: SeqNo) -> MemCursor {
        let (table, pos, ahead) = (Arc::clone(self), Pos::default(), Stretch::default());
        MemCursor { table, below, at: None, pos, ahead }
    }
}

impl MemCursor {
    #[inline]
    fn step(&mut self, step: Walk) -> Result<bool> {
        if self.ahead.is_apart() && self.ahead.step == step {
            self.at = self.ahead.passed[self.ahead.next].at;
            self.ahead.next += 1;
            return Ok(true);
        }
        self.walk(step)
    }

    /// Where the version lies that the cursor stands on.
    ///
    /// # Panics
    /// If it stands on none.
    #[must_use]
    pub fn place(&self) -> Place {
        Place(self.at.expect("the cursor stands on an entry"))
    }

    fn walk(&mut self, step: Walk) -> Result<bool> {
        let Some(at) = self.at else { return Ok(false) };
        if self.ahead.is_apart() {
            // The other way, so from where the cursor is.
            let key = self.table.arena().key(at);
            let own = Seek::Ge(self.table.arena().lookup_key(key, 0));
            let (pos, below) = (&mut self.pos, self.below);
            self.table.read(|index, arena| index.seek(arena, pos, below, own));
        }
        if self.ahead.is_apart() || self.ahead.step != step {
            self.ahead.forget();
            self.ahead.step = step;
        }
        let (pos, below) = (&mut self.pos, self.below);
        let passed = &mut self.ahead.passed[..self.ahead.reach];
        let len = self.table.read(|index, arena| index.walk_ahead(arena, pos, below, step, passed));
        self.at = self.ahead.passed[0].at.filter(|_| len > 0);
        (self.ahead.len, self.ahead.next) = (len, 1);
        self.ahead.reach = (2 * self.ahead.reach).min(AHEAD_MAX);
        if len == 0 {
            self.check_whole()?;
        }
        Ok(len > 0)
    }

    fn walk_older(&mut self) -> Result<bool> {
        let Some(at) = self.at else { return Ok(false) };
        let below = self.below;
        let walk = |pos: &mut Pos| {
            self.table.read(|index, arena| index.walk(arena, pos, below, Walk::Older))
        };
        let moved = if self.ahead.is_apart() {
            let passed = self.ahead.passed[self.ahead.next - 1];
            let words = [passed.own.map_or(0, Ref::word).into(), 0, 0];
            let mut apart = Pos { at: Some(at), words, view: None };
            let moved = walk(&mut apart);
            self.at = apart.at;
            moved
        } else {
            let moved = walk(&mut self.pos);
            self.at = self.pos.at;
            moved
        };
        if !moved {
            self.check_whole()?;
        }
        Ok(moved)
    }

    /// Whether a walk that ended has seen everything.
    fn check_whole(&self) -> Result<()> {
        if !self.table.read(|index, _| index.broke_off(&self.pos)) {
            return Ok(());
        }
        let (name, fault) = (self.table.kind(), self.table.fault().unwrap_or_default());
        Err(Error::internal(format!("the memtable {name:?} is wrong: {fault}"))
            .with_hint("reading again does without it"))
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
        self.at = self.pos.at;
        self.ahead.forget();
        Ok(self.at.is_some())
    }

    #[inline]
    fn next(&mut self) -> Result<bool> {
        self.step(Walk::Next)
    }

    #[inline]
    fn prev(&mut self) -> Result<bool> {
        self.step(Walk::Prev)
    }

    fn older(&mut self) -> Result<bool> {
        self.walk_older()
    }

    #[inline]
    fn entry(&self) -> Entry<'_> {
        self.table.arena().entry(self.at.expect("the cursor stands on an entry"))
    }
}
