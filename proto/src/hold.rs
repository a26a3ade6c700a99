//! Hold: the board's word that nobody writes at a box until it has been looked at. A box that was given up for lost and
//! is dug out later still sends what only it has, and takes what it lacks; its screens are months old, and people who
//! write on them would not know. It stands in the [manifest](crate::manifest), of which the highest version counts, so
//! it is taken back by a later one. Spec: `docs/spec/keys.md#hold`.

use serde::{Deserialize, Serialize};

use crate::ids::ReplicaId;

/// A device at which people may read and not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The device, whatever incarnation it has.
    pub replica: ReplicaId,
    /// When the board said so, milliseconds since 1970 UTC. For people; nothing is decided by it.
    pub held_ms: u64,
}
