//! Rotary position embeddings that are written out: `x cos + rotate(x) sin`, where rotate swaps the halves of a head and
//! negates one, or the halves on their own. The operator turns them in one step, heads where they lie.

use crate::error::Result;
use crate::ir::{Dim, NodeId, ValueId};
use crate::kernels::pointwise::UnaryOp;
use crate::ops::attention::{Positions, RotaryEmbedding};
use crate::ops::cast::Cast;
use crate::ops::movement::{Concat, Expand, Gather, Slice, Split, Transpose};
use crate::ops::pointwise::{BinaryFn, Unary};
use crate::ops::shape::{Identity, Squeeze, Unsqueeze};
use crate::optimize::pattern::{Match, binary, closed, is_op};
use crate::optimize::{Pass, PassCtx};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// Sums and halves become RotaryEmbedding.
pub struct Rotary;

impl Pass for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            let Some(out) = cx.node(id).and_then(|n| n.outputs.first().copied().flatten()) else { continue };
            let found = whole(cx, out).map(|t| (t, true)).or_else(|| halves(cx, out).map(|t| (t, false)));
            let Some((turned, doubled)) = found else { continue };
            fuse(cx, id, out, &turned, doubled)?;
        }
        Ok(())
    }
}

/// What is turned, and by what angles.
struct Turned {
    x: ValueId,
    cos: ValueId,
    sin: ValueId,
    nodes: Vec<NodeId>,
}

fn operands(cx: &PassCtx<'_, '_>, v: ValueId, f: BinaryFn) -> Option<(NodeId, ValueId, ValueId)> {
    let (id, node) = cx.made_by(v).filter(|(_, n)| binary(&*n.op) == Some(f))?;
    let &[Some(a), Some(b)] = &node.inputs[..] else { return None };
    Some((id, a, b))
}

/// Both orders of two operands.
fn orders<T: Copy>(a: T, b: T) -> [(T, T); 2] {
    [(a, b), (b, a)]
}

/// Joined along the last axis: two values.
fn pair(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<(NodeId, ValueId, ValueId)> {
    let (id, node) = cx.made_by(v)?;
    let axis = node.op.downcast::<Concat>()?.axis;
    let &[Some(a), Some(b)] = &node.inputs[..] else { return None };
    (axis == -1 || axis + 1 == cx.dims(v)?.len() as i64).then_some((id, a, b))
}

/// The value is a half of another along the last axis: that, and whether it is the second.
fn half(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<(NodeId, ValueId, bool)> {
    let (id, place) = cx.graph().value(v).producer?;
    let node = cx.node(id)?;
    let x = node.inputs.first().copied().flatten()?;
    let dims = cx.dims(x)?;
    let rank = dims.len() as i64;
    let (n, own) = (dims.last()?.known()?, cx.dims(v)?.last()?.known()?);
    let is_last = |a: i64| a == -1 || a == rank - 1;
    if 2 * own != n || cx.dims(v)?.len() != dims.len() {
        return None;
    }
    if let Some(s) = node.op.downcast::<Split>() {
        return (is_last(s.axis) && node.outputs.len() == 2).then_some((id, x, place == 1));
    }
    node.op.is::<Slice>().then_some(())?;
    let list = |i: usize| cx.graph().fact(node.inputs.get(i).copied().flatten()?).as_tensor()?.ints();
    let one = node.inputs.get(4).copied().flatten().is_none() || list(4)? == [1];
    let (&[start], &[axis]) = (&list(1)?[..], &list(3)?[..]) else { return None };
    let start = if start < 0 { start + n } else { start };
    (one && is_last(axis) && (start == 0 || start == own)).then_some((id, x, start == own))
}

/// `x cos + join(-second half of x, first half) sin`
fn whole(cx: &PassCtx<'_, '_>, out: ValueId) -> Option<Turned> {
    let (sum, p, q) = operands(cx, out, BinaryFn::Add)?;
    for (p, q) in orders(p, q) {
        let (Some((m, a, b)), Some((n, c, d))) = (operands(cx, p, BinaryFn::Mul), operands(cx, q, BinaryFn::Mul))
        else {
            continue;
        };
        for ((x, cos), (turned, sin)) in orders(a, b).into_iter().flat_map(|f| orders(c, d).map(|s| (f, s))) {
            let Some((join, first, second)) = pair(cx, turned) else { continue };
            let Some((neg, node)) = cx.made_by(first).filter(|(_, n)| is_op(&*n.op, UnaryOp::Neg)) else { continue };
            let Some(negated) = node.inputs.first().copied().flatten() else { continue };
            let (Some((h1, x1, late)), Some((h2, x2, early))) = (half(cx, negated), half(cx, second)) else { continue };
            if (x1, x2, late, early) == (x, x, true, false) {
                return Some(Turned { x, cos, sin, nodes: vec![sum, m, n, join, neg, h1, h2] });
            }
        }
    }
    None
}

/// `join(first cos - second sin, second cos + first sin)`
fn halves(cx: &PassCtx<'_, '_>, out: ValueId) -> Option<Turned> {
    let (join, low, high) = pair(cx, out)?;
    let (minus, a, b) = operands(cx, low, BinaryFn::Sub)?;
    let (plus, c, d) = operands(cx, high, BinaryFn::Add)?;
    let factors = |v: ValueId| -> Option<(NodeId, ValueId, bool, ValueId, NodeId)> {
        let (m, p, q) = operands(cx, v, BinaryFn::Mul)?;
        orders(p, q).into_iter().find_map(|(h, angle)| half(cx, h).map(|(id, x, late)| (id, x, late, angle, m)))
    };
    let (a, b) = (factors(a)?, factors(b)?);
    let (c, d) = orders(factors(c)?, factors(d)?).into_iter().find(|(c, _)| c.2)?;
    let (x, cos, sin) = (a.1, a.3, b.3);
    let right = !a.2 && b.2 && !d.2 && [b.1, c.1, d.1] == [x; 3] && c.3 == cos && d.3 == sin;
    let nodes = vec![join, minus, plus, a.0, b.0, c.0, d.0, a.4, b.4, c.4, d.4];
    right.then_some(Turned { x, cos, sin, nodes })
}

/// Whether both halves of each row are known to be the same.
fn repeats(cx: &PassCtx<'_, '_>, mut v: ValueId) -> bool {
    for _ in 0..16 {
        if let Some(t) = cx.graph().fact(v).constant() {
            return same_halves(t);
        }
        if let Some((_, a, b)) = pair(cx, v) {
            return a == b;
        }
        let Some((_, node)) = cx.made_by(v) else { return false };
        let rank = |v: ValueId| cx.dims(v).map_or(0, |d| d.len() as i64);
        let Some(x) = node.inputs.first().copied().flatten() else { return false };
        let last = |a: i64, v: ValueId| a == -1 || a == rank(v) - 1;
        let axes =
            |i: usize| node.inputs.get(i).copied().flatten().and_then(|a| cx.graph().fact(a).as_tensor()?.ints());
        let scaled = binary(&*node.op).is_some()
            && node.inputs.get(1).copied().flatten().is_some_and(|k| cx.scalar(k).is_some());
        let through = node.op.is::<Unary>() || node.op.is::<Cast>() || node.op.is::<Identity>() || scaled;
        let beside = match &*node.op {
            o if o.is::<Unsqueeze>() => axes(1).is_some_and(|a| a.iter().all(|&a| !last(a, v))),
            o if o.is::<Squeeze>() => axes(1).is_some_and(|a| a.iter().all(|&a| !last(a, x))),
            o if o.is::<Slice>() => axes(3).is_some_and(|a| a.iter().all(|&a| !last(a, x))),
            o => o.downcast::<Gather>().is_some_and(|g| !last(g.axis, x)) || o.is::<Expand>() && rank(x) > 0,
        };
        if !through && !beside {
            return false;
        }
        // An expansion that repeats one number has equal halves as well.
        v = x;
    }
    false
}

fn same_halves(t: &Tensor) -> bool {
    let bytes = t.bytes();
    let row = t.shape().last().copied().unwrap_or(0) * t.dtype().size().unwrap_or(0);
    row > 0 && row.is_multiple_of(2) && bytes.chunks_exact(row).all(|r| r[..row / 2] == r[row / 2..])
}

fn fuse(cx: &mut PassCtx<'_, '_>, id: NodeId, out: ValueId, t: &Turned, doubled: bool) -> Result<()> {
    let mut m = Match::default();
    m.nodes.extend(&t.nodes);
    if let Err(why) = closed(cx, &m, out) {
        cx.miss(id, || why);
        return Ok(());
    }
    let float = cx.dtype(t.x).is_some_and(|d| matches!(d, DType::F32 | DType::F16 | DType::BF16));
    let dims = cx.dims(t.x).map(<[Dim]>::to_vec).unwrap_or_default();
    let [batch, outer, inner, size] = &dims[..] else {
        cx.miss(id, || format!("what is turned has {} axes", dims.len()));
        return Ok(());
    };
    let Some(size) = size.size().filter(|_| float) else { return Ok(()) };
    let pairs = if doubled { size as i64 } else { size as i64 / 2 };
    // The angles: heads share them, so one of the middle axes is 1.
    let lie = |v: ValueId| -> Option<bool> {
        let d = cx.dims(v)?;
        let at = |back: usize| d.len().checked_sub(back).map_or(Some(1), |i| d[i].known());
        let same = |back: usize, x: &Dim| d.len() >= back && d[d.len() - back].same(x);
        let items = at(4) == Some(1) || same(4, batch);
        (d.len() <= 4 && items && d.last()?.known() == Some(pairs)).then_some(())?;
        match () {
            () if at(3) == Some(1) && same(2, inner) => Some(true),
            () if at(2) == Some(1) && same(3, outer) => Some(false),
            () => None,
        }
    };
    let Some(heads_first) = lie(t.cos).filter(|&l| lie(t.sin) == Some(l)) else {
        cx.miss(id, || "the angles are not known to be those of items and rows".into());
        return Ok(());
    };
    if doubled && !(repeats(cx, t.cos) && repeats(cx, t.sin)) {
        cx.miss(id, || "the halves of the angles are not known to be the same".into());
        return Ok(());
    }
    let heads = if heads_first { outer.clone() } else { inner.clone() };
    let turn = cx.maker::<Transpose>(t.x).filter(|(_, p)| heads_first && p.perm.as_deref() == Some(&[0, 2, 1, 3]));
    let before = turn.and_then(|(n, _)| cx.node(n)?.inputs.first().copied().flatten());
    let flat = heads.size().filter(|&h| h > 0 && (before.is_some() || !heads_first));
    if flat.is_none() && !heads_first {
        cx.miss(id, || "the number of heads is not known".into());
        return Ok(());
    }
    let (cos, sin) = (angles(cx, t.cos, heads_first, doubled)?, angles(cx, t.sin, heads_first, doubled)?);
    let op = RotaryEmbedding { heads: flat, size: 0, interleaved: false, partial: false, positions: Positions::Rows };
    let name = cx.graph().value(out).name.clone();
    let Some(heads) = flat else {
        cx.substitute(out, Arc::new(op), vec![Some(t.x), Some(cos), Some(sin)])?;
        return Ok(());
    };
    // Rows of all heads, as they lie: the transposition comes after, and what follows it may see through it.
    let rows = cx.reshape(before.unwrap_or(t.x), &[0, 0, (heads * size) as i64])?;
    let inputs = vec![Some(rows), Some(cos), Some(sin)];
    let turned = cx.edit.node(&format!("{name}.rows"), Arc::new(op), inputs, 1)?[0];
    let mut y = cx.reshape(turned, &[0, 0, heads as i64, size as i64])?;
    if before.is_some() {
        let perm = Arc::new(Transpose { perm: Some(vec![0, 2, 1, 3]) });
        y = cx.edit.node(&format!("{name}.heads"), perm, vec![Some(y)], 1)?[0];
    }
    let Some((last, _)) = cx.graph().value(y).producer else { return Ok(()) };
    cx.edit.move_output(last, 0, out);
    cx.edit.remove(id);
    cx.fired();
    Ok(())
}

/// The angles as `[items or 1, rows, pairs]`.
fn angles(cx: &mut PassCtx<'_, '_>, v: ValueId, heads_first: bool, doubled: bool) -> Result<ValueId> {
    let name = cx.graph().value(v).name.clone();
    let dims = cx.dims(v).map(<[Dim]>::to_vec).unwrap_or_default();
    let list = |cx: &mut PassCtx<'_, '_>, what: &str, n: &[i64]| -> Result<Option<ValueId>> {
        Ok(Some(cx.edit.constant(&format!("{name}.{what}"), Tensor::from_slice(&[n.len()], n)?)))
    };
    let mut y = v;
    if doubled {
        let half = dims.last().and_then(Dim::known).unwrap_or(0) / 2;
        let (start, end, axis) = (list(cx, "start", &[0])?, list(cx, "end", &[half])?, list(cx, "axis", &[-1])?);
        y = cx.edit.node(&format!("{name}.half"), Arc::new(Slice), vec![Some(y), start, end, axis], 1)?[0];
    }
    // The heads' axis goes, one for items comes where there is none.
    let at = if heads_first { 3 } else { 2 };
    if dims.len() >= at && (dims.len() == 4 || !heads_first) {
        let axis = list(cx, "heads", &[-(at as i64)])?;
        y = cx.edit.node(&format!("{name}.rows"), Arc::new(Squeeze), vec![Some(y), axis], 1)?[0];
    }
    if cx.dims(y).is_some_and(|d| d.len() == 2) {
        let axis = list(cx, "items", &[0])?;
        y = cx.edit.node(&format!("{name}.items"), Arc::new(Unsqueeze), vec![Some(y), axis], 1)?[0];
    }
    Ok(y)
}
