//! The paths a piece of Rust code names: `crate::a::B`, `use std::{fs, io}`, `super::c()`.
//!
//! Works on the code view of a file. Groups are expanded: each leaf is a path of its own.

use super::source::words;

/// A path in code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CodePath {
    /// Offset of its leaf, or of its root if it has no group.
    pub(crate) offset: usize,
    /// `["crate", "a", "B"]`; a glob ends in `*`.
    pub(crate) segments: Vec<String>,
    /// The name it gets by `as`.
    pub(crate) alias: Option<String>,
}

/// Every path that begins with one of `roots` and goes on behind it.
pub(crate) fn below(code: &str, roots: &[&str]) -> Vec<CodePath> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let begins = roots.contains(&tokens[at].1) && text(&tokens, at + 1) == "::";
        let inside = at > 1 && tokens[at - 1].1 == "::" && is_word(tokens[at - 2].1);
        if begins && !inside {
            expand(&tokens, at, &[], &mut found);
        }
    }
    found
}

/// A `use` declaration.
pub(crate) struct Use {
    /// Where the declaration begins and ends in the code, visibility included.
    pub(crate) span: (usize, usize),
    /// Whether others see the names.
    pub(crate) is_pub: bool,
    /// What it names.
    pub(crate) paths: Vec<CodePath>,
}

/// The `use` declarations of a file.
pub(crate) fn declarations(code: &str) -> Vec<Use> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    for at in (0..tokens.len()).filter(|&at| tokens[at].1 == "use") {
        let mut paths = Vec::new();
        let leading = usize::from(text(&tokens, at + 1) == "::");
        expand(&tokens, at + 1 + leading, &[], &mut paths);
        let start = match at {
            1.. if tokens[at - 1].1 == "pub" => at - 1,
            4.. if tokens[at - 1].1 == ")" && tokens[at - 4].1 == "pub" => at - 4,
            _ => at,
        };
        let end = code[tokens[at].0..].find(';').map_or(code.len(), |n| tokens[at].0 + n + 1);
        found.push(Use { span: (tokens[start].0, end), is_pub: start != at, paths });
    }
    found
}

type Token<'c> = (usize, &'c str);

/// Words, `::`, and every other character that is not white space alone.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found: Vec<Token<'_>> = Vec::new();
    let mut at = 0;
    for (start, word) in words(code).chain([(code.len(), "")]) {
        while let Some(c) = code[at..start].chars().next() {
            let length = if code[at..].starts_with("::") { 2 } else { c.len_utf8() };
            if !c.is_whitespace() {
                found.push((at, &code[at..at + length]));
            }
            at += length;
        }
        if !word.is_empty() {
            found.push((start, word));
        }
        at = start + word.len();
    }
    found
}

fn text<'c>(tokens: &[Token<'c>], at: usize) -> &'c str {
    tokens.get(at).map_or("", |token| token.1)
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Reads one path at `at` below `prefix`, adds its leaves, gives the index behind it.
fn expand(tokens: &[Token<'_>], at: usize, prefix: &[&str], out: &mut Vec<CodePath>) -> usize {
    let mut segments = prefix.to_vec();
    let mut next = at;
    loop {
        let word = text(tokens, next);
        if word == "{" {
            next += 1;
            while !matches!(text(tokens, next), "}" | "") {
                let behind = expand(tokens, next, &segments, out);
                next = behind + usize::from(text(tokens, behind) == ",");
                if behind == next && text(tokens, next) != "}" {
                    return next + 1;
                }
            }
            return next + 1;
        }
        if !is_word(word) && word != "*" {
            break;
        }
        segments.push(word);
        next += 1;
        if text(tokens, next) != "::" {
            break;
        }
        next += 1;
    }
    let renamed = text(tokens, next) == "as";
    let alias = renamed.then(|| text(tokens, next + 1).to_string());
    if let Some(&(offset, _)) = tokens.get(at) {
        let segments = segments.into_iter().map(String::from).collect();
        out.push(CodePath { offset, segments, alias });
    }
    next + if renamed { 2 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(paths: &[CodePath]) -> Vec<String> {
        paths.iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn groups_globs_and_expressions_are_found() {
        let code = "use std::{fs::{self, File}, io as i};\nuse std::sync::*;\nlet x = std::thread::spawn(f);
            use other::std::nothing; let y = Vec::<u8>::new(); ::std::fmt::Debug";
        assert_eq!(
            joined(&below(code, &["std"])),
            [
                "std::fs::self",
                "std::fs::File",
                "std::io",
                "std::sync::*",
                "std::thread::spawn",
                "std::fmt::Debug"
            ]
        );
    }

    #[test]
    fn declarations_know_their_visibility_and_names() {
        let code = "pub use a::{B, c::D as E};\npub(crate) use f::G;\nuse h;";
        let found = declarations(code);
        assert_eq!(found.iter().map(|one| one.is_pub).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(joined(&found[0].paths), ["a::B", "a::c::D"]);
        assert_eq!(found[0].paths[1].alias.as_deref(), Some("E"));
        assert_eq!(&code[found[1].span.0..found[1].span.1], "pub(crate) use f::G;");
    }

    #[test]
    fn unfinished_code_ends_the_search_and_not_the_program() {
        for code in ["use a::{", "use a::{b", "use a::{b c", "crate::{+", "use"] {
            declarations(code);
            below(code, &["crate"]);
        }
    }
}
