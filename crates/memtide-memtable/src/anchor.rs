//! The prefix that most keys of a memtable share: heads begin behind it, so eight bytes tell keys apart.
//!
//! Keys of one keyspace often begin alike (`user:000...`), and heads of such keys are all equal; every comparison
//! then ends in a record. A memtable therefore learns what its own keys share, and the next one of its keyspace
//! takes heads from there on. A wrong anchor costs speed, never order: see `memtide_base::key::head_behind`.

use memtide_base::key;

const LEN_MAX: usize = 31;

/// A prefix of up to 31 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anchor {
    len: u8,
    bytes: [u8; LEN_MAX],
}

impl Anchor {
    /// The first bytes of `key`, as many as an anchor holds.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let (len, mut anchor) = (key.len().min(LEN_MAX), Self::default());
        anchor.bytes[..len].copy_from_slice(&key[..len]);
        anchor.shortened(len)
    }

    /// The head of `key` behind this anchor; see [`key::head_behind`].
    #[must_use]
    pub fn head_behind(&self, key: &[u8]) -> u64 {
        key::head_behind(self.bytes(), key)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// What is left of the anchor if `key` is to begin with it.
    pub(crate) fn shared_with(self, key: &[u8]) -> Self {
        self.shortened(key::shared_prefix_len(self.bytes(), key))
    }

    fn shortened(mut self, len: usize) -> Self {
        self.len = u8::try_from(len).expect("at most 31");
        self.bytes[len..].fill(0);
        self
    }
}

/// One key in so many is looked at.
const EVERY: u64 = 64;
/// So many must have been looked at before they say anything.
const SAMPLES_MIN: u32 = 8;

/// What the sampled keys of a memtable have in common.
#[derive(Debug, Default)]
pub(crate) struct Learner {
    samples: u32,
    shared: Anchor,
}

impl Learner {
    /// Whether the `index`th entry is one to look at.
    #[inline]
    pub(crate) fn wants(index: u64) -> bool {
        index.is_multiple_of(EVERY)
    }

    pub(crate) fn note(&mut self, key: &[u8]) {
        self.shared =
            if self.samples == 0 { Anchor::of(key) } else { self.shared.shared_with(key) };
        self.samples = self.samples.saturating_add(1);
    }

    /// The anchor to use from now on, if enough was seen.
    pub(crate) fn learned(&self) -> Option<Anchor> {
        (self.samples >= SAMPLES_MIN).then_some(self.shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_sampled_keys_share_is_learned() {
        let mut learner = Learner::default();
        for number in 0..SAMPLES_MIN {
            assert_eq!(learner.learned(), None);
            learner.note(format!("user:{:010}", number * 7).as_bytes());
        }
        assert_eq!(learner.learned(), Some(Anchor::of(b"user:00000000")));
        learner.note(b"uses");
        assert_eq!(learner.learned().map(|anchor| anchor.bytes().to_vec()), Some(b"use".to_vec()));
        learner.note(&[7; 100]);
        assert_eq!(learner.learned(), Some(Anchor::default()));
        assert_eq!(Anchor::of(&[7; 100]).bytes(), [7; 31]);
    }
}
