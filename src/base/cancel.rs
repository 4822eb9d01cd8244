//! What stops a run: a flag that another thread raises, a moment that passes.

use crate::{bail, error::Result};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Instant;

/// Stops the runs that hold a clone of it at their next step. Clones share one flag.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }
    /// Asks every run that watches this token to stop. May be called from any thread, any number of times.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// Whether `cancel` was called since the last `reset`.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
    /// Makes the token usable again.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
    /// A `Cancelled` error if the token is cancelled.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            bail!(Cancelled, "the run was cancelled");
        }
        Ok(())
    }
}

/// What stops one run. Cheap to ask where there is nothing to watch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stop<'a> {
    cancel: Option<&'a CancelToken>,
    deadline: Option<Instant>,
}

impl<'a> Stop<'a> {
    /// Stops when the token is cancelled or the moment is past.
    pub fn new(cancel: Option<&'a CancelToken>, deadline: Option<Instant>) -> Self {
        Stop { cancel, deadline }
    }
    /// Whether there is anything that could stop the run.
    pub fn is_armed(&self) -> bool {
        self.cancel.is_some() || self.deadline.is_some()
    }
    /// A `Cancelled` error if it is time to stop.
    pub fn check(&self) -> Result<()> {
        if let Some(c) = self.cancel {
            c.check()?;
        }
        if self.deadline.is_some_and(|d| Instant::now() >= d) {
            bail!(Cancelled, "the run's time was over before it was done");
        }
        Ok(())
    }
}
