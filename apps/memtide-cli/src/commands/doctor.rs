//! `doctor`: what a person wants to know of a database, and what to do next.

use std::io::Write;
use std::path::PathBuf;

use memtide::{Db, DoctorKeyspace, DoctorReport, Error, ErrorKind};
use serde_json::{Value, json};

use crate::args::Global;
use crate::open;
use crate::report::{self, Outcome};

/// Looks at the database.
pub(crate) fn run(global: &Global) -> Outcome {
    let dir = open::directory(global, None, &open::config(global, &[])?)?;
    let found = Db::inspect(&dir).doctor()?;
    if global.json {
        report::print_json(&document(&found))?;
    } else {
        print(&found)?;
    }
    if found.damages.is_empty() {
        return Ok(());
    }
    let message = format!("{} is damaged", dir.display());
    Err(Error::new(ErrorKind::Corruption, message).into())
}

fn print(found: &DoctorReport) -> Outcome {
    let mut output = report::output();
    writeln!(output, "state    {}", found.state)?;
    writeln!(output, "files    {}", report::bytes(found.bytes))?;
    if let Some((free, total)) = found.space {
        writeln!(output, "device   {} free of {}", report::bytes(free), report::bytes(total))?;
    }
    writeln!(
        output,
        "log      {} segments, {}, {} writes to replay, {} B torn",
        found.log_segments,
        report::bytes(found.log_bytes),
        found.log_writes,
        found.torn_bytes
    )?;
    for one in &found.keyspaces {
        writeln!(
            output,
            "keyspace {:?}: memtable {} of {}, {}, {}; {} tables ({}), {} rows, {} blob files ({})",
            one.name,
            one.memtable_type.name(),
            report::bytes(one.max_memtable_size),
            if one.logged { "logged" } else { "not logged" },
            one.compaction.name(),
            one.tables,
            report::bytes(one.table_bytes),
            one.rows,
            one.blobs,
            report::bytes(one.blob_bytes)
        )?;
    }
    for (what, files) in [("orphan", &found.orphans), ("stranger", &found.strangers)] {
        for file in files {
            writeln!(output, "{what} {}", file.display())?;
        }
    }
    for one in &found.damages {
        writeln!(output, "damage   {} {} {}", one.file.display(), one.offset, one.what)?;
    }
    for what in &found.advice {
        writeln!(output, "next     {what}")?;
    }
    output.finish()
}

fn document(found: &DoctorReport) -> Value {
    let keyspace = |one: &DoctorKeyspace| {
        json!({
            "name": one.name, "id": one.id, "memtable": one.memtable_type.name(),
            "max_memtable_size": one.max_memtable_size, "logged": one.logged,
            "compaction": one.compaction.name(), "tables": one.tables,
            "table_bytes": one.table_bytes, "rows": one.rows, "blobs": one.blobs,
            "blob_bytes": one.blob_bytes,
        })
    };
    let paths = |paths: &[PathBuf]| -> Vec<String> {
        paths.iter().map(|path| path.display().to_string()).collect()
    };
    let damages: Vec<Value> = found
        .damages
        .iter()
        .map(|one| json!({ "file": one.file.display().to_string(), "offset": one.offset, "what": one.what }))
        .collect();
    json!({
        "state": found.state, "uuid": found.uuid, "manifest": found.manifest,
        "keyspaces": found.keyspaces.iter().map(keyspace).collect::<Vec<_>>(),
        "log_segments": found.log_segments, "log_bytes": found.log_bytes,
        "log_writes": found.log_writes, "torn_bytes": found.torn_bytes, "bytes": found.bytes,
        "orphans": paths(&found.orphans), "strangers": paths(&found.strangers),
        "damages": damages,
        "space": found.space.map(|(free, total)| json!({ "free": free, "total": total })),
        "advice": found.advice,
    })
}
