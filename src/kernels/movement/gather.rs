//! Gather, GatherElements and GatherND over dense arrays.

use super::GRAIN_BYTES;
use super::index::{BadIndex, IndexType, copy_block, read};
use crate::base::checked;
use crate::ensure;
use crate::error::Result;
use crate::kernels::nd::{Dims, Nest, dense_strides};

/// Takes whole slices along one axis: data (outer, axis, slice) by `count` indices to (outer, count, slice).
#[derive(Clone, Debug)]
pub struct Gather {
    kind: IndexType,
    outer: usize,
    axis: usize,
    count: usize,
    /// Bytes of a slice.
    slice: usize,
    slices_a_task: usize,
}

impl Gather {
    /// For slices of `slice` bytes.
    pub fn new(kind: IndexType, outer: usize, axis: usize, count: usize, slice: usize) -> Result<Gather> {
        checked::product(&[outer, axis, slice])?;
        checked::product(&[outer, count, slice])?;
        Ok(Gather { kind, outer, axis, count, slice, slices_a_task: (GRAIN_BYTES / slice.max(4)).max(1) })
    }
    fn slices(&self) -> usize {
        if self.slice == 0 { 0 } else { self.outer * self.count }
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.slices().div_ceil(self.slices_a_task)
    }
    /// Runs one task.
    /// # Safety
    /// The pointers are valid for the sizes given to `new`, `indices` for `count` indices; the target overlaps nothing.
    pub unsafe fn run(&self, task: usize, data: *const u8, indices: *const u8, to: *mut u8) -> Result<(), BadIndex> {
        let first = task * self.slices_a_task;
        let last = (first + self.slices_a_task).min(self.slices());
        let (mut o, mut i) = (first / self.count, first % self.count);
        for s in first..last {
            // SAFETY: the index was checked against the axis; the target has outer * count slices.
            unsafe {
                let place = read(self.kind, indices, i, self.axis)?;
                copy_block(data.add((o * self.axis + place) * self.slice), to.add(s * self.slice), self.slice);
            }
            i += 1;
            if i == self.count {
                (o, i) = (o + 1, 0);
            }
        }
        Ok(())
    }
}

/// Takes single elements: the result has the shape of the indices, and each index replaces its own coordinate on the axis.
#[derive(Clone, Debug)]
pub struct GatherElements {
    kind: IndexType,
    size: usize,
    limit: usize,
    /// Bytes from place to place along the axis.
    step: usize,
    /// Operands: the data with the axis left out, and the indices.
    nest: Nest,
}

impl GatherElements {
    /// For dense data of `shape` and dense indices of shape `indices`, which is no longer than the data on other axes.
    pub fn new(
        kind: IndexType,
        size: usize,
        shape: &[usize],
        indices: &[usize],
        axis: usize,
    ) -> Result<GatherElements> {
        check_elements(shape, indices, axis)?;
        let mut strides = dense_strides(shape);
        let step = strides[axis] as usize * size;
        strides[axis] = 0;
        let nest = Nest::new(indices, &[&strides, &dense_strides(indices)])?;
        Ok(GatherElements { kind, size, limit: shape[axis], step, nest })
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.nest.tasks(GRAIN_BYTES / 8)
    }
    /// Runs one task.
    /// # Safety
    /// The pointers are valid for the shapes given to `new`; the target, of the indices' shape, overlaps nothing.
    pub unsafe fn run(&self, task: usize, data: *const u8, indices: *const u8, to: *mut u8) -> Result<(), BadIndex> {
        let mut done = Ok(());
        let step = self.nest.inner_stride(0);
        self.nest.run_task(task, GRAIN_BYTES / 8, |o, count| {
            if done.is_err() {
                return;
            }
            for i in 0..count {
                let at = o[1] as usize + i * self.nest.inner_stride(1) as usize;
                let base = (o[0] + i as isize * step) as usize * self.size;
                // SAFETY: the coordinates lie within the data, the index was checked against the axis.
                unsafe {
                    match read(self.kind, indices, at, self.limit) {
                        Ok(p) => copy_block(data.add(base + p * self.step), to.add(at * self.size), self.size),
                        Err(e) => {
                            done = Err(e);
                            return;
                        }
                    }
                }
            }
        });
        done
    }
}

/// What GatherElements and ScatterElements ask of their shapes.
pub(super) fn check_elements(shape: &[usize], indices: &[usize], axis: usize) -> Result<()> {
    let fits = shape.len() == indices.len()
        && axis < shape.len()
        && (0..shape.len()).all(|i| i == axis || indices[i] <= shape[i]);
    ensure!(fits, InvalidModel, "indices of shape {indices:?} over data of shape {shape:?} on axis {axis}");
    Ok(())
}

/// Indices that come as tuples, each naming a slice: of GatherND and ScatterND.
#[derive(Clone, Debug)]
pub(super) struct Tuples {
    kind: IndexType,
    /// Lengths of the axes that a tuple indexes.
    limits: Dims,
    /// Bytes of a slice.
    pub slice: usize,
}

impl Tuples {
    pub fn new(kind: IndexType, limits: &[usize], slice: usize) -> Tuples {
        Tuples { kind, limits: limits.into(), slice }
    }
    /// Bytes of all that a tuple can name.
    pub fn span(&self) -> usize {
        self.limits.iter().product::<usize>() * self.slice
    }
    /// Where the slice of tuple `t` begins, in bytes.
    /// # Safety
    /// `indices` has a tuple `t`.
    #[inline(always)]
    pub unsafe fn place(&self, indices: *const u8, t: usize) -> Result<usize, BadIndex> {
        let mut place = 0;
        for (k, &limit) in self.limits.iter().enumerate() {
            // SAFETY: the caller's contract.
            place = place * limit + unsafe { read(self.kind, indices, t * self.limits.len() + k, limit)? };
        }
        Ok(place * self.slice)
    }
}

/// Takes slices named by tuples of indices, batch by batch.
#[derive(Clone, Debug)]
pub struct GatherNd {
    batch: usize,
    count: usize,
    tuples: Tuples,
    slices_a_task: usize,
}

impl GatherNd {
    /// Data (`batch`, `limits`..., slice of `slice` bytes); indices (`batch`, `count`, a tuple as long as `limits`).
    pub fn new(kind: IndexType, batch: usize, limits: &[usize], count: usize, slice: usize) -> Result<GatherNd> {
        let span = checked::product(limits)?;
        checked::product(&[batch, span, slice])?;
        checked::product(&[batch, count, slice])?;
        let tuples = Tuples::new(kind, limits, slice);
        Ok(GatherNd { batch, count, tuples, slices_a_task: (GRAIN_BYTES / slice.max(8)).max(1) })
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        if self.tuples.slice == 0 { 0 } else { (self.batch * self.count).div_ceil(self.slices_a_task) }
    }
    /// Runs one task.
    /// # Safety
    /// The pointers are valid for the sizes given to `new`; the target overlaps nothing.
    pub unsafe fn run(&self, task: usize, data: *const u8, indices: *const u8, to: *mut u8) -> Result<(), BadIndex> {
        let first = task * self.slices_a_task;
        for s in first..(first + self.slices_a_task).min(self.batch * self.count) {
            // SAFETY: each index of the tuple was checked against its axis.
            unsafe {
                let at = s / self.count * self.tuples.span() + self.tuples.place(indices, s)?;
                copy_block(data.add(at), to.add(s * self.tuples.slice), self.tuples.slice);
            }
        }
        Ok(())
    }
}
