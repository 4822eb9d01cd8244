//! Bytes of NCHW to NHWC, and what else a convolution's input needs.

/// Copies `count` parts of `part` bytes, each byte `^ flip`, to places `wide` apart that zeros fill up.
pub(super) unsafe fn copy_parts(src: *const u8, part: usize, dst: *mut u8, wide: usize, count: usize, flip: u8) {
    for i in 0..count {
        // SAFETY: the caller's: as many parts on both sides, `part <= wide`.
        unsafe {
            let from = std::slice::from_raw_parts(src.add(i * part), part);
            let to = std::slice::from_raw_parts_mut(dst.add(i * wide), wide);
            to[..part].iter_mut().zip(from).for_each(|(y, x)| *y = x ^ flip);
            to[part..].fill(0);
        }
    }
}

/// Writes `dst[j * dst_row + i] = src[i * src_row + j] ^ flip` for `i < rows`, `j < cols`.
/// # Safety
/// Every such place is valid for reading in `src` and for writing in `dst`, and the two do not overlap.
pub(super) unsafe fn turn_bytes(
    src: *const u8,
    src_row: usize,
    dst: *mut u8,
    dst_row: usize,
    rows: usize,
    cols: usize,
    flip: u8,
) {
    const SIDE: usize = 8;
    for i0 in (0..rows).step_by(SIDE) {
        for j0 in (0..cols).step_by(SIDE) {
            let (ni, nj) = (SIDE.min(rows - i0), SIDE.min(cols - j0));
            // SAFETY: the block lies within rows and cols.
            unsafe {
                let (s, d) = (src.add(i0 * src_row + j0), dst.add(j0 * dst_row + i0));
                #[cfg(target_arch = "x86_64")]
                if ni == SIDE && nj == SIDE {
                    turn_block(s, src_row, d, dst_row, flip);
                    continue;
                }
                for j in 0..nj {
                    for i in 0..ni {
                        *d.add(j * dst_row + i) = *s.add(i * src_row + j) ^ flip;
                    }
                }
            }
        }
    }
}

/// Eight by eight bytes; SSE2, which every x86-64 has.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn turn_block(s: *const u8, src_row: usize, d: *mut u8, dst_row: usize, flip: u8) {
    use std::arch::x86_64::*;
    // SAFETY: the caller's: eight rows of eight bytes on both sides.
    unsafe {
        let row = |i: usize| _mm_loadl_epi64(s.add(i * src_row).cast());
        let pair = |i: usize| _mm_unpacklo_epi8(row(i), row(i + 1));
        let (a, b, c, e) = (pair(0), pair(2), pair(4), pair(6));
        let (lo0, hi0) = (_mm_unpacklo_epi16(a, b), _mm_unpackhi_epi16(a, b));
        let (lo1, hi1) = (_mm_unpacklo_epi16(c, e), _mm_unpackhi_epi16(c, e));
        let flip = _mm_set1_epi8(flip as i8);
        let all = [
            _mm_unpacklo_epi32(lo0, lo1),
            _mm_unpackhi_epi32(lo0, lo1),
            _mm_unpacklo_epi32(hi0, hi1),
            _mm_unpackhi_epi32(hi0, hi1),
        ];
        for (i, v) in all.into_iter().enumerate() {
            let v = _mm_xor_si128(v, flip);
            _mm_storel_epi64(d.add(2 * i * dst_row).cast(), v);
            _mm_storel_epi64(d.add((2 * i + 1) * dst_row).cast(), _mm_unpackhi_epi64(v, v));
        }
    }
}
