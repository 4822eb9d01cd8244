//! GroupNorm and SkipGroupNorm: group normalisation of pictures whose channels may come last, with an activation.

use super::pointwise::add;
use super::together::Together;
use super::{rank, size};
use crate::error::Result;
use crate::ir::{Op, ParseCtx, ValueId};
use crate::ops::cast::Cast;
use crate::ops::movement::Transpose;
use crate::ops::norm::ChannelNorm;
use crate::ops::pointwise::{Unary, UnaryFn};
use crate::ops::shape::Reshape;
use crate::tensor::Tensor;
use crate::{bail, ensure, err};
use std::sync::Arc;

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let skips = cx.op_type == "SkipGroupNorm";
    cx.expect_inputs(if skips { 4 } else { 3 }, if skips { 5 } else { 3 })?;
    cx.inputs.resize(5, None);
    let groups = usize::try_from(cx.int("groups")?).ok().filter(|&g| g > 0);
    let groups = groups.ok_or_else(|| err!(InvalidModel, "groups must be positive"))?;
    let silu = match cx.int_or("activation", 0)? {
        0 => false,
        1 => true,
        n => bail!(InvalidModel, "{} with activation {n}", cx.op_type),
    };
    let last = cx.flag("channels_last", true)?;
    let Some(mut x) = cx.inputs[0] else { bail!(InvalidModel, "the input is missing") };
    let r = rank(cx, 0)?;
    ensure!(r >= 3, InvalidModel, "{} of {r} axes", cx.op_type);
    if skips {
        x = sum(cx, x, r, last)?;
    }
    let total = x;
    let order: Vec<usize> = [0, r - 1].into_iter().chain(1..r - 1).collect();
    let back: Vec<usize> = [0].into_iter().chain(2..r).chain([1]).collect();
    let (own, theirs) = (cx.input_fact(0).dtype(), cx.input_fact(1).dtype());
    let wide = theirs.filter(|_| own != theirs);
    if let Some(d) = wide {
        x = cx.emit(Arc::new(Cast::new(d)), vec![Some(x)])?;
    }
    if last {
        x = cx.emit(Arc::new(Transpose { perm: Some(order) }), vec![Some(x)])?;
    }
    let norm = ChannelNorm::new(Some(groups), cx.float_or("epsilon", 1e-5)?);
    let mut steps: Vec<Arc<dyn Op>> = vec![Arc::new(norm)];
    if silu {
        steps.push(Arc::new(Unary { f: UnaryFn::Swish { alpha: 1.0 } }));
    }
    if last {
        steps.push(Arc::new(Transpose { perm: Some(back) }));
    }
    if let (Some(_), Some(d)) = (wide, own) {
        steps.push(Arc::new(Cast::new(d)));
    }
    if cx.outputs.get(1).is_some_and(|&on| on) {
        steps.push(Arc::new(Together));
    }
    let mut inputs = vec![Some(x), cx.inputs[1], cx.inputs[2]];
    let Some(end) = steps.pop() else { bail!(Internal, "a normalisation without steps") };
    for s in steps {
        inputs = vec![Some(cx.emit(s, inputs)?)];
    }
    if end.name() == "Together" {
        inputs.push(Some(total));
    }
    cx.inputs = inputs;
    Ok(end)
}

/// X + skip + bias; a skip of `[batch, channels]`, or with axes of one, is a number a channel.
fn sum(cx: &mut ParseCtx<'_>, x: ValueId, r: usize, last: bool) -> Result<ValueId> {
    let mut skip = cx.inputs[3];
    let one_each = rank(cx, 3)? == 2 || rank(cx, 3)? == r && (1..r - 1).all(|a| size(cx, 3, a) == Some(1));
    if one_each && !(last && rank(cx, 3)? == r) {
        skip = by_channel(cx, skip, Some(0), r, last)?;
    }
    let mut x = add(cx, Some(x), skip)?;
    if cx.has_input(4) {
        let bias = by_channel(cx, cx.inputs[4], None, r, last)?;
        x = add(cx, Some(x), bias)?;
    }
    Ok(x)
}

/// A number a channel as a tensor of `r` axes. `batch`: 0 keeps the first axis.
fn by_channel(
    cx: &mut ParseCtx<'_>,
    v: Option<ValueId>,
    batch: Option<i64>,
    r: usize,
    last: bool,
) -> Result<Option<ValueId>> {
    let (ones, first) = (vec![1i64; r - 2], batch.unwrap_or(1));
    let shape =
        if last { [&[first], ones.as_slice(), &[-1]].concat() } else { [&[first, -1], ones.as_slice()].concat() };
    let shape = cx.constant(Tensor::from_slice(&[r], &shape)?);
    Ok(Some(cx.emit(Arc::new(Reshape { allow_zero: false }), vec![v, Some(shape)])?))
}
