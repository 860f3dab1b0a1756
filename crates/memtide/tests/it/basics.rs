//! One handle, real files: every kind of operation on every memtable, and what a reopen shows.

use memtide::{Db, ErrorKind, MemtableType};

type Entry = memtide::Result<(memtide::Slice, memtide::Slice)>;

fn pairs(iter: impl Iterator<Item = Entry>) -> Vec<(String, String)> {
    let text = |bytes: memtide::Slice| String::from_utf8(bytes.to_vec()).unwrap();
    iter.map(|entry| entry.map(|(k, v)| (text(k), text(v))).unwrap()).collect()
}

#[test]
fn what_is_written_is_read_in_every_state_of_the_tree() {
    for kind in MemtableType::ALL {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::builder(dir.path()).memtable(kind).open().unwrap();
        for i in 0..500 {
            db.put(format!("key{i:04}"), format!("first{i}")).unwrap();
        }
        let snapshot = db.snapshot();
        db.flush().unwrap();
        for i in (0..500).step_by(2) {
            db.put(format!("key{i:04}"), format!("second{i}")).unwrap();
        }
        db.delete_range("key0100".."key0200").unwrap();
        db.delete("key0250").unwrap();
        db.put("key0150", "again").unwrap();

        let check = |db: &Db| {
            let all = pairs(db.iter());
            assert_eq!(all.len(), 500 - 100 - 1 + 1, "{kind}");
            assert!(all.is_sorted());
            let mut back = pairs(db.iter().rev());
            back.reverse();
            assert_eq!(all, back, "{kind}");
            assert_eq!(db.get("key0002").unwrap().unwrap(), "second2");
            assert_eq!(db.get("key0003").unwrap().unwrap(), "first3");
            assert_eq!(db.get("key0101").unwrap(), None);
            assert_eq!(db.get("key0150").unwrap().unwrap(), "again");
            assert_eq!(db.get("key0250").unwrap(), None);
        };
        check(&db);
        db.flush().unwrap();
        check(&db);
        db.compact().unwrap();
        check(&db);
        let default = db.default_keyspace();
        assert_eq!(snapshot.get(&default, "key0250").unwrap().unwrap(), "first250");
        assert_eq!(snapshot.iter(&default).count(), 500, "{kind}");
        drop(snapshot);
        db.compact().unwrap();
        check(&db);
        db.close().unwrap();
        assert_eq!(default.get("a").unwrap_err().kind(), ErrorKind::Closed);
        drop(default);
        let db = Db::open(dir.path()).unwrap();
        assert_eq!(db.default_keyspace().memtable_type(), kind, "reopening changes nothing");
        check(&db);
    }
}
