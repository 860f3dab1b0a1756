//! What a damaged directory still says of the database it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memtide_base::sync::Arc;
use memtide_base::{Result, SeqNo};
use memtide_env::{Env, Vfs};
use memtide_memtable::Registry;
use memtide_storage::blob::BlobFile;
use memtide_storage::log::{LogReader, Opened, parse_manifest_file_name, parse_wal_file_name};
use memtide_storage::table::footer_identity;

use super::super::verify::has_files;
use crate::config::{Config, DEFAULT_KEYSPACE, KeyspaceOptions};
use crate::files::{self, BLOB_DIR, Layout, TABLE_DIR, WAL_DIR};
use crate::recovery;
use crate::version::{self, ClosedWal, Graveyard, ManifestState};

/// Numbers beyond were not counted up to: a file with such a name is not ours.
const NUMBER_MAX: u64 = 1 << 62;

/// A keyspace of the new database.
pub(super) struct Keyspace {
    pub(super) id: u32,
    pub(super) name: String,
    pub(super) options: KeyspaceOptions,
    pub(super) flushed_to: SeqNo,
}

/// What is known of the database.
pub(super) struct Found {
    pub(super) uuid: [u8; 16],
    pub(super) hash_seed: u64,
    pub(super) keyspaces: Vec<Keyspace>,
    pub(super) next_keyspace: u32,
    pub(super) next_file: u64,
    /// The manifest that counts.
    pub(super) state: Option<ManifestState>,
    /// What an unsound manifest said, which may be long past.
    pub(super) past: Option<ManifestState>,
    pub(super) wal_start: u64,
    pub(super) closed: Option<ClosedWal>,
    pub(super) seq_high: SeqNo,
    pub(super) rebuilt: Option<String>,
    pub(super) notes: Vec<String>,
    /// Where the files with these numbers, or bases, lie: by what they say of themselves, or by their names.
    pub(super) tables: BTreeMap<u64, PathBuf>,
    pub(super) blobs: BTreeMap<u64, PathBuf>,
    pub(super) segments: BTreeMap<u64, PathBuf>,
}

/// What a file says of itself.
struct Own {
    number: u64,
    uuid: [u8; 16],
    /// Where the segment before ends, for a segment.
    begins: u64,
}

impl Found {
    pub(super) fn read(env: &Env, layout: &Layout) -> Result<Self> {
        let vfs = &*env.vfs;
        let (mut state, mut why) = manifest(vfs, layout)?;
        let files = Files::list(vfs, layout);
        let (mut past, mut notes) = (None, Vec::new());
        if state.as_ref().is_some_and(|state| files.are_ahead_of(state)) {
            // It was cut, which looks as if it had never been longer.
            why = "the manifest is older than tables and log".to_owned();
            past = state.take();
        }
        let votes = files.uuid();
        if let Some(votes) = votes
            && state.as_ref().is_some_and(|state| !files.are_of(state.uuid))
        {
            why = "the manifest is of another database".to_owned();
            state = None;
            notes.push(format!("the files are of database {}", hex(votes)));
        }
        let past = past.or_else(|| if state.is_some() { None } else { partly(vfs, layout) });
        let past = past.filter(|past| votes.is_none() || files.are_of(past.uuid));
        let known = state.as_ref().or(past.as_ref());
        let uuid = known.map_or_else(|| votes.unwrap_or_default(), |state| state.uuid);
        let hash_seed = known.map_or_else(|| env.random.next_u64(), |state| state.hash_seed);
        let mut found = Self {
            uuid,
            hash_seed,
            keyspaces: Vec::new(),
            next_keyspace: known.map_or(1, |state| state.next_keyspace).max(1),
            next_file: known.map_or(1, |state| state.next_file),
            wal_start: state.as_ref().map_or(0, |state| state.wal_start),
            closed: state.as_ref().and_then(|state| state.closed),
            seq_high: state.as_ref().map_or(0, |state| state.seq_high),
            rebuilt: state.is_none().then_some(why),
            notes: std::mem::take(&mut notes),
            tables: BTreeMap::new(),
            blobs: BTreeMap::new(),
            segments: BTreeMap::new(),
            state,
            past,
        };
        (found.tables, found.blobs, found.segments) = (
            files.tables.by_number(uuid, &mut found.notes),
            files.blobs.by_number(uuid, &mut found.notes),
            files.segments.by_number(uuid, &mut found.notes),
        );
        let numbers = found.tables.keys().chain(found.blobs.keys());
        let above = numbers.chain(&files.manifests).max().map_or(1, |number| number + 1);
        found.next_file = found.next_file.max(above);
        for record in found.state.iter().chain(&found.past).flat_map(|state| &state.keyspaces) {
            // What an unsound manifest says of tables is past, and so is how much was in them.
            let flushed_to = if found.state.is_some() { record.flushed_to } else { 0 };
            let (id, name, options) = (record.id, record.name.clone(), record.options.clone());
            found.keyspaces.push(Keyspace { id, name, options, flushed_to });
        }
        found.keyspace(0)?;
        Ok(found)
    }

    /// The keyspace with this id; one that nothing names gets a name by its id.
    pub(super) fn keyspace(&mut self, id: u32) -> Result<&mut Keyspace> {
        let at = match self.keyspaces.binary_search_by_key(&id, |keyspace| keyspace.id) {
            Ok(at) => at,
            Err(at) => {
                let name =
                    if id == 0 { DEFAULT_KEYSPACE.to_owned() } else { format!("keyspace-{id}") };
                self.notes.push(format!(
                    "keyspace {id}: name and options are not known; it is {name:?} with those of the default preset"
                ));
                self.keyspaces.insert(at, made(id, name)?);
                self.next_keyspace = self.next_keyspace.max(id.saturating_add(1));
                at
            }
        };
        Ok(&mut self.keyspaces[at])
    }

    /// A keyspace of its own for the rows of a table that does not say any more where they belong.
    pub(super) fn keyspace_of_table(&mut self, number: u64) -> Result<u32> {
        let id = self.next_keyspace;
        self.next_keyspace += 1;
        let name = format!("table-{number:016x}");
        self.notes.push(format!(
            "table {number:016x}: its keyspace is not known; its rows are in {name:?}"
        ));
        self.keyspaces.push(made(id, name)?);
        Ok(id)
    }

    pub(super) fn name_of(&self, id: u32) -> Option<String> {
        self.keyspaces.iter().find(|keyspace| keyspace.id == id).map(|known| known.name.clone())
    }
}

fn hex(uuid: [u8; 16]) -> String {
    uuid.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn made(id: u32, name: String) -> Result<Keyspace> {
    let config = Config::default();
    let settings = config.resolve(&Registry::new())?;
    let options = config.keyspace_options(&settings, &name, None);
    Ok(Keyspace { id, name, options, flushed_to: 0 })
}

/// The manifest that counts, or why there is none.
fn manifest(vfs: &dyn Vfs, layout: &Layout) -> Result<(Option<ManifestState>, String)> {
    let graveyard = Arc::<Graveyard>::default();
    let current = match version::read_current(vfs, layout) {
        Ok(None) if !has_files(vfs, layout) => return Err(recovery::no_database(layout.root())),
        Ok(current) => current.ok_or("CURRENT is missing".to_owned()),
        Err(error) if error.is_corruption() => Err(error.to_string()),
        Err(error) => return Err(error),
    };
    let mut why = current.as_ref().err().cloned().unwrap_or_default();
    let numbers = manifests(vfs, layout);
    // A manifest above the one that counts was being made from it; one below is past.
    let least = current.unwrap_or_default();
    for number in numbers.into_iter().rev().filter(|number| *number >= least) {
        match version::load(vfs, layout, number, &graveyard) {
            Ok((state, _)) => return Ok((Some(state), why)),
            Err(error) if error.is_corruption() => {
                if why.is_empty() || least > 0 {
                    why = error.to_string();
                }
                // One that was never whole says nothing; damage in another makes those below it past.
                if version::load_partly(vfs, layout, number).is_some() {
                    break;
                }
            }
            Err(error) => return Err(error),
        }
    }
    if why.is_empty() {
        why = "no manifest is there".to_owned();
    }
    Ok((None, why))
}

fn partly(vfs: &dyn Vfs, layout: &Layout) -> Option<ManifestState> {
    manifests(vfs, layout).into_iter().rev().find_map(|at| version::load_partly(vfs, layout, at))
}

fn manifests(vfs: &dyn Vfs, layout: &Layout) -> Vec<u64> {
    let found = vfs.list(layout.root()).unwrap_or_default();
    let numbers = found.iter().filter_map(|entry| parse_manifest_file_name(&entry.name));
    let mut numbers: Vec<u64> = numbers.filter(|number| *number < NUMBER_MAX).collect();
    numbers.sort_unstable();
    numbers
}

/// The files with our names.
struct Files {
    tables: OfAKind,
    blobs: OfAKind,
    segments: OfAKind,
    manifests: Vec<u64>,
}

/// Each with the number in its name and what it says of itself.
#[derive(Default)]
struct OfAKind(Vec<(u64, PathBuf, Option<Own>)>);

impl Files {
    fn list(vfs: &dyn Vfs, layout: &Layout) -> Self {
        let table = |name: &Path| {
            let file = layout.open_read(vfs, name).ok()?;
            let identity = footer_identity(&file, name).ok()??;
            Some(Own { number: identity.number, uuid: identity.db_uuid, begins: 0 })
        };
        let blob = |name: &Path| {
            let file = layout.open_read(vfs, name).ok()?;
            let (_, identity) = BlobFile::open_damaged(file, name.to_path_buf(), 0).ok()?;
            identity.map(|of| Own { number: of.number, uuid: of.db_uuid, begins: 0 })
        };
        let segment = |name: &Path| match LogReader::open(vfs, &layout.at(name), name).ok()? {
            Opened::Log(reader) => {
                let header = reader.header();
                Some(Own { number: header.base, uuid: header.db_uuid, begins: header.prev_end })
            }
            Opened::Torn { .. } => None,
        };
        Self {
            tables: OfAKind::list(vfs, layout, TABLE_DIR, files::parse_table_name, &table),
            blobs: OfAKind::list(vfs, layout, BLOB_DIR, files::parse_blob_name, &blob),
            segments: OfAKind::list(vfs, layout, WAL_DIR, parse_wal_file_name, &segment),
            manifests: manifests(vfs, layout),
        }
    }

    /// Whether log that a manifest needs is gone, and there are files of which it does not know.
    fn are_ahead_of(&self, state: &ManifestState) -> bool {
        let of = |kind: &OfAKind| {
            let mut ours = kind.0.iter().filter_map(|(_, _, own)| own.as_ref());
            ours.any(|own| own.uuid == state.uuid && own.number >= state.next_file)
        };
        let oldest = self.segments.0.iter().min_by_key(|(base, ..)| *base);
        let begins = oldest.and_then(|(_, _, own)| own.as_ref()).map_or(0, |own| own.begins);
        begins > state.wal_start && (of(&self.tables) || of(&self.blobs))
    }

    /// The database that most files say they are of.
    fn uuid(&self) -> Option<[u8; 16]> {
        let mut votes = BTreeMap::<[u8; 16], u64>::new();
        for kind in [&self.tables, &self.blobs, &self.segments] {
            for own in kind.0.iter().filter_map(|(_, _, own)| own.as_ref()) {
                *votes.entry(own.uuid).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(uuid, _)| uuid)
    }

    /// Whether any of them is of this database.
    fn are_of(&self, uuid: [u8; 16]) -> bool {
        let kinds = [&self.tables, &self.blobs, &self.segments];
        let mut all = kinds.into_iter().flat_map(|kind| &kind.0);
        all.any(|(_, _, own)| own.as_ref().is_some_and(|own| own.uuid == uuid))
    }
}

impl OfAKind {
    fn list(
        vfs: &dyn Vfs,
        layout: &Layout,
        dir: &str,
        parse: fn(&Path) -> Option<u64>,
        own: &dyn Fn(&Path) -> Option<Own>,
    ) -> Self {
        let found = vfs.list(&layout.at(dir)).unwrap_or_default();
        let ours = found.into_iter().filter(|entry| entry.is_file).filter_map(|entry| {
            let number = parse(&entry.name).filter(|number| *number < NUMBER_MAX)?;
            let name = Path::new(dir).join(entry.name);
            let own = own(&name);
            Some((number, name, own))
        });
        Self(ours.collect())
    }

    /// Where each lies: what a file says of itself counts more than what it is called.
    fn by_number(self, uuid: [u8; 16], notes: &mut Vec<String>) -> BTreeMap<u64, PathBuf> {
        let (mut sure, mut called) = (BTreeMap::new(), BTreeMap::new());
        for (number, name, own) in self.0 {
            match own {
                Some(own) if own.uuid != uuid => {
                    notes.push(format!("{} is of another database and left out", name.display()));
                }
                Some(own) => {
                    if own.number != number {
                        let (name, own) = (name.display(), own.number);
                        notes.push(format!("{name} is the file with the number {own:016x}"));
                    }
                    // Of two the one with the right name.
                    if own.number == number || !sure.contains_key(&own.number) {
                        sure.insert(own.number, name);
                    }
                }
                None => drop(called.insert(number, name)),
            }
        }
        for (number, name) in called {
            sure.entry(number).or_insert(name);
        }
        sure
    }
}
