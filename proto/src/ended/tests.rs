//! What has ended, and what a hash of it tells apart.

use super::*;
use crate::identity::{Beginning, DeviceCertificate, IncarnationCertificate, ReplicaKind};
use crate::manifest::Manifest;
use crate::revocation::Revocation;
use crate::signed::Signed;
use ed25519_dalek::SigningKey;

/// An incarnation of a device, both named by numbers.
fn identity(device: u8, life: u8, began_ms: u64) -> Identity {
    let school = "B113200000011".parse().unwrap();
    let (root, key) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[device; 32]));
    let certificate = DeviceCertificate {
        school,
        key: key.verifying_key(),
        recipient: "age1".into(),
        kind: ReplicaKind::Appliance,
        enrolled_ms: 1,
    };
    let device = Signed::sign(certificate, &root).unwrap();
    let certificate = IncarnationCertificate {
        school,
        replica: device.body().replica(),
        key: SigningKey::from_bytes(&[life; 32]).verifying_key(),
        beginning: Beginning::Restored,
        began_ms,
    };
    Identity { device, incarnation: Signed::sign(certificate, &key).unwrap() }
}

fn log(identity: &Identity, tier: Tier) -> LogName {
    LogName { tier, incarnation: identity.name() }
}

fn head(sequence: u64, byte: u8) -> LogHead {
    LogHead { sequence, hash: Hash32([byte; 32]) }
}

fn of(identities: &[Identity], heads: &Heads) -> Ended {
    Ended::of(identities, heads, &Revocations::default())
}

fn names(identities: &[&Identity]) -> BTreeSet<Incarnation> {
    identities.iter().map(|identity| identity.name()).collect()
}

/// Goal: of each device all lives but the newest have ended, whatever the order in which they came to be known; a log
/// whose writer is not known has not. Method: three lives of a device, one of another, a stranger's head.
#[test]
fn all_but_the_newest_have_ended() {
    let (first, second, third) = (identity(10, 1, 5), identity(10, 2, 7), identity(10, 3, 9));
    let other = identity(20, 4, 1);
    let stranger = identity(30, 5, 1);
    let heads: Heads =
        [&first, &second, &third, &other, &stranger].map(|life| (log(life, Tier::Daily), head(3, 3))).into();
    let there = of(&[third.clone(), other.clone(), first.clone(), second.clone()], &heads);
    assert_eq!(there.incarnations(), names(&[&first, &second]));
    let expected: Heads = [&first, &second].map(|life| (log(life, Tier::Daily), head(3, 3))).into();
    assert_eq!(there.heads(), expected);
    assert_eq!(there.hashes().into_keys().collect::<Vec<_>>(), [first.replica()]);
    assert_eq!(there, of(&[first.clone(), second, third.clone(), other.clone()], &heads));
    assert_eq!(of(&[third, other], &heads), Ended::default(), "nobody has heard of the earlier ones");
}

/// Goal: both sides choose the same life where clocks say the same. Method: equal times, in both orders; then a present
/// life whose clock went back to 1970 passes for the one that ended.
#[test]
fn equal_and_wrong_clocks_choose_one() {
    let (one, other) = (identity(10, 1, 5), identity(10, 2, 5));
    let lesser = if one.name() < other.name() { &one } else { &other };
    for known in [[one.clone(), other.clone()], [other.clone(), one.clone()]] {
        assert_eq!(of(&known, &Heads::new()).incarnations(), names(&[lesser]));
    }
    let reset = identity(10, 3, 0);
    assert_eq!(of(&[one.clone(), reset.clone()], &Heads::new()).incarnations(), names(&[&reset]));
}

/// Goal: of a revoked device nothing is said, since two sides may know of different accepted heads. Method: the same
/// lives with and without the board's word.
#[test]
fn a_revoked_device_is_left_to_the_full_vector() {
    let known = [identity(10, 1, 5), identity(10, 2, 7), identity(20, 3, 5), identity(20, 4, 7)];
    let replica = known[0].replica();
    let revoked = Revocation { replica, revoked_ms: 1, accepted: Heads::new(), dropped: Heads::new() };
    let manifest = Manifest {
        school: "B113200000011".parse().unwrap(),
        version: 2,
        keys: vec![],
        readers: vec![],
        revoked: vec![revoked],
        held: vec![],
        destroyed: vec![],
    };
    let mut revocations = Revocations::default();
    revocations.learn(&manifest);
    let said = Ended::of(&known, &Heads::new(), &revocations);
    assert_eq!(said.hashes().into_keys().collect::<Vec<_>>(), [known[2].replica()]);
    assert_eq!(of(&known, &Heads::new()).hashes().len(), 2);
}

/// Goal: equal hashes mean the same heads of the same lives. Method: change one thing at a time; all hashes differ, and
/// so does what is kept of them.
#[test]
fn everything_is_in_the_hash() {
    let (first, second, third) = (identity(10, 1, 5), identity(10, 2, 7), identity(10, 3, 9));
    let two = [first.clone(), third.clone()];
    let daily = |head| Heads::from([(log(&first, Tier::Daily), head)]);
    let model = of(&two, &daily(head(3, 3)));
    let more = Heads::from([(log(&first, Tier::Daily), head(3, 3)), (log(&first, Tier::Safety), head(1, 1))]);
    let others = [
        ("nothing", of(&two, &Heads::new())),
        ("another sequence", of(&two, &daily(head(4, 3)))),
        ("another hash", of(&two, &daily(head(3, 4)))),
        ("another tier", of(&two, &Heads::from([(log(&first, Tier::Archive), head(3, 3))]))),
        ("one log more", of(&two, &more)),
        ("a life without logs", of(&[first.clone(), second.clone(), third.clone()], &daily(head(3, 3)))),
        ("another life", of(&[second, third.clone()], &daily(head(3, 3)))),
    ];
    let mut seen = BTreeSet::from([model.hashes()]);
    for (what, other) in &others {
        assert!(seen.insert(other.hashes()), "{what}");
        assert_eq!(other.clone().equal_to(&model.hashes()), Ended::default(), "{what}");
        assert_eq!(model.proven_by(&other.proofs("nonce"), "nonce"), Ended::default(), "{what}");
    }
    assert_eq!(model.clone().equal_to(&model.hashes()), model);
    let unborn = daily(head(3, 3)).into_iter().chain([(log(&third, Tier::Daily), head(9, 9))]).collect();
    assert_eq!(of(&two, &unborn), model, "what the present life writes is not in it");
}

/// Goal: only who holds the heads can show it, and only for this greeting. Method: the hashes themselves as proofs, those
/// of another nonce, the right ones; one device of two.
#[test]
fn a_proof_is_for_one_greeting() {
    let known = [identity(10, 1, 5), identity(10, 2, 7), identity(20, 3, 5), identity(20, 4, 7)];
    let here = of(&known, &Heads::from([(log(&known[0], Tier::Safety), head(3, 3))]));
    assert_eq!(here.proven_by(&here.hashes(), "one"), Ended::default());
    assert_eq!(here.proven_by(&here.proofs("other"), "one"), Ended::default());
    let mut proofs = here.proofs("one");
    assert_eq!(here.proven_by(&proofs, "one"), here);
    proofs.remove(&known[2].replica());
    assert_eq!(here.proven_by(&proofs, "one").incarnations(), names(&[&known[0]]));
}
