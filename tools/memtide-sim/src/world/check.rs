//! Reads, and what else can be looked at from outside.

use std::collections::VecDeque;

use memtide_env::random::SplitMix64;

use super::*;

impl World {
    /// Everything that the database shows. A read that a fault hit is tried again.
    pub(super) fn contents(&self) -> Checked<State> {
        let mut tries = 0;
        loop {
            match State::of(self.db()) {
                Ok(state) => return Ok(state),
                Err(error) => self.allow(&error, "read everything")?,
            }
            tries += 1;
            if tries == 4 {
                // As many reads as that may well have been told to fail.
                self.wire.disarm_faults();
            }
            if tries == 8 {
                return Err("reading does not go well again".to_owned());
            }
        }
    }

    pub(super) fn get(&mut self, name: &str, key: &[u8]) -> Checked {
        let Some(keyspace) = self.db().get_keyspace(name) else { return Ok(()) };
        let found = match keyspace.get(key) {
            Ok(found) => found,
            Err(error) => return self.allow(&error, "get"),
        };
        self.compare(name, key, found.as_deref(), &self.live)?;
        self.see(found.as_deref().map_or(1, |value| value.len() as u64 + 2));
        for (snapshot, state, _) in &self.snapshots {
            match snapshot.get(&keyspace, key) {
                Ok(found) => self.compare(name, key, found.as_deref(), state)?,
                Err(error) => self.allow(&error, "get in a snapshot")?,
            }
        }
        Ok(())
    }

    fn compare(&self, name: &str, key: &[u8], found: Option<&[u8]>, state: &State) -> Checked {
        self.wire.figures(|figures| figures.reads += 1);
        let want = state.get(name, key).map(Vec::as_slice);
        if found == want {
            return Ok(());
        }
        let show = |value: Option<&[u8]>| {
            value.map(|value| value[..value.len().min(24)].escape_ascii().to_string())
        };
        let key = key.escape_ascii();
        Err(format!("get of {key} in {name}: {:?}, not {:?}", show(found), show(want)))
    }

    /// What a client saw goes into both traces.
    fn see(&mut self, what: u64) {
        self.seen = self.seen.rotate_left(9).wrapping_mul(0x0000_0100_0000_01b3) ^ what;
        self.wire.note(what);
    }

    pub(super) fn scan(&mut self, name: &str, span: &Span, how: u64) -> Checked {
        let Some(keyspace) = self.db().get_keyspace(name) else { return Ok(()) };
        let count = self.snapshots.len();
        let which = usize::try_from(how >> 8).unwrap_or(0).checked_rem(count + 1).unwrap_or(0);
        let (iter, state) = match which.checked_sub(1).map(|at| &self.snapshots[at]) {
            Some((snapshot, state, _)) => (snapshot.range(&keyspace, span.clone()), state),
            None => (keyspace.range(span.clone()), &self.live),
        };
        let mut want: VecDeque<Row> = state.rows(name, span).into();
        let rows = want.len() as u64;
        let (mut iter, mut ends) = (iter, SplitMix64::new(how));
        loop {
            let is_back = match how % 3 {
                0 => false,
                1 => true,
                _ => ends.below(2) == 0,
            };
            match step_end(&mut iter, &mut want, is_back)? {
                Stepped::Row => {}
                Stepped::End => break,
                Stepped::Failed(error) => return self.allow(&error, "walk"),
            }
        }
        self.wire.figures(|figures| figures.reads += rows + 1);
        if which == 0 {
            self.see(rows);
        }
        Ok(())
    }

    pub(super) fn begin_iter(&mut self, name: &str, span: &Span) -> Checked {
        let Some(keyspace) = self.db().get_keyspace(name) else { return Ok(()) };
        if self.iters.len() == LIVE_MAX {
            self.iters.remove(0);
        }
        let flushes = self.db().stats().flushes;
        let want = self.live.rows(name, span).into();
        self.iters.push((keyspace.range(span.clone()), want, flushes));
        Ok(())
    }

    pub(super) fn step_iters(&mut self, seed: u64) -> Checked {
        let flushes = self.db().stats().flushes;
        let mut ends = SplitMix64::new(seed);
        let mut at = 0;
        while at < self.iters.len() {
            let (iter, want, then) = &mut self.iters[at];
            let outlived = *then < flushes && !want.is_empty();
            let mut failed = None;
            for _ in 0..=ends.below(4) {
                match step_end(iter, want, ends.below(2) == 0)? {
                    Stepped::Row => {}
                    Stepped::End => break,
                    Stepped::Failed(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            if outlived {
                self.hit("walk outlived a flush");
            }
            self.wire.figures(|figures| figures.reads += 1);
            match failed {
                None => at += 1,
                Some(error) => {
                    self.allow(&error, "step a walk")?;
                    self.iters.remove(at);
                }
            }
        }
        Ok(())
    }

    pub(super) fn check_everything(&mut self) -> Checked {
        let found = self.contents()?;
        if found != self.live {
            let difference = found.difference(&self.live);
            return Err(format!("the contents, found or wanted: {difference}"));
        }
        let everything: Span = (Bound::Unbounded, Bound::Unbounded);
        for (snapshot, state, _) in &self.snapshots {
            for keyspace in self.db().keyspaces() {
                let found: memtide::Result<Vec<Row>> = snapshot.iter(&keyspace).map(row).collect();
                match found {
                    Ok(found) if found == state.rows(keyspace.name(), &everything) => {}
                    Ok(_) => return Err(format!("a snapshot of {} changed", keyspace.name())),
                    Err(error) => self.allow(&error, "walk in a snapshot")?,
                }
            }
        }
        Ok(())
    }

    /// Files on the disk are those that the manifest names, and no others.
    pub(super) fn check_files(&self) -> Checked {
        let (mut tables, mut blobs) = (0, 0);
        for path in self.sim.vfs.files() {
            match FileKind::of(&path) {
                FileKind::Table => tables += 1,
                FileKind::Blob => blobs += 1,
                _ => {}
            }
        }
        let stats = self.db().stats();
        let named = stats.keyspaces.iter().map(|keyspace| (keyspace.tables, keyspace.blobs));
        let named = named.fold((0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
        if (tables, blobs) == named {
            return Ok(());
        }
        Err(format!("{tables} tables and {blobs} blob files, but the manifest names {named:?}"))
    }

    /// Looks at the figures of a database that is about to end.
    pub(super) fn count_stats(&self) -> Checked {
        let stats = self.db().stats();
        let failures = [stats.flush_failure.clone(), stats.compaction_failure.clone()];
        if !self.is_excused() && failures != [None, None] && failures != self.old_failures {
            return Err(format!("upkeep failed without reason: {failures:?}"));
        }
        let report = self.db().recovery_report();
        let keyspaces = || stats.keyspaces.iter();
        let levels = || keyspaces().flat_map(|keyspace| keyspace.levels.iter().skip(1));
        let depth = keyspaces()
            .filter_map(|keyspace| keyspace.levels.iter().rposition(|level| level.tables > 0))
            .max();
        for (holds, point) in [
            (stats.stalls_for_memory.count > 0, "stall for memory"),
            (stats.stalls_for_merges.count > 0, "stall for a merge"),
            (stats.stalls_for_segments.count > 0, "stall for a segment"),
            (stats.slowdowns_for_memory.count > 0, "slowed for memory"),
            (stats.slowdowns_for_compaction.count > 0, "slowed for compaction"),
            (stats.compaction_rate_waits.count > 0, "compaction rate waited"),
            (stats.wal_sink == Some(memtide::WalSink::Mapped), "log is mapped"),
            (levels().any(|level| level.runs > 1), "level of several runs"),
            (depth.is_some_and(|depth| depth >= 2), "tree of three levels"),
            (keyspaces().any(|keyspace| keyspace.blob_garbage_bytes > 0), "blob garbage left"),
            (stats.flush_failure.is_some(), "flush failed and went on"),
            (stats.compaction_failure.is_some(), "compaction failed and went on"),
            (report.replayed_entries > 0, "recovery replayed"),
            (report.torn_bytes > 0, "torn tail found"),
            (!report.orphans.is_empty(), "recovery removed orphans"),
            (report.wal_segments > 2, "recovery of many segments"),
        ] {
            if holds {
                self.hit(point);
            }
        }
        Ok(())
    }
}

/// What a step of a walk came to.
enum Stepped {
    Row,
    End,
    Failed(memtide::Error),
}

fn step_end(iter: &mut Iter, want: &mut VecDeque<Row>, is_back: bool) -> Checked<Stepped> {
    let (found, want) =
        if is_back { (iter.next_back(), want.pop_back()) } else { (iter.next(), want.pop_front()) };
    let found = match found.map(row).transpose() {
        Ok(found) => found,
        Err(error) => return Ok(Stepped::Failed(error)),
    };
    if found == want {
        return Ok(if want.is_some() { Stepped::Row } else { Stepped::End });
    }
    let show = |row: Option<Row>| row.map(|(key, _)| key.escape_ascii().to_string());
    Err(format!("a walk found {:?}, not {:?}", show(found), show(want)))
}
