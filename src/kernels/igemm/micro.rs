//! The register tiles: rows of unsigned bytes times packed columns of signed bytes, summed in i32. Exact at every level: the
//! saturating multiply-add of AVX2 is not used.
//!
//! Packed columns come in strips of one register's lanes: `[group of 4 steps][lane][4]`, zero where steps or lanes are missing.

use super::depthwise::QuadsFn;
use crate::kernels::gemm::micro::unroll;
use crate::kernels::isa::{Isa, Level};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Steps of the sum that one instruction takes: the bytes of an i32.
pub(crate) const GROUP: usize = 4;
/// The most rows of any tile.
pub(crate) const MAX_ROWS: usize = 6;
/// The most columns of any tile.
pub(crate) const MAX_COLS: usize = 64;

/// What a tile works on.
pub(crate) struct TileArgs {
    /// A pointer to each row's bytes, for each tap one after another.
    pub rows: *const *const u8,
    /// From a row's pointer for one tap to that for the next.
    pub tap_stride: usize,
    /// Taps: parts that each row of the left operand is made of.
    pub taps: usize,
    /// Bytes of a part.
    pub k: usize,
    /// First strip.
    pub b: *const i8,
    /// From one strip to the next, in bytes.
    pub strip: usize,
    /// The sums, row by row, `c_row` from one row to the next.
    pub c: *mut i32,
    pub c_row: usize,
}

/// Computes as many rows and strips as the tile has.
pub(crate) type TileFn = unsafe fn(&TileArgs);

/// The tiles of one set of instructions.
pub(crate) struct TileSet {
    /// Name in the kernel table.
    pub name: &'static str,
    /// Columns of a strip.
    pub lanes: usize,
    /// Rows of the tall tiles.
    pub rows: usize,
    /// Tiles of one row: by strips (1, 2, 4; fewer where registers are few).
    pub flat: &'static [TileFn],
    /// Tall tiles, likewise.
    pub tall: &'static [TileFn],
    /// For depthwise convolutions.
    pub quads: Option<QuadsFn>,
}

/// The instructions that a tile is made of.
trait Dot: Copy {
    /// Sums of one strip.
    type V: Copy;
    /// Four bytes of a row, ready.
    type A: Copy;
    /// A group of a strip, ready.
    type B: Copy;
    const LANES: usize;
    fn zero() -> Self::V;
    fn a(bytes: u32) -> Self::A;
    /// # Safety
    /// `p` is valid for a group of a strip.
    unsafe fn b(p: *const i8) -> Self::B;
    fn dot(sum: Self::V, a: Self::A, b: Self::B) -> Self::V;
    /// # Safety
    /// `p` is valid for writing `LANES` i32.
    unsafe fn store(v: Self::V, p: *mut i32);
}

#[derive(Clone, Copy)]
struct Scalar;

impl Dot for Scalar {
    type V = [i32; 8];
    type A = [i32; 4];
    type B = [[i8; 4]; 8];
    const LANES: usize = 8;
    #[inline(always)]
    fn zero() -> [i32; 8] {
        [0; 8]
    }
    #[inline(always)]
    fn a(bytes: u32) -> [i32; 4] {
        bytes.to_le_bytes().map(i32::from)
    }
    #[inline(always)]
    unsafe fn b(p: *const i8) -> Self::B {
        // SAFETY: the caller's; any alignment will do.
        unsafe { p.cast::<Self::B>().read_unaligned() }
    }
    #[inline(always)]
    fn dot(sum: [i32; 8], a: [i32; 4], b: Self::B) -> [i32; 8] {
        std::array::from_fn(|j| {
            let p = |k: usize| a[k] * i32::from(b[j][k]);
            sum[j].wrapping_add(p(0) + p(1) + p(2) + p(3))
        })
    }
    #[inline(always)]
    unsafe fn store(v: [i32; 8], p: *mut i32) {
        // SAFETY: the caller's.
        unsafe { p.cast::<[i32; 8]>().write_unaligned(v) }
    }
}

/// The parts of an implementation that differ: the register's type and its instructions. Bytes are taken apart into odd and
/// even ones of 16 bits, whose products and their sums in pairs fit in 32.
#[cfg(target_arch = "x86_64")]
macro_rules! dots {
    ($split:ident $vnni:ident $v:ty, $lanes:literal, $zero:ident $set:ident $load:ident $store:ident
     $and:ident $ones:ident $srl:ident $sll:ident $sra:ident $madd:ident $add:ident $dp:ident) => {
        #[derive(Clone, Copy)]
        struct $split;
        impl Dot for $split {
            type V = $v;
            type A = [$v; 2];
            type B = [$v; 2];
            const LANES: usize = $lanes;
            #[inline(always)]
            fn zero() -> $v {
                // SAFETY: used only in functions that enable these instructions (as is all below).
                unsafe { $zero() }
            }
            #[inline(always)]
            fn a(bytes: u32) -> [$v; 2] {
                // SAFETY: as above.
                unsafe {
                    let x = $set(bytes as i32);
                    [$and(x, $ones(0xff)), $srl::<8>(x)]
                }
            }
            #[inline(always)]
            unsafe fn b(p: *const i8) -> [$v; 2] {
                // SAFETY: the caller's; as above.
                unsafe {
                    let x = $load(p.cast());
                    [$sra::<8>($sll::<8>(x)), $sra::<8>(x)]
                }
            }
            #[inline(always)]
            fn dot(sum: $v, a: [$v; 2], b: [$v; 2]) -> $v {
                // SAFETY: as above.
                unsafe { $add($add(sum, $madd(a[0], b[0])), $madd(a[1], b[1])) }
            }
            #[inline(always)]
            unsafe fn store(v: $v, p: *mut i32) {
                // SAFETY: the caller's; as above.
                unsafe { $store(p.cast(), v) }
            }
        }

        #[derive(Clone, Copy)]
        struct $vnni;
        impl Dot for $vnni {
            type V = $v;
            type A = $v;
            type B = $v;
            const LANES: usize = $lanes;
            #[inline(always)]
            fn zero() -> $v {
                // SAFETY: as above.
                unsafe { $zero() }
            }
            #[inline(always)]
            fn a(bytes: u32) -> $v {
                // SAFETY: as above.
                unsafe { $set(bytes as i32) }
            }
            #[inline(always)]
            unsafe fn b(p: *const i8) -> $v {
                // SAFETY: the caller's; as above.
                unsafe { $load(p.cast()) }
            }
            #[inline(always)]
            fn dot(sum: $v, a: $v, b: $v) -> $v {
                // SAFETY: as above.
                unsafe { $dp(sum, a, b) }
            }
            #[inline(always)]
            unsafe fn store(v: $v, p: *mut i32) {
                // SAFETY: the caller's; as above.
                unsafe { $store(p.cast(), v) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
dots!(Split256 Vnni256 __m256i, 8, _mm256_setzero_si256 _mm256_set1_epi32 _mm256_loadu_si256 _mm256_storeu_si256
    _mm256_and_si256 _mm256_set1_epi16 _mm256_srli_epi16 _mm256_slli_epi16 _mm256_srai_epi16 _mm256_madd_epi16
    _mm256_add_epi32 _mm256_dpbusd_avx_epi32);
#[cfg(target_arch = "x86_64")]
dots!(Split512 Vnni512 __m512i, 16, _mm512_setzero_si512 _mm512_set1_epi32 _mm512_loadu_si512 _mm512_storeu_si512
    _mm512_and_si512 _mm512_set1_epi16 _mm512_srli_epi16 _mm512_slli_epi16 _mm512_srai_epi16 _mm512_madd_epi16
    _mm512_add_epi32 _mm512_dpbusd_epi32);

/// One group of the sum for all rows and strips.
#[inline(always)]
unsafe fn step<D: Dot, const MR: usize, const NV: usize>(
    acc: &mut [[D::V; NV]; MR],
    a: &[u32; MR],
    b: *const i8,
    strip: usize,
) {
    // SAFETY: the caller's: the strips have this group. Later strips' loads come first, so that they stay in registers.
    unsafe {
        let mut bv = [D::b(b); NV];
        unroll!(few NV, v, { bv[v] = D::b(b.add(v * strip)) });
        unroll!(MR, i, {
            let x = D::a(a[i]);
            unroll!(few NV, v, { acc[i][v] = D::dot(acc[i][v], x, bv[v]) });
        });
    }
}

#[inline(always)]
unsafe fn tile<D: Dot, const MR: usize, const NV: usize>(t: &TileArgs) {
    // SAFETY: the caller's: `taps` parts of `k` bytes for each row, strips of as many groups, room for the sums.
    unsafe {
        let mut acc = [[D::zero(); NV]; MR];
        let mut b = t.b;
        for tap in 0..t.taps {
            let mut row = [std::ptr::null::<u8>(); MR];
            unroll!(MR, i, { row[i] = *t.rows.add(tap * t.tap_stride + i) });
            let mut at = 0;
            while at + GROUP <= t.k {
                let mut a = [0; MR];
                unroll!(MR, i, { a[i] = row[i].add(at).cast::<u32>().read_unaligned() });
                step::<D, MR, NV>(&mut acc, &a, b, t.strip);
                b = b.add(D::LANES * GROUP);
                at += GROUP;
            }
            if at < t.k {
                let mut a = [0; MR];
                unroll!(MR, i, {
                    for j in at..t.k {
                        a[i] |= u32::from(*row[i].add(j)) << (8 * (j - at));
                    }
                });
                step::<D, MR, NV>(&mut acc, &a, b, t.strip);
                b = b.add(D::LANES * GROUP);
            }
        }
        unroll!(MR, i, {
            unroll!(few NV, v, { D::store(acc[i][v], t.c.add(i * t.c_row + v * D::LANES)) });
        });
    }
}

/// One tile, compiled with the features named.
macro_rules! tile_fn {
    ($(#[$features:meta])* $dot:ty, $mr:literal, $nv:literal) => {{
        $(#[$features])*
        unsafe fn kernel(t: &TileArgs) {
            // SAFETY: the caller's contract.
            unsafe { tile::<$dot, $mr, $nv>(t) }
        }
        kernel as TileFn
    }};
}

static SCALAR: TileSet = TileSet {
    name: "u8s8_gemm_2x8__scalar",
    lanes: 8,
    rows: 2,
    flat: &[tile_fn!(Scalar, 1, 1)],
    tall: &[tile_fn!(Scalar, 2, 1)],
    quads: None,
};

#[cfg(target_arch = "x86_64")]
macro_rules! set {
    ($name:ident $text:literal $features:literal $dot:ident, $lanes:literal, $mr:literal x $($nv:literal)*, $quads:expr) => {
        static $name: TileSet = TileSet {
            name: $text,
            lanes: $lanes,
            rows: $mr,
            flat: &[$(tile_fn!(#[target_feature(enable = $features)] $dot, 1, $nv)),*],
            tall: &[$(tile_fn!(#[target_feature(enable = $features)] $dot, $mr, $nv)),*],
            quads: $quads,
        };
    };
}
#[cfg(target_arch = "x86_64")]
set!(AVX2 "u8s8_gemm_4x16__avx2" "avx2" Split256, 8, 4 x 1 2, None);
#[cfg(target_arch = "x86_64")]
set!(AVXVNNI "u8s8_gemm_6x16__avxvnni" "avx2,avxvnni" Vnni256, 8, 6 x 1 2, None);
#[cfg(target_arch = "x86_64")]
set!(AVX512 "u8s8_gemm_6x32__avx512" "avx2,avx512f,avx512bw,avx512dq,avx512vl" Split512, 16, 6 x 1 2, None);
#[cfg(target_arch = "x86_64")]
set!(AVX512VNNI "u8s8_gemm_6x64__avx512vnni" "avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"
    Vnni512, 16, 6 x 1 2 4, Some(super::depthwise::quads_512));

/// All sets that may be used at a level, the fastest last.
pub(crate) fn sets(isa: Isa) -> Vec<&'static TileSet> {
    let mut v = vec![&SCALAR];
    #[cfg(target_arch = "x86_64")]
    {
        if isa.level() >= Level::Avx2 {
            v.push(&AVX2);
            if is_x86_feature_detected!("avxvnni") {
                v.push(&AVXVNNI);
            }
        }
        if isa.level() >= Level::Avx512 {
            v.push(&AVX512);
            if is_x86_feature_detected!("avx512vnni") {
                v.push(&AVX512VNNI);
            }
        }
    }
    let _ = (isa, Level::Scalar);
    v
}

/// The fastest set of a level.
pub(crate) fn best(isa: Isa) -> &'static TileSet {
    sets(isa).last().copied().unwrap_or(&SCALAR)
}
