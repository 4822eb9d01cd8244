//! Softmax, log-softmax and hardmax over one axis of a dense array.

use super::{GRAIN, softmax_f64};
use crate::bail;
use crate::base::checked;
use crate::error::Result;
use crate::kernels::convert::{load_strided, store_strided};
use crate::kernels::elem::Elem;
use crate::kernels::isa::Isa;
use crate::kernels::reduce::rows::{Combine, Map, row, top};
use crate::kernels::simd::{F32, Kernel, Mask, dispatch};
use crate::kernels::vmath;

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
const COLUMNS: usize = 256;
/// Numbers in a strip of columns, about: it is read three times, from L2.
const STRIP: usize = 64 * 1024;

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
    /// Bytes of scratch memory a running task needs, aligned for f32.
    pub fn scratch_bytes(&self) -> usize {
        match self.elem {
            Elem::F16 | Elem::Bf16 => 4 * self.axis * self.inner.min(self.columns),
            _ => 0,
        }
    }
    /// Runs one task.
    /// # Safety
    /// Both pointers are valid for the dense shape given to `new`, and are equal or do not overlap; `scratch` has
    /// `scratch_bytes()` bytes that nobody else uses.
    pub unsafe fn run(&self, task: usize, from: *const u8, to: *mut u8, scratch: *mut u8) {
        let strips = self.inner.div_ceil(self.columns);
        let size = self.elem.size();
        let first = task * self.units_a_task;
        let last = (first + self.units_a_task).min(self.units());
        if self.inner == 1 && self.elem == Elem::F32 && self.kind != SoftmaxKind::Hard {
            let (len, log) = (self.axis, self.kind == SoftmaxKind::Log);
            let at = first * len * size;
            // SAFETY: the rows lie within the array.
            let (from, to) = unsafe { (from.add(at).cast(), to.add(at).cast()) };
            return dispatch(self.isa, Rows { from, to, len, rows: last - first, log });
        }
        for unit in first..last {
            let column = unit % strips * self.columns;
            let width = self.columns.min(self.inner - column);
            let at = (unit / strips * self.axis * self.inner + column) * size;
            // SAFETY: the strip lies within the array.
            unsafe { self.strip(from.add(at), to.add(at), width, scratch.cast()) }
        }
    }
    unsafe fn strip(&self, from: *const u8, to: *mut u8, width: usize, scratch: *mut f32) {
        let (isa, kind, axis, inner) = (self.isa, self.kind, self.axis, self.inner);
        // SAFETY: the caller's contract.
        unsafe {
            match self.elem {
                Elem::F64 => softmax_f64::strip(kind, from.cast(), to.cast(), axis, inner, width),
                Elem::F32 => f32_strip(isa, kind, from.cast(), to.cast(), axis, inner, width),
                _ => {
                    // A strip of its own, `width` wide.
                    let step = inner * self.elem.size();
                    let rows = if inner == 1 { 1 } else { axis };
                    let len = axis * width / rows;
                    for i in 0..rows {
                        load_strided(isa, self.elem, from.add(i * step), 1, scratch.add(i * len), len);
                    }
                    f32_strip(isa, kind, scratch, scratch, axis, width, width);
                    for i in 0..rows {
                        store_strided(isa, scratch.add(i * len), 1, self.elem, to.add(i * step), 1, len);
                    }
                }
            }
        }
    }
}

unsafe fn f32_strip(
    isa: Isa,
    kind: SoftmaxKind,
    from: *const f32,
    to: *mut f32,
    axis: usize,
    inner: usize,
    width: usize,
) {
    if kind == SoftmaxKind::Hard {
        // SAFETY: the caller's contract.
        return unsafe { hard(from, to, axis, inner, width) };
    }
    let log = kind == SoftmaxKind::Log;
    if inner == 1 {
        dispatch(isa, Rows { from, to, len: axis, rows: 1, log });
    } else {
        dispatch(isa, Strip { from, to, axis, inner, width, log });
    }
}

unsafe fn hard(from: *const f32, to: *mut f32, axis: usize, inner: usize, width: usize) {
    for j in 0..width {
        // SAFETY: the caller's contract.
        unsafe {
            let mut best = 0;
            for i in 1..axis {
                let (x, top) = (*from.add(i * inner + j), *from.add(best * inner + j));
                if x > top || (x.is_nan() && !top.is_nan()) {
                    best = i;
                }
            }
            for i in 0..axis {
                *to.add(i * inner + j) = if i == best { 1.0 } else { 0.0 };
            }
        }
    }
}

/// Rows in a line, one behind another. A NaN anywhere makes all of its row NaN, by way of the sum.
struct Rows {
    from: *const f32,
    to: *mut f32,
    len: usize,
    rows: usize,
    log: bool,
}

impl Kernel for Rows {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        for r in 0..self.rows {
            // SAFETY: `Softmax::run`'s contract: `len` numbers a row on both sides.
            unsafe {
                let (from, to) = (self.from.add(r * self.len), self.to.add(r * self.len));
                if self.log {
                    log_row::<V>(from, to, self.len);
                } else {
                    row_of::<V>(from, to, self.len);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn log_row<V: F32>(from: *const f32, to: *mut f32, len: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        let top = top::<V>(from, len);
        let sum = row::<V>(Map::Exp, Combine::Sum, from, len, top);
        let (shift, less) = (V::splat(top), V::splat(sum.ln() as f32));
        let mut i = 0;
        while i + V::LANES <= len {
            (V::load(from.add(i)) - shift - less).store(to.add(i));
            i += V::LANES;
        }
        if i < len {
            (V::load_n(from.add(i), len - i) - shift - less).store_n(to.add(i), len - i);
        }
    }
}

#[inline(always)]
unsafe fn row_of<V: F32>(from: *const f32, to: *mut f32, len: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        let shift = V::splat(top::<V>(from, len));
        let mut sums = [V::zero(); 2];
        let mut i = 0;
        while i + 2 * V::LANES <= len {
            let a = vmath::exp_of_nonpositive(V::load(from.add(i)) - shift);
            let b = vmath::exp_of_nonpositive(V::load(from.add(i + V::LANES)) - shift);
            a.store(to.add(i));
            b.store(to.add(i + V::LANES));
            sums = [sums[0] + a, sums[1] + b];
            i += 2 * V::LANES;
        }
        while i < len {
            let n = V::LANES.min(len - i);
            let e = vmath::exp_of_nonpositive(V::load_n(from.add(i), n) - shift);
            e.store_n(to.add(i), n);
            sums[0] = sums[0] + V::select(V::M::first(n), e, V::zero());
            i += n;
        }
        let scale = V::splat(1.0 / (sums[0] + sums[1]).sum());
        let mut i = 0;
        while i + V::LANES <= len {
            (V::load(to.add(i)) * scale).store(to.add(i));
            i += V::LANES;
        }
        if i < len {
            (V::load_n(to.add(i), len - i) * scale).store_n(to.add(i), len - i);
        }
    }
}

/// Up to 256 columns side by side, `inner` numbers from row to row.
struct Strip {
    from: *const f32,
    to: *mut f32,
    axis: usize,
    inner: usize,
    width: usize,
    log: bool,
}

impl Kernel for Strip {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let Strip { from, to, axis, inner, width, log } = self;
        let mut tops = [f32::NEG_INFINITY; COLUMNS];
        let mut sums = [0.0f32; COLUMNS];
        let (tops, sums) = (tops.as_mut_ptr(), sums.as_mut_ptr());
        // Row by row, so that memory is read in lines. Only the last vector of a row may be a part of one: the arrays
        // have room for all of it.
        // SAFETY: `Softmax::run`'s contract: `width` columns of all rows, of which there are COLUMNS at most.
        unsafe {
            for i in 0..axis {
                let row = from.add(i * inner);
                for j in (0..width).step_by(V::LANES) {
                    let x = V::load_n(row.add(j), V::LANES.min(width - j));
                    V::load(tops.add(j)).max(x).store(tops.add(j));
                }
            }
            for i in 0..axis {
                let (row, out) = (from.add(i * inner), to.add(i * inner));
                for j in (0..width).step_by(V::LANES) {
                    let n = V::LANES.min(width - j);
                    let e = vmath::exp_of_nonpositive(V::load_n(row.add(j), n) - V::load(tops.add(j)));
                    (V::load(sums.add(j)) + e).store(sums.add(j));
                    if !log {
                        e.store_n(out.add(j), n);
                    }
                }
            }
            for j in (0..width).step_by(V::LANES) {
                let sum = V::load(sums.add(j));
                let finish = if log { vmath::log(sum) } else { vmath::reciprocal(sum) };
                finish.store(sums.add(j));
            }
            for i in 0..axis {
                let (row, out) = (from.add(i * inner), to.add(i * inner));
                for j in (0..width).step_by(V::LANES) {
                    let n = V::LANES.min(width - j);
                    let y = if log {
                        V::load_n(row.add(j), n) - V::load(tops.add(j)) - V::load(sums.add(j))
                    } else {
                        V::load_n(out.add(j), n) * V::load(sums.add(j))
                    };
                    y.store_n(out.add(j), n);
                }
            }
        }
    }
}
