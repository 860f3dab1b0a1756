//! Which file of a database a file is.

/// What the manifest says of a table or blob file, and what the file must say of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// The database that wrote it.
    pub db_uuid: [u8; 16],
    /// Its file number in that database.
    pub number: u64,
    /// The keyspace whose entries it holds.
    pub keyspace: u32,
}
