//! Every function at every level against f64, over the whole range of f32.

use super::*;
use crate::kernels::isa::Isa;
use crate::kernels::simd::{Kernel, dispatch};
use crate::kernels::testing::Rng;

/// Distance in units in the last place; NaN equals NaN, and zeros of either sign are apart.
fn ulps(got: f32, want: f32) -> u32 {
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() && want.is_nan() { 0 } else { u32::MAX };
    }
    let order = |x: f32| {
        let i = x.to_bits() as i32;
        i64::from(if i < 0 { i32::MIN.wrapping_sub(i).wrapping_sub(1) } else { i })
    };
    (order(got) - order(want)).unsigned_abs() as u32
}

/// Bit patterns all over the range: every 1021st, and the edges.
fn sweep() -> Vec<f32> {
    let mut bits: Vec<u32> = (0..u32::MAX).step_by(1021 * 3).collect();
    for k in 0..32 {
        for sign in [0u32, 1 << 31] {
            for d in 0..4u32 {
                bits.push((1u32 << k).wrapping_add(d) | sign);
                bits.push((1u32 << k).wrapping_sub(d) | sign);
            }
        }
    }
    // Where functions change their ways.
    for x in
        [0.0f32, 1.0, 2.0, 0.5, 0.9217, 3.95, 10.0, 18.0, 87.3, 88.72, 89.0, 104.0, 128.0, 150.0, 32768.0, 0.70710677]
    {
        for d in 0..200 {
            for s in [0, 1 << 31] {
                bits.push((x.to_bits() + d) | s);
                bits.push(x.to_bits().saturating_sub(d) | s);
            }
        }
    }
    // More of the magnitudes that models use.
    let mut state = 7u64;
    for _ in 0..300_000 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        bits.push(((state >> 33) as u32 & 0x807f_ffff) | ((0x70 + ((state >> 20) as u32 & 0x1f)) << 23));
    }
    bits.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, f32::MAX, f32::MIN].map(f32::to_bits));
    while !bits.len().is_multiple_of(16) {
        bits.push(0);
    }
    bits.into_iter().map(f32::from_bits).collect()
}

/// Functions of two operands, one of them fixed.
mod fixed {
    use super::super::{F32, swish};
    #[inline(always)]
    pub fn silu<V: F32>(x: V) -> V {
        swish(x, V::splat(1.0))
    }
    #[inline(always)]
    pub fn quick_gelu<V: F32>(x: V) -> V {
        swish(x, V::splat(1.702))
    }
}

macro_rules! check {
    ($name:ident, $bound:expr, $reference:expr) => {
        check!($name = super::$name, $bound, $reference);
    };
    ($name:ident = $function:path, $bound:expr, $reference:expr) => {
        #[test]
        fn $name() {
            struct Run<'a>(&'a [f32], &'a mut [f32]);
            impl Kernel for Run<'_> {
                type Out = ();
                #[inline(always)]
                fn run<V: F32>(self) {
                    for i in (0..self.0.len()).step_by(V::LANES) {
                        // SAFETY: both slices have a multiple of 16 elements.
                        unsafe { $function(V::load(self.0.as_ptr().add(i))).store(self.1.as_mut_ptr().add(i)) }
                    }
                }
            }
            let reference: fn(f64) -> f64 = $reference;
            let xs = sweep();
            for isa in Isa::detect().levels() {
                let mut ys = vec![0.0f32; xs.len()];
                dispatch(isa, Run(&xs, &mut ys));
                let mut worst = (0, 0.0, 0.0, 0.0);
                for (&x, &y) in xs.iter().zip(&ys) {
                    let want = reference(f64::from(x)) as f32;
                    let d = ulps(y, want);
                    if d > worst.0 {
                        worst = (d, x, y, want);
                    }
                }
                assert!(
                    worst.0 <= $bound,
                    "{isa:?}: {} ulp at {:e}: {:e}, not {:e}",
                    worst.0,
                    worst.1,
                    worst.2,
                    worst.3
                );
            }
        }
    };
}

// The bound is the promise of the module; correctly rounded operations keep it with room.
check!(exp, 2, f64::exp);
check!(exp2, 2, f64::exp2);
check!(expm1, 2, f64::exp_m1);
check!(log, 2, f64::ln);
check!(log1p, 2, f64::ln_1p);
check!(tanh, 2, f64::tanh);
check!(erf, 2, scalar::erf64);
check!(sigmoid, 2, scalar::sigmoid64);
check!(softplus, 2, scalar::softplus64);
check!(gelu, 2, scalar::gelu64);
check!(gelu_tanh, 2, scalar::gelu_tanh64);
check!(mish, 2, scalar::mish64);
check!(silu = fixed::silu, 2, |x| scalar::swish64(x, 1.0));
check!(quick_gelu = fixed::quick_gelu, 2, |x| scalar::swish64(x, f64::from(1.702f32)));
check!(sin, 2, f64::sin);
check!(cos, 2, f64::cos);
check!(tan, 2, f64::tan);
check!(asin, 2, f64::asin);
check!(acos, 2, f64::acos);
check!(atan, 2, f64::atan);
check!(sinh, 2, f64::sinh);
check!(cosh, 2, f64::cosh);
check!(asinh, 2, scalar::asinh64);
check!(acosh, 2, scalar::acosh64);
check!(atanh, 2, f64::atanh);
check!(reciprocal, 1, |x| 1.0 / x);
check!(rsqrt, 2, |x| 1.0 / x.sqrt());
check!(sign, 0, |x| if x > 0.0 {
    1.0
} else if x < 0.0 {
    -1.0
} else {
    x + 0.0
});

#[test]
fn powers() {
    struct Run<'a>(&'a [f32], &'a [f32], &'a mut [f32]);
    impl Kernel for Run<'_> {
        type Out = ();
        #[inline(always)]
        fn run<V: F32>(self) {
            for i in (0..self.0.len()).step_by(V::LANES) {
                // SAFETY: the slices have the same length, a multiple of 16.
                unsafe {
                    let (a, b) = (V::load(self.0.as_ptr().add(i)), V::load(self.1.as_ptr().add(i)));
                    super::pow(a, b).store(self.2.as_mut_ptr().add(i));
                }
            }
        }
    }
    let (mut a, mut b) = (vec![], vec![]);
    let edges = [
        0.0f32,
        1.0,
        0.5,
        2.0,
        3.0,
        1e-40,
        1e38,
        16777216.0,
        16777217.0,
        0.99999994,
        1.0000001,
        f32::INFINITY,
        f32::NAN,
    ];
    for x in edges {
        for y in edges {
            for (s, t) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
                a.push(s * x);
                b.push(t * y);
            }
        }
    }
    let mut rng = Rng::new(3);
    for i in 0..2_000_000 {
        // Any base; exponents that keep the result within the range, or simple ones.
        let x = f32::from_bits(rng.next() as u32 & 0x7fff_ffff);
        let x = if i % 3 == 0 {
            1.0 + rng.float() * 0.9
        } else if x.is_nan() {
            2.0
        } else {
            x
        };
        let most = 150.0 / x.log2().abs().max(1e-3);
        let y = match i % 4 {
            0 => rng.below(21) as f32 - 10.0,
            1 => rng.float() * 3.0,
            _ => rng.float() * most,
        };
        a.push(if i % 7 == 0 { -x } else { x });
        b.push(y);
    }
    while !a.len().is_multiple_of(16) {
        a.push(1.0);
        b.push(1.0);
    }
    for isa in Isa::detect().levels() {
        let mut out = vec![0.0f32; a.len()];
        dispatch(isa, Run(&a, &b, &mut out));
        for i in 0..a.len() {
            let want = f64::from(a[i]).powf(f64::from(b[i])) as f32;
            let d = ulps(out[i], want);
            assert!(d <= 2, "{isa:?}: {d} ulp, {:e} ^ {:e} = {:e}, not {want:e}", a[i], b[i], out[i]);
        }
    }
}

#[test]
fn exp_of_nonpositive_flushes_only_denormals() {
    struct Run(f32);
    impl Kernel for Run {
        type Out = f32;
        #[inline(always)]
        fn run<V: F32>(self) -> f32 {
            super::exp_of_nonpositive(V::splat(self.0)).to_array()[0]
        }
    }
    for isa in Isa::detect().levels() {
        for i in 0..40_000 {
            let x = -(i as f32) / 300.0;
            let (got, want) = (dispatch(isa, Run(x)), scalar::exp(x));
            assert!(ulps(got, want) <= 2 || (want < 1.3e-38 && got == 0.0), "{isa:?} {x}: {got:e}, not {want:e}");
        }
        assert_eq!(dispatch(isa, Run(f32::NEG_INFINITY)), 0.0);
        assert!(dispatch(isa, Run(f32::NAN)).is_nan());
    }
}

#[test]
fn inverse_hyperbolics_in_f64_agree_with_std_where_it_is_good() {
    for x in [1.5f64, 2.0, 10.0, 1e5] {
        // std's formulas are good to about 1e-15 here.
        assert!((scalar::asinh64(x) / x.asinh() - 1.0).abs() < 1e-14);
        assert!((scalar::acosh64(x) / x.acosh() - 1.0).abs() < 1e-14);
    }
}

#[test]
fn infinities_and_nan() {
    struct Run<'a>(&'a [f32; 3], &'a mut [[f32; 16]; 6]);
    impl Kernel for Run<'_> {
        type Out = ();
        #[inline(always)]
        fn run<V: F32>(self) {
            let mut x = [0.0f32; 16];
            x[..3].copy_from_slice(self.0);
            // SAFETY: 16 is the most lanes there are.
            let x = unsafe { V::load(x.as_ptr()) };
            let nan = V::splat(f32::NAN);
            let ys = [
                super::gelu(x),
                super::gelu_tanh(x),
                super::mish(x),
                swish(x, V::splat(1.0)),
                swish(x, nan),
                swish(x, V::splat(-1.0)),
            ];
            for (y, to) in ys.iter().zip(self.1) {
                *to = y.to_array();
            }
        }
    }
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for isa in Isa::detect().levels() {
        let mut ys = [[0.0; 16]; 6];
        dispatch(isa, Run(&[inf, -inf, nan], &mut ys));
        // Minus infinity times zero is NaN, as the formula says.
        for (k, y) in ys.iter().enumerate() {
            let want = [[inf, nan, nan], [nan; 3], [nan, -inf, nan]][[0, 0, 0, 0, 1, 2][k]];
            for (got, want) in y.iter().zip(&want) {
                assert!(got == want || got.is_nan() && want.is_nan(), "{isa:?} function {k}: {got}, not {want}");
            }
        }
    }
}
