//! `repair` and `salvage`: what is sound of a damaged database, copied to a new directory; what is lost, one line each.

use std::io::Write;
use std::path::Path;

use memtide::{Db, Error, ErrorKind, Inspector, KeySpan, Loss, RescueReport};
use serde_json::{Value, json};

use crate::args::{Global, Repair};
use crate::formats::{escape, hex};
use crate::open;
use crate::report::{self, Outcome};

/// Copies whole files.
pub(crate) fn repair(global: &Global, repair: &Repair) -> Outcome {
    let done = database(global)?.repair_to(&repair.to, repair.link)?;
    tell(global, &repair.to, &done)
}

/// Copies blocks and records.
pub(crate) fn salvage(global: &Global, to: &Path) -> Outcome {
    let done = database(global)?.salvage_to(to)?;
    tell(global, to, &done)
}

fn database(global: &Global) -> Outcome<Inspector> {
    Ok(Db::inspect(open::directory(global, None, &open::config(global, &[])?)?))
}

fn tell(global: &Global, to: &Path, done: &RescueReport) -> Outcome {
    if global.json {
        report::print_json(&document(done))?;
    } else {
        let mut output = report::output();
        for loss in &done.lost {
            writeln!(output, "{}", line(loss))?;
        }
        output.finish()?;
    }
    for note in &done.notes {
        report::say(format_args!("note: {note}"));
    }
    if let Some(why) = &done.rebuilt {
        report::say(format_args!("the manifest was made anew: {why}"));
    }
    report::say(format_args!(
        "{} is complete: {} files copied ({}), {} tables written with {} rows, {} batches of the log",
        to.display(),
        done.files_copied,
        report::bytes(done.bytes_copied),
        done.tables_written,
        done.rows_kept,
        done.batches_kept,
    ));
    match done.lost.len() {
        0 => Ok(()),
        count => {
            let plural = if count == 1 { "" } else { "s" };
            let message = format!("{count} range{plural} lost or suspect, listed above");
            Err(Error::new(ErrorKind::Corruption, message).into())
        }
    }
}

/// `file keyspace keys A..=B seqs 1..=2 why`
fn line(loss: &Loss) -> String {
    let mut line = format!("{} ", loss.file.display());
    if let Some(keyspace) = &loss.keyspace {
        line.push_str(&format!("{keyspace:?} "));
    }
    if let Some(KeySpan { from, to }) = &loss.keys {
        line.push_str("keys ");
        end(from, &mut line);
        line.push_str("..=");
        end(to, &mut line);
        line.push(' ');
    }
    if let Some((from, to)) = loss.seqs {
        line.push_str(&format!("seqs {from}..={to} "));
    }
    line + &loss.what
}

/// A key in quotes; nothing for an end that is open.
fn end(key: &Option<Vec<u8>>, line: &mut String) {
    if let Some(key) = key {
        line.push('"');
        escape::escape(key, line);
        line.push('"');
    }
}

fn document(done: &RescueReport) -> Value {
    let key = |key: &Option<Vec<u8>>| {
        key.as_ref().map(|key| {
            let mut digits = String::new();
            hex::encode(key, &mut digits);
            digits
        })
    };
    let loss = |loss: &Loss| {
        json!({
            "file": loss.file.display().to_string(),
            "keyspace": loss.keyspace,
            "keys": loss.keys.as_ref().map(|span| {
                json!({ "from_hex": key(&span.from), "to_hex": key(&span.to) })
            }),
            "seqs": loss.seqs.map(|(from, to)| json!({ "from": from, "to": to })),
            "what": loss.what,
        })
    };
    json!({
        "rebuilt": done.rebuilt,
        "files_copied": done.files_copied,
        "bytes_copied": done.bytes_copied,
        "tables_written": done.tables_written,
        "rows_kept": done.rows_kept,
        "batches_kept": done.batches_kept,
        "lost": done.lost.iter().map(loss).collect::<Vec<_>>(),
        "notes": done.notes,
    })
}
