//! The power function. The logarithm is carried as the sum of two f32, since an exponent multiplies its error.

use super::{exp_near_zero, is_scalar, map2, poly, scalar};
use crate::kernels::simd::{F32, I32, Mask};

/// 2 / ln 2 as the sum of two f32.
const TWO_LOG2_E: [f32; 2] = [2.885_39, 3.851_926e-8];

/// log2 of a positive number, as a sum.
#[inline(always)]
fn log2_sum<V: F32>(a: V) -> (V, V) {
    let one = V::splat(1.0);
    let small = a.lt(V::splat(f32::MIN_POSITIVE));
    let u = V::select(small, a * V::splat(8_388_608.0), a);
    // u = 2^e m with √½ <= m < √2.
    let root_half = V::I::splat(0x3f35_04f3);
    let i = u.to_bits() - root_half;
    let e = (i.sar(23) + V::I::select(small, V::I::splat(-23), V::I::splat(0))).to_f32();
    let m: V = ((i & V::I::splat(0x7f_ffff)) + root_half).to_float_bits();
    // log2 m = 2/ln 2 (s + s³/3 + s⁵/5 ...) with s = (m - 1) / (m + 1), whose rounding is carried along.
    let (n, d) = (m - one, m + one);
    let d_lost = m - (d - one);
    let s = n / d;
    let s_lost = s.neg_mul_add(d_lost, s.neg_mul_add(d, n)) / d;
    let t = s * s;
    let series = poly(t, [9.617967e-1, 5.770789e-1, 4.119219e-1, 3.3660692e-1]);
    let (c, c_lost) = (V::splat(TWO_LOG2_E[0]), V::splat(TWO_LOG2_E[1]));
    let high = c * s;
    let low = c.mul_add(s, -high) + c_lost.mul_add(s, c * (s_lost + t * s_lost));
    let low = (t * s).mul_add(series, low);
    // e is zero or the greater of both.
    let sum = e + high;
    let low = low + ((e - sum) + high);
    let high = sum + low;
    (high, low - (high - sum))
}

/// `a` to the power `b`, with the special cases of C.
#[inline(always)]
pub fn pow<V: F32>(a: V, b: V) -> V {
    let (infinite, zero, one) = (V::splat(f32::INFINITY), V::zero(), V::splat(1.0));
    let finite = a.abs().lt(infinite) & b.abs().lt(infinite);
    if is_scalar::<V>() || (!finite).any() {
        return map2(a, b, scalar::pow);
    }
    let (high, low) = log2_sum(a.abs());
    let p = b * high;
    let p_low = b.mul_add(high, -p) + b * low;
    // Far outside the range the low part may be Inf - Inf.
    let p_low = V::select(p.abs().lt(V::splat(200.0)), p_low, zero);
    let p = V::splat(-151.0).max(V::splat(129.0).min(p));
    let n = p.round();
    let f = (p - n) + p_low;
    let y = (exp_near_zero(f * V::splat(std::f32::consts::LN_2)) + one).scale(n);

    // Zero to a power, and the sign of negative numbers. From 2^24 on all numbers are even.
    let y = V::select(a.eq(zero), V::select(b.lt(zero), infinite, zero), y);
    let whole = b.round().eq(b);
    let odd = whole & b.abs().lt(V::splat(16_777_216.0)) & (b.to_i32_trunc() & V::I::splat(1)).eq(V::I::splat(1));
    let y = V::select(odd, y.copysign(a), y);
    let y = V::select(a.lt(zero) & !whole, V::splat(f32::NAN), y);
    V::select(b.eq(zero), one, y)
}
