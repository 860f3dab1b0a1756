//! The iterator users see: over a range, from both ends, of one moment.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;

use memtide_base::key::successor;
use memtide_base::sync::Arc;
use memtide_base::{Error, Result, SeqNo, Slice, Target};

use crate::handle::Handle;
use crate::keyspace_state::{KeyspaceState, SuperVersion};
use crate::live_snapshot::LiveSnapshot;
use crate::range::HalfOpen;
use crate::read::VisibleCursor;

/// Keys with their values in key order, as of the moment the iterator was made.
///
/// Double-ended: `rev()` walks backwards at the same cost, and both ends may be used in turn. Owns what it
/// needs, the open database included, so it may outlive the handles it came from. Ends after its first
/// error. While it lives it keeps the memtables and tables it reads.
pub struct Iter {
    state: State,
}

enum State {
    Open(Box<Open>),
    Failed(Option<Error>),
    Done,
}

struct Open {
    handle: Arc<Handle>,
    view: Arc<SuperVersion>,
    below: SeqNo,
    /// What may still be shown, once both ends are open; until then what was asked for.
    range: HalfOpen,
    /// Opened by the first `next`, the first `next_back`.
    front: Option<End>,
    back: Option<End>,
    /// Keeps what it sees from being compacted away while its superversion is replaced.
    _snapshot: Option<Arc<LiveSnapshot>>,
}

/// One end of the iterator: where its cursor is, and what that passed and the user has not seen.
struct End {
    cursor: VisibleCursor,
    ahead: VecDeque<(Slice, Slice)>,
    /// How far to walk ahead the next time, from [`AHEAD_MIN`] on: twice as far each time, from 1 again when that was
    /// in vain.
    reach: usize,
}

/// From so many entries on walking ahead is worth it; short scans and those that change sources never do.
const AHEAD_MIN: usize = 8;
/// Entries that a long scan takes at once.
const AHEAD_MAX: usize = 16;

impl End {
    fn next(&mut self) -> Result<Option<(Slice, Slice)>> {
        match self.ahead.pop_front() {
            Some(entry) => Ok(Some(entry)),
            None => self.step(),
        }
    }

    fn step(&mut self) -> Result<Option<(Slice, Slice)>> {
        if !self.cursor.advance()? {
            return Ok(None);
        }
        let entry = self.entry();
        if self.reach >= AHEAD_MIN {
            self.cursor.walk_ahead(self.reach, &mut self.ahead);
        }
        let in_vain = self.reach >= AHEAD_MIN && self.ahead.is_empty();
        self.reach = if in_vain { 1 } else { (2 * self.reach).min(AHEAD_MAX) };
        Ok(Some(entry))
    }

    fn entry(&self) -> (Slice, Slice) {
        (Slice::copy_of(self.cursor.key()), self.cursor.value())
    }
}

impl Iter {
    /// Without a snapshot the iterator sees what is published now.
    pub(crate) fn new(
        handle: &Arc<Handle>,
        keyspace: &KeyspaceState,
        range: HalfOpen,
        snapshot: Option<Arc<LiveSnapshot>>,
    ) -> Self {
        let engine = handle.engine();
        if let Err(error) = engine.check_open() {
            return Self::failed(error);
        }
        // The superversion first: what is published later may be missing from it, never the reverse.
        let view = keyspace.current();
        let below = match &snapshot {
            Some(snapshot) => snapshot.below(),
            None => engine.snapshots.visible(),
        };
        let open = Open {
            handle: Arc::clone(handle),
            view,
            below,
            range,
            front: None,
            back: None,
            _snapshot: snapshot,
        };
        Self { state: State::Open(Box::new(open)) }
    }

    /// An iterator that yields one error.
    pub(crate) fn failed(error: Error) -> Self {
        Self { state: State::Failed(Some(error)) }
    }

    #[inline]
    fn step(&mut self, forward: bool) -> Option<Result<(Slice, Slice)>> {
        if let State::Open(open) = &mut self.state
            && open.is_ahead(forward)
        {
            let end = if forward { &mut open.front } else { &mut open.back };
            let passed = &mut end.as_mut().expect("it is ahead").ahead;
            return Some(Ok(passed.pop_front().expect("it is ahead")));
        }
        self.step_slowly(forward)
    }

    /// A step that has to look further than at what was passed.
    #[inline(never)]
    fn step_slowly(&mut self, forward: bool) -> Option<Result<(Slice, Slice)>> {
        let stepped = match &mut self.state {
            State::Open(open) => open.step(forward),
            State::Failed(error) => Err(error.take()?),
            State::Done => return None,
        };
        if !matches!(stepped, Ok(Some(_))) {
            self.state = State::Done;
        }
        stepped.transpose()
    }
}

impl Open {
    /// Whether the next entry of one end is at hand and that is all there is to do.
    #[inline]
    fn is_ahead(&self, forward: bool) -> bool {
        let (end, other) =
            if forward { (&self.front, &self.back) } else { (&self.back, &self.front) };
        let next = end.as_ref().and_then(|end| end.ahead.front());
        other.is_none()
            && !self.handle.engine().is_closed()
            && next.is_some_and(|(key, _)| self.is_inside(key, forward))
    }

    fn step(&mut self, forward: bool) -> Result<Option<(Slice, Slice)>> {
        self.handle.engine().check_open()?;
        let end = if forward { &mut self.front } else { &mut self.back };
        let next = match end {
            Some(end) => end.next()?,
            None => self.begin(forward)?,
        };
        let Some(entry) = next.filter(|(key, _)| self.is_inside(key, forward)) else {
            return Ok(None);
        };
        if self.front.is_some() && self.back.is_some() {
            // What one end has shown is outside of what the other may still show.
            if forward {
                self.range.start = successor(&entry.0).into();
            } else {
                self.range.end = Some(entry.0.clone());
            }
        }
        Ok(Some(entry))
    }

    /// Whether a key that one end has come to lies before the far end of the range.
    #[inline]
    fn is_inside(&self, key: &[u8], forward: bool) -> bool {
        if forward {
            self.range.end.as_ref().is_none_or(|end| key < end.as_bytes())
        } else {
            key >= self.range.start.as_bytes()
        }
    }

    /// Opens one end and goes to its first entry.
    fn begin(&mut self, forward: bool) -> Result<Option<(Slice, Slice)>> {
        self.narrow_by_the_other_end(forward);
        let tables = Arc::clone(&self.handle.engine().tables);
        let (view, range) = (Arc::clone(&self.view), &self.range);
        let mut cursor = VisibleCursor::new(view, tables, self.below, range, forward)?;
        let found = match &self.range.end {
            _ if forward => cursor.seek(Target::Ge(&self.range.start))?,
            None => cursor.seek(Target::Last)?,
            Some(end) => {
                let found = cursor.seek(Target::Le(end))?;
                if found && cursor.key() == end.as_bytes() { cursor.advance()? } else { found }
            }
        };
        let end = End { cursor, ahead: VecDeque::new(), reach: 1 };
        let first = found.then(|| end.entry());
        *(if forward { &mut self.front } else { &mut self.back }) = Some(end);
        Ok(first)
    }

    /// Takes from the range what the other end, if it is open, has shown. What that only passed is still to be shown,
    /// by whichever end comes there first.
    fn narrow_by_the_other_end(&mut self, forward: bool) {
        let other = if forward { &self.back } else { &self.front };
        let Some(other) = other else { return };
        let passed = other.ahead.front().map(|(key, _)| key.as_ref());
        // With nothing passed its cursor stands on what it showed last.
        let shown = other.cursor.key();
        if forward {
            self.range.end =
                Some(passed.map_or_else(|| Slice::copy_of(shown), |key| successor(key).into()));
        } else {
            self.range.start = passed.map_or_else(|| successor(shown).into(), Slice::copy_of);
        }
    }
}

impl Iterator for Iter {
    type Item = Result<(Slice, Slice)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}

impl DoubleEndedIterator for Iter {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

impl FusedIterator for Iter {}

impl fmt::Debug for Iter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Open(_) => "Iter",
            State::Failed(_) | State::Done => "Iter (ended)",
        })
    }
}
