//! Bounds of what an engine remembers of what others say.

use super::peers::Peers;
use crate::ids::{Hash32, Incarnation, LogName, Tier};
use crate::limits::SHOWN_MAX;
use crate::revocation::Revocations;
use crate::vector::{Heads, LogHead};

/// Goal: a cloud that names ever new logs takes no more and more memory,
/// nor more and more alarms. Method: twice as many logs as are remembered, each with two histories.
#[test]
fn what_the_cloud_says_is_remembered_within_bounds() {
    let mut peers = Peers::new(Heads::new(), Vec::new(), Revocations::default());
    let log = |number: usize| {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&number.to_be_bytes());
        LogName { tier: Tier::Safety, incarnation: Incarnation::from_bytes(name) }
    };
    let mut told = 0;
    for number in 0..2 * SHOWN_MAX {
        for branch in [1, 2] {
            let head = LogHead { sequence: 9, hash: Hash32([branch; 32]) };
            told += usize::from(peers.want(log(number), head));
        }
    }
    assert_eq!(told, SHOWN_MAX);
    assert_eq!(peers.shown(), SHOWN_MAX);
}
