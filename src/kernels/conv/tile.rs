//! The register tiles of blocked convolution: MR output places of one line times NV blocks of output channels.
//!
//! The sum runs over chunks: input channel block, kernel line, kernel column. Within a chunk the values of one input place follow each
//! other, so a chunk is a few steps of a matrix product whose rows of A are input places.

use crate::kernels::gemm::micro::{LINE, opaque, prefetch, unroll};
use crate::kernels::isa::{Isa, Level};
use crate::kernels::simd::{F32, scalar};
#[cfg(target_arch = "x86_64")]
use crate::kernels::simd::{avx2, avx512};
use crate::kernels::table::Levels;

/// What one tile works on. Lengths and strides count f32s.
#[derive(Clone, Copy)]
pub(crate) struct TileArgs {
    /// What the first output place sees through the first tap of the first chunk; may lie outside the input where `edges` says so.
    pub x: *const f32,
    /// From one output place's input to the next's.
    pub x_place: usize,
    /// Chunks: counts and strides of channel blocks, kernel lines, kernel columns.
    pub count: [usize; 3],
    pub x_step: [usize; 3],
    /// Strides of the weights over channel blocks and kernel lines; columns follow each other.
    pub w_step: [usize; 2],
    /// Steps of a chunk.
    pub k: usize,
    /// Weights: `[channel block][line][column][k][NV * lanes]`.
    pub w: *const f32,
    /// Weights that will be used next: some lines of them are fetched into L2 on the way.
    pub next: *const f32,
    /// For each kernel column, which places see the input through it: (first, end). Null: all, always.
    pub edges: *const (usize, usize),
    /// `k` zeros, for the others.
    pub zeros: *const f32,
    /// Output, a vector a place.
    pub y: *mut f32,
    /// From one block of output channels to the next.
    pub y_block: usize,
    /// Start from what the output holds.
    pub accumulate: bool,
    /// A value an output channel, or null.
    pub bias: *const f32,
    /// Laid out as the output; may be the output. Or null.
    pub residual: *const f32,
    /// Limits applied at the end.
    pub clamp: (f32, f32),
}

/// A tile kernel. Valid must be: the places that `edges` admits for `k` values in each chunk, the weights of all chunks, the output's
/// places, `NV * lanes` biases.
pub(crate) type TileFn = unsafe fn(&TileArgs);

/// The tile kernels of one level: `by_blocks[NV - 1][MR - 1]`.
pub(crate) struct TileSet {
    /// Name in the kernel table.
    pub name: &'static str,
    pub by_blocks: [&'static [TileFn]; 4],
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
unsafe fn step<V: F32, const MR: usize, const NV: usize>(
    acc: &mut [[V; NV]; MR],
    a: &[*const f32; 5],
    place: usize,
    k: usize,
    w: *const f32,
) {
    // SAFETY: the tile's contract.
    unsafe {
        let mut wv = [V::zero(); NV];
        unroll!(few NV, v, { wv[v] = V::load(w.add(v * V::LANES)) });
        unroll!(MR, i, {
            let x = V::splat(*a[i / 3].add((i % 3) * place + k));
            unroll!(few NV, v, { acc[i][v] = x.mul_add(wv[v], acc[i][v]) });
        });
    }
}

/// A chunk that all places take part in.
#[inline(always)]
unsafe fn inner<V: F32, const MR: usize, const NV: usize>(
    acc: &mut [[V; NV]; MR],
    x: *const f32,
    place: usize,
    k: usize,
    mut w: *const f32,
    next: &mut *const f32,
) -> *const f32 {
    // SAFETY: the tile's contract.
    unsafe {
        let mut a = [x; 5];
        unroll!(few 5, g, {
            if 3 * g < MR {
                a[g] = opaque(x.wrapping_add(3 * g * place));
            }
        });
        for _ in 0..k / 4 {
            unroll!(few NV, v, { prefetch(next.wrapping_add(v * LINE)) });
            *next = opaque(next.wrapping_add(NV * LINE));
            unroll!(few 4, u, { step::<V, MR, NV>(acc, &a, place, u, w.wrapping_add(u * NV * V::LANES)) });
            w = opaque(w.wrapping_add(4 * NV * V::LANES));
            unroll!(few 5, g, {
                if 3 * g < MR {
                    a[g] = opaque(a[g].wrapping_add(4));
                }
            });
        }
        for u in 0..k % 4 {
            step::<V, MR, NV>(acc, &a, place, u, w);
            w = opaque(w.wrapping_add(NV * V::LANES));
        }
    }
    w
}

/// A chunk that only places `lo..hi` take part in: the others read zeros.
#[inline(always)]
unsafe fn edge<V: F32, const MR: usize, const NV: usize>(
    acc: &mut [[V; NV]; MR],
    t: &TileArgs,
    x: *const f32,
    (lo, hi): (usize, usize),
    mut w: *const f32,
) -> *const f32 {
    // SAFETY: the tile's contract; a place outside lo..hi is never read through `x`.
    unsafe {
        let mut at = [t.zeros; MR];
        unroll!(MR, i, {
            at[i] = opaque(if (lo..hi).contains(&i) { x.wrapping_add(i * t.x_place) } else { t.zeros });
        });
        for k in 0..t.k {
            let mut wv = [V::zero(); NV];
            unroll!(few NV, v, { wv[v] = V::load(w.add(v * V::LANES)) });
            unroll!(MR, i, {
                let x = V::splat(*at[i].add(k));
                unroll!(few NV, v, { acc[i][v] = x.mul_add(wv[v], acc[i][v]) });
            });
            w = opaque(w.wrapping_add(NV * V::LANES));
        }
    }
    w
}

#[inline(always)]
unsafe fn tile<V: F32, const MR: usize, const NV: usize>(t: &TileArgs) {
    // SAFETY: the caller's contract (TileFn).
    unsafe {
        let mut acc = [[V::zero(); NV]; MR];
        let [n1, n2, n3] = t.count;
        let mut next = t.next;
        for i1 in 0..n1 {
            for i2 in 0..n2 {
                let mut x = t.x.wrapping_add(i1 * t.x_step[0] + i2 * t.x_step[1]);
                let mut w = t.w.add(i1 * t.w_step[0] + i2 * t.w_step[1]);
                for i3 in 0..n3 {
                    let range = if t.edges.is_null() { (0, MR) } else { *t.edges.add(i3) };
                    w = if range.0 == 0 && range.1 >= MR {
                        inner::<V, MR, NV>(&mut acc, x, t.x_place, t.k, w, &mut next)
                    } else if range.0 < range.1 {
                        edge::<V, MR, NV>(&mut acc, t, x, range, w)
                    } else {
                        w.add(t.k * NV * V::LANES)
                    };
                    x = x.wrapping_add(t.x_step[2]);
                }
            }
        }
        if t.accumulate {
            unroll!(MR, i, {
                unroll!(few NV, v, { acc[i][v] = acc[i][v] + V::load(t.y.add(v * t.y_block + i * V::LANES)) });
            });
        } else {
            if !t.bias.is_null() {
                unroll!(few NV, v, {
                    let b = V::load(t.bias.add(v * V::LANES));
                    unroll!(MR, i, { acc[i][v] = acc[i][v] + b });
                });
            }
            if !t.residual.is_null() {
                unroll!(MR, i, {
                    unroll!(few NV, v, { acc[i][v] = acc[i][v] + V::load(t.residual.add(v * t.y_block + i * V::LANES)) });
                });
            }
        }
        let (lo, hi) = (V::splat(t.clamp.0), V::splat(t.clamp.1));
        unroll!(few NV, v, {
            unroll!(MR, i, { hi.min(lo.max(acc[i][v])).store(t.y.add(v * t.y_block + i * V::LANES)) });
        });
    }
}

/// One tile kernel, compiled for a level.
macro_rules! tile_fn {
    (scalar $mr:literal $nv:literal) => {{
        unsafe fn kernel(t: &TileArgs) {
            // SAFETY: the caller's contract.
            unsafe { tile::<scalar::F, $mr, $nv>(t) }
        }
        kernel as TileFn
    }};
    (avx2 $mr:literal $nv:literal) => {{
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn kernel(t: &TileArgs) {
            // SAFETY: the caller's contract.
            unsafe { tile::<avx2::F, $mr, $nv>(t) }
        }
        kernel as TileFn
    }};
    (avx512 $mr:literal $nv:literal) => {{
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        unsafe fn kernel(t: &TileArgs) {
            // SAFETY: the caller's contract.
            unsafe { tile::<avx512::F, $mr, $nv>(t) }
        }
        kernel as TileFn
    }};
}
/// One tile kernel a number of places.
macro_rules! tile_fns {
    ($level:ident $nv:tt: $($mr:literal)*) => { &[$(tile_fn!($level $mr $nv)),*] };
}

static SCALAR: TileSet = TileSet {
    name: "f32_conv_4x8__scalar",
    by_blocks: [tile_fns!(scalar 1: 1 2 3 4), tile_fns!(scalar 2: 1 2), &[], &[]],
};

#[cfg(target_arch = "x86_64")]
static AVX2: TileSet = TileSet {
    name: "f32_conv_6x16__avx2",
    by_blocks: [
        tile_fns!(avx2 1: 1 2 3 4 5 6 7 8 9 10 11 12),
        tile_fns!(avx2 2: 1 2 3 4 5 6),
        tile_fns!(avx2 3: 1 2 3 4),
        tile_fns!(avx2 4: 1 2 3),
    ],
};

#[cfg(target_arch = "x86_64")]
static AVX512: TileSet = TileSet {
    name: "f32_conv_14x32__avx512",
    by_blocks: [
        tile_fns!(avx512 1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        tile_fns!(avx512 2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        tile_fns!(avx512 3: 1 2 3 4 5 6 7 8 9),
        tile_fns!(avx512 4: 1 2 3 4 5 6 7),
    ],
};
