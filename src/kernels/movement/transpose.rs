//! One 2-D tile, rows to columns.

use crate::kernels::isa::Isa;
#[cfg(target_arch = "x86_64")]
use crate::kernels::isa::Level;
use std::mem::MaybeUninit;

/// Element (r, c) goes from `from + r from_step + c size` to `to + c to_step + r size`; steps in bytes.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub from: *const u8,
    pub from_step: isize,
    pub to: *mut u8,
    pub to_step: isize,
    pub rows: usize,
    pub columns: usize,
}

impl Tile {
    /// The part from (r, c) on.
    unsafe fn part(self, size: usize, r: usize, c: usize, rows: usize, columns: usize) -> Tile {
        // SAFETY: the caller names a part within the tile.
        unsafe {
            Tile {
                from: self.from.offset(r as isize * self.from_step + (c * size) as isize),
                to: self.to.offset(c as isize * self.to_step + (r * size) as isize),
                rows,
                columns,
                ..self
            }
        }
    }
}

/// Moves a tile of elements of `size` bytes.
/// # Safety
/// Both sides are valid for the tile and do not overlap.
pub(super) unsafe fn transpose(isa: Isa, size: usize, tile: Tile) {
    // Rows a large power of two apart share a few places in the cache: they are brought together first.
    let row = tile.columns * size;
    if tile.from_step % 1024 == 0 && row >= 64 && tile.rows >= 16 && row * tile.rows <= TILE_BYTES {
        let mut copy = Aligned([const { MaybeUninit::uninit() }; TILE_BYTES]);
        let at = copy.0.as_mut_ptr().cast::<u8>();
        // SAFETY: the tile fits the copy, which is written before it is read.
        unsafe {
            for r in 0..tile.rows {
                let from = tile.from.offset(r as isize * tile.from_step);
                std::ptr::copy_nonoverlapping(from, at.add(r * row), row);
            }
            return near(isa, size, Tile { from: at, from_step: row as isize, ..tile });
        }
    }
    // SAFETY: the caller's contract.
    unsafe { near(isa, size, tile) }
}

/// Bytes of the largest tile that [`super::copy`] makes.
pub(super) const TILE_BYTES: usize = 16 * 1024;

#[repr(align(64))]
struct Aligned([MaybeUninit<u8>; TILE_BYTES]);

unsafe fn near(isa: Isa, size: usize, tile: Tile) {
    // SAFETY: the caller's contract; the Isa value proves AVX2.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if isa.level() >= Level::Avx2 && size == 4 {
            return blocks_of_8(tile);
        }
        match size {
            #[cfg(target_arch = "x86_64")]
            1 => blocks::<u8, 16>(tile, |b| block_u8(b)),
            #[cfg(target_arch = "x86_64")]
            2 => blocks::<u16, 8>(tile, |b| block_u16(b)),
            #[cfg(not(target_arch = "x86_64"))]
            1 => plain::<u8>(tile),
            #[cfg(not(target_arch = "x86_64"))]
            2 => plain::<u16>(tile),
            4 => plain::<u32>(tile),
            8 => plain::<u64>(tile),
            _ => plain::<u128>(tile),
        }
    }
    let _ = isa;
}

/// Blocks of 8 by 8, so that a few lines of each side are open at a time.
unsafe fn plain<T: Copy>(tile: Tile) {
    for r in (0..tile.rows).step_by(8) {
        let rows = 8.min(tile.rows - r);
        for c in (0..tile.columns).step_by(8) {
            let columns = 8.min(tile.columns - c);
            // SAFETY: the block lies within the tile.
            unsafe {
                let b = tile.part(size_of::<T>(), r, c, rows, columns);
                if (rows, columns) == (8, 8) {
                    block::<T>(b, 8, 8);
                } else {
                    block::<T>(b, rows, columns);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn block<T: Copy>(b: Tile, rows: usize, columns: usize) {
    for c in 0..columns {
        for r in 0..rows {
            // SAFETY: within the block. Elements may be put together from smaller ones, hence unaligned.
            unsafe {
                let x = b.from.offset(r as isize * b.from_step).cast::<T>().add(c).read_unaligned();
                b.to.offset(c as isize * b.to_step).cast::<T>().add(r).write_unaligned(x);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn blocks_of_8(tile: Tile) {
    // SAFETY: each block lies within the tile.
    unsafe { blocks::<u32, 8>(tile, |b| block_8x8(b)) }
}

/// Square blocks of N by N with `f`, in pairs so that lines of the source are used up; the edges one by one.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn blocks<T: Copy, const N: usize>(tile: Tile, f: impl Fn(Tile)) {
    let (rows, columns, size) = (tile.rows / N * N, tile.columns / N * N, size_of::<T>());
    // SAFETY: blocks and edges lie within the tile.
    unsafe {
        let mut c = 0;
        while c < columns {
            let pair = (2 * N).min(columns - c);
            for r in (0..rows).step_by(N) {
                for k in (0..pair).step_by(N) {
                    f(tile.part(size, r, c + k, N, N));
                }
            }
            c += pair;
        }
        if columns < tile.columns {
            plain::<T>(tile.part(size, 0, columns, tile.rows, tile.columns - columns));
        }
        if rows < tile.rows {
            plain::<T>(tile.part(size, rows, 0, tile.rows - rows, columns));
        }
    }
}

/// Sixteen rows of sixteen bytes: interleaving the first half of the rows with the second, four times, is a transposition.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn block_u8(b: Tile) {
    use std::arch::x86_64::*;
    // SAFETY: sixteen rows and columns of both sides are valid; SSE2 is in every x86-64.
    unsafe {
        let mut x = [_mm_setzero_si128(); 16];
        for (i, x) in x.iter_mut().enumerate() {
            *x = _mm_loadu_si128(b.from.offset(i as isize * b.from_step).cast());
        }
        for _ in 0..4 {
            let y = x;
            for i in 0..8 {
                x[2 * i] = _mm_unpacklo_epi8(y[i], y[i + 8]);
                x[2 * i + 1] = _mm_unpackhi_epi8(y[i], y[i + 8]);
            }
        }
        for (i, x) in x.iter().enumerate() {
            _mm_storeu_si128(b.to.offset(i as isize * b.to_step).cast(), *x);
        }
    }
}

/// Eight rows of eight halves, likewise.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn block_u16(b: Tile) {
    use std::arch::x86_64::*;
    // SAFETY: eight rows and columns of both sides are valid; SSE2 is in every x86-64.
    unsafe {
        let mut x = [_mm_setzero_si128(); 8];
        for (i, x) in x.iter_mut().enumerate() {
            *x = _mm_loadu_si128(b.from.offset(i as isize * b.from_step).cast());
        }
        for _ in 0..3 {
            let y = x;
            for i in 0..4 {
                x[2 * i] = _mm_unpacklo_epi16(y[i], y[i + 4]);
                x[2 * i + 1] = _mm_unpackhi_epi16(y[i], y[i + 4]);
            }
        }
        for (i, x) in x.iter().enumerate() {
            _mm_storeu_si128(b.to.offset(i as isize * b.to_step).cast(), *x);
        }
    }
}

/// Eight rows of eight floats in registers: pairs, quadruples, halves change places.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn block_8x8(b: Tile) {
    use std::arch::x86_64::*;
    // SAFETY: eight rows and columns of both sides are valid.
    unsafe {
        let row = |i: isize| _mm256_loadu_ps(b.from.offset(i * b.from_step).cast());
        let mut pairs = [_mm256_setzero_ps(); 8];
        for i in 0..4 {
            let (x, y) = (row(2 * i), row(2 * i + 1));
            pairs[2 * i as usize] = _mm256_unpacklo_ps(x, y);
            pairs[2 * i as usize + 1] = _mm256_unpackhi_ps(x, y);
        }
        let mut fours = [_mm256_setzero_ps(); 8];
        for h in 0..2 {
            let p = &pairs[4 * h..4 * h + 4];
            fours[4 * h] = _mm256_shuffle_ps::<0x44>(p[0], p[2]);
            fours[4 * h + 1] = _mm256_shuffle_ps::<0xEE>(p[0], p[2]);
            fours[4 * h + 2] = _mm256_shuffle_ps::<0x44>(p[1], p[3]);
            fours[4 * h + 3] = _mm256_shuffle_ps::<0xEE>(p[1], p[3]);
        }
        for i in 0..4 {
            let low = _mm256_permute2f128_ps::<0x20>(fours[i], fours[4 + i]);
            let high = _mm256_permute2f128_ps::<0x31>(fours[i], fours[4 + i]);
            _mm256_storeu_ps(b.to.offset(i as isize * b.to_step).cast(), low);
            _mm256_storeu_ps(b.to.offset((i + 4) as isize * b.to_step).cast(), high);
        }
    }
}
