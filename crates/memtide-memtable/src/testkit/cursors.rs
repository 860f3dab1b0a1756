//! Laws of cursors: order, seeks, reversals, versions, snapshots, and range tombstones beside them.

use memtide_base::{Cursor, Kind, SeqNo, Target};

use super::subject::{Step, Subject, Version, brief, move_cursor, walk};
use crate::{Inserted, MemtableKind};

/// More than any variant keeps in one node, block, bucket or chunk.
const KEYS: u64 = 400;
/// Inserts that go on while a cursor is open.
const LATER_INSERTS: u64 = 10_000;

/// Even numbers as keys, so that there is a place between any two.
fn even_keys(kind: &MemtableKind) -> Subject {
    let mut subject = Subject::new(kind);
    for number in 0..KEYS {
        // 89 is prime to the count: keys arrive mixed.
        let even = 2 * (number * 89 % KEYS) + 2;
        subject.put(&even_key(even), &even.to_le_bytes(), number + 1);
    }
    subject
}

fn even_key(number: u64) -> Vec<u8> {
    format!("key{number:06}").into_bytes()
}

/// An empty table is empty in every direction.
pub fn an_empty_table_has_nothing(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    subject.verify();
    for target in [Target::First, Target::Last, Target::Ge(b""), Target::Le(b"\xFF")] {
        let mut cursor = subject.table().cursor(SeqNo::MAX);
        assert_eq!(move_cursor(&mut cursor, Step::Seek(target)), None, "{target:?}");
    }
    subject.delete_range(b"a", b"b", 1);
    subject.verify();
    assert!(!subject.table().is_empty(), "a range tombstone is something");
}

/// `Ge` and `Le` land on the key itself or on its neighbour, before the first and after the last too.
pub fn seeks_land_at_between_before_and_after_keys(kind: &MemtableKind) {
    let subject = even_keys(kind);
    let mut cursor = subject.table().cursor(SeqNo::MAX);
    for number in 0..=2 * KEYS + 3 {
        let key = even_key(number);
        let mut behind = key.clone();
        behind.push(0);
        for probe in [key.as_slice(), &behind, &key[..key.len() - 1], b"", b"k", b"l", b"\xFF"] {
            for target in [Target::Ge(probe), Target::Le(probe), Target::First, Target::Last] {
                let shown = move_cursor(&mut cursor, Step::Seek(target));
                let want = subject.model().seek(target, SeqNo::MAX);
                assert_eq!(shown.as_ref().map(brief), want.as_ref().map(brief), "{target:?}");
            }
        }
    }
}

/// At every position a step to one side and back comes home, however the position was reached.
pub fn a_cursor_reverses_at_every_position(kind: &MemtableKind) {
    let subject = even_keys(kind);
    let sorted = walk(&mut subject.table().cursor(SeqNo::MAX), Target::First);
    assert_eq!(sorted.len() as u64, KEYS);
    let mut cursor = subject.table().cursor(SeqNo::MAX);
    for at in 0..sorted.len() {
        for (steps, to) in [
            ([Step::Next, Step::Prev], sorted.get(at + 1)),
            ([Step::Prev, Step::Next], at.checked_sub(1).map(|before| &sorted[before])),
        ] {
            let home = move_cursor(&mut cursor, Step::Seek(Target::Ge(&sorted[at].0)));
            assert_eq!(home.as_ref(), Some(&sorted[at]));
            assert_eq!(move_cursor(&mut cursor, steps[0]).as_ref(), to, "{:?} from {at}", steps[0]);
            // Beyond either end a cursor stands nowhere, so there is no way back.
            let back = to.map(|_| &sorted[at]);
            assert_eq!(move_cursor(&mut cursor, steps[1]).as_ref(), back, "and back to {at}");
        }
    }
    let mut shown = move_cursor(&mut cursor, Step::Seek(Target::First));
    for at in 2..sorted.len() {
        // Two forward, one back: every position is left in both directions.
        assert_eq!(shown.as_ref(), Some(&sorted[at - 2]));
        move_cursor(&mut cursor, Step::Next);
        move_cursor(&mut cursor, Step::Next);
        shown = move_cursor(&mut cursor, Step::Prev);
    }
}

/// `older` shows all versions, newest first; in their midst and at their end `next` and `prev` go on.
pub fn older_walks_all_versions_and_the_walk_goes_on(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    for seq in 0..300_u64 {
        let key = [b"abcdefghij"[(seq * 7 % 10) as usize]; 9];
        let to = if seq % 11 == 3 { Kind::Delete } else { Kind::Put };
        let value = if to == Kind::Put { seq.to_string() } else { String::new() };
        subject.write(to, &key, value.as_bytes(), seq).expect("there is room");
    }
    subject.verify();
    for below in [300, 150, 35] {
        let keys = subject.model().visible(below);
        let mut cursor = subject.table().cursor(below);
        for (at, versions) in keys.iter().enumerate() {
            for depth in 0..=versions.len() {
                for (step, to) in [(Step::Next, at + 1), (Step::Prev, at.wrapping_sub(1))] {
                    move_cursor(&mut cursor, Step::Seek(Target::Ge(&versions[0].0)));
                    for taken in 1..=depth {
                        let shown = move_cursor(&mut cursor, Step::Older);
                        assert_eq!(
                            shown.as_ref(),
                            versions.get(taken),
                            "older {taken} below {below}"
                        );
                    }
                    let want = keys.get(to).map(|versions| &versions[0]);
                    assert_eq!(
                        move_cursor(&mut cursor, step).as_ref(),
                        want,
                        "{step:?} at {depth}"
                    );
                }
            }
        }
    }
}

/// Versions and whole keys from the bound on do not exist, in either direction.
pub fn a_bound_hides_newer_versions_in_both_directions(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    for number in 0..90_u64 {
        // A third of the keys is old, a third new, a third both.
        let key = format!("{number:02}");
        if number % 3 != 0 {
            subject.put(key.as_bytes(), b"old", number);
        }
        if number % 3 != 1 {
            subject.put(key.as_bytes(), b"new", 1000 + number);
        }
    }
    subject.verify();
    let shown = walk(&mut subject.table().cursor(1000), Target::Last);
    assert_eq!(shown.len(), 60);
    assert!(shown.iter().all(|version| version.3 == b"old"));
}

/// After a move that found nothing only a seek is meaningful, and it works.
pub fn a_cursor_that_found_nothing_stands_nowhere(kind: &MemtableKind) {
    let subject = even_keys(kind);
    let mut cursor = subject.table().cursor(SeqNo::MAX);
    for step in [Step::Next, Step::Prev, Step::Older] {
        assert_eq!(move_cursor(&mut cursor, step), None, "{step:?} before the first seek");
    }
    for (lost, step) in [(Target::Ge(b"l"), Step::Next), (Target::Le(b""), Step::Prev)] {
        for again in [step, Step::Next, Step::Prev, Step::Older] {
            assert_eq!(move_cursor(&mut cursor, Step::Seek(lost)), None);
            assert_eq!(move_cursor(&mut cursor, again), None, "{again:?} after {lost:?}");
        }
        assert!(move_cursor(&mut cursor, Step::Seek(Target::First)).is_some());
    }
    for (end, step) in [(Target::Last, Step::Next), (Target::First, Step::Prev)] {
        assert!(move_cursor(&mut cursor, Step::Seek(end)).is_some());
        for again in [step, Step::Prev, Step::Next, Step::Older] {
            assert_eq!(move_cursor(&mut cursor, again), None, "{again:?} beyond {end:?}");
        }
    }
}

/// What a cursor lends outlives the last other handle of the table.
pub fn a_cursor_keeps_its_table_alive(kind: &MemtableKind) {
    let subject = even_keys(kind);
    let want = subject.model().visible(SeqNo::MAX);
    let mut cursor = subject.table().cursor(SeqNo::MAX);
    drop(subject);
    let shown = walk(&mut cursor, Target::First);
    assert_eq!(shown, want.into_iter().flatten().collect::<Vec<_>>());
}

/// A cursor opened before 10,000 inserts shows what was there, all of it and nothing else, whether its
/// first seek came before the inserts or among them.
pub fn a_cursor_shows_its_snapshot_while_inserts_go_on(kind: &MemtableKind) {
    let mut subject = even_keys(kind);
    let below = KEYS + 1;
    let want = walk(&mut subject.table().cursor(below), Target::First);
    let mut up = Walker::new(&subject, below, Target::First, Step::Next);
    let mut down = Walker::new(&subject, below, Target::Last, Step::Prev);
    let mut late = Walker::new(&subject, below, Target::First, Step::Next);
    up.step();
    down.step();
    let per_step = LATER_INSERTS / KEYS;
    for index in 0..KEYS {
        for insert in 0..per_step {
            // Odd keys between all others, and new versions of the even ones.
            let number = (index * per_step + insert) * 7919 % (2 * KEYS + 4);
            let seq = below + index * per_step + insert;
            assert_ne!(subject.put(&even_key(number), b"later", seq), Inserted::Duplicate);
        }
        up.step();
        down.step();
        late.step();
    }
    late.step();
    down.shown.reverse();
    for (walker, name) in [(up, "forwards"), (down, "backwards"), (late, "seeking late")] {
        assert!(walker.done, "{name}: more than {} keys", want.len());
        assert_eq!(walker.shown, want, "{name}");
    }
    subject.verify_walks(SeqNo::MAX);
    subject.verify_walks(below + LATER_INSERTS / 2);
}

/// A cursor that walks in one direction, a step at a time.
struct Walker<'k> {
    cursor: crate::MemCursor,
    next: Step<'k>,
    step: Step<'k>,
    shown: Vec<Version>,
    done: bool,
}

impl<'k> Walker<'k> {
    fn new(subject: &Subject, below: SeqNo, from: Target<'k>, step: Step<'k>) -> Self {
        let cursor = subject.table().cursor(below);
        Self { cursor, next: Step::Seek(from), step, shown: Vec::new(), done: false }
    }

    fn step(&mut self) {
        match move_cursor(&mut self.cursor, self.next) {
            Some(version) if !self.done => self.shown.push(version),
            _ => self.done = true,
        }
        self.next = self.step;
    }
}

/// Every sequence number is a snapshot that later writes leave alone.
pub fn every_seq_is_a_snapshot(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    let mut snapshots: Vec<Vec<Version>> = Vec::new();
    for seq in 0..150_u64 {
        let below_now = walk(&mut subject.table().cursor(seq), Target::First);
        snapshots.push(below_now);
        let key = format!("{:02}", seq * 13 % 31);
        if seq % 5 == 4 {
            subject.delete(key.as_bytes(), seq);
        } else {
            subject.put(key.as_bytes(), &seq.to_be_bytes(), seq);
        }
    }
    for (below, want) in (0..).zip(&snapshots) {
        let mut cursor = subject.table().cursor(below);
        assert_eq!(&walk(&mut cursor, Target::First), want, "snapshot {below}");
        for version in want {
            let shown = subject.get(&version.0, below).map(|entry| entry.seq);
            assert_eq!(shown, Some(version.1), "snapshot {below}");
        }
    }
    subject.verify();
}

/// At every bound the newest of all overlapping range tombstones is found, unbounded ones too.
pub fn the_newest_covering_range_tombstone_is_found(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    for letter in b'a'..=b'z' {
        subject.put(&[letter], b"v", u64::from(letter));
    }
    let ranges: [(&[u8], &[u8], SeqNo); 8] = [
        (b"c", b"m", 10),
        (b"a", b"f", 300),
        (b"k", b"", 200),
        (b"l", b"l\0", 301),
        (b"", b"b", 5),
        (b"c", b"m", 400),
        (b"", b"", 1),
        (b"zz", b"", 302),
    ];
    for (start, end, seq) in ranges {
        subject.delete_range(start, end, seq);
        subject.verify();
    }
    let table = subject.table();
    assert_eq!(table.covering_tombstone(b"l", 401), Some(400));
    assert_eq!(table.covering_tombstone(b"l", 400), Some(301));
    assert_eq!(table.covering_tombstone(b"l\0", 400), Some(200), "ends are exclusive");
    assert_eq!(table.covering_tombstone(b"zzz", SeqNo::MAX), Some(302));
    assert_eq!(table.covering_tombstone(b"l", 1), None);
}

/// A range whose end does not lie above its start deletes nothing, and is counted.
pub fn empty_range_tombstones_cover_nothing(kind: &MemtableKind) {
    let mut subject = Subject::new(kind);
    for (start, end, seq) in [(&b"m"[..], &b"m"[..], 1), (b"z", b"a", 2), (b"m\0", b"m", 3)] {
        subject.delete_range(start, end, seq);
    }
    subject.put(b"m", b"v", 4);
    assert_eq!(subject.table().range_tombstone_count(), 3);
    for key in [&b""[..], b"a", b"m", b"m\0", b"z"] {
        assert_eq!(subject.table().covering_tombstone(key, SeqNo::MAX), None, "{key:?}");
    }
    subject.verify();
}

/// Range tombstones stand beside the entries: they are neither shown by a cursor nor applied by it.
pub fn range_tombstones_hide_nothing_from_a_cursor(kind: &MemtableKind) {
    let mut subject = even_keys(kind);
    let before = walk(&mut subject.table().cursor(SeqNo::MAX), Target::First);
    let mut cursor = subject.table().cursor(KEYS + 1);
    assert!(cursor.seek(Target::First).expect("a memtable cursor never fails"));
    subject.delete_range(b"", b"", KEYS + 1);
    subject.delete_range(&even_key(10), &even_key(20), KEYS + 2);
    assert_eq!(walk(&mut subject.table().cursor(SeqNo::MAX), Target::First), before);
    assert_eq!(walk(&mut cursor, Target::Last).len(), before.len());
    assert_eq!(subject.get(&even_key(12), SeqNo::MAX).map(|entry| entry.kind), Some(Kind::Put));
    subject.verify_walks(SeqNo::MAX);
}
