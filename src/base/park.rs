//! Sleeping until a word changes: a futex on Linux, a condition variable elsewhere.

use std::sync::{
    Condvar, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

/// Who sleeps on a word, so that each kind is woken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// An idle worker, waiting for a job.
    Worker = 0,
    /// The caller of a job, waiting for its last worker.
    Caller = 1,
}

/// A way to sleep.
pub(super) trait Park: Default + Send + Sync + 'static {
    /// Sleeps until woken; returns at once if `word` is not `expected`. May wake for no reason.
    fn wait(&self, word: &AtomicU32, expected: u32, who: Who);
    /// Wakes up to `count` sleepers of a kind. `word` was changed before.
    fn wake(&self, word: &AtomicU32, count: u32, who: Who);
}

#[cfg(target_os = "linux")]
pub(super) type Native = Futex;
#[cfg(not(target_os = "linux"))]
pub(super) type Native = Condition;

/// One system call to sleep, one to wake, none where nobody sleeps.
#[cfg(target_os = "linux")]
#[derive(Default)]
pub(super) struct Futex;

#[cfg(target_os = "linux")]
impl Park for Futex {
    fn wait(&self, word: &AtomicU32, expected: u32, who: Who) {
        // SAFETY: the word outlives the call; no timeout is given. Any outcome is a permitted return.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
                expected,
                std::ptr::null::<libc::timespec>(),
                std::ptr::null::<u32>(),
                1u32 << who as u32,
            );
        }
    }
    fn wake(&self, word: &AtomicU32, count: u32, who: Who) {
        // SAFETY: the kernel uses the address as a name only.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                libc::FUTEX_WAKE_BITSET | libc::FUTEX_PRIVATE_FLAG,
                count.min(i32::MAX as u32),
                std::ptr::null::<libc::timespec>(),
                std::ptr::null::<u32>(),
                1u32 << who as u32,
            );
        }
    }
}

/// The portable way. Built on Linux as well, so that it is tested there.
#[derive(Default)]
#[cfg_attr(target_os = "linux", allow(dead_code))]
pub(super) struct Condition {
    lock: Mutex<()>,
    woken: [Condvar; 2],
}

impl Park for Condition {
    fn wait(&self, word: &AtomicU32, expected: u32, who: Who) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: whoever changes the word later must wait for it before waking.
        if word.load(Ordering::SeqCst) == expected {
            drop(self.woken[who as usize].wait(guard));
        }
    }
    fn wake(&self, _word: &AtomicU32, count: u32, who: Who) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        for _ in 0..count {
            self.woken[who as usize].notify_one();
        }
    }
}
