//! What a campaign counts: cycles, faults by kind and file, promises that were at stake, rare states that were met.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::case::{FaultRule, FileKind, Target};

/// Rare states that a campaign must have met: a net that never goes there finds nothing there.
pub const SOMETIMES: [&str; 35] = [
    "blob file removed",
    "blob file written",
    "blob garbage left",
    "compaction failed and went on",
    "compaction in slices",
    "compaction rate waited",
    "crash in a recovery",
    "crash in a recovery from a crash in a recovery",
    "failed write is visible",
    "failed write survived",
    "failed write was lost",
    "flush failed and went on",
    "level of several runs",
    "log is mapped",
    "memtables merged in memory",
    "open refused and then not",
    "recovery flushed",
    "recovery of many segments",
    "recovery removed orphans",
    "recovery replayed",
    "refused because the device is full",
    "segment released",
    "segment rolled",
    "slowed for compaction",
    "slowed for memory",
    "snapshot outlived a compaction",
    "stall for a merge",
    "stall for a segment",
    "stall for memory",
    "table removed",
    "torn tail found",
    "tree of three levels",
    "walk outlived a flush",
    "write refused, healed by reopening",
    "writes lost in a power cut",
];

/// Counts of one run or of many.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Seeds that were run.
    pub seeds: u64,
    /// Operations of clients.
    pub ops: u64,
    /// Operations that changed a disk.
    pub ios: u64,
    /// Crashes and the recoveries from them.
    pub cycles: u64,
    /// Opens of a database.
    pub opens: u64,
    /// Acknowledged writes that a crash could have lost and must not.
    pub at_stake: u64,
    /// Reads that were compared with the model.
    pub reads: u64,
    /// How often each fault hit each kind of file.
    faults: BTreeMap<(String, FileKind), u64>,
    points: BTreeMap<&'static str, u64>,
}

impl Figures {
    /// Counts an injected failure.
    pub(crate) fn fault(&mut self, rule: &FaultRule, target: Target, file: FileKind) {
        let how = match (target, rule.full, rule.prefix) {
            (Target::Open | Target::Read, ..) => "broken, once",
            (Target::Write, false, 1..) => "broken after some bytes",
            (Target::Write, true, 1..) => "full after some bytes",
            (_, true, _) => "full",
            (_, false, _) => "broken",
        };
        self.count_fault(format!("{}: {how}", target.name()), file);
    }

    /// Counts any other fault.
    pub(crate) fn count_fault(&mut self, what: String, file: FileKind) {
        *self.faults.entry((what, file)).or_default() += 1;
    }

    /// Notes that a rare state was met.
    pub(crate) fn hit(&mut self, point: &'static str) {
        debug_assert!(SOMETIMES.contains(&point), "{point} is not listed");
        *self.points.entry(point).or_default() += 1;
    }

    /// How often it was.
    pub(crate) fn hits(&self, point: &str) -> u64 {
        self.points.get(point).copied().unwrap_or_default()
    }

    /// Rare states that were never met.
    #[must_use]
    pub fn never(&self) -> Vec<&'static str> {
        SOMETIMES.into_iter().filter(|point| self.hits(point) == 0).collect()
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.ops += other.ops;
        self.ios += other.ios;
        self.cycles += other.cycles;
        self.opens += other.opens;
        self.at_stake += other.at_stake;
        self.reads += other.reads;
        for (what, count) in &other.faults {
            *self.faults.entry(what.clone()).or_default() += count;
        }
        for (&point, count) in &other.points {
            *self.points.entry(point).or_default() += count;
        }
    }

    /// For people; `elapsed` is the time that all of it took.
    #[must_use]
    pub fn table(&self, elapsed: Duration) -> String {
        let mut text = String::new();
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let per_second = |count: u64| count as f64 / seconds;
        let Self { seeds, ops, ios, cycles, opens, at_stake, reads, .. } = self;
        let _ = writeln!(
            text,
            "{seeds} seeds, {cycles} crash-recover cycles, {opens} opens in {seconds:.1} s: {:.0} cycles/s, {:.0} \
             operations/s",
            per_second(*cycles),
            per_second(*ops),
        );
        let _ = writeln!(
            text,
            "{ops} operations, {ios} of the disk; {reads} reads compared; {at_stake} acknowledged writes at stake",
        );
        let _ = write!(text, "\n{:<34}", "fault");
        let kinds: Vec<_> = FileKind::ALL
            .into_iter()
            .filter(|kind| self.faults.keys().any(|(_, file)| file == kind))
            .collect();
        for kind in &kinds {
            let _ = write!(text, "{:>10}", kind.name());
        }
        for what in self.fault_names() {
            let _ = write!(text, "\n{what:<34}");
            for kind in &kinds {
                let _ = match self.faults.get(&(what.to_owned(), *kind)) {
                    Some(count) => write!(text, "{count:>10}"),
                    None => write!(text, "{:>10}", "-"),
                };
            }
        }
        let _ = writeln!(text, "\n");
        for point in SOMETIMES {
            let _ = writeln!(text, "{:>10}  {point}", self.hits(point));
        }
        text
    }

    /// For machines.
    #[must_use]
    pub fn json(&self, elapsed: Duration) -> String {
        let Self { seeds, ops, ios, cycles, opens, at_stake, reads, .. } = self;
        let mut text = format!(
            "{{\"seeds\":{seeds},\"operations\":{ops},\"disk_operations\":{ios},\"cycles\":{cycles},\"opens\":{opens},\
             \"acknowledged_at_stake\":{at_stake},\"reads_compared\":{reads},\"seconds\":{:.3},\"faults\":[",
            elapsed.as_secs_f64()
        );
        for (at, ((what, file), count)) in self.faults.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let file = file.name();
            let _ = write!(
                text,
                "{comma}{{\"fault\":\"{what}\",\"file\":\"{file}\",\"fired\":{count}}}"
            );
        }
        text.push_str("],\"sometimes\":{");
        for (at, point) in SOMETIMES.into_iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\"{point}\":{}", self.hits(point));
        }
        text.push_str("}}");
        text
    }

    fn fault_names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.faults.keys().map(|(what, _)| what.as_str()).collect();
        names.dedup();
        names
    }
}
