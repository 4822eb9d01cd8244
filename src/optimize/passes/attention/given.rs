//! An Attention operator that the model has already: what lies around it to move its operands becomes a matter of strides.

use super::place::{exact_scale, joined, lay, operands, place};
use super::trace::{Operand, follow};
use super::{ALL, Stop, near};
use crate::ir::{Alias, NodeId, ValueId};
use crate::ops::attention::{Attention, Cache, Packing};
use crate::optimize::PassCtx;

/// Whether an operand was found beyond views of the same memory.
fn moved(cx: &PassCtx<'_, '_>, mut from: ValueId, found: &Operand) -> bool {
    while from != found.value {
        match cx.made_by(from).filter(|(_, n)| n.op.alias() == Alias::View).and_then(|(_, n)| n.inputs.first().copied())
        {
            Some(Some(x)) => from = x,
            _ => return true,
        }
    }
    false
}

/// Lets an operator of four axes take its operands from where they lie. Three axes are rows first, as they mostly lie anyway.
pub fn lay_given(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<(), Stop> {
    let apart = |a: &&Attention| a.packing == Packing::Apart && a.views.is_none() && !a.stacked;
    let Some(mut op) = cx.op::<Attention>(id).filter(apart).cloned() else { return Err(Stop::No) };
    let node = cx.graph().node(id).clone();
    let (&[Some(q), Some(k), Some(v), ..], &[Some(out), ..]) = (&node.inputs[..], &node.outputs[..]) else {
        return Err(Stop::No);
    };
    if [q, k, v].iter().any(|&x| cx.dims(x).is_none_or(|d| d.len() != ALL.len())) {
        return Err(Stop::No);
    }
    let input = |i: usize| node.inputs.get(i).copied().flatten();
    let output = |i: usize| node.outputs.get(i).copied().flatten();
    let presents = [output(1), output(2)];
    let keeps = input(4).is_some() || presents.iter().any(Option::is_some);
    // Rows stand after the past: what a row sees by its place it would see elsewhere, and valid keys are counted from the first.
    let by_place = op.causal || op.left.is_some() || op.right.is_some() || input(6).is_some();
    let others: Vec<ValueId> = node.inputs[3..].iter().copied().flatten().collect();
    let found = operands(cx, [(q, ALL), (k, ALL), (v, ALL)], None, !keeps && !by_place, &others)?;
    let [q_at, k_at, v_at] = &found;
    let Some(target) = follow(cx, out, ALL, None) else { return Err(Stop::No) };
    if ![(q, q_at), (k, k_at), (v, v_at)].iter().any(|&(x, o)| moved(cx, x, o)) && target.through.is_empty() {
        return Err(Stop::No);
    }
    if op.cache != Cache::Join {
        return near("the keys go into a buffer");
    }
    if keeps && k_at.scale != 1.0 {
        return near("the keys that it gives out are scaled");
    }
    let factor = q_at.scale * k_at.scale;
    if factor != 1.0 {
        let size = cx.dims(q).and_then(|d| d.last()?.size()).filter(|&n| n > 0);
        let usual = size.map(|n| (n as f64).sqrt().recip());
        let Some(own) = op.scale.map(f64::from).or(usual) else { return near("the scale is by a size not known") };
        op.scale = exact_scale(cx, q, own * factor);
    }
    let mut inputs = node.inputs.clone();
    let [keys, values] = joined(&found, &mut inputs).unwrap_or(presents.map(|v| Some((v?, None))));
    lay(cx, &mut op, &mut inputs, found, &target.order)?;
    place(cx, id, op, inputs, [keys, values, output(3).map(|v| (v, None))], &target)
}
