//! Rotary position embeddings that are written out: `x cos + rotate(x) sin`, where rotate swaps the halves of a head, or
//! neighbours in it, and negates one; or the parts on their own. The operator turns them in one step, heads where they lie.

use crate::error::Result;
use crate::ir::{Dim, Node, NodeId, Op, ValueId};
use crate::kernels::pointwise::UnaryOp;
use crate::ops::attention::{Positions, RotaryEmbedding};
use crate::ops::cast::Cast;
use crate::ops::movement::{Concat, Expand, Gather, Slice, Split, Tile, Transpose};
use crate::ops::pointwise::{BinaryFn, Unary};
use crate::ops::shape::{Identity, Reshape, Squeeze, Unsqueeze};
use crate::optimize::pass::{same_shape, shape_of};
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
            if let Some(turned) = whole(cx, out).or_else(|| parts(cx, out)) {
                fuse(cx, id, out, &turned)?;
            }
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
    /// Pairs are neighbours, not an element of each half.
    interleaved: bool,
    /// Each angle is there for both elements of a pair.
    doubled: bool,
}

/// One element of each pair along the last axis of `x`, which may have other axes.
struct Part {
    x: ValueId,
    late: bool,
    interleaved: bool,
    nodes: Vec<NodeId>,
}

impl Part {
    /// Whether both are of the same pairs, and which comes first.
    fn pairs(&self, late: &Part) -> bool {
        (self.x, self.late, self.interleaved) == (late.x, false, late.interleaved) && late.late
    }
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
fn concatenated(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<(NodeId, ValueId, ValueId)> {
    let (id, node) = cx.made_by(v)?;
    let axis = node.op.downcast::<Concat>()?.axis;
    let &[Some(a), Some(b)] = &node.inputs[..] else { return None };
    is_last(cx, axis, v).then_some((id, a, b))
}

fn is_last(cx: &PassCtx<'_, '_>, axis: i64, v: ValueId) -> bool {
    axis == -1 || cx.dims(v).is_some_and(|d| axis + 1 == d.len() as i64)
}

fn ints(cx: &PassCtx<'_, '_>, node: &Node, i: usize) -> Option<Vec<i64>> {
    cx.graph().fact(node.inputs.get(i).copied().flatten()?).as_tensor()?.ints().map(|v| v.to_vec())
}

/// The value without a last axis of 1, if an operator of `T` put it there or took it away.
fn beyond<T: Op>(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<(NodeId, ValueId)> {
    let (id, node) = cx.made_by(v).filter(|(_, n)| n.op.is::<T>())?;
    let x = node.inputs.first().copied().flatten()?;
    let &[axis] = &ints(cx, node, 1)?[..] else { return None };
    let longer = if cx.dims(v)?.len() > cx.dims(x)?.len() { v } else { x };
    is_last(cx, axis, longer).then_some((id, x))
}

/// Whether the last axis of `v` is made of the last two of `wide`, the last of which has two places, all others as they are.
fn flattens(cx: &PassCtx<'_, '_>, wide: ValueId, v: ValueId) -> bool {
    let (Some([lead @ .., n, two]), Some([own @ .., all])) = (cx.dims(wide), cx.dims(v)) else { return false };
    let double = matches!((n.known(), all.known()), (Some(n), Some(all)) if 2 * n == all);
    double && two.known() == Some(2) && same_shape(Some(lead), Some(own))
}

/// The elements of pairs, joined: as halves, or as neighbours by a new axis that is merged with the last.
fn joined(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<(Vec<NodeId>, ValueId, ValueId, bool)> {
    if let Some((id, a, b)) = concatenated(cx, v) {
        return Some((vec![id], a, b, false));
    }
    let (flat, node) = cx.made_by(v).filter(|(_, n)| n.op.is::<Reshape>())?;
    let wide = node.inputs.first().copied().flatten().filter(|&w| flattens(cx, w, v))?;
    let (join, a, b) = concatenated(cx, wide)?;
    let ((m, a), (n, b)) = (beyond::<Unsqueeze>(cx, a)?, beyond::<Unsqueeze>(cx, b)?);
    Some((vec![flat, join, m, n], a, b, true))
}

/// The value as the elements of pairs.
fn part(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<Part> {
    if let Some((squeeze, one)) = beyond::<Squeeze>(cx, v) {
        // One of a last axis of two, which is split.
        let (id, place) = cx.graph().value(one).producer?;
        let node = cx.node(id)?;
        let split = node.op.downcast::<Split>().filter(|s| is_last(cx, s.axis, one) && node.outputs.len() == 2);
        return neighbours(cx, node.inputs.first().copied().flatten().filter(|_| split.is_some())?, v, place == 1)
            .map(|p| Part { nodes: [p.nodes, vec![squeeze, id]].concat(), ..p });
    }
    let (id, place) = cx.graph().value(v).producer?;
    let node = cx.node(id)?;
    let x = node.inputs.first().copied().flatten()?;
    if let Some(g) = node.op.downcast::<Gather>() {
        let at = node.inputs.get(1).copied().flatten().filter(|&i| cx.dims(i).is_some_and(<[Dim]>::is_empty))?;
        let late = matches!(cx.integer(at)?, 1 | -1);
        let right = is_last(cx, g.axis, x) && (late || matches!(cx.integer(at)?, 0 | -2));
        return neighbours(cx, x, v, late).filter(|_| right).map(|p| Part { nodes: [p.nodes, vec![id]].concat(), ..p });
    }
    let (n, own) = (cx.dims(x)?.last()?.known()?, cx.dims(v)?.last()?.known()?);
    if 2 * own != n || cx.dims(v)?.len() != cx.dims(x)?.len() {
        return None;
    }
    let whole = |late: bool, interleaved: bool| Some(Part { x, late, interleaved, nodes: vec![id] });
    if let Some(s) = node.op.downcast::<Split>() {
        return whole(place == 1, false).filter(|_| is_last(cx, s.axis, x) && node.outputs.len() == 2);
    }
    node.op.is::<Slice>().then_some(())?;
    let step = if node.inputs.get(4).copied().flatten().is_some() { ints(cx, node, 4)? } else { vec![1] };
    let (&[start], &[axis], &[step]) = (&ints(cx, node, 1)?[..], &ints(cx, node, 3)?[..], &step[..]) else {
        return None;
    };
    let start = if start < 0 { start + n } else { start };
    is_last(cx, axis, x).then_some(())?;
    match (step, start) {
        (1, _) if start == 0 || start == own => whole(start == own, false),
        (2, 0 | 1) => whole(start == 1, true),
        _ => None,
    }
}

/// One place of a last axis of two, `wide`, which a reshape made: that of neighbours.
fn neighbours(cx: &PassCtx<'_, '_>, wide: ValueId, v: ValueId, late: bool) -> Option<Part> {
    let (id, node) = cx.made_by(wide).filter(|(_, n)| n.op.is::<Reshape>())?;
    let x = node.inputs.first().copied().flatten()?;
    let [lead @ .., two] = cx.dims(wide)? else { return None };
    let one = two.known() == Some(2) && same_shape(Some(lead), cx.dims(v));
    one.then_some(Part { x, late, interleaved: true, nodes: vec![id] })
}

/// `x cos + join(-second of each pair of x, first) sin`
fn whole(cx: &PassCtx<'_, '_>, out: ValueId) -> Option<Turned> {
    let (sum, p, q) = operands(cx, out, BinaryFn::Add)?;
    for (p, q) in orders(p, q) {
        let (Some((m, a, b)), Some((n, c, d))) = (operands(cx, p, BinaryFn::Mul), operands(cx, q, BinaryFn::Mul))
        else {
            continue;
        };
        for ((x, cos), (turned, sin)) in orders(a, b).into_iter().flat_map(|f| orders(c, d).map(|s| (f, s))) {
            let Some((mut nodes, first, second, interleaved)) = joined(cx, turned) else { continue };
            let Some((neg, node)) = cx.made_by(first).filter(|(_, n)| is_op(&*n.op, UnaryOp::Neg)) else { continue };
            let Some(negated) = node.inputs.first().copied().flatten() else { continue };
            let (Some(late), Some(early)) = (part(cx, negated), part(cx, second)) else { continue };
            if early.pairs(&late) && early.x == x && early.interleaved == interleaved {
                nodes.extend([sum, m, n, neg].into_iter().chain(late.nodes).chain(early.nodes));
                return Some(Turned { x, cos, sin, nodes, interleaved, doubled: true });
            }
        }
    }
    None
}

/// `join(first cos - second sin, second cos + first sin)`
fn parts(cx: &PassCtx<'_, '_>, out: ValueId) -> Option<Turned> {
    let (mut nodes, low, high, interleaved) = joined(cx, out)?;
    let (minus, a, b) = operands(cx, low, BinaryFn::Sub)?;
    let (plus, c, d) = operands(cx, high, BinaryFn::Add)?;
    let mut factors = |v: ValueId| -> Option<(Part, ValueId)> {
        let (m, p, q) = operands(cx, v, BinaryFn::Mul)?;
        let (part, angle) = orders(p, q).into_iter().find_map(|(h, angle)| Some((part(cx, h)?, angle)))?;
        nodes.extend(part.nodes.iter().copied().chain([m]));
        Some((part, angle))
    };
    let (a, b, c, d) = (factors(a)?, factors(b)?, factors(c)?, factors(d)?);
    let (c, d) = if c.0.late { (c, d) } else { (d, c) };
    let (x, cos, sin) = (a.0.x, a.1, b.1);
    let same = a.0.pairs(&b.0) && d.0.pairs(&c.0) && d.0.x == x && a.0.interleaved == d.0.interleaved;
    let right = same && a.0.interleaved == interleaved && c.1 == cos && d.1 == sin;
    nodes.extend([minus, plus]);
    right.then_some(Turned { x, cos, sin, nodes, interleaved, doubled: false })
}

/// Whether both elements of each pair of a row are known to be the same.
fn repeats(cx: &PassCtx<'_, '_>, mut v: ValueId, interleaved: bool) -> bool {
    for _ in 0..16 {
        if let Some(t) = cx.graph().fact(v).constant() {
            return same_pairs(t, interleaved);
        }
        if let Some((_, a, b, by_neighbours)) = joined(cx, v) {
            return a == b && by_neighbours == interleaved;
        }
        let wide = cx.maker::<Reshape>(v).and_then(|(id, _)| cx.node(id)?.inputs.first().copied().flatten());
        if let Some(wide) = wide.filter(|&w| flattens(cx, w, v)) {
            // A number that is repeated for both neighbours.
            let made = cx.made_by(wide).filter(|(_, n)| n.op.is::<Expand>() || n.op.is::<Tile>());
            let from = made.and_then(|(_, n)| cx.dims(n.inputs.first().copied().flatten()?)?.last()?.known());
            return interleaved && from == Some(1);
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

fn same_pairs(t: &Tensor, interleaved: bool) -> bool {
    let (bytes, size) = (t.bytes(), t.dtype().size().unwrap_or(0));
    let row = t.shape().last().copied().unwrap_or(0) * size;
    // Pairs are two numbers, or two halves of a row.
    let pair = if interleaved { 2 * size } else { row };
    pair > 0
        && pair.is_multiple_of(2)
        && row.is_multiple_of(pair)
        && bytes.chunks_exact(pair).all(|p| p[..pair / 2] == p[pair / 2..])
}

fn fuse(cx: &mut PassCtx<'_, '_>, id: NodeId, out: ValueId, t: &Turned) -> Result<()> {
    let doubled = t.doubled;
    let mut m = Match::default();
    m.nodes.extend(&t.nodes);
    if let Err(why) = closed(cx, &m, out) {
        cx.miss(id, || why);
        return Ok(());
    }
    let float = cx.dtype(t.x).is_some_and(|d| matches!(d, DType::F32 | DType::F16 | DType::BF16));
    // Neighbours may have got their own axis, and the others theirs, in one reshape.
    let own = same_shape(cx.dims(t.x), cx.dims(out)) || !t.interleaved;
    let dims = cx.dims(if own { t.x } else { out }).map(<[Dim]>::to_vec).unwrap_or_default();
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
    if doubled && !(repeats(cx, t.cos, t.interleaved) && repeats(cx, t.sin, t.interleaved)) {
        let what = if t.interleaved { "neighbours" } else { "halves" };
        cx.miss(id, || format!("the {what} of the angles are not known to be the same"));
        return Ok(());
    }
    let heads = if heads_first { outer.clone() } else { inner.clone() };
    let mut x = t.x;
    if !own {
        let Some(shape) = shape_of(dims.iter(), cx.dims(x).unwrap_or_default()) else {
            cx.miss(id, || "the axes of what is turned are not known".into());
            return Ok(());
        };
        x = cx.reshape(x, &shape)?;
    }
    let turn = cx.maker::<Transpose>(x).filter(|(_, p)| heads_first && p.perm.as_deref() == Some(&[0, 2, 1, 3]));
    let before = turn.and_then(|(n, _)| cx.node(n)?.inputs.first().copied().flatten());
    let flat = heads.size().filter(|&h| h > 0 && (before.is_some() || !heads_first));
    if flat.is_none() && !heads_first {
        cx.miss(id, || "the number of heads is not known".into());
        return Ok(());
    }
    let (cos, sin) = (angles(cx, t.cos, heads_first, t)?, angles(cx, t.sin, heads_first, t)?);
    let op = RotaryEmbedding {
        heads: flat,
        size: 0,
        interleaved: t.interleaved,
        partial: false,
        positions: Positions::Rows,
    };
    let name = cx.graph().value(out).name.clone();
    let Some(heads) = flat else {
        cx.substitute(out, Arc::new(op), vec![Some(x), Some(cos), Some(sin)])?;
        return Ok(());
    };
    // Rows of all heads, as they lie: the transposition comes after, and what follows it may see through it.
    let rows = cx.reshape(before.unwrap_or(x), &[0, 0, (heads * size) as i64])?;
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
fn angles(cx: &mut PassCtx<'_, '_>, v: ValueId, heads_first: bool, t: &Turned) -> Result<ValueId> {
    let name = cx.graph().value(v).name.clone();
    let dims = cx.dims(v).map(<[Dim]>::to_vec).unwrap_or_default();
    let list = |cx: &mut PassCtx<'_, '_>, what: &str, n: &[i64]| -> Result<Option<ValueId>> {
        Ok(Some(cx.edit.constant(&format!("{name}.{what}"), Tensor::from_slice(&[n.len()], n)?)))
    };
    let mut y = v;
    if t.doubled {
        let n = dims.last().and_then(Dim::known).unwrap_or(0);
        let (end, step) = if t.interleaved { (n, 2) } else { (n / 2, 1) };
        let [start, end, axis, step] =
            [("start", 0), ("end", end), ("axis", -1), ("step", step)].map(|(what, n)| list(cx, what, &[n]));
        let inputs = vec![Some(y), start?, end?, axis?, step?];
        y = cx.edit.node(&format!("{name}.half"), Arc::new(Slice), inputs, 1)?[0];
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
