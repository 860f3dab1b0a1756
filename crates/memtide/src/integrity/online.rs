//! Looks at all of an open database, beside its writers.
//!
//! Tables and blob files are those of one version per keyspace, which keeps them; of manifest and log, what is durable
//! when it begins. Nothing but the manifest is locked while it is read. A reader that is too fast waits as a
//! compaction does; closing the database ends it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use memtide_base::sync::Arc;
use memtide_base::{Error, Result};
use memtide_env::ReadFile;
use memtide_storage::log::{HEADER_LEN, LogReader, Opened};

use super::check::{self, Look};
use super::{Depth, VerifyOptions, VerifyReport};
use crate::engine::Engine;
use crate::files;
use crate::hold::Hold;
use crate::version::{self, Graveyard, Version};

/// Bytes after which a reader looks whether it is too fast.
const STRIDE: u64 = 64 << 10;

/// Verifies an open database. Damage is told to the engine too.
///
/// # Errors
/// The database was closed.
pub(crate) fn verify(engine: &Arc<Engine>, options: VerifyOptions) -> Result<VerifyReport> {
    let walk = Walk::new(engine, options.depth, options.bytes_per_second);
    let mut report = VerifyReport::default();
    walk.manifest(&mut report)?;
    walk.log(&mut report)?;
    for keyspace in engine.all_keyspaces() {
        let version = Arc::clone(&keyspace.current().version);
        walk.version(&version, &mut report)?;
    }
    walk.tell(&report)?;
    Ok(report)
}

/// A walk over files of an open database.
pub(super) struct Walk {
    engine: Arc<Engine>,
    depth: Depth,
    pacer: Option<Arc<Pacer>>,
}

impl Walk {
    pub(super) fn new(engine: &Arc<Engine>, depth: Depth, rate: Option<u64>) -> Self {
        let pacer = rate.map(|rate| {
            Arc::new(Pacer { engine: Arc::clone(engine), rate, hold: Hold::default() })
        });
        Self { engine: Arc::clone(engine), depth, pacer }
    }

    /// The engine is told of all damage.
    ///
    /// # Errors
    /// The database was closed: what looks like damage may be that.
    pub(super) fn tell(&self, report: &VerifyReport) -> Result<()> {
        self.engine.check_open()?;
        report.damages.iter().for_each(|damage| self.engine.damaged(damage.clone()));
        Ok(())
    }

    pub(super) fn version(&self, version: &Version, report: &mut VerifyReport) -> Result<()> {
        let engine = &self.engine;
        self.with_look(|look| look.keyspace(version, report, &|| engine.check_open()))
    }

    fn with_look<T>(&self, look: impl FnOnce(&Look<'_>) -> T) -> T {
        let engine = &self.engine;
        look(&Look {
            vfs: &*engine.env.vfs,
            layout: &engine.layout,
            db_uuid: engine.uuid,
            depth: self.depth,
            shared: engine.tables.shared(),
            found_as: &|name| name.to_path_buf(),
            through: &|file| self.through(file),
        })
    }

    /// The table or blob file with this number, if it still is part of the database.
    pub(super) fn file(&self, number: u64, report: &mut VerifyReport) -> Result<()> {
        for keyspace in self.engine.all_keyspaces() {
            let version = Arc::clone(&keyspace.current().version);
            self.with_look(|look| {
                if let Some(meta) = version.blob(number) {
                    report.take(meta.summary.size, look.blob(meta).and_then(|(_, found)| found));
                }
                if let Some(meta) = version.tables().find(|table| table.number == number) {
                    // Blob files are looked at by themselves.
                    let blobs = BTreeMap::new();
                    let looked = look.table(meta).and_then(|t| look.handles(&version, &blobs, &t));
                    report.take(meta.size, looked);
                }
            });
        }
        self.engine.check_open()
    }

    /// The manifest as it is now.
    pub(super) fn manifest(&self, report: &mut VerifyReport) -> Result<()> {
        let engine = &self.engine;
        let (vfs, layout) = (&*engine.env.vfs, &engine.layout);
        let graveyard = Arc::new(Graveyard::default());
        // A manifest that is being written to is read under its lock: it is small, and an edit half there is none.
        let guard = engine.manifest.lock();
        engine.check_open()?;
        let bytes = guard.as_ref().map_or(0, version::Manifest::bytes);
        let read = version::read_current(vfs, layout).and_then(|number| match number {
            Some(number) => version::load(vfs, layout, number, &graveyard).map(drop),
            None => {
                Err(Error::corruption("name of the manifest", files::CURRENT, 0, "it is missing"))
            }
        });
        drop(guard);
        report.files += 1;
        report.take(bytes, read);
        Ok(())
    }

    /// The log up to what is durable.
    pub(super) fn log(&self, report: &mut VerifyReport) -> Result<()> {
        let engine = &self.engine;
        let segments: Vec<(u64, u64)> = {
            let commit = engine.commit.lock();
            let Some(log) = commit.as_ref() else { return Ok(()) };
            let older = log.older.iter().map(|segment| (segment.base, segment.end));
            let durable = engine.durable_seq();
            older.chain([(log.writer.header().base, durable.min(log.position()))]).collect()
        };
        for (base, end) in segments {
            engine.check_open()?;
            let name = files::wal_name(base);
            let read = self.segment(&name, base, end);
            engine.check_open()?;
            let is_there = || {
                let commit = engine.commit.lock();
                commit.as_ref().is_some_and(|log| {
                    let mut older = log.older.iter();
                    log.writer.header().base == base || older.any(|segment| segment.base == base)
                })
            };
            // One that was released meanwhile is nobody's loss.
            if read.is_ok() || is_there() {
                report.take(end.saturating_sub(base), read);
            }
        }
        Ok(())
    }

    fn segment(&self, name: &Path, base: u64, end: u64) -> Result<()> {
        let engine = &self.engine;
        let file = engine.layout.open_read(&*engine.env.vfs, name)?;
        match LogReader::of_file(self.through(file), name)? {
            Opened::Torn { .. } => {
                let detail = "its header does not read back";
                Err(Error::corruption("log header", name, 0, detail))
            }
            Opened::Log(mut reader) if self.depth == Depth::Full => {
                if end > base + HEADER_LEN {
                    reader.expect_durable(end);
                }
                check::segment(&mut reader, &|id| engine.keyspaces.read().get(id).is_some())
            }
            Opened::Log(_) => Ok(()),
        }
    }

    fn through(&self, file: Arc<dyn ReadFile>) -> Arc<dyn ReadFile> {
        match &self.pacer {
            Some(pacer) => Arc::new(Paced { file, pacer: Arc::clone(pacer) }),
            None => file,
        }
    }
}

/// A rate that all files of a walk share.
#[derive(Debug)]
struct Pacer {
    engine: Arc<Engine>,
    rate: u64,
    hold: Hold,
}

impl Pacer {
    /// Waits until `bytes` more may have been read.
    fn keep(&self, bytes: u64) -> Result<()> {
        let engine = &self.engine;
        let even = self.hold.even_after(engine.env.clock.now(), bytes, self.rate);
        loop {
            // Who closes notifies after saying so, so this wait does not miss it.
            let seen = engine.freed.count();
            engine.check_open()?;
            let now = engine.env.clock.now();
            if now >= even {
                return Ok(());
            }
            engine.env.executor.wait(&engine.freed, seen, Some(even - now));
        }
    }
}

/// A file that is read no faster than its walk may.
#[derive(Debug)]
struct Paced {
    file: Arc<dyn ReadFile>,
    pacer: Arc<Pacer>,
}

impl ReadFile for Paced {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut at = 0;
        for piece in buf.chunks_mut(usize::try_from(STRIDE).unwrap_or(usize::MAX)) {
            self.pacer.keep(piece.len() as u64).map_err(io::Error::other)?;
            self.file.read_exact_at(piece, offset + at)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
