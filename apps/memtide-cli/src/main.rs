//! The `memtide` program: use, measure and look into a Memtide database from a shell.
//!
//! Standard output carries data and nothing else; everything said to people goes to standard error. The
//! exit code tells what happened (see [`report`]). `args` says what can be asked for, `open` decides which
//! database is meant and how it is configured, `commands` and `exec` do the work, `formats` turn bytes into
//! text and back.

#![expect(
    clippy::disallowed_methods,
    reason = "a program, not the engine: it reads its own files and clocks"
)]

mod args;
mod commands;
mod exec;
mod formats;
mod open;
mod report;

use std::process::ExitCode;

use clap::Parser;

use args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    match commands::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => report::finish(&stop),
    }
}
