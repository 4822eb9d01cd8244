//! Sixteen lanes with AVX-512 F, BW, DQ and VL.

use super::{F32, I32, Mask, memory, methods, ops};
use std::arch::x86_64::*;

/// Sixteen f32.
#[derive(Clone, Copy, Debug)]
pub struct F(pub __m512);
/// Sixteen i32.
#[derive(Clone, Copy, Debug)]
pub struct I(pub __m512i);
/// Sixteen truth values, a bit each.
#[derive(Clone, Copy, Debug)]
pub struct M(pub __mmask16);

ops!(F:
    Add add |a, b| _mm512_add_ps(a, b);
    Sub sub |a, b| _mm512_sub_ps(a, b);
    Mul mul |a, b| _mm512_mul_ps(a, b);
    Div div |a, b| _mm512_div_ps(a, b);
);
ops!(I:
    Add add |a, b| _mm512_add_epi32(a, b);
    Sub sub |a, b| _mm512_sub_epi32(a, b);
    Mul mul |a, b| _mm512_mullo_epi32(a, b);
    BitAnd bitand |a, b| _mm512_and_si512(a, b);
    BitOr bitor |a, b| _mm512_or_si512(a, b);
    BitXor bitxor |a, b| _mm512_xor_si512(a, b);
);
ops!(M:
    BitAnd bitand |a, b| a & b;
    BitOr bitor |a, b| a | b;
    BitXor bitxor |a, b| a ^ b;
);

impl std::ops::Neg for F {
    type Output = F;
    #[inline(always)]
    fn neg(self) -> F {
        // SAFETY: this type's instructions are there (module docs).
        F(unsafe { _mm512_xor_ps(self.0, _mm512_set1_ps(-0.0)) })
    }
}
impl std::ops::Not for M {
    type Output = M;
    #[inline(always)]
    fn not(self) -> M {
        M(!self.0)
    }
}

/// The mask of the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    debug_assert!(n <= 16);
    ((1u32 << n) - 1) as u16
}

impl Mask for M {
    methods! {
        fn bits(self: M) -> u32 = self.0 as u32;
        fn first(n: usize) -> M = M(first(n.min(16)));
    }
}

/// Both halves of a vector of f32.
#[inline(always)]
unsafe fn halves(v: __m512) -> (__m256, __m256) {
    // SAFETY: callers have AVX-512.
    unsafe { (_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)) }
}
/// Both halves of a vector of eight.
#[inline(always)]
unsafe fn quarters(v: __m256) -> (__m128, __m128) {
    // SAFETY: callers have AVX-512.
    unsafe { (_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v)) }
}

impl F32 for F {
    const LANES: usize = 16;
    type I = I;
    type M = M;

    methods! {
        fn splat(x: f32) -> F = F(_mm512_set1_ps(x));
        fn mul_add(self: F, b: F, c: F) -> F = F(_mm512_fmadd_ps(self.0, b.0, c.0));
        fn neg_mul_add(self: F, b: F, c: F) -> F = F(_mm512_fnmadd_ps(self.0, b.0, c.0));
        fn min(self: F, b: F) -> F = F(_mm512_min_ps(self.0, b.0));
        fn max(self: F, b: F) -> F = F(_mm512_max_ps(self.0, b.0));
        fn sqrt(self: F) -> F = F(_mm512_sqrt_ps(self.0));
        fn round(self: F) -> F = F(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0));
        fn floor(self: F) -> F = F(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(self.0));
        fn ceil(self: F) -> F = F(_mm512_roundscale_ps::<{ _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC }>(self.0));
        fn trunc(self: F) -> F = F(_mm512_roundscale_ps::<{ _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC }>(self.0));
        fn two_to_whole(self: F) -> F = F(_mm512_scalef_ps(_mm512_set1_ps(1.0), self.0));
        fn scale(self: F, n: F) -> F = F(_mm512_scalef_ps(self.0, n.0));
        fn to_i32_round(self: F) -> I = I(_mm512_cvtps_epi32(self.0));
        fn to_i32_trunc(self: F) -> I = I(_mm512_cvttps_epi32(self.0));
        fn to_bits(self: F) -> I = I(_mm512_castps_si512(self.0));
        fn lt(self: F, b: F) -> M = M(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, b.0));
        fn le(self: F, b: F) -> M = M(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(self.0, b.0));
        fn eq(self: F, b: F) -> M = M(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, b.0));
        fn select(m: M, yes: F, no: F) -> F = F(_mm512_mask_blend_ps(m.0, no.0, yes.0));
        fn sum(self: F) -> f32 = {
            let (lo, hi) = halves(self.0);
            let (lo, hi) = quarters(_mm256_add_ps(lo, hi));
            let s = _mm_add_ps(lo, hi);
            let s = _mm_add_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)))
        };
        fn max_lane(self: F) -> f32 = {
            let (lo, hi) = halves(self.0);
            let (lo, hi) = quarters(_mm256_max_ps(lo, hi));
            let s = _mm_max_ps(lo, hi);
            let s = _mm_max_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)))
        };
        fn min_lane(self: F) -> f32 = {
            let (lo, hi) = halves(self.0);
            let (lo, hi) = quarters(_mm256_min_ps(lo, hi));
            let s = _mm_min_ps(lo, hi);
            let s = _mm_min_ps(s, _mm_movehl_ps(s, s));
            _mm_cvtss_f32(_mm_min_ss(s, _mm_movehdup_ps(s)))
        };
    }
    memory! {
        fn load(p: *const f32) -> F = F(_mm512_loadu_ps(p));
        fn store(self: F, p: *mut f32) = _mm512_storeu_ps(p, self.0);
        fn load_n(p: *const f32, n: usize) -> F = F(_mm512_maskz_loadu_ps(first(n), p));
        fn store_n(self: F, p: *mut f32, n: usize) = _mm512_mask_storeu_ps(p, first(n), self.0);
        fn gather(p: *const f32, index: I) -> F = F(_mm512_i32gather_ps::<4>(index.0, p));
        fn transpose(src: *const f32, src_row: usize, dst: *mut f32, dst_row: usize) = {
            // Four columns at a time: rows i, i + 4, i + 8, i + 12 share a register, and quads are exchanged within quarters.
            for q in 0..4 {
                let mut r = [_mm512_setzero_ps(); 4];
                for i in 0..4 {
                    let p = src.add(i * src_row + 4 * q);
                    let v = _mm512_castps128_ps512(_mm_loadu_ps(p));
                    let v = _mm512_insertf32x4::<1>(v, _mm_loadu_ps(p.add(4 * src_row)));
                    let v = _mm512_insertf32x4::<2>(v, _mm_loadu_ps(p.add(8 * src_row)));
                    r[i] = _mm512_insertf32x4::<3>(v, _mm_loadu_ps(p.add(12 * src_row)));
                }
                let (a, b) = (_mm512_unpacklo_ps(r[0], r[1]), _mm512_unpackhi_ps(r[0], r[1]));
                let (c, d) = (_mm512_unpacklo_ps(r[2], r[3]), _mm512_unpackhi_ps(r[2], r[3]));
                let to = dst.add(4 * q * dst_row);
                _mm512_storeu_ps(to, _mm512_shuffle_ps::<0x44>(a, c));
                _mm512_storeu_ps(to.add(dst_row), _mm512_shuffle_ps::<0xee>(a, c));
                _mm512_storeu_ps(to.add(2 * dst_row), _mm512_shuffle_ps::<0x44>(b, d));
                _mm512_storeu_ps(to.add(3 * dst_row), _mm512_shuffle_ps::<0xee>(b, d));
            }
        };
        fn load_f16(p: *const u16) -> F = F(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast())));
        fn store_f16(self: F, p: *mut u16) =
            _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
    }
}

impl I32 for I {
    const LANES: usize = 16;
    type F = F;
    type M = M;

    methods! {
        fn splat(x: i32) -> I = I(_mm512_set1_epi32(x));
        fn iota() -> I = I(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
        fn min(self: I, b: I) -> I = I(_mm512_min_epi32(self.0, b.0));
        fn max(self: I, b: I) -> I = I(_mm512_max_epi32(self.0, b.0));
        fn shl(self: I, n: u32) -> I = I(_mm512_sll_epi32(self.0, _mm_cvtsi32_si128(n as i32)));
        fn shr(self: I, n: u32) -> I = I(_mm512_srl_epi32(self.0, _mm_cvtsi32_si128(n as i32)));
        fn sar(self: I, n: u32) -> I = I(_mm512_sra_epi32(self.0, _mm_cvtsi32_si128(n as i32)));
        fn eq(self: I, b: I) -> M = M(_mm512_cmpeq_epi32_mask(self.0, b.0));
        fn gt(self: I, b: I) -> M = M(_mm512_cmpgt_epi32_mask(self.0, b.0));
        fn select(m: M, yes: I, no: I) -> I = I(_mm512_mask_blend_epi32(m.0, no.0, yes.0));
        fn to_f32(self: I) -> F = F(_mm512_cvtepi32_ps(self.0));
        fn to_float_bits(self: I) -> F = F(_mm512_castsi512_ps(self.0));
        fn sum(self: I) -> i32 = _mm512_reduce_add_epi32(self.0);
    }
    memory! {
        fn load(p: *const i32) -> I = I(_mm512_loadu_si512(p.cast()));
        fn store(self: I, p: *mut i32) = _mm512_storeu_si512(p.cast(), self.0);
        fn load_n(p: *const i32, n: usize) -> I = I(_mm512_maskz_loadu_epi32(first(n), p));
        fn store_n(self: I, p: *mut i32, n: usize) = _mm512_mask_storeu_epi32(p, first(n), self.0);
        fn load_u8(p: *const u8) -> I = I(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())));
        fn load_i8(p: *const i8) -> I = I(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())));
        fn load_u16(p: *const u16) -> I = I(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())));
        fn load_i16(p: *const i16) -> I = I(_mm512_cvtepi16_epi32(_mm256_loadu_si256(p.cast())));
        fn store_u16(self: I, p: *mut u16) = _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(self.0));
        fn store_u8(self: I, p: *mut u8) = _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(self.0));
    }
}
