//! The commands, one file for each family. Reading commands open the database read-only; writing ones
//! close it before they report success, so what they acknowledge is on the device.

mod backup;
mod bench;
mod config;
mod data;
mod diff;
mod doctor;
mod dump;
mod export;
mod import;
mod rescue;
mod stats;
mod upkeep;
mod verify;

use crate::args::{Args, Bench, Command};
use crate::exec;
use crate::report::Outcome;

/// Does what was asked.
pub(crate) fn run(args: &Args) -> Outcome {
    let global = &args.global;
    match &args.command {
        Command::Put { key, value } => data::put(global, key, value),
        Command::Get { key } => data::get(global, key),
        Command::Del { key } => data::del(global, key),
        Command::Scan(scan) => data::scan(global, scan),
        Command::Import(import) => import::run(global, import),
        Command::Export { format } => export::run(global, *format),
        Command::Stats => stats::run(global),
        Command::Flush => upkeep::flush(global),
        Command::Compact => upkeep::compact(global),
        Command::Verify(verify) => verify::run(global, verify),
        Command::Checkpoint { to } => backup::checkpoint(global, to),
        Command::Backup(what) => backup::run(global, what),
        Command::Doctor => doctor::run(global),
        Command::Dump(dump) => dump::run(global, dump),
        Command::Repair(repair) => rescue::repair(global, repair),
        Command::Salvage { to } => rescue::salvage(global, to),
        Command::Diff(diff) => diff::run(global, diff),
        Command::Config(config) => config::run(global, config),
        Command::Bench(Bench::Memtables(memtables)) => bench::run(global, memtables),
        Command::Exec(exec) => exec::run(global, exec),
    }
}
