//! Operators that stood in opset 1 as experiments and were taken out in opset 10; old models still carry them. Each becomes
//! operators that stayed.

use super::Family;
use super::case::{Case, CaseInput};
use super::movement::Slice;
use super::pointwise::{Binary, BinaryFn, Unary, UnaryFn};
use super::shape::Identity;
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Op, OpDef, ParseCtx, ValueId};
use crate::kernels::pointwise::UnaryOp;
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "retired", ops: OPS, cases, ..Family::EMPTY };

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "Affine", versions: &[1], parse: affine },
    OpDef { domain: "", name: "Crop", versions: &[1], parse: crop },
    OpDef { domain: "", name: "DynamicSlice", versions: &[1], parse: dynamic_slice },
    OpDef { domain: "", name: "GivenTensorFill", versions: &[1], parse: given },
    OpDef { domain: "", name: "ImageScaler", versions: &[1], parse: image_scaler },
    OpDef { domain: "", name: "ParametricSoftplus", versions: &[1], parse: stretched },
    OpDef { domain: "", name: "Scale", versions: &[1], parse: scale },
    OpDef { domain: "", name: "ScaledTanh", versions: &[1], parse: stretched },
];

fn binary(f: BinaryFn) -> Arc<dyn Op> {
    Arc::new(Binary::new(f))
}

/// `x` times a number.
fn times(cx: &mut ParseCtx<'_>, x: Option<ValueId>, by: f32) -> Result<ValueId> {
    let by = cx.constant(Tensor::scalar(by)?);
    cx.emit(binary(BinaryFn::Mul), vec![x, Some(by)])
}

/// `alpha * x + beta`
fn affine(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let (alpha, beta) = (cx.float_or("alpha", 1.0)?, cx.float_or("beta", 0.0)?);
    let y = times(cx, cx.inputs[0], alpha)?;
    cx.inputs = vec![Some(y)];
    cx.set_constant_input(1, Tensor::scalar(beta)?);
    Ok(binary(BinaryFn::Add))
}

/// `scale * x`
fn scale(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let scale = cx.float_or("scale", 1.0)?;
    cx.set_constant_input(1, Tensor::scalar(scale)?);
    Ok(binary(BinaryFn::Mul))
}

/// `alpha * f(beta * x)`
fn stretched(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let f = if cx.op_type == "ScaledTanh" { UnaryOp::Tanh } else { UnaryOp::Softplus };
    let (alpha, beta) = (cx.float("alpha")?, cx.float("beta")?);
    let x = times(cx, cx.inputs[0], beta)?;
    let y = cx.emit(Arc::new(Unary { f: UnaryFn::Op(f) }), vec![Some(x)])?;
    cx.inputs = vec![Some(y)];
    cx.set_constant_input(1, Tensor::scalar(alpha)?);
    Ok(binary(BinaryFn::Mul))
}

/// `scale * x + bias`, a bias for each channel of pictures.
fn image_scaler(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let (scale, bias) = (cx.float_or("scale", 1.0)?, cx.floats_opt("bias")?.unwrap_or_default());
    let y = times(cx, cx.inputs[0], scale)?;
    cx.inputs = vec![Some(y)];
    if bias.is_empty() {
        return Ok(Arc::new(Identity));
    }
    cx.set_constant_input(1, Tensor::from_slice(&[bias.len(), 1, 1], &bias)?);
    Ok(binary(BinaryFn::Add))
}

/// Pictures without a border (left, top, right, bottom), or cut to a size from its left top corner on.
fn crop(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let border = cx.ints("border")?;
    let &[left, top, right, bottom] = border.as_slice() else { bail!(InvalidModel, "a border of {border:?}") };
    let (height, width) = match cx.ints_opt("scale")?.as_deref() {
        None => (None, None),
        Some(&[h, w]) => (Some(h), Some(w)),
        Some(s) => bail!(InvalidModel, "a scale of {s:?}"),
    };
    let end = |size: Option<i64>, from: i64, cut: i64| match size {
        Some(n) => n.saturating_add(from),
        None if cut == 0 => i64::MAX,
        None => cut.saturating_neg(),
    };
    ensure!(border.iter().all(|&b| b >= 0), InvalidModel, "a border of {border:?}");
    let ends = [end(height, top, bottom), end(width, left, right)];
    cx.set_constant_input(1, Tensor::from_slice(&[2], &[top, left])?);
    cx.set_constant_input(2, Tensor::from_slice(&[2], &ends)?);
    cx.set_constant_input(3, Tensor::from_slice(&[2], &[2i64, 3])?);
    Ok(Arc::new(Slice))
}

/// Slice as it became in version 10, without steps.
fn dynamic_slice(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 4)?;
    Ok(Arc::new(Slice))
}

/// A constant.
fn given(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    ensure!(cx.inputs.iter().all(Option::is_none), Unsupported, "GivenTensorFill with the shape of an input");
    let (values, shape) = (cx.floats("values")?, cx.ints("shape")?);
    let sizes: Option<Vec<usize>> = shape.iter().map(|&n| usize::try_from(n).ok()).collect();
    let Some(sizes) = sizes else { bail!(InvalidModel, "the shape is {shape:?}") };
    ensure!(product(&sizes)? == values.len(), InvalidModel, "{} values for the shape {shape:?}", values.len());
    cx.inputs.clear();
    cx.set_constant_input(0, Tensor::from_slice(&sizes, &values)?);
    Ok(Arc::new(Identity))
}

fn cases() -> Vec<Case> {
    let x = || CaseInput::Random(DType::F32, vec![2, 3, 4, 5], -2.0, 2.0);
    let case = |op, name, attrs: &[(&'static str, Attr)]| {
        attrs.iter().fold(Case::new(op, 1, name, vec![x()]), |c, (k, v)| c.attr(k, v.clone()))
    };
    let (alpha, beta) = (("alpha", Attr::Float(0.5)), ("beta", Attr::Float(2.0)));
    let both = [alpha, beta];
    let at = |v: &[i64]| CaseInput::Constant(Tensor::from_slice(&[v.len()], v).expect("a few numbers"));
    vec![
        case("Affine", "line", &both),
        case("ParametricSoftplus", "stretched", &both),
        case("ScaledTanh", "stretched", &both),
        case("Scale", "half", &[("scale", Attr::Float(0.5))]),
        case("ImageScaler", "bias", &[("scale", Attr::Float(0.5)), ("bias", Attr::Floats(vec![1.0, 2.0, 3.0]))]),
        case("Crop", "border", &[("border", Attr::Ints(vec![1, 0, 2, 1]))]),
        case("Crop", "size", &[("border", Attr::Ints(vec![1, 0, 0, 0])), ("scale", Attr::Ints(vec![2, 3]))]),
        Case::new("DynamicSlice", 1, "axes", vec![x(), at(&[1, 0]), at(&[9, 2]), at(&[2, 3])]),
    ]
}
