//! Linear quantisation: `q = round(x / scale) + zero`, `x = (q - zero) * scale`, over runs of numbers.

use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, I32, Kernel, dispatch};

/// Scales and zero points of a run: one of each for all of it, or one for each number.
#[derive(Clone, Copy)]
pub struct Params {
    /// Scales.
    pub scale: *const f32,
    /// Zero points; integers up to 17 bits are exact.
    pub zero: *const f32,
    /// Whether each number has its own; else the first serves all.
    pub each: bool,
}

/// How quantised integers lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Int {
    U8,
    I8,
    U16,
    I16,
    I32,
}

impl Int {
    /// Bytes of one.
    pub fn size(self) -> usize {
        match self {
            Int::U8 | Int::I8 => 1,
            Int::U16 | Int::I16 => 2,
            Int::I32 => 4,
        }
    }
}

/// The limits of a quantised integer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The least.
    pub lo: f32,
    /// The greatest.
    pub hi: f32,
}

#[inline(always)]
unsafe fn part<V: F32>(p: *const f32, each: bool, i: usize, n: usize) -> V {
    // SAFETY: the caller's: n numbers from `i` on, or one.
    unsafe {
        match each {
            true if n == V::LANES => V::load(p.add(i)),
            true => V::load_n(p.add(i), n),
            false => V::splat(*p),
        }
    }
}

/// `x[i] /= scale[i]`.
/// # Safety
/// `x` is valid for `n` numbers, the scales as `p` says.
pub unsafe fn divide(isa: Isa, x: *mut f32, n: usize, p: Params) {
    struct Divide(*mut f32, usize, Params);
    impl Kernel for Divide {
        type Out = ();
        #[inline(always)]
        fn run<V: F32>(self) {
            let Divide(x, n, p) = self;
            let mut i = 0;
            while i < n {
                let m = V::LANES.min(n - i);
                // SAFETY: i + m <= n.
                unsafe { (part::<V>(x, true, i, m) / part::<V>(p.scale, p.each, i, m)).store_n(x.add(i), m) };
                i += m;
            }
        }
    }
    dispatch(isa, Divide(x, n, p))
}

/// Rounds to even numbers that are divided by their scales already, adds the zero point, and limits the result; what is no
/// number becomes the least one. Writes the low bytes: one for ranges of 8 bits and fewer, two for others.
/// # Safety
/// `x` is valid for `n` numbers, `to` for as many integers, the zero points as `p` says.
pub unsafe fn quantize(isa: Isa, x: *const f32, n: usize, p: Params, range: Range, to: *mut u8) {
    struct Quantize(*const f32, usize, Params, Range, *mut u8);
    impl Kernel for Quantize {
        type Out = ();
        #[inline(always)]
        fn run<V: F32>(self) {
            let Quantize(x, n, p, range, to) = self;
            let wide = range.hi - range.lo > 255.0;
            let (lo, hi) = (V::splat(range.lo), V::splat(range.hi));
            let mut i = 0;
            while i < n {
                let m = V::LANES.min(n - i);
                // SAFETY: i + m <= n; a part of a vector is written by way of an array.
                unsafe {
                    let zero = part::<V>(p.zero, p.each, i, m);
                    let q = part::<V>(x, true, i, m).round();
                    // Limited before the sum, which is exact then; max gives its second operand for NaN.
                    let q = (q.max(lo - zero).min(hi - zero) + zero).to_i32_round();
                    match (wide, m == V::LANES) {
                        (true, true) => q.store_u16(to.cast::<u16>().add(i)),
                        (false, true) => q.store_u8(to.add(i)),
                        (true, false) => {
                            let mut rest = [0u16; 16];
                            q.store_u16(rest.as_mut_ptr());
                            std::ptr::copy_nonoverlapping(rest.as_ptr(), to.cast::<u16>().add(i), m);
                        }
                        (false, false) => {
                            let mut rest = [0u8; 16];
                            q.store_u8(rest.as_mut_ptr());
                            std::ptr::copy_nonoverlapping(rest.as_ptr(), to.add(i), m);
                        }
                    }
                }
                i += m;
            }
        }
    }
    dispatch(isa, Quantize(x, n, p, range, to))
}

/// `(q - zero) * scale`.
/// # Safety
/// `q` is valid for `n` integers of the type, `to` for as many numbers, the scales and zero points as `p` says.
pub unsafe fn dequantize(isa: Isa, int: Int, q: *const u8, n: usize, p: Params, to: *mut f32) {
    struct Dequantize(Int, *const u8, usize, Params, *mut f32);
    impl Kernel for Dequantize {
        type Out = ();
        #[inline(always)]
        fn run<V: F32>(self) {
            let Dequantize(int, q, n, p, to) = self;
            let mut i = 0;
            while i < n {
                let m = V::LANES.min(n - i);
                // SAFETY: i + m <= n; a part of a vector is read by way of an array.
                unsafe {
                    let mut rest = [0u32; 16];
                    let mut from = q.add(i * int.size());
                    if m < V::LANES {
                        std::ptr::copy_nonoverlapping(from, rest.as_mut_ptr().cast(), m * int.size());
                        from = rest.as_ptr().cast();
                    }
                    let x = match int {
                        Int::U8 => V::I::load_u8(from),
                        Int::I8 => V::I::load_i8(from.cast()),
                        Int::U16 => V::I::load_u16(from.cast()),
                        Int::I16 => V::I::load_i16(from.cast()),
                        Int::I32 => V::I::load(from.cast()),
                    };
                    let zero = part::<V>(p.zero, p.each, i, m);
                    let y = (x.to_f32() - zero) * part::<V>(p.scale, p.each, i, m);
                    if m == V::LANES { y.store(to.add(i)) } else { y.store_n(to.add(i), m) }
                }
                i += m;
            }
        }
    }
    dispatch(isa, Dequantize(int, q, n, p, to))
}

/// `x[i] = (x[i] - zero) * scale`.
/// # Safety
/// `x` is valid for `n` numbers, the scales and zero points as `p` says.
pub unsafe fn dequantize_real(isa: Isa, x: *mut f32, n: usize, p: Params) {
    struct Affine(*mut f32, usize, Params);
    impl Kernel for Affine {
        type Out = ();
        #[inline(always)]
        fn run<V: F32>(self) {
            let Affine(x, n, p) = self;
            let mut i = 0;
            while i < n {
                let m = V::LANES.min(n - i);
                // SAFETY: i + m <= n.
                unsafe {
                    let y = part::<V>(x, true, i, m) - part::<V>(p.zero, p.each, i, m);
                    (y * part::<V>(p.scale, p.each, i, m)).store_n(x.add(i), m)
                }
                i += m;
            }
        }
    }
    dispatch(isa, Affine(x, n, p))
}

/// The least and greatest of zero and the numbers. A NaN is passed over.
/// # Safety
/// `x` is valid for `n` numbers.
pub unsafe fn extent(isa: Isa, x: *const f32, n: usize) -> (f32, f32) {
    struct Extent(*const f32, usize);
    impl Kernel for Extent {
        type Out = (f32, f32);
        #[inline(always)]
        fn run<V: F32>(self) -> (f32, f32) {
            let Extent(x, n) = self;
            let (mut lo, mut hi) = (V::zero(), V::zero());
            let mut i = 0;
            while i < n {
                let m = V::LANES.min(n - i);
                // SAFETY: i + m <= n. Lanes that are not there count as zero, which is counted anyway.
                let v = unsafe { part::<V>(x, true, i, m) };
                (lo, hi) = (v.min(lo), v.max(hi));
                i += m;
            }
            (lo.min_lane(), hi.max_lane())
        }
    }
    dispatch(isa, Extent(x, n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::Rng;

    fn plain(x: f32, scale: f32, zero: f32, r: Range) -> i64 {
        let q = f64::from((x / scale).round_ties_even()) + f64::from(zero);
        if q.is_nan() { r.lo as i64 } else { q.clamp(f64::from(r.lo), f64::from(r.hi)) as i64 }
    }

    #[test]
    fn quantises_as_the_formula_says() {
        let mut rng = Rng::new(5);
        let ranges = [(0.0, 255.0), (-128.0, 127.0), (0.0, 65535.0), (-32768.0, 32767.0), (-8.0, 7.0), (0.0, 3.0)];
        for isa in Isa::detect().levels() {
            for (lo, hi) in ranges {
                for n in [0usize, 1, 7, 8, 16, 31, 100] {
                    for each in [false, true] {
                        let range = Range { lo, hi };
                        let mut x: Vec<f32> = rng.floats(n).iter().map(|v| v * 1.2 * (hi - lo)).collect();
                        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.5, 1.5, 3e38];
                        x.iter_mut().zip(special).for_each(|(x, s)| *x = s);
                        let scale: Vec<f32> = rng.floats(n.max(1)).iter().map(|v| 1.0 + v.abs()).collect();
                        let zero: Vec<f32> =
                            (0..n.max(1)).map(|_| lo + rng.below((hi - lo) as usize + 1) as f32).collect();
                        let mut got = vec![0u8; 2 * n];
                        let p = Params { scale: scale.as_ptr(), zero: zero.as_ptr(), each };
                        let mut divided = x.clone();
                        // SAFETY: all arrays have n elements.
                        unsafe {
                            divide(isa, divided.as_mut_ptr(), n, p);
                            quantize(isa, divided.as_ptr(), n, p, range, got.as_mut_ptr());
                        }
                        for i in 0..n {
                            let j = if each { i } else { 0 };
                            let want = plain(x[i], scale[j], zero[j], range);
                            let got = match hi - lo > 255.0 {
                                true => u16::from_le_bytes([got[2 * i], got[2 * i + 1]]),
                                false => u16::from(got[i]),
                            };
                            let mask = if hi - lo > 255.0 { 0xffff } else { 0xff };
                            assert_eq!(i64::from(got), want & mask, "{isa:?} {range:?} {}", x[i]);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn dequantises_as_the_formula_says() {
        let mut rng = Rng::new(6);
        for isa in Isa::detect().levels() {
            for int in [Int::U8, Int::I8, Int::U16, Int::I16, Int::I32] {
                for n in [0usize, 1, 8, 19, 64] {
                    for each in [false, true] {
                        let bytes: Vec<u8> = (0..n * int.size()).map(|_| rng.next() as u8).collect();
                        let scale = rng.floats(n.max(1));
                        let zero: Vec<f32> = (0..n.max(1)).map(|_| rng.below(256) as f32).collect();
                        let p = Params { scale: scale.as_ptr(), zero: zero.as_ptr(), each };
                        let mut got = vec![0.0; n];
                        // SAFETY: all arrays have n elements.
                        unsafe { dequantize(isa, int, bytes.as_ptr(), n, p, got.as_mut_ptr()) };
                        for i in 0..n {
                            let b = |k: usize| bytes[i * int.size() + k];
                            let q = match int {
                                Int::U8 => i32::from(b(0)),
                                Int::I8 => i32::from(b(0) as i8),
                                Int::U16 => i32::from(u16::from_le_bytes([b(0), b(1)])),
                                Int::I16 => i32::from(i16::from_le_bytes([b(0), b(1)])),
                                Int::I32 => i32::from_le_bytes([b(0), b(1), b(2), b(3)]),
                            };
                            let j = if each { i } else { 0 };
                            assert_eq!(got[i], (q as f32 - zero[j]) * scale[j], "{isa:?} {int:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_extent_has_zero_in_it() {
        for isa in Isa::detect().levels() {
            for x in [vec![], vec![1.0f32, 2.0, 3.0], (0..100).map(|i| i as f32 - 70.0).collect(), vec![f32::NAN, -1.0]]
            {
                let want = x.iter().fold((0.0f32, 0.0f32), |(a, b), &v| (a.min(v), b.max(v)));
                // SAFETY: the vector's own numbers.
                assert_eq!(unsafe { extent(isa, x.as_ptr(), x.len()) }, want);
            }
        }
    }
}
