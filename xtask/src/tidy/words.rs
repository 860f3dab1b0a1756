//! One vocabulary: rejected names, unfinished work, tests switched off, files without a header.
//!
//! `docs/glossary.md` says which name is chosen instead.

use std::collections::BTreeMap;

use super::Finding;
use super::source::{Source, words};

/// Words no identifier and no file name may contain, and what to write instead.
const REJECTED: &[(&str, &str)] = &[
    ("util", "name the thing after what it does"),
    ("utils", "name the thing after what it does"),
    ("helper", "name the thing after what it does"),
    ("helpers", "name the thing after what it does"),
    ("manager", "name the thing after what it does"),
    ("misc", "name the thing after what it does"),
    ("common", "name the thing after what it does"),
    ("frozen", "a memtable is sealed"),
    ("journal", "it is the WAL"),
    ("vlog", "it is a blob file"),
    ("sstable", "it is a table"),
];

/// As [`REJECTED`], for two words in a row.
const REJECTED_PAIRS: &[(&str, &str)] = &[
    ("column_family", "it is a keyspace"),
    ("write_buffer", "it is a memtable"),
    ("delete_marker", "it is a tombstone"),
];

/// Terms of the field that hold a rejected word.
const ACCEPTED: &[&str] = &["common_prefix", "common_suffix"];

/// Names that libraries of others have for what we measure beside ours.
const FOREIGN: &[&str] = &["set_write_buffer_size", "write_buffer_size"];

/// Methods that find rather than access.
const GETTERS: &[&str] = &["get_keyspace", "get_with"];

/// Reports names and marks against the vocabulary.
pub(crate) fn check(files: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let stem = name.split('.').next().unwrap_or_default();
        if let Some(message) = rejected(&stem.replace('-', "_")) {
            findings.push(Finding::new(&file.path, 1, message));
        }
        if file.is_rust() {
            header(file, &mut findings);
            identifiers(file, &mut findings);
            marks(file, &mut findings);
        }
    }
    findings
}

fn header(file: &Source, findings: &mut Vec<Finding>) {
    if !file.text.starts_with("//!") {
        findings.push(Finding::new(&file.path, 1, "the file does not begin with a `//!` header"));
    }
}

fn identifiers(file: &Source, findings: &mut Vec<Finding>) {
    // A file says the same words again and again.
    let mut judged: BTreeMap<&str, Option<String>> = BTreeMap::new();
    for (offset, word) in words(&file.code) {
        if let Some(message) = judged.entry(word).or_insert_with(|| rejected(word)) {
            let message = message.as_str();
            findings.push(Finding::new(&file.path, file.line_of(offset), message));
        }
        let behind = &file.code[offset + word.len()..];
        let accessor = word.starts_with("get_") && behind.starts_with("(&self)");
        if accessor && file.code[..offset].ends_with("fn ") && !GETTERS.contains(&word) {
            let message = format!("accessor `{word}`: drop the `get_`");
            findings.push(Finding::new(&file.path, file.line_of(offset), message));
        }
    }
}

/// Why an identifier is not ours; `None` if it may stay.
fn rejected(identifier: &str) -> Option<String> {
    if FOREIGN.contains(&identifier) {
        return None;
    }
    let snake = snake_case(identifier);
    let plain = ACCEPTED.iter().fold(snake, |rest, term| rest.replace(term, ""));
    let parts: Vec<&str> = plain.split('_').collect();
    let word = REJECTED.iter().find(|(word, _)| parts.contains(word));
    let pair =
        REJECTED_PAIRS.iter().find(|(pair, _)| format!("_{plain}_").contains(&format!("_{pair}_")));
    if let Some((word, instead)) = word.or(pair) {
        return Some(format!("`{identifier}` holds the rejected word `{word}`: {instead}"));
    }
    let number = parts.last().and_then(|last| last.strip_prefix('v')?.parse::<u32>().ok());
    let later = number.is_some_and(|number| number >= 2) && parts.len() > 1;
    later.then(|| format!("`{identifier}` carries a version: replace its elder instead"))
}

/// `TableBuilder` and `TABLE_BUILDER` as `table_builder`.
fn snake_case(identifier: &str) -> String {
    let mut out = String::new();
    let mut lower = false;
    for c in identifier.chars() {
        if c.is_uppercase() && lower {
            out.push('_');
        }
        lower = c.is_lowercase() || c.is_ascii_digit();
        out.extend(c.to_lowercase());
    }
    out
}

/// Marks of unfinished work, in code or comments, and of tests that do not run.
fn marks(file: &Source, findings: &mut Vec<Finding>) {
    let views = file.code.lines().zip(file.comments.lines());
    for (index, (code, comment)) in views.enumerate() {
        let mut report = |message: &str| {
            findings.push(Finding::new(&file.path, index + 1, message));
        };
        let marked = |text: &str| words(text).any(|(_, word)| word == "TODO" || word == "FIXME");
        if marked(code) || marked(comment) || code.contains("todo!") {
            report("unfinished work: finish it, or list it in the documentation");
        }
        if code.contains("#[ignore") {
            report("a test that is switched off proves nothing");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let found = check(&[Source::made_up("crates/a/src/key.rs", text)]);
        found.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn rejected_words_are_found_in_any_case() {
        for word in [
            "mod utils;",
            "struct CacheManager;",
            "let common_part = 1;",
            "const WRITE_BUFFER: u8 = 0;",
        ] {
            assert_eq!(lines(&format!("//! Header.\n{word}")), [2], "{word}");
        }
        assert_eq!(lines("//! H.\nfn read_v2() {}\nfn get_len(&self) {}\n"), [2, 3]);
        assert_eq!(check(&[Source::made_up("docs/helpers.md", "")]).len(), 1);
    }

    #[test]
    fn unfinished_work_and_switched_off_tests_are_found() {
        assert_eq!(
            lines("//! H.\n// TODO later\nfn f() { todo!() }\n#[ignore = \"slow\"]\n"),
            [2, 3, 4]
        );
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        assert_eq!(lines("use std::fmt;\n"), [1]);
    }

    #[test]
    fn our_own_words_are_fine() {
        let text = "//! A helper of nobody.\nfn common_prefix_len(a: &str) { log(\"misc TODO\") }\n\
                    fn get_with(&self) {}\nfn get_after_flush() {}\nmod v1 {}\nfn golden_v1() {}\n";
        assert_eq!(lines(text), []);
    }
}
