//! A checkpoint: one moment of an open database as a database of its own, most of it shared by hard links.
//!
//! Tables and blob files never change, so two directories may share them; where a link cannot be made they are copied.
//! The log is written to, so it is always copied. The lock belongs to a directory, so the copy gets its own.

use std::path::Path;

use memtide_base::Result;

use crate::capture::{Capture, capture};
use crate::engine::Engine;
use crate::files::{self, SharedFile};
use crate::new_copy::{NewCopy, Original};

/// Makes a database of this moment in `to`.
pub(crate) fn checkpoint(engine: &Engine, to: &Path) -> Result<()> {
    // Closing waits for this.
    let open = engine.closing.lock();
    let made = capture(engine).and_then(|captured| {
        let state = captured.state.clone();
        NewCopy::make(&engine.env, to, engine.layout.root(), state, |new| {
            fill(engine, &captured, new)
        })
    });
    drop(open);
    // What was dropped meanwhile was kept for this.
    engine.bury();
    made
}

fn fill(engine: &Engine, captured: &Capture, new: &NewCopy<'_>) -> Result<()> {
    for segment in &captured.segments {
        let name = files::wal_name(segment.base);
        let (file, bytes) = (&*segment.file, segment.bytes);
        let from = Original { file, name: &name, bytes, checksum: None };
        new.copy_segment(segment.base, &from)?;
    }
    new.make_table_dirs(&captured.state)?;
    for (shared, bytes, checksum) in captured.state.shared_files() {
        link_or_copy(engine, new, shared, bytes, checksum)?;
    }
    Ok(())
}

fn link_or_copy(
    engine: &Engine,
    new: &NewCopy<'_>,
    shared: SharedFile,
    bytes: u64,
    checksum: u128,
) -> Result<()> {
    if new.link(&engine.layout, shared) {
        return Ok(());
    }
    let name = shared.name();
    let file = engine.layout.open_read(&*engine.env.vfs, &name)?;
    let from = Original { file: &*file, name: &name, bytes, checksum: Some(checksum) };
    new.copy_shared(shared, &from)
}
