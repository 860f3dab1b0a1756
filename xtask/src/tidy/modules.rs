//! The top-level modules of each crate and which of them use which.
//!
//! A use is a path behind `crate::` or `super::` outside test code. A name that `lib.rs` re-exports from a
//! module counts as that module. `lib.rs` (or `main.rs`) itself is the module [`ROOT`]: whoever uses what
//! is defined there uses it, and it uses what it names outside of `pub use`.

use std::collections::{BTreeMap, BTreeSet};

use super::paths;
use super::source::{Source, brace_end, words};

/// The crate root as a node among the modules.
pub(crate) const ROOT: &str = "crate root";

/// One use of a module by another.
pub(crate) struct Edge {
    /// The top-level module whose code it is.
    pub(crate) from: String,
    /// The top-level module it names.
    pub(crate) to: String,
    /// The path as written.
    pub(crate) written: String,
    /// The file it is in.
    pub(crate) path: String,
    /// The line, counted from one.
    pub(crate) line: usize,
}

/// A crate's modules.
pub(crate) struct Crate {
    /// Its source directory, such as `crates/memtide/src`.
    pub(crate) src: String,
    /// Who uses whom, in the order of files and lines; never a module itself.
    pub(crate) edges: Vec<Edge>,
}

/// All crates of the tree.
pub(crate) fn crates(files: &[Source]) -> Vec<Crate> {
    let mut by_src: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        if let Some((src, module)) = split(&file.path)
            && !module.starts_with("bin/")
        {
            by_src.entry(src).or_default().push(file);
        }
    }
    by_src.into_iter().map(|(src, files)| read(src, &files)).collect()
}

/// `crates/x/src/a/b.rs` as its source directory and `a/b.rs`.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let at = path.find("/src/")?;
    let inside_tests = path[..at].contains("/tests") || path[..at].contains("/examples");
    (!inside_tests).then(|| (&path[..at + 4], &path[at + 5..]))
}

/// The module path of a file below `src`: `a/b.rs` is `["a", "b"]`, `a/mod.rs` is `["a"]`.
pub(crate) fn module_path(file: &str) -> Vec<&str> {
    let mut names: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    let last = names.last().copied();
    let is_root = names.len() == 1 && matches!(last, Some("lib" | "main"));
    if is_root || last == Some("mod") {
        names.pop();
    }
    names
}

/// What a name behind `crate::` stands for.
enum Meaning {
    Module(String),
    OtherCrate,
}

struct Names<'s> {
    modules: BTreeSet<&'s str>,
    exports: BTreeMap<String, Meaning>,
}

impl Names<'_> {
    /// The module `name` leads to; `None` if it leads out of the crate.
    fn resolve(&self, name: &str) -> Option<&str> {
        if let Some(&module) = self.modules.get(name) {
            return Some(module);
        }
        match self.exports.get(name) {
            Some(Meaning::Module(module)) => Some(module),
            Some(Meaning::OtherCrate) => None,
            None => Some(ROOT),
        }
    }
}

fn read(src: &str, files: &[&Source]) -> Crate {
    let path_of = |file: &Source| file.path[src.len() + 1..].to_string();
    let owned: Vec<(String, &Source)> = files.iter().map(|file| (path_of(file), *file)).collect();
    let mut names = Names { modules: BTreeSet::new(), exports: BTreeMap::new() };
    names.modules.extend(owned.iter().filter_map(|(file, _)| module_path(file).first().copied()));
    for (_, root) in owned.iter().filter(|(file, _)| module_path(file).is_empty()) {
        add_exports(&root.code, &mut names);
    }
    let mut edges = Vec::new();
    for (file, source) in &owned {
        let module = module_path(file);
        match module.first() {
            Some(top) => add_uses(source, top, module.len(), &names, &mut edges),
            None => add_root_uses(source, &names, &mut edges),
        }
    }
    Crate { src: src.to_string(), edges }
}

fn add_exports(code: &str, names: &mut Names<'_>) {
    for path in paths::declarations(code).into_iter().flat_map(|one| one.paths) {
        let mut segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
        if matches!(segments.first(), Some(&("crate" | "self"))) {
            segments.remove(0);
        }
        if segments.last() == Some(&"self") {
            segments.pop();
        }
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
            continue;
        };
        let meaning = match names.modules.get(first) {
            Some(module) => Meaning::Module((*module).to_string()),
            None => Meaning::OtherCrate,
        };
        let name = path.alias.clone().unwrap_or_else(|| (*last).to_string());
        names.exports.insert(name, meaning);
    }
}

/// Uses of other modules by a file `depth` modules below the root.
fn add_uses(source: &Source, top: &str, depth: usize, names: &Names<'_>, edges: &mut Vec<Edge>) {
    let inline = inline_modules(&source.code);
    for path in paths::below(&source.code, &["crate", "super"]) {
        let line = source.line_of(path.offset);
        if source.is_test(line) {
            continue;
        }
        let ups = path.segments.iter().take_while(|segment| *segment == "super").count();
        let nested = inline.iter().filter(|span| span.contains(&path.offset)).count();
        if path.segments[0] == "super" && ups < depth + nested {
            continue;
        }
        let Some(name) = path.segments.get(ups.max(1)) else {
            continue;
        };
        let Some(to) = names.resolve(name) else {
            continue;
        };
        if to != top {
            edges.push(edge(top, to, &path.segments, source, line));
        }
    }
}

/// What the crate root itself uses: re-exports do not count.
fn add_root_uses(source: &Source, names: &Names<'_>, edges: &mut Vec<Edge>) {
    let exported = paths::declarations(&source.code).into_iter().filter(|one| one.is_pub);
    let exported: Vec<(usize, usize)> = exported.map(|one| one.span).collect();
    let mut roots: Vec<&str> = names.modules.iter().copied().collect();
    roots.extend(["crate", "self"]);
    for path in paths::below(&source.code, &roots) {
        let line = source.line_of(path.offset);
        let is_export = exported.iter().any(|&(a, b)| (a..b).contains(&path.offset));
        let name =
            &path.segments[usize::from(matches!(path.segments[0].as_str(), "crate" | "self"))];
        if source.is_test(line) || is_export {
            continue;
        }
        if let Some(to) = names.resolve(name).filter(|to| *to != ROOT) {
            edges.push(edge(ROOT, to, &path.segments, source, line));
        }
    }
}

fn edge(from: &str, to: &str, written: &[String], source: &Source, line: usize) -> Edge {
    Edge {
        from: from.to_string(),
        to: to.to_string(),
        written: written.join("::"),
        path: source.path.clone(),
        line,
    }
}

/// The spans of `mod name { … }`.
fn inline_modules(code: &str) -> Vec<std::ops::Range<usize>> {
    let mut spans = Vec::new();
    let all: Vec<(usize, &str)> = words(code).collect();
    for pair in all.windows(2).filter(|pair| pair[0].1 == "mod") {
        let behind = pair[1].0 + pair[1].1.len();
        let gap = code[behind..].len() - code[behind..].trim_start().len();
        if code[behind + gap..].starts_with('{') {
            spans.push(behind..brace_end(code, behind + gap));
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_found_through_groups_supers_and_reexports() {
        let files = [
            Source::made_up(
                "a/src/lib.rs",
                "mod key; mod entry; mod deep; pub use key::{Key as K, Ord};",
            ),
            Source::made_up("a/src/key.rs", "use std::cmp;"),
            Source::made_up(
                "a/src/entry.rs",
                "use crate::{K, deep::x};\nuse super::Ord;\nmod inner { use super::y; }\n\
                 #[cfg(test)]\nmod tests { use super::*; use crate::key; }",
            ),
            Source::made_up("a/src/deep/mod.rs", "mod x;\nuse self::x::Y;"),
            Source::made_up(
                "a/src/deep/x.rs",
                "use super::z;\nuse super::super::entry::E;\nuse crate::Own;",
            ),
        ];
        let crates = crates(&files);
        assert_eq!(crates.len(), 1);
        let edges = crates[0].edges.iter();
        let seen: Vec<String> =
            edges.map(|edge| format!("{} {} {}", edge.from, edge.to, edge.line)).collect();
        let expected =
            ["entry key 1", "entry deep 1", "entry key 2", "deep entry 2", "deep crate root 3"];
        assert_eq!(seen, expected);
    }
}
