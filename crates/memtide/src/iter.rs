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
    /// Opened by the first `next`, the first `next_back`.
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

    fn step(&mut self, forward: bool) -> Option<Result<(Slice, Slice)>> {
        let stepped = match &mut self.state {
            State::Open(open) => open.step(forward),
            State::Failed(error) => error.take().map_or(Ok(None), Err),
            State::Done => return None,
        };
        match stepped {
            Ok(Some(entry)) => Some(Ok(entry)),
            Ok(None) => {
                self.state = State::Done;
                None
            }
            Err(error) => {
                self.state = State::Done;
                Some(Err(error))
            }
        }
    }
}

impl Open {
    fn step(&mut self, forward: bool) -> Result<Option<(Slice, Slice)>> {
        self.handle.engine().check_open()?;
        let found = if forward { self.advance_front()? } else { self.advance_back()? };
        if !found {
            return Ok(None);
        }
        let cursor = if forward { &self.front } else { &self.back };
        let cursor = cursor.as_ref().expect("advanced just now");
        let key = cursor.key();
        let inside = key >= self.range.start.as_slice()
            && self.range.end.as_ref().is_none_or(|end| key < end.as_slice());
        if !inside {
            return Ok(None);
        }
        let (key, value) = (Slice::copy_of(key), cursor.value());
        // What one end has shown is outside of what the other may still show.
        if forward {
            self.range.start = memtide_base::key::successor(&key);
        } else {
            self.range.end = Some(key.to_vec());
        }
        Ok(Some((key, value)))
    }

    fn advance_front(&mut self) -> Result<bool> {
        if let Some(front) = &mut self.front {
            return front.next();
        }
        let mut cursor = self.cursor()?;
        let found = cursor.seek(Target::Ge(&self.range.start))?;
        self.front = Some(cursor);
        Ok(found)
    }

    fn advance_back(&mut self) -> Result<bool> {
        if let Some(back) = &mut self.back {
            return back.prev();
        }
        let mut cursor = self.cursor()?;
        let found = match &self.range.end {
            None => cursor.seek(Target::Last)?,
            Some(end) => {
                let found = cursor.seek(Target::Le(end))?;
                if found && cursor.key() == end.as_slice() { cursor.prev()? } else { found }
            }
        };
        self.back = Some(cursor);
        Ok(found)
    }

    fn cursor(&self) -> Result<VisibleCursor> {
        let tables = Arc::clone(&self.handle.engine().tables);
        VisibleCursor::new(Arc::clone(&self.view), tables, self.below)
    }
}

impl Iterator for Iter {
    type Item = Result<(Slice, Slice)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}

impl DoubleEndedIterator for Iter {
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
