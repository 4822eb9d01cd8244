//! Algebraic identities: operators that change nothing, undo each other, or are dearer than another way to say the same.

use crate::error::Result;
use crate::ir::{Dim, NodeId, Op, ValueId};
use crate::kernels::pointwise::UnaryOp;
use crate::ops::cast::Cast;
use crate::ops::movement::{Concat, Expand, Pad, Slice, Tile, Transpose};
use crate::ops::pointwise::{Binary, BinaryFn, Where};
use crate::ops::shape::Reshape;
use crate::optimize::pattern::{binary, is_op};
use crate::optimize::{Pass, PassCtx};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// `x * 1`, `x + 0`, `-(-x)`, `x^2`, casts of casts, transpositions of transpositions, parts that are the whole.
pub struct Algebra;

impl Pass for Algebra {
    fn name(&self) -> &'static str {
        "algebra"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            if let Some((from, to)) = same_as(cx, id) {
                cx.edit.replace_uses(to, from);
                cx.edit.remove(id);
                cx.fired();
            } else if let Some((op, inputs)) = simpler(cx, id)? {
                let old = cx.graph().node(id).inputs.clone();
                cx.edit.replace_op(id, op, inputs);
                cx.prune(old);
                cx.fired();
            }
        }
        Ok(())
    }
}

/// Whether both have the same, certain shape.
fn same_dims(cx: &PassCtx<'_, '_>, a: ValueId, b: ValueId) -> bool {
    match (cx.dims(a), cx.dims(b)) {
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
        _ => false,
    }
}

/// The operand that the node's only output equals, and that output.
fn same_as(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<(ValueId, ValueId)> {
    let node = cx.node(id)?;
    let &[Some(out)] = &node.outputs[..] else { return None };
    let at = |i: usize| node.inputs.get(i).copied().flatten();
    let x = at(0)?;
    let op = &*node.op;
    let from = if let Some(f) = binary(op) {
        let y = at(1)?;
        match (f, cx.scalar(x), cx.scalar(y)) {
            (BinaryFn::Mul | BinaryFn::Div | BinaryFn::Pow, _, Some(1.0)) => x,
            (BinaryFn::Add | BinaryFn::Sub, _, Some(0.0)) => x,
            (BinaryFn::Mul, Some(1.0), _) | (BinaryFn::Add, Some(0.0), _) => y,
            _ => return None,
        }
    } else if is_op(op, UnaryOp::Neg) || is_op(op, UnaryOp::Not) {
        let (_, inner) = cx.made_by(x)?;
        let f = if is_op(op, UnaryOp::Neg) { UnaryOp::Neg } else { UnaryOp::Not };
        is_op(&*inner.op, f).then_some(())?;
        inner.inputs.first().copied().flatten()?
    } else if op.is::<Cast>() || op.is::<Expand>() || op.is::<Tile>() || op.is::<Concat>() && node.inputs.len() == 1 {
        x
    } else if op.is::<Slice>() {
        // As long as the whole: the whole, unless it is walked backwards.
        let forward = match at(4) {
            Some(v) => cx.graph().fact(v).as_tensor()?.ints()?.iter().all(|&s| s > 0),
            None => true,
        };
        forward.then_some(x)?
    } else if op.is::<Pad>() {
        let pads = cx.graph().fact(at(1)?).as_tensor()?.ints()?;
        pads.iter().all(|&p| p == 0).then_some(x)?
    } else if op.is::<Where>() {
        let t = cx.graph().fact(x).constant().filter(|t| t.dtype() == DType::Bool && !t.is_empty())?;
        let first = t.bytes().first().map(|&b| b != 0)?;
        t.bytes().iter().all(|&b| (b != 0) == first).then_some(())?;
        if first { at(1)? } else { at(2)? }
    } else if let Some(t) = op.downcast::<Transpose>() {
        let perm = t.perm.as_ref()?;
        perm.iter().enumerate().all(|(i, &p)| i == p).then_some(x)?
    } else {
        return None;
    };
    (same_dims(cx, from, out) && cx.dtype(from) == cx.dtype(out)).then_some((from, out))
}

type Replacement = (Arc<dyn Op>, Vec<Option<ValueId>>);

/// Another operator for the node, over other values.
fn simpler(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<Option<Replacement>> {
    let Some(node) = cx.node(id).cloned() else { return Ok(None) };
    let (Some(&Some(x)), &[Some(out)]) = (node.inputs.first(), &node.outputs[..]) else { return Ok(None) };
    let second = node.inputs.get(1).copied().flatten();
    if let Some(c) = node.op.downcast::<Cast>() {
        return Ok(cast(cx, c, x, out));
    }
    if binary(&*node.op) == Some(BinaryFn::Pow) && second.and_then(|e| cx.scalar(e)) == Some(2.0) {
        let narrow = matches!(cx.dtype(x), Some(DType::F32 | DType::F64)) && same_dims(cx, x, out);
        return Ok(narrow.then(|| (Arc::new(Binary::new(BinaryFn::Mul)) as _, vec![Some(x), Some(x)])));
    }
    if let Some(t) = node.op.downcast::<Transpose>() {
        return transpose(cx, t, x, out);
    }
    Ok(None)
}

/// A cast of a cast that lost nothing; a cast to another value's type, which is known.
fn cast(cx: &PassCtx<'_, '_>, c: &Cast, x: ValueId, out: ValueId) -> Option<Replacement> {
    let to = cx.dtype(out)?;
    let plain = |c: &Cast| Cast { to: Some(to), ..*c };
    let Some(_) = c.to else { return Some((Arc::new(plain(c)), vec![Some(x)])) };
    let (inner, made) = cx.maker::<Cast>(x)?;
    made.to?;
    let from = cx.node(inner)?.inputs.first().copied().flatten()?;
    let exact = matches!(
        (cx.dtype(from)?, cx.dtype(x)?),
        (DType::F16 | DType::BF16, DType::F32 | DType::F64)
            | (DType::F32, DType::F64)
            | (DType::I32 | DType::U32, DType::I64)
            | (DType::I8 | DType::U8 | DType::I16 | DType::U16, DType::I32 | DType::I64)
    );
    exact.then(|| (Arc::new(plain(c)) as _, vec![Some(from)]))
}

/// Two transpositions as one; one that moves only axes of length 1 as a view.
fn transpose(cx: &mut PassCtx<'_, '_>, t: &Transpose, x: ValueId, out: ValueId) -> Result<Option<Replacement>> {
    let Some(dims) = cx.dims(x).map(<[Dim]>::to_vec) else { return Ok(None) };
    let reverse = || (0..dims.len()).rev().collect::<Vec<_>>();
    let perm = t.perm.clone().unwrap_or_else(reverse);
    if let Some((inner, first)) = cx.maker::<Transpose>(x)
        && let Some(from) = cx.node(inner).and_then(|n| n.inputs.first().copied().flatten())
    {
        let first = first.perm.clone().unwrap_or_else(reverse);
        let both: Option<Vec<usize>> = perm.iter().map(|&p| first.get(p).copied()).collect();
        return Ok(both.map(|p| (Arc::new(Transpose { perm: Some(p) }) as _, vec![Some(from)])));
    }
    let moved: Vec<usize> =
        perm.iter().copied().filter(|&p| dims.get(p).is_some_and(|d| d.known() != Some(1))).collect();
    let unknown = perm.iter().filter(|&&p| dims.get(p).is_none_or(|d| d.size().is_none_or(|n| n == 0))).count();
    if !moved.is_sorted() || unknown > 1 {
        return Ok(None);
    }
    let shape: Vec<i64> = perm.iter().map(|&p| dims[p].known().unwrap_or(-1)).collect();
    if shape.contains(&0) {
        return Ok(None);
    }
    let name = format!("{}.shape", cx.graph().value(out).name);
    let shape = cx.edit.constant(&name, Tensor::from_slice(&[shape.len()], &shape)?);
    Ok(Some((Arc::new(Reshape { allow_zero: false }), vec![Some(x), Some(shape)])))
}
