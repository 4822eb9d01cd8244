//! The smooth activation functions of networks: x times what goes to zero for negative x. Their results stay relatively
//! accurate down to the denormals, so that what e^x takes is carried as the sum of two f32 where a product made it.

use super::{exp_near_zero, is_scalar, map, map2, poly, reduce_exp, scalar};
use crate::kernels::simd::{F32, Mask};

/// Where t e^-t is zero, and up to where `scale` goes.
const BEYOND: f32 = 174.0;

/// Coefficients of x and x³ in 2√(2/π) (x + 0.044715 x³), as sums of two f32.
const TANH_1: [f32; 2] = [1.595_769_2, -4.534_068e-8];
const TANH_3: [f32; 2] = [7.135_481_4e-2, 2.398_832_4e-9];

/// x / (1 + e^-(high + low)).
#[inline(always)]
fn x_sigmoid<V: F32>(x: V, high: V, low: V) -> V {
    let (zero, one) = (V::zero(), V::splat(1.0));
    let negative = high.lt(zero);
    let t = high.abs();
    let (n, r) = reduce_exp(-V::splat(BEYOND).min(t));
    // The low part would be NaN where the high one is infinite.
    let low = V::select(t.lt(V::splat(BEYOND)), low, zero);
    let p = exp_near_zero(r - V::select(negative, -low, low));
    // e^-t is p + 1 times a power of two; its product with x is scaled last, since e^-t may be denormal.
    let e = (p + one).scale(n);
    let product = x.mul_add(p, x).scale(n);
    // Less e / (1 + e) of it: so that few roundings count where the factor is near one.
    let base = V::select(negative, product, x);
    let y = (e / (one + e)).neg_mul_add(base, base);
    let y = V::select(t.lt(V::splat(BEYOND)), y, V::select(negative, zero.copysign(x), x));
    // Infinity times zero.
    V::select(negative & x.abs().eq(V::splat(f32::INFINITY)), V::splat(f32::NAN), V::select(t.is_nan(), high + x, y))
}

/// x / (1 + e^-x).
#[inline(always)]
fn silu<V: F32>(x: V) -> V {
    let (one, negative) = (V::splat(1.0), x.lt(V::zero()));
    let bounded = V::splat(BEYOND).min(x.abs());
    let (n, r) = reduce_exp(-bounded);
    let p = exp_near_zero(r);
    let e = (p + one).scale(n);
    // x, or x e^x: scaled last, since e^x alone may be denormal.
    let near = V::select(negative, (-bounded).mul_add(p, -bounded).scale(n), bounded);
    // Infinity times zero.
    let base = V::select(negative, x.mul_add(V::zero(), near), x);
    // Less e / (1 + e) of it: so that few roundings count where the factor is near one.
    (e / (one + e)).neg_mul_add(near, base)
}

/// x / (1 + e^-(alpha x)).
#[inline(always)]
pub fn swish<V: F32>(x: V, alpha: V) -> V {
    if is_scalar::<V>() {
        return map2(x, alpha, scalar::swish);
    }
    // Nearly always so, and nothing is lost in the product then.
    if !(!alpha.eq(V::splat(1.0))).any() {
        return silu(x);
    }
    let high = x * alpha;
    x_sigmoid(x, high, x.mul_add(alpha, -high))
}

/// x / 2 (1 + tanh(√(2/π) (x + 0.044715 x³))).
#[inline(always)]
pub fn gelu_tanh<V: F32>(x: V) -> V {
    if is_scalar::<V>() {
        return map(x, scalar::gelu_tanh);
    }
    let (one, three) = (TANH_1.map(V::splat), TANH_3.map(V::splat));
    let square = x * x;
    let square_low = x.mul_add(x, -square);
    let cubic = three[0] * square;
    let cubic_low = three[0].mul_add(square, -cubic) + three[1].mul_add(square, three[0] * square_low);
    let factor = one[0] + cubic;
    // Whichever is greater: the sum's rounding is exact so.
    let back = factor - one[0];
    let lost = (one[0] - (factor - back)) + (cubic - back);
    let factor_low = lost + (one[1] + cubic_low);
    let high = x * factor;
    x_sigmoid(x, high, x.mul_add(factor, -high) + x * factor_low)
}

/// x / 2 (1 + erf(x / √2)).
#[inline(always)]
pub fn gelu<V: F32>(x: V) -> V {
    if is_scalar::<V>() {
        return map(x, scalar::gelu);
    }
    let (zero, one) = (V::zero(), V::splat(1.0));
    // Near zero x (½ + x P(x²)).
    let near = poly(x * x, [0.39894226, -0.06648938, 0.00995997, -0.001119344]);
    let near = x * near.mul_add(x, V::splat(0.5));
    // Further out by |x| Φ(-|x|), where Φ(-a) = e^(-a²/2) Q(t) / (a + 5/2) with t = (a - 5/2) / (a + 5/2). It is zero
    // from 15 on. What the roundings on the way lose is carried along: there would be too many of them.
    let a = V::splat(15.0).min(x.abs());
    let half = a * V::splat(0.5);
    let high = half * a;
    let low = half.mul_add(a, -high);
    let (n, r) = reduce_exp(-high);
    let p = exp_near_zero(r - low);
    let c = V::splat(2.5);
    let sum = a + c;
    let back = sum - c;
    let sum_lost = (c - (sum - back)) + (a - back);
    let q = one / sum;
    let q_lost = sum_lost.neg_mul_add(q, sum.neg_mul_add(q, one)) * q;
    let t = q.neg_mul_add(V::splat(5.0), one) - V::splat(5.0) * q_lost;
    let slope = poly(
        t,
        [
            -0.43369213,
            0.13198803,
            0.00923786,
            -0.016393863,
            -0.001610878,
            0.0025424762,
            0.0007048561,
            -0.0003259436,
            -0.00017241103,
        ],
    );
    let k = V::splat(0.70665663);
    let series = slope.mul_add(t, k);
    let series_lost = slope.mul_add(t, k - series);
    let b = a * q;
    let b_lost = a.mul_add(q, -b) + a * q_lost;
    let product = b * series;
    let product_lost = b.mul_add(series, -product) + b.mul_add(series_lost, b_lost * series);
    let tail = (product + product.mul_add(p, product_lost * (one + p))).scale(n);
    let far = (zero.max(x) - tail).copysign(x);
    let y = V::select(x.abs().lt(V::splat(0.5)), near, far);
    // Infinity times zero.
    V::select(x.eq(V::splat(f32::NEG_INFINITY)), V::splat(f32::NAN), V::select(x.is_nan(), x, y))
}

/// x tanh(ln(1 + e^x)).
#[inline(always)]
pub fn mish<V: F32>(x: V) -> V {
    if is_scalar::<V>() {
        return map(x, scalar::mish);
    }
    // With e = e^-|x|: x (1 - 2e² / (2e² + 2e + 1)), or for negative x: x e (1 - e (e + 1) / (e² + 2e + 2)).
    let (zero, one, two) = (V::zero(), V::splat(1.0), V::splat(2.0));
    let negative = x.lt(zero);
    let (n, r) = reduce_exp(-V::splat(BEYOND).min(x.abs()));
    let p = exp_near_zero(r);
    let e = (p + one).scale(n);
    let base = V::select(negative, x.mul_add(p, x).scale(n), x);
    let above = e + one;
    let below = V::select(negative, e.mul_add(e, two * above), (two * e).mul_add(above, one));
    let less = V::select(negative, e * above, two * e * e) / below;
    let y = less.neg_mul_add(base, base);
    let y = V::select(x.abs().lt(V::splat(BEYOND)), y, V::select(negative, zero.copysign(x), x));
    // Infinity times zero.
    V::select(x.eq(V::splat(f32::NEG_INFINITY)), V::splat(f32::NAN), V::select(x.is_nan(), x, y))
}

/// a b + c, rounded once at every level.
#[inline(always)]
pub fn multiply_add<V: F32>(a: V, b: V, c: V) -> V {
    if !is_scalar::<V>() {
        return a.mul_add(b, c);
    }
    let (mut a, b, c) = (a.to_array(), b.to_array(), c.to_array());
    for i in 0..V::LANES {
        a[i] = scalar::multiply_add(a[i], b[i], c[i]);
    }
    // SAFETY: the array holds 16 values, the most that a vector has.
    unsafe { V::load(a.as_ptr()) }
}
