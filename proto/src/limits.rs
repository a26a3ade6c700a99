//! Every bound of the formats, with its unit and its reason. Nothing that arrives is read past these.

/// Bytes of one change line, newline included. A pupil's fullest record is about 4 KiB; sixteen times that.
pub const CHANGE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a change line when it is first written. Written again under another incarnation it names itself and
/// what it saw in full, up to 60 bytes for each of 256 fields, and must still fit.
pub const CHANGE_WRITTEN_BYTES_MAX: usize = 48 * 1024;

/// Changes in one batch. At 1,000 the cost of header, age and padding is under 2 bytes a change.
pub const BATCH_CHANGES_MAX: u64 = 1_000;

/// Bytes of change lines in one batch before compression: incompressible lines, padded by at most 12 %,
/// still fit [`BATCH_BYTES_MAX`].
pub const BATCH_RAW_BYTES_MAX: usize = 768 * 1024;

/// Bytes of one sealed batch, header included: one frame of the wire, the journal and the cloud's objects.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of one signed document (certificate, manifest, descriptor). A manifest names at most
/// [`MANIFEST_KEYS_MAX`] keys and [`MANIFEST_READERS_MAX`] readers of about 150 bytes each.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// Bytes of the evidence of a restore proof: [`VECTOR_LOGS_MAX`] heads of at most 145 bytes each, digests, words.
pub const PROOF_BYTES_MAX: usize = 144 * 1024;

/// Milliseconds after which a restore proof that succeeded says nothing any more: two days, so that one missed night
/// is no alarm yet.
pub const PROOF_AGE_MS_MAX: u64 = 48 * 60 * 60 * 1_000;

/// Characters of each free word of that evidence.
pub const PROOF_TEXT_CHARS_MAX: usize = 64;

/// Bytes of one wire frame after its length: the largest batch, or a hello with its documents.
pub const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Logs of one school that a vector may name: 3 tiers of 300 incarnations.
pub const VECTOR_LOGS_MAX: usize = 900;

/// Logs of which a replica remembers what the cloud has said; an honest one names no more than one vector has.
pub const SHOWN_MAX: usize = 2 * VECTOR_LOGS_MAX;

/// Keys that a manifest may name: 4 uses for 64 epochs.
pub const MANIFEST_KEYS_MAX: usize = 256;

/// Readers that a manifest may name besides the board's two keys.
pub const MANIFEST_READERS_MAX: usize = 300;

/// Devices that a manifest may name as revoked: as many as it may have readers.
pub const MANIFEST_REVOKED_MAX: usize = 300;

/// Heads that the revocations of a manifest may name together: accepted and dropped ones of all logs of a school. At
/// about 130 bytes each they fit into a document beside the largest lists of keys and readers.
pub const MANIFEST_REVOKED_HEADS_MAX: usize = VECTOR_LOGS_MAX;

/// Keys that a manifest may name as destroyed: those of a school year for 170 years, or of 85 rotations. At about 60
/// bytes each they fit beside the other lists.
pub const MANIFEST_DESTROYED_MAX: usize = 512;

/// Batches of revoked devices that a node keeps in quarantine for a school. A thief who floods it fills this and
/// nothing else; what is refused stays with whoever carries it.
pub const QUARANTINE_BATCHES_MAX: usize = 4_096;

/// Incarnations of one device that are learnt. A thief who begins as many as he can before anybody has noticed must leave
/// room for the school's others.
pub const DEVICE_INCARNATIONS_MAX: usize = 128;

/// Incarnations of a revoked device that are learnt. It can begin as many as it likes, and a school has room for few.
pub const REVOKED_INCARNATIONS_MAX: usize = 16;

/// Stanzas in the age header of a payload: one recipient and the reserved "grease" stanza of the age library.
pub const PAYLOAD_STANZAS_MAX: usize = 4;

/// Bytes of a bundle file: the documents of one replica and its wrapped keys.
pub const BUNDLE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Work factor (log2 of N) for the passphrase of a bundle. The passphrase is made by the program and has at
/// least 128 bits, so stretching adds nothing; 2^12 keeps a wrong one under two seconds on the slowest box.
pub const BUNDLE_WORK_FACTOR: u8 = 12;

/// The largest work factor that is accepted when a bundle is opened, so that a forged file cannot stall a box.
pub const BUNDLE_WORK_FACTOR_MAX: u8 = 16;

/// Sites that a receipt may name.
pub const RECEIPT_SITES_MAX: usize = 16;

/// How far ahead of trusted time a peer's stamp may push the local clock, in milliseconds.
pub const CLOCK_AHEAD_MS_MAX: u64 = 5 * 60 * 1_000;

/// Heads of one field that a client is shown and may name. All heads are kept; two replicas in dispute make two.
pub const FIELD_HEADS_MAX: usize = 64;

/// Characters of a collection or field name.
pub const NAME_CHARS_MAX: usize = 64;

/// Characters of a record id.
pub const RECORD_ID_CHARS_MAX: usize = 256;

/// Batches that an uplink sends before the first receipt comes back.
pub const BATCHES_IN_FLIGHT_MAX: usize = 16;

/// Fields of one change.
pub const CHANGE_FIELDS_MAX: usize = 256;

/// Logs whose ends a snapshot may name: those of one tier.
pub const SNAPSHOT_HEADS_MAX: usize = VECTOR_LOGS_MAX / 3;

/// Parts of a snapshot. Parts of 650 KiB of lines, 170 bytes a record: four million records in a tier, thirty years
/// of a school of 600; their names and the heads fit a document.
pub const SNAPSHOT_PARTS_MAX: usize = 1_024;

/// Bytes of lines under which no part of a snapshot ends but the last. Of a year's attendance, parts of 300 KiB are
/// 12.4 bytes a record and parts of 768 KiB 7.7, because each part names every pupil once in full. Smaller parts cost
/// less to send again when one record in them has changed.
pub const SNAPSHOT_PART_BYTES_MIN: usize = 608 * 1024;

/// Snapshots of one tier that a node remembers besides the whole ones: offered, and not all parts are here. After a
/// rotation all boxes of a school offer at once.
pub const SNAPSHOTS_OFFERED_MAX: usize = 16;

const _: () = assert!(SNAPSHOT_PARTS_MAX * 172 + SNAPSHOT_HEADS_MAX * 160 + 4096 < DOCUMENT_BYTES_MAX);
const _: () = assert!(BATCH_RAW_BYTES_MAX + BATCH_RAW_BYTES_MAX / 8 + 4096 < BATCH_BYTES_MAX);
const _: () = assert!(CHANGE_BYTES_MAX < BATCH_RAW_BYTES_MAX);
const _: () = assert!(CHANGE_WRITTEN_BYTES_MAX + 60 * (CHANGE_FIELDS_MAX + 1) < CHANGE_BYTES_MAX);
const _: () = assert!(VECTOR_LOGS_MAX * 145 + 4096 < PROOF_BYTES_MAX);
const _: () = assert!(PROOF_BYTES_MAX < DOCUMENT_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX + DOCUMENT_BYTES_MAX < FRAME_BYTES_MAX);
