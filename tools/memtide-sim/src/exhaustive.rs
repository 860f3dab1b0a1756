//! One script, and a run of it for each operation of the disk: with a crash there in each way, with a failure there,
//! and with two failures near each other.

use memtide::MemtableType;
use memtide_env::vfs::CrashMode;

use crate::case::{Case, Ending, FaultRule, Op, Target};
use crate::draw::{Faults, Focus, draw};
use crate::figures::Figures;
use crate::world::{Failure, run};

/// Steps of a script.
const STEPS: usize = 150;
/// How far apart two failures are at most.
const APART_MAX: u64 = 4;

/// How much is tried at each operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Crashes and single failures.
    Singles,
    /// Pairs of failures too.
    Pairs,
}

/// Tries everything for the script of a memtable; returns the figures, or the case that failed first.
///
/// # Errors
/// That case and what was wrong.
pub fn exhaustive(
    kind: MemtableType,
    seed: u64,
    extent: Extent,
) -> Result<Figures, Box<(Case, Failure)>> {
    let script = script(kind, seed);
    let plain = run(&script);
    if let Some(failure) = plain.failure {
        return Err(Box::new((script, failure)));
    }
    let mut figures = plain.figures;
    let points = figures.ios;
    let mut attempt = |first: &[Op]| {
        let mut case = script.clone();
        case.ops.splice(0..0, first.iter().cloned());
        let outcome = run(&case);
        figures.add(&outcome.figures);
        match outcome.failure {
            Some(failure) => Err(Box::new((case, failure))),
            None => Ok(()),
        }
    };
    let modes = [
        CrashMode::KeepAll,
        CrashMode::DropAll,
        CrashMode::Prefix,
        CrashMode::Subset,
        CrashMode::Hostile,
    ];
    for point in 0..points {
        for mode in modes {
            attempt(&[Op::Crash { mode, seed: seed ^ point, after: point + 1 }])?;
        }
        attempt(&[fails(point, false)])?;
        attempt(&[fails(point, true)])?;
        if extent == Extent::Pairs {
            for apart in 0..APART_MAX {
                // Both count from the start; the one that comes second has seen the first fail.
                let second = point + apart;
                attempt(&[fails(point, false), fails(second, point.is_multiple_of(2))])?;
            }
        }
    }
    Ok(figures)
}

/// The operation of the disk with this index fails.
fn fails(skip: u64, full: bool) -> Op {
    let prefix = if skip.is_multiple_of(3) { 11 } else { 0 };
    Op::Fault(FaultRule { target: Target::Change, file: None, skip, full, prefix })
}

/// Everything that writes files, within few steps.
fn script(kind: MemtableType, seed: u64) -> Case {
    let focus = Focus { memtable: Some(kind), faults: Faults::None };
    let mut case = draw(seed, &focus);
    case.ops.retain(|op| !matches!(op, Op::Verify | Op::Reopen(_)));
    case.ops.truncate(STEPS);
    for (at, op) in [(40, Op::Flush), (80, Op::Compact), (110, Op::Reopen(Ending::Close))] {
        if at < case.ops.len() {
            case.ops.insert(at, op);
        }
    }
    case
}
