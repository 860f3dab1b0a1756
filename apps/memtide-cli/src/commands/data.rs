//! `put`, `get`, `del`, `scan`: single keys and ranges of one keyspace.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::ops::Bound;

use memtide::{Error, ErrorKind, Slice};

use crate::args::{Global, Scan};
use crate::formats::{escape, jsonl};
use crate::open::{self, Access};
use crate::report::{self, Outcome};

type Rows = Box<dyn Iterator<Item = memtide::Result<(Slice, Slice)>>>;

/// Sets the value of a key.
pub(crate) fn put(global: &Global, key: &OsStr, value: &OsStr) -> Outcome {
    let db = open::database(global, Access::Create)?;
    open::keyspace_or_new(&db, global)?.put(key.as_encoded_bytes(), value.as_encoded_bytes())?;
    Ok(db.close()?)
}

/// Prints the value of a key.
pub(crate) fn get(global: &Global, key: &OsStr) -> Outcome {
    let db = open::database(global, Access::Read)?;
    let key = key.as_encoded_bytes();
    let Some(value) = open::keyspace(&db, global)?.get(key)? else {
        let message = format!("there is no key \"{}\"", escaped(key));
        return Err(Error::new(ErrorKind::NotFound, message).into());
    };
    let mut output = report::output();
    if global.json {
        jsonl::write_row(&mut output, key, Some(&value))?;
    } else {
        output.write_all(&value)?;
        output.write_all(b"\n")?;
    }
    output.finish()
}

/// Deletes a key; that it was absent is no failure.
pub(crate) fn del(global: &Global, key: &OsStr) -> Outcome {
    let db = open::database(global, Access::Change)?;
    open::keyspace(&db, global)?.delete(key.as_encoded_bytes())?;
    Ok(db.close()?)
}

/// Prints or counts the rows of a range.
pub(crate) fn scan(global: &Global, scan: &Scan) -> Outcome {
    let db = open::database(global, Access::Read)?;
    let keyspace = open::keyspace(&db, global)?;
    let bytes = |text: &OsString| text.as_encoded_bytes().to_vec();
    let iter = if let Some(prefix) = &scan.prefix {
        keyspace.prefix(bytes(prefix))
    } else {
        let from = scan.from.as_ref().map_or(Bound::Unbounded, |key| Bound::Included(bytes(key)));
        let to = scan.to.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(bytes(key)));
        keyspace.range((from, to))
    };
    let rows: Rows = if scan.reverse { Box::new(iter.rev()) } else { Box::new(iter) };
    let limit = scan.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut output = report::output();
    let (mut count, mut line) = (0_u64, String::new());
    for row in rows.take(limit) {
        let (key, value) = row?;
        let value = (!scan.keys_only).then_some(&*value);
        count += 1;
        if scan.count {
            continue;
        }
        if global.json {
            jsonl::write_row(&mut output, &key, value)?;
            continue;
        }
        line.clear();
        escape::escape(&key, &mut line);
        if let Some(value) = value {
            line.push('\t');
            escape::escape(value, &mut line);
        }
        writeln!(output, "{line}")?;
    }
    if scan.count {
        writeln!(output, "{count}")?;
    }
    output.finish()
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    escape::escape(bytes, &mut text);
    text
}
