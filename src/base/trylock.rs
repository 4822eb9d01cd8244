//! A lock that nobody waits for: one locked instruction to take it, a plain store to give it back.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// Something that is one thread's at a time; others go without.
#[derive(Debug, Default)]
pub struct TryLock<T> {
    is_taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through `Locked` only, of which there is one at a time; taking it acquires what the last
// holder released.
unsafe impl<T: Send> Sync for TryLock<T> {}

impl<T> TryLock<T> {
    /// With a value that nobody has yet.
    pub const fn new(value: T) -> TryLock<T> {
        TryLock { is_taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }
    /// The value, until the guard is dropped; `None` while another has it.
    pub fn try_lock(&self) -> Option<Locked<'_, T>> {
        let taken = self.is_taken.load(Ordering::Relaxed) || self.is_taken.swap(true, Ordering::Acquire);
        if taken { None } else { Some(Locked(self, PhantomData)) }
    }
}

/// Has a lock's value to itself, and may be shared between threads as the value may.
pub struct Locked<'a, T>(&'a TryLock<T>, PhantomData<&'a mut T>);

impl<T> Deref for Locked<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: there is one `Locked` of a lock at a time, and this is it.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Locked<'_, T> {
    fn drop(&mut self) {
        self.0.is_taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_it() {
        let lock = TryLock::new(0usize);
        let first = lock.try_lock().unwrap();
        assert!(lock.try_lock().is_none());
        drop(first);
        let taken: usize = std::thread::scope(|s| {
            let work = || (0..10_000).filter(|_| lock.try_lock().map(|mut n| *n += 1).is_some()).count();
            let threads: Vec<_> = (0..4).map(|_| s.spawn(work)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(*lock.try_lock().unwrap(), taken);
    }
}
