//! The budget of password hashes: how many run at once and how many may wait.
//!
//! **Invariant**: at most [`RUNNING_MAX`] hashes use memory at the same time, and at most [`WAITING_MAX`]
//! more wait; whoever comes after is told at once.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Hashes at once: each takes 19 MiB and one core of two.
pub const RUNNING_MAX: usize = 2;

/// Sign-ins that wait: a staff room in the morning. At about 100 ms each the last waits under two seconds.
pub const WAITING_MAX: usize = 32;

/// Admits sign-ins.
#[derive(Debug)]
pub struct Gate {
    inside: Semaphore,
    running: Semaphore,
}

/// A place in the queue. Dropping it leaves the queue.
#[derive(Debug)]
pub struct Place<'a> {
    _inside: SemaphorePermit<'a>,
    running: &'a Semaphore,
}

impl Default for Gate {
    fn default() -> Self {
        Self { inside: Semaphore::new(RUNNING_MAX + WAITING_MAX), running: Semaphore::new(RUNNING_MAX) }
    }
}

impl Gate {
    /// Takes a place in the queue, if there is one.
    pub fn enter(&self) -> Option<Place<'_>> {
        let inside = self.inside.try_acquire().ok()?;
        Some(Place { _inside: inside, running: &self.running })
    }
}

impl<'a> Place<'a> {
    /// Waits for one's turn.
    pub async fn turn(&self) -> Option<SemaphorePermit<'a>> {
        self.running.acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the queue is bounded and drains. Method: fill it, be refused, leave, enter.
    #[tokio::test]
    async fn bounded() {
        let gate = Gate::default();
        let mut places: Vec<_> = (0..RUNNING_MAX + WAITING_MAX).map(|_| gate.enter().unwrap()).collect();
        assert!(gate.enter().is_none());
        let running: Vec<_> = [places[0].turn().await.unwrap(), places[1].turn().await.unwrap()].into();
        assert_eq!(gate.running.available_permits(), 0);
        drop(running);
        places.pop();
        assert!(gate.enter().is_some());
    }
}
