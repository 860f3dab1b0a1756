//! Tables and blob files of a rescue: which are copied, which are written anew, and what of them is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use memtide_base::range_tombstone::{Fragment, RangeTombstone, RangeTombstones};
use memtide_base::sync::Arc;
use memtide_base::{Entry, Error, Kind, Result, SeqNo, Upper};
use memtide_storage::blob::{BlobFile, BlobHandle, BlobOptions, BlobSummary, BlobWriter};
use memtide_storage::compress::Codec;
use memtide_storage::table::{
    Piece, Properties, Survey, Table, TableBuilder, TableOptions, TableSummary,
};
use memtide_storage::{FileIdentity, file_checksum};

use super::super::Depth;
use super::super::check::{Look, shared_by_none};
use super::found::Found;
use super::rows::{Merge, Source, TableLoss};
use super::{Keep, KeySpan, Loss, Rescue};
use crate::files;
use crate::version::{
    BlobMeta, Change, Graveyard, RunId, StoredBlob, StoredTable, TableMeta, Version,
};

/// Bytes at which a new table ends.
const TABLE_BYTES: u64 = 64 << 20;
/// Of a block in a new table.
const BLOCK_BYTES: usize = 4096;
const FILTER_BITS: u32 = 10;

/// A blob file of the source.
struct Blob {
    file: BlobFile,
    /// Where it lies.
    name: PathBuf,
    /// What the manifest is to say of it, if it is sound.
    sound: Option<StoredBlob>,
}

impl Blob {
    /// Whether it is sound and of this keyspace: tables of others cannot refer to it.
    fn is_of(&self, keyspace: u32) -> bool {
        self.sound.is_some_and(|sound| sound.keyspace == keyspace)
    }
}

type Blobs = BTreeMap<u64, Blob>;

/// A table of the source.
struct Candidate {
    source: Source,
    keyspace: u32,
    run: RunId,
    /// What the manifest is to say of it, if it is sound.
    sound: Option<StoredTable>,
    damage: Option<String>,
}

impl Rescue<'_> {
    /// Brings all tables over, and the blob files that they refer to.
    pub(super) fn tables(&mut self, found: &mut Found) -> Result<Vec<Change>> {
        let mut blobs = Blobs::new();
        let candidates = match found.state.take() {
            Some(state) => {
                let mut candidates = Vec::new();
                for record in &state.keyspaces {
                    self.known_blobs(found, &record.version, &mut blobs)?;
                    self.known_tables(found, &record.version, &mut candidates)?;
                }
                found.state = Some(state);
                candidates
            }
            None => {
                self.unknown_blobs(found, &mut blobs)?;
                self.unknown_tables(found)?
            }
        };
        let mut changes = Vec::new();
        if self.report.rebuilt.is_none() {
            for candidate in candidates {
                let run = candidate.run;
                self.bring(found, &blobs, vec![candidate], run, &mut changes)?;
            }
        } else {
            self.report.lost.push(Loss {
                file: files::TABLE_DIR.into(),
                keyspace: None,
                keys: Some(KeySpan { from: None, to: None }),
                seqs: None,
                what: "no manifest says which tables count: what was deleted may show again, and no file of which \
                       nothing is left is missed"
                    .to_owned(),
            });
            let mut of_keyspace = BTreeMap::<u32, Vec<Candidate>>::new();
            for candidate in candidates {
                of_keyspace.entry(candidate.keyspace).or_default().push(candidate);
            }
            for candidates in of_keyspace.into_values() {
                self.bring(found, &blobs, candidates, RunId::first(1), &mut changes)?;
            }
        }
        self.blobs_in_use(&blobs, &mut changes)?;
        Ok(changes)
    }

    /// Copies the tables if all are sound and disjoint, or else writes what can be kept of them into a run.
    fn bring(
        &mut self,
        found: &mut Found,
        blobs: &Blobs,
        candidates: Vec<Candidate>,
        run: RunId,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let mut kept = Vec::new();
        for candidate in candidates {
            let lacks = candidate.sound.as_ref().and_then(|stored| {
                let mut refs = stored.summary.blobs.iter();
                refs.find(|of| {
                    !blobs.get(&of.number).is_some_and(|blob| blob.is_of(stored.keyspace))
                })
            });
            let damage = candidate.damage.clone().or_else(|| {
                lacks.map(|of| {
                    format!("blob file {:016x}, to which it refers, is damaged", of.number)
                })
            });
            match damage {
                Some(what) if self.keep == Keep::Whole => self.lose_table(found, &candidate, what),
                damage => kept.push((candidate, damage.is_some())),
            }
        }
        let disjoint = {
            let bounds = kept.iter().map(|(candidate, _)| candidate.source.bounds.clone());
            let mut bounds: Vec<_> = bounds.collect();
            bounds.sort();
            bounds.windows(2).all(|pair| match (&pair[0], &pair[1]) {
                (Some((_, Some(to))), Some((from, _))) => to < from,
                _ => false,
            })
        };
        if disjoint && kept.iter().all(|(_, is_damaged)| !is_damaged) {
            for (candidate, _) in kept {
                let Some(mut stored) = candidate.sound else { continue };
                stored.run = run;
                let to = files::table_name(stored.number);
                let TableSummary { size, checksum, .. } = stored.summary;
                self.copy(&candidate.source.name, &to, size, checksum)?;
                reach(found, &stored);
                changes.push(Change::TableAdd(stored));
            }
            return Ok(());
        }
        let Some(keyspace) = kept.first().map(|(candidate, _)| candidate.keyspace) else {
            return Ok(());
        };
        let sources = kept.into_iter().map(|(candidate, _)| candidate.source).collect();
        self.write(found, blobs, keyspace, run, sources, changes)
    }

    /// Writes the sound rows of tables anew.
    fn write(
        &mut self,
        found: &mut Found,
        blobs: &Blobs,
        keyspace: u32,
        run: RunId,
        sources: Vec<Source>,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        let name = found.name_of(keyspace);
        let mut tombstones: Vec<RangeTombstone> = Vec::new();
        for source in &sources {
            let (mut of_source, loss) = source.tombstones()?;
            tombstones.append(&mut of_source);
            self.report.lost.extend(loss.map(|loss| loss_of(loss, name.clone())));
        }
        // One that was cut where tables were comes in parts, each its own; a part that comes twice is one.
        let mut seen = BTreeSet::new();
        tombstones.retain(|t| seen.insert((t.start.clone(), t.end.clone(), t.seq)));
        let fragments = RangeTombstones::new(&tombstones).fragments().to_vec();
        let mut out = Output {
            rescue: self,
            uuid: found.uuid,
            hash_seed: found.hash_seed,
            keyspace,
            run,
            fragments,
            begins: Vec::new(),
            open: None,
            blob: None,
            done: Vec::new(),
        };
        let mut merge = Merge::new(sources)?;
        // Keys whose values are lost, one behind the other.
        let mut gone: Option<TableLoss> = None;
        let mut losses = Vec::new();
        let mut last_key: Option<Vec<u8>> = None;
        while merge.next()? {
            let Some(row) = merge.row() else { break };
            if last_key.as_deref() != Some(row.key) {
                out.cut_if_full(row.key)?;
                last_key = Some(row.key.to_vec());
            }
            let entry = Entry { key: row.key, seq: row.seq, kind: row.kind, value: row.value };
            match out.add(blobs, entry)? {
                None => losses.extend(gone.take()),
                Some(what) => {
                    let keys = KeySpan { from: Some(row.key.to_vec()), to: Some(row.key.to_vec()) };
                    match &mut gone {
                        Some(gone) if gone.name == *row.name => {
                            gone.keys.to = keys.to;
                            let (min, max) = gone.seqs.unwrap_or((row.seq, row.seq));
                            gone.seqs = Some((min.min(row.seq), max.max(row.seq)));
                        }
                        gone => {
                            let (name, seqs) = (row.name.clone(), Some((row.seq, row.seq)));
                            losses.extend(gone.replace(TableLoss { name, seqs, keys, what }));
                        }
                    }
                }
            }
        }
        losses.extend(gone);
        out.finish(None)?;
        out.finish_blob()?;
        let done = std::mem::take(&mut out.done);
        losses.append(&mut merge.losses);
        self.report.lost.extend(losses.into_iter().map(|loss| loss_of(loss, name.clone())));
        for change in done {
            if let Change::TableAdd(stored) = &change {
                self.report.tables_written += 1;
                self.report.rows_kept += stored.summary.rows;
                reach(found, stored);
            }
            changes.push(change);
        }
        Ok(())
    }

    fn lose_table(&mut self, found: &Found, candidate: &Candidate, what: String) {
        let (from, to) =
            candidate.source.bounds.clone().map_or((None, None), |(a, b)| (Some(a), b));
        self.report.lost.push(Loss {
            file: candidate.source.name.clone(),
            keyspace: found.name_of(candidate.keyspace),
            keys: Some(KeySpan { from, to }),
            seqs: candidate.source.seqs,
            what,
        });
    }

    fn known_blobs(&self, found: &Found, version: &Version, into: &mut Blobs) -> Result<()> {
        let vfs = &*self.env.vfs;
        for meta in version.blobs() {
            let Some(name) = found.blobs.get(&meta.number) else { continue };
            let look = self.look(found, name);
            let sound = matches!(look.blob(meta), Ok((_, Ok(())))).then_some(StoredBlob {
                keyspace: meta.keyspace,
                number: meta.number,
                summary: meta.summary,
            });
            let Ok(file) = self.from.open_read(vfs, name) else { continue };
            let (file, _) = BlobFile::open_damaged(file, name.clone(), meta.summary.salt)?;
            into.insert(meta.number, Blob { file, name: name.clone(), sound });
        }
        Ok(())
    }

    fn known_tables(
        &mut self,
        found: &Found,
        version: &Version,
        into: &mut Vec<Candidate>,
    ) -> Result<()> {
        let level0 = version.level0().iter().map(|meta| (RunId::first(0), meta));
        let deeper = version.runs().iter().flat_map(|run| run.tables().iter().map(|t| (run.id, t)));
        for (run, meta) in level0.chain(deeper) {
            let own = files::table_name(meta.number);
            let name = found.tables.get(&meta.number);
            let opened = name.and_then(|name| {
                self.from.open_read(&*self.env.vfs, name).ok().map(|file| (name, file))
            });
            let Some((name, file)) = opened else {
                let (from, to) = bounds(meta);
                self.report.lost.push(Loss {
                    file: own,
                    keyspace: found.name_of(meta.keyspace),
                    keys: Some(KeySpan { from: Some(from), to }),
                    seqs: seqs(meta),
                    what: "the file is missing, or another lies in its place".to_owned(),
                });
                continue;
            };
            let look = self.look(found, name);
            let looked = look.table(meta).and_then(|table| {
                // Blob files are judged by themselves; places in them with the values.
                look.handles(version, &BTreeMap::new(), &table)
            });
            let damage = match looked {
                Ok(()) => None,
                Err(error) if error.is_corruption() => Some(error.to_string()),
                Err(error) => return Err(error),
            };
            let sound = damage.is_none().then(|| meta.stored(run));
            into.push(Candidate {
                source: source(found.uuid, meta, file, name),
                keyspace: meta.keyspace,
                run,
                sound,
                damage,
            });
        }
        Ok(())
    }

    fn look<'l>(&'l self, found: &Found, name: &'l Path) -> LookAt<'l> {
        LookAt { rescue: self, uuid: found.uuid, name }
    }

    /// Every blob file that says what it is, if no manifest does.
    fn unknown_blobs(&mut self, found: &Found, into: &mut Blobs) -> Result<()> {
        let vfs = &*self.env.vfs;
        for (number, name) in &found.blobs {
            let file = self.from.open_read(vfs, name)?;
            let past = found.past.iter().flat_map(|state| &state.keyspaces);
            let past = past.filter_map(|keyspace| keyspace.version.blob(*number)).next();
            let salt = past.map_or(0, |meta| meta.summary.salt);
            let (damaged, identity) =
                BlobFile::open_damaged(Arc::clone(&file), name.clone(), salt)?;
            let (size, salt) = (damaged.size(), damaged.salt());
            let sound = identity.and_then(|identity| {
                let (file, name) = (Arc::clone(&file), name.clone());
                let values =
                    BlobFile::open(file, name, identity, size).and_then(|b| b.verify()).ok()?;
                Some((identity, values))
            });
            let sound = match sound {
                None => None,
                Some((identity, values)) => {
                    let checksum = file_checksum(&file, name)?;
                    let bytes = size.saturating_sub(memtide_storage::blob::BLOB_HEADER_LEN);
                    let summary = BlobSummary { size, checksum, values, bytes, salt };
                    Some(StoredBlob { keyspace: identity.keyspace, number: *number, summary })
                }
            };
            into.insert(*number, Blob { file: damaged, name: name.clone(), sound });
        }
        Ok(())
    }

    /// Every table that is there, if no manifest says which are.
    fn unknown_tables(&mut self, found: &mut Found) -> Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        for (number, name) in found.tables.clone() {
            let file = self.from.open_read(&*self.env.vfs, &name)?;
            let past = found.past.iter().flat_map(|state| &state.keyspaces).find_map(|keyspace| {
                keyspace.version.tables().find(|table| table.number == number).cloned()
            });
            let salt = past.as_ref().map_or(0, |table| table.salt);
            let mut survey = Survey::open(Arc::clone(&file), name.clone(), salt)?;
            let mut own: Option<Properties> = None;
            while let Some(piece) = survey.next_piece()? {
                if let Piece::Block(block) = piece {
                    own = own.or(block.properties().ok().flatten());
                }
            }
            let known = match (&own, &past) {
                (Some(own), _) => Some((own.identity.keyspace, summary_of(own))),
                (None, Some(past)) => Some((past.keyspace, past.summary())),
                (None, None) => None,
            };
            let run = RunId::first(1);
            let Some((keyspace, summary)) = known else {
                if self.keep == Keep::Whole {
                    let what = "neither its properties nor a manifest say what it holds".to_owned();
                    let keys = Some(KeySpan { from: None, to: None });
                    self.report.lost.push(Loss {
                        file: name,
                        keyspace: None,
                        keys,
                        seqs: None,
                        what,
                    });
                    continue;
                }
                let keyspace = found.keyspace_of_table(number)?;
                let identity = (number, found.uuid);
                let source =
                    Source { file, name, identity, salt, counts: None, bounds: None, seqs: None };
                candidates.push(Candidate {
                    source,
                    keyspace,
                    run,
                    sound: None,
                    damage: Some(String::new()),
                });
                continue;
            };
            found.keyspace(keyspace)?;
            let identity = FileIdentity { db_uuid: found.uuid, number, keyspace };
            let size = file.len().map_err(|error| Error::io("measure", &name, error))?;
            let shared = shared_by_none();
            let looked = Table::open(Arc::clone(&file), name.clone(), identity, size, &shared)
                .and_then(|table| table.verify());
            let damage = match looked {
                Ok(()) => None,
                Err(error) if error.is_corruption() => Some(error.to_string()),
                Err(error) => return Err(error),
            };
            let sound = match damage {
                Some(_) => None,
                None => {
                    let checksum = file_checksum(&file, &name)?;
                    let summary = TableSummary { size, checksum, salt, ..summary.clone() };
                    Some(StoredTable { keyspace, run, number, summary })
                }
            };
            let meta = TableMeta::new(number, keyspace, summary, &Arc::<Graveyard>::default());
            candidates.push(Candidate {
                source: source(found.uuid, &meta, file, &name),
                keyspace,
                run,
                sound,
                damage,
            });
        }
        Ok(candidates)
    }

    /// Copies the sound blob files to which a table of the new database refers.
    fn blobs_in_use(&mut self, blobs: &Blobs, changes: &mut Vec<Change>) -> Result<()> {
        let mut used = BTreeSet::new();
        for change in changes.iter() {
            if let Change::TableAdd(table) = change {
                used.extend(table.summary.blobs.iter().map(|of| of.number));
            }
        }
        for (number, blob) in blobs.iter().filter(|(number, _)| used.contains(number)) {
            let Some(stored) = blob.sound else { continue };
            let to = files::blob_name(*number);
            self.copy(&blob.name, &to, stored.summary.size, stored.summary.checksum)?;
            changes.push(Change::BlobAdd(stored));
        }
        Ok(())
    }
}

/// Looks at one file of the source, wherever it lies.
struct LookAt<'l> {
    rescue: &'l Rescue<'l>,
    uuid: [u8; 16],
    name: &'l Path,
}

impl LookAt<'_> {
    fn with<T>(&self, look: impl FnOnce(&Look<'_>) -> T) -> T {
        let found_as = |_: &Path| self.name.to_path_buf();
        let (vfs, layout) = (&*self.rescue.env.vfs, &self.rescue.from);
        look(&Look { found_as: &found_as, ..Look::new(vfs, layout, self.uuid, Depth::Full) })
    }

    fn table(&self, meta: &TableMeta) -> Result<Arc<Table>> {
        self.with(|look| look.table(meta))
    }

    fn blob(&self, meta: &BlobMeta) -> Result<(BlobFile, Result<()>)> {
        self.with(|look| look.blob(meta))
    }

    fn handles(
        &self,
        version: &Version,
        blobs: &BTreeMap<u64, BlobFile>,
        table: &Arc<Table>,
    ) -> Result<()> {
        self.with(|look| look.handles(version, blobs, table))
    }
}

/// New tables being written.
struct Output<'r, 'e> {
    rescue: &'r mut Rescue<'e>,
    uuid: [u8; 16],
    hash_seed: u64,
    keyspace: u32,
    run: RunId,
    fragments: Vec<Fragment>,
    /// Where the present table's share of the keys begins.
    begins: Vec<u8>,
    open: Option<(u64, TableBuilder)>,
    blob: Option<(u64, BlobWriter)>,
    done: Vec<Change>,
}

impl Output<'_, '_> {
    /// Adds a version, moving its value out of a blob file that stays behind; why it is lost if it is.
    fn add(&mut self, blobs: &Blobs, entry: Entry<'_>) -> Result<Option<String>> {
        if entry.kind != Kind::BlobHandle {
            self.builder()?.add(entry)?;
            return Ok(None);
        }
        let Some(handle) = BlobHandle::decode(entry.value) else {
            return Ok(Some("the place of the value is none".to_owned()));
        };
        let number = handle.number;
        let Some(blob) = blobs.get(&number) else {
            return Ok(Some(format!("the value is in blob file {number:016x}, which is missing")));
        };
        let read = if blob.is_of(self.keyspace) {
            blob.file.check(entry.key, handle).map(|()| None)
        } else {
            blob.file.get(entry.key, handle).map(Some)
        };
        match read {
            Ok(None) => self.builder()?.add(entry)?,
            Ok(Some(value)) => {
                let handle = self.blob()?.add(entry.key, &value)?;
                let mut bytes = Vec::new();
                handle.encode(&mut bytes);
                self.builder()?.add(Entry { value: &bytes, ..entry })?;
            }
            Err(error) if error.is_corruption() => return Ok(Some(error.to_string())),
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    fn cut_if_full(&mut self, key: &[u8]) -> Result<()> {
        let is_full = |builder: &TableBuilder| {
            builder.estimated_bytes() >= TABLE_BYTES || builder.should_finish()
        };
        match &self.open {
            Some((_, builder)) if is_full(builder) => self.finish(Some(key)),
            _ => Ok(()),
        }
    }

    fn builder(&mut self) -> Result<&mut TableBuilder> {
        if self.open.is_none() {
            let number = self.rescue.take_number();
            let (env, name) = (self.rescue.env, files::table_name(number));
            let file = env.vfs.create(&self.rescue.to.at(&name), 0);
            let file = file.map_err(|error| Error::io("create", &name, error))?;
            let options = TableOptions {
                block_bytes: BLOCK_BYTES,
                partition_blocks: 0,
                codec: Codec::fastest(),
                filter_bits_per_key: FILTER_BITS,
                hash_seed: self.hash_seed,
                salt: env.random.next_u64(),
                created_ms: env.clock.wall_ms(),
            };
            let builder = TableBuilder::new(file, name, self.identity(number), options);
            self.open = Some((number, builder));
        }
        Ok(&mut self.open.as_mut().expect("made just now").1)
    }

    fn blob(&mut self) -> Result<&mut BlobWriter> {
        if self.blob.as_ref().is_some_and(|(_, writer)| writer.size() >= 8 * TABLE_BYTES) {
            self.finish_blob()?;
        }
        if self.blob.is_none() {
            let number = self.rescue.take_number();
            let (env, name) = (self.rescue.env, files::blob_name(number));
            let file = env.vfs.create(&self.rescue.to.at(&name), 0);
            let file = file.map_err(|error| Error::io("create", &name, error))?;
            let options = BlobOptions { codec: Codec::fastest(), salt: env.random.next_u64() };
            self.blob =
                Some((number, BlobWriter::new(file, name, self.identity(number), options)?));
        }
        Ok(&mut self.blob.as_mut().expect("made just now").1)
    }

    fn identity(&self, number: u64) -> FileIdentity {
        FileIdentity { db_uuid: self.uuid, number, keyspace: self.keyspace }
    }

    /// Ends the present table before `cut`; the range tombstones of its share go with it.
    fn finish(&mut self, cut: Option<&[u8]>) -> Result<()> {
        let share = self.fragments.iter().filter_map(|f| f.clipped(&self.begins, cut));
        for fragment in share.collect::<Vec<_>>() {
            self.builder()?.add_range_tombstone(&fragment)?;
        }
        self.begins = cut.unwrap_or_default().to_vec();
        if let Some((number, builder)) = self.open.take() {
            let (summary, keyspace, run) = (builder.finish()?, self.keyspace, self.run);
            self.done.push(Change::TableAdd(StoredTable { keyspace, run, number, summary }));
        }
        Ok(())
    }

    fn finish_blob(&mut self) -> Result<()> {
        if let Some((number, writer)) = self.blob.take() {
            let (summary, keyspace) = (writer.finish()?, self.keyspace);
            self.done.push(Change::BlobAdd(StoredBlob { keyspace, number, summary }));
        }
        Ok(())
    }
}

/// All writes of the keyspace up to the newest in a table are in tables: memtables are flushed oldest first.
fn reach(found: &mut Found, stored: &StoredTable) {
    let of = found.keyspaces.iter_mut().find(|keyspace| keyspace.id == stored.keyspace);
    if let Some(keyspace) = of {
        keyspace.flushed_to = keyspace.flushed_to.max(stored.summary.seq_max.saturating_add(1));
    }
}

fn loss_of(loss: TableLoss, keyspace: Option<String>) -> Loss {
    let TableLoss { name, seqs, keys, what } = loss;
    Loss { file: name, keyspace, keys: Some(keys), seqs, what }
}

fn summary_of(own: &Properties) -> TableSummary {
    TableSummary {
        size: 0,
        checksum: 0,
        rows: own.rows,
        keys: own.keys,
        deletes: own.deletes,
        range_deletes: own.range_deletes,
        smallest: own.smallest.clone(),
        largest: own.largest.clone(),
        seq_min: own.seq_min,
        seq_max: own.seq_max,
        raw_bytes: own.raw_key_bytes.saturating_add(own.raw_value_bytes),
        blobs: own.blobs.clone(),
        salt: 0,
    }
}

fn source(
    db_uuid: [u8; 16],
    meta: &TableMeta,
    file: Arc<dyn memtide_env::ReadFile>,
    name: &Path,
) -> Source {
    Source {
        file,
        name: name.to_path_buf(),
        identity: (meta.number, db_uuid),
        salt: meta.salt,
        counts: Some((meta.rows, meta.range_deletes)),
        bounds: Some(bounds(meta)),
        seqs: seqs(meta),
    }
}

fn bounds(meta: &TableMeta) -> (Vec<u8>, Option<Vec<u8>>) {
    let to = match &meta.largest {
        Upper::Included(key) | Upper::Excluded(key) => Some(key.clone()),
        Upper::Unbounded => None,
    };
    (meta.smallest.clone(), to)
}

fn seqs(meta: &TableMeta) -> Option<(SeqNo, SeqNo)> {
    Some((meta.seq_min, meta.seq_max))
}
