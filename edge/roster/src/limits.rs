//! Owns the bounds that hold for every file that somebody hands to us.
//!
//! Invariant: nothing that a reader of this crate allocates grows past these numbers, whatever a file
//! claims about itself. Leaves out: limits on what we write (we write only what was read or generated).

/// Bounds on a package or a CSV file that is being read.
///
/// The defaults fit a board of about 20 schools and refuse what can only be an accident or an attack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the zip file itself. A school of 2,000 pupils makes about 2 MB.
    pub package_bytes_max: u64,
    /// Uncompressed bytes of all entries that are read, together.
    pub total_bytes_max: u64,
    /// Uncompressed bytes of one entry, or of one plain CSV file.
    pub entry_bytes_max: u64,
    /// Entries in the zip, folders included. A full OneRoster package has 18 files.
    pub entries_max: usize,
    /// Uncompressed to compressed bytes. Rosters reach about 15, deflate can reach 1,032.
    pub ratio_max: u64,
    /// Bytes of one field. Names and lists are under 1 KiB.
    pub field_bytes_max: usize,
    /// Columns of one file. The widest of the profile (`users.csv`) has 30.
    pub columns_max: usize,
    /// Estimated memory of everything that is kept, in bytes: a row is charged a fixed cost and its fields,
    /// because 128 MiB of empty rows would otherwise become gigabytes.
    pub memory_bytes_max: u64,
    /// Findings that a report keeps; the rest are only counted.
    pub findings_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            package_bytes_max: 128 * MIB,
            total_bytes_max: 256 * MIB,
            entry_bytes_max: 128 * MIB,
            entries_max: 64,
            ratio_max: 200,
            field_bytes_max: 64 * 1024,
            columns_max: 128,
            memory_bytes_max: 256 * MIB,
            findings_max: 200,
        }
    }
}

/// Uncompressed bytes below which the ratio is not looked at: a short file of zeros is no bomb.
pub(crate) const RATIO_FREE_BYTES: u64 = 1024 * 1024;

/// Memory charged for one kept row beside its fields, in bytes (a `User` is about 700).
pub(crate) const ROW_COST_BYTES: u64 = 256;

/// Memory charged for one item of a list or one unknown column's value beside its text, in bytes.
pub(crate) const ITEM_COST_BYTES: u64 = 64;

/// Characters of an identifier. OneRoster's own are UUIDs of 36.
pub(crate) const ID_CHARS_MAX: usize = 128;
