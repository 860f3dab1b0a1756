//! `config check`, `show`, `presets`: everything that is wrong at once, and what a file amounts to.

use crate::program::Program;

#[test]
fn check_lists_every_violation() {
    let program = Program::new();
    let file = program.file(
        "memtide.toml",
        "memtable_typ = \"trie\"\nmax_memtable_size = 1\ndata_dir = [1]\n[tree]\nfilter_bits = 99\n\
         [keyspace.users]\nmemtable_type = \"skiplists\"\n",
    );
    let checked = program.run(&["config", "check", &file]);
    assert_eq!(checked.code, Some(2));
    for (field, message) in [
        ("memtable_typ", "did you mean \"memtable_type\"?"),
        ("max_memtable_size", "try 4096 B"),
        ("data_dir", "array"),
        ("tree.filter_bits", "99"),
        ("keyspace.users.memtable_type", "\"skiplist\""),
    ] {
        let line = checked.out.lines().find(|line| line.starts_with(&format!("{field}: ")));
        assert!(line.is_some_and(|line| line.contains(message)), "{field}: {}", checked.out);
    }
    assert_eq!(checked.out.lines().count(), 5);
    assert!(checked.err.contains("has 5 problems"), "{}", checked.err);

    let listed = program.run(&["config", "check", &file, "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).expect("JSON");
    assert_eq!(listed["violations"].as_array().map(Vec::len), Some(5));

    // Every other command refuses to begin with such a file.
    let put = program.run(&["--config", &file, "put", "a", "1"]);
    assert_eq!((put.code, put.err.lines().count()), (Some(2), 6), "{put:?}");
    assert!(!program.path("db").exists());
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line() {
    let program = Program::new();
    let file = program.file("memtide.toml", "memtable_type = \"trie\"\noops\n");
    let checked = program.run(&["config", "check", &file]);
    assert_eq!(checked.code, Some(2));
    assert!(checked.err.contains("line 2"), "{checked:?}");
}

#[test]
fn a_flag_beats_the_file_and_what_is_shown_is_a_file_again() {
    let program = Program::new();
    let file = program.file(
        "memtide.toml",
        "preset = \"memory_efficient\"\nmemtable_type = \"trie\"\n[tree]\nblock_size = \"8KiB\"\n",
    );
    let shown = program.ok(&["--config", &file, "--memtable", "vector", "config", "show"]);
    for line in [
        "preset = \"memory_efficient\"",
        "memtable_type = \"vector\"",
        "max_memtable_size = 262144",
        "[tree]",
        "block_size = 8192",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    let again = program.file("again.toml", &shown);
    assert_eq!(program.ok(&["--config", &again, "config", "show"]), shown);
    let checked = program.run(&["config", "check", &again]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[test]
fn the_three_presets_keep_their_values() {
    let program = Program::new();
    let presets: serde_json::Value =
        serde_json::from_str(&program.ok(&["config", "presets", "--json"])).expect("JSON");
    for (name, kind, memtable, budget, target) in [
        ("high_performance", "hash_skiplist", 1 << 20, 1_u64 << 30, 64 << 20),
        ("memory_efficient", "linked_list", 256 << 10, 64 << 20, 2 << 20),
        ("balanced", "enhanced_skiplist", 512 << 10, 256 << 20, 16 << 20),
    ] {
        let want = serde_json::json!({
            "memtable_type": kind,
            "max_memtable_size": memtable,
            "memory_budget": budget,
            "flush_target": target,
        });
        assert_eq!(presets[name], want, "{name}");
    }
    assert!(program.ok(&["config", "presets"]).contains("512.0 KiB"));
}
