//! A sealed run: sealed memtables that are neighbours in age and whose keys do not overlap, so that a read of a key
//! looks into one of them, as it does in a run of tables.
//!
//! Every sealed memtable begins as a run of its own. Which of its keys is the smallest and which the largest is asked
//! for when runs are to be joined, not before: variants that order on demand sort for it. A memtable with range
//! tombstones, which may hide keys anywhere, stays alone.

use std::fmt;

use memtide_base::SeqNo;
use memtide_base::sync::{Arc, OnceLock};
use memtide_memtable::{Memtable, Place};

/// Sealed memtables in key order.
#[derive(Clone, Debug)]
pub(crate) struct SealedRun {
    members: Arc<[Member]>,
}

/// A memtable of a run, full, and never written to again.
#[derive(Clone)]
pub(crate) struct Member {
    table: Arc<Memtable>,
    /// Where its smallest and its largest key lie, once asked for.
    span: OnceLock<Option<(Place, Place)>>,
}

impl Member {
    pub(crate) fn new(table: Arc<Memtable>) -> Self {
        Self { table, span: OnceLock::new() }
    }

    pub(crate) fn table(&self) -> &Arc<Memtable> {
        &self.table
    }

    /// Its smallest and its largest key; `None` if it may say something about other keys as well.
    fn keys(&self) -> Option<(&[u8], &[u8])> {
        let span = || {
            let is_plain = self.table.range_tombstone_count() == 0;
            is_plain.then(|| self.table.key_span()).flatten()
        };
        let key = |place: &Place| self.table.entry_at(*place).key;
        self.span.get_or_init(span).as_ref().map(|(first, last)| (key(first), key(last)))
    }

    fn keys_in_run(&self) -> (&[u8], &[u8]) {
        self.keys().expect("who may say something about all keys is alone in its run")
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table.fmt(f)
    }
}

impl SealedRun {
    /// A run of one.
    pub(crate) fn of(table: Arc<Memtable>) -> Self {
        Self::in_order(vec![Member::new(table)])
    }

    /// A run of memtables that are in key order and do not overlap.
    pub(crate) fn in_order(members: Vec<Member>) -> Self {
        debug_assert!(
            members.windows(2).all(|pair| pair[0].keys_in_run().1 < pair[1].keys_in_run().0),
            "what overlaps is no run"
        );
        Self { members: members.into() }
    }

    /// Its memtables, in key order.
    pub(crate) fn tables(&self) -> impl DoubleEndedIterator<Item = &Arc<Memtable>> {
        self.members.iter().map(|member| &member.table)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The memtable at this place in the key order.
    pub(crate) fn table(&self, at: usize) -> &Arc<Memtable> {
        &self.members[at].table
    }

    /// The memtable that it is, unless it is several.
    pub(crate) fn only(&self) -> Option<&Arc<Memtable>> {
        if let [only] = &*self.members { Some(&only.table) } else { None }
    }

    /// The memtable that may say something about `key`.
    #[inline]
    pub(crate) fn table_over(&self, key: &[u8]) -> Option<&Arc<Memtable>> {
        if let [only] = &*self.members {
            return Some(&only.table);
        }
        let member = self.members.get(self.first_up_to(key))?;
        (member.keys_in_run().0 <= key).then_some(&member.table)
    }

    /// The place of the first of several memtables that ends at `key` or behind it.
    pub(crate) fn first_up_to(&self, key: &[u8]) -> usize {
        self.members.partition_point(|member| member.keys_in_run().1 < key)
    }

    /// The place behind the last of several memtables that begins at `key` or before it.
    pub(crate) fn end_from(&self, key: &[u8]) -> usize {
        self.members.partition_point(|member| member.keys_in_run().0 <= key)
    }

    /// Every version in it is older than this one.
    pub(crate) fn seq_end(&self) -> SeqNo {
        self.tables().map(|table| table.seq_end()).max().unwrap_or_default()
    }

    pub(crate) fn has_entries(&self) -> bool {
        self.tables().any(|table| table.entry_count() > 0)
    }

    /// Whether these are the same memtables.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.members, &other.members)
    }
}

/// All memtables of these runs in key order, together with those that they overlap: no two groups do.
pub(crate) fn overlaps(runs: &[SealedRun]) -> Vec<Vec<Member>> {
    let mut members: Vec<_> = runs.iter().flat_map(|run| run.members.iter().cloned()).collect();
    if members.iter().any(|member| member.keys().is_none()) {
        return vec![members];
    }
    members.sort_by(|a, b| a.keys().cmp(&b.keys()));
    let mut groups: Vec<Vec<Member>> = Vec::new();
    for member in members {
        let meets = |other: &Member| member.keys_in_run().0 <= other.keys_in_run().1;
        match groups.last_mut().filter(|group| group.iter().any(meets)) {
            Some(group) => group.push(member),
            None => groups.push(vec![member]),
        }
    }
    groups
}

/// How many of the first of these runs are one run together.
pub(crate) fn apart(runs: &[SealedRun]) -> usize {
    let are_apart = |count: &usize| overlaps(&runs[..*count]).iter().all(|group| group.len() == 1);
    let one = runs.len().min(1);
    (2..=runs.len()).take_while(are_apart).last().unwrap_or(one)
}

#[cfg(test)]
pub(crate) mod tests {
    use memtide_base::hash;
    use memtide_base::ledger::Ledger;
    use memtide_base::seqno::SEE_ALL;
    use memtide_base::{Cursor, Kind, Target};
    use memtide_memtable::{Anchor, BatchShape, MemtableOptions, MemtableType};

    use super::*;

    fn table(kind: MemtableType, keys: &str, deletes_range: bool) -> Arc<Memtable> {
        let table = Memtable::new(&MemtableOptions {
            kind: kind.into(),
            bytes_max: 1 << 20,
            hash_seed: 1,
            key_filter: true,
            anchor: Anchor::default(),
            ledger: Ledger::unlimited(),
        });
        let mut shape = BatchShape::default();
        let keys: Vec<_> = keys.bytes().map(|key| [key]).collect();
        for key in &keys {
            table.measure(&mut shape, Kind::Put, hash::key_hash(1, key), key, b"");
        }
        table.measure(&mut shape, Kind::RangeDelete, 0, b"x", b"y");
        let mut room = table.reserve(&shape).expect("it fits");
        for (key, seq) in keys.iter().zip(1..) {
            room.insert(Kind::Put, hash::key_hash(1, key), key, b"", seq);
        }
        if deletes_range {
            room.delete_range(b"x", b"y", 100);
        }
        drop(room);
        table
    }

    /// Runs of one, each of another type, from their keys in the order of arrival; `-` behind them is a range delete.
    pub(crate) fn runs(all: &[&str]) -> Vec<SealedRun> {
        let kinds = MemtableType::ALL.into_iter().cycle();
        let table = |(kind, text): (_, &&str)| match text.strip_suffix('-') {
            Some(keys) => table(kind, keys, true),
            None => table(kind, text, false),
        };
        kinds.zip(all).map(table).map(SealedRun::of).collect()
    }

    fn keys_of(member: &Member) -> String {
        let mut cursor = member.table().cursor(SEE_ALL);
        let (mut keys, mut found) = (String::new(), cursor.seek(Target::First).expect("in memory"));
        while found {
            keys.push(char::from(cursor.key()[0]));
            found = cursor.next().expect("in memory");
        }
        keys
    }

    #[test]
    fn what_overlaps_is_together_and_the_rest_in_order() {
        for (all, groups, together) in [
            (&["a", "b", "c"][..], "a|b|c", 3),
            (&["dc", "ba", "fe"], "ab|cd|ef", 3),
            (&["ab", "bc", "de"], "ab,bc|de", 1),
            (&["ab", "de", "bd", "g"], "ab,bd,de|g", 2),
            (&["cd", "az", "b"], "az,b,cd", 1),
            (&["az", "b", "x"], "az,b,x", 1),
            (&["ab", "cd", "ef-"], "ab,cd,ef", 2),
            (&["-", "a"], ",a", 1),
            (&["a"], "a", 1),
            (&[], "", 0),
        ] {
            let runs = runs(all);
            let group =
                |group: Vec<Member>| group.iter().map(keys_of).collect::<Vec<_>>().join(",");
            let found: Vec<_> = overlaps(&runs).into_iter().map(group).collect();
            assert_eq!((found.join("|").as_str(), apart(&runs)), (groups, together), "{all:?}");
        }
    }
}
