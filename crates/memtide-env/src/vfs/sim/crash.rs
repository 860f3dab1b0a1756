//! What a power cut leaves of a simulated disk.
//!
//! What is durable stays. Of the rest, the mode says what may stay and the seed what does:
//!
//! | | dirty pages of a file | its length | changes of a directory |
//! |---|---|---|---|
//! | [`CrashMode::Prefix`] | an ordered prefix, the next page torn perhaps | as of that prefix | an ordered prefix |
//! | [`CrashMode::Subset`] | each: old, new, torn, or a version in between | old, new or between | any subset |
//! | [`CrashMode::Hostile`] | as above, or zeros or any bytes in place of what was written | as above | any subset |
//!
//! No mode touches a durable byte in whose place the same or nothing was written since. The old version of a page that
//! never was durable is zeros. A file without a surviving name is gone.

use std::collections::BTreeMap;

use memtide_base::sync::Arc;

use super::disk::{Change, Dir, Disk, Names, Node, ROOT};
use super::file::{Dirty, Inode, PAGE, Page, Pages, start_of, zeros};
use crate::random::SplitMix64;

/// Which un-synced state may survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashMode {
    /// What was done first survives first, per file and per directory; the last page may be torn.
    Prefix,
    /// Anything may survive without anything else.
    Subset,
    /// As [`CrashMode::Subset`], and bytes that nobody wrote may be where something was being written.
    Hostile,
    /// Only what was synced survives.
    DropAll,
    /// Everything survives, as after the death of the process alone.
    KeepAll,
}

impl Disk {
    /// The disk after a power cut now: everything on it durable, nothing pending. The same disk, mode and
    /// seed give the same result.
    #[must_use]
    pub fn crash(&self, mode: CrashMode, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let mut names = self.surviving_names(mode, &mut random);
        let mut left = Self { files: BTreeMap::new(), dirs: BTreeMap::new(), next: self.next };
        let mut reached = vec![ROOT];
        while let Some(dir) = reached.pop() {
            let names = names.remove(&dir).unwrap_or_default();
            for node in names.values() {
                match *node {
                    Node::Dir(dir) => reached.push(dir),
                    Node::File(file) => {
                        let survive =
                            || Arc::new(surviving_file(self.file(file), mode, &mut random));
                        left.files.entry(file).or_insert_with(survive);
                    }
                }
            }
            let dir_left = Dir { live: names.clone(), durable: names, pending: Vec::new() };
            left.dirs.insert(dir, Arc::new(dir_left));
        }
        left
    }

    fn surviving_names(&self, mode: CrashMode, random: &mut SplitMix64) -> BTreeMap<u64, Names> {
        let mut kept: BTreeMap<u64, Vec<bool>> = BTreeMap::new();
        for (&number, dir) in &self.dirs {
            let count = dir.pending.len();
            let choice = match mode {
                CrashMode::DropAll => vec![false; count],
                CrashMode::KeepAll => vec![true; count],
                CrashMode::Subset | CrashMode::Hostile => {
                    (0..count).map(|_| random.below(2) == 1).collect()
                }
                CrashMode::Prefix => {
                    let keep = random.below(count as u64 + 1);
                    (0..count as u64).map(|at| at < keep).collect()
                }
            };
            kept.insert(number, choice);
        }
        while self.give_up_one(mode, &mut kept) {}
        let survive = |(number, dir): (&u64, &Arc<Dir>)| {
            let mut names = dir.durable.clone();
            let chosen = dir.pending.iter().zip(&kept[number]).filter(|(_, kept)| **kept);
            chosen.for_each(|(change, _)| change.apply(&mut names));
            (*number, names)
        };
        self.dirs.iter().map(survive).collect()
    }

    /// Takes back one kept change whose needed change is lost; false if there is none.
    fn give_up_one(&self, mode: CrashMode, kept: &mut BTreeMap<u64, Vec<bool>>) -> bool {
        for (number, dir) in &self.dirs {
            for (at, change) in dir.pending.iter().enumerate().filter(|(at, _)| kept[number][*at]) {
                let Some((target, needed)) = change.needs else {
                    continue;
                };
                let is_needed = |change: &Change| change.number == needed;
                // A needed change that is pending no more is durable.
                let position = self.dirs[&target].pending.iter().position(is_needed);
                if position.is_none_or(|position| kept[&target][position]) {
                    continue;
                }
                let choice = kept.get_mut(number).expect("every directory has made its choice");
                let upto = if mode == CrashMode::Prefix { choice.len() } else { at + 1 };
                choice[at..upto].fill(false);
                return true;
            }
        }
        false
    }
}

fn surviving_file(inode: &Inode, mode: CrashMode, random: &mut SplitMix64) -> Inode {
    match mode {
        CrashMode::DropAll => Inode::synced(inode.durable.clone(), inode.durable_len),
        CrashMode::KeepAll => Inode::synced(inode.live.clone(), inode.live_len),
        CrashMode::Prefix => prefix_of(inode, random),
        CrashMode::Subset => subset_of(inode, false, random),
        CrashMode::Hostile => subset_of(inode, true, random),
    }
}

fn prefix_of(inode: &Inode, random: &mut SplitMix64) -> Inode {
    let mut order: Vec<_> = dirty_pages(inode).collect();
    order.sort_unstable_by_key(|(_, dirty)| dirty.order);
    let mut pages = inode.durable.clone();
    let keep = usize::try_from(random.below(order.len() as u64 + 1)).unwrap_or(order.len());
    for (number, _) in &order[..keep] {
        put(&mut pages, **number, inode.live.get(number).cloned());
    }
    let Some(&(&next, dirty)) = order.get(keep) else {
        // With no page to order it by, a change of length alone survives or not.
        let lost = order.is_empty() && random.below(2) == 0;
        return Inode::synced(pages, if lost { inode.durable_len } else { inode.live_len });
    };
    let mut len = dirty.len_before;
    if random.below(2) == 1 {
        let (page, upto) = torn(inode, next, random);
        put(&mut pages, next, Some(page));
        len = len.max((start_of(next) + upto).min(inode.live_len));
    }
    Inode::synced(pages, len)
}

fn subset_of(inode: &Inode, hostile: bool, random: &mut SplitMix64) -> Inode {
    let mut pages = inode.durable.clone();
    for (&number, dirty) in dirty_pages(inode) {
        if hostile && random.below(3) == 0 {
            put(&mut pages, number, Some(overrun(inode, number, random)));
            continue;
        }
        let older = dirty.older.len() as u64;
        match random.below(if older > 0 { 4 } else { 3 }) {
            0 => {}
            1 => put(&mut pages, number, inode.live.get(&number).cloned()),
            2 => put(&mut pages, number, Some(torn(inode, number, random).0)),
            _ => {
                let at = usize::try_from(random.below(older)).unwrap_or(0);
                put(&mut pages, number, dirty.older.get(at).cloned());
            }
        }
    }
    let (low, high) =
        (inode.durable_len.min(inode.live_len), inode.durable_len.max(inode.live_len));
    let len = match random.below(3) {
        0 => inode.durable_len,
        1 => inode.live_len,
        _ => low + random.below(high - low + 1),
    };
    Inode::synced(pages, len)
}

/// The dirty pages inside the live file. What was cut off has no new version: it is back as it was if the
/// surviving length has room for it.
fn dirty_pages(inode: &Inode) -> impl Iterator<Item = (&u64, &Dirty)> {
    inode.dirty.iter().filter(|(number, _)| start_of(**number) < inode.live_len)
}

/// Page `number` as it was, as it is, and the first and last byte in which these differ.
fn versions(inode: &Inode, number: u64) -> (Page, Page, usize, usize) {
    let version = |pages: &Pages| pages.get(&number).cloned().unwrap_or_else(zeros);
    let (old, new) = (version(&inode.durable), version(&inode.live));
    let differs = |at: &usize| old[*at] != new[*at];
    let first = (0..PAGE).find(differs).unwrap_or(0);
    let last = (0..PAGE).rfind(differs).unwrap_or(0);
    (old, new, first, last)
}

/// Page `number` with zeros or any bytes where something else was written than was there.
fn overrun(inode: &Inode, number: u64, random: &mut SplitMix64) -> Page {
    let (mut page, new, first, last) = versions(inode, number);
    let is_zero = random.below(2) == 0;
    let bytes = Arc::make_mut(&mut page)[first..=last].iter_mut().zip(&new[first..=last]);
    for (byte, _) in bytes.filter(|(byte, new)| byte != new) {
        *byte = if is_zero { 0 } else { random.next_u64().to_le_bytes()[0] };
    }
    page
}

/// Page `number` with its first bytes new and the rest old, and how many are new: a tear is put where both
/// versions differ, else it would be none.
fn torn(inode: &Inode, number: u64, random: &mut SplitMix64) -> (Page, u64) {
    let (mut page, new, first, last) = versions(inode, number);
    let upto = first + usize::try_from(random.below((last - first) as u64)).unwrap_or(0) + 1;
    Arc::make_mut(&mut page)[..upto].copy_from_slice(&new[..upto]);
    (page, upto as u64)
}

/// Sets a page; none is a page of zeros.
fn put(pages: &mut Pages, number: u64, page: Option<Page>) {
    match page {
        Some(page) => pages.insert(number, page),
        None => pages.remove(&number),
    };
}
