//! No cycles among the top-level modules of a crate: any one of them can be read, and understood, after
//! those it uses.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::modules::{self, Crate, Edge};
use super::source::Source;

/// Reports each knot of modules once, at the first use inside it.
pub(crate) fn check(files: &[Source]) -> Vec<Finding> {
    modules::crates(files).iter().flat_map(knots).collect()
}

fn knots(one: &Crate) -> Vec<Finding> {
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for edge in &one.edges {
        graph.entry(&edge.from).or_default().insert(&edge.to);
    }
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|&module| (module, reachable(&graph, module))).collect();
    let mut seen = BTreeSet::new();
    let mut findings = Vec::new();
    for (&module, others) in &reach {
        let back = |other: &str| reach.get(other).is_some_and(|from| from.contains(module));
        let knot: BTreeSet<&str> = others.iter().copied().filter(|other| back(other)).collect();
        if knot.contains(module) && seen.insert(knot.clone()) {
            findings.push(finding(one, &knot));
        }
    }
    findings
}

fn reachable<'g>(graph: &BTreeMap<&'g str, BTreeSet<&'g str>>, from: &str) -> BTreeSet<&'g str> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = graph.get(from).into_iter().flatten().copied().collect();
    while let Some(module) = open.pop() {
        if seen.insert(module) {
            open.extend(graph.get(module).into_iter().flatten());
        }
    }
    seen
}

fn finding(one: &Crate, knot: &BTreeSet<&str>) -> Finding {
    let inside =
        |edge: &&Edge| knot.contains(edge.from.as_str()) && knot.contains(edge.to.as_str());
    let mut pairs: BTreeMap<(&str, &str), &Edge> = BTreeMap::new();
    for edge in one.edges.iter().filter(inside) {
        pairs.entry((&edge.from, &edge.to)).or_insert(edge);
    }
    let uses: Vec<String> = pairs
        .values()
        .map(|edge| format!("{} uses {} ({}:{})", edge.from, edge.to, edge.path, edge.line))
        .collect();
    let first = pairs.values().min_by_key(|edge| (&edge.path, edge.line));
    let (path, line) = first.map_or((one.src.as_str(), 1), |edge| (edge.path.as_str(), edge.line));
    Finding::new(path, line, format!("modules form a cycle: {}", uses.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_over_three_modules_is_one_finding_that_names_each_use() {
        let files = [
            Source::made_up("a/src/lib.rs", "mod x; mod y; mod z; pub use z::Zed;"),
            Source::made_up("a/src/x.rs", "use crate::y::Y;"),
            Source::made_up("a/src/y.rs", "use super::Zed;"),
            Source::made_up("a/src/z.rs", "fn f() { crate::x::g(); }"),
        ];
        let found = check(&files);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].path.as_str(), found[0].line), ("a/src/x.rs", 1));
        for part in ["x uses y", "y uses z", "z uses x"] {
            assert!(found[0].message.contains(part), "{}", found[0]);
        }
    }

    #[test]
    fn a_module_and_the_crate_root_can_form_a_cycle() {
        let root = "mod x; pub struct Own(x::X);";
        let files = [
            Source::made_up("a/src/lib.rs", root),
            Source::made_up("a/src/x.rs", "use crate::Own;"),
        ];
        assert_eq!(check(&files).len(), 1);
    }

    #[test]
    fn uses_in_one_direction_and_from_tests_are_fine() {
        let files = [
            Source::made_up("a/src/lib.rs", "mod x; mod y; pub use x::X; pub use y::Y;"),
            Source::made_up("a/src/x.rs", "use crate::y::Y;"),
            Source::made_up("a/src/y.rs", "#[cfg(test)]\nmod tests { use crate::x::X; }"),
        ];
        assert_eq!(check(&files), []);
    }
}
