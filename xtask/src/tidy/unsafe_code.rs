//! `unsafe` lives in few files, and each use of it is argued.

use super::Finding;
use super::source::{Source, words};

/// Files and directories where `unsafe` may stand.
const ALLOWED: &[&str] = &[
    "crates/memtide-env/src/heap.rs",
    "crates/memtide-env/src/vfs/mapped/window.rs",
    "crates/memtide-memtable/src/arena.rs",
    "crates/memtide-memtable/src/arena/",
    "crates/memtide-memtable/src/tags.rs",
    // What is measured beside ours: a counting allocator, and a database whose opening is unsafe.
    "tools/memtables/main.rs",
    "tools/peerbench/src/engines/lmdb.rs",
];

/// How many lines above an `unsafe` its argument may begin to end.
const ARGUED_WITHIN: usize = 8;

/// Reports `unsafe` in the wrong place or without an argument.
pub(crate) fn check(files: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let lines: Vec<&str> = file.comments.lines().collect();
        for (offset, _) in words(&file.code).filter(|(_, word)| *word == "unsafe") {
            let line = file.line_of(offset);
            if !is_allowed(&file.path) {
                let message = "unsafe code outside the files of xtask/src/tidy/unsafe_code.rs";
                findings.push(Finding::new(&file.path, line, message));
            }
            let behind = file.code[offset + "unsafe".len()..].trim_start();
            let needs_argument = behind.starts_with('{') || behind.starts_with("impl");
            let above = &lines[line.saturating_sub(ARGUED_WITHIN + 1)..line.min(lines.len())];
            if needs_argument && !above.iter().any(|text| text.contains("SAFETY")) {
                let message = format!("no `SAFETY` within {ARGUED_WITHIN} lines above this unsafe");
                findings.push(Finding::new(&file.path, line, message));
            }
        }
    }
    findings
}

/// Test binaries may hold a counting allocator.
fn is_allowed(path: &str) -> bool {
    let test_binary = path.starts_with("crates/") && path.split('/').nth(2) == Some("tests");
    test_binary || ALLOWED.iter().any(|allowed| path.starts_with(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_in_the_wrong_file_is_found() {
        for text in ["unsafe fn f() {}", "// SAFETY: none.\nunsafe impl Send for A {}"] {
            assert_eq!(check(&[Source::made_up("crates/a/src/b.rs", text)]).len(), 1, "{text}");
        }
    }

    #[test]
    fn an_argument_too_far_above_is_none() {
        let gap = "\n".repeat(ARGUED_WITHIN);
        for (gap, count) in [(gap.clone(), 0), (gap + "\n", 1)] {
            let text = format!("// SAFETY: owned.{gap}unsafe {{ x() }}");
            let file = Source::made_up("crates/memtide-memtable/src/arena.rs", &text);
            assert_eq!(check(&[file]).len(), count, "{text:?}");
        }
    }

    #[test]
    fn the_word_in_texts_and_lints_is_fine() {
        let text = "#![forbid(unsafe_code)]\n// unsafe { }\nlet a = \"unsafe { }\";";
        assert_eq!(check(&[Source::made_up("crates/a/src/b.rs", text)]), []);
        let allocator = "// SAFETY: forwarded.\nunsafe impl GlobalAlloc for Counting {}";
        assert_eq!(check(&[Source::made_up("crates/a/tests/memory.rs", allocator)]), []);
    }
}
