//! Contrib operators that are one of the default domain's in other clothes, or a few of them.

use super::as_standard;
use crate::error::Result;
use crate::ir::{Op, ParseCtx, ValueId};
use crate::kernels::movement::PadMode;
use crate::kernels::pointwise::UnaryOp;
use crate::ops::cast::Cast;
use crate::ops::contrib::EmbedNorm;
use crate::ops::conv::ConvTranspose;
use crate::ops::linear::MatMul;
use crate::ops::movement::{Concat, Gather, Pad, Transpose};
use crate::ops::pointwise::{Binary, BinaryFn, Unary, UnaryFn};
use crate::ops::quant::{Dequantize, DynamicQuantize, Grain, IntPool};
use crate::ops::recurrent::Recurrent;
use crate::ops::shape::{Identity, Reshape, Unsqueeze};
use crate::ops::window::{Pads, Window};
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure, err};
use std::sync::Arc;

pub(super) fn trilu(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    as_standard(cx, "Trilu", 14)
}
pub(super) fn gather_nd(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    as_standard(cx, "GatherND", 13)
}
pub(super) fn grid_sample(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    as_standard(cx, "GridSample", 16)
}
pub(super) fn identity(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Identity))
}

/// A tensor of one element of a type that numbers may have.
fn one_of(d: DType, x: f32) -> Result<Tensor> {
    Ok(match d {
        DType::F32 => Tensor::scalar(x)?,
        DType::F64 => Tensor::scalar(f64::from(x))?,
        DType::F16 => Tensor::scalar(half::f16::from_f32(x))?,
        DType::BF16 => Tensor::scalar(half::bf16::from_f32(x))?,
        DType::I16 => Tensor::scalar(x as i16)?,
        DType::I32 => Tensor::scalar(x as i32)?,
        DType::I64 => Tensor::scalar(x as i64)?,
        d => bail!(InvalidModel, "a number of type {d}"),
    })
}

fn ints(cx: &mut ParseCtx<'_>, list: &[i64]) -> Result<ValueId> {
    Ok(cx.constant(Tensor::from_slice(&[list.len()], list)?))
}

/// The input as a list of one axis.
fn flat(cx: &mut ParseCtx<'_>, i: usize) -> Result<ValueId> {
    let shape = ints(cx, &[-1])?;
    cx.emit(Arc::new(Reshape { allow_zero: false }), vec![cx.inputs[i], Some(shape)])
}

/// The step may be left out.
pub(super) fn range(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 3)?;
    if !cx.has_input(2) {
        let d = cx.input_fact(0).dtype().ok_or_else(|| err!(InvalidModel, "a range of an unknown type"))?;
        cx.set_constant_input(2, one_of(d, 1.0)?);
    }
    as_standard(cx, "Range", 11)
}

/// The widths may have an axis of size 1 before them.
pub(super) fn pad(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 3)?;
    cx.inputs[1] = Some(flat(cx, 1)?);
    as_standard(cx, "Pad", 13)
}

/// Input 1 names one new axis.
pub(super) fn expand_dims(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    let axis = flat(cx, 1)?;
    let axis = cx.emit(Arc::new(Cast::new(DType::I64)), vec![Some(axis)])?;
    cx.inputs[1] = Some(axis);
    Ok(Arc::new(Unsqueeze))
}

/// `z * sigmoid(z)` of `z = scale * x`, the scale an attribute or input 1; z and the sigmoid are rounded.
pub(super) fn scaled_silu(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 2)?;
    let d = cx.input_fact(0).dtype().ok_or_else(|| err!(InvalidModel, "an input of an unknown type"))?;
    let alpha = cx.float_or("alpha", 1.0)?;
    let wide = |cx: &mut ParseCtx<'_>, v, to| cx.emit(Arc::new(Cast::new(to)), vec![v]).map(Some);
    let (x, scale) = (cx.inputs[0], cx.inputs.get(1).copied().flatten());
    let x = wide(cx, x, DType::F32)?;
    let scale = match scale {
        Some(s) => wide(cx, Some(s), DType::F32)?,
        None => Some(cx.constant(Tensor::scalar(alpha)?)),
    };
    let z = cx.emit(Arc::new(Binary::new(BinaryFn::Mul)), vec![x, scale])?;
    let z = wide(cx, Some(z), d)?;
    let s = cx.emit(Arc::new(Unary { f: UnaryFn::Op(UnaryOp::Sigmoid) }), vec![z])?;
    cx.inputs = vec![z, Some(s)];
    Ok(Arc::new(Binary::new(BinaryFn::Mul)))
}

/// Products of 16-bit integers, summed in 32 bits.
pub(super) fn matmul_16(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    let unsigned = (0..2).all(|i| cx.input_fact(i).dtype() == Some(DType::U16));
    let to = if unsigned { DType::U32 } else { DType::I32 };
    for i in 0..2 {
        let x = cx.inputs[i];
        cx.inputs[i] = Some(cx.emit(Arc::new(Cast::new(to)), vec![x])?);
    }
    Ok(Arc::new(MatMul::default()))
}

pub(super) fn max_pool(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let window = Window::parse(cx)?;
    ensure!(window.kernel.is_some(), InvalidModel, "attribute 'kernel_shape' is missing");
    Ok(Arc::new(IntPool { window: Some(window), mean: None }))
}

/// The pads are input 2: known ones become the operator's, others are cut off the result of none.
pub(super) fn conv_transpose(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 4)?;
    cx.inputs.resize(4, None);
    let pads = cx.inputs[2];
    let known = cx.input_fact(2).as_tensor().and_then(|t| t.ints());
    let rank = (0..2).find_map(|i| cx.input_fact(i).as_tensor()?.rank());
    cx.inputs = vec![cx.inputs[0], cx.inputs[1], cx.inputs[3]];
    let op = as_standard(cx, "ConvTranspose", 11)?;
    let Some(op) = op.downcast::<ConvTranspose>() else { bail!(Internal, "another operator was made") };
    let with = |pads| {
        let mut op = op.clone();
        op.window.pads = Pads::Explicit(pads);
        op
    };
    match (pads, known) {
        (None, _) => Ok(Arc::new(op.clone())),
        (Some(_), Some(pads)) => Ok(Arc::new(with(pads))),
        (Some(pads), None) => {
            let Some(n) = rank.and_then(|r| r.checked_sub(2)) else {
                bail!(Unsupported, "pads that are not known for an input of an unknown rank")
            };
            let y = cx.emit(Arc::new(with(Vec::new())), cx.inputs.clone())?;
            let less = cx.emit(Arc::new(Unary { f: UnaryFn::Op(UnaryOp::Neg) }), vec![Some(pads)])?;
            let zero = ints(cx, &[0])?;
            let all = cx.emit(Arc::new(Concat { axis: 0 }), vec![Some(less), Some(zero)])?;
            let none = 2 * n as i64;
            let order: Vec<i64> =
                [none; 2].into_iter().chain(0..n as i64).chain([none; 2]).chain(n as i64..none).collect();
            let order = ints(cx, &order)?;
            let cut = cx.emit(Arc::new(Gather { axis: 0 }), vec![Some(all), Some(order)])?;
            cx.inputs = vec![Some(y), Some(cut)];
            Ok(Arc::new(Pad { mode: PadMode::Constant, value: 0.0 }))
        }
    }
}

const GRAIN: Grain = Grain { axis: 1, block: 0 };

fn dequantised(cx: &mut ParseCtx<'_>, q: Option<ValueId>, s: Option<ValueId>, z: Option<ValueId>) -> Result<ValueId> {
    cx.emit(Arc::new(Dequantize { grain: GRAIN, to: Some(DType::F32) }), vec![q, s, z])
}

/// Inputs: X, W, R, B, lengths, states, peepholes, scales and zero points of W and R. The inputs of each product are quantised by
/// their extent; what they stand for is multiplied in f32, which differs from the integers' product by rounding alone.
pub(super) fn quantised_lstm(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 12)?;
    ensure!(cx.inputs.len() == 12, InvalidModel, "an LSTM of 8 bits needs scales and zero points");
    let all = std::mem::take(&mut cx.inputs);
    let mut weights = |at: usize, scale: usize| -> Result<ValueId> {
        // A scale a direction, or one a direction and column.
        let rank = |v: Option<ValueId>| v.and_then(|v| cx.graph().fact(v).as_tensor()?.rank());
        let (cs, cz) = (rank(all[scale]), rank(all[scale + 1]));
        let mut as_stack = |v: Option<ValueId>, rank: Option<usize>| -> Result<Option<ValueId>> {
            let shape: &[i64] = match rank {
                Some(1) => &[-1, 1, 1],
                Some(2) => &[0, 1, -1],
                _ => bail!(Unsupported, "scales of an unknown rank"),
            };
            let shape = ints(cx, shape)?;
            let v = cx.emit(Arc::new(Cast::new(DType::F32)), vec![v])?;
            cx.emit(Arc::new(Reshape { allow_zero: false }), vec![Some(v), Some(shape)]).map(Some)
        };
        let (s, z) = (as_stack(all[scale], cs)?, as_stack(all[scale + 1], cz)?);
        let q = cx.emit(Arc::new(Cast::new(DType::F32)), vec![all[at]])?;
        let q = cx.emit(Arc::new(Binary::new(BinaryFn::Sub)), vec![Some(q), z])?;
        let w = cx.emit(Arc::new(Binary::new(BinaryFn::Mul)), vec![Some(q), s])?;
        cx.emit(Arc::new(Transpose { perm: Some(vec![0, 2, 1]) }), vec![Some(w)])
    };
    let (w, r) = (weights(1, 8)?, weights(2, 10)?);
    let q = cx.emit_outputs(Arc::new(DynamicQuantize), vec![all[0]], &[true; 3])?;
    let x = dequantised(cx, q[0], q[1], q[2])?;
    cx.inputs = vec![Some(x), Some(w), Some(r)];
    cx.inputs.extend(&all[3..8]);
    let op = as_standard(cx, "LSTM", 7)?;
    let Some(op) = op.downcast::<Recurrent>() else { bail!(Internal, "another operator was made") };
    Ok(Arc::new(Recurrent { quantised_state: true, ..op.clone() }))
}

/// Embeddings, scale and shift are of 8 bits.
pub(super) fn quantised_embedding(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 18)?;
    ensure!(cx.inputs.len() == 18, InvalidModel, "embeddings of 8 bits need scales and zero points");
    let all = std::mem::take(&mut cx.inputs);
    let mut inputs = vec![all[0], all[1]];
    for i in 0..5 {
        let given = all[2 + i].is_some();
        inputs.push(given.then(|| dequantised(cx, all[2 + i], all[8 + i], all[13 + i])).transpose()?);
    }
    inputs.push(all[7]);
    cx.inputs = inputs;
    Ok(Arc::new(EmbedNorm { epsilon: cx.float_or("epsilon", 1e-12)? }))
}
