//! Measured figures in documents, made again by the command that stands above them.
//!
//! ```text
//! <!-- measured: bench memtables --markdown -->
//! ...what the program printed, on this machine, when this was last run...
//! <!-- measured end -->
//! ```
//!
//! Everything between the two marks is replaced by what `memtide` prints for these arguments, built for
//! release. A document says of itself where its figures come from, and none can be typed by hand.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const BEGIN: &str = "<!-- measured: ";
const BEGIN_END: &str = " -->\n";
const END: &str = "<!-- measured end -->";

/// Where figures stand, in the order they are made.
const DOCUMENTS: &[&str] = &["README.md", "docs/BENCHMARKS.md", "docs/guide/memtables.md"];

/// Makes all figures again. No document is touched if one of its commands fails.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    for document in DOCUMENTS {
        let path = root.join(document);
        let text = fs::read_to_string(&path).map_err(|error| format!("{document}: {error}"))?;
        let renewed = renewed(&text, |arguments| measured(root, arguments))
            .map_err(|reason| format!("{document}: {reason}"))?;
        fs::write(&path, renewed).map_err(|error| format!("{document}: {error}"))?;
    }
    Ok(())
}

/// `text` with everything between marks replaced by what `measure` makes of the arguments in the first mark.
fn renewed(
    text: &str,
    mut measure: impl FnMut(&[&str]) -> Result<String, String>,
) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(BEGIN) {
        let line = before.matches('\n').count() + out.matches('\n').count() + 1;
        let unclosed = || format!("line {line}: the mark is not closed");
        let (arguments, behind) = behind.split_once(BEGIN_END).ok_or_else(unclosed)?;
        let (old, behind) = behind.split_once(END).ok_or_else(unclosed)?;
        if old.contains(BEGIN) {
            return Err(unclosed());
        }
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let new = measure(&words)?;
        out.push_str(&format!("{before}{BEGIN}{arguments}{BEGIN_END}\n{}\n\n{END}", new.trim()));
        rest = behind;
    }
    if out.is_empty() {
        return Err("no mark of measured figures".to_string());
    }
    out.push_str(rest);
    Ok(out)
}

/// What the program prints, once it is built.
fn measured(root: &Path, arguments: &[&str]) -> Result<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).stderr(Stdio::inherit());
    command.args(["run", "--release", "--quiet", "--package", "memtide-cli", "--"]).args(arguments);
    let output = command.output().map_err(|error| format!("could not start cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("memtide {}: {}", arguments.join(" "), output.status));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("memtide printed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a\n<!-- measured: x  1 -->\nold\n<!-- measured end -->\nb\n\
                        <!-- measured: y -->\n<!-- measured end -->";

    #[test]
    fn only_what_is_between_marks_is_replaced_and_again_by_the_same() {
        let measure = |words: &[&str]| Ok(format!("{}!\n", words.join("+")));
        let want = "a\n<!-- measured: x  1 -->\n\nx+1!\n\n<!-- measured end -->\nb\n\
                    <!-- measured: y -->\n\ny!\n\n<!-- measured end -->";
        let once = renewed(TEXT, measure).expect("well marked");
        assert_eq!(once, want);
        assert_eq!(renewed(&once, measure).expect("well marked"), want);
    }

    #[test]
    fn a_document_without_whole_marks_is_refused() {
        let measure = |_: &[&str]| Ok(String::new());
        for (text, reason) in [
            ("nothing", "no mark"),
            ("\n\n<!-- measured: x -->\n", "line 3"),
            ("<!-- measured: x -->\n<!-- measured: y -->\n<!-- measured end -->", "line 1"),
        ] {
            let error = renewed(text, measure).expect_err("not well marked");
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        let failed = renewed(TEXT, |words| Err(words.concat()));
        assert_eq!(failed, Err("x1".to_string()));
    }

    #[test]
    fn every_document_is_well_marked() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = package.parent().expect("the workspace is above");
        for document in DOCUMENTS {
            let text = fs::read_to_string(root.join(document)).expect("readable");
            let mut commands = Vec::new();
            let same = renewed(&text, |words| {
                commands.push(words.join(" "));
                Ok(String::new())
            });
            same.unwrap_or_else(|reason| panic!("{document}: {reason}"));
            for command in commands {
                assert!(command.starts_with("bench memtables --markdown"), "{command}");
            }
        }
    }
}
