//! Axes of length 1 that come behind a transposition: in front of it they are part of an order that another one takes back.

use super::{inverse, order_of};
use crate::error::Result;
use crate::ir::{Alias, Dim, NodeId, ValueId};
use crate::ops::movement::Transpose;
use crate::optimize::PassCtx;
use crate::optimize::pass::shape_of;
use std::collections::HashSet;
use std::sync::Arc;

/// `view(transpose(x))` as `transpose(view(x))`, where its order and that of another transposition are each other's inverse: keys and
/// values that are turned, stacked and turned back.
pub fn before(cx: &mut PassCtx<'_, '_>) -> Result<()> {
    let orders: HashSet<Vec<usize>> = cx.order().into_iter().filter_map(|id| order_of(cx, id)).collect();
    for id in cx.order() {
        let Some((x, shape, perm)) = swapped(cx, id) else { continue };
        let last = perm.iter().enumerate().rposition(|(i, &p)| i != p).map_or(0, |last| last + 1);
        if last == 0 || !orders.contains(&inverse(&perm[..last])) {
            continue;
        }
        let gone = cx.graph().node(id).inputs.clone();
        let view = cx.reshape(x, &shape)?;
        cx.edit.replace_op(id, Arc::new(Transpose { perm: Some(perm) }), vec![Some(view)]);
        cx.prune(gone);
        cx.fired();
    }
    Ok(())
}

/// What a view that adds axes of 1 to a transposed value was made from, the shape that this gets, and the order behind it. An axis of 1
/// stays in front of the one in front of which it stands.
fn swapped(cx: &PassCtx<'_, '_>, id: NodeId) -> Option<(ValueId, Vec<i64>, Vec<usize>)> {
    let node = cx.node(id).filter(|n| n.op.alias() == Alias::View)?;
    let (turned, made) = (node.inputs.first().copied()??, node.outputs.first().copied()??);
    let (maker, t) = cx.maker::<Transpose>(turned).filter(|_| cx.used_once(turned))?;
    let x = cx.node(maker)?.inputs.first().copied()??;
    let (before, after, own) = (cx.dims(turned)?, cx.dims(made)?, cx.dims(x)?);
    let perm = t.perm.clone().unwrap_or_else(|| (0..before.len()).rev().collect());
    // For each axis of x the axes made of it: ones that stand in front, and itself.
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); own.len() + 1];
    let (mut ones, mut next) = (Vec::new(), 0);
    for (i, d) in after.iter().enumerate() {
        ones.push(i);
        if before.get(next).is_some_and(|b| b.same(d)) {
            *groups.get_mut(*perm.get(next)?)? = std::mem::take(&mut ones);
            next += 1;
        } else {
            (d.known() == Some(1)).then_some(())?;
        }
    }
    (next == before.len() && after.len() > next).then_some(())?;
    groups[own.len()] = ones;
    let there = groups.concat();
    let dims: Vec<&Dim> = there.iter().map(|&i| &after[i]).collect();
    Some((x, shape_of(dims.into_iter(), own)?, inverse(&there)))
}
