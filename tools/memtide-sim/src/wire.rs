//! What sits between the engine and its disk: counts and hashes every operation, makes those fail that should, and
//! keeps the disk at the moment of a crash together with what was promised by then.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memtide_env::Simulation;
use memtide_env::vfs::{Access, CrashMode, Disk, Fault, IoOp};

use crate::case::{FaultRule, FileKind, Target};
use crate::figures::Figures;

/// Operations of the disk within one operation of a client, beyond which something goes round in circles.
const ENDLESS: u64 = 20_000;

/// How far the clients have come. Counts of writes since the last recovery.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Handed to the engine.
    pub(crate) submitted: usize,
    /// All below survive the death of the process.
    pub(crate) acked: usize,
    /// All below survive a power cut.
    pub(crate) durable: usize,
    /// All below are in tables, also those without a log.
    pub(crate) flushed: usize,
    /// No sequence number below was not given out.
    pub(crate) floor: u64,
}

/// A disk at the moment of a crash.
pub(crate) struct Kept {
    pub(crate) disk: Disk,
    pub(crate) progress: Progress,
    /// Whether a database was being opened.
    pub(crate) in_open: bool,
    pub(crate) mode: CrashMode,
    pub(crate) seed: u64,
}

/// A crash that is to come.
#[derive(Clone, Copy, Debug)]
struct Armed {
    mode: CrashMode,
    seed: u64,
    left: u64,
}

#[derive(Default)]
struct State {
    trace: u64,
    ios: u64,
    ios_of_op: u64,
    rules: Vec<FaultRule>,
    armed: Vec<Armed>,
    kept: Option<Kept>,
    progress: Progress,
    opening: bool,
    /// The database of this disk is gone: what its destructors do reaches nothing.
    dead: bool,
    /// Whether something failed since [`Wire::forgive`].
    fired: bool,
    figures: Figures,
}

/// Watches one disk after the other.
#[derive(Clone, Default)]
pub(crate) struct Wire(Arc<Mutex<State>>);

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under this lock ends the run, whose figures are still asked for.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the disk of `sim` from now on.
    pub(crate) fn attach(&self, sim: &Simulation) {
        let (seen, asked) = (self.clone(), self.clone());
        sim.vfs.set_observer(Some(Box::new(move |_, op, disk| seen.state().observe(op, disk))));
        sim.vfs.set_injector(Some(Box::new(move |access| asked.state().inject(access))));
    }

    /// From now on nothing reaches the disk, or again.
    pub(crate) fn set_dead(&self, dead: bool) {
        self.state().dead = dead;
    }

    pub(crate) fn set_opening(&self, opening: bool) {
        self.state().opening = opening;
    }

    /// A client begins its next operation.
    pub(crate) fn begin_op(&self) {
        self.state().ios_of_op = 0;
    }

    pub(crate) fn arm_fault(&self, rule: FaultRule) {
        self.state().rules.push(rule);
    }

    pub(crate) fn disarm_faults(&self) {
        self.state().rules.clear();
    }

    pub(crate) fn arm_crash(&self, mode: CrashMode, seed: u64, left: u64) {
        self.state().armed.push(Armed { mode, seed, left });
    }

    pub(crate) fn take_kept(&self) -> Option<Kept> {
        self.state().kept.take()
    }

    pub(crate) fn fired(&self) -> bool {
        self.state().fired
    }

    /// What failed so far is no excuse any more.
    pub(crate) fn forgive(&self) {
        self.state().fired = false;
    }

    pub(crate) fn progress(&self) -> Progress {
        self.state().progress
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.state().progress);
    }

    pub(crate) fn figures<T>(&self, look: impl FnOnce(&mut Figures) -> T) -> T {
        look(&mut self.state().figures)
    }

    pub(crate) fn trace(&self) -> u64 {
        self.state().trace
    }

    /// Puts what a client saw into the trace.
    pub(crate) fn note(&self, what: u64) {
        self.state().mix(what);
    }
}

impl State {
    fn mix(&mut self, what: u64) {
        // FNV's prime on words, and a rotation, so that high bits matter as well.
        self.trace = (self.trace.rotate_left(23) ^ what).wrapping_mul(0x0000_0100_0000_01b3);
    }

    fn mix_path(&mut self, path: &Path) {
        for &byte in path.as_os_str().as_encoded_bytes() {
            self.mix(u64::from(byte));
        }
    }

    fn observe(&mut self, op: &IoOp, disk: &Disk) {
        if self.dead {
            return;
        }
        for crash in &mut self.armed {
            crash.left = crash.left.saturating_sub(1);
        }
        if self.kept.is_none()
            && let Some(at) = self.armed.iter().position(|crash| crash.left == 0)
        {
            let Armed { mode, seed, .. } = self.armed.remove(at);
            let (disk, progress, in_open) = (disk.clone(), self.progress, self.opening);
            self.kept = Some(Kept { disk, progress, in_open, mode, seed });
        }
        self.ios += 1;
        self.ios_of_op += 1;
        assert!(self.ios_of_op < ENDLESS, "an operation does not end: {op:?}");
        self.figures.ios += 1;
        let (target, path) = target_of(op);
        self.mix(target as u64);
        self.mix_path(path);
        match op {
            // The process's number is in that file.
            IoOp::Write { path, .. } if FileKind::of(path) == FileKind::Lock => {}
            IoOp::Write { offset, len, .. } => {
                self.mix(*offset);
                self.mix(*len as u64);
            }
            IoOp::SetLen { len, .. } => self.mix(*len),
            IoOp::Create { prealloc, .. } => self.mix(*prealloc),
            IoOp::Rename { to, .. } | IoOp::Link { to, .. } => self.mix_path(to),
            _ => {}
        }
        self.notice(target, FileKind::of(path));
    }

    /// Rare states that show in what is done to files.
    fn notice(&mut self, target: Target, kind: FileKind) {
        let point = match (target, kind, self.opening) {
            (Target::Create, FileKind::Log, false) => "segment rolled",
            (Target::Remove, FileKind::Log, false) => "segment released",
            (Target::Create, FileKind::Table, true) => "recovery flushed",
            (Target::Create, FileKind::Blob, _) => "blob file written",
            (Target::Remove, FileKind::Table, false) => "table removed",
            (Target::Remove, FileKind::Blob, false) => "blob file removed",
            _ => return,
        };
        self.figures.hit(point);
    }

    fn inject(&mut self, access: Access<'_>) -> Option<Fault> {
        if self.dead {
            return Some(Fault { kind: std::io::ErrorKind::Other, prefix: 0 });
        }
        let (target, path) = match access {
            Access::Change(op) => target_of(op),
            Access::Open { path } => (Target::Open, path),
            Access::Read { path, .. } => (Target::Read, path),
        };
        if self.rules.is_empty() {
            return None;
        }
        let kind = FileKind::of(path);
        let is_change = !matches!(target, Target::Open | Target::Read);
        let fits = |rule: &FaultRule| {
            (rule.target == target || is_change && rule.target == Target::Change)
                && rule.file.is_none_or(|file| file == kind)
        };
        let mut chosen = None;
        for (at, rule) in self.rules.iter_mut().enumerate().filter(|(_, rule)| fits(rule)) {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if chosen.is_none() {
                chosen = Some(at);
            }
        }
        let rule = self.rules.remove(chosen?);
        self.fired = true;
        self.mix(0xfa);
        self.figures.fault(&rule, target, kind);
        Some(Fault { kind: rule.error(), prefix: rule.prefix })
    }
}

fn target_of(op: &IoOp) -> (Target, &Path) {
    match op {
        IoOp::Create { path, .. } => (Target::Create, path),
        IoOp::Write { path, .. } => (Target::Write, path),
        IoOp::SetLen { path, .. } => (Target::SetLen, path),
        IoOp::Sync { path } => (Target::Sync, path),
        IoOp::SyncDir { path } => (Target::SyncDir, path),
        IoOp::Rename { from, .. } | IoOp::Link { from, .. } => (Target::Rename, from),
        IoOp::Remove { path } => (Target::Remove, path),
        IoOp::CreateDir { path } => (Target::CreateDir, path),
    }
}
