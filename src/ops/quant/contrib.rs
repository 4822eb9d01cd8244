//! Operators on quantised numbers that runtimes added (`com.microsoft`): dequantised, computed in f32, quantised anew. The
//! linear quantisation of both ends is ours of QuantizeLinear; what is between is the operator of the default domain.

use super::linear::{Dequantize, Grain, Quantize};
use super::pool::IntPool;
use crate::error::Result;
use crate::ir::{Op, ParseCtx, ValueId};
use crate::kernels::pointwise::UnaryOp;
use crate::kernels::reduce::ReduceKind;
use crate::ops::movement::Concat;
use crate::ops::pointwise::{Binary, BinaryFn, Unary, UnaryFn, Where};
use crate::ops::pool::{GlobalPool, Pool, PoolKind};
use crate::ops::reduce::Reduce;
use crate::ops::softmax::{Softmax, SoftmaxKind};
use crate::ops::window::Window;
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

const GRAIN: Grain = Grain { axis: 1, block: 0 };

/// Input `x` with its scale and zero point (two places after it) as f32.
fn wide(cx: &mut ParseCtx<'_>, inputs: &[Option<ValueId>], x: usize) -> Result<Option<ValueId>> {
    let at = |i: usize| inputs.get(i).copied().flatten();
    let op = Dequantize { grain: GRAIN, to: Some(DType::F32) };
    cx.emit(Arc::new(op), vec![at(x), at(x + 1), at(x + 2)]).map(Some)
}

/// Quantises `y` by the scale and zero point from input `i` on; `like` gives the type where no zero point does.
fn narrow(
    cx: &mut ParseCtx<'_>,
    y: Option<ValueId>,
    inputs: &[Option<ValueId>],
    i: usize,
    like: Option<DType>,
) -> Result<Arc<dyn Op>> {
    let at = |i: usize| inputs.get(i).copied().flatten();
    let to = if at(i + 1).is_some() { None } else { like };
    cx.inputs = vec![y, at(i), at(i + 1)];
    Ok(Arc::new(Quantize { grain: GRAIN, to, saturate: true, precision: None }))
}

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    match cx.op_type {
        "QLinearAdd" => binary(cx, BinaryFn::Add),
        "QLinearMul" => binary(cx, BinaryFn::Mul),
        "QLinearLeakyRelu" => {
            let alpha = cx.float_or("alpha", 0.01)?;
            unary(cx, Arc::new(Unary { f: UnaryFn::LeakyRelu { alpha } }))
        }
        "QLinearSigmoid" => unary(cx, Arc::new(Unary { f: UnaryFn::Op(UnaryOp::Sigmoid) })),
        "QLinearSoftmax" => {
            let flatten = cx.int("opset")? < 13;
            let axis = cx.int_or("axis", if flatten { 1 } else { -1 })?;
            unary(cx, Arc::new(Softmax { kind: SoftmaxKind::Softmax, axis, flatten }))
        }
        "QLinearAveragePool" => {
            let window = Window::parse(cx)?;
            ensure!(window.kernel.is_some(), InvalidModel, "attribute 'kernel_shape' is missing");
            let include_pad = cx.flag("count_include_pad", false)?;
            if cx.flag("channels_last", false)? {
                cx.expect_inputs(4, 5)?;
                return Ok(Arc::new(IntPool { window: Some(window), mean: Some(include_pad) }));
            }
            unary(cx, Arc::new(Pool { kind: PoolKind::Average, window, include_pad, column_major: false }))
        }
        "QLinearGlobalAveragePool" => {
            if cx.flag("channels_last", false)? {
                cx.expect_inputs(4, 5)?;
                return Ok(Arc::new(IntPool { window: None, mean: Some(false) }));
            }
            unary(cx, Arc::new(GlobalPool { kind: PoolKind::Average }))
        }
        "QLinearReduceMean" => {
            let (keep_dims, axes) = (cx.flag("keepdims", true)?, cx.ints_opt("axes")?.unwrap_or_default());
            let axes = cx.constant(Tensor::from_slice(&[axes.len()], &axes)?);
            cx.expect_inputs(4, 5)?;
            let (inputs, like) = taken(cx);
            let x = wide(cx, &inputs, 0)?;
            let op = Reduce { kind: ReduceKind::Mean, keep_dims, noop: false };
            let y = cx.emit(Arc::new(op), vec![x, Some(axes)])?;
            narrow(cx, Some(y), &inputs, 3, like)
        }
        "QLinearWhere" => {
            cx.expect_inputs(9, 9)?;
            let (inputs, _) = taken(cx);
            let (x, y) = (wide(cx, &inputs, 1)?, wide(cx, &inputs, 4)?);
            let z = cx.emit(Arc::new(Where), vec![inputs[0], x, y])?;
            narrow(cx, Some(z), &inputs, 7, None)
        }
        "QLinearConcat" => {
            let axis = cx.int("axis")?;
            let n = cx.inputs.len();
            ensure!(n >= 5 && n % 3 == 2, InvalidModel, "QLinearConcat with {n} inputs");
            let (inputs, _) = taken(cx);
            let parts = (2..n).step_by(3).map(|i| wide(cx, &inputs, i)).collect::<Result<Vec<_>>>()?;
            let y = cx.emit(Arc::new(Concat { axis }), parts)?;
            narrow(cx, Some(y), &inputs, 0, None)
        }
        name => bail!(Internal, "{name} is not quantised"),
    }
}

/// The inputs, and the first one's type.
fn taken(cx: &mut ParseCtx<'_>) -> (Vec<Option<ValueId>>, Option<DType>) {
    let like = cx.input_fact(0).dtype();
    (std::mem::take(&mut cx.inputs), like)
}

/// Inputs: x, its scale and zero point, the result's scale and zero point.
fn unary(cx: &mut ParseCtx<'_>, op: Arc<dyn Op>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(4, 5)?;
    let (inputs, like) = taken(cx);
    let x = wide(cx, &inputs, 0)?;
    let y = cx.emit(op, vec![x])?;
    narrow(cx, Some(y), &inputs, 3, like)
}

/// Inputs: a and b, each with scale and zero point, the result's scale and zero point.
fn binary(cx: &mut ParseCtx<'_>, f: BinaryFn) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(7, 8)?;
    let (inputs, like) = taken(cx);
    let (a, b) = (wide(cx, &inputs, 0)?, wide(cx, &inputs, 3)?);
    let y = cx.emit(Arc::new(Binary::new(f)), vec![a, b])?;
    narrow(cx, Some(y), &inputs, 6, like)
}
