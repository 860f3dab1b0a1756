//! The iterator users see: over a range, from both ends, of one moment.

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
/// error. While it lives it keeps the memtables, tables and blob files it reads.
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
    /// Opened by the first step forward, the first step back.
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

    /// The next entry, lent: neither key nor value is copied or shared, so a long scan takes half to two thirds of
    /// the time. `None` behind the last one.
    ///
    /// May be mixed with `next` and `next_back` at will.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// let db = memtide::Db::open(dir.path().join("data"))?;
    /// db.put("ebb", "low")?;
    /// db.put("tide", "high")?;
    /// let (mut entries, mut bytes) = (db.iter(), 0);
    /// while let Some((key, value)) = entries.next_lent()? {
    ///     bytes += key.len() + value.len();
    /// }
    /// assert_eq!(bytes, 14);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As the iterator's items; it has ended then.
    #[inline]
    pub fn next_lent(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.step_lent(true)
    }

    /// As [`Iter::next_lent`], from the other end.
    ///
    /// # Errors
    /// As [`Iter::next_lent`].
    #[inline]
    pub fn next_back_lent(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        self.step_lent(false)
    }

    #[inline]
    fn next_owned(&mut self, forward: bool) -> Option<Result<(Slice, Slice)>> {
        let found = self.step(forward).transpose()?;
        let entry = found.and_then(|at| Ok((Slice::copy_of(at.key()), at.value()?)));
        if let Err(error) = &entry {
            self.fail(error);
        }
        Some(entry)
    }

    #[inline]
    fn step_lent(&mut self, forward: bool) -> Result<Option<(&[u8], &[u8])>> {
        let prepared = match self.step(forward)? {
            Some(at) => at.prepare(),
            None => return Ok(None),
        };
        if let Err(error) = prepared {
            self.fail(&error);
            return Err(error);
        }
        Ok(self.end(forward).map(|at| at.lent()))
    }

    /// The cursor of one end, if it was opened.
    #[inline]
    fn end(&mut self, forward: bool) -> Option<&mut VisibleCursor> {
        match &mut self.state {
            State::Open(open) => if forward { &mut open.front } else { &mut open.back }.as_mut(),
            State::Failed(_) | State::Done => None,
        }
    }

    /// Takes one end to its next entry.
    #[inline]
    fn step(&mut self, forward: bool) -> Result<Option<&mut VisibleCursor>> {
        let stepped = match &mut self.state {
            State::Open(open) => open.step(forward),
            State::Failed(error) => error.take().map_or(Ok(false), Err),
            State::Done => return Ok(None),
        };
        match &stepped {
            Ok(true) => {}
            Ok(false) => self.state = State::Done,
            Err(error) => self.fail(error),
        }
        stepped?;
        Ok(self.end(forward))
    }

    /// Ends because of an error.
    #[cold]
    fn fail(&mut self, error: &Error) {
        if let State::Open(open) = &self.state {
            open.handle.engine().note_damage(error);
        }
        self.state = State::Done;
    }
}

impl Open {
    /// Takes one end to its next entry; `false` if that is none, or the other end has shown it.
    #[inline]
    fn step(&mut self, forward: bool) -> Result<bool> {
        self.handle.engine().check_open()?;
        let end = if forward { &mut self.front } else { &mut self.back };
        let found = match end {
            Some(cursor) => cursor.advance()?,
            None => self.begin(forward)?,
        };
        let end = if forward { &self.front } else { &self.back };
        let Some(cursor) = end.as_ref().filter(|_| found) else { return Ok(false) };
        if !self.range.reaches(cursor.key(), forward) {
            return Ok(false);
        }
        if self.front.is_some() && self.back.is_some() {
            self.narrow(forward);
        }
        Ok(true)
    }

    /// Opens one end and goes to its first entry.
    fn begin(&mut self, forward: bool) -> Result<bool> {
        // What the other end has shown is not to be shown again.
        self.narrow(!forward);
        let (view, range) = (&self.view, &self.range);
        let tables = &self.handle.engine().tables;
        let mut cursor = VisibleCursor::new(view, tables, self.below, range, forward)?;
        let found = match &range.end {
            _ if forward => cursor.seek(Target::Ge(&range.start))?,
            None => cursor.seek(Target::Last)?,
            Some(end) => {
                let found = cursor.seek(Target::Le(end))?;
                if found && cursor.key() == end.as_bytes() { cursor.advance()? } else { found }
            }
        };
        *(if forward { &mut self.front } else { &mut self.back }) = Some(cursor);
        Ok(found)
    }

    /// Takes what one end, if it is open, has shown from the range: the other end stops before that.
    fn narrow(&mut self, forward: bool) {
        let Some(cursor) = (if forward { &self.front } else { &self.back }) else { return };
        if forward {
            self.range.start = successor(cursor.key()).into();
        } else {
            self.range.end = Some(Slice::copy_of(cursor.key()));
        }
    }
}

impl Iterator for Iter {
    type Item = Result<(Slice, Slice)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.next_owned(true)
    }
}

impl DoubleEndedIterator for Iter {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.next_owned(false)
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
