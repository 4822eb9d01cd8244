//! Puts the attention operator where it belongs: over its operands as they lie, and with its result as it is wanted.

use super::trace::{Operand, Target, trace};
use super::{ALL, Stop, near};
use crate::error::Result;
use crate::ir::build::infer_op;
use crate::ir::{Dim, Fact, NodeId, Op, ValueId};
use crate::ops::attention::{Attention, Role, Views};
use crate::ops::movement::Transpose;
use crate::optimize::PassCtx;
use crate::optimize::pass::{Regroup, same_shape};
use crate::tensor::DType;
use std::sync::Arc;

/// Where queries, keys and values, each with its roles, lie; `heads` and `joins` are those of [`trace`], and `others` what else the
/// operator is given.
pub fn operands(
    cx: &PassCtx<'_, '_>,
    of: [(ValueId, &[Role]); 3],
    heads: Option<&Dim>,
    joins: bool,
    others: &[ValueId],
) -> std::result::Result<[Operand; 3], Stop> {
    let [(q, q_roles), (k, k_roles), (v, v_roles)] = of;
    let traced = |joins| {
        [trace(cx, q, q_roles, heads, false), trace(cx, k, k_roles, heads, joins), trace(cx, v, v_roles, heads, joins)]
    };
    let mut found = traced(joins);
    if let [Some(_), Some(k_at), Some(v_at)] = &found {
        let pasts = [&k_at.past, &v_at.past].into_iter().flatten();
        let presents: Vec<ValueId> = pasts.clone().map(|p| p.both).collect();
        let given = others.iter().copied().chain(pasts.map(|p| p.rows)).chain([q, k_at.value, v_at.value]);
        // A mask made from the length of past and new rows needs them before attention, which cannot join them then.
        if cx.depends_on(given, &presents) {
            found = traced(false);
        }
    }
    let [Some(q_at), Some(k_at), Some(v_at)] = found else {
        return near("an operand lies so that its rows are not contiguous");
    };
    // Past keys and past values go together, and queries have none.
    let axes = if heads.is_some() { 4 } else { q_roles.len() };
    if q_at.past.is_some() || k_at.past.is_some() != v_at.past.is_some() || axes < 4 && k_at.past.is_some() {
        return near("past keys or values without the other");
    }
    if v_at.scale != 1.0 {
        return near("the values are scaled");
    }
    Ok([q_at, k_at, v_at])
}

/// The scale as the operator is told it for such queries. A narrow type rounds the usual one; the operator knows that exactly.
pub fn exact_scale(cx: &PassCtx<'_, '_>, q: ValueId, scale: f64) -> Option<f32> {
    let dtype = cx.dtype(q);
    let digits = if dtype == Some(DType::F16) { 1e-3 } else { 8e-3 };
    let narrow = matches!(dtype, Some(DType::F16 | DType::BF16));
    let size = cx.dims(q).and_then(|d| d.last()?.size()).filter(|&n| n > 0 && narrow);
    let usual = size.is_some_and(|n| (scale * (n as f64).sqrt() - 1.0).abs() < digits);
    (!usual).then_some(scale as f32)
}

/// A value that the operator makes beside its result, and the order of the operator's axes there, if it is another.
pub type Other = (ValueId, Option<Vec<usize>>);

/// Gives the operator the past that was told from new rows. The values that held both, which it makes then.
pub fn joined(found: &[Operand; 3], inputs: &mut Vec<Option<ValueId>>) -> Option<[Option<Other>; 2]> {
    let (k, v) = (found[1].past.clone()?, found[2].past.clone()?);
    inputs.resize(inputs.len().max(6), None);
    (inputs[4], inputs[5]) = (Some(k.rows), Some(v.rows));
    Some([k, v].map(|p| Some((p.both, p.order))))
}

/// Lets the operator see its operands, its first three inputs, where they lie, and write its result in the order told.
pub fn lay(
    cx: &mut PassCtx<'_, '_>,
    op: &mut Attention,
    inputs: &mut [Option<ValueId>],
    found: [Operand; 3],
    order: &[Role],
) -> Result<()> {
    let plain = order == ALL && found.iter().all(|o| o.is_plain() && o.axes.is_none());
    for (o, input) in found.iter().zip(inputs) {
        *input = Some(o.axes.as_ref().map_or(Ok(o.value), |axes| axes.of_value(cx, o.value))?);
    }
    op.views = (!plain).then(|| Arc::new(Views { operands: found.map(|o| o.view), result: order.to_vec() }));
    Ok(())
}

/// Puts the operator in the place of node `id` and of those that its result goes through. `others` are the joined keys and values
/// that it makes too, and the scores; what made them goes.
pub fn place(
    cx: &mut PassCtx<'_, '_>,
    id: NodeId,
    op: Attention,
    inputs: Vec<Option<ValueId>>,
    others: [Option<Other>; 3],
    target: &Target,
) -> std::result::Result<(), Stop> {
    let op: Arc<dyn Op> = Arc::new(op);
    let outputs = 1 + others.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    if let Some(why) = unfit(cx, id, &op, &inputs, (&others, target)) {
        // Views made for it have no other use.
        cx.prune(inputs);
        return near(why);
    }
    let name = cx.graph().value(target.value).name.clone();
    let gone = cx.graph().node(id).inputs.clone();
    let values = cx.edit.node(&name, op, inputs, outputs)?;
    let mut made = values[0];
    if target.regrouped {
        let Some(axes) = view_of(cx, cx.graph().fact(made), target.value) else { return Err(Stop::No) };
        made = axes.of_value(cx, made)?;
    }
    let Some((maker, _)) = cx.graph().value(made).producer else { return Err(Stop::No) };
    cx.edit.move_output(maker, 0, target.value);
    for (other, &made) in others.into_iter().zip(&values[1..]) {
        let Some((v, order)) = other else {
            cx.edit.drop_output(made);
            continue;
        };
        let made = match order {
            Some(order) => {
                let name = cx.graph().value(v).name.clone();
                cx.edit.node(&name, Arc::new(Transpose { perm: Some(order) }), vec![Some(made)], 1)?[0]
            }
            None => made,
        };
        let (maker, place) = (cx.graph().value(v).producer, cx.graph().value(made).producer);
        place.into_iter().for_each(|(n, place)| cx.edit.move_output(n, place as usize, v));
        maker.into_iter().map(|m| m.0).filter(|&n| n != id).for_each(|n| cx.edit.remove(n));
    }
    cx.edit.remove(id);
    target.through.iter().for_each(|&n| cx.edit.remove(n));
    cx.prune(gone);
    cx.fired();
    Ok(())
}

/// What makes a result the value that it goes to.
fn view_of(cx: &PassCtx<'_, '_>, y: &Fact, v: ValueId) -> Option<Regroup> {
    Regroup::of(cx.dims(v)?, y.as_tensor()?.dims.as_deref()?)
}

/// Why the operator would not make the values in the place of node `id`.
fn unfit(
    cx: &PassCtx<'_, '_>,
    id: NodeId,
    op: &Arc<dyn Op>,
    inputs: &[Option<ValueId>],
    (others, target): (&[Option<Other>; 3], &Target),
) -> Option<String> {
    let facts: Vec<&Fact> = inputs.iter().map(|v| v.map_or(&Fact::Absent, |v| cx.graph().fact(v))).collect();
    let made = match infer_op(op, &facts, 4) {
        Ok(f) => f,
        Err(e) => return Some(e.to_string()),
    };
    let y = made.first()?;
    if target.regrouped && view_of(cx, y, target.value).is_none() {
        return Some("more than one size of the result is open".into());
    }
    let [keys, values, scores] = [0, 1, 2].map(|i| others[i].as_ref().map(|o| o.0));
    let dims = made.get(3).and_then(Fact::as_tensor).and_then(|t| t.dims.as_deref());
    if scores.is_some_and(|v| !same_shape(cx.dims(v), dims)) {
        return Some("the scores that it gives out are not known to be of batches and heads".into());
    }
    if cx.depends_on(inputs.iter().copied().flatten(), scores.as_slice()) {
        return Some("an operand is made from the scores".into());
    }
    // Keys that the node gave out itself must have the heads that they had.
    let heads = |f: &Fact| f.as_tensor().and_then(|t| t.dims.as_ref()?.get(1).cloned());
    let own = |v: &ValueId| cx.graph().value(*v).producer.is_some_and(|p| p.0 == id);
    [keys, values].into_iter().zip(made.iter().skip(1)).find_map(|(v, made)| {
        let was = heads(cx.graph().fact(v.filter(own)?));
        let same = matches!((heads(made), was), (Some(a), Some(b)) if a.same(&b));
        (!same).then(|| "the keys or values that it gives out have repeated heads".into())
    })
}
