//! Copies what is sound of a damaged database into a new directory: whole files (repair) or blocks and records
//! (salvage).
//!
//! # Order
//! source locked for reading → target locked, empty → what the database was (`found`) → tables (`tables`) → the blob
//! files they refer to → log (`log`) → all of it durable with its names → manifest → `CURRENT`, last.
//!
//! # What holds of the result
//! - Every version in it was written with this seq, and its place among the others is what it was: a run stays the run
//!   it was, a record its LSN. Without a manifest all versions of a keyspace are merged by seq.
//! - A key outside of all [`Loss`]es shows what it showed. Inside of one it may be missing or show an older value.
//! - Files that need no mending are copied byte for byte, under the number they had: uuid and numbers stay.

mod copy;
mod found;
mod log;
mod rows;
mod tables;

use std::path::{Path, PathBuf};

use memtide_base::sync::Arc;
use memtide_base::{Error, Result, SeqNo};
use memtide_env::Env;
use memtide_env::vfs::LockMode;

use crate::files::{BLOB_DIR, LOCK, Layout, TABLE_DIR, WAL_DIR};
use crate::recovery::{self, OpenMode};
use crate::version::{Change, Edit, Graveyard, Manifest, ManifestState};
use found::Found;

/// What is kept of a damaged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Nothing of a table or blob file, and of the log what lies before the damage.
    Whole,
    /// Every block and record whose checksum holds.
    Blocks,
}

/// What a repair or salvage did, and all that is lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RescueReport {
    /// Why the manifest was made from what tables say of themselves; `None` if one could be read.
    pub rebuilt: Option<String>,
    /// Files that were copied, or linked, as they are.
    pub files_copied: u64,
    /// Their bytes.
    pub bytes_copied: u64,
    /// Tables that were written anew.
    pub tables_written: u64,
    /// Versions in them.
    pub rows_kept: u64,
    /// Batches in the new log.
    pub batches_kept: u64,
    /// Everything that is lost or suspect.
    pub lost: Vec<Loss>,
    /// What had to be assumed, and files that were left out.
    pub notes: Vec<String>,
}

/// Something that is lost: keys of `keyspace` from `from` to `to`, both included, or writes of `seqs`. In it a key may
/// be missing or show an older value than its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The file it was in, relative to the database.
    pub file: PathBuf,
    /// The keyspace; `None` = any.
    pub keyspace: Option<String>,
    /// The keys; `None` = those that the writes of `seqs` wrote.
    pub keys: Option<KeySpan>,
    /// The first and last sequence number that may be lost; `None` if that is not known.
    pub seqs: Option<(SeqNo, SeqNo)>,
    /// Why.
    pub what: String,
}

/// Keys from one to another, both included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpan {
    /// The first; `None` = from the first there can be.
    pub from: Option<Vec<u8>>,
    /// The last; `None` = to the last there can be.
    pub to: Option<Vec<u8>>,
}

impl KeySpan {
    /// Whether a key lies in it.
    #[must_use]
    pub fn holds(&self, key: &[u8]) -> bool {
        self.from.as_deref().is_none_or(|from| from <= key)
            && self.to.as_deref().is_none_or(|to| key <= to)
    }
}

/// One rescue under way.
struct Rescue<'a> {
    env: &'a Env,
    from: Layout,
    to: Layout,
    keep: Keep,
    link: bool,
    report: RescueReport,
    /// The number of the next new file.
    next_file: u64,
}

/// Copies what is sound of the database in `from` to `to`, which must be empty or missing.
///
/// # Errors
/// `Locked` if the database is open; `Unsupported` if there is none or a newer version wrote it; `InvalidArgument` for
/// a target that is not empty or inside the source; whatever reading and writing fails with. The target is no database
/// then.
pub(crate) fn rescue(
    env: &Env,
    from: &Path,
    to: &Path,
    keep: Keep,
    link: bool,
) -> Result<RescueReport> {
    let (vfs, layout) = (&*env.vfs, Layout::new(from));
    let _source = recovery::take_lock(vfs, &layout, OpenMode::ReadOnly)?;
    let found = Found::read(env, &layout)?;
    if to.starts_with(from) {
        return Err(Error::invalid_argument("a copy cannot lie inside of what is copied"));
    }
    let target = Layout::new(to);
    let created = recovery::create_root(vfs, to)?;
    let is_empty = vfs.list(to).map_err(|error| Error::io("list", to, error))?.is_empty();
    if !is_empty {
        let what = format!("{} is not empty", to.display());
        return Err(Error::invalid_argument(what).with_hint("name a directory that is not there"));
    }
    let lock = vfs.lock(&target.at(LOCK), LockMode::Exclusive);
    let _target = lock.map_err(|error| Error::io("lock", LOCK, error))?;
    for dir in [WAL_DIR, TABLE_DIR, BLOB_DIR] {
        vfs.create_dir(&target.at(dir))
            .map_err(|error| Error::io("create the directory", dir, error))?;
    }
    recovery::sync_parents(vfs, to, &created)?;
    let mut rescue = Rescue {
        env,
        from: layout,
        to: target,
        keep,
        link,
        report: RescueReport::default(),
        next_file: found.next_file,
    };
    rescue.run(found)?;
    Ok(rescue.report)
}

impl Rescue<'_> {
    fn run(&mut self, mut found: Found) -> Result<()> {
        self.report.rebuilt = found.rebuilt.take();
        self.report.notes.append(&mut found.notes);
        let tables = self.tables(&mut found)?;
        let log = self.log(&mut found)?;
        let mut changes = vec![Change::Database { uuid: found.uuid, hash_seed: found.hash_seed }];
        for keyspace in &found.keyspaces {
            let (id, name) = (keyspace.id, keyspace.name.clone());
            changes.extend(Change::new_keyspace(id, name, keyspace.options.clone()));
            changes.push(Change::FlushedTo { keyspace: id, seq: keyspace.flushed_to });
        }
        changes.extend(tables);
        changes.push(Change::NextFile { number: self.next_file });
        changes.push(Change::NextKeyspace { id: found.next_keyspace });
        changes.push(Change::WalStart { lsn: log.start });
        // Behind the end that the log has now, tables may know of more.
        changes.push(Change::SeqHigh { seq: log.closed.map_or(0, |closed| closed.base) });
        changes.extend(log.closed.map(Change::Closed));
        let mut state =
            ManifestState::new(found.uuid, found.hash_seed, &Arc::<Graveyard>::default());
        state.apply(&Edit::new(changes)).map_err(Error::internal)?;
        let vfs = &*self.env.vfs;
        for dir in [WAL_DIR, TABLE_DIR, BLOB_DIR, ""] {
            self.to.sync_dir(vfs, dir)?;
        }
        Manifest::create(self.env, &self.to, state).map(drop)
    }

    fn take_number(&mut self) -> u64 {
        self.next_file += 1;
        self.next_file - 1
    }
}
