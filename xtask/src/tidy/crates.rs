//! Which crate of the workspace may use which: the outer borders of the architecture.

use super::Finding;
use super::source::Source;

/// Crate directory and the crates of this workspace it may depend on. `*` stands for one name.
const MAY_USE: &[(&str, &[&str])] = &[
    ("crates/memtide-base", &[]),
    ("crates/memtide-env", &["memtide-base"]),
    ("crates/memtide-memtable", &["memtide-base"]),
    ("crates/memtide-storage", &["memtide-base", "memtide-env"]),
    // The last one in its tests alone, for it is above: its model of a database is theirs.
    (
        "crates/memtide",
        &["memtide-base", "memtide-env", "memtide-memtable", "memtide-storage", "memtide-sim"],
    ),
    ("apps/*", &["memtide"]),
    ("tools/memtide-sim", &["memtide", "memtide-env"]),
    ("tools/memtables", &["memtide-base", "memtide-memtable"]),
    ("tools/peerbench", &["memtide"]),
    ("xtask", &[]),
];

/// Reports dependencies against the table, and crates missing from it.
pub(crate) fn check(files: &[Source]) -> Vec<Finding> {
    files.iter().flat_map(check_manifest).collect()
}

fn check_manifest(file: &Source) -> Vec<Finding> {
    let Some(dir) = file.path.strip_suffix("/Cargo.toml") else {
        return Vec::new();
    };
    let Some((_, allowed)) = MAY_USE.iter().find(|(pattern, _)| matches_dir(pattern, dir)) else {
        let message = "crate is missing from the table in xtask/src/tidy/crates.rs";
        return vec![Finding::new(&file.path, 1, message)];
    };
    let own = dir.rsplit('/').next().unwrap_or(dir);
    let mut findings = Vec::new();
    let mut section = "";
    for (index, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        // A crate's tests may switch on its own features by depending on it.
        let of_itself = |name: &str| section.starts_with("dev-dependencies") && name == own;
        if let Some(name) = dependency(section, line)
            && !allowed.contains(&name)
            && !of_itself(name)
        {
            let may = if allowed.is_empty() { "none".to_string() } else { allowed.join(", ") };
            let message = format!("{own} may not depend on {name} (allowed: {may})");
            findings.push(Finding::new(&file.path, index + 1, message));
        }
    }
    findings
}

/// The crate of this workspace a line of a manifest depends on.
fn dependency<'t>(section: &'t str, line: &'t str) -> Option<&'t str> {
    let ours = |name: &&str| name.starts_with("memtide");
    if let Some((table, name)) = section.rsplit_once('.')
        && table.ends_with("dependencies")
    {
        return line.starts_with('[').then_some(name).filter(ours);
    }
    if !section.ends_with("dependencies") {
        return None;
    }
    let renamed = line.split_once("package = \"").and_then(|(_, rest)| rest.split('"').next());
    let key = line.split(['.', '=', ' ']).next();
    renamed.filter(ours).or(key.filter(ours))
}

fn matches_dir(pattern: &str, dir: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => dir.strip_prefix(prefix).is_some_and(|name| !name.contains('/')),
        None => pattern == dir,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upward_dependency_is_found_however_it_is_written() {
        for line in [
            "[dependencies]\nmemtide-storage.workspace = true",
            "[dev-dependencies]\nmemtide-storage = { path = \"../memtide-storage\" }",
            "[dependencies]\nstore = { package = \"memtide-storage\", path = \"x\" }",
            "[dependencies.memtide-storage]\nworkspace = true",
            "[target.'cfg(unix)'.dependencies]\nmemtide-storage.workspace = true",
        ] {
            let found = check(&[Source::made_up("crates/memtide-memtable/Cargo.toml", line)]);
            assert_eq!(found.len(), 1, "{line}: {found:?}");
            assert!(found[0].message.contains("memtide-storage"), "{}", found[0]);
        }
    }

    #[test]
    fn allowed_dependencies_and_a_crates_own_test_features_are_fine() {
        let text = "[package]\nname = \"memtide-memtable\"\n[dependencies]\nmemtide-base.workspace = true\n\
                    [dev-dependencies]\nmemtide-memtable = { path = \".\", features = [\"testkit\"] }";
        assert_eq!(check(&[Source::made_up("crates/memtide-memtable/Cargo.toml", text)]), []);
        let app = "[dependencies]\nmemtide.workspace = true";
        assert_eq!(check(&[Source::made_up("apps/memtide-cli/Cargo.toml", app)]), []);
    }

    #[test]
    fn a_crate_outside_the_table_is_found() {
        assert_eq!(check(&[Source::made_up("crates/memtide-new/Cargo.toml", "")]).len(), 1);
    }
}
