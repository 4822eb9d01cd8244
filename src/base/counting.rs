//! For tests: an allocator that counts what each thread allocates.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    if bytes > 0 {
        CALLS.set(CALLS.get() + 1);
    }
    LIVE.set(LIVE.get() + bytes);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

// SAFETY: passes everything on to the system's allocator; the counters are plain cells and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        count(new as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, new) }
    }
}

/// What a piece of code allocated on this thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// Allocations, growing ones included.
    pub calls: usize,
    /// The most bytes it held at once, beyond those held before.
    pub peak: usize,
}

/// Runs `f` and counts its allocations on this thread.
pub(crate) fn counted<R>(f: impl FnOnce() -> R) -> (R, Counts) {
    let (calls, live) = (CALLS.get(), LIVE.get());
    PEAK.set(live);
    let result = f();
    (result, Counts { calls: CALLS.get() - calls, peak: (PEAK.get() - live).max(0) as usize })
}

#[test]
fn counts_calls_and_peak() {
    let (_, counts) = counted(|| {
        drop(std::hint::black_box(vec![0u8; 1000]));
        std::hint::black_box(vec![0u8; 500])
    });
    assert_eq!((counts.calls, counts.peak), (2, 1000));
}
