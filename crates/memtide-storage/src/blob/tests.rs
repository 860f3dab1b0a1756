//! A blob file as a whole: what is written reads back, what is damaged is refused.

use std::path::PathBuf;

use memtide_base::checksum::xxh3_64_of_two;
use memtide_base::sync::Arc;
use proptest::prelude::*;

use super::{BlobFile, BlobHandle, BlobOptions, BlobSummary, BlobWriter};
use crate::compress::Codec;
use crate::table::testing::MemoryFile;
use crate::{FileIdentity, verify_file};

const IDENTITY: FileIdentity =
    FileIdentity { db_uuid: *b"a test database!", number: 12, keyspace: 3 };

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn build(entries: &Entries, codec: Codec) -> (MemoryFile, BlobSummary, Vec<BlobHandle>) {
    let file = MemoryFile::default();
    let options = BlobOptions { codec, salt: 0x5A17 };
    let mut writer =
        BlobWriter::new(Box::new(file.clone()), PathBuf::from("blob/c.blob"), IDENTITY, options)
            .expect("memory does not fail");
    let add = |(key, value): &(Vec<u8>, Vec<u8>)| writer.add(key, value).expect("within limits");
    let handles = entries.iter().map(add).collect();
    let size = writer.size();
    let summary = writer.finish().expect("memory does not fail");
    assert_eq!((summary.size, size), (size, file.bytes().len() as u64));
    (file, summary, handles)
}

fn open(file: &MemoryFile, size: u64) -> memtide_base::Result<BlobFile> {
    BlobFile::open(Arc::new(file.clone()), PathBuf::from("blob/c.blob"), IDENTITY, size)
}

fn some() -> Entries {
    vec![
        (b"a".to_vec(), vec![7; 300]),
        (b"b".to_vec(), Vec::new()),
        (Vec::new(), (0..200).collect()),
        (b"key".to_vec(), b"tide".repeat(500)),
    ]
}

#[test]
fn a_file_is_only_what_it_is_expected_to_be() {
    let (file, summary, _) = build(&some(), Codec::None);
    let reads = |expected: FileIdentity| {
        let name = PathBuf::from("blob/c.blob");
        BlobFile::open(Arc::new(file.clone()), name, expected, summary.size)
    };
    assert!(reads(IDENTITY).is_ok());
    for other in [
        FileIdentity { number: 13, ..IDENTITY },
        FileIdentity { keyspace: 4, ..IDENTITY },
        FileIdentity { db_uuid: [0; 16], ..IDENTITY },
    ] {
        assert!(reads(other).expect_err("another file").is_corruption());
    }
    assert!(open(&file, summary.size - 1).expect_err("another length").is_corruption());
    assert!(open(&MemoryFile::of(&[1; 10]), 10).expect_err("too short").is_corruption());
}

#[test]
fn every_flipped_byte_is_found_by_reading_all_and_by_reading_its_value() {
    for codec in [Codec::None, Codec::fastest()] {
        let entries = some();
        let (file, summary, handles) = build(&entries, codec);
        let checked = |file: &MemoryFile| {
            let name = PathBuf::from("blob/c.blob");
            verify_file("blob file", Arc::new(file.clone()), name, summary.size, summary.checksum)
        };
        checked(&file).expect("as written");
        for at in 0..file.bytes().len() {
            file.0.lock()[at] ^= 0x10;
            assert!(checked(&file).is_err(), "flip at {at}");
            let opened = open(&file, summary.size);
            let walked = opened.as_ref().map_err(|error| error.again()).and_then(BlobFile::verify);
            assert!(walked.expect_err("flipped").is_corruption(), "flip at {at}");
            for ((key, value), handle) in entries.iter().zip(&handles) {
                let own = handle.offset..handle.offset + u64::from(handle.len);
                let Ok(opened) = &opened else { continue };
                let got = opened.get(key, *handle);
                if own.contains(&(at as u64)) {
                    assert!(got.expect_err("flipped").is_corruption(), "flip at {at}");
                } else {
                    assert_eq!(got.expect("another one was flipped"), value.as_slice());
                }
            }
            file.0.lock()[at] ^= 0x10;
        }
    }
}

#[test]
fn a_handle_to_another_place_key_or_length_is_refused() {
    let (file, summary, handles) = build(&some(), Codec::None);
    let opened = open(&file, summary.size).expect("as written");
    let first = handles[0];
    for wrong in [
        BlobHandle { offset: first.offset + 8, ..first },
        BlobHandle { offset: summary.size, ..first },
        BlobHandle { offset: u64::MAX - 7, ..first },
        BlobHandle { len: first.len + 8, ..first },
        BlobHandle { raw_len: first.raw_len + 1, ..first },
        handles[3],
    ] {
        assert!(opened.get(b"a", wrong).expect_err("wrong").is_corruption(), "{wrong:?}");
        assert!(opened.check(b"a", wrong).expect_err("wrong").is_corruption(), "{wrong:?}");
    }
    assert!(opened.check(b"", first).is_err() && opened.check(b"a longer key", first).is_err());
    opened.check(b"a", first).expect("its value");
    assert!(opened.get(b"b", first).expect_err("another's value").is_corruption());
    assert_eq!(opened.get(b"a", first).expect("its value"), [7; 300]);
}

#[test]
fn the_bytes_of_a_file_are_fixed() {
    let (file, summary, handles) = build(&vec![(b"tide".to_vec(), b"high".to_vec())], Codec::None);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&file.bytes()[..48]), HEADER, "docs/format/blob.md shows the same bytes");
    assert_eq!(hex(&file.bytes()[64..]), RECORD, "docs/format/blob.md shows the same bytes");
    let mut handle = Vec::new();
    handles[0].encode(&mut handle);
    assert_eq!((hex(&handle).as_str(), summary.bytes, summary.values), ("0c402004", 32, 1));
}

const HEADER: &str = "4d54424c42000001000040000000000061207465737420646174616261736521\
                      0c00000000000000175a000000000000";
const RECORD: &str = "04000000040000000400000000000000f048d31ddd7e8a967469646568696768";

proptest! {
    #[test]
    fn what_is_written_reads_back(
        entries in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 0..40), 1..30_usize),
            0..20,
        ),
        compresses: bool,
    ) {
        let entries: Entries =
            entries.into_iter().map(|(key, piece, times)| (key, piece.repeat(times))).collect();
        let codec = if compresses { Codec::fastest() } else { Codec::None };
        let (file, summary, handles) = build(&entries, codec);
        let opened = open(&file, summary.size).expect("as written");
        for ((key, value), handle) in entries.iter().zip(&handles) {
            prop_assert_eq!(&opened.get(key, *handle).expect("as written"), value.as_slice());
        }
        prop_assert_eq!(opened.verify().expect("as written"), entries.len() as u64);
        prop_assert_eq!(summary.values, entries.len() as u64);
        prop_assert_eq!(summary.bytes, handles.iter().map(|h| u64::from(h.len)).sum::<u64>());
        prop_assert_eq!(summary.size, 64 + summary.bytes);
    }

    #[test]
    fn records_that_claim_anything_are_refused_or_lie_in_the_file(
        lens: (u32, u32, u16),
        are_small: bool,
        codec in 0..3_u8,
        body in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let (mut lens, body_len) = (lens, u32::try_from(body.len()).expect("short"));
        if are_small {
            lens = (lens.0 % (body_len + 9), lens.1 % (body_len + 9), lens.2 % 9);
        }
        let (file, ..) = build(&Vec::new(), Codec::None);
        let mut record = [0; 16];
        record[..4].copy_from_slice(&lens.0.to_le_bytes());
        record[4..8].copy_from_slice(&lens.1.to_le_bytes());
        record[8..10].copy_from_slice(&lens.2.to_le_bytes());
        record[10] = codec;
        let used = body.len().min(lens.0 as usize + usize::from(lens.2));
        let checksum = xxh3_64_of_two(0x5A17 ^ 64, &record, &body[..used]);
        let whole = [&file.bytes()[..], &record, &checksum.to_le_bytes(), &body].concat();
        let file = MemoryFile::of(&whole);
        let opened = open(&file, whole.len() as u64).expect("its header is sound");
        // One that passes fills the file exactly.
        if opened.verify().is_ok() {
            let len = 24 + u64::from(lens.0) + u64::from(lens.2);
            prop_assert_eq!(64 + len.next_multiple_of(8), whole.len() as u64);
        }
    }
}

#[test]
fn of_a_damaged_file_every_other_record_is_found() {
    for codec in [Codec::None, Codec::fastest()] {
        let (file, summary, handles) = build(&some(), codec);
        let found_in = |bytes: &[u8], salt| {
            let file = Arc::new(MemoryFile::of(bytes));
            let (file, identity) =
                BlobFile::open_damaged(file, PathBuf::from("c.blob"), salt).expect("memory");
            let (mut at, mut found) = (0, Vec::new());
            while let Some(record) = file.record_from(at).expect("memory") {
                at = record.offset + record.len;
                found.push((record.key, record.offset, record.raw_len));
            }
            (identity, found)
        };
        let all: Vec<_> = some()
            .into_iter()
            .zip(&handles)
            .map(|((key, _), handle)| (key, handle.offset, handle.raw_len))
            .collect();
        assert_eq!(found_in(&file.bytes(), 0), (Some(IDENTITY), all.clone()));
        for (at, handle) in handles.iter().enumerate() {
            for place in [0, 9, 17, 24] {
                let mut bytes = file.bytes();
                let place = usize::try_from(handle.offset).expect("small") + place;
                let Some(byte) = bytes.get_mut(place) else { continue };
                *byte ^= 2;
                let mut found = found_in(&bytes, 0).1;
                if found.len() < all.len() {
                    found.insert(at, all[at].clone());
                }
                assert_eq!(found, all, "record {at}");
            }
        }
        let mut bytes = file.bytes();
        bytes[..64].fill(0);
        assert_eq!(found_in(&bytes, summary.salt), (None, all.clone()));
        let mut bytes = file.bytes();
        bytes[41] ^= 0x80;
        assert_eq!(found_in(&bytes, 0), (None, all), "one bit of the header");
    }
}
