//! Claims about whole logs, writer and reader together: what is read back, what is a torn tail, what is
//! damage, what hostile bytes do.

use std::path::{Path, PathBuf};

use memtide_base::{ErrorKind, Result};
use proptest::prelude::*;

use super::record::{RecordHeader, checksum};
use super::tail::Space;
use super::testing::{MemFile, MemVfs, manifest_header, wal_header};
use super::window::index;
use super::{HEADER_LEN, LogHeader, LogReader, LogWriter, Opened, RecordKind, wal_file_name};

const SEGMENT: u64 = 1 << 20;
const BASE: u64 = 0x10_0000;

/// What a reader hands out, owned.
type Seen = (u64, RecordKind, u32, Vec<u8>);

fn name() -> PathBuf {
    wal_file_name(BASE)
}

fn create(vfs: &MemVfs, header: LogHeader) -> LogWriter {
    LogWriter::create(vfs, Path::new("/log"), &name(), header, 0).unwrap()
}

fn open(bytes: &[u8]) -> Result<Opened> {
    let vfs = MemVfs::default();
    vfs.put("/log", bytes);
    LogReader::open(&vfs, Path::new("/log"), &name())
}

fn reader(bytes: &[u8]) -> LogReader {
    match open(bytes).unwrap() {
        Opened::Log(log) => *log,
        Opened::Torn { bytes } => panic!("a torn header page, {bytes} bytes"),
    }
}

fn drain(log: &mut LogReader) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    while let Some(record) = log.next()? {
        seen.push((record.lsn, record.kind, record.count, record.payload.to_vec()));
    }
    Ok(seen)
}

/// Five records that were synced, then the marker that says so; where each begins, the marker last.
fn synced_log() -> (Vec<u8>, Vec<u64>) {
    let vfs = MemVfs::default();
    let mut log = create(&vfs, wal_header(BASE, SEGMENT));
    let mut starts = Vec::new();
    for (kind, count, payload) in [
        (RecordKind::Batch, 1, &b"one"[..]),
        (RecordKind::Batch, 2, b"a payload of some words"),
        (RecordKind::Skip, 40, b""),
        (RecordKind::Meta, 0, b""),
        (RecordKind::Batch, 3, &[0xEE; 100]),
    ] {
        starts.push(log.append(kind, count, payload, BASE).unwrap() - BASE);
    }
    log.sync().unwrap();
    let durable = log.position();
    starts.push(log.append(RecordKind::Skip, 0, b"", durable).unwrap() - BASE);
    (vfs.bytes("/log"), starts)
}

/// A record as another version might write it.
fn foreign(space: Space, at: u64, header: RecordHeader, payload: &[u8]) -> Vec<u8> {
    let seed = space.seed_at(at);
    let mut bytes = header.encode(seed).to_vec();
    bytes.extend_from_slice(payload);
    bytes.resize(index(header.stored_len().into()), 0);
    let sum = checksum(seed, &mut bytes);
    bytes[16..24].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn plain(len: u32, kind: u8, flags: u8) -> RecordHeader {
    RecordHeader { len, kind, flags, count: 0, durable_delta: u32::MAX, checksum: 0 }
}

fn wal_space() -> Space {
    let header = wal_header(BASE, SEGMENT);
    Space { base: BASE, salt: header.salt, end: SEGMENT }
}

#[test]
fn records_read_back_whole_and_contiguous() {
    let vfs = MemVfs::default();
    for header in [wal_header(BASE, SEGMENT), manifest_header()] {
        let mut log = create(&vfs, header.clone());
        let big = vec![0xAB; 300_001];
        let mut next = log.position();
        log.append(RecordKind::Batch, 1, b"first", 0).unwrap();
        log.append(RecordKind::Batch, 9, &big, 0).unwrap();
        log.append(RecordKind::Skip, 30, b"", log.position()).unwrap();
        log.append(RecordKind::Meta, 2, &big[..8], 0).unwrap();
        let mut back = reader(&vfs.bytes("/log"));
        assert_eq!(*back.header(), header);
        let mut payloads = Vec::new();
        while let Some(record) = back.next().unwrap() {
            assert_eq!(record.lsn, next);
            next = record.end_lsn;
            payloads.push((record.kind, record.count, record.payload.to_vec()));
        }
        assert_eq!(payloads[0], (RecordKind::Batch, 1, b"first\0\0\0".to_vec()));
        assert_eq!(payloads[1].2[..big.len()], big);
        assert_eq!(payloads[2], (RecordKind::Skip, 30, Vec::new()));
        assert_eq!(payloads[3], (RecordKind::Meta, 2, big[..8].to_vec()));
        let end = back.end().unwrap();
        assert_eq!((end.lsn, end.torn_bytes), (log.position(), 0));
        assert!(end.damage.is_none() && back.next().unwrap().is_none());
    }
}

#[test]
fn a_full_segment_ends_at_its_end() {
    for pad in [false, true] {
        let vfs = MemVfs::default();
        let mut log = create(&vfs, wal_header(BASE, 8192));
        let payload = vec![1; if pad { 4000 } else { 4064 }];
        log.append(RecordKind::Batch, 1, &payload, 0).unwrap();
        if pad {
            log.append(RecordKind::Pad, 0, b"", 0).unwrap();
        }
        let mut back = reader(&vfs.bytes("/log"));
        assert_eq!(drain(&mut back).unwrap().len(), 1 + usize::from(pad));
        assert_eq!(back.end().unwrap().lsn, BASE + 8192);
    }
}

#[test]
fn every_flipped_byte_of_a_synced_log_is_reported_or_harmless() {
    let (bytes, starts) = synced_log();
    let all = drain(&mut reader(&bytes)).unwrap();
    let marker = *starts.last().unwrap();
    let hole = starts[2] + 24..starts[3];
    for at in 0..bytes.len() as u64 {
        for mask in [0x01, 0x80, 0xFF] {
            let mut flipped = bytes.clone();
            flipped[index(at)] ^= mask;
            if at < HEADER_LEN {
                match open(&flipped) {
                    Err(error) => assert!(error.is_corruption(), "byte {at}: {error}"),
                    Ok(Opened::Torn { bytes }) => {
                        assert!((48..56).contains(&at), "only without its salt, byte {at}");
                        assert!(bytes > HEADER_LEN, "it shows that records were written");
                    }
                    Ok(Opened::Log(_)) => panic!("byte {at} went unnoticed"),
                }
                continue;
            }
            let seen = drain(&mut reader(&flipped));
            if at >= marker {
                assert_eq!(seen.unwrap(), all[..5], "the marker holds nothing, byte {at}");
            } else if hole.contains(&at) {
                assert_eq!(seen.unwrap(), all, "a skip has no bytes, byte {at}");
            } else {
                let error = seen.unwrap_err();
                let record = starts.iter().rev().find(|&&start| start <= at).copied();
                assert!(error.is_corruption(), "byte {at}: {error}");
                assert_eq!(error.offset(), record, "byte {at}: {error}");
                assert!(error.to_string().contains(&format!("offset {marker}")), "{error}");
            }
        }
    }
}

#[test]
fn a_tolerant_reader_ends_at_damage_and_remembers_it() {
    let (mut bytes, starts) = synced_log();
    bytes[index(starts[1]) + 30] ^= 1;
    let mut log = reader(&bytes);
    assert!(drain(&mut log).is_err() && log.end().is_none());
    assert!(log.next().is_err(), "damage does not go away by asking again");
    log.set_tolerant(true);
    assert!(log.next().unwrap().is_none());
    let end = log.end().unwrap();
    assert_eq!(end.lsn, BASE + starts[1]);
    assert_eq!(end.torn_bytes, bytes.len() as u64 - starts[1]);
    assert!(end.damage.as_ref().unwrap().is_corruption());
}

#[test]
fn a_flip_in_what_was_not_synced_is_a_torn_tail() {
    let (mut bytes, starts) = synced_log();
    let marker = *starts.last().unwrap();
    bytes.truncate(index(marker));
    let last = starts[4];
    for at in index(last)..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x40;
        let mut log = reader(&flipped);
        assert_eq!(drain(&mut log).unwrap().len(), 4, "byte {at}");
        let end = log.end().unwrap();
        assert_eq!(end.lsn, BASE + last);
        assert!(end.torn_bytes > 0 && last + end.torn_bytes <= marker, "byte {at}");
    }
}

#[test]
fn a_hole_before_valid_records_is_torn_until_one_of_them_proves_it_was_synced() {
    let vfs = MemVfs::default();
    let mut log = create(&vfs, wal_header(BASE, SEGMENT));
    let first = log.append(RecordKind::Batch, 1, b"kept", 0).unwrap();
    let lost = log.append(RecordKind::Batch, 1, &[9; 5000], 0).unwrap();
    let known = log.append(RecordKind::Batch, 1, b"behind", lost).unwrap();
    let mut bytes = vfs.bytes("/log");
    bytes[index(lost - BASE)..index(known - BASE)].fill(0);
    let mut back = reader(&bytes);
    assert_eq!(drain(&mut back).unwrap().len(), 1, "only what precedes {lost} was synced");
    assert_eq!(back.end().unwrap().lsn, lost);

    log.append(RecordKind::Batch, 1, b"further", known).unwrap();
    let mut proven = vfs.bytes("/log");
    proven[index(lost - BASE)..index(known - BASE)].fill(0);
    let error = drain(&mut reader(&proven)).unwrap_err();
    assert_eq!(error.offset(), Some(lost - BASE), "{first}: {error}");
}

#[test]
fn a_log_cut_anywhere_reads_as_a_prefix_and_as_damage_where_more_is_expected() {
    let (bytes, starts) = synced_log();
    let all = drain(&mut reader(&bytes)).unwrap();
    for len in 0..bytes.len() as u64 {
        let cut = &bytes[..index(len)];
        if len < HEADER_LEN {
            let Opened::Torn { bytes } = open(cut).unwrap() else { panic!("cut at {len}") };
            assert!(bytes <= len);
            continue;
        }
        let mut log = reader(cut);
        let seen = drain(&mut log).unwrap();
        assert_eq!(seen, all[..seen.len()], "cut at {len}");
        let end = log.end().unwrap().lsn;
        assert!(seen.len() >= starts.iter().skip(1).filter(|&&start| start <= len).count());

        let mut expecting = reader(cut);
        expecting.expect_durable(end);
        assert!(drain(&mut expecting).is_ok(), "cut at {len}");
        let mut expecting = reader(cut);
        expecting.expect_durable(end + 1);
        let error = drain(&mut expecting).unwrap_err();
        assert_eq!(error.offset(), Some(end - BASE), "cut at {len}: {error}");
    }
}

#[test]
fn records_behind_the_known_end_are_not_part_of_the_log() {
    let (bytes, _) = synced_log();
    let mut ends = Vec::new();
    let mut log = reader(&bytes);
    while let Some(record) = log.next().unwrap() {
        ends.push(record.end_lsn);
    }
    for (at, &end) in ends.iter().enumerate() {
        let mut log = reader(&bytes);
        log.expect_end(end);
        assert_eq!(drain(&mut log).unwrap().len(), at + 1);
        assert_eq!(log.end().map(|found| (found.lsn, found.torn_bytes)), Some((end, 0)));
        let mut log = reader(&bytes);
        log.expect_end(end - 8);
        assert!(drain(&mut log).unwrap_err().is_corruption(), "a record lies across the end");
    }
}

#[test]
fn zeros_behind_the_records_are_a_clean_end() {
    let (mut bytes, _) = synced_log();
    let end = bytes.len() as u64;
    for zeros in [1, 23, 24, 5000, 700_000] {
        bytes.resize(index(end) + zeros, 0);
        let mut log = reader(&bytes);
        assert_eq!(drain(&mut log).unwrap().len(), 6);
        let found = log.end().unwrap();
        assert_eq!((found.lsn, found.torn_bytes), (BASE + end, 0), "{zeros} zeros");
    }
    assert!(matches!(open(&[0; 5000]).unwrap(), Opened::Torn { bytes: 0 }));
    assert!(matches!(open(&[]).unwrap(), Opened::Torn { bytes: 0 }));
}

#[test]
fn records_of_another_life_of_the_file_never_validate() {
    let (old, _) = synced_log();
    for header in [
        LogHeader { salt: 1, ..wal_header(BASE, SEGMENT) },
        LogHeader { base: BASE + SEGMENT, ..wal_header(BASE, SEGMENT) },
    ] {
        let vfs = MemVfs::default();
        let mut log = create(&vfs, header);
        let mut bytes = old.clone();
        bytes[..4096].copy_from_slice(&vfs.bytes("/log"));
        assert_eq!(drain(&mut reader(&bytes)).unwrap(), []);
        log.append(RecordKind::Batch, 1, b"one", 0).unwrap();
        let new = vfs.bytes("/log");
        bytes[..new.len()].copy_from_slice(&new);
        let mut back = reader(&bytes);
        assert_eq!(drain(&mut back).unwrap().len(), 1, "the old second record follows it");
        assert!(back.end().unwrap().torn_bytes > 0);
    }
}

#[test]
fn what_a_newer_version_wrote_is_skipped_or_refused_as_it_says() {
    let (bytes, starts) = synced_log();
    let at = bytes.len() as u64;
    for (kind, flags, want) in [
        (0x85, 0, None),
        (0xFF, 0x01, None),
        (5, 0, Some(ErrorKind::Unsupported)),
        (1, 0x01, Some(ErrorKind::Unsupported)),
        (1, 0x02, Some(ErrorKind::Corruption)),
    ] {
        let mut with = bytes.clone();
        with.extend(foreign(wal_space(), at, plain(40, kind, flags), b"sixteen bytes ok"));
        with.extend(foreign(wal_space(), at + 40, plain(24, 4, 0), b""));
        let mut log = reader(&with);
        let seen = drain(&mut log);
        match want {
            None => assert_eq!(seen.unwrap().len(), starts.len() + 1, "kind {kind:#x}"),
            Some(want) => {
                let error = seen.unwrap_err();
                assert_eq!(error.kind(), want, "kind {kind:#x} flags {flags}: {error}");
                log.set_tolerant(true);
                let tolerated = log.next().map(|record| record.is_none()).unwrap_or(false);
                assert_eq!(tolerated, want == ErrorKind::Corruption);
            }
        }
    }
}

#[test]
fn hostile_lengths_and_claims_end_the_log_quietly() {
    let (bytes, starts) = synced_log();
    let at = bytes.len() as u64;
    for len in [u32::MAX - 7, 1 << 20, 8192, 48] {
        let mut with = bytes.clone();
        with.extend(plain(len, 1, 0).encode(wal_space().seed_at(at)));
        let mut log = reader(&with);
        assert_eq!(drain(&mut log).unwrap().len(), starts.len(), "length {len}");
        assert!(log.end().unwrap().torn_bytes > 0);
    }
    let mut beyond = bytes;
    let delta = RecordHeader { durable_delta: u32::MAX - 1, ..plain(24, 4, 0) };
    beyond.extend([0xFF; 8]);
    beyond.extend(foreign(wal_space(), at + 8, delta, b""));
    assert_eq!(drain(&mut reader(&beyond)).unwrap().len(), starts.len());
}

#[test]
fn a_record_across_the_end_of_its_segment_is_none() {
    let header = wal_header(BASE, 8192);
    let space = Space { base: BASE, salt: header.salt, end: 8192 };
    for (len, records) in [(4096, 1), (4104, 0)] {
        let mut bytes = header.encode();
        bytes.extend(foreign(space, HEADER_LEN, plain(len, 4, 0), b"fits or not"));
        assert_eq!(drain(&mut reader(&bytes)).unwrap().len(), records, "length {len}");
    }
}

#[test]
fn a_file_crowded_with_record_headers_is_damage_soon() {
    let len = 1_u64 << 20;
    let mut bytes = wal_header(BASE, SEGMENT).encode();
    while (bytes.len() as u64) < len - 24 {
        let at = bytes.len() as u64;
        let rest = u32::try_from((len - at) & !7).unwrap();
        bytes.extend(plain(rest, 1, 0).encode(wal_space().seed_at(at)));
    }
    bytes.resize(index(len), 0);
    let error = drain(&mut reader(&bytes)).unwrap_err();
    assert!(error.to_string().contains("pose as records"), "{error}");
}

fn survives(bytes: &[u8]) {
    if let Ok(Opened::Log(mut log)) = open(bytes) {
        let strict = drain(&mut log);
        log.set_tolerant(true);
        let tolerant = drain(&mut log);
        if strict.is_ok() {
            assert!(tolerant.unwrap().is_empty() && log.end().is_some());
        }
    }
}

proptest! {
    #[test]
    fn hostile_files_never_panic(
        noise in prop::collection::vec(any::<u8>(), 0..5000),
        whole: bool,
    ) {
        let mut bytes = if whole { wal_header(BASE, SEGMENT).encode() } else { Vec::new() };
        bytes.extend(noise);
        survives(&bytes);
    }

    #[test]
    fn mutated_logs_yield_only_records_that_were_written(
        edits in prop::collection::vec((4096..4600_usize, any::<u8>()), 0..6),
        cut in 4096..4700_usize,
    ) {
        let (mut bytes, _) = synced_log();
        let all = drain(&mut reader(&bytes)).unwrap();
        for (at, byte) in edits {
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
        }
        bytes.truncate(cut);
        survives(&bytes);
        let mut log = reader(&bytes);
        log.set_tolerant(true);
        let seen = drain(&mut log).unwrap();
        prop_assert_eq!(&seen[..], &all[..seen.len()]);
    }
}

#[test]
fn behind_damage_the_next_record_is_found() {
    let (bytes, starts) = synced_log();
    let all = drain(&mut reader(&bytes)).unwrap();
    for lost in 0..starts.len() - 1 {
        let mut harmed = bytes.clone();
        harmed[index(starts[lost]) + 20] ^= 1;
        let mut log = reader(&harmed);
        log.set_tolerant(true);
        let mut seen = drain(&mut log).unwrap();
        assert_eq!(seen.len(), lost);
        let passed = log.skip_damage().unwrap().unwrap();
        // A skip covers bytes that mean nothing: no record is looked for in the wrong place.
        assert_eq!(passed, BASE + starts[lost]..BASE + starts[lost + 1]);
        seen.extend(drain(&mut log).unwrap());
        let want: Vec<_> = all.iter().filter(|(lsn, ..)| *lsn != BASE + starts[lost]).collect();
        assert_eq!(seen.iter().collect::<Vec<_>>(), want);
        assert_eq!(log.skip_damage().unwrap(), None);
    }
}

#[test]
fn a_log_without_its_header_page_reads_with_its_salt_and_one_flipped_bit_is_mended() {
    let (bytes, _) = synced_log();
    let all = drain(&mut reader(&bytes)).unwrap();
    let mut harmed = bytes.clone();
    harmed[50] ^= 8;
    let header = LogHeader::decode_mended(&name(), &harmed).unwrap();
    assert_eq!(header, wal_header(BASE, SEGMENT));
    harmed[..4096].fill(0);
    assert_eq!(LogHeader::decode_mended(&name(), &harmed), None);
    let mut log = LogReader::with_header(MemFile::of(&harmed), &name(), header).unwrap();
    assert_eq!(drain(&mut log).unwrap(), all);
}
