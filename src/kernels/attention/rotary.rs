//! Rotary position embedding of rows (Su et al. 2021): pairs of numbers turned by an angle.

use crate::kernels::convert::{load_strided, store_strided};
use crate::kernels::elem::Elem;
use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, Kernel, dispatch};

/// How rows are turned.
#[derive(Clone, Copy, Debug)]
pub struct Rotary {
    /// The instructions to use.
    pub isa: Isa,
    /// f32, f16 or bf16.
    pub elem: Elem,
    /// Numbers of a row.
    pub len: usize,
    /// Pairs that are turned; the numbers after them stay.
    pub pairs: usize,
    /// Pairs are neighbours, not an element of each half.
    pub interleaved: bool,
}

impl Rotary {
    /// Bytes of scratch: a row, cosines and sines in f32.
    pub fn scratch_bytes(&self) -> usize {
        (self.len + 2 * self.pairs) * 4
    }
    /// Puts cosines and sines of one position into the scratch.
    /// # Safety
    /// `pairs` of each are there, in `elem`.
    pub unsafe fn angles(&self, cos: *const u8, sin: *const u8, scratch: *mut u8) {
        let to = scratch.cast::<f32>();
        // SAFETY: the scratch has room for a row and both.
        unsafe {
            load_strided(self.isa, self.elem, cos, 1, to.add(self.len), self.pairs);
            load_strided(self.isa, self.elem, sin, 1, to.add(self.len + self.pairs), self.pairs);
        }
    }
    /// Turns a row by the angles in the scratch.
    /// # Safety
    /// `from` and `to` hold `len` elements, and are the same or do not overlap.
    pub unsafe fn row(&self, from: *const u8, to: *mut u8, scratch: *mut u8) {
        let row = scratch.cast::<f32>();
        // SAFETY: as the caller says.
        unsafe {
            load_strided(self.isa, self.elem, from, 1, row, self.len);
            let cos = row.add(self.len).cast_const();
            dispatch(self.isa, Turn { row, cos, sin: cos.add(self.pairs), n: self.pairs, beside: self.interleaved });
            store_strided(self.isa, row, 1, self.elem, to, 1, self.len);
        }
    }
}

struct Turn {
    row: *mut f32,
    cos: *const f32,
    sin: *const f32,
    n: usize,
    beside: bool,
}

impl Kernel for Turn {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let Turn { row, cos, sin, n, beside } = self;
        // SAFETY: `Rotary::row`'s contract: 2 n numbers and n angles.
        unsafe {
            if beside {
                for i in 0..n {
                    let (a, b, c, s) = (*row.add(2 * i), *row.add(2 * i + 1), *cos.add(i), *sin.add(i));
                    *row.add(2 * i) = c * a - s * b;
                    *row.add(2 * i + 1) = s * a + c * b;
                }
                return;
            }
            for i in (0..n).step_by(V::LANES) {
                let m = V::LANES.min(n - i);
                let (a, b) = (V::load_n(row.add(i), m), V::load_n(row.add(n + i), m));
                let (c, s) = (V::load_n(cos.add(i), m), V::load_n(sin.add(i), m));
                (c * a - s * b).store_n(row.add(i), m);
                (s * a + c * b).store_n(row.add(n + i), m);
            }
        }
    }
}
