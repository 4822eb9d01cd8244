//! ScatterElements and ScatterND. The target already holds a copy of the data; updates are applied in their order, so that
//! the result is defined even where indices repeat.

use super::GRAIN_BYTES;
use super::gather::{Tuples, check_elements};
use super::index::{BadIndex, IndexType, copy_block, read};
use crate::base::checked;
use crate::err;
use crate::error::Result;
use crate::kernels::elem::{Elem, Narrow, Number};
use crate::kernels::nd::dense_strides;
use half::{bf16, f16};

/// How an update meets what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ScatterKind {
    Replace,
    Add,
    Mul,
    Max,
    Min,
}

/// Combines `n` elements in a line.
type Run = unsafe fn(*mut u8, *const u8, usize);

unsafe fn run_number<T: Number, const KIND: u8>(to: *mut u8, from: *const u8, n: usize) {
    for i in 0..n {
        // SAFETY: the caller answers for n elements on both sides.
        unsafe {
            let (t, x) = (to.cast::<T>().add(i), *from.cast::<T>().add(i));
            *t = match KIND {
                0 => (*t).add(x),
                1 => (*t).mul(x),
                2 => (*t).most(x),
                _ => (*t).least(x),
            };
        }
    }
}
unsafe fn run_narrow<T: Narrow, const KIND: u8>(to: *mut u8, from: *const u8, n: usize) {
    for i in 0..n {
        // SAFETY: the caller answers for n elements on both sides.
        unsafe {
            let (t, x) = (to.cast::<T>().add(i), (*from.cast::<T>().add(i)).widen());
            let y = (*t).widen();
            *t = T::narrow(match KIND {
                0 => y + x,
                1 => y * x,
                2 => y.most(x),
                _ => y.least(x),
            });
        }
    }
}

fn number<T: Number>(kind: ScatterKind) -> Option<Run> {
    Some(match kind {
        ScatterKind::Replace => return None,
        ScatterKind::Add => run_number::<T, 0>,
        ScatterKind::Mul => run_number::<T, 1>,
        ScatterKind::Max => run_number::<T, 2>,
        ScatterKind::Min => run_number::<T, 3>,
    })
}
fn narrow<T: Narrow>(kind: ScatterKind) -> Option<Run> {
    Some(match kind {
        ScatterKind::Replace => return None,
        ScatterKind::Add => run_narrow::<T, 0>,
        ScatterKind::Mul => run_narrow::<T, 1>,
        ScatterKind::Max => run_narrow::<T, 2>,
        ScatterKind::Min => run_narrow::<T, 3>,
    })
}

/// `None` where updates replace.
fn pick(kind: ScatterKind, elem: Option<Elem>) -> Result<Option<Run>> {
    if kind == ScatterKind::Replace {
        return Ok(None);
    }
    Ok(match elem.ok_or_else(|| err!(Unsupported, "scattering with {kind:?} in this type"))? {
        Elem::F32 => number::<f32>(kind),
        Elem::F64 => number::<f64>(kind),
        Elem::F16 => narrow::<f16>(kind),
        Elem::Bf16 => narrow::<bf16>(kind),
        Elem::I8 => number::<i8>(kind),
        Elem::I16 => number::<i16>(kind),
        Elem::I32 => number::<i32>(kind),
        Elem::I64 => number::<i64>(kind),
        Elem::U8 => number::<u8>(kind),
        Elem::U16 => number::<u16>(kind),
        Elem::U32 => number::<u32>(kind),
        Elem::U64 => number::<u64>(kind),
        // Of truth values the sum and the greater are "or", the product and the lesser "and".
        Elem::Bool => number::<u8>(match kind {
            ScatterKind::Add => ScatterKind::Max,
            ScatterKind::Mul => ScatterKind::Min,
            k => k,
        }),
    })
}

/// Puts single elements: each index replaces its own coordinate on the axis.
#[derive(Clone, Debug)]
pub struct ScatterElements {
    kind: IndexType,
    size: usize,
    run: Option<Run>,
    /// Before the axis: shape of the indices, and the data's strides.
    outer: (Vec<usize>, Vec<isize>),
    /// After the axis, likewise.
    inner: (Vec<usize>, Vec<isize>),
    axis: usize,
    limit: usize,
    step: usize,
}

impl ScatterElements {
    /// For a dense target of `shape`, dense indices and updates of shape `indices`. `elem` may be missing, for types that
    /// are no numbers, where updates replace; `size` is that of an element in bytes.
    pub fn new(
        kind: IndexType,
        how: ScatterKind,
        elem: Option<Elem>,
        size: usize,
        shape: &[usize],
        indices: &[usize],
        axis: usize,
    ) -> Result<ScatterElements> {
        check_elements(shape, indices, axis)?;
        checked::product(shape)?;
        checked::product(indices)?;
        let strides = dense_strides(shape);
        Ok(ScatterElements {
            kind,
            size,
            run: pick(how, elem)?,
            outer: (indices[..axis].into(), strides[..axis].into()),
            inner: (indices[axis + 1..].into(), strides[axis + 1..].into()),
            axis: indices[axis],
            limit: shape[axis],
            step: strides[axis] as usize,
        })
    }
    fn inner_len(&self) -> usize {
        self.inner.0.iter().product()
    }
    /// How many tasks there are: updates of different outer coordinates never meet.
    pub fn tasks(&self) -> usize {
        if self.axis * self.inner_len() == 0 { 0 } else { self.outer.0.iter().product() }
    }
    /// Runs one task.
    /// # Safety
    /// The pointers are valid for the shapes given to `new`; the target overlaps neither indices nor updates.
    pub unsafe fn run(&self, task: usize, indices: *const u8, updates: *const u8, to: *mut u8) -> Result<(), BadIndex> {
        let unravel = |side: &(Vec<usize>, Vec<isize>), mut i: usize| {
            let mut at = 0;
            for (d, s) in side.0.iter().zip(&side.1).rev() {
                at += i % d * *s as usize;
                i /= d;
            }
            at
        };
        let (base, inner) = (unravel(&self.outer, task), self.inner_len());
        // Where the indices cover the whole inner part of the data, its offset is the counter.
        let dense = self.inner.1.first().map_or(1, |s| *s as usize * self.inner.0[0]) == inner;
        for i in 0..self.axis {
            for j in 0..inner {
                let at = (task * self.axis + i) * inner + j;
                let offset = if dense { j } else { unravel(&self.inner, j) };
                // SAFETY: the coordinates lie within the data, the index was checked against the axis.
                unsafe {
                    let place = base + offset + read(self.kind, indices, at, self.limit)? * self.step;
                    let (x, t) = (updates.add(at * self.size), to.add(place * self.size));
                    match self.run {
                        Some(run) => run(t, x, 1),
                        None => copy_block(x, t, self.size),
                    }
                }
            }
        }
        Ok(())
    }
}

/// Puts slices named by tuples of indices.
#[derive(Clone, Debug)]
pub struct ScatterNd {
    run: Option<Run>,
    count: usize,
    tuples: Tuples,
    size: usize,
    /// Bytes of a slice that a task puts.
    part: usize,
}

impl ScatterNd {
    /// Target (`limits`..., a slice of `slice` elements); indices (`count`, a tuple as long as `limits`); updates (`count`,
    /// slice). `elem` and `size` as for [`ScatterElements::new`].
    pub fn new(
        kind: IndexType,
        how: ScatterKind,
        elem: Option<Elem>,
        size: usize,
        limits: &[usize],
        count: usize,
        slice: usize,
    ) -> Result<ScatterNd> {
        let bytes = checked::product(&[slice, size])?;
        checked::product(&[checked::product(limits)?, bytes])?;
        checked::product(&[count, bytes])?;
        // Each task puts its part of all slices, in order: repeated indices never race.
        let part = (GRAIN_BYTES / count.max(1)).max(256) / size * size;
        Ok(ScatterNd { run: pick(how, elem)?, count, tuples: Tuples::new(kind, limits, bytes), size, part })
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        if self.count == 0 { 0 } else { self.tuples.slice.div_ceil(self.part) }
    }
    /// Runs one task.
    /// # Safety
    /// The pointers are valid for the sizes given to `new`; the target overlaps neither indices nor updates.
    pub unsafe fn run(&self, task: usize, indices: *const u8, updates: *const u8, to: *mut u8) -> Result<(), BadIndex> {
        let slice = self.tuples.slice;
        let first = task * self.part;
        let bytes = self.part.min(slice - first);
        for t in 0..self.count {
            // SAFETY: each index of the tuple was checked against its axis; the part lies within the slice.
            unsafe {
                let place = self.tuples.place(indices, t)? + first;
                let x = updates.add(t * slice + first);
                match self.run {
                    Some(run) => run(to.add(place), x, bytes / self.size),
                    None => copy_block(x, to.add(place), bytes),
                }
            }
        }
        Ok(())
    }
}
