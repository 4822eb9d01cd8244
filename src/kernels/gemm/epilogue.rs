//! What happens to a GEMM or convolution result on its way to memory: bias, residual, activation.

use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, Kernel, dispatch};
use crate::kernels::vmath;

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
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// tanh x.
    Tanh,
    /// x / (1 + e^(-alpha * x)); SiLU where alpha is 1.
    Swish {
        /// Slope of the sigmoid's argument.
        alpha: f32,
    },
    /// x / 2 * (1 + erf(x / sqrt 2)).
    Gelu,
    /// x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))).
    GeluTanh,
    /// x where x >= 0, else alpha * (e^x - 1).
    Elu {
        /// Limit below zero.
        alpha: f32,
    },
    /// x * tanh(ln(1 + e^x)).
    Mish,
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
}

#[inline(always)]
fn hard_sigmoid<V: F32>(x: V, alpha: f32, beta: f32) -> V {
    let y = vmath::multiply_add(x, V::splat(alpha), V::splat(beta));
    V::splat(1.0).min(V::zero().max(y))
}

/// As the pointwise program has it: nothing cancels next to -3.
#[inline(always)]
fn hard_swish<V: F32>(x: V) -> V {
    let sum = V::splat(6.0).min(V::zero().max(x + V::splat(3.0)));
    x * (sum / V::splat(6.0))
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

/// Adds `rows` rows of `cols` values to as many of `c`, which lie as they do.
/// # Safety
/// Both are valid for those rows.
pub(crate) unsafe fn add(isa: Isa, residual: *const f32, c: *mut f32, rows: usize, cols: usize, row_stride: usize) {
    struct Sum(*const f32, *mut f32, usize, usize, usize);
    impl Kernel for Sum {
        type Out = ();
        #[inline(always)]
        fn run<V: F32>(self) {
            let Sum(residual, c, rows, cols, stride) = self;
            for i in 0..rows {
                for j in (0..cols).step_by(V::LANES) {
                    let (n, at) = (V::LANES.min(cols - j), i * stride + j);
                    // SAFETY: j + n <= cols, within the caller's row.
                    unsafe {
                        if n == V::LANES {
                            (V::load(c.add(at)) + V::load(residual.add(at))).store(c.add(at));
                        } else {
                            (V::load_n(c.add(at), n) + V::load_n(residual.add(at), n)).store_n(c.add(at), n);
                        }
                    }
                }
            }
        }
    }
    dispatch(isa, Sum(residual, c, rows, cols, row_stride))
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
            // One loop an activation, with that function alone in it.
            macro_rules! each {
                ($($act:pat => |$x:ident| $y:expr;)*) => {
                    match act {$(
                        $act => {
                            for i in 0..rows {
                                let mut j = 0;
                                while j < cols {
                                    let n = V::LANES.min(cols - j);
                                    // SAFETY: j + n <= cols, within the caller's row.
                                    unsafe {
                                        let p = c.add(i * stride + j);
                                        let $x = if n == V::LANES { V::load(p) } else { V::load_n(p, n) };
                                        let y: V = $y;
                                        if n == V::LANES { y.store(p) } else { y.store_n(p, n) }
                                    }
                                    j += n;
                                }
                            }
                        }
                    )*}
                };
            }
            each!(
                Activation::None => |x| x;
                Activation::Relu => |x| V::zero().max(x);
                Activation::Clip { min, max } => |x| V::splat(max).min(V::splat(min).max(x));
                Activation::LeakyRelu { alpha } => |x| V::select(x.lt(V::zero()), x * V::splat(alpha), x);
                Activation::HardSigmoid { alpha, beta } => |x| hard_sigmoid(x, alpha, beta);
                Activation::HardSwish => |x| hard_swish(x);
                Activation::Sigmoid => |x| vmath::sigmoid(x);
                Activation::Tanh => |x| vmath::tanh(x);
                Activation::Swish { alpha } => |x| vmath::swish(x, V::splat(alpha));
                Activation::Gelu => |x| vmath::gelu(x);
                Activation::GeluTanh => |x| vmath::gelu_tanh(x);
                Activation::Elu { alpha } => |x| V::select(x.lt(V::zero()), V::splat(alpha) * vmath::expm1(x), x);
                Activation::Mish => |x| vmath::mish(x);
            )
        }
    }
    dispatch(isa, Pass(act, c, rows, cols, row_stride))
}
