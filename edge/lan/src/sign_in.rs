//! Signing in: password, and the code of an authenticator app where the account has one.
//!
//! **Invariants**
//! - Unknown logins, closed accounts, wrong passwords and wrong codes get one answer after the same hash.
//! - A code is accepted once: its step is on stable storage before the session is granted (P1), and one
//!   sign-in at a time goes from reading the last step to keeping the new one.
//! - An attempt costs the brake on guessing before it costs a hash. Codes have a brake of their own, which a
//!   sign-in by password alone does not release: else whoever knows the password could guess codes for ever.
//!
//! An account with an authenticator may sign in by password alone; class I and II are absent then.

use std::net::IpAddr;

use sonae_store::{Store, ViewError};
use sonae_trust::entropy::SystemEntropy;
use sonae_trust::lockout::{Decision, Event};
use sonae_trust::session::{SessionToken, Strength};
use sonae_trust::totp::{self, TotpSecret};
use zeroize::Zeroizing;

use crate::app::App;
use crate::error::ApiError;
use crate::people::{self, Account};

/// What a person typed.
pub struct Attempt {
    /// Their login.
    pub login: Zeroizing<String>,
    /// Their password.
    pub password: Zeroizing<String>,
    /// The code of their app; empty when they gave none.
    pub totp: Zeroizing<String>,
    /// Where it comes from.
    pub address: IpAddr,
}

/// Signs a person in.
///
/// # Durability
/// The step of an accepted code is on stable storage when this returns; the session is in memory only.
pub async fn sign_in(app: &App, attempt: Attempt) -> Result<SessionToken, ApiError> {
    let outcome = try_sign_in(app, &attempt).await;
    match &outcome {
        Ok((account, strength, _)) => {
            log::info!(role = account.role.as_str(), strength:debug; "signed in");
        }
        Err(error) => log::warn!(outcome = error.detail.code.as_str(); "a sign-in failed"),
    }
    outcome.map(|(_, _, token)| token)
}

async fn try_sign_in(app: &App, attempt: &Attempt) -> Result<(Account, Strength, SessionToken), ApiError> {
    // Nobody can be told from anybody yet, and nobody is to be locked out for trying.
    app.store().filling().check(people::TIER).map_err(ViewError::from)?;
    let place = app.gate.enter().ok_or_else(ApiError::busy)?;
    // What cannot be a login is tallied and hashed like one that does not exist.
    let login = people::normal_login(&attempt.login).unwrap_or_default();
    let has_code = !attempt.totp.trim().is_empty();
    let codes_of = codes_of(&login);
    brake(app, &login, attempt.address)?;
    if has_code {
        // Before the password is looked at: a wait must not tell that the password was right.
        brake(app, &codes_of, attempt.address)?;
    }
    let turn = place.turn().await.ok_or_else(ApiError::busy)?;
    let account = people::account(app.store(), &login)?;
    let is_match = check_password(app, attempt, account.as_ref()).await?;
    drop((turn, place));
    let account = account.filter(|_| is_match).ok_or_else(ApiError::bad_credentials)?;
    let now_ms = app.clock.now_ms();
    let strength = if has_code {
        spend_code(app, &login, &attempt.totp).await?;
        app.lockout().step(Event::Succeeded { login: &codes_of, address: attempt.address }, now_ms);
        Strength::SecondFactor
    } else {
        Strength::Password
    };
    app.lockout().step(Event::Succeeded { login: &login, address: attempt.address }, now_ms);
    let token = app.sessions().open(&login, strength, now_ms, &mut SystemEntropy).map_err(|error| {
        log::error!(error:err; "no session can be opened");
        ApiError::internal()
    })?;
    Ok((account, strength, token))
}

/// The name under which guesses at a login's codes are tallied. No login has a space.
fn codes_of(login: &str) -> String {
    format!("{login} codes")
}

fn brake(app: &App, login: &str, address: IpAddr) -> Result<(), ApiError> {
    match app.lockout().step(Event::Attempt { login, address }, app.clock.now_ms()) {
        Decision::Allow => Ok(()),
        Decision::Wait { retry_after_s } => Err(ApiError::locked(retry_after_s)),
    }
}

/// Hashes on a thread of its own. Passwords that are too long and stored hashes that are damaged are wrong.
async fn check_password(app: &App, attempt: &Attempt, account: Option<&Account>) -> Result<bool, ApiError> {
    let (hasher, password) = (app.hasher.clone(), attempt.password.clone());
    let stored = account.map(|account| account.password_hash.clone());
    let task = tokio::task::spawn_blocking(move || {
        hasher.verify(&password, stored.as_ref().map(|phc| phc.as_str()))
    });
    let verdict = task.await.map_err(|error| {
        log::error!(error:err; "a password check was cut off");
        ApiError::internal()
    })?;
    Ok(verdict.is_ok_and(|verdict| verdict.is_match()))
}

/// Checks a code and keeps its step.
async fn spend_code(app: &App, login: &str, code: &str) -> Result<(), ApiError> {
    let _one_at_a_time = app.codes.lock().await;
    let step = step_of(app.store(), login, code)?.ok_or_else(ApiError::bad_credentials)?;
    app.store().write(people::keep_step(login, step)).await?;
    Ok(())
}

fn step_of(store: &Store, login: &str, code: &str) -> Result<Option<u64>, ApiError> {
    // Read again: another sign-in may have spent this code since.
    let Some(account) = people::account(store, login)? else { return Ok(None) };
    let secret = account.totp_secret.and_then(|text| TotpSecret::from_base32(&text).ok());
    let now_s = store.clock().now_ms() / 1_000;
    Ok(secret.and_then(|secret| totp::verify(&secret, code, now_s, account.totp_last_step)))
}
