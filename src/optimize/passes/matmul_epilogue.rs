//! Lets a matrix product do what surrounds it: transposed or scaled operands, a number that scales it, the addition of a
//! residual, an activation; also where the result is reshaped first.

use super::activation::activation_of;
use super::product::Product;
use crate::error::Result;
use crate::ir::{Alias, Dim, Node, NodeId, ValueId};
use crate::ops::linear::MatMul;
use crate::ops::movement::Transpose;
use crate::ops::pointwise::BinaryFn;
use crate::optimize::pass::{same_shape, shape_of};
use crate::optimize::pattern::binary;
use crate::optimize::{Pass, PassCtx};
use crate::tensor::DType;
use std::sync::Arc;

/// `activation(alpha * op(A) * op(B) + row + residual)`, over rows as they lie. Residuals and activations only in f32: narrower types round between
/// the operators.
pub struct MatMulEpilogue;

impl Pass for MatMulEpilogue {
    fn name(&self) -> &'static str {
        "matmul_epilogue"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            while turned(cx, id).is_some() {}
            while scaled_operand(cx, id).is_some() {}
            let _ = rows(cx, id);
            let _ = scaled(cx, id);
            residual(cx, id)?;
            let _ = activation(cx, id);
        }
        Ok(())
    }
}

/// Reads an operand as it was before a transposition of its last two axes.
fn turned(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let op = cx.op::<MatMul>(id)?.clone();
    let node = cx.node(id)?.clone();
    for place in 0..2 {
        let Some((t, perm)) = cx.maker::<Transpose>(node.inputs[place]?).map(|(t, op)| (t, op.perm.clone())) else {
            continue;
        };
        let x = cx.node(t)?.inputs[0]?;
        let rank = cx.dims(x)?.len();
        let perm = perm.unwrap_or_else(|| (0..rank).rev().collect());
        let mut swapped: Vec<usize> = (0..rank).collect();
        if rank < 2 {
            continue;
        }
        swapped.swap(rank - 1, rank - 2);
        // With one B for all, the leading axes of A are more rows: only as it lies.
        if perm != swapped || place == 0 && rank > 2 {
            continue;
        }
        let mut inputs = node.inputs.clone();
        inputs[place] = Some(x);
        let op = match place {
            0 => MatMul { trans_a: !op.trans_a, ..op },
            _ => MatMul { trans_b: !op.trans_b, ..op },
        };
        let gone = node.inputs[place];
        cx.edit.replace_op(id, Arc::new(op), inputs);
        cx.prune(vec![gone]);
        cx.fired();
        return Some(());
    }
    None
}

/// Takes rows that a view puts into one axis, and another takes apart again, in the axes that they have then.
fn rows(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let op = cx.op::<MatMul>(id).filter(|m| !m.trans_a)?.clone();
    let inputs = cx.node(id)?.inputs.clone();
    let (&[Some(a), Some(b), ..], out) = (&inputs[..], cx.node(id)?.outputs.first().copied()??) else { return None };
    let row = inputs.get(2).copied().flatten().is_none_or(|c| cx.dims(c).is_some_and(|d| d.len() <= 1));
    (inputs.len() <= 3 && row && cx.dims(b)?.len() == 2 && cx.used_once(out)).then_some(())?;
    let view = |n: &Node| (n.op.alias() == Alias::View).then(|| n.inputs.first().copied().flatten())?;
    let &[user] = cx.edit.users(out) else { return None };
    let y = cx.node(user).filter(|n| view(n) == Some(out))?.outputs.first().copied()??;
    let ((columns, lead), width) = (cx.dims(y)?.split_last()?, cx.dims(a)?.last()?);
    columns.same(cx.dims(out)?.last()?).then_some(())?;
    let dims: Vec<Dim> = lead.iter().chain([width]).cloned().collect();
    let from = cx.made_by(a).and_then(|(_, n)| view(n))?;
    let x = match same_shape(cx.dims(from), Some(&dims)) {
        true => from,
        false => {
            let shape = shape_of(dims.iter(), cx.dims(from)?)?;
            cx.reshape(from, &shape).ok()?
        }
    };
    let inputs = [Some(x)].into_iter().chain(inputs[1..].iter().copied()).collect();
    cx.absorb(id, Arc::new(MatMul { gemm: false, ..op }), inputs, user, y);
    cx.prune(vec![Some(a)]);
    Some(())
}

/// The number that `v` is multiplied with, and what with.
fn scale_of(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<(ValueId, f64)> {
    let node = cx.node(id)?;
    let &[Some(x), Some(y)] = &node.inputs[..] else { return None };
    let (v, k) = match (binary(&*node.op)?, cx.scalar(x), cx.scalar(y)) {
        (BinaryFn::Mul, _, Some(k)) => (x, k),
        (BinaryFn::Div, _, Some(k)) => (x, 1.0 / k),
        (BinaryFn::Mul, Some(k), _) => (y, k),
        _ => return None,
    };
    let out = node.outputs.first().copied().flatten()?;
    // A number of higher rank would give the product more axes.
    (cx.dtype(out) == Some(DType::F32) && cx.dims(out)?.len() == cx.dims(v)?.len()).then_some((v, k))
}

/// `k * (A * B)`, where nothing is added yet.
fn scaled(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let (v, k) = scale_of(cx, id)?;
    let out = cx.node(id)?.outputs.first().copied().flatten()?;
    let p = Product::open(cx, v)?;
    let inputs = cx.node(p.id)?.inputs.clone();
    if inputs.len() > 2 {
        cx.miss(id, || "the product has a C, which is not scaled".into());
        return None;
    }
    let op = MatMul { alpha: (f64::from(p.op.alpha) * k) as f32, ..p.op.clone() };
    p.take(cx, op, inputs, id, out);
    Some(())
}

/// `(k * A) * B`, where nobody else reads the scaled operand.
fn scaled_operand(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let op = cx.op::<MatMul>(id)?.clone();
    let node = cx.node(id)?.clone();
    for place in 0..2 {
        let v = node.inputs.get(place).copied().flatten()?;
        let Some((by, _)) = cx.made_by(v).filter(|_| cx.used_once(v)) else { continue };
        let Some((x, k)) = scale_of(cx, by) else { continue };
        let mut inputs = node.inputs.clone();
        inputs[place] = Some(x);
        let alpha = (f64::from(op.alpha) * k) as f32;
        cx.edit.replace_op(id, Arc::new(MatMul { alpha, ..op }), inputs);
        cx.prune(vec![Some(v)]);
        cx.fired();
        return Some(());
    }
    None
}

/// `A * B + residual`.
fn residual(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<()> {
    let Some(node) = cx.node(id).filter(|n| binary(&*n.op) == Some(BinaryFn::Add)).cloned() else { return Ok(()) };
    let (&[Some(x), Some(y)], &[Some(out)]) = (&node.inputs[..], &node.outputs[..]) else { return Ok(()) };
    if x == y || cx.dtype(out) != Some(DType::F32) {
        return Ok(());
    }
    for (v, other) in [(y, x), (x, y)] {
        let Some(p) = Product::open(cx, v) else { continue };
        let mut inputs = cx.graph().node(p.id).inputs.clone();
        if inputs.len() > 3 {
            continue;
        }
        if !same_shape(cx.dims(v), cx.dims(other)) {
            cx.miss(id, || "the addend's shape is not known to be the product's".into());
            continue;
        }
        // A C that is there must be a row, as it comes.
        if let Some(c) = inputs.get(2).copied().flatten() {
            let own = cx.dims(p.out).filter(|d| d.len() > 1);
            let row = same_shape(cx.dims(c), own.map(|d| &d[d.len() - 1..]));
            if !row || p.op.beta != 1.0 {
                cx.miss(id, || "the product has a C that is no row".into());
                continue;
            }
        }
        let Some(other) = p.behind(cx, other)? else {
            cx.miss(id, || "the addend's shape before the product was reshaped is not known".into());
            continue;
        };
        inputs.resize(3, None);
        inputs.push(Some(other));
        let op = p.op.clone();
        p.take(cx, op, inputs, id, out);
        return Ok(());
    }
    Ok(())
}

fn activation(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Option<()> {
    let activation = activation_of(cx, id)?;
    let node = cx.node(id)?.clone();
    let (Some(&Some(x)), &[Some(out)]) = (node.inputs.first(), &node.outputs[..]) else { return None };
    let p = Product::open(cx, x)?;
    (cx.dtype(x) == Some(DType::F32)).then_some(())?;
    let inputs = cx.node(p.id)?.inputs.clone();
    let op = MatMul { activation, ..p.op.clone() };
    p.take(cx, op, inputs, id, out);
    Some(())
}
