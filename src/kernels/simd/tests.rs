//! Every level's vectors against plain f32 arithmetic, lane by lane.

use super::*;

const VALUES: [f32; 16] = [
    0.5,
    -1.5,
    2.5,
    -0.0,
    0.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    1e-3,
    7.49,
    -7.51,
    123456.7,
    -2.0,
    3.5,
    -3.5,
    1.0,
];

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

struct Arithmetic;
impl Kernel for Arithmetic {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        for shift in 0..16 {
            let at = |i: usize| VALUES[i % 16];
            let a: Vec<f32> = (0..V::LANES).map(at).collect();
            let b: Vec<f32> = (0..V::LANES).map(|i| at(i + shift)).collect();
            // SAFETY: both have LANES values.
            let (va, vb) = unsafe { (V::load(a.as_ptr()), V::load(b.as_ptr())) };
            let check = |name: &str, got: V, want: &dyn Fn(f32, f32) -> f32| {
                for i in 0..V::LANES {
                    let (g, w) = (got.to_array()[i], want(a[i], b[i]));
                    assert!(same(g, w), "{name}({}, {}) = {g}, want {w}", a[i], b[i]);
                }
            };
            check("add", va + vb, &|a, b| a + b);
            check("sub", va - vb, &|a, b| a - b);
            check("mul", va * vb, &|a, b| a * b);
            check("div", va / vb, &|a, b| a / b);
            check("neg", -va, &|a, _| -a);
            check("min", va.min(vb), &|a, b| if a < b { a } else { b });
            check("max", va.max(vb), &|a, b| if a > b { a } else { b });
            check("sqrt", va.sqrt(), &|a, _| a.sqrt());
            check("abs", va.abs(), &|a, _| a.abs());
            check("copysign", va.copysign(vb), &|a, b| a.copysign(b));
            check("round", va.round(), &|a, _| a.round_ties_even());
            check("floor", va.floor(), &|a, _| a.floor());
            check("ceil", va.ceil(), &|a, _| a.ceil());
            check("trunc", va.trunc(), &|a, _| a.trunc());
            let (one, zero) = (V::splat(1.0), V::zero());
            check("lt", V::select(va.lt(vb), one, zero), &|a, b| (a < b) as u8 as f32);
            check("le", V::select(va.le(vb), one, zero), &|a, b| (a <= b) as u8 as f32);
            check("gt", V::select(va.gt(vb), one, zero), &|a, b| (a > b) as u8 as f32);
            check("ge", V::select(va.ge(vb), one, zero), &|a, b| (a >= b) as u8 as f32);
            check("eq", V::select(va.eq(vb), one, zero), &|a, b| (a == b) as u8 as f32);
            check("is_nan", V::select(va.is_nan(), one, zero), &|a, _| a.is_nan() as u8 as f32);
            check("xor", V::select(va.lt(vb) ^ va.le(vb), one, zero), &|a, b| ((a < b) ^ (a <= b)) as u8 as f32);
            check("not", V::select(!va.lt(vb), one, zero), &|a, b| 1.0 - (a < b) as u8 as f32);
            for (x, v) in [(&a, va), (&b, vb)] {
                let small = V::select(v.abs().lt(V::splat(1e6)), v, zero);
                let keep = |i: usize| if x[i].abs() < 1e6 { x[i] } else { 0.0 };
                let (r, t) = (small.to_i32_round().to_f32().to_array(), small.to_i32_trunc().to_f32().to_array());
                for i in 0..V::LANES {
                    assert_eq!((r[i], t[i]), (keep(i).round_ties_even(), keep(i).trunc()));
                }
                // Exact in f32, so fused or not makes no difference.
                let fma = small.mul_add(V::splat(2.0), V::splat(0.5)).to_array();
                let nfma = small.neg_mul_add(V::splat(2.0), V::splat(0.5)).to_array();
                let rough = small.round().abs().max(one);
                assert_eq!(rough.sum(), rough.to_array().iter().sum::<f32>());
                assert_eq!(rough.max_lane(), rough.to_array().into_iter().fold(0.0, f32::max));
                assert_eq!((-rough).min_lane(), -rough.max_lane());
                for i in 0..V::LANES {
                    let (k, tol) = (keep(i), keep(i).abs() * 1e-6);
                    assert!((fma[i] - (k * 2.0 + 0.5)).abs() <= tol && (nfma[i] - (0.5 - k * 2.0)).abs() <= tol);
                }
            }
        }
    }
}

struct Integers;
impl Kernel for Integers {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let n = V::LANES;
        let a: Vec<i32> = (0..n as i32).map(|i| i.wrapping_mul(0x1234_5679) ^ 0x55).collect();
        let b: Vec<i32> = (0..n as i32).map(|i| 7 - 3 * i).collect();
        // SAFETY: both have LANES values.
        let (va, vb) = unsafe { (V::I::load(a.as_ptr()), V::I::load(b.as_ptr())) };
        let check = |name: &str, got: V::I, want: &dyn Fn(i32, i32) -> i32| {
            let mut g = [0; 16];
            // SAFETY: 16 is the most lanes there are.
            unsafe { got.store(g.as_mut_ptr()) };
            for i in 0..n {
                assert_eq!(g[i], want(a[i], b[i]), "{name}({}, {})", a[i], b[i]);
            }
        };
        check("add", va + vb, &i32::wrapping_add);
        check("sub", va - vb, &i32::wrapping_sub);
        check("mul", va * vb, &i32::wrapping_mul);
        check("and", va & vb, &|a, b| a & b);
        check("or", va | vb, &|a, b| a | b);
        check("xor", va ^ vb, &|a, b| a ^ b);
        check("min", va.min(vb), &|a, b| a.min(b));
        check("max", va.max(vb), &|a, b| a.max(b));
        check("shl", va.shl(5), &|a, _| a << 5);
        check("shr", va.shr(5), &|a, _| (a as u32 >> 5) as i32);
        check("sar", va.sar(5), &|a, _| a >> 5);
        let (one, zero) = (V::I::splat(1), V::I::splat(0));
        check("gt", V::I::select(va.gt(vb), one, zero), &|a, b| (a > b) as i32);
        check("eq", V::I::select(va.eq(vb), one, zero), &|a, b| (a == b) as i32);
        check("bits", va.to_float_bits().to_bits(), &|a, _| a);
        assert_eq!(va.sum(), a.iter().fold(0i32, |s, x| s.wrapping_add(*x)));
        assert_eq!(V::I::iota().sum(), (n * (n - 1) / 2) as i32);
        let bytes: Vec<u8> = (0..n).map(|i| (i * 37) as u8).collect();
        let words: Vec<u16> = (0..n).map(|i| (i * 9377) as u16).collect();
        let (mut w8, mut w16, mut h) = ([0u8; 16], [0u16; 16], [0u16; 16]);
        // SAFETY: each buffer has LANES or 16 values.
        unsafe {
            V::I::load_u8(bytes.as_ptr()).store_u8(w8.as_mut_ptr());
            V::I::load_i16(words.as_ptr().cast()).store_u16(w16.as_mut_ptr());
            V::I::load_u16(words.as_ptr()).to_f32().store_f16(h.as_mut_ptr());
            let back = V::load_f16(h.as_ptr()).to_array();
            let i8s = V::I::load_i8(bytes.as_ptr().cast()).to_f32().to_array();
            let g = V::gather(back.as_ptr(), V::I::splat(n as i32 - 1) - V::I::iota()).to_array();
            for i in 0..n {
                assert_eq!((w8[i], w16[i], i8s[i]), (bytes[i], words[i], bytes[i] as i8 as f32));
                assert_eq!(h[i], half::f16::from_f32(words[i] as f32).to_bits());
                assert_eq!(back[i], half::f16::from_bits(h[i]).to_f32());
                assert_eq!(g[i], back[n - 1 - i]);
            }
        }
    }
}

struct Tails;
impl Kernel for Tails {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        for n in 0..=V::LANES {
            let src: Vec<f32> = (0..n).map(|i| i as f32 + 1.0).collect();
            let isrc: Vec<i32> = (0..n).map(|i| i as i32 + 1).collect();
            let (mut dst, mut idst) = ([-1.0f32; 17], [-1i32; 17]);
            // SAFETY: n values are read from vectors of n, and written to arrays of 17.
            let (v, iv) = unsafe { (V::load_n(src.as_ptr(), n), V::I::load_n(isrc.as_ptr(), n)) };
            unsafe { (v.store_n(dst.as_mut_ptr(), n), iv.store_n(idst.as_mut_ptr(), n)) };
            for i in 0..17 {
                let want = if i < n { i as f32 + 1.0 } else { -1.0 };
                assert_eq!((dst[i], idst[i]), (want, want as i32));
            }
            assert_eq!(v.sum(), (n * (n + 1) / 2) as f32);
            assert_eq!(V::M::first(n).bits(), ((1u64 << n) - 1) as u32);
            assert_eq!(V::M::first(n).any(), n > 0);
        }
    }
}

#[test]
fn every_level_agrees_with_plain_arithmetic() {
    for isa in Isa::detect().levels() {
        dispatch(isa, Arithmetic);
        dispatch(isa, Integers);
        dispatch(isa, Tails);
    }
}
