//! The whole engine in one thread from one seed: clients, background jobs, faults and crashes, step by step, beside a
//! model of what the database must show.
//!
//! ```text
//! seed ──draw──> Case: configuration, operations ──world──> Outcome: figures, trace, or a Failure
//!                  │        ▲                                              │
//!                  └─text───┘ tests/regress/*.memtide-sim <──shrink────────┘
//! ```
//!
//! A [`Case`] says everything that happens, so that a part of it is a case again: what fails is cut down to the
//! operations that it needs. [`oracle`] is the model, which the engine's own tests use too.

#![expect(clippy::print_stdout, reason = "random tests say how to repeat them")]

mod case;
mod draw;
mod exhaustive;
mod figures;
mod history;
pub mod oracle;
mod shrink;
mod text;
mod wire;
mod world;

pub use case::{Case, Ending, FaultRule, FileKind, Op, Target};
pub use draw::{Faults, Focus, draw};
pub use exhaustive::{Extent, exhaustive};
pub use figures::{Figures, SOMETIMES};
pub use shrink::shrink;
pub use world::{Failure, Outcome, run};
