//! `stats`: what a database holds and uses, as a table or as JSON.
//!
//! The JSON document has the fields of [`memtide::Stats`] by their names; `exec` prints the same.

use std::io::Write;

use memtide::{KeyspaceStats, StallStats, Stats};

use crate::args::Global;
use crate::formats::stats::json;
use crate::open::{self, Access};
use crate::report::{self, Outcome};

/// Shows the statistics.
pub(crate) fn run(global: &Global) -> Outcome {
    let stats = open::database(global, Access::Read)?.stats();
    if global.json {
        return report::print_json(&json(&stats));
    }
    let mut output = report::output();
    writeln!(output, "{}\n\n{}", keyspaces(&stats), whole(&stats))?;
    output.finish()
}

fn keyspaces(stats: &Stats) -> comfy_table::Table {
    let mut table = report::table([
        "keyspace",
        "memtable",
        "compaction",
        "entries",
        "used",
        "reserved",
        "sealed",
        "tables",
        "on disk",
        "in blobs",
        "levels",
    ]);
    for one in &stats.keyspaces {
        table.add_row([
            one.name.clone(),
            one.memtable_type.to_string(),
            one.compaction.to_string(),
            one.entries_active.to_string(),
            report::bytes(one.active.used),
            report::bytes(one.active.reserved),
            report::bytes(one.sealed_bytes),
            one.tables.to_string(),
            report::bytes(one.table_bytes),
            report::bytes(one.blob_bytes),
            levels(one),
        ]);
    }
    table
}

/// `4 1 0 2`: the tables of each level down to the last that has any.
fn levels(keyspace: &KeyspaceStats) -> String {
    let depth =
        keyspace.levels.iter().rposition(|level| level.tables > 0).map_or(0, |last| last + 1);
    let tables = keyspace.levels[..depth].iter().map(|level| level.tables.to_string());
    tables.collect::<Vec<_>>().join(" ")
}

fn waits(stall: StallStats) -> String {
    format!("{} in {:.3} s", stall.count, stall.time.as_secs_f64())
}

fn whole(stats: &Stats) -> comfy_table::Table {
    let mut table = report::table(["database", ""]);
    let (budget, used) = (report::bytes(stats.memory_budget), report::bytes(stats.memory_used));
    let segments = stats.wal_segments;
    let reason = stats.health.reason.as_deref().map(|reason| format!(": {reason}"));
    for (name, value) in [
        ("health", format!("{}{}", stats.health.state, reason.unwrap_or_default())),
        ("memory", format!("{used} of {budget}")),
        ("cache", report::bytes(stats.cache_bytes)),
        ("cache hits, misses", format!("{}, {}", stats.cache_hits, stats.cache_misses)),
        ("WAL", format!("{} in {segments} segments", report::bytes(stats.wal_bytes))),
        ("manifest", report::bytes(stats.manifest_bytes)),
        ("visible, durable", format!("{}, {}", stats.visible, stats.durable)),
        ("writes", format!("{} in {} groups", stats.writes, stats.write_groups)),
        ("waits for memory", waits(stats.stalls_for_memory)),
        ("waits for merges", waits(stats.stalls_for_merges)),
        ("waits for log segments", waits(stats.stalls_for_segments)),
        ("waits for the compaction rate", waits(stats.compaction_rate_waits)),
        ("slowed down for memory", waits(stats.slowdowns_for_memory)),
        ("slowed down for compaction", waits(stats.slowdowns_for_compaction)),
        ("flushes, compactions", format!("{}, {}", stats.flushes, stats.compactions)),
    ] {
        table.add_row([name.to_owned(), value]);
    }
    table
}
