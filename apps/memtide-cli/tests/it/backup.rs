//! `checkpoint` and `backup`: copies of a database, and where they come from.

use std::fs;

use crate::program::{Program, ran};

#[test]
fn a_database_goes_into_backups_and_comes_back() {
    let program = Program::new();
    for value in ["one", "two", "three"] {
        program.ok(&["put", "k", value]);
        let made = program.ok(&["backup", "create", "--to", "kept"]);
        assert!(made.starts_with("id="), "{made}");
    }
    let list = program.ok(&["backup", "list", "--from", "kept", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(3), "{list}");
    program.ok(&["backup", "verify", "--from", "kept", "--full"]);
    program.ok(&["backup", "restore", "--from", "kept", "--id", "2", "--to", "second"]);
    program.ok(&["backup", "restore", "--from", "kept", "--to", "newest"]);
    for (dir, value) in [("second", "two\n"), ("newest", "three\n")] {
        let got = ran(program.bare(&["-d", dir, "get", "k"]).output().expect("starts"));
        assert_eq!((got.code, got.out.as_str()), (Some(0), value), "{got:?}");
    }
    assert_eq!(program.ok(&["backup", "prune", "--from", "kept", "--keep", "1"]), "1\n2\n");
    let gone = program.run(&["backup", "restore", "--from", "kept", "--id", "2", "--to", "third"]);
    assert_eq!(gone.code, Some(1), "{gone:?}");
    let full = program.run(&["backup", "restore", "--from", "kept", "--to", "second"]);
    assert_eq!(full.code, Some(2), "{full:?}");
    assert_eq!(program.run(&["backup", "list", "--from", "nowhere"]).code, Some(7));

    let log = fs::read_dir(program.path("kept/wal")).expect("there").next().expect("one");
    let log = log.expect("readable").path();
    fs::remove_file(&log).expect("removed");
    let damaged = program.run(&["backup", "verify", "--from", "kept"]);
    assert_eq!(damaged.code, Some(4), "{damaged:?}");
    let name = log.file_name().and_then(|name| name.to_str()).expect("UTF-8");
    assert!(damaged.out.starts_with(&format!("wal/{name} 0 ")), "{damaged:?}");
}

#[test]
fn a_checkpoint_is_made_of_a_closed_and_of_an_open_database() {
    let program = Program::new();
    program.ok(&["put", "k", "closed"]);
    program.ok(&["checkpoint", "--to", "first"]);
    let mut exec = program.exec(&[]);
    exec.acknowledge("put d 6b 6f70656e");
    exec.acknowledge("checkpoint second");
    exec.acknowledge("put d 6b 6c61746572");
    assert!(exec.ask("checkpoint second").starts_with("err INVALID "));
    assert!(exec.ask("checkpoint db/inside").starts_with("err INVALID "));
    assert_eq!(exec.end().code, Some(0));
    for (dir, value) in [("first", "closed\n"), ("second", "open\n"), ("db", "later\n")] {
        let got = ran(program.bare(&["-d", dir, "get", "k"]).output().expect("starts"));
        assert_eq!((got.code, got.out.as_str()), (Some(0), value), "{got:?}");
    }
}
