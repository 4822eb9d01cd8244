//! Integer products whose scales or addends the product's epilogue does not take: the sums, and what follows as operators of
//! their own.

use super::{Grain, IntMatMul, Quantize};
use crate::bail;
use crate::error::Result;
use crate::ir::{Op, ParseCtx, ValueId};
use crate::ops::cast::Cast;
use crate::ops::pointwise::{Binary, BinaryFn};
use crate::ops::shape::Unsqueeze;
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// An input's axes, if the form has it and the model gives it.
fn shape(cx: &ParseCtx<'_>, i: Option<usize>) -> Option<Vec<Option<usize>>> {
    let t = cx.input_fact(i?).as_tensor()?;
    Some(t.dims.as_ref()?.iter().map(|d| d.size()).collect())
}

/// Whether an input may have more than one element; one of an unknown shape is taken for a single number.
fn many(cx: &ParseCtx<'_>, i: Option<usize>) -> bool {
    shape(cx, i).is_some_and(|s| s.iter().any(|&n| n != Some(1)))
}

/// Whether an addend is more than one number or row.
fn not_a_row(cx: &ParseCtx<'_>, i: Option<usize>) -> bool {
    shape(cx, i).is_some_and(|s| s.len() > 1 && s[..s.len() - 1].iter().any(|&n| n != Some(1)))
        || shape(cx, i).is_some_and(|s| s.len() > 1 && s.last() == Some(&Some(1)))
}

/// Whether the product must be taken apart.
pub(super) fn needed(cx: &ParseCtx<'_>, op: &IntMatMul) -> bool {
    let (at, to) = (&op.at, op.to);
    if op.dynamic || to == Some(DType::I32) {
        return false;
    }
    let narrow = to.is_some() && at.b_scale.is_some_and(|i| cx.input_fact(i).dtype().is_some_and(|d| d != DType::F32));
    let by_matrix = shape(cx, at.b_scale).is_some_and(|s| s.len() > 1);
    narrow || many(cx, at.a_scale) || many(cx, at.y_scale) || by_matrix || not_a_row(cx, at.int_bias)
}

/// The sums in i32, plus an integer addend; then as f32 scaled by row and column, plus another; then quantised or rounded.
pub(super) fn emit(cx: &mut ParseCtx<'_>, op: &IntMatMul) -> Result<Arc<dyn Op>> {
    let at = op.at;
    let inputs = std::mem::take(&mut cx.inputs);
    let given = |i: Option<usize>| i.and_then(|i| inputs.get(i).copied().flatten());
    let of = |cx: &ParseCtx<'_>, v: ValueId| cx.graph().fact(v).clone();
    let sums = super::sums(op.trans);
    let product = vec![given(Some(at.a)), given(Some(at.b)), given(at.a_zero), given(at.b_zero)];
    let mut y = cx.emit(Arc::new(sums), product)?;
    let both = |cx: &mut ParseCtx<'_>, f, a, b| cx.emit(Arc::new(Binary::new(f)), vec![Some(a), Some(b)]);
    if let Some(c) = given(at.int_bias) {
        y = both(cx, BinaryFn::Add, y, c)?;
    }
    let cast = |cx: &mut ParseCtx<'_>, v, to| cx.emit(Arc::new(Cast::new(to)), vec![Some(v)]);
    y = cast(cx, y, DType::F32)?;
    // One number a row has an axis of columns to come.
    let by_row = |cx: &mut ParseCtx<'_>, v: ValueId| match of(cx, v).as_tensor().and_then(|t| t.rank()) {
        Some(1) if of(cx, v).as_tensor().is_none_or(|t| t.count().size() != Some(1)) => {
            let axis = cx.constant(Tensor::from_slice(&[1], &[-1i64])?);
            cx.emit(Arc::new(Unsqueeze), vec![Some(v), Some(axis)])
        }
        _ => Ok(v),
    };
    let to = given(at.b_scale).and_then(|v| of(cx, v).dtype()).unwrap_or(DType::F32);
    if let Some(a) = given(at.a_scale) {
        let a = cast(cx, a, DType::F32)?;
        let a = by_row(cx, a)?;
        y = both(cx, BinaryFn::Mul, y, a)?;
    }
    if let Some(b) = given(at.b_scale) {
        let b = cast(cx, b, DType::F32)?;
        y = both(cx, BinaryFn::Mul, y, b)?;
    }
    if op.alpha != 1.0 {
        let alpha = cx.constant(Tensor::scalar(op.alpha)?);
        y = both(cx, BinaryFn::Mul, y, alpha)?;
    }
    if let Some(c) = given(at.bias) {
        let c = cast(cx, c, DType::F32)?;
        y = both(cx, BinaryFn::Add, y, c)?;
    }
    let (scale, zero) = (given(at.y_scale), given(at.y_zero));
    if op.to.is_none() && scale.is_some() && zero.is_some() {
        let rank = scale.and_then(|s| of(cx, s).as_tensor()?.rank());
        if rank.is_none_or(|r| r > 1) {
            bail!(Unsupported, "{} with result scales of {rank:?} axes", op.form);
        }
        cx.inputs = vec![Some(y), scale, zero];
        let grain = Grain { axis: -2, block: 0 };
        return Ok(Arc::new(Quantize { grain, to: None, saturate: true, precision: None }));
    }
    cx.inputs = vec![Some(y)];
    Ok(Arc::new(Cast::new(if op.to.is_none() { DType::F32 } else { to })))
}
