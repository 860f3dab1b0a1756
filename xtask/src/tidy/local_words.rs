//! What is written here is for every reader: no text that only makes sense on one machine or in one
//! tracker. This file is the only one that may hold the words it looks for.

use super::Finding;
use super::source::{Source, words};

const THIS_FILE: &str = "xtask/src/tidy/local_words.rs";

/// Paths and hosts of somebody's machine.
const PLACES: &[&str] =
    &["/work/", "/tmp/spec", "static.crates.io", "index.crates.io", "registry.npmjs.org"];

/// Words about how the text came to be, not about what it says.
const PROCESS: &[&str] = &["sitting", "sittings"];

/// Reports such text in any file.
pub(crate) fn check(files: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path != THIS_FILE) {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(found) = local(line) {
                let message = format!("`{found}` means nothing to a reader elsewhere");
                findings.push(Finding::new(&file.path, index + 1, message));
            }
        }
    }
    findings
}

fn local(line: &str) -> Option<&str> {
    let place = PLACES.iter().copied().find(|place| line.contains(place));
    place.or_else(|| words(line).map(|(_, word)| word).find(is_process)).or_else(|| tracked(line))
}

fn is_process(word: &&str) -> bool {
    PROCESS.iter().any(|process| word.eq_ignore_ascii_case(process))
}

/// The number of an entry in a tracker.
fn tracked(line: &str) -> Option<&str> {
    let numbers = line.match_indices('#').filter(|&(at, _)| {
        let number = line[at + 1..].starts_with(|c: char| c.is_ascii_digit());
        number && line[..at].to_ascii_lowercase().ends_with("issue ")
    });
    numbers.map(|(at, _)| &line[at - "issue ".len()..at + 2]).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_text_is_found_in_any_sort_of_file() {
        for line in
            ["see Issue #12", "of this sitting.", "in /work/main", "https://index.crates.io/x"]
        {
            let found = check(&[Source::made_up("docs/a.md", &format!("fine\n{line}\n"))]);
            assert_eq!(found.iter().map(|one| one.line).collect::<Vec<_>>(), [2], "{line}");
        }
    }

    #[test]
    fn everyday_text_is_fine() {
        let text = "an issue # of babysitting, teamwork/play, crates.io, colour #123";
        assert_eq!(check(&[Source::made_up("docs/a.md", text)]), []);
    }
}
