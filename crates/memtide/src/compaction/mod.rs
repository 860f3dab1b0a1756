//! Compaction: tables are merged into deeper levels, so that reads look into few places and what is
//! deleted or overwritten gives its space back.
//!
//! Deciding and doing are apart: a strategy is a pure function of a version that gives a plan, [`run`] does the I/O.

mod leveled;
mod plan;
mod run;

pub(crate) use leveled::{Shape, everything, plan};
pub(crate) use run::run;
