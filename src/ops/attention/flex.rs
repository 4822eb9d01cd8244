//! FlexAttention: attention whose scores and probabilities may pass through graphs of the model. Without such graphs it is the
//! fused kernel, with them a chain of products.

use super::core::Attention;
use crate::error::Result;
use crate::ir::{Op, ParseCtx, ValueId};
use crate::kernels::normalise::SoftmaxKind;
use crate::ops::cast::Cast;
use crate::ops::linear::MatMul;
use crate::ops::norm::FLOATS;
use crate::ops::shape::Reshape;
use crate::ops::softmax::Softmax;
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 3)?;
    let scale = cx.float_opt("scale")?;
    let precision = match cx.int_opt("softmax_precision")? {
        Some(p) => {
            let d = DType::from_onnx(i32::try_from(p).unwrap_or(0))?;
            ensure!(FLOATS.contains(&d), InvalidModel, "softmax_precision is {d}");
            Some(d)
        }
        None => None,
    };
    for i in 0..3 {
        if let Some(r) = cx.input_fact(i).as_tensor().and_then(|t| t.rank()) {
            ensure!(r == 4, InvalidModel, "FlexAttention takes 4 axes, input {i} has {r}");
        }
    }
    if cx.attr("score_mod").is_none() && cx.attr("prob_mod").is_none() {
        let precise = precision == Some(DType::F64);
        return Ok(Arc::new(Attention { scale, precise, ..Attention::default() }));
    }
    let Some(own) = cx.input_fact(0).dtype() else { bail!(Unsupported, "FlexAttention of queries of an unknown type") };
    let size = |i: usize, axis: usize| {
        cx.input_fact(i).as_tensor().and_then(|t| t.dims.as_ref()?.get(axis)?.size()).filter(|&n| n > 0)
    };
    let Some(width) = size(0, 3) else { bail!(Unsupported, "FlexAttention with graphs, of an unknown head size") };
    let scale = scale.unwrap_or_else(|| (1.0 / (width as f64).sqrt()) as f32);
    // Grouped heads are rows of one product; where the counts are not known they are taken to be equal.
    let groups = match (size(0, 1), size(1, 1)) {
        (Some(h), Some(g)) if h != g => {
            ensure!(h % g == 0, InvalidModel, "{h} query heads cannot share {g} key heads");
            Some((h as i64, g as i64))
        }
        _ => None,
    };
    let wide = precision.unwrap_or(if own == DType::F64 { DType::F64 } else { DType::F32 });
    let value = |cx: &mut ParseCtx<'_>, i: usize| -> Result<ValueId> {
        let Some(Some(v)) = cx.inputs.get(i).copied() else { bail!(InvalidModel, "input {i} is missing") };
        if wide == own { Ok(v) } else { cx.emit(Arc::new(Cast::new(wide)), vec![Some(v)]) }
    };
    let (q, k, v) = (value(cx, 0)?, value(cx, 1)?, value(cx, 2)?);
    let regroup = |cx: &mut ParseCtx<'_>, x: ValueId, heads: Option<i64>| -> Result<ValueId> {
        let Some(n) = heads else { return Ok(x) };
        let shape = cx.constant(Tensor::from_slice(&[4], &[0i64, n, -1, 0])?);
        cx.emit(Arc::new(Reshape { allow_zero: false }), vec![Some(x), Some(shape)])
    };
    let (all, shared) = (groups.map(|g| g.0), groups.map(|g| g.1));
    let q = regroup(cx, q, shared)?;
    let product = MatMul { trans_b: true, alpha: scale, ..MatMul::default() };
    let mut x = cx.emit(Arc::new(product), vec![Some(q), Some(k)])?;
    x = regroup(cx, x, all)?;
    x = modify(cx, "score_mod", x)?;
    let softmax = Softmax { kind: SoftmaxKind::Softmax, axis: -1, flatten: false };
    x = cx.emit(Arc::new(softmax), vec![Some(x)])?;
    x = modify(cx, "prob_mod", x)?;
    x = regroup(cx, x, shared)?;
    let last = wide == own && groups.is_none();
    if last {
        cx.inputs = vec![Some(x), Some(v)];
        return Ok(Arc::new(MatMul::default()));
    }
    x = cx.emit(Arc::new(MatMul::default()), vec![Some(x), Some(v)])?;
    if let (Some((h, _)), true) = (groups, wide == own) {
        let shape = cx.constant(Tensor::from_slice(&[4], &[0i64, h, -1, 0])?);
        cx.inputs = vec![Some(x), Some(shape)];
        return Ok(Arc::new(Reshape { allow_zero: false }));
    }
    x = regroup(cx, x, all)?;
    cx.inputs = vec![Some(x)];
    Ok(Arc::new(Cast::new(own)))
}

/// Passes a value through the graph of an attribute, if there is one.
fn modify(cx: &mut ParseCtx<'_>, name: &str, x: ValueId) -> Result<ValueId> {
    if cx.attr(name).is_none() {
        return Ok(x);
    }
    let out = cx.inline(name, &[x])?;
    match out.as_slice() {
        [y] => Ok(*y),
        _ => bail!(InvalidModel, "the graph '{name}' has {} outputs, it must have one", out.len()),
    }
}
