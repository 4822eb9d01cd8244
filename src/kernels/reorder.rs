//! Copies that change an order in memory: transposes, and dense NCHW to and from blocked NCHWc.

use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, Kernel, dispatch};

/// Writes `dst[j * dst_row + i] = src[i * src_row + j]` for `i < rows`, `j < cols`.
/// # Safety
/// Every such place is valid for reading in `src`, which need not be aligned, for writing in `dst`, and the two do not
/// overlap.
pub unsafe fn transpose(
    isa: Isa,
    src: *const f32,
    src_row: usize,
    dst: *mut f32,
    dst_row: usize,
    rows: usize,
    cols: usize,
) {
    dispatch(isa, Transpose { src, src_row, dst, dst_row, rows, cols })
}

struct Transpose {
    src: *const f32,
    src_row: usize,
    dst: *mut f32,
    dst_row: usize,
    rows: usize,
    cols: usize,
}

impl Kernel for Transpose {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let Transpose { src, src_row, dst, dst_row, rows, cols } = self;
        // Square blocks, so that the lines of both sides stay in L1 while they are in use.
        for i0 in (0..rows).step_by(V::LANES) {
            let ni = V::LANES.min(rows - i0);
            for j0 in (0..cols).step_by(V::LANES) {
                let nj = V::LANES.min(cols - j0);
                // SAFETY: the block lies within rows and cols.
                unsafe {
                    let (s, d) = (src.add(i0 * src_row + j0), dst.add(j0 * dst_row + i0));
                    if ni == V::LANES && nj == V::LANES {
                        V::transpose(s, src_row, d, dst_row);
                    } else {
                        for j in 0..nj {
                            for i in 0..ni {
                                *d.add(j * dst_row + i) = s.add(i * src_row + j).read_unaligned();
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Writes row `j` of the transpose at `dst(j)`: `dst(j)[i] = src[i * src_row + j]` for `i < rows`, `j < cols`.
/// # Safety
/// As for [`transpose`]: `dst(j)` is valid for writing `rows` values for each `j < cols`.
pub unsafe fn transpose_to(
    isa: Isa,
    src: *const f32,
    src_row: usize,
    rows: usize,
    cols: usize,
    dst: impl Fn(usize) -> *mut f32,
) {
    let side = isa.f32_lanes();
    let mut tile = [0f32; 16 * 16];
    for i0 in (0..rows).step_by(side) {
        let ni = side.min(rows - i0);
        for j0 in (0..cols).step_by(side) {
            let nj = side.min(cols - j0);
            // SAFETY: the block lies within rows and cols, and has at most 16 of each.
            unsafe {
                transpose(isa, src.add(i0 * src_row + j0), src_row, tile.as_mut_ptr(), side, ni, nj);
                for j in 0..nj {
                    std::ptr::copy_nonoverlapping(tile.as_ptr().add(j * side), dst(j0 + j).add(i0), ni);
                }
            }
        }
    }
}

/// Which way a [`Reorder`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// NCHW to NCHWc; the last block's padding lanes become zero.
    ToBlocked,
    /// NCHWc to NCHW.
    ToDense,
}

/// Floats of a tensor `[n, channels, size]` in blocks of `c` channels.
pub fn blocked_len(n: usize, channels: usize, size: usize, c: usize) -> Result<usize> {
    product(&[n, channels.div_ceil(c), size, c])
}

/// Changes `[n, channels, size]` between dense and blocked.
pub struct Reorder {
    isa: Isa,
    direction: Direction,
    n: usize,
    channels: usize,
    size: usize,
    /// Places of a task.
    step: usize,
}

impl Reorder {
    /// Plans the copy, or says that it is too large.
    pub fn new(isa: Isa, direction: Direction, n: usize, channels: usize, size: usize) -> Result<Reorder> {
        let c = isa.f32_lanes();
        product(&[blocked_len(n, channels, size, c)?, 4])?;
        // Some 64 KiB a task: all blocks of a few places.
        let step = (16 * 1024 / (channels.div_ceil(c).max(1) * c)).max(64).next_multiple_of(16);
        Ok(Reorder { isa, direction, n, channels, size, step })
    }
    /// The kernel's name in the table.
    pub fn name(&self) -> &'static str {
        "f32_reorder"
    }
    /// Independent tasks.
    pub fn tasks(&self) -> usize {
        if self.channels == 0 { 0 } else { self.n * self.size.div_ceil(self.step) }
    }
    /// Runs one task.
    /// # Safety
    /// `src` and `dst` are valid for the shape in their layouts and do not overlap.
    pub unsafe fn run(&self, task: usize, src: *const f32, dst: *mut f32) {
        let (c, size) = (self.isa.f32_lanes(), self.size);
        let per = size.div_ceil(self.step);
        let (item, p0) = (task / per, task % per * self.step);
        let places = self.step.min(size - p0);
        let blocks = self.channels.div_ceil(c);
        for b in 0..blocks {
            let lanes = c.min(self.channels - b * c);
            let dense = (item * self.channels + b * c) * size + p0;
            let blocked = ((item * blocks + b) * size + p0) * c;
            // SAFETY: block, lanes and places lie in both tensors.
            unsafe {
                match self.direction {
                    Direction::ToBlocked => {
                        let dst = dst.add(blocked);
                        if lanes < c {
                            std::ptr::write_bytes(dst, 0, places * c);
                        }
                        transpose(self.isa, src.add(dense), size, dst, c, lanes, places);
                    }
                    Direction::ToDense => {
                        transpose(self.isa, src.add(blocked), c, dst.add(dense), size, places, lanes);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{Guarded, Rng};

    /// Weights lie in files as they fall.
    #[test]
    fn transposes_from_askew() {
        let values = Rng::new(3).floats(37 * 41);
        let mut bytes = vec![0u8];
        bytes.extend(values.iter().flat_map(|x| x.to_ne_bytes()));
        for isa in Isa::detect().levels() {
            let (mut all, mut by_row) = (vec![0f32; 37 * 41], vec![0f32; 37 * 41]);
            // SAFETY: 37 rows of 41 from the second byte on, and rows of 37 as many in both results.
            unsafe {
                let from = bytes.as_ptr().add(1).cast();
                transpose(isa, from, 41, all.as_mut_ptr(), 37, 37, 41);
                let last = by_row.as_mut_ptr().add(40 * 37);
                transpose_to(isa, from, 41, 37, 41, |j| last.sub(j * 37));
            }
            for (j, row) in all.chunks(37).enumerate() {
                assert!(row.iter().enumerate().all(|(i, x)| *x == values[i * 41 + j]), "{isa:?}");
                assert_eq!(row, &by_row[(40 - j) * 37..][..37], "{isa:?}");
            }
        }
    }

    #[test]
    fn transposes_of_any_size() {
        let mut rng = Rng::new(1);
        for round in 0..200 {
            let (rows, cols) = (rng.below(50), rng.below(50));
            let (sr, dr) = (cols + rng.below(3), rows + rng.below(3));
            let len = |r: usize, c: usize, row: usize| if r * c == 0 { 0 } else { (r - 1) * row + c };
            let src = Guarded::new(&rng.floats(len(rows, cols, sr)), round % 2 == 0);
            for isa in Isa::detect().levels() {
                let dst = Guarded::new(&vec![-7.0; len(cols, rows, dr)], round % 2 == 0);
                // SAFETY: as long as the strides need.
                unsafe { transpose(isa, src.ptr, sr, dst.ptr, dr, rows, cols) };
                for (at, v) in dst.slice().iter().enumerate() {
                    let (j, i) = (at / dr.max(1), at % dr.max(1));
                    assert_eq!(*v, if i < rows { src.slice()[i * sr + j] } else { -7.0 });
                }
            }
        }
    }

    #[test]
    fn there_and_back() {
        let mut rng = Rng::new(2);
        for (n, channels, size) in
            [(1, 1, 1), (2, 3, 50), (1, 16, 64), (3, 40, 33), (1, 100, 700), (0, 5, 5), (2, 0, 3)]
        {
            let x = Guarded::new(&rng.floats(n * channels * size), true);
            for isa in Isa::detect().levels() {
                let c = isa.f32_lanes();
                let b = Guarded::nan(blocked_len(n, channels, size, c).unwrap(), true);
                let back = Guarded::nan(x.len, true);
                for (direction, src, dst) in [(Direction::ToBlocked, &x, &b), (Direction::ToDense, &b, &back)] {
                    let r = Reorder::new(isa, direction, n, channels, size).unwrap();
                    for task in (0..r.tasks()).rev() {
                        // SAFETY: both have the layout's length.
                        unsafe { r.run(task, src.ptr, dst.ptr) };
                    }
                }
                assert_eq!(b.slice(), crate::kernels::conv::tests::to_blocked(x.slice(), n, channels, size, c));
                assert_eq!(back.slice(), x.slice());
            }
        }
    }
}
