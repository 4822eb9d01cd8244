//! Tests that need a process for themselves: they count every allocation of it, or may end it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

static CALLS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicIsize = AtomicIsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    if bytes > 0 {
        CALLS.fetch_add(1, Relaxed);
    }
    LIVE.fetch_add(bytes, Relaxed);
}

// SAFETY: passes everything on to the system's allocator; the counters allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        let p = unsafe { System.alloc(layout) };
        if !p.is_null() {
            count(layout.size() as isize);
        }
        p
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let p = unsafe { System.alloc_zeroed(layout) };
        if !p.is_null() {
            count(layout.size() as isize);
        }
        p
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        // SAFETY: as above.
        let p = unsafe { System.realloc(ptr, layout, new) };
        if !p.is_null() {
            count(new as isize - layout.size() as isize);
        }
        p
    }
}

/// Bytes that the process has allocated and not freed.
pub fn live() -> isize {
    LIVE.load(Relaxed)
}

/// Allocations of all threads so far, growing ones included.
pub fn calls() -> usize {
    CALLS.load(Relaxed)
}

/// Runs the body of the test `name` (with its module) in a process of its own, whose output is shown. True in the child.
/// The caller's `died` is asked for a last word where the child does not come back well.
pub fn alone(name: &str, body: impl FnOnce(), died: impl FnOnce() -> String) {
    if std::env::var_os("ORTX_ALONE").is_some_and(|n| n == *name) {
        return body();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture", "--test-threads=1"]).env("ORTX_ALONE", name).stdin(Stdio::null());
    let output = child.output().unwrap();
    let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
    assert!(text.contains("running 1 test"), "there is no test '{name}':\n{text}");
    // The end is what tells.
    let shown = text.char_indices().rev().nth(20_000).map_or(0, |(i, _)| i);
    println!("{}", &text[shown..]);
    assert!(output.status.success(), "{name}: {}{}", output.status, died());
}
