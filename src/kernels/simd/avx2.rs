//! Eight lanes with AVX2, FMA and F16C.

use super::{F32, I32, Mask, memory, methods, ops};
use std::arch::x86_64::*;

/// Eight f32.
#[derive(Clone, Copy, Debug)]
pub struct F(pub __m256);
/// Eight i32.
#[derive(Clone, Copy, Debug)]
pub struct I(pub __m256i);
/// Eight truth values: all bits of a lane set, or none.
#[derive(Clone, Copy, Debug)]
pub struct M(pub __m256);

ops!(F:
    Add add |a, b| _mm256_add_ps(a, b);
    Sub sub |a, b| _mm256_sub_ps(a, b);
    Mul mul |a, b| _mm256_mul_ps(a, b);
    Div div |a, b| _mm256_div_ps(a, b);
);
ops!(I:
    Add add |a, b| _mm256_add_epi32(a, b);
    Sub sub |a, b| _mm256_sub_epi32(a, b);
    Mul mul |a, b| _mm256_mullo_epi32(a, b);
    BitAnd bitand |a, b| _mm256_and_si256(a, b);
    BitOr bitor |a, b| _mm256_or_si256(a, b);
    BitXor bitxor |a, b| _mm256_xor_si256(a, b);
);
ops!(M:
    BitAnd bitand |a, b| _mm256_and_ps(a, b);
    BitOr bitor |a, b| _mm256_or_ps(a, b);
    BitXor bitxor |a, b| _mm256_xor_ps(a, b);
);

impl std::ops::Neg for F {
    type Output = F;
    #[inline(always)]
    fn neg(self) -> F {
        // SAFETY: this type's instructions are there (module docs).
        F(unsafe { _mm256_xor_ps(self.0, _mm256_set1_ps(-0.0)) })
    }
}
impl std::ops::Not for M {
    type Output = M;
    #[inline(always)]
    fn not(self) -> M {
        // SAFETY: as above.
        M(unsafe { _mm256_xor_ps(self.0, _mm256_castsi256_ps(_mm256_set1_epi32(-1))) })
    }
}

/// A sliding window over this makes any `first(n)` mask.
static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

#[inline(always)]
unsafe fn first(n: usize) -> __m256i {
    debug_assert!(n <= 8);
    // SAFETY: n <= 8, so the window lies in the table.
    unsafe { _mm256_loadu_si256(FIRST.as_ptr().add(8 - n).cast()) }
}

impl Mask for M {
    methods! {
        fn bits(self: M) -> u32 = _mm256_movemask_ps(self.0) as u32;
        fn first(n: usize) -> M = M(_mm256_castsi256_ps(first(n.min(8))));
    }
}

/// Both halves of a vector of f32.
#[inline(always)]
unsafe fn halves(v: __m256) -> (__m128, __m128) {
    // SAFETY: callers have AVX2.
    unsafe { (_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v)) }
}

impl F32 for F {
    const LANES: usize = 8;
    type I = I;
    type M = M;

    methods! {
        fn splat(x: f32) -> F = F(_mm256_set1_ps(x));
        fn mul_add(self: F, b: F, c: F) -> F = F(_mm256_fmadd_ps(self.0, b.0, c.0));
        fn neg_mul_add(self: F, b: F, c: F) -> F = F(_mm256_fnmadd_ps(self.0, b.0, c.0));
        fn min(self: F, b: F) -> F = F(_mm256_min_ps(self.0, b.0));
        fn max(self: F, b: F) -> F = F(_mm256_max_ps(self.0, b.0));
        fn sqrt(self: F) -> F = F(_mm256_sqrt_ps(self.0));
        fn round(self: F) -> F = F(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0));
        fn floor(self: F) -> F = F(_mm256_floor_ps(self.0));
        fn ceil(self: F) -> F = F(_mm256_ceil_ps(self.0));
        fn trunc(self: F) -> F = F(_mm256_round_ps::<{ _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC }>(self.0));
        fn to_i32_round(self: F) -> I = I(_mm256_cvtps_epi32(self.0));
        fn to_i32_trunc(self: F) -> I = I(_mm256_cvttps_epi32(self.0));
        fn to_bits(self: F) -> I = I(_mm256_castps_si256(self.0));
        fn lt(self: F, b: F) -> M = M(_mm256_cmp_ps::<_CMP_LT_OQ>(self.0, b.0));
        fn le(self: F, b: F) -> M = M(_mm256_cmp_ps::<_CMP_LE_OQ>(self.0, b.0));
        fn eq(self: F, b: F) -> M = M(_mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, b.0));
        fn select(m: M, yes: F, no: F) -> F = F(_mm256_blendv_ps(no.0, yes.0, m.0));
        fn sum(self: F) -> f32 = {
            let (lo, hi) = halves(self.0);
            let s = _mm_add_ps(lo, hi);
            let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)))
        };
        fn max_lane(self: F) -> f32 = {
            let (lo, hi) = halves(self.0);
            let s = _mm_max_ps(lo, hi);
            let s = _mm_max_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)))
        };
        fn min_lane(self: F) -> f32 = {
            let (lo, hi) = halves(self.0);
            let s = _mm_min_ps(lo, hi);
            let s = _mm_min_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_min_ss(s, _mm_movehdup_ps(s)))
        };
    }
    memory! {
        fn load(p: *const f32) -> F = F(_mm256_loadu_ps(p));
        fn store(self: F, p: *mut f32) = _mm256_storeu_ps(p, self.0);
        fn load_n(p: *const f32, n: usize) -> F = F(_mm256_maskload_ps(p, first(n)));
        fn store_n(self: F, p: *mut f32, n: usize) = _mm256_maskstore_ps(p, first(n), self.0);
        fn gather(p: *const f32, index: I) -> F = F(_mm256_i32gather_ps::<4>(p, index.0));
        fn transpose(src: *const f32, src_row: usize, dst: *mut f32, dst_row: usize) = {
            // Rows i and i + 4 share a register, so that pairs, then quads, are exchanged within halves.
            let row = |i: usize| _mm_loadu_ps(src.add(i * src_row));
            let high = |i: usize| _mm_loadu_ps(src.add(i * src_row + 4));
            let pair = |a: __m128, b: __m128| _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(a), b);
            for half in 0..2 {
                let mut r = [_mm256_setzero_ps(); 4];
                for i in 0..4 {
                    r[i] = if half == 0 { pair(row(i), row(i + 4)) } else { pair(high(i), high(i + 4)) };
                }
                let (a, b) = (_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1]));
                let (c, d) = (_mm256_unpacklo_ps(r[2], r[3]), _mm256_unpackhi_ps(r[2], r[3]));
                let to = dst.add(half * 4 * dst_row);
                _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(a, c));
                _mm256_storeu_ps(to.add(dst_row), _mm256_shuffle_ps::<0xee>(a, c));
                _mm256_storeu_ps(to.add(2 * dst_row), _mm256_shuffle_ps::<0x44>(b, d));
                _mm256_storeu_ps(to.add(3 * dst_row), _mm256_shuffle_ps::<0xee>(b, d));
            }
        };
        fn load_f16(p: *const u16) -> F = F(_mm256_cvtph_ps(_mm_loadu_si128(p.cast())));
        fn store_f16(self: F, p: *mut u16) =
            _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
    }
}

impl I32 for I {
    const LANES: usize = 8;
    type F = F;
    type M = M;

    methods! {
        fn splat(x: i32) -> I = I(_mm256_set1_epi32(x));
        fn iota() -> I = I(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        fn min(self: I, b: I) -> I = I(_mm256_min_epi32(self.0, b.0));
        fn max(self: I, b: I) -> I = I(_mm256_max_epi32(self.0, b.0));
        fn shl(self: I, n: u32) -> I = I(_mm256_sll_epi32(self.0, _mm_cvtsi32_si128(n as i32)));
        fn shr(self: I, n: u32) -> I = I(_mm256_srl_epi32(self.0, _mm_cvtsi32_si128(n as i32)));
        fn sar(self: I, n: u32) -> I = I(_mm256_sra_epi32(self.0, _mm_cvtsi32_si128(n as i32)));
        fn eq(self: I, b: I) -> M = M(_mm256_castsi256_ps(_mm256_cmpeq_epi32(self.0, b.0)));
        fn gt(self: I, b: I) -> M = M(_mm256_castsi256_ps(_mm256_cmpgt_epi32(self.0, b.0)));
        fn select(m: M, yes: I, no: I) -> I =
            I(_mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(no.0), _mm256_castsi256_ps(yes.0), m.0)));
        fn to_f32(self: I) -> F = F(_mm256_cvtepi32_ps(self.0));
        fn to_float_bits(self: I) -> F = F(_mm256_castsi256_ps(self.0));
        fn sum(self: I) -> i32 = {
            let s = _mm_add_epi32(_mm256_castsi256_si128(self.0), _mm256_extracti128_si256::<1>(self.0));
            let s = _mm_add_epi32(s, _mm_shuffle_epi32::<0b1110>(s));
            _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32::<1>(s)))
        };
    }
    memory! {
        fn load(p: *const i32) -> I = I(_mm256_loadu_si256(p.cast()));
        fn store(self: I, p: *mut i32) = _mm256_storeu_si256(p.cast(), self.0);
        fn load_n(p: *const i32, n: usize) -> I = I(_mm256_maskload_epi32(p, first(n)));
        fn store_n(self: I, p: *mut i32, n: usize) = _mm256_maskstore_epi32(p, first(n), self.0);
        fn load_u8(p: *const u8) -> I = I(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())));
        fn load_i8(p: *const i8) -> I = I(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())));
        fn load_u16(p: *const u16) -> I = I(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())));
        fn load_i16(p: *const i16) -> I = I(_mm256_cvtepi16_epi32(_mm_loadu_si128(p.cast())));
        fn store_u16(self: I, p: *mut u16) = {
            // Keep the low halves, so that the saturating pack changes nothing.
            let v = _mm256_and_si256(self.0, _mm256_set1_epi32(0xffff));
            let v = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(v, v));
            _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(v));
        };
        fn store_u8(self: I, p: *mut u8) = {
            let v = _mm256_and_si256(self.0, _mm256_set1_epi32(0xff));
            let v = _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(v, v)));
            _mm_storel_epi64(p.cast(), _mm_packus_epi16(v, v));
        };
    }
}
