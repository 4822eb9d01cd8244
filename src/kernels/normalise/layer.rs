//! Layer, RMS and length normalisation over rows, with optional scale and bias.

use super::GRAIN;
use crate::bail;
use crate::base::checked;
use crate::error::Result;
use crate::kernels::convert::{load_strided, store_strided};
use crate::kernels::elem::Elem;
use crate::kernels::isa::Isa;
use crate::kernels::reduce::rows::{Combine, Map, row};
use crate::kernels::simd::{F32, Kernel, dispatch};
use std::ops::Range;

/// What is taken off and divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerNormKind {
    /// The mean, and the standard deviation.
    Layer,
    /// Nothing, and the root of the mean square.
    Rms,
    /// Nothing, and the root of the sum of squares, or epsilon where that is greater; rows stay 0 where both are.
    Length,
}

impl LayerNormKind {
    /// What a row of this mean square is multiplied with.
    fn inverse(self, square: f64, len: usize, epsilon: f64) -> f64 {
        match self {
            LayerNormKind::Layer | LayerNormKind::Rms => 1.0 / (square + epsilon).sqrt(),
            LayerNormKind::Length if square == 0.0 && epsilon == 0.0 => 0.0,
            LayerNormKind::Length => {
                let length = if len == 0 { 0.0 } else { (square * len as f64).sqrt() };
                // A NaN stays one.
                1.0 / if length < epsilon { epsilon } else { length }
            }
        }
    }
}

/// A normalisation bound to a shape: `rows` rows of `len` numbers.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    isa: Isa,
    kind: LayerNormKind,
    elem: Elem,
    rows: usize,
    len: usize,
    epsilon: f64,
    rows_a_task: usize,
}

/// Where a normalisation reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct LayerNormPointers {
    /// The rows.
    pub from: *const u8,
    /// `len` factors of the rows' type, or null.
    pub scale: *const u8,
    /// `len` summands of the rows' type, or null.
    pub bias: *const u8,
    /// The result; may be the rows' memory.
    pub to: *mut u8,
    /// A mean a row, or null: f32, or f64 for f64 rows.
    pub mean: *mut u8,
    /// 1 / deviation a row, or null; of the type of `mean`.
    pub inverse: *mut u8,
}

impl LayerNormPointers {
    /// Rows and result alone.
    pub fn new(from: *const u8, to: *mut u8) -> LayerNormPointers {
        let (none, no) = (std::ptr::null(), std::ptr::null_mut());
        LayerNormPointers { from, scale: none, bias: none, to, mean: no, inverse: no }
    }
}

impl LayerNorm {
    /// Over rows of a dense array.
    pub fn new(isa: Isa, kind: LayerNormKind, elem: Elem, rows: usize, len: usize, epsilon: f64) -> Result<LayerNorm> {
        if !elem.is_float() {
            bail!(Unsupported, "normalisation of {elem:?}");
        }
        checked::product(&[rows, len])?;
        Ok(LayerNorm { isa, kind, elem, rows, len, epsilon, rows_a_task: (GRAIN / len.max(1)).max(1) })
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.rows.div_ceil(self.rows_a_task)
    }
    /// Bytes of scratch memory a running task needs, aligned for f32: row, scale and bias widened.
    pub fn scratch_bytes(&self) -> usize {
        match self.elem {
            Elem::F16 | Elem::Bf16 => 3 * 4 * self.len,
            _ => 0,
        }
    }
    /// Runs one task.
    /// # Safety
    /// The pointers are valid for the dense shape given to `new`; `from` and `to` are equal or do not overlap; `scratch`
    /// has `scratch_bytes()` bytes that nobody else uses.
    pub unsafe fn run(&self, task: usize, p: LayerNormPointers, scratch: *mut u8) {
        let first = task * self.rows_a_task;
        // SAFETY: the caller's contract.
        unsafe { self.run_rows(first..(first + self.rows_a_task).min(self.rows), p, scratch) }
    }
    /// Normalises some of the rows.
    /// # Safety
    /// As for `run`; there are so many rows.
    pub unsafe fn run_rows(&self, rows: Range<usize>, p: LayerNormPointers, scratch: *mut u8) {
        let (len, isa) = (self.len, self.isa);
        // SAFETY: the rows, and the scratch memory cut in three.
        unsafe {
            if self.elem == Elem::F64 {
                rows.for_each(|r| self.row_f64(r, p));
                return;
            }
            let wide = self.elem == Elem::F32;
            let mut scratch = scratch.cast::<f32>();
            let mut widened = |x: *const u8| -> *const f32 {
                if x.is_null() || wide {
                    return x.cast();
                }
                let at = scratch;
                load_strided(isa, self.elem, x, 1, at, len);
                scratch = scratch.add(len);
                at
            };
            let (scale, bias) = (widened(p.scale), widened(p.bias));
            for r in rows {
                let at = r * len * self.elem.size();
                let (from, to) = if wide {
                    (p.from.add(at).cast::<f32>(), p.to.add(at).cast::<f32>())
                } else {
                    load_strided(isa, self.elem, p.from.add(at), 1, scratch, len);
                    (scratch.cast_const(), scratch)
                };
                let (kind, epsilon) = (self.kind, self.epsilon);
                let (mean, inverse) = dispatch(isa, Row { kind, from, scale, bias, to, len, epsilon });
                if !wide {
                    store_strided(isa, scratch, 1, self.elem, p.to.add(at), 1, len);
                }
                if !p.mean.is_null() {
                    *p.mean.cast::<f32>().add(r) = mean;
                }
                if !p.inverse.is_null() {
                    *p.inverse.cast::<f32>().add(r) = inverse;
                }
            }
        }
    }
    unsafe fn row_f64(&self, r: usize, p: LayerNormPointers) {
        let n = self.len;
        // SAFETY: the row r of each array that there is.
        unsafe {
            let x = p.from.cast::<f64>().add(r * n);
            let mean = match self.kind {
                LayerNormKind::Layer => (0..n).map(|i| *x.add(i)).sum::<f64>() / n as f64,
                LayerNormKind::Rms | LayerNormKind::Length => 0.0,
            };
            let square = (0..n).map(|i| (*x.add(i) - mean).powi(2)).sum::<f64>() / n as f64;
            let inverse = self.kind.inverse(square, n, self.epsilon);
            let to = p.to.cast::<f64>().add(r * n);
            for i in 0..n {
                let scale = if p.scale.is_null() { 1.0 } else { *p.scale.cast::<f64>().add(i) };
                let bias = if p.bias.is_null() { 0.0 } else { *p.bias.cast::<f64>().add(i) };
                *to.add(i) = (*x.add(i) - mean) * inverse * scale + bias;
            }
            if !p.mean.is_null() {
                *p.mean.cast::<f64>().add(r) = mean;
            }
            if !p.inverse.is_null() {
                *p.inverse.cast::<f64>().add(r) = inverse;
            }
        }
    }
}

struct Row {
    kind: LayerNormKind,
    from: *const f32,
    scale: *const f32,
    bias: *const f32,
    to: *mut f32,
    len: usize,
    epsilon: f64,
}

impl Kernel for Row {
    type Out = (f32, f32);
    #[inline(always)]
    fn run<V: F32>(self) -> (f32, f32) {
        let Row { from, scale, bias, to, len, .. } = self;
        // SAFETY: `LayerNorm::run`'s contract: `len` numbers of each array that there is.
        unsafe {
            let mean = match self.kind {
                LayerNormKind::Layer => (row::<V>(Map::Identity, Combine::Sum, from, len, 0.0) / len as f64) as f32,
                LayerNormKind::Rms | LayerNormKind::Length => 0.0,
            };
            let square = row::<V>(Map::Square, Combine::Sum, from, len, mean) / len as f64;
            let inverse = self.kind.inverse(square, len, self.epsilon) as f32;
            let (m, k) = (V::splat(mean), V::splat(inverse));
            let mut i = 0;
            while i + V::LANES <= len {
                let mut y = (V::load(from.add(i)) - m) * k;
                if !scale.is_null() {
                    y = y * V::load(scale.add(i));
                }
                if !bias.is_null() {
                    y = y + V::load(bias.add(i));
                }
                y.store(to.add(i));
                i += V::LANES;
            }
            if i < len {
                let n = len - i;
                let mut y = (V::load_n(from.add(i), n) - m) * k;
                if !scale.is_null() {
                    y = y * V::load_n(scale.add(i), n);
                }
                if !bias.is_null() {
                    y = y + V::load_n(bias.add(i), n);
                }
                y.store_n(to.add(i), n);
            }
            (mean, inverse)
        }
    }
}
