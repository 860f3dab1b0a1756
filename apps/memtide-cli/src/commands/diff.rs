//! `diff`: the keys that two databases have different values for, one line each.

use memtide::{Db, Difference, Error, ErrorKind};
use serde_json::{Value, json};

use crate::args::{Diff, Global};
use crate::formats::shown;
use crate::report::{self, Outcome};

/// Compares two databases.
pub(crate) fn run(global: &Global, diff: &Diff) -> Outcome {
    let mut lines = report::Lines::new();
    let compared = Db::inspect(&diff.left).diff(&Db::inspect(&diff.right), &mut |found| {
        if global.json {
            lines.add(&document(&found, diff.show_data))
        } else {
            lines.add(&line(&found, diff.show_data))
        }
    });
    let count = lines.finish(compared)?;
    if count == 0 {
        report::say(format_args!("no key differs"));
        return Ok(());
    }
    let plural = if count == 1 { " differs" } else { "s differ" };
    Err(Error::new(ErrorKind::Conflict, format!("{count} key{plural}")).into())
}

fn line(found: &Difference<'_>, show: bool) -> String {
    let mut line = format!("{:?} ", found.keyspace);
    shown::push(found.key, show, &mut line);
    for value in [found.left, found.right] {
        line.push(' ');
        match value {
            Some(value) => shown::push(value, show, &mut line),
            None => line.push_str("none"),
        }
    }
    line
}

fn document(found: &Difference<'_>, show: bool) -> Value {
    let bytes = |bytes| shown::document(bytes, show);
    json!({
        "keyspace": found.keyspace,
        "key": bytes(found.key),
        "left": found.left.map(bytes),
        "right": found.right.map(bytes),
    })
}
