//! Damaged databases, and what repair and salvage make of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use memtide::{Config, Db, Depth, Durability, ErrorKind, MemtableType, RescueReport, SeqNo};
use memtide_env::vfs::Disk;
use memtide_env::{Simulation, Vfs};

use crate::integrity::config;
use crate::oracle::{self, Change, Draw, NAMES, Span, State, holds};

const ROOT: &str = "/db";
const NEW: &str = "/new";
const SECTOR: u64 = 512;

/// What a write touched.
enum Touched {
    Key(Vec<u8>),
    Range(Span),
}

/// A closed database, what it holds, and which write touched what.
struct Closed {
    disk: Disk,
    state: State,
    writes: Vec<(SeqNo, &'static str, Touched)>,
    files: Vec<PathBuf>,
}

impl Closed {
    fn write(&mut self, db: &Db, changes: &[Change]) {
        let last = oracle::write(db, changes, Durability::Buffered).unwrap();
        self.state.apply(changes);
        // An empty range takes no number: a number too low for some is one that was handed out all the same.
        let first = last + 1 - changes.len() as u64;
        for (change, seq) in changes.iter().zip(first..) {
            let touched = match change {
                Change::Put(_, key, _) | Change::Delete(_, key) => Touched::Key(key.clone()),
                Change::DeleteRange(_, span) => Touched::Range(span.clone()),
            };
            self.writes.push((seq, change.keyspace(), touched));
        }
    }

    fn fill(&mut self, db: &Db, draw: &mut Draw, count: u64) {
        for round in 0..count {
            let mut changes = draw.batch(&NAMES);
            changes
                .retain(|change| !matches!(change, Change::DeleteRange(_, span) if is_empty(span)));
            changes.push(Change::Put("left", draw.key(), draw.value(30)));
            if round % 3 == 0 {
                let mut value = draw.value(30);
                value.resize(70, b'v');
                changes.push(Change::Put("right", draw.key(), value));
            }
            self.write(db, &changes);
        }
    }
}

fn is_empty(span: &Span) -> bool {
    use std::ops::Bound::{Excluded, Included};
    match span {
        (Included(a), Included(b)) => a > b,
        (Included(a) | Excluded(a), Excluded(b)) | (Excluded(a), Included(b)) => {
            a >= b
                || matches!(span, (Excluded(_), Excluded(_))) && [a.as_slice(), &[0]].concat() >= *b
        }
        _ => false,
    }
}

fn open(sim: &Simulation, dir: &str, config: Config) -> Db {
    Db::builder(dir).config(config).env(sim.env.clone()).open().unwrap()
}

/// Tables in level 0 and below it, divided ones too, blob files, range tombstones, a manifest with edits, a log of
/// several segments.
fn made(memtable: MemtableType, seed: u64) -> Closed {
    let sim = Simulation::new(seed);
    let mut draw = Draw::new(seed);
    let mut config = config(memtable);
    config.memory_budget = Some(2 << 20);
    let db = open(&sim, ROOT, config);
    NAMES.iter().for_each(|name| drop(db.keyspace(name).unwrap()));
    let (disk, state) = (Disk::default(), State::default());
    let mut closed = Closed { disk, state, writes: Vec::new(), files: Vec::new() };
    closed.fill(&db, &mut draw, 30);
    db.compact().unwrap();
    closed.fill(&db, &mut draw, 20);
    db.flush().unwrap();
    closed.fill(&db, &mut draw, 10);
    db.flush().unwrap();
    for at in 0..30 {
        let value = vec![7; if at == 0 { 1 } else { 1500 }];
        let key = draw.key();
        closed.write(&db, &[Change::Put("left", key, value)]);
        closed.fill(&db, &mut draw, 1);
    }
    db.close().unwrap();
    closed.disk = sim.vfs.disk();
    closed.files = sim.vfs.files().into_iter().filter(|file| !file.ends_with("LOCK")).collect();
    let count =
        |what: &str| closed.files.iter().filter(|f| f.to_str().unwrap().contains(what)).count();
    assert!(count(".wal") >= 3 && count(".sst") >= 5 && count(".blob") >= 2, "{:?}", closed.files);
    closed
}

fn content(sim: &Simulation, path: &Path) -> Vec<u8> {
    let file = sim.vfs.open_read(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn replace(sim: &Simulation, path: &Path, bytes: &[u8]) {
    let _ = sim.vfs.remove(path);
    sim.vfs.create(path, 0).unwrap().write_at(bytes, 0).unwrap();
}

/// Names the damage if a check panics.
struct Damaged<'a>(&'a str);

impl Drop for Damaged<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("damage: {}", self.0);
        }
    }
}

/// Keys whose values are not what they were.
type Wrong = BTreeSet<(String, Vec<u8>)>;

/// Harms a database, rescues it, and compares: what verifies clean, and which keys differ; each must be excused.
fn judge(
    closed: &Closed,
    what: &str,
    salvages: bool,
    harm: &dyn Fn(&Simulation),
) -> (RescueReport, Wrong) {
    let damaged = Damaged(what);
    let sim = Simulation::on(closed.disk.clone(), 5);
    harm(&sim);
    let inspector = Db::inspect(ROOT).env(sim.env.clone());
    let before = sim.vfs.files();
    let report = match salvages {
        true => inspector.salvage_to(NEW).unwrap(),
        false => inspector.repair_to(NEW, false).unwrap(),
    };
    let source =
        |files: Vec<PathBuf>| files.into_iter().filter(|f| f.starts_with(ROOT)).collect::<Vec<_>>();
    assert_eq!(source(sim.vfs.files()), source(before), "the source changed");
    let verified = Db::inspect(NEW).env(sim.env.clone()).verify(Depth::Full).unwrap();
    assert_eq!(verified.damages, [], "{report:#?}");
    let db = Db::builder(NEW).env(sim.env.clone()).create_if_missing(false).open().unwrap();
    let wrong = differences(closed, &db);
    for (keyspace, key) in &wrong {
        assert!(is_excused(closed, &report, keyspace, key), "{keyspace} {key:?}: {report:#?}");
    }
    // It goes on as any other.
    db.put("afterwards", "written").unwrap();
    db.flush().unwrap();
    db.compact().unwrap();
    assert_eq!(db.verify(Depth::Full).unwrap().damages, []);
    db.delete("afterwards").unwrap();
    assert_eq!(differences(closed, &db), wrong, "upkeep changed what was shown");
    db.close().unwrap();
    drop(damaged);
    (report, wrong)
}

fn differences(closed: &Closed, db: &Db) -> Wrong {
    let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let found = State::of(db).unwrap();
    let mut wrong = Wrong::new();
    for (name, id) in NAMES.iter().zip(0..) {
        // Without a manifest nobody knows their names.
        let called = match db.get_keyspace(name) {
            Some(_) => (*name).to_owned(),
            None => format!("keyspace-{id}"),
        };
        let (want, has) = (closed.state.rows(name, &all), found.rows(&called, &all));
        for (key, _) in want.iter().chain(&has) {
            if closed.state.get(name, key) != found.get(&called, key) {
                wrong.insert(((*name).to_owned(), key.clone()));
            }
        }
    }
    wrong
}

/// Whether the report says that a key is lost: its range, or a write that touched it.
fn is_excused(closed: &Closed, report: &RescueReport, keyspace: &str, key: &[u8]) -> bool {
    report.lost.iter().any(|loss| match (&loss.keys, loss.seqs) {
        (Some(span), _) => {
            loss.keyspace.as_deref().is_none_or(|name| name == keyspace) && span.holds(key)
        }
        (None, Some((from, to))) => closed.writes.iter().any(|(seq, name, touched)| {
            (from..=to).contains(seq)
                && *name == keyspace
                && match touched {
                    Touched::Key(touched) => touched == key,
                    Touched::Range(span) => holds(span, key),
                }
        }),
        (None, None) => true,
    })
}

#[test]
fn what_is_sound_is_copied_whole() {
    for memtable in [MemtableType::Sorted, MemtableType::HashSkiplist, MemtableType::Vector] {
        let closed = made(memtable, 11);
        for salvages in [false, true] {
            let (report, wrong) = judge(&closed, "nothing", salvages, &|_| {});
            assert!(wrong.is_empty() && report.lost.is_empty(), "{report:#?}");
            assert_eq!((report.tables_written, &report.rebuilt), (0, &None));
        }
    }
}

#[test]
fn every_kind_of_file_is_damaged_in_every_way() {
    for (memtable, seed) in
        [(MemtableType::Skiplist, 3), (MemtableType::Trie, 4), (MemtableType::Vector, 5)]
    {
        let closed = made(memtable, seed);
        let other = made(memtable, seed + 40);
        let foreign = Simulation::on(other.disk.clone(), 0);
        for (at, path) in closed.files.iter().enumerate() {
            let len = Simulation::on(closed.disk.clone(), 0).vfs.file_len(path).unwrap();
            let sibling = closed
                .files
                .iter()
                .rfind(|other| *other != path && other.parent() == path.parent());
            let stranger = other.files.iter().rfind(|other| other.extension() == path.extension());
            for salvages in [false, true] {
                let try_with = |what: String, harm: &dyn Fn(&Simulation)| {
                    let _judged =
                        judge(&closed, &format!("{what} {}", path.display()), salvages, harm);
                };
                // Turn by turn, so that each place of some file is met.
                let turn = at as u64 % 3;
                for place in [0, 1 + turn, 3 + turn, 6, 7].map(|eighth| len * eighth / 8) {
                    let place = place.min(len - 1);
                    try_with(format!("bit at {place} of"), &|sim| {
                        sim.vfs.corrupt(path, place, 1 << (place % 8)).unwrap();
                    });
                }
                for place in [len - 1, len.saturating_sub(50), len.saturating_sub(120)] {
                    try_with(format!("bit at {place} of"), &|sim| {
                        sim.vfs.corrupt(path, place, 0x10).unwrap();
                    });
                }
                for sector in [0, len / SECTOR / 2, len.saturating_sub(1) / SECTOR] {
                    try_with(format!("zeroed sector {sector} of"), &|sim| {
                        let mut bytes = content(sim, path);
                        let start = usize::try_from(sector * SECTOR).unwrap();
                        let end = (start + 512).min(bytes.len());
                        bytes[start..end].fill(0);
                        replace(sim, path, &bytes);
                    });
                }
                for to in [0, len / 2, len - 1] {
                    try_with(format!("cut to {to}"), &|sim| {
                        sim.vfs.open_write(path).unwrap().set_len(to).unwrap();
                    });
                }
                try_with("missing".to_owned(), &|sim| sim.vfs.remove(path).unwrap());
                if let Some(sibling) = sibling {
                    try_with(format!("swapped with {}:", sibling.display()), &|sim| {
                        let (a, b) = (content(sim, path), content(sim, sibling));
                        replace(sim, path, &b);
                        replace(sim, sibling, &a);
                    });
                }
                if let Some(stranger) = stranger {
                    try_with(format!("of another database, {}:", stranger.display()), &|sim| {
                        replace(sim, path, &content(&foreign, stranger));
                    });
                }
            }
        }
    }
}

#[test]
fn without_a_manifest_tables_say_what_they_are_and_nothing_that_was_there_is_missing() {
    for (memtable, seed) in [(MemtableType::LinkedList, 6), (MemtableType::EnhancedSkiplist, 7)] {
        let closed = made(memtable, seed);
        for salvages in [false, true] {
            let (report, wrong) = judge(&closed, "no manifest", salvages, &|sim| {
                for path in sim.vfs.files() {
                    if path.to_str().unwrap().contains("MANIFEST") || path.ends_with("CURRENT") {
                        sim.vfs.remove(&path).unwrap();
                    }
                }
            });
            assert!(report.rebuilt.is_some() && !report.notes.is_empty(), "{report:#?}");
            // What was deleted may show again; what was there does.
            for (name, key) in &wrong {
                assert!(closed.state.get(name, key).is_none(), "{name} {key:?}");
            }
        }
        let (report, wrong) = judge(&closed, "no CURRENT", false, &|sim| {
            sim.vfs.remove(&Path::new(ROOT).join("CURRENT")).unwrap();
        });
        assert!(report.lost.is_empty() && wrong.is_empty(), "{report:#?}");
    }
}

#[test]
fn salvage_loses_one_block_where_repair_loses_a_table() {
    let closed = made(MemtableType::Sorted, 12);
    let table =
        closed.files.iter().find(|file| file.extension().is_some_and(|e| e == "sst")).unwrap();
    let (_, by_repair) =
        judge(&closed, "repair", false, &|sim| sim.vfs.corrupt(table, 100, 1).unwrap());
    let (report, by_salvage) =
        judge(&closed, "salvage", true, &|sim| sim.vfs.corrupt(table, 100, 1).unwrap());
    assert!(report.rows_kept > 0 && report.lost.len() == 1, "{report:#?}");
    assert!(by_salvage.len() < by_repair.len(), "{} {}", by_salvage.len(), by_repair.len());
}

#[test]
fn random_damage_costs_only_what_is_listed() {
    let closed = [made(MemtableType::Skiplist, 21), made(MemtableType::HashLinkedList, 22)];
    let mut seeds = oracle::seeds(0..60, 4);
    // A table without a keyspace refers to a blob file that has one; two headers that follow each other are lost.
    seeds.extend([5_887_607_094_730_781_422, 5_346_857_022_553_417_263]);
    for seed in seeds {
        let mut draw = Draw::new(seed);
        let closed = &closed[usize::try_from(seed % 2).unwrap()];
        let harms: Vec<(PathBuf, u64, u64)> = (0..=draw.below(4))
            .map(|_| {
                let path =
                    &closed.files[usize::try_from(draw.below(closed.files.len() as u64)).unwrap()];
                (path.clone(), draw.below(1 << 40), draw.below(3))
            })
            .collect();
        let what = format!("seed {seed}: {harms:?}");
        for salvages in [false, true] {
            judge(closed, &what, salvages, &|sim| {
                for (path, place, kind) in &harms {
                    let mut bytes = content(sim, path);
                    if bytes.is_empty() {
                        continue;
                    }
                    let at = usize::try_from(place % bytes.len() as u64).unwrap();
                    match kind {
                        0 => bytes[at] ^= 0x20,
                        1 => {
                            let end = (at + 300).min(bytes.len());
                            bytes[at..end].fill(0xA5);
                        }
                        _ => bytes.truncate(at),
                    }
                    replace(sim, path, &bytes);
                }
            });
        }
    }
}

#[test]
fn a_target_that_is_not_empty_or_inside_is_refused_and_a_failed_copy_is_no_database() {
    let closed = made(MemtableType::Sorted, 13);
    let sim = Simulation::on(closed.disk.clone(), 5);
    let inspector = Db::inspect(ROOT).env(sim.env.clone());
    for to in [ROOT, "/db/copy"] {
        let error = inspector.salvage_to(to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    let open = Db::builder(ROOT).env(sim.env.clone()).open().unwrap();
    assert_eq!(inspector.repair_to(NEW, false).unwrap_err().kind(), ErrorKind::Locked);
    open.close().unwrap();
    let ops = {
        let sim = Simulation::on(closed.disk.clone(), 5);
        let before = sim.vfs.op_count();
        Db::inspect(ROOT).env(sim.env.clone()).repair_to(NEW, false).unwrap();
        sim.vfs.op_count() - before
    };
    // Every operation fails once: either nothing is a database, or all of it is.
    for op in 0..ops {
        let sim = Simulation::on(closed.disk.clone(), 5);
        sim.vfs.fail_at(sim.vfs.op_count() + op, std::io::ErrorKind::StorageFull);
        let inspector = Db::inspect(ROOT).env(sim.env.clone());
        let Err(error) = inspector.repair_to(NEW, false) else { continue };
        assert_eq!(error.kind(), ErrorKind::NoSpace, "operation {op}: {error}");
        let new = Db::builder(NEW).env(sim.env.clone()).create_if_missing(false).open();
        if let Ok(db) = new {
            assert!(differences(&closed, &db).is_empty(), "operation {op}");
        }
    }
}
