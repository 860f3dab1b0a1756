//! `flush` and `compact`: what the engine does by itself, done now.

use crate::args::Global;
use crate::open::{self, Access};
use crate::report::Outcome;

/// Writes everything in memory to tables.
pub(crate) fn flush(global: &Global) -> Outcome {
    let db = open::database(global, Access::Change)?;
    db.flush()?;
    Ok(db.close()?)
}

/// Compacts until the tree is in shape.
pub(crate) fn compact(global: &Global) -> Outcome {
    let db = open::database(global, Access::Change)?;
    db.compact()?;
    Ok(db.close()?)
}
