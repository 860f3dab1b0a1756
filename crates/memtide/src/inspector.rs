//! A database looked at from outside: nothing is opened for writing, nothing in it changes.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use memtide_base::{Result, Slice};
use memtide_env::Env;
use memtide_memtable::Registry;

use crate::config::Config;
use crate::db::Db;
use crate::integrity::{
    self, Depth, DoctorReport, DumpItem, DumpKind, Keep, RescueReport, VerifyReport,
};
use crate::iter::Iter;
use crate::recovery::OpenMode;

/// A key that two databases have different values for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference<'a> {
    /// The keyspace.
    pub keyspace: &'a str,
    /// The key.
    pub key: &'a [u8],
    /// Its value in the one; `None` if it has none.
    pub left: Option<&'a [u8]>,
    /// Its value in the other.
    pub right: Option<&'a [u8]>,
}

/// Looks at the closed database in a directory; made by [`Db::inspect`].
#[derive(Clone, Debug)]
pub struct Inspector {
    dir: PathBuf,
    env: Env,
}

impl Db {
    /// Looks at the database in a directory without opening it.
    ///
    /// ```
    /// # use memtide::{Db, Depth};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("data");
    /// Db::open(&path)?.put("tide", "high")?;
    /// assert!(Db::inspect(&path).verify(Depth::Full)?.damages.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn inspect(dir: impl AsRef<Path>) -> Inspector {
        Inspector { dir: dir.as_ref().to_path_buf(), env: Env::real() }
    }
}

impl Inspector {
    /// Replaces the machine's files, clock, threads and randomness: for tests on a simulated disk.
    #[cfg(any(test, feature = "simulation"))]
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// Reports all damage, not only the first.
    ///
    /// # Errors
    /// `Locked` if the database is open, `Unsupported` if there is none or a newer version wrote it. Damage is in the
    /// report.
    pub fn verify(&self, depth: Depth) -> Result<VerifyReport> {
        integrity::verify(&self.env, &self.dir, depth)
    }

    /// What a person wants to know first: its state, what it holds, what is damaged or left over, what to do next.
    ///
    /// # Errors
    /// As [`Inspector::verify`].
    pub fn doctor(&self) -> Result<DoctorReport> {
        integrity::doctor(&self.env, &self.dir)
    }

    /// Tells what is in a file, or in every file of that kind if this is the directory of a database; how many damaged
    /// places there are. They are told too, and passed over. Takes no lock: what is being written may be told in part.
    ///
    /// # Errors
    /// A file cannot be opened or read; `Unsupported` if a newer version wrote it; the first error of `tell`.
    pub fn dump(
        &self,
        kind: DumpKind,
        tell: &mut dyn FnMut(&Path, DumpItem<'_>) -> Result<()>,
    ) -> Result<u64> {
        let vfs = &*self.env.vfs;
        let mut damages = 0;
        for path in integrity::files_of(vfs, &self.dir, kind)? {
            damages += integrity::dump(vfs, &path, kind, &mut |item| tell(&path, item))?;
        }
        Ok(damages)
    }

    /// Copies the whole files that are sound to `to`, with a manifest made anew if it is lost, and the log up to its
    /// first damage. Nothing in the database itself changes; `to` must be empty or not there, and is a database once
    /// this returns. With `link`, files that need no change get a second name instead of a copy.
    ///
    /// Of a damaged table nothing is kept: that is [`Inspector::salvage_to`].
    ///
    /// # Errors
    /// `Locked` if the database is open; `Unsupported` if there is none or a newer version wrote it; `InvalidArgument`
    /// for a `to` that is not empty; whatever reading and writing fails with.
    pub fn repair_to(&self, to: impl AsRef<Path>, link: bool) -> Result<RescueReport> {
        integrity::rescue(&self.env, &self.dir, to.as_ref(), Keep::Whole, link)
    }

    /// As [`Inspector::repair_to`], and of damaged files every block and record whose checksum holds. What the report
    /// does not list as lost is what was written.
    ///
    /// # Errors
    /// As [`Inspector::repair_to`].
    pub fn salvage_to(&self, to: impl AsRef<Path>) -> Result<RescueReport> {
        integrity::rescue(&self.env, &self.dir, to.as_ref(), Keep::Blocks, false)
    }

    /// Tells every key that this database and `other` have different values for, keyspace by keyspace, in key order;
    /// how many there are. Both are opened read-only; what each log holds is in memory meanwhile.
    ///
    /// ```
    /// # use memtide::Db;
    /// # let dir = tempfile::tempdir()?;
    /// # let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
    /// Db::open(&a)?.put("tide", "high")?;
    /// Db::open(&b)?.put("tide", "low")?;
    /// let differ = Db::inspect(&a).diff(&Db::inspect(&b), &mut |found| {
    ///     assert_eq!((found.key, found.left), (&b"tide"[..], Some(&b"high"[..])));
    ///     Ok(())
    /// })?;
    /// assert_eq!(differ, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As opening and reading either; the first error of `tell`.
    pub fn diff(
        &self,
        other: &Self,
        tell: &mut dyn FnMut(Difference<'_>) -> Result<()>,
    ) -> Result<u64> {
        let (left, right) = (self.open()?, other.open()?);
        let names = left.keyspaces().into_iter().chain(right.keyspaces());
        let names: BTreeSet<String> = names.map(|keyspace| keyspace.name().to_owned()).collect();
        let mut count = 0;
        for name in &names {
            let rows = |db: &Db| db.get_keyspace(name).map(|keyspace| keyspace.iter());
            let (mut left, mut right) = (rows(&left), rows(&right));
            let next = |rows: &mut Option<Iter>| rows.as_mut().and_then(Iterator::next).transpose();
            let (mut a, mut b) = (next(&mut left)?, next(&mut right)?);
            loop {
                let order = match (&a, &b) {
                    (None, None) => break,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some((a, _)), Some((b, _))) => a.cmp(b),
                };
                let of_a = a.as_ref().filter(|_| order.is_le());
                let of_b = b.as_ref().filter(|_| order.is_ge());
                let key: &[u8] = of_a.or(of_b).map(|(key, _)| key.as_ref()).unwrap_or_default();
                let value = |row: Option<&'_ (Slice, Slice)>| row.map(|(_, value)| value.clone());
                let (of_a, of_b) = (value(of_a), value(of_b));
                let (of_a, of_b) = (of_a.as_deref(), of_b.as_deref());
                if of_a != of_b {
                    count += 1;
                    tell(Difference { keyspace: name, key, left: of_a, right: of_b })?;
                }
                if order.is_le() {
                    a = next(&mut left)?;
                }
                if order.is_ge() {
                    b = next(&mut right)?;
                }
            }
        }
        Ok(count)
    }

    fn open(&self) -> Result<Db> {
        let config = Config { data_dir: Some(self.dir.clone()), ..Config::default() };
        Db::open_in(&self.env, &self.dir, &config, &Registry::new(), OpenMode::ReadOnly)
    }
}
