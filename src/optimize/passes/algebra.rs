//! Algebraic identities: operators that change nothing, undo each other, or are dearer than another way to say the same.

use crate::error::Result;
use crate::ir::build::infer_op;
use crate::ir::op::resolve_axis;
use crate::ir::{Alias, Dim, Fact, Node, NodeId, Op, ValueId};
use crate::kernels::pointwise::UnaryOp;
use crate::kernels::reduce::ReduceKind;
use crate::ops::cast::Cast;
use crate::ops::movement::{Concat, Expand, Pad, Slice, Split, Tile, Transpose};
use crate::ops::pointwise::{Binary, BinaryFn, Unary, UnaryFn, Where};
use crate::ops::reduce::Reduce;
use crate::ops::shape::{Flatten, Reshape, Squeeze, Unsqueeze};
use crate::optimize::pass::same_shape;
use crate::optimize::pattern::{binary, commuted, is_op};
use crate::optimize::{Pass, PassCtx};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// `x * 1`, `x - 0`, `-(-x)`, `x^2`, `x / 4`, `max(x, 0)`, casts of casts, transpositions of transpositions, views of views,
/// parts that are the whole, what is expanded where it would be broadcast, `sqrt` and squares however they are written.
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
            // -0 + 0 is 0: only the other zero changes nothing.
            (BinaryFn::Add, _, Some(0.0)) if negative_zero(cx, y) => x,
            (BinaryFn::Add, Some(0.0), _) if negative_zero(cx, x) => y,
            (BinaryFn::Sub, _, Some(0.0)) if !negative_zero(cx, y) => x,
            (BinaryFn::Mul, Some(1.0), _) => y,
            _ => return None,
        }
    } else if is_op(op, UnaryOp::Neg) || is_op(op, UnaryOp::Not) {
        let (_, inner) = cx.made_by(x)?;
        let f = if is_op(op, UnaryOp::Neg) { UnaryOp::Neg } else { UnaryOp::Not };
        is_op(&*inner.op, f).then_some(())?;
        inner.inputs.first().copied().flatten()?
    } else if op.is::<Cast>() {
        // Of the same type, whatever the shape is.
        return (cx.dtype(x).is_some() && cx.dtype(x) == cx.dtype(out)).then_some((x, out));
    } else if let Some((split, s)) = op.downcast::<Concat>().and_then(|_| cx.maker::<Split>(x)) {
        joined_again(cx, node, split, s)?
    } else if op.is::<Split>() || op.is::<Expand>() || op.is::<Tile>() || op.is::<Concat>() && node.inputs.len() == 1 {
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
    } else if op.is::<Where>() && cx.graph().fact(x).constant().is_none() {
        beyond_threshold(cx, x, at(1)?, at(2)?)?
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
    (same_shape(cx.dims(from), cx.dims(out)) && cx.dtype(from) == cx.dtype(out)).then_some((from, out))
}

/// `softplus(k x) / k`, if a test chooses x itself in the place of it only where both are the same number, up to rounding.
fn beyond_threshold(cx: &PassCtx<'_, '_>, test: ValueId, x: ValueId, y: ValueId) -> Option<ValueId> {
    let (_, greater) = cx.made_by(test).filter(|(_, n)| binary(&*n.op) == Some(BinaryFn::Greater))?;
    let &[Some(scaled), Some(threshold)] = &greater.inputs[..] else { return None };
    let epsilon = match cx.dtype(x)? {
        DType::F64 => f64::EPSILON,
        DType::F32 => f64::from(f32::EPSILON),
        DType::BF16 => half::bf16::EPSILON.to_f64(),
        _ => half::f16::EPSILON.to_f64(),
    };
    // softplus(t) - t is less than e^-t, and falls as t grows: half a unit in the last place of t at most.
    let t = cx.scalar(threshold)?;
    (t > 0.0 && (-t).exp() <= t * epsilon / 2.0).then_some(())?;
    // k times x, for what is a factor or a divisor.
    let times = |v: ValueId| {
        let (_, n) = cx.made_by(v)?;
        let &[Some(a), Some(b)] = &n.inputs[..] else { return None };
        match binary(&*n.op)? {
            BinaryFn::Mul => cx.scalar(b).map(|k| (a, k)).or_else(|| cx.scalar(a).map(|k| (b, k))),
            BinaryFn::Div => cx.scalar(b).map(|k| (a, 1.0 / k)),
            _ => None,
        }
    };
    let (from, k) = if scaled == x { (y, 1.0) } else { times(y)? };
    let (back, by) = if scaled == x { (x, 1.0) } else { times(scaled)? };
    let (_, softplus) = cx.made_by(from).filter(|(_, n)| is_op(&*n.op, UnaryOp::Softplus))?;
    let same =
        back == x && by > 0.0 && (k * by - 1.0).abs() <= epsilon && softplus.inputs.first() == Some(&Some(scaled));
    same.then_some(y)
}

/// Whether a constant zero has a minus sign.
fn negative_zero(cx: &PassCtx<'_, '_>, v: ValueId) -> bool {
    cx.scalar(v).is_some_and(f64::is_sign_negative)
}

/// What was split, if a node joins all parts of it again in their order.
fn joined_again(cx: &PassCtx<'_, '_>, concat: &Node, split: NodeId, s: &Split) -> Option<ValueId> {
    let parts = cx.node(split)?;
    let whole = parts.inputs.first().copied()??;
    let rank = cx.dims(whole)?.len();
    let axis = resolve_axis(concat.op.downcast::<Concat>()?.axis, rank).ok()?;
    (concat.inputs == parts.outputs && resolve_axis(s.axis, rank).ok()? == axis).then_some(whole)
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
    if let Some(power) = power(cx, &node, x, out) {
        return Ok(Some(power));
    }
    if let Some(t) = node.op.downcast::<Transpose>() {
        return transpose(cx, t, x, out);
    }
    if let Some(cast) = viewed_cast(cx, &node, x)? {
        return Ok(Some(cast));
    }
    if node.op.is::<Reshape>() {
        return reshape(cx, x, out);
    }
    if let Some(b) = node.op.downcast::<Binary>().filter(|b| b.axis.is_none()) {
        if let Some(chosen) = chosen(cx, id) {
            return Ok(Some(chosen));
        }
        let first = bound(cx, b.f, x, second).or_else(|| inverse(cx, b.f, x, second));
        return Ok(first.or_else(|| unexpanded(cx, &node, out)));
    }
    if node.op.is::<Where>() {
        return Ok(unexpanded(cx, &node, out));
    }
    Ok(None)
}

/// The square or the square root of `x`, however it is written.
fn power(cx: &PassCtx<'_, '_>, node: &Node, x: ValueId, out: ValueId) -> Option<Replacement> {
    let second = node.inputs.get(1).copied().flatten()?;
    let wide = matches!(cx.dtype(x), Some(DType::F32 | DType::F64)) && same_shape(cx.dims(x), cx.dims(out));
    let unsigned = cx.made_by(x).filter(|(_, n)| is_op(&*n.op, UnaryOp::Abs)).and_then(|(_, n)| n.inputs[0]);
    let square = |x: ValueId| -> Replacement { (Arc::new(Binary::new(BinaryFn::Mul)), vec![Some(x), Some(x)]) };
    match (binary(&*node.op)?, cx.scalar(second)) {
        (BinaryFn::Pow, Some(2.0)) if wide => Some(square(unsigned.unwrap_or(x))),
        (BinaryFn::Mul, _) if second == x => unsigned.map(square),
        (BinaryFn::Pow, Some(0.5)) if wide && is_positive(cx, x) => {
            Some((Arc::new(Unary { f: UnaryFn::Op(UnaryOp::Sqrt) }), vec![Some(x)]))
        }
        _ => None,
    }
}

/// Whether a value is a sum or mean of squares or sizes. Of a number below zero, and of minus zero, the power 0.5 is no square root.
fn is_positive(cx: &PassCtx<'_, '_>, v: ValueId) -> bool {
    let Some((_, node)) = cx.made_by(v) else { return false };
    let Some(&Some(x)) = node.inputs.first() else { return false };
    match node.op.downcast::<Reduce>().map(|r| r.kind) {
        Some(ReduceKind::Sum | ReduceKind::Mean) => is_positive(cx, x),
        Some(ReduceKind::SumSquare | ReduceKind::L1 | ReduceKind::L2) => true,
        Some(_) => false,
        None => is_op(&*node.op, UnaryOp::Abs) || binary(&*node.op) == Some(BinaryFn::Mul) && node.inputs[1] == Some(x),
    }
}

/// `test * x + (not test) * y`, as tf2onnx writes a choice. What is not chosen is no number times 0.
fn chosen(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<Replacement> {
    let ([(a, b), _], out) = commuted(cx, id, BinaryFn::Add)?;
    // A factor that is 0 or 1: the test, and the other factor.
    let factor = |v: ValueId| -> Option<[(ValueId, ValueId); 2]> {
        let (mul, _) = cx.made_by(v).filter(|_| cx.used_once(v))?;
        let (orders, _) = commuted(cx, mul, BinaryFn::Mul)?;
        Some(orders)
    };
    let test = |v: ValueId| -> Option<ValueId> {
        let (cast, _) = cx.maker::<Cast>(v)?;
        cx.node(cast)?.inputs.first().copied()?.filter(|&t| cx.dtype(t) == Some(DType::Bool))
    };
    let (first, second) = (factor(a)?, factor(b)?);
    let pairs = first.iter().flat_map(|f| second.iter().map(move |s| (f, s)));
    let (t, x, y) = pairs.into_iter().find_map(|(f, s)| {
        let (p, q) = (test(f.0)?, test(s.0)?);
        let not = |v: ValueId| cx.made_by(v).filter(|(_, n)| is_op(&*n.op, UnaryOp::Not))?.1.inputs.first().copied()?;
        match () {
            () if not(q) == Some(p) => Some((p, f.1, s.1)),
            () if not(p) == Some(q) => Some((q, s.1, f.1)),
            () => None,
        }
    })?;
    let op: Arc<dyn Op> = Arc::new(Where);
    let facts = [t, x, y].map(|v| cx.graph().fact(v));
    let new = infer_op(&op, &facts, 1).ok()?;
    let fits = same_shape(new.first()?.as_tensor()?.dims.as_deref(), cx.dims(out));
    fits.then(|| (op, vec![Some(t), Some(x), Some(y)]))
}

/// The larger or smaller of a value and a number: a limit, which kernels can apply to their results.
fn bound(cx: &PassCtx<'_, '_>, f: BinaryFn, x: ValueId, y: Option<ValueId>) -> Option<Replacement> {
    let y = y?;
    let (x, k) = match (cx.scalar(x), cx.scalar(y)) {
        (_, Some(k)) => (x, k),
        (Some(k), _) => (y, k),
        _ => return None,
    };
    let numbers =
        [x, y].into_iter().filter(|&v| cx.scalar(v).is_some()).all(|v| cx.dims(v).is_some_and(<[Dim]>::is_empty));
    if cx.dtype(x) != Some(DType::F32) || !numbers || k.is_nan() {
        return None;
    }
    let k = Some(k as f32);
    let f = match f {
        BinaryFn::Max => UnaryFn::Clip { low: k, high: None },
        BinaryFn::Min => UnaryFn::Clip { low: None, high: k },
        _ => return None,
    };
    Some((Arc::new(Unary { f }), vec![Some(x)]))
}

/// A quotient by a power of two as a product, which is as exact.
fn inverse(cx: &mut PassCtx<'_, '_>, f: BinaryFn, x: ValueId, y: Option<ValueId>) -> Option<Replacement> {
    let y = y.filter(|_| f == BinaryFn::Div)?;
    let t = cx.graph().fact(y).constant().filter(|t| t.dtype() == DType::F32)?.clone();
    let exact = |&c: &f32| c.is_normal() && (1.0 / c).is_normal() && c.to_bits() & 0x007f_ffff == 0;
    let of = t.as_slice::<f32>().ok().filter(|s| s.iter().all(exact))?;
    let of: Vec<f32> = of.iter().map(|c| 1.0 / c).collect();
    let name = format!("{}.inverse", cx.graph().value(y).name);
    let k = cx.edit.constant(&name, Tensor::from_slice(t.shape(), &of).ok()?);
    Some((Arc::new(Binary::new(BinaryFn::Mul)), vec![Some(x), Some(k)]))
}

/// Operands as they were before they were expanded, where the operator broadcasts them to the same shape itself.
fn unexpanded(cx: &PassCtx<'_, '_>, node: &Node, out: ValueId) -> Option<Replacement> {
    for (i, v) in node.inputs.iter().enumerate() {
        let Some((expand, _)) = v.and_then(|v| cx.maker::<Expand>(v)) else { continue };
        let mut inputs = node.inputs.clone();
        inputs[i] = cx.node(expand)?.inputs.first().copied()?;
        let facts: Vec<&Fact> = inputs.iter().flatten().map(|&v| cx.graph().fact(v)).collect();
        let Ok(new) = infer_op(&node.op, &facts, 1) else { continue };
        let dims = new.first()?.as_tensor()?.dims.as_deref();
        let same = match (dims, cx.dims(out)) {
            (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            _ => false,
        };
        if same {
            return Some((node.op.clone(), inputs));
        }
    }
    None
}

/// A view of a view.
fn reshape(cx: &mut PassCtx<'_, '_>, x: ValueId, out: ValueId) -> Result<Option<Replacement>> {
    let Some((_, inner)) = cx.made_by(x) else { return Ok(None) };
    let is_view =
        inner.op.is::<Reshape>() || inner.op.is::<Squeeze>() || inner.op.is::<Unsqueeze>() || inner.op.is::<Flatten>();
    let from = inner.inputs.first().copied().flatten();
    let sizes: Option<Vec<i64>> = cx.dims(out).map(|d| d.iter().map(|d| d.known().unwrap_or(-1)).collect());
    let (Some(from), Some(sizes), true) = (from, sizes, is_view) else { return Ok(None) };
    // One open size follows from the others, which must not be zero.
    if sizes.iter().filter(|&&s| s < 0).count() > 1 || sizes.contains(&0) {
        return Ok(None);
    }
    let name = format!("{}.shape", cx.graph().value(out).name);
    let shape = cx.edit.constant(&name, Tensor::from_slice(&[sizes.len()], &sizes)?);
    Ok(Some((Arc::new(Reshape { allow_zero: false }), vec![Some(from), Some(shape)])))
}

/// Integers become floats behind a view or a part of them, next to what reads the floats.
fn viewed_cast(cx: &mut PassCtx<'_, '_>, node: &Node, x: ValueId) -> Result<Option<Replacement>> {
    let Some((cast, _)) = cx.maker::<Cast>(x).filter(|(_, c)| c.to.is_some_and(DType::is_float)) else {
        return Ok(None);
    };
    let Some(&Some(from)) = cx.graph().node(cast).inputs.first() else { return Ok(None) };
    if node.op.alias() != Alias::View && !node.op.is::<Slice>()
        || !cx.used_once(x)
        || !cx.dtype(from).is_some_and(|d| d.is_int() || d == DType::Bool)
    {
        return Ok(None);
    }
    let op = cx.graph().node(cast).op.clone();
    let name = format!("{}.view", cx.graph().value(from).name);
    let inputs = [&[Some(from)], &node.inputs[1..]].concat();
    let view = cx.edit.node(&name, node.op.clone(), inputs, 1)?[0];
    Ok(Some((op, vec![Some(view)])))
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
