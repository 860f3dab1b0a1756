//! `diff`: the keys that two databases have different values for, one line each.

use std::io::Write;

use memtide::{Db, Difference, Error, ErrorKind};
use serde_json::{Value, json};

use crate::args::{Diff, Global};
use crate::formats::{escape, hex};
use crate::report::{self, Outcome};

/// Compares two databases.
pub(crate) fn run(global: &Global, diff: &Diff) -> Outcome {
    let mut output = report::output();
    let mut closed = None;
    let compared = Db::inspect(&diff.left).diff(&Db::inspect(&diff.right), &mut |found| {
        let line = if global.json {
            document(&found, diff.show_data).to_string()
        } else {
            line(&found, diff.show_data)
        };
        writeln!(output, "{line}").map_err(|error| {
            let told = Error::io("write to", "standard output", std::io::Error::from(error.kind()));
            closed = Some(error);
            told
        })
    });
    if let Some(error) = closed {
        return Err(error.into());
    }
    let count = compared?;
    output.finish()?;
    if count == 0 {
        report::say(format_args!("no key differs"));
        return Ok(());
    }
    let plural = if count == 1 { " differs" } else { "s differ" };
    Err(Error::new(ErrorKind::Conflict, format!("{count} key{plural}")).into())
}

fn line(found: &Difference<'_>, show: bool) -> String {
    let mut line = format!("{:?} ", found.keyspace);
    bytes(found.key, show, &mut line);
    for value in [found.left, found.right] {
        line.push(' ');
        match value {
            Some(value) => bytes(value, show, &mut line),
            None => line.push_str("none"),
        }
    }
    line
}

fn bytes(bytes: &[u8], show: bool, line: &mut String) {
    if show {
        line.push('"');
        escape::escape(bytes, line);
        line.push('"');
    } else {
        line.push_str(&format!("{} B", bytes.len()));
    }
}

fn document(found: &Difference<'_>, show: bool) -> Value {
    let bytes = |bytes: &[u8]| {
        let mut digits = String::new();
        hex::encode(bytes, &mut digits);
        if show {
            json!({ "len": bytes.len(), "hex": digits })
        } else {
            json!({ "len": bytes.len() })
        }
    };
    json!({
        "keyspace": found.keyspace,
        "key": bytes(found.key),
        "left": found.left.map(bytes),
        "right": found.right.map(bytes),
    })
}
