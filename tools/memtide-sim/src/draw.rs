//! Draws a case from a seed: a configuration, what clients do and how often, which keys they like, what goes wrong.
//!
//! Each seed leaves most things out and does much of the rest (swarm testing: Groce and others, 2012), because rare
//! states need many of the same.

use std::ops::Bound;
use std::str::FromStr;
use std::time::Duration;

use memtide::{Durability, KeyspaceConfig, MemtableType, WalSink};
use memtide_env::vfs::CrashMode;

use crate::case::{Case, Ending, FaultRule, FileKind, Op, Target, UNLOGGED};
use crate::oracle::{Change, Draw, NAMES, Span};

/// Which kinds of cases are drawn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Focus {
    /// All keyspaces have this memtable.
    pub memtable: Option<MemtableType>,
    /// What goes wrong.
    pub faults: Faults,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Faults {
    /// Some of everything, as the seed says.
    #[default]
    All,
    /// Power cuts and deaths of the process.
    Crash,
    /// Accesses that fail, and full devices, with crashes between.
    Io,
    /// Bits that flip in closed files.
    Rot,
    /// Nothing.
    None,
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "all" => Self::All,
            "crash" => Self::Crash,
            "io" => Self::Io,
            "rot" => Self::Rot,
            "none" => Self::None,
            _ => return Err(format!("`{name}` is none of all, crash, io, rot, none")),
        })
    }
}

/// What a swarm does at all, and how often: weights of operations.
struct Swarm {
    weights: Vec<(Kind, u64)>,
    total: u64,
    names: Vec<&'static str>,
    memtable: Option<MemtableType>,
    durabilities: Vec<Durability>,
    /// One key in so many is one that was used just before.
    hot: u64,
    recent: Vec<Vec<u8>>,
    /// One value in so many is large.
    large: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write,
    Get,
    Scan,
    Snapshot,
    Release,
    Iter,
    StepIters,
    DropIters,
    Flush,
    Compact,
    Sync,
    SetMemtable,
    SetCompaction,
    Pause,
    Job,
    Idle,
    Tick,
    Wall,
    Check,
    Reopen,
    Verify,
    Fault,
    Space,
    Heal,
    LateCrash,
    Rot,
}

const USUAL: [(Kind, u64); 21] = [
    (Kind::Write, 500),
    (Kind::Get, 120),
    (Kind::Scan, 30),
    (Kind::Snapshot, 12),
    (Kind::Release, 10),
    (Kind::Iter, 12),
    (Kind::StepIters, 30),
    (Kind::DropIters, 6),
    (Kind::Flush, 12),
    (Kind::Compact, 5),
    (Kind::Sync, 8),
    (Kind::SetMemtable, 6),
    (Kind::SetCompaction, 4),
    (Kind::Pause, 3),
    (Kind::Job, 80),
    (Kind::Idle, 12),
    (Kind::Tick, 25),
    (Kind::Wall, 1),
    (Kind::Check, 2),
    (Kind::Reopen, 2),
    (Kind::Verify, 1),
];

/// Draws the case of a seed.
#[must_use]
pub fn draw(seed: u64, focus: &Focus) -> Case {
    let mut draw = Draw::new(seed);
    let faults = match focus.faults {
        Faults::All => draw.pick(&[
            Faults::Crash,
            Faults::Crash,
            Faults::Crash,
            Faults::Io,
            Faults::Io,
            Faults::Rot,
            Faults::None,
        ]),
        one => one,
    };
    let mut config = draw.small_config(focus.memtable);
    config.enable_background_compaction = Some(!draw.one_in(5));
    config.tree.compaction_rate = draw.pick(&[None, None, Some(256 << 10)]);
    config.tree.level0_runs = Some(draw.pick(&[2, 2, 4]));
    if draw.one_in(4) {
        // So little memory that writers wait, and nothing is flushed but for that.
        let least = (4 * config.max_memtable_size.unwrap_or_default()).max(64 << 10);
        config.memory_budget = Some(draw.pick(&[least, 2 * least]));
        config.flush_target = Some(least / 4);
    }
    let interval = Durability::Interval(Duration::from_millis(draw.pick(&[1, 20, 100])));
    let every = draw.pick(&[interval, Durability::Buffered, Durability::Sync]);
    config.durability = Some(every);
    let mut names = NAMES.to_vec();
    names.truncate(draw.pick(&[1, 2, 3, 3]));
    config.keyspaces.retain(|name, _| names.contains(&name.as_str()));
    if draw.one_in(4) {
        names.push(UNLOGGED);
        let own = KeyspaceConfig { durability: Some(Durability::None), ..Default::default() };
        config.keyspaces.insert(UNLOGGED.to_owned(), own);
    }
    let mut swarm = Swarm::draw(&mut draw, faults, names.clone(), focus.memtable, every);
    let mut ops = Vec::new();
    for _ in 0..draw.pick(&[2, 4, 6]) {
        for _ in 0..draw.pick(&[60, 150, 250]) {
            swarm.op(&mut draw, &mut ops);
        }
        if faults != Faults::None && faults != Faults::Rot {
            if faults == Faults::Io && draw.one_in(2) {
                ops.push(Op::Heal);
            }
            // Sometimes in the recovery that follows, and in the one that follows that.
            for within in [25, 50, 75].into_iter().take(draw.pick(&[0, 0, 1, 2, 3])) {
                ops.push(crash(&mut draw, within));
            }
            if draw.one_in(3) {
                ops.push(crash(&mut draw, 0));
            } else {
                // In the middle of what writes to all kinds of files.
                ops.push(crash(&mut draw, 40));
                let upkeep = [Op::Flush, Op::Compact, Op::Idle, Op::Reopen(Ending::Close)];
                for _ in 0..3 {
                    ops.push(Op::Write(swarm.changes(&mut draw), Durability::Buffered));
                    ops.push(upkeep[usize::try_from(draw.below(4)).expect("below 4")].clone());
                }
            }
        }
    }
    Case { seed, config, names, ops }
}

/// Within so many operations of the disk from now; at once if that is 0.
fn crash(draw: &mut Draw, within: u64) -> Op {
    let modes = [
        CrashMode::KeepAll,
        CrashMode::DropAll,
        CrashMode::Prefix,
        CrashMode::Subset,
        CrashMode::Subset,
        CrashMode::Hostile,
    ];
    let after = if within == 0 { 0 } else { 1 + draw.below(within) };
    Op::Crash { mode: draw.pick(&modes), seed: draw.below(1 << 32), after }
}

impl Swarm {
    fn draw(
        draw: &mut Draw,
        faults: Faults,
        names: Vec<&'static str>,
        memtable: Option<MemtableType>,
        every: Durability,
    ) -> Self {
        let mut weights: Vec<_> = USUAL.to_vec();
        match faults {
            Faults::Crash => weights.push((Kind::LateCrash, 6)),
            Faults::Io => weights.extend([
                (Kind::Fault, 14),
                (Kind::Space, 5),
                (Kind::Heal, 3),
                (Kind::LateCrash, 3),
            ]),
            Faults::Rot => weights.push((Kind::Rot, 25)),
            Faults::None | Faults::All => {}
        }
        for (kind, weight) in &mut weights {
            if *kind != Kind::Write {
                *weight *= draw.pick(&[0, 1, 1, 2, 5]);
            }
        }
        let total = weights.iter().map(|(_, weight)| weight).sum();
        let levels = [Durability::Buffered, Durability::Sync];
        let durabilities = match draw.below(4) {
            0 => vec![Durability::Buffered],
            1 => vec![every, every, Durability::Buffered, Durability::Sync],
            2 => vec![draw.pick(&levels)],
            _ => [Durability::Buffered; 9].into_iter().chain([Durability::Sync]).collect(),
        };
        let (hot, large) = (draw.pick(&[2, 4, 1000]), draw.pick(&[6, 12, 40]));
        Self { weights, total, names, memtable, durabilities, hot, recent: Vec::new(), large }
    }

    fn kind(&self, draw: &mut Draw) -> Kind {
        let mut at = draw.below(self.total);
        for (kind, weight) in &self.weights {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        Kind::Write
    }

    /// Keys come again soon.
    fn key(&mut self, draw: &mut Draw) -> Vec<u8> {
        if !self.recent.is_empty() && draw.one_in(self.hot) {
            let at = draw.below(self.recent.len() as u64);
            return self.recent[usize::try_from(at).expect("a small list")].clone();
        }
        let key = draw.key();
        if self.recent.len() < 8 {
            self.recent.push(key.clone());
        } else {
            let at = usize::try_from(draw.below(8)).expect("below 8");
            self.recent[at].clone_from(&key);
        }
        key
    }

    fn changes(&mut self, draw: &mut Draw) -> Vec<Change> {
        let count = if draw.one_in(3) { 2 + draw.below(5) } else { 1 };
        let mut changes: Vec<_> = (0..count)
            .map(|_| match draw.change(&self.names) {
                Change::Put(name, ..) => Change::Put(name, self.key(draw), draw.value(self.large)),
                Change::Delete(name, _) => Change::Delete(name, self.key(draw)),
                range @ Change::DeleteRange(..) => range,
            })
            .collect();
        if !changes.iter().any(|change| matches!(change, Change::Put(..))) && draw.one_in(2) {
            let name = draw.pick(&self.names);
            changes.push(Change::Put(name, self.key(draw), draw.value(self.large)));
        }
        changes
    }

    fn memtable(&self, draw: &mut Draw) -> MemtableType {
        self.memtable.unwrap_or_else(|| draw.memtable())
    }

    fn span(draw: &mut Draw) -> Span {
        if draw.one_in(3) { (Bound::Unbounded, Bound::Unbounded) } else { draw.span() }
    }

    fn op(&mut self, draw: &mut Draw, ops: &mut Vec<Op>) {
        let name = draw.pick(&self.names);
        let op = match self.kind(draw) {
            Kind::Write => Op::Write(self.changes(draw), draw.pick(&self.durabilities)),
            Kind::Get => Op::Get(name, self.key(draw)),
            Kind::Scan => Op::Scan(name, Self::span(draw), draw.below(1 << 16)),
            Kind::Snapshot => Op::Snapshot,
            Kind::Release => Op::Release(draw.below(8)),
            Kind::Iter => Op::Iter(name, Self::span(draw)),
            Kind::StepIters => Op::StepIters(draw.below(1 << 32)),
            Kind::DropIters => Op::DropIters,
            Kind::Flush => Op::Flush,
            Kind::Compact => Op::Compact,
            Kind::Sync => Op::Sync,
            Kind::SetMemtable => Op::SetMemtable(name, self.memtable(draw)),
            Kind::SetCompaction => Op::SetCompaction(name, draw.compaction()),
            Kind::Pause => Op::Pause(draw.one_in(3)),
            Kind::Job => Op::Job(draw.below(6)),
            Kind::Idle => Op::Idle,
            Kind::Tick => Op::Tick(Duration::from_millis(draw.pick(&[1, 5, 30, 150, 1500]))),
            Kind::Wall => {
                let by = i64::try_from(draw.below(1 << 30)).expect("a small number");
                Op::Wall(if draw.one_in(2) { by } else { -by })
            }
            Kind::Check => Op::Check,
            Kind::Reopen => {
                self.options(draw, ops);
                Op::Reopen(draw.pick(&[Ending::Close, Ending::Drop]))
            }
            Kind::Verify => Op::Verify,
            Kind::Fault => Op::Fault(fault(draw)),
            Kind::Space => {
                Op::Space(if draw.one_in(2) { None } else { Some(draw.below(64 << 10)) })
            }
            Kind::Heal => Op::Heal,
            Kind::LateCrash => crash(draw, 60),
            Kind::Rot => {
                let (file, byte) = (draw.below(1 << 16), draw.below(1 << 32));
                Op::Rot { file, byte, xor: draw.pick(&[1, 0x80, 0xff, 0x10]) }
            }
        };
        ops.push(op);
    }

    /// The next open may be with other options.
    fn options(&self, draw: &mut Draw, ops: &mut Vec<Op>) {
        let mut set = |key: &str, value: String| ops.push(Op::Set(key.to_owned(), value));
        if draw.one_in(2) {
            set("tree.wal_sink", draw.pick(&WalSink::ALL).to_string());
        }
        if draw.one_in(2) {
            set("tree.filter_bits", draw.pick(&[0, 4, 10]).to_string());
        }
        if draw.one_in(3) {
            set("memtable_type", self.memtable(draw).to_string());
        }
        if draw.one_in(3) {
            set("flush_target", draw.pick(&[1, 8 << 10, 64 << 10]).to_string());
        }
        if draw.one_in(3) {
            set("tree.min_blob_size", draw.pick(&[64, 256, 4 << 10]).to_string());
        }
    }
}

/// What is done to which files: each pair fails as often as any other, and in half of the cases what is done most.
const ACCESSES: [(Target, &[FileKind]); 10] = {
    use FileKind::{Blob, Current, Dir, Lock, Log, Manifest, Table};
    [
        (Target::Create, &[Log, Table, Blob, Manifest, Current]),
        (Target::Write, &[Log, Table, Blob, Manifest, Current, Lock]),
        (Target::SetLen, &[Log, Lock]),
        (Target::Sync, &[Log, Table, Blob, Manifest, Current]),
        (Target::SyncDir, &[Dir]),
        (Target::Rename, &[Current]),
        (Target::Remove, &[Log, Table, Blob, Manifest]),
        (Target::CreateDir, &[Dir]),
        (Target::Open, &[Log, Table, Blob, Manifest, Current]),
        (Target::Read, &[Log, Table, Blob, Manifest, Current]),
    ]
};

fn fault(draw: &mut Draw) -> FaultRule {
    let often = [Target::Write, Target::Sync, Target::Read, Target::Change];
    let (target, file) = if draw.one_in(2) {
        (draw.pick(&often), None)
    } else {
        let pairs = |(target, kinds): (Target, &[FileKind])| -> Vec<_> {
            kinds.iter().map(|kind| (target, Some(*kind))).collect()
        };
        let pairs: Vec<_> = ACCESSES.into_iter().flat_map(pairs).collect();
        draw.pick(&pairs)
    };
    let grows = [Target::Create, Target::Write, Target::SetLen, Target::CreateDir, Target::Change];
    let full = draw.one_in(2) && grows.contains(&target);
    let writes = matches!(target, Target::Write | Target::Change);
    let prefix = if writes && draw.one_in(2) { draw.below(600) } else { 0 };
    // What is seldom done must not go well too often before.
    let skip = draw.below(match file {
        None | Some(FileKind::Log) => 6,
        Some(FileKind::Table) => 3,
        Some(_) => 1,
    });
    FaultRule { target, file, skip, full, prefix: usize::try_from(prefix).expect("a small number") }
}
