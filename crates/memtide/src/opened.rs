//! Which files stay open: those that were asked for again.
//!
//! Files are closed in the order they were opened, but one that was asked for since gets a second chance (Corbató,
//! 1968), so who is asked for again and again stays open beside a scan of all the others. A reader that holds a closed
//! file keeps it until it is done.

use std::collections::VecDeque;

use memtide_base::Result;
use memtide_base::sync::atomic::{AtomicBool, Ordering};
use memtide_base::sync::{Arc, Glance, Mutex, SwapOption, Weak};

/// The place for a file that may be open, in what is known of it.
#[derive(Debug)]
pub(crate) struct MayBeOpen<F> {
    open: SwapOption<F>,
    /// Whether it was asked for since it was opened, or since it was last spared when one had to be closed.
    used: AtomicBool,
    /// Held while it is opened, so that readers who need it at the same time open it once.
    opening: Mutex<()>,
}

impl<F> Default for MayBeOpen<F> {
    fn default() -> Self {
        Self {
            open: SwapOption::default(),
            used: AtomicBool::new(false),
            opening: Mutex::default(),
        }
    }
}

impl<F> MayBeOpen<F> {
    /// The file, if it is open.
    #[inline]
    pub(crate) fn glance(&self) -> Option<Glance<F>> {
        let open = self.open.glance()?;
        // Written once, so that readers on all processors share the line.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Some(open)
    }

    /// The file, and whether it was opened for this.
    fn get(&self, open: impl FnOnce() -> Result<Arc<F>>) -> Result<(Arc<F>, bool)> {
        let _opening = self.opening.lock();
        if let Some(open) = self.open.load() {
            return Ok((open, false));
        }
        let file = open()?;
        self.used.store(false, Ordering::Relaxed);
        self.open.store(Some(Arc::clone(&file)));
        Ok((file, true))
    }
}

/// What is known of a file of which some stay open.
pub(crate) trait Openable {
    type File;
    fn file(&self) -> &MayBeOpen<Self::File>;
}

/// The open files of one kind, those opened first in front.
#[derive(Debug)]
pub(crate) struct Opened<M>(Mutex<VecDeque<Weak<M>>>);

impl<M> Default for Opened<M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M: Openable> Opened<M> {
    /// The file of `meta`, by `open` if need be. Others are closed as long as `are_many` says so of how many are open;
    /// the one that was opened just now stays.
    pub(crate) fn get(
        &self,
        meta: &Arc<M>,
        open: impl FnOnce() -> Result<Arc<M::File>>,
        are_many: impl Fn(usize) -> bool,
    ) -> Result<Arc<M::File>> {
        let (file, was_opened) = meta.file().get(open)?;
        if was_opened {
            while let Some(surplus) = self.surplus(&are_many) {
                if let Some(surplus) = surplus.upgrade() {
                    surplus.file().open.store(None);
                }
            }
            self.0.lock().push_back(Arc::downgrade(meta));
        }
        Ok(file)
    }

    /// The one to close: the one opened longest ago of those that were not used, else of all.
    fn surplus(&self, are_many: impl Fn(usize) -> bool) -> Option<Weak<M>> {
        let is_used = |meta: &Weak<M>| {
            meta.upgrade().is_some_and(|meta| meta.file().used.swap(false, Ordering::Relaxed))
        };
        let mut opened = self.0.lock();
        if !are_many(opened.len()) {
            return None;
        }
        for _ in 0..opened.len() {
            let oldest = opened.pop_front()?;
            if !is_used(&oldest) {
                return Some(oldest);
            }
            opened.push_back(oldest);
        }
        opened.pop_front()
    }
}
