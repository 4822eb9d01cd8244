//! A thread pool that the host supplies.

use super::handle::Structure;
use crate::base::parallel::Parallel;
use crate::error::{Error, Result};
use crate::{bail, ensure, err};
use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Does one task of a parallel loop: handed to a host's thread pool, which calls it with the `context` that it was given.
/// It returns normally in all cases.
pub type ortx_task = Option<unsafe extern "C" fn(context: *mut c_void, worker: usize, index: usize)>;

/// Runs a parallel loop on the host's threads: calls `task(context, worker, index)` once for each `index` below `count`, in
/// any order, and returns when all these calls have returned. `worker` is below the pool's width, and no two calls at
/// one time have the same worker within one loop. Loops may come from several threads at once, one for each session run.
pub type ortx_parallel =
    Option<unsafe extern "C" fn(user: *mut c_void, count: usize, task: ortx_task, context: *mut c_void)>;

/// Called once with the `user` pointer given beside it, when ortx needs what it stands for no more. It may be called on
/// any thread, and before the call that it was given to returns.
pub type ortx_release = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// A host's thread pool for session options.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ortx_thread_pool {
    /// sizeof(ortx_thread_pool).
    pub struct_size: usize,
    /// How many workers there are, the calling thread included; 1 to 1024.
    pub width: usize,
    /// Given back to the functions.
    pub user: *mut c_void,
    /// Runs a loop.
    pub parallel: ortx_parallel,
    /// Called when the last session that has the pool is gone, or could not be made; may be NULL.
    pub release: ortx_release,
}
// SAFETY: sizes, pointers and optional functions, for which zero is valid; the size comes first.
unsafe impl Structure for ortx_thread_pool {}

/// Calls a host's release function when dropped.
pub struct Release {
    function: ortx_release,
    user: *mut c_void,
}

// SAFETY: the header tells hosts that release may be called on any thread.
unsafe impl Send for Release {}
// SAFETY: shared access does nothing.
unsafe impl Sync for Release {}

impl Release {
    /// From here on the function is called exactly once.
    pub fn new(function: ortx_release, user: *mut c_void) -> Release {
        Release { function, user }
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(f) = self.function {
            // SAFETY: the host's function with the host's pointer, once.
            unsafe { f(self.user) };
        }
    }
}

/// The host's pool behind the engine's trait.
pub struct HostPool {
    width: usize,
    parallel: unsafe extern "C" fn(*mut c_void, usize, ortx_task, *mut c_void),
    user: *mut c_void,
    _release: Release,
}

// SAFETY: the header tells hosts that loops may come from several threads at once.
unsafe impl Send for HostPool {}
// SAFETY: as above.
unsafe impl Sync for HostPool {}

/// The most workers a pool may have; one bit each in `Loop::busy`.
const MAX_WIDTH: usize = 1024;

impl HostPool {
    /// Checks what the host gave.
    pub fn new(p: &ortx_thread_pool) -> Result<HostPool> {
        let release = Release::new(p.release, p.user);
        let Some(parallel) = p.parallel else { bail!(InvalidArgument, "the thread pool's 'parallel' is NULL") };
        ensure!(
            (1..=MAX_WIDTH).contains(&p.width),
            InvalidArgument,
            "the thread pool's width is {}, it must be from 1 to {MAX_WIDTH}",
            p.width
        );
        Ok(HostPool { width: p.width, parallel, user: p.user, _release: release })
    }
}

/// One loop on its way through the host's code.
struct Loop<'a> {
    task: &'a (dyn Fn(usize, usize) + Sync),
    count: usize,
    width: usize,
    /// Calls that have returned.
    done: AtomicUsize,
    /// A bit for each worker that is in a call: two calls with one worker would share its scratch memory.
    busy: [AtomicU64; MAX_WIDTH / 64],
    failed: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Loop<'_> {
    fn fail(&self, payload: Box<dyn Any + Send>) {
        let mut first = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match &*first {
            None => *first = Some(payload),
            Some(_) => std::mem::forget(payload), // dropping a payload may panic
        }
    }
    fn call(&self, worker: usize, index: usize) -> std::result::Result<(), Box<dyn Any + Send>> {
        let wrong = |e: Error| -> Box<dyn Any + Send> { Box::new(e) };
        if worker >= self.width || index >= self.count {
            return Err(wrong(err!(
                InvalidArgument,
                "the host's thread pool called worker {worker} of {} with index {index} of {}",
                self.width,
                self.count
            )));
        }
        let (word, bit) = (&self.busy[worker / 64], 1u64 << (worker % 64));
        if word.fetch_or(bit, Ordering::Acquire) & bit != 0 {
            return Err(wrong(err!(InvalidArgument, "the host's thread pool used worker {worker} twice at one time")));
        }
        let result = catch_unwind(AssertUnwindSafe(|| (self.task)(worker, index)));
        word.fetch_and(!bit, Ordering::Release);
        result
    }
}

unsafe extern "C" fn one_task(context: *mut c_void, worker: usize, index: usize) {
    // SAFETY: the context of `HostPool::run`, which waits until the host's function returns.
    let l = unsafe { &*context.cast::<Loop<'_>>() };
    match l.call(worker, index) {
        Ok(()) => _ = l.done.fetch_add(1, Ordering::Release),
        Err(payload) => l.fail(payload),
    }
}

impl Parallel for HostPool {
    fn width(&self) -> usize {
        self.width
    }
    fn run(&self, n: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        if n <= 1 || self.width == 1 {
            return (0..n).for_each(|i| task(0, i));
        }
        let l = Loop {
            task,
            count: n,
            width: self.width,
            done: AtomicUsize::new(0),
            busy: [const { AtomicU64::new(0) }; MAX_WIDTH / 64],
            failed: Mutex::new(None),
        };
        // SAFETY: the host's function and pointer; `l` outlives the call, after which the host calls no more.
        unsafe { (self.parallel)(self.user, n, Some(one_task), (&raw const l).cast_mut().cast()) };
        let done = l.done.load(Ordering::Acquire);
        if let Some(payload) = l.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
        if done != n {
            // The trait has no other way out than a panic; `guard` finds the error in it.
            resume_unwind(Box::new(err!(InvalidArgument, "the host's thread pool ran {done} tasks of {n}")));
        }
    }
}
