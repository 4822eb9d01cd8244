//! What happens to a GEMM or convolution result on its way to memory: bias, residual, activation.

use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, Kernel, dispatch, scalar};

/// How a bias is laid over C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Bias {
    /// No bias.
    #[default]
    None,
    /// One value a column (N values).
    Column,
    /// One value a row (M values).
    Row,
}

/// The function applied last. A NaN stays NaN in each of them.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Activation {
    /// The value itself.
    #[default]
    None,
    /// max(x, 0).
    Relu,
    /// min(max(x, min), max).
    Clip {
        /// Lower limit.
        min: f32,
        /// Upper limit.
        max: f32,
    },
    /// x where x >= 0, else alpha * x.
    LeakyRelu {
        /// Slope below zero.
        alpha: f32,
    },
    /// max(0, min(1, alpha * x + beta)).
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at zero.
        beta: f32,
    },
    /// x * max(0, min(1, x / 6 + 1 / 2)).
    HardSwish,
}

impl Activation {
    /// The limits that the tile kernels apply in registers; infinite ones change nothing.
    pub(crate) fn clamp(self) -> (f32, f32) {
        match self {
            Activation::Relu => (0.0, f32::INFINITY),
            Activation::Clip { min, max } => (min, max),
            _ => (f32::NEG_INFINITY, f32::INFINITY),
        }
    }
    /// Whether `clamp` is the whole of it, so that no second pass is needed.
    pub(crate) fn is_clamp(self) -> bool {
        matches!(self, Activation::None | Activation::Relu | Activation::Clip { .. })
    }
    /// Its value at zero: where that is not zero, padding lanes must be cleared.
    pub(crate) fn of_zero(self) -> f32 {
        self.apply(scalar::F::splat(0.0)).0[0]
    }
    /// The function itself, for a vector.
    #[inline(always)]
    pub(crate) fn apply<V: F32>(self, x: V) -> V {
        match self {
            Activation::None => x,
            Activation::Relu => V::zero().max(x),
            Activation::Clip { min, max } => V::splat(max).min(V::splat(min).max(x)),
            Activation::LeakyRelu { alpha } => V::select(x.lt(V::zero()), x * V::splat(alpha), x),
            Activation::HardSigmoid { alpha, beta } => hard_sigmoid(x, alpha, beta),
            Activation::HardSwish => x * hard_sigmoid(x, 1.0 / 6.0, 0.5),
        }
    }
}

#[inline(always)]
fn hard_sigmoid<V: F32>(x: V, alpha: f32, beta: f32) -> V {
    let y = V::splat(alpha) * x + V::splat(beta);
    V::splat(1.0).min(V::zero().max(y))
}

/// bias, residual and activation of one kernel; which of them there are, not where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Epilogue {
    /// Whether and how a bias is added.
    pub bias: Bias,
    /// Whether a residual of C's shape is added (after the bias, before the activation).
    pub residual: bool,
    /// The function applied last.
    pub activation: Activation,
}

/// Applies an activation in place to `rows` rows of `cols` values.
/// # Safety
/// `c` is valid for reading and writing those rows.
pub(crate) unsafe fn activate(isa: Isa, act: Activation, c: *mut f32, rows: usize, cols: usize, row_stride: usize) {
    struct Pass(Activation, *mut f32, usize, usize, usize);
    impl Kernel for Pass {
        type Out = ();
        #[inline(always)]
        fn run<V: F32>(self) {
            let Pass(act, c, rows, cols, stride) = self;
            // One loop an activation, so that the choice is made outside it.
            match act {
                Activation::None => {}
                Activation::Relu => each::<V, _>(c, rows, cols, stride, |x: V| Activation::Relu.apply(x)),
                Activation::Clip { min, max } => {
                    each::<V, _>(c, rows, cols, stride, |x: V| Activation::Clip { min, max }.apply(x))
                }
                Activation::LeakyRelu { alpha } => {
                    each::<V, _>(c, rows, cols, stride, |x: V| Activation::LeakyRelu { alpha }.apply(x))
                }
                Activation::HardSigmoid { alpha, beta } => {
                    each::<V, _>(c, rows, cols, stride, |x: V| Activation::HardSigmoid { alpha, beta }.apply(x))
                }
                Activation::HardSwish => each::<V, _>(c, rows, cols, stride, |x: V| Activation::HardSwish.apply(x)),
            }
        }
    }
    #[inline(always)]
    fn each<V: F32, G: Fn(V) -> V>(c: *mut f32, rows: usize, cols: usize, stride: usize, f: G) {
        for i in 0..rows {
            let mut j = 0;
            while j < cols {
                let n = V::LANES.min(cols - j);
                // SAFETY: j + n <= cols, within the caller's row.
                unsafe {
                    let p = c.add(i * stride + j);
                    if n == V::LANES {
                        f(V::load(p)).store(p);
                    } else {
                        f(V::load_n(p, n)).store_n(p, n);
                    }
                }
                j += n;
            }
        }
    }
    dispatch(isa, Pass(act, c, rows, cols, row_stride))
}
