//! Files a reader can hold: bounded lines, bounded width, no large blobs.

use super::Finding;
use super::source::Source;

/// Lines of a Rust file.
const LINES_MAX: usize = 1000;
/// Characters of a line of Rust.
const WIDTH_MAX: usize = 120;
/// Bytes of any file outside [`LARGE`].
const BYTES_MAX: usize = 256 * 1024;
/// Where large files are expected: databases written by older versions.
const LARGE: &str = "tests/golden/";

/// Reports what is too large.
pub(crate) fn check(files: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        if file.size > BYTES_MAX && !file.path.starts_with(LARGE) {
            let message = format!("{} bytes, at most {BYTES_MAX} outside {LARGE}", file.size);
            findings.push(Finding::new(&file.path, 1, message));
        }
        if !file.is_rust() {
            continue;
        }
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            let message =
                format!("{lines} lines, at most {LINES_MAX}: look for the second concept");
            findings.push(Finding::new(&file.path, LINES_MAX + 1, message));
        }
        for (index, line) in file.text.lines().enumerate() {
            let width = line.chars().count();
            if width > WIDTH_MAX {
                let message = format!("{width} characters, at most {WIDTH_MAX}");
                findings.push(Finding::new(&file.path, index + 1, message));
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
    fn one_more_than_the_bound_is_found_and_the_bound_is_fine() {
        assert_eq!(found("a.rs", &"\n".repeat(LINES_MAX)), 0);
        assert_eq!(found("a.rs", &"\n".repeat(LINES_MAX + 1)), 1);
        assert_eq!(found("a.rs", &"ä".repeat(WIDTH_MAX)), 0);
        assert_eq!(found("a.rs", &"ä".repeat(WIDTH_MAX + 1)), 1);
        assert_eq!(found("a.bin", &"x".repeat(BYTES_MAX)), 0);
        assert_eq!(found("a.bin", &"x".repeat(BYTES_MAX + 1)), 1);
    }

    #[test]
    fn prose_may_be_wide_and_golden_files_large() {
        assert_eq!(found("a.md", &"x".repeat(WIDTH_MAX + 1)), 0);
        assert_eq!(found("tests/golden/v1/a.sst", &"x".repeat(BYTES_MAX + 1)), 0);
    }
}
