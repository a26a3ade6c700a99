//! What every request shares: the store, the sessions, the brake on guessing, the clocks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sonae_store::status::StatusSource;
use sonae_store::{Store, ViewError};
use sonae_trust::entropy::SystemEntropy;
use sonae_trust::lockout::{Lockout, LockoutLimits};
use sonae_trust::password::{Cost, PasswordError, PasswordHasher};
use sonae_trust::session::{SessionLimits, SessionStore};

use crate::clock::Monotonic;
use crate::error::ApiError;
use crate::gate::Gate;

/// Shared by all requests; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// What is shared.
pub struct Inner {
    pub status: StatusSource,
    pub hasher: PasswordHasher,
    pub gate: Gate,
    pub clock: Monotonic,
    /// Held from reading the last accepted step of a code to keeping the new one, so that two sign-ins at
    /// once cannot use one code.
    pub codes: tokio::sync::Mutex<()>,
    sessions: Mutex<SessionStore>,
    lockout: Mutex<Lockout>,
}

impl std::ops::Deref for App {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    /// Makes the shared state; hashes once.
    pub fn new(status: StatusSource, cost: Cost, clock: Monotonic) -> Result<Self, PasswordError> {
        Ok(Self(Arc::new(Inner {
            status,
            hasher: PasswordHasher::new(cost, &mut SystemEntropy)?,
            gate: Gate::default(),
            clock,
            codes: tokio::sync::Mutex::new(()),
            sessions: Mutex::new(SessionStore::new(SessionLimits::STANDARD)),
            lockout: Mutex::new(Lockout::new(LockoutLimits::STANDARD)),
        })))
    }

    pub fn store(&self) -> &Store {
        &self.status.store
    }

    pub fn sessions(&self) -> MutexGuard<'_, SessionStore> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn lockout(&self) -> MutexGuard<'_, Lockout> {
        self.lockout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what may take more than a moment away from the threads that serve.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, ViewError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let store = self.store().clone();
        let task = tokio::task::spawn_blocking(move || read(&store));
        let outcome = task.await.map_err(|error| {
            log::error!(error:err; "a read was cut off");
            ApiError::internal()
        })?;
        Ok(outcome?)
    }
}
