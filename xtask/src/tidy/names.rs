//! The map of the source uses no name that the source does not have.
//!
//! Looks at what `ARCHITECTURE.md` has between backquotes: a file or directory must be in the tree, below whatever
//! directory, with `tide/` short for `crates/memtide-tide/src/`; each part of a Rust path must be a word in some Rust
//! file. Anything else is not looked at.

use std::collections::HashSet;

use super::Finding;
use super::source::Source;

const MAP: &str = "ARCHITECTURE.md";

/// Reports names in the map that lead nowhere.
pub(crate) fn check(files: &[Source]) -> Vec<Finding> {
    let Some(map) = files.iter().find(|file| file.path == MAP) else { return Vec::new() };
    let is_word_char = |c: char| c.is_alphanumeric() || c == '_';
    let rust = files.iter().filter(|file| file.is_rust());
    let words: HashSet<&str> =
        rust.flat_map(|file| file.code.split(|c| !is_word_char(c))).collect();
    let paths: Vec<String> = files.iter().map(|file| in_short(&file.path)).collect();
    let has_path = |path: &str| {
        let name = format!("/{}", path.trim_end_matches('/'));
        let below = format!("{name}/");
        paths.iter().any(|own| own.ends_with(&name) || own.contains(&below))
    };
    let is_known = |name: &str| {
        if name.ends_with(".rs") || name.ends_with('/') {
            return has_path(name);
        }
        let is_path = name.split("::").all(|part| {
            part.starts_with(|c: char| c.is_alphabetic() || c == '_')
                && part.chars().all(is_word_char)
        });
        !is_path || name.split("::").all(|part| words.contains(part) || has_path(part))
    };
    let names = map.text.lines().enumerate().flat_map(|(index, line)| {
        line.split('`').skip(1).step_by(2).map(move |name| (index + 1, name))
    });
    names
        .filter(|(_, name)| !is_known(name))
        .map(|(line, name)| Finding::new(MAP, line, format!("`{name}` is not in the tree")))
        .collect()
}

/// A path as the map writes it, from a slash on.
fn in_short(path: &str) -> String {
    let file = path.strip_prefix("crates/memtide-").and_then(|own| own.split_once("/src/"));
    file.map_or_else(|| format!("/{path}"), |(name, file)| format!("/{name}/{file}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(text: &str) -> Vec<usize> {
        let files = [
            Source::made_up(MAP, text),
            Source::made_up("crates/tide/src/deep/moon.rs", "impl Moon { fn rises(&self) {} }"),
        ];
        check(&files).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn what_is_gone_is_found() {
        assert_eq!(unknown("`Moon::sets`\n`sun.rs` and `deep/sun.rs`\n`shallow/`"), [1, 2, 2, 3]);
    }

    #[test]
    fn what_is_there_and_what_is_no_name_is_fine() {
        let text = "`Moon::rises` `Moon` in `deep/moon.rs`, `moon.rs`, `deep/` and `src`\n`--flag x` `*.log` `a-b`";
        assert_eq!(unknown(text), []);
    }
}
