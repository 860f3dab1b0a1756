//! What a simulation does, as data: a configuration and a list of operations that say everything themselves, so that
//! leaving one out changes none of the others.

use std::io;
use std::path::Path;
use std::time::Duration;

use memtide::{Compaction, Config, Durability, MemtableType};
use memtide_env::vfs::CrashMode;

use crate::oracle::{Change, Span};

/// A keyspace that writes no log, in cases that name it.
pub(crate) const UNLOGGED: &str = "cache";

/// A whole simulation.
#[derive(Clone, Debug)]
pub struct Case {
    /// Draws what the world does by itself: identities, whose turn it is, how time is cut.
    pub seed: u64,
    /// What the database is opened with at first.
    pub config: Config,
    /// The keyspaces that are created at each open.
    pub names: Vec<&'static str>,
    /// In this order.
    pub ops: Vec<Op>,
}

/// One thing that a client, the device or the machine does.
#[derive(Clone, Debug)]
pub enum Op {
    /// A batch.
    Write(Vec<Change>, Durability),
    /// A point read, now and in all snapshots.
    Get(&'static str, Vec<u8>),
    /// A whole walk over a range: forwards, backwards or from both ends, as the number says; of now or of a snapshot.
    Scan(&'static str, Span, u64),
    /// Takes a snapshot; the oldest goes if there are many.
    Snapshot,
    /// Drops one of the snapshots.
    Release(u64),
    /// Begins a walk that is held across other operations.
    Iter(&'static str, Span),
    /// Takes a few steps in each held walk, from either end.
    StepIters(u64),
    /// Drops all held walks.
    DropIters,
    /// [`memtide::Db::flush`].
    Flush,
    /// [`memtide::Db::compact`].
    Compact,
    /// [`memtide::Db::sync`].
    Sync,
    /// Another memtable on the open database.
    SetMemtable(&'static str, MemtableType),
    /// Another strategy on the open database.
    SetCompaction(&'static str, Compaction),
    /// Pauses compaction or lets it go on.
    Pause(bool),
    /// One step of one background job.
    Job(u64),
    /// Background jobs run until all wait.
    Idle,
    /// Time passes, then background jobs run until all wait.
    Tick(Duration),
    /// The wall clock is set, by so many milliseconds.
    Wall(i64),
    /// Names an option for the next open.
    Set(String, String),
    /// One access to files will fail.
    Fault(FaultRule),
    /// Files may grow by so many bytes; `None` lifts the limit.
    Space(Option<u64>),
    /// Faults end. The database must take writes again, at the latest once it was reopened.
    Heal,
    /// Ends the database and opens it again.
    Reopen(Ending),
    /// The machine or the process dies `after` so many operations of the disk, perhaps in a recovery; at once if 0.
    Crash {
        /// What survives.
        mode: CrashMode,
        /// Draws what survives.
        seed: u64,
        /// Operations that change the disk until then.
        after: u64,
    },
    /// Closes the database and flips bits of one byte of one file: everything read is right or refused. Then the
    /// byte is as it was.
    Rot {
        /// Chooses the file.
        file: u64,
        /// Chooses the byte.
        byte: u64,
        /// Which bits.
        xor: u8,
    },
    /// Closes the database, verifies it and opens it again.
    Verify,
    /// Compares everything with the model.
    Check,
}

/// How a database ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `Db::close`.
    Close,
    /// The last handle is dropped.
    Drop,
}

/// Which access fails, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRule {
    /// What is done.
    pub target: Target,
    /// To which file; `None` for any.
    pub file: Option<FileKind>,
    /// So many such accesses go well before.
    pub skip: u64,
    /// Whether the device is full, else it is broken.
    pub full: bool,
    /// Bytes that a failing write leaves behind.
    pub prefix: usize,
}

impl FaultRule {
    pub(crate) fn error(&self) -> io::ErrorKind {
        if self.full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other }
    }
}

/// What may fail.
#[expect(missing_docs, reason = "the names of what is done to files and directories")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Create,
    Write,
    SetLen,
    Sync,
    SyncDir,
    Rename,
    Remove,
    CreateDir,
    Open,
    Read,
    /// Any of those that change the disk.
    Change,
}

impl Target {
    pub(crate) const ALL: [Self; 11] = [
        Self::Create,
        Self::Write,
        Self::SetLen,
        Self::Sync,
        Self::SyncDir,
        Self::Rename,
        Self::Remove,
        Self::CreateDir,
        Self::Open,
        Self::Read,
        Self::Change,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Write => "write",
            Self::SetLen => "set_len",
            Self::Sync => "sync",
            Self::SyncDir => "sync_dir",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::CreateDir => "create_dir",
            Self::Open => "open",
            Self::Read => "read",
            Self::Change => "change",
        }
    }
}

/// What a file or directory is for.
#[expect(missing_docs, reason = "the names of the files of a database")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    Log,
    Table,
    Blob,
    Manifest,
    Current,
    Lock,
    Dir,
    Other,
}

impl FileKind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Log,
        Self::Table,
        Self::Blob,
        Self::Manifest,
        Self::Current,
        Self::Lock,
        Self::Dir,
        Self::Other,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Table => "table",
            Self::Blob => "blob",
            Self::Manifest => "manifest",
            Self::Current => "current",
            Self::Lock => "lock",
            Self::Dir => "dir",
            Self::Other => "other",
        }
    }

    /// Of a file, by its path.
    pub(crate) fn of(path: &Path) -> Self {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name.rsplit_once('.').map_or(name, |(_, extension)| extension) {
            "wal" if name != "wal" => Self::Log,
            "sst" if name != "sst" => Self::Table,
            "blob" if name != "blob" => Self::Blob,
            _ if name.starts_with("MANIFEST-") => Self::Manifest,
            _ if name.starts_with("CURRENT") => Self::Current,
            "LOCK" => Self::Lock,
            "wal" | "sst" | "blob" | "db" | "" => Self::Dir,
            _ => Self::Other,
        }
    }
}
