//! Fourier transforms along an axis (DFT) and of overlapping pieces of a signal (STFT).
//!
//! Real numbers are transformed in f64, at half the length, and rounded once. Complex ones are transformed in f32 unless
//! they are f64: that is what NumPy does, and cases of the ONNX suite ask for the rounding errors that it makes.

use super::window::size_at;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::dim::DimOp;
use crate::ir::op::resolve_axis;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx};
use crate::kernels::elem::Elem;
use crate::kernels::fft::{Complex, Fft, RealFft};
use crate::kernels::real::Real;
use crate::kernels::scalar::{load, store};
use crate::ops::types::need_elem;
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure, err};
use std::sync::Arc;

const FLOATS: &[DType] = &[DType::F32, DType::F64, DType::F16, DType::BF16];

/// The transform along an axis (ONNX DFT). Inputs: numbers, real or complex by the last axis (1 or 2), the transform's
/// length, the axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Dft {
    /// The inverse transform.
    pub inverse: bool,
    /// Forward: only the first half of the spectrum comes out. Inverse: only it comes in, and the result is real.
    pub one_sided: bool,
}

pub(super) fn parse_dft(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, if cx.version < 20 { 2 } else { 3 })?;
    if cx.version < 20 {
        let axis = cx.int_or("axis", 1)?;
        cx.set_constant_input(2, Tensor::scalar(axis)?);
    }
    Ok(Arc::new(Dft { inverse: cx.flag("inverse", false)?, one_sided: cx.flag("onesided", false)? }))
}

/// Half a spectrum's bins.
fn half(n: &Dim) -> Dim {
    Dim::binary(DimOp::Add, &n.floor_div(&Dim::Known(2)), &Dim::Known(1))
}

impl Op for Dft {
    fn name(&self) -> &'static str {
        "DFT"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, FLOATS)?;
        let x = cx.tensor(0)?;
        let Some(mut dims) = x.dims.clone() else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let rank = dims.len();
        ensure!(rank >= 2, InvalidModel, "a signal has at least two axes, it has {rank}");
        if let Some(n) = dims[rank - 1].known() {
            ensure!(n == 1 || n == 2, InvalidModel, "the last axis has {n} parts of a number, not one or two");
        }
        dims[rank - 1] = Dim::Known(if self.inverse && self.one_sided { 1 } else { 2 });
        let axis = match (cx.has(2), cx.ints(2)?) {
            (false, _) => -2,
            (true, Some(a)) => *a.first().ok_or_else(|| err!(InvalidModel, "the axis is empty"))?,
            (true, None) => {
                dims[..rank - 1].fill(Dim::Unknown);
                return Ok(vec![Fact::tensor(x.dtype, dims)]);
            }
        };
        let axis = resolve_axis(axis, rank)?;
        ensure!(axis + 1 < rank, InvalidModel, "axis {axis} holds the parts of the numbers");
        let n = if cx.has(1) {
            size_at(cx, 1)?
        } else if self.inverse && self.one_sided {
            Dim::binary(DimOp::Mul, &Dim::binary(DimOp::Sub, &dims[axis], &Dim::Known(1)), &Dim::Known(2))
        } else {
            dims[axis].clone()
        };
        ensure!(n.known().is_none_or(|n| n >= 0), InvalidModel, "a spectrum without bins cannot be turned back");
        dims[axis] = if self.one_sided && !self.inverse { half(&n) } else { n };
        Ok(vec![Fact::tensor(x.dtype, dims)])
    }
}

/// One line of numbers, transformed.
struct Line<T> {
    n: usize,
    inverse: bool,
    one_sided: bool,
    plan: Plan<T>,
}

enum Plan<T> {
    Real(RealFft<T>),
    Complex(Fft<T>),
}

impl<T: Real> Line<T> {
    fn new(n: usize, complex: bool, inverse: bool, one_sided: bool) -> Result<Self> {
        let plan = if complex || inverse { Plan::Complex(Fft::new(n)?) } else { Plan::Real(RealFft::new(n)?) };
        Ok(Line { n, inverse, one_sided, plan })
    }
    /// Numbers of scratch, the line itself among them. One number is spare, for the middle of a real line of two.
    fn scratch_len(&self) -> usize {
        let own = match &self.plan {
            Plan::Real(f) => f.scratch_len(),
            Plan::Complex(f) => f.scratch_len(),
        };
        self.n + 1 + own
    }
    fn scratch_bytes(&self) -> Result<usize> {
        product(&[self.scratch_len(), size_of::<Complex<T>>()])
    }
    /// How many numbers of the input count.
    fn reads(&self, given: usize) -> usize {
        given.min(if self.inverse && self.one_sided { self.n / 2 + 1 } else { self.n })
    }
    /// Transforms a line whose first `filled` numbers stand in the scratch; returns the result, which lies there too.
    fn run<'a>(&self, filled: usize, scratch: &'a mut [Complex<T>]) -> &'a [Complex<T>] {
        let n = self.n;
        let (x, scratch) = scratch.split_at_mut(n + 1);
        x[filled.min(n)..].fill(Complex::default());
        if self.inverse && self.one_sided {
            // The other half mirrors the first; what is its own mirror is real.
            if n > 0 {
                x[0].im = T::ZERO;
            }
            for k in 1..n.div_ceil(2) {
                x[n - k] = x[k].conj();
            }
            if n.is_multiple_of(2) && n > 0 {
                x[n / 2].im = T::ZERO;
            }
        }
        match &self.plan {
            Plan::Real(f) => f.run(x, !self.one_sided, scratch),
            Plan::Complex(f) if self.inverse => {
                x.iter_mut().for_each(|x| *x = x.swapped());
                f.run(x, scratch);
                let scale = T::of(1.0) / T::of(n as f64);
                x.iter_mut().for_each(|x| *x = x.swapped().scaled(scale));
            }
            Plan::Complex(f) => f.run(x, scratch),
        }
        x
    }
}

/// Scratch as numbers, all set.
/// # Safety
/// `scratch` is valid for `n` of them and aligned.
unsafe fn numbers<'a, T: Real>(scratch: *mut u8, n: usize) -> &'a mut [Complex<T>] {
    // SAFETY: the caller's; zero is a number.
    unsafe {
        scratch.write_bytes(0, n * size_of::<Complex<T>>());
        std::slice::from_raw_parts_mut(scratch.cast(), n)
    }
}

/// Lines of a task: some 50 us of work.
fn lines_a_task(n: usize) -> usize {
    4096usize.div_ceil(n.max(1)).max(1)
}

fn bind_dft(op: &Dft, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, y) = (cx.input(0)?, cx.output(0)?);
    let elem = need_elem(x.dtype, op.name())?;
    let rank = x.shape.len();
    let axis = match cx.opt_input(2) {
        None => rank - 2,
        Some(_) => {
            let t = cx.constant(2).ok_or_else(|| err!(Unsupported, "a DFT along an axis that is not known"))?;
            resolve_axis(t.to_i64s()?.first().copied().unwrap_or(-2), rank)?
        }
    };
    let (given, made) = (x.shape[axis], y.shape[axis]);
    let (parts_in, parts_out) = (x.shape[rank - 1], y.shape[rank - 1]);
    let n = match cx.opt_input(1) {
        Some(_) if op.one_sided && !op.inverse => {
            let t = cx.constant(1).ok_or_else(|| err!(Unsupported, "a DFT of a length that is not known"))?;
            usize::try_from(t.to_i64s()?.first().copied().unwrap_or(0)).unwrap_or(0)
        }
        None if op.one_sided && !op.inverse => given,
        _ => made,
    };
    let outer = product(&x.shape[..axis])?;
    let inner = product(&x.shape[axis + 1..rank - 1])?;
    let lines = product(&[outer, inner])?;
    if y.is_empty() || n == 0 {
        return zeros(y.byte_len()?);
    }
    let sizes = Sizes { given, made, inner, lines, n, parts_in, parts_out };
    // Half a spectrum makes a real line: as accurate as the way back.
    if elem == Elem::F64 || parts_in == 1 || op.inverse && op.one_sided {
        lines_of::<f64>(op, sizes, elem)
    } else {
        lines_of::<f32>(op, sizes, elem)
    }
}

/// The lines along the axis: how many, and what they are made of.
#[derive(Clone, Copy)]
struct Sizes {
    given: usize,
    made: usize,
    inner: usize,
    lines: usize,
    n: usize,
    parts_in: usize,
    parts_out: usize,
}

fn lines_of<T: Real>(op: &Dft, sizes: Sizes, elem: Elem) -> Result<Box<dyn Step>> {
    let Sizes { given, made, inner, lines, n, parts_in, parts_out } = sizes;
    let line = Line::<T>::new(n, parts_in == 2, op.inverse, op.one_sided)?;
    let (tasks, per) = split(lines, lines_a_task(n));
    let (bytes, numbers_len) = (line.scratch_bytes()?, line.scratch_len());
    Ok(FnStep::boxed("fft", tasks, bytes, move |args, task, scratch| {
        for l in task * per..lines.min((task + 1) * per) {
            let (o, i) = (l / inner, l % inner);
            // SAFETY: the scratch that was asked for.
            let buffer = unsafe { numbers(scratch, numbers_len) };
            let filled = line.reads(given);
            for (k, b) in buffer[..filled].iter_mut().enumerate() {
                let at = ((o * given + k) * inner + i) * parts_in;
                // SAFETY: number k of line l of the input, whose parts lie together.
                unsafe {
                    b.re = T::of(load(elem, args.input(0), at));
                    b.im = T::of(if parts_in == 2 { load(elem, args.input(0), at + 1) } else { 0.0 });
                }
            }
            for (k, y) in line.run(filled, buffer)[..made].iter().enumerate() {
                let at = ((o * made + k) * inner + i) * parts_out;
                // SAFETY: as above, in the output; lines are disjoint.
                unsafe { put(elem, args.output(0), at, parts_out, *y) };
            }
        }
        Ok(())
    }))
}

/// # Safety
/// `to` has room for the parts at `at`.
unsafe fn put<T: Real>(elem: Elem, to: *mut u8, at: usize, parts: usize, y: Complex<T>) {
    // SAFETY: the caller's.
    unsafe {
        store(elem, to, at, y.re.to_f64());
        if parts == 2 {
            store(elem, to, at + 1, y.im.to_f64());
        }
    }
}

fn zeros(bytes: usize) -> Result<Box<dyn Step>> {
    Ok(FnStep::boxed("zeros", 1, 0, move |args, _, _| {
        // SAFETY: the output's bytes.
        unsafe { args.output::<u8>(0).write_bytes(0, bytes) };
        Ok(())
    }))
}

/// The spectra of overlapping frames of a signal (ONNX STFT-17). Inputs: signal `[batch, length, 1 or 2]`, step from frame
/// to frame, window, length of a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Stft {
    /// Only the first half of each spectrum.
    pub one_sided: bool,
}

pub(super) fn parse_stft(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 4)?;
    Ok(Arc::new(Stft { one_sided: cx.flag("onesided", true)? }))
}

impl Op for Stft {
    fn name(&self) -> &'static str {
        "STFT"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, FLOATS)?;
        let x = cx.tensor(0)?;
        let Some(dims) = &x.dims else { return Ok(vec![Fact::tensor(x.dtype, vec![Dim::Unknown; 4])]) };
        let [batch, length, parts] = dims.as_slice() else {
            bail!(InvalidModel, "a signal has three axes, it has {}", dims.len())
        };
        if let Some(n) = parts.known() {
            ensure!(n == 1 || n == 2, InvalidModel, "the last axis has {n} parts of a number, not one or two");
        }
        let window = cx.opt_tensor(2)?;
        if let Some(w) = window {
            ensure!(w.dtype == x.dtype, InvalidModel, "the window is {}, the signal {}", w.dtype, x.dtype);
            ensure!(w.rank().is_none_or(|r| r == 1), InvalidModel, "the window is no list");
        }
        let frame = match (cx.has(3), window) {
            (true, _) => size_at(cx, 3)?,
            (false, Some(w)) => w.count(),
            (false, None) => length.clone(),
        };
        let step = size_at(cx, 1)?;
        ensure!(step.known() != Some(0), InvalidModel, "the step from frame to frame is 0");
        if let (Some(l), Some(f)) = (length.known(), frame.known()) {
            ensure!(f > 0 && f <= l, InvalidModel, "a frame of {f} numbers in a signal of {l}");
        }
        let frames = Dim::binary(DimOp::Sub, length, &frame).floor_div(&step);
        let frames = Dim::binary(DimOp::Add, &frames, &Dim::Known(1));
        let bins = if self.one_sided { half(&frame) } else { frame };
        Ok(vec![Fact::tensor(x.dtype, vec![batch.clone(), frames, bins, Dim::Known(2)])])
    }
}

fn bind_stft(op: &Stft, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, y) = (cx.input(0)?, cx.output(0)?);
    let elem = need_elem(x.dtype, op.name())?;
    let ([batch, length, parts], [_, frames, bins, _]) = (&x.shape[..], &y.shape[..]) else {
        bail!(Internal, "shapes of an STFT")
    };
    let (batch, length, parts, frames, bins) = (*batch, *length, *parts, *frames, *bins);
    let number = |i: usize| -> Result<usize> {
        let t = cx.constant(i).ok_or_else(|| err!(Unsupported, "an STFT whose input {i} is not known"))?;
        Ok(t.to_i64s()?.first().and_then(|&n| usize::try_from(n).ok()).unwrap_or(0))
    };
    let window = cx.opt_input(2).map(|w| w.len());
    let frame = match (cx.opt_input(3), window) {
        (Some(_), _) => number(3)?,
        (None, Some(w)) => w,
        (None, None) => length,
    };
    let step = number(1)?;
    if y.is_empty() {
        return zeros(0);
    }
    let line = Line::<f64>::new(frame, parts == 2, false, op.one_sided)?;
    // A window that is shorter than a frame leaves the frame's end out.
    let filled = frame.min(window.unwrap_or(frame));
    let lines = product(&[batch, frames])?;
    let (tasks, per) = split(lines, lines_a_task(frame));
    let (bytes, numbers_len) = (line.scratch_bytes()?, line.scratch_len());
    Ok(FnStep::boxed("stft", tasks, bytes, move |args, task, scratch| {
        for l in task * per..lines.min((task + 1) * per) {
            let from = (l / frames) * length + (l % frames) * step;
            // SAFETY: the scratch that was asked for.
            let buffer = unsafe { numbers(scratch, numbers_len) };
            for (k, b) in buffer[..filled].iter_mut().enumerate() {
                // SAFETY: the frame lies in the signal by inference; the window has at least `filled` numbers.
                unsafe {
                    let w = if window.is_some() { load(elem, args.input(2), k) } else { 1.0 };
                    b.re = w * load(elem, args.input(0), (from + k) * parts);
                    b.im = if parts == 2 { w * load(elem, args.input(0), (from + k) * 2 + 1) } else { 0.0 };
                }
            }
            for (k, y) in line.run(filled, buffer)[..bins].iter().enumerate() {
                // SAFETY: bin k of frame l of the output.
                unsafe { put(elem, args.output(0), (l * bins + k) * 2, 2, *y) };
            }
        }
        Ok(())
    }))
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<Dft>(bind_dft);
    b.step::<Stft>(bind_stft);
}
