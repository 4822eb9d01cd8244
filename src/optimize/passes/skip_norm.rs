//! A sum that is normalised next is one step with the normalisation, also where others read the sum: what is left of
//! residuals that no product took in.

use crate::error::Result;
use crate::ir::{Dim, NodeId, ValueId};
use crate::ops::contrib::SkipNorm;
use crate::ops::norm::LayerNormalization;
use crate::ops::pointwise::{BinaryFn, Pointwise};
use crate::optimize::pass::same_shape;
use crate::optimize::pattern::binary;
use crate::optimize::{Pass, PassCtx};
use std::sync::Arc;

/// `normalise(x + skip)` by rows.
pub struct AddNorm;

impl Pass for AddNorm {
    fn name(&self) -> &'static str {
        "skip_norm"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            fuse(cx, id)?;
        }
        Ok(())
    }
}

fn fuse(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<()> {
    let Some(norm) = cx.op::<LayerNormalization>(id).cloned() else { return Ok(()) };
    let node = cx.graph().node(id).clone();
    let at = |i: usize| node.inputs.get(i).copied().flatten();
    let (Some(total), Some(scale), &[Some(out)]) = (at(0), at(1), &node.outputs[..]) else { return Ok(()) };
    let Some((add, sum)) = cx.made_by(total).filter(|(_, n)| binary(&*n.op) == Some(BinaryFn::Add)) else {
        return Ok(());
    };
    let (&[Some(x), Some(skip)], &[Some(_)]) = (&sum.inputs[..], &sum.outputs[..]) else { return Ok(()) };
    let rank = cx.dims(total).map_or(0, <[Dim]>::len) as i64;
    let width = cx.dims(total).and_then(|d| d.last().cloned());
    if norm.axis != -1 && norm.axis != rank - 1 {
        cx.miss(id, || format!("it normalises from axis {} on", norm.axis));
        return Ok(());
    }
    if !same_shape(cx.dims(x), cx.dims(skip)) {
        cx.miss(id, || "the summands are not known to be of one shape".into());
        return Ok(());
    }
    let row = |v: ValueId| {
        let one = cx.dims(v).is_some_and(|d| d.len() == 1)
            && width.as_ref().is_some_and(|w| cx.dims(v) == Some(std::slice::from_ref(w)));
        one && cx.graph().is_constant(v) && cx.dtype(v) == cx.dtype(total)
    };
    if !row(scale) || at(2).is_some_and(|v| !row(v)) {
        cx.miss(id, || "scale or shift are no constant rows of the sum's type".into());
        return Ok(());
    }
    // A chain of elementwise operators takes the addition in for less.
    if [x, skip].into_iter().any(|v| cx.maker::<Pointwise>(v).is_some() && cx.used_once(v)) {
        return Ok(());
    }
    let alone = cx.used_once(total);
    let op = Arc::new(SkipNorm { rms: norm.rms, epsilon: norm.epsilon });
    let inputs = vec![Some(x), Some(skip), Some(scale), at(2)];
    let name = cx.graph().value(out).name.clone();
    let made = cx.edit.node(&name, op, inputs, if alone { 1 } else { 4 })?;
    let Some((fused, _)) = made.first().and_then(|&v| cx.graph().value(v).producer) else { return Ok(()) };
    cx.edit.move_output(fused, 0, out);
    cx.edit.remove(id);
    if !alone {
        made[1..3].iter().for_each(|&v| cx.edit.drop_output(v));
        cx.edit.move_output(fused, 3, total);
    }
    cx.edit.remove(add);
    cx.fired();
    Ok(())
}
