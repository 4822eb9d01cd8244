//! The floating-point mode of a task: the same on every thread, whatever mode the host runs in.

use std::marker::PhantomData;

/// Sets this thread's floating-point mode until dropped: rounding to nearest, no exceptions raised, denormals flushed
/// to zero or kept. The caller's mode comes back, its exception flags included.
///
/// On processors other than x86-64 it does nothing: there denormals are kept.
#[must_use = "the mode lasts as long as the guard"]
#[derive(Debug)]
pub struct FpMode {
    /// The mode to put back; none where it was right already.
    saved: Option<u32>,
    /// The mode is the thread's: the guard must not leave it.
    _thread: PhantomData<*mut ()>,
}

#[cfg(target_arch = "x86_64")]
mod mxcsr {
    use std::arch::asm;

    /// The exception flags, set by arithmetic and never cleared.
    pub const FLAGS: u32 = 0x3f;
    /// All exceptions masked, rounding to nearest, denormals kept.
    pub const DEFAULT: u32 = 0x1f80;
    /// Denormal results become zero (FTZ), and denormal operands count as zero (DAZ).
    pub const FLUSH: u32 = 1 << 15 | 1 << 6;

    pub fn get() -> u32 {
        let mut value = 0u32;
        // SAFETY: stores the register to the four bytes given.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
        value
    }
    /// # Safety
    /// `value` has no reserved bits, and exceptions are masked in it, or it is what `get` returned.
    pub unsafe fn set(value: u32) {
        // SAFETY: loads the register from the four bytes given; a legal value by the caller's promise.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, preserves_flags)) };
    }
}

impl FpMode {
    /// Enters the engine's mode, with denormals flushed if `flush` is true.
    pub fn enter(flush: bool) -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let wanted = mxcsr::DEFAULT | if flush { mxcsr::FLUSH } else { 0 };
            let current = mxcsr::get();
            if current & !mxcsr::FLAGS != wanted {
                // SAFETY: defined bits only (every x86-64 processor has DAZ), exceptions masked.
                unsafe { mxcsr::set(wanted) };
                return FpMode { saved: Some(current), _thread: PhantomData };
            }
        }
        let _ = flush;
        FpMode { saved: None, _thread: PhantomData }
    }
}

impl Drop for FpMode {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if let Some(saved) = self.saved {
            // SAFETY: what `get` returned on this thread.
            unsafe { mxcsr::set(saved) };
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::hint::black_box;

    /// Half of the smallest normal number: denormal.
    fn half() -> f32 {
        black_box(f32::MIN_POSITIVE) * black_box(0.5)
    }

    #[test]
    fn denormals_are_flushed_inside_only() {
        assert!(half() > 0.0);
        let before = mxcsr::get();
        {
            let _flush = FpMode::enter(true);
            assert_eq!(half(), 0.0);
            assert_eq!(black_box(f32::from_bits(1)) * black_box(1e38), 0.0, "denormal operands too");
            {
                let _keep = FpMode::enter(false);
                assert!(half() > 0.0);
                let _same = FpMode::enter(false);
            }
            assert_eq!(half(), 0.0);
        }
        assert_eq!(mxcsr::get() & !mxcsr::FLAGS, before & !mxcsr::FLAGS);
        assert!(half() > 0.0);
    }

    #[test]
    fn a_panic_restores_the_mode() {
        let result = std::panic::catch_unwind(|| {
            let _flush = FpMode::enter(true);
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(result.is_err() && half() > 0.0);
    }

    #[test]
    fn a_host_that_traps_and_rounds_is_left_as_it_was() {
        // Rounding up, division by zero unmasked: as some hosts run.
        let odd = mxcsr::DEFAULT & !(1 << 9) | 2 << 13;
        let before = mxcsr::get();
        // SAFETY: defined bits; nothing divides by zero while the trap is on.
        unsafe { mxcsr::set(odd) };
        let inside = {
            let _mode = FpMode::enter(true);
            (black_box(1f32) / black_box(0.0), black_box(1f32) + black_box(1e-10))
        };
        let after = mxcsr::get();
        // SAFETY: what `get` returned.
        unsafe { mxcsr::set(before) };
        assert_eq!(inside, (f32::INFINITY, 1.0));
        assert_eq!(after, odd, "the exception flags as well");
    }
}
