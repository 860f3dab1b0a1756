//! The law of everything at once: random operations, with cursors open all the while, against the model.
//!
//! An operation list is a function of its seed. When one fails it is cut down to a short list that fails
//! too, and printed with the seed and the one command that repeats it.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use memtide_base::{Kind, SeqNo, Target};

use super::subject::{Step, Subject, Version, brief, move_cursor};
use crate::{MemCursor, MemtableKind};

/// The seeds that are always tried.
const SEEDS: u64 = 40;
const OPS_MAX: u64 = 700;
const CURSORS: usize = 4;
/// Environment variable that names the one seed to try.
const SEED_VARIABLE: &str = "MEMTIDE_SEED";

/// SplitMix64 (Steele, Lea, Flood, 2014): the same dice for the same seed.
#[derive(Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// A length below `end`, which is not 0.
    pub(crate) fn below_len(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("below a length")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below_len(from.len())]
    }
}

/// One operation. Sequence numbers are relative, so that a list stays valid when it is cut.
#[derive(Clone, Debug)]
enum Op {
    /// Puts or deletes, `ahead` above the smallest number that is still allowed.
    Write {
        kind: Kind,
        key: Vec<u8>,
        value_len: usize,
        ahead: u64,
    },
    /// The last write once more.
    Again,
    DeleteRange {
        start: Vec<u8>,
        end: Vec<u8>,
        ahead: u64,
    },
    /// Opens a cursor with a bound `ahead` above the smallest number that is still allowed.
    Open {
        cursor: usize,
        ahead: u64,
    },
    Seek {
        cursor: usize,
        to: u64,
        key: Vec<u8>,
    },
    Walk {
        cursor: usize,
        step: u64,
    },
    Get {
        key: Vec<u8>,
        back: u64,
    },
}

/// Random puts, deletes, range deletes, duplicates, gets and cursor moves agree with the model.
///
/// # Panics
/// With the seed, the command that repeats it and the shortest failing operations found.
pub fn random_operations_match_a_model(kind: &MemtableKind) {
    let asked = std::env::var(SEED_VARIABLE).ok();
    let asked = asked.map(|seed| seed.parse().expect("the seed is a number"));
    let seeds = asked.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        let ops = ops_of(seed);
        if let Err(first) = run(kind, &ops) {
            let (ops, difference) = cut_down(kind, ops, first);
            let mut text = format!(
                "{kind}, seed {seed}: {difference}\nrepeat: {SEED_VARIABLE}={seed} cargo test \
                 -p memtide-memtable --test it -- {kind}::random\n{} operations fail:\n",
                ops.len()
            );
            for op in &ops {
                writeln!(text, "  {op:?}").expect("a string takes text");
            }
            panic!("{text}");
        }
    }
}

fn ops_of(seed: u64) -> Vec<Op> {
    let mut dice = Dice::new(seed);
    let keys: Vec<Vec<u8>> = {
        let (shape, count) = (dice.below(4), [3, 20, 150, 600][(seed % 4) as usize]);
        (0..count).map(|_| random_key(&mut dice, shape)).collect()
    };
    // Some lists write almost in order, others in none at all.
    let disorder = *dice.pick(&[1, 3, 40, 2_000]);
    let count = dice.below(OPS_MAX) + 50;
    let random_op = |_| random_op(&mut dice, &keys, disorder);
    (0..count).map(random_op).collect()
}

fn random_key(dice: &mut Dice, shape: u64) -> Vec<u8> {
    let few = [0x00, 0x01, b'a', 0xFF];
    let len = dice.below_len(12);
    let mut tail = |prefix: &[u8]| {
        let mut key = prefix.to_vec();
        key.extend((0..len).map(|_| *dice.pick(&few)));
        key
    };
    match shape {
        0 => tail(b""),
        1 => tail(b"equal heads, long shared prefix/"),
        2 => dice.below(1 << 20).to_string().into_bytes(),
        _ => dice.roll().to_be_bytes()[..len.min(8)].to_vec(),
    }
}

fn random_op(dice: &mut Dice, keys: &[Vec<u8>], disorder: u64) -> Op {
    let key = dice.pick(keys).clone();
    let ahead = dice.below(disorder);
    let cursor = dice.below_len(CURSORS);
    match dice.below(100) {
        0..45 => {
            let kind = if dice.below(5) == 0 { Kind::Delete } else { Kind::Put };
            let value_len = if kind == Kind::Put { *dice.pick(&[0, 1, 8, 60, 3_000]) } else { 0 };
            Op::Write { kind, key, value_len, ahead }
        }
        45..47 => Op::Again,
        47..49 => Op::DeleteRange { start: key, end: dice.pick(keys).clone(), ahead },
        49..52 => Op::Open { cursor, ahead },
        52..60 => Op::Seek { cursor, to: dice.below(6), key },
        60..90 => Op::Walk { cursor, step: dice.below(5) },
        _ => Op::Get { key, back: dice.below(disorder + 2) },
    }
}

/// Removes ever smaller pieces of a failing list as long as it still fails.
fn cut_down(kind: &MemtableKind, ops: Vec<Op>, difference: String) -> (Vec<Op>, String) {
    let (mut ops, mut difference) = (ops, difference);
    let mut piece = ops.len().div_ceil(2);
    loop {
        let mut at = 0;
        while at < ops.len() {
            let mut shorter = ops.clone();
            shorter.drain(at..(at + piece).min(ops.len()));
            match run(kind, &shorter) {
                Err(found) => (ops, difference) = (shorter, found),
                Ok(()) => at += piece,
            }
        }
        if piece == 1 {
            return (ops, difference);
        }
        piece = piece.div_ceil(2);
    }
}

/// Runs a list; a panic of the table is a difference too.
fn run(kind: &MemtableKind, ops: &[Op]) -> Result<(), String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(kind);
        for op in ops {
            world.apply(op)?;
        }
        world.subject.compare()
    }));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panic: {}", text.or(panic.downcast_ref().copied()).unwrap_or("not a text")))
    })
}

/// A table with cursors open on it.
struct World {
    subject: Subject,
    cursors: [Option<Open>; CURSORS],
    /// No write may come below it: it is the largest bound an open cursor has.
    floor: SeqNo,
    last: Option<Version>,
}

struct Open {
    cursor: MemCursor,
    below: SeqNo,
    at: Place,
}

/// Where the model says a cursor stands.
#[derive(Clone)]
enum Place {
    Nowhere,
    On(Version),
    /// `older` found nothing: still on the key, but not to be read.
    Behind(Version),
}

impl World {
    fn new(kind: &MemtableKind) -> Self {
        Self { subject: Subject::new(kind), cursors: Default::default(), floor: 0, last: None }
    }

    fn apply(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Write { kind, key, value_len, ahead } => {
                let seq = self.floor + ahead;
                let value = vec![seq.to_le_bytes()[0]; *value_len];
                self.write((key.clone(), seq, *kind, value));
            }
            Op::Again => {
                if let Some(last) = self.last.clone() {
                    self.write(last);
                }
            }
            Op::DeleteRange { start, end, ahead } => {
                self.subject.delete_range(start, end, self.floor + ahead);
            }
            Op::Open { cursor, ahead } => self.open(*cursor, self.floor + ahead),
            Op::Seek { cursor, to, key } => return self.seek(*cursor, *to, key),
            Op::Walk { cursor, step } => return self.walk(*cursor, *step),
            Op::Get { key, back } => return self.get(key, *back),
        }
        Ok(())
    }

    fn write(&mut self, version: Version) {
        let (key, seq, kind, value) = &version;
        self.subject.write(*kind, key, value, *seq).expect("there is room");
        self.last = Some(version);
    }

    fn open(&mut self, slot: usize, below: SeqNo) {
        let cursor = self.subject.table().cursor(below);
        self.cursors[slot] = Some(Open { cursor, below, at: Place::Nowhere });
        self.floor = self.floor.max(below);
    }

    fn seek(&mut self, slot: usize, to: u64, key: &[u8]) -> Result<(), String> {
        let Some(open) = &mut self.cursors[slot] else { return Ok(()) };
        let target = match to {
            0 => Target::First,
            1 => Target::Last,
            2 | 3 => Target::Ge(key),
            _ => Target::Le(key),
        };
        let want = self.subject.model().seek(target, open.below);
        let shown = move_cursor(&mut open.cursor, Step::Seek(target));
        open.at = want.clone().map_or(Place::Nowhere, Place::On);
        agree("seek", open.below, shown.as_ref(), want.as_ref())
    }

    fn walk(&mut self, slot: usize, step: u64) -> Result<(), String> {
        let Some(open) = &mut self.cursors[slot] else { return Ok(()) };
        let model = self.subject.model();
        let (below, at) = (open.below, open.at.clone());
        let (step, want) = match (step, &at) {
            (0 | 1, Place::On(on) | Place::Behind(on)) => (Step::Next, model.next(&on.0, below)),
            (2 | 3, Place::On(on) | Place::Behind(on)) => (Step::Prev, model.prev(&on.0, below)),
            (0 | 1, Place::Nowhere) => (Step::Next, None),
            (2 | 3, Place::Nowhere) => (Step::Prev, None),
            (_, Place::On(on)) => (Step::Older, model.older(on)),
            // Only `next`, `prev` and `seek` may follow.
            (_, Place::Behind(_) | Place::Nowhere) => return Ok(()),
        };
        let shown = move_cursor(&mut open.cursor, step);
        open.at = match (step, want.clone(), at) {
            (_, Some(found), _) => Place::On(found),
            (Step::Older, None, Place::On(on)) => Place::Behind(on),
            _ => Place::Nowhere,
        };
        agree(&format!("{step:?}"), below, shown.as_ref(), want.as_ref())
    }

    fn get(&self, key: &[u8], back: u64) -> Result<(), String> {
        let below = self.subject.table().seq_end().saturating_sub(back);
        let shown = self.subject.get(key, below).map(super::subject::own);
        agree("get", below, shown.as_ref(), self.subject.model().newest(key, below).as_ref())
    }
}

fn agree(
    what: &str,
    below: SeqNo,
    shown: Option<&Version>,
    want: Option<&Version>,
) -> Result<(), String> {
    if shown == want {
        return Ok(());
    }
    Err(format!("{what} below {below}: {:?}, not {:?}", shown.map(brief), want.map(brief)))
}
