//! A causal convolution of one channel: each number is a weighted sum of itself and those before it.

use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, Kernel, dispatch};
use crate::kernels::vmath;

/// `out[t] = act(bias + sum_j weights[j] * padded[t + j])`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct CausalConv {
    /// `len + taps - 1` numbers: what came before, then the new ones.
    pub padded: *const f32,
    pub len: usize,
    pub weights: *const f32,
    pub taps: usize,
    pub bias: f32,
    /// x * sigmoid(x) at the end.
    pub silu: bool,
    pub out: *mut f32,
}

impl CausalConv {
    /// Runs the channel.
    /// # Safety
    /// The operands are valid by the sizes; `out` overlaps none of them.
    pub unsafe fn run(self, isa: Isa) {
        dispatch(isa, self)
    }
}

impl Kernel for CausalConv {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        for t in (0..self.len).step_by(V::LANES) {
            let n = V::LANES.min(self.len - t);
            let mut sum = V::splat(self.bias);
            // SAFETY: `CausalConv::run`'s contract: t + j + n is at most len + taps - 1.
            unsafe {
                for j in 0..self.taps {
                    sum = V::splat(*self.weights.add(j)).mul_add(V::load_n(self.padded.add(t + j), n), sum);
                }
                let y = if self.silu { sum * vmath::sigmoid(sum) } else { sum };
                y.store_n(self.out.add(t), n);
            }
        }
    }
}
