//! Sums, means, extremes, products and norms over any axes of an array of any strides.

use super::generic;
use super::rows::{Columns, Combine, Map, Row, Rows};
use crate::base::checked;
use crate::ensure;
use crate::error::Result;
use crate::kernels::convert::{load_strided, store_strided};
use crate::kernels::elem::Elem;
use crate::kernels::isa::Isa;
use crate::kernels::nd::{Dims, Nest, Strides, Walk};
use crate::kernels::simd::dispatch;
use smallvec::SmallVec;

/// What a reduction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ReduceKind {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    /// Sum of magnitudes.
    L1,
    /// Root of the sum of squares.
    L2,
    SumSquare,
    /// ln of the sum.
    LogSum,
    /// ln of the sum of e^x, without overflow on the way.
    LogSumExp,
}

impl ReduceKind {
    /// Every kind.
    pub const ALL: [ReduceKind; 10] = {
        use ReduceKind::*;
        [Sum, Mean, Max, Min, Prod, L1, L2, SumSquare, LogSum, LogSumExp]
    };
    pub(super) fn steps(self) -> (Map, Combine) {
        use ReduceKind::*;
        match self {
            Sum | Mean | LogSum => (Map::Identity, Combine::Sum),
            Max => (Map::Identity, Combine::Max),
            Min => (Map::Identity, Combine::Min),
            Prod => (Map::Identity, Combine::Product),
            L1 => (Map::Abs, Combine::Sum),
            L2 | SumSquare => (Map::Square, Combine::Sum),
            LogSumExp => (Map::Exp, Combine::Sum),
        }
    }
    /// The result from what was combined.
    pub(super) fn finish(self, x: f64, count: usize, shift: f64) -> f64 {
        match self {
            ReduceKind::Mean => x / count as f64,
            ReduceKind::L2 => x.sqrt(),
            ReduceKind::LogSum => x.ln(),
            ReduceKind::LogSumExp => x.ln() + shift,
            _ => x,
        }
    }
}

/// Numbers worked on at once on the way to f32, and columns of a strip.
const TILE: usize = 512;
/// Rows reduced by one call.
const ROWS: usize = 64;
/// Elements a task reads, about.
const GRAIN: usize = 32 * 1024;

/// A reduction bound to a shape and strides; its result is dense over the axes kept, in their order.
#[derive(Clone, Debug)]
pub struct Reduce {
    isa: Isa,
    kind: ReduceKind,
    elem: Elem,
    kept: Walk,
    reduced: Nest,
    count: usize,
    outputs: usize,
    /// Neighbouring outputs read neighbouring elements, which the elements of one output are not: strips of columns.
    columns: bool,
    outputs_a_task: usize,
}

impl Reduce {
    /// Reduces the axes that `axes` marks.
    pub fn new(
        isa: Isa,
        kind: ReduceKind,
        elem: Elem,
        shape: &[usize],
        strides: &[isize],
        axes: &[bool],
    ) -> Result<Reduce> {
        ensure!(
            shape.len() == strides.len() && shape.len() == axes.len(),
            Internal,
            "a reduction of shape {shape:?} with {} strides and {} axes",
            strides.len(),
            axes.len()
        );
        let side = |reduced: bool| -> (Dims, Strides) {
            (0..shape.len()).filter(|&i| axes[i] == reduced).map(|i| (shape[i], strides[i])).unzip()
        };
        let (kept_dims, kept_strides) = side(false);
        let (dims, along) = side(true);
        // The order of what is combined is free: by address.
        let mut order: SmallVec<[usize; 6]> = (0..dims.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(along[i].unsigned_abs()));
        let dims: Dims = order.iter().map(|&i| dims[i]).collect();
        let along: Strides = order.iter().map(|&i| along[i]).collect();
        let (outputs, count) = (checked::product(&kept_dims)?, checked::product(&dims)?);
        let reduced = Nest::new(&dims, &[&along])?;
        let last = (0..kept_dims.len()).rev().find(|&i| kept_dims[i] != 1);
        let columns = elem == Elem::F32
            && count > 1
            && reduced.inner_stride(0) != 1
            && last.is_some_and(|i| kept_strides[i] == 1 && kept_dims[i] >= 4);
        let outputs_a_task = (GRAIN / count.max(1)).max(if columns { 64 } else { 1 });
        let kept = Walk::new(&kept_dims, &kept_strides)?;
        Ok(Reduce { isa, kind, elem, kept, reduced, count, outputs, columns, outputs_a_task })
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.outputs.div_ceil(self.outputs_a_task)
    }
    /// Runs one task.
    /// # Safety
    /// `input` points to the first element (offset 0) and is valid over the shape and strides given to `new`; `output` is
    /// valid for the dense result. They do not overlap.
    pub unsafe fn run(&self, task: usize, input: *const u8, output: *mut u8) {
        let first = task * self.outputs_a_task;
        let last = (first + self.outputs_a_task).min(self.outputs);
        let size = self.elem.size();
        let mut at = first;
        self.kept.pieces(first, last - first, |offset, stride, count| {
            // SAFETY: the outputs at .. at + count, and their elements, by the caller's contract.
            unsafe {
                let from = input.offset(offset * size as isize);
                let to = output.add(at * size);
                if self.columns && stride == 1 {
                    self.strips(from.cast(), to.cast(), count);
                } else if self.one_row() {
                    self.rows(from.cast(), stride, to.cast(), count);
                } else if self.elem.is_f32_like() {
                    for i in 0..count {
                        let x = self.one(from.offset(i as isize * stride * size as isize));
                        store_strided(self.isa, &(x as f32), 1, self.elem, to.add(i * size), 1, 1);
                    }
                } else {
                    for i in 0..count {
                        let x = from.offset(i as isize * stride * size as isize);
                        generic::reduce(self.kind, self.elem, &self.reduced, self.count, x, to.add(i * size));
                    }
                }
            }
            at += count;
        });
    }

    /// Whether each output is made of one row of f32 in a line.
    fn one_row(&self) -> bool {
        self.elem == Elem::F32
            && self.kind != ReduceKind::LogSumExp
            && self.reduced.rows() == 1
            && (self.reduced.inner_stride(0) == 1 || self.count == 1)
    }

    /// `count` outputs of which each is a row.
    unsafe fn rows(&self, from: *const f32, step: isize, to: *mut f32, count: usize) {
        let (map, how) = self.kind.steps();
        let mut acc = [0.0f64; ROWS];
        for start in (0..count).step_by(ROWS) {
            let rows = ROWS.min(count - start);
            // SAFETY: the rows start .. start + rows of what the caller named.
            unsafe {
                let at = from.offset(start as isize * step);
                let len = self.count;
                dispatch(self.isa, Rows { map, how, at, step, rows, len, to: acc.as_mut_ptr() });
                for (i, x) in acc[..rows].iter().enumerate() {
                    *to.add(start + i) = self.kind.finish(*x, self.count, 0.0) as f32;
                }
            }
        }
    }

    /// One output of f32, f16 or bf16.
    unsafe fn one(&self, from: *const u8) -> f64 {
        let (map, how) = self.kind.steps();
        let mut shift = 0.0;
        // SAFETY: the caller's contract.
        unsafe {
            if self.kind == ReduceKind::LogSumExp {
                shift = finite(self.pass(Map::Identity, Combine::Max, from, 0.0));
            }
            self.kind.finish(self.pass(map, how, from, shift as f32), self.count, shift)
        }
    }
    unsafe fn pass(&self, map: Map, how: Combine, from: *const u8, shift: f32) -> f64 {
        let (size, stride, isa) = (self.elem.size() as isize, self.reduced.inner_stride(0), self.isa);
        let direct = self.elem == Elem::F32 && stride == 1;
        let mut total = how.start();
        let mut tile = [const { std::mem::MaybeUninit::<f32>::uninit() }; TILE];
        let tile = tile.as_mut_ptr().cast::<f32>();
        self.reduced.for_rows(0, self.reduced.rows(), |o| {
            let len = self.reduced.inner();
            // SAFETY: a row of the elements reduced.
            unsafe {
                let at = from.offset(o[0] * size);
                if direct {
                    total = how.join(total, dispatch(isa, Row { map, how, at: at.cast(), len, shift }));
                    return;
                }
                for start in (0..len).step_by(TILE) {
                    let n = TILE.min(len - start);
                    load_strided(isa, self.elem, at.offset(start as isize * stride * size), stride, tile, n);
                    total = how.join(total, dispatch(isa, Row { map, how, at: tile, len: n, shift }));
                }
            }
        });
        total
    }

    /// `count` outputs whose elements are neighbours.
    unsafe fn strips(&self, from: *const f32, to: *mut f32, count: usize) {
        let (map, how) = self.kind.steps();
        let mut acc = [0.0f64; TILE];
        let mut shift = [0.0f32; TILE];
        for start in (0..count).step_by(TILE) {
            let n = TILE.min(count - start);
            // SAFETY: the columns start .. start + n of what the caller named.
            unsafe {
                let at = from.add(start);
                if self.kind == ReduceKind::LogSumExp {
                    self.lay(Map::Identity, Combine::Max, at, n, &shift, &mut acc);
                    for (s, a) in shift.iter_mut().zip(&acc[..n]) {
                        *s = finite(*a) as f32;
                    }
                }
                self.lay(map, how, at, n, &shift, &mut acc);
                for i in 0..n {
                    *to.add(start + i) = self.kind.finish(acc[i], self.count, f64::from(shift[i])) as f32;
                }
            }
        }
    }
    unsafe fn lay(
        &self,
        map: Map,
        how: Combine,
        at: *const f32,
        len: usize,
        shift: &[f32; TILE],
        acc: &mut [f64; TILE],
    ) {
        acc[..len].fill(how.start());
        let (rows, step, isa) = (self.reduced.inner(), self.reduced.inner_stride(0), self.isa);
        let (shift, acc) = (shift.as_ptr(), acc.as_mut_ptr());
        self.reduced.for_rows(0, self.reduced.rows(), |o| {
            // SAFETY: the rows lie within the elements reduced; both arrays hold `len` numbers.
            let at = unsafe { at.offset(o[0]) };
            dispatch(isa, Columns { map, how, at, step, rows, len, shift, acc });
        });
    }
}

/// What e^x is taken relative to: the greatest number where that is finite (or NaN).
pub(super) fn finite(x: f64) -> f64 {
    if x.is_infinite() { 0.0 } else { x }
}
