//! Window functions and the matrix that turns a spectrum into mel bands: made from a few numbers, in f64.

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::{FnStep, Step};
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx};
use crate::kernels::scalar::{load, store};
use crate::ops::types::need_elem;
use crate::tensor::DType;
use crate::{bail, ensure};
use std::f64::consts::PI;
use std::sync::Arc;

/// Which window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Shape {
    Hann,
    Hamming,
    Blackman,
}

/// A window whose length is input 0 (ONNX HannWindow, HammingWindow, BlackmanWindow).
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Which.
    pub shape: Shape,
    /// One period of it, without the last point; else symmetric.
    pub periodic: bool,
    /// Element type of the result.
    pub dtype: DType,
}

fn output_type(cx: &ParseCtx<'_>) -> Result<DType> {
    DType::from_onnx(i32::try_from(cx.int_or("output_datatype", DType::F32 as i64)?).unwrap_or(0))
}

pub(super) fn parse(cx: &mut ParseCtx<'_>, shape: Shape) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Window { shape, periodic: cx.flag("periodic", true)?, dtype: output_type(cx)? }))
}

/// The integer in input `i`, which must not be negative, as a size; `Unknown` if it is not known yet.
pub(super) fn size_at(cx: &InferCtx<'_>, i: usize) -> Result<Dim> {
    let Some(d) = cx.list(i)?.int_dims() else { return Ok(Dim::Unknown) };
    match d.as_slice() {
        [Dim::Known(n)] if *n < 0 => bail!(InvalidModel, "input {i} is {n}, it must not be negative"),
        [d] => Ok(d.clone()),
        d => bail!(InvalidModel, "input {i} must be one number, it has {}", d.len()),
    }
}

impl Op for Window {
    fn name(&self) -> &'static str {
        match self.shape {
            Shape::Hann => "HannWindow",
            Shape::Hamming => "HammingWindow",
            Shape::Blackman => "BlackmanWindow",
        }
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::I32, DType::I64])?;
        Ok(vec![Fact::tensor(self.dtype, vec![size_at(cx, 0)?])])
    }
}

impl Window {
    fn at(&self, i: usize, n: usize) -> f64 {
        // A symmetric window of one point has no width; NumPy's answer is 0 / 0 there, ours is the window's middle.
        let period = if self.periodic { n } else { n - 1 };
        let x = if period == 0 { 0.5 } else { i as f64 / period as f64 };
        let a = 2.0 * PI * x;
        match self.shape {
            Shape::Hann => 0.5 - 0.5 * a.cos(),
            Shape::Hamming => 25.0 / 46.0 - 21.0 / 46.0 * a.cos(),
            Shape::Blackman => 0.42 - 0.5 * a.cos() + 0.08 * (2.0 * a).cos(),
        }
    }
}

fn bind(op: &Window, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (op, n) = (op.clone(), cx.output(0)?.len());
    let elem = need_elem(op.dtype, op.name())?;
    Ok(FnStep::boxed("window", 1, 0, move |args, _, _| {
        for i in 0..n {
            // SAFETY: the output has n elements of the type.
            unsafe { store(elem, args.output(0), i, op.at(i, n)) };
        }
        Ok(())
    }))
}

/// The weights of a spectrum's bins in mel bands (ONNX MelWeightMatrix-17). Inputs: bands, length of the transform,
/// sample rate, lowest and highest frequency.
#[derive(Clone, Debug, PartialEq)]
pub struct MelWeights {
    /// Element type of the result.
    pub dtype: DType,
}

pub(super) fn parse_mel(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(5, 5)?;
    Ok(Arc::new(MelWeights { dtype: output_type(cx)? }))
}

impl Op for MelWeights {
    fn name(&self) -> &'static str {
        "MelWeightMatrix"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let bins = Dim::binary(crate::ir::dim::DimOp::Add, &size_at(cx, 1)?.floor_div(&Dim::Known(2)), &Dim::Known(1));
        Ok(vec![Fact::tensor(self.dtype, vec![bins, size_at(cx, 0)?])])
    }
}

fn bind_mel(op: &MelWeights, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let [bins, bands] = cx.output(0)?.shape[..] else { bail!(Internal, "mel weights are a matrix") };
    let elem = need_elem(op.dtype, op.name())?;
    let mut numbers = [crate::kernels::elem::Elem::I64; 5];
    for (i, n) in numbers.iter_mut().enumerate() {
        ensure!(cx.input(i)?.len() == 1, InvalidModel, "input {i} must be one number");
        *n = need_elem(cx.input(i)?.dtype, op.name())?;
    }
    Ok(FnStep::boxed("mel_weights", 1, 0, move |args, _, _| {
        // SAFETY: each input is one number of its type.
        let number = |i: usize| unsafe { load(numbers[i], args.input(i), 0) };
        let (length, rate, low, high) = (number(1), number(2), number(3), number(4));
        ensure!(rate.is_finite() && rate.is_sign_positive() && rate != 0.0, Run, "the sample rate is {rate}");
        for i in 0..bins * bands {
            // SAFETY: the output has bins * bands elements.
            unsafe { store(elem, args.output(0), i, 0.0) };
        }
        let mel = |hertz: f64| 2595.0 * (hertz / 700.0).ln_1p() / f64::ln(10.0);
        let step = (mel(high) - mel(low)) / (bands + 2) as f64;
        let edge = |i: usize| {
            let hertz = 700.0 * ((i as f64 * step + mel(low)) / 2595.0 * f64::ln(10.0)).exp_m1();
            ((length + 1.0) * hertz / rate).floor() as i64
        };
        for band in 0..bands {
            let (left, middle, right) = (edge(band), edge(band + 1), edge(band + 2));
            let set = |bin: i64, x: f64| {
                if let Some(b) = usize::try_from(bin).ok().filter(|&b| b < bins) {
                    // SAFETY: bin b and the band lie in the matrix.
                    unsafe { store(elem, args.output(0), b * bands + band, x) };
                }
            };
            // Bins beyond the spectrum have no place; the loops need not pass over them.
            let (from, to) = (left.clamp(0, bins as i64), right.clamp(0, bins as i64));
            for bin in from..to.max(middle.clamp(-1, bins as i64 - 1) + 1) {
                if bin < middle || bin == middle && right <= middle {
                    let rise = (middle - left) as f64;
                    set(bin, if rise == 0.0 { 1.0 } else { (bin - left) as f64 / rise });
                } else if bin < right {
                    set(bin, (right - bin) as f64 / (right - middle) as f64);
                }
            }
        }
        Ok(())
    }))
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<Window>(bind);
    b.step::<MelWeights>(bind_mel);
}
