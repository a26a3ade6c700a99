//! A revoked device whose log has two branches: the one that the board accepts stands, whichever came first.

use sonae_proto::ids::Tier;
use sonae_proto::vector::LogHead;
use sonae_proto::wire::Frame;

use crate::board::Life;
use crate::desk::Desk;

fn heads_of(desk: &Desk, life: &Life) -> Option<LogHead> {
    desk.intake.overview()[0].heads.get(&life.log(Tier::Safety)).copied()
}

/// Goal: the board may change its mind about which branch of a log counts, also to one that parts earlier. Method: it
/// accepts the thief's branch; the true one comes by courier and waits; then it accepts that.
#[test]
fn the_board_may_accept_the_other_branch() {
    let (mut desk, thief) = Desk::ready();
    let chain = desk.board.chain(&thief, Tier::Safety, 3);
    let head = |number: usize| chain[number].header().head();
    let fork = desk.board.seal(&thief, Tier::Safety, head(0), &[b"{\"t\":[0,1]}".to_vec()]);
    for batch in [&chain[0], &fork] {
        desk.offer(1, batch);
        desk.store_all(2);
    }
    desk.bring(&desk.board.revoking(0, &[thief.revoked(&[fork.header().head()])])).unwrap();
    desk.store_all(2);
    assert_eq!(heads_of(&desk, &thief), Some(fork.header().head()));
    assert!(matches!(desk.greet_carried(5, &thief), Frame::Welcome(_)));
    for batch in &chain[1..] {
        desk.offer(5, batch);
        desk.store_all(2);
    }
    assert_eq!(desk.quarantined.len(), 2);
    desk.bring(&desk.board.revoking(1, &[thief.revoked(&[head(2)])])).unwrap();
    assert_eq!(heads_of(&desk, &thief), Some(head(2)));
    assert_eq!(desk.fetch(5, thief.log(Tier::Safety)), [head(0), head(1), head(2)]);
}
