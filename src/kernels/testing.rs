//! What the kernels' tests share: seeded numbers, and memory that traps any access past its end or before its start.

use crate::kernels::isa::Isa;

/// A small generator (xorshift64*): the same numbers everywhere.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }
    /// In [-1, 1).
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// f32s between two pages that trap: flush with the one after them, or with the one before.
pub struct Guarded {
    base: *mut u8,
    bytes: usize,
    pub ptr: *mut f32,
    pub len: usize,
}

const PAGE: usize = 4096;

impl Guarded {
    /// A copy of `data`. `at_end`: reading past the end traps; else reading before the start does.
    pub fn new(data: &[f32], at_end: bool) -> Guarded {
        let inner = (data.len() * 4).next_multiple_of(PAGE);
        let bytes = inner + 2 * PAGE;
        // SAFETY: a fresh anonymous mapping; the pages in its middle are made accessible before use.
        unsafe {
            let base = libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert!(base != libc::MAP_FAILED);
            let base = base.cast::<u8>();
            if inner > 0 {
                assert_eq!(libc::mprotect(base.add(PAGE).cast(), inner, libc::PROT_READ | libc::PROT_WRITE), 0);
            }
            let start = if at_end { PAGE + inner - data.len() * 4 } else { PAGE };
            let ptr = base.add(start).cast::<f32>();
            std::ptr::copy_nonoverlapping(data.as_ptr(), ptr, data.len());
            Guarded { base, bytes, ptr, len: data.len() }
        }
    }
    pub fn nan(len: usize, at_end: bool) -> Guarded {
        Guarded::new(&vec![f32::NAN; len], at_end)
    }
    pub fn slice(&self) -> &[f32] {
        // SAFETY: ptr is valid for len.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

/// Compares within `tol(i)`, NaN equal to NaN, infinities equal to themselves.
pub fn assert_close(what: &str, isa: Isa, got: &[f32], want: &[f32], tol: impl Fn(usize) -> f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let ok = g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= tol(i);
        assert!(ok, "{what} at {}: [{i}] = {g}, want {w} +- {}", isa.level().name(), tol(i));
    }
}
