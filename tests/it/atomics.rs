//! A run of a known shape on one thread takes no atomic read-modify-write but for its guards: counted, instruction by
//! instruction, with the processor's trap flag.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use crate::alone;
use crate::capi::{floats, ok, session_with};
use crate::steady::{numbers, own};
use crate::tiny::transformer;
use ortx::capi::{binding::*, options::*, run::ortx_session_run};
use std::arch::asm;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static STEPS: AtomicUsize = AtomicUsize::new(0);
static LOCKED: AtomicUsize = AtomicUsize::new(0);

/// Whether the instruction at `at` locks memory: by its prefix, or as an exchange with memory.
///
/// # Safety
/// An instruction begins at `at`.
unsafe fn locks(mut at: *const u8) -> bool {
    loop {
        // SAFETY: an instruction's prefixes and first two bytes.
        let byte = unsafe { *at };
        match byte {
            0xf0 => return true,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf2 | 0xf3 | 0x40..=0x4f => at = at.wrapping_add(1),
            // SAFETY: as above.
            0x86 | 0x87 => return unsafe { *at.add(1) } >> 6 != 3,
            _ => return false,
        }
    }
}

extern "C" fn trapped(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a context to handlers with SA_SIGINFO; its instruction pointer is at an instruction.
    let locked = unsafe {
        let context = &*context.cast::<libc::ucontext_t>();
        locks(context.uc_mcontext.gregs[libc::REG_RIP as usize] as *const u8)
    };
    STEPS.fetch_add(1, Relaxed);
    LOCKED.fetch_add(usize::from(locked), Relaxed);
}

/// Instructions, and locked ones, of this thread while `f` runs.
fn stepped(f: impl FnOnce()) -> (usize, usize) {
    // SAFETY: zero is valid for a sigaction; the handler touches nothing but two counters.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = trapped as extern "C" fn(_, _, _) as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGTRAP, &action, null_mut()), 0);
    }
    STEPS.store(0, Relaxed);
    LOCKED.store(0, Relaxed);
    // SAFETY: changes the trap flag alone; each instruction then raises a signal that the handler takes.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    f();
    // SAFETY: as above.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
    (STEPS.load(Relaxed), LOCKED.load(Relaxed))
}

#[test]
fn a_known_shape_on_one_thread_locks_its_guards_only() {
    alone::alone("atomics::a_known_shape_on_one_thread_locks_its_guards_only", count, String::new);
}

/// A frame is taken by one, and given back by a plain store; a binding too.
const FRAME: usize = 1;
const BINDING: usize = 1;

fn count() {
    let (steps, locked) = stepped(|| {
        STEPS.fetch_add(std::hint::black_box(0), Relaxed);
    });
    assert!(steps > 0 && locked == 1, "the counter itself: {locked} locked of {steps}");

    let digits = std::fs::read("models/digits.onnx").unwrap();
    let ids: Vec<i64> = (0..7).collect();
    for (model, x) in [(digits, floats(&[1, 1, 8, 8], &[0.5; 64])), (transformer().bytes(), numbers(&[1, 7], &ids))] {
        // SAFETY: integers and pointers, for which zero is valid; live handles throughout.
        unsafe {
            let mut options: ortx_session_options = std::mem::zeroed();
            (options.struct_size, options.threads) = (size_of_val(&options), 1);
            let session = session_with(&model, &options).unwrap();
            let mut binding = null_mut();
            ok(ortx_binding_create(session, &mut binding));
            ok(ortx_binding_set_input(binding, 0, x));
            (0..3).for_each(|_| ok(ortx_binding_run(binding, null())));
            let mut status = null_mut();
            let (steps, locked) = stepped(|| status = ortx_binding_run(binding, null()));
            ok(status);
            println!("a binding's run: {locked} locked instructions of {steps}");
            assert_eq!(locked, BINDING + FRAME, "of {steps} instructions");

            let mut y = null_mut();
            ok(ortx_binding_output(binding, 0, &mut y));
            let mut outputs = [own(y)];
            let mut run =
                || ortx_session_run(session, null(), null(), &x.cast_const(), 1, null(), outputs.as_mut_ptr(), 1);
            (0..3).for_each(|_| ok(run()));
            let (steps, locked) = stepped(|| status = run());
            ok(status);
            println!("a run of its own: {locked} locked instructions of {steps}");
            assert_eq!(locked, FRAME, "of {steps} instructions");
            [outputs[0], y].iter().for_each(|&v| ortx::capi::value::ortx_value_destroy(v));
            ortx_binding_destroy(binding);
            ortx::capi::session::ortx_session_destroy(session);
            ortx::capi::value::ortx_value_destroy(x);
        }
    }
}
