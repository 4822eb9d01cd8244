//! The one way that work is spread over threads.

/// Runs tasks on threads. The engine's own pool implements it, and a host may supply another.
pub trait Parallel: Send + Sync {
    /// How many workers can run tasks at once, the caller included; at least 1.
    fn width(&self) -> usize;
    /// Calls `task(worker, index)` once for each index below `n`, and returns when all calls have returned.
    /// `worker` is below `width()` and no two calls at one time have the same worker. A panic in a task reaches the caller.
    fn run(&self, n: usize, task: &(dyn Fn(usize, usize) + Sync));
}

/// Runs everything on the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Parallel for Serial {
    fn width(&self) -> usize {
        1
    }
    fn run(&self, n: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        for i in 0..n {
            task(0, i);
        }
    }
}
