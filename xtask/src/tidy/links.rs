//! Links between the documents lead somewhere.
//!
//! Looks at `[text](target)` and `[name]: target` outside of code; a target with a scheme, and the part
//! behind `#`, are not followed.

use super::Finding;
use super::source::Source;

/// Reports links to files that are not in the tree.
pub(crate) fn check(files: &[Source]) -> Vec<Finding> {
    let exists = |path: &str| {
        files.iter().any(|file| {
            path.is_empty()
                || file.path == path
                || file.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
        })
    };
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in targets(&file.text) {
            if !resolve(&file.path, target).is_some_and(|path| exists(&path)) {
                let message = format!("link to `{target}`, which is not in the tree");
                findings.push(Finding::new(&file.path, line, message));
            }
        }
    }
    findings
}

/// The local targets with their lines.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second piece between backquotes is code; a link around code keeps its brackets.
        let mut at = 0;
        for (number, piece) in line.split('`').enumerate() {
            if number % 2 == 0 {
                let opened = piece.match_indices("](").map(|(open, _)| &line[at + open + 2..]);
                found.extend(
                    opened.filter_map(|rest| rest.split([')', ' ']).next()).map(|t| (index + 1, t)),
                );
            }
            at += piece.len() + 1;
        }
        let named = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        found.extend(named.map(|(_, target)| (index + 1, target.trim())));
    }
    let local =
        |target: &str| !target.is_empty() && !target.starts_with('#') && !has_scheme(target);
    found.retain(|(_, target)| local(target));
    found
}

fn has_scheme(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

/// The path in the tree a link of `from` means; `None` if it leads out of the tree.
fn resolve(from: &str, target: &str) -> Option<String> {
    let target = target.split('#').next().unwrap_or_default();
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => from.split('/').collect(),
    };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let files = [
            Source::made_up("docs/guide/start.md", text),
            Source::made_up("README.md", ""),
            Source::made_up("docs/format/wal.md", ""),
        ];
        check(&files).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_link_to_nowhere_is_found() {
        assert_eq!(lines("\n[a](wal.md) and [b](../../../up.md)\n[c]: ../gone.md\n"), [2, 2, 3]);
        assert_eq!(lines("[`Wal`](nowhere.md)"), [1]);
    }

    #[test]
    fn links_that_lead_somewhere_and_code_are_fine() {
        let text = "[a](../format/wal.md#header) [b](../../README.md) [c](https://x.y/z) [d](#top) [e](../format)\n\
                    [`Wal`](../format/wal.md \"title\")\n`a[0](gone)`\n```\nf[1](gone)\n```\n";
        assert_eq!(lines(text), []);
    }
}
