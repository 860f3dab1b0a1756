//! Cuts a failing case down to what it needs: fewer operations, fewer changes in them, fewer options, while it still
//! fails (delta debugging: Zeller and Hildebrandt, 2002).

use crate::case::{Case, Op};
use crate::world::{Failure, run};

/// Makes a failing case smaller for at most `tries` runs; returns it with what it fails with.
#[must_use]
pub fn shrink(case: &Case, failure: &Failure, tries: usize) -> (Case, Failure) {
    let mut search = Search { best: case.clone(), failure: failure.clone(), tries };
    search.best.ops.truncate(failure.at + 1);
    let whole = search.best.clone();
    if !search.fails(whole) {
        // Only the end of the run shows it.
        search.best.ops.clone_from(&case.ops);
    }
    loop {
        let before = search.best.ops.len();
        search.drop_ops();
        search.drop_changes();
        if search.best.ops.len() == before || search.tries == 0 {
            break;
        }
    }
    search.drop_options();
    search.drop_ops();
    (search.best, search.failure)
}

struct Search {
    best: Case,
    failure: Failure,
    tries: usize,
}

impl Search {
    /// Whether `case` fails; it is the best one then.
    fn fails(&mut self, case: Case) -> bool {
        if self.tries == 0 || case.config.validate().is_err() {
            return false;
        }
        self.tries -= 1;
        let Some(failure) = run(&case).failure else { return false };
        if !kind_of(&failure.what).eq(kind_of(&self.failure.what)) {
            return false;
        }
        // What follows the operation that shows it is not needed.
        (self.best, self.failure) = (case, failure);
        let upto = self.failure.at + 1;
        if upto < self.best.ops.len() {
            self.best.ops.truncate(upto);
        }
        true
    }

    /// Leaves out halves, quarters, ..., single operations.
    fn drop_ops(&mut self) {
        let mut size = self.best.ops.len().div_ceil(2);
        while size > 0 && self.tries > 0 {
            let mut end = self.best.ops.len();
            while end > 0 {
                let start = end.saturating_sub(size);
                let mut case = self.best.clone();
                case.ops.drain(start..end);
                if self.fails(case) {
                    end = start.min(self.best.ops.len());
                } else {
                    end = start;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    /// Leaves out single changes of batches.
    fn drop_changes(&mut self) {
        let mut at = 0;
        while at < self.best.ops.len() {
            let mut index = 0;
            while let Some(Op::Write(changes, _)) = self.best.ops.get(at)
                && changes.len() > 1
                && index < changes.len()
            {
                let mut case = self.best.clone();
                if let Op::Write(changes, _) = &mut case.ops[at] {
                    changes.remove(index);
                }
                if !self.fails(case) {
                    index += 1;
                }
            }
            at += 1;
        }
    }

    /// Leaves options to their defaults.
    fn drop_options(&mut self) {
        for (key, _) in self.best.config.named() {
            let mut case = self.best.clone();
            case.config = memtide::Config::default();
            let kept = self.best.config.named().into_iter().filter(|(other, _)| *other != key);
            let is_set = kept.map(|(key, value)| case.config.set(&key, &value)).all(|r| r.is_ok());
            if is_set {
                self.fails(case);
            }
        }
    }
}

/// What kind of failure it is: another one would lead the search away.
fn kind_of(what: &str) -> impl Iterator<Item = &str> {
    what.split_whitespace().take(4)
}
