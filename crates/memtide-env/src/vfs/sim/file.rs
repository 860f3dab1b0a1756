//! One file of the simulated disk: what readers see, what a power cut leaves for certain, and the pages in
//! between.
//!
//! A page that no map holds is all zeros. Pages are shared between clones until one of them writes.
//!
//! Invariants
//! - `live` and `durable` differ only in pages that `dirty` names.
//! - No byte of `live` at or beyond `live_len` is other than zero, nor of `durable` beyond `durable_len`.

use std::collections::BTreeMap;

use memtide_base::sync::Arc;

/// Bytes of a page: the sector that a disk writes whole or tears.
pub(super) const PAGE: usize = 512;
const PAGE_U64: u64 = 512;
const _: () = assert!(PAGE == 512 && PAGE_U64 == 512);

/// How many older un-synced versions of a page are kept for a crash to bring back.
const OLDER_MAX: usize = 3;

pub(super) type Page = Arc<[u8; PAGE]>;
pub(super) type Pages = BTreeMap<u64, Page>;

/// A file, known to directories by its number.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) live: Pages,
    pub(super) durable: Pages,
    pub(super) live_len: u64,
    pub(super) durable_len: u64,
    pub(super) dirty: BTreeMap<u64, Dirty>,
    /// How many pages have been dirtied, ever.
    dirtied: u64,
}

/// What is known of a page that was written and not synced since.
#[derive(Clone, Debug)]
pub(super) struct Dirty {
    /// Orders the dirty pages by the first write since the last sync.
    pub(super) order: u64,
    /// Length of the file just before that write.
    pub(super) len_before: u64,
    /// Versions that later writes replaced, oldest first.
    pub(super) older: Vec<Page>,
    /// A failed sync has dropped the page: readers see it, but no sync writes it any more.
    pub(super) dropped: bool,
}

impl Inode {
    /// An empty file grown to `len` bytes of zeros, nothing of it durable.
    pub(super) fn with_len(len: u64) -> Self {
        Self { live_len: len, ..Self::default() }
    }

    /// A file that has been synced whole.
    pub(super) fn synced(mut pages: Pages, len: u64) -> Self {
        cut(&mut pages, len);
        Self {
            live: pages.clone(),
            durable: pages,
            live_len: len,
            durable_len: len,
            ..Self::default()
        }
    }

    /// Writes page by page, so that the length grows as each page does.
    pub(super) fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (number, start) = locate(offset);
            let (now, later) = bytes.split_at(bytes.len().min(PAGE - start));
            self.touch(number);
            let page = self.live.entry(number).or_insert_with(zeros);
            Arc::make_mut(page)[start..start + now.len()].copy_from_slice(now);
            offset += now.len() as u64;
            self.live_len = self.live_len.max(offset);
            bytes = later;
        }
    }

    /// Cuts the file, or grows it with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.live_len {
            let (first, _) = locate(len);
            let held = self.live.range(first..).chain(self.durable.range(first..));
            let mut numbers: Vec<u64> = held.map(|(&number, _)| number).collect();
            numbers.sort_unstable();
            numbers.dedup();
            for number in numbers {
                self.touch(number);
            }
            cut(&mut self.live, len);
        }
        self.live_len = len;
    }

    /// Makes everything durable but the pages that a failed sync has dropped.
    pub(super) fn sync(&mut self) {
        let (live, durable) = (&self.live, &mut self.durable);
        self.dirty.retain(|number, dirty| {
            if !dirty.dropped {
                match live.get(number) {
                    Some(page) => durable.insert(*number, Arc::clone(page)),
                    None => durable.remove(number),
                };
            }
            dirty.dropped
        });
        cut(&mut self.durable, self.live_len);
        self.durable_len = self.live_len;
    }

    /// Whether a power cut leaves all of it.
    pub(super) fn is_synced(&self) -> bool {
        self.dirty.is_empty() && self.durable_len == self.live_len
    }

    /// What a failed sync does: no later one writes the pages that are dirty now.
    pub(super) fn drop_dirty(&mut self) {
        self.dirty.values_mut().for_each(|dirty| dirty.dropped = true);
    }

    /// Fills `buf` from `offset`; false if the file ends before.
    pub(super) fn read(&self, mut offset: u64, mut buf: &mut [u8]) -> bool {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.live_len) {
            return false;
        }
        while !buf.is_empty() {
            let (number, start) = locate(offset);
            let count = buf.len().min(PAGE - start);
            let (now, later) = buf.split_at_mut(count);
            match self.live.get(&number) {
                Some(page) => now.copy_from_slice(&page[start..start + count]),
                None => now.fill(0),
            }
            offset += count as u64;
            buf = later;
        }
        true
    }

    /// Flips the bits `xor` of the byte at `offset`, on the disk and in what readers see.
    pub(super) fn corrupt(&mut self, offset: u64, xor: u8) {
        let (number, at) = locate(offset);
        let sides = [(&mut self.live, self.live_len), (&mut self.durable, self.durable_len)];
        for (pages, len) in sides {
            if offset < len {
                Arc::make_mut(pages.entry(number).or_insert_with(zeros))[at] ^= xor;
            }
        }
    }

    /// Notes that page `number` is about to change.
    fn touch(&mut self, number: u64) {
        if let Some(dirty) = self.dirty.get_mut(&number) {
            dirty.dropped = false;
            dirty.older.extend(self.live.get(&number).cloned());
            if dirty.older.len() > OLDER_MAX {
                dirty.older.remove(0);
            }
            return;
        }
        let (order, len_before) = (self.dirtied, self.live_len);
        self.dirtied += 1;
        self.dirty.insert(number, Dirty { order, len_before, older: Vec::new(), dropped: false });
    }
}

pub(super) fn zeros() -> Page {
    Arc::new([0; PAGE])
}

/// Where page `number` begins in its file.
pub(super) fn start_of(number: u64) -> u64 {
    number * PAGE_U64
}

/// Bytes from `offset` to the end of its page.
pub(super) fn left_of_page(offset: u64) -> usize {
    PAGE - locate(offset).1
}

/// The page of `offset`, and the place inside it.
fn locate(offset: u64) -> (u64, usize) {
    let at = usize::try_from(offset % PAGE_U64).expect("a remainder of the page size fits");
    (offset / PAGE_U64, at)
}

/// Removes all bytes from `len` on.
fn cut(pages: &mut Pages, len: u64) {
    let (number, at) = locate(len);
    let mut rest = pages.split_off(&number);
    if at > 0
        && let Some(mut page) = rest.remove(&number)
    {
        Arc::make_mut(&mut page)[at..].fill(0);
        pages.insert(number, page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(inode: &Inode) -> Vec<u8> {
        let mut bytes = vec![0xee; usize::try_from(inode.live_len).unwrap()];
        assert!(inode.read(0, &mut bytes));
        bytes
    }

    #[test]
    fn random_writes_and_cuts_read_as_in_a_plain_vector() {
        let mut random = crate::random::SplitMix64::new(5);
        let (mut inode, mut model) = (Inode::default(), Vec::new());
        for round in 0..400_u64 {
            let at = usize::try_from(random.below(3000)).unwrap();
            let len = usize::try_from(random.below(1400)).unwrap();
            match random.below(6) {
                0 => {
                    inode.set_len(at as u64);
                    model.resize(at, 0);
                }
                1 => inode.sync(),
                _ => {
                    let bytes = vec![round.to_le_bytes()[0] | 1; len];
                    inode.write(at as u64, &bytes);
                    if len > 0 && model.len() < at + len {
                        model.resize(at + len, 0);
                    }
                    model[at.min(at + len)..][..len].copy_from_slice(&bytes);
                }
            }
            assert_eq!(content(&inode), model, "round {round}");
        }
    }

    #[test]
    fn a_failed_sync_drops_its_pages_until_they_are_written_again() {
        let mut inode = Inode::default();
        inode.write(0, &[1; 2 * PAGE]);
        inode.drop_dirty();
        inode.write(0, &[2; 10]);
        inode.sync();
        assert_eq!(inode.durable.keys().collect::<Vec<_>>(), [&0]);
        assert_eq!(content(&inode)[PAGE..], [1; PAGE], "readers still see the dropped page");
    }
}
