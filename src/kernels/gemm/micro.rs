//! The register tiles: up to MR rows of A times one or two panels of packed B, accumulated in registers.

use crate::kernels::isa::{Isa, Level};
use crate::kernels::simd::F32;
use crate::kernels::simd::scalar;
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{avx2, avx512};
use crate::kernels::table::Levels;

/// The most rows of any tile.
pub(crate) const MAX_ROWS: usize = 14;

/// What one tile works on. Lengths and strides count f32s.
#[derive(Clone, Copy)]
pub(crate) struct TileArgs {
    /// First value of the first row of A; the values of a row follow each other.
    pub a: *const f32,
    /// From one row of A to the next.
    pub a_row: usize,
    /// First row of B.
    pub b: *const f32,
    /// From one row of B to the next: the panel's width if packed.
    pub b_row: usize,
    /// What will be read next: a line of it is fetched into L2 every four steps.
    pub next: *const f32,
    /// From one panel of B to the next (wide tiles take two).
    pub b_panel: usize,
    /// Steps of the sum.
    pub k: usize,
    /// First value of C.
    pub c: *mut f32,
    /// From one row of C to the next.
    pub c_row: usize,
    /// Columns of C to write; what the tile has beyond them is dropped.
    pub n: usize,
    /// Start from what C holds (a later block of K).
    pub accumulate: bool,
    /// A value a column to start from, or null.
    pub bias_col: *const f32,
    /// A value a row to start from, or null.
    pub bias_row: *const f32,
    /// A matrix to start from, or null; may be C itself.
    pub residual: *const f32,
    /// From one row of the residual to the next.
    pub residual_row: usize,
    /// Limits applied at the end.
    pub clamp: (f32, f32),
}

/// A tile kernel. See [`TileArgs`] for what must be valid: `k` values of each row of A, `k` rows of B of the tile's full
/// width, `n` columns of the rows of C and of the residual.
pub(crate) type TileFn = unsafe fn(&TileArgs);

/// The tile kernels of one level.
pub(crate) struct TileSet {
    /// Name in the kernel table.
    pub name: &'static str,
    /// Columns of a panel of packed B.
    pub panel: usize,
    /// `narrow[r - 1]` takes `r` rows and one panel.
    pub narrow: &'static [TileFn],
    /// `wide[r - 1]` takes `r` rows and two panels.
    pub wide: &'static [TileFn],
}

/// The tiles of a level.
pub(crate) fn tiles(isa: Isa) -> &'static TileSet {
    static TILES: Levels<TileSet> = Levels(&[
        (Level::Scalar, &SCALAR),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx2, &AVX2),
        #[cfg(target_arch = "x86_64")]
        (Level::Avx512, &AVX512),
    ]);
    TILES.at(isa)
}

#[inline(always)]
unsafe fn load_part<V: F32>(p: *const f32, n: usize) -> V {
    // SAFETY: the caller's: min(n, LANES) values are there.
    unsafe { if n >= V::LANES { V::load(p) } else { V::load_n(p, n) } }
}
#[inline(always)]
unsafe fn store_part<V: F32>(v: V, p: *mut f32, n: usize) {
    // SAFETY: the caller's: min(n, LANES) values are there.
    unsafe { if n >= V::LANES { v.store(p) } else { v.store_n(p, n) } }
}

/// Repeats a body with a constant index below `$n`: the compiler's own unrolling gives up on tall tiles, and an index that is
/// not constant puts the accumulators into memory.
macro_rules! unroll {
    ($n:expr, $i:ident, $body:block) => { unroll!(@ $n, $i, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13) };
    (few $n:expr, $i:ident, $body:block) => { unroll!(@ $n, $i, $body, 0 1 2 3 4) };
    (@ $n:expr, $i:ident, $body:block, $($at:literal)*) => {$(
        #[allow(clippy::out_of_bounds_indexing)]
        if $at < $n {
            #[allow(non_upper_case_globals)]
            const $i: usize = $at;
            $body
        }
    )*};
}
pub(crate) use unroll;

/// Hides where a pointer came from, and keeps loads from moving across. Without it the compiler keeps a pointer a row, loads many
/// steps ahead, and spills the accumulators.
#[inline(always)]
pub(crate) fn opaque(mut p: *const f32) -> *const f32 {
    // SAFETY: no instruction; the pointer is unchanged.
    unsafe { std::arch::asm!("/* {0} */", inout(reg) p, options(nostack, preserves_flags)) };
    p
}

/// Floats of a cache line.
pub(crate) const LINE: usize = 16;

/// Fetches a line into L2.
#[inline(always)]
pub(crate) fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint; any address will do.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(p.cast())
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// One step of the sum: every row's next value of A times a row of B.
#[inline(always)]
unsafe fn step<V: F32, const MR: usize, const NV: usize, const PV: usize>(
    acc: &mut [[V; NV]; MR],
    a: &[*const f32; 5],
    a_row: usize,
    k: usize,
    b: *const f32,
    b_panel: usize,
) {
    // SAFETY: the tile's contract; vector v lies in panel v / PV.
    unsafe {
        let mut bv = [V::zero(); NV];
        unroll!(few NV, v, {
            bv[v] = V::load(b.add((v / PV) * b_panel + (v % PV) * V::LANES));
        });
        unroll!(MR, i, {
            // Rows in threes off one pointer: base, base + stride, base + 2 * stride are one address mode.
            let x = V::splat(*a[i / 3].add((i % 3) * a_row + k));
            unroll!(few NV, v, { acc[i][v] = x.mul_add(bv[v], acc[i][v]) });
        });
    }
}

/// A tile of MR rows by NV vectors; PV vectors make a panel.
#[inline(always)]
unsafe fn tile<V: F32, const MR: usize, const NV: usize, const PV: usize>(t: &TileArgs) {
    // SAFETY: the caller's contract (TileFn) covers every access; partial vectors touch `n` columns only.
    unsafe {
        let mut acc = [[V::zero(); NV]; MR];
        let (a_row, b_row, b_panel) = (t.a_row, t.b_row, t.b_panel);
        let mut a = [t.a; 5];
        unroll!(few 5, g, {
            if 3 * g < MR {
                a[g] = opaque(t.a.wrapping_add(3 * g * a_row));
            }
        });
        let mut b = opaque(t.b);
        let mut next = opaque(t.next);
        for _ in 0..t.k / 4 {
            prefetch(next);
            next = opaque(next.wrapping_add(LINE));
            unroll!(few 4, u, {
                step::<V, MR, NV, PV>(&mut acc, &a, a_row, u, b, b_panel);
                b = opaque(b.wrapping_add(b_row));
            });
            unroll!(few 5, g, {
                if 3 * g < MR {
                    a[g] = opaque(a[g].wrapping_add(4));
                }
            });
        }
        for u in 0..t.k % 4 {
            step::<V, MR, NV, PV>(&mut acc, &a, a_row, u, b, b_panel);
            b = opaque(b.wrapping_add(b_row));
        }

        // Columns of each vector that exist.
        let mut cols = [0; NV];
        unroll!(few NV, v, { cols[v] = t.n.saturating_sub(v * V::LANES) });
        if t.accumulate {
            unroll!(MR, i, {
                unroll!(few NV, v, {
                    acc[i][v] = acc[i][v] + load_part(t.c.add(i * t.c_row + v * V::LANES), cols[v]);
                });
            });
        } else {
            if !t.bias_col.is_null() {
                unroll!(few NV, v, {
                    let x = load_part(t.bias_col.add(v * V::LANES), cols[v]);
                    unroll!(MR, i, { acc[i][v] = acc[i][v] + x });
                });
            }
            if !t.bias_row.is_null() {
                unroll!(MR, i, {
                    let x = V::splat(*t.bias_row.add(i));
                    unroll!(few NV, v, { acc[i][v] = acc[i][v] + x });
                });
            }
            if !t.residual.is_null() {
                unroll!(MR, i, {
                    unroll!(few NV, v, {
                        let x = load_part(t.residual.add(i * t.residual_row + v * V::LANES), cols[v]);
                        acc[i][v] = acc[i][v] + x;
                    });
                });
            }
        }
        let (lo, hi) = (V::splat(t.clamp.0), V::splat(t.clamp.1));
        unroll!(MR, i, {
            unroll!(few NV, v, {
                store_part(hi.min(lo.max(acc[i][v])), t.c.add(i * t.c_row + v * V::LANES), cols[v]);
            });
        });
    }
}

/// One tile kernel, compiled for a level.
macro_rules! tile_fn {
    (scalar $mr:literal $nv:literal $pv:literal) => {{
        unsafe fn kernel(t: &TileArgs) {
            // SAFETY: the caller's contract.
            unsafe { tile::<scalar::F, $mr, $nv, $pv>(t) }
        }
        kernel as TileFn
    }};
    (avx2 $mr:literal $nv:literal $pv:literal) => {{
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn kernel(t: &TileArgs) {
            // SAFETY: the caller's contract.
            unsafe { tile::<avx2::F, $mr, $nv, $pv>(t) }
        }
        kernel as TileFn
    }};
    (avx512 $mr:literal $nv:literal $pv:literal) => {{
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        unsafe fn kernel(t: &TileArgs) {
            // SAFETY: the caller's contract.
            unsafe { tile::<avx512::F, $mr, $nv, $pv>(t) }
        }
        kernel as TileFn
    }};
}
/// One tile kernel a row count.
macro_rules! tile_fns {
    ($level:ident $nv:tt $pv:tt: $($mr:literal)*) => { &[$(tile_fn!($level $mr $nv $pv)),*] };
}

static SCALAR: TileSet = TileSet {
    name: "f32_gemm_4x8__scalar",
    panel: 8,
    narrow: tile_fns!(scalar 1 1: 1 2 3 4),
    wide: tile_fns!(scalar 2 1: 1 2),
};

#[cfg(target_arch = "x86_64")]
static AVX2: TileSet = TileSet {
    name: "f32_gemm_6x16__avx2",
    panel: 16,
    narrow: tile_fns!(avx2 2 2: 1 2 3 4 5 6),
    wide: tile_fns!(avx2 4 2: 1 2 3),
};

#[cfg(target_arch = "x86_64")]
static AVX512: TileSet = TileSet {
    name: "f32_gemm_14x32__avx512",
    panel: 32,
    narrow: tile_fns!(avx512 2 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    wide: tile_fns!(avx512 4 2: 1 2 3 4 5 6 7),
};
