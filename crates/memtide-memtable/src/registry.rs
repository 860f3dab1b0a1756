//! Memtables by name: the eight, and those that a program brings along.
//!
//! A name is what is stored with a keyspace, so it means the same for ever: the eight are reserved, `auto` is
//! kept for a later choice, and a registered name cannot be taken twice.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use memtide_base::sync::Arc;

use crate::custom::MemtableFactory;
use crate::kind::{MemtableType, UnknownMemtable};

/// Bytes of the longest name.
const NAME_LEN_MAX: usize = 64;
/// Names that are no memtable yet and never will be anybody's own.
const RESERVED: [&str; 1] = ["auto"];

/// Which memtable a keyspace has.
///
/// As text it is the name alone. A name that is none of the eight is one that the program registers, see
/// [`Registry`]; whether it did shows when the database is opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemtableChoice {
    /// One of the eight.
    Fixed(MemtableType),
    /// One that is registered under this name.
    Named(String),
}

impl MemtableChoice {
    /// The memtable of this name; one of the eight if it is theirs.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        let name = name.into();
        name.parse().map_or(Self::Named(name), Self::Fixed)
    }

    /// The name in configurations, commands, reports and on disk.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Fixed(kind) => kind.name(),
            Self::Named(name) => name,
        }
    }

    /// Whether text has the form of a memtable's name: a lower-case letter, then up to 63 lower-case letters,
    /// digits and underscores.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        text.len() <= NAME_LEN_MAX
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(plain)
    }
}

impl From<MemtableType> for MemtableChoice {
    fn from(kind: MemtableType) -> Self {
        Self::Fixed(kind)
    }
}

impl PartialEq<MemtableType> for MemtableChoice {
    fn eq(&self, kind: &MemtableType) -> bool {
        *self == Self::Fixed(*kind)
    }
}

impl fmt::Display for MemtableChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for MemtableChoice {
    type Err = UnknownMemtable;

    fn from_str(name: &str) -> Result<Self, UnknownMemtable> {
        if Self::is_name(name) && !RESERVED.contains(&name) {
            Ok(Self::named(name))
        } else {
            Err(UnknownMemtable::new(name, Vec::new()))
        }
    }
}

/// What a memtable is made with: [`MemtableChoice`] after its name was looked up.
#[derive(Clone)]
pub enum MemtableKind {
    /// One of the eight.
    BuiltIn(MemtableType),
    /// One that a program brought along.
    Custom(Arc<dyn MemtableFactory>),
}

impl MemtableKind {
    /// A memtable of this factory's, registered or not.
    #[must_use]
    pub fn custom(factory: impl MemtableFactory) -> Self {
        Self::Custom(Arc::new(factory))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::BuiltIn(kind) => kind.name(),
            Self::Custom(factory) => factory.name(),
        }
    }
}

impl From<MemtableType> for MemtableKind {
    fn from(kind: MemtableType) -> Self {
        Self::BuiltIn(kind)
    }
}

impl fmt::Display for MemtableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for MemtableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The memtables that a program brings along, by name.
#[derive(Clone, Default)]
pub struct Registry {
    factories: BTreeMap<String, Arc<dyn MemtableFactory>>,
}

impl Registry {
    /// A registry without any.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a memtable under its factory's name.
    ///
    /// # Errors
    /// The name is another's, reserved, or not of the form that [`MemtableChoice::is_name`] tells; nothing
    /// changed.
    pub fn register(&mut self, factory: impl MemtableFactory) -> Result<(), NameTaken> {
        let name = factory.name().to_owned();
        let taken = |why| Err(NameTaken { name: name.clone(), why });
        if name.parse::<MemtableType>().is_ok() {
            return taken("one of the eight has it");
        }
        if RESERVED.contains(&name.as_str()) {
            return taken("it is reserved");
        }
        if !MemtableChoice::is_name(&name) {
            return taken(
                "names are a-z, 0-9 and _, begin with a letter and have at most 64 bytes",
            );
        }
        if self.factories.contains_key(&name) {
            return taken("it was registered before");
        }
        self.factories.insert(name, Arc::new(factory));
        Ok(())
    }

    /// The registered names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }

    /// What memtables of this choice are made with.
    ///
    /// # Errors
    /// Nothing is registered under the name.
    pub fn kind_of(&self, choice: &MemtableChoice) -> Result<MemtableKind, UnknownMemtable> {
        let name = match choice {
            MemtableChoice::Fixed(kind) => return Ok(MemtableKind::BuiltIn(*kind)),
            MemtableChoice::Named(name) => name,
        };
        match (self.factories.get(name), name.parse()) {
            (Some(factory), _) => Ok(MemtableKind::Custom(Arc::clone(factory))),
            (None, Ok(kind)) => Ok(MemtableKind::BuiltIn(kind)),
            (None, Err(_)) => {
                Err(UnknownMemtable::new(name, self.factories.keys().cloned().collect()))
            }
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.factories.keys()).finish()
    }
}

/// A memtable's name that cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTaken {
    name: String,
    why: &'static str,
}

impl fmt::Display for NameTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the memtable name {:?} cannot be registered: {}", self.name, self.why)
    }
}

impl std::error::Error for NameTaken {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custom::{CustomIndex, IndexHints};

    struct Under(&'static str);

    impl MemtableFactory for Under {
        fn name(&self) -> &str {
            self.0
        }

        fn create(&self, _hints: &IndexHints) -> Box<dyn CustomIndex> {
            unreachable!("only its name is asked for")
        }
    }

    #[test]
    fn a_name_is_registered_once_and_never_one_of_ours() {
        let mut registry = Registry::new();
        assert_eq!(registry.register(Under("counters_2")), Ok(()));
        for name in ["counters_2", "trie", "hash_skiplist", "auto", "", "Trie", "2nd", "a-b", "é"]
        {
            let refused = registry.register(Under(name)).expect_err(name);
            assert!(refused.to_string().contains(&format!("{name:?}")), "{refused}");
        }
        assert!(registry.register(Under("").named_by(65)).is_err());
        assert_eq!(registry.names().collect::<Vec<_>>(), ["counters_2"]);
    }

    impl Under {
        fn named_by(self, len: usize) -> Self {
            Self(String::leak("n".repeat(len)))
        }
    }

    #[test]
    fn a_choice_is_its_name_and_an_unknown_one_is_answered_with_all_names() {
        let mut registry = Registry::new();
        registry.register(Under("counters")).expect("a free name");
        for name in ["trie", "counters"] {
            let choice: MemtableChoice = name.parse().expect("a name");
            assert_eq!((choice.to_string(), choice.name()), (name.to_owned(), name));
            assert_eq!(registry.kind_of(&choice).expect("known").name(), name);
        }
        assert_eq!(MemtableChoice::named("trie"), MemtableType::Trie);
        let spelt_out = MemtableChoice::Named("trie".to_owned());
        assert!(matches!(registry.kind_of(&spelt_out), Ok(MemtableKind::BuiltIn(_))));
        for name in ["auto", "", "A", "a b"] {
            assert!(name.parse::<MemtableChoice>().is_err(), "{name:?}");
        }
        let unknown =
            registry.kind_of(&MemtableChoice::named("counter")).expect_err("no such name");
        let text = unknown.to_string();
        assert!(
            text.contains("did you mean \"counters\"?") && text.contains("vector, counters"),
            "{text}"
        );
    }
}
