//! The architecture and the vocabulary as data, and the test that the tree follows them.
//!
//! A rule is a pure function from the files of the tree to findings, so each is tested on texts made up
//! for it. Only [`run`] touches the disk. Rules look at Rust files through
//! [`Source::code`](source::Source), where comments and literals are blank: words in messages and planted
//! violations in tests are not findings.
//!
//! Not read: `.git`, and what `.gitignore` names with a leading `/`.

mod crates;
mod cycles;
mod layers;
mod links;
mod local_words;
mod modules;
mod names;
mod paths;
mod size;
mod source;
mod unsafe_code;
mod words;
mod world;

use std::fmt;
use std::fs;
use std::path::Path;

use source::Source;

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    /// `line` counts from one.
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_string(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// A rule over the whole tree.
type Rule = fn(&[Source]) -> Vec<Finding>;

/// Every rule there is.
const RULES: &[Rule] = &[
    crates::check,
    layers::check,
    cycles::check,
    words::check,
    local_words::check,
    unsafe_code::check,
    world::check,
    size::check,
    links::check,
    names::check,
];

/// Checks the tree below `root` and prints what it finds.
///
/// # Errors
/// There are findings, or a file could not be read.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let mut files = Vec::new();
    let ignored = ignored(root);
    collect(root, "", &ignored, &mut files)?;
    source::mark_test_modules(&mut files);
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&files)).collect();
    findings.sort();
    findings.dedup();
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(format!("{count} findings in {} files", files.len())),
    }
}

/// Top-level names that are no part of the tree.
fn ignored(root: &Path) -> Vec<String> {
    let listed = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
    let rooted = listed.lines().filter_map(|line| line.trim().strip_prefix('/'));
    let names = rooted.map(|name| name.trim_end_matches('/').to_string());
    names.chain([".git".to_string()]).collect()
}

fn collect(
    root: &Path,
    below: &str,
    ignored: &[String],
    files: &mut Vec<Source>,
) -> Result<(), String> {
    let failed = |path: &str, error| format!("could not read `{path}`: {error}");
    let entries = fs::read_dir(root.join(below)).map_err(|error| failed(below, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| failed(below, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if ignored.contains(&path) {
            continue;
        }
        let kind = entry.file_type().map_err(|error| failed(&path, error))?;
        if kind.is_dir() {
            collect(root, &path, ignored, files)?;
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).map_err(|error| failed(&path, error))?;
            files.push(Source::from_bytes(path, bytes));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_on_disk_is_read_without_what_git_ignores() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        collect(root, "", &["Cargo.toml".to_string()], &mut files).unwrap();
        let has = |path: &str| files.iter().any(|file| file.path == path);
        assert!(has("src/tidy/mod.rs") && !has("Cargo.toml"));
    }

    #[test]
    fn a_finding_names_its_place_like_a_compiler() {
        let finding = Finding::new("a/b.rs", 7, "too long");
        assert_eq!(finding.to_string(), "a/b.rs:7: too long");
    }
}
