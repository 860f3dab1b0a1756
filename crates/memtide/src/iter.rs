//! The iterator users see: over a range, from both ends, of one moment.

use std::fmt;
use std::iter::FusedIterator;

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
    range: HalfOpen,
    /// Opened by the first `next`, the first `next_back`; each then stands on what it has shown last.
    front: Option<VisibleCursor>,
    back: Option<VisibleCursor>,
    /// Keeps what it sees from being compacted away while its superversion is replaced.
    _snapshot: Option<Arc<LiveSnapshot>>,
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
        let stepped = match &mut self.state {
            State::Open(open) => open.step(forward),
            State::Failed(error) => Err(error.take()?),
            State::Done => return None,
        };
        if let (Ok(true), State::Open(open)) = (&stepped, &self.state) {
            let cursor = open.end(forward);
            return Some(Ok((Slice::copy_of(cursor.key()), cursor.value())));
        }
        self.state = State::Done;
        stepped.err().map(Err)
    }
}

impl Open {
    /// Moves one end to its next key; `false` when it meets the end of the range or the other end, which
    /// stands on the last key it has shown.
    #[inline]
    fn step(&mut self, forward: bool) -> Result<bool> {
        self.handle.engine().check_open()?;
        let ends = (&mut self.front, &mut self.back);
        let cursor = if forward { ends.0 } else { ends.1 };
        let found = match cursor {
            Some(cursor) => cursor.advance()?,
            None => self.begin(forward)?,
        };
        Ok(found && self.is_inside(self.end(forward).key(), forward))
    }

    /// Whether the key that one end has come to lies before the other end and the end of the range.
    #[inline]
    fn is_inside(&self, key: &[u8], forward: bool) -> bool {
        if forward {
            self.range.end.as_ref().is_none_or(|end| key < end.as_slice())
                && self.back.as_ref().is_none_or(|back| key < back.key())
        } else {
            key >= self.range.start.as_slice()
                && self.front.as_ref().is_none_or(|front| key > front.key())
        }
    }

    #[inline]
    fn end(&self, forward: bool) -> &VisibleCursor {
        let cursor = if forward { &self.front } else { &self.back };
        cursor.as_ref().expect("this end was stepped to")
    }

    /// Opens one end, at its end of the range.
    fn begin(&mut self, forward: bool) -> Result<bool> {
        let tables = Arc::clone(&self.handle.engine().tables);
        let mut cursor = VisibleCursor::new(Arc::clone(&self.view), tables, self.below)?;
        let found = match &self.range.end {
            _ if forward => cursor.seek(Target::Ge(&self.range.start))?,
            None => cursor.seek(Target::Last)?,
            Some(end) => {
                let found = cursor.seek(Target::Le(end))?;
                if found && cursor.key() == end.as_slice() { cursor.advance()? } else { found }
            }
        };
        let opened = if forward { &mut self.front } else { &mut self.back };
        *opened = Some(cursor);
        Ok(found)
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
