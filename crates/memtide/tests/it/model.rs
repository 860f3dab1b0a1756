//! The whole engine against sorted maps: random operations through the public API on a simulated world,
//! with limits so small that every few writes rotate, flush, merge and change the log segment.

use std::collections::VecDeque;
use std::ops::Bound;
use std::time::Duration;

use memtide::{CompactionPause, Db, Durability, ErrorKind, Iter, MemtableType, Snapshot};
use memtide_env::Simulation;
use memtide_env::vfs::CrashMode;

use crate::oracle::{self, Change, Draw, NAMES, Repeat, Span, State};
use crate::own_memtable::registry;

const ROOT: &str = "/db";
const STEPS: u64 = 1500;
const LIVE_MAX: usize = 4;

type Row = (Vec<u8>, Vec<u8>);

/// A database, what it must hold, and the reads of older moments that are still open.
struct World {
    sim: Simulation,
    db: Option<Db>,
    state: State,
    snapshots: Vec<(Snapshot, State)>,
    iters: Vec<(Iter, VecDeque<Row>)>,
    pause: Option<CompactionPause>,
    draw: Draw,
    /// All keyspaces have this type, or each draws its own.
    kind: Option<MemtableType>,
    flushes: u64,
    compactions: u64,
    /// Changes of type on the open database.
    changes: u64,
    /// Changes of strategy on the open database.
    switches: u64,
    deepest: usize,
    /// Loads after which some memtables were joined to a run.
    joined: usize,
    /// The most runs that a level below 0 had.
    runs: usize,
}

fn row(entry: memtide::Result<(memtide::Slice, memtide::Slice)>) -> Row {
    let (key, value) = entry.unwrap();
    (key.to_vec(), value.to_vec())
}

impl World {
    fn new(seed: u64, kind: Option<MemtableType>) -> Self {
        let mut world = Self {
            sim: Simulation::new(seed),
            db: None,
            state: State::default(),
            snapshots: Vec::new(),
            iters: Vec::new(),
            pause: None,
            draw: Draw::new(seed),
            kind,
            flushes: 0,
            compactions: 0,
            changes: 0,
            switches: 0,
            deepest: 0,
            joined: 0,
            runs: 0,
        };
        world.open();
        world
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open between steps")
    }

    /// Opens with freshly drawn limits, or with none named.
    fn open(&mut self) {
        let mut builder = Db::builder(ROOT);
        if !self.draw.one_in(5) {
            let mut config = self.draw.small_config(self.kind);
            config.enable_background_compaction = Some(!self.draw.one_in(4));
            config.tree.compaction_rate = self.draw.pick(&[None, Some(256 << 10)]);
            config.durability = Some(self.draw.pick(&[
                Durability::Interval(Duration::from_millis(20)),
                Durability::Buffered,
                Durability::Sync,
            ]));
            builder = builder.config(config);
        }
        let db = builder.env(self.sim.env.clone()).registry(registry()).open().unwrap();
        for name in NAMES {
            db.keyspace(name).unwrap();
        }
        self.db = Some(db);
    }

    fn step(&mut self) {
        match self.draw.below(100) {
            0 => self.load(),
            1..=44 => self.write(),
            45..=59 => self.get(),
            60..=69 => self.scan(),
            70..=73 => self.take_snapshot(),
            74..=75 => self.drop_snapshot(),
            76..=79 => self.start_iter(),
            80..=86 => self.step_iter(),
            87..=89 => self.db().flush().unwrap(),
            90 => self.compact(),
            91..=93 => self.background(),
            94..=95 => self.set_memtable(),
            96 => self.set_compaction(),
            97 => self.check_everything(),
            98 => self.refused_batch(),
            _ => self.reopen(),
        }
    }

    /// What a load in key order fills is joined, not copied.
    fn load(&mut self) {
        for changes in self.draw.load(&NAMES) {
            self.write_batch(&changes);
        }
        self.background();
        let keyspaces = self.db().stats().keyspaces;
        self.joined += usize::from(keyspaces.iter().any(|each| each.sealed > each.sealed_runs));
    }

    fn write(&mut self) {
        let changes = self.draw.batch(&NAMES);
        self.write_batch(&changes);
    }

    fn write_batch(&mut self, changes: &[Change]) {
        let durability = self.draw.pick(&[Durability::Buffered, Durability::Sync]);
        let before = self.db().snapshot().seqno();
        let mut written = self.write_once(changes, durability);
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::Busy) {
            // Only iterators pin memtables; without them there must be memory.
            assert!(!self.iters.is_empty(), "busy without reason: {written:?}");
            assert_eq!(self.db().snapshot().seqno(), before, "nothing of it is visible");
            self.iters.clear();
            written = self.write_once(changes, durability);
        }
        let seq = written.unwrap();
        self.state.apply(changes);
        let after = self.db().snapshot().seqno();
        assert!(seq < after && before <= after, "visible once acknowledged");
    }

    /// Single changes go through the keyspace's own methods half of the time.
    fn write_once(&mut self, changes: &[Change], durability: Durability) -> memtide::Result<u64> {
        let [change] = changes else { return oracle::write(self.db(), changes, durability) };
        if self.draw.one_in(2) {
            return oracle::write(self.db(), changes, durability);
        }
        let keyspace = self.db().keyspace(change.keyspace()).unwrap();
        match change {
            Change::Put(_, key, value) => keyspace.put(key, value)?,
            Change::Delete(_, key) => keyspace.delete(key)?,
            Change::DeleteRange(_, span) => keyspace.delete_range(span.clone())?,
        }
        Ok(self.db().snapshot().seqno() - 1)
    }

    fn get(&mut self) {
        let (name, key) = (self.draw.pick(&NAMES), self.draw.key());
        let keyspace = self.db().keyspace(name).unwrap();
        let found = keyspace.get(&key).unwrap();
        assert_eq!(found.as_deref(), self.state.get(name, &key).map(Vec::as_slice), "{key:?}");
        assert_eq!(keyspace.contains_key(&key).unwrap(), found.is_some());
        for (snapshot, state) in &self.snapshots {
            let found = snapshot.get(&keyspace, &key).unwrap();
            assert_eq!(found.as_deref(), state.get(name, &key).map(Vec::as_slice), "{key:?}");
        }
    }

    /// A range, a prefix or everything, of now or of a snapshot.
    fn iter(&mut self) -> (Iter, VecDeque<Row>) {
        let name = self.draw.pick(&NAMES);
        let keyspace = self.db().keyspace(name).unwrap();
        let snapshot = match self.snapshots.len() as u64 {
            0 => None,
            count => (!self.draw.one_in(count + 1)).then(|| self.draw.below(count)),
        };
        let snapshot = snapshot.map(|at| &self.snapshots[usize::try_from(at).unwrap()]);
        let state = snapshot.map_or(&self.state, |(_, state)| state);
        let everything: Span = (Bound::Unbounded, Bound::Unbounded);
        let (iter, want) = match self.draw.below(3) {
            0 => {
                let mut prefix = self.draw.key();
                prefix.truncate(usize::try_from(self.draw.below(5)).unwrap());
                let rows = state.rows(name, &everything);
                let want = rows.into_iter().filter(|(key, _)| key.starts_with(&prefix)).collect();
                let iter = match snapshot {
                    Some((snapshot, _)) => snapshot.prefix(&keyspace, &prefix),
                    None => keyspace.prefix(&prefix),
                };
                (iter, want)
            }
            choice => {
                let span = if choice == 1 { everything } else { self.draw.span() };
                let iter = match snapshot {
                    Some((snapshot, _)) => snapshot.range(&keyspace, span.clone()),
                    None => keyspace.range(span.clone()),
                };
                (iter, state.rows(name, &span))
            }
        };
        (iter, want.into())
    }

    fn scan(&mut self) {
        let (iter, want) = self.iter();
        match self.draw.below(3) {
            0 => assert_eq!(iter.map(row).collect::<VecDeque<_>>(), want),
            1 => {
                let mut found: VecDeque<_> = iter.rev().map(row).collect();
                found.make_contiguous().reverse();
                assert_eq!(found, want, "backwards");
            }
            _ => {
                let (mut iter, mut want) = (iter, want);
                while Self::step_either_end(&mut self.draw, &mut iter, &mut want) {}
            }
        }
    }

    fn step_either_end(draw: &mut Draw, iter: &mut Iter, want: &mut VecDeque<Row>) -> bool {
        let (found, want) = if draw.one_in(2) {
            (iter.next().map(row), want.pop_front())
        } else {
            (iter.next_back().map(row), want.pop_back())
        };
        assert_eq!(found, want, "from either end");
        want.is_some()
    }

    fn take_snapshot(&mut self) {
        if self.snapshots.len() == LIVE_MAX {
            self.drop_snapshot();
        }
        self.snapshots.push((self.db().snapshot(), self.state.clone()));
    }

    fn drop_snapshot(&mut self) {
        if !self.snapshots.is_empty() {
            let at = self.draw.below(self.snapshots.len() as u64);
            self.snapshots.remove(usize::try_from(at).unwrap());
        }
    }

    fn start_iter(&mut self) {
        if self.iters.len() == LIVE_MAX {
            self.iters.remove(0);
        }
        let iter = self.iter();
        self.iters.push(iter);
    }

    fn step_iter(&mut self) {
        for (iter, want) in &mut self.iters {
            for _ in 0..self.draw.below(4) {
                Self::step_either_end(&mut self.draw, iter, want);
            }
        }
    }

    fn compact(&mut self) {
        let done = self.db().compact().map_err(|error| error.kind());
        assert_eq!(done, if self.pause.is_some() { Err(ErrorKind::Busy) } else { Ok(()) });
    }

    fn background(&mut self) {
        match self.draw.below(8) {
            0 => self.pause = Some(self.db().pause_compaction()),
            1..=3 => self.pause = None,
            _ => {}
        }
        match self.draw.below(3) {
            0 => drop(self.sim.steps.step_one(self.draw.below(3))),
            1 => self.sim.steps.run_until_idle(),
            _ => {
                self.sim.clock.advance(Duration::from_millis(self.draw.below(1500)));
                self.sim.steps.run_until_idle();
            }
        }
    }

    fn set_memtable(&mut self) {
        let (name, choice) = (self.draw.pick(&NAMES), self.draw.memtable_choice());
        let keyspace = self.db().keyspace(name).unwrap();
        keyspace.set_memtable(choice.clone()).unwrap();
        assert_eq!(keyspace.memtable_type(), choice);
        self.changes += 1;
    }

    fn set_compaction(&mut self) {
        let (name, choice) = (self.draw.pick(&NAMES), self.draw.compaction());
        let keyspace = self.db().keyspace(name).unwrap();
        keyspace.set_compaction(choice).unwrap();
        assert_eq!(keyspace.compaction(), choice);
        self.switches += 1;
    }

    /// One bad operation refuses a whole batch.
    fn refused_batch(&mut self) {
        let mut batch = self.db().batch();
        let keyspace = self.db().default_keyspace();
        batch.put(&keyspace, self.draw.key(), "never seen");
        batch.put(&keyspace, vec![b'x'; 65_536], "");
        let error = self.db().write(batch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    fn check_everything(&self) {
        let state = State::of(self.db()).unwrap();
        assert!(state == self.state, "found or wanted: {}", state.difference(&self.state));
        for (snapshot, state) in &self.snapshots {
            for keyspace in self.db().keyspaces() {
                let found: Vec<_> = snapshot.iter(&keyspace).map(row).collect();
                let all = (Bound::Unbounded, Bound::Unbounded);
                assert_eq!(found, state.rows(keyspace.name(), &all), "a snapshot changed");
            }
        }
    }

    fn count_upkeep(&mut self) {
        let stats = self.db().stats();
        assert_eq!((&stats.flush_failure, &stats.compaction_failure), (&None, &None));
        self.flushes += stats.flushes;
        self.compactions += stats.compactions;
        for keyspace in &stats.keyspaces {
            assert_eq!(keyspace.memtable_fault, None);
            let used = keyspace.levels.iter().rposition(|level| level.tables > 0);
            self.deepest = self.deepest.max(used.unwrap_or(0));
            let most = keyspace.levels[1..].iter().map(|level| level.runs).max();
            self.runs = self.runs.max(most.unwrap_or(0));
        }
    }

    /// Closes, drops or kills the database and opens it with other limits.
    fn reopen(&mut self) {
        self.check_everything();
        self.count_upkeep();
        self.iters.clear();
        self.snapshots.clear();
        self.pause = None;
        let db = self.db.take().expect("open between steps");
        match self.draw.below(3) {
            0 => db.close().unwrap(),
            1 => drop(db),
            _ => {
                let disk = self.sim.vfs.disk().crash(CrashMode::KeepAll, 0);
                let seed = self.draw.below(u64::MAX);
                // Only now: what closing does is not on the disk that was kept.
                drop(db);
                self.sim = Simulation::on(disk, seed);
            }
        }
        self.open();
        self.check_everything();
    }
}

fn run(test: &'static str, seed: u64, kind: Option<MemtableType>) -> World {
    let _repeat = Repeat { test, seed };
    let mut world = World::new(seed, kind);
    for _ in 0..STEPS {
        world.step();
    }
    world.check_everything();
    world.reopen();
    world
}

/// The limits must have been as small as they are meant to be.
fn check_upkeep(worlds: &[World]) {
    let flushes: u64 = worlds.iter().map(|world| world.flushes).sum();
    let compactions: u64 = worlds.iter().map(|world| world.compactions).sum();
    let deepest = worlds.iter().map(|world| world.deepest).max().unwrap_or(0);
    let runs = worlds.iter().map(|world| world.runs).max().unwrap_or(0);
    let joined: usize = worlds.iter().map(|world| world.joined).sum();
    println!(
        "{} worlds, {flushes} flushes, {compactions} compactions, {deepest} levels, {runs} runs, {joined} loads joined",
        worlds.len()
    );
    assert!(
        worlds.iter().all(|world| world.changes > 5 && world.switches > 2),
        "types and strategies change while the database is open"
    );
    assert!(flushes > 50 * worlds.len() as u64 && compactions > 5 * worlds.len() as u64);
    assert!(deepest >= 2 && runs >= 2 && 2 * joined >= worlds.len());
}

#[test]
fn every_memtable_answers_as_a_sorted_map_in_all_states_of_the_tree() {
    let seeds = oracle::seeds(0..3, 1);
    let worlds: Vec<_> = seeds
        .into_iter()
        .flat_map(|seed| MemtableType::ALL.map(|kind| (seed, kind)))
        .map(|(seed, kind)| run("model::every_memtable_answers", seed, Some(kind)))
        .collect();
    check_upkeep(&worlds);
}

#[test]
fn keyspaces_of_mixed_memtables_answer_as_sorted_maps() {
    let seeds = oracle::seeds(50..58, 4).into_iter();
    let worlds: Vec<_> =
        seeds.map(|seed| run("model::keyspaces_of_mixed_memtables", seed, None)).collect();
    check_upkeep(&worlds);
}
