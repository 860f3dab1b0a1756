//! What a power cut may and may not take, and what injected faults leave behind.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::*;

const ROOT: &str = "/";
const PAGE: usize = file::PAGE;

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

fn content(vfs: &SimVfs, name: &str) -> Option<Vec<u8>> {
    let file = vfs.open_read(&path(name)).ok()?;
    let mut bytes = vec![0xee; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

fn after(vfs: &SimVfs, mode: CrashMode, seed: u64) -> SimVfs {
    SimVfs::from_disk(vfs.disk().crash(mode, seed))
}

/// What `look` sees after crashes with many seeds.
fn outcomes<T: Ord>(vfs: &SimVfs, mode: CrashMode, look: impl Fn(&SimVfs) -> T) -> BTreeSet<T> {
    (0..400).map(|seed| look(&after(vfs, mode, seed))).collect()
}

/// A file with a durable name and durable bytes.
fn durable(vfs: &SimVfs, name: &str, bytes: &[u8]) -> Box<dyn WriteFile> {
    let file = vfs.create(&path(name), 0).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
    vfs.sync_dir(Path::new(ROOT)).unwrap();
    file
}

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn what_is_synced_survives_every_mode() {
    let vfs = SimVfs::new();
    durable(&vfs, "f", &[7; 1300]);
    for mode in [CrashMode::Prefix, CrashMode::Subset, CrashMode::DropAll, CrashMode::KeepAll] {
        let seen = outcomes(&vfs, mode, |left| content(left, "f"));
        assert_eq!(seen, BTreeSet::from([Some(vec![7; 1300])]), "{mode:?}");
    }
}

#[test]
fn a_name_without_sync_dir_vanishes_though_its_file_is_synced() {
    let vfs = SimVfs::new();
    let file = vfs.create(&path("f"), 0).unwrap();
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(content(&after(&vfs, CrashMode::DropAll, 0), "f"), None);
    assert_eq!(content(&after(&vfs, CrashMode::KeepAll, 0), "f"), Some(b"x".to_vec()));
    for mode in [CrashMode::Prefix, CrashMode::Subset] {
        let seen = outcomes(&vfs, mode, |left| content(left, "f"));
        assert_eq!(seen, BTreeSet::from([None, Some(b"x".to_vec())]), "{mode:?}");
    }
}

#[test]
fn a_durable_name_may_have_an_empty_file() {
    let vfs = SimVfs::new();
    let file = vfs.create(&path("f"), 0).unwrap();
    file.write_at(b"x", 0).unwrap();
    vfs.sync_dir(Path::new(ROOT)).unwrap();
    assert_eq!(content(&after(&vfs, CrashMode::DropAll, 0), "f"), Some(Vec::new()));
    let seen = outcomes(&vfs, CrashMode::Subset, |left| content(left, "f").unwrap());
    assert!(seen.contains(&b""[..]) && seen.contains(&b"x"[..]));
    assert!(seen.contains(&b"\0"[..]), "the length is durable, the byte is not");
}

#[test]
fn a_directory_takes_its_files_with_it() {
    let vfs = SimVfs::new();
    vfs.create_dir(&path("d")).unwrap();
    vfs.create(&path("d/f"), 0).unwrap();
    vfs.sync_dir(&path("d")).unwrap();
    assert!(after(&vfs, CrashMode::DropAll, 0).files().is_empty());
    vfs.sync_dir(Path::new(ROOT)).unwrap();
    assert_eq!(after(&vfs, CrashMode::DropAll, 0).files(), [path("d/f")]);
}

#[test]
fn a_rename_without_sync_dir_leaves_the_old_or_the_new_file() {
    let vfs = SimVfs::new();
    durable(&vfs, "CURRENT", b"old");
    durable(&vfs, "tmp", b"new");
    vfs.rename(&path("tmp"), &path("CURRENT")).unwrap();
    let left = after(&vfs, CrashMode::DropAll, 0);
    assert_eq!(content(&left, "CURRENT"), Some(b"old".to_vec()));
    assert_eq!(content(&left, "tmp"), Some(b"new".to_vec()));
    for mode in [CrashMode::Prefix, CrashMode::Subset] {
        let seen =
            outcomes(&vfs, mode, |left| (content(left, "CURRENT").unwrap(), left.files().len()));
        let want = [(b"new".to_vec(), 1), (b"old".to_vec(), 2)];
        assert_eq!(seen, BTreeSet::from(want), "{mode:?}: a rename is whole or absent");
    }
    vfs.sync_dir(Path::new(ROOT)).unwrap();
    let left = after(&vfs, CrashMode::DropAll, 0);
    assert_eq!((content(&left, "CURRENT"), left.files().len()), (Some(b"new".to_vec()), 1));
}

#[test]
fn a_removal_without_sync_dir_may_come_back() {
    let vfs = SimVfs::new();
    drop(durable(&vfs, "f", b"x"));
    vfs.remove(&path("f")).unwrap();
    vfs.create_dir(&path("other")).unwrap();
    vfs.sync_dir(&path("other")).unwrap();
    assert_eq!(content(&after(&vfs, CrashMode::DropAll, 0), "f"), Some(b"x".to_vec()));
    assert_eq!(outcomes(&vfs, CrashMode::Subset, |left| content(left, "f")).len(), 2);
}

#[test]
fn a_file_that_moves_between_directories_is_never_lost() {
    for sync_first in [None, Some("a"), Some("b")] {
        let vfs = SimVfs::new();
        for dir in ["a", "b"] {
            vfs.create_dir(&path(dir)).unwrap();
        }
        vfs.sync_dir(Path::new(ROOT)).unwrap();
        vfs.create(&path("a/f"), 0).unwrap();
        vfs.sync_dir(&path("a")).unwrap();
        vfs.create(&path("b/noise"), 0).unwrap();
        vfs.rename(&path("a/f"), &path("b/f")).unwrap();
        vfs.create(&path("a/noise"), 0).unwrap();
        if let Some(dir) = sync_first {
            vfs.sync_dir(&path(dir)).unwrap();
        }
        for mode in [CrashMode::Prefix, CrashMode::Subset, CrashMode::DropAll] {
            let names = |left: &SimVfs| ["a/f", "b/f"].map(|name| content(left, name).is_some());
            let seen = outcomes(&vfs, mode, names);
            assert!(!seen.contains(&[false, false]), "{mode:?} after sync of {sync_first:?}");
            if sync_first == Some("a") {
                assert_eq!(seen, BTreeSet::from([[false, true]]), "{mode:?}");
            }
        }
    }
}

#[test]
fn an_overwritten_page_may_be_old_new_torn_or_a_version_in_between() {
    let vfs = SimVfs::new();
    let file = durable(&vfs, "f", &[1; PAGE]);
    for version in [2, 3] {
        file.write_at(&[version; PAGE], 0).unwrap();
    }
    assert_eq!(content(&after(&vfs, CrashMode::DropAll, 0), "f"), Some(vec![1; PAGE]));
    let seen = outcomes(&vfs, CrashMode::Subset, |left| content(left, "f").unwrap());
    for version in 1..=3 {
        assert!(seen.contains(&vec![version; PAGE]), "version {version}");
    }
    let torn = seen.iter().filter(|page| page[0] != page[PAGE - 1]);
    let tears: Vec<_> = torn.map(|page| page.partition_point(|byte| *byte == 3)).collect();
    assert!(tears.len() > 50, "only {} different tears", tears.len());
    assert!(seen.iter().all(|page| page.is_sorted_by(|a, b| a >= b)), "a tear is new, then old");
}

#[test]
fn subset_may_keep_a_later_page_and_lose_an_earlier_one_but_prefix_may_not() {
    let vfs = SimVfs::new();
    let file = durable(&vfs, "f", &[0; 2 * PAGE]);
    file.write_at(&[1; PAGE], 0).unwrap();
    file.write_at(&[2; PAGE], PAGE as u64).unwrap();
    let pages = |left: &SimVfs| {
        let bytes = content(left, "f").unwrap();
        [bytes[PAGE - 1] != 0, bytes[PAGE] != 0]
    };
    assert_eq!(outcomes(&vfs, CrashMode::Subset, pages).len(), 4);
    let ordered = BTreeSet::from([[false, false], [true, false], [true, true]]);
    assert_eq!(outcomes(&vfs, CrashMode::Prefix, pages), ordered);
}

#[test]
fn subset_may_keep_a_later_name_and_lose_an_earlier_one_but_prefix_may_not() {
    let vfs = SimVfs::new();
    for name in ["a", "b"] {
        vfs.create(&path(name), 0).unwrap();
    }
    let names = |left: &SimVfs| ["a", "b"].map(|name| content(left, name).is_some());
    assert_eq!(outcomes(&vfs, CrashMode::Subset, names).len(), 4);
    let ordered = BTreeSet::from([[false, false], [true, false], [true, true]]);
    assert_eq!(outcomes(&vfs, CrashMode::Prefix, names), ordered);
}

#[test]
fn prefix_of_an_appended_file_is_a_prefix_of_its_bytes() {
    for prealloc in [0, 4096] {
        let vfs = SimVfs::new();
        let file = vfs.create(&path("log"), prealloc).unwrap();
        vfs.sync_dir(Path::new(ROOT)).unwrap();
        let bytes: Vec<u8> = (0..1900_u32).map(|n| u8::try_from(n % 251).unwrap() + 1).collect();
        let mut end = 0;
        for piece in bytes.chunks(130) {
            file.write_at(piece, end).unwrap();
            end += piece.len() as u64;
            if end == 520 {
                file.sync().unwrap();
            }
        }
        let mut lengths = BTreeSet::new();
        for left in outcomes(&vfs, CrashMode::Prefix, |left| content(left, "log").unwrap()) {
            let kept = left.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            assert!(kept >= 520 && left[..kept] == bytes[..kept], "{kept} bytes kept");
            assert!(prealloc == 4096 || left.len() == kept, "{} of {kept}", left.len());
            lengths.insert(kept);
        }
        assert!(lengths.len() > 100, "only {} lengths", lengths.len());
        assert!(lengths.contains(&520) && lengths.contains(&1900));
    }
}

#[test]
fn a_cut_that_was_not_synced_may_come_undone() {
    let vfs = SimVfs::new();
    let file = durable(&vfs, "f", &[9; 1500]);
    file.set_len(100).unwrap();
    assert_eq!(content(&after(&vfs, CrashMode::DropAll, 0), "f"), Some(vec![9; 1500]));
    for mode in [CrashMode::Prefix, CrashMode::Subset] {
        let lengths = outcomes(&vfs, mode, |left| left.file_len(&path("f")).unwrap());
        assert!(lengths.contains(&100) && lengths.contains(&1500), "{mode:?}");
        for left in outcomes(&vfs, mode, |left| content(left, "f").unwrap()) {
            assert!(left[left.len().min(PAGE)..].iter().all(|byte| *byte == 9), "{mode:?}");
        }
    }
}

#[test]
fn a_crash_is_repeatable_and_its_result_quiescent() {
    let vfs = SimVfs::new();
    let file = durable(&vfs, "f", &[1; 3000]);
    file.write_at(&[2; 2000], 500).unwrap();
    vfs.create(&path("g"), 700).unwrap().write_at(&[3; 600], 0).unwrap();
    let _lock = vfs.lock(&path("LOCK"), LockMode::Exclusive).unwrap();
    let all = |vfs: &SimVfs| {
        let read = |file: PathBuf| (content(vfs, file.to_str().unwrap()), file);
        vfs.files().into_iter().map(read).collect::<Vec<_>>()
    };
    for mode in [CrashMode::Prefix, CrashMode::Subset] {
        for seed in 0..50 {
            let left = after(&vfs, mode, seed);
            assert_eq!(all(&left), all(&after(&vfs, mode, seed)));
            assert_eq!(all(&left), all(&after(&left, CrashMode::DropAll, seed)));
            assert_eq!(all(&left), all(&after(&left, CrashMode::Subset, seed + 1)));
            left.lock(&path("LOCK"), LockMode::Exclusive).unwrap();
        }
    }
    assert!(outcomes(&vfs, CrashMode::Subset, all).len() > 100);
}

#[test]
fn the_observer_sees_the_disk_before_each_operation() {
    let vfs = SimVfs::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    vfs.set_observer(Some(Box::new(move |index, op, disk| {
        log.lock().push((index, op.clone(), disk.clone()));
    })));
    let file = vfs.create(&path("f"), 0).unwrap();
    assert_eq!(kind(vfs.create(&path("f"), 0)), Some(ErrorKind::AlreadyExists));
    file.write_at(b"one", 0).unwrap();
    file.write_at(b"two", 0).unwrap();
    vfs.set_observer(None);
    file.sync().unwrap();

    let seen = seen.lock();
    let kept = |at: usize| {
        content(&after(&SimVfs::from_disk(seen[at].2.clone()), CrashMode::KeepAll, 0), "f")
    };
    assert_eq!([kept(0), kept(1), kept(2)], [None, Some(Vec::new()), Some(b"one".to_vec())]);
    assert_eq!(seen.iter().map(|(index, ..)| *index).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(seen[2].1, IoOp::Write { path: path("f"), offset: 0, len: 3 });
    assert_eq!(vfs.op_count(), 4);
}

#[test]
fn a_failed_operation_has_no_effect_and_kills_its_handle() {
    let vfs = SimVfs::new();
    let file = durable(&vfs, "f", b"old");
    vfs.fail_at(vfs.op_count(), ErrorKind::PermissionDenied);
    assert_eq!(kind(vfs.rename(&path("f"), &path("g"))), Some(ErrorKind::PermissionDenied));
    assert_eq!(vfs.files(), [path("f")]);
    vfs.fail_write_at(vfs.op_count(), ErrorKind::Interrupted, 2);
    assert_eq!(kind(file.write_at(b"NEW", 0)), Some(ErrorKind::Interrupted));
    assert_eq!(content(&vfs, "f"), Some(b"NEd".to_vec()));
    let error = file.sync().unwrap_err();
    assert_eq!(error.to_string(), "file is dead after an earlier error");
    vfs.open_write(&path("f")).unwrap().sync().unwrap();
}

#[test]
fn a_mapped_file_that_faults_lacks_a_page_and_has_what_lies_behind() {
    let vfs = SimVfs::new();
    let file = vfs.create_mapped(&path("f"), 4 * PAGE as u64, 0).unwrap();
    assert!(file.is_mapped());
    vfs.fail_write_at(vfs.op_count(), ErrorKind::Other, PAGE);
    assert_eq!(kind(file.write_at(&[1; 2 * PAGE + 10], 20)), Some(ErrorKind::Other));
    let bytes = content(&vfs, "f").unwrap();
    let (stored, rest) = bytes[20..].split_at(PAGE);
    let (lost, behind) = rest.split_at(PAGE - 20);
    assert!(stored.iter().all(|byte| *byte == 1));
    assert!(lost.iter().all(|byte| *byte == 0));
    assert_eq!(behind[..30], [1; 30]);
    assert!(behind[30..].iter().all(|byte| *byte == 0));
    assert!(file.sync().is_err());
}

#[test]
fn after_a_failed_sync_a_successful_one_proves_nothing() {
    let vfs = SimVfs::new();
    let file = durable(&vfs, "f", b"old");
    file.write_at(b"new", 0).unwrap();
    vfs.fail_at(vfs.op_count(), ErrorKind::Other);
    assert_eq!(kind(file.sync()), Some(ErrorKind::Other));
    vfs.open_write(&path("f")).unwrap().sync().unwrap();
    assert_eq!(content(&vfs, "f"), Some(b"new".to_vec()));
    assert_eq!(content(&after(&vfs, CrashMode::DropAll, 0), "f"), Some(b"old".to_vec()));
}

#[test]
fn a_full_device_takes_what_fits_and_removal_makes_room() {
    let vfs = SimVfs::new();
    drop(durable(&vfs, "big", &[1; 1000]));
    let file = durable(&vfs, "f", &[2; 100]);
    vfs.set_free_space(Some(50));
    file.write_at(&[3; 100], 0).unwrap();
    assert_eq!(kind(vfs.create(&path("g"), 51)), Some(ErrorKind::StorageFull));
    assert_eq!(kind(file.write_at(&[4; 100], 90)), Some(ErrorKind::StorageFull));
    assert_eq!(vfs.file_len(&path("f")).unwrap(), 150);
    assert_eq!(vfs.space(Path::new(ROOT)).unwrap(), Space { free: 0, total: 1150 });

    let again = vfs.open_write(&path("f")).unwrap();
    assert_eq!(kind(again.set_len(151)), Some(ErrorKind::StorageFull));
    vfs.remove(&path("big")).unwrap();
    vfs.create(&path("g"), 1000).unwrap();
    vfs.set_free_space(None);
    vfs.create(&path("h"), 1 << 20).unwrap();
}

#[test]
fn a_corrupted_byte_is_wrong_before_and_after_a_crash() {
    let vfs = SimVfs::new();
    durable(&vfs, "f", &[0x0f; 600]);
    vfs.corrupt(&path("f"), 550, 0xff).unwrap();
    for vfs in [vfs.clone(), after(&vfs, CrashMode::DropAll, 0)] {
        let bytes = content(&vfs, "f").unwrap();
        assert_eq!((bytes[549], bytes[550], bytes[551]), (0x0f, 0xf0, 0x0f));
    }
    assert_eq!(kind(vfs.corrupt(&path("f"), 600, 1)), Some(ErrorKind::InvalidInput));
}

#[test]
fn files_without_name_and_handle_are_forgotten() {
    let vfs = SimVfs::new();
    let file = durable(&vfs, "f", b"x");
    let reader = vfs.open_read(&path("f")).unwrap();
    vfs.remove(&path("f")).unwrap();
    vfs.sync_dir(Path::new(ROOT)).unwrap();
    file.write_at(b"y", 0).unwrap();
    let mut buf = [0];
    reader.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"y");
    drop((file, reader));
    vfs.sync_dir(Path::new(ROOT)).unwrap();
    assert_eq!(vfs.disk().files.len(), 0);
}
