//! Merges several sources into one stream of all their versions, keys ascending and each key's versions newest
//! first: what flush, compaction and merges in memory walk, once and forwards.
//!
//! A tree of losers (Knuth, 1973, 5.4.1): each inner node holds the source that lost there, so a step compares
//! with as many sources as the tree is high, where [`MergeCursor`](super::MergeCursor), which walks both ways,
//! asks every one of them. Heads decide almost every comparison.
//!
//! The same (key, seq) in two sources is one write met twice (a replayed log beside a flushed table); it is
//! streamed twice, and [`Survivors`](crate::survivors::Survivors) keeps one.

use memtide_base::{Entry, Result, Target};
use memtide_memtable::{Anchor, Place};

use super::Source;
use crate::range::HalfOpen;

/// One input of the stream.
#[derive(Debug)]
struct Input {
    source: Source,
    /// Head of the key it stands on; `None` behind its last version.
    head: Option<u64>,
}

/// All versions of several sources in order.
#[derive(Debug)]
pub(crate) struct VersionStream {
    inputs: Vec<Input>,
    /// The input that lost at each inner node; at 0, which is none, the winner of all.
    losers: Vec<usize>,
    /// What most keys are expected to begin with.
    anchor: Anchor,
    /// What it shows of them.
    span: HalfOpen,
    /// The key it stands on.
    key: Vec<u8>,
    begins_key: bool,
}

impl VersionStream {
    /// A stream that stands nowhere. Order among the sources does not matter.
    pub(crate) fn new(sources: Vec<Source>, anchor: Anchor) -> Self {
        let inputs: Vec<_> =
            sources.into_iter().map(|source| Input { source, head: None }).collect();
        let losers = vec![0; inputs.len()];
        Self { inputs, losers, anchor, span: HalfOpen::all(), key: Vec::new(), begins_key: false }
    }

    /// The part of it that lies in `span`.
    pub(crate) fn within(mut self, span: HalfOpen) -> Self {
        self.span = span;
        self
    }

    /// Goes to the first version of all; `false` if there is none.
    ///
    /// # Errors
    /// A source could not be read; the stream stands nowhere.
    pub(crate) fn start(&mut self) -> Result<bool> {
        for index in 0..self.inputs.len() {
            let start = &self.span.start;
            let target = if start.is_empty() { Target::First } else { Target::Ge(start) };
            let found = self.inputs[index].source.cursor().seek(target)?;
            self.settle(index, found);
        }
        let winner = if self.inputs.is_empty() { None } else { Some(self.play(1)) };
        self.begins_key = true;
        Ok(winner.is_some_and(|winner| self.show(winner)))
    }

    /// Goes to the next version, of the same key or the next one.
    ///
    /// # Errors
    /// As [`VersionStream::start`].
    pub(crate) fn advance(&mut self) -> Result<bool> {
        let moved = self.losers[0];
        let cursor = self.inputs[moved].source.cursor();
        let same_key = cursor.older()?;
        if !same_key {
            let found = cursor.next()?;
            self.settle(moved, found);
        }
        let mut winner = moved;
        let mut node = usize::midpoint(self.inputs.len(), moved);
        while node > 0 {
            if self.comes_before(self.losers[node], winner) {
                std::mem::swap(&mut self.losers[node], &mut winner);
            }
            node /= 2;
        }
        let shown = self.inputs[winner].head.is_some();
        self.begins_key = shown && self.inputs[winner].source.entry().key != self.key;
        Ok(self.show(winner))
    }

    /// The version it stands on.
    pub(crate) fn entry(&self) -> Entry<'_> {
        self.inputs[self.source()].source.entry()
    }

    /// Whether it is the first of its key.
    pub(crate) fn begins_key(&self) -> bool {
        self.begins_key
    }

    /// Which source it comes from.
    pub(crate) fn source(&self) -> usize {
        self.losers[0]
    }

    /// Where it lies in that source, a memtable.
    pub(crate) fn place(&self) -> Place {
        self.inputs[self.source()].source.place()
    }

    fn settle(&mut self, index: usize, found: bool) {
        let input = &mut self.inputs[index];
        input.head = found.then(|| self.anchor.head_behind(input.source.entry().key));
    }

    fn show(&mut self, winner: usize) -> bool {
        self.losers[0] = winner;
        let found = self.inputs[winner].head.is_some();
        if found && self.begins_key {
            let key = self.inputs[winner].source.entry().key;
            if !self.span.reaches(key, true) {
                return false;
            }
            self.key.clear();
            self.key.extend_from_slice(key);
        }
        found
    }

    /// Has the inputs below `node` compete; returns the winner. The inputs are the leaves of a binary tree whose
    /// inner nodes are 1 to n - 1, so input i is node n + i.
    fn play(&mut self, node: usize) -> usize {
        if node >= self.inputs.len() {
            return node - self.inputs.len();
        }
        let (left, right) = (self.play(2 * node), self.play(2 * node + 1));
        let left_wins = self.comes_before(left, right);
        let (winner, loser) = if left_wins { (left, right) } else { (right, left) };
        self.losers[node] = loser;
        winner
    }

    /// Whether input `a` is to be shown before input `b`: by key, then newest; what is at its end comes last.
    fn comes_before(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.inputs[a], &self.inputs[b]);
        let (Some(a_head), Some(b_head)) = (a.head, b.head) else { return a.head.is_some() };
        if a_head != b_head {
            return a_head < b_head;
        }
        let (x, y) = (a.source.entry(), b.source.entry());
        x.key.cmp(y.key).then_with(|| y.seq.cmp(&x.seq)).is_lt()
    }
}

#[cfg(test)]
mod tests {
    use memtide_base::ledger::Ledger;
    use memtide_base::seqno::SEE_ALL;
    use memtide_base::sync::Arc;
    use memtide_base::{Kind, SeqNo, hash};
    use memtide_memtable::{BatchShape, Memtable, MemtableOptions, MemtableType};

    use super::*;

    fn table(kind: MemtableType, writes: &[(String, SeqNo)]) -> Arc<Memtable> {
        let table = Memtable::new(&MemtableOptions {
            kind: kind.into(),
            bytes_max: 1 << 20,
            hash_seed: 1,
            key_filter: true,
            anchor: Anchor::default(),
            ledger: Ledger::unlimited(),
        });
        let mut shape = BatchShape::default();
        for (key, _) in writes {
            table.measure(
                &mut shape,
                Kind::Put,
                hash::key_hash(1, key.as_bytes()),
                key.as_bytes(),
                b"",
            );
        }
        let mut room = table.reserve(&shape).expect("it fits");
        for (key, seq) in writes {
            room.insert(Kind::Put, hash::key_hash(1, key.as_bytes()), key.as_bytes(), b"", *seq);
        }
        drop(room);
        table
    }

    /// Keys of few and of many versions in every number of sources up to nine, one of them empty, some writes in
    /// two of them, behind anchors that fit, do not, or are not there.
    #[test]
    fn every_version_comes_once_from_each_source_in_order() {
        for sources in 0..=9_u64 {
            for anchor in ["", "key/", "kex", "zz"] {
                let mut wanted = Vec::new();
                let mut tables = Vec::new();
                for (source, kind) in (0..sources).zip(MemtableType::ALL.into_iter().cycle()) {
                    let count = if source == 4 { 0 } else { 40 };
                    let write = |at: u64| {
                        let seq = 1000 * (source + 1) + at;
                        (format!("key/{}", (seq * 7919) % 23), if at % 10 == 9 { at } else { seq })
                    };
                    let mut writes: Vec<_> = (0..count).map(write).collect();
                    writes.sort();
                    writes.dedup();
                    wanted.extend(writes.clone());
                    tables.push(table(kind, &writes));
                }
                wanted.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
                let cursors = tables.iter().map(|table| Source::Memtable(table.cursor(SEE_ALL)));
                let anchor = Anchor::of(anchor.as_bytes());
                let mut stream = VersionStream::new(cursors.collect(), anchor);
                // A second start begins again.
                for _ in 0..2 {
                    let (mut met, mut last) = (Vec::new(), None);
                    let mut found = stream.start().expect("memtables are read");
                    while found {
                        let entry = stream.entry();
                        let key = String::from_utf8_lossy(entry.key).into_owned();
                        assert_eq!(stream.begins_key(), last.as_ref() != Some(&key), "{key}");
                        let placed = tables[stream.source()].entry_at(stream.place());
                        assert_eq!((placed.key, placed.seq), (entry.key, entry.seq));
                        met.push((key.clone(), entry.seq));
                        last = Some(key);
                        found = stream.advance().expect("memtables are read");
                    }
                    assert_eq!(met, wanted, "{sources} sources");
                }
            }
        }
    }
}
