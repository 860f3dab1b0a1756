//! What failed once must not fail again, and a slice of what fails never.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test code; it says which seeds it ran"
)]

use std::path::Path;

use memtide_env::Random;
use memtide_sim::{Case, Faults, Figures, Focus, SOMETIMES, draw, run};

fn run_seeds(seeds: impl Iterator<Item = u64>, focus: &Focus) -> Figures {
    let mut figures = Figures::default();
    for seed in seeds {
        let outcome = run(&draw(seed, focus));
        if let Some(failure) = outcome.failure {
            panic!(
                "repeat with: memtide-sim replay --seed {seed}\n{}: {}",
                failure.at, failure.what
            );
        }
        figures.add(&outcome.figures);
    }
    figures
}

#[test]
fn every_case_that_failed_once_runs_well() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/regress");
    let mut count = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "memtide-sim") {
            continue;
        }
        let case: Case = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let outcome = run(&case);
        assert!(outcome.failure.is_none(), "{}: {:?}", path.display(), outcome.failure);
        count += 1;
    }
    assert!(count > 0, "the cases are where this test looks for them");
}

#[test]
fn fixed_and_fresh_seeds_run_well() {
    let fresh = Random::from_system().next_u64() >> 24;
    println!("fresh seeds from {fresh} on");
    let figures = run_seeds((0..24).chain(fresh..fresh + 12), &Focus::default());
    assert!(figures.cycles > 100, "{} crashes", figures.cycles);
    let met = SOMETIMES.len() - figures.never().len();
    assert!(met > SOMETIMES.len() / 2, "never met: {:?}", figures.never());
}

#[test]
fn the_same_case_leaves_the_same_trace_and_another_seed_another() {
    for seed in 0..8 {
        let case = draw(seed, &Focus::default());
        let (first, second) = (run(&case), run(&case));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        let read: Case = case.to_string().parse().unwrap();
        assert_eq!(run(&read).trace, first.trace, "seed {seed}, written and read");
    }
    let traces: std::collections::BTreeSet<_> =
        (0..8).map(|seed| run(&draw(seed, &Focus::default())).trace).collect();
    assert_eq!(traces.len(), 8);
}

/// Whatever the memtable and the strategy, the same operations show the same.
#[test]
fn clients_see_the_same_under_any_configuration() {
    let focus = Focus { faults: Faults::None, ..Focus::default() };
    for seed in 0..12 {
        let mut case = draw(seed, &focus);
        let first = run(&case);
        assert!(first.failure.is_none(), "seed {seed}: {:?}", first.failure);
        let other = draw(seed + 1000, &focus);
        for (key, value) in other.config.named() {
            if !key.starts_with("keyspace.cache") && !key.starts_with("keyspace.") {
                case.config.set(&key, &value).unwrap();
            }
        }
        let second = run(&case);
        assert!(second.failure.is_none(), "seed {seed}: {:?}", second.failure);
        assert_eq!(first.seen, second.seen, "seed {seed} under two configurations");
    }
}
