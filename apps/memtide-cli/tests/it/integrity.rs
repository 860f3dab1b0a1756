//! `doctor`, `dump`, `repair`, `salvage`, `diff`: from a shell, with their exit codes.

use std::fs;

use crate::program::{Program, Ran, ran};

/// A database with 500 keys in a table, and one in the log.
fn made() -> Program {
    let program = Program::new();
    let rows: String = (0..500).map(|n| format!("{n:03} of many secret keys\n")).collect();
    assert_eq!(program.feed(&["import", "-", "--format", "lines"], rows.as_bytes()).code, Some(0));
    program.ok(&["flush"]);
    program.ok(&["put", "late", "value"]);
    program
}

/// A run on the database in `dir`.
fn at(program: &Program, dir: &str, args: &[&str]) -> Ran {
    let args = [&["-d", dir], args].concat();
    ran(program.bare(&args).output().expect("starts"))
}

fn flip(program: &Program, dir: &str, part: u64) {
    let file =
        fs::read_dir(program.path(dir)).expect("files").next().expect("one").expect("readable");
    let mut bytes = fs::read(file.path()).expect("readable");
    let at = bytes.len() * usize::try_from(part).expect("small") / 8;
    bytes[at] ^= 4;
    fs::write(file.path(), bytes).expect("written");
}

#[test]
fn a_sound_database_is_copied_and_does_not_differ() {
    let program = made();
    let copied = program.run(&["repair", "--to", "new"]);
    assert_eq!((copied.code, copied.out.as_str()), (Some(0), ""), "{copied:?}");
    assert!(copied.err.contains("new is complete"), "{copied:?}");
    let linked = program.run(&["repair", "--to", "linked", "--link", "--json"]);
    assert_eq!(linked.code, Some(0), "{linked:?}");
    for new in ["new", "linked"] {
        assert_eq!(program.run(&["diff", "db", new]).code, Some(0));
        assert_eq!(at(&program, new, &["verify"]).code, Some(0));
    }
    assert_eq!(program.run(&["salvage", "--to", "new"]).code, Some(2), "it is not empty");
    assert_eq!(at(&program, "none", &["repair", "--to", "x"]).code, Some(7));
    assert!(!program.path("x").exists());
}

#[test]
fn salvage_lists_what_is_lost_and_keeps_the_rest() {
    let program = made();
    flip(&program, "db/sst", 2);
    let repaired = program.run(&["repair", "--to", "repaired"]);
    assert_eq!(repaired.code, Some(4), "{repaired:?}");
    let salvaged = program.run(&["salvage", "--to", "salvaged"]);
    assert_eq!(salvaged.code, Some(4), "{salvaged:?}");
    assert_eq!(salvaged.out.lines().count(), 1, "{salvaged:?}");
    assert!(salvaged.out.contains("\"default\" keys \""), "{salvaged:?}");
    let count = |dir: &str| -> u64 {
        let counted = at(&program, dir, &["scan", "--count"]);
        counted.out.trim().parse().expect("a number")
    };
    assert!(count("repaired") < count("salvaged") && count("salvaged") < 501);
    assert_eq!(at(&program, "salvaged", &["verify"]).code, Some(0));
    let listed = program.run(&["salvage", "--to", "again", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).expect("JSON");
    assert_eq!(listed["lost"].as_array().map(Vec::len), Some(1));
    assert!(listed["lost"][0]["keys"]["from_hex"].is_string(), "{listed}");

    let differ = program.run(&["diff", "repaired", "salvaged"]);
    assert_eq!(differ.code, Some(1), "{differ:?}");
    assert!(differ.out.contains("none") && !differ.out.contains("secret"), "{differ:?}");
    let shown = program.run(&["diff", "repaired", "salvaged", "--show-data", "--json"]);
    assert!(shown.out.lines().all(|line| line.contains("\"hex\"")), "{shown:?}");
}

#[test]
fn a_dump_shows_data_only_if_asked_to_and_tells_damage() {
    let program = made();
    for (kind, what) in [("sst", "block"), ("wal", "batch"), ("manifest", "table")] {
        let dumped = program.run(&["dump", kind, "db"]);
        assert_eq!(dumped.code, Some(0), "{dumped:?}");
        assert!(
            dumped.out.contains(what) && !dumped.out.contains("secret"),
            "{kind}: {}",
            dumped.out
        );
    }
    assert!(program.ok(&["dump", "sst", "--show-data"]).contains("000 of many secret keys"));
    flip(&program, "db/sst", 2);
    let dumped = program.run(&["dump", "sst", "--json"]);
    assert_eq!(dumped.code, Some(4), "{dumped:?}");
    let pieces: Vec<serde_json::Value> =
        dumped.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(pieces.iter().any(|piece| piece["what"] == "damage" && piece["offset"].is_u64()));
    assert!(pieces.iter().any(|piece| piece["what"] == "put"));
    assert_eq!(program.run(&["dump", "blob", "db"]).code, Some(0), "there are none");
    assert_eq!(program.run(&["dump", "sst", "no-such-file"]).code, Some(6));
    assert_eq!(program.run(&["dump", "nothing"]).code, Some(2));
}

#[test]
fn a_doctor_is_asked_first() {
    let program = made();
    let asked = program.ok(&["doctor"]);
    assert!(asked.contains("state    healthy") && asked.contains("1 writes to replay"), "{asked}");
    flip(&program, "db/sst", 0);
    fs::remove_file(program.path("db/CURRENT")).expect("removed");
    let asked = program.run(&["doctor", "--json"]);
    assert_eq!(asked.code, Some(4), "{asked:?}");
    let asked: serde_json::Value = serde_json::from_str(&asked.out).expect("JSON");
    assert_eq!(
        (asked["state"].as_str(), asked["damages"][0]["file"].as_str()),
        (Some("damaged"), Some("CURRENT"))
    );
    assert!(asked["advice"].as_array().is_some_and(|advice| !advice.is_empty()));
    assert_eq!(at(&program, "empty", &["doctor"]).code, Some(7));
}
