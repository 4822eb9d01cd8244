//! Copies that change an order in memory: transposes, and dense NCHW to and from blocked NCHWc.

use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, Kernel, dispatch};

/// Writes `dst[j * dst_row + i] = src[i * src_row + j]` for `i < rows`, `j < cols`.
/// # Safety
/// Every such place is valid for reading in `src`, for writing in `dst`, and the two do not overlap.
pub unsafe fn transpose(
    isa: Isa,
    src: *const f32,
    src_row: usize,
    dst: *mut f32,
    dst_row: usize,
    rows: usize,
    cols: usize,
) {
    struct T(*const f32, usize, *mut f32, usize, usize, usize);
    impl Kernel for T {
        type Out = ();
        #[inline(always)]
        fn run<V: F32>(self) {
            let T(src, src_row, dst, dst_row, rows, cols) = self;
            // Square blocks, so that the lines of both sides stay in L1 while they are in use.
            for i0 in (0..rows).step_by(16) {
                let i1 = rows.min(i0 + 16);
                for j0 in (0..cols).step_by(16) {
                    for j in j0..cols.min(j0 + 16) {
                        for i in i0..i1 {
                            // SAFETY: i < rows and j < cols.
                            unsafe { *dst.add(j * dst_row + i) = *src.add(i * src_row + j) };
                        }
                    }
                }
            }
        }
    }
    dispatch(isa, T(src, src_row, dst, dst_row, rows, cols))
}
