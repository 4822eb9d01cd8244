//! Session options: the host's threads, borrowed models, thread counts.

use super::tensors::count;
use super::*;
use ortx::capi::pool::*;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

pub fn zeroed() -> ortx_session_options {
    // SAFETY: integers and pointers, for which zero is valid.
    let mut o: ortx_session_options = unsafe { std::mem::zeroed() };
    o.struct_size = size_of_val(&o);
    o
}

fn digits() -> Vec<u8> {
    std::fs::read("models/digits.onnx").unwrap()
}

/// The answer for a batch that is large enough to be shared between threads.
fn answer(s: *const ortx_session) -> Result<Vec<f32>, (ortx_code, String)> {
    let x = floats(&[64, 1, 8, 8], &(0..64 * 64).map(|i| (i % 17) as f32 / 16.0).collect::<Vec<_>>());
    let mut y = null_mut();
    // SAFETY: live handles.
    unsafe {
        let status = ortx_session_run(s, null(), null(), &x.cast_const(), 1, null(), &mut y, 1);
        ortx_value_destroy(x);
        if !status.is_null() {
            return Err(failed(status));
        }
        let result = read(y);
        ortx_value_destroy(y);
        Ok(result)
    }
}

/// A host's threads, and what they saw.
#[derive(Default)]
struct Threads {
    loops: AtomicUsize,
    released: AtomicUsize,
    /// Tasks that it leaves out.
    lazy: bool,
}

struct Shared(*mut c_void);
// SAFETY: the library allows its tasks on any thread.
unsafe impl Sync for Shared {}

unsafe extern "C" fn parallel(user: *mut c_void, n: usize, task: ortx_task, context: *mut c_void) {
    // SAFETY: the test's own `Threads`; the task may be called as the header says.
    let (threads, context) = (unsafe { &*user.cast::<Threads>() }, Shared(context));
    let (next, task, context) = (AtomicUsize::new(usize::from(threads.lazy)), task.unwrap(), &context);
    threads.loops.fetch_add(1, SeqCst);
    let work = |worker: usize| loop {
        match next.fetch_add(1, SeqCst) {
            i if i < n => unsafe { task(context.0, worker, i) },
            _ => break,
        }
    };
    std::thread::scope(|s| {
        (1..3).for_each(|w| _ = s.spawn(move || work(w)));
        work(0);
    });
}

unsafe extern "C" fn release(user: *mut c_void) {
    // SAFETY: as above.
    unsafe { &*user.cast::<Threads>() }.released.fetch_add(1, SeqCst);
}

fn pool(threads: &Threads) -> ortx_thread_pool {
    ortx_thread_pool {
        struct_size: size_of::<ortx_thread_pool>(),
        width: 3,
        user: std::ptr::from_ref(threads).cast_mut().cast(),
        parallel: Some(parallel),
        release: Some(release),
    }
}

#[test]
fn a_model_runs_on_the_hosts_threads() {
    let (model, threads, mut n) = (digits(), Threads::default(), 0);
    let own = session_with(&model, null()).unwrap();
    let hosted = pool(&threads);
    let options = ortx_session_options { pool: &hosted, threads: 7, ..zeroed() };
    let s = session_with(&model, &options).unwrap();
    // SAFETY: live handles.
    unsafe {
        ok(ortx_session_threads(s, &mut n));
        assert_eq!(n, 3, "the pool's width, not `threads`");
        assert_eq!(answer(s).unwrap(), answer(own).unwrap(), "the same bits on any threads");
        assert!(threads.loops.load(SeqCst) > 0);
        assert_eq!(threads.released.load(SeqCst), 0);
        ortx_session_destroy(s);
        assert_eq!(threads.released.load(SeqCst), 1);
        ortx_session_destroy(own);
    }
}

#[test]
fn wrong_pools_are_refused_and_released() {
    let (model, threads) = (digits(), Threads::default());
    let good = pool(&threads);
    let refused = |p: ortx_thread_pool, words: &[&str]| {
        let before = threads.released.load(SeqCst);
        let (code, said) = session_with(&model, &ortx_session_options { pool: &p, ..zeroed() }).unwrap_err();
        assert_eq!(code, ORTX_ERROR_INVALID_ARGUMENT, "{said}");
        words.iter().for_each(|w| assert!(said.contains(w), "{said}"));
        assert_eq!(threads.released.load(SeqCst), before + 1, "{said}");
    };
    refused(ortx_thread_pool { width: 0, ..good }, &["width is 0"]);
    refused(ortx_thread_pool { width: 1025, ..good }, &["width is 1025"]);
    refused(ortx_thread_pool { parallel: None, ..good }, &["'parallel' is NULL"]);
    // A model that cannot be loaded.
    let before = threads.released.load(SeqCst);
    session_with(b"no model", &ortx_session_options { pool: &good, ..zeroed() }).unwrap_err();
    assert_eq!(threads.released.load(SeqCst), before + 1);
    let short = ortx_thread_pool { struct_size: 4, ..good };
    let (_, said) = session_with(&model, &ortx_session_options { pool: &short, ..zeroed() }).unwrap_err();
    assert!(said.contains("options.pool") && said.contains("struct_size"), "{said}");
}

#[test]
fn a_pool_that_leaves_tasks_out_is_found_out() {
    let (model, lazy) = (digits(), Threads { lazy: true, ..Threads::default() });
    let p = pool(&lazy);
    let s = session_with(&model, &ortx_session_options { pool: &p, ..zeroed() }).unwrap();
    let (code, said) = answer(s).unwrap_err();
    assert_eq!(code, ORTX_ERROR_INVALID_ARGUMENT, "{said}");
    assert!(said.contains("thread pool ran"), "{said}");
    // SAFETY: a live handle.
    unsafe { ortx_session_destroy(s) };
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let (model, mut n, mut first) = (digits(), 0, Vec::new());
    for threads in [1, 2, 3, 8] {
        let s = session_with(&model, &ortx_session_options { threads, ..zeroed() }).unwrap();
        // SAFETY: a live handle.
        unsafe {
            ok(ortx_session_threads(s, &mut n));
            assert_eq!(n, threads);
            let got = answer(s).unwrap();
            assert!(first.is_empty() || got == first, "{threads} threads");
            first = got;
            ortx_session_destroy(s);
        }
    }
    for (threads, words) in [(-1, "-1 threads"), (5000, "5000")] {
        let (code, said) = session_with(&model, &ortx_session_options { threads, ..zeroed() }).unwrap_err();
        assert!(code == ORTX_ERROR_INVALID_ARGUMENT && said.contains(words), "{said}");
    }
    for (spin_ns, good) in [(-1, true), (1000, true), (-2, false)] {
        let made = session_with(&model, &ortx_session_options { threads: 2, spin_ns, ..zeroed() });
        assert_eq!(made.is_ok(), good);
        if let Ok(s) = made {
            assert_eq!(answer(s).unwrap(), first);
            // SAFETY: a live handle.
            unsafe { ortx_session_destroy(s) };
        }
    }
}

/// A model is used where it lies, and its memory comes back once: after the session and all that came from it.
#[test]
fn a_borrowed_model_comes_back() {
    let (model, released) = (digits(), AtomicUsize::new(0));
    let user = std::ptr::from_ref(&released).cast_mut().cast::<c_void>();
    let (mut s, data, size) = (null_mut(), model.as_ptr().cast(), model.len());
    // SAFETY: live handles and pointers; the model outlives what was made of it.
    unsafe {
        ok(ortx_session_create_from_borrowed_memory(null(), data, size, Some(count), user, null(), &zeroed(), &mut s));
        let copied = session(&model);
        assert_eq!(answer(s).unwrap(), answer(copied).unwrap());
        let (mut lent, mut held) = (0, 0);
        ok(ortx::capi::memory::ortx_session_memory(s, &mut lent, null_mut()));
        ok(ortx::capi::memory::ortx_session_memory(copied, &mut held, null_mut()));
        assert!(lent + size as u64 <= held, "it was copied: {lent} bytes, {held} with a copy");
        ortx_session_destroy(copied);
        assert_eq!(released.load(SeqCst), 0);
        ortx_session_destroy(s);
        assert_eq!(released.load(SeqCst), 1);
        // Where it fails: half a model, no place for the handle, wrong options.
        let create = |size, options: &ortx_session_options, s: *mut *mut ortx_session| {
            ortx_session_create_from_borrowed_memory(null(), data, size, Some(count), user, null(), options, s)
        };
        fails(create(size / 2, &zeroed(), &mut s), ORTX_ERROR_INVALID_MODEL, &["model from memory"]);
        assert_eq!(released.load(SeqCst), 2);
        fails(create(size, &zeroed(), null_mut()), ORTX_ERROR_INVALID_ARGUMENT, &["'session'"]);
        let odd = ortx_session_options { reserved: 1, ..zeroed() };
        fails(create(size, &odd, &mut s), ORTX_ERROR_INVALID_ARGUMENT, &["reserved"]);
        assert_eq!(released.load(SeqCst), 4);
    }
}
