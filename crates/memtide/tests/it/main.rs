//! What the engine promises, seen from outside.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "test code; random tests print how to repeat them"
)]

mod backups;
mod basics;
mod beside;
mod blobs;
mod budget;
mod checkpoint;
mod commits;
mod corruption;
mod cost;
mod crash;
mod faults;
mod golden;
mod health;
mod hold;
mod hostile;
mod integrity;
mod iterators;
mod kill;
mod model;
mod own_memtable;
mod pace;
mod range_deletes;
mod reopen;
mod rescue;
mod script;
mod strategies;
mod threads;
mod tier;

/// The model that the simulation of the whole engine uses, too.
use memtide_sim::oracle;
