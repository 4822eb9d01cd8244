//! A flag that stops a run from another thread.

use crate::{bail, error::Result};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

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
