//! `import`: records of a file or pipe into a keyspace, in batches.
//!
//! Each acknowledged batch is told as `acked N` on standard error: the first N records of the input are in
//! the database, whatever happens to this program afterwards. Memory is bounded by one batch and one
//! record. The later of two records of a key wins; such a record, and one whose key was in the database
//! before, is counted as a duplicate. Records before a wrong line are kept.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

use memtide::{Batch, Db, Error, Keyspace};

use crate::args::{Global, Import, ImportFormat};
use crate::formats::deb822::Stanzas;
use crate::formats::lines::{self, LineReader};
use crate::formats::{Record, Records, jsonl};
use crate::open::{self, Access};
use crate::report::{self, Outcome, Progress};

/// Records of a batch at most.
const BATCH_COUNT_MAX: usize = 1000;
/// Bytes of keys and values at which a batch is written: half of the smallest preset's memtable.
const BATCH_BYTES: usize = 128 << 10;

/// Imports a file.
pub(crate) fn run(global: &Global, import: &Import) -> Outcome {
    let (name, records) = records(import)?;
    let db = open::database(global, Access::Create)?;
    let keyspace = open::keyspace_or_new(&db, global)?;
    let mut importer = Importer::new(&db, &keyspace, name);
    let read = importer.add_all(records);
    importer.commit()?;
    read?;
    let Importer { acked, duplicates, progress, .. } = importer;
    drop(progress);
    db.close()?;
    report::say(format_args!("imported {acked} records, {duplicates} duplicates"));
    if global.json {
        let summary = serde_json::json!({ "records": acked, "duplicates": duplicates });
        report::print_json(&summary)?;
    }
    Ok(())
}

/// The records of the file and what messages call it.
fn records(import: &Import) -> memtide::Result<(String, Records)> {
    let (name, input): (String, Box<dyn BufRead>) = if import.file.as_os_str() == "-" {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let file =
            File::open(&import.file).map_err(|error| Error::io("open", &import.file, error))?;
        (import.file.display().to_string(), Box::new(BufReader::with_capacity(64 << 10, file)))
    };
    let reader = LineReader::new(input, name.clone());
    let records: Records = match (import.format, &import.key) {
        (ImportFormat::Deb822, Some(field)) => Box::new(Stanzas::new(reader, field)),
        (ImportFormat::Deb822, None) => {
            return Err(Error::invalid_argument("deb822 needs the field that is the key")
                .with_hint("for example --key Package"));
        }
        (_, Some(_)) => {
            return Err(Error::invalid_argument("--key goes with --format deb822 only"));
        }
        (ImportFormat::Jsonl, None) => Box::new(jsonl::records(reader)),
        (ImportFormat::Lines, None) => Box::new(lines::records(reader)),
    };
    Ok((name, records))
}

struct Importer<'d> {
    db: &'d Db,
    keyspace: &'d Keyspace,
    /// What messages call the input.
    name: String,
    batch: Batch,
    batch_bytes: usize,
    /// Keys of the batch.
    keys: BTreeSet<Vec<u8>>,
    /// The first and last line the batch comes from.
    span: (u64, u64),
    acked: u64,
    duplicates: u64,
    progress: Progress,
}

impl<'d> Importer<'d> {
    fn new(db: &'d Db, keyspace: &'d Keyspace, name: String) -> Self {
        Self {
            db,
            keyspace,
            name,
            batch: db.batch(),
            batch_bytes: 0,
            keys: BTreeSet::new(),
            span: (0, 0),
            acked: 0,
            duplicates: 0,
            progress: Progress::new("imported"),
        }
    }

    fn add_all(&mut self, records: Records) -> Outcome {
        for record in records {
            self.add(record?)?;
        }
        Ok(())
    }

    fn add(&mut self, record: Record) -> Outcome {
        let line = record.line;
        let stored = self.keyspace.contains_key(&record.key);
        let stored = stored.map_err(|error| self.refused((line, line), error))?;
        if self.batch.is_empty() {
            self.span.0 = line;
        }
        self.span.1 = line;
        self.batch.put(self.keyspace, &record.key, &record.value);
        self.batch_bytes += record.key.len() + record.value.len();
        self.duplicates += u64::from(!self.keys.insert(record.key) || stored);
        if self.batch.len() >= BATCH_COUNT_MAX || self.batch_bytes >= BATCH_BYTES {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Outcome {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, self.db.batch());
        let count = batch.len() as u64;
        self.batch_bytes = 0;
        self.keys.clear();
        self.db.write(batch).map_err(|error| self.refused(self.span, error))?;
        self.acked += count;
        if self.progress.is_terminal() {
            self.progress.show(self.acked);
        } else {
            report::say(format_args!("acked {}", self.acked));
        }
        Ok(())
    }

    /// `error`, which kept the records that begin at these lines out.
    fn refused(&self, (first, last): (u64, u64), error: Error) -> Error {
        let message = format!("{} lines {first} to {last} were not imported", self.name);
        Error::new(error.kind(), message).with_source(error)
    }
}
