//! The blocked operators that onnxruntime writes into a model that it saves optimised (`com.microsoft.nchwc`).
//!
//! Only the weights lie in blocks: between ReorderInput and ReorderOutput a tensor is one of NCHW whose channels are filled up
//! with zeros to whole blocks. So the reorders fill up and cut off, and weights are put back into the order of OIHW.

use super::as_standard;
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Op, ParseCtx, ValueId};
use crate::kernels::movement::PadMode;
use crate::ops::contrib::pointwise::parse_fused_conv;
use crate::ops::movement::{Pad, Slice, Transpose};
use crate::ops::resize::{Aspect, Coordinates, Method, NearestMode, Resize};
use crate::ops::shape::Identity;
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

/// The block of the machine that wrote the model: 16 channels with AVX-512, else 8. The file does not say it; a tensor of
/// reordered weights or biases that does not fill blocks of 16 tells it. Where none does, it is this machine's, as
/// onnxruntime, too, reads such a file as its own machine would have written it.
fn block(cx: &ParseCtx<'_>) -> usize {
    let g = cx.graph();
    let mut reordered = (0..g.value_count() as u32).filter_map(|i| {
        let v = g.value(ValueId(i));
        v.name.starts_with("reorder").then_some(())?;
        let t = v.fact.constant()?;
        (matches!(t.shape().len(), 1 | 4) && t.dtype() == DType::F32).then(|| t.shape()[0])
    });
    let eight = reordered.any(|n| n % 16 == 8);
    if eight || !wide_machine() { 8 } else { 16 }
}

#[cfg(target_arch = "x86_64")]
fn wide_machine() -> bool {
    is_x86_feature_detected!("avx512f")
}
#[cfg(not(target_arch = "x86_64"))]
fn wide_machine() -> bool {
    true
}

fn ints(cx: &mut ParseCtx<'_>, list: &[i64]) -> Result<ValueId> {
    Ok(cx.constant(Tensor::from_slice(&[list.len()], list)?))
}

/// The size of an axis of input 0, which must be known.
fn channels(cx: &ParseCtx<'_>, axis: usize) -> Result<usize> {
    let dims = cx.input_fact(0).as_tensor().and_then(|t| t.dims.as_ref());
    match dims.and_then(|d| d.get(axis)?.size()) {
        Some(c) => Ok(c),
        None => bail!(Unsupported, "{} of an unknown number of channels", cx.op_type),
    }
}

pub(super) fn reorder_input(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let last = cx.flag("channels_last", false)?;
    let c = channels(cx, if last { 3 } else { 1 })?;
    let missing = c.next_multiple_of(block(cx)) - c;
    let turn = Arc::new(Transpose { perm: Some(vec![0, 3, 1, 2]) });
    if missing == 0 {
        return Ok(if last { turn } else { Arc::new(Identity) });
    }
    if last {
        cx.inputs = vec![Some(cx.emit(turn, cx.inputs.clone())?)];
    }
    let widths = ints(cx, &[0, 0, 0, 0, 0, missing as i64, 0, 0])?;
    cx.inputs.push(Some(widths));
    Ok(Arc::new(Pad { mode: PadMode::Constant, value: 0.0 }))
}

pub(super) fn reorder_output(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let (n, last) = (cx.int("channels")?, cx.flag("channels_last", false)?);
    ensure!(n > 0, InvalidModel, "{n} channels");
    let (start, end, axis) = (ints(cx, &[0])?, ints(cx, &[n])?, ints(cx, &[1])?);
    cx.inputs.extend([start, end, axis].map(Some));
    if !last {
        return Ok(Arc::new(Slice));
    }
    cx.inputs = vec![Some(cx.emit(Arc::new(Slice), cx.inputs.clone())?)];
    Ok(Arc::new(Transpose { perm: Some(vec![0, 2, 3, 1]) }))
}

/// Weights in blocks `[O / o][I / i][kernel][i][o]` as they were before; `i` is 1 where the input's channels were not blocked.
fn unblocked(w: &Tensor, i: usize, o: usize) -> Result<Tensor> {
    let &[co, ci, h, k] = w.shape() else { bail!(InvalidModel, "weights of shape {:?}", w.shape()) };
    ensure!(co % o == 0 && ci % i == 0, InvalidModel, "weights of shape {:?} in blocks of {i} by {o}", w.shape());
    let (from, taps) = (w.as_slice::<f32>()?, product(&[h, k])?);
    let mut all = Tensor::zeroed(DType::F32, w.shape())?;
    let to = all.as_mut_slice::<f32>()?;
    let mut from = from.iter();
    for (o0, i0) in (0..co / o).flat_map(|a| (0..ci / i).map(move |b| (a * o, b * i))) {
        for (tap, (ii, oo)) in (0..taps).flat_map(|t| (0..i).flat_map(move |a| (0..o).map(move |b| (t, (a, b))))) {
            let Some(x) = from.next() else { bail!(Internal, "too few weights") };
            to[((o0 + oo) * ci + i0 + ii) * taps + tap] = *x;
        }
    }
    Ok(all)
}

pub(super) fn conv(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 4)?;
    let Some(w) = cx.input_fact(1).constant().cloned() else {
        bail!(Unsupported, "blocked weights that are not constant")
    };
    ensure!(w.shape().len() == 4 && w.dtype() == DType::F32, InvalidModel, "blocked weights {w:?}");
    let (ci, groups) = (w.shape()[1], cx.int_or("group", 1)?);
    let mut o = block(cx);
    // Fewer input channels than a block are read from NCHW as they are; those of a depthwise convolution are single.
    let x = cx.inputs[0].and_then(|v| cx.graph().value(v).producer);
    let i = match ci {
        1.. if ci < 8 || groups > 1 && ci == 1 => 1,
        // From 8 to 15: plain under blocks of 16. Of blocks of 8 only 8 itself can be.
        8 if o == 8 && x.is_some() => 8,
        8..16 => {
            o = if ci == 8 { o } else { 16 };
            1
        }
        _ => o,
    };
    cx.set_constant_input(1, unblocked(&w, i, o)?);
    cx.op_type = "FusedConv";
    parse_fused_conv(cx)
}

pub(super) fn pool(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    match cx.op_type {
        "MaxPool" => as_standard(cx, "MaxPool", 12),
        "AveragePool" => as_standard(cx, "AveragePool", 11),
        "GlobalMaxPool" => as_standard(cx, "GlobalMaxPool", 1),
        _ => as_standard(cx, "GlobalAveragePool", 1),
    }
}

pub(super) fn upsample(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let scales = cx.ints("scales")?;
    ensure!(scales.iter().all(|s| (1..1 << 16).contains(s)), InvalidModel, "scales {scales:?}");
    let scales: Vec<f32> = match scales[..] {
        [h, w] => vec![1.0, 1.0, h as f32, w as f32],
        [n, c, h, w] => vec![n as f32, c as f32, h as f32, w as f32],
        _ => bail!(InvalidModel, "scales {scales:?}"),
    };
    cx.set_constant_input(2, Tensor::from_slice(&[4], &scales)?);
    let method = match cx.string_or("mode", "nearest")?.as_str() {
        "nearest" => Method::Nearest(NearestMode::Floor),
        "linear" => Method::Linear,
        m => bail!(InvalidModel, "mode is '{m}'"),
    };
    let coordinates = match cx.string_or("coordinate_transformation_mode", "asymmetric")?.as_str() {
        "asymmetric" => Coordinates::Asymmetric,
        "align_corners" => Coordinates::AlignCorners,
        "half_pixel" => Coordinates::HalfPixel,
        m => bail!(InvalidModel, "coordinate_transformation_mode is '{m}'"),
    };
    Ok(Arc::new(Resize {
        method,
        coordinates,
        exclude_outside: false,
        extrapolation: 0.0,
        antialias: false,
        axes: None,
        aspect: Aspect::Stretch,
    }))
}
