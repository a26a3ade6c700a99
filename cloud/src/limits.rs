//! Every bound of a node, with its unit and its reason.

use std::time::Duration;

/// How long the first record of a group waits for company. Under the round trip of most lines, and at 50
/// groups a second the device still flushes for every one of them.
pub const GROUP_WAIT: Duration = Duration::from_millis(20);

/// The same when receipts are signed before the write on purpose (`Defect::ReceiptBeforeStore`): long enough
/// for a kill to fall between the two.
pub const GROUP_WAIT_CUT: Duration = Duration::from_millis(250);

/// Bytes at which a group is closed. Reading back needs few, large objects; one of 4 MiB is written in well
/// under a second on a slow disk.
pub const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of records of a merged object. A year of a school is some ten of these; four of each site are read at a time.
pub const MERGE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of an object that are read back: a merged one and what it says first. A full group is smaller.
pub const MERGED_BYTES_MAX: u64 = MERGE_BYTES_MAX + 4 * 1024 * 1024;

/// How long a site may take for a whole object, of the largest: 340 KB/s.
pub const MERGED_TIMEOUT: Duration = Duration::from_secs(60);

/// How often it is looked whether writes to a site have ended, where that is waited for.
pub const WRITES_LOOK: Duration = Duration::from_millis(20);

/// Objects of about one size that are merged into one. More, and more small ones lie about; fewer, and each byte is
/// copied more often: with 64 at most three times in a log of 16,384 objects.
pub const MERGE_INPUTS: usize = 64;

/// How often a node looks whether there is something to merge or delete.
pub const COMPACTION_INTERVAL: Duration = Duration::from_hours(1);

/// Days for which a node has to run, after a merged object was read back at every site, before what it was made of is
/// deleted. Nothing that anybody asks for lowers it: it is the time for somebody to notice that something is wrong.
pub const SUPERSEDED_DAYS_MIN: u64 = 7;

/// How often the sites are listed again at a start because an object went away under the reader.
pub const LISTINGS_MAX: usize = 3;

/// How long one site may take for one object before the group goes on without it.
pub const PUT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one site may take for one read before the next site is asked.
pub const GET_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after the second object in a row that did not reach the quorum. Doubles with each.
pub const PAUSE_MIN: Duration = Duration::from_millis(250);

/// Longest pause after such an object.
pub const PAUSE_MAX: Duration = Duration::from_secs(15);

/// How long to wait between attempts to bring old batches back to the quorum.
pub const REPAIR_WAIT: Duration = Duration::from_secs(30);

/// Handshakes at a time. Measured: with 2,000 clients at once, 64 gave no time-out, no bound gave 325.
pub const HANDSHAKES_MAX: usize = 64;

/// Handshakes from which on a client must first show that it owns its address.
pub const HANDSHAKES_UNPROVEN_MAX: usize = 32;

/// Handshakes over TCP at a time. They have places of their own, since anybody can hold one for
/// [`HANDSHAKE_TIMEOUT`] without a certificate, and those of QUIC must not suffer for it.
pub const HANDSHAKES_TCP_MAX: usize = 256;

/// How long the door rests when the system has no more sockets.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections at a time, at 38 KiB each when they are idle.
pub const CONNECTIONS_MAX: usize = 4096;

/// How long a handshake may take: several round trips of a satellite link with losses.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be silent before its hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one frame may take to arrive: 2 MiB at 256 kbit/s, with losses, and half as much again.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(100);

/// How long a stream waits for its answer: more than a write to a hanging site.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a closing connection may take to have its last frames acknowledged.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Streams that a client may have open over QUIC; over TCP [`sonae_line::limits::STREAMS_MAX`]. More cost memory: 436 KiB a connection at 10,000.
pub const STREAMS_MAX: u32 = 100;

/// How long a silent connection lives. Clients keep theirs alive every 25 seconds.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Bytes of unread data of one connection: above the product of 50 Mbit/s and 600 ms.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Bytes of the kernel's receive buffer. With less, a burst of handshakes drops datagrams by the thousand.
pub const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of frames that all connections together may hold while they are answered.
pub const FRAMES_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Frames that wait on the control stream of a client that does not read; then it is disconnected.
pub const CONTROL_FRAMES_MAX: usize = 1024;

/// Inputs that wait for the engine.
pub const INPUTS_MAX: usize = 1024;

/// How often the status file is written at most.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of a status file that is read back.
pub const STATUS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Bytes of the first line of standard input: a passphrase.
pub const PASSPHRASE_BYTES_MAX: u64 = 1024;

/// Sites of one node, as many as a receipt may name.
pub const SITES_MAX: usize = sonae_proto::limits::RECEIPT_SITES_MAX;

const _: () = assert!(GROUP_BYTES_MAX + sonae_proto::limits::FRAME_BYTES_MAX < 8 * 1024 * 1024);
const _: () = assert!(
    MERGE_BYTES_MAX > 2 * 8 * 1024 * 1024 - 1 && sonae_proto::limits::FRAME_BYTES_MAX < 4 * 1024 * 1024
);

/// Bytes that are sent before anything is known of the line: 20 datagrams, what a satellite link of 256 kbit/s and 700 ms
/// has under way. With quinn's 12 a box that is rebuilt waits a quarter of a second longer for tier 0.
pub const FIRST_FLIGHT_BYTES: u64 = 24 * 1024;

/// Finest step, in bytes, in which a connection looks for longer datagrams than 1,200 bytes: one probe of 1,326 and no more.
/// Each is as long as a datagram of data, and on a narrow line quinn's four would stand before tier 0.
pub const MTU_STEP: u16 = 127;
