//! The results for machines: one array, one object for each memtable and case.
//!
//! Keys are never renamed and never change their meaning. Times are nanoseconds for one operation, for one
//! entry where it is a scan; `_low` and `_high` are the quartiles of the rounds. What was not measured is
//! null.

use serde_json::{Value, json};

use super::measure::{MixFigures, Row, Timing};
use super::plan::name_of;
use crate::args::Mix;

/// All rows.
pub(super) fn document(rows: &[Row]) -> Value {
    rows.iter().map(row).collect()
}

fn row(row: &Row) -> Value {
    let alone = |mix| row.mix(mix).map(|figures| figures.alone);
    let wall = |mix| alone(mix).map(|timing| timing.wall.median);
    let cpu = |mix| alone(mix).map(|timing| timing.cpu.median);
    let database =
        |mix| row.mix(mix).and_then(|figures| figures.database).map(|timing| timing.wall.median);
    json!({
        "memtable": row.kind.name(),
        "entries": row.case.entries,
        "ops_ok": row.ops_ok,
        "ops_total": row.ops_total,
        "used_bytes": row.usage.used,
        "reserved_bytes": row.usage.reserved,
        "payload_bytes": row.payload,
        "bytes_per_entry": row.bytes_per_entry(),
        "put_ns": wall(Mix::Load),
        "get_ns": wall(Mix::Read),
        "scan_ns": wall(Mix::Scan),
        "engine_put_ns": database(Mix::Load),
        "engine_get_ns": database(Mix::Read),
        "engine_scan_ns": database(Mix::Scan),
        "keys": name_of(row.case.keys),
        "value_bytes": row.case.value_bytes,
        "threads": row.case.threads,
        "batch": row.case.batch,
        "rounds": row.rounds,
        "payload_per_entry": row.payload_per_entry(),
        "index_per_entry": row.index_per_entry(),
        "waste_per_entry": row.waste_per_entry(),
        "put_cpu_ns": cpu(Mix::Load),
        "get_cpu_ns": cpu(Mix::Read),
        "scan_cpu_ns": cpu(Mix::Scan),
        "mixes": row.mixes.iter().map(mix).collect::<Value>(),
    })
}

fn mix(figures: &MixFigures) -> Value {
    let mut object = json!({
        "mix": name_of(figures.mix),
        "operations": figures.operations,
        "noise_percent": figures.noise.wall,
        "cpu_noise_percent": figures.noise.cpu,
        "engine_noise_percent": figures.noise.database,
    });
    add_timing(&mut object, "", Some(figures.alone));
    add_timing(&mut object, "engine_", figures.database);
    object
}

fn add_timing(object: &mut Value, prefix: &str, timing: Option<Timing>) {
    for (clock, spread) in [("", timing.map(|t| t.wall)), ("cpu_", timing.map(|t| t.cpu))] {
        object[format!("{prefix}{clock}ns")] = json!(spread.map(|spread| spread.median));
        object[format!("{prefix}{clock}ns_low")] = json!(spread.map(|spread| spread.low));
        object[format!("{prefix}{clock}ns_high")] = json!(spread.map(|spread| spread.high));
    }
}
