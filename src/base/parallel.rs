//! The one way that work is spread over threads.

use crate::err;
use crate::error::Result;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use std::sync::{Mutex, PoisonError};

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

/// A host that has a rayon pool already lends it, instead of having twice the threads. A fork costs more than with the
/// engine's own pool.
impl Parallel for rayon::ThreadPool {
    fn width(&self) -> usize {
        self.current_num_threads()
    }
    fn run(&self, n: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let each = |i| task(rayon::current_thread_index().unwrap_or(0), i);
        self.install(|| (0..n).into_par_iter().with_max_len(1).for_each(each));
    }
}

/// What `f` makes of each index below `n`, in their order, computed on the threads.
pub fn map<T: Send>(threads: &dyn Parallel, n: usize, f: impl Fn(usize) -> T + Sync) -> Result<Vec<T>> {
    let made: Vec<Mutex<Option<T>>> = (0..n).map(|_| Mutex::new(None)).collect();
    threads.run(n, &|_, i| *made[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(f(i)));
    let made = made.into_iter().map(|m| m.into_inner().unwrap_or_else(PoisonError::into_inner));
    made.map(|m| m.ok_or_else(|| err!(Internal, "the threads left out a task"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_rayon_pool_keeps_the_contract() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(Parallel::width(&pool), 3);
        let busy: [AtomicUsize; 3] = Default::default();
        let calls: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
        pool.run(100, &|worker, i| {
            assert_eq!(busy[worker].fetch_add(1, Ordering::SeqCst), 0, "two calls have worker {worker}");
            calls[i].fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
            busy[worker].fetch_sub(1, Ordering::SeqCst);
        });
        assert!(calls.iter().all(|c| c.load(Ordering::SeqCst) == 1));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(8, &|_, i| assert_ne!(i, 5));
        }));
        assert!(panic.is_err(), "a panic reaches the caller");
    }
}
