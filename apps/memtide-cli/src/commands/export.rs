//! `export`: one keyspace as text that `import` reads.

use std::io::{self, IsTerminal};

use crate::args::{ExportFormat, Global};
use crate::formats::jsonl;
use crate::open::{self, Access};
use crate::report::{self, Outcome, Progress};

/// Rows between two looks of the progress.
const SHOWN_EVERY: u64 = 4096;

/// Exports the keyspace.
pub(crate) fn run(global: &Global, format: ExportFormat) -> Outcome {
    let db = open::database(global, Access::Read)?;
    let keyspace = open::keyspace(&db, global)?;
    // Rows on the same terminal are progress enough.
    let quiet = io::stdout().is_terminal();
    let mut progress = Progress::new("exported");
    let mut output = report::output();
    for (count, row) in (1..).zip(keyspace.iter()) {
        let (key, value) = row?;
        match format {
            ExportFormat::Jsonl => jsonl::write_row(&mut output, &key, Some(&value))?,
        }
        if !quiet && count % SHOWN_EVERY == 0 {
            progress.show(count);
        }
    }
    output.finish()
}
