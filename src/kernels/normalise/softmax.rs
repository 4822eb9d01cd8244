//! Softmax, log-softmax and hardmax over one axis of a dense array.

use super::{GRAIN, softmax_f64};
use crate::bail;
use crate::base::checked;
use crate::error::Result;
use crate::kernels::convert::{load_strided, store_strided};
use crate::kernels::elem::Elem;
use crate::kernels::isa::Isa;
use crate::kernels::reduce::rows::{Combine, Map, row};
use crate::kernels::simd::{F32, Kernel, dispatch};
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

/// Columns taken together where the axis is not the innermost.
const COLUMNS: usize = 16;

/// A softmax bound to a shape: `outer` blocks of `axis` rows of `inner` numbers.
#[derive(Clone, Debug)]
pub struct Softmax {
    isa: Isa,
    kind: SoftmaxKind,
    elem: Elem,
    outer: usize,
    axis: usize,
    inner: usize,
    units_a_task: usize,
}

impl Softmax {
    /// Over the middle of (`outer`, `axis`, `inner`). The result may be the input's memory.
    pub fn new(isa: Isa, kind: SoftmaxKind, elem: Elem, outer: usize, axis: usize, inner: usize) -> Result<Softmax> {
        if !elem.is_float() {
            bail!(Unsupported, "softmax of {elem:?}");
        }
        checked::product(&[outer, axis, inner])?;
        let unit = axis.max(1) * inner.clamp(1, COLUMNS);
        Ok(Softmax { isa, kind, elem, outer, axis, inner, units_a_task: (GRAIN / unit).max(1) })
    }
    /// A unit is a row, or a strip of columns.
    fn units(&self) -> usize {
        if self.axis == 0 { 0 } else { self.outer * self.inner.div_ceil(COLUMNS) }
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.units().div_ceil(self.units_a_task)
    }
    /// Bytes of scratch memory a running task needs, aligned for f32.
    pub fn scratch_bytes(&self) -> usize {
        match self.elem {
            Elem::F16 | Elem::Bf16 => 4 * self.axis * self.inner.min(COLUMNS),
            _ => 0,
        }
    }
    /// Runs one task.
    /// # Safety
    /// Both pointers are valid for the dense shape given to `new`, and are equal or do not overlap; `scratch` has
    /// `scratch_bytes()` bytes that nobody else uses.
    pub unsafe fn run(&self, task: usize, from: *const u8, to: *mut u8, scratch: *mut u8) {
        let strips = self.inner.div_ceil(COLUMNS);
        let size = self.elem.size();
        let first = task * self.units_a_task;
        for unit in first..(first + self.units_a_task).min(self.units()) {
            let column = unit % strips * COLUMNS;
            let width = COLUMNS.min(self.inner - column);
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
        dispatch(isa, Row { from, to, len: axis, log });
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

/// One row in a line. A NaN anywhere makes all of it NaN, by way of the sum.
struct Row {
    from: *const f32,
    to: *mut f32,
    len: usize,
    log: bool,
}

impl Kernel for Row {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let Row { from, to, len, log } = self;
        // SAFETY: `Softmax::run`'s contract: `len` numbers on both sides.
        unsafe {
            let top = row::<V>(Map::Identity, Combine::Max, from, len, 0.0) as f32;
            if log {
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
                return;
            }
            let shift = V::splat(top);
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
            let mut sum = (sums[0] + sums[1]).sum();
            while i < len {
                let n = V::LANES.min(len - i);
                let e = vmath::exp_of_nonpositive(V::load_n(from.add(i), n) - shift);
                e.store_n(to.add(i), n);
                sum += e.to_array()[..n].iter().sum::<f32>();
                i += n;
            }
            let scale = V::splat(1.0 / sum);
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
}

/// Up to 16 columns side by side, `inner` numbers from row to row.
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
        let Strip { axis, inner, width, log, .. } = self;
        let mut j = 0;
        while j < width {
            let n = V::LANES.min(width - j);
            // SAFETY: `Softmax::run`'s contract: columns j .. j + n of all rows.
            unsafe {
                let (from, to) = (self.from.add(j), self.to.add(j));
                let mut top = V::load_n(from, n);
                for i in 1..axis {
                    top = vmath::most(top, V::load_n(from.add(i * inner), n));
                }
                let mut sum = V::zero();
                for i in 0..axis {
                    let e = vmath::exp_of_nonpositive(V::load_n(from.add(i * inner), n) - top);
                    sum = sum + e;
                    if !log {
                        e.store_n(to.add(i * inner), n);
                    }
                }
                if log {
                    let less = vmath::log(sum);
                    for i in 0..axis {
                        (V::load_n(from.add(i * inner), n) - top - less).store_n(to.add(i * inner), n);
                    }
                } else {
                    let scale = vmath::reciprocal(sum);
                    for i in 0..axis {
                        (V::load_n(to.add(i * inner), n) * scale).store_n(to.add(i * inner), n);
                    }
                }
            }
            j += n;
        }
    }
}
