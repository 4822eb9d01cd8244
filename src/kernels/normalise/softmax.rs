//! Softmax, log-softmax and hardmax over one axis of a dense array.

use super::softmax_f32::{Rows, Strip};
use super::{GRAIN, softmax_f64};
use crate::bail;
use crate::base::checked;
use crate::error::Result;
use crate::kernels::convert::{load_strided, store_strided};
use crate::kernels::elem::Elem;
use crate::kernels::isa::Isa;
use crate::kernels::simd::dispatch;

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SoftmaxKind {
    /// e^x / Σ e^x
    Softmax,
    /// Its logarithm.
    Log,
    /// 1 at the first of the greatest, else 0.
    Hard,
}

/// Columns taken together where the axis is not the innermost, at most.
pub(super) const COLUMNS: usize = 256;
/// Numbers in a strip of columns, about. It is worked on in a copy: the rows of the array itself often lie a power of two
/// apart, where caches hold but a few of them.
const STRIP: usize = 16 * 1024;
/// Numbers in the rows that are widened at once, about.
const BATCH: usize = 4096;

/// A softmax bound to a shape: `outer` blocks of `axis` rows of `inner` numbers.
#[derive(Clone, Debug)]
pub struct Softmax {
    isa: Isa,
    kind: SoftmaxKind,
    elem: Elem,
    outer: usize,
    axis: usize,
    inner: usize,
    columns: usize,
    units_a_task: usize,
}

impl Softmax {
    /// Over the middle of (`outer`, `axis`, `inner`). The result may be the input's memory.
    pub fn new(isa: Isa, kind: SoftmaxKind, elem: Elem, outer: usize, axis: usize, inner: usize) -> Result<Softmax> {
        if !elem.is_float() {
            bail!(Unsupported, "softmax of {elem:?}");
        }
        checked::product(&[outer, axis, inner])?;
        let columns = (STRIP / axis.max(1) / 16 * 16).clamp(16, COLUMNS);
        let unit = axis.max(1) * inner.clamp(1, columns);
        Ok(Softmax { isa, kind, elem, outer, axis, inner, columns, units_a_task: (GRAIN / unit).max(1) })
    }
    /// A unit is a row, or a strip of columns.
    fn units(&self) -> usize {
        if self.axis == 0 { 0 } else { self.outer * self.inner.div_ceil(self.columns) }
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.units().div_ceil(self.units_a_task)
    }
    /// Rows widened at once.
    fn rows_at_once(&self) -> usize {
        (BATCH / self.axis.max(1)).clamp(1, self.units_a_task)
    }
    /// Bytes of scratch memory a running task needs, aligned for f32.
    pub fn scratch_bytes(&self) -> usize {
        match self.elem {
            Elem::F64 => 0,
            Elem::F32 if self.inner == 1 => 0,
            _ if self.inner == 1 => 4 * self.axis * self.rows_at_once(),
            _ => 4 * self.axis * self.inner.min(self.columns),
        }
    }
    /// Runs one task.
    /// # Safety
    /// Both pointers are valid for the dense shape given to `new`, and are equal or do not overlap; `scratch` has
    /// `scratch_bytes()` bytes that nobody else uses.
    pub unsafe fn run(&self, task: usize, from: *const u8, to: *mut u8, scratch: *mut u8) {
        let first = task * self.units_a_task;
        let last = (first + self.units_a_task).min(self.units());
        // SAFETY: the rows or strips first .. last lie within the array.
        unsafe {
            if self.inner == 1 && self.elem != Elem::F64 {
                return self.run_rows(first, last - first, from, to, scratch.cast());
            }
            let strips = self.inner.div_ceil(self.columns);
            for unit in first..last {
                let column = unit % strips * self.columns;
                let width = self.columns.min(self.inner - column);
                let at = (unit / strips * self.axis * self.inner + column) * self.elem.size();
                self.strip(from.add(at), to.add(at), width, scratch.cast());
            }
        }
    }
    /// Runs some rows of an innermost axis of f32, f16 or bf16.
    /// # Safety
    /// As for `run`; there are so many rows.
    pub unsafe fn run_rows(&self, first: usize, rows: usize, from: *const u8, to: *mut u8, scratch: *mut f32) {
        let (size, len, isa) = (self.elem.size(), self.axis, self.isa);
        let soft = |from, to, rows| match self.kind {
            // SAFETY: `rows` rows of `len` numbers on both sides.
            SoftmaxKind::Hard => (0..rows).for_each(|r| unsafe { hard(from, to, len, r * len) }),
            kind => dispatch(isa, Rows { from, to, len, rows, log: kind == SoftmaxKind::Log }),
        };
        // SAFETY: the caller's contract.
        unsafe {
            let (from, to) = (from.add(first * len * size), to.add(first * len * size));
            if self.elem == Elem::F32 {
                return soft(from.cast(), to.cast(), rows);
            }
            for r in (0..rows).step_by(self.rows_at_once()) {
                let n = self.rows_at_once().min(rows - r);
                let at = r * len * size;
                load_strided(isa, self.elem, from.add(at), 1, scratch, n * len);
                soft(scratch, scratch, n);
                store_strided(isa, scratch, 1, self.elem, to.add(at), 1, n * len);
            }
        }
    }
    unsafe fn strip(&self, from: *const u8, to: *mut u8, width: usize, work: *mut f32) {
        let (isa, kind, axis, inner) = (self.isa, self.kind, self.axis, self.inner);
        let step = inner * self.elem.size();
        // SAFETY: the caller's contract; the scratch memory holds `axis` rows of `width` numbers.
        unsafe {
            if self.elem == Elem::F64 {
                return softmax_f64::strip(kind, from.cast(), to.cast(), axis, inner, width);
            }
            if self.elem == Elem::F32 && kind != SoftmaxKind::Hard {
                let (from, to, log) = (from.cast(), to.cast(), kind == SoftmaxKind::Log);
                return dispatch(isa, Strip { from, from_step: inner, work, to, to_step: inner, axis, width, log });
            }
            for i in 0..axis {
                load_strided(isa, self.elem, from.add(i * step), 1, work.add(i * width), width);
            }
            match kind {
                SoftmaxKind::Hard => (0..width).for_each(|j| hard_column(work.add(j), axis, width)),
                _ => {
                    let log = kind == SoftmaxKind::Log;
                    let s = Strip { from: work, from_step: width, work, to: work, to_step: width, axis, width, log };
                    dispatch(isa, s);
                }
            }
            for i in 0..axis {
                store_strided(isa, work.add(i * width), 1, self.elem, to.add(i * step), 1, width);
            }
        }
    }
}

/// Hardmax of the row that begins at `start`.
unsafe fn hard(from: *const f32, to: *mut f32, len: usize, start: usize) {
    // SAFETY: the caller answers for the row on both sides.
    unsafe {
        std::ptr::copy(from.add(start), to.add(start), len);
        hard_column(to.add(start), len, 1);
    }
}

/// Hardmax in place of `axis` numbers that are `step` apart.
unsafe fn hard_column(at: *mut f32, axis: usize, step: usize) {
    // SAFETY: the caller answers for the numbers.
    unsafe {
        let mut best = 0;
        for i in 1..axis {
            let (x, top) = (*at.add(i * step), *at.add(best * step));
            if x > top || (x.is_nan() && !top.is_nan()) {
                best = i;
            }
        }
        for i in 0..axis {
            *at.add(i * step) = if i == best { 1.0 } else { 0.0 };
        }
    }
}
