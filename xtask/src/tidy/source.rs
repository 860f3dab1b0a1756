//! A file of the tree, and views of a Rust file that keep its line breaks.
//!
//! A scanner, not a parser: it knows comments, string and character literals, lifetimes and braces. That
//! is enough to never mistake a word in a message for code.

/// A file with the views the rules look through.
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// Empty if the file is not UTF-8.
    pub(crate) text: String,
    /// Bytes on disk.
    pub(crate) size: usize,
    /// Rust files: the text with comments and literals blank.
    pub(crate) code: String,
    /// Rust files: the text with everything but comments blank.
    pub(crate) comments: String,
    /// For each line, whether it is compiled for tests only.
    test_lines: Vec<bool>,
}

impl Source {
    /// A file as read from disk.
    pub(crate) fn from_bytes(path: String, bytes: Vec<u8>) -> Self {
        let size = bytes.len();
        let text = String::from_utf8(bytes).unwrap_or_default();
        let (code, comments) =
            if path.ends_with(".rs") { views(&text) } else { (String::new(), String::new()) };
        let test_dirs = ["/tests/", "/benches/", "/examples/"];
        let all_test = test_dirs.iter().any(|dir| format!("/{path}").contains(dir));
        let mut test_lines = vec![all_test; text.lines().count() + 1];
        for (start, end) in test_items(&code) {
            let lines = line_of(&code, start)..=line_of(&code, end);
            lines.for_each(|line| test_lines[line - 1] = true);
        }
        Self { path, text, size, code, comments, test_lines }
    }

    /// Whether the line, counted from one, is compiled for tests only.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.test_lines.get(line - 1).copied().unwrap_or(false)
    }

    /// Whether this is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The line, counted from one, of an offset into [`Source::code`].
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        line_of(&self.code, offset)
    }
}

/// Marks files that are out-of-line test modules: those another file declares as `#[cfg(test)] mod x;`.
pub(crate) fn mark_test_modules(files: &mut [Source]) {
    let mut roots = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let dir = module_dir(&file.path);
        for (start, end) in test_items(&file.code) {
            let item = file.code[start..end].trim_end_matches(';').trim_end();
            if let Some((_, name)) = item.rsplit_once("mod ")
                && is_ident(name.trim())
            {
                roots.push(format!("{dir}/{}", name.trim()));
            }
        }
    }
    for file in files {
        let of = |root: &String| {
            file.path == format!("{root}.rs") || file.path.starts_with(&format!("{root}/"))
        };
        if roots.iter().any(of) {
            file.test_lines.fill(true);
        }
    }
}

/// Where the child modules of a file live.
fn module_dir(path: &str) -> &str {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => dir,
        _ => path.trim_end_matches(".rs"),
    }
}

/// The spans of items behind `#[cfg(test)]` or `#[cfg(all(…, test, …))]`, attribute included.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    for (start, _) in code.match_indices("#[cfg(") {
        let Some(close) = code[start..].find(']').map(|length| start + length + 1) else {
            continue;
        };
        let condition = &code[start..close];
        let only_tests = words(condition).any(|(_, word)| word == "test")
            && !condition.contains("any(")
            && !condition.contains("not(test");
        if only_tests {
            spans.push((start, item_end(code, close)));
        }
    }
    spans
}

/// Where the item that begins at `from` ends: behind its closing brace or its semicolon.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ';' if depth == 0 => return from + offset + 1,
            '{' if depth == 0 => return brace_end(code, from + offset),
            _ => {}
        }
    }
    code.len()
}

/// Behind the brace that closes the one at `open`.
pub(crate) fn brace_end(code: &str, open: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    code.len()
}

/// The identifiers and numbers of a text with their offsets.
pub(crate) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let separator = |c: char| !(c.is_alphanumeric() || c == '_');
    let start = text.as_ptr() as usize;
    text.split(separator)
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - start, word))
}

fn is_ident(word: &str) -> bool {
    words(word).count() == 1 && words(word).all(|(_, whole)| whole == word)
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..offset.min(text.len())].bytes().filter(|&byte| byte == b'\n').count() + 1
}

/// What the scanner stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Literal,
}

/// The code view and the comment view of a Rust text.
fn views(text: &str) -> (String, String) {
    let mut code = String::with_capacity(text.len());
    let mut comments = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let before = text[..text.len() - rest.len()].chars().next_back();
        let (part, length) = next_part(rest, before);
        let (piece, behind) = rest.split_at(length);
        for (view, shown) in [(&mut code, Part::Code), (&mut comments, Part::Comment)] {
            for c in piece.chars() {
                view.push(if part == shown || c == '\n' { c } else { ' ' });
            }
        }
        rest = behind;
    }
    (code, comments)
}

/// What `rest` begins with and how many bytes of it; `before` is the character in front of it.
fn next_part(rest: &str, before: Option<char>) -> (Part, usize) {
    if rest.starts_with("//") {
        return (Part::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Part::Comment, block_comment(rest));
    }
    let first = rest.chars().next().unwrap_or(' ');
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if !in_word && let Some(length) = string(rest) {
        return (Part::Literal, length);
    }
    if first == '\''
        && let Some(length) = character(rest)
    {
        return (Part::Literal, length);
    }
    (Part::Code, first.len_utf8())
}

/// Length of a block comment, which may hold others.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Length of a string literal of any sort; `None` if there is none.
fn string(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c", ""].into_iter().find(|prefix| {
        let body = rest.strip_prefix(prefix).unwrap_or_default();
        let quote = if prefix.ends_with('r') { body.trim_start_matches('#') } else { body };
        quote.starts_with('"')
    })?;
    let raw = prefix.ends_with('r');
    let body = &rest[prefix.len()..];
    let hashes = if raw { body.len() - body.trim_start_matches('#').len() } else { 0 };
    let open = prefix.len() + hashes + 1;
    if raw {
        let close = format!("\"{}", "#".repeat(hashes));
        return Some(rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len()));
    }
    Some(open + escaped(&rest[open..], '"'))
}

/// Length of a character literal; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let body = &rest[1..];
    let first = body.chars().next()?;
    let closed = body[first.len_utf8()..].starts_with('\'');
    (first == '\\' || closed).then(|| 1 + escaped(body, '\''))
}

/// Bytes up to and with the first `close` that no backslash precedes.
fn escaped(body: &str, close: char) -> usize {
    let mut skip = false;
    for (at, c) in body.char_indices() {
        if !skip && c == close {
            return at + c.len_utf8();
        }
        skip = !skip && c == '\\';
    }
    body.len()
}

#[cfg(test)]
impl Source {
    /// A file made up for a test.
    pub(crate) fn made_up(path: &str, text: &str) -> Self {
        Self::from_bytes(path.to_string(), text.as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blank_in_the_code() {
        let text = concat!(
            "let a = \"x // y\\\"\"; // one\n",
            "/* two /* three */ four */ let b = r#\"five \" six\"#;\n",
            "fn f<'a>(c: &'a str) -> char { '\\'' }\nlet d = b\"seven\"; let e = '\"'; g()\n",
        );
        let (code, comments) = views(text);
        let seen: Vec<&str> = words(&code).map(|(_, word)| word).collect();
        let code_words = "let a let b fn f a c a str char let d let e g";
        assert_eq!(seen.join(" "), code_words, "{code}");
        let seen: Vec<&str> = words(&comments).map(|(_, word)| word).collect();
        assert_eq!(seen.join(" "), "one two three four");
        assert_eq!(code.lines().count(), text.lines().count());
    }

    #[test]
    fn only_items_for_tests_alone_are_test_lines() {
        let text = concat!(
            "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n",
            "#[cfg(any(test, feature = \"x\"))]\nfn d() {}\n#[cfg(not(test))]\nfn e() {}\n",
            "#[cfg(all(test, unix))]\n#[inline]\nfn f(x: [u8; 2]) {\n}\nfn g() {}\n",
        );
        let file = Source::made_up("crates/a/src/lib.rs", text);
        let test: Vec<usize> = (1..=text.lines().count()).filter(|&l| file.is_test(l)).collect();
        assert_eq!(test, [2, 3, 4, 5, 11, 12, 13, 14]);
        assert!(Source::made_up("crates/a/tests/it/main.rs", "fn a() {}").is_test(1));
    }

    #[test]
    fn a_module_declared_for_tests_is_test_code_in_its_own_file() {
        let mut files = [
            Source::made_up("a/src/lib.rs", "#[cfg(test)]\nmod model;\nmod real;"),
            Source::made_up("a/src/model.rs", "fn a() {}"),
            Source::made_up("a/src/model/deep.rs", "fn a() {}"),
            Source::made_up("a/src/real.rs", "fn a() {}"),
        ];
        mark_test_modules(&mut files);
        let marked: Vec<bool> = files.iter().map(|file| file.is_test(1)).collect();
        assert_eq!(marked, [true, true, true, false]);
        assert!(!files[0].is_test(3));
    }
}
