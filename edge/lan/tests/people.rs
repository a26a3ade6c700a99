//! Accounts as the command line makes them, without a runtime.

use sonae_lan::people::{NewStaff, PeopleError, add_staff};
use sonae_proto::ids::Tier;
use sonae_store::testing;
use sonae_trust::entropy::SystemEntropy;
use sonae_trust::password::{Cost, PasswordHasher};
use sonae_trust::role::Role;

fn staff(login: &str, password: &str, totp: bool) -> NewStaff {
    let (name, password) = ("田中 実".to_owned(), password.to_owned().into());
    NewStaff { login: login.to_owned(), name, role: Role::Teacher, password, totp }
}

/// Goal: an account is kept in tier 0 with what sign-in needs; a taken login, an odd one, a short password and an
/// odd name keep nothing. Method: make one, try each.
#[test]
fn accounts() {
    let dir = tempfile::tempdir().unwrap();
    let (opened, _) = testing::open_replica(&dir.path().join("box"));
    let store = &opened.store;
    let hasher = PasswordHasher::new(Cost::TEST, &mut SystemEntropy).unwrap();
    let add = |new| add_staff(store, &hasher, "B113200000011", new, Some("cli".to_owned()));

    let added = add(staff("tanaka", "long enough", true)).unwrap();
    assert_eq!(added.kept.changes, 1);
    assert!(added.kept.sequences.keys().all(|log| log.tier == Tier::Safety));
    let uri = added.otpauth_uri.unwrap();
    assert!(uri.starts_with("otpauth://totp/Sonae:B113200000011%3Atanaka?secret="));
    let record = store.record(Tier::Safety, "staff_account", "tanaka").unwrap().unwrap();
    assert!(record.text("password_hash").unwrap().starts_with("$argon2id$"));
    assert!(uri.contains(record.text("totp_secret").unwrap()));
    assert!(record.value("totp_last_step").is_none());
    assert!(add(staff("suzuki", "long enough", false)).unwrap().otpauth_uri.is_none());

    let before = store.state().vector;
    assert!(matches!(add(staff("tanaka", "long enough", false)), Err(PeopleError::Exists)));
    for odd in ["", "Tanaka", "田中", "a b", "a/b", &"a".repeat(65)] {
        assert!(matches!(add(staff(odd, "long enough", false)), Err(PeopleError::Login)), "{odd}");
    }
    assert!(matches!(add(staff("sato", "short", false)), Err(PeopleError::Password(_))));
    let nameless = NewStaff { name: "a\nb".to_owned(), ..staff("sato", "long enough", false) };
    assert!(matches!(add(nameless), Err(PeopleError::Name)));
    assert_eq!(store.state().vector, before);
    opened.close();
}
