//! The engine's threads: a fork-join pool whose caller takes part in the work.
//!
//! A job costs the caller one atomic store to open, one to close, and a wake-up call where workers sleep; it allocates
//! nothing and takes no lock. A caller that is through with all tasks closes the job without waiting for workers that
//! did not wake in time.

use super::{
    parallel::Parallel,
    park::{Native, Park, Who},
};
use crate::{
    ensure,
    error::{Context, Result},
};
use std::{
    any::Any,
    cell::UnsafeCell,
    hint::spin_loop,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The most threads a pool may have.
pub const MAX_WIDTH: usize = 1024;

/// How long a caller spins for the last workers before it sleeps: about what a sleep and a wake-up cost.
const JOIN_SPIN: Duration = Duration::from_micros(20);

// The gate, one word that says all about the current job: which it is (a counter that may wrap), whether its caller
// sleeps until the last worker leaves, whether workers may still enter, how many are inside.
const INSIDE: u32 = 0x7fff;
const OPEN: u32 = 1 << 15;
const WAITING: u32 = 1 << 16;
const EPOCH_SHIFT: u32 = 17;

/// Threads that run the tasks of one job at a time. A caller that finds them taken by another caller's job, or that is
/// itself a task of theirs, runs its tasks alone.
///
/// A child that a process forks has none of its threads: there the pool runs everything on the caller.
pub struct Pool(Inner<Native>);

impl Pool {
    /// A pool of `width` threads, the caller's included. An idle worker spins for `spin`, then sleeps.
    pub fn new(width: usize, spin: Duration) -> Result<Self> {
        Ok(Pool(Inner::new(width, spin)?))
    }
}

impl Parallel for Pool {
    fn width(&self) -> usize {
        self.0.width()
    }
    fn run(&self, n: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        self.0.run(n, task);
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("width", &self.width()).finish_non_exhaustive()
    }
}

/// The pool over any way to sleep.
struct Inner<P: Park> {
    shared: Arc<Shared<P>>,
    threads: Vec<JoinHandle<()>>,
    /// The process that has the threads.
    process: u32,
}

/// Keeps what several cores write on cache lines of its own (two, since neighbours are fetched in pairs).
#[repr(align(128))]
struct Apart<T>(T);

struct Shared<P> {
    gate: Apart<AtomicU32>,
    /// The first task that nobody has claimed.
    next: Apart<AtomicUsize>,
    /// Workers that sleep or are about to.
    sleepers: Apart<AtomicU32>,
    /// Held by the caller whose job it is.
    busy: AtomicBool,
    stop: AtomicBool,
    panicked: AtomicBool,
    /// The first panic of the current job.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    job: UnsafeCell<Job>,
    width: usize,
    spin: Duration,
    park: P,
}

#[derive(Clone, Copy)]
struct Job {
    /// The caller's closure; it lives until the caller has closed the gate and seen the last worker leave.
    task: *const (dyn Fn(usize, usize) + Sync),
    n: usize,
}

// SAFETY: `job` is written only by the holder of `busy` while the gate is closed and empty, and read only by threads
// inside the gate, which entered it after the write (store of the gate: release; entry: acquire). The closure is `Sync`.
unsafe impl<P: Sync> Sync for Shared<P> {}
// SAFETY: as above; the pointer is not used by whoever moves the value.
unsafe impl<P: Send> Send for Shared<P> {}

fn no_task(_worker: usize, _index: usize) {}

impl<P: Park> Inner<P> {
    fn new(width: usize, spin: Duration) -> Result<Self> {
        ensure!(
            (1..=MAX_WIDTH).contains(&width),
            InvalidArgument,
            "a pool of {width} threads: between 1 and {MAX_WIDTH} are possible"
        );
        let shared = Arc::new(Shared {
            gate: Apart(AtomicU32::new(0)),
            next: Apart(AtomicUsize::new(0)),
            sleepers: Apart(AtomicU32::new(0)),
            busy: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            panic: Mutex::new(None),
            job: UnsafeCell::new(Job { task: &no_task, n: 0 }),
            width,
            spin,
            park: P::default(),
        });
        let mut pool = Inner { shared, threads: Vec::with_capacity(width - 1), process: std::process::id() };
        for worker in 1..width {
            let shared = pool.shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("ortx-worker-{worker}"))
                .spawn(move || {
                    leave_signals_to_the_host();
                    shared.serve(worker);
                })
                .context(|| format!("cannot start worker thread {worker} of {width}"))?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    fn width(&self) -> usize {
        self.shared.width
    }

    fn run(&self, n: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let shared = &*self.shared;
        // A task's own `run` finds `busy` set as well, by the job that it is part of.
        if n <= 1 || shared.width == 1 || shared.busy.swap(true, Ordering::Acquire) {
            for i in 0..n {
                task(0, i);
            }
            return;
        }
        let panic = shared.run_job(n, task);
        shared.busy.store(false, Ordering::Release);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl<P: Park> Drop for Inner<P> {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // A forked child: the threads are not there to be joined, and their handles name nothing.
            std::mem::forget(std::mem::take(&mut self.threads));
            return;
        }
        let shared = &*self.shared;
        shared.stop.store(true, Ordering::SeqCst);
        // A changed gate keeps workers from falling asleep on the old one.
        shared.gate.0.fetch_add(1 << EPOCH_SHIFT, Ordering::SeqCst);
        shared.park.wake(&shared.gate.0, MAX_WIDTH as u32, Who::Worker);
        for thread in self.threads.drain(..) {
            // Tasks' panics are caught, so that a worker always ends well.
            let _ = thread.join();
        }
    }
}

impl<P: Park> Shared<P> {
    /// Runs a job with the workers' help; returns the first panic. The caller holds `busy`.
    fn run_job(&self, n: usize, task: &(dyn Fn(usize, usize) + Sync)) -> Option<Box<dyn Any + Send>> {
        // SAFETY: only the lifetime changes. Workers use the pointer inside the gate only, and `join` below returns
        // after the last one has left; nothing between here and there unwinds.
        let task: &'static (dyn Fn(usize, usize) + Sync) = unsafe { std::mem::transmute(task) };
        // SAFETY: the gate is closed and empty, and `busy` is ours.
        unsafe { *self.job.get() = Job { task, n } };
        self.next.0.store(0, Ordering::Relaxed);
        let epoch = (self.gate.0.load(Ordering::Relaxed) >> EPOCH_SHIFT).wrapping_add(1);
        // Sequentially consistent with the sleepers' count: either a worker sees this gate, or we see it sleeping.
        self.gate.0.store(epoch << EPOCH_SHIFT | OPEN, Ordering::SeqCst);
        let sleepers = self.sleepers.0.load(Ordering::SeqCst);
        if sleepers > 0 {
            self.park.wake(&self.gate.0, sleepers.min(u32::try_from(n - 1).unwrap_or(u32::MAX)), Who::Worker);
        }
        self.take_tasks(0);
        self.join();
        if self.panicked.swap(false, Ordering::Relaxed) {
            return self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        None
    }

    /// Closes the gate and waits until nobody is inside.
    fn join(&self) {
        let mut gate = self.gate.0.fetch_and(!OPEN, Ordering::AcqRel) & !OPEN;
        if gate & INSIDE == 0 {
            return;
        }
        let since = Instant::now();
        while since.elapsed() < JOIN_SPIN {
            for _ in 0..16 {
                spin_loop();
                gate = self.gate.0.load(Ordering::Acquire);
                if gate & INSIDE == 0 {
                    return;
                }
            }
        }
        while gate & INSIDE != 0 {
            match self.gate.0.compare_exchange_weak(gate, gate | WAITING, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.park.wait(&self.gate.0, gate | WAITING, Who::Caller);
                    gate = self.gate.0.load(Ordering::Acquire);
                }
                Err(now) => gate = now,
            }
        }
    }

    /// Runs unclaimed tasks of the current job until there are none. The caller is inside the gate, or owns the job.
    fn take_tasks(&self, worker: usize) {
        // SAFETY: nobody writes the job while a thread is inside, and its owner is the only one who would.
        let Job { task, n } = unsafe { *self.job.get() };
        // SAFETY: the closure lives until the gate is closed and empty (see `Job`).
        let task = unsafe { &*task };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            while let Some((from, to)) = self.claim(n) {
                for i in from..to {
                    task(worker, i);
                }
            }
        }));
        if let Err(panic) = outcome {
            self.next.0.store(n, Ordering::Relaxed); // the others stop early
            let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            if first.is_none() {
                *first = Some(panic);
                self.panicked.store(true, Ordering::Relaxed);
            } else {
                // Dropping a payload runs foreign code, which may panic again.
                std::mem::forget(panic);
            }
        }
    }

    /// Claims the next tasks: a share of what is left, so that many small tasks share one atomic operation and the
    /// last ones go singly.
    fn claim(&self, n: usize) -> Option<(usize, usize)> {
        let mut from = self.next.0.load(Ordering::Relaxed);
        while from < n {
            let to = from + ((n - from) / (4 * self.width)).max(1);
            match self.next.0.compare_exchange_weak(from, to, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some((from, to)),
                Err(now) => from = now,
            }
        }
        None
    }

    /// A worker's life.
    fn serve(&self, worker: usize) {
        let mut served = u32::MAX; // no epoch
        while !self.stop.load(Ordering::Acquire) {
            let gate = self.gate.0.load(Ordering::Acquire);
            if !self.wants_help(gate, served) {
                self.idle(gate, served);
                continue;
            }
            // Whatever job the gate stands for when this succeeds is open, so it is safe to enter.
            if self.gate.0.compare_exchange_weak(gate, gate + 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
                continue;
            }
            served = gate >> EPOCH_SHIFT;
            self.take_tasks(worker);
            let left = self.gate.0.fetch_sub(1, Ordering::AcqRel);
            if left & INSIDE == 1 && left & WAITING != 0 {
                self.park.wake(&self.gate.0, 1, Who::Caller);
            }
        }
    }

    fn wants_help(&self, gate: u32, served: u32) -> bool {
        gate & OPEN != 0 && gate >> EPOCH_SHIFT != served
    }

    /// Spins, then sleeps until the gate is no longer `gate`. May return for no reason.
    fn idle(&self, gate: u32, served: u32) {
        if !self.spin.is_zero() {
            let since = Instant::now();
            while since.elapsed() < self.spin {
                for _ in 0..16 {
                    spin_loop();
                    let now = self.gate.0.load(Ordering::Relaxed);
                    if self.wants_help(now, served) || self.stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        }
        self.sleepers.0.fetch_add(1, Ordering::SeqCst);
        self.park.wait(&self.gate.0, gate, Who::Worker);
        self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A host's signal handlers should run on its own threads. Faults and profilers' ticks stay, as they concern the thread.
fn leave_signals_to_the_host() {
    #[cfg(unix)]
    // SAFETY: the set is initialised by sigfillset before use, and only this thread's mask changes.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        if libc::sigfillset(set.as_mut_ptr()) != 0 {
            return;
        }
        let mut set = set.assume_init();
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGPROF] {
            libc::sigdelset(&mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
