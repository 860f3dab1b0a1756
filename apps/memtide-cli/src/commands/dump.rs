//! `dump`: what is in files, a line for each piece: file, offset, what it is, what it says.

use std::path::Path;

use memtide::{Db, DumpItem, DumpKind, DumpValue, Error, ErrorKind};
use serde_json::{Map, Value, json};

use crate::args::{Dump, DumpFile, Global};
use crate::formats::shown;
use crate::open;
use crate::report::{self, Outcome};

/// Prints all pieces.
pub(crate) fn run(global: &Global, dump: &Dump) -> Outcome {
    let path = open::directory(global, dump.path.as_deref(), &open::config(global, &[])?)?;
    let kind = match dump.kind {
        DumpFile::Wal => DumpKind::Wal,
        DumpFile::Manifest => DumpKind::Manifest,
        DumpFile::Sst => DumpKind::Table,
        DumpFile::Blob => DumpKind::Blob,
    };
    let mut lines = report::Lines::new();
    let dumped = Db::inspect(&path).dump(kind, &mut |file, item| {
        if global.json {
            lines.add(&document(file, &item, dump.show_data))
        } else {
            lines.add(&line(file, &item, dump.show_data))
        }
    });
    let damages = lines.finish(dumped)?;
    if damages > 0 {
        let plural = if damages == 1 { "" } else { "s" };
        let message = format!("{damages} damaged place{plural}");
        return Err(Error::new(ErrorKind::Corruption, message).into());
    }
    Ok(())
}

fn line(file: &Path, item: &DumpItem<'_>, show: bool) -> String {
    let mut line = format!("{} {} {}", file.display(), item.offset, item.what);
    for (name, value) in item.fields {
        line.push_str(&format!(" {name}="));
        match value {
            DumpValue::Number(number) => line.push_str(&number.to_string()),
            DumpValue::Text(text) => line.push_str(&format!("{text:?}")),
            DumpValue::Data(bytes) => shown::push(bytes, show, &mut line),
        }
    }
    line
}

fn document(file: &Path, item: &DumpItem<'_>, show: bool) -> Value {
    let mut fields = Map::new();
    fields.insert("file".to_owned(), file.display().to_string().into());
    fields.insert("offset".to_owned(), item.offset.into());
    fields.insert("what".to_owned(), item.what.into());
    for (name, value) in item.fields {
        let value = match value {
            DumpValue::Number(number) => json!(number),
            DumpValue::Text(text) => json!(text),
            DumpValue::Data(bytes) => shown::document(bytes, show),
        };
        fields.insert((*name).to_owned(), value);
    }
    Value::Object(fields)
}
