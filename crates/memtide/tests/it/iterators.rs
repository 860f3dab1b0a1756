//! Iterators over trees of every shape, from both ends in every order, beside a sorted map.

use std::collections::BTreeMap;

use memtide::{Config, Db, Iter};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;
type Pair = (Vec<u8>, Vec<u8>);

fn next(iter: &mut Iter, forward: bool) -> Option<Pair> {
    let entry = if forward { iter.next() } else { iter.next_back() };
    entry.map(Result::unwrap).map(|(key, value)| (key.to_vec(), value.to_vec()))
}

/// Takes entries from the ends that `choose` names and compares each with the model's.
fn compare(iter: &mut Iter, model: &[(&Vec<u8>, &Vec<u8>)], mut choose: impl FnMut(usize) -> bool) {
    let mut want = model.iter().map(|&(key, value)| (key.clone(), value.clone()));
    for step in 0..=model.len() {
        let forward = choose(step);
        let want = if forward { want.next() } else { want.next_back() };
        assert_eq!(next(iter, forward), want, "step {step}, forward {forward}");
    }
    assert_eq!((next(iter, true), next(iter, false)), (None, None), "an end is an end");
}

fn check(db: &Db, model: &Model) {
    let all: Vec<_> = model.iter().collect();
    // Both ends meet at every position, whichever begins and however long it walked ahead.
    for met in 0..=all.len() {
        compare(&mut db.iter(), &all, |step| step < met);
        compare(&mut db.iter(), &all, |step| step >= met);
        compare(&mut db.iter(), &all, |step| step < met || (step - met).is_multiple_of(2));
        compare(&mut db.iter(), &all, |step| step >= met && (step - met).is_multiple_of(2));
    }
    // Ranges that begin and end on keys, between them and outside of all.
    let mut bounds: Vec<_> =
        all.iter().flat_map(|(key, _)| [key.to_vec(), [key, &b"\0"[..]].concat()]).collect();
    bounds.extend([vec![], vec![0xFF; 40]]);
    for (from, to) in bounds.iter().zip(bounds.iter().cycle().skip(bounds.len() / 3)) {
        let inside: Vec<_> = all.iter().copied().filter(|(k, _)| from <= *k && *k < to).collect();
        for pattern in 0..4 {
            compare(&mut db.range(from..to), &inside, |step| step % 4 >= pattern);
        }
    }
}

/// Keys that share prefixes of any length, some longer than what lies inside a slice.
fn key(i: usize) -> Vec<u8> {
    match i % 3 {
        0 => format!("k{i:03}").into_bytes(),
        1 => format!("k{i:03}/and a tail that is longer than a slice").into_bytes(),
        _ => vec![b'm', u8::try_from(i).unwrap()],
    }
}

#[test]
fn both_ends_show_the_live_keys_of_every_shape_of_the_tree() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.tree.block_size = Some(512);
    config.enable_background_compaction = Some(false);
    let db = Db::builder(dir.path()).config(config).open().unwrap();
    let mut model = Model::new();
    let put = |db: &Db, model: &mut Model, i: usize, round: usize| {
        let value = format!("{round} of {i}, {}", "long ".repeat(i % 16)).into_bytes();
        db.put(key(i), &value).unwrap();
        model.insert(key(i), value);
    };
    check(&db, &model);
    for i in 0..60 {
        put(&db, &mut model, i, 0);
    }
    check(&db, &model);
    db.flush().unwrap();
    db.compact().unwrap();
    check(&db, &model);
    // Above the settled level: one table that interleaves, one that stands alone at the end, a memtable.
    for i in (0..60).step_by(7) {
        put(&db, &mut model, i, 1);
    }
    for i in 20..30 {
        db.delete(key(i)).unwrap();
        model.remove(&key(i));
    }
    db.flush().unwrap();
    check(&db, &model);
    for i in 60..70 {
        put(&db, &mut model, i, 2);
    }
    db.flush().unwrap();
    for i in [3, 25, 26, 64] {
        put(&db, &mut model, i, 3);
    }
    check(&db, &model);
    let (snapshot, before) = (db.snapshot(), model.clone());
    db.delete_range(key(30)..key(45)).unwrap();
    model.retain(|k, _| *k < key(30) || *k >= key(45));
    put(&db, &mut model, 33, 4);
    check(&db, &model);
    db.flush().unwrap();
    check(&db, &model);
    db.compact().unwrap();
    check(&db, &model);
    let old: Vec<_> = before.iter().collect();
    compare(&mut snapshot.iter(&db.default_keyspace()), &old, |_| true);
    compare(&mut snapshot.iter(&db.default_keyspace()), &old, |step| step % 3 == 1);
}
