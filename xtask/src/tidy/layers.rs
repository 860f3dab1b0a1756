//! The seven layers inside the engine crate: a module uses its own layer or lower ones.
//!
//! The table is the architecture: a file that is not in it is a finding, so the table stays true.

use super::Finding;
use super::modules::{self, Crate, ROOT};
use super::source::Source;

/// The crate the table is about.
const SRC: &str = "crates/memtide/src";

/// Each layer with its top-level modules, lowest first.
const LAYERS: &[(&str, &[&str])] = &[
    ("words", &["config", "damage", "health", "hold", "range", "scrubs", "snapshots", "threads"]),
    (
        "shape of the tree",
        &["blob_store", "durable", "files", "reserve", "table_store", "version", "wal"],
    ),
    ("state", &["batch", "commit_queue", "engine", "keyspace_state", "pace", "sealed_run"]),
    ("paths", &["read", "rewrite", "survivors", "write"]),
    ("upkeep", &["compaction", "flush", "sealed_merge"]),
    (
        "drivers",
        &[
            "background",
            "backup",
            "capture",
            "checkpoint",
            "handle",
            "integrity",
            "new_copy",
            "recovery",
            "resume",
            "shutdown",
        ],
    ),
    (
        "facade",
        &[
            "builder",
            "commit",
            "compaction_pause",
            "db",
            "inspector",
            "iter",
            "keyspace",
            "live_snapshot",
            "snapshot",
            "stats",
        ],
    ),
];

/// Modules of this layer never use each other.
const APART: &str = "upkeep";

/// Reports upward uses, uses among siblings kept apart, and files outside the table.
pub(crate) fn check(files: &[Source]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = files.iter().filter_map(missing).collect();
    for one in modules::crates(files).iter().filter(|one| one.src == SRC) {
        findings.extend(uses(one));
    }
    findings
}

/// The layer's number, from one, and its name.
fn layer_of(module: &str) -> Option<(usize, &'static str)> {
    let found = LAYERS.iter().enumerate().find(|(_, (_, modules))| modules.contains(&module));
    found.map(|(index, (name, _))| (index + 1, *name))
}

fn missing(file: &Source) -> Option<Finding> {
    let below = file.path.strip_prefix(SRC)?.strip_prefix('/')?;
    let top = modules::module_path(below).first().copied()?;
    let unknown = file.is_rust() && !file.is_test(1) && layer_of(top).is_none();
    let message = format!("module `{top}` is missing from the table in xtask/src/tidy/layers.rs");
    unknown.then(|| Finding::new(&file.path, 1, message))
}

fn uses(one: &Crate) -> Vec<Finding> {
    let mut findings = Vec::new();
    for edge in one.edges.iter().filter(|edge| edge.from != ROOT) {
        let Some((from, from_name)) = layer_of(&edge.from) else {
            continue;
        };
        let message = match layer_of(&edge.to) {
            None if edge.to == ROOT => {
                format!("`{}` is no module and no re-export of lib.rs", edge.written)
            }
            Some((to, to_name)) if to > from => {
                format!(
                    "layer {from} ({from_name}) uses layer {to} ({to_name}): `{}`",
                    edge.written
                )
            }
            Some((_, to_name)) if to_name == from_name && to_name == APART => {
                format!(
                    "{} and {} of layer {from} are kept apart: `{}`",
                    edge.from, edge.to, edge.written
                )
            }
            _ => continue,
        };
        findings.push(Finding::new(&edge.path, edge.line, message));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(name: &str, text: &str) -> Source {
        Source::made_up(&format!("{SRC}/{name}"), text)
    }

    #[test]
    fn an_upward_use_is_found_also_through_a_reexport() {
        let files = [
            engine("lib.rs", "mod db; mod read; pub use db::Db;"),
            engine("db.rs", "use crate::read::get;"),
            engine("read/get.rs", "\nuse crate::Db;\nfn f() { crate::db::open() }"),
        ];
        let found = check(&files);
        let lines: Vec<usize> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [2, 3], "{found:?}");
        assert!(found[0].message.starts_with("layer 4 (paths) uses layer 7 (facade)"));
    }

    #[test]
    fn upkeep_modules_are_kept_apart() {
        let files = [
            engine("flush.rs", "use crate::compaction::plan;"),
            engine("compaction/mod.rs", "use crate::version::Version;"),
            engine("version/mod.rs", ""),
        ];
        let found = check(&files);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].message.contains("kept apart"), "{}", found[0]);
    }

    #[test]
    fn a_file_outside_the_table_and_an_item_of_the_root_are_found() {
        let found = check(&[engine("pump.rs", ""), engine("db.rs", "use crate::Stray;")]);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn downward_uses_and_other_crates_through_the_root_are_fine() {
        let files = [
            engine("lib.rs", "mod db; mod flush; mod files; pub use memtide_base::Error;"),
            engine("db.rs", "use crate::{Error, flush};"),
            engine("flush.rs", "use crate::files;"),
            engine("files.rs", "#[cfg(test)]\nmod tests { use crate::db; }"),
            Source::made_up("crates/memtide-env/src/pump.rs", "use crate::Stray;"),
        ];
        assert_eq!(check(&files), []);
    }

    #[test]
    fn no_module_is_in_two_layers() {
        let mut all: Vec<&str> = LAYERS.iter().flat_map(|(_, modules)| *modules).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
