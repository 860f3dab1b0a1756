//! Which of many things stay open, files and partitions of tables: those that were asked for again.
//!
//! They are closed in the order they were opened, but one that was asked for since gets a second chance (Corbató,
//! 1968), so who is asked for again and again stays open beside a scan of all the others. A reader that holds what is
//! closed keeps it until it is done.

use std::collections::VecDeque;

use memtide_base::Result;
use memtide_base::sync::atomic::{AtomicBool, Ordering};
use memtide_base::sync::{Arc, Glance, Mutex, SwapOption, Weak};

/// The place for something that may be open, in what is known of it.
#[derive(Debug)]
pub struct MayBeOpen<T> {
    open: SwapOption<T>,
    /// Whether it was asked for since it was opened, or since it was last spared when one had to be closed.
    used: AtomicBool,
    /// Held while it is opened, so that readers who need it at the same time open it once.
    opening: Mutex<()>,
}

impl<T> Default for MayBeOpen<T> {
    fn default() -> Self {
        Self {
            open: SwapOption::default(),
            used: AtomicBool::new(false),
            opening: Mutex::default(),
        }
    }
}

impl<T> MayBeOpen<T> {
    /// What is there, if it is open.
    #[inline]
    pub fn glance(&self) -> Option<Glance<T>> {
        let open = self.open.glance()?;
        // Written once, so that readers on all processors share the line.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Some(open)
    }

    /// As [`MayBeOpen::glance`], by someone who will not ask again.
    #[must_use]
    pub fn peek(&self) -> Option<Arc<T>> {
        self.open.load()
    }

    /// What is there, and whether it was opened for this.
    fn get(&self, open: impl FnOnce() -> Result<Arc<T>>) -> Result<(Arc<T>, bool)> {
        let _opening = self.opening.lock();
        if let Some(open) = self.open.load() {
            return Ok((open, false));
        }
        let opened = open()?;
        self.used.store(false, Ordering::Relaxed);
        self.open.store(Some(Arc::clone(&opened)));
        Ok((opened, true))
    }
}

/// What is known of something of which not all stay open.
pub trait Openable {
    /// What it is while it is open.
    type Open;

    /// Where it lies then.
    fn slot(&self) -> &MayBeOpen<Self::Open>;
}

/// What is open of one kind.
#[derive(Debug)]
pub struct Opened<M>(Mutex<Queue<M>>);

#[derive(Debug)]
struct Queue<M> {
    /// Those opened first in front. Some may be gone.
    oldest_first: VecDeque<Weak<M>>,
    /// Entries at which those that are gone are looked for.
    full_at: usize,
}

/// Those that are spared before one is closed although it is in use: a bound on the time under the lock.
const SPARED_MAX: usize = 256;
/// Entries of a queue that are not worth a look for those that are gone.
const FEW: usize = 64;

impl<M> Default for Opened<M> {
    fn default() -> Self {
        Self(Mutex::new(Queue { oldest_first: VecDeque::new(), full_at: FEW }))
    }
}

impl<M: Openable> Opened<M> {
    /// What `meta` is known of, by `open` if need be. Others are closed as long as `are_many` says so of how many are
    /// open; the one that was opened just now stays.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn get(
        &self,
        meta: &Arc<M>,
        open: impl FnOnce() -> Result<Arc<M::Open>>,
        are_many: impl Fn(usize) -> bool,
    ) -> Result<Arc<M::Open>> {
        let (open, was_opened) = meta.slot().get(open)?;
        if was_opened {
            self.close_surplus(are_many);
            self.0.lock().push(Arc::downgrade(meta));
        }
        Ok(open)
    }

    /// Closes some as long as `are_many` says so of how many are open.
    pub fn close_surplus(&self, are_many: impl Fn(usize) -> bool) {
        while let Some(surplus) = self.surplus(&are_many) {
            if let Some(surplus) = surplus.upgrade() {
                surplus.slot().open.store(None);
            }
        }
    }

    /// The one to close: the one opened longest ago of those that were not used, else of all.
    fn surplus(&self, are_many: impl Fn(usize) -> bool) -> Option<Weak<M>> {
        let is_used = |meta: &Weak<M>| {
            meta.upgrade().is_some_and(|meta| meta.slot().used.swap(false, Ordering::Relaxed))
        };
        let opened = &mut self.0.lock().oldest_first;
        if !are_many(opened.len()) {
            return None;
        }
        for _ in 0..opened.len().min(SPARED_MAX) {
            let oldest = opened.pop_front()?;
            if !is_used(&oldest) {
                return Some(oldest);
            }
            opened.push_back(oldest);
        }
        opened.pop_front()
    }
}

impl<M> Queue<M> {
    fn push(&mut self, opened: Weak<M>) {
        if self.oldest_first.len() >= self.full_at {
            self.oldest_first.retain(|meta| meta.strong_count() > 0);
            self.full_at = FEW.max(2 * self.oldest_first.len());
            self.oldest_first.shrink_to(self.full_at);
        }
        self.oldest_first.push_back(opened);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Page(MayBeOpen<u64>);

    impl Openable for Page {
        type Open = u64;

        fn slot(&self) -> &MayBeOpen<u64> {
            &self.0
        }
    }

    fn open(opened: &Opened<Page>, page: &Arc<Page>, most: usize) {
        let got = opened.get(page, || Ok(Arc::new(7)), |open| open >= most);
        assert_eq!(*got.expect("nothing fails here"), 7);
    }

    #[test]
    fn who_was_asked_for_again_stays() {
        let (opened, pages) = (Opened::default(), [(); 4].map(|()| Arc::new(Page::default())));
        for page in &pages {
            open(&opened, page, 3);
            let _again = pages[0].0.glance();
        }
        let stays = pages.each_ref().map(|page| page.0.open.load().is_some());
        assert_eq!(stays, [true, false, true, true]);
    }

    #[test]
    fn those_that_are_gone_take_no_room_for_ever() {
        let opened = Opened::default();
        for _ in 0..1000 {
            open(&opened, &Arc::new(Page::default()), usize::MAX);
        }
        assert!(opened.0.lock().oldest_first.len() <= FEW);
    }
}
