//! Elementwise fusions, matrix products with flags, products and convolutions with activations: small graphs that the
//! optimiser fuses anew.

use super::rank;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Op, ParseCtx, ValueId};
use crate::kernels::pointwise::UnaryOp;
use crate::ops::conv::parse_conv;
use crate::ops::linear::MatMul;
use crate::ops::movement::{Split, Transpose};
use crate::ops::pointwise::{Binary, BinaryFn, Unary, UnaryFn};
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) fn add(cx: &mut ParseCtx<'_>, a: Option<ValueId>, b: Option<ValueId>) -> Result<ValueId> {
    cx.emit(Arc::new(Binary::new(BinaryFn::Add)), vec![a, b])
}

/// Gelu, BiasGelu, FastGelu: with or without a bias.
pub(super) fn parse_gelu(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let (min, max) = match cx.op_type {
        "BiasGelu" => (2, 2),
        "FastGelu" => (1, 2),
        _ => (1, 1),
    };
    cx.expect_inputs(min, max)?;
    let tanh = cx.op_type == "FastGelu";
    if cx.has_input(1) {
        let sum = add(cx, cx.inputs[0], cx.inputs[1])?;
        cx.inputs = vec![Some(sum)];
    }
    cx.inputs.truncate(1);
    Ok(Arc::new(Unary { f: UnaryFn::Gelu { tanh } }))
}

pub(super) fn parse_quick_gelu(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Unary { f: UnaryFn::Swish { alpha: cx.float_or("alpha", 1.702)? } }))
}

/// X + bias + skip.
pub(super) fn parse_bias_add(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 3)?;
    let sum = add(cx, cx.inputs[0], cx.inputs[1])?;
    cx.inputs = vec![Some(sum), cx.inputs[2]];
    Ok(Arc::new(Binary::new(BinaryFn::Add)))
}

/// The left half of X + bias times gelu of the right half.
pub(super) fn parse_split_gelu(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    let sum = add(cx, cx.inputs[0], cx.inputs[1])?;
    let halves = cx.emit_outputs(Arc::new(Split { axis: -1, parts: Some(2) }), vec![Some(sum)], &[true; 2])?;
    let [Some(left), Some(right)] = halves.as_slice() else { bail!(Internal, "Split gave {} halves", halves.len()) };
    let gelu = cx.emit(Arc::new(Unary { f: UnaryFn::Gelu { tanh: false } }), vec![Some(*right)])?;
    cx.inputs = vec![Some(*left), Some(gelu)];
    Ok(Arc::new(Binary::new(BinaryFn::Mul)))
}

pub(super) fn parse_matmul(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    for (i, name) in ["transBatchA", "transBatchB"].into_iter().enumerate() {
        if cx.flag(name, false)? {
            // The first axis belongs to the matrices, those after it are the stack.
            let r = rank(cx, i)?;
            ensure!(r >= 2, InvalidModel, "{name} of rank {r}");
            let perm = (1..r - 1).chain([0, r - 1]).collect();
            let x = cx.inputs[i];
            cx.inputs[i] = Some(cx.emit(Arc::new(Transpose { perm: Some(perm) }), vec![x])?);
        }
    }
    // A vector has nothing to transpose.
    let flag = |cx: &ParseCtx<'_>, name: &str, i: usize| -> Result<bool> {
        Ok(cx.flag(name, false)? && !matches!(rank(cx, i), Ok(1)))
    };
    Ok(Arc::new(MatMul {
        trans_a: flag(cx, "transA", 0)?,
        trans_b: flag(cx, "transB", 1)?,
        alpha: cx.float_or("alpha", 1.0)?,
        ..MatMul::default()
    }))
}

/// The function named by an `activation` attribute, with its parameters; none where there is no name.
fn activation(cx: &ParseCtx<'_>, name: &str, p: [Option<f32>; 2]) -> Result<Option<UnaryFn>> {
    let (alpha, beta) = (|default: f32| p[0].unwrap_or(default), |default: f32| p[1].unwrap_or(default));
    Ok(Some(match name {
        "" => return Ok(None),
        "Relu" => UnaryFn::Op(UnaryOp::Relu),
        "Sigmoid" => UnaryFn::Op(UnaryOp::Sigmoid),
        "Tanh" => UnaryFn::Op(UnaryOp::Tanh),
        "Softplus" => UnaryFn::Op(UnaryOp::Softplus),
        "Softsign" => UnaryFn::Softsign,
        "LeakyRelu" => UnaryFn::LeakyRelu { alpha: alpha(0.01) },
        "Elu" => UnaryFn::Elu { alpha: alpha(1.0) },
        "ThresholdedRelu" => UnaryFn::ThresholdedRelu { alpha: alpha(1.0) },
        "HardSigmoid" => UnaryFn::HardSigmoid { alpha: alpha(0.2), beta: beta(0.5) },
        "Clip" => UnaryFn::Clip { low: p[0], high: p[1] },
        x => bail!(Unsupported, "{} with activation '{x}'", cx.op_type),
    }))
}

/// `op`, then the function if there is one.
fn activated(cx: &mut ParseCtx<'_>, op: Arc<dyn Op>, f: Option<UnaryFn>) -> Result<Arc<dyn Op>> {
    let Some(f) = f else { return Ok(op) };
    let y = cx.emit(op, cx.inputs.clone())?;
    cx.inputs = vec![Some(y)];
    Ok(Arc::new(Unary { f }))
}

pub(super) fn parse_fused_gemm(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 3)?;
    let product = MatMul {
        trans_a: cx.flag("transA", false)?,
        trans_b: cx.flag("transB", false)?,
        alpha: cx.float_or("alpha", 1.0)?,
        beta: cx.float_or("beta", 1.0)?,
        gemm: true,
        ..MatMul::default()
    };
    let p = [cx.float_opt("activation_alpha")?, cx.float_opt("activation_beta")?];
    let f = activation(cx, &cx.string_or("activation", "")?, p)?;
    activated(cx, Arc::new(product), f)
}

/// A convolution, the sum with input 3 where it is given, then the function.
pub(super) fn parse_fused_conv(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 4)?;
    let p = match cx.attr("activation_params") {
        Some(Attr::Floats(v)) => [v.first().copied(), v.get(1).copied()],
        _ => [None, None],
    };
    let f = activation(cx, &cx.string_or("activation", "")?, p)?;
    let added = cx.inputs.get(3).copied().flatten();
    cx.inputs.truncate(3);
    let conv = parse_conv(cx)?;
    let Some(z) = added else { return activated(cx, conv, f) };
    let y = cx.emit(conv, cx.inputs.clone())?;
    cx.inputs = vec![Some(y), Some(z)];
    activated(cx, Arc::new(Binary::new(BinaryFn::Add)), f)
}
