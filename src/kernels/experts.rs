//! Mixtures of experts: which rows go to which expert, products of a few or many rows with an expert's weights, and the
//! activations between them.

use super::attention::Dots;
use super::gemm::Activation;
use super::gemm::micro::tiles;
use super::gemm::multiply::{Job, k_block, multiply, scratch_len};
use super::gemm::pack::Strided;
use super::isa::Isa;
use super::simd::{F32, Kernel, dispatch};
use super::vmath;
use std::ptr::null;

/// Rows up to which dot products are faster than panels.
const FEW_ROWS: usize = 8;
/// Rows that are multiplied at once.
const ROWS: usize = 64;

/// The `out.len()` largest of `logits`, largest first, the earlier of equal ones first, with the softmax's weight of each: over
/// all, or over the `chosen` ones alone. `used` has room for a flag each.
pub fn route(logits: &[f32], out: &mut [(u32, f32)], used: &mut [u8], chosen: bool) {
    used.fill(0);
    for slot in out.iter_mut() {
        let mut best = None;
        for (i, &x) in logits.iter().enumerate() {
            if used[i] == 0 && best.is_none_or(|(_, top): (usize, f32)| x > top || top.is_nan() && !x.is_nan()) {
                best = Some((i, x));
            }
        }
        let Some((i, x)) = best else { return };
        used[i] = 1;
        *slot = (i as u32, x);
    }
    let Some(top) = out.first().map(|s| f64::from(s.1)) else { return };
    let e = |x: f32| (f64::from(x) - top).exp();
    let sum: f64 = if chosen { out.iter().map(|s| e(s.1)).sum() } else { logits.iter().map(|&x| e(x)).sum() };
    for slot in out {
        slot.1 = (e(slot.1) / sum) as f32;
    }
}

/// Floats of scratch that [`product`] needs for products over `k`.
pub fn scratch_floats(isa: Isa, k: usize) -> Option<usize> {
    scratch_len(tiles(isa), ROWS, k_block(k), false)
}

/// Rows times rows: `out[i][j] = x[i] . w[j]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Padded with zeros to whole vectors of 16.
    pub x: *const f32,
    /// From one row to the next.
    pub x_row: usize,
    /// How many.
    pub rows: usize,
    /// Rows of `k`, one after the other.
    pub w: *const f32,
    /// Rows of `w`.
    pub n: usize,
    /// Length of the products.
    pub k: usize,
    /// The result.
    pub out: *mut f32,
    /// From one row of it to the next.
    pub out_row: usize,
}

/// # Safety
/// All pointers are valid as the fields say; `scratch` for [`scratch_floats`].
pub unsafe fn product(isa: Isa, r: Rows, scratch: *mut f32) {
    if r.rows == 0 || r.n == 0 {
        return;
    }
    if r.rows <= FEW_ROWS {
        return dispatch(
            isa,
            Dots {
                q: r.x,
                q_row: r.x_row,
                rows: r.rows,
                k: r.w,
                k_row: r.k,
                keys: r.n,
                size: r.k,
                out: r.out,
                out_row: r.out_row,
            },
        );
    }
    let set = tiles(isa);
    for first in (0..r.rows).step_by(ROWS) {
        let job = Job {
            isa,
            set,
            m: ROWS.min(r.rows - first),
            n: r.n,
            k: r.k,
            kc: k_block(r.k),
            a: r.x.wrapping_add(first * r.x_row),
            a_row: r.x_row,
            a_col: 1,
            c: r.out.wrapping_add(first * r.out_row),
            c_row: r.out_row,
            bias_col: null(),
            bias_row: null(),
            residual: null(),
            residual_row: 0,
            activation: Activation::None,
            panels: 0..r.n.div_ceil(set.panel),
        };
        let b = Strided { isa, b: r.w, row: 1, col: r.k, n: r.n, width: set.panel, alpha: 1.0, in_place: false };
        // SAFETY: the caller's.
        unsafe { multiply(&job, &b, scratch) };
    }
}

/// What an expert does between its layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ExpertActivation {
    /// `max(x, 0)`.
    Relu,
    /// Its square.
    SquaredRelu,
    /// By tanh.
    Gelu,
    /// `x sigmoid(x)`.
    Silu,
    /// x.
    Identity,
    /// `g sigmoid(alpha g) (l + beta)`, g below `limit`, l within it.
    SwiGlu {
        /// Scales the sigmoid's argument.
        alpha: f32,
        /// Added to l.
        beta: f32,
        /// Bounds both; infinite for none.
        limit: f32,
        /// Bounds `g sigmoid(alpha g)`, not g.
        after: bool,
    },
    /// `gelu(g) l`.
    GeGlu,
}

/// An activation of a row.
#[derive(Clone, Copy, Debug)]
pub struct Activate {
    /// What is done.
    pub f: ExpertActivation,
    /// The row.
    pub x: *const f32,
    /// What it is multiplied by; null for none.
    pub linear: *const f32,
    /// The result, which may be `x`.
    pub to: *mut f32,
    /// Length.
    pub n: usize,
}

/// # Safety
/// All pointers are valid for `n` values.
pub unsafe fn activate(isa: Isa, a: Activate) {
    dispatch(isa, a)
}

#[inline(always)]
fn gelu<V: F32>(x: V) -> V {
    let inner = V::splat(0.797_884_6) * (x * x * x).mul_add(V::splat(0.044_715), x);
    V::splat(0.5) * x * (vmath::tanh(inner) + V::splat(1.0))
}

impl Kernel for Activate {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        for j in (0..self.n).step_by(V::LANES) {
            let n = V::LANES.min(self.n - j);
            // SAFETY: `activate`'s contract.
            unsafe {
                let x = V::load_n(self.x.add(j), n);
                let mut l = V::splat(1.0);
                if !self.linear.is_null() {
                    l = V::load_n(self.linear.add(j), n);
                }
                let y = match self.f {
                    ExpertActivation::Relu => x.max(V::zero()),
                    ExpertActivation::SquaredRelu => x.max(V::zero()) * x.max(V::zero()),
                    ExpertActivation::Gelu | ExpertActivation::GeGlu => gelu(x),
                    ExpertActivation::Silu => x * vmath::sigmoid(x),
                    ExpertActivation::Identity => x,
                    ExpertActivation::SwiGlu { alpha, beta, limit, after } => {
                        let most = V::splat(limit);
                        let g = if after { x } else { x.min(most) };
                        l = l.max(V::splat(-limit)).min(most) + V::splat(beta);
                        let y = g * vmath::sigmoid(g * V::splat(alpha));
                        if after { y.min(most) } else { y }
                    }
                };
                (y * l).store_n(self.to.add(j), n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::Rng;

    #[test]
    fn routes_to_the_largest() {
        let (mut out, mut used) = ([(0, 0.0); 2], [9; 4]);
        route(&[1.0, 3.0, 3.0, 2.0], &mut out, &mut used, true);
        assert_eq!(out, [(1, 0.5), (2, 0.5)]);
        route(&[0.0, f32::NAN, 0.0, 0.0], &mut out, &mut used, false);
        assert_eq!([out[0].0, out[1].0], [0, 2]);
    }

    #[test]
    fn products_agree_at_every_level() {
        let mut rng = Rng::new(5);
        for (rows, n, k) in [(1usize, 5usize, 3usize), (8, 33, 70), (9, 64, 40), (130, 31, 17), (0, 3, 3)] {
            let x_row = k.next_multiple_of(16);
            let mut x = rng.floats(rows * x_row);
            x.iter_mut().enumerate().filter(|(i, _)| i % x_row >= k).for_each(|(_, x)| *x = 0.0);
            let w = rng.floats(n * k);
            for isa in Isa::detect().levels() {
                let mut out = vec![0.0; rows * n];
                let mut scratch = vec![0.0; scratch_floats(isa, k).expect("small")];
                let (x_at, w_at, out_at) = (x.as_ptr(), w.as_ptr(), out.as_mut_ptr());
                let r = Rows { x: x_at, x_row, rows, w: w_at, n, k, out: out_at, out_row: n };
                // SAFETY: vectors of these sizes.
                unsafe { product(isa, r, scratch.as_mut_ptr()) };
                for (i, &y) in out.iter().enumerate() {
                    let (row, column) = (&x[i / n * x_row..], &w[i % n * k..]);
                    let want: f64 = (0..k).map(|c| f64::from(row[c]) * f64::from(column[c])).sum();
                    assert!((f64::from(y) - want).abs() < 1e-5, "{rows}x{n}x{k}[{i}]: {y}, not {want}");
                }
            }
        }
    }
}
