//! Resuming: the log and the manifest take writes again after one of them failed, and puts are taken again once there
//! is space.
//!
//! # Order (each step durable before the next)
//! new manifest with the state before the edit that failed → if the log failed: every logged memtable in tables → one
//! edit for all keyspaces, which says that the log begins behind the failed segment → new segment → failed segment
//! removed → writes go on.
//!
//! What failed is never written to or synced again, and is trusted by nobody. After a crash between any two steps each
//! batch is whole, and of those that were not durable some first ones are there; behind the edit all that were visible.
//! docs/design/0019-health-states.md has the steps one by one.

use std::time::Duration;

use memtide_base::sync::atomic::Ordering;
use memtide_base::sync::{Arc, Weak};
use memtide_base::{Error, ErrorKind, Result, SeqNo};
use memtide_env::{Job, Step};

use crate::engine::Engine;
use crate::files::SharedFile;
use crate::flush::write_tables;
use crate::health::Broken;
use crate::keyspace_state::{Claim, KeyspaceState};
use crate::version::{Change, Edit};
use crate::write;

/// Time between two looks at what is free while there is no space.
const SPACE_POLL: Duration = Duration::from_secs(1);
/// The same where the device says that there is space and writes find none: quotas are like that.
const SPACE_POLL_MAX: Duration = Duration::from_secs(4);
/// Time between two attempts to resume, and what it grows to by doubling.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long after opening the reserve is written: short programs need none.
const RESERVE_DELAY: Duration = Duration::from_secs(1);
/// Time until the reserve is tried again where there was no space for it.
const RESERVE_RETRY: Duration = Duration::from_secs(60);

/// Has the database take writes again, now; nothing if it does.
///
/// # Errors
/// What it failed at; it takes no writes still, and this may be tried again. It cannot be resumed: it was opened
/// read-only, or something broke that only opening it again mends.
pub(crate) fn resume(engine: &Engine) -> Result<()> {
    let _mending = engine.mending.lock();
    // Closing waits for that lock: what did not begin before must not begin at all.
    engine.check_open()?;
    match engine.health.broken() {
        None if engine.health.is_full() => return refill(engine),
        None => return Ok(()),
        Some(Broken::OpenedReadOnly | Broken::ForGood) => return engine.health.check_running(),
        Some(Broken::Space) => {
            engine.reserve.release(&*engine.env.vfs, &engine.layout);
        }
        Some(Broken::Device) => {}
    }
    mend(engine).inspect_err(|error| {
        if matches!(error.kind(), ErrorKind::Internal | ErrorKind::Corruption) {
            engine.fail(&Error::internal(format!("could not resume: {error:?}")));
        }
    })?;
    engine.date_health();
    go_on(engine);
    Ok(())
}

/// Takes puts again if there is space for them.
fn refill(engine: &Engine) -> Result<()> {
    if engine.free_space().is_some_and(|free| free < engine.space_needed()) {
        return engine.health.check_writable();
    }
    while !engine.reserve.build_some(&engine.env, &engine.layout)? {}
    engine.health.drain();
    engine.date_health();
    go_on(engine);
    Ok(())
}

fn mend(engine: &Engine) -> Result<()> {
    {
        let mut manifest = engine.manifest.lock();
        manifest.as_mut().ok_or_else(|| engine.no_manifest())?.renew()?;
    }
    let (failed, sealed, span_end) = {
        let commit = engine.commit.lock();
        let log = commit.as_ref().ok_or_else(|| engine.no_manifest())?;
        (log.failed, log.sealed, log.span_end())
    };
    if failed {
        flush_logged(engine, span_end)?;
        write::replace(engine)?;
        write::release(engine, span_end);
    } else if sealed {
        write::follow(engine)?;
    }
    // Both may have failed once more meanwhile, in the hands of others.
    let commit = engine.commit.lock();
    let manifest = engine.manifest.lock();
    let log_failed = commit.as_ref().is_none_or(|log| log.failed);
    if log_failed || manifest.as_ref().is_none_or(|manifest| manifest.has_failed()) {
        return Err(Error::new(ErrorKind::Io, "it failed again while it was resumed"));
    }
    engine.health.resume();
    Ok(())
}

/// Has the jobs flush what fits, and merge what gains.
fn make_space(engine: &Engine) {
    for keyspace in engine.all_keyspaces() {
        if keyspace.first_seq().is_some() {
            keyspace.want_flush();
        }
    }
    engine.wake_flush();
    engine.wake_compaction();
}

/// Everybody looks for what to do.
fn go_on(engine: &Engine) {
    *engine.flush_failure.lock() = None;
    engine.freed.notify();
    engine.wake_flush();
    engine.wake_merge();
    engine.wake_compaction();
    engine.wake_sync();
    engine.wake_mend();
}

/// Moves all that is logged into tables, in one edit, which says that the log begins at `start`, behind everything
/// there is. Nobody writes.
fn flush_logged(engine: &Engine, start: SeqNo) -> Result<()> {
    let mut keyspaces = engine.all_keyspaces();
    keyspaces.retain(|keyspace| keyspace.is_logged());
    let _alone: Vec<_> = keyspaces.iter().map(|keyspace| keyspace.upkeep.lock()).collect();
    {
        let _commit = engine.commit.lock();
        for keyspace in keyspaces.iter().filter(|keyspace| !keyspace.current().active.is_empty()) {
            write::rotate_anyway(engine, keyspace, None);
        }
    }
    let mut claims: Vec<(&Arc<KeyspaceState>, Claim<'_>)> = Vec::new();
    for keyspace in &keyspaces {
        claims.extend(keyspace.claim(usize::MAX).map(|claim| (keyspace, claim)));
    }
    let mut changes = Vec::new();
    for (keyspace, claim) in &claims {
        match write_tables(engine, keyspace, claim) {
            Ok(written) => changes.extend(written),
            Err(error) => {
                discard(engine, &changes);
                return Err(error);
            }
        }
    }
    // A group whose append failed may be there whole, above all that is in memory, and was refused: replay skips it.
    let flushed = keyspaces.iter().map(|k| Change::FlushedTo { keyspace: k.id, seq: start });
    changes.extend(flushed);
    changes.push(Change::WalStart { lsn: start });
    {
        let mut manifest = engine.manifest.lock();
        let manifest = manifest.as_mut().ok_or_else(|| engine.no_manifest())?;
        manifest.append(Edit::new(changes)).inspect_err(|error| engine.fail(error))?;
        for (keyspace, claim) in &claims {
            let version = Arc::clone(&manifest.state().keyspace(keyspace.id).version);
            keyspace.install_flush(&claim.runs, version);
        }
    }
    engine.durable.reach(start);
    let count = claims.len() as u64;
    drop(claims);
    engine.tally.flushes.fetch_add(count, Ordering::Relaxed);
    write::refresh_memory(engine);
    keyspaces.iter().for_each(|keyspace| write::refresh_tree(engine, keyspace));
    engine.budget.give_back();
    Ok(())
}

/// Removes files that no edit has named. Failing to is no error: the next open removes them.
fn discard(engine: &Engine, changes: &[Change]) {
    for change in changes {
        let file = match change {
            Change::TableAdd(table) => SharedFile::Table(table.number),
            Change::BlobAdd(blob) => SharedFile::Blob(blob.number),
            _ => continue,
        };
        engine.layout.discard(&*engine.env.vfs, file.name());
    }
}

/// Resumes by itself, notices that there is space again, and writes the reserve.
pub(crate) struct MendJob {
    engine: Weak<Engine>,
    /// When something is tried next, and how long after that once more.
    next: Duration,
    pause: Duration,
    /// Whether there was no space when it looked last.
    is_full: bool,
    /// When the reserve is written.
    reserve_from: Duration,
}

impl MendJob {
    pub(crate) fn new(engine: &Arc<Engine>) -> Self {
        let reserve_from = engine.env.clock.now() + RESERVE_DELAY;
        let (next, pause, is_full) = (Duration::ZERO, RETRY, false);
        Self { engine: Arc::downgrade(engine), next, pause, is_full, reserve_from }
    }

    fn resume(&mut self, engine: &Engine, how: Broken) -> Step {
        let now = engine.env.clock.now();
        if now < self.next {
            return Step::Park(Some(self.next));
        }
        if resume(engine).is_ok() {
            self.pause = RETRY;
            return Step::Again;
        }
        let most = if how == Broken::Space { SPACE_POLL } else { RETRY_MAX };
        self.next = now + self.pause.min(most);
        self.pause = (self.pause * 2).min(RETRY_MAX);
        Step::Park(Some(self.next))
    }

    /// Puts are refused; sees whether they need not be.
    fn look_for_space(&mut self, engine: &Engine) -> Step {
        let now = engine.env.clock.now();
        if !self.is_full {
            self.is_full = true;
            self.pause = SPACE_POLL;
            self.next = now + SPACE_POLL;
            engine.reserve.release(&*engine.env.vfs, &engine.layout);
            make_space(engine);
        }
        if now < self.next {
            return Step::Park(Some(self.next));
        }
        if engine.free_space().is_some_and(|free| free < engine.space_needed()) {
            self.next = now + SPACE_POLL;
            engine.health.note_space(engine.shortage());
            make_space(engine);
            return Step::Park(Some(self.next));
        }
        match engine.reserve.build_some(&engine.env, &engine.layout) {
            Ok(false) => Step::Again,
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                self.next = now + self.pause;
                self.pause = (self.pause * 2).min(SPACE_POLL_MAX);
                Step::Park(Some(self.next))
            }
            // Where the device fails at the reserve, space is not what is missing.
            Ok(true) | Err(_) => {
                self.is_full = false;
                engine.health.drain();
                engine.date_health();
                self.pause = RETRY;
                self.next = now;
                self.reserve_from = now + RESERVE_DELAY;
                go_on(engine);
                Step::Again
            }
        }
    }

    fn keep_reserve(&mut self, engine: &Engine) -> Step {
        let now = engine.env.clock.now();
        if engine.reserve.is_held() {
            return Step::Park(None);
        }
        if now < self.reserve_from {
            return Step::Park(Some(self.reserve_from));
        }
        // Others must not run out of space for it.
        let fits = engine.free_space().is_none_or(|free| free >= 2 * engine.reserve.bytes());
        if fits && engine.reserve.build_some(&engine.env, &engine.layout).is_ok() {
            return Step::Again;
        }
        self.reserve_from = now + RESERVE_RETRY;
        Step::Park(Some(self.reserve_from))
    }
}

impl Job for MendJob {
    fn name(&self) -> &'static str {
        "memtide-mend"
    }

    fn step(&mut self) -> Step {
        let engine = self.engine.upgrade().filter(|engine| !engine.is_closed());
        let Some(engine) = engine else { return Step::Done };
        match engine.health.broken() {
            Some(Broken::ForGood | Broken::OpenedReadOnly) => Step::Park(None),
            Some(how) => self.resume(&engine, how),
            None if engine.health.is_full() => self.look_for_space(&engine),
            None => {
                self.is_full = false;
                self.keep_reserve(&engine)
            }
        }
    }
}
