//! Loops over N-d arrays: dimensions that lie behind one another in memory are merged, and the rest is walked with an
//! odometer. Strides are in elements and may be zero or negative.

use crate::base::checked;
use crate::error::Result;
use smallvec::{SmallVec, smallvec};

/// Lengths of dimensions, outermost first.
pub type Dims = SmallVec<[usize; 6]>;
/// Strides of dimensions in elements, outermost first.
pub type Strides = SmallVec<[isize; 6]>;

/// The strides of a dense row-major array.
pub fn dense_strides(shape: &[usize]) -> Strides {
    let mut strides: Strides = smallvec![1; shape.len()];
    let mut step = 1isize;
    for i in (0..shape.len()).rev() {
        strides[i] = step;
        step = step.wrapping_mul(shape[i].max(1) as isize);
    }
    strides
}

/// The strides that read a dense array of `from` as if it had the shape `to`, broadcast as NumPy does it;
/// `None` if it does not broadcast.
pub fn broadcast_strides(from: &[usize], to: &[usize]) -> Option<Strides> {
    let lead = to.len().checked_sub(from.len())?;
    let dense = dense_strides(from);
    let mut strides: Strides = smallvec![0; to.len()];
    for i in 0..from.len() {
        if from[i] == to[lead + i] {
            strides[lead + i] = if from[i] == 1 { 0 } else { dense[i] };
        } else if from[i] != 1 {
            return None;
        }
    }
    Some(strides)
}

/// Merges what can be merged for all operands at once. At least one dimension stays.
pub fn collapse(shape: &[usize], strides: &[&[isize]]) -> (Dims, SmallVec<[Strides; 4]>) {
    let mut dims = Dims::new();
    let mut out: SmallVec<[Strides; 4]> = strides.iter().map(|_| Strides::new()).collect();
    for (i, &d) in shape.iter().enumerate() {
        if d == 1 {
            continue;
        }
        let merges = dims.last().is_some_and(|_| {
            out.iter().zip(strides).all(|(o, s)| o.last().copied() == Some(s[i].wrapping_mul(d as isize)))
        });
        match dims.last_mut() {
            Some(last) if merges => {
                *last *= d;
                for (o, s) in out.iter_mut().zip(strides) {
                    if let Some(l) = o.last_mut() {
                        *l = s[i];
                    }
                }
            }
            _ => {
                dims.push(d);
                for (o, s) in out.iter_mut().zip(strides) {
                    o.push(s[i]);
                }
            }
        }
    }
    if dims.is_empty() {
        dims.push(1);
        out.iter_mut().for_each(|o| o.push(1));
    }
    (dims, out)
}

/// Adds one to the index of the dimensions `dims`, last one fastest, and keeps `offsets` in step.
/// Returns to all zeros after the last.
#[inline]
fn advance(dims: &[usize], index: &mut [usize], mut moved: impl FnMut(usize, isize)) {
    for i in (0..dims.len()).rev() {
        index[i] += 1;
        if index[i] < dims[i] {
            moved(i, 1);
            return;
        }
        moved(i, 1 - dims[i] as isize);
        index[i] = 0;
    }
}

/// One operand seen as a flat sequence of the elements of the iteration's shape.
#[derive(Clone, Debug)]
pub struct Walk {
    dims: Dims,
    strides: Strides,
    len: usize,
}

impl Walk {
    /// A walk over `shape` in row-major order.
    pub fn new(shape: &[usize], strides: &[isize]) -> Result<Walk> {
        let len = checked::product(shape)?;
        if len == 0 {
            return Ok(Walk { dims: smallvec![0], strides: smallvec![1], len });
        }
        let (dims, mut out) = collapse(shape, &[strides]);
        Ok(Walk { dims, strides: out.remove(0), len })
    }
    /// How many elements the walk meets.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether the walk meets no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Whether the elements lie one behind another.
    pub fn is_dense(&self) -> bool {
        self.dims.len() == 1 && (self.strides[0] == 1 || self.len <= 1)
    }
    /// Whether it is one element all along.
    pub fn is_scalar(&self) -> bool {
        self.dims.len() == 1 && (self.strides[0] == 0 || self.len <= 1)
    }
    /// After how many elements it starts over, if it repeats one row again and again.
    pub fn period(&self) -> Option<usize> {
        let repeats = self.dims.len() == 2 && self.strides[0] == 0 && self.len > 0;
        repeats.then(|| self.dims[1])
    }
    /// Calls `f(offset, stride, count)` for each straight piece of the flat range `start .. start + len`, in order.
    #[inline]
    pub fn pieces(&self, start: usize, len: usize, mut f: impl FnMut(isize, isize, usize)) {
        debug_assert!(start + len <= self.len);
        if len == 0 {
            return;
        }
        let rank = self.dims.len();
        let (inner, step) = (self.dims[rank - 1], self.strides[rank - 1]);
        if rank == 1 {
            return f(start as isize * step, step, len);
        }
        let outer = &self.dims[..rank - 1];
        let mut index: Dims = smallvec![0; rank - 1];
        let (mut row, mut at, mut left) = (start / inner, start % inner, len);
        let mut base = 0isize;
        for i in (0..rank - 1).rev() {
            index[i] = row % outer[i];
            row /= outer[i];
            base += index[i] as isize * self.strides[i];
        }
        loop {
            let count = left.min(inner - at);
            f(base + at as isize * step, step, count);
            left -= count;
            if left == 0 {
                return;
            }
            at = 0;
            advance(outer, &mut index, |i, by| base += by * self.strides[i]);
        }
    }
}

/// Several operands walked together, row by row: a row is the innermost merged dimension.
#[derive(Clone, Debug)]
pub struct Nest {
    dims: Dims,
    strides: SmallVec<[Strides; 4]>,
    len: usize,
}

/// Offsets of the operands of a [`Nest`], in elements.
pub type Offsets = SmallVec<[isize; 4]>;

impl Nest {
    /// The nest over `shape`, with one list of strides an operand.
    pub fn new(shape: &[usize], strides: &[&[isize]]) -> Result<Nest> {
        let len = checked::product(shape)?;
        if len == 0 {
            return Ok(Nest { dims: smallvec![0], strides: strides.iter().map(|_| smallvec![1]).collect(), len });
        }
        let (dims, strides) = collapse(shape, strides);
        Ok(Nest { dims, strides, len })
    }
    /// How many elements there are in all.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The merged dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }
    /// The strides of one operand over the merged dimensions.
    pub fn strides(&self, operand: usize) -> &[isize] {
        &self.strides[operand]
    }
    /// Elements in a row.
    pub fn inner(&self) -> usize {
        self.dims[self.dims.len() - 1]
    }
    /// The operand's stride along a row.
    pub fn inner_stride(&self, operand: usize) -> isize {
        self.strides[operand][self.dims.len() - 1]
    }
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        if self.len == 0 { 0 } else { self.len / self.inner() }
    }
    /// Calls `f(offsets)` with each operand's offset at the start of each of the rows `first .. last`.
    #[inline]
    pub fn for_rows(&self, first: usize, last: usize, mut f: impl FnMut(&[isize])) {
        if first >= last {
            return;
        }
        let outer = &self.dims[..self.dims.len() - 1];
        let mut index: Dims = smallvec![0; outer.len()];
        let mut offsets: Offsets = smallvec![0; self.strides.len()];
        let mut row = first;
        for i in (0..outer.len()).rev() {
            index[i] = row % outer[i];
            row /= outer[i];
            for (o, s) in offsets.iter_mut().zip(&self.strides) {
                *o += index[i] as isize * s[i];
            }
        }
        for r in first..last {
            f(&offsets);
            if r + 1 < last {
                advance(outer, &mut index, |i, by| {
                    for (o, s) in offsets.iter_mut().zip(&self.strides) {
                        *o += by * s[i];
                    }
                });
            }
        }
    }
    /// How many tasks of about `grain` elements the nest makes.
    pub fn tasks(&self, grain: usize) -> usize {
        if self.len == 0 {
            0
        } else if self.inner() > grain {
            self.rows() * self.inner().div_ceil(grain)
        } else {
            self.rows().div_ceil((grain / self.inner()).max(1))
        }
    }
    /// Calls `f(offsets, count)` for each row, or part of a row, of one of the `tasks(grain)` tasks.
    #[inline]
    pub fn run_task(&self, task: usize, grain: usize, mut f: impl FnMut(&[isize], usize)) {
        let inner = self.inner();
        if inner > grain {
            let parts = inner.div_ceil(grain);
            let (row, part) = (task / parts, task % parts);
            let start = part * grain;
            self.for_rows(row, row + 1, |offsets| {
                let mut offsets: Offsets = offsets.into();
                for (i, o) in offsets.iter_mut().enumerate() {
                    *o += start as isize * self.inner_stride(i);
                }
                f(&offsets, grain.min(inner - start));
            });
        } else {
            let rows = (grain / inner.max(1)).max(1);
            self.for_rows(task * rows, ((task + 1) * rows).min(self.rows()), |offsets| f(offsets, inner));
        }
    }
}

/// Random shapes and strides for the kernels' tests.
#[cfg(test)]
pub(crate) mod random {
    use crate::kernels::testing::Rng;

    /// An array within a block of memory: dense, permuted, padded, reversed, or broadcast.
    #[derive(Clone, Debug)]
    pub struct Layout {
        pub shape: Vec<usize>,
        pub strides: Vec<isize>,
        /// Where the first element lies.
        pub offset: usize,
        /// Elements of the whole block.
        pub span: usize,
    }

    impl Layout {
        /// Offsets of all elements in row-major order.
        pub fn offsets(&self) -> Vec<usize> {
            let mut all = vec![self.offset as isize];
            for (d, s) in self.shape.iter().zip(&self.strides) {
                all = all.iter().flat_map(|o| (0..*d as isize).map(move |i| o + i * s)).collect();
            }
            all.into_iter().map(|o| o as usize).collect()
        }
    }

    /// A shape of rank 0 to 5 and about a thousand elements; one in ten has a zero.
    pub fn shape(rng: &mut Rng) -> Vec<usize> {
        let rank = rng.below(6);
        let most = [1, 1500, 40, 12, 6, 4][rank];
        let mut shape: Vec<usize> = (0..rank).map(|_| 1 + rng.below(most)).collect();
        if rank > 0 && rng.below(10) == 0 {
            shape[rng.below(rank)] = 0;
        }
        if rank > 1 && rng.below(4) == 0 {
            shape[rank - 1] = 300 + rng.below(900);
            shape[0] = 1 + rng.below(3);
        }
        shape
    }

    /// Somewhere for an array of this shape. No two elements share memory unless `broadcast`.
    pub fn layout(rng: &mut Rng, shape: &[usize], broadcast: bool) -> Layout {
        let mut order: Vec<usize> = (0..shape.len()).collect();
        if rng.below(2) == 0 {
            (1..order.len()).for_each(|i| order.swap(i, rng.below(i + 1)));
        }
        let plain = rng.below(2) == 0;
        let mut strides = vec![0isize; shape.len()];
        let mut span = 1usize;
        let mut offset = 0;
        for &i in order.iter().rev() {
            if broadcast && rng.below(4) == 0 {
                continue;
            }
            let step = if plain { span } else { span * (1 + rng.below(2)) };
            strides[i] = step as isize;
            if !plain && rng.below(3) == 0 {
                offset += step * shape[i].saturating_sub(1);
                strides[i] = -strides[i];
            }
            span += step * shape[i].saturating_sub(1);
        }
        Layout { shape: shape.into(), strides, offset, span }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_what_lies_behind_one_another() {
        let nest = Nest::new(&[2, 3, 1, 4], &[&[12, 4, 4, 1], &[0, 4, 9, 1]]).unwrap();
        assert_eq!(nest.dims(), &[2, 12]);
        assert_eq!(nest.strides(1), &[0, 1]);
        assert!(Walk::new(&[2, 3, 4], &[12, 4, 1]).unwrap().is_dense());
        assert!(Walk::new(&[2, 3, 4], &[0, 0, 0]).unwrap().is_scalar());
        assert!(Walk::new(&[], &[]).unwrap().is_dense());
    }

    #[test]
    fn pieces_visit_every_element_in_order() {
        let (shape, strides) = ([2usize, 3, 4], [1isize, -8, 2]);
        let walk = Walk::new(&shape, &strides).unwrap();
        let mut want = vec![];
        for i in 0..2isize {
            for j in 0..3isize {
                for k in 0..4isize {
                    want.push(i - 8 * j + 2 * k);
                }
            }
        }
        for start in 0..24 {
            for len in 0..=24 - start {
                let mut got = vec![];
                walk.pieces(start, len, |o, s, n| got.extend((0..n as isize).map(|i| o + i * s)));
                assert_eq!(got, want[start..start + len]);
            }
        }
    }

    #[test]
    fn tasks_cover_each_element_once() {
        for shape in [&[5usize, 7][..], &[40], &[3, 1, 2], &[0, 4], &[]] {
            let dense = dense_strides(shape);
            let padded: Strides = dense.iter().map(|s| s * 2 + 1).collect();
            let nest = Nest::new(shape, &[&dense, &padded]).unwrap();
            for grain in [1, 3, 8, 100] {
                let mut seen = vec![0; shape.iter().product()];
                for t in 0..nest.tasks(grain) {
                    nest.run_task(t, grain, |o, n| {
                        for i in 0..n as isize {
                            seen[(o[0] + i * nest.inner_stride(0)) as usize] += 1;
                        }
                    });
                }
                assert!(seen.iter().all(|&n| n == 1), "{shape:?} {grain}");
            }
        }
    }

    #[test]
    fn broadcasts_as_numpy() {
        assert_eq!(broadcast_strides(&[3, 1], &[2, 3, 4]).unwrap().as_slice(), &[0, 1, 0]);
        assert!(broadcast_strides(&[3], &[4]).is_none());
        assert!(broadcast_strides(&[2, 3], &[3]).is_none());
    }
}
