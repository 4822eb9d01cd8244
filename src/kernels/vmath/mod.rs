//! Elementary functions on vectors of f32: within 2 units in the last place of the true value over the whole range,
//! denormals, infinities and NaN included. The polynomials were fitted for these intervals (relative minimax, coefficients
//! rounded to f32 one after another); the scalar level goes through f64 instead.

pub mod scalar;
#[cfg(test)]
mod tests;

mod activation;
mod power;
pub use activation::{gelu, gelu_tanh, mish, multiply_add, swish};
pub use power::pow;

use super::simd::{F32, I32, Mask, scalar::F as ScalarVector};
use std::any::TypeId;

/// ln 2 as the sum of two f32.
const LN2: [f32; 2] = [std::f32::consts::LN_2, -1.904_654_3e-9];
/// π/2 as the sum of three f32.
const HALF_PI: [f32; 3] = [std::f32::consts::FRAC_PI_2, -4.371_139e-8, -1.715_124_5e-15];

/// Whether this is the plain Rust vector, which has no fused multiply-add.
#[inline(always)]
fn is_scalar<V: F32>() -> bool {
    TypeId::of::<V>() == TypeId::of::<ScalarVector>()
}

/// `f` of each lane.
#[inline(always)]
fn map<V: F32>(x: V, f: fn(f32) -> f32) -> V {
    let mut a = x.to_array();
    for lane in &mut a[..V::LANES] {
        *lane = f(*lane);
    }
    // SAFETY: the array holds 16 values, the most that a vector has.
    unsafe { V::load(a.as_ptr()) }
}

/// `f` of each pair of lanes.
#[inline(always)]
fn map2<V: F32>(x: V, y: V, f: fn(f32, f32) -> f32) -> V {
    let (mut a, b) = (x.to_array(), y.to_array());
    for i in 0..V::LANES {
        a[i] = f(a[i], b[i]);
    }
    // SAFETY: the array holds 16 values, the most that a vector has.
    unsafe { V::load(a.as_ptr()) }
}

/// `c[0] + c[1] x + c[2] x² + ...`
#[inline(always)]
fn poly<V: F32, const N: usize>(x: V, c: [f32; N]) -> V {
    let mut y = V::splat(c[N - 1]);
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        y = y.mul_add(x, V::splat(c[i]));
    }
    y
}

/// x = n ln 2 + r with n whole, |r| <= ln 2 / 2.
#[inline(always)]
fn reduce_exp<V: F32>(x: V) -> (V, V) {
    let n = (x * V::splat(std::f32::consts::LOG2_E)).round();
    (n, n.neg_mul_add(V::splat(LN2[1]), n.neg_mul_add(V::splat(LN2[0]), x)))
}

/// e^r - 1 for |r| <= ln 2 / 2, good enough to add one to.
#[inline(always)]
fn exp_near_zero<V: F32>(r: V) -> V {
    let p = poly(r, [0.5, 1.666652e-1, 4.1666385e-2, 8.368849e-3, 1.3942214e-3]);
    p.mul_add(r * r, r)
}

/// e^r - 1 for |r| <= ln 2 / 2 with a small relative error.
#[inline(always)]
fn expm1_near_zero<V: F32>(r: V) -> V {
    let p = poly(r, [0.5, 1.6666667e-1, 4.166649e-2, 8.333208e-3, 1.3932708e-3, 1.9944267e-4]);
    p.mul_add(r * r, r)
}

/// e^x.
#[inline(always)]
pub fn exp<V: F32>(x: V) -> V {
    if is_scalar::<V>() {
        return map(x, scalar::exp);
    }
    // Beyond the bounds the result is 0 or Inf; NaN passes both.
    let x = V::splat(-104.0).max(V::splat(89.0).min(x));
    let (n, r) = reduce_exp(x);
    (exp_near_zero(r) + V::splat(1.0)).scale(n)
}

/// e^x for x <= 0 where results below 1.2e-38 may become zero: softmax and its kin.
#[inline(always)]
pub fn exp_of_nonpositive<V: F32>(x: V) -> V {
    if is_scalar::<V>() {
        return map(x, scalar::exp);
    }
    let (n, r) = reduce_exp(V::splat(-87.5).max(x));
    // The bound itself gives n = -126; what lies below it becomes zero.
    let y = (exp_near_zero(r) + V::splat(1.0)) * n.two_to_whole();
    V::select(x.lt(V::splat(-87.3)), V::zero(), y)
}

/// 2^x.
#[inline(always)]
pub fn exp2<V: F32>(x: V) -> V {
    if is_scalar::<V>() {
        return map(x, scalar::exp2);
    }
    let x = V::splat(-150.5).max(V::splat(128.0).min(x));
    let n = x.round();
    // The difference is exact; ln 2 in two parts keeps its product so nearly.
    let d = x - n;
    let r = d.mul_add(V::splat(LN2[0]), d * V::splat(LN2[1]));
    (exp_near_zero(r) + V::splat(1.0)).scale(n)
}

/// e^x - 1.
#[inline(always)]
pub fn expm1<V: F32>(x: V) -> V {
    if is_scalar::<V>() {
        return map(x, scalar::expm1);
    }
    let bounded = V::splat(-18.0).max(V::splat(89.0).min(x));
    let (n, r) = reduce_exp(bounded);
    // Half the result, since 2^128 is no f32.
    let s = (n - V::splat(1.0)).two_to_whole();
    let half = s.mul_add(expm1_near_zero(r), s - V::splat(0.5));
    // A denormal's half would lose a bit; near zero the function is x.
    V::select(x.abs().lt(V::splat(1e-9)), x, half + half)
}

/// The logarithm of `u + c`, `u` positive and normal, `c` a correction far below it.
#[inline(always)]
fn log_of_sum<V: F32>(u: V, c: Option<V>, exponent: V::I) -> V {
    // u = 2^e m with √½ <= m < √2.
    let root_half = V::I::splat(0x3f35_04f3);
    let i = u.to_bits() - root_half;
    let e = i.sar(23);
    let m: V = ((i & V::I::splat(0x7f_ffff)) + root_half).to_float_bits();
    let mut f = m - V::splat(1.0);
    if let Some(c) = c {
        // The bound matters where c is zero.
        f = f + c * V::I::splat(-126).max(V::I::splat(0) - e).to_f32().two_to_whole();
    }
    log_series(f, (e + exponent).to_f32())
}

/// ln(1 + f) + e ln 2 for √½ - 1 <= f < √2 - 1.
#[inline(always)]
fn log_series<V: F32>(f: V, e: V) -> V {
    let q = poly(
        f,
        [
            3.333331e-1,
            -2.4999987e-1,
            2.0002224e-1,
            -1.666925e-1,
            1.4218716e-1,
            -1.2384402e-1,
            1.18726194e-1,
            -1.178937e-1,
            6.9156125e-2,
        ],
    );
    let f2 = f * f;
    let tail = (f2 * f).mul_add(q, e * V::splat(LN2[1]));
    let tail = f2.neg_mul_add(V::splat(0.5), tail);
    e.mul_add(V::splat(LN2[0]), f + tail)
}

/// Natural logarithm.
#[inline(always)]
pub fn log<V: F32>(x: V) -> V {
    if is_scalar::<V>() {
        return map(x, scalar::log);
    }
    let small = x.lt(V::splat(f32::MIN_POSITIVE));
    let u = V::select(small, x * V::splat(8_388_608.0), x);
    let y = log_of_sum(u, None, V::I::select(small, V::I::splat(-23), V::I::splat(0)));
    log_edges(x, V::select(x.lt(V::splat(f32::INFINITY)), y, x))
}

/// Puts in what the logarithm of zero and of negative numbers is.
#[inline(always)]
fn log_edges<V: F32>(x: V, y: V) -> V {
    let y = V::select(x.lt(V::zero()), V::splat(f32::NAN), y);
    V::select(x.eq(V::zero()), V::splat(f32::NEG_INFINITY), y)
}

/// ln(1 + x).
#[inline(always)]
pub fn log1p<V: F32>(x: V) -> V {
    if is_scalar::<V>() {
        return map(x, scalar::log1p);
    }
    let one = V::splat(1.0);
    let u = one + x;
    // What the sum's rounding lost; nothing that counts where x is large.
    let lost = V::select(x.lt(one), x - (u - one), one - (u - x));
    let lost = V::select(x.lt(V::splat(1e9)), lost, V::zero());
    let y = log_of_sum(u, Some(lost), V::I::splat(0));
    let y = V::select(x.lt(V::splat(f32::INFINITY)), y, x);
    log_edges(u, y).copysign(x)
}

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh<V: F32>(x: V) -> V {
    if is_scalar::<V>() {
        return map(x, scalar::tanh);
    }
    let a = V::splat(10.0).min(x.abs());
    let (n, r) = reduce_exp(a * V::splat(-2.0));
    let s = n.two_to_whole();
    // e^-2a - 1, which keeps its relative accuracy near zero.
    let e = s.mul_add(expm1_near_zero(r), s - V::splat(1.0));
    (e / (e + V::splat(2.0))).copysign(x)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<V: F32>(x: V) -> V {
    if is_scalar::<V>() {
        return map(x, scalar::sigmoid);
    }
    let one = V::splat(1.0);
    let e = exp(-x.abs());
    V::select(x.lt(V::zero()), e, one) / (one + e)
}

/// ln(1 + e^x).
#[inline(always)]
pub fn softplus<V: F32>(x: V) -> V {
    if is_scalar::<V>() {
        return map(x, scalar::softplus);
    }
    // ln(1 + y) for 0 < y <= 1: the sum is below 2, and its rounding is made good.
    let one = V::splat(1.0);
    let y = exp(-x.abs());
    let u = one + y;
    let above = u.gt(V::splat(std::f32::consts::SQRT_2));
    let half = V::select(above, V::splat(0.5), one);
    let f = u.mul_add(half, -one) + (y - (u - one)) * half;
    V::zero().max(x) + log_series(f, V::select(above, one, V::zero()))
}

/// Error function.
#[inline(always)]
pub fn erf<V: F32>(x: V) -> V {
    if is_scalar::<V>() {
        return map(x, scalar::erf);
    }
    let a = x.abs();
    let t = a * a;
    let p = poly(t, [1.2837917e-1, -3.761263e-1, 1.1283624e-1, -2.6855577e-2, 5.19188e-3, -8.042547e-4, 7.961893e-5]);
    let near = p.mul_add(x, x);
    // Further out 1 - e^z, with z the logarithm of the complement.
    let z = poly(
        V::splat(3.95).min(a),
        [-1.6643933e-4, -1.1277972, -6.369761e-1, -1.04113616e-1, 2.2315178e-2, -3.065483e-3, 1.9821929e-4],
    );
    let (n, r) = reduce_exp(z);
    let s = n.two_to_whole();
    let far = V::splat(1.0) - s.mul_add(exp_near_zero(r), s);
    V::select(a.lt(V::splat(0.9217)), near, far.copysign(x))
}

/// Sine and cosine of r + k π/2, |r| <= π/4.
#[inline(always)]
fn sin_quadrant<V: F32>(r: V, k: V::I) -> V {
    let t = r * r;
    let s = poly(t, [-1.6666667e-1, 8.333379e-3, -1.9853047e-4, 2.8320997e-6]).mul_add(t * r, r);
    let c = poly(t, [4.1666668e-2, -1.3888981e-3, 2.4822448e-5, -2.8918174e-7]);
    let c = c.mul_add(t * t, t.neg_mul_add(V::splat(0.5), V::splat(1.0)));
    let odd = (k & V::I::splat(1)).eq(V::I::splat(1));
    let y = V::select(odd, c, s);
    (y.to_bits() ^ (k & V::I::splat(2)).shl(30)).to_float_bits()
}

/// Largest magnitude that three parts of π/2 reduce well.
const TRIGONOMETRIC_RANGE: f32 = 32768.0;

/// x = n π/2 + r, |r| <= π/4 (little more).
#[inline(always)]
fn reduce_half_pi<V: F32>(x: V) -> (V::I, V) {
    let n = (x * V::splat(std::f32::consts::FRAC_2_PI)).round();
    let r = n.neg_mul_add(V::splat(HALF_PI[0]), x);
    let r = n.neg_mul_add(V::splat(HALF_PI[1]), r);
    (n.to_i32_round(), n.neg_mul_add(V::splat(HALF_PI[2]), r))
}

/// Sine.
#[inline(always)]
pub fn sin<V: F32>(x: V) -> V {
    if is_scalar::<V>() || (!x.abs().le(V::splat(TRIGONOMETRIC_RANGE))).any() {
        return map(x, scalar::sin);
    }
    let (n, r) = reduce_half_pi(x);
    V::select(x.eq(V::zero()), x, sin_quadrant(r, n))
}

/// Cosine.
#[inline(always)]
pub fn cos<V: F32>(x: V) -> V {
    if is_scalar::<V>() || (!x.abs().le(V::splat(TRIGONOMETRIC_RANGE))).any() {
        return map(x, scalar::cos);
    }
    let (n, r) = reduce_half_pi(x);
    sin_quadrant(r, n + V::I::splat(1))
}

/// 1 / x, correctly rounded.
#[inline(always)]
pub fn reciprocal<V: F32>(x: V) -> V {
    V::splat(1.0) / x
}

/// 1 / √x from a correctly rounded root and quotient.
#[inline(always)]
pub fn rsqrt<V: F32>(x: V) -> V {
    V::splat(1.0) / x.sqrt()
}

/// -1, 0 or 1; NaN stays.
#[inline(always)]
pub fn sign<V: F32>(x: V) -> V {
    let y = V::select(x.lt(V::zero()), V::splat(-1.0), x + V::zero());
    V::select(x.gt(V::zero()), V::splat(1.0), y)
}

/// The lesser; NaN if either is.
#[inline(always)]
pub fn least<V: F32>(a: V, b: V) -> V {
    // `min` gives b where either is NaN; a is NaN only in the lanes that the select mends.
    V::select(a.is_nan(), a, a.min(b))
}

/// The greater; NaN if either is.
#[inline(always)]
pub fn most<V: F32>(a: V, b: V) -> V {
    V::select(a.is_nan(), a, a.max(b))
}

macro_rules! by_lane {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<V: F32>(x: V) -> V {
            map(x, scalar::$name)
        }
    )*};
}
by_lane! {
    /// Tangent.
    tan;
    /// Inverse sine.
    asin;
    /// Inverse cosine.
    acos;
    /// Inverse tangent.
    atan;
    /// Hyperbolic sine.
    sinh;
    /// Hyperbolic cosine.
    cosh;
    /// Inverse hyperbolic sine.
    asinh;
    /// Inverse hyperbolic cosine.
    acosh;
    /// Inverse hyperbolic tangent.
    atanh;
}

/// The remainder with the sign of the dividend, as C has it.
#[inline(always)]
pub fn fmod<V: F32>(a: V, b: V) -> V {
    map2(a, b, |a, b| a % b)
}

/// The remainder with the sign of the divisor, as Python has it.
#[inline(always)]
pub fn modulo<V: F32>(a: V, b: V) -> V {
    map2(a, b, scalar::modulo)
}
