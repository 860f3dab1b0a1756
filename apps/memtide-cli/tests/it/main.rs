//! The program as a user meets it: arguments in, output, messages and exit codes out.

#![expect(clippy::disallowed_methods, reason = "tests drive the program and look at its files")]

mod backup;
mod bench;
mod config;
mod data;
mod exec;
mod exit_codes;
mod import;
mod integrity;
mod program;
