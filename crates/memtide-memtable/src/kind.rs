//! The eight memtable types and their names, letter for letter as users write them.

use std::fmt;
use std::str::FromStr;

/// Which of the eight memtables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemtableType {
    /// Blocked sorted array: least pointers, fastest scans.
    Sorted,
    /// Skip list in an arena: even costs for everything.
    Skiplist,
    /// Adaptive radix tree: long keys that share prefixes.
    Trie,
    /// Unrolled list, newest first: least memory, small tables.
    LinkedList,
    /// Hash buckets of lists: point reads and overwrites.
    HashLinkedList,
    /// Skip list of fat nodes: the balanced choice.
    EnhancedSkiplist,
    /// Hash table for gets beside a skip list for order.
    HashSkiplist,
    /// Appended array with sorted runs: bulk load.
    Vector,
}

impl MemtableType {
    /// All eight, in the order they are listed to users.
    pub const ALL: [Self; 8] = [
        Self::Sorted,
        Self::Skiplist,
        Self::Trie,
        Self::LinkedList,
        Self::HashLinkedList,
        Self::EnhancedSkiplist,
        Self::HashSkiplist,
        Self::Vector,
    ];

    /// The name in configurations, commands and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sorted => "sorted",
            Self::Skiplist => "skiplist",
            Self::Trie => "trie",
            Self::LinkedList => "linked_list",
            Self::HashLinkedList => "hash_linked_list",
            Self::EnhancedSkiplist => "enhanced_skiplist",
            Self::HashSkiplist => "hash_skiplist",
            Self::Vector => "vector",
        }
    }
}

impl fmt::Display for MemtableType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for MemtableType {
    type Err = UnknownMemtable;

    fn from_str(name: &str) -> Result<Self, UnknownMemtable> {
        let named = |kind: &Self| kind.name() == name;
        let unknown = || UnknownMemtable::new(name, Vec::new());
        Self::ALL.into_iter().find(named).ok_or_else(unknown)
    }
}

/// A name that is none of the eight, and not registered either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMemtable {
    name: String,
    registered: Vec<String>,
}

impl UnknownMemtable {
    pub(crate) fn new(name: &str, registered: Vec<String>) -> Self {
        Self { name: name.to_owned(), registered }
    }

    /// The name as it was asked for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for UnknownMemtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = MemtableType::ALL.map(MemtableType::name).to_vec();
        names.extend(self.registered.iter().map(String::as_str));
        write!(f, "unknown memtable type {:?}", self.name)?;
        if let Some(nearest) = memtide_base::suggest::nearest(&self.name, names.iter().copied()) {
            write!(f, "; did you mean {nearest:?}?")?;
        }
        write!(f, " (known: {})", names.join(", "))
    }
}

impl std::error::Error for UnknownMemtable {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_eight_names_are_accepted() {
        for kind in MemtableType::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        for wrong in ["skiplists", "Sorted", "", "auto", "sorted ", "btree"] {
            assert!(wrong.parse::<MemtableType>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_misspelt_name_is_answered_with_the_nearest() {
        let error = "skiplists".parse::<MemtableType>().expect_err("not a name");
        assert!(error.to_string().contains("did you mean \"skiplist\"?"), "{error}");
    }
}
