//! `verify`: looks at all of a database and reports damage, one line each: file, offset, what.

use std::io::Write;
use std::path::Path;

use memtide::{Damage, Db, Depth, Error, ErrorKind, VerifyReport};
use serde_json::{Value, json};

use crate::args::{Global, Verify};
use crate::open;
use crate::report::{self, Outcome};

/// Verifies the database.
pub(crate) fn run(global: &Global, verify: &Verify) -> Outcome {
    let dir = open::directory(global, None, &open::config(global, &[])?)?;
    let depth = if verify.quick { Depth::Quick } else { Depth::Full };
    report(global, &dir, &Db::inspect(&dir).verify(depth)?)
}

/// Prints what was found in `dir`; damage is a failure.
pub(crate) fn report(global: &Global, dir: &Path, found: &VerifyReport) -> Outcome {
    if global.json {
        report::print_json(&document(found))?;
    } else {
        let mut output = report::output();
        for one in &found.damages {
            writeln!(output, "{} {} {}", one.file.display(), one.offset, one.what)?;
        }
        output.finish()?;
    }
    let read = format!("{} files ({})", found.files, report::bytes(found.bytes));
    if found.damages.is_empty() {
        report::say(format_args!("no damage in {read}"));
    }
    outcome(dir, &found.damages, &read)
}

/// A failure if there is damage in what was `read`.
pub(crate) fn outcome(dir: &Path, damages: &[Damage], read: &str) -> Outcome {
    let count = damages.len();
    if count == 0 {
        return Ok(());
    }
    let plural = if count == 1 { "" } else { "s" };
    let message = format!("{count} damaged place{plural} in {read} of {}", dir.display());
    Err(Error::new(ErrorKind::Corruption, message).into())
}

fn document(found: &VerifyReport) -> Value {
    let damage = |one: &Damage| {
        let file = one.file.display().to_string();
        json!({ "file": file, "offset": one.offset, "what": one.what })
    };
    let damages: Vec<Value> = found.damages.iter().map(damage).collect();
    json!({ "files": found.files, "bytes": found.bytes, "damages": damages })
}
