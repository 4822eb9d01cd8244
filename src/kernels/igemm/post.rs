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

/// Another addend of an 8-bit result. What the product would be as 8 bits, and this, are taken as real numbers and added; the
/// sum is quantised anew: the arithmetic of DequantizeLinear, Add and QuantizeLinear, bit for bit.
#[derive(Clone, Copy)]
pub struct Residual {
    /// A byte for each of the result, in the same order.
    pub at: *const u8,
    /// i8, not u8.
    pub signed: bool,
    /// Its zero point and scale.
    pub zero: f32,
    /// See `zero`.
    pub scale: f32,
    /// The least and the greatest that the product may be as 8 bits, its zero point taken off.
    pub own_bounds: [f32; 2],
    /// The product's scale.
    pub own_scale: f32,
    /// The sum's scale.
    pub sum_scale: f32,
}

/// The least and the greatest of 8 bits less their zero point; what is negative is left out after a Relu.
pub fn bounds(signed: bool, zero: f32, relu: bool) -> [f32; 2] {
    let (lo, hi) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
    [if relu { f32::max(lo - zero, 0.0) } else { lo - zero }, hi - zero]
}

/// Rows of sums on their way out: `sum + add + x * y`, then as `out` says. What lies along a row is the same in all rows, but for
/// `y`, which is the next number in each.
#[derive(Clone, Copy)]
pub(crate) struct Lines {
    pub n: usize,
    pub rows: usize,
    pub sums: *const i32,
    pub sums_row: usize,
    pub add: Along<i32>,
    /// Left out where null.
    pub x: Along<i32>,
    pub y: Along<i32>,
    pub scale: Along<f32>,
    /// Left out where null.
    pub bias: Along<f32>,
    pub zero: f32,
    pub relu: bool,
    /// Its `at` is for `to`.
    pub residual: Option<Residual>,
    pub out: Out,
    pub to: *mut u8,
    /// Elements from one row of the result to the next.
    pub to_row: usize,
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

impl Kernel for Lines {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        // SAFETY: `finish`'s contract.
        unsafe {
            match (self.x.at.is_null(), self.residual) {
                (true, None) => self.all::<V, false, false>(NO_RESIDUAL),
                (false, None) => self.all::<V, true, false>(NO_RESIDUAL),
                (true, Some(r)) => self.all::<V, false, true>(r),
                (false, Some(r)) => self.all::<V, true, true>(r),
            }
        }
    }
}

const NO_RESIDUAL: Residual = Residual {
    at: std::ptr::null(),
    signed: false,
    zero: 0.0,
    scale: 0.0,
    own_bounds: [0.0; 2],
    own_scale: 0.0,
    sum_scale: 1.0,
};

impl Lines {
    #[inline(always)]
    unsafe fn all<V: F32, const SHIFTED: bool, const ADDED: bool>(&self, residual: Residual) {
        let signed = matches!(self.out, Out::Int8 { signed: true });
        let [lo, hi] = bounds(signed, self.zero, self.relu).map(V::splat);
        let zero = V::splat(self.zero).to_i32_round();
        let mut i = 0;
        while i < self.n {
            let n = V::LANES.min(self.n - i);
            // SAFETY: the caller's; i + n <= self.n, and a part of a vector is read and written by way of an array.
            unsafe {
                let add = ints::<V>(self.add, i, n);
                let x = if SHIFTED { ints::<V>(self.x, i, n) } else { add };
                let scale = if self.out == Out::I32 { V::zero() } else { reals::<V>(self.scale, i, n) };
                let bias = if self.bias.at.is_null() { V::zero() } else { reals::<V>(self.bias, i, n) };
                for row in 0..self.rows {
                    let sums = Along { at: self.sums.add(row * self.sums_row), each: true };
                    let mut v = ints::<V>(sums, i, n) + add;
                    if SHIFTED {
                        v = v + x * ints::<V>(Along { at: self.y.at.add(row), each: self.y.each }, i, n);
                    }
                    let to = row * self.to_row + i;
                    if self.out == Out::I32 {
                        v.store_n(self.to.cast::<i32>().add(to), n);
                        continue;
                    }
                    let mut r = v.to_f32() * scale;
                    if !self.bias.at.is_null() {
                        r = r + bias;
                    }
                    if self.out == Out::F32 {
                        r.store_n(self.to.cast::<f32>().add(to), n);
                        continue;
                    }
                    if ADDED {
                        let [lo, hi] = residual.own_bounds.map(V::splat);
                        let own = r.round().max(lo).min(hi) * V::splat(residual.own_scale);
                        let other = bytes::<V>(residual.at.add(to), n, residual.signed).to_f32();
                        let other = (other - V::splat(residual.zero)) * V::splat(residual.scale);
                        r = (own + other) / V::splat(residual.sum_scale);
                    }
                    let q = r.max(lo).min(hi).to_i32_round() + zero;
                    if n == V::LANES {
                        q.store_u8(self.to.add(to));
                    } else {
                        let mut rest = [0u8; 16];
                        q.store_u8(rest.as_mut_ptr());
                        std::ptr::copy_nonoverlapping(rest.as_ptr(), self.to.add(to), n);
                    }
                }
            }
            i += n;
        }
    }
}

/// `n` bytes, widened; zeros after them.
#[inline(always)]
unsafe fn bytes<V: F32>(p: *const u8, n: usize, signed: bool) -> V::I {
    let mut part = [0u8; 16];
    // SAFETY: the caller's: `n` bytes; the array is a vector's.
    unsafe {
        let mut p = p;
        if n < V::LANES {
            std::ptr::copy_nonoverlapping(p, part.as_mut_ptr(), n);
            p = part.as_ptr();
        }
        if signed { V::I::load_i8(p.cast()) } else { V::I::load_u8(p) }
    }
}

/// Writes some lines.
/// # Safety
/// All pointers that are not null are valid for `n` values, or for one where they are not for each, `y` for one more in each
/// further row; `sums` and the residual for `rows` rows, `to` for writing as many.
pub(crate) unsafe fn finish(isa: Isa, lines: Lines) {
    dispatch(isa, lines)
}
