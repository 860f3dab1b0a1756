//! Which range tombstone hides the keys of a walk: found once for a span of keys, not for each of them.
//!
//! Between two ends of tombstones the newest one over a key is the same. So a walk asks all sources at the first key
//! of such a span and compares the following keys with the end of the span alone, until one lies behind it.

use memtide_base::sync::Arc;
use memtide_base::{RangeTombstones, Result, SeqNo, TombstoneSpan};
use memtide_memtable::Fragmented;

use crate::keyspace_state::SuperVersion;
use crate::range::HalfOpen;
use crate::table_store::TableStore;
use crate::version::TableMeta;

/// The range tombstones below a bound of all sources of a superversion that a range meets.
#[derive(Debug)]
pub(super) struct TombstoneSpans {
    /// Newest first.
    sources: Vec<Source>,
    tables: Arc<TableStore>,
    below: SeqNo,
    forward: bool,
    /// The span of the key that was asked for last.
    span: Option<Span>,
}

/// Keys with one answer.
#[derive(Debug)]
struct Span {
    keys: HalfOpen,
    newest: Option<SeqNo>,
}

/// What the range tombstones of one source are found in.
#[derive(Debug)]
enum Source {
    Memtable(Arc<Fragmented>),
    /// The tables of a run that have any, in key order.
    Run(Vec<Arc<TableMeta>>),
}

impl TombstoneSpans {
    /// Those that a walk over `range` needs; `None` if there are none. What is visible below the bound must have been
    /// in its memtable before this is called.
    pub(super) fn new(
        view: &SuperVersion,
        tables: &Arc<TableStore>,
        below: SeqNo,
        range: &HalfOpen,
        forward: bool,
    ) -> Option<Self> {
        let memtables = view.memtables().filter(|table| table.range_tombstone_count() > 0);
        let mut sources: Vec<_> =
            memtables.map(|table| Source::Memtable(table.range_tombstones())).collect();
        if view.version.has_range_tombstones() {
            let level0 = view.version.level0().chunks(1);
            for run in level0.chain(view.version.runs().iter().map(|run| run.tables())) {
                let asked = run.iter().filter(|meta| {
                    meta.range_deletes > 0 && meta.seq_min < below && meta.meets(range)
                });
                let asked: Vec<_> = asked.cloned().collect();
                if !asked.is_empty() {
                    sources.push(Source::Run(asked));
                }
            }
        }
        let tables = Arc::clone(tables);
        (!sources.is_empty()).then_some(Self { sources, tables, below, forward, span: None })
    }

    /// Forgets where the walk was: it begins anew.
    pub(super) fn restart(&mut self) {
        self.span = None;
    }

    /// Whether what was last said still holds for `key`, which does not lie before the key that it was said of in the
    /// direction of the walk.
    #[inline]
    pub(super) fn hold(&self, key: &[u8]) -> bool {
        self.span.as_ref().is_some_and(|span| span.keys.reaches(key, self.forward))
    }

    /// The newest range tombstone over the keys that the last answer holds for.
    #[inline]
    pub(super) fn newest(&self) -> Option<SeqNo> {
        self.span.as_ref().and_then(|span| span.newest)
    }

    /// As [`TombstoneSpans::newest`], with those keys, if there is one.
    pub(super) fn hiding(&self) -> Option<(SeqNo, &HalfOpen)> {
        self.span.as_ref().and_then(|span| Some((span.newest?, &span.keys)))
    }

    /// Finds the newest range tombstone over `key`, and the keys around it that this holds for.
    ///
    /// # Errors
    /// A table could not be opened.
    #[cold]
    pub(super) fn look_up(&mut self, key: &[u8]) -> Result<&HalfOpen> {
        let mut span = Span { keys: HalfOpen::all(), newest: None };
        for source in &self.sources {
            match source {
                Source::Memtable(tombstones) => self.ask(tombstones, key, &mut span),
                Source::Run(metas) => self.ask_run(metas, key, &mut span)?,
            }
        }
        Ok(&self.span.insert(span).keys)
    }

    fn ask(&self, tombstones: &RangeTombstones, key: &[u8], span: &mut Span) {
        let TombstoneSpan { start, end, newest } =
            tombstones.span_over(key, self.below, self.forward);
        span.newest = span.newest.max(newest);
        span.keys.narrow(start, end);
    }

    /// Asks the table that spans the key. In the span that is left no other one of the run holds a key, and one
    /// with nothing newer than what was found need not be asked.
    fn ask_run(&self, metas: &[Arc<TableMeta>], key: &[u8], span: &mut Span) -> Result<()> {
        let after = metas.partition_point(|meta| meta.smallest.as_slice() <= key);
        let end = metas.get(after).map(|next| next.smallest.as_slice());
        let Some(meta) = after.checked_sub(1).map(|at| &metas[at]) else {
            span.keys.narrow(b"", end);
            return Ok(());
        };
        if meta.largest.admits(key) {
            span.keys.narrow(&meta.smallest, end);
            if span.newest.is_none_or(|newest| meta.seq_max > newest) {
                self.ask(self.tables.open(meta)?.range_tombstones(), key, span);
            }
        } else {
            let start = meta.largest.exclusive_end().unwrap_or_default();
            span.keys.narrow(&start, end);
        }
        Ok(())
    }
}
