//! Whole tables against a model: built, opened, read both ways, damaged.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::PathBuf;

use memtide_base::checksum::xxh3_64;
use memtide_base::hash::key_hash;
use memtide_base::key::{KEY_LEN_MAX, successor};
use memtide_base::ledger::Account;
use memtide_base::seqno::SEE_ALL;
use memtide_base::sync::atomic::{AtomicU64, Ordering};
use memtide_base::sync::{Arc, Mutex};
use memtide_base::{
    Cursor, Entry, ErrorKind, Kind, RangeTombstone, RangeTombstones, SeqNo, Slice, Target, Upper,
};
use memtide_env::{Heap, ReadFile};
use proptest::prelude::*;

use super::format::Section;
use super::partition::{Extent, Partition};
use super::parts::{Directory, Parts};
use super::testing::{HASH_SEED, IDENTITY, MemoryFile, Row, at, build, open, open_with, options};
use super::{Table, TableBuilder, TableCursor, TableOptions, TableShared};
use crate::blob::BlobHandle;
use crate::block::trailer::{Handle, TRAILER_LEN};
use crate::budget::Budget;
use crate::compress::Codec;
use crate::source::Source;
use crate::{FileIdentity, verify_file};

/// Versions of each key, newest first.
type Model = BTreeMap<Vec<u8>, Vec<(SeqNo, Kind, Vec<u8>)>>;

fn model_of(rows: &[Row]) -> Model {
    let mut model = Model::new();
    for (key, seq, kind, value) in rows {
        model.entry(key.clone()).or_default().push((*seq, *kind, value.clone()));
    }
    model
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0_u8), Just(0xFF), Just(b'k')];
    let suffix = prop::collection::vec(byte, 0..12);
    prop_oneof![
        6 => suffix.clone(),
        3 => suffix.prop_map(|suffix| [&b"a common prefix/"[..], &suffix].concat()),
        1 => any::<u8>().prop_map(|byte| vec![byte; KEY_LEN_MAX]),
    ]
}

/// Rows in table order: few keys with many versions, or many keys.
fn rows(max: usize) -> impl Strategy<Value = Vec<Row>> {
    let value = prop::collection::vec(prop_oneof![Just(7_u8), any::<u8>()], 0..40);
    let payload = (prop_oneof![3 => Just(Kind::Put), 1 => Just(Kind::Delete)], value);
    let version = (0..60_u64, payload);
    let versions = prop_oneof![
        4 => prop::collection::vec(version.clone(), 1..4),
        1 => prop::collection::vec(version, 1..40),
    ];
    let group = (keys(), versions);
    prop::collection::vec(group, 1..max).prop_map(|groups| {
        let mut sorted = BTreeMap::new();
        for (key, versions) in groups {
            for (seq, (kind, value)) in versions {
                let value = if kind == Kind::Delete { Vec::new() } else { value };
                sorted.insert((key.clone(), Reverse(seq)), (kind, value));
            }
        }
        let row =
            |((key, seq), (kind, value)): ((Vec<u8>, Reverse<u64>), _)| (key, seq.0, kind, value);
        sorted.into_iter().map(row).collect()
    })
}

fn shapes() -> impl Strategy<Value = TableOptions> {
    let codec = if Codec::Lz4.is_built_in() { Codec::Lz4 } else { Codec::None };
    (
        prop_oneof![Just(64_usize), 65..600_usize, Just(4096)],
        prop_oneof![Just(0_u16), 1..5_u16],
        prop_oneof![Just(Codec::None), Just(codec)],
        prop_oneof![1 => Just(0_u32), 4 => Just(10)],
    )
        .prop_map(|(block_bytes, partition_blocks, codec, bits)| TableOptions {
            partition_blocks,
            filter_bits_per_key: bits,
            ..options(block_bytes, codec)
        })
}

fn get(table: &Table, key: &[u8], below: SeqNo) -> Option<(SeqNo, Kind, Vec<u8>)> {
    let found = table.get(key, key_hash(HASH_SEED, key), below).expect("an undamaged table");
    found.map(|found| (found.seq, found.kind, found.value.to_vec()))
}

fn owned(entry: Entry<'_>) -> Row {
    (entry.key.to_vec(), entry.seq, entry.kind, entry.value.to_vec())
}

/// A cursor over the model with the contract of [`Cursor`].
struct ModelCursor<'m> {
    model: &'m Model,
    below: SeqNo,
    at: Option<(&'m [u8], usize)>,
}

impl<'m> ModelCursor<'m> {
    fn visible(&self, versions: &[(SeqNo, Kind, Vec<u8>)]) -> Option<usize> {
        versions.iter().position(|version| version.0 < self.below)
    }

    fn to(
        &mut self,
        mut keys: impl Iterator<Item = (&'m Vec<u8>, &'m Vec<(SeqNo, Kind, Vec<u8>)>)>,
    ) -> bool {
        let found = keys.find_map(|(key, all)| self.visible(all).map(|at| (key.as_slice(), at)));
        self.at = found;
        found.is_some()
    }

    fn seek(&mut self, target: Target<'_>) -> bool {
        let model = self.model;
        match target {
            Target::First => self.to(model.iter()),
            Target::Last => self.to(model.iter().rev()),
            Target::Ge(key) => self.to(model.range(key.to_vec()..)),
            Target::Le(key) => self.to(model.range(..=key.to_vec()).rev()),
        }
    }

    fn step(&mut self, forward: bool) -> bool {
        let (model, Some((key, _))) = (self.model, self.at) else { return false };
        if forward {
            self.to(model.range(successor(key)..))
        } else {
            self.to(model.range(..key.to_vec()).rev())
        }
    }

    /// The rest of the current key's versions, which `older` shows one by one.
    fn row(&self, older: usize) -> Option<Row> {
        let (key, at) = self.at?;
        let (seq, kind, value) = self.model[key].get(at + older)?;
        Some((key.to_vec(), *seq, *kind, value.clone()))
    }
}

#[derive(Clone, Debug)]
enum Move {
    First,
    Last,
    Ge(prop::sample::Index, bool),
    Le(prop::sample::Index, bool),
    Next,
    Prev,
    Older,
    /// So many at most, to one side, and only before a key.
    Ahead(usize, bool, Option<prop::sample::Index>),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        1 => Just(Move::First),
        1 => Just(Move::Last),
        2 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(at, near)| Move::Ge(at, near)),
        2 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(at, near)| Move::Le(at, near)),
        8 => Just(Move::Next),
        8 => Just(Move::Prev),
        6 => Just(Move::Older),
        6 => (1..20_usize, any::<bool>(), any::<Option<prop::sample::Index>>())
            .prop_map(|(max, forward, limit)| Move::Ahead(max, forward, limit)),
    ];
    prop::collection::vec(one, 1..120)
}

fn walk(table: &Arc<Table>, model: &Model, below: SeqNo, moves: &[Move]) {
    let mut cursor = table.cursor(below);
    let mut twin = ModelCursor { model, below, at: None };
    let mut older = 0;
    let probes: Vec<_> = model.keys().collect();
    for step in moves {
        let probe = |at: &prop::sample::Index, near: bool| {
            let key = probes[at.index(probes.len())];
            if near && key.len() < KEY_LEN_MAX { successor(key) } else { key.clone() }
        };
        let (moved, expected) = match step {
            Move::First => (cursor.seek(Target::First), twin.seek(Target::First)),
            Move::Last => (cursor.seek(Target::Last), twin.seek(Target::Last)),
            Move::Ge(at, near) => {
                let key = probe(at, *near);
                (cursor.seek(Target::Ge(&key)), twin.seek(Target::Ge(&key)))
            }
            Move::Le(at, near) => {
                let key = probe(at, *near);
                (cursor.seek(Target::Le(&key)), twin.seek(Target::Le(&key)))
            }
            Move::Next => (cursor.next(), twin.step(true)),
            Move::Prev => (cursor.prev(), twin.step(false)),
            Move::Older => {
                // Behind the last version only a move may follow.
                if twin.row(older).is_some() {
                    older += 1;
                    let goes_on = twin.row(older).is_some();
                    assert_eq!(cursor.older().expect("undamaged"), goes_on, "{step:?}");
                    if goes_on {
                        assert_eq!(Some(owned(cursor.entry())), twin.row(older));
                    }
                }
                continue;
            }
            Move::Ahead(max, forward, limit) => {
                if older > 0 {
                    continue; // Those who look at older versions do not walk ahead.
                }
                let limit = limit.as_ref().map(|at| probe(at, false)).filter(|limit| {
                    let at = twin.at.map_or(&[][..], |(key, _)| key);
                    if *forward { limit.as_slice() > at } else { limit.as_slice() < at }
                });
                let count = cursor.plain_ahead(*forward, limit.as_deref(), *max);
                assert!(count <= *max, "{step:?}");
                for _ in 0..count {
                    cursor.step_plainly(*forward);
                    let (key, value) = (Slice::copy_of(cursor.entry().key), cursor.value());
                    assert!(twin.step(*forward), "{step:?}");
                    let (found, _, kind, put) = twin.row(0).expect("stands somewhere");
                    assert_eq!(
                        (key, kind, value),
                        (found.into(), Kind::Put, put.into()),
                        "{step:?}"
                    );
                }
                if let (Some(limit), Some((at, _))) = (limit, twin.at) {
                    let before = if *forward { at < &*limit } else { at > &*limit };
                    assert!(before, "{step:?}");
                }
                if twin.at.is_some() {
                    assert_eq!(Some(owned(cursor.entry())), twin.row(0), "{step:?}");
                }
                continue;
            }
        };
        older = 0;
        assert_eq!(moved.expect("undamaged"), expected, "{step:?}");
        if expected {
            assert_eq!(Some(owned(cursor.entry())), twin.row(0), "{step:?}");
            assert_eq!(cursor.value(), cursor.entry().value);
        }
    }
}

fn collect(cursor: &mut TableCursor) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut more = cursor.seek(Target::First).expect("undamaged");
    while more {
        rows.push(owned(cursor.entry()));
        while cursor.older().expect("undamaged") {
            rows.push(owned(cursor.entry()));
        }
        more = cursor.next().expect("undamaged");
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_table_answers_as_its_model_does(
        rows in rows(40),
        options in shapes(),
        strangers in prop::collection::vec(keys(), 0..6),
        below in prop_oneof![0..61_u64, Just(SEE_ALL)],
        moves in moves(),
    ) {
        let (file, summary) = build(&rows, &RangeTombstones::default(), options);
        let table = open(&file, IDENTITY).expect("as built");
        let model = model_of(&rows);
        for key in model.keys().chain(&strangers) {
            for below in (0..62).step_by(if key.len() > 1000 { 20 } else { 1 }).chain([SEE_ALL]) {
                let versions = model.get(key).map_or(&[][..], Vec::as_slice);
                let want = versions.iter().find(|version| version.0 < below).cloned();
                prop_assert_eq!(get(&table, key, below), want);
            }
        }
        prop_assert_eq!(&collect(&mut table.cursor(SEE_ALL)), &rows);
        prop_assert_eq!(&collect(&mut table.stream(SEE_ALL)), &rows);
        walk(&table, &model, below, &moves);
        table.verify().expect("as built");
        prop_assert_eq!(summary.rows, rows.len() as u64);
        prop_assert_eq!(&summary.smallest, &rows[0].0);
        prop_assert_eq!(&summary.largest, &Upper::Included(rows[rows.len() - 1].0.clone()));
        prop_assert_eq!(Some(summary.seq_max), rows.iter().map(|row| row.1).max());
        let name = PathBuf::from("sst/c.sst");
        verify_file("table", Arc::new(file), name, summary.size, summary.checksum)
            .expect("as summed");
    }

    #[test]
    fn range_tombstones_read_back_and_widen_the_bounds(
        raw in prop::collection::vec((keys(), keys(), 1..60_u64), 1..40),
        rows in rows(6),
        with_points in any::<bool>(),
    ) {
        let raw: Vec<_> = raw.iter().map(|(a, b, seq)| RangeTombstone::new(a, b, *seq)).collect();
        let tombstones = RangeTombstones::new(&raw);
        let rows = if with_points { &rows[..] } else { &[] };
        prop_assume!(with_points || !tombstones.is_empty());
        let (file, summary) = build(rows, &tombstones, options(256, Codec::None));
        let table = open(&file, IDENTITY).expect("as built");
        prop_assert_eq!(table.range_tombstones(), &tombstones);
        prop_assert_eq!(&collect(&mut table.cursor(SEE_ALL)), rows);
        table.verify().expect("as built");
        let uppers = tombstones.iter().map(|t| t.upper());
        let points = rows.iter().map(|row| Upper::Included(row.0.clone()));
        prop_assert_eq!(Some(summary.largest), uppers.chain(points).max());
        let starts = tombstones.iter().map(|t| t.start);
        prop_assert_eq!(Some(summary.smallest), starts.chain(rows.iter().map(|r| r.0.clone())).min());
        prop_assert_eq!(summary.range_deletes, tombstones.iter().count() as u64);
    }
}

/// A small table with several blocks, old versions, deletes and tombstones.
fn small_table(codec: Codec) -> (MemoryFile, Vec<Row>, RangeTombstones) {
    table_of(options(160, codec))
}

/// The same rows, with a partition for each two data blocks.
fn divided_table() -> (MemoryFile, Vec<Row>, RangeTombstones) {
    table_of(TableOptions { partition_blocks: 2, ..options(160, Codec::None) })
}

fn table_of(options: TableOptions) -> (MemoryFile, Vec<Row>, RangeTombstones) {
    let mut rows = Vec::new();
    for key in 0..24_u64 {
        for version in (0..1 + key % 3).rev() {
            let kind = if key % 5 == 4 { Kind::Delete } else { Kind::Put };
            let value = if kind == Kind::Put { vec![b'v'; 5 + at(key)] } else { Vec::new() };
            rows.push((format!("key{key:04}").into_bytes(), 10 * key + version, kind, value));
        }
    }
    let tombstones = RangeTombstones::new(&[
        RangeTombstone::new(b"key0003", b"key0009", 400),
        RangeTombstone::new(b"key0007", b"", 401),
    ]);
    let (file, _) = build(&rows, &tombstones, options);
    (file, rows, tombstones)
}

fn codecs() -> impl Iterator<Item = Codec> {
    Codec::ALL.into_iter().filter(|codec| codec.is_built_in())
}

#[test]
fn every_flipped_byte_is_reported_by_verify_and_never_changes_an_answer() {
    for (file, rows, tombstones) in codecs().map(small_table).chain([divided_table()]) {
        let model = model_of(&rows);
        let undamaged = file.bytes();
        for at in 0..undamaged.len() {
            for mask in [0x01, 0x80, 0xFF] {
                let mut bytes = undamaged.clone();
                bytes[at] ^= mask;
                let Ok(table) = open(&MemoryFile::of(&bytes), IDENTITY) else { continue };
                assert_eq!(table.range_tombstones(), &tombstones, "byte {at}");
                let error = table.verify().expect_err("a damaged block is reported");
                assert!(error.is_corruption() && error.offset().is_some(), "byte {at}: {error}");
                for (key, versions) in &model {
                    if let Ok(found) = table.get(key, key_hash(HASH_SEED, key), SEE_ALL) {
                        let found = found.expect("present").value;
                        assert_eq!(found, versions[0].2, "byte {at}");
                    }
                }
            }
        }
    }
}

/// All blocks of an undamaged table.
fn handles(file: &MemoryFile) -> Vec<Handle> {
    let bytes = file.bytes();
    let source = Source { file: Arc::new(file.clone()), name: PathBuf::from("sst/c.sst") };
    let parts = Parts::read(&source, IDENTITY, bytes.len() as u64).expect("as built");
    let (mut handles, salt) = (Vec::new(), parts.footer.file_salt);
    let mut data_blocks = |partition: &Partition| {
        let blocks = 0..partition.index.rows();
        handles.extend(blocks.map(|block| partition.child(block).handle));
    };
    match parts.directory.as_ref().expect("there are rows") {
        Directory::Whole(partition) => data_blocks(partition),
        Directory::Divided(division) => {
            for (at, extent) in division.extents.iter().enumerate() {
                let partition = extent.read(&source, salt, &division.top, at);
                data_blocks(&partition.expect("as built"));
            }
            handles.extend(division.extents.iter().flat_map(Extent::handles));
        }
    }
    let metaindex = parts.footer.metaindex;
    let (start, end) = (at(metaindex.offset), at(metaindex.end().expect("in the file")));
    let payload = &bytes[start..end - TRAILER_LEN];
    handles.extend(Section::decode_all(payload).expect("whole").iter().map(|s| s.handle));
    handles.push(metaindex);
    handles
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn forged_blocks_with_true_checksums_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u16>(), any::<u8>()), 1..4),
        moves in moves(),
        divided in any::<bool>(),
    ) {
        let (file, rows, _) =
            if divided { divided_table() } else { small_table(Codec::None) };
        let handles = handles(&file);
        let mut bytes = file.bytes();
        for (block, at, byte) in changes {
            let handle = handles[block.index(handles.len())];
            let start = super::testing::at(handle.offset);
            let block = &mut bytes[start..start + handle.len as usize];
            let (covered, sum) = block.split_last_chunk_mut::<8>().expect("a trailer");
            let at = usize::from(at) % covered.len();
            covered[at] = byte;
            let salt = options(160, Codec::None).salt;
            *sum = xxh3_64(salt ^ handle.offset, covered).to_le_bytes();
        }
        let Ok(table) = open(&MemoryFile::of(&bytes), IDENTITY) else { return Ok(()) };
        let _ = table.verify();
        for (key, ..) in &rows {
            let _ = table.get(key, key_hash(HASH_SEED, key), 100);
        }
        let mut cursor = table.cursor(200);
        for step in moves {
            let key = |at: prop::sample::Index| &rows[at.index(rows.len())].0;
            let moved = match step {
                Move::First => cursor.seek(Target::First),
                Move::Last => cursor.seek(Target::Last),
                Move::Ge(at, _) => cursor.seek(Target::Ge(key(at))),
                Move::Le(at, _) => cursor.seek(Target::Le(key(at))),
                Move::Next => cursor.next(),
                Move::Prev => cursor.prev(),
                Move::Older => cursor.older(),
                Move::Ahead(max, forward, limit) => {
                    let limit = limit.map(|at| key(at).as_slice());
                    let count = cursor.plain_ahead(forward, limit, max);
                    (0..count).for_each(|_| cursor.step_plainly(forward));
                    Ok(count > 0)
                }
            };
            if matches!(moved, Ok(true)) {
                prop_assert!(cursor.entry().seq < 200 && cursor.value() == cursor.entry().value);
            }
        }
    }
}

#[test]
fn damage_that_arrives_after_opening_is_found_by_verify() {
    let (file, ..) = small_table(Codec::None);
    let table = open(&file, IDENTITY).expect("as built");
    let len = file.bytes().len();
    for at in [0, len / 2, len - 100, len - 1] {
        file.0.lock()[at] ^= 4;
        assert!(table.verify().expect_err("damaged").is_corruption(), "byte {at}");
        file.0.lock()[at] ^= 4;
    }
    table.verify().expect("repaired");
}

#[test]
fn a_table_opens_only_as_itself_and_at_its_length() {
    let (file, ..) = small_table(Codec::None);
    let strangers = [
        FileIdentity { number: 13, ..IDENTITY },
        FileIdentity { db_uuid: [0; 16], ..IDENTITY },
        FileIdentity { keyspace: 4, ..IDENTITY },
    ];
    for expected in strangers {
        let error = open(&file, expected).expect_err("another table");
        assert!(error.is_corruption() && error.to_string().contains("expected"), "{error}");
    }
    let bytes = file.bytes();
    for len in [0, 1, 95, 96, bytes.len() / 2, bytes.len() - 1] {
        let error = open(&MemoryFile::of(&bytes[..len]), IDENTITY).expect_err("cut");
        assert!(error.is_corruption(), "{len} bytes: {error}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(open(&MemoryFile::of(&longer), IDENTITY).expect_err("longer").is_corruption());
}

#[test]
fn a_table_knows_what_it_refers_to_in_blob_files() {
    let handle = |number, at: u64| {
        let mut bytes = Vec::new();
        BlobHandle { number, offset: 64 + 32 * at, len: 32, raw_len: 5 }.encode(&mut bytes);
        bytes
    };
    let blob = Kind::BlobHandle;
    let rows = [
        (b"a".to_vec(), 9, blob, handle(7, 0)),
        (b"a".to_vec(), 8, Kind::Put, b"short".to_vec()),
        (b"b".to_vec(), 5, blob, handle(3, 0)),
        (b"c".to_vec(), 6, blob, handle(7, 1)),
        (b"d".to_vec(), 7, Kind::Delete, Vec::new()),
    ];
    let none = RangeTombstones::new(&[]);
    let (file, summary) = build(&rows, &none, options(160, Codec::None));
    let refs: Vec<_> = summary.blobs.iter().map(|of| (of.number, of.bytes)).collect();
    assert_eq!(refs, [(3, 32), (7, 64)]);
    let table = open(&file, IDENTITY).expect("as built");
    assert_eq!(table.properties().blobs, summary.blobs);
    table.verify().expect("as built");
    assert_eq!(collect(&mut table.cursor(SEE_ALL)), rows);

    let options = options(160, Codec::None);
    let name = PathBuf::from("sst/c.sst");
    let file = Box::new(MemoryFile::default());
    let mut builder = TableBuilder::new(file, name, IDENTITY, options);
    let entry = Entry { key: b"a", seq: 1, kind: blob, value: b"no handle" };
    assert_eq!(builder.add(entry).expect_err("no handle").kind(), ErrorKind::Internal);
}

#[test]
fn the_whole_file_checksum_finds_a_flip_and_a_wrong_length() {
    let (file, _, tombstones) = small_table(Codec::None);
    let name = || PathBuf::from("sst/c.sst");
    let (same, summary) =
        build(&small_table(Codec::None).1, &tombstones, options(160, Codec::None));
    assert_eq!(file.bytes(), same.bytes(), "a table's bytes follow from its input alone");
    let check = |file: &MemoryFile, size| {
        verify_file("table", Arc::new(file.clone()), name(), size, summary.checksum)
    };
    check(&file, summary.size).expect("as built");
    assert!(check(&file, summary.size - 1).is_err());
    file.0.lock()[3] ^= 1;
    assert!(check(&file, summary.size).expect_err("flipped").is_corruption());
}

#[test]
fn a_filter_of_another_seed_denies_no_key() {
    let (file, rows, _) = small_table(Codec::None);
    let table = open_with(&file, IDENTITY, 5, &budget(u64::MAX)).expect("as built");
    for (key, ..) in &rows {
        assert!(table.get(key, key_hash(5, key), SEE_ALL).expect("undamaged").is_some());
    }
}

#[test]
fn an_open_table_is_charged_for_what_it_holds_until_it_is_dropped() {
    let (file, rows, _) = small_table(Codec::None);
    let budget = budget(u64::MAX);
    let (cache, ledger) = (&budget.cache, &budget.ledger);
    let table = open_with(&file, IDENTITY, HASH_SEED, &budget).expect("as built");
    assert_eq!(ledger.held(Account::Tables), table.heap_bytes());
    assert!(table.heap_bytes() > 500);
    assert_eq!((cache.bytes(), cache.misses()), (0, 0), "opening reads no data block");
    let key = &rows[0].0;
    for hits in 0..2 {
        assert!(table.get(key, key_hash(HASH_SEED, key), SEE_ALL).expect("undamaged").is_some());
        assert_eq!((cache.hits(), cache.misses()), (hits, 1));
    }
    assert!(cache.bytes() > 0);
    drop(table);
    assert_eq!((ledger.held(Account::Tables), cache.bytes()), (0, 0));
}

/// A budget with a cache of up to 1 MiB.
fn budget(bytes: u64) -> Arc<Budget> {
    Budget::new(bytes, 1 << 20, Heap::Kept)
}

#[test]
fn partitions_take_turns_in_a_memory_too_small_for_all() {
    let rows: Vec<Row> = (0..4000_u64)
        .map(|key| (format!("{key:08}").into_bytes(), key + 1, Kind::Put, vec![b'v'; 20]))
        .collect();
    let options = TableOptions { partition_blocks: 4, ..options(160, Codec::None) };
    let (file, _) = build(&rows, &RangeTombstones::default(), options);
    // What stays, and room for a few partitions.
    let table = open_with(&file, IDENTITY, HASH_SEED, &budget(u64::MAX)).expect("as built");
    let stays = table.heap_bytes();
    let most = stays + (8 << 10);
    let budget = budget(most * 16 / 7);
    let (cache, ledger) = (&budget.cache, &budget.ledger);
    let table = open_with(&file, IDENTITY, HASH_SEED, &budget).expect("as built");
    let hot: Vec<_> = rows.iter().step_by(2000).collect();
    for step in 0..8000_usize {
        let (key, seq, ..) =
            if step % 2 == 0 { hot[step / 2 % 2] } else { &rows[step * 1237 % rows.len()] };
        let found = table.get(key, key_hash(HASH_SEED, key), SEE_ALL).expect("undamaged");
        assert_eq!(found.expect("present").seq, *seq);
        assert_eq!(ledger.held(Account::Tables), table.heap_bytes());
        assert!(table.heap_bytes() < most + (2 << 10), "{} of {most} B", table.heap_bytes());
        let left = ledger.budget() - ledger.memtable_share();
        assert!(cache.capacity() + table.heap_bytes() <= left + (2 << 10), "the cache gives way");
    }
    assert!(table.heap_bytes() > most - (2 << 10), "the room was not used");
    assert_eq!(collect(&mut table.cursor(SEE_ALL)), rows);
    let (bytes, misses) = (cache.bytes(), cache.misses());
    assert_eq!(collect(&mut table.stream(SEE_ALL)), rows);
    assert_eq!((cache.bytes(), cache.misses()), (bytes, misses), "a stream leaves the cache alone");
    drop(table);
    assert_eq!((ledger.held(Account::Tables), cache.bytes()), (0, 0));
    assert_eq!(ledger.held(Account::Upkeep), 0);
}

/// A file that counts the bytes read from it.
#[derive(Debug)]
struct Counted(MemoryFile, AtomicU64);

impl ReadFile for Counted {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.0.read_exact_at(buf, offset)
    }

    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }
}

#[test]
fn a_cold_table_is_closed_for_partitions_that_are_used() {
    let rows: Vec<Row> = (0..4000_u64)
        .map(|key| (format!("{key:08}").into_bytes(), key + 1, Kind::Put, vec![b'v'; 20]))
        .collect();
    let (cold, _) = build(&rows, &RangeTombstones::default(), options(160, Codec::None));
    let options = TableOptions { partition_blocks: 4, ..options(160, Codec::None) };
    let (hot, _) = build(&rows, &RangeTombstones::default(), options);
    let whole = open(&cold, IDENTITY).expect("as built").heap_bytes();
    // Not both.
    let budget = budget((whole + (10 << 10)) * 16 / 7);
    let shared = TableShared::new(HASH_SEED, Arc::clone(&budget));
    let open = |file: Arc<dyn ReadFile>| {
        let (size, name) = (file.len().expect("in memory"), PathBuf::from("sst/c.sst"));
        Table::open(file, name, IDENTITY, size, &shared).expect("as built")
    };
    let cold = Arc::new(Mutex::new(Some(open(Arc::new(cold)))));
    let of_store = Arc::clone(&cold);
    shared.on_short(move || drop(of_store.lock().take()));
    let file = Arc::new(Counted(hot, AtomicU64::new(0)));
    let hot = open(file.clone());
    assert!(hot.heap_bytes() > 10 << 10, "else both have room");
    let gets = || {
        let before = file.1.load(Ordering::Relaxed);
        for (key, ..) in rows.iter().step_by(200) {
            let found = hot.get(key, key_hash(HASH_SEED, key), SEE_ALL).expect("undamaged");
            assert!(found.is_some());
        }
        file.1.load(Ordering::Relaxed) - before
    };
    gets();
    assert_eq!(gets(), 0, "what was read is kept");
    assert!(cold.lock().is_none() && !budget.is_short());
}

#[test]
fn a_table_ends_before_its_top_index_is_full() {
    let options = TableOptions { partition_blocks: 2, ..options(160, Codec::None) };
    let name = PathBuf::from("sst/c.sst");
    let mut builder = TableBuilder::new(Box::new(MemoryFile::default()), name, IDENTITY, options);
    let mut count = 0_u32;
    while !builder.should_finish() {
        let mut key = vec![b'k'; 60_000];
        key.extend_from_slice(&count.to_be_bytes());
        builder.add(Entry { key: &key, seq: 1, kind: Kind::Put, value: b"" }).expect("fits");
        count += 1;
        assert!(count < 2000, "nothing ends the table");
    }
    builder.finish().expect("there was room for the rest");
}

#[test]
fn many_nested_tombstones_span_blocks() {
    let nested: Vec<_> = (0..300_u64)
        .map(|depth| {
            let (start, end) = (format!("a{depth:04}"), format!("z{:04}", 999 - depth));
            RangeTombstone::new(start.as_bytes(), end.as_bytes(), depth + 1)
        })
        .collect();
    let tombstones = RangeTombstones::new(&nested);
    assert!(tombstones.iter().count() > usize::from(u16::MAX), "more rows than one block holds");
    let (file, _) = build(&[], &tombstones, options(4096, Codec::None));
    let table = open(&file, IDENTITY).expect("as built");
    assert_eq!(table.range_tombstones(), &tombstones);
    table.verify().expect("as built");
}

#[test]
fn a_tombstone_may_start_right_behind_the_longest_key() {
    let behind = successor(&[0xEE; KEY_LEN_MAX]);
    let tombstones = RangeTombstones::new(&[
        RangeTombstone::new(b"", &behind, 3),
        RangeTombstone::new(b"b", b"", 4),
    ]);
    assert!(tombstones.fragments().iter().any(|fragment| fragment.start == behind));
    let (file, summary) = build(&[], &tombstones, options(4096, Codec::None));
    assert_eq!((summary.smallest, summary.largest), (Vec::new(), Upper::Unbounded));
    assert_eq!(open(&file, IDENTITY).expect("as built").range_tombstones(), &tombstones);
}

fn builder() -> TableBuilder {
    let file = Box::new(MemoryFile::default());
    TableBuilder::new(file, PathBuf::from("sst/c.sst"), IDENTITY, options(64, Codec::None))
}

fn put<'a>(key: &'a [u8], seq: SeqNo, value: &'a [u8]) -> Entry<'a> {
    Entry { key, seq, kind: Kind::Put, value }
}

#[test]
fn a_large_row_gets_its_own_block_and_an_impossible_one_is_refused() {
    let large = vec![b'x'; 8 << 20];
    let mut builder = builder();
    for (key, value) in [(b"a", &b"small"[..]), (b"b", &large), (b"c", b"small")] {
        builder.add(put(key, 1, value)).expect("fits");
    }
    assert!(builder.add(put(b"d", 1, &vec![0; 16 << 20])).is_err());
    assert!(builder.add(put(&[b'e'; KEY_LEN_MAX + 1], 1, b"")).is_err());

    let rows: Vec<Row> = [(b"a", &b"small"[..]), (b"b", &large), (b"c", b"small")]
        .map(|(key, value)| (key.to_vec(), 1, Kind::Put, value.to_vec()))
        .into();
    let (file, _) = build(&rows, &RangeTombstones::default(), options(4096, Codec::None));
    let table = open(&file, IDENTITY).expect("as built");
    assert_eq!(collect(&mut table.cursor(SEE_ALL)), rows);
}

#[test]
fn a_table_of_nothing_is_refused() {
    let builder = builder();
    assert!(builder.is_empty());
    assert!(builder.finish().is_err());
}

#[test]
#[should_panic(expected = "after")]
fn an_entry_out_of_order_stops_the_builder() {
    let mut builder = builder();
    builder.add(put(b"k", 5, b"")).expect("fits");
    let _ = builder.add(put(b"k", 5, b""));
}

#[test]
#[should_panic(expected = "out of order")]
fn overlapping_fragments_stop_the_builder() {
    let mut builder = builder();
    for (start, end) in [(b"a", b"m"), (b"l", b"z")] {
        let tombstones = RangeTombstones::new(&[RangeTombstone::new(start, end, 1)]);
        let _ = builder.add_range_tombstone(&tombstones.fragments()[0]);
    }
}

#[test]
fn plain_steps_stay_in_the_block_and_leave_what_needs_a_look() {
    let keys: Vec<String> = (0..40).map(|i| format!("key{i:02}")).collect();
    let rows: Vec<Row> = keys
        .iter()
        .map(|key| (key.clone().into_bytes(), 5, Kind::Put, b"some value".to_vec()))
        .collect();
    let (file, ..) = build(&rows, &RangeTombstones::default(), options(4096, Codec::None));
    let table = open(&file, IDENTITY).expect("as built");
    let ahead = |from: &str, forward, limit: Option<&str>, below, max| {
        let mut cursor = table.cursor(below);
        cursor.seek(Target::Ge(from.as_bytes())).expect("undamaged");
        let count = cursor.plain_ahead(forward, limit.map(str::as_bytes), max);
        let mut step = || {
            cursor.step_plainly(forward);
            String::from_utf8(cursor.entry().key.to_vec()).expect("text")
        };
        (0..count).map(|_| step()).collect::<Vec<_>>()
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(ahead("key07", true, None, SEE_ALL, 4), keys[8..12]);
    assert_eq!(ahead("key37", true, None, SEE_ALL, 16), keys[38..]);
    assert_eq!(ahead("key07", true, Some("key10"), SEE_ALL, 16), keys[8..10]);
    assert_eq!(ahead("key07", true, Some("key07x"), SEE_ALL, 16), none);
    let mut back = keys[3..7].to_vec();
    back.reverse();
    assert_eq!(ahead("key07", false, None, SEE_ALL, 4), back);
    assert_eq!(ahead("key07", false, Some("key02"), SEE_ALL, 16), back);
    // The first row may have newer versions in a block before.
    assert_eq!(ahead("key02", false, None, SEE_ALL, 16), keys[1..2]);
    assert_eq!(ahead("key07", true, None, 5, 16), none, "nothing is visible");
}
