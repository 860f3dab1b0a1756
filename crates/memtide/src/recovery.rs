//! Opening: `CURRENT` → manifest → version; log segments → memtables; then a new manifest, a new segment.
//!
//! # Order
//! lock → read `CURRENT` and the manifest → every memtable is known → every table and blob file named is there with
//! its size → log segments synced → new manifest current (its file numbers lie above everything seen) → segments
//! replayed, flushing where the budget demands → new segment durable → manifest says so → leftovers removed.
//!
//! A crash anywhere in this leaves a database that opens to the same contents. Old segments are never
//! written to, except that the newest gets its own bytes again if the database was not closed. A read-only
//! open stops before the first write and replays into memory.
//!
//! # Torn or damaged
//! The end of the last segment may be torn: what was not synced when the power went. Anything else that
//! does not read back is damage: it is reported with file and offset, and the database does not open.

mod bulk;
mod directory;
mod segments;

use std::path::{Path, PathBuf};

use memtide_base::sync::atomic::AtomicBool;
use memtide_base::sync::{Arc, Mutex, RwLock};
use memtide_base::{Error, ErrorKind, Kind, Result, SeqNo, hash};
use memtide_env::vfs::{FileLock, LockMode};
use memtide_env::{Env, Event, Vfs};
use memtide_memtable::{Anchor, BatchShape, Full, Memtable, MemtableOptions, Registry};
use memtide_storage::budget::Budget;
use memtide_storage::log::{BatchOp, BatchOps, LogReader, Record, RecordKind};

use bulk::Bulk;
use directory::{FoundFiles, list_if_there, number_above_all, remove_orphans};
use segments::SegmentInfo;
pub(crate) use segments::open_segments;

use crate::commit_queue::CommitQueue;
use crate::config::{Config, DEFAULT_KEYSPACE, KeyspaceOptions, Settings};
use crate::damage::Damages;
use crate::durable::Durable;
use crate::engine::{Engine, Keyspaces, Tally};
use crate::files::{self, BLOB_DIR, LOCK, Layout, RESERVE, TABLE_DIR, WAL_DIR};
use crate::flush;
use crate::health::Vitals;
use crate::hold::Hold;
use crate::keyspace_state::{KeyspaceState, RUNS_MAX};
use crate::pace::Pace;
use crate::reserve::{self, Reserve};
use crate::scrubs::Scrubs;
use crate::sealed_merge;
use crate::snapshots::Snapshots;
use crate::table_store::TableStore;
use crate::threads::Threads;
use crate::version::{self, Change, Edit, Graveyard, Manifest, ManifestState};
use crate::wal::{self, Log, Segment};
use crate::write;

/// Segments that may wait for replay at the next open; more are flushed first.
const SEGMENTS_MAX: usize = 4;
const PAGE: u64 = 4096;

/// What opening a database found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether the database was created by this open.
    pub created: bool,
    /// Log segments that were read.
    pub wal_segments: u64,
    /// Batches that were replayed.
    pub records: u64,
    /// Writes that were replayed into memtables.
    pub replayed_entries: u64,
    /// Bytes behind the end of the log that were no whole record: writes that were never acknowledged as
    /// durable.
    pub torn_bytes: u64,
    /// The number below which every logged write was recovered.
    pub recovered_to: SeqNo,
    /// Files that belonged to nothing and were removed.
    pub orphans: Vec<PathBuf>,
}

/// How to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenMode {
    /// Read and write; create a database where none is.
    Create,
    /// Read and write an existing database.
    Existing,
    /// Write nothing at all.
    ReadOnly,
}

/// Opens the database in `root`.
pub(crate) fn open(
    env: &Env,
    root: &Path,
    config: &Config,
    registry: &Registry,
    mode: OpenMode,
) -> Result<(Arc<Engine>, RecoveryReport)> {
    let settings = config.resolve(registry)?;
    let layout = Layout::new(root);
    let created = match mode {
        OpenMode::Create => create_root(&*env.vfs, root)?,
        OpenMode::Existing | OpenMode::ReadOnly => Vec::new(),
    };
    let lock = take_lock(&*env.vfs, &layout, mode)?;
    let mut report = RecoveryReport::default();
    let graveyard = Arc::new(Graveyard::default());
    let before = version::read_current(&*env.vfs, &layout)?;
    let mut state = match before {
        Some(number) => version::load(&*env.vfs, &layout, number, &graveyard)?.0,
        None if mode == OpenMode::Create => {
            report.created = true;
            sync_parents(&*env.vfs, root, &created)?;
            create_state(env, &layout, &settings, config, &graveyard)?
        }
        None => return Err(no_database(root)),
    };
    check_memtables(&state, config, &settings, registry)?;
    if let Some(lock) = lock.as_deref().filter(|_| mode != OpenMode::ReadOnly) {
        // For people who look into the file; who holds the lock is the kernel's to know.
        let _ = lock.describe(&format!("memtide pid {}\n", std::process::id()));
    }
    if let Some(lock) = lock {
        layout.hold(lock);
    }
    let found_files = FoundFiles::list(&*env.vfs, &layout)?;
    found_files.check(&state)?;
    let segments = open_segments(env, &layout, &state, mode)?;
    state.next_file = number_above_all(&*env.vfs, &layout, &found_files, state.next_file)?;
    let has_reserve = keep_reserve(&*env.vfs, &layout, &settings, mode);
    let manifest = match mode {
        OpenMode::ReadOnly => None,
        _ => Some(Manifest::create(env, &layout, state.clone())?),
    };
    let parts = Parts { env, layout, config, registry, settings, graveyard, has_reserve };
    let engine = Arc::new(parts.engine(&state, manifest));
    engine.ledger.suspend(true);
    let end = replay(&engine, &state, segments.readers, &mut report)?;
    if mode == OpenMode::ReadOnly {
        // No job will do it.
        for keyspace in engine.all_keyspaces() {
            sealed_merge::settle(&engine, &keyspace)?;
        }
        return Ok((engine, report));
    }
    engine.ledger.suspend(false);
    start_log(&engine, &state, &segments.older, end)?;
    settle_unlogged(&engine, &state)?;
    store_options(&engine)?;
    if let Some(before) = before {
        let name = files::manifest_name(before);
        engine.layout.discard(&*env.vfs, &name);
    }
    report.orphans = remove_orphans(&engine, found_files)?;
    if engine.commit.lock().as_ref().is_some_and(|log| log.older.len() > SEGMENTS_MAX) {
        match flush::flush_all(&engine) {
            // The log has it all; it is flushed once there is space.
            Err(error) if error.kind() == ErrorKind::NoSpace => {}
            flushed => flushed?,
        }
    }
    Ok((engine, report))
}

/// Whether the reserve is there. On a device with less free than that it is given up: the open itself needs space.
fn keep_reserve(vfs: &dyn Vfs, layout: &Layout, settings: &Settings, mode: OpenMode) -> bool {
    let (path, bytes) = (layout.at(RESERVE), reserve::size_for(settings.max_memtable_size));
    let is_held = vfs.open_read(&path).and_then(|file| file.len()).is_ok_and(|len| len == bytes);
    let is_scarce = || vfs.space(layout.root()).is_ok_and(|space| space.free < bytes);
    if is_held && mode != OpenMode::ReadOnly && is_scarce() {
        return vfs.remove(&path).is_err();
    }
    is_held
}

pub(crate) fn no_database(root: &Path) -> Error {
    let what = format!("there is no database in {}", root.display());
    Error::new(ErrorKind::Unsupported, what).with_file(root)
}

/// Creates the directory, and those above it; returns those that were missing.
pub(crate) fn create_root<'p>(vfs: &dyn Vfs, root: &'p Path) -> Result<Vec<&'p Path>> {
    let missing: Vec<_> = root
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && vfs.list(dir).is_err())
        .collect();
    for dir in missing.iter().rev() {
        vfs.create_dir(dir).map_err(|error| Error::io("create the directory", dir, error))?;
    }
    Ok(missing)
}

/// Makes the directory of a new database durable with all above it: an open that failed or was killed may
/// have created any of them. Those that are not our doing need not let themselves be synced.
pub(crate) fn sync_parents(vfs: &dyn Vfs, root: &Path, created: &[&Path]) -> Result<()> {
    for dir in root.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        let Some(parent) = dir.parent() else { break };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match vfs.sync_dir(parent) {
            // A directory that was there before may lie in one that is not ours to read.
            Err(error)
                if created.contains(&dir)
                    || (dir == root && error.kind() != std::io::ErrorKind::PermissionDenied) =>
            {
                return Err(Error::io("sync the directory", parent, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Takes the lock that `mode` asks for; `None` if a read-only directory has no file to lock.
pub(crate) fn take_lock(
    vfs: &dyn Vfs,
    layout: &Layout,
    mode: OpenMode,
) -> Result<Option<Box<dyn FileLock>>> {
    let how = if mode == OpenMode::ReadOnly { LockMode::Shared } else { LockMode::Exclusive };
    if mode != OpenMode::Create && vfs.list(layout.root()).is_err() {
        return Err(no_database(layout.root()));
    }
    match vfs.lock(&layout.at(LOCK), how) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            let what = format!("{} is open in another process or handle", layout.root().display());
            Err(Error::new(ErrorKind::Locked, what).with_file(LOCK).with_hint("close it first"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("lock", LOCK, error)),
    }
}

/// The state of a new database. Its directories are durable; its manifest is written by the caller.
fn create_state(
    env: &Env,
    layout: &Layout,
    settings: &Settings,
    config: &Config,
    graveyard: &Arc<Graveyard>,
) -> Result<ManifestState> {
    for dir in [WAL_DIR, TABLE_DIR] {
        let path = layout.at(dir);
        env.vfs.create_dir(&path).map_err(|error| Error::io("create the directory", dir, error))?;
    }
    for dir in [WAL_DIR, TABLE_DIR, BLOB_DIR] {
        let found = list_if_there(&*env.vfs, layout, dir)?;
        if let Some(entry) = found.first() {
            let what = format!(
                "{} has no CURRENT but holds {}",
                layout.root().display(),
                Path::new(dir).join(&entry.name).display()
            );
            return Err(Error::corruption("database", files::CURRENT, 0, what)
                .with_hint("restore CURRENT, or move the files away to create a new database"));
        }
    }
    layout.sync_dir(&*env.vfs, "")?;
    let mut state = ManifestState::new(env.random.uuid(), env.random.next_u64(), graveyard);
    let options = config.keyspace_options(settings, DEFAULT_KEYSPACE, None);
    let name = DEFAULT_KEYSPACE.to_owned();
    let changes = Change::new_keyspace(0, name, options);
    state.apply(&Edit::new(changes)).map_err(Error::internal)?;
    Ok(state)
}

/// The memtable of every keyspace is one of the eight or registered. Nothing was written before this.
///
/// # Errors
/// `Unsupported`, with [`UnknownMemtable`](memtide_memtable::UnknownMemtable) as its cause.
fn check_memtables(
    state: &ManifestState,
    config: &Config,
    settings: &Settings,
    registry: &Registry,
) -> Result<()> {
    for stored in &state.keyspaces {
        let name = &stored.name;
        let options = config.keyspace_options(settings, name, Some(&stored.options));
        if let Err(unknown) = registry.kind_of(&options.memtable_type) {
            let what = format!(
                "keyspace {name:?} has the memtable {:?}, which is not registered",
                unknown.name()
            );
            return Err(Error::new(ErrorKind::Unsupported, what).with_source(unknown).with_hint(
                "register it before opening, or name another memtable_type for the keyspace",
            ));
        }
    }
    Ok(())
}

/// What an engine is put together from.
struct Parts<'a> {
    env: &'a Env,
    layout: Layout,
    config: &'a Config,
    registry: &'a Registry,
    settings: Settings,
    graveyard: Arc<Graveyard>,
    has_reserve: bool,
}

impl Parts<'_> {
    fn engine(self, state: &ManifestState, manifest: Option<Manifest>) -> Engine {
        let settings = self.settings;
        let (size, cache_size) = (settings.memory_budget, settings.cache_size);
        let budget = Budget::new(size, cache_size, self.env.heap);
        let ledger = Arc::clone(&budget.ledger);
        let tables = TableStore::new(
            Arc::clone(&self.env.vfs),
            self.layout.clone(),
            state.uuid,
            state.hash_seed,
            Arc::clone(&budget),
        );
        let mut keyspaces = Keyspaces::default();
        for stored in &state.keyspaces {
            let (id, name) = (stored.id, &stored.name);
            let mut options = self.config.keyspace_options(&settings, name, Some(&stored.options));
            // One that leaves the log counts as logged until `settle_unlogged` is done.
            options.logged |= stored.options.logged;
            let kind = self.registry.kind_of(&options.memtable_type);
            let active = Memtable::new(&MemtableOptions {
                kind: kind.expect("`check_memtables` looked all of them up"),
                bytes_max: options.max_memtable_size,
                hash_seed: state.hash_seed,
                key_filter: true,
                anchor: Anchor::default(),
                ledger: Arc::clone(&ledger),
            });
            let version = Arc::clone(&stored.version);
            let keyspace = KeyspaceState::new(id, name.clone(), options, active, version);
            keyspaces.add(Arc::new(keyspace));
        }
        let reserve = Reserve::new(settings.max_memtable_size, self.has_reserve);
        let health = match manifest {
            Some(_) => Vitals::healthy(),
            None => Vitals::opened_read_only(),
        };
        let threads = settings.compaction_threads.unwrap_or_else(|| {
            Threads::default_for(self.env.executor.parallelism(), settings.memory_budget)
        });
        Engine {
            env: self.env.clone(),
            layout: self.layout,
            config: self.config.clone(),
            registry: self.registry.clone(),
            settings,
            uuid: state.uuid,
            hash_seed: state.hash_seed,
            ledger,
            budget,
            tables: Arc::new(tables),
            graveyard: self.graveyard,
            has_blob_dir: AtomicBool::new(false),
            keyspaces: RwLock::new(keyspaces),
            manifest: Mutex::new(manifest),
            commit: Mutex::new(None),
            commit_queue: CommitQueue::default(),
            pace: Pace::default(),
            sync: Mutex::new(()),
            durable: Durable::default(),
            snapshots: Snapshots::default(),
            health,
            reserve,
            mending: Mutex::new(()),
            hold: Hold::default(),
            threads: Threads::new(threads),
            freed: Event::new(),
            flush_work: AtomicBool::new(false),
            merge_work: AtomicBool::new(false),
            flush_failure: Mutex::new(None),
            compaction_failure: Mutex::new(None),
            scrubs: Scrubs::default(),
            damages: Damages::default(),
            closed: AtomicBool::new(false),
            tally: Tally::default(),
            jobs: Mutex::default(),
            closing: Mutex::new(()),
        }
    }
}

/// Replays all segments; returns the LSN behind the last record, 0 if there is no segment.
fn replay(
    engine: &Engine,
    state: &ManifestState,
    readers: Vec<(LogReader, u64)>,
    report: &mut RecoveryReport,
) -> Result<SeqNo> {
    let (mut end, mut bulk) = (0, Bulk::new(engine));
    for (mut reader, _) in readers {
        let name = files::wal_name(reader.header().base);
        report.wal_segments += 1;
        while let Some(record) = reader.next()? {
            if record.kind == RecordKind::Batch {
                report.records += 1;
                report.replayed_entries += replay_batch(&mut bulk, engine, state, &record, &name)?;
            }
            engine.snapshots.publish(record.end_lsn);
        }
        if let Some(reached) = reader.end() {
            report.torn_bytes = reached.torn_bytes;
            end = reached.lsn;
        }
    }
    bulk.finish()?;
    // After a resume tables hold all below the start of the log, whatever became of the segments there.
    report.recovered_to = end.max(state.wal_start);
    // What was opened to be read was not synced: of it only what was closed is known to be on the device.
    let is_writer = engine.manifest.lock().is_some();
    engine.durable.reach(if is_writer { end } else { state.closed.map_or(0, |closed| closed.end) });
    let tables_end = engine
        .all_keyspaces()
        .iter()
        .flat_map(|keyspace| {
            keyspace.current().version.tables().map(|table| table.seq_max + 1).collect::<Vec<_>>()
        })
        .max();
    engine.snapshots.publish(end.max(tables_end.unwrap_or_default()));
    Ok(end)
}

/// Applies what tables do not hold yet; returns how many writes that were.
fn replay_batch(
    bulk: &mut Bulk<'_>,
    engine: &Engine,
    state: &ManifestState,
    record: &Record<'_>,
    name: &Path,
) -> Result<u64> {
    let damaged = |detail: String| {
        let offset = record.lsn;
        Error::corruption("batch", name, offset, detail)
    };
    let mut applied = 0;
    let ops = BatchOps::new(record.payload, record.count);
    for (op, seq) in ops.zip(record.lsn..) {
        let op = op.map_err(|damage| damage.in_record(name, record.lsn))?;
        let keyspace = engine.keyspaces.read().get(op.keyspace).cloned();
        let keyspace =
            keyspace.ok_or_else(|| damaged(format!("there is no keyspace {}", op.keyspace)))?;
        if cfg!(plant = "batch_replayed_in_part") && seq > record.lsn + 1 {
            break;
        }
        if seq >= state.keyspace(op.keyspace).flushed_to {
            bulk.add(&keyspace, &op, seq)?;
            applied += 1;
        }
    }
    Ok(applied)
}

/// Inserts one write, whatever room it needs: replay is never refused by size.
fn replay_op(
    engine: &Engine,
    keyspace: &Arc<KeyspaceState>,
    op: &BatchOp<'_>,
    seq: SeqNo,
) -> Result<()> {
    let hash = hash::key_hash(engine.hash_seed, op.key);
    if !keyspace.current().active.reaches(seq) {
        write::rotate_anyway(engine, keyspace, None);
    }
    loop {
        let table = Arc::clone(&keyspace.current().active);
        let mut shape = BatchShape::default();
        table.measure(&mut shape, op.kind, hash, op.key, op.value);
        match table.reserve(&shape) {
            Ok(mut room) if op.kind == Kind::RangeDelete => {
                room.delete_range(op.key, op.value, seq);
                return Ok(());
            }
            Ok(mut room) => {
                room.insert(op.kind, hash, op.key, op.value, seq);
                return Ok(());
            }
            Err(Full::Table { bytes_max }) => {
                write::rotate_anyway(engine, keyspace, Some(bytes_max));
            }
            Err(full @ (Full::Budget | Full::System)) => return Err(refused(&full)),
        }
    }
}

fn refused(full: &Full) -> Error {
    Error::new(ErrorKind::Busy, full.to_string())
}

/// Whether so much is in memory that only a flush makes it less, and a flush may be.
fn must_flush(engine: &Engine, keyspace: &KeyspaceState) -> bool {
    let crowded = keyspace.current().sealed.len() + 1 >= RUNS_MAX;
    let full = engine.memtable_bytes() > engine.memtable_share() / 2;
    (crowded || full) && engine.manifest.lock().is_some()
}

/// Merges what is sealed if there is too much of it, and flushes everything if it still is too much. Opened
/// read-only, it stays.
fn relieve(engine: &Engine, keyspace: &KeyspaceState) -> Result<()> {
    sealed_merge::merge(engine, keyspace, RUNS_MAX - 2, u64::MAX)?;
    if must_flush(engine, keyspace) {
        for keyspace in engine.all_keyspaces() {
            flush::flush(engine, &keyspace)?;
        }
    }
    Ok(())
}

/// Creates the segment that new writes go to, above every number that was ever handed out.
fn start_log(
    engine: &Engine,
    state: &ManifestState,
    older: &[SegmentInfo],
    end: SeqNo,
) -> Result<()> {
    let last = older.last().map(|segment| &segment.header);
    let reused = cfg!(plant = "numbers_used_again");
    let last_header = last.filter(|_| !reused);
    let span_end = last_header.map_or(0, |header| header.base + header.segment_bytes);
    let base = span_end
        .max(engine.snapshots.visible())
        .max(state.seq_high)
        .max(end)
        // Never 0, so that `seq_high` tells whether a first segment was ever complete.
        .max(PAGE)
        .next_multiple_of(PAGE);
    let bytes = wal::segment_bytes(engine.settings.wal_segment_size, None, 0);
    let previous = last.map(|header| (header.salt, end));
    let (env, layout, settings) = (&engine.env, &engine.layout, &engine.settings);
    let writer = wal::create_segment(env, layout, engine.uuid, settings, base, bytes, previous)?;
    let segments = older.iter().enumerate().map(|(at, segment)| Segment {
        base: segment.header.base,
        end: older.get(at + 1).map_or(end, |next| next.header.prev_end),
        bytes: segment.bytes,
    });
    let log = Log::new(writer, segments.collect());
    let position = log.position();
    *engine.commit.lock() = Some(log);
    engine.snapshots.publish(position);
    engine.durable.reach(position);
    // Without memtables nothing holds the log, and no flush will say so.
    let mut wal_start = flush::wal_start(engine, &[]);
    {
        let mut manifest = engine.manifest.lock();
        let manifest = manifest.as_mut().expect("opened for writing");
        wal_start = wal_start.max(manifest.state().wal_start);
        let start = Change::WalStart { lsn: wal_start };
        manifest.append(Edit::new(vec![Change::SeqHigh { seq: base }, start]))?;
    }
    write::release(engine, wal_start);
    Ok(())
}

/// What was logged and is no longer goes to tables now: the log will not be kept for it. It is kept until all of it
/// is there.
fn settle_unlogged(engine: &Engine, state: &ManifestState) -> Result<()> {
    let leaves = |keyspace: &Arc<KeyspaceState>| {
        let stored = &state.keyspace(keyspace.id).options;
        let named = engine.config.keyspace_options(&engine.settings, &keyspace.name, Some(stored));
        stored.logged && !named.logged
    };
    let leaving: Vec<_> = engine.all_keyspaces().into_iter().filter(leaves).collect();
    for keyspace in &leaving {
        while !flush::seal_active(engine, keyspace) {
            flush::flush(engine, keyspace)?;
        }
        flush::flush(engine, keyspace)?;
    }
    for keyspace in &leaving {
        keyspace.set_options(KeyspaceOptions { logged: false, ..keyspace.options() });
    }
    Ok(())
}

/// Options that the configuration named stay with their keyspaces.
fn store_options(engine: &Engine) -> Result<()> {
    let mut manifest = engine.manifest.lock();
    let manifest = manifest.as_mut().expect("opened for writing");
    let changed: Vec<_> = engine
        .all_keyspaces()
        .iter()
        .flat_map(|keyspace| manifest.state().option_changes(keyspace.id, &keyspace.options()))
        .collect();
    if !changed.is_empty() {
        manifest.append(Edit::new(changed))?;
    }
    Ok(())
}
