//! Softmax and log-softmax of f32 with vectors: whole rows, and strips of columns.

use super::softmax::COLUMNS;
use crate::kernels::reduce::rows::{Combine, Map, row, top};
use crate::kernels::simd::{F32, Kernel, Mask};
use crate::kernels::vmath;

/// Rows in a line, one behind another. A NaN anywhere makes all of its row NaN, by way of the sum.
pub(super) struct Rows {
    pub from: *const f32,
    pub to: *mut f32,
    pub len: usize,
    pub rows: usize,
    pub log: bool,
}

impl Kernel for Rows {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        for r in 0..self.rows {
            // SAFETY: `Softmax::run`'s contract: `len` numbers a row on both sides.
            unsafe {
                let (from, to) = (self.from.add(r * self.len), self.to.add(r * self.len));
                if self.log {
                    log_row::<V>(from, to, self.len);
                } else {
                    row_of::<V>(from, to, self.len);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn log_row<V: F32>(from: *const f32, to: *mut f32, len: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        let top = top::<V>(from, len);
        let sum = row::<V>(Map::Exp, Combine::Sum, from, len, top);
        let (shift, less) = (V::splat(top), V::splat(sum.ln() as f32));
        let mut i = 0;
        while i + V::LANES <= len {
            (V::load(from.add(i)) - shift - less).store(to.add(i));
            i += V::LANES;
        }
        if i < len {
            (V::load_n(from.add(i), len - i) - shift - less).store_n(to.add(i), len - i);
        }
    }
}

/// Numbers summed in f32 before the sum goes into an f64; a multiple of every step.
const SUMMED: usize = 4096;
/// Rows of a strip summed so.
const SUMMED_ROWS: usize = 64;

#[inline(always)]
unsafe fn row_of<V: F32>(from: *const f32, to: *mut f32, len: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        let shift = V::splat(top::<V>(from, len));
        let (mut sums, mut total) = ([V::zero(); 2], 0.0f64);
        let mut i = 0;
        while i + 2 * V::LANES <= len {
            // Long sums go on in f64.
            if i % SUMMED == 0 {
                total += f64::from((sums[0] + sums[1]).sum());
                sums = [V::zero(); 2];
            }
            let a = vmath::exp_of_nonpositive(V::load(from.add(i)) - shift);
            let b = vmath::exp_of_nonpositive(V::load(from.add(i + V::LANES)) - shift);
            a.store(to.add(i));
            b.store(to.add(i + V::LANES));
            sums = [sums[0] + a, sums[1] + b];
            i += 2 * V::LANES;
        }
        while i < len {
            let n = V::LANES.min(len - i);
            let e = vmath::exp_of_nonpositive(V::load_n(from.add(i), n) - shift);
            e.store_n(to.add(i), n);
            sums[0] = sums[0] + V::select(V::M::first(n), e, V::zero());
            i += n;
        }
        let scale = V::splat((1.0 / (total + f64::from((sums[0] + sums[1]).sum()))) as f32);
        let mut i = 0;
        while i + V::LANES <= len {
            (V::load(to.add(i)) * scale).store(to.add(i));
            i += V::LANES;
        }
        if i < len {
            (V::load_n(to.add(i), len - i) * scale).store_n(to.add(i), len - i);
        }
    }
}

/// Up to 256 columns side by side, of arrays whose rows lie so many numbers apart.
pub(super) struct Strip {
    pub from: *const f32,
    pub from_step: usize,
    /// `axis` rows of `width` numbers for the work between; may be `from` or `to` if their step is `width`.
    pub work: *mut f32,
    pub to: *mut f32,
    pub to_step: usize,
    pub axis: usize,
    pub width: usize,
    pub log: bool,
}

impl Kernel for Strip {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let Strip { from, from_step, work, to, to_step, axis, width, log } = self;
        let mut tops = [f32::NEG_INFINITY; COLUMNS];
        let mut sums = [0.0f32; COLUMNS];
        let mut totals = [0.0f64; COLUMNS];
        let (tops, sums) = (tops.as_mut_ptr(), sums.as_mut_ptr());
        // Row by row, so that memory is read in lines. Only the last vector of a row may be a part of one: the arrays
        // have room for all of it.
        // SAFETY: `Softmax::run`'s contract: `width` columns of all rows, of which there are COLUMNS at most.
        unsafe {
            for i in 0..axis {
                for j in (0..width).step_by(V::LANES) {
                    let n = V::LANES.min(width - j);
                    let x = V::load_n(from.add(i * from_step + j), n);
                    x.store_n(work.add(i * width + j), n);
                    V::load(tops.add(j)).max(x).store(tops.add(j));
                }
            }
            for i in 0..axis {
                if i % SUMMED_ROWS == 0 {
                    // Long sums go on in f64.
                    for (j, total) in totals[..width].iter_mut().enumerate() {
                        *total += f64::from(*sums.add(j));
                        *sums.add(j) = 0.0;
                    }
                }
                for j in (0..width).step_by(V::LANES) {
                    let n = V::LANES.min(width - j);
                    let at = work.add(i * width + j);
                    let e = vmath::exp_of_nonpositive(V::load_n(at, n) - V::load(tops.add(j)));
                    (V::load(sums.add(j)) + e).store(sums.add(j));
                    if !log {
                        e.store_n(at, n);
                    }
                }
            }
            for (j, total) in totals[..width].iter().enumerate() {
                *sums.add(j) = (f64::from(*sums.add(j)) + total) as f32;
            }
            for j in (0..width).step_by(V::LANES) {
                let sum = V::load(sums.add(j));
                let finish = if log { vmath::log(sum) } else { vmath::reciprocal(sum) };
                finish.store(sums.add(j));
            }
            for i in 0..axis {
                for j in (0..width).step_by(V::LANES) {
                    let n = V::LANES.min(width - j);
                    let (x, k) = (V::load_n(work.add(i * width + j), n), V::load(sums.add(j)));
                    let y = if log { x - V::load(tops.add(j)) - k } else { x * k };
                    y.store_n(to.add(i * to_step + j), n);
                }
            }
        }
    }
}
