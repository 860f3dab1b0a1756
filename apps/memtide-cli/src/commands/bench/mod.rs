//! `bench memtables`: every memtable alone and below a database on disk, every operation checked.
//!
//! `plan` decides what is measured, `workload` draws keys, values and operations, `measure` runs them. `table`,
//! `json` and `html` say what came out.
//!
//! Databases run with durability `buffered` and everything else as it comes.

mod html;
mod json;
mod measure;
mod plan;
mod table;
mod workload;

use std::fs::{self, File};
use std::path::Path;

use memtide::{Error, ErrorKind};

use self::html::Origin;
use self::measure::{Row, Scratch};
use self::plan::Plan;
use self::workload::Work;
use crate::args::{Global, Memtables};
use crate::report::{self, Outcome, Progress};

/// Runs the comparison and prints it.
pub(crate) fn run(global: &Global, args: &Memtables) -> Outcome {
    if global.json && args.markdown {
        let message = "--json and --markdown exclude each other";
        return Err(Error::new(ErrorKind::InvalidArgument, message).into());
    }
    let plan = Plan::new(args)?;
    if let Some(file) = &args.html {
        // Before minutes of measuring, not after; what is in the file stays until there is better.
        let opened = File::options().append(true).create(true).open(file);
        opened.map_err(|error| Error::io("write", file, error))?;
    }
    let rows = measured(&plan)?;
    if let Some(file) = &args.html {
        let page = html::page(&rows, &Origin { command: command(), machine: machine() });
        fs::write(file, page).map_err(|error| Error::io("write", file, error))?;
    }
    if global.json {
        report::print_json(&json::document(&rows))?;
    } else {
        let style = if args.markdown { table::Style::Markdown } else { table::Style::Text };
        table::print(&rows, plan.is_detailed(), style)?;
    }
    let wrong: Vec<String> = rows.iter().filter_map(complaint).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, wrong.join("; ")).into())
}

fn measured(plan: &Plan) -> memtide::Result<Vec<Row>> {
    let scratch = Scratch::new()?;
    let mut progress = Progress::new("cases measured:");
    let mut rows = Vec::new();
    for (count, &(case, effort)) in (1..).zip(&plan.cases) {
        let work = Work::new(case, &plan.mixes);
        rows.extend(measure::measure(&plan.types, &work, effort, &scratch)?);
        progress.show(count);
    }
    Ok(rows)
}

fn complaint(row: &Row) -> Option<String> {
    let wrong = row.ops_total - row.ops_ok;
    let place = format!("{} at {} entries", row.kind, row.case.entries);
    (wrong > 0).then(|| format!("{wrong} of {} operations of {place} went wrong", row.ops_total))
}

/// The command line, without where the program and the page are.
fn command() -> String {
    let mut words = vec!["memtide".to_string()];
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--html" {
            arguments.next();
        } else if !argument.starts_with("--html=") {
            words.push(argument);
        }
    }
    words.join(" ")
}

/// The machine in a line, as far as the system says.
fn machine() -> String {
    let described = fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let model = described.lines().find_map(|line| {
        let (name, model) = line.split_once(':')?;
        (name.trim() == "model name").then(|| model.trim().to_owned())
    });
    let model = model.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {model}, {}", std::env::consts::OS)
}
