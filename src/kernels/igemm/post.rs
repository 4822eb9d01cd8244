//! What becomes of the sums of an integer product: i32 as they are, scaled to f32, or quantised anew to 8 bits.

use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, I32, Kernel, dispatch};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Out {
    /// The sums, wrapped to 32 bits.
    I32,
    /// `sum * scale + bias`.
    F32,
    /// `round(sum * scale) + zero`, limited to i8 or u8.
    Int8 {
        /// i8, not u8.
        signed: bool,
    },
}

impl Out {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Out::I32 | Out::F32 => 4,
            Out::Int8 { .. } => 1,
        }
    }
}

/// A number for all of a line, or one for each place.
#[derive(Clone, Copy)]
pub(crate) struct Along<T> {
    pub at: *const T,
    pub each: bool,
}

/// A line of sums on its way out: `sum + add + x * y`, then as `out` says.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    pub n: usize,
    pub sums: *const i32,
    pub add: Along<i32>,
    /// Left out where null.
    pub x: Along<i32>,
    pub y: Along<i32>,
    pub scale: Along<f32>,
    /// Left out where null.
    pub bias: Along<f32>,
    pub zero: f32,
    pub out: Out,
    pub to: *mut u8,
}

#[inline(always)]
unsafe fn ints<V: F32>(a: Along<i32>, i: usize, n: usize) -> V::I {
    // SAFETY: the caller's: n numbers from `i` on, or one.
    unsafe {
        match a.each {
            true if n == V::LANES => V::I::load(a.at.add(i)),
            true => V::I::load_n(a.at.add(i), n),
            false => V::I::splat(*a.at),
        }
    }
}
#[inline(always)]
unsafe fn reals<V: F32>(a: Along<f32>, i: usize, n: usize) -> V {
    // SAFETY: the caller's: n numbers from `i` on, or one.
    unsafe {
        match a.each {
            true if n == V::LANES => V::load(a.at.add(i)),
            true => V::load_n(a.at.add(i), n),
            false => V::splat(*a.at),
        }
    }
}

impl Kernel for Line {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let mut i = 0;
        while i < self.n {
            let n = V::LANES.min(self.n - i);
            // SAFETY: `finish`'s contract; i + n <= self.n, and a part of a vector is written by way of an array.
            unsafe {
                let sums = Along { at: self.sums, each: true };
                let mut v = ints::<V>(sums, i, n) + ints::<V>(self.add, i, n);
                if !self.x.at.is_null() {
                    v = v + ints::<V>(self.x, i, n) * ints::<V>(self.y, i, n);
                }
                if self.out == Out::I32 {
                    v.store_n(self.to.cast::<i32>().add(i), n);
                    i += n;
                    continue;
                }
                let mut r = v.to_f32() * reals::<V>(self.scale, i, n);
                if !self.bias.at.is_null() {
                    r = r + reals::<V>(self.bias, i, n);
                }
                if let Out::Int8 { signed } = self.out {
                    let (lo, hi) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
                    let (lo, hi, zero) = (V::splat(lo - self.zero), V::splat(hi - self.zero), V::splat(self.zero));
                    let q = (r.round().max(lo).min(hi) + zero).to_i32_round();
                    if n == V::LANES {
                        q.store_u8(self.to.add(i));
                    } else {
                        let mut rest = [0u8; 16];
                        q.store_u8(rest.as_mut_ptr());
                        std::ptr::copy_nonoverlapping(rest.as_ptr(), self.to.add(i), n);
                    }
                } else {
                    r.store_n(self.to.cast::<f32>().add(i), n);
                }
            }
            i += n;
        }
    }
}

/// Writes a line.
/// # Safety
/// All pointers that are not null are valid for `n` values, or for one where they are not for each; `to` for writing.
pub(crate) unsafe fn finish(isa: Isa, line: Line) {
    dispatch(isa, line)
}
