//! Keeps the channels of 8-bit images together: integer convolutions, pools and elementwise programs over NHWC, transposed only
//! where something else reads or writes the image. The integer kernels work on places whose channels lie together; of NCHW they
//! would turn every input and every result.

use super::quantised::{quantised_by, real};
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Node, NodeId, Op, ValueId};
use crate::ops::movement::{Concat, Transpose};
use crate::ops::pointwise::Pointwise;
use crate::ops::pool::{GlobalPool, Pool, PoolKind};
use crate::ops::quant::{IntConvolution, IntPool};
use crate::optimize::{Pass, PassCtx};
use crate::tensor::DType;
use std::collections::HashMap;
use std::sync::Arc;

/// See the file's head.
pub struct ChannelsLast;

impl Pass for ChannelsLast {
    fn name(&self) -> &'static str {
        "channels_last"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        let mut turned = HashMap::new();
        for id in cx.order() {
            turned.extend(came_so(cx, id));
            let Some(plan) = plan(cx, id, &turned) else { continue };
            turn(cx, id, plan, &mut turned)?;
        }
        Ok(())
    }
}

/// For a value of NCHW the same of NHWC.
type Turned = HashMap<ValueId, ValueId>;

/// What a node becomes.
struct Plan {
    op: Arc<dyn Op>,
    /// Its inputs, of NCHW where they are images.
    inputs: Vec<Option<ValueId>>,
    /// Which of them are.
    images: Vec<usize>,
}

const INT8: [DType; 2] = [DType::U8, DType::I8];

/// The rank of an 8-bit image.
fn image(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<usize> {
    let t = cx.graph().fact(v).as_tensor()?;
    t.rank().filter(|&r| r >= 3 && INT8.contains(&t.dtype))
}

/// An image that a transposition brings from NHWC, and what it was.
fn came_so(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<(ValueId, ValueId)> {
    let (perm, node) = (cx.op::<Transpose>(id)?.perm.as_ref()?, cx.node(id)?);
    let (&[Some(x)], &[Some(out)]) = (&node.inputs[..], &node.outputs[..]) else { return None };
    let rank = image(cx, out)?;
    let back = [0, rank - 1].into_iter().chain(1..rank - 1);
    back.eq(perm.iter().copied()).then_some((out, x))
}

fn plan(cx: &PassCtx<'_, '_>, id: NodeId, turned: &Turned) -> Option<Plan> {
    let node = cx.node(id)?;
    let &[Some(out)] = &node.outputs[..] else { return None };
    let first = node.inputs.first().copied()??;
    let known = |v: ValueId| turned.contains_key(&v);
    if let Some(conv) = cx.op::<IntConvolution>(id) {
        let mut images = Vec::new();
        // An image of NCHW is turned by the convolution itself; a residual lies as the result does.
        let turn = known(first) && !conv.last[0];
        if turn {
            images.push(0);
        }
        if let (true, Some(Some(v))) = (conv.residual, node.inputs.get(9)) {
            known(*v).then(|| images.push(9))?;
        }
        let fits = conv.quantised && !conv.last[1] && image(cx, first).is_some();
        let op = IntConvolution { last: [turn || conv.last[0], true], ..conv.clone() };
        return fits.then(|| Plan { op: Arc::new(op), inputs: node.inputs.clone(), images });
    }
    if let Some(p) = cx.op::<Pointwise>(id) {
        return elementwise(cx, node, p, out, turned);
    }
    if let Some(c) = cx.op::<Concat>(id) {
        let rank = image(cx, out)?;
        let all = node.inputs.iter().all(|v| v.is_some_and(known));
        let axis = match resolve_axis(c.axis, rank).ok()? {
            0 => 0,
            1 => rank as i64 - 1,
            a => a as i64 - 1,
        };
        let images = (0..node.inputs.len()).collect();
        return all.then(|| Plan { op: Arc::new(Concat { axis }), inputs: node.inputs.clone(), images });
    }
    let greatest =
        |window| Plan { op: Arc::new(IntPool { window, mean: None }), inputs: vec![Some(first)], images: vec![0] };
    if let Some(pool) = cx.op::<Pool>(id) {
        return (pool.kind == PoolKind::Max && known(first)).then(|| greatest(Some(pool.window.clone())));
    }
    if let Some(pool) = cx.op::<GlobalPool>(id) {
        return (pool.kind == PoolKind::Max && known(first)).then(|| greatest(None));
    }
    // A mean between two scales.
    let (y, end, _) = quantised_by(cx, id)?;
    let (window, mean, maker) = match (cx.maker::<Pool>(y), cx.maker::<GlobalPool>(y)) {
        (Some((m, p)), _) if p.kind == PoolKind::Average => (Some(p.window.clone()), p.include_pad, m),
        (_, Some((m, p))) if p.kind == PoolKind::Average => (None, false, m),
        _ => return None,
    };
    let x = real(cx, cx.node(maker)?.inputs.first().copied()??, &INT8)?;
    let fits = x.axis.is_none() && known(x.q) && end.zero.is_some();
    let inputs = [Some(x.q), Some(x.scale), x.zero, Some(end.scale), end.zero].to_vec();
    fits.then(|| Plan { op: Arc::new(IntPool { window, mean: Some(mean) }), inputs, images: vec![0] })
}

/// A program all of whose operands are images that are turned already, or single numbers.
fn elementwise(cx: &PassCtx<'_, '_>, node: &Node, p: &Pointwise, out: ValueId, turned: &Turned) -> Option<Plan> {
    let rank = image(cx, out)?;
    let mut images = Vec::new();
    for (i, v) in node.inputs.iter().enumerate() {
        let v = (*v)?;
        if turned.contains_key(&v) && image(cx, v) == Some(rank) {
            images.push(i);
        } else if cx.graph().fact(v).as_tensor()?.count().known() != Some(1) {
            return None;
        }
    }
    (!images.is_empty()).then(|| Plan { op: Arc::new(p.clone()), inputs: node.inputs.clone(), images })
}

fn turn(cx: &mut PassCtx<'_, '_>, id: NodeId, plan: Plan, turned: &mut Turned) -> Result<()> {
    let Some(node) = cx.node(id) else { return Ok(()) };
    let (name, out) = (node.name.clone(), node.outputs[0]);
    let Some(rank) = out.and_then(|v| cx.graph().fact(v).as_tensor()?.rank()) else { return Ok(()) };
    let mut inputs = plan.inputs;
    for &i in &plan.images {
        inputs[i] = inputs[i].and_then(|v| turned.get(&v).copied());
    }
    let made = cx.edit.node(&format!("{name}/nhwc"), plan.op, inputs, 1)?;
    let perm = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    cx.edit.replace_op(id, Arc::new(Transpose { perm: Some(perm) }), vec![Some(made[0])]);
    if let Some(out) = out {
        turned.insert(out, made[0]);
    }
    cx.fired();
    Ok(())
}
