//! A session's share of memory: what its buffers take is charged to it, and given back when they go.
//!
//! While a session is made or runs, its budget is the thread's current one ([`Budget::enter`]); every
//! [`Buffer`](super::alloc::Buffer) made meanwhile is charged to it for as long as it lives, wherever it goes.

use crate::{bail, error::Result};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes in use, and how many there may be. Clones share one account.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    limit: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
}

thread_local! {
    /// The account that buffers made on this thread are charged to; null for none. Valid while a `Scope` is open.
    static CURRENT: Cell<*const Account> = const { Cell::new(std::ptr::null()) };
}

impl Budget {
    /// A budget of `limit` bytes; `None` only counts.
    pub fn new(limit: Option<usize>) -> Budget {
        let limit = limit.unwrap_or(usize::MAX);
        Budget(Arc::new(Account { limit, used: AtomicUsize::new(0), peak: AtomicUsize::new(0) }))
    }
    /// Bytes in use now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }
    /// The most bytes that were in use at once.
    pub fn peak(&self) -> usize {
        self.0.peak.load(Ordering::Relaxed)
    }
    /// Charges what is made on this thread to this budget until the scope ends.
    pub fn enter(&self) -> Scope<'_> {
        Scope { before: CURRENT.replace(Arc::as_ptr(&self.0)), _budget: PhantomData }
    }
    /// The budget of the innermost open scope of this thread.
    pub fn current() -> Option<Budget> {
        let account = CURRENT.get();
        if account.is_null() {
            return None;
        }
        // SAFETY: the pointer came from the `Arc` of a budget that the open scope borrows, so the account is alive and
        // was made by `Arc`; the count is raised for the `Arc` that is made of it.
        unsafe {
            Arc::increment_strong_count(account);
            Some(Budget(Arc::from_raw(account)))
        }
    }
    /// Takes `bytes`, which go back when the charge is dropped.
    ///
    /// # Errors
    /// `OutOfMemory` if they pass the limit.
    pub fn charge(self, bytes: usize) -> Result<Charge> {
        let fits = |used: usize| used.checked_add(bytes).filter(|&n| n <= self.0.limit);
        match self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(used) => {
                self.0.peak.fetch_max(used + bytes, Ordering::Relaxed);
                Ok(Charge { budget: Some(self), bytes })
            }
            Err(used) => bail!(
                OutOfMemory,
                "cannot allocate {bytes} bytes: {used} of the session's memory limit of {} bytes are in use; raise \
                 memory_limit, end outputs that are not needed any more, or run smaller inputs or fewer runs at once",
                self.0.limit
            ),
        }
    }
}

/// A budget that is the thread's current one.
pub struct Scope<'a> {
    before: *const Account,
    _budget: PhantomData<&'a Budget>,
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// Bytes taken from a budget, or from none.
#[derive(Debug)]
pub struct Charge {
    budget: Option<Budget>,
    bytes: usize,
}

impl Charge {
    /// Nothing taken.
    pub const NONE: Charge = Charge { budget: None, bytes: 0 };

    /// Takes `bytes` from the thread's current budget, if there is one.
    pub fn current(bytes: usize) -> Result<Charge> {
        match Budget::current() {
            Some(b) => b.charge(bytes),
            None => Ok(Charge::NONE),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(b) = &self.budget {
            b.0.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::alloc::Buffer;
    use crate::error::ErrorKind;

    #[test]
    fn buffers_are_charged_and_given_back() {
        let outer = Budget::new(Some(1000));
        let inner = Budget::new(None);
        let free = Buffer::zeroed(5000).unwrap();
        let (a, b) = {
            let _outer = outer.enter();
            let a = Buffer::zeroed(600).unwrap();
            let b = {
                let _inner = inner.enter();
                Buffer::uninit(5000).unwrap()
            };
            let e = Buffer::uninit(401).err().unwrap();
            assert_eq!(e.kind(), ErrorKind::OutOfMemory);
            for words in ["401 bytes", "600 of", "limit of 1000 bytes", "memory_limit"] {
                assert!(e.to_string().contains(words), "{e}");
            }
            assert_eq!(Buffer::uninit(400).unwrap().len(), 400);
            (a, b)
        };
        assert!(Budget::current().is_none());
        assert_eq!((outer.used(), outer.peak(), inner.used()), (600, 1000, 5000));
        drop((a, b, free));
        assert_eq!((outer.used(), inner.used()), (0, 0));
    }

    /// More than the limit is never in use, and all of it comes back.
    #[test]
    fn threads_share_a_budget() {
        let budget = Budget::new(Some(1000));
        std::thread::scope(|s| {
            for t in 0..4 {
                let budget = &budget;
                s.spawn(move || {
                    let _scope = budget.enter();
                    for i in 0..500 {
                        if let Ok(b) = Buffer::uninit(1 + (i * 7 + t * 131) % 600) {
                            assert!(b.len() <= budget.used() && budget.used() <= 1000);
                        }
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
        assert!(budget.peak() <= 1000);
    }
}
