//! The manifest: the list of edits that says what the database is, and `CURRENT`, which names it.
//!
//! ```text
//! MANIFEST-{number:016x}   log header | snapshot edit | edit | edit | ...
//! CURRENT                  memtide 1\n MANIFEST-{number:016x}\n xxh3 {of the two lines:016x}\n
//! ```
//!
//! Every edit is one record and one sync, about 200 bytes, however many tables there are. Opening writes a
//! new manifest with a snapshot of the state, and so does growing past four snapshots (1 MiB at least).
//!
//! # Order (each step durable before the next)
//! new manifest's bytes → its name → `CURRENT.tmp`'s bytes → rename to `CURRENT` → the rename.
//!
//! After a failed append or sync nothing more is written to that file, and no edit is taken. [`Manifest::renew`] goes
//! on in a new file, with the state before the edit that failed. Whether that edit would have survived nobody knows
//! before the new file is current, so until then nothing that it adds or drops is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use memtide_base::checksum::xxh3_64;
use memtide_base::sync::Arc;
use memtide_base::{Error, ErrorKind, Result, SeqNo};
use memtide_env::{Env, Vfs};
use memtide_storage::log::{
    LogHeader, LogKind, LogReader, LogWriter, Opened, RecordKind, parse_manifest_file_name,
};

use super::blob_meta::BlobMeta;
use super::edit::{Change, ClosedWal, Edit, StoredBlob, StoredTable};
use super::table_meta::{Graveyard, TableMeta};
use super::{RunId, Version};
use crate::config::{Compaction, KeyspaceOptions, check_keyspace_name};
use crate::files::{self, CURRENT, CURRENT_NEW, Layout, SharedFile};

const CURRENT_FORMAT: &str = "memtide 1";
const ROLL_BYTES_MIN: u64 = 1 << 20;
const ROLL_SNAPSHOTS: u64 = 4;

/// A keyspace as the manifest has it.
#[derive(Clone, Debug)]
pub(crate) struct KeyspaceRecord {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) options: KeyspaceOptions,
    /// Writes below are in tables.
    pub(crate) flushed_to: SeqNo,
    pub(crate) version: Arc<Version>,
}

/// What all edits together say.
#[derive(Clone, Debug)]
pub(crate) struct ManifestState {
    pub(crate) uuid: [u8; 16],
    pub(crate) hash_seed: u64,
    /// By rising id.
    pub(crate) keyspaces: Vec<KeyspaceRecord>,
    pub(crate) wal_start: u64,
    pub(crate) next_file: u64,
    pub(crate) seq_high: SeqNo,
    pub(crate) next_keyspace: u32,
    pub(crate) closed: Option<ClosedWal>,
    graveyard: Arc<Graveyard>,
}

/// What one edit does to the tables of one keyspace.
struct TableChanges<'a> {
    keyspace: u32,
    drops: Vec<u64>,
    adds: Vec<&'a StoredTable>,
    blobs: Vec<&'a StoredBlob>,
}

/// What is no longer part of any version after an edit.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    tables: Vec<Arc<TableMeta>>,
    blobs: Vec<Arc<BlobMeta>>,
}

impl Retired {
    /// Says that their files may go once nobody uses them. The edit is durable.
    fn release(self) {
        self.tables.iter().for_each(|table| table.retire());
        self.blobs.iter().for_each(|blob| blob.retire());
    }
}

/// The changes gathered for a keyspace. Edits list one keyspace after the other, so it is mostly the last.
fn of_keyspace<'t, 'a>(
    tables: &'t mut Vec<TableChanges<'a>>,
    keyspace: u32,
) -> &'t mut TableChanges<'a> {
    let known = tables.iter().rposition(|changes| changes.keyspace == keyspace);
    let index = known.unwrap_or_else(|| {
        let (drops, adds, blobs) = (Vec::new(), Vec::new(), Vec::new());
        tables.push(TableChanges { keyspace, drops, adds, blobs });
        tables.len() - 1
    });
    &mut tables[index]
}

impl ManifestState {
    pub(crate) fn new(uuid: [u8; 16], hash_seed: u64, graveyard: &Arc<Graveyard>) -> Self {
        Self {
            uuid,
            hash_seed,
            keyspaces: Vec::new(),
            wal_start: 0,
            next_file: 1,
            seq_high: 0,
            next_keyspace: 0,
            closed: None,
            graveyard: Arc::clone(graveyard),
        }
    }

    /// The edit that makes an empty state this one.
    fn snapshot(&self) -> Edit {
        let mut changes = vec![
            Change::Database { uuid: self.uuid, hash_seed: self.hash_seed },
            Change::NextFile { number: self.next_file },
            Change::NextKeyspace { id: self.next_keyspace },
            Change::WalStart { lsn: self.wal_start },
            Change::SeqHigh { seq: self.seq_high },
        ];
        for keyspace in &self.keyspaces {
            let id = keyspace.id;
            let (name, options) = (keyspace.name.clone(), keyspace.options.clone());
            changes.extend(Change::new_keyspace(id, name, options));
            changes.push(Change::FlushedTo { keyspace: id, seq: keyspace.flushed_to });
            for blob in keyspace.version.blobs() {
                changes.push(Change::BlobAdd(blob.stored()));
            }
            // The order of level 0 is found again from sequence numbers.
            for table in keyspace.version.level0() {
                changes.push(Change::TableAdd(table.stored(RunId::first(0))));
            }
            for run in keyspace.version.runs() {
                let tables = run.tables().iter();
                changes.extend(tables.map(|table| Change::TableAdd(table.stored(run.id))));
            }
        }
        changes.extend(self.closed.map(Change::Closed));
        Edit::new(changes)
    }

    /// Applies an edit; returns what is no longer part of any version, or what is wrong.
    pub(crate) fn apply(&mut self, edit: &Edit) -> Result<Retired, String> {
        let mut tables: Vec<TableChanges<'_>> = Vec::new();
        for change in &edit.changes {
            match change {
                Change::TableAdd(table) => {
                    of_keyspace(&mut tables, table.keyspace).adds.push(table);
                }
                Change::BlobAdd(blob) => {
                    of_keyspace(&mut tables, blob.keyspace).blobs.push(blob);
                }
                Change::TableDrop { keyspace, number } => {
                    of_keyspace(&mut tables, *keyspace).drops.push(*number);
                }
                other => self.apply_small(other)?,
            }
        }
        let mut retired = Retired::default();
        for changes in &tables {
            self.apply_tables(changes, &mut retired)?;
        }
        Ok(retired)
    }

    fn apply_small(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::Database { uuid, hash_seed } => {
                (self.uuid, self.hash_seed) = (*uuid, *hash_seed);
            }
            Change::KeyspaceAdd { id, name, options } => {
                check_keyspace_name(name)?;
                let record = KeyspaceRecord {
                    id: *id,
                    name: name.clone(),
                    options: KeyspaceOptions {
                        compaction: Compaction::default(),
                        ..options.clone()
                    },
                    flushed_to: 0,
                    version: Arc::new(Version::empty()),
                };
                let place = self.place(*id).err();
                let twin = self.keyspaces.iter().any(|known| known.name == *name);
                let Some(index) = place.filter(|_| !twin) else {
                    return Err(format!("keyspace {id}, {name:?}, is added twice"));
                };
                self.keyspaces.insert(index, record);
                self.next_keyspace = self.next_keyspace.max(id.saturating_add(1));
            }
            Change::KeyspaceOptions { id, options } => {
                let record = self.keyspace_mut(*id)?;
                let compaction = record.options.compaction;
                record.options = KeyspaceOptions { compaction, ..options.clone() };
            }
            Change::KeyspaceCompaction { id, compaction } => {
                self.keyspace_mut(*id)?.options.compaction = *compaction;
            }
            Change::FlushedTo { keyspace, seq } => self.keyspace_mut(*keyspace)?.flushed_to = *seq,
            // Flushes of two keyspaces may finish in either order; both bounds hold.
            Change::WalStart { lsn } => self.wal_start = self.wal_start.max(*lsn),
            Change::NextFile { number } => self.next_file = *number,
            Change::SeqHigh { seq } => (self.seq_high, self.closed) = (*seq, None),
            Change::NextKeyspace { id } => self.next_keyspace = *id,
            Change::Closed(closed) => self.closed = Some(*closed),
            Change::TableAdd(_) | Change::TableDrop { .. } | Change::BlobAdd(_) => {
                unreachable!("gathered by `apply`")
            }
        }
        Ok(())
    }

    fn apply_tables(
        &mut self,
        TableChanges { keyspace, drops, adds, blobs }: &TableChanges<'_>,
        retired: &mut Retired,
    ) -> Result<(), String> {
        let graveyard = Arc::clone(&self.graveyard);
        let keyspace = self.keyspace_mut(*keyspace)?;
        let dropped: BTreeSet<u64> = drops.iter().copied().collect();
        let tables = keyspace.version.tables().filter(|table| dropped.contains(&table.number));
        let mut leaving: BTreeMap<u64, Arc<TableMeta>> =
            tables.map(|table| (table.number, Arc::clone(table))).collect();
        let mut added = Vec::with_capacity(adds.len());
        for stored in adds {
            // A table that moves between levels stays the same object: its file is in use.
            let table = leaving.remove(&stored.number).unwrap_or_else(|| {
                let summary = stored.summary.clone();
                Arc::new(TableMeta::new(stored.number, stored.keyspace, summary, &graveyard))
            });
            added.push((stored.run, table));
        }
        let blob = |stored: &&StoredBlob| {
            Arc::new(BlobMeta::new(stored.number, stored.keyspace, stored.summary, &graveyard))
        };
        let blobs: Vec<_> = blobs.iter().map(blob).collect();
        let version = keyspace.version.with_blobs(drops, &added, &blobs)?;
        let is_gone = |blob: &&Arc<BlobMeta>| version.blob(blob.number).is_none();
        let known = keyspace.version.blobs().iter().chain(&blobs);
        retired.blobs.extend(known.filter(is_gone).cloned());
        retired.tables.extend(leaving.into_values());
        keyspace.version = Arc::new(version);
        Ok(())
    }

    /// What is wrong with the keyspaces together; each for itself was checked edit by edit.
    fn check(&self) -> Result<(), String> {
        let tables = self.keyspaces.iter().flat_map(|keyspace| keyspace.version.tables());
        let blobs = self.keyspaces.iter().flat_map(|keyspace| keyspace.version.blobs());
        let mut tables: Vec<_> = tables.map(|table| table.number).collect();
        let mut blobs: Vec<_> = blobs.map(|blob| blob.number).collect();
        for (what, numbers) in [("table", &mut tables), ("blob file", &mut blobs)] {
            numbers.sort_unstable();
            if let Some(twice) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(format!("{what} {} belongs to two keyspaces", twice[0]));
            }
        }
        Ok(())
    }

    /// Whether the file is part of a keyspace's version.
    fn names(&self, file: SharedFile) -> bool {
        self.keyspaces.iter().any(|keyspace| match file {
            SharedFile::Table(number) => {
                keyspace.version.tables().any(|table| table.number == number)
            }
            SharedFile::Blob(number) => keyspace.version.blob(number).is_some(),
        })
    }

    /// Every table and blob file, with its size and XXH3-128.
    pub(crate) fn shared_files(&self) -> impl Iterator<Item = (SharedFile, u64, u128)> {
        self.keyspaces.iter().flat_map(|keyspace| {
            let version = &keyspace.version;
            let tables = version.tables();
            let tables = tables.map(|of| (SharedFile::Table(of.number), of.size, of.checksum));
            let blobs = version
                .blobs()
                .iter()
                .map(|of| (SharedFile::Blob(of.number), of.summary.size, of.summary.checksum));
            tables.chain(blobs)
        })
    }

    /// The changes that give a keyspace these options; none if it has them.
    pub(crate) fn option_changes(&self, id: u32, options: &KeyspaceOptions) -> Vec<Change> {
        let (stored, compaction) = (&self.keyspace(id).options, options.compaction);
        let others = KeyspaceOptions { compaction: stored.compaction, ..options.clone() };
        let mut changes = Vec::new();
        if others != *stored {
            changes.push(Change::KeyspaceOptions { id, options: others });
        }
        if compaction != stored.compaction {
            changes.push(Change::KeyspaceCompaction { id, compaction });
        }
        changes
    }

    /// A keyspace that was added.
    pub(crate) fn keyspace(&self, id: u32) -> &KeyspaceRecord {
        let place = self.place(id);
        &self.keyspaces[place.expect("a keyspace is in the manifest before anyone can name it")]
    }

    fn keyspace_mut(&mut self, id: u32) -> Result<&mut KeyspaceRecord, String> {
        match self.place(id) {
            Ok(index) => Ok(&mut self.keyspaces[index]),
            Err(_) => Err(format!("there is no keyspace {id}")),
        }
    }

    fn place(&self, id: u32) -> Result<usize, usize> {
        self.keyspaces.binary_search_by_key(&id, |keyspace| keyspace.id)
    }
}

/// The manifest being written, and the state it describes.
#[derive(Debug)]
pub(crate) struct Manifest {
    env: Env,
    layout: Layout,
    writer: LogWriter,
    number: u64,
    chain: u64,
    /// Everything before was synced. The mark behind it was not: a claim must not cover it.
    synced: u64,
    snapshot_bytes: u64,
    state: ManifestState,
    /// Set by the first failure; nothing is written after it.
    failed: bool,
    /// Files of edits that failed or were refused: the next manifest does not name them.
    doubtful: Vec<SharedFile>,
    /// Manifests that were given up, or never became current for sure.
    given_up: Vec<u64>,
}

impl Manifest {
    /// Writes a new manifest with a snapshot of `state` and makes it current.
    pub(crate) fn create(env: &Env, layout: &Layout, mut state: ManifestState) -> Result<Self> {
        layout.check_claim()?;
        let number = state.next_file;
        state.next_file += 1;
        let name = files::manifest_name(number);
        let (writer, snapshot) = write_snapshot(env, &layout.at(&name), &name, &state)?;
        if !cfg!(plant = "manifest_name_unsynced") {
            layout.sync_dir(&*env.vfs, "")?;
        }
        write_current(&*env.vfs, layout, &name)?;
        let mut manifest = Self {
            env: env.clone(),
            layout: layout.clone(),
            writer,
            number,
            chain: xxh3_64(0, &snapshot),
            synced: 0,
            snapshot_bytes: snapshot.len() as u64,
            state,
            failed: false,
            doubtful: Vec::new(),
            given_up: Vec::new(),
        };
        manifest.mark()?;
        Ok(manifest)
    }

    pub(crate) fn state(&self) -> &ManifestState {
        &self.state
    }

    /// The name of the file that is current.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of the current file.
    pub(crate) fn bytes(&self) -> u64 {
        self.writer.position()
    }

    /// A number for a new file. It counts as taken once an edit that names it, or any later one, is
    /// durable; what a crash leaves under it is removed at the next open.
    pub(crate) fn take_number(&mut self) -> u64 {
        let number = self.state.next_file;
        self.state.next_file += 1;
        number
    }

    /// Makes an edit durable and applies it; the files of what no version names any more go with their last users.
    ///
    /// # Errors
    /// The edit may or may not be in the manifest after a crash; no further edit is accepted before a
    /// [`Manifest::renew`].
    pub(crate) fn append(&mut self, edit: Edit) -> Result<()> {
        let added: Vec<_> = edit.changes.iter().filter_map(added_file).collect();
        let appended = self.append_or_fail(edit);
        if appended.is_err() {
            self.doubtful.extend(added);
        }
        appended
    }

    fn append_or_fail(&mut self, mut edit: Edit) -> Result<()> {
        if self.failed {
            return Err(Error::new(ErrorKind::ReadOnly, "the manifest failed before"));
        }
        // Before the edit: if it fails, the edit was not written.
        if self.writer.position() > ROLL_BYTES_MIN.max(ROLL_SNAPSHOTS * self.snapshot_bytes) {
            self.renew()?;
        }
        edit.changes.push(Change::NextFile { number: self.state.next_file });
        let mut next = self.state.clone();
        let retired = next.apply(&edit).map_err(Error::internal)?;
        self.failed = true;
        let bytes = edit.encode(self.chain);
        self.writer.append(RecordKind::Meta, 0, &bytes, self.synced)?;
        // Whatever a sync fails for, the device has failed.
        let failed_sync = |error| {
            let what = "could not sync the manifest";
            let file = files::manifest_name(self.number);
            Error::new(ErrorKind::Io, what).with_file(file).with_source(error)
        };
        if !cfg!(plant = "edit_unsynced") {
            self.writer.sync().map_err(failed_sync)?;
        }
        self.mark()?;
        self.failed = false;
        self.chain = xxh3_64(0, &bytes);
        self.state = next;
        retired.release();
        Ok(())
    }

    /// Whether no edit is taken before a [`Manifest::renew`].
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Goes on in a new file that begins with the present state, which knows nothing of an edit that failed. The files
    /// that such edits would have added are removed then, and so are older manifests.
    ///
    /// # Errors
    /// Any of the manifests tried so far may be current after a crash, all of them with their files; no edit is
    /// accepted before another attempt.
    pub(crate) fn renew(&mut self) -> Result<()> {
        self.failed = true;
        self.given_up.push(self.number);
        let state = self.state.clone();
        // Whatever becomes of it, the next attempt has another name.
        self.number = self.take_number();
        let (doubtful, given_up) = (self.doubtful.clone(), self.given_up.clone());
        *self = Self::create(&self.env, &self.layout, state)?;
        // Failing to remove them is no error: the next open does.
        for number in given_up {
            self.layout.discard(&*self.env.vfs, files::manifest_name(number));
        }
        for file in doubtful.into_iter().filter(|file| !self.state.names(*file)) {
            self.layout.discard(&*self.env.vfs, file.name());
        }
        Ok(())
    }

    /// Says in the file that everything before was synced, so that damage there is not taken for a torn
    /// end. The mark itself need not be durable.
    fn mark(&mut self) -> Result<()> {
        self.synced = self.writer.position();
        let marked = self.writer.append(RecordKind::Skip, 0, &[], self.synced).map(drop);
        if cfg!(plant = "mark_covers_itself") {
            self.synced = self.writer.position();
        }
        marked
    }
}

/// The file that a change makes part of a version.
fn added_file(change: &Change) -> Option<SharedFile> {
    match change {
        Change::TableAdd(table) => Some(SharedFile::Table(table.number)),
        Change::BlobAdd(blob) => Some(SharedFile::Blob(blob.number)),
        _ => None,
    }
}

impl BlobMeta {
    /// What the manifest says of this blob file.
    fn stored(&self) -> StoredBlob {
        let Self { keyspace, number, summary, .. } = *self;
        StoredBlob { keyspace, number, summary }
    }
}

impl TableMeta {
    /// What the manifest says of this table in `run`.
    pub(crate) fn stored(&self, run: RunId) -> StoredTable {
        StoredTable { keyspace: self.keyspace, run, number: self.number, summary: self.summary() }
    }
}

/// Writes a manifest that says `state`, durable but for its name; the edit in it is the second result.
pub(crate) fn write_snapshot(
    env: &Env,
    path: &Path,
    name: &Path,
    state: &ManifestState,
) -> Result<(LogWriter, Vec<u8>)> {
    let header = LogHeader {
        kind: LogKind::Manifest,
        db_uuid: state.uuid,
        salt: env.random.next_u64(),
        base: 0,
        segment_bytes: 0,
        prev_salt: 0,
        prev_end: 0,
        created_ms: env.clock.wall_ms(),
        required_features: 0,
        minor: 0,
    };
    let mut writer = LogWriter::create(&*env.vfs, path, name, header, 0)?;
    let snapshot = state.snapshot().encode(0);
    writer.append(RecordKind::Meta, 0, &snapshot, 0)?;
    writer.sync()?;
    Ok((writer, snapshot))
}

/// What `CURRENT` names: `None` if there is no such file.
pub(crate) fn read_current(vfs: &dyn Vfs, layout: &Layout) -> Result<Option<u64>> {
    let file = match vfs.open_read(&layout.at(CURRENT)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", CURRENT, error)),
    };
    let damaged = |detail: &str| Error::corruption("name of the manifest", CURRENT, 0, detail);
    let len = file.len().map_err(|error| Error::io("read", CURRENT, error))?;
    if len > 128 {
        return Err(damaged("it is longer than such a file can be"));
    }
    let mut text = vec![0; usize::try_from(len).expect("at most 128")];
    file.read_exact_at(&mut text, 0).map_err(|error| Error::io("read", CURRENT, error))?;
    let text = str::from_utf8(&text).map_err(|_| damaged("it is not text"))?;
    // The last line is the same in all formats, so that damage is told from a newer one.
    if text.find("xxh3 ").is_none_or(|at| with_checksum(&text[..at]) != text) {
        return Err(damaged("its checksum does not match"));
    }
    let mut lines = text.lines();
    if lines.next() != Some(CURRENT_FORMAT) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "CURRENT has a newer format than this version",
        )
        .with_file(CURRENT)
        .with_hint("open the database with a newer memtide"));
    }
    let name = lines.next().unwrap_or_default();
    parse_manifest_file_name(Path::new(name))
        .filter(|&number| files::manifest_name(number).as_os_str() == name)
        .map(Some)
        .ok_or_else(|| damaged("it names no manifest"))
}

fn write_current(vfs: &dyn Vfs, layout: &Layout, manifest: &Path) -> Result<()> {
    let text = with_checksum(&format!("{CURRENT_FORMAT}\n{}\n", manifest.display()));
    let (new, current) = (layout.at(CURRENT_NEW), layout.at(CURRENT));
    match vfs.remove(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", CURRENT_NEW, error));
        }
        _ => {}
    }
    let file = vfs.create(&new, 0).map_err(|error| Error::io("create", CURRENT_NEW, error))?;
    file.write_at(text.as_bytes(), 0).map_err(|error| Error::io("write", CURRENT_NEW, error))?;
    if !cfg!(plant = "current_unsynced") {
        file.sync().map_err(|error| Error::io("sync", CURRENT_NEW, error))?;
    }
    layout.check_claim()?;
    vfs.rename(&new, &current).map_err(|error| Error::io("replace", CURRENT, error))?;
    if cfg!(plant = "current_name_unsynced") {
        return Ok(());
    }
    layout.sync_dir(vfs, "")
}

fn with_checksum(lines: &str) -> String {
    let checksum = xxh3_64(0, lines.as_bytes());
    format!("{lines}xxh3 {checksum:016x}\n")
}

/// Reads the manifest that is current. Returns the state and the torn bytes behind it.
pub(crate) fn load(
    vfs: &dyn Vfs,
    layout: &Layout,
    number: u64,
    graveyard: &Arc<Graveyard>,
) -> Result<(ManifestState, u64)> {
    let name = files::manifest_name(number);
    let mut reader = match LogReader::open(vfs, &layout.at(&name), &name)? {
        Opened::Log(reader) => reader,
        Opened::Torn { .. } => {
            return Err(Error::corruption("manifest header", &name, 0, "it never became whole"));
        }
    };
    if reader.header().kind != LogKind::Manifest {
        return Err(Error::corruption("manifest header", &name, 0, "it is another kind of log"));
    }
    let uuid = reader.header().db_uuid;
    let mut state = ManifestState::new(uuid, 0, graveyard);
    let (mut chain, mut edits) = (0, 0_u64);
    while let Some(record) = reader.next()? {
        if record.kind != RecordKind::Meta {
            continue;
        }
        let wrong = |detail: String| Error::corruption("manifest edit", &name, record.lsn, detail);
        let edit = Edit::decode(record.payload, chain).map_err(wrong)?;
        state.apply(&edit).map_err(wrong)?;
        if state.uuid != uuid {
            return Err(wrong("it belongs to another database".to_owned()));
        }
        chain = xxh3_64(0, record.payload);
        edits += 1;
    }
    let torn = reader.end().map_or(0, |end| end.torn_bytes);
    if edits == 0 || state.place(0).is_err() {
        return Err(Error::corruption("manifest", &name, 4096, "it has no default keyspace"));
    }
    state.check().map_err(|detail| Error::corruption("manifest", &name, 4096, detail))?;
    Ok((state, torn))
}

/// What can be read of a manifest that may be damaged: its edits up to the first that is not sound. `None` if there is
/// none.
pub(crate) fn load_partly(vfs: &dyn Vfs, layout: &Layout, number: u64) -> Option<ManifestState> {
    let name = files::manifest_name(number);
    let file = vfs.open_read(&layout.at(&name)).ok()?;
    let mut reader = match LogReader::of_file(Arc::clone(&file), &name) {
        Ok(Opened::Log(reader)) => *reader,
        Ok(Opened::Torn { .. }) | Err(_) => {
            let mut page = [0; 4096];
            file.read_exact_at(&mut page, 0).ok()?;
            let header = LogHeader::decode_mended(&name, &page)?;
            LogReader::with_header(file, &name, header).ok()?
        }
    };
    reader.set_tolerant(true);
    let mut state = ManifestState::new(reader.header().db_uuid, 0, &Arc::default());
    let (mut chain, mut edits) = (0, 0_u64);
    while let Ok(Some(record)) = reader.next() {
        if record.kind != RecordKind::Meta {
            continue;
        }
        let mut next = state.clone();
        let applied =
            Edit::decode(record.payload, chain).and_then(|edit| next.apply(&edit).map(drop));
        if applied.is_err() {
            break;
        }
        (state, chain, edits) = (next, xxh3_64(0, record.payload), edits + 1);
    }
    (edits > 0).then_some(state)
}

#[cfg(test)]
mod tests {
    use memtide_base::Upper;
    use memtide_memtable::MemtableType;

    use super::*;

    fn empty() -> ManifestState {
        ManifestState::new([7; 16], 1, &Arc::new(Graveyard::default()))
    }

    #[test]
    fn the_start_of_the_log_never_moves_back() {
        let mut state = empty();
        for (lsn, start) in [(8192, 8192), (4096, 8192), (12_288, 12_288), (0, 12_288)] {
            state.apply(&Edit::new(vec![Change::WalStart { lsn }])).expect("a sound edit");
            assert_eq!(state.wal_start, start, "after {lsn}");
        }
    }

    #[test]
    fn a_snapshot_keeps_the_mark_of_closing_and_the_first_write_after_it_voids_it() {
        let mut state = empty();
        let closed = ClosedWal { base: 4096, end: 8200 };
        let edit = Edit::new(vec![Change::SeqHigh { seq: 4096 }, Change::Closed(closed)]);
        state.apply(&edit).expect("a sound edit");
        let mut copy = empty();
        copy.apply(&state.snapshot()).expect("a sound edit");
        assert_eq!(copy.closed, Some(closed));
        copy.apply(&Edit::new(vec![Change::SeqHigh { seq: 12_288 }])).expect("a sound edit");
        assert_eq!(copy.closed, None);
    }

    #[test]
    fn a_table_of_two_keyspaces_is_damage() {
        let options = || KeyspaceOptions {
            memtable_type: MemtableType::Trie.into(),
            max_memtable_size: 1 << 20,
            logged: true,
            compaction: Compaction::default(),
        };
        let table = |keyspace, number| {
            let end = Upper::Included(b"z".to_vec());
            let stored = TableMeta::for_tests(number, b"a", end).stored(RunId::first(1));
            Change::TableAdd(StoredTable { keyspace, ..stored })
        };
        let mut state = empty();
        let mut changes = Change::new_keyspace(0, "default".to_owned(), options());
        changes.extend(Change::new_keyspace(1, "other".to_owned(), options()));
        changes.extend([table(0, 7), table(1, 8)]);
        state.apply(&Edit::new(changes)).expect("a sound edit");
        assert_eq!(state.check(), Ok(()));
        let twice = Edit::new(vec![Change::TableDrop { keyspace: 1, number: 8 }, table(1, 7)]);
        state.apply(&twice).expect("each keyspace is sound");
        assert!(state.check().is_err_and(|what| what.contains("table 7")));
    }

    #[test]
    fn a_snapshot_keeps_runs_and_strategies_and_other_options_leave_the_strategy() {
        let mut state = empty();
        let options = KeyspaceOptions {
            memtable_type: MemtableType::Trie.into(),
            max_memtable_size: 1 << 20,
            logged: true,
            compaction: Compaction::Tiered,
        };
        let table = |number, rank| {
            let end = Upper::Included(b"z".to_vec());
            let run = RunId { level: 2, rank };
            Change::TableAdd(TableMeta::for_tests(number, b"a", end).stored(run))
        };
        let mut changes = Change::new_keyspace(0, "default".to_owned(), options.clone());
        changes.extend([table(7, 0), table(9, 4), table(8, 3)]);
        state.apply(&Edit::new(changes)).expect("a sound edit");
        let other = KeyspaceOptions { max_memtable_size: 1 << 21, ..options.clone() };
        let changes = state.option_changes(0, &other);
        assert_eq!(changes.len(), 1, "{changes:?}");
        state.apply(&Edit::new(changes)).expect("a sound edit");

        let mut copy = empty();
        let bytes = state.snapshot().encode(0);
        copy.apply(&Edit::decode(&bytes, 0).expect("just encoded")).expect("a sound edit");
        let copy = copy.keyspace(0);
        assert_eq!(copy.options, other);
        let runs = copy.version.runs().iter().map(|run| (run.id.rank, run.tables()[0].number));
        assert_eq!(runs.collect::<Vec<_>>(), [(4, 9), (3, 8), (0, 7)]);
    }
}
