//! Accounts of staff: records of `staff_account` in tier 0, so that after a rebuild people sign in with what
//! they had.
//!
//! Fields: `name`, `role`, `password_hash` (PHC), `totp_secret` (base32; absent if there is none),
//! `totp_last_step` (number), `disabled` (true). **Invariant**: secrets leave this module only into
//! [`sonae_trust`] and, once, as the address that an authenticator app reads.

use std::collections::BTreeMap;

use serde_json::Value;
use sonae_proto::ids::Tier;
use sonae_proto::record::RecordState;
use sonae_store::{Action, Edit, Kept, Store, ViewError, WriteError};
use sonae_trust::entropy::SystemEntropy;
use sonae_trust::password::{PasswordError, PasswordHasher};
use sonae_trust::role::Role;
use sonae_trust::totp::{TotpError, TotpSecret};
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

/// The collection of accounts.
pub(crate) const COLLECTION: &str = "staff_account";

/// Its tier, for ever.
pub(crate) const TIER: Tier = Tier::Safety;

/// Longest login, characters: it is a record id and part of every change line.
pub const LOGIN_CHARS_MAX: usize = 64;

/// Longest name, characters.
pub const NAME_CHARS_MAX: usize = 100;

/// A person who is to have an account.
pub struct NewStaff {
    /// What they type: 1 to 64 of `a-z 0-9 . _ -`.
    pub login: String,
    /// What others read.
    pub name: String,
    /// What they are.
    pub role: Role,
    /// Their first password.
    pub password: Zeroizing<String>,
    /// Whether they get a secret for an authenticator app.
    pub totp: bool,
}

/// An account that was made.
pub struct AddedStaff {
    /// Where it is kept.
    pub kept: Kept,
    /// What the authenticator app reads. The only copy outside the store.
    pub otpauth_uri: Option<Zeroizing<String>>,
}

/// Why an account was not made.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// Not a login.
    #[error("the login is not one: use 1 to {LOGIN_CHARS_MAX} of a-z, 0-9, '.', '_' and '-'")]
    Login,
    /// Not a name.
    #[error("the name is empty or too long: use 1 to {NAME_CHARS_MAX} characters on one line")]
    Name,
    /// The login is taken.
    #[error("there is an account with this login already: choose another login")]
    Exists,
    /// The password cannot be used.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// No secret for the authenticator app could be drawn.
    #[error(transparent)]
    Totp(#[from] TotpError),
    /// The accounts cannot be read.
    #[error("the accounts of this box cannot be read; restart it and tell the board")]
    Read(#[from] ViewError),
    /// Nothing was kept.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Makes an account. For callers without a runtime; `who` is the login of the person who does it.
///
/// # Errors
/// [`PeopleError`]; nothing is kept then.
///
/// # Durability
/// The account is on this replica's stable storage when this returns.
pub fn add_staff(
    store: &Store,
    hasher: &PasswordHasher,
    school_code: &str,
    new: NewStaff,
    who: Option<String>,
) -> Result<AddedStaff, PeopleError> {
    if !is_login(&new.login) {
        return Err(PeopleError::Login);
    }
    let chars = new.name.chars().count();
    if !(1..=NAME_CHARS_MAX).contains(&chars) || new.name.chars().any(char::is_control) {
        return Err(PeopleError::Name);
    }
    store.filling().check(TIER).map_err(WriteError::from)?;
    if store.record(TIER, COLLECTION, &new.login)?.is_some() {
        return Err(PeopleError::Exists);
    }
    let secret = if new.totp { Some(TotpSecret::generate(&mut SystemEntropy)?) } else { None };
    let mut fields = BTreeMap::from([
        ("name".to_owned(), Value::from(new.name)),
        ("role".to_owned(), Value::from(new.role.as_str())),
        ("password_hash".to_owned(), Value::from(hasher.hash(&new.password, &mut SystemEntropy)?)),
    ]);
    if let Some(secret) = &secret {
        fields.insert("totp_secret".to_owned(), Value::from(secret.to_base32().as_str()));
    }
    let kept = store.write_blocking(Action {
        who,
        source: None,
        edits: vec![Edit {
            collection: COLLECTION.to_owned(),
            record: new.login.clone(),
            fields,
            // Nothing was seen: an account that appears meanwhile stands beside this one and shows.
            seen: Some(BTreeMap::new()),
        }],
    })?;
    Ok(AddedStaff { kept, otpauth_uri: secret.map(|secret| secret.uri(school_code, &new.login)) })
}

fn is_login(text: &str) -> bool {
    (1..=LOGIN_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

/// Brings a typed login into its stored form (full-width letters, capitals, spaces around); `None` when it
/// cannot be one.
pub(crate) fn normal_login(typed: &str) -> Option<String> {
    // A full-width letter has 3 bytes.
    if typed.len() > 4 * LOGIN_CHARS_MAX {
        return None;
    }
    let login: String = typed.trim().nfkc().flat_map(char::to_lowercase).collect();
    is_login(&login).then_some(login)
}

/// An account as sign-in reads it.
pub(crate) struct Account {
    pub name: String,
    pub role: Role,
    pub password_hash: Zeroizing<String>,
    pub totp_secret: Option<Zeroizing<String>>,
    pub totp_last_step: Option<u64>,
}

/// Reads an account; `None` when there is none that may be used.
pub(crate) fn account(store: &Store, login: &str) -> Result<Option<Account>, ViewError> {
    Ok(store.record(TIER, COLLECTION, login)?.as_ref().and_then(account_of))
}

/// Of replicas that did not see each other, the one that closed an account wins, and so does the later step.
fn account_of(record: &RecordState) -> Option<Account> {
    let heads = |field: &str| record.fields.get(field).map_or(&[][..], |field| field.heads.as_slice());
    let is_open = |value: &Value| matches!(value, Value::Null | Value::Bool(false)) || value == "false";
    if !heads("disabled").iter().all(|head| is_open(&head.value)) {
        return None;
    }
    let secret = |field| record.text(field).map(|text| Zeroizing::new(text.to_owned()));
    Some(Account {
        name: record.text("name").unwrap_or_default().to_owned(),
        role: record.text("role")?.parse().ok()?,
        password_hash: secret("password_hash")?,
        totp_secret: secret("totp_secret"),
        totp_last_step: heads("totp_last_step").iter().filter_map(|head| head.value.as_u64()).max(),
    })
}

/// The write that keeps the step of an accepted code.
pub(crate) fn keep_step(login: &str, step: u64) -> Action {
    Action {
        who: Some(login.to_owned()),
        source: None,
        edits: vec![Edit {
            collection: COLLECTION.to_owned(),
            record: login.to_owned(),
            fields: BTreeMap::from([("totp_last_step".to_owned(), Value::from(step))]),
            seen: None,
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: logins are one form, however typed. Method: typed forms and odd ones.
    #[test]
    fn logins() {
        for typed in ["tanaka", " Tanaka ", "ｔａｎａｋａ"] {
            assert_eq!(normal_login(typed).as_deref(), Some("tanaka"), "{typed}");
        }
        for odd in ["", " ", "田中", "a b", "a/b", "a\0", &"a".repeat(65), &"a".repeat(999)] {
            assert_eq!(normal_login(odd), None, "{odd}");
        }
        assert!(!is_login("Tanaka"), "capitals are never stored");
    }
}
