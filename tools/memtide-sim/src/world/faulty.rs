//! Opening, failing and healing.

use memtide::verify_in;

use super::*;

impl World {
    /// Opens the database. One that a fault kept from opening opens once the fault is gone.
    pub(super) fn open(&mut self) -> Checked {
        self.wire.forgive();
        self.was_full = self.is_full;
        self.wire.set_opening(true);
        let mut opened = self.try_open();
        if let Err(error) = &opened {
            self.allow(error, "open")?;
            self.hit("open refused and then not");
            self.wire.disarm_faults();
            self.lift_limit();
            opened = self.try_open();
        }
        self.wire.set_opening(false);
        let db = opened.map_err(|error| format!("could not open: {error:?}"))?;
        self.db = Some(db);
        self.is_fresh = true;
        self.old_failures = Default::default();
        self.wire.figures(|figures| figures.opens += 1);
        if !self.is_excused() {
            self.check_files()?;
        }
        Ok(())
    }

    fn try_open(&self) -> memtide::Result<Db> {
        let builder = Db::builder(ROOT).config(self.config.clone());
        let db = builder.env(self.sim.env.clone()).open()?;
        self.names.iter().try_for_each(|name| db.keyspace(name).map(drop))?;
        Ok(db)
    }

    fn lift_limit(&mut self) {
        self.sim.vfs.set_free_space(None);
        self.is_full = false;
    }

    /// A write was not acknowledged: refused, or its fate is unknown.
    pub(super) fn write_failed(&mut self, changes: &[Change], error: &memtide::Error) -> Checked {
        self.allow(error, "write")?;
        if matches!(error.kind(), ErrorKind::ReadOnly | ErrorKind::Busy) {
            self.epoch.entries.pop();
            let count = self.epoch.entries.len();
            self.wire.update(|progress| progress.submitted = count);
            return Ok(());
        }
        let found = self.contents()?;
        if found != self.live {
            let mut with = self.live.clone();
            with.apply(changes);
            if found != with {
                let difference = found.difference(&self.live);
                return Err(format!("after a failed write, found or there before: {difference}"));
            }
            self.hit("failed write is visible");
            self.live = with;
        }
        Ok(())
    }

    /// Faults end; the database takes writes again, by itself or once it was opened again.
    pub(super) fn heal(&mut self) -> Checked {
        self.wire.disarm_faults();
        self.lift_limit();
        self.iters.clear();
        self.pause = None;
        self.sim.clock.advance(Duration::from_secs(10));
        self.sim.steps.run_until_idle();
        if !self.is_healthy() {
            self.hit("write refused, healed by reopening");
            self.reopen(Ending::Close)?;
            self.settle()?;
        }
        if !self.is_healthy() {
            return Err(format!("opened and not healthy: {:?}", self.db().health()));
        }
        self.wire.forgive();
        self.was_full = false;
        let change = Change::Put(self.names[0], b"healed".to_vec(), oracle::value_of(0, 3));
        self.write(&[change], Durability::Sync)?;
        let stats = self.db().stats();
        if let Some(failure) = stats.flush_failure {
            return Err(format!("flushes fail without a fault: {failure}"));
        }
        self.old_failures = [None, stats.compaction_failure];
        Ok(())
    }

    pub(super) fn verify(&mut self) -> Checked {
        if !self.end_orderly(Ending::Close)? {
            return Ok(());
        }
        self.wire.forgive();
        let mut report = verify_in(&self.sim.env, ROOT);
        if self.wire.fired() {
            // A read that failed once.
            self.wire.disarm_faults();
            report = verify_in(&self.sim.env, ROOT);
        }
        let report = report.map_err(|error| format!("could not verify: {error:?}"))?;
        if !report.damages.is_empty() {
            return Err(format!("verify reports {:?}", report.damages));
        }
        self.open()?;
        self.accept(self.last.1.acked)
    }

    /// Flips bits of a byte of the closed database and looks at it; then it is as it was.
    pub(super) fn rot(&mut self, file: u64, byte: u64, xor: u8) -> Checked {
        if self.is_excused() {
            self.heal()?;
        }
        if !self.end_orderly(Ending::Close)? {
            return Ok(());
        }
        let files = self.sim.vfs.files();
        let files: Vec<_> = files.iter().filter(|p| FileKind::of(p) != FileKind::Lock).collect();
        let rotten = Simulation::on(self.sim.vfs.disk(), file);
        let chosen = usize::try_from(file).unwrap_or(0).checked_rem(files.len());
        if let Some(path) = chosen.map(|at| files[at])
            && let Ok(len @ 1..) = rotten.vfs.file_len(path)
            && xor != 0
        {
            let damaged = rotten.vfs.corrupt(path, byte % len, xor);
            damaged.map_err(|error| format!("could not flip a byte: {error}"))?;
            let kind = FileKind::of(path);
            self.wire.figures(|figures| figures.count_fault("bits flipped".to_owned(), kind));
            let what = format!("byte {} of {} flipped", byte % len, path.display());
            self.judge(&rotten, kind).map_err(|wrong| format!("{what}: {wrong}"))?;
        }
        self.open()?;
        self.accept(self.last.1.acked)
    }

    /// Whatever a damaged database says is right, or it says nothing.
    fn judge(&self, rotten: &Simulation, kind: FileKind) -> Checked {
        let is_file = matches!(kind, FileKind::Table | FileKind::Blob);
        match verify_in(&rotten.env, ROOT) {
            Ok(report) if report.damages.is_empty() && is_file => {
                return Err("verify reports nothing".to_owned());
            }
            Err(error) if error.kind() == ErrorKind::Internal => return Err(format!("{error:?}")),
            _ => {}
        }
        let builder = Db::builder(ROOT).config(self.config.clone()).env(rotten.env.clone());
        let db = match builder.read_only(true).open() {
            Ok(db) => db,
            Err(error) if error.kind() == ErrorKind::Internal => return Err(format!("{error:?}")),
            Err(_) => return Ok(()),
        };
        match State::of(&db) {
            Ok(found) if found == self.live => {}
            Ok(found) => return Err(format!("wrong rows: {}", found.difference(&self.live))),
            Err(error) if error.is_corruption() => {}
            Err(error) => return Err(format!("not called damage: {error:?}")),
        }
        let everything: Span = (Bound::Unbounded, Bound::Unbounded);
        for name in &self.names {
            let Some(keyspace) = db.get_keyspace(name) else { continue };
            for (key, value) in self.live.rows(name, &everything) {
                match keyspace.get(&key) {
                    Ok(found) if found.as_deref() == Some(value.as_slice()) => {}
                    Ok(_) => return Err(format!("a wrong value of {}", key.escape_ascii())),
                    Err(error) if error.is_corruption() => {}
                    Err(error) => return Err(format!("not called damage: {error:?}")),
                }
            }
        }
        Ok(())
    }
}
