//! Every bound of the line over TCP, with its unit and its reason.

use std::time::Duration;

/// Streams of one connection over TCP, both directions together. A replica has 16 batches, a fetch, a probe and
/// its control stream open; the rest is for those of which the other side does not know yet that they ended.
pub const STREAMS_MAX: usize = 48;

/// Bytes of unread data of one connection: 256 KiB for each stream, which yamux grants by itself, and 4 MiB by
/// which the windows of busy streams may grow, above the product of 50 Mbit/s and 600 ms.
pub const WINDOW_BYTES_MAX: usize = STREAMS_MAX * 256 * 1024 + 4 * 1024 * 1024;

/// How long sent bytes may stay unacknowledged before the kernel gives a connection up: the time after which a
/// silent line is dialled anew.
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// Bytes that the kernel takes before it sends them: half a second at 256 kbit/s. With more, the last of a backlog
/// would lie in the kernel for so long that a slow line would look dead.
pub const UNSENT_BYTES_MAX: u32 = 16 * 1024;

/// How long a connection is idle before the kernel asks whether the other side is there: often enough for
/// common routers, which forget a TCP mapping after some minutes.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How often the kernel asks again.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// How many questions stay unanswered: with the above, a silent connection lives for 120 s, as over QUIC.
pub const KEEP_ALIVE_COUNT: u32 = 4;

/// How long a closing connection may take to send what is queued, and again to hear that it has arrived.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
