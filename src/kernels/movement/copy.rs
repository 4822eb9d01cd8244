//! Copies an N-d array of any strides to another of any strides: what transpose, slice, expand, concat, split, tile,
//! depth to space and their kin come down to.

use super::GRAIN_BYTES;
use super::transpose::{Tile, transpose};
use crate::ensure;
use crate::error::Result;
use crate::kernels::isa::Isa;
use crate::kernels::nd::{Nest, Strides};
use smallvec::SmallVec;

/// Elements on the side of a square tile: source and target of one tile stay in L1.
fn side(size: usize) -> usize {
    match size {
        1 => 128,
        2 | 4 => 64,
        _ => 32,
    }
}

#[derive(Clone, Debug)]
enum Mode {
    /// Both sides have rows in a line.
    Rows,
    /// The innermost dimension of the target is not the source's: tiles of `columns` (in line in the source) times `rows`
    /// (in line in the target). Lengths and tile lengths, and the byte strides across.
    Transpose { rows: usize, columns: usize, tile_rows: usize, tile_columns: usize, across: [isize; 2] },
    /// Element by element.
    Elements,
}

/// A copy bound to a shape and strides.
#[derive(Clone, Debug)]
pub struct StridedCopy {
    isa: Isa,
    size: usize,
    /// Byte strides of source and target. In `Transpose` mode the dimensions around the two.
    nest: Nest,
    mode: Mode,
}

impl StridedCopy {
    /// Copies `shape` elements of `size` bytes (1, 2, 4, 8 or 16); strides in elements, the source's may be 0. Source and
    /// target must not overlap.
    pub fn new(isa: Isa, size: usize, shape: &[usize], from: &[isize], to: &[isize]) -> Result<StridedCopy> {
        ensure!(
            shape.len() == from.len() && shape.len() == to.len(),
            Internal,
            "a copy of shape {shape:?} with {} and {} strides",
            from.len(),
            to.len()
        );
        ensure!(matches!(size, 1 | 2 | 4 | 8 | 16), Unsupported, "copying elements of {size} bytes");
        // The target is written in order of its addresses.
        let mut order: SmallVec<[usize; 6]> = (0..shape.len()).filter(|&i| shape[i] != 1).collect();
        order.sort_by_key(|&i| std::cmp::Reverse((to[i].unsigned_abs(), from[i].unsigned_abs())));
        let by = |s: &[isize]| -> Strides { order.iter().map(|&i| s[i] * size as isize).collect() };
        let dims: SmallVec<[usize; 6]> = order.iter().map(|&i| shape[i]).collect();
        let mut nest = Nest::new(&dims, &[&by(from), &by(to)])?;
        if nest.is_empty() {
            return Ok(StridedCopy { isa, size, nest, mode: Mode::Rows });
        }
        let mut size = size;
        // A short line becomes one larger element.
        let line = |nest: &Nest, size: usize| {
            nest.inner() == 1 || (nest.inner_stride(0), nest.inner_stride(1)) == (size as isize, size as isize)
        };
        while line(&nest, size) && matches!(nest.inner() * size, 2 | 4 | 8 | 16) && nest.dims().len() > 1 {
            size *= nest.inner();
            let n = nest.dims().len() - 1;
            nest = Nest::new(&nest.dims()[..n], &[&nest.strides(0)[..n], &nest.strides(1)[..n]])?;
        }
        if line(&nest, size) {
            return Ok(StridedCopy { isa, size, nest, mode: Mode::Rows });
        }
        let (rank, bytes) = (nest.dims().len(), size as isize);
        let column = (0..rank - 1).find(|&i| nest.strides(0)[i] == bytes);
        if let Some(c) = column
            && nest.inner_stride(1) == bytes
            && nest.dims()[c] > 1
        {
            let (rows, columns) = (nest.inner(), nest.dims()[c]);
            let across = [nest.inner_stride(0), nest.strides(1)[c]];
            let rest = |s: &[isize]| -> Strides { (0..rank - 1).filter(|&i| i != c).map(|i| s[i]).collect() };
            let dims: SmallVec<[usize; 6]> = (0..rank - 1).filter(|&i| i != c).map(|i| nest.dims()[i]).collect();
            let outer = Nest::new(&dims, &[&rest(nest.strides(0)), &rest(nest.strides(1))])?;
            // Squares where both are long, else the long side takes what the short one leaves.
            let side = side(size);
            let rest = |other: usize| (side * side / other.min(side) / 16 * 16).max(side);
            let (tile_rows, tile_columns) = (rows.min(rest(columns)), columns.min(rest(rows)));
            return Ok(StridedCopy {
                isa,
                size,
                nest: outer,
                mode: Mode::Transpose { rows, columns, tile_rows, tile_columns, across },
            });
        }
        Ok(StridedCopy { isa, size, nest, mode: Mode::Elements })
    }

    fn tiles(&self) -> (usize, usize) {
        match self.mode {
            Mode::Transpose { rows, columns, tile_rows, tile_columns, .. } => {
                let tiles = self.nest.len() * rows.div_ceil(tile_rows) * columns.div_ceil(tile_columns);
                (tiles, (GRAIN_BYTES / (tile_rows * tile_columns * self.size)).max(1))
            }
            _ => (0, 1),
        }
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        match self.mode {
            Mode::Transpose { .. } => {
                let (tiles, a_task) = self.tiles();
                tiles.div_ceil(a_task)
            }
            _ => self.nest.tasks(GRAIN_BYTES / self.size),
        }
    }
    /// Runs one task.
    /// # Safety
    /// The pointers are valid for the element size, shape and strides given to `new`; the two arrays do not overlap.
    pub unsafe fn run(&self, task: usize, from: *const u8, to: *mut u8) {
        let (n, size) = (&self.nest, self.size);
        match self.mode {
            Mode::Rows => n.run_task(task, GRAIN_BYTES / size, |o, count| {
                // SAFETY: a row of both arrays.
                unsafe { std::ptr::copy_nonoverlapping(from.offset(o[0]), to.offset(o[1]), count * size) }
            }),
            Mode::Elements => n.run_task(task, GRAIN_BYTES / size, |o, count| {
                let (f, t) = (n.inner_stride(0), n.inner_stride(1));
                // SAFETY: a row of both arrays.
                unsafe {
                    let (from, to) = (from.offset(o[0]), to.offset(o[1]));
                    match size {
                        1 => elements::<u8>(from, f, to, t, count),
                        2 => elements::<u16>(from, f, to, t, count),
                        4 => elements::<u32>(from, f, to, t, count),
                        8 => elements::<u64>(from, f, to, t, count),
                        _ => elements::<u128>(from, f, to, t, count),
                    }
                }
            }),
            Mode::Transpose { rows, columns, tile_rows, tile_columns, across } => {
                let (tiles, a_task) = self.tiles();
                let (down, right) = (rows.div_ceil(tile_rows), columns.div_ceil(tile_columns));
                for tile in task * a_task..((task + 1) * a_task).min(tiles) {
                    let (around, at) = (tile / (down * right), tile % (down * right));
                    let (r, c) = (at % down * tile_rows, at / down * tile_columns);
                    let mut start = [0isize; 2];
                    let inner = n.inner();
                    n.for_rows(around / inner, around / inner + 1, |o| {
                        start = [0, 1].map(|k| o[k] + (around % inner) as isize * n.inner_stride(k));
                    });
                    // SAFETY: the tile lies within both arrays.
                    unsafe {
                        transpose(
                            self.isa,
                            size,
                            Tile {
                                from: from.offset(start[0] + r as isize * across[0] + (c * size) as isize),
                                from_step: across[0],
                                to: to.offset(start[1] + c as isize * across[1] + (r * size) as isize),
                                to_step: across[1],
                                rows: tile_rows.min(rows - r),
                                columns: tile_columns.min(columns - c),
                            },
                        )
                    }
                }
            }
        }
    }
}

/// # Safety
/// Pointers and byte strides are valid for `count` elements.
unsafe fn elements<T: Copy>(from: *const u8, f: isize, to: *mut u8, t: isize, count: usize) {
    // SAFETY: the caller's contract; larger elements may be put together from smaller ones, hence unaligned.
    unsafe {
        if f == 0 {
            let x = from.cast::<T>().read_unaligned();
            if t == size_of::<T>() as isize {
                for i in 0..count {
                    to.cast::<T>().add(i).write_unaligned(x);
                }
            } else {
                for i in 0..count as isize {
                    to.offset(i * t).cast::<T>().write_unaligned(x);
                }
            }
        } else {
            for i in 0..count as isize {
                to.offset(i * t).cast::<T>().write_unaligned(from.offset(i * f).cast::<T>().read_unaligned());
            }
        }
    }
}
