//! The engine touches files, time and threads through `memtide-env` and locks through
//! `memtide_base::sync`, so that it runs on a simulated disk and under a model checker.

use super::Finding;
use super::paths;
use super::source::Source;

/// The standard library's own world, and what to use instead.
const OUTSIDE: &[(&[&str], &str)] = &[
    (&["sync"], "memtide_base::sync"),
    (&["fs"], "memtide_env::Vfs"),
    (&["thread"], "a Job of memtide_env::Executor"),
    (&["time", "Instant"], "memtide_env::Clock"),
    (&["time", "SystemTime"], "memtide_env::Clock"),
    (&["time", "UNIX_EPOCH"], "memtide_env::Clock"),
    (&["time", "self"], "memtide_env::Clock"),
    (&["time", "*"], "memtide_env::Clock"),
];

/// Where the doors are, and the conformance suite, which is test code that users may run too.
const FREE: &[&str] = &[
    "crates/memtide-env/",
    "crates/memtide-base/src/sync.rs",
    "crates/memtide-memtable/src/testkit.rs",
    "crates/memtide-memtable/src/testkit/",
];

/// Reports ways around the two doors in the engine's crates.
pub(crate) fn check(files: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let engine = |file: &&Source| {
        file.is_rust()
            && file.path.starts_with("crates/")
            && !FREE.iter().any(|free| file.path.starts_with(free))
    };
    for file in files.iter().filter(engine) {
        for path in paths::below(&file.code, &["std", "core", "alloc"]) {
            let line = file.line_of(path.offset);
            let names: Vec<&str> = path.segments[1..].iter().map(String::as_str).collect();
            let outside = OUTSIDE.iter().find(|(banned, _)| names.starts_with(banned));
            if let Some((_, instead)) = outside
                && !file.is_test(line)
            {
                let message = format!("`{}`: use {instead}", path.segments.join("::"));
                findings.push(Finding::new(&file.path, line, message));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&[Source::made_up(path, text)]).len()
    }

    #[test]
    fn the_world_is_found_however_it_is_imported() {
        for text in [
            "use std::sync::Arc;",
            "use std::{fmt, fs::File};",
            "let t = std::time::Instant::now();",
            "use std::time::{Duration, SystemTime};",
            "use core::sync::atomic::AtomicU64;",
            "std::thread::sleep(d)",
        ] {
            assert_eq!(found("crates/memtide/src/db.rs", text), 1, "{text}");
        }
    }

    #[test]
    fn durations_tests_doors_and_programs_are_fine() {
        let banned = "use std::fs;";
        assert_eq!(found("crates/memtide/src/db.rs", "use std::time::Duration;"), 0);
        assert_eq!(
            found("crates/memtide/src/db.rs", "#[cfg(test)]\nmod tests { use std::fs; }"),
            0
        );
        for path in [
            "crates/memtide-env/src/vfs/std.rs",
            "crates/memtide-base/src/sync.rs",
            "crates/memtide/tests/it/main.rs",
            "apps/memtide-cli/src/main.rs",
            "xtask/src/main.rs",
        ] {
            assert_eq!(found(path, banned), 0, "{path}");
        }
    }
}
