//! The name a user probably meant: for errors about unknown options, types and commands.

/// The candidate nearest to `word` by edit distance; `None` if none is near enough to be a slip.
#[must_use]
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let distant = |candidate: &&str| edit_distance(word, candidate);
    let best = candidates.into_iter().min_by_key(distant)?;
    (edit_distance(word, best) <= 1 + word.len().min(best.len()) / 3).then_some(best)
}

/// Which of `known` was probably meant by `word`, and which there are: the hint of an error about an unknown name.
#[must_use]
pub fn hint(word: &str, known: &[&str]) -> String {
    let meant = nearest(word, known.iter().copied())
        .map_or(String::new(), |nearest| format!("did you mean {nearest:?}? "));
    format!("{meant}known: {}", known.join(", "))
}

/// Insertions, deletions and replacements that turn `a` into `b` (Levenshtein, 1966); long words are
/// cut, because nobody misspells the first 64 bytes of a name by accident.
fn edit_distance(a: &str, b: &str) -> usize {
    let cut =
        |word: &str| word.bytes().take(64).map(|b| b.to_ascii_lowercase()).collect::<Vec<_>>();
    let (a, b) = (cut(a), cut(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let names = ["skiplist", "hash_skiplist", "trie"];
        assert_eq!(nearest("skiplists", names), Some("skiplist"));
        assert_eq!(nearest("hashskiplist", names), Some("hash_skiplist"));
        assert_eq!(nearest("TRIE", names), Some("trie"));
        assert_eq!(nearest("zzzzzzzz", names), None);
        assert_eq!(nearest("x", []), None);
        assert_eq!(
            hint("tries", &names),
            "did you mean \"trie\"? known: skiplist, hash_skiplist, trie"
        );
        assert_eq!(hint("zzzzzzzz", &names), "known: skiplist, hash_skiplist, trie");
    }
}
